//! A revision as it lies in a folder: its appspec, read again whenever it is needed.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::appspec::{self, Parsed};
use super::problem::Problem;
use crate::diagnostic::Diagnostic;

/// The appspec of a revision, and under which name it was found.
#[derive(Debug)]
pub(super) struct Found {
    /// Its name below the revision's folder.
    pub(super) name: String,
    /// The file.
    pub(super) path: PathBuf,
    pub(super) parsed: Parsed,
}

/// Reads a revision's appspec: the one that was named, else `appspec.yml`, else
/// `appspec.yaml`.
///
/// # Errors
/// There is none, or it cannot be read. What is wrong in it is in the result.
pub(super) fn read(archive: &Path, named: Option<&str>, event: &str) -> Result<Found, Problem> {
    let name = named.unwrap_or_else(|| {
        let both = ["appspec.yml", "appspec.yaml"];
        both.into_iter().find(|name| archive.join(name).exists()).unwrap_or(both[0])
    });
    let path = archive.join(name);
    if !path.exists() {
        let reason = format!("there is no appspec at {}", path.display());
        return Err(Problem::new(event, reason));
    }
    let text = fs::read(&path).map_err(|e| Problem::new(event, e))?;
    let parsed = appspec::parse(&path, &text);
    Ok(Found { name: name.to_owned(), path, parsed })
}

/// Findings as lines, hints included.
pub(super) fn lines<'a>(findings: impl IntoIterator<Item = &'a Diagnostic>) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in findings {
        let kind = if finding.is_error() { "error" } else { "warning" };
        lines.push(format!("{kind}: {finding}"));
        lines.extend(finding.hint.iter().map(|hint| format!("  {hint}")));
    }
    lines
}

/// What ends a deployment whose appspec has errors.
pub(super) fn invalid(event: &str, found: &Found) -> Problem {
    let errors: Vec<&Diagnostic> =
        found.parsed.findings.iter().filter(|finding| finding.is_error()).collect();
    let mut all = lines(errors.iter().copied());
    let reason = match errors.as_slice() {
        [one] => one.to_string(),
        [one, more @ ..] => format!("{one} (and {} more)", more.len()),
        [] => format!("{} is not valid", found.path.display()),
    };
    all.push(format!("{event} failed: {reason}"));
    Problem::Other { stdout: None, lines: all }
}
