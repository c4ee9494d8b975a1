//! The URL of a submodule, as a commit's `.gitmodules` has it: text that whoever can commit
//! has written, so that less is allowed than in a manifest.
//!
//! It leads over `https` or `ssh` to a repository, and relative ones stay on the host of the
//! repository they are in. Paths on this host are for repositories on this host only.

use std::path::{Component, Path};

use super::source::{self, Place, SourceError, ssh_path, url_path};
use crate::domain::RepoUrl;

/// Longer ones are no URL of a repository.
const LONGEST: usize = 2_048;

/// Why a text is not the URL of a submodule. Nothing of the text is repeated: it may hold a
/// password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It is no URL at all.
    #[error("its URL is empty or longer than {LONGEST} characters")]
    Length,
    /// What would be an option of a program.
    #[error("its URL begins with `-`")]
    Option,
    /// A character that is in no URL.
    #[error("its URL contains {0:?}, which is not allowed there")]
    Character(char),
    /// `user:password@`, or a user for `https`.
    #[error("its URL contains a user name or password")]
    Credential,
    /// `http`, `git`, `ext` and the like.
    #[error("its URL is neither `https://`, `ssh://`, `user@host:path` nor relative")]
    Kind,
    /// A path, in a repository that comes from elsewhere.
    #[error("its URL is a path on this host, and the repository it is in comes from elsewhere")]
    Local,
    /// `../` once too often.
    #[error("its URL leads out of the host of the repository it is in")]
    Climbs,
    /// Another part of it.
    #[error("in its URL {0}")]
    Part(String),
}

/// Reads the URL of a submodule of the repository at `of`.
///
/// # Errors
/// What must not be followed.
pub(crate) fn url(text: &str, of: &RepoUrl) -> Result<RepoUrl, Refused> {
    if text.is_empty() || text.len() > LONGEST {
        return Err(Refused::Length);
    }
    if text.starts_with('-') {
        return Err(Refused::Option);
    }
    let odd = |c: &char| c.is_control() || c.is_whitespace() || *c == '\\';
    if let Some(c) = text.chars().find(odd) {
        return Err(Refused::Character(c));
    }
    if text == "." || text == ".." || text.starts_with("./") || text.starts_with("../") {
        return relative(text, of);
    }
    if let Some((scheme, _)) = text.split_once("://")
        && !["https", "ssh", "file"].contains(&scheme.to_ascii_lowercase().as_str())
    {
        return Err(Refused::Kind);
    }
    let nowhere = Place { host: String::new(), directory: "/".into() };
    let found = source::parse(text, &nowhere).map_err(|error| match error {
        SourceError::Credential => Refused::Credential,
        SourceError::Character(c) => Refused::Character(c),
        SourceError::Authority(error) => Refused::Part(error.to_string()),
        SourceError::Path(error) => Refused::Part(error.to_string()),
        SourceError::FileHost
        | SourceError::Home
        | SourceError::Http
        | SourceError::Git
        | SourceError::Scheme(_)
        | SourceError::GitHubParts
        | SourceError::Unclear { .. } => Refused::Kind,
    })?;
    match (&found.url, of) {
        (RepoUrl::File(path), RepoUrl::File(_)) if !has_parents(path) => Ok(found.url),
        (RepoUrl::File(_), RepoUrl::File(_)) => Err(Refused::Climbs),
        (RepoUrl::File(_), _) => Err(Refused::Local),
        _ => Ok(found.url),
    }
}

