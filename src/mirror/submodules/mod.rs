//! What a commit says of its submodules, and the mirrors they have: one for each repository,
//! inside that of the app, which is removed, moved and made anew with it.
//!
//! A mirror of a submodule is like any other, without the ledger's refs: instead of those,
//! `refs/multideployer/pinned/<commit of the app>/<commit>` says which commits of the app need
//! which of its commits. They stay as long as the app's own mirror holds that commit.

mod gitmodules;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid, Repository, Tree};

use super::repository::{self, oid, revision};
use super::{Effort, Failure, Mirror, Tidied, housekeeping};
use crate::domain::{RepoUrl, Revision};

use gitmodules::Problem;

/// Where the mirrors of the submodules are in the mirror of the app, as in git.
pub(super) const MODULES: &str = "modules";
/// Commits that commits of the app need.
pub(super) const PINNED: &str = "refs/multideployer/pinned";
/// More is no list of submodules.
const LONGEST: usize = 1 << 20;

/// A submodule of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submodule {
    /// Where it is in the tree.
    pub path: PathBuf,
    /// The commit that it is at.
    pub commit: Revision,
    /// Where its repository is, as `.gitmodules` has it: not to be trusted.
    pub url: String,
}

/// Why the submodules of a commit are not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The mirror.
    #[error(transparent)]
    Mirror(#[from] Failure),
    /// It cannot be understood.
    #[error(transparent)]
    Text(#[from] Problem),
    /// A link, a directory, or too long.
    #[error("`.gitmodules` is no regular file of UTF-8 text, at most {LONGEST} bytes long")]
    NoText,
    /// A commit in the tree that nothing is said of.
    #[error("`{}` is a submodule, and `.gitmodules` does not say from where", path.display())]
    Unlisted {
        /// Where it is in the tree.
        path: PathBuf,
    },
}

/// What the tree of a held commit, and its `.gitmodules`, say of the submodules at `paths`.
/// Without the mirror's lock.
///
/// # Errors
/// [`Error`]: what cannot be read, or has no entry.
pub fn submodules_unlocked(
    mirror: &Path,
    commit: Revision,
    paths: &[PathBuf],
) -> Result<Vec<Submodule>, Error> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |error| Failure::git("reading the submodules", mirror, error);
    let repository = super::open_read_only(mirror)?;
    let tree = repository.find_commit(oid(commit)).and_then(|commit| commit.tree());
    let tree = tree.map_err(failed)?;
    let urls = urls(&repository, &tree)?;
    let described = paths.iter().map(|path| {
        let url = urls.get(path).ok_or_else(|| Error::Unlisted { path: path.clone() })?;
        let commit = revision(tree.get_path(path).map_err(failed)?.id());
        Ok(Submodule { path: path.clone(), commit, url: url.clone() })
    });
    described.collect()
}

/// The URLs in `.gitmodules`, by path; none if there is no such file.
fn urls(repository: &Repository, tree: &Tree<'_>) -> Result<HashMap<PathBuf, String>, Error> {
    let failed = |error| Failure::git("reading `.gitmodules`", repository.path(), error);
    let Some(entry) = tree.get_name(".gitmodules") else { return Ok(HashMap::new()) };
    if entry.filemode_raw() >> 12 != 0o10 {
        return Err(Error::NoText);
    }
    let objects = repository.odb().map_err(failed)?;
    if objects.read_header(entry.id()).map_err(failed)?.0 > LONGEST {
        return Err(Error::NoText);
    }
    let object = super::objects::read(&objects, entry.id()).map_err(failed)?;
    let text = std::str::from_utf8(object.data()).map_err(|_| Error::NoText)?;
    let entries = gitmodules::parse(text)?.into_iter();
    Ok(entries.filter_map(|entry| Some((entry.path?.into(), entry.url?))).collect())
}

/// Where in an app's mirror the mirror of a submodule is that comes from `source`.
///
/// # Errors
/// Never in practice: libgit2 cannot compute an id.
pub fn of_submodule(app_mirror: &Path, source: &RepoUrl) -> Result<PathBuf, Failure> {
    let name = Oid::hash_object(ObjectType::Blob, source.to_string().as_bytes())
        .map_err(|error| Failure::git("naming a mirror", app_mirror, error))?;
    Ok(app_mirror.join(MODULES).join(format!("{name}.git")))
}

impl Mirror {
    /// Notes that the app's commit `by` needs `commit`, which is here.
    ///
    /// # Errors
    /// [`Failure::Git`], [`Failure::DiskFull`].
    pub fn pin(&self, by: Revision, commit: Revision) -> Result<(), Failure> {
        let name = format!("{PINNED}/{by}/{commit}");
        let written = self.repository.reference(&name, oid(commit), true, "submodule");
        written.map(drop).map_err(|error| Failure::git("recording the fetch", &self.path, error))
    }

    /// Puts the mirrors of the submodules in order: what no commit needs any more that is held
    /// here goes.
    ///
    /// # Errors
    /// As [`Mirror::tidy`].
    pub(super) fn tidy_submodules(&self, effort: &Effort) -> Result<Tidied, Failure> {
        let mut sum = Tidied::default();
        let failed = |error| Failure::git("reading the records", &self.path, error);
        let mirrors = mirrors(&self.path)?;
        if mirrors.is_empty() {
            return Ok(sum);
        }
        let held = housekeeping::at_hand(&self.repository).map_err(failed)?;
        for path in mirrors {
            let mirror = Self::open(&path)?;
            let failed = |error| Failure::git("removing old refs", &path, error);
            let mut needed = false;
            let pins = mirror.repository.references_glob(&format!("{PINNED}/*")).map_err(failed)?;
            for pin in pins {
                let mut pin = pin.map_err(failed)?;
                let by = pin.name().ok().and_then(pinned_by);
                if by.is_some_and(|by| held.contains(&oid(by))) {
                    needed = true;
                } else {
                    pin.delete().map_err(failed)?;
                }
            }
            if needed {
                // What is not worth the effort is what it was.
                let bytes = housekeeping::bytes(&path);
                let same = Tidied { bytes: (bytes, bytes), ..Tidied::default() };
                sum.add(mirror.tidy(effort)?.unwrap_or(same));
            } else {
                let bytes = housekeeping::bytes(&path);
                sum.add(Tidied { bytes: (bytes, 0), ..Tidied::default() });
                repository::remove_tree(&path)?;
            }
        }
        Ok(sum)
    }

    /// Bytes of what is in the mirrors of the submodules.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn bytes_of_submodules(&self) -> Result<u64, Failure> {
        Ok(mirrors(&self.path)?.iter().map(|path| housekeeping::bytes(path)).sum())
    }
}

/// The commit of the app that a ref's name speaks of.
fn pinned_by(name: &str) -> Option<Revision> {
    name.strip_prefix(PINNED)?.split('/').nth(1)?.parse().ok()
}

/// The mirrors of submodules in the mirror of an app.
pub(super) fn mirrors(mirror: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = super::entries(&mirror.join(MODULES))?;
    found.retain(|path| path.extension().is_some_and(|kind| kind == "git"));
    Ok(found)
}

/// Moves the mirrors of submodules to the mirror that replaces that of the app.
pub(super) fn carry_over(from: &Path, to: &Path) -> Result<(), Failure> {
    // What is no directory, a mirror whose place a file has taken among it, has nothing to give.
    if !from.join(MODULES).is_dir() {
        return Ok(());
    }
    fs_err::rename(from.join(MODULES), to.join(MODULES))
        .map_err(|error| Failure::file("carry over", &from.join(MODULES), error))
}
