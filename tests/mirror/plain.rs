//! libgit2's own transports: forced, and as the way out.

use std::fs;
use std::time::{Duration, Instant};

use multideployer::domain::RepoUrl;
use multideployer::mirror::{CheckoutOptions, Failure, Remote, Trust};

use crate::support::https::{Fault, GitHttps, hash_of};
use crate::support::keys::{KeyPair, Kind};
use crate::support::sshd::{GitSshd, Options};
use crate::support::tls::Authority;
use crate::support::upstream::Upstream;
use crate::support::wait_until;
use crate::{assert_sound, fetch, key, mirror_in, noise, remote, rev, text, token};

fn https(dir: &tempfile::TempDir, server: &GitHttps) -> Remote {
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, Authority::shared().pem()).expect("the CA");
    let url = RepoUrl::Https { authority: server.authority(), path: "acme/api.git".into() };
    Remote {
        credential: Some(token("s3cret")),
        trust: Trust { ca_file: Some(ca), ..Trust::default() },
        plain: true,
        ..remote(url)
    }
}

#[test]
fn over_https_with_the_token_in_the_callback_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path().join("srv"), "acme/api.git");
    let first = upstream.commit(&[("a", "1")]);
    let second = upstream.commit(&[("a", "2")]);
    let third = upstream.commit(&[("a", &noise(3000))]);
    let server = GitHttps::start(dir.path().join("srv")).require("acme/", "s3cret");
    let (mut mirror, path) = mirror_in(dir.path());
    let mut way = https(&dir, &server);
    fetch(&mut mirror, &second, &way).expect("a fetch");
    assert_sound(&path);
    let seen = server.requests();
    // libgit2 shows it when it is asked for it.
    let hash = Some(hash_of("x-access-token", "s3cret"));
    let (with, without): (Vec<_>, Vec<_>) =
        seen.iter().map(|one| &one.authorization).partition(|one| one.is_some());
    assert!(with.len() >= 3 && with.iter().all(|one| **one == hash), "{seen:?}");
    assert_eq!(without.len(), 1, "{seen:?}");
    assert!(seen.iter().any(|one| one.query.contains("service=git-upload-pack")), "{seen:?}");
    fetch(&mut mirror, &first, &way).expect("backwards");
    assert_sound(&path);
    server.forget();
    assert!(!fetch(&mut mirror, &second, &way).expect("it is held").connected);
    assert_eq!(server.connections(), 0);
    let target = dir.path().join("tree");
    mirror.checkout(rev(&second), &target, &CheckoutOptions::default()).expect("a checkout");
    assert_eq!(fs::read_to_string(target.join("a")).expect("a file"), "2");

    let failure = fetch(&mut mirror, &"1".repeat(40), &way).expect_err("no such commit");
    assert!(matches!(failure, Failure::CommitNotFound { .. }), "{failure}");
    let blob = upstream.resolve(&format!("{third}:a"));
    let failure = fetch(&mut mirror, &blob, &way).expect_err("no commit");
    assert!(matches!(failure, Failure::NotACommit { .. }), "{failure}");
    assert!(!path.join("refs/multideployer/fetched").join(&blob).exists());
    let tag = upstream.annotated_tag("v1", &first);
    assert_eq!(fetch(&mut mirror, &tag, &way).expect("a tag").commit, rev(&first));

    server.inject(Fault::status(404));
    let failure = fetch(&mut mirror, &third, &way).expect_err("404");
    assert!(matches!(failure, Failure::NotFoundOrForbidden { .. }), "{failure}");
    server.repair();
    let other = GitHttps::start(dir.path().join("srv")).require("", "s3cret");
    server.inject(Fault::redirect(302, other.url_at("localhost", "").trim_end_matches('/')));
    let failure = fetch(&mut mirror, &third, &way).expect_err("another host");
    assert!(matches!(failure, Failure::Redirected { .. }), "{failure}");
    assert!(other.requests().iter().all(|one| one.authorization.is_none()));
    server.repair();
    way.limits.read = Duration::from_millis(500);
    way.limits.total = Duration::from_secs(4);
    server.inject(Fault::stall(0.5).method("POST"));
    let started = Instant::now();
    let failure = fetch(&mut mirror, &third, &way).expect_err("a stall");
    assert!(matches!(failure, Failure::Timeout { .. }), "{failure}");
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    server.repair();
    server.forget();
    way.credential = Some(token("wr0ng"));
    let failure = fetch(&mut mirror, &third, &way).expect_err("refused");
    assert!(matches!(failure, Failure::Denied { .. }), "{failure}");
    assert!(!text(&failure).contains("wr0ng"));
    let offered = || server.requests().iter().filter(|one| one.authorization.is_some()).count();
    // The server writes down what it has answered.
    wait_until("the server's record", Duration::from_secs(5), || offered() > 0);
    assert_eq!(offered(), 1);
    way.credential = None;
    let failure = fetch(&mut mirror, &third, &way).expect_err("none");
    assert!(matches!(failure, Failure::CredentialMissing { .. }), "{failure}");
}

