//! Over SSH, from OpenSSH's own server.

use std::fs;
use std::path::PathBuf;

use multideployer::domain::RepoUrl;
use multideployer::mirror::{Failure, Mirror, Remote, Trust};

use crate::support::keys::{KeyPair, Kind};
use crate::support::sshd::{GitSshd, Options};
use crate::support::upstream::Upstream;
use crate::{assert_sound, fetch, key, mirror_in, remote, text};

pub(crate) struct Bed {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) upstream: Upstream,
    pub(crate) key: KeyPair,
    pub(crate) server: GitSshd,
    pub(crate) mirror: Mirror,
    pub(crate) path: PathBuf,
    pub(crate) remote: Remote,
}

pub(crate) fn url(server: &GitSshd, path: &str) -> RepoUrl {
    let (user, host) = (GitSshd::user(), "127.0.0.1".to_owned());
    RepoUrl::Ssh { user, host, port: server.port(), path: path.to_owned() }
}

impl Bed {
    pub(crate) fn new(options: &Options) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("srv");
        let upstream = Upstream::new(&root, "acme/api.git");
        let pair = KeyPair::new(dir.path(), "client", Kind::Ed25519);
        let server = GitSshd::start_with(&root, std::slice::from_ref(&pair), options);
        let known = dir.path().join("known_hosts");
        fs::write(&known, server.known_hosts()).expect("known hosts");
        let remote = Remote {
            credential: Some(key(&pair)),
            trust: Trust { known_hosts_file: Some(known), ..Trust::default() },
            ..remote(url(&server, "/acme/api.git"))
        };
        let (mirror, path) = mirror_in(dir.path());
        Self { dir, upstream, key: pair, server, mirror, path, remote }
    }

    pub(crate) fn know(&self, text: &str) {
        fs::write(self.dir.path().join("known_hosts"), text).expect("known hosts");
    }

    pub(crate) fn failure(&mut self, commit: &str) -> Failure {
        let failure = fetch(&mut self.mirror, commit, &self.remote).expect_err("a failure");
        let shown = text(&failure);
        assert!(!shown.contains("PRIVATE KEY"), "{shown}");
        failure
    }
}

#[test]
fn version_2_where_it_is_let_through_and_version_0_elsewhere() {
    let v2 = Options { settings: vec!["AcceptEnv GIT_PROTOCOL".into()], ..Options::default() };
    for options in [v2, Options::default(), Options::restrictive()] {
        let mut bed = Bed::new(&options);
        let first = bed.upstream.commit(&[("a", "1")]);
        let second = bed.upstream.commit(&[("a", "2")]);
        let third = bed.upstream.commit(&[("a", "3")]);
        for commit in [&second, &third, &first] {
            fetch(&mut bed.mirror, commit, &bed.remote).expect("a fetch");
            assert_sound(&bed.path);
        }
        let connections = bed.server.connections();
        let again = fetch(&mut bed.mirror, &second, &bed.remote).expect("it is held");
        assert!(!again.connected);
        assert_eq!(bed.server.connections(), connections);
        assert_eq!(bed.server.commands().len(), 3, "{:?}", bed.server.commands());
        let failure = bed.failure(&"1".repeat(40));
        assert!(matches!(failure, Failure::CommitNotFound { .. }), "{failure}");
    }
}

#[test]
fn a_version_0_server_that_serves_tips_only_gives_its_branches_and_tags() {
    let mut bed = Bed::new(&Options::default());
    let _ = Upstream::open(bed.dir.path().join("srv"), "acme/api.git").tips_only();
    let commits: Vec<_> = (0..4).map(|n| bed.upstream.commit(&[("a", &n.to_string())])).collect();
    let hidden = bed.upstream.commit_on("refs/pull/1/head", Some(&commits[3]), &[]);
    fetch(&mut bed.mirror, &commits[3], &bed.remote).expect("the tip");
    assert_sound(&bed.path);
    fetch(&mut bed.mirror, &commits[1], &bed.remote).expect("through the branch");
    assert_sound(&bed.path);
    let commands = bed.server.commands().len();
    let held = fetch(&mut bed.mirror, &commits[2], &bed.remote).expect("it came along");
    assert!(!held.connected);
    assert_eq!(bed.server.commands().len(), commands);
    fetch(&mut bed.mirror, &hidden, &bed.remote).expect("listed, so it may be asked for");
    let failure = bed.failure(&bed.upstream.dangling(Some(&commits[0]), &[("x", "y")]));
    assert!(matches!(failure, Failure::CommitNotFound { .. }), "{failure}");
    assert_sound(&bed.path);
}

#[test]
fn host_keys_unknown_changed_and_one_of_several() {
    let all = vec![Kind::Rsa, Kind::Ecdsa, Kind::Ed25519];
    let mut bed = Bed::new(&Options { host_keys: all, ..Options::default() });
    let commit = bed.upstream.commit(&[("a", "1")]);
    bed.know("");
    let failure = bed.failure(&commit);
    assert!(matches!(failure, Failure::UnknownHostKey(_)), "{failure}");
    let shown = text(&failure);
    let fingerprints: Vec<_> =
        bed.server.host_keys().iter().map(|key| key.fingerprint.clone()).collect();
    assert!(fingerprints.iter().any(|one| shown.contains(one)), "{shown}");
    assert!(shown.contains("known_hosts"), "{shown}");
    let other = KeyPair::new(bed.dir.path(), "other", Kind::Ed25519);
    let name = format!("[127.0.0.1]:{}", bed.server.port());
    bed.know(&format!("{name} {}\n", other.public));
    let failure = bed.failure(&commit);
    assert!(matches!(failure, Failure::ChangedHostKey(_)), "{failure}");
    assert_eq!(bed.server.commands(), Vec::<String>::new());
    assert_eq!(bed.server.refusals(), 0);
    let lines = bed.server.known_hosts();
    for line in lines.lines() {
        bed.know(&format!("{line}\n"));
        let _ = fs::remove_file(bed.path.join("refs/multideployer/fetched").join(&commit));
        let new = bed.upstream.commit(&[("a", line)]);
        fetch(&mut bed.mirror, &new, &bed.remote).expect("by the one key that is known");
    }
    for fingerprint in fingerprints {
        bed.remote.trust = Trust { host_keys: Some(vec![fingerprint]), ..Trust::default() };
        let new = bed.upstream.commit(&[("a", &bed.server.connections().to_string())]);
        fetch(&mut bed.mirror, &new, &bed.remote).expect("by its fingerprint");
    }
    bed.remote.trust.host_keys = Some(vec![other.fingerprint]);
    let failure = bed.failure(&"2".repeat(40));
    assert!(matches!(failure, Failure::ChangedHostKey(_)), "{failure}");
}

#[test]
fn a_repository_that_is_not_there_is_told_in_the_servers_words() {
    let mut bed = Bed::new(&Options::default());
    let commit = bed.upstream.commit(&[("a", "1")]);
    bed.remote.url = url(&bed.server, "/acme/none.git");
    let failure = bed.failure(&commit);
    assert!(matches!(failure, Failure::NotFoundOrForbidden { .. }), "{failure}");
    assert!(failure.to_string().contains("not appear to be a git repository"), "{failure}");
}
