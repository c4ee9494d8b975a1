//! The commands that begin with a plan: `deploy` and `plan`.

mod answer;
mod dry;
mod means;
mod wanted;

use std::ffi::OsStr;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::announce::Audience;
use crate::cli::DeployArgs;
use crate::codedeploy;
use crate::diagnostic::Diagnostic;
use crate::domain::{AppName, Deadline, Elsewhere};
use crate::error::{ExitCode, Failure};
use crate::host::{self, LiveHost, Run};
use crate::inspect::removed_apps;
use crate::ledger::last_state::LastState;
use crate::ledger::lock::{Before, Claim, RunLock};
use crate::load::{self, load};
use crate::manifest::Manifest;
use crate::manifest::policy::RemovedApps;
use crate::plan::{Action, SkipReason};
use crate::process::{self, Interrupt};
use crate::report::console::{Console, Place};
use crate::report::human::{self, Paint};
use crate::report::log::{self, Log};
use crate::report::{self, JSON_VERSION, RunReport};
use crate::rollback::{self, Target};
use crate::rollout::rollout;
use crate::settings::Settings;

pub use answer::{Answer, Refusal, complain, json};
pub use dry::plan;
pub(crate) use means::{Means, hidden, no_tool};
pub use wanted::{facts, recorded, recorded_of};
pub(crate) use wanted::{resolve_all, select};

/// How long a run waits for another unless told otherwise: long enough for a small rollout,
/// short enough that the agent sees why.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(300);

/// Apps that are fetched at a time unless told otherwise.
pub(crate) const JOBS: usize = 4;

/// `deploy`.
pub fn deploy(settings: &Settings, args: &DeployArgs, interrupt: &Interrupt) -> Answer {
    run(settings, args, None, interrupt)
}

/// A run that changes this host: to what the manifest wants, or `back` to what was before.
pub(crate) fn run(
    settings: &Settings,
    args: &DeployArgs,
    back: Option<&[Target]>,
    interrupt: &Interrupt,
) -> Answer {
    let started = Instant::now();
    let id = run_id();
    let opened = permitted(settings).and_then(|()| {
        host::private_directory(&settings.cache_dir)?;
        host::private_directory(&settings.state_dir)?;
        load::trusted(settings)
    });
    // Before there is a log: it may say where that is.
    let manifest = load(settings);
    let (log_file, log_options) = load::log(settings, manifest.as_ref().ok());
    let log = opened.is_ok().then_some((log_file.as_path(), log_options));
    let console = console(settings, &id, log);
    console.log(None, &format!("run {id} begins: manifest {}", settings.config.display()));
    for exposed in opened.iter().flatten() {
        console.warn(None, exposed);
    }
    // Not by what somebody else may have written: receivers are programs that are run.
    let audience = match &opened {
        Err(_) if load::trusted(settings).is_err() => Audience::default(),
        _ => Audience::new(settings, manifest.as_ref().ok()),
    };
    let tool = OnceLock::new();
    let result = opened.map_err(Refusal::from).and(manifest).and_then(|manifest| {
        run_plan(settings, Errand { args, back }, manifest, interrupt, &id, &console, &tool)
    });
    let (mut apps, diagnostics, failure, code) = match result {
        Ok((apps, diagnostics, refused, code)) => (apps, diagnostics, refused, code),
        Err(Refusal { failure, diagnostics, .. }) => {
            let code = failure.code;
            (Vec::new(), diagnostics, Some(failure), code)
        }
    };
    for app in &mut apps {
        let known = console.known(&app.name);
        app.prepare_seconds = known.prepared.map(|took| took.as_secs_f64());
        app.fetched_bytes = known.fetched;
    }
    let mut report = RunReport {
        version: JSON_VERSION,
        command: if back.is_some() { "rollback" } else { "deploy" },
        run: id,
        who: host::who(),
        exit_code: code,
        seconds: started.elapsed().as_secs_f64(),
        manifest: settings.config.clone(),
        tool: tool.get().and_then(|tool| tool.as_ref().ok()).map(codedeploy::Tool::describe),
        hook: settings.hook.clone(),
        log: log_file,
        apps,
        diagnostics,
        warnings: console.warnings(),
        failure,
    };
    // Warnings were said, and logged, when they came up.
    for finding in report.diagnostics.iter().filter(|finding| finding.is_error()) {
        console.log_error(None, &finding.to_string());
    }
    if let Some(failure) = &report.failure {
        console.log_error(None, &format!("failed: {failure}"));
    }
    audience.tell(&report, settings, interrupt, &console);
    report.warnings = console.warnings();
    console.log(None, &format!("run {} ends with exit code {}", report.run, u8::from(code)));
    Answer { stdout: render(&report, settings), code }
}

