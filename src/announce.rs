//! After a run: the metrics file is written, and whoever wants to know of it is told. Neither
//! changes how the run ended.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::deploy::{hidden, json};
use crate::domain::AppName;
use crate::error::{ExitCode, Failure};
use crate::files;
use crate::ledger;
use crate::load;
use crate::manifest::Manifest;
use crate::manifest::reporting::Reporting;
use crate::notify::{self, Ended, World};
use crate::process::Interrupt;
use crate::report::console::Console;
use crate::report::metrics::{self, AppFacts};
use crate::report::{AppEnd, RunReport};
use crate::settings::Settings;

/// How long all receivers together may take: the hook's time is the apps'.
const ALL: Duration = Duration::from_secs(60);
/// The same when a signal ended the run: it has to be gone 4 s after.
const AFTER_SIGNAL: Duration = Duration::from_secs(1);

/// Who wants to know of a run, and what of.
#[derive(Debug, Default)]
pub struct Audience {
    report: Reporting,
    apps: Vec<AppName>,
    hidden: Vec<OsString>,
}

impl Audience {
    /// As the manifest and the machine file say; without a manifest that can be used, the
    /// machine file alone.
    pub fn new(settings: &Settings, manifest: Option<&Manifest>) -> Self {
        let Some(manifest) = manifest else {
            let machine = load::machine(settings).unwrap_or_default();
            let hidden = hidden(&settings.environment, &machine.hosts, &machine.report);
            return Self { report: machine.report, apps: Vec::new(), hidden };
        };
        Self {
            report: manifest.report.clone(),
            apps: manifest.apps.iter().map(|app| app.name.clone()).collect(),
            hidden: hidden(&settings.environment, &manifest.hosts, &manifest.report),
        }
    }

    /// Writes the metrics and tells the receivers. What goes wrong is a warning.
    pub fn tell(
        &self,
        report: &RunReport,
        settings: &Settings,
        interrupt: &Interrupt,
        console: &Console,
    ) {
        if let Some(path) = &self.report.textfile
            && let Err(error) = write_metrics(path, report, &self.apps, &settings.cache_dir)
        {
            console.warn(None, &format!("the metrics are not written: {error}"));
        }
        let untouched = |end| {
            matches!(
                end,
                AppEnd::Unchanged | AppEnd::Disabled | AppEnd::NotSelected | AppEnd::Elsewhere
            )
        };
        let ended = Ended {
            well: report.exit_code == ExitCode::Ok,
            changed: report.apps.iter().any(|app| !untouched(app.result)),
        };
        let wanted: Vec<_> =
            self.report.notify.iter().filter(|notify| notify::wanted(notify, ended)).collect();
        if wanted.is_empty() {
            return;
        }
        let document = json(report);
        let signalled = matches!(
            report.exit_code,
            ExitCode::Hangup | ExitCode::Interrupted | ExitCode::Terminated
        );
        let most = if signalled { AFTER_SIGNAL } else { ALL };
        // That a signal ended the run is what they are to be told.
        let fresh = Interrupt::new();
        let world = World {
            variable: &|name| settings.environment.text(name),
            hidden: &self.hidden,
            interrupt: if signalled { &fresh } else { interrupt },
            log: &|line| console.log(None, &format!("notify | {line}")),
            warn: &|text| console.warn(None, &text),
        };
        let started = Instant::now();
        for notify in wanted {
            let left = most.saturating_sub(started.elapsed());
            if let Err(error) = notify::send(notify, &document, left, &world) {
                let failure = Failure::from_error(ExitCode::Unexpected, &error);
                console.warn(None, &format!("somebody was not told of this run: {failure}"));
            }
        }
    }
}

fn write_metrics(
    path: &Path,
    report: &RunReport,
    apps: &[AppName],
    cache: &Path,
) -> std::io::Result<()> {
    let before = match fs_err::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let facts: Vec<AppFacts> = apps.iter().map(|app| facts(app, cache)).collect();
    let now = jiff::Timestamp::now().as_second();
    files::publish(path, metrics::render(report, &facts, now, &before).as_bytes())
}

fn facts(name: &AppName, cache: &Path) -> AppFacts {
    let mirror = ledger::mirror_path(cache, name);
    let deployed = ledger::read(&mirror).ok().and_then(|recorded| recorded.deployed);
    let written = fs_err::metadata(mirror.join(ledger::DEPLOYED)).and_then(|file| file.modified());
    let since = written
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .and_then(|since| i64::try_from(since.as_secs()).ok());
    let sizes = walkdir::WalkDir::new(&mirror).into_iter().flatten();
    let files = sizes.filter(|entry| entry.file_type().is_file());
    let bytes = files.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum();
    AppFacts {
        name: name.to_string(),
        deployed: deployed.map(|revision| revision.to_string()),
        since: since.filter(|_| deployed.is_some()),
        mirror_bytes: mirror.exists().then_some(bytes),
    }
}
