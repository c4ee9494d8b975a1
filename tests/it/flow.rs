//! The main job, from the first deployment to the rollback, with every codedeploy-local.

use crate::estate::{APPS, Estate, hosts};
use crate::support::agents::Version;
use crate::support::host::TestHost;

#[test]
fn three_private_apps_are_deployed_skipped_changed_and_rolled_back() {
    for (tool, host) in hosts() {
        let estate = Estate::with_ssh(host);
        let one = estate.release_all("v1");
        estate.deploy(&one).ok();
        estate.assert_ran(&[("gateway", &one[0]), ("api", &one[1]), ("worker", &one[2])]);
        estate.assert_deployed(&one);
        let ssh = estate.ssh.as_ref().expect("a server over SSH");
        assert!(ssh.connections() >= 1, "{tool}");

        // Nothing to do: no request, no connection, not a child.
        estate.https.forget();
        let (connections, calls) = (ssh.connections(), ssh.commands().len());
        estate.deploy(&one).ok();
        estate.assert_ran(&[]);
        assert_eq!(estate.https.connections(), 0, "{tool}: {:?}", estate.https.requests());
        assert_eq!((ssh.connections(), ssh.commands().len()), (connections, calls), "{tool}");

        // One new release.
        let two = [one[0].clone(), estate.release("api", "v2"), one[2].clone()];
        estate.deploy(&two).ok();
        estate.assert_ran(&[("api", &two[1])]);
        estate.assert_deployed(&two);
        assert_eq!(estate.host.recorded("api", "previous").as_ref(), Some(&one[1]), "{tool}");

        // The older one again: it is in the mirror.
        estate.https.forget();
        estate.deploy(&one).ok();
        estate.assert_ran(&[("api", &one[1])]);
        estate.assert_deployed(&one);
        assert_eq!(estate.https.connections(), 0, "{tool}: {:?}", estate.https.requests());

        let history = estate.host.git("api", &["for-each-ref", "refs/multideployer/history"]);
        assert_eq!(history.lines().count(), 3, "{tool}: {history}");
        assert!(history.lines().all(|line| line.contains(" tag\t")), "{tool}: {history}");
        if tool == "built-in" {
            estate.assert_installed(["v1"; 3]);
            assert!(!estate.host.path("srv/api/only-in-v2").exists());
            assert!(estate.host.path("srv/api/only-in-v1").exists());
        }
    }
}

#[test]
fn the_first_failure_stops_and_the_next_run_goes_on() {
    for (tool, host) in hosts() {
        let estate = Estate::new(host);
        let one = estate.release_all("v1");
        estate.deploy(&one).ok();
        let two = estate.release_all("v2");
        estate.host.deployments();
        estate.host.breaks("api", "no such module: left-pad");
        let ran = estate.deploy(&two).code(4);
        estate.assert_ran(&[("gateway", &two[0]), ("api", &two[1])]);
        let ran = ran.says("no such module: left-pad").says("hook.sh").says("worker");
        let line =
            ran.stdout.lines().chain(ran.stderr.lines()).find(|line| line.contains("not run"));
        assert!(line.is_some_and(|line| line.contains("worker")), "{tool}: {ran:?}");
        let recorded = |app, what| estate.host.recorded(app, what);
        assert_eq!(recorded("gateway", "deployed").as_ref(), Some(&two[0]), "{tool}");
        assert_eq!(recorded("api", "deployed").as_ref(), Some(&one[1]), "{tool}");
        assert_eq!(recorded("api", "attempted").as_ref(), Some(&two[1]), "{tool}");
        assert_eq!(recorded("worker", "deployed").as_ref(), Some(&one[2]), "{tool}");
        assert_eq!(recorded("worker", "attempted"), None, "{tool}");

        // What had been deployed is not deployed again, what had not been is.
        estate.host.works("api");
        estate.deploy(&two).ok();
        estate.assert_ran(&[("api", &two[1]), ("worker", &two[2])]);
        estate.assert_deployed(&two);
    }
}

#[test]
fn who_wants_to_hear_of_errors_only_hears_of_them() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.want(&one);
    let ran = estate.host.run(&["deploy", "--quiet"]).ok();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    estate.want(&estate.release_all("v2"));
    estate.host.breaks("api", "no such module: left-pad");
    let ran = estate.host.run(&["deploy", "--quiet"]).code(4);
    assert!(ran.stderr.starts_with("error: api: "), "{ran:?}");
    assert!(ran.stderr.contains("no such module: left-pad"), "{ran:?}");
    assert!(!ran.stderr.contains("preparing"), "{ran:?}");
}

