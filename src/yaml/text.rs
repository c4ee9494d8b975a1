//! From bytes to a text that the scanner can be given.

use std::borrow::Cow;

use crate::yaml::{ParseError, Position};

/// The text as UTF-8 without byte order mark and without characters that YAML forbids.
///
/// The scanner could do this itself, but it says at which byte and not in which line,
/// takes a first character that begins like a byte order mark for a broken one, and
/// reads UTF-16 wrongly.
pub(super) fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, ParseError> {
    let utf16 = |from: fn([u8; 2]) -> u16, bytes: &[u8]| {
        let (units, rest) = bytes.as_chunks::<2>();
        let mut text = String::new();
        for c in char::decode_utf16(units.iter().map(|unit| from(*unit))) {
            let Ok(c) = c else { return refuse_after(&text, "the text is not valid UTF-16") };
            text.push(c);
        }
        if rest.is_empty() {
            Ok(Cow::Owned(text))
        } else {
            refuse_after(&text, "the text is not valid UTF-16: it ends inside a character")
        }
    };
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(u16::from_le_bytes, rest)?,
        [0xfe, 0xff, rest @ ..] => utf16(u16::from_be_bytes, rest)?,
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => match std::str::from_utf8(rest) {
            Ok(text) => Cow::Borrowed(text),
            Err(e) => {
                let valid = rest.get(..e.valid_up_to()).unwrap_or_default();
                let valid = String::from_utf8_lossy(valid);
                return refuse_after(&valid, "the text is not valid UTF-8");
            }
        },
    };
    let forbidden = |c: char| !matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..);
    match text.char_indices().find(|(_, c)| forbidden(*c)) {
        Some((index, c)) => refuse_after(
            text.get(..index).unwrap_or_default(),
            &format!("the character U+{:04X} is not allowed in YAML", u32::from(c)),
        ),
        None => Ok(text),
    }
}

/// Bounds `%TAG` lines: the scanner compares each with all before it.
pub(super) fn directives(text: &str) -> Result<(), ParseError> {
    const MOST: usize = 100;
    match text.match_indices("%TAG").nth(MOST) {
        Some((index, _)) => refuse_after(
            text.get(..index).unwrap_or_default(),
            &format!("there are more than {MOST} `%TAG` directives"),
        ),
        None => Ok(()),
    }
}

/// Ends the last line, as the scanner panics on block scalars that end without a line
/// break. Returns the size of the text before that if it matters: if that line had
/// something on it, which may be the end of a block scalar.
pub(super) fn end_line(text: &mut String) -> Option<u64> {
    let breaks = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
    let line = text.rsplit(breaks).next().unwrap_or_default();
    if line.is_empty() {
        return None;
    }
    let size = u64::try_from(text.len()).ok().filter(|_| !line.trim_matches(' ').is_empty());
    text.push('\n');
    size
}

/// An error at the place where a text ends.
fn refuse_after<T>(before: &str, message: &str) -> Result<T, ParseError> {
    let mut at = Position { line: 1, column: 1 };
    let mut chars = before.chars().peekable();
    while let Some(c) = chars.next() {
        let line_break = match c {
            '\r' => chars.peek() != Some(&'\n'),
            '\n' | '\u{85}' | '\u{2028}' | '\u{2029}' => true,
            _ => false,
        };
        if line_break {
            at = Position { line: at.line + 1, column: 1 };
        } else {
            at.column += 1;
        }
    }
    Err(ParseError { at, message: message.to_owned() })
}
