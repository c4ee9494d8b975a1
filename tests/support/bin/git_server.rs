//! The git servers of the test bed, for people: serves the repositories below a directory
//! over HTTPS with a token and over SSH with a key, until its standard input ends. For each
//! line that it reads there it leaves in OUT, as `requests`, how many requests came over
//! HTTPS since the line before, and the bytes of bodies that it got and sent for them.
//!
//! `git_server ROOT TOKEN_FILE OUT` leaves in OUT: `ca.pem`, `https` and `ssh` (where the
//! servers are), `known_hosts`, `id_ed25519` (the key that is let in), and last `ready`.

#[path = "../mod.rs"]
mod support;

use std::path::PathBuf;
use std::process::ExitCode;

use support::https::GitHttps;
use support::keys::{KeyPair, Kind};
use support::sshd::GitSshd;
use support::tls::Authority;

fn main() -> ExitCode {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [root, token, out] = args.as_slice() else {
        return ExitCode::from(2);
    };
    let root = std::fs::canonicalize(root).expect("the directory to serve");
    let token = std::fs::read_to_string(token).expect("the token");
    let https = GitHttps::start(&root).require("", token.trim());
    let key = KeyPair::new(out, "id_ed25519", Kind::Ed25519);
    let ssh = GitSshd::start(&root, &key);
    let ssh_at = format!("ssh://{}@{}", GitSshd::user(), ssh.authority());
    for (name, content) in [
        ("ca.pem", Authority::shared().pem()),
        ("https", https.base().into_bytes()),
        ("ssh", ssh_at.into_bytes()),
        ("known_hosts", ssh.known_hosts().into_bytes()),
        ("ready", Vec::new()),
    ] {
        std::fs::write(out.join(name), content).expect("a file in OUT");
    }
    for line in std::io::stdin().lines() {
        let Ok(_) = line else { break };
        let requests = https.requests();
        https.forget();
        let (got, sent) = requests.iter().fold((0, 0), |(got, sent), request| {
            (got + request.body_bytes, sent + request.answer_bytes)
        });
        let text = format!("{} {got} {sent}\n", requests.len());
        let new = out.join("requests.new");
        std::fs::write(&new, text).expect("a file in OUT");
        std::fs::rename(&new, out.join("requests")).expect("a file in OUT");
    }
    ExitCode::SUCCESS
}
