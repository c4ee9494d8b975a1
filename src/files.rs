//! Files that are there completely or not at all.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
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

/// Removes a file, durably. One that is not there is removed already.
///
/// # Errors
/// It is there and stays.
pub fn remove_durably(path: &Path) -> io::Result<()> {
    if remove(path)? { sync_parent(path) } else { Ok(()) }
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
}