#[test]
fn a_rollback_restores_apps_that_had_succeeded_and_those_that_had_failed() {
    for (tool, host) in hosts() {
        let estate = Estate::new(host);
        let one = estate.release_all("v1");
        estate.deploy(&one).ok();
        let two = estate.release_all("v2");
        estate.host.breaks("api", "boom");
        estate.deploy(&two).code(4);
        estate.host.works("api");
        estate.host.deployments();
        // What CodeDeploy does: the manifest before.
        estate.https.forget();
        estate.deploy(&one).ok();
        estate.assert_ran(&[("gateway", &one[0]), ("api", &one[1])]);
        estate.assert_deployed(&one);
        assert_eq!(estate.https.connections(), 0, "{tool}: it was all there");
        if tool == "built-in" {
            estate.assert_installed(["v1"; 3]);
        }
    }
}

#[test]
fn nothing_is_stopped_if_one_app_cannot_be_prepared() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.deploy(&one).ok();
    estate.host.reports();
    let good = estate.release("gateway", "v2");
    let nowhere = "1234567890123456789012345678901234567890".to_owned();
    let ran = estate.deploy(&[good.clone(), one[1].clone(), nowhere]).code(3);
    let _ = ran.says("worker").says("1234567").says(&estate.source("worker"));
    assert_eq!(estate.host.reports(), [""; 0]);
    estate.assert_deployed(&one);

    // A revision without an appspec, one with a broken one, one whose script is missing.
    for (files, word) in [
        (
            &[(
                "appspec.yml",
                "version: 0.0\nos: linux\nhooks:\n  ApplicationStart:\n    - location: gone.sh\n",
            )][..],
            "gone.sh",
        ),
        (&[("appspec.yml", "version: 0.0\nos: [\n")][..], "appspec.yml"),
        (
            &[(
                "appspec.yml",
                "version: 0.0\nos: linux\nhooks:\n  AplicationStart:\n    - location: scripts/hook.sh\n",
            )][..],
            "AplicationStart",
        ),
    ] {
        let bad = estate.upstream("worker").commit(files);
        let ran = estate.deploy(&[good.clone(), one[1].clone(), bad]).code(7);
        let _ = ran.says("worker").says(word);
        assert_eq!(estate.host.reports(), [""; 0]);
        estate.assert_deployed(&one);
    }
    let none = estate.upstream("worker").commit_on("refs/heads/none", None, &[]);
    estate.deploy(&[good, one[1].clone(), none]).code(7).says("appspec");
    assert_eq!(estate.host.reports(), [""; 0]);
}

#[test]
fn order_is_the_files_and_a_selection_keeps_it() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.want(&one);
    estate.host.run(&["deploy", "-a", "worker", "-a", "gateway"]).ok();
    estate.assert_ran(&[("gateway", &one[0]), ("worker", &one[2])]);
    assert_eq!(estate.host.recorded("api", "deployed"), None);
    // The others are not forgotten: only what is new is deployed.
    estate.host.deploy().ok();
    estate.assert_ran(&[("api", &one[1])]);
    estate.host.run(&["deploy", "-a", "api"]).ok();
    estate.host.deploy().ok();
    estate.assert_ran(&[]);
    let state = estate.host.read("state/last_state.yaml");
    for (app, release) in APPS.iter().zip(&one) {
        assert!(state.contains(app) && state.contains(release.as_str()), "{state}");
    }
    // A name that is not there is an error, and changes nothing.
    let ran = estate.host.run(&["deploy", "-a", "apy"]).code(2);
    let _ = ran.says("apy").says("api");
    assert_eq!(estate.host.read("state/last_state.yaml"), state);
    estate.assert_ran(&[]);
    estate.assert_deployed(&one);
}

