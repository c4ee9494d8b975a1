//! Objects of a mirror, each checked against its id when it is read.
//!
//! Two checks, each where it belongs. What comes from elsewhere is hashed by libgit2's indexer,
//! whose SHA-1 also finds content that was made to collide; that takes longer. What lies in the
//! mirror got there that way: reading it again only has to find what the disk did to it, and
//! OpenSSL's SHA-1, for which processors have instructions, does. So libgit2's own check at each
//! reading is off (`library`), and all that is read for what it says (trees, commits, files, what
//! housekeeping moves) comes through here.

use git2::{Error, ErrorClass, ErrorCode, ObjectType, Odb, OdbObject, Oid};
use openssl::sha::Sha1;

/// Reads an object. One that is not what its id says is an error, as libgit2 has it.
pub(super) fn read<'a>(objects: &'a Odb<'_>, id: Oid) -> Result<OdbObject<'a>, Error> {
    let object = objects.read(id)?;
    check(id, object.kind(), object.data())?;
    Ok(object)
}

/// Whether this content is what the id says.
pub(super) fn check(id: Oid, kind: ObjectType, content: &[u8]) -> Result<(), Error> {
    let mut hash = Sha1::new();
    hash.update(format!("{} {}\0", kind.str(), content.len()).as_bytes());
    hash.update(content);
    let really = hash.finish();
    if id.as_bytes() == really {
        return Ok(());
    }
    let really = Oid::from_bytes(&really)?;
    let text = format!("object hash mismatch: {id} is in truth {really}");
    Err(Error::new(ErrorCode::HashsumMismatch, ErrorClass::Odb, text))
}

/// An entry of a tree.
pub(super) struct Entry<'a> {
    /// As the tree has it, with the kind in front.
    pub mode: u32,
    pub name: &'a [u8],
    pub id: Oid,
}

impl Entry<'_> {
    /// What kind of file it is: the mode without permissions.
    pub(super) fn kind(&self) -> u32 {
        self.mode >> 12
    }
}

/// [`Entry::kind`] of a directory.
pub(super) const DIRECTORY: u32 = 0o4;
/// [`Entry::kind`] of a file.
pub(super) const FILE: u32 = 0o10;
/// [`Entry::kind`] of a symbolic link.
pub(super) const LINK: u32 = 0o12;
/// [`Entry::kind`] of a commit in another repository.
pub(super) const SUBMODULE: u32 = 0o16;

/// The entries of a tree, from its content; `None` for what is no entry, which is the last.
pub(super) struct Entries<'a>(&'a [u8]);

impl<'a> From<&'a [u8]> for Entries<'a> {
    fn from(tree: &'a [u8]) -> Self {
        Self(tree)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Option<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let entry = entry(self.0);
        self.0 = entry.as_ref().map_or(&[], |(_, rest)| rest);
        Some(entry.map(|(entry, _)| entry))
    }
}

fn entry(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let nul = bytes.iter().position(|byte| *byte == 0)?;
    let (head, rest) = bytes.split_at(nul);
    let (id, rest) = rest[1..].split_at_checked(20)?;
    let space = head.iter().position(|byte| *byte == b' ')?;
    let (mode, name) = (&head[..space], &head[space + 1..]);
    if mode.is_empty() || mode.len() > 6 {
        return None;
    }
    let mode = mode.iter().try_fold(0, |mode, digit| {
        matches!(digit, b'0'..=b'7').then(|| mode << 3 | u32::from(digit - b'0'))
    })?;
    Some((Entry { mode, name, id: Oid::from_bytes(id).ok()? }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_a_tree_and_of_what_is_none() {
        let id = [7; 20];
        let tree = [b"40000 d\0", &id[..], b"100644 a b\0", &id[..]].concat();
        let oid = Oid::from_bytes(&id).unwrap();
        let all: Vec<_> =
            Entries(&tree).flatten().map(|entry| (entry.mode, entry.name, entry.id)).collect();
        assert_eq!(all, [(0o40000, &b"d"[..], oid), (0o100_644, &b"a b"[..], oid)]);
        for cut in [1, 8, 20, tree.len() - 1] {
            assert!(Entries(&tree[..cut]).last().is_some_and(|last| last.is_none()), "{cut}");
        }
        for mode in ["", "8", "+644", "1234567"] {
            let tree = [mode.as_bytes(), b" a\0", &id[..]].concat();
            assert!(Entries(&tree).all(|entry| entry.is_none()), "{mode}");
        }
    }

    #[test]
    fn only_what_the_id_says_is_read() {
        let content = b"what is in a file\n";
        let id = Oid::hash_object(ObjectType::Blob, content).unwrap();
        check(id, ObjectType::Blob, content).unwrap();
        for (kind, content) in
            [(ObjectType::Blob, &b"what is in a fild\n"[..]), (ObjectType::Tree, content)]
        {
            let error = check(id, kind, content).unwrap_err();
            assert_eq!(error.code(), ErrorCode::HashsumMismatch);
            assert!(error.message().contains(&id.to_string()), "{error}");
        }
    }
}
