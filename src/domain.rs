//! The words everything else is written in: parsed once, valid for ever.
//!
//! Nothing here touches a file, the network or the environment.

mod check;
mod when;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub use check::{Check, Probe};
pub use when::{Elsewhere, Facts, Glob, GlobError, When};

/// The name of an application: `[A-Za-z0-9_][A-Za-z0-9._+=,@-]{0,99}`.
///
/// Names become directory names and reach a root shell inside codedeploy-local 1.x
/// unquoted, so this is a security boundary and not a matter of taste.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct AppName(String);

impl AppName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The codedeploy-local deployment group. It is the identity of the app on the host
    /// (clean-up lists and `ApplicationStop` hang on it) and therefore never changes.
    pub fn deployment_group(&self) -> String {
        format!("{}-local-deployment-application", self.0)
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not an [`AppName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppNameError {
    /// No text at all.
    #[error("the name is empty")]
    Empty,
    /// Longer than CodeDeploy allows.
    #[error("the name has {0} characters; at most 100 are allowed")]
    TooLong(usize),
    /// A character outside the allowed ones.
    #[error("the name contains {0:?}; allowed are letters, digits and `._+=,@-`")]
    Character(char),
    /// A first character that would make an option or a hidden file of it.
    #[error("the name begins with {0:?}; it must begin with a letter, a digit or `_`")]
    First(char),
}

impl FromStr for AppName {
    type Err = AppNameError;

    fn from_str(text: &str) -> Result<Self, AppNameError> {
        let first = text.chars().next().ok_or(AppNameError::Empty)?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_.+=,@-".contains(c);
        if let Some(c) = text.chars().find(|c| !allowed(*c)) {
            return Err(AppNameError::Character(c));
        }
        if !(first.is_ascii_alphanumeric() || first == '_') {
            return Err(AppNameError::First(first));
        }
        if text.len() > 100 {
            return Err(AppNameError::TooLong(text.len()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A full commit id: 40 hexadecimal digits, kept in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision([u8; 20]);

impl Revision {
    /// The id's 20 bytes.
    pub fn bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// A revision from its 20 bytes.
    pub fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The first seven digits, for people.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(7);
        text
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Revision {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that is not a full commit id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a full commit id of 40 hexadecimal digits")]
pub struct RevisionError;

impl FromStr for Revision {
    type Err = RevisionError;

    fn from_str(text: &str) -> Result<Self, RevisionError> {
        let digits = text.as_bytes();
        if digits.len() != 40 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(RevisionError);
        }
        let mut bytes = [0; 20];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| RevisionError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| RevisionError)?;
        }
        Ok(Self(bytes))
    }
}

/// What the manifest asks for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// One exact commit.
    Commit(Revision),
    /// A branch, a tag or an abbreviated commit id, to be resolved by the remote before
    /// anything is planned. Version 1.0 files allow it, with a warning.
    Name(RefName),
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit(revision) => revision.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// A branch, a tag or an abbreviated commit id as the manifest has it: a valid git
/// reference name, so it can stand in a refspec without meaning anything else there.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct RefName(String);

impl RefName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this can be an abbreviated commit id: 7 to 39 hexadecimal digits.
    pub fn may_be_abbreviation(&self) -> bool {
        (7..40).contains(&self.0.len()) && self.0.bytes().all(|b| b.is_ascii_hexdigit())
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that git does not accept as the name of a branch or tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a commit id, and not a name that git allows for a branch or tag")]
pub struct RefNameError;

impl FromStr for RefName {
    type Err = RefNameError;

    /// The rules of `git check-ref-format --allow-onelevel`, and no leading `-`.
    fn from_str(text: &str) -> Result<Self, RefNameError> {
        let bad_char = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
        let bad_part =
            |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
        if text.is_empty()
            || text.len() > 200
            || text == "@"
            || text.starts_with('-')
            || text.ends_with('.')
            || text.contains("..")
            || text.contains("@{")
            || text.contains(bad_char)
            || text.split('/').any(bad_part)
        {
            return Err(RefNameError);
        }
        Ok(Self(text.to_owned()))
    }
}

/// Where an app's repository is. Never holds a credential.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RepoUrl {
    /// `https://host[:port]/path`
    Https {
        /// Host in lower case, with `:port` unless it is 443.
        authority: String,
        /// The path without its leading `/`.
        path: String,
    },
    /// `ssh://[user@]host[:port]/path`, or the short form `user@host:path`.
    Ssh {
        /// The user to log in as.
        user: String,
        /// Host in lower case, without port.
        host: String,
        /// The port, 22 unless given.
        port: u16,
        /// The path: absolute (`/srv/a.git`) or, from the short form, relative to the
        /// user's home.
        path: String,
    },
    /// A repository on this host.
    File(
        /// Its absolute path.
        PathBuf,
    ),
}

impl RepoUrl {
    /// What credentials and hosts are bound to: `host[:port]/path`, without user. `None`
    /// for a repository on this host.
    pub fn binding(&self) -> Option<String> {
        match self {
            Self::Https { authority, path } => Some(format!("{authority}/{path}")),
            Self::Ssh { host, port: 22, path, .. } => {
                Some(format!("{host}/{}", path.trim_start_matches('/')))
            }
            Self::Ssh { host, port, path, .. } => {
                Some(format!("{host}:{port}/{}", path.trim_start_matches('/')))
            }
            Self::File(_) => None,
        }
    }
}

impl fmt::Display for RepoUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Https { authority, path } => write!(f, "https://{authority}/{path}"),
            Self::Ssh { user, host, port, path } if path.starts_with('/') => {
                if *port == 22 {
                    write!(f, "ssh://{user}@{host}{path}")
                } else {
                    write!(f, "ssh://{user}@{host}:{port}{path}")
                }
            }
            Self::Ssh { user, host, path, .. } => write!(f, "{user}@{host}:{path}"),
            Self::File(path) => write!(f, "file://{}", path.display()),
        }
    }
}

