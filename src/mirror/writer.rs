//! Writes a planned tree into a fresh directory, in several threads.
//!
//! Nothing is ever followed: each directory is opened below the one before, each file is
//! made new, and symbolic links come last, when nothing is written through them any more.

use std::fs::File as OsFile;
use std::io::{ErrorKind, Read, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fs_err::OpenOptions;
use fs_err::os::unix::fs::OpenOptionsExt;
use git2::{ObjectType, Odb, Repository};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{
    FchmodatFlags, Mode, UtimensatFlags, fchmod, fchmodat, fstat, futimens, mkdirat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};
use openssl::sha::Sha256;

use super::Failure;
use super::checkout::{CheckoutOptions, Directory, File, Layout};
use super::convert::{ident, is_lfs_pointer, with_crlf};
use super::large::{Content, LARGEST_CONVERTED};
use super::lfs::{self, Object, ObjectId, Problem};
use super::reader::{self, Reader, Shelf};
use super::spill::{self, Output, Refusal};
use super::substitute::{Facts, MOST_FILLED};
use crate::diagnostic::quoted;
use crate::domain::Revision;
use crate::sync::lock;

/// Files or directories a thread takes at a time.
const BATCH: usize = 32;
/// For less than this one thread does: to start another, which opens the mirror for itself and
/// waits for its turn on a busy machine, takes longer than to write it.
const FEW_FILES: usize = 256;
const FEW_BYTES: usize = 4 << 20;
const FEW_DIRECTORIES: usize = 128;
/// Bytes that are moved at a time.
const PIECE: usize = 256 << 10;
/// How many of a kind of warning are named one by one.
const NAMED: usize = 3;
/// The mode of directories, and of executable files.
const DIRECTORY: Mode = Mode::from_bits_truncate(0o755);

/// What is to be done.
pub(super) struct Job<'a> {
    /// The mirror; each further thread opens it for itself.
    pub repository: &'a Path,
    pub shelf: &'a Shelf,
    pub revision: Revision,
    pub layout: &'a Layout,
    /// For `export-subst`.
    pub facts: Option<&'a Facts>,
    /// The time of everything that is written, in seconds since 1970.
    pub time: i64,
    pub options: &'a CheckoutOptions,
}

/// What was found on the way.
#[derive(Default)]
pub(super) struct Written {
    pub bytes: u64,
    pub lfs_pointers: Vec<Vec<u8>>,
    pub warnings: Vec<String>,
}

/// What one thread found.
#[derive(Default)]
struct Share {
    bytes: u64,
    lfs_pointers: Vec<Vec<u8>>,
    not_encoded: Vec<Vec<u8>>,
    not_substituted: Vec<Vec<u8>>,
}

/// Writes everything below `root`, which is made.
pub(super) fn write(job: &Job<'_>, store: &Odb<'_>, root: &Path) -> Result<Written, Failure> {
    let made = std::fs::DirBuilder::new().mode(0o700).create(root);
    made.map_err(|error| Failure::file("make the directory", root, error))?;
    let top: OwnedFd = OsFile::open(root)
        .map_err(|error| Failure::file("open the directory", root, error))?
        .into();
    let as_given =
        as_given(&top).map_err(|error| Failure::file("write below", root, error.into()))?;
    let threads = job.options.threads.clamp(1, 64);
    let place = Place { job, root, top, as_given, threads, in_memory: Mutex::new(()) };
    place.make_directories()?;
    let share = place.write_files(store)?;
    place.make_links()?;
    place.finish_directories()?;
    Ok(share.report())
}

/// Numbers that threads take, some at a time, until there are none left or one has failed.
struct Batches {
    count: usize,
    next: AtomicUsize,
    stop: AtomicBool,
}