fn has_parents(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

/// As git has it: each leading `../` takes the last part of the repository's own path away.
fn relative(text: &str, of: &RepoUrl) -> Result<RepoUrl, Refused> {
    let mut rest = text;
    let mut up = 0;
    loop {
        if let Some(after) = rest.strip_prefix("./") {
            rest = after;
        } else if let Some(after) = rest.strip_prefix("../") {
            rest = after;
            up += 1;
        } else {
            break;
        }
    }
    let part = |error: source::PathError| Refused::Part(error.to_string());
    let rest = rest.trim_end_matches('/');
    if rest.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(part(source::PathError::Parts));
    }
    let on = |path: &str| {
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let left = parts.len().checked_sub(up).ok_or(Refused::Climbs)?;
        parts.truncate(left);
        parts.push(rest);
        Ok(parts.join("/"))
    };
    match of {
        RepoUrl::Https { authority, path } => {
            let path = url_path(&on(path)?).map_err(part)?;
            Ok(RepoUrl::Https { authority: authority.clone(), path })
        }
        RepoUrl::Ssh { user, host, port, path } => {
            let slash = if path.starts_with('/') { "/" } else { "" };
            let path = slash.to_owned() + &ssh_path(&on(path)?).map_err(part)?;
            Ok(RepoUrl::Ssh { user: user.clone(), host: host.clone(), port: *port, path })
        }
        RepoUrl::File(path) => {
            let mut path = path.clone();
            for _ in 0..up {
                // What `..` of a path with `..` is, is up to links.
                let named = matches!(path.components().next_back(), Some(Component::Normal(_)));
                if !named || !path.pop() {
                    return Err(Refused::Climbs);
                }
            }
            Ok(RepoUrl::File(path.join(rest)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> RepoUrl {
        let place = Place { host: "github.com".into(), directory: "/srv".into() };
        source::parse(text, &place).unwrap().url
    }

    #[test]
    fn urls_lead_where_git_would_go() {
        for (base, text, wanted) in [
            ("https://h/acme/api.git", "../lib.git", "https://h/acme/lib.git"),
            ("https://h/acme/api", "../lib.git/", "https://h/acme/lib.git"),
            ("https://h:8443/acme/api.git", "../../other/lib", "https://h:8443/other/lib"),
            ("https://h/acme/api.git", "./sub.git", "https://h/acme/api.git/sub.git"),
            ("https://h/acme/api.git", ".././lib.git", "https://h/acme/lib.git"),
            ("ssh://d@h:2222/srv/api.git", "../lib.git", "ssh://d@h:2222/srv/lib.git"),
            ("git@h:acme/api.git", "../lib.git", "git@h:acme/lib.git"),
            ("git@h:acme/api.git", "../../lib.git", "git@h:lib.git"),
            ("/srv/git/api.git", "../lib.git", "file:///srv/git/lib.git"),
            ("/srv/git/api.git", "/srv/x y", ""),
            ("/srv/git/api.git", "/srv/x", "file:///srv/x"),
            ("/srv/git/api.git", "file:///srv/x", "file:///srv/x"),
            ("/srv/git/api.git", "https://h/a", "https://h/a"),
            ("https://h/a/b", "HTTPS://G.example:443/x/y.git", "https://g.example/x/y.git"),
            ("https://h/a/b", "git@g.example:x/y.git", "git@g.example:x/y.git"),
            ("https://h/a/b", "ssh://g.example/x", "ssh://git@g.example/x"),
        ] {
            let found = url(text, &of(base)).map_or_else(|_| String::new(), |url| url.to_string());
            assert_eq!(found, wanted, "{text} in {base}");
        }
    }

    #[test]
    fn hostile_urls_are_refused_and_not_repeated() {
        let part = |text: &str| Refused::Part(text.into());
        let parts = part("the path contains an empty part, `.` or `..`");
        for (text, wanted) in [
            ("", Refused::Length),
            (&*"x".repeat(2_049), Refused::Length),
            ("-u./payload", Refused::Option),
            ("--upload-pack=touch x", Refused::Option),
            ("https://h/a\nb", Refused::Character('\n')),
            ("https://h/a\tb", Refused::Character('\t')),
            ("https://h/a b", Refused::Character(' ')),
            ("..\\..\\x", Refused::Character('\\')),
            ("https://user:hunter2@h/a", Refused::Credential),
            ("https://user@h/a", Refused::Credential),
            ("ssh://u:hunter2@h/a", Refused::Credential),
            ("ssh://-oProxyCommand=x@h/a", Refused::Credential),
            ("ssh://-oProxyCommand=x/a", part("the host name is missing or not valid")),
            ("-oProxyCommand=x@h:a", Refused::Option),
            ("http://h/a", Refused::Kind),
            ("git://h/a", Refused::Kind),
            ("github://a/b", Refused::Kind),
            ("ext::sh", Refused::Kind),
            ("fd::17/foo", Refused::Kind),
            ("s3://x/y", Refused::Kind),
            ("lib.git", Refused::Kind),
            ("h:acme/lib", Refused::Kind),
            ("~/a", Refused::Kind),
            ("file://other/a", Refused::Kind),
            ("file:///etc", Refused::Local),
            ("/etc", Refused::Local),
            ("../../../evil.example/x", Refused::Climbs),
            ("../a/../../b", parts.clone()),
            ("..", parts.clone()),
            (".", parts.clone()),
            ("../", parts.clone()),
            ("../%2e%2e/x", part(&source::PathError::Percent.to_string())),
            ("https://h/../x", parts.clone()),
            ("git@h:a/../../b", parts.clone()),
            ("../a?x", part("the path contains '?', which is not allowed there")),
            ("git@h:a'b", part("the path contains '\\'', which is not allowed there")),
        ] {
            let error = url(text, &of("https://h/acme/api.git")).expect_err(text);
            assert_eq!(error, wanted, "{text}");
            assert!(!error.to_string().contains("hunter2"), "{text}: {error}");
        }
        let local = of("/srv/api.git");
        for text in ["../../../x", "../..", "/srv/../etc", "../a//b"] {
            assert!(url(text, &local).is_err(), "{text}");
        }
    }
}
