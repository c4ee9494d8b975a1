//! Asking a server, in whichever version it speaks, or a repository on this disk.

use std::collections::BTreeSet;
use std::io;

use git2::{Oid, Repository};

use super::Fetch;
use super::receive::Received;
use crate::domain::{RepoUrl, Revision};
use crate::mirror::failure::Failure;
use crate::mirror::http::Http;
use crate::mirror::protocol::{self, Advertisement, Greeting, Request, Trouble, UNLIMITED};
use crate::mirror::ssh::Ssh;
use crate::mirror::{Progress, local};

impl Fetch<'_> {
    pub(super) fn over_https(&self, request: &Request, wanted: Revision) -> Result<(), Failure> {
        let mut server = Http::new(self.remote, self.watch, self.progress)?;
        let mut request = request.clone();
        // What it can leave out is in the greeting; without need it is not asked for.
        if request.commits_only && !self.speaks_v0() {
            match server.greeting(true)? {
                Greeting::V2 { filter } => request.commits_only = filter,
                Greeting::V0(_) => self.remember_v0(),
            }
        }
        let request = &request;
        if !self.speaks_v0() {
            let mut answer = server.post(&protocol::fetch_v2(request), true)?;
            match self.receive(|store| protocol::read_pack_v2(&mut answer, store)) {
                Ok(()) => {
                    server.finish(answer);
                    return self.must_have(wanted);
                }
                Err(Received::Store(failure)) => return Err(failure),
                Err(Received::Trouble(trouble)) => {
                    if !is_not_v2(&trouble, answer.bytes()) {
                        self.note_tips_only(&trouble, None);
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
            Ok(()) => {
                server.finish(answer);
                self.must_have(wanted)
            }
            Err(Received::Store(failure)) => Err(failure),
            Err(Received::Trouble(trouble)) => {
                self.note_tips_only(&trouble, Some(&list));
                Err(self.refusal(trouble, wanted, |trouble| server.explain(trouble)))
            }
        }
    }

    pub(super) fn over_ssh(&self, request: &Request, wanted: Revision) -> Result<(), Failure> {
        let (mut server, greeting) = Ssh::connect(self.remote, self.watch, self.progress)?;
        let received = match &greeting {
            Greeting::V2 { filter } => {
                let mut request = request.clone();
                request.commits_only &= filter;
                let answer = server.ask(&protocol::fetch_v2(&request))?;
                self.receive(|store| protocol::read_pack_v2(answer, store))
            }
            Greeting::V0(list) => {
                let request = self.request_v0(list, request, wanted)?;
                let answer = server.ask(&protocol::fetch_v0(&request, list))?;
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
                let list = match &greeting {
                    Greeting::V2 { .. } => None,
                    Greeting::V0(list) => Some(list),
                };
                self.note_tips_only(&trouble, list);
                Err(self.refusal(trouble, wanted, |trouble| server.explain(trouble, false)))
            }
        }
    }

    /// Sends a request as it is, except that what this server cannot leave out is not left out.
    pub(super) fn ask(&self, mut request: Request) -> Result<(), Failure> {
        if let RepoUrl::Ssh { .. } = &self.remote.url {
            let (mut server, greeting) = Ssh::connect(self.remote, self.watch, self.progress)?;
            let received = match greeting {
                Greeting::V2 { filter } => {
                    request.commits_only &= filter;
                    let answer = server.ask(&protocol::fetch_v2(&request))?;
                    self.receive(|store| protocol::read_pack_v2(answer, store))
                }
                Greeting::V0(list) => {
                    let answer = server.ask(&protocol::fetch_v0(&request, &list))?;
                    let deepened = request.depth.is_some() && list.can_shallow();
                    self.receive(|store| protocol::read_pack_v0(answer, deepened, store))
                }
            };
            return match received {
                Ok(()) => {
                    server.close();
                    Ok(())
                }
                Err(Received::Store(failure)) => Err(failure),
                Err(Received::Trouble(trouble)) => Err(server.explain(trouble, false)),
            };
        }
        let mut server = Http::new(self.remote, self.watch, self.progress)?;
        // What it can leave out is in the greeting; without need it is not asked for.
        let greeting = if self.speaks_v0() || request.commits_only {
            server.greeting(!self.speaks_v0())?
        } else {
            Greeting::V2 { filter: false }
        };
        let (received, answer) = match greeting {
            Greeting::V2 { filter } => {
                request.commits_only &= filter;
                let mut answer = server.post(&protocol::fetch_v2(&request), true)?;
                (self.receive(|store| protocol::read_pack_v2(&mut answer, store)), answer)
            }
            Greeting::V0(list) => {
                let mut answer = server.post(&protocol::fetch_v0(&request, &list), false)?;
                let deepened = request.depth.is_some() && list.can_shallow();
                (self.receive(|store| protocol::read_pack_v0(&mut answer, deepened, store)), answer)
            }
        };
        received.map_err(|received| match received {
            Received::Store(failure) => failure,
            Received::Trouble(trouble) => server.explain(trouble),
        })?;
        server.finish(answer);
        Ok(())
    }

    /// Notes whether a refusal may mean that the server serves the ends of branches and tags
    /// only. In version 2 git itself serves whatever it has, and says "not our ref" of what it
    /// has not; in version 0 it is a refusal unless it offers what can be reached.
    fn note_tips_only(&self, trouble: &Trouble, list: Option<&Advertisement>) {
        let Trouble::Said(words) = trouble else { return };
        let may_have_it = match list {
            None => is_not_ours(words) && !words.contains("not our ref"),
            Some(list) => is_not_ours(words) && !list.serves_what_is_reachable(),
        };
        self.tips_only.set(may_have_it);
    }

    /// Fetches all branches and tags, to look the commit up there. Never `refs/*`.
    pub(super) fn by_branches_and_tags(&self, wanted: Revision) -> Result<(), Failure> {
        let places = ["refs/heads/", "refs/tags/"].map(str::to_owned);
        let mut refs = self.list(&places)?;
        refs.retain(|r| places.iter().any(|place| r.name.starts_with(place.as_bytes())));
        let leads = refs.iter().find(|r| r.id == wanted || r.peeled == Some(wanted));
        let wants: BTreeSet<_> = match leads {
            Some(one) => BTreeSet::from([one.id]),
            None => refs.iter().map(|r| r.id).collect(),
        };
        if wants.is_empty() {
            return Err(self.not_found(wanted, Some("it has neither branches nor tags".into())));
        }
        self.warn_of_everything();
        self.history_of(&wants.into_iter().collect::<Vec<_>>())?;
        self.must_have(wanted)
    }

    fn warn_of_everything(&self) {
        (self.progress)(Progress::Warning(format!(
            "`{}` does not serve single commits: its branches and tags are fetched",
            self.remote.url
        )));
    }

    pub(super) fn take_from_disk(
        &self,
        from: &Repository,
        wanted: Revision,
    ) -> Result<(), Failure> {
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
        self.warn_of_everything();
        request.wants = all.into_iter().collect();
        request.depth = (!request.shallow.is_empty() && list.can_shallow()).then_some(UNLIMITED);
        Ok(request)
    }
}

/// Whether a server's words mean that it does not have, or not give away, what was wanted.
pub(super) fn is_not_ours(words: &str) -> bool {
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
pub(super) fn is_not_v2(trouble: &Trouble, bytes: u64) -> bool {
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
