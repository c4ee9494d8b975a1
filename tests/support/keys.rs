//! Keys for SSH, made by the real ssh-keygen.

use std::path::{Path, PathBuf};

use super::isolated;

/// A kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ed25519.
    Ed25519,
    /// ECDSA on P-256.
    Ecdsa,
    /// RSA with 3072 bits.
    Rsa,
}

impl Kind {
    /// As `ssh-keygen -t` wants it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Ecdsa => "ecdsa",
            Self::Rsa => "rsa",
        }
    }
}

/// A pair of keys in two files.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// The private key's file, mode 0600.
    pub file: PathBuf,
    /// The line that goes into `authorized_keys` or `known_hosts`: type and base64.
    pub public: String,
    /// `SHA256:…`.
    pub fingerprint: String,
}

impl KeyPair {
    /// In OpenSSH's own format, without a passphrase.
    pub fn new(dir: &Path, name: &str, kind: Kind) -> Self {
        Self::generate(dir, name, kind, "", &[])
    }

    /// In OpenSSH's own format, with a passphrase.
    pub fn with_passphrase(dir: &Path, name: &str, kind: Kind, passphrase: &str) -> Self {
        Self::generate(dir, name, kind, passphrase, &[])
    }

    /// In the older PEM format (RSA and ECDSA only); an empty passphrase is none.
    pub fn pem(dir: &Path, name: &str, kind: Kind, passphrase: &str) -> Self {
        Self::generate(dir, name, kind, passphrase, &["-m", "PEM"])
    }

    fn generate(dir: &Path, name: &str, kind: Kind, passphrase: &str, more: &[&str]) -> Self {
        let file = dir.join(name);
        let bits: &[&str] = if kind == Kind::Rsa { &["-b", "3072"] } else { &[] };
        let made = isolated("ssh-keygen")
            .args(["-q", "-t", kind.name(), "-N", passphrase, "-C", "", "-f"])
            .arg(&file)
            .args(bits)
            .args(more)
            .output()
            .expect("ssh-keygen is installed");
        assert!(made.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&made.stderr));
        let public_file = dir.join(format!("{name}.pub"));
        let public = std::fs::read_to_string(&public_file).expect("the public key");
        let mut show = isolated("ssh-keygen");
        show.args(["-l", "-E", "sha256", "-f"]).arg(&public_file);
        let shown = show.output().expect("ssh-keygen is installed");
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let fingerprint = shown.split_whitespace().nth(1).expect("a fingerprint").to_owned();
        Self { file, public: public.trim().to_owned(), fingerprint }
    }
}
