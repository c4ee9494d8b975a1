//! Whether a commit is here with all its files; only then it gets the ref that says so.

use std::collections::HashSet;

use git2::{ObjectType, Oid, Repository};

use super::Failure;
use super::objects::{self, Entries};
use super::reader::{Read, Reader, Shelf};
use super::repository::{FETCHED, oid, revision};
use crate::domain::{RepoUrl, Revision};

/// Bytes of a commit or tag.
const MOST_COMMIT: usize = 16 << 20;
/// Bytes of a directory: a million names of usual length.
const MOST_TREE: usize = 64 << 20;

/// Checks that an object is, or leads to, a commit with all its files, and only then writes
/// the ref that says so; without them the ref goes.
pub(super) fn keep(
    repository: &Repository,
    wanted: Revision,
    url: &RepoUrl,
) -> Result<Revision, Failure> {
    let recording = |error| Failure::git("recording the fetch", repository.path(), error);
    let name = format!("{FETCHED}/{wanted}");
    let commit = match check(repository, wanted, url) {
        Ok(commit) => commit,
        Err(failure) => {
            // libgit2's own transports write it at once.
            if let Ok(mut early) = repository.find_reference(&name) {
                early.delete().map_err(recording)?;
            }
            return Err(failure);
        }
    };
    repository.reference(&name, oid(commit), true, "fetch").map_err(recording)?;
    Ok(commit)
}

fn check(repository: &Repository, wanted: Revision, url: &RepoUrl) -> Result<Revision, Failure> {
    let lost = |error| Failure::git("checking what came", repository.path(), error);
    not_too_large(repository, wanted)?;
    let object = repository.find_object(oid(wanted), None).map_err(lost)?;
    let commit = match object.peel_to_commit() {
        Ok(commit) => commit,
        Err(error) => {
            let end = object.peel(ObjectType::Any).unwrap_or(object);
            return match end.kind() {
                Some(kind @ (ObjectType::Blob | ObjectType::Tree)) => Err(Failure::NotACommit {
                    revision: wanted,
                    kind: kind.str().to_owned(),
                    url: url.clone(),
                }),
                _ => Err(lost(error)),
            };
        }
    };
    all_there(repository, wanted, commit.tree_id())?;
    Ok(revision(commit.id()))
}

/// Before it is read: a kilobyte on the way can be a megabyte here.
fn not_too_large(repository: &Repository, wanted: Revision) -> Result<(), Failure> {
    let lost = |error| Failure::git("checking what came", repository.path(), error);
    let objects = repository.odb().map_err(lost)?;
    let mut id = oid(wanted);
    loop {
        let (size, kind) = objects.read_header(id).map_err(lost)?;
        if size > MOST_COMMIT && matches!(kind, ObjectType::Commit | ObjectType::Tag) {
            let what = "the text".to_owned();
            return Err(Failure::TooLarge { revision: wanted, what, most: MOST_COMMIT });
        }
        if kind != ObjectType::Tag {
            return Ok(());
        }
        id = repository.find_tag(id).map_err(lost)?.target_id();
    }
}

/// Not recursive: how deep the trees go is the remote's choice.
fn all_there(repository: &Repository, wanted: Revision, root: Oid) -> Result<(), Failure> {
    let damaged = |error| Failure::git("checking what came", repository.path(), error);
    let store = repository.odb().map_err(damaged)?;
    let shelf = Shelf::of(repository.path());
    let mut reader = Reader::new(&shelf, &store);
    let mut seen = HashSet::from([root]);
    let mut trees = vec![root];
    while let Some(tree) = trees.pop() {
        let content = match reader.read(tree).map_err(damaged)? {
            Read::Large(size) if size > MOST_TREE => {
                let what = "a directory".to_owned();
                return Err(Failure::TooLarge { revision: wanted, what, most: MOST_TREE });
            }
            Read::Large(_) => Read::whole(&store, tree).map_err(damaged)?,
            read => read,
        };
        let broken = |detail| Failure::Damaged { path: repository.path().to_owned(), detail };
        let none = || broken(format!("object {tree} is no directory that can be read"));
        let content = content.of(ObjectType::Tree).ok_or_else(none)?;
        for entry in Entries::from(content) {
            let entry = entry.ok_or_else(none)?;
            let id = entry.id;
            match entry.kind() {
                // The commit of a submodule is in another repository.
                objects::SUBMODULE => {}
                _ if !seen.insert(id) => {}
                objects::DIRECTORY => trees.push(id),
                _ if shelf.holds(id) || store.exists(id) => {}
                _ => return Err(broken(format!("object {id} did not come"))),
            }
        }
    }
    Ok(())
}
