//! What a bundle puts on a host, and what it runs there.

use std::io::Read;
use std::path::Path;

use fs_err as fs;

use super::{MOST_APPSPEC, Tool, root, shown};
use crate::domain::App;
use crate::engine::appspec::{self, DEFAULT_EVENTS, FileExists, Hook, PREVIOUS_REVISION_EVENTS};
use crate::engine::install::{self, Installed, Request};
use crate::error::{ExitCode, Failure};
use crate::mirror::Worktree;

/// What a bundle puts on a host, and what it runs there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Its files and links.
    pub files: Vec<Installed>,
    /// The scripts of this revision that run when it is deployed, as `Event script`.
    pub scripts: Vec<String>,
    /// Files that were there before may have stayed.
    pub retains: bool,
}

/// Reads a worktree of a commit that was deployed.
///
/// # Errors
/// It is no bundle: [`super::check`] says what is wrong with it.
pub fn contents(app: &App, worktree: &Worktree) -> Result<Contents, Failure> {
    let root = root(app, worktree, Tool::Builtin)?;
    let given = app.appspec.as_deref();
    let usual = ["appspec.yml", "appspec.yaml"].map(Path::new);
    let names = given.map_or_else(|| usual.to_vec(), |name| vec![name]);
    let found = names.into_iter().find(|name| root.join(name).is_file());
    let Some(name) = found else {
        return Err(Failure::new(ExitCode::Refused, "the commit has no appspec"));
    };
    let mut text = Vec::new();
    fs::File::open(root.join(name))
        .and_then(|file| file.take(MOST_APPSPEC).read_to_end(&mut text))
        .map_err(|error| Failure::from_error(ExitCode::Unfit, &error))?;
    let parsed = appspec::parse(&app.path.join(name), &text);
    let Some(spec) = parsed.spec else {
        let why = parsed.findings.iter().find(|finding| finding.is_error());
        let why = why.map_or_else(|| shown(name), ToString::to_string);
        return Err(Failure::new(ExitCode::Refused, why));
    };
    let request = Request {
        archive: &root,
        appspec: &spec,
        file_exists: "",
        instructions: Path::new("/"),
        group: &app.name.deployment_group(),
        cwd: Path::new("/"),
    };
    let files = install::installs(&request)
        .map_err(|error| Failure::from_error(ExitCode::Refused, &error))?;
    let retains = match spec.file_exists {
        Some(behavior) => behavior == FileExists::Retain,
        None => app.file_exists == crate::domain::FileExists::Retain,
    };
    Ok(Contents { files, scripts: scripts(app, &spec.hooks, Moment::Now), retains })
}

/// When a revision's scripts run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// When it is deployed.
    Now,
    /// When the next one is.
    Next,
}

/// The scripts among an appspec's hooks that run at that moment, as `Event script`, in the
/// order in which the events come.
pub fn scripts(app: &App, hooks: &[Hook], moment: Moment) -> Vec<String> {
    let runs = |event: &&str| {
        PREVIOUS_REVISION_EVENTS.contains(event) == (moment == Moment::Next)
            && !app.skip_events.iter().any(|skipped| skipped == event)
    };
    let of_event = |event: &'static str| {
        let scripts = appspec::scripts(hooks, event).iter();
        scripts.map(move |script| format!("{event} {}", script.location))
    };
    DEFAULT_EVENTS.into_iter().filter(runs).flat_map(of_event).collect()
}
