//! What a server is recognised by: certificate authorities, and SSH host keys.
//!
//! Host keys are judged here and not by libssh2, whose reader knows neither `@revoked` nor
//! wildcards and gives up on a whole file for one line it cannot read.

use std::path::{Path, PathBuf};

use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;

use super::failure::{Failure, HostKey};
use super::wire::{fingerprint, kind_of};

/// What a server is recognised by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// Certificate authorities (PEM) beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Certificate authorities (PEM) instead of the system's: `SSL_CERT_FILE`.
    pub ca_bundle: Option<PathBuf>,
    /// A directory of them, instead of the system's too: `SSL_CERT_DIR`.
    pub ca_directory: Option<PathBuf>,
    /// Fingerprints (`SHA256:…`) of its SSH host keys. When given, nothing else counts.
    pub host_keys: Option<Vec<String>>,
    /// Read instead of root's and `/etc/ssh/ssh_known_hosts`.
    pub known_hosts_file: Option<PathBuf>,
}

/// The host keys that are known.
#[derive(Debug, Default)]
pub(super) struct KnownHosts {
    pins: Option<Vec<String>>,
    lines: Vec<Line>,
    consulted: Vec<String>,
    /// Lines that could not be read, one sentence each.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    Revoked,
    Authority,
}

#[derive(Debug)]
struct Line {
    place: String,
    marker: Marker,
    names: String,
    kind: String,
    key: Vec<u8>,
}

impl KnownHosts {
    /// Reads the files.
    ///
    /// # Errors
    /// A `known_hosts_file` that was given and cannot be read; the usual files may be absent.
    pub(super) fn load(trust: &Trust) -> Result<Self, Failure> {
        let mut known = Self { pins: trust.host_keys.clone(), ..Self::default() };
        if known.pins.is_some() {
            known.consulted.push("the `host_keys` given for this host".into());
            return Ok(known);
        }
        if let Some(file) = &trust.known_hosts_file {
            let text = fs_err::read(file)
                .map_err(|error| Failure::file("read the known hosts in", file, error))?;
            known.consulted.push(format!("`{}`", file.display()));
            known.add(file, &text);
            return Ok(known);
        }
        // Not $HOME: it is unset or somebody else's in hooks.
        let home = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
        let own = home.map(|user| user.dir.join(".ssh/known_hosts"));
        for file in own.into_iter().chain([PathBuf::from("/etc/ssh/ssh_known_hosts")]) {
            match fs_err::read(&file) {
                Ok(text) => {
                    known.consulted.push(format!("`{}`", file.display()));
                    known.add(&file, &text);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    known.consulted.push(format!("`{}` (not there)", file.display()));
                }
                Err(error) => known.warnings.push(error.to_string()),
            }
        }
        Ok(known)
    }

    pub(super) fn add(&mut self, file: &Path, text: &[u8]) {
        for (number, line) in text.split(|b| *b == b'\n').enumerate() {
            let line = String::from_utf8_lossy(line);
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let place = format!("{}:{}", file.display(), number + 1);
            match parse(line, place.clone()) {
                Some(line) => self.lines.push(line),
                None => self.warnings.push(format!("{place}: not a line of known_hosts, ignored")),
            }
        }
    }

    fn lines_for(&self, host: &str, port: u16) -> Vec<&Line> {
        let name = known_as(host, port);
        let exact: Vec<_> = self.lines.iter().filter(|line| line.is_for(&name)).collect();
        if port == 22 {
            return exact;
        }
        // As OpenSSH does: a line without port is good for any, if none with it exists.
        if exact.iter().any(|line| line.marker == Marker::None) {
            return exact;
        }
        let plain = self.lines.iter().filter(|line| line.is_for(host));
        exact.iter().copied().chain(plain).collect()
    }

