//! Signed commits and tags, made by git with the real ssh-keygen and gpg.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::isolated;
use super::keys::KeyPair;
use super::upstream::Upstream;

/// Somebody who signs.
#[derive(Debug, Clone)]
pub struct Signer {
    config: Vec<String>,
}

impl Signer {
    /// With an SSH key.
    pub fn ssh(key: &KeyPair) -> Self {
        Self::ssh_file(&key.file)
    }

    /// With the SSH key in a file.
    pub fn ssh_file(file: &Path) -> Self {
        let key = format!("user.signingkey={}", file.display());
        Self { config: vec!["gpg.format=ssh".to_owned(), key] }
    }

    /// The command line of git with this signer.
    fn git(&self, upstream: &Upstream, args: &[&str]) -> String {
        let mut all: Vec<&str> = Vec::new();
        for pair in &self.config {
            all.extend(["-c", pair]);
        }
        all.extend(args);
        upstream.git(&all)
    }

    /// A copy of `commit` with a signature; `main` is moved to it if it was there.
    pub fn sign(&self, upstream: &Upstream, commit: &str) -> String {
        let tree = upstream.resolve(&format!("{commit}^{{tree}}"));
        let parents = upstream.git(&["log", "-1", "--format=%P", commit]);
        let mut args = vec!["commit-tree", "-S", "-m", "Signed", &tree];
        for parent in parents.split_whitespace() {
            args.extend(["-p", parent]);
        }
        let signed = self.git(upstream, &args);
        if upstream.resolve("refs/heads/main") == commit {
            upstream.point("refs/heads/main", &signed);
        }
        signed
    }

    /// A signed tag; answers the id of the tag object.
    pub fn tag(&self, upstream: &Upstream, name: &str, commit: &str) -> String {
        self.git(upstream, &["tag", "--force", "--sign", "--message", name, name, commit]);
        upstream.resolve(&format!("refs/tags/{name}"))
    }
}

/// gpg with a directory of its own.
#[derive(Debug)]
pub struct Gpg {
    home: PathBuf,
}

impl Gpg {
    /// Without any key.
    pub fn new(dir: &Path) -> Self {
        let home = dir.join("gnupg");
        std::fs::create_dir(&home).expect("a directory");
        std::fs::set_permissions(&home, PermissionsExt::from_mode(0o700)).expect("its mode");
        Self { home }
    }

    /// Runs gpg and answers what it printed.
    pub fn run(&self, args: &[&str]) -> Vec<u8> {
        let output = isolated("gpg")
            .args(["--batch", "--quiet", "--yes", "--pinentry-mode", "loopback"])
            .args(["--passphrase", "", "--homedir"])
            .arg(&self.home)
            .args(args)
            .output()
            .expect("gpg is installed");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "gpg {args:?}: {stderr}");
        output.stdout
    }

    /// Makes a key and answers the fingerprint of its primary key. `expires` as gpg has it:
    /// `never`, `1d`; `at` is the time it believes it is (`20240101T000000`), or empty.
    pub fn key(&self, user: &str, kind: &str, usage: &str, expires: &str, at: &str) -> String {
        let time = format!("--faked-system-time={at}");
        let mut args = vec!["--quick-generate-key", user, kind, usage, expires];
        if !at.is_empty() {
            args.insert(0, &time);
        }
        self.run(&args);
        self.fingerprints(user).swap_remove(0)
    }

    /// The fingerprints of a user's primary key and subkeys.
    pub fn fingerprints(&self, user: &str) -> Vec<String> {
        let listed = self.run(&["--with-colons", "--with-subkey-fingerprint", "--list-keys", user]);
        String::from_utf8_lossy(&listed)
            .lines()
            .filter(|line| line.starts_with("fpr:"))
            .filter_map(|line| line.split(':').nth(9).map(str::to_owned))
            .collect()
    }

    /// The public keys, armored.
    pub fn export(&self, users: &[&str]) -> String {
        let mut args = vec!["--armor", "--export"];
        args.extend(users);
        String::from_utf8(self.run(&args)).expect("armor is text")
    }

    /// Somebody who signs with one of the keys, as if it were `at`; now, if that is empty.
    pub fn signer(&self, key: &str, at: &str) -> Signer {
        let program = self.home.join(format!("sign{at}"));
        let time = if at.is_empty() { String::new() } else { format!(" --faked-system-time={at}") };
        let home = self.home.display();
        let script = format!("#!/bin/sh\nexec gpg --batch --homedir '{home}'{time} \"$@\"\n");
        std::fs::write(&program, script).expect("a script");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("its mode");
        let program = format!("gpg.program={}", program.display());
        Signer { config: vec![program, format!("user.signingkey={key}")] }
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let mut end = isolated("gpgconf");
        end.arg("--homedir").arg(&self.home).args(["--kill", "gpg-agent"]);
        drop(end.status());
    }
}
