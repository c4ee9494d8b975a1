//! What is written is what `git archive | tar x` gives.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use git2::{ObjectType, Repository, Signature, Time};
use multideployer::mirror::{
    CheckoutOptions, Failure, Mirror, Worktree, set_aside_worktrees, sweep_worktrees,
};
use multideployer::process::Interrupt;

use crate::support::upstream::{Entry, Upstream};
use crate::{fetch, mirror_in, on_disk, rev};

#[derive(Debug, PartialEq)]
enum Found {
    Directory,
    File { executable: bool, content: Vec<u8> },
    Link(PathBuf),
}

fn tree(root: &Path) -> BTreeMap<PathBuf, Found> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let metadata = path.symlink_metadata().expect("metadata");
            let what = if metadata.is_dir() {
                open.push(path.clone());
                Found::Directory
            } else if metadata.is_symlink() {
                Found::Link(fs::read_link(&path).expect("a link"))
            } else {
                let executable = metadata.mode() & 0o100 != 0;
                Found::File { executable, content: fs::read(&path).expect("a file") }
            };
            found.insert(path.strip_prefix(root).expect("below").to_owned(), what);
        }
    }
    found
}

struct Bed {
    dir: tempfile::TempDir,
    upstream: Upstream,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let upstream = Upstream::new(dir.path(), "srv/api.git");
        fs::create_dir(dir.path().join("out")).expect("a directory");
        Self { dir, upstream }
    }

    fn mirror(&self, commit: &str) -> Mirror {
        let (mut mirror, _) = mirror_in(self.dir.path());
        fetch(&mut mirror, commit, &on_disk(self.upstream.dir())).expect("a fetch");
        mirror
    }

    fn checkout(&self, commit: &str, options: &CheckoutOptions) -> Result<Worktree, Failure> {
        let target = self.dir.path().join("out").join(commit);
        self.mirror(commit).checkout(rev(commit), &target, options)
    }

    /// Checks out and compares with `git archive`, files, links and modes.
    fn compare(&self, commit: &str) -> Worktree {
        let options = CheckoutOptions { threads: 3, ..CheckoutOptions::default() };
        let worktree = self.checkout(commit, &options).expect("a checkout");
        let expected = self.dir.path().join("archive").join(commit);
        self.upstream.archive_into(commit, &expected);
        let (ours, theirs) = (tree(&worktree.path), tree(&expected));
        let names = |map: &BTreeMap<PathBuf, Found>| map.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&theirs));
        for (path, found) in &theirs {
            if &ours[path] != found
                && let (Found::File { content: a, .. }, Found::File { content: b, .. }) =
                    (&ours[path], found)
            {
                assert_eq!(
                    a.escape_ascii().to_string(),
                    b.escape_ascii().to_string(),
                    "{}",
                    path.display()
                );
            }
            assert_eq!(&ours[path], found, "{}", path.display());
        }
        let repository = Repository::open(self.upstream.dir()).expect("the upstream");
        let id = git2::Oid::from_str(commit).expect("an id");
        let time = repository.find_commit(id).expect("the commit").time().seconds();
        for (path, found) in &ours {
            let metadata = worktree.path.join(path).symlink_metadata().expect("metadata");
            assert_eq!(metadata.mtime(), time, "{}", path.display());
            let mode = metadata.permissions().mode() & 0o7777;
            match found {
                Found::File { executable: false, .. } => assert_eq!(mode, 0o644),
                Found::File { .. } | Found::Directory => assert_eq!(mode, 0o755),
                Found::Link(_) => {}
            }
        }
        let files = ours.values().filter(|found| matches!(found, Found::File { .. }));
        let bytes: usize = files
            .clone()
            .map(|found| match found {
                Found::File { content, .. } => content.len(),
                _ => 0,
            })
            .sum();
        assert_eq!((worktree.files, worktree.bytes), (files.count(), bytes as u64));
        worktree
    }

    /// A commit of a tree that git's own tools would not make.
    fn commit_tree(&self, make: impl FnOnce(&Repository) -> git2::Oid) -> String {
        let repository = Repository::open(self.upstream.dir()).expect("the upstream");
        let tree = make(&repository);
        let who = Signature::new("A", "a@b", &Time::new(1_700_000_000, 0)).expect("a person");
        let text = format!(
            "tree {tree}\nauthor {n} <{e}> 1700000000 +0000\ncommitter {n} <{e}> 1700000000 +0000\n\nodd\n",
            n = who.name().expect("text"),
            e = who.email().expect("text"),
        );
        let odb = repository.odb().expect("objects");
        odb.write(ObjectType::Commit, text.as_bytes()).expect("a commit").to_string()
    }
}

