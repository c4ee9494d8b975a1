//! The test bed: real git repositories, real servers in front of them, a host to run the
//! real binary on.
//!
//! | what | stands for |
//! |---|---|
//! | [`upstream::Upstream`] | a repository on a git server, made with the git program |
//! | [`https::GitHttps`] | a git server over HTTPS (or HTTP): `git http-backend` behind TLS, with faults on demand |
//! | [`github::Github`] | the API through which a GitHub App gets its tokens |
//! | [`lfs::LfsServer`] | a server of Git LFS: the batch API, and the store that objects are downloaded from |
//! | [`sshd::GitSshd`] | a git server over SSH: OpenSSH's own sshd |
//! | [`ssh_agent::SshAgent`] | an agent with keys: OpenSSH's own |
//! | [`proxy::ConnectProxy`] | a company's web proxy |
//! | [`relay::Relay`] | a network that stalls, trickles or breaks |
//! | [`host::TestHost`] | the machine multideployer runs on |
//! | [`agents::FakeAgent`] | codedeploy-local 1.x and 2.x, strict about their contracts |
//!
//! Every crate below `tests/` that says `mod support;` gets all of it and uses a part.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses its own part of the bed")]

pub mod agents;
pub mod app;
pub mod github;
pub mod host;
pub mod https;
pub mod keys;
pub mod lfs;
pub mod proxy;
pub mod relay;
pub mod signer;
pub mod ssh_agent;
pub mod sshd;
pub mod tls;
pub mod upstream;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// A command that sees nothing of the user's or the system's git configuration, nor of
/// his agents and credentials.
pub fn isolated(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", path())
        .env("LC_ALL", "C")
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0");
    command
}

/// The caller's `PATH` with the directories of administrators' programs at its end.
pub fn path() -> String {
    let given = std::env::var("PATH").unwrap_or_default();
    format!("{given}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
}

/// Where git keeps the programs that are not on the `PATH`.
pub fn git_exec_path() -> PathBuf {
    let output = isolated("git").arg("--exec-path").output().expect("git is installed");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Waits until `done` says so; panics with `what` when it does not within `limit`.
pub fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "gave up waiting for {what} after {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