impl Batches {
    fn of(count: usize) -> Self {
        Self { count, next: AtomicUsize::new(0), stop: AtomicBool::new(false) }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn take(&self) -> Option<Range<usize>> {
        let first = self.next.fetch_add(BATCH, Ordering::Relaxed);
        let some = first < self.count && !self.stopped();
        some.then(|| first..self.count.min(first + BATCH))
    }

    /// Does `mine` on this thread and `others` on further ones, up to `most` together, as long
    /// as there is a batch for each.
    fn share_out(
        &self,
        most: usize,
        mine: impl FnOnce() -> Result<Share, Failure>,
        others: impl Fn() -> Result<Share, Failure> + Sync,
    ) -> Result<Share, Failure> {
        let mut share = Share::default();
        let mut failure = None;
        let ended = |result: Result<Share, Failure>| {
            if result.is_err() {
                self.stop.store(true, Ordering::Relaxed);
            }
            result
        };
        std::thread::scope(|scope| {
            let work = || ended(others());
            let others: Vec<_> = (1..most.min(self.count / BATCH + 1))
                // With fewer threads than wished for it only takes longer.
                .filter_map(|_| {
                    std::thread::Builder::new().name("write".into()).spawn_scoped(scope, work).ok()
                })
                .collect();
            let mut take = |result: Result<Share, Failure>| match result {
                Ok(part) => share.add(part),
                Err(error) => failure = failure.take().or(Some(error)),
            };
            take(ended(mine()));
            for other in others {
                match other.join() {
                    Ok(result) => take(result),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        failure.map_or(Ok(share), Err)
    }
}

impl Share {
    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.lfs_pointers.extend(other.lfs_pointers);
        self.not_encoded.extend(other.not_encoded);
        self.not_substituted.extend(other.not_substituted);
    }

    fn report(mut self) -> Written {
        self.lfs_pointers.sort();
        let mut warnings = Vec::new();
        for (mut paths, what) in [
            (
                self.not_encoded,
                "cannot be put into its `working-tree-encoding`, and stays as it is",
            ),
            (
                self.not_substituted,
                "has a placeholder in `$Format:…$` that is not known, and stays",
            ),
        ] {
            paths.sort();
            let more = paths.len().saturating_sub(NAMED);
            for path in paths.iter().take(NAMED) {
                warnings.push(format!("`{}` {what}", String::from_utf8_lossy(path).escape_debug()));
            }
            if more > 0 {
                warnings.push(format!("the same is so for {more} more"));
            }
        }
        Written { bytes: self.bytes, lfs_pointers: self.lfs_pointers, warnings }
    }
}

struct Place<'a> {
    job: &'a Job<'a>,
    root: &'a Path,
    top: OwnedFd,
    /// Modes are what they are made with: nothing has to be set afterwards.
    as_given: bool,
    /// At most.
    threads: usize,
    /// Held for a large file that has to be there as a whole: one at a time.
    in_memory: Mutex<()>,
}

impl Place<'_> {
    fn failed(&self, doing: &'static str, path: &[u8], error: Errno) -> Failure {
        let name = String::from_utf8_lossy(path).into_owned();
        if error == Errno::EEXIST {
            let why = "it is there twice";
            return Failure::UnsafeName { revision: self.job.revision, name, why };
        }
        Failure::file(doing, &self.root.join(name), error.into())
    }

    /// Opens a directory of the tree. No part of the path is followed if it is a link.
    fn open(&self, path: &[u8]) -> Result<OwnedFd, Failure> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let failed = |error| self.failed("open the directory", path, error);
        let resolve = ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_BENEATH;
        let here = if path.is_empty() { b"." } else { path };
        match openat2(&self.top, here, OpenHow::new().flags(flags).resolve(resolve)) {
            // Older than Linux 5.6, or forbidden in this container: step by step.
            Err(Errno::ENOSYS | Errno::EPERM) => {}
            opened => return opened.map_err(failed),
        }
        let mut directory = openat(&self.top, ".", flags, Mode::empty()).map_err(failed)?;
        for part in path.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            directory = openat(&directory, part, flags, Mode::empty()).map_err(failed)?;
        }
        Ok(directory)
    }

    /// Level by level: when one is being made, all that is above it is there.
    fn make_directories(&self) -> Result<(), Failure> {
        let directories = &self.job.layout.directories;
        let mut depths = vec![0; directories.len()];
        let mut levels: Vec<Vec<&Directory>> = Vec::new();
        for (number, directory) in directories.iter().enumerate().skip(1) {
            let above = depths[directory.parent];
            depths[number] = above + 1;
            if directory.used {
                levels.resize_with(levels.len().max(above + 1), Vec::new);
                levels[above].push(directory);
            }
        }
        for level in levels {
            let batches = Batches::of(level.len());
            let make = || self.make_some(&level, &batches);
            batches.share_out(self.threads_for(level.len()), make, make)?;
        }
        Ok(())
    }

    /// To start a thread takes as long as making some directories.
    fn threads_for(&self, directories: usize) -> usize {
        if directories < FEW_DIRECTORIES { 1 } else { self.threads }
    }

