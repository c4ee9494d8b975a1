//! `git-upload-pack` over HTTPS: one POST for exactly what is wanted.
//!
//! The credential goes to the one host it is bound to, with the first request, and is never
//! offered a second time. Redirects stay on that host.

pub(super) mod api;
pub(super) mod lfs;
mod line;
mod transport;

use std::io::{self, Read};
use std::time::Duration;

use ureq::http::{self, Response, StatusCode, header};
use ureq::{Body, Timeout};

pub(super) use line::hang_up;
use line::{Content, Line};

use super::credentials::{Credential, Proof};
use super::examine::ahead;
use super::failure::{Failure, Step, harmless, page_words};
use super::pkt::PktReader;
use super::protocol::{self, Advertisement, Greeting, Trouble};
use super::shown::{Shown, USER, basic};
use super::tls::{self, Way};
use super::watch::Watch;
use super::{Progress, Remote, asked_with};
use crate::domain::RepoUrl;
use api::Answer;

/// As many as a browser follows.
const REDIRECTS: usize = 5;
/// As much of a page as is looked at for words.
const PAGE: u64 = 4096;
const RESULT: &str = "application/x-git-upload-pack-result";
const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";

/// The server of one repository.
pub(super) struct Http<'a> {
    remote: &'a Remote,
    watch: &'a Watch,
    progress: &'a dyn Fn(Progress),
    line: Line,
    authority: String,
    /// The repository's URL, after redirects.
    base: String,
    authorization: Option<http::HeaderValue>,
    /// What it is shown: servers and proxies may repeat it in what they say.
    shown: Shown,
}

