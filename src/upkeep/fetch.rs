//! `fetch`: brings commits into the mirrors before they are deployed, as when an image is built
//! or ahead of a maintenance window, so that `deploy --offline` finds all it needs.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Instant;

use serde::Serialize;

use super::{Begun, begin};
use crate::cli::FetchArgs;
use crate::deploy::{self, Answer, JOBS, Means, Refusal, json, no_tool};
use crate::diagnostic::Diagnostic;
use crate::domain::{AppName, OnFailure, Revision, When};
use crate::error::{ExitCode, Failure};
use crate::host::{self, LiveHost, Obtained, Run};
use crate::mirror;
use crate::plan::{Action, Step};
use crate::process::Interrupt;
use crate::report::human::{self, Paint};
use crate::report::{JSON_VERSION, seconds};
use crate::rollout::{Event, Host, in_parallel};
use crate::settings::Settings;

/// `fetch`.
pub fn fetch(
    settings: &Settings,
    args: &FetchArgs,
    interrupt: &Interrupt,
) -> Result<Answer, Refusal> {
    let mut begun = begin(settings, "fetch", args.lock_wait, interrupt)?;
    if args.all {
        for app in &mut begun.manifest.apps {
            (app.enabled, app.when) = (true, When::default());
        }
    }
    let state = std::mem::take(&mut begun.state);
    let Begun { id, manifest, console, .. } = &begun;
    let selection = deploy::select(settings, manifest, &args.apps, false, None)?;
    let means = Means::of(settings, manifest);
    let tool = OnceLock::new();
    let run = Run {
        id,
        hook: settings.hook.as_ref(),
        agent_configuration_file: settings.agent_configuration_file.as_deref(),
        who: host::who(),
        ..means.run(&tool, &no_tool, interrupt, console)
    };
    let wanted = deploy::resolve_all(manifest, &selection, &run)
        .inspect_err(|failure| console.log_error(None, &format!("failed: {failure}")))?;
    let steps: Vec<Step> = wanted
        .into_iter()
        .map(|wanted| Step {
            action: selection.leaves_alone(&wanted.app).map_or(Action::Keep, Action::Skip),
            from: None,
            revision: wanted.revision,
            on_failure: OnFailure::default(),
            app: wanted.app,
        })
        .collect();
    let live = LiveHost::new(run, state);
    // Before there are threads: libgit2's set-up touches the environment.
    mirror::prepare();
    let jobs = args.jobs.or(manifest.policy.jobs.map(u16::from)).map_or(JOBS, usize::from);
    let fetched = in_parallel(
        steps.len(),
        jobs,
        || interrupt.signal().is_some(),
        |number| fetch_one(&live, &steps[number]),
    );
    let apps: Vec<AppFetch> = steps
        .iter()
        .zip(fetched)
        .map(|(step, end)| AppFetch {
            fetched_bytes: console.known(step.app.name.as_str()).fetched,
            ..AppFetch::new(step, end)
        })
        .collect();
    let failed = apps.iter().find_map(|app| app.failure.as_ref());
    let code = match interrupt.signal() {
        Some(signal) => ExitCode::of_signal(signal),
        None => failed.map_or(ExitCode::Ok, |failure| failure.code),
    };
    begun.end(code);
    let report = FetchReport {
        version: JSON_VERSION,
        command: "fetch",
        run: &begun.id,
        exit_code: code,
        seconds: begun.started.elapsed().as_secs_f64(),
        manifest: &settings.config,
        log: &begun.log,
        apps,
        diagnostics: &begun.manifest.warnings,
        warnings: begun.console.warnings(),
    };
    let stdout = match settings.voice {
        voice if voice.json => json(&report),
        voice if voice.quiet && code == ExitCode::Ok => String::new(),
        voice => report.human(Paint(voice.color)),
    };
    Ok(Answer { stdout, code })
}

/// What came of one app, and how long it took; `None` if it is left alone.
type End = Option<(Result<Obtained, Failure>, f64)>;

