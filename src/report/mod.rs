//! What a run did, as one value, and its three renderings: for people, for machines, and
//! for the last 2 kB of a hook's output. Pure, but for [`console`] and [`log`].

pub mod console;
pub mod doctor;
pub mod hook;
pub mod human;
pub mod log;
pub mod metrics;
pub mod preview;

use std::path::PathBuf;

use serde::Serialize;

use crate::diagnostic::Diagnostic;
use crate::domain::{Hook, Revision};
use crate::error::{ExitCode, Failure};
use crate::plan::{Action, Plan, Reason, SkipReason};
use crate::rollout::{AppResult, NotRun, Outcome};

/// The version of the JSON documents. It changes when a field changes its meaning or goes;
/// new fields may come at any time.
pub const JSON_VERSION: u32 = 1;

/// The report of a `deploy`.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// [`JSON_VERSION`].
    pub version: u32,
    /// Always `deploy`.
    pub command: &'static str,
    /// The run's id, as in the history and the log.
    pub run: String,
    /// Who ran it and where: `root@ip-10-0-0-7`.
    pub who: String,
    /// The exit code.
    pub exit_code: ExitCode,
    /// How long it all took.
    pub seconds: f64,
    /// The manifest.
    pub manifest: PathBuf,
    /// The codedeploy-local that was used, if any was needed.
    pub tool: Option<String>,
    /// The hook it ran in.
    pub hook: Option<Hook>,
    /// The log file.
    pub log: PathBuf,
    /// What happened to each app, in the order of the plan.
    pub apps: Vec<AppReport>,
    /// What is wrong or odd in the manifest.
    pub diagnostics: Vec<Diagnostic>,
    /// What a person should know, in the order it came up.
    pub warnings: Vec<String>,
    /// Why the run could not be carried out, if it was not for one app.
    pub failure: Option<Failure>,
}

/// What happened to one app.
#[derive(Debug, Clone, Serialize)]
pub struct AppReport {
    /// Its name.
    pub name: String,
    /// Its source.
    pub source: String,
    /// How it ended.
    pub result: AppEnd,
    /// Why it was to be deployed, if it was.
    pub reason: Option<Reason>,
    /// What was deployed before.
    pub from: Option<Revision>,
    /// What was wanted.
    pub to: Revision,
    /// How long its deployment took.
    pub seconds: f64,
    /// How long fetch, checkout and checks took, if it came to that.
    pub prepare_seconds: Option<f64>,
    /// Bytes that were fetched.
    pub fetched_bytes: u64,
    /// Why it is not for this host, if it is not.
    pub elsewhere: Option<String>,
    /// Why it was not run, if it was its turn to.
    pub not_run: Option<NotRun>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Why it could not be put back.
    pub put_back_failure: Option<Failure>,
}

/// How it ended for one app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AppEnd {
    /// It was current.
    Unchanged,
    /// `enabled: false`.
    Disabled,
    /// Not among the `--app` options.
    NotSelected,
    /// It is not for this host.
    Elsewhere,
    /// Fetch, checkout or checks failed; the host was not touched.
    NotPrepared,
    /// The run ended before its turn.
    NotRun,
    /// It is deployed.
    Deployed,
    /// Its deployment failed.
    Failed,
    /// It was deployed, or failed, and was put back.
    PutBack,
    /// It was deployed, or failed, and could not be put back.
    NotPutBack,
}

/// Puts plan and outcome together.
pub fn app_reports(plan: &Plan, outcome: Outcome) -> Vec<AppReport> {
    let apps = plan.steps.iter().zip(outcome.apps);
    apps.map(|(step, app)| {
        let (mut elsewhere, mut not_run, mut put_back_failure) = (None, None, None);
        let (result, failure) = match app.result {
            AppResult::Unchanged => (AppEnd::Unchanged, None),
            AppResult::Skipped(SkipReason::Disabled) => (AppEnd::Disabled, None),
            AppResult::Skipped(SkipReason::NotSelected) => (AppEnd::NotSelected, None),
            AppResult::Skipped(SkipReason::Elsewhere(why)) => {
                elsewhere = Some(why.why);
                (AppEnd::Elsewhere, None)
            }
            AppResult::NotPrepared(failure) => (AppEnd::NotPrepared, Some(failure)),
            AppResult::NotRun(why) => {
                not_run = Some(why);
                (AppEnd::NotRun, None)
            }
            AppResult::Deployed => (AppEnd::Deployed, None),
            AppResult::Failed(failure) => (AppEnd::Failed, Some(failure)),
            AppResult::PutBack { failure } => (AppEnd::PutBack, failure),
            AppResult::NotPutBack { failure, why } => {
                put_back_failure = Some(why);
                (AppEnd::NotPutBack, failure)
            }
        };
        AppReport {
            name: app.name.to_string(),
            source: step.app.source.to_string(),
            result,
            reason: match &step.action {
                Action::Deploy(reason) => Some(reason.clone()),
                Action::Keep | Action::Skip(_) => None,
            },
            from: app.from,
            to: app.to,
            seconds: app.took.as_secs_f64(),
            prepare_seconds: None,
            fetched_bytes: 0,
            elsewhere,
            not_run,
            failure,
            put_back_failure,
        }
    })
    .collect()
}

