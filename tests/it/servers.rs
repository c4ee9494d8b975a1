//! Servers that refuse, lie, hang or are not there.

use std::time::Duration;

use crate::estate::{APPS, Estate, token};
use crate::support::host::TestHost;
use crate::support::https::{Fault, hash_of};
use crate::support::keys::{KeyPair, Kind};
use crate::support::sshd::{GitSshd, Options};

/// Everything at v1, and a new release of `worker` that cannot be had: exit 3 and these
/// words, nothing touched; once the server is well again, the same manifest deploys.
fn refused(
    estate: &Estate,
    break_it: impl FnOnce(&Estate),
    words: &[&str],
    repair: impl FnOnce(&Estate),
) {
    let one = estate.release_all("v1");
    estate.deploy(&one).ok();
    estate.host.deployments();
    let two = [estate.release("gateway", "v2"), one[1].clone(), estate.release("worker", "v2")];
    break_it(estate);
    estate.https.forget();
    let mut ran = estate.deploy(&two).code(3).within(Duration::from_secs(60));
    for word in words {
        ran = ran.says(word);
    }
    drop(ran);
    estate.assert_ran(&[]);
    estate.assert_deployed(&one);
    repair(estate);
    estate.deploy(&two).ok();
    estate.assert_deployed(&two);
}

#[test]
fn a_refused_token_is_offered_once() {
    let estate = Estate::new(TestHost::new());
    let wrong = token();
    let right = estate.token.clone();
    refused(
        &estate,
        |estate| drop(estate.host.secret("token", &wrong)),
        &["worker", "token"],
        |estate| {
            let offered = |wanted: &str| {
                let hash = hash_of("x-access-token", wanted);
                let of = |app: &str| {
                    let requests = estate.https.requests();
                    let by = requests.iter().filter(|request| {
                        request.path.contains(app) && request.authorization.as_ref() == Some(&hash)
                    });
                    by.count()
                };
                (of("gateway.git"), of("worker.git"))
            };
            assert_eq!(offered(&wrong), (1, 1), "{:?}", estate.https.requests());
            estate.host.secret("token", &right);
        },
    );
    estate.host.assert_nowhere(&[&wrong, &right]);
}

#[test]
fn a_server_that_is_gone_matters_only_for_what_is_not_here() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.deploy(&one).ok();
    let two = estate.release_all("v2");
    estate.deploy(&two).ok();
    let three = estate.release("api", "v3");
    estate.https.stop();
    estate.host.deployments();
    estate.deploy(&one).ok();
    estate.assert_deployed(&one);
    estate.host.run(&["deploy", "--offline"]).ok();
    let wanted = [two[0].clone(), three.clone(), two[2].clone()];
    let ran = estate.deploy(&wanted).code(3).says("api").says(&estate.https.authority());
    drop(ran);
    estate.want(&wanted);
    estate.host.run(&["deploy", "--offline"]).code(3).says("--offline").says(&three);
    estate.assert_deployed(&one);
}

#[test]
fn a_server_that_is_busy_is_asked_again() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.https.inject(Fault::status(503).on("worker").times(2));
    estate.deploy(&one).ok();
    estate.assert_deployed(&one);
}

#[test]
fn what_will_not_pass_is_not_tried_again() {
    for status in [403, 404] {
        let estate = Estate::new(TestHost::new());
        refused(
            &estate,
            |estate| estate.https.inject(Fault::status(status).on("worker").times(100)),
            &["worker", "token"],
            |estate| {
                let requests = estate.https.requests();
                let asked = requests.iter().filter(|request| request.path.contains("worker"));
                assert!(asked.count() <= 2, "{status}: {requests:?}");
                estate.https.repair();
            },
        );
    }
}

#[test]
fn a_redirect_to_another_host_gets_no_token() {
    let estate = Estate::new(TestHost::new());
    let other = crate::support::https::GitHttps::start(estate.upstream("worker").dir());
    let target = other.base().replace("127.0.0.1", "localhost");
    refused(
        &estate,
        |estate| estate.https.inject(Fault::redirect(301, &target).on("worker").times(100)),
        &["worker", "localhost"],
        |estate| {
            assert!(other.requests().iter().all(|request| request.authorization.is_none()));
            estate.https.repair();
        },
    );
}

#[test]
fn an_unknown_authority_is_refused() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.want(&one);
    let text = estate.host.read("etc/multideployer.yaml");
    let kept: Vec<_> = text.lines().filter(|line| !line.contains("ca_file")).collect();
    let without = kept.join("\n") + "\n";
    estate.host.manifest(&without);
    estate.host.deploy().code(3).says("certificate").says("ca_file");
    assert!(estate.https.requests().is_empty());
    estate.host.manifest(&text);
    estate.host.deploy().ok();
}

