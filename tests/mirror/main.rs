//! Mirrors: commits from real servers, and trees on the disk.
//!
//! What other tools were reported for, and where it is tested:
//!
//! | what goes wrong | test |
//! |---|---|
//! | a commit that is no tip, from a server that serves tips | `identity::a_server_that_refuses_a_commit_by_its_id_gives_its_branches_and_tags_and_no_other_refs`, `ssh::a_version_0_server_that_serves_tips_only_gives_its_branches_and_tags` |
//! | a commit that no ref leads to | `identity::a_commit_that_no_ref_leads_to_is_not_found_unless_the_server_gives_it_away` |
//! | an empty repository, a branch that is missing | `identity::an_empty_repository_has_no_commit_in_each_version`, `https::names_are_looked_up` |
//! | SHA-256 ids | `identity::a_repository_with_sha256_ids_is_told_as_such_in_each_version` |
//! | the id of a tag, a file, a directory | `https::not_found_says_both_and_is_not_retried` |
//! | a tag that is moved, `foo` that becomes `foo/bar` | `identity::a_branch_that_is_moved_by_force_or_replaced_by_a_directory_of_branches` |
//! | thousands of refs that are not wanted | `https::names_are_looked_up`, `identity::a_server_that_refuses_…` |
//! | a wrong token is offered again and again | `https::a_wrong_token_is_offered_once` |
//! | a token with `@:/#%+` and spaces | the token of every test in `https` |
//! | a redirect to another host, port or without TLS; in a circle | `https::redirects_on_the_same_host_only` |
//! | 404 for what may not be read | `https::not_found_says_both_and_is_not_retried` |
//! | keys over SSH | `ssh_keys`, `ssh_agent` |
//! | host keys | `ssh_trust` |
//! | no answer, a stall, a byte a second, a cut, over SSH | `ssh_patience` |
//! | hardened servers | `ssh_settings` |
//! | 429 and 5xx that pass; 4xx that do not | `https::what_may_pass_is_tried_again_and_the_rest_is_not` |
//! | `Retry-After` that is longer than the time left | `patience::a_wish_to_wait_that_is_longer_than_the_time_that_is_left_ends_it_at_once` |
//! | no answer, a stall in the pack, a byte a second | `https::nothing_waits_for_ever` |
//! | no connection, a handshake that stalls or trickles | `patience::connecting_has_a_limit_for_all_of_it_even_when_bytes_trickle_in` |
//! | a signal, in each of these | `patience::a_signal_is_heard_while_…` |
//! | a connection that is closed, reset or cut | `https::what_may_pass_is_tried_again_and_the_rest_is_not` |
//! | one connection after the other to the same server; one that died while it was idle | `connections` |
//! | a login page | `https::servers_that_serve_tips_only_and_pages_that_are_no_servers` |
//! | a server that is gone, and the commit is here | `identity::a_commit_that_is_here_needs_no_server` |
//! | certificates | `certificates` |
//! | proxies | `proxies` |

#[path = "../support/mod.rs"]
mod support;

mod certificates;
mod checkout;
mod connections;
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
mod ssh_patience;
mod ssh_settings;
mod ssh_trust;

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
            command: Duration::from_secs(30),
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
