//! `status`: what runs here?

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use super::drift::Drift;
use super::recorded_apps;
use crate::cli::StatusArgs;
use crate::deploy::{Answer, Refusal, facts, json, recorded_of};
use crate::domain::{AppName, Release, Revision};
use crate::error::{ExitCode, Failure};
use crate::ledger::history;
use crate::ledger::last_state::LastState;
use crate::load::load;
use crate::plan::{Recorded, Selection};
use crate::process::Interrupt;
use crate::report::human::Paint;
use crate::report::{JSON_VERSION, seconds};
use crate::settings::Settings;

/// `status`: what runs here, since when, and whether that is what the manifest wants.
pub fn status(
    settings: &Settings,
    args: &StatusArgs,
    interrupt: &Interrupt,
) -> Result<Answer, Refusal> {
    let (state, trouble) = LastState::load(&settings.last_state()).map_err(Failure::from)?;
    // Without a manifest there is still something to say, unless one was asked for.
    let optional = !settings.config_named && !args.exit_code;
    let absent = matches!(settings.config.try_exists(), Ok(false));
    let manifest = if optional && absent { None } else { Some(load(settings)?) };
    let mut names: BTreeSet<AppName> = recorded_apps(settings)?;
    names.extend(state.apps().filter_map(|(name, _)| name.parse().ok()));
    let mut order: Vec<AppName> = Vec::new();
    if let Some(manifest) = &manifest {
        order.extend(manifest.apps.iter().map(|app| app.name.clone()));
    }
    names.retain(|name| !order.contains(name));
    order.extend(names);
    for name in &args.apps {
        if !order.iter().any(|known| known.as_str() == name) {
            return Err(Failure::new(
                ExitCode::Configuration,
                format!("nothing is known of an app {name:?}"),
            )
            .hint("`multideployer status` without names lists all")
            .into());
        }
    }
    if !args.apps.is_empty() {
        order.retain(|name| args.apps.iter().any(|wanted| wanted == name.as_str()));
    }
    let facts = manifest.as_ref().map(|manifest| facts(settings, manifest)).unwrap_or_default();
    let selection = Selection { facts, ..Selection::default() };
    let mut apps = Vec::new();
    for name in order {
        let recorded = recorded_of(&name, &settings.cache_dir, &state)?;
        let entry = manifest
            .as_ref()
            .and_then(|manifest| manifest.apps.iter().find(|app| app.name == name));
        let wanted = entry.map(|app| app.release.clone());
        let listed = manifest.as_ref().map(|_| wanted.is_some());
        let mut app = AppStatus::new(settings, name, recorded, wanted.as_ref(), listed);
        let left_alone = entry.is_some_and(|app| selection.leaves_alone(app).is_some());
        if left_alone && matches!(app.state, State::Differs | State::Missing | State::Unresolved) {
            app.state = State::LeftAlone;
        }
        if args.drift
            && let Some(commit) = app.commit()
        {
            app.drift = Some(if let Some(entry) = entry {
                Drift::of(settings, entry, commit, interrupt)
            } else {
                let why = "the manifest does not say how it is deployed";
                Drift::unknown(commit, why.to_owned())
            });
        }
        apps.push(app);
    }
    if let Some(signal) = interrupt.signal() {
        return Err(Failure::new(ExitCode::of_signal(signal), "ended by a signal").into());
    }
    let differs = apps.iter().any(|app| {
        !matches!(app.state, State::Current | State::Unlisted | State::LeftAlone)
            || app.drift.as_ref().is_some_and(Drift::differs)
    });
    let code = if args.exit_code && differs { ExitCode::Changes } else { ExitCode::Ok };
    let report = StatusReport {
        version: JSON_VERSION,
        command: "status",
        manifest: manifest.is_some().then(|| settings.config.clone()),
        apps,
        warnings: trouble.into_iter().collect(),
    };
    let stdout =
        if settings.voice.json { json(&report) } else { report.human(Paint(settings.voice.color)) };
    Ok(Answer { stdout, code })
}

#[derive(Serialize)]
struct StatusReport {
    version: u32,
    command: &'static str,
    manifest: Option<PathBuf>,
    apps: Vec<AppStatus>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct AppStatus {
    name: AppName,
    state: State,
    wanted: Option<String>,
    deployed: Option<Revision>,
    attempted: Option<Revision>,
    previous: Option<Revision>,
    /// What `last_state.yaml` says, where there is no ref.
    imported: Option<String>,
    source: Option<String>,
    /// When `deployed` was, in seconds since 1970.
    since: Option<i64>,
    run: Option<String>,
    deployment: Option<String>,
    tool: Option<String>,
    seconds: Option<f64>,
    /// Why the last attempt failed.
    failure: Option<String>,
    /// How its files stand to `deployed`; only with `--drift`.
    #[serde(skip_serializing_if = "Option::is_none")]
    drift: Option<Drift>,
}

/// How an app stands to the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// It is what the manifest wants.
    Current,
    /// The manifest wants another commit.
    Differs,
    /// An attempt failed or was interrupted.
    Unfinished,
    /// The manifest has it, this host does not.
    Missing,
    /// The records are damaged.
    Damaged,
    /// This host has it, the manifest does not (or there is no manifest).
    Unlisted,
    /// The manifest leaves it alone on this host (`enabled: false`, `when`).
    LeftAlone,
    /// The manifest names a branch or tag, which only the remote can resolve.
    Unresolved,
}

