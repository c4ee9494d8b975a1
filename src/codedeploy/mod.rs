//! Hands a bundle to codedeploy-local: finds the tool, speaks its dialect, understands how it
//! ended.
//!
//! Three tools speak the same command line: the agent's 1.x (Ruby), the agent's 2.x (Rust) and
//! the built-in one. Success is their exit code; text is only parsed for nicer messages.

mod explain;
mod outer;
mod remains;
pub mod start;
mod tool;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use explain::Explanation;
pub use outer::hook_timeout;
pub use remains::remains;
pub use tool::{Choice, Found, Tool, find, probe};

use crate::domain::{App, Hook, Revision};
use crate::engine::appspec::DEFAULT_EVENTS;
use crate::error::{ExitCode, Failure};
use crate::process::{Finished, Interrupt, Outcome, Stream, describe_exit, signal_name};

/// Variables that CodeDeploy sets for the outer deployment's hooks and that would tell an app
/// the manifest's commit for its own.
const OUTER_BUNDLE: [&str; 5] =
    ["BUNDLE_COMMIT", "BUNDLE_BUCKET", "BUNDLE_KEY", "BUNDLE_VERSION", "BUNDLE_ETAG"];
/// Lines kept of each output, for the explanation of a failure.
const KEPT_LINES: usize = 200;
/// Lines shown of what a tool printed before it was killed.
const SHOWN_LINES: usize = 20;

/// One app to deploy.
#[derive(Debug)]
pub struct Job<'a> {
    /// The app.
    pub app: &'a App,
    /// The commit in the bundle.
    pub revision: Revision,
    /// The commit deployed before.
    pub previous: Option<Revision>,
    /// The bundle's absolute path.
    pub bundle: &'a Path,
    /// The appspec below it, if it is not `appspec.yml`.
    pub appspec: Option<&'a Path>,
    /// The run's id.
    pub run: &'a str,
    /// The hook around this run.
    pub hook: Option<&'a Hook>,
    /// The agent's configuration file, if one was named.
    pub agent_configuration_file: Option<&'a Path>,
    /// The state directory: the built-in tool keeps its own state below it where there is no
    /// agent whose directories it could share.
    pub state: &'a Path,
    /// How long it may take, and what says so: "its `timeout`".
    pub limit: Option<(Duration, &'static str)>,
}

/// Changes to the environment a tool is started with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvironmentChange {
    /// Variables to set.
    pub set: Vec<(OsString, OsString)>,
    /// Variables to remove.
    pub remove: Vec<OsString>,
}

impl EnvironmentChange {
    /// What an app's hooks are to see. `outer` looks a variable up in our own environment.
    pub fn for_job(job: &Job<'_>, outer: impl Fn(&str) -> Option<OsString>) -> Self {
        let mut change = Self::default();
        let mut set = |name: &str, value: OsString| change.set.push((name.into(), value));
        // The app's own variables first: ours are refused in the manifest and win anyway.
        for (name, value) in &job.app.env {
            set(name, value.into());
        }
        let revision = job.revision.to_string();
        set("GIT_COMMIT", revision.clone().into());
        set("BUNDLE_COMMIT", revision.into());
        set("MULTIDEPLOYER_APP", job.app.name.as_str().into());
        set("MULTIDEPLOYER_RELEASE", job.app.release.to_string().into());
        set("MULTIDEPLOYER_RUN_ID", job.run.into());
        if let Some(previous) = job.previous {
            set("MULTIDEPLOYER_PREVIOUS_RELEASE", previous.to_string().into());
        }
        if let Some(hook) = job.hook {
            set("MULTIDEPLOYER_PARENT_DEPLOYMENT_ID", hook.deployment_id.clone().into());
        }
        for name in OUTER_BUNDLE {
            if let Some(value) = outer(name) {
                set(&format!("MULTIDEPLOYER_PARENT_{name}"), value);
            }
            if name != "BUNDLE_COMMIT" {
                change.remove.push(name.into());
            }
        }
        change
    }
}

