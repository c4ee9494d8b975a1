//! One deployment, event by event.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::appspec::{self, PREVIOUS_REVISION_EVENTS};
use super::checks::{Bundle, Kind};
use super::cli::Options;
use super::config::Config;
use super::hooks::Run;
use super::lifecycle::{self, DOWNLOAD_BUNDLE, INSTALL};
use super::preflight::{self, New, VALIDATION};
use super::problem::Problem;
use super::state::{self, State};
use super::{download, install, log, revision, unpack};
use crate::process::Interrupt;

const DEFAULT_GROUP: &str = "default-local-deployment-group";
const DEFAULT_GROUP_NAME: &str = "LocalFleet";

/// Everything that is settled before the first event.
pub(super) struct Deployment<'a> {
    bundle: &'a Bundle,
    config: &'a Config,
    cwd: &'a Path,
    interrupt: &'a Interrupt,
    move_bundle: bool,
    appspec: Option<&'a str>,
    file_exists: String,
    group: &'a str,
    group_name: &'a str,
    application: &'a str,
    state: State,
    id: String,
    folder: PathBuf,
    archive: PathBuf,
    /// Where an archive is unpacked until its event comes.
    staged: PathBuf,
    warnings: Vec<String>,
}

impl<'a> Deployment<'a> {
    /// # Errors
    /// No random numbers.
    pub(super) fn new(
        options: &'a Options,
        bundle: &'a Bundle,
        config: &'a Config,
        cwd: &'a Path,
        interrupt: &'a Interrupt,
    ) -> io::Result<Self> {
        let group = options.group.as_deref().unwrap_or(DEFAULT_GROUP);
        let state = State::new(&config.root, group);
        let id = state::new_id()?;
        let folder = state.deployment_folder(&id);
        let behavior = options.file_exists.as_deref().filter(|word| !word.is_empty());
        Ok(Self {
            bundle,
            config,
            cwd,
            interrupt,
            move_bundle: options.move_bundle,
            appspec: options.appspec.as_deref(),
            file_exists: behavior.unwrap_or("DISALLOW").to_uppercase(),
            group,
            group_name: options.group_name.as_deref().unwrap_or(DEFAULT_GROUP_NAME),
            application: options.application.as_deref().unwrap_or(&bundle.typed),
            state,
            archive: folder.join("deployment-archive"),
            staged: folder.join("deployment-archive-incoming"),
            folder,
            id,
            warnings: Vec::new(),
        })
    }

    /// Runs it and prints what the agent's tool prints. The exit code, or the signal to die
    /// by.
    pub(super) fn run(mut self) -> Result<u8, i32> {
        let folder = self.folder.display().to_string();
        say(&format!("Starting to execute deployment from within folder {folder}"));
        let events = match lifecycle::ordered(&self.bundle.events) {
            Ok(events) => events,
            Err(reason) => {
                complain(&[format!("{VALIDATION} failed: {reason}")]);
                return Ok(1);
            }
        };
        let result = self.events(&events);
        self.note(&result);
        complain(&std::mem::take(&mut self.warnings));
        if let Err(Problem::Script { path, .. }) = &result {
            say(&format!(
                "Your local deployment failed while trying to execute your script at {path}"
            ));
        }
        let log = log::scripts_log(&self.folder);
        say(&format!("See the deployment log at {} for more details", log.display()));
        match result {
            Ok(()) => {
                say("AppSpec file valid. Local deployment successful");
                Ok(0)
            }
            Err(Problem::Script { lines, .. }) => {
                complain(&lines);
                Ok(1)
            }
            Err(Problem::Interrupted { signal, lines }) => {
                complain(&lines);
                Err(signal)
            }
            Err(Problem::Other { stdout, lines }) => {
                if let Some(text) = stdout {
                    say(&format!("ERROR: {text}"));
                }
                complain(&lines);
                Ok(1)
            }
        }
    }

    /// Into the tool's own log: how it ended, and all that goes to stderr.
    fn note(&self, result: &Result<(), Problem>) {
        let mut lines = vec![format!("{} from {}", self.group, self.bundle.typed)];
        lines.extend(self.warnings.iter().cloned());
        match result {
            Ok(()) => lines.push("deployed".to_owned()),
            Err(
                Problem::Script { lines: why, .. }
                | Problem::Interrupted { lines: why, .. }
                | Problem::Other { lines: why, .. },
            ) => lines.extend(why.iter().cloned()),
        }
        log::note(&self.config.log_dir, &self.id, &lines);
    }

