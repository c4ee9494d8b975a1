//! `rollback`: the same run as `deploy`, towards what was deployed before, for some apps.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cli::{DeployArgs, RollbackArgs};
use crate::deploy::Answer;
use crate::domain::{AppName, Release, Revision};
use crate::error::{ExitCode, Failure};
use crate::ledger::{self, history};
use crate::manifest::Manifest;
use crate::mirror;
use crate::plan::{Recorded, Selection};
use crate::process::Interrupt;
use crate::settings::Settings;

/// Where an app is to go back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    app: String,
    /// The beginning of a commit id, as it was typed; none is the last good commit before.
    revision: Option<String>,
}

impl Target {
    /// `APP` or `APP@SHA`. An app's name may hold an `@` itself, but then no commit id is
    /// after it.
    fn parse(text: &str) -> Self {
        let hex = |part: &&str| {
            (4..=40).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit())
        };
        match text.rsplit_once('@').filter(|(_, revision)| hex(revision)) {
            Some((app, revision)) => {
                Self { app: app.to_owned(), revision: Some(revision.to_ascii_lowercase()) }
            }
            None => Self { app: text.to_owned(), revision: None },
        }
    }
}

/// `rollback`.
pub fn rollback(settings: &Settings, args: &RollbackArgs, interrupt: &Interrupt) -> Answer {
    let targets: Vec<Target> = args.targets.iter().map(|text| Target::parse(text)).collect();
    let deploy = DeployArgs {
        apps: targets.iter().map(|target| target.app.clone()).collect(),
        offline: args.offline,
        lock_wait: args.lock_wait,
        ..DeployArgs::default()
    };
    crate::deploy::run(settings, &deploy, Some(&targets), interrupt)
}

/// Puts the commit to go back to in the place of each target's release. Answers with the
/// releases that the manifest goes on to want.
///
/// # Errors
/// An app is not for this host, nothing good is recorded of it, or its commit is not among what
/// was deployed.
pub(crate) fn aim(
    manifest: &mut Manifest,
    targets: &[Target],
    selection: &Selection,
    recorded: &BTreeMap<AppName, Recorded>,
    cache: &Path,
) -> Result<Vec<(AppName, Release)>, Failure> {
    let mut still_wanted = Vec::new();
    for target in targets {
        let Some(app) = manifest.apps.iter_mut().find(|app| app.name.as_str() == target.app) else {
            continue;
        };
        if let Some(reason) = selection.leaves_alone(app) {
            return Err(refused(&app.name, &reason.describe()));
        }
        let known = recorded.get(&app.name).cloned().unwrap_or_default();
        let path = ledger::mirror_path(cache, &app.name);
        let entries = if path.exists() {
            history::read(&mirror::open_read_only(&path)?)?
        } else {
            Vec::new()
        };
        let good: Vec<Revision> = entries
            .iter()
            .filter(|entry| entry.failure.is_none())
            .map(|entry| entry.to)
            .chain(known.previous)
            .collect();
        let revision = match &target.revision {
            None => before(&known, &good).ok_or_else(|| {
                refused(&app.name, "nothing good is recorded that it could go back to")
            })?,
            Some(text) => named(text, &known, &good).map_err(|why| refused(&app.name, &why))?,
        };
        let release = std::mem::replace(&mut app.release, Release::Commit(revision));
        if release != app.release {
            still_wanted.push((app.name.clone(), release));
        }
    }
    Ok(still_wanted)
}

/// The last good commit that is not what runs now; after a failed attempt that is the one
/// recorded as deployed. `good` is newest first.
fn before(known: &Recorded, good: &[Revision]) -> Option<Revision> {
    match (known.attempted, known.deployed) {
        (Some(attempted), Some(deployed)) if attempted != deployed => Some(deployed),
        (_, now) => good.iter().copied().find(|revision| Some(*revision) != now),
    }
}

/// The one commit that was deployed here and begins so. A whole id may be any commit.
fn named(text: &str, known: &Recorded, good: &[Revision]) -> Result<Revision, String> {
    if let Ok(revision) = text.parse() {
        return Ok(revision);
    }
    let mut found: Vec<Revision> = good
        .iter()
        .copied()
        .chain(known.deployed)
        .filter(|revision| revision.to_string().starts_with(text))
        .collect();
    found.sort_unstable();
    found.dedup();
    match found[..] {
        [revision] => Ok(revision),
        [] => Err(format!("no commit that was deployed here begins with {text}")),
        _ => Err(format!("{} commits that were deployed here begin with {text}", found.len())),
    }
}

fn refused(app: &AppName, why: &str) -> Failure {
    Failure::new(ExitCode::Configuration, format!("cannot roll back {app}: {why}")).hint(format!(
        "`multideployer history {app}` lists what was deployed; a whole commit id may be any"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(n: u8) -> Revision {
        Revision::from_bytes([n; 20])
    }

    #[test]
    fn targets_are_apps_with_or_without_a_commit() {
        let target = |text: &str| {
            let Target { app, revision } = Target::parse(text);
            (app, revision.unwrap_or_default())
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(target("api"), pair("api", ""));
        assert_eq!(target("api@91AB77C"), pair("api", "91ab77c"));
        assert_eq!(target("a@b@91ab"), pair("a@b", "91ab"));
        assert_eq!(target("me@home"), pair("me@home", ""));
    }

    #[test]
    fn back_is_the_last_good_commit_that_does_not_run_now() {
        let good = [revision(3), revision(3), revision(2), revision(1)];
        let known = |attempted, deployed| Recorded {
            attempted,
            deployed: Some(revision(deployed)),
            ..Recorded::default()
        };
        assert_eq!(before(&known(None, 3), &good), Some(revision(2)));
        assert_eq!(before(&known(Some(revision(4)), 3), &good), Some(revision(3)));
        assert_eq!(before(&known(Some(revision(3)), 3), &good), Some(revision(2)));
        assert_eq!(before(&known(None, 3), &good[..2]), None);
        assert_eq!(before(&Recorded::default(), &[]), None);
        assert_eq!(named("0202", &known(None, 3), &good), Ok(revision(2)));
        assert_eq!(named(&"09".repeat(20), &known(None, 3), &good), Ok(revision(9)));
        assert!(named("0909", &known(None, 3), &good).is_err());
        assert!(named("0", &known(None, 3), &good).is_err());
    }
}
