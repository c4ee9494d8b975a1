//! The commands that only read: `check`, `status`, `history`, `logs` and `migrate`.

mod check;
pub(crate) mod drift;
mod history;
mod logs;
mod migrate;
mod remote;
mod status;

use std::collections::BTreeSet;

pub use check::check;
pub use history::history;
pub use logs::logs;
pub use migrate::migrate;
pub use status::status;

use crate::domain::AppName;
use crate::error::{ExitCode, Failure};
use crate::ledger::last_state::LastState;
use crate::manifest::Manifest;
use crate::settings::Settings;

/// The apps that have a mirror.
pub(crate) fn recorded_apps(settings: &Settings) -> Result<BTreeSet<AppName>, Failure> {
    let directory = settings.cache_dir.join("mirrors");
    let entries = match fs_err::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => {
            return Err(Failure::from_error(ExitCode::Unfit, &error)
                .hint("run as the user that deploys, usually root"));
        }
    };
    let names = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.strip_suffix(".git")?.parse().ok()
    });
    Ok(names.collect())
}

/// The apps that this host has records of and that the manifest does not name. One that is
/// disabled, or for other hosts, is named.
pub(crate) fn removed_apps(
    settings: &Settings,
    manifest: &Manifest,
    state: &LastState,
) -> Result<BTreeSet<AppName>, Failure> {
    let mut apps = recorded_apps(settings)?;
    apps.extend(state.apps().filter_map(|(name, _)| name.parse().ok()));
    for app in &manifest.apps {
        apps.remove(&app.name);
    }
    Ok(apps)
}
