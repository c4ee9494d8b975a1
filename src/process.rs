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
//! A SIGKILL of this program cannot be handled: the child then goes on alone.

mod family;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, kill, raise, signal};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use family::Family;

/// From SIGTERM to SIGKILL when the time is up.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// From passing a signal on to SIGKILL when we are to end ourselves.
const KILL_AFTER_INTERRUPT: Duration = Duration::from_millis(2_500);
/// How long a killed process may take to be gone before it is given up.
const GONE_AFTER: Duration = Duration::from_secs(1);
/// A longer line is delivered in pieces, so that memory is bounded.
const MAX_LINE: usize = 64 << 10;
/// How many processes are named that hold a child's output.
const MAX_HOLDERS: usize = 8;

/// A wish to end, from a signal to this program. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// One that only [`Interrupt::set`] fires.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fires on SIGTERM, SIGINT and SIGHUP, except those that were ignored when this program
    /// was started (as `nohup` does). The last signal counts.
    ///
    /// # Errors
    /// A handler cannot be installed.
    pub fn on_signals() -> io::Result<Self> {
        let this = Self::new();
        let ignored = ignored_signals();
        for number in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].map(|s| s as usize) {
            if ignored & (1 << (number - 1)) == 0 {
                let number_c = i32::try_from(number).unwrap_or_default();
                signal_hook::flag::register_usize(number_c, Arc::clone(&this.0), number)?;
            }
        }
        Ok(this)
    }

    /// The signal that came, if one did.
    pub fn signal(&self) -> Option<i32> {
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            number => i32::try_from(number).ok(),
        }
    }

    /// Fires it, as if `signal` had come.
    pub fn set(&self, signal: i32) {
        self.0.store(usize::try_from(signal).unwrap_or_default(), Ordering::SeqCst);
    }
}

/// `SigIgn` of this process, as a bit set.
fn ignored_signals() -> u64 {
    fs_err::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|l| l.strip_prefix("SigIgn:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(0)
}

/// Ends this process as if `signal_number` had never been handled, so that our caller sees a
/// death by that signal.
#[expect(clippy::exit, reason = "reached only where the signal's default action is not to end")]
pub fn die_by(signal_number: i32) -> ! {
    if let Ok(number) = Signal::try_from(signal_number) {
        #[expect(unsafe_code, reason = "SIG_DFL installs no handler, so no code runs in one")]
        // SAFETY: the default disposition is always valid to install.
        let _ = unsafe { signal(number, SigHandler::SigDfl) };
        let _ = raise(number);
    }
    std::process::exit(128_i32.saturating_add(signal_number))
}

/// Which of a child's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// A line of output, or a piece of a very long one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Where it was written.
    pub stream: Stream,
    /// Its bytes without the newline, exactly as written (a carriage return included).
    /// Not necessarily UTF-8.
    pub bytes: &'a [u8],
    /// The line goes on in the next call for the same stream.
    pub continues: bool,
}

/// A process that holds a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: i32,
    /// The kernel's short name for it, at most 15 bytes.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.pid, self.name)
    }
}

/// Why a child could not be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartFailure {
    /// There is no such file.
    #[error("`{}` does not exist", .0.display())]
    Missing(PathBuf),
    /// It begins with `#!` and an interpreter that does not exist.
    #[error("`{}` needs the interpreter `{interpreter}`, which does not exist", script.display())]
    NoInterpreter {
        /// The script.
        script: PathBuf,
        /// What its first line names.
        interpreter: String,
    },
    /// No right to execute it, a directory, or a file system mounted `noexec`.
    #[error("`{}` may not be executed", .0.display())]
    NotExecutable(PathBuf),
    /// The kernel knows no such format (ENOEXEC): an empty file, a script without `#!`, a
    /// program for another machine.
    #[error("`{}` is neither a program for this machine nor a script that begins with `#!`", .0.display())]
    UnknownFormat(PathBuf),
    /// The working directory is gone.
    #[error("the working directory `{}` does not exist", .0.display())]
    NoWorkingDirectory(PathBuf),
    /// Anything else, in the system's words.
    #[error("`{}` could not be started: {reason}", program.display())]
    Other {
        /// What was to be started.
        program: PathBuf,
        /// The system's words.
        reason: String,
    },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It exited by itself, with this code, and its outputs were closed.
    Exited(i32),
    /// This signal, not sent by us, ended it.
    Signalled(i32),
    /// It was still running at the deadline and was ended.
    TimedOut {
        /// The time it had.
        limit: Duration,
    },
    /// We were told to end by this signal; it was ended.
    Interrupted(i32),
    /// It was not started.
    NotStarted(StartFailure),
    /// It ended, but something that it started in the background keeps its stdout or stderr
    /// open. That process is left alone.
    OutputHeld {
        /// Its exit code, or 128 + the signal's number.
        code: i32,
        /// Who holds it, as far as `/proc` shows.
        by: Vec<Holder>,
    },
}

