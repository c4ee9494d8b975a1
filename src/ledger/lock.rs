//! One run at a time, and one codedeploy-local.
//!
//! The run's lock goes with the run, however it ends. codedeploy-local does not: a run that is
//! killed leaves it at work, and it may take half an hour more. So each one enters itself into
//! the file `tool` before it begins ([`announce`]), and a run that has the lock waits for the
//! one that is entered there. A lock that codedeploy-local itself held would pass on to the
//! daemons that hooks start, and never be let go.
//!
//! No gap is left between the two: a run writes its id into `lock` first and then locks `tool`
//! to read it; codedeploy-local locks `tool`, reads whose id is in `lock`, and begins only if
//! it is that of its own run.

use std::fs::TryLockError;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err::os::unix::fs::OpenOptionsExt;

use super::Error;
use crate::error::ExitCode;
use crate::process::Identity;

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(100);
/// What is written into a lock file is made this long: a file that keeps its length can be
/// written over on a full disk.
const LENGTH: usize = 400;

/// The run's lock below a state directory.
pub fn run_file(state: &Path) -> PathBuf {
    state.join("lock")
}

/// Where codedeploy-local is entered.
fn tool_file(state: &Path) -> PathBuf {
    state.join("tool")
}

/// Who wants the lock.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The run's id.
    pub run: &'a str,
    /// Its process and start, for those who wait: `pid 12 run … since …`.
    pub holder: &'a str,
    /// How long it waits for others.
    pub wait: Duration,
    /// The run in whose hook it was started, if it was.
    pub inside: Option<&'a str>,
}

/// The lock of a state directory. It is released when this is dropped, or when the process
/// ends in whatever way.
#[derive(Debug)]
pub struct RunLock {
    file: fs_err::File,
    before: Before,
    unswept: bool,
}

/// How the run before ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// It removed all that it did not need any more.
    Swept,
    /// It had no time for that.
    Unswept,
    /// It did not come to its end.
    Killed,
}

/// What a run leaves in the file that did not remove everything.
const UNSWEPT: &str = "unswept";

impl RunLock {
    /// Takes the lock below `state`, and waits for a codedeploy-local that a killed run left
    /// at work. `waiting` is told whom it waits for, once each; `interrupted` ends it.
    ///
    /// # Errors
    /// [`Error::Locked`] and [`Error::ToolAtWork`] when the time is up, [`Error::Inside`] when
    /// waiting would be in vain.
    pub fn acquire(
        state: &Path,
        claim: &Claim<'_>,
        mut waiting: impl FnMut(&str),
        interrupted: impl Fn() -> Option<ExitCode>,
    ) -> Result<Self, Error> {
        let path = run_file(state);
        let mut file = open(&path)?;
        let started = Instant::now();
        let mut said = false;
        let pause = || {
            if let Some(code) = interrupted() {
                return Err(Error::Interrupted(code));
            }
            let in_time = started.elapsed() < claim.wait;
            if in_time {
                std::thread::sleep(LOOK);
            }
            Ok(in_time)
        };
        while !try_lock(&file)? {
            // Only for the message; a holder that has just begun has written nothing yet.
            let holder = read(&mut file).unwrap_or_default();
            if claim.inside.is_some() && claim.inside == run_of(&holder) {
                return Err(Error::Inside { run: claim.run_inside(), path });
            }
            if !said {
                said = true;
                if claim.wait > Duration::ZERO {
                    waiting(&format!("waiting for another run to end ({holder})"));
                }
            }
            if !pause()? {
                let holder = (!holder.is_empty()).then_some(holder);
                return Err(Error::Locked { holder, path });
            }
        }
        // Whoever ends by itself takes its text away.
        let before = match read(&mut file)?.as_str() {
            "" => Before::Swept,
            UNSWEPT => Before::Unswept,
            _ => Before::Killed,
        };
        write(&mut file, claim.holder)?;
        let mut tool = open(&tool_file(state))?;
        said = false;
        loop {
            // Locked only by one that enters itself, for a moment.
            let at_work = if try_lock(&tool)? {
                let text = read(&mut tool)?;
                let tool_at_work = AtWork::parse(&text).filter(|at_work| at_work.tool.lives());
                if tool_at_work.is_none() {
                    // Its room on the disk, while nothing is touched yet.
                    write(&mut tool, &text)?;
                    tool.file().unlock()?;
                    return Ok(Self { file, before, unswept: false });
                }
                tool.file().unlock()?;
                tool_at_work
            } else {
                None
            };
            if let Some(at_work) = &at_work {
                if claim.inside == Some(at_work.run.as_str()) {
                    return Err(Error::Inside { run: claim.run_inside(), path });
                }
                if !said {
                    said = true;
                    waiting(&format!(
                        "waiting for codedeploy-local ({}, for {}) to end: run {} was killed and left it at work",
                        at_work.tool, at_work.app, at_work.run
                    ));
                }
            }
            if !pause()? {
                return Err(match at_work {
                    Some(AtWork { run, app, tool }) => Error::ToolAtWork { run, app, tool },
                    None => Error::Locked { holder: None, path: tool_file(state) },
                });
            }
        }
    }
}

