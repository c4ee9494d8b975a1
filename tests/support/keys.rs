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
    /// ECDSA on P-384.
    Ecdsa384,
    /// ECDSA on P-521.
    Ecdsa521,
    /// RSA with 2048 bits, which are made fast.
    Rsa,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Ed25519, Self::Ecdsa, Self::Ecdsa384, Self::Ecdsa521, Self::Rsa];

    /// A name for its file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Ecdsa => "ecdsa",
            Self::Ecdsa384 => "ecdsa384",
            Self::Ecdsa521 => "ecdsa521",
            Self::Rsa => "rsa",
        }
    }

    /// As `ssh-keygen` wants it.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Ed25519 => &["-t", "ed25519"],
            Self::Ecdsa => &["-t", "ecdsa", "-b", "256"],
            Self::Ecdsa384 => &["-t", "ecdsa", "-b", "384"],
            Self::Ecdsa521 => &["-t", "ecdsa", "-b", "521"],
            Self::Rsa => &["-t", "rsa", "-b", "2048"],
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

    /// In PKCS#8 (RSA and ECDSA only); an empty passphrase is none.
    pub fn pkcs8(dir: &Path, name: &str, kind: Kind, passphrase: &str) -> Self {
        Self::generate(dir, name, kind, passphrase, &["-m", "PKCS8"])
    }

    /// In OpenSSH's own format, encrypted with this cipher.
    pub fn with_cipher(dir: &Path, name: &str, passphrase: &str, cipher: &str) -> Self {
        Self::generate(dir, name, Kind::Ed25519, passphrase, &["-Z", cipher])
    }

    /// Ed25519 in PKCS#8, which only OpenSSL writes; an empty passphrase is none.
    pub fn ed25519_pkcs8(dir: &Path, name: &str, passphrase: &str) -> Self {
        let file = dir.join(name);
        let openssl = |args: &[&str]| {
            let done = isolated("openssl").args(args).output().expect("openssl is installed");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            done.stdout
        };
        let path = file.to_str().expect("a UTF-8 path");
        let secret = format!("pass:{passphrase}");
        let encrypt: &[&str] =
            if passphrase.is_empty() { &[] } else { &["-aes-256-cbc", "-pass", &secret] };
        openssl(&[&["genpkey", "-algorithm", "ed25519", "-out", path][..], encrypt].concat());
        let der = openssl(&["pkey", "-in", path, "-passin", &secret, "-pubout", "-outform", "DER"]);
        let raw = der.last_chunk::<32>().expect("a public key");
        let kind: &[u8] = b"ssh-ed25519";
        let blob = [&[0, 0, 0, 11], kind, &[0, 0, 0, 32], raw].concat();
        let public = format!("ssh-ed25519 {}\n", openssl::base64::encode_block(&blob));
        std::fs::write(dir.join(format!("{name}.pub")), &public).expect("the public key");
        Self::read(dir, name)
    }

    fn generate(dir: &Path, name: &str, kind: Kind, passphrase: &str, more: &[&str]) -> Self {
        let file = dir.join(name);
        let made = isolated("ssh-keygen")
            .args(["-q", "-N", passphrase, "-C", "", "-f"])
            .arg(&file)
            .args(kind.options())
            .args(more)
            .output()
            .expect("ssh-keygen is installed");
        assert!(made.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&made.stderr));
        Self::read(dir, name)
    }

    fn read(dir: &Path, name: &str) -> Self {
        let file = dir.join(name);
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