    /// The host key algorithms in the order in which they should be proposed: those of the
    /// keys that are known first, so that a host with only one known key shows that one.
    pub(super) fn algorithms(
        &self,
        host: &str,
        port: u16,
        refused: &[String],
    ) -> Vec<&'static str> {
        let lines = self.lines_for(host, port);
        let known =
            |kind: &str| lines.iter().any(|line| line.marker == Marker::None && line.kind == kind);
        let mut first: Vec<&'static str> = Vec::new();
        let mut rest: Vec<&'static str> = Vec::new();
        for (kind, algorithms) in ALGORITHMS {
            if refused.iter().any(|refused| refused == kind) {
                continue;
            }
            if known(kind) { first.extend(*algorithms) } else { rest.extend(*algorithms) }
        }
        first.extend(rest);
        first
    }

    /// Whether only fingerprints are known: then the kind of key to ask for is not.
    pub(super) fn pinned(&self) -> bool {
        self.pins.is_some()
    }

    /// Judges the key that `host` shows. Says what accepts it.
    ///
    /// # Errors
    /// [`Failure::UnknownHostKey`], [`Failure::ChangedHostKey`], [`Failure::RevokedHostKey`].
    pub(super) fn judge(&self, host: &str, port: u16, key: &[u8]) -> Result<String, Failure> {
        let fingerprint = fingerprint(key);
        let kind = kind_of(key).unwrap_or_else(|| "unknown".into());
        let describe = |known: Vec<String>, note: Option<String>| {
            let host = known_as(host, port);
            let line = format!("{host} {kind} {}", openssl::base64::encode_block(key));
            let consulted = self.consulted.clone();
            let (kind, fingerprint) = (kind.clone(), fingerprint.clone());
            let note = note.or_else(|| (port == 122).then(|| PORT_122.into()));
            let pinned = self.pinned();
            Box::new(HostKey { host, kind, fingerprint, consulted, known, pinned, line, note })
        };
        if let Some(pins) = &self.pins {
            let same = |pin: &String| pin.trim_end_matches('=') == fingerprint;
            if pins.iter().any(same) {
                return Ok("`host_keys`".into());
            }
            return Err(Failure::ChangedHostKey(describe(pins.clone(), None)));
        }
        let lines = self.lines_for(host, port);
        let of = |marker| lines.iter().filter(move |line| line.marker == marker);
        let show = |line: &Line| {
            format!("{} {} at {}", line.kind, super::wire::fingerprint(&line.key), line.place)
        };
        if let Some(line) = of(Marker::Revoked).find(|line| line.key == key) {
            return Err(Failure::RevokedHostKey(describe(vec![show(line)], None)));
        }
        if let Some(line) = of(Marker::None).find(|line| line.key == key) {
            return Ok(line.place.clone());
        }
        let known: Vec<_> = of(Marker::None).map(|line| show(line)).collect();
        if !known.is_empty() {
            return Err(Failure::ChangedHostKey(describe(known, None)));
        }
        let note = of(Marker::Authority).next().map(|line| {
            format!(
                "`@cert-authority` at {} is for this host, but host certificates are not supported: add the plain key",
                line.place
            )
        });
        Err(Failure::UnknownHostKey(describe(Vec::new(), note)))
    }
}

/// What whoever uses this port for git should know.
pub(super) const PORT_122: &str = "port 122 of GitHub Enterprise Server is its administrators' shell, with a host key of its own; git is on port 22";

/// Kinds of keys and the algorithms that show them, best first. Host certificates are not
/// asked for: nothing here could check them.
const ALGORITHMS: &[(&str, &[&str])] = &[
    ("ssh-ed25519", &["ssh-ed25519"]),
    ("ecdsa-sha2-nistp256", &["ecdsa-sha2-nistp256"]),
    ("ecdsa-sha2-nistp384", &["ecdsa-sha2-nistp384"]),
    ("ecdsa-sha2-nistp521", &["ecdsa-sha2-nistp521"]),
    ("ssh-rsa", &["rsa-sha2-512", "rsa-sha2-256"]),
];

/// A host as `known_hosts` writes it.
fn known_as(host: &str, port: u16) -> String {
    if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") }
}

fn parse(line: &str, place: String) -> Option<Line> {
    let mut words = line.split_ascii_whitespace();
    let mut first = words.next()?;
    let marker = match first {
        "@revoked" => Marker::Revoked,
        "@cert-authority" => Marker::Authority,
        _ if first.starts_with('@') => return None,
        _ => Marker::None,
    };
    if marker != Marker::None {
        first = words.next()?;
    }
    let kind = words.next()?;
    let key = openssl::base64::decode_block(words.next()?).ok()?;
    if kind_of(&key)? != kind {
        return None;
    }
    Some(Line { place, marker, names: first.to_owned(), kind: kind.to_owned(), key })
}

impl Line {
    fn is_for(&self, name: &str) -> bool {
        if let Some(hashed) = self.names.strip_prefix("|1|") {
            return hash_matches(hashed, name).unwrap_or(false);
        }
        let mut found = false;
        for pattern in self.names.split(',') {
            if let Some(pattern) = pattern.strip_prefix('!') {
                if wildcard(&pattern.to_ascii_lowercase(), name) {
                    return false;
                }
            } else {
                found |= wildcard(&pattern.to_ascii_lowercase(), name);
            }
        }
        found
    }
}

fn hash_matches(hashed: &str, name: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let salt = openssl::base64::decode_block(salt).ok()?;
    let hash = openssl::base64::decode_block(hash).ok()?;
    let key = PKey::hmac(&salt).ok()?;
    let mut signer = Signer::new(MessageDigest::sha1(), &key).ok()?;
    let computed = signer.sign_oneshot_to_vec(name.as_bytes()).ok()?;
    Some(computed == hash)
}

