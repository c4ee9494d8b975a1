//! Fetching from a repository on this host: what is missing is packed there and unpacked
//! here, one commit deep, without a git program.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use git2::{ObjectType, Oid, Repository, TreeWalkMode, TreeWalkResult};

use super::protocol::{Boundary, RemoteRef};
use super::repository::{oid, revision};
use super::{Failure, library};
use crate::domain::{RepoUrl, Revision};

/// Opens the repository at `path`, bare or not. Its owner does not matter: nothing of it is
/// executed, and its configuration is not followed.
pub(super) fn open(path: &Path) -> Result<Repository, Failure> {
    library::prepare();
    let dot_git = path.join(".git");
    let directory = if dot_git.is_dir() { &dot_git } else { path };
    Repository::open_bare(directory).map_err(|source| {
        let url = RepoUrl::File(path.to_owned());
        if source.message().contains("object format") {
            Failure::ObjectFormat { url }
        } else {
            Failure::NotFoundOrForbidden {
                url,
                asked_with: "this user".into(),
                remote_said: Some(source.message().to_owned()),
            }
        }
    })
}

/// Its branches and tags.
pub(super) fn refs(from: &Repository) -> Result<Vec<RemoteRef>, git2::Error> {
    let mut found = Vec::new();
    for reference in from.references()? {
        let reference = reference?;
        let Ok(resolved) = reference.resolve() else { continue };
        let Some(id) = resolved.target() else { continue };
        let peeled = from.find_tag(id).ok().and_then(|_| {
            let commit = resolved.peel(ObjectType::Commit).ok()?;
            Some(revision(commit.id()))
        });
        found.push(RemoteRef { name: reference.name_bytes().to_vec(), id: revision(id), peeled });
    }
    Ok(found)
}

/// Writes a pack of `wanted` and what it needs, except what `has` names, to `store`.
/// `None` if the repository does not have it.
pub(super) fn pack(
    from: &Repository,
    wanted: Revision,
    has: &dyn Fn(Oid) -> bool,
    store: &mut dyn Write,
) -> Result<Option<Boundary>, git2::Error> {
    let mut boundary = Boundary::default();
    let mut builder = from.packbuilder()?;
    let mut id = oid(wanted);
    loop {
        let Ok(object) = from.find_object(id, None) else { return Ok(None) };
        builder.insert_object(id, None)?;
        match object.kind() {
            Some(ObjectType::Tag) => {
                let Ok(tag) = object.into_tag() else { return Ok(None) };
                id = tag.target_id();
            }
            Some(ObjectType::Commit) => {
                let Ok(commit) = object.into_commit() else { return Ok(None) };
                if commit.parent_count() > 0 {
                    boundary.shallow.push(revision(id));
                }
                insert_tree(from, &commit.tree()?, has, &mut builder)?;
                break;
            }
            // Not a commit: said by whoever looks at what came.
            _ => break,
        }
    }
    builder.foreach(|bytes| store.write_all(bytes).is_ok())?;
    Ok(Some(boundary))
}

fn insert_tree(
    from: &Repository,
    root: &git2::Tree<'_>,
    has: &dyn Fn(Oid) -> bool,
    builder: &mut git2::PackBuilder<'_>,
) -> Result<(), git2::Error> {
    let mut seen = HashSet::new();
    let mut wanted = Vec::new();
    if !has(root.id()) {
        wanted.push(root.id());
    }
    root.walk(TreeWalkMode::PreOrder, |_, entry| {
        let id = entry.id();
        if entry.kind() == Some(ObjectType::Commit) {
            return TreeWalkResult::Ok;
        }
        if has(id) || !seen.insert(id) {
            // A tree that is here is here completely.
            return TreeWalkResult::Skip;
        }
        wanted.push(id);
        TreeWalkResult::Ok
    })?;
    let _ = from;
    for id in wanted {
        builder.insert_object(id, None)?;
    }
    Ok(())
}
