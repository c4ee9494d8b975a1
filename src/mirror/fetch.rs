//! Getting exactly one commit from a remote, and finding out what a name means there.

use std::cell::Cell;
use std::collections::{BTreeSet, HashSet};
use std::io::{self, Write};
use std::time::{Duration, Instant};

use git2::{ObjectType, Oid, Repository};

use super::failure::Failure;
use super::http::Http;
use super::protocol::{
    self, Advertisement, Boundary, Greeting, RemoteRef, Request, Trouble, UNLIMITED,
};
use super::repository::{self, FETCHED, oid, revision};
use super::ssh::Ssh;
use super::watch::Watch;
use super::{Fetched, Progress, Remote, asked_with, local, plain, retry};
use crate::domain::{RefName, RepoUrl, Revision};

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
    let fetch = Fetch { repository, remote, watch: &watch, progress, bytes: Cell::new(0) };
    // An earlier fetch of more than one commit may have brought it.
    if repository.odb().is_ok_and(|odb| odb.exists(oid(wanted)))
        && let Ok(commit) = fetch.keep(wanted)
    {
        return Ok(Fetched { commit, connected: false, bytes: 0 });
    }
    fetch.retrying(|| fetch.once(wanted))?;
    let commit = fetch.keep(wanted)?;
    Ok(Fetched { commit, connected: true, bytes: fetch.bytes.get() })
}

