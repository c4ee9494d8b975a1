//! What can go wrong between here and a tree on the disk, and what that means.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::{RefName, RepoUrl, Revision};
use crate::error::ExitCode;

/// Whether trying again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It may pass by itself.
    Later {
        /// The server's wish.
        after: Option<Duration>,
    },
    /// It will not.
    Never,
}

/// Why a commit is not here.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// 404, or what an SSH server says instead.
    #[error("`{url}` is not there, or {asked_with} may not read it")]
    NotFoundOrForbidden {
        /// The repository.
        url: RepoUrl,
        /// The origin of the credential, or "an anonymous visitor".
        asked_with: String,
    },
    /// The credential was refused.
    #[error("`{url}` refuses {asked_with}")]
    Denied {
        /// The repository.
        url: RepoUrl,
        /// The origin of the credential.
        asked_with: String,
    },
    /// The repository does not have the commit, or does not give it away.
    #[error("commit {revision} is not in `{url}`")]
    CommitNotFound {
        /// The commit.
        revision: Revision,
        /// The repository.
        url: RepoUrl,
        /// The origin of the credential.
        asked_with: Option<String>,
    },
    /// No such branch, tag or abbreviated id.
    #[error("`{url}` has no branch, tag or commit `{name}`")]
    NameNotFound {
        /// The name.
        name: RefName,
        /// The repository.
        url: RepoUrl,
    },
    /// More than one commit begins with this abbreviation.
    #[error("`{name}` is ambiguous in `{url}`")]
    AmbiguousName {
        /// The name.
        name: RefName,
        /// The repository.
        url: RepoUrl,
    },
    /// An object is missing or broken: rebuild the mirror and fetch again.
    #[error("the mirror `{}` is damaged: {detail}", path.display())]
    Damaged {
        /// The mirror.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Another process works on the mirror.
    #[error("another process has locked `{}`", path.display())]
    Locked {
        /// The mirror.
        path: PathBuf,
    },
    /// The disk is full.
    #[error("no space left on the disk of `{}`", path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot {doing} `{}`", path.display())]
    File {
        /// Verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A signal or the deadline ended it.
    #[error("interrupted")]
    Interrupted,
    /// Anything else git reports.
    #[error("git failed while {doing}")]
    Git {
        /// What was being done.
        doing: &'static str,
        /// Its error.
        source: git2::Error,
    },
}

impl Failure {
    /// Whether trying again may help.
    pub fn retry(&self) -> Retry {
        Retry::Never
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        None
    }

    /// What the run ends with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::Fetch
    }
}
