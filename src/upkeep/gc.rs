//! `gc`: removes what nothing needs any more, and puts the mirrors in order.
//!
//! An app counts as removed when this host has records of it and the manifest does not name it;
//! one that is disabled, or for other hosts, is named. What it installed stays as it is, and so
//! does what runs: this forgets an app, it does not uninstall it.
//!
//! Of a removed app its mirror goes last. As long as that is there the app counts as recorded,
//! so that a `gc` that was killed is taken up by the next one. Its entry in `last_state.yaml`
//! goes right before: an app that returns must find either both records or none.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::leftover::{Kind, Leftover};
use super::{Begun, begin};
use crate::cli::GcArgs;
use crate::deploy::{Answer, Refusal, json};
use crate::diagnostic::Diagnostic;
use crate::domain::{AppName, Release, Revision};
use crate::error::{ExitCode, Failure};
use crate::host::{BACK, deployment_root};
use crate::inspect::{drift, recorded_apps, removed_apps};
use crate::ledger::last_state::LastState;
use crate::ledger::{mirror_path, predecessor};
use crate::load::load;
use crate::manifest::Manifest;
use crate::mirror::{self, Effort, Mirror};
use crate::process::Interrupt;
use crate::report::human::{self, Paint};
use crate::report::{JSON_VERSION, seconds};
use crate::settings::Settings;
use crate::{codedeploy, report};

/// How long one mirror may take. There is time: nothing is deployed meanwhile.
const WITHIN: Duration = Duration::from_secs(3600);

/// `gc`.
pub fn gc(settings: &Settings, args: &GcArgs, interrupt: &Interrupt) -> Result<Answer, Refusal> {
    let report = if args.dry_run {
        let started = Instant::now();
        let manifest = load(settings)?;
        let (state, trouble) = LastState::load(&settings.last_state()).map_err(Failure::from)?;
        let found = find(settings, &manifest, &state)?;
        let mut report = Report::new(settings, true, None, manifest);
        report.warnings.extend(trouble);
        report.foresee(settings, found);
        report.finish(started, None)
    } else {
        let mut begun = begin(settings, "gc", args.lock_wait, interrupt)?;
        let mut state = std::mem::take(&mut begun.state);
        let Begun { id, started, manifest, console, .. } = &begun;
        let found = find(settings, manifest, &state)
            .inspect_err(|failure| console.log_error(None, &format!("failed: {failure}")))?;
        let mut report = Report::new(settings, false, Some(id.clone()), manifest.clone());
        report.carry_out(settings, found, &mut state, interrupt, &begun);
        report.warnings.extend(console.warnings());
        let report = report.finish(*started, interrupt.signal());
        begun.end(report.exit_code);
        report
    };
    let code = report.exit_code;
    let stdout = match settings.voice {
        voice if voice.json => json(&report),
        voice if voice.quiet && code == ExitCode::Ok => String::new(),
        voice => report.human(Paint(voice.color)),
    };
    Ok(Answer { stdout, code })
}

/// What there is to do.
struct Work {
    /// Of no app, or of one that is still wanted.
    litter: Vec<Leftover>,
    /// In the order in which it goes.
    removed: Vec<(AppName, Vec<Leftover>)>,
    /// Mirrors to put in order.
    kept: Vec<AppName>,
}

fn find(settings: &Settings, manifest: &Manifest, state: &LastState) -> Result<Work, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::from_error(ExitCode::Unfit, &error)
            .hint("run as the user that deploys, usually root")
    };
    let mirrored = recorded_apps(settings)?;
    let listed: BTreeSet<&AppName> = manifest.apps.iter().map(|app| &app.name).collect();

    let mut litter = Vec::new();
    for path in worktrees(&settings.cache_dir.join("worktrees")).map_err(unreadable)? {
        litter.push(Leftover::new(Kind::Worktree, None, path));
    }
    for path in compared(&settings.cache_dir.join(drift::WORKSHOP)).map_err(unreadable)? {
        litter.push(Leftover::new(Kind::Worktree, None, path));
    }
    for path in mirror::leftovers(&settings.cache_dir.join("mirrors")).map_err(unreadable)? {
        litter.push(Leftover::new(Kind::OldMirror, None, path));
    }
    if let Some(path) = predecessor::deploys(&settings.state_dir).map_err(unreadable)? {
        litter.push(Leftover::new(Kind::OldDeploys, None, path));
    }
    let agent = settings.agent_configuration_file.as_deref();
    let root = deployment_root(agent, &settings.state_dir);
    let mut removed = Vec::new();
    for app in &removed_apps(settings, manifest, state)? {
        let mut leftovers = Vec::new();
        for path in codedeploy::remains(&root, app).map_err(unreadable)? {
            leftovers.push(Leftover::new(Kind::AgentGroup, Some(app), path));
        }
        if state.get(app.as_str()).is_some() {
            leftovers.push(Leftover::new(Kind::Record, Some(app), settings.last_state()));
        }
        if mirrored.contains(app) {
            let path = mirror_path(&settings.cache_dir, app);
            leftovers.push(Leftover::new(Kind::Mirror, Some(app), path));
        }
        removed.push((app.clone(), leftovers));
    }
    let kept = mirrored.into_iter().filter(|app| listed.contains(app)).collect();
    Ok(Work { litter, removed, kept })
}

