//! Ends a fetch in time: when the total limit is reached or a signal has come, the open
//! connections are shut, so that whoever waits on one wakes up at once.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::examine::Eyes;
use super::failure::{Failure, Step};
use super::{Limits, Remote};
use crate::domain::RepoUrl;
use crate::process::Interrupt;

/// How often the signal is looked for.
const TICK: Duration = Duration::from_millis(50);

/// Why a fetch must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Signal(i32),
    TotalTime,
}

/// Watches one fetch; its thread ends when this is dropped.
pub(super) struct Watch {
    shared: Arc<Shared>,
    eyes: Eyes,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    url: RepoUrl,
    limits: Limits,
    deadline: Instant,
    interrupt: Interrupt,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    over: bool,
    verdict: Option<Verdict>,
    closers: Vec<Box<dyn FnOnce() + Send>>,
}

impl Watch {
    /// Starts watching.
    pub(super) fn start(remote: &Remote) -> Self {
        Self::start_seeing(remote, Eyes::default())
    }

    /// Starts watching for somebody who wants to know what is seen of the server.
    pub(super) fn start_seeing(remote: &Remote, eyes: Eyes) -> Self {
        let shared = Arc::new(Shared {
            url: remote.url.clone(),
            limits: remote.limits,
            deadline: Instant::now() + remote.limits.total,
            interrupt: remote.interrupt.clone(),
            state: Mutex::default(),
            wake: Condvar::new(),
        });
        let watching = Arc::clone(&shared);
        // Without a thread the limits between bytes still hold; only the total is then
        // looked at when something arrives.
        let thread =
            std::thread::Builder::new().name("watch".to_owned()).spawn(move || watching.run()).ok();
        Self { shared, eyes, thread }
    }

    /// Who wants to know what is seen of the server.
    pub(super) fn eyes(&self) -> &Eyes {
        &self.eyes
    }

    /// Closes `stream` when the fetch must end.
    pub(super) fn closes(&self, stream: &TcpStream) {
        if let Ok(stream) = stream.try_clone() {
            self.at_end(move || {
                let _ = stream.shutdown(Shutdown::Both);
            });
        }
    }

    /// Does this when the fetch must end; at once if it must already.
    pub(super) fn at_end(&self, closer: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.lock();
        if state.verdict.is_some() {
            drop(state);
            closer();
        } else {
            state.closers.push(Box::new(closer));
        }
    }

    /// Forgets the connections of a try that is over.
    pub(super) fn forget_connections(&self) {
        self.shared.lock().closers.clear();
    }

    /// Fails if the fetch must end.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.shared.failure().map_or(Ok(()), Err)
    }

    /// Why it must end, if it must.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.shared.failure()
    }

    /// What is left of the total time.
    pub(super) fn remaining(&self) -> Duration {
        self.shared.deadline.saturating_duration_since(Instant::now())
    }

    /// The limit for making a connection.
    pub(super) fn connect_limit(&self) -> Duration {
        self.shared.limits.connect.min(self.remaining()).max(Duration::from_millis(1))
    }

    /// The limit between two bytes.
    pub(super) fn read_limit(&self) -> Duration {
        self.shared.limits.read.max(Duration::from_millis(1))
    }

    /// A failure by a limit.
    pub(super) fn timeout(&self, step: Step) -> Failure {
        let limits = &self.shared.limits;
        let limit = match step {
            Step::Connect => limits.connect,
            Step::Read => limits.read,
            Step::Total => limits.total,
        };
        Failure::Timeout { url: self.shared.url.clone(), step, limit }
    }

    /// Waits, unless the fetch must end.
    pub(super) fn sleep(&self, time: Duration) -> Result<(), Failure> {
        let until = Instant::now() + time;
        loop {
            self.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(TICK));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Option<Verdict> {
        if let Some(signal) = self.interrupt.signal() {
            Some(Verdict::Signal(signal))
        } else {
            (Instant::now() >= self.deadline).then_some(Verdict::TotalTime)
        }
    }

    fn failure(&self) -> Option<Failure> {
        let known = self.lock().verdict;
        Some(match known.or_else(|| self.now())? {
            Verdict::Signal(signal) => Failure::Interrupted(signal),
            Verdict::TotalTime => Failure::Timeout {
                url: self.url.clone(),
                step: Step::Total,
                limit: self.limits.total,
            },
        })
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.over {
            if let Some(verdict) = self.now() {
                state.verdict = Some(verdict);
                for closer in std::mem::take(&mut state.closers) {
                    closer();
                }
                return;
            }
            state = self
                .wake
                .wait_timeout(state, TICK)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
    }
}
