//! Reading a mapping key by key, and collecting what is wrong with it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::diagnostic::{Diagnostic, Severity, meant, quoted};
use crate::manifest::Version;
use crate::manifest::source::resolve;
use crate::yaml::{Node, Position, Scalar, Value};

/// Findings that are kept; a file with more is not read for pleasure.
const MOST: usize = 100;
/// A week: no time in a manifest is longer.
const MOST_SECONDS: u64 = 7 * 86_400;

/// All findings so far.
pub(super) struct Findings {
    file: PathBuf,
    /// What the file says it is, once that is known.
    pub(super) version: Option<Version>,
    /// The app that is being read.
    pub(super) app: Option<String>,
    list: Vec<Diagnostic>,
    errors: usize,
    /// Takes what comes after [`MOST`].
    surplus: Diagnostic,
}

impl Findings {
    pub(super) fn new(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            version: None,
            app: None,
            list: Vec::new(),
            errors: 0,
            surplus: Diagnostic::new(Severity::Note, file, None, ""),
        }
    }

    /// Adds an error; the caller may add a hint to what is returned.
    pub(super) fn error(
        &mut self,
        at: Option<Position>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.errors += 1;
        self.add(Severity::Error, at, message.into())
    }

    pub(super) fn warning(
        &mut self,
        at: Option<Position>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.add(Severity::Warning, at, message.into())
    }

    pub(super) fn note(
        &mut self,
        at: Option<Position>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.add(Severity::Note, at, message.into())
    }

    fn add(
        &mut self,
        severity: Severity,
        at: Option<Position>,
        message: String,
    ) -> &mut Diagnostic {
        let mut finding = Diagnostic::new(severity, &self.file, at, message);
        finding.app.clone_from(&self.app);
        if self.list.len() >= MOST {
            self.surplus = finding;
            return &mut self.surplus;
        }
        self.list.push(finding);
        self.list.last_mut().unwrap_or(&mut self.surplus)
    }

    pub(super) fn any_error(&self) -> bool {
        self.errors > 0
    }

    /// The findings in the order of the file.
    pub(super) fn sorted(self) -> Vec<Diagnostic> {
        let Self { mut list, file, errors, .. } = self;
        list.sort_by_key(|finding| finding.at);
        let shown = list.iter().filter(|finding| finding.is_error()).count();
        if list.len() == MOST && errors > shown {
            let message = format!("more than {MOST} findings; the rest is not shown");
            list.push(Diagnostic::new(Severity::Error, &file, None, message));
        }
        list
    }
}

/// The keys a mapping may have, by when they came.
#[derive(Clone, Copy)]
pub(super) struct Keys {
    /// Version 1.0's.
    pub(super) first: &'static [&'static str],
    /// Version 2's in addition.
    pub(super) second: &'static [&'static str],
}

struct Field<'n> {
    key: &'n str,
    at: Position,
    value: &'n Node,
}

/// A mapping whose keys are taken one by one; what is left at the end is unknown.
pub(super) struct Fields<'n> {
    /// In the order of the text; `None` once taken.
    fields: Vec<Option<Field<'n>>>,
    by_key: HashMap<&'n str, usize>,
}

impl<'n> Fields<'n> {
    /// The fields of a mapping. Anything else than a mapping is an error.
    pub(super) fn of(node: &'n Node, what: &str, findings: &mut Findings) -> Option<Self> {
        let Some(entries) = node.entries() else {
            let message = format!("{what} is {}; it must be a mapping of keys", node.kind());
            findings.error(Some(node.at), message);
            return None;
        };
        let mut fields = Self { fields: Vec::new(), by_key: HashMap::new() };
        for (key, value) in entries {
            let Value::Scalar(Scalar { text, plain }) = &key.value else {
                findings.error(Some(key.at), format!("a key is {}; it must be a text", key.kind()));
                continue;
            };
            if text == "<<" && *plain && key.tag.is_none() {
                let message = format!("`<<` is given {}; it must be a mapping", value.kind());
                findings.error(Some(value.at), message);
                continue;
            }
            fields.add(Field { key: text, at: key.at, value }, findings);
        }
        Some(fields)
    }

