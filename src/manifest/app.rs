//! One entry of `apps`, and `defaults`.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use crate::diagnostic::quoted;
use crate::domain::{
    App, AppName, Check, FileExists, OnFailure, RefName, Release, RepoUrl, Revision, Symlinks, When,
};
use crate::manifest::fields::{Fields, Findings, Keys, did_you_mean, list};
use crate::manifest::source::{self, Authority, Place, resolve};
use crate::manifest::{Version, checks, policy, verify, when};
use crate::yaml::{Node, Position};

/// Version 2's keys; `defaults` may have all but the first.
const SECOND: &[&str] = &[
    "needs",
    "path",
    "appspec",
    "env",
    "enabled",
    "file_exists",
    "skip_events",
    "export_ignore",
    "symlinks",
    "allow_ref",
    "on_failure",
    "when",
    "timeout",
    "checks",
    "release_file",
    "verify",
    "submodules",
    "lfs",
];

const APP: Keys = Keys { first: &["name", "source", "release", "force"], second: SECOND };

const DEFAULTS: Keys = Keys {
    first: &["source_host", "force"],
    second: match SECOND {
        [_, rest @ ..] => rest,
        [] => &[],
    },
};

/// The lifecycle events that can be left out. `DownloadBundle` and `Install` are run by
/// codedeploy-local whether they are named or not.
const EVENTS: [&str; 9] = [
    "BeforeBlockTraffic",
    "AfterBlockTraffic",
    "ApplicationStop",
    "BeforeInstall",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
    "BeforeAllowTraffic",
    "AfterAllowTraffic",
];

/// Bytes of variables an app may have. Linux refuses to start a program with too much
/// environment; that would be noticed only after the old application was stopped.
const MOST_ENV: usize = 64 << 10;

/// The keys that an app may have from `defaults`.
#[derive(Debug, Clone, Default)]
pub(super) struct Common {
    enabled: Option<bool>,
    force: Option<bool>,
    path: Option<PathBuf>,
    appspec: Option<PathBuf>,
    env: Vec<(String, String)>,
    file_exists: Option<FileExists>,
    skip_events: Option<Vec<String>>,
    export_ignore: Option<bool>,
    symlinks: Option<Symlinks>,
    allow_ref: Option<bool>,
    on_failure: Option<OnFailure>,
    when: Option<When>,
    timeout: Option<Duration>,
    checks: Option<Vec<Check>>,
    release_file: Option<PathBuf>,
    verify: Option<verify::Given>,
    submodules: Option<bool>,
    lfs: Option<bool>,
}

/// What became of one entry of `apps`.
pub(super) struct Entry<'n> {
    /// The name and its place, if it is a good one.
    pub(super) name: Option<(AppName, Position)>,
    /// The host, if the source was written `github://`.
    pub(super) github_host: Option<String>,
    /// The apps it says it needs, as they are written.
    pub(super) needs: Vec<(&'n str, Position)>,
    /// Whether it is to be deployed at all.
    pub(super) enabled: bool,
    /// The app, if nothing is wrong with it; without what it needs.
    pub(super) app: Option<App>,
}

/// Reads `defaults`; `source_host` goes into `place`.
pub(super) fn defaults(node: &Node, place: &mut Place, findings: &mut Findings) -> Common {
    let Some(mut fields) = Fields::of(node, "`defaults`", findings) else {
        return Common::default();
    };
    if let Some((text, at)) = findings.take_text(&mut fields, "source_host") {
        match Authority::parse(text) {
            Ok(authority) => place.host = authority.without_port(443),
            Err(e) => {
                findings.error(Some(at), format!("`source_host` is not `host[:port]`: {e}"));
            }
        }
    }
    for key in ["name", "source", "release", "needs"] {
        if let Some(node) = fields.take(key) {
            findings.error(Some(node.at), format!("`{key}` cannot have a default"));
        }
    }
    let common = common(&mut fields, &place.directory, findings);
    fields.finish(DEFAULTS, findings);
    common
}

