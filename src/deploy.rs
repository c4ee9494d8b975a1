//! The commands that begin with a plan: `deploy` and `plan`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::announce::Audience;
use crate::cli::{DeployArgs, PlanArgs};
use crate::codedeploy::{self, Found};
use crate::diagnostic::Diagnostic;
use crate::domain::{AppName, Deadline, Elsewhere, Facts, OnFailure, Release, Revision};
use crate::error::{ExitCode, Failure};
use crate::host::{self, LiveHost, Run};
use crate::hosts::{Auth, HostRule, Hosts};
use crate::inspect::removed_apps;
use crate::ledger::last_state::LastState;
use crate::ledger::lock::{Claim, RunLock};
use crate::load::{self, load};
use crate::manifest::Manifest;
use crate::manifest::policy::RemovedApps;
use crate::manifest::reporting::Reporting;
use crate::mirror::credentials::Kept;
use crate::plan::{Action, Plan, Recorded, Selection, SkipReason, Wanted};
use crate::preview;
use crate::process::{self, Interrupt};
use crate::report::console::{Console, Place};
use crate::report::human::{self, Paint};
use crate::report::log::{self, Log};
use crate::report::preview::{Preview, Previews};
use crate::report::{self, JSON_VERSION, RunReport};
use crate::rollback::{self, Target};
use crate::rollout::rollout;
use crate::settings::{Environment, Settings};

/// How long a run waits for another unless told otherwise: long enough for a small rollout,
/// short enough that the agent sees why.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(300);
/// Apps that are fetched at a time unless told otherwise.
pub(crate) const JOBS: usize = 4;

/// What a command prints on standard output, and its exit code.
pub struct Answer {
    /// Standard output.
    pub stdout: String,
    /// The exit code.
    pub code: ExitCode,
}

/// A command that could not be carried out, and what is wrong with the manifest if that is why.
pub struct Refusal {
    /// Why.
    pub failure: Failure,
    /// All findings.
    pub diagnostics: Vec<Diagnostic>,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::new(failure, Vec::new())
    }
}

impl Refusal {
    /// A refusal with all findings that explain it.
    pub fn new(failure: Failure, diagnostics: Vec<Diagnostic>) -> Self {
        Self { failure, diagnostics }
    }

    /// The JSON document of a command that failed: its name, where that is known.
    pub fn document(&self, command: Option<&str>) -> String {
        #[derive(Serialize)]
        struct Document<'a> {
            version: u32,
            command: Option<&'a str>,
            exit_code: ExitCode,
            failure: &'a Failure,
            diagnostics: &'a [Diagnostic],
        }
        json(&Document {
            version: JSON_VERSION,
            command,
            exit_code: self.failure.code,
            failure: &self.failure,
            diagnostics: &self.diagnostics,
        })
    }
}

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
        voice if settings.hook.is_some() || voice.quiet => Place::Nowhere,
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

/// Says on standard error why a command could not be carried out.
pub fn complain(failure: &Failure, diagnostics: &[Diagnostic], paint: Paint) {
    let findings: String =
        diagnostics.iter().map(|finding| human::diagnostic(finding, paint)).collect();
    eprint(&(findings + &human::failure(failure, None, paint)));
}

#[expect(clippy::print_stderr, reason = "the one place where a command complains")]
fn eprint(text: &str) {
    eprint!("{text}");
}

/// A value as one JSON document with a newline, without anything that a terminal would obey.
pub fn json(value: &impl Serialize) -> String {
    match serde_json::to_string_pretty(value) {
        Ok(text) => report::tame_json(&text) + "\n",
        // Only maps with keys that are no text can fail, and there are none.
        Err(error) => format!("{{\"version\":{JSON_VERSION},\"error\":\"{error}\"}}\n"),
    }
}

/// What a run is to do.
#[derive(Clone, Copy)]
struct Errand<'a> {
    args: &'a DeployArgs,
    /// Where apps are to go back to, instead of to what the manifest wants.
    back: Option<&'a [Target]>,
}

