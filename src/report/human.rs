//! For people at a terminal or reading a pipe.

use super::preview::{Preview, Previews};
use super::{AppEnd, RunReport, seconds, tame};
use crate::diagnostic::{Diagnostic, Severity};
use crate::domain::{AppName, OnFailure};
use crate::error::Failure;
use crate::plan::{Action, Plan};

const RED: &str = "\u{1b}[31m";
const GREEN: &str = "\u{1b}[32m";
const YELLOW: &str = "\u{1b}[33m";
const DIM: &str = "\u{1b}[2m";
const BOLD: &str = "\u{1b}[1m";
const RESET: &str = "\u{1b}[0m";
/// Characters of a line of somebody else's text.
const WIDTH: usize = 400;
/// And of a hint: the line with a long SSH host key fits.
const HINT: usize = 1200;

/// Paints, or not.
#[derive(Debug, Clone, Copy)]
pub struct Paint(pub bool);

impl Paint {
    fn with(self, colour: &str, text: &str) -> String {
        if self.0 { format!("{colour}{text}{RESET}") } else { text.to_owned() }
    }

    /// Something failed.
    pub fn red(self, text: &str) -> String {
        self.with(RED, text)
    }

    /// Something succeeded.
    pub fn green(self, text: &str) -> String {
        self.with(GREEN, text)
    }

    /// Something should be looked at.
    pub fn yellow(self, text: &str) -> String {
        self.with(YELLOW, text)
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.with(BOLD, text)
    }

    /// Less important.
    pub fn dim(self, text: &str) -> String {
        self.with(DIM, text)
    }
}

/// A failure in full: `error:`, `caused by:`, the program's last lines, `hint:`.
pub fn failure(failure: &Failure, app: Option<&str>, paint: Paint) -> String {
    let about = app.map(|app| format!("{app}: ")).unwrap_or_default();
    let mut text = format!("{} {about}{}\n", paint.red("error:"), tame(&failure.message, WIDTH));
    for cause in &failure.causes {
        text += &format!("  caused by: {}\n", tame(cause, WIDTH));
    }
    for line in &failure.output {
        text += &format!("  | {}\n", tame(line, WIDTH));
    }
    if let Some(hint) = &failure.hint {
        text += &format!("  {} {}\n", paint.yellow("hint:"), tame(hint, HINT));
    }
    text
}

/// A finding about a file.
pub fn diagnostic(finding: &Diagnostic, paint: Paint) -> String {
    let severity = match finding.severity {
        Severity::Error => paint.red("error:"),
        Severity::Warning => paint.yellow("warning:"),
        Severity::Note => paint.dim("note:"),
    };
    let mut text = format!("{severity} {}\n", tame(&finding.to_string(), WIDTH));
    if let Some(hint) = &finding.hint {
        text += &format!("  {} {}\n", paint.yellow("hint:"), tame(hint, HINT));
    }
    text
}

