//! What git does to a file's content between repository and disk: `ident`, line ends,
//! `working-tree-encoding`.

use gix_attributes::StateRef;

use super::spill::Output;

/// Line ends on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Eol {
    /// CRLF, whatever the content.
    Crlf,
    /// CRLF, if it looks like text and has LF alone everywhere.
    CrlfIfText,
}

impl Eol {
    /// From the attributes `text`, `crlf` (its older name) and `eol`.
    pub(super) fn from_attributes(
        text: StateRef<'_>,
        crlf: StateRef<'_>,
        eol: StateRef<'_>,
    ) -> Option<Self> {
        #[derive(Clone, Copy, PartialEq)]
        enum Text {
            Yes,
            No,
            Auto,
            Unknown,
        }
        let read = |state: StateRef<'_>| match state {
            StateRef::Set => Text::Yes,
            StateRef::Unset => Text::No,
            StateRef::Value(value) if *value.as_bstr() == "auto" => Text::Auto,
            StateRef::Value(value) if *value.as_bstr() == "input" => Text::Yes,
            StateRef::Value(_) | StateRef::Unspecified => Text::Unknown,
        };
        let kind = match read(text) {
            Text::Unknown => read(crlf),
            known => known,
        };
        let wants_crlf = matches!(eol, StateRef::Value(value) if *value.as_bstr() == "crlf");
        match kind {
            Text::No => None,
            _ if !wants_crlf => None,
            Text::Auto => Some(Self::CrlfIfText),
            Text::Yes | Text::Unknown => Some(Self::Crlf),
        }
    }

    /// Whether the content does not stay as it is.
    pub(super) fn changes(self, content: &[u8]) -> bool {
        let seen = Statistics::of(content);
        let left =
            self == Self::CrlfIfText && (seen.lone_cr > 0 || seen.crlf > 0 || seen.is_binary());
        seen.lone_lf > 0 && !left
    }
}

/// Writes the content with CRLF instead of each LF alone.
pub(super) fn with_crlf(content: &[u8], out: &mut dyn Output) {
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        match line {
            [before @ .., b'\n'] if before.last() != Some(&b'\r') => {
                out.put(before);
                out.put(b"\r\n");
            }
            _ => out.put(line),
        }
    }
}

/// What git counts to tell text from other things.
#[derive(Default)]
struct Statistics {
    nul: usize,
    lone_cr: usize,
    lone_lf: usize,
    crlf: usize,
    printable: usize,
    other: usize,
}

impl Statistics {
    fn of(content: &[u8]) -> Self {
        let mut seen = Self::default();
        let mut bytes = content.iter().peekable();
        while let Some(&byte) = bytes.next() {
            match byte {
                b'\r' if bytes.next_if_eq(&&b'\n').is_some() => seen.crlf += 1,
                b'\r' => seen.lone_cr += 1,
                b'\n' => seen.lone_lf += 1,
                0 => {
                    seen.nul += 1;
                    seen.other += 1;
                }
                8 | 9 | 12 | 27 => seen.printable += 1,
                1..32 | 127 => seen.other += 1,
                _ => seen.printable += 1,
            }
        }
        // An end-of-file mark of old is not held against a text.
        if content.last() == Some(&26) {
            seen.other -= 1;
        }
        seen
    }

    fn is_binary(&self) -> bool {
        self.lone_cr > 0 || self.nul > 0 || self.printable >> 7 < self.other
    }
}

/// Writes the content with `$Id$` (and `$Id: … $` of an earlier time) filled in.
pub(super) fn ident(content: &[u8], id: &str, out: &mut dyn Output) {
    let mut rest = content;
    while let Some(dollar) = rest.iter().position(|b| *b == b'$') {
        let (before, after) = rest.split_at(dollar + 1);
        out.put(before);
        rest = after;
        let Some(keyword) = rest.strip_prefix(b"Id") else { continue };
        rest = match keyword.first() {
            Some(b'$') => &keyword[1..],
            Some(b':') => {
                let value = &keyword[1..];
                let Some(end) = value.iter().position(|b| *b == b'$') else { break };
                let value = &value[..end];
                // Another program's, when there is a space within it.
                let foreign = value.iter().skip(1).position(|b| *b == b' ');
                if value.contains(&b'\n') || foreign.is_some_and(|at| at + 2 < value.len()) {
                    continue;
                }
                &keyword[end + 2..]
            }
            _ => continue,
        };
        out.put(b"Id: ");
        out.put(id.as_bytes());
        out.put(b" $");
    }
    out.put(rest);
}

/// An encoding of files on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Each character as one or two 16-bit units.
    Utf16 {
        /// The most significant byte first.
        big: bool,
        /// A mark in front that says so.
        mark: bool,
    },
    /// Each character as one 32-bit unit.
    Utf32 {
        /// The most significant byte first.
        big: bool,
        /// A mark in front that says so.
        mark: bool,
    },
    /// One byte for each of the first 256 characters.
    Latin1,
}