/// What a run borrows from the command that makes it.
pub(crate) struct Means<'a> {
    pub(crate) hosts: &'a Hosts,
    pub(crate) variable: &'a (dyn Fn(&str) -> Option<OsString> + Sync),
    pub(crate) hidden: &'a [OsString],
    pub(crate) tool: &'a OnceLock<Result<codedeploy::Tool, Failure>>,
    pub(crate) probe: &'a (dyn Fn() -> Result<codedeploy::Tool, Failure> + Sync),
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) console: &'a Console,
}

impl<'a> Means<'a> {
    /// A run that only looks: without id, hook and deadline.
    pub(crate) fn run(self, settings: &'a Settings, manifest: &'a Manifest) -> Run<'a> {
        let Self { hosts, variable, hidden, tool, probe, interrupt, console } = self;
        Run {
            id: "",
            cache: &settings.cache_dir,
            hosts,
            apps: &manifest.apps,
            kept: Kept::default(),
            variable,
            hidden,
            offline: false,
            deadline: None,
            min_free_space: manifest.limits.min_free_space.unwrap_or(0),
            hook: None,
            agent_configuration_file: None,
            state: &settings.state_dir,
            who: String::new(),
            tool,
            probe,
            interrupt,
            console,
        }
    }
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
    if lock.after_a_kill() {
        console.note("the run before was killed: removing what it left behind");
        if let Err(failure) = host::sweep(&settings.cache_dir, &settings.last_state()) {
            console.warn(None, &failure.line());
        }
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
    let _lock = take_lock(settings, id, wait, interrupt, console)?;
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
    let hosts = with_given_tokens(settings, &manifest);
    let variable = |name: &str| settings.environment.get(name).map(OsString::from);
    let agent_file = settings.agent_configuration_file.as_deref();
    let hidden = hidden(&settings.environment, &hosts, &manifest.report);
    let probe = || codedeploy::probe(&found, agent_file, &hidden, interrupt);
    let means = Means {
        hosts: &hosts,
        variable: &variable,
        hidden: &hidden,
        tool,
        probe: &probe,
        interrupt,
        console,
    };
    let run = Run {
        id,
        offline: args.offline,
        deadline,
        hook: settings.hook.as_ref(),
        agent_configuration_file: agent_file,
        who: host::who(),
        ..means.run(settings, &manifest)
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
    live.clean_up(code == ExitCode::Ok);
    for (app, release) in &still_wanted {
        let text = format!("the manifest still wants {release}: the next `deploy` goes back to it");
        console.warn(Some(app.as_str()), &text);
    }
    let refused = outcome.refused.clone();
    Ok((report::app_reports(&plan, outcome), manifest.warnings, refused, code))
}

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
    let hosts = with_given_tokens(settings, &manifest);
    let variable = |name: &str| settings.environment.get(name).map(OsString::from);
    let tool = OnceLock::new();
    let hidden = hidden(&settings.environment, &hosts, &manifest.report);
    let probe = || codedeploy::probe(&found, None, &hidden, interrupt);
    let means = Means {
        hosts: &hosts,
        variable: &variable,
        hidden: &hidden,
        tool: &tool,
        probe: &probe,
        interrupt,
        console: &console,
    };
    let run = Run { offline: args.offline, ..means.run(settings, &manifest) };
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

/// What this host is.
pub fn facts(settings: &Settings, manifest: &Manifest) -> Facts {
    let mut labels = manifest.labels.clone();
    labels.extend(settings.labels.iter().cloned());
    Facts {
        deployment_group: settings.environment.text("DEPLOYMENT_GROUP_NAME"),
        application: settings.environment.text("APPLICATION_NAME"),
        hostname: host::hostname(),
        labels,
    }
}

/// The selection by `--app`, `--force` and `--on-failure`.
pub(crate) fn select(
    settings: &Settings,
    manifest: &Manifest,
    names: &[String],
    force: bool,
    on_failure: Option<OnFailure>,
) -> Result<Selection, Failure> {
    let mut only = Vec::new();
    for name in names {
        let known = manifest.apps.iter().find(|app| app.name.as_str() == name);
        let Some(app) = known else {
            let all: Vec<&str> = manifest.apps.iter().map(|app| app.name.as_str()).collect();
            let near = all
                .iter()
                .map(|known| (strsim::damerau_levenshtein(name, known), known))
                .min()
                .filter(|(distance, _)| *distance <= 2);
            let hint = match near {
                Some((_, near)) => format!("did you mean `{near}`?"),
                None => format!("it has: {}", all.join(", ")),
            };
            return Err(Failure::new(
                ExitCode::Configuration,
                format!("the manifest has no app {name:?}"),
            )
            .hint(hint));
        };
        only.push(app.name.clone());
    }
    let facts = facts(settings, manifest);
    let (rollback, policy) = (false, manifest.policy.on_failure);
    Ok(Selection { only, force, rollback, facts, on_failure, policy })
}

fn permitted(settings: &Settings) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() || settings.own_directories {
        return Ok(());
    }
    Err(Failure::new(ExitCode::Unfit, "deploying needs root")
        .hint("run as root; or, for a trial, give all of --cache-dir, --state-dir and --log"))
}

