//! The log file: every line with its time, appended.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

use fs_err::os::unix::fs::OpenOptionsExt;

use super::tame;

/// Characters of a logged line.
const WIDTH: usize = 4000;

/// An open log file; or none, when it cannot be written to: a full log partition must not
/// stop a rollback.
#[derive(Debug, Default)]
pub struct Log(Option<Mutex<fs_err::File>>);

impl Log {
    /// Opens the file for appending, making it (mode 0640) and its directory where missing.
    ///
    /// # Errors
    /// It cannot be opened. [`Log::default`] writes nothing.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs_err::create_dir_all(directory)?;
        }
        let mut options = fs_err::OpenOptions::new();
        options.append(true).create(true).mode(0o640);
        // A symbolic link planted in the log's place is not followed.
        options.custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits());
        Ok(Self(Some(Mutex::new(options.open(path)?))))
    }

    /// Appends a line: time, app (or `-`), text.
    pub fn line(&self, app: Option<&str>, text: &str) {
        let Some(file) = &self.0 else { return };
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        let line = format!("{now} {} {}\n", app.unwrap_or("-"), tame(text, WIDTH));
        let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // One write, so that lines of two processes do not mix. A full disk is no reason to
        // stop deploying.
        let _ = file.write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn lines_have_time_and_app_and_links_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/m.log");
        let log = Log::open(&path).unwrap();
        log.line(Some("api"), "one\ntwo");
        log.line(None, "three");
        let text = fs_err::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(lines, ["api one\u{fffd}two", "- three"]);
        assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o777 & !0o640, 0);
        std::os::unix::fs::symlink(&path, dir.path().join("link")).unwrap();
        assert!(Log::open(&dir.path().join("link")).is_err());
    }
}
