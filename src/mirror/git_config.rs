//! The format of git's configuration files, from memory: nothing in it (`include.path`) can lead
//! to a file. For what whoever can commit writes: `.gitmodules`, `.lfsconfig`.

use std::iter::Peekable;
use std::str::Chars;

/// What a section's head that cannot be read is.
pub(super) const NO_SECTION: &str = "a section is not written `[name]` or `[name \"name\"]`";

/// The head of a section.
pub(super) struct Head {
    /// In lower case.
    pub kind: String,
    /// What stands in quotes.
    pub name: Option<String>,
}

/// Reads thing by thing.
pub(super) struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    /// Where it is, from 1.
    pub line: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { rest: text.chars().peekable(), line: 1 }
    }
    /// One character; `\r\n` is a line break.
    fn next(&mut self) -> Option<char> {
        let mut c = self.rest.next()?;
        if c == '\r' && self.rest.peek() == Some(&'\n') {
            self.rest.next();
            c = '\n';
        }
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|c| c != '\n') {}
    }

    fn skip_blanks(&mut self) {
        while self.rest.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
    }

    /// The first character of a section or key.
    pub(super) fn next_thing(&mut self) -> Option<char> {
        loop {
            match self.next()? {
                ' ' | '\t' | '\n' => {}
                '#' | ';' => self.skip_line(),
                c => return Some(c),
            }
        }
    }

    /// After the bracket.
    pub(super) fn section(&mut self) -> Result<Head, &'static str> {
        let mut kind = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)) {
            kind.push(c.to_ascii_lowercase());
        }
        self.skip_blanks();
        let mut name = None;
        if self.rest.next_if_eq(&'"').is_some() {
            let mut text = String::new();
            loop {
                match self.next() {
                    Some('"') => break,
                    Some('\\') => match self.next() {
                        Some(c) if c != '\n' => text.push(c),
                        _ => return Err(NO_SECTION),
                    },
                    Some(c) if c != '\n' => text.push(c),
                    _ => return Err(NO_SECTION),
                }
            }
            name = Some(text);
        }
        if self.rest.next_if_eq(&']').is_none() || kind.is_empty() {
            return Err(NO_SECTION);
        }
        Ok(Head { kind, name })
    }

    /// The key in lower case, and its value if it has one.
    pub(super) fn key_and_value(
        &mut self,
        first: char,
    ) -> Result<(String, Option<String>), &'static str> {
        if !first.is_ascii_alphabetic() {
            return Err("it is not in the format of git's configuration");
        }
        let mut key = String::from(first.to_ascii_lowercase());
        while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '-') {
            key.push(c.to_ascii_lowercase());
        }
        self.skip_blanks();
        match self.next() {
            None | Some('\n') => Ok((key, None)),
            Some('#' | ';') => {
                self.skip_line();
                Ok((key, None))
            }
            Some('=') => Ok((key, Some(self.value()?))),
            Some(_) => Err("a key is not followed by `=`"),
        }
    }

    fn value(&mut self) -> Result<String, &'static str> {
        const NO_VALUE: &str = "a value has a quote that does not end, or an escape that is none";
        self.skip_blanks();
        let (mut value, mut blanks) = (String::new(), String::new());
        let mut quoted = false;
        loop {
            let c = match self.next() {
                None | Some('\n') if quoted => return Err(NO_VALUE),
                None | Some('\n') => return Ok(value),
                Some('#' | ';') if !quoted => {
                    self.skip_line();
                    return Ok(value);
                }
                Some('"') => {
                    quoted = !quoted;
                    continue;
                }
                Some(c @ (' ' | '\t')) if !quoted => {
                    // They count if something follows.
                    blanks.push(c);
                    continue;
                }
                Some('\\') => match self.next() {
                    Some('\n') => continue,
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('b') => '\u{8}',
                    Some(c @ ('"' | '\\')) => c,
                    _ => return Err(NO_VALUE),
                },
                Some('\0') => return Err("a value holds a NUL"),
                Some(c) => c,
            };
            value.push_str(&std::mem::take(&mut blanks));
            value.push(c);
        }
    }
}
