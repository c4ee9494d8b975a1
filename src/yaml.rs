//! One YAML reader for everything this program reads: the manifest, the machine
//! file, appspecs and the agent's configuration.
//!
//! It yields a tree that remembers, for every node, *where* it stood and, for every
//! scalar, *how* it was written. Both are needed: errors name file, line and column,
//! and `release: 12345e6` has to stay the text it is. (`serde_yaml` gives neither; it
//! is used where only data is exchanged, see `ledger`.)
//!
//! The scanner is a port of libyaml, which is also what codedeploy-local 1.x reads
//! appspecs with, so that both accept the same files.

use std::collections::HashMap;
use std::fmt;

use libyaml_safer::{Event, EventData, Parser, ScalarStyle};

/// Nodes a document may have once its aliases are expanded, every 32 bytes of text
/// counted as one more. A manifest of 1,000 apps has about 20,000; "billion laughs"
/// documents stop here.
const MAX_NODES: usize = 200_000;
/// Levels of nesting.
const MAX_DEPTH: usize = 64;
/// Bytes of a document.
const MAX_BYTES: usize = 4 << 20;

/// A place in a YAML text. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A node with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub at: Position,
    /// Its explicit tag (`!!str`, `!ruby/object:X`), resolved, if it has one.
    pub tag: Option<String>,
    /// What it holds.
    pub value: Value,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text, not interpreted.
    Scalar(Scalar),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order of the text. Keys that occur twice are all here.
    Map(Vec<(Node, Node)>),
}

/// A scalar as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    /// The text, with quotes and escapes undone.
    pub text: String,
    /// True without quotes and not as a block (`|`, `>`): only then do words like
    /// `null`, `yes` or `0644` mean anything but themselves.
    pub plain: bool,
}

/// Why a text is not YAML that this program reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {message}")]
pub struct ParseError {
    /// Where it was noticed.
    pub at: Position,
    /// What is wrong.
    pub message: String,
}

/// The first document of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its root; `None` for an empty stream or an empty document.
    pub root: Option<Node>,
    /// Where a second document begins, if there is one. It is not read.
    pub second: Option<Position>,
}

/// Reads the first document of `text` (UTF-8, or UTF-16 with a byte order mark).
///
/// Aliases are replaced by what they stand for; the number of nodes, their depth and
/// the size of the text are bounded.
///
/// # Errors
/// Text that is not YAML, an alias without anchor or inside its own anchor, or a
/// document beyond the bounds.
pub fn parse(text: &[u8]) -> Result<Document, ParseError> {
    if text.len() > MAX_BYTES {
        return Err(ParseError {
            at: Position { line: 1, column: 1 },
            message: format!("the file has {} bytes; at most {MAX_BYTES} are read", text.len()),
        });
    }
    let mut input = text;
    let mut parser = Parser::new();
    parser.set_input_string(&mut input);
    let mut composer = Composer { parser, anchors: HashMap::new(), nodes: 0 };
    composer.document()
}

struct Composer<'r> {
    parser: Parser<&'r mut &'r [u8]>,
    /// `None` while the anchored node is still being read.
    anchors: HashMap<String, Option<(Node, usize)>>,
    nodes: usize,
}

