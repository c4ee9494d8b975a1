//! The logs of scripts: `scripts.log` of one deployment, and the log of all deployments.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use jiff::ZonedDateTime;

use crate::process::{Line, Stream};

/// The log of all deployments is put aside when it is larger, as the agent does.
const MOST_BYTES: u64 = 64 << 20;
/// How many of those put aside are kept.
const KEPT: u32 = 7;

/// Where script lines go. The files are made when the first script runs.
#[derive(Debug)]
pub(super) struct ScriptLog {
    file: fs::File,
    all: Option<fs::File>,
    deployment: String,
    /// The output whose line is not yet at its end.
    open: Option<Stream>,
    failed: bool,
}

/// `ROOT/GROUP/ID/logs/scripts.log`.
pub(super) fn scripts_log(deployment_folder: &Path) -> PathBuf {
    deployment_folder.join("logs/scripts.log")
}

impl ScriptLog {
    /// `all` is the log of all deployments, if it is wanted.
    ///
    /// # Errors
    /// The deployment's own log cannot be opened.
    pub(super) fn open(folder: &Path, all: Option<&Path>, deployment: &str) -> io::Result<Self> {
        let path = scripts_log(folder);
        fs::create_dir_all(folder.join("logs"))?;
        let file = append(&path)?;
        let all = all.and_then(|path| {
            fs::create_dir_all(path.parent()?).ok()?;
            put_aside(path);
            append(path).ok()
        });
        Ok(Self { file, all, deployment: deployment.to_owned(), open: None, failed: false })
    }

    /// An entry of our own.
    pub(super) fn entry(&mut self, text: &str) {
        self.end_line();
        self.write(text.as_bytes(), true, true);
    }

    /// A line of a script's output.
    pub(super) fn line(&mut self, line: Line<'_>) {
        let goes_on = self.open == Some(line.stream);
        if !goes_on {
            self.end_line();
        }
        let tag = match line.stream {
            _ if goes_on => "",
            Stream::Stdout => "[stdout]",
            Stream::Stderr => "[stderr]",
        };
        let text = format!("{tag}{}", String::from_utf8_lossy(line.bytes));
        self.write(text.as_bytes(), !goes_on, !line.continues);
        self.open = line.continues.then_some(line.stream);
    }

    fn end_line(&mut self) {
        if self.open.take().is_some() {
            self.write(b"", false, true);
        }
    }

    /// A log that cannot be written (a full disk) must not end a deployment half-way.
    fn write(&mut self, text: &[u8], begins: bool, ends: bool) {
        let now = ZonedDateTime::now();
        let mut entry = Vec::with_capacity(text.len() + 24);
        if begins {
            entry.extend_from_slice(now.strftime("%Y-%m-%d %H:%M:%S ").to_string().as_bytes());
        }
        entry.extend_from_slice(text);
        if ends {
            entry.push(b'\n');
        }
        self.failed |= self.file.write_all(&entry).is_err();
        if let Some(all) = &mut self.all
            && (begins || !text.is_empty())
        {
            let time = now.strftime("%Y-%m-%d %H:%M:%S%.3f");
            let mut entry = format!("[{time}] [{}]", self.deployment).into_bytes();
            entry.extend_from_slice(text.trim_ascii());
            entry.push(b'\n');
            self.failed |= all.write_all(&entry).is_err();
        }
    }

    /// Whether something could not be written.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }
}

/// Appends lines about a deployment to the tool's own log, where there can be one. What they
/// say was also printed, so nothing is lost without it.
pub(super) fn note(log_dir: &Path, deployment: &str, lines: &[String]) {
    let time = ZonedDateTime::now().strftime("%Y-%m-%d %H:%M:%S").to_string();
    let text: String = lines
        .iter()
        .map(|line| line.replace('\n', "\n  "))
        .fold(String::new(), |text, line| text + &format!("{time} [{deployment}] {line}\n"));
    if fs::create_dir_all(log_dir).is_ok()
        && let Ok(mut file) = append(&log_dir.join("codedeploy-local.log"))
    {
        let _ = file.write_all(text.as_bytes());
    }
}

fn append(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().append(true).create(true).open(path)
}

/// Moves a log that has grown too large out of the way: `.0` is the newest.
fn put_aside(path: &Path) {
    if !fs::metadata(path).is_ok_and(|m| m.len() > MOST_BYTES) {
        return;
    }
    let numbered = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        PathBuf::from(name)
    };
    for n in (1..KEPT).rev() {
        let _ = fs::rename(numbered(n - 1), numbered(n));
    }
    let _ = fs::rename(path, numbered(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stream: Stream, bytes: &[u8], continues: bool) -> Line<'_> {
        Line { stream, bytes, continues }
    }

    /// The text without times.
    fn timeless(text: &str) -> String {
        let cut = |line: &str| {
            let is_time = line.as_bytes().get(10) == Some(&b' ') && line.starts_with("20");
            let line = if is_time { &line[20..] } else { line };
            line.split_once("] [").map_or(line, |(_, rest)| rest).to_owned()
        };
        text.lines().map(cut).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn each_entry_has_its_own_line() {
        let dir = tempfile::tempdir().unwrap();
        let all = dir.path().join("deployment-logs/agent-deployments.log");
        let mut log = ScriptLog::open(dir.path(), Some(&all), "d-X-local").unwrap();
        log.entry("LifecycleEvent - AfterInstall");
        log.line(line(Stream::Stdout, b"  a\r", false));
        log.line(line(Stream::Stdout, b"bad \xff", false));
        log.line(line(Stream::Stdout, b"long", true));
        log.line(line(Stream::Stdout, b"er", false));
        log.line(line(Stream::Stdout, b"cut", true));
        log.line(line(Stream::Stderr, b"other", false));
        log.entry("Script - x.sh");
        assert!(!log.failed());
        let text = fs::read_to_string(scripts_log(dir.path())).unwrap();
        assert_eq!(
            timeless(&text),
            "LifecycleEvent - AfterInstall\n[stdout]  a\n[stdout]bad \u{fffd}\n[stdout]longer\n\
             [stdout]cut\n[stderr]other\nScript - x.sh"
        );
        assert!(text.contains("  a\r\n"));
        let text = timeless(&fs::read_to_string(all).unwrap());
        assert!(
            text.starts_with("d-X-local]LifecycleEvent - AfterInstall\nd-X-local][stdout]  a\n"),
            "{text}"
        );
    }

    #[test]
    fn a_large_log_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let all = dir.path().join("x.log");
        fs::File::create(&all).unwrap().set_len(MOST_BYTES + 1).unwrap();
        fs::write(dir.path().join("x.log.0"), "older").unwrap();
        drop(ScriptLog::open(dir.path(), Some(&all), "d").unwrap());
        assert_eq!(fs::metadata(&all).unwrap().len(), 0);
        assert_eq!(fs::metadata(dir.path().join("x.log.0")).unwrap().len(), MOST_BYTES + 1);
        assert_eq!(fs::read_to_string(dir.path().join("x.log.1")).unwrap(), "older");
    }
}
