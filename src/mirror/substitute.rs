//! `export-subst`: `$Format:…$` becomes facts about the commit.

use git2::{Commit, Time};

use super::spill::Output;

/// What is known of the commit.
pub(super) struct Facts {
    commit: [String; 2],
    tree: [String; 2],
    parents: [String; 2],
    author: Person,
    committer: Person,
    /// As it is in the commit.
    message: Vec<u8>,
}

struct Person {
    name: Vec<u8>,
    email: Vec<u8>,
    when: Time,
}

const OPEN: &[u8] = b"$Format:";
/// Bytes that a file may grow by: two characters can ask for the whole message, again and again.
pub(super) const MOST_FILLED: usize = 16 << 20;

/// A file would grow by more than [`MOST_FILLED`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMuch;

impl Facts {
    /// Those of a commit. Short ids have seven digits, or as many as it takes to tell them
    /// apart in the mirror.
    pub(super) fn of(commit: &Commit<'_>) -> Result<Self, git2::Error> {
        let short = |object: &git2::Object<'_>| {
            let short = object.short_id();
            short.map_or_else(
                |_| object.id().to_string()[..7].to_owned(),
                |buffer| String::from_utf8_lossy(&buffer).into_owned(),
            )
        };
        let person = |signature: &git2::Signature<'_>| Person {
            name: signature.name_bytes().to_vec(),
            email: signature.email_bytes().to_vec(),
            when: signature.when(),
        };
        let parents: Vec<_> = commit.parent_ids().map(|id| id.to_string()).collect();
        let short_parents: Vec<_> = parents.iter().map(|id| id[..7].to_owned()).collect();
        Ok(Self {
            commit: [commit.id().to_string(), short(commit.as_object())],
            tree: [commit.tree_id().to_string(), short(commit.tree()?.as_object())],
            parents: [parents.join(" "), short_parents.join(" ")],
            author: person(&commit.author()),
            committer: person(&commit.committer()),
            message: commit.message_raw_bytes().to_vec(),
        })
    }

    /// Writes a file that is filled in; the answer is whether something in it is not known and
    /// stayed.
    pub(super) fn fill(&self, content: &[u8], out: &mut dyn Output) -> Result<bool, TooMuch> {
        let most = content.len() + MOST_FILLED;
        let mut rest = content;
        let mut all_known = true;
        while let Some(at) = find(rest, OPEN) {
            let format = &rest[at + OPEN.len()..];
            let Some(end) = format.iter().position(|b| *b == b'$') else { break };
            out.put(&rest[..at]);
            all_known &= self.expand(&format[..end], out, most)?;
            rest = &format[end + 1..];
        }
        out.put(rest);
        Ok(!all_known)
    }

    fn expand(&self, format: &[u8], out: &mut dyn Output, most: usize) -> Result<bool, TooMuch> {
        let mut rest = format;
        let mut all_known = true;
        while let Some(at) = rest.iter().position(|b| *b == b'%') {
            out.put(&rest[..at]);
            rest = &rest[at..];
            if out.written().len() > most {
                return Err(TooMuch);
            }
            if let Some(length) = self.placeholder(&rest[1..], out) {
                rest = &rest[1 + length..];
            } else {
                all_known = false;
                out.put(b"%");
                rest = &rest[1..];
            }
        }
        out.put(rest);
        if out.written().len() > most { Err(TooMuch) } else { Ok(all_known) }
    }

    /// Writes what stands for the placeholder at the beginning of `format`, and answers its
    /// length.
    fn placeholder(&self, format: &[u8], out: &mut dyn Output) -> Option<usize> {
        if let [magic @ (b' ' | b'+' | b'-'), rest @ ..] = format {
            return self.with_magic(*magic, rest, out);
        }
        let mut put = |text: &[u8], length| {
            out.put(text);
            Some(length)
        };
        match format {
            [b'H', ..] => put(self.commit[0].as_bytes(), 1),
            [b'h', ..] => put(self.commit[1].as_bytes(), 1),
            [b'T', ..] => put(self.tree[0].as_bytes(), 1),
            [b't', ..] => put(self.tree[1].as_bytes(), 1),
            [b'P', ..] => put(self.parents[0].as_bytes(), 1),
            [b'p', ..] => put(self.parents[1].as_bytes(), 1),
            [b'a', which, ..] => put(&self.author.show(*which)?, 2),
            [b'c', which, ..] => put(&self.committer.show(*which)?, 2),
            [b's', ..] => put(&self.subject(), 1),
            [b'f', ..] => put(&self.file_name(), 1),
            [b'b', ..] => put(self.body(), 1),
            [b'B', ..] => put(&self.message, 1),
            [b'n', ..] => put(b"\n", 1),
            [b'%', ..] => put(b"%", 1),
            [b'x', digits @ ..] => {
                let digits = std::str::from_utf8(digits.get(..2)?).ok()?;
                let digits = digits.bytes().all(|b| b.is_ascii_hexdigit()).then_some(digits)?;
                put(&[u8::from_str_radix(digits, 16).ok()?], 3)
            }
            _ => None,
        }
    }

    /// A placeholder with a character in front that separates it, if it stands for anything.
    fn with_magic(&self, magic: u8, format: &[u8], out: &mut dyn Output) -> Option<usize> {
        if matches!(format.first(), Some(b' ' | b'+' | b'-')) {
            return None;
        }
        let mut value = Vec::new();
        let length = self.placeholder(format, &mut value)?;
        match (magic, value.is_empty()) {
            (b'-', true) => {
                let end = out.written().iter().rposition(|b| *b != b'\n').map_or(0, |at| at + 1);
                out.truncate(end);
            }
            (b'-', false) | (_, true) => {}
            (b' ', false) => out.put(b" "),
            (_, false) => out.put(b"\n"),
        }
        out.put(&value);
        Some(length + 1)
    }

    fn subject_and_body(&self) -> (Vec<&[u8]>, &[u8]) {
        let mut rest = without_blank_lines(&self.message);
        let mut subject = Vec::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |at| at + 1);
            let (line, after) = rest.split_at(end);
            if line.trim_ascii().is_empty() {
                break;
            }
            subject.push(line.trim_ascii_end());
            rest = after;
        }
        (subject, without_blank_lines(rest))
    }

    fn subject(&self) -> Vec<u8> {
        self.subject_and_body().0.join(&b' ')
    }

    fn body(&self) -> &[u8] {
        self.subject_and_body().1
    }

    /// The first line, fit for the name of a file.
    fn file_name(&self) -> Vec<u8> {
        let lines = self.subject_and_body().0;
        let line = lines.first().copied().unwrap_or_default();
        let mut name = Vec::new();
        let mut gap = false;
        for &byte in line {
            if byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_' {
                if gap && !name.is_empty() {
                    name.push(b'-');
                }
                if byte != b'.' || gap || name.last() != Some(&b'.') {
                    name.push(byte);
                }
                gap = false;
            } else {
                gap = true;
            }
        }
        let end = name.iter().rposition(|b| *b != b'.' && *b != b'-').map_or(0, |at| at + 1);
        name.truncate(end);
        name
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|part| part == needle)
}

