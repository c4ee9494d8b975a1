//! This host: the effects of a rollout in terms of mirror, bundle, codedeploy and ledger.

mod fetch;
pub(crate) mod lfs;
mod place;
mod predecessor;
mod remote;
mod room;
pub(crate) mod submodules;
mod verify;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::bundle;
use crate::checks;
use crate::codedeploy::{self, EnvironmentChange, Job, Tool};
use crate::domain::{App, AppName, Hook, Revision};
use crate::error::{ExitCode, Failure};
use crate::files;
use crate::hosts::Hosts;
use crate::ledger::last_state::{self, LastState};
use crate::ledger::{self, Records, history};
use crate::mirror::credentials::{self, Kept};
use crate::mirror::{self, CheckoutOptions, Mirror, Progress, Turns};
use crate::plan::Step;
use crate::process::Interrupt;
use crate::report::console::Console;
use crate::rollout::{Event, Host};
use crate::sync::lock;
use room::{Need, Needs};

pub use fetch::Obtained;
pub(crate) use place::safe_directory;
pub use place::{hostname, private_directory, sweep, who};
pub use remote::resolve;
pub(crate) use remote::{anonymous, credential, route};
use remote::{remote, told};

/// What a run knows from the start.
pub struct Run<'a> {
    /// Its id.
    pub id: &'a str,
    /// Mirrors and worktrees.
    pub cache: &'a Path,
    /// What is known about git servers, credentials included.
    pub hosts: &'a Hosts,
    /// The manifest's apps, those that are left alone included.
    pub apps: &'a [App],
    /// What credentials were had so far.
    pub kept: Kept,
    /// Looks a variable up in our own environment.
    pub variable: &'a (dyn Fn(&str) -> Option<OsString> + Sync),
    /// Variables that no child may see.
    pub hidden: &'a [OsString],
    /// Make no connection.
    pub offline: bool,
    /// When it has to be over.
    pub deadline: Option<Instant>,
    /// Bytes that have to be free after it.
    pub min_free_space: u64,
    /// Bytes that a mirror may have, if that is limited.
    pub mirror_max: Option<u64>,
    /// The hook around this run.
    pub hook: Option<&'a Hook>,
    /// The agent's configuration file, if one was named.
    pub agent_configuration_file: Option<&'a Path>,
    /// The state directory, for the built-in codedeploy-local where there is no agent.
    pub state: &'a Path,
    /// Who runs it and where.
    pub who: String,
    /// The tool, once it has been asked what it knows.
    pub tool: &'a OnceLock<Result<Tool, Failure>>,
    /// Asks it.
    pub probe: &'a (dyn Fn() -> Result<Tool, Failure> + Sync),
    /// Fires when a signal comes.
    pub interrupt: &'a Interrupt,
    /// Whom to tell.
    pub console: &'a Console,
}

/// The live host.
pub struct LiveHost<'a> {
    run: Run<'a>,
    state: LastState,
    prepared: Mutex<BTreeMap<AppName, Prepared>>,
    turns: Turns,
}

/// An app's open mirror and the commit its release turned out to be.
struct Prepared {
    mirror: Mirror,
    commit: Revision,
    /// Of its worktrees.
    needs: Need,
    /// Where its files are installed. How many go to which is not known: all may go to each.
    destinations: Vec<PathBuf>,
}

/// Where below an app's worktrees the one is that puts it back: it may be of the same commit.
pub(crate) const BACK: &str = "previous";

/// How long a run may take to put mirrors in order, and then to remove worktrees, when all
/// else is done. The next run goes on with it.
const TIDYING: Duration = Duration::from_secs(20);
const SWEEPING: Duration = Duration::from_secs(5);

/// A checked worktree. It is removed at the end of the run: codedeploy-local keeps its own
/// copy.
pub struct LiveBundle {
    root: PathBuf,
    appspec: Option<PathBuf>,
    /// Where its files go.
    destinations: Vec<PathBuf>,
}

