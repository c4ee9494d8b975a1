//! `multideployer.yaml` → [`Manifest`]. Pure: text in, values or findings out.
//!
//! Version 1.0 is what 0.3.1 read, and every file it accepted with success means what it
//! meant: keys it did not know are warned about and otherwise ignored. Version 2 adds
//! `defaults`, `hosts` and more keys per app, and refuses what it does not know.
//!
//! Nothing is lost on the way to a value: `release: 0123456` stays that text, and every
//! finding has its line and column. All findings of a file are reported, not the first.

mod app;
mod auth;
mod checks;
mod fields;
mod hosts;
pub mod machine;
mod needs;
pub mod policy;
mod proxy;
pub mod reporting;
pub mod schema;
mod source;
pub(crate) mod submodule;
#[cfg(test)]
mod tests;
mod verify;
mod when;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, quoted};
use crate::domain::{App, AppName};
use crate::hosts::Hosts;
use crate::yaml::{self, Node, Position, Value};

use fields::{Fields, Findings, Keys};
use policy::Policy;
use reporting::{Limits, Reporting};
use source::Place;

/// The format a manifest is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Version {
    /// `version: 1.0`, as 0.3.1 read it.
    #[serde(rename = "1.0")]
    V1,
    /// `version: 2`.
    #[serde(rename = "2")]
    V2,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "1.0",
            Self::V2 => "2",
        })
    }
}

/// What a manifest does not say itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// `host[:port]` of `github://org/repo`, unless the manifest has
    /// `defaults.source_host`.
    pub source_host: String,
    /// The directory relative paths in the manifest start from: its own, absolute.
    pub directory: PathBuf,
}

impl Defaults {
    /// github.com, and paths relative to `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { source_host: "github.com".to_owned(), directory: directory.into() }
    }
}

/// A manifest that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The format it was written in.
    pub version: Version,
    /// The apps in the order of the file, disabled ones included. Names are unique.
    pub apps: Vec<App>,
    /// What it says about git servers.
    pub hosts: Hosts,
    /// What it says about its runs.
    pub policy: Policy,
    /// `host[:port]` of each source written `github://`, once each, in the order of the
    /// file: what the GitHub token of flag or variable is bound to.
    pub github_hosts: Vec<String>,
    /// What is told to whom after a run.
    pub report: Reporting,
    /// How much of the disk is left alone.
    pub limits: Limits,
    /// What this host is; only the machine file says so.
    pub labels: Vec<String>,
    /// Warnings and notes, in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

/// A manifest that cannot be used: everything that is wrong with it, and the warnings,
/// in the order of the file. At least one is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The findings.
    pub problems: Vec<Diagnostic>,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut errors = self.problems.iter().filter(|problem| problem.is_error());
        let Some(first) = errors.next() else { return f.write_str("the manifest is refused") };
        write!(f, "{first}")?;
        match errors.count() {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }
}

impl std::error::Error for Rejected {}

/// Apps a manifest may have: every one costs processes, files and refs.
const MOST_APPS: usize = 1_000;

const TOP: Keys = Keys {
    first: &["version", "apps"],
    second: &["defaults", "hosts", "policy", "report", "limits"],
};

/// Reads a manifest. `file` is what findings call it; nothing is opened.
///
/// # Errors
/// All that is wrong with the file, if anything is.
pub fn parse(text: &[u8], file: &Path, defaults: &Defaults) -> Result<Manifest, Rejected> {
    let mut findings = Findings::new(file);
    match read(text, defaults, &mut findings) {
        Some(manifest) if !findings.any_error() => {
            Ok(Manifest { warnings: findings.sorted(), ..manifest })
        }
        Some(_) | None => Err(Rejected { problems: findings.sorted() }),
    }
}

