//! Several mirrors of one repository.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use multideployer::mirror::{CheckoutOptions, Failure, Mirror, Progress, TakenOver};

use crate::support::upstream::Upstream;
use crate::{assert_sound, fetch, noise, on_disk, rev};

fn open(dir: &Path, app: &str) -> (Mirror, PathBuf) {
    let path = dir.join(format!("mirrors/{app}.git"));
    (Mirror::open(&path).expect("a mirror"), path)
}

fn take(
    mirror: &mut Mirror,
    commit: &str,
    upstream: &Upstream,
    dir: &Path,
) -> Result<Option<TakenOver>, Failure> {
    let url = on_disk(upstream.dir()).url;
    mirror.take_over(rev(commit), &url, &dir.join("mirrors"), &|_: Progress| {})
}

/// The inodes of a mirror's packs and indexes, by name.
fn inodes(mirror: &Path) -> Vec<(String, u64)> {
    let mut found: Vec<_> = fs::read_dir(mirror.join("objects/pack"))
        .expect("packs")
        .map(|entry| entry.expect("one"))
        .map(|entry| {
            let inode = entry.metadata().expect("metadata").ino();
            (entry.file_name().to_string_lossy().into_owned(), inode)
        })
        .collect();
    found.sort();
    found
}

#[test]
fn another_mirror_gets_the_commit_without_fetch_and_without_copy_and_stands_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path(), "api.git");
    let text = noise(500);
    upstream.commit(&[("a", "0"), ("big", &text)]);
    let first = upstream.commit(&[("a", "1")]);
    let second = upstream.commit(&[("a", "2")]);
    let tag = upstream.annotated_tag("v2", &second);
    let (mut api, api_path) = open(dir.path(), "api");
    fetch(&mut api, &first, &on_disk(upstream.dir())).expect("a fetch");
    fetch(&mut api, &tag, &on_disk(upstream.dir())).expect("a fetch");
    let (mut web, web_path) = open(dir.path(), "web");
    let taken = take(&mut web, &tag, &upstream, dir.path()).expect("it can").expect("it is there");
    assert_eq!(taken.commit, rev(&second), "a tag is what it points to");
    assert_eq!(taken.from, api_path);
    assert_eq!(inodes(&web_path), inodes(&api_path), "the same files, not copies");
    assert_sound(&web_path);
    assert!(web.holds(rev(&tag)));
    assert!(!web.holds(rev(&first)), "only what was asked for is said to be here");
    drop(api);
    fs::remove_dir_all(&api_path).expect("the lender goes");
    assert_sound(&web_path);
    let target = dir.path().join("tree");
    web.checkout(rev(&second), &target, &CheckoutOptions::default()).expect("a checkout");
    assert_eq!(fs::read_to_string(target.join("big")).expect("a file"), text);
    assert_eq!(fs::read_to_string(target.join("a")).expect("a file"), "2");
    let again = take(&mut web, &tag, &upstream, dir.path()).expect("it can");
    assert_eq!(again, None, "nobody else has it; that it is here is asked for elsewhere");
}

#[test]
fn an_empty_mirror_begins_with_what_another_one_has() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path(), "api.git");
    let first = upstream.commit(&[("a", "1"), ("big", &noise(2000))]);
    let second = upstream.commit(&[("a", "2")]);
    let (mut api, _) = open(dir.path(), "api");
    let whole = fetch(&mut api, &first, &on_disk(upstream.dir())).expect("a fetch");
    let (mut web, web_path) = open(dir.path(), "web");
    let taken = take(&mut web, &second, &upstream, dir.path()).expect("it can");
    assert_eq!(taken, None, "nobody has it yet");
    let rest = fetch(&mut web, &second, &on_disk(upstream.dir())).expect("a fetch");
    assert!(rest.connected && rest.bytes * 10 < whole.bytes, "{rest:?} of {whole:?}");
    assert!(web.holds(rev(&first)) && web.holds(rev(&second)));
    assert_sound(&web_path);
    // A mirror that has something asks for the rest itself.
    let (mut own, _) = open(dir.path(), "own");
    fetch(&mut own, &first, &on_disk(upstream.dir())).expect("a fetch");
    let third = upstream.commit(&[("a", "3")]);
    assert_eq!(take(&mut own, &third, &upstream, dir.path()).expect("it can"), None);
    assert!(!own.holds(rev(&second)));
}

#[test]
fn nothing_is_taken_from_another_source_or_from_a_mirror_that_lacks_something() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path(), "api.git");
    let other = Upstream::new(dir.path(), "other.git");
    // The same commit, by the same author at the same second.
    let commit = upstream.commit(&[("a", "1"), ("big", &noise(500))]);
    assert_eq!(other.commit(&[("a", "1"), ("big", &noise(500))]), commit);
    let (mut api, api_path) = open(dir.path(), "api");
    fetch(&mut api, &commit, &on_disk(upstream.dir())).expect("a fetch");
    let (mut web, web_path) = open(dir.path(), "web");
    assert_eq!(take(&mut web, &commit, &other, dir.path()).expect("it can"), None);
    assert!(inodes(&web_path).is_empty(), "whoever may not read one repository gets nothing of it");
    // A lender whose pack is gone, as by hand.
    for (name, _) in inodes(&api_path) {
        fs::remove_file(api_path.join("objects/pack").join(name)).expect("it goes");
    }
    let (mut late, late_path) = open(dir.path(), "late");
    assert_eq!(take(&mut late, &commit, &upstream, dir.path()).expect("it can"), None);
    assert!(!late.holds(rev(&commit)) && late.is_empty());
    fetch(&mut late, &commit, &on_disk(upstream.dir())).expect("a fetch");
    assert!(late.holds(rev(&commit)));
    assert_sound(&late_path);
}