impl<'a> Http<'a> {
    /// Nothing is connected yet.
    pub(super) fn new(
        remote: &'a Remote,
        watch: &'a Watch,
        progress: &'a dyn Fn(Progress),
    ) -> Result<Self, Failure> {
        let RepoUrl::Https { authority, .. } = &remote.url else {
            return Err(Failure::NotGit { url: remote.url.clone(), answer: "no HTTPS URL".into() });
        };
        let line = Line::to(Way::new(authority, remote), watch.clock());
        let unusable = |credential: &Credential| Failure::CredentialUnusable {
            url: remote.url.clone(),
            origin: credential.origin.clone(),
        };
        let authorization = match &remote.credential {
            None => None,
            Some(credential) => {
                let Proof::Token(token) = &credential.proof else {
                    return Err(unusable(credential));
                };
                let pair = basic(credential.username.as_deref().unwrap_or(USER), token);
                let mut value = http::HeaderValue::from_str(&format!("Basic {pair}"))
                    .map_err(|_| unusable(credential))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let shown = Shown::to(remote);
        let base = remote.url.to_string();
        let base = base.trim_end_matches('/').to_owned();
        let authority = authority.clone();
        Ok(Self { remote, watch, progress, line, authority, base, authorization, shown })
    }

    /// Sends a request to `git-upload-pack` and gives its answer.
    pub(super) fn post(&mut self, body: &[u8], v2: bool) -> Result<PktReader<Content>, Failure> {
        let mut sent = 0;
        loop {
            let mut request = http::Request::post(format!("{}/git-upload-pack", self.base))
                .header(header::CONTENT_TYPE, "application/x-git-upload-pack-request")
                .header(header::ACCEPT, RESULT);
            if v2 {
                request = request.header("Git-Protocol", "version=2");
            }
            let response = self.send(request, Some(body), true)?;
            if self.follow(&response, "/git-upload-pack", &mut sent)? {
                continue;
            }
            // Some servers redirect, or know a repository, only at the first step that git
            // itself would take.
            let maybe_moved =
                matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
            if maybe_moved && sent == 0 {
                let before = self.base.clone();
                self.advertisement()?;
                if self.base != before {
                    sent += 1;
                    continue;
                }
            }
            return Ok(PktReader::new(self.answer(response, RESULT)?));
        }
    }

    /// Says that all of an answer that matters was read, so that its connection is used again.
    pub(super) fn finish(&mut self, answer: PktReader<Content>) {
        if let Some(rest) = answer.into_rest() {
            self.line.finish(rest);
        }
    }

    /// The list of refs, as protocol version 0 has it; `None` if the server speaks version 2
    /// regardless.
    pub(super) fn advertisement(&mut self) -> Result<Option<Advertisement>, Failure> {
        match self.greeting(false)? {
            Greeting::V0(list) => Ok(Some(list)),
            Greeting::V2 { .. } => Ok(None),
        }
    }

    /// Where the repository is after redirects on this host; a good answer is not looked at.
    pub(super) fn settled(mut self) -> Result<String, Failure> {
        let mut sent = 0;
        loop {
            let url = format!("{}/info/refs?service=git-upload-pack", self.base);
            let response = self.send(http::Request::get(url), None, true)?;
            if self.follow(&response, "/info/refs", &mut sent)? {
                continue;
            }
            if response.status() != StatusCode::OK {
                self.answer(response, ADVERTISEMENT)?;
            }
            return Ok(self.base);
        }
    }

    /// What the server says first, asked for version 2 or for version 0.
    pub(super) fn greeting(&mut self, v2: bool) -> Result<Greeting, Failure> {
        let mut sent = 0;
        loop {
            let url = format!("{}/info/refs?service=git-upload-pack", self.base);
            let mut request = http::Request::get(url);
            if v2 {
                request = request.header("Git-Protocol", "version=2");
            }
            let response = self.send(request, None, true)?;
            if self.follow(&response, "/info/refs", &mut sent)? {
                continue;
            }
            let mut reader = PktReader::new(self.answer(response, ADVERTISEMENT)?);
            let greeting = protocol::greeting(&mut reader, true);
            let greeting = greeting.map_err(|trouble| self.explain(trouble))?;
            self.finish(reader);
            return Ok(greeting);
        }
    }

    /// `again`: nothing is done twice if the request is sent twice.
    fn send(
        &mut self,
        mut request: http::request::Builder,
        body: Option<&[u8]>,
        again: bool,
    ) -> Result<Response<Body>, Failure> {
        self.watch.check()?;
        if let Some(value) = &self.authorization {
            request = request.header(header::AUTHORIZATION, value.clone());
        }
        let sent = match body {
            Some(body) => request.body(body).map(|request| self.line.send(request, again)),
            None => request.body(()).map(|request| self.line.send(request, again)),
        };
        match sent {
            Ok(Ok(response)) => {
                let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
                self.watch.eyes().see(|seen| seen.clock = date.and_then(ahead).or(seen.clock));
                Ok(response)
            }
            Ok(Err(error)) => Err(self.network(error)),
            Err(error) => Err(Failure::NotGit {
                url: self.remote.url.clone(),
                answer: format!("no request can be made of this URL: {error}"),
            }),
        }
    }

    /// Takes over the new address after a redirect on the same host; true if it did.
    fn follow(
        &mut self,
        response: &Response<Body>,
        suffix: &str,
        sent: &mut usize,
    ) -> Result<bool, Failure> {
        if !response.status().is_redirection() {
            return Ok(false);
        }
        let target = self.target(response);
        let elsewhere = || self.redirected(&target);
        let path = self.path_here(&target).map(|path| path.split('?').next().unwrap_or_default());
        let moved_to = path.and_then(|path| path.strip_suffix(suffix.trim_start_matches('/')));
        let Some(path) = moved_to.map(|path| path.trim_end_matches('/')) else {
            return Err(elsewhere());
        };
        *sent += 1;
        if *sent > REDIRECTS {
            return Err(Failure::RedirectLoop { url: self.remote.url.clone(), times: REDIRECTS });
        }
        self.base = format!("https://{}/{path}", self.authority);
        (self.progress)(Progress::Warning(format!(
            "`{}` has moved to `{}`: update the source",
            self.remote.url,
            self.shown.hide(without_secrets(&self.base))
        )));
        Ok(true)
    }

    fn redirected(&self, target: &str) -> Failure {
        let to = self.shown.hide(without_secrets(target));
        Failure::Redirected { url: self.remote.url.clone(), to }
    }

    /// The URL that a redirect leads to.
    fn target(&self, response: &Response<Body>) -> String {
        let location = response.headers().get(header::LOCATION);
        let location = location.and_then(|value| value.to_str().ok()).unwrap_or_default();
        match location.strip_prefix('/') {
            Some(path) if !path.starts_with('/') => format!("https://{}/{path}", self.authority),
            _ => location.to_owned(),
        }
    }

    /// Path and query of a URL, if it is one of this host.
    fn path_here<'u>(&self, url: &'u str) -> Option<&'u str> {
        let (authority, path) = url.strip_prefix("https://")?.split_once('/')?;
        let authority = authority.to_ascii_lowercase();
        let here = authority.strip_suffix(":443").unwrap_or(&authority) == self.authority;
        here.then(|| path.split('#').next().unwrap_or_default())
    }

