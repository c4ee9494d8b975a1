//! Where a repository is: the ways to write a source, and the parts they share with the
//! keys of `hosts`.
//!
//! A source never holds a credential, and no message here repeats a part of one that
//! may. What remains cannot mean anything else to a URL parser, a shell on the server or
//! the prefix match that binds credentials to repositories: no `..`, no `//`, no quotes.

use std::path::{Component, Path, PathBuf};

use crate::domain::RepoUrl;

/// What sources are relative to.
pub(super) struct Place {
    /// `host[:port]` of `github://org/repo`.
    pub(super) host: String,
    /// The directory of the manifest.
    pub(super) directory: PathBuf,
}

/// A source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) url: RepoUrl,
    /// The `host[:port]` if it was written `github://`.
    pub(super) github_host: Option<String>,
}

/// Why a text is not a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SourceError {
    #[error("`source` contains a user name or password, which do not belong into a manifest")]
    Credential,
    #[error("`source` contains {0:?}, which is not allowed there")]
    Character(char),
    #[error("`http://` is not encrypted and is refused")]
    Http,
    #[error("`git://` is neither encrypted nor authenticated and is refused")]
    Git,
    #[error("sources of kind `{0}://` are not supported")]
    Scheme(String),
    #[error("`github://` needs an organisation and a repository: `github://[host/]org/repo`")]
    GitHubParts,
    #[error("{0}")]
    Authority(#[from] AuthorityError),
    #[error("{0}")]
    Path(#[from] PathError),
    #[error("`source` has neither a scheme nor a user, so its kind is not clear")]
    Unclear {
        /// It looks like `org/repo`.
        parts: Option<(String, String)>,
    },
    #[error("`source` names another host after `file://`")]
    FileHost,
    #[error("`~` is not expanded in `source`")]
    Home,
}

impl SourceError {
    pub(super) fn hint(&self) -> Option<String> {
        const KINDS: &str = "write `github://[host/]org/repo`, `https://host/path`, \
            `ssh://user@host/path`, `git@host:path`, `file:///path`, or a path that begins with `/`, `./` or `../`";
        match self {
            Self::Credential => Some(
                "bind a credential to the host instead: `hosts:` in a version 2 manifest, or MULTIDEPLOYER_GITHUB_TOKEN"
                    .into(),
            ),
            Self::Http => Some("use `https://`".into()),
            Self::Git => Some("use `https://` or `ssh://`".into()),
            Self::Scheme(scheme) if scheme.contains("ssh") => Some("use `ssh://`".into()),
            Self::Unclear { parts: Some((org, repo)) } => {
                Some(format!("write `github://{org}/{repo}`, or `./{org}/{repo}` for a directory"))
            }
            Self::Scheme(_) | Self::Unclear { parts: None } | Self::GitHubParts => {
                Some(KINDS.into())
            }
            Self::FileHost => Some("write `file:///path`, with three slashes".into()),
            Self::Home => Some("write the whole path".into()),
            Self::Character(_) | Self::Authority(_) | Self::Path(_) => None,
        }
    }
}

/// Reads a source.
pub(super) fn parse(text: &str, place: &Place) -> Result<Source, SourceError> {
    let plain = |url| Ok(Source { url, github_host: None });
    let Some((scheme, rest)) = text.split_once("://") else {
        return plain(without_scheme(text, place)?);
    };
    match scheme.to_ascii_lowercase().as_str() {
        "github" => github(rest, place),
        "https" => {
            let (authority, path) = split(rest)?;
            plain(RepoUrl::Https { authority: authority.without_port(443), path: url_path(path)? })
        }
        "ssh" => plain(ssh(rest)?),
        "file" => match rest.strip_prefix("localhost/").map(|path| format!("/{path}")) {
            Some(path) => plain(file(&path, place)),
            None if rest.starts_with('/') => plain(file(rest, place)),
            None => Err(SourceError::FileHost),
        },
        "http" => Err(SourceError::Http),
        "git" => Err(SourceError::Git),
        other => {
            // Without a look at the rest this may be a password with `://` in it.
            let known = other.len() <= 12
                && other.bytes().all(|b| b.is_ascii_lowercase() || b"+-.".contains(&b));
            Err(SourceError::Scheme(if known { other.to_owned() } else { "…".to_owned() }))
        }
    }
}

fn github(rest: &str, place: &Place) -> Result<Source, SourceError> {
    let rest = rest.trim_end_matches('/');
    let parts: Vec<&str> = rest.split('/').collect();
    if parts.first().is_some_and(|first| first.contains('@')) {
        return Err(SourceError::Credential);
    }
    let (authority, org, repo) = match parts[..] {
        [org, repo] => (place.host.clone(), org, repo),
        [host, org, repo] => (Authority::parse(host)?.without_port(443), org, repo),
        _ => return Err(SourceError::GitHubParts),
    };
    let repo = repo.strip_suffix(".git").unwrap_or(repo);
    for part in [org, repo] {
        if part.is_empty() || part.bytes().all(|b| b == b'.') {
            return Err(SourceError::GitHubParts);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if let Some(c) = part.chars().find(|c| !allowed(*c)) {
            return Err(if c == '@' { SourceError::Credential } else { SourceError::Character(c) });
        }
    }
    let url = RepoUrl::Https { authority: authority.clone(), path: format!("{org}/{repo}.git") };
    Ok(Source { url, github_host: Some(authority) })
}

/// `host[:port]/path` of a URL without user.
fn split(rest: &str) -> Result<(Authority, &str), SourceError> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        return Err(SourceError::Credential);
    }
    Ok((Authority::parse(authority)?, path))
}

