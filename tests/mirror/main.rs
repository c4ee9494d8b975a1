//! Mirrors: commits from real servers, and trees on the disk.

#[path = "../support/mod.rs"]
mod support;

mod checkout;

use std::path::{Path, PathBuf};
use std::time::Duration;

use multideployer::domain::{RepoUrl, Revision};
use multideployer::mirror::{Failure, Fetched, Limits, Mirror, Progress, Remote, Trust};
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
