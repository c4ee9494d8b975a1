//! The commands that look after the mirrors and leave the applications alone.

use std::path::Path;

use serde_json::json;

use crate::estate::{APPS, Estate};
use crate::support::agents::Version;
use crate::support::host::TestHost;

#[test]
fn what_was_fetched_beforehand_is_deployed_without_servers() {
    let mut estate = Estate::new(TestHost::new());
    // An image is built before the agent is installed.
    let tool = std::mem::replace(&mut estate.host.tool, "/nowhere/codedeploy-local".to_owned());
    let one = estate.release_all("v1");
    let sources = APPS.map(|app| estate.source(app));
    let host = &estate.host;
    host.apps_with(&[
        (APPS[0], &sources[0], &one[0], ""),
        (APPS[1], &sources[1], &one[1], ""),
        // The same repository once more.
        ("canary", &sources[1], &one[1], ""),
        (APPS[2], &sources[2], &one[2], "enabled: false"),
    ]);
    let first = host.run(&["fetch", "-a", "gateway", "--json"]).ok().json();
    assert_eq!((&first["command"], &first["exit_code"]), (&"fetch".into(), &0.into()));
    let results = |report: &serde_json::Value| -> Vec<String> {
        let apps = report["apps"].as_array().expect("a list");
        apps.iter().map(|app| app["result"].as_str().expect("a word").to_owned()).collect()
    };
    assert_eq!(results(&first), ["fetched", "left_alone", "left_alone", "left_alone"]);
    assert_eq!(first["apps"][0]["commit"], one[0].as_str());
    assert!(first["apps"][0]["fetched_bytes"].as_u64().expect("a number") > 100, "{first}");
    let text = host.run(&["fetch"]).ok();
    assert!(text.stdout.contains("2 fetched, 1 there before, 1 left alone"), "{text:?}");
    assert_eq!(estate.https.requests().len(), 2, "one for each repository");
    let all = host.run(&["fetch", "--all", "--json"]).ok().json();
    assert_eq!(results(&all), ["held", "held", "held", "fetched"]);

    // Nothing was deployed, and nothing says so.
    assert_eq!(host.deployments(), []);
    for app in APPS {
        assert_eq!(host.recorded(app, "deployed"), None);
        assert_eq!(host.recorded(app, "attempted"), None);
    }
    assert!(!host.path("state/last_state.yaml").exists());
    assert!(!host.path("cache/worktrees").exists());

    estate.https.stop();
    estate.host.tool = tool;
    estate.want(&one);
    estate.host.run(&["deploy", "--offline"]).ok();
    estate.assert_deployed(&one);
    estate.assert_installed(["v1"; 3]);
}

#[test]
fn a_fetch_that_fails_names_the_app_and_brings_the_others() {
    let estate = Estate::new(TestHost::new());
    let mut wanted = estate.release_all("v1");
    wanted[1] = "0123456789012345678901234567890123456789".to_owned();
    estate.want(&wanted);
    let ran = estate.host.run(&["fetch"]).code(3).stderr_has("api: ").stdout_has("1 failed");
    assert!(ran.stdout.contains("2 fetched"), "{ran:?}");
    let report = estate.host.run(&["fetch", "--json"]).code(3).json();
    assert_eq!(report["apps"][1]["result"], "failed");
    assert_eq!(report["apps"][1]["failure"]["code"], 3);
    assert_eq!(report["apps"][2]["result"], "held");
    estate.host.run(&["fetch", "-a", "ap"]).code(2).says("did you mean `api`");
    estate.host.run(&["fetch", "-a", "api", "--all"]).code(2);
    estate.host.assert_nowhere(&[&estate.token]);
}

/// Everything below a directory: path, kind, and what is in it.
fn picture(directory: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(directory).sort_by_file_name().into_iter();
    let entries = entries.map(|entry| entry.expect("a readable directory"));
    entries
        .map(|entry| {
            let content = std::fs::read(entry.path()).unwrap_or_default();
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            format!("{} {content:?} {}", entry.path().display(), target.display())
        })
        .collect()
}

