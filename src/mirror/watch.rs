//! Ends a fetch in time: when a limit is reached or a signal has come, the open connections
//! are shut, so that whoever waits on one wakes up at once.

use std::net::{Shutdown, TcpStream};
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::examine::Eyes;
use super::failure::{Failure, Step, harmless};
use super::{Limits, Remote};
use crate::domain::RepoUrl;
use crate::process::Interrupt;
use crate::sync::lock;

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
    clock: Arc<Clock>,
    thread: Option<JoinHandle<()>>,
}

/// The limits of one fetch, and whether it must end.
pub(super) struct Clock {
    url: RepoUrl,
    limits: Limits,
    deadline: Instant,
    interrupt: Interrupt,
    eyes: Eyes,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    over: bool,
    verdict: Option<Verdict>,
    /// The connection that is being made, and until when.
    connecting: Option<(Instant, TcpStream)>,
    late: bool,
    closers: Vec<(Closing, Box<dyn FnOnce() + Send>)>,
    last: u64,
}

/// That a connection is to be closed when the fetch must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closing(u64);

impl Watch {
    /// Starts watching.
    pub(super) fn start(remote: &Remote) -> Self {
        Self::start_seeing(remote, Eyes::default())
    }

    /// Starts watching for somebody who wants to know what is seen of the server.
    pub(super) fn start_seeing(remote: &Remote, eyes: Eyes) -> Self {
        let clock = Arc::new(Clock {
            url: remote.url.clone(),
            limits: remote.limits,
            deadline: Instant::now() + remote.limits.total,
            interrupt: remote.interrupt.clone(),
            eyes,
            state: Mutex::default(),
            wake: Condvar::new(),
        });
        let watching = Arc::clone(&clock);
        // Without a thread the limits between bytes still hold; only the total is then
        // looked at when something arrives.
        let thread =
            std::thread::Builder::new().name("watch".to_owned()).spawn(move || watching.run()).ok();
        Self { clock, thread }
    }

    /// For those who may outlive this.
    pub(super) fn clock(&self) -> Arc<Clock> {
        Arc::clone(&self.clock)
    }
}

impl Deref for Watch {
    type Target = Clock;

    fn deref(&self) -> &Clock {
        &self.clock
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.clock.state().over = true;
        self.clock.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Clock {
    /// Who wants to know what is seen of the server.
    pub(super) fn eyes(&self) -> &Eyes {
        &self.eyes
    }

    /// Closes `stream` when the fetch must end; at once if it must already.
    pub(super) fn closes(&self, stream: &TcpStream) -> Option<Closing> {
        let stream = stream.try_clone().ok()?;
        let closer = move || drop(stream.shutdown(Shutdown::Both));
        let mut state = self.state();
        if state.verdict.is_some() {
            drop(state);
            closer();
            return None;
        }
        state.last += 1;
        let closing = Closing(state.last);
        state.closers.push((closing, Box::new(closer)));
        Some(closing)
    }

    /// Leaves a connection alone, whatever becomes of the fetch: it is somebody else's now.
    pub(super) fn lets_go(&self, closing: Closing) {
        self.state().closers.retain(|(known, _)| *known != closing);
    }

    /// Closes `stream` when it has not become a connection by `until`: a peer that sends a
    /// byte now and then keeps a limit between two bytes from being reached.
    pub(super) fn connecting(&self, stream: &TcpStream, until: Instant) -> Connecting<'_> {
        let mut state = self.state();
        state.late = false;
        state.connecting = stream.try_clone().ok().map(|stream| (until, stream));
        drop(state);
        Connecting(self)
    }

    /// Forgets the connections of a try that is over.
    pub(super) fn forget_connections(&self) {
        self.state().closers.clear();
    }

    /// Fails if the fetch must end.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.failure().map_or(Ok(()), Err)
    }

    /// Why it must end, if it must.
    pub(super) fn failure(&self) -> Option<Failure> {
        let known = self.state().verdict;
        Some(match known.or_else(|| self.now())? {
            Verdict::Signal(signal) => Failure::Interrupted(signal),
            Verdict::TotalTime => self.timeout(Step::Total),
        })
    }

    /// What is left of the total time.
    pub(super) fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The limit for making a connection.
    pub(super) fn connect_limit(&self) -> Duration {
        self.limits.connect.min(self.remaining()).max(Duration::from_millis(1))
    }

    /// The limit between two bytes.
    pub(super) fn read_limit(&self) -> Duration {
        self.limits.read.max(Duration::from_millis(1))
    }

    /// A failure by a limit.
    pub(super) fn timeout(&self, step: Step) -> Failure {
        let limit = match step {
            Step::Connect => self.limits.connect,
            Step::Read => self.limits.read,
            Step::Total => self.limits.total,
        };
        Failure::Timeout { url: self.url.clone(), step, limit }
    }

    /// A connection that broke off.
    pub(super) fn broken(&self, detail: &str) -> Failure {
        Failure::Broken { url: self.url.clone(), detail: harmless(detail.as_bytes()) }
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

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn now(&self) -> Option<Verdict> {
        if let Some(signal) = self.interrupt.signal() {
            Some(Verdict::Signal(signal))
        } else {
            (Instant::now() >= self.deadline).then_some(Verdict::TotalTime)
        }
    }

    fn run(&self) {
        let mut state = self.state();
        while !state.over {
            if let Some(verdict) = self.now() {
                state.verdict = Some(verdict);
                if let Some((_, stream)) = state.connecting.take() {
                    let _ = stream.shutdown(Shutdown::Both);
                }
                // Under the lock: after `lets_go` none runs any more.
                for (_, closer) in std::mem::take(&mut state.closers) {
                    closer();
                }
                return;
            }
            if let Some((_, stream)) =
                state.connecting.take_if(|(until, _)| Instant::now() >= *until)
            {
                state.late = true;
                let _ = stream.shutdown(Shutdown::Both);
            }
            state = self
                .wake
                .wait_timeout(state, TICK)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
    }
}

/// A connection that is being made.
pub(super) struct Connecting<'a>(&'a Clock);

impl Connecting<'_> {
    /// Whether it took too long.
    pub(super) fn is_late(&self) -> bool {
        self.0.state().late
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.state().connecting = None;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _};
    use std::net::TcpListener;

    use super::*;
    use crate::mirror::Trust;

    #[test]
    fn a_connection_that_was_let_go_of_is_not_closed_at_the_end() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let connect = || {
            let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut here, _) = listener.accept().unwrap();
            here.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let look = move || here.read(&mut [0]).map_err(|error| error.kind());
            (there, look)
        };
        let watch = Watch::start(&Remote {
            url: RepoUrl::Https { authority: "git.example.com".into(), path: "a.git".into() },
            credential: None,
            trust: Trust::default(),
            limits: Limits { total: Duration::from_millis(200), ..Limits::default() },
            interrupt: Interrupt::new(),
            proxy: None,
            plain: false,
        });
        let ((kept, mut of_kept), (given, mut of_given)) = (connect(), connect());
        watch.closes(&kept).unwrap();
        let closing = watch.closes(&given).unwrap();
        watch.lets_go(closing);
        while of_kept() != Ok(0) {
            assert!(watch.thread.is_some());
        }
        assert_eq!(of_given(), Err(ErrorKind::WouldBlock));
        // Too late for another one.
        let (late, mut of_late) = connect();
        assert_eq!(watch.closes(&late), None);
        assert_eq!(of_late(), Ok(0));
        drop((kept, given));
    }
}
