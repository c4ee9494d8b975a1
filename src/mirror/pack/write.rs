//! A new pack and its index.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use git2::Oid;
use openssl::sha::Sha1;

use super::{Head, ID, OFFSET_DELTA, Pack};

/// Read and written at a time.
const PIECE: usize = 1 << 16;

/// A pack that is being written.
pub(in crate::mirror) struct Writer {
    output: Output,
    entries: Vec<Entry>,
    buffer: Vec<u8>,
}

struct Entry {
    id: Oid,
    checksum: u32,
    offset: u64,
}

struct Output {
    file: BufWriter<fs_err::File>,
    path: PathBuf,
    hash: Sha1,
    /// Over the object that is being written.
    sum: flate2::Crc,
    offset: u64,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.sum.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Writer {
    /// Begins a pack of this many objects in a directory.
    pub(in crate::mirror) fn new(directory: &Path, count: usize) -> io::Result<Self> {
        let path = directory.join("new");
        let file = fs_err::OpenOptions::new().write(true).create_new(true).open(&path)?;
        let mut output = Output {
            file: BufWriter::with_capacity(PIECE, file),
            path,
            hash: Sha1::new(),
            sum: flate2::Crc::new(),
            offset: 0,
        };
        let many = || io::Error::new(io::ErrorKind::InvalidInput, "too many objects for one pack");
        output.write_all(b"PACK\0\0\0\x02")?;
        output.write_all(&u32::try_from(count).map_err(|_| many())?.to_be_bytes())?;
        Ok(Self { output, entries: Vec::with_capacity(count), buffer: vec![0; PIECE] })
    }

    /// Copies an object as it is; `base` is where in this pack the object is that it is a
    /// difference to. Gives where it is now.
    ///
    /// # Errors
    /// It cannot be read or written, or is not what the index promises.
    pub(in crate::mirror) fn copy(
        &mut self,
        from: &Pack,
        number: usize,
        head: &Head,
        base: Option<u64>,
    ) -> io::Result<u64> {
        let offset =
            self.begin(if base.is_some() { OFFSET_DELTA } else { head.kind }, head.size)?;
        if let Some(base) = base {
            let mut back = offset - base;
            let mut bytes = vec![(back & 0x7f) as u8];
            while back > 0x7f {
                back = (back >> 7) - 1;
                bytes.push((back & 0x7f) as u8 | 0x80);
            }
            bytes.reverse();
            self.output.write_all(&bytes)?;
        }
        let mut sum = flate2::Crc::new();
        let mut skip = head.length;
        let output = &mut self.output;
        from.copy(number, &mut self.buffer, |piece| {
            sum.update(piece);
            let from = skip.min(piece.len());
            skip -= from;
            output.write_all(&piece[from..])
        })?;
        if sum.sum() != from.checksum(number) {
            let what = format!("object {} is damaged", from.id(number));
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        self.end(from.id(number), offset);
        Ok(offset)
    }

    /// Writes an object that is not in a pack, or only as a difference to one that is not
    /// wanted. Gives where it is now.
    pub(in crate::mirror) fn add(
        &mut self,
        id: Oid,
        kind: git2::ObjectType,
        content: &[u8],
    ) -> io::Result<u64> {
        let kind = match kind {
            git2::ObjectType::Commit => 1,
            git2::ObjectType::Tree => 2,
            git2::ObjectType::Blob => 3,
            git2::ObjectType::Tag => 4,
            git2::ObjectType::Any => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let offset = self.begin(kind, content.len() as u64)?;
        let mut packed = ZlibEncoder::new(&mut self.output, Compression::default());
        packed.write_all(content)?;
        packed.finish()?;
        self.end(id, offset);
        Ok(offset)
    }

    fn begin(&mut self, kind: u8, mut size: u64) -> io::Result<u64> {
        let offset = self.output.offset;
        self.output.sum.reset();
        let mut bytes = vec![kind << 4 | (size & 15) as u8];
        size >>= 4;
        while size > 0 {
            if let Some(last) = bytes.last_mut() {
                *last |= 0x80;
            }
            bytes.push((size & 0x7f) as u8);
            size >>= 7;
        }
        self.output.write_all(&bytes)?;
        Ok(offset)
    }

    fn end(&mut self, id: Oid, offset: u64) {
        self.entries.push(Entry { id, checksum: self.output.sum.sum(), offset });
    }

    /// Writes the index, syncs both, and gives them their name: the path of the index.
    pub(in crate::mirror) fn finish(self) -> io::Result<PathBuf> {
        let Self { mut output, mut entries, .. } = self;
        let hash = output.hash.clone().finish();
        output.file.write_all(&hash)?;
        let file = output.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.set_permissions(read_only())?;
        file.sync_all()?;
        entries.sort_unstable_by_key(|entry| entry.id);
        let name = hash.iter().fold("pack-".to_owned(), |name, byte| name + &format!("{byte:02x}"));
        let index = output.path.with_file_name(name).with_extension("idx");
        write_index(&index, &entries, &hash)?;
        fs_err::rename(&output.path, index.with_extension("pack"))?;
        Ok(index)
    }
}

fn read_only() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o444)
}

fn write_index(path: &Path, entries: &[Entry], pack: &[u8; ID]) -> io::Result<()> {
    let mut text = Vec::with_capacity(8 + 1024 + entries.len() * (ID + 8) + 2 * ID);
    text.extend_from_slice(&[0xff, b't', b'O', b'c', 0, 0, 0, 2]);
    for byte in 0..=u8::MAX {
        let up_to = entries.partition_point(|entry| entry.id.as_bytes()[0] <= byte);
        text.extend_from_slice(&u32::try_from(up_to).unwrap_or(u32::MAX).to_be_bytes());
    }
    for entry in entries {
        text.extend_from_slice(&entry.id.as_bytes()[..ID]);
    }
    for entry in entries {
        text.extend_from_slice(&entry.checksum.to_be_bytes());
    }
    let mut long = Vec::new();
    for entry in entries {
        let short = match u32::try_from(entry.offset) {
            Ok(short) if short < 1 << 31 => short,
            _ => {
                long.extend_from_slice(&entry.offset.to_be_bytes());
                1 << 31 | u32::try_from(long.len() / 8 - 1).unwrap_or_default()
            }
        };
        text.extend_from_slice(&short.to_be_bytes());
    }
    text.extend_from_slice(&long);
    text.extend_from_slice(pack);
    text.extend_from_slice(&openssl::sha::sha1(&text));
    let mut file = fs_err::OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(&text)?;
    file.set_permissions(read_only())?;
    file.sync_all()
}
