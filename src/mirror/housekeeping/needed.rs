//! Everything that any ref needs.

use std::collections::{BTreeSet, HashSet};

use git2::{ObjectType, Odb, Oid, Repository};

use super::Until;
use crate::domain::Revision;
use crate::mirror::Failure;
use crate::mirror::objects::{self, Entries};
use crate::mirror::reader::{Read, Reader, Shelf};
use crate::mirror::repository::{self, oid, revision};

/// What is needed.
pub(super) struct Needed {
    /// All objects.
    pub objects: HashSet<Oid>,
    /// The commits among them whose parents are not here.
    pub boundary: BTreeSet<Revision>,
}

/// Goes from the refs through everything; `None` when that takes too long. What a ref or a
/// tag points to may be missing: it is the record of a mirror that was made anew. Below that
/// nothing may be.
pub(super) fn find(repository: &Repository, until: &Until<'_>) -> Result<Option<Needed>, Failure> {
    let git = |error| Failure::git("looking for what is needed", repository.path(), error);
    let shallow: HashSet<Oid> = repository::shallow(repository)?.into_iter().map(oid).collect();
    let store = repository.odb().map_err(git)?;
    let shelf = Shelf::of(repository.path());
    let mut reader = Reader::new(&shelf, &store);
    let mut found = Needed { objects: HashSet::new(), boundary: BTreeSet::new() };
    let mut open = Vec::new();
    for reference in repository.references().map_err(git)? {
        if let Some(target) = reference.map_err(git)?.target()
            && store.exists(target)
        {
            open.push(target);
        }
    }
    while let Some(id) = open.pop() {
        if until.over() {
            return Ok(None);
        }
        if !found.objects.insert(id) {
            continue;
        }
        let object = match reader.read(id).map_err(git)? {
            Read::Large(_) => Read::whole(&store, id).map_err(git)?,
            read => read,
        };
        let Some((kind, content)) = object.content() else { continue };
        match kind {
            ObjectType::Tree => {
                // Files are many, and need nothing.
                let broken = || damaged(repository, id);
                for entry in Entries::from(content) {
                    let entry = entry.ok_or_else(broken)?;
                    match entry.kind() {
                        objects::DIRECTORY => open.push(entry.id),
                        // The commit of a submodule is in another repository.
                        objects::SUBMODULE => {}
                        _ => drop(found.objects.insert(entry.id)),
                    }
                }
            }
            ObjectType::Commit => {
                let lines = lines(content);
                let ids = |key: &str| -> Vec<Oid> {
                    let of = |line: &&str| Oid::from_str(line.strip_prefix(key)?).ok();
                    lines.iter().filter_map(of).collect()
                };
                open.extend(ids("tree "));
                if shallow.contains(&id) {
                    found.boundary.insert(revision(id));
                } else {
                    open.extend(ids("parent "));
                }
            }
            ObjectType::Tag => {
                let target = lines(content)
                    .first()
                    .and_then(|line| Oid::from_str(line.strip_prefix("object ")?).ok());
                open.extend(target.filter(|target| store.exists(*target)));
            }
            ObjectType::Blob | ObjectType::Any => {}
        }
    }
    missing(repository, &shelf, &store, &found)?;
    Ok(Some(found))
}

fn missing(
    repository: &Repository,
    shelf: &Shelf,
    store: &Odb<'_>,
    found: &Needed,
) -> Result<(), Failure> {
    match found.objects.iter().find(|id| !shelf.holds(**id) && !store.exists(**id)) {
        Some(id) => Err(damaged(repository, *id)),
        None => Ok(()),
    }
}

pub(super) fn damaged(repository: &Repository, id: Oid) -> Failure {
    Failure::Damaged {
        path: repository.path().to_owned(),
        detail: format!("object {id} is missing or broken"),
    }
}

/// The lines in front of a commit's or tag's text.
fn lines(content: &[u8]) -> Vec<&str> {
    content
        .split(|byte| *byte == b'\n')
        .take_while(|line| !line.is_empty())
        .map_while(|line| std::str::from_utf8(line).ok())
        .take_while(|line| !line.starts_with("author ") && !line.starts_with("tagger "))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_says_what_it_needs_only_in_front_of_its_text() {
        let text = b"tree 1\nparent 2\nparent 3\nauthor x\ncommitter y\n\nparent 4\n";
        assert_eq!(lines(text), ["tree 1", "parent 2", "parent 3"]);
    }
}
