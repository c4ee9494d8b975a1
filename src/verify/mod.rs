//! Who signed a commit or a tag, and whether that counts.
//!
//! Everything happens in this process: neither gpg nor ssh-keygen is needed. Which keys count
//! is said by files on this host, never by the repository or its server.
//!
//! # What counts as signed
//!
//! A commit by the signature in its header (`gpgsig`), an annotated tag by the one at its end;
//! made with SSH (`gpg.format=ssh`) or PGP. Where the release is a tag, the tag's signature
//! or that of its commit is enough.
//!
//! # Which time counts
//!
//! An SSH signature has no time of its own: `valid-after` and `valid-before` are held against
//! the committer's (tagger's) time, as git does. An PGP key must not have been expired
//! when the signature says it was made. Both times are claims of whoever signed; a key that
//! got into wrong hands is therefore to be taken out of the file or put into `revoked_keys`,
//! which counts whatever the time.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod keys;
mod object;
mod openpgp;
mod ssh;

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::domain::{RefName, Revision, Verify};
use crate::error::{ExitCode, Failure};

use keys::Keys;

/// A commit or an annotated tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its id.
    pub id: Revision,
    /// What it is.
    pub kind: Kind,
    /// Its content, which has that id.
    pub content: Vec<u8>,
}

impl Object {
    /// Whether this is a tag that calls itself so. A ref may give an older tag, with a good
    /// signature, the name of a newer one.
    pub fn is_named(&self, name: &RefName) -> bool {
        let name = name.as_str().trim_start_matches("refs/").trim_start_matches("tags/");
        self.kind == Kind::Tag && object::tag_name(&self.content) == Some(name.as_bytes())
    }
}

/// The kinds of objects that can be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A commit.
    Commit,
    /// An annotated tag.
    Tag,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Commit => "commit",
            Kind::Tag => "tag",
        };
        write!(f, "{kind} {}", self.id)
    }
}

/// A signature that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// `commit 91ab77c…`
    pub object: String,
    /// The key.
    pub key: Key,
    /// The file that lists it.
    pub file: PathBuf,
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is signed by {} of `{}`", self.object, self.key, self.file.display())
    }
}

/// A key as people tell it from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// `ED25519 SHA256:…` or `OpenPGP 0123…`
    pub fingerprint: String,
    /// Whose it is according to the file, if the file knows it.
    pub owner: Option<String>,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Some(owner) => write!(f, "{owner} ({})", self.fingerprint),
            None => f.write_str(&self.fingerprint),
        }
    }
}

/// Why nothing is deployed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of keys cannot be read.
    #[error("cannot read `{}`, which says whose signatures count", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of keys could have been written by anybody.
    #[error("`{}` says whose signatures count, and others could change it: {why}", path.display())]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// It or a directory above it, and who could change that.
        why: String,
        /// What mends it.
        remedy: String,
    },
    /// A file of keys that holds none.
    #[error("`{}` holds no key whose signature could count: {why}", path.display())]
    NoKeys {
        /// The file.
        path: PathBuf,
        /// What it holds instead.
        why: String,
    },
    /// A file of revoked keys that is not understood.
    #[error("`{}` is not understood as a list of revoked keys: {why}", path.display())]
    Revocations {
        /// The file.
        path: PathBuf,
        /// What stands there.
        why: String,
    },
    /// There is no signature.
    #[error("{object} is not signed")]
    Unsigned {
        /// What.
        object: String,
        /// The files that say whose signature would count.
        files: String,
    },
    /// A signature by a key that is not listed.
    #[error("{object} is signed by {key}, which {files} does not list")]
    UnknownKey {
        /// What.
        object: String,
        /// The key's fingerprint or id.
        key: String,
        /// The files consulted.
        files: String,
    },
    /// A signature that is not one of this content, or not of a kind that counts.
    #[error("the signature of {object} does not hold: {why}")]
    Bad {
        /// What.
        object: String,
        /// Why.
        why: String,
        /// The files consulted.
        files: String,
    },
    /// A signature by a listed key that must not have made it.
    #[error("{object} is signed by {key} of `{}`, and {why}", file.display())]
    KeyNotValid {
        /// What.
        object: String,
        /// The key.
        key: Key,
        /// The file that lists it.
        file: PathBuf,
        /// Expired, revoked, not meant for signing …
        why: String,
    },
}

