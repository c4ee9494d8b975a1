//! Private keys for SSH: read, decrypted and understood before any server is asked.
//!
//! libssh2 has one message for a key of an unknown kind, a damaged one and a wrong
//! passphrase, and gives it only once it is connected. Here each has its own, and what
//! libssh2 is handed is a key without encryption in a format that it is known to read.

use std::fmt;

use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::symm::{Cipher, Crypter, Mode};

use super::wire::{Fields, fingerprint, kind_of, put, put_number};
use crate::domain::Secret;

/// The kinds that log in here.
const KINDS: [&str; 5] =
    ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"];
/// Of `bcrypt`; OpenSSH takes 16 (24 since 9.4), and a thousand take minutes.
const MOST_ROUNDS: u32 = 1000;
/// How files in OpenSSH's format begin.
const MAGIC: &[u8] = b"openssh-key-v1\0";
const OPENSSH: &str = "OPENSSH PRIVATE KEY";

/// A private key, ready to sign with.
#[derive(Clone)]
pub struct PrivateKey {
    text: Secret,
    /// The public half, as it goes over the wire.
    public: Vec<u8>,
}

/// What is wrong with a private key, as the end of a sentence that begins with where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Nothing but white space.
    #[error("is empty")]
    Empty,
    /// The public half.
    #[error("is a public key; the private one is needed")]
    Public,
    /// A certificate.
    #[error("is a certificate, not a private key")]
    Certificate,
    /// The format of the Windows program `PuTTY`.
    #[error("is in PuTTY's format")]
    Putty,
    /// Something else.
    #[error("is not a private key in OpenSSH or PEM format")]
    NotAKey,
    /// The end is missing.
    #[error("is cut off: its last line, `-----END …`, is missing")]
    CutOff,
    /// Damaged, or encrypted in a way that is not supported.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// A kind that no signature can be made with here.
    #[error("is of the kind {0}, which is not supported")]
    Kind(String),
    /// On a security key.
    #[error("is of the kind {0}: it is on a hardware token, and this file only points to it")]
    Hardware(String),
    /// Encrypted, and no passphrase is given.
    #[error("is encrypted, and no passphrase is given for it")]
    PassphraseMissing,
    /// Encrypted with another one.
    #[error("is encrypted with another passphrase than the one given")]
    PassphraseWrong,
}

impl Problem {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Empty | Self::NotAKey | Self::CutOff | Self::Unreadable(_) => {
                "put the whole private key there, from `-----BEGIN` to `-----END`; `ssh-keygen -yf FILE` reads it if it is good"
            }
            Self::Public => "give the file beside it, whose name does not end in `.pub`",
            Self::Certificate => "give the private key that belongs to it",
            Self::Putty => "convert it with `puttygen KEY -O private-openssh-new -o FILE`",
            Self::Kind(_) => "use a key of the kind ed25519, ecdsa or rsa",
            Self::Hardware(_) => {
                "use it through an agent (`ssh_agent`), or a key of the kind ed25519"
            }
            Self::PassphraseMissing => {
                "say where its passphrase is with `passphrase_file`, `passphrase_env` or `passphrase_command` beside it, or store it without one (`ssh-keygen -p`)"
            }
            Self::PassphraseWrong => {
                "`ssh-keygen -yf FILE` asks for the passphrase and shows whether it is right"
            }
        }
    }
}

impl PrivateKey {
    /// Reads a key in OpenSSH's format or PEM (PKCS#1, PKCS#8, SEC 1) and decrypts it.
    ///
    /// # Errors
    /// A [`Problem`]; never the key's text.
    pub fn parse(text: &str, passphrase: Option<&Secret>) -> Result<Self, Problem> {
        let block = Block::find(text)?;
        if block.label == OPENSSH { openssh(&block, passphrase) } else { pem(&block, passphrase) }
    }

    /// The key without encryption, in a format that libssh2 reads.
    pub(super) fn text(&self) -> &Secret {
        &self.text
    }

    /// Its kind: `ssh-ed25519`, …
    pub fn kind(&self) -> String {
        kind_of(&self.public).unwrap_or_default()
    }

    /// `SHA256:…` of the public key, as `ssh-keygen -l` shows it.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.public)
    }

    /// As messages name it.
    pub(super) fn shown(&self) -> String {
        format!("{} {}", self.kind(), self.fingerprint())
    }

    fn new(text: String, public: Vec<u8>) -> Result<Self, Problem> {
        check_kind(&public)?;
        Ok(Self { text: Secret::new(text), public })
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.shown())
    }
}