impl Encoding {
    /// By the name git knows it by; the inner `None` is UTF-8, which stays as it is.
    #[expect(clippy::option_option, reason = "the outer is whether it is known at all")]
    pub(super) fn named(name: &str) -> Option<Option<Self>> {
        let name = name.to_ascii_uppercase();
        let name = name
            .strip_prefix("UTF")
            .map_or(name.clone(), |rest| format!("UTF-{}", rest.strip_prefix('-').unwrap_or(rest)));
        let utf16 = |big, mark| Self::Utf16 { big, mark };
        let utf32 = |big, mark| Self::Utf32 { big, mark };
        Some(Some(match name.as_str() {
            "UTF-8" => return Some(None),
            "UTF-16" | "UTF-16LE-BOM" => utf16(false, true),
            "UTF-16BE-BOM" => utf16(true, true),
            "UTF-16LE" => utf16(false, false),
            "UTF-16BE" => utf16(true, false),
            "UTF-32" => utf32(false, true),
            "UTF-32LE" => utf32(false, false),
            "UTF-32BE" => utf32(true, false),
            "ISO-8859-1" | "ISO8859-1" | "LATIN1" | "LATIN-1" => Self::Latin1,
            _ => return None,
        }))
    }

    /// The content as text that fits into this encoding. What is not UTF-8 or does not fit stays
    /// as it is, with a warning, as git does.
    pub(super) fn takes(self, content: &[u8]) -> Option<&str> {
        let text = std::str::from_utf8(content).ok()?;
        (self != Self::Latin1 || text.chars().all(|c| u8::try_from(c).is_ok())).then_some(text)
    }

    /// Writes the text in this encoding.
    pub(super) fn encode(self, text: &str, out: &mut dyn Output) {
        if text.is_empty() {
            return;
        }
        match self {
            Self::Utf16 { big, mark } => {
                let marks = mark.then_some(0xfeff_u16).into_iter();
                let units = marks.chain(text.encode_utf16());
                in_pieces(units.map(|u| if big { u.to_be_bytes() } else { u.to_le_bytes() }), out);
            }
            Self::Utf32 { big, mark } => {
                let marks = mark.then_some(0xfeff_u32).into_iter();
                let units = marks.chain(text.chars().map(u32::from));
                in_pieces(units.map(|u| if big { u.to_be_bytes() } else { u.to_le_bytes() }), out);
            }
            // All fit: see `takes`.
            Self::Latin1 => {
                in_pieces(text.chars().filter_map(|c| Some([u8::try_from(c).ok()?])), out);
            }
        }
    }
}

/// Writes many small things as a few large ones.
fn in_pieces<const N: usize>(units: impl Iterator<Item = [u8; N]>, out: &mut dyn Output) {
    const PIECE: usize = 8 << 10;
    let mut piece = Vec::with_capacity(PIECE);
    for unit in units {
        piece.extend_from_slice(&unit);
        if piece.len() >= PIECE {
            out.put(&piece);
            piece.clear();
        }
    }
    out.put(&piece);
}

/// Whether a small file stands for content that is kept elsewhere by Git LFS.
pub(super) fn is_lfs_pointer(content: &[u8]) -> bool {
    content.len() < 1024
        && content.starts_with(b"version https://git-lfs.github.com/spec/")
        && content.windows(11).any(|part| part == b"oid sha256:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_filled_in_but_not_those_of_others() {
        for (content, filled) in [
            ("$Id$", "$Id: 1 $"),
            ("a $Id: old $ b $Id$", "a $Id: 1 $ b $Id: 1 $"),
            ("$Id:$", "$Id: 1 $"),
            ("$Id: a b c $", "$Id: a b c $"),
            ("$Id: a\nb $", "$Id: a\nb $"),
            ("$Id: open", "$Id: open"),
            ("$Ident$ $", "$Ident$ $"),
            ("$$Id$$", "$$Id: 1 $$"),
        ] {
            let mut out = Vec::new();
            ident(content.as_bytes(), "1", &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), filled);
        }
    }

    #[test]
    fn line_ends() {
        let apply = |eol: Eol, content: &[u8]| {
            let mut out = Vec::new();
            with_crlf(content, &mut out);
            eol.changes(content).then_some(out)
        };
        assert_eq!(apply(Eol::Crlf, b"a\nb\r\nc\n").unwrap(), b"a\r\nb\r\nc\r\n");
        assert_eq!(apply(Eol::Crlf, b"\n\n\r\n\r").unwrap(), b"\r\n\r\n\r\n\r");
        assert_eq!(apply(Eol::Crlf, b"a\r\n"), None);
        assert_eq!(apply(Eol::CrlfIfText, b"a\nb\r\n"), None);
        assert_eq!(apply(Eol::CrlfIfText, b"a\n\0"), None);
        assert_eq!(apply(Eol::CrlfIfText, b"a\n\x1a").unwrap(), b"a\r\n\x1a");
    }

    #[test]
    fn encodings_by_their_names() {
        let apply = |encoding: Encoding, content: &[u8]| {
            let mut out = Vec::new();
            encoding.encode(encoding.takes(content)?, &mut out);
            Some(out)
        };
        let utf16 = Encoding::named("utf16").unwrap().unwrap();
        assert_eq!(apply(utf16, "ä".as_bytes()).unwrap(), [0xff, 0xfe, 0xe4, 0]);
        assert_eq!(apply(utf16, b""), Some(vec![]));
        assert_eq!(apply(utf16, b"\xff"), None);
        let long = apply(utf16, "a".repeat(10_000).as_bytes()).unwrap();
        assert_eq!((long.len(), &long[19_998..]), (20_002, &[b'a', 0, b'a', 0][..]));
        let latin = Encoding::named("iso-8859-1").unwrap().unwrap();
        assert_eq!(apply(latin, "ä".as_bytes()).unwrap(), [0xe4]);
        assert_eq!(apply(latin, "€".as_bytes()), None);
        assert_eq!(Encoding::named("Utf-8"), Some(None));
        assert_eq!(Encoding::named("EBCDIC"), None);
    }
}
