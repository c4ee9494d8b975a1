//! Signatures made with SSH keys (`ssh-keygen -Y sign`), and the file that lists the keys
//! (`ALLOWED SIGNERS` in ssh-keygen(1)).

use std::path::{Path, PathBuf};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use ssh_key::public::KeyData;
use ssh_key::{HashAlg, PublicKey, SshSig};

use super::keys::Keys;
use super::{Key, Verdict, date};
use crate::diagnostic::quoted;

/// What git signs for.
const NAMESPACE: &str = "git";
/// Shorter RSA keys do not count.
const RSA_BITS: usize = 2048;
/// A longer signature is none.
const MOST_BYTES: usize = 64 << 10;

/// A line of the file.
#[derive(Debug)]
pub(super) struct Signer {
    principals: String,
    key: PublicKey,
    /// Patterns, of which one has to fit; `None` is any.
    namespaces: Option<String>,
    after: Option<i64>,
    before: Option<i64>,
    file: PathBuf,
}

/// Reads the file. A line that is not understood costs a warning and not the file: it only
/// lets fewer signatures count.
pub(super) fn read(
    content: &[u8],
    path: &Path,
    warn: &dyn Fn(&str),
) -> Result<Vec<Signer>, String> {
    let Ok(text) = std::str::from_utf8(content) else {
        return Err("it is neither text nor OpenPGP keys".into());
    };
    if text.contains("PRIVATE KEY") {
        return Err("it is a private key; a public one is wanted".into());
    }
    let mut signers = Vec::new();
    let mut lines = 0;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        lines += 1;
        match signer(line, path) {
            Ok(signer) => signers.push(signer),
            Err(why) => warn(&format!("line {} does not count: {why}", number + 1)),
        }
    }
    match signers.len() {
        0 if lines == 0 => Err("it is empty".into()),
        0 => Err("no line of it is understood".into()),
        _ => Ok(signers),
    }
}

/// `principals [options] type base64 [comment]`
fn signer(line: &str, path: &Path) -> Result<Signer, String> {
    let (principals, rest) = word(line);
    let principals = principals.trim_matches('"').to_owned();
    // Git's tools find nobody in such a line, who could have signed.
    if principals.split(',').all(|pattern| pattern.is_empty() || pattern.starts_with('!')) {
        return Err("it names nobody: all its principals are negated".into());
    }
    let mut found = Signer {
        principals,
        key: match PublicKey::from_openssh(rest) {
            Ok(key) => key,
            Err(_) if is_key_type(word(rest).0) => return Err("its key cannot be read".into()),
            Err(_) => {
                let (_, key) = word(rest);
                PublicKey::from_openssh(key).map_err(|_| {
                    "it is not `principals [options] key-type base64-key`".to_owned()
                })?
            }
        },
        namespaces: None,
        after: None,
        before: None,
        file: path.to_owned(),
    };
    if !is_key_type(word(rest).0) {
        options(word(rest).0, &mut found)?;
    }
    strong_enough(found.key.key_data())?;
    Ok(found)
}

fn is_key_type(word: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-", "rsa-sha2-"].iter().any(|start| word.starts_with(start))
}

/// Splits at white space that is not between quotes.
fn word(text: &str) -> (&str, &str) {
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => return (&text[..at], text[at..].trim_start()),
            _ => {}
        }
    }
    (text, "")
}

fn options(text: &str, signer: &mut Signer) -> Result<(), String> {
    let mut inside = false;
    let options = text.split(|c: char| {
        inside ^= c == '"';
        c == ',' && !inside
    });
    let mut seen = Vec::new();
    for option in options {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let name = name.to_ascii_lowercase();
        if seen.contains(&name) {
            return Err(format!("the option {} is given twice", quoted(&name)));
        }
        let value = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'))
            .ok_or_else(|| format!("the option {} has no value in quotes", quoted(&name)));
        match name.as_str() {
            "cert-authority" => {
                return Err("certificates (`cert-authority`) are not supported".into());
            }
            "namespaces" => signer.namespaces = Some(value?.to_owned()),
            "valid-after" => signer.after = Some(time(value?)?),
            "valid-before" => signer.before = Some(time(value?)?),
            _ => return Err(format!("the option {} is not known", quoted(&name))),
        }
        seen.push(name);
    }
    Ok(())
}

