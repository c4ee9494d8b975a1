//! From a commit to files: what `git archive <commit> | tar x` would give, planned here and
//! written by `writer`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use git2::{ObjectType, Odb, Oid, Repository};

use super::attributes::{Attributes, Conversion};
use super::lfs::{self, LfsFile, Object};
use super::objects::{self, Entries, Entry};
use super::reader::{Read, Reader, Shelf};
use super::repository::{oid, revision};
use super::substitute::Facts;
use super::{Failure, names, writer};
use crate::domain::Revision;
use crate::process::Interrupt;

/// Far more than a tree that is meant: a few objects can be made to unfold to billions.
const MOST_ENTRIES: usize = 1_000_000;
/// Of all `.gitattributes` together. Each line is held against each path: far more than any
/// that are meant.
const MOST_ATTRIBUTES: usize = 1 << 20;
/// What Linux takes, less what is in front of it.
const LONGEST_PATH: usize = 3_800;
/// What Linux takes for the target of a link.
const LONGEST_LINK: usize = 4_095;
/// How many of a kind of warning are named one by one.
const NAMED: usize = 3;
/// Bytes of directories that are kept from the look for `.gitattributes` to the plan: enough for
/// 200,000 files.
const MOST_KEPT: usize = 8 << 20;

/// How a tree is written.
#[derive(Debug, Clone)]
pub struct CheckoutOptions {
    /// Whether paths with the attribute `export-ignore` are left out.
    pub export_ignore: bool,
    /// What becomes of pointers of Git LFS; without it they stay, and are named.
    pub lfs: Option<Lfs>,
    /// Threads that write.
    pub threads: usize,
    /// Ends it with [`Failure::Interrupted`].
    pub interrupt: Interrupt,
}

/// What becomes of pointers of Git LFS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lfs {
    /// Only those below this path of the tree are meant.
    pub below: PathBuf,
    /// What they stand for is written in their place, from the mirror; else they stay, and are
    /// listed with it.
    pub content: bool,
}

impl Default for CheckoutOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(1, 4));
        Self { export_ignore: true, lfs: None, threads, interrupt: Interrupt::new() }
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
    /// Files that Git LFS keeps, as far as that was asked for.
    pub lfs: Vec<LfsFile>,
    /// Names with control characters, trailing white space or bytes that are not UTF-8.
    pub odd_names: Vec<PathBuf>,
    /// Attributes that `git archive` would not act on but a checkout might, one line each.
    pub warnings: Vec<String>,
}

impl Worktree {
    /// Adds what is known of a tree that was put into this one at `place`.
    pub fn take_in(&mut self, place: &Path, other: Self) {
        let Self {
            path: _,
            files,
            bytes,
            symlinks,
            submodules,
            lfs_pointers,
            lfs,
            odd_names,
            warnings,
        } = other;
        let there = |paths: Vec<PathBuf>| paths.into_iter().map(|path| place.join(path));
        self.files += files;
        self.bytes += bytes;
        self.symlinks.extend(symlinks.into_iter().map(|(path, to)| (place.join(path), to)));
        self.submodules.extend(there(submodules));
        self.lfs_pointers.extend(there(lfs_pointers));
        let moved = |file: LfsFile| LfsFile { path: place.join(file.path), ..file };
        self.lfs.extend(lfs.into_iter().map(moved));
        self.odd_names.extend(there(odd_names));
        let about = |warning| format!("in the submodule `{}`: {warning}", place.display());
        self.warnings.extend(warnings.into_iter().map(about));
    }
}

/// What is to be written. Paths are relative, `/` between their parts.
#[derive(Default)]
pub(super) struct Layout {
    /// Parents before children; the first is the root, with an empty path.
    pub directories: Vec<Directory>,
    /// In the order of their directories.
    pub files: Vec<File>,
    /// Written after all files.
    pub links: Vec<Link>,
}

/// A directory; it is made only if something is written into it.
pub(super) struct Directory {
    pub path: Vec<u8>,
    pub parent: usize,
    pub used: bool,
}

/// A regular file.
pub(super) struct File {
    pub directory: usize,
    pub name: Vec<u8>,
    pub id: Oid,
    pub executable: bool,
    pub conversion: Option<Box<Conversion>>,
}

