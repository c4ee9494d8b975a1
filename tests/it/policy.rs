//! What a run does beyond deploying in order: policies for failures.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::estate::{APPS, Estate, hosts};
use crate::support::agents::Version;
use crate::support::host::TestHost;

/// From now on this commit of `app` cannot be deployed; others can.
fn breaks_at(estate: &Estate, app: &str, commit: &str, text: &str) {
    if estate.host.tool == "builtin" {
        let shell = format!(
            "case $LIFECYCLE_EVENT:$GIT_COMMIT in ApplicationStart:{commit}) echo '{text}' >&2; exit 7 ;; esac"
        );
        estate.host.hook(app, &shell);
    } else {
        let shell =
            format!("if [ $GIT_COMMIT = {commit} ]; then fail scripts/hook.sh '{text}'; fi");
        estate.host.agent().script(app, &shell);
    }
}

#[test]
fn restore_puts_back_what_the_run_changed_last_first_without_the_network() {
    for (tool, mut host) in hosts() {
        host.policy("{on_failure: restore}");
        let mut estate = Estate::new(host);
        let one = estate.release_all("v1");
        estate.deploy(&one).ok();
        let two = estate.release_all("v2");
        breaks_at(&estate, "worker", &two[2], "no such queue");
        estate.host.deployments();
        estate.host.in_hook();
        estate.https.forget();
        let ran = estate.deploy(&two).code(5);
        // One for each new commit: what is put back was there.
        assert_eq!(estate.https.connections(), 3, "{tool}");
        let commit = |all: &[String; 3], n: usize| (APPS[n], all[n].clone());
        let order = [&two, &two, &two, &one, &one, &one];
        let order: Vec<_> =
            order.iter().zip([0, 1, 2, 2, 1, 0]).map(|(a, n)| commit(a, n)).collect();
        let order: Vec<_> = order.iter().map(|(app, at)| (*app, at)).collect();
        estate.assert_ran(&order);
        estate.assert_deployed(&one);
        if tool == "built-in" {
            estate.assert_installed(["v1"; 3]);
        }
        let begin = format!("multideployer FAILED (5) worker {}", &two[2][..7]);
        assert!(ran.stdout.starts_with(&begin), "{tool}: {ran:?}");
        for (app, commit) in APPS.iter().zip(&one) {
            let back = format!("{app} {}", &commit[..7]);
            assert!(ran.stdout.contains(&back), "{tool}: {back}: {ran:?}");
        }
        let ran = ran.stdout_has("put back: ").stdout_has("no such queue");
        assert!(ran.stdout.lines().map(|line| line.len() + 9).sum::<usize>() <= 1800);
        let history = estate
            .host
            .git("worker", &["for-each-ref", "--format=%(contents)", "refs/multideployer/history"]);
        assert_eq!(history.matches("result: failed").count(), 1, "{tool}: {history}");
        assert_eq!(history.matches("result: restored").count(), 1, "{tool}: {history}");

        // What CodeDeploy does then has nothing to do.
        estate.https.forget();
        estate.deploy(&one).ok();
        estate.assert_ran(&[]);
        assert_eq!(estate.https.connections(), 0, "{tool}");
    }
}

#[test]
fn what_cannot_be_put_back_is_named_and_the_rest_comes_back() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    // The gateway is new in the run that fails.
    estate.want(&one);
    estate.host.run(&["deploy", "-a", "api", "-a", "worker"]).ok();
    let two = estate.release_all("v2");
    breaks_at(&estate, "worker", &two[2], "boom");
    estate.want(&two);
    let ran = estate.host.run(&["deploy", "--on-failure", "restore", "--json"]).code(6);
    let report = ran.json();
    let ends: Vec<_> = APPS
        .iter()
        .zip(report["apps"].as_array().expect("apps"))
        .map(|(app, report)| {
            assert_eq!(report["name"], *app);
            report["result"].as_str().expect("a word").to_owned()
        })
        .collect();
    assert_eq!(ends, ["not_put_back", "put_back", "put_back"]);
    let why = report["apps"][0]["put_back_failure"]["message"].as_str().expect("a reason");
    assert!(why.contains("nothing was deployed before"), "{why}");
    assert_eq!(report["exit_code"], 6);
    let recorded = |app, what| estate.host.recorded(app, what);
    assert_eq!(recorded("gateway", "deployed").as_ref(), Some(&two[0]));
    assert_eq!(recorded("api", "deployed").as_ref(), Some(&one[1]));
    assert_eq!(recorded("worker", "deployed").as_ref(), Some(&one[2]));
    assert_eq!(APPS.map(|app| recorded(app, "attempted")), [None, None, None]);
    estate.assert_installed(["v2", "v1", "v1"]);
    // Nothing is left of what was prepared.
    let worktrees = estate.host.path("cache/worktrees");
    let left: Vec<_> = walkdir::WalkDir::new(worktrees)
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_file())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_app_that_fails_again_when_it_is_put_back_is_left_unfinished_and_the_others_come_back() {
    let mut host = TestHost::new();
    host.in_hook();
    host.policy("{on_failure: restore}");
    let estate = Estate::new(host);
    let one = estate.release_all("v1");
    estate.deploy(&one).ok();
    let two = estate.release_all("v2");
    estate.host.breaks("api", "the disk is full of logs");
    let ran =
        estate.deploy(&two).code(6).stdout_has("NOT BACK: api").stdout_has("put back: gateway");
    assert!(ran.stdout.lines().map(|line| line.len() + 9).sum::<usize>() <= 1800);
    let recorded = |app, what| estate.host.recorded(app, what);
    assert_eq!(recorded("gateway", "deployed").as_ref(), Some(&one[0]));
    assert_eq!(recorded("api", "attempted").as_ref(), Some(&one[1]));
    assert_eq!(recorded("worker", "deployed").as_ref(), Some(&one[2]));
    estate.host.works("api");
    estate.host.deployments();
    estate.deploy(&one).ok();
    estate.assert_ran(&[("api", &one[1])]);
    estate.assert_deployed(&one);
}