fn common(fields: &mut Fields<'_>, directory: &Path, findings: &mut Findings) -> Common {
    let force = findings.take_bool(fields, "force");
    if findings.version != Some(Version::V2) {
        return Common { force, ..Common::default() };
    }
    Common {
        force,
        enabled: findings.take_bool(fields, "enabled"),
        path: take_inner_path(fields, "path", findings),
        appspec: take_inner_path(fields, "appspec", findings),
        env: fields
            .take("env")
            .filter(|node| !node.is_null())
            .map_or_else(Vec::new, |node| env(node, findings)),
        file_exists: findings.take_choice(
            fields,
            "file_exists",
            &[
                ("disallow", FileExists::Disallow),
                ("overwrite", FileExists::Overwrite),
                ("retain", FileExists::Retain),
            ],
        ),
        skip_events: fields
            .take("skip_events")
            .filter(|node| !node.is_null())
            .and_then(|node| skip_events(node, findings)),
        export_ignore: findings.take_bool(fields, "export_ignore"),
        symlinks: findings.take_choice(
            fields,
            "symlinks",
            &[("safe", Symlinks::Safe), ("allow", Symlinks::Allow), ("refuse", Symlinks::Refuse)],
        ),
        allow_ref: findings.take_bool(fields, "allow_ref"),
        on_failure: policy::take_on_failure(fields, findings),
        timeout: findings.take_duration(fields, "timeout"),
        release_file: take_file_name(fields, "release_file", findings),
        checks: fields
            .take("checks")
            .filter(|node| !node.is_null())
            .and_then(|node| checks::read(node, directory, findings)),
        when: fields
            .take("when")
            .filter(|node| !node.is_null())
            .and_then(|node| when::read(node, findings)),
        verify: verify::take(fields, findings),
        submodules: findings.take_bool(fields, "submodules"),
        lfs: findings.take_bool(fields, "lfs"),
    }
}

/// Reads one entry of `apps`. `findings.app` becomes its name, if it has one.
pub(super) fn read<'n>(
    node: &'n Node,
    place: &Place,
    defaults: &Common,
    findings: &mut Findings,
) -> Entry<'n> {
    let mut entry =
        Entry { name: None, github_host: None, needs: Vec::new(), enabled: true, app: None };
    let Some(mut fields) = Fields::of(node, "the entry", findings) else { return entry };
    entry.name = required(&mut fields, "name", node.at, findings)
        .and_then(|node| Some((name(node, findings)?, node.at)));
    if let Some((name, _)) = &entry.name {
        findings.app = Some(name.to_string());
    }
    let source = required(&mut fields, "source", node.at, findings)
        .and_then(|node| source(node, place, findings));
    let release_node = required(&mut fields, "release", node.at, findings);
    if findings.version == Some(Version::V2)
        && let Some(node) = fields.take("needs").filter(|node| !node.is_null())
    {
        entry.needs = findings.texts(node, "needs", true).unwrap_or_default();
    }
    let own = common(&mut fields, &place.directory, findings);
    fields.finish(APP, findings);

    entry.enabled = own.enabled.or(defaults.enabled).unwrap_or(true);
    let allow_ref = own.allow_ref.or(defaults.allow_ref).unwrap_or(false);
    let release = release_node.and_then(|node| release(node, allow_ref, findings));
    let verify = verify::merged(own.verify, defaults.verify.as_ref(), findings);
    let url = source.map(|(url, host)| {
        entry.github_host = host;
        url
    });
    let (Some((name, _)), Some(source), Some(release)) = (&entry.name, url, release) else {
        return entry;
    };
    entry.app = Some(App {
        name: name.clone(),
        source,
        release,
        enabled: entry.enabled,
        when: own.when.or_else(|| defaults.when.clone()).unwrap_or_default(),
        needs: Vec::new(),
        force: own.force.or(defaults.force).unwrap_or(false),
        path: own.path.or_else(|| defaults.path.clone()).unwrap_or_default(),
        appspec: own.appspec.or_else(|| defaults.appspec.clone()),
        env: merged(&defaults.env, own.env),
        file_exists: own.file_exists.or(defaults.file_exists).unwrap_or_default(),
        skip_events: own.skip_events.or_else(|| defaults.skip_events.clone()).unwrap_or_default(),
        export_ignore: own.export_ignore.or(defaults.export_ignore).unwrap_or(true),
        symlinks: own.symlinks.or(defaults.symlinks).unwrap_or_default(),
        checks: own.checks.or_else(|| defaults.checks.clone()).unwrap_or_default(),
        release_file: own.release_file.or_else(|| defaults.release_file.clone()),
        timeout: own.timeout.or(defaults.timeout),
        on_failure: own.on_failure.or(defaults.on_failure),
        verify,
        submodules: own.submodules.or(defaults.submodules).unwrap_or(false),
        lfs: own.lfs.or(defaults.lfs).unwrap_or(false),
    });
    entry
}

/// The variables of `defaults` with the app's own in their place or after them.
fn merged(defaults: &[(String, String)], own: Vec<(String, String)>) -> Vec<(String, String)> {
    let places: HashMap<&str, usize> =
        defaults.iter().enumerate().map(|(place, (name, _))| (name.as_str(), place)).collect();
    let mut env = defaults.to_vec();
    for (name, value) in own {
        match places.get(name.as_str()).and_then(|place| env.get_mut(*place)) {
            Some(slot) => slot.1 = value,
            None => env.push((name, value)),
        }
    }
    env
}