/// Without a query in its target, a redirect makes libgit2 crash.
#[test]
fn libgit2_sees_no_redirect() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path().join("srv"), "acme/api.git");
    let commit = upstream.commit(&[("a", "1")]);
    let server = GitHttps::start(dir.path().join("srv")).require("acme/", "s3cret");
    server.alias("/acme/new.git", "/acme/api.git");
    let (mut mirror, path) = mirror_in(dir.path());
    let moved = Fault::status(301).header("Location", "/acme/new.git/info/refs");
    server.inject(moved.on("acme/api.git"));
    fetch(&mut mirror, &commit, &https(&dir, &server)).expect("a fetch");
    assert_sound(&path);
    let seen = server.requests();
    assert_eq!(seen.iter().filter(|one| one.path.contains("api.git")).count(), 1, "{seen:?}");
}

#[test]
fn an_unknown_authority_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path().join("srv"), "acme/api.git");
    let commit = upstream.commit(&[("a", "1")]);
    let foreign = Authority::new("foreign").acceptor();
    let server = GitHttps::start_with(dir.path().join("srv"), Some(foreign), 0);
    let (mut mirror, _) = mirror_in(dir.path());
    let failure = fetch(&mut mirror, &commit, &https(&dir, &server)).expect_err("untrusted");
    assert!(matches!(failure, Failure::Certificate { .. }), "{failure}");
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn over_ssh_with_our_rules_for_host_keys() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path().join("srv"), "acme/api.git");
    let first = upstream.commit(&[("a", "1")]);
    let second = upstream.commit(&[("a", "2")]);
    let third = upstream.commit(&[("a", "3")]);
    let pair = KeyPair::new(dir.path(), "client", Kind::Ed25519);
    let server = GitSshd::start_with(
        dir.path().join("srv"),
        std::slice::from_ref(&pair),
        &Options::default(),
    );
    let known = dir.path().join("known_hosts");
    fs::write(&known, server.known_hosts()).expect("known hosts");
    let host = "127.0.0.1".to_owned();
    let url = RepoUrl::Ssh {
        user: GitSshd::user(),
        host,
        port: server.port(),
        path: "/acme/api.git".into(),
    };
    let mut way = Remote {
        credential: Some(key(&pair)),
        trust: Trust { known_hosts_file: Some(known.clone()), ..Trust::default() },
        plain: true,
        ..remote(url)
    };
    let (mut mirror, path) = mirror_in(dir.path());
    for commit in [&second, &first] {
        fetch(&mut mirror, commit, &way).expect("a fetch");
        assert_sound(&path);
    }
    fs::write(&known, "").expect("nothing known");
    let failure = fetch(&mut mirror, &third, &way).expect_err("unknown");
    assert!(matches!(failure, Failure::UnknownHostKey(_)), "{failure}");
    fs::write(&known, server.known_hosts()).expect("known hosts");
    let other = KeyPair::new(dir.path(), "other", Kind::Ed25519);
    way.credential = Some(key(&other));
    let failure = fetch(&mut mirror, &third, &way).expect_err("another key");
    assert!(matches!(failure, Failure::KeyDenied { .. }), "{failure}");
    assert_eq!(server.refusals(), 1, "{}", server.log());
}

#[test]
fn a_server_that_is_not_understood_is_asked_plainly_and_remembered() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path().join("srv"), "acme/api.git");
    let first = upstream.commit(&[("a", "1")]);
    let second = upstream.commit(&[("a", "2")]);
    let server = GitHttps::start(dir.path().join("srv")).require("acme/", "s3cret");
    let (mut mirror, path) = mirror_in(dir.path());
    let way = Remote { plain: false, ..https(&dir, &server) };
    server.inject(Fault::babble("what?").method("POST").times(1));
    fetch(&mut mirror, &first, &way).expect("in the plain way");
    assert_sound(&path);
    server.repair();
    server.forget();
    fetch(&mut mirror, &second, &way).expect("a fetch");
    assert_eq!(server.requests()[0].method, "GET", "it was remembered");
    assert_sound(&path);
}