/// What follows the blank lines at the beginning.
fn without_blank_lines(mut text: &[u8]) -> &[u8] {
    while let Some(end) = text.iter().position(|b| *b == b'\n') {
        if !text[..end].trim_ascii().is_empty() {
            return text;
        }
        text = &text[end + 1..];
    }
    if text.trim_ascii().is_empty() { &[] } else { text }
}

impl Person {
    fn show(&self, which: u8) -> Option<Vec<u8>> {
        let at = self.email.iter().position(|b| *b == b'@').unwrap_or(self.email.len());
        Some(match which {
            // A mailmap (N, E, L) is one of the repository's working tree, which is not here.
            b'n' | b'N' => self.name.clone(),
            b'e' | b'E' => self.email.clone(),
            b'l' | b'L' => self.email[..at].to_vec(),
            b't' => self.when.seconds().to_string().into_bytes(),
            b'd' => self.date("%a %b %-d %H:%M:%S %Y", " ")?,
            b'D' => self.date("%a, %-d %b %Y %H:%M:%S", " ")?,
            b'i' => self.date("%Y-%m-%d %H:%M:%S", " ")?,
            b'I' => self.date("%Y-%m-%dT%H:%M:%S", "")?,
            b's' => self.date("%Y-%m-%d", "short")?,
            _ => return None,
        })
    }

    /// In the person's own time zone, which follows after `gap`: with a colon if that is
    /// empty, not at all if it is `short`.
    fn date(&self, format: &str, gap: &str) -> Option<Vec<u8>> {
        let minutes = self.when.offset_minutes();
        let local = self.when.seconds().checked_add(i64::from(minutes) * 60)?;
        let local = jiff::Timestamp::from_second(local).ok()?;
        let text = local.strftime(format).to_string();
        let sign = if minutes < 0 { '-' } else { '+' };
        let (hours, minutes) = (minutes.abs() / 60, minutes.abs() % 60);
        Some(
            match gap {
                "short" => text,
                "" if hours == 0 && minutes == 0 => format!("{text}Z"),
                "" => format!("{text}{sign}{hours:02}:{minutes:02}"),
                gap => format!("{text}{gap}{sign}{hours:02}{minutes:02}"),
            }
            .into_bytes(),
        )
    }
}
