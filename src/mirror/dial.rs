//! From a name to a TCP connection, within the limits of a fetch.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::failure::{Failure, Step};
use super::watch::Watch;

/// Looks a name up and connects to the first of its addresses that answers.
pub(super) fn connect(host: &str, port: u16, watch: &Watch) -> Result<TcpStream, Failure> {
    let until = Instant::now() + watch.connect_limit();
    let addresses = resolve(host, port, watch, until)?;
    connect_to(host, port, &addresses, watch, until)
}

/// Connects to the first address that answers.
pub(super) fn connect_to(
    host: &str,
    port: u16,
    addresses: &[SocketAddr],
    watch: &Watch,
    until: Instant,
) -> Result<TcpStream, Failure> {
    let mut last = None;
    for candidate in addresses {
        watch.check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(watch.timeout(Step::Connect));
        }
        match TcpStream::connect_timeout(candidate, left) {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) if error.kind() == io::ErrorKind::TimedOut => watch.timeout(Step::Connect),
        Some(error) => {
            Failure::Unreachable { host: format!("{host}:{port}"), reason: error.to_string() }
        }
        None => Failure::NameLookup { host: host.to_owned() },
    })
}

/// Name look-up cannot be interrupted; a thread that hangs in it is left behind, holding
/// nothing.
pub(super) fn resolve(
    host: &str,
    port: u16,
    watch: &Watch,
    until: Instant,
) -> Result<Vec<SocketAddr>, Failure> {
    let (sender, receiver) = mpsc::channel();
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let spawned = std::thread::Builder::new().name("resolve".into()).spawn(move || {
        let found = (name.as_str(), port).to_socket_addrs();
        let _ = sender.send(found.map(Iterator::collect::<Vec<_>>));
    });
    spawned.map_err(|error| Failure::Unreachable {
        host: host.to_owned(),
        reason: error.to_string(),
    })?;
    loop {
        watch.check()?;
        match receiver.recv_timeout(Duration::from_millis(50)) {
            Ok(Ok(found)) => return Ok(found),
            Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() < until => {}
            Err(mpsc::RecvTimeoutError::Timeout) => return Err(watch.timeout(Step::Connect)),
            Ok(Err(_)) | Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(Failure::NameLookup { host: host.to_owned() });
            }
        }
    }
}