/// What a branch, a tag or an abbreviated id is at the remote.
pub(super) fn resolve(
    repository: &Repository,
    name: &RefName,
    remote: &Remote,
    progress: &dyn Fn(Progress),
) -> Result<Revision, Failure> {
    let watch = Watch::start(remote);
    let fetch = Fetch { repository, remote, watch: &watch, progress, bytes: Cell::new(0) };
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
pub(super) fn list(
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
                    Ok(refs) => return Ok(refs),
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
                Greeting::V2 => {
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

struct Fetch<'a> {
    repository: &'a Repository,
    remote: &'a Remote,
    watch: &'a Watch,
    progress: &'a dyn Fn(Progress),
    bytes: Cell<usize>,
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
        let mut haves: Vec<_> = refs
            .into_iter()
            .filter_map(|(_, path)| fs_err::read_to_string(path).ok()?.trim_end().parse().ok())
            .collect();
        if haves.len() < HAVES
            && let Ok(packed) = self.repository.references_glob(&format!("{FETCHED}/*"))
        {
            haves.extend(packed.flatten().filter_map(|found| found.target().map(revision)));
        }
        let mut seen = HashSet::new();
        haves.retain(|have| seen.insert(*have));
        haves.truncate(HAVES);
        haves
    }

    fn over_https(&self, request: &Request, wanted: Revision) -> Result<(), Failure> {
        let mut server = Http::new(self.remote, self.watch, self.progress)?;
        if !self.speaks_v0() {
            let mut answer = server.post(&protocol::fetch_v2(request), true)?;
            match self.receive(|store| protocol::read_pack_v2(&mut answer, store)) {
                Ok(()) => return Ok(()),
                Err(Received::Store(failure)) => return Err(failure),
                Err(Received::Trouble(trouble)) => {
                    if !is_not_v2(&trouble, answer.bytes()) {
                        return Err(
                            self.refusal(trouble, wanted, |trouble| server.explain(trouble))
                        );
                    }
                }
            }
        }
        let Some(list) = server.advertisement()? else {
            let answer = "it answers in a protocol that was not asked for".into();
            return Err(Failure::NotGit { url: self.remote.url.clone(), answer });
        };
        self.remember_v0();
        let request = self.request_v0(&list, request, wanted)?;
        let mut answer = server.post(&protocol::fetch_v0(&request, &list), false)?;
        let deepened = request.depth.is_some();
        match self.receive(|store| protocol::read_pack_v0(&mut answer, deepened, store)) {
            Ok(()) => self.must_have(wanted),
            Err(Received::Store(failure)) => Err(failure),
            Err(Received::Trouble(trouble)) => {
                Err(self.refusal(trouble, wanted, |trouble| server.explain(trouble)))
            }
        }
    }

    fn over_ssh(&self, request: &Request, wanted: Revision) -> Result<(), Failure> {
        let (mut server, greeting) = Ssh::connect(self.remote, self.watch, self.progress)?;
        let received = match greeting {
            Greeting::V2 => {
                let answer = server.ask(&protocol::fetch_v2(request))?;
                self.receive(|store| protocol::read_pack_v2(answer, store))
            }
            Greeting::V0(list) => {
                let request = self.request_v0(&list, request, wanted)?;
                let answer = server.ask(&protocol::fetch_v0(&request, &list))?;
                let deepened = request.depth.is_some();
                self.receive(|store| protocol::read_pack_v0(answer, deepened, store))
            }
        };
        match received {
            Ok(()) => {
                server.close();
                self.must_have(wanted)
            }
            Err(Received::Store(failure)) => Err(failure),
            Err(Received::Trouble(trouble)) => {
                Err(self.refusal(trouble, wanted, |trouble| server.explain(trouble, false)))
            }
        }
    }

    fn take_from_disk(&self, from: &Repository, wanted: Revision) -> Result<(), Failure> {
        let objects = self.repository.odb().map_err(|error| self.git("reading", error))?;
        let has = |id: Oid| objects.exists(id);
        let mut found = false;
        let received = self.receive(|store| match local::pack(from, wanted, &has, store) {
            Ok(Some(boundary)) => {
                found = true;
                Ok(boundary)
            }
            Ok(None) => Err(Trouble::Said("not our ref".into())),
            Err(error) => Err(Trouble::Said(error.message().to_owned())),
        });
        match received {
            Ok(()) => Ok(()),
            Err(Received::Store(failure)) => Err(failure),
            Err(Received::Trouble(trouble)) => Err(self.refusal(trouble, wanted, |trouble| {
                let url = self.remote.url.clone();
                match trouble {
                    Trouble::Said(remote_said) => Failure::Remote { url, remote_said },
                    Trouble::Read(error) | Trouble::Store(error) => {
                        Failure::Broken { url, detail: error.to_string() }
                    }
                    Trouble::Strange(answer) => Failure::NotGit { url, answer },
                }
            })),
        }
    }

    /// What to ask a version 0 server for: the commit, if it gives that away; else the tag
    /// that leads to it; else all branches and tags, to look it up there. Never `refs/*`.
    fn request_v0(
        &self,
        list: &Advertisement,
        request: &Request,
        wanted: Revision,
    ) -> Result<Request, Failure> {
        let mut request = request.clone();
        if !list.can_shallow() {
            request.depth = None;
        }
        if list.serves(wanted) {
            let tag = list.refs.iter().find(|r| r.peeled == Some(wanted));
            let direct = list.refs.iter().any(|r| r.id == wanted);
            if let Some(tag) = tag.filter(|_| !direct) {
                request.wants = vec![tag.id];
            }
            return Ok(request);
        }
        let all: BTreeSet<_> = list
            .refs
            .iter()
            .filter(|r| r.name.starts_with(b"refs/heads/") || r.name.starts_with(b"refs/tags/"))
            .map(|r| r.id)
            .collect();
        if all.is_empty() {
            return Err(self.not_found(wanted, Some("it has neither branches nor tags".into())));
        }
        (self.progress)(Progress::Warning(format!(
            "`{}` does not serve single commits: its branches and tags are fetched",
            self.remote.url
        )));
        request.wants = all.into_iter().collect();
        request.depth = (!request.shallow.is_empty() && list.can_shallow()).then_some(UNLIMITED);
        Ok(request)
    }

    /// Stores what `read` passes on as a pack, and moves the boundary of the history.
    fn receive(
        &self,
        read: impl FnOnce(&mut dyn Write) -> Result<Boundary, Trouble>,
    ) -> Result<(), Received> {
        let store = |error| Received::Store(self.git("storing the pack", error));
        let objects = self.repository.odb().map_err(store)?;
        let mut writer = objects.packwriter().map_err(store)?;
        let counts = std::rc::Rc::new(Cell::new((0, 0)));
        let counting = std::rc::Rc::clone(&counts);
        writer.progress(move |progress| {
            counting.set((progress.received_objects(), progress.total_objects()));
            true
        });
        let mut sink = Sink { writer, fetch: self, counts, told: Instant::now(), bytes: 0 };
        let boundary = match read(&mut sink) {
            Ok(boundary) => boundary,
            Err(Trouble::Store(error)) => {
                let failure = self.watch.failure();
                let library = git2::Error::last_error(-1);
                let failure = failure.unwrap_or_else(|| {
                    if library.message().is_empty() {
                        Failure::file("write to", self.repository.path(), error)
                    } else {
                        self.git("storing the pack", library)
                    }
                });
                return Err(Received::Store(failure));
            }
            Err(trouble) => return Err(Received::Trouble(trouble)),
        };
        if sink.bytes == 0 {
            return Err(Received::Trouble(Trouble::Read(io::ErrorKind::UnexpectedEof.into())));
        }
        sink.tell();
        self.bytes.set(self.bytes.get() + sink.bytes);
        sink.writer.commit().map_err(store)?;
        drop(sink);
        self.move_boundary(&boundary).map_err(Received::Store)
    }

    fn move_boundary(&self, boundary: &Boundary) -> Result<(), Failure> {
        if *boundary == Boundary::default() {
            return Ok(());
        }
        let mut list: BTreeSet<_> = repository::shallow(self.repository)?.into_iter().collect();
        list.extend(&boundary.shallow);
        for id in &boundary.unshallow {
            list.remove(id);
        }
        repository::set_shallow(self.repository, &list.into_iter().collect::<Vec<_>>())
    }

    /// Checks that a fetched object is, or leads to, a commit with all its files, and only
    /// then writes the ref that says so.
    fn keep(&self, wanted: Revision) -> Result<Revision, Failure> {
        let name = format!("{FETCHED}/{wanted}");
        let commit = match self.checked(wanted) {
            Ok(commit) => commit,
            Err(failure) => {
                // libgit2's own transports write it at once.
                if let Ok(mut early) = self.repository.find_reference(&name) {
                    early.delete().map_err(|error| self.git("recording the fetch", error))?;
                }
                return Err(failure);
            }
        };
        self.repository
            .reference(&name, oid(commit), true, "fetch")
            .map_err(|error| self.git("recording the fetch", error))?;
        Ok(commit)
    }

    fn checked(&self, wanted: Revision) -> Result<Revision, Failure> {
        let lost = |error| self.git("checking what came", error);
        let object = self.repository.find_object(oid(wanted), None).map_err(lost)?;
        let commit = match object.peel_to_commit() {
            Ok(commit) => commit,
            Err(error) => {
                let end = object.peel(ObjectType::Any).unwrap_or(object);
                return match end.kind() {
                    Some(kind @ (ObjectType::Blob | ObjectType::Tree)) => {
                        Err(Failure::NotACommit {
                            revision: wanted,
                            kind: kind.str().to_owned(),
                            url: self.remote.url.clone(),
                        })
                    }
                    _ => Err(lost(error)),
                };
            }
        };
        let objects = self.repository.odb().map_err(lost)?;
        self.all_there(&objects, commit.tree_id())?;
        Ok(revision(commit.id()))
    }

    /// Not recursive: how deep the trees go is the remote's choice.
    fn all_there(&self, objects: &git2::Odb<'_>, root: Oid) -> Result<(), Failure> {
        let damaged = |error| self.git("checking what came", error);
        let mut seen = HashSet::from([root]);
        let mut trees = vec![root];
        while let Some(tree) = trees.pop() {
            let tree = self.repository.find_tree(tree).map_err(damaged)?;
            for entry in &tree {
                let id = entry.id();
                match entry.kind() {
                    // The commit of a submodule is in another repository.
                    Some(ObjectType::Commit) => {}
                    _ if !seen.insert(id) => {}
                    Some(ObjectType::Tree) => trees.push(id),
                    _ if objects.exists(id) => {}
                    _ => {
                        return Err(Failure::Damaged {
                            path: self.repository.path().to_owned(),
                            detail: format!("object {id} did not come"),
                        });
                    }
                }
            }
        }
        Ok(())
    }

    fn must_have(&self, wanted: Revision) -> Result<(), Failure> {
        let objects = self.repository.odb().map_err(|error| self.git("reading", error))?;
        if objects.exists(oid(wanted)) { Ok(()) } else { Err(self.not_found(wanted, None)) }
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

    fn list(&self, prefixes: &[String]) -> Result<Vec<RemoteRef>, Failure> {
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
    fn history_of(&self, ends: &[Revision]) -> Result<(), Failure> {
        if let RepoUrl::File(path) = &self.remote.url {
            return self.history_on_disk(&local::open(path)?, ends);
        }
        let shallow = repository::shallow(self.repository)?;
        let depth = (!shallow.is_empty()).then_some(UNLIMITED);
        let request = Request { wants: ends.to_vec(), haves: self.haves(), shallow, depth };
        if let RepoUrl::Ssh { .. } = &self.remote.url {
            let (mut server, greeting) = Ssh::connect(self.remote, self.watch, self.progress)?;
            let received = match greeting {
                Greeting::V2 => {
                    let answer = server.ask(&protocol::fetch_v2(&request))?;
                    self.receive(|store| protocol::read_pack_v2(answer, store))
                }
                Greeting::V0(list) => {
                    let answer = server.ask(&protocol::fetch_v0(&request, &list))?;
                    self.receive(|store| protocol::read_pack_v0(answer, depth.is_some(), store))
                }
            };
            received.map_err(|received| match received {
                Received::Store(failure) => failure,
                Received::Trouble(trouble) => server.explain(trouble, false),
            })
        } else {
            let mut server = Http::new(self.remote, self.watch, self.progress)?;
            let received = if self.speaks_v0() {
                let list = server.advertisement()?.unwrap_or_default();
                let mut answer = server.post(&protocol::fetch_v0(&request, &list), false)?;
                self.receive(|store| protocol::read_pack_v0(&mut answer, depth.is_some(), store))
            } else {
                let mut answer = server.post(&protocol::fetch_v2(&request), true)?;
                self.receive(|store| protocol::read_pack_v2(&mut answer, store))
            };
            received.map_err(|received| match received {
                Received::Store(failure) => failure,
                Received::Trouble(trouble) => server.explain(trouble),
            })
        }
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

/// Why a pack was not received.
enum Received {
    Trouble(Trouble),
    Store(Failure),
}

/// Whether a server's words mean that it does not have, or not give away, what was wanted.
fn is_not_ours(words: &str) -> bool {
    [
        "not our ref",
        "not valid",
        "unadvertised object",
        "no such object",
        "bad object",
        "no such remote ref",
    ]
    .iter()
    .any(|part| words.contains(part))
}

/// Whether the answer to a version 2 request shows that the server does not know version 2.
fn is_not_v2(trouble: &Trouble, bytes: u64) -> bool {
    match trouble {
        Trouble::Said(words) => {
            words.contains("protocol error") || words.contains("expected to get")
        }
        Trouble::Strange(_) => true,
        // It hung up on the first line.
        Trouble::Read(error) => error.kind() == io::ErrorKind::UnexpectedEof && bytes == 0,
        Trouble::Store(_) => false,
    }
}

/// Where the bytes of a pack go.
struct Sink<'s, 'a> {
    writer: git2::OdbPackwriter<'s>,
    fetch: &'s Fetch<'a>,
    counts: std::rc::Rc<Cell<(usize, usize)>>,
    told: Instant,
    bytes: usize,
}

impl Sink<'_, '_> {
    fn tell(&self) {
        let (objects, of) = self.counts.get();
        (self.fetch.progress)(Progress::Receiving { objects, of, bytes: self.bytes });
    }
}

impl Write for Sink<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.fetch.watch.failure().is_some() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let written = self.writer.write(bytes)?;
        self.bytes += written;
        if self.told.elapsed() > Duration::from_millis(100) {
            self.told = Instant::now();
            self.tell();
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_in_the_words_of_several_servers() {
        for words in [
            "upload-pack: not our ref 91ab77cd0e5f2f7f0a6c1b3f5d7e9a1b2c3d4e5f",
            "want 91ab77cd0e5f2f7f0a6c1b3f5d7e9a1b2c3d4e5f not valid",
            "Server does not allow request for unadvertised object 91ab77cd",
        ] {
            assert!(is_not_ours(words), "{words}");
        }
        assert!(!is_not_ours("out of memory"));
    }

    #[test]
    fn an_old_server_is_recognised_and_a_cut_line_is_not_one() {
        let said = |words: &str| Trouble::Said(words.to_owned());
        let eof = || Trouble::Read(io::ErrorKind::UnexpectedEof.into());
        assert!(is_not_v2(&said("upload-pack: protocol error, expected to get object ID"), 60));
        assert!(is_not_v2(&eof(), 0));
        assert!(!is_not_v2(&eof(), 4));
        assert!(!is_not_v2(&said("upload-pack: not our ref"), 60));
        assert!(!is_not_v2(&Trouble::Read(io::ErrorKind::ConnectionReset.into()), 0));
    }
}
