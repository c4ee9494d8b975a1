//! What a child writes, taken from its pipes line by line.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// A longer line is delivered in pieces, so that memory is bounded.
const MAX_LINE: usize = 64 << 10;

/// Which of a child's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// A line of output, or a piece of a very long one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Where it was written.
    pub stream: Stream,
    /// Its bytes without the newline, exactly as written (a carriage return included).
    /// Not necessarily UTF-8.
    pub bytes: &'a [u8],
    /// The line goes on in the next call for the same stream.
    pub continues: bool,
}

/// The reading end of a pipe.
pub(super) trait Source: Read + AsFd {}
impl<T: Read + AsFd> Source for T {}

pub(super) struct Pipe {
    stream: Stream,
    pub(super) source: Option<Box<dyn Source>>,
    line: Vec<u8>,
}

impl Pipe {
    pub(super) fn new(stream: Stream, source: Option<Box<dyn Source>>) -> Self {
        if let Some(source) = &source {
            nonblocking(source.as_fd());
        }
        Self { stream, source, line: Vec::new() }
    }

    /// Takes what is there; a bounded amount, so that a flood on one pipe starves nothing.
    pub(super) fn read(&mut self, on_line: &mut dyn FnMut(Line<'_>)) {
        let mut buffer = [0; 16 << 10];
        for _ in 0..8 {
            let Some(source) = &mut self.source else { return };
            match source.read(&mut buffer) {
                Ok(0) => self.finish(on_line),
                Ok(n) => self.take(&buffer[..n], on_line),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.finish(on_line),
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8], on_line: &mut dyn FnMut(Line<'_>)) {
        let stream = self.stream;
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (head, tail) = bytes.split_at(end);
            bytes = &tail[1..];
            if self.line.is_empty() {
                on_line(Line { stream, bytes: head, continues: false });
            } else {
                self.line.extend_from_slice(head);
                on_line(Line { stream, bytes: &self.line, continues: false });
                self.line.clear();
            }
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() >= MAX_LINE {
            on_line(Line { stream, bytes: &self.line, continues: true });
            self.line.clear();
        }
    }

    /// Delivers a last line without newline and closes the pipe.
    pub(super) fn finish(&mut self, on_line: &mut dyn FnMut(Line<'_>)) {
        if !self.line.is_empty() {
            on_line(Line { stream: self.stream, bytes: &self.line, continues: false });
            self.line.clear();
        }
        self.source = None;
    }
}

pub(super) fn nonblocking(fd: BorrowedFd<'_>) {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_or(OFlag::empty(), OFlag::from_bits_truncate);
    let _ = fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK));
}
