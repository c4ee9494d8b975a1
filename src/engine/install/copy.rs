//! Copying one file with mode, owner and times.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, copy_file_range, openat, readlinkat, renameat};
use nix::sys::stat::{Mode, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};

use super::Error;
use super::execute::{discard, failed, ids, opened};
use super::look::is_foreign;
use super::permissions::Rights;

/// Up to this size, in bytes, reading and writing costs less than asking the kernel to
/// copy.
const SMALL: u64 = 16 << 10;
const BUFFER: usize = 128 << 10;

/// Where a file goes.
pub(super) struct At<'a> {
    pub(super) directory: &'a OwnedFd,
    pub(super) name: &'a OsStr,
    /// The name it has until it is complete.
    pub(super) part: &'a str,
}

fn open_source(source: &Path) -> Result<(File, Metadata), Error> {
    let file = File::open(source).map_err(|e| opened("read", source, e))?;
    let found = file.metadata().map_err(|e| opened("read", source, e))?;
    Ok((file, found))
}

/// Copies to a name that nothing has yet. The file appears there complete, with its rights.
pub(super) fn new(
    source: &Path,
    path: &Path,
    at: &At<'_>,
    rights: Option<&Rights>,
    buffer: &mut Vec<u8>,
) -> Result<(), Error> {
    let (from, found) = open_source(source)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let create = || openat(at.directory, at.part, flags, Mode::S_IRUSR | Mode::S_IWUSR);
    let to = match create() {
        Err(Errno::EEXIST) => {
            discard(at.directory, at.part);
            create()
        }
        other => other,
    };
    let mut to = File::from(to.map_err(|e| opened("create", path, e.into()))?);
    let done = pour(from, &mut to, found.len(), buffer)
        .map_err(|e| opened("write", path, e))
        .and_then(|()| attributes(&to, path, &found, rights))
        .and_then(|()| {
            renameat(at.directory, at.part, at.directory, at.name)
                .map_err(|e| failed("create", "rb_sysopen", path, e))
        });
    if done.is_err() {
        discard(at.directory, at.part);
    }
    done
}

/// Replaces the content of what is there, or of what a link there leads to, unless an ordinary
/// user made that.
pub(super) fn in_place(
    source: &Path,
    path: &Path,
    directory: &OwnedFd,
    name: &OsStr,
    buffer: &mut Vec<u8>,
) -> Result<(), Error> {
    let (from, found) = open_source(source)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(0o666);
    let to = match openat(directory, name, flags | OFlag::O_NOFOLLOW, mode) {
        // It may be another one than that which was planned with.
        Err(Errno::ELOOP) => followed(directory, name)
            .and_then(|target| openat(directory, target.as_os_str(), flags, mode)),
        opened => opened,
    };
    let to = to.map_err(|e| opened("overwrite", path, e.into()))?;
    let mut to = File::from(to);
    pour(from, &mut to, found.len(), buffer).map_err(|e| opened("write", path, e))?;
    attributes(&to, path, &found, None)
}

/// Where a link leads, if it is ours or root's.
fn followed(directory: &OwnedFd, name: &OsStr) -> Result<OsString, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let link = openat(directory, name, flags, Mode::empty())?;
    if is_foreign(fstat(&link)?.st_uid) {
        return Err(Errno::ELOOP);
    }
    readlinkat(&link, "")
}

/// Copies all of the content.
fn pour(mut from: File, to: &mut File, length: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
    if length > SMALL && by_kernel(&from, to)? {
        return Ok(());
    }
    buffer.resize(BUFFER, 0);
    loop {
        let read = match from.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        to.write_all(buffer.get(..read).unwrap_or_default())?;
        // A small file that was read in one piece has no more to give.
        if read as u64 == length && length < BUFFER as u64 {
            return Ok(());
        }
    }
}

/// Lets the kernel copy, which shares the blocks where the file system can. Says whether it
/// did.
fn by_kernel(from: &File, to: &File) -> io::Result<bool> {
    const MOST: usize = 1 << 30;
    let mut copied = false;
    loop {
        match copy_file_range(from, None, to, None, MOST) {
            Ok(0) => return Ok(copied),
            Ok(_) => copied = true,
            Err(Errno::EINTR) => {}
            Err(
                Errno::EXDEV | Errno::ENOSYS | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EPERM,
            ) if !copied => return Ok(false),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Sets owner, mode and times as the source has them, or as declared.
fn attributes(
    to: &File,
    path: &Path,
    found: &Metadata,
    rights: Option<&Rights>,
) -> Result<(), Error> {
    let fail = |what, e: Errno| failed(what, "apply2files", path, e);
    let (uid, gid) = rights.map_or((None, None), ids);
    let declared_mode = rights.and_then(|rights| rights.mode.as_ref()).map(|mode| mode.bits);
    let chmod =
        |bits| fchmod(to, Mode::from_bits_truncate(bits)).map_err(|e| fail("set the mode of", e));
    let mut mode = found.mode() & 0o7777;
    let inherited = fchown(
        to,
        Some(uid.unwrap_or(Uid::from_raw(found.uid()))),
        Some(gid.unwrap_or(Gid::from_raw(found.gid()))),
    );
    match inherited {
        Ok(()) => {}
        // Not root: the copy is ours, and has no business with somebody else's rights.
        Err(Errno::EPERM) => {
            mode &= 0o1777;
            if uid.is_some() || gid.is_some() {
                fchown(to, uid, gid).map_err(|e| fail("change the owner of", e))?;
            }
        }
        Err(e) => return Err(fail("change the owner of", e)),
    }
    if let Some(declared) = declared_mode {
        chmod(declared)?;
    } else {
        chmod(mode)?;
        if mode & 0o6000 != 0 && (uid.is_some() || gid.is_some()) {
            // A new owner without a declared mode does not get set-user-id bits.
            fchown(to, uid, gid).map_err(|e| fail("change the owner of", e))?;
        }
    }
    futimens(
        to,
        &TimeSpec::new(found.atime(), found.atime_nsec()),
        &TimeSpec::new(found.mtime(), found.mtime_nsec()),
    )
    .map_err(|e| fail("set the times of", e))
}
