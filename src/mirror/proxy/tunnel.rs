//! `CONNECT`: a tunnel through a proxy.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{Problem, Proxy};
use crate::mirror::dial::bracketed;
use crate::mirror::failure::{Failure, Step, page_words};
use crate::mirror::shown::{Shown, basic};
use crate::mirror::watch::Clock;

/// More than any proxy's headers have.
const LONGEST: usize = 16 * 1024;
/// As much of a page as is looked at for words.
const PAGE: u64 = 4096;

/// A proxy's answer, without its body.
struct Answer {
    status: u16,
    /// Lower-case names.
    headers: Vec<(String, String)>,
}

impl Answer {
    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Asks `proxy` at the other end of `stream` for a tunnel to `target`. When this returns
/// well, the stream leads there.
///
/// # Errors
/// [`Failure::Proxy`], [`Failure::Timeout`], [`Failure::Interrupted`].
pub(in crate::mirror) fn open(
    stream: &TcpStream,
    proxy: &Proxy,
    (host, port): (&str, u16),
    clock: &Clock,
    until: Instant,
) -> Result<(), Failure> {
    let connecting = clock.connecting(stream, until);
    let failed = |error: io::Error| {
        if let Some(failure) = clock.failure() {
            return failure;
        }
        let late = connecting.is_late()
            || matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        if late {
            return proxy.not_reached(clock.timeout(Step::Connect), host, port);
        }
        let problem = match error.kind() {
            io::ErrorKind::UnexpectedEof => "it ended the connection without an answer".into(),
            io::ErrorKind::InvalidData => format!("what it answers is not HTTP: {error}"),
            _ => error.to_string(),
        };
        proxy.failure(Problem::Broken(problem), host, port)
    };
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let limited =
        stream.set_read_timeout(Some(left)).and_then(|()| stream.set_write_timeout(Some(left)));
    limited.map_err(failed)?;
    let mut wire = stream;
    wire.write_all(request(proxy, host, port).as_bytes()).map_err(failed)?;
    let answer = read_answer(&mut wire).map_err(failed)?;
    let is_page = answer.header("content-type").any(|kind| kind.contains("html"));
    match answer.status {
        200..=299 if !is_page => return Ok(()),
        407 => {
            let ways = answer.header("proxy-authenticate");
            let ways = ways.filter_map(|way| way.split_whitespace().next());
            let ways = ways.map(|way| crate::mirror::failure::harmless(way.as_bytes())).collect();
            let problem = match proxy.login {
                Some(_) => Problem::LoginRefused(ways),
                None => Problem::LoginMissing(ways),
            };
            return Err(proxy.failure(problem, host, port));
        }
        _ => {}
    }
    // What it says about it is worth a moment, not more.
    let _ = stream.set_read_timeout(Some(left.min(Duration::from_secs(2))));
    let mut body = Vec::new();
    let length = answer.header("content-length").find_map(|text| text.parse().ok());
    let _ = wire.take(length.unwrap_or(PAGE).min(PAGE)).read_to_end(&mut body);
    clock.check()?;
    let shown = proxy.login.as_ref().map(|(user, password)| Shown::login(user, password));
    let says = shown.unwrap_or_default().hide(page_words(&body));
    Err(proxy.failure(
        match answer.status {
            200..=299 => Problem::Page(says),
            status => Problem::Status { status, says },
        },
        host,
        port,
    ))
}

fn request(proxy: &Proxy, host: &str, port: u16) -> String {
    let target = format!("{}:{port}", bracketed(host));
    let authorization = proxy.login.as_ref().map(|(user, password)| {
        format!("Proxy-Authorization: Basic {}\r\n", basic(user, password))
    });
    format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{}User-Agent: multideployer/{}\r\n\r\n",
        authorization.unwrap_or_default(),
        env!("CARGO_PKG_VERSION"),
    )
}

/// Reads a byte at a time: what follows the empty line belongs to the tunnel.
fn read_answer(wire: &mut impl io::Read) -> io::Result<Answer> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
            let mut byte = [0];
            wire.read_exact(&mut byte)?;
            head.push(byte[0]);
            // Enough of what is none to be recognised.
            let is_http = head.len() < 16 || head.starts_with(b"HTTP/");
            if head.len() > LONGEST || !is_http {
                let start = crate::mirror::failure::harmless(&head);
                return Err(io::Error::new(io::ErrorKind::InvalidData, start));
            }
        }
        let head = String::from_utf8_lossy(&head);
        let mut lines = head.lines();
        let first = lines.next().unwrap_or_default();
        let status = first.split_whitespace().nth(1).and_then(|code| code.parse().ok());
        let Some(status) = status else {
            let start = crate::mirror::failure::harmless(first.as_bytes());
            return Err(io::Error::new(io::ErrorKind::InvalidData, start));
        };
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        // 1xx announce the answer.
        if status >= 200 {
            return Ok(Answer { status, headers });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Secret;

    #[test]
    fn only_the_head_of_the_answer_is_read() {
        let mut wire = &b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nVia: x\r\n\r\ntunnel"[..];
        let answer = read_answer(&mut wire).unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("via").collect::<Vec<_>>(), ["x"]);
        assert_eq!(wire, b"tunnel");
        for (strange, kind) in [
            (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], io::ErrorKind::InvalidData),
            (b"HTTP/1.1 what\r\n\r\n", io::ErrorKind::InvalidData),
            (b"HTTP/1.1 200 OK\r\n", io::ErrorKind::UnexpectedEof),
        ] {
            let mut wire = strange;
            assert_eq!(read_answer(&mut wire).err().map(|error| error.kind()), Some(kind));
        }
    }

    #[test]
    fn a_request_names_the_target_and_logs_in() {
        let mut proxy =
            Proxy { host: "p".into(), port: 1, login: None, origin: "a test".to_owned() };
        let plain = request(&proxy, "::1", 22);
        assert!(plain.starts_with("CONNECT [::1]:22 HTTP/1.1\r\nHost: [::1]:22\r\n"), "{plain}");
        assert!(!plain.contains("Authorization"));
        proxy.login = Some(("u".into(), Secret::new("p".into())));
        let text = request(&proxy, "git", 443);
        assert!(text.contains("\r\nProxy-Authorization: Basic dTpw\r\n"), "{text}");
    }
}
