//! Whether a branch or tag leads to a commit: the history between them, fetched in steps.
//!
//! A mirror holds single commits without their parents. What lies between is fetched into a
//! repository of its own, in the mirror's directory, so that a commit that is there without its
//! files is never taken for one that can be deployed. It borrows the mirror's objects, which
//! are thus not fetched twice. Servers that can leave out files and directories are asked to.
//!
//! Parents are read from the commits themselves. What a server says about where its answer
//! ends only decides what is asked for next.

use std::collections::{HashSet, VecDeque};
use std::io;

use git2::{ErrorCode, ObjectType, Odb, Oid, Repository};

use super::Fetch;
use crate::domain::{RefName, RepoUrl, Revision};
use crate::mirror::failure::Failure;
use crate::mirror::objects;
use crate::mirror::origin::{Looked, Reach};
use crate::mirror::protocol::{RemoteRef, Request};
use crate::mirror::repository::{self, FETCHED, oid};
use crate::mirror::watch::Watch;
use crate::mirror::{Progress, Remote, local};

/// How many commits deep is looked, step by step. What is deeper than the last is not found.
const STEPS: [u32; 4] = [50, 500, 5_000, 50_000];
/// The repository of histories, in the mirror's directory.
const DIRECTORY: &str = "history";
/// With more packs than this it is begun anew.
const MOST_PACKS: usize = 60;

/// Whether one of these branches and tags leads to `commit`, which is in the repository.
pub(in crate::mirror) fn reach(
    mirror: &Repository,
    commit: Revision,
    from: &[RefName],
    remote: &Remote,
    progress: &dyn Fn(Progress),
) -> Result<Reach, Failure> {
    let watch = Watch::start(remote);
    let fetch = Fetch::new(mirror, remote, &watch, progress);
    let prefixes: Vec<_> = from.iter().map(ToString::to_string).collect();
    let refs = fetch.retrying(|| fetch.list(&prefixes))?;
    let found: Vec<(&RefName, Option<&RemoteRef>)> = from
        .iter()
        .map(|name| (name, refs.iter().find(|r| r.name == name.as_str().as_bytes())))
        .collect();
    if let Some((name, _)) = found.iter().find(|(_, r)| r.is_some_and(|r| tip(r) == commit)) {
        return Ok(Reach::From((*name).clone()));
    }
    let at: Vec<_> = found.iter().filter_map(|(_, found)| *found).collect();
    if let RepoUrl::File(path) = &remote.url {
        let there = local::open(path)?;
        let search = Search { objects: odb(&there)?, wanted: oid(commit), watch: &watch };
        return search.all(&found).map(|(reach, _)| reach);
    }
    if at.is_empty() {
        return Ok(Reach::Not(found.iter().map(|(name, _)| absent(name)).collect()));
    }
    let look = || -> Result<Reach, Failure> {
        let history = open(mirror)?;
        search(mirror, &history, commit, &found, remote, &watch, progress)
    };
    let before = mirror.path().join(DIRECTORY).exists();
    match look() {
        // The mirror may have let go of old commits that this borrows: what it lacks is then
        // taken for known, and never sent.
        Ok(Reach::Not(looked)) if before && looked.iter().any(|looked| !looked.all) => {
            remove(mirror)?;
            look()
        }
        // Nothing but time is lost with it.
        Err(Failure::Damaged { .. } | Failure::Git { .. }) => {
            remove(mirror)?;
            look()
        }
        done => done,
    }
}

/// The annotated tag that a name is at the remote.
pub(in crate::mirror) fn tag(
    repository: &Repository,
    name: &RefName,
    remote: &Remote,
    progress: &dyn Fn(Progress),
) -> Result<Option<Revision>, Failure> {
    let watch = Watch::start(remote);
    let fetch = Fetch::new(repository, remote, &watch, progress);
    let names = ["", "refs/", "refs/tags/"].map(|place| format!("{place}{name}"));
    let names: Vec<_> = names.into_iter().filter(|name| name.starts_with("refs/tags/")).collect();
    let refs = fetch.retrying(|| fetch.list(&names))?;
    let mut found = names.iter().filter_map(|full| {
        refs.iter().find(|found| found.name == full.as_bytes() && found.peeled.is_some())
    });
    Ok(found.next().map(|found| found.id))
}

fn tip(found: &RemoteRef) -> Revision {
    found.peeled.unwrap_or(found.id)
}

fn absent(name: &RefName) -> Looked {
    Looked { name: name.clone(), tip: None, commits: 0, all: true }
}