impl<'a> LiveHost<'a> {
    /// The host of a run that holds the lock.
    pub fn new(run: Run<'a>, state: LastState) -> Self {
        Self { run, state, prepared: Mutex::default(), turns: Turns::default() }
    }

    /// Enters an app that is current into `last_state.yaml` if that does not say so: 0.3.1
    /// recorded the text of the manifest, which may be a branch, and a run may have been ended
    /// between the two records.
    pub fn adopt(&mut self, step: &Step) -> Result<(), Failure> {
        let entry = last_state::Entry {
            release: step.revision.to_string(),
            source: Some(step.app.source.to_string()),
        };
        Ok(self.state.set(step.app.name.as_str(), entry)?)
    }

    /// Whether there is room for what will be written: codedeploy-local keeps a copy of each
    /// bundle and installs it.
    fn room(&self) -> Result<(), Failure> {
        let mut needs = Needs::sparing(self.run.min_free_space);
        needs.records(self.run.cache);
        needs.records(self.run.state);
        let root = deployment_root(self.run.agent_configuration_file, self.run.state);
        for Prepared { needs: need, destinations, .. } in lock(&self.prepared).values() {
            needs.add(&root, *need);
            for destination in destinations {
                needs.add(destination, *need);
            }
        }
        needs.check().or_else(|_| {
            self.sweep(Duration::MAX);
            needs.check()
        })
    }

    /// What is left to do when the run is over: puts mirrors in order and removes what 0.3.1
    /// left, if all went well, and removes the worktrees. Nothing of it can fail the run; the
    /// answer is whether all of them are gone.
    pub fn clean_up(&self, all_went_well: bool) -> bool {
        let begin = Instant::now();
        let mut done = true;
        for (app, prepared) in lock(&self.prepared).iter() {
            if all_went_well {
                let left = TIDYING.saturating_sub(begin.elapsed());
                // What was deployed is on record.
                self.put_in_order(app, &prepared.mirror, Vec::new(), left);
            }
            for directory in self.worktrees(app) {
                // The next run tries again.
                done &= mirror::set_aside_worktrees(&directory).is_ok();
            }
        }
        done &= self.sweep(SWEEPING);
        if all_went_well {
            self.outgrow_predecessor();
        }
        done
    }

    /// Removes what was set aside, of the apps whose mirrors this run has locked. False if
    /// something of it stays.
    fn sweep(&self, within: Duration) -> bool {
        let begin = Instant::now();
        let mut done = true;
        for app in lock(&self.prepared).keys() {
            for directory in self.worktrees(app) {
                let left = within.saturating_sub(begin.elapsed());
                // It is only in the way of room: the next run tries again.
                let swept = mirror::sweep_worktrees(&directory, left, self.run.interrupt);
                done &= swept.unwrap_or(false);
            }
        }
        done
    }

    /// Where the worktrees of an app are: of what is wanted, and of what puts it back.
    fn worktrees(&self, app: &AppName) -> [PathBuf; 2] {
        let directory = self.run.cache.join("worktrees").join(app.as_str());
        let back = directory.join(BACK);
        [directory, back]
    }

    fn open_mirror(&self, app: &AppName) -> Result<Mirror, Failure> {
        let path = ledger::mirror_path(self.run.cache, app);
        Ok(Mirror::open(&path)?)
    }

