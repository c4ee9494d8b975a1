//! Over HTTPS, from a real server, with what goes wrong there.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use multideployer::domain::RepoUrl;
use multideployer::mirror::failure::Step;
use multideployer::mirror::{Failure, Mirror, Progress, Remote, Trust};

use crate::support::https::{Fault, GitHttps, hash_of};
use crate::support::proxy::ConnectProxy;
use crate::support::tls::{Authority, NAME};
use crate::support::upstream::Upstream;
use crate::{assert_sound, fetch, mirror_in, noise, remote, rev, text, through, token};

const TOKEN: &str = "s3cret@:/#%+ x";

struct Bed {
    dir: tempfile::TempDir,
    upstream: Upstream,
    server: GitHttps,
    mirror: Mirror,
    path: PathBuf,
    remote: Remote,
}

impl Bed {
    fn new() -> Self {
        Self::with(|upstream| upstream)
    }

    fn with(change: impl FnOnce(Upstream) -> Upstream) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("srv");
        let upstream = change(Upstream::new(&root, "acme/api.git"));
        let server = GitHttps::start(&root).require("acme/", TOKEN);
        let ca = dir.path().join("ca.pem");
        fs::write(&ca, Authority::shared().pem()).expect("the CA");
        let url = RepoUrl::Https { authority: server.authority(), path: "acme/api.git".into() };
        let remote = Remote {
            credential: Some(token(TOKEN)),
            trust: Trust { ca_file: Some(ca), ..Trust::default() },
            ..remote(url)
        };
        let (mirror, path) = mirror_in(dir.path());
        Self { dir, upstream, server, mirror, path, remote }
    }

    fn fetch(&mut self, commit: &str) -> Result<(), Failure> {
        fetch(&mut self.mirror, commit, &self.remote).map(|_| ())
    }

    /// A failure, in which no secret may be.
    fn failure(&mut self, commit: &str) -> Failure {
        let failure = self.fetch(commit).expect_err("a failure");
        let shown = text(&failure);
        assert!(!shown.contains("s3cret") && !shown.contains("Basic "), "{shown}");
        failure
    }

    fn requests(&self) -> Vec<(String, u16)> {
        let seen = self.server.requests();
        seen.into_iter().map(|one| (one.method, one.status)).collect()
    }
}

fn post(status: u16) -> (String, u16) {
    ("POST".to_owned(), status)
}

#[test]
fn one_request_for_a_commit_and_none_for_one_that_is_held() {
    let mut bed = Bed::new();
    let first = bed.upstream.commit(&[("appspec.yml", "version: 0.0\n"), ("a", "1")]);
    let second = bed.upstream.commit(&[("a", "2")]);
    let third = bed.upstream.commit(&[("a", "3")]);
    let _ = bed.upstream.annotated_tag("v1", &first);
    bed.fetch(&second).expect("a fetch");
    assert_eq!(bed.requests(), [post(200)]);
    let hash = Some(hash_of("x-access-token", TOKEN));
    assert_eq!(bed.server.requests()[0].authorization, hash);
    assert_sound(&bed.path);
    bed.server.forget();
    let again = fetch(&mut bed.mirror, &second, &bed.remote).expect("it is held");
    assert!(!again.connected && again.bytes == 0);
    assert_eq!(bed.server.connections(), 0);
    bed.server.stop();
    bed.fetch(&second).expect("without a server");
    assert!(bed.mirror.holds(rev(&second)) && !bed.mirror.holds(rev(&first)));
    let failure = bed.failure(&third);
    assert!(matches!(failure, Failure::Unreachable { .. }), "{failure}");
    let refs = fs::read_to_string(bed.path.join("config")).expect("its configuration");
    assert!(!refs.contains("s3cret"));
}