/// `YYYYMMDD[HHMM[SS]][Z]`, in this host's time zone without `Z`.
fn time(text: &str) -> Result<i64, String> {
    let wrong = || format!("{} is not a time (YYYYMMDD[HHMM[SS]][Z])", quoted(text));
    let (digits, zone) = match text.strip_suffix('Z') {
        Some(digits) => (digits, TimeZone::UTC),
        None => (text, TimeZone::system()),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || ![8, 12, 14].contains(&digits.len()) {
        return Err(wrong());
    }
    let full = format!("{digits:0<14}");
    let civil = DateTime::strptime("%Y%m%d%H%M%S", &full).map_err(|_| wrong())?;
    let time = zone.to_timestamp(civil).map_err(|_| wrong())?;
    Ok(time.as_second())
}

/// Refuses keys that can be broken.
fn strong_enough(key: &KeyData) -> Result<(), String> {
    match key {
        KeyData::Rsa(rsa) => {
            let bits = rsa.n.as_positive_bytes().map_or(0, bits);
            if bits < RSA_BITS {
                return Err(format!("its RSA key has {bits} bits; {RSA_BITS} are needed"));
            }
            Ok(())
        }
        KeyData::Ed25519(_)
        | KeyData::Ecdsa(_)
        | KeyData::SkEd25519(_)
        | KeyData::SkEcdsaSha2NistP256(_) => Ok(()),
        _ => Err("keys of its type are not supported".into()),
    }
}

fn bits(number: &[u8]) -> usize {
    let zeros = number.first().map_or(0, |first| first.leading_zeros() as usize);
    (number.len() * 8).saturating_sub(zeros)
}

/// Checks a signature of `payload`, made at `time` (the committer's).
pub(super) fn verify(
    payload: &[u8],
    armored: &[u8],
    time: Option<i64>,
    keys: &Keys,
) -> Result<(Key, PathBuf), Verdict> {
    let bad = |why: &str| Verdict::Bad(why.to_owned());
    let signature = unarmored(armored).ok_or_else(|| bad("it cannot be read"))?;
    let made_by = PublicKey::from(signature.public_key().clone());
    let fingerprint = made_by.fingerprint(HashAlg::Sha256).to_string();
    let shown = format!("{} {fingerprint}", kind(made_by.key_data()));
    let listed: Vec<_> =
        keys.ssh.iter().filter(|signer| signer.key.key_data() == made_by.key_data()).collect();
    let Some(first) = listed.first() else { return Err(Verdict::Unknown(shown)) };
    if signature.namespace() != NAMESPACE {
        return Err(Verdict::Bad(format!(
            "it was made for `{}`, not for git",
            signature.namespace().chars().filter(|c| !c.is_control()).take(40).collect::<String>()
        )));
    }
    made_by
        .verify(NAMESPACE, payload, &signature)
        .map_err(|_| Verdict::Bad(format!("it is not one of this content by {shown}")))?;
    let key = |signer: &Signer| Key {
        fingerprint: shown.clone(),
        owner: Some(signer.principals.clone()),
    };
    if let Some(why) = keys.revoked(std::slice::from_ref(&fingerprint)) {
        return Err(Verdict::NotValid { key: key(first), file: first.file.clone(), why });
    }
    let mut refused = None;
    for signer in listed {
        match signer.allows(time) {
            Ok(()) => return Ok((key(signer), signer.file.clone())),
            Err(why) => {
                let file = signer.file.clone();
                refused.get_or_insert(Verdict::NotValid { key: key(signer), file, why });
            }
        }
    }
    Err(refused.unwrap_or(Verdict::Unknown(shown)))
}

impl Signer {
    /// Whether the line lets its key sign for git at that time.
    fn allows(&self, time: Option<i64>) -> Result<(), String> {
        if let Some(patterns) = &self.namespaces
            && !fits(patterns, NAMESPACE)
        {
            return Err(format!("the file lets it sign for {} only", quoted(patterns)));
        }
        if self.after.is_none() && self.before.is_none() {
            return Ok(());
        }
        let Some(time) = time else {
            return Err("there is no time that its validity could be held against".into());
        };
        if let Some(after) = self.after.filter(|after| time < *after) {
            return Err(format!(
                "that key is valid from {} on; the commit is of {}",
                date(after),
                date(time)
            ));
        }
        if let Some(before) = self.before.filter(|before| time > *before) {
            return Err(format!(
                "that key expired at {}; the commit is of {}",
                date(before),
                date(time)
            ));
        }
        Ok(())
    }
}

/// Whether a text fits a list of patterns with `*`, `?` and `!`, as SSH configuration has it.
fn fits(patterns: &str, text: &str) -> bool {
    let mut any = false;
    for pattern in patterns.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if fits_one(pattern.as_bytes(), text.as_bytes()) => return false,
            Some(_) => {}
            None => any |= fits_one(pattern.as_bytes(), text.as_bytes()),
        }
    }
    any
}

/// `text` is short and ours: what a pattern may cost is bounded by that.
fn fits_one(pattern: &[u8], text: &[u8]) -> bool {
    // The positions in the text that the pattern so far may end at.
    let mut ends = vec![false; text.len() + 1];
    ends[0] = true;
    for byte in pattern {
        if *byte == b'*' {
            if let Some(first) = ends.iter().position(|end| *end) {
                ends[first..].fill(true);
            }
            continue;
        }
        for at in (0..text.len()).rev() {
            ends[at + 1] = ends[at] && (*byte == b'?' || *byte == text[at]);
        }
        ends[0] = false;
    }
    ends[text.len()]
}

