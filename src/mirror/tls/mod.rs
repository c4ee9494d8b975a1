//! TLS, by the OpenSSL that is built in. Certificates are always checked: there is no
//! variable, option or configuration that switches it off.

mod authorities;
mod chain;
mod verdict;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use openssl::ssl::{HandshakeError, MidHandshakeSslStream, SslStream, SslVerifyMode};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use super::dial::{self, bracketed};
use super::examine::Certificate;
use super::failure::{Failure, Step, harmless};
use super::proxy::Proxy;
use super::watch::Clock;
use super::{Remote, Trust};

use crate::sync::lock;
pub(super) use authorities::{context, described as described_authorities};
pub(crate) use chain::TlsConnector;
use verdict::Refused;

/// How a server is reached: by its name, through a proxy perhaps, and what it is trusted by.
pub(super) struct Way {
    host: String,
    port: u16,
    proxy: Option<Proxy>,
    trust: Trust,
    clock: Arc<Clock>,
}

impl Way {
    /// To the server of `remote`, whose authority is given.
    pub(super) fn new(authority: &str, remote: &Remote, clock: Arc<Clock>) -> Self {
        let (host, port) = dial::split(authority, 443);
        Self {
            host: host.to_owned(),
            port,
            proxy: remote.proxy.clone(),
            trust: remote.trust.clone(),
            clock,
        }
    }

    /// Connects and shakes hands, in the time there is for both.
    ///
    /// # Errors
    /// What [`dial::connect`] has, [`Failure::Certificate`], [`Failure::NoTls`],
    /// [`Failure::Broken`].
    pub(super) fn connect(&self) -> Result<SslStream<Wire>, Failure> {
        let clock = &*self.clock;
        let until = Instant::now() + clock.connect_limit();
        let context = context(&self.trust)?;
        let stream = dial::connect(&self.host, self.port, self.proxy.as_ref(), clock)?;
        let connecting = clock.connecting(&stream, until);
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let limited =
            stream.set_read_timeout(Some(left)).and_then(|()| stream.set_write_timeout(Some(left)));
        limited.map_err(|error| clock.broken(&error.to_string()))?;
        let refused: Arc<Mutex<Option<Refused>>> = Arc::default();
        let mut configuration = context.configure().map_err(|e| self.no_tls(&e.to_string()))?;
        let (eyes, keep) = (clock.eyes().clone(), Arc::clone(&refused));
        // Of a certificate that is refused OpenSSL keeps nothing, so it is taken down here.
        // The verdict itself stays OpenSSL's.
        configuration.set_verify_callback(SslVerifyMode::PEER, move |good, judged| {
            if let Some(shown) = judged.chain().and_then(|chain| chain.get(0)) {
                eyes.see(|seen| seen.certificate = Some(Certificate::of(shown)));
            }
            if !good {
                lock(&keep).get_or_insert_with(|| Refused::of(judged));
            }
            good
        });
        let stream = configuration.connect(&self.host, Wire(stream)).map_err(|error| {
            if let Some(failure) = clock.failure() {
                return failure;
            }
            if let Some(refused) = lock(&refused).take() {
                let authorities = described_authorities(&self.trust);
                return refused.into_failure(self.shown(), authorities);
            }
            match error {
                HandshakeError::SetupFailure(stack) => self.no_tls(&stack.to_string()),
                HandshakeError::Failure(half) | HandshakeError::WouldBlock(half) => {
                    self.broken_off(half, connecting.is_late())
                }
            }
        })?;
        clock.eyes().see(|seen| seen.tls = Some(stream.ssl().version_str().to_owned()));
        Ok(stream)
    }

    fn broken_off(&self, half: MidHandshakeSslStream<Wire>, late: bool) -> Failure {
        let error = half.into_error();
        let slow = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
        };
        if late || error.io_error().is_some_and(slow) {
            return self.clock.timeout(Step::Connect);
        }
        if let Some(reason) = error.ssl_error().and_then(|stack| stack.errors().first()?.reason()) {
            // OpenSSL 3 has this among its own errors.
            if reason.contains("unexpected eof") {
                return self.clock.broken("the server hung up during the TLS handshake");
            }
            return self.no_tls(reason);
        }
        match error.into_io_error() {
            Ok(error) => self.clock.broken(&format!("TLS handshake: {error}")),
            Err(_) => self.clock.broken("the server hung up during the TLS handshake"),
        }
    }

    fn no_tls(&self, reason: &str) -> Failure {
        Failure::NoTls { host: self.shown(), reason: harmless(reason.as_bytes()) }
    }

    fn shown(&self) -> String {
        format!("{}:{}", bracketed(&self.host), self.port)
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Way({})", self.shown())
    }
}

/// For ureq: whatever URL it is asked for, it gets a connection to the one server. A failure
/// comes back inside of its error.
impl Connector for Way {
    type Out = TlsTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<TlsTransport>, ureq::Error> {
        let stream = Self::connect(self).map_err(|failure| ureq::Error::Other(failure.into()))?;
        let buffers = LazyBuffers::new(
            details.config.input_buffer_size(),
            details.config.output_buffer_size(),
        );
        Ok(Some(TlsTransport { stream, buffers, limits: [None; 2] }))
    }
}

/// ureq's own error, if one is hidden inside.
pub(super) fn io_or_ureq(error: io::Error) -> ureq::Error {
    match error.downcast::<ureq::Error>() {
        Ok(error) => error,
        Err(error) => ureq::Error::Io(error),
    }
}

/// A socket whose reads and writes go on after a signal; those with a time limit are not
/// started again by the kernel.
pub(super) struct Wire(TcpStream);

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| self.0.read(buffer))
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        uninterrupted(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn uninterrupted(mut work: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// A connection with TLS.
pub(super) struct TlsTransport {
    stream: SslStream<Wire>,
    buffers: LazyBuffers,
    /// As they are set on the socket: for reading, for writing.
    limits: [Option<Duration>; 2],
}

impl TlsTransport {
    fn limit(&mut self, writing: bool, timeout: NextTimeout) -> io::Result<()> {
        let limit = timeout.not_zero().map(|limit| *limit);
        let known = &mut self.limits[usize::from(writing)];
        if *known != limit {
            let socket = &self.stream.get_ref().0;
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
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        // Nothing is expected between two answers: what arrives, or an end, closes it.
        let socket = &self.stream.get_ref().0;
        let mut byte = [0];
        let quiet = socket.set_nonblocking(true).is_ok()
            && socket.peek(&mut byte).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock);
        quiet && socket.set_nonblocking(false).is_ok()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
