//! What can be typed. No decisions, and no look at the environment (see `settings`).

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::domain::{Deadline, OnFailure};
use crate::error::{ExitCode, Failure};

const EXIT_CODES: &str = "\
Exit codes:
  0 done, or nothing to do          1 unexpected error
  2 usage or configuration refused  3 fetch failed: network, credential, commit
  4 an app failed                   5 the same, and all was put back
  6 putting back failed, too        7 unsafe or invalid content refused
  8 the deadline left no time       9 another run holds the lock
 10 --exit-code: there are changes
 11 environment unfit (no tool, not root, disk)
 129, 130, 143 ended by SIGHUP, SIGINT, SIGTERM
Exit codes 2, 3, 7, 9, 10 and 11 leave the host as it was.

Environment: MULTIDEPLOYER_CONFIG, MULTIDEPLOYER_GITHUB_TOKEN,
  MULTIDEPLOYER_CODEDEPLOY_LOCAL_PATH, MULTIDEPLOYER_CACHE_DIR,
  MULTIDEPLOYER_STATE_DIR, MULTIDEPLOYER_LOG, MULTIDEPLOYER_MACHINE_CONFIG,
  MULTIDEPLOYER_LABELS,
  CODEDEPLOY_GITHUB_TOKEN (github.com only), NO_COLOR";

/// Bring this host to the list of applications in multideployer.yaml, each at one exact commit
#[derive(Debug, Parser)]
#[command(name = "multideployer", version, disable_version_flag = true, after_help = EXIT_CODES)]
#[command(disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// What to do; `deploy` if nothing is said
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `deploy`, for hook scripts written for 0.3.1
    #[command(flatten)]
    pub deploy: DeployArgs,
    /// Options of every command
    #[command(flatten)]
    pub global: GlobalArgs,
    /// Print version
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    pub version: (),
}

impl Cli {
    /// The command's name.
    pub fn name(&self) -> &'static str {
        match &self.command {
            None if self.deploy.dry_run => "plan",
            None => "deploy",
            Some(command) => command.name(),
        }
    }
}

/// Whether a command line asks for JSON, also one that could not be understood.
pub fn asks_for_json(args: &[OsString]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

/// The command on a line that could not be understood: the first word that is one.
pub fn command_in(args: &[OsString]) -> Option<&str> {
    let known = Cli::command();
    let words = args.iter().skip(1).filter_map(|arg| arg.to_str());
    words.into_iter().find(|word| known.find_subcommand(word).is_some())
}

/// A command line that could not be understood, as a failure.
pub fn usage_failure(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let message = lines.next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let tip = lines.find_map(|line| line.strip_prefix("tip: "));
    Failure::new(ExitCode::Configuration, message).hint(tip.unwrap_or("see `multideployer --help`"))
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Deploy what differs from the manifest (the default)
    Deploy(DeployArgs),
    /// Go back to what was deployed before, for some apps
    Rollback(RollbackArgs),
    /// Say what `deploy` would do, and why
    Plan(PlanArgs),
    /// Fill the mirrors beforehand; nothing is deployed
    Fetch(FetchArgs),
    /// Remove what is left of removed apps and old runs, and put the mirrors in order
    Gc(GcArgs),
    /// Validate manifests; needs no root, no agent and no network
    Check(CheckArgs),
    /// Say what runs on this host, since when, and whether it is what the manifest wants
    Status(StatusArgs),
    /// List what was deployed on this host, newest first, and how it ended
    History(HistoryArgs),
    /// Show what a run logged: the last one, or another
    Logs(LogsArgs),
    /// Say whether what 0.3.1 recorded is what is installed
    Migrate(MigrateArgs),
    /// Write a manifest repository to start from
    Init(InitArgs),
    /// Print a script that completes this program's command line
    Completion(CompletionArgs),
    /// Print the man page, or write all pages
    Man(ManArgs),
    /// Look for what would break a deployment: servers, credentials, directories, tool
    Doctor(DoctorArgs),
    /// Print the JSON Schema of the manifest, for editors
    Schema,
    /// Print a page of the manual: operations, manifest, security, codedeploy-local
    Guide(GuideArgs),
    /// The built-in codedeploy-local, with the options of the agent's own
    #[command(name = "codedeploy-local", disable_help_flag = true)]
    CodedeployLocal {
        /// codedeploy-local's options
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Self::Deploy(args) if args.dry_run => "plan",
            Self::Deploy(_) => "deploy",
            Self::Rollback(_) => "rollback",
            Self::Plan(_) => "plan",
            Self::Fetch(_) => "fetch",
            Self::Gc(_) => "gc",
            Self::Check(_) => "check",
            Self::Status(_) => "status",
            Self::History(_) => "history",
            Self::Logs(_) => "logs",
            Self::Doctor(_) => "doctor",
            Self::Migrate(_) => "migrate",
            Self::Init(_) => "init",
            Self::Completion(_) => "completion",
            Self::Man(_) => "man",
            Self::Schema => "schema",
            Self::Guide(_) => "guide",
            Self::CodedeployLocal { .. } => "codedeploy-local",
        }
    }
}

