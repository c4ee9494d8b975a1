//! Mirrors: commits from real servers, and trees on the disk.

#[path = "../support/mod.rs"]
mod support;

mod certificates;
mod checkout;
mod disk;
mod github_app;
mod housekeeping;
mod https;
mod identity;
mod patience;
mod plain;
mod proxies;
mod share;
mod ssh;
mod ssh_agent;
mod ssh_keys;

use std::path::{Path, PathBuf};
use std::time::Duration;

use multideployer::domain::{RepoUrl, Revision, Secret};
use multideployer::mirror::{
    Credential, Failure, Fetched, Limits, Mirror, PrivateKey, Progress, Proof, Proxy, Remote, Trust,
};
use multideployer::process::Interrupt;

/// A revision by its digits.
fn rev(digits: &str) -> Revision {
    digits.parse().expect("a revision")
}

/// What reaches a repository without credential, as fast as tests want it.
fn remote(url: RepoUrl) -> Remote {
    Remote {
        url,
        credential: None,
        trust: Trust::default(),
        limits: Limits {
            connect: Duration::from_secs(10),
            read: Duration::from_secs(10),
            total: Duration::from_secs(30),
            pause: Duration::from_millis(10),
        },
        interrupt: Interrupt::new(),
        proxy: None,
        plain: false,
    }
}

/// What reaches a repository on this disk.
fn on_disk(path: &Path) -> Remote {
    remote(RepoUrl::File(path.to_owned()))
}

fn mirror_in(dir: &Path) -> (Mirror, PathBuf) {
    let path = dir.join("mirrors/api.git");
    (Mirror::open(&path).expect("a mirror"), path)
}

fn fetch(mirror: &mut Mirror, revision: &str, remote: &Remote) -> Result<Fetched, Failure> {
    mirror.fetch(rev(revision), remote, &|_: Progress| {})
}

/// Lines that do not compress well.
fn noise(lines: u64) -> String {
    let line = |n: u64| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (0..lines).map(line).collect::<Vec<_>>().join("\n")
}

/// The way through a proxy, with `user:password` perhaps.
fn through(proxy: &support::proxy::ConnectProxy, login: Option<&str>) -> Proxy {
    let login = login.map(|login| {
        let (user, password) = login.split_once(':').expect("user and password");
        (user.to_owned(), Secret::new(password.to_owned()))
    });
    let (host, port) = ("127.0.0.1".to_owned(), proxy.port());
    Proxy { host, port, login, origin: "the variable `https_proxy`".to_owned() }
}

fn token(text: &str) -> Credential {
    let proof = Proof::Token(Secret::new(text.to_owned()));
    Credential { username: None, proof, origin: "the token in `T`".to_owned() }
}

fn key(pair: &support::keys::KeyPair) -> Credential {
    let text = std::fs::read_to_string(&pair.file).expect("the key");
    let key = PrivateKey::parse(&text, None).expect("a private key");
    let proof = Proof::Key(Box::new(key));
    Credential { username: None, proof, origin: "the key `K`".to_owned() }
}

/// Real git finds nothing wrong with the mirror.
fn assert_sound(mirror: &Path) {
    let mut git = support::isolated("git");
    git.arg("--git-dir").arg(mirror).args(["fsck", "--full", "--strict", "--no-dangling"]);
    let output = git.output().expect("git starts");
    let words = [output.stderr, output.stdout].concat();
    let words = String::from_utf8_lossy(&words);
    // A mirror has no branches; git remarks on that.
    let found: Vec<_> = words.lines().filter(|line| !line.starts_with("notice: ")).collect();
    assert!(output.status.success() && found.is_empty(), "{words}");
}

/// The whole text of a failure, with its causes and its hint.
fn text(failure: &Failure) -> String {
    let mut text = format!("{failure} {failure:?} {:?}", failure.hint());
    let mut source = std::error::Error::source(failure);
    while let Some(cause) = source {
        text += &format!(" {cause}");
        source = cause.source();
    }
    text
}