    fn make_some(&self, level: &[&Directory], batches: &Batches) -> Result<Share, Failure> {
        let mut parent: Option<(usize, OwnedFd)> = None;
        while let Some(batch) = batches.take() {
            self.look_for_signals()?;
            for directory in &level[batch] {
                let in_hand = parent.take().filter(|(known, _)| *known == directory.parent);
                let (number, above) = if let Some(known) = in_hand {
                    known
                } else {
                    let above = &self.job.layout.directories[directory.parent];
                    (directory.parent, self.open(&above.path)?)
                };
                let name = directory.path.rsplit(|b| *b == b'/').next().unwrap_or_default();
                let failed = |error| self.failed("make the directory", &directory.path, error);
                mkdirat(&above, name, DIRECTORY).map_err(failed)?;
                if !self.as_given {
                    // It was made a moment ago, below a directory that only we can enter.
                    let follow = FchmodatFlags::FollowSymlink;
                    fchmodat(&above, name, DIRECTORY, follow).map_err(failed)?;
                }
                parent = Some((number, above));
            }
        }
        Ok(Share::default())
    }

    fn look_for_signals(&self) -> Result<(), Failure> {
        self.job.options.interrupt.signal().map_or(Ok(()), |s| Err(Failure::Interrupted(s)))
    }

    fn is_little(&self, store: &Odb<'_>) -> bool {
        let files = &self.job.layout.files;
        let mut bytes = 0;
        files.len() < FEW_FILES
            && files.iter().all(|file| {
                // What cannot be read is said when it is written.
                bytes += match file.lfs() {
                    Some(object) => usize::try_from(object.size).unwrap_or(usize::MAX),
                    None => store.read_header(file.id).map_or(0, |(size, _)| size),
                };
                bytes < FEW_BYTES
            })
    }

    fn write_files(&self, store: &Odb<'_>) -> Result<Share, Failure> {
        let shelf = self.job.shelf;
        let batches = Batches::of(self.job.layout.files.len());
        // For little, libgit2 does, and no other thread has to open the mirror for itself.
        let (threads, mut reader) = if self.is_little(store) {
            (1, Reader::new(shelf, store))
        } else {
            (self.threads, Reader::of_many(shelf, store))
        };
        let mine = || self.write_some(&mut reader, &batches);
        batches.share_out(threads, mine, || self.write_others(&batches))
    }

    fn write_others(&self, batches: &Batches) -> Result<Share, Failure> {
        let git = |error| Failure::git("reading a file", self.job.repository, error);
        let repository = Repository::open(self.job.repository).map_err(git)?;
        let store = repository.odb().map_err(git)?;
        self.write_some(&mut Reader::of_many(self.job.shelf, &store), batches)
    }

    fn write_some(&self, reader: &mut Reader<'_>, batches: &Batches) -> Result<Share, Failure> {
        let mut share = Share::default();
        let mut directory: Option<(usize, OwnedFd)> = None;
        while let Some(batch) = batches.take() {
            for file in &self.job.layout.files[batch] {
                if batches.stopped() {
                    return Ok(share);
                }
                self.look_for_signals()?;
                let in_hand = directory.take().filter(|(known, _)| *known == file.directory);
                let open = if let Some(known) = in_hand {
                    known
                } else {
                    let path = &self.job.layout.directories[file.directory].path;
                    (file.directory, self.open(path)?)
                };
                self.write_file(file, &open.1, reader, &mut share)?;
                directory = Some(open);
            }
        }
        Ok(share)
    }

    fn write_file(
        &self,
        file: &File,
        directory: &OwnedFd,
        reader: &mut Reader<'_>,
        share: &mut Share,
    ) -> Result<(), Failure> {
        if let Some(object) = file.lfs() {
            self.write_lfs(file, directory, object)?;
            share.bytes += object.size;
            return Ok(());
        }
        let unread = |error| Failure::git("reading a file", self.job.repository, error);
        let (mut alone, store) = (None, reader.store);
        let mut read = reader.read(file.id).map_err(unread)?;
        if let reader::Read::Large(size) = read {
            if (file.conversion.is_none() || size > LARGEST_CONVERTED)
                && self.write_large(file, directory, size)?
            {
                share.bytes += size as u64;
                return Ok(());
            }
            if size > spill::MOST {
                let path = self.job.layout.path(file.directory, &file.name);
                return Err(self.refused(&path, "a difference that unfolds to", Refusal::TooLarge));
            }
            alone = Some(lock(&self.in_memory));
            read = reader::Read::whole(store, file.id).map_err(unread)?;
        }
        let Some(content) = read.of(ObjectType::Blob) else {
            return Err(Failure::Damaged {
                path: self.job.repository.to_owned(),
                detail: format!("{} is not a file's content", file.id),
            });
        };
        let content = self.converted(file, content, share)?;
        let content = content.bytes();
        share.bytes += content.len() as u64;
        let mut handle = self.create(file, directory)?;
        handle.write_all(content).map_err(|error| self.unwritten(file, error))?;
        drop(alone);
        self.finish_file(file, &handle)
    }