    fn add(&mut self, field: Field<'n>, findings: &mut Findings) {
        let Some(&index) = self.by_key.get(field.key) else {
            self.by_key.insert(field.key, self.fields.len());
            self.fields.push(Some(field));
            return;
        };
        let Some(slot) = self.fields.get_mut(index) else { return };
        let first = slot.as_ref().map_or(field.at, |first| first.at);
        let message = format!("the key {} stands already at {first}", quoted(field.key));
        if findings.version == Some(Version::V2) {
            findings.error(Some(field.at), message);
        } else {
            findings.warning(Some(field.at), format!("{message}; this one counts"));
        }
        // As PyYAML has it: the last one wins.
        *slot = Some(field);
    }

    /// The value of a key, which counts as known from now on.
    pub(super) fn take(&mut self, key: &str) -> Option<&'n Node> {
        let index = *self.by_key.get(key)?;
        self.fields.get_mut(index)?.take().map(|field| field.value)
    }

    /// The value of a key, which stays unknown.
    pub(super) fn peek(&self, key: &str) -> Option<&'n Node> {
        let index = *self.by_key.get(key)?;
        self.fields.get(index)?.as_ref().map(|field| field.value)
    }

    /// Whether there is such a key that was not taken.
    pub(super) fn has(&self, key: &str) -> bool {
        self.by_key.get(key).and_then(|index| self.fields.get(*index)).is_some_and(Option::is_some)
    }

    /// All fields, for mappings whose keys are free.
    pub(super) fn into_all(self) -> impl Iterator<Item = (&'n str, Position, &'n Node)> {
        self.fields.into_iter().flatten().map(|field| (field.key, field.at, field.value))
    }

    /// Reports the keys that nobody took: errors in version 2, warnings in 1.0, nothing
    /// if the version is not known. `x-…` is free for anchors.
    pub(super) fn finish(self, keys: Keys, findings: &mut Findings) {
        let known = || keys.first.iter().chain(keys.second).copied();
        for field in self.fields.into_iter().flatten() {
            let (key, at) = (field.key, Some(field.at));
            let name = quoted(key);
            match findings.version {
                None => {}
                _ if key.starts_with("x-") => {}
                Some(Version::V1) if keys.second.contains(&key) => {
                    findings
                        .warning(at, format!("{name} is not known in version 1.0 and is ignored"))
                        .hint = Some("write `version: 2` to use it".into());
                }
                Some(Version::V1) => {
                    findings.warning(at, format!("unknown key {name} is ignored")).hint =
                        did_you_mean(key, keys.first.iter().copied());
                }
                Some(Version::V2) => {
                    findings.error(at, format!("unknown key {name}")).hint =
                        did_you_mean(key, known())
                            .or_else(|| Some(format!("known are {}", list(known()))));
                }
            }
        }
    }
}

/// "did you mean `x`?"
pub(super) fn did_you_mean<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    meant(word, known).map(|known| format!("did you mean `{known}`?"))
}

