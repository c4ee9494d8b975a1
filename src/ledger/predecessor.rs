//! What 0.3.1 left on the disk beside its `last_state.yaml`.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::files;

/// Left behind where [`remove`] removed something.
pub const NOTE: &str = "MIGRATED";

/// The directory with the bundles of 0.3.1's last runs, if it is still there. Nothing refers to
/// it: codedeploy-local made its own copies.
///
/// # Errors
/// The state directory cannot be looked at.
pub fn deploys(state: &Path) -> io::Result<Option<PathBuf>> {
    let path = state.join("deploys");
    match fs_err::symlink_metadata(&path) {
        // A link is somebody's own doing.
        Ok(about) => Ok(about.is_dir().then_some(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes that directory, and leaves a note. Whether it is gone: after `within` the rest is
/// left to the next time. No link is followed.
///
/// # Errors
/// Something in it cannot be removed, or the note cannot be written.
pub fn remove(state: &Path, within: Duration) -> io::Result<bool> {
    let Some(directory) = deploys(state)? else { return Ok(true) };
    let begin = Instant::now();
    let (mut files, mut bytes) = (0_u64, 0_u64);
    for entry in walkdir::WalkDir::new(&directory).contents_first(true) {
        if begin.elapsed() >= within {
            return Ok(false);
        }
        let entry = entry.map_err(io::Error::from)?;
        if entry.file_type().is_dir() {
            fs_err::remove_dir(entry.path())?;
        } else {
            let about = fs_err::symlink_metadata(entry.path())?;
            fs_err::remove_file(entry.path())?;
            files += 1;
            bytes += if about.nlink() == 1 { about.len() } else { 0 };
        }
    }
    let note = format!(
        "multideployer {version} removed `{directory}` on {now}:\n\
         {files} files, {bytes} bytes, the bundles of the last runs of 0.3.1.\n\
         Nothing refers to them; what is deployed is recorded in the mirrors and in\n\
         last_state.yaml. This file may be removed.\n",
        version = env!("CARGO_PKG_VERSION"),
        directory = directory.display(),
        now = jiff::Timestamp::now().strftime("%Y-%m-%d at %H:%M:%SZ"),
    );
    files::publish(&state.join(NOTE), note.as_bytes())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_a_note_and_never_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs_err::create_dir_all(at("state")).unwrap();
        assert!(remove(&at("state"), Duration::MAX).unwrap());
        assert!(!at("state").join(NOTE).exists(), "nothing was removed");
        fs_err::create_dir_all(at("state/deploys/5e1f/api")).unwrap();
        fs_err::create_dir(at("mine")).unwrap();
        for file in ["state/deploys/5e1f/api/bundle.tar.gz", "mine/file"] {
            fs_err::write(at(file), "12345").unwrap();
        }
        std::os::unix::fs::symlink(at("mine"), at("state/deploys/5e1f/api/bundle")).unwrap();
        assert!(!remove(&at("state"), Duration::ZERO).unwrap(), "no time");
        assert!(remove(&at("state"), Duration::MAX).unwrap());
        assert!(!at("state/deploys").exists() && at("mine/file").exists());
        let note = fs_err::read_to_string(at("state").join(NOTE)).unwrap();
        assert!(note.contains(env!("CARGO_PKG_VERSION")) && note.contains("deploys"), "{note}");

        std::os::unix::fs::symlink(at("mine"), at("state/deploys")).unwrap();
        assert!(remove(&at("state"), Duration::MAX).unwrap());
        assert!(at("state/deploys").exists() && at("mine/file").exists());
    }
}