/// codedeploy-local's options for a job.
pub fn arguments(tool: &Tool, job: &Job<'_>) -> Vec<OsString> {
    let mut args: Vec<OsString> = tool.leading_arguments().to_vec();
    let mut option = |name: &str, value: OsString| args.extend([name.into(), value]);
    option("--bundle-location", job.bundle.into());
    option("--type", "directory".into());
    option("--deployment-group", job.app.name.deployment_group().into());
    let knows = |name: &str| tool.knows(name);
    if knows("--application-name") {
        option("--application-name", job.app.name.as_str().into());
    }
    let group = job.hook.and_then(|hook| hook.deployment_group_name.as_ref());
    if let Some(group) = group.filter(|_| knows("--deployment-group-name")) {
        option("--deployment-group-name", group.into());
    }
    if let Some(appspec) = job.appspec.filter(|_| knows("--appspec-filename")) {
        option("--appspec-filename", appspec.into());
    }
    if knows("--file-exists-behavior") {
        option("--file-exists-behavior", job.app.file_exists.as_option().into());
    }
    if !job.app.skip_events.is_empty() {
        let left: Vec<&str> = DEFAULT_EVENTS
            .into_iter()
            .filter(|event| !job.app.skip_events.iter().any(|skipped| skipped == event))
            .collect();
        option("--events", left.join(",").into());
    }
    if let Some(file) = job.agent_configuration_file {
        option("--agent-configuration-file", file.into());
    } else if tool.is_builtin() {
        // Only used where there is no agent, whose directories it would share otherwise.
        option("--default-root", job.state.join("deployment-root").into());
    }
    if tool.is_builtin() {
        // It is ours and is removed afterwards: no need to copy it.
        args.push("--move-bundle".into());
    }
    args
}

/// Runs codedeploy-local for one app. `on_line` gets what it prints.
///
/// # Errors
/// The tool could not be started, reported a failure, or was ended by a signal to us.
pub fn deploy(
    tool: &Tool,
    job: &Job<'_>,
    environment: &EnvironmentChange,
    interrupt: &Interrupt,
    on_line: &mut dyn FnMut(&str),
) -> Result<(), Failure> {
    let group = job.app.name.deployment_group();
    let mut command = tool.command(job)?.args(arguments(tool, job));
    for name in &environment.remove {
        command = command.env_remove(name);
    }
    for (name, value) in &environment.set {
        command = command.env(name, value);
    }
    command = command.deadline(job.limit.map(|(limit, _)| limit));
    let mut printed = Printed::default();
    let finished = command.run(interrupt, &mut |line| {
        let text = String::from_utf8_lossy(line.bytes);
        on_line(&text);
        printed.keep(line.stream, text.into_owned());
    });
    if tool.is_two() && finished.outcome == Outcome::Exited(i32::from(start::ID_TAKEN)) {
        // The process id was that of the last successful deployment: the next one is another.
        return deploy(tool, job, environment, interrupt, on_line);
    }
    if let Outcome::Signalled(signal) | Outcome::OutputHeld { end: Err(signal), .. } =
        finished.outcome
    {
        return Err(killed(signal, &finished, printed));
    }
    let folder = tool.folder(&group);
    let explain = || explain::explain(&printed, folder.as_deref(), &read_log);
    let failed = match &finished.outcome {
        // What the tool left in the background holds our pipe, not its own: its exit counts.
        Outcome::Exited(0) | Outcome::OutputHeld { end: Ok(0), .. } => {
            // Old agents always exited with 0.
            if !printed.stdout.iter().any(|line| line.contains(explain::FAILURE_SENTENCE)) {
                return Ok(());
            }
            Failure::new(ExitCode::AppFailed, "codedeploy-local reported a failure")
        }
        Outcome::Interrupted(signal) => {
            let code = ExitCode::of_signal(*signal);
            let how = describe_exit(&finished);
            return Err(Failure::new(code, format!("ended by a signal: codedeploy-local {how}"))
                .hint("run again: what this app looks like now is not known"));
        }
        Outcome::NotStarted(reason) => {
            return Err(Failure::from_error(ExitCode::AppFailed, reason)
                .context(format!("cannot start {}", tool.describe())));
        }
        Outcome::TimedOut { .. } => {
            let limit = job.limit.map_or("a limit", |(_, what)| what);
            let how = describe_exit(&finished);
            let text = format!("{limit} is over: codedeploy-local {how}, with its hooks");
            let Explanation { reason, output, .. } = explain();
            let mut failure = Failure::new(ExitCode::AppFailed, text);
            failure.causes.extend(reason);
            failure.output = output;
            return Err(failure);
        }
        _ => Failure::new(
            ExitCode::AppFailed,
            format!("codedeploy-local {}", describe_exit(&finished)),
        ),
    };
    let Explanation { reason, output, log } = explain();
    let mut failure = match reason {
        Some(reason) => Failure { message: reason, ..failed },
        None => failed,
    };
    failure.output = output;
    if tool.started_nothing(&finished.outcome) {
        failure.causes.push("it refused the bundle before it started anything".to_owned());
    }
    Err(match log {
        Some(log) => failure.hint(format!("the whole output is in `{}`", log.display())),
        None => failure,
    })
}

