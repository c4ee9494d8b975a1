//! What follows from each failure: whether to try again, and what the run ends with.

use super::{Failure, Retry, Step};
use crate::error::{self, ExitCode};

impl Failure {
    /// Whether the server says that the credential itself is not good (401), and not only that
    /// it may not do this (403).
    pub fn is_wrong_credential(&self) -> bool {
        match self {
            Self::Denied { remote_said, .. } => {
                !remote_said.as_ref().is_some_and(|said| said.contains("403"))
            }
            Self::KeyDenied { .. } => true,
            Self::Lfs(problem) => problem.asked().is_some_and(Self::is_wrong_credential),
            _ => false,
        }
    }

    /// Whether trying again may help.
    pub fn retry(&self) -> Retry {
        let soon = Retry::Later { after: None };
        match self {
            Self::NameLookup { passing, .. } => {
                if *passing {
                    soon
                } else {
                    Retry::Never
                }
            }
            Self::Proxy(refusal) => {
                if refusal.problem.may_pass() {
                    soon
                } else {
                    Retry::Never
                }
            }
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Timeout { step: Step::Connect | Step::Read, .. } => soon,
            Self::Status { status: 429 | 500..=599, after, .. }
            | Self::Status { status: 403, after: after @ Some(_), .. } => {
                Retry::Later { after: *after }
            }
            Self::Lfs(problem) => problem.retry(),
            Self::Status { .. }
            | Self::Timeout { step: Step::Total, .. }
            | Self::CommitNotFound { .. }
            | Self::NotACommit { .. }
            | Self::NameNotFound { .. }
            | Self::AmbiguousName { .. }
            | Self::NotFoundOrForbidden { .. }
            | Self::Denied { .. }
            | Self::KeyDenied { .. }
            | Self::AgentPlainly { .. }
            | Self::CredentialMissing { .. }
            | Self::CredentialUnusable { .. }
            | Self::Credential(_)
            | Self::UnknownHostKey(_)
            | Self::ChangedHostKey(_)
            | Self::RevokedHostKey(_)
            | Self::Certificate(_)
            | Self::NoTls { .. }
            | Self::ProxyUnusable { .. }
            | Self::NoCommonAlgorithm { .. }
            | Self::Redirected { .. }
            | Self::RedirectLoop { .. }
            | Self::WebPage { .. }
            | Self::NotGit { .. }
            | Self::Remote { .. }
            | Self::ObjectFormat { .. }
            | Self::Interrupted(_)
            | Self::Damaged { .. }
            | Self::Locked { .. }
            | Self::DiskFull { .. }
            | Self::File { .. }
            | Self::UnsafeName { .. }
            | Self::TooLarge { .. }
            | Self::Unfolds { .. }
            | Self::Encoding { .. }
            | Self::Git { .. } => Retry::Never,
        }
    }

    /// What the run ends with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Git { source, .. } if is_of_this_host(source) => ExitCode::Unfit,
            Self::CommitNotFound { .. }
            | Self::NotACommit { .. }
            | Self::NameNotFound { .. }
            | Self::AmbiguousName { .. }
            | Self::NotFoundOrForbidden { .. }
            | Self::Denied { .. }
            | Self::KeyDenied { .. }
            | Self::AgentPlainly { .. }
            | Self::CredentialMissing { .. }
            | Self::CredentialUnusable { .. }
            | Self::UnknownHostKey(_)
            | Self::ChangedHostKey(_)
            | Self::RevokedHostKey(_)
            | Self::Certificate(_)
            | Self::NoTls { .. }
            | Self::ProxyUnusable { .. }
            | Self::NoCommonAlgorithm { .. }
            | Self::NameLookup { .. }
            | Self::Unreachable { .. }
            | Self::Proxy(_)
            | Self::Timeout { .. }
            | Self::Broken { .. }
            | Self::Status { .. }
            | Self::Redirected { .. }
            | Self::RedirectLoop { .. }
            | Self::WebPage { .. }
            | Self::NotGit { .. }
            | Self::Remote { .. }
            | Self::ObjectFormat { .. }
            | Self::Damaged { .. }
            | Self::Git { .. } => ExitCode::Fetch,
            Self::Credential(error) => error.signal().map_or(ExitCode::Fetch, ExitCode::of_signal),
            Self::Interrupted(signal) => ExitCode::of_signal(*signal),
            Self::Lfs(problem) => problem.exit_code(),
            Self::Locked { .. } => ExitCode::Locked,
            Self::DiskFull { .. } | Self::File { .. } => ExitCode::Unfit,
            Self::UnsafeName { .. }
            | Self::TooLarge { .. }
            | Self::Unfolds { .. }
            | Self::Encoding { .. } => ExitCode::Refused,
        }
    }
}

impl From<Failure> for error::Failure {
    fn from(failure: Failure) -> Self {
        let report = Self::from_error(failure.exit_code(), &failure);
        match failure.hint() {
            Some(hint) => report.hint(hint),
            None => report,
        }
    }
}

/// Whether what libgit2 says is about files and directories here, not about a server.
pub(super) fn is_of_this_host(error: &git2::Error) -> bool {
    error.code() == git2::ErrorCode::Owner
        || matches!(error.class(), git2::ErrorClass::Os | git2::ErrorClass::Filesystem)
}
