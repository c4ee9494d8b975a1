//! What a plan has to know about the host, and how it is found out.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::cleanup::Gone;

/// Something in the bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    File,
    /// A link to anything but a directory, or to nothing.
    Link,
    /// A directory, or a link to one.
    Directory,
    /// What else there is, in words.
    Special(&'static str),
    Missing,
}

/// A directory of the bundle.
#[derive(Debug, Clone, Default)]
pub(super) struct Listing {
    /// Device and inode.
    pub(super) id: (u64, u64),
    /// Sorted by name.
    pub(super) entries: Vec<(OsString, Source)>,
}

/// What is at a destination once the clean-up is done, links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum There {
    Nothing,
    DanglingLink,
    /// A link that an ordinary user made, wherever it leads: what is written through it is
    /// written where that user may not.
    ForeignLink,
    File,
    Directory,
    Special,
}

/// Whether a link was made by somebody whom we need not trust.
pub(super) fn is_foreign(owner: u32) -> bool {
    owner != 0 && owner != nix::unistd::geteuid().as_raw()
}

/// Questions about the host. The answers of one plan must agree with each other.
pub(super) trait Look {
    fn source(&self, path: &Path) -> Source;
    fn list(&self, directory: &Path) -> io::Result<Listing>;
    fn link_text(&self, path: &Path) -> io::Result<PathBuf>;
    fn there(&self, path: &Path) -> There;
    fn home(&self, user: Option<&str>) -> Option<PathBuf>;
    fn user(&self, name: &str) -> Option<u32>;
    fn group(&self, name: &str) -> Option<u32>;
    fn has_program(&self, name: &str) -> bool;
}

/// This host, as it will be when `gone` is gone.
pub(super) struct Host<'a> {
    gone: &'a Gone,
    /// The directory that was asked about last, and its real path.
    last: RefCell<(PathBuf, PathBuf)>,
}

impl<'a> Host<'a> {
    pub(super) fn new(gone: &'a Gone) -> Self {
        Self { gone, last: RefCell::default() }
    }

    fn will_be_gone(&self, path: &Path) -> bool {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return false };
        if self.gone.is_empty() {
            return false;
        }
        let mut last = self.last.borrow_mut();
        if last.0 != parent {
            let real = std::fs::canonicalize(parent).unwrap_or_else(|_| parent.to_owned());
            *last = (parent.to_owned(), real);
        }
        self.gone.contains(&last.1.join(name))
    }
}

fn kind(of: std::fs::FileType) -> Option<&'static str> {
    if of.is_fifo() {
        Some("a named pipe")
    } else if of.is_socket() {
        Some("a socket")
    } else if of.is_block_device() || of.is_char_device() {
        Some("a device")
    } else {
        None
    }
}

fn source_of(path: &Path, file_type: std::fs::FileType) -> Source {
    if file_type.is_dir() {
        Source::Directory
    } else if file_type.is_symlink() {
        // Plain `std`: that it leads nowhere is no error whose text anybody reads.
        match std::fs::metadata(path) {
            Ok(target) if target.is_dir() => Source::Directory,
            _ => Source::Link,
        }
    } else {
        kind(file_type).map_or(Source::File, Source::Special)
    }
}

impl Look for Host<'_> {
    fn source(&self, path: &Path) -> Source {
        match std::fs::symlink_metadata(path) {
            Ok(found) => source_of(path, found.file_type()),
            Err(_) => Source::Missing,
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Listing> {
        let itself = fs::metadata(directory)?;
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let source = match entry.file_type()? {
                plain if plain.is_file() => Source::File,
                other => source_of(&entry.path(), other),
            };
            entries.push((entry.file_name(), source));
        }
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(Listing { id: (itself.dev(), itself.ino()), entries })
    }

    fn link_text(&self, path: &Path) -> io::Result<PathBuf> {
        fs::read_link(path)
    }

    fn there(&self, path: &Path) -> There {
        let Ok(found) = std::fs::symlink_metadata(path) else { return There::Nothing };
        if self.gone.cuts_off(path) || self.will_be_gone(path) {
            return There::Nothing;
        }
        if found.is_symlink() && is_foreign(found.uid()) {
            return There::ForeignLink;
        }
        let file_type = if found.is_symlink() {
            match std::fs::canonicalize(path) {
                Ok(target) if self.gone.contains(&target) => return There::DanglingLink,
                Ok(target) => match std::fs::metadata(target) {
                    Ok(found) => found.file_type(),
                    Err(_) => return There::DanglingLink,
                },
                Err(_) => return There::DanglingLink,
            }
        } else {
            found.file_type()
        };
        if file_type.is_dir() {
            There::Directory
        } else if file_type.is_file() {
            There::File
        } else {
            There::Special
        }
    }

    fn home(&self, user: Option<&str>) -> Option<PathBuf> {
        match user {
            None => std::env::home_dir(),
            Some(name) => Some(nix::unistd::User::from_name(name).ok()??.dir),
        }
    }

    fn user(&self, name: &str) -> Option<u32> {
        let known = nix::unistd::User::from_name(name).ok().flatten();
        known.map(|user| user.uid.as_raw()).or_else(|| number(name))
    }

    fn group(&self, name: &str) -> Option<u32> {
        let known = nix::unistd::Group::from_name(name).ok().flatten();
        known.map(|group| group.gid.as_raw()).or_else(|| number(name))
    }

    fn has_program(&self, name: &str) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).filter(|directory| directory.is_absolute()).any(|directory| {
            let found = std::fs::metadata(directory.join(name));
            found.is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
        })
    }
}

/// A host with the same bundle, and with nothing else: whatever it is asked for can be made.
pub(super) struct Empty;

impl Look for Empty {
    fn source(&self, path: &Path) -> Source {
        Host::new(&Gone::default()).source(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Listing> {
        Host::new(&Gone::default()).list(directory)
    }

    fn link_text(&self, path: &Path) -> io::Result<PathBuf> {
        fs::read_link(path)
    }

    fn there(&self, _: &Path) -> There {
        There::Nothing
    }

    fn home(&self, user: Option<&str>) -> Option<PathBuf> {
        Host::new(&Gone::default()).home(user)
    }

    fn user(&self, _: &str) -> Option<u32> {
        Some(0)
    }

    fn group(&self, _: &str) -> Option<u32> {
        Some(0)
    }

    fn has_program(&self, _: &str) -> bool {
        true
    }
}

/// The largest number means "leave as it is" to the system.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|n| digits && *n != u32::MAX)
}