    fn events(&mut self, events: &[String]) -> Result<(), Problem> {
        self.prepare(events)?;
        self.make_folder()?;
        let result = events.iter().try_for_each(|event| {
            self.look_for_signals(event)?;
            match event.as_str() {
                DOWNLOAD_BUNDLE => self.download_bundle(),
                INSTALL => self.install(),
                _ => self.hooks(event),
            }?;
            self.look_for_signals(event)
        });
        if result.is_err() && self.staged.exists() {
            let _ = fs::remove_dir_all(&self.staged);
        }
        result
    }

    fn look_for_signals(&self, event: &str) -> Result<(), Problem> {
        match self.interrupt.signal() {
            None => Ok(()),
            Some(signal) => {
                let name = crate::process::signal_name(signal);
                let lines = vec![format!("{event} failed: this program received {name}")];
                Err(Problem::Interrupted { signal, lines })
            }
        }
    }

    /// All that can be found out before the running application is stopped.
    fn prepare(&mut self, events: &[String]) -> Result<(), Problem> {
        for (what, text) in [
            ("application name", self.application),
            ("deployment group name", self.group_name),
            ("deployment group", self.group),
        ] {
            if text.is_empty() {
                return Err(Problem::new(VALIDATION, format!("the {what} is empty")));
            }
        }
        let packed = self.bundle.kind != Kind::Directory;
        let folder = if packed {
            self.stage()?;
            self.staged.clone()
        } else {
            self.refuse_to_copy_into_itself()?;
            self.bundle.path.clone()
        };
        let new = New {
            folder: &folder,
            appspec: self.appspec,
            named: &self.bundle.events,
            events,
            archive: &self.archive,
            file_exists: &self.file_exists,
            instructions: &self.state.instructions(),
            group: self.group,
            cwd: self.cwd,
        };
        match preflight::check(&new) {
            Ok((_, warnings)) => {
                self.warnings.extend(warnings);
                Ok(())
            }
            Err(problem) => {
                if packed {
                    let _ = fs::remove_dir_all(&self.folder);
                    // Only if it is empty.
                    let _ = fs::remove_dir(self.state.group_folder());
                }
                Err(problem)
            }
        }
    }

    fn refuse_to_copy_into_itself(&self) -> Result<(), Problem> {
        let real = |path: &Path| fs::canonicalize(path).ok();
        let existing = self.folder.ancestors().find_map(real);
        match (existing, real(&self.bundle.path)) {
            (Some(target), Some(source)) if target.starts_with(&source) => Err(Problem::told(
                DOWNLOAD_BUNDLE,
                format!(
                    "cannot copy directory {} to itself {}",
                    self.bundle.typed,
                    self.archive.display()
                ),
            )),
            _ => Ok(()),
        }
    }

    fn make_folder(&self) -> Result<(), Problem> {
        fs::create_dir_all(&self.folder)
            .map_err(|e| Problem::system("Deployment", &e, "dir_s_mkdir", &self.folder))
    }

    /// Unpacks the archive beside where it will be.
    fn stage(&self) -> Result<(), Problem> {
        self.make_folder()?;
        let link = self.folder.join("bundle.tar");
        fs_err::os::unix::fs::symlink(&self.bundle.path, &link)
            .map_err(|e| Problem::system(DOWNLOAD_BUNDLE, &e, "rb_file_s_symlink", &link))?;
        unpack::unpack(&self.bundle.path, self.bundle.kind, &self.staged)
            .and_then(|()| download::lift_single_directory(&self.staged))
            .map_err(|e| {
                let _ = fs::rename(&self.staged, &self.archive);
                let reason = format!("{} cannot be unpacked: {e}", self.bundle.typed);
                Problem::new(DOWNLOAD_BUNDLE, reason)
            })
    }

