//! Nothing over SSH waits longer than it may, a signal ends whatever it waits for, and the
//! mirror is as it was.

use std::time::{Duration, Instant};

use multideployer::domain::RepoUrl;
use multideployer::mirror::failure::Step;
use multideployer::mirror::{Failure, Limits, Remote};
use multideployer::process::Interrupt;

use crate::ssh::Bed;
use crate::support::relay::{Relay, Way};
use crate::support::sshd::{GitSshd, Options};
use crate::{assert_sound, fetch, noise};

/// More than handshake and login need, and less than the pack.
const IN_THE_PACK: usize = 40_000;

/// Where it hangs, and by which limit it ends.
const CASES: [(&str, Way, Step); 7] = [
    ("silence", Way::Silent, Step::Connect),
    ("a banner that trickles in", Way::Banner, Step::Connect),
    ("a stall in the key exchange", Way::Stall(500), Step::Connect),
    ("a stall before or in the login", Way::Stall(1500), Step::Connect),
    ("a stall after the login", Way::Stall(2400), Step::Read),
    ("a stall in the pack", Way::Stall(IN_THE_PACK), Step::Read),
    ("a byte a second", Way::Drip(IN_THE_PACK), Step::Total),
];

fn through(bed: &Bed, relay: &Relay) -> Remote {
    let (user, host) = (GitSshd::user(), "127.0.0.1".to_owned());
    let url = RepoUrl::Ssh { user, host, port: relay.port(), path: "/acme/api.git".into() };
    Remote { url, interrupt: Interrupt::new(), ..bed.remote.clone() }
}

#[test]
fn each_wait_over_ssh_has_a_limit_and_a_signal_ends_it() {
    let mut bed = Bed::new(&Options::default());
    let commit = bed.upstream.commit(&[("a", &noise(20_000))]);
    // Good for every port.
    let name = format!("[127.0.0.1]:{}", bed.server.port());
    bed.know(&bed.server.known_hosts().replace(&name, "127.0.0.1"));
    for (what, way, step) in CASES {
        let relay = Relay::start(&bed.server.authority(), way);
        let mut remote = through(&bed, &relay);
        let second = Duration::from_secs(1);
        // Those that are not to be reached are long.
        let long = Duration::from_secs(40);
        remote.limits = Limits { connect: long, read: long, total: long, ..remote.limits };
        match step {
            Step::Connect => remote.limits.connect = second,
            Step::Read => remote.limits.read = second,
            Step::Total => remote.limits.total = 6 * second,
        }
        let started = Instant::now();
        let failure = fetch(&mut bed.mirror, &commit, &remote).expect_err("it hangs");
        let took = started.elapsed();
        let by = matches!(failure, Failure::Timeout { step: found, .. } if found == step);
        assert!(by, "{what}: {failure} after {took:?}");
        assert!(took < Duration::from_secs(30), "{what}: {took:?}");
        assert!(relay.held() > 0, "{what}: it got past that");

        let relay = Relay::start(&bed.server.authority(), way);
        let mut remote = through(&bed, &relay);
        remote.limits = Limits { connect: long, read: long, total: long, ..remote.limits };
        let signal = std::thread::scope(|scope| {
            let signal = scope.spawn(|| {
                crate::support::wait_until(what, long, || relay.held() > 0);
                std::thread::sleep(Duration::from_millis(300));
                remote.interrupt.set(15);
                Instant::now()
            });
            let failure = fetch(&mut bed.mirror, &commit, &remote).expect_err("it is ended");
            assert!(matches!(failure, Failure::Interrupted(15)), "{what}: {failure}");
            signal.join().expect("it was sent")
        });
        assert!(signal.elapsed() < Duration::from_secs(4), "{what}: {:?}", signal.elapsed());
        assert_sound(&bed.path);
    }
    for at in [0, 500, 2400, IN_THE_PACK] {
        let relay = Relay::start(&bed.server.authority(), Way::Cut(at));
        let remote = through(&bed, &relay);
        let failure = fetch(&mut bed.mirror, &commit, &remote).expect_err("cut");
        assert!(matches!(failure, Failure::Broken { .. }), "cut at {at}: {failure}");
        // Each may be followed by a look at what the server offers.
        assert!((3..=6).contains(&relay.connections()), "cut at {at}: it is tried again");
        assert_sound(&bed.path);
    }
    fetch(&mut bed.mirror, &commit, &bed.remote).expect("without anything in between");
    assert_sound(&bed.path);
}
