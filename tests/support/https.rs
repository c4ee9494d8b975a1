//! A git server over HTTPS: `git http-backend` behind TLS, and every way it can fail.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use openssl::ssl::SslAcceptor;

use super::tls::Authority;
use super::{git_exec_path, hex, isolated};

/// How long a server that hangs does so, unless it is dropped before.
const FOR_EVER: Duration = Duration::from_secs(120);

/// One request as the server saw it.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `POST`.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query, without `?`.
    pub query: String,
    /// The `Host` header.
    pub host: String,
    /// The `Git-Protocol` header.
    pub protocol: String,
    /// SHA-256 of the `Authorization` header's value, if there was one. Compare with
    /// [`hash_of`].
    pub authorization: Option<String>,
    /// Bytes of the request's body, as transferred.
    pub body_bytes: u64,
    /// Whether the body came in chunks.
    pub chunked: bool,
    /// Whether the body was compressed.
    pub compressed: bool,
    /// The status answered; 0 when there was no answer.
    pub status: u16,
    /// Bytes of the answer's body sent.
    pub answer_bytes: u64,
}

/// What [`Request::authorization`] is for a user and his token.
pub fn hash_of(user: &str, token: &str) -> String {
    sha256(&basic(user, token))
}

fn basic(user: &str, token: &str) -> String {
    format!("Basic {}", openssl::base64::encode_block(format!("{user}:{token}").as_bytes()))
}

fn sha256(text: &str) -> String {
    hex(&openssl::sha::sha256(text.as_bytes()))
}

/// What goes wrong.
#[derive(Debug, Clone)]
enum Wrong {
    Status(u16, Vec<(String, String)>),
    Redirect(u16, String),
    Page(String, &'static str),
    Bytes(Vec<u8>),
    Hang,
    Reset,
    Close,
    Cut(f64),
    Stall(f64),
    Drip,
}

/// Something that goes wrong for some requests, instead of the right answer.
#[derive(Debug, Clone)]
pub struct Fault {
    wrong: Wrong,
    times: Option<usize>,
    method: Option<String>,
    part: Option<String>,
}

impl Fault {
    fn new(wrong: Wrong) -> Self {
        Self { wrong, times: None, method: None, part: None }
    }

    /// This status and a short text.
    pub fn status(status: u16) -> Self {
        Self::new(Wrong::Status(status, Vec::new()))
    }

    /// The same with a header more (`Retry-After`), for [`Fault::status`] only.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Wrong::Status(_, headers) = &mut self.wrong {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// A redirect to `target` + the request's path and query. A `target` with a scheme
    /// (`https://localhost:4443`, `https://…/moved`) leads to another host, one without
    /// (`/moved`) elsewhere on this.
    pub fn redirect(status: u16, target: &str) -> Self {
        Self::new(Wrong::Redirect(status, target.trim_end_matches('/').to_owned()))
    }

    /// 200 and a web page, as log-in portals of companies do.
    pub fn page(html: &str) -> Self {
        Self::new(Wrong::Page(html.to_owned(), "text/html"))
    }

    /// 200 and something that is neither git's nor a web page.
    pub fn babble(text: &str) -> Self {
        Self::new(Wrong::Page(text.to_owned(), "text/plain"))
    }

    /// 200, and this as the answer to a request for a pack.
    pub fn answer(bytes: Vec<u8>) -> Self {
        Self::new(Wrong::Bytes(bytes)).method("POST")
    }

    /// The request is read and never answered.
    pub fn hang() -> Self {
        Self::new(Wrong::Hang)
    }

    /// The connection is reset instead of an answer.
    pub fn reset() -> Self {
        Self::new(Wrong::Reset)
    }

    /// The connection is closed in an orderly way instead of an answer.
    pub fn close() -> Self {
        Self::new(Wrong::Close)
    }

    /// This fraction of the answer's body, then the connection is closed.
    pub fn cut(fraction: f64) -> Self {
        Self::new(Wrong::Cut(fraction))
    }

