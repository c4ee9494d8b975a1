//! What can go wrong between a remote and a tree on this disk, and what each means: whether
//! to try again, what to do about it, and what the run ends with.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::credentials;
use crate::domain::{RefName, RepoUrl, Revision};
use crate::error::{self, ExitCode};

/// Whether trying again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It may pass by itself.
    Later {
        /// The server's wish (`Retry-After`).
        after: Option<Duration>,
    },
    /// It will not.
    Never,
}

/// A step of a fetch that has a time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Until the connection stands.
    Connect,
    /// Between two bytes.
    Read,
    /// All of it.
    Total,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "no connection",
            Self::Read => "not a byte",
            Self::Total => "not finished",
        })
    }
}

/// An SSH host key that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    /// The host as `known_hosts` writes it: `host`, or `[host]:port`.
    pub host: String,
    /// `ssh-ed25519`, …
    pub kind: String,
    /// `SHA256:…`
    pub fingerprint: String,
    /// What was consulted: files, or "the `host_keys` of the manifest".
    pub consulted: Vec<String>,
    /// What is known instead, with where it is written.
    pub known: Vec<String>,
    /// The line that would make it known.
    pub line: String,
    /// More that a person should know, as a sentence fragment.
    pub note: Option<String>,
}

/// Why a commit is not here, or not on the disk.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The repository does not have the commit, or does not give it away.
    #[error("commit {revision} is not in `{url}`{}", said(remote_said.as_ref()))]
    CommitNotFound {
        /// The commit.
        revision: Revision,
        /// The repository.
        url: RepoUrl,
        /// What was shown to the server, for the hint.
        asked_with: String,
        /// The server's own words.
        remote_said: Option<String>,
    },
    /// The id is that of a file or directory.
    #[error("{revision} in `{url}` is a {kind}, not a commit")]
    NotACommit {
        /// The id.
        revision: Revision,
        /// `blob` or `tree`.
        kind: String,
        /// The repository.
        url: RepoUrl,
    },
    /// No such branch, tag or abbreviated id.
    #[error("`{url}` has no branch, tag or commit `{name}`")]
    NameNotFound {
        /// The name.
        name: RefName,
        /// The repository.
        url: RepoUrl,
    },
    /// More than one commit begins with this abbreviation.
    #[error("more than one commit in `{url}` begins with `{name}`")]
    AmbiguousName {
        /// The abbreviation.
        name: RefName,
        /// The repository.
        url: RepoUrl,
    },
    /// 404, or what an SSH server says instead.
    #[error("`{url}` is not there, or {asked_with} may not read it{}", said(remote_said.as_ref()))]
    NotFoundOrForbidden {
        /// The repository.
        url: RepoUrl,
        /// The credential by its origin, or "an anonymous visitor".
        asked_with: String,
        /// The server's own words.
        remote_said: Option<String>,
    },
    /// The credential was refused.
    #[error("`{url}` refuses {asked_with}{}", said(remote_said.as_ref()))]
    Denied {
        /// The repository.
        url: RepoUrl,
        /// The credential by its origin.
        asked_with: String,
        /// What it was refused with.
        remote_said: Option<String>,
    },
    /// The server wants a credential and there is none for it.
    #[error("`{url}` wants a credential, and none is configured for it")]
    CredentialMissing {
        /// The repository.
        url: RepoUrl,
    },
    /// The credential is of a kind that this kind of URL cannot use.
    #[error("{origin} cannot be used for `{url}`")]
    CredentialUnusable {
        /// The repository.
        url: RepoUrl,
        /// The credential by its origin.
        origin: String,
    },
    /// The credential could not be had.
    #[error(transparent)]
    Credential(#[from] credentials::Error),
    /// The server's host key is not known.
    #[error("the {} host key of `{}` is not known ({})", .0.kind, .0.host, .0.fingerprint)]
    UnknownHostKey(Box<HostKey>),
    /// The server's host key is not the one that is known.
    #[error("the host key of `{}` has CHANGED: it is now {} {}", .0.host, .0.kind, .0.fingerprint)]
    ChangedHostKey(Box<HostKey>),
    /// The server's host key is marked `@revoked`.
    #[error("the {} host key of `{}` is REVOKED ({})", .0.kind, .0.host, .0.fingerprint)]
    RevokedHostKey(Box<HostKey>),
    /// The server's certificate does not hold.
    #[error("the certificate of `{host}` is not trusted: {reason}")]
    Certificate {
        /// Host and port.
        host: String,
        /// OpenSSL's words.
        reason: String,
    },
    /// A name that cannot be resolved.
    #[error("the name `{host}` cannot be resolved")]
    NameLookup {
        /// The host.
        host: String,
    },
    /// No connection.
    #[error("`{host}` cannot be reached: {reason}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// Why.
        reason: String,
    },
    /// The proxy does not let us through.
    #[error("the proxy `{proxy}` does not connect to `{host}`: {reason}")]
    Proxy {
        /// Host and port of the proxy.
        proxy: String,
        /// Host and port of the server.
        host: String,
        /// Its answer.
        reason: String,
    },
    /// A limit was reached.
    #[error("{step} from `{url}` within {} s", limit.as_secs_f32())]
    Timeout {
        /// The repository.
        url: RepoUrl,
        /// Which limit.
        step: Step,
        /// Its length.
        limit: Duration,
    },
    /// The connection ended before the answer did.
    #[error("the connection to `{url}` broke off: {detail}")]
    Broken {
        /// The repository.
        url: RepoUrl,
        /// How.
        detail: String,
    },
    /// An HTTP status that is no success.
    #[error("`{url}` answers with HTTP status {status}")]
    Status {
        /// The repository.
        url: RepoUrl,
        /// The status.
        status: u16,
        /// Its `Retry-After`.
        after: Option<Duration>,
    },
    /// Another host answers for it now.
    #[error("`{url}` redirects to `{to}`")]
    Redirected {
        /// The repository.
        url: RepoUrl,
        /// Where to; without user, password and query.
        to: String,
    },
    /// Something answers, but not a git server.
    #[error("what answers at `{url}` is not a git server: {answer}")]
    NotGit {
        /// The repository.
        url: RepoUrl,
        /// What it sent.
        answer: String,
    },
    /// The server reports a failure of its own.
    #[error("`{url}` reports: {remote_said}")]
    Remote {
        /// The repository.
        url: RepoUrl,
        /// Its words.
        remote_said: String,
    },
    /// A repository with SHA-256 ids.
    #[error("`{url}` uses SHA-256 object ids, which are not supported")]
    ObjectFormat {
        /// The repository.
        url: RepoUrl,
    },
    /// A signal ended it.
    #[error("ended by {}", crate::process::signal_name(*.0))]
    Interrupted(
        /// The signal.
        i32,
    ),
    /// An object is missing or broken: rebuild the mirror and fetch again.
    #[error("the mirror `{}` is damaged: {detail}", path.display())]
    Damaged {
        /// The mirror.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Another process works on the mirror.
    #[error("another process works on the mirror `{}`", path.display())]
    Locked {
        /// The mirror.
        path: PathBuf,
    },
    /// The disk is full.
    #[error("no space is left for `{}`", path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot {doing} `{}`", path.display())]
    File {
        /// Verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A name in the tree that must not become a file.
    #[error("the tree of {revision} holds the name {name:?}: {why}")]
    UnsafeName {
        /// The commit.
        revision: Revision,
        /// The path, lossily as text.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file whose `working-tree-encoding` cannot be produced.
    #[error("`{path}` in {revision} wants the encoding `{encoding}`, which is not supported")]
    Encoding {
        /// The commit.
        revision: Revision,
        /// The file.
        path: String,
        /// The attribute's value.
        encoding: String,
    },
    /// Anything else git reports.
    #[error("git failed while {doing}")]
    Git {
        /// What was being done.
        doing: &'static str,
        /// Its error.
        source: git2::Error,
    },
}

fn said(words: Option<&String>) -> String {
    words.map(|words| format!(" (it says: {words})")).unwrap_or_default()
}

/// A remote's words, made harmless for a log: one line, no control characters, 200 at most.
pub(super) fn harmless(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().map(|c| if c.is_control() { '?' } else { c }).take(200).collect()
}

impl Failure {
    /// From a failed file operation.
    pub(super) fn file(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let full =
            matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if full {
            Self::DiskFull { path: path.to_owned() }
        } else {
            Self::File { doing, path: path.to_owned(), source }
        }
    }

    /// From an error of libgit2 about the repository at `path`. Its network errors do not
    /// come here: it is not given the network.
    pub(super) fn git(doing: &'static str, path: &Path, source: git2::Error) -> Self {
        use git2::{ErrorClass as Class, ErrorCode as Code};
        let text = source.message();
        if text.contains("No space left on device") || text.contains("Disk quota exceeded") {
            return Self::DiskFull { path: path.to_owned() };
        }
        let damaged = match (source.class(), source.code()) {
            (_, Code::Owner | Code::Locked) => false,
            (Class::Zlib | Class::Odb | Class::Object | Class::Tree, _) | (_, Code::NotFound) => {
                true
            }
            (Class::Reference | Class::Repository, _) => {
                text.contains("corrupt") || text.contains("could not find repository")
            }
            (Class::Indexer, _) => false,
            _ => text.contains("corrupt") || text.contains("hash mismatch"),
        };
        if damaged {
            Self::Damaged { path: path.to_owned(), detail: format!("{doing}: {text}") }
        } else {
            Self::Git { doing, source }
        }
    }

    /// Whether trying again may help.
    pub fn retry(&self) -> Retry {
        let soon = Retry::Later { after: None };
        match self {
            Self::NameLookup { .. }
            | Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Timeout { step: Step::Connect | Step::Read, .. } => soon,
            Self::Status { status: 429 | 500..=599, after, .. } => Retry::Later { after: *after },
            Self::Proxy { .. } | Self::Status { .. } | Self::Timeout { step: Step::Total, .. } => {
                Retry::Never
            }
            Self::CommitNotFound { .. }
            | Self::NotACommit { .. }
            | Self::NameNotFound { .. }
            | Self::AmbiguousName { .. }
            | Self::NotFoundOrForbidden { .. }
            | Self::Denied { .. }
            | Self::CredentialMissing { .. }
            | Self::CredentialUnusable { .. }
            | Self::Credential(_)
            | Self::UnknownHostKey(_)
            | Self::ChangedHostKey(_)
            | Self::RevokedHostKey(_)
            | Self::Certificate { .. }
            | Self::Redirected { .. }
            | Self::NotGit { .. }
            | Self::Remote { .. }
            | Self::ObjectFormat { .. }
            | Self::Interrupted(_)
            | Self::Damaged { .. }
            | Self::Locked { .. }
            | Self::DiskFull { .. }
            | Self::File { .. }
            | Self::UnsafeName { .. }
            | Self::Encoding { .. }
            | Self::Git { .. } => Retry::Never,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::CommitNotFound { asked_with, .. } => format!(
                "push the commit, or check that {asked_with} may read the branch it is on; a server may also refuse commits that no branch or tag reaches"
            ),
            Self::NotACommit { .. } => "give the id of a commit (`git rev-parse HEAD`)".into(),
            Self::NameNotFound { .. } => "push it, or give the full commit id".into(),
            Self::AmbiguousName { .. } => "give the full commit id".into(),
            Self::NotFoundOrForbidden { asked_with, .. } => format!(
                "check the address; else whether {asked_with} has expired, lists this repository, and is authorised for the organisation's single sign-on"
            ),
            Self::Denied { asked_with, .. } => {
                format!("check that {asked_with} is complete, has not expired and may read this repository")
            }
            Self::CredentialMissing { url: RepoUrl::Ssh { .. } } => {
                "add `auth: {ssh_key_file: …}` for this host or repository under `hosts` in the manifest".into()
            }
            Self::CredentialMissing { .. } => {
                "add `auth` for this host or repository under `hosts` in the manifest, or set MULTIDEPLOYER_GITHUB_TOKEN".into()
            }
            Self::CredentialUnusable { url, .. } => match url {
                RepoUrl::Https { .. } => "HTTPS takes a token; use an ssh:// source for a key".into(),
                RepoUrl::Ssh { .. } => "SSH takes a key; use an https:// source for a token".into(),
                RepoUrl::File(_) => "a repository on this host takes no credential".into(),
            },
            Self::Credential(error) => return error.hint(),
            Self::UnknownHostKey(key) => host_key_hint(key),
            Self::ChangedHostKey(key) => format!(
                "somebody may be listening in, or the server got a new key: ask its administrator; known is {}; if the new key is right, replace that line by `{}`",
                key.known.join(", "),
                key.line
            ),
            Self::RevokedHostKey(key) => {
                format!("the key is known to be compromised ({}): do not use this server", key.known.join(", "))
            }
            Self::Certificate { .. } => {
                "if the server's certificate comes from your own authority, name it with `ca_file` for this host; check the clock too".into()
            }
            Self::NameLookup { .. } => "check the host's name, and this instance's DNS".into(),
            Self::Unreachable { .. } => {
                "check address and port, security groups and routes; `proxy` of the host if one is needed".into()
            }
            Self::Proxy { .. } => "check the proxy's address and credentials, and that it allows this host".into(),
            Self::Timeout { step: Step::Total, .. } => "check the network; raise the host's total time limit for a very large repository".into(),
            Self::Timeout { .. } | Self::Broken { .. } => "check the network and the server's health".into(),
            Self::Status { status: 429, .. } => "the server limits requests: run again later".into(),
            Self::Status { .. } => "check the server's health".into(),
            Self::Redirected { to, .. } => {
                format!("if it moved, put `{to}` into the manifest; credentials are never sent to another host")
            }
            Self::NotGit { .. } => "a proxy or a login page may be in between: check the address, and `proxy` of the host".into(),
            Self::Remote { .. } => "check the server's log".into(),
            Self::ObjectFormat { .. } => "use a repository with SHA-1 ids".into(),
            Self::Damaged { .. } => "delete it: it is fetched again, and what is deployed stays recorded in last_state.yaml".into(),
            Self::Locked { .. } => "wait for the other run to end".into(),
            Self::DiskFull { .. } => "make room, then run again".into(),
            Self::File { .. } => "check that the directory exists, is yours, and can be written".into(),
            Self::UnsafeName { .. } => "remove the name from the repository".into(),
            Self::Encoding { .. } => "use UTF-8, UTF-16 or UTF-32, or drop the attribute".into(),
            Self::Git { source, .. } if source.code() == git2::ErrorCode::Owner => {
                "the mirror belongs to another user: run as that user, or delete it".into()
            }
            Self::Git { .. } | Self::Interrupted(_) => return None,
        };
        Some(text)
    }

    /// What the run ends with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::CommitNotFound { .. }
            | Self::NotACommit { .. }
            | Self::NameNotFound { .. }
            | Self::AmbiguousName { .. }
            | Self::NotFoundOrForbidden { .. }
            | Self::Denied { .. }
            | Self::CredentialMissing { .. }
            | Self::CredentialUnusable { .. }
            | Self::Credential(_)
            | Self::UnknownHostKey(_)
            | Self::ChangedHostKey(_)
            | Self::RevokedHostKey(_)
            | Self::Certificate { .. }
            | Self::NameLookup { .. }
            | Self::Unreachable { .. }
            | Self::Proxy { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. }
            | Self::Status { .. }
            | Self::Redirected { .. }
            | Self::NotGit { .. }
            | Self::Remote { .. }
            | Self::ObjectFormat { .. }
            | Self::Damaged { .. }
            | Self::Git { .. } => ExitCode::Fetch,
            Self::Interrupted(signal) => match *signal {
                1 => ExitCode::Hangup,
                2 => ExitCode::Interrupted,
                _ => ExitCode::Terminated,
            },
            Self::Locked { .. } => ExitCode::Locked,
            Self::DiskFull { .. } | Self::File { .. } => ExitCode::Unfit,
            Self::UnsafeName { .. } | Self::Encoding { .. } => ExitCode::Refused,
        }
    }
}