/// What stands between `-----BEGIN …-----` and `-----END …-----`, those included.
struct Block<'a> {
    label: &'a str,
    /// Between the two lines.
    body: &'a str,
    whole: &'a str,
}

impl<'a> Block<'a> {
    /// Without indentation, each line with a line feed.
    fn whole_lines(&self) -> String {
        self.whole.lines().flat_map(|line| [line.trim(), "\n"]).collect()
    }

    /// The private key in a text; other blocks before it (`EC PARAMETERS`) are passed over.
    fn find(text: &'a str) -> Result<Self, Problem> {
        const BEGIN: &str = "-----BEGIN ";
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            return Err(Problem::Empty);
        }
        if text.starts_with("PuTTY-User-Key-File") {
            return Err(Problem::Putty);
        }
        if ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| text.starts_with(kind))
            || text.starts_with("---- BEGIN SSH2 PUBLIC KEY")
        {
            return Err(if text.contains("-cert-v01@") {
                Problem::Certificate
            } else {
                Problem::Public
            });
        }
        let mut problem = Problem::NotAKey;
        for (at, _) in text.match_indices(BEGIN) {
            let whole = &text[at..];
            let Some((label, rest)) = whole[BEGIN.len()..].split_once("-----") else { continue };
            if label.ends_with("PUBLIC KEY") {
                problem = Problem::Public;
            } else if label.contains("CERTIFICATE") {
                problem = Problem::Certificate;
            }
            if !label.ends_with("PRIVATE KEY") || label.contains('\n') {
                continue;
            }
            let end = format!("-----END {label}-----");
            let Some(length) = rest.find(&end) else { return Err(Problem::CutOff) };
            let before = whole.len() - rest.len();
            let whole = &whole[..before + length + end.len()];
            return Ok(Self { label, body: &rest[..length], whole });
        }
        Err(problem)
    }
}

fn openssh(block: &Block<'_>, passphrase: Option<&Secret>) -> Result<PrivateKey, Problem> {
    // Line ends, indentation and the width of lines do not matter: people paste keys.
    let base64: String = block.body.split_whitespace().collect();
    let file = openssl::base64::decode_block(&base64).map_err(|_| damaged())?;
    let container = Container::of(&file).ok_or_else(damaged)?;
    check_kind(container.public)?;
    if container.cipher == b"none" {
        Fields::of(container.secret).checked().ok_or_else(damaged)?;
        return PrivateKey::new(in_lines(&file), container.public.to_vec());
    }
    let secret = container.decrypt(passphrase.ok_or(Problem::PassphraseMissing)?)?;
    // A damaged one cannot be told from one with another passphrase.
    Fields::of(&secret).checked().ok_or(Problem::PassphraseWrong)?;
    let mut open = MAGIC.to_vec();
    for text in ["none", "none", ""] {
        put(&mut open, text.as_bytes());
    }
    open.extend_from_slice(&1_u32.to_be_bytes());
    put(&mut open, container.public);
    put(&mut open, &secret);
    PrivateKey::new(in_lines(&open), container.public.to_vec())
}

/// As OpenSSH writes it to a file.
fn in_lines(file: &[u8]) -> String {
    let mut text = format!("-----BEGIN {OPENSSH}-----\n");
    for (number, digit) in openssl::base64::encode_block(file).chars().enumerate() {
        if number > 0 && number % 70 == 0 {
            text.push('\n');
        }
        text.push(digit);
    }
    text + &format!("\n-----END {OPENSSH}-----\n")
}

/// Whether keys of this kind can log in here.
fn check_kind(public: &[u8]) -> Result<(), Problem> {
    let kind = kind_of(public).unwrap_or_else(|| "unknown".into());
    if kind.starts_with("sk-") {
        return Err(Problem::Hardware(kind));
    }
    if KINDS.contains(&kind.as_str()) { Ok(()) } else { Err(Problem::Kind(kind)) }
}

/// A file in OpenSSH's format, as its `PROTOCOL.key` describes it.
struct Container<'a> {
    cipher: &'a [u8],
    /// How its key is derived from the passphrase.
    derivation: &'a [u8],
    options: &'a [u8],
    public: &'a [u8],
    secret: &'a [u8],
    /// What authenticates the secret part, for ciphers that have that.
    tag: &'a [u8],
}

