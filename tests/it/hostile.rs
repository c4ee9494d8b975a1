//! Commits of somebody who means harm: whatever they are, they end before anything is touched,
//! or are deployed as what they are.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use git2::{ObjectType, Oid, Repository};

use crate::support::app;
use crate::support::host::{Ran, TestHost};
use crate::support::https::GitHttps;
use crate::support::tls::Authority;
use crate::support::upstream::{Entry, Upstream};

/// A host that runs `good` and `bad`, both in version 1. Of `good` there is a version 2, which
/// is wanted together with what is hostile of `bad`.
pub(crate) struct Bed {
    pub(crate) host: TestHost,
    pub(crate) bad: Upstream,
    good: Upstream,
    objects: Repository,
    pub(crate) ones: [String; 2],
    two: String,
}

/// What a tree is made of: mode, name, object.
type Part<'a> = (&'a str, &'a [u8], Oid);

impl Bed {
    pub(crate) fn new() -> Self {
        let host = TestHost::new();
        let good = Upstream::new(host.path("upstream"), "good.git");
        let bad = Upstream::new(host.path("upstream"), "bad.git");
        let ones = [host.release(&good, "good", "1"), host.release(&bad, "bad", "1")];
        let two = host.release(&good, "good", "2");
        let objects = Repository::open(bad.dir()).expect("the upstream");
        let bed = Self { host, bad, good, objects, ones, two };
        bed.want([&bed.ones[0], &bed.ones[1]], "");
        bed.host.deploy().ok();
        bed.host.reports();
        bed
    }

    /// A server for what there is, and where `bad` is there.
    pub(crate) fn over_the_network(&mut self) -> (GitHttps, String) {
        let server = GitHttps::start(self.host.path("upstream"));
        let ca = String::from_utf8(Authority::shared().pem()).expect("PEM is text");
        let ca = self.host.write("etc/ca.pem", &ca);
        self.host.add_host(&server.authority(), &[("ca_file", &ca)]);
        let source = server.url("bad.git");
        (server, source)
    }

    fn want(&self, commits: [&str; 2], more: &str) {
        let source = |upstream: &Upstream| upstream.dir().display().to_string();
        self.host.apps_with(&[
            ("good", &source(&self.good), commits[0], ""),
            ("bad", &source(&self.bad), commits[1], more),
        ]);
    }

    /// Wants this commit of `bad`, and of `good` the one that is there.
    pub(crate) fn want_bad(&self, commit: &str) {
        self.want([&self.ones[0], commit], "");
    }

    fn write(&self, kind: ObjectType, bytes: &[u8]) -> Oid {
        self.objects.odb().expect("objects").write(kind, bytes).expect("an object")
    }

    pub(crate) fn blob(&self, content: &[u8]) -> Oid {
        self.write(ObjectType::Blob, content)
    }

