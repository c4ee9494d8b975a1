//! Downloads: the batch API is asked for some objects at a time, and these come in parallel.
//!
//! The credential, or what the server gave over SSH, goes to the batch server alone. Objects
//! mostly lie on another host: that one gets the headers which the answer has for it and nothing
//! else, and after a redirect to a third host not even these.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::Body;
use ureq::http::{HeaderMap, Response, header};

use super::batch::{self, Address, No};
use super::endpoint::Endpoint;
use super::partial::{End, PIECE, Partial};
use super::pointer::Object;
use super::problem::{Named, Problem, listed};
use crate::domain::RepoUrl;
use crate::mirror::failure::Failure;
use crate::mirror::http::Http;
use crate::mirror::http::lfs::{length, location, range_start};
use crate::mirror::watch::Watch;
use crate::mirror::{Progress, Remote, retry};
use crate::sync::lock;

/// Objects that come at a time, as git-lfs has it.
const AT_A_TIME: usize = 8;
/// Addresses hold for some time only: how often new ones are asked for.
const ROUNDS: usize = 3;
const REDIRECTS: usize = 5;
/// How often it is told how far it is.
const TELLING: Duration = Duration::from_millis(100);

/// An object to be had, and the files that it is for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub object: Object,
    pub paths: Vec<String>,
}

impl Wanted {
    pub(super) fn named(&self) -> Named {
        Named::new(self.object, &self.paths)
    }
}

/// How a host is reached that objects lie on: without any credential.
pub type Ways<'a> = dyn Fn(&RepoUrl) -> Result<Remote, Failure> + Sync + 'a;

/// Tells how it goes, from any thread.
pub type Telling<'a> = dyn Fn(Progress) + Sync + 'a;

/// What all downloads of one mirror have in common.
pub(super) struct Transfer<'a> {
    mirror: &'a Path,
    endpoint: &'a Endpoint,
    /// The batch server, with the credential that is bound to it.
    remote: &'a Remote,
    ways: &'a Ways<'a>,
    progress: &'a Telling<'a>,
    end: Instant,
    of: usize,
    done: AtomicUsize,
    bytes: AtomicU64,
    told: Mutex<Instant>,
}

/// An object and where it is.
type Found<'w> = (&'w Wanted, Address);

/// A host, and whether it is shown the credential: only the batch server itself ever is.
type Group = (String, bool);

impl<'a> Transfer<'a> {
    pub(super) fn new(
        mirror: &'a Path,
        endpoint: &'a Endpoint,
        remote: &'a Remote,
        ways: &'a Ways<'a>,
        progress: &'a Telling<'a>,
    ) -> Self {
        Self {
            mirror,
            endpoint,
            remote,
            ways,
            progress,
            end: Instant::now() + remote.limits.total,
            of: 0,
            done: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            told: Mutex::new(Instant::now()),
        }
    }

    /// Brings them all; answers how many bytes came.
    ///
    /// # Errors
    /// The first trouble that does not pass. What came stays.
    pub(super) fn bring(mut self, wanted: &[Wanted]) -> Result<u64, Failure> {
        self.of = wanted.len();
        let mut open: Vec<&Wanted> = wanted.iter().collect();
        for round in 1.. {
            let mut again = Vec::new();
            for some in open.chunks(batch::MOST) {
                let found = self.ask(some)?;
                again.extend(self.download(found, round == ROUNDS)?);
            }
            if again.is_empty() {
                break;
            }
            open = again;
        }
        self.tell(true);
        Ok(self.bytes.load(Ordering::Relaxed))
    }

    /// Asks where they are, and no more.
    ///
    /// # Errors
    /// One of them is not there.
    pub(super) fn find(&self, wanted: &[Wanted]) -> Result<(), Failure> {
        self.ask(&wanted.iter().collect::<Vec<_>>()).map(drop)
    }

    /// The same remote with the time that is left.
    fn in_time(&self, remote: &Remote) -> Remote {
        let total = self.end.saturating_duration_since(Instant::now());
        let mut remote = remote.clone();
        remote.limits.total = total;
        remote
    }

