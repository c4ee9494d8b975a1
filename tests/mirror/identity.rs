//! Which commit a server gives away, and how it is found where it does not give any by its
//! id.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;

use multideployer::domain::RepoUrl;
use multideployer::mirror::{Failure, Mirror, Progress, Remote, Trust};

use crate::support::https::GitHttps;
use crate::support::isolated;
use crate::support::tls::Authority;
use crate::support::upstream::Upstream;
use crate::{assert_sound, fetch, mirror_in, remote, rev};

struct Bed {
    dir: tempfile::TempDir,
    server: GitHttps,
    way: Remote,
    mirror: Mirror,
    path: PathBuf,
    warnings: RefCell<Vec<String>>,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("srv");
        fs::create_dir(&root).expect("a directory");
        let server = GitHttps::start(&root);
        let ca = dir.path().join("ca.pem");
        fs::write(&ca, Authority::shared().pem()).expect("the CA");
        let url = RepoUrl::Https { authority: server.authority(), path: "acme/api.git".into() };
        let way = Remote { trust: Trust { ca_file: Some(ca), ..Trust::default() }, ..remote(url) };
        let (mirror, path) = mirror_in(dir.path());
        Self { dir, server, way, mirror, path, warnings: RefCell::default() }
    }

    fn upstream(&self) -> Upstream {
        Upstream::new(self.dir.path().join("srv"), "acme/api.git")
    }

    fn fetch(&mut self, commit: &str) -> Result<(), Failure> {
        let keep = |progress: Progress| {
            if let Progress::Warning(text) = progress {
                self.warnings.borrow_mut().push(text);
            }
        };
        self.mirror.fetch(rev(commit), &self.way, &keep).map(|_| ())
    }

    fn refs(&self) -> String {
        let mut git = isolated("git");
        git.arg("--git-dir").arg(&self.path).args(["for-each-ref", "--format=%(refname)"]);
        String::from_utf8(git.output().expect("git starts").stdout).expect("text")
    }

    fn has(&self, object: &str) -> bool {
        let mut git = isolated("git");
        git.arg("--git-dir").arg(&self.path).args(["cat-file", "-e", object]);
        git.output().expect("git starts").status.success()
    }

    fn new_mirror(&mut self) {
        let (other, _) = mirror_in(&self.dir.path().join("other"));
        drop(std::mem::replace(&mut self.mirror, other));
        fs::remove_dir_all(&self.path).expect("the mirror goes");
        self.mirror = Mirror::open(&self.path).expect("a mirror");
    }
}

#[test]
fn a_server_that_speaks_version_0_only_gives_one_commit_and_is_remembered() {
    let mut bed = Bed::new();
    let upstream = bed.upstream();
    let commits = ["1", "2", "3"].map(|n| upstream.commit(&[("a", n)]));
    bed.server.forget_version_2();
    bed.fetch(&commits[1]).expect("a fetch");
    assert!(!bed.has(&commits[0]), "only what was asked for");
    bed.server.forget();
    bed.fetch(&commits[2]).expect("a fetch");
    let methods: Vec<_> = bed.server.requests().into_iter().map(|one| one.method).collect();
    assert_eq!(methods, ["GET", "POST"], "version 2 is not tried again");
    let failure = bed.fetch(&"1".repeat(40)).expect_err("no such commit");
    assert!(matches!(failure, Failure::CommitNotFound { .. }), "{failure}");
    assert_eq!(*bed.warnings.borrow(), Vec::<String>::new());
    assert_sound(&bed.path);
}

/// A commit that is no tip: from a server of each kind that gives away tips only, with and
/// without libgit2.
#[test]
fn a_server_that_refuses_a_commit_by_its_id_gives_its_branches_and_tags_and_no_other_refs() {
    for (plain, old) in [(false, true), (false, false), (true, true)] {
        let mut bed = Bed::new();
        let upstream = bed.upstream().tips_only();
        let first = upstream.commit(&[("a", "1")]);
        let second = upstream.commit(&[("a", "2")]);
        let third = upstream.commit(&[("a", "3")]);
        let pull = upstream.dangling(Some(&third), &[("a", "pull")]);
        upstream.point("refs/pull/1/head", &pull);
        let lost = upstream.dangling(Some(&third), &[("a", "lost")]);
        let _ = upstream.annotated_tag("v1", &first);
        if old {
            bed.server.forget_version_2();
        } else {
            bed.server.serve_tips_only();
        }
        bed.way.plain = plain;
        bed.fetch(&third).expect("the end of a branch");
        bed.fetch(&second).expect("what a branch leads to");
        let told = bed.warnings.borrow().clone();
        assert_eq!(told.len(), 1, "plain {plain}, old {old}: {told:?}");
        assert!(told[0].contains("its branches and tags are fetched"), "{told:?}");
        assert!(!bed.has(&pull), "never refs/*");
        let refs = bed.refs();
        let strange = refs.lines().find(|name| !name.starts_with("refs/multideployer/"));
        assert_eq!(strange, None);
        for commit in [&lost, &"1".repeat(40)] {
            let failure = bed.fetch(commit).expect_err("nothing leads there");
            assert!(matches!(failure, Failure::CommitNotFound { .. }), "{failure}");
        }
        assert_sound(&bed.path);
    }
}

