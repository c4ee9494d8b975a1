//! Walks a [`Plan`]: prepares everything, then deploys one app after the other and records
//! around each. What can be done to this host is behind the trait [`Host`], so that a test
//! can kill a rollout at any step.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::domain::{AppName, Revision};
use crate::error::{ExitCode, Failure};
use crate::plan::{Action, Plan, SkipReason, Step};

/// What a rollout does to this host.
pub trait Host: Sync {
    /// A worktree that passed all checks.
    type Bundle: Send;

    /// Fetches, checks out and checks one app. Runs in parallel with others; must leave the
    /// running applications alone.
    fn prepare(&self, step: &Step) -> Result<Self::Bundle, Failure>;
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
    /// It was not its turn any more.
    NotRun,
    /// It is deployed.
    Deployed,
    /// codedeploy-local failed, or the records could not be written.
    Failed(Failure),
}

impl Outcome {
    /// The exit code of the run.
    pub fn exit_code(&self) -> ExitCode {
        if let Some(signal) = self.signal {
            return signal;
        }
        let first = self.failures().map(|(_, failure)| failure).next();
        first.or(self.refused.as_ref()).map_or(ExitCode::Ok, |failure| failure.code)
    }

    /// The apps that failed, those whose deployment failed first.
    pub fn failures(&self) -> impl Iterator<Item = (&AppOutcome, &Failure)> {
        let deployed = self.apps.iter().filter_map(|app| match &app.result {
            AppResult::Failed(failure) => Some((app, failure)),
            _ => None,
        });
        let prepared = self.apps.iter().filter_map(|app| match &app.result {
            AppResult::NotPrepared(failure) => Some((app, failure)),
            _ => None,
        });
        deployed.chain(prepared)
    }
}

/// Carries out a plan. At most `jobs` apps are prepared at a time; deployments are
/// sequential, in the plan's order, and the first failure stops them.
pub fn rollout<H: Host>(plan: &Plan, host: &mut H, jobs: usize) -> Outcome {
    let mut results: Vec<Option<(AppResult, Duration)>> = vec![None; plan.steps.len()];
    for (step, result) in plan.steps.iter().zip(&mut results) {
        *result = match step.action {
            Action::Keep => Some((AppResult::Unchanged, Duration::ZERO)),
            Action::Skip(reason) => Some((AppResult::Skipped(reason), Duration::ZERO)),
            Action::Deploy(_) => None,
        };
    }
    let mut bundles = prepare_all(plan, host, jobs);
    let mut stop = host.interrupted().is_some();
    for (bundle, result) in bundles.iter_mut().zip(&mut results) {
        if let Some(Err(_)) = bundle
            && let Some(Err(failure)) = bundle.take()
        {
            *result = Some((AppResult::NotPrepared(failure), Duration::ZERO));
            stop = true;
        }
    }
    let mut refused = None;
    if !stop && bundles.iter().any(Option::is_some) {
        refused = host.ready().err();
        stop = refused.is_some();
    }
    for ((step, bundle), result) in plan.steps.iter().zip(bundles).zip(&mut results) {
        let Some(Ok(bundle)) = bundle else { continue };
        if stop || host.interrupted().is_some() {
            break;
        }
        let started = Instant::now();
        host.event(&Event::Deploying(step));
        let deployed = deploy_one(step, bundle, host, started);
        let took = started.elapsed();
        host.event(&Event::Deployed(step, deployed.as_ref().err(), took));
        *result = Some((
            match deployed {
                Ok(()) => AppResult::Deployed,
                Err(failure) => {
                    stop = true;
                    AppResult::Failed(failure)
                }
            },
            took,
        ));
    }
    let apps = plan
        .steps
        .iter()
        .zip(results)
        .map(|(step, result)| {
            let (result, took) = result.unwrap_or((AppResult::NotRun, Duration::ZERO));
            let name = step.app.name.clone();
            AppOutcome { name, from: step.from, to: step.revision, result, took }
        })
        .collect();
    Outcome { apps, signal: host.interrupted(), refused }
}

