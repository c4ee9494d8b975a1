//! The walk itself.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{AppOutcome, AppResult, Event, Host, NotRun, Outcome};
use crate::domain::{AppName, OnFailure};
use crate::error::{ExitCode, Failure};
use crate::plan::{Action, Plan, Step};
use crate::sync::{into_inner, lock};

/// Carries out a plan. At most `jobs` apps are prepared at a time; deployments are
/// sequential, in the plan's order.
pub fn rollout<H: Host>(plan: &Plan, host: &mut H, jobs: usize) -> Outcome {
    let mut walk = Walk {
        plan,
        results: plan.steps.iter().map(|step| known(&step.action)).collect(),
        ready: plan.steps.iter().map(|_| None).collect(),
        touched: Vec::new(),
        host,
    };
    let refused = if walk.prepare(jobs) {
        match walk.host.ready() {
            Ok(()) => {
                walk.deploy_all();
                None
            }
            Err(failure) => Some(failure),
        }
    } else {
        None
    };
    let signal = walk.host.interrupted();
    Outcome { apps: walk.outcomes(), signal, refused }
}

/// The result of a step that does nothing.
fn known(action: &Action) -> Option<Ended> {
    let result = match action {
        Action::Keep => AppResult::Unchanged,
        Action::Skip(reason) => AppResult::Skipped(reason.clone()),
        Action::Deploy(_) => return None,
    };
    Some((result, Duration::ZERO))
}

/// How a step ended, and how long its deployment took.
type Ended = (AppResult, Duration);

/// What was prepared for one step.
struct Ready<B> {
    new: Option<B>,
    /// What the app is put back with; `None` if that cannot become necessary.
    back: Option<Result<B, Failure>>,
}

struct Walk<'a, H: Host> {
    plan: &'a Plan,
    host: &'a mut H,
    /// One for each step; `None` until it is known.
    results: Vec<Option<Ended>>,
    ready: Vec<Option<Ready<H::Bundle>>>,
    /// The steps that changed the host, in the order they did.
    touched: Vec<usize>,
}

/// How far one app's deployment came.
enum Trial {
    Done,
    /// Nothing was done to the app.
    Untouched(Failure),
    /// What is there now is not known.
    Failed(Failure),
}