/// What the records say of each app of the manifest.
pub fn recorded(
    manifest: &Manifest,
    cache: &Path,
    state: &LastState,
) -> Result<BTreeMap<AppName, Recorded>, Failure> {
    manifest
        .apps
        .iter()
        .map(|app| Ok((app.name.clone(), recorded_of(&app.name, cache, state)?)))
        .collect()
}

/// What the records say of one app.
pub fn recorded_of(app: &AppName, cache: &Path, state: &LastState) -> Result<Recorded, Failure> {
    let mirror = crate::ledger::mirror_path(cache, app);
    let mut recorded = crate::ledger::read(&mirror).map_err(|error| {
        Failure::from_error(ExitCode::Unfit, &error)
            .context(format!("cannot read the records of {app}"))
            .hint("run as the user that deploys, usually root")
    })?;
    if let Some(entry) = state.get(app.as_str()) {
        recorded.last_state = Some(entry.release.clone());
        recorded.source.clone_from(&entry.source);
    }
    Ok(recorded)
}

/// The commit of each app's release. Apps that are not asked for are not looked up: their
/// release, if it is a name, stays what is deployed.
pub(crate) fn resolve_all(
    manifest: &Manifest,
    selection: &Selection,
    run: &Run<'_>,
) -> Result<Vec<Wanted>, Failure> {
    manifest
        .apps
        .iter()
        .map(|app| {
            let mirror = crate::ledger::mirror_path(run.cache, &app.name);
            let unreadable = |error: std::io::Error| {
                Failure::from_error(ExitCode::Unfit, &error)
                    .context(format!("cannot read the records of {}", app.name))
            };
            let revision = match &app.release {
                Release::Commit(revision) => {
                    crate::ledger::commit_of(&mirror, *revision).map_err(unreadable)?
                }
                Release::Name(name) if selection.leaves_alone(app).is_none() => {
                    host::resolve(run, app, name).map_err(|failure| {
                        failure.context(format!("cannot look up `{name}` for {}", app.name))
                    })?
                }
                Release::Name(_) => {
                    let known = crate::ledger::read(&mirror).map_err(unreadable)?;
                    known.deployed.unwrap_or(Revision::from_bytes([0; 20]))
                }
            };
            Ok(Wanted { app: app.clone(), revision })
        })
        .collect()
}

