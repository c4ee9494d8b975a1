//! What worked with the Python tool 0.3.1 works.

use crate::estate::{APPS, Estate};
use crate::support::host::TestHost;

/// A 1.0 file for the apps of an estate, whose repositories are on the local disk.
fn local(estate: &Estate, releases: &[String; 3]) {
    let mut text = "version: 1.0\napps:\n".to_owned();
    for (app, release) in APPS.iter().zip(releases) {
        let dir = estate.upstream(app).dir().display();
        text += &format!("  - name: {app}\n    source: file://{dir}\n    release: {release}\n");
    }
    estate.host.manifest(&text);
}

#[test]
fn every_old_flag_works_without_a_subcommand() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    local(&estate, &one);
    estate.host.run(&["-d", "-v", "-a", "api", "--app", "worker"]).ok();
    estate.assert_ran(&[("api", &one[1]), ("worker", &one[2])]);
    estate.host.run(&["--verbose", "--force", "--app", "api"]).ok();
    estate.assert_ran(&[("api", &one[1])]);
    estate.host.run(&["-f"]).ok();
    assert_eq!(estate.host.deployments().len(), 3);
}

#[test]
fn last_state_is_imported_kept_true_and_complete() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    local(&estate, &one);
    // 0.3.1 deployed gateway and api, and an app that is not in the manifest any more.
    estate.host.write(
        "state/last_state.yaml",
        &format!(
            "api: {{release: {}}}\ngateway:\n  release: '{}'\nold: {{release: v1.2}}\n",
            one[1], one[0]
        ),
    );
    std::fs::set_permissions(
        estate.host.path("state"),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .expect("its mode");
    estate.host.deploy().ok();
    estate.assert_ran(&[("worker", &one[2])]);
    let state = estate.host.read("state/last_state.yaml");
    for text in [&one[0], &one[1], &one[2], "v1.2"] {
        assert!(state.contains(text), "{state}");
    }
    // An app that failed is not in it: going back to 0.3.1 deploys it again.
    let two = [one[0].clone(), estate.release("api", "v2"), one[2].clone()];
    estate.host.breaks("api", "boom");
    local(&estate, &two);
    estate.host.deploy().code(4);
    let state = estate.host.read("state/last_state.yaml");
    assert!(!state.contains("api"), "{state}");
    // Changed by 0.3.1 behind our back: neither record is believed.
    estate.host.works("api");
    estate.host.deploy().ok();
    estate.host.deployments();
    let state = estate.host.read("state/last_state.yaml");
    estate.host.write("state/last_state.yaml", &state.replace(&two[1], &one[1]));
    estate.host.deploy().ok().says("last_state.yaml says");
    estate.assert_ran(&[("api", &two[1])]);
}

#[test]
fn a_damaged_last_state_stops_nobody() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    local(&estate, &one);
    estate.host.deploy().ok();
    estate.host.deployments();
    for damage in ["", "- a\n", "api: [", "\0\0\0"] {
        estate.host.write("state/last_state.yaml", damage);
        estate.host.deploy().ok();
        estate.assert_ran(&[]);
    }
    assert!(estate.host.path("state/last_state.yaml.damaged").exists());
}

#[test]
fn a_branch_or_tag_is_resolved_recorded_and_followed() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.upstream("api").annotated_tag("stable", &one[1]);
    let named = |api: &str| {
        local(&estate, &[one[0].clone(), api.to_owned(), one[2].clone()]);
    };
    named("stable");
    estate.host.deploy().ok().says("stable");
    assert_eq!(estate.host.recorded("api", "deployed").as_ref(), Some(&one[1]));
    estate.host.deployments();
    estate.host.deploy().ok();
    estate.assert_ran(&[]);
    // The tag moves: it is deployed again, which 0.3.1 never did.
    let two = estate.release("api", "v2");
    estate.upstream("api").annotated_tag("stable", &two);
    estate.host.deploy().ok();
    estate.assert_ran(&[("api", &two)]);
    // An abbreviated commit id.
    named(&one[1][..9]);
    estate.host.deploy().ok();
    estate.assert_ran(&[("api", &one[1])]);
    named("no-such-branch");
    estate.host.deploy().code(3).says("no-such-branch");
}