    fn download_bundle(&mut self) -> Result<(), Problem> {
        let cannot = |e: io::Error| Problem::new(DOWNLOAD_BUNDLE, e);
        let last = self.state.last_successful().map_err(cannot)?;
        let warnings = download::retain(
            &self.state.group_folder(),
            &self.folder,
            last.as_deref(),
            self.config.max_revisions,
        );
        self.warnings.extend(warnings.into_iter().map(|text| format!("warning: {text}")));
        if self.staged.exists() {
            fs::rename(&self.staged, &self.archive).map_err(cannot)?;
        } else if self.bundle.kind == Kind::Directory {
            let target = if self.archive.is_dir() {
                // A second time, the whole directory is put into what is there.
                let real = fs::canonicalize(&self.bundle.path).map_err(cannot)?;
                self.archive.join(real.file_name().unwrap_or_default())
            } else {
                self.archive.clone()
            };
            let moved = self.move_bundle
                && target == self.archive
                && download::move_directory(&self.bundle.path, &target);
            if !moved {
                download::copy_directory(&self.bundle.path, &target).map_err(cannot)?;
            }
        }
        let instructions = self.state.instructions();
        fs::create_dir_all(&instructions)
            .map_err(|e| Problem::system(DOWNLOAD_BUNDLE, &e, "dir_s_mkdir", &instructions))?;
        self.record(DOWNLOAD_BUNDLE, &self.state.most_recent_file())
    }

    /// Notes this deployment's folder in one of the group's records.
    fn record(&self, event: &str, file: &Path) -> Result<(), Problem> {
        use std::os::unix::ffi::OsStrExt;
        state::write_whole(file, self.folder.as_os_str().as_bytes())
            .map_err(|e| Problem::system(event, &e, "rb_sysopen", file))
    }

    fn install(&mut self) -> Result<(), Problem> {
        let found = revision::read(&self.archive, self.appspec, INSTALL)?;
        let Some(spec) = &found.parsed.spec else {
            return Err(revision::invalid(INSTALL, &found));
        };
        preflight::hook_names(INSTALL, &found, spec, &self.bundle.events)?;
        let request = install::Request {
            archive: &self.archive,
            appspec: spec,
            file_exists: &self.file_exists,
            instructions: &self.state.instructions(),
            group: self.group,
            cwd: self.cwd,
        };
        match install::install(&request) {
            Ok(warnings) => {
                self.warnings.extend(warnings.into_iter().map(|text| format!("warning: {text}")));
            }
            Err(error) => {
                let stdout = error.stdout_error();
                let failure =
                    crate::error::Failure::from_error(crate::error::ExitCode::Unexpected, &error);
                let lines = vec![format!("{INSTALL} failed: {}", failure.line())];
                return Err(Problem::Other { stdout, lines });
            }
        }
        self.record(INSTALL, &self.state.last_successful_file())
    }

    fn hooks(&mut self, event: &str) -> Result<(), Problem> {
        let of_previous = PREVIOUS_REVISION_EVENTS.contains(&event) && !self.archive.exists();
        let archive = if of_previous {
            let last = self.state.last_successful().map_err(|e| Problem::new(event, e))?;
            let Some(folder) = last else { return Ok(()) };
            let archive = folder.join("deployment-archive");
            if !archive.exists() {
                self.warnings.push(format!(
                    "warning: {event} is skipped, as the last successful revision is gone: there is no {}",
                    archive.display()
                ));
                return Ok(());
            }
            archive
        } else {
            self.archive.clone()
        };
        let found = revision::read(&archive, self.appspec, event)?;
        // Of a revision that is installed already only the hooks matter any more.
        let hooks = match (&found.parsed.spec, &found.parsed.hooks) {
            (Some(spec), _) => &spec.hooks,
            (None, Some(hooks)) if of_previous => hooks,
            _ => return Err(revision::invalid(event, &found)),
        };
        let all_log = format!("{}-deployments.log", self.config.program);
        let all_log = self.state.deployment_logs().join(all_log);
        let run = Run {
            event,
            archive: &archive,
            current_archive: &self.archive,
            folder: &self.folder,
            all_log: self.config.deployments_log.then_some(all_log),
            deployment: &self.id,
            application: self.application,
            group_name: self.group_name,
            group: self.group,
            interrupt: self.interrupt,
        };
        run.scripts(appspec::scripts(hooks, event), &mut self.warnings)
    }
}

/// A line on stdout. Nobody may be reading any more.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Lines on stderr.
pub(super) fn complain(lines: &[String]) {
    let mut text = lines.join("\n");
    if !text.is_empty() {
        text.push('\n');
        let _ = io::stderr().write_all(text.as_bytes());
    }
}
