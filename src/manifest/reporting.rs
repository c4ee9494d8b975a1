//! `report` and `limits`: what is told to whom after a run, and how much of the disk is left
//! alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::diagnostic::quoted;
use crate::manifest::auth;
use crate::manifest::fields::{Fields, Findings, Keys, list};
use crate::yaml::{Node, Position};

/// How long a receiver may take unless it says so itself.
const WITHIN: Duration = Duration::from_secs(10);
/// How long it may take at most: the hook's time is not its own.
const MOST_WITHIN: Duration = Duration::from_secs(60);
/// Files of the log that may be kept.
const MOST_KEPT: u16 = 100;
/// A log smaller than this would be put aside all the time.
const LEAST_LOG: u64 = 10_000;

/// What is told to whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reporting {
    /// How the log is kept.
    pub log: LogKeeping,
    /// A file for Prometheus' node exporter.
    pub textfile: Option<PathBuf>,
    /// Who is told that a run ended, in the order of the file.
    pub notify: Vec<Notify>,
}

/// How the log is kept; what is `None` is not said here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogKeeping {
    /// The file.
    pub file: Option<PathBuf>,
    /// JSON objects instead of lines of text.
    pub json: Option<bool>,
    /// Bytes after which the file is put aside.
    pub max_size: Option<u64>,
    /// How many files are kept aside.
    pub keep: Option<u16>,
}

/// Somebody who is told that a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// After which runs; not empty.
    pub on: Vec<Occasion>,
    /// How.
    pub receiver: Receiver,
    /// How long it may take.
    pub within: Duration,
}

/// A kind of run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// Every run.
    Always,
    /// A run that ended with an exit code other than 0.
    Failure,
    /// A run that ended with the exit code 0.
    Success,
    /// A run that deployed something, or tried to.
    Change,
}

/// How somebody is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receiver {
    /// A program that gets the report on its standard input.
    Command(Vec<String>),
    /// A URL that the report is posted to.
    Webhook(Place),
}

/// Where the URL of a webhook is: it often is a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Here.
    Url(String),
    /// In a variable.
    Env(String),
    /// In a file.
    File(PathBuf),
}

/// How much of the disk is left alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that have to be free after a deployment.
    pub min_free_space: Option<u64>,
    /// Bytes that a mirror may have before it is reduced to what is needed.
    pub mirror_max: Option<u64>,
}

impl Reporting {
    /// What is said here, and for the rest what `other` says.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let log = LogKeeping {
            file: self.log.file.or(other.log.file),
            json: self.log.json.or(other.log.json),
            max_size: self.log.max_size.or(other.log.max_size),
            keep: self.log.keep.or(other.log.keep),
        };
        let textfile = self.textfile.or(other.textfile);
        // The machine's receivers are not to be silenced by a manifest.
        let notify = other.notify.into_iter().chain(self.notify).collect();
        Self { log, textfile, notify }
    }

    /// The variables that hold a secret.
    pub fn secret_variables(&self) -> impl Iterator<Item = &str> {
        self.notify.iter().filter_map(|notify| match &notify.receiver {
            Receiver::Webhook(Place::Env(name)) => Some(name.as_str()),
            Receiver::Webhook(_) | Receiver::Command(_) => None,
        })
    }
}

impl Limits {
    /// What is said here, and for the rest what `other` says.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            min_free_space: self.min_free_space.or(other.min_free_space),
            mirror_max: self.mirror_max.or(other.mirror_max),
        }
    }
}

const REPORT: Keys = Keys { first: &[], second: &["log", "metrics", "notify"] };
const LOG: Keys = Keys { first: &[], second: &["file", "format", "max_size", "keep"] };
const METRICS: Keys = Keys { first: &[], second: &["textfile"] };
const NOTIFY: Keys = Keys { first: &[], second: &["on", "command", "webhook", "within"] };
const WEBHOOK: Keys = Keys { first: &[], second: &["url", "url_env", "url_file"] };
const LIMITS: Keys = Keys { first: &[], second: &["min_free_space", "mirror_max"] };

/// Reads `report`. Paths are relative to `directory`.
pub(super) fn read(node: &Node, directory: &Path, findings: &mut Findings) -> Reporting {
    let mut reporting = Reporting::default();
    let Some(mut fields) = Fields::of(node, "`report`", findings) else { return reporting };
    if let Some(node) = fields.take("log").filter(|node| !node.is_null()) {
        reporting.log = log(node, directory, findings);
    }
    if let Some(node) = fields.take("metrics").filter(|node| !node.is_null())
        && let Some(mut fields) = Fields::of(node, "`metrics`", findings)
    {
        reporting.textfile = findings.take_path(&mut fields, "textfile", directory);
        if let Some(path) = &reporting.textfile
            && path.extension().is_none_or(|end| end != "prom")
        {
            findings.warning(Some(node.at), "`textfile` does not end in `.prom`").hint =
                Some("the node exporter reads `*.prom` only".into());
        }
        fields.finish(METRICS, findings);
    }
    if let Some(node) = fields.take("notify").filter(|node| !node.is_null()) {
        if let Some(items) = node.items() {
            reporting.notify =
                items.iter().filter_map(|item| notify(item, directory, findings)).collect();
        } else {
            let message = format!("`notify` is {}; it must be a list", node.kind());
            findings.error(Some(node.at), message);
        }
    }
    fields.finish(REPORT, findings);
    reporting
}

