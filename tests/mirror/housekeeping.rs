//! Mirrors that have seen many deployments.

use std::fs;
use std::path::Path;
use std::time::Duration;

use git2::Signature;
use multideployer::mirror::{CheckoutOptions, Effort, Failure, Mirror, Tidied};
use multideployer::process::Interrupt;

use crate::support::isolated;
use crate::support::upstream::{Entry, Upstream};
use crate::{assert_sound, fetch, mirror_in, noise, on_disk, rev};

fn effort(always: bool) -> Effort {
    let within = Duration::from_secs(60);
    Effort { always, within, interrupt: Interrupt::new(), wanted: Vec::new(), most: None }
}

fn tidy(mirror: &Mirror, always: bool) -> Option<Tidied> {
    mirror.tidy(&effort(always)).expect("it can")
}

fn files(directory: &Path) -> Vec<String> {
    let mut found: Vec<_> = walkdir::WalkDir::new(directory)
        .into_iter()
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.path().strip_prefix(directory).expect("inside").display().to_string())
        .collect();
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    let copied = isolated("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp starts").success());
}

fn git(mirror: &Path, args: &[&str]) -> String {
    let output = isolated("git").arg("--git-dir").arg(mirror).args(args).output();
    let output = output.expect("git starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What a deployment leaves in a mirror.
fn record(mirror: &Mirror, run: usize, commit: &str) {
    let repository = mirror.repository();
    let id = git2::Oid::from_str(commit).expect("an id");
    let who = Signature::now("multideployer", "root@host").expect("a person");
    let object = repository.find_object(id, None).expect("the commit");
    let name = format!("20260101T{run:06}Z-abcdef");
    let tag = repository.tag_annotation_create(&name, &object, &who, "words").expect("a tag");
    let point = |name: &str, to| drop(repository.reference(name, to, true, "x").expect("a ref"));
    point(&format!("refs/multideployer/history/{name}"), tag);
    if let Ok(old) = repository.find_reference("refs/multideployer/deployed") {
        point("refs/multideployer/previous", old.target().expect("a commit"));
    }
    point("refs/multideployer/deployed", id);
}

/// A repository whose commits change some of its files, and differ much less than they hold.
fn release(upstream: &Upstream, version: usize) -> String {
    let text = noise(400);
    let mut entries = Vec::new();
    if version == 0 {
        entries.extend(
            (0..40).map(|n| Entry::file(format!("d{}/f{n}", n % 5), format!("{n}\n{text}"))),
        );
    }
    for n in 0..3 {
        let path = format!("d{}/f{n}", n % 5);
        entries.push(Entry::file(path, format!("{n}\n{text}\nversion {version}\n")));
    }
    entries.push(Entry::file("version", format!("{version}\n")));
    upstream.commit_entries(&entries)
}

#[test]
fn after_many_deployments_there_are_few_files_and_every_kept_commit_is_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path(), "api.git");
    let remote = on_disk(upstream.dir());
    let (mut mirror, path) = mirror_in(dir.path());
    let mut commits = Vec::new();
    let mut times = 0;
    for version in 0..60 {
        let commit = release(&upstream, version);
        fetch(&mut mirror, &commit, &remote).expect("a fetch");
        record(&mirror, version, &commit);
        commits.push(commit);
        times += usize::from(tidy(&mirror, false).is_some());
        let there = files(&path);
        assert!(there.len() <= 20, "{version}: {there:#?}");
        if version % 20 == 19 {
            assert_sound(&path);
        }
    }
    assert!((20..=30).contains(&times), "{times}: now and then, not each time");
    let done = tidy(&mirror, true).expect("it is done when it is asked for");
    assert_eq!(done.packs.1, 1, "{done:?}");
    assert!(done.bytes.1 < done.bytes.0, "{done:?}");
    assert_sound(&path);
    let there = files(&path);
    assert!(there.len() <= 20, "{there:#?}");
    // Every one of the last 50 deployments can be looked into, by git itself.
    let runs = git(&path, &["for-each-ref", "--format=%(refname)", "refs/multideployer/history"]);
    assert_eq!(runs.lines().count(), 50);
    for (run, commit) in commits.iter().enumerate().skip(10) {
        let name = format!("refs/multideployer/history/20260101T{run:06}Z-abcdef");
        assert_eq!(git(&path, &["rev-parse", &format!("{name}^{{commit}}")]), *commit);
        assert_eq!(git(&path, &["show", &format!("{name}:version")]), run.to_string());
    }
    // Those before are gone, with what only they needed.
    let gone =
        isolated("git").arg("--git-dir").arg(&path).args(["cat-file", "-e", &commits[9]]).output();
    assert!(!gone.expect("git starts").status.success());
    let shallow = fs::read_to_string(path.join("shallow")).expect("the boundary");
    assert_eq!(shallow.lines().count(), 50);
    // A rollback needs no server.
    fs::rename(upstream.dir(), dir.path().join("away")).expect("the server is gone");
    drop(mirror);
    let mut mirror = Mirror::open(&path).expect("it opens");
    for version in [59, 58, 57, 56, 55] {
        let held = fetch(&mut mirror, &commits[version], &remote).expect("it is here");
        assert!(!held.connected);
        let target = dir.path().join(format!("tree{version}"));
        mirror
            .checkout(rev(&commits[version]), &target, &CheckoutOptions::default())
            .expect("a tree");
        assert_eq!(
            fs::read_to_string(target.join("version")).expect("a file"),
            format!("{version}\n")
        );
        assert_eq!(fs::read_dir(target).expect("the tree").count(), 6);
    }
    assert!(!mirror.holds(rev(&commits[20])), "older ones are fetched again");
}

