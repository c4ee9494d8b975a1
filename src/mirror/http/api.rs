//! Requests to the web API of a git server.

use std::io::Read as _;

use serde::Deserialize;
use ureq::Body;
use ureq::http::{self, Method, Response, StatusCode, header};

use super::{Http, REDIRECTS};
use crate::domain::Secret;
use crate::mirror::failure::{Failure, harmless};
use crate::mirror::shown::Shown;

/// More than any answer that is of use has.
const LONGEST: u64 = 1 << 20;

/// An answer of the API, whether it is good news or not.
pub(in crate::mirror) struct Answer {
    /// The HTTP status; never one that may pass by itself (429, 5xx, 403 with
    /// a wish to wait).
    pub(in crate::mirror) status: u16,
    /// What the server's clock said.
    pub(in crate::mirror) date: Option<jiff::Timestamp>,
    /// What it sent.
    pub(in crate::mirror) body: Vec<u8>,
    /// What it was shown.
    shown: Shown,
}

impl Answer {
    /// Its own words: the message of its JSON, else the beginning.
    pub(in crate::mirror) fn said(&self) -> String {
        let message = serde_json::from_slice::<Message>(&self.body);
        let words = message.map_or_else(|_| self.body.clone(), |found| found.message.into_bytes());
        self.shown.hide(harmless(&words))
    }
}

#[derive(Deserialize)]
struct Message {
    message: String,
}

impl Http<'_> {
    /// Sends a request to the URL of the remote, with `bearer` as proof instead of the
    /// remote's credential. Redirects are followed on this host only.
    ///
    /// # Errors
    /// Trouble on the way, a redirect to another host, and a status that may pass by itself.
    pub(in crate::mirror) fn api(
        &mut self,
        method: &Method,
        bearer: &Secret,
        body: Option<&[u8]>,
    ) -> Result<Answer, Failure> {
        let unusable = || Failure::NotGit {
            url: self.remote.url.clone(),
            answer: "no request can be made with this proof".into(),
        };
        let mut proof = http::HeaderValue::from_str(&format!("Bearer {}", bearer.expose()))
            .map_err(|_| unusable())?;
        proof.set_sensitive(true);
        self.authorization = Some(proof);
        self.shown.add(bearer.expose());
        let mut url = self.base.clone();
        for _ in 0..=REDIRECTS {
            let mut request = http::Request::builder()
                .method(method)
                .uri(&url)
                .header(header::ACCEPT, "application/vnd.github+json")
                .header("X-GitHub-Api-Version", "2022-11-28");
            if body.is_some() {
                request = request.header(header::CONTENT_TYPE, "application/json");
            }
            let response = self.send(request, body, *method == Method::GET)?;
            let status = response.status();
            let kept =
                matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
            if status.is_redirection() && (kept || *method == Method::GET) {
                url = self.same_host(&response)?;
                continue;
            }
            let after = super::retry_after(&response);
            // GitHub's secondary limits answer with either.
            let limited = status == StatusCode::TOO_MANY_REQUESTS
                || (status == StatusCode::FORBIDDEN && after.is_some());
            if limited || status.is_server_error() {
                let url = self.remote.url.clone();
                return Err(Failure::Status { url, status: status.as_u16(), after });
            }
            return self.read(response, LONGEST);
        }
        Err(self.redirected(&url))
    }

    /// Where a redirect leads to, if that is on this host.
    pub(super) fn same_host(&self, response: &Response<Body>) -> Result<String, Failure> {
        let target = self.target(response);
        match self.path_here(&target) {
            Some(path) => Ok(format!("https://{}/{path}", self.authority)),
            None => Err(self.redirected(&target)),
        }
    }

    /// Reads an answer, and no more of it than `most` bytes.
    pub(super) fn read(&self, response: Response<Body>, most: u64) -> Result<Answer, Failure> {
        let status = response.status().as_u16();
        let date = response.headers().get(header::DATE).and_then(|value| value.to_str().ok());
        let date = date.and_then(|text| jiff::fmt::rfc2822::parse(text).ok());
        let mut body = Vec::new();
        let mut reader = response.into_body().into_reader();
        let read = reader.by_ref().take(most).read_to_end(&mut body);
        read.map_err(|error| self.network(super::tls::io_or_ureq(error)))?;
        self.line.read_out(&mut reader);
        let date = date.map(|zoned| zoned.timestamp());
        Ok(Answer { status, date, body, shown: self.shown.clone() })
    }
}