impl serde::Serialize for RepoUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Something that must not be seen. There is no way to print it; [`Secret::expose`] is
/// the one word to search for.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text out of sight.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What codedeploy-local does with a file that exists already and that it did not install.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileExists {
    /// Fail. The default, as in CodeDeploy.
    #[default]
    Disallow,
    /// Replace it.
    Overwrite,
    /// Leave it.
    Retain,
}

impl FileExists {
    /// The word as codedeploy-local wants it (2.x knows only upper case).
    pub fn as_option(self) -> &'static str {
        match self {
            Self::Disallow => "DISALLOW",
            Self::Overwrite => "OVERWRITE",
            Self::Retain => "RETAIN",
        }
    }
}

/// Which symbolic links a bundle may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Symlinks {
    /// Links to files inside the bundle and dangling ones; a link to a directory is
    /// warned about, one to an ancestor or out of the bundle refused.
    #[default]
    Safe,
    /// All.
    Allow,
    /// None.
    Refuse,
}

/// What happens after an app's deployment failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The run ends; apps that were deployed before stay.
    #[default]
    Stop,
    /// The run goes on with the other apps.
    Continue,
    /// All that this run changed is put back, last first, and the run ends.
    Restore,
}

impl fmt::Display for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "stop",
            Self::Continue => "continue",
            Self::Restore => "restore",
        })
    }
}

/// When a run has to be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deadline {
    /// A little before the hook around it times out; never outside of a hook.
    #[default]
    Auto,
    /// Never.
    None,
    /// This long after this process was started.
    After(Duration),
}

/// The CodeDeploy lifecycle event that this program runs in.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Hook {
    /// `AfterInstall`, usually.
    pub lifecycle_event: String,
    /// The outer deployment's id.
    pub deployment_id: String,
    /// The outer deployment group's name.
    pub deployment_group_name: Option<String>,
}