fn deploy_one<H: Host>(
    step: &Step,
    bundle: H::Bundle,
    host: &mut H,
    started: Instant,
) -> Result<(), Failure> {
    // In this order, each durable before the next: killed at any instant, the records never
    // claim more than happened.
    host.record_attempt(step)?;
    let deployed =
        host.deploy(step, bundle).and_then(|()| host.record_success(step, started.elapsed()));
    if let Err(failure) = &deployed {
        host.record_failure(step, failure, started.elapsed());
    }
    deployed
}

/// One app's preparation; `None` if it needs none or was not reached.
type Prepared<B> = Option<Result<B, Failure>>;

fn prepare_all<H: Host>(plan: &Plan, host: &H, jobs: usize) -> Vec<Prepared<H::Bundle>> {
    let bundles: Vec<Mutex<Prepared<H::Bundle>>> =
        plan.steps.iter().map(|_| Mutex::new(None)).collect();
    let queue: Mutex<VecDeque<usize>> = Mutex::new(
        (0..plan.steps.len())
            .filter(|&i| matches!(plan.steps[i].action, Action::Deploy(_)))
            .collect(),
    );
    let workers = jobs.max(1).min(lock(&queue).len());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while host.interrupted().is_none() {
                    let Some(index) = lock(&queue).pop_front() else { break };
                    let step = &plan.steps[index];
                    let started = Instant::now();
                    host.event(&Event::Preparing(step));
                    let bundle = host.prepare(step);
                    host.event(&Event::Prepared(step, bundle.as_ref().err(), started.elapsed()));
                    *lock(&bundles[index]) = Some(bundle);
                }
            });
        }
    });
    bundles
        .into_iter()
        .map(|slot| slot.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::plan::tests::{app, revision};
    use crate::plan::{Recorded, Selection, Wanted, plan};

    /// A host that exists in memory and can be killed (by a panic) before its nth effect.
    #[derive(Default)]
    struct Scripted {
        running: BTreeMap<AppName, Option<Revision>>,
        records: BTreeMap<AppName, Recorded>,
        fail: Vec<AppName>,
        unprepared: Vec<AppName>,
        effects_left: Option<usize>,
        fit: Option<Failure>,
        log: Mutex<Vec<String>>,
    }

    struct Killed;

    impl Scripted {
        fn effect(&mut self, text: String) {
            if let Some(left) = &mut self.effects_left {
                if *left == 0 {
                    std::panic::resume_unwind(Box::new(Killed));
                }
                *left -= 1;
            }
            lock(&self.log).push(text);
        }

        fn run(&mut self, manifest: &[(&str, u8)]) -> Outcome {
            let wanted = manifest
                .iter()
                .map(|(name, n)| Wanted { app: app(name, *n), revision: revision(*n) })
                .collect();
            let records = self.records.clone();
            let known = |name: &AppName| records.get(name).cloned().unwrap_or_default();
            rollout(&plan(wanted, known, &Selection::default()), self, 2)
        }

        fn is(&self, name: &str) -> Option<Revision> {
            self.running.get(&name.parse().unwrap()).copied().flatten()
        }
    }

    impl Host for Scripted {
        type Bundle = ();

        fn prepare(&self, step: &Step) -> Result<(), Failure> {
            if self.unprepared.contains(&step.app.name) {
                return Err(Failure::new(ExitCode::Fetch, "no such commit"));
            }
            Ok(())
        }

        fn ready(&mut self) -> Result<(), Failure> {
            self.fit.clone().map_or(Ok(()), Err)
        }

        fn record_attempt(&mut self, step: &Step) -> Result<(), Failure> {
            self.effect(format!("attempt {}", step.app.name));
            self.records.entry(step.app.name.clone()).or_default().attempted = Some(step.revision);
            Ok(())
        }

        fn deploy(&mut self, step: &Step, (): ()) -> Result<(), Failure> {
            // Half-way: what runs is neither the old nor the new revision.
            self.effect(format!("stop {}", step.app.name));
            self.running.insert(step.app.name.clone(), None);
            self.effect(format!("start {}", step.app.name));
            if self.fail.contains(&step.app.name) {
                return Err(Failure::new(ExitCode::AppFailed, "exit 1"));
            }
            self.running.insert(step.app.name.clone(), Some(step.revision));
            Ok(())
        }

        fn record_success(&mut self, step: &Step, _: Duration) -> Result<(), Failure> {
            self.effect(format!("deployed {}", step.app.name));
            self.records.entry(step.app.name.clone()).or_default().deployed = Some(step.revision);
            self.effect(format!("attempt over {}", step.app.name));
            self.records.entry(step.app.name.clone()).or_default().attempted = None;
            Ok(())
        }

        fn record_failure(&mut self, _: &Step, _: &Failure, _: Duration) {}

        fn interrupted(&self) -> Option<ExitCode> {
            None
        }

        fn event(&self, _: &Event<'_>) {}
    }

    #[test]
    fn killed_anywhere_the_older_manifest_restores_every_app() {
        let (old, new) = ([("a", 1), ("b", 1), ("c", 1)], [("a", 2), ("b", 2), ("c", 2)]);
        let mut kills = 0;
        for failing in ["", "a", "b", "c"] {
            for effects in 0.. {
                let mut host = Scripted::default();
                assert_eq!(host.run(&old).exit_code(), ExitCode::Ok);
                host.fail = failing.parse().into_iter().collect();
                host.effects_left = Some(effects);
                let killed = catch_unwind(AssertUnwindSafe(|| host.run(&new))).is_err();
                kills += usize::from(killed);
                host.effects_left = None;
                host.fail.clear();
                assert_eq!(host.run(&old).exit_code(), ExitCode::Ok);
                for (name, n) in old {
                    assert_eq!(host.is(name), Some(revision(n)), "{failing:?} {effects} {name}");
                }
                if !killed {
                    break;
                }
            }
        }
        assert!(kills > 30, "{kills}");
    }

    #[test]
    fn the_first_failure_stops_and_the_next_run_goes_on() {
        let mut host = Scripted { fail: vec!["b".parse().unwrap()], ..Scripted::default() };
        let outcome = host.run(&[("a", 1), ("b", 1), ("c", 1)]);
        assert_eq!(outcome.exit_code(), ExitCode::AppFailed);
        assert_eq!(outcome.apps[0].result, AppResult::Deployed);
        assert!(matches!(outcome.apps[1].result, AppResult::Failed(_)));
        assert_eq!(outcome.apps[2].result, AppResult::NotRun);
        host.fail.clear();
        let outcome = host.run(&[("a", 1), ("b", 1), ("c", 1)]);
        assert_eq!(outcome.exit_code(), ExitCode::Ok);
        assert_eq!(outcome.apps[0].result, AppResult::Unchanged);
        assert_eq!(outcome.apps[2].result, AppResult::Deployed);
    }

    #[test]
    fn nothing_is_touched_on_an_unfit_host() {
        let unfit = Some(Failure::new(ExitCode::Unfit, "no tool"));
        let mut host = Scripted { fit: unfit, ..Scripted::default() };
        let outcome = host.run(&[("a", 1)]);
        assert_eq!(outcome.exit_code(), ExitCode::Unfit);
        assert_eq!(outcome.apps[0].result, AppResult::NotRun);
        assert!(lock(&host.log).is_empty());
    }

    #[test]
    fn nothing_is_touched_when_one_app_cannot_be_prepared() {
        let mut host = Scripted { unprepared: vec!["c".parse().unwrap()], ..Scripted::default() };
        let outcome = host.run(&[("a", 1), ("b", 1), ("c", 1)]);
        assert_eq!(outcome.exit_code(), ExitCode::Fetch);
        assert_eq!(outcome.apps[0].result, AppResult::NotRun);
        assert!(lock(&host.log).is_empty());
    }
}
