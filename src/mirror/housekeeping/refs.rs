//! Which refs expire, and the history's in one file.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::path::Path;

use git2::{Oid, Repository};

use super::file;
use crate::domain::Revision;
use crate::mirror::repository::FETCHED;
use crate::mirror::submodules::PINNED;
use crate::mirror::{Failure, share};

const RECORDS: [&str; 3] =
    ["refs/multideployer/deployed", "refs/multideployer/previous", "refs/multideployer/attempted"];
const HISTORY: &str = "refs/multideployer/history";
const PACKED: &str = "packed-refs";

/// How much of what is not needed now stays for later.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    /// Runs whose record, and whose commit, stays.
    runs: usize,
    /// How many commits, those of the last runs, need no fetch to be deployed again.
    runs_at_hand: usize,
    /// Commits that are at hand because they came last: perhaps for a run that is still to
    /// come.
    fetched_last: usize,
}

/// The first is for every mirror; the others, one after the other, for one that is too large.
pub(super) const KEEP: [Keep; 3] = [
    Keep { runs: 50, runs_at_hand: 5, fetched_last: 3 },
    Keep { runs: 10, runs_at_hand: 1, fetched_last: 1 },
    Keep { runs: 0, runs_at_hand: 0, fetched_last: 0 },
];

/// The commits that are here without their history's help: those of the records, and what was
/// fetched and has not expired.
pub(in crate::mirror) fn at_hand(repository: &Repository) -> Result<HashSet<Oid>, git2::Error> {
    let target = |name: &&str| repository.find_reference(name).ok()?.target();
    let mut found: HashSet<Oid> = RECORDS.iter().filter_map(target).collect();
    found.extend(targets(repository, FETCHED)?);
    Ok(found)
}

/// The commits that are [`at_hand`] if no more than this is kept, and these are `wanted`.
pub(super) fn kept(
    repository: &Repository,
    keep: Keep,
    wanted: &[Revision],
) -> Result<HashSet<Oid>, Failure> {
    let git = |error| Failure::git("looking for old refs", repository.path(), error);
    let expired: HashSet<String> = expired(repository, keep, wanted)?.into_iter().collect();
    let target = |name: &&str| repository.find_reference(name).ok()?.target();
    let mut found: HashSet<Oid> = RECORDS.iter().filter_map(target).collect();
    for reference in repository.references_glob(&format!("{FETCHED}/*")).map_err(git)? {
        let reference = reference.map_err(git)?;
        if reference.name().is_ok_and(|name| !expired.contains(name)) {
            found.extend(reference.target());
        }
    }
    Ok(found)
}

/// What the refs in a place point to.
fn targets(repository: &Repository, place: &str) -> Result<Vec<Oid>, git2::Error> {
    let refs = repository.references_glob(&format!("{place}/*"))?;
    refs.filter_map(|found| found.map(|found| found.target()).transpose()).collect()
}