impl<H: Host> Walk<'_, H> {
    /// Prepares all; whether there is something to deploy now.
    fn prepare(&mut self, jobs: usize) -> bool {
        let mut good = true;
        for (index, prepared) in prepare_all(self.plan, self.host, jobs).into_iter().enumerate() {
            match prepared {
                None => {}
                Some(Ok(ready)) => self.ready[index] = Some(ready),
                Some(Err(failure)) => {
                    good = false;
                    let result = AppResult::NotPrepared(failure);
                    self.results[index] = Some((result, Duration::ZERO));
                }
            }
        }
        good && self.ready.iter().any(Option::is_some) && self.host.interrupted().is_none()
    }

    fn deploy_all(&mut self) {
        let plan = self.plan;
        for (index, step) in plan.steps.iter().enumerate() {
            if self.host.interrupted().is_some() {
                break;
            }
            if let Some(needed) = self.unmet(step) {
                self.results[index] =
                    Some((AppResult::NotRun(NotRun::Needs(needed)), Duration::ZERO));
                continue;
            }
            let new = self.ready[index].as_mut().and_then(|ready| ready.new.take());
            let Some(bundle) = new else { continue };
            if let Some(late) = self.late(step) {
                self.results[index] = Some((AppResult::NotRun(late), Duration::ZERO));
                // The order counts: what comes later is not preferred to what is earlier.
                if step.on_failure == OnFailure::Continue {
                    continue;
                }
                break;
            }
            let (trial, took) = self.carry_out(step, bundle);
            if !matches!(trial, Trial::Untouched(_)) {
                self.touched.push(index);
            }
            let (result, failed) = match trial {
                Trial::Done => (AppResult::Deployed, false),
                Trial::Untouched(failure) | Trial::Failed(failure) => {
                    (AppResult::Failed(failure), true)
                }
            };
            self.results[index] = Some((result, took));
            if !failed {
                continue;
            }
            match step.on_failure {
                // A signal came: there is no time for anything else.
                _ if self.host.interrupted().is_some() => break,
                OnFailure::Continue => {}
                OnFailure::Stop => break,
                OnFailure::Restore => {
                    self.put_all_back();
                    break;
                }
            }
        }
    }

    /// What a step needs that is not as it was wanted. What this run leaves alone is not
    /// looked at.
    fn unmet(&self, step: &Step) -> Option<AppName> {
        if !step.deploys() {
            return None;
        }
        let ended = |name: &AppName| {
            let place = self.plan.steps.iter().position(|other| other.app.name == *name)?;
            self.results[place].as_ref().map(|(result, _)| result)
        };
        let bad = |name: &&AppName| {
            matches!(
                ended(name),
                Some(
                    AppResult::Failed(_)
                        | AppResult::NotRun(_)
                        | AppResult::PutBack { .. }
                        | AppResult::NotPutBack { .. }
                )
            )
        };
        step.app.needs.iter().find(bad).cloned()
    }

    /// Whether a step would not be over in time.
    fn late(&self, step: &Step) -> Option<NotRun> {
        let left = self.host.time_left()?;
        let expected = self.host.expects(step);
        (left.is_zero() || left < expected).then(|| NotRun::NoTime {
            left: left.as_secs(),
            expected: expected.as_secs() + u64::from(expected.subsec_nanos() > 0),
        })
    }

    /// Puts back what was touched, last first.
    fn put_all_back(&mut self) {
        for index in std::mem::take(&mut self.touched).into_iter().rev() {
            let step = &self.plan.steps[index];
            let (failure, took) = match self.results[index].take() {
                Some((AppResult::Failed(failure), took)) => (Some(failure), took),
                Some((_, took)) => (None, took),
                None => (None, Duration::ZERO),
            };
            let result = if failure.is_none() && step.from == Some(step.revision) {
                // By force, the same commit: it is what it was.
                AppResult::Deployed
            } else {
                match self.put_back(index, failure.is_none()) {
                    Ok(()) => AppResult::PutBack { failure },
                    Err(why) => AppResult::NotPutBack { failure, why },
                }
            };
            self.results[index] = Some((result, took));
        }
    }

    fn put_back(&mut self, index: usize, done: bool) -> Result<(), Failure> {
        let Some(back) = self.plan.steps[index].back(done) else {
            let why = "nothing was deployed before, so there is nothing to go back to";
            return Err(Failure::new(ExitCode::RestoreFailed, why));
        };
        if let Some(signal) = self.host.interrupted() {
            return Err(Failure::new(signal, "a signal ended the run before its turn"));
        }
        let prepared = self.ready[index].as_mut().and_then(|ready| ready.back.take());
        let bundle = match prepared {
            Some(Ok(bundle)) => bundle,
            Some(Err(failure)) => {
                return Err(failure.context("what was deployed before could not be prepared"));
            }
            None => {
                let why = "what was deployed before was not prepared";
                return Err(Failure::new(ExitCode::Unexpected, why));
            }
        };
        match self.carry_out(&back, bundle).0 {
            Trial::Done => Ok(()),
            Trial::Untouched(failure) | Trial::Failed(failure) => Err(failure),
        }
    }

    fn carry_out(&mut self, step: &Step, bundle: H::Bundle) -> (Trial, Duration) {
        let started = Instant::now();
        self.host.event(&Event::Deploying(step));
        let trial = self.try_step(step, bundle, started);
        let took = started.elapsed();
        let failure = match &trial {
            Trial::Done => None,
            Trial::Untouched(failure) | Trial::Failed(failure) => Some(failure),
        };
        self.host.event(&Event::Deployed(step, failure, took));
        (trial, took)
    }

    /// In this order, each durable before the next: killed at any instant, the records never
    /// claim more than happened.
    fn try_step(&mut self, step: &Step, bundle: H::Bundle, started: Instant) -> Trial {
        if let Err(failure) = self.host.record_attempt(step) {
            return Trial::Untouched(failure);
        }
        let deployed = self.host.deploy(step, bundle);
        let recorded = deployed.and_then(|()| self.host.record_success(step, started.elapsed()));
        match recorded {
            Ok(()) => Trial::Done,
            Err(failure) => {
                self.host.record_failure(step, &failure, started.elapsed());
                Trial::Failed(failure)
            }
        }
    }

    fn outcomes(mut self) -> Vec<AppOutcome> {
        // Where the run ended early, some would not have been run anyway.
        for (index, step) in self.plan.steps.iter().enumerate() {
            if self.results[index].is_none() {
                let why = self.unmet(step).map_or(NotRun::Ended, NotRun::Needs);
                self.results[index] = Some((AppResult::NotRun(why), Duration::ZERO));
            }
        }
        let steps = self.plan.steps.iter().zip(self.results);
        steps
            .map(|(step, ended)| {
                let ended_early = (AppResult::NotRun(NotRun::Ended), Duration::ZERO);
                let (result, took) = ended.unwrap_or(ended_early);
                let name = step.app.name.clone();
                AppOutcome { name, from: step.from, to: step.revision, result, took }
            })
            .collect()
    }
}

/// One app's preparation; `None` if it needs none or was not reached.
type Prepared<B> = Option<Result<Ready<B>, Failure>>;

fn prepare_all<H: Host>(plan: &Plan, host: &H, jobs: usize) -> Vec<Prepared<H::Bundle>> {
    let deployments: Vec<usize> =
        (0..plan.steps.len()).filter(|&index| plan.steps[index].deploys()).collect();
    let prepared = in_parallel(
        deployments.len(),
        jobs,
        || host.interrupted().is_some(),
        |number| prepare_one(plan, deployments[number], host),
    );
    let mut all: Vec<Prepared<H::Bundle>> = plan.steps.iter().map(|_| None).collect();
    for (index, one) in deployments.into_iter().zip(prepared) {
        all[index] = one;
    }
    all
}

/// Does `work` for each number below `count`, `jobs` at a time, until `stop` says so. What it
/// did not come to is `None`.
pub fn in_parallel<T: Send>(
    count: usize,
    jobs: usize,
    stop: impl Fn() -> bool + Sync,
    work: impl Fn(usize) -> T + Sync,
) -> Vec<Option<T>> {
    let slots: Vec<Mutex<Option<T>>> = (0..count).map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, count.max(1)) {
            scope.spawn(|| {
                while !stop() {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(slot) = slots.get(number) else { break };
                    let done = work(number);
                    *lock(slot) = Some(done);
                }
            });
        }
    });
    slots.into_iter().map(into_inner).collect()
}

fn prepare_one<H: Host>(plan: &Plan, index: usize, host: &H) -> Result<Ready<H::Bundle>, Failure> {
    let step = &plan.steps[index];
    let started = Instant::now();
    host.event(&Event::Preparing(step));
    let new = host.prepare(step);
    let back = match step.back(false) {
        Some(back) if new.is_ok() && plan.may_be_put_back(index) => Some(host.prepare_back(&back)),
        _ => None,
    };
    host.event(&Event::Prepared(step, new.as_ref().err(), started.elapsed()));
    if let Some(Err(failure)) = &back {
        host.event(&Event::NoWayBack(step, failure));
    }
    Ok(Ready { new: Some(new?), back })
}
