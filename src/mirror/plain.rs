//! The plain way: libgit2's own transports, with the credential in its callback.
//!
//! It asks for the whole list of refs first and knows no protocol version 2, so it is not the
//! first choice. It is there for servers whose answers the client beside it does not
//! understand, and for whoever asks for it ([`Remote::plain`]).
//!
//! What libgit2 does not do well is done around it:
//!
//! - Certificate authorities would count for the whole process. It is given none: a server's
//!   certificate is accepted if it is the very one that the client beside it has just verified,
//!   with the host's own authorities.
//! - Time limits count for the whole process, so one such fetch runs at a time.
//! - It refuses a commit that the server does not offer by its id; branches and tags are
//!   fetched then, and the commit is looked up.
//! - It crashes on some redirects; those on the same host are followed before it is asked.
//! - It would offer a refused credential again and again; here it is offered once.
//!
//! What remains: no `Retry-After`, host keys of the kind that the server likes best, no way
//! through a proxy for SSH (refused), and a signal while it waits for a connection to be made
//! or for the next byte is heard when the limit for that is reached (15 s and 60 s).

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use git2::{
    AutotagOption, CertificateCheckStatus, Cred, CredentialType, ErrorClass, ErrorCode,
    FetchOptions, RemoteCallbacks, RemoteRedirect, Repository,
};

use super::credentials::{Credential, Proof};
use super::failure::{Failure, Step, harmless};
use super::http::Http;
use super::repository::FETCHED;
use super::shown::{Shown, USER};
use super::tls::Way;
use super::trust::KnownHosts;
use super::watch::Watch;
use super::{Progress, Proxy, Remote, asked_with};
use crate::domain::{RepoUrl, Revision};
use crate::sync::lock;

/// Held while libgit2 fetches.
static ALONE: Mutex<()> = Mutex::new(());
/// Where branches and tags are while a commit is looked up among them.
const PASSING: &str = "refs/multideployer-passing";

/// Fetches one commit, and answers how many bytes came. What came is not checked yet.
pub(super) fn fetch(
    repository: &Repository,
    wanted: Revision,
    remote: &Remote,
    watch: &Watch,
    progress: &dyn Fn(Progress),
) -> Result<usize, Failure> {
    let alone = lock(&ALONE);
    watch.check()?;
    let known = match &remote.url {
        RepoUrl::Ssh { .. } => Some(KnownHosts::load(&remote.trust)?),
        RepoUrl::Https { .. } | RepoUrl::File(_) => None,
    };
    let way = match (&remote.url, &remote.proxy) {
        (RepoUrl::Https { authority, .. }, _) => Some(Way::new(authority, remote)),
        (RepoUrl::Ssh { .. }, Some(proxy)) => {
            return Err(Failure::ProxyUnusable {
                proxy: proxy.shown(),
                origin: proxy.origin.clone(),
                why: "libgit2's own transport for SSH knows no proxies",
            });
        }
        (RepoUrl::Ssh { .. } | RepoUrl::File(_), _) => None,
    };
    // A redirect without a query ends libgit2 with an access to address 0, so it is to see none.
    let url = match &remote.url {
        RepoUrl::Https { .. } => Http::new(remote, watch, progress)?.settled()?,
        RepoUrl::Ssh { .. } | RepoUrl::File(_) => with_user(remote),
    };
    let talk = Talk {
        remote,
        url,
        watch,
        progress,
        known,
        verified: RefCell::new(Vec::new()),
        way,
        asked: Cell::new(0),
        verdict: RefCell::new(None),
        bytes: Cell::new(0),
        told: Cell::new(Instant::now()),
    };
    talk.verify()?;
    let what = format!("+{wanted}:{FETCHED}/{wanted}");
    let result = match talk.fetch(repository, &[&what], 1) {
        Err(error) if serves_no_commits(&error) => {
            (progress)(Progress::Warning(format!(
                "`{}` does not serve single commits: its branches and tags are fetched",
                remote.url
            )));
            talk.branches_and_tags(repository)
        }
        done => done,
    };
    drop(alone);
    match result {
        Ok(()) => Ok(talk.bytes.get()),
        Err(error) => Err(talk.explain(repository, wanted, error)),
    }
}

