//! A host that has seen many deployments.

use crate::estate::Estate;
use crate::support::host::TestHost;

fn files(directory: &std::path::Path) -> usize {
    let entries = walkdir::WalkDir::new(directory).into_iter();
    entries.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_type().is_file())).count()
}

#[test]
fn the_mirror_stays_small_and_the_records_stay_whole() {
    let estate = Estate::new(TestHost::new());
    let mirror = estate.host.mirror("api");
    let mut releases = Vec::new();
    let mut most = 0;
    for version in 1..=20 {
        let release = estate.release("api", &format!("v{version}"));
        estate.host.apps(&[("api", &estate.source("api"), &release)]);
        estate.host.deploy().ok();
        releases.push(release);
        most = most.max(files(&mirror));
    }
    assert!(most <= 20, "{most} files");
    let log = estate.host.read("log/multideployer.log");
    assert!(log.matches("mirror put in order").count() >= 2, "{log}");
    estate.host.git("api", &["fsck", "--full", "--strict"]);
    let runs = estate.host.git("api", &["for-each-ref", "refs/multideployer/history"]);
    assert_eq!(runs.lines().count(), 20);
    assert!(files(&mirror.join("objects/pack")) <= 2 * 9);
    let left = files(&estate.host.path("cache/worktrees"));
    assert_eq!(left, 0, "worktrees are removed");

    // What was deployed last is deployed again without a server.
    estate.https.stop();
    estate.host.deployments();
    for release in releases.iter().rev().skip(1).take(4) {
        estate.host.apps(&[("api", &estate.source("api"), release)]);
        estate.host.run(&["deploy", "--offline"]).ok();
        assert_eq!(estate.host.recorded("api", "deployed").as_ref(), Some(release));
    }
    assert_eq!(estate.host.installed("api"), "v16");
    estate.host.run(&["history"]).ok().stdout_has("api");
    estate.host.git("api", &["fsck", "--full", "--strict"]);
}
