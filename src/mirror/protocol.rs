//! What is said to `git-upload-pack`, and what it answers: protocol version 2, and version 0
//! for servers that know no better.
//!
//! Only what this program needs: the pack of given commits at a given depth, and lists of
//! refs. All that the mirror has is told at once, so that one request is enough.

use std::io::{self, Read, Write};

use super::failure::harmless;
use super::pkt::{Pkt, PktReader, push};
use crate::domain::Revision;

const AGENT: &str = concat!("agent=multideployer/", env!("CARGO_PKG_VERSION"));

/// More refs than this are not a list but an attack on our memory.
const MOST_REFS: usize = 2_000_000;

/// The depth that means "all of it".
pub(super) const UNLIMITED: u32 = 0x7fff_ffff;

const COMMITS_ONLY: &str = "filter tree:0\n";

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Request {
    /// The objects wanted.
    pub wants: Vec<Revision>,
    /// Commits that are here completely.
    pub haves: Vec<Revision>,
    /// Commits whose parents are not here.
    pub shallow: Vec<Revision>,
    /// How many commits deep; `None` is as deep as the mirror needs.
    pub depth: Option<u32>,
    /// Leave out directories and files, which only servers that offer it can do.
    pub commits_only: bool,
}

/// How the boundary of the mirror's history moves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Boundary {
    /// Commits whose parents did not come.
    pub shallow: Vec<Revision>,
    /// Commits whose parents came now.
    pub unshallow: Vec<Revision>,
}

/// Why an answer could not be used.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection.
    Read(io::Error),
    /// The pack could not be stored.
    Store(io::Error),
    /// The server's own words (`ERR`, or its error channel).
    Said(String),
    /// It is not this protocol; the beginning of what came.
    Strange(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::InvalidData {
            Self::Strange(error.to_string())
        } else {
            Self::Read(error)
        }
    }
}

/// A ref at the remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteRef {
    /// `refs/heads/main`
    pub name: Vec<u8>,
    /// What it points to.
    pub id: Revision,
    /// What an annotated tag points to in the end.
    pub peeled: Option<Revision>,
}

/// What a server says first.
#[derive(Debug)]
pub(super) enum Greeting {
    /// It speaks version 2.
    V2 {
        /// It can leave out directories and files.
        filter: bool,
    },
    /// It speaks version 0, and has listed everything already.
    V0(Advertisement),
}

/// A version 0 list of refs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Advertisement {
    /// The refs.
    pub refs: Vec<RemoteRef>,
    /// What the server can do.
    pub capabilities: Vec<String>,
}

impl Advertisement {
    fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|c| c == capability)
    }

    /// Whether `git-upload-pack` may be asked for this object.
    pub(super) fn serves(&self, id: Revision) -> bool {
        self.can("allow-tip-sha1-in-want")
            || self.can("allow-reachable-sha1-in-want")
            || self.refs.iter().any(|r| r.id == id || r.peeled == Some(id))
    }

    /// Whether it says that it serves what a branch or tag leads to, however deep.
    pub(super) fn serves_what_is_reachable(&self) -> bool {
        self.can("allow-reachable-sha1-in-want")
    }

    /// Whether it can leave history out.
    pub(super) fn can_shallow(&self) -> bool {
        self.can("shallow")
    }
}

fn text_of(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line).ok()
}

fn id_of(digits: &[u8]) -> Option<Revision> {
    text_of(digits)?.parse().ok()
}

/// The words of an `ERR` line.
fn complaint(line: &[u8]) -> Option<Trouble> {
    line.strip_prefix(b"ERR ").map(|words| Trouble::Said(harmless(words)))
}

/// Version 2: a request for a pack.
pub(super) fn fetch_v2(request: &Request) -> Vec<u8> {
    let mut body = Vec::new();
    push(&mut body, "command=fetch\n");
    push(&mut body, &format!("{AGENT}\n"));
    push(&mut body, "object-format=sha1");
    body.extend_from_slice(b"0001");
    push(&mut body, "thin-pack\n");
    push(&mut body, "ofs-delta\n");
    push(&mut body, "no-progress\n");
    for id in &request.shallow {
        push(&mut body, &format!("shallow {id}\n"));
    }
    if let Some(depth) = request.depth {
        push(&mut body, &format!("deepen {depth}\n"));
    }
    if request.commits_only {
        push(&mut body, COMMITS_ONLY);
    }
    for id in &request.wants {
        push(&mut body, &format!("want {id}\n"));
    }
    for id in &request.haves {
        push(&mut body, &format!("have {id}\n"));
    }
    push(&mut body, "done\n");
    body.extend_from_slice(b"0000");
    body
}

