//! Files and directories that nothing needs any more.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::domain::AppName;

/// What a leftover is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A checked-out tree of a run that was killed.
    Worktree,
    /// A mirror that a killed run had replaced or removed.
    OldMirror,
    /// Bundles of 0.3.1.
    OldDeploys,
    /// What codedeploy-local keeps of a removed app.
    AgentGroup,
    /// The entry of a removed app in `last_state.yaml`.
    Record,
    /// The mirror of a removed app, with its history.
    Mirror,
}

impl Kind {
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Worktree => "left-over worktree",
            Self::OldMirror => "left-over mirror",
            Self::OldDeploys => "bundles of 0.3.1",
            Self::AgentGroup => "codedeploy-local's records and revisions",
            Self::Record => "entry in last_state.yaml",
            Self::Mirror => "mirror and history",
        }
    }
}

/// Something to remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Leftover {
    pub what: Kind,
    /// The removed app it is of.
    pub app: Option<AppName>,
    pub path: PathBuf,
    /// What the disk has more when it is gone.
    pub bytes: u64,
}

impl Leftover {
    pub(super) fn new(what: Kind, app: Option<&AppName>, path: PathBuf) -> Self {
        let bytes = if what == Kind::Record { 0 } else { size(&path) };
        Self { what, app: app.cloned(), path, bytes }
    }

    /// Removes the file or the directory with all that is in it. What is gone already is no
    /// failure; a link is removed itself.
    pub(super) fn remove(&self) -> io::Result<()> {
        let removed = match fs_err::symlink_metadata(&self.path) {
            Ok(about) if about.is_dir() => fs_err::remove_dir_all(&self.path),
            Ok(_) => fs_err::remove_file(&self.path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Bytes of the files below a path (or of the one that it is) that have no other name: what
/// mirrors share stays. What cannot be read counts as nothing.
pub(super) fn size(path: &Path) -> u64 {
    walkdir::WalkDir::new(path)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(|about| about.is_file() && about.nlink() == 1)
        .map(|about| about.len())
        .sum()
}
