//! What can go wrong with objects of Git LFS besides the network itself.

use super::pointer::{Object, ObjectId};
use crate::diagnostic::quoted;
use crate::domain::RepoUrl;
use crate::error::ExitCode;
use crate::mirror::failure::{Failure, Retry};

/// How many of a kind are named.
const NAMED: usize = 3;

/// Objects by the files that they are for: what messages name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The first of them.
    pub object: ObjectId,
    /// Its bytes.
    pub size: u64,
    /// Some of the files, and how many more there are.
    pub paths: String,
}

impl Named {
    /// One object, by the paths of its files.
    pub(super) fn new(object: Object, paths: &[String]) -> Self {
        Self { object: object.oid, size: object.size, paths: listed(paths) }
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (object {}, {} bytes)", self.paths, self.object, self.size)
    }
}

/// Some of these, quoted, and how many more there are.
pub(super) fn listed(paths: &[String]) -> String {
    let mut text = paths.iter().take(NAMED).map(|path| quoted(path)).collect::<Vec<_>>().join(", ");
    if paths.len() > NAMED {
        text += &format!(" and {} more", paths.len() - NAMED);
    }
    text
}

/// Why an object is not here, or not on the disk.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The server does not have them.
    #[error("`{url}` does not have the content of {}{}", objects(.named), said(.words))]
    Missing {
        /// The server.
        url: RepoUrl,
        /// Which.
        named: Vec<Named>,
        /// Its words.
        words: String,
    },
    /// The server has it, and does not give it away.
    #[error("`{url}` refuses the content of {named} with code {code}{}", said(.words))]
    Refused {
        /// The server.
        url: RepoUrl,
        /// Which.
        named: Named,
        /// What for.
        code: u16,
        /// Its words.
        words: String,
    },
    /// The server's answer has nothing of use about it.
    #[error("`{url}` cannot be asked for the content of {named}: {what}")]
    Strange {
        /// The server.
        url: RepoUrl,
        /// Which.
        named: Named,
        /// What is wrong with it.
        what: &'static str,
    },
    /// What came, or would come, is longer or shorter than the pointer says.
    #[error("`{from}` has {found} bytes for {named}")]
    Size {
        /// Who gives it, without what is secret of it.
        from: RepoUrl,
        /// Which.
        named: Named,
        /// How long it is; `more` if that is not known.
        found: String,
    },
    /// What came is something else.
    #[error("what `{from}` gives for {named} is something else: its SHA-256 is {found}")]
    Content {
        /// Who gave it, without what is secret of it.
        from: RepoUrl,
        /// Which.
        named: Named,
        /// What it is.
        found: ObjectId,
    },
    /// Something answers, and it is no server of Git LFS.
    #[error("what answers at `{url}` is not a Git LFS server: {answer}")]
    NotLfs {
        /// What was asked.
        url: RepoUrl,
        /// What it said.
        answer: String,
    },
    /// The server does not do it now, or not for us.
    #[error("`{url}` answers with HTTP status {status}{}", said(.words))]
    Unwilling {
        /// What was asked.
        url: RepoUrl,
        /// The status.
        status: u16,
        /// Its words.
        words: String,
    },
    /// `git-lfs-authenticate`, on an SSH server.
    #[error("`{url}` does not say over SSH where its Git LFS objects are: {what}")]
    Authenticate {
        /// The repository.
        url: RepoUrl,
        /// What was wrong.
        what: String,
    },
    /// A repository on this host that does not have it.
    #[error("`{url}` does not have the content of {named}")]
    NotLocal {
        /// The repository.
        url: RepoUrl,
        /// Which.
        named: Named,
    },
    /// `.lfsconfig` cannot be read.
    #[error("`.lfsconfig` cannot be followed: {what}")]
    Config {
        /// Why.
        what: &'static str,
    },
    /// Two pointers of one object say different sizes.
    #[error("the Git LFS pointers of {named} and of {} do not agree about its size", quoted(.other))]
    Contradiction {
        /// One of them.
        named: Named,
        /// The file of the other one.
        other: String,
    },
    /// An object in the mirror is not what it was.
    #[error("the Git LFS object {oid} in the mirror is damaged")]
    Damaged {
        /// Which.
        oid: ObjectId,
    },
    /// An object is not in the mirror.
    #[error("the Git LFS object {oid} is not in the mirror")]
    NotHere {
        /// Which.
        oid: ObjectId,
    },
    /// How a host is reached that objects lie on.
    #[error("there is no way to `{url}`: {why}")]
    NoWay {
        /// The host.
        url: RepoUrl,
        /// Why.
        why: String,
    },
    /// Trouble on the way.
    #[error("cannot download the content of {named}")]
    Download {
        /// Which.
        named: Named,
        /// What went wrong.
        source: Box<Failure>,
    },
    /// Trouble with the question.
    #[error("cannot ask `{url}` for {count} Git LFS objects, {paths}")]
    Ask {
        /// The server.
        url: RepoUrl,
        /// How many.
        count: usize,
        /// Their files.
        paths: String,
        /// What went wrong.
        source: Box<Failure>,
    },
}