#[test]
fn what_is_left_of_removed_apps_and_old_runs_goes() {
    for (tool, host) in [
        ("built-in", TestHost::new()),
        ("1.x", TestHost::with_agent(Version::One)),
        ("2.x", TestHost::with_agent(Version::Two)),
    ] {
        let estate = Estate::new(host);
        let host = &estate.host;
        let mut wanted = estate.release_all("v1");
        estate.deploy(&wanted).ok();
        for version in ["v2", "v3"] {
            wanted = estate.release_all(version);
            estate.deploy(&wanted).ok();
        }
        let sha = &wanted[0];
        let old = host.write(&format!("cache/worktrees/gateway/{sha}/file"), "0123456789");
        let unfinished = host.write(&format!("cache/worktrees/gateway/.{sha}.1.new/file"), "x");
        let deploys = host.write("state/deploys/5e1f/api/bundle.tar.gz", "0123456789");
        let mirror = host.write("cache/mirrors/old.git.removed/HEAD", "ref: x");
        let foreign = host.write("deployment-root/x-local-deployment-application/d/f", "f");
        let lines = [0, 2].map(|n| (APPS[n], estate.source(APPS[n]), wanted[n].clone()));
        let lines: Vec<_> = lines.iter().map(|(a, s, r)| (*a, s.as_str(), r.as_str())).collect();
        host.apps(&lines);

        let all = || {
            ["cache", "state", "log", "deployment-root", "srv"]
                .map(|name| picture(&host.path(name)))
        };
        let before = all();
        let dry = host.run(&["gc", "--dry-run", "--json"]).ok().json();
        assert!(all() == before, "{tool}: nothing changes");
        let broken = host.read("etc/multideployer.yaml");
        host.manifest("version: 2\napps: [\n");
        let before = all();
        host.run(&["gc"]).code(2).says("is refused");
        host.run(&["gc", "--dry-run"]).code(2);
        assert!(all() == before, "{tool}: an unreadable manifest");
        host.manifest(&broken);

        let group = "api-local-deployment-application";
        let records = host.path("deployment-root/deployment-instructions");
        let record = |end: &str| records.join(format!("{group}{end}"));
        assert!(record("_last_successful_install").exists(), "{tool}");
        let had_list = record("-cleanup").exists();
        let report = host.run(&["gc", "--json"]).ok().json();
        for path in [&old, &unfinished, &deploys, &mirror] {
            assert!(!Path::new(path).exists(), "{tool}: {path}");
        }
        assert!(host.read("state/MIGRATED").contains("10 bytes"), "{tool}: a note stays");
        let gone = |report: &serde_json::Value, what: &str| {
            let list = report["removed"].as_array().expect("a list").iter();
            list.filter(|one| one["what"] == what).map(|one| one["app"].clone()).collect::<Vec<_>>()
        };
        for report in [&dry, &report] {
            assert_eq!(gone(report, "mirror"), ["api"], "{tool}: {report}");
            assert_eq!(gone(report, "record"), ["api"], "{tool}: {report}");
            assert_eq!(gone(report, "agent_group"), vec!["api"; 3], "{tool}: {report}");
            assert_eq!(gone(report, "worktree").len(), 2, "{tool}: {report}");
            assert!(report["bytes"].as_u64().expect("a number") > 1000, "{tool}: {report}");
        }
        assert!(!host.mirror("api").exists() && !host.path("deployment-root").join(group).exists());
        assert!(!record("_last_successful_install").exists(), "{tool}");
        assert!(!record("_most_recent_install").exists(), "{tool}");
        assert_eq!(record("-cleanup").exists(), had_list, "{tool}");
        assert!(Path::new(&foreign).exists(), "{tool}: not in our records");
        let state = host.read("state/last_state.yaml");
        assert!(state.contains("gateway:") && !state.contains("api:"), "{tool}: {state}");
        for app in ["gateway", "worker"] {
            host.git(app, &["fsck", "--full", "--strict"]);
            let packs = std::fs::read_dir(host.mirror(app).join("objects/pack")).expect("packs");
            assert_eq!(packs.count(), 2, "{tool}: one pack and its index");
        }
        let again = host.run(&["gc", "--json"]).ok().json();
        assert_eq!((&again["removed"], &again["bytes"]), (&json!([]), &0.into()), "{tool}");

        // The others can be rolled back without a server; the app that returns is deployed anew,
        // over the files that it has left there.
        host.run(&["rollback", "gateway", "--offline"]).ok();
        if tool == "built-in" {
            assert_eq!(host.installed("api"), "v3", "what it installed is still there");
        }
        host.deployments();
        wanted[1] = estate.release("api", "v4");
        estate.deploy(&wanted).ok();
        estate.assert_ran(&[("gateway", &wanted[0]), ("api", &wanted[1])]);
        if tool == "built-in" {
            estate.assert_installed(["v3", "v4", "v3"]);
            assert!(!host.path("srv/api/only-in-v3").exists(), "the clean-up list was kept");
        }
    }
}