    /// Where these are.
    fn ask<'w>(&self, some: &[&'w Wanted]) -> Result<Vec<Found<'w>>, Failure> {
        let remote = self.in_time(self.remote);
        let watch = Watch::start(&remote);
        let progress = |progress: Progress| (self.progress)(progress);
        let objects: Vec<Object> = some.iter().map(|wanted| wanted.object).collect();
        let body = batch::question(&objects);
        let url = || self.endpoint.url.clone();
        let asked = retry::retrying(&watch, remote.limits.pause, &progress, || {
            let mut http = Http::new(&remote, &watch, &progress)?;
            let answer = http.batch(&self.endpoint.headers, &body)?;
            let said = batch::read(&answer.body, &objects)
                .map_err(|what| Problem::NotLfs { url: url(), answer: what.into() })?;
            let tame = |words: String| http.without_shown(&words);
            Ok(said
                .into_iter()
                .map(|said| {
                    said.map_err(|no| match no {
                        No::Missing(words) => No::Missing(tame(words)),
                        No::Refused(code, words) => No::Refused(code, tame(words)),
                        no => no,
                    })
                })
                .collect::<Vec<_>>())
        });
        let said = asked.map_err(|failure| match failure {
            failure @ (Failure::Interrupted(_) | Failure::Lfs(_)) => failure,
            failure => {
                let paths: Vec<String> = some.iter().flat_map(|one| one.paths.clone()).collect();
                let (count, paths) = (some.len(), listed(&paths));
                Problem::Ask { url: url(), count, paths, source: Box::new(failure) }.into()
            }
        })?;
        let (mut found, mut missing, mut why) = (Vec::new(), Vec::new(), String::new());
        for (wanted, said) in some.iter().zip(said) {
            let named = || wanted.named();
            match said {
                Ok(address) => found.push((*wanted, address)),
                Err(No::Missing(words)) => {
                    missing.push(named());
                    why = words;
                }
                Err(No::Refused(code, words)) => {
                    return Err(Problem::Refused { url: url(), named: named(), code, words }.into());
                }
                Err(No::Size(size)) => {
                    let (from, found) = (url(), size.to_string());
                    return Err(Problem::Size { from, named: named(), found }.into());
                }
                Err(No::Strange(what)) => {
                    return Err(Problem::Strange { url: url(), named: named(), what }.into());
                }
            }
        }
        if missing.is_empty() {
            Ok(found)
        } else {
            Err(Problem::Missing { url: url(), named: missing, words: why }.into())
        }
    }

    /// Brings what was found; answers those whose addresses do not hold any more.
    fn download<'w>(&self, found: Vec<Found<'w>>, last: bool) -> Result<Vec<&'w Wanted>, Failure> {
        let mut groups: BTreeMap<Group, Vec<Found<'w>>> = BTreeMap::new();
        for (wanted, address) in found {
            let own = self.is_endpoint(&address.authority)
                && !address.authenticated
                && !address.headers.contains_key(header::AUTHORIZATION);
            groups.entry((address.authority.clone(), own)).or_default().push((wanted, address));
        }
        let mut again = Vec::new();
        for ((authority, own), group) in groups {
            let remote = if own { self.remote.clone() } else { self.way(&authority)? };
            again.extend(self.download_from(&remote, own, &group, last)?);
        }
        Ok(again)
    }

    fn is_endpoint(&self, authority: &str) -> bool {
        matches!(&self.endpoint.url, RepoUrl::Https { authority: known, .. } if known == authority)
    }

    /// The way to a host, anonymously. Messages name it without what may be secret.
    fn way(&self, authority: &str) -> Result<Remote, Failure> {
        let url = RepoUrl::Https { authority: authority.to_owned(), path: String::new() };
        let remote = (self.ways)(&url)?;
        Ok(Remote { url, credential: None, limits: self.remote.limits, ..remote })
    }

    fn download_from<'w>(
        &self,
        remote: &Remote,
        own: bool,
        group: &[Found<'w>],
        last: bool,
    ) -> Result<Vec<&'w Wanted>, Failure> {
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (again, failed) = (Mutex::new(Vec::new()), Mutex::new(None));
        let work = || {
            let remote = self.in_time(remote);
            let watch = Watch::start(&remote);
            let progress = |progress: Progress| (self.progress)(progress);
            let work = || -> Result<(), Failure> {
                let mut http = Http::new(&remote, &watch, &progress)?;
                let given = if own { &self.endpoint.headers } else { &HeaderMap::new() };
                while let Some((wanted, address)) = group.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let mut headers = given.clone();
                    headers.extend(address.headers.clone());
                    let one = One { transfer: self, wanted, watch: &watch, stop: &stop };
                    let pause = remote.limits.pause;
                    let came = retry::retrying(&watch, pause, &progress, || {
                        one.bring(&mut http, &address.target, &headers)
                    });
                    match came {
                        Ok(Came::Whole) => drop(self.done.fetch_add(1, Ordering::Relaxed)),
                        Ok(Came::Stopped) => return Ok(()),
                        Err(Failure::Denied { .. }) if !last => lock(&again).push(*wanted),
                        Err(failure) => return Err(one.explain(failure)),
                    }
                    self.tell(false);
                }
                Ok(())
            };
            if let Err(failure) = work() {
                stop.store(true, Ordering::Relaxed);
                lock(&failed).get_or_insert(failure);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..AT_A_TIME.min(group.len()) {
                // With fewer threads than wished for it only takes longer.
                let _ = std::thread::Builder::new().name("lfs".into()).spawn_scoped(scope, work);
            }
            work();
        });
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        let again = again.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map_or(Ok(again), Err)
    }

    fn tell(&self, always: bool) {
        let mut told = lock(&self.told);
        if always || told.elapsed() > TELLING {
            *told = Instant::now();
            let bytes = usize::try_from(self.bytes.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
            let objects = self.done.load(Ordering::Relaxed);
            (self.progress)(Progress::Receiving { objects, of: self.of, bytes });
        }
    }
}

/// What became of one try.
enum Came {
    Whole,
    /// Another one failed meanwhile.
    Stopped,
}