/// The refs that nothing needs. The newest run of each of `deployed`, `previous` and
/// `attempted` stays, and so do the commits that are `wanted`.
pub(super) fn expired(
    repository: &Repository,
    keep: Keep,
    wanted: &[Revision],
) -> Result<Vec<String>, Failure> {
    let git = |error| Failure::git("looking for old refs", repository.path(), error);
    let target = |name: &str| repository.find_reference(name).ok()?.target();
    let commit = |run: &str| Some(repository.find_tag(target(run)?).ok()?.target_id());
    let records: HashSet<Oid> = RECORDS.iter().filter_map(|name| target(name)).collect();
    // Runs are named by their time.
    let mut runs = Vec::new();
    for reference in repository.references_glob(&format!("{HISTORY}/*")).map_err(git)? {
        let reference = reference.map_err(git)?;
        if let Ok(name) = reference.name() {
            runs.push(name.to_owned());
        }
    }
    runs.sort_unstable_by(|a, b| b.cmp(a));
    let mut at_hand = records.clone();
    // Commits, not runs: who goes back step by step, run by run, does not lose the next step.
    let mut last_runs = HashSet::new();
    for run in &runs {
        if last_runs.len() == keep.runs_at_hand {
            break;
        }
        last_runs.extend(commit(run));
    }
    at_hand.extend(last_runs);
    at_hand.extend(targets(repository, PINNED).map_err(git)?);
    let mut last = share::fetched(repository.path());
    last.sort_unstable_by(|a, b| b.cmp(a));
    let last: HashSet<Revision> =
        last.into_iter().take(keep.fetched_last).map(|(_, revision)| revision).collect();
    let mut unnamed = records;
    let mut expired = Vec::new();
    for (number, run) in runs.into_iter().enumerate() {
        let newest_of_record = commit(&run).is_some_and(|commit| unnamed.remove(&commit));
        if number >= keep.runs && !newest_of_record {
            expired.push(run);
        }
    }
    for reference in repository.references_glob(&format!("{FETCHED}/*")).map_err(git)? {
        let reference = reference.map_err(git)?;
        let Ok(name) = reference.name() else { continue };
        let id = name.rsplit('/').next().and_then(|id| id.parse::<Revision>().ok());
        let stays = id.is_some_and(|id| last.contains(&id) || wanted.contains(&id))
            || reference.target().is_some_and(|target| at_hand.contains(&target));
        if !stays {
            expired.push(name.to_owned());
        }
    }
    Ok(expired)
}

/// Removes the refs that nothing needs, durably; says how many.
pub(super) fn expire(
    repository: &Repository,
    keep: Keep,
    wanted: &[Revision],
) -> Result<usize, Failure> {
    let git = |error| Failure::git("removing old refs", repository.path(), error);
    let expired = expired(repository, keep, wanted)?;
    for name in &expired {
        repository.find_reference(name).and_then(|mut found| found.delete()).map_err(git)?;
    }
    // Before what they needed goes.
    if !expired.is_empty() {
        for directory in [FETCHED, HISTORY] {
            sync(&repository.path().join(directory))?;
        }
    }
    Ok(expired.len())
}

/// How many refs of the history are files of their own.
pub(super) fn loose_history(mirror: &Path) -> usize {
    fs_err::read_dir(mirror.join(HISTORY)).map_or(0, Iterator::count)
}

/// Puts the refs of the history into git's one file for many refs. The others stay files:
/// they are read without libgit2, and are few.
pub(super) fn pack_history(repository: &Repository) -> Result<(), Failure> {
    let directory = repository.path().join(HISTORY);
    let mut loose = Vec::new();
    for entry in fs_err::read_dir(&directory).into_iter().flatten().flatten() {
        let id = fs_err::read_to_string(entry.path()).unwrap_or_default();
        if let (Ok(id), Ok(run)) = (Oid::from_str(id.trim_end()), entry.file_name().into_string()) {
            loose.push((format!("{HISTORY}/{run}"), id, entry.path()));
        }
    }
    if loose.is_empty() {
        return Ok(());
    }
    let path = repository.path().join(PACKED);
    let old = match fs_err::read_to_string(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Failure::file("read", &path, error));
        }
        old => old.unwrap_or_default(),
    };
    let mut refs: BTreeMap<String, Oid> = old
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(id, name)| Some((name.to_owned(), Oid::from_str(id).ok()?)))
        .collect();
    refs.extend(loose.iter().map(|(name, id, _)| (name.clone(), *id)));
    let mut text = "# pack-refs with: sorted \n".to_owned();
    for (name, id) in &refs {
        text += &format!("{id} {name}\n");
    }
    let temporary = repository.path().join("packed-refs.lock");
    let write = || {
        let mut file = fs_err::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs_err::rename(&temporary, &path)?;
        fs_err::File::open(repository.path())?.sync_all()
    };
    write().inspect_err(|_| drop(fs_err::remove_file(&temporary))).map_err(file("write", &path))?;
    for (_, _, loose) in &loose {
        fs_err::remove_file(loose).map_err(file("remove", loose))?;
    }
    // Not synced: one that came back would say the same.
    Ok(())
}

fn sync(directory: &Path) -> Result<(), Failure> {
    match fs_err::File::open(directory).and_then(|open| open.sync_all()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::file("sync", directory, error))
        }
        _ => Ok(()),
    }
}
