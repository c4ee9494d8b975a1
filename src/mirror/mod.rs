//! One bare repository per app, under the cache directory: exactly the commits that were
//! asked for, and the ledger's refs.
//!
//! A mirror may be deleted at any time; that costs a fetch, never a truth. Nothing here
//! reads the environment or a user's git configuration.

pub mod agent;
mod attributes;
pub mod checkout;
mod complete;
mod convert;
pub mod credentials;
mod dial;
pub mod examine;
pub mod failure;
mod fetch;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod git_config;
mod housekeeping;
mod http;
mod large;
pub mod lfs;
mod library;
mod local;
mod names;
mod objects;
pub mod offer;
mod origin;
mod pack;
mod packed;
mod pkt;
mod plain;
mod preview;
pub mod private_key;
mod protocol;
pub mod proxy;
mod reader;
mod repository;
mod retry;
mod share;
mod shown;
mod signer;
mod spill;
mod ssh;
mod submodules;
mod substitute;
mod tls;
pub mod trust;
mod watch;
mod wire;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use git2::Repository;

use crate::domain::{RefName, RepoUrl, Revision};
use crate::hosts::Auth;
use crate::process::Interrupt;

pub use checkout::{
    CheckoutOptions, Lfs, Worktree, set_aside_worktrees, sweep_worktrees, worktrees,
};
pub use credentials::{Credential, Proof};
pub use failure::{Failure, Retry};
pub use housekeeping::{Effort, Outlook, Tidied, outlook};
pub use lfs::LfsFile;
pub use library::prepare;
pub use origin::{Looked, Reach};
pub(crate) use packed::refs as packed_refs;
pub use preview::{Between, Preview};
pub use private_key::PrivateKey;
pub use proxy::Proxy;
pub use repository::leftovers;
pub(crate) use repository::oid;
pub use share::Turns;
pub use submodules::{Error as SubmodulesError, Submodule, of_submodule, submodules_unlocked};
pub use trust::Trust;

/// TLS for connections to others than git servers: trusts the system's authorities, or those
/// in `ca_bundle`.
///
/// # Errors
/// The bundle cannot be read.
pub(crate) fn tls_connector(ca_bundle: Option<PathBuf>) -> Result<tls::TlsConnector, Failure> {
    let trust = Trust { ca_bundle, ..Trust::default() };
    Ok(tls::TlsConnector::new(tls::context(&trust)?))
}

/// Closes the connections that are kept for the next app of the same server. Without it they
/// stay open until the process ends.
pub fn hang_up() {
    http::hang_up();
}

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
    /// Ends the fetch with [`Failure::Interrupted`].
    pub interrupt: Interrupt,
    /// The web proxy to go through.
    pub proxy: Option<Proxy>,
    /// Fetch with libgit2's own transports from the start; else they are the fallback for
    /// servers whose answers are not understood.
    pub plain: bool,
}

/// How long the steps of a fetch, and what goes before it, may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Until the connection stands, name look-up and TLS included.
    pub connect: Duration,
    /// Between any two bytes.
    pub read: Duration,
    /// All of it, retries and waiting between them included.
    pub total: Duration,
    /// A program that is asked for a secret.
    pub command: Duration,
    /// Before the second try; three times as long before the third. Made uneven by half.
    pub pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            read: Duration::from_secs(60),
            total: Duration::from_secs(600),
            command: Duration::from_secs(30),
            pause: Duration::from_secs(1),
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

/// A commit taken from another mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenOver {
    /// The commit: what was asked for, or what the tag that was asked for points to.
    pub commit: Revision,
    /// The other mirror.
    pub from: PathBuf,
}

/// The credential as messages name it.
fn asked_with(remote: &Remote) -> String {
    remote.credential.as_ref().map_or_else(|| Auth::None.describe(), |c| c.origin.clone())
}

/// One app's mirror, locked for this process for as long as this value lives.
pub struct Mirror {
    path: PathBuf,
    repository: Repository,
    lock: repository::Lock,
}

