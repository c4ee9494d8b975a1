//! The proof that a GitHub App shows: a JSON Web Token, signed with RS256 (RFC 7515, 7519).

use std::io;

use openssl::base64::encode_block;
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Private};
use openssl::sign::Signer;
use serde_json::json;

use crate::domain::Secret;

/// How far before now it holds, as clocks differ.
const BEFORE: i64 = 60;
/// How far after now. GitHub takes no more than 600 s by its own clock.
const AFTER: i64 = 540;

/// An RSA private key.
pub(super) type Key = PKey<Private>;

/// Reads a private key, refused with the exact reason.
pub(super) fn key(pem: &str) -> Result<Key, &'static str> {
    let pem = pem.trim();
    if pem.is_empty() {
        return Err("is empty");
    }
    if pem.contains("ENCRYPTED") {
        return Err("is encrypted; the App's keys are used as GitHub gives them");
    }
    if pem.starts_with("-----BEGIN PUBLIC KEY") || pem.starts_with("-----BEGIN RSA PUBLIC") {
        return Err("is a public key; the private one is needed");
    }
    if pem.starts_with("-----BEGIN OPENSSH") {
        return Err("is a key for SSH; the App's private key in PEM format is needed");
    }
    // With a passphrase given, OpenSSL never asks for one on the terminal.
    let key = PKey::private_key_from_pem_passphrase(pem.as_bytes(), b"")
        .map_err(|_| "is not a private key in PEM format, or is cut off")?;
    if key.id() != Id::RSA {
        return Err("is not an RSA key");
    }
    Ok(key)
}

/// The proof of the App with this id, for some minutes around `now` (seconds since 1970).
pub(super) fn sign(id: &str, key: &Key, now: i64) -> io::Result<Secret> {
    let part = |value: &serde_json::Value| base64url(value.to_string().as_bytes());
    let head = part(&json!({"alg": "RS256", "typ": "JWT"}));
    let claims = part(&json!({"iat": now - BEFORE, "exp": now + AFTER, "iss": id}));
    let text = format!("{head}.{claims}");
    let mut signer = Signer::new(MessageDigest::sha256(), key)?;
    let signature = base64url(&signer.sign_oneshot_to_vec(text.as_bytes())?);
    Ok(Secret::new(format!("{text}.{signature}")))
}

fn base64url(bytes: &[u8]) -> String {
    encode_block(bytes).trim_end_matches('=').replace('+', "-").replace('/', "_")
}

#[cfg(test)]
mod tests {
    use openssl::rsa::Rsa;

    use super::*;

    #[test]
    fn keys_are_refused_with_the_reason() {
        let rsa = Rsa::generate(2048).unwrap();
        let pem = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let plain = pem(rsa.private_key_to_pem().unwrap());
        assert!(key(&plain).is_ok() && key(&format!("\n{plain}\n")).is_ok());
        let pkcs8 = PKey::from_rsa(rsa.clone()).unwrap().private_key_to_pem_pkcs8().unwrap();
        assert!(key(&pem(pkcs8)).is_ok());
        let cipher = openssl::symm::Cipher::aes_128_cbc();
        let encrypted = rsa.private_key_to_pem_passphrase(cipher, b"x").unwrap();
        let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1);
        let curve = openssl::ec::EcKey::generate(&group.unwrap()).unwrap();
        for (text, word) in [
            (" ".to_owned(), "empty"),
            ("hello".to_owned(), "PEM"),
            (plain[..plain.len() / 2].to_owned(), "cut off"),
            (pem(rsa.public_key_to_pem().unwrap()), "public"),
            (pem(encrypted), "encrypted"),
            (pem(curve.private_key_to_pem().unwrap()), "RSA"),
        ] {
            let problem = key(&text).err().unwrap_or_default();
            assert!(problem.contains(word), "{word}: {problem}");
        }
    }

    #[test]
    fn no_padding_and_no_letters_of_plain_base64() {
        assert_eq!(base64url(&[0xfb, 0xff, 0xfe, 0xff]), "-__-_w");
    }
}