/// Mode, name and id.
type RawEntry<'a> = (&'a str, &'a [u8], git2::Oid);

/// A tree object from modes, names and ids, as they are given.
fn raw_tree(repository: &Repository, entries: &[RawEntry<'_>]) -> git2::Oid {
    let mut bytes = Vec::new();
    for (mode, name, id) in entries {
        bytes.extend_from_slice(mode.as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(name);
        bytes.push(0);
        bytes.extend_from_slice(id.as_bytes());
    }
    let odb = repository.odb().expect("objects");
    odb.write(ObjectType::Tree, &bytes).expect("a tree")
}

#[test]
fn a_plain_tree_with_links_modes_and_submodules() {
    let bed = Bed::new();
    let many: Vec<_> = (0..200).map(|n| format!("many/{}/{n}.txt", n % 7)).collect();
    let mut entries: Vec<_> = many.iter().map(|path| Entry::file(path, path)).collect();
    let submodule = "1".repeat(40);
    entries.extend([
        Entry::file("appspec.yml", "version: 0.0\n"),
        Entry::exec("scripts/run.sh", "#!/bin/sh\n"),
        Entry::link("current", "many/1"),
        Entry::link("deep/down/dangling", "/does/not/exist"),
        Entry::file("empty", ""),
        Entry::file(b"odd\nname\xff ", "x"),
        Entry::file("deep.d/b", "b"),
        Entry::submodule("vendor/lib", &submodule),
    ]);
    let commit = bed.upstream.commit_entries(&entries);
    let worktree = bed.compare(&commit);
    assert_eq!(worktree.symlinks.len(), 2);
    assert!(worktree.symlinks.contains(&("current".into(), "many/1".into())));
    assert_eq!(worktree.submodules, [PathBuf::from("vendor/lib")]);
    assert_eq!(worktree.odd_names.len(), 1);
    assert_eq!(worktree.warnings, Vec::<String>::new());
}

#[test]
fn every_attribute_that_git_archive_acts_upon() {
    let bed = Bed::new();
    let attributes = "\
* text=auto
*.crlf text eol=crlf
*.auto text=auto eol=crlf
*.only eol=crlf
*.raw -text eol=crlf
*.old crlf eol=crlf
*.oldno -crlf eol=crlf
*.input text=input eol=lf
*.bin binary
*.id ident
*.both ident text eol=crlf export-subst
*.u16 working-tree-encoding=UTF-16
*.u16bom working-tree-encoding=UTF-16LE-BOM
*.u16le text working-tree-encoding=UTF-16LE eol=crlf
*.u16be working-tree-encoding=utf-16be
*.u32 working-tree-encoding=UTF-32LE
*.latin working-tree-encoding=ISO-8859-1
*.subst export-subst
[attr]secret export-ignore
*.key secret
/docs export-ignore
tests/ export-ignore
/only/all/** export-ignore
deep/**/x export-ignore
\"quo ted\" export-ignore
lib export-ignore
";
    let text = "one\ntwo $Id$\nthree\n";
    let mixed = "one\r\ntwo\n";
    let kinds = [
        "crlf", "auto", "only", "raw", "old", "oldno", "input", "bin", "id", "both", "subst", "txt",
    ];
    let mut entries = vec![Entry::file(".gitattributes", attributes)];
    for kind in kinds {
        entries.push(Entry::file(format!("a.{kind}"), text));
        entries.push(Entry::file(format!("mixed.{kind}"), mixed));
        entries.push(Entry::file(format!("cr.{kind}"), "a\rb\nc\n"));
        entries.push(Entry::file(format!("nul.{kind}"), "a\0b\nc\n"));
        entries.push(Entry::file(format!("ctl.{kind}"), "\x01\x02\x03\nabc\n"));
        entries.push(Entry::file(format!("eof.{kind}"), "a\nb\n\x1a"));
        entries.push(Entry::file(format!("none.{kind}"), ""));
    }
    for kind in ["u16", "u16bom", "u16le", "u16be", "u32", "latin"] {
        entries.push(Entry::file(format!("a.{kind}"), "gr\u{fc}n\nzwei\n"));
        entries.push(Entry::file(format!("none.{kind}"), ""));
    }
    entries.push(Entry::file("astral.u16", "\u{1f600}\n"));
    for id in ["$Id: old $", "$Id: x y z $", "$Id$ $Id$", "$Id:$", "$Id: a\n$", "$Id", "$$Id$"] {
        entries.push(Entry::file(format!("{}.id", entries.len()), id));
    }
    for path in [
        "private.key",
        "docs/a",
        "sub/docs/a",
        "tests/a",
        "sub/tests/b/c",
        "only/all/a",
        "only/all/b/c",
        "deep/1/2/x",
        "deep/x",
        "deep/1/y",
        "quo ted",
        "sub/keep/private.key",
        "sub/keep/other",
        "sub/more/a.crlf",
        "sub/more/a.key",
        "file/tests",
    ] {
        entries.push(Entry::file(path, text));
    }
    entries.push(Entry::link("link.key", "a"));
    entries.push(Entry::link("link.crlf", "a"));
    entries.push(Entry::submodule("lib", &"2".repeat(40)));
    entries.push(Entry::submodule("mods/tests", &"2".repeat(40)));
    entries.push(Entry::file("sub/keep/.gitattributes", "private.key -export-ignore\n"));
    entries.push(Entry::file(
        "sub/more/.gitattributes",
        "*.crlf eol=lf\n*.key -secret !export-ignore\n[attr]secret -export-ignore\n",
    ));
    let commit = bed.upstream.commit_entries(&entries);
    bed.compare(&commit);
}

#[test]
fn facts_about_the_commit_are_filled_in() {
    let bed = Bed::new();
    let placeholders = [
        "%H",
        "%h",
        "%T",
        "%t",
        "%P",
        "%p",
        "%an",
        "%ae",
        "%al",
        "%ad",
        "%aD",
        "%at",
        "%ai",
        "%aI",
        "%as",
        "%cn",
        "%ce",
        "%cl",
        "%cd",
        "%cD",
        "%ct",
        "%ci",
        "%cI",
        "%cs",
        "%s",
        "%f",
        "%b",
        "%B",
        "%n",
        "%%",
        "%x41%x0a",
        "%",
        "100%",
        "% H",
        "%H%h-%%H",
        "% b%+b%+H%n%n%-b%-H",
    ];
    let mut text = String::from("$Format:$ $Format $Format:%H\n$ $Format:un%ended");
    for placeholder in placeholders {
        text = format!("{placeholder}=$Format:<{placeholder}>$\n{text}");
    }
    let first =
        bed.upstream.commit(&[(".gitattributes", "v export-subst\n"), ("v", &text), ("w", &text)]);
    bed.compare(&first);
    let repository = Repository::open(bed.upstream.dir()).expect("the upstream");
    let parent = repository.revparse_single(&first).and_then(|o| o.peel_to_commit()).expect("it");
    let tree = parent.tree().expect("its tree");
    let messages = [
        "Subject\n\nBody\nmore\n",
        "  leading: it's \"odd\"...  \nsecond line\n\n\n  body \n\n",
        "\n\nlate\n",
        "",
        "...a..b--c_d. .\n",
        "one\r\n\r\ntwo\r\n",
        "no line end",
        "ends with dots ...\n\nb",
    ];
    for (number, message) in messages.into_iter().enumerate() {
        let offset = [0, 330, -210, 60, -5, 765, -720, 0][number];
        let seconds =
            [1_700_000_000, 951_782_400, 100_000, 1_078_000_000, 86_399, 4_102_444_800, 100_000, 5]
                [number];
        let author = Signature::new("Jörg Ä. \"x\"", "j@x@y.example", &Time::new(seconds, offset));
        let committer = Signature::new("C", "nobody", &Time::new(1_700_000_001, 0));
        let (author, committer) = (author.expect("a person"), committer.expect("a person"));
        let parents = if number % 2 == 0 { vec![&parent, &parent] } else { vec![] };
        let id =
            repository.commit(None, &author, &committer, message, &tree, &parents).expect("it");
        bed.compare(&id.to_string());
    }
    let worktree = bed.compare(&bed.upstream.commit(&[("v", "$Format:%H and %ZZ$\n")]));
    assert!(worktree.warnings[0].contains("`v`"), "{:?}", worktree.warnings);
}

#[test]
fn export_ignore_can_be_turned_off_and_lfs_is_seen() {
    let bed = Bed::new();
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12\n",
        "a".repeat(64)
    );
    let commit = bed.upstream.commit(&[
        (
            ".gitattributes",
            "docs export-ignore\n*.psd filter=lfs diff=lfs merge=lfs -text\n*.gpg filter=crypt\n",
        ),
        ("docs/a", "b"),
        ("logo.psd", &pointer),
        ("real.psd", "content\n"),
        ("text", &pointer),
        ("x.gpg", "y"),
    ]);
    let worktree = bed.compare(&commit);
    assert_eq!(worktree.lfs_pointers, [PathBuf::from("logo.psd")]);
    assert_eq!(worktree.warnings.len(), 1);
    assert!(worktree.warnings[0].contains("filter=crypt"), "{:?}", worktree.warnings);
    assert!(!worktree.path.join("docs").exists());
    fs::remove_dir_all(&worktree.path).expect("it goes");
    let options = CheckoutOptions { export_ignore: false, ..CheckoutOptions::default() };
    let worktree = bed.checkout(&commit, &options).expect("a checkout");
    assert_eq!(fs::read(worktree.path.join("docs/a")).expect("a file"), b"b");
}

#[test]
fn trees_that_want_to_write_elsewhere_are_refused_and_nothing_stays() {
    let bed = Bed::new();
    let first = bed.upstream.commit(&[("a", "b")]);
    let blob = git2::Oid::from_str(&bed.upstream.resolve(&format!("{first}:a"))).expect("an id");
    let tree =
        git2::Oid::from_str(&bed.upstream.resolve(&format!("{first}^{{tree}}"))).expect("an id");
    let cases: [(&str, Vec<RawEntry<'_>>); 8] = [
        ("..", vec![("40000", b"..", tree)]),
        (".git", vec![("40000", b".git", tree)]),
        (".GIT ", vec![("100644", b".GIT ", blob)]),
        ("d", vec![("120000", b"d", blob), ("40000", b"d", tree)]),
        ("f", vec![("100644", b"f", blob), ("100644", b"f", blob)]),
        ("x/y", vec![("100644", b"x/y", blob)]),
        ("g", vec![("40000", b"g", tree), ("100644", b"g", blob)]),
        ("pipe", vec![("10644", b"pipe", blob)]),
    ];
    for (name, entries) in cases {
        let commit = bed.commit_tree(|repository| raw_tree(repository, &entries));
        let failure = bed.checkout(&commit, &CheckoutOptions::default()).expect_err(name);
        assert!(
            matches!(&failure, Failure::UnsafeName { name: found, .. } if found == name),
            "{name}: {failure}"
        );
        let left = fs::read_dir(bed.dir.path().join("out")).expect("it").count();
        assert_eq!(left, 0, "{name}");
    }
}

#[test]
fn a_tree_that_unfolds_to_billions_is_refused() {
    let bed = Bed::new();
    let first = bed.upstream.commit(&[("a", "b")]);
    let mut tree =
        git2::Oid::from_str(&bed.upstream.resolve(&format!("{first}^{{tree}}"))).expect("it");
    let commit = bed.commit_tree(|repository| {
        for _ in 0..9 {
            let names: Vec<_> = (b'a'..=b'j').map(|letter| vec![letter]).collect();
            let entries: Vec<_> =
                names.iter().map(|name| ("40000", name.as_slice(), tree)).collect();
            tree = raw_tree(repository, &entries);
        }
        tree
    });
    let failure = bed.checkout(&commit, &CheckoutOptions::default()).expect_err("too much");
    assert!(failure.to_string().contains("more than 1,000,000"), "{failure}");
}

#[test]
fn a_tree_as_deep_as_a_well_is_refused_without_harm() {
    let bed = Bed::new();
    let first = bed.upstream.commit(&[("a", "b")]);
    let mut tree =
        git2::Oid::from_str(&bed.upstream.resolve(&format!("{first}^{{tree}}"))).expect("it");
    let commit = bed.commit_tree(|repository| {
        for _ in 0..2500 {
            tree = raw_tree(repository, &[("40000", b"d", tree)]);
        }
        tree
    });
    let failure = bed.checkout(&commit, &CheckoutOptions::default()).expect_err("too deep");
    assert!(failure.to_string().contains("too long"), "{failure}");
}

#[test]
fn what_a_killed_run_left_is_swept_and_a_signal_leaves_nothing() {
    let bed = Bed::new();
    let commit = bed.upstream.commit(&[("a", "b")]);
    let out = bed.dir.path().join("out");
    for name in [commit.as_str(), ".x.1-0.new", "keep"] {
        fs::create_dir_all(out.join(name).join("sub")).expect("a directory");
    }
    let failure = bed.checkout(&commit, &CheckoutOptions::default()).expect_err("it is there");
    assert!(matches!(failure, Failure::File { .. }), "{failure}");
    set_aside_worktrees(&out).expect("it is moved");
    assert!(!out.join(&commit).exists(), "nobody takes it for complete any more");
    assert!(!sweep_worktrees(&out, Duration::ZERO, &Interrupt::new()).expect("no time"));
    assert_eq!(fs::read_dir(&out).expect("it").count(), 3);
    assert!(sweep_worktrees(&out, Duration::MAX, &Interrupt::new()).expect("a sweep"));
    set_aside_worktrees(&out.join("none")).expect("nothing");
    sweep_worktrees(&out.join("none"), Duration::MAX, &Interrupt::new())
        .expect("a sweep of nothing");
    let interrupt = Interrupt::new();
    interrupt.set(15);
    let options = CheckoutOptions { interrupt, ..CheckoutOptions::default() };
    let failure = bed.checkout(&commit, &options).expect_err("a signal");
    assert!(matches!(failure, Failure::Interrupted(15)), "{failure}");
    let names: Vec<_> =
        fs::read_dir(&out).expect("it").map(|e| e.expect("one").file_name()).collect();
    assert_eq!(names, ["keep"]);
}

#[test]
fn encodings_that_cannot_be_made_are_refused() {
    let bed = Bed::new();
    let commit =
        bed.upstream.commit(&[(".gitattributes", "a working-tree-encoding=EBCDIC\n"), ("a", "b")]);
    let failure = bed.checkout(&commit, &CheckoutOptions::default()).expect_err("an encoding");
    assert!(
        matches!(&failure, Failure::Encoding { encoding, .. } if encoding == "EBCDIC"),
        "{failure}"
    );
}

#[test]
fn modes_are_set_where_the_directory_above_would_change_them() {
    let bed = Bed::new();
    let commit = bed.upstream.commit(&[("d/e/a", "b"), ("d/run", "#!/bin/sh\n")]);
    let out = bed.dir.path().join("out");
    fs::create_dir_all(&out).expect("a directory");
    fs::set_permissions(&out, fs::Permissions::from_mode(0o2755))
        .expect("its group is handed down");
    bed.checkout(&commit, &CheckoutOptions::default()).expect("a checkout");
    let mode = |path: &str| {
        let path = out.join(&commit).join(path);
        fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o7777
    };
    for (path, wanted) in
        [("", 0o755), ("d", 0o755), ("d/e", 0o755), ("d/e/a", 0o644), ("d/run", 0o755)]
    {
        assert_eq!(mode(path), wanted, "`{path}` has {:o}", mode(path));
    }
    let names = fs::read_dir(out.join(&commit)).expect("the tree").count();
    assert_eq!(names, 1, "nothing else is in it");
}

/// Bytes that do not become smaller.
fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length / 8).flat_map(|_| next()).collect()
}