/// What an app's commit has to prove before anything of it is deployed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verify {
    /// Files of public keys, one of which must have signed it; if empty, none has to.
    pub signed_by: Vec<PathBuf>,
    /// A file of keys whose signatures do not count, whatever `signed_by` says.
    pub revoked_keys: Option<PathBuf>,
    /// Branches and tags of the remote by their full names, one of which must lead to it; if
    /// empty, none has to.
    pub reachable_from: Vec<RefName>,
}

/// One application as the manifest wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// Its name.
    pub name: AppName,
    /// Where its repository is.
    pub source: RepoUrl,
    /// What to deploy.
    pub release: Release,
    /// False: it is listed, and left alone.
    pub enabled: bool,
    /// The hosts it is for.
    pub when: When,
    /// The apps it needs: it is deployed after them, and not if one of them fails.
    pub needs: Vec<AppName>,
    /// Deploy even if it is current.
    pub force: bool,
    /// The bundle's root inside the repository; empty for the repository's root.
    /// Relative, without `..`.
    pub path: PathBuf,
    /// The appspec below the bundle's root; `None` means `appspec.yml`, else `appspec.yaml`.
    pub appspec: Option<PathBuf>,
    /// Variables for the app's hooks, in the order of the manifest.
    pub env: Vec<(String, String)>,
    /// What to do about files that exist.
    pub file_exists: FileExists,
    /// Lifecycle events whose hooks are not run.
    pub skip_events: Vec<String>,
    /// Whether `export-ignore` in `.gitattributes` leaves files out.
    pub export_ignore: bool,
    /// Which links may be in the bundle.
    pub symlinks: Symlinks,
    /// A file in the bundle's root that tells the commit, by its name.
    pub release_file: Option<PathBuf>,
    /// What has to be so after it was deployed.
    pub checks: Vec<Check>,
    /// How long its deployment may take.
    pub timeout: Option<Duration>,
    /// What happens after its deployment failed; `None` leaves it to the manifest's policy.
    pub on_failure: Option<OnFailure>,
    /// What its commit has to prove.
    pub verify: Option<Verify>,
    /// Whether the submodules of its tree are deployed with it.
    pub submodules: bool,
    /// Whether Git LFS pointers are replaced by what they stand for.
    pub lfs: bool,
}

impl App {
    /// The bundle's root below a worktree.
    pub fn bundle_root(&self, worktree: &Path) -> PathBuf {
        if self.path.as_os_str().is_empty() {
            worktree.to_owned()
        } else {
            worktree.join(&self.path)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_names_are_those_codedeploy_and_a_shell_can_bear() {
        for good in ["api", "_x", "a.b+c=d,e@f-g", "0", &"n".repeat(100)] {
            assert_eq!(good.parse::<AppName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "-x", ".git", "a b", "a/b", "a;b", "a\nb", "é", &"n".repeat(101)]
        {
            assert!(bad.parse::<AppName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn revisions_are_forty_digits_and_print_as_they_were_read() {
        let text = "91ab77cd0e5f2f7f0a6c1b3f5d7e9a1b2c3d4e5f";
        let revision: Revision = text.to_uppercase().parse().unwrap();
        assert_eq!(revision.to_string(), text);
        assert_eq!(revision.short(), "91ab77c");
        for bad in ["", "91ab77c", &text[1..], &format!("{text}0"), &format!("g{}", &text[1..])] {
            assert_eq!(bad.parse::<Revision>(), Err(RevisionError), "{bad:?}");
        }
    }

    #[test]
    fn ref_names_follow_check_ref_format() {
        for good in ["main", "v1.2", "release/2026-11", "1234567"] {
            assert!(good.parse::<RefName>().is_ok(), "{good:?}");
        }
        for bad in [
            "", "@", "-x", "a..b", "a b", "a:b", "a*", ".a", "a/.b", "a/", "/a", "a.lock", "a.",
            "a@{1}",
        ] {
            assert!(bad.parse::<RefName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "Secret(..)");
    }
}