/// Looks, and fetches more, until it is found or there is no more.
fn search(
    mirror: &Repository,
    history: &Repository,
    commit: Revision,
    from: &[(&RefName, Option<&RemoteRef>)],
    remote: &Remote,
    watch: &Watch,
    progress: &dyn Fn(Progress),
) -> Result<Reach, Failure> {
    let fetch = Fetch::new(history, remote, watch, progress);
    let mut steps = STEPS.into_iter();
    // How deep was asked for, and how much was here before.
    let mut asked: Option<(u32, usize)> = None;
    loop {
        let search = Search { objects: odb(history)?, wanted: oid(commit), watch };
        let (reach, unfinished) = search.all(from)?;
        let Reach::Not(looked) = &reach else { return Ok(reach) };
        let seen: usize = looked.iter().map(|looked| looked.commits).sum();
        // A server whose own history has such a boundary has no more to give.
        let no_more = asked.is_some_and(|(depth, before)| seen <= before && seen < depth as usize);
        if unfinished.is_empty() || no_more {
            return Ok(reach);
        }
        let Some(depth) = steps.next() else { return Ok(reach) };
        asked = Some((depth, seen));
        let wants: Vec<_> = unfinished.iter().map(|found| found.id).collect();
        fetch.retrying(|| {
            let mut haves = fetch.haves();
            haves.push(commit);
            let mut shallow = repository::shallow(history)?;
            shallow.extend(repository::shallow(mirror)?);
            shallow.sort_unstable();
            shallow.dedup();
            fetch.ask(Request {
                wants: wants.clone(),
                haves,
                shallow,
                depth: Some(depth),
                commits_only: true,
            })
        })?;
        // Only now that the boundary is written too may they be named as known.
        for id in wants {
            let name = format!("{FETCHED}/{id}");
            history
                .reference(&name, oid(id), true, "history")
                .map_err(|error| Failure::git("remembering the history", history.path(), error))?;
        }
    }
}

/// Looks for a commit among the ancestors of others.
struct Search<'a> {
    objects: Odb<'a>,
    wanted: Oid,
    watch: &'a Watch,
}

impl Search<'_> {
    /// Whether one leads to it, and those of which not all ancestors are here.
    fn all<'r>(
        &self,
        from: &[(&RefName, Option<&'r RemoteRef>)],
    ) -> Result<(Reach, Vec<&'r RemoteRef>), Failure> {
        let mut in_vain = Vec::new();
        let mut unfinished = Vec::new();
        for (name, found) in from {
            let Some(found) = *found else {
                in_vain.push(absent(name));
                continue;
            };
            let Some((commits, all)) = self.one(oid(tip(found)))? else {
                return Ok((Reach::From((*name).clone()), Vec::new()));
            };
            if !all {
                unfinished.push(found);
            }
            in_vain.push(Looked { name: (*name).clone(), tip: Some(tip(found)), commits, all });
        }
        Ok((Reach::Not(in_vain), unfinished))
    }

    /// `None` if it is found; else how many commits are here, and whether these are all.
    fn one(&self, tip: Oid) -> Result<Option<(usize, bool)>, Failure> {
        let mut seen = HashSet::from([tip]);
        let mut next = VecDeque::from([tip]);
        let mut commits = 0;
        let mut all = true;
        while let Some(id) = next.pop_front() {
            if id == self.wanted {
                return Ok(None);
            }
            if commits % 1000 == 0 {
                self.watch.check()?;
            }
            let object = match objects::read(&self.objects, id) {
                Ok(object) => object,
                Err(error) if error.code() == ErrorCode::NotFound => {
                    all = false;
                    continue;
                }
                Err(source) => return Err(Failure::Git { doing: "reading the history", source }),
            };
            if object.kind() != ObjectType::Commit {
                continue;
            }
            commits += 1;
            next.extend(parents(object.data()).filter(|parent| seen.insert(*parent)));
        }
        Ok(Some((commits, all)))
    }
}

/// The parents as the commit itself names them: nothing outside of it can add one.
fn parents(commit: &[u8]) -> impl Iterator<Item = Oid> {
    commit
        .split(|byte| *byte == b'\n')
        .skip(1)
        .map_while(|line| line.strip_prefix(b"parent "))
        .filter_map(|id| std::str::from_utf8(id).ok()?.parse::<Revision>().ok())
        .map(oid)
}

fn odb(repository: &Repository) -> Result<Odb<'_>, Failure> {
    repository.odb().map_err(|error| Failure::git("reading the history", repository.path(), error))
}

/// Opens or makes the repository of histories.
fn open(mirror: &Repository) -> Result<Repository, Failure> {
    let path = mirror.path().join(DIRECTORY);
    let packs = fs_err::read_dir(path.join("objects/pack")).into_iter().flatten();
    if packs.flatten().filter(|entry| entry.path().extension() == Some("pack".as_ref())).count()
        > MOST_PACKS
    {
        remove(mirror)?;
    }
    let failed = |error| Failure::git("opening the history", &path, error);
    if !path.join("objects/info/alternates").is_file() {
        remove(mirror)?;
        let mut options = git2::RepositoryInitOptions::new();
        options.bare(true).external_template(false);
        Repository::init_opts(&path, &options).map_err(failed)?;
        let alternates = path.join("objects/info/alternates");
        let written = fs_err::create_dir_all(path.join("objects/info"))
            .and_then(|()| fs_err::write(&alternates, "../../objects\n"));
        written.map_err(|error| Failure::file("write", &alternates, error))?;
    }
    Repository::open(&path).map_err(failed)
}

fn remove(mirror: &Repository) -> Result<(), Failure> {
    let path = mirror.path().join(DIRECTORY);
    match fs_err::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::file("remove", &path, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_those_of_the_header() {
        let (one, two) = ("1".repeat(40), "2".repeat(40));
        let text = format!(
            "tree {one}\nparent {one}\nparent {two}\nauthor A <a> 1 +0000\nparent {one}\n\nparent {two}\n"
        );
        let found: Vec<_> = parents(text.as_bytes()).map(|id| id.to_string()).collect();
        assert_eq!(found, [one.clone(), two]);
        assert_eq!(parents(format!("tree {one}\nauthor").as_bytes()).count(), 0);
        assert_eq!(parents(b"").count(), 0);
    }
}
