//! The plain way: libgit2's own transports, with the credential in its callback.
//!
//! It asks for the whole list of refs first and knows no protocol version 2, so it is not the
//! first choice. It is there for servers whose answers the client beside it does not
//! understand, and for whoever asks for it ([`Remote::plain`]).
//!
//! libgit2 keeps time limits and certificate authorities for the whole process: one such
//! fetch runs at a time, and the authorities of all hosts that are reached this way count for
//! each of them. Host keys are judged by the same rules as elsewhere, but the kind of key
//! cannot be chosen.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use git2::{
    AutotagOption, CertificateCheckStatus, Cred, CredentialType, ErrorClass, ErrorCode,
    FetchOptions, RemoteCallbacks, RemoteRedirect, Repository,
};

use super::credentials::Proof;
use super::failure::{Failure, Step, harmless};
use super::repository::FETCHED;
use super::trust::KnownHosts;
use super::watch::Watch;
use super::{Progress, Remote, asked_with};
use crate::domain::{RepoUrl, Revision, Secret};

/// Certificate authorities that libgit2 has loaded already. Held while it fetches.
static LOADED: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);

/// Fetches one commit, and answers how many bytes came. What came is not checked yet.
pub(super) fn fetch(
    repository: &Repository,
    wanted: Revision,
    remote: &Remote,
    watch: &Watch,
    progress: &dyn Fn(Progress),
) -> Result<usize, Failure> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    watch.check()?;
    if let RepoUrl::Https { .. } = &remote.url {
        load_authorities(remote, loaded.get_or_insert_default())?;
    }
    set_limits(watch);
    let known = match &remote.url {
        RepoUrl::Ssh { .. } => Some(KnownHosts::load(&remote.trust)?),
        RepoUrl::Https { .. } | RepoUrl::File(_) => None,
    };
    let talk = Talk {
        remote,
        watch,
        progress,
        known,
        asked: Cell::new(0),
        verdict: RefCell::new(None),
        bytes: Cell::new(0),
        told: Cell::new(Instant::now()),
    };
    let url = talk.url();
    let result = repository.remote_anonymous(&url).and_then(|mut connection| {
        let mut options = FetchOptions::new();
        options
            .depth(1)
            .download_tags(AutotagOption::None)
            .update_fetchhead(false)
            .follow_redirects(RemoteRedirect::None)
            .remote_callbacks(talk.callbacks());
        if let Some(proxy) = &remote.proxy {
            let mut through = git2::ProxyOptions::new();
            through.url(proxy.expose());
            options.proxy_options(through);
        }
        let what = format!("+{wanted}:{FETCHED}/{wanted}");
        connection.fetch(&[what], Some(&mut options), None)
    });
    match result {
        Ok(()) => Ok(talk.bytes.get()),
        Err(error) => Err(talk.explain(repository, wanted, error)),
    }
}

struct Talk<'a> {
    remote: &'a Remote,
    watch: &'a Watch,
    progress: &'a dyn Fn(Progress),
    known: Option<KnownHosts>,
    /// How often the server wanted a credential.
    asked: Cell<u32>,
    /// What was found in a callback, which libgit2 cannot pass on.
    verdict: RefCell<Option<Failure>>,
    bytes: Cell<usize>,
    told: Cell<Instant>,
}

