//! What `doctor` found, as one value, for people and for machines. Pure.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};

use super::human::Paint;
use super::{JSON_VERSION, seconds, tame};
use crate::error::{ExitCode, Failure};

/// Characters of a line.
const WIDTH: usize = 400;

/// What one check came to, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It could not be looked at, or was not asked for.
    NotChecked,
    /// A deployment works, but somebody should look at it.
    Warning,
    /// A deployment would fail.
    Problem,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotChecked => "not checked",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }

    fn painted(self, text: &str, paint: Paint) -> String {
        match self {
            Self::Ok => paint.green(text),
            Self::NotChecked => paint.dim(text),
            Self::Warning => paint.yellow(text),
            Self::Problem => paint.red(text),
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What was looked at, as one word: `tls`, `lock`.
    pub check: &'static str,
    /// What it came to.
    pub status: Status,
    /// A lower-case fragment without a period; never a secret.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// What machines may want to compare: numbers, paths, fingerprints.
    pub facts: Map<String, Value>,
}

impl Finding {
    /// A finding of any kind.
    pub fn new(check: &'static str, status: Status, message: impl Into<String>) -> Self {
        Self { check, status, message: message.into(), remedy: None, facts: Map::new() }
    }

    /// As it should be.
    pub fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Status::Ok, message)
    }

    /// Worth a look.
    pub fn warning(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Status::Warning, message)
    }

    /// It would break a deployment.
    pub fn problem(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Status::Problem, message)
    }

    /// Not looked at, and why.
    pub fn not_checked(check: &'static str, why: impl Into<String>) -> Self {
        Self::new(check, Status::NotChecked, why)
    }

    /// What a deployment would fail with.
    pub fn failure(check: &'static str, failure: &Failure) -> Self {
        let mut finding = Self::problem(check, failure.line());
        finding.remedy.clone_from(&failure.hint);
        finding
    }

    /// The same finding with advice.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The same finding with a value for machines.
    #[must_use]
    pub fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// The same finding, at least this bad.
    #[must_use]
    pub fn at_least(mut self, status: Status) -> Self {
        self.status = self.status.max(status);
        self
    }
}

/// What belongs together: this host, its directories, one git server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Section {
    /// Its heading: `this host`, `https://github.example.com`.
    pub title: String,
    /// The apps whose sources are there, if it is a server.
    pub apps: Vec<String>,
    /// In the order of the checks.
    pub findings: Vec<Finding>,
}

impl Section {
    /// An empty one.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), apps: Vec::new(), findings: Vec::new() }
    }

    /// Adds a finding.
    pub fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }
}

/// How many findings there are of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    ok: usize,
    warning: usize,
    problem: usize,
    not_checked: usize,
}

/// All that `doctor` found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DoctorReport {
    /// [`JSON_VERSION`].
    pub version: u32,
    /// Always `doctor`.
    pub command: &'static str,
    /// 11 if something would break a deployment, that of a signal if one came, else 0.
    pub exit_code: ExitCode,
    /// Nothing would break a deployment.
    pub ok: bool,
    /// The manifest.
    pub manifest: PathBuf,
    /// No connection was made.
    pub offline: bool,
    /// How long it took.
    pub seconds: f64,
    /// Sums.
    pub counts: Counts,
    /// In the order they are shown.
    pub sections: Vec<Section>,
}

impl DoctorReport {
    /// Puts sections together. `signal` is the exit code of the signal that ended it early.
    pub fn new(
        manifest: PathBuf,
        offline: bool,
        sections: Vec<Section>,
        seconds: f64,
        signal: Option<ExitCode>,
    ) -> Self {
        let of = |status| {
            let findings = sections.iter().flat_map(|section| &section.findings);
            findings.filter(|finding| finding.status == status).count()
        };
        let counts = Counts {
            ok: of(Status::Ok),
            warning: of(Status::Warning),
            problem: of(Status::Problem),
            not_checked: of(Status::NotChecked),
        };
        let verdict = if counts.problem > 0 { ExitCode::Unfit } else { ExitCode::Ok };
        Self {
            version: JSON_VERSION,
            command: "doctor",
            exit_code: signal.unwrap_or(verdict),
            ok: counts.problem == 0,
            manifest,
            offline,
            seconds,
            counts,
            sections,
        }
    }

