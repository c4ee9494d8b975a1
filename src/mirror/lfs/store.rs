//! The objects in a mirror, where git-lfs itself would have them: `lfs/objects/ab/cd/<oid>`.
//!
//! | below `lfs/` | what |
//! |---|---|
//! | `objects/ab/cd/<oid>` | an object, complete; checked against its id when it came, and at each checkout |
//! | `incomplete/<oid>` | what came of one before the connection broke off: it is continued |
//! | `commits/<commit>` | the objects that a commit of the mirror needs, a line each |

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::partial::PIECE;
use super::pointer::{Object, ObjectId};
use fs_err::os::unix::fs::OpenOptionsExt;

use crate::domain::Revision;
use crate::files;
use crate::mirror::{Failure, entries};
use crate::process::Interrupt;

/// In a mirror, as in git.
pub(in crate::mirror) const DIRECTORY: &str = "lfs";
const OBJECTS: &str = "objects";
const INCOMPLETE: &str = "incomplete";
const COMMITS: &str = "commits";

/// Where an object is in the mirror, or would be.
pub(in crate::mirror) fn path(mirror: &Path, oid: ObjectId) -> PathBuf {
    let name = oid.to_string();
    let directory = mirror.join(DIRECTORY).join(OBJECTS);
    directory.join(&name[..2]).join(&name[2..4]).join(name)
}

/// Where it is while it comes.
pub(super) fn incomplete(mirror: &Path, oid: ObjectId) -> PathBuf {
    mirror.join(DIRECTORY).join(INCOMPLETE).join(oid.to_string())
}

/// Whether an object is there, as far as its size says.
pub(super) fn holds(mirror: &Path, object: Object) -> bool {
    path(mirror, object.oid)
        .symlink_metadata()
        .is_ok_and(|about| about.is_file() && about.len() == object.size)
}

/// Makes the directory that a file is to be in.
pub(super) fn make_room_for(file: &Path) -> Result<(), Failure> {
    let directory = file.parent().unwrap_or(file);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| Failure::file("make the directory", directory, error))
}

/// Notes which objects a commit needs.
pub(super) fn note(mirror: &Path, commit: Revision, needed: &[Object]) -> Result<(), Failure> {
    let file = mirror.join(DIRECTORY).join(COMMITS).join(commit.to_string());
    let text = needed
        .iter()
        .fold(String::new(), |text, object| text + &format!("{} {}\n", object.oid, object.size));
    if fs_err::read_to_string(&file).is_ok_and(|known| known == text) {
        return Ok(());
    }
    make_room_for(&file)?;
    files::replace(&file, text.as_bytes()).map_err(|error| Failure::file("write", &file, error))
}

/// Takes an object from another mirror, without a second copy. False if it has none, or that
/// cannot be done, as across file systems.
pub(super) fn take(mirror: &Path, lender: &Path, object: Object) -> Result<bool, Failure> {
    if !holds(lender, object) {
        return Ok(false);
    }
    let target = path(mirror, object.oid);
    make_room_for(&target)?;
    match fs_err::hard_link(path(lender, object.oid), &target) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            Err(Failure::file("link", &target, error))
        }
        Err(_) => Ok(false),
    }
}

/// Whether a file is an object, by its SHA-256.
pub(in crate::mirror) fn is_right(
    file: &Path,
    object: Object,
    interrupt: &Interrupt,
) -> Result<bool, Failure> {
    let unread = |error| Failure::file("read", file, error);
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let mut source = match fs_err::OpenOptions::new().read(true).custom_flags(flags).open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened.map_err(unread)?,
    };
    let (mut sum, mut size) = (openssl::sha::Sha256::new(), 0);
    let mut piece = vec![0; PIECE];
    loop {
        if let Some(signal) = interrupt.signal() {
            return Err(Failure::Interrupted(signal));
        }
        let count = source.read(&mut piece).map_err(unread)?;
        if count == 0 {
            return Ok(size == object.size && ObjectId::new(sum.finish()) == object.oid);
        }
        sum.update(&piece[..count]);
        size += count as u64;
    }
}

/// Removes an object: it is not what it should be, or nothing needs it.
pub(super) fn remove(file: &Path) -> Result<(), Failure> {
    match fs_err::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::file("remove", file, error))
        }
        _ => Ok(()),
    }
}