    /// Writes a large file piece by piece; false, and nothing is there, if it has to be
    /// there as a whole.
    fn write_large(&self, file: &File, directory: &OwnedFd, size: usize) -> Result<bool, Failure> {
        let packs = self.job.shelf.packs();
        let interrupt = &self.job.options.interrupt;
        let go_on = || interrupt.signal().map_or(Ok(()), |_| Err(ErrorKind::Interrupted.into()));
        let mut handle = self.create(file, directory)?;
        match packs.copy(file.id, size, &mut handle, &go_on) {
            Ok(true) => self.finish_file(file, &handle).map(|()| true),
            Ok(false) => {
                unlinkat(directory, file.name.as_slice(), UnlinkatFlags::NoRemoveDir)
                    .map_err(|error| self.unwritten(file, error.into()))?;
                Ok(false)
            }
            Err(error) => Err(match (interrupt.signal(), error.kind()) {
                (Some(signal), _) => Failure::Interrupted(signal),
                (
                    None,
                    ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof,
                ) => {
                    let path = self.job.repository.to_owned();
                    Failure::Damaged { path, detail: error.to_string() }
                }
                _ => self.unwritten(file, error),
            }),
        }
    }

    /// Writes what Git LFS keeps of a file, from the mirror.
    fn write_lfs(&self, file: &File, directory: &OwnedFd, object: Object) -> Result<(), Failure> {
        let path = lfs::path(self.job.repository, object.oid);
        let flags = OFlag::O_NOFOLLOW.bits();
        let mut source = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Problem::NotHere { oid: object.oid }.into());
            }
            opened => opened.map_err(|error| Failure::file("read", &path, error))?,
        };
        let mut handle = self.create(file, directory)?;
        let (mut sum, mut size) = (Sha256::new(), 0);
        let mut piece = vec![0; PIECE];
        loop {
            if let Some(signal) = self.job.options.interrupt.signal() {
                return Err(Failure::Interrupted(signal));
            }
            let count =
                source.read(&mut piece).map_err(|error| Failure::file("read", &path, error))?;
            if count == 0 {
                break;
            }
            sum.update(&piece[..count]);
            size += count as u64;
            handle.write_all(&piece[..count]).map_err(|error| self.unwritten(file, error))?;
        }
        if size != object.size || ObjectId::new(sum.finish()) != object.oid {
            return Err(Problem::Damaged { oid: object.oid }.into());
        }
        self.finish_file(file, &handle)
    }

    fn create(&self, file: &File, directory: &OwnedFd) -> Result<OsFile, Failure> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let path = || self.job.layout.path(file.directory, &file.name);
        let failed = |error| self.failed("write", &path(), error);
        openat(directory, file.name.as_slice(), flags, mode(file)).map(OsFile::from).map_err(failed)
    }

    fn unwritten(&self, file: &File, error: std::io::Error) -> Failure {
        let path = self.job.layout.path(file.directory, &file.name);
        let path = self.root.join(String::from_utf8_lossy(&path).into_owned());
        Failure::file("write", &path, error)
    }

    fn finish_file(&self, file: &File, handle: &OsFile) -> Result<(), Failure> {
        let path = || self.job.layout.path(file.directory, &file.name);
        let failed = |error| self.failed("write", &path(), error);
        if !self.as_given {
            fchmod(handle, mode(file)).map_err(failed)?;
        }
        let time = self.time();
        futimens(handle, &time, &time).map_err(failed)
    }

    fn converted<'c>(
        &self,
        file: &File,
        content: &'c [u8],
        share: &mut Share,
    ) -> Result<Content<'c>, Failure> {
        let mut content = Content::Given(content);
        let Some(conversion) = &file.conversion else { return Ok(content) };
        let path = || self.job.layout.path(file.directory, &file.name);
        let refused = |refusal| self.refused(&path(), "what `.gitattributes` make of", refusal);
        if conversion.filter.as_deref() == Some("lfs") && is_lfs_pointer(content.bytes()) {
            share.lfs_pointers.push(path());
        }
        if conversion.ident {
            let id = file.id.to_string();
            content = content.through(|from, to| ident(from, &id, to)).map_err(refused)?.0;
        }
        if conversion.eol.is_some_and(|eol| eol.changes(content.bytes())) {
            content = content.through(with_crlf).map_err(refused)?.0;
        }
        if let Some(encoding) = conversion.encoding {
            if encoding.takes(content.bytes()).is_some() {
                let encode = |from: &[u8], to: &mut dyn Output| {
                    encoding.takes(from).map(|text| encoding.encode(text, to))
                };
                content = content.through(encode).map_err(refused)?.0;
            } else {
                share.not_encoded.push(path());
            }
        }
        if let Some(facts) = self.job.facts.filter(|_| conversion.substitute) {
            let (filled, unknown) =
                content.through(|from, to| facts.fill(from, to)).map_err(refused)?;
            let unknown = unknown.map_err(|_| {
                let name = quoted(&String::from_utf8_lossy(&path()));
                let what = format!("what `export-subst` adds to {name}");
                Failure::TooLarge { revision: self.job.revision, what, most: MOST_FILLED }
            })?;
            content = filled;
            if unknown {
                share.not_substituted.push(path());
            }
        }
        Ok(content)
    }

    /// There is no memory, nor room on the disk, for a file.
    fn refused(&self, path: &[u8], what: &str, refusal: Refusal) -> Failure {
        match refusal {
            Refusal::TooLarge => {
                let what = format!("{what} {}", quoted(&String::from_utf8_lossy(path)));
                Failure::TooLarge { revision: self.job.revision, what, most: spill::MOST }
            }
            Refusal::File(directory, error) => {
                Failure::file("make a temporary file in", &directory, error)
            }
        }
    }

    fn time(&self) -> TimeSpec {
        TimeSpec::new(self.job.time, 0)
    }

    fn make_links(&self) -> Result<(), Failure> {
        let layout = self.job.layout;
        for link in &layout.links {
            let directory = self.open(&layout.directories[link.directory].path)?;
            let path = || layout.path(link.directory, &link.name);
            let failed = |error| self.failed("make the link", &path(), error);
            symlinkat(link.target.as_slice(), &directory, link.name.as_slice()).map_err(failed)?;
            let time = self.time();
            let flag = UtimensatFlags::NoFollowSymlink;
            utimensat(&directory, link.name.as_slice(), &time, &time, flag).map_err(failed)?;
        }
        Ok(())
    }

    /// Times, when nothing is written any more: that changes them.
    fn finish_directories(&self) -> Result<(), Failure> {
        let made: Vec<_> =
            self.job.layout.directories.iter().skip(1).filter(|made| made.used).collect();
        let batches = Batches::of(made.len());
        let finish = || self.finish_some(&made, &batches);
        batches.share_out(self.threads_for(made.len()), finish, finish)?;
        let failed = |error| self.failed("finish the directory", b"", error);
        let time = self.time();
        futimens(&self.top, &time, &time).map_err(failed)?;
        // Now others may look inside.
        fchmod(&self.top, DIRECTORY).map_err(failed)
    }

    fn finish_some(&self, made: &[&Directory], batches: &Batches) -> Result<Share, Failure> {
        let time = self.time();
        while let Some(batch) = batches.take() {
            for directory in &made[batch] {
                let failed = |error| self.failed("finish the directory", &directory.path, error);
                // All parts of the path are directories that were made here (a link in the place
                // of one would have been there twice), below a directory that only we can enter.
                let path = directory.path.as_slice();
                let flag = UtimensatFlags::NoFollowSymlink;
                utimensat(&self.top, path, &time, &time, flag).map_err(failed)?;
            }
        }
        Ok(Share::default())
    }
}

/// The mode of a file.
fn mode(file: &File) -> Mode {
    if file.executable { DIRECTORY } else { Mode::from_bits_truncate(0o644) }
}

/// Whether what is made here has the mode that is asked for, whatever the umask and the access
/// lists that directories hand down.
fn as_given(top: &OwnedFd) -> Result<bool, Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let probe = openat(top, ".mode", flags, DIRECTORY)?;
    let mode = fstat(&probe)?.st_mode;
    unlinkat(top, ".mode", UnlinkatFlags::NoRemoveDir)?;
    // A directory whose group is handed down makes others like it.
    let handed_down = fstat(top)?.st_mode & 0o7000 != 0;
    Ok(mode & 0o7777 == DIRECTORY.bits() && !handed_down)
}
