//! What is fuzzed here; see `fuzzing` at the root.

use std::path::Path;

use super::PrivateKey;
use super::attributes::Attributes;
use super::lfs;
use super::pkt::PktReader;
use super::protocol;
use super::trust::KnownHosts;
use crate::domain::Secret;

/// `known_hosts`: whatever it says, a key that it does not hold is not accepted.
pub(crate) fn known_hosts(text: &[u8]) {
    let mut known = KnownHosts::default();
    known.add(Path::new("known_hosts"), text);
    let key = b"\0\0\0\x0bssh-ed25519\0\0\0\x20................................";
    for (host, port) in [("git.example.com", 22), ("git.example.com", 2222), ("::1", 22)] {
        assert!(!known.algorithms(host, port, &[]).is_empty());
        if known.judge(host, port, key).is_ok() {
            let coded = openssl::base64::encode_block(key);
            assert!(String::from_utf8_lossy(text).contains(coded.trim_end_matches('=')));
        }
    }
    for warning in &known.warnings {
        assert!(!warning.contains(char::is_control), "{warning:?}");
    }
}

/// What a git server answers: the first byte says to which question.
pub(crate) fn answer(bytes: &[u8]) {
    let Some((question, bytes)) = bytes.split_first() else { return };
    let mut reader = PktReader::new(bytes);
    let mut pack = Vec::new();
    let trouble = match question % 6 {
        0 => protocol::greeting(&mut reader, false).err(),
        1 => protocol::greeting(&mut reader, true).err(),
        2 => protocol::read_list_v2(&mut reader).err(),
        3 => protocol::read_pack_v2(&mut reader, &mut pack).err(),
        4 => protocol::read_pack_v0(&mut reader, true, &mut pack).err(),
        _ => protocol::read_pack_v0(&mut reader, false, &mut pack).err(),
    };
    assert!(pack.len() <= bytes.len());
    if let Some(protocol::Trouble::Said(words) | protocol::Trouble::Strange(words)) = trouble {
        assert!(!words.contains(char::is_control), "{words:?}");
    }
}

/// `.gitattributes`, at the root and below.
pub(crate) fn attributes(text: &[u8]) {
    let files = vec![(Vec::new(), text.to_vec()), (b"docs".to_vec(), text.to_vec())];
    let mut attributes = Attributes::new(files);
    for path in ["a", "docs/a.txt", "docs/deep/er/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "\u{e9}.key"] {
        attributes.is_ignored(path.as_bytes(), false);
        attributes.is_ignored(path.as_bytes(), true);
        let _ = attributes.of_file(path.as_bytes());
    }
}

/// What Git LFS has: the first byte says whether it is a pointer, an answer of a batch server, one
/// of `git-lfs-authenticate`, or a `.lfsconfig`.
pub(crate) fn lfs(text: &[u8]) {
    let Some((kind, text)) = text.split_first() else { return };
    match kind % 4 {
        0 => {
            if let Some(object) = lfs::parse(text) {
                assert!(text.len() <= lfs::LONGEST_POINTER);
                let shown = object.oid.to_string();
                assert!(String::from_utf8_lossy(text).contains(&shown), "{shown}");
            }
        }
        1 => lfs::fuzzing::answer(text),
        2 => lfs::fuzzing::authenticated(text),
        _ => drop(lfs::fuzzing::lfs_url(&String::from_utf8_lossy(text))),
    }
}

/// Private keys, with a passphrase and without one; a problem never repeats the text.
pub(crate) fn private_key(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let passphrase = Secret::new("correct horse".to_owned());
    // Keys of OpenSSH's format say themselves how long guessing takes.
    let with = (!text.contains("OPENSSH")).then_some(&passphrase);
    for passphrase in [None, with] {
        match PrivateKey::parse(&text, passphrase) {
            Ok(key) => assert!(key.fingerprint().starts_with("SHA256:")),
            Err(problem) => {
                assert!(!problem.to_string().contains(char::is_control), "{problem:?}");
                assert!(!problem.hint().is_empty());
            }
        }
    }
}