/// Removes what none of the commits needs. What cannot be read as ours stays.
///
/// # Errors
/// [`Failure::File`].
pub(in crate::mirror) fn sweep(
    mirror: &Path,
    needed_by: impl Fn(Revision) -> bool,
) -> Result<(), Failure> {
    let lfs = mirror.join(DIRECTORY);
    if !lfs.is_dir() {
        return Ok(());
    }
    let mut needed = BTreeSet::new();
    for (file, name) in named(&lfs.join(COMMITS))? {
        match name.parse::<Revision>() {
            Ok(commit) if needed_by(commit) => needed.extend(noted(&file)?.into_keys()),
            // Also one that was being written.
            _ => remove(&file)?,
        }
    }
    for (file, oid) in objects(mirror)? {
        if !needed.contains(&oid) {
            remove(&file)?;
        }
    }
    for (file, name) in named(&lfs.join(INCOMPLETE))? {
        if ObjectId::parse(&name).is_none_or(|oid| !needed.contains(&oid)) {
            remove(&file)?;
        }
    }
    Ok(())
}

/// Bytes of all that is there, complete or not.
pub(in crate::mirror) fn bytes(mirror: &Path) -> u64 {
    let files = walkdir::WalkDir::new(mirror.join(DIRECTORY)).into_iter().flatten();
    files
        .filter(|entry| entry.file_type().is_file())
        .filter_map(|entry| entry.metadata().ok())
        .map(|about| about.len())
        .sum()
}

/// Bytes of what came of these so far.
pub(super) fn bytes_begun<'a>(mirror: &Path, of: impl Iterator<Item = &'a Object>) -> u64 {
    let length = |object: &Object| {
        let about = incomplete(mirror, object.oid).symlink_metadata().ok()?;
        Some(about.len().min(object.size))
    };
    of.filter_map(length).sum()
}

/// Moves everything to the mirror that replaces this one.
pub(in crate::mirror) fn carry_over(from: &Path, to: &Path) -> Result<(), Failure> {
    if !from.join(DIRECTORY).is_dir() {
        return Ok(());
    }
    fs_err::rename(from.join(DIRECTORY), to.join(DIRECTORY))
        .map_err(|error| Failure::file("carry over", &from.join(DIRECTORY), error))
}

/// What a commit is noted to need.
fn noted(file: &Path) -> Result<BTreeMap<ObjectId, u64>, Failure> {
    let text = fs_err::read_to_string(file).map_err(|error| Failure::file("read", file, error))?;
    let line = |line: &str| {
        let (oid, size) = line.split_once(' ')?;
        Some((ObjectId::parse(oid)?, size.parse().ok()?))
    };
    Ok(text.lines().filter_map(line).collect())
}

fn objects(mirror: &Path) -> Result<Vec<(PathBuf, ObjectId)>, Failure> {
    let mut found = Vec::new();
    for first in entries(&mirror.join(DIRECTORY).join(OBJECTS))? {
        for second in entries(&first)? {
            let files = named(&second)?.into_iter();
            found.extend(files.filter_map(|(path, name)| Some((path, ObjectId::parse(&name)?))));
        }
    }
    Ok(found)
}

/// The files in a directory with their names; none if it is not there.
fn named(directory: &Path) -> Result<Vec<(PathBuf, String)>, Failure> {
    let failed = |error| Failure::file("read", directory, error);
    let entries = match fs_err::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().is_ok_and(|kind| kind.is_file())
            && let Ok(name) = entry.file_name().into_string()
        {
            found.push((entry.path(), name));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(content: &[u8]) -> Object {
        let oid = ObjectId::new(openssl::sha::sha256(content));
        Object { oid, size: content.len() as u64 }
    }

    #[test]
    fn what_no_commit_needs_goes_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (mirror, other) = (dir.path().join("a.git"), dir.path().join("b.git"));
        let [one, two, three] = [object(b"one"), object(b"two!"), object(b"three")];
        for (object, content) in [(one, "one"), (two, "two!")] {
            let file = path(&mirror, object.oid);
            make_room_for(&file).unwrap();
            fs_err::write(&file, content).unwrap();
        }
        let begun = incomplete(&mirror, three.oid);
        make_room_for(&begun).unwrap();
        fs_err::write(&begun, "th").unwrap();
        let commits = [1, 2, 3].map(|n| Revision::from_bytes([n; 20]));
        note(&mirror, commits[0], &[one]).unwrap();
        note(&mirror, commits[1], &[one, two]).unwrap();
        note(&mirror, commits[2], &[three]).unwrap();
        assert!(holds(&mirror, one) && !holds(&mirror, three));
        assert!(!holds(&mirror, Object { size: 4, ..one }));
        assert_eq!(bytes_begun(&mirror, [one, three].iter()), 2);
        assert!(take(&other, &mirror, one).unwrap() && !take(&other, &mirror, three).unwrap());

        sweep(&mirror, |commit| commit != commits[1]).unwrap();
        assert!(holds(&mirror, one) && !holds(&mirror, two) && begun.exists());
        sweep(&mirror, |_| false).unwrap();
        assert!(!holds(&mirror, one) && !begun.exists());
        assert_eq!(bytes(&mirror), 0);
        assert!(holds(&other, one), "shared, and still there");
        sweep(&dir.path().join("none.git"), |_| false).unwrap();
    }
}
