//! SIGKILL, at calls spread over the whole of a run.

use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::Trials;
use crate::estate::Estate;
use crate::look;
use crate::shim::{self, Act};

/// One host in its life of kills, and the same life without them.
struct Life {
    estate: Estate,
    now: [String; 3],
    version: String,
}

impl Life {
    fn begin(number: usize) -> Self {
        let estate = look::estate(number);
        let now = look::release(&estate, "v-first");
        estate.deploy(&now).ok();
        Self { estate, now, version: "v-first".to_owned() }
    }

    /// How many calls `only` makes in a run that deploys something new.
    fn calls(&mut self, only: &str) -> usize {
        "v-counted".clone_into(&mut self.version);
        self.now = look::release(&self.estate, &self.version);
        self.estate.want(&self.now);
        let note = self.estate.host.path("hooks/note");
        let mut command = self.estate.host.command(&["deploy"]);
        shim::arm(&mut command, only, Act::Count, 0, &note);
        self.estate.host.start_command(command).wait().ok();
        let calls = shim::noted(&note, "calls").expect("the library was loaded");
        usize::try_from(calls).expect("a number")
    }

    /// Killed at the point `share` of the whole, then a run with the same or the older manifest.
    fn trial(&mut self, number: usize, only: &str, at: usize) {
        let host = &self.estate.host;
        let (version, older) = (format!("v{number}"), number % 3 == 1);
        let new = look::release(&self.estate, &version);
        if number % 5 == 4 {
            // Everything from the first byte, and the records from last_state.yaml alone.
            std::fs::remove_dir_all(host.path("cache")).expect("the cache");
        }
        host.reports();
        self.estate.want(&new);
        let note = host.path("hooks/note");
        let mut command = host.command(&["deploy"]);
        let by_time = number % 6 == 5 && only == shim::RUN;
        let act = if by_time { Act::Count } else { Act::Signal(Signal::SIGKILL) };
        shim::arm(&mut command, only, act, at, &note);
        let running = host.start_command(command);
        if by_time {
            std::thread::sleep(Duration::from_millis(u64::try_from(at).expect("small")));
            running.signal(Signal::SIGKILL);
        }
        let ran = running.wait();
        let killed = std::os::unix::process::ExitStatusExt::signal(&ran.status) == Some(9);
        look::assert_no_false_claim(host, &new);
        if only == shim::TOOL && shim::noted(&note, "signal").is_some() {
            // The run itself lives, and says what happened.
            let ran =
                ran.code(4).says("codedeploy-local itself, not a script, was killed: SIGKILL");
            drop(ran);
        } else if !killed {
            drop(ran.ok());
        }
        if older {
            self.estate.deploy(&self.now.clone()).ok();
        } else {
            self.estate.deploy(&new).ok();
            (self.now, self.version) = (new, version);
        }
        look::assert_converged(&self.estate, &self.now, &self.version);
        // A run with nothing to do finds nothing to do.
        self.estate.host.deploy().ok();
        assert_one_after_the_other(&self.estate.host.read("hooks/log"));
    }

    /// The mirrors are as large as if nothing had been killed: the cache made anew, with what
    /// runs now, and no more than a few commits beside it.
    fn assert_size(&self, releases: usize) {
        let cache = self.estate.host.path("cache");
        let used = look::size(&cache);
        std::fs::remove_dir_all(&cache).expect("the cache");
        self.estate.host.run(&["deploy", "--force"]).ok();
        let fresh = look::size(&cache);
        // Each release was fetched once, at most: 120 kB of noise in each of three apps.
        let most = fresh + u64::try_from(releases).expect("small") * 3 * 100_000;
        assert!(used < most, "{used} bytes are used, {fresh} are needed for what runs");
    }
}

/// Events of one deployment do not come between those of another.
fn assert_one_after_the_other(log: &str) {
    let mut over: Vec<(&str, &str)> = Vec::new();
    for line in log.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [app, _, _, commit] = words[..] else { panic!("{line:?}") };
        if over.last() != Some(&(app, commit)) {
            over.push((app, commit));
        }
    }
    let mut runs = over.clone();
    runs.dedup();
    // An app may be deployed twice in a row, but two apps never alternate.
    for window in runs.windows(4) {
        assert!(
            !(window[0] == window[2] && window[1] == window[3] && window[0].0 != window[1].0),
            "two codedeploy-local at once:\n{log}"
        );
    }
}

/// The run is killed.
pub(crate) fn the_run(trials: &Trials) {
    spread(trials, shim::RUN, |number| number);
}

/// codedeploy-local is killed.
pub(crate) fn the_tool(trials: &Trials) {
    // Only the built-in one makes its calls itself.
    spread(trials, shim::TOOL, |number| number * 2);
}

fn spread(trials: &Trials, only: &str, kind: fn(usize) -> usize) {
    static CALLS: [OnceLock<usize>; 2] = [const { OnceLock::new() }; 2];
    let mut life: Option<(Life, usize)> = None;
    while let Some(number) = trials.next() {
        let host = kind(number);
        let mut calls = 0;
        let what = format!("trial {number} ({only})");
        let whole = trials.make_uncounted(&what, || {
            let (life, lived) = life.get_or_insert_with(|| (Life::begin(host), 0));
            let slot = &CALLS[usize::from(only == shim::TOOL)];
            calls = *slot.get_or_init(|| life.calls(only));
            *lived += 1;
        });
        // From the first call to a few after the last, in an order that is not theirs.
        let at = 1 + (number * 379 % trials.count) * (calls + calls / 50) / trials.count;
        let whole = whole
            && trials.make(&format!("{what} at call {at} of {calls}"), || {
                life.as_mut().expect("one").0.trial(number, only, at);
            });
        if let Some((old, lived)) = life.take_if(|(_, lived)| !whole || *lived == 8)
            && whole
        {
            trials.make_uncounted(&format!("{what}: disk use"), || old.assert_size(lived));
        }
    }
    trials.note(format!("{:?} calls in a run", CALLS[usize::from(only == shim::TOOL)].get()));
}
