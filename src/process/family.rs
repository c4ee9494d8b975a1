//! Who belongs to a child: its process group, its descendants, and what was left behind by
//! descendants that ended.
//!
//! This program is made the reaper of its orphans, so that a process whose parent is gone
//! becomes our child instead of init's and can still be found. What had been an orphan
//! before a run began belongs to an earlier run (a daemon that a script started on
//! purpose) and is never touched.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once};

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::Holder;
use crate::sync::lock;

/// The children that runs of this process wait for at the moment.
static RUNNING: Mutex<Vec<i32>> = Mutex::new(Vec::new());
static REAPER: Once = Once::new();
/// Whether this process starts no children but by runs.
static OURS_ALONE: AtomicBool = AtomicBool::new(false);

/// Says that this process starts no children but by this module: then whoever becomes its child
/// in its own process group, too, has been left behind by one of them. Without that, such a child
/// is not touched: other code of the process may have started it and wait for it.
pub fn owns_all_children() {
    OURS_ALONE.store(true, Ordering::Relaxed);
}

fn running() -> MutexGuard<'static, Vec<i32>> {
    lock(&RUNNING)
}

/// A line of `/proc/PID/stat`, as far as it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    zombie: bool,
    pub(super) parent: i32,
    group: i32,
    session: i32,
    /// Clock ticks since boot. A pid that is used again has another one.
    pub(super) born: u64,
}

/// A process, not to be mistaken for a later one with the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pid: i32,
    born: u64,
    /// The kernel's id for the time since it was started.
    boot: String,
}

impl Identity {
    /// This process; it stays the same when it becomes another program.
    ///
    /// # Errors
    /// There is no `/proc`.
    pub fn of_this_process() -> io::Result<Self> {
        let pid = std::process::id().cast_signed();
        let stat = stat(pid).ok_or_else(|| io::Error::other("`/proc` does not show processes"))?;
        Ok(Self { pid, born: stat.born, boot: boot()? })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it has not ended. A zombie has.
    pub fn lives(&self) -> bool {
        boot().is_ok_and(|boot| boot == self.boot)
            && stat(self.pid).is_some_and(|stat| !stat.zombie && stat.born == self.born)
    }

    /// As text, for [`Identity::parse`].
    pub fn record(&self) -> String {
        format!("pid {} born {} boot {}", self.pid, self.born, self.boot)
    }

    /// From the text of [`Identity::record`].
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let ["pid", pid, "born", born, "boot", boot] = words[..] else { return None };
        Some(Self { pid: pid.parse().ok()?, born: born.parse().ok()?, boot: boot.to_owned() })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}", self.pid)
    }
}

