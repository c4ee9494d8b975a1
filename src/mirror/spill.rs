//! Memory for what is too large for memory: files of the cache, without a name, mapped.
//!
//! A few kilobytes of a pack can stand for a gigabyte. What stands whole in a pack is unpacked
//! piece by piece (`large`). What is a difference to something else, is changed by
//! `.gitattributes` or comes from a repository on this host has to be there as a whole, in
//! libgit2 or here. It then is in such a file: the system writes it to the disk where memory is
//! short, instead of ending a program, and it is gone when it is not needed any more, or with
//! the process, however that ends. Room for it is taken before it is used: a disk that is full
//! is an error, and no signal.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use nix::errno::Errno;
use nix::fcntl::{OFlag, posix_fallocate};
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::sync::lock;

/// Bytes from which on something is kept in a file.
pub(super) const LARGE: usize = 16 << 20;
/// The most bytes of one piece. git itself makes no differences of files above half of it
/// (`core.bigFileThreshold`).
pub(super) const MOST: usize = 1 << 30;
/// What libgit2 asks for beyond an object.
const MARGIN: usize = 1 << 12;
/// Room on the disk is taken in such steps.
const STEP: usize = 32 << 20;

/// Why there is no memory for something.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It has more than [`MOST`] bytes.
    TooLarge,
    /// The file could not be made.
    File(PathBuf, io::Error),
}

/// Where the files are: the first directory that was named.
static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
/// Where they are if none was named, or it is gone.
const ELSEWHERE: &str = "/var/tmp";
/// What libgit2 has, by where it is.
static HELD: Mutex<BTreeMap<usize, Region>> = Mutex::new(BTreeMap::new());
/// How much that is: mostly nothing, and then nobody has to look.
static HOW_MANY: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static REFUSED: RefCell<Option<Refusal>> = const { RefCell::new(None) };
}

/// Names the directory where such files are to be.
pub(super) fn keep_in(directory: &Path) {
    if DIRECTORY.get().is_none() {
        let _ = DIRECTORY.set(directory.to_owned());
    }
}

/// Why libgit2 got no memory, last, on this thread.
pub(super) fn refusal() -> Option<Refusal> {
    REFUSED.with_borrow_mut(Option::take)
}

/// A mapped file without a name.
struct Region {
    start: NonNull<c_void>,
    length: NonZeroUsize,
    file: File,
    directory: &'static Path,
}

#[expect(unsafe_code, reason = "memory is not bound to a thread")]
// SAFETY: what is mapped is the same for all threads; nothing here is shared without a lock.
unsafe impl Send for Region {}

impl Region {
    /// Of so many bytes, none of which may be used before they were taken.
    #[expect(unsafe_code, reason = "a file is mapped")]
    fn new(length: usize) -> Result<Self, Refusal> {
        let length = NonZeroUsize::new(length).filter(|length| length.get() <= MOST + MARGIN);
        let length = length.ok_or(Refusal::TooLarge)?;
        let named = DIRECTORY.get().map(PathBuf::as_path).filter(|directory| directory.is_dir());
        let directory = named.unwrap_or(Path::new(ELSEWHERE));
        let failed = |error| Refusal::File(directory.to_owned(), error);
        let file = nameless(directory).map_err(failed)?;
        file.set_len(length.get() as u64).map_err(failed)?;
        let may = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the file is ours alone, as nobody can open what has no name, and is not
        // made shorter while it is mapped; the place is for the system to choose.
        let mapped = unsafe { mmap(None, length, may, MapFlags::MAP_SHARED, &file, 0) };
        let start = mapped.map_err(|error| failed(error.into()))?;
        Ok(Self { start, length, file, directory })
    }

    /// Takes room on the disk: without it, writing to the memory would be the end.
    fn take(&self, from: usize, to: usize) -> Result<(), Refusal> {
        let offset = |at: usize| libc::off_t::try_from(at).unwrap_or(libc::off_t::MAX);
        loop {
            match posix_fallocate(&self.file, offset(from), offset(to - from)) {
                Ok(()) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => {
                    return Err(Refusal::File(self.directory.to_owned(), error.into()));
                }
            }
        }
    }

    fn address(&self) -> *mut c_void {
        self.start.as_ptr()
    }
}

impl Drop for Region {
    #[expect(unsafe_code, reason = "what was mapped is given back")]
    fn drop(&mut self) {
        // SAFETY: it was mapped by `new`, with this length, and nobody has a reference to it
        // any more.
        let _ = unsafe { munmap(self.start, self.length.get()) };
    }
}