    /// For people: a line for each finding, its remedy below it. `quiet` leaves out what is
    /// as it should be.
    pub fn human(&self, quiet: bool, paint: Paint) -> String {
        let shown = |finding: &&Finding| {
            !quiet || matches!(finding.status, Status::Warning | Status::Problem)
        };
        let findings = self.sections.iter().flat_map(|section| &section.findings);
        let findings: Vec<_> = findings.filter(shown).collect();
        let status_width = findings.iter().map(|f| f.status.word().len()).max().unwrap_or(0);
        let check_width = findings.iter().map(|f| f.check.len()).max().unwrap_or(0);
        let mut text = String::new();
        for section in &self.sections {
            let mut findings = section.findings.iter().filter(shown).peekable();
            if findings.peek().is_none() {
                continue;
            }
            text += &paint.bold(&tame(&section.title, WIDTH));
            if !section.apps.is_empty() {
                text += &paint.dim(&tame(&format!("  for {}", section.apps.join(", ")), WIDTH));
            }
            text.push('\n');
            for finding in findings {
                let word = format!("{:status_width$}", finding.status.word());
                let word = finding.status.painted(&word, paint);
                let message = tame(&finding.message, WIDTH);
                text += &format!("  {word}  {:check_width$}  {message}\n", finding.check);
                if let Some(remedy) = &finding.remedy {
                    let indent = " ".repeat(status_width + check_width + 6);
                    let hint = paint.yellow("hint:");
                    text += &format!("{indent}{hint} {}\n", tame(remedy, 3 * WIDTH));
                }
            }
            text.push('\n');
        }
        if quiet && text.is_empty() {
            return text;
        }
        text + &self.verdict(paint)
    }

    fn verdict(&self, paint: Paint) -> String {
        let counts = self.counts;
        let sum = |n: usize, one: &str, more: &str| match n {
            0 => None,
            1 => Some(format!("1 {one}")),
            n => Some(format!("{n} {more}")),
        };
        let sums = [
            sum(counts.problem, "problem", "problems"),
            sum(counts.warning, "warning", "warnings"),
            sum(counts.not_checked, "not checked", "not checked"),
            sum(counts.ok, "ok", "ok"),
        ];
        let sums = sums.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let code = u8::from(self.exit_code);
        let verdict = match self.exit_code {
            ExitCode::Ok => paint.green("nothing stands in the way of a deployment"),
            ExitCode::Unfit => paint.red("a deployment would fail (exit code 11)"),
            _ => paint.red(&format!("ended by a signal (exit code {code})")),
        };
        format!("{verdict}: {sums} in {}\n", seconds(self.seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(signal: Option<ExitCode>) -> DoctorReport {
        let mut host = Section::new("this host");
        host.add(Finding::ok("user", "root"));
        host.add(Finding::warning("umask", "0000").remedy("set it"));
        let mut server = Section::new("https://git.example.com");
        server.apps = vec!["api".into(), "web".into()];
        server.add(Finding::problem("tls", "expired\u{1b}[31m").fact("days_left", -3));
        server.add(Finding::not_checked("repository", "no connection"));
        DoctorReport::new("m.yaml".into(), false, vec![host, server], 1.25, signal)
    }

    #[test]
    fn people_see_groups_and_remedies() {
        insta::assert_snapshot!(report(None).human(false, Paint(false)), @r"
        this host
          ok           user        root
          warning      umask       0000
                                   hint: set it

        https://git.example.com  for api, web
          problem      tls         expired�[31m
          not checked  repository  no connection

        a deployment would fail (exit code 11): 1 problem, 1 warning, 1 not checked, 1 ok in 1.2 s
        ");
        let quiet = report(None).human(true, Paint(true));
        assert!(!quiet.contains("user") && !quiet.contains("no connection"), "{quiet}");
        assert!(quiet.contains("\u{1b}[31mproblem\u{1b}[0m"), "{quiet}");
    }

    #[test]
    fn warnings_do_not_fail_and_a_signal_is_said() {
        let mut sections = report(None).sections;
        sections.pop();
        let fine = DoctorReport::new("m.yaml".into(), true, sections, 0.1, None);
        assert_eq!((fine.exit_code, fine.ok), (ExitCode::Ok, true));
        let cut = report(Some(ExitCode::Terminated));
        assert_eq!(cut.exit_code, ExitCode::Terminated);
        assert!(cut.human(false, Paint(false)).contains("ended by a signal (exit code 143)"));
    }
}
