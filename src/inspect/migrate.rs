//! `migrate --check`: is what 0.3.1's `last_state.yaml` claims what is installed?
//!
//! After a run of several apps that failed half-way, 0.3.1 left the file as it was before: an
//! app may be newer than the file says. The first run believes the file, so this is to be asked
//! before it. Nothing else has to be done to migrate.

use serde::Serialize;

use super::drift::Drift;
use crate::cli::MigrateArgs;
use crate::deploy::{Answer, Refusal, json, recorded_of};
use crate::domain::{AppName, Revision};
use crate::error::{ExitCode, Failure};
use crate::ledger::last_state::LastState;
use crate::load::load;
use crate::process::Interrupt;
use crate::report::human::Paint;
use crate::report::{JSON_VERSION, tame};
use crate::settings::Settings;

/// `migrate --check`.
pub fn migrate(
    settings: &Settings,
    args: &MigrateArgs,
    interrupt: &Interrupt,
) -> Result<Answer, Refusal> {
    let manifest = load(settings)?;
    let (state, trouble) = LastState::load(&settings.last_state()).map_err(Failure::from)?;
    let mut apps = Vec::new();
    for (name, entry) in state.apps() {
        if let Some(signal) = interrupt.signal() {
            return Err(Failure::new(ExitCode::of_signal(signal), "ended by a signal").into());
        }
        let mut claim = Claim {
            name: name.to_owned(),
            release: entry.release.clone(),
            recorded: false,
            drift: None,
            why: None,
        };
        match check(settings, name, &entry.release, &manifest, &state, interrupt) {
            Ok((recorded, drift)) => (claim.recorded, claim.drift) = (recorded, Some(drift)),
            Err(why) => claim.why = Some(why),
        }
        apps.push(claim);
    }
    let differs = apps.iter().any(Claim::differs);
    let code = if args.exit_code && differs { ExitCode::Changes } else { ExitCode::Ok };
    let report = MigrateReport {
        version: JSON_VERSION,
        command: "migrate",
        apps,
        warnings: trouble.into_iter().collect(),
    };
    let stdout =
        if settings.voice.json { json(&report) } else { report.human(Paint(settings.voice.color)) };
    Ok(Answer { stdout, code })
}

/// Whether it is recorded in refs already, and how its files stand to the claim; else why that
/// cannot be known.
fn check(
    settings: &Settings,
    name: &str,
    release: &str,
    manifest: &crate::manifest::Manifest,
    state: &LastState,
    interrupt: &Interrupt,
) -> Result<(bool, Drift), String> {
    let parsed: AppName = name.parse().map_err(|_| "it has no name that can be deployed")?;
    let app = manifest.apps.iter().find(|app| app.name == parsed);
    let app = app.ok_or("the manifest does not say how it is deployed")?;
    let commit: Revision = release
        .parse()
        .map_err(|_| "its release is a name: what commit that was is not known any more")?;
    let recorded = recorded_of(&parsed, &settings.cache_dir, state);
    let recorded = recorded.map_err(|failure| failure.line())?.deployed.is_some();
    Ok((recorded, Drift::of(settings, app, commit, interrupt)))
}

/// The JSON document of `migrate`.
#[derive(Serialize)]
struct MigrateReport {
    version: u32,
    command: &'static str,
    apps: Vec<Claim>,
    warnings: Vec<String>,
}

/// An entry of the file.
#[derive(Serialize)]
struct Claim {
    name: String,
    release: String,
    /// It is recorded in refs, too: this program deployed it.
    recorded: bool,
    drift: Option<Drift>,
    /// Why it could not be compared.
    why: Option<String>,
}

impl Claim {
    fn differs(&self) -> bool {
        self.drift.as_ref().is_some_and(Drift::differs)
    }
}

impl MigrateReport {
    fn human(&self, paint: Paint) -> String {
        let mut text = String::new();
        for warning in &self.warnings {
            text += &format!("{} {}\n", paint.yellow("warning:"), tame(warning, 400));
        }
        let width = self.apps.iter().map(|app| app.name.len()).max().unwrap_or(0);
        for app in &self.apps {
            let short: String = app.release.chars().take(7).collect();
            let mut lines = match (&app.drift, &app.why) {
                (Some(drift), _) => drift.lines(paint),
                (None, why) => vec![format!("not known: {}", why.as_deref().unwrap_or_default())],
            };
            let first = if lines.is_empty() { String::new() } else { lines.remove(0) };
            text += &format!("{:width$}  {}  {first}\n", tame(&app.name, 100), tame(&short, 7));
            for line in lines {
                text += &format!("{:width$}           {line}\n", "");
            }
        }
        let wrong: Vec<&str> =
            self.apps.iter().filter(|app| app.differs()).map(|app| app.name.as_str()).collect();
        text += &if self.apps.is_empty() {
            "last_state.yaml names no app: there is nothing to migrate".to_owned()
        } else if wrong.is_empty() {
            "no app is known to differ from what last_state.yaml claims".to_owned()
        } else {
            let only = wrong.join(" -a ");
            format!("if no script of theirs did that: multideployer deploy --force -a {only}")
        };
        let open = |app: &&Claim| app.drift.as_ref().is_some_and(Drift::is_unknown);
        if self.apps.iter().any(|app| open(&app)) {
            text += "\n`multideployer fetch` brings the wanted commits here and deploys nothing; ask again then";
        }
        text + "\n"
    }
}