#[test]
fn many_files_and_large_ones_whole_and_as_differences() {
    let bed = Bed::new();
    let common = String::from_utf8_lossy(&bytes(1600)).into_owned();
    let mut entries = vec![
        Entry::file(".gitattributes", "converted eol=crlf\nlarge-converted ident\n"),
        Entry::file("converted", "a\nb\n"),
        Entry::file("large", bytes(17 << 20)),
        Entry::file("large-converted", [b"$Id$\n", &bytes(9 << 20)[..]].concat()),
        Entry::file("large-and-empty-inside", vec![0; 20 << 20]),
        Entry::file("as-large-as-held", vec![1; 16 << 20]),
    ];
    let names: Vec<_> = (0..400).map(|n| format!("d{}/{n}.txt", n % 9)).collect();
    entries.extend(names.iter().enumerate().map(|(n, name)| {
        let whole = n % 3 == 0;
        Entry::file(name, if whole { format!("{n}\n") } else { format!("{common}{n}\n") })
    }));
    let commit = bed.upstream.commit_entries(&entries);
    bed.compare(&commit);
    let shallow = bed.upstream.commit_entries(&[Entry::file("large", bytes(10 << 20))]);
    bed.compare(&shallow);
}

/// Lays the packs of a mirror open, as files of one object each.
fn unpack(mirror: &Path) {
    let packs = mirror.join("objects/pack");
    for entry in fs::read_dir(&packs).expect("packs") {
        let path = entry.expect("one").path();
        let aside = mirror.join(path.file_name().expect("a name"));
        fs::rename(&path, &aside).expect("set aside");
        if aside.extension().is_some_and(|kind| kind == "pack") {
            let status = std::process::Command::new("git")
                .args(["unpack-objects", "-q"])
                .env("GIT_DIR", mirror)
                .stdin(fs::File::open(&aside).expect("the pack"))
                .status();
            assert!(status.expect("git").success());
        }
    }
}