fn fetch_one(live: &LiveHost<'_>, step: &Step) -> End {
    if let Action::Skip(_) = step.action {
        return None;
    }
    let started = Instant::now();
    live.event(&Event::Preparing(step));
    let obtained = live.fetch(&step.app, step.revision);
    live.event(&Event::Prepared(step, obtained.as_ref().err(), started.elapsed()));
    Some((obtained, started.elapsed().as_secs_f64()))
}

/// The JSON document of `fetch`.
#[derive(Serialize)]
struct FetchReport<'a> {
    version: u32,
    command: &'static str,
    run: &'a str,
    exit_code: ExitCode,
    seconds: f64,
    manifest: &'a PathBuf,
    log: &'a PathBuf,
    apps: Vec<AppFetch>,
    diagnostics: &'a [Diagnostic],
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct AppFetch {
    name: AppName,
    source: String,
    result: Ended,
    /// What is in the mirror now.
    commit: Option<Revision>,
    fetched_bytes: u64,
    seconds: f64,
    /// Why it was left alone.
    why: Option<String>,
    failure: Option<Failure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Ended {
    /// It came, from its server or another mirror.
    Fetched,
    /// It was there.
    Held,
    Failed,
    /// A signal ended the run before.
    NotRun,
    LeftAlone,
}

impl AppFetch {
    fn new(step: &Step, end: Option<End>) -> Self {
        let (mut commit, mut failure, mut took, mut why) = (None, None, 0.0, None);
        let result = match end {
            None => Ended::NotRun,
            Some(None) => {
                if let Action::Skip(reason) = &step.action {
                    why = Some(reason.describe());
                }
                Ended::LeftAlone
            }
            Some(Some((end, seconds))) => {
                took = seconds;
                match end {
                    Ok(obtained) => {
                        commit = Some(obtained.commit);
                        if obtained.held { Ended::Held } else { Ended::Fetched }
                    }
                    Err(why) => {
                        failure = Some(why);
                        Ended::Failed
                    }
                }
            }
        };
        let (name, source) = (step.app.name.clone(), step.app.source.to_string());
        Self { name, source, result, commit, fetched_bytes: 0, seconds: took, why, failure }
    }
}

impl FetchReport<'_> {
    fn human(&self, paint: Paint) -> String {
        let width = self.apps.iter().map(|app| app.name.as_str().len()).max().unwrap_or(0);
        let mut text = String::new();
        for app in &self.apps {
            let commit = app.commit.map(|commit| commit.short()).unwrap_or_default();
            let what = match app.result {
                Ended::Fetched => {
                    let (bytes, took) = (human::bytes(app.fetched_bytes), seconds(app.seconds));
                    paint.green(&format!("{commit}  fetched {bytes} in {took}"))
                }
                Ended::Held => paint.dim(&format!("{commit}  was there")),
                Ended::Failed => paint.red("FAILED"),
                Ended::NotRun => paint.yellow("not fetched"),
                Ended::LeftAlone => {
                    let why = app.why.as_deref().unwrap_or_default();
                    paint.dim(&format!("left alone ({})", crate::report::tame(why, 200)))
                }
            };
            text += &format!("{:width$}  {what}\n", app.name.as_str());
        }
        let count = |result| self.apps.iter().filter(|app| app.result == result).count();
        let sums = [
            (count(Ended::Fetched), "fetched"),
            (count(Ended::Held), "there before"),
            (count(Ended::Failed), "failed"),
            (count(Ended::NotRun), "not fetched"),
            (count(Ended::LeftAlone), "left alone"),
        ];
        let sums: Vec<String> = sums
            .into_iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, what)| format!("{number} {what}"))
            .collect();
        let sums =
            if sums.is_empty() { "no apps in the manifest".to_owned() } else { sums.join(", ") };
        let verdict = match u8::from(self.exit_code) {
            0 => paint.green("ok"),
            code => paint.red(&format!("failed (exit code {code})")),
        };
        let took = seconds(self.seconds);
        text + &format!("multideployer fetch {verdict}: {sums} in {took} (run {})\n", self.run)
    }
}
