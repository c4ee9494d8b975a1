//! One run at a time.

use fs_err::os::unix::fs::OpenOptionsExt;
use std::fs::TryLockError;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::Error;
use crate::error::ExitCode;

/// The lock of a state directory. It is released when this is dropped, or when the process
/// ends in whatever way.
#[derive(Debug)]
pub struct RunLock {
    _file: fs_err::File,
}

impl RunLock {
    /// Takes the lock at `path`, waiting at most `wait` for another run to end. `holder`
    /// is written into the file, for those who wait. `waiting` is called once, with the
    /// other run's text, before the wait; `interrupted` ends it.
    pub fn acquire(
        path: &Path,
        holder: &str,
        wait: Duration,
        waiting: impl FnOnce(&str),
        interrupted: impl Fn() -> Option<ExitCode>,
    ) -> Result<Self, Error> {
        let mut options = fs_err::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path)?;
        let started = Instant::now();
        let mut waiting = Some(waiting);
        loop {
            match file.file().try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(error.into()),
                Err(TryLockError::WouldBlock) => {}
            }
            if let Some(code) = interrupted() {
                return Err(Error::Interrupted(code));
            }
            let mut text = String::new();
            // Only for the message; a holder that has just begun has written nothing yet.
            let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
            let text = text.trim().to_owned();
            if started.elapsed() >= wait {
                let holder = (!text.is_empty()).then_some(text);
                return Err(Error::Locked { holder, path: path.to_owned() });
            }
            if let Some(waiting) = waiting.take() {
                waiting(&text);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{holder}")?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_is_told_who_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let free = || None;
        let first = RunLock::acquire(&path, "pid 1", Duration::ZERO, |_| (), free).unwrap();
        let mut heard = String::new();
        let wait = Duration::from_millis(1);
        let second = RunLock::acquire(&path, "pid 2", wait, |h| heard = h.into(), free);
        let Err(Error::Locked { holder, .. }) = second else { panic!("{second:?}") };
        assert_eq!(holder.as_deref(), Some("pid 1"));
        assert_eq!(heard, "pid 1");
        let stop = || Some(ExitCode::Terminated);
        let long = Duration::from_secs(60);
        let stopped = RunLock::acquire(&path, "pid 2", long, |_| (), stop);
        assert!(matches!(stopped, Err(Error::Interrupted(ExitCode::Terminated))));
        drop(first);
        RunLock::acquire(&path, "pid 2", Duration::ZERO, |_| (), free).unwrap();
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "pid 2\n");
    }
}
