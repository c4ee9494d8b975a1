//! No room: a small file system for one of the places that a run writes to, and a disk that
//! is full from one call on.

use std::path::PathBuf;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::Trials;
use crate::estate::{APPS, Estate};
use crate::look;
use crate::shim::{self, Act};
use crate::support::host::Ran;

/// The host is untouched, or what was touched is said; the records claim no more than that.
fn assert_told(estate: &Estate, new: &[String; 3], ran: &Ran, words: &[&str]) {
    look::assert_no_false_claim(&estate.host, new);
    let code = ran.status.code();
    assert!(code.is_some_and(|code| [0, 3, 4, 11].contains(&code)), "{ran:?}");
    if code == Some(0) {
        return;
    }
    let said = format!("{}{}", ran.stdout, ran.stderr).to_lowercase();
    assert!(words.iter().any(|word| said.contains(word)), "it does not say why: {ran:?}");
    let log = estate.host.read("hooks/log");
    for (app, commit) in APPS.iter().zip(new) {
        if log.lines().any(|line| line.starts_with(app) && line.ends_with(commit.as_str())) {
            assert_eq!(code, Some(4), "{app} was touched: {ran:?}");
            assert!(said.contains(app), "{app} was touched and is not listed: {ran:?}");
        }
    }
}

/// How a full disk is spoken of.
const FULL: &[&str] = &["space", "room"];

/// A disk that is full, read-only or broken from one call of the run on.
pub(crate) fn at_any_call(trials: &Trials) {
    while let Some(number) = trials.next() {
        // About as many calls as a run makes.
        let at = 1 + (number * 37 % trials.count) * 900 / trials.count;
        let (errno, words) = [
            (Errno::ENOSPC, FULL),
            (Errno::EROFS, &["read-only file system"]),
            (Errno::EIO, &["input/output error", "i/o error"]),
        ][number % 3];
        trials.make(&format!("trial {number}: {errno} from call {at} on"), || {
            let estate = look::estate(number);
            let mut older = look::release(&estate, "v1");
            if number % 2 == 0 {
                estate.deploy(&older).ok();
            } else {
                older = std::array::from_fn(|_| String::new());
            }
            let new = look::release(&estate, "v2");
            estate.host.reports();
            estate.want(&new);
            let note = estate.host.path("hooks/note");
            let mut command = estate.host.command(&["deploy"]);
            shim::arm(&mut command, shim::RUN, Act::Fail(errno), at, &note);
            let ran = estate.host.start_command(command).wait();
            assert_told(&estate, &new, &ran, words);
            if number % 4 == 2 {
                estate.deploy(&older).ok();
                look::assert_converged(&estate, &older, "v1");
            }
            estate.deploy(&new).ok();
            look::assert_converged(&estate, &new, "v2");
        });
    }
}

/// A file system in memory, mounted where only this program and what it starts see it.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).expect("a directory");
        let mode = std::os::unix::fs::MetadataExt::mode(&at.metadata().expect("its mode")) & 0o777;
        let options = format!("size=64m,mode={mode:o}");
        let flags = MsFlags::empty();
        mount(Some("none"), &at, Some("tmpfs"), flags, Some(options.as_str())).expect("root");
        Self(at)
    }

    fn limit(&self, what: &str) {
        let flags = MsFlags::MS_REMOUNT;
        mount(Some("none"), &self.0, Some("tmpfs"), flags, Some(what)).expect("a new size");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}

/// Mounts from here on are seen by nobody else, and are gone with this program.
pub(crate) fn alone() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS | nix::sched::CloneFlags::CLONE_FS)
        .expect("root");
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).expect("root");
}

/// Small file systems, each filled to some level.
pub(crate) fn of_any_size(trials: &Trials) {
    // This thread, and the programs it starts.
    alone();
    let places = ["cache", "state", "log", "deployment-root", "srv"];
    while let Some(number) = trials.next() {
        let place = places[number % places.len()];
        let share = (number / places.len() * 7 % 12) as u64;
        let inodes = number % 4 == 3;
        let what = format!(
            "trial {number}: {place} with room for {share}/8 of {}",
            if inodes { "the files" } else { "the bytes" }
        );
        trials.make(&what, || {
            // Its own servers: they would not see what is mounted here.
            let estate = look::estate(if place == "srv" { 0 } else { number });
            let small = Small::mount(estate.host.path(place));
            let first = look::release(&estate, "v1");
            estate.deploy(&first).ok();
            let second = look::release(&estate, "v2");
            estate.host.reports();
            let about = nix::sys::statvfs::statvfs(&small.0).expect("its size");
            if inodes {
                let used = about.files() - about.files_free();
                small.limit(&format!("nr_inodes={}", used + used * share / 8));
            } else {
                let used = (about.blocks() - about.blocks_free()) * about.fragment_size();
                small.limit(&format!("size={}", used + used * share / 8));
            }
            let ran = estate.deploy(&second);
            assert_told(&estate, &second, &ran, FULL);
            small.limit("size=64m,nr_inodes=20000");
            estate.deploy(&second).ok();
            look::assert_converged(&estate, &second, "v2");
        });
    }
}