impl<'a> Container<'a> {
    fn of(file: &'a [u8]) -> Option<Self> {
        let mut fields = Fields::of(file.strip_prefix(MAGIC)?);
        let (cipher, derivation, options) = (fields.text()?, fields.text()?, fields.text()?);
        // There has never been a file with more keys.
        if fields.number()? != 1 {
            return None;
        }
        let (public, secret) = (fields.text()?, fields.text()?);
        Some(Self { cipher, derivation, options, public, secret, tag: fields.rest() })
    }

    fn decrypt(&self, passphrase: &Secret) -> Result<Vec<u8>, Problem> {
        let name = String::from_utf8_lossy(self.cipher);
        let unsupported = || {
            Problem::Unreadable(format!("it is encrypted with `{name}`, which is not supported"))
        };
        let cipher = match name.as_ref() {
            "aes128-ctr" => Cipher::aes_128_ctr(),
            "aes192-ctr" => Cipher::aes_192_ctr(),
            "aes256-ctr" => Cipher::aes_256_ctr(),
            "aes128-cbc" => Cipher::aes_128_cbc(),
            "aes192-cbc" => Cipher::aes_192_cbc(),
            "aes256-cbc" => Cipher::aes_256_cbc(),
            "aes128-gcm@openssh.com" => Cipher::aes_128_gcm(),
            "aes256-gcm@openssh.com" => Cipher::aes_256_gcm(),
            _ => return Err(unsupported()),
        };
        if self.derivation != b"bcrypt" {
            return Err(unsupported());
        }
        let mut options = Fields::of(self.options);
        let salt = options.text().ok_or_else(damaged)?;
        let rounds =
            options.number().filter(|rounds| *rounds <= MOST_ROUNDS).ok_or_else(damaged)?;
        let lengths = (cipher.key_len(), cipher.iv_len().unwrap_or(0));
        let mut derived = vec![0; lengths.0 + lengths.1];
        bcrypt_pbkdf::bcrypt_pbkdf(passphrase.expose().as_bytes(), salt, rounds, &mut derived)
            .map_err(|_| damaged())?;
        let (key, iv) = derived.split_at_checked(lengths.0).ok_or_else(damaged)?;
        let decrypt = || {
            let mut crypter = Crypter::new(cipher, Mode::Decrypt, key, Some(iv))?;
            crypter.pad(false);
            if !self.tag.is_empty() {
                crypter.set_tag(self.tag)?;
            }
            let mut open = vec![0; self.secret.len() + cipher.block_size()];
            let mut length = crypter.update(self.secret, &mut open)?;
            let rest = open.get_mut(length..).unwrap_or_default();
            length += crypter.finalize(rest)?;
            open.truncate(length);
            Ok::<_, openssl::error::ErrorStack>(open)
        };
        decrypt().map_err(|_| Problem::PassphraseWrong)
    }
}

impl Fields<'_> {
    /// Whether the secret part begins with the same number twice, as it does if it was
    /// decrypted with the right passphrase.
    fn checked(mut self) -> Option<()> {
        let (first, second) = (self.number()?, self.number()?);
        (first == second).then_some(())
    }
}

fn damaged() -> Problem {
    Problem::Unreadable("it is damaged".into())
}

fn pem(block: &Block<'_>, passphrase: Option<&Secret>) -> Result<PrivateKey, Problem> {
    if block.label == "DSA PRIVATE KEY" {
        return Err(Problem::Kind("ssh-dss".into()));
    }
    let encrypted = block.label.starts_with("ENCRYPTED") || block.body.contains(",ENCRYPTED");
    let passphrase = match passphrase {
        None if encrypted => return Err(Problem::PassphraseMissing),
        Some(given) if encrypted => given.expose(),
        // Never none: OpenSSL would ask at the terminal.
        _ => "",
    };
    let lines = block.whole_lines();
    let key = PKey::private_key_from_pem_passphrase(lines.as_bytes(), passphrase.as_bytes())
        .map_err(|stack| {
            let reasons: Vec<_> =
                stack.errors().iter().filter_map(openssl::error::Error::reason).collect();
            match reasons.iter().find(|reason| reason.contains("unsupported")) {
                Some(_) if encrypted => {
                    Problem::Unreadable("it is encrypted in a way that is not supported".into())
                }
                _ if encrypted => Problem::PassphraseWrong,
                _ => Problem::Unreadable(reasons.first().unwrap_or(&"it is damaged").to_string()),
            }
        })?;
    let public = public_half(&key)?;
    let text = key.private_key_to_pem_pkcs8().ok().and_then(|text| String::from_utf8(text).ok());
    let text = text.ok_or_else(|| Problem::Unreadable("OpenSSL cannot write it again".into()))?;
    PrivateKey::new(text, public)
}