/// Whom a run tells what happens; `log` is its log, if it may write one.
pub(crate) fn console(
    settings: &Settings,
    id: &str,
    log: Option<(&Path, log::Options)>,
) -> Console {
    let place = match settings.voice {
        _ if settings.hook.is_some() => Place::Nowhere,
        voice if voice.quiet => Place::Errors,
        voice if voice.terminal => Place::Terminal,
        _ => Place::Pipe,
    };
    let deployment = settings.hook.as_ref().map(|hook| hook.deployment_id.as_str());
    let opened = log.map(|(path, options)| Log::open(path, options, id, deployment));
    let (log, trouble) = match opened {
        Some(Ok(log)) => (log, None),
        Some(Err(error)) => (Log::default(), Some(format!("no log is written: {error}"))),
        None => (Log::default(), None),
    };
    let console = Console::new(place, settings.voice.verbose, Paint(settings.voice.color), log);
    if let Some(trouble) = trouble {
        console.warn(None, &trouble);
    }
    console
}

/// The report in the form this run's caller reads.
fn render(report: &RunReport, settings: &Settings) -> String {
    let voice = settings.voice;
    if voice.json {
        return json(report);
    }
    if settings.hook.is_some() {
        return report::hook::block(report);
    }
    if voice.quiet && report.exit_code == ExitCode::Ok {
        return String::new();
    }
    let paint = Paint(voice.color);
    match &report.failure {
        Some(failure) if report.apps.is_empty() => {
            complain(failure, &report.diagnostics, paint);
            String::new()
        }
        failure => {
            if let Some(failure) = failure {
                complain(failure, &[], paint);
            }
            human::summary(report, paint)
        }
    }
}

/// What a run is to do.
#[derive(Clone, Copy)]
struct Errand<'a> {
    args: &'a DeployArgs,
    /// Where apps are to go back to, instead of to what the manifest wants.
    back: Option<&'a [Target]>,
}

/// Waits for other runs to end, and removes what one that was killed left behind.
pub(crate) fn take_lock(
    settings: &Settings,
    id: &str,
    wait: Duration,
    interrupt: &Interrupt,
    console: &Console,
) -> Result<RunLock, Failure> {
    let inside = settings.environment.get("MULTIDEPLOYER_RUN_ID").and_then(OsStr::to_str);
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    let holder = format!("pid {} run {id} since {now}", std::process::id());
    let lock = RunLock::acquire(
        &settings.state_dir,
        &Claim { run: id, holder: &holder, wait, inside },
        |whom| console.note(whom),
        || interrupt.signal().map(ExitCode::of_signal),
    )?;
    if lock.before() == Before::Killed {
        console.note("the run before was killed: removing what it left behind");
    }
    if lock.before() != Before::Swept
        && let Err(failure) = host::sweep(&settings.cache_dir, &settings.last_state())
    {
        console.warn(None, &failure.line());
    }
    Ok(lock)
}

type Ran = (Vec<report::AppReport>, Vec<Diagnostic>, Option<Failure>, ExitCode);

