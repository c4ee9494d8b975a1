//! One finding about a file that a person wrote: where, about which app, what, and what
//! to do about it.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::yaml::Position;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is used, but probably does not mean what its author meant.
    Warning,
    /// Worth saying once.
    Note,
}

/// One finding. Its `Display` is one line, without severity and hint:
/// ``multideployer.yaml:7:14: app `api`: …``.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// The file, as it was named.
    pub file: PathBuf,
    /// Where in it.
    #[serde(flatten)]
    pub at: Option<Position>,
    /// The app it is about: its name, or `#3` for the third entry when it has none.
    pub app: Option<String>,
    /// What is wrong: a lower-case fragment without a period.
    pub message: String,
    /// What to do about it, if there is something to say.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A finding about a place in a file.
    pub fn new(
        severity: Severity,
        file: &Path,
        at: Option<Position>,
        message: impl Into<String>,
    ) -> Self {
        Self { severity, file: file.to_owned(), at, app: None, message: message.into(), hint: None }
    }

    /// The same finding about an app.
    #[must_use]
    pub fn app(mut self, app: impl Into<String>) -> Self {
        self.app = Some(app.into());
        self
    }

    /// The same finding with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether the file is refused because of it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(at) = self.at {
            write!(f, ":{at}")?;
        }
        match &self.app {
            Some(number) if number.starts_with('#') => write!(f, ": app {number}")?,
            Some(name) => write!(f, ": app `{name}`")?,
            None => {}
        }
        f.write_str(": ")?;
        // Messages quote texts from outside; whatever they are, this stays one line.
        for c in self.message.chars() {
            match c {
                c if c.is_control() => write!(f, "{}", c.escape_default())?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A text from outside between backticks: on one line, without control characters, cut
/// after 60 characters.
pub fn quoted(text: &str) -> String {
    format!("`{}`", escaped(text))
}

/// A text from outside, fit for a line of output: control characters and their like
/// escaped, cut after 60 characters.
pub fn escaped(text: &str) -> String {
    const MOST: usize = 60;
    let mut shown = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == MOST {
            shown.push('…');
            break;
        }
        // `escape_debug` leaves what can be printed, but for quotes and the backslash.
        if matches!(c, '"' | '\'' | '\\') {
            shown.push(c);
        } else {
            shown.extend(c.escape_debug());
        }
    }
    shown
}

/// The word of `known` that `word` was probably meant to be.
pub fn meant<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '_'], "");
    let wanted = plain(word);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_that_begins_with_the_place() {
        let at = Some(Position { line: 7, column: 14 });
        let finding = Diagnostic::new(Severity::Error, Path::new("m.yaml"), at, "bad");
        assert_eq!(finding.to_string(), "m.yaml:7:14: bad");
        assert_eq!(finding.clone().app("api").to_string(), "m.yaml:7:14: app `api`: bad");
        assert_eq!(finding.app("#3").to_string(), "m.yaml:7:14: app #3: bad");
        let torn = Diagnostic::new(Severity::Error, Path::new("m.yaml"), at, "mode `1\t\u{1b}é`");
        assert_eq!(torn.to_string(), r"m.yaml:7:14: mode `1\t\u{1b}é`");
        let nowhere = Diagnostic::new(Severity::Note, Path::new("m.yaml"), None, "empty");
        assert_eq!(nowhere.to_string(), "m.yaml: empty");
        let json = serde_json::to_value(Diagnostic::new(
            Severity::Warning,
            Path::new("m.yaml"),
            at,
            "odd",
        ))
        .unwrap();
        assert_eq!(json["line"], 7);
        assert_eq!(json["severity"], "warning");
    }

    #[test]
    fn what_comes_from_outside_stays_on_its_line() {
        assert_eq!(quoted("a\nb\u{1b}[31m\u{202e}"), r"`a\nb\u{1b}[31m\u{202e}`");
        assert_eq!(quoted("it's \"é\""), "`it's \"é\"`");
        assert_eq!(quoted(&"x".repeat(100)), format!("`{}…`", "x".repeat(60)));
    }

    #[test]
    fn near_misses_are_recognised_and_far_ones_are_not() {
        let known = ["name", "source", "release", "force", "skip_events"];
        for (typed, expected) in [
            ("froce", Some("force")),
            ("Force", Some("force")),
            ("skipEvents", Some("skip_events")),
            ("skip-event", Some("skip_events")),
            ("nmae", Some("name")),
            ("branch", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(meant(typed, known), expected, "{typed:?}");
        }
    }
}