#[test]
fn forward_and_back_keeps_the_boundary_right_and_is_small() {
    let mut bed = Bed::new();
    let big = noise(10_000);
    let commits: Vec<_> =
        (0..6).map(|n| bed.upstream.commit(&[("big", &big), ("n", &n.to_string())])).collect();
    for at in [2, 4, 0, 5, 3] {
        let fetched = fetch(&mut bed.mirror, &commits[at], &bed.remote).expect("a fetch");
        assert!(fetched.connected);
        assert!(at == 2 || fetched.bytes < 2_000, "{} bytes", fetched.bytes);
        assert_sound(&bed.path);
    }
    let shallow = fs::read_to_string(bed.path.join("shallow")).expect("the boundary");
    assert!(shallow.contains(&commits[2]), "{shallow}");
    let target = bed.dir.path().join("tree");
    let options = multideployer::mirror::CheckoutOptions::default();
    bed.mirror.checkout(rev(&commits[3]), &target, &options).expect("a checkout");
    assert_eq!(fs::read_to_string(target.join("n")).expect("a file"), "3");
}

#[test]
fn a_wrong_token_is_offered_once() {
    let mut bed = Bed::new();
    let commit = bed.upstream.commit(&[("a", "1")]);
    bed.server.revoke();
    let failure = bed.failure(&commit);
    assert!(matches!(failure, Failure::Denied { .. }), "{failure}");
    assert!(text(&failure).contains("the token in `T`"));
    assert_eq!(bed.requests().len(), 1);
    bed.server.forget();
    bed.remote.credential = None;
    let failure = bed.failure(&commit);
    assert!(matches!(failure, Failure::CredentialMissing { .. }), "{failure}");
    assert_eq!(bed.requests(), [post(401)]);
}

#[test]
fn not_found_says_both_and_is_not_retried() {
    let mut bed = Bed::new();
    let commit = bed.upstream.commit(&[("a", "1")]);
    bed.server.inject(Fault::status(404));
    let failure = bed.failure(&commit);
    assert!(matches!(failure, Failure::NotFoundOrForbidden { .. }), "{failure}");
    assert!(failure.to_string().contains("the token in `T` may not read it"), "{failure}");
    assert_eq!(bed.requests(), [post(404), ("GET".into(), 404)]);
    bed.server.repair();
    let missing = "1".repeat(40);
    let failure = bed.failure(&missing);
    assert!(matches!(failure, Failure::CommitNotFound { .. }), "{failure}");
    assert!(failure.to_string().contains("not our ref"), "{failure}");
    let blob = bed.upstream.resolve(&format!("{commit}:a"));
    let failure = bed.failure(&blob);
    assert!(matches!(&failure, Failure::NotACommit { kind, .. } if kind == "blob"), "{failure}");
    let tag = bed.upstream.annotated_tag("v1", &commit);
    let fetched = fetch(&mut bed.mirror, &tag, &bed.remote).expect("a tag leads to its commit");
    assert_eq!(fetched.commit, rev(&commit));
    assert_eq!(bed.mirror.commit(rev(&tag)), Some(rev(&commit)));
}

#[test]
fn redirects_on_the_same_host_only() {
    let mut bed = Bed::new();
    let commit = bed.upstream.commit(&[("a", "1")]);
    bed.server.alias("/moved/acme", "/acme");
    bed.server.inject(Fault::redirect(301, "/moved").times(1));
    let warnings = RefCell::new(Vec::new());
    let keep = |progress: Progress| {
        if let Progress::Warning(text) = progress {
            warnings.borrow_mut().push(text);
        }
    };
    bed.mirror.fetch(rev(&commit), &bed.remote, &keep).expect("a fetch");
    assert!(warnings.borrow()[0].contains("/moved/acme/api.git"), "{warnings:?}");

    let next = bed.upstream.commit(&[("a", "2")]);
    let other = GitHttps::start(bed.dir.path().join("srv"));
    for status in [301, 302, 307, 308] {
        for target in [other.base(), bed.server.url_at("localhost", "x"), "http://127.0.0.1".into()]
        {
            bed.server.inject(Fault::redirect(status, &target).times(1));
            let failure = bed.failure(&next);
            assert!(matches!(failure, Failure::Redirected { .. }), "{failure}");
        }
    }
    assert_eq!(other.connections(), 0);
    bed.server.inject(Fault::redirect(302, "/around"));
    let failure = bed.failure(&next);
    assert!(matches!(failure, Failure::RedirectLoop { .. }), "{failure}");
}

