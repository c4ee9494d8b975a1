//! The mirror as a directory: made, locked, swept, and made anew when it is damaged.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt;
use git2::{ObjectType, Oid, Repository, RepositoryInitOptions};
use nix::fcntl::{Flock, FlockArg};

use super::{Failure, housekeeping, lfs, library, objects, packed, spill, submodules};
use crate::domain::Revision;
use crate::files;

/// Where the ledger's refs and ours are.
const REFS: &str = "refs/multideployer";
/// The commits that are here completely.
pub(super) const FETCHED: &str = "refs/multideployer/fetched";
const HISTORY: &str = "refs/multideployer/history";
const LOCK: &str = "multideployer.lock";
/// What is added to a mirror's name while it is made anew, to the old one's, and to that of one
/// that is removed.
const REBUILD: &str = "rebuild";
const OLD: &str = "old";
const REMOVED: &str = "removed";

/// An exclusive lock on a mirror.
pub(super) type Lock = Flock<std::fs::File>;

/// Opens or makes the repository at `path` and locks it.
pub(super) fn open(path: &Path) -> Result<(Lock, Repository), Failure> {
    library::prepare();
    finish_rebuild(path)?;
    spill::keep_in(path.parent().unwrap_or(path));
    if path.is_file() {
        return rebuild(path, None);
    }
    make_directory(path)?;
    let lock = lock(path)?;
    if is_empty(path) {
        let repository = make(path)?;
        return Ok((lock, repository));
    }
    sweep(path)?;
    if !is_sound(path) {
        return rebuild(path, None);
    }
    match Repository::open(path) {
        Ok(repository) => Ok((lock, repository)),
        Err(error) => match Failure::git("opening the mirror", path, error) {
            // Nothing but the ledger's refs is worth keeping of it.
            Failure::Damaged { .. } => rebuild(path, None),
            other @ Failure::Git { .. } if unreadable(&other) => rebuild(path, None),
            other => Err(other),
        },
    }
}

/// Whether nothing but the lock is here yet.
fn is_empty(path: &Path) -> bool {
    fs_err::read_dir(path).is_ok_and(|mut entries| {
        entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK))
    })
}

/// Whether the small files and the directories of a mirror are what they should be. libgit2
/// finds some of what is wrong with them only when it is too late to make the mirror anew.
fn is_sound(path: &Path) -> bool {
    let text = |name: &str| files::read(&path.join(name));
    let none_or = |name: &str, right: &dyn Fn(&[u8]) -> bool| match text(name) {
        Ok(text) => right(&text),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    let is_directory = |name: &str| path.join(name).is_dir();
    let none_or_directory = |name: &str| is_directory(name) || !path.join(name).exists();
    let is_id = |text: &[u8]| {
        std::str::from_utf8(text).is_ok_and(|text| text.trim_end().parse::<Revision>().is_ok())
    };
    let lines_are_ids =
        |text: &[u8]| text.split(|byte| *byte == b'\n').all(|line| line.is_empty() || is_id(line));
    text("HEAD").is_ok_and(|head| head.starts_with(b"ref: refs/") || is_id(&head))
        && path.join("config").is_file()
        // libgit2 never looks for packs again where it found no place for them.
        && is_directory("objects/pack")
        && is_directory("refs")
        && [REFS, FETCHED, HISTORY].into_iter().all(none_or_directory)
        && none_or("shallow", &lines_are_ids)
        && none_or("packed-refs", &|text| packed::refs(text).is_some())
}

/// Removes what killed runs left behind in and beside the mirror at `path`, if there is one.
pub(super) fn clear(path: &Path) -> Result<(), Failure> {
    finish_rebuild(path)?;
    if path.is_dir() {
        let _lock = lock(path)?;
        sweep(path)?;
        return housekeeping::sweep(path);
    }
    // Made anew, and killed before anything was put in its place.
    remove_tree(&sibling(path, REBUILD))
}

/// Whether a mirror cannot be opened because of what its own small files hold.
fn unreadable(failure: &Failure) -> bool {
    let Failure::Git { source, .. } = failure else { return false };
    source.code() != git2::ErrorCode::Owner
        && matches!(
            source.class(),
            git2::ErrorClass::Config | git2::ErrorClass::Repository | git2::ErrorClass::Reference
        )
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Failure::file("make the directory", path, error))
}