/// Makes this process another program, with the same process id, environment (but for
/// `variables`) and open standard streams. Returns only if that is not possible.
pub fn replace(program: &Path, args: &[OsString], variables: &[(&str, OsString)]) -> io::Error {
    let mut command = std::process::Command::new(program);
    command.args(args).envs(variables.iter().map(|(name, value)| (name, value)));
    command.exec()
}

/// A run's outcome and duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// Wall time, the wait for outputs included.
    pub took: Duration,
}

impl Finished {
    /// Whether the child exited with 0 and let its outputs go.
    pub fn success(&self) -> bool {
        self.outcome == Outcome::Exited(0)
    }
}

/// An outcome in words that go after "the script …": "exited with code 3 after 1.2 s".
pub fn describe_exit(finished: &Finished) -> String {
    let took = seconds(finished.took);
    match &finished.outcome {
        Outcome::Exited(code) => format!("exited with code {code} after {took}"),
        Outcome::Signalled(number) => format!("was ended by {} after {took}", signal_name(*number)),
        Outcome::TimedOut { limit } => {
            format!("did not end within {} and was ended after {took}", seconds(*limit))
        }
        Outcome::Interrupted(number) => {
            format!("was ended after {took}, as this program received {}", signal_name(*number))
        }
        Outcome::NotStarted(why) => format!("could not be started: {why}"),
        Outcome::OutputHeld { code, by } => {
            let who = if by.is_empty() {
                "a background process".to_owned()
            } else {
                let names: Vec<_> = by.iter().map(ToString::to_string).collect();
                format!("background process {}", names.join(", "))
            };
            format!(
                "exited with code {code}, but {who} still held its output after {took}; \
                 redirect the output of what runs on in the background"
            )
        }
    }
}

/// "SIGTERM", or "signal 99".
pub fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |s| s.as_str().to_owned())
}

