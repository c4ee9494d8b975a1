//! Connections that outlive a fetch: the next app of the same server goes on with them.
//!
//! A line is to one server by one way: the same host and port, the same proxy and login there,
//! the same authorities. Only then it is handed on, and to one fetch at a time. Nothing of a
//! fetch stays on it: a credential is part of each request, the limits are those of the fetch
//! that has it, and a fetch that ends lets go of the connection before the next one gets it.

use std::io::Read;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::{Request, Response, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout};
use ureq::{Agent, AsSendBody, Body};

use super::transport::TlsTransport;
use crate::mirror::tls::{Connected, Way};
use crate::mirror::watch::{Clock, Closing};
use crate::sync::lock;

/// Servers close what is idle for longer, the most impatient after five seconds; what was
/// closed meanwhile is noticed.
const IDLE: Duration = Duration::from_secs(15);
/// More than there are fetches at a time.
const MOST: usize = 32;

/// Lines that nobody has at the moment, the one used last at the end.
static IDLE_LINES: Mutex<Vec<Idle>> = Mutex::new(Vec::new());

struct Idle {
    since: Instant,
    way: Way,
    agent: Agent,
    state: Arc<State>,
    rest: Option<Content>,
}

/// The body of an answer.
pub(super) type Content = Box<dyn Read + Send>;

/// Closes the connections that nobody uses: it may be long until one is needed again.
pub(in crate::mirror) fn hang_up() {
    lock(&IDLE_LINES).clear();
}

/// A connection to a server, for one fetch.
pub(super) struct Line {
    way: Way,
    clock: Arc<Clock>,
    agent: Agent,
    state: Arc<State>,
    /// Of an answer of which all that matters was read.
    rest: Option<Content>,
}

/// What the fetch, the connector and the connection know of each other.
#[derive(Default)]
pub(super) struct State {
    held: Mutex<Held>,
    /// Connections made.
    made: AtomicU64,
    /// The connection stands.
    stands: AtomicBool,
    /// The last answer was read to its end.
    ended: AtomicBool,
    /// Something of the answer has come.
    answered: AtomicBool,
    /// There is nothing to wait for any more.
    hurried: AtomicBool,
}

#[derive(Default)]
struct Held {
    /// Of the fetch that has the line.
    clock: Option<Arc<Clock>>,
    socket: Option<TcpStream>,
    closing: Option<Closing>,
}

impl Line {
    /// One that is idle, or a new one. Who watches what is seen of the server gets a new one.
    pub(super) fn to(way: Way, clock: Arc<Clock>) -> Self {
        let idle = if clock.eyes().are_open() { None } else { take(&way) };
        let (agent, state, rest) = if let Some(Idle { agent, state, rest, .. }) = idle {
            (agent, state, rest)
        } else {
            let (agent, state) = fresh(&way);
            (agent, state, None)
        };
        state.taken_by(&clock);
        Self { way, clock, agent, state, rest }
    }

    /// Sends a request and waits for the head of its answer. If a connection that was used
    /// before turns out to be dead, and the request may be sent twice (`again`), it is sent
    /// over a new one: a server may close what is idle at any time.
    pub(super) fn send(
        &mut self,
        request: Request<impl AsSendBody + Clone>,
        again: bool,
    ) -> Result<Response<Body>, ureq::Error> {
        let rest = self.rest.take();
        let read_out = rest.is_none_or(|mut rest| self.state.reads_out(&mut rest));
        if !read_out || (!again && self.state.stands.load(Ordering::SeqCst)) {
            self.renew();
        }
        let copy = request.clone();
        let made = self.state.begins();
        match self.agent.run(self.within_limits(request)) {
            Err(ureq::Error::Io(_))
                if again && self.state.failed_stale(made) && self.clock.failure().is_none() =>
            {
                self.renew();
                self.state.begins();
                self.agent.run(self.within_limits(copy))
            }
            answer => answer,
        }
    }

    /// Says that all that matters of an answer was read. Its end may still be on the way; only
    /// whoever needs the connection again waits for it.
    pub(super) fn finish(&mut self, answer: Content) {
        self.rest = Some(answer);
    }

    /// The same, waiting for the end: for somebody who has the answer in his hands.
    pub(super) fn read_out(&self, answer: &mut dyn Read) {
        self.state.reads_out(answer);
    }

    fn within_limits<B: AsSendBody>(&self, request: Request<B>) -> Request<B> {
        let read = Some(self.clock.read_limit());
        self.agent
            .configure_request(request)
            .timeout_per_read(read)
            .timeout_per_write(read)
            .timeout_global(Some(self.clock.remaining().max(Duration::from_millis(1))))
            .build()
    }

