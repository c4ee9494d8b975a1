//! Places that cannot be used as they should: on a read-only file system, of somebody else,
//! closed, immutable, on another file system than the rest.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::Trials;
use crate::estate::{APPS, Estate};
use crate::look;
use crate::support::host::{Ran, TestHost};

/// What is wrong with a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// A read-only file system.
    ReadOnly,
    /// Another user's.
    Foreign,
    /// Nobody may do anything there; told to an ordinary user.
    Closed,
    /// `chattr +i`.
    Immutable,
    /// A file system of its own.
    Elsewhere,
}

/// What has to come of it.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The run deploys what is wanted all the same.
    Works,
    /// It ends with this code, touches nothing, and says what to do about this.
    Told(i32, &'static str),
    /// It has touched an app when it finds out, says which, and why.
    Fails(&'static str),
}

use End::{Fails, Told, Works};
use Wrong::{Closed, Elsewhere, Foreign, Immutable, ReadOnly};

/// Places below the host's directory. `#` stands for the commit that is deployed of `api`.
const PLACES: &[(Wrong, &str, End)] = &[
    (ReadOnly, "cache", Told(11, "cache")),
    (ReadOnly, "cache/mirrors/api.git", Told(11, "api.git")),
    (ReadOnly, "cache/worktrees", Told(11, "cache/worktrees")),
    (ReadOnly, "state", Told(11, "state")),
    (ReadOnly, "log", Works),
    (ReadOnly, "deployment-root", Fails("deployment-root")),
    (ReadOnly, "srv/api", Fails("srv/api")),
    (Foreign, "cache", Told(11, "cache")),
    (Foreign, "cache/mirrors", Works),
    (Foreign, "cache/mirrors/api.git", Told(11, "api.git")),
    (Foreign, "cache/mirrors/api.git/objects", Works),
    (Foreign, "cache/mirrors/api.git/objects/pack", Works),
    (Foreign, "cache/mirrors/api.git/refs/multideployer/deployed", Works),
    (Foreign, "cache/mirrors/api.git/config", Works),
    (Foreign, "cache/worktrees/api", Told(11, "worktrees/api")),
    (Foreign, "state", Told(11, "state")),
    (Foreign, "state/last_state.yaml", Works),
    (Foreign, "state/lock", Works),
    (Foreign, "log/multideployer.log", Works),
    (Foreign, "srv/api/version", Works),
    (Closed, "cache", Told(11, "cache")),
    (Closed, "cache/mirrors", Told(11, "cache/mirrors")),
    (Closed, "cache/mirrors/api.git", Told(11, "api.git")),
    (Closed, "cache/mirrors/api.git/objects", Works),
    (Closed, "cache/mirrors/api.git/refs", Told(11, "api.git")),
    (Closed, "cache/mirrors/api.git/refs/multideployer/deployed", Told(11, "api.git")),
    (Closed, "cache/worktrees/api", Told(11, "worktrees/api")),
    (Closed, "state", Told(11, "state")),
    (Closed, "state/last_state.yaml", Told(11, "last_state.yaml")),
    (Closed, "state/lock", Told(11, "state/lock")),
    (Closed, "log", Works),
    (Closed, "log/multideployer.log", Works),
    (Closed, "deployment-root", Fails("deployment-root")),
    (Closed, "srv/api", Fails("srv/api")),
    (Closed, "etc/multideployer.yaml", Told(2, "multideployer.yaml")),
    (Immutable, "cache/mirrors/api.git", Told(11, "api.git")),
    (Immutable, "cache/mirrors/api.git/objects/pack", Told(11, "api.git")),
    (Immutable, "cache/mirrors/api.git/refs/multideployer", Fails("refs/multideployer")),
    (
        Immutable,
        "cache/mirrors/api.git/refs/multideployer/deployed",
        Fails("multideployer/deployed"),
    ),
    (Immutable, "cache/worktrees/api", Told(11, "worktrees/api")),
    (Immutable, "state", Told(11, "state")),
    (Immutable, "state/last_state.yaml", Told(11, "last_state.yaml")),
    (Immutable, "state/lock", Told(11, "state/lock")),
    (Immutable, "log/multideployer.log", Works),
    (Immutable, "srv/api/version", Fails("srv/api/version")),
    (Elsewhere, "cache", Works),
    (Elsewhere, "cache/mirrors", Works),
    (Elsewhere, "cache/worktrees", Works),
    (Elsewhere, "state", Works),
    (Elsewhere, "log", Works),
    (Elsewhere, "deployment-root", Works),
    (Elsewhere, "tmp", Works),
];

/// How many there are.
pub(crate) const KINDS: usize = PLACES.len();
/// Who an ordinary user is, and somebody else.
const USER: u32 = 54321;
const OTHER: u32 = 54322;

/// The promise.
pub(crate) fn unusable(trials: &Trials) {
    // This thread, and the programs it starts.
    crate::disk::alone();
    while let Some(number) = trials.next() {
        let &(wrong, place, end) = &PLACES[number * 5 % KINDS];
        trials.make(&format!("{place} is {wrong:?}"), || trial(wrong, place, end));
    }
}

/// A place that is spoilt until this is dropped.
struct Spoilt {
    wrong: Wrong,
    path: PathBuf,
    mode: u32,
}

impl Spoilt {
    fn spoil(wrong: Wrong, path: PathBuf) -> Self {
        let mode = path.metadata().expect("it is there").permissions().mode();
        let none = None::<&str>;
        match wrong {
            ReadOnly => {
                mount(Some(&path), &path, none, MsFlags::MS_BIND, none).expect("a mount");
                let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
                mount(none, &path, none, flags, none).expect("a read-only one");
            }
            Foreign => chown(&path, Some(OTHER), Some(OTHER)).expect("another owner"),
            Closed => set_mode(&path, 0),
            Immutable => attribute("+i", &path),
            Elsewhere => {
                let kept = path.with_extension("kept");
                std::fs::rename(&path, &kept).expect("moved");
                std::fs::create_dir(&path).expect("a directory");
                set_mode(&path, mode & 0o7777);
                let options = format!("size=64m,mode={:o}", mode & 0o7777);
                let flags = MsFlags::empty();
                mount(Some("none"), &path, Some("tmpfs"), flags, Some(options.as_str()))
                    .expect("a file system");
                let copied = Command::new("cp").arg("-a").arg(kept.join(".")).arg(&path).status();
                assert!(copied.expect("cp").success());
                std::fs::remove_dir_all(kept).expect("removed");
            }
        }
        Self { wrong, path, mode }
    }
}

impl Drop for Spoilt {
    fn drop(&mut self) {
        match self.wrong {
            ReadOnly => drop(umount2(&self.path, MntFlags::MNT_DETACH)),
            Foreign => drop(chown(&self.path, Some(0), Some(0))),
            // It may have been made anew.
            Closed if self.path.exists() => set_mode(&self.path, self.mode & 0o7777),
            Immutable if self.path.exists() => attribute("-i", &self.path),
            // Stays until the end: the run works there.
            Closed | Immutable | Elsewhere => {}
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("its mode");
}

fn attribute(what: &str, path: &Path) {
    let done = Command::new("chattr").arg(what).arg(path).status().expect("chattr");
    assert!(done.success(), "a file system with attributes");
}

fn trial(wrong: Wrong, place: &str, end: End) {
    let mut host = TestHost::new();
    if wrong == Closed {
        host.run_as(USER, USER);
    }
    let estate = Estate::new(host);
    let ours = || {
        // What the test wrote is root's.
        for name in ["etc", "secrets", "upstream", "hooks"] {
            let entries = walkdir::WalkDir::new(estate.host.path(name)).into_iter().flatten();
            for entry in entries.filter(|_| wrong == Closed) {
                chown(entry.path(), Some(USER), Some(USER)).expect("its owner");
            }
        }
    };
    let first = estate.release_all("v1");
    estate.want(&first);
    ours();
    estate.host.deploy().ok();
    let second = estate.release_all("v2");
    estate.want(&second);
    ours();
    estate.host.reports();
    let spoilt = Spoilt::spoil(wrong, estate.host.path(place));
    let ran = estate.host.deploy();
    drop(spoilt);
    let what = format!("{place} is {wrong:?}");
    let touched = estate.host.reports();
    match end {
        Works => assert_eq!(ran.status.code(), Some(0), "{what}: {ran:?}"),
        Told(code, says) => {
            assert_eq!(ran.status.code(), Some(code), "{what}: {ran:?}");
            assert_eq!(touched, [""; 0], "{what}: {ran:?}");
            assert_helpful(&what, &ran, says);
            estate.assert_installed(["v1"; 3]);
        }
        Fails(says) => {
            assert_eq!(ran.status.code(), Some(4), "{what}: {ran:?}");
            assert_helpful(&what, &ran, says);
            for app in APPS.iter().filter(|app| touched.iter().any(|line| line.starts_with(*app))) {
                assert!(ran.stdout.contains(*app), "{app} was touched and is not listed: {ran:?}");
            }
        }
    }
    estate.host.deploy().ok();
    look::assert_converged(&estate, &second, "v2");
}

/// It says what, and what to do.
fn assert_helpful(what: &str, ran: &Ran, says: &str) {
    assert!(ran.stderr.contains(says), "{what}: {ran:?}");
    let codedeploy = ran.status.code() == Some(4);
    assert!(codedeploy || ran.stderr.contains("hint: "), "{what}: no hint: {ran:?}");
    assert!(!ran.stderr.contains("panicked"), "{what}: {ran:?}");
}
