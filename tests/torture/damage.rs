//! Mirrors, records and worktrees that are not what a run left: one rebuild in the same run
//! where that helps, else a message that says what to do; never a damaged record taken for
//! "deployed".

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::estate::Estate;
use crate::support::host::TestHost;

/// What has to come of it, with a new release and with the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The run deploys what is wanted, and the history is still there.
    Mended,
    /// The same, but the tags of the history were in what was damaged.
    MendedWithoutHistory,
    /// The run touches nothing, ends with this code and says this.
    Told(i32, &'static str),
}

/// A name, what is done to the host, its mirror of `api`, and what has to come of it.
type Damage = (&'static str, fn(&TestHost, &Path), End);

const DAMAGES: &[Damage] = &[
    ("deployed is empty", |_, m| put(m, "refs/multideployer/deployed", ""), End::Mended),
    ("deployed is garbage", |_, m| put(m, "refs/multideployer/deployed", "\0\0\0\0"), End::Mended),
    ("deployed is a directory", |_, m| directory(m, "refs/multideployer/deployed"), End::Mended),
    ("deployed is a pipe", |_, m| pipe(m, "refs/multideployer/deployed"), End::Mended),
    ("HEAD is a pipe", |_, m| pipe(m, "HEAD"), End::Mended),
    ("packed-refs is a pipe", |_, m| pipe(m, "packed-refs"), End::Mended),
    (
        "the mirror's lock is a pipe",
        |_, m| pipe(m, "multideployer.lock"),
        End::Told(11, "multideployer.lock"),
    ),
    ("the lock is a pipe", |h, _| pipe(&h.path("state"), "lock"), End::Told(11, "state/lock")),
    (
        "last_state.yaml is a pipe",
        |h, _| pipe(&h.path("state"), "last_state.yaml"),
        End::Told(11, "last_state.yaml"),
    ),
    ("attempted is empty", |_, m| put(m, "refs/multideployer/attempted", ""), End::Mended),
    (
        "a fetched ref is empty",
        |_, m| every(m, "refs/multideployer/fetched", "", |_| vec![]),
        End::Mended,
    ),
    (
        "a history ref is empty",
        |_, m| every(m, "refs/multideployer/history", "", |_| vec![]),
        End::MendedWithoutHistory,
    ),
    ("packs are empty", |_, m| every(m, "objects/pack", ".pack", |_| vec![]), End::Mended),
    (
        "packs are cut",
        |_, m| every(m, "objects/pack", ".pack", |b| b[..b.len() / 2].to_vec()),
        End::Mended,
    ),
    ("packs are flipped", |_, m| every(m, "objects/pack", ".pack", flipped), End::Mended),
    ("indexes are empty", |_, m| every(m, "objects/pack", ".idx", |_| vec![]), End::Mended),
    (
        "indexes are cut",
        |_, m| every(m, "objects/pack", ".idx", |b| b[..b.len() / 2].to_vec()),
        End::Mended,
    ),
    ("indexes are flipped", |_, m| every(m, "objects/pack", ".idx", flipped), End::Mended),
    (
        "there are no packs",
        |_, m| fs::remove_dir_all(m.join("objects/pack")).expect("packs"),
        End::Mended,
    ),
    (
        "there are no objects",
        |_, m| fs::remove_dir_all(m.join("objects")).expect("objects"),
        End::Mended,
    ),
    ("objects is a file", |_, m| file(m, "objects"), End::Mended),
    ("objects is a link to a device", |_, m| link(m, "objects", "/dev/null"), End::Mended),
    ("HEAD is garbage", |_, m| put(m, "HEAD", "nonsense"), End::Mended),
    ("HEAD is empty", |_, m| put(m, "HEAD", ""), End::Mended),
    ("HEAD is gone", |_, m| gone(m, "HEAD"), End::Mended),
    ("HEAD is a directory", |_, m| directory(m, "HEAD"), End::Mended),
    ("config is garbage", |_, m| put(m, "config", "[core\n\0"), End::Mended),
    ("config is empty", |_, m| put(m, "config", ""), End::Mended),
    ("config is gone", |_, m| gone(m, "config"), End::Mended),
    ("config is a directory", |_, m| directory(m, "config"), End::Mended),
    (
        "config is of a newer git",
        |_, m| put(m, "config", "[core]\n\trepositoryformatversion = 7\n\tbare = true\n"),
        End::Mended,
    ),
    ("shallow is garbage", |_, m| put(m, "shallow", "nonsense\n"), End::Mended),
    ("shallow is a directory", |_, m| directory(m, "shallow"), End::Mended),
    ("packed-refs is garbage", |_, m| put(m, "packed-refs", "nonsense\n"), End::Mended),
    ("packed-refs is a directory", |_, m| directory(m, "packed-refs"), End::Mended),
    ("refs is a file", |_, m| file(m, "refs"), End::MendedWithoutHistory),
    (
        "refs/multideployer is a file",
        |_, m| file(m, "refs/multideployer"),
        End::MendedWithoutHistory,
    ),
    (
        "it is of another repository",
        |_, m| {
            let config = fs::read_to_string(m.join("config")).expect("the configuration");
            put(m, "config", &config.replace("api.git", "other.git"));
        },
        End::Mended,
    ),
    ("the mirror is a file", |_, m| file(m, ""), End::MendedWithoutHistory),
    ("the mirror is an empty directory", |_, m| directory(m, ""), End::MendedWithoutHistory),
    (
        "the mirror is a link to nothing",
        |_, m| link(m, "", "/nonexistent/x"),
        End::Told(11, "api.git"),
    ),
    (
        "the mirror is a link elsewhere",
        |h, m| {
            fs::rename(m, h.path("elsewhere")).expect("moved");
            symlink(h.path("elsewhere"), m).expect("a link");
        },
        End::Mended,
    ),
    (
        "the mirror's lock is a directory",
        |_, m| directory(m, "multideployer.lock"),
        End::Told(11, "multideployer.lock"),
    ),
    ("mirrors is a file", |h, _| file(&h.path("cache"), "mirrors"), End::Told(11, "cache/mirrors")),
    (
        "worktrees is a file",
        |h, _| file(&h.path("cache"), "worktrees"),
        End::Told(11, "cache/worktrees"),
    ),
    (
        "the app's worktrees are a file",
        |h, _| file(&h.path("cache"), "worktrees/api"),
        End::Told(11, "worktrees/api"),
    ),
    (
        "the lock is a directory",
        |h, _| directory(&h.path("state"), "lock"),
        End::Told(11, "state/lock"),
    ),
    (
        "tool is a directory",
        |h, _| directory(&h.path("state"), "tool"),
        End::Told(11, "state/tool"),
    ),
    (
        "last_state.yaml is garbage",
        |h, _| put(&h.path("state"), "last_state.yaml", "\0["),
        End::Mended,
    ),
    ("last_state.yaml is empty", |h, _| put(&h.path("state"), "last_state.yaml", ""), End::Mended),
    (
        "last_state.yaml is a directory",
        |h, _| directory(&h.path("state"), "last_state.yaml"),
        End::Told(11, "last_state.yaml"),
    ),
];

fn put(at: &Path, name: &str, content: &str) {
    fs::write(at.join(name), content).expect("written");
}

fn gone(at: &Path, name: &str) {
    let path = if name.is_empty() { at.to_owned() } else { at.join(name) };
    match path.symlink_metadata() {
        Ok(about) if about.is_dir() => fs::remove_dir_all(path).expect("removed"),
        Ok(_) => fs::remove_file(path).expect("removed"),
        Err(_) => {}
    }
}

fn file(at: &Path, name: &str) {
    gone(at, name);
    fs::write(at.join(name).components().collect::<PathBuf>(), "x").expect("a file");
}

fn directory(at: &Path, name: &str) {
    gone(at, name);
    fs::create_dir(at.join(name).components().collect::<PathBuf>()).expect("a directory");
}

fn pipe(at: &Path, name: &str) {
    gone(at, name);
    nix::unistd::mkfifo(&at.join(name), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
}

fn link(at: &Path, name: &str, to: &str) {
    gone(at, name);
    symlink(to, at.join(name).components().collect::<PathBuf>()).expect("a link");
}

fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 8] {
        *byte ^= 0x55;
    }
    bytes
}

