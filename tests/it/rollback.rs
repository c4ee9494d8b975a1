//! Going back by command, at 03:10, with or without a network.

use crate::estate::Estate;
use crate::support::host::TestHost;

#[test]
fn an_app_goes_back_without_a_network_and_the_manifest_wins_the_next_time() {
    for (tool, host) in crate::estate::hosts() {
        let estate = Estate::new(host);
        let one = estate.release_all("v1");
        estate.want(&one);
        estate.host.run(&["rollback", "api"]).code(2).says("nothing good is recorded");
        estate.host.deploy().ok();
        estate.host.run(&["rollback", "api"]).code(2).says("multideployer history api");
        let two = [one[0].clone(), estate.release("api", "v2"), one[2].clone()];
        estate.deploy(&two).ok();
        estate.host.deployments();

        let connections = estate.https.connections();
        let ran = estate.host.run(&["rollback", "api", "--json"]).ok();
        let report = ran.json();
        assert_eq!(report["command"], "rollback", "{tool}");
        assert_eq!(report["apps"][1]["reason"], "rolled_back", "{tool}");
        assert_eq!(report["apps"][0]["result"], "not_selected", "{tool}");
        let warnings = report["warnings"].to_string();
        assert!(warnings.contains("the manifest still wants"), "{tool}: {warnings}");
        assert!(warnings.contains(&two[1]), "{tool}: {warnings}");
        assert_eq!(estate.https.connections(), connections, "{tool}");
        assert_eq!(estate.host.deployments(), [("api".to_owned(), one[1].clone())], "{tool}");
        estate.assert_deployed(&one);

        // Back from the back, then by the manifest.
        estate.host.run(&["rollback", "api", "--offline"]).ok();
        estate.assert_deployed(&two);
        estate.host.run(&["rollback", &format!("api@{}", &one[1][..7])]).ok();
        estate.assert_deployed(&one);
        estate.host.deploy().ok();
        estate.assert_deployed(&two);
    }
}

#[test]
fn after_a_failed_attempt_back_is_what_ran_before_it() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.deploy(&one).ok();
    let two = [one[0].clone(), estate.release("api", "v2"), one[2].clone()];
    estate.host.breaks("api", "boom");
    estate.deploy(&two).code(4);
    estate.host.hook_works("api");
    estate.host.run(&["rollback", "api", "gateway@0000"]).code(2).says("begins with 0000");
    estate.host.run(&["rollback", "api"]).ok();
    estate.assert_deployed(&one);
    estate.host.run(&["rollback"]).code(2);
    estate.host.run(&["rollback", "nobody"]).code(2).says("nobody");
    let status = estate.host.run(&["status", "--exit-code"]).code(10);
    assert!(status.stdout.contains("differs"), "{status:?}");
}