#[test]
fn an_empty_list_of_apps_is_fine_and_forgets_nothing() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    local(&estate, &one);
    estate.host.deploy().ok();
    let state = estate.host.read("state/last_state.yaml");
    estate.host.manifest("version: 1.0\napps: []\n");
    estate.host.deploy().ok();
    assert_eq!(estate.host.read("state/last_state.yaml"), state);
    estate.host.manifest("");
    estate.host.deploy().code(2).says("multideployer.yaml");
    assert_eq!(estate.host.read("state/last_state.yaml"), state);
}

#[test]
fn what_0_3_1_claims_is_checked_and_its_bundles_go_when_nothing_needs_them() {
    let estate = Estate::new(TestHost::new());
    let host = &estate.host;
    let one = estate.release_all("v1");
    local(&estate, &one);
    // 0.3.1 says that gateway and api are at v1. Of api that is not true: a run that failed had
    // brought it further.
    let claims = format!("api: {{release: {}}}\ngateway: {{release: {}}}\n", one[1], one[0]);
    host.write("state/last_state.yaml", &claims);
    let bundle = host.write("state/deploys/5e1f/api/bundle.tar.gz", "0123456789");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(host.path("state"), mode).expect("its mode");
    for (app, version) in [("gateway", "v1"), ("api", "v2")] {
        host.write(&format!("srv/{app}/version"), &format!("{version}\n"));
        host.write(&format!("srv/{app}/only-in-v1"), &format!("{app}\n"));
    }
    host.run(&["migrate"]).code(2).says("--check");
    let unknown = host.run(&["migrate", "--check", "--exit-code", "--json"]).ok().json();
    assert_eq!(unknown["apps"][0]["drift"]["state"], "unknown", "{unknown}");
    host.run(&["migrate", "--check"]).ok().stdout_has("`multideployer fetch` brings");
    host.run(&["fetch"]).ok();
    let checked = host.run(&["migrate", "--check", "--exit-code", "--json"]).code(10).json();
    let state = |at: usize| {
        (checked["apps"][at]["name"].clone(), checked["apps"][at]["drift"]["state"].clone())
    };
    assert_eq!(state(0), ("api".into(), "differs".into()), "{checked}");
    assert_eq!(state(1), ("gateway".into(), "none".into()), "{checked}");
    assert_eq!(checked["apps"][0]["drift"]["differences"].as_array().map(Vec::len), Some(1));
    host.run(&["migrate", "--check"]).ok().stdout_has("multideployer deploy --force -a api");
    assert_eq!(host.read("state/last_state.yaml"), claims);
    assert!(std::path::Path::new(&bundle).exists() && !host.path("state/MIGRATED").exists());

    // The first run believes the file; as long as an app is known by it alone, all stays.
    host.deploy().ok();
    estate.assert_ran(&[("worker", &one[2])]);
    assert!(std::path::Path::new(&bundle).exists());
    // codedeploy-local did not install them, and would refuse to overwrite them.
    for app in ["gateway", "api"] {
        std::fs::remove_dir_all(host.path(&format!("srv/{app}"))).expect("they go");
    }
    host.breaks("worker", "boom");
    host.run(&["deploy", "--force"]).code(4);
    assert!(std::path::Path::new(&bundle).exists(), "a run that failed");
    host.works("worker");
    host.deploy().ok();
    assert!(!host.path("state/deploys").exists());
    let note = host.read("state/MIGRATED");
    assert!(note.contains("1 files, 10 bytes") && note.contains("state/deploys"), "{note}");
    host.deploy().ok();
    assert_eq!(host.read("state/MIGRATED"), note);
    estate.assert_installed(["v1"; 3]);
}
