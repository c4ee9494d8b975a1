//! Requests to a server of Git LFS: the batch API, and the content of objects.

use ureq::Body;
use ureq::http::{self, HeaderMap, Response, StatusCode, header};

use super::{Answer, Http, REDIRECTS};
use crate::mirror::failure::{Failure, harmless, page_words};
use crate::mirror::lfs::{BATCH_KIND, Problem};
use crate::mirror::{Remote, asked_with};

/// More than an answer about as many objects as are asked for at a time has.
const LONGEST: u64 = 4 << 20;

impl Http<'_> {
    /// Sends a question to the batch API below the remote's URL, with `headers` besides the
    /// remote's credential. Redirects are followed on this host only.
    ///
    /// # Errors
    /// Trouble on the way, and every answer that is no good.
    pub(in crate::mirror) fn batch(
        &mut self,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Answer, Failure> {
        for value in headers.values().filter_map(|value| value.to_str().ok()) {
            self.shown.add(value);
            value.split(' ').skip(1).for_each(|part| self.shown.add(part));
        }
        let proven = self.authorization.is_some() || headers.contains_key(header::AUTHORIZATION);
        let mut url = format!("{}/objects/batch", self.base);
        for _ in 0..=REDIRECTS {
            let mut request = http::Request::post(&url)
                .header(header::ACCEPT, BATCH_KIND)
                .header(header::CONTENT_TYPE, BATCH_KIND);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let response = self.send(request, Some(body), true)?;
            if response.status().is_redirection() {
                url = self.same_host(&response)?;
                continue;
            }
            return self.judge(response, proven);
        }
        Err(Failure::RedirectLoop { url: self.remote.url.clone(), times: REDIRECTS })
    }

    /// What an answer of the batch API means, as far as its status says it.
    fn judge(&self, response: Response<Body>, proven: bool) -> Result<Answer, Failure> {
        let url = self.remote.url.clone();
        let (status, after) = (response.status(), super::retry_after(&response));
        let kind = response.headers().get(header::CONTENT_TYPE);
        let json =
            kind.and_then(|kind| kind.to_str().ok()).is_some_and(|kind| kind.contains("json"));
        let answer = self.read(response, LONGEST)?;
        let words = if json { answer.said() } else { String::new() };
        let with_words = |text: String| match words.as_str() {
            "" => Some(text),
            words => Some(format!("{text}: {words}")),
        };
        Err(match status.as_u16() {
            200 if json => return Ok(answer),
            200 => {
                let answer = self.shown.hide(page_words(&answer.body));
                Problem::NotLfs { url, answer }.into()
            }
            401 if !proven => Failure::CredentialMissing { url },
            code @ (401 | 403) if code == 401 || after.is_none() => Failure::Denied {
                url,
                asked_with: self.asked_with(),
                remote_said: with_words(format!("HTTP status {code}")),
            },
            404 | 410 => Failure::NotFoundOrForbidden {
                url,
                asked_with: self.asked_with(),
                remote_said: (!words.is_empty()).then_some(words),
            },
            status @ (501 | 507 | 509) => Problem::Unwilling { url, status, words }.into(),
            status @ (403 | 429 | 500..) => Failure::Status { url, status, after },
            status => Problem::Unwilling { url, status, words }.into(),
        })
    }

    fn asked_with(&self) -> String {
        let by_ssh = self.remote.credential.is_none() && !self.shown.is_empty();
        if by_ssh { "what it gave over SSH".into() } else { asked_with(self.remote) }
    }

    /// Somebody's words without what this server was shown.
    pub(in crate::mirror) fn without_shown(&self, words: &str) -> String {
        self.shown.hide(harmless(words.as_bytes()))
    }

    /// Asks for what is at a path with query, from a byte on. Nothing is followed or judged.
    ///
    /// # Errors
    /// Trouble on the way.
    pub(in crate::mirror) fn content(
        &mut self,
        target: &str,
        headers: &HeaderMap,
        from: u64,
    ) -> Result<Response<Body>, Failure> {
        let mut request = http::Request::get(format!("https://{}{target}", self.authority));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        self.send(request, None, true)
    }

    /// Says that all of an object was read, so that its connection is used again.
    pub(in crate::mirror) fn whole(&self, content: &mut dyn std::io::Read) {
        self.line.read_out(content);
    }

    /// How long a server that answered so wants us to wait.
    pub(in crate::mirror) fn wish(response: &Response<Body>) -> Option<std::time::Duration> {
        super::retry_after(response)
    }

    /// The remote of this server.
    pub(in crate::mirror) fn remote(&self) -> &Remote {
        self.remote
    }
}

/// Where the range of a partial answer begins.
pub(in crate::mirror) fn range_start(response: &Response<Body>) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// How long an answer says it is.
pub(in crate::mirror) fn length(response: &Response<Body>) -> Option<u64> {
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Where a redirect leads to.
pub(in crate::mirror) fn location(response: &Response<Body>) -> Option<String> {
    let known = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let place = response.headers().get(header::LOCATION)?.to_str().ok()?;
    known.then(|| place.to_owned())
}
