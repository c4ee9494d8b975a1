//! `.gitmodules`, strictly: whoever can commit writes it. Of all it may say, `path` and `url`
//! count; what tools understand in different ways is refused.
//!
//! The format is that of git's configuration files. It is read from memory, so that nothing in
//! it (`include.path`) can lead to a file.

use std::collections::{BTreeMap, BTreeSet};

use crate::mirror::git_config::{Head, NO_SECTION, Reader};

/// What is said of one submodule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Entry {
    /// Where it is in the tree.
    pub path: Option<String>,
    /// As it is written.
    pub url: Option<String>,
}

/// Why a text is no `.gitmodules`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`.gitmodules`, line {line}: {what}")]
pub struct Problem {
    line: usize,
    what: &'static str,
}

/// Reads the entries.
pub(super) fn parse(text: &str) -> Result<Vec<Entry>, Problem> {
    let mut reader = Reader::of(text);
    let mut found = Found::default();
    while let Some(first) = reader.next_thing() {
        let line = reader.line;
        found.add(first, &mut reader).map_err(|what| Problem { line, what })?;
    }
    Ok(found.entries.into_values().collect())
}

/// What was read so far.
#[derive(Default)]
struct Found {
    section: Section,
    entries: BTreeMap<String, Entry>,
    paths: BTreeSet<String>,
}

impl Found {
    /// Reads one section's head, or one key and its value.
    fn add(&mut self, first: char, reader: &mut Reader<'_>) -> Result<(), &'static str> {
        if first == '[' {
            self.section = section(reader.section()?)?;
            return Ok(());
        }
        let (key, value) = reader.key_and_value(first)?;
        let name = match &self.section {
            Section::None => return Err("a key stands in front of all sections"),
            Section::Other => return Ok(()),
            Section::Submodule(name) => name,
        };
        let entry = self.entries.entry(name.clone()).or_default();
        let slot = match key.as_str() {
            "path" => &mut entry.path,
            "url" => &mut entry.url,
            _ => return Ok(()),
        };
        let value = value.ok_or("a key has no value")?;
        let value = if key == "path" { path(&value)?.to_owned() } else { value };
        if slot.is_some() {
            return Err("it says `path` or `url` of one submodule twice");
        }
        if key == "path" && !self.paths.insert(value.clone()) {
            return Err("two submodules have the same path");
        }
        *slot = Some(value);
        Ok(())
    }
}

/// A path in the tree, without a slash at its end.
fn path(text: &str) -> Result<&str, &'static str> {
    let path = text.strip_suffix('/').unwrap_or(text);
    if path.starts_with('/') {
        return Err("the path of a submodule is absolute");
    }
    if path.starts_with('-') {
        return Err("the path of a submodule begins with `-`");
    }
    if path.chars().any(char::is_control) {
        return Err("the path of a submodule contains a control character");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("the path of a submodule has an empty part, `.` or `..`");
    }
    Ok(path)
}

/// git takes the name for a directory.
fn is_bad_name(name: &str) -> bool {
    name.is_empty()
        || name.starts_with('-')
        || name.chars().any(char::is_control)
        || name.split(['/', '\\']).any(|part| part == "..")
}

#[derive(Default)]
enum Section {
    #[default]
    None,
    Submodule(String),
    Other,
}

/// A section's head, as far as it matters here.
fn section(head: Head) -> Result<Section, &'static str> {
    match (head.kind.as_str(), head.name) {
        ("submodule", Some(name)) if is_bad_name(&name) => {
            Err("the name of a submodule could lead elsewhere")
        }
        ("submodule", Some(name)) => Ok(Section::Submodule(name)),
        ("submodule", None) => Ok(Section::Other),
        // An older way to write a name.
        (kind, _) if kind.starts_with("submodule.") => Err(NO_SECTION),
        _ => Ok(Section::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, url: &str) -> Entry {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Entry { path: text(path), url: text(url) }
    }

    #[test]
    fn what_git_writes_and_what_people_write() {
        let text = "\u{feff}# ours\n[submodule \"lib/a\"]\n\tpath = lib/a/\n\turl = ../a.git\n\tbranch = main\n\tupdate = !rm -rf /\n\
            [core] sshCommand = evil\n[include]\n path = /etc/passwd\n\
            [Submodule \"b \\\" \\\\ c\"] PATH = \"b ;x\" # y\r\n\tURL = \"https:\\\n//h/\"b.git  ; why\n\
            [submodule \"none\"]\n\tshallow\n";
        assert_eq!(
            parse(text).unwrap(),
            [entry("b ;x", "https://h/b.git"), entry("lib/a", "../a.git"), entry("", "")]
        );
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse("\n ; nothing").unwrap(), []);
    }

    #[test]
    fn what_could_mean_something_else_is_refused() {
        for (text, line, what) in [
            ("path = x", 1, "in front of all sections"),
            ("[submodule \"a\"]\n\npath = x\npath = x", 4, "twice"),
            ("[submodule \"a\"]\nurl = x\n[submodule \"a\"]\nurl = y\n", 4, "twice"),
            ("[submodule \"a\"]\npath=x\n[submodule \"b\"]\npath = x/", 4, "the same path"),
            ("[submodule \"a\"]\npath", 2, "no value"),
            ("[submodule \"a\"]\nurl # x", 2, "no value"),
            ("[submodule \"a\"]\npath x", 2, "`=`"),
            ("[submodule \"a\"]\npath = ../x", 2, "`..`"),
            ("[submodule \"a\"]\npath = x/../../y\n", 2, "`..`"),
            ("[submodule \"a\"]\npath = x//y", 2, "empty part"),
            ("[submodule \"a\"]\npath = \"\"", 2, "empty part"),
            ("[submodule \"a\"]\npath = /etc", 2, "absolute"),
            ("[submodule \"a\"]\npath = -x", 2, "`-`"),
            ("[submodule \"a\"]\npath = \"x\\ny\"", 2, "control"),
            ("[submodule \"../../hooks\"]\n", 1, "elsewhere"),
            ("[submodule \"a\\\\..\\\\b\"]\n", 1, "elsewhere"),
            ("[submodule \"\"]\n", 1, "elsewhere"),
            ("[submodule \"-x\"]\n", 1, "elsewhere"),
            ("[submodule \"a\x07\"]\n", 1, "elsewhere"),
            ("[submodule.a]\n", 1, "not written"),
            ("[submodule \"a]\n", 1, "not written"),
            ("[submodule \"a\"\n", 1, "not written"),
            ("[]\n", 1, "not written"),
            ("[submodule \"a\"]\nurl = \"x", 2, "quote"),
            ("[submodule \"a\"]\nurl = \"x\ny\"", 2, "quote"),
            ("[submodule \"a\"]\nurl = \\q", 2, "escape"),
            ("[submodule \"a\"]\nurl = \0", 2, "NUL"),
            ("<<<<<<< HEAD\n", 1, "format"),
        ] {
            let problem = parse(text).expect_err(text);
            assert!(problem.what.contains(what), "{text:?}: {problem}");
            assert_eq!(problem.line, line, "{text:?}: {problem}");
        }
    }
}
