//! Repositories as a git server has them, made with the real git program.

use std::cell::Cell;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::isolated;

/// When the first commit was made; each later one is a second younger.
const EPOCH: u64 = 1_700_000_000;

/// A change to one path of a tree.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A file, not executable.
    File(Vec<u8>, Vec<u8>),
    /// An executable file.
    Exec(Vec<u8>, Vec<u8>),
    /// A symbolic link and its text.
    Link(Vec<u8>, Vec<u8>),
    /// A submodule at a commit.
    Submodule(Vec<u8>, String),
    /// The path, or everything below it, goes.
    Gone(Vec<u8>),
}

impl Entry {
    /// A file, not executable.
    pub fn file(path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        Self::File(path.as_ref().to_vec(), content.as_ref().to_vec())
    }

    /// An executable file.
    pub fn exec(path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        Self::Exec(path.as_ref().to_vec(), content.as_ref().to_vec())
    }

    /// A symbolic link.
    pub fn link(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self::Link(path.as_ref().to_vec(), target.as_ref().to_vec())
    }

    /// A submodule.
    pub fn submodule(path: impl AsRef<[u8]>, commit: &str) -> Self {
        Self::Submodule(path.as_ref().to_vec(), commit.to_owned())
    }

    /// The path is removed.
    pub fn gone(path: impl AsRef<[u8]>) -> Self {
        Self::Gone(path.as_ref().to_vec())
    }

    fn write(&self, stream: &mut Vec<u8>) {
        let mut blob = |mode: &str, path: &[u8], content: &[u8]| {
            stream.extend(format!("M {mode} inline {}\n", quoted(path)).bytes());
            stream.extend(format!("data {}\n", content.len()).bytes());
            stream.extend(content);
            stream.push(b'\n');
        };
        match self {
            Self::File(path, content) => blob("100644", path, content),
            Self::Exec(path, content) => blob("100755", path, content),
            Self::Link(path, target) => blob("120000", path, target),
            Self::Submodule(path, commit) => {
                stream.extend(format!("M 160000 {commit} {}\n", quoted(path)).bytes());
            }
            Self::Gone(path) => stream.extend(format!("D {}\n", quoted(path)).bytes()),
        }
    }
}

/// Text of a path for `git fast-import`.
fn quoted(path: &[u8]) -> String {
    let mut text = String::from("\"");
    for &byte in path {
        match byte {
            b'"' | b'\\' => text.extend(['\\', byte as char]),
            0x20..=0x7e => text.push(byte as char),
            _ => text.push_str(&format!("\\{byte:03o}")),
        }
    }
    text + "\""
}

/// A file of a commit, by path and content: executable if it begins with `#!`.
impl From<&(&str, &str)> for Entry {
    fn from((path, content): &(&str, &str)) -> Self {
        if content.starts_with("#!") {
            Self::exec(path, content)
        } else {
            Self::file(path, content)
        }
    }
}

/// A bare repository below a server's root. Author and dates are fixed, so the same
/// commits have the same ids in every run.
#[derive(Debug)]
pub struct Upstream {
    dir: PathBuf,
    name: String,
    age: Cell<u64>,
}

impl Upstream {
    /// Makes the repository `name` (`acme/api.git`) below `root`, with the branch `main`
    /// as `HEAD`. Like GitHub it serves any commit it has.
    pub fn new(root: impl AsRef<Path>, name: &str) -> Self {
        let dir = root.as_ref().join(name);
        std::fs::create_dir_all(&dir).expect("a directory for the repository");
        let upstream = Self { dir, name: name.to_owned(), age: Cell::new(0) };
        upstream.git(&["init", "--quiet", "--bare", "--initial-branch=main"]);
        upstream.config("uploadpack.allowAnySHA1InWant", "true").config("gc.auto", "0")
    }

    /// Opens one that is there already.
    pub fn open(root: impl AsRef<Path>, name: &str) -> Self {
        let dir = root.as_ref().join(name);
        assert!(dir.join("HEAD").is_file(), "no repository at {}", dir.display());
        let upstream = Self { dir, name: name.to_owned(), age: Cell::new(0) };
        let count = upstream.git(&["rev-list", "--all", "--count"]);
        upstream.age.set(count.parse().expect("a number"));
        upstream
    }

    /// Sets a value of the repository's configuration.
    #[must_use]
    pub fn config(self, key: &str, value: &str) -> Self {
        self.git(&["config", key, value]);
        self
    }

    /// From now on files and directories may be left out, as GitHub has it.
    pub fn clone_filters(&self) {
        self.git(&["config", "uploadpack.allowFilter", "true"]);
    }

    /// A server that serves the tips of branches and tags only, as plain git does.
    #[must_use]
    pub fn tips_only(self) -> Self {
        self.config("uploadpack.allowAnySHA1InWant", "false")
    }

