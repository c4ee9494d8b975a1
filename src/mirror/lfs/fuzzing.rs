//! What is fuzzed here; see `fuzzing` at the root.

use super::batch::{self, No};
use super::pointer::{Object, ObjectId};
use super::{Endpoint, endpoint};
use crate::domain::RepoUrl;

/// Answers of the batch API about objects that are in the corpus, and one that is not.
pub(in crate::mirror) fn answer(text: &[u8]) {
    let objects: Vec<_> =
        [0xaa, 0xbb, 0xcc].map(|byte| Object { oid: ObjectId::new([byte; 32]), size: 5 }).into();
    let Ok(said) = batch::read(text, &objects) else { return };
    assert_eq!(said.len(), objects.len());
    for one in said {
        match one {
            Ok(address) => {
                assert!(!address.authority.contains(['@', '/', ' ']), "{address:?}");
                assert!(!address.authority.contains(char::is_uppercase), "{address:?}");
                assert!(address.target.starts_with(['/', '?']), "{address:?}");
            }
            Err(No::Missing(words) | No::Refused(_, words)) => {
                assert!(!words.contains(char::is_control), "{words:?}");
            }
            Err(No::Size(size)) => assert_ne!(size, 5),
            Err(No::Strange(_)) => {}
        }
    }
}

/// Answers of `git-lfs-authenticate`.
pub(in crate::mirror) fn authenticated(text: &[u8]) {
    if let Ok(Endpoint { url: RepoUrl::Https { authority, path }, .. }) =
        endpoint::authenticated(text)
    {
        assert!(!authority.contains(['@', '/', ' ']) && !path.contains('?'), "{authority}/{path}");
    }
}

/// `.lfsconfig`.
pub(in crate::mirror) fn lfs_url(text: &str) -> Option<String> {
    endpoint::lfs_url(text).ok().flatten()
}
