//! SIGTERM, SIGINT and SIGHUP, at calls spread over the whole of a run and in its hooks.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::Trials;
use crate::look;
use crate::shim::{self, Act};
use crate::support::wait_until;

/// What does not want to end, and what is hard to find: another group and session, a parent
/// that is gone, both.
const STUBBORN: &str = "trap '' TERM INT HUP; setsid sleep 7771 & (sleep 7772 &) ; \
    (setsid sh -c 'trap \"\" TERM INT HUP; sleep 7773; sleep 7773' >/dev/null 2>&1 &) ; \
    setsid sh -c '(setsid sleep 7774 &)' ; touch $hooks/reached; sleep 7775; sleep 7775";

/// Milliseconds since boot.
fn now() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").expect("Linux");
    let seconds: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).expect("seconds");
    Duration::from_secs_f64(seconds).as_millis().try_into().expect("small")
}

/// The promise.
pub(crate) fn anywhere(trials: &Trials) {
    while let Some(number) = trials.next() {
        let signal = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP][number % 3];
        trials.make(&format!("trial {number} ({signal})"), || trial(trials, number, signal));
    }
}

fn trial(trials: &Trials, number: usize, signal: Signal) {
    let mut estate = look::estate(number);
    estate.host.in_hook();
    let first = look::release(&estate, "v1");
    estate.deploy(&first).ok();
    let second = look::release(&estate, "v2");
    let host = &estate.host;
    host.reports();
    let in_hook = number.is_multiple_of(2);
    if in_hook {
        let event = ["ApplicationStop", "BeforeInstall", "ApplicationStart"][number / 2 % 3];
        look::hook(host, "api", event, STUBBORN);
    }
    estate.want(&second);
    let note = host.path("hooks/note");
    let mut command = host.command(&["deploy"]);
    // About as many calls as a run makes.
    let at = 1 + number * 7 % 500;
    let act = if in_hook { Act::Count } else { Act::Signal(signal) };
    shim::arm(&mut command, shim::RUN, act, at, &note);
    let running = host.start_command(command);
    let ran = if in_hook {
        let reached = || host.path("hooks/reached").exists();
        wait_until("the hook", Duration::from_secs(60), reached);
        let told = Instant::now();
        running.signal(signal);
        let ran = running.wait();
        assert!(told.elapsed() < Duration::from_secs(4), "{:?}", told.elapsed());
        Some(ran)
    } else {
        let ran = running.wait();
        if let Some(told) = shim::noted(&note, "signal") {
            let took = now().saturating_sub(told);
            assert!(took < 4_000, "ended {took} ms after the signal");
            Some(ran)
        } else {
            trials.note(format!("no call {at}"));
            drop(ran.ok());
            None
        }
    };
    if let Some(ran) = ran {
        // A signal behind the last app changes nothing any more but the exit code.
        let code = 128 + signal as i32;
        let ended = ran.status.code();
        assert!(ended == Some(code) || (!in_hook && ended == Some(0)), "{ended:?} {ran:?}");
        if ended == Some(code) {
            drop(ran.stdout_has("multideployer FAILED").stdout_has("multideployer.log run "));
        }
    }
    let left = host.processes();
    let ours: Vec<_> = left.iter().filter(|(_, line)| !line.contains("sshd")).collect();
    assert!(ours.is_empty(), "they still run: {ours:#?}");
    look::assert_no_false_claim(host, &second);
    look::hook(host, "api", "None", "true");
    estate.deploy(&second).ok();
    look::assert_converged(&estate, &second, "v2");
}
