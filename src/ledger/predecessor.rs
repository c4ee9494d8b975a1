//! What 0.3.1 left on the disk beside its `last_state.yaml`.

use std::io;
use std::path::{Path, PathBuf};

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