impl Composer<'_> {
    fn document(&mut self) -> Result<Document, ParseError> {
        let mut root = None;
        let mut documents = 0;
        loop {
            let event = self.next()?;
            let at = position(event.start_mark);
            match event.data {
                EventData::StreamEnd => return Ok(Document { root, second: None }),
                EventData::DocumentStart { .. } => {
                    documents += 1;
                    if documents > 1 {
                        return Ok(Document { root, second: Some(at) });
                    }
                }
                EventData::StreamStart { .. } | EventData::DocumentEnd { .. } => {}
                EventData::Alias { .. }
                | EventData::Scalar { .. }
                | EventData::SequenceStart { .. }
                | EventData::SequenceEnd
                | EventData::MappingStart { .. }
                | EventData::MappingEnd => {
                    let node = self.node(event, 0)?;
                    // libyaml gives an empty document as an empty plain scalar.
                    root = (!node.is_empty_scalar()).then_some(node);
                }
            }
        }
    }

    fn next(&mut self) -> Result<Event, ParseError> {
        self.parser.parse().map_err(|e| ParseError {
            at: e.problem_mark().map_or(Position { line: 1, column: 1 }, position),
            message: match e.context() {
                Some(context) if !context.is_empty() => format!("{context}, {}", e.problem()),
                _ => e.problem().to_owned(),
            },
        })
    }

    fn node(&mut self, event: Event, depth: usize) -> Result<Node, ParseError> {
        let at = position(event.start_mark);
        let refuse = |message: String| Err(ParseError { at, message });
        if depth > MAX_DEPTH {
            return refuse(format!("nested more than {MAX_DEPTH} levels deep"));
        }
        self.count(1, at)?;
        let before = self.nodes;
        let (anchor, tag, value) = match event.data {
            EventData::Alias { anchor } => {
                return match self.anchors.get(&anchor) {
                    Some(Some((node, size))) => {
                        let (node, size) = (node.clone(), *size);
                        self.count(size, at)?;
                        Ok(node)
                    }
                    Some(None) => refuse(format!("alias `*{anchor}` stands inside its own anchor")),
                    None => refuse(format!("alias `*{anchor}` has no anchor before it")),
                };
            }
            EventData::Scalar { anchor, tag, value, style, .. } => {
                self.count(value.len() / 32, at)?;
                let plain = style == ScalarStyle::Plain;
                (anchor, tag, Value::Scalar(Scalar { text: value, plain }))
            }
            EventData::SequenceStart { anchor, tag, .. } => {
                self.open(anchor.as_ref());
                let mut items = Vec::new();
                loop {
                    let event = self.next()?;
                    if matches!(event.data, EventData::SequenceEnd) {
                        break;
                    }
                    items.push(self.node(event, depth + 1)?);
                }
                (anchor, tag, Value::List(items))
            }
            EventData::MappingStart { anchor, tag, .. } => {
                self.open(anchor.as_ref());
                let mut entries = Vec::new();
                loop {
                    let event = self.next()?;
                    if matches!(event.data, EventData::MappingEnd) {
                        break;
                    }
                    let key = self.node(event, depth + 1)?;
                    let event = self.next()?;
                    entries.push((key, self.node(event, depth + 1)?));
                }
                let entries = merge(entries);
                (anchor, tag, Value::Map(entries))
            }
            EventData::StreamStart { .. }
            | EventData::StreamEnd
            | EventData::DocumentStart { .. }
            | EventData::DocumentEnd { .. }
            | EventData::SequenceEnd
            | EventData::MappingEnd => return refuse("the document ends too early".to_owned()),
        };
        let node = Node { at, tag, value };
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor, Some((node.clone(), self.nodes - before)));
        }
        Ok(node)
    }

    fn open(&mut self, anchor: Option<&String>) {
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor.clone(), None);
        }
    }

    fn count(&mut self, nodes: usize, at: Position) -> Result<(), ParseError> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(ParseError {
                at,
                message: format!("the document has more than {MAX_NODES} nodes, aliases expanded"),
            });
        }
        Ok(())
    }
}

/// Replaces merge keys (`<<: *defaults`) by what they bring. It comes before the mapping's
/// own entries, so that these win; of several mappings the first wins.
fn merge(entries: Vec<(Node, Node)>) -> Vec<(Node, Node)> {
    let is_merge = |key: &Node, value: &Node| {
        let plain = matches!(&key.value, Value::Scalar(s) if s.plain && s.text == "<<");
        let maps = match &value.value {
            Value::Map(_) => true,
            Value::List(items) => items.iter().all(|item| item.entries().is_some()),
            Value::Scalar(_) => false,
        };
        plain && key.tag.is_none() && maps
    };
    if !entries.iter().any(|(key, value)| is_merge(key, value)) {
        return entries;
    }
    let (merged, own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(k, v)| is_merge(k, v));
    let mut all = Vec::new();
    for (_, value) in merged {
        match value.value {
            Value::Map(entries) => all.extend(entries),
            Value::List(items) => {
                for item in items.into_iter().rev() {
                    if let Value::Map(entries) = item.value {
                        all.extend(entries);
                    }
                }
            }
            Value::Scalar(_) => {}
        }
    }
    // What is overridden is dropped: a reader that lists keys would see it twice.
    all.retain(|(key, _)| key.text().is_none() || !own.iter().any(|(o, _)| o.text() == key.text()));
    all.extend(own);
    all
}