#[test]
fn a_commit_that_no_ref_leads_to_is_not_found_unless_the_server_gives_it_away() {
    let mut bed = Bed::new();
    let upstream = bed.upstream().reachable_only();
    let first = upstream.commit(&[("a", "1")]);
    let lost = upstream.dangling(Some(&first), &[("a", "lost")]);
    bed.server.forget_version_2();
    let failure = bed.fetch(&lost).expect_err("nothing leads there");
    assert!(matches!(failure, Failure::CommitNotFound { .. }), "{failure}");
    let hint = failure.hint().expect("a hint");
    assert!(hint.contains("refuse commits that no branch or tag reaches"), "{hint}");
    let _ = upstream.config("uploadpack.allowAnySHA1InWant", "true");
    bed.fetch(&lost).expect("given away");
    assert_sound(&bed.path);
}

#[test]
fn an_empty_repository_has_no_commit_in_each_version() {
    for (plain, old) in [(false, false), (false, true), (true, true)] {
        let mut bed = Bed::new();
        let _ = bed.upstream();
        bed.way.plain = plain;
        if old {
            bed.server.forget_version_2();
        }
        let failure = bed.fetch(&"1".repeat(40)).expect_err("nothing there");
        assert!(matches!(failure, Failure::CommitNotFound { .. }), "{plain} {old}: {failure}");
        assert_eq!(bed.refs(), "");
    }
}

#[test]
fn a_repository_with_sha256_ids_is_told_as_such_in_each_version() {
    for old in [false, true] {
        let mut bed = Bed::new();
        let dir = bed.dir.path().join("srv/acme/api.git");
        let mut git = isolated("git");
        git.args(["init", "--quiet", "--bare", "--object-format=sha256"]).arg(&dir);
        assert!(git.status().expect("git starts").success());
        let mut commit = isolated("git");
        commit.env("GIT_COMMITTER_NAME", "a").env("GIT_COMMITTER_EMAIL", "a@b");
        commit.env("GIT_AUTHOR_NAME", "a").env("GIT_AUTHOR_EMAIL", "a@b");
        let empty_tree = "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321";
        commit.arg("--git-dir").arg(&dir).args(["commit-tree", "-m", "x", empty_tree]);
        let id = String::from_utf8(commit.output().expect("git starts").stdout).expect("text");
        let mut point = isolated("git");
        point.arg("--git-dir").arg(&dir).args(["update-ref", "refs/heads/main", id.trim()]);
        assert!(point.status().expect("git starts").success());
        if old {
            bed.server.forget_version_2();
        }
        let failure = bed.fetch(&"1".repeat(40)).expect_err("other ids");
        assert!(matches!(failure, Failure::ObjectFormat { .. }), "old {old}: {failure}");
        assert!(failure.to_string().contains("SHA-256"), "{failure}");
    }
}

#[test]
fn a_branch_that_is_moved_by_force_or_replaced_by_a_directory_of_branches() {
    let mut bed = Bed::new();
    let upstream = bed.upstream();
    let first = upstream.commit(&[("a", "1")]);
    let second = upstream.commit(&[("a", "2")]);
    upstream.point("refs/heads/feature", &first);
    upstream.tag("v1", &first);
    let quiet = |_: Progress| {};
    let at = |bed: &mut Bed, name: &str| {
        bed.mirror.resolve(&name.parse().expect("a name"), &bed.way, &quiet).expect("its commit")
    };
    assert_eq!((at(&mut bed, "feature"), at(&mut bed, "v1")), (rev(&first), rev(&first)));
    bed.fetch(&first).expect("a fetch");
    upstream.tag("v1", &second);
    upstream.delete("refs/heads/feature");
    upstream.point("refs/heads/feature/x", &second);
    assert_eq!((at(&mut bed, "feature/x"), at(&mut bed, "v1")), (rev(&second), rev(&second)));
    bed.fetch(&second).expect("no conflict of names");
    // With the fallback, which fetches by name, as well.
    bed.new_mirror();
    let strict = upstream.tips_only();
    bed.server.forget_version_2();
    bed.way.plain = true;
    bed.fetch(&first).expect("by its branches");
    strict.delete("refs/heads/feature/x");
    strict.point("refs/heads/feature", &second);
    let third = strict.commit(&[("a", "3")]);
    let fourth = strict.commit(&[("a", "4")]);
    bed.fetch(&fourth).expect("a tip");
    bed.fetch(&third).expect("by its branches");
    assert_sound(&bed.path);
}

#[test]
fn a_commit_that_is_here_needs_no_server() {
    let mut bed = Bed::new();
    let upstream = bed.upstream();
    let first = upstream.commit(&[("a", "1")]);
    let second = upstream.commit(&[("a", "2")]);
    for commit in [&first, &second] {
        bed.fetch(commit).expect("a fetch");
    }
    bed.server.stop();
    for commit in [&first, &second] {
        let again = fetch(&mut bed.mirror, commit, &bed.way).expect("it is here");
        assert!(!again.connected);
    }
}