/// Changes every file in a directory whose name ends so.
fn every(at: &Path, place: &str, end: &str, change: fn(&[u8]) -> Vec<u8>) {
    let mut changed = 0;
    for entry in fs::read_dir(at.join(place)).expect("there").flatten() {
        if entry.file_name().to_string_lossy().ends_with(end) {
            let bytes = fs::read(entry.path()).expect("readable");
            // Another mirror may have the same file.
            fs::remove_file(entry.path()).expect("removed");
            fs::write(entry.path(), change(&bytes)).expect("written");
            fs::set_permissions(entry.path(), PermissionsExt::from_mode(0o600)).expect("its mode");
            changed += 1;
        }
    }
    assert!(changed > 0, "{place} has none that end in {end}");
}

fn try_one(&(name, damage, end): &Damage, newer: bool) {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.deploy(&one).ok();
    let wanted = if newer { estate.release_all("v2") } else { one.clone() };
    estate.host.reports();
    damage(&estate.host, &estate.host.mirror("api"));
    let ran = estate.deploy(&wanted);
    let what = format!("{name} (newer: {newer})");
    match end {
        End::Told(code, says) => {
            // What a run with nothing to do has no need of may be as it likes.
            if !newer && ran.status.code() == Some(0) {
                return;
            }
            assert_eq!(ran.status.code(), Some(code), "{what}: {ran:?}");
            assert!(ran.stderr.contains(says), "{what}: {ran:?}");
            assert!(ran.stderr.contains("hint: "), "{what} without a hint: {ran:?}");
            assert_eq!(estate.host.reports(), [""; 0], "{what}");
        }
        End::Mended | End::MendedWithoutHistory => {
            assert_eq!(ran.status.code(), Some(0), "{what}: {ran:?}");
            for (app, commit) in crate::estate::APPS.iter().zip(&wanted) {
                let state = estate.host.read("state/last_state.yaml");
                assert!(state.contains(commit.as_str()), "{what}: {app}\n{state}");
            }
            estate.assert_installed([if newer { "v2" } else { "v1" }; 3]);
            if newer {
                estate.assert_deployed(&wanted);
                let tags = "refs/multideployer/history/**";
                let history =
                    estate.host.git("api", &["for-each-ref", "--format=%(refname)", tags]);
                let tags = history.lines().count();
                let kept = if end == End::Mended { 2 } else { 1 };
                assert_eq!(tags, kept, "{what}: {history}");
            }
            // And all is well afterwards.
            drop(estate.host.run(&["deploy", "--force"]).ok());
            drop(estate.host.deploy().ok().silent_about("damaged"));
        }
    }
}

/// How many kinds there are: an odd number, so that every other one is all of them in the end.
pub(crate) const KINDS: usize = DAMAGES.len();
const _: () = assert!(KINDS % 2 == 1);

/// What is tried: every other kind with a new release, then the others, then all with the same.
fn choice(trial: usize) -> &'static Damage {
    &DAMAGES[trial * 2 % KINDS]
}

/// Its name.
pub(crate) fn name(trial: usize) -> &'static str {
    choice(trial).0
}

/// Tries it.
pub(crate) fn trial(trial: usize) {
    try_one(choice(trial), trial < KINDS);
}
