//! A web proxy as companies have it: `CONNECT`, perhaps with a password.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One `CONNECT` as the proxy saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// `git.example.test:443`.
    pub target: String,
    /// Whether a `Proxy-Authorization` came with it.
    pub authorized: bool,
    /// The status answered.
    pub status: u16,
}

struct Shared {
    routes: Vec<(String, String)>,
    login: Option<String>,
    /// Answered to everybody, instead of all else.
    answer: Option<String>,
    log: Mutex<Vec<Tunnel>>,
    stopped: AtomicBool,
}

/// The proxy; it ends when dropped.
pub struct ConnectProxy {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl std::fmt::Debug for ConnectProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ConnectProxy({})", self.address)
    }
}

impl ConnectProxy {
    /// Open to everybody. `routes` say where a name and port really lead:
    /// `("git.example.test:443", "127.0.0.1:4443")`; others are connected as named.
    pub fn start(routes: &[(&str, &str)]) -> Self {
        Self::start_with(routes, None)
    }

    /// Asks for a user and a password (`user:password`).
    pub fn start_with(routes: &[(&str, &str)], login: Option<&str>) -> Self {
        Self::start_as(routes, login, None)
    }

    /// Answers everybody with this, and ends the connection.
    pub fn start_answering(answer: &str) -> Self {
        Self::start_as(&[], None, Some(answer.to_owned()))
    }

    fn start_as(routes: &[(&str, &str)], login: Option<&str>, answer: Option<String>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let encoded =
            |login: &str| format!("Basic {}", openssl::base64::encode_block(login.as_bytes()));
        let shared = Arc::new(Shared {
            routes: routes.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
            login: login.map(encoded),
            answer,
            log: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let proxy = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if proxy.stopped.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let proxy = Arc::clone(&proxy);
                std::thread::spawn(move || drop(proxy.connection(stream)));
            }
        });
        Self { shared, address }
    }

    /// `http://127.0.0.1:3128`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `http://user:password@127.0.0.1:3128`.
    pub fn url_with(&self, login: &str) -> String {
        format!("http://{login}@{}", self.address)
    }

    /// Every tunnel asked for so far.
    pub fn tunnels(&self) -> Vec<Tunnel> {
        self.shared.log.lock().expect("the log").clone()
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        drop(TcpStream::connect_timeout(&self.address, Duration::from_secs(1)));
    }
}

impl Shared {
    fn connection(&self, mut client: TcpStream) -> std::io::Result<()> {
        // Byte by byte, so that nothing of the tunnel's content is swallowed.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if client.read(&mut byte)? == 0 || head.len() > 64 * 1024 {
                return Ok(());
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut words = head.split_whitespace();
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or("").to_owned());
        let offered = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("proxy-authorization").then(|| value.trim().to_owned())
        });
        if let Some(answer) = &self.answer {
            let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
            let tunnel = Tunnel { target, authorized: offered.is_some(), status };
            self.log.lock().expect("the log").push(tunnel);
            return client.write_all(answer.as_bytes());
        }
        let upstream = match (&self.login, &offered) {
            _ if method != "CONNECT" => Err((405, "")),
            (Some(login), Some(offered)) if login != offered => Err((407, AUTHENTICATE)),
            (Some(_), None) => Err((407, AUTHENTICATE)),
            _ => {
                let route = self.routes.iter().find(|(name, _)| *name == target);
                let address = route.map_or(&target, |(_, address)| address);
                TcpStream::connect(address.as_str()).map_err(|_| (502, ""))
            }
        };
        let status = upstream.as_ref().map_or_else(|(status, _)| *status, |_| 200);
        let tunnel = Tunnel { target, authorized: offered.is_some(), status };
        self.log.lock().expect("the log").push(tunnel);
        match upstream {
            Err((status, header)) => {
                let text = format!(
                    "HTTP/1.1 {status} No\r\n{header}Connection: close\r\nContent-Length: 0\r\n\r\n"
                );
                client.write_all(text.as_bytes())
            }
            Ok(upstream) => {
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
                let (from, to) = (client.try_clone()?, upstream.try_clone()?);
                let back = std::thread::spawn(move || pipe(upstream, client));
                pipe(from, to);
                drop(back.join());
                Ok(())
            }
        }
    }
}

const AUTHENTICATE: &str = "Proxy-Authenticate: Basic realm=\"proxy\"\r\n";

fn pipe(mut from: TcpStream, mut to: TcpStream) {
    drop(std::io::copy(&mut from, &mut to));
    drop(to.shutdown(Shutdown::Write));
}