#[test]
fn the_next_fetch_is_as_small_as_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path(), "api.git");
    let remote = on_disk(upstream.dir());
    let (mut mirror, path) = mirror_in(dir.path());
    let mut before = 0;
    for version in 0..2 {
        before = fetch(&mut mirror, &release(&upstream, version), &remote).expect("a fetch").bytes;
    }
    assert!(tidy(&mirror, false).is_none(), "two packs are not worth it");
    tidy(&mirror, true).expect("it is asked for");
    let next = release(&upstream, 2);
    let rest = fetch(&mut mirror, &next, &remote).expect("a fetch").bytes;
    assert!(rest <= before + before / 20, "{rest}, and {before} before");
    assert_sound(&path);
    let again = tidy(&mirror, true).expect("it is asked for");
    assert_eq!(again.packs, (2, 1));
    let again = tidy(&mirror, true).expect("it is asked for");
    assert_eq!((again.packs, again.refs), ((1, 1), 0), "nothing is left to do");
}

#[test]
fn what_no_ref_needs_goes_and_a_branch_made_by_hand_keeps_its_history() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path(), "api.git");
    let remote = on_disk(upstream.dir());
    let (mut mirror, path) = mirror_in(dir.path());
    let first = release(&upstream, 0);
    let second = release(&upstream, 1);
    // All of the history, as somebody may want it who looks for something.
    git(&path, &["fetch", "-q", upstream.dir().to_str().expect("text"), "main:refs/heads/mine"]);
    let big = upstream.commit_entries(&[Entry::file("big", noise(20_000))]);
    fetch(&mut mirror, &big, &remote).expect("a fetch");
    upstream.commit_entries(&[Entry::gone("big")]);
    for version in 2..9 {
        let commit = release(&upstream, version);
        fetch(&mut mirror, &commit, &remote).expect("a fetch");
        record(&mirror, version, &commit);
    }
    let done = tidy(&mirror, true).expect("it is asked for");
    assert_eq!((done.packs.1, done.refs), (1, 3), "{done:?}");
    assert!(done.bytes.0 - done.bytes.1 > 100_000, "the large file goes: {done:?}");
    assert!(!mirror.holds(rev(&big)));
    assert_sound(&path);
    assert_eq!(git(&path, &["log", "--format=%H", "mine"]), format!("{second}\n{first}"));
}

