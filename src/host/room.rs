//! Whether there is room for what a run will write once it touches the first app: a disk that
//! is full half-way would cost the apps that run.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{ExitCode, Failure};

/// What the records of a run may take, and their files, in cache and state directory each.
const RECORDS: Need = Need { bytes: 256 << 10, files: 24 };

/// What is to be written somewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) bytes: u64,
    pub(super) files: u64,
}

impl Need {
    pub(super) fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.files = self.files.saturating_add(other.files);
    }
}

/// What goes where. Places on one file system are counted together.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// By device: one of the places, one that exists, and what is needed there.
    by_device: BTreeMap<u64, (PathBuf, PathBuf, Need)>,
    /// Bytes that have to be free afterwards, on each of them.
    spare: u64,
}

impl Needs {
    /// So many bytes have to be free afterwards.
    pub(super) fn sparing(spare: u64) -> Self {
        Self { spare, ..Self::default() }
    }

    /// The records of a run in this directory.
    pub(super) fn records(&mut self, place: &Path) {
        self.add(place, RECORDS);
    }

    /// Something that is copied to this directory, which need not exist yet.
    pub(super) fn add(&mut self, place: &Path, need: Need) {
        let there = place.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let Ok(about) = there.metadata() else { return };
        let entry = self
            .by_device
            .entry(about.dev())
            .or_insert_with(|| (place.to_owned(), there.to_owned(), Need::default()));
        entry.2.add(need);
    }

    /// # Errors
    /// The first file system that has too little room, or too few files left.
    pub(super) fn check(&self) -> Result<(), Failure> {
        for (place, there, need) in self.by_device.values() {
            // One that does not say how much it has is believed to have enough.
            let Ok(about) = nix::sys::statvfs::statvfs(there) else { continue };
            let free = about.blocks_available().saturating_mul(about.fragment_size());
            let megabytes =
                |bytes: u64| format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10);
            let spare = match self.spare {
                0 => String::new(),
                spare => format!(" besides the {} of `min_free_space`", megabytes(spare)),
            };
            let short = if free < need.bytes.saturating_add(self.spare) {
                let (needed, free) = (megabytes(need.bytes), megabytes(free));
                format!("room for {needed}{spare}, and {free} are free")
            } else if about.files() > 0 && about.files_available() < need.files {
                format!(
                    "room for {} files, and {} inodes are free",
                    need.files,
                    about.files_available()
                )
            } else {
                continue;
            };
            let text = format!(
                "the file system of `{}` needs {short}; nothing was touched",
                place.display()
            );
            return Err(Failure::new(ExitCode::Unfit, text).hint("make room, then run again"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_on_one_file_system_are_counted_together() {
        let dir = tempfile::tempdir().unwrap();
        let mut needs = Needs::default();
        needs.records(dir.path());
        needs.add(&dir.path().join("not/there/yet"), Need { bytes: 1, files: 2 });
        assert_eq!(needs.by_device.len(), 1);
        needs.check().unwrap();
        let most = Need { bytes: u64::MAX / 2, files: 0 };
        needs.add(dir.path(), most);
        needs.add(&dir.path().join("x"), most);
        let failure = needs.check().unwrap_err();
        assert!(failure.message.contains("nothing was touched"), "{failure}");
        let mut needs = Needs::default();
        needs.add(dir.path(), Need { bytes: 0, files: u64::MAX });
        assert!(needs.check().is_err_and(|failure| failure.message.contains("inodes")));
    }
}