    /// A server that serves what is reachable from a branch or tag, and nothing else.
    #[must_use]
    pub fn reachable_only(self) -> Self {
        self.tips_only().config("uploadpack.allowReachableSHA1InWant", "true")
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its name on the server: `acme/api.git`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds or changes files on `main`; answers the commit's id. A content that begins
    /// with `#!` makes an executable file.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        self.commit_entries(&files.iter().map(Entry::from).collect::<Vec<_>>())
    }

    /// Changes `main`; answers the commit's id.
    pub fn commit_entries(&self, entries: &[Entry]) -> String {
        let parent = self.try_git(&["rev-parse", "--verify", "--quiet", "refs/heads/main"]);
        self.commit_on("refs/heads/main", parent.as_deref(), entries)
    }

    /// A commit on `reference` on top of `parent`, or a first one; the reference is moved
    /// there by force.
    pub fn commit_on(&self, reference: &str, parent: Option<&str>, entries: &[Entry]) -> String {
        let age = self.age.get() + 1;
        self.age.set(age);
        let message = format!("Change {age}\n");
        let mut stream = format!("commit {reference}\nmark :1\n").into_bytes();
        for role in ["author", "committer"] {
            let when = EPOCH + age;
            stream.extend(format!("{role} Ada Example <ada@example.com> {when} +0000\n").bytes());
        }
        stream.extend(format!("data {}\n{message}", message.len()).bytes());
        match parent {
            Some(parent) => stream.extend(format!("from {parent}\n").bytes()),
            None => stream.extend(b"deleteall\n"),
        }
        for entry in entries {
            entry.write(&mut stream);
        }
        stream.extend(b"\nget-mark :1\n");
        let mut child = self
            .command(&["fast-import", "--quiet", "--force", "--cat-blob-fd=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("git starts");
        let mut stdin = child.stdin.take().expect("its input");
        stdin.write_all(&stream).expect("git reads the commit");
        drop(stdin);
        let output = child.wait_with_output().expect("git ends");
        assert!(output.status.success(), "git fast-import: {:?}", output.status);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A commit that no branch or tag leads to.
    pub fn dangling(&self, parent: Option<&str>, files: &[(&str, &str)]) -> String {
        let entries: Vec<Entry> = files.iter().map(Entry::from).collect();
        let commit = self.commit_on("refs/tmp/dangling", parent, &entries);
        self.delete("refs/tmp/dangling");
        commit
    }

    /// Points a reference (`refs/heads/x`, `refs/pull/1/head`) at an object, whatever it
    /// pointed at before.
    pub fn point(&self, reference: &str, object: &str) {
        self.git(&["update-ref", reference, object]);
    }

    /// Deletes a reference; its commits stay.
    pub fn delete(&self, reference: &str) {
        self.git(&["update-ref", "-d", reference]);
    }

    /// A lightweight tag, moved if it is there.
    pub fn tag(&self, name: &str, commit: &str) {
        self.point(&format!("refs/tags/{name}"), commit);
    }

    /// An annotated tag, moved if it is there; answers the id of the tag object.
    pub fn annotated_tag(&self, name: &str, object: &str) -> String {
        self.git(&["tag", "--force", "--annotate", "--message", name, name, object]);
        self.git(&["rev-parse", &format!("refs/tags/{name}")])
    }

    /// The object something is at.
    pub fn resolve(&self, what: &str) -> String {
        self.git(&["rev-parse", "--verify", what])
    }

    /// `git archive` of a commit, unpacked into a fresh directory: what a deployment's
    /// bundle has to look like.
    pub fn archive_into(&self, commit: &str, dir: &Path) {
        std::fs::create_dir_all(dir).expect("a directory");
        let mut archive = self
            .command(&["archive", "--format=tar", commit])
            .stdout(Stdio::piped())
            .spawn()
            .expect("git starts");
        let tar = isolated("tar")
            .args(["--extract", "--same-permissions", "--directory"])
            .arg(dir)
            .stdin(archive.stdout.take().expect("its output"))
            .status()
            .expect("tar starts");
        assert!(archive.wait().expect("git ends").success() && tar.success());
    }

    /// Packs everything into one pack, as servers do.
    pub fn pack(&self) {
        self.git(&["repack", "-adq"]);
    }

    /// Runs git in the repository and answers what it printed, trimmed.
    pub fn git(&self, args: &[&str]) -> String {
        let output = self.command(args).output().expect("git starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?}: {stderr}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn try_git(&self, args: &[&str]) -> Option<String> {
        let output = self.command(args).output().expect("git starts");
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = isolated("git");
        let when = format!("{} +0000", EPOCH + self.age.get());
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "Ada Example")
                .env(format!("GIT_{role}_EMAIL"), "ada@example.com")
                .env(format!("GIT_{role}_DATE"), &when);
        }
        command.arg("--git-dir").arg(&self.dir).args(args);
        command
    }
}
