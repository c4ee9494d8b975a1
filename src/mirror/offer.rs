//! What an SSH server offers when nothing can be agreed on.
//!
//! libssh2 keeps that to itself, so the server's first message is read here: it comes in the
//! clear, before any secret is there to be lost.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use ssh2::{MethodType, Session};

use super::wire::Fields;

/// More than all of it has.
const LONGEST: u64 = 1 << 17;
/// `SSH_MSG_KEXINIT`, and the random bytes after it.
const KEXINIT: u8 = 20;
const COOKIE: usize = 16;

/// What of both sides does not meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// What the algorithms are for: `key exchange`.
    pub what: &'static str,
    /// What sshd's configuration calls them.
    pub setting: &'static str,
    /// What the server offers.
    pub theirs: Vec<String>,
    /// What is known here.
    pub ours: Vec<String>,
}

/// The lists of an offer in their order, in both directions where there are two.
const LISTS: [(&str, &str, MethodType); 6] = [
    ("key exchange", "KexAlgorithms", MethodType::Kex),
    ("host key", "HostKeyAlgorithms", MethodType::HostKey),
    ("cipher", "Ciphers", MethodType::CryptCs),
    ("cipher", "Ciphers", MethodType::CryptSc),
    ("MAC", "MACs", MethodType::MacCs),
    ("MAC", "MACs", MethodType::MacSc),
];

/// Asks for the offer over a new connection. `host_keys` are the algorithms that we propose
/// for those.
pub(super) fn mismatch(stream: TcpStream, host_keys: &[&str]) -> Option<Mismatch> {
    let session = Session::new().ok()?;
    let offer = read(stream).ok()?;
    let lists = parse(&offer)?;
    let ours = |method: MethodType| match method {
        MethodType::HostKey => host_keys.iter().map(|&name| name.to_owned()).collect(),
        method => {
            let known = session.supported_algs(method).unwrap_or_default();
            known.into_iter().filter(|name| !is_mark(name)).map(str::to_owned).collect()
        }
    };
    compare(lists, ours)
}

/// Says hello and reads the first packet's content.
fn read(mut stream: TcpStream) -> io::Result<Vec<u8>> {
    stream.write_all(b"SSH-2.0-multideployer\r\n")?;
    let mut reader = BufReader::new(stream.take(LONGEST));
    let mut line = Vec::new();
    // Other lines may come before the banner.
    while !line.starts_with(b"SSH-") {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let mut head = [0; 5];
    reader.read_exact(&mut head)?;
    let [a, b, c, d, padding] = head;
    let length = u64::from(u32::from_be_bytes([a, b, c, d])).saturating_sub(1);
    let mut packet = Vec::new();
    reader.take(length.min(LONGEST)).read_to_end(&mut packet)?;
    packet.truncate(packet.len().saturating_sub(usize::from(padding)));
    Ok(packet)
}

fn parse(packet: &[u8]) -> Option<Vec<Vec<String>>> {
    let (kind, rest) = packet.split_first()?;
    if *kind != KEXINIT {
        return None;
    }
    let mut fields = Fields::of(rest.get(COOKIE..)?);
    let mut lists = Vec::new();
    for _ in LISTS {
        let names = std::str::from_utf8(fields.text()?).ok()?;
        // They are shown to people.
        let printable =
            |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic());
        let names = names.split(',').filter(printable).filter(|name| !is_mark(name));
        lists.push(names.map(str::to_owned).collect());
    }
    Some(lists)
}

/// The first list without a common name.
fn compare(lists: Vec<Vec<String>>, ours: impl Fn(MethodType) -> Vec<String>) -> Option<Mismatch> {
    LISTS.into_iter().zip(lists).find_map(|((what, setting, method), theirs)| {
        let ours = ours(method);
        let meet = theirs.iter().any(|name| ours.contains(name));
        (!meet).then_some(Mismatch { what, setting, theirs, ours })
    })
}

/// Whether it is no algorithm but says what its sender can do.
fn is_mark(name: &str) -> bool {
    name.starts_with("ext-info-") || name.starts_with("kex-strict-")
}

#[cfg(test)]
mod tests {
    use super::super::wire::put;
    use super::*;

    fn offer(lists: &[&str]) -> Vec<u8> {
        let mut packet = vec![KEXINIT];
        packet.extend_from_slice(&[7; COOKIE]);
        for list in lists {
            put(&mut packet, list.as_bytes());
        }
        packet
    }

    #[test]
    fn the_first_list_without_a_common_name_is_told() {
        let lists = |kex| offer(&[kex, "k", "c", "c2", "m", "m"]);
        let ours = |method: MethodType| {
            let names: &[&str] = match method {
                MethodType::Kex => &["x", "y"],
                MethodType::HostKey => &["k"],
                MethodType::CryptCs | MethodType::CryptSc => &["c"],
                _ => &["m"],
            };
            names.iter().map(|&name| name.to_owned()).collect()
        };
        let found = |packet: &[u8]| compare(parse(packet).expect("an offer"), ours);
        let kex = found(&lists("z,kex-strict-s-v00@openssh.com,\u{1b}[1m")).expect("a mismatch");
        assert_eq!((kex.what, kex.theirs), ("key exchange", vec!["z".to_owned()]));
        let cipher = found(&lists("z,y")).expect("a mismatch");
        assert_eq!((cipher.what, cipher.theirs), ("cipher", vec!["c2".to_owned()]));
        assert_eq!(found(&offer(&["x", "k", "c", "c", "n,m", "m"])), None);
    }

    #[test]
    fn what_is_cut_off_or_something_else_is_no_offer() {
        let whole = offer(&["x", "k", "c", "c", "m", "m"]);
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]), None, "{end}");
        }
        assert_eq!(parse(&[&[1], &whole[1..]].concat()), None);
    }
}