impl File {
    /// What Git LFS keeps of it, if that is to be written.
    pub(super) fn lfs(&self) -> Option<Object> {
        self.conversion.as_ref()?.lfs
    }
}

/// A symbolic link.
pub(super) struct Link {
    pub directory: usize,
    pub name: Vec<u8>,
    pub target: Vec<u8>,
}

impl Layout {
    /// The path of something in a directory.
    pub(super) fn path(&self, directory: usize, name: &[u8]) -> Vec<u8> {
        join(&self.directories[directory].path, name)
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// What would be written of the tree of `wanted`; nothing is.
pub(super) fn survey(
    repository: &Repository,
    wanted: Revision,
    options: &CheckoutOptions,
) -> Result<Worktree, Failure> {
    let (store, shelf) = (odb(repository)?, Shelf::of(repository.path()));
    let reader = Reader::new(&shelf, &store);
    Ok(plan(repository, reader, &commit(repository, wanted)?, Path::new(""), options)?.1)
}

fn odb(repository: &Repository) -> Result<Odb<'_>, Failure> {
    repository.odb().map_err(|error| Failure::git("reading", repository.path(), error))
}

fn commit(repository: &Repository, wanted: Revision) -> Result<git2::Commit<'_>, Failure> {
    repository
        .find_object(oid(wanted), None)
        .and_then(|object| object.peel_to_commit())
        .map_err(|error| Failure::git("reading the commit", repository.path(), error))
}

fn plan(
    repository: &Repository,
    reader: Reader<'_>,
    commit: &git2::Commit<'_>,
    target: &Path,
    options: &CheckoutOptions,
) -> Result<(Layout, Worktree), Failure> {
    let damaged = |error| Failure::git("reading the commit", repository.path(), error);
    objects::read(reader.store, commit.id()).map_err(damaged)?;
    let mut planner = Planner {
        repository,
        reader,
        trees: HashMap::new(),
        kept: 0,
        revision: revision(commit.id()),
        export_ignore: options.export_ignore,
        lfs: options.lfs.as_ref(),
        interrupt: &options.interrupt,
        attributes: None,
        layout: Layout::default(),
        worktree: Worktree { path: target.to_owned(), ..Worktree::default() },
        filters: BTreeMap::new(),
    };
    planner.plan(commit.tree_id())?;
    Ok(planner.finish())
}

/// Writes the tree of `wanted` to `target`, complete or not at all.
pub(super) fn checkout(
    repository: &Repository,
    wanted: Revision,
    target: &Path,
    options: &CheckoutOptions,
) -> Result<Worktree, Failure> {
    let damaged = |error| Failure::git("reading the commit", repository.path(), error);
    let (store, shelf) = (odb(repository)?, Shelf::of(repository.path()));
    let commit = commit(repository, wanted)?;
    let reader = Reader::new(&shelf, &store);
    let (layout, mut worktree) = plan(repository, reader, &commit, target, options)?;
    let substitutes = layout
        .files
        .iter()
        .any(|file| file.conversion.as_ref().is_some_and(|conversion| conversion.substitute));
    let facts = substitutes.then(|| Facts::of(&commit)).transpose().map_err(damaged)?;
    if target.symlink_metadata().is_ok() {
        let there = std::io::ErrorKind::AlreadyExists.into();
        return Err(Failure::file("make the worktree", target, there));
    }
    let temporary = temporary(target);
    let job = writer::Job {
        repository: repository.path(),
        shelf: &shelf,
        revision: revision(commit.id()),
        layout: &layout,
        facts: facts.as_ref(),
        time: commit.time().seconds(),
        options,
    };
    let written = writer::write(&job, &store, &temporary).and_then(|written| {
        let placed = fs_err::rename(&temporary, target);
        placed.map_err(|error| Failure::file("put in place", target, error))?;
        Ok(written)
    });
    let written = match written {
        Ok(written) => written,
        Err(failure) => {
            // What stays is swept by the next run; the failure is what matters.
            let _ = fs_err::remove_dir_all(&temporary);
            return Err(failure);
        }
    };
    worktree.files = layout.files.len();
    worktree.bytes = written.bytes;
    worktree.lfs_pointers = written.lfs_pointers.iter().map(|path| path_of(path)).collect();
    // Those that are only listed are nothing to complain of.
    let listed: HashSet<&PathBuf> = worktree.lfs.iter().map(|file| &file.path).collect();
    worktree.lfs_pointers.retain(|path| !listed.contains(path));
    worktree.warnings.extend(written.warnings);
    Ok(worktree)
}