/// Reads the armor leniently: how long its lines are does not matter.
fn unarmored(text: &[u8]) -> Option<SshSig> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= MOST_BYTES)?;
    let inner = text.trim().strip_prefix("-----BEGIN SSH SIGNATURE-----")?;
    let inner = inner.strip_suffix("-----END SSH SIGNATURE-----")?;
    let inner: Vec<u8> = inner.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let lines: Vec<_> = inner.chunks(70).map(String::from_utf8_lossy).collect();
    let text = lines.join("\n");
    SshSig::from_pem(format!(
        "-----BEGIN SSH SIGNATURE-----\n{text}\n-----END SSH SIGNATURE-----\n"
    ))
    .ok()
}

/// The kind of a key as ssh-keygen writes it.
fn kind(key: &KeyData) -> &'static str {
    match key {
        KeyData::Rsa(_) => "RSA",
        KeyData::Ed25519(_) => "ED25519",
        KeyData::Ecdsa(_) => "ECDSA",
        KeyData::SkEd25519(_) => "ED25519-SK",
        KeyData::SkEcdsaSha2NistP256(_) => "ECDSA-SK",
        KeyData::Dsa(_) => "DSA",
        _ => "key",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7lX6QGxW5Jq0bXBUnN0fV9vUvH4q8wWl0mGk0sPq3u";

    fn parsed(line: &str) -> Result<Signer, String> {
        signer(line, Path::new("signers"))
    }

    #[test]
    fn lines_as_ssh_keygen_reads_them() {
        let plain = parsed(&format!("ada@example.com {KEY} laptop")).unwrap();
        assert_eq!((plain.principals.as_str(), plain.allows(None)), ("ada@example.com", Ok(())));
        let full = parsed(&format!(
            "*@example.com,bob namespaces=\"file,g*\",valid-after=\"20240101Z\",Valid-Before=\"202501011200Z\" {KEY}"
        ))
        .unwrap();
        assert_eq!((full.after, full.before), (Some(1_704_067_200), Some(1_735_732_800)));
        assert_eq!(full.allows(Some(1_704_067_200)), Ok(()));
        assert_eq!(full.allows(Some(1_735_732_800)), Ok(()));
        assert!(full.allows(Some(1_704_067_199)).unwrap_err().contains("valid from 2024-01-01"));
        assert!(full.allows(Some(1_735_732_801)).unwrap_err().contains("expired at 2025-01-01"));
        assert!(full.allows(None).is_err());
        let but_one = parsed(&format!("*@example.com,!eve@example.com {KEY}")).unwrap();
        assert_eq!(but_one.allows(None), Ok(()));
        let other = parsed(&format!("a namespaces=\"file\" {KEY}")).unwrap();
        assert!(other.allows(None).unwrap_err().contains("`file` only"));
        for (line, why) in [
            (format!("a cert-authority {KEY}"), "cert-authority"),
            (format!("a valid-after=\"2024\" {KEY}"), "not a time"),
            (format!("a valid-after=2024 {KEY}"), "quotes"),
            (format!("a no-touch {KEY}"), "not known"),
            (format!("!a {KEY}"), "negated"),
            (format!("!a,!b namespaces=\"git\" {KEY}"), "negated"),
            (format!("a valid-before=\"20240101\",Valid-Before=\"20300101\" {KEY}"), "twice"),
            (String::new(), "names nobody"),
            (KEY.to_owned(), "principals"),
            ("a ssh-ed25519 AAAA".to_owned(), "cannot be read"),
            ("garbage".to_owned(), "principals"),
        ] {
            let found = parsed(&line).unwrap_err();
            assert!(found.contains(why), "{line}: {found}");
        }
    }

    #[test]
    fn a_bad_line_costs_a_warning_and_no_good_line_the_file() {
        let said = std::cell::RefCell::new(Vec::new());
        let warn = |text: &str| said.borrow_mut().push(text.to_owned());
        let path = Path::new("signers");
        let text = format!("# ours\n\nada {KEY}\nbob {}\n", &KEY[..40]);
        assert_eq!(read(text.as_bytes(), path, &warn).unwrap().len(), 1);
        assert_eq!(said.borrow().len(), 1);
        assert!(said.borrow()[0].starts_with("line 4 does not count"), "{said:?}");
        assert!(read(b"# nothing\n", path, &warn).unwrap_err().contains("empty"));
        assert!(read(b"ada bob\n", path, &warn).unwrap_err().contains("no line"));
        assert!(read(b"\xff\xfe", path, &warn).is_err());
        let private = b"-----BEGIN OPENSSH PRIVATE KEY-----\n";
        assert!(read(private, path, &warn).unwrap_err().contains("private"));
    }

    #[test]
    fn patterns() {
        for (patterns, fit) in [
            ("git", true),
            ("*", true),
            ("g?t,!x", true),
            ("*t", true),
            ("g*i*t*", true),
            ("gi", false),
            ("git?", false),
            ("!git,*", false),
            ("*,!g*", false),
            ("", false),
        ] {
            assert_eq!(fits(patterns, "git"), fit, "{patterns}");
        }
    }
}