    /// A tree as it is given: git itself would not make most of them.
    pub(crate) fn tree(&self, parts: &[Part<'_>]) -> Oid {
        let mut bytes = Vec::new();
        for (mode, name, id) in parts {
            bytes.extend_from_slice(mode.as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(name);
            bytes.push(0);
            bytes.extend_from_slice(id.as_bytes());
        }
        self.write(ObjectType::Tree, &bytes)
    }

    /// A commit of a tree, with a message.
    pub(crate) fn commit(&self, tree: Oid, message: &str) -> String {
        let who = "A\u{1b}[31m <a@\u{9b}b> 1700000000 +0000";
        let text = format!("tree {tree}\nauthor {who}\ncommitter {who}\n\n{message}");
        self.write(ObjectType::Commit, text.as_bytes()).to_string()
    }

    /// A commit of what `bad` is made of, with these parts more in its root.
    pub(crate) fn beside(&self, more: &[Part<'_>]) -> String {
        let files = app::files(self.host.dir(), "bad", "2");
        let part = |path: &str| {
            let found = files.iter().find(|(name, _)| name == path);
            self.blob(found.expect("a file of an app").1.as_bytes())
        };
        let content = self.tree(&[("100644", b"version", part("content/version"))]);
        let scripts = self.tree(&[("100755", b"hook.sh", part("scripts/hook.sh"))]);
        let mut all: Vec<Part<'_>> = vec![
            ("100644", b"appspec.yml", part("appspec.yml")),
            ("40000", b"content", content),
            ("40000", b"scripts", scripts),
        ];
        all.extend_from_slice(more);
        self.commit(self.tree(&all), "hostile \u{1b}]0;owned\u{7}\n\n\u{202e}\r\u{1b}[2J")
    }

    /// Wants this commit of `bad`, and the next one of `good`.
    pub(crate) fn deploy(&self, commit: &str, more: &str) -> Ran {
        self.want([&self.two, commit], more);
        let ran = self.host.run(&["deploy", "-v"]);
        assert_harmless(&ran);
        ran
    }

    /// It has to be refused with one of these exit codes, naming the culprit; and nothing has
    /// happened.
    #[track_caller]
    pub(crate) fn refused_as(&self, codes: &[i32], commit: &str, more: &str, named: &str) {
        let before = self.everything();
        let ran = self.deploy(commit, more);
        let code = ran.status.code().expect("an exit code");
        assert!(codes.contains(&code), "{code} for {named}: {ran:?}");
        let ran = ran.stderr_has(named);
        assert_eq!(self.host.reports(), [] as [&str; 0], "{named}");
        for (app, one) in ["good", "bad"].iter().zip(&self.ones) {
            assert_eq!(self.host.installed(app), "1", "{named}");
            assert_eq!(self.host.recorded(app, "deployed").as_ref(), Some(one), "{named}");
            assert_eq!(self.host.recorded(app, "attempted"), None, "{named}");
        }
        let after = self.everything();
        let differs: Vec<_> = after
            .iter()
            .filter(|(path, what)| before.get(*path) != Some(*what))
            .map(|(path, _)| path)
            .chain(before.keys().filter(|path| !after.contains_key(*path)))
            .collect();
        assert!(differs.is_empty(), "{named} changed {differs:#?}: {ran:?}");
    }

    /// The same with exit code 7.
    #[track_caller]
    pub(crate) fn refused(&self, commit: &str, named: &str) {
        self.refused_as(&[7], commit, "", named);
    }

    /// All that is on the host but mirrors, logs and the repositories themselves: kind, size
    /// and time.
    fn everything(&self) -> BTreeMap<String, (u32, u64, i64, i64)> {
        let leave = [
            "cache/mirrors",
            "log",
            "upstream",
            "hooks/run.pid",
            "etc",
            "state/lock",
            "state/tool",
        ];
        walkdir::WalkDir::new(self.host.dir())
            .into_iter()
            .map(|entry| entry.expect("a readable directory"))
            .filter(|entry| !leave.iter().any(|at| entry.path().starts_with(self.host.path(at))))
            .filter(|entry| entry.file_type().is_file() || entry.file_type().is_symlink())
            .map(|entry| {
                let data = entry.metadata().expect("its metadata");
                let facts = (data.mode(), data.size(), data.mtime(), data.mtime_nsec());
                (entry.path().display().to_string(), facts)
            })
            .collect()
    }
}

/// Nothing that a terminal would obey, or that changes how a line reads, is ever printed.
#[track_caller]
pub(crate) fn assert_harmless(ran: &Ran) {
    let obeyed = |c: char| {
        let control = c.is_control() && c != '\n';
        control
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    for text in [&ran.stdout, &ran.stderr] {
        let found = text.chars().find(|c| obeyed(*c));
        assert!(found.is_none(), "{found:?} is printed: {ran:?}");
    }
}

/// Names that lead elsewhere, that mean git's own directory to some file system, and that are
/// there twice.
#[test]
fn names_that_lead_elsewhere_are_refused_and_named() {
    let bed = Bed::new();
    let file = bed.blob(b"harm\n");
    let tree = bed.tree(&[("100644", b"f", file)]);
    let outside = bed.blob(bed.host.text("srv").as_bytes());
    let long = [b'x'; 256];
    let singles: &[(&[u8], &str)] = &[
        (b"..", "`..`: it leads elsewhere"),
        (b".", "`.`: it leads elsewhere"),
        (b"a/b", "`a/b`: it holds a slash"),
        (b"../../escaped", "`../../escaped`: it holds a slash"),
        (b"a/../../escaped", "it holds a slash"),
        (b"/etc/escaped", "`/etc/escaped`: it holds a slash"),
        (b"/", "it holds a slash"),
        (&long, "it is longer than 255 bytes"),
        (b".git", "`.git`: it means `.git`"),
        (b".GIT", "`.GIT`: it means `.git`"),
        (b".git.", "it means `.git`"),
        (b".git ", "it means `.git`"),
        (b".git . ", "it means `.git`"),
        (b"git~1", "`git~1`: it means `.git`"),
        (b"GIT~1", "it means `.git`"),
        (b".git::$INDEX_ALLOCATION", "it means `.git`"),
        (b".git:stream", "it means `.git`"),
        (b".git\\hooks", "it means `.git`"),
        (".g\u{200c}it".as_bytes(), "it means `.git`"),
        ("\u{feff}.git".as_bytes(), "it means `.git`"),
        (".git\u{202e}".as_bytes(), "it means `.git`"),
    ];
    for (name, named) in singles {
        // As a file, as a directory, as a link.
        for (mode, id) in [("100644", file), ("40000", tree), ("120000", outside)] {
            bed.refused(&bed.beside(&[(mode, name, id)]), named);
        }
    }
    // No tree has such an entry: it cannot be read any further.
    for (mode, id) in [("100644", file), ("40000", tree)] {
        bed.refused_as(&[3, 7], &bed.beside(&[(mode, b"", id)]), "", "bad");
    }
    let twice: &[[(&str, &[u8], Oid); 2]] = &[
        // A link out of the tree, and a file through it.
        [("120000", b"d", outside), ("40000", b"d", tree)],
        [("40000", b"d", tree), ("120000", b"d", outside)],
        [("100644", b"d", file), ("100755", b"d", file)],
        [("40000", b"d", tree), ("40000", b"d", tree)],
        [("100644", b"d", file), ("40000", b"d", tree)],
        [("120000", b"d", outside), ("100644", b"d", file)],
    ];
    for parts in twice {
        bed.refused(&bed.beside(parts), "`d`: it is there twice");
    }
    // Deep down it is the same, and the whole path is named.
    let down = bed.tree(&[("40000", b"deep", bed.tree(&[("100644", b"..", file)]))]);
    bed.refused(&bed.beside(&[("40000", b"down", down)]), "`down/deep/..`");
}

/// What cannot be written as a file, or not be removed again, is refused by name.
#[test]
fn modes_and_contents_that_do_not_fit_are_refused() {
    let bed = Bed::new();
    let file = bed.blob(b"harm\n");
    let tree = bed.tree(&[("100644", b"f", file)]);
    let gone = Oid::from_str(&"1".repeat(40)).expect("an id");
    for (mode, name, id, codes, named) in [
        ("10644", b"pipe" as &[u8], file, &[7] as &[i32], "`pipe`: it is no file"),
        ("20644", b"device", file, &[7], "`device`: it is no file"),
        ("140000", b"socket", file, &[7], "`socket`: it is no file"),
        ("160000", b"sub", gone, &[7], "deployed as empty directories: `sub`"),
        ("160000", b"sub", tree, &[7], "deployed as empty directories: `sub`"),
        ("120000", b"link", bed.blob(b""), &[7], "`link`: it is a link whose target is empty"),
        ("120000", b"link", bed.blob(b"a\0b"), &[7], "`link`: it is a link whose target holds"),
        ("120000", b"link", bed.blob(&[b'x'; 5000]), &[7], "`link`: it is a link whose target"),
        ("100644", b"new\nline", file, &[7], r"control character: `new\nline`"),
        ("100644", b"\x1b[2Jclear", file, &[7], r"control character: `\u{1b}[2Jclear`"),
        ("100644", "bell\u{7f}\u{9b}".as_bytes(), file, &[7], r"`bell\u{7f}\u{9b}`"),
        ("100644", b"space ", file, &[7], "ends with white space: `space `"),
        ("100644", b"\xff\xfe", file, &[7], "not UTF-8"),
        // What is no tree, or no file's content: the mirror is made anew, and it is so again.
        ("40000", b"d", file, &[3, 7], "bad"),
        ("100644", b"f", tree, &[3, 7], "bad"),
        ("100644", b"f", gone, &[3, 7], "bad"),
        ("40000", b"d", gone, &[3, 7], "bad"),
    ] {
        bed.refused_as(codes, &bed.beside(&[(mode, name, id)]), "", named);
    }
}

/// Links: what they lead to is neither read nor written, nor installed.
#[test]
fn links_out_of_the_bundle_are_refused_and_named() {
    let bed = Bed::new();
    let deploy = |entries: &[Entry]| {
        let one = &bed.ones[1];
        bed.bad.commit_on("refs/heads/hostile", Some(one), entries)
    };
    let secret = bed.host.secret("secret", "not for you\n");
    let etc = bed.host.text("etc");
    for (entry, named) in [
        (Entry::link("content/x", &secret), "`content/x`"),
        (Entry::link("content/x", "../../../../../../../etc/passwd"), "`content/x`"),
        (Entry::link("content/x", &etc), "`content/x`"),
        (Entry::link("content/x", ".."), "`content/x`"),
        (Entry::link("content/x", "."), "`content/x`"),
        (Entry::link("content/x", "/proc/self/root"), "`content/x`"),
        (Entry::link("scripts/hook.sh", "/bin/sh"), "`scripts/hook.sh`"),
        (Entry::link("appspec.yml", &secret), "`appspec.yml`"),
    ] {
        bed.refused(&deploy(&[entry]), named);
    }
    // By way of another link, each harmless by itself.
    let commit = deploy(&[Entry::link("a", "content"), Entry::link("content/b", "../a/../../x")]);
    bed.refused(&commit, "`content/b`");
    assert!(!bed.host.read("log/multideployer.log").contains("not for you"));
}

/// This file system takes names that differ in case or in Unicode's form only for different
/// ones, as git does: all of them arrive. The order of a tree does not matter either, nor does
/// a mode that git wrote long ago.
#[test]
fn what_is_only_odd_is_deployed_as_it_is() {
    let bed = Bed::new();
    let one = bed.blob(b"one\n");
    let two = bed.blob(b"two\n");
    let files = app::files(bed.host.dir(), "bad", "2");
    let part =
        |path: &str| bed.blob(files.iter().find(|(name, _)| name == path).unwrap().1.as_bytes());
    let content = bed.tree(&[
        ("100644", b"version", part("content/version")),
        ("100644", b"readme", one),
        ("100644", b"README", two),
        ("100644", "e\u{301}".as_bytes(), one),
        ("100644", "\u{e9}".as_bytes(), two),
        ("100664", b"group", one),
        ("100777", b"all", one),
        ("100644", b"-rf", one),
        ("100644", b"$(touch owned); `x` | y & z", one),
        ("100644", b"a\\b*?[c]", one),
        ("100644", "\u{202e}txt.exe".as_bytes(), one),
        ("100644", b"...", one),
    ]);
    let commit = bed.commit(
        bed.tree(&[
            ("40000", b"scripts", bed.tree(&[("100755", b"hook.sh", part("scripts/hook.sh"))])),
            ("40000", b"content", content),
            ("100644", b"appspec.yml", part("appspec.yml")),
        ]),
        "odd \u{1b}[2J",
    );
    let _ = bed.deploy(&commit, "").ok();
    for (name, text) in [
        ("readme", "one\n"),
        ("README", "two\n"),
        ("e\u{301}", "one\n"),
        ("\u{e9}", "two\n"),
        ("-rf", "one\n"),
        ("$(touch owned); `x` | y & z", "one\n"),
        ("a\\b*?[c]", "one\n"),
        ("\u{202e}txt.exe", "one\n"),
        ("...", "one\n"),
    ] {
        assert_eq!(bed.host.read(&format!("srv/bad/{name}")), text, "{name}");
    }
    let mode = |name: &str| bed.host.path(name).metadata().expect("it").mode() & 0o7777;
    assert_eq!((mode("srv/bad/group"), mode("srv/bad/all")), (0o644, 0o755));
    // And all of it goes again.
    let _ = bed.deploy(&bed.ones[1].clone(), "").ok();
    let left: Vec<_> = std::fs::read_dir(bed.host.path("srv/bad")).expect("it").collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

/// The same over the network, where git's own server is in between: it may refuse to serve it.
#[test]
fn a_server_in_between_changes_nothing() {
    let mut bed = Bed::new();
    let (_server, source) = bed.over_the_network();
    let file = bed.blob(b"harm\n");
    let tree = bed.tree(&[("100644", b"f", file)]);
    let outside = bed.blob(bed.host.text("srv").as_bytes());
    for parts in [
        vec![("40000", b"..".as_slice(), tree)],
        vec![("40000", b".git", tree)],
        vec![("100644", b"", file)],
        vec![("100644", b"../../escaped", file)],
        vec![("120000", b"d", outside), ("40000", b"d", tree)],
        vec![("40000", b"d", file)],
    ] {
        let commit = bed.beside(&parts);
        bed.host.apps(&[("bad", &source, &commit)]);
        let ran = bed.host.deploy();
        assert_harmless(&ran);
        let code = ran.status.code().expect("an exit code");
        assert!([3, 7].contains(&code), "{parts:?}: {ran:?}");
        assert!(bed.host.reports().is_empty());
        assert_eq!(bed.host.installed("bad"), "1");
    }
}
