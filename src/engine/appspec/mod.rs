//! The appspec: what is to be copied where, which scripts run, who may do what.
//!
//! [`parse`] has no effects and reports everything it finds at once. It accepts what
//! either of AWS's tools accepts, reads it as codedeploy-local 1.x does where that can be
//! meant, and warns where the two disagree.

mod access;
mod read;
mod scalar;

use std::path::Path;
use std::time::Duration;

pub use access::{Ace, AceKind, Context, Mode, Principal, full_acl, matches_simple_glob};

use crate::diagnostic::{Diagnostic, Severity, meant, quoted};
use crate::yaml::Position;

/// The lifecycle events in their default order. (`ValidateService` does come before the
/// allow-traffic events in a local deployment.)
pub const DEFAULT_EVENTS: [&str; 11] = [
    "BeforeBlockTraffic",
    "AfterBlockTraffic",
    "ApplicationStop",
    "DownloadBundle",
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
    "BeforeAllowTraffic",
    "AfterAllowTraffic",
];

/// The events whose scripts come from the revision that is being replaced.
pub const PREVIOUS_REVISION_EVENTS: [&str; 3] =
    ["BeforeBlockTraffic", "AfterBlockTraffic", "ApplicationStop"];

/// A valid appspec.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppSpec {
    /// What is copied where, in the order of the text.
    pub files: Vec<FileEntry>,
    /// The scripts of each event, in the order of the text. Events without scripts are
    /// here too, as their names count.
    pub hooks: Vec<Hook>,
    /// Who may do what, in the order of the text.
    pub permissions: Vec<Permission>,
    /// What happens to files that exist; wins over the command line.
    pub file_exists: Option<FileExists>,
}

/// An entry of `files`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// A path below the bundle; `/` and the empty text are the whole bundle.
    pub source: String,
    /// A directory on the host.
    pub destination: String,
    /// Where the entry stands.
    pub at: Position,
}

/// An event with its scripts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The event's name.
    pub event: String,
    /// Where the name stands.
    pub at: Position,
    /// Its scripts, in order.
    pub scripts: Vec<Script>,
}

/// One script of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// A path below the bundle, as written but for white space around it.
    pub location: String,
    /// Whom it runs as, by `su`. An empty text means root.
    pub runas: Option<String>,
    /// Whether it runs through `sudo`.
    pub sudo: bool,
    /// How long it may take.
    pub timeout: Duration,
    /// Where its location stands.
    pub at: Position,
}

/// An entry of `permissions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// A file or directory on the host.
    pub object: String,
    /// Which names directly below a directory; `None` means everything at any depth.
    pub pattern: Option<String>,
    /// Names directly below a directory that are left out.
    pub except: Vec<String>,
    /// Applies to files.
    pub files: bool,
    /// Applies to directories.
    pub directories: bool,
    /// The owner to set.
    pub owner: Option<Principal>,
    /// The group to set.
    pub group: Option<Principal>,
    /// The mode to set.
    pub mode: Option<Mode>,
    /// The access control list to set, without the base entries.
    pub acls: Option<Vec<Ace>>,
    /// The SELinux context to set.
    pub context: Option<Context>,
    /// Where the entry stands.
    pub at: Position,
}

/// What happens when a file to be installed is already there and not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileExists {
    /// The deployment is refused.
    Disallow,
    /// It is replaced.
    Overwrite,
    /// It stays.
    Retain,
}

impl FileExists {
    /// Reads the word, which is in capitals.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "DISALLOW" => Some(Self::Disallow),
            "OVERWRITE" => Some(Self::Overwrite),
            "RETAIN" => Some(Self::Retain),
            _ => None,
        }
    }
}

/// What was found in an appspec.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// The appspec, if nothing in it is an error.
    pub spec: Option<AppSpec>,
    /// The hooks alone, if nothing in *them* is an error. For a revision that is installed
    /// already nothing else matters any more.
    pub hooks: Option<Vec<Hook>>,
    /// Everything there is to say about it, in the order of the text.
    pub findings: Vec<Diagnostic>,
}

/// Reads an appspec. `file` is only for the findings.
pub fn parse(file: &Path, text: &[u8]) -> Parsed {
    read::parse(file, text)
}

impl AppSpec {
    /// The scripts of an event.
    pub fn scripts(&self, event: &str) -> &[Script] {
        scripts(&self.hooks, event)
    }

    /// Errors for hooks that no event of this deployment would ever run, given the events
    /// that it can have. `Install` and `DownloadBundle` may have hooks; they never run.
    pub fn unknown_events(&self, file: &Path, possible: &[String]) -> Vec<Diagnostic> {
        let unknown = self.hooks.iter().filter(|hook| !possible.contains(&hook.event));
        unknown
            .map(|hook| {
                let message = format!("unknown lifecycle event {}", quoted(&hook.event));
                let finding = Diagnostic::new(Severity::Error, file, Some(hook.at), message);
                match meant(&hook.event, possible.iter().map(String::as_str)) {
                    Some(word) => finding.hint(format!("did you mean `{word}`?")),
                    None => finding.hint(format!(
                        "the events are {}; another one has to be named with --events",
                        DEFAULT_EVENTS.join(", ")
                    )),
                }
            })
            .collect()
    }
}

/// The scripts of an event; of several hooks with the same name the last counts.
pub fn scripts<'a>(hooks: &'a [Hook], event: &str) -> &'a [Script] {
    hooks.iter().rev().find(|h| h.event == event).map_or(&[], |h| h.scripts.as_slice())
}

#[cfg(test)]
mod tests;
