//! What is known of a deployment that has not been begun: pure data for `plan`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::{human, tame};
use crate::domain::{AppName, Revision};

/// Submodules that are named one by one.
const SHOWN: usize = 10;

/// Of each app that would be deployed.
pub type Previews = BTreeMap<AppName, Preview>;

/// What is known of one app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// The commits that would come, or go, the newest first; the wanted one alone where the
    /// mirror does not know how it hangs together with the deployed one; none if it is not
    /// there.
    pub commits: Vec<Commit>,
    /// How many there are, where that is known.
    pub commit_count: Option<usize>,
    /// They would go: the wanted commit is older than the deployed one.
    pub goes_back: bool,
    /// The scripts that would run, as `Event script`, in their order; unknown as long as the
    /// commit is not in the mirror.
    pub scripts: Option<Vec<String>>,
    /// What the commit has to prove.
    pub verify: Option<String>,
    /// What would be fetched besides the commit, as far as the mirror knows.
    pub fetches: Fetches,
}

/// What a commit needs that is not in the mirror.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Fetches {
    /// Submodules; those in them are not known before they are there.
    pub submodules: Vec<Submodule>,
    /// Objects of Git LFS.
    pub lfs_objects: usize,
    /// Their bytes.
    pub lfs_bytes: u64,
}

/// A submodule at a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Submodule {
    /// Where it is in the tree.
    pub path: PathBuf,
    /// The commit.
    pub commit: Revision,
    /// Where it would come from.
    pub source: String,
}

/// A commit and the first line of its message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Commit {
    /// Its id.
    pub id: Revision,
    /// Somebody else's text.
    pub subject: String,
}

impl Preview {
    /// For people, a line each.
    pub fn lines(&self) -> Vec<String> {
        let sign = match (self.goes_back, self.commit_count) {
            (true, _) => "- ",
            (false, Some(_)) => "+ ",
            (false, None) => "",
        };
        let commits = self.commits.iter();
        let mut lines: Vec<String> = commits
            .map(|commit| format!("{sign}{} {}", commit.id.short(), commit.subject))
            .collect();
        if let Some(more) = self.commit_count.and_then(|all| all.checked_sub(self.commits.len()))
            && more > 0
        {
            lines.push(format!("{sign}and {more} more"));
        }
        match self.scripts.as_deref() {
            None => lines.push("not in the mirror yet: it would be fetched".to_owned()),
            Some([]) => lines.push("runs no script".to_owned()),
            Some(scripts) => lines.push(format!("runs {}", scripts.join(", "))),
        }
        let Fetches { submodules, lfs_objects, lfs_bytes } = &self.fetches;
        lines.extend(submodules.iter().take(SHOWN).map(|Submodule { path, commit, source }| {
            let path = tame(&path.to_string_lossy(), 100);
            format!("fetches the submodule {path} at {} from {source}", commit.short())
        }));
        if let Some(more) = submodules.len().checked_sub(SHOWN + 1) {
            lines.push(format!("fetches {} more submodules", more + 1));
        }
        if *lfs_objects > 0 {
            let objects = if *lfs_objects == 1 { "object" } else { "objects" };
            let bytes = human::bytes(*lfs_bytes);
            lines.push(format!("downloads {lfs_objects} Git LFS {objects}, {bytes}"));
        }
        lines.extend(self.verify.iter().map(|verify| format!("has to be {verify}")));
        lines
    }
}