/// All worktrees below the directory of all apps' worktrees. No run is at work that could be
/// using them.
fn worktrees(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(directory).min_depth(1).max_depth(2) {
        match entry {
            Ok(entry) if entry.depth() == 1 || entry.file_name() == BACK => {
                if entry.file_type().is_dir() {
                    found.extend(mirror::worktrees(entry.path())?);
                }
            }
            Ok(_) => {}
            Err(error) if error.io_error().is_some_and(is_absent) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// What processes left behind that were killed while they compared files. They need no lock for
/// it, so one may be at it now.
fn compared(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match fs_err::read_dir(directory) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.trim_start_matches('.').split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(pid).exists() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn is_absent(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
}

/// The JSON document of `gc`.
#[derive(Serialize)]
struct Report {
    version: u32,
    command: &'static str,
    dry_run: bool,
    run: Option<String>,
    exit_code: ExitCode,
    seconds: f64,
    manifest: PathBuf,
    /// What is gone, or would be.
    removed: Vec<Leftover>,
    mirrors: Vec<Kept>,
    /// What the disk has more, or would have at least.
    bytes: u64,
    warnings: Vec<String>,
    failures: Vec<Failure>,
    diagnostics: Vec<Diagnostic>,
    #[serde(skip)]
    wanted: Vec<(AppName, Revision)>,
    #[serde(skip)]
    most: Option<u64>,
}

/// A mirror that stays.
#[derive(Serialize)]
struct Kept {
    app: AppName,
    /// Packs before and after.
    packs: (usize, usize),
    /// Bytes of its objects before and after.
    bytes: (u64, u64),
    /// Refs that expired, or would.
    refs: usize,
}

impl Report {
    fn new(settings: &Settings, dry_run: bool, run: Option<String>, manifest: Manifest) -> Self {
        let wanted = manifest.apps.iter().filter_map(|app| match &app.release {
            Release::Commit(revision) => Some((app.name.clone(), *revision)),
            Release::Name(_) => None,
        });
        Self {
            version: JSON_VERSION,
            command: "gc",
            dry_run,
            run,
            exit_code: ExitCode::Ok,
            seconds: 0.0,
            manifest: settings.config.clone(),
            removed: Vec::new(),
            mirrors: Vec::new(),
            bytes: 0,
            warnings: Vec::new(),
            failures: Vec::new(),
            wanted: wanted.collect(),
            most: manifest.limits.mirror_max,
            diagnostics: manifest.warnings,
        }
    }

    fn wanted(&self, app: &AppName) -> Vec<Revision> {
        let of_app = self.wanted.iter().filter(|(name, _)| name == app);
        of_app.map(|(_, revision)| *revision).collect()
    }

    fn foresee(&mut self, settings: &Settings, work: Work) {
        self.removed.extend(work.litter);
        self.removed.extend(work.removed.into_iter().flat_map(|(_, leftovers)| leftovers));
        for app in work.kept {
            match mirror::outlook(&mirror_path(&settings.cache_dir, &app), &self.wanted(&app)) {
                Ok(look) => self.mirrors.push(Kept {
                    app,
                    packs: (look.packs, look.packs),
                    bytes: (look.bytes, look.bytes),
                    refs: look.refs,
                }),
                Err(failure) => self.fail(Failure::from(failure).context(format!("{app}"))),
            }
        }
        self.warn_of_large();
    }

    /// Does all of it that can be done; a signal ends it between two things.
    fn carry_out(
        &mut self,
        settings: &Settings,
        work: Work,
        state: &mut LastState,
        interrupt: &Interrupt,
        begun: &Begun,
    ) {
        for leftover in work.litter {
            if interrupt.signal().is_some() {
                return;
            }
            let removed = match leftover.what {
                Kind::OldDeploys => {
                    predecessor::remove(&settings.state_dir, Duration::MAX).map(drop)
                }
                _ => leftover.remove(),
            };
            self.enter(leftover, removed.map_err(|e| unremoved(&e)), begun);
        }
        // The directories that worktrees were in: only those that are empty.
        let directory = settings.cache_dir.join("worktrees");
        for entry in
            walkdir::WalkDir::new(&directory).min_depth(1).max_depth(2).contents_first(true)
        {
            if let Some(entry) = entry.ok().filter(|entry| entry.file_type().is_dir()) {
                let _ = std::fs::remove_dir(entry.path());
            }
        }
        for (app, leftovers) in work.removed {
            for leftover in leftovers {
                if interrupt.signal().is_some() {
                    return;
                }
                let removed = match leftover.what {
                    Kind::Record => state.forget(app.as_str()).map_err(Failure::from),
                    Kind::Mirror => {
                        Mirror::open(&leftover.path).and_then(Mirror::remove).map_err(Failure::from)
                    }
                    _ => leftover.remove().map_err(|error| unremoved(&error)),
                };
                if !self.enter(leftover, removed, begun) {
                    // What comes after it is what leads the next run here.
                    break;
                }
            }
        }
        for app in work.kept {
            if interrupt.signal().is_some() {
                return;
            }
            self.put_in_order(settings, app, interrupt, begun);
        }
        self.warn_of_large();
    }

    fn put_in_order(
        &mut self,
        settings: &Settings,
        app: AppName,
        interrupt: &Interrupt,
        begun: &Begun,
    ) {
        let effort = Effort {
            always: true,
            within: WITHIN,
            interrupt: interrupt.clone(),
            wanted: self.wanted(&app),
            most: self.most,
        };
        let path = mirror_path(&settings.cache_dir, &app);
        match Mirror::open(&path).and_then(|mirror| mirror.tidy(&effort)) {
            Ok(tidied) => {
                let tidied = tidied.unwrap_or_default();
                begun.console.log(Some(app.as_str()), &tidied.to_string());
                self.bytes += tidied.bytes.0.saturating_sub(tidied.bytes.1);
                let (packs, bytes, refs) = (tidied.packs, tidied.bytes, tidied.refs);
                self.mirrors.push(Kept { app, packs, bytes, refs });
            }
            Err(failure) => {
                let failure = Failure::from(failure);
                let failure = failure.context(format!("the mirror of {app} was not put in order"));
                begun.console.log_error(Some(app.as_str()), &failure.line());
                self.fail(failure);
            }
        }
    }

    /// Enters what came of removing something; whether it is gone.
    fn enter(&mut self, leftover: Leftover, removed: Result<(), Failure>, begun: &Begun) -> bool {
        let about = leftover.app.as_ref().map(AppName::as_str);
        let text = format!("{} `{}`", leftover.what.describe(), leftover.path.display());
        match removed {
            Ok(()) => {
                begun.console.log(about, &format!("removed {text} ({} bytes)", leftover.bytes));
                self.removed.push(leftover);
                true
            }
            Err(failure) => {
                let failure = failure.context(format!("cannot remove the {text}"));
                begun.console.log_error(about, &failure.line());
                self.fail(failure);
                false
            }
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.failures.push(failure);
    }

    fn warn_of_large(&mut self) {
        let Some(most) = self.most else { return };
        for kept in self.mirrors.iter().filter(|kept| kept.bytes.1 > most) {
            let (now, most) = (human::bytes(kept.bytes.1), human::bytes(most));
            let app = &kept.app;
            self.warnings.push(if self.dry_run {
                format!("the mirror of {app} has {now}, more than {most}: it would be reduced")
            } else {
                format!(
                    "the mirror of {app} has {now} and can be no smaller; `mirror_max` is {most}"
                )
            });
        }
    }

    fn finish(mut self, started: Instant, signal: Option<i32>) -> Self {
        self.bytes += self.removed.iter().map(|leftover| leftover.bytes).sum::<u64>();
        self.seconds = started.elapsed().as_secs_f64();
        let failed = self.failures.first().map_or(ExitCode::Ok, |failure| failure.code);
        self.exit_code = signal.map_or(failed, ExitCode::of_signal);
        self
    }

    fn human(&self, paint: Paint) -> String {
        let mut text = String::new();
        for warning in &self.warnings {
            text += &format!("{} {}\n", paint.yellow("warning:"), report::tame(warning, 400));
        }
        for leftover in &self.removed {
            let verb = if self.dry_run { "would remove" } else { "removed" };
            let of = leftover.app.as_ref().map(|app| format!("{app}: ")).unwrap_or_default();
            text += &format!(
                "{of}{verb} {} `{}` ({})\n",
                leftover.what.describe(),
                leftover.path.display(),
                human::bytes(leftover.bytes)
            );
        }
        for kept in &self.mirrors {
            let (before, after) = kept.bytes;
            text += &if self.dry_run {
                format!(
                    "{}: {}, {}, {} would expire\n",
                    kept.app,
                    human::counted(kept.packs.0, "pack"),
                    human::bytes(before),
                    human::counted(kept.refs, "ref")
                )
            } else {
                let line = format!(
                    "{}: {} -> {}, {} -> {}, {} expired",
                    kept.app,
                    kept.packs.0,
                    human::counted(kept.packs.1, "pack"),
                    human::bytes(before),
                    human::bytes(after),
                    human::counted(kept.refs, "ref")
                );
                paint.dim(&line) + "\n"
            };
        }
        for failure in &self.failures {
            text += &human::failure(failure, None, paint);
        }
        let bytes = human::bytes(self.bytes);
        let end = match (u8::from(self.exit_code), self.dry_run) {
            (0, true) => format!("would free {bytes}, and what mirrors can do without"),
            (0, false) => {
                let ok = paint.green("ok");
                format!("multideployer gc {ok}: {bytes} freed in {}", seconds(self.seconds))
            }
            (code, _) => {
                let failed = paint.red(&format!("failed (exit code {code})"));
                format!("multideployer gc {failed}: {bytes} freed")
            }
        };
        text + &end + "\n"
    }
}

fn unremoved(error: &std::io::Error) -> Failure {
    Failure::from_error(ExitCode::Unfit, error).hint("run as the user that deploys, usually root")
}