fn log(node: &Node, directory: &Path, findings: &mut Findings) -> LogKeeping {
    let Some(mut fields) = Fields::of(node, "`log`", findings) else {
        return LogKeeping::default();
    };
    let file = findings.take_path(&mut fields, "file", directory);
    let json = findings.take_choice(&mut fields, "format", &[("text", false), ("json", true)]);
    let max_size = findings.take_size(&mut fields, "max_size");
    if max_size.is_some_and(|bytes| bytes < LEAST_LOG) {
        findings.error(Some(node.at), "`max_size` is below 10k");
    }
    let keep = findings.take_text(&mut fields, "keep").and_then(|(text, at)| {
        let keep = text.parse().ok().filter(|keep| *keep <= MOST_KEPT);
        if keep.is_none() {
            let message =
                format!("`keep` is {}; it must be a number from 0 to {MOST_KEPT}", quoted(text));
            findings.error(Some(at), message);
        }
        keep
    });
    fields.finish(LOG, findings);
    LogKeeping { file, json, max_size, keep }
}

fn notify(node: &Node, directory: &Path, findings: &mut Findings) -> Option<Notify> {
    let mut fields = Fields::of(node, "an entry of `notify`", findings)?;
    let on = match fields.take("on").filter(|node| !node.is_null()) {
        Some(node) => occasions(node, findings),
        None => Some(vec![Occasion::Failure]),
    };
    let within = match findings.take_duration(&mut fields, "within") {
        Some(within) if within > MOST_WITHIN => {
            findings.error(Some(node.at), "`within` is more than 60s");
            None
        }
        within => Some(within.unwrap_or(WITHIN)),
    };
    let command = fields
        .take("command")
        .map(|node| findings.command(node, "command", "[/usr/local/bin/tell-us]", directory));
    let webhook = fields.take("webhook").map(|node| webhook(node, directory, findings));
    let receiver = match (command, webhook) {
        (Some(words), None) => words.map(Receiver::Command),
        (None, Some(place)) => place.map(Receiver::Webhook),
        _ => {
            findings.error(
                Some(node.at),
                "an entry of `notify` must have exactly one of `command` and `webhook`",
            );
            None
        }
    };
    fields.finish(NOTIFY, findings);
    Some(Notify { on: on?, receiver: receiver?, within: within? })
}

fn occasions(node: &Node, findings: &mut Findings) -> Option<Vec<Occasion>> {
    const WORDS: [(&str, Occasion); 4] = [
        ("always", Occasion::Always),
        ("failure", Occasion::Failure),
        ("success", Occasion::Success),
        ("change", Occasion::Change),
    ];
    let mut occasions = Vec::new();
    for (text, at) in findings.texts(node, "on", false)? {
        let Some((_, occasion)) = WORDS.iter().find(|(word, _)| *word == text) else {
            let words = list(WORDS.iter().map(|(word, _)| *word));
            findings.error(Some(at), format!("`on` has {}; known are {words}", quoted(text)));
            return None;
        };
        occasions.push(*occasion);
    }
    Some(occasions)
}

fn webhook(node: &Node, directory: &Path, findings: &mut Findings) -> Option<Place> {
    let mut fields = Fields::of(node, "`webhook`", findings)?;
    let url = findings.take_text(&mut fields, "url").map(|(text, at)| url(text, at, findings));
    let env = fields.take("url_env").map(|node| auth::variable(node, "url_env", findings));
    let file = fields.take("url_file").map(|node| findings.path(node, "url_file", directory));
    fields.finish(WEBHOOK, findings);
    match (url, env, file) {
        (Some(url), None, None) => url.map(Place::Url),
        (None, Some(name), None) => name.map(Place::Env),
        (None, None, Some(path)) => path.map(Place::File),
        _ => {
            findings
                .error(
                    Some(node.at),
                    "`webhook` must have exactly one of `url`, `url_env` and `url_file`",
                )
                .hint = Some("a URL with a secret in it belongs into a variable or file".into());
            None
        }
    }
}

fn url(text: &str, at: Position, findings: &mut Findings) -> Option<String> {
    if text.starts_with("https://") || text.starts_with("http://") {
        return Some(text.to_owned());
    }
    findings.error(Some(at), "`url` is not `https://…` or `http://…`");
    None
}

/// Reads `limits`.
pub(super) fn limits(node: &Node, findings: &mut Findings) -> Limits {
    let Some(mut fields) = Fields::of(node, "`limits`", findings) else {
        return Limits::default();
    };
    let limits = Limits {
        min_free_space: findings.take_size(&mut fields, "min_free_space"),
        mirror_max: findings.take_size(&mut fields, "mirror_max"),
    };
    fields.finish(LIMITS, findings);
    limits
}
