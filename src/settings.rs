//! Flags over environment over defaults. The only reader of the environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use crate::cli::{Color, GlobalArgs};
use crate::codedeploy::Choice;
use crate::domain::{Hook, Secret};
use crate::error::{ExitCode, Failure};

/// Where the manifest is unless it is named: where 0.3.1 looked, then where a deployed
/// manifest repository puts it, so that `status` on an instance needs no option.
const MANIFESTS: [&str; 2] = ["multideployer.yaml", "/etc/multideployer/multideployer.yaml"];
/// Where the machine file is unless it is named.
const MACHINE: &str = "/etc/multideployer/config.yaml";
/// Variables of ours that are not passed on to any child.
const OURS: &str = "MULTIDEPLOYER_";
/// The token as it was given by `-g`, handed from the process that was started with it to the
/// one that took its place (see [`without_token_argument`]).
const TOKEN_BY_FLAG: &str = "MULTIDEPLOYER_TOKEN_BY_FLAG";

/// The environment this program was started with.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// That of this process.
    pub fn of_this_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// A variable; one that is empty counts as absent.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// A variable that has to be text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).and_then(OsStr::to_str).map(str::to_owned)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// Our own variables, tokens among them: not for children.
    pub fn own_names(&self) -> impl Iterator<Item = &OsStr> {
        self.0.keys().map(OsString::as_os_str).filter(|name| {
            name.as_encoded_bytes().starts_with(OURS.as_bytes())
                || *name == "CODEDEPLOY_GITHUB_TOKEN"
        })
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Self {
        Self(variables.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }
}

/// How to talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voice {
    /// Only errors.
    pub quiet: bool,
    /// What codedeploy-local prints, too.
    pub verbose: bool,
    /// Everything that is not a secret.
    pub debug: bool,
    /// One JSON document on stdout, nothing else there.
    pub json: bool,
    /// Standard error is a terminal.
    pub terminal: bool,
    /// Colours on standard error and output.
    pub color: bool,
}

/// A token that was given by flag or variable.
#[derive(Debug, Clone)]
pub struct GivenToken {
    /// The token.
    pub token: Secret,
    /// Where it came from.
    pub origin: &'static str,
}

/// Everything that flags and environment decide.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The manifest.
    pub config: PathBuf,
    /// It was named, by flag or variable.
    pub config_named: bool,
    /// What holds for this host whatever the manifest.
    pub machine_config: PathBuf,
    /// It was named, by flag or variable.
    pub machine_config_named: bool,
    /// Mirrors and worktrees.
    pub cache_dir: PathBuf,
    /// Lock and `last_state.yaml`.
    pub state_dir: PathBuf,
    /// The log file.
    pub log: PathBuf,
    /// It was named, by flag or variable.
    pub log_named: bool,
    /// Files and directories that other users could change are used, with a warning.
    pub insecure_permissions: bool,
    /// All three were given, so that root is not needed for them.
    pub own_directories: bool,
    /// Which codedeploy-local.
    pub tool: Choice,
    /// The agent's configuration file, if it was named.
    pub agent_configuration_file: Option<PathBuf>,
    /// For the hosts of `github://` sources.
    pub token: Option<GivenToken>,
    /// For github.com.
    pub github_com_token: Option<GivenToken>,
    /// The hook around this run.
    pub hook: Option<Hook>,
    /// What flags and variable call this host, beside what the machine file does.
    pub labels: Vec<String>,
    /// How to talk.
    pub voice: Voice,
    /// What it was started with.
    pub environment: Environment,
}

