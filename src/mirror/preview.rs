//! What a mirror knows of a commit before it is deployed: read without a lock and without the
//! network.

use std::collections::HashSet;
use std::path::Path;

use git2::{ObjectType, Repository, Sort};

use super::repository::{oid, revision, shallow};
use super::{Failure, open_read_only};
use crate::domain::Revision;

/// Larger files are not read.
const MOST_BYTES: usize = 8 << 20;
/// Commits that are looked at: a mirror that somebody filled by hand may have very many.
const MOST_COMMITS: usize = 5000;

/// An open mirror that is only looked at.
pub struct Preview {
    repository: Repository,
}

/// What lies between two commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Between {
    /// The first line of each commit's message, the newest first; at most as many as asked for.
    pub subjects: Vec<(Revision, String)>,
    /// How many there are, if the mirror has all of them.
    pub count: Option<usize>,
    /// They are not added but taken back.
    pub back: bool,
}

impl Preview {
    /// # Errors
    /// There is no mirror, or it is damaged.
    pub fn open(mirror: &Path) -> Result<Self, Failure> {
        Ok(Self { repository: open_read_only(mirror)? })
    }

    /// Whether the mirror has the commit, or the tag, itself; its tree may be missing.
    pub fn has(&self, commit: Revision) -> bool {
        self.commit(commit).is_some()
    }

    fn commit(&self, id: Revision) -> Option<git2::Commit<'_>> {
        self.repository.find_object(oid(id), None).ok()?.peel_to_commit().ok()
    }

    /// A file of a commit; `None` if it has none there, or the mirror has not got it.
    pub fn file(&self, commit: Revision, path: &Path) -> Option<Vec<u8>> {
        let entry = self.commit(commit)?.tree().ok()?.get_path(path).ok()?;
        let objects = self.repository.odb().ok()?;
        let (size, kind) = objects.read_header(entry.id()).ok()?;
        if kind != ObjectType::Blob || size > MOST_BYTES || entry.filemode() == 0o120_000 {
            return None;
        }
        Some(super::objects::read(&objects, entry.id()).ok()?.data().to_vec())
    }

    /// What lies between two commits, at most `most` of it; the new one alone if it is not
    /// known how they hang together. A mirror has the history only where it was needed.
    pub fn between(&self, from: Option<Revision>, to: Revision, most: usize) -> Option<Between> {
        let to = self.commit(to)?;
        let from = from.and_then(|from| self.commit(from)).filter(|from| from.id() != to.id());
        let known = from.as_ref().and_then(|from| {
            let whole = |from, to| self.range(from, to, most).filter(|it| it.count.is_some());
            let back = || Some(Between { back: true, ..whole(&to, from)? });
            whole(from, &to).or_else(back)
        });
        Some(known.unwrap_or_else(|| Between {
            subjects: vec![(revision(to.id()), subject(&to))],
            count: None,
            back: false,
        }))
    }

    /// The commits that lead from one to the other; without count if there is a gap on the way,
    /// or one does not lead to the other.
    fn range(
        &self,
        from: &git2::Commit<'_>,
        to: &git2::Commit<'_>,
        most: usize,
    ) -> Option<Between> {
        let ends: HashSet<_> = shallow(&self.repository).ok()?.into_iter().map(oid).collect();
        let mut walk = self.repository.revwalk().ok()?;
        walk.set_sorting(Sort::TOPOLOGICAL | Sort::TIME).ok()?;
        walk.push(to.id()).ok()?;
        walk.hide(from.id()).ok()?;
        let (mut subjects, mut count, mut whole) = (Vec::new(), 0, false);
        for id in walk.take(MOST_COMMITS + 1) {
            let commit = self.repository.find_commit(id.ok()?).ok()?;
            // A gap, or a beginning: what leads here from `from` is not all there is.
            if ends.contains(&commit.id()) || count == MOST_COMMITS {
                return Some(Between { subjects, count: None, back: false });
            }
            whole |= commit.parent_ids().any(|parent| parent == from.id());
            if subjects.len() < most {
                subjects.push((revision(commit.id()), subject(&commit)));
            }
            count += 1;
        }
        Some(Between { subjects, count: whole.then_some(count), back: false })
    }
}

fn subject(commit: &git2::Commit<'_>) -> String {
    let bytes = commit.summary_bytes().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}
