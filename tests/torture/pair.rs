//! Two runs at once, and one of them killed.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::Trials;
use crate::estate::APPS;
use crate::look;

/// The promise.
pub(crate) fn at_once(trials: &Trials) {
    while let Some(number) = trials.next() {
        trials.make(&format!("trial {number}"), || trial(number));
    }
}

fn trial(number: usize) {
    let estate = look::estate(number);
    let host = &estate.host;
    let shell = "echo begin $PPID $DEPLOYMENT_ID $$ >>$hooks/work; sleep 0.05; \
                 echo end $PPID $DEPLOYMENT_ID $$ >>$hooks/work";
    for app in APPS {
        look::hook(host, app, "*", shell);
    }
    let first = look::release(&estate, "v1");
    let second = look::release(&estate, "v2");
    let pause = |n: usize| {
        let millis = u64::try_from(n % 900).expect("small");
        std::thread::sleep(Duration::from_millis(millis));
    };
    estate.want(&first);
    let one = host.start(&["deploy"]);
    pause(number * 211);
    estate.want(&second);
    let hasty = number % 4 == 3;
    let two = host.start(&["deploy", "--lock-wait", if hasty { "0s" } else { "80s" }]);
    let kill = number.is_multiple_of(2);
    if kill {
        pause(number * 97);
        let victim = if number % 8 == 4 { &two } else { &one };
        victim.signal(Signal::SIGKILL);
    }
    for (which, ran) in [("first", one.wait()), ("second", two.wait())] {
        let killed = std::os::unix::process::ExitStatusExt::signal(&ran.status) == Some(9);
        match ran.status.code() {
            None => assert!(kill && killed, "{which}: {ran:?}"),
            Some(9) => {
                assert!(hasty && which == "second", "{ran:?}");
                let said = format!("{}{}", ran.stdout, ran.stderr);
                let whom = said.contains("since") || said.contains("still at work");
                assert!(said.contains("pid ") && whom, "it does not say for whom: {ran:?}");
            }
            Some(0) => {}
            Some(_) => panic!("{which}: {ran:?}"),
        }
    }
    estate.deploy(&second).ok();
    look::assert_converged(&estate, &second, "v2");
    let work = host.read("hooks/work");
    let mut at_work = None;
    for line in work.lines() {
        let (what, who) = line.split_once(' ').expect("two words");
        match what {
            "begin" => assert_eq!(at_work.replace(who), None, "two at once:\n{work}"),
            _ => assert_eq!(at_work.take(), Some(who), "two at once:\n{work}"),
        }
    }
    assert!(at_work.is_none() && work.lines().count() >= 6, "{work}");
}