fn host_key_hint(key: &HostKey) -> String {
    let note = key.note.as_ref().map(|note| format!("; {note}")).unwrap_or_default();
    format!(
        "compare the fingerprint with what the server's administrator publishes, then add `{}` to known_hosts, or the fingerprint to `host_keys`; looked in {}{note}",
        key.line,
        key.consulted.join(", "),
    )
}

impl From<Failure> for error::Failure {
    fn from(failure: Failure) -> Self {
        let report = Self::from_error(failure.exit_code(), &failure);
        match failure.hint() {
            Some(hint) => report.hint(hint),
            None => report,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use git2::{Error, ErrorClass as Class, ErrorCode as Code};

    fn url() -> RepoUrl {
        RepoUrl::Https { authority: "git.example.com".into(), path: "acme/api.git".into() }
    }

    #[test]
    fn errors_of_libgit2_by_meaning() {
        let path = Path::new("/cache/mirrors/api.git");
        let row =
            |class, code, text: &str| Failure::git("reading", path, Error::new(code, class, text));
        let full = [
            (Class::Os, Code::GenericError, "cannot extend packfile '/x': No space left on device"),
            (Class::Os, Code::GenericError, "could not write to '/x': Disk quota exceeded"),
        ];
        for (class, code, text) in full {
            assert!(matches!(row(class, code, text), Failure::DiskFull { .. }), "{text}");
        }
        let damaged = [
            (Class::Zlib, Code::GenericError, "incorrect data check"),
            (Class::Odb, Code::NotFound, "object not found - no match for id (1)"),
            (Class::Odb, Code::GenericError, "failed to parse loose object: hash mismatch"),
            (Class::Odb, Code::Modified, "object hash mismatch - expected 1 but got 2"),
            (Class::Reference, Code::GenericError, "corrupted loose reference file: refs/x"),
            (Class::Reference, Code::GenericError, "corrupted packed references file"),
            (Class::Repository, Code::NotFound, "could not find repository at '/x'"),
            (Class::Object, Code::GenericError, "failed to parse tree: missing space"),
        ];
        for (class, code, text) in damaged {
            assert!(matches!(row(class, code, text), Failure::Damaged { .. }), "{text}");
        }
        let other = [
            (Class::Config, Code::Owner, "repository path '/x' is not owned by current user"),
            (Class::Os, Code::GenericError, "failed to lock file '/x/y.lock' for writing"),
            (Class::Os, Code::Locked, "failed to lock file"),
        ];
        for (class, code, text) in other {
            assert!(matches!(row(class, code, text), Failure::Git { .. }), "{text}");
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let status = |status| Failure::Status { url: url(), status, after: None }.retry();
        for passing in [429, 500, 502, 503, 504] {
            assert_ne!(status(passing), Retry::Never, "{passing}");
        }
        for lasting in [400, 405, 410, 418] {
            assert_eq!(status(lasting), Retry::Never, "{lasting}");
        }
        let after = Some(Duration::from_secs(7));
        let limited = Failure::Status { url: url(), status: 429, after };
        assert_eq!(limited.retry(), Retry::Later { after });
        let asked_with = "the token in `T`".to_owned();
        let denied = Failure::Denied { url: url(), asked_with, remote_said: None };
        assert_eq!(denied.retry(), Retry::Never);
        let step = |step| Failure::Timeout { url: url(), step, limit: Duration::from_secs(1) };
        assert_ne!(step(Step::Read).retry(), Retry::Never);
        assert_eq!(step(Step::Total).retry(), Retry::Never);
    }

    #[test]
    fn not_found_says_both_and_names_the_credential() {
        let failure = Failure::NotFoundOrForbidden {
            url: url(),
            asked_with: "the token in `GHES_TOKEN`".into(),
            remote_said: None,
        };
        assert_eq!(
            failure.to_string(),
            "`https://git.example.com/acme/api.git` is not there, or the token in `GHES_TOKEN` may not read it"
        );
        assert!(failure.hint().is_some_and(|hint| hint.contains("single sign-on")));
        assert_eq!(failure.exit_code(), ExitCode::Fetch);
    }

    #[test]
    fn words_of_a_server_cannot_forge_a_log() {
        assert_eq!(harmless(b"\n  ERROR: no\x1b[31m\x07 such\nthing\n"), "ERROR: no?[31m? such");
        assert_eq!(harmless(&[b'x'; 500]).len(), 200);
    }
}