#[test]
fn records_without_object_and_a_missing_object() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path(), "api.git");
    let remote = on_disk(upstream.dir());
    let (mut mirror, path) = mirror_in(dir.path());
    let old = release(&upstream, 0);
    fetch(&mut mirror, &old, &remote).expect("a fetch");
    record(&mirror, 0, &old);
    let new = release(&upstream, 1);
    // A mirror that was made anew knows the old commit by its records only.
    let mut mirror = mirror.rebuild().expect("made anew");
    fetch(&mut mirror, &new, &remote).expect("a fetch");
    tidy(&mirror, true).expect("records without object are no damage");
    assert_eq!(git(&path, &["rev-parse", "refs/multideployer/deployed"]), old);
    assert!(mirror.holds(rev(&new)));
    fetch(&mut mirror, &old, &remote).expect("a fetch");
    tidy(&mirror, true).expect("it can");
    assert_sound(&path);

    // A file of a commit that has a ref is missing: nothing is removed.
    let tree = git2::Oid::from_str(&git(&path, &["rev-parse", &format!("{new}^{{tree}}")]));
    let third = upstream.commit(&[("third", "3")]);
    fetch(&mut mirror, &third, &remote).expect("a fetch");
    drop(mirror);
    let packs = path.join("objects/pack");
    let lost = files(&packs).into_iter().filter(|name| {
        let index = packs.join(name);
        name.ends_with(".idx") && {
            let list = isolated("git")
                .arg("show-index")
                .stdin(fs::File::open(index).expect("it"))
                .output();
            String::from_utf8_lossy(&list.expect("git starts").stdout)
                .contains(&tree.as_ref().expect("an id").to_string())
        }
    });
    for name in lost.collect::<Vec<_>>() {
        fs::remove_file(packs.join(&name)).expect("it goes");
        fs::remove_file(packs.join(name.replace(".idx", ".pack"))).expect("it goes");
    }
    let mirror = Mirror::open(&path).expect("it opens");
    let before = files(&packs);
    let failure = mirror.tidy(&effort(true)).expect_err("something is missing");
    assert!(matches!(failure, Failure::Damaged { .. }), "{failure}");
    assert_eq!(files(&packs), before);
}

#[test]
fn killed_anywhere_it_holds_all_it_held_and_the_next_time_cleans_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path(), "api.git");
    let remote = on_disk(upstream.dir());
    let (mut mirror, path) = mirror_in(dir.path());
    let commits: Vec<_> = (0..4).map(|version| release(&upstream, version)).collect();
    for (run, commit) in commits.iter().enumerate() {
        fetch(&mut mirror, commit, &remote).expect("a fetch");
        record(&mirror, run, commit);
    }
    drop(mirror);
    let packs = path.join("objects/pack");
    let keep = |what: &str| {
        let saved = dir.path().join(what);
        copy(&path.join("objects"), &saved);
        (saved, files(&packs))
    };
    let (old_objects, mut old) = keep("old");
    let mirror = Mirror::open(&path).expect("it opens");
    tidy(&mirror, true).expect("it is asked for");
    drop(mirror);
    let (new_objects, mut new) = keep("new");
    assert_eq!((old.len(), new.len()), (8, 2));
    // The order in which they come is pack, index; in which they go: index, pack.
    new.sort_by_key(|name| name.ends_with(".idx"));
    old.sort();
    for (come, gone, left) in (0..=2)
        .map(|come| (come, 0, true))
        .chain((0..=old.len()).map(|gone| (2, gone, gone % 2 == 0)))
    {
        fs::remove_dir_all(path.join("objects")).expect("it goes");
        copy(&old_objects, &path.join("objects"));
        for name in &new[..come] {
            fs::copy(new_objects.join("pack").join(name), packs.join(name)).expect("a copy");
        }
        for name in &old[..gone] {
            fs::remove_file(packs.join(name)).expect("it goes");
        }
        if left {
            let workshop = path.join("objects/tmp_housekeeping/pack");
            fs::create_dir_all(&workshop).expect("a directory");
            fs::write(workshop.join("new"), "PACK").expect("half a pack");
        }
        let mirror = Mirror::open(&path).expect("it opens");
        assert!(!path.join("objects/tmp_housekeeping").exists());
        assert_sound(&path);
        for commit in &commits {
            assert!(mirror.holds(rev(commit)));
            let target = dir.path().join("tree");
            mirror.checkout(rev(commit), &target, &CheckoutOptions::default()).expect("a tree");
            fs::remove_dir_all(target).expect("it goes");
        }
        tidy(&mirror, true).expect("it is asked for");
        assert_eq!(files(&packs).len(), 2, "{come} {gone}");
        assert_sound(&path);
    }
}

