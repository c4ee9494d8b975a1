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

#[cfg(test)]
mod tests;
mod text;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use libyaml_safer::{Encoding, Event, EventData, Parser, ScalarStyle};

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
    let mut text = text::decode(text)?.into_owned();
    text::directives(&text)?;
    let open_end = text::end_line(&mut text);
    let mut input = text.as_bytes();
    let mut parser = Parser::new();
    parser.set_encoding(Encoding::Utf8);
    parser.set_input_string(&mut input);
    let mut composer = Composer {
        parser,
        open_end,
        anchors: HashMap::new(),
        nodes: 0,
        at: Position { line: 1, column: 1 },
    };
    match quietly(|| composer.document()) {
        Some(result) => result,
        None => Err(ParseError {
            at: composer.at,
            message: "what follows cannot be read; a tag like `!x` needs a space before a comma"
                .to_owned(),
        }),
    }
}

thread_local! {
    /// Whether this thread is in [`quietly`].
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs the scanner; a panic in it is `None` and prints nothing.
///
/// The scanner has a panic that input reaches: a tag directly before a comma inside
/// brackets (`[!x, 1]`). Telling beforehand where a `!` begins a tag takes a scanner, so
/// there is nothing to check for; and since this is read as root from repositories, what
/// was not found by feeding it some hundred million damaged files had better be an error
/// as well. It is code without `unsafe` that is thrown away after a panic, hence nothing
/// broken is seen afterwards. (The translations of libyaml that keep its pointers do not
/// panic, they do what C does.)
fn quietly<T>(run: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                others(info);
            }
        }));
    });
    QUIET.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    QUIET.set(false);
    result.ok()
}

struct Composer<'r> {
    parser: Parser<&'r mut &'r [u8]>,
    /// The size of the text if its last line was ended by [`text::end_line`].
    open_end: Option<u64>,
    /// `None` while the anchored node is still being read.
    anchors: HashMap<String, Option<Anchored>>,
    nodes: usize,
    /// Where the last event ended.
    at: Position,
}

/// What an alias stands for.
struct Anchored {
    node: Node,
    /// Nodes in it, as [`Composer::count`] counts.
    size: usize,
    /// Levels in it.
    height: usize,
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
        let event = self.parser.parse().map_err(|e| ParseError {
            at: e.problem_mark().map_or(self.at, position),
            message: match e.context() {
                Some(context) if !context.is_empty() => format!("{context}, {}", e.problem()),
                _ => e.problem().to_owned(),
            },
        })?;
        self.at = position(event.end_mark);
        Ok(event)
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
                    Some(Some(anchored)) if depth + anchored.height > MAX_DEPTH => {
                        refuse(format!("nested more than {MAX_DEPTH} levels deep"))
                    }
                    Some(Some(Anchored { node, size, .. })) => {
                        count(&mut self.nodes, *size, at)?;
                        Ok(node.clone())
                    }
                    Some(None) => refuse(format!("alias `*{anchor}` stands inside its own anchor")),
                    None => refuse(format!("alias `*{anchor}` has no anchor before it")),
                };
            }
            EventData::Scalar { anchor, tag, mut value, style, .. } => {
                self.count(value.len() / 32, at)?;
                let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                let whole = self.open_end.is_some_and(|size| event.end_mark.index > size);
                if block && whole && value.ends_with('\n') {
                    // This line break is not in the text.
                    value.pop();
                }
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
            // The copy that is kept counts too: anchors inside anchors would otherwise
            // cost the square of what they hold.
            let size = self.nodes - before;
            self.count(size, at)?;
            let height = node.height();
            self.anchors.insert(anchor, Some(Anchored { node: node.clone(), size, height }));
        }
        Ok(node)
    }

    fn open(&mut self, anchor: Option<&String>) {
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor.clone(), None);
        }
    }

    fn count(&mut self, more: usize, at: Position) -> Result<(), ParseError> {
        count(&mut self.nodes, more, at)
    }
}

fn count(nodes: &mut usize, more: usize, at: Position) -> Result<(), ParseError> {
    *nodes = nodes.saturating_add(more);
    if *nodes > MAX_NODES {
        return Err(ParseError {
            at,
            message: format!("the document has more than {MAX_NODES} nodes, aliases expanded"),
        });
    }
    Ok(())
}

/// Replaces merge keys (`<<: *defaults`) by what they bring. It comes before the mapping's
/// own entries and only where these do not have the key; of several mappings the first
/// that has a key wins. A `<<` with anything else than mappings is left as a key.
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
    let (merges, own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(k, v)| is_merge(k, v));
    let mut known: HashSet<String> =
        own.iter().filter_map(|(key, _)| key.text()).map(str::to_owned).collect();
    let mut all = Vec::new();
    let mut take = |node: Node| {
        if let Value::Map(entries) = node.value {
            // From the end, as the last of equal keys is the one that counts.
            for (key, value) in entries.into_iter().rev() {
                if key.text().is_none_or(|text| known.insert(text.to_owned())) {
                    all.push((key, value));
                }
            }
        }
    };
    for (_, value) in merges {
        match value.value {
            Value::List(items) => items.into_iter().for_each(&mut take),
            Value::Map(_) => take(value),
            Value::Scalar(_) => {}
        }
    }
    all.reverse();
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

    /// Levels below this one.
    fn height(&self) -> usize {
        let below = |node: &Self| node.height() + 1;
        match &self.value {
            Value::Scalar(_) => 0,
            Value::List(items) => items.iter().map(below).max().unwrap_or(0),
            Value::Map(entries) => {
                entries.iter().map(|(k, v)| below(k).max(below(v))).max().unwrap_or(0)
            }
        }
    }

    fn is_empty_scalar(&self) -> bool {
        self.tag.is_none()
            && matches!(&self.value, Value::Scalar(s) if s.plain && s.text.is_empty())
    }
}