/// Whether `text` matches a pattern with `*` and `?`.
fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((star_p, star_t)) => {
                    p = star_p + 1;
                    t = star_t + 1;
                    star = Some((star_p, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that only needs to look like one.
    fn key(kind: &str, fill: u8) -> Vec<u8> {
        let mut key = u32::try_from(kind.len()).unwrap().to_be_bytes().to_vec();
        key.extend_from_slice(kind.as_bytes());
        key.extend_from_slice(&[0, 0, 0, 32]);
        key.extend_from_slice(&[fill; 32]);
        key
    }

    fn known(text: &str) -> KnownHosts {
        let mut known = KnownHosts::default();
        known.add(Path::new("/k"), text.as_bytes());
        known
    }

    fn line(names: &str, key: &[u8]) -> String {
        format!("{names} {} {}\n", kind_of(key).unwrap(), openssl::base64::encode_block(key))
    }

    #[test]
    fn names_lists_ports_wildcards_and_negations() {
        let key = key("ssh-ed25519", 1);
        for (names, host, port, good) in [
            ("git.example.com", "git.example.com", 22, true),
            ("GIT.example.com", "git.example.com", 22, true),
            ("git.example.com", "git.example.com", 2222, true),
            ("[git.example.com]:2222", "git.example.com", 2222, true),
            ("[git.example.com]:2222", "git.example.com", 22, false),
            ("a,git.example.com,b", "git.example.com", 22, true),
            ("*.example.com", "git.example.com", 22, true),
            ("*.example.com,!git.example.com", "git.example.com", 22, false),
            ("git?.example.com", "git.example.com", 22, false),
            ("other.example.com", "git.example.com", 22, false),
        ] {
            let verdict = known(&line(names, &key)).judge(host, port, &key);
            assert_eq!(verdict.is_ok(), good, "{names} for {host}:{port}");
        }
    }

    #[test]
    fn hashed_names_as_ssh_keygen_makes_them() {
        let key = key("ssh-ed25519", 1);
        let salt = [7; 20];
        let hmac = PKey::hmac(&salt).unwrap();
        let mut signer = Signer::new(MessageDigest::sha1(), &hmac).unwrap();
        let hash = signer.sign_oneshot_to_vec(b"[git.example.com]:2222").unwrap();
        let encode = openssl::base64::encode_block;
        let text = line(&format!("|1|{}|{}", encode(&salt), encode(&hash)), &key);
        assert!(known(&text).judge("git.example.com", 2222, &key).is_ok());
        assert!(known(&text).judge("git.example.org", 2222, &key).is_err());
    }

    #[test]
    fn unknown_changed_and_revoked_are_three_things() {
        let (good, evil) = (key("ssh-ed25519", 1), key("ssh-ed25519", 2));
        let judge = |text: &str, key: &[u8]| known(text).judge("h", 22, key).unwrap_err();
        assert!(matches!(judge("", &good), Failure::UnknownHostKey(_)));
        let changed = judge(&line("h", &good), &evil);
        let Failure::ChangedHostKey(found) = &changed else { panic!("{changed}") };
        assert_eq!(found.known.len(), 1);
        assert!(found.known[0].contains("/k:1"), "{found:?}");
        assert!(changed.to_string().contains("CHANGED"));
        assert!(matches!(judge(&line("@revoked *", &evil), &evil), Failure::RevokedHostKey(_)));
        let both = line("h", &evil) + &line("@revoked h", &evil);
        assert!(matches!(judge(&both, &evil), Failure::RevokedHostKey(_)));
        let authority = judge(&line("@cert-authority *", &good), &evil);
        assert!(authority.hint().unwrap().contains("@cert-authority"), "{authority}");
    }

    #[test]
    fn a_garbage_line_costs_a_warning_and_not_the_file() {
        let key = key("ssh-ed25519", 1);
        let text = format!("<<<<<<< HEAD\n\n# comment\nh ssh-ed25519 !!!\n{}", line("h", &key));
        let known = known(&text);
        assert!(known.judge("h", 22, &key).is_ok());
        assert_eq!(known.warnings.len(), 2, "{:?}", known.warnings);
        assert!(known.warnings[0].starts_with("/k:1:"));
    }

    #[test]
    fn pins_count_alone() {
        let (good, evil) = (key("ssh-ed25519", 1), key("ssh-ed25519", 2));
        let mut known = known(&line("h", &evil));
        known.pins = Some(vec![fingerprint(&good) + "="]);
        assert!(known.judge("h", 22, &good).is_ok());
        assert!(matches!(known.judge("h", 22, &evil), Err(Failure::ChangedHostKey(_))));
    }

    #[test]
    fn the_known_kind_of_key_is_asked_for_first() {
        let known = known(&line("h", &key("ssh-rsa", 1)));
        assert_eq!(known.algorithms("h", 22, &[])[..2], ["rsa-sha2-512", "rsa-sha2-256"]);
        assert_eq!(known.algorithms("other", 22, &[])[0], "ssh-ed25519");
        let without = known.algorithms("other", 22, &["ssh-ed25519".into()]);
        assert_eq!(without[0], "ecdsa-sha2-nistp256");
    }
}