/// Version 2: a request for the refs that begin with one of `prefixes`.
pub(super) fn list_v2(prefixes: &[String]) -> Vec<u8> {
    let mut body = Vec::new();
    push(&mut body, "command=ls-refs\n");
    push(&mut body, &format!("{AGENT}\n"));
    push(&mut body, "object-format=sha1");
    body.extend_from_slice(b"0001");
    push(&mut body, "peel\n");
    for prefix in prefixes {
        push(&mut body, &format!("ref-prefix {prefix}\n"));
    }
    body.extend_from_slice(b"0000");
    body
}

/// Version 0: a request for a pack.
pub(super) fn fetch_v0(request: &Request, server: &Advertisement) -> Vec<u8> {
    let mut body = Vec::new();
    let mut capabilities = String::new();
    for wanted in ["side-band-64k", "thin-pack", "ofs-delta", "no-progress", "shallow"] {
        if server.can(wanted) {
            capabilities.push(' ');
            capabilities.push_str(wanted);
        }
    }
    if server.capabilities.iter().any(|c| c.starts_with("agent=")) {
        capabilities.push(' ');
        capabilities.push_str(AGENT);
    }
    let filter = request.commits_only && server.can("filter");
    if filter {
        capabilities.push_str(" filter");
    }
    for id in &request.wants {
        push(&mut body, &format!("want {id}{}\n", std::mem::take(&mut capabilities)));
    }
    if server.can_shallow() {
        for id in &request.shallow {
            push(&mut body, &format!("shallow {id}\n"));
        }
        if let Some(depth) = request.depth {
            push(&mut body, &format!("deepen {depth}\n"));
        }
    }
    if filter {
        push(&mut body, COMMITS_ONLY);
    }
    body.extend_from_slice(b"0000");
    for id in &request.haves {
        push(&mut body, &format!("have {id}\n"));
    }
    push(&mut body, "done\n");
    body
}

/// Reads what a server says first on a connection of its own (SSH), or in answer to
/// `GET info/refs` (`with_service_line`).
pub(super) fn greeting<R: Read>(
    reader: &mut PktReader<R>,
    with_service_line: bool,
) -> Result<Greeting, Trouble> {
    if with_service_line {
        let first = reader.next()?;
        let line = first.line().unwrap_or_default();
        if let Some(trouble) = complaint(line) {
            return Err(trouble);
        }
        if line == b"version 2" {
            return rest_of_v2(reader);
        }
        if !line.starts_with(b"# service=git-upload-pack") {
            return Err(Trouble::Strange(harmless(line)));
        }
        reader.next()?;
    }
    let mut found = Advertisement::default();
    let mut first = true;
    loop {
        let frame = reader.next()?;
        let Some(line) = frame.line() else { return Ok(Greeting::V0(found)) };
        if let Some(trouble) = complaint(line) {
            return Err(trouble);
        }
        if first && line == b"version 2" {
            return rest_of_v2(reader);
        }
        if first && line == b"version 1" {
            continue;
        }
        let line = match line.iter().position(|b| *b == 0) {
            Some(nul) => {
                let capabilities = String::from_utf8_lossy(&line[nul + 1..]);
                found.capabilities = capabilities.split_whitespace().map(str::to_owned).collect();
                &line[..nul]
            }
            None => line,
        };
        if line.starts_with(b"shallow ") {
            continue;
        }
        first = false;
        bounded(found.refs.len())?;
        if found.can("object-format=sha256") {
            return Err(Trouble::Said("object-format=sha256".into()));
        }
        let strange = || Trouble::Strange(harmless(line));
        let (id, name) = line.split_at_checked(40).ok_or_else(strange)?;
        let name = name.strip_prefix(b" ").ok_or_else(strange)?;
        let id = id_of(id).ok_or_else(strange)?;
        if let Some(of) = name.strip_suffix(b"^{}") {
            if let Some(tag) = found.refs.last_mut().filter(|last| last.name == of) {
                tag.peeled = Some(id);
            }
        } else if name != b"capabilities" {
            found.refs.push(RemoteRef { name: name.to_vec(), id, peeled: None });
        }
    }
}

fn bounded(refs: usize) -> Result<(), Trouble> {
    if refs < MOST_REFS {
        return Ok(());
    }
    Err(Trouble::Said(format!("more than {MOST_REFS} refs, which is more than are read")))
}

fn rest_of_v2<R: Read>(reader: &mut PktReader<R>) -> Result<Greeting, Trouble> {
    let mut filter = false;
    loop {
        let frame = reader.next()?;
        match frame.line() {
            Some(b"object-format=sha256") => {
                return Err(Trouble::Said("object-format=sha256".into()));
            }
            Some(line) => {
                if let Some(features) = line.strip_prefix(b"fetch=") {
                    filter = features.split(|byte| *byte == b' ').any(|word| word == b"filter");
                }
            }
            None => return Ok(Greeting::V2 { filter }),
        }
    }
}

