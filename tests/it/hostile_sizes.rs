//! Commits that are larger than they look: memory and time stay bounded.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use git2::ObjectType;

use crate::hostile::{Bed, assert_harmless};
use crate::support::host::{Ran, TestHost};
use crate::support::https::Fault;
use crate::support::isolated;
use crate::support::upstream::Entry;

/// Kilobytes of memory that is no file's: the system cannot write it anywhere when memory is
/// short. What a run takes without anything large is a fifth of it.
const MEMORY: u64 = 80 << 10;

/// Runs `deploy`, and looks how much memory that is no file's it has had at most.
fn watched(host: &TestHost) -> (Ran, u64) {
    let mut running = host.start(&["deploy"]);
    let status = format!("/proc/{}/status", running.pid());
    let mut most = 0;
    let begun = Instant::now();
    // Who waits for it ends it, if need be.
    while running.runs() && begun.elapsed() < Duration::from_secs(80) {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let of = |what: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(what));
            let now = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
            now.unwrap_or(0_u64)
        };
        most = most.max(of("RssAnon:") + of("RssShmem:"));
        std::thread::sleep(Duration::from_millis(2));
    }
    let ran = running.wait();
    assert_harmless(&ran);
    assert!(most > 1 << 10, "its memory was seen");
    (ran, most)
}

#[track_caller]
fn within_bounds(host: &TestHost, what: &str) -> Ran {
    let (ran, most) = watched(host);
    assert!(most < MEMORY, "{what} took {} MB: {ran:?}", most >> 10);
    ran
}

#[test]
fn paths_and_trees_without_end_are_refused() {
    let bed = Bed::new();
    let file = bed.blob(b"x");
    let mut tree = bed.tree(&[("100644", b"f", file)]);
    for _ in 0..5_000 {
        tree = bed.tree(&[("40000", b"deep", tree)]);
    }
    bed.refused(&bed.beside(&[("40000", b"deep", tree)]), "`deep/deep/deep/");
    let name = [b'n'; 250];
    let mut tree = bed.tree(&[("100644", b"f", file)]);
    for _ in 0..16 {
        tree = bed.tree(&[("40000", &name, tree)]);
    }
    bed.refused(&bed.beside(&[("40000", b"long", tree)]), "the path is too long");
    // Ten of each in each of the one before.
    let mut tree = bed.tree(&[("100644", b"f", file)]);
    for _ in 0..9 {
        let names: Vec<Vec<u8>> = (b'a'..=b'j').map(|letter| vec![letter]).collect();
        let parts: Vec<_> = names.iter().map(|name| ("40000", name.as_slice(), tree)).collect();
        tree = bed.tree(&parts);
    }
    bed.refused(&bed.beside(&[("40000", b"many", tree)]), "more than 1,000,000 entries");
    // A name that would fill the screen.
    let huge = vec![b'h'; 4 << 20];
    bed.refused_as(&[3, 7], &bed.beside(&[("100644", &huge, file)]), "", "bad");
    let names: Vec<Vec<u8>> = (0..350_000).map(|n| format!("{n:0200}").into_bytes()).collect();
    let parts: Vec<_> = names.iter().map(|name| ("100644", name.as_slice(), file)).collect();
    bed.refused(&bed.beside(&[("40000", b"wide", bed.tree(&parts))]), "a directory of");
    let text = bed.commit(bed.tree(&[("100644", b"f", file)]), &"x".repeat(20 << 20));
    bed.refused(&text, "the text of");
}

#[test]
fn attributes_without_end_are_refused() {
    let bed = Bed::new();
    let one = bed.ones[1].clone();
    let deploy = |entries: &[Entry]| bed.bad.commit_on("refs/heads/hostile", Some(&one), entries);
    let attributes = "* export-ignore\n".repeat(200_000);
    bed.refused(&deploy(&[Entry::file(".gitattributes", &attributes)]), "`.gitattributes`");
    // Each pair of characters stands for a message of two megabytes.
    let entries = [
        Entry::file(".gitattributes", "v export-subst\n"),
        Entry::file("v", format!("$Format:{}$", "%B".repeat(100_000))),
    ];
    let source = deploy(&entries);
    let tree = bed.bad.resolve(&format!("{source}^{{tree}}"));
    let tree = git2::Oid::from_str(&tree).expect("an id");
    bed.refused(&bed.commit(tree, &"m".repeat(2 << 20)), "`export-subst` adds to `v`");
    // Patterns that can be matched in very many ways, and are not.
    let stars = format!("{}b export-ignore\n**/{}c ident\n", "*a".repeat(60), "**/a".repeat(40));
    let name = "a".repeat(200);
    let entries =
        [Entry::file(".gitattributes", stars), Entry::file(format!("x/{name}/{name}"), "y")];
    let _ = bed.deploy(&deploy(&entries), "").ok().within(Duration::from_secs(60));
}

