//! What the wanted commits need from elsewhere, as far as the mirrors know them: the servers of
//! submodules, and whether an object of Git LFS is to be had.

use super::super::Patient;
use super::Target;
use super::judge::unless_ended;
use crate::domain::{App, Release, RepoUrl, Revision};
use crate::host::Run;
use crate::host::lfs::{self, Place};
use crate::host::submodules::foresee;
use crate::ledger::mirror_path;
use crate::mirror::lfs::{Server, ask};
use crate::mirror::{self, CheckoutOptions, Remote};
use crate::report::doctor::Finding;

/// The wanted commit of an app, if it is in its mirror.
fn known(patient: &Patient<'_>, app: &App) -> Option<Revision> {
    let Release::Commit(wanted) = &app.release else { return None };
    mirror::commit_unlocked(&mirror_path(&patient.settings.cache_dir, &app.name), *wanted)
}

/// The submodules of these apps, each as an app of its own.
pub(in crate::doctor) fn submodules(patient: &Patient<'_>, apps: &[&App]) -> Vec<App> {
    let mut found: Vec<App> = Vec::new();
    for app in apps.iter().filter(|app| app.submodules) {
        let Some(commit) = known(patient, app) else { continue };
        let mirror = mirror_path(&patient.settings.cache_dir, &app.name);
        let options =
            CheckoutOptions { export_ignore: app.export_ignore, ..CheckoutOptions::default() };
        // What cannot be followed is for a deployment to say.
        let Ok((submodules, _)) = foresee(app, &mirror, commit, &options) else { continue };
        for one in submodules {
            let release = Release::Commit(one.commit);
            let as_app = App {
                source: one.source,
                release,
                submodules: false,
                lfs: false,
                ..(*app).clone()
            };
            let same = |known: &App| known.name == as_app.name && known.source == as_app.source;
            if as_app.source != app.source && !found.iter().any(same) {
                found.push(as_app);
            }
        }
    }
    found
}

/// Whether the server says where an object of the wanted commit is. Nothing if no app wants that.
pub(super) fn lfs(
    patient: &Patient<'_>,
    target: &Target<'_>,
    remote: &Remote,
    run: &Run<'_>,
) -> Option<Finding> {
    let app = target.apps.iter().find(|app| app.lfs)?;
    let url = &app.source;
    let Some(commit) = known(patient, app) else {
        let text = format!("{url}: its objects are not known before the commit is fetched");
        return Some(Finding::not_checked("lfs", text));
    };
    let mirror = mirror_path(&patient.settings.cache_dir, &app.name);
    let options = CheckoutOptions {
        export_ignore: app.export_ignore,
        lfs: lfs::wanted(app, std::path::Path::new(""), false),
        ..CheckoutOptions::default()
    };
    let tree = match mirror::survey_unlocked(&mirror, commit, &options) {
        Ok(tree) => tree,
        Err(failure) => return Some(unless_ended("lfs", failure)),
    };
    let file = tree.lfs.first()?;
    let place = match lfs::place(run.hosts, app, &mirror, commit) {
        Ok(place) => place,
        Err(failure) => return Some(Finding::failure("lfs", &failure)),
    };
    let ways = |url: &RepoUrl| lfs::way(run, url, &|_| ());
    let there;
    let server = match &place {
        Place::Batch(_, bound) if bound != url => {
            let text = format!("{url}: its `.lfsconfig` leads to {bound}, which is not asked");
            return Some(Finding::not_checked("lfs", text));
        }
        Place::Batch(batch, _) => {
            there = Remote { url: batch.clone(), ..remote.clone() };
            Server::Batch(&there)
        }
        Place::Repository => Server::Repository(remote),
    };
    Some(match ask(&mirror, file, &server, &ways) {
        Ok(by) => {
            let path = file.path.display();
            Finding::ok("lfs", format!("{by}: has the content of {path}"))
                .fact("url", by.to_string())
        }
        Err(failure) => unless_ended("lfs", failure),
    })
}
