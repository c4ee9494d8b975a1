//! Asks a server what can be known of it without fetching, step by step, with the functions
//! of a real fetch. Nothing is stored.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use openssl::asn1::Asn1Time;
use openssl::x509::{X509NameRef, X509Ref};

use super::failure::Failure;
use super::watch::Watch;
use super::{Progress, Remote, Trust, dial, fetch, tls};
use crate::domain::{RepoUrl, Revision};
use crate::sync::lock;

/// Where a connection goes first: to the server, or to the proxy before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host, without port.
    pub host: String,
    /// Port.
    pub port: u16,
    /// It is a proxy's: its `host:port`, without user and password.
    pub proxy: Option<String>,
}

/// What was seen of a server while it was asked, whatever came of it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The protocol version that was agreed on: `TLSv1.3`.
    pub tls: Option<String>,
    /// The certificate it showed, trusted or not.
    pub certificate: Option<Certificate>,
    /// The SSH host key it showed, if that was accepted; a refused one is in the failure.
    pub host_key: Option<AcceptedKey>,
    /// Seconds its clock is ahead of ours.
    pub clock: Option<i64>,
}

/// A server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its subject's common name, or all of its subject.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// Days until it expires; negative when it has.
    pub days_left: i32,
}

/// A host key that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedKey {
    /// `ssh-ed25519`, …
    pub kind: String,
    /// `SHA256:…`
    pub fingerprint: String,
    /// What accepts it: a line of a file, or `host_keys`.
    pub accepted_by: String,
}

/// What the listing of a repository showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Branches, and the commit each ends with.
    pub branches: Vec<(String, Revision)>,
}

/// Where `remote` is connected to; `None` for a repository on this host.
pub fn endpoint(remote: &Remote) -> Option<Endpoint> {
    let (host, port) = match (&remote.url, &remote.proxy) {
        (RepoUrl::File(_), _) => return None,
        (_, Some(proxy)) => {
            let (host, port) = (proxy.host.clone(), proxy.port);
            return Some(Endpoint { host, port, proxy: Some(proxy.shown()) });
        }
        (RepoUrl::Ssh { host, port, .. }, None) => (host.as_str(), *port),
        (RepoUrl::Https { authority, .. }, None) => dial::split(authority, 443),
    };
    Some(Endpoint { host: host.to_owned(), port, proxy: None })
}

/// The addresses behind the endpoint's name.
///
/// # Errors
/// [`Failure::NameLookup`], [`Failure::Timeout`], [`Failure::Interrupted`].
pub fn look_up(endpoint: &Endpoint, remote: &Remote) -> Result<Vec<SocketAddr>, Failure> {
    let watch = Watch::start(remote);
    let until = Instant::now() + watch.connect_limit();
    dial::resolve(&endpoint.host, endpoint.port, &watch, until)
}

/// Connects to the first address that answers, and says to which and how long it took.
///
/// # Errors
/// [`Failure::Unreachable`], [`Failure::Timeout`], [`Failure::Interrupted`].
pub fn connect(
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
    remote: &Remote,
) -> Result<(SocketAddr, Duration), Failure> {
    let watch = Watch::start(remote);
    let started = Instant::now();
    let until = started + watch.connect_limit();
    let stream = dial::connect_to(&endpoint.host, endpoint.port, addresses, &watch, until)?;
    let took = started.elapsed();
    let peer = stream.peer_addr().map_err(|error| Failure::Unreachable {
        host: endpoint.host.clone(),
        reason: error.to_string(),
    })?;
    Ok((peer, took))
}

/// Lists the repository's branches with the remote's credential, once, without retries.
/// What was seen of the server comes back in any case.
pub fn list(remote: &Remote, progress: &dyn Fn(Progress)) -> (Seen, Result<Listing, Failure>) {
    let eyes = Eyes::open();
    let watch = Watch::start_seeing(remote, eyes.clone());
    let prefixes = ["HEAD", "refs/heads/"].map(str::to_owned);
    let refs = fetch::list(remote, &watch, progress, false, &prefixes);
    let listing = refs.map(|refs| {
        let branches = refs.iter().filter_map(|found| {
            let name = found.name.strip_prefix(b"refs/heads/")?;
            Some((super::failure::harmless(name), found.id))
        });
        Listing { branches: branches.collect() }
    });
    (eyes.seen(), listing)
}

/// The certificate authorities that `trust` stands for, as messages name them.
pub fn authorities(trust: &Trust) -> Vec<(&'static str, PathBuf)> {
    tls::described_authorities(trust)
}

/// Takes down what is seen of a server; those of a real fetch are closed.
#[derive(Debug, Clone, Default)]
pub(super) struct Eyes(Option<Arc<Mutex<Seen>>>);

impl Eyes {
    fn open() -> Self {
        Self(Some(Arc::default()))
    }

    /// Whether somebody looks.
    pub(super) fn are_open(&self) -> bool {
        self.0.is_some()
    }

    /// Takes something down, if somebody looks.
    pub(super) fn see(&self, note: impl FnOnce(&mut Seen)) {
        if let Some(seen) = &self.0 {
            note(&mut lock(seen));
        }
    }

    fn seen(&self) -> Seen {
        let mut copy = Seen::default();
        self.see(|seen| copy = seen.clone());
        copy
    }
}

impl Certificate {
    /// What matters of a certificate.
    pub(super) fn of(certificate: &X509Ref) -> Self {
        let days_left = Asn1Time::days_from_now(0)
            .and_then(|now| now.diff(certificate.not_after()))
            // Both parts are negative when it has expired.
            .map_or(0, |left| if left.secs < 0 { left.days - 1 } else { left.days });
        Self {
            subject: name(certificate.subject_name()),
            issuer: name(certificate.issuer_name()),
            days_left,
        }
    }
}

/// The common name, else all parts of a name.
fn name(name: &X509NameRef) -> String {
    let text =
        |entry: &openssl::x509::X509NameEntryRef| entry.data().to_string().unwrap_or_default();
    let common = name.entries_by_nid(openssl::nid::Nid::COMMONNAME).next();
    let shown = match common {
        Some(common) => text(common),
        None => name.entries().map(text).collect::<Vec<_>>().join(", "),
    };
    super::failure::harmless(shown.as_bytes())
}

/// How far the clock that wrote a `Date` header is ahead of ours, in seconds.
pub(super) fn ahead(date: &str) -> Option<i64> {
    let then = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    Some(then.as_second() - jiff::Timestamp::now().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_header_tells_the_difference_of_the_clocks() {
        let then = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(100);
        let header = then.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let ahead = ahead(&header).unwrap();
        assert!((98..=100).contains(&ahead), "{ahead}");
        assert_eq!(super::ahead("yesterday"), None);
    }
}
