//! TLS as a link of ureq's chain, around whatever connection the links before it have made:
//! for requests to others than git servers.

use std::fmt;
use std::io::{Read, Write};

use openssl::ssl::{HandshakeError, SslConnector, SslStream};
use openssl::x509::X509VerifyResult;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};

use super::io_or_ureq;
use crate::mirror::dial::unbracketed;

/// The certificate did not hold; OpenSSL's reason.
#[derive(Debug, thiserror::Error)]
#[error("the server's certificate is not trusted: {0}")]
struct CertificateProblem(String);

/// The link of ureq's chain that puts TLS around a connection.
pub(crate) struct TlsConnector {
    context: SslConnector,
}

impl TlsConnector {
    /// With the authorities of this context.
    pub(in crate::mirror) fn new(context: SslConnector) -> Self {
        Self { context }
    }
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsConnector")
    }
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsLink>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(plain) = chained else { return Ok(None) };
        if !details.needs_tls() || plain.is_tls() {
            return Ok(Some(Either::A(plain)));
        }
        let host = unbracketed(details.uri.host().unwrap_or_default());
        let mut adapter = TransportAdapter::new(plain.boxed(), details.current_time.clone());
        adapter.set_timeout(details.timeout);
        let stream = self.context.connect(host, adapter).map_err(|error| match error {
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
        let buffers = LazyBuffers::new(
            details.config.input_buffer_size(),
            details.config.output_buffer_size(),
        );
        Ok(Some(Either::B(TlsLink { stream, buffers })))
    }
}

/// A connection with TLS around another.
pub(crate) struct TlsLink {
    stream: SslStream<TransportAdapter>,
    buffers: LazyBuffers,
}

impl fmt::Debug for TlsLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsLink")
    }
}

impl Transport for TlsLink {
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
