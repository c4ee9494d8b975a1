//! Which codedeploy-local, and what it knows.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use super::Job;
use crate::error::{ExitCode, Failure};
use crate::process::{Command, Interrupt, Outcome};

/// Where the agent installs its tool, 1.x and 2.x, in the order they are looked for.
const USUAL: [(&str, &[&str]); 2] = [
    ("/opt/codedeploy-agent/bin/codedeploy-local", &[]),
    ("/opt/codedeploy-agent/bin/codedeploy-agent", &["deploy-local"]),
];
/// Options that came with time; 2.x and the built-in one know them all.
const OPTIONS: [&str; 4] = [
    "--application-name",
    "--deployment-group-name",
    "--appspec-filename",
    "--file-exists-behavior",
];
/// A start of 1.x takes about a second of CPU; on a small host that is just booting, more.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The agent's where there is one, else the built-in.
    Auto,
    /// The built-in.
    Builtin,
    /// This program; a name without `/` is looked up in `PATH`.
    Path(PathBuf),
}

/// A tool that is there; what it knows has not been asked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The built-in one.
    Builtin,
    /// A program, and the arguments that make it a codedeploy-local.
    Program(PathBuf, &'static [&'static str]),
}

impl Found {
    /// In a few words, for the plan.
    pub fn describe(&self) -> String {
        match self {
            Self::Builtin => "the built-in codedeploy-local".to_owned(),
            Self::Program(path, []) => path.display().to_string(),
            Self::Program(path, extra) => format!("{} {}", path.display(), extra.join(" ")),
        }
    }
}

/// Finds the tool. `path_variable` is `PATH`.
///
/// # Errors
/// A program that was asked for is not there or not executable. There is no fallback then.
pub fn find(choice: &Choice, path_variable: Option<&std::ffi::OsStr>) -> Result<Found, Failure> {
    match choice {
        Choice::Builtin => Ok(Found::Builtin),
        Choice::Auto => {
            let usual = USUAL.iter().find(|(path, _)| executable(Path::new(path)));
            Ok(usual.map_or(Found::Builtin, |(path, extra)| Found::Program(path.into(), extra)))
        }
        Choice::Path(path) => {
            let found = if path.components().count() == 1 && path.file_name().is_some() {
                let directories = path_variable.map(std::env::split_paths);
                directories
                    .into_iter()
                    .flatten()
                    .map(|directory| directory.join(path))
                    .find(|candidate| executable(candidate))
            } else {
                std::path::absolute(path).ok().filter(|path| executable(path))
            };
            found.map(|path| Found::Program(path, &[])).ok_or_else(|| {
                Failure::new(
                    ExitCode::Unfit,
                    format!("there is no executable codedeploy-local at `{}`", path.display()),
                )
                .hint("correct --codedeploy-local-path (or MULTIDEPLOYER_CODEDEPLOY_LOCAL_PATH); `-c builtin` uses the built-in one")
            })
        }
    }
}

fn executable(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

/// A tool that was asked what it knows.
#[derive(Debug, Clone)]
pub struct Tool {
    kind: Kind,
    program: PathBuf,
    leading: Vec<OsString>,
    options: Vec<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Builtin,
    /// The agent's, in Ruby.
    One,
    /// The agent's, in Rust: version, and the `root_dir` it works in.
    Two {
        version: String,
        root: PathBuf,
    },
}

impl Tool {
    /// The built-in one, which is this program.
    pub fn builtin(program: PathBuf) -> Self {
        Self { kind: Kind::Builtin, program, leading: Vec::new(), options: OPTIONS.to_vec() }
    }

    #[cfg(test)]
    pub(super) fn old_for_tests() -> Self {
        let program = "/opt/codedeploy-agent/bin/codedeploy-local".into();
        Self { kind: Kind::One, program, leading: Vec::new(), options: Vec::new() }
    }

    /// In a few words, for summary and history.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Builtin => "built-in codedeploy-local".to_owned(),
            Kind::One => format!("codedeploy-local 1.x at {}", self.program.display()),
            Kind::Two { version, .. } => {
                format!("codedeploy-local {version} at {}", self.program.display())
            }
        }
    }

    /// Whether it is the agent's Rust rewrite.
    pub fn is_two(&self) -> bool {
        matches!(self.kind, Kind::Two { .. })
    }

    /// Whether it is the built-in one.
    pub fn is_builtin(&self) -> bool {
        self.kind == Kind::Builtin
    }

    pub(super) fn leading_arguments(&self) -> &[OsString] {
        &self.leading
    }

    pub(super) fn knows(&self, option: &str) -> bool {
        self.options.contains(&option)
    }

    /// Where 2.x keeps the deployments of a group.
    pub(super) fn folder(&self, group: &str) -> Option<PathBuf> {
        match &self.kind {
            Kind::Two { root, .. } => Some(root.join(group)),
            Kind::Builtin | Kind::One => None,
        }
    }

    /// 2.x ends with 2 for what it refuses before the first event.
    pub(super) fn started_nothing(&self, outcome: &Outcome) -> bool {
        self.is_two() && *outcome == Outcome::Exited(2)
    }

    /// The child to start for a job, which then becomes the tool (see [`super::start`]).
    ///
    /// # Errors
    /// This program cannot find itself.
    pub(super) fn command(&self, job: &Job<'_>) -> Result<Command, Failure> {
        let (root, program) = match &self.kind {
            Kind::Builtin => (Path::new(""), Path::new(super::start::BUILTIN)),
            Kind::One => (Path::new(""), self.program.as_path()),
            Kind::Two { root, .. } => (root.as_path(), self.program.as_path()),
        };
        let command = Command::new(this_program()?)
            .arg(super::start::COMMAND)
            .arg(job.state)
            .args([job.run, job.app.name.as_str()])
            .arg(root)
            .arg(job.app.name.deployment_group())
            .arg(program);
        // A working directory that was removed would fail the app, and no path depends on it.
        match std::env::current_dir() {
            Ok(_) => Ok(command),
            Err(_) => Ok(command.current_dir("/")),
        }
    }
}

