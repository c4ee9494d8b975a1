//! Inside the hook of an outer deployment: little room, many signals.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::estate::Estate;
use crate::support::agents::Version;
use crate::support::host::TestHost;

/// Bytes as the agent counts them: each line with its prefix.
fn counted(text: &str) -> usize {
    text.lines().map(|line| line.len() + 9).sum()
}

#[test]
fn the_block_is_all_there_is_on_stdout_and_fits() {
    let mut host = TestHost::new();
    host.in_hook();
    let estate = Estate::new(host);
    let one = estate.release_all("v1");
    let ran = estate.deploy(&one).ok();
    assert!(ran.stdout.starts_with("multideployer OK: 3 deployed"), "{ran:?}");
    assert_eq!(ran.stderr, "");

    let shell = "case $LIFECYCLE_EVENT in ApplicationStart) \
                 for i in $(seq 200); do echo \"line $i of a long story\"; done; \
                 head -c 9000 /dev/zero | tr '\\0' x; echo; echo the end >&2; exit 7 ;; esac";
    estate.host.hook("api", shell);
    let two = estate.release_all("v2");
    let ran = estate.deploy(&two).code(4);
    assert!(counted(&ran.stdout) <= 1800, "{}\n{}", counted(&ran.stdout), ran.stdout);
    assert!(ran.stdout.lines().all(|line| line.chars().count() <= 160), "{}", ran.stdout);
    assert!(ran.stdout.starts_with(&format!("multideployer FAILED (4) api {}", &two[1][..7])));
    for text in
        ["hook.sh", "ApplicationStart", "7", "  | the end", "changed : gateway", "not run : worker"]
    {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
    assert!(ran.stdout.lines().last().expect("a line").contains("multideployer.log run "));
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_signal_ends_the_run_and_its_children_within_four_seconds() {
    crate::signals::heed();
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGHUP, 129)] {
        let mut host = TestHost::new();
        host.in_hook();
        let estate = Estate::new(host);
        let one = estate.release_all("v1");
        // A hook that does not want to end, and a child that left its group and session.
        let shell = "case $LIFECYCLE_EVENT in ApplicationStart) trap '' TERM INT HUP; \
                     setsid sleep 7776 & touch $hooks/reached; sleep 7777; sleep 7777 ;; esac";
        estate.host.hook("api", shell);
        estate.want(&one);
        let running = estate.host.start(&["deploy"]);
        let reached = estate.host.path("hooks/reached");
        let started = Instant::now();
        while !reached.exists() {
            assert!(started.elapsed() < Duration::from_secs(30), "the hook was not reached");
            std::thread::sleep(Duration::from_millis(20));
        }
        let told = Instant::now();
        running.signal(signal);
        let ran = running.wait();
        assert!(told.elapsed() < Duration::from_secs(4), "{signal}: {:?}", told.elapsed());
        let ran = ran.code(code).stdout_has("multideployer FAILED").stdout_has("api");
        drop(ran);
        let left: Vec<_> =
            estate.host.processes().into_iter().filter(|(_, line)| line.contains("777")).collect();
        assert!(left.is_empty(), "{signal}: {left:?}");
        assert_eq!(estate.host.recorded("gateway", "deployed").as_ref(), Some(&one[0]));
        assert_eq!(estate.host.recorded("api", "attempted").as_ref(), Some(&one[1]));
        estate.host.works("api");
        estate.deploy(&one).ok();
        estate.assert_deployed(&one);
    }
}

#[test]
fn a_daemon_left_behind_does_not_hold_the_hook_open() {
    let mut host = TestHost::with_agent(Version::One);
    host.in_hook();
    let estate = Estate::new(host);
    let one = estate.release_all("v1");
    estate.host.agent().script("api", "keep_output");
    let started = Instant::now();
    estate.deploy(&one).ok();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    for call in estate.host.agent().deployments() {
        assert_eq!(call.fds[0], "/dev/null", "{:?}", call.fds);
        assert!(call.fds[1].starts_with("pipe:") && call.fds[2].starts_with("pipe:"));
    }
}

#[test]
fn home_unset_and_a_narrow_umask_change_nothing() {
    let mut host = TestHost::new();
    host.unset("HOME");
    let estate = Estate::with_ssh(host);
    let one = estate.release_all("v1");
    estate.want(&one);
    let mut command = std::process::Command::new("sh");
    let inner = estate.host.command(&["deploy"]);
    command.args(["-c", "umask 077; exec \"$@\"", "sh"]);
    command.arg(inner.get_program()).args(inner.get_args()).env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    estate.host.start_command(command).wait().ok();
    estate.assert_installed(["v1"; 3]);
    let environ = estate.host.read("hooks/api.ApplicationStart.environ");
    assert!(environ.split('\0').any(|entry| entry.starts_with("HOME=/")), "{environ}");
}