fn lock(path: &Path) -> Result<Lock, Failure> {
    let file_path = path.join(LOCK);
    let failed = |error: io::Error| Failure::file("open the lock", &file_path, error);
    loop {
        let file = fs_err::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            // A pipe in its place would keep us waiting.
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(&file_path)
            .map_err(failed)?;
        let lock = match Flock::lock(file.into_parts().0, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                return Err(Failure::Locked { path: path.to_owned() });
            }
            Err((_, error)) => return Err(failed(error.into())),
        };
        // Another process may have put a new mirror here in between.
        let same = match (lock.metadata(), fs_err::metadata(&file_path)) {
            (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
            _ => false,
        };
        if same {
            return Ok(lock);
        }
    }
}

fn make(path: &Path) -> Result<Repository, Failure> {
    let failed = |error| Failure::git("making the mirror", path, error);
    let mut options = RepositoryInitOptions::new();
    options
        .bare(true)
        .external_template(false)
        .mkdir(false)
        .mode(git2::RepositoryInitMode::from_bits_retain(0o700));
    let repository = Repository::init_opts(path, &options).map_err(failed)?;
    // For people who begin to work in it.
    for name in ["description", "hooks/README.sample", "info/exclude"] {
        let _ = fs_err::remove_file(path.join(name));
    }
    let mut config = repository.config().map_err(failed)?;
    // What was deployed when is in the history's tags; a reflog would go on naming commits
    // that are gone.
    config.set_bool("core.logAllRefUpdates", false).map_err(failed)?;
    config.set_bool("core.protectHFS", true).map_err(failed)?;
    config.set_bool("core.protectNTFS", true).map_err(failed)?;
    // A `git gc` by hand is safe; one that starts by itself is not wanted here.
    config.set_i32("gc.auto", 0).map_err(failed)?;
    Ok(repository)
}

/// Removes what killed runs left behind. The lock is held, so nobody is still using it.
fn sweep(path: &Path) -> Result<(), Failure> {
    for leftover in [REBUILD, OLD] {
        remove_tree(&sibling(path, leftover))?;
    }
    let failed = |at: &Path, error| Failure::file("remove the leftover", at, error);
    let mut leftovers = Vec::new();
    let mut look = |directory: PathBuf, depth: usize, is: &dyn Fn(&str) -> bool| {
        for entry in walkdir::WalkDir::new(directory).max_depth(depth).into_iter().flatten() {
            let name = entry.file_name().to_string_lossy();
            if entry.file_type().is_file() && is(&name) {
                leftovers.push(entry.into_path());
            }
        }
    };
    let lock = |name: &str| {
        Path::new(name).extension().is_some_and(|extension| extension == "lock") && name != LOCK
    };
    look(path.to_owned(), 1, &|name| lock(name) || name.starts_with("shallow."));
    look(path.join("refs"), usize::MAX, &lock);
    look(path.join("logs"), usize::MAX, &lock);
    look(path.join("objects/info"), 1, &lock);
    look(path.join("objects/pack"), 1, &|name| {
        lock(name) || name.starts_with("pack_git2_") || name.starts_with("tmp_")
    });
    // Loose objects are few here: the history's tags.
    look(path.join("objects"), 2, &|name| {
        name.starts_with("tmp_") || name.starts_with("streamed_git2_")
    });
    for leftover in leftovers {
        match fs_err::remove_file(&leftover) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&leftover, error));
            }
            _ => {}
        }
    }
    // A loose ref of ours that holds nothing (a crash on a disk that lies) says nothing.
    let fetched = path.join(FETCHED);
    for entry in walkdir::WalkDir::new(fetched).max_depth(1).into_iter().flatten() {
        if entry.file_type().is_file()
            && fs_err::read_to_string(entry.path())
                .map_or(true, |text| text.trim_end().parse::<Revision>().is_err())
        {
            fs_err::remove_file(entry.path()).map_err(|error| failed(entry.path(), error))?;
        }
    }
    Ok(())
}