/// A path that starts this program again, and no other version of it: an upgrade may have put
/// another file in its place since it was started.
fn this_program() -> Result<PathBuf, Failure> {
    const SELF: &str = "/proc/self/exe";
    let path = std::env::current_exe().map_err(|error| {
        Failure::from_error(ExitCode::Unfit, &error).context("cannot find this program's own file")
    })?;
    // Of a file that was replaced the kernel says `PATH (deleted)`; its link still leads to it.
    Ok(if path.exists() { path } else { PathBuf::from(SELF) })
}

/// Asks a tool for its version and options. It does not see the variables in `hidden`.
///
/// # Errors
/// It cannot be started, or is no codedeploy-local.
pub fn probe(
    found: &Found,
    agent_configuration_file: Option<&Path>,
    hidden: &[OsString],
    interrupt: &Interrupt,
) -> Result<Tool, Failure> {
    let (program, extra) = match found {
        Found::Builtin => return Ok(Tool::builtin(this_program()?)),
        Found::Program(program, extra) => (program, *extra),
    };
    let leading: Vec<OsString> = extra.iter().map(Into::into).collect();
    let question = |text| {
        let command = Command::new(program).args(&leading).arg(text).deadline(Some(PATIENCE));
        hidden.iter().fold(command, Command::env_remove)
    };
    let ask = |text| ask(program, question(text), text, interrupt);
    let version = ask("--version")?;
    let mut words = version.stdout.split_whitespace();
    let name = words.next().unwrap_or_default();
    let number = words.next().unwrap_or_default();
    let tool =
        |kind, options| Tool { kind, program: program.clone(), leading: leading.clone(), options };
    if name.starts_with("codedeploy-") && !number.is_empty() && !number.starts_with("1.") {
        let root = super::root_dir(agent_configuration_file);
        let kind = Kind::Two { version: number.to_owned(), root };
        return Ok(tool(kind, OPTIONS.to_vec()));
    }
    let help = ask("--help")?;
    if !help.stdout.contains("--bundle-location") {
        let mut failure = Failure::new(
            ExitCode::Unfit,
            format!("`{}` does not behave like codedeploy-local", program.display()),
        )
        .hint("1.x needs a working Ruby: run it with --help by hand; `-c builtin` uses the built-in one");
        failure.output =
            version.stderr.lines().chain(help.stderr.lines()).map(str::to_owned).collect();
        failure.output.truncate(10);
        return Err(failure);
    }
    let options = OPTIONS.into_iter().filter(|option| help.stdout.contains(option)).collect();
    Ok(tool(Kind::One, options))
}

struct Answer {
    stdout: String,
    stderr: String,
}

fn ask(
    program: &Path,
    command: Command,
    question: &str,
    interrupt: &Interrupt,
) -> Result<Answer, Failure> {
    let mut answer = Answer { stdout: String::new(), stderr: String::new() };
    let finished = command.run(interrupt, &mut |line| {
        let to = match line.stream {
            crate::process::Stream::Stdout => &mut answer.stdout,
            crate::process::Stream::Stderr => &mut answer.stderr,
        };
        // A help text has a few kB; a program that never stops is not believed.
        if to.len() < 64 << 10 {
            to.push_str(&String::from_utf8_lossy(line.bytes));
            to.push('\n');
        }
    });
    let cannot = || format!("cannot ask `{} {question}`", program.display());
    match &finished.outcome {
        Outcome::NotStarted(reason) => {
            Err(Failure::from_error(ExitCode::Unfit, reason).context(cannot()))
        }
        Outcome::Interrupted(signal) => {
            Err(Failure::new(ExitCode::of_signal(*signal), "ended by a signal"))
        }
        Outcome::TimedOut { .. } => Err(Failure::new(
            ExitCode::Unfit,
            format!("{}: it {}", cannot(), crate::process::describe_exit(&finished)),
        )),
        _ => Ok(answer),
    }
}
