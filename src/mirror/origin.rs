//! Where a commit comes from: its content as it was signed, and whether a branch or tag of the
//! remote leads to it.
//!
//! That a branch led to a commit is written down, as `refs/multideployer/verified/<branch>/<sha>`,
//! and then believed without asking again: a rollback needs no network, and a branch that was
//! moved by force later on does not take back what it once led to. The mirror is readable and
//! writable for its owner only, and is made anew when the app's source changes, with these refs
//! left behind.

use git2::{ObjectType, Oid};

use super::failure::Failure;
use super::repository::oid;
use super::{Mirror, Progress, Remote, fetch};
use crate::domain::{RefName, Revision};
use crate::verify::{Kind, Object};

/// What has been proven.
const VERIFIED: &str = "refs/multideployer/verified";

/// Whether a branch or tag leads to a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// This one does.
    From(RefName),
    /// None does.
    Not(Vec<Looked>),
}

/// A branch or tag that was looked at in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// Its full name.
    pub name: RefName,
    /// Where it is; `None` if the remote does not have it.
    pub tip: Option<Revision>,
    /// How many of its commits were looked at.
    pub commits: usize,
    /// Whether these are all it leads to.
    pub all: bool,
}

impl Mirror {
    /// A commit or annotated tag that is here, with its content.
    ///
    /// # Errors
    /// [`Failure::Damaged`] if it is not what its id says.
    pub fn object(&self, id: Revision) -> Result<Object, Failure> {
        let failed = |error| Failure::git("reading what was signed", &self.path, error);
        let objects = self.repository.odb().map_err(failed)?;
        let object = objects.read(oid(id)).map_err(failed)?;
        let damaged = |detail: String| Failure::Damaged { path: self.path.clone(), detail };
        let kind = match object.kind() {
            ObjectType::Commit => Kind::Commit,
            ObjectType::Tag => Kind::Tag,
            other => return Err(damaged(format!("{id} is a {other}"))),
        };
        let content = object.data().to_vec();
        // Whatever libgit2 is told about checking: all that follows rests on this.
        let really = Oid::hash_object(object.kind(), &content).map_err(failed)?;
        if really != oid(id) {
            return Err(damaged(format!("{id} is in truth {really}")));
        }
        Ok(Object { id, kind, content })
    }

    /// The annotated tag that `name` is at the remote, if it is one that leads to `commit`.
    ///
    /// # Errors
    /// Any of the network.
    pub fn annotated_tag(
        &mut self,
        name: &RefName,
        commit: Revision,
        remote: &Remote,
        progress: &dyn Fn(Progress),
    ) -> Result<Option<Object>, Failure> {
        let Some(tag) = fetch::tag(&self.repository, name, remote, progress)? else {
            return Ok(None);
        };
        let leads_to = self.fetch(tag, remote, progress)?.commit;
        let object = self.object(tag)?;
        Ok((leads_to == commit && object.kind == Kind::Tag).then_some(object))
    }

    /// The first of these branches and tags that was seen to lead to `commit` before.
    pub fn proven(&self, commit: Revision, from: &[RefName]) -> Option<RefName> {
        let known = |name: &&RefName| {
            let found = self.repository.find_reference(&proof(commit, name));
            found.is_ok_and(|found| found.target() == Some(oid(commit)))
        };
        from.iter().find(known).cloned()
    }

    /// Whether one of these branches and tags of the remote leads to `commit`, which is held.
    /// What was found out is written down for [`Mirror::proven`].
    ///
    /// # Errors
    /// Any of the network and the disk. That none leads to it is none.
    pub fn reach(
        &self,
        commit: Revision,
        from: &[RefName],
        remote: &Remote,
        progress: &dyn Fn(Progress),
    ) -> Result<Reach, Failure> {
        let reach = fetch::reach(&self.repository, commit, from, remote, progress)?;
        if let Reach::From(name) = &reach {
            let written =
                self.repository.reference(&proof(commit, name), oid(commit), true, "verify");
            if let Err(error) = written {
                progress(Progress::Warning(format!(
                    "that `{name}` leads to {} cannot be written down ({}), and has to be looked up again",
                    commit.short(),
                    error.message()
                )));
            }
        }
        Ok(reach)
    }
}

fn proof(commit: Revision, name: &RefName) -> String {
    let name = name.as_str().trim_start_matches("refs/");
    format!("{VERIFIED}/{name}/{commit}")
}
