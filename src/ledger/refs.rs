//! Reads the ledger's refs as the files they are.

use std::io;
use std::path::Path;

use crate::domain::Revision;
use crate::files;
use crate::mirror::packed_refs;
use crate::plan::Recorded;

/// Reads what an app's mirror says of it. A mirror that is not there says nothing; a ref
/// that is there and unreadable makes the records damaged, never "deployed".
///
/// # Errors
/// Files that exist and cannot be read.
pub fn read(mirror: &Path) -> io::Result<Recorded> {
    let mut recorded = Recorded::default();
    let packed = read_if_there(&mirror.join("packed-refs"))?.unwrap_or_default();
    let Some(packed) = packed_refs(&packed) else {
        // It may have held an attempt.
        recorded.damaged = Some("`packed-refs` is damaged".to_owned());
        return Ok(recorded);
    };
    for (name, slot) in [
        (super::DEPLOYED, &mut recorded.deployed),
        (super::ATTEMPTED, &mut recorded.attempted),
        (super::PREVIOUS, &mut recorded.previous),
    ] {
        let loose = read_if_there(&mirror.join(name))?;
        match loose.as_deref().map(parse) {
            Some(Some(revision)) => *slot = Some(revision),
            Some(None) => recorded.damaged = Some(format!("`{name}` holds no commit id")),
            None => {
                let found = packed.iter().find(|(_, packed)| *packed == name);
                *slot = found.map(|(revision, _)| *revision);
            }
        }
    }
    Ok(recorded)
}

/// The commit that an id in the manifest stands for: itself, or, if it turned out to be an
/// annotated tag when it was fetched, what that points to.
///
/// # Errors
/// Files that exist and cannot be read.
pub fn commit_of(mirror: &Path, revision: Revision) -> io::Result<Revision> {
    let fetched = read_if_there(&mirror.join(format!("refs/multideployer/fetched/{revision}")))?;
    Ok(fetched.as_deref().and_then(parse).unwrap_or(revision))
}

/// Removes those of the ledger's loose refs that hold no commit id.
pub(super) fn remove_damaged(mirror: &Path) -> io::Result<()> {
    for name in [super::DEPLOYED, super::ATTEMPTED, super::PREVIOUS] {
        let path = mirror.join(name);
        if read_if_there(&path)?.is_some_and(|text| parse(&text).is_none()) {
            if path.is_dir() {
                fs_err::remove_dir_all(&path)?;
            } else {
                fs_err::remove_file(&path)?;
            }
        }
    }
    Ok(())
}

fn parse(text: &[u8]) -> Option<Revision> {
    std::str::from_utf8(text).ok()?.trim_end().parse().ok()
}

fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match files::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        // There, and no record: damage.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(Some(vec![0])),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loose_before_packed_and_garbage_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = ("1".repeat(40), "2".repeat(40));
        assert_eq!(read(dir.path()).unwrap(), Recorded::default());
        fs_err::create_dir_all(dir.path().join("refs/multideployer")).unwrap();
        let packed = format!(
            "# pack-refs with: peeled\n{one} refs/multideployer/deployed\n^{two}\n{one} refs/multideployer/previous\n"
        );
        fs_err::write(dir.path().join("packed-refs"), packed).unwrap();
        fs_err::write(dir.path().join(super::super::DEPLOYED), format!("{two}\n")).unwrap();
        let recorded = read(dir.path()).unwrap();
        assert_eq!(recorded.deployed, two.parse().ok());
        assert_eq!(recorded.previous, one.parse().ok());
        assert_eq!(recorded.damaged, None);
        fs_err::write(dir.path().join(super::super::DEPLOYED), "").unwrap();
        let recorded = read(dir.path()).unwrap();
        assert_eq!(recorded.deployed, None);
        assert!(recorded.damaged.is_some());
        remove_damaged(dir.path()).unwrap();
        assert!(!dir.path().join(super::super::DEPLOYED).exists());
    }
}