#[test]
fn continue_goes_on_and_says_what_failed() {
    let mut host = TestHost::with_agent(Version::Two);
    host.policy("{on_failure: continue}");
    let estate = Estate::new(host);
    let one = estate.release_all("v1");
    estate.host.breaks("gateway", "boom");
    estate.host.breaks("api", "crash");
    let ran = estate.deploy(&one).code(4).says("boom").says("crash");
    drop(ran);
    estate.assert_ran(&[("gateway", &one[0]), ("api", &one[1]), ("worker", &one[2])]);
    let recorded = |app, what| estate.host.recorded(app, what);
    assert_eq!(recorded("worker", "deployed").as_ref(), Some(&one[2]));
    assert_eq!(recorded("api", "attempted").as_ref(), Some(&one[1]));
    // An app may see it otherwise; the command line is above both.
    let sources = APPS.map(|app| estate.source(app));
    let more = ["on_failure: stop", "", ""];
    let line = |n: usize| (APPS[n], sources[n].as_str(), one[n].as_str(), more[n]);
    estate.host.apps_with(&[line(0), line(1), line(2)]);
    estate.host.deploy().code(4).says("not run");
    estate.assert_ran(&[("gateway", &one[0])]);
    estate.host.run(&["--on-failure", "continue"]).code(4).says("crash");
    estate.assert_ran(&[("gateway", &one[0]), ("api", &one[1])]);
    let ran = estate.host.run(&["plan", "--on-failure=restore"]).ok();
    drop(ran.stdout_has("on failure: restore"));
}

#[test]
fn a_signal_ends_the_putting_back_at_once_and_the_next_run_knows() {
    crate::signals::heed();
    let mut host = TestHost::new();
    host.in_hook();
    host.policy("{on_failure: restore}");
    let estate = Estate::new(host);
    let one = estate.release_all("v1");
    estate.deploy(&one).ok();
    let two = estate.release_all("v2");
    breaks_at(&estate, "worker", &two[2], "boom");
    let shell = format!(
        "case $LIFECYCLE_EVENT:$GIT_COMMIT in ApplicationStart:{}) touch $hooks/reached; \
         trap '' TERM; sleep 7778; sleep 7778 ;; esac",
        one[1]
    );
    estate.host.hook("api", &shell);
    estate.want(&two);
    let running = estate.host.start(&["deploy"]);
    let started = Instant::now();
    while !estate.host.path("hooks/reached").exists() {
        assert!(started.elapsed() < Duration::from_secs(30), "the hook was not reached");
        std::thread::sleep(Duration::from_millis(20));
    }
    let told = Instant::now();
    running.signal(Signal::SIGTERM);
    let ran = running.wait().code(143);
    assert!(told.elapsed() < Duration::from_secs(4), "{:?}", told.elapsed());
    drop(ran.stdout_has("put back: worker").stdout_has("NOT BACK: gateway"));
    let recorded = |app, what| estate.host.recorded(app, what);
    assert_eq!(recorded("worker", "deployed").as_ref(), Some(&one[2]));
    assert_eq!(recorded("api", "attempted").as_ref(), Some(&one[1]));
    assert_eq!(recorded("gateway", "deployed").as_ref(), Some(&two[0]));
    estate.host.hook_works("api");
    estate.host.deployments();
    estate.deploy(&one).ok();
    estate.assert_ran(&[("gateway", &one[0]), ("api", &one[1])]);
    estate.assert_installed(["v1"; 3]);
}

