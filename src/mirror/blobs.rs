//! Files' contents for a checkout: out of the packs, without libgit2 wherever that is simple.
//!
//! In a pack most files stand whole, and where one begins and ends is known: it is read in one
//! piece and unpacked by libdeflate, which is made for whole buffers, into memory that is
//! used again. What is a difference to another object, or in no pack, or not as it should be,
//! is libgit2's to read, and to explain. Every content is checked against its id.

use git2::{Error, ObjectType, Odb, OdbObject, Oid};
use libdeflater::Decompressor;

use super::large::Packs;
use super::objects;
use super::pack::Pack;
use super::spill::LARGE;

/// As a pack has it: a file's content, whole.
const BLOB: u8 = 3;

/// Reads contents, for one thread.
pub(super) struct Blobs<'a> {
    /// Of the same mirror; without them libgit2 does all.
    packs: Option<&'a Packs>,
    pub store: &'a Odb<'a>,
    decompressor: Decompressor,
    packed: Vec<u8>,
    content: Vec<u8>,
}

/// What was read.
pub(super) enum Blob<'b> {
    Content(&'b [u8]),
    Object(OdbObject<'b>),
}

impl Blob<'_> {
    /// `None` if it is no file's.
    pub(super) fn content(&self) -> Option<&[u8]> {
        match self {
            Self::Content(content) => Some(content),
            Self::Object(object) => (object.kind() == ObjectType::Blob).then(|| object.data()),
        }
    }
}

impl<'a> Blobs<'a> {
    pub(super) fn new(packs: Option<&'a Packs>, store: &'a Odb<'a>) -> Self {
        let decompressor = Decompressor::new();
        Self { packs, store, decompressor, packed: Vec::new(), content: Vec::new() }
    }

    /// Reads an object of `size` bytes.
    pub(super) fn read(&mut self, id: Oid, size: usize) -> Result<Blob<'_>, Error> {
        if size < LARGE
            && let Some((pack, number)) = self.packs.and_then(|packs| packs.find(id))
            && self.unpack(pack, number, id, size).is_some()
        {
            return Ok(Blob::Content(&self.content));
        }
        objects::read(self.store, id).map(Blob::Object)
    }

    /// `None` if that is not as simple, or not what the id says.
    fn unpack(&mut self, pack: &Pack, number: usize, id: Oid, size: usize) -> Option<()> {
        if pack.length(number) > LARGE as u64 {
            return None;
        }
        let head = pack.read(number, &mut self.packed).ok()?;
        if head.kind != BLOB || usize::try_from(head.size) != Ok(size) {
            return None;
        }
        if self.content.capacity() > 1 << 20 && size < 1 << 16 {
            self.content = Vec::new();
        }
        self.content.resize(size, 0);
        let packed = self.packed.get(head.length..)?;
        let unpacked = self.decompressor.zlib_decompress(packed, &mut self.content).ok()?;
        let right = unpacked == size && objects::check(id, ObjectType::Blob, &self.content).is_ok();
        right.then_some(())
    }
}
