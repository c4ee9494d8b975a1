//! Mirrors on the disk: damaged, left behind, locked, bound to a source.

use std::fs;
use std::path::{Path, PathBuf};

use git2::{Repository, Signature};
use multideployer::mirror::{CheckoutOptions, Failure, Mirror};

use crate::support::upstream::Upstream;
use crate::{assert_sound, fetch, mirror_in, noise, on_disk, rev};

fn packs(mirror: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(mirror.join("objects/pack")).expect("packs");
    entries
        .map(|entry| entry.expect("one").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "pack"))
        .collect()
}

#[test]
fn a_damaged_pack_is_found_and_a_rebuilt_mirror_keeps_the_records() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path(), "api.git");
    let noise = noise(3000);
    let commit = upstream.commit(&[("a", &noise), ("b", "1")]);
    let remote = on_disk(upstream.dir());
    let (mut mirror, path) = mirror_in(dir.path());
    fetch(&mut mirror, &commit, &remote).expect("a fetch");
    let id = git2::Oid::from_str(&commit).expect("an id");
    let history = {
        let repository = mirror.repository();
        repository.reference("refs/multideployer/deployed", id, true, "x").expect("a ref");
        let who = Signature::now("a", "b@c").expect("a person");
        let object = repository.find_object(id, None).expect("the commit");
        let tag = repository.tag_annotation_create("run", &object, &who, "words").expect("a tag");
        repository.reference("refs/multideployer/history/run", tag, true, "x").expect("a ref");
        tag
    };
    let pack = packs(&path).remove(0);
    let mut bytes = fs::read(&pack).expect("the pack");
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 8] {
        *byte ^= 0x55;
    }
    let mut permissions = fs::metadata(&pack).expect("metadata").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(&pack, permissions).expect("its mode");
    fs::write(&pack, bytes).expect("damage");
    drop(mirror);
    let mirror = Mirror::open(&path).expect("it opens");
    let target = dir.path().join("tree");
    let failure = mirror.checkout(rev(&commit), &target, &CheckoutOptions::default());
    let failure = failure.expect_err("damage");
    assert!(matches!(failure, Failure::Damaged { .. }), "{failure}");
    assert!(!target.exists());
    let mut mirror = mirror.rebuild().expect("a new one");
    assert!(!mirror.holds(rev(&commit)));
    let target_of = |mirror: &Mirror, name: &str| {
        mirror.repository().find_reference(name).expect("the record").target()
    };
    assert_eq!(target_of(&mirror, "refs/multideployer/deployed"), Some(id));
    assert_eq!(target_of(&mirror, "refs/multideployer/history/run"), Some(history));
    let words =
        mirror.repository().find_tag(history).expect("the tag").message_bytes().map(<[u8]>::to_vec);
    assert_eq!(words, Some(b"words".to_vec()));
    let fetched = fetch(&mut mirror, &commit, &remote).expect("again");
    assert!(fetched.connected);
    mirror.checkout(rev(&commit), &target, &CheckoutOptions::default()).expect("a checkout");
    assert_eq!(fs::read_to_string(target.join("a")).expect("a file"), noise);
    assert_sound(&path);
    assert!(!path.with_file_name("api.git.old").exists());
}

#[test]
fn what_killed_runs_left_is_swept() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path(), "api.git");
    let first = upstream.commit(&[("a", "1")]);
    let second = upstream.commit(&[("a", "2")]);
    let remote = on_disk(upstream.dir());
    let (mut mirror, path) = mirror_in(dir.path());
    fetch(&mut mirror, &first, &remote).expect("a fetch");
    drop(mirror);
    let leftovers = [
        "objects/pack/pack_git2_1234",
        "objects/pack/tmp_pack_x",
        "shallow.lock",
        "packed-refs.lock",
        "config.lock",
        "HEAD.lock",
        "refs/multideployer/deployed.lock",
        "refs/multideployer/fetched/x.lock",
    ];
    for name in leftovers {
        fs::write(path.join(name), "").expect("a leftover");
    }
    let empty = path.join("refs/multideployer/fetched").join("3".repeat(40));
    fs::write(&empty, "").expect("an empty ref");
    let mut mirror = Mirror::open(&path).expect("it opens");
    for name in leftovers {
        assert!(!path.join(name).exists(), "{name}");
    }
    fetch(&mut mirror, &second, &remote).expect("a fetch");
    assert_sound(&path);
}

#[test]
fn one_process_at_a_time_and_one_source() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path(), "api.git");
    let other = Upstream::new(dir.path(), "other.git");
    let commit = upstream.commit(&[("a", "1")]);
    let foreign = other.commit(&[("b", "2")]);
    let (mut mirror, path) = mirror_in(dir.path());
    let failure = Mirror::open(&path).err().expect("it is locked");
    assert!(matches!(failure, Failure::Locked { .. }), "{failure}");
    fetch(&mut mirror, &commit, &on_disk(upstream.dir())).expect("a fetch");
    fetch(&mut mirror, &foreign, &on_disk(other.dir())).expect("a fetch");
    assert!(!mirror.holds(rev(&commit)), "what came from another source does not count");
    let failure = Mirror::open(&path).err().expect("the new one is locked, too");
    assert!(matches!(failure, Failure::Locked { .. }), "{failure}");
    let failure = fetch(&mut mirror, &commit, &on_disk(other.dir())).expect_err("it is not there");
    assert!(matches!(failure, Failure::CommitNotFound { .. }), "{failure}");
    drop(mirror);
    fs::write(path.join("HEAD"), "nonsense").expect("damage");
    let mut mirror = Mirror::open(&path).expect("made anew");
    fetch(&mut mirror, &commit, &on_disk(upstream.dir())).expect("a fetch");
    let repository = Repository::open(&path).expect("it is one");
    assert!(repository.is_bare());
}
