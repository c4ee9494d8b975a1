//! Tries to break what the README promises, many times, and counts.
//!
//! `scripts/torture` runs the long form; `cargo test` and `scripts/torture --short` a short
//! one. Arguments are parts of the promises' names. Each is tried on the real binary with
//! real servers; the points at which it is killed, interrupted or refused room are counted by
//! a library that is loaded into it (`shim.c`).

#![expect(clippy::print_stdout, reason = "a test program")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/signals.rs"]
mod signals;

#[path = "../it/estate.rs"]
#[expect(dead_code, reason = "made for another test program, too")]
mod estate;

mod damage;
mod disk;
mod kill;
mod look;
mod pair;
mod places;
mod shim;
mod signal;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// A promise, and how it is tried.
struct Promise {
    name: &'static str,
    /// Trials in the short and in the long form.
    trials: [usize; 2],
    /// Needs root.
    root: bool,
    /// Makes trials numbered from 0 to the count; called by several threads.
    run: fn(&Trials),
}

const PROMISES: [Promise; 8] = [
    Promise {
        name: "killed_anywhere_the_next_run_converges",
        trials: [12, 360],
        root: false,
        run: kill::the_run,
    },
    Promise {
        name: "codedeploy_local_killed_anywhere_fails_its_app_and_the_next_run_converges",
        trials: [3, 60],
        root: false,
        run: kill::the_tool,
    },
    Promise {
        name: "a_signal_anywhere_ends_the_run_and_all_it_started_within_four_seconds",
        trials: [6, 150],
        root: false,
        run: signal::anywhere,
    },
    Promise {
        name: "a_disk_that_is_full_or_fails_at_any_point_costs_nothing_but_the_run",
        trials: [6, 180],
        root: false,
        run: disk::at_any_call,
    },
    Promise {
        name: "a_small_disk_for_cache_state_log_or_destination_costs_nothing_but_the_run",
        trials: [8, 120],
        root: true,
        run: disk::of_any_size,
    },
    Promise {
        name: "damage_is_mended_in_the_same_run_or_said_with_a_remedy",
        trials: [damage::KINDS / 2, 2 * damage::KINDS],
        root: false,
        run: damages,
    },
    Promise {
        name: "a_place_that_cannot_be_used_costs_nothing_but_the_run",
        // The short form does without immutable files, which not every file system knows.
        trials: [7, places::KINDS],
        root: true,
        run: places::unusable,
    },
    Promise {
        name: "of_two_runs_at_once_one_works_at_a_time",
        trials: [3, 100],
        root: false,
        run: pair::at_once,
    },
];

/// The trials of one promise, given out one by one.
pub(crate) struct Trials {
    count: usize,
    next: AtomicUsize,
    done: AtomicUsize,
    failures: Mutex<Vec<String>>,
    notes: Mutex<BTreeSet<String>>,
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

impl Trials {
    /// The number of the next one.
    fn next(&self) -> Option<usize> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        (number < self.count).then_some(number)
    }

    /// Makes one; a panic is its failure. False if it failed: what it used is spoilt.
    fn make(&self, what: &str, trial: impl FnOnce()) -> bool {
        let failed = catch_unwind(AssertUnwindSafe(trial)).is_err();
        self.done.fetch_add(1, Ordering::SeqCst);
        if failed {
            let why = PANIC.with_borrow(Clone::clone);
            println!("FAILED {what}: {why}");
            self.failures.lock().expect("no panic").push(format!("{what}: {why}"));
        }
        !failed
    }

    /// The same for what belongs to a trial; only a failure counts.
    fn make_uncounted(&self, what: &str, trial: impl FnOnce()) -> bool {
        let whole = self.make(what, trial);
        self.done.fetch_sub(usize::from(whole), Ordering::SeqCst);
        whole
    }

    /// Something worth to be seen at the end, once.
    fn note(&self, text: String) {
        self.notes.lock().expect("no panic").insert(text);
    }
}

fn damages(trials: &Trials) {
    while let Some(number) = trials.next() {
        trials.make(damage::name(number), || damage::trial(number));
    }
}

fn main() {
    let mut long = false;
    let mut list = false;
    let mut filters = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--long" => long = true,
            "--list" => list = true,
            option if option.starts_with('-') => {}
            _ => filters.push(argument),
        }
    }
    signals::heed();
    std::panic::set_hook(Box::new(|panic| PANIC.with_borrow_mut(|text| *text = panic.to_string())));
    let wanted = |promise: &&Promise| {
        filters.is_empty() || filters.iter().any(|filter| promise.name.contains(filter.as_str()))
    };
    let mut failed = 0;
    let mut rows = Vec::new();
    for promise in PROMISES.iter().filter(wanted) {
        if list {
            println!("{}: test", promise.name);
            continue;
        }
        if promise.root && !support::is_root() {
            println!("test {} ... ignored", promise.name);
            continue;
        }
        let began = Instant::now();
        let trials = Trials {
            count: promise.trials[usize::from(long)],
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            failures: Mutex::default(),
            notes: Mutex::default(),
        };
        let threads = std::thread::available_parallelism().map_or(2, usize::from) + 1;
        std::thread::scope(|scope| {
            for _ in 0..threads.min(trials.count) {
                scope.spawn(|| (promise.run)(&trials));
            }
        });
        let failures = trials.failures.into_inner().expect("no panic");
        let made = trials.done.into_inner();
        let ok = failures.is_empty() && made >= trials.count;
        failed += usize::from(!ok);
        println!("test {} ... {}", promise.name, if ok { "ok" } else { "FAILED" });
        for note in trials.notes.into_inner().expect("no panic") {
            println!("  {note}");
        }
        let seconds = began.elapsed().as_secs();
        rows.push(format!("{made:>6} {:>8} {seconds:>7}  {}", failures.len(), promise.name));
    }
    if !rows.is_empty() {
        println!("\ntrials failures seconds  promise\n{}", rows.join("\n"));
    }
    if failed > 0 {
        std::process::exit(1);
    }
}