/// Options of `deploy`.
#[derive(Debug, Args, Default, Clone, PartialEq, Eq)]
pub struct DeployArgs {
    /// Deploy only this app (may be given several times)
    #[arg(short, long = "app", value_name = "APP")]
    pub apps: Vec<String>,
    /// Deploy apps that are current, too
    #[arg(short, long)]
    pub force: bool,
    /// Say what would be done; the same as `plan`
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Token for the hosts of github:// sources. Visible to others in `ps` until the program
    /// has restarted itself without it: prefer `MULTIDEPLOYER_GITHUB_TOKEN` or a token file
    #[arg(short, long, value_name = "TOKEN")]
    pub github_token: Option<String>,
    /// Make no connection; fail if a commit is not in its mirror
    #[arg(long)]
    pub offline: bool,
    /// How many apps are fetched and checked out at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: Option<u16>,
    /// What happens after an app failed, whatever the manifest says: `stop`, `continue`
    /// with the others, or `restore` what this run changed
    #[arg(long, value_name = "WHAT", value_parser = on_failure)]
    pub on_failure: Option<OnFailure>,
    /// When the run has to be over, counted from its start: `auto` is before the hook around
    /// it times out, `none` is never
    #[arg(long, value_name = "TIME", value_parser = deadline)]
    pub deadline: Option<Deadline>,
    /// How long to wait for another run to end
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub lock_wait: Option<Duration>,
}

/// Options of `rollback`.
#[derive(Debug, Args, Clone)]
pub struct RollbackArgs {
    /// An app, and perhaps the beginning of the commit id to go back to [default: the last good
    /// commit before the one that runs now]
    #[arg(value_name = "APP[@SHA]", required = true)]
    pub targets: Vec<String>,
    /// Make no connection; fail if a commit is not in its mirror
    #[arg(long)]
    pub offline: bool,
    /// How long to wait for another run to end
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub lock_wait: Option<Duration>,
}

/// Options of `plan`.
#[derive(Debug, Args, Clone)]
pub struct PlanArgs {
    /// Only this app (may be given several times)
    #[arg(short, long = "app", value_name = "APP")]
    pub apps: Vec<String>,
    /// As if `deploy --force`
    #[arg(short, long)]
    pub force: bool,
    /// Exit with 10 if something would be deployed
    #[arg(long)]
    pub exit_code: bool,
    /// Make no connection (branches and tags cannot be resolved then)
    #[arg(long)]
    pub offline: bool,
    /// As if `deploy --on-failure`
    #[arg(long, value_name = "WHAT", value_parser = on_failure)]
    pub on_failure: Option<OnFailure>,
}

