//! `plan`, also as `deploy --dry-run`.

use std::sync::OnceLock;

use serde::Serialize;

use super::answer::eprint;
use super::{Answer, Means, Refusal, json, of_removed, recorded, resolve_all, select};
use crate::cli::PlanArgs;
use crate::codedeploy::{self, Found};
use crate::diagnostic::Diagnostic;
use crate::domain::{AppName, OnFailure, Revision};
use crate::error::{ExitCode, Failure};
use crate::host::Run;
use crate::ledger::last_state::LastState;
use crate::load::load;
use crate::plan::{Action, Plan};
use crate::preview;
use crate::process::Interrupt;
use crate::report::JSON_VERSION;
use crate::report::console::{Console, Place};
use crate::report::human::{self, Paint};
use crate::report::log::Log;
use crate::report::preview::{Preview, Previews};
use crate::settings::Settings;

/// `plan`, also as `deploy --dry-run`.
pub fn plan(
    settings: &Settings,
    args: &PlanArgs,
    interrupt: &Interrupt,
) -> Result<Answer, Refusal> {
    let manifest = load(settings)?;
    let selection = select(settings, &manifest, &args.apps, args.force, args.on_failure)?;
    let found = codedeploy::find(&settings.tool, settings.environment.get("PATH"))?;
    let console = Console::new(Place::Nowhere, false, Paint(false), Log::default());
    let (state, trouble) = LastState::load(&settings.last_state()).map_err(Failure::from)?;
    let means = Means::of(settings, &manifest);
    let tool = OnceLock::new();
    let probe = || codedeploy::probe(&found, None, &means.hidden, interrupt);
    let run = Run { offline: args.offline, ..means.run(&tool, &probe, interrupt, &console) };
    let removed = of_removed(settings, &manifest, &state);
    let recorded = recorded(&manifest, &settings.cache_dir, &state)?;
    let wanted = resolve_all(&manifest, &selection, &run)?;
    let plan = crate::plan::plan(wanted, |name| recorded[name].clone(), &selection);
    let changes = plan.deployments().count();
    let mut warnings: Vec<String> = trouble.into_iter().collect();
    warnings.extend(console.warnings());
    warnings.extend(removed);
    let previews = preview::of(&plan, &settings.cache_dir);
    let code = if args.exit_code && changes > 0 { ExitCode::Changes } else { ExitCode::Ok };
    let paint = Paint(settings.voice.color);
    let stdout = if settings.voice.json {
        json(&PlanReport::new(&plan, changes, &found, &manifest.warnings, warnings, previews))
    } else {
        let mut noise: String =
            manifest.warnings.iter().map(|finding| human::diagnostic(finding, paint)).collect();
        for warning in &warnings {
            noise += &format!("{} {warning}\n", paint.yellow("warning:"));
        }
        eprint(&noise);
        human::plan(&plan, &previews, Some(&found.describe()), paint)
    };
    Ok(Answer { stdout, code })
}

/// The JSON document of `plan`.
#[derive(Serialize)]
struct PlanReport<'a> {
    version: u32,
    command: &'static str,
    changes: usize,
    tool: String,
    apps: Vec<PlannedApp<'a>>,
    diagnostics: &'a [Diagnostic],
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct PlannedApp<'a> {
    name: &'a AppName,
    source: String,
    release: String,
    from: Option<Revision>,
    to: Revision,
    action: &'a Action,
    on_failure: OnFailure,
    needs: &'a [AppName],
    /// What is asked after it was deployed.
    checks: Vec<String>,
    /// What is known of it, if it would be deployed.
    preview: Option<Preview>,
}

impl<'a> PlanReport<'a> {
    fn new(
        plan: &'a Plan,
        changes: usize,
        tool: &Found,
        diagnostics: &'a [Diagnostic],
        warnings: Vec<String>,
        mut previews: Previews,
    ) -> Self {
        let apps = plan
            .steps
            .iter()
            .map(|step| PlannedApp {
                name: &step.app.name,
                source: step.app.source.to_string(),
                release: step.app.release.to_string(),
                from: step.from,
                to: step.revision,
                action: &step.action,
                on_failure: step.on_failure,
                needs: &step.app.needs,
                checks: step.app.checks.iter().map(|check| check.probe.to_string()).collect(),
                preview: previews.remove(&step.app.name),
            })
            .collect();
        Self {
            version: JSON_VERSION,
            command: "plan",
            changes,
            tool: tool.describe(),
            apps,
            diagnostics,
            warnings,
        }
    }
}
