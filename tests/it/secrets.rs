//! No secret is anywhere it should not be.

use crate::estate::{Estate, token};
use crate::support::agents::Version;
use crate::support::host::TestHost;

#[test]
fn the_token_and_the_key_are_nowhere() {
    for version in [None, Some(Version::One), Some(Version::Two)] {
        let host = version.map_or_else(TestHost::new, TestHost::with_agent);
        let estate = Estate::with_ssh(host);
        let key = std::fs::read_to_string(estate.host.path("secrets/id_ed25519")).expect("the key");
        let line = key.lines().nth(2).expect("a line of it").to_owned();
        let one = estate.release_all("v1");
        estate.want(&one);
        estate.host.run(&["deploy", "-d"]).ok();
        let two = estate.release_all("v2");
        estate.host.breaks("api", "boom");
        estate.want(&two);
        estate.host.run(&["deploy", "-v", "--json"]).code(4);
        estate.host.run(&["status", "--json"]).ok();
        // And when the server refuses it.
        estate.https.revoke();
        let three = estate.release_all("v3");
        estate.want(&three);
        estate.host.run(&["deploy", "-d"]).code(3);
        estate.host.assert_nowhere(&[&estate.token, &line]);
    }
}

#[test]
fn a_token_by_flag_or_variable_reaches_its_host_and_no_child() {
    for by_flag in [false, true] {
        let mut host = TestHost::new();
        if !by_flag {
            host.set("MULTIDEPLOYER_GITHUB_TOKEN", "overwritten below");
        }
        let mut estate = Estate::new(host);
        let authority = estate.https.authority();
        let token = token();
        estate.https.revoke();
        estate.https.grant("acme/", None, &token);
        let one = estate.release_all("v1");
        let ca = estate.host.text("etc/ca.pem");
        let mut text = format!("version: 2\nhosts:\n  \"{authority}\": {{ca_file: {ca}}}\napps:\n");
        for (app, release) in crate::estate::APPS.iter().zip(&one) {
            text += &format!(
                "  - {{name: {app}, source: \"github://{authority}/acme/{app}\", release: \"{release}\"}}\n"
            );
        }
        estate.host.manifest(&text);
        // The first hook sees every command line of the machine.
        if by_flag {
            estate.host.run(&["-g", &token]).ok().says("command line");
        } else {
            estate.host.set("MULTIDEPLOYER_GITHUB_TOKEN", &token);
            estate.host.deploy().ok();
        }
        estate.assert_deployed(&one);
        estate.host.assert_nowhere(&[&token]);
        let environ = estate.host.read("hooks/api.ApplicationStart.environ");
        assert!(!environ.contains("MULTIDEPLOYER_GITHUB_TOKEN="), "{environ}");
    }
}

#[test]
fn a_credential_in_a_url_is_refused_and_not_repeated() {
    let host = TestHost::new();
    host.apps(&[("api", "https://user:s3cr3tpass@git.example.com/a/b.git", &"1".repeat(40))]);
    let ran = host.run(&["deploy"]).code(2);
    assert!(!format!("{ran:?}").contains("s3cr3tpass"), "{ran:?}");
    let _ = ran.says("credential");
}