/// The manifest's hosts, and the tokens of flag and variable bound to theirs: each only where
/// the manifest itself says nothing about that host.
pub(crate) fn with_given_tokens(settings: &Settings, manifest: &Manifest) -> Hosts {
    let mut rules = manifest.hosts.rules().to_vec();
    let mut bind = |host: &str, token: &crate::settings::GivenToken| {
        let auth = Auth::Given { token: token.token.clone(), origin: token.origin };
        // Of the manifest and of the machine file; what they do not say is taken from each other.
        if !rules.iter().any(|rule| rule.prefix == host && rule.auth.is_some()) {
            let prefix = host.to_owned();
            rules.push(HostRule { prefix, auth: Some(auth), ..HostRule::default() });
        }
    };
    if let Some(token) = &settings.token {
        for host in &manifest.github_hosts {
            bind(host, token);
        }
    }
    if let Some(token) = &settings.github_com_token {
        bind("github.com", token);
    }
    Hosts::new(rules)
}

/// Variables that no child may see: ours, and those that hold tokens.
pub(crate) fn hidden(
    environment: &Environment,
    hosts: &Hosts,
    report: &Reporting,
) -> Vec<OsString> {
    let mut names: Vec<OsString> = environment.own_names().map(Into::into).collect();
    names.extend(hosts.secret_variables().map(OsString::from));
    names.extend(report.secret_variables().map(OsString::from));
    names
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
    fn given_tokens_are_bound_to_their_hosts_and_give_way_to_the_manifest() {
        use clap::Parser;
        let text = "version: 2\nhosts:\n  own.example.com: {auth: {token_env: OWN}}\n  \
            ghes.example.com/public: {auth: none}\n  both.example.com: {username: me}\napps:\n";
        let sources = [
            ("github://ghes.example.com/acme/a", Some("MULTIDEPLOYER_GITHUB_TOKEN")),
            ("github://ghes.example.com/public/b", None),
            ("github://own.example.com/acme/c", Some("OWN")),
            ("https://other.example.com/acme/d.git", None),
            ("https://github.com/acme/e.git", Some("CODEDEPLOY_GITHUB_TOKEN")),
            ("github://both.example.com/acme/h", Some("MACHINE")),
            // SSH takes keys: a token that was given for the others is none of its business.
            ("ssh://git@ghes.example.com/acme/g.git", None),
            ("https://github.com.example.com/acme/f.git", None),
        ];
        let app = |(number, (source, _)): (usize, &(&str, Option<&str>))| {
            let release = "1".repeat(40);
            format!("- {{name: app{number}, source: '{source}', release: '{release}'}}\n")
        };
        let text: String =
            text.to_owned() + &sources.iter().enumerate().map(app).collect::<String>();
        let defaults = crate::manifest::Defaults::new("/etc");
        let mut manifest =
            crate::manifest::parse(text.as_bytes(), Path::new("m.yaml"), &defaults).unwrap();
        let machine = HostRule {
            prefix: "both.example.com".into(),
            auth: Some(Auth::TokenEnv("MACHINE".into())),
            ..HostRule::default()
        };
        manifest.hosts = manifest.hosts.or(Hosts::new(vec![machine]));
        let environment: Environment =
            [("MULTIDEPLOYER_GITHUB_TOKEN", "t"), ("CODEDEPLOY_GITHUB_TOKEN", "u")].into();
        let cli = crate::cli::Cli::try_parse_from(["multideployer"]).unwrap();
        let settings = Settings::new(&cli.global, environment).unwrap();
        let hosts = with_given_tokens(&settings, &manifest);
        for (app, (source, place)) in manifest.apps.iter().zip(sources) {
            let shown = hosts.rule_for(&app.source).auth.map(|auth| auth.describe());
            match place {
                Some(place) => assert!(shown.unwrap_or_default().contains(place), "{source}"),
                None => assert!(shown.is_none_or(|shown| !shown.contains("token")), "{source}"),
            }
        }
    }

    #[test]
    fn run_ids_are_ref_names() {
        let id = run_id();
        assert_eq!(id.len(), 23, "{id}");
        assert!(id.parse::<crate::domain::RefName>().is_ok());
    }
}