#[test]
fn what_an_app_needs_goes_first_and_its_failure_holds_the_others_back() {
    let mut host = TestHost::new();
    host.policy("{on_failure: continue}");
    host.in_hook();
    let estate = Estate::new(host);
    let one = estate.release_all("v1");
    let sources = APPS.map(|app| estate.source(app));
    let needs = ["needs: [api]", "", "needs: [gateway]"];
    let line = |n: usize| (APPS[n], sources[n].as_str(), one[n].as_str(), needs[n]);
    estate.host.apps_with(&[line(2), line(0), line(1)]);
    estate.host.breaks("api", "boom");
    let ran = estate.host.deploy().code(4);
    drop(ran.stdout_has("not run : gateway (needs api), worker (needs gateway)"));
    estate.assert_ran(&[("api", &one[1])]);
    assert_eq!(estate.host.recorded("worker", "attempted"), None);
    // What is not asked for is not waited for.
    estate.host.run(&["deploy", "-a", "gateway"]).ok();
    estate.assert_ran(&[("gateway", &one[0])]);
    estate.host.works("api");
    estate.host.run(&["plan"]).ok().stdout_has("needs gateway").stdout_has("2 apps to deploy");
    estate.host.deploy().ok();
    estate.assert_ran(&[("api", &one[1]), ("worker", &one[2])]);
    // A circle is refused, with its place.
    let needs = ["needs: [worker]", "needs: [gateway]", "needs: [api]"];
    let line = |n: usize| (APPS[n], sources[n].as_str(), one[n].as_str(), needs[n]);
    estate.host.apps_with(&[line(0), line(1), line(2)]);
    let ran = estate.host.deploy().code(2);
    drop(ran.says("gateway -> worker -> api -> gateway").says("multideployer.yaml:"));
    estate.assert_ran(&[]);
}

#[test]
fn an_app_that_is_for_other_hosts_is_left_alone() {
    let mut host = TestHost::new();
    host.in_hook();
    let mut estate = Estate::new(host);
    let one = estate.release_all("v1");
    let sources = APPS.map(|app| estate.source(app));
    let when = [
        "when: {deployment_group: [\"prod-*\"]}",
        "when: {deployment_group: [staging]}",
        "when: {label: [\"gpu*\"]}, needs: [api]",
    ];
    let line = |n: usize| (APPS[n], sources[n].as_str(), one[n].as_str(), when[n]);
    estate.host.apps_with(&[line(0), line(1), line(2)]);
    let ran = estate.host.deploy().ok();
    drop(ran.stdout_has("changed : gateway").stdout_has("not for this host: 2"));
    estate.assert_ran(&[("gateway", &one[0])]);
    estate.host.run(&["plan"]).ok().stdout_has("when: the deployment group is prod-web");
    estate.host.run(&["status", "--exit-code"]).ok().stdout_has("left alone");
    // What it needs is for other hosts, too, and not waited for.
    estate.host.set("MULTIDEPLOYER_LABELS", "gpu-large");
    estate.host.deploy().ok();
    estate.assert_ran(&[("worker", &one[2])]);

    // Outside of a hook nobody knows the group.
    for name in ["LIFECYCLE_EVENT", "DEPLOYMENT_ID", "DEPLOYMENT_GROUP_NAME"] {
        estate.host.unset(name);
    }
    let ran = estate.host.run(&["deploy", "--force"]).ok();
    drop(ran.says("gateway: left alone").says("DEPLOYMENT_GROUP_NAME is not set"));
    estate.assert_ran(&[("worker", &one[2])]);
    estate.host.set("DEPLOYMENT_GROUP_NAME", "staging");
    estate.host.deploy().ok().stdout_has("1 not for this host");
    estate.assert_ran(&[("api", &one[1])]);
}