/// The manifest, without its warnings; what is wrong with it goes into `findings`.
fn read(text: &[u8], defaults: &Defaults, findings: &mut Findings) -> Option<Manifest> {
    let root = document(text, findings)?;
    // How strict the rest is depends on it, the keys beside it included.
    findings.version = root.get("version").and_then(known_version);
    let mut top = Fields::of(&root, "the manifest", findings)?;

    let version = if let Some(node) = top.take("version") {
        version(node, findings)
    } else {
        findings.error(Some(root.at), "the manifest has no `version`").hint =
            Some("begin it with `version: 2` (or `version: 1.0` if 0.3.1 reads it too)".into());
        None
    };
    findings.version = version;
    let second = version == Some(Version::V2);

    let mut place =
        Place { host: defaults.source_host.clone(), directory: defaults.directory.clone() };
    let mut common = app::Common::default();
    let mut hosts = Hosts::default();
    let mut policy = Policy::default();
    let mut report = Reporting::default();
    let mut limits = Limits::default();
    if second {
        if let Some(node) = top.take("defaults").filter(|node| !node.is_null()) {
            common = app::defaults(node, &mut place, findings);
        }
        if let Some(node) = top.take("hosts").filter(|node| !node.is_null()) {
            hosts = hosts::read(node, &place.directory, findings);
        }
        if let Some(node) = top.take("policy").filter(|node| !node.is_null()) {
            policy = policy::read(node, findings);
        }
        if let Some(node) = top.take("report").filter(|node| !node.is_null()) {
            report = reporting::read(node, &place.directory, findings);
        }
        if let Some(node) = top.take("limits").filter(|node| !node.is_null()) {
            limits = reporting::limits(node, findings);
        }
    }

    let mut reader = AppList { place: &place, common: &common, github_hosts: Vec::new() };
    let apps = match top.take("apps") {
        None => {
            findings.error(Some(root.at), "the manifest has no `apps`").hint =
                Some("list the applications under `apps:`; `apps: []` for none".into());
            Vec::new()
        }
        Some(node) => reader.read(node, findings),
    };
    top.finish(TOP, findings);
    let github_hosts = reader.github_hosts;
    let (version, labels, warnings) = (version?, Vec::new(), Vec::new());
    Some(Manifest { version, apps, hosts, policy, github_hosts, report, limits, labels, warnings })
}

/// The root node of a file that holds exactly one document without tags.
fn document(text: &[u8], findings: &mut Findings) -> Option<Node> {
    let document = match yaml::parse(text) {
        Ok(document) => document,
        Err(e) => {
            let hint = tab_hint(text, e.at);
            findings.error(Some(e.at), format!("not valid YAML: {}", e.message)).hint = hint;
            return None;
        }
    };
    if let Some(second) = document.second {
        findings.error(Some(second), "a second document begins here; a manifest is one document");
    }
    let Some(root) = document.root.filter(|root| !root.is_null()) else {
        findings.error(None, "the file is empty").hint = Some(
            "a manifest begins with `version: 2` and lists the applications under `apps:`".into(),
        );
        return None;
    };
    refuse_tags(&root, findings);
    Some(root)
}

/// The most frequent reason for "cannot start any token".
fn tab_hint(text: &[u8], at: Position) -> Option<String> {
    let line = usize::try_from(at.line).ok()?.checked_sub(1)?;
    let line = text.split(|byte| *byte == b'\n').nth(line)?;
    let indent = line.iter().take_while(|byte| byte.is_ascii_whitespace());
    let tab = indent.into_iter().any(|byte| *byte == b'\t');
    tab.then(|| "the line is indented with a tab; YAML wants spaces".to_owned())
}

