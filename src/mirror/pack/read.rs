//! An existing pack and its index.

use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use git2::Oid;

use super::{ID, ID_DELTA, OFFSET_DELTA};

const MAGIC: [u8; 8] = [0xff, b't', b'O', b'c', 0, 0, 0, 2];
/// Magic and the number of ids up to each first byte.
const HEADER: usize = 8 + 256 * 4;
/// The longest beginning of an object: its kind and size, and the id of another.
const LONGEST_HEAD: usize = 10 + ID;
/// An offset that stands in the table of long ones.
const LONG: u32 = 1 << 31;

/// A pack that is there, with its index in memory.
#[derive(Debug)]
pub(in crate::mirror) struct Pack {
    /// The index; the pack is beside it.
    pub path: PathBuf,
    /// Bytes of the pack.
    pub size: u64,
    /// In how many mirrors the pack is.
    pub links: u64,
    file: fs_err::File,
    index: Vec<u8>,
    count: usize,
    /// Where each object begins, and its number in the index; in the pack's order.
    order: Vec<(u64, u32)>,
}

/// The beginning of an object in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mirror) struct Head {
    /// As the pack has it.
    pub kind: u8,
    /// Of the object, or of its difference, unpacked.
    pub size: u64,
    /// Bytes in front of the compressed ones.
    pub length: usize,
    /// The number of the object it is a difference to.
    pub base: Option<usize>,
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Pack {
    /// Opens the pack of this index.
    ///
    /// # Errors
    /// It cannot be read, or index and pack do not fit.
    pub(in crate::mirror) fn open(path: &Path) -> io::Result<Self> {
        let index = fs_err::read(path)?;
        let file = fs_err::File::open(path.with_extension("pack"))?;
        let metadata = file.metadata()?;
        let (size, links) = (metadata.len(), metadata.nlink());
        if index.len() < HEADER + 2 * ID || index[..8] != MAGIC {
            return Err(broken("it is no index of version 2"));
        }
        let mut pack =
            Self { path: path.to_owned(), size, links, file, index, count: 0, order: Vec::new() };
        let mut before = 0;
        for byte in 0..256 {
            let here = pack.number(8 + 4 * byte);
            if here < before {
                return Err(broken("its numbers fall"));
            }
            before = here;
        }
        pack.count = before as usize;
        let least = HEADER + pack.count * (ID + 8) + 2 * ID;
        if pack.index.len() < least || !(pack.index.len() - least).is_multiple_of(8) {
            return Err(broken("it has been cut"));
        }
        let mut start = [0; 12];
        pack.file.file().read_exact_at(&mut start, 0)?;
        let mut end = [0; ID];
        pack.file.file().read_exact_at(&mut end, size.saturating_sub(ID as u64))?;
        let fits = start[..8] == *b"PACK\0\0\0\x02"
            && start[8..] == u32::to_be_bytes(before)
            && pack.index[pack.index.len() - 2 * ID..][..ID] == end;
        if !fits {
            return Err(broken("the pack is another one"));
        }
        let mut order = Vec::with_capacity(pack.count);
        for (number, at) in (0_u32..).zip(0..pack.count) {
            let offset = pack.offset(at).filter(|offset| (12..size - ID as u64).contains(offset));
            order.push((offset.ok_or_else(|| broken("an object is outside"))?, number));
        }
        order.sort_unstable();
        pack.order = order;
        Ok(pack)
    }

    /// Bytes of pack and index.
    pub(in crate::mirror) fn bytes(&self) -> u64 {
        self.size + self.index.len() as u64
    }

    /// How many objects it has.
    pub(in crate::mirror) fn count(&self) -> usize {
        self.count
    }

    /// Its objects by their number in the index, in the order in which the pack has them.
    pub(in crate::mirror) fn in_order(&self) -> impl Iterator<Item = usize> {
        self.order.iter().map(|(_, number)| *number as usize)
    }

    /// The number of an object.
    pub(in crate::mirror) fn find(&self, id: Oid) -> Option<usize> {
        let bytes = id.as_bytes();
        let first = usize::from(bytes[0]);
        let mut low = if first == 0 { 0 } else { self.number(8 + 4 * (first - 1)) as usize };
        let mut high = self.number(8 + 4 * first) as usize;
        while low < high {
            let middle = low.midpoint(high);
            match self.id_bytes(middle).cmp(&bytes[..ID]) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The id of an object.
    pub(in crate::mirror) fn id(&self, number: usize) -> Oid {
        Oid::from_bytes(self.id_bytes(number)).unwrap_or(Oid::ZERO_SHA1)
    }

    /// Bytes of an object in the pack.
    pub(in crate::mirror) fn length(&self, number: usize) -> u64 {
        let (start, end) = self.extent(number);
        end - start
    }

    /// The sum over the object's bytes in the pack, as the index has it.
    pub(super) fn checksum(&self, number: usize) -> u32 {
        self.number(HEADER + self.count * ID + 4 * number)
    }

    /// How an object begins.
    ///
    /// # Errors
    /// It cannot be read, or makes no sense.
    pub(in crate::mirror) fn head(&self, number: usize) -> io::Result<Head> {
        let (start, end) = self.extent(number);
        let mut bytes = [0; LONGEST_HEAD];
        let there = usize::try_from(end - start).unwrap_or(LONGEST_HEAD).min(LONGEST_HEAD);
        self.file.file().read_exact_at(&mut bytes[..there], start)?;
        self.parse(number, &bytes[..there])
    }

    /// Reads all bytes of an object, and says how it begins.
    pub(in crate::mirror) fn read(&self, number: usize, buffer: &mut Vec<u8>) -> io::Result<Head> {
        let (start, end) = self.extent(number);
        buffer.resize(usize::try_from(end - start).unwrap_or(usize::MAX), 0);
        self.file.file().read_exact_at(buffer, start)?;
        self.parse(number, &buffer[..buffer.len().min(LONGEST_HEAD)])
    }

    fn parse(&self, number: usize, bytes: &[u8]) -> io::Result<Head> {
        let mut rest = bytes.iter().copied();
        let mut next = || rest.next().ok_or_else(|| broken("an object ends too soon"));
        let first = next()?;
        let kind = first >> 4 & 7;
        let mut size = u64::from(first & 15);
        let mut shift = 4;
        let mut more = first & 0x80 != 0;
        while more {
            let byte = next()?;
            if shift > 57 {
                return Err(broken("an object is too large"));
            }
            size |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            more = byte & 0x80 != 0;
        }
        let base = match kind {
            1..=4 => None,
            OFFSET_DELTA => {
                let mut byte = next()?;
                let mut back = u64::from(byte & 0x7f);
                while byte & 0x80 != 0 {
                    byte = next()?;
                    if back >= 1 << 56 {
                        return Err(broken("an object refers too far back"));
                    }
                    back = ((back + 1) << 7) | u64::from(byte & 0x7f);
                }
                let at = self.extent(number).0.checked_sub(back).filter(|_| back > 0);
                let found = at.and_then(|at| self.order.binary_search_by_key(&at, |o| o.0).ok());
                let found = found.ok_or_else(|| broken("an object refers to none"))?;
                Some(self.order[found].1 as usize)
            }
            ID_DELTA => {
                let mut id = [0; ID];
                for byte in &mut id {
                    *byte = next()?;
                }
                let id = Oid::from_bytes(&id).unwrap_or(Oid::ZERO_SHA1);
                let found = self.find(id).filter(|found| *found != number);
                Some(found.ok_or_else(|| broken("an object refers to one in another pack"))?)
            }
            _ => return Err(broken("an object is of no kind")),
        };
        let length = bytes.len() - rest.len();
        Ok(Head { kind, size, length, base })
    }

    /// Reads the bytes of an object, in pieces.
    pub(super) fn copy(
        &self,
        number: usize,
        buffer: &mut [u8],
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let (mut at, end) = self.extent(number);
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            self.file.file().read_exact_at(&mut buffer[..wanted], at)?;
            take(&buffer[..wanted])?;
            at += wanted as u64;
        }
        Ok(())
    }

    /// The compressed bytes of an object, from `skip` bytes behind its beginning.
    pub(in crate::mirror) fn bytes_of(&self, number: usize, skip: usize) -> impl io::BufRead {
        let (start, end) = self.extent(number);
        io::BufReader::new(Extent { file: self.file.file(), at: start + skip as u64, end })
    }

    fn extent(&self, number: usize) -> (u64, u64) {
        let start = self.offset(number).unwrap_or_default();
        let after = self.order.partition_point(|(offset, _)| *offset <= start);
        let end = self.order.get(after).map_or(self.size - ID as u64, |(offset, _)| *offset);
        (start, end)
    }

    fn id_bytes(&self, number: usize) -> &[u8] {
        &self.index[HEADER + number * ID..][..ID]
    }

    fn offset(&self, number: usize) -> Option<u64> {
        let short = self.number(HEADER + self.count * (ID + 4) + 4 * number);
        if short < LONG {
            return Some(u64::from(short));
        }
        let long = HEADER + self.count * (ID + 8) + 8 * (short - LONG) as usize;
        let bytes = self.index.get(long..long + 8)?;
        // The two checksums at the end are no offsets.
        (long + 8 <= self.index.len() - 2 * ID)
            .then(|| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn number(&self, at: usize) -> u32 {
        self.index[at..at + 4].iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
    }
}

/// A part of a file, without moving its position.
struct Extent<'a> {
    file: &'a std::fs::File,
    at: u64,
    end: u64,
}

impl io::Read for Extent<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.end.saturating_sub(self.at);
        let most = usize::try_from(rest).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