fn said(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(" (it says: {words})") }
}

fn objects(named: &[Named]) -> String {
    let mut text = named.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if named.len() > NAMED {
        text += &format!(" and {} more objects", named.len() - NAMED);
    }
    text
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Lfs(Box::new(problem))
    }
}

impl Problem {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { .. } | Self::NotLocal { .. } => {
                "push them from a clone that has them: `git lfs push --all <remote>`; or check that the credential may read Git LFS objects".into()
            }
            Self::Refused { .. } => "see what the server says of it, and the server's log".into(),
            Self::Strange { .. } => {
                "check the server's configuration, and what is between it and this host".into()
            }
            Self::Size { .. } | Self::Content { .. } => {
                "something on the way changes it, or the server's storage is damaged: compare with `git lfs fetch` elsewhere".into()
            }
            Self::NotLfs { .. } => {
                "enable Git LFS for the repository on the server, or correct `lfs.url` in `.lfsconfig`; a proxy or a login page may be in between".into()
            }
            Self::Unwilling { status: 507 | 509, .. } => {
                "the quota for Git LFS storage or bandwidth is used up: see the billing of the repository's owner".into()
            }
            Self::Unwilling { .. } => {
                "see what the server says, and whether its owner's quota for Git LFS is used up".into()
            }
            Self::Authenticate { .. } => {
                "use an `https://` source, or a server that knows `git-lfs-authenticate`".into()
            }
            Self::NoWay { .. } => "correct `proxy` for this host, or the environment".into(),
            Self::Config { .. } => "correct `.lfsconfig` in the repository".into(),
            Self::Contradiction { .. } => "correct the pointers in the repository".into(),
            Self::Damaged { .. } | Self::NotHere { .. } => {
                "run `multideployer fetch`: it is downloaded again".into()
            }
            Self::Ask { source, .. } if matches!(**source, Failure::NotFoundOrForbidden { .. }) => {
                "enable Git LFS for the repository on the server; or check that the credential may read it, or `lfs.url` in `.lfsconfig`".into()
            }
            Self::Download { source, .. } | Self::Ask { source, .. } => return source.hint(),
        })
    }

    /// What the batch server said to the credential.
    pub fn asked(&self) -> Option<&Failure> {
        if let Self::Ask { source, .. } = self { Some(source) } else { None }
    }

    /// Whether trying again may help: what is inside has been tried again already.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Download { source, .. } | Self::Ask { source, .. } => source.retry(),
            Self::Missing { .. }
            | Self::Refused { .. }
            | Self::Strange { .. }
            | Self::Size { .. }
            | Self::Content { .. }
            | Self::NotLfs { .. }
            | Self::Unwilling { .. }
            | Self::Authenticate { .. }
            | Self::NotLocal { .. }
            | Self::Config { .. }
            | Self::Contradiction { .. }
            | Self::Damaged { .. }
            | Self::NoWay { .. }
            | Self::NotHere { .. } => Retry::Never,
        }
    }

    /// What the run ends with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Download { source, .. } | Self::Ask { source, .. } => source.exit_code(),
            Self::Config { .. } | Self::Contradiction { .. } => ExitCode::Refused,
            Self::Missing { .. }
            | Self::Refused { .. }
            | Self::Strange { .. }
            | Self::Size { .. }
            | Self::Content { .. }
            | Self::NotLfs { .. }
            | Self::Unwilling { .. }
            | Self::Authenticate { .. }
            | Self::NotLocal { .. }
            | Self::Damaged { .. }
            | Self::NoWay { .. }
            | Self::NotHere { .. } => ExitCode::Fetch,
        }
    }
}