    /// Sees to it that the commit is in the mirror: it was before, or (with `share`) another
    /// app's mirror has it, or it is fetched.
    fn obtain(
        &self,
        mirror: &mut Mirror,
        app: &App,
        revision: Revision,
        share: bool,
    ) -> Result<Revision, Trouble> {
        let source = app.source.to_string();
        let held = mirror.commit(revision).filter(|_| mirror.source().is_none_or(|s| s == source));
        if let Some(commit) = held {
            return Ok(commit);
        }
        let console = self.run.console;
        let name = app.name.as_str();
        let progress = self.progress(app);
        self.turns.take(&source, revision, mirror.is_empty(), || {
            if share {
                let mirrors = self.run.cache.join("mirrors");
                if let Some(taken) = mirror.take_over(revision, &app.source, &mirrors, &progress)? {
                    let from = taken.from.display();
                    console.log(Some(name), &format!("took {} from `{from}`", taken.commit));
                    return Ok(taken.commit);
                }
            }
            if self.run.offline {
                return Err(Trouble::Other(
                    Failure::new(
                        ExitCode::Fetch,
                        format!("commit {revision} is not in the mirror, and --offline forbids to fetch it"),
                    )
                    .hint("run once without --offline"),
                ));
            }
            let remote = remote(&self.run, app)?;
            let fetched = mirror.fetch(revision, &remote, &progress);
            let fetched = told(&self.run, app, &remote, fetched)?;
            console.fetched(name, fetched.commit, fetched.bytes as u64);
            Ok(fetched.commit)
        })
    }

    /// Passes on what a fetch tells.
    fn progress(&self, app: &App) -> impl Fn(Progress) {
        let console = self.run.console;
        let name = app.name.as_str();
        move |progress| match progress {
            Progress::Receiving { objects, of, bytes } => {
                console.received(name, objects, of, bytes);
            }
            Progress::Warning(text) => console.warn(Some(name), &text),
            Progress::Retrying { reason, wait } => console.warn(
                Some(name),
                &format!("{reason}; trying again in {:.1} s", wait.as_secs_f64()),
            ),
        }
    }

    /// The commit in the mirror, verified, and its tree on the disk.
    fn bring(
        &self,
        mirror: &mut Mirror,
        app: &App,
        revision: Revision,
        share: bool,
    ) -> Result<(Revision, mirror::Worktree), Trouble> {
        let commit = self.obtain(mirror, app, revision, share)?;
        self.verify(mirror, app, revision, commit)?;
        let directories = self.worktrees(&app.name);
        for directory in &directories {
            private_directory(directory)?;
            mirror::set_aside_worktrees(directory)?;
        }
        Ok((commit, self.check_out(mirror, app, commit, &directories[0])?))
    }

    fn check_out(
        &self,
        mirror: &Mirror,
        app: &App,
        commit: Revision,
        directory: &Path,
    ) -> Result<mirror::Worktree, Trouble> {
        let target = directory.join(commit.to_string());
        let options = self.checkout_options(app, Path::new(""));
        let write = || mirror.checkout(commit, &target, &options);
        let mut worktree = self.with_lfs(mirror, app, commit, &options, write)?;
        if app.submodules {
            self.fill(mirror, app, commit, &mut worktree)?;
        }
        Ok(worktree)
    }

    /// How a tree is written that is at `place` in the app's.
    fn checkout_options(&self, app: &App, place: &Path) -> CheckoutOptions {
        CheckoutOptions {
            export_ignore: app.export_ignore,
            lfs: lfs::wanted(app, place, true),
            interrupt: self.run.interrupt.clone(),
            ..Default::default()
        }
    }

    /// A worktree that passes the checks, what they warn of, and where its files go.
    fn bundle(
        &self,
        app: &App,
        worktree: &mirror::Worktree,
    ) -> Result<(LiveBundle, Vec<String>), Failure> {
        let kind = match self.run.tool.get_or_init(|| (self.run.probe)()) {
            Ok(tool) if tool.is_builtin() => bundle::Tool::Builtin,
            Ok(tool) if tool.is_two() => bundle::Tool::Agent2,
            // If there is no tool, `ready` says so, once.
            Ok(_) | Err(_) => bundle::Tool::Agent1,
        };
        let checked = bundle::check(app, worktree, kind)?;
        let bundle = LiveBundle {
            root: checked.root,
            appspec: checked.appspec_option,
            destinations: checked.destinations,
        };
        Ok((bundle, checked.warnings))
    }

