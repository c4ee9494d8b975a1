//! Keys over SSH from the real ssh-agent.

use std::time::{Duration, Instant};

use multideployer::hosts::{AgentKey, Auth};
use multideployer::mirror::{Failure, credentials};
use multideployer::process::Interrupt;

use crate::ssh::{Bed, url};
use crate::ssh_keys::resolve_with;
use crate::support::keys::{KeyPair, Kind};
use crate::support::ssh_agent::SshAgent;
use crate::support::sshd::{GitSshd, Options};
use crate::{fetch, text};

fn auth(agent: &SshAgent, key: Option<AgentKey>) -> Auth {
    Auth::SshAgent { socket: Some(agent.socket().to_owned()), key }
}

fn resolve(auth: &Auth) -> Result<credentials::Credential, credentials::Error> {
    Ok(resolve_with(auth, &Interrupt::new()).0?.expect("not anonymous"))
}

#[test]
fn an_agent_signs_with_keys_of_every_kind_and_offers_the_named_one_only() {
    let mut bed = Bed::new(&Options::default());
    let dir = bed.dir.path().to_owned();
    let agent = SshAgent::start();
    let empty = resolve(&auth(&agent, None)).expect_err("no keys yet");
    assert!(empty.to_string().contains("holds no keys"), "{empty}");
    let stranger = KeyPair::new(&dir, "stranger", Kind::Ed25519);
    agent.add(&stranger, &[]);
    let pairs: Vec<_> =
        Kind::ALL.iter().map(|kind| KeyPair::new(&dir, kind.name(), *kind)).collect();
    // Hardened: a second key would be one too many.
    let options = Options { settings: vec!["MaxAuthTries 1".into()], ..Options::default() };
    let server = GitSshd::start_with(dir.join("srv"), &pairs, &options);
    bed.know(&server.known_hosts());
    bed.remote.url = url(&server, "/acme/api.git");
    for (number, pair) in pairs.iter().enumerate() {
        agent.add(pair, &[]);
        let key = match number % 2 {
            0 => AgentKey::Fingerprint(pair.fingerprint.clone()),
            _ => AgentKey::Public(pair.public.clone()),
        };
        let credential = resolve(&auth(&agent, Some(key))).expect("it is there");
        bed.remote.credential = Some(credential);
        let commit = bed.upstream.commit(&[("a", &number.to_string())]);
        fetch(&mut bed.mirror, &commit, &bed.remote)
            .unwrap_or_else(|failure| panic!("{}: {}", pair.public, text(&failure)));
    }
    assert_eq!(server.refusals(), 0, "{}", server.log());
    // Without a name the stranger goes first, and that was the one try.
    bed.remote.credential = Some(resolve(&auth(&agent, None)).expect("keys"));
    let failure = bed.failure(&"1".repeat(40));
    assert!(matches!(failure, Failure::KeyDenied { .. }), "{}", text(&failure));
    assert!(text(&failure).contains(&stranger.fingerprint), "{}", text(&failure));
    // One that it does not hold.
    let other = KeyPair::new(&dir, "other", Kind::Ed25519);
    for key in [
        AgentKey::Fingerprint(other.fingerprint.clone()),
        AgentKey::Public(other.public),
        AgentKey::Comment("deploy".into()),
    ] {
        let error = resolve(&auth(&agent, Some(key))).expect_err("not there");
        let shown = error.to_string();
        assert!(shown.contains("does not hold the key"), "{shown}");
        assert!(shown.contains(&stranger.fingerprint), "{shown}");
    }
    bed.remote.plain = true;
    let failure = bed.failure(&"1".repeat(40));
    assert!(matches!(failure, Failure::AgentPlainly { .. }), "{}", text(&failure));
}

#[test]
fn an_agent_with_many_keys_is_not_tried_without_end() {
    let mut bed = Bed::new(&Options::default());
    let dir = bed.dir.path().to_owned();
    let agent = SshAgent::start();
    for number in 0..7 {
        agent.add(&KeyPair::new(&dir, &format!("k{number}"), Kind::Ed25519), &[]);
    }
    bed.remote.credential = Some(resolve(&auth(&agent, None)).expect("keys"));
    let failure = bed.failure(&"1".repeat(40));
    let Failure::KeyDenied { keys, note, .. } = &failure else { panic!("{}", text(&failure)) };
    assert_eq!(keys.len(), 5, "{}", text(&failure));
    assert!(note.as_ref().is_some_and(|note| note.contains("2 more")), "{note:?}");
    assert_eq!(bed.server.refusals(), 5, "{}", bed.server.log());
}

/// With `-c` somebody has to confirm each use, and at night nobody does.
#[test]
fn an_agent_that_does_not_sign_is_named() {
    let mut bed = Bed::new(&Options::default());
    let agent = SshAgent::start();
    agent.add(&bed.key, &["-c"]);
    bed.remote.credential = Some(resolve(&auth(&agent, None)).expect("a key"));
    let started = Instant::now();
    let failure = bed.failure(&"1".repeat(40));
    let shown = text(&failure);
    assert!(shown.contains("refuses to sign"), "{shown}");
    assert!(shown.contains(&bed.key.fingerprint), "{shown}");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    drop(agent);
    let failure = bed.failure(&"1".repeat(40));
    assert!(text(&failure).contains("cannot be reached"), "{}", text(&failure));
}