/// Makes the repository at `path` anew, for `source`, with the ledger's refs and the tags of
/// its history.
///
/// The new one is made beside the old one and put in its place when it is complete.
pub(super) fn rebuild(path: &Path, source: Option<&str>) -> Result<(Lock, Repository), Failure> {
    let beside = sibling(path, REBUILD);
    let old = sibling(path, OLD);
    for leftover in [&beside, &old] {
        remove_tree(leftover)?;
    }
    make_directory(&beside)?;
    let lock = lock(&beside)?;
    let repository = make(&beside)?;
    if let Some(source) = source {
        set_source(&repository, source)?;
    }
    carry_over(path, &repository)?;
    submodules::carry_over(path, &beside)?;
    lfs::carry_over(path, &beside)?;
    drop(repository);
    let failed = |error| Failure::file("replace the mirror", path, error);
    sync(&beside).map_err(failed)?;
    fs_err::rename(path, &old).map_err(failed)?;
    fs_err::rename(&beside, path).map_err(failed)?;
    sync(path.parent().unwrap_or(path)).map_err(failed)?;
    remove_tree(&old)?;
    let repository =
        Repository::open(path).map_err(|error| Failure::git("opening the mirror", path, error))?;
    Ok((lock, repository))
}

/// After a crash between the two renames the new mirror is complete and only misnamed.
fn finish_rebuild(path: &Path) -> Result<(), Failure> {
    let beside = sibling(path, REBUILD);
    if !path.exists() && sibling(path, OLD).exists() && beside.join("HEAD").exists() {
        let moved = fs_err::rename(&beside, path);
        moved.map_err(|error| Failure::file("replace the mirror", path, error))?;
    }
    Ok(())
}

/// Removes the repository at `path`: by its name first, so that a crash leaves it complete or
/// a leftover.
pub(super) fn remove(path: &Path) -> Result<(), Failure> {
    let aside = sibling(path, REMOVED);
    remove_tree(&aside)?;
    let failed = |error| Failure::file("remove", path, error);
    fs_err::rename(path, &aside).map_err(failed)?;
    sync(path.parent().unwrap_or(path)).map_err(failed)?;
    remove_tree(&aside)
}

/// What killed runs left beside the mirrors below `mirrors`, where nothing is to be saved any
/// more: mirrors that were removed, and old or unfinished ones of which there is a new one.
///
/// # Errors
/// The directory is there and cannot be read.
pub fn leftovers(mirrors: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs_err::read_dir(mirrors) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let Some(kind) = path.extension().and_then(|kind| kind.to_str()) else { continue };
        let of = path.with_extension("");
        let is_mirror = of.extension().is_some_and(|kind| kind == "git");
        let lost = kind == REMOVED || ([REBUILD, OLD].contains(&kind) && of.exists());
        if is_mirror && lost && !path.is_symlink() && path.is_dir() {
            found.push(path);
        }
    }
    Ok(found)
}

fn sibling(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    PathBuf::from(name)
}

/// Gives the directories of a tree back to their owner, as far as that is us.
fn open_up(path: &Path) {
    // Each is opened up before what is in it is looked for.
    let mut open = vec![path.to_owned()];
    while let Some(directory) = open.pop() {
        // What does not work is said when it cannot be removed.
        let _ = fs_err::set_permissions(&directory, std::fs::Permissions::from_mode(0o700));
        let entries = fs_err::read_dir(&directory).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        open.extend(below.map(|entry| entry.path()));
    }
}

