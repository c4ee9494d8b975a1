//! Large files: from their pack to the disk without ever being in memory as a whole. A few
//! kilobytes of a pack can stand for a gigabyte.
//!
//! What stands whole in its pack goes to the disk piece by piece. What has to be there as a
//! whole, because it is a difference to another file or is changed, is kept in files ([`super::spill`]).

use std::io::{self, Read, Write};
use std::path::Path;

use git2::Oid;

use super::pack::Pack;
use super::spill::{LARGE, Output, Refusal, Spilled};

/// Larger files are left as they are, whatever `.gitattributes` say, as by `git archive`
/// (`core.bigFileThreshold`).
pub(super) const LARGEST_CONVERTED: usize = 512 << 20;

const PIECE: usize = 256 << 10;
/// A commit, tree, blob or tag that is no difference to another.
const WHOLE: std::ops::RangeInclusive<u8> = 1..=4;

/// The packs of a mirror, to read single objects from.
pub(super) struct Packs(Vec<Pack>);

impl Packs {
    /// Opens all that can be read; what is in none is read in another way.
    pub(super) fn of(repository: &Path) -> Self {
        let entries = fs_err::read_dir(repository.join("objects/pack"));
        let paths = entries.into_iter().flatten().flatten().map(|entry| entry.path());
        let indexes = paths.filter(|path| path.extension().is_some_and(|end| end == "idx"));
        Self(indexes.filter_map(|path| Pack::open(&path).ok()).collect())
    }

    /// The pack that has an object, and its number there.
    pub(super) fn find(&self, id: Oid) -> Option<(&Pack, usize)> {
        self.0.iter().find_map(|pack| Some((pack, pack.find(id)?)))
    }

    /// Copies the content of a blob of `size` bytes to `out`; false if no pack has it as a
    /// whole. `go_on` is asked before each piece.
    ///
    /// # Errors
    /// What was read is not what the id says (`InvalidData`); what `out` and `go_on` say.
    pub(super) fn copy(
        &self,
        id: Oid,
        size: usize,
        out: &mut dyn Write,
        go_on: &dyn Fn() -> io::Result<()>,
    ) -> io::Result<bool> {
        let found = self.0.iter().find_map(|pack| {
            let number = pack.find(id)?;
            let head = pack.head(number).ok()?;
            WHOLE.contains(&head.kind).then_some((pack, number, head))
        });
        let Some((pack, number, head)) = found else { return Ok(false) };
        let mut content = flate2::read::ZlibDecoder::new(pack.bytes_of(number, head.length));
        let mut sum = openssl::sha::Sha1::new();
        sum.update(format!("blob {size}\0").as_bytes());
        let mut piece = vec![0; PIECE];
        let mut rest = size;
        while rest > 0 {
            go_on()?;
            let wanted = rest.min(PIECE);
            content.read_exact(&mut piece[..wanted])?;
            sum.update(&piece[..wanted]);
            out.write_all(&piece[..wanted])?;
            rest -= wanted;
        }
        if sum.finish() == id.as_bytes()[..20] {
            Ok(true)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("{id} has another content")))
        }
    }
}

/// A file's content on its way to the disk.
pub(super) enum Content<'c> {
    /// As the mirror has it.
    Given(&'c [u8]),
    /// Changed.
    Memory(Vec<u8>),
    /// Changed, and large.
    File(Spilled),
}

impl Content<'_> {
    /// All of it.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Given(bytes) => bytes,
            Self::Memory(bytes) => bytes,
            Self::File(spilled) => spilled.written(),
        }
    }

    /// What `change` writes of it, and its answer.
    ///
    /// # Errors
    /// There is no room for that.
    pub(super) fn through<T>(
        self,
        change: impl FnOnce(&[u8], &mut dyn Output) -> T,
    ) -> Result<(Self, T), Refusal> {
        let from = self.bytes();
        if from.len() < LARGE {
            let mut to = Vec::with_capacity(from.len() + from.len() / 16 + 64);
            let answer = change(from, &mut to);
            return Ok((Self::Memory(to), answer));
        }
        let mut to = Spilled::new()?;
        let answer = change(from, &mut to);
        Ok((Self::File(to.complete()?), answer))
    }
}