/// Options of `fetch`.
#[derive(Debug, Args, Clone)]
pub struct FetchArgs {
    /// Only this app (may be given several times)
    #[arg(short, long = "app", value_name = "APP")]
    pub apps: Vec<String>,
    /// Of all apps, also of those that are disabled or for other hosts
    #[arg(long, conflicts_with = "apps")]
    pub all: bool,
    /// How many apps are fetched at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: Option<u16>,
    /// How long to wait for another run to end
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub lock_wait: Option<Duration>,
}

/// Options of `gc`.
#[derive(Debug, Args, Clone)]
pub struct GcArgs {
    /// Say what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// How long to wait for another run to end
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub lock_wait: Option<Duration>,
}

/// Options of `check`.
#[derive(Debug, Args, Clone)]
pub struct CheckArgs {
    /// Ask the servers, too, whether they have the commits; nothing is kept
    #[arg(long)]
    pub remote: bool,
    /// The manifests; the one that `deploy` would read if none is given
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Options of `status`.
#[derive(Debug, Args, Clone)]
pub struct StatusArgs {
    /// Only these apps
    #[arg(value_name = "APP")]
    pub apps: Vec<String>,
    /// Exit with 10 if an app is not what the manifest wants, or with --drift if files differ
    #[arg(long)]
    pub exit_code: bool,
    /// Compare the installed files with the deployed commit
    #[arg(long)]
    pub drift: bool,
}

/// Options of `history`.
#[derive(Debug, Args, Clone)]
pub struct HistoryArgs {
    /// Only these apps
    #[arg(value_name = "APP")]
    pub apps: Vec<String>,
    /// At most so many
    #[arg(short = 'n', long = "number", value_name = "N", default_value_t = 20)]
    pub most: usize,
    /// Only what is not older than this, such as 90m, 12h or 7d
    #[arg(long, value_name = "TIME", value_parser = age)]
    pub since: Option<Duration>,
}

/// Options of `logs`.
#[derive(Debug, Args, Clone)]
pub struct LogsArgs {
    /// Only lines about this app, and those about none
    #[arg(value_name = "APP")]
    pub app: Option<String>,
    /// Of this run, as `history` and the hook's output name it [default: the last]
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
}

/// Options of `migrate`.
#[derive(Debug, Args, Clone)]
pub struct MigrateArgs {
    /// Change nothing; all else is done by the first `deploy`
    #[arg(long, required = true)]
    pub check: bool,
    /// Exit with 10 if an app differs from what `last_state.yaml` claims
    #[arg(long)]
    pub exit_code: bool,
}

/// Options of `init`.
#[derive(Debug, Args, Clone)]
pub struct InitArgs {
    /// Where to
    #[arg(value_name = "DIR", default_value = ".")]
    pub directory: PathBuf,
}

/// Options of `completion`.
#[derive(Debug, Args, Clone)]
pub struct CompletionArgs {
    /// For which shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// Options of `man`.
#[derive(Debug, Args, Clone)]
pub struct ManArgs {
    /// Write the pages of all commands into this directory
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// Options of `guide`.
#[derive(Debug, Args, Clone)]
pub struct GuideArgs {
    /// Which page
    #[arg(value_name = "PAGE", value_enum, default_value_t)]
    pub page: Page,
}

/// A page of the manual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Page {
    /// For 03:10: what an exit code means, what to do, records, network, mirrors
    #[default]
    Operations,
    /// Every key of the manifest and the machine file
    Manifest,
    /// Credentials, host keys, authorities, who may change what
    Security,
    /// The agent's codedeploy-local, 1.x and 2.x, and the built-in one
    CodedeployLocal,
}

/// Options of `doctor`.
#[derive(Debug, Args, Clone)]
pub struct DoctorArgs {
    /// Only what this app needs (may be given several times)
    #[arg(short, long = "app", value_name = "APP")]
    pub apps: Vec<String>,
    /// Make no connection
    #[arg(long)]
    pub offline: bool,
}

/// Options of every command.
#[derive(Debug, Args, Clone)]
pub struct GlobalArgs {
    /// The manifest [default: multideployer.yaml in the working directory, else the one in
    /// /etc/multideployer]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// What holds for this host whatever the manifest: hosts, report, limits, labels
    /// [default: /etc/multideployer/config.yaml, if it is there]
    #[arg(long, value_name = "FILE", global = true)]
    pub machine_config: Option<PathBuf>,
    /// Mirrors and worktrees [default: /var/cache/codedeploy-multideployer]
    #[arg(long, value_name = "DIR", global = true)]
    pub cache_dir: Option<PathBuf>,
    /// Lock and `last_state.yaml` [default: /var/lib/codedeploy-multideployer]
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,
    /// Log file [default: /var/log/codedeploy-multideployer/multideployer.log]
    #[arg(short, long, value_name = "FILE", global = true)]
    pub log: Option<PathBuf>,
    /// The codedeploy-local to use, or `builtin` [default: the agent's, else the built-in one]
    #[arg(short, long, value_name = "PATH", global = true)]
    pub codedeploy_local_path: Option<PathBuf>,
    /// The agent's configuration file, passed on to codedeploy-local
    #[arg(long, value_name = "FILE", global = true)]
    pub agent_configuration_file: Option<PathBuf>,
    /// What this host is, for the `when` of apps (may be given several times)
    #[arg(long = "label", value_name = "LABEL", global = true)]
    pub labels: Vec<String>,
    /// Use a manifest, machine file or directory that another user could change
    #[arg(long, global = true)]
    pub insecure_permissions: bool,
    /// Show what codedeploy-local prints
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Show more still (never secrets)
    #[arg(short, long, global = true)]
    pub debug: bool,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with_all = ["verbose", "debug"])]
    pub quiet: bool,
    /// Print one JSON document
    #[arg(long, global = true)]
    pub json: bool,
    /// Colours
    #[arg(long, value_enum, default_value_t, global = true)]
    pub color: Color,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

fn on_failure(text: &str) -> Result<OnFailure, String> {
    [OnFailure::Stop, OnFailure::Continue, OnFailure::Restore]
        .into_iter()
        .find(|known| known.to_string() == text)
        .ok_or_else(|| "expected stop, continue or restore".to_owned())
}

fn deadline(text: &str) -> Result<Deadline, String> {
    match text {
        "auto" => Ok(Deadline::Auto),
        "none" => Ok(Deadline::None),
        time => duration(time).map(Deadline::After),
    }
}

/// Reads `90`, `90s`, `10m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, factor) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        _ => (text, 1),
    };
    let seconds: u32 = number.parse().map_err(|_| "expected a time such as 90s, 10m or 1h")?;
    Ok(Duration::from_secs(u64::from(seconds) * factor))
}

/// Reads what [`duration`] reads, and days: `7d`.
fn age(text: &str) -> Result<Duration, String> {
    let Some(days) = text.strip_suffix('d') else { return duration(text) };
    let days: u32 = days.parse().map_err(|_| "expected a time such as 90m, 12h or 7d")?;
    Ok(Duration::from_secs(u64::from(days) * 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_of_0_3_1_is_understood() {
        let line = "multideployer -d -v -f -a x -a y -g tok -c /bin/cdl --config m.yaml -l x.log";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.deploy.apps, ["x", "y"]);
        assert!(cli.deploy.force && cli.global.debug && cli.global.verbose);
        assert_eq!(cli.deploy.github_token.as_deref(), Some("tok"));
        let long = "multideployer --debug --verbose --force --app x --github-token t \
                    --codedeploy-local-path /c --config m --log l";
        Cli::try_parse_from(long.split_whitespace()).unwrap();
    }

    #[test]
    fn times() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(age("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(age("2h"), Ok(Duration::from_secs(7200)));
        assert!(age("d").is_err());
        for bad in ["", "m", "-1", "1d", "é", "99999999999"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