/// The public half as it goes over the wire.
fn public_half(key: &PKey<Private>) -> Result<Vec<u8>, Problem> {
    let unreadable = |stack: openssl::error::ErrorStack| Problem::Unreadable(stack.to_string());
    let mut public = Vec::new();
    match key.id() {
        Id::RSA => {
            let rsa = key.rsa().map_err(unreadable)?;
            put(&mut public, b"ssh-rsa");
            put_number(&mut public, &rsa.e().to_vec());
            put_number(&mut public, &rsa.n().to_vec());
        }
        Id::EC => {
            let ec = key.ec_key().map_err(unreadable)?;
            let group = ec.group();
            let curve = match group.curve_name() {
                Some(Nid::X9_62_PRIME256V1) => "nistp256",
                Some(Nid::SECP384R1) => "nistp384",
                Some(Nid::SECP521R1) => "nistp521",
                other => {
                    let name = other.and_then(|curve| curve.short_name().ok());
                    let name = name.unwrap_or("without name");
                    return Err(Problem::Kind(format!("ecdsa on the curve {name}")));
                }
            };
            let form = openssl::ec::PointConversionForm::UNCOMPRESSED;
            let point = openssl::bn::BigNumContext::new()
                .and_then(|mut context| ec.public_key().to_bytes(group, form, &mut context))
                .map_err(unreadable)?;
            put(&mut public, format!("ecdsa-sha2-{curve}").as_bytes());
            put(&mut public, curve.as_bytes());
            put(&mut public, &point);
        }
        Id::ED25519 => {
            put(&mut public, b"ssh-ed25519");
            put(&mut public, &key.raw_public_key().map_err(unreadable)?);
        }
        Id::RSA_PSS => return Err(Problem::Kind("RSA-PSS".into())),
        Id::DSA => return Err(Problem::Kind("ssh-dss".into())),
        Id::ED448 => return Err(Problem::Kind("ed448".into())),
        _ => return Err(Problem::Kind("that SSH has no use for".into())),
    }
    Ok(public)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> Problem {
        PrivateKey::parse(text, None).expect_err("no key")
    }

    #[test]
    fn what_is_no_private_key_is_told_exactly() {
        for (text, expected) in [
            ("", Problem::Empty),
            (" \r\n", Problem::Empty),
            ("hello", Problem::NotAKey),
            ("ghp_0123456789", Problem::NotAKey),
            ("ssh-ed25519 AAAA x", Problem::Public),
            ("ecdsa-sha2-nistp256 AAAA", Problem::Public),
            (
                "---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----",
                Problem::Public,
            ),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", Problem::Public),
            ("-----BEGIN RSA PUBLIC KEY-----\nAAAA\n-----END RSA PUBLIC KEY-----", Problem::Public),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", Problem::Certificate),
            ("ssh-rsa-cert-v01@openssh.com AAAA", Problem::Certificate),
            ("PuTTY-User-Key-File-3: ssh-ed25519", Problem::Putty),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", Problem::CutOff),
            ("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END", Problem::CutOff),
            (
                "-----BEGIN DSA PRIVATE KEY-----\nAAAA\n-----END DSA PRIVATE KEY-----",
                Problem::Kind("ssh-dss".into()),
            ),
        ] {
            assert_eq!(problem(text), expected, "{text}");
        }
        let damaged =
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----";
        assert!(matches!(problem(damaged), Problem::Unreadable(_)), "{:?}", problem(damaged));
        let damaged = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----";
        assert!(matches!(problem(damaged), Problem::Unreadable(_)), "{:?}", problem(damaged));
        let x25519 = PKey::generate_x25519().expect("a key").private_key_to_pem_pkcs8();
        let x25519 = String::from_utf8(x25519.expect("PEM")).expect("text");
        assert!(matches!(problem(&x25519), Problem::Kind(_)));
    }
}
