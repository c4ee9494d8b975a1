//! Walks a [`Plan`](crate::plan::Plan): prepares everything, then deploys one app after the
//! other and records around each. What can be done to this host is behind the trait [`Host`],
//! so that a test can kill a rollout at any step.
//!
//! A failure ends it, or it goes on with the other apps, or puts back what it changed
//! ([`OnFailure`](crate::domain::OnFailure)).

mod walk;

use std::time::Duration;

use crate::domain::{AppName, Revision};
use crate::error::{ExitCode, Failure};
use crate::plan::{SkipReason, Step};

pub use walk::{in_parallel, rollout};

/// What a rollout does to this host.
pub trait Host: Sync {
    /// A worktree that passed all checks.
    type Bundle: Send;

    /// Fetches, checks out and checks one app. Runs in parallel with others; must leave the
    /// running applications alone.
    fn prepare(&self, step: &Step) -> Result<Self::Bundle, Failure>;
    /// The same for the step that would put an app back, after the app itself was prepared:
    /// putting back must not need the network.
    fn prepare_back(&self, back: &Step) -> Result<Self::Bundle, Failure>;
    /// Called once, after all apps are prepared and before the first is touched: the last
    /// chance to refuse.
    fn ready(&mut self) -> Result<(), Failure>;
    /// Records, durably, that this app is about to be changed.
    fn record_attempt(&mut self, step: &Step) -> Result<(), Failure>;
    /// Runs codedeploy-local.
    fn deploy(&mut self, step: &Step, bundle: Self::Bundle) -> Result<(), Failure>;
    /// Records, durably, that this app is deployed.
    fn record_success(&mut self, step: &Step, took: Duration) -> Result<(), Failure>;
    /// Records that the attempt failed. The attempt itself stays recorded.
    fn record_failure(&mut self, step: &Step, failure: &Failure, took: Duration);
    /// How much time is left; `None` is no end of it.
    fn time_left(&self) -> Option<Duration>;
    /// How long a step will take, as far as can be known: as long as it took last time.
    fn expects(&self, step: &Step) -> Duration;
    /// The signal that ends this run, as an exit code, if one has come.
    fn interrupted(&self) -> Option<ExitCode>;
    /// Something happened that somebody may want to see.
    fn event(&self, event: &Event<'_>);
}

/// What happens during a rollout.
#[derive(Debug)]
pub enum Event<'a> {
    /// An app's commit is being fetched, checked out and checked.
    Preparing(&'a Step),
    /// It passed, or not.
    Prepared(&'a Step, Option<&'a Failure>, Duration),
    /// What is deployed now could not be prepared: the app could not be put back.
    NoWayBack(&'a Step, &'a Failure),
    /// codedeploy-local is being started for it.
    Deploying(&'a Step),
    /// It is deployed, or not.
    Deployed(&'a Step, Option<&'a Failure>, Duration),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// One for each step of the plan, in its order.
    pub apps: Vec<AppOutcome>,
    /// Set when a signal ended the run.
    pub signal: Option<ExitCode>,
    /// Why nothing was deployed although all apps were prepared.
    pub refused: Option<Failure>,
}

/// What happened to one app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppOutcome {
    /// The app.
    pub name: AppName,
    /// What was deployed before.
    pub from: Option<Revision>,
    /// What was wanted.
    pub to: Revision,
    /// How it ended.
    pub result: AppResult,
    /// How long its deployment took.
    pub took: Duration,
}

/// How it ended for one app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppResult {
    /// It was current.
    Unchanged,
    /// It was not asked for.
    Skipped(SkipReason),
    /// It was fetched, checked out or checked in vain; the host was not touched.
    NotPrepared(Failure),
    /// It was prepared and not deployed; the host was not touched.
    NotRun(NotRun),
    /// It is deployed.
    Deployed,
    /// codedeploy-local failed, or the records could not be written.
    Failed(Failure),
    /// It was deployed, or failed, in this run, and is again what it was before.
    PutBack {
        /// Why it failed, if it did.
        failure: Option<Failure>,
    },
    /// It was deployed, or failed, in this run, and could not be put back.
    NotPutBack {
        /// Why it failed, if it did.
        failure: Option<Failure>,
        /// Why it could not be put back.
        why: Failure,
    },
}

/// Why an app's turn did not come.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NotRun {
    /// The run ended before.
    Ended,
    /// It needs this app, which failed, was put back or was not run itself.
    Needs(AppName),
    /// The deadline would have come before its end.
    NoTime {
        /// How much time there was, in seconds.
        left: u64,
        /// How much it would have needed, in seconds.
        expected: u64,
    },
}

impl NotRun {
    /// A few words for people; none where there is nothing to say.
    pub fn describe(&self) -> Option<String> {
        match self {
            Self::Ended => None,
            Self::Needs(app) => Some(format!("needs {app}")),
            Self::NoTime { left: 0, .. } => Some("no time left".to_owned()),
            Self::NoTime { left, expected } => {
                Some(format!("{left} s left, {expected} s expected"))
            }
        }
    }
}

impl Outcome {
    /// The exit code of the run.
    pub fn exit_code(&self) -> ExitCode {
        if let Some(signal) = self.signal {
            return signal;
        }
        let ended = |is: fn(&AppResult) -> bool| self.apps.iter().any(|app| is(&app.result));
        if ended(|result| matches!(result, AppResult::NotPutBack { .. })) {
            return ExitCode::RestoreFailed;
        }
        if ended(|result| matches!(result, AppResult::PutBack { .. })) {
            return ExitCode::Restored;
        }
        let first = self.failures().map(|(_, failure)| failure).next();
        // Codes that say "host unchanged" are not for a run that has changed it.
        let changed = ended(|result| *result == AppResult::Deployed);
        if let Some(failure) = first.or(self.refused.as_ref()) {
            let wrong = changed && failure.code == ExitCode::Unfit;
            return if wrong { ExitCode::AppFailed } else { failure.code };
        }
        let late = |result: &AppResult| matches!(result, AppResult::NotRun(NotRun::NoTime { .. }));
        if ended(late) { ExitCode::Deadline } else { ExitCode::Ok }
    }

    /// The apps that failed, those whose deployment failed first.
    pub fn failures(&self) -> impl Iterator<Item = (&AppOutcome, &Failure)> {
        let deployed = self.apps.iter().filter_map(|app| match &app.result {
            AppResult::Failed(failure) => Some((app, failure)),
            AppResult::PutBack { failure } | AppResult::NotPutBack { failure, .. } => {
                Some((app, failure.as_ref()?))
            }
            _ => None,
        });
        let prepared = self.apps.iter().filter_map(|app| match &app.result {
            AppResult::NotPrepared(failure) => Some((app, failure)),
            _ => None,
        });
        deployed.chain(prepared)
    }
}

#[cfg(test)]
mod tests;
