//! The host itself: its name, who runs here, and the directories of this program.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use crate::error::{ExitCode, Failure};
use crate::{files, mirror};

/// Makes a directory that only its owner can enter, and its parents; refuses one that belongs to
/// another user.
///
/// # Errors
/// It cannot be made, or must not be used.
pub fn private_directory(path: &Path) -> Result<(), Failure> {
    let fail = |error: &io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "run as root, or give --cache-dir, --state-dir and --log"
            }
            io::ErrorKind::StorageFull => "make room, then run again",
            io::ErrorKind::ReadOnlyFilesystem => "mount it writable, or give another directory",
            _ => "see to the directory, then run again",
        };
        Failure::from_error(ExitCode::Unfit, error)
            .context(format!("cannot make the directory `{}`", path.display()))
            .hint(hint)
    };
    let builder = |mode| {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(mode);
        builder
    };
    if let Some(parent) = path.parent() {
        builder(0o755).create(parent).map_err(|error| fail(&error))?;
    }
    builder(0o700).create(path).map_err(|error| fail(&error))?;
    let metadata = fs_err::symlink_metadata(path).map_err(|error| fail(&error))?;
    safe_directory(path, &metadata)
}

/// Refuses a directory that another user owns or could write to.
///
/// # Errors
/// It must not be used.
pub(crate) fn safe_directory(path: &Path, metadata: &std::fs::Metadata) -> Result<(), Failure> {
    let us = nix::unistd::geteuid().as_raw();
    if !metadata.is_dir() || (metadata.uid() != us && metadata.uid() != 0) {
        return Err(Failure::new(
            ExitCode::Unfit,
            format!("`{}` is not a directory of this user", path.display()),
        )
        .hint("remove it, or give another directory"));
    }
    Ok(())
}

/// Removes what a killed run left behind in the cache and beside `last_state.yaml`.
pub fn sweep(cache: &Path, last_state: &Path) -> Result<(), Failure> {
    mirror::sweep(cache)?;
    let unfinished = files::unfinished(last_state);
    files::remove_durably(&unfinished).map_err(|error| Failure::from_error(ExitCode::Unfit, &error))
}

/// `root@host`, for the history.
pub fn who() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid())
        .ok()
        .flatten()
        .map_or_else(|| nix::unistd::getuid().to_string(), |user| user.name);
    format!("{user}@{}", hostname())
}

/// This host's name, as it knows it.
pub fn hostname() -> String {
    nix::unistd::gethostname()
        .map_or_else(|_| "localhost".to_owned(), |host| host.to_string_lossy().into_owned())
}
