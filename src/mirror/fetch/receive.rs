//! From the bytes of a pack to a commit that is here completely.

use std::cell::Cell;
use std::collections::{BTreeSet, HashSet};
use std::io::{self, Write};
use std::time::{Duration, Instant};

use git2::{ObjectType, Oid};

use super::Fetch;
use crate::domain::Revision;
use crate::mirror::Progress;
use crate::mirror::failure::Failure;
use crate::mirror::protocol::{Boundary, Trouble};
use crate::mirror::repository::{self, FETCHED, oid, revision};

/// Why a pack was not received.
pub(super) enum Received {
    Trouble(Trouble),
    Store(Failure),
}

impl Fetch<'_> {
    /// Stores what `read` passes on as a pack, and moves the boundary of the history.
    pub(super) fn receive(
        &self,
        read: impl FnOnce(&mut dyn Write) -> Result<Boundary, Trouble>,
    ) -> Result<(), Received> {
        let store = |error| Received::Store(self.git("storing the pack", error));
        let objects = self.repository.odb().map_err(store)?;
        let mut writer = objects.packwriter().map_err(store)?;
        let counts = std::rc::Rc::new(Cell::new((0, 0)));
        let counting = std::rc::Rc::clone(&counts);
        writer.progress(move |progress| {
            counting.set((progress.received_objects(), progress.total_objects()));
            true
        });
        let mut sink = Sink { writer, fetch: self, counts, told: Instant::now(), bytes: 0 };
        let boundary = match read(&mut sink) {
            Ok(boundary) => boundary,
            Err(Trouble::Store(error)) => {
                let failure = self.watch.failure();
                let library = git2::Error::last_error(-1);
                let failure = failure.unwrap_or_else(|| {
                    if library.message().is_empty() {
                        Failure::file("write to", self.repository.path(), error)
                    } else {
                        self.git("storing the pack", library)
                    }
                });
                return Err(Received::Store(failure));
            }
            Err(trouble) => return Err(Received::Trouble(trouble)),
        };
        if sink.bytes == 0 {
            return Err(Received::Trouble(Trouble::Read(io::ErrorKind::UnexpectedEof.into())));
        }
        sink.tell();
        self.bytes.set(self.bytes.get() + sink.bytes);
        sink.writer.commit().map_err(store)?;
        drop(sink);
        self.move_boundary(&boundary).map_err(Received::Store)
    }

    fn move_boundary(&self, boundary: &Boundary) -> Result<(), Failure> {
        if *boundary == Boundary::default() {
            return Ok(());
        }
        let mut list: BTreeSet<_> = repository::shallow(self.repository)?.into_iter().collect();
        list.extend(&boundary.shallow);
        for id in &boundary.unshallow {
            list.remove(id);
        }
        repository::set_shallow(self.repository, &list.into_iter().collect::<Vec<_>>())
    }

    /// Checks that a fetched object is, or leads to, a commit with all its files, and only
    /// then writes the ref that says so.
    pub(super) fn keep(&self, wanted: Revision) -> Result<Revision, Failure> {
        let name = format!("{FETCHED}/{wanted}");
        let commit = match self.checked(wanted) {
            Ok(commit) => commit,
            Err(failure) => {
                // libgit2's own transports write it at once.
                if let Ok(mut early) = self.repository.find_reference(&name) {
                    early.delete().map_err(|error| self.git("recording the fetch", error))?;
                }
                return Err(failure);
            }
        };
        self.repository
            .reference(&name, oid(commit), true, "fetch")
            .map_err(|error| self.git("recording the fetch", error))?;
        Ok(commit)
    }

    fn checked(&self, wanted: Revision) -> Result<Revision, Failure> {
        let lost = |error| self.git("checking what came", error);
        let object = self.repository.find_object(oid(wanted), None).map_err(lost)?;
        let commit = match object.peel_to_commit() {
            Ok(commit) => commit,
            Err(error) => {
                let end = object.peel(ObjectType::Any).unwrap_or(object);
                return match end.kind() {
                    Some(kind @ (ObjectType::Blob | ObjectType::Tree)) => {
                        Err(Failure::NotACommit {
                            revision: wanted,
                            kind: kind.str().to_owned(),
                            url: self.remote.url.clone(),
                        })
                    }
                    _ => Err(lost(error)),
                };
            }
        };
        let objects = self.repository.odb().map_err(lost)?;
        self.all_there(&objects, commit.tree_id())?;
        Ok(revision(commit.id()))
    }

    /// Not recursive: how deep the trees go is the remote's choice.
    fn all_there(&self, objects: &git2::Odb<'_>, root: Oid) -> Result<(), Failure> {
        let damaged = |error| self.git("checking what came", error);
        let mut seen = HashSet::from([root]);
        let mut trees = vec![root];
        while let Some(tree) = trees.pop() {
            let tree = self.repository.find_tree(tree).map_err(damaged)?;
            for entry in &tree {
                let id = entry.id();
                match entry.kind() {
                    // The commit of a submodule is in another repository.
                    Some(ObjectType::Commit) => {}
                    _ if !seen.insert(id) => {}
                    Some(ObjectType::Tree) => trees.push(id),
                    _ if objects.exists(id) => {}
                    _ => {
                        return Err(Failure::Damaged {
                            path: self.repository.path().to_owned(),
                            detail: format!("object {id} did not come"),
                        });
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn must_have(&self, wanted: Revision) -> Result<(), Failure> {
        let objects = self.repository.odb().map_err(|error| self.git("reading", error))?;
        if objects.exists(oid(wanted)) { Ok(()) } else { Err(self.not_found(wanted, None)) }
    }
}

/// Where the bytes of a pack go.
struct Sink<'s, 'a> {
    writer: git2::OdbPackwriter<'s>,
    fetch: &'s Fetch<'a>,
    counts: std::rc::Rc<Cell<(usize, usize)>>,
    told: Instant,
    bytes: usize,
}

impl Sink<'_, '_> {
    fn tell(&self) {
        let (objects, of) = self.counts.get();
        (self.fetch.progress)(Progress::Receiving { objects, of, bytes: self.bytes });
    }
}

impl Write for Sink<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.fetch.watch.failure().is_some() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let written = self.writer.write(bytes)?;
        self.bytes += written;
        if self.told.elapsed() > Duration::from_millis(100) {
            self.told = Instant::now();
            self.tell();
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