/// `1 app`, `2 apps`.
pub fn counted(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// `812 bytes`, `3.4 kB`, `12 MB`.
pub fn bytes(bytes: u64) -> String {
    let mut units = ["kB", "MB", "GB", "TB"].into_iter();
    let (mut unit, mut whole, mut rest) = ("", bytes, 0);
    while whole >= 1000
        && let Some(next) = units.next()
    {
        (unit, rest, whole) = (next, whole % 1000 / 100, whole / 1000);
    }
    match unit {
        "" => format!("{whole} bytes"),
        unit if whole < 10 => format!("{whole}.{rest} {unit}"),
        unit => format!("{whole} {unit}"),
    }
}

/// What a plan will do, a line for each app.
pub fn plan(plan: &Plan, previews: &Previews, tool: Option<&str>, paint: Paint) -> String {
    let width = plan.steps.iter().map(|step| step.app.name.as_str().len()).max().unwrap_or(0);
    let mut text = String::new();
    for step in &plan.steps {
        let from = step.from.map_or_else(|| "nothing".to_owned(), |from| from.short());
        let to = step.revision.short();
        let what = match &step.action {
            Action::Keep => paint.dim(&format!("keep    {to}")),
            Action::Skip(reason) => {
                paint.dim(&format!("skip    ({})", tame(&reason.describe(), 200)))
            }
            Action::Deploy(reason) => {
                let mut why = tame(&reason.describe(), 200);
                if !step.app.needs.is_empty() {
                    let needs: Vec<&str> = step.app.needs.iter().map(AppName::as_str).collect();
                    why += &format!("; needs {}", needs.join(", "));
                }
                match step.app.checks.len() {
                    0 => {}
                    number => why += &format!("; {}", counted(number, "check")),
                }
                let line = format!("deploy  {from} -> {to}  ({why})");
                paint.green(&line)
            }
        };
        text += &format!("{:width$}  {what}\n", step.app.name.as_str());
        for line in previews.get(&step.app.name).into_iter().flat_map(Preview::lines) {
            text += &format!("{:width$}    {}\n", "", tame(&line, WIDTH));
        }
    }
    let changes = plan.deployments().count();
    text += &match changes {
        0 => "nothing to deploy".to_owned(),
        number => format!("{} to deploy", counted(number, "app")),
    };
    if let (Some(tool), true) = (tool, changes > 0) {
        text += &format!(", with {tool}");
    }
    let mut after: Vec<OnFailure> = plan.deployments().map(|step| step.on_failure).collect();
    after.dedup();
    text += &match after.as_slice() {
        [] | [OnFailure::Stop] => String::new(),
        [one] => format!("; on failure: {one}"),
        _ => {
            let each =
                plan.deployments().map(|step| format!("{} {}", step.app.name, step.on_failure));
            format!("; on failure: {}", each.collect::<Vec<_>>().join(", "))
        }
    };
    text + "\n"
}

/// The end of a run: a table of what changed, and one line of sums.
pub fn summary(report: &RunReport, paint: Paint) -> String {
    let mut text = String::new();
    let shown: Vec<_> = report
        .apps
        .iter()
        .filter(|app| {
            !matches!(
                app.result,
                AppEnd::Unchanged | AppEnd::NotSelected | AppEnd::Disabled | AppEnd::Elsewhere
            )
        })
        .collect();
    let width = shown.iter().map(|app| app.name.len()).max().unwrap_or(0);
    for app in &shown {
        let what = match app.result {
            AppEnd::Deployed => paint.green(&format!("deployed in {}", seconds(app.seconds))),
            AppEnd::Failed => paint.red(&format!("FAILED after {}", seconds(app.seconds))),
            AppEnd::NotPrepared => paint.red("not prepared; left as it was"),
            AppEnd::PutBack if app.failure.is_some() => {
                paint.red(&format!("FAILED after {}, put back", seconds(app.seconds)))
            }
            AppEnd::PutBack => paint.yellow("deployed, put back"),
            AppEnd::NotPutBack if app.failure.is_some() => {
                paint.red(&format!("FAILED after {}, NOT PUT BACK", seconds(app.seconds)))
            }
            AppEnd::NotPutBack => paint.red("deployed, NOT PUT BACK"),
            AppEnd::NotRun
            | AppEnd::Unchanged
            | AppEnd::Disabled
            | AppEnd::NotSelected
            | AppEnd::Elsewhere => {
                let why = app.why_not_run().map(|why| format!(" ({why})")).unwrap_or_default();
                paint.yellow(&format!("not run{why}; left as it was"))
            }
        };
        text += &format!("{:width$}  {:17} {what}\n", app.name, app.change());
        if let Some(why) = &app.put_back_failure {
            text += &format!("{:width$}  {:17}   {}\n", "", "", tame(&why.line(), WIDTH));
        }
    }
    let sum = |end, word: &str| match report.ended(end).count() {
        0 => None,
        n => Some(format!("{n} {word}")),
    };
    let sums = [
        sum(AppEnd::Deployed, "deployed"),
        sum(AppEnd::Failed, "failed"),
        sum(AppEnd::PutBack, "put back"),
        sum(AppEnd::NotPutBack, "not put back"),
        sum(AppEnd::NotPrepared, "not prepared"),
        sum(AppEnd::NotRun, "not run"),
        sum(AppEnd::Unchanged, "unchanged"),
        sum(AppEnd::Disabled, "disabled"),
        sum(AppEnd::NotSelected, "not selected"),
        sum(AppEnd::Elsewhere, "not for this host"),
    ];
    let sums: Vec<String> = sums.into_iter().flatten().collect();
    let sums = if sums.is_empty() { "no apps in the manifest".to_owned() } else { sums.join(", ") };
    let code = u8::from(report.exit_code);
    let verdict = if code == 0 {
        paint.green("ok")
    } else {
        paint.red(&format!("failed (exit code {code})"))
    };
    text += &format!(
        "multideployer {verdict}: {sums} in {} (run {})\n",
        seconds(report.seconds),
        report.run
    );
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::{app, report};
    use super::*;
    use crate::error::ExitCode;

    #[test]
    fn the_summary_names_what_changed_and_counts_the_rest() {
        let mut report = report();
        report.exit_code = ExitCode::AppFailed;
        report.apps = vec![
            app("gateway", AppEnd::Deployed, None),
            app("api", AppEnd::Failed, None),
            app("web", AppEnd::Unchanged, None),
        ];
        insta::assert_snapshot!(summary(&report, Paint(false)), @r"
        gateway  7777777->9191919  deployed in 3.2 s
        api      7777777->9191919  FAILED after 3.2 s
        multideployer failed (exit code 4): 1 deployed, 1 failed, 1 unchanged in 12 s (run 20261125T104501Z-1a2b)
        ");
    }

    #[test]
    fn a_failure_shows_its_chain_and_tames_it() {
        let mut shown = Failure::new(ExitCode::Fetch, "cannot resolve").context("cannot fetch");
        shown.output = vec!["\u{1b}]0;owned\u{7}".into()];
        let text = failure(&shown.hint("try"), Some("api"), Paint(false));
        assert_eq!(
            text,
            "error: api: cannot fetch\n  caused by: cannot resolve\n  | \u{fffd}]0;owned\u{fffd}\n  hint: try\n"
        );
    }
}
