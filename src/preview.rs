//! Looks at what a plan would deploy, as far as the mirrors know it: no network, no lock.

use std::path::Path;

use crate::bundle::{self, Moment};
use crate::domain::{App, Revision, Verify};
use crate::engine::appspec;
use crate::host::submodules::foresee;
use crate::ledger::mirror_path;
use crate::mirror::lfs::Absent;
use crate::mirror::{self, CheckoutOptions};
use crate::plan::{Plan, Step};
use crate::report::preview::{Commit, Fetches, Preview, Previews, Submodule};
use crate::report::tame;

/// Commits that are listed of one app.
const COMMITS: usize = 10;
/// Characters of a subject.
const WIDTH: usize = 100;

/// What is known of each app that the plan deploys. Those that are current are not looked at.
pub fn of(plan: &Plan, cache: &Path) -> Previews {
    plan.deployments().map(|step| (step.app.name.clone(), one(step, cache))).collect()
}

fn one(step: &Step, cache: &Path) -> Preview {
    let app = &step.app;
    let verify = app.verify.as_ref().and_then(describe);
    let path = mirror_path(cache, &app.name);
    // A mirror that is not there, or damaged, knows nothing; `deploy` sees to it.
    let Some(mirror) = path.exists().then(|| mirror::Preview::open(&path).ok()).flatten() else {
        return Preview { verify, ..Preview::default() };
    };
    let between = mirror.between(step.from, step.revision, COMMITS);
    let commits = between.iter().flat_map(|between| &between.subjects);
    let commits =
        commits.map(|(id, subject)| Commit { id: *id, subject: tame(subject, WIDTH) }).collect();
    let scripts = scripts(&mirror, app, step.revision, Moment::Now).map(|now| {
        let before = step.from.and_then(|from| scripts(&mirror, app, from, Moment::Next));
        before.into_iter().flatten().chain(now).collect()
    });
    Preview {
        commits,
        commit_count: between.as_ref().and_then(|between| between.count),
        goes_back: between.is_some_and(|between| between.back),
        scripts,
        verify,
        fetches: fetches(app, &path, step.revision),
    }
}

/// What would be fetched besides the commit; nothing is known of what cannot be followed.
fn fetches(app: &App, mirror: &Path, revision: Revision) -> Fetches {
    let commit = mirror::commit_unlocked(mirror, revision).filter(|_| app.lfs || app.submodules);
    let Some(commit) = commit else { return Fetches::default() };
    let options = CheckoutOptions { export_ignore: app.export_ignore, ..Default::default() };
    let Ok((submodules, lfs)) = foresee(app, mirror, commit, &options) else {
        return Fetches::default();
    };
    let submodules = submodules.into_iter().filter(|one| !one.held).map(|one| Submodule {
        path: one.place,
        commit: one.commit,
        source: one.source.to_string(),
    });
    Fetches {
        submodules: submodules.collect(),
        lfs_objects: lfs.iter().map(Absent::count).sum(),
        lfs_bytes: lfs.iter().fold(0, |sum, absent| sum.saturating_add(absent.bytes())),
    }
}

/// The scripts that a commit's appspec names for this moment; `None` if it is not there.
fn scripts(
    mirror: &mirror::Preview,
    app: &App,
    commit: Revision,
    moment: Moment,
) -> Option<Vec<String>> {
    let usual = ["appspec.yml", "appspec.yaml"].map(Path::new);
    let names = app.appspec.as_deref().map_or_else(|| usual.to_vec(), |name| vec![name]);
    let (path, text) = names.into_iter().find_map(|name| {
        let path = app.path.join(name);
        Some((path.clone(), mirror.file(commit, &path)?))
    })?;
    let hooks = appspec::parse(&path, &text).hooks?;
    Some(bundle::scripts(app, &hooks, moment))
}

fn describe(verify: &Verify) -> Option<String> {
    let names = verify.reachable_from.iter().map(|name| format!("`{name}`"));
    let names: Vec<String> = names.collect();
    let signed = (!verify.signed_by.is_empty()).then(|| {
        let files = verify.signed_by.iter().map(|file| format!("`{}`", file.display()));
        format!("signed by a key of {}", files.collect::<Vec<_>>().join(", "))
    });
    let reachable = (!names.is_empty()).then(|| format!("reachable from {}", names.join(" or ")));
    let all: Vec<String> = signed.into_iter().chain(reachable).collect();
    (!all.is_empty()).then(|| all.join(" and "))
}