/// `!!python/object` and its like, which 0.3.1's loader obeyed. `!!str`, `!!seq` and
/// `!!map` say what is so anyway, and pass.
fn refuse_tags(node: &Node, findings: &mut Findings) {
    const HARMLESS: [&str; 4] =
        ["!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"];
    if let Some(tag) = node.tag.as_deref().filter(|tag| !HARMLESS.contains(tag)) {
        let tag = match tag.strip_prefix("tag:yaml.org,2002:") {
            Some(name) => format!("!!{name}"),
            None => tag.to_owned(),
        };
        findings.error(Some(node.at), format!("the YAML tag {} is refused", quoted(&tag))).hint =
            Some("leave the tag out: values are read as they are written".into());
    }
    match &node.value {
        Value::Scalar(_) => {}
        Value::List(items) => items.iter().for_each(|item| refuse_tags(item, findings)),
        Value::Map(entries) => entries.iter().for_each(|(key, value)| {
            refuse_tags(key, findings);
            refuse_tags(value, findings);
        }),
    }
}

fn known_version(node: &Node) -> Option<Version> {
    let text = node.text()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    match whole {
        _ if !fraction.bytes().all(|digit| digit == b'0') => None,
        "1" => Some(Version::V1),
        "2" => Some(Version::V2),
        _ => None,
    }
}

fn version(node: &Node, findings: &mut Findings) -> Option<Version> {
    let at = Some(node.at);
    let Value::Scalar(scalar) = &node.value else {
        findings.error(at, format!("`version` is {}; it must be 1.0 or 2", node.kind()));
        return None;
    };
    let version = known_version(node);
    match version {
        Some(version) if !scalar.plain => {
            findings.note(
                at,
                format!("`version` is a text in quotes; it is read as the number {version}"),
            );
        }
        Some(_) => {}
        None if node.is_null() => {
            findings.error(at, "`version` has no value; it must be 1.0 or 2");
        }
        None if fields::boolean(node).is_some() => {
            findings.error(
                at,
                format!("`version` is the boolean `{}`; it must be 1.0 or 2", scalar.text),
            );
        }
        None => {
            findings.error(at, format!("version {} is not known", quoted(&scalar.text))).hint =
                Some("this program reads versions 1.0 and 2".into());
        }
    }
    version
}

struct AppList<'a> {
    place: &'a Place,
    common: &'a app::Common,
    github_hosts: Vec<String>,
}

impl AppList<'_> {
    fn read(&mut self, node: &Node, findings: &mut Findings) -> Vec<App> {
        let Some(items) = node.items() else {
            findings
                .error(Some(node.at), format!("`apps` is {}; it must be a list", node.kind()))
                .hint = Some("begin each app with `- name:`; `apps: []` for none".into());
            return Vec::new();
        };
        if items.len() > MOST_APPS {
            let message =
                format!("`apps` has {} entries; at most {MOST_APPS} are read", items.len());
            findings.error(Some(node.at), message);
            return Vec::new();
        }
        if items.is_empty() {
            findings.note(Some(node.at), "`apps` is empty: there is nothing to deploy");
        }
        let mut apps = Vec::new();
        let mut seen: HashMap<AppName, Position> = HashMap::new();
        let mut folded: HashMap<String, Position> = HashMap::new();
        let mut wishes = Vec::new();
        for (index, item) in items.iter().enumerate() {
            findings.app = Some(format!("#{}", index + 1));
            let entry = app::read(item, self.place, self.common, findings);
            if let Some((name, at)) = entry.name {
                if let Some(first) = seen.get(&name) {
                    findings
                        .error(Some(at), format!("the name is taken by the app at {first}"))
                        .hint =
                        Some("names are what the host knows apps by: each may occur once".into());
                } else {
                    let other = folded.insert(name.as_str().to_ascii_lowercase(), at);
                    if let Some(other) = other {
                        let message = format!(
                            "the name differs from that of the app at {other} only in case"
                        );
                        findings.warning(Some(at), message);
                    }
                    seen.insert(name.clone(), at);
                    let (enabled, needs) = (entry.enabled, entry.needs);
                    wishes.push(needs::Wish { app: name, enabled, needs });
                }
            }
            if let Some(host) = entry.github_host.filter(|host| !self.github_hosts.contains(host)) {
                self.github_hosts.push(host);
            }
            apps.extend(entry.app);
        }
        needs::resolve(&wishes, &mut apps, findings);
        apps
    }
}