fn serves_no_commits(error: &git2::Error) -> bool {
    error.message().contains("cannot fetch a specific object")
}

struct Talk<'a> {
    remote: &'a Remote,
    /// What libgit2 is given.
    url: String,
    watch: &'a Watch,
    progress: &'a dyn Fn(Progress),
    known: Option<KnownHosts>,
    /// Over HTTPS: how the client beside this reaches the server.
    way: Option<Way>,
    /// The certificate that it has verified last.
    verified: RefCell<Vec<u8>>,
    /// How often the server wanted a credential.
    asked: Cell<u32>,
    /// What was found in a callback, which libgit2 cannot pass on.
    verdict: RefCell<Option<Failure>>,
    bytes: Cell<usize>,
    told: Cell<Instant>,
}

impl Talk<'_> {
    fn fetch(&self, repository: &Repository, what: &[&str], depth: i32) -> Result<(), git2::Error> {
        set_limits(self.watch);
        self.asked.set(0);
        let before = self.bytes.get();
        let mut connection = repository.remote_anonymous(&self.url)?;
        let mut options = FetchOptions::new();
        options
            .depth(depth)
            .download_tags(AutotagOption::None)
            .update_fetchhead(false)
            .follow_redirects(RemoteRedirect::None)
            .remote_callbacks(self.callbacks(before));
        let through = self.remote.proxy.as_ref().map(Proxy::with_secrets);
        if let Some(url) = &through {
            let mut proxy = git2::ProxyOptions::new();
            proxy.url(url.expose());
            options.proxy_options(proxy);
        }
        connection.fetch(what, Some(&mut options), None)
    }

    /// Fetches the whole history of all branches and tags. No ref of them stays.
    fn branches_and_tags(&self, repository: &Repository) -> Result<(), git2::Error> {
        forget_passing(repository)?;
        let what = ["heads", "tags"].map(|kind| format!("+refs/{kind}/*:{PASSING}/{kind}/*"));
        // In a shallow mirror the commit may be beyond the boundary.
        let depth = if repository.is_shallow() { c_int::MAX } else { 0 };
        let fetched = self.fetch(repository, &what.each_ref().map(String::as_str), depth);
        fetched.and(forget_passing(repository))
    }

    /// Has the client beside this verify the server's certificate.
    fn verify(&self) -> Result<(), Failure> {
        let Some(way) = &self.way else { return Ok(()) };
        let stream = way.connect(self.watch)?.stream;
        let shown = stream.ssl().peer_certificate().and_then(|shown| shown.to_der().ok());
        *self.verified.borrow_mut() = shown.unwrap_or_default();
        Ok(())
    }

    /// Whether a certificate is the one that was verified. Behind some names there are
    /// several servers with one each, so it is asked for a second time.
    fn is_verified(&self, shown: &[u8]) -> Result<(), Failure> {
        for again in [true, false] {
            if !shown.is_empty() && *self.verified.borrow() == shown {
                return Ok(());
            }
            if again {
                self.verify()?;
            }
        }
        Err(self.watch.broken("it shows another certificate each time, which cannot be verified"))
    }

    fn callbacks(&self, before: usize) -> RemoteCallbacks<'_> {
        let mut callbacks = RemoteCallbacks::new();
        callbacks
            .credentials(|url, user, kinds| self.credential(url, user, kinds))
            .certificate_check(|certificate, _| {
                let judged = match (certificate.as_hostkey(), certificate.as_x509()) {
                    (Some(key), _) => self.judge(key.hostkey().unwrap_or_default()),
                    (None, Some(shown)) => self.is_verified(shown.data()),
                    (None, None) => Err(self.watch.broken("it shows neither key nor certificate")),
                };
                match judged {
                    Ok(()) => Ok(CertificateCheckStatus::CertificateOk),
                    Err(failure) => Err(self.stop(failure)),
                }
            })
            .transfer_progress(move |seen| {
                self.bytes.set(before + seen.received_bytes());
                if self.told.get().elapsed() > Duration::from_millis(100) {
                    self.told.set(Instant::now());
                    (self.progress)(Progress::Receiving {
                        objects: seen.received_objects(),
                        of: seen.total_objects(),
                        bytes: seen.received_bytes(),
                    });
                }
                self.watch.failure().is_none()
            });
        callbacks
    }

    /// Ends the fetch with this failure.
    fn stop(&self, failure: Failure) -> git2::Error {
        self.verdict.borrow_mut().get_or_insert(failure);
        git2::Error::new(ErrorCode::User, ErrorClass::Callback, "stopped")
    }

    /// The credential: once, and only to the host it is bound to.
    fn credential(
        &self,
        url: &str,
        user: Option<&str>,
        kinds: CredentialType,
    ) -> Result<Cred, git2::Error> {
        let remote_url = || self.remote.url.clone();
        if let Some(failure) = self.watch.failure() {
            return Err(self.stop(failure));
        }
        if place(url) != place(&self.url) {
            let to = place(url).unwrap_or_default();
            return Err(self.stop(Failure::Redirected { url: remote_url(), to }));
        }
        let Some(credential) = &self.remote.credential else {
            return Err(self.stop(Failure::CredentialMissing { url: remote_url() }));
        };
        if self.asked.replace(self.asked.get() + 1) > 0 {
            return Err(self.stop(self.refused(credential, None)));
        }
        let name = credential.username.as_deref();
        match &credential.proof {
            Proof::Token(token) if kinds.contains(CredentialType::USER_PASS_PLAINTEXT) => {
                Cred::userpass_plaintext(name.unwrap_or(USER), token.expose())
            }
            Proof::Key(key) if kinds.contains(CredentialType::SSH_MEMORY) => {
                let name = name.or(user).unwrap_or("git");
                Cred::ssh_key_from_memory(name, None, key.text().expose(), None)
            }
            // libgit2 asks the agent of `SSH_AUTH_SOCK` for whatever it has, and waits for it
            // for ever.
            Proof::Agent { .. } => Err(self.stop(Failure::AgentPlainly { url: remote_url() })),
            _ => Err(self.stop(Failure::CredentialUnusable {
                url: remote_url(),
                origin: credential.origin.clone(),
            })),
        }
    }

    fn refused(&self, credential: &Credential, remote_said: Option<String>) -> Failure {
        let (url, origin) = (self.remote.url.clone(), credential.origin.clone());
        match (&credential.proof, &self.remote.url) {
            (Proof::Key(key), RepoUrl::Ssh { user, .. }) => Failure::KeyDenied {
                url,
                origin,
                user: credential.username.as_ref().unwrap_or(user).clone(),
                keys: vec![key.shown()],
                note: None,
            },
            _ => Failure::Denied { url, asked_with: origin, remote_said },
        }
    }

    fn judge(&self, key: &[u8]) -> Result<(), Failure> {
        match (&self.known, &self.remote.url) {
            (Some(known), RepoUrl::Ssh { host, port, .. }) => {
                known.judge(host, *port, key).map(drop)
            }
            _ => Err(Failure::Broken {
                url: self.remote.url.clone(),
                detail: "a host key was shown where none belongs".into(),
            }),
        }
    }

    /// What an error of libgit2's transports means; it has a few words for many things.
    fn explain(&self, repository: &Repository, wanted: Revision, error: git2::Error) -> Failure {
        if let Some(failure) = self.verdict.borrow_mut().take() {
            return failure;
        }
        if let Some(failure) = self.watch.failure() {
            return failure;
        }
        let url = self.remote.url.clone();
        let asked_with = asked_with(self.remote);
        let words = Shown::to(self.remote).hide(harmless(error.message().as_bytes()));
        let not_found = |words: &str| Failure::CommitNotFound {
            revision: wanted,
            url: url.clone(),
            asked_with: asked_with.clone(),
            remote_said: Some(words.to_owned()),
        };
        let status = words
            .strip_prefix("unexpected http status code: ")
            .and_then(|digits| digits.trim().parse().ok());
        match (error.class(), error.code()) {
            // All that is left of the server's "not our ref", with and without depth.
            (ErrorClass::Net, _) if words == "unexpected packet type" => {
                not_found("the server refused it")
            }
            (ErrorClass::Net, ErrorCode::Eof) => not_found("the server ended when asked for it"),
            _ if words.contains("cannot redirect") => {
                Failure::Redirected { url, to: words.replace("cannot redirect ", "") }
            }
            (_, ErrorCode::Timeout) => self.watch.timeout(Step::Read),
            _ if words.contains("Resource temporarily unavailable")
                || words.contains("imed out") =>
            {
                self.watch.timeout(Step::Read)
            }
            (_, ErrorCode::Auth) => match &self.remote.credential {
                // Servers that allow one try end the connection instead of asking again.
                Some(credential) if self.asked.get() > 0 => self.refused(credential, Some(words)),
                _ => Failure::Denied { url, asked_with, remote_said: Some(words) },
            },
            (ErrorClass::Http, _) => match status {
                Some(404 | 410) => {
                    Failure::NotFoundOrForbidden { url, asked_with, remote_said: None }
                }
                Some(code @ (401 | 403)) => {
                    let remote_said = Some(format!("HTTP status {code}"));
                    Failure::Denied { url, asked_with, remote_said }
                }
                Some(status) => Failure::Status { url, status, after: None },
                None => Failure::Broken { url, detail: words },
            },
            (ErrorClass::Net | ErrorClass::Ssl | ErrorClass::Ssh, _) => {
                Failure::Broken { url, detail: words }
            }
            _ => Failure::git("fetching", repository.path(), error),
        }
    }
}

