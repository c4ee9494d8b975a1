//! `verify`: what a commit has to prove before it is deployed, against real servers.

use crate::estate::Estate;
use crate::support::host::{Ran, TestHost};
use crate::support::keys::{KeyPair, Kind};
use crate::support::signer::{Gpg, Signer};
use crate::support::sshd::{GitSshd, Options};
use crate::support::upstream::{Entry, Upstream};

impl Estate {
    /// Deploys one app with further keys.
    fn deploy_one(&self, app: &str, release: &str, more: &str) -> Ran {
        self.host.apps_with(&[(app, &self.source(app), release, more)]);
        self.host.deploy()
    }
}

/// A chain of commits on top of `parent`, made in one go; answers the last.
fn grow(upstream: &Upstream, reference: &str, parent: &str, commits: usize) -> String {
    use std::io::Write as _;
    let mut stream = String::new();
    for n in 0..commits {
        let from = if n == 0 { format!("from {parent}\n") } else { String::new() };
        let name = "Bob <bob@example.com> 1700000000 +0000";
        stream.push_str(&format!(
            "commit {reference}\ncommitter {name}\ndata 4\nmore\n{from}M 644 inline log\ndata <<E\n{n}\nE\n\n"
        ));
    }
    let mut child = crate::support::isolated("git")
        .arg("--git-dir")
        .arg(upstream.dir())
        .args(["fast-import", "--quiet", "--force"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("git starts");
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(stream.as_bytes()).expect("git reads");
    drop(stdin);
    assert!(child.wait().expect("git ends").success());
    upstream.resolve(reference)
}

fn signed_by(path: &str) -> String {
    format!("verify: {{signed_by: {path}}}")
}

const MAIN: &str = "verify: {reachable_from: [refs/heads/main]}";

#[test]
fn only_what_a_known_key_signed_is_deployed() {
    let estate = Estate::with_ssh(TestHost::new());
    let ada = KeyPair::new(&estate.host.path("secrets"), "ada", Kind::Ed25519);
    let eve = KeyPair::new(&estate.host.path("secrets"), "eve", Kind::Ed25519);
    let gpg = Gpg::new(&estate.host.path("tmp"));
    let bob = gpg.key("bob@example.com", "ed25519", "cert,sign", "never", "");
    let ssh = estate.host.write("etc/signers", &format!("ada@example.com {}\n", ada.public));
    let pgp = estate.host.write("etc/keys.asc", &gpg.export(&["bob@example.com"]));
    let both = format!("verify: {{signed_by: [{ssh}, {pgp}]}}");
    for app in ["api", "worker"] {
        let upstream = estate.upstream(app);
        let plain = estate.release(app, "v1");
        let ran = estate.deploy_one(app, &plain, &both).code(7);
        drop(ran.says(app).says(&plain).says("is not signed").says("signers").says("keys.asc"));
        assert_eq!(estate.host.recorded(app, "attempted"), None);
        assert_eq!(estate.host.recorded(app, "deployed"), None);
        assert!(estate.host.deployments().iter().all(|(deployed, _)| deployed != app));

        let by_ada = Signer::ssh(&ada).sign(upstream, &plain);
        estate.deploy_one(app, &by_ada, &both).ok();
        assert_eq!(estate.host.recorded(app, "deployed").as_ref(), Some(&by_ada));
        let log = estate.host.read("log/multideployer.log");
        assert!(log.contains(&format!("commit {by_ada} is signed by ada@example.com")), "{log}");
        assert!(log.contains(&ada.fingerprint), "{log}");

        let next = estate.release(app, "v2");
        let by_eve = Signer::ssh(&eve).sign(upstream, &next);
        let ran = estate.deploy_one(app, &by_eve, &both).code(7);
        drop(ran.says(&eve.fingerprint).says("does not list").says(&by_eve));
        assert_eq!(estate.host.recorded(app, "deployed").as_ref(), Some(&by_ada));
        let by_bob = gpg.signer(&bob, "").sign(upstream, &by_eve);
        estate.deploy_one(app, &by_bob, &both).ok();
        // Of one kind only: the other's key is not known.
        let ran = estate.deploy_one(app, &by_bob, &format!("force: true, {}", signed_by(&ssh)));
        drop(ran.code(7).says(&bob));
    }
}

#[test]
fn the_file_of_keys_has_to_be_trustworthy_and_unchanged_apps_cost_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let estate = Estate::new(TestHost::new());
    let ada = KeyPair::new(&estate.host.path("secrets"), "ada", Kind::Ecdsa);
    let signers = estate.host.write("etc/signers", &format!("ada@example.com {}\n", ada.public));
    let signed = Signer::ssh(&ada).sign(estate.upstream("api"), &estate.release("api", "v1"));
    let mode = |mode| {
        std::fs::set_permissions(&signers, PermissionsExt::from_mode(mode)).expect("its mode");
    };
    mode(0o666);
    let ran = estate.deploy_one("api", &signed, &signed_by(&signers)).code(7);
    drop(ran.says("everybody can write to it").says("signers").says("chmod o-w"));
    mode(0o644);
    let gone = estate.host.text("etc/nowhere");
    let ran = estate.deploy_one("api", &signed, &signed_by(&gone)).code(7);
    drop(ran.says("cannot read").says("nowhere"));
    estate.deploy_one("api", &signed, &signed_by(&signers)).ok();
    // What is current is not verified again: the file may even be gone.
    estate.https.forget();
    estate.deploy_one("api", &signed, &signed_by(&gone)).ok();
    assert!(estate.https.requests().is_empty());
    // What is deployed again is, although the commit is in the mirror.
    estate.host.write("etc/signers", "# nobody\n");
    let more = format!("force: true, {}", signed_by(&signers));
    drop(estate.deploy_one("api", &signed, &more).code(7).says("it is empty"));
    assert!(estate.https.requests().is_empty());
}

#[test]
fn a_tag_counts_by_its_own_signature_or_its_commits() {
    let estate = Estate::new(TestHost::new());
    let upstream = estate.upstream("api");
    let ada = KeyPair::new(&estate.host.path("secrets"), "ada", Kind::Rsa);
    let signers = estate.host.write("etc/signers", &format!("ada@example.com {}\n", ada.public));
    let plain = estate.release("api", "v1");
    let signer = Signer::ssh(&ada);
    let tag = signer.tag(upstream, "v1", &plain);
    estate.deploy_one("api", &tag, &signed_by(&signers)).ok();
    assert_eq!(estate.host.recorded("api", "deployed").as_ref(), Some(&plain));
    // By name, with the commit's id recorded.
    let more = format!("allow_ref: true, {}", signed_by(&signers));
    let next = estate.release("api", "v2");
    let named = signer.tag(upstream, "v2", &next);
    estate.deploy_one("api", "v2", &more).ok();
    assert_eq!(estate.host.recorded("api", "deployed").as_ref(), Some(&next));
    let log = estate.host.read("log/multideployer.log");
    assert!(log.contains(&format!("tag {named} is signed by")), "{log}");
    // An older tag under a newer name is not what was signed for.
    let third = estate.release("api", "v3");
    upstream.point("refs/tags/v9", &tag);
    estate.deploy_one("api", "v9", &more).code(7).says("is not signed");
    upstream.annotated_tag("v3", &third);
    estate.deploy_one("api", "v3", &more).code(7).says("is not signed");
    let ran = estate.deploy_one("api", &upstream.resolve("refs/tags/v3"), &more).code(7);
    drop(ran.says("is not signed"));
}

#[test]
fn a_commit_from_a_fork_is_refused_until_it_is_merged() {
    let estate = Estate::with_ssh(TestHost::new());
    for app in ["api", "worker"] {
        let upstream = estate.upstream(app);
        let base = estate.release(app, "v1");
        estate.deploy_one(app, &base, MAIN).ok();
        let files = crate::support::app::files(estate.host.dir(), app, "evil");
        let entries: Vec<_> =
            files.iter().map(|(path, text)| Entry::from(&(path.as_str(), text.as_str()))).collect();
        let imposter = upstream.commit_on("refs/pull/1/head", Some(&base), &entries);
        let ran = estate.deploy_one(app, &imposter, MAIN).code(7);
        drop(ran.says(&imposter).says("not reachable from `refs/heads/main`").says(&base[..7]));
        assert_eq!(estate.host.recorded(app, "deployed").as_ref(), Some(&base));
        assert_eq!(estate.host.recorded(app, "attempted"), None);
        // Without the key it is deployed, as ever.
        estate.deploy_one(app, &imposter, "").ok();
        estate.deploy_one(app, &base, MAIN).ok();

        let tree = upstream.resolve(&format!("{imposter}^{{tree}}"));
        let more = upstream.commit(&[("other", "x")]);
        let merge = ["commit-tree", "-p", &more, "-p", &imposter, "-m", "Merge", &tree];
        upstream.point("refs/heads/main", &upstream.git(&merge));
        estate.deploy_one(app, &imposter, MAIN).ok();
        assert_eq!(estate.host.recorded(app, "deployed").as_ref(), Some(&imposter));
        let verified = estate.host.git(app, &["for-each-ref", "refs/multideployer/verified"]);
        assert!(verified.contains(&format!("verified/heads/main/{imposter}")), "{verified}");
    }
}

#[test]
fn names_that_the_remote_does_not_have_lead_to_nothing() {
    let estate = Estate::new(TestHost::new());
    let commit = estate.release("api", "v1");
    let more = "verify: {reachable_from: [prod, refs/tags/v1]}";
    let ran = estate.deploy_one("api", &commit, more).code(7);
    drop(ran.says("there is no `refs/heads/prod`").says("there is no `refs/tags/v1`"));
    let after = estate.release("api", "v2");
    estate.upstream("api").annotated_tag("v1", &after);
    estate.deploy_one("api", &commit, more).ok();
    // A branch whose name only begins the same is another.
    estate.upstream("api").point("refs/heads/production", &after);
    let ran = estate.deploy_one("api", &after, "verify: {reachable_from: prod}").code(7);
    drop(ran.says("there is no `refs/heads/prod`"));
}

#[test]
fn a_rollback_needs_no_network_and_outlives_a_force_push() {
    let estate = Estate::new(TestHost::new());
    let upstream = estate.upstream("api");
    let one = estate.release("api", "v1");
    estate.deploy_one("api", &one, MAIN).ok();
    let two = estate.release("api", "v2");
    estate.deploy_one("api", &two, MAIN).ok();
    // Another history takes the branch's place.
    let other = upstream.commit_on("refs/heads/main", None, &[Entry::file("a", "b")]);
    assert_ne!(other, two);
    estate.https.forget();
    estate.deploy_one("api", &one, MAIN).ok();
    assert!(estate.https.requests().is_empty(), "{:?}", estate.https.requests());
    let three = upstream.dangling(Some(&two), &[("content/only", "x")]);
    let ran = estate.deploy_one("api", &three, MAIN).code(7);
    drop(ran.says("not reachable").says(&other[..7]));
    // Proven for one branch is not proven for another.
    estate.host.apps_with(&[(
        "api",
        &estate.source("api"),
        &two,
        "verify: {reachable_from: [prod]}",
    )]);
    let ran = estate.host.run(&["deploy", "--offline"]).code(3);
    drop(ran.says("--offline").says("refs/heads/prod"));
}

/// Five thousand commits, each with a change of some size: what is fetched is the commits.
#[test]
fn a_long_history_is_fetched_in_bounds() {
    for (app, filter) in [("api", "true"), ("api", "false"), ("worker", "true")] {
        let estate = Estate::with_ssh(TestHost::new());
        let upstream = estate.upstream(app);
        upstream.git(&["config", "uploadpack.allowFilter", filter]);
        let old = estate.release(app, "v1");
        grow(upstream, "refs/heads/main", &old, 5_000);
        upstream.pack();
        estate.https.forget();
        estate.deploy_one(app, &old, MAIN).ok();
        let bytes: u64 = estate.https.requests().iter().map(|r| r.answer_bytes).sum();
        if app == "api" && filter == "true" {
            assert!(bytes > 0 && bytes < 2_000_000, "{bytes}");
        }
        // What came is no commit that could be deployed.
        let middle = upstream.resolve("refs/heads/main~10");
        assert_eq!(estate.host.recorded(app, &format!("fetched/{middle}")), None);
        let fork = upstream.dangling(Some(&old), &[("content/x", "x")]);
        let ran = estate.deploy_one(app, &fork, MAIN).code(7);
        drop(ran.says("not reachable").says("with 5001 commits"));
        // The next one asks for what is new only.
        let next = estate.release(app, "v2");
        grow(upstream, "refs/heads/main", &next, 3);
        estate.https.forget();
        estate.deploy_one(app, &next, MAIN).ok();
        let bytes: u64 = estate.https.requests().iter().map(|r| r.answer_bytes).sum();
        assert!(bytes < 60_000, "{bytes}");
        // And the middle, which was seen on the way, is deployed as a whole.
        estate.deploy_one(app, &middle, MAIN).ok();
        assert_eq!(estate.host.recorded(app, "deployed"), Some(middle));
    }
}

/// The servers over SSH of the other tests speak version 0.
#[test]
fn a_server_over_ssh_that_speaks_version_2_proves_it_too() {
    for filter in ["true", "false"] {
        let mut host = TestHost::new();
        let srv = host.path("tmp");
        let upstream = Upstream::new(&srv, "api.git").config("uploadpack.allowFilter", filter);
        let key = KeyPair::new(&host.path("secrets"), "id_ed25519", Kind::Ed25519);
        let options =
            Options { settings: vec!["AcceptEnv GIT_PROTOCOL".into()], ..Options::default() };
        let server = GitSshd::start_with(&srv, std::slice::from_ref(&key), &options);
        let known = host.write("etc/known_hosts", &server.known_hosts());
        let auth = format!("{{ssh_key_file: {}}}", key.file.display());
        host.add_host(&server.authority(), &[("auth", &auth), ("known_hosts_file", &known)]);
        let old = host.release(&upstream, "api", "v1");
        grow(&upstream, "refs/heads/main", &old, 120);
        let fork = upstream.dangling(Some(&old), &[("content/x", "x")]);
        let source = server.url("api.git");
        host.apps_with(&[("api", &source, &fork, MAIN)]);
        drop(host.deploy().code(7).says("not reachable").says("with 121 commits"));
        host.apps_with(&[("api", &source, &old, MAIN)]);
        host.deploy().ok();
        assert_eq!(host.recorded("api", "deployed"), Some(old));
    }
}

#[test]
fn a_history_that_lost_something_is_begun_anew() {
    let estate = Estate::new(TestHost::new());
    let upstream = estate.upstream("api");
    let one = estate.release("api", "v1");
    let two = grow(upstream, "refs/heads/main", &one, 10);
    let three = grow(upstream, "refs/heads/main", &two, 10);
    estate.deploy_one("api", &two, MAIN).ok();
    estate.deploy_one("api", &three, MAIN).ok();
    // The commits that the history borrows from the mirror go, with all that was fetched.
    let mirror = estate.host.mirror("api");
    std::fs::remove_dir_all(mirror.join("refs/multideployer/fetched")).expect("it goes");
    std::fs::remove_file(mirror.join("shallow")).expect("it goes");
    let objects = estate.host.mirror("api").join("objects/pack");
    for entry in std::fs::read_dir(objects).expect("packs") {
        std::fs::remove_file(entry.expect("an entry").path()).expect("it goes");
    }
    estate.deploy_one("api", &one, MAIN).ok();
    assert_eq!(estate.host.recorded("api", "deployed"), Some(one.clone()));
    // And packs that are garbage.
    let four = grow(upstream, "refs/heads/main", &three, 10);
    let five = grow(upstream, "refs/heads/main", &four, 10);
    let packs = estate.host.mirror("api").join("history/objects/pack");
    let mut spoilt = 0;
    for entry in std::fs::read_dir(packs).expect("packs") {
        let path = entry.expect("an entry").path();
        std::fs::remove_file(&path).expect("it goes");
        std::fs::write(&path, "garbage").expect("it is spoilt");
        spoilt += 1;
    }
    assert!(spoilt > 0);
    assert_ne!(four, five);
    estate.deploy_one("api", &four, MAIN).ok();
    assert_eq!(estate.host.recorded("api", "deployed"), Some(four));
}

#[test]
fn a_repository_on_this_disk_proves_it_too() {
    let host = TestHost::new();
    let upstream = Upstream::new(host.path("tmp"), "api.git");
    let old = host.release(&upstream, "api", "v1");
    grow(&upstream, "refs/heads/main", &old, 100);
    let fork = upstream.dangling(Some(&old), &[("content/x", "x")]);
    let source = upstream.dir().display().to_string();
    host.apps_with(&[("api", &source, &fork, MAIN)]);
    drop(host.deploy().code(7).says("not reachable").says("with 101 commits"));
    host.apps_with(&[("api", &source, &old, MAIN)]);
    host.deploy().ok();
    assert_eq!(host.recorded("api", "deployed"), Some(old));
}

#[test]
fn check_refuses_what_could_never_be_verified() {
    let host = TestHost::new();
    let sha = "91ab77cd0e5f2f7f0a6c1b3f5d7e9a1b2c3d4e5f";
    for (more, says) in [
        ("verify: {}", "asks for nothing"),
        ("verify: {signed_by: signers}", "not absolute"),
        ("verify: {signed_by: []}", "empty list"),
        ("verify: {signed: /x}", "unknown key `signed`"),
        ("verify: {revoked_keys: /x}", "of no use without `signed_by`"),
        ("verify: {reachable_from: [\"release/*\"]}", "patterns are not supported"),
        ("verify: {reachable_from: [refs/pull/1/head]}", "anybody who may propose a change"),
        ("verify: {reachable_from: HEAD}", "the server's choice"),
        ("verify: yes", "must be a mapping"),
    ] {
        host.apps_with(&[("api", "https://example.com/api.git", sha, more)]);
        host.run(&["check"]).code(2).says(says).says("multideployer.yaml:3:");
    }
    host.manifest(&format!(
        "version: 2\ndefaults: {{verify: {{reachable_from: main}}}}\napps:\n- {{name: a, source: /a, release: {sha}, verify: {{signed_by: /x}}}}\n- {{name: b, source: /a, release: {sha}, verify: none}}\n- {{name: c, source: /a, release: {sha}}}\n"
    ));
    host.run(&["check"]).ok();
}