impl Mirror {
    /// Opens the mirror at `path`, making it if there is none, and takes its lock.
    ///
    /// What a killed run left behind (lock files, half-received packs) is removed. A mirror
    /// that cannot be opened because it is damaged is made anew, with the ledger's refs.
    ///
    /// # Errors
    /// [`Failure::Locked`] when another process has it; [`Failure::File`] and
    /// [`Failure::DiskFull`] when it cannot be made.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let (lock, repository) = repository::open(path)?;
        housekeeping::sweep(path)?;
        Ok(Self { path: path.to_owned(), repository, lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The repository, for the ledger's refs below `refs/multideployer/`.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The source whose commits it holds; `None` before the first fetch.
    pub fn source(&self) -> Option<String> {
        repository::source(&self.repository)
    }

    /// Whether `revision` is here completely, so that no network is needed for it.
    pub fn holds(&self, revision: Revision) -> bool {
        self.commit(revision).is_some()
    }

    /// The commit that `revision` stands for (itself, or what it points to as an annotated
    /// tag), if it is here completely.
    pub fn commit(&self, revision: Revision) -> Option<Revision> {
        let name = format!("{}/{revision}", repository::FETCHED);
        let target = self.repository.find_reference(&name).ok()?.target()?;
        let there = self.repository.find_commit(target).is_ok();
        there.then(|| repository::revision(target))
    }

    /// Sees to it that `revision` is here: fetches exactly this commit, unless it is held.
    ///
    /// When the mirror was made from another source, it is made anew first.
    ///
    /// # Errors
    /// Any [`Failure`] of the network, the server or the disk.
    pub fn fetch(
        &mut self,
        revision: Revision,
        remote: &Remote,
        progress: &dyn Fn(Progress),
    ) -> Result<Fetched, Failure> {
        self.bind(&remote.url, progress)?;
        if let Some(commit) = self.commit(revision) {
            return Ok(Fetched { commit, connected: false, bytes: 0 });
        }
        // Fetched again it would get the name of the pack that was lost, which libgit2 goes on to
        // believe it has open.
        let name = format!("{}/{revision}", repository::FETCHED);
        if self.repository.find_reference(&name).is_ok() {
            return Err(Failure::Damaged {
                path: self.path.clone(),
                detail: format!("commit {revision} was fetched and cannot be read"),
            });
        }
        fetch::fetch(&self.repository, revision, remote, progress)
    }

    /// Asks the remote whether it has `revision`, which does not become one of those that are
    /// held: its files may not have come.
    ///
    /// # Errors
    /// As [`Mirror::fetch`].
    pub fn probe(
        &mut self,
        revision: Revision,
        remote: &Remote,
        progress: &dyn Fn(Progress),
    ) -> Result<(), Failure> {
        self.bind(&remote.url, progress)?;
        fetch::probe(&self.repository, revision, remote, progress)
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
        self.bind(&remote.url, progress)?;
        fetch::resolve(&self.repository, name, remote, progress)
    }

    /// Takes `revision` from another mirror of the same source below `mirrors`, without
    /// network and without a second copy on the disk. `None` if none has it; then, if this
    /// mirror is empty, it has what another one has all the same, so that only the
    /// difference is to be fetched.
    ///
    /// # Errors
    /// [`Failure::File`] and [`Failure::DiskFull`]. A mirror that cannot be read, or is
    /// damaged, is none to take anything from.
    pub fn take_over(
        &mut self,
        revision: Revision,
        url: &RepoUrl,
        mirrors: &Path,
        progress: &dyn Fn(Progress),
    ) -> Result<Option<TakenOver>, Failure> {
        let source = url.to_string();
        let empty = self.source().is_none_or(|known| known != source) || self.is_empty();
        for lender in share::lenders(mirrors, &self.path, &source, revision, empty) {
            self.bind(url, progress)?;
            if !share::take_packs(&self.repository, &lender.path)? {
                continue;
            }
            if let Ok(commit) = complete::keep(&self.repository, lender.holds, url)
                && lender.holds == revision
            {
                return Ok(Some(TakenOver { commit, from: lender.path }));
            }
        }
        Ok(None)
    }

    /// Whether no commit is here.
    pub fn is_empty(&self) -> bool {
        share::fetched(&self.path).is_empty()
    }

    /// Makes this the mirror of `url`: what came from another source does not count.
    fn bind(&mut self, url: &RepoUrl, progress: &dyn Fn(Progress)) -> Result<(), Failure> {
        let source = url.to_string();
        match self.source() {
            Some(known) if known == source => Ok(()),
            None => repository::set_source(&self.repository, &source),
            Some(known) => {
                progress(Progress::Warning(format!(
                    "the source has changed from `{known}` to `{source}`: the mirror is made anew"
                )));
                // Who may read the new one need not be allowed to see what came from the old one.
                repository::remove_tree(&self.path.join(lfs::DIRECTORY))?;
                self.make_anew(Some(&source))
            }
        }
    }

    /// Writes the tree of a held commit to `target`, which must not exist: complete or
    /// absent for whoever looks while this system is up. Nothing is synced: no later run uses
    /// what is written here, and what is deployed of it is synced before that is recorded.
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
        checkout::checkout(&self.repository, revision, target, options)
    }

    /// What [`Mirror::checkout`] would write; nothing is.
    ///
    /// # Errors
    /// As there.
    pub fn survey(
        &self,
        revision: Revision,
        options: &CheckoutOptions,
    ) -> Result<Worktree, Failure> {
        checkout::survey(&self.repository, revision, options)
    }

    /// Throws the repository away and makes a new one. The ledger's refs are carried over;
    /// those whose object could not be are kept as records without object.
    ///
    /// # Errors
    /// [`Failure::File`] and [`Failure::DiskFull`].
    pub fn rebuild(mut self) -> Result<Self, Failure> {
        let source = self.source();
        self.make_anew(source.as_deref())?;
        Ok(self)
    }

    /// Removes it, with all that is recorded in it: complete or absent, whatever happens.
    ///
    /// # Errors
    /// [`Failure::File`].
    pub fn remove(self) -> Result<(), Failure> {
        repository::remove(&self.path)
        // The lock is let go only now.
    }

    fn make_anew(&mut self, source: Option<&str>) -> Result<(), Failure> {
        let (lock, repository) = repository::rebuild(&self.path, source)?;
        self.repository = repository;
        // The old lock is let go only now that the new mirror and its lock are in place.
        self.lock = lock;
        Ok(())
    }
}

/// Removes what a killed run left behind in all mirrors and worktrees below `cache`: it may
/// have been at work on apps that the next run need not touch. The run's lock is held.
///
/// # Errors
/// [`Failure::File`]; what is locked by another process is left to that.
pub fn sweep(cache: &Path) -> Result<(), Failure> {
    for entry in entries(&cache.join("mirrors"))? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        // One that is to be renamed is found by its leftover.
        let mirror = name.find(".git").map(|end| &name[..end + 4]);
        if let Some(mirror) = mirror.filter(|_| entry.is_dir()) {
            clear(&entry.with_file_name(mirror))?;
            for module in submodules::mirrors(&entry)? {
                clear(&module)?;
            }
        }
    }
    for app in entries(&cache.join("worktrees"))? {
        for directory in entries(&app)?.into_iter().chain([app]) {
            let failed = |error| Failure::file("read", &directory, error);
            for leftover in worktrees(&directory).map_err(failed)? {
                repository::remove_tree(&leftover)?;
            }
        }
    }
    Ok(())
}

