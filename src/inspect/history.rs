//! `history`: what was deployed here, when, and how it ended.

use serde::Serialize;

use super::recorded_apps;
use crate::cli::HistoryArgs;
use crate::deploy::{Answer, Refusal, json};
use crate::domain::{AppName, Revision};
use crate::error::{ExitCode, Failure};
use crate::ledger::history::{self, Entry};
use crate::report::human::Paint;
use crate::report::{JSON_VERSION, seconds, tame};
use crate::settings::Settings;

/// Characters of a failure's text.
const WIDTH: usize = 300;

/// `history`: the attempts at all apps or some, newest first.
pub fn history(settings: &Settings, args: &HistoryArgs) -> Result<Answer, Refusal> {
    let recorded = recorded_apps(settings)?;
    let names: Vec<&AppName> = if args.apps.is_empty() {
        recorded.iter().collect()
    } else {
        let known = |wanted: &String| {
            recorded.iter().find(|name| name.as_str() == wanted).ok_or_else(|| {
                Failure::new(
                    ExitCode::Configuration,
                    format!("nothing is recorded of an app {wanted:?}"),
                )
                .hint("`multideployer history` without names lists all")
            })
        };
        args.apps.iter().map(known).collect::<Result<_, _>>()?
    };
    let mut warnings = Vec::new();
    let mut entries = Vec::new();
    for name in names {
        let path = crate::ledger::mirror_path(&settings.cache_dir, name);
        let read = crate::mirror::open_read_only(&path)
            .map_err(Failure::from)
            .and_then(|repository| Ok(history::read(&repository)?));
        match read {
            Ok(read) => entries.extend(read),
            // The others' history is worth showing all the same.
            Err(failure) => warnings.push(format!("{name}: {failure}")),
        }
    }
    if let Some(age) = args.since {
        let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        let oldest = jiff::Timestamp::now().as_second().saturating_sub(age);
        entries.retain(|entry| entry.time >= oldest);
    }
    entries.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| b.run.cmp(&a.run)));
    entries.truncate(args.most);
    let report = HistoryReport {
        version: JSON_VERSION,
        command: "history",
        entries: entries.iter().map(Attempt::from).collect(),
        warnings,
    };
    let stdout =
        if settings.voice.json { json(&report) } else { report.human(Paint(settings.voice.color)) };
    Ok(Answer { stdout, code: ExitCode::Ok })
}

#[derive(Serialize)]
struct HistoryReport<'a> {
    version: u32,
    command: &'static str,
    /// Newest first.
    entries: Vec<Attempt<'a>>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Attempt<'a> {
    /// When it ended, in seconds since 1970.
    time: i64,
    app: &'a AppName,
    result: &'static str,
    from: Option<Revision>,
    to: Revision,
    source: &'a str,
    seconds: f64,
    run: &'a str,
    deployment: Option<&'a str>,
    tool: &'a str,
    who: &'a str,
    failure: Option<&'a str>,
}

impl<'a> From<&'a Entry> for Attempt<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            time: entry.time,
            app: &entry.app,
            result: entry.result(),
            from: entry.from,
            to: entry.to,
            source: &entry.source,
            seconds: entry.took.as_secs_f64(),
            run: &entry.run,
            deployment: entry.deployment.as_deref(),
            tool: &entry.tool,
            who: &entry.who,
            failure: entry.failure.as_deref(),
        }
    }
}

impl HistoryReport<'_> {
    fn human(&self, paint: Paint) -> String {
        let mut text = String::new();
        for warning in &self.warnings {
            text += &format!("{} {}\n", paint.yellow("warning:"), tame(warning, WIDTH));
        }
        if self.entries.is_empty() {
            return text + "no deployments are recorded\n";
        }
        let width = self.entries.iter().map(|entry| entry.app.as_str().len()).max().unwrap_or(0);
        for entry in &self.entries {
            let time = jiff::Timestamp::from_second(entry.time).unwrap_or_default();
            let from = entry.from.map_or_else(|| "nothing".to_owned(), |from| from.short());
            let result = match entry.failure {
                Some(_) => paint.red(&format!("{:8}", entry.result)),
                None => paint.green(entry.result),
            };
            text += &format!(
                "{}  {:width$}  {from:>7} -> {}  {result} in {}",
                time.strftime("%Y-%m-%d %H:%M:%SZ"),
                entry.app.as_str(),
                entry.to.short(),
                seconds(entry.seconds),
            );
            if let Some(deployment) = entry.deployment {
                text += &format!("  by {}", tame(deployment, 40));
            }
            text += &format!("  {}\n", paint.dim(&format!("run {}", tame(entry.run, 40))));
            if let Some(failure) = entry.failure {
                text += &format!("{:20}  {:width$}  {}\n", "", "", tame(failure, WIDTH));
            }
        }
        text
    }
}