fn ssh(rest: &str) -> Result<RepoUrl, SourceError> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, authority) = match authority.rsplit_once('@') {
        Some((user, authority)) => (ssh_user(user)?, authority),
        None => ("git", authority),
    };
    let Authority { host, port } = Authority::parse(authority)?;
    Ok(RepoUrl::Ssh {
        user: user.to_owned(),
        host: host.trim_matches(['[', ']']).to_owned(),
        port: port.unwrap_or(22),
        path: format!("/{}", ssh_path(path)?),
    })
}

/// A user to log in as, without password.
fn ssh_user(user: &str) -> Result<&str, SourceError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if user.is_empty() || user.starts_with('-') || !user.chars().all(allowed) {
        return Err(SourceError::Credential);
    }
    Ok(user)
}

/// `user@host:path`, or a path on this host.
fn without_scheme(text: &str, place: &Place) -> Result<RepoUrl, SourceError> {
    if text.starts_with('~') {
        return Err(SourceError::Home);
    }
    if ["/", "./", "../"].iter().any(|start| text.starts_with(start)) || text == "." || text == ".."
    {
        return Ok(file(text, place));
    }
    // A colon before the first slash makes it a host; an IPv6 address is in brackets.
    let bracket = text.find("@[").and_then(|at| Some(at + text.get(at..)?.find("]:")? + 1));
    let colon = bracket.or_else(|| text.find(':'));
    let halves = colon.and_then(|colon| Some((text.get(..colon)?, text.get(colon + 1..)?)));
    let Some((before, path)) = halves.filter(|(before, _)| !before.contains('/')) else {
        let parts = text.split_once('/').filter(|(org, repo)| {
            let word = |part: &str| {
                !part.is_empty()
                    && part.len() <= 100
                    && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
            };
            word(org) && word(repo)
        });
        let parts = parts.map(|(org, repo)| (org.to_owned(), repo.to_owned()));
        return Err(SourceError::Unclear { parts });
    };
    let Some((user, host)) = before.rsplit_once('@') else {
        // `user:password@host:path`
        let credential = path.contains('@');
        return Err(if credential {
            SourceError::Credential
        } else {
            SourceError::Unclear { parts: None }
        });
    };
    let user = ssh_user(user)?;
    let Authority { host, port: None } = Authority::parse(host)? else {
        return Err(AuthorityError::Host.into());
    };
    let path = match path.strip_prefix('/') {
        Some(absolute) => format!("/{}", ssh_path(absolute)?),
        None => ssh_path(path)?,
    };
    let host = host.trim_matches(['[', ']']).to_owned();
    Ok(RepoUrl::Ssh { user: user.to_owned(), host, port: 22, path })
}

