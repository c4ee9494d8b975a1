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
    #[error("sources of {} are not supported", scheme_kind(.0))]
    Scheme(
        /// Empty if it may be something else.
        String,
    ),
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

fn scheme_kind(scheme: &str) -> String {
    if scheme.is_empty() { "this kind".to_owned() } else { format!("kind `{scheme}://`") }
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
            // Another word may be a password with `://` in it.
            const KNOWN: [&str; 12] = [
                "codecommit",
                "ftp",
                "ftps",
                "git+file",
                "git+http",
                "git+https",
                "git+ssh",
                "hg",
                "rsync",
                "s3",
                "ssh+git",
                "svn",
            ];
            let shown = if KNOWN.contains(&other) { other } else { "" };
            Err(SourceError::Scheme(shown.to_owned()))
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
        "the path contains a `%` that stands for nothing, for what needs none, or for something with a meaning of its own"
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
        // `%2e%2e/` is `../` for some servers, and `%61` an `a` for all: they would get around
        // the prefix match.
        match byte {
            Some(0..=0x1f | 0x7f | b'.' | b'/' | b'\\' | b'%' | b'-' | b'_' | b'~') | None => {
                return Err(PathError::Percent);
            }
            Some(byte) if byte.is_ascii_alphanumeric() => return Err(PathError::Percent),
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
    // Servers in Java leave out what follows a semicolon before they look at the dots.
    let plain =
        |part: &str| part.split(';').next().is_some_and(|part| !matches!(part, "" | "." | ".."));
    if !path.split('/').all(plain) {
        return Err(PathError::Parts);
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { host: "ghe.example.com".into(), directory: "/srv/manifest".into() }
    }

    fn read(text: &str) -> Result<Source, SourceError> {
        parse(text, &place())
    }

    #[test]
    fn every_kind_of_source() {
        for (text, url, binding) in [
            (
                "github://acme/api",
                "https://ghe.example.com/acme/api.git",
                "ghe.example.com/acme/api.git",
            ),
            (
                "github://acme/api/",
                "https://ghe.example.com/acme/api.git",
                "ghe.example.com/acme/api.git",
            ),
            (
                "github://acme/api.git",
                "https://ghe.example.com/acme/api.git",
                "ghe.example.com/acme/api.git",
            ),
            (
                "github://GitHub.com/acme/.github",
                "https://github.com/acme/.github.git",
                "github.com/acme/.github.git",
            ),
            ("github://g.h:8443/a/b", "https://g.h:8443/a/b.git", "g.h:8443/a/b.git"),
            ("GitHub://a/b", "https://ghe.example.com/a/b.git", "ghe.example.com/a/b.git"),
            (
                "https://Git.Example.com:443/acme/api.git/",
                "https://git.example.com/acme/api.git",
                "git.example.com/acme/api.git",
            ),
            ("https://[::1]:8443/a%20b", "https://[::1]:8443/a%20b", "[::1]:8443/a%20b"),
            ("https://h/~user/x", "https://h/~user/x", "h/~user/x"),
            ("ssh://h/srv/a.git", "ssh://git@h/srv/a.git", "h/srv/a.git"),
            ("ssh://deploy@h:2222/srv/a.git", "ssh://deploy@h:2222/srv/a.git", "h:2222/srv/a.git"),
            ("ssh://deploy@h:22/a", "ssh://deploy@h/a", "h/a"),
            (
                "ssh://git@ssh.github.com:443/a/b.git",
                "ssh://git@ssh.github.com:443/a/b.git",
                "ssh.github.com:443/a/b.git",
            ),
            ("git@h:acme/api.git", "git@h:acme/api.git", "h/acme/api.git"),
            ("git@h:/srv/api.git", "ssh://git@h/srv/api.git", "h/srv/api.git"),
            ("git@h:~deploy/api", "git@h:~deploy/api", "h/~deploy/api"),
            ("file:///srv/a.git", "file:///srv/a.git", ""),
            ("file://localhost/srv/a.git", "file:///srv/a.git", ""),
            ("/srv//a/./b.git/", "file:///srv/a/b.git", ""),
            ("./api.git", "file:///srv/manifest/api.git", ""),
            ("../api.git", "file:///srv/manifest/../api.git", ""),
            (".", "file:///srv/manifest", ""),
        ] {
            let source = read(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(source.url.to_string(), url, "{text}");
            assert_eq!(source.url.binding().unwrap_or_default(), binding, "{text}");
            // What is printed can be read again and means the same.
            assert_eq!(
                read(&source.url.to_string()).map(|again| again.url),
                Ok(source.url),
                "{text}"
            );
        }
        assert_eq!(read("github://h.i/a/b").unwrap().github_host.as_deref(), Some("h.i"));
        assert_eq!(read("https://github.com/a/b").unwrap().github_host, None);
    }

    #[test]
    fn what_is_not_a_source_is_told_why() {
        for (text, expected, hint) in [
            ("http://h/a", "`http://` is not encrypted and is refused", "use `https://`"),
            (
                "git://h/a",
                "`git://` is neither encrypted nor authenticated and is refused",
                "use `https://` or `ssh://`",
            ),
            ("git+ssh://git@h/a", "sources of kind `git+ssh://` are not supported", "use `ssh://`"),
            ("s3://bucket/x", "sources of kind `s3://` are not supported", "write `github://"),
            ("ftp://h/x", "sources of kind `ftp://` are not supported", "write `github://"),
            (
                "acme/api",
                "`source` has neither a scheme nor a user, so its kind is not clear",
                "write `github://acme/api`, or `./acme/api` for a directory",
            ),
            (
                "h:acme/api",
                "`source` has neither a scheme nor a user, so its kind is not clear",
                "write `github://",
            ),
            (
                "github://acme",
                "`github://` needs an organisation and a repository: `github://[host/]org/repo`",
                "write",
            ),
            (
                "github://a/b/c/d",
                "`github://` needs an organisation and a repository: `github://[host/]org/repo`",
                "write",
            ),
            (
                "github://a/..",
                "`github://` needs an organisation and a repository: `github://[host/]org/repo`",
                "write",
            ),
            ("github://a/b c", "`source` contains ' ', which is not allowed there", ""),
            ("github://h_/a/b?x", "`source` contains '?', which is not allowed there", ""),
            ("https://h", "the path of the repository is missing", ""),
            ("https:///a", "the host name is missing or not valid", ""),
            ("https://h:0/a", "the port is not a number from 1 to 65535", ""),
            ("https://h:65536/a", "the port is not a number from 1 to 65535", ""),
            ("https://-h/a", "the host name is missing or not valid", ""),
            ("https://é.example/a", "the host name is missing or not valid", ""),
            ("https://h/a/../b", "the path contains an empty part, `.` or `..`", ""),
            ("https://h//a", "the path contains an empty part, `.` or `..`", ""),
            ("https://h/a/..;x/b", "the path contains an empty part, `.` or `..`", ""),
            ("https://h/a?b", "the path contains '?', which is not allowed there", ""),
            (
                "https://h/%2e%2E/a",
                "the path contains a `%` that stands for nothing, for what needs none, or for something with a meaning of its own",
                "",
            ),
            (
                "https://h/%61cme/a",
                "the path contains a `%` that stands for nothing, for what needs none, or for something with a meaning of its own",
                "",
            ),
            (
                "https://h/a%2",
                "the path contains a `%` that stands for nothing, for what needs none, or for something with a meaning of its own",
                "",
            ),
            ("ssh://h/a'b", "the path contains '\\'', which is not allowed there", ""),
            ("git@h:a;b", "the path contains ';', which is not allowed there", ""),
            ("git@h:", "the path of the repository is missing", ""),
            (
                "-oProxyCommand=x@h:a",
                "`source` contains a user name or password, which do not belong into a manifest",
                "bind",
            ),
            (
                "ssh://-x@h/a",
                "`source` contains a user name or password, which do not belong into a manifest",
                "bind",
            ),
            ("file://h/a", "`source` names another host after `file://`", "write `file:///path`"),
            ("~/a", "`~` is not expanded in `source`", "write the whole path"),
        ] {
            let error = read(text).expect_err(text);
            assert_eq!(error.to_string(), expected, "{text}");
            let found = error.hint().unwrap_or_default();
            assert!(
                found.starts_with(hint) && found.is_empty() == hint.is_empty(),
                "{text}: {found}"
            );
        }
    }
}
