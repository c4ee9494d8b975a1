//! From the bytes of a pack to objects in the mirror.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::Fetch;
use crate::domain::Revision;
use crate::mirror::Progress;
use crate::mirror::failure::Failure;
use crate::mirror::protocol::{Boundary, Trouble};
use crate::mirror::repository::{self, oid};

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
        let clock = self.watch.clock();
        writer.progress(move |progress| {
            counting.set((progress.received_objects(), progress.total_objects()));
            // After the last byte comes the work on what is packed as differences.
            clock.failure().is_none()
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
        let done = sink.writer.commit();
        done.map_err(|error| self.watch.failure().map_or_else(|| store(error), Received::Store))?;
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