impl Settings {
    /// Puts flags and environment together. `json` may be asked for by a command's own flag.
    pub fn new(global: &GlobalArgs, environment: Environment) -> Result<Self, Failure> {
        let directory = |flag: &Option<PathBuf>, variable: &str, default: &str| {
            let given = flag.clone().or_else(|| environment.path(variable));
            let explicit = given.is_some();
            // Absolute from here on: codedeploy-local and its hooks may see these paths.
            let path = given.unwrap_or_else(|| PathBuf::from(default));
            std::path::absolute(&path).map(|path| (path, explicit)).map_err(|error| {
                Failure::from_error(ExitCode::Configuration, &error)
                    .context(format!("cannot use the path {:?}", path.display().to_string()))
            })
        };
        let (cache_dir, own_cache) = directory(
            &global.cache_dir,
            "MULTIDEPLOYER_CACHE_DIR",
            "/var/cache/codedeploy-multideployer",
        )?;
        let (state_dir, own_state) = directory(
            &global.state_dir,
            "MULTIDEPLOYER_STATE_DIR",
            "/var/lib/codedeploy-multideployer",
        )?;
        let (log, own_log) = directory(
            &global.log,
            "MULTIDEPLOYER_LOG",
            "/var/log/codedeploy-multideployer/multideployer.log",
        )?;
        let named = global.config.clone().or_else(|| environment.path("MULTIDEPLOYER_CONFIG"));
        let config_named = named.is_some();
        let config = named.unwrap_or_else(|| {
            let [here, installed] = MANIFESTS.map(PathBuf::from);
            let only_installed = !here.exists() && installed.exists();
            if only_installed { installed } else { here }
        });
        let machine = global
            .machine_config
            .clone()
            .or_else(|| environment.path("MULTIDEPLOYER_MACHINE_CONFIG"));
        let tool = match global
            .codedeploy_local_path
            .clone()
            .or_else(|| environment.path("MULTIDEPLOYER_CODEDEPLOY_LOCAL_PATH"))
        {
            None => Choice::Auto,
            Some(path) if path == Path::new("builtin") => Choice::Builtin,
            Some(path) => Choice::Path(path),
        };
        let terminal = std::io::stderr().is_terminal();
        Ok(Self {
            config,
            config_named,
            machine_config_named: machine.is_some(),
            machine_config: machine.unwrap_or_else(|| PathBuf::from(MACHINE)),
            cache_dir,
            state_dir,
            log,
            log_named: own_log,
            insecure_permissions: global.insecure_permissions,
            own_directories: own_cache && own_state && own_log,
            tool,
            agent_configuration_file: global.agent_configuration_file.clone(),
            token: given(&environment, TOKEN_BY_FLAG, "-g").or_else(|| {
                given(&environment, "MULTIDEPLOYER_GITHUB_TOKEN", "MULTIDEPLOYER_GITHUB_TOKEN")
            }),
            github_com_token: given(
                &environment,
                "CODEDEPLOY_GITHUB_TOKEN",
                "CODEDEPLOY_GITHUB_TOKEN",
            ),
            hook: hook(&environment),
            labels: labels(&global.labels, &environment),
            voice: Voice {
                quiet: global.quiet,
                verbose: global.verbose || global.debug,
                debug: global.debug,
                json: global.json,
                terminal,
                color: match global.color {
                    Color::Always => true,
                    Color::Never => false,
                    Color::Auto => terminal && environment.get("NO_COLOR").is_none(),
                },
            },
            environment,
        })
    }

    /// 0.3.1's record.
    pub fn last_state(&self) -> PathBuf {
        self.state_dir.join("last_state.yaml")
    }
}

fn given(environment: &Environment, variable: &str, origin: &'static str) -> Option<GivenToken> {
    let token = environment.text(variable)?.trim().to_owned();
    (!token.is_empty()).then(|| GivenToken { token: Secret::new(token), origin })
}

