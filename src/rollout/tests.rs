use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use super::*;
use crate::domain::OnFailure;
use crate::plan::tests::{app, revision};
use crate::plan::{Recorded, Selection, Wanted, plan};

/// A host that exists in memory and can be killed (by a panic) before its nth effect.
#[derive(Default)]
struct Scripted {
    running: BTreeMap<AppName, Option<Revision>>,
    records: BTreeMap<AppName, Recorded>,
    /// These revisions of these apps cannot be deployed.
    fail: Vec<(AppName, Revision)>,
    unprepared: Vec<AppName>,
    no_way_back: Vec<AppName>,
    on_failure: OnFailure,
    /// Who needs whom.
    needs: Vec<(&'static str, &'static str)>,
    /// A signal comes while this app is put back.
    signal_at: Option<AppName>,
    signalled: bool,
    /// Seconds that are left. An app takes 10, but for the one that takes 100.
    time: Option<u64>,
    long: Option<AppName>,
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
        self.log.lock().unwrap().push(text);
    }

    fn run(&mut self, manifest: &[(&str, u8)]) -> Outcome {
        let wanted = manifest
            .iter()
            .map(|(name, n)| {
                let mut app = app(name, *n);
                let needed = self.needs.iter().filter(|(who, _)| who == name);
                app.needs = needed.map(|(_, whom)| whom.parse().unwrap()).collect();
                Wanted { app, revision: revision(*n) }
            })
            .collect();
        let records = self.records.clone();
        let selection = Selection { policy: self.on_failure, ..Selection::default() };
        let known = |name: &AppName| records.get(name).cloned().unwrap_or_default();
        rollout(&plan(wanted, known, &selection), self, 2)
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

    fn prepare_back(&self, back: &Step) -> Result<(), Failure> {
        if self.no_way_back.contains(&back.app.name) {
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
        if self.signal_at.as_ref().is_some_and(|name| *name == step.app.name && step.puts_back()) {
            self.signalled = true;
            return Err(Failure::new(ExitCode::Terminated, "ended by a signal"));
        }
        if self.fail.contains(&(step.app.name.clone(), step.revision)) {
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

    fn time_left(&self) -> Option<Duration> {
        self.time.map(Duration::from_secs)
    }

    fn expects(&self, step: &Step) -> Duration {
        let long = self.long.as_ref() == Some(&step.app.name);
        Duration::from_secs(if long { 100 } else { 10 })
    }

    fn interrupted(&self) -> Option<ExitCode> {
        self.signalled.then_some(ExitCode::Terminated)
    }

    fn event(&self, _: &Event<'_>) {}
}

fn fails(apps: &[(&str, u8)]) -> Vec<(AppName, Revision)> {
    apps.iter().map(|(name, n)| (name.parse().unwrap(), revision(*n))).collect()
}

#[test]
fn killed_anywhere_the_older_manifest_restores_every_app() {
    let (old, new) = ([("a", 1), ("b", 1), ("c", 1)], [("a", 2), ("b", 2), ("c", 2)]);
    let mut kills = 0;
    // What fails: nothing, one app, two, and one with another that cannot be put back.
    let failing: [&[(&str, u8)]; 7] = [
        &[],
        &[("a", 2)],
        &[("b", 2)],
        &[("c", 2)],
        &[("a", 2), ("c", 2)],
        &[("c", 2), ("b", 1)],
        &[("c", 2), ("c", 1)],
    ];
    for (on_failure, failing) in [OnFailure::Stop, OnFailure::Continue, OnFailure::Restore]
        .into_iter()
        .flat_map(|on_failure| failing.map(|failing| (on_failure, failing)))
    {
        for effects in 0.. {
            let about = format!("{on_failure} {failing:?} {effects}");
            let mut host = Scripted { on_failure, ..Scripted::default() };
            assert_eq!(host.run(&old).exit_code(), ExitCode::Ok);
            host.fail = fails(failing);
            host.effects_left = Some(effects);
            let killed = catch_unwind(AssertUnwindSafe(|| host.run(&new))).is_err();
            kills += usize::from(killed);
            // The records never claim more than is so.
            for (name, recorded) in &host.records {
                if recorded.attempted.is_none() {
                    assert_eq!(host.is(name.as_str()), recorded.deployed, "{about} {name}");
                }
            }
            host.effects_left = None;
            host.fail.clear();
            assert_eq!(host.run(&old).exit_code(), ExitCode::Ok);
            for (name, n) in old {
                assert_eq!(host.is(name), Some(revision(n)), "{about} {name}");
            }
            if !killed {
                break;
            }
        }
    }
    assert!(kills > 200, "{kills}");
}

#[test]
fn the_first_failure_stops_and_the_next_run_goes_on() {
    let mut host = Scripted { fail: fails(&[("b", 1)]), ..Scripted::default() };
    let outcome = host.run(&[("a", 1), ("b", 1), ("c", 1)]);
    assert_eq!(outcome.exit_code(), ExitCode::AppFailed);
    assert_eq!(outcome.apps[0].result, AppResult::Deployed);
    assert!(matches!(outcome.apps[1].result, AppResult::Failed(_)));
    assert_eq!(outcome.apps[2].result, AppResult::NotRun(NotRun::Ended));
    host.fail.clear();
    let outcome = host.run(&[("a", 1), ("b", 1), ("c", 1)]);
    assert_eq!(outcome.exit_code(), ExitCode::Ok);
    assert_eq!(outcome.apps[0].result, AppResult::Unchanged);
    assert_eq!(outcome.apps[2].result, AppResult::Deployed);
}

#[test]
fn continue_goes_on_with_the_others() {
    let on_failure = OnFailure::Continue;
    let mut host = Scripted { on_failure, fail: fails(&[("a", 1)]), ..Scripted::default() };
    let outcome = host.run(&[("a", 1), ("b", 1), ("c", 1)]);
    assert_eq!(outcome.exit_code(), ExitCode::AppFailed);
    assert!(matches!(outcome.apps[0].result, AppResult::Failed(_)));
    assert_eq!(outcome.apps[1].result, AppResult::Deployed);
    assert_eq!(outcome.apps[2].result, AppResult::Deployed);
}

#[test]
fn what_needs_a_failed_app_is_not_run() {
    let mut host = Scripted {
        on_failure: OnFailure::Continue,
        needs: vec![("b", "a"), ("c", "b")],
        fail: fails(&[("a", 1)]),
        ..Scripted::default()
    };
    let outcome = host.run(&[("d", 1), ("c", 1), ("b", 1), ("a", 1)]);
    let result = |name: &str| {
        let app = outcome.apps.iter().find(|app| app.name.as_str() == name);
        app.unwrap().result.clone()
    };
    let needs = |name: &str| AppResult::NotRun(NotRun::Needs(name.parse().unwrap()));
    assert_eq!(result("d"), AppResult::Deployed);
    assert!(matches!(result("a"), AppResult::Failed(_)));
    assert_eq!(result("b"), needs("a"));
    assert_eq!(result("c"), needs("b"));
    // What has to be done no more is met: `a` is current in the next run.
    host.fail.clear();
    assert_eq!(host.run(&[("a", 1)]).exit_code(), ExitCode::Ok);
    let outcome = host.run(&[("d", 1), ("c", 1), ("b", 1), ("a", 1)]);
    assert_eq!(outcome.exit_code(), ExitCode::Ok);
    // Where a failure ends the run, the reason is said all the same.
    host.on_failure = OnFailure::Stop;
    host.fail = fails(&[("a", 2)]);
    let outcome = host.run(&[("c", 2), ("d", 2), ("b", 2), ("a", 2)]);
    assert_eq!(outcome.apps[2].result, needs("a"));
    assert_eq!(outcome.apps[3].result, needs("b"));
}

#[test]
fn what_would_not_be_over_in_time_is_not_started() {
    let manifest = [("a", 1), ("b", 1), ("c", 1)];
    let mut host = Scripted { time: Some(60), long: "b".parse().ok(), ..Scripted::default() };
    let outcome = host.run(&manifest);
    assert_eq!(outcome.exit_code(), ExitCode::Deadline);
    assert_eq!(outcome.apps[0].result, AppResult::Deployed);
    let late = AppResult::NotRun(NotRun::NoTime { left: 60, expected: 100 });
    assert_eq!(outcome.apps[1].result, late);
    assert_eq!(outcome.apps[2].result, AppResult::NotRun(NotRun::Ended));
    // Where a failure would not end the run, this does not either.
    host.on_failure = OnFailure::Continue;
    host.needs = vec![("d", "b")];
    let outcome = host.run(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
    assert_eq!(outcome.exit_code(), ExitCode::Deadline);
    assert_eq!(outcome.apps[2].result, AppResult::Deployed);
    let needs = NotRun::Needs("b".parse().unwrap());
    assert_eq!(outcome.apps[3].result, AppResult::NotRun(needs));
    host.time = None;
    assert_eq!(host.run(&manifest).exit_code(), ExitCode::Ok);
}

/// A host that runs the old manifest and restores.
fn restoring(fail: &[(&str, u8)]) -> Scripted {
    let mut host = Scripted { on_failure: OnFailure::Restore, ..Scripted::default() };
    assert_eq!(host.run(&[("a", 1), ("b", 1), ("c", 1)]).exit_code(), ExitCode::Ok);
    host.log.lock().unwrap().clear();
    host.fail = fails(fail);
    host
}

#[test]
fn restore_puts_back_the_failed_app_and_those_before_it() {
    let mut host = restoring(&[("c", 2)]);
    let outcome = host.run(&[("a", 2), ("b", 1), ("c", 2)]);
    assert_eq!(outcome.exit_code(), ExitCode::Restored);
    assert_eq!(outcome.apps[0].result, AppResult::PutBack { failure: None });
    assert_eq!(outcome.apps[1].result, AppResult::Unchanged);
    assert!(matches!(outcome.apps[2].result, AppResult::PutBack { failure: Some(_) }));
    let starts: Vec<String> = host.log.lock().unwrap().clone();
    let starts: Vec<&str> = starts.iter().filter_map(|e| e.strip_prefix("start ")).collect();
    assert_eq!(starts, ["a", "c", "c", "a"]);
    // The same manifest is tried again by the next run, the older one has nothing to do.
    host.log.lock().unwrap().clear();
    assert_eq!(host.run(&[("a", 1), ("b", 1), ("c", 1)]).exit_code(), ExitCode::Ok);
    assert!(host.log.lock().unwrap().is_empty());
    assert_eq!(host.run(&[("a", 2), ("b", 1), ("c", 2)]).exit_code(), ExitCode::Restored);
}

#[test]
fn what_cannot_be_put_back_is_said_and_the_rest_is_put_back() {
    // `b` fails again, `n` is new.
    let mut host = restoring(&[("c", 2), ("b", 1)]);
    let outcome = host.run(&[("a", 2), ("n", 2), ("b", 2), ("c", 2)]);
    assert_eq!(outcome.exit_code(), ExitCode::RestoreFailed);
    assert_eq!(outcome.apps[0].result, AppResult::PutBack { failure: None });
    let why = |index: usize| match &outcome.apps[index].result {
        AppResult::NotPutBack { failure: None, why } => why.line(),
        other => panic!("{other:?}"),
    };
    assert!(why(1).contains("nothing was deployed before"), "{}", why(1));
    assert_eq!(why(2), "exit 1");
    assert!(matches!(outcome.apps[3].result, AppResult::PutBack { failure: Some(_) }));

    // What could not be prepared was known before.
    let mut host = restoring(&[("c", 2)]);
    host.no_way_back = vec!["a".parse().unwrap()];
    let outcome = host.run(&[("a", 2), ("b", 1), ("c", 2)]);
    assert_eq!(outcome.exit_code(), ExitCode::RestoreFailed);
    assert_eq!(host.is("a"), Some(revision(2)));
    assert_eq!(host.is("c"), Some(revision(1)));
}

#[test]
fn a_signal_ends_the_putting_back_at_once() {
    let mut host = restoring(&[("c", 2)]);
    host.signal_at = Some("b".parse().unwrap());
    let outcome = host.run(&[("a", 2), ("b", 2), ("c", 2)]);
    assert_eq!(outcome.exit_code(), ExitCode::Terminated);
    assert!(matches!(outcome.apps[2].result, AppResult::PutBack { .. }));
    assert!(matches!(outcome.apps[1].result, AppResult::NotPutBack { .. }));
    assert!(matches!(outcome.apps[0].result, AppResult::NotPutBack { .. }));
    // `a` still runs its new revision, and the records say so.
    assert_eq!(host.is("a"), Some(revision(2)));
    assert_eq!(host.records[&"b".parse().unwrap()].attempted, Some(revision(1)));
}

#[test]
fn nothing_is_touched_on_an_unfit_host() {
    let unfit = Some(Failure::new(ExitCode::Unfit, "no tool"));
    let mut host = Scripted { fit: unfit, ..Scripted::default() };
    let outcome = host.run(&[("a", 1)]);
    assert_eq!(outcome.exit_code(), ExitCode::Unfit);
    assert_eq!(outcome.apps[0].result, AppResult::NotRun(NotRun::Ended));
    assert!(host.log.lock().unwrap().is_empty());
}

#[test]
fn nothing_is_touched_when_one_app_cannot_be_prepared() {
    let mut host = Scripted { unprepared: vec!["c".parse().unwrap()], ..Scripted::default() };
    let outcome = host.run(&[("a", 1), ("b", 1), ("c", 1)]);
    assert_eq!(outcome.exit_code(), ExitCode::Fetch);
    assert_eq!(outcome.apps[0].result, AppResult::NotRun(NotRun::Ended));
    assert!(host.log.lock().unwrap().is_empty());
}