/// A file that nobody else can open, and that is gone with this process.
fn nameless(directory: &Path) -> io::Result<File> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let open = |flags: OFlag, path: &Path| {
        let mut options = File::options();
        options.read(true).write(true).mode(0o600).custom_flags(flags.bits());
        (options, path.to_owned())
    };
    let (options, path) = open(OFlag::O_TMPFILE, directory);
    match options.open(path) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {}
        done => return done,
    }
    // Not on this file system: it has a name for a moment.
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = directory.join(format!(".large.{}-{number}", std::process::id()));
    let (mut options, path) = open(OFlag::O_NOFOLLOW, &name);
    let file = options.create_new(true).open(&path)?;
    fs_err::remove_file(&path)?;
    Ok(file)
}

/// What something is written to that may become large.
pub(super) trait Output {
    /// Adds at the end.
    fn put(&mut self, bytes: &[u8]);
    /// All that is there.
    fn written(&self) -> &[u8];
    /// Removes what is behind the first `length` bytes.
    fn truncate(&mut self, length: usize);
}

impl Output for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn written(&self) -> &[u8] {
        self
    }

    fn truncate(&mut self, length: usize) {
        Self::truncate(self, length);
    }
}

/// Bytes in such a file, as many as come.
pub(super) struct Spilled {
    region: Region,
    length: usize,
    taken: usize,
    refusal: Option<Refusal>,
}

impl Spilled {
    /// Empty.
    ///
    /// # Errors
    /// There can be no such file.
    pub(super) fn new() -> Result<Self, Refusal> {
        Ok(Self { region: Region::new(MOST)?, length: 0, taken: 0, refusal: None })
    }

    /// Whether all that was put here is here.
    ///
    /// # Errors
    /// It became too large, or the disk too small.
    pub(super) fn complete(self) -> Result<Self, Refusal> {
        match self.refusal {
            None => Ok(self),
            Some(refusal) => Err(refusal),
        }
    }

    fn make_room(&mut self, more: usize) -> Result<(), Refusal> {
        let needed = self.length.checked_add(more).filter(|needed| *needed <= MOST);
        let needed = needed.ok_or(Refusal::TooLarge)?;
        if needed > self.taken {
            let to = needed.next_multiple_of(STEP).min(MOST);
            self.region.take(self.taken, to)?;
            self.taken = to;
        }
        Ok(())
    }
}

impl Output for Spilled {
    #[expect(unsafe_code, reason = "the bytes go into what is mapped")]
    fn put(&mut self, bytes: &[u8]) {
        if self.refusal.is_some() {
            return;
        }
        if let Err(refusal) = self.make_room(bytes.len()) {
            self.refusal = Some(refusal);
            return;
        }
        // SAFETY: so much is mapped and has room on the disk, and `bytes` cannot be a part of
        // it: what `written` gives out is borrowed from `self`.
        unsafe {
            let end = self.region.address().cast::<u8>().add(self.length);
            ptr::copy_nonoverlapping(bytes.as_ptr(), end, bytes.len());
        }
        self.length += bytes.len();
    }

    #[expect(unsafe_code, reason = "what is mapped is read")]
    fn written(&self) -> &[u8] {
        // SAFETY: so many bytes are mapped and were written, and nobody writes to them while
        // `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.region.address().cast::<u8>(), self.length) }
    }

    fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}

/// libgit2's `git_allocator`.
#[repr(C)]
struct Allocator {
    allocate: extern "C" fn(usize, *const c_char, c_int) -> *mut c_void,
    reallocate: extern "C" fn(*mut c_void, usize, *const c_char, c_int) -> *mut c_void,
    free: extern "C" fn(*mut c_void),
}

/// Has libgit2 get its memory here: the C library's as always, and files for what is large.
#[expect(unsafe_code, reason = "libgit2 takes it as it takes all its options")]
pub(super) fn serve_libgit2() {
    static ALLOCATOR: Allocator = Allocator { allocate, reallocate, free };
    // SAFETY: called once, before others use libgit2; it copies the three pointers. What it
    // was given before is the C library's, which `free` and `reallocate` take back.
    unsafe {
        libgit2_sys::git_libgit2_opts(
            libgit2_sys::GIT_OPT_SET_ALLOCATOR.cast_signed(),
            ptr::from_ref(&ALLOCATOR),
        );
    }
}

#[expect(unsafe_code, reason = "the C library's memory")]
extern "C" fn allocate(size: usize, _file: *const c_char, _line: c_int) -> *mut c_void {
    if size < LARGE {
        // SAFETY: any size may be asked for.
        return unsafe { libc::malloc(size) };
    }
    let region = Region::new(size).and_then(|region| {
        region.take(0, size)?;
        Ok(region)
    });
    match region {
        Ok(region) => {
            let address = region.address();
            lock(&HELD).insert(address.addr(), region);
            HOW_MANY.fetch_add(1, Ordering::Release);
            address
        }
        Err(refusal) => {
            REFUSED.with_borrow_mut(|refused| *refused = Some(refusal));
            ptr::null_mut()
        }
    }
}

