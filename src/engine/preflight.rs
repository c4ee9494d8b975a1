//! What is found out about a new revision before the first event, so that a bad one does not
//! stop the running one.

use std::path::Path;

use super::appspec::{AppSpec, PREVIOUS_REVISION_EVENTS};
use super::install;
use super::lifecycle;
use super::problem::Problem;
use super::revision::{self, Found};
use crate::diagnostic::Diagnostic;

/// What a validation failure is said to have happened in, as no event has begun.
pub(super) const VALIDATION: &str = "Validation";

/// A new revision, in a folder.
pub(super) struct New<'a> {
    /// Where it lies now.
    pub(super) folder: &'a Path,
    /// The appspec's name, if it was given.
    pub(super) appspec: Option<&'a str>,
    /// The events that were named.
    pub(super) named: &'a [String],
    /// The events that will run, in order.
    pub(super) events: &'a [String],
    /// Where its archive will be, for what is printed.
    pub(super) archive: &'a Path,
    /// For what is asked of [`install`], as it is there.
    pub(super) file_exists: &'a str,
    pub(super) instructions: &'a Path,
    pub(super) group: &'a str,
    pub(super) cwd: &'a Path,
}

/// Checks the whole appspec, the hooks' names, that scripts are there, and the names and
/// types of what is to be installed. Gives the valid appspec and warnings.
///
/// # Errors
/// The first kind of thing that is wrong, with all of that kind.
pub(super) fn check(new: &New<'_>) -> Result<(AppSpec, Vec<String>), Problem> {
    let found = revision::read(new.folder, new.appspec, VALIDATION)?;
    let Some(spec) = &found.parsed.spec else { return Err(revision::invalid(VALIDATION, &found)) };
    let mut warnings = revision::lines(&found.parsed.findings);
    hook_names(VALIDATION, &found, spec, new.named)?;
    scripts(new, spec, &found, &mut warnings)?;
    installable(new, spec)?;
    Ok((spec.clone(), warnings))
}

/// Every hook belongs to an event that can happen, and every named event that is not a
/// default one has a hook.
///
/// # Errors
/// Those that do not.
pub(super) fn hook_names(
    event: &str,
    found: &Found,
    spec: &AppSpec,
    named: &[String],
) -> Result<(), Problem> {
    let possible = lifecycle::possible(named);
    let unknown = spec.unknown_events(&found.path, &possible);
    if !unknown.is_empty() {
        let names: Vec<&str> = spec
            .hooks
            .iter()
            .map(|hook| hook.event.as_str())
            .filter(|name| !possible.iter().any(|p| p == name))
            .collect();
        let stdout = format!("{} file contains unknown lifecycle events: {names:?}", found.name);
        let mut lines = revision::lines(&unknown);
        lines.push(format!("{event} failed: {stdout}"));
        return Err(Problem::Other { stdout: Some(stdout), lines });
    }
    let absent: Vec<&str> = lifecycle::custom(named)
        .map(String::as_str)
        .filter(|name| !spec.hooks.iter().any(|hook| hook.event == **name))
        .collect();
    if absent.is_empty() {
        return Ok(());
    }
    let text = format!(
        "You specified a lifecycle event which is not a default one and doesn't exist in your {} file: {}",
        found.name,
        absent.join(",")
    );
    Err(Problem::told(event, text))
}

/// Every script is there. One that `BeforeInstall` may still make is only warned about.
fn scripts(
    new: &New<'_>,
    spec: &AppSpec,
    found: &Found,
    warnings: &mut Vec<String>,
) -> Result<(), Problem> {
    let place = |wanted: &str| new.events.iter().position(|event| event == wanted);
    let before_install = place(lifecycle::BEFORE_INSTALL)
        .filter(|_| !spec.scripts(lifecycle::BEFORE_INSTALL).is_empty());
    let mut missing: Option<Problem> = None;
    for hook in &spec.hooks {
        let runs = place(&hook.event);
        let of_previous = PREVIOUS_REVISION_EVENTS.contains(&hook.event.as_str());
        for script in spec.scripts(&hook.event) {
            if new.folder.join(script.location.trim_start_matches('/')).exists() {
                continue;
            }
            let message = format!("the script `{}` of {} is missing", script.location, hook.event);
            let finding = Diagnostic::new(
                crate::diagnostic::Severity::Error,
                &found.path,
                Some(script.at),
                message,
            );
            let made_before = match (before_install, runs) {
                // These run when this revision is replaced; `BeforeInstall` is over then.
                (Some(_), _) if of_previous => true,
                (Some(first), Some(this)) => first < this,
                _ => false,
            };
            if made_before || (runs.is_none() && !of_previous) {
                let hint = if runs.is_none() {
                    "this deployment does not run it"
                } else {
                    "BeforeInstall has to make it"
                };
                warnings.push(format!("warning: {finding}; {hint}"));
            } else if missing.is_none() {
                missing = Some(Problem::Script {
                    path: script_path(new.archive, &script.location),
                    lines: vec![
                        format!("error: {finding}"),
                        format!(
                            "{} failed: {} does not exist in the bundle",
                            hook.event, script.location
                        ),
                    ],
                });
            }
        }
    }
    missing.map_or(Ok(()), Err)
}

/// A script's path as it is printed.
pub(super) fn script_path(archive: &Path, location: &str) -> String {
    format!("{}/{}", archive.display(), location.trim_start_matches('/'))
}

/// Refuses what Install would refuse in any case.
fn installable(new: &New<'_>, spec: &AppSpec) -> Result<(), Problem> {
    let request = install::Request {
        archive: new.folder,
        appspec: spec,
        file_exists: new.file_exists,
        instructions: new.instructions,
        group: new.group,
        cwd: new.cwd,
    };
    let conflicts = install::foresee(&request);
    if conflicts.is_empty() {
        return Ok(());
    }
    let error = install::Error::Refused(conflicts);
    let lines = vec![format!("{VALIDATION} failed: {error}")];
    Err(Problem::Other { stdout: error.stdout_error(), lines })
}
