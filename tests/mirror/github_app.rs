//! Tokens of a GitHub App: kept, renewed, shared and forgotten.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use multideployer::domain::RepoUrl;
use multideployer::hosts::{Auth, GithubApp};
use multideployer::mirror::credentials::{self, Error, Kept, World};
use multideployer::mirror::{Credential, Failure, Proof, Remote, Trust};

use crate::support::github::{CLIENT, Github};
use crate::support::https::{Fault, GitHttps};
use crate::support::tls::Authority;
use crate::support::upstream::Upstream;
use crate::{fetch, mirror_in, remote, text};

struct Bed {
    github: Github,
    upstream: Mutex<Upstream>,
    auth: Auth,
    remote: Remote,
    root: tempfile::TempDir,
}

fn with_world<T>(remote: &Remote, kept: &Kept, act: impl FnOnce(&World<'_>) -> T) -> T {
    act(&World {
        remote,
        peers: &Vec::new,
        kept,
        variable: &|_| None,
        hidden: &[],
        interrupt: &remote.interrupt,
        warn: &|_| {},
    })
}

impl Bed {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let upstream = Mutex::new(Upstream::new(root.path(), "acme/api.git"));
        let github = Github::new(GitHttps::start(root.path()), &["api"]);
        let write = |name: &str, content: &[u8]| {
            let file = root.path().join(name);
            std::fs::write(&file, content).expect("the file");
            file
        };
        let key = write("app.pem", github.key.as_bytes());
        let authority = github.git().authority();
        let mut remote = remote(RepoUrl::Https { authority, path: "acme/api.git".into() });
        let ca_file = Some(write("ca.pem", &Authority::shared().pem()));
        remote.trust = Trust { ca_file, ..Trust::default() };
        let auth = Auth::GithubApp(GithubApp {
            id: CLIENT.to_owned(),
            private_key_file: key,
            installation_id: None,
            owner: None,
            api_url: None,
        });
        Self { github, upstream, auth, remote, root }
    }

    fn resolve(&self, kept: &Kept) -> Result<Option<Credential>, Error> {
        with_world(&self.remote, kept, |world| credentials::resolve(&self.auth, None, world))
    }

    /// The remote with a credential of its own.
    fn with_token(&self, kept: &Kept) -> (Remote, String) {
        let credential = self.resolve(kept).expect("a token").expect("a credential");
        let Proof::Token(token) = &credential.proof else { panic!("no token") };
        let shown = token.expose().to_owned();
        (Remote { credential: Some(credential), ..self.remote.clone() }, shown)
    }

    fn commit(&self) -> String {
        self.upstream.lock().expect("the repository").commit(&[("a", "1")])
    }

    fn directory(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join(name)
    }
}

fn try_fetch(directory: &Path, commit: &str, remote: &Remote) -> Result<(), Failure> {
    let (mut mirror, _) = mirror_in(directory);
    fetch(&mut mirror, commit, remote).map(drop)
}

#[test]
fn a_token_is_renewed_before_it_ends() {
    let bed = Bed::new();
    let commit = bed.commit();
    let kept = Kept::default();
    bed.github.set_life(Duration::from_secs(3));
    let (with_first, first) = bed.with_token(&kept);
    let had = Instant::now();
    bed.github.set_life(Duration::from_secs(3600));
    // Half of its life is spare, as a fetch may take longer than that.
    std::thread::sleep(Duration::from_millis(1600));
    let (with_second, second) = bed.with_token(&kept);
    assert_ne!(first, second);
    std::thread::sleep(Duration::from_millis(3100).saturating_sub(had.elapsed()));
    let failure = try_fetch(&bed.directory("one"), &commit, &with_first).expect_err("expired");
    assert!(matches!(failure, Failure::Denied { .. }), "{failure:?}");
    try_fetch(&bed.directory("two"), &commit, &with_second).expect("the commit");
    let (_, third) = bed.with_token(&kept);
    assert_eq!(second, third);
    assert_eq!(bed.github.tokens(), [first.clone(), second.clone()]);
    // The installation was looked up once.
    assert_eq!(bed.github.asked().len(), 3);
    for secret in [&first, &second] {
        assert!(!text(&failure).contains(secret.as_str()));
        assert!(
            !format!("{kept:?} {:?} {:?}", bed.auth, with_first.credential)
                .contains(secret.as_str())
        );
    }
}

#[test]
fn a_token_that_a_server_refuses_is_not_given_to_others() {
    let bed = Bed::new();
    let commit = bed.commit();
    let kept = Kept::default();
    let (remote, first) = bed.with_token(&kept);
    bed.github.git().revoke();
    let result = try_fetch(&bed.directory("one"), &commit, &remote);
    with_world(&remote, &kept, |world| {
        credentials::tell(&bed.auth, None, result.as_ref(), world);
    });
    assert!(result.is_err());
    let (remote, second) = bed.with_token(&kept);
    assert_ne!(first, second);
    let result = try_fetch(&bed.directory("two"), &commit, &remote);
    with_world(&remote, &kept, |world| {
        credentials::tell(&bed.auth, None, result.as_ref(), world);
    });
    result.expect("the commit");
    assert_eq!(bed.with_token(&kept).1, second);
}

#[test]
fn those_who_wait_share_what_came_of_it() {
    let mut bed = Bed::new();
    // Three tries, with at least a second between the first and the last.
    bed.remote.limits.pause = Duration::from_millis(500);
    bed.github.git().inject(Fault::status(503).on("/api/v3"));
    let kept = Kept::default();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let error = bed.resolve(&kept).expect_err("the API is down");
                let cause = std::error::Error::source(&error).expect("a cause").to_string();
                assert!(cause.contains("HTTP status 503"), "{error} {cause}");
            });
        }
    });
    assert_eq!(bed.github.git().requests().len(), 3);
    // Whoever comes later asks anew.
    bed.github.git().repair();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| bed.resolve(&kept).expect("a token"));
        }
    });
    assert_eq!(bed.github.tokens().len(), 1);
}

#[test]
fn a_signal_ends_the_request_at_once() {
    let bed = Bed::new();
    bed.github.git().inject(Fault::hang().on("/api/v3"));
    let interrupt = bed.remote.interrupt.clone();
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            crate::support::wait_until("a request", Duration::from_secs(20), || {
                bed.github.git().connections() > 0
            });
            interrupt.set(15);
        });
        let error = bed.resolve(&Kept::default()).expect_err("a signal came");
        assert!(error.to_string().contains("signal"), "{error}");
    });
    assert!(began.elapsed() < Duration::from_secs(30));
}
