//! Which codedeploy-local, and how it is spoken to.

use crate::estate::Estate;
use crate::support::agents::Version;
use crate::support::host::TestHost;

#[test]
fn each_tool_gets_the_options_and_the_environment_it_knows() {
    for version in [Version::One, Version::VeryOld, Version::Two] {
        let estate = Estate::new(TestHost::with_agent(version));
        let one = estate.release_all("v1");
        estate.deploy(&one).ok();
        let calls = estate.host.agent().deployments();
        assert_eq!(calls.len(), 3, "{version:?}");
        for call in &calls {
            let location = call.option("--bundle-location").expect("a location");
            assert!(location.starts_with('/'), "{location}");
            assert_eq!(call.option("--type"), Some("directory"));
            let app = call.app().expect("an app");
            let named = call.option("--application-name");
            assert_eq!(named, (version != Version::VeryOld).then_some(app), "{version:?}");
            assert_eq!(call.variable("MULTIDEPLOYER_APP"), Some(app));
        }
    }
}

#[test]
fn a_tool_that_was_named_and_is_not_there_is_an_error() {
    let mut host = TestHost::new();
    host.tool = "/nowhere/codedeploy-local".to_owned();
    let estate = Estate::new(host);
    let one = estate.release_all("v1");
    estate.deploy(&one).code(11).says("/nowhere/codedeploy-local");
    assert_eq!(estate.https.connections(), 0);
}

#[test]
fn a_program_that_is_no_codedeploy_local_is_found_out_before_anything_is_touched() {
    let mut host = TestHost::new();
    host.write("bin/broken", "#!/nowhere/ruby\n");
    host.write("bin/other", "#!/bin/sh\necho I am something else >&2\nexit 1\n");
    for name in ["broken", "other"] {
        let file = host.path(&format!("bin/{name}"));
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("its mode");
    }
    host.tool = host.text("bin/broken");
    let mut estate = Estate::new(host);
    let one = estate.release_all("v1");
    estate.deploy(&one).code(11).says("/nowhere/ruby");
    estate.host.tool = estate.host.text("bin/other");
    estate.deploy(&one).code(11).says("something else");
    assert_eq!(estate.host.recorded("gateway", "attempted"), None);
}

#[test]
fn a_leftover_of_a_process_id_that_repeats_is_cleared_for_2_x() {
    let estate = Estate::new(TestHost::with_agent(Version::Two));
    let one = estate.release_all("v1");
    estate.deploy(&one).ok();
    // The stand-in merges into what it finds, as the real one does. Every process id that
    // can come next has a leftover.
    let group = "deployment-root/api-local-deployment-application";
    let now = i32::try_from(std::process::id()).expect("a pid");
    for pid in now..now + 3000 {
        estate.host.write(&format!("{group}/local-{pid}/deployment-archive/only-in-old"), "x");
    }
    let two = estate.release_all("v2");
    estate.deploy(&two).ok();
    let calls = estate.host.agent().deployments();
    let last = calls.iter().rfind(|call| call.app() == Some("api")).expect("a call");
    let pid = last.variable("STAND_IN_ID").map(str::to_owned);
    let merged = pid.is_some_and(|id| {
        estate.host.path(&format!("{group}/{id}/deployment-archive/only-in-old")).exists()
    });
    assert!(!merged);
}

#[test]
fn going_from_one_tool_to_another_keeps_identity_and_records() {
    let mut estate = Estate::new(TestHost::with_agent(Version::One));
    let one = estate.release_all("v1");
    estate.deploy(&one).ok();
    estate.host.tool = "builtin".to_owned();
    estate.deploy(&one).ok();
    let two = estate.release_all("v2");
    estate.deploy(&two).ok();
    estate.assert_deployed(&two);
    estate.assert_installed(["v2"; 3]);
}
