//! Files that are there completely or not at all.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt;

/// What ends the name of a file that is being written.
const UNFINISHED: &str = ".tmp";

/// Writes a file so that it is there completely or as it was before, whatever happens:
/// another name, sync, rename, sync of the directory. Mode 0600, whatever the umask.
///
/// Only one process at a time may write the same file: a killed one's leftover is written over.
///
/// # Errors
/// Any of the steps; the error names the file.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_with(path, content, 0o600)
}

/// The same for a file that everybody may read.
///
/// # Errors
/// As [`replace`].
pub fn publish(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_with(path, content, 0o644)
}

fn replace_with(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let unfinished = unfinished(path);
    let write = || {
        // Not followed if it is a link, and not kept if it is somebody else's.
        remove(&unfinished)?;
        let mut options = fs_err::OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        let mut file = options.open(&unfinished)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs_err::rename(&unfinished, path)?;
        sync_parent(path)
    };
    let written = write();
    if written.is_err() {
        let _ = fs_err::remove_file(&unfinished);
    }
    written
}

/// Reads a file of ours. What is none does not keep anybody waiting: a pipe would, for ever.
///
/// # Errors
/// It is not there, cannot be read, or is no regular file.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file =
        fs_err::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        let text = format!("`{}` is no regular file", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok(content)
}

/// Removes a file, durably. One that is not there is removed already.
///
/// # Errors
/// It is there and stays.
pub fn remove_durably(path: &Path) -> io::Result<()> {
    if remove(path)? { sync_parent(path) } else { Ok(()) }
}

/// Syncs the file systems that these paths are on, each once. Of a path that is no directory,
/// the nearest one above it counts.
///
/// # Errors
/// What was written to one of them may not be there: the error names the path.
pub fn sync_file_systems<'p>(paths: impl IntoIterator<Item = &'p Path>) -> io::Result<()> {
    let mut synced = HashSet::new();
    for path in paths {
        let there = path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        let directory = fs_err::File::open(there)?;
        if synced.insert(directory.metadata()?.dev()) {
            nix::unistd::syncfs(&directory).map_err(|error| {
                let error = io::Error::from(error);
                io::Error::new(error.kind(), format!("{}: {error}", there.display()))
            })?;
        }
    }
    Ok(())
}

/// Why another user than root or us could change what is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    /// The path itself, or a directory above it.
    pub path: PathBuf,
    /// What is wrong with it: "belongs to user 1000", "everybody can write to it".
    pub why: String,
    /// What mends it.
    pub remedy: String,
}

/// Whether another user could change the file or directory at `path`, or put another one in
/// its place; as sshd looks at `authorized_keys`, all directories above it included, those that
/// symbolic links lead through too.
///
/// # Errors
/// It, or a directory above it, cannot be looked at.
pub fn exposed(path: &Path) -> io::Result<Option<Exposed>> {
    let given = std::path::absolute(path)?;
    let real = fs_err::canonicalize(&given)?;
    let us = nix::unistd::geteuid().as_raw();
    let group = nix::unistd::getegid().as_raw();
    let mut seen = HashSet::new();
    for place in real.ancestors().chain(given.ancestors()) {
        if !seen.insert(place) {
            continue;
        }
        let about = fs_err::symlink_metadata(place)?;
        let shown = place.display();
        let exposed =
            |why: String, remedy: String| Ok(Some(Exposed { path: place.to_owned(), why, remedy }));
        if about.uid() != 0 && about.uid() != us {
            let why = format!("belongs to user {}", about.uid());
            return exposed(why, format!("chown root {shown}"));
        }
        // A link's own mode says nothing, and in a sticky directory nobody can replace what
        // belongs to another.
        let sticky = about.is_dir() && about.mode() & 0o1000 != 0;
        if about.is_symlink() || sticky {
            continue;
        }
        if about.mode() & 0o002 != 0 {
            return exposed("everybody can write to it".into(), format!("chmod o-w {shown}"));
        }
        if about.mode() & 0o020 != 0 && about.gid() != 0 && about.gid() != group {
            let why = format!("group {} can write to it", about.gid());
            return exposed(why, format!("chmod g-w {shown}"));
        }
    }
    Ok(None)
}

/// The name that [`replace`] writes a file under before it is complete.
pub fn unfinished(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(UNFINISHED);
    name.into()
}

/// Whether there was something to remove.
fn remove(path: &Path) -> io::Result<bool> {
    match fs_err::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs_err::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_a_killed_writers_leftover_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let other = dir.path().join("other");
        fs_err::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, unfinished(&path)).unwrap();
        for text in ["one", "two"] {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(fs_err::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs_err::read_to_string(&other).unwrap(), "precious");
        assert!(!unfinished(&path).exists());
        remove_durably(&path).unwrap();
        remove_durably(&path).unwrap();
        assert!(!path.exists());
        let error = replace(&dir.path().join("no/where"), b"").unwrap_err();
        assert!(error.to_string().contains("no/where"), "{error}");
    }

    #[test]
    fn what_is_not_there_is_synced_with_what_is_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs_err::write(&file, "x").unwrap();
        let proc = Path::new("/proc/self");
        sync_file_systems([&file, &file.join("below"), &dir.path().join("no/where"), proc])
            .unwrap();
        sync_file_systems([]).unwrap();
    }

    #[test]
    fn whoever_could_change_a_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a");
        let file = inner.join("f");
        fs_err::create_dir(&inner).unwrap();
        fs_err::write(&file, "x").unwrap();
        let mode = |path: &Path, mode| {
            fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        for (file_mode, dir_mode, bad) in [
            (0o644, 0o755, None),
            (0o664, 0o775, None),
            (0o666, 0o755, Some(&file)),
            (0o600, 0o777, Some(&inner)),
            (0o600, 0o1777, None),
        ] {
            mode(&file, file_mode);
            mode(&inner, dir_mode);
            let found = exposed(&file).unwrap();
            assert_eq!(found.as_ref().map(|found| &found.path), bad, "{file_mode:o} {dir_mode:o}");
        }
        // By way of a link in a safe place.
        mode(&inner, 0o777);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(exposed(&link).unwrap().unwrap().path, inner);
        mode(&inner, 0o755);
        assert_eq!(exposed(&link).unwrap(), None);
        assert!(exposed(&inner.join("none")).is_err());
    }
}
