//! What a name means at a remote.

use std::collections::BTreeSet;
use std::io::Write;

use git2::Repository;

use super::exchange::is_not_v2;
use super::receive::Received;
use super::{Fetch, each_once};
use crate::domain::{RefName, RepoUrl, Revision};
use crate::mirror::failure::Failure;
use crate::mirror::http::Http;
use crate::mirror::protocol::{self, Boundary, Greeting, RemoteRef, Request, Trouble, UNLIMITED};
use crate::mirror::repository::{self, oid, revision};
use crate::mirror::ssh::Ssh;
use crate::mirror::watch::Watch;
use crate::mirror::{Progress, Remote, local};

/// What a branch, a tag or an abbreviated id is at the remote.
pub(in crate::mirror) fn resolve(
    repository: &Repository,
    name: &RefName,
    remote: &Remote,
    progress: &dyn Fn(Progress),
) -> Result<Revision, Failure> {
    let watch = Watch::start(remote);
    let progress: &dyn Fn(Progress) = &each_once(progress);
    let fetch = Fetch::new(repository, remote, &watch, progress);
    let prefixes = ["", "refs/", "refs/tags/", "refs/heads/"].map(|place| format!("{place}{name}"));
    let refs = fetch.retrying(|| fetch.list(&prefixes))?;
    // Git's own order.
    let found: Vec<_> = prefixes
        .iter()
        .filter_map(|full| refs.iter().find(|found| found.name == full.as_bytes()))
        .collect();
    let commit = |found: &RemoteRef| found.peeled.unwrap_or(found.id);
    if let Some(first) = found.first() {
        if let Some(other) = found.iter().find(|other| commit(other) != commit(first)) {
            progress(Progress::Warning(format!(
                "`{name}` is both `{}` and `{}` in `{}`; the first is taken",
                String::from_utf8_lossy(&first.name),
                String::from_utf8_lossy(&other.name),
                remote.url
            )));
        }
        return Ok(commit(first));
    }
    if name.may_be_abbreviation() {
        return fetch.complete(name);
    }
    Err(Failure::NameNotFound { name: name.clone(), url: remote.url.clone() })
}

/// The refs that begin with one of `prefixes` (and, from servers that cannot choose,
/// others). `v0` asks in the older version at once.
pub(in crate::mirror) fn list(
    remote: &Remote,
    watch: &Watch,
    progress: &dyn Fn(Progress),
    v0: bool,
    prefixes: &[String],
) -> Result<Vec<RemoteRef>, Failure> {
    match &remote.url {
        RepoUrl::File(path) => local::refs(&local::open(path)?)
            .map_err(|error| Failure::git("listing the refs", path, error)),
        RepoUrl::Https { .. } => {
            let mut server = Http::new(remote, watch, progress)?;
            if !v0 {
                let mut answer = server.post(&protocol::list_v2(prefixes), true)?;
                match protocol::read_list_v2(&mut answer) {
                    Ok(refs) => {
                        server.finish(answer);
                        return Ok(refs);
                    }
                    Err(trouble) if is_not_v2(&trouble, answer.bytes()) => {}
                    Err(trouble) => return Err(server.explain(trouble)),
                }
            }
            Ok(server.advertisement()?.unwrap_or_default().refs)
        }
        RepoUrl::Ssh { .. } => {
            let (mut server, greeting) = Ssh::connect(remote, watch, progress)?;
            let refs = match greeting {
                Greeting::V0(list) => list.refs,
                Greeting::V2 { .. } => {
                    let answer = server.ask(&protocol::list_v2(prefixes))?;
                    match protocol::read_list_v2(answer) {
                        Ok(refs) => refs,
                        Err(trouble) => return Err(server.explain(trouble, false)),
                    }
                }
            };
            server.close();
            Ok(refs)
        }
    }
}

impl Fetch<'_> {
    pub(super) fn list(&self, prefixes: &[String]) -> Result<Vec<RemoteRef>, Failure> {
        list(self.remote, self.watch, self.progress, self.speaks_v0(), prefixes)
    }

    /// The commit whose id begins so: among the ends of branches and tags, else in their
    /// whole history.
    fn complete(&self, name: &RefName) -> Result<Revision, Failure> {
        let everything = ["refs/heads/", "refs/tags/"].map(str::to_owned);
        let refs = self.retrying(|| self.list(&everything))?;
        let ends: Vec<_> = refs
            .iter()
            .filter(|r| everything.iter().any(|place| r.name.starts_with(place.as_bytes())))
            .collect();
        let digits = name.as_str().to_ascii_lowercase();
        let commits = ends.iter().flat_map(|end| [Some(end.id), end.peeled]).flatten();
        let fitting: BTreeSet<_> =
            commits.filter(|id| id.to_string().starts_with(&digits)).collect();
        if fitting.len() > 1 {
            return Err(self.ambiguous(name));
        }
        let missing: Vec<_> = ends.iter().map(|end| end.id).collect();
        if missing.is_empty() {
            return Err(Failure::NameNotFound { name: name.clone(), url: self.remote.url.clone() });
        }
        self.retrying(|| self.history_of(&missing))?;
        let found = self.repository.find_object_by_prefix(&digits, None);
        match found.and_then(|object| object.peel_to_commit()) {
            Ok(commit) => Ok(revision(commit.id())),
            Err(error) if error.code() == git2::ErrorCode::Ambiguous => Err(self.ambiguous(name)),
            Err(_) => {
                Err(Failure::NameNotFound { name: name.clone(), url: self.remote.url.clone() })
            }
        }
    }

    fn ambiguous(&self, name: &RefName) -> Failure {
        Failure::AmbiguousName { name: name.clone(), url: self.remote.url.clone() }
    }

    /// Fetches the whole history of these commits.
    pub(super) fn history_of(&self, ends: &[Revision]) -> Result<(), Failure> {
        if let RepoUrl::File(path) = &self.remote.url {
            return self.history_on_disk(&local::open(path)?, ends);
        }
        let shallow = repository::shallow(self.repository)?;
        let depth = (!shallow.is_empty()).then_some(UNLIMITED);
        let haves = self.haves();
        self.ask(Request { wants: ends.to_vec(), haves, shallow, depth, commits_only: false })
    }

    fn history_on_disk(&self, from: &Repository, ends: &[Revision]) -> Result<(), Failure> {
        let failed = |error| self.git("packing the history", error);
        let pack = |store: &mut dyn Write| {
            let mut walk = from.revwalk()?;
            for end in ends {
                // Tags of files and trees have no history.
                if let Ok(commit) = from.find_object(oid(*end), None)?.peel_to_commit() {
                    walk.push(commit.id())?;
                }
            }
            let mut builder = from.packbuilder()?;
            builder.insert_walk(&mut walk)?;
            builder.foreach(|bytes| store.write_all(bytes).is_ok())
        };
        let received = self.receive(|store| {
            pack(store).map_err(|error| Trouble::Said(error.message().to_owned()))?;
            // Everything came: nothing is beyond the boundary any more.
            let unshallow = repository::shallow(self.repository).unwrap_or_default();
            Ok(Boundary { shallow: Vec::new(), unshallow })
        });
        received.map_err(|received| match received {
            Received::Store(failure) => failure,
            Received::Trouble(_) => failed(git2::Error::from_str("the repository cannot be read")),
        })
    }
}
