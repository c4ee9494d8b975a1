//! The log file: one line for everything that happens, as text or JSON, rotated by size.
//!
//! A text line is `time run app text`, with `-` for the app where a line is about none:
//!
//! ```text
//! 2026-11-25T10:45:01.123Z 20261125T104501Z-1a2b3c api deployed in 3.2 s
//! ```
//!
//! A JSON line is one object with OpenTelemetry's names (`service.name`, `deployment.id`,
//! `vcs.ref.head.revision`) for what they are: the app, the CodeDeploy deployment around the
//! run (or the run itself), and the app's commit.

use std::fs::{DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use fs_err::os::unix::fs::OpenOptionsExt;
use nix::fcntl::{Flock, FlockArg, OFlag};
use serde::{Deserialize, Serialize};

use super::tame;
use crate::domain::Revision;
use crate::sync::lock;

/// Characters of a logged line's text.
const WIDTH: usize = 4000;

/// How the log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How a line is written.
    pub format: Format,
    /// Bytes after which the file is put aside as `….1`.
    pub max_size: u64,
    /// How many files are kept aside.
    pub keep: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self { format: Format::Text, max_size: 10_000_000, keep: 5 }
    }
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `time run app text`.
    #[default]
    Text,
    /// A JSON object.
    Json,
}

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// It happened.
    Info,
    /// A person should know.
    Warn,
    /// It failed.
    Error,
}

/// A line as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When, RFC 3339 in UTC with milliseconds.
    pub timestamp: String,
    /// How much it matters; text lines do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// What happened, in one line.
    pub body: String,
    /// The app it is about.
    #[serde(rename = "service.name", skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The commit that is being deployed.
    #[serde(rename = "vcs.ref.head.revision", skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The CodeDeploy deployment around the run; outside of a hook the run itself.
    #[serde(rename = "deployment.id", skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// The run.
    #[serde(rename = "multideployer.run")]
    pub run: String,
}

impl Line {
    fn to_text(&self) -> String {
        let app = self.app.as_deref().unwrap_or("-");
        format!("{} {} {app} {}\n", self.timestamp, self.run, self.body)
    }

    /// Reads a line of either format; `None` for what this program did not write.
    pub fn parse(line: &str) -> Option<Self> {
        if line.starts_with('{') {
            return serde_json::from_str(line).ok();
        }
        let mut words = line.splitn(4, ' ');
        let (timestamp, run, app) = (words.next()?, words.next()?, words.next()?);
        let body = words.next().unwrap_or_default();
        is_run_id(run).then(|| Self {
            timestamp: timestamp.to_owned(),
            severity: None,
            body: body.to_owned(),
            app: (app != "-").then(|| app.to_owned()),
            revision: None,
            deployment: None,
            run: run.to_owned(),
        })
    }
}

/// Whether a word looks like `20261125T104501Z-1a2b3c`.
fn is_run_id(word: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let Some((time, noise)) = word.split_once("Z-") else { return false };
    let Some((date, clock)) = time.split_once('T') else { return false };
    date.len() == 8
        && digits(date)
        && clock.len() == 6
        && digits(clock)
        && noise.bytes().all(|b| b.is_ascii_hexdigit())
}

/// An open log file; or none, when it cannot be written to: a full log partition must not
/// stop a rollback.
#[derive(Debug, Default)]
pub struct Log {
    open: Option<Mutex<Open>>,
    options: Options,
    run: String,
    deployment: Option<String>,
}

#[derive(Debug)]
struct Open {
    file: fs_err::File,
    size: u64,
    path: PathBuf,
}

