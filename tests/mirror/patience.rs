//! Nothing waits longer than it may, and a signal ends a fetch whatever it waits for.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use multideployer::domain::RepoUrl;
use multideployer::mirror::failure::Step;
use multideployer::mirror::{Failure, Proxy, Remote, Trust};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, socket,
};

use crate::support::https::{Fault, GitHttps};
use crate::support::tls::Authority;
use crate::support::upstream::Upstream;
use crate::{fetch, mirror_in, noise, remote};

/// What a signal has to be heard within.
const SOON: Duration = Duration::from_secs(2);

/// A port that lets nobody in: its queue is full, and what knocks gets no answer.
struct BlackHole {
    address: SocketAddr,
    _listener: std::os::fd::OwnedFd,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    fn open() -> Self {
        let listener = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
            .expect("a socket");
        bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("a port");
        listen(&listener, Backlog::new(0).expect("a queue")).expect("it listens");
        let name: SockaddrIn = getsockname(listener.as_raw_fd()).expect("its address");
        let address = SocketAddr::from(([127, 0, 0, 1], name.port()));
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            waiting.push(stream);
            assert!(waiting.len() < 50, "the queue does not fill up");
        }
        Self { address, _listener: listener, _waiting: waiting }
    }
}

/// A server that lets everybody in and says nothing, or a byte of a TLS record every so
/// often.
fn mute(drip: bool) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().take(8).flatten() {
            std::thread::spawn(move || {
                // The head of a handshake record of 16 KiB, and then its bytes.
                let record = [&[0x16, 3, 3, 0x40, 0][..], &[2; 600]].concat();
                for byte in record {
                    std::thread::sleep(Duration::from_millis(100));
                    if drip && stream.write_all(&[byte]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

fn https(address: SocketAddr) -> Remote {
    remote(RepoUrl::Https { authority: address.to_string(), path: "acme/api.git".into() })
}

fn ssh(address: SocketAddr) -> Remote {
    let (host, port) = (address.ip().to_string(), address.port());
    remote(RepoUrl::Ssh { user: "git".into(), host, port, path: "/acme/api.git".into() })
}

fn behind(proxy: SocketAddr) -> Remote {
    let (host, port) = (proxy.ip().to_string(), proxy.port());
    let proxy = Proxy { host, port, login: None, origin: "the variable `https_proxy`".into() };
    Remote { proxy: Some(proxy), ..https(SocketAddr::from(([127, 0, 0, 1], 9))) }
}

/// The fetch ends by the signal, soon after it comes.
fn ends_by_signal(what: &str, way: &Remote, commit: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut mirror, _) = mirror_in(dir.path());
    let interrupt = way.interrupt.clone();
    let signal = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        interrupt.set(15);
        Instant::now()
    });
    let failure = fetch(&mut mirror, commit, way).expect_err("it is ended");
    let sent = signal.join().expect("it was sent");
    assert!(matches!(failure, Failure::Interrupted(15)), "{what}: {failure}");
    assert!(sent.elapsed() < SOON, "{what}: {:?}", sent.elapsed());
}

#[test]
fn a_signal_is_heard_while_it_connects_shakes_hands_or_asks_a_proxy() {
    let commit = "1".repeat(40);
    let hole = BlackHole::open();
    ends_by_signal("connect", &https(hole.address), &commit);
    ends_by_signal("connect by ssh", &ssh(hole.address), &commit);
    ends_by_signal("connect to a proxy", &behind(hole.address), &commit);
    ends_by_signal("TLS handshake", &https(mute(false)), &commit);
    ends_by_signal("SSH banner", &ssh(mute(false)), &commit);
    ends_by_signal("a proxy's answer", &behind(mute(false)), &commit);
}

#[test]
fn a_signal_is_heard_while_it_waits_for_the_answer_the_pack_or_the_next_try() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path().join("srv"), "acme/api.git");
    let commit = upstream.commit(&[("a", &noise(5000))]);
    let server = GitHttps::start(dir.path().join("srv"));
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, Authority::shared().pem()).expect("the CA");
    for (what, fault) in [
        ("answer", Fault::hang()),
        ("pack", Fault::stall(0.5)),
        ("drip", Fault::drip()),
        ("the next try", Fault::status(503).header("Retry-After", "20")),
    ] {
        let address = server.authority().parse().expect("an address");
        let trust = Trust { ca_file: Some(ca.clone()), ..Trust::default() };
        let way = Remote { trust, ..https(address) };
        server.repair();
        server.inject(fault);
        ends_by_signal(what, &way, &commit);
    }
}

#[test]
fn connecting_has_a_limit_for_all_of_it_even_when_bytes_trickle_in() {
    let hole = BlackHole::open();
    for (what, mut way) in [
        ("connect", https(hole.address)),
        ("handshake", https(mute(false))),
        ("trickle", https(mute(true))),
    ] {
        way.limits.connect = Duration::from_millis(700);
        let dir = tempfile::tempdir().expect("a directory");
        let (mut mirror, _) = mirror_in(dir.path());
        let started = Instant::now();
        let failure = fetch(&mut mirror, &"1".repeat(40), &way).expect_err("too slow");
        let by_step = matches!(failure, Failure::Timeout { step: Step::Connect, .. });
        assert!(by_step, "{what}: {failure}");
        // Three tries.
        assert!(started.elapsed() < Duration::from_secs(6), "{what}: {:?}", started.elapsed());
    }
    let mut way = behind(mute(false));
    way.limits.connect = Duration::from_millis(700);
    let dir = tempfile::tempdir().expect("a directory");
    let (mut mirror, _) = mirror_in(dir.path());
    let failure = fetch(&mut mirror, &"1".repeat(40), &way).expect_err("too slow");
    assert!(matches!(failure, Failure::Proxy(_)), "{failure}");
    assert!(failure.to_string().contains("no connection within 0.7 s"), "{failure}");
}

#[test]
fn a_wish_to_wait_that_is_longer_than_the_time_that_is_left_ends_it_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path().join("srv"), "acme/api.git");
    let commit = upstream.commit(&[("a", "1")]);
    let server = GitHttps::start(dir.path().join("srv"));
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, Authority::shared().pem()).expect("the CA");
    let trust = Trust { ca_file: Some(ca), ..Trust::default() };
    let way = Remote { trust, ..https(server.authority().parse().expect("an address")) };
    let (mut mirror, _) = mirror_in(dir.path());
    for wish in ["3600", "Fri, 31 Dec 2100 23:59:59 GMT"] {
        server.forget();
        server.inject(Fault::status(429).header("Retry-After", wish).times(1));
        let started = Instant::now();
        let failure = fetch(&mut mirror, &commit, &way).expect_err("not now");
        assert!(matches!(failure, Failure::Status { status: 429, .. }), "{failure}");
        assert!(failure.hint().is_some_and(|hint| hint.contains("it asks to wait")), "{failure}");
        assert_eq!(server.requests().len(), 1);
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
    // One that is over is no reason to wait.
    server
        .inject(Fault::status(503).header("Retry-After", "Sat, 01 Jan 2000 00:00:00 GMT").times(1));
    fetch(&mut mirror, &commit, &way).expect("the second time");
}