fn required<'n>(
    fields: &mut Fields<'n>,
    key: &str,
    at: Position,
    findings: &mut Findings,
) -> Option<&'n Node> {
    let node = fields.take(key);
    if node.is_none() {
        findings.error(Some(at), format!("`{key}` is missing"));
    }
    node
}

fn name(node: &Node, findings: &mut Findings) -> Option<AppName> {
    let text = findings.text(node, "name")?;
    match text.parse() {
        Ok(name) => Some(name),
        Err(e) => {
            findings.error(
                Some(node.at),
                format!("{} cannot be the name of an app: {e}", quoted(text)),
            );
            None
        }
    }
}

fn source(
    node: &Node,
    place: &Place,
    findings: &mut Findings,
) -> Option<(RepoUrl, Option<String>)> {
    let text = findings.text(node, "source")?;
    match source::parse(text, place) {
        Ok(source) => Some((source.url, source.github_host)),
        Err(e) => {
            findings.error(Some(node.at), e.to_string()).hint = e.hint();
            None
        }
    }
}

fn release(node: &Node, allow_ref: bool, findings: &mut Findings) -> Option<Release> {
    const FULL: &str = "write the full commit id of 40 digits: `git rev-parse NAME^{commit}`";
    let text = findings.text(node, "release")?;
    let at = Some(node.at);
    if let Ok(revision) = text.parse::<Revision>() {
        if *revision.bytes() == [0; 20] {
            findings.error(at, "`release` is the null id, which names no commit");
            return None;
        }
        return Some(Release::Commit(revision));
    }
    let hex = text.bytes().all(|b| b.is_ascii_hexdigit());
    let shown = quoted(text);
    let refused = match text.len() {
        64 if hex => Some(
            "`release` is a SHA-256 commit id; repositories of that kind are not supported".into(),
        ),
        digits if hex && digits > 38 => {
            Some(format!("`release` has {digits} hexadecimal digits; a commit id has 40"))
        }
        _ if text.trim() != text => Some("`release` has white space around it".into()),
        _ => None,
    };
    if let Some(message) = refused {
        findings.error(at, message);
        return None;
    }
    let name = match text.parse::<RefName>() {
        Ok(name) => name,
        Err(e) => {
            findings.error(at, format!("`release` is {shown}: {e}")).hint = Some(FULL.into());
            return None;
        }
    };
    let kind =
        if name.may_be_abbreviation() { "an abbreviated commit id" } else { "a branch or tag" };
    if allow_ref {
        return Some(Release::Name(name));
    }
    if findings.version == Some(Version::V2) {
        findings.error(at, format!("`release` is {shown}, {kind}")).hint =
            Some(format!("{FULL}; or allow names with `allow_ref: true`"));
        return None;
    }
    findings
        .warning(
            at,
            format!("`release` is {shown}, {kind}: what it means is looked up in every run"),
        )
        .hint = Some(FULL.into());
    Some(Release::Name(name))
}

/// Whether a text can be the name of an environment variable.
pub(super) fn is_variable(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

/// Why the program does not let an app set a variable.
fn reserved(name: &str) -> Option<&'static str> {
    // What hooks learn about the deployment, and what must not be faked or leak.
    const OURS: [&str; 3] = ["GIT_COMMIT", "LIFECYCLE_EVENT", "APPLICATION_NAME"];
    const OUR_PREFIXES: [&str; 3] = ["MULTIDEPLOYER_", "BUNDLE_", "DEPLOYMENT_"];
    // The variables pass through codedeploy-local on their way to the hooks. These would
    // change what that program does: which libraries, Ruby code or configuration it
    // loads, as root, before any hook of the app runs.
    const TOOL: [&str; 3] = ["RUBYOPT", "RUBYLIB", "RUBYSHELL"];
    const TOOL_PREFIXES: [&str; 3] = ["LD_", "GEM_", "CODEDEPLOY_"];
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if OURS.contains(&name) || begins(&OUR_PREFIXES) {
        Some("is set by this program or by codedeploy-local")
    } else if TOOL.contains(&name) || begins(&TOOL_PREFIXES) {
        Some("would change codedeploy-local itself, not only the hooks")
    } else {
        None
    }
}

