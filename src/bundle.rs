//! A worktree becomes a bundle when it passed the checks: what codedeploy-local is given.

use std::path::PathBuf;

use crate::domain::App;
use crate::error::{ExitCode, Failure};
use crate::mirror::Worktree;

/// Which codedeploy-local will get it: what one of them trips over is worth a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// The built-in one.
    Builtin,
    /// The agent's, in Ruby.
    Agent1,
    /// The agent's, in Rust.
    Agent2,
}

/// A worktree that may be deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// What codedeploy-local is given: absolute.
    pub root: PathBuf,
    /// The appspec below the root, if it has to be named to codedeploy-local.
    pub appspec_option: Option<PathBuf>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Checks a worktree.
///
/// # Errors
/// What must not be deployed.
pub fn check(app: &App, worktree: &Worktree, _tool: Tool) -> Result<Bundle, Failure> {
    let root = app.bundle_root(&worktree.path);
    let named = app.appspec.clone();
    let names = named.clone().map_or_else(
        || vec![PathBuf::from("appspec.yml"), PathBuf::from("appspec.yaml")],
        |name| vec![name],
    );
    let Some(found) = names.into_iter().find(|name| root.join(name).is_file()) else {
        let commit = format!("there is no appspec.yml in `{}`", app.path.display());
        return Err(Failure::new(ExitCode::Refused, commit));
    };
    let appspec_option = (*found != *"appspec.yml").then_some(found);
    Ok(Bundle { root, appspec_option, warnings: Vec::new() })
}