impl Error {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Unreadable { path, .. } => {
                format!("put the public keys into `{}`, readable by this user", path.display())
            }
            Self::Unsafe { remedy, .. } => remedy.clone(),
            Self::NoKeys { .. } => {
                "write lines as for git's gpg.ssh.allowedSignersFile (`ada@example.com ssh-ed25519 AAAA…`), or what `gpg --export --armor` gives".into()
            }
            Self::Revocations { .. } => {
                "write one public SSH key or fingerprint a line".into()
            }
            Self::Unsigned { files, .. } => format!(
                "sign it (`git commit -S`, `git tag -s`) with a key that {files} lists"
            ),
            Self::UnknownKey { files, .. } => {
                format!("if the signer is to be trusted, add the key to {files}; else find out who this is")
            }
            Self::Bad { files, .. } => {
                format!("do not deploy it before you know why; sign again with a key that {files} lists")
            }
            Self::KeyNotValid { .. } => "sign it again with a key that is valid".into(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from_error(ExitCode::Refused, &error).hint(error.hint())
    }
}

/// Checks that one of `objects`, which all stand for the same commit, bears a signature that
/// counts. What is odd about the files of keys is told to `warn`.
///
/// # Errors
/// Any [`Error`]: of several objects, that of the first that is signed at all.
pub fn signature(
    objects: &[Object],
    wanted: &Verify,
    warn: &dyn Fn(&str),
) -> Result<Signed, Error> {
    let keys = Keys::load(wanted, warn)?;
    let mut first: Option<Error> = None;
    for object in objects {
        match one(object, &keys) {
            Ok(signed) => return Ok(signed),
            Err(error) => {
                let better = matches!(first, None | Some(Error::Unsigned { .. }))
                    && !(first.is_some() && matches!(error, Error::Unsigned { .. }));
                if better {
                    first = Some(error);
                }
            }
        }
    }
    Err(first.unwrap_or_else(|| Error::Unsigned { object: "nothing".into(), files: keys.files() }))
}

fn one(object: &Object, keys: &Keys) -> Result<Signed, Error> {
    let name = object.to_string();
    let bad = |why: String| Error::Bad { object: name.clone(), why, files: keys.files() };
    let parts = match object.kind {
        Kind::Commit => object::commit(&object.content),
        Kind::Tag => object::tag(&object.content),
    };
    let parts = parts.map_err(|why| bad(why.into()))?;
    let Some(signature) = &parts.signature else {
        return Err(Error::Unsigned { object: name, files: keys.files() });
    };
    let verdict = match object::format(signature) {
        object::Format::Ssh => ssh::verify(&parts.payload, signature, parts.time, keys),
        object::Format::OpenPgp => openpgp::verify(&parts.payload, signature, keys),
        object::Format::X509 => Err(Verdict::Bad("X.509 signatures are not supported".into())),
        object::Format::Unknown => Err(Verdict::Bad("it is of no known kind".into())),
    };
    match verdict {
        Ok((key, file)) => Ok(Signed { object: name, key, file }),
        Err(Verdict::Bad(why)) => Err(bad(why)),
        Err(Verdict::Unknown(key)) => {
            Err(Error::UnknownKey { object: name, key, files: keys.files() })
        }
        Err(Verdict::NotValid { key, file, why }) => {
            Err(Error::KeyNotValid { object: name, key, file, why })
        }
    }
}

/// Why a signature does not count.
#[derive(Debug)]
enum Verdict {
    /// It is not a signature of this content.
    Bad(String),
    /// The key is not listed.
    Unknown(String),
    /// The key is listed and must not have signed this.
    NotValid { key: Key, file: PathBuf, why: String },
}

/// A time as messages show it.
fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(
        |_| format!("{seconds} s"),
        |time| time.strftime("%Y-%m-%d %H:%MZ").to_string(),
    )
}