pub(super) fn remove_tree(path: &Path) -> Result<(), Failure> {
    let removed = match path.symlink_metadata() {
        Ok(about) if about.is_dir() => match fs_err::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                open_up(path);
                fs_err::remove_dir_all(path)
            }
            removed => removed,
        },
        Ok(_) => fs_err::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::file("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Syncs the file system that `path` is on.
fn sync(path: &Path) -> io::Result<()> {
    let directory = fs_err::File::open(path)?;
    nix::unistd::syncfs(directory).map_err(io::Error::from)
}

/// Copies the ledger's refs and the tag objects they point to. Refs to commits become files
/// with the commit's id even though the commit is not here: they are records, and the commit
/// may be fetched again.
fn carry_over(from: &Path, to: &Repository) -> Result<(), Failure> {
    let failed = |error| Failure::git("carrying over the records", from, error);
    let store = git2::Odb::new().and_then(|odb| {
        odb.add_disk_alternate(&from.join("objects").to_string_lossy())?;
        Ok(odb)
    });
    let into = to.odb().map_err(failed)?;
    for (name, id) in ledger_refs(from) {
        let object = store.as_ref().ok().and_then(|odb| objects::read(odb, id).ok());
        if let Some(tag) = object.filter(|object| object.kind() == ObjectType::Tag) {
            into.write(ObjectType::Tag, tag.data()).map_err(failed)?;
        }
        let file = to.path().join(&name);
        let directory = file.parent().unwrap_or(&file);
        make_directory(directory)?;
        let written = fs_err::File::create(&file).and_then(|mut file| writeln!(file, "{id}"));
        written.map_err(|error| Failure::file("write the ref", &file, error))?;
    }
    Ok(())
}

/// All refs of the ledger, read without libgit2, which refuses damaged ones.
fn ledger_refs(path: &Path) -> BTreeMap<String, Oid> {
    let ours = |name: &str| {
        let rest = name.strip_prefix(REFS).and_then(|rest| rest.strip_prefix('/'));
        rest.is_some_and(|rest| {
            matches!(rest, "deployed" | "attempted" | "previous") || rest.starts_with("history/")
        }) && git2::Reference::is_valid_name(name)
    };
    let mut refs = BTreeMap::new();
    let text = files::read(&path.join("packed-refs")).unwrap_or_default();
    // What can be read of it, if it is damaged.
    let lines =
        text.split(|byte| *byte == b'\n').filter_map(|line| packed::line(line).ok().flatten());
    for (id, name) in lines.filter(|(_, name)| ours(name)) {
        refs.insert(name.to_owned(), oid(id));
    }
    for entry in walkdir::WalkDir::new(path.join(REFS)).into_iter().flatten() {
        let name = entry.path().strip_prefix(path).ok().and_then(Path::to_str);
        let Some(name) = name.filter(|name| entry.file_type().is_file() && ours(name)) else {
            continue;
        };
        let text = fs_err::read_to_string(entry.path()).unwrap_or_default();
        if let Ok(id) = text.trim_end().parse::<Revision>() {
            refs.insert(name.to_owned(), oid(id));
        }
    }
    refs
}

/// A revision as libgit2 has it.
pub(crate) fn oid(revision: Revision) -> Oid {
    // 20 bytes are always an id.
    Oid::from_bytes(revision.bytes()).unwrap_or(Oid::ZERO_SHA1)
}

/// An id of libgit2 as a revision.
pub(super) fn revision(id: Oid) -> Revision {
    let mut bytes = [0; 20];
    bytes.copy_from_slice(&id.as_bytes()[..20]);
    Revision::from_bytes(bytes)
}

const SOURCE: &str = "multideployer.source";

/// The source whose commits a mirror holds.
pub(super) fn source(repository: &Repository) -> Option<String> {
    repository.config().ok()?.get_string(SOURCE).ok()
}

/// Remembers the source.
pub(super) fn set_source(repository: &Repository, source: &str) -> Result<(), Failure> {
    let set = repository.config().and_then(|mut config| config.set_str(SOURCE, source));
    set.map_err(|error| Failure::git("remembering the source", repository.path(), error))
}

/// The commits whose parents are not here.
pub(super) fn shallow(repository: &Repository) -> Result<Vec<Revision>, Failure> {
    let path = repository.path().join("shallow");
    match fs_err::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Failure::file("read", &path, error)),
    }
}

/// Replaces the list of commits whose parents are not here: complete or as it was.
pub(super) fn set_shallow(repository: &Repository, list: &[Revision]) -> Result<(), Failure> {
    let path = repository.path().join("shallow");
    let written = if list.is_empty() {
        files::remove_durably(&path)
    } else {
        let text = list.iter().fold(String::new(), |text, id| text + &format!("{id}\n"));
        files::replace(&path, text.as_bytes())
    };
    written.map_err(|error| Failure::file("write", &path, error))
}