fn position(mark: libyaml_safer::Mark) -> Position {
    let count = |n: u64| u32::try_from(n.saturating_add(1)).unwrap_or(u32::MAX);
    Position { line: count(mark.line), column: count(mark.column) }
}

impl Node {
    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The entries of a mapping.
    pub fn entries(&self) -> Option<&[(Self, Self)]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            Value::Scalar(_) | Value::List(_) => None,
        }
    }

    /// The items of a sequence.
    pub fn items(&self) -> Option<&[Self]> {
        match &self.value {
            Value::List(items) => Some(items),
            Value::Scalar(_) | Value::Map(_) => None,
        }
    }

    /// The value of a mapping's key; of several, the last, as Ruby and Python have it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries()?.iter().rev().find(|(k, _)| k.text() == Some(key)).map(|(_, v)| v)
    }

    /// Whether this is YAML's null: `~`, `null` in its three spellings, or nothing at all.
    pub fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar(Scalar { text, plain: true }) => {
                self.tag.is_none() && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            Value::Scalar(_) | Value::List(_) | Value::Map(_) => false,
        }
    }

    /// What kind of thing this is, for messages: "a list", "a mapping", "a text", "nothing".
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Scalar(_) if self.is_null() => "nothing",
            Value::Scalar(_) => "a text",
        }
    }

    fn is_empty_scalar(&self) -> bool {
        self.tag.is_none()
            && matches!(&self.value, Value::Scalar(s) if s.plain && s.text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(text: &str) -> Node {
        parse(text.as_bytes()).unwrap().root.unwrap()
    }

    #[test]
    fn scalars_keep_their_text_and_place() {
        let node = root("version: 1.0\napps:\n  - release: 12345e6\n    name: 'x'\n");
        let release = node.get("apps").unwrap().items().unwrap()[0].get("release").unwrap();
        assert_eq!(release.text(), Some("12345e6"));
        assert_eq!(release.at, Position { line: 3, column: 14 });
        let name = node.get("apps").unwrap().items().unwrap()[0].get("name").unwrap();
        assert_eq!(name.value, Value::Scalar(Scalar { text: "x".into(), plain: false }));
    }

    #[test]
    fn only_the_first_document_counts_and_the_second_is_named() {
        let doc = parse(b"a: 1\n---\nb: 2\n").unwrap();
        assert!(doc.root.unwrap().get("a").is_some());
        assert_eq!(doc.second, Some(Position { line: 2, column: 1 }));
        assert_eq!(parse(b"").unwrap().root, None);
        assert_eq!(parse(b"---\n").unwrap().root, None);
        assert_eq!(parse(b"# only a comment\n").unwrap().root, None);
    }

    #[test]
    fn aliases_are_expanded_and_bombs_refused() {
        let node = root("a: &x [1, 2]\nb: *x\n");
        assert_eq!(node.get("b").unwrap().items().unwrap().len(), 2);
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..10 {
            let refs = vec![format!("*a{}", i - 1); 10].join(",");
            bomb += &format!("a{i}: &a{i} [{refs}]\n");
        }
        assert!(parse(bomb.as_bytes()).unwrap_err().message.contains("more than"));
        assert!(parse(b"a: &a [*a]").unwrap_err().message.contains("inside its own"));
        assert!(parse(b"a: *b").unwrap_err().message.contains("no anchor"));
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert!(parse(deep.as_bytes()).unwrap_err().message.contains("levels"));
    }

    #[test]
    fn merge_keys_bring_what_the_mapping_does_not_have() {
        let node =
            root("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], z: 3}\nd: {<<: 5}\n");
        let merged = node.get("c").unwrap();
        let show = |key: &str| merged.get(key).and_then(Node::text);
        assert_eq!([show("x"), show("y"), show("z")], [Some("1"), Some("1"), Some("3")]);
        assert!(merged.get("<<").is_none());
        assert!(node.get("d").unwrap().get("<<").is_some());
    }

    #[test]
    fn errors_have_a_place() {
        let e = parse(b"a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert_eq!(e.at.line, 3);
        let e = parse(b"a: b: c\n").unwrap_err();
        assert_eq!((e.at.line, e.at.column), (1, 5));
    }
}
