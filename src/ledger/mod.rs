//! What was deployed, durably: refs in each app's mirror, and `last_state.yaml`.
//!
//! | ref | points to |
//! |---|---|
//! | `refs/multideployer/deployed` | the commit that runs on this host |
//! | `refs/multideployer/attempted` | the commit of an attempt that has not succeeded |
//! | `refs/multideployer/previous` | the deployed commit before this one |
//! | `refs/multideployer/history/<run>` | an annotated tag: who, when, from, to, result |
//! | `refs/multideployer/history/<run>.restore` | the same, where the run put the app back |
//!
//! Refs are read as files, so that a run with nothing to do never starts libgit2; they are
//! written with libgit2, and can be read with `git for-each-ref refs/multideployer`.

pub mod history;
pub mod last_state;
pub mod lock;
pub mod predecessor;
mod refs;

use std::io;
use std::path::{Path, PathBuf};

pub use refs::{commit_of, read};

use crate::domain::Revision;
use crate::error::{ExitCode, Failure};
use crate::mirror::oid;
use crate::process::Identity;

/// The commit that runs on this host.
pub const DEPLOYED: &str = "refs/multideployer/deployed";
/// The commit of an attempt that has not succeeded.
pub const ATTEMPTED: &str = "refs/multideployer/attempted";
/// The commit deployed before.
pub const PREVIOUS: &str = "refs/multideployer/previous";
/// Where the history's tags are.
pub const HISTORY: &str = "refs/multideployer/history/";

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written; the error names it.
    #[error("cannot access the records")]
    Io(#[from] io::Error),
    /// libgit2 refused to write a ref or a tag.
    #[error("cannot write `{name}` in `{}`", repository.display())]
    Ref {
        /// The ref.
        name: String,
        /// The mirror.
        repository: PathBuf,
        /// What libgit2 says.
        source: git2::Error,
    },
    /// The lock is held by another run.
    #[error("another run holds the lock{}", holder.as_ref().map(|h| format!(": {h}")).unwrap_or_default())]
    Locked {
        /// Its pid, run and start, as it wrote them.
        holder: Option<String>,
        /// The lock file.
        path: PathBuf,
    },
    /// A run that was killed left its codedeploy-local at work.
    #[error(
        "codedeploy-local ({tool}) is still at work on {app}: run {run} was killed and left it"
    )]
    ToolAtWork {
        /// The run that started it.
        run: String,
        /// What it deploys.
        app: String,
        /// Its process.
        tool: Identity,
    },
    /// A hook of the run that holds the lock started this one.
    #[error("this was started by a hook of run {run}, which is not over before the hook is")]
    Inside {
        /// That run.
        run: String,
        /// The lock file.
        path: PathBuf,
    },
    /// A signal came while waiting for the lock.
    #[error("ended by a signal while waiting for the lock")]
    Interrupted(ExitCode),
}

impl Error {
    /// The exit code it maps to.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Io(_) | Self::Ref { .. } => ExitCode::Unfit,
            Self::Locked { .. } | Self::ToolAtWork { .. } | Self::Inside { .. } => ExitCode::Locked,
            Self::Interrupted(code) => *code,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io(error) => match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    Some("run as root, or give --cache-dir, --state-dir and --log".to_owned())
                }
                io::ErrorKind::StorageFull => Some("make room, then run again".to_owned()),
                io::ErrorKind::ReadOnlyFilesystem => Some(
                    "make the file system writable, after a look at why it is not (`dmesg`), then run again"
                        .to_owned(),
                ),
                io::ErrorKind::InvalidInput
                | io::ErrorKind::NotSeekable
                | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
                    Some("remove what is in its place, then run again".to_owned())
                }
                _ => Some("look at the disk and the system's log (`dmesg`), then run again".to_owned()),
            },
            Self::Ref { repository, .. } => Some(format!(
                "make room if the disk is full; if `{}` is damaged it may be deleted: what is recorded in last_state.yaml stays",
                repository.display()
            )),
            Self::Locked { path, .. } => Some(format!(
                "wait for it, or raise --lock-wait (the lock is `{}`)",
                path.display()
            )),
            Self::ToolAtWork { tool, .. } => Some(format!(
                "wait for it, raise --lock-wait, or end it with `kill {}`; the app is then deployed again",
                tool.pid()
            )),
            Self::Inside { path, .. } => Some(format!(
                "a hook must not deploy: let it leave a note and run later (the lock is `{}`)",
                path.display()
            )),
            Self::Interrupted(_) => None,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let failure = Self::from_error(error.exit_code(), &error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Writes the records of one app into its mirror.
pub struct Records<'r> {
    repository: &'r git2::Repository,
}

impl<'r> Records<'r> {
    /// The records in an open mirror. The caller holds the run's lock.
    pub fn new(repository: &'r git2::Repository) -> Self {
        Self { repository }
    }

    /// Records that `revision` is about to be deployed. Damaged refs are removed first:
    /// libgit2 would refuse to replace them.
    pub fn attempt(&self, revision: Revision) -> Result<(), Error> {
        refs::remove_damaged(self.repository.path())?;
        self.set(ATTEMPTED, revision, "attempt")
    }

    /// Records that `entry.to` is deployed.
    ///
    /// A crash after any of the four writes is safe: `attempted` goes last, and as long as
    /// it is there the app counts as unfinished.
    pub fn success(&self, entry: &history::Entry) -> Result<(), Error> {
        self.tag(entry)?;
        if let Some(from) = entry.from.filter(|from| *from != entry.to) {
            // After a rebuilt mirror the old commit may be gone; then there is nothing to
            // point to, and nothing is lost: the tag names it.
            if self.has(from) {
                self.set(PREVIOUS, from, "previous")?;
            }
        }
        self.set(DEPLOYED, entry.to, "deployed")?;
        self.remove(ATTEMPTED)
    }

    /// Records that the attempt at `entry.to` failed; `attempted` stays.
    pub fn failure(&self, entry: &history::Entry) -> Result<(), Error> {
        self.tag(entry)
    }

    fn has(&self, revision: Revision) -> bool {
        self.repository.find_commit(oid(revision)).is_ok()
    }

    fn tag(&self, entry: &history::Entry) -> Result<(), Error> {
        let tag_name = entry.name();
        let name = format!("{HISTORY}{tag_name}");
        let write = || {
            let target = self.repository.find_object(oid(entry.to), None)?;
            let tag = self.repository.tag_annotation_create(
                &tag_name,
                &target,
                &entry.tagger()?,
                &entry.message(),
            )?;
            self.repository.reference(&name, tag, true, "history")
        };
        write().map(drop).map_err(|source| self.error(&name, source))
    }

    fn set(&self, name: &str, revision: Revision, message: &str) -> Result<(), Error> {
        let written = self.repository.reference(name, oid(revision), true, message);
        written.map(drop).map_err(|source| self.error(name, source))
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        let removed = self.repository.find_reference(name).and_then(|mut found| found.delete());
        match removed {
            Err(error) if error.code() != git2::ErrorCode::NotFound => Err(self.error(name, error)),
            _ => Ok(()),
        }
    }

    fn error(&self, name: &str, source: git2::Error) -> Error {
        let repository = self.repository.path().to_owned();
        Error::Ref { name: name.to_owned(), repository, source }
    }
}

/// Where the mirror of an app is.
pub fn mirror_path(cache: &Path, app: &crate::domain::AppName) -> PathBuf {
    cache.join("mirrors").join(format!("{app}.git"))
}
