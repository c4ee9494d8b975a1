//! What is refused before anything is touched: in the agent's order, in its words.

use std::path::{Path, PathBuf};

use super::cli::Options;
use super::lifecycle;

/// What kind of thing the bundle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    Tar,
    Tgz,
    Zip,
}

/// A bundle that is there.
#[derive(Debug)]
pub(super) struct Bundle {
    pub(super) kind: Kind,
    /// Absolute.
    pub(super) path: PathBuf,
    /// As it was typed.
    pub(super) typed: String,
    /// The events that were named; empty: the default ones.
    pub(super) events: Vec<String>,
}

/// Checks type, location, appspec and the order of events.
///
/// # Errors
/// The text that goes behind `ERROR: `.
pub(super) fn check(options: &Options, cwd: &Path) -> Result<Bundle, String> {
    let kind = match options.kind.as_deref().unwrap_or("directory") {
        "directory" => Kind::Directory,
        "tar" => Kind::Tar,
        "tgz" => Kind::Tgz,
        "zip" => Kind::Zip,
        other => {
            return Err(format!(
                "type {other} is not a valid type. Must be one of tgz,tar,zip,directory"
            ));
        }
    };
    let location = options.location.clone().unwrap_or_else(|| cwd.to_owned());
    let typed = location.to_string_lossy().into_owned();
    let scheme = typed.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("http") => {
            return Err(format!(
                "location {typed} cannot be http, only encrypted (https) url endpoints supported"
            ));
        }
        Some("https" | "s3") => {
            return Err(format!(
                "location {typed} is not on this host. The built-in codedeploy-local takes \
                 directories, tar, tgz and zip files: download it and name the file, or use the \
                 agent's codedeploy-local"
            ));
        }
        _ => {}
    }
    let path = cwd.join(&location);
    if typed.is_empty() || !path.exists() {
        return Err(format!(
            "location {typed} is specified as a file or directory which does not exist"
        ));
    }
    match (kind, path.is_dir()) {
        (Kind::Directory, false) => {
            return Err(format!(
                "location {typed} is specified with type directory but it is a file"
            ));
        }
        (Kind::Directory, true) => appspec_is_there(options, &typed, &path)?,
        (_, true) => {
            return Err(format!(
                "location {typed} is specified as a compressed local file but it is a directory"
            ));
        }
        (_, false) => {}
    }
    let events = lifecycle::named(options.events.as_deref());
    lifecycle::check_order(&events)?;
    Ok(Bundle { kind, path, typed, events })
}

fn appspec_is_there(options: &Options, typed: &str, path: &Path) -> Result<(), String> {
    let below = |name: &str| format!("{}/{name}", typed.trim_end_matches('/'));
    if let Some(name) = &options.appspec {
        if path.join(name).is_file() {
            return Ok(());
        }
        return Err(format!(
            "Expecting appspec file at location {} but it is not found there. Please either run \
             the CLI from within a directory containing the {name} file or specify a bundle \
             location containing an {name} file in its root directory",
            below(name)
        ));
    }
    if ["appspec.yml", "appspec.yaml"].iter().any(|name| path.join(name).is_file()) {
        return Ok(());
    }
    Err(format!(
        "Expecting appspec file at location {} or {} but it is not found there. Please either \
         run the CLI from within a directory containing the appspec.yml or appspec.yaml file or \
         specify a bundle location containing an appspec.yml or appspec.yaml file in its root \
         directory",
        below("appspec.yml"),
        below("appspec.yaml")
    ))
}