/// A fresh name beside `target`.
fn temporary(target: &Path) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.{}-{number}.new", std::process::id()))
}

/// Sets aside the worktrees in the directory of one app: they are in nobody's way any more,
/// and [`sweep_worktrees`] removes them when there is time. The app's mirror must be locked:
/// nobody is using them then.
///
/// # Errors
/// [`Failure::File`].
pub fn set_aside_worktrees(directory: &Path) -> Result<(), Failure> {
    let read = |error| Failure::file("read", directory, error);
    for (path, name) in named_worktrees(directory).map_err(read)? {
        if !is_set_aside(&name) {
            let aside = temporary(&path).with_extension("old");
            fs_err::rename(&path, &aside)
                .map_err(|error| Failure::file("set aside", &path, error))?;
        }
    }
    Ok(())
}

/// Removes what was set aside, or was left unfinished by killed runs, in the directory of one
/// app's worktrees. Late, and no longer than `within`: file systems are slow to make files where
/// many have just been removed. False if something of it stays, for the next time. The app's
/// mirror must be locked.
///
/// # Errors
/// [`Failure::File`].
pub fn sweep_worktrees(
    directory: &Path,
    within: Duration,
    interrupt: &Interrupt,
) -> Result<bool, Failure> {
    let begin = Instant::now();
    let read = |error| Failure::file("read", directory, error);
    for (path, name) in named_worktrees(directory).map_err(read)? {
        if !is_set_aside(&name) {
            continue;
        }
        for entry in walkdir::WalkDir::new(&path).contents_first(true) {
            if begin.elapsed() >= within || interrupt.signal().is_some() {
                return Ok(false);
            }
            let removed = entry.map_err(std::io::Error::from).and_then(|entry| {
                if entry.file_type().is_dir() {
                    fs_err::remove_dir(entry.path())
                } else {
                    fs_err::remove_file(entry.path())
                }
            });
            removed.map_err(|error| Failure::file("remove the leftover", &path, error))?;
        }
    }
    Ok(true)
}

/// The worktrees in the directory of one app's worktrees, finished or not, or set aside. When
/// no run is at work, they are leftovers.
///
/// # Errors
/// The directory is there and cannot be read.
pub fn worktrees(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let found = named_worktrees(directory)?;
    Ok(found.into_iter().map(|(path, _)| path).collect())
}

fn is_set_aside(name: &str) -> bool {
    name.starts_with('.') && (name.ends_with(".new") || name.ends_with(".old"))
}

fn named_worktrees(directory: &Path) -> std::io::Result<Vec<(PathBuf, String)>> {
    let entries = match fs_err::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let ours = is_set_aside(&name) || name.parse::<Revision>().is_ok();
        if ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push((entry.path(), name));
        }
    }
    Ok(found)
}

fn damaged(repository: &Repository) -> impl Fn(git2::Error) -> Failure {
    let path = repository.path();
    move |error| Failure::git("reading the tree", path, error)
}

struct Planner<'a> {
    repository: &'a Repository,
    reader: Reader<'a>,
    /// Directories that were read, and their bytes together.
    trees: HashMap<Oid, Rc<[u8]>>,
    kept: usize,
    revision: Revision,
    export_ignore: bool,
    lfs: Option<&'a Lfs>,
    interrupt: &'a Interrupt,
    attributes: Option<Attributes>,
    layout: Layout,
    worktree: Worktree,
    /// Filters other than LFS's, and how many files have them.
    filters: BTreeMap<String, usize>,
}