/// Removes a directory that an ended run may have left; none is fine.
///
/// # Errors
/// [`Failure::File`].
pub fn remove_leftover(path: &Path) -> Result<(), Failure> {
    repository::remove_tree(path)
}

/// Removes what killed runs left behind in a mirror that nobody works on.
fn clear(mirror: &Path) -> Result<(), Failure> {
    match repository::clear(mirror) {
        Err(Failure::Locked { .. }) => Ok(()),
        other => other,
    }
}

/// The directories in a directory; none if it is not there.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::file("read", directory, error);
    match fs_err::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
        Ok(entries) => entries
            .filter_map(|entry| match entry {
                Ok(entry) if entry.file_type().is_ok_and(|kind| kind.is_dir()) => {
                    Some(Ok(entry.path()))
                }
                Ok(_) => None,
                Err(error) => Some(Err(failed(error))),
            })
            .collect(),
    }
}

/// What [`Mirror::checkout`] does, without the mirror's lock. It may fail while another process
/// puts the mirror in order.
///
/// # Errors
/// As there.
pub fn checkout_unlocked(
    mirror: &Path,
    revision: Revision,
    target: &Path,
    options: &CheckoutOptions,
) -> Result<Worktree, Failure> {
    checkout::checkout(&open_read_only(mirror)?, revision, target, options)
}

/// What [`Mirror::survey`] answers, without the mirror's lock.
///
/// # Errors
/// As there.
pub fn survey_unlocked(
    mirror: &Path,
    revision: Revision,
    options: &CheckoutOptions,
) -> Result<Worktree, Failure> {
    checkout::survey(&open_read_only(mirror)?, revision, options)
}

/// The commit that [`Mirror::commit`] answers, without the mirror's lock.
pub fn commit_unlocked(mirror: &Path, revision: Revision) -> Option<Revision> {
    let repository = open_read_only(mirror).ok()?;
    let name = format!("{}/{revision}", repository::FETCHED);
    let target = repository.find_reference(&name).ok()?.target()?;
    let there = repository.find_commit(target).is_ok();
    there.then(|| repository::revision(target))
}

/// Opens a mirror to read its refs and tags: no lock, no housekeeping, nothing written.
///
/// # Errors
/// [`Failure::Git`] when there is none or it is damaged.
pub fn open_read_only(path: &Path) -> Result<Repository, Failure> {
    prepare();
    Repository::open(path).map_err(|source| Failure::Git { doing: "opening the mirror", source })
}
