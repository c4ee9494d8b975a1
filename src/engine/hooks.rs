//! Runs the scripts of an event.

use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use nix::unistd::{AccessFlags, Uid, User, access};

use super::appspec::Script;
use super::log::ScriptLog;
use super::preflight::script_path;
use super::problem::Problem;
use crate::process::{Command, Finished, Interrupt, Outcome, StartFailure, Stream, describe_exit};

/// How long a background process may hold a script's outputs after the script's end.
const OUTPUT_GRACE: Duration = Duration::from_secs(10);
/// Lines of output that are shown when a script fails.
const LAST_LINES: usize = 20;

/// What the scripts of an event are run with.
pub(super) struct Run<'a> {
    pub(super) event: &'a str,
    /// The revision that the scripts belong to.
    pub(super) archive: &'a Path,
    /// The revision that is being deployed; its path is printed, whoever's script fails.
    pub(super) current_archive: &'a Path,
    /// The current deployment's folder, where the log goes.
    pub(super) folder: &'a Path,
    /// The log of all deployments, if it is wanted.
    pub(super) all_log: Option<PathBuf>,
    pub(super) deployment: &'a str,
    pub(super) application: &'a str,
    pub(super) group_name: &'a str,
    pub(super) group: &'a str,
    pub(super) interrupt: &'a Interrupt,
}

impl Run<'_> {
    /// Runs them in order, to the first that fails.
    ///
    /// # Errors
    /// That one, with the reason; or a signal came.
    pub(super) fn scripts(
        &self,
        scripts: &[Script],
        warnings: &mut Vec<String>,
    ) -> Result<(), Problem> {
        if scripts.is_empty() {
            return Ok(());
        }
        let mut log = ScriptLog::open(self.folder, self.all_log.as_deref(), self.deployment)
            .map_err(|e| {
                Problem::system(self.event, &e, "rb_sysopen", &super::log::scripts_log(self.folder))
            })?;
        log.entry(&format!("LifecycleEvent - {}", self.event));
        let result = scripts.iter().try_for_each(|script| self.script(script, &mut log));
        if log.failed() {
            warnings.push(format!(
                "some lines of {} could not be written",
                super::log::scripts_log(self.folder).display()
            ));
        }
        result
    }

    fn script(&self, script: &Script, log: &mut ScriptLog) -> Result<(), Problem> {
        let path = PathBuf::from(script_path(self.archive, &script.location));
        let failed = |reason: String, output: VecDeque<String>| Problem::Script {
            path: script_path(self.current_archive, &script.location),
            lines: output
                .into_iter()
                .chain([format!("{} failed: {} {reason}", self.event, script.location)])
                .collect(),
        };
        if !path.exists() {
            let reason = format!("does not exist: there is no {}", path.display());
            return Err(failed(reason, VecDeque::new()));
        }
        if access(&path, AccessFlags::X_OK).is_err() {
            let changed = fs::metadata(&path).and_then(|about| {
                let mode = about.permissions().mode() | 0o111;
                fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
            });
            if let Err(e) = changed {
                return Err(failed(format!("cannot be made executable: {e}"), VecDeque::new()));
            }
        }
        log.entry(&format!("Script - {}", script.location));
        let mut last = VecDeque::new();
        let finished = self.run(script, &path, log, &mut last);
        let who = user(script);
        match finished.outcome {
            Outcome::Exited(0) => Ok(()),
            Outcome::Interrupted(signal) => Err(Problem::Interrupted {
                signal,
                lines: vec![format!(
                    "{} failed: {} {who} {}",
                    self.event,
                    script.location,
                    describe_exit(&finished)
                )],
            }),
            _ => Err(failed(format!("{who} {}", describe_exit(&finished)), last)),
        }
    }

    fn run(
        &self,
        script: &Script,
        path: &Path,
        log: &mut ScriptLog,
        last: &mut VecDeque<String>,
    ) -> Finished {
        let mut on_line = |line: crate::process::Line<'_>| {
            log.line(line);
            let tag = match line.stream {
                Stream::Stdout => "stdout",
                Stream::Stderr => "stderr",
            };
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            let text: String = String::from_utf8_lossy(line.bytes).chars().take(2000).collect();
            last.push_back(format!("[{tag}]{}", text.trim_end()));
        };
        let finished = self.command(script, path, false).run(self.interrupt, &mut on_line);
        match finished.outcome {
            // As execvp does, and with it the agent's tool.
            Outcome::NotStarted(StartFailure::UnknownFormat(_)) => {
                self.command(script, path, true).run(self.interrupt, &mut on_line)
            }
            _ => finished,
        }
    }

    /// The path is always one argument. Only `su` has to be told by way of a shell, so for it
    /// the path is quoted.
    fn command(&self, script: &Script, path: &Path, by_shell: bool) -> Command {
        let quoted = format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"));
        let command = match (script.sudo, &script.runas) {
            (false, None) if by_shell => Command::new("/bin/sh").arg(path),
            (false, None) => Command::new(path),
            (true, None) => Command::new("sudo").arg(path),
            (sudo, Some(user)) => {
                let command =
                    if sudo { Command::new("sudo").arg("su") } else { Command::new("su") };
                let command = if user.is_empty() { command } else { command.arg(user) };
                command.arg("-c").arg(quoted)
            }
        };
        command
            .env("LIFECYCLE_EVENT", self.event)
            .env("DEPLOYMENT_ID", self.deployment)
            .env("APPLICATION_NAME", self.application)
            .env("DEPLOYMENT_GROUP_NAME", self.group_name)
            .env("DEPLOYMENT_GROUP_ID", self.group)
            .stdin_bytes(Vec::new())
            .deadline(Some(script.timeout))
            .output_grace(OUTPUT_GRACE)
    }
}

/// "(as alice)", "(as root, by sudo)".
fn user(script: &Script) -> String {
    let name = match &script.runas {
        Some(name) if name.is_empty() => "root".to_owned(),
        Some(name) => name.clone(),
        None if script.sudo => "root".to_owned(),
        None => {
            let us = Uid::effective();
            User::from_uid(us).ok().flatten().map_or_else(|| us.to_string(), |user| user.name)
        }
    };
    format!("(as {name}{})", if script.sudo { ", by sudo" } else { "" })
}