#[test]
fn what_is_not_what_its_id_says_is_found() {
    let bed = Bed::new();
    let large = bytes(9 << 20);
    let commit = bed.upstream.commit_entries(&[
        Entry::file("a", "one"),
        Entry::file("d/b", "two"),
        Entry::file("large", &large),
    ]);
    let options = CheckoutOptions::default();
    let path = bed.mirror(&commit).path().to_owned();
    let out = bed.dir.path().join("out").join(&commit);
    let damaged = |what: &str| {
        let mirror = Mirror::open(&path).expect("it opens");
        let failure = mirror.checkout(rev(&commit), &out, &options).expect_err(what);
        assert!(matches!(failure, Failure::Damaged { .. }), "{what}: {failure}");
        assert!(!out.exists(), "{what}");
    };
    // One byte of a large file, in its pack.
    let packs = fs::read_dir(path.join("objects/pack")).expect("packs");
    let pack = packs
        .map(|entry| entry.expect("one").path())
        .find(|path| path.extension().is_some_and(|kind| kind == "pack"))
        .expect("a pack");
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).expect("its mode");
    let right = fs::read(&pack).expect("the pack");
    let mut wrong = right.clone();
    wrong[right.len() / 2] ^= 1;
    fs::write(&pack, wrong).expect("damage");
    damaged("a bit of a large file");
    fs::write(&pack, right).expect("mended");
    // Content that is sound in itself, but another's.
    unpack(&path);
    let repository = Repository::open(bed.upstream.dir()).expect("the upstream");
    let id = |what: &str| repository.revparse_single(&format!("{commit}{what}")).expect(what).id();
    let file = |id: git2::Oid| {
        let id = id.to_string();
        path.join("objects").join(&id[..2]).join(&id[2..])
    };
    for (what, other) in [(":a", ":d/b"), (":d", "^{tree}"), ("", ":a")] {
        let (place, wrong) = (file(id(what)), file(id(other)));
        let aside = path.join("aside");
        fs::rename(&place, &aside).expect("set aside");
        fs::copy(&wrong, &place).expect("another's content");
        damaged(&format!("`{what}` as `{other}`"));
        fs::remove_file(&place).expect("away");
        fs::rename(&aside, &place).expect("mended");
    }
    Mirror::open(&path).expect("it opens").checkout(rev(&commit), &out, &options).expect("sound");
    assert_eq!(fs::read(out.join("large")).expect("a file"), large);
}