    /// This fraction of the answer's body, then nothing more.
    pub fn stall(fraction: f64) -> Self {
        Self::new(Wrong::Stall(fraction))
    }

    /// One byte of the answer's body a second.
    pub fn drip() -> Self {
        Self::new(Wrong::Drip)
    }

    /// So many requests only; for ever otherwise.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    /// Requests with this method only.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Requests whose path contains this only (`info/refs`, `acme/api.git`).
    #[must_use]
    pub fn on(mut self, part: &str) -> Self {
        self.part = Some(part.to_owned());
        self
    }

    fn fits(&self, request: &Request) -> bool {
        self.times != Some(0)
            && self.method.as_ref().is_none_or(|method| *method == request.method)
            && self.part.as_ref().is_none_or(|part| request.path.contains(part))
    }
}

#[derive(Debug)]
struct Grant {
    prefix: String,
    user: Option<String>,
    token: String,
    until: Option<Instant>,
}

impl Grant {
    fn accepts(&self, authorization: Option<&str>) -> bool {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return false;
        }
        let Some(encoded) = authorization.and_then(|value| value.strip_prefix("Basic ")) else {
            return false;
        };
        let Ok(decoded) = openssl::base64::decode_block(encoded.trim()) else { return false };
        let decoded = String::from_utf8_lossy(&decoded).into_owned();
        let Some((user, token)) = decoded.split_once(':') else { return false };
        token == self.token && self.user.as_ref().is_none_or(|wanted| wanted == user)
    }
}

/// A request to what [`GitHttps::serve`] serves.
#[derive(Debug)]
pub struct Question<'a> {
    /// `GET`, `POST`.
    pub method: &'a str,
    /// The path below the prefix.
    pub path: &'a str,
    /// The query, without `?`.
    pub query: &'a str,
    /// All headers, with names in lower case.
    pub headers: &'a [(String, String)],
    /// The body.
    pub body: &'a [u8],
}

impl Question<'_> {
    /// A header's value; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

/// The answer to a [`Question`]: JSON, unless a header says otherwise.
#[derive(Debug, Default)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// More headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// So many bytes of the body are sent, then the connection is closed.
    pub cut: Option<usize>,
    /// The body is sent again and again, without a length.
    pub endless: bool,
    /// So many bytes of the body are sent, then nothing more.
    pub stall: Option<usize>,
}