#[test]
fn nothing_switches_the_verification_of_certificates_off() {
    for plain in [false, true] {
        let mut host = TestHost::new();
        host.set("GIT_SSL_NO_VERIFY", "1").set("GIT_CONFIG_COUNT", "1");
        host.set("GIT_CONFIG_KEY_0", "http.sslVerify").set("GIT_CONFIG_VALUE_0", "false");
        if plain {
            host.set("MULTIDEPLOYER_TRANSPORT", "plain");
        }
        let estate = Estate::new(host);
        let one = estate.release_all("v1");
        estate.want(&one);
        let text = estate.host.read("etc/multideployer.yaml");
        let kept: Vec<_> = text.lines().filter(|line| !line.contains("ca_file")).collect();
        estate.host.manifest(&(kept.join("\n") + "\n"));
        // Nor does it lead elsewhere.
        let config =
            "[http]\n\tsslVerify = false\n[url \"file:///nowhere/\"]\n\tinsteadOf = https://\n";
        estate.host.write("home/.gitconfig", config);
        estate.host.deploy().code(3).says("certificate").says("ca_file");
        assert!(estate.https.requests().is_empty());
        estate.host.manifest(&text);
        estate.host.deploy().ok();
        estate.assert_deployed(&one);
    }
}

#[test]
fn offline_names_every_app_that_would_need_a_connection() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.deploy(&one).ok();
    let (api, worker) = (estate.release("api", "v2"), estate.release("worker", "v2"));
    estate.want(&[one[0].clone(), api.clone(), worker.clone()]);
    estate.https.forget();
    let ran = estate.host.run(&["deploy", "--offline"]).code(3).says("--offline");
    drop(ran.says("api").says(&api[..7]).says("worker").says(&worker[..7]));
    assert_eq!(estate.https.connections(), 0);
    estate.assert_deployed(&one);
}

#[test]
fn a_commit_that_is_not_there_is_named_with_its_repository() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    let nowhere = "1234567890123456789012345678901234567890".to_owned();
    let ran = estate.deploy(&[one[0].clone(), nowhere.clone(), one[2].clone()]).code(3);
    drop(ran.says(&nowhere).says("acme/api.git"));
    // An abbreviation is refused before any network in version 2.
    estate.https.forget();
    let ran = estate.deploy(&[one[0].clone(), one[1][..12].to_owned(), one[2].clone()]).code(2);
    drop(ran.says(&one[1][..12]).says("40"));
    assert_eq!(estate.https.connections(), 0);
}

#[test]
fn host_keys_unknown_and_changed_are_two_different_errors() {
    let mut estate = Estate::with_ssh(TestHost::new());
    let one = estate.release_all("v1");
    let known = estate.host.read("etc/known_hosts");
    estate.host.write("etc/known_hosts", "");
    estate.want(&one);
    let ran = estate.host.deploy().code(3).says("SHA256:").says("known_hosts");
    let unknown = format!("{}{}", ran.stdout, ran.stderr);
    estate.host.write("etc/known_hosts", &known);
    estate.deploy(&one).ok();
    // The same address, another key.
    let two = [one[0].clone(), one[1].clone(), estate.release("worker", "v2")];
    let key = KeyPair::new(&estate.host.path("secrets"), "other", Kind::Ed25519);
    let other =
        GitSshd::start_with(estate.host.dir(), std::slice::from_ref(&key), &Options::default());
    let stranger = other.known_hosts();
    let blob = stranger.split_whitespace().nth(2).expect("a key").to_owned();
    let name = known.split_whitespace().next().expect("a name").to_owned();
    estate.host.write("etc/known_hosts", &format!("{name} ssh-ed25519 {blob}\n"));
    let ran = estate.deploy(&two).code(3).says("SHA256:");
    let changed = format!("{}{}", ran.stdout, ran.stderr).to_lowercase();
    assert!(changed.contains("changed") || changed.contains("another"), "{changed}");
    assert!(!unknown.to_lowercase().contains("changed"), "{unknown}");
    estate.assert_deployed(&one);
    estate.host.write("etc/known_hosts", &known);
    estate.deploy(&two).ok();
    if let Some(ssh) = &mut estate.ssh {
        ssh.stop();
    }
    estate.deploy(&one).ok();
    assert_eq!(APPS.len(), 3);
}
