//! What a bundle puts on a host, and what it runs there.

use std::io::Read;
use std::path::Path;

use fs_err as fs;

use super::{MOST_APPSPEC, Tool, root, shown};
use crate::domain::App;
use crate::engine::appspec::{self, AppSpec, FileExists, PREVIOUS_REVISION_EVENTS};
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
    Ok(Contents { files, scripts: scripts(app, &spec), retains })
}

/// The scripts of an appspec that an app's deployment runs, in the order of the text.
fn scripts(app: &App, spec: &AppSpec) -> Vec<String> {
    let runs = |event: &str| {
        !PREVIOUS_REVISION_EVENTS.contains(&event)
            && !app.skip_events.iter().any(|skipped| skipped == event)
    };
    let hooks = spec.hooks.iter().filter(|hook| runs(&hook.event));
    hooks
        .flat_map(|hook| {
            hook.scripts.iter().map(|script| format!("{} {}", hook.event, script.location))
        })
        .collect()
}
