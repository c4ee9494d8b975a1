//! Getting exactly one commit from a remote, and finding out what a name means there.

mod exchange;
mod history;
mod names;
mod receive;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use git2::Repository;

use super::failure::Failure;
use super::protocol::{Request, Trouble};
use super::repository::{self, FETCHED, oid, revision};
use super::watch::Watch;
use super::{Fetched, Progress, Remote, asked_with, complete, local, plain, retry};
use crate::domain::{RepoUrl, Revision};
use exchange::is_not_ours;
pub(super) use history::{reach, tag};
pub(super) use names::{list, resolve};

/// More commits than this are not named to the server as known.
const HAVES: usize = 64;
/// Remembers a server that only libgit2's own transports understand.
const TRANSPORT: &str = "multideployer.transport";
const PLAIN: &str = "plain";
/// Remembers a server that does not speak version 2.
const PROTOCOL: &str = "multideployer.protocol";

/// Fetches one commit into the repository.
pub(super) fn fetch(
    repository: &Repository,
    wanted: Revision,
    remote: &Remote,
    progress: &dyn Fn(Progress),
) -> Result<Fetched, Failure> {
    let watch = Watch::start(remote);
    let progress: &dyn Fn(Progress) = &each_once(progress);
    let fetch = Fetch::new(repository, remote, &watch, progress);
    // An earlier fetch of more than one commit may have brought it.
    if repository.odb().is_ok_and(|odb| odb.exists(oid(wanted)))
        && let Ok(commit) = complete::keep(repository, wanted, &remote.url)
    {
        return Ok(Fetched { commit, connected: false, bytes: 0 });
    }
    fetch.retrying(|| fetch.once(wanted))?;
    let commit = complete::keep(repository, wanted, &remote.url)?;
    Ok(Fetched { commit, connected: true, bytes: fetch.bytes.get() })
}

/// Whether the remote has a commit, or a tag: it comes without its files from servers that can
/// leave them out, and is none of those that are here completely.
pub(super) fn probe(
    repository: &Repository,
    wanted: Revision,
    remote: &Remote,
    progress: &dyn Fn(Progress),
) -> Result<(), Failure> {
    let watch = Watch::start(remote);
    let progress: &dyn Fn(Progress) = &each_once(progress);
    let fetch = Fetch { commits_only: true, ..Fetch::new(repository, remote, &watch, progress) };
    fetch.retrying(|| fetch.once(wanted))
}

struct Fetch<'a> {
    repository: &'a Repository,
    remote: &'a Remote,
    watch: &'a Watch,
    progress: &'a dyn Fn(Progress),
    bytes: Cell<usize>,
    /// Files and directories need not come.
    commits_only: bool,
    /// The server may have what it refused: it serves the ends of branches and tags only.
    tips_only: Cell<bool>,
}

/// Passes each warning on once, however often a step is tried.
fn each_once(progress: &dyn Fn(Progress)) -> impl Fn(Progress) + '_ {
    let told = RefCell::new(HashSet::new());
    move |event| match &event {
        Progress::Warning(text) if !told.borrow_mut().insert(text.clone()) => {}
        _ => progress(event),
    }
}

impl<'a> Fetch<'a> {
    /// Nothing is connected yet.
    fn new(
        repository: &'a Repository,
        remote: &'a Remote,
        watch: &'a Watch,
        progress: &'a dyn Fn(Progress),
    ) -> Self {
        let (bytes, tips_only) = (Cell::new(0), Cell::new(false));
        Self { repository, remote, watch, progress, bytes, commits_only: false, tips_only }
    }
}

