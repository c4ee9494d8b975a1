//! `check --remote`: do the servers have the commits? With a fetch's own functions, into a
//! directory that is thrown away; neither root nor an agent is needed.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Serialize;

use crate::deploy::{JOBS, Means, no_tool};
use crate::domain::{App, AppName, Revision};
use crate::error::{ExitCode, Failure};
use crate::host::{LiveHost, Run};
use crate::ledger::last_state::LastState;
use crate::load::with_machine;
use crate::manifest::Manifest;
use crate::mirror;
use crate::process::Interrupt;
use crate::report::console::{Console, Place};
use crate::report::human::{self, Paint};
use crate::report::log::Log;
use crate::rollout::in_parallel;
use crate::settings::Settings;

/// What a server said of an app's release.
#[derive(Serialize)]
pub(super) struct Asked {
    name: AppName,
    source: String,
    release: String,
    /// What it is there.
    commit: Option<Revision>,
    pub(super) failure: Option<Failure>,
}

impl Asked {
    pub(super) fn human(&self, paint: Paint) -> String {
        let Self { name, source, commit, failure, .. } = self;
        match (failure, commit) {
            (Some(failure), _) => human::failure(failure, Some(name.as_str()), paint),
            (None, commit) => {
                let commit = commit.map(|commit| commit.short()).unwrap_or_default();
                format!("{name}: {commit} is at {source}\n")
            }
        }
    }
}

/// Asks for the releases of all apps that are enabled.
///
/// # Errors
/// Nobody could be asked.
pub(super) fn ask(
    settings: &Settings,
    manifest: Manifest,
    interrupt: &Interrupt,
) -> Result<Vec<Asked>, Failure> {
    let manifest = with_machine(settings, manifest).map_err(|refusal| refusal.failure)?;
    let temporary = settings.environment.text("TMPDIR");
    let scratch = Scratch::new(Path::new(temporary.as_deref().unwrap_or("/tmp")))?;
    let means = Means::of(settings, &manifest);
    let console = Console::new(Place::Nowhere, false, Paint(false), Log::default());
    let tool = OnceLock::new();
    let run = means.run(&tool, &no_tool, interrupt, &console);
    let run = Run { cache: &scratch.0, ..run };
    let live = LiveHost::new(run, LastState::default());
    // Before there are threads: libgit2's set-up touches the environment.
    mirror::prepare();
    let apps: Vec<&App> = manifest.apps.iter().filter(|app| app.enabled).collect();
    let stop = || interrupt.signal().is_some();
    let found = in_parallel(apps.len(), JOBS, stop, |number| live.probe(apps[number]));
    let ended = || {
        let code = interrupt.signal().map_or(ExitCode::Unexpected, ExitCode::of_signal);
        Err(Failure::new(code, "ended before its server was asked"))
    };
    let asked = apps.iter().zip(found).map(|(app, found)| {
        let found = found.unwrap_or_else(ended);
        Asked {
            name: app.name.clone(),
            source: app.source.to_string(),
            release: app.release.to_string(),
            commit: found.as_ref().ok().copied(),
            failure: found.err(),
        }
    });
    Ok(asked.collect())
}

/// A directory for what comes; gone when this is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(directory: &Path) -> Result<Self, Failure> {
        let name = directory.join("multideployer-check-XXXXXX");
        let made = nix::unistd::mkdtemp(&name).map_err(std::io::Error::from);
        made.map(Self).map_err(|error| {
            Failure::from_error(ExitCode::Unfit, &error)
                .context(format!("cannot make a directory in `{}`", directory.display()))
                .hint("set TMPDIR to a directory that can be written")
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs_err::remove_dir_all(&self.0);
    }
}