/// Takes a region out of those that libgit2 has.
fn take_back(address: *mut c_void) -> Option<Region> {
    // What is mapped begins with a page; little of the C library's does.
    if !address.addr().is_multiple_of(1 << 12) || HOW_MANY.load(Ordering::Acquire) == 0 {
        return None;
    }
    let region = lock(&HELD).remove(&address.addr())?;
    HOW_MANY.fetch_sub(1, Ordering::Release);
    Some(region)
}

#[expect(unsafe_code, reason = "the C library's memory")]
extern "C" fn free(address: *mut c_void) {
    if take_back(address).is_none() {
        // SAFETY: it is null, or was given out by `allocate` or `reallocate` of this module, or
        // by the C library before, and is not a region.
        unsafe { libc::free(address) };
    }
}

#[expect(unsafe_code, reason = "the C library's memory")]
extern "C" fn reallocate(
    old: *mut c_void,
    size: usize,
    file: *const c_char,
    line: c_int,
) -> *mut c_void {
    let region = if old.is_null() { None } else { take_back(old) };
    if region.is_none() && size < LARGE {
        // SAFETY: it is null or the C library's, see `free`.
        return unsafe { libc::realloc(old, size) };
    }
    let new = allocate(size, file, line);
    let there = match &region {
        _ if old.is_null() => 0,
        Some(region) => region.length.get(),
        // SAFETY: it is the C library's, see `free`.
        None => unsafe { libc::malloc_usable_size(old) },
    };
    if new.is_null() {
        // As ever, the old one stays.
        if let Some(region) = region {
            lock(&HELD).insert(old.addr(), region);
            HOW_MANY.fetch_add(1, Ordering::Release);
        }
        return new;
    }
    // SAFETY: both are so long, and they are two.
    unsafe { ptr::copy_nonoverlapping(old.cast::<u8>(), new.cast::<u8>(), there.min(size)) };
    if region.is_none() {
        // SAFETY: it is null or the C library's, and nobody uses it any more.
        unsafe { libc::free(old) };
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_a_name_leave_none() {
        let directory = tempfile::tempdir().unwrap();
        let file = nameless(directory.path()).unwrap();
        file.set_len(1 << 20).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&file.metadata().unwrap()), 0o100_600);
    }

    #[test]
    #[expect(unsafe_code, reason = "memory is used as libgit2 does")]
    fn what_is_large_is_in_a_file_and_keeps_its_content() {
        let held = |address: *mut c_void| lock(&HELD).contains_key(&address.addr());
        let at = |address: *mut c_void, place: usize| unsafe { address.cast::<u8>().add(place) };
        let small = allocate(100, ptr::null(), 0);
        assert!(!small.is_null() && !held(small));
        unsafe { *at(small, 99) = 7 };
        let large = reallocate(small, LARGE, ptr::null(), 0);
        assert!(held(large));
        unsafe { *at(large, LARGE - 1) = 8 };
        let larger = reallocate(large, LARGE * 2, ptr::null(), 0);
        assert!(held(larger) && !held(large));
        assert_eq!(unsafe { (*at(larger, 99), *at(larger, LARGE - 1)) }, (7, 8));
        let small = reallocate(larger, 200, ptr::null(), 0);
        assert!(!held(small) && !held(larger));
        assert_eq!(unsafe { *at(small, 99) }, 7);
        free(small);
        free(ptr::null_mut());
        assert!(allocate(MOST + MARGIN + 1, ptr::null(), 0).is_null());
        assert!(matches!(refusal(), Some(Refusal::TooLarge)));
        assert!(refusal().is_none());
        let kept = allocate(LARGE, ptr::null(), 0);
        assert!(reallocate(kept, usize::MAX, ptr::null(), 0).is_null());
        assert!(held(kept));
        free(kept);
    }

    #[test]
    fn what_is_written_grows_up_to_its_bound() {
        let mut spilled = Spilled::new().unwrap_or_else(|refusal| panic!("{refusal:?}"));
        let piece = vec![1; STEP - 1];
        spilled.put(&piece);
        spilled.put(&[2, 3, 4]);
        assert_eq!(spilled.written().len(), STEP + 2);
        assert_eq!(spilled.written()[STEP - 2..], [1, 2, 3, 4]);
        spilled.truncate(STEP);
        spilled.put(&[5]);
        assert_eq!(spilled.written()[STEP - 2..], [1, 2, 5]);
        assert!(spilled.make_room(MOST).is_err());
        let mut spilled = spilled.complete().unwrap_or_else(|refusal| panic!("{refusal:?}"));
        spilled.length = MOST;
        spilled.put(&[1]);
        spilled.put(&[]);
        assert!(matches!(spilled.complete(), Err(Refusal::TooLarge)));
    }
}
