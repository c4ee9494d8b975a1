//! What to do about each failure.

use super::verdict::is_of_this_host;
use super::{Failure, HostKey, Step};
use crate::domain::RepoUrl;

impl Failure {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::CommitNotFound { asked_with, .. } => format!(
                "push the commit, or check that {asked_with} may read the branch it is on; a server may also refuse commits that no branch or tag reaches"
            ),
            Self::NotACommit { .. } => "give the id of a commit (`git rev-parse HEAD`)".into(),
            Self::NameNotFound { .. } => "push it, or give the full commit id".into(),
            Self::AmbiguousName { .. } => "give the full commit id".into(),
            Self::NotFoundOrForbidden { url: RepoUrl::File(_), .. } => {
                "check the path, and that this user may read all of it".into()
            }
            Self::NotFoundOrForbidden { asked_with, .. } => format!(
                "check the address; else whether {asked_with} has expired, lists this repository, and is authorised for the organisation's single sign-on"
            ),
            Self::Denied { asked_with, .. } => {
                format!("check that {asked_with} is complete, has not expired and may read this repository")
            }
            Self::KeyDenied { url, user, keys, .. } => key_denied_hint(url, user, keys.len()),
            Self::AgentPlainly { .. } => "unset MULTIDEPLOYER_TRANSPORT, or use `ssh_key_file` or `ssh_key_command`".into(),
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
            Self::ChangedHostKey(key) => changed_host_key_hint(key),
            Self::RevokedHostKey(key) => {
                format!("the key is known to be compromised ({}): do not use this server", key.known.join(", "))
            }
            Self::Certificate(untrusted) => untrusted.hint(),
            Self::NoTls { .. } => {
                "check address and port; a proxy may be in between, or the port speak plain HTTP".into()
            }
            Self::NameLookup { .. } => "check the host's name, and this instance's DNS".into(),
            Self::Unreachable { .. } => {
                "check address and port, security groups and routes; `proxy` of the host if one is needed".into()
            }
            Self::Proxy(refusal) => refusal.hint(),
            Self::ProxyUnusable { .. } => "`proxy: none` for this host goes without it".into(),
            Self::NoCommonAlgorithm { mismatch, .. } => format!(
                "have the server's administrator add one of these to `{}` in its sshd_config: {}",
                mismatch.setting,
                mismatch.ours.join(", ")
            ),
            Self::Timeout { step: Step::Total, .. } => "check the network and the server: a fetch has 10 minutes, unless the deadline leaves less".into(),
            Self::Timeout { .. } | Self::Broken { .. } => "check the network and the server's health".into(),
            Self::Status { after: Some(wait), .. } if !wait.is_zero() => {
                format!("it asks to wait {} s: run again then", wait.as_secs())
            }
            Self::Status { status: 429, .. } => "the server limits requests: run again later".into(),
            Self::Status { .. } => "check the server's health".into(),
            Self::Redirected { to, .. } => {
                format!("if it moved, put `{to}` into the manifest; credentials are never sent to another host")
            }
            Self::RedirectLoop { .. } => "check the address, and the server's configuration".into(),
            Self::WebPage { .. } => "a login page, a portal or a proxy is in between: check the address, the credential, and `proxy` of the host".into(),
            Self::NotGit { .. } => "a proxy or a login page may be in between: check the address, and `proxy` of the host".into(),
            Self::Remote { .. } => "check the server's log".into(),
            Self::Lfs(problem) => return problem.hint(),
            Self::ObjectFormat { .. } => "use a repository with SHA-1 ids".into(),
            Self::Damaged { .. } => "delete it: it is fetched again, and what is deployed stays recorded in last_state.yaml".into(),
            Self::Locked { .. } => "wait for the other run to end".into(),
            Self::DiskFull { .. } => "make room, then run again".into(),
            Self::File { .. } => "check that the directory exists, is yours, and can be written".into(),
            Self::UnsafeName { .. } => "remove the name from the repository".into(),
            Self::TooLarge { .. } | Self::Unfolds { .. } => "make it smaller in another commit".into(),
            Self::Encoding { .. } => "use UTF-8, UTF-16 or UTF-32, or drop the attribute".into(),
            Self::Git { source, .. } if source.code() == git2::ErrorCode::Owner => {
                "the mirror belongs to another user: run as that user, or delete it".into()
            }
            Self::Git { source, .. } if is_of_this_host(source) => {
                "see to owner, permissions and attributes of the mirror, or delete it".into()
            }
            Self::Git { .. } | Self::Interrupted(_) => return None,
        };
        Some(text)
    }
}

fn key_denied_hint(url: &RepoUrl, user: &str, keys: usize) -> String {
    let (host, port) = match url {
        RepoUrl::Ssh { host, port, .. } => (host.as_str(), *port),
        RepoUrl::Https { authority, .. } => (authority.as_str(), 443),
        RepoUrl::File(_) => ("", 0),
    };
    let key = if keys == 1 { "its public key" } else { "the public key of one of them" };
    let mut hint = format!(
        "check that {key} is registered at `{host}` (as a deploy key of this repository, or with an account that may read it) and has not expired"
    );
    if user != "git" {
        hint += &format!("; git hosts want the user `git`, here it is `{user}`");
    }
    if port == 122 {
        hint += "; ";
        hint += crate::mirror::trust::PORT_122;
    }
    hint
}

fn changed_host_key_hint(key: &HostKey) -> String {
    let by = if key.pinned {
        format!("put `{}` into `host_keys`", key.fingerprint)
    } else {
        format!("replace that line by `{}`", key.line)
    };
    // The line may be long, and what is too long is cut off at its end.
    format!(
        "somebody may be listening in, or the server got a new key: ask its administrator; known is {}; looked in {}{}; if the new key is right, {by}",
        key.known.join(", "),
        key.consulted.join(", "),
        note(key),
    )
}

fn note(key: &HostKey) -> String {
    key.note.as_ref().map(|note| format!("; {note}")).unwrap_or_default()
}

fn host_key_hint(key: &HostKey) -> String {
    format!(
        "compare the fingerprint with what the server's administrator publishes; looked in {}{}; to trust it, add it to `host_keys`, or this line to known_hosts: `{}`",
        key.consulted.join(", "),
        note(key),
        key.line,
    )
}
