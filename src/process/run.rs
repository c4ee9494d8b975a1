//! A child from its start to its end: what it writes, its deadline, its end before its time.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::family::{self, Family};
use super::interrupt::Interrupt;
use super::outcome::Outcome;
use super::output::{Line, Pipe, Source, Stream, nonblocking};

/// From SIGTERM to SIGKILL when the time is up, unless the command says otherwise.
pub(super) const KILL_AFTER: Duration = Duration::from_secs(5);
/// From passing a signal on to SIGKILL when we are to end ourselves.
const KILL_AFTER_INTERRUPT: Duration = Duration::from_millis(2_500);
/// How long a killed process may take to be gone before it is given up.
const GONE_AFTER: Duration = Duration::from_secs(1);
/// How many processes are named that hold a child's output.
const MAX_HOLDERS: usize = 8;

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) deadline: Option<Duration>,
    pub(super) output_grace: Duration,
    pub(super) kill_after: Duration,
    pub(super) started: Instant,
}

/// Whether the child is to be ended, and how far that is.
#[derive(Debug)]
enum Ending {
    No,
    Asked { why: Outcome, kill_at: Instant },
    Killed { why: Outcome, at: Instant },
}

pub(super) struct Run {
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
    pub(super) fn new(
        mut child: Child,
        input: Vec<u8>,
        mut family: Family,
        limits: Limits,
    ) -> Self {
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

    pub(super) fn finish(
        mut self,
        interrupt: &Interrupt,
        on_line: &mut dyn FnMut(Line<'_>),
    ) -> Outcome {
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
        Some(Outcome::OutputHeld { end, by })
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
                Ending::Asked {
                    why: Outcome::TimedOut { limit },
                    kill_at: now + self.limits.kill_after,
                }
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