impl RunReport {
    /// The apps that ended so.
    pub fn ended(&self, end: AppEnd) -> impl Iterator<Item = &AppReport> {
        self.apps.iter().filter(move |app| app.result == end)
    }

    /// The apps that failed in whatever way, those whose deployment failed first.
    pub fn failed(&self) -> impl Iterator<Item = (&AppReport, &Failure)> {
        self.ended(AppEnd::Failed)
            .chain(self.ended(AppEnd::NotPutBack))
            .chain(self.ended(AppEnd::PutBack))
            .chain(self.ended(AppEnd::NotPrepared))
            .filter_map(|app| Some((app, app.failure.as_ref()?)))
    }
}

impl AppReport {
    /// Why it was not run, in words, where there is something to say.
    pub fn why_not_run(&self) -> Option<String> {
        self.not_run.as_ref().and_then(NotRun::describe)
    }

    /// `77cd001->91ab77c`, or `91ab77c` if nothing was deployed before; `91ab77c again` if it was
    /// the last good one already: an attempt of another did not end well, or it is forced.
    pub fn change(&self) -> String {
        match self.from {
            Some(from) if from == self.to => format!("{} again", from.short()),
            Some(from) => format!("{}->{}", from.short(), self.to.short()),
            None => self.to.short(),
        }
    }
}

/// `12 s`, `3.4 s`, `2 min 5 s`.
pub fn seconds(seconds: f64) -> String {
    if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else if seconds < 119.5 {
        format!("{seconds:.0} s")
    } else {
        let minutes = (seconds / 60.0).floor();
        format!("{minutes:.0} min {:.0} s", seconds - minutes * 60.0)
    }
}

/// A line that can be printed anywhere: control characters (escape sequences and tabs among
/// them) become spaces or visible, and it has at most `width` characters.
pub fn tame(line: &str, width: usize) -> String {
    let mut tamed = String::new();
    let mut chars = line.trim_end().chars();
    for (count, c) in chars.by_ref().enumerate() {
        if count == width {
            // Room for the mark that says something is missing.
            tamed.pop();
            tamed.push('…');
            break;
        }
        tamed.push(match c {
            '\t' => ' ',
            // C1 controls and the bidirectional overrides move things around, too.
            c if c.is_control() => '\u{fffd}',
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                '\u{fffd}'
            }
            c => c,
        });
    }
    tamed
}

/// JSON that can be printed anywhere: what its writer leaves as it is, and moves things around
/// on a terminal, becomes an escape that stands for the same.
pub fn tame_json(json: &str) -> String {
    let mut tamed = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // All of them have four digits, and stand inside of texts only.
            '\u{7f}'..='\u{9f}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => tamed.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => tamed.push(c),
        }
    }
    tamed
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn report() -> RunReport {
        RunReport {
            version: JSON_VERSION,
            command: "deploy",
            run: "20261125T104501Z-1a2b".into(),
            who: "root@host".into(),
            exit_code: ExitCode::Ok,
            seconds: 12.3,
            manifest: "multideployer.yaml".into(),
            tool: Some("built-in".into()),
            hook: None,
            log: "/var/log/codedeploy-multideployer/multideployer.log".into(),
            apps: Vec::new(),
            diagnostics: Vec::new(),
            warnings: Vec::new(),
            failure: None,
        }
    }

    pub(crate) fn app(name: &str, result: AppEnd, failure: Option<Failure>) -> AppReport {
        AppReport {
            name: name.into(),
            source: format!("https://git.example.com/acme/{name}.git"),
            result,
            reason: None,
            from: Some(Revision::from_bytes([0x77; 20])),
            to: Revision::from_bytes([0x91; 20]),
            seconds: 3.2,
            prepare_seconds: None,
            fetched_bytes: 0,
            elsewhere: None,
            not_run: None,
            failure,
            put_back_failure: None,
        }
    }

    #[test]
    fn lines_are_tamed() {
        assert_eq!(tame("a\tb\u{1b}[31mc\r\n", 80), "a b\u{fffd}[31mc");
        assert_eq!(tame("abcdef", 4), "abc…");
        assert_eq!(tame("abcd", 4), "abcd");
        assert_eq!(tame("\u{202e}x", 4), "\u{fffd}x");
    }

    #[test]
    fn durations_read_well() {
        for (s, text) in
            [(0.04, "0.0 s"), (9.96, "10 s"), (61.0, "61 s"), (125.0, "2 min 5 s"), (3.25, "3.2 s")]
        {
            assert_eq!(seconds(s), text);
        }
    }

    #[test]
    fn what_changed() {
        let mut app = app("api", AppEnd::Deployed, None);
        assert_eq!(app.change(), "7777777->9191919");
        app.from = Some(app.to);
        assert_eq!(app.change(), "9191919 again");
        app.from = None;
        assert_eq!(app.change(), "9191919");
    }
}