#[test]
fn a_hundred_thousand_files_in_one_directory_are_deployed() {
    let bed = Bed::new();
    let file = bed.blob(b"x");
    let names: Vec<String> = (0..100_000).map(|number| format!("{number:06}")).collect();
    let parts: Vec<_> = names.iter().map(|name| ("100644", name.as_bytes(), file)).collect();
    let commit = bed.beside(&[("40000", b"many", bed.tree(&parts))]);
    bed.want_bad(&commit);
    let _ = within_bounds(&bed.host, "100,000 files").ok();
    assert_eq!(bed.host.recorded("bad", "deployed").as_ref(), Some(&commit));
}

/// A quarter of a gigabyte that is a quarter of a megabyte on the way.
#[test]
fn a_file_that_unfolds_is_never_in_memory() {
    const SIZE: u64 = 256 << 20;
    let mut bed = Bed::new();
    let (_server, source) = bed.over_the_network();
    let dir = bed.bad.dir().display().to_string();
    let mut git = isolated("git")
        .args(["-c", "core.compression=1", "-c", "core.bigFileThreshold=1m", "--git-dir", &dir])
        .args(["hash-object", "-w", "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git starts");
    let mut into = git.stdin.take().expect("its input");
    let megabyte = vec![0; 1 << 20];
    for _ in 0..SIZE >> 20 {
        into.write_all(&megabyte).expect("git reads");
    }
    drop(into);
    let id = git.wait_with_output().expect("git ends").stdout;
    let id = git2::Oid::from_str(String::from_utf8_lossy(&id).trim()).expect("an id");
    let commit = bed.beside(&[("100644", b"zeros", id)]);
    bed.host.apps(&[("bad", &source, &commit)]);
    let _ = within_bounds(&bed.host, "a large file").ok();
    assert_eq!(bed.host.recorded("bad", "deployed").as_ref(), Some(&commit));
    let archives = walkdir::WalkDir::new(bed.host.path("deployment-root"));
    let found = archives.into_iter().flatten().find(|entry| entry.file_name() == "zeros");
    assert_eq!(found.expect("it was handed over").metadata().expect("it").len(), SIZE);
}

/// A pack from these objects: kind, what stands between its head and its content, the size it
/// claims, and its content.
fn pack(count: u32, objects: &[(u8, Vec<u8>, u64, Vec<u8>)]) -> Vec<u8> {
    let mut pack = b"PACK\0\0\0\x02".to_vec();
    pack.extend(count.to_be_bytes());
    for (kind, base, size, content) in objects {
        pack.extend(head(*kind, *size));
        pack.extend(base);
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(content).expect("memory");
        pack.extend(packed.finish().expect("memory"));
    }
    let sum = openssl::sha::sha1(&pack);
    pack.extend(sum);
    pack
}

fn head(kind: u8, mut size: u64) -> Vec<u8> {
    let mut bytes = vec![kind << 4 | (size & 15) as u8];
    size >>= 4;
    while size > 0 {
        *bytes.last_mut().expect("one") |= 0x80;
        bytes.push((size & 0x7f) as u8);
        size >>= 7;
    }
    bytes
}

/// A number as differences have it.
fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// What has to be there as a whole: a difference to another file, what `.gitattributes` change,
/// and what a repository on this host has.
#[test]
fn a_file_that_has_to_be_whole_is_in_no_memory() {
    let mut bed = Bed::new();
    let (_server, source) = bed.over_the_network();
    let line = format!("{} $Id$ {}\n", "a".repeat(100), "b".repeat(100));
    let base = line.repeat(1 << 18).into_bytes();
    let end = b"$Format:%H$ at the end\n";
    let whole = [base.as_slice(), end].concat();
    let id = |content: &[u8]| git2::Oid::hash_object(ObjectType::Blob, content).expect("an id");
    let (base_id, whole_id) = (id(&base), id(&whole));
    let mut copies = Vec::new();
    for from in (0..base.len()).step_by(0xff_ffff) {
        let length = u32::try_from((base.len() - from).min(0xff_ffff)).expect("small");
        copies.push(0xff);
        copies.extend(u32::try_from(from).expect("small").to_le_bytes());
        copies.extend(&length.to_le_bytes()[..3]);
    }
    let insert = [&[u8::try_from(end.len()).expect("small")][..], end].concat();
    let size = |content: &[u8]| number(content.len() as u64);
    let difference = [size(&base), size(&whole), copies, insert].concat();
    let objects = [
        (3, Vec::new(), base.len() as u64, base),
        (7, base_id.as_bytes().to_vec(), difference.len() as u64, difference),
    ];
    let dir = bed.bad.dir().display().to_string();
    let mut git = isolated("git")
        .args(["--git-dir", &dir, "index-pack", "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("git starts");
    git.stdin.take().expect("its input").write_all(&pack(2, &objects)).expect("git reads");
    assert!(git.wait().expect("git ends").success());
    drop((objects, whole));
    let attributes = "all ident text eol=crlf export-subst\nwide working-tree-encoding=utf16\n";
    let commit = bed.beside(&[
        ("100644", b".gitattributes", bed.blob(attributes.as_bytes())),
        ("100644", b"all", whole_id),
        ("100644", b"as-it-is", whole_id),
        ("100644", b"base", base_id),
        ("100644", b"wide", base_id),
    ]);
    // git looks for names in a tree where they should be.
    let objects = git2::Repository::open(bed.bad.dir()).expect("the upstream");
    let found = objects.revparse_single(&format!("{commit}^{{tree}}")).expect("its tree");
    let tree = objects.treebuilder(found.as_tree()).and_then(|tree| tree.write());
    let commit = bed.commit(tree.expect("a tree in order"), "large");
    for source in [source, dir.clone()] {
        bed.host.apps(&[("bad", &source, &commit)]);
        let _ = within_bounds(&bed.host, &source).ok();
        let archives = walkdir::WalkDir::new(bed.host.path("deployment-root"));
        let all = archives.into_iter().flatten().filter(|entry| entry.file_name() == "all");
        let made = |path: &PathBuf| path.metadata().and_then(|about| about.created()).ok();
        let there = all.map(walkdir::DirEntry::into_path).max_by_key(made);
        let there = there.expect("it was handed over");
        for name in ["all", "as-it-is", "base", "wide"] {
            let git = isolated("git")
                .args(["--git-dir", &dir, "archive", "--format=tar", &commit, name])
                .output()
                .expect("git starts");
            let mut archive = tar::Archive::new(git.stdout.as_slice());
            let mut entry = archive
                .entries()
                .expect("an archive")
                .map(|entry| entry.expect("an entry"))
                .find(|entry| entry.path_bytes() == name.as_bytes())
                .expect("the file");
            let mut right = Vec::new();
            entry.read_to_end(&mut right).expect("its content");
            let here = std::fs::read(there.with_file_name(name)).expect("the file");
            assert!(
                here == right,
                "{source}: {name} has {} bytes, not {}",
                here.len(),
                right.len()
            );
        }
    }
}

/// The answer of a server that sends this pack.
fn answer(pack: &[u8]) -> Vec<u8> {
    let mut bytes = b"000dpackfile\n".to_vec();
    for part in pack.chunks(65_000) {
        bytes.extend(format!("{:04x}\x01", part.len() + 5).bytes());
        bytes.extend(part);
    }
    bytes.extend(b"0000");
    bytes
}

/// Packs that lie about what is in them, and differences that unfold.
#[test]
fn packs_that_lie_are_refused() {
    let mut bed = Bed::new();
    let (server, source) = bed.over_the_network();
    let id = |kind, content: &[u8]| git2::Oid::hash_object(kind, content).expect("an id");
    let blob = b"hello\n".to_vec();
    let tree = [b"100644 f\0", id(ObjectType::Blob, &blob).as_bytes()].concat();
    let who = "A <a@b> 1700000000 +0000";
    let of = |tree: &[u8]| {
        format!("tree {}\nauthor {who}\ncommitter {who}\n\nx\n", id(ObjectType::Tree, tree))
            .into_bytes()
    };
    let commit = of(&tree);
    let whole =
        |kind: u8, content: &[u8]| (kind, Vec::new(), content.len() as u64, content.to_vec());
    let three = [whole(1, &commit), whole(2, &tree), whole(3, &blob)];
    let wanted = id(ObjectType::Commit, &commit).to_string();
    let with = |object| [three.as_slice(), &[object]].concat();
    let copy_all = |size: u64, result: u64, times: usize| {
        // One piece of the base, again and again.
        let piece: &[u8] = &[0b1111_0000, 0xff, 0xff, 0xff];
        [number(size), number(result), piece.repeat(times)].concat()
    };
    let base = vec![0; 16 << 20];
    let base_id = id(ObjectType::Blob, &base).as_bytes().to_vec();
    let differs = |how: &[u8]| (7, base_id.clone(), how.len() as u64, how.to_vec());
    let bomb = copy_all(base.len() as u64, 0xff_ffff * 4_000, 4_000);
    // What a host has as memory, mostly.
    let shell = copy_all(base.len() as u64, 0xff_ffff * 80, 80);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("more objects than there are", pack(u32::MAX, &three)),
        ("fewer objects than there are", pack(1, &three)),
        ("no objects", pack(0, &[])),
        ("a size that is too large", pack(4, &with((3, Vec::new(), u64::MAX >> 1, blob.clone())))),
        ("a size that is too small", pack(4, &with((3, Vec::new(), 1, blob.clone())))),
        ("an unknown kind", pack(4, &with((5, Vec::new(), 1, b"x".to_vec())))),
        ("a base that is not there", pack(4, &with((7, vec![1; 20], 8, bomb[..8].to_vec())))),
        (
            "a base in front of the pack",
            pack(4, &with((6, vec![0xff, 0xff, 0x7f], 8, bomb[..8].to_vec()))),
        ),
        ("a base that is itself", pack(4, &with((6, vec![0], 8, bomb[..8].to_vec())))),
        ("a difference of 60 GB", pack(5, &[with(whole(3, &base)), vec![differs(&bomb)]].concat())),
        (
            "a difference of 1.3 GB",
            pack(5, &[with(whole(3, &base)), vec![differs(&shell)]].concat()),
        ),
        ("nothing at all", Vec::new()),
        (
            "another version",
            pack(3, &three)
                .iter()
                .enumerate()
                .map(|(at, byte)| if at == 7 { 9 } else { *byte })
                .collect(),
        ),
    ];
    for (number, (what, pack)) in cases.into_iter().enumerate() {
        // Each is the first that a mirror gets.
        let app = format!("lie-{number}");
        bed.host.apps(&[(&app, &source, &wanted)]);
        server.repair();
        server.inject(Fault::answer(answer(&pack)));
        let ran = within_bounds(&bed.host, what).within(Duration::from_secs(60));
        // What it does not lie about has the ids it should have; then it is a commit like others.
        let whole = ran.stderr.contains("no appspec.yml");
        let too_much = ran.stderr.contains("more than the 1073741824 bytes that are unpacked");
        match ran.status.code() {
            Some(3) => assert!(!what.ends_with("GB"), "{what}: {ran:?}"),
            code => assert!(code == Some(7) && (whole || too_much), "{what}: {ran:?}"),
        }
        assert!(bed.host.reports().is_empty(), "{what}");
        let _ = ran.stderr_has(&app);
    }
    // The same without the lie is one that is taken (and has no appspec).
    bed.host.apps(&[("bad", &source, &wanted)]);
    server.repair();
    server.inject(Fault::answer(answer(&pack(3, &three))));
    let _ = within_bounds(&bed.host, "a pack that is right").code(7).stderr_has("appspec.yml");
}

/// A chain of ten thousand differences is one that git would not make, and is no harm.
#[test]
fn a_chain_of_differences_ends() {
    const LINKS: usize = 10_000;
    let mut bed = Bed::new();
    let (server, source) = bed.over_the_network();
    let id = |kind, content: &[u8]| git2::Oid::hash_object(kind, content).expect("an id");
    let mut content = vec![b'x'; 100];
    let mut objects = vec![(3, Vec::new(), 100, content.clone())];
    for link in 0..LINKS {
        let last = id(ObjectType::Blob, &content).as_bytes().to_vec();
        // All of it, and another byte at its end.
        let size = content.len() as u64;
        let byte = [b'a', b'b', b'c'][link % 3];
        let [low, high, ..] = size.to_le_bytes();
        let copy = [0b1011_0000, low, high, 1, byte];
        let delta = [number(size), number(size + 1), copy.to_vec()].concat();
        content.push(byte);
        objects.push((7, last, delta.len() as u64, delta));
    }
    let tree = [b"100644 f\0", id(ObjectType::Blob, &content).as_bytes()].concat();
    let who = "A <a@b> 1700000000 +0000";
    let tree_id = id(ObjectType::Tree, &tree);
    let commit = format!("tree {tree_id}\nauthor {who}\ncommitter {who}\n\nx\n").into_bytes();
    let wanted = id(ObjectType::Commit, &commit).to_string();
    objects.push((2, Vec::new(), tree.len() as u64, tree));
    objects.push((1, Vec::new(), commit.len() as u64, commit));
    let count = u32::try_from(objects.len()).expect("few");
    bed.host.apps(&[("bad", &source, &wanted)]);
    server.inject(Fault::answer(answer(&pack(count, &objects))));
    let ran = within_bounds(&bed.host, "a chain");
    let code = ran.status.code().expect("an exit code");
    assert!([3, 7].contains(&code), "{ran:?}");
    assert_eq!(bed.host.installed("bad"), "1");
}