    /// Sees to it that what was deployed is on the disk: what is recorded after this has to be
    /// so when the power fails, too. Nothing before it needs to be: an attempt that has not
    /// succeeded begins anew, with a new worktree.
    fn sync(&self, bundle: &LiveBundle) -> Result<(), Failure> {
        let root = deployment_root(self.run.agent_configuration_file, self.run.state);
        let places = bundle.destinations.iter().chain([&root]).map(PathBuf::as_path);
        files::sync_file_systems(places).map_err(|error| {
            Failure::from_error(ExitCode::AppFailed, &error)
                .context("what was deployed may not be on the disk")
                .hint("see to the file system (`dmesg`), then run again")
        })
    }

    /// How long a step may take. Putting back may take longer than there is time: to leave the
    /// host as it is would be worse.
    fn limit(&self, step: &Step) -> Option<(Duration, &'static str)> {
        let own = step.app.timeout.map(|timeout| (timeout, "its `timeout`"));
        let left = self.time_left().filter(|_| !step.puts_back());
        let run = left.map(|left| (left, "the time of the run"));
        own.into_iter().chain(run).min_by_key(|(limit, _)| *limit)
    }

    /// Tells the app which commit it is, for agents that give hooks no environment.
    fn write_release_file(
        &self,
        step: &Step,
        commit: Revision,
        bundle: &LiveBundle,
    ) -> Result<(), Failure> {
        let Some(name) = &step.app.release_file else { return Ok(()) };
        let text = serde_json::json!({
            "app": step.app.name.as_str(),
            "commit": commit.to_string(),
            "release": step.app.release.to_string(),
            "previous": step.from.filter(|_| !step.puts_back()).map(|from| from.to_string()),
            "source": step.app.source.to_string(),
            "run": self.run.id,
            "deployment": self.run.hook.map(|hook| hook.deployment_id.as_str()),
        });
        let path = bundle.root.join(name);
        let write = || {
            use std::io::Write;
            use std::os::unix::fs::PermissionsExt;
            // Never over a file of the commit's, nor through a link.
            let mut file = fs_err::File::create_new(&path)?;
            writeln!(file, "{text}")?;
            file.set_permissions(std::fs::Permissions::from_mode(0o644))
        };
        write().map_err(|error| {
            let exists = error.kind() == io::ErrorKind::AlreadyExists;
            let code = if exists { ExitCode::Refused } else { ExitCode::Unfit };
            Failure::from_error(code, &error)
                .context(format!("cannot write the `release_file` of {}", step.app.name))
                .hint("give it a name that no file of the commit has")
        })
    }

    /// The commit that a step deploys: its release may be an annotated tag's id.
    fn commit_of(step: &Step, prepared: &Prepared) -> Revision {
        if step.puts_back() { step.revision } else { prepared.commit }
    }

    fn entry(&self, step: &Step, commit: Revision, took: Duration) -> history::Entry {
        let tool = match self.run.tool.get() {
            Some(Ok(tool)) => tool.describe(),
            _ => String::new(),
        };
        history::Entry {
            run: self.run.id.to_owned(),
            app: step.app.name.clone(),
            from: step.from,
            to: commit,
            source: step.app.source.to_string(),
            restore: step.puts_back(),
            failure: None,
            took,
            deployment: self.run.hook.map(|hook| hook.deployment_id.clone()),
            tool,
            who: self.run.who.clone(),
            time: jiff::Timestamp::now().as_second(),
        }
    }

    fn with_mirror<T>(
        &self,
        step: &Step,
        act: impl FnOnce(&Prepared) -> Result<T, ledger::Error>,
    ) -> Result<T, Failure> {
        let prepared = lock(&self.prepared);
        let Some(prepared) = prepared.get(&step.app.name) else {
            return Err(not_prepared(&step.app));
        };
        act(prepared).map_err(|error| {
            Failure::from(error).context(format!("cannot record what happens to {}", step.app.name))
        })
    }
}

fn needs(worktree: &mirror::Worktree) -> Need {
    Need { bytes: worktree.bytes, files: worktree.files as u64 }
}

fn not_prepared(app: &App) -> Failure {
    Failure::new(ExitCode::Unexpected, format!("{} was not prepared", app.name))
}

