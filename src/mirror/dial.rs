//! From a name to a TCP connection, within the limits of a fetch, through a proxy if there
//! is one.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::failure::{Failure, Step};
use super::proxy::{self, Proxy};
use super::watch::{Clock, Closing};

/// How often it is looked whether the fetch must end.
const TICK: Duration = Duration::from_millis(50);
/// How long an address may keep us waiting before the next one is tried beside it.
const STAGGER: Duration = Duration::from_millis(300);

/// Connects to a server, by its name or address, in `clock`'s time for that. The stream is
/// closed when the fetch must end, unless `clock` is told to let go of it.
///
/// # Errors
/// [`Failure::NameLookup`], [`Failure::Unreachable`], [`Failure::Proxy`],
/// [`Failure::Timeout`], [`Failure::Interrupted`].
pub(super) fn connect(
    host: &str,
    port: u16,
    proxy: Option<&Proxy>,
    clock: &Clock,
) -> Result<(TcpStream, Option<Closing>), Failure> {
    let until = Instant::now() + clock.connect_limit();
    let Some(proxy) = proxy else {
        let addresses = resolve(host, port, clock, until)?;
        let stream = connect_to(host, port, &addresses, clock, until)?;
        let closing = clock.closes(&stream);
        return Ok((stream, closing));
    };
    let reached = resolve(&proxy.host, proxy.port, clock, until)
        .and_then(|addresses| connect_to(&proxy.host, proxy.port, &addresses, clock, until));
    let stream = reached.map_err(|failure| proxy.not_reached(failure, host, port))?;
    let closing = clock.closes(&stream);
    proxy::tunnel::open(&stream, proxy, (host, port), clock, until)?;
    Ok((stream, closing))
}

/// Connects to whichever of the addresses answers first; each later one is tried a little
/// after the one before it, so that one that leads nowhere does not cost the others' time.
pub(super) fn connect_to(
    host: &str,
    port: u16,
    addresses: &[SocketAddr],
    clock: &Clock,
    until: Instant,
) -> Result<TcpStream, Failure> {
    let shown = || format!("{}:{port}", bracketed(host));
    let (sender, receiver) = mpsc::channel();
    let mut waiting = addresses.iter();
    let mut running = 0;
    let mut last = None;
    let mut next = Instant::now();
    loop {
        clock.check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(clock.timeout(Step::Connect));
        }
        if Instant::now() >= next
            && let Some(&address) = waiting.next()
        {
            // It cannot be interrupted; a thread that hangs in it is left behind, holding
            // nothing but its socket.
            let sender = sender.clone();
            let attempt = move || drop(sender.send(TcpStream::connect_timeout(&address, left)));
            let spawned = std::thread::Builder::new().name("connect".into()).spawn(attempt);
            spawned.map_err(|e| Failure::Unreachable { host: shown(), reason: e.to_string() })?;
            running += 1;
            next = Instant::now() + STAGGER;
        }
        if running == 0 && waiting.len() == 0 {
            break;
        }
        match receiver.recv_timeout(TICK.min(left)) {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => {
                running -= 1;
                next = Instant::now();
                last = Some(error);
            }
            Err(_) => {}
        }
    }
    Err(match last {
        Some(error) if error.kind() == io::ErrorKind::TimedOut => clock.timeout(Step::Connect),
        Some(error) => Failure::Unreachable { host: shown(), reason: error.to_string() },
        None => Failure::NameLookup {
            host: host.to_owned(),
            reason: "it has no address".into(),
            passing: false,
        },
    })
}

/// The addresses of a name. Looking it up cannot be interrupted; a thread that hangs in it
/// is left behind, holding nothing.
pub(super) fn resolve(
    host: &str,
    port: u16,
    clock: &Clock,
    until: Instant,
) -> Result<Vec<SocketAddr>, Failure> {
    let name = unbracketed(host).to_owned();
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (sender, receiver) = mpsc::channel();
    let spawned = std::thread::Builder::new().name("resolve".into()).spawn(move || {
        let found = (name.as_str(), port).to_socket_addrs();
        let _ = sender.send(found.map(Iterator::collect::<Vec<_>>));
    });
    spawned.map_err(|error| not_found(host, &error))?;
    loop {
        clock.check()?;
        match receiver.recv_timeout(TICK) {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => return Err(not_found(host, &error)),
            Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() < until => {}
            // No name server answered in time: the next try may find one that does.
            Err(_) => {
                let reason = "no name server answered in time".into();
                return Err(Failure::NameLookup { host: host.to_owned(), reason, passing: true });
            }
        }
    }
}

/// The standard library has one kind of error for all that the look-up can report, and keeps
/// the C library's words, which are in English as no locale is ever set: glibc's and musl's
/// for `EAI_AGAIN`.
fn not_found(host: &str, error: &io::Error) -> Failure {
    let words = error.to_string();
    let passing = ["Temporary failure", "Try again"].iter().any(|again| words.contains(again));
    let reason = words.strip_prefix("failed to lookup address information: ").unwrap_or(&words);
    Failure::NameLookup { host: host.to_owned(), reason: reason.to_owned(), passing }
}

/// Host and port of `host[:port]`, the host without brackets.
pub(super) fn split(authority: &str, default: u16) -> (&str, u16) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (unbracketed(host), port.parse().unwrap_or(default))
        }
        _ => (unbracketed(authority), default),
    }
}

/// An address of version 6 without its brackets.
pub(super) fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// A host as it stands before a port.
pub(super) fn bracketed(host: &str) -> String {
    let host = unbracketed(host);
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_of_both_versions() {
        for (authority, host, port) in [
            ("git.example.com", "git.example.com", 443),
            ("git.example.com:8443", "git.example.com", 8443),
            ("[::1]", "::1", 443),
            ("[::1]:8443", "::1", 8443),
        ] {
            assert_eq!(split(authority, 443), (host, port));
        }
        assert_eq!(bracketed("::1"), "[::1]");
        assert_eq!(bracketed("[::1]"), "[::1]");
        assert_eq!(bracketed("h"), "h");
    }

    #[test]
    fn only_a_look_up_that_may_pass_is_one_that_passes() {
        for (words, expected) in [
            ("failed to lookup address information: Temporary failure in name resolution", true),
            ("failed to lookup address information: Try again", true),
            ("failed to lookup address information: Name or service not known", false),
            ("failed to lookup address information: No address associated with hostname", false),
        ] {
            let failure = not_found("h", &io::Error::other(words));
            let Failure::NameLookup { passing, reason, .. } = failure else { panic!("{failure}") };
            assert_eq!(passing, expected, "{words}");
            assert!(!reason.contains("lookup"), "{reason}");
        }
    }
}
