//! One short HTTP request to somebody who is not a git server: a health check, a webhook.

use std::io::Read;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use ureq::http::{self, Method, header};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector as _, TcpConnector};
use ureq::{Agent, Timeout};

use crate::domain::Secret;
use crate::mirror;
use crate::process::Interrupt;

/// Bytes of an answer that are read.
const MOST: u64 = 4096;
/// How soon a signal is noticed.
const TICK: Duration = Duration::from_millis(50);

/// What to ask.
#[derive(Debug, Clone)]
pub struct Request {
    /// `http://…` or `https://…`. Errors do not show it: it may be a secret.
    pub url: Secret,
    /// A JSON document to post; without one it is a GET.
    pub json: Option<String>,
    /// How long it may take in all.
    pub within: Duration,
    /// The proxy, if there is one.
    pub proxy: Option<Secret>,
    /// Authorities (PEM) trusted instead of the system's.
    pub ca_bundle: Option<PathBuf>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status. Redirects are not followed.
    pub status: u16,
    /// The beginning of the body.
    pub body: String,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no URL.
    #[error("the URL cannot be read")]
    Url,
    /// The proxy's is none.
    #[error("the proxy's URL cannot be read")]
    Proxy,
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] Box<mirror::Failure>),
    /// It took longer than it may.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// A signal came.
    #[error("ended by a signal")]
    Interrupted,
    /// Name look-up, connection, TLS or protocol.
    #[error("{0}")]
    Network(String),
}

/// Sends a request and waits for the answer, the end of its time, or a signal.
///
/// # Errors
/// All but an answer; a bad status is an answer.
pub fn send(request: &Request, interrupt: &Interrupt) -> Result<Answer, Error> {
    let agent = agent(request)?;
    let mut built = http::Request::builder().uri(request.url.expose());
    built = built.method(if request.json.is_some() { Method::POST } else { Method::GET });
    if request.json.is_some() {
        built = built.header(header::CONTENT_TYPE, "application/json");
    }
    let built = built.body(request.json.clone().unwrap_or_default()).map_err(|_| Error::Url)?;
    let within = request.within;
    let started = Instant::now();
    let (sender, receiver) = channel();
    // In a thread of its own: a signal must not wait for a name server.
    std::thread::spawn(move || {
        let _ = sender.send(exchange(&agent, built, within));
    });
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Disconnected) => return Err(Error::Network("no answer".into())),
            Err(RecvTimeoutError::Timeout) if interrupt.signal().is_some() => {
                return Err(Error::Interrupted);
            }
            // A little more than it gives itself.
            Err(RecvTimeoutError::Timeout) if started.elapsed() > within + 4 * TICK => {
                return Err(Error::Timeout(within));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn agent(request: &Request) -> Result<Agent, Error> {
    let proxy = request.proxy.as_ref().map(|proxy| ureq::Proxy::new(proxy.expose()));
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(proxy.transpose().map_err(|_| Error::Proxy)?)
        .user_agent(concat!("multideployer/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(request.within))
        .build();
    let connector = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default());
    // The authorities take their time to load, and most checks are of this host, without TLS.
    if !request.url.expose().to_ascii_lowercase().starts_with("https:") {
        return Ok(Agent::with_parts(config, connector, DefaultResolver::default()));
    }
    let tls = mirror::tls_connector(request.ca_bundle.clone())
        .map_err(|failure| Error::Tls(Box::new(failure)))?;
    Ok(Agent::with_parts(config, connector.chain(tls), DefaultResolver::default()))
}

fn exchange(
    agent: &Agent,
    request: http::Request<String>,
    within: Duration,
) -> Result<Answer, Error> {
    let network = |error: ureq::Error| match error {
        ureq::Error::Timeout(Timeout::Global | Timeout::PerCall) => Error::Timeout(within),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => Error::Url,
        ureq::Error::HostNotFound => Error::Network("the host's name is not known".into()),
        ureq::Error::Io(error) => Error::Network(error.to_string()),
        ureq::Error::Other(error) => Error::Network(error.to_string()),
        error => Error::Network(error.to_string()),
    };
    let response = agent.run(request).map_err(network)?;
    let status = response.status().as_u16();
    // What follows the status is for people; it may be cut off.
    let mut body = Vec::new();
    let _ = response.into_body().into_reader().take(MOST).read_to_end(&mut body);
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}