fn file(text: &str, place: &Place) -> RepoUrl {
    RepoUrl::File(resolve(text, &place.directory))
}

/// A path relative to `directory`, without `.` and doubled slashes. `..` stays: what it
/// means is up to the links on the way.
pub(super) fn resolve(text: &str, directory: &Path) -> PathBuf {
    directory.join(text).components().filter(|part| *part != Component::CurDir).collect()
}

/// `host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    /// In lower case; an IPv6 address in brackets.
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

/// Why a text is not `host[:port]`. The text is not repeated: it may be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum AuthorityError {
    #[error("the host name is missing or not valid")]
    Host,
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

impl Authority {
    pub(super) fn parse(text: &str) -> Result<Self, AuthorityError> {
        let end = if text.starts_with('[') {
            text.find(']').map_or(text.len(), |bracket| bracket + 1)
        } else {
            text.find(':').unwrap_or(text.len())
        };
        let (host, port) = text.split_at_checked(end).ok_or(AuthorityError::Host)?;
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return Err(AuthorityError::Host),
            Some(port) if port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()) => Some(
                port.parse::<u16>().ok().filter(|port| *port > 0).ok_or(AuthorityError::Port)?,
            ),
            Some(_) => return Err(AuthorityError::Port),
        };
        let valid = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.len() <= 253 && host.split('.').all(is_label),
        };
        if !valid {
            return Err(AuthorityError::Host);
        }
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }

    /// As text, without the port if it is the usual one.
    pub(super) fn without_port(&self, usual: u16) -> String {
        match self.port {
            Some(port) if port != usual => format!("{}:{port}", self.host),
            Some(_) | None => self.host.clone(),
        }
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Why a text is not the path of a repository on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PathError {
    #[error("the path of the repository is missing")]
    Missing,
    #[error("the path contains {0:?}, which is not allowed there")]
    Character(char),
    #[error("the path contains an empty part, `.` or `..`")]
    Parts,
    #[error(
        "the path contains a `%` that stands for nothing, or for something with a meaning of its own"
    )]
    Percent,
}

/// The path of an `https://` URL, without its leading and trailing slash.
pub(super) fn url_path(path: &str) -> Result<String, PathError> {
    let path = repository_path(path, "._~-/+=,@%:!$&*()';")?;
    let mut rest = path.as_str();
    while let Some((_, after)) = rest.split_once('%') {
        let byte = after.get(..2).filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = byte.and_then(|code| u8::from_str_radix(code, 16).ok());
        // `%2e%2e/` is `../` for some servers, and would get around the prefix match.
        match byte {
            None | Some(0..=0x1f | 0x7f | b'.' | b'/' | b'\\' | b'%') => {
                return Err(PathError::Percent);
            }
            Some(_) => rest = after,
        }
    }
    Ok(path)
}

/// The path in an ssh source, without its leading and trailing slash. It ends up between
/// single quotes in a command line on the server.
pub(super) fn ssh_path(path: &str) -> Result<String, PathError> {
    repository_path(path, "._~-/+=,@:")
}

fn repository_path(path: &str, also: &str) -> Result<String, PathError> {
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        return Err(PathError::Missing);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
    if let Some(c) = path.chars().find(|c| !allowed(*c)) {
        return Err(PathError::Character(c));
    }
    if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(PathError::Parts);
    }
    Ok(path.to_owned())
}