    /// The body of a good answer, or what a bad one means.
    fn answer(&self, response: Response<Body>, kind: &str) -> Result<Content, Failure> {
        let url = self.remote.url.clone();
        let status = response.status();
        let asked_with = asked_with(self.remote);
        if status == StatusCode::OK {
            let content = response.headers().get(header::CONTENT_TYPE);
            let content = content.and_then(|value| value.to_str().ok()).unwrap_or("nothing");
            if content.split(';').next().is_some_and(|content| content.trim() == kind) {
                return Ok(Box::new(response.into_body().into_reader()));
            }
            let content = self.shown.hide(harmless(content.as_bytes()));
            let mut start = Vec::new();
            let _ = response.into_body().into_reader().take(PAGE).read_to_end(&mut start);
            self.watch.check()?;
            let says = self.shown.hide(page_words(&start));
            return Err(if content.contains("html") {
                Failure::WebPage { url, says }
            } else {
                Failure::NotGit { url, answer: format!("`{content}`: {says}") }
            });
        }
        let after = retry_after(&response);
        Err(match status.as_u16() {
            401 if self.authorization.is_none() => Failure::CredentialMissing { url },
            code @ (401 | 403) => {
                let remote_said = Some(format!("HTTP status {code}"));
                Failure::Denied { url, asked_with, remote_said }
            }
            404 | 410 => Failure::NotFoundOrForbidden { url, asked_with, remote_said: None },
            status => Failure::Status { url, status, after },
        })
    }

    /// What trouble with an answer means.
    pub(super) fn explain(&self, trouble: Trouble) -> Failure {
        let url = self.remote.url.clone();
        match trouble {
            Trouble::Read(error) => self.network(tls::io_or_ureq(error)),
            Trouble::Store(error) => Failure::Broken { url, detail: error.to_string() },
            Trouble::Said(words) if words.contains("object-format") => {
                Failure::ObjectFormat { url }
            }
            Trouble::Said(words) => Failure::Remote { url, remote_said: self.shown.hide(words) },
            Trouble::Strange(words) => Failure::NotGit { url, answer: self.shown.hide(words) },
        }
    }

    pub(super) fn network(&self, error: ureq::Error) -> Failure {
        if let Some(failure) = self.watch.failure() {
            return failure;
        }
        match error {
            ureq::Error::Timeout(Timeout::Global | Timeout::PerCall) => {
                self.watch.timeout(Step::Total)
            }
            ureq::Error::Timeout(_) => self.watch.timeout(Step::Read),
            ureq::Error::Io(error) => match error.kind() {
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                    self.watch.timeout(Step::Read)
                }
                _ => self.watch.broken(&error.to_string()),
            },
            ureq::Error::Other(error) => match error.downcast::<Failure>() {
                Ok(failure) => *failure,
                Err(error) => self.watch.broken(&error.to_string()),
            },
            other => self.watch.broken(&other.to_string()),
        }
    }
}

/// How long the server wants us to wait: seconds, or a date.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    let date = response.headers().get(header::DATE).and_then(|value| value.to_str().ok());
    wait_of(value, date, jiff::Timestamp::now())
}

/// By the server's own clock if it tells the time: ours may be wrong.
fn wait_of(value: &str, date: Option<&str>, now: jiff::Timestamp) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let time = |text: &str| jiff::fmt::rfc2822::parse(text.trim()).ok().map(|z| z.timestamp());
    let now = date.and_then(time).unwrap_or(now);
    let wait = time(value)?.duration_since(now);
    // A time that is over is no wish any more.
    Some(wait.try_into().unwrap_or_default())
}

/// A URL without user, password, query and fragment.
fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let clean = match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}/{path}")
        }
        None => url.to_owned(),
    };
    harmless(clean.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_what_may_be_secret() {
        for (url, shown) in [
            (
                "https://u:p@other.example/a/info/refs?service=x&token=y",
                "https://other.example/a/info/refs",
            ),
            ("https://other.example", "https://other.example/"),
            ("nonsense?x", "nonsense"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[test]
    fn a_wish_to_wait_in_seconds_or_as_a_date() {
        let now = "2026-11-25T12:00:00Z".parse().unwrap();
        let wait = |value, date| wait_of(value, date, now).map(|wait| wait.as_secs());
        let server = Some("Wed, 25 Nov 2026 13:00:00 GMT");
        for (value, date, seconds) in [
            ("120", server, Some(120)),
            (" 0 ", None, Some(0)),
            ("Wed, 25 Nov 2026 12:00:30 GMT", None, Some(30)),
            ("Wed, 25 Nov 2026 13:00:30 GMT", server, Some(30)),
            ("Wed, 25 Nov 2026 11:00:00 GMT", None, Some(0)),
            ("soon", None, None),
            ("-5", None, None),
            ("", None, None),
        ] {
            assert_eq!(wait(value, date), seconds, "{value}");
        }
    }
}