fn boot() -> io::Result<String> {
    Ok(fs_err::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

pub(super) struct Family {
    leader: Pid,
    /// Processes seen to belong here, with their birth.
    known: HashMap<i32, u64>,
    /// Sessions of those.
    sessions: HashSet<i32>,
    /// Orphans from before, and their sessions.
    strangers: HashSet<i32>,
    strange_sessions: HashSet<i32>,
}

impl Family {
    /// To be called before the child is started.
    pub(super) fn prepare() -> Self {
        REAPER.call_once(|| {
            // Without it (a kernel before 3.4) orphans are init's, and not found.
            let _ = nix::sys::prctl::set_child_subreaper(true);
        });
        let strangers: HashSet<i32> = our_children().into_iter().collect();
        let mut strange_sessions: HashSet<i32> =
            strangers.iter().filter_map(|pid| stat(*pid)).map(|s| s.session).collect();
        strange_sessions.remove(&our_session());
        Self {
            leader: Pid::from_raw(0),
            known: HashMap::new(),
            sessions: HashSet::new(),
            strangers,
            strange_sessions,
        }
    }

    /// To be called once the child runs.
    pub(super) fn started(&mut self, leader: Pid) {
        self.leader = leader;
        if let Some(stat) = stat(leader.as_raw()) {
            self.known.insert(leader.as_raw(), stat.born);
        }
    }

    /// Sends `signal` to the group and to every living member outside of it.
    pub(super) fn send(&mut self, signal: Signal) {
        let members = self.members();
        let _ = killpg(self.leader, signal);
        for (pid, stat) in members {
            if stat.group != self.leader.as_raw() {
                let _ = kill(Pid::from_raw(pid), signal);
            }
        }
    }

    /// Whether a member lives.
    pub(super) fn alive(&mut self) -> bool {
        !self.members().is_empty()
    }

    /// The living members by pid.
    fn members(&mut self) -> HashMap<i32, Stat> {
        let all = all_stats();
        let us = i32::try_from(std::process::id()).unwrap_or_default();
        let running: Vec<i32> = running().clone();
        let alone = running.len() <= 1;
        let mut found: HashSet<i32> = all
            .iter()
            .filter(|(pid, s)| {
                s.group == self.leader.as_raw() || self.known.get(pid) == Some(&s.born)
            })
            .map(|(pid, _)| *pid)
            .collect();
        loop {
            let before = found.len();
            for (pid, s) in &all {
                let orphan = s.parent == us
                    && !may_be_others(s)
                    && !running.contains(pid)
                    && !self.strangers.contains(pid)
                    && !self.strange_sessions.contains(&s.session)
                    && (alone || self.sessions.contains(&s.session));
                if found.contains(&s.parent) || orphan {
                    found.insert(*pid);
                }
            }
            if found.len() == before {
                break;
            }
        }
        for pid in &found {
            if let Some(s) = all.get(pid) {
                self.known.insert(*pid, s.born);
                self.sessions.insert(s.session);
            }
        }
        self.sessions.remove(&our_session());
        all.into_iter().filter(|(pid, s)| found.contains(pid) && !s.zombie).collect()
    }
}

/// Starts a child that nobody else takes the end of, however soon it ends: one that is about
/// to be started is nobody's for [`reap`].
pub(super) fn spawn(start: impl FnOnce() -> io::Result<Child>) -> io::Result<Child> {
    let mut running = running();
    let child = start()?;
    running.push(i32::try_from(child.id()).unwrap_or_default());
    Ok(child)
}

/// Takes the end of everything that has ended and is ours to take. `leader` is no longer
/// waited for.
pub(super) fn reap(leader: Pid) {
    let mut running = running();
    running.retain(|pid| *pid != leader.as_raw());
    for pid in our_children() {
        if !running.contains(&pid) && stat(pid).is_some_and(|s| s.zombie && !may_be_others(&s)) {
            let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
        }
    }
}

/// Whether a child of this process may have been started by other code in it: our own are in
/// process groups of theirs.
fn may_be_others(stat: &Stat) -> bool {
    !OURS_ALONE.load(Ordering::Relaxed) && stat.group == nix::unistd::getpgrp().as_raw()
}

fn our_session() -> i32 {
    nix::unistd::getsid(None).map_or(0, Pid::as_raw)
}

/// Our direct children, as the kernel lists them per thread.
fn our_children() -> Vec<i32> {
    let Ok(tasks) = fs_err::read_dir("/proc/self/task") else { return Vec::new() };
    let mut children = Vec::new();
    for task in tasks.flatten() {
        if let Ok(text) = fs_err::read_to_string(task.path().join("children")) {
            children.extend(text.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    children
}

pub(super) fn stat(pid: i32) -> Option<Stat> {
    let text = fs_err::read(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may itself hold anything.
    let end = text.iter().rposition(|b| *b == b')')?;
    let rest = String::from_utf8_lossy(text.get(end + 1..)?).into_owned();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |i: usize| fields.get(i).and_then(|f| f.parse::<i32>().ok());
    Some(Stat {
        zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: number(1)?,
        group: number(2)?,
        session: number(3)?,
        born: fields.get(19)?.parse().ok()?,
    })
}

fn pids() -> Vec<i32> {
    let Ok(entries) = fs_err::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

fn all_stats() -> HashMap<i32, Stat> {
    pids().into_iter().filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

/// At most `max` processes other than us that have one of these pipes open.
pub(super) fn holders(pipes: &[BorrowedFd<'_>], max: usize) -> Vec<Holder> {
    let inodes: HashSet<u64> =
        pipes.iter().filter_map(|fd| nix::sys::stat::fstat(fd).ok()).map(|s| s.st_ino).collect();
    let us = i32::try_from(std::process::id()).unwrap_or_default();
    let mut found = Vec::new();
    for pid in pids().into_iter().filter(|pid| *pid != us) {
        let Ok(fds) = fs_err::read_dir(format!("/proc/{pid}/fd")) else { continue };
        let holds = fds.flatten().any(|fd| {
            let is_pipe = fs_err::read_link(fd.path())
                .is_ok_and(|text| text.to_string_lossy().starts_with("pipe:"));
            is_pipe && fs_err::metadata(fd.path()).is_ok_and(|m| inodes.contains(&m.ino()))
        });
        if holds {
            let comm = fs_err::read(Path::new("/proc").join(pid.to_string()).join("comm"));
            let name = String::from_utf8_lossy(&comm.unwrap_or_default()).trim_end().to_owned();
            found.push(Holder { pid, name });
            if found.len() == max {
                break;
            }
        }
    }
    found
}
