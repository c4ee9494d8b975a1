//! Packs as files: read and written without unpacking what is only to be moved.
//!
//! libgit2 builds packs by looking for differences anew, which takes minutes for a large
//! repository. Here an object's compressed bytes, or its difference to another object, are
//! copied as they are. The formats are those of git's `gitformat-pack`: packs and indexes of
//! version 2, ids of 20 bytes.

mod read;
mod write;

pub(super) use read::{Head, Pack};
pub(super) use write::Writer;

/// An object that is a difference to one at an earlier place in the pack.
const OFFSET_DELTA: u8 = 6;
/// An object that is a difference to one given by its id.
const ID_DELTA: u8 = 7;
/// How large the id is, and the checksum at the end of each file.
const ID: usize = 20;
