//! Exit codes (public API, shown by CodeDeploy's console even where nothing else is) and
//! [`Failure`], what every module's error becomes before it is reported.

/// What a run's exit code says, and whether the host was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(into = "u8")]
#[repr(u8)]
pub enum ExitCode {
    /// Done, or nothing to do.
    Ok = 0,
    /// An unexpected error; see the summary.
    Unexpected = 1,
    /// Usage or configuration refused. Host unchanged.
    Configuration = 2,
    /// A fetch failed: network, credential, commit not found. Host unchanged.
    Fetch = 3,
    /// An app failed; earlier apps stay updated. Host changed, as listed.
    AppFailed = 4,
    /// An app failed, and all that this run changed was put back.
    Restored = 5,
    /// An app failed, and putting back failed too. Host mixed: look.
    RestoreFailed = 6,
    /// Verification refused: signature, reachability, unsafe content. Host unchanged.
    Refused = 7,
    /// The deadline was reached before all apps were started.
    Deadline = 8,
    /// Another run holds the lock. Host unchanged.
    Locked = 9,
    /// With `--exit-code`: changes or drift exist. Host unchanged.
    Changes = 10,
    /// The environment is unfit: no tool, not root, disk, unreadable state. Host unchanged.
    Unfit = 11,
    /// Ended by SIGHUP; what happened is recorded.
    Hangup = 129,
    /// Ended by SIGINT; what happened is recorded.
    Interrupted = 130,
    /// Ended by SIGTERM; what happened is recorded.
    Terminated = 143,
}

impl ExitCode {
    /// The exit code of a run that was ended by a signal.
    pub fn of_signal(signal: i32) -> Self {
        match signal {
            nix::libc::SIGHUP => Self::Hangup,
            nix::libc::SIGINT => Self::Interrupted,
            _ => Self::Terminated,
        }
    }
}

impl From<ExitCode> for u8 {
    fn from(code: ExitCode) -> Self {
        code as Self
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// A failure, ready to be reported: each module's own error becomes one at the edge.
///
/// Message and causes are lower-case fragments without a period; neither holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Failure {
    /// What kind of failure it is.
    pub code: ExitCode,
    /// What could not be done.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
    /// The last lines of what a program printed before it failed.
    pub output: Vec<String>,
}

impl Failure {
    /// A failure without a cause.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), causes: Vec::new(), hint: None, output: Vec::new() }
    }

    /// A failure from an error and all its sources.
    pub fn from_error(code: ExitCode, error: &dyn std::error::Error) -> Self {
        let mut failure = Self::new(code, error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Some libraries repeat their source's text in their own.
            if failure.causes.last().unwrap_or(&failure.message) != &text {
                failure.causes.push(text);
            }
            source = cause.source();
        }
        failure
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts a message in front; what was the message becomes the first cause.
    #[must_use]
    pub fn context(mut self, message: impl Into<String>) -> Self {
        self.causes.insert(0, std::mem::replace(&mut self.message, message.into()));
        self
    }

    /// Message and causes in one line.
    pub fn line(&self) -> String {
        let mut line = self.message.clone();
        for cause in &self.causes {
            line.push_str(": ");
            line.push_str(cause);
        }
        line
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_the_whole_chain_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read `{path}`")]
        struct Read {
            path: &'static str,
            source: std::io::Error,
        }
        let error = Read { path: "/x", source: std::io::Error::other("no such thing") };
        let failure = Failure::from_error(ExitCode::Unfit, &error).context("cannot start");
        assert_eq!(failure.line(), "cannot start: cannot read `/x`: no such thing");
    }
}
