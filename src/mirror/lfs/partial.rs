//! An object while it comes: what came before is kept and continued, and nothing counts before
//! its SHA-256 is the right one.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt;
use openssl::sha::Sha256;

use super::pointer::{Object, ObjectId};
use super::store;
use crate::mirror::Failure;

/// Bytes that are moved at a time.
pub(super) const PIECE: usize = 256 << 10;

/// What there is of one object. The mirror is locked, and one thread works on one object.
pub(super) struct Partial<'a> {
    mirror: &'a Path,
    object: Object,
    path: PathBuf,
    file: fs_err::File,
    sum: Sha256,
    length: u64,
    /// Some of it came in an earlier try.
    continued: bool,
}

/// What became of a whole one.
pub(super) enum End {
    /// It is in its place.
    Kept,
    /// It is something else, and thrown away; `true` if some of it was from an earlier try.
    Other(ObjectId, bool),
}

impl<'a> Partial<'a> {
    /// Opens what there is, and reads it once. `go_on` is asked before each piece.
    pub(super) fn open(
        mirror: &'a Path,
        object: Object,
        go_on: &dyn Fn() -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        let path = store::incomplete(mirror, object.oid);
        store::make_room_for(&path)?;
        let file = fs_err::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&path)
            .map_err(|error| Failure::file("write", &path, error))?;
        let mut this =
            Self { mirror, object, path, file, sum: Sha256::new(), length: 0, continued: false };
        let there = this.file.metadata().map_err(|error| this.unread(error))?.len();
        if there > object.size {
            this.clear()?;
            return Ok(this);
        }
        let mut piece = vec![0; PIECE];
        loop {
            go_on()?;
            let count = this.file.read(&mut piece).map_err(|error| this.unread(error))?;
            if count == 0 {
                break;
            }
            this.sum.update(&piece[..count]);
            this.length += count as u64;
        }
        this.continued = this.length > 0;
        Ok(this)
    }

    fn unread(&self, error: io::Error) -> Failure {
        Failure::file("read", &self.path, error)
    }

    fn unwritten(&self, error: io::Error) -> Failure {
        let failure = Failure::file("write", &self.path, error);
        if let Failure::DiskFull { .. } = failure {
            // Others need the room more; it is only that it comes again.
            let _ = store::remove(&self.path);
        }
        failure
    }

    /// Bytes that are here.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Whether all of it is here.
    pub(super) fn is_whole(&self) -> bool {
        self.length == self.object.size
    }

    /// Begins again from nothing.
    pub(super) fn clear(&mut self) -> Result<(), Failure> {
        let cleared = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cleared.map_err(|error| self.unwritten(error))?;
        (self.sum, self.length, self.continued) = (Sha256::new(), 0, false);
        Ok(())
    }

    /// Adds what came; false, and nothing is left, if that is more than there may be.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        if bytes.len() as u64 > self.object.size - self.length {
            store::remove(&self.path)?;
            return Ok(false);
        }
        self.file.write_all(bytes).map_err(|error| self.unwritten(error))?;
        self.sum.update(bytes);
        self.length += bytes.len() as u64;
        Ok(true)
    }

    /// Puts it in its place, if it is what it should be. Syncing is the caller's.
    pub(super) fn finish(self) -> Result<End, Failure> {
        let found = ObjectId::new(self.sum.clone().finish());
        if found != self.object.oid {
            store::remove(&self.path)?;
            return Ok(End::Other(found, self.continued));
        }
        let target = store::path(self.mirror, self.object.oid);
        store::make_room_for(&target)?;
        fs_err::rename(&self.path, &target)
            .map_err(|error| Failure::file("put in place", &target, error))?;
        Ok(End::Kept)
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        if self.length == 0 {
            // Nothing is lost with it.
            let _ = store::remove(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(content: &[u8]) -> Object {
        let oid = ObjectId::new(openssl::sha::sha256(content));
        Object { oid, size: content.len() as u64 }
    }

    #[test]
    fn what_came_before_is_continued_and_what_is_wrong_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let object = object(b"hello, world");
        let open = || Partial::open(dir.path(), object, &|| Ok(())).unwrap();
        let mut partial = open();
        assert!(partial.add(b"hello").unwrap() && !partial.is_whole());
        drop(partial);
        let mut partial = open();
        assert_eq!(partial.length(), 5);
        assert!(partial.add(b", world").unwrap() && partial.is_whole());
        assert!(matches!(partial.finish().unwrap(), End::Kept));
        assert!(store::holds(dir.path(), object));

        let mut partial = open();
        assert_eq!(partial.length(), 0);
        assert!(partial.add(b"hallo").unwrap());
        drop(partial);
        let mut partial = open();
        assert!(partial.add(b", world").unwrap());
        assert!(matches!(partial.finish().unwrap(), End::Other(_, true)));
        let mut partial = open();
        assert!(!partial.add(b"hello, world!").unwrap(), "too much");
        let mut partial = open();
        assert_eq!(partial.length(), 0);
        assert!(partial.add(b"jello, world").unwrap());
        assert!(matches!(partial.finish().unwrap(), End::Other(_, false)));

        fs_err::write(store::incomplete(dir.path(), object.oid), "x".repeat(99)).unwrap();
        assert_eq!(open().length(), 0);
        let other = Object { size: 0, ..object };
        std::os::unix::fs::symlink("/etc/passwd", store::incomplete(dir.path(), other.oid))
            .unwrap();
        assert!(Partial::open(dir.path(), other, &|| Ok(())).is_err(), "a link is not followed");
    }
}