impl Planner<'_> {
    /// Goes through the tree, a directory's own entries together. Not recursive: how deep it
    /// goes is the repository's choice.
    fn plan(&mut self, root: Oid) -> Result<(), Failure> {
        self.layout.directories.push(Directory { path: Vec::new(), parent: 0, used: true });
        self.attributes = self.find_attributes(root)?;
        let mut open = vec![(root, 0)];
        while let Some((tree, directory)) = open.pop() {
            let content = self.tree(tree)?;
            let first_child = open.len();
            for entry in Entries::from(&*content) {
                let entry = entry.ok_or_else(|| self.no_tree(tree))?;
                if let Some(child) = self.entry(&entry, directory)? {
                    open.push(child);
                }
            }
            // Taken from the end: so the first comes first.
            open[first_child..].reverse();
        }
        Ok(())
    }

    fn tree(&mut self, id: Oid) -> Result<Rc<[u8]>, Failure> {
        if let Some(signal) = self.interrupt.signal() {
            return Err(Failure::Interrupted(signal));
        }
        if let Some(known) = self.trees.get(&id) {
            return Ok(Rc::clone(known));
        }
        let (damaged, store) = (damaged(self.repository), self.reader.store);
        let read = match self.reader.read(id).map_err(&damaged)? {
            Read::Large(_) => Read::whole(store, id).map_err(&damaged)?,
            read => read,
        };
        let tree: Option<Rc<[u8]>> = read.of(ObjectType::Tree).map(Rc::from);
        drop(read);
        let tree = tree.ok_or_else(|| self.no_tree(id))?;
        if self.kept + tree.len() <= MOST_KEPT {
            self.kept += tree.len();
            self.trees.insert(id, Rc::clone(&tree));
        }
        Ok(tree)
    }

    fn no_tree(&self, id: Oid) -> Failure {
        let path = self.repository.path().to_owned();
        Failure::Damaged { path, detail: format!("{id} is no directory that can be read") }
    }

    fn unsafe_name(&self, path: &[u8], why: &'static str) -> Failure {
        let name = String::from_utf8_lossy(path).into_owned();
        Failure::UnsafeName { revision: self.revision, name, why }
    }

    /// All `.gitattributes` of the tree; `None` if there is none.
    fn find_attributes(&mut self, root: Oid) -> Result<Option<Attributes>, Failure> {
        let mut found = Vec::new();
        let mut open = vec![(root, Vec::new())];
        let (mut entries, mut attributes) = (0, 0);
        while let Some((tree, path)) = open.pop() {
            let content = self.tree(tree)?;
            for entry in Entries::from(&*content) {
                let entry = entry.ok_or_else(|| self.no_tree(tree))?;
                let here = join(&path, entry.name);
                entries += 1;
                if entries > MOST_ENTRIES {
                    return Err(self.unsafe_name(&here, "the tree has more than 1,000,000 entries"));
                }
                if here.len() > LONGEST_PATH {
                    return Err(self.unsafe_name(&here, "the path is too long"));
                }
                match entry.kind() {
                    objects::DIRECTORY => open.push((entry.id, here)),
                    objects::FILE if entry.name == b".gitattributes" => {
                        let rest = MOST_ATTRIBUTES - attributes;
                        let Some(text) = self.content(entry.id, rest)? else {
                            let what = "what `.gitattributes` say".to_owned();
                            let (revision, most) = (self.revision, MOST_ATTRIBUTES);
                            return Err(Failure::TooLarge { revision, what, most });
                        };
                        attributes += text.len();
                        found.push((path.clone(), text));
                    }
                    _ => {}
                }
            }
        }
        Ok(if found.is_empty() { None } else { Some(Attributes::new(found)) })
    }

    /// Plans one entry; a directory is given back to be gone through.
    fn entry(
        &mut self,
        entry: &Entry<'_>,
        directory: usize,
    ) -> Result<Option<(Oid, usize)>, Failure> {
        if let Some(signal) = self.interrupt.signal() {
            return Err(Failure::Interrupted(signal));
        }
        let name = entry.name;
        let path = self.layout.path(directory, name);
        names::check(name).map_err(|why| self.unsafe_name(&path, why))?;
        let kind = entry.kind();
        let is_directory = matches!(kind, objects::DIRECTORY | objects::SUBMODULE);
        if kind != objects::DIRECTORY {
            // As `git archive` has it: a directory with a file is there, even without the file.
            self.mark_used(directory);
        }
        if let Some(attributes) = &mut self.attributes
            && self.export_ignore
            && attributes.is_ignored(&path, is_directory)
        {
            return Ok(None);
        }
        if names::is_odd(name) {
            self.worktree.odd_names.push(path_of(&path));
        }
        match kind {
            objects::DIRECTORY => {
                let new = self.layout.directories.len();
                self.layout.directories.push(Directory { path, parent: directory, used: false });
                return Ok(Some((entry.id, new)));
            }
            objects::FILE => {
                let mut conversion = self.conversion(&path)?;
                if let Some(conversion) = &mut conversion {
                    conversion.lfs = self.lfs(&path, entry.id, conversion)?;
                }
                self.layout.files.push(File {
                    directory,
                    name: name.to_vec(),
                    id: entry.id,
                    executable: entry.mode & 0o100 != 0,
                    conversion,
                });
            }
            objects::LINK => {
                let target = self.link_target(entry.id, &path)?;
                self.worktree.symlinks.push((path_of(&path), path_of(&target)));
                self.layout.links.push(Link { directory, name: name.to_vec(), target });
            }
            objects::SUBMODULE => {
                self.worktree.submodules.push(path_of(&path));
                self.layout.directories.push(Directory { path, parent: directory, used: true });
            }
            _ => return Err(self.unsafe_name(&path, "it is no file, directory, link or submodule")),
        }
        Ok(None)
    }

    fn mark_used(&mut self, mut directory: usize) {
        while !std::mem::replace(&mut self.layout.directories[directory].used, true) {
            directory = self.layout.directories[directory].parent;
        }
    }

    fn link_target(&mut self, id: Oid, path: &[u8]) -> Result<Vec<u8>, Failure> {
        let target = self.content(id, LONGEST_LINK)?.filter(|target| !target.is_empty());
        let Some(target) = target else {
            return Err(self.unsafe_name(path, "it is a link whose target is empty or too long"));
        };
        if target.contains(&0) {
            return Err(self.unsafe_name(path, "it is a link whose target holds a NUL"));
        }
        Ok(target)
    }

    /// What is in a file, if that is no more than `most`.
    fn content(&mut self, id: Oid, most: usize) -> Result<Option<Vec<u8>>, Failure> {
        let read = self.reader.read(id).map_err(damaged(self.repository))?;
        if matches!(read, Read::Large(_)) {
            return Ok(None);
        }
        let Some(content) = read.of(ObjectType::Blob) else {
            let path = self.repository.path().to_owned();
            return Err(Failure::Damaged { path, detail: format!("{id} is not a file's content") });
        };
        Ok((content.len() <= most).then(|| content.to_vec()))
    }

    fn conversion(&mut self, path: &[u8]) -> Result<Option<Box<Conversion>>, Failure> {
        let Some(attributes) = &mut self.attributes else { return Ok(None) };
        let found = attributes.of_file(path).map_err(|encoding| Failure::Encoding {
            revision: self.revision,
            path: String::from_utf8_lossy(path).into_owned(),
            encoding,
        })?;
        if let Some(filter) = &found.filter
            && filter != "lfs"
        {
            *self.filters.entry(filter.clone()).or_default() += 1;
        }
        Ok((found != Conversion::default()).then(|| Box::new(found)))
    }

    /// What a file is the pointer of, if that is to be written in its place.
    fn lfs(
        &mut self,
        path: &[u8],
        id: Oid,
        conversion: &Conversion,
    ) -> Result<Option<Object>, Failure> {
        let Some(wanted) = self.lfs else { return Ok(None) };
        let path = path_of(path);
        let meant = conversion.filter.as_deref() == Some("lfs") && path.starts_with(&wanted.below);
        let text = if meant { self.content(id, lfs::LONGEST_POINTER)? } else { None };
        let Some(object) = text.and_then(|text| lfs::parse(&text)) else { return Ok(None) };
        self.worktree.lfs.push(LfsFile { path, object });
        Ok(wanted.content.then_some(object))
    }

    fn finish(mut self) -> (Layout, Worktree) {
        for (filter, files) in &self.filters {
            self.worktree.warnings.push(format!(
                "the attribute `filter={filter}` of {files} file(s) is not acted upon: they are as they are in the repository"
            ));
        }
        if let Some(attributes) = &self.attributes {
            for (place, times) in attributes.ignored_lines.iter().take(NAMED) {
                self.worktree.warnings.push(format!("{place}: {times} line(s) cannot be read"));
            }
        }
        (self.layout, self.worktree)
    }
}