#[test]
fn what_may_pass_is_tried_again_and_the_rest_is_not() {
    let mut bed = Bed::new();
    let commit = bed.upstream.commit(&[("a", "1")]);
    bed.server.inject(Fault::status(503).header("Retry-After", "1").times(1));
    bed.server.inject(Fault::status(502).times(1));
    let started = Instant::now();
    bed.fetch(&commit).expect("the third time");
    assert_eq!(bed.requests(), [post(503), post(502), post(200)]);
    assert!(started.elapsed() >= Duration::from_secs(1), "the server's wish was not heard");
    let next = bed.upstream.commit(&[("a", "2")]);
    for fault in [Fault::reset(), Fault::close(), Fault::cut(0.5)] {
        bed.server.inject(fault.times(2));
        bed.fetch(&next).expect("the third time");
        assert_sound(&bed.path);
        let held = bed.path.join("refs/multideployer/fetched").join(&next);
        fs::remove_file(held).expect("forgotten");
        bed.mirror = {
            drop(std::mem::replace(&mut bed.mirror, mirror_in(&bed.dir.path().join("x")).0));
            fs::remove_dir_all(&bed.path).expect("removed");
            Mirror::open(&bed.path).expect("a new mirror")
        };
    }
    for status in [400, 403, 418] {
        bed.server.repair();
        bed.server.forget();
        bed.server.inject(Fault::status(status));
        let _ = bed.failure(&next);
        assert_eq!(bed.requests().len(), 1, "{status}");
    }
    bed.server.repair();
    bed.server.forget();
    bed.server.inject(Fault::status(503));
    let failure = bed.failure(&next);
    assert!(matches!(failure, Failure::Status { status: 503, .. }), "{failure}");
    assert_eq!(bed.requests().len(), 3);
    let left: Vec<_> = fs::read_dir(bed.path.join("objects/pack"))
        .expect("packs")
        .map(|entry| entry.expect("one").file_name())
        .collect();
    assert_eq!(left.len(), 0, "{left:?}");
}

#[test]
fn nothing_waits_for_ever() {
    let mut bed = Bed::new();
    let noise = noise(5000);
    let commit = bed.upstream.commit(&[("a", &noise)]);
    bed.remote.limits.read = Duration::from_millis(400);
    bed.remote.limits.total = Duration::from_secs(3);
    for fault in [Fault::hang(), Fault::stall(0.5)] {
        bed.server.inject(fault);
        let started = Instant::now();
        let failure = bed.failure(&commit);
        assert!(matches!(failure, Failure::Timeout { step: Step::Read, .. }), "{failure}");
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
        bed.server.repair();
    }
    bed.remote.limits.read = Duration::from_secs(10);
    for fault in [Fault::drip(), Fault::stall(0.5)] {
        bed.server.inject(fault);
        let started = Instant::now();
        let failure = bed.failure(&commit);
        assert!(matches!(failure, Failure::Timeout { step: Step::Total, .. }), "{failure}");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        bed.server.repair();
    }
    bed.remote.limits.total = Duration::from_secs(30);
    for fault in [Fault::drip(), Fault::hang()] {
        bed.server.inject(fault);
        let interrupt = bed.remote.interrupt.clone();
        let signal = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            interrupt.set(15);
        });
        let started = Instant::now();
        let failure = bed.failure(&commit);
        signal.join().expect("it ends");
        assert!(matches!(failure, Failure::Interrupted(15)), "{failure}");
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        bed.server.repair();
        bed.remote.interrupt.set(0);
    }
    bed.fetch(&commit).expect("when all is well");
    assert_sound(&bed.path);
}