/// Version 2: reads a list of refs.
pub(super) fn read_list_v2<R: Read>(reader: &mut PktReader<R>) -> Result<Vec<RemoteRef>, Trouble> {
    let mut refs = Vec::new();
    loop {
        let frame = reader.next()?;
        let Some(line) = frame.line() else { return Ok(refs) };
        if let Some(trouble) = complaint(line) {
            return Err(trouble);
        }
        let mut words = line.split(|b| *b == b' ');
        let id = words.next().and_then(id_of);
        let (Some(id), Some(name)) = (id, words.next()) else {
            if line.starts_with(b"unborn ") {
                continue;
            }
            return Err(Trouble::Strange(harmless(line)));
        };
        bounded(refs.len())?;
        let peeled = words.find_map(|word| id_of(word.strip_prefix(b"peeled:")?));
        refs.push(RemoteRef { name: name.to_vec(), id, peeled });
    }
}

/// Version 2: reads the answer to a request for a pack, which goes to `store`.
pub(super) fn read_pack_v2<R: Read>(
    reader: &mut PktReader<R>,
    store: &mut dyn Write,
) -> Result<Boundary, Trouble> {
    let mut boundary = Boundary::default();
    loop {
        let frame = reader.next()?;
        let line = frame.line().unwrap_or_default();
        if let Some(trouble) = complaint(line) {
            return Err(trouble);
        }
        match line {
            b"packfile" => {
                read_side_bands(reader, store)?;
                return Ok(boundary);
            }
            b"shallow-info" => read_section(reader, |line| boundary.note(line))?,
            b"acknowledgments" | b"wanted-refs" => read_section(reader, |_| true)?,
            _ => return Err(Trouble::Strange(harmless(line))),
        }
    }
}

fn read_section<R: Read>(
    reader: &mut PktReader<R>,
    mut take: impl FnMut(&[u8]) -> bool,
) -> Result<(), Trouble> {
    loop {
        let frame = reader.next()?;
        let Some(line) = frame.line() else { return Ok(()) };
        if !take(line) {
            return Err(complaint(line).unwrap_or_else(|| Trouble::Strange(harmless(line))));
        }
    }
}

impl Boundary {
    /// Takes a line of shallow information; false if it is none.
    fn note(&mut self, line: &[u8]) -> bool {
        let (list, id) = if let Some(id) = line.strip_prefix(b"shallow ") {
            (&mut self.shallow, id)
        } else if let Some(id) = line.strip_prefix(b"unshallow ") {
            (&mut self.unshallow, id)
        } else {
            return false;
        };
        list.len() < MOST_REFS && id_of(id).map(|id| list.push(id)).is_some()
    }
}

/// Version 0: reads the answer to a request for a pack, which goes to `store`.
pub(super) fn read_pack_v0<R: Read>(
    reader: &mut PktReader<R>,
    deepened: bool,
    store: &mut dyn Write,
) -> Result<Boundary, Trouble> {
    let mut boundary = Boundary::default();
    if deepened {
        read_section(reader, |line| boundary.note(line))?;
    }
    // ACK or NAK, since all haves were sent at once and no form of multi_ack was asked for.
    // An ACK may come again when the next have follows from the first.
    let frame = reader.next()?;
    let line = frame.line().unwrap_or_default();
    if let Some(trouble) = complaint(line) {
        return Err(trouble);
    }
    if line != b"NAK" && !line.starts_with(b"ACK ") {
        return Err(Trouble::Strange(harmless(line)));
    }
    read_side_bands(reader, store)?;
    Ok(boundary)
}

