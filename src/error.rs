//! Exit codes: public API, shown by CodeDeploy's console even where nothing else is.

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