fn run_plan(
    settings: &Settings,
    Errand { args, back }: Errand<'_>,
    mut manifest: Manifest,
    interrupt: &Interrupt,
    id: &str,
    console: &Console,
    tool: &OnceLock<Result<codedeploy::Tool, Failure>>,
) -> Result<Ran, Refusal> {
    for warning in &manifest.warnings {
        console.warn(None, &warning.to_string());
    }
    if settings.token.as_ref().is_some_and(|token| token.origin == "-g") {
        console.warn(
            None,
            "a token on the command line can be seen by every user of this host; use MULTIDEPLOYER_GITHUB_TOKEN or a token file",
        );
    }
    let mut selection = select(settings, &manifest, &args.apps, args.force, args.on_failure)?;
    selection.rollback = back.is_some();
    let found = codedeploy::find(&settings.tool, settings.environment.get("PATH"))?;
    let deadline = deadline(settings, args.deadline.unwrap_or(manifest.policy.deadline), console);
    let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
    let wait = args.lock_wait.unwrap_or(LOCK_WAIT).min(left.unwrap_or(Duration::MAX));
    let mut lock = take_lock(settings, id, wait, interrupt, console)?;
    let (state, trouble) = LastState::load(&settings.last_state()).map_err(Failure::from)?;
    if let Some(trouble) = trouble {
        let aside = state.set_aside().map_err(|error| {
            Failure::from_error(ExitCode::Unfit, &error).context("cannot set aside last_state.yaml")
        })?;
        console.warn(None, &format!("{trouble}; it is kept as `{}`", aside.display()));
    }
    for text in of_removed(settings, &manifest, &state) {
        console.warn(None, &text);
    }
    let recorded = recorded(&manifest, &settings.cache_dir, &state)?;
    let still_wanted = match back {
        Some(targets) => {
            rollback::aim(&mut manifest, targets, &selection, &recorded, &settings.cache_dir)?
        }
        None => Vec::new(),
    };
    let diagnostics = std::mem::take(&mut manifest.warnings);
    let means = Means::of(settings, &manifest);
    let agent_file = settings.agent_configuration_file.as_deref();
    let probe = || codedeploy::probe(&found, agent_file, &means.hidden, interrupt);
    let run = Run {
        id,
        offline: args.offline,
        deadline,
        hook: settings.hook.as_ref(),
        agent_configuration_file: agent_file,
        who: host::who(),
        ..means.run(tool, &probe, interrupt, console)
    };
    let wanted = resolve_all(&manifest, &selection, &run)?;
    let plan = crate::plan::plan(wanted, |name| recorded[name].clone(), &selection);
    let changes = plan.deployments().count();
    let mut live = LiveHost::new(run, state);
    for step in plan.steps.iter().filter(|step| step.action == Action::Keep) {
        live.adopt(step)?;
    }
    for step in &plan.steps {
        if let Action::Skip(SkipReason::Elsewhere(Elsewhere { why, unknown: true })) = &step.action
        {
            console.warn(Some(step.app.name.as_str()), &format!("left alone: {why}"));
        }
    }
    let jobs = args.jobs.or(manifest.policy.jobs.map(u16::from)).map_or(JOBS, usize::from);
    if changes > 0 {
        // Before there are threads: libgit2's set-up touches the environment.
        crate::mirror::prepare();
    }
    let outcome = std::thread::scope(|scope| {
        if changes > 0 {
            // 1.x takes seconds to answer; meanwhile the apps are fetched.
            scope.spawn(|| tool.get_or_init(probe));
        }
        rollout(&plan, &mut live, jobs)
    });
    let code = outcome.exit_code();
    if !live.clean_up(code == ExitCode::Ok) {
        lock.leave_unswept();
    }
    for (app, release) in &still_wanted {
        let text = format!("the manifest still wants {release}: the next `deploy` goes back to it");
        console.warn(Some(app.as_str()), &text);
    }
    let refused = outcome.refused.clone();
    Ok((report::app_reports(&plan, outcome), diagnostics, refused, code))
}

/// What is to be said of apps that the manifest names no longer.
fn of_removed(settings: &Settings, manifest: &Manifest, state: &LastState) -> Vec<String> {
    if manifest.policy.removed_apps == RemovedApps::Keep {
        return Vec::new();
    }
    // That they cannot be listed is no reason to end.
    let removed = removed_apps(settings, manifest, state).unwrap_or_default();
    let said = |app: AppName| {
        format!(
            "{app} is not in the manifest any more and stays as it is; `multideployer gc` forgets it"
        )
    };
    removed.into_iter().map(said).collect()
}

/// When a run has to be over.
fn deadline(settings: &Settings, deadline: Deadline, console: &Console) -> Option<Instant> {
    let after = match (deadline, &settings.hook) {
        (Deadline::None, _) | (Deadline::Auto, None) => return None,
        (Deadline::After(time), _) => time,
        (Deadline::Auto, Some(hook)) => {
            let root = codedeploy::root_dir(settings.agent_configuration_file.as_deref());
            let group = settings.environment.text("DEPLOYMENT_GROUP_ID");
            let above = process::command_lines_above();
            let found = codedeploy::hook_timeout(&root, hook, group.as_deref(), &above);
            let whose = match &found.appspec {
                Some(file) => format!("as `{}` says", file.display()),
                None => "the agent's default".to_owned(),
            };
            let timeout = found.timeout.as_secs();
            console.log(None, &format!("the hook may take {timeout} s, {whose}"));
            found.less_a_margin()
        }
    };
    let left = after.saturating_sub(process::age());
    console.log(None, &format!("the run has to be over in {} s", left.as_secs()));
    Instant::now().checked_add(left)
}

fn permitted(settings: &Settings) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() || settings.own_directories {
        return Ok(());
    }
    Err(Failure::new(ExitCode::Unfit, "deploying needs root")
        .hint("run as root; or, for a trial, give all of --cache-dir, --state-dir and --log"))
}

/// `20261125T104501Z-1a2b3c`: sorts by time, is a git ref's name, and can be said on the
/// telephone.
pub(crate) fn run_id() -> String {
    let now = jiff::Timestamp::now();
    let noise = (now.subsec_nanosecond().unsigned_abs() >> 8) ^ std::process::id();
    format!("{}-{:06x}", now.strftime("%Y%m%dT%H%M%SZ"), noise & 0xff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_are_ref_names() {
        let id = run_id();
        assert_eq!(id.len(), 23, "{id}");
        assert!(id.parse::<crate::domain::RefName>().is_ok());
    }
}
