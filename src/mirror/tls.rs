//! TLS for the HTTP client, by the OpenSSL that is built in: the system's certificate
//! authorities wherever the distribution keeps them, and a host's own.

use std::collections::HashMap;
use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use openssl::error::ErrorStack;
use openssl::ssl::{
    ConnectConfiguration, HandshakeError, SslConnector, SslConnectorBuilder, SslMethod, SslStream,
    SslVerifyMode, SslVersion,
};
use openssl::x509::X509VerifyResult;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};

use super::examine::{Certificate, Eyes};
use super::{Failure, Trust};

/// The certificate did not hold; OpenSSL's reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct CertificateProblem(pub String);

/// The contexts made so far: loading the authorities costs some 40 ms, once per set of them.
static CONTEXTS: Mutex<Option<Contexts>> = Mutex::new(None);

/// By `ca_file` and `ca_bundle`.
type Contexts = HashMap<(Option<PathBuf>, Option<PathBuf>), SslConnector>;

/// A context that trusts what `trust` says.
///
/// # Errors
/// A `ca_file` that cannot be read or holds no certificate.
pub(super) fn context(trust: &Trust) -> Result<SslConnector, Failure> {
    let key = (trust.ca_file.clone(), trust.ca_bundle.clone());
    let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let contexts = contexts.get_or_insert_default();
    if let Some(context) = contexts.get(&key) {
        return Ok(context.clone());
    }
    let mut builder = SslConnector::builder(SslMethod::tls_client())
        .and_then(|mut builder| {
            builder.set_min_proto_version(Some(SslVersion::TLS1_2)).map(|()| builder)
        })
        .map_err(|error| Failure::file("set up TLS with", Path::new("/"), error.into()))?;
    system_authorities(&mut builder, trust)?;
    if let Some(file) = &trust.ca_file {
        add_file(&mut builder, file)?;
    }
    let context = builder.build();
    contexts.insert(key, context.clone());
    Ok(context)
}

/// The system's authorities. A directory with hashed names is only looked into for the one
/// that is needed; a bundle must be read as a whole.
fn system_authorities(builder: &mut SslConnectorBuilder, trust: &Trust) -> Result<(), Failure> {
    if let Some(bundle) = &trust.ca_bundle {
        return add_file(builder, bundle);
    }
    // Nothing there: only a host's own authority can be trusted.
    let Some(store) = system_store() else { return Ok(()) };
    let loaded = match &store {
        Store::Directory(directory) => builder.load_verify_locations(None, Some(directory)),
        Store::File(file) => builder.load_verify_locations(Some(file), None),
    };
    loaded.map_err(|error| {
        let doing = "load the system's certificate authorities from";
        Failure::file(doing, store.path(), error.into())
    })
}

/// Where the distribution keeps the certificate authorities.
pub(super) enum Store {
    /// With hashed names.
    Directory(PathBuf),
    /// A bundle.
    File(PathBuf),
}

impl Store {
    /// Its path.
    pub(super) fn path(&self) -> &Path {
        let (Self::Directory(path) | Self::File(path)) = self;
        path
    }
}

/// The system's authorities, if it has any.
pub(super) fn system_store() -> Option<Store> {
    let found = openssl_probe::probe();
    let hashed = found.cert_dir.filter(|dir| has_hashed_names(dir));
    hashed.map(Store::Directory).or_else(|| found.cert_file.map(Store::File))
}

fn has_hashed_names(directory: &Path) -> bool {
    let hashed = |name: &str| {
        let (hash, number) = name.split_once('.').unwrap_or_default();
        hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()) && number == "0"
    };
    fs_err::read_dir(directory).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(hashed))
    })
}

fn add_file(builder: &mut SslConnectorBuilder, file: &Path) -> Result<(), Failure> {
    let doing = "read the certificate authorities in";
    fs_err::File::open(file).map_err(|error| Failure::file(doing, file, error))?;
    builder
        .load_verify_locations(Some(file), None)
        .map_err(|error| Failure::file(doing, file, error.into()))
}

/// The link of ureq's chain that puts TLS around a connection.
pub(crate) struct TlsConnector {
    context: SslConnector,
    eyes: Eyes,
}

impl TlsConnector {
    pub(super) fn new(context: SslConnector, eyes: Eyes) -> Self {
        Self { context, eyes }
    }

    /// The context for one connection. The certificate is taken down for those who look
    /// before it is judged: of one that is refused, OpenSSL keeps nothing.
    fn configuration(&self) -> Result<ConnectConfiguration, ErrorStack> {
        let mut configuration = self.context.configure()?;
        if self.eyes.are_open() {
            let eyes = self.eyes.clone();
            configuration.set_verify_callback(SslVerifyMode::PEER, move |good, judged| {
                if let Some(shown) = judged.chain().and_then(|chain| chain.get(0)) {
                    eyes.see(|seen| seen.certificate = Some(Certificate::of(shown)));
                }
                good
            });
        }
        Ok(configuration)
    }
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConnector")
    }
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(plain) = chained else { return Ok(None) };
        if !details.needs_tls() || plain.is_tls() {
            return Ok(Some(Either::A(plain)));
        }
        let host = details.uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut adapter = TransportAdapter::new(plain.boxed(), details.current_time.clone());
        adapter.set_timeout(details.timeout);
        let configuration =
            self.configuration().map_err(|stack| ureq::Error::Other(stack.into()))?;
        let stream = configuration.connect(host, adapter).map_err(|error| match error {
            HandshakeError::SetupFailure(stack) => ureq::Error::Other(stack.into()),
            HandshakeError::Failure(half) | HandshakeError::WouldBlock(half) => {
                let verdict = half.ssl().verify_result();
                if verdict != X509VerifyResult::OK {
                    let reason = verdict.error_string().to_owned();
                    return ureq::Error::Other(CertificateProblem(reason).into());
                }
                match half.into_error().into_io_error() {
                    Ok(error) => io_or_ureq(error),
                    Err(error) => ureq::Error::Other(error.into()),
                }
            }
        })?;
        self.eyes.see(|seen| seen.tls = Some(stream.ssl().version_str().to_owned()));
        let buffers = LazyBuffers::new(
            details.config.input_buffer_size(),
            details.config.output_buffer_size(),
        );
        Ok(Some(Either::B(TlsTransport { stream, buffers })))
    }
}

/// ureq's own error, if one is hidden inside.
pub(super) fn io_or_ureq(error: std::io::Error) -> ureq::Error {
    match error.downcast::<ureq::Error>() {
        Ok(error) => error,
        Err(error) => ureq::Error::Io(error),
    }
}

/// A connection with TLS.
pub(crate) struct TlsTransport {
    stream: SslStream<TransportAdapter>,
    buffers: LazyBuffers,
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
        self.stream.get_mut().set_timeout(timeout);
        let output = &self.buffers.output()[..amount];
        self.stream.write_all(output).map_err(io_or_ureq)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf()).map_err(io_or_ureq)?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