/// A failure while preparing, before it is known whether a rebuilt mirror would help.
enum Trouble {
    Mirror(mirror::Failure),
    Other(Failure),
}

impl From<mirror::Failure> for Trouble {
    fn from(failure: mirror::Failure) -> Self {
        Self::Mirror(failure)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Mirror(failure) => failure.into(),
            Trouble::Other(failure) => failure,
        }
    }
}

impl From<credentials::Error> for Failure {
    fn from(error: credentials::Error) -> Self {
        let code = error.signal().map_or(ExitCode::Fetch, ExitCode::of_signal);
        let plain = Self::from_error(code, &error);
        match error.hint() {
            Some(hint) => plain.hint(hint),
            None => plain,
        }
    }
}

impl Host for LiveHost<'_> {
    type Bundle = LiveBundle;

    fn prepare(&self, step: &Step) -> Result<LiveBundle, Failure> {
        let app = &step.app;
        let brought = self
            .with_whole_mirror(app, |mirror, share| self.bring(mirror, app, step.revision, share));
        let (mirror, (commit, worktree)) = brought.map_err(|failure| {
            if failure.code == ExitCode::Fetch && self.time_left() == Some(Duration::ZERO) {
                let failure = failure.context("the deadline came before its commit was there");
                return Failure { code: ExitCode::Deadline, ..failure };
            }
            failure
        })?;
        // Before the checks: its worktree is to be removed in any case.
        lock(&self.prepared).insert(
            app.name.clone(),
            Prepared { mirror, commit, needs: needs(&worktree), destinations: Vec::new() },
        );
        let (bundle, warnings) = self.bundle(app, &worktree)?;
        if let Some(prepared) = lock(&self.prepared).get_mut(&app.name) {
            prepared.destinations.clone_from(&bundle.destinations);
        }
        for warning in &warnings {
            self.run.console.warn(Some(app.name.as_str()), warning);
        }
        self.write_release_file(step, commit, &bundle)?;
        Ok(bundle)
    }

    fn prepare_back(&self, back: &Step) -> Result<LiveBundle, Failure> {
        let app = &back.app;
        // Taken out, so that other apps can go on meanwhile.
        let Some(mut prepared) = lock(&self.prepared).remove(&app.name) else {
            return Err(not_prepared(app));
        };
        let bring = |prepared: &mut Prepared| {
            let commit = self.obtain(&mut prepared.mirror, app, back.revision, true)?;
            let [_, back] = self.worktrees(&app.name);
            self.check_out(&prepared.mirror, app, commit, &back)
        };
        let brought = bring(&mut prepared).map_err(Failure::from);
        if let Ok(worktree) = &brought {
            prepared.needs.add(needs(worktree));
        }
        lock(&self.prepared).insert(app.name.clone(), prepared);
        // What the checks warn of was said when this revision was deployed.
        let bundle = self.bundle(app, &brought?)?.0;
        self.write_release_file(back, back.revision, &bundle)?;
        Ok(bundle)
    }

    fn ready(&mut self) -> Result<(), Failure> {
        // Deploying may take long, and needs no network.
        mirror::hang_up();
        match self.run.tool.get_or_init(|| (self.run.probe)()) {
            Ok(_) => self.room(),
            Err(failure) => Err(failure.clone()),
        }
    }

    fn record_attempt(&mut self, step: &Step) -> Result<(), Failure> {
        self.with_mirror(step, |prepared| {
            Records::new(prepared.mirror.repository()).attempt(Self::commit_of(step, prepared))
        })?;
        Ok(self.state.forget(step.app.name.as_str())?)
    }

    fn deploy(&mut self, step: &Step, bundle: LiveBundle) -> Result<(), Failure> {
        let tool = match self.run.tool.get_or_init(|| (self.run.probe)()) {
            Ok(tool) => tool,
            Err(failure) => return Err(failure.clone()),
        };
        let commit = self.with_mirror(step, |prepared| Ok(Self::commit_of(step, prepared)))?;
        let job = Job {
            app: &step.app,
            revision: commit,
            previous: step.from,
            bundle: &bundle.root,
            appspec: bundle.appspec.as_deref(),
            run: self.run.id,
            hook: self.run.hook,
            agent_configuration_file: self.run.agent_configuration_file,
            state: self.run.state,
            limit: self.limit(step),
        };
        let mut environment = EnvironmentChange::for_job(&job, self.run.variable);
        environment.remove.extend(self.run.hidden.iter().cloned());
        if (self.run.variable)("HOME").is_none()
            && let Ok(Some(user)) = nix::unistd::User::from_uid(nix::unistd::geteuid())
        {
            // The agent's service has no HOME, and many programs in hooks want one.
            environment.set.insert(0, ("HOME".into(), user.dir.into_os_string()));
        }
        let name = step.app.name.as_str();
        codedeploy::deploy(tool, &job, &environment, self.run.interrupt, &mut |line| {
            self.run.console.relayed(name, line);
        })?;
        self.sync(&bundle)?;
        if step.puts_back() {
            // They are the new release's: the old one may not have what they ask for.
            return Ok(());
        }
        let world = checks::World {
            environment: &environment,
            ca_bundle: (self.run.variable)("SSL_CERT_FILE").map(PathBuf::from),
            interrupt: self.run.interrupt,
            log: &|line| self.run.console.log(Some(name), line),
        };
        checks::run(&step.app.checks, self.time_left(), &world)
    }

    fn record_success(&mut self, step: &Step, took: Duration) -> Result<(), Failure> {
        // The app has been touched: that is what the exit code has to say.
        let touched = |failure| Failure { code: ExitCode::AppFailed, ..failure };
        let commit = self
            .with_mirror(step, |prepared| {
                let entry = self.entry(step, Self::commit_of(step, prepared), took);
                Records::new(prepared.mirror.repository()).success(&entry)?;
                Ok(entry.to)
            })
            .map_err(touched)?;
        let source = Some(step.app.source.to_string());
        let entry = last_state::Entry { release: commit.to_string(), source };
        let entered = self.state.set(step.app.name.as_str(), entry).map_err(Failure::from);
        entered.map_err(|failure| {
            touched(
                failure.context(format!("{} is deployed, and not recorded in full", step.app.name)),
            )
        })
    }

    fn record_failure(&mut self, step: &Step, failure: &Failure, took: Duration) {
        let recorded = self.with_mirror(step, |prepared| {
            let mut entry = self.entry(step, Self::commit_of(step, prepared), took);
            entry.failure = Some(failure.line());
            Records::new(prepared.mirror.repository()).failure(&entry)
        });
        if let Err(error) = recorded {
            // The attempt is recorded; only its history entry is missing.
            self.run.console.warn(Some(step.app.name.as_str()), &error.line());
        }
    }

    fn time_left(&self) -> Option<Duration> {
        Some(self.run.deadline?.saturating_duration_since(Instant::now()))
    }

    fn expects(&self, step: &Step) -> Duration {
        let last = self.with_mirror(step, |prepared| {
            let history = history::read(prepared.mirror.repository())?;
            Ok(history.iter().find(|entry| entry.failure.is_none()).map(|entry| entry.took))
        });
        // What is not known to be quick may take all the time it has.
        last.ok().flatten().or(step.app.timeout).unwrap_or_default()
    }

    fn interrupted(&self) -> Option<ExitCode> {
        self.run.interrupt.signal().map(ExitCode::of_signal)
    }

    fn event(&self, event: &Event<'_>) {
        self.run.console.event(event);
    }
}

/// Where codedeploy-local keeps its deployments.
pub(crate) fn deployment_root(agent_configuration_file: Option<&Path>, state: &Path) -> PathBuf {
    match agent_configuration_file {
        None if !Path::new(codedeploy::AGENT_CONFIGURATION).exists() => state.to_owned(),
        file => codedeploy::root_dir(file),
    }
}