type Pages = Vec<(String, Arc<dyn Fn(&Question<'_>) -> Reply + Send + Sync>)>;

struct Shared {
    root: PathBuf,
    backend: PathBuf,
    tls: Option<SslAcceptor>,
    grants: Mutex<Vec<Grant>>,
    faults: Mutex<VecDeque<Fault>>,
    moved: Mutex<Vec<(String, String)>>,
    pages: Mutex<Pages>,
    log: Mutex<Vec<Request>>,
    connections: AtomicU64,
    failed_handshakes: AtomicU64,
    resumed: AtomicU64,
    impatient: AtomicBool,
    clock: AtomicI64,
    /// Knows protocol version 0 only.
    old: AtomicBool,
    /// Gives away only what a ref points to, in version 2 too, as servers in Java do.
    strict: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
    stopped: AtomicBool,
}

/// The server. Everything below its root is served; it ends when dropped.
pub struct GitHttps {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl std::fmt::Debug for GitHttps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GitHttps({})", self.address)
    }
}

impl GitHttps {
    /// Over TLS, with a certificate of [`Authority::shared`].
    pub fn start(root: impl AsRef<Path>) -> Self {
        Self::start_with(root, Some(Authority::shared().acceptor()), 0)
    }

    /// Without TLS.
    pub fn start_plain(root: impl AsRef<Path>) -> Self {
        Self::start_with(root, None, 0)
    }

    /// With a TLS side of its own, on a port of 127.0.0.1; 0 is any free one.
    pub fn start_with(root: impl AsRef<Path>, tls: Option<SslAcceptor>, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            root: root.as_ref().to_owned(),
            backend: git_exec_path().join("git-http-backend"),
            tls,
            grants: Mutex::default(),
            faults: Mutex::default(),
            moved: Mutex::default(),
            pages: Mutex::default(),
            log: Mutex::default(),
            connections: AtomicU64::new(0),
            failed_handshakes: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            impatient: AtomicBool::new(false),
            old: AtomicBool::new(false),
            strict: AtomicBool::new(false),
            clock: AtomicI64::new(0),
            open: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        assert!(shared.backend.is_file(), "no {}", shared.backend.display());
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if server.stopped.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                server.connections.fetch_add(1, Ordering::SeqCst);
                if let Ok(copy) = stream.try_clone() {
                    server.open.lock().expect("the list").push(copy);
                }
                let server = Arc::clone(&server);
                std::thread::spawn(move || server.connection(stream));
            }
        });
        Self { shared, address }
    }

    /// Below `prefix` (`acme/`, `acme/api.git`, or empty for all) this token is asked
    /// for, with any user name. The longest prefix counts; several tokens may be given.
    #[must_use]
    pub fn require(self, prefix: &str, token: &str) -> Self {
        self.grant(prefix, None, token);
        self
    }

    /// The same, with one user name only.
    #[must_use]
    pub fn require_user(self, prefix: &str, user: &str, token: &str) -> Self {
        self.grant(prefix, Some(user), token);
        self
    }

    /// Adds to the tokens asked for below `prefix`.
    pub fn grant(&self, prefix: &str, user: Option<&str>, token: &str) {
        self.grant_until(prefix, user, token, None);
    }

    /// The same until then.
    pub fn grant_until(
        &self,
        prefix: &str,
        user: Option<&str>,
        token: &str,
        until: Option<Instant>,
    ) {
        let (prefix, user) = (prefix.to_owned(), user.map(str::to_owned));
        let grant = Grant { prefix, user, token: token.to_owned(), until };
        self.shared.grants.lock().expect("the grants").push(grant);
    }

    /// Requests to paths below `prefix` are answered by this, unless a fault comes first.
    pub fn serve(
        &self,
        prefix: &str,
        answer: impl Fn(&Question<'_>) -> Reply + Send + Sync + 'static,
    ) {
        let mut pages = self.shared.pages.lock().expect("the pages");
        pages.push((prefix.to_owned(), Arc::new(answer)));
    }

    /// No token that was given is good any more.
    pub fn revoke(&self) {
        self.shared.grants.lock().expect("the grants").iter_mut().for_each(|grant| {
            grant.token = format!("revoked-{}", unguessable());
        });
    }

    /// From now on its clock is so many seconds ahead.
    pub fn set_clock(&self, ahead: i64) {
        self.shared.clock.store(ahead, Ordering::SeqCst);
    }

    /// From now on it knows protocol version 0 only, as servers before git 2.18 do.
    pub fn forget_version_2(&self) {
        self.shared.old.store(true, Ordering::SeqCst);
    }

    /// From now on it gives away only what a ref points to, in version 2 too: git does not
    /// do so, but servers in Java do, whose words are used.
    pub fn serve_tips_only(&self) {
        self.shared.strict.store(true, Ordering::SeqCst);
    }

    /// From now on it closes a connection as soon as it has answered on it, without a word
    /// of it before, as servers do with those that are idle for long.
    pub fn close_idle(&self) {
        self.shared.impatient.store(true, Ordering::SeqCst);
    }

    /// `/new/x` is served from `/old/x`; goes with [`Fault::redirect`].
    pub fn alias(&self, new: &str, old: &str) {
        let mut moved = self.shared.moved.lock().expect("the aliases");
        moved.push((new.to_owned(), old.to_owned()));
    }

    /// From now on this goes wrong. Faults are tried in the order they were added; the
    /// first that fits a request is used.
    pub fn inject(&self, fault: Fault) {
        self.shared.faults.lock().expect("the faults").push_back(fault);
    }

    /// All is well again.
    pub fn repair(&self) {
        self.shared.faults.lock().expect("the faults").clear();
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `127.0.0.1:4443`.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// `https://127.0.0.1:4443`.
    pub fn base(&self) -> String {
        format!("{}://{}", self.scheme(), self.address)
    }

    /// The URL of a repository: `https://127.0.0.1:4443/acme/api.git`.
    pub fn url(&self, repository: &str) -> String {
        format!("{}/{repository}", self.base())
    }

    /// The same with another host name: `localhost`, [`super::tls::NAME`].
    pub fn url_at(&self, host: &str, repository: &str) -> String {
        format!("{}://{host}:{}/{repository}", self.scheme(), self.port())
    }

    fn scheme(&self) -> &'static str {
        if self.shared.tls.is_some() { "https" } else { "http" }
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.log.lock().expect("the log").clone()
    }

    /// Forgets the requests and connections so far.
    pub fn forget(&self) {
        self.shared.log.lock().expect("the log").clear();
        self.shared.connections.store(0, Ordering::SeqCst);
        self.shared.failed_handshakes.store(0, Ordering::SeqCst);
        self.shared.resumed.store(0, Ordering::SeqCst);
    }

    /// Connections accepted so far, with or without a request on them.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections whose client broke the TLS handshake off.
    pub fn failed_handshakes(&self) -> u64 {
        self.shared.failed_handshakes.load(Ordering::SeqCst)
    }

    /// Connections that went on with the TLS session of one before.
    pub fn resumed(&self) -> u64 {
        self.shared.resumed.load(Ordering::SeqCst)
    }

    /// Ends the server: its port refuses connections, those that are open are closed.
    pub fn stop(&self) {
        if self.shared.stopped.swap(true, Ordering::SeqCst) {
            return;
        }
        // Wakes the thread that accepts, which then drops the listener.
        drop(TcpStream::connect(self.address));
        for stream in self.shared.open.lock().expect("the list").drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
        super::wait_until("the port to close", Duration::from_secs(5), || {
            TcpStream::connect(self.address).is_err()
        });
    }
}

