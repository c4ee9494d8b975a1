//! A connection with TLS as ureq wants to have it.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use openssl::ssl::{ShutdownState, SslStream};
use ureq::config::Config;
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport};

use super::line::State;
use crate::mirror::tls::Wire;

/// How long is waited for the end of an answer of which nothing more is wanted: longer than a
/// connection takes to be made, because servers that keep it back are rare, and slow ones not.
const HURRY: Duration = Duration::from_secs(1);

/// A connection with TLS.
pub(super) struct TlsTransport {
    stream: SslStream<Wire>,
    buffers: LazyBuffers,
    /// As they are set on the socket: for reading, for writing.
    limits: [Option<Duration>; 2],
    state: Arc<State>,
}

impl TlsTransport {
    pub(super) fn new(stream: SslStream<Wire>, config: &Config, state: Arc<State>) -> Self {
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Self { stream, buffers, limits: [None; 2], state }
    }

    fn limit(&mut self, writing: bool, timeout: NextTimeout) -> io::Result<()> {
        let mut limit = timeout.not_zero().map(|limit| *limit);
        if self.state.is_hurried() {
            limit = Some(limit.map_or(HURRY, |limit| limit.min(HURRY)));
        }
        let known = &mut self.limits[usize::from(writing)];
        if *known != limit {
            let socket = self.stream.get_ref();
            if writing {
                socket.set_write_timeout(limit)?;
            } else {
                socket.set_read_timeout(limit)?;
            }
            *known = limit;
        }
        Ok(())
    }
}

fn explained(error: io::Error, timeout: NextTimeout) -> ureq::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ureq::Error::Timeout(timeout.reason),
        _ => ureq::Error::Io(error),
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

impl Drop for TlsTransport {
    fn drop(&mut self) {
        // Who says nothing of it cannot go on with the session later.
        if self.state.falls() {
            let _ = self.stream.shutdown();
        } else {
            self.stream.set_shutdown(ShutdownState::SENT);
        }
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let timeout = timeout.for_write();
        self.limit(true, timeout)?;
        let output = &self.buffers.output()[..amount];
        self.stream.write_all(output).map_err(|error| explained(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let timeout = timeout.for_read();
        self.limit(false, timeout)?;
        let input = self.buffers.input_append_buf();
        let amount = self.stream.read(input).map_err(|error| explained(error, timeout))?;
        self.buffers.input_appended(amount);
        if amount > 0 {
            self.state.answers();
        }
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        // Nothing is expected between two answers: what arrives, or an end, closes it.
        self.stream.ssl().pending() == 0 && self.stream.get_ref().is_quiet()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