#[test]
fn apps_that_the_manifest_names_no_longer_are_reported_if_that_is_wanted() {
    let mut estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.deploy(&one).ok();
    let source = estate.source("api");
    let lines = [("api", source.as_str(), one[1].as_str(), "enabled: false")];
    estate.host.apps_with(&lines);
    estate.host.deploy().ok().silent_about("gateway");
    estate.host.policy("{removed_apps: report}");
    estate.host.apps_with(&lines);
    let says = "is not in the manifest any more";
    for command in ["plan", "deploy"] {
        let ran = estate.host.run(&[command]).ok();
        let said = ran.says(&format!("gateway {says}")).says(&format!("worker {says}"));
        drop(said.silent_about(&format!("api {says}")));
    }
    estate.host.run(&["gc"]).ok();
    estate.host.deploy().ok().silent_about(says);
    estate.host.policy("{removed_apps: uninstall}");
    estate.host.apps_with(&lines);
    estate.host.run(&["check"]).code(2).says("removed_apps");
}

#[test]
fn a_mirror_that_is_too_large_keeps_only_what_runs_and_what_ran_before() {
    let estate = Estate::new(TestHost::new());
    let mut releases = Vec::new();
    for version in 1..=4 {
        let noise = (0..6000_u64).fold(String::new(), |text, n| {
            let number = (n + version * 1_000_003).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            text + &format!("{number:x}\n")
        });
        estate.upstream("api").commit(&[("noise", noise.as_str())]);
        let release = estate.release("api", &format!("v{version}"));
        estate.host.apps(&[("api", &estate.source("api"), &release)]);
        estate.host.deploy().ok();
        releases.push(release);
    }
    let next = estate.release("api", "v5");
    estate.host.apps(&[("api", &estate.source("api"), &next)]);
    estate.host.run(&["fetch"]).ok();
    let machine = estate.host.write("etc/config.yaml", "limits: {mirror_max: 150k}\n");
    let gc = |more: &[&str]| {
        let args = [&["gc", "--json", "--machine-config", &machine], more].concat();
        estate.host.run(&args).ok().json()
    };
    let dry = gc(&["--dry-run"]);
    assert!(dry["warnings"].to_string().contains("it would be reduced"), "{dry}");
    let report = gc(&[]);
    let bytes = report["mirrors"][0]["bytes"].clone();
    assert!(bytes[1].as_u64().expect("a number") <= 150_000, "{report}");
    assert!(bytes[0].as_u64().expect("a number") > 150_000, "{report}");
    assert_eq!(report["warnings"], json!([]), "{report}");
    estate.host.git("api", &["fsck", "--full", "--strict"]);
    assert_eq!(estate.host.recorded("api", "deployed").as_ref(), releases.last());
    assert_eq!(estate.host.recorded("api", "previous").as_ref(), Some(&releases[2]));
    let runs = estate.host.git("api", &["for-each-ref", "refs/multideployer/history"]);
    assert_eq!(runs.lines().count(), 2, "{runs}");

    estate.https.stop();
    estate.host.run(&["rollback", "api", "--offline"]).ok();
    estate.host.run(&["deploy", "--offline"]).ok();
    assert_eq!(estate.host.installed("api"), "v5");
}