#[test]
fn an_app_that_takes_too_long_is_ended_with_all_it_started() {
    let mut host = TestHost::new();
    host.in_hook();
    let estate = Estate::new(host);
    let one = estate.release_all("v1");
    let shell = "case $LIFECYCLE_EVENT in ApplicationStart) echo waiting for the database; \
                 setsid sleep 7771 & sleep 7772 ;; esac";
    estate.host.hook("api", shell);
    let sources = APPS.map(|app| estate.source(app));
    let more = ["", "timeout: 4s", ""];
    let line = |n: usize| (APPS[n], sources[n].as_str(), one[n].as_str(), more[n]);
    estate.host.apps_with(&[line(0), line(1), line(2)]);
    let ran = estate.host.deploy().code(4).within(Duration::from_secs(60));
    let ran = ran.stdout_has("its `timeout` is over").stdout_has("4 s");
    drop(ran.stdout_has("not run : worker"));
    let left: Vec<_> =
        estate.host.processes().into_iter().filter(|(_, line)| line.contains("777")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(estate.host.recorded("api", "attempted").as_ref(), Some(&one[1]));
}

#[test]
fn an_app_that_would_outlast_the_hook_is_not_started() {
    for version in [None, Some(Version::One)] {
        let mut host = version.map_or_else(TestHost::new, TestHost::with_agent);
        host.in_hook();
        // The outer deployment, as the agent unpacked it.
        host.write(
            "deployment-root/outer-group-id/d-OUTER0001/deployment-archive/appspec.yml",
            "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - location: after_install.sh\n      timeout: 900\n",
        );
        let estate = Estate::new(host);
        let one = estate.release_all("v1");
        let sources = APPS.map(|app| estate.source(app));
        let more = ["timeout: 5m", "timeout: 1h", ""];
        let line = |n: usize| (APPS[n], sources[n].as_str(), one[n].as_str(), more[n]);
        estate.host.apps_with(&[line(0), line(1), line(2)]);
        let ran = estate.host.deploy().code(8);
        let ran = ran.stdout_has("multideployer FAILED (8) the deadline leaves no time for api");
        drop(ran.stdout_has("api (8").stdout_has("3600 s expected"));
        estate.assert_ran(&[("gateway", &one[0])]);
        assert_eq!(estate.host.recorded("api", "attempted"), None);
        let log = estate.host.read("log/multideployer.log");
        assert!(log.contains("the hook may take 900 s"), "{log}");
        // The command line decides otherwise.
        estate.host.run(&["deploy", "--deadline", "none"]).ok();
        estate.assert_ran(&[("api", &one[1]), ("worker", &one[2])]);
        // Known to be quick by now, in spite of what it may take.
        estate.host.run(&["deploy", "-f", "-a", "api"]).ok();
        estate.assert_ran(&[("api", &one[1])]);
        let two = estate.release_all("v2");
        estate.want(&two);
        estate.host.run(&["deploy", "--deadline", "0"]).code(8).stdout_has("the deadline");
        estate.assert_ran(&[]);
    }
}

#[test]
fn a_check_that_does_not_pass_fails_the_app() {
    for version in [None, Some(Version::Two)] {
        let mut host = version.map_or_else(TestHost::new, TestHost::with_agent);
        host.in_hook();
        host.set("MULTIDEPLOYER_GITHUB_TOKEN", "ghp_notforchecks0123456789");
        host.policy("{on_failure: restore}");
        let estate = Estate::new(host);
        let one = estate.release_all("v1");
        estate.deploy(&one).ok();
        estate.host.deployments();
        let two = estate.release_all("v2");
        let sources = APPS.map(|app| estate.source(app));
        let seen = estate.host.text("hooks/check.environ");
        let script = format!("#!/bin/sh\nenv >{seen}\necho not listening >&2\n[ -e \"$1\" ]\n");
        let file = estate.host.write("etc/is-up", &script);
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("its mode");
        let up = estate.host.text("hooks/up");
        let check = format!("checks: [{{command: [./is-up, {up}], within: 2s}}]");
        let more = ["", check.as_str(), ""];
        let line = |n: usize| (APPS[n], sources[n].as_str(), two[n].as_str(), more[n]);
        estate.host.apps_with(&[line(0), line(1), line(2)]);
        let ran = estate.host.deploy().code(5);
        let ran = ran.stdout_has("FAILED (5) api").stdout_has("did not pass within 2 s");
        drop(ran.stdout_has("  | not listening").stdout_has("not run : worker"));
        estate.assert_deployed(&one);
        let environ = estate.host.read("hooks/check.environ");
        assert!(environ.contains(&format!("GIT_COMMIT={}", two[1])), "{environ}");
        assert!(!environ.contains("ghp_notforchecks"), "{environ}");
        estate.host.deployments();
        estate.host.write("hooks/up", "");
        estate.host.deploy().ok();
        estate.assert_deployed(&two);
    }
}

#[test]
fn a_release_file_tells_the_app_its_commit() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    // Copies what was handed over.
    let copy = estate.host.text("hooks/release.json");
    let shell = format!(
        "case $LIFECYCLE_EVENT in AfterInstall) cp \"$(dirname $0)/../.release.json\" {copy} ;; esac"
    );
    estate.host.hook("api", &shell);
    let sources = APPS.map(|app| estate.source(app));
    let api = |more| [("api", sources[1].as_str(), one[1].as_str(), more)];
    estate.host.apps_with(&api("release_file: .release.json"));
    estate.host.deploy().ok();
    let text = estate.host.read("hooks/release.json");
    let told: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(told["commit"], one[1].as_str());
    assert_eq!(told["app"], "api");
    assert_eq!(told["previous"], serde_json::Value::Null);
    // Never over what the commit holds.
    estate.host.apps_with(&api("release_file: appspec.yml, force: true"));
    estate.host.deploy().code(7).says("`release_file` of api");
}