fn read_side_bands<R: Read>(
    reader: &mut PktReader<R>,
    store: &mut dyn Write,
) -> Result<(), Trouble> {
    loop {
        match reader.next()? {
            Pkt::Flush => return Ok(()),
            Pkt::Data([1, pack @ ..]) => store.write_all(pack).map_err(Trouble::Store)?,
            Pkt::Data([2, ..] | [b'A', b'C', b'K', b' ', ..])
            | Pkt::Delimiter
            | Pkt::ResponseEnd => {}
            Pkt::Data([3, words @ ..]) => return Err(Trouble::Said(harmless(words))),
            Pkt::Data(line) => {
                return Err(complaint(line).unwrap_or_else(|| Trouble::Strange(harmless(line))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> Revision {
        digit.to_string().repeat(40).parse().unwrap()
    }

    fn frames(lines: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in lines {
            match *line {
                "0000" | "0001" => bytes.extend_from_slice(line.as_bytes()),
                line => push(&mut bytes, line),
            }
        }
        bytes
    }

    #[test]
    fn a_v2_request_says_all_at_once() {
        let request = Request {
            wants: vec![id('1')],
            haves: vec![id('2')],
            shallow: vec![id('2')],
            depth: Some(1),
            commits_only: false,
        };
        let body = String::from_utf8(fetch_v2(&request)).unwrap();
        let (one, two) = (id('1'), id('2'));
        for part in [
            "0012command=fetch",
            "object-format=sha10001",
            &format!("0035shallow {two}\n"),
            "000ddeepen 1\n",
            &format!("0032want {one}\n"),
            &format!("0032have {two}\n0009done\n0000"),
        ] {
            assert!(body.contains(part), "{part} in {body}");
        }
    }

    #[test]
    fn a_v2_answer_with_boundary_and_pack() {
        let shallow = format!("shallow {}\n", id('1'));
        let bytes = frames(&[
            "shallow-info\n",
            &shallow,
            "0001",
            "packfile\n",
            "\u{1}PA",
            "\u{2}counting",
            "\u{1}CK",
            "0000",
        ]);
        let mut pack = Vec::new();
        let boundary = read_pack_v2(&mut PktReader::new(bytes.as_slice()), &mut pack).unwrap();
        assert_eq!(boundary, Boundary { shallow: vec![id('1')], unshallow: vec![] });
        assert_eq!(pack, b"PACK");
        let cut = &bytes[..bytes.len() - 4];
        let trouble = read_pack_v2(&mut PktReader::new(cut), &mut Vec::new()).unwrap_err();
        assert!(matches!(trouble, Trouble::Read(_)), "without the flush it is no success");
    }

    #[test]
    fn the_servers_words_come_through() {
        let read = |lines: &[&str]| {
            let bytes = frames(lines);
            read_pack_v2(&mut PktReader::new(bytes.as_slice()), &mut Vec::new()).unwrap_err()
        };
        for lines in [
            ["ERR upload-pack: not our ref", "0000"].as_slice(),
            &["packfile\n", "\u{3}upload-pack: not our ref", "0000"],
            &["packfile\n", "ERR upload-pack: not our ref", "0000"],
            &["shallow-info\n", "ERR upload-pack: not our ref", "0000"],
        ] {
            let Trouble::Said(words) = read(lines) else { panic!("{lines:?}") };
            assert_eq!(words, "upload-pack: not our ref");
        }
        let html = read_pack_v2(&mut PktReader::new(b"<html>hello".as_slice()), &mut Vec::new());
        assert!(matches!(html, Err(Trouble::Strange(text)) if text.starts_with("<html>hello")));
    }

    #[test]
    fn a_v0_greeting_with_tags() {
        let (one, two, three) = (id('1'), id('2'), id('3'));
        let bytes = frames(&[
            "# service=git-upload-pack\n",
            "0000",
            &format!("{one} HEAD\0side-band-64k shallow agent=git/2 allow-tip-sha1-in-want\n"),
            &format!("{one} refs/heads/main\n"),
            &format!("{two} refs/tags/v1\n"),
            &format!("{three} refs/tags/v1^{{}}\n"),
            "0000",
        ]);
        let Greeting::V0(found) = greeting(&mut PktReader::new(bytes.as_slice()), true).unwrap()
        else {
            panic!("version 0")
        };
        assert_eq!(found.refs.len(), 3);
        assert_eq!(found.refs[2].peeled, Some(three));
        assert!(found.can_shallow() && found.serves(id('9')));
        let empty = frames(&[&format!("{} capabilities^{{}}\0side-band-64k\n", id('0')), "0000"]);
        let Greeting::V0(found) = greeting(&mut PktReader::new(empty.as_slice()), false).unwrap()
        else {
            panic!("version 0")
        };
        assert_eq!(found.refs, []);
        assert!(!found.serves(one));
    }

    #[test]
    fn a_v2_greeting_and_list() {
        let bytes = frames(&["version 2\n", "ls-refs=unborn\n", "fetch=shallow\n", "0000"]);
        let hello = greeting(&mut PktReader::new(bytes.as_slice()), false).unwrap();
        assert!(matches!(hello, Greeting::V2 { filter: false }));
        let sha256 = frames(&["version 2\n", "object-format=sha256\n", "0000"]);
        let refused = greeting(&mut PktReader::new(sha256.as_slice()), false).unwrap_err();
        assert!(matches!(refused, Trouble::Said(_)));
        let bytes = frames(&[
            &format!("{} refs/heads/main\n", id('1')),
            &format!("{} refs/tags/v1 peeled:{}\n", id('2'), id('1')),
            "0000",
        ]);
        let refs = read_list_v2(&mut PktReader::new(bytes.as_slice())).unwrap();
        assert_eq!(refs[1].peeled, Some(id('1')));
    }
}