/// "0.2 s", "12 s".
fn seconds(duration: Duration) -> String {
    let s = duration.as_secs_f64();
    if s < 10.0 && duration.subsec_millis() >= 50 {
        format!("{s:.1} s")
    } else {
        format!("{s:.0} s")
    }
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
        let limits = Limits { deadline: self.deadline, output_grace: self.output_grace, started };
        done(Run::new(child, bytes, family, limits).finish(interrupt, on_line))
    }

    /// A file that another thread's fork still holds open for writing is busy for a moment.
    fn spawn(&mut self) -> io::Result<Child> {
        let mut tries = 0;
        loop {
            match self.inner.spawn() {
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

#[derive(Debug, Clone, Copy)]
struct Limits {
    deadline: Option<Duration>,
    output_grace: Duration,
    started: Instant,
}

/// Whether the child is to be ended, and how far that is.
#[derive(Debug)]
enum Ending {
    No,
    Asked { why: Outcome, kill_at: Instant },
    Killed { why: Outcome, at: Instant },
}

struct Run {
    child: Child,
    pid: Pid,
    family: Family,
    limits: Limits,
    stdin: Option<(ChildStdin, Vec<u8>, usize)>,
    pipes: [Pipe; 2],
    /// Code or negative signal, and when it was noticed.
    ended: Option<(Result<i32, i32>, Instant)>,
    idle: u32,
}

impl Run {
    fn new(mut child: Child, input: Vec<u8>, mut family: Family, limits: Limits) -> Self {
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default());
        family.started(pid);
        let stdin = child.stdin.take().filter(|_| !input.is_empty()).map(|pipe| {
            nonblocking(pipe.as_fd());
            (pipe, input, 0)
        });
        let stdout = child.stdout.take().map(|p| Box::new(p) as Box<dyn Source>);
        let stderr = child.stderr.take().map(|p| Box::new(p) as Box<dyn Source>);
        let pipes = [Pipe::new(Stream::Stdout, stdout), Pipe::new(Stream::Stderr, stderr)];
        Self { child, pid, family, limits, stdin, pipes, ended: None, idle: 0 }
    }

    fn finish(mut self, interrupt: &Interrupt, on_line: &mut dyn FnMut(Line<'_>)) -> Outcome {
        let mut ending = Ending::No;
        let outcome = loop {
            self.wait_for_something(&ending);
            self.feed();
            for pipe in &mut self.pipes {
                pipe.read(on_line);
            }
            self.look_for_the_end();
            let now = Instant::now();
            ending = match ending {
                Ending::No => {
                    if let Some(outcome) = self.settled(now) {
                        break outcome;
                    }
                    self.ask_to_end(interrupt, now)
                }
                Ending::Asked { why, kill_at } => {
                    if self.ended.is_some() && !self.family.alive() {
                        Ending::Killed { why, at: now }
                    } else if now >= kill_at {
                        self.family.send(Signal::SIGKILL);
                        Ending::Killed { why, at: now }
                    } else {
                        Ending::Asked { why, kill_at }
                    }
                }
                Ending::Killed { why, at } => {
                    let gone = self.ended.is_some() && !self.family.alive();
                    let quiet =
                        self.closed() || now.duration_since(at) > Duration::from_millis(300);
                    if (gone && quiet) || now.duration_since(at) > GONE_AFTER {
                        break why;
                    }
                    if !gone {
                        self.family.send(Signal::SIGKILL);
                    }
                    Ending::Killed { why, at }
                }
            };
        };
        for pipe in &mut self.pipes {
            pipe.finish(on_line);
        }
        // Reaping frees the pid, and with it the number of the group: only now, and only if
        // it has ended, as a process that not even SIGKILL ends must not hold us.
        let _ = self.child.try_wait();
        family::reap(self.pid);
        outcome
    }

    /// The outcome, if the child has ended by itself and nothing is left to wait for.
    fn settled(&self, now: Instant) -> Option<Outcome> {
        let (end, at) = self.ended?;
        if self.closed() {
            return Some(match end {
                Ok(code) => Outcome::Exited(code),
                Err(number) => Outcome::Signalled(number),
            });
        }
        let out_of_time = self.limits.deadline.is_some_and(|d| now >= self.limits.started + d);
        if now.duration_since(at) < self.limits.output_grace && !out_of_time {
            return None;
        }
        let fds: Vec<_> = self.pipes.iter().filter_map(|p| p.source.as_deref()).collect();
        let by = family::holders(&fds.iter().map(|s| s.as_fd()).collect::<Vec<_>>(), MAX_HOLDERS);
        Some(Outcome::OutputHeld { code: end.unwrap_or_else(|n| 128 + n), by })
    }

    fn ask_to_end(&mut self, interrupt: &Interrupt, now: Instant) -> Ending {
        if let Some(number) = interrupt.signal() {
            self.family.send(Signal::try_from(number).unwrap_or(Signal::SIGTERM));
            let why = Outcome::Interrupted(number);
            return Ending::Asked { why, kill_at: now + KILL_AFTER_INTERRUPT };
        }
        match self.limits.deadline {
            Some(limit) if self.ended.is_none() && now >= self.limits.started + limit => {
                self.family.send(Signal::SIGTERM);
                Ending::Asked { why: Outcome::TimedOut { limit }, kill_at: now + KILL_AFTER }
            }
            _ => Ending::No,
        }
    }

    fn closed(&self) -> bool {
        self.pipes.iter().all(|p| p.source.is_none())
    }

    /// Waits until a pipe can be read or written, at most as long as is sensible: an exit that
    /// closes no pipe, and a signal that another thread got, are only found by looking.
    fn wait_for_something(&mut self, ending: &Ending) {
        let mut wait = match (self.closed(), ending) {
            (true, Ending::No) => Duration::from_micros(200) * 2_u32.pow(self.idle.min(8)),
            (_, Ending::Asked { .. } | Ending::Killed { .. }) => Duration::from_millis(30),
            (false, Ending::No) => Duration::from_millis(100),
        };
        self.idle += 1;
        if let Some(limit) = self.limits.deadline {
            let left = (self.limits.started + limit).saturating_duration_since(Instant::now());
            if !left.is_zero() {
                wait = wait.min(left);
            }
        }
        let mut fds: Vec<PollFd<'_>> = self
            .pipes
            .iter()
            .filter_map(|p| p.source.as_ref())
            .map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN))
            .collect();
        if let Some((pipe, ..)) = &self.stdin {
            fds.push(PollFd::new(pipe.as_fd(), PollFlags::POLLOUT));
        }
        if fds.is_empty() {
            std::thread::sleep(wait);
        } else {
            let millis = wait.as_micros().div_ceil(1000);
            let timeout = PollTimeout::try_from(u64::try_from(millis).unwrap_or(100));
            let _ = poll(&mut fds, timeout.unwrap_or(PollTimeout::ZERO));
        }
    }

    fn feed(&mut self) {
        if let Some((pipe, bytes, sent)) = &mut self.stdin {
            let done = match pipe.write(&bytes[*sent..]) {
                Ok(n) => {
                    *sent += n;
                    *sent == bytes.len()
                }
                Err(e) => {
                    !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
                }
            };
            if done {
                self.stdin = None;
            }
        }
    }

    /// Looks without reaping, so that pid and group number stay the child's.
    fn look_for_the_end(&mut self) {
        if self.ended.is_some() {
            return;
        }
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let end = match waitid(Id::Pid(self.pid), flags) {
            Ok(WaitStatus::Exited(_, code)) => Ok(code),
            Ok(WaitStatus::Signaled(_, number, _)) => Err(number as i32),
            Ok(_) | Err(nix::errno::Errno::EINTR) => return,
            Err(_) => Err(0),
        };
        self.ended = Some((end, Instant::now()));
    }
}

/// The reading end of a pipe.
trait Source: Read + AsFd {}
impl<T: Read + AsFd> Source for T {}

struct Pipe {
    stream: Stream,
    source: Option<Box<dyn Source>>,
    line: Vec<u8>,
}

impl Pipe {
    fn new(stream: Stream, source: Option<Box<dyn Source>>) -> Self {
        if let Some(source) = &source {
            nonblocking(source.as_fd());
        }
        Self { stream, source, line: Vec::new() }
    }

    /// Takes what is there; a bounded amount, so that a flood on one pipe starves nothing.
    fn read(&mut self, on_line: &mut dyn FnMut(Line<'_>)) {
        let mut buffer = [0; 16 << 10];
        for _ in 0..8 {
            let Some(source) = &mut self.source else { return };
            match source.read(&mut buffer) {
                Ok(0) => self.finish(on_line),
                Ok(n) => self.take(&buffer[..n], on_line),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.finish(on_line),
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8], on_line: &mut dyn FnMut(Line<'_>)) {
        let stream = self.stream;
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (head, tail) = bytes.split_at(end);
            bytes = &tail[1..];
            if self.line.is_empty() {
                on_line(Line { stream, bytes: head, continues: false });
            } else {
                self.line.extend_from_slice(head);
                on_line(Line { stream, bytes: &self.line, continues: false });
                self.line.clear();
            }
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() >= MAX_LINE {
            on_line(Line { stream, bytes: &self.line, continues: true });
            self.line.clear();
        }
    }

    /// Delivers a last line without newline and closes the pipe.
    fn finish(&mut self, on_line: &mut dyn FnMut(Line<'_>)) {
        if !self.line.is_empty() {
            on_line(Line { stream: self.stream, bytes: &self.line, continues: false });
            self.line.clear();
        }
        self.source = None;
    }
}

fn nonblocking(fd: BorrowedFd<'_>) {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_or(OFlag::empty(), OFlag::from_bits_truncate);
    let _ = fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK));
}

/// Sends a signal to one process, if it may be.
fn send(pid: Pid, signal: Signal) {
    let _ = kill(pid, signal);
}

#[cfg(test)]
mod tests;