fn env(node: &Node, findings: &mut Findings) -> Vec<(String, String)> {
    let mut env = Vec::new();
    let Some(fields) = Fields::of(node, "`env`", findings) else { return env };
    for (name, at, value) in fields.into_all() {
        if !is_variable(name) {
            findings
                .error(
                    Some(at),
                    format!("{} is not the name of an environment variable", quoted(name)),
                )
                .hint = Some("letters, digits and `_`, not beginning with a digit".into());
            continue;
        }
        if let Some(why) = reserved(name) {
            findings.error(Some(at), format!("`env` sets {}, which {why}", quoted(name)));
            continue;
        }
        match value.text() {
            Some("") if name == "PATH" => {
                findings.error(
                    Some(value.at),
                    "the variable `PATH` is empty: no program would be found",
                );
            }
            // Line breaks are fine in a variable, NUL cannot be in one.
            Some(text) if !value.is_null() && !text.contains('\0') => {
                env.push((name.to_owned(), text.to_owned()));
            }
            Some(_) if value.is_null() => {
                findings
                    .error(Some(value.at), format!("the variable `{name}` has no value"))
                    .hint = Some(format!("write `{name}: \"\"` for an empty one"));
            }
            Some(_) => {
                findings.error(
                    Some(value.at),
                    format!("the variable `{name}` contains a NUL character"),
                );
            }
            None => {
                let kind = value.kind();
                findings.error(
                    Some(value.at),
                    format!("the variable `{name}` is {kind}; it must be a text"),
                );
            }
        }
    }
    let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if bytes > MOST_ENV {
        findings.error(
            Some(node.at),
            format!("`env` has {bytes} bytes; at most {MOST_ENV} are allowed"),
        );
        return Vec::new();
    }
    env
}

fn skip_events(node: &Node, findings: &mut Findings) -> Option<Vec<String>> {
    let events = findings.texts(node, "skip_events", true)?;
    let mut skip: Vec<String> = Vec::new();
    let mut bad = false;
    for (event, at) in events {
        if EVENTS.contains(&event) {
            if !skip.iter().any(|other| other == event) {
                skip.push(event.to_owned());
            }
            continue;
        }
        bad = true;
        let name = quoted(event);
        if matches!(event, "DownloadBundle" | "Install") {
            findings
                .error(Some(at), format!("{name} cannot be skipped: it is what a deployment is"));
        } else {
            findings.error(Some(at), format!("{name} is not a lifecycle event")).hint =
                did_you_mean(event, EVENTS).or_else(|| Some(format!("known are {}", list(EVENTS))));
        }
    }
    (!bad).then_some(skip)
}

/// The name of a file in the bundle's root.
fn take_file_name(fields: &mut Fields<'_>, key: &str, findings: &mut Findings) -> Option<PathBuf> {
    let at = fields.peek(key).map(|node| node.at);
    let path = take_inner_path(fields, key, findings)?;
    if path.components().count() > 1 {
        findings.error(at, format!("`{key}` is a path; it must be the name of a file"));
        return None;
    }
    Some(path)
}

/// A path inside the repository: relative, no `..`, and only characters that every
/// codedeploy-local takes in the location of a bundle.
fn take_inner_path(fields: &mut Fields<'_>, key: &str, findings: &mut Findings) -> Option<PathBuf> {
    let (text, at) = findings.take_text(fields, key)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._+=,@/-".contains(c);
    // codedeploy-local 2.x expands `...` and longer like `../..`.
    let dots = |part: &str| part.len() > 1 && part.bytes().all(|b| b == b'.');
    let wrong = if text.starts_with('/') {
        "is absolute; it must be relative to the repository".to_owned()
    } else if text.split('/').any(dots) {
        "contains `..`; it must stay inside the repository".to_owned()
    } else if text.split('/').any(|part| part.eq_ignore_ascii_case(".git")) {
        "leads into `.git`, which no commit holds".to_owned()
    } else if let Some(c) = text.chars().find(|c| !allowed(*c)) {
        format!("contains {c:?}; codedeploy-local allows letters, digits and `._+=,@/-`")
    } else {
        let parts = Path::new(text).components().filter(|part| *part != Component::CurDir);
        let path: PathBuf = parts.collect();
        if key == "path" || !path.as_os_str().is_empty() {
            return Some(path);
        }
        "names no file".to_owned()
    };
    findings.error(Some(at), format!("`{key}` {wrong}"));
    None
}

impl Findings {
    /// A path on this host, relative ones from `directory`.
    pub(super) fn path(&mut self, node: &Node, what: &str, directory: &Path) -> Option<PathBuf> {
        let text = self.text(node, what)?;
        if text.starts_with('~') {
            self.error(Some(node.at), format!("`~` is not expanded in `{what}`")).hint =
                Some("write the whole path".into());
            return None;
        }
        Some(resolve(text, directory))
    }

    /// An optional path on this host.
    pub(super) fn take_path(
        &mut self,
        fields: &mut Fields<'_>,
        key: &str,
        directory: &Path,
    ) -> Option<PathBuf> {
        let node = fields.take(key).filter(|node| !node.is_null())?;
        self.path(node, key, directory)
    }
}