impl Talk<'_> {
    /// The URL with the credential's own user, which libgit2 wants to see there.
    fn url(&self) -> String {
        let mut url = self.remote.url.clone();
        if let RepoUrl::Ssh { user, .. } = &mut url
            && let Some(name) = self.remote.credential.as_ref().and_then(|c| c.username.as_ref())
        {
            user.clone_from(name);
        }
        url.to_string()
    }

    fn callbacks(&self) -> RemoteCallbacks<'_> {
        let mut callbacks = RemoteCallbacks::new();
        callbacks
            .credentials(|url, user, kinds| self.credential(url, user, kinds))
            .certificate_check(|certificate, _| {
                let Some(shown) = certificate.as_hostkey() else {
                    // A certificate: libgit2's own verdict counts.
                    return Ok(CertificateCheckStatus::CertificatePassthrough);
                };
                match self.judge(shown.hostkey().unwrap_or_default()) {
                    Ok(()) => Ok(CertificateCheckStatus::CertificateOk),
                    Err(failure) => Err(self.stop(failure)),
                }
            })
            .transfer_progress(|seen| {
                self.bytes.set(seen.received_bytes());
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
        if place(url) != place(&self.url()) {
            let to = place(url).unwrap_or_default();
            return Err(self.stop(Failure::Redirected { url: remote_url(), to }));
        }
        let Some(credential) = &self.remote.credential else {
            return Err(self.stop(Failure::CredentialMissing { url: remote_url() }));
        };
        if self.asked.replace(self.asked.get() + 1) > 0 {
            let asked_with = credential.origin.clone();
            let refused = Failure::Denied { url: remote_url(), asked_with, remote_said: None };
            return Err(self.stop(refused));
        }
        let name = credential.username.as_deref();
        match &credential.proof {
            Proof::Token(token) if kinds.contains(CredentialType::USER_PASS_PLAINTEXT) => {
                Cred::userpass_plaintext(name.unwrap_or("x-access-token"), token.expose())
            }
            Proof::Key { private, passphrase } if kinds.contains(CredentialType::SSH_MEMORY) => {
                let passphrase = passphrase.as_ref().map(Secret::expose);
                let name = name.or(user).unwrap_or("git");
                Cred::ssh_key_from_memory(name, None, private.expose(), passphrase)
            }
            Proof::Agent { .. } if kinds.contains(CredentialType::SSH_KEY) => {
                Cred::ssh_key_from_agent(name.or(user).unwrap_or("git"))
            }
            _ => Err(self.stop(Failure::CredentialUnusable {
                url: remote_url(),
                origin: credential.origin.clone(),
            })),
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
        let words = harmless(error.message().as_bytes());
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
            _ if words.contains("cannot fetch a specific object") => {
                not_found("it does not serve single commits")
            }
            // All that is left of the server's "not our ref", with and without depth.
            (ErrorClass::Net, _) if words == "unexpected packet type" => {
                not_found("the server refused it")
            }
            (ErrorClass::Net, ErrorCode::Eof) => not_found("the server ended when asked for it"),
            _ if words.contains("cannot redirect") => {
                Failure::Redirected { url, to: words.replace("cannot redirect ", "") }
            }
            (class, code)
                if code == ErrorCode::Certificate
                    || class == ErrorClass::Ssl && words.contains("certificate") =>
            {
                let host = place(&self.url()).unwrap_or_default();
                Failure::Certificate { host, reason: words }
            }
            (_, ErrorCode::Timeout) => self.watch.timeout(Step::Read),
            _ if words.contains("Resource temporarily unavailable")
                || words.contains("imed out") =>
            {
                self.watch.timeout(Step::Read)
            }
            (_, ErrorCode::Auth) => Failure::Denied { url, asked_with, remote_said: Some(words) },
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

fn load_authorities(remote: &Remote, loaded: &mut HashSet<PathBuf>) -> Result<(), Failure> {
    let system = || openssl_probe::probe().cert_file;
    let bundle = remote.trust.ca_bundle.clone().or_else(system);
    for file in bundle.into_iter().chain(remote.trust.ca_file.clone()) {
        if !loaded.contains(&file) {
            load(&file)?;
            loaded.insert(file);
        }
    }
    Ok(())
}

#[expect(unsafe_code, reason = "libgit2 keeps its certificate authorities for the whole process")]
fn load(file: &Path) -> Result<(), Failure> {
    // SAFETY: as in `set_limits`.
    unsafe { git2::opts::set_ssl_cert_file(file) }.map_err(|error| {
        let source = std::io::Error::other(error.message().to_owned());
        Failure::file("read the certificate authorities in", file, source)
    })
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