impl RunLock {
    /// How the run before ended: it may have left things behind.
    pub fn before(&self) -> Before {
        self.before
    }

    /// Has the next run remove what this one leaves behind, whichever apps it is at work on.
    pub fn leave_unswept(&mut self) {
        self.unswept = true;
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // If it stays, the next run looks for leftovers and finds none.
        let _ = write(&mut self.file, if self.unswept { UNSWEPT } else { "" });
    }
}

impl Claim<'_> {
    fn run_inside(&self) -> String {
        self.inside.unwrap_or_default().to_owned()
    }
}

/// A codedeploy-local as it entered itself.
#[derive(Debug, PartialEq, Eq)]
struct AtWork {
    tool: Identity,
    run: String,
    app: String,
}

impl AtWork {
    fn parse(text: &str) -> Option<Self> {
        let (tool, rest) = text.split_once(" run ")?;
        let (run, app) = rest.split_once(" app ")?;
        Some(Self { tool: Identity::parse(tool)?, run: run.to_owned(), app: app.to_owned() })
    }

    fn text(&self) -> String {
        format!("{} run {} app {}", self.tool.record(), self.run, self.app)
    }
}

/// Enters this process as the codedeploy-local of `run`, which it is about to become. False
/// if that run has ended: then it must not begin.
///
/// # Errors
/// The files below `state` cannot be read or written.
pub fn announce(state: &Path, run: &str, app: &str) -> Result<bool, Error> {
    let mut tool = open(&tool_file(state))?;
    // Whoever has it only reads or writes a line.
    tool.file().lock()?;
    let mut lock = open(&run_file(state))?;
    if run_of(&read(&mut lock)?) != Some(run) || try_lock(&lock)? {
        return Ok(false);
    }
    let at_work = AtWork { tool: Identity::of_this_process()?, run: run.into(), app: app.into() };
    write(&mut tool, &at_work.text())?;
    Ok(true)
}

fn open(path: &Path) -> Result<fs_err::File, Error> {
    let mut options = fs_err::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    Ok(options.open(path)?)
}

