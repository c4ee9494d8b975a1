//! Several apps from one repository.

use std::os::unix::fs::MetadataExt;

use crate::estate::{APPS, Estate};
use crate::support::app;
use crate::support::host::TestHost;
use crate::support::upstream::Entry;

/// Commits a version of all three apps to one repository, a directory for each.
fn release(estate: &Estate, version: &str) -> String {
    let mut entries = Vec::new();
    for name in APPS {
        for (path, content) in app::files(estate.host.dir(), name, version) {
            let path = format!("{name}/{path}");
            entries.push(Entry::from(&(path.as_str(), content.as_str())));
        }
    }
    estate.upstream("gateway").commit_entries(&entries)
}

fn want(estate: &Estate, releases: &[(&str, &String)]) {
    let source = estate.source("gateway");
    let lines: Vec<_> = releases
        .iter()
        .map(|(app, release)| (*app, source.as_str(), release.as_str(), format!("path: {app}")))
        .collect();
    let lines: Vec<_> = lines.iter().map(|(a, s, r, more)| (*a, *s, *r, more.as_str())).collect();
    estate.host.apps_with(&lines);
}

fn asked(estate: &Estate) -> usize {
    let asked = estate.https.requests().len();
    estate.https.forget();
    asked
}

#[test]
fn three_apps_of_one_repository_fetch_it_once() {
    let estate = Estate::new(TestHost::new());
    let one = release(&estate, "v1");
    want(&estate, &APPS.map(|app| (app, &one)));
    estate.host.deploy().ok();
    assert_eq!(asked(&estate), 1, "one request for all three");
    estate.assert_deployed(&[one.clone(), one.clone(), one.clone()]);
    estate.assert_installed(["v1"; 3]);
    let mut inodes: Vec<_> = APPS
        .iter()
        .flat_map(|app| {
            let packs = estate.host.mirror(app).join("objects/pack");
            std::fs::read_dir(packs).expect("packs").map(|entry| entry.expect("one"))
        })
        .map(|entry| entry.metadata().expect("metadata").ino())
        .collect();
    assert_eq!(inodes.len(), 6, "a pack and its index for each");
    inodes.sort_unstable();
    inodes.dedup();
    assert_eq!(inodes.len(), 2, "and one copy of them on the disk");

    let two = release(&estate, "v2");
    want(&estate, &APPS.map(|app| (app, &two)));
    estate.host.deploy().ok();
    assert_eq!(asked(&estate), 1);
    estate.assert_installed(["v2"; 3]);
    for app in APPS {
        estate.host.git(app, &["fsck", "--full", "--strict"]);
    }

    // A mirror that is lost costs nothing, and the others stand alone, without a server.
    std::fs::remove_dir_all(estate.host.mirror("gateway")).expect("it goes");
    estate.https.stop();
    estate.host.run(&["deploy", "--force", "--offline"]).ok();
    std::fs::remove_dir_all(estate.host.mirror("api")).expect("it goes");
    want(&estate, &[("gateway", &one), ("worker", &one)]);
    estate.host.deploy().ok();
    assert_eq!(estate.host.installed("gateway"), "v1");
    assert_eq!(estate.host.installed("worker"), "v1");
}

#[test]
fn apps_at_different_commits_of_one_repository_share_what_is_the_same() {
    let estate = Estate::new(TestHost::new());
    let noise = (0..20_000_u64).fold(String::new(), |text, n| {
        text + &format!("{:x}\n", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    });
    estate.upstream("gateway").commit(&[("noise", noise.as_str())]);
    let releases = ["v1", "v2", "v3"].map(|version| release(&estate, version));
    let wanted: Vec<_> = APPS.into_iter().zip(&releases).collect();
    want(&estate, &wanted);
    estate.host.deploy().ok();
    let mut sizes: Vec<_> =
        estate.https.requests().iter().map(|request| request.answer_bytes).collect();
    sizes.sort_unstable();
    assert_eq!(sizes.len(), 3, "{sizes:?}");
    assert!(sizes[0] < 5_000 && sizes[1] < 5_000 && sizes[2] > 100_000, "{sizes:?}");
    estate.assert_deployed(&releases);
    estate.assert_installed(["v1", "v2", "v3"]);
}

#[test]
fn a_damaged_pack_that_is_shared_is_fetched_again_by_each() {
    let estate = Estate::new(TestHost::new());
    let one = release(&estate, "v1");
    want(&estate, &APPS.map(|app| (app, &one)));
    estate.host.deploy().ok();
    let packs = estate.host.mirror("api").join("objects/pack");
    let pack = std::fs::read_dir(packs)
        .expect("packs")
        .map(|entry| entry.expect("one").path())
        .find(|path| path.extension().is_some_and(|kind| kind == "pack"))
        .expect("a pack");
    let mut bytes = std::fs::read(&pack).expect("the pack");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8].iter_mut().for_each(|byte| *byte ^= 0x55);
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
    std::fs::set_permissions(&pack, mode).expect("its mode");
    std::fs::write(&pack, bytes).expect("damage, in the one file that all three have");
    estate.host.run(&["deploy", "--force"]).ok();
    estate.assert_deployed(&[one.clone(), one.clone(), one]);
    for app in APPS {
        estate.host.git(app, &["fsck", "--full", "--strict"]);
    }
}
