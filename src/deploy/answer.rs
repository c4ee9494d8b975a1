//! What a command answers: its output and exit code, or why it could not be carried out.

use serde::Serialize;

use crate::diagnostic::Diagnostic;
use crate::error::{ExitCode, Failure};
use crate::report::human::{self, Paint};
use crate::report::{self, JSON_VERSION};

/// What a command prints on standard output, and its exit code.
pub struct Answer {
    /// Standard output.
    pub stdout: String,
    /// The exit code.
    pub code: ExitCode,
}

/// A command that could not be carried out, and what is wrong with the manifest if that is why.
pub struct Refusal {
    /// Why.
    pub failure: Failure,
    /// All findings.
    pub diagnostics: Vec<Diagnostic>,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::new(failure, Vec::new())
    }
}

impl Refusal {
    /// A refusal with all findings that explain it.
    pub fn new(failure: Failure, diagnostics: Vec<Diagnostic>) -> Self {
        Self { failure, diagnostics }
    }

    /// The JSON document of a command that failed: its name, where that is known.
    pub fn document(&self, command: Option<&str>) -> String {
        #[derive(Serialize)]
        struct Document<'a> {
            version: u32,
            command: Option<&'a str>,
            exit_code: ExitCode,
            failure: &'a Failure,
            diagnostics: &'a [Diagnostic],
        }
        json(&Document {
            version: JSON_VERSION,
            command,
            exit_code: self.failure.code,
            failure: &self.failure,
            diagnostics: &self.diagnostics,
        })
    }
}

/// Says on standard error why a command could not be carried out.
pub fn complain(failure: &Failure, diagnostics: &[Diagnostic], paint: Paint) {
    let findings: String =
        diagnostics.iter().map(|finding| human::diagnostic(finding, paint)).collect();
    eprint(&(findings + &human::failure(failure, None, paint)));
}

#[expect(clippy::print_stderr, reason = "the one place where a command complains")]
pub(super) fn eprint(text: &str) {
    eprint!("{text}");
}

/// A value as one JSON document with a newline, without anything that a terminal would obey.
pub fn json(value: &impl Serialize) -> String {
    match serde_json::to_string_pretty(value) {
        Ok(text) => report::tame_json(&text) + "\n",
        // Only maps with keys that are no text can fail, and there are none.
        Err(error) => format!("{{\"version\":{JSON_VERSION},\"error\":\"{error}\"}}\n"),
    }
}
