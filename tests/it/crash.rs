//! Killed at any step, the older manifest restores every app.

use std::time::Duration;

use crate::estate::{Estate, hosts};
use crate::support::agents::Version;
use crate::support::host::TestHost;
use crate::support::wait_until;

/// Deploys `one`, then `two` with a hook that kills the run, then `one` again.
fn killed_then_older(estate: &Estate, kill: &str) {
    let one = estate.release_all("v1");
    estate.deploy(&one).ok();
    let two = estate.release_all("v2");
    estate.host.hook("api", kill);
    estate.want(&two);
    let running = estate.host.start(&["deploy"]);
    estate.host.write("hooks/run.pid", &running.pid().to_string());
    running.wait().killed();
    assert_eq!(estate.host.recorded("api", "attempted").as_ref(), Some(&two[1]), "{kill}");
    assert_eq!(estate.host.recorded("gateway", "deployed").as_ref(), Some(&two[0]), "{kill}");
    assert!(!estate.host.read("state/last_state.yaml").contains(&two[1]), "{kill}");
    estate.host.hook_works("api");
    estate.deploy(&one).ok();
    estate.assert_deployed(&one);
    estate.assert_installed(["v1"; 3]);
    assert!(!estate.host.path("srv/api/only-in-v2").exists(), "{kill}");
}

#[test]
fn killed_in_a_hook_the_older_manifest_restores_every_app() {
    for event in
        ["ApplicationStop", "BeforeInstall", "AfterInstall", "ApplicationStart", "ValidateService"]
    {
        let estate = Estate::new(TestHost::new());
        let wait = "while [ ! -s $hooks/run.pid ]; do sleep 0.05; done";
        let kill =
            format!("case $LIFECYCLE_EVENT in {event}) {wait}; kill -9 $(run); sleep 0.3 ;; esac");
        killed_then_older(&estate, &kill);
    }
}

#[test]
fn killed_after_the_tool_succeeded_and_before_it_is_recorded() {
    let estate = Estate::new(TestHost::with_agent(Version::One));
    let one = estate.release_all("v1");
    estate.deploy(&one).ok();
    let two = estate.release_all("v2");
    estate.host.agent().script("api", "kill_parent");
    estate.deploy(&two).killed();
    estate.host.agent().works("api");
    estate.host.deployments();
    estate.deploy(&one).ok();
    estate.assert_ran(&[("gateway", &one[0]), ("api", &one[1])]);
    estate.assert_deployed(&one);
}

/// A run that is to end has no time to remove worktrees; the next one has, even those of apps
/// that it leaves alone.
#[test]
fn what_a_signal_left_behind_is_removed_by_the_next_run() {
    let estate = Estate::new(TestHost::new());
    estate.deploy(&estate.release_all("v1")).ok();
    let two = estate.release_all("v2");
    estate.host.hook("worker", "touch $hooks/reached; sleep 60");
    estate.want(&two);
    let running = estate.host.start(&["deploy"]);
    let reached = estate.host.path("hooks/reached");
    wait_until("the hook", Duration::from_secs(60), || reached.exists());
    running.signal(nix::sys::signal::Signal::SIGTERM);
    drop(running.wait().code(143));
    assert_eq!(estate.host.recorded("gateway", "deployed").as_ref(), Some(&two[0]));
    let left = || {
        walkdir::WalkDir::new(estate.host.path("cache/worktrees"))
            .into_iter()
            .flatten()
            .filter(|entry| entry.depth() > 1 && entry.file_name() != "previous")
            .map(|entry| entry.path().display().to_string())
            .collect::<Vec<_>>()
    };
    assert!(!left().is_empty(), "this is about what is left behind");
    estate.host.hook_works("worker");
    estate.deploy(&two).ok();
    assert_eq!(left(), [""; 0]);
}

