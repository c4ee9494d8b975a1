//! Where the objects of a repository are asked for.
//!
//! Where git-lfs would ask: `.git/info/lfs` below the repository's own URL; for SSH what
//! `git-lfs-authenticate` answers there; unless the commit's `.lfsconfig` says otherwise, which
//! whoever can commit writes. Whether that may be followed is its reader's to decide.

use std::collections::HashMap;
use std::path::Path;

use git2::{Odb, Repository};
use serde::Deserialize;
use ureq::http::HeaderMap;

use super::batch;
use super::problem::Problem;
use crate::domain::{RepoUrl, Revision};
use crate::mirror::git_config::Reader;
use crate::mirror::repository::oid;
use crate::mirror::{Failure, objects, open_read_only};

/// At the root of a tree.
const CONFIG: &str = ".lfsconfig";
const NO_FILE: &str = "it is no regular file of UTF-8 text, at most 64 KiB long";
/// More is no configuration.
const LONGEST: usize = 64 << 10;

/// Where a batch server is, with what proves to it who we are if that is no credential of ours.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub url: RepoUrl,
    pub headers: HeaderMap,
}

/// The batch server of a repository over HTTPS.
pub fn of_source(source: &RepoUrl) -> Option<RepoUrl> {
    let RepoUrl::Https { authority, path } = source else { return None };
    let path = path.trim_end_matches('/');
    let end = if Path::new(path).extension().is_some_and(|end| end == "git") { "" } else { ".git" };
    let path = format!("{path}{end}/info/lfs");
    Some(RepoUrl::Https { authority: authority.clone(), path })
}

/// What `git-lfs-authenticate` answers.
#[derive(Deserialize)]
struct Authenticated {
    href: Option<String>,
    #[serde(default)]
    header: Option<HashMap<String, String>>,
}

/// Reads the answer of `git-lfs-authenticate`, which is secret.
pub(super) fn authenticated(answer: &[u8]) -> Result<Endpoint, &'static str> {
    let answer: Authenticated =
        serde_json::from_slice(answer).map_err(|_| "it is no answer of that program")?;
    let href = answer.href.ok_or("it names no address")?;
    let (authority, target) = batch::place(&href)?;
    if target.contains('?') {
        return Err("its address has a query");
    }
    let path = target.trim_matches('/').to_owned();
    let headers = batch::headers(answer.header.unwrap_or_default())?;
    Ok(Endpoint { url: RepoUrl::Https { authority, path }, headers })
}

/// The `lfs.url` of a commit's `.lfsconfig`, as it is written; `None` if there is none.
/// Without the mirror's lock.
///
/// # Errors
/// The mirror is damaged, or the file is not one that can be read.
pub fn configured(mirror: &Path, commit: Revision) -> Result<Option<String>, Failure> {
    let repository = open_read_only(mirror)?;
    let failed = |error| Failure::git("reading `.lfsconfig`", mirror, error);
    let store = repository.odb().map_err(failed)?;
    let text = match file(&repository, &store, commit).map_err(failed)? {
        None => return Ok(None),
        Some(text) => text.map_err(|what| Problem::Config { what })?,
    };
    lfs_url(&text).map_err(|what| Problem::Config { what }.into())
}

type Text = Result<String, &'static str>;

fn file(
    repository: &Repository,
    store: &Odb<'_>,
    commit: Revision,
) -> Result<Option<Text>, git2::Error> {
    let tree = repository.find_commit(oid(commit))?.tree()?;
    let Some(entry) = tree.get_name(CONFIG) else { return Ok(None) };
    if entry.filemode_raw() >> 12 != 0o10 || store.read_header(entry.id())?.0 > LONGEST {
        return Ok(Some(Err(NO_FILE)));
    }
    let object = objects::read(store, entry.id())?;
    Ok(Some(String::from_utf8(object.data().to_vec()).map_err(|_| NO_FILE)))
}

/// The last `lfs.url` that a text says.
pub(super) fn lfs_url(text: &str) -> Result<Option<String>, &'static str> {
    let mut reader = Reader::of(text);
    let (mut inside, mut url) = (false, None);
    while let Some(first) = reader.next_thing() {
        if first == '[' {
            let head = reader.section()?;
            inside = head.kind == "lfs" && head.name.is_none();
            continue;
        }
        let (key, value) = reader.key_and_value(first)?;
        if inside && key == "url" {
            url = value;
        }
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_place() {
        let https = |path: &str| RepoUrl::Https { authority: "h:1".into(), path: path.into() };
        for (path, expected) in [
            ("a/b.git", "a/b.git/info/lfs"),
            ("a/b", "a/b.git/info/lfs"),
            ("a/b/", "a/b.git/info/lfs"),
        ] {
            assert_eq!(of_source(&https(path)), Some(https(expected)));
        }
        assert_eq!(of_source(&RepoUrl::File("/a".into())), None);
    }

    #[test]
    fn what_the_program_at_the_server_answers() {
        let text = r#"{"href": "https://L.example/a/b/info/lfs/", "header": {"Authorization": "x"}, "expires_in": 5}"#;
        let endpoint = authenticated(text.as_bytes()).unwrap();
        assert_eq!(endpoint.url.to_string(), "https://l.example/a/b/info/lfs");
        assert_eq!(endpoint.headers.len(), 1);
        for (text, says) in [
            ("", "no answer"),
            ("{}", "names no address"),
            (r#"{"href": "http://h/"}"#, "https"),
            (r#"{"href": "https://h/?token=x"}"#, "query"),
        ] {
            assert!(authenticated(text.as_bytes()).unwrap_err().contains(says), "{text}");
        }
    }

    #[test]
    fn what_a_commit_says() {
        for (text, expected) in [
            ("", Ok(None)),
            ("[lfs]\n\tfetchexclude = a\n", Ok(None)),
            ("[lfs \"https://h/\"]\nurl = a\n[core]\nurl = b", Ok(None)),
            ("# x\n[LFS]\n\tURL = \"https://h/a\" ; b\n", Ok(Some("https://h/a"))),
            ("[lfs]\nurl = a\nurl = b\n", Ok(Some("b"))),
            ("[lfs]\nurl\n", Ok(None)),
            ("[lfs\n", Err(())),
        ] {
            let found = lfs_url(text).map_err(|_| ());
            assert_eq!(found, expected.map(|url: Option<&str>| url.map(str::to_owned)), "{text}");
        }
    }
}
