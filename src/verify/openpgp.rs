//! Signatures made with PGP keys (gpg), and files of such keys.
//!
//! The crate `pgp` reads packets and checks signatures; which keys may sign is decided here:
//! bound to their certificate, meant for signing, neither revoked nor expired.

use std::path::{Path, PathBuf};

use pgp::composed::{Deserializable, DetachedSignature, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{PacketTrait, Signature, SignatureType, SubpacketData};
use pgp::ser::Serialize;
use pgp::types::{Duration, KeyDetails, PublicParams, VerifyingKey};

use super::keys::Keys;
use super::{Key, Verdict, date};

const PUBLIC: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const PUBLIC_END: &str = "-----END PGP PUBLIC KEY BLOCK-----";
/// Shorter RSA keys do not count.
const RSA_BITS: u16 = 2048;
/// A longer signature is none.
const MOST_BYTES: usize = 64 << 10;
/// More signatures than this on one object are not looked at.
const MOST_SIGNATURES: usize = 8;

/// A primary key with its subkeys and names.
#[derive(Debug)]
pub(super) struct Certificate {
    key: SignedPublicKey,
    file: PathBuf,
}

/// Whether a file holds PGP keys, armored or not, rather than lines of SSH keys.
pub(super) fn is_certificates(content: &[u8]) -> bool {
    let contains = |text: &str| content.windows(text.len()).any(|part| part == text.as_bytes());
    // The first byte of a packet has its highest bit set.
    contains("-----BEGIN PGP ")
        || content.get(8..12) == Some(b"KBXf")
        || (content.first().is_some_and(|first| first & 0x80 != 0)
            && std::str::from_utf8(content).is_err())
}

/// The library's words without the places in its source that it adds to some of them.
fn brief(error: &str) -> String {
    let text = error.split("backtrace:").next().unwrap_or_default();
    let plain: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    plain.trim_end_matches([',', ' ']).chars().take(120).collect()
}

/// Reads all certificates of a file. One that is not understood costs a warning.
pub(super) fn read(
    content: &[u8],
    path: &Path,
    warn: &dyn Fn(&str),
) -> Result<Vec<Certificate>, String> {
    let mut found = Vec::new();
    let mut take = |key: Result<SignedPublicKey, pgp::errors::Error>| match key {
        Ok(key) => found.push(Certificate { key, file: path.to_owned() }),
        Err(error) => {
            warn(&format!(
                "a key in it is not understood and does not count: {}",
                brief(&error.to_string())
            ));
        }
    };
    if content.get(8..12) == Some(b"KBXf") {
        return Err("it is gpg's key box; write what `gpg --export --armor` gives".into());
    }
    if let Ok(text) = std::str::from_utf8(content) {
        let blocks: Vec<_> = text.split(PUBLIC).skip(1).collect();
        if blocks.is_empty() {
            return Err("it holds OpenPGP data, but no public key block".into());
        }
        for block in blocks {
            let end = block.find(PUBLIC_END).map_or(block.len(), |end| end + PUBLIC_END.len());
            let block = format!("{PUBLIC}{}\n", &block[..end]);
            match SignedPublicKey::from_armor_many(block.as_bytes()) {
                Ok((keys, _)) => keys.for_each(&mut take),
                Err(error) => take(Err(error)),
            }
        }
    } else {
        let keys = SignedPublicKey::from_bytes_many(content).map_err(|error| {
            format!("it is neither text nor OpenPGP keys ({})", brief(&error.to_string()))
        })?;
        keys.for_each(&mut take);
    }
    if found.is_empty() {
        return Err("no key in it is understood".into());
    }
    Ok(found)
}

/// Checks a signature of `payload`. Of several, one that counts is enough.
pub(super) fn verify(
    payload: &[u8],
    armored: &[u8],
    keys: &Keys,
) -> Result<(Key, PathBuf), Verdict> {
    let bad = |why: &str| Verdict::Bad(why.to_owned());
    if armored.len() > MOST_BYTES {
        return Err(bad("it is too long for one"));
    }
    let read = DetachedSignature::from_armor_many(armored);
    let (signatures, _) = read.map_err(|_| bad("it cannot be read"))?;
    let mut worst: Option<Verdict> = None;
    for signature in signatures.take(MOST_SIGNATURES) {
        let verdict = match signature {
            Ok(found) => match one(payload, &found.signature, keys) {
                Ok(good) => return Ok(good),
                Err(verdict) => verdict,
            },
            Err(_) => bad("it cannot be read"),
        };
        // A key that is known says most.
        if worst.is_none() || matches!(verdict, Verdict::NotValid { .. }) {
            worst = Some(verdict);
        }
    }
    Err(worst.unwrap_or_else(|| bad("it cannot be read")))
}

fn one(payload: &[u8], signature: &Signature, keys: &Keys) -> Result<(Key, PathBuf), Verdict> {
    let mut known = false;
    for certificate in &keys.openpgp {
        let primary = &certificate.key.primary_key;
        if names(signature, primary) {
            known = true;
            if signature.verify(primary, payload).is_ok() {
                let why = certificate.primary_may_sign(signature);
                return certificate.verdict(primary, signature, why, keys);
            }
        }
        for subkey in &certificate.key.public_subkeys {
            if names(signature, &subkey.key) {
                known = true;
                if signature.verify(&subkey.key, payload).is_ok() {
                    let why =
                        certificate.subkey_may_sign(&subkey.key, &subkey.signatures, signature);
                    return certificate.verdict(&subkey.key, signature, why, keys);
                }
            }
        }
    }
    let issuer = issuer(signature);
    if known {
        return Err(Verdict::Bad(format!("it is not one of this content by {issuer}")));
    }
    Err(Verdict::Unknown(issuer))
}

/// Whether a signature claims to be made by a key. One that names nobody is not tried with
/// every key: git's tools always name it.
fn names(signature: &Signature, key: &impl KeyDetails) -> bool {
    let ids = signature.issuer_key_id();
    let fingerprints = signature.issuer_fingerprint();
    ids.contains(&&key.legacy_key_id()) || fingerprints.contains(&&key.fingerprint())
}

fn issuer(signature: &Signature) -> String {
    if let Some(fingerprint) = signature.issuer_fingerprint().first() {
        return format!("OpenPGP {fingerprint:X}");
    }
    match signature.issuer_key_id().first() {
        Some(id) => format!("OpenPGP key id {}", id.to_string().to_ascii_uppercase()),
        None => "an OpenPGP key that it does not name".into(),
    }
}

impl Certificate {
    /// Puts the last questions: those that are about the signature and not about the key.
    fn verdict(
        &self,
        signer: &(impl KeyDetails + ?Sized),
        signature: &Signature,
        why: Result<(), String>,
        keys: &Keys,
    ) -> Result<(Key, PathBuf), Verdict> {
        let fingerprint = signer.fingerprint();
        let key = Key { fingerprint: format!("OpenPGP {fingerprint:X}"), owner: self.owner() };
        acceptable(signature).map_err(Verdict::Bad)?;
        let both = [fingerprint, self.key.primary_key.fingerprint()];
        let both = both.map(|fingerprint| format!("{fingerprint:x}"));
        match keys.revoked(&both).map_or(why, Err) {
            Ok(()) => Ok((key, self.file.clone())),
            Err(why) => Err(Verdict::NotValid { key, file: self.file.clone(), why }),
        }
    }

    /// The first of its names.
    fn owner(&self) -> Option<String> {
        let user = self.key.details.users.first()?;
        let name = String::from_utf8_lossy(user.id.id()).into_owned();
        Some(name.chars().filter(|c| !c.is_control()).take(100).collect())
    }

    /// The statements of the primary key about itself that hold, the newest first: those made
    /// directly, then those made with a name.
    fn statements(&self) -> Vec<&Signature> {
        let primary = &self.key.primary_key;
        let mut direct: Vec<_> = self
            .key
            .details
            .direct_signatures
            .iter()
            .filter(|statement| statement.verify_key(primary).is_ok())
            .collect();
        let mut named: Vec<_> = self
            .key
            .details
            .users
            .iter()
            .flat_map(|user| user.signatures.iter().map(move |statement| (user, statement)))
            .filter(|(user, statement)| {
                statement.is_certification()
                    && names(statement, primary)
                    && statement.verify_certification(primary, user.id.tag(), &user.id).is_ok()
            })
            .map(|(_, statement)| statement)
            .collect();
        let newest = |statement: &&Signature| std::cmp::Reverse(statement.created());
        direct.sort_by_key(newest);
        named.sort_by_key(newest);
        // Of each kind only the newest counts: it replaces the others.
        direct.into_iter().take(1).chain(named.into_iter().take(1)).collect()
    }

    /// Whether the primary key is in force at the time of the signature.
    fn in_force(&self, signature: &Signature) -> Result<Vec<&Signature>, String> {
        let primary = &self.key.primary_key;
        let revoked = &self.key.details.revocation_signatures;
        if let Some(by) = revoked.iter().find(|revocation| revocation.verify_key(primary).is_ok()) {
            return Err(format!("that key is revoked{}", since(by)));
        }
        strong_enough(primary.public_params())?;
        let statements = self.statements();
        if statements.is_empty() {
            return Err("that key makes no valid statement about itself".into());
        }
        let expires = statements.iter().find_map(|s| s.key_expiration_time());
        not_expired(primary, expires, signature)?;
        Ok(statements)
    }

    fn primary_may_sign(&self, signature: &Signature) -> Result<(), String> {
        let statements = self.in_force(signature)?;
        let flags = statements.iter().find_map(|statement| may_sign(statement));
        // Old keys do not say what they are for.
        if flags.unwrap_or(true) { Ok(()) } else { Err("that key is not meant for signing".into()) }
    }

    fn subkey_may_sign<K>(
        &self,
        subkey: &K,
        bindings: &[Signature],
        signature: &Signature,
    ) -> Result<(), String>
    where
        K: VerifyingKey + Serialize,
    {
        self.in_force(signature)?;
        let primary = &self.key.primary_key;
        let held = |kind: SignatureType| {
            bindings.iter().filter(move |binding| {
                binding.typ() == Some(kind)
                    && binding.verify_subkey_binding(primary, subkey).is_ok()
            })
        };
        if let Some(by) = held(SignatureType::SubkeyRevocation).next() {
            return Err(format!("that subkey is revoked{}", since(by)));
        }
        let Some(binding) =
            held(SignatureType::SubkeyBinding).max_by_key(|binding| binding.created())
        else {
            return Err("that subkey is not bound to its primary key".into());
        };
        // The subkey has to agree, or anybody could claim somebody else's signatures.
        let agrees = binding
            .embedded_signature()
            .is_some_and(|back| back.verify_primary_key_binding(subkey, primary).is_ok());
        if may_sign(binding) != Some(true) || !agrees {
            return Err("that subkey is not meant for signing".into());
        }
        strong_enough(subkey.public_params())?;
        not_expired(subkey, binding.key_expiration_time(), signature)
    }
}

fn since(revocation: &Signature) -> String {
    revocation
        .created()
        .map(|time| format!(" since {}", date(time.as_secs().into())))
        .unwrap_or_default()
}

/// Whether a statement says that its key may sign; `None` if it does not say.
fn may_sign(statement: &Signature) -> Option<bool> {
    let says = statement
        .config()?
        .hashed_subpackets()
        .any(|part| matches!(part.data, SubpacketData::KeyFlags(_)));
    says.then(|| statement.key_flags().sign())
}

/// Whether the signature was made while the key lived.
fn not_expired(
    key: &(impl KeyDetails + ?Sized),
    lives: Option<Duration>,
    signature: &Signature,
) -> Result<(), String> {
    let Some(made) = signature.created().map(|time| i64::from(time.as_secs())) else {
        return Err("the signature does not say when it was made".into());
    };
    let born = i64::from(key.created_at().as_secs());
    if made < born {
        return Err(format!("that key was made at {}, after the signature", date(born)));
    }
    match lives.map(|lives| i64::from(lives.as_secs())) {
        None | Some(0) => Ok(()),
        Some(lives) if made < born + lives => Ok(()),
        Some(lives) => Err(format!(
            "that key expired at {}; the signature is of {}",
            date(born + lives),
            date(made)
        )),
    }
}

/// Refuses keys that can be broken.
fn strong_enough(params: &PublicParams) -> Result<(), String> {
    match params {
        PublicParams::RSA(rsa) => {
            // The first number is the modulus; it begins with its length in bits.
            let bytes = rsa.to_bytes().unwrap_or_default();
            let bits = bytes.first_chunk().map_or(0, |bits| u16::from_be_bytes(*bits));
            if bits < RSA_BITS {
                return Err(format!("that RSA key has {bits} bits; {RSA_BITS} are needed"));
            }
            Ok(())
        }
        PublicParams::ECDSA(_)
        | PublicParams::EdDSALegacy(_)
        | PublicParams::Ed25519(_)
        | PublicParams::Ed448(_) => Ok(()),
        _ => Err("keys of its kind are not supported".into()),
    }
}

/// Refuses signatures of another kind than git's tools make, by methods that can be broken,
/// with conditions that are not understood here, or that are over.
fn acceptable(signature: &Signature) -> Result<(), String> {
    if signature.typ() != Some(SignatureType::Binary) {
        return Err("it is not one of a file's content".into());
    }
    match signature.hash_alg() {
        Some(
            HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha224
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512,
        ) => {}
        Some(weak) => return Err(format!("it uses {weak}, which can be forged")),
        None => return Err("it does not say how it was made".into()),
    }
    let conditions = signature.config().is_some_and(|config| {
        config.hashed_subpackets().any(|part| {
            part.is_critical
                && matches!(
                    part.data,
                    SubpacketData::Notation(_)
                        | SubpacketData::Experimental(..)
                        | SubpacketData::Other(..)
                )
        })
    });
    if conditions {
        return Err("it holds under a condition that is not understood".into());
    }
    let made = signature.created().map_or(0, |time| i64::from(time.as_secs()));
    let lives = signature.signature_expiration_time().map_or(0, |time| i64::from(time.as_secs()));
    if lives != 0 && made + lives < jiff::Timestamp::now().as_second() {
        return Err(format!("it expired at {}", date(made + lives)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_place_in_a_source_is_part_of_a_message() {
        let text = "Invalid Content { message: \"odd\n  prefix\", backtrace: Some(Backtrace [{ fn: \"a\" }]) }";
        assert_eq!(super::brief(text), "Invalid Content { message: \"odd prefix\"");
        assert_eq!(super::brief("not enough bytes"), "not enough bytes");
    }
}
