//! TLS, by the OpenSSL that is built in. Certificates are always checked: there is no
//! variable, option or configuration that switches it off.

mod authorities;
mod chain;
mod sessions;
mod verdict;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use openssl::ssl::{HandshakeError, MidHandshakeSslStream, SslStream, SslVerifyMode};

use super::dial::{self, bracketed};
use super::examine::Certificate;
use super::failure::{Failure, Step, harmless};
use super::proxy::Proxy;
use super::watch::{Clock, Closing};
use super::{Remote, Trust};

use crate::sync::lock;
pub(super) use authorities::{context, described as described_authorities};
pub(crate) use chain::TlsConnector;
use verdict::Refused;

/// How a server is reached: by its name, through a proxy perhaps, and what it is trusted by.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Way {
    host: String,
    port: u16,
    proxy: Option<Proxy>,
    trust: Trust,
}

/// A connection that stands.
pub(super) struct Connected {
    /// With TLS around it.
    pub(super) stream: SslStream<Wire>,
    /// That it is closed when the fetch must end.
    pub(super) closing: Option<Closing>,
}

impl Way {
    /// To the server of `remote`, whose authority is given.
    pub(super) fn new(authority: &str, remote: &Remote) -> Self {
        let (host, port) = dial::split(authority, 443);
        Self {
            host: host.to_owned(),
            port,
            proxy: remote.proxy.clone(),
            trust: remote.trust.clone(),
        }
    }

    /// Connects and shakes hands, in the time there is for both.
    ///
    /// # Errors
    /// What [`dial::connect`] has, [`Failure::Certificate`], [`Failure::NoTls`],
    /// [`Failure::Broken`].
    pub(super) fn connect(&self, clock: &Clock) -> Result<Connected, Failure> {
        let until = Instant::now() + clock.connect_limit();
        let context = context(&self.trust)?;
        let (stream, closing) = dial::connect(&self.host, self.port, self.proxy.as_ref(), clock)?;
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
        // Who looks at the certificate wants to be shown it.
        if !clock.eyes().are_open() {
            sessions::resume(&mut configuration, self);
        }
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
                    self.broken_off(half, clock, connecting.is_late())
                }
            }
        })?;
        clock.eyes().see(|seen| seen.tls = Some(stream.ssl().version_str().to_owned()));
        Ok(Connected { stream, closing })
    }

    fn broken_off(&self, half: MidHandshakeSslStream<Wire>, clock: &Clock, late: bool) -> Failure {
        let error = half.into_error();
        let slow = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
        };
        if late || error.io_error().is_some_and(slow) {
            return clock.timeout(Step::Connect);
        }
        if let Some(reason) = error.ssl_error().and_then(|stack| stack.errors().first()?.reason()) {
            // OpenSSL 3 has this among its own errors.
            if reason.contains("unexpected eof") {
                return clock.broken("the server hung up during the TLS handshake");
            }
            return self.no_tls(reason);
        }
        match error.into_io_error() {
            Ok(error) => clock.broken(&format!("TLS handshake: {error}")),
            Err(_) => clock.broken("the server hung up during the TLS handshake"),
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

impl Wire {
    /// The socket once more.
    pub(super) fn socket(&self) -> Option<TcpStream> {
        self.0.try_clone().ok()
    }

    pub(super) fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(limit)
    }

    pub(super) fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.0.set_write_timeout(limit)
    }

    /// Whether it is open, and nothing has come that was not read.
    pub(super) fn is_quiet(&self) -> bool {
        let quiet = self.0.set_nonblocking(true).is_ok()
            && self.0.peek(&mut [0]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock);
        quiet && self.0.set_nonblocking(false).is_ok()
    }
}

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