/// The URL with the credential's own user, which libgit2 wants to see there.
fn with_user(remote: &Remote) -> String {
    let mut url = remote.url.clone();
    if let RepoUrl::Ssh { user, .. } = &mut url
        && let Some(name) = remote.credential.as_ref().and_then(|c| c.username.as_ref())
    {
        user.clone_from(name);
    }
    url.to_string()
}

/// Scheme, host and port of a URL, without the user.
fn place(url: &str) -> Option<String> {
    let (scheme, rest) = match url.split_once("://") {
        Some(parts) => parts,
        None => ("ssh", url.split_once(':')?.0),
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Some(format!("{scheme}://{}", host.to_ascii_lowercase()))
}

#[expect(unsafe_code, reason = "libgit2 keeps its time limits for the whole process")]
fn set_limits(watch: &Watch) {
    let milliseconds =
        |time: Duration| c_int::try_from(time.as_millis()).unwrap_or(c_int::MAX).max(1);
    // SAFETY: only this module fetches with libgit2, one at a time under its lock. With the
    // limit for connecting alone, libgit2 fails every fetch, so both are set.
    unsafe {
        let read = milliseconds(watch.read_limit().min(watch.remaining()));
        let _ = git2::opts::set_server_timeout_in_milliseconds(read);
        let connect = milliseconds(watch.connect_limit());
        let _ = git2::opts::set_server_connect_timeout_in_milliseconds(connect);
    }
}

fn forget_passing(repository: &Repository) -> Result<(), git2::Error> {
    for passing in repository.references_glob(&format!("{PASSING}/*"))? {
        passing?.delete()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| place(a) == place(b);
        assert!(same("https://u:p@Git.example/x", "https://git.example/y?z"));
        assert!(same("git@h:acme/api", "ssh://other@h/x"));
        for (a, b) in [
            ("https://h/x", "http://h/x"),
            ("https://h/x", "https://h:8443/x"),
            ("https://h/x", "https://h.evil/x"),
            ("https://h/x", "https://evil/@h/x"),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
    }
}
