//! The block a hook's output ends with: all that CodeDeploy's console and API show.
//!
//! The agent keeps the last 2,048 bytes, whole lines only, each with a prefix of at most 8
//! bytes (`[stdout]`); a single line of that size empties the whole buffer.

use super::{AppEnd, AppReport, RunReport, seconds, tame};
use crate::error::{ExitCode, Failure};

/// Bytes of the block, the agent's prefixes counted.
const BLOCK: usize = 1800;
/// Bytes the agent puts before each line, and the newline.
const PER_LINE: usize = 9;
/// Characters of a line.
const WIDTH: usize = 160;
/// Lines of a failed program's output at most.
const OUTPUT: usize = 20;

/// The block, each line ended by a newline.
pub fn block(report: &RunReport) -> String {
    let mut head = vec![headline(report)];
    let mut output = Vec::new();
    let mut tail = Vec::new();
    let mut failures = report.failed();
    let first = failures.next();
    if let Some(failure) = report.failure.as_ref().or(first.map(|(_, failure)| failure)) {
        output.clone_from(&failure.output);
        for cause in &failure.causes {
            head.push(format!(" because : {cause}"));
        }
        if let Some(hint) = &failure.hint {
            tail.push(format!(" hint    : {hint}"));
        }
    }
    for (app, failure) in failures {
        tail.push(format!(" also    : {} {}", app.name, failure.line()));
    }
    let errors = report
        .diagnostics
        .iter()
        .filter(|finding| finding.severity == crate::diagnostic::Severity::Error);
    head.extend(errors.map(|finding| format!(" {finding}")));
    for app in report.ended(AppEnd::NotPutBack) {
        let why = app.put_back_failure.as_ref().map(Failure::line).unwrap_or_default();
        tail.push(format!(" NOT BACK: {} {}: {why}", app.name, app.change()));
    }
    let mut list = |title: &str, end: AppEnd, show: fn(&AppReport) -> String| {
        let apps: Vec<String> = report.ended(end).map(show).collect();
        if !apps.is_empty() {
            tail.push(format!(" {title:<8}: {}", apps.join(", ")));
        }
    };
    list("changed", AppEnd::Deployed, |app| format!("{} {}", app.name, app.change()));
    list("put back", AppEnd::PutBack, |app| {
        format!("{} {}", app.name, app.from.map(|from| from.short()).unwrap_or_default())
    });
    list("failed", AppEnd::Failed, |app| format!("{} {} (state unknown)", app.name, app.change()));
    list("refused", AppEnd::NotPrepared, |app| format!("{} {}", app.name, app.change()));
    list("not run", AppEnd::NotRun, |app| match app.why_not_run() {
        Some(why) => format!("{} ({why})", app.name),
        None => app.name.clone(),
    });
    let count = |end, title: &str| match report.ended(end).count() {
        0 => None,
        count => Some(format!("{title}: {count}")),
    };
    let counts: Vec<String> =
        [count(AppEnd::Unchanged, "unchanged"), count(AppEnd::Elsewhere, "not for this host")]
            .into_iter()
            .flatten()
            .collect();
    if !counts.is_empty() {
        tail.push(format!(" {}", counts.join("  ")));
    }
    let last = format!(" log {} run {}", report.log.display(), report.run);

    // The last line and the headline always; then what was changed; then the output, its end
    // first; then the rest of the head.
    let mut room = BLOCK;
    let mut fits = |line: &str| {
        let need = line.len() + PER_LINE;
        let fits = need <= room;
        room -= if fits { need } else { 0 };
        fits
    };
    let tame = |line: &String| tame(line, WIDTH);
    let last = tame(&last);
    fits(&last);
    // What went wrong matters most: a long message goes on in the next lines.
    let mut head: Vec<String> = head.iter().flat_map(|line| wrap(line)).collect();
    fits(&head[0]);
    let tail: Vec<String> = tail.iter().map(tame).filter(|line| fits(line)).collect();
    let mut shown: Vec<String> = output
        .iter()
        .rev()
        .take(OUTPUT)
        .map(|line| tame(&format!("  | {line}")))
        .take_while(|line| fits(line))
        .collect();
    shown.reverse();
    let mut first = true;
    head.retain(|line| std::mem::take(&mut first) || fits(line));
    let lines = head.into_iter().chain(shown).chain(tail).chain([last]);
    lines.map(|line| line + "\n").collect()
}

