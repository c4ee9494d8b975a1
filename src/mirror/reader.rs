//! Objects for a checkout: out of the packs, without libgit2 wherever that is simple.
//!
//! In a pack most objects stand whole, and where one begins and ends is known: it is read in
//! one piece and unpacked by libdeflate, which is made for whole buffers, into memory that is
//! used again. What is a difference to another object, or in no pack, or not as it should be,
//! is libgit2's to read, and to explain. Every content is checked against its id.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use git2::{Error, ObjectType, Odb, OdbObject, Oid};
use libdeflater::Decompressor;

use super::large::Packs;
use super::objects;
use super::pack::Pack;
use super::spill::LARGE;

/// So many objects libgit2 reads before the packs are opened for us: to open them for fewer
/// takes longer than it saves.
const FEW: usize = 64;

/// The packs of a mirror, opened when somebody needs them.
pub(super) struct Shelf {
    repository: PathBuf,
    packs: OnceLock<Packs>,
}

impl Shelf {
    pub(super) fn of(repository: &Path) -> Self {
        Self { repository: repository.to_owned(), packs: OnceLock::new() }
    }

    /// Whether the packs, if they are open, have an object.
    pub(super) fn holds(&self, id: Oid) -> bool {
        self.packs.get().is_some_and(|packs| packs.find(id).is_some())
    }

    pub(super) fn packs(&self) -> &Packs {
        self.packs.get_or_init(|| Packs::of(&self.repository))
    }
}

/// Reads objects, for one thread.
pub(super) struct Reader<'a> {
    shelf: &'a Shelf,
    pub store: &'a Odb<'a>,
    /// How many libgit2 reads before that.
    few: usize,
    decompressor: Decompressor,
    packed: Vec<u8>,
    content: Vec<u8>,
}

/// What was read.
pub(super) enum Read<'r> {
    Content(ObjectType, &'r [u8]),
    Object(OdbObject<'r>),
    /// Nothing was: it has this many bytes, too many to be in memory unasked.
    Large(usize),
}

impl<'r> Read<'r> {
    /// Reads an object of any size.
    pub(super) fn whole(store: &'r Odb<'_>, id: Oid) -> Result<Self, Error> {
        objects::read(store, id).map(Self::Object)
    }

    /// What it is, and its content, if it was read.
    pub(super) fn content(&self) -> Option<(ObjectType, &[u8])> {
        match self {
            Self::Content(kind, content) => Some((*kind, content)),
            Self::Object(object) => Some((object.kind(), object.data())),
            Self::Large(_) => None,
        }
    }

    /// The content, if it is of this kind.
    pub(super) fn of(&self, wanted: ObjectType) -> Option<&[u8]> {
        self.content().filter(|(kind, _)| *kind == wanted).map(|(_, content)| content)
    }
}

impl<'a> Reader<'a> {
    /// For the first few objects the packs are left closed.
    pub(super) fn new(shelf: &'a Shelf, store: &'a Odb<'a>) -> Self {
        let decompressor = Decompressor::new();
        Self { shelf, store, few: FEW, decompressor, packed: Vec::new(), content: Vec::new() }
    }

    /// For a thread that takes its part in many.
    pub(super) fn of_many(shelf: &'a Shelf, store: &'a Odb<'a>) -> Self {
        Self { few: 0, ..Self::new(shelf, store) }
    }

    /// Reads an object, unless it is large.
    pub(super) fn read(&mut self, id: Oid) -> Result<Read<'_>, Error> {
        if self.few > 0 {
            self.few -= 1;
        } else if let Some((pack, number)) = self.shelf.packs().find(id)
            && let Some(kind) = self.unpack(pack, number, id)
        {
            return Ok(Read::Content(kind, &self.content));
        }
        let (size, _) = self.store.read_header(id)?;
        if size >= LARGE {
            return Ok(Read::Large(size));
        }
        objects::read(self.store, id).map(Read::Object)
    }

    /// `None` if that is not as simple, or not what the id says.
    fn unpack(&mut self, pack: &Pack, number: usize, id: Oid) -> Option<ObjectType> {
        if pack.length(number) > LARGE as u64 {
            return None;
        }
        let head = pack.read(number, &mut self.packed).ok()?;
        let kind = match head.kind {
            1 => ObjectType::Commit,
            2 => ObjectType::Tree,
            3 => ObjectType::Blob,
            4 => ObjectType::Tag,
            _ => return None,
        };
        let size = usize::try_from(head.size).ok().filter(|size| *size < LARGE)?;
        if self.content.capacity() > 1 << 20 && size < 1 << 16 {
            self.content = Vec::new();
        }
        self.content.resize(size, 0);
        let packed = self.packed.get(head.length..)?;
        let unpacked = self.decompressor.zlib_decompress(packed, &mut self.content).ok()?;
        let right = unpacked == size && objects::check(id, kind, &self.content).is_ok();
        right.then_some(kind)
    }
}