impl State {
    fn of(recorded: &Recorded, wanted: Option<&Release>) -> Self {
        if recorded.damaged.is_some() {
            return Self::Damaged;
        }
        if recorded.attempted.is_some() {
            return Self::Unfinished;
        }
        let Some(wanted) = wanted else { return Self::Unlisted };
        let text = recorded.deployed.map(|revision| revision.to_string());
        let Some(text) = text.or_else(|| recorded.last_state.clone()) else {
            return Self::Missing;
        };
        match wanted {
            _ if text == wanted.to_string() => Self::Current,
            Release::Commit(revision) if text.parse() == Ok(*revision) => Self::Current,
            Release::Commit(_) => Self::Differs,
            Release::Name(_) => Self::Unresolved,
        }
    }

    fn word(self, paint: Paint) -> String {
        match self {
            Self::Current => paint.green("current"),
            Self::Differs => paint.yellow("differs"),
            Self::Unfinished => paint.red("unfinished"),
            Self::Missing => paint.yellow("missing"),
            Self::Damaged => paint.red("damaged"),
            Self::LeftAlone => paint.dim("left alone"),
            Self::Unlisted => paint.dim("not in the manifest"),
            Self::Unresolved => "branch or tag".to_owned(),
        }
    }
}

impl AppStatus {
    fn new(
        settings: &Settings,
        name: AppName,
        recorded: Recorded,
        wanted: Option<&Release>,
        listed: Option<bool>,
    ) -> Self {
        let mut state = State::of(&recorded, wanted);
        if listed.is_none() && state == State::Unlisted && recorded.deployed.is_some() {
            state = State::Current;
        }
        let mirror = crate::ledger::mirror_path(&settings.cache_dir, &name);
        // History is decoration: a mirror that cannot be opened has none.
        let history = crate::mirror::open_read_only(&mirror)
            .ok()
            .and_then(|repository| history::read(&repository).ok())
            .unwrap_or_default();
        let success = history
            .iter()
            .find(|entry| entry.failure.is_none() && Some(entry.to) == recorded.deployed);
        let failure = history.first().and_then(|entry| entry.failure.clone());
        Self {
            state,
            wanted: wanted.map(ToString::to_string),
            deployed: recorded.deployed,
            attempted: recorded.attempted,
            previous: recorded.previous,
            imported: recorded.last_state.filter(|_| recorded.deployed.is_none()),
            source: recorded.source.or_else(|| success.map(|entry| entry.source.clone())),
            since: success.map(|entry| entry.time),
            run: success.map(|entry| entry.run.clone()),
            deployment: success.and_then(|entry| entry.deployment.clone()),
            tool: success.map(|entry| entry.tool.clone()),
            seconds: success.map(|entry| entry.took.as_secs_f64()),
            failure: recorded.attempted.and(failure),
            drift: None,
            name,
        }
    }

    /// The commit that should be installed.
    fn commit(&self) -> Option<Revision> {
        self.deployed.or_else(|| self.imported.as_ref()?.parse().ok())
    }
}

impl StatusReport {
    fn human(&self, paint: Paint) -> String {
        let mut text = String::new();
        for warning in &self.warnings {
            text += &format!("{} {warning}\n", paint.yellow("warning:"));
        }
        if self.apps.is_empty() {
            return text + "nothing is deployed here\n";
        }
        let width = self.apps.iter().map(|app| app.name.as_str().len()).max().unwrap_or(0);
        for app in &self.apps {
            let deployed = match (app.deployed, &app.imported) {
                (Some(revision), _) => revision.short(),
                (None, Some(imported)) => {
                    imported.parse::<Revision>().map_or(imported.clone(), |r| r.short())
                }
                (None, None) => "-".to_owned(),
            };
            let state = app.state.word(paint);
            text += &format!("{:width$}  {deployed:7}  {state}", app.name.as_str());
            if let Some(since) = app.since.and_then(|s| jiff::Timestamp::from_second(s).ok()) {
                text += &format!("  since {}", since.strftime("%Y-%m-%d %H:%M:%SZ"));
            }
            if let Some(deployment) = &app.deployment {
                text += &format!(" by {deployment}");
            }
            if let Some(took) = app.seconds {
                text += &format!(" in {}", seconds(took));
            }
            text += "\n";
            let mut detail = |line: String| text += &format!("{:width$}  {line}\n", "");
            if app.state == State::Differs
                && let Some(wanted) = &app.wanted
            {
                detail(format!("the manifest wants {}", &wanted[..wanted.len().min(7)]));
            }
            if let Some(attempted) = app.attempted {
                detail(format!("the attempt at {} did not succeed", attempted.short()));
            }
            if let Some(failure) = &app.failure {
                detail(format!("last failure: {}", crate::report::tame(failure, 300)));
            }
            if let Some(drift) = &app.drift {
                drift.lines(paint).into_iter().for_each(&mut detail);
            }
        }
        text
    }
}
