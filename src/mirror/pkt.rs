//! git's framing: `pkt-line`.

use std::io::{self, BufReader, Read};

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pkt<'a> {
    /// `0000`
    Flush,
    /// `0001`
    Delimiter,
    /// `0002`
    ResponseEnd,
    /// Anything with content.
    Data(&'a [u8]),
}

impl<'a> Pkt<'a> {
    /// The content as a line, without its line feed.
    pub(super) fn line(&self) -> Option<&'a [u8]> {
        match self {
            Self::Data(data) => Some(data.strip_suffix(b"\n").unwrap_or(data)),
            Self::Flush | Self::Delimiter | Self::ResponseEnd => None,
        }
    }
}

/// Reads frames.
pub(super) struct PktReader<R> {
    inner: BufReader<R>,
    frame: Vec<u8>,
    bytes: u64,
}

impl<R: Read> PktReader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner: BufReader::with_capacity(1 << 16, inner), frame: Vec::new(), bytes: 0 }
    }

    /// What comes behind the frames, unless some of that has been read.
    pub(super) fn into_rest(self) -> Option<R> {
        self.inner.buffer().is_empty().then(|| self.inner.into_inner())
    }

    /// Bytes read so far, framing included.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next frame.
    ///
    /// # Errors
    /// `UnexpectedEof` at the end of the stream, `InvalidData` for what is no frame.
    pub(super) fn next(&mut self) -> io::Result<Pkt<'_>> {
        let mut head = [0; 4];
        self.inner.read_exact(&mut head)?;
        self.bytes += 4;
        let length = std::str::from_utf8(&head)
            .ok()
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| usize::from_str_radix(digits, 16).ok());
        match length {
            Some(0) => Ok(Pkt::Flush),
            Some(1) => Ok(Pkt::Delimiter),
            Some(2) => Ok(Pkt::ResponseEnd),
            Some(length @ 4..) => {
                self.frame.resize(length - 4, 0);
                self.inner.read_exact(&mut self.frame)?;
                self.bytes += self.frame.len() as u64;
                Ok(Pkt::Data(&self.frame))
            }
            Some(3) | None => Err(self.not_a_frame(&head)),
        }
    }

    /// Reads a little more, so that the message shows what came instead.
    fn not_a_frame(&mut self, head: &[u8]) -> io::Error {
        let mut text = head.to_vec();
        let _ = self.inner.by_ref().take(120).read_to_end(&mut text);
        io::Error::new(io::ErrorKind::InvalidData, super::failure::harmless(&text))
    }
}

/// Appends a frame.
pub(super) fn push(buffer: &mut Vec<u8>, line: &str) {
    buffer.extend_from_slice(format!("{:04x}{line}", line.len() + 4).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_what_is_none() {
        let mut bytes = Vec::new();
        push(&mut bytes, "want x\n");
        bytes.extend_from_slice(b"000100000002");
        push(&mut bytes, "");
        let mut reader = PktReader::new(bytes.as_slice());
        assert_eq!(reader.next().unwrap().line(), Some(b"want x".as_slice()));
        assert_eq!(reader.next().unwrap(), Pkt::Delimiter);
        assert_eq!(reader.next().unwrap(), Pkt::Flush);
        assert_eq!(reader.next().unwrap(), Pkt::ResponseEnd);
        assert_eq!(reader.next().unwrap(), Pkt::Data(b""));
        assert_eq!(reader.bytes(), bytes.len() as u64);
        let at_end = reader.next().unwrap_err();
        assert_eq!(at_end.kind(), io::ErrorKind::UnexpectedEof);
        for bad in ["0003", "<html>", "+00a", "00zz"] {
            let error = PktReader::new(bad.as_bytes()).next().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bad}");
        }
        let cut = PktReader::new(b"0010abc".as_slice()).next().unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }
}