/// `a`, `b`, `c`
pub(super) fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// A boolean as YAML 1.1 writes it, which is what 0.3.1 read.
pub(super) fn boolean(node: &Node) -> Option<bool> {
    let Value::Scalar(Scalar { text, plain: true }) = &node.value else { return None };
    if node.tag.is_some() {
        return None;
    }
    match text.as_str() {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

impl Findings {
    /// The value of an optional boolean key; nothing, or null, is `None`.
    pub(super) fn take_bool(&mut self, fields: &mut Fields<'_>, key: &str) -> Option<bool> {
        let node = fields.take(key).filter(|node| !node.is_null())?;
        let value = boolean(node);
        if value.is_none() {
            let found = match &node.value {
                Value::Scalar(Scalar { text, .. }) => format!("the text {}", quoted(text)),
                Value::List(_) | Value::Map(_) => node.kind().to_owned(),
            };
            self.error(Some(node.at), format!("`{key}` is {found}; it must be true or false"))
                .hint = Some("without quotes: `true`, `false`, `yes`, `no`, `on` or `off`".into());
        }
        value
    }

    /// The value of an optional text key; nothing, or null, is `None`.
    pub(super) fn take_text<'n>(
        &mut self,
        fields: &mut Fields<'n>,
        key: &str,
    ) -> Option<(&'n str, Position)> {
        let node = fields.take(key).filter(|node| !node.is_null())?;
        self.text(node, key).map(|text| (text, node.at))
    }

    /// The text of a scalar that must be one. Numbers and the like are taken as they are
    /// written. The text is neither empty nor null and has no control characters.
    pub(super) fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        let at = Some(node.at);
        match node.text() {
            None => self.error(at, format!("`{what}` is {}; it must be a text", node.kind())),
            Some(_) if node.is_null() => self.error(at, format!("`{what}` has no value")),
            Some("") => self.error(at, format!("`{what}` is empty")),
            Some(text) if text.chars().any(char::is_control) => {
                self.error(at, format!("`{what}` contains a line break or control character"))
            }
            Some(text) => return Some(text),
        };
        None
    }

    /// The texts of a list that must hold at least one, unless `empty` is allowed.
    pub(super) fn texts<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        empty: bool,
    ) -> Option<Vec<(&'n str, Position)>> {
        let Some(items) = node.items() else {
            self.error(Some(node.at), format!("`{what}` is {}; it must be a list", node.kind()));
            return None;
        };
        if items.is_empty() && !empty {
            self.error(Some(node.at), format!("`{what}` is an empty list"));
            return None;
        }
        let entry = format!("{what}[]");
        let texts: Vec<_> =
            items.iter().map(|item| self.text(item, &entry).map(|text| (text, item.at))).collect();
        texts.into_iter().collect()
    }

    /// The value of an optional key that is one of a few words, in lower or upper case.
    pub(super) fn take_choice<T: Copy>(
        &mut self,
        fields: &mut Fields<'_>,
        key: &str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let (text, at) = self.take_text(fields, key)?;
        let found = choices
            .iter()
            .find(|(word, _)| text == *word || text == word.to_ascii_uppercase())
            .map(|(_, value)| *value);
        if found.is_none() {
            let words = || choices.iter().map(|(word, _)| *word);
            self.error(
                Some(at),
                format!("`{key}` is {}; it must be one of {}", quoted(text), list(words())),
            )
            .hint = did_you_mean(text, words());
        }
        found
    }

    /// A command as a list of words; there is no shell. A program with a `/` in it is relative
    /// to `directory`.
    pub(super) fn command(
        &mut self,
        node: &Node,
        key: &str,
        example: &str,
        directory: &Path,
    ) -> Option<Vec<String>> {
        if node.text().is_some() {
            self.error(Some(node.at), format!("`{key}` is a text; it must be a list of words"))
                .hint = Some(format!("no shell reads it: `{key}: {example}`"));
            return None;
        }
        let words = self.texts(node, key, false)?;
        let mut words: Vec<String> = words.into_iter().map(|(word, _)| word.to_owned()).collect();
        if let Some(program) = words.first_mut().filter(|program| program.contains('/')) {
            let Ok(path) = resolve(program, directory).into_os_string().into_string() else {
                self.error(
                    Some(node.at),
                    format!("`{key}` is below a directory whose name is not UTF-8"),
                );
                return None;
            };
            *program = path;
        }
        Some(words)
    }

    /// The value of an optional key that is a time: `90s`, `10m`, `1h`, or a number of seconds.
    /// Never zero.
    pub(super) fn take_duration(&mut self, fields: &mut Fields<'_>, key: &str) -> Option<Duration> {
        let (text, at) = self.take_text(fields, key)?;
        let seconds = scaled(text, &[("s", 1), ("m", 60), ("h", 3600)]);
        let seconds = seconds.filter(|seconds| (1..=MOST_SECONDS).contains(seconds));
        if seconds.is_none() {
            let message = format!("`{key}` is {}; it must be a time", quoted(text));
            self.error(Some(at), message).hint =
                Some("write it as `90s`, `10m` or `1h`, at most a week".into());
        }
        seconds.map(Duration::from_secs)
    }

    /// The value of an optional key that is a number of bytes: `512k`, `10M`, `1G`, or without
    /// unit. The units are powers of 1,000.
    pub(super) fn take_size(&mut self, fields: &mut Fields<'_>, key: &str) -> Option<u64> {
        let (text, at) = self.take_text(fields, key)?;
        let bytes = scaled(text, &[("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)]);
        if bytes.is_none() {
            let message = format!("`{key}` is {}; it must be a size", quoted(text));
            self.error(Some(at), message).hint = Some("write it as `512k`, `10M` or `1G`".into());
        }
        bytes
    }
}

/// A number with one of the units, or none.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .unwrap_or((text, 1));
    if number.is_empty() || !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(factor)
}