    fn renew(&mut self) {
        self.state.is_let_go();
        (self.agent, self.state) = fresh(&self.way);
        self.state.taken_by(&self.clock);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.state.is_let_go();
        let rest = self.rest.take();
        let finished = rest.is_some() || self.state.ended.load(Ordering::SeqCst);
        let stands = self.state.stands.load(Ordering::SeqCst);
        if !finished || !stands || self.clock.failure().is_some() {
            return;
        }
        let (way, agent, state) = (self.way.clone(), self.agent.clone(), Arc::clone(&self.state));
        let mut lines = lock(&IDLE_LINES);
        if lines.len() == MOST {
            lines.remove(0);
        }
        lines.push(Idle { since: Instant::now(), way, agent, state, rest });
    }
}

/// The idle line by this way that was used last.
fn take(way: &Way) -> Option<Idle> {
    let mut lines = lock(&IDLE_LINES);
    lines.retain(|idle| idle.since.elapsed() < IDLE);
    let at = lines.iter().rposition(|idle| idle.way == *way)?;
    Some(lines.remove(at))
}

/// An agent for one connection at a time; its connector is told of whom it is for.
fn fresh(way: &Way) -> (Agent, Arc<State>) {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .https_only(true)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("git/multideployer-", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .input_buffer_size(1 << 16)
        .max_idle_connections(1)
        .max_idle_age(IDLE)
        .build();
    let state = Arc::<State>::default();
    let dialler = Dialler { way: way.clone(), state: Arc::clone(&state) };
    (Agent::with_parts(config, dialler, NoResolver), state)
}

impl State {
    fn taken_by(&self, clock: &Arc<Clock>) {
        let mut held = lock(&self.held);
        held.closing = held.socket.as_ref().and_then(|socket| clock.closes(socket));
        held.clock = Some(Arc::clone(clock));
    }

    fn is_let_go(&self) {
        let mut held = lock(&self.held);
        if let (Some(clock), Some(closing)) = (held.clock.take(), held.closing.take()) {
            clock.lets_go(closing);
        }
    }

    /// A request begins; so many connections were made before.
    fn begins(&self) -> u64 {
        self.answered.store(false, Ordering::SeqCst);
        self.ended.store(false, Ordering::SeqCst);
        self.made.load(Ordering::SeqCst)
    }

    /// Whether what failed was a connection of before, and nothing had been answered.
    fn failed_stale(&self, made: u64) -> bool {
        self.made.load(Ordering::SeqCst) == made && !self.answered.load(Ordering::SeqCst)
    }

    /// Reads the end of an answer, if that is all that is left of it: its connection can be
    /// used again only then. It is not waited for long.
    fn reads_out(&self, rest: &mut dyn Read) -> bool {
        self.hurried.store(true, Ordering::SeqCst);
        let ended = matches!(rest.read(&mut [0]), Ok(0));
        self.hurried.store(false, Ordering::SeqCst);
        self.ended.store(ended, Ordering::SeqCst);
        ended
    }

    /// Some of an answer has come.
    pub(super) fn answers(&self) {
        self.answered.store(true, Ordering::SeqCst);
    }

    /// The connection is closed; says whether in an orderly way, between two requests.
    pub(super) fn falls(&self) -> bool {
        self.stands.store(false, Ordering::SeqCst);
        self.ended.load(Ordering::SeqCst)
    }

    /// Whether nobody waits for more.
    pub(super) fn is_hurried(&self) -> bool {
        self.hurried.load(Ordering::SeqCst)
    }
}

/// For ureq: whatever URL it is asked for, it gets a connection to the one server. A failure
/// comes back inside of its error.
struct Dialler {
    way: Way,
    state: Arc<State>,
}

impl std::fmt::Debug for Dialler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.way.fmt(f)
    }
}

impl Connector for Dialler {
    type Out = TlsTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<TlsTransport>, ureq::Error> {
        // Nobody sends a request over a line that he has not taken.
        let clock = lock(&self.state.held).clock.clone().ok_or(ureq::Error::ConnectionFailed)?;
        let Connected { stream, closing } =
            self.way.connect(&clock).map_err(|failure| ureq::Error::Other(failure.into()))?;
        let mut held = lock(&self.state.held);
        if let Some(before) = held.closing.take() {
            clock.lets_go(before);
        }
        held.closing = closing;
        held.socket = stream.get_ref().socket();
        self.state.made.fetch_add(1, Ordering::SeqCst);
        self.state.stands.store(true, Ordering::SeqCst);
        Ok(Some(TlsTransport::new(stream, details.config, Arc::clone(&self.state))))
    }
}

/// The connection looks the name up itself, or has the proxy do so.
#[derive(Debug)]
struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(
        &self,
        _: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut some = self.empty();
        // ureq wants one.
        some.push(([0, 0, 0, 0], 0).into());
        Ok(some)
    }
}