/// The download of one object.
struct One<'t> {
    transfer: &'t Transfer<'t>,
    wanted: &'t Wanted,
    watch: &'t Watch,
    stop: &'t AtomicBool,
}

impl One<'_> {
    /// What a failure means for this object.
    fn explain(&self, failure: Failure) -> Failure {
        let says_which = match &failure {
            Failure::Lfs(problem) => !matches!(**problem, Problem::Unwilling { .. }),
            Failure::Interrupted(_) | Failure::DiskFull { .. } | Failure::File { .. } => true,
            _ => false,
        };
        match failure {
            failure if says_which => failure,
            failure => {
                let named = self.wanted.named();
                Problem::Download { named, source: Box::new(failure) }.into()
            }
        }
    }

    fn bring(
        &self,
        http: &mut Http<'_>,
        target: &str,
        headers: &HeaderMap,
    ) -> Result<Came, Failure> {
        let Object { oid: _, size } = self.wanted.object;
        let go_on = || self.watch.check();
        let mut partial = Partial::open(self.transfer.mirror, self.wanted.object, &go_on)?;
        let from = http.remote().url.clone();
        if !partial.is_whole() {
            let begun = partial.length();
            let response = self.answer(http, target, headers, begun, REDIRECTS)?;
            match response.status().as_u16() {
                206 if begun > 0 && range_start(&response) == Some(begun) => {}
                200 => {
                    if let Some(found) = length(&response).filter(|length| *length != size) {
                        let (named, found) = (self.wanted.named(), found.to_string());
                        return Err(Problem::Size { from, named, found }.into());
                    }
                    partial.clear()?;
                }
                206 | 416 if begun > 0 => {
                    partial.clear()?;
                    return Err(self.watch.broken("it does not continue where it was broken off"));
                }
                _ => return Err(self.refusal(&response, from)),
            }
            let mut body = response.into_body().into_reader();
            let mut piece = vec![0; PIECE];
            loop {
                let read = body.read(&mut piece);
                let count = match read {
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => {
                        return Err(http.network(crate::mirror::tls::io_or_ureq(error)));
                    }
                };
                if count == 0 {
                    break;
                }
                self.watch.check()?;
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(Came::Stopped);
                }
                if !partial.add(&piece[..count])? {
                    let (named, found) = (self.wanted.named(), format!("more than {size}"));
                    return Err(Problem::Size { from, named, found }.into());
                }
                self.transfer.bytes.fetch_add(count as u64, Ordering::Relaxed);
                self.transfer.tell(false);
            }
            if !partial.is_whole() {
                let detail = format!("{} of {size} bytes came", partial.length());
                return Err(self.watch.broken(&detail));
            }
            http.whole(&mut body);
        }
        match partial.finish()? {
            End::Kept => Ok(Came::Whole),
            End::Other(_, true) => {
                Err(self.watch.broken("what came before it broke off was damaged"))
            }
            End::Other(found, false) => {
                Err(Problem::Content { from, named: self.wanted.named(), found }.into())
            }
        }
    }

    /// The answer, after redirects: to another host nothing is sent along.
    fn answer(
        &self,
        http: &mut Http<'_>,
        target: &str,
        headers: &HeaderMap,
        begun: u64,
        redirects: usize,
    ) -> Result<Response<Body>, Failure> {
        let response = http.content(target, headers, begun)?;
        let Some(place) = location(&response) else { return Ok(response) };
        let url = http.remote().url.clone();
        let Some(left) = redirects.checked_sub(1) else {
            return Err(Failure::RedirectLoop { url, times: REDIRECTS });
        };
        if place.starts_with('/') && !place.starts_with("//") {
            return self.answer(http, &place, headers, begun, left);
        }
        let (authority, target) = batch::place(&place).map_err(|what| Problem::Strange {
            url: url.clone(),
            named: self.wanted.named(),
            what,
        })?;
        if matches!(&url, RepoUrl::Https { authority: here, .. } if *here == authority) {
            return self.answer(http, &target, headers, begun, left);
        }
        let remote = self.transfer.in_time(&self.transfer.way(&authority)?);
        let progress = |_: Progress| {};
        let mut other = Http::new(&remote, self.watch, &progress)?;
        self.answer(&mut other, &target, &HeaderMap::new(), begun, left)
    }

    /// What an answer means that is no good.
    fn refusal(&self, response: &Response<Body>, url: RepoUrl) -> Failure {
        let after = Http::wish(response);
        let words = String::new();
        match response.status().as_u16() {
            code @ (401 | 403) if after.is_none() => Failure::Denied {
                url,
                asked_with: format!("the address that `{}` gave", self.transfer.endpoint.url),
                remote_said: Some(format!("HTTP status {code}")),
            },
            404 | 410 => Problem::Missing { url, named: vec![self.wanted.named()], words }.into(),
            status @ (501 | 507 | 509) => Problem::Unwilling { url, status, words }.into(),
            status @ (403 | 429 | 500..) => Failure::Status { url, status, after },
            status => Problem::Unwilling { url, status, words }.into(),
        }
    }
}