impl Drop for GitHttps {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

fn unguessable() -> String {
    let mut bytes = [0; 16];
    openssl::rand::rand_bytes(&mut bytes).expect("random bytes");
    hex(&bytes)
}

trait Stream: Read + Write + Send {
    /// Says good-bye, where there is a word for it.
    fn close(&mut self);
}

impl Stream for TcpStream {
    fn close(&mut self) {}
}

impl Stream for openssl::ssl::SslStream<TcpStream> {
    fn close(&mut self) {
        drop(self.shutdown());
    }
}

/// What is not sent yet.
struct Sink<'a>(&'a mut Vec<u8>);

impl Read for Sink<'_> {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Ok(0)
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Stream for Sink<'_> {
    fn close(&mut self) {}
}

/// A request's head.
struct Head {
    headers: Vec<(String, String)>,
    request: Request,
    authorization: Option<String>,
    content_type: String,
    content_encoding: String,
    close: bool,
}

impl Shared {
    fn connection(&self, tcp: TcpStream) {
        drop(tcp.set_nodelay(true));
        let Ok(raw) = tcp.try_clone() else { return };
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some(acceptor) => {
                let Ok(stream) = acceptor.accept(tcp) else {
                    self.failed_handshakes.fetch_add(1, Ordering::SeqCst);
                    self.forget_stream(&raw);
                    return;
                };
                if stream.ssl().session_reused() {
                    self.resumed.fetch_add(1, Ordering::SeqCst);
                }
                Box::new(stream)
            }
        };
        let mut stream = BufReader::new(stream);
        while let Ok(Some(head)) = read_head(&mut stream) {
            let Ok(body) = read_body(&mut stream, &head) else { break };
            let mut head = head.0;
            head.request.body_bytes = body.len() as u64;
            let close = head.close;
            let kept = self.answer(stream.get_mut().as_mut(), &raw, &head, &body);
            if self.impatient.load(Ordering::SeqCst) {
                stream.get_mut().close();
                break;
            }
            if close || !kept.unwrap_or(false) {
                break;
            }
        }
        self.forget_stream(&raw);
    }

    /// Without it a connection would stay half open, or could not be reset.
    fn forget_stream(&self, stream: &TcpStream) {
        let Ok(peer) = stream.peer_addr() else { return };
        let mut open = self.open.lock().expect("the list");
        open.retain(|other| other.peer_addr().is_ok_and(|address| address != peer));
    }

    /// Whether the connection may be used again.
    fn answer(
        &self,
        out: &mut dyn Stream,
        raw: &TcpStream,
        head: &Head,
        body: &[u8],
    ) -> std::io::Result<bool> {
        let mut request = head.request.clone();
        let fault = self.fault(&request);
        let result = self.respond(out, raw, head, body, fault, &mut request);
        self.log.lock().expect("the log").push(request);
        result
    }

    fn fault(&self, request: &Request) -> Option<Wrong> {
        let mut faults = self.faults.lock().expect("the faults");
        let fault = faults.iter_mut().find(|fault| fault.fits(request))?;
        fault.times = fault.times.map(|times| times - 1);
        Some(fault.wrong.clone())
    }

    fn respond(
        &self,
        out: &mut dyn Stream,
        raw: &TcpStream,
        head: &Head,
        body: &[u8],
        fault: Option<Wrong>,
        request: &mut Request,
    ) -> std::io::Result<bool> {
        match fault {
            None => {}
            Some(Wrong::Hang) => {
                self.hang();
                return Ok(false);
            }
            Some(Wrong::Close) => {
                out.close();
                return Ok(false);
            }
            Some(Wrong::Reset) => {
                let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                let option = nix::sys::socket::sockopt::Linger;
                nix::sys::socket::setsockopt(raw, option, &linger).ok();
                return Ok(false);
            }
            Some(Wrong::Status(status, headers)) => {
                let text = format!("the test server answers {status}\n");
                return plain(out, request, status, &headers, "text/plain", &text);
            }
            Some(Wrong::Page(text, kind)) => return plain(out, request, 200, &[], kind, &text),
            Some(Wrong::Bytes(bytes)) => {
                let kind = "application/x-git-upload-pack-result";
                return plain(out, request, 200, &[], kind, &bytes);
            }
            Some(Wrong::Redirect(status, target)) => {
                let query = if request.query.is_empty() { "" } else { "?" };
                let base = if target.contains("://") {
                    target
                } else {
                    let scheme = if self.tls.is_some() { "https" } else { "http" };
                    format!("{scheme}://{}{target}", request.host)
                };
                let to = format!("{base}{}{query}{}", request.path, request.query);
                let headers = [("Location".to_owned(), to)];
                return plain(out, request, status, &headers, "text/plain", "moved\n");
            }
            Some(wrong @ (Wrong::Cut(_) | Wrong::Stall(_) | Wrong::Drip)) => {
                return self.git(out, head, body, request, Some(&wrong));
            }
        }
        let pages = self.pages.lock().expect("the pages").clone();
        let page = pages.iter().find(|(prefix, _)| head.request.path.starts_with(prefix.as_str()));
        if let Some((prefix, answer)) = page {
            let question = Question {
                method: &head.request.method,
                path: &head.request.path[prefix.len()..],
                query: &head.request.query,
                headers: &head.headers,
                body,
            };
            let reply = answer(&question);
            return self.reply(out, request, &reply);
        }
        self.git(out, head, body, request, None)
    }

    fn reply(
        &self,
        out: &mut dyn Stream,
        request: &mut Request,
        reply: &Reply,
    ) -> std::io::Result<bool> {
        let Reply { status, headers, body, cut, endless, stall } = reply;
        let kind = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let others: Vec<_> = headers.iter().filter(|one| Some(*one) != kind).cloned().collect();
        let kind = kind.map_or("application/json; charset=utf-8", |(_, kind)| kind.as_str());
        if *endless {
            request.status = *status;
            write!(out, "HTTP/1.1 {status} {}\r\nConnection: close\r\n\r\n", reason(*status))?;
            loop {
                out.write_all(body)?;
                request.answer_bytes += body.len() as u64;
            }
        }
        let Some(some) = cut.or(*stall) else {
            return plain(out, request, *status, &others, kind, body);
        };
        let mut whole = Vec::new();
        let mut head = Sink(&mut whole);
        plain(&mut head, request, *status, &others, kind, body)?;
        request.answer_bytes = some as u64;
        out.write_all(&whole[..whole.len() - body.len() + some])?;
        out.flush()?;
        if stall.is_some() {
            self.hang();
        }
        Ok(false)
    }

    /// The repository's path below the root, if the caller may see it.
    fn granted(&self, head: &Head) -> bool {
        let path = head.request.path.trim_start_matches('/');
        let grants = self.grants.lock().expect("the grants");
        let covering = || grants.iter().filter(|grant| path.starts_with(&grant.prefix));
        let Some(longest) = covering().map(|grant| grant.prefix.len()).max() else { return true };
        covering()
            .filter(|grant| grant.prefix.len() == longest)
            .any(|grant| grant.accepts(head.authorization.as_deref()))
    }

    /// A file below the root as it is: what other tools download instead of talking git.
    fn tarball(&self, out: &mut dyn Stream, request: &mut Request) -> std::io::Result<bool> {
        let path = request.path.trim_start_matches('/');
        let Ok(content) = std::fs::read(self.root.join(path)) else {
            return plain(out, request, 404, &[], "text/plain", "no such file\n");
        };
        request.status = 200;
        request.answer_bytes = content.len() as u64;
        let length = content.len();
        write!(
            out,
            "HTTP/1.1 200 OK\r\nContent-Type: application/gzip\r\nContent-Length: {length}\r\n\r\n"
        )?;
        out.write_all(&content)?;
        out.flush()?;
        Ok(true)
    }

    fn git(
        &self,
        out: &mut dyn Stream,
        head: &Head,
        body: &[u8],
        request: &mut Request,
        wrong: Option<&Wrong>,
    ) -> std::io::Result<bool> {
        if !self.granted(head) {
            let ask = [("WWW-Authenticate".to_owned(), "Basic realm=\"git\"".to_owned())];
            return plain(out, request, 401, &ask, "text/plain", "who are you?\n");
        }
        if head.request.path.ends_with(".tar.gz") {
            return self.tarball(out, request);
        }
        let mut path = head.request.path.clone();
        for (new, old) in self.moved.lock().expect("the aliases").iter() {
            if let Some(rest) = path.strip_prefix(new.as_str()) {
                path = format!("{old}{rest}");
            }
        }
        if let Some(refused) = self.refused_want(&path, body) {
            let line = format!("ERR want {refused} not valid");
            let answer = format!("{:04x}{line}", line.len() + 4);
            let kind = "application/x-git-upload-pack-result";
            return plain(out, request, 200, &[], kind, &answer);
        }
        let mut child = self.backend(head, &path, body.len())?;
        let mut stdin = child.stdin.take().expect("its input");
        let body = body.to_vec();
        let writer = std::thread::spawn(move || drop(stdin.write_all(&body)));
        let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
        let result = relay(self, out, &mut stdout, request, wrong);
        // A backend that still writes gets a broken pipe.
        drop(stdout);
        drop(child.wait());
        drop(writer.join());
        result
    }

    /// The first object a version 2 request wants and no ref points to.
    fn refused_want(&self, path: &str, body: &[u8]) -> Option<String> {
        if !self.strict.load(Ordering::SeqCst) {
            return None;
        }
        let text = String::from_utf8_lossy(body);
        if !text.contains("command=fetch") {
            return None;
        }
        let repository = path.strip_suffix("/git-upload-pack")?.trim_start_matches('/');
        let mut git = isolated("git");
        git.arg("--git-dir").arg(self.root.join(repository));
        git.args(["for-each-ref", "--format=%(objectname) %(*objectname)"]);
        let output = git.output().expect("git starts");
        assert!(output.status.success(), "git for-each-ref: {:?}", output.status);
        let tips = String::from_utf8_lossy(&output.stdout).into_owned();
        let wants = text.split("want ").skip(1).filter_map(|rest| rest.get(..40));
        wants.map(str::to_owned).find(|id| !tips.contains(id.as_str()))
    }

    fn backend(&self, head: &Head, path: &str, length: usize) -> std::io::Result<Child> {
        let mut command = isolated(&self.backend);
        command
            .env("GIT_PROJECT_ROOT", &self.root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("PATH_INFO", path)
            .env("QUERY_STRING", &head.request.query)
            .env("REQUEST_METHOD", &head.request.method)
            .env("CONTENT_TYPE", &head.content_type)
            .env("CONTENT_LENGTH", length.to_string())
            .env("REMOTE_ADDR", "127.0.0.1")
            .env("GATEWAY_INTERFACE", "CGI/1.1")
            .env("SERVER_PROTOCOL", "HTTP/1.1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if !head.content_encoding.is_empty() {
            command.env("HTTP_CONTENT_ENCODING", &head.content_encoding);
        }
        if !head.request.protocol.is_empty() && !self.old.load(Ordering::SeqCst) {
            command.env("GIT_PROTOCOL", &head.request.protocol);
        }
        command.spawn()
    }

    fn hang(&self) {
        self.sleep(FOR_EVER);
    }

    /// False when the server was stopped meanwhile.
    fn sleep(&self, duration: Duration) -> bool {
        let end = Instant::now() + duration;
        while Instant::now() < end && !self.stopped.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
        !self.stopped.load(Ordering::SeqCst)
    }
}

