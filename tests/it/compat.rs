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