fn labels(flags: &[String], environment: &Environment) -> Vec<String> {
    let variable = environment.text("MULTIDEPLOYER_LABELS").unwrap_or_default();
    let words = variable.split(',').chain(flags.iter().map(String::as_str)).map(str::trim);
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn hook(environment: &Environment) -> Option<Hook> {
    Some(Hook {
        lifecycle_event: environment.text("LIFECYCLE_EVENT")?,
        deployment_id: environment.text("DEPLOYMENT_ID")?,
        deployment_group_name: environment.text("DEPLOYMENT_GROUP_NAME"),
    })
}

/// If a token stands in `args`, where `ps` shows it to everybody: the arguments without it,
/// and the variable that carries it to the process which takes this one's place.
pub fn without_token_argument(
    args: &[OsString],
) -> Option<(Vec<OsString>, (&'static str, OsString))> {
    let mut clean = Vec::new();
    let mut token = None;
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let bytes = arg.as_encoded_bytes();
        let text = arg.to_str().unwrap_or_default();
        // clap takes no abbreviations of long options, so these are all spellings. In a
        // cluster such as `-vg`, only flags without a value can stand before the `g`.
        let cluster = text.strip_prefix('-').and_then(|flags| flags.split_once('g'));
        if bytes == b"--" {
            clean.push(arg.clone());
            clean.extend(rest.cloned());
            break;
        } else if text == "--github-token" {
            token = rest.next().cloned();
        } else if let Some(value) = text.strip_prefix("--github-token=") {
            token = Some(value.into());
        } else if let Some((flags, value)) = cluster
            && flags.chars().all(|flag| "dvfnq".contains(flag))
        {
            if !flags.is_empty() {
                clean.push(format!("-{flags}").into());
            }
            token = if value.is_empty() {
                rest.next().cloned()
            } else {
                Some(value.strip_prefix('=').unwrap_or(value).into())
            };
        } else {
            clean.push(arg.clone());
        }
    }
    token.map(|token| (clean, (TOKEN_BY_FLAG, token)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn settings(line: &str, environment: Environment) -> Settings {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        Settings::new(&cli.global, environment).unwrap()
    }

    #[test]
    fn flags_win_over_variables_over_defaults() {
        let variables = [
            ("MULTIDEPLOYER_CACHE_DIR", "/e/cache"),
            ("MULTIDEPLOYER_STATE_DIR", "/e/state"),
            ("MULTIDEPLOYER_CODEDEPLOY_LOCAL_PATH", "builtin"),
            ("MULTIDEPLOYER_CONFIG", ""),
        ];
        let s = settings("multideployer --cache-dir /f/cache", variables.into());
        assert_eq!(s.cache_dir, Path::new("/f/cache"));
        assert_eq!(s.state_dir, Path::new("/e/state"));
        assert_eq!(s.log, Path::new("/var/log/codedeploy-multideployer/multideployer.log"));
        assert_eq!(s.config, Path::new("multideployer.yaml"));
        assert!(!s.own_directories);
        assert_eq!(s.tool, Choice::Builtin);
        assert_eq!(s.hook, None);
    }

    #[test]
    fn labels_come_from_variable_and_flags() {
        let variables = [("MULTIDEPLOYER_LABELS", "gpu, zone=a,")];
        let s = settings("multideployer --label web --label big", variables.into());
        assert_eq!(s.labels, ["gpu", "zone=a", "web", "big"]);
    }

    #[test]
    fn a_hook_needs_event_and_deployment() {
        let variables = [("LIFECYCLE_EVENT", "AfterInstall"), ("DEPLOYMENT_ID", "d-1")];
        let s = settings("multideployer", variables.into());
        assert_eq!(s.hook.unwrap().deployment_id, "d-1");
        let s = settings("multideployer", [("LIFECYCLE_EVENT", "AfterInstall")].into());
        assert_eq!(s.hook, None);
    }

    #[test]
    fn the_token_is_taken_off_the_command_line_in_every_spelling() {
        for line in [
            "m -g T -a x",
            "m -gT -a x",
            "m -g=T -a x",
            "m --github-token T -a x",
            "m -a x --github-token=T",
        ] {
            let args: Vec<OsString> = line.split(' ').map(Into::into).collect();
            let (clean, (name, token)) = without_token_argument(&args).unwrap();
            assert_eq!(clean, ["m", "-a", "x"], "{line}");
            assert_eq!((name, token), (TOKEN_BY_FLAG, "T".into()), "{line}");
        }
        let args: Vec<OsString> = ["m", "-vdg", "T"].map(Into::into).into();
        assert_eq!(without_token_argument(&args).unwrap().0, ["m", "-vd"]);
        for line in ["m -a gateway", "m --config g", "m -l log-g", "m -agateway"] {
            let args: Vec<OsString> = line.split(' ').map(Into::into).collect();
            assert_eq!(without_token_argument(&args), None, "{line}");
        }
    }

    #[test]
    fn our_own_variables_are_known() {
        let environment: Environment = [
            ("MULTIDEPLOYER_GITHUB_TOKEN", "t"),
            ("CODEDEPLOY_GITHUB_TOKEN", "t"),
            ("PATH", "/bin"),
        ]
        .into();
        assert_eq!(environment.own_names().count(), 2);
    }
}