/// A whole answer of text. Answers that the connection may be used again.
fn plain(
    out: &mut dyn Stream,
    request: &mut Request,
    status: u16,
    headers: &[(String, String)],
    kind: &str,
    content: &(impl AsRef<[u8]> + ?Sized),
) -> std::io::Result<bool> {
    let content = content.as_ref();
    request.status = status;
    request.answer_bytes = content.len() as u64;
    let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n", content.len()));
    out.write_all(head.as_bytes())?;
    out.write_all(content)?;
    out.flush()?;
    Ok(true)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        201 => "Created",
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        422 => "Unprocessable Content",
        407 => "Proxy Authentication Required",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

/// Passes what the backend answers on, as it comes.
fn relay(
    server: &Shared,
    out: &mut dyn Stream,
    backend: &mut impl std::io::BufRead,
    request: &mut Request,
    wrong: Option<&Wrong>,
) -> std::io::Result<bool> {
    let mut status = "200 OK".to_owned();
    let mut headers = String::new();
    loop {
        let mut line = String::new();
        if backend.read_line(&mut line)? == 0 {
            return plain(out, request, 500, &[], "text/plain", "the backend said nothing\n");
        }
        let line = line.trim_end();
        match line.split_once(": ") {
            Some(("Status", text)) => text.clone_into(&mut status),
            _ if line.is_empty() => break,
            _ => headers.push_str(&format!("{line}\r\n")),
        }
    }
    request.status = status.split(' ').next().and_then(|code| code.parse().ok()).unwrap_or(0);
    let ahead = jiff::SignedDuration::from_secs(server.clock.load(Ordering::SeqCst));
    let date = (jiff::Timestamp::now() + ahead).strftime("%a, %d %b %Y %H:%M:%S GMT");
    let head =
        format!("HTTP/1.1 {status}\r\nDate: {date}\r\n{headers}Transfer-Encoding: chunked\r\n\r\n");
    out.write_all(head.as_bytes())?;
    let mut send = |out: &mut dyn Stream, bytes: &[u8]| -> std::io::Result<()> {
        out.write_all(format!("{:x}\r\n", bytes.len()).as_bytes())?;
        out.write_all(bytes)?;
        out.write_all(b"\r\n")?;
        out.flush()?;
        request.answer_bytes += bytes.len() as u64;
        Ok(())
    };
    match wrong {
        Some(Wrong::Cut(fraction) | Wrong::Stall(fraction)) => {
            let mut all = Vec::new();
            backend.read_to_end(&mut all)?;
            let part = &all[..part_of(all.len(), *fraction)];
            if !part.is_empty() {
                send(out, part)?;
            }
            if matches!(wrong, Some(Wrong::Stall(_))) {
                server.hang();
            }
            return Ok(false);
        }
        Some(Wrong::Drip) => {
            let mut byte = [0];
            while backend.read(&mut byte)? == 1 {
                send(out, &byte)?;
                if !server.sleep(Duration::from_secs(1)) {
                    return Ok(false);
                }
            }
        }
        _ => {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let count = backend.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                send(out, &buffer[..count])?;
            }
        }
    }
    out.write_all(b"0\r\n\r\n")?;
    out.flush()?;
    Ok(true)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a fraction between 0 and 1 of a length"
)]
fn part_of(length: usize, fraction: f64) -> usize {
    ((length as f64 * fraction) as usize).min(length)
}

