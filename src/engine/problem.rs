//! Why a deployment ended, with what the agent's tool would have printed about it.

use std::io;
use std::path::Path;

use nix::errno::Errno;

/// The end of a deployment.
#[derive(Debug)]
pub(super) enum Problem {
    /// A script failed.
    Script {
        /// The path that goes to stdout.
        path: String,
        /// For stderr: the script's last lines, then the reason.
        lines: Vec<String>,
    },
    /// A signal told us to end.
    Interrupted {
        /// Its number.
        signal: i32,
        /// For stderr.
        lines: Vec<String>,
    },
    /// Anything else.
    Other {
        /// The text behind `ERROR: ` on stdout, where the agent's tool prints one.
        stdout: Option<String>,
        /// For stderr.
        lines: Vec<String>,
    },
}

impl Problem {
    /// One that the agent's tool only reports on stderr.
    pub(super) fn new(event: &str, reason: impl std::fmt::Display) -> Self {
        Self::Other { stdout: None, lines: vec![format!("{event} failed: {reason}")] }
    }

    /// One that has its own line on stdout.
    pub(super) fn told(event: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self::Other { lines: vec![format!("{event} failed: {text}")], stdout: Some(text) }
    }

    /// An error of the system while `path` was used by the Ruby function `function`.
    pub(super) fn system(event: &str, error: &io::Error, function: &str, path: &Path) -> Self {
        match errno(error) {
            Some(errno) => {
                Self::told(event, format!("{} @ {function} - {}", errno.desc(), path.display()))
            }
            None => Self::new(event, format!("{}: {error}", path.display())),
        }
    }
}

/// The system's number for an error, also where it was wrapped to name the file and only its
/// kind is left.
fn errno(error: &io::Error) -> Option<Errno> {
    use io::ErrorKind;
    if let Some(number) = error.raw_os_error() {
        return Some(Errno::from_raw(number));
    }
    Some(match error.kind() {
        ErrorKind::NotFound => Errno::ENOENT,
        ErrorKind::PermissionDenied => Errno::EACCES,
        ErrorKind::AlreadyExists => Errno::EEXIST,
        ErrorKind::NotADirectory => Errno::ENOTDIR,
        ErrorKind::IsADirectory => Errno::EISDIR,
        ErrorKind::StorageFull => Errno::ENOSPC,
        ErrorKind::ReadOnlyFilesystem => Errno::EROFS,
        _ => return None,
    })
}
