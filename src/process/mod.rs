//! Children: the only place where this program starts another one.
//!
//! A child leads its own process group in our session, reads from a closed pipe,
//! `/dev/null` or bytes given to it, and writes into pipes that are read here, line by
//! line; it never gets our own stdout or stderr. When its time is up, or a signal tells us
//! to end, it is ended with everything it started, also what has left its process group
//! or session (`su` and `sudo` do that), as far as `/proc` shows it.
//!
//! ```no_run
//! use std::time::Duration;
//! use multideployer::process::{Command, Interrupt, Outcome};
//!
//! let interrupt = Interrupt::on_signals()?;
//! let done = Command::new("/usr/bin/true")
//!     .arg("--help")
//!     .env("LANG", "C")
//!     .deadline(Some(Duration::from_secs(30)))
//!     .run(&interrupt, &mut |line| eprintln!("{:?}: {:?}", line.stream, line.bytes));
//! assert_eq!(done.outcome, Outcome::Exited(0));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A SIGKILL of this program cannot be handled: the child then goes on alone. Its [`Identity`]
//! lets another run of this program know whether it still does.

mod family;
mod interrupt;
mod origin;
mod outcome;
mod output;
mod run;

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use family::Family;
pub use family::{Identity, owns_all_children};
pub use interrupt::{Interrupt, die_by};
pub use origin::{age, command_lines_above};
pub use outcome::{Finished, Holder, Outcome, StartFailure, describe_exit, signal_name};
pub use output::{Line, Stream};
use run::{KILL_AFTER, Limits, Run};

/// Makes this process another program, with the same process id, environment (but for
/// `variables`) and open standard streams. Returns only if that is not possible.
pub fn replace(program: &Path, args: &[OsString], variables: &[(&str, OsString)]) -> io::Error {
    let mut command = std::process::Command::new(program);
    command.args(args).envs(variables.iter().map(|(name, value)| (name, value)));
    command.exec()
}

#[derive(Debug)]
enum Input {
    Null,
    Bytes(Vec<u8>),
}

/// What to start, and how long it may take.
#[derive(Debug)]
pub struct Command {
    inner: std::process::Command,
    program: PathBuf,
    cwd: Option<PathBuf>,
    input: Input,
    deadline: Option<Duration>,
    output_grace: Duration,
    kill_after: Duration,
}

impl Command {
    /// A child that inherits environment, working directory and umask, reads from
    /// `/dev/null`, has no deadline, and may leave its outputs open for 2 s after its end.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let inner = std::process::Command::new(program.as_ref());
        Self {
            inner,
            program: PathBuf::from(program.as_ref()),
            cwd: None,
            input: Input::Null,
            deadline: None,
            output_grace: Duration::from_secs(2),
            kill_after: KILL_AFTER,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.inner.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.inner.args(args);
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(key, value);
        self
    }

    /// Removes a variable.
    #[must_use]
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.inner.env_remove(key);
        self
    }

    /// Removes all variables, those set before included.
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.inner.env_clear();
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn current_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.inner.current_dir(dir.as_ref());
        self.cwd = Some(dir.as_ref().to_owned());
        self
    }

    /// Makes stdin a pipe with these bytes, closed after them. None: closed at once.
    #[must_use]
    pub fn stdin_bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Input::Bytes(bytes.into());
        self
    }

    /// After this time the child and its descendants get SIGTERM, 5 s later SIGKILL.
    #[must_use]
    pub fn deadline(mut self, deadline: Option<Duration>) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long its outputs may stay open after its end, within the deadline.
    #[must_use]
    pub fn output_grace(mut self, grace: Duration) -> Self {
        self.output_grace = grace;
        self
    }

    /// From SIGTERM to SIGKILL after the deadline, instead of 5 s.
    #[must_use]
    pub fn kill_after(mut self, kill_after: Duration) -> Self {
        self.kill_after = kill_after;
        self
    }

    /// What will be started, for messages.
    pub fn argv(&self) -> Vec<OsString> {
        let args = self.inner.get_args().map(OsStr::to_owned);
        std::iter::once(self.inner.get_program().to_owned()).chain(args).collect()
    }

    /// Runs it to its end. `on_line` gets what it writes, in the order of reading.
    pub fn run(mut self, interrupt: &Interrupt, on_line: &mut dyn FnMut(Line<'_>)) -> Finished {
        let started = Instant::now();
        let done = |outcome| Finished { outcome, took: started.elapsed() };
        if let Some(number) = interrupt.signal() {
            return done(Outcome::Interrupted(number));
        }
        let bytes = match std::mem::replace(&mut self.input, Input::Null) {
            Input::Null => {
                self.inner.stdin(Stdio::null());
                Vec::new()
            }
            Input::Bytes(bytes) => {
                self.inner.stdin(Stdio::piped());
                bytes
            }
        };
        self.inner.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let family = Family::prepare();
        let child = match self.spawn() {
            Ok(child) => child,
            Err(e) => return done(Outcome::NotStarted(self.start_failure(&e))),
        };
        let limits = Limits {
            deadline: self.deadline,
            output_grace: self.output_grace,
            kill_after: self.kill_after,
            started,
        };
        done(Run::new(child, bytes, family, limits).finish(interrupt, on_line))
    }

    /// A file that another thread's fork still holds open for writing is busy for a moment.
    fn spawn(&mut self) -> io::Result<Child> {
        let mut tries = 0;
        loop {
            match family::spawn(|| self.inner.spawn()) {
                Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy && tries < 20 => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(10));
                }
                result => return result,
            }
        }
    }

    fn start_failure(&self, error: &io::Error) -> StartFailure {
        let program = self.program.clone();
        match error.raw_os_error().map(nix::errno::Errno::from_raw) {
            Some(nix::errno::Errno::ENOENT) => {
                if let Some(cwd) = self.cwd.as_ref().filter(|dir| !dir.is_dir()) {
                    return StartFailure::NoWorkingDirectory(cwd.clone());
                }
                match interpreter(&program) {
                    Some(interpreter) => {
                        StartFailure::NoInterpreter { script: program, interpreter }
                    }
                    None => StartFailure::Missing(program),
                }
            }
            Some(nix::errno::Errno::EACCES) => StartFailure::NotExecutable(program),
            Some(nix::errno::Errno::ENOEXEC) => StartFailure::UnknownFormat(program),
            _ => StartFailure::Other { program, reason: error.to_string() },
        }
    }
}

/// What a script's first line names.
fn interpreter(script: &Path) -> Option<String> {
    let mut head = Vec::new();
    fs_err::File::open(script).ok()?.take(256).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    // A carriage return is what an interpreter is most often missing for: keep it visible.
    let line = String::from_utf8_lossy(line);
    let word = line.trim_start_matches([' ', '\t']).split([' ', '\t']).next()?;
    Some(word.escape_default().to_string())
}

#[cfg(test)]
mod tests;