impl Log {
    /// Opens the file for appending, making it (mode 0640) and its directory (0750) where
    /// missing. `deployment` is the CodeDeploy deployment around the run.
    ///
    /// # Errors
    /// It cannot be opened. [`Log::default`] writes nothing.
    pub fn open(
        path: &Path,
        options: Options,
        run: &str,
        deployment: Option<&str>,
    ) -> io::Result<Self> {
        if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
            if let Some(parent) = directory.parent() {
                fs_err::create_dir_all(parent)?;
            }
            DirBuilder::new().recursive(true).mode(0o750).create(directory)?;
        }
        let mut open = Open::new(path)?;
        open.rotate(options);
        Ok(Self {
            open: Some(Mutex::new(open)),
            options,
            run: run.to_owned(),
            deployment: deployment.map(str::to_owned),
        })
    }

    /// Appends a line.
    pub fn write(
        &self,
        app: Option<&str>,
        revision: Option<Revision>,
        severity: Severity,
        text: &str,
    ) {
        let Some(open) = &self.open else { return };
        let line = Line {
            timestamp: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
            severity: Some(severity),
            body: tame(text, WIDTH),
            app: app.map(str::to_owned),
            revision: revision.map(|revision| revision.to_string()),
            deployment: Some(self.deployment.as_ref().unwrap_or(&self.run).clone()),
            run: self.run.clone(),
        };
        let line = match self.options.format {
            Format::Text => line.to_text(),
            Format::Json => match serde_json::to_string(&line) {
                Ok(json) => super::tame_json(&json) + "\n",
                Err(_) => return,
            },
        };
        let mut open = lock(open);
        // One write, so that lines of two processes do not mix. A full disk is no reason to
        // stop deploying.
        if open.file.write_all(line.as_bytes()).is_ok() {
            open.size += line.len() as u64;
            open.rotate(self.options);
        }
    }
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        let options = || {
            let mut options = fs_err::OpenOptions::new();
            // A symbolic link planted in the log's place is not followed, and a pipe there
            // does not keep the run waiting for a reader.
            options.append(true).custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
            options
        };
        let file = match options().open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = options().create(true).mode(0o640).open(path)?;
                file.set_permissions(Permissions::from_mode(0o640))?;
                file
            }
            other => other?,
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other(format!("`{}` is not a regular file", path.display())));
        }
        Ok(Self { size: metadata.len(), file, path: path.to_owned() })
    }

    /// Puts a file aside that has grown too large, and goes on with a new one.
    fn rotate(&mut self, options: Options) {
        if self.size < options.max_size {
            return;
        }
        // Should it fail, lines go on into the old file, and the next try is as far away as
        // the first was.
        self.size = 0;
        let _ = self.try_rotate(options.keep);
    }

    fn try_rotate(&mut self, keep: u16) -> io::Result<()> {
        // Two runs may come to this at once: whoever has the lock looks whether the file is
        // still the one that has grown.
        let handle = self.file.file().try_clone()?;
        let _lock = Flock::lock(handle, FlockArg::LockExclusive).map_err(|(_, e)| e)?;
        let ours = self.file.metadata()?;
        let there = fs_err::symlink_metadata(&self.path)?;
        if (ours.dev(), ours.ino()) == (there.dev(), there.ino()) {
            for n in (1..keep).rev() {
                match fs_err::rename(rotated(&self.path, n), rotated(&self.path, n + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            if keep == 0 {
                fs_err::remove_file(&self.path)?;
            } else {
                fs_err::rename(&self.path, rotated(&self.path, 1))?;
            }
        }
        *self = Self::new(&self.path)?;
        Ok(())
    }
}

/// The name of the nth file put aside, the newest being 1.
pub fn rotated(path: &Path, n: u16) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "20261125T104501Z-1a2b3c";

    #[test]
    fn lines_have_time_run_and_app_and_links_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/m.log");
        let log = Log::open(&path, Options::default(), RUN, None).unwrap();
        log.write(Some("api"), None, Severity::Info, "one\ntwo");
        log.write(None, None, Severity::Error, "three");
        let text = fs_err::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(lines, [format!("{RUN} api one\u{fffd}two"), format!("{RUN} - three")]);
        let parsed: Vec<Line> = text.lines().map(|line| Line::parse(line).unwrap()).collect();
        assert_eq!((parsed[0].app.as_deref(), parsed[1].app.as_deref()), (Some("api"), None));
        let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&dir.path().join("sub")) & !0o750), (0o640, 0));
        std::os::unix::fs::symlink(&path, dir.path().join("link")).unwrap();
        assert!(Log::open(&dir.path().join("link"), Options::default(), RUN, None).is_err());
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(Log::open(&pipe, Options::default(), RUN, None).is_err());
    }

    #[test]
    fn a_json_line_is_an_object_with_the_usual_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.log");
        let options = Options { format: Format::Json, ..Options::default() };
        let log = Log::open(&path, options, RUN, Some("d-1")).unwrap();
        let revision = Revision::from_bytes([0x11; 20]);
        log.write(Some("api"), Some(revision), Severity::Warn, "a \"b\"");
        let text = fs_err::read_to_string(&path).unwrap();
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["service.name"], "api");
        assert_eq!(object["deployment.id"], "d-1");
        assert_eq!(object["vcs.ref.head.revision"], "1".repeat(40));
        assert_eq!((&object["severity"], &object["body"]), (&"WARN".into(), &"a \"b\"".into()));
        assert_eq!(Line::parse(text.trim_end()).unwrap().run, RUN);
    }

    #[test]
    fn a_log_that_has_grown_is_put_aside_and_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.log");
        let options = Options { max_size: 200, keep: 2, ..Options::default() };
        let (one, two) = (
            Log::open(&path, options, RUN, None).unwrap(),
            Log::open(&path, options, RUN, None).unwrap(),
        );
        for n in 0..24 {
            // Another process notices late that the file was put aside; nothing is lost by it.
            let log = if n % 3 == 0 { &two } else { &one };
            log.write(None, None, Severity::Info, &format!("line {n:02}"));
        }
        drop((one, two));
        let mut files: Vec<_> = fs_err::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, ["m.log", "m.log.1", "m.log.2"]);
        let last = fs_err::read_to_string(&path).unwrap()
            + &fs_err::read_to_string(rotated(&path, 1)).unwrap();
        assert!(last.contains("line 23") && !last.contains("line 00"), "{last}");
    }

    #[test]
    fn other_programs_lines_are_not_ours() {
        for line in ["", "2020-01-01 12:00:00,000 INFO deploying", "{\"a\": 1}", "x y z", "{"] {
            assert_eq!(Line::parse(line), None, "{line}");
        }
    }
}