/// The tool itself was ended by a signal that is not ours; what it was running at the time is
/// not to blame, and may run on.
fn killed(signal: i32, finished: &Finished, printed: Printed) -> Failure {
    let signal = signal_name(signal);
    let memory = if signal == "SIGKILL" {
        "if nobody did that, the kernel did for want of memory (`dmesg | grep -i oom`); "
    } else {
        ""
    };
    let failure = Failure::new(
        ExitCode::AppFailed,
        format!(
            "codedeploy-local itself, not a script, was killed: {signal} after {:.0} s",
            finished.took.as_secs_f64()
        ),
    );
    let mut lines = printed.stdout;
    lines.extend(printed.stderr);
    let output = lines.split_off(lines.len().saturating_sub(SHOWN_LINES)).into();
    Failure {
        output,
        ..failure.hint(format!(
            "{memory}a script that it had started may still run; the next run deploys this app again"
        ))
    }
}

/// What a tool printed: the last lines of each output.
#[derive(Debug, Default)]
pub(crate) struct Printed {
    pub(crate) stdout: VecDeque<String>,
    pub(crate) stderr: VecDeque<String>,
}

impl Printed {
    fn keep(&mut self, stream: Stream, line: String) {
        let lines = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// The last 64 kB of a deployment's scripts.log.
fn read_log(path: &Path) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};

    let mut file = fs_err::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(64 << 10))).ok()?;
    let mut bytes = Vec::new();
    file.take(64 << 10).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where the agent keeps its state when its configuration does not say otherwise.
pub(crate) const DEFAULT_ROOT: &str = "/opt/codedeploy-agent/deployment-root";
/// The agent's configuration file.
pub const AGENT_CONFIGURATION: &str = "/etc/codedeploy-agent/conf/codedeployagent.yml";