/// A line in pieces of at most [`WIDTH`] characters, three at most.
fn wrap(line: &str) -> Vec<String> {
    let line = tame(line, 3 * (WIDTH - 4));
    let chars: Vec<char> = line.chars().collect();
    let mut pieces = chars.chunks(WIDTH - 4).map(String::from_iter);
    let mut lines: Vec<String> = pieces.next().into_iter().collect();
    lines.extend(pieces.map(|piece| format!("    {piece}")));
    if lines.is_empty() {
        lines.push(String::new());
    }
    lines
}

fn headline(report: &RunReport) -> String {
    let code = u8::from(report.exit_code);
    if let Some(failure) = &report.failure {
        return format!("multideployer FAILED ({code}) {}", failure.message);
    }
    if let Some((app, failure)) = report.failed().next() {
        return format!(
            "multideployer FAILED ({code}) {} {}: {}",
            app.name,
            app.to.short(),
            failure.message
        );
    }
    if report.exit_code == ExitCode::Deadline {
        let late = report.ended(AppEnd::NotRun).next().map(|app| app.name.as_str());
        let late = late.unwrap_or("an app");
        return format!("multideployer FAILED ({code}) the deadline leaves no time for {late}");
    }
    if code != 0 {
        return format!("multideployer FAILED ({code}) ended by a signal");
    }
    let deployed = report.ended(AppEnd::Deployed).count();
    format!("multideployer OK: {deployed} deployed in {}", seconds(report.seconds))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{app, report};
    use super::*;

    fn counted(block: &str) -> usize {
        block.lines().map(|line| line.len() + PER_LINE).sum()
    }

    #[test]
    fn a_failure_reads_like_this() {
        let mut failure = Failure::new(
            ExitCode::AppFailed,
            "`scripts/start.sh` exited with code 1 in ApplicationStart after 12 s",
        )
        .hint("see the app's log");
        failure.output = vec!["starting".into(), "Error: Cannot find module 'express'".into()];
        let mut report = report();
        report.exit_code = ExitCode::AppFailed;
        report.apps = vec![
            app("gateway", AppEnd::Deployed, None),
            app("api", AppEnd::Failed, Some(failure)),
            app("worker", AppEnd::NotRun, None),
            app("web", AppEnd::Unchanged, None),
        ];
        insta::assert_snapshot!(block(&report), @r"
        multideployer FAILED (4) api 9191919: `scripts/start.sh` exited with code 1 in ApplicationStart after 12 s
          | starting
          | Error: Cannot find module 'express'
         hint    : see the app's log
         changed : gateway 7777777->9191919
         failed  : api 7777777->9191919 (state unknown)
         not run : worker
         unchanged: 1
         log /var/log/codedeploy-multideployer/multideployer.log run 20261125T104501Z-1a2b
        ");
    }

    #[test]
    fn it_fits_whatever_there_is_to_say() {
        let mut failure = Failure::new(ExitCode::AppFailed, "x".repeat(5000));
        failure.output = (0..500).map(|i| format!("{i} {}", "é".repeat(3000))).collect();
        let mut report = report();
        report.exit_code = ExitCode::AppFailed;
        report.apps = (0..300)
            .map(|i| {
                let end = [AppEnd::Failed, AppEnd::NotRun, AppEnd::Deployed][i % 3];
                app(&format!("app-{i}"), end, Some(failure.clone()))
            })
            .collect();
        let block = block(&report);
        assert!(counted(&block) <= 1800, "{}", counted(&block));
        assert!(block.starts_with("multideployer FAILED (4) app-0"));
        assert!(block.ends_with("run 20261125T104501Z-1a2b\n"));
        assert!(block.lines().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn success_is_short() {
        let mut report = report();
        report.apps = vec![app("api", AppEnd::Deployed, None), app("web", AppEnd::Unchanged, None)];
        insta::assert_snapshot!(block(&report), @r"
        multideployer OK: 1 deployed in 12 s
         changed : api 7777777->9191919
         unchanged: 1
         log /var/log/codedeploy-multideployer/multideployer.log run 20261125T104501Z-1a2b
        ");
    }
}
