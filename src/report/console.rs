//! What is said while a run goes on: bars on a terminal, short lines elsewhere, nothing in a
//! hook (whose last 2 kB belong to the block), and everything in the log.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::human::{self, Paint};
use super::log::{Log, Severity};
use super::{seconds, tame};
use crate::domain::Revision;
use crate::error::Failure;
use crate::plan::{Action, Reason, Step};
use crate::rollout::Event;
use crate::sync::lock;

/// Characters of a relayed line.
const WIDTH: usize = 400;

/// Where talk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A terminal: bars and lines.
    Terminal,
    /// A pipe or file: lines.
    Pipe,
    /// Errors only, as lines: by `--quiet`.
    Errors,
    /// Nowhere: in a hook, whose block has the errors.
    Nowhere,
}

/// What a run has learnt of an app.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// What it is being brought to.
    pub revision: Option<Revision>,
    /// How long fetch, checkout and checks took.
    pub prepared: Option<Duration>,
    /// Bytes that were fetched.
    pub fetched: u64,
}

/// Says what happens, on standard error and in the log.
pub struct Console {
    place: Place,
    /// Relay what codedeploy-local prints, too.
    relay: bool,
    paint: Paint,
    log: Log,
    bars: MultiProgress,
    running: Mutex<HashMap<String, ProgressBar>>,
    /// What is known of each app so far, for the log and the report.
    known: Mutex<HashMap<String, Known>>,
    warnings: Mutex<Vec<String>>,
}

