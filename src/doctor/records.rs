//! What is recorded, who is at work, and what was left behind.

use std::path::{Path, PathBuf};

use super::Patient;
use crate::deploy::recorded_of;
use crate::domain::App;
use crate::ledger::{self, last_state::LastState, lock};
use crate::mirror;
use crate::report::doctor::{Finding, Section};

/// The lock, the records of each app, and leftovers.
pub(super) fn section(patient: &Patient<'_>, apps: &[&App]) -> Section {
    let mut section = Section::new("records");
    let (finding, held) = the_lock(patient);
    section.add(finding);
    let state = match LastState::load(&patient.settings.last_state()) {
        Ok((state, trouble)) => {
            section.findings.extend(trouble.map(|trouble| {
                Finding::warning("last_state", trouble)
                    .remedy("the next deployment sets it aside and goes by the mirrors' refs")
            }));
            Some(state)
        }
        Err(ledger::Error::Io(error)) => {
            section.add(patient.unseen("last_state", &error));
            None
        }
        Err(error) => {
            section.add(Finding::failure("last_state", &error.into()));
            None
        }
    };
    if let Some(state) = state {
        let before = section.findings.len();
        let mut recorded = 0;
        for app in apps {
            match of_app(patient, app, &state) {
                Ok(there) => recorded += usize::from(there),
                Err(finding) => section.add(finding),
            }
        }
        if section.findings.len() == before {
            let of = apps.len();
            section.add(
                Finding::ok("records", format!("{recorded} of {of} apps are recorded as deployed"))
                    .fact("recorded", recorded),
            );
        }
    }
    if !held {
        section.add(leftovers(&patient.settings.cache_dir));
    }
    section
}

fn the_lock(patient: &Patient<'_>) -> (Finding, bool) {
    match lock::holder(&patient.settings.state_dir) {
        Ok(None) => (Finding::ok("lock", "free"), false),
        Ok(Some(holder)) => {
            let finding = Finding::warning("lock", format!("held by {holder}"))
                .remedy("a deployment waits for its end, five minutes unless --lock-wait says otherwise")
                .fact("holder", holder);
            (finding, true)
        }
        Err(error) => (patient.unseen("lock", &error), false),
    }
}

/// Whether anything is recorded of an app, or what is wrong with it.
fn of_app(patient: &Patient<'_>, app: &App, state: &LastState) -> Result<bool, Finding> {
    let name = &app.name;
    let path = ledger::mirror_path(&patient.settings.cache_dir, name);
    if let Err(error) = std::fs::read_dir(&path)
        && error.kind() == std::io::ErrorKind::PermissionDenied
        && !patient.deploys
    {
        return Err(patient.unseen("records", &error));
    }
    let recorded = recorded_of(name, &patient.settings.cache_dir, state)
        .map_err(|failure| Finding::failure("records", &failure))?;
    if let Some(damage) = recorded.damaged {
        return Err(Finding::warning("records", format!("{name}: {damage}"))
            .remedy("the next deployment deploys the app again and records it anew"));
    }
    if path.is_dir()
        && let Err(failure) = mirror::open_read_only(&path)
    {
        return Err(Finding::warning(
            "records",
            format!("{name}: the mirror cannot be opened: {failure}"),
        )
        .remedy("the next deployment makes it anew; if it belongs to another user, delete it"));
    }
    if let Some(attempted) = recorded.attempted {
        let short = attempted.short();
        return Err(Finding::warning(
            "records",
            format!("{name}: the attempt at {short} did not succeed"),
        )
        .remedy(format!(
            "`multideployer status {name}` says why; the next deployment tries again"
        )));
    }
    Ok(recorded.deployed.is_some() || recorded.last_state.is_some())
}

/// What killed runs left in the cache.
fn leftovers(cache: &Path) -> Finding {
    let entries = |directory: PathBuf| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    // What cannot be read is said of the directory itself.
    let worktrees = |app: PathBuf| mirror::worktrees(&app).unwrap_or_default();
    let mut found: Vec<PathBuf> =
        entries(cache.join("worktrees")).into_iter().flat_map(worktrees).collect();
    found.extend(
        entries(cache.join("mirrors"))
            .into_iter()
            .filter(|path| path.extension().is_some_and(|end| end == "rebuild" || end == "old")),
    );
    match found.as_slice() {
        [] => Finding::ok("leftovers", "none"),
        [first, ..] => {
            let count = found.len();
            Finding::warning(
                "leftovers",
                format!("{count} of runs that were killed, such as `{}`", first.display()),
            )
            .remedy("nothing has to be done: the next deployment removes them")
            .fact("count", count)
        }
    }
}
