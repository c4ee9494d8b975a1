//! Several apps from one repository: what one mirror fetched, the others take from it by
//! hard links, without network and without a second copy on the disk.
//!
//! Each mirror stays complete by itself: it may be deleted without harm to the others. The
//! other mirror is not locked for it, so nobody ever waits for two locks: its packs never
//! change, they only come and go, and what was linked counts only once all that the commit
//! needs has been found in it. Apps with one source have one credential (it depends on the
//! source alone), so nobody gets what he could not have fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use git2::Repository;

use super::repository::{self, FETCHED, oid};
use super::submodules::MODULES;
use super::{Failure, lfs};
use crate::domain::Revision;
use crate::sync::lock;

/// Whose turn it is to fetch, so that what several apps need is fetched once.
#[derive(Debug, Default)]
pub struct Turns(Mutex<BTreeMap<Matter, Arc<Mutex<()>>>>);

/// One revision of a source, or all of it.
type Matter = (String, Option<Revision>);

impl Turns {
    /// Does `work`, which makes `revision` of `source` be here, when nobody else does so.
    /// With `empty`, when the mirror has nothing yet, it waits for any other such mirror of
    /// this source: with what that one got, only the difference is left to fetch.
    pub fn take<T>(
        &self,
        source: &str,
        revision: Revision,
        empty: bool,
        work: impl FnOnce() -> T,
    ) -> T {
        // Always the whole source before the one revision: nobody waits in a circle.
        let whole = empty.then(|| self.turn(source, None));
        let _whole = whole.as_ref().map(|turn| lock(turn));
        let one = self.turn(source, Some(revision));
        let _one = lock(&one);
        work()
    }

    fn turn(&self, source: &str, revision: Option<Revision>) -> Arc<Mutex<()>> {
        let mut turns = lock(&self.0);
        Arc::clone(turns.entry((source.to_owned(), revision)).or_default())
    }
}

/// A mirror that something can be taken from.
#[derive(Debug)]
pub(super) struct Lender {
    pub path: PathBuf,
    /// What is to be taken.
    pub holds: Revision,
}

/// The other mirrors of `source`: first those that hold `revision`; with `empty` also the
/// one that fetched anything last.
pub(super) fn lenders(
    mirrors: &Path,
    own: &Path,
    source: &str,
    revision: Revision,
    empty: bool,
) -> Vec<Lender> {
    let mut with_it = Vec::new();
    let mut with_other: Option<(SystemTime, Lender)> = None;
    for path in all(mirrors) {
        if path == own || path.extension().is_none_or(|kind| kind != "git") {
            continue;
        }
        let has_it = path.join(FETCHED).join(revision.to_string()).exists();
        let newest = if has_it || !empty { None } else { fetched(&path).into_iter().max() };
        if (has_it || newest.is_some()) && is_mirror_of(&path, source) {
            match newest {
                None => with_it.push(Lender { path, holds: revision }),
                Some((time, holds)) => {
                    if with_other.as_ref().is_none_or(|(best, _)| *best < time) {
                        with_other = Some((time, Lender { path, holds }));
                    }
                }
            }
        }
    }
    with_it.extend(with_other.map(|(_, lender)| lender));
    with_it
}

/// The other mirrors of `source` that have objects of Git LFS.
pub(super) fn with_lfs(mirrors: &Path, own: &Path, source: &str) -> Vec<PathBuf> {
    let mut found = all(mirrors);
    found.retain(|path| {
        path != own && path.join(lfs::DIRECTORY).is_dir() && is_mirror_of(path, source)
    });
    found
}

/// The mirrors in a directory, and those of their submodules.
fn all(mirrors: &Path) -> Vec<PathBuf> {
    let paths = |directory: &Path| -> Vec<PathBuf> {
        let entries = fs_err::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let mut found = paths(mirrors);
    let modules: Vec<_> = found.iter().flat_map(|mirror| paths(&mirror.join(MODULES))).collect();
    found.extend(modules);
    found
}

/// The ids that a mirror's refs say are here, and since when. Read as files: the mirror may
/// be somebody else's just now.
pub(super) fn fetched(mirror: &Path) -> Vec<(SystemTime, Revision)> {
    fs_err::read_dir(mirror.join(FETCHED))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            Some((entry.metadata().ok()?.modified().ok()?, id))
        })
        .collect()
}

fn is_mirror_of(path: &Path, source: &str) -> bool {
    Repository::open(path)
        .is_ok_and(|other| repository::source(&other).is_some_and(|of| of == source))
}

/// Links the packs of `lender` into the repository. False if that cannot be done, as across
/// file systems.
pub(super) fn take_packs(to: &Repository, lender: &Path) -> Result<bool, Failure> {
    // Before the packs: the list only ever shrinks when parents have come, in a pack that
    // was there before it shrank.
    let Ok(theirs) = Repository::open(lender) else { return Ok(false) };
    let Ok(boundary) = repository::shallow(&theirs) else { return Ok(false) };
    let from = lender.join("objects/pack");
    let into = to.path().join("objects/pack");
    for entry in fs_err::read_dir(&from).into_iter().flatten().flatten() {
        let index = entry.path();
        if index.extension().is_none_or(|kind| kind != "idx") {
            continue;
        }
        let pack = index.with_extension("pack");
        // The index last: a pack counts once that is there.
        for file in [&pack, &index] {
            let target = into.join(file.file_name().unwrap_or_default());
            match fs_err::hard_link(file, &target) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // It has just been put together with others there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    return Err(Failure::file("link", &target, error));
                }
                Err(_) => return Ok(false),
            }
        }
    }
    fs_err::File::open(&into)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| Failure::file("sync", &into, error))?;
    let objects = to.odb().map_err(|error| Failure::git("reading", to.path(), error))?;
    objects.refresh().map_err(|error| Failure::git("reading", to.path(), error))?;
    let mut list: BTreeSet<_> = repository::shallow(to)?.into_iter().collect();
    let known = list.len();
    list.extend(boundary.into_iter().filter(|id| objects.exists(oid(*id))));
    if list.len() > known {
        repository::set_shallow(to, &list.into_iter().collect::<Vec<_>>())?;
    }
    Ok(true)
}
