//! `check --remote`: are the commits where the manifest says?

use crate::estate::{Estate, token};
use crate::support::host::TestHost;
use crate::support::https::Fault;
use crate::support::upstream::Entry;

#[test]
fn servers_are_asked_whether_they_have_the_commits_and_nothing_is_kept() {
    let mut estate = Estate::with_ssh(TestHost::new());
    let mut noise = vec![0; 400_000];
    openssl::rand::rand_bytes(&mut noise).expect("random bytes");
    estate.upstream("api").clone_filters();
    estate.upstream("api").commit_entries(&[Entry::file("big", &noise)]);
    let mut releases = estate.release_all("v1");
    estate.want(&releases);
    let ran = estate.host.run(&["check", "--remote"]).ok();
    for (app, release) in crate::estate::APPS.iter().zip(&releases) {
        let line = format!("{app}: {} is at {}\n", &release[..7], estate.source(app));
        assert!(ran.stdout.contains(&line), "{ran:?}");
    }
    let asked = estate.https.requests();
    let of_api: u64 =
        asked.iter().filter(|one| one.path.contains("api.git")).map(|one| one.answer_bytes).sum();
    assert!(of_api > 0 && of_api < 20_000, "without its files: {of_api}");
    assert!(!estate.host.path("cache").exists() && !estate.host.path("state").exists());
    let left = || std::fs::read_dir(estate.host.path("tmp")).expect("a directory").count();
    assert_eq!(left(), 0);

    releases[1] = "1".repeat(40);
    estate.want(&releases);
    let ran = estate.host.run(&["check", "--remote"]).code(3);
    assert!(ran.stdout.contains("api: commit 1111"), "{ran:?}");
    assert!(ran.stdout.contains("gateway: "), "the others are asked all the same: {ran:?}");
    let report = estate.host.run(&["check", "--remote", "--json"]).code(3).json();
    let file = &report["files"][0];
    assert_eq!((&report["ok"], &file["ok"]), (&false.into(), &false.into()));
    assert_eq!(file["remote"][0]["commit"], releases[0].as_str());
    assert_eq!(file["remote"][1]["failure"]["code"], 3);
    assert!(file["remote"][1]["commit"].is_null());
    // Without being told to, nobody is asked.
    estate.https.forget();
    let report = estate.host.run(&["check", "--json"]).ok().json();
    assert!(report["files"][0]["remote"].is_null());
    estate.host.manifest("version: 2\napps: [\n");
    estate.host.run(&["check", "--remote"]).code(2);
    assert!(estate.https.requests().is_empty());
    assert_eq!(left(), 0);
    estate.ssh.as_mut().expect("a server").stop();
    estate.host.assert_nowhere(&[&estate.token]);
}

#[test]
fn other_servers_and_other_names_are_asked_too() {
    let estate = Estate::new(TestHost::new());
    let releases = estate.release_all("v1");
    estate.release_all("v2");
    estate.want(&releases);
    // In the protocol of before, and where only the ends of branches are served.
    estate.https.forget_version_2();
    estate.host.run(&["check", "--remote"]).ok();
    estate.https.serve_tips_only();
    estate.host.run(&["check", "--remote"]).ok();
    estate.https.inject(Fault::status(503).times(1));
    estate.host.run(&["check", "--remote"]).ok();
    let source = estate.source("api");
    estate.host.apps_with(&[("api", &source, "main", "allow_ref: true")]);
    let now = estate.upstream("api").resolve("main");
    estate.host.run(&["check", "--remote"]).ok().says(&now[..7]);
    estate.host.apps_with(&[("api", &source, "none", "allow_ref: true")]);
    estate.host.run(&["check", "--remote"]).code(3).says("`none`");
    estate.host.apps_with(&[("api", &source, "none", "allow_ref: true, enabled: false")]);
    estate.host.run(&["check", "--remote"]).ok();
    estate.host.apps(&[("api", &source, &releases[1])]);
    estate.https.revoke();
    estate.https.grant("acme/", None, &token());
    let _ = estate.host.run(&["check", "--remote"]).code(3).says("secrets/token");
    estate.host.apps(&[("api", &estate.upstream("api").dir().display().to_string(), &releases[1])]);
    estate.host.run(&["check", "--remote"]).ok();
    estate.host.run(&["check", "--remote"]).ok();
}