/// How a request's body ends.
enum Framing {
    Length(usize),
    Chunked,
}

type Headed = (Head, Framing, bool);

fn read_head(stream: &mut BufReader<Box<dyn Stream>>) -> std::io::Result<Option<Headed>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut head = Head {
        request: Request {
            method: method.to_owned(),
            path: percent_decoded(path),
            query: query.to_owned(),
            host: String::new(),
            protocol: String::new(),
            authorization: None,
            body_bytes: 0,
            chunked: false,
            compressed: false,
            status: 0,
            answer_bytes: 0,
        },
        authorization: None,
        headers: Vec::new(),
        content_type: String::new(),
        content_encoding: String::new(),
        close: false,
    };
    let (mut framing, mut expect) = (Framing::Length(0), false);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let value = value.trim().to_owned();
        head.headers.push((name.to_ascii_lowercase(), value.clone()));
        match name.to_ascii_lowercase().as_str() {
            "host" => head.request.host = value,
            "git-protocol" => head.request.protocol = value,
            "authorization" => {
                head.request.authorization = Some(sha256(&value));
                head.authorization = Some(value);
            }
            "content-type" => head.content_type = value,
            "content-encoding" => {
                head.request.compressed = true;
                head.content_encoding = value;
            }
            "content-length" => framing = Framing::Length(value.parse().unwrap_or(0)),
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => {
                head.request.chunked = true;
                framing = Framing::Chunked;
            }
            "connection" => head.close = value.eq_ignore_ascii_case("close"),
            "expect" => expect = true,
            _ => {}
        }
    }
    Ok(Some((head, framing, expect)))
}

fn read_body(stream: &mut BufReader<Box<dyn Stream>>, head: &Headed) -> std::io::Result<Vec<u8>> {
    let (_, framing, expect) = head;
    if *expect {
        stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        stream.get_mut().flush()?;
    }
    let mut body = Vec::new();
    match framing {
        Framing::Length(length) => {
            body.resize(*length, 0);
            stream.read_exact(&mut body)?;
        }
        Framing::Chunked => loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let digits = line.trim().split(';').next().unwrap_or("");
            let size = usize::from_str_radix(digits, 16).map_err(std::io::Error::other)?;
            let start = body.len();
            body.resize(start + size, 0);
            stream.read_exact(&mut body[start..])?;
            stream.read_line(&mut String::new())?;
            if size == 0 {
                break;
            }
        },
    }
    Ok(body)
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match code.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
