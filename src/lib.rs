//! `multideployer`: many applications, each at one exact commit, from one AWS CodeDeploy
//! deployment group.
//!
//! # How it works, on one page
//!
//! ```text
//! argv, env ─────────────── settings ──► Settings ┐
//! multideployer.yaml ────── manifest ──► Manifest ├─► plan() ─► Plan ─► rollout(&Plan, &mut Host) ─► Outcome ─► report ─► stdout, exit code
//! git refs in the mirrors ─ ledger ────► Recorded ┘   pure               effects, each one recorded     data      human | json | hook block
//! ```
//!
//! A run has four phases, and the host is touched only in the third:
//!
//! 1. **Parse and select.** Manifest, options, ledger. All that can be refused is refused here.
//! 2. **Prepare all, in parallel.** Fetch the commit, check it out, check the bundle. One
//!    failure ends the run with nothing stopped and nothing changed.
//! 3. **Deploy one by one, in order.** Record the attempt, run codedeploy-local, record the
//!    success, go on. After a failure: stop, continue, or put back what was changed.
//! 4. **Report.** A last block of at most 1,800 bytes and an exit code that tells the kind of
//!    failure.
//!
//! # Modules
//!
//! Words ◄ pure ◄ effects ◄ wiring; `tests/layers.rs` fails on an arrow that points up.
//!
//! | layer | modules |
//! |---|---|
//! | words | [`domain`], [`hosts`], [`error`], [`diagnostic`], [`sync`], [`yaml`] |
//! | pure | [`manifest`], [`plan`], [`rollout`], [`report`] |
//! | effects | [`files`], [`process`], [`mirror`], [`web`], [`notify`], [`checks`], [`verify`], [`bundle`], [`codedeploy`], [`ledger`], [`engine`] (the built-in codedeploy-local; knows nothing of git), [`host`] (glue) |
//! | wiring | [`cli`], [`settings`] (the only reader of the environment), [`load`], [`deploy`], [`preview`], [`rollback`], [`upkeep`], [`announce`], [`inspect`], [`doctor`], [`init`], [`documents`], this file |
#![warn(missing_docs)]

pub mod announce;
pub mod bundle;
pub mod checks;
pub mod cli;
pub mod codedeploy;
pub mod deploy;
pub mod diagnostic;
pub mod doctor;
pub mod documents;
pub mod domain;
pub mod engine;
pub mod error;
pub mod files;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod host;
pub mod hosts;
pub mod init;
pub mod inspect;
pub mod ledger;
pub mod load;
pub mod manifest;
pub mod mirror;
pub mod notify;
pub mod plan;
pub mod preview;
pub mod process;
pub mod report;
pub mod rollback;
pub mod rollout;
pub mod settings;
pub mod sync;
pub mod upkeep;
pub mod verify;
pub mod web;
pub mod yaml;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, DeployArgs, PlanArgs};
use deploy::{Answer, Refusal};
use error::Failure;
use process::Interrupt;
use report::human::Paint;
use settings::{Environment, Settings};

/// Runs the program with its arguments, the name it was called by included.
///
/// Called by the name `codedeploy-local`, or with `codedeploy-local` as its first argument,
/// it is the built-in codedeploy-local.
pub fn run(args: &[OsString]) -> ExitCode {
    process::owns_all_children();
    let called = args.first().and_then(|name| Path::new(name).file_name());
    match args.get(1).and_then(|first| first.to_str()) {
        _ if called == Some(OsStr::new("codedeploy-local")) => engine::main(&args[1..]),
        Some("codedeploy-local") => engine::main(&args[2..]),
        Some(codedeploy::start::COMMAND) => codedeploy::start::main(&args[2..]),
        _ => multideployer(args),
    }
}

