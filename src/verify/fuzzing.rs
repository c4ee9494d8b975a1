//! What is fuzzed here; see `fuzzing` at the root.

use std::path::Path;

use super::{Kind, Object, keys::Keys, one, openpgp, ssh};
use crate::domain::Revision;

/// A commit (or, if the first byte says so, a tag), whose signature can count for nothing: no
/// key is listed, but for those that the object itself has behind its last NUL.
pub(crate) fn signature(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let Ok(id) = "1".repeat(40).parse::<Revision>() else { return };
    let end = bytes.iter().rposition(|byte| *byte == 0).unwrap_or(bytes.len());
    let (content, listed) = bytes.split_at(end);
    let listed = listed.strip_prefix(b"\0").unwrap_or_default();
    let file = Path::new("allowed_signers");
    let mut keys = Keys::none();
    if openpgp::is_certificates(listed) {
        keys.openpgp = openpgp::read(listed, file, &|_| {}).unwrap_or_default();
    } else {
        keys.ssh = ssh::read(listed, file, &|_| {}).unwrap_or_default();
    }
    let kind = if kind % 2 == 0 { Kind::Commit } else { Kind::Tag };
    let object = Object { id, kind, content: content.to_vec() };
    match one(&object, &keys) {
        Ok(signed) => assert!(!listed.is_empty(), "{signed:?}"),
        Err(error) => assert!(!error.to_string().contains(char::is_control), "{error:?}"),
    }
}

/// A file of those whose signatures count.
pub(crate) fn allowed_signers(text: &[u8]) {
    let file = Path::new("allowed_signers");
    let warn = |text: &str| assert!(!text.contains(char::is_control), "{text:?}");
    if openpgp::is_certificates(text) {
        let _ = openpgp::read(text, file, &|_| {});
    } else {
        let _ = ssh::read(text, file, &warn);
    }
}