#[test]
fn servers_that_serve_tips_only_and_pages_that_are_no_servers() {
    let mut bed = Bed::with(Upstream::tips_only);
    let first = bed.upstream.commit(&[("a", "1")]);
    let _ = bed.upstream.commit(&[("a", "2")]);
    bed.fetch(&first).expect("version 2 serves any commit");
    bed.server.inject(Fault::page("<html>Please log in\u{7}</html>"));
    let failure = bed.failure(&"1".repeat(40));
    assert!(matches!(failure, Failure::WebPage { .. }), "{failure}");
    assert!(failure.to_string().contains("Please log in"), "{failure}");
}

#[test]
fn certificates_are_checked() {
    let mut bed = Bed::new();
    let commit = bed.upstream.commit(&[("a", "1")]);
    let other = bed.dir.path().join("other.pem");
    fs::write(&other, Authority::new("another").pem()).expect("the CA");
    let good = bed.remote.trust.ca_file.replace(other);
    let failure = bed.failure(&commit);
    assert!(matches!(failure, Failure::Certificate { .. }), "{failure}");
    assert!(failure.hint().is_some_and(|hint| hint.contains("ca_file")));
    assert_eq!(bed.requests(), []);
    bed.remote.trust.ca_file = good;
    let alone = Authority::shared().acceptor_for(&["elsewhere.example"], &[]);
    let server = GitHttps::start_with(bed.dir.path().join("srv"), Some(alone), 0);
    let url = RepoUrl::Https { authority: server.authority(), path: "acme/api.git".into() };
    let remote = Remote { url, ..bed.remote.clone() };
    let failure = fetch(&mut bed.mirror, &commit, &remote).expect_err("another name");
    assert!(matches!(failure, Failure::Certificate { .. }), "{failure}");
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn names_are_looked_up() {
    let mut bed = Bed::new();
    let first = bed.upstream.commit(&[("a", "1")]);
    let second = bed.upstream.commit(&[("a", "2")]);
    let _ = bed.upstream.annotated_tag("v1", &first);
    for n in 0..20 {
        bed.upstream.point(&format!("refs/pull/{n}/head"), &first);
    }
    let quiet = |_: Progress| {};
    let mut resolve =
        |name: &str| bed.mirror.resolve(&name.parse().expect("a name"), &bed.remote, &quiet);
    assert_eq!(resolve("main").expect("a branch"), rev(&second));
    assert_eq!(resolve("v1").expect("a tag"), rev(&first));
    assert_eq!(resolve(&second[..8]).expect("an abbreviation"), rev(&second));
    assert_eq!(resolve(&first[..8]).expect("one that is no tip"), rev(&first));
    let failure = resolve("absent").expect_err("no such name");
    assert!(matches!(failure, Failure::NameNotFound { .. }), "{failure}");
    bed.fetch(&first).expect("after that");
    assert_sound(&bed.path);
}

#[test]
fn through_a_proxy_that_wants_a_password() {
    let mut bed = Bed::new();
    let commit = bed.upstream.commit(&[("a", "1")]);
    let real = bed.server.authority();
    let name = format!("{NAME}:443");
    let proxy = ConnectProxy::start_with(&[(&name, &real)], Some("u:pr0xy"));
    bed.remote.url = RepoUrl::Https { authority: NAME.into(), path: "acme/api.git".into() };
    bed.remote.proxy = Some(through(&proxy, Some("u:pr0xy")));
    bed.fetch(&commit).expect("through the proxy");
    assert_eq!(proxy.tunnels().len(), 1);
    assert_eq!(bed.requests(), [post(200)]);
    bed.remote.proxy = Some(through(&proxy, Some("u:wr0ng")));
    let failure = bed.failure(&"1".repeat(40));
    assert!(matches!(failure, Failure::Proxy { .. }), "{failure}");
    assert!(failure.to_string().contains("407"), "{failure}");
    assert!(!text(&failure).contains("wr0ng"));
    assert_eq!(proxy.tunnels().len(), 2);
}
