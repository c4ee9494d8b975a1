//! What can go wrong between a remote and a tree on this disk, and what each means: whether
//! to try again, what to do about it, and what the run ends with.

mod advice;
mod certificate;
mod verdict;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use super::lfs::Problem;
use super::offer::Mismatch;
use super::spill::{self, Refusal};
use super::{credentials, dial, proxy};
use crate::diagnostic::quoted;
use crate::domain::{RefName, RepoUrl, Revision};

pub use certificate::{CertificateFault, UntrustedCertificate};

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
    /// Whether the `host_keys` of the manifest decide.
    pub pinned: bool,
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
    /// The server takes none of the keys.
    #[error(
        "`{url}` refuses {origin} ({}) for the user `{user}`{}",
        keys.join(", "),
        note.as_ref().map(|note| format!("; {note}")).unwrap_or_default()
    )]
    KeyDenied {
        /// The repository.
        url: RepoUrl,
        /// The credential by its origin.
        origin: String,
        /// Who wanted to log in.
        user: String,
        /// What was offered: kinds and fingerprints.
        keys: Vec<String>,
        /// More that a person should know.
        note: Option<String>,
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
    /// An agent, in the plain way.
    #[error("`{url}` is fetched with libgit2's own transports, which cannot use an ssh-agent")]
    AgentPlainly {
        /// The repository.
        url: RepoUrl,
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
    #[error("the certificate of `{}` is not trusted: {}", .0.host, .0)]
    Certificate(Box<UntrustedCertificate>),
    /// What answers does not speak TLS, or none that we speak.
    #[error("no TLS connection with `{host}`: {reason}")]
    NoTls {
        /// Host and port.
        host: String,
        /// OpenSSL's words.
        reason: String,
    },
    /// A name that cannot be resolved.
    #[error("the name `{host}` cannot be resolved: {reason}")]
    NameLookup {
        /// The host.
        host: String,
        /// The resolver's words.
        reason: String,
        /// Whether the resolver says that it may pass.
        passing: bool,
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
    #[error("the proxy `{}`, set by {}, does not connect to `{}`: {}", .0.proxy, .0.origin, .0.target, .0.problem)]
    Proxy(Box<proxy::Refusal>),
    /// A proxy is set where none can be used.
    #[error("the proxy `{proxy}`, set by {origin}, cannot be used: {why}")]
    ProxyUnusable {
        /// Host and port of the proxy.
        proxy: String,
        /// Where it was set.
        origin: String,
        /// Why.
        why: &'static str,
    },
    /// An SSH server and we know no algorithm in common.
    #[error(
        "`{url}` offers no {} algorithm that is known here, only {}",
        mismatch.what,
        mismatch.theirs.join(", ")
    )]
    NoCommonAlgorithm {
        /// The repository.
        url: RepoUrl,
        /// What both sides offer.
        mismatch: Box<Mismatch>,
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
    #[error("`{url}` redirects to `{to}`, {}", away(url, to))]
    Redirected {
        /// The repository.
        url: RepoUrl,
        /// Where to; without user, password and query.
        to: String,
    },
    /// It redirects again and again.
    #[error("`{url}` redirects more than {times} times")]
    RedirectLoop {
        /// The repository.
        url: RepoUrl,
        /// As many were followed.
        times: usize,
    },
    /// A web page came where git's answer should be: of a login, a portal, a proxy.
    #[error("`{url}` answers with a web page, not as a git server{}", said(Some(says)))]
    WebPage {
        /// The repository.
        url: RepoUrl,
        /// Its title, or its first line.
        says: String,
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
    /// Objects of Git LFS.
    #[error(transparent)]
    Lfs(Box<Problem>),
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
    #[error("the tree of {revision} holds the name {}: {why}", quoted(name))]
    UnsafeName {
        /// The commit.
        revision: Revision,
        /// The path, lossily as text.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something that is larger than any that is meant: a few bytes can stand for a lot.
    #[error("{what} of {revision} has more than the {most} bytes that are read")]
    TooLarge {
        /// The commit.
        revision: Revision,
        /// Which part of it.
        what: String,
        /// How many bytes it may have.
        most: usize,
    },
    /// Something that has to be there as a whole, as it is a difference to something else or in
    /// a repository on this host, and is more than is unpacked.
    #[error("while {doing}: something in it has more than the {most} bytes that are unpacked")]
    Unfolds {
        /// What was being done.
        doing: &'static str,
        /// How many bytes it may have.
        most: usize,
    },
    /// A file whose `working-tree-encoding` cannot be produced.
    #[error(
        "{} in {revision} wants the encoding {}, which is not supported",
        quoted(path),
        quoted(encoding)
    )]
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

/// Whether it can be meant, and was not left over from a question like "is that file there?".
fn says_something(errno: Errno) -> bool {
    matches!(errno, Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS | Errno::EIO)
}

fn said(words: Option<&String>) -> String {
    words.map(|words| format!(" (it says: {words})")).unwrap_or_default()
}

/// What is wrong with following a redirect.
fn away(url: &RepoUrl, to: &str) -> &'static str {
    let RepoUrl::Https { authority, .. } = url else { return "which is another place" };
    let Some((scheme, rest)) = to.split_once("://") else { return "which is no URL" };
    let host = |authority: &str| dial::split(authority, 443).0.to_ascii_lowercase();
    let there = rest.split('/').next().unwrap_or_default();
    match scheme {
        "https" if host(there) != host(authority) => "which is another host",
        "https" if dial::split(there, 443) != dial::split(authority, 443) => {
            "which is another port"
        }
        "https" => "which is not a repository's address",
        _ => "which is not encrypted",
    }
}

/// A remote's words, made harmless for a log: one line, no control characters, 200 at most.
pub(super) fn harmless(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().map(|c| if c.is_control() { '?' } else { c }).take(200).collect()
}

/// What a person would read of an answer that should not be a web page: its title if it is
/// one, else its first line.
pub(super) fn page_words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    // The same places in both, as only ASCII letters change.
    let small = text.to_ascii_lowercase();
    let title = small.find("<title").and_then(|at| {
        let start = at + small[at..].find('>')? + 1;
        let end = start + small[start..].find("</title")?;
        Some(text[start..end].trim()).filter(|title| !title.is_empty())
    });
    harmless(title.unwrap_or(&text).as_bytes())
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
        // First of all: it does not last.
        let errno = Errno::last();
        if source.class() == Class::NoMemory {
            match spill::refusal() {
                Some(Refusal::TooLarge) => return Self::Unfolds { doing, most: spill::MOST },
                Some(Refusal::File(directory, error)) => {
                    return Self::file("make a temporary file in", &directory, error);
                }
                None => {}
            }
        }
        let text = source.message();
        // When it cannot give a pack its name it fails without a word.
        if source.class() == Class::None && says_something(errno) {
            return Self::file("write to", path, errno.into());
        }
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
            // The server was told what is here, and built on that: it cannot be read.
            (Class::Indexer, _) => text.contains("missing delta bases"),
            _ => text.contains("corrupt") || text.contains("hash mismatch"),
        };
        if damaged {
            Self::Damaged { path: path.to_owned(), detail: format!("{doing}: {text}") }
        } else {
            Self::Git { doing, source }
        }
    }
}

#[cfg(test)]
mod tests;
