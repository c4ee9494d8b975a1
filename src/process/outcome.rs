//! How a run ended, as data and in words.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

/// A process that holds a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: i32,
    /// The kernel's short name for it, at most 15 bytes.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.pid, self.name)
    }
}

/// Why a child could not be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartFailure {
    /// There is no such file.
    #[error("`{}` does not exist", .0.display())]
    Missing(PathBuf),
    /// It begins with `#!` and an interpreter that does not exist.
    #[error("`{}` needs the interpreter `{interpreter}`, which does not exist", script.display())]
    NoInterpreter {
        /// The script.
        script: PathBuf,
        /// What its first line names.
        interpreter: String,
    },
    /// No right to execute it, a directory, or a file system mounted `noexec`.
    #[error("`{}` may not be executed", .0.display())]
    NotExecutable(PathBuf),
    /// The kernel knows no such format (ENOEXEC): an empty file, a script without `#!`, a
    /// program for another machine.
    #[error("`{}` is neither a program for this machine nor a script that begins with `#!`", .0.display())]
    UnknownFormat(PathBuf),
    /// The working directory is gone.
    #[error("the working directory `{}` does not exist", .0.display())]
    NoWorkingDirectory(PathBuf),
    /// Anything else, in the system's words.
    #[error("`{}` could not be started: {reason}", program.display())]
    Other {
        /// What was to be started.
        program: PathBuf,
        /// The system's words.
        reason: String,
    },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It exited by itself, with this code, and its outputs were closed.
    Exited(i32),
    /// This signal, not sent by us, ended it.
    Signalled(i32),
    /// It was still running at the deadline and was ended.
    TimedOut {
        /// The time it had.
        limit: Duration,
    },
    /// We were told to end by this signal; it was ended.
    Interrupted(i32),
    /// It was not started.
    NotStarted(StartFailure),
    /// It ended, but something that it started in the background keeps its stdout or stderr
    /// open. That process is left alone.
    OutputHeld {
        /// Its exit code, or the signal that ended it.
        end: Result<i32, i32>,
        /// Who holds it, as far as `/proc` shows.
        by: Vec<Holder>,
    },
}

/// A run's outcome and duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// Wall time, the wait for outputs included.
    pub took: Duration,
}

impl Finished {
    /// Whether the child exited with 0 and let its outputs go.
    pub fn success(&self) -> bool {
        self.outcome == Outcome::Exited(0)
    }
}

/// An outcome in words that go after "the script …": "exited with code 3 after 1.2 s".
pub fn describe_exit(finished: &Finished) -> String {
    let took = seconds(finished.took);
    match &finished.outcome {
        Outcome::Exited(code) => format!("exited with code {code} after {took}"),
        Outcome::Signalled(number) => format!("was ended by {} after {took}", signal_name(*number)),
        Outcome::TimedOut { limit } => {
            format!("did not end within {} and was ended after {took}", seconds(*limit))
        }
        Outcome::Interrupted(number) => {
            format!("was ended after {took}, as this program received {}", signal_name(*number))
        }
        Outcome::NotStarted(why) => format!("could not be started: {why}"),
        Outcome::OutputHeld { end, by } => {
            let end = match end {
                Ok(code) => format!("exited with code {code}"),
                Err(number) => format!("was ended by {}", signal_name(*number)),
            };
            let who = if by.is_empty() {
                "a background process".to_owned()
            } else {
                let names: Vec<_> = by.iter().map(ToString::to_string).collect();
                format!("background process {}", names.join(", "))
            };
            format!(
                "{end}, but {who} still held its output after {took}; \
                 redirect the output of what runs on in the background"
            )
        }
    }
}

/// "SIGTERM", or "signal 99".
pub fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |s| s.as_str().to_owned())
}

/// "0.2 s", "12 s".
fn seconds(duration: Duration) -> String {
    let s = duration.as_secs_f64();
    if s < 10.0 && duration.subsec_millis() >= 50 {
        format!("{s:.1} s")
    } else {
        format!("{s:.0} s")
    }
}
