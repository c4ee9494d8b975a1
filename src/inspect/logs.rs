//! `logs`: what a run said, from the log file and those put aside.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde::Serialize;

use crate::cli::LogsArgs;
use crate::deploy::{Answer, Refusal, json};
use crate::error::{ExitCode, Failure};
use crate::load;
use crate::report::JSON_VERSION;
use crate::report::log::{Line, rotated};
use crate::settings::Settings;

/// Files put aside that are looked for.
const MOST_FILES: u16 = 1000;
/// Runs whose lines are held while the file is read: two may write at once.
const HELD: usize = 8;

/// `logs`: the lines of one run, the last by default, about one app or all.
pub fn logs(settings: &Settings, args: &LogsArgs) -> Result<Answer, Refusal> {
    // A manifest that is refused now may have had its say when the log was written.
    let (log, _) = load::log(settings, load::load(settings).ok().as_ref());
    let mut runs: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    let mut files = vec![log.clone()];
    files.extend(
        (1..=MOST_FILES)
            .map(|n| rotated(&log, n))
            .take_while(|file| file.symlink_metadata().is_ok()),
    );
    for file in files.iter().rev() {
        read(file, args, &mut runs).map_err(|error| {
            Failure::from_error(ExitCode::Unfit, &error)
                .context(format!("cannot read the log `{}`", file.display()))
                .hint("run as the user that deploys, or name the log with --log")
        })?;
    }
    // A run is of interest only if it did something with the app.
    runs.retain(|_, lines| args.app.is_none() || lines.iter().any(|line| line.app.is_some()));
    let Some((run, lines)) = runs.pop_last() else {
        let about = args.app.as_ref().map(|app| format!(" of {app:?}")).unwrap_or_default();
        let which = match &args.run {
            Some(run) => format!("the run {run:?}"),
            None => "a run".to_owned(),
        };
        return Err(Failure::new(
            ExitCode::Configuration,
            format!("`{}` has no lines{about} from {which}", log.display()),
        )
        .hint("`multideployer history` lists apps and runs")
        .into());
    };
    let stdout = if settings.voice.json {
        let (version, command) = (JSON_VERSION, "logs");
        json(&LogsReport { version, command, run: &run, app: args.app.as_deref(), lines: &lines })
    } else {
        lines.iter().map(|line| text(line, args.app.is_some())).collect()
    };
    Ok(Answer { stdout, code: ExitCode::Ok })
}

#[derive(Serialize)]
struct LogsReport<'a> {
    version: u32,
    command: &'static str,
    run: &'a str,
    app: Option<&'a str>,
    lines: &'a [Line],
}

/// A line without what is the same in all of them.
fn text(line: &Line, one_app: bool) -> String {
    let body = crate::report::tame(&line.body, usize::MAX);
    match &line.app {
        Some(app) if !one_app => format!("{} {app}: {body}\n", line.timestamp),
        _ => format!("{} {body}\n", line.timestamp),
    }
}

/// Adds a file's lines to their runs. Lines that this program did not write are passed over.
fn read(file: &Path, args: &LogsArgs, runs: &mut BTreeMap<String, Vec<Line>>) -> io::Result<()> {
    let file = fs_err::File::open(file)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    for line in BufReader::new(file).split(b'\n') {
        let Some(line) = Line::parse(&String::from_utf8_lossy(&line?)) else { continue };
        let wanted_run = args.run.as_ref().is_none_or(|run| *run == line.run);
        let wanted_app = args.app.is_none() || line.app.is_none() || line.app == args.app;
        if wanted_run && wanted_app {
            runs.entry(line.run.clone()).or_default().push(line);
            if runs.len() > HELD {
                runs.pop_first();
            }
        }
    }
    Ok(())
}
