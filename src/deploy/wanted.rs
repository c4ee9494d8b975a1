//! What is wanted of which app, and what the records say of it: what a plan is made from.

use std::collections::BTreeMap;
use std::path::Path;

use crate::domain::{AppName, Facts, OnFailure, Release, Revision};
use crate::error::{ExitCode, Failure};
use crate::host::{self, Run};
use crate::ledger::last_state::LastState;
use crate::manifest::Manifest;
use crate::plan::{Recorded, Selection, Wanted};
use crate::settings::Settings;

/// What this host is.
pub fn facts(settings: &Settings, manifest: &Manifest) -> Facts {
    let mut labels = manifest.labels.clone();
    labels.extend(settings.labels.iter().cloned());
    Facts {
        deployment_group: settings.environment.text("DEPLOYMENT_GROUP_NAME"),
        application: settings.environment.text("APPLICATION_NAME"),
        hostname: host::hostname(),
        labels,
    }
}

/// The selection by `--app`, `--force` and `--on-failure`.
pub(crate) fn select(
    settings: &Settings,
    manifest: &Manifest,
    names: &[String],
    force: bool,
    on_failure: Option<OnFailure>,
) -> Result<Selection, Failure> {
    let mut only = Vec::new();
    for name in names {
        let known = manifest.apps.iter().find(|app| app.name.as_str() == name);
        let Some(app) = known else {
            let all: Vec<&str> = manifest.apps.iter().map(|app| app.name.as_str()).collect();
            let near = all
                .iter()
                .map(|known| (strsim::damerau_levenshtein(name, known), known))
                .min()
                .filter(|(distance, _)| *distance <= 2);
            let hint = match near {
                Some((_, near)) => format!("did you mean `{near}`?"),
                None => format!("it has: {}", all.join(", ")),
            };
            return Err(Failure::new(
                ExitCode::Configuration,
                format!("the manifest has no app {name:?}"),
            )
            .hint(hint));
        };
        only.push(app.name.clone());
    }
    let facts = facts(settings, manifest);
    let (rollback, policy) = (false, manifest.policy.on_failure);
    Ok(Selection { only, force, rollback, facts, on_failure, policy })
}

/// What the records say of each app of the manifest.
pub fn recorded(
    manifest: &Manifest,
    cache: &Path,
    state: &LastState,
) -> Result<BTreeMap<AppName, Recorded>, Failure> {
    manifest
        .apps
        .iter()
        .map(|app| Ok((app.name.clone(), recorded_of(&app.name, cache, state)?)))
        .collect()
}

/// What the records say of one app.
pub fn recorded_of(app: &AppName, cache: &Path, state: &LastState) -> Result<Recorded, Failure> {
    let mirror = crate::ledger::mirror_path(cache, app);
    let mut recorded = crate::ledger::read(&mirror).map_err(|error| {
        Failure::from_error(ExitCode::Unfit, &error)
            .context(format!("cannot read the records of {app}"))
            .hint("run as the user that deploys, usually root")
    })?;
    if let Some(entry) = state.get(app.as_str()) {
        recorded.last_state = Some(entry.release.clone());
        recorded.source.clone_from(&entry.source);
    }
    Ok(recorded)
}

/// The commit of each app's release. Apps that are not asked for are not looked up: their
/// release, if it is a name, stays what is deployed.
pub(crate) fn resolve_all(
    manifest: &Manifest,
    selection: &Selection,
    run: &Run<'_>,
) -> Result<Vec<Wanted>, Failure> {
    manifest
        .apps
        .iter()
        .map(|app| {
            let mirror = crate::ledger::mirror_path(run.cache, &app.name);
            let unreadable = |error: std::io::Error| {
                Failure::from_error(ExitCode::Unfit, &error)
                    .context(format!("cannot read the records of {}", app.name))
            };
            let revision = match &app.release {
                Release::Commit(revision) => {
                    crate::ledger::commit_of(&mirror, *revision).map_err(unreadable)?
                }
                Release::Name(name) if selection.leaves_alone(app).is_none() => {
                    host::resolve(run, app, name).map_err(|failure| {
                        failure.context(format!("cannot look up `{name}` for {}", app.name))
                    })?
                }
                Release::Name(_) => {
                    let known = crate::ledger::read(&mirror).map_err(unreadable)?;
                    known.deployed.unwrap_or(Revision::from_bytes([0; 20]))
                }
            };
            Ok(Wanted { app: app.clone(), revision })
        })
        .collect()
}