#[test]
fn what_came_last_is_put_together_and_a_much_larger_pack_is_not_touched() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path(), "api.git");
    let mut bytes = vec![0; 3 << 20];
    openssl::rand::rand_bytes(&mut bytes).expect("random bytes");
    let first = upstream.commit_entries(&[Entry::file("big", bytes.clone())]);
    let (mut mirror, path) = mirror_in(dir.path());
    let packs = path.join("objects/pack");
    fetch(&mut mirror, &first, &on_disk(upstream.dir())).expect("a fetch");
    record(&mirror, 0, &first);
    let large = files(&packs);
    let mut times = 0;
    for version in 1..12 {
        let text = Entry::file("version", format!("{version}\n"));
        let commit = upstream.commit_entries(&[Entry::file("big", bytes.clone()), text]);
        fetch(&mut mirror, &commit, &on_disk(upstream.dir())).expect("a fetch");
        record(&mirror, version, &commit);
        times += usize::from(tidy(&mirror, false).is_some());
        let now = files(&packs);
        assert!(large.iter().all(|file| now.contains(file)), "{version}: {now:?}");
        assert!(now.len() <= 6, "{version}: {now:?}");
    }
    assert!(times > 3, "{times}");
    assert_sound(&path);
}

#[test]
fn it_is_given_up_in_time_and_nothing_is_changed() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path(), "api.git");
    let (mut mirror, path) = mirror_in(dir.path());
    for version in 0..3 {
        let commit = release(&upstream, version);
        fetch(&mut mirror, &commit, &on_disk(upstream.dir())).expect("a fetch");
    }
    let before = files(&path.join("objects"));
    let late = Effort { within: Duration::ZERO, ..effort(true) };
    let done = mirror.tidy(&late).expect("no failure").expect("it was tried");
    assert!(done.given_up && done.packs == (3, 3), "{done:?}");
    assert_eq!(files(&path.join("objects")), before);
    let signal = Interrupt::new();
    signal.set(15);
    let stopped = Effort { interrupt: signal, ..effort(true) };
    assert!(mirror.tidy(&stopped).expect("no failure").expect("it was tried").given_up);
    assert_eq!(files(&path.join("objects")), before);
    assert_sound(&path);
}

#[test]
fn a_large_pack_that_mirrors_share_stays_the_one_copy_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path(), "api.git");
    let remote = on_disk(upstream.dir());
    let mut bytes = vec![0; 34 << 20];
    openssl::rand::rand_bytes(&mut bytes).expect("random bytes");
    let first =
        upstream.commit_entries(&[Entry::file("big", bytes), Entry::file("d/a", noise(99))]);
    let (mut mirror, path) = mirror_in(dir.path());
    fetch(&mut mirror, &first, &remote).expect("a fetch");
    let other_path = path.with_file_name("web.git");
    let mut other = Mirror::open(&other_path).expect("a mirror");
    let mirrors = path.parent().expect("the directory of all");
    other
        .take_over(rev(&first), &remote.url, mirrors, &|_| {})
        .expect("it can")
        .expect("it is there");
    for version in 1..5 {
        let commit = release(&upstream, version);
        fetch(&mut mirror, &commit, &remote).expect("a fetch");
        record(&mirror, version, &commit);
    }
    assert_eq!(tidy(&mirror, true).expect("it is asked for").packs, (5, 2));
    assert_sound(&path);
    let inodes = |path: &Path| -> Vec<u64> {
        let packs = path.join("objects/pack");
        let of = |name: &String| {
            std::os::unix::fs::MetadataExt::ino(&fs::metadata(packs.join(name)).expect("it"))
        };
        files(&packs).iter().map(of).collect()
    };
    let shared = inodes(&other_path);
    assert_eq!(inodes(&path).iter().filter(|inode| shared.contains(inode)).count(), 2);
    fs::remove_dir_all(&other_path).expect("it goes");
    assert_eq!(tidy(&mirror, true).expect("it is asked for").packs, (2, 2), "still worth keeping");
    assert_sound(&path);
    let target = dir.path().join("tree");
    mirror.checkout(rev(&first), &target, &CheckoutOptions::default()).expect("a tree");
}
