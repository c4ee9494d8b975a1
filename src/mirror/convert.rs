//! What git does to a file's content between repository and disk: `ident`, line ends,
//! `working-tree-encoding`.

use gix_attributes::StateRef;

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

    /// The content with these line ends; `None` if it stays as it is.
    pub(super) fn apply(self, content: &[u8]) -> Option<Vec<u8>> {
        let seen = Statistics::of(content);
        if seen.lone_lf == 0 {
            return None;
        }
        if self == Self::CrlfIfText && (seen.lone_cr > 0 || seen.crlf > 0 || seen.is_binary()) {
            return None;
        }
        let mut converted = Vec::with_capacity(content.len() + seen.lone_lf);
        let mut last = 0;
        for &byte in content {
            if byte == b'\n' && last != b'\r' {
                converted.push(b'\r');
            }
            converted.push(byte);
            last = byte;
        }
        Some(converted)
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

/// The content with `$Id$` (and `$Id: … $` of an earlier time) filled in.
pub(super) fn ident(content: &[u8], id: &str) -> Vec<u8> {
    let mut filled = Vec::with_capacity(content.len() + 64);
    let mut rest = content;
    while let Some(dollar) = rest.iter().position(|b| *b == b'$') {
        let (before, after) = rest.split_at(dollar + 1);
        filled.extend_from_slice(before);
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
        filled.extend_from_slice(b"Id: ");
        filled.extend_from_slice(id.as_bytes());
        filled.extend_from_slice(b" $");
    }
    filled.extend_from_slice(rest);
    filled
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

    /// The content in this encoding; `None` if it is not UTF-8 or does not fit: it then
    /// stays as it is, with a warning, as git does.
    pub(super) fn apply(self, content: &[u8]) -> Option<Vec<u8>> {
        if content.is_empty() {
            return Some(Vec::new());
        }
        let text = std::str::from_utf8(content).ok()?;
        let mut out = Vec::with_capacity(content.len() * 2);
        match self {
            Self::Utf16 { big, mark } => {
                let marks = mark.then_some(0xfeff_u16).into_iter();
                for unit in marks.chain(text.encode_utf16()) {
                    out.extend(if big { unit.to_be_bytes() } else { unit.to_le_bytes() });
                }
            }
            Self::Utf32 { big, mark } => {
                let marks = mark.then_some(0xfeff_u32).into_iter();
                for unit in marks.chain(text.chars().map(u32::from)) {
                    out.extend(if big { unit.to_be_bytes() } else { unit.to_le_bytes() });
                }
            }
            Self::Latin1 => {
                for character in text.chars() {
                    out.push(u8::try_from(u32::from(character)).ok()?);
                }
            }
        }
        Some(out)
    }
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
            assert_eq!(String::from_utf8(ident(content.as_bytes(), "1")).unwrap(), filled);
        }
    }

    #[test]
    fn line_ends() {
        assert_eq!(Eol::Crlf.apply(b"a\nb\r\nc\n").unwrap(), b"a\r\nb\r\nc\r\n");
        assert_eq!(Eol::Crlf.apply(b"a\r\n"), None);
        assert_eq!(Eol::CrlfIfText.apply(b"a\nb\r\n"), None);
        assert_eq!(Eol::CrlfIfText.apply(b"a\n\0"), None);
        assert_eq!(Eol::CrlfIfText.apply(b"a\n\x1a").unwrap(), b"a\r\n\x1a");
    }

    #[test]
    fn encodings_by_their_names() {
        let utf16 = Encoding::named("utf16").unwrap().unwrap();
        assert_eq!(utf16.apply("ä".as_bytes()).unwrap(), [0xff, 0xfe, 0xe4, 0]);
        assert_eq!(utf16.apply(b""), Some(vec![]));
        assert_eq!(utf16.apply(b"\xff"), None);
        let latin = Encoding::named("iso-8859-1").unwrap().unwrap();
        assert_eq!(latin.apply("ä".as_bytes()).unwrap(), [0xe4]);
        assert_eq!(latin.apply("€".as_bytes()), None);
        assert_eq!(Encoding::named("Utf-8"), Some(None));
        assert_eq!(Encoding::named("EBCDIC"), None);
    }
}