fn multideployer(args: &[OsString]) -> ExitCode {
    if let Some((clean, token)) = settings::without_token_argument(args) {
        return restart(&clean, token);
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && cli::asks_for_json(args) => {
            let answer = failed(&cli::usage_failure(&error).into(), cli::command_in(args));
            return print(&answer, Paint(false));
        }
        Err(error) => {
            // Help and version are "errors" with exit code 0; usage errors have 2.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let paint = Paint(false);
    let (command, json) = (cli.name(), cli.global.json);
    let refuse = |refusal: &Refusal, paint| {
        if json { print(&failed(refusal, Some(command)), paint) } else { refuse(refusal, paint) }
    };
    let settings = match Settings::new(&cli.global, Environment::of_this_process()) {
        Ok(settings) => settings,
        Err(failure) => return refuse(&failure.into(), paint),
    };
    let paint = Paint(settings.voice.color);
    install_panic_report(&settings);
    let interrupt = match Interrupt::on_signals() {
        Ok(interrupt) => interrupt,
        Err(error) => {
            let failure = Failure::from_error(error::ExitCode::Unfit, &error);
            return refuse(&failure.context("cannot watch for signals").into(), paint);
        }
    };
    match dispatch(cli, &settings, &interrupt) {
        Ok(answer) => print(&answer, paint),
        Err(refusal) => refuse(&refusal, paint),
    }
}

/// What a command that failed answers with `--json`.
fn failed(refusal: &Refusal, command: Option<&str>) -> Answer {
    Answer { stdout: refusal.document(command), code: refusal.failure.code }
}

fn print(answer: &Answer, paint: Paint) -> ExitCode {
    let mut stdout = std::io::stdout();
    let written = stdout.write_all(answer.stdout.as_bytes()).and_then(|()| stdout.flush());
    let code = match written {
        // Nobody may be reading any more; the exit code still says how it went.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let failure = Failure::from_error(error::ExitCode::Unexpected, &error)
                .context("cannot write the answer to standard output");
            deploy::complain(&failure, &[], paint);
            if answer.code == error::ExitCode::Ok { failure.code } else { answer.code }
        }
        _ => answer.code,
    };
    code.into()
}

fn dispatch(cli: Cli, settings: &Settings, interrupt: &Interrupt) -> Result<Answer, Refusal> {
    let misplaced = cli.deploy != DeployArgs::default();
    let before_command = || {
        Failure::new(
            error::ExitCode::Configuration,
            "options of `deploy` stand before another command",
        )
        .hint("put the options behind the command they belong to")
    };
    match cli.command {
        None => deploy_or_plan(settings, &cli.deploy, interrupt),
        Some(_) if misplaced => Err(before_command().into()),
        Some(Command::Deploy(args)) => deploy_or_plan(settings, &args, interrupt),
        Some(Command::Rollback(args)) => Ok(rollback::rollback(settings, &args, interrupt)),
        Some(Command::Plan(args)) => deploy::plan(settings, &args, interrupt),
        Some(Command::Fetch(args)) => upkeep::fetch(settings, &args, interrupt),
        Some(Command::Gc(args)) => upkeep::gc(settings, &args, interrupt),
        Some(Command::Check(args)) => Ok(inspect::check(settings, &args, interrupt)),
        Some(Command::Status(args)) => inspect::status(settings, &args, interrupt),
        Some(Command::History(args)) => inspect::history(settings, &args),
        Some(Command::Logs(args)) => inspect::logs(settings, &args),
        Some(Command::Doctor(args)) => doctor::doctor(settings, &args, interrupt),
        Some(Command::Migrate(args)) => inspect::migrate(settings, &args, interrupt),
        Some(Command::Init(args)) => init::init(&args),
        Some(Command::Completion(args)) => Ok(documents::completion(&args)),
        Some(Command::Schema) => Ok(documents::schema()),
        Some(Command::Guide(args)) => Ok(documents::guide(&args)),
        Some(Command::Man(args)) => documents::man(&args),
        // Handled before the command line was parsed.
        Some(Command::CodedeployLocal { .. }) => Err(before_command().into()),
    }
}

fn deploy_or_plan(
    settings: &Settings,
    args: &DeployArgs,
    interrupt: &Interrupt,
) -> Result<Answer, Refusal> {
    if !args.dry_run {
        return Ok(deploy::deploy(settings, args, interrupt));
    }
    let DeployArgs { apps, force, offline, on_failure, .. } = args.clone();
    let args = PlanArgs { apps, force, exit_code: false, offline, on_failure };
    deploy::plan(settings, &args, interrupt)
}

fn refuse(refusal: &Refusal, paint: Paint) -> ExitCode {
    deploy::complain(&refusal.failure, &refusal.diagnostics, paint);
    refusal.failure.code.into()
}

/// Starts this program again without the token on its command line, in the same process.
fn restart(args: &[OsString], token: (&str, OsString)) -> ExitCode {
    let error = match std::env::current_exe() {
        Ok(program) => process::replace(&program, &args[1..], &[token]),
        Err(error) => error,
    };
    let failure = Failure::from_error(error::ExitCode::Unfit, &error)
        .context("cannot start again without the token on the command line")
        .hint("give the token in MULTIDEPLOYER_GITHUB_TOKEN");
    refuse(&failure.into(), Paint(false))
}

/// Expected errors are reported by `report`; what is left for color-eyre is panics, that is,
/// bugs. Its report has to be short: it may stand in a hook's last 2 kB.
fn install_panic_report(settings: &Settings) {
    let theme = if settings.voice.color {
        color_eyre::config::Theme::dark()
    } else {
        color_eyre::config::Theme::new()
    };
    // Fails only if it was installed before.
    let _ = color_eyre::config::HookBuilder::default()
        .theme(theme)
        .display_env_section(false)
        .panic_message(PanicMessage)
        .install();
}

struct PanicMessage;

impl color_eyre::section::PanicMessage for PanicMessage {
    fn display(
        &self,
        panic: &std::panic::PanicHookInfo<'_>,
        f: &mut std::fmt::Formatter<'_>,
    ) -> std::fmt::Result {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let message = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let message = message.unwrap_or("no message");
        write!(f, "multideployer has a bug and ended: {message}")?;
        if let Some(place) = panic.location() {
            write!(f, " ({}:{})", place.file(), place.line())?;
        }
        writeln!(f, "\nRun it again: what was deployed is recorded. Please report this.")
    }
}