/// The agent's `root_dir`, from its configuration file.
pub fn root_dir(configuration: Option<&Path>) -> PathBuf {
    let file = configuration.unwrap_or(Path::new(AGENT_CONFIGURATION));
    let text = fs_err::read(file).unwrap_or_default();
    crate::yaml::parse(&text)
        .ok()
        .and_then(|document| document.root)
        .and_then(|root| {
            let value = root.get(":root_dir:").or_else(|| root.get(":root_dir"));
            value.or_else(|| root.get("root_dir"))?.text().map(PathBuf::from)
        })
        // `root_dir:` and nothing behind it says nothing.
        .filter(|root| !root.as_os_str().is_empty())
        .unwrap_or_else(|| PathBuf::from(DEFAULT_ROOT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::FileExists;
    use crate::plan::tests::{app, revision};

    fn job<'a>(app: &'a App, hook: Option<&'a Hook>) -> Job<'a> {
        Job {
            app,
            revision: revision(0x22),
            previous: Some(revision(0x11)),
            bundle: Path::new("/cache/worktrees/api/x"),
            appspec: Some(Path::new("appspec.yaml")),
            run: "r1",
            hook,
            agent_configuration_file: None,
            state: Path::new("/state"),
            limit: None,
        }
    }

    fn hook() -> Hook {
        Hook {
            lifecycle_event: "AfterInstall".into(),
            deployment_id: "d-OUTER".into(),
            deployment_group_name: Some("prod".into()),
        }
    }

    #[test]
    fn each_tool_gets_the_options_it_knows() {
        let app = App {
            file_exists: FileExists::Overwrite,
            skip_events: vec!["ApplicationStop".into()],
            ..app("api", 1)
        };
        let hook = hook();
        let line = |tool: &Tool| {
            let args = arguments(tool, &job(&app, Some(&hook)));
            args.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        let common = "--bundle-location /cache/worktrees/api/x --type directory \
             --deployment-group api-local-deployment-application";
        let events = "--events BeforeBlockTraffic,AfterBlockTraffic,DownloadBundle,BeforeInstall,\
             Install,AfterInstall,ApplicationStart,ValidateService,BeforeAllowTraffic,\
             AfterAllowTraffic";
        assert_eq!(line(&Tool::old_for_tests()), format!("{common} {events}"));
        assert_eq!(
            line(&Tool::builtin("/proc/self/exe".into())),
            format!(
                "{common} --application-name api --deployment-group-name prod \
                 --appspec-filename appspec.yaml --file-exists-behavior OVERWRITE {events} \
                 --default-root /state/deployment-root --move-bundle"
            )
        );
    }

    #[test]
    fn hooks_see_the_apps_commit_and_not_the_outer_bundle() {
        let app = App { env: vec![("APP_ENV".into(), "prod".into())], ..app("api", 1) };
        let hook = hook();
        let outer = |name: &str| match name {
            "BUNDLE_COMMIT" => Some("outer".into()),
            "BUNDLE_BUCKET" => Some("bucket".into()),
            _ => None,
        };
        let change = EnvironmentChange::for_job(&job(&app, Some(&hook)), outer);
        let get = |name: &str| {
            let found = change.set.iter().rev().find(|(key, _)| key == name);
            found.map(|(_, value)| value.to_str().unwrap().to_owned())
        };
        let commit = revision(0x22).to_string();
        assert_eq!(get("GIT_COMMIT").as_deref(), Some(commit.as_str()));
        assert_eq!(get("BUNDLE_COMMIT").as_deref(), Some(commit.as_str()));
        assert_eq!(get("MULTIDEPLOYER_PARENT_BUNDLE_COMMIT").as_deref(), Some("outer"));
        assert_eq!(get("MULTIDEPLOYER_PARENT_DEPLOYMENT_ID").as_deref(), Some("d-OUTER"));
        assert_eq!(get("MULTIDEPLOYER_PREVIOUS_RELEASE"), Some(revision(0x11).to_string()));
        assert_eq!(get("APP_ENV").as_deref(), Some("prod"));
        assert!(change.remove.iter().any(|name| name == "BUNDLE_BUCKET"));
    }

    #[test]
    fn the_root_is_read_from_symbol_like_keys() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.yml");
        for text in [":root_dir: '/x/root'\n", "---\nroot_dir: /x/root\n", ":root_dir: /x/root"] {
            fs_err::write(&file, text).unwrap();
            assert_eq!(root_dir(Some(&file)), Path::new("/x/root"), "{text}");
        }
        for text in ["nonsense", "root_dir:", "root_dir: ''\n"] {
            fs_err::write(&file, text).unwrap();
            assert_eq!(root_dir(Some(&file)), Path::new(DEFAULT_ROOT), "{text}");
        }
    }
}