#[test]
fn force_deploys_what_is_current() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.deploy(&one).ok();
    estate.host.deployments();
    estate.host.run(&["deploy", "-f", "-a", "api"]).ok();
    estate.assert_ran(&[("api", &one[1])]);
    estate.host.run(&["-f"]).ok();
    estate.assert_ran(&[("gateway", &one[0]), ("api", &one[1]), ("worker", &one[2])]);
    // So does the key in the manifest, for one app.
    let sources = APPS.map(|app| estate.source(app));
    estate.host.apps_with(&[
        ("gateway", &sources[0], &one[0], "force: true"),
        ("api", &sources[1], &one[1], "force: no"),
        ("worker", &sources[2], &one[2], "enabled: false"),
    ]);
    estate.host.deploy().ok();
    estate.assert_ran(&[("gateway", &one[0])]);
    estate.assert_deployed(&one);
}

#[test]
fn another_source_with_the_same_release_is_deployed() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.deploy(&one).ok();
    estate.host.deployments();
    // The same commit at another place.
    let from = estate.upstream("api").dir();
    let copy = from.with_file_name("moved.git");
    let (from, copy) = (from.display().to_string(), copy.display().to_string());
    estate.upstream("api").git(&["clone", "-q", "--bare", &from, &copy]);
    let moved = estate.https.url("acme/moved.git");
    estate.host.apps(&[
        ("gateway", &estate.source("gateway"), &one[0]),
        ("api", &moved, &one[1]),
        ("worker", &estate.source("worker"), &one[2]),
    ]);
    estate.host.deploy().ok();
    estate.assert_ran(&[("api", &one[1])]);
    estate.host.deploy().ok();
    estate.assert_ran(&[]);
}

#[test]
fn hooks_of_an_app_know_its_commit_and_not_the_outer_one() {
    for version in [None, Some(Version::One), Some(Version::Two)] {
        let mut host = version.map_or_else(TestHost::new, TestHost::with_agent);
        host.in_hook();
        let estate = Estate::new(host);
        let one = estate.release_all("v1");
        estate.deploy(&one).ok();
        let api2 = estate.release("api", "v2");
        estate.deploy(&[one[0].clone(), api2.clone(), one[2].clone()]).ok();
        let environ = if version.is_some() {
            let calls = estate.host.agent().deployments();
            let call = calls.last().expect("a call").clone();
            assert_eq!(call.option("--deployment-group-name"), Some("prod-web"));
            assert_eq!(call.option("--application-name"), Some("api"));
            call.environ
        } else {
            let text = estate.host.read("hooks/api.ApplicationStart.environ");
            let pairs = text.split('\0').filter_map(|entry| entry.split_once('='));
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        let get = |name: &str| environ.get(name).map(String::as_str);
        assert_eq!(get("GIT_COMMIT"), Some(api2.as_str()));
        assert_eq!(get("BUNDLE_COMMIT"), Some(api2.as_str()));
        assert_eq!(get("MULTIDEPLOYER_APP"), Some("api"));
        assert_eq!(get("MULTIDEPLOYER_RELEASE"), Some(api2.as_str()));
        assert_eq!(get("MULTIDEPLOYER_PREVIOUS_RELEASE"), Some(one[1].as_str()));
        assert_eq!(get("MULTIDEPLOYER_PARENT_DEPLOYMENT_ID"), Some("d-OUTER0001"));
        if version.is_none() {
            assert_eq!(get("DEPLOYMENT_GROUP_NAME"), Some("prod-web"));
            assert_eq!(get("APPLICATION_NAME"), Some("api"));
        }
    }
}

#[test]
fn a_run_whose_program_is_replaced_goes_on_as_what_it_was() {
    // An instance's package manager does not wait for deployments.
    let mut host = TestHost::new();
    let program = host.path("multideployer");
    std::fs::copy(env!("CARGO_BIN_EXE_multideployer"), &program).expect("a copy");
    host.set("NEW_PROGRAM", "/bin/false");
    let estate = Estate::new(host);
    let one = estate.release_all("v1");
    estate.want(&one);
    let shell = "case $LIFECYCLE_EVENT in ApplicationStart)";
    let replaced =
        format!("{shell} cp $NEW_PROGRAM {0}.new; mv {0}.new {0} ;; esac", program.display());
    estate.host.hook("gateway", &replaced);
    let given = estate.host.command(&["deploy"]);
    let mut command = std::process::Command::new(&program);
    command.args(given.get_args()).env_clear().current_dir(estate.host.dir());
    command.envs(given.get_envs().filter_map(|(name, value)| Some((name, value?))));
    estate.host.start_command(command).wait().ok();
    estate.assert_installed(["v1"; 3]);
    assert!(std::fs::metadata(&program).expect("a file").len() < 1_000_000, "it was replaced");
}