impl Fetch<'_> {
    fn retrying<T>(&self, work: impl Fn() -> Result<T, Failure>) -> Result<T, Failure> {
        retry::retrying(self.watch, self.remote.limits.pause, self.progress, work)
    }

    fn once(&self, wanted: Revision) -> Result<(), Failure> {
        let result = match &self.remote.url {
            RepoUrl::File(path) => return self.take_from_disk(&local::open(path)?, wanted),
            _ if self.remote.plain || self.is_plain() => return self.plainly(wanted),
            RepoUrl::Https { .. } => self.over_https(&self.request(wanted)?, wanted),
            RepoUrl::Ssh { .. } => self.over_ssh(&self.request(wanted)?, wanted),
        };
        if matches!(result, Err(Failure::CommitNotFound { .. })) && self.tips_only.take() {
            return self.by_branches_and_tags(wanted);
        }
        let Err(strange @ Failure::NotGit { .. }) = result else { return result };
        // Perhaps libgit2 understands it. If not, what was understood first says more.
        if self.plainly(wanted).is_err() {
            return self.watch.check().and(Err(strange));
        }
        (self.progress)(Progress::Warning(format!("{strange}; fetched in git's older way")));
        // Only saves a try the next time.
        let _ = self.repository.config().and_then(|mut c| c.set_str(TRANSPORT, PLAIN));
        Ok(())
    }

    /// With libgit2's own transports.
    fn plainly(&self, wanted: Revision) -> Result<(), Failure> {
        let bytes = plain::fetch(self.repository, wanted, self.remote, self.watch, self.progress)?;
        self.bytes.set(self.bytes.get() + bytes);
        self.must_have(wanted)
    }

    fn is_plain(&self) -> bool {
        let kind = self.repository.config().and_then(|config| config.get_string(TRANSPORT));
        kind.is_ok_and(|kind| kind == PLAIN)
    }

    /// What is asked for, and what is here already.
    fn request(&self, wanted: Revision) -> Result<Request, Failure> {
        Ok(Request {
            wants: vec![wanted],
            haves: self.haves(),
            shallow: repository::shallow(self.repository)?,
            depth: Some(1),
            commits_only: self.commits_only,
        })
    }

    /// The commits fetched last.
    fn haves(&self) -> Vec<Revision> {
        let directory = self.repository.path().join(FETCHED);
        let mut refs: Vec<_> = fs_err::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        refs.sort_by(|a, b| b.cmp(a));
        let mut haves: Vec<Revision> = refs
            .into_iter()
            .filter_map(|(_, path)| fs_err::read_to_string(path).ok()?.trim_end().parse().ok())
            .collect();
        if haves.len() < HAVES
            && let Ok(packed) = self.repository.references_glob(&format!("{FETCHED}/*"))
        {
            haves.extend(packed.flatten().filter_map(|found| found.target().map(revision)));
        }
        let mut seen = HashSet::new();
        // A ref may have outlived a pack that was lost. Whoever claims to have its commit gets
        // nothing for it.
        let here = |have: &Revision| self.repository.find_commit(oid(*have)).is_ok();
        let good = haves.into_iter().filter(|have| seen.insert(*have) && here(have));
        good.take(HAVES).collect()
    }

    fn not_found(&self, revision: Revision, remote_said: Option<String>) -> Failure {
        let asked_with = asked_with(self.remote);
        Failure::CommitNotFound { revision, url: self.remote.url.clone(), asked_with, remote_said }
    }

    /// A server's refusal of one object, or whatever else the trouble is.
    fn refusal(
        &self,
        trouble: Trouble,
        wanted: Revision,
        explain: impl FnOnce(Trouble) -> Failure,
    ) -> Failure {
        match trouble {
            Trouble::Said(words) if is_not_ours(&words) => self.not_found(wanted, Some(words)),
            trouble => explain(trouble),
        }
    }

    fn git(&self, doing: &'static str, error: git2::Error) -> Failure {
        Failure::git(doing, self.repository.path(), error)
    }

    fn speaks_v0(&self) -> bool {
        self.repository
            .config()
            .and_then(|config| config.get_i32(PROTOCOL))
            .is_ok_and(|version| version == 0)
    }

    fn remember_v0(&self) {
        // Only saves a request the next time.
        if !self.speaks_v0() {
            let _ = self.repository.config().and_then(|mut config| config.set_i32(PROTOCOL, 0));
        }
    }
}