fn try_lock(file: &fs_err::File) -> Result<bool, Error> {
    match file.file().try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

fn read(file: &mut fs_err::File) -> Result<String, Error> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(1 << 16).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn write(file: &mut fs_err::File, text: &str) -> Result<(), Error> {
    file.rewind()?;
    file.write_all(format!("{text:<LENGTH$}\n").as_bytes())?;
    let end = file.stream_position()?;
    Ok(file.set_len(end)?)
}

/// The run's id in a holder's text.
fn run_of(holder: &str) -> Option<&str> {
    let mut words = holder.split_whitespace();
    words.by_ref().find(|word| *word == "run")?;
    words.next()
}

/// Who works below `state`: the run that holds the lock, as it wrote it itself, or the
/// codedeploy-local that a killed run left at work; `None` if nobody does. No lock is taken
/// for that: the kernel's list of locks is read.
///
/// # Errors
/// The file is there and cannot be read, or the kernel shows no list.
pub fn holder(state: &Path) -> std::io::Result<Option<String>> {
    let path = run_file(state);
    let metadata = match fs_err::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let locks = fs_err::read_to_string("/proc/locks")?;
    let inode = metadata.ino().to_string();
    // `1: FLOCK  ADVISORY  WRITE 4711 fd:01:131 0 EOF`. The device is not compared: it is
    // not that of `stat` on layered file systems. What the holder wrote names its pid.
    let pids = locks.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, file, ..] = words[..] else { return None };
        (file.rsplit(':').next() == Some(inode.as_str())).then(|| pid.to_owned())
    });
    let pids: Vec<String> = pids.collect();
    if pids.is_empty() {
        let tool = fs_err::read_to_string(tool_file(state)).unwrap_or_default();
        let left = AtWork::parse(tool.trim()).filter(|at_work| at_work.tool.lives());
        return Ok(left.map(|AtWork { run, app, tool }| {
            format!("codedeploy-local ({tool}, for {app}), which the killed run {run} left at work")
        }));
    }
    let text = fs_err::read_to_string(path)?;
    let mut words = text.split_whitespace();
    let named = words.find(|word| *word == "pid").and_then(|_| words.next());
    match named {
        Some(named) if pids.iter().any(|pid| pid == named) => Ok(Some(text.trim().to_owned())),
        // Another file with this inode's number, or a holder that has just begun.
        Some(_) => Ok(None),
        None => Ok(Some(format!("pid {}", pids.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim<'a>(run: &'a str, holder: &'a str) -> Claim<'a> {
        Claim { run, holder, wait: Duration::ZERO, inside: None }
    }

    fn acquire(state: &Path, claim: &Claim<'_>) -> Result<RunLock, Error> {
        RunLock::acquire(state, claim, |_| (), || None)
    }

    #[test]
    fn a_second_run_is_told_who_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let first = acquire(dir.path(), &claim("r1", "pid 1 run r1")).unwrap();
        let second = claim("r2", "pid 2 run r2");
        let failed = acquire(dir.path(), &second);
        let Err(Error::Locked { holder, .. }) = failed else { panic!("{failed:?}") };
        assert_eq!(holder.as_deref(), Some("pid 1 run r1"));
        let mut heard = String::new();
        let patient = Claim { wait: Duration::from_secs(60), ..second };
        let stop = || Some(ExitCode::Terminated);
        let stopped = RunLock::acquire(dir.path(), &patient, |h| heard = h.into(), stop);
        assert!(matches!(stopped, Err(Error::Interrupted(ExitCode::Terminated))));
        assert!(heard.contains("pid 1"), "{heard}");
        // A hook's own run would wait for itself.
        let inner = Claim { inside: Some("r1"), ..patient };
        assert!(matches!(acquire(dir.path(), &inner), Err(Error::Inside { .. })));
        drop(first);
        let mut second = acquire(dir.path(), &second).unwrap();
        let text = || fs_err::read_to_string(run_file(dir.path())).unwrap();
        assert_eq!(text().trim(), "pid 2 run r2");
        assert_eq!(second.before(), Before::Swept);
        second.leave_unswept();
        drop(second);
        let third = acquire(dir.path(), &claim("r3", "pid 3 run r3")).unwrap();
        assert_eq!(third.before(), Before::Unswept);
        drop(third);
        assert_eq!(text().trim(), "");
        fs_err::write(run_file(dir.path()), "pid 2 run r2").unwrap();
        let third = acquire(dir.path(), &claim("r3", "pid 3 run r3")).unwrap();
        assert_eq!(third.before(), Before::Killed);
    }

    #[test]
    fn a_tool_that_outlives_its_run_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let first = acquire(dir.path(), &claim("r1", "pid 1 run r1")).unwrap();
        assert!(announce(dir.path(), "r1", "api").unwrap());
        drop(first);
        // Its run is gone: it must not begin.
        assert!(!announce(dir.path(), "r1", "api").unwrap());
        let second = claim("r2", "pid 2 run r2");
        let failed = acquire(dir.path(), &second);
        let Err(Error::ToolAtWork { run, app, tool }) = failed else { panic!("{failed:?}") };
        assert_eq!((run.as_str(), app.as_str()), ("r1", "api"));
        assert_eq!(tool, Identity::of_this_process().unwrap());
        let inner = Claim { inside: Some("r1"), ..second };
        assert!(matches!(acquire(dir.path(), &inner), Err(Error::Inside { .. })));
        for over in ["", "nonsense", "pid 1 born 5 boot x run r1 app api"] {
            fs_err::write(tool_file(dir.path()), over).unwrap();
            let _second = acquire(dir.path(), &second).unwrap();
            assert!(!announce(dir.path(), "r1", "api").unwrap(), "another run has the lock");
        }
    }
}
