//! The files that say whose signatures count, and whose do not.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use ssh_key::{HashAlg, PublicKey};

use super::{Error, openpgp, ssh};
use crate::domain::Verify;
use crate::files::{self, Exposed};

/// A file of keys that is longer is something else.
const MOST_BYTES: u64 = 16 << 20;

/// The keys whose signatures count.
pub(super) struct Keys {
    paths: Vec<PathBuf>,
    pub(super) ssh: Vec<ssh::Signer>,
    pub(super) openpgp: Vec<openpgp::Certificate>,
    revoked: BTreeSet<String>,
    revoked_in: Option<PathBuf>,
}

impl Keys {
    /// Reads all files.
    pub(super) fn load(wanted: &Verify, warn: &dyn Fn(&str)) -> Result<Self, Error> {
        let mut keys = Self {
            paths: wanted.signed_by.clone(),
            ssh: Vec::new(),
            openpgp: Vec::new(),
            revoked: BTreeSet::new(),
            revoked_in: wanted.revoked_keys.clone(),
        };
        for path in &wanted.signed_by {
            let content = read(path)?;
            let no_keys = |why: String| Error::NoKeys { path: path.clone(), why };
            if openpgp::is_certificates(&content) {
                let warn = |text: &str| warn(&format!("`{}`: {text}", path.display()));
                keys.openpgp.extend(openpgp::read(&content, path, &warn).map_err(no_keys)?);
            } else {
                let warn = |text: &str| warn(&format!("`{}` {text}", path.display()));
                keys.ssh.extend(ssh::read(&content, path, &warn).map_err(no_keys)?);
            }
        }
        if let Some(path) = &wanted.revoked_keys {
            keys.revoked = revocations(&read(path)?)
                .map_err(|why| Error::Revocations { path: path.clone(), why })?;
        }
        Ok(keys)
    }

    /// None at all.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn none() -> Self {
        let (ssh, openpgp, revoked) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { paths: Vec::new(), ssh, openpgp, revoked, revoked_in: None }
    }

    /// The files as messages name them.
    pub(super) fn files(&self) -> String {
        let names: Vec<_> = self.paths.iter().map(|path| format!("`{}`", path.display())).collect();
        names.join(" or ")
    }

    /// Why a key does not count although it is listed; fingerprints as `SHA256:…` or in
    /// lower-case digits.
    pub(super) fn revoked(&self, fingerprints: &[String]) -> Option<String> {
        let path = self.revoked_in.as_ref()?;
        let hit = fingerprints.iter().any(|fingerprint| self.revoked.contains(fingerprint));
        hit.then(|| format!("`{}` revokes that key", path.display()))
    }
}

/// Reads a file, unless others than this user and root could have written it.
fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Unreadable { path: path.to_owned(), source };
    // A pipe or device would be waited for.
    if !fs_err::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("it is not a file")));
    }
    if let Some(Exposed { path: place, why, remedy }) = files::exposed(path).map_err(failed)? {
        let why = format!("`{}` {why}", place.display());
        return Err(Error::Unsafe { path: path.to_owned(), why, remedy });
    }
    let file = fs_err::File::open(path).map_err(failed)?;
    let mut content = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > MOST_BYTES {
        return Err(failed(std::io::Error::other(format!("it is longer than {MOST_BYTES} bytes"))));
    }
    Ok(content)
}

/// Fingerprints of keys: one public SSH key, `SHA256:…`, or PGP fingerprint a line.
fn revocations(content: &[u8]) -> Result<BTreeSet<String>, String> {
    if content.starts_with(b"SSHKRL\n") {
        return Err("it is a binary key revocation list (KRL)".into());
    }
    let text = std::str::from_utf8(content).map_err(|_| "it is not text".to_owned())?;
    let mut revoked = BTreeSet::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let digits: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        if line.starts_with("SHA256:") {
            let first = line.split_whitespace().next().unwrap_or(line);
            revoked.insert(first.trim_end_matches('=').to_owned());
        } else if matches!(digits.len(), 40 | 64) && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            revoked.insert(digits.to_ascii_lowercase());
        } else if let Ok(key) = PublicKey::from_openssh(line) {
            revoked.insert(key.fingerprint(HashAlg::Sha256).to_string());
        } else {
            // Skipping it would let a revoked key count.
            return Err(format!("line {} is neither a key nor a fingerprint", number + 1));
        }
    }
    Ok(revoked)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn revocations_are_keys_or_fingerprints_and_nothing_is_skipped() {
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7lX6QGxW5Jq0bXBUnN0fV9vUvH4q8wWl0mGk0sPq3u";
        let text = format!(
            "# gone\n{key} ada@example.com\n\nSHA256:abc comment\n01234567 89ABCDEF 01234567 89ABCDEF 01234567\n"
        );
        let revoked = revocations(text.as_bytes()).unwrap();
        assert_eq!(revoked.len(), 3, "{revoked:?}");
        assert!(revoked.contains("SHA256:abc"), "{revoked:?}");
        assert!(revoked.contains("0123456789abcdef0123456789abcdef01234567"), "{revoked:?}");
        assert!(revocations(b"SHA256:abc\nada\n").unwrap_err().contains("line 2"));
        assert!(revocations(b"SSHKRL\n\0\0\0\0\x01").unwrap_err().contains("KRL"));
    }

    #[test]
    fn a_file_that_others_could_have_written_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signers");
        assert!(matches!(read(&path), Err(Error::Unreadable { .. })));
        assert!(matches!(read(dir.path()), Err(Error::Unreadable { .. })));
        fs_err::write(&path, "x").unwrap();
        let mode = |path: &Path, mode| {
            fs_err::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        for (file, directory, good) in [
            (0o644, 0o755, true),
            (0o400, 0o1777, true),
            (0o646, 0o755, false),
            (0o644, 0o777, false),
        ] {
            mode(&path, file);
            mode(dir.path(), directory);
            assert_eq!(read(&path).is_ok(), good, "{file:o} {directory:o}");
        }
        mode(dir.path(), 0o700);
        // Nor one above which others could put another directory in its place.
        let inner = dir.path().join("open/inner");
        fs_err::create_dir_all(&inner).unwrap();
        fs_err::write(inner.join("signers"), "x").unwrap();
        assert!(read(&inner.join("signers")).is_ok());
        mode(&dir.path().join("open"), 0o777);
        let error = read(&inner.join("signers")).unwrap_err();
        let text = format!("{error}; {}", error.hint());
        assert!(text.contains("open` everybody can write to it; chmod o-w "), "{text}");
    }
}