#[test]
fn killed_at_any_time_the_same_manifest_converges() {
    let estate = Estate::new(TestHost::new());
    let mut last = estate.release_all("v0");
    estate.deploy(&last).ok();
    for round in 0..8_u64 {
        last = estate.release_all(&format!("v{}", round + 1));
        estate.want(&last);
        let running = estate.host.start(&["deploy"]);
        std::thread::sleep(Duration::from_millis(15 + 45 * round));
        running.signal(nix::sys::signal::Signal::SIGKILL);
        drop(running.wait());
        // A hook that was running may still be: it is not ours to wait for, but to survive.
        std::thread::sleep(Duration::from_millis(300));
        estate.deploy(&last).ok();
        estate.assert_deployed(&last);
        let version = format!("v{}", round + 1);
        estate.assert_installed([version.as_str(); 3]);
        let left: Vec<_> = walkdir::WalkDir::new(estate.host.path("cache"))
            .into_iter()
            .filter_map(Result::ok)
            .filter(|entry| {
                let name = entry.file_name().to_string_lossy();
                (name.ends_with(".lock") && entry.depth() > 3) || name.starts_with("pack_git2_")
            })
            .map(|entry| entry.path().to_owned())
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let worktrees = walkdir::WalkDir::new(estate.host.path("cache/worktrees"))
            .into_iter()
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_file())
            .count();
        assert_eq!(worktrees, 0);
    }
}

#[test]
fn two_runs_at_once_wait_for_each_other() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.want(&one);
    estate.host.hook("gateway", "sleep 0.7; touch $hooks/reached");
    let first = estate.host.start(&["deploy"]);
    let pid = first.pid().to_string();
    while !estate.host.path("hooks/reached").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    // One that does not want to wait says who holds the lock, and changes nothing.
    let ran = estate.host.run(&["deploy", "--lock-wait", "0s"]).code(9);
    let _ = ran.says(&format!("pid {pid}")).says("since");
    // One that waits finds everything done.
    let second = estate.host.run(&["deploy"]).ok();
    let _ = second.says("waiting for another run");
    first.wait().ok();
    assert_eq!(estate.host.deployments().len(), 3);
    estate.assert_deployed(&one);
}

#[test]
fn a_codedeploy_local_that_a_killed_run_left_at_work_is_waited_for() {
    for (name, host) in hosts() {
        let estate = Estate::new(host);
        let one = estate.release_all("v1");
        let at = estate.host.dir().display().to_string();
        let shell = format!(
            "[ -e {at}/hooks/began ] || {{ touch {at}/hooks/began; \
             while [ ! -e {at}/hooks/end ]; do sleep 0.05; done; }}; echo $$ >>{at}/hooks/done"
        );
        let agent = estate.host.tool != "builtin";
        if agent {
            estate.host.agent().script("api", &shell);
        } else {
            estate
                .host
                .hook("api", &format!("case $LIFECYCLE_EVENT in AfterInstall) {shell};; esac"));
        }
        estate.want(&one);
        let running = estate.host.start(&["deploy"]);
        let began = || estate.host.path("hooks/began").exists();
        wait_until("the hook", Duration::from_secs(30), began);
        running.signal(nix::sys::signal::Signal::SIGKILL);
        running.wait().killed();
        let hasty = estate.host.run(&["deploy", "--lock-wait", "0s"]).code(9);
        let _ = hasty.says("codedeploy-local (pid ").says("api").says("kill ");
        let second = estate.host.start(&["deploy"]);
        std::thread::sleep(Duration::from_millis(500));
        assert!(!estate.host.path("hooks/done").exists(), "{name}");
        estate.host.write("hooks/end", "");
        let second = second.wait().ok().says("waiting for codedeploy-local (pid ");
        drop(second.says("was killed and left it at work"));
        // To its end, and then once more.
        assert_eq!(estate.host.read("hooks/done").lines().count(), 2, "{name}");
        estate.assert_deployed(&one);
    }
}

#[test]
fn a_hook_that_deploys_is_told_at_once_that_it_would_wait_for_itself() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.want(&one);
    let inner = estate.host.command(&["deploy"]);
    let words: Vec<String> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(|word| format!("'{}'", word.to_str().expect("text")))
        .collect();
    estate.host.hook(
        "api",
        &format!(
            "case $LIFECYCLE_EVENT in AfterInstall) \
             {} >$hooks/inner 2>&1; echo exit $? >>$hooks/inner ;; esac",
            words.join(" ")
        ),
    );
    estate.host.deploy().ok();
    let inner = estate.host.read("hooks/inner");
    assert!(inner.contains("exit 9"), "{inner}");
    assert!(inner.contains("started by a hook of run 2"), "{inner}");
    estate.assert_deployed(&one);
}