impl Console {
    /// Talks to `place`, and to `log` always.
    pub fn new(place: Place, relay: bool, paint: Paint, log: Log) -> Self {
        let bars = MultiProgress::new();
        if place != Place::Terminal {
            bars.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        Self {
            place,
            relay,
            paint,
            log,
            bars,
            running: Mutex::default(),
            known: Mutex::default(),
            warnings: Mutex::default(),
        }
    }

    /// A step of the rollout.
    pub fn event(&self, event: &Event<'_>) {
        match event {
            Event::Preparing(step) => {
                self.know(step.app.name.as_str(), |known| known.revision = Some(step.revision));
                let doing = format!("preparing {}", step.revision.short());
                if self.place == Place::Pipe {
                    self.print(&format!("{}: {doing}", step.app.name));
                }
                self.start(step, &doing);
                self.log(
                    Some(step.app.name.as_str()),
                    &format!("preparing {} from {}", step.revision, step.app.source),
                );
            }
            Event::Prepared(step, None, took) => {
                self.know(step.app.name.as_str(), |known| known.prepared = Some(*took));
                self.finish(step);
                self.log(
                    Some(step.app.name.as_str()),
                    &format!("prepared in {}", seconds(took.as_secs_f64())),
                );
            }
            Event::Deploying(step) => {
                let from = step.from.map_or_else(|| "nothing".to_owned(), |from| from.short());
                let to = step.revision.short();
                let doing = match &step.action {
                    Action::Deploy(Reason::PutBack) => format!("putting back {to}"),
                    Action::Deploy(reason) => {
                        format!("deploying {from} -> {to} ({})", reason.describe())
                    }
                    Action::Keep | Action::Skip(_) => String::new(),
                };
                self.log(Some(step.app.name.as_str()), &doing);
                match self.place {
                    Place::Terminal => self.start(step, &doing),
                    Place::Pipe | Place::Errors | Place::Nowhere => {
                        self.print(&format!("{}: {doing}", step.app.name));
                    }
                }
            }
            Event::Deployed(step, None, took) => {
                self.finish(step);
                let took = seconds(took.as_secs_f64());
                let what = if step.puts_back() { "put back" } else { "deployed" };
                self.log(Some(step.app.name.as_str()), &format!("{what} in {took}"));
                let what = match self.place {
                    // Its line is the only one: what went before was a bar.
                    Place::Terminal => format!("{what} {}", step.revision.short()),
                    Place::Pipe | Place::Errors | Place::Nowhere => what.to_owned(),
                };
                let what = self.paint.green(&format!("{what} in {took}"));
                self.print(&format!("{}: {what}", step.app.name));
            }
            Event::NoWayBack(step, failure) => self.warn(
                Some(step.app.name.as_str()),
                &format!("could not be put back if an app failed in this run: {failure}"),
            ),
            Event::Prepared(step, Some(failure), took)
            | Event::Deployed(step, Some(failure), took) => {
                self.finish(step);
                self.fail(step, failure, *took);
            }
        }
    }

    /// Objects that arrive for an app.
    pub fn received(&self, app: &str, objects: usize, of: usize, bytes: usize) {
        let running = lock(&self.running);
        if let Some(bar) = running.get(app) {
            let megabytes = bytes / 1_000_000;
            bar.set_message(format!("fetching {objects}/{of} objects, {megabytes} MB"));
        }
    }

    /// A commit was fetched for an app.
    pub fn fetched(&self, app: &str, commit: Revision, bytes: u64) {
        self.fetched_more(app, &commit.to_string(), bytes);
    }

    /// More was fetched for an app.
    pub fn fetched_more(&self, app: &str, what: &str, bytes: u64) {
        self.know(app, |known| known.fetched += bytes);
        self.log(Some(app), &format!("fetched {what} ({bytes} bytes)"));
    }

    /// What is known of an app so far.
    pub fn known(&self, app: &str) -> Known {
        lock(&self.known).get(app).copied().unwrap_or_default()
    }

    fn know(&self, app: &str, learn: impl FnOnce(&mut Known)) {
        learn(lock(&self.known).entry(app.to_owned()).or_default());
    }

    /// A line that codedeploy-local printed for an app.
    pub fn relayed(&self, app: &str, line: &str) {
        self.log(Some(app), &format!("| {line}"));
        if self.relay {
            self.print(&format!("{app} {} {}", self.paint.dim("|"), tame(line, WIDTH)));
        }
    }

    /// Something that a person should know; it is kept for the report, once.
    pub fn warn(&self, app: Option<&str>, text: &str) {
        let about = app.map(|app| format!("{app}: ")).unwrap_or_default();
        let warning = tame(&format!("{about}{text}"), WIDTH);
        self.record(app, Severity::Warn, &format!("warning: {text}"));
        let mut warnings = lock(&self.warnings);
        if !warnings.contains(&warning) {
            self.print(&format!("{} {warning}", self.paint.yellow("warning:")));
            warnings.push(warning);
        }
    }

    /// The warnings so far.
    pub fn warnings(&self) -> Vec<String> {
        lock(&self.warnings).clone()
    }

    /// A line for the log, and for nobody else.
    pub fn log(&self, app: Option<&str>, text: &str) {
        self.record(app, Severity::Info, text);
    }

    /// An error for the log, and for nobody else.
    pub fn log_error(&self, app: Option<&str>, text: &str) {
        self.record(app, Severity::Error, text);
    }

    fn record(&self, app: Option<&str>, severity: Severity, text: &str) {
        let revision = app.and_then(|app| lock(&self.known).get(app)?.revision);
        self.log.write(app, revision, severity, text);
    }

    /// A line for people, and for the log.
    pub fn note(&self, text: &str) {
        self.log(None, text);
        self.print(text);
    }

    fn fail(&self, step: &Step, failure: &Failure, took: Duration) {
        let app = step.app.name.as_str();
        let took = seconds(took.as_secs_f64());
        self.log_error(Some(app), &format!("failed after {took}: {failure}"));
        for line in &failure.output {
            self.log_error(Some(app), &format!("  | {line}"));
        }
        if let Some(hint) = &failure.hint {
            self.log_error(Some(app), &format!("hint: {hint}"));
        }
        let text = human::failure(failure, Some(app), self.paint);
        match self.place {
            Place::Errors => drop(write!(std::io::stderr(), "{text}")),
            Place::Terminal | Place::Pipe | Place::Nowhere => self.print(text.trim_end()),
        }
    }

    fn print(&self, text: &str) {
        match self.place {
            Place::Errors | Place::Nowhere => {}
            // Nobody may be listening any more; that is no reason to stop.
            Place::Pipe => drop(writeln!(std::io::stderr(), "{text}")),
            Place::Terminal => {
                self.bars.suspend(|| drop(writeln!(std::io::stderr(), "{text}")));
            }
        }
    }

    /// Shows what is being done, until it is done.
    fn start(&self, step: &Step, doing: &str) {
        let bar = self.bars.add(ProgressBar::new_spinner());
        let template = match self.paint {
            Paint(true) => "{spinner:.cyan} {prefix}: {msg} {elapsed:.dim}",
            Paint(false) => "{spinner} {prefix}: {msg} {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(step.app.name.as_str().to_owned());
        bar.set_message(doing.to_owned());
        if self.place == Place::Terminal {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        lock(&self.running).insert(step.app.name.as_str().to_owned(), bar);
    }

    fn finish(&self, step: &Step) {
        if let Some(bar) = lock(&self.running).remove(step.app.name.as_str()) {
            bar.finish_and_clear();
        }
    }
}
