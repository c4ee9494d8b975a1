//! What codedeploy-local keeps of an app that is not deployed any more.
//!
//! Nobody else removes it: codedeploy-local keeps the last revisions of each deployment group
//! for ever. The folder with the revisions goes, and the two records that name revisions in
//! it: with them and without the folder every later deployment of the group fails (1.x) or
//! warns (the built-in one).
//!
//! The list `GROUP-cleanup` stays. It names the files that are installed still, and a returning
//! app needs it: its first deployment removes what is on the list, and without it would find
//! its own files "existing already" and be refused. It is small, and `GROUP-install.json`
//! beside it explains it.
//!
//! Of a group only its own name is looked for, which no other app can have, and no link is
//! followed below the `root_dir`: a link in the place of a folder is left alone.

use std::io;
use std::path::{Path, PathBuf};

use crate::domain::AppName;

/// Below the `root_dir`.
const RECORDS: &str = "deployment-instructions";

/// What there is of one app, in the order in which it has to go: the records first, so that
/// none is left that names something that is gone.
///
/// # Errors
/// A directory is there and cannot be looked at.
pub fn remains(root: &Path, app: &AppName) -> io::Result<Vec<PathBuf>> {
    let group = app.deployment_group();
    let mut found = Vec::new();
    let records = root.join(RECORDS);
    if is(&records, std::fs::Metadata::is_dir)? {
        for record in ["last_successful_install", "most_recent_install"] {
            let path = records.join(format!("{group}_{record}"));
            if is(&path, std::fs::Metadata::is_file)? {
                found.push(path);
            }
        }
    }
    let revisions = root.join(group);
    if is(&revisions, std::fs::Metadata::is_dir)? {
        found.push(revisions);
    }
    Ok(found)
}

/// Whether something is there, and of this kind itself: a link is not.
fn is(path: &Path, kind: impl Fn(&std::fs::Metadata) -> bool) -> io::Result<bool> {
    match fs_err::symlink_metadata(path) {
        Ok(about) => Ok(kind(&about)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_groups_own_and_never_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let app: AppName = "api".parse().unwrap();
        assert!(remains(&at("nowhere"), &app).unwrap().is_empty());
        let group = "api-local-deployment-application";
        for directory in [&format!("root/{group}/d-1"), "root/other", "linked", "real"] {
            fs_err::create_dir_all(at(directory)).unwrap();
        }
        fs_err::create_dir(at("root/deployment-instructions")).unwrap();
        let record = |name: &str| at(&format!("root/deployment-instructions/{name}"));
        for end in ["_last_successful_install", "_most_recent_install", "-cleanup", "-install.json"]
        {
            fs_err::write(record(&format!("{group}{end}")), "x").unwrap();
            fs_err::write(record(&format!("my{group}{end}")), "x").unwrap();
        }
        let found = remains(&at("root"), &app).unwrap();
        let last = record(&format!("{group}_last_successful_install"));
        let recent = record(&format!("{group}_most_recent_install"));
        assert_eq!(found, [last, recent, at("root").join(group)]);

        std::os::unix::fs::symlink(at("real"), at("linked").join(group)).unwrap();
        std::os::unix::fs::symlink(at("root").join(RECORDS), at("linked").join(RECORDS)).unwrap();
        assert!(remains(&at("linked"), &app).unwrap().is_empty());
    }
}
