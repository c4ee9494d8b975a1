//! How an app's repository is reached: the way there, and the credential it is shown.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Run;
use crate::domain::{App, RefName, RepoUrl, Revision};
use crate::error::{ExitCode, Failure};
use crate::hosts::{Auth, HostRule};
use crate::ledger;
use crate::mirror::credentials::{self, World};
use crate::mirror::{self, Credential, Limits, Mirror, Progress, Proxy, Remote, Trust};
use crate::process::Interrupt;

/// What an app's repository is reached with.
pub(super) fn remote(run: &Run<'_>, app: &App) -> Result<Remote, Failure> {
    let rule = run.hosts.rule_for(&app.source);
    let variable = |name: &str| (run.variable)(name)?.into_string().ok();
    let mut remote = anonymous(&rule, &app.source, &variable, run.interrupt);
    let warn = |text: String| run.console.warn(Some(app.name.as_str()), &text);
    remote.proxy = route(&rule, &app.source, &variable, &warn)?;
    remote.credential = credential(run, app, &remote, &warn).map_err(|error| {
        Failure::from(error).context(format!("cannot show {} a credential", app.source))
    })?;
    if let Some(deadline) = run.deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        remote.limits.total = remote.limits.total.min(left);
    }
    Ok(remote)
}

/// What an app's server is shown; `None` is an anonymous visitor.
pub(crate) fn credential(
    run: &Run<'_>,
    app: &App,
    remote: &Remote,
    warn: &dyn Fn(String),
) -> Result<Option<Credential>, credentials::Error> {
    let rule = run.hosts.rule_for(&app.source);
    let auth = rule.auth.as_ref().unwrap_or(&Auth::None);
    with_world(run, app, remote, warn, |world| {
        credentials::resolve(auth, rule.username.as_deref(), world)
    })
}

/// What resolving a credential for an app may use.
fn with_world<T>(
    run: &Run<'_>,
    app: &App,
    remote: &Remote,
    warn: &dyn Fn(String),
    act: impl FnOnce(&World<'_>) -> T,
) -> T {
    let peers = || {
        let auth = run.hosts.rule_for(&app.source).auth;
        let same = |other: &&App| run.hosts.rule_for(&other.source).auth == auth;
        run.apps
            .iter()
            .filter(|other| other.enabled)
            .filter(same)
            .map(|a| a.source.clone())
            .collect()
    };
    act(&World {
        remote,
        peers: &peers,
        kept: &run.kept,
        variable: &|name| (run.variable)(name)?.into_string().ok(),
        hidden: run.hidden,
        interrupt: run.interrupt,
        warn,
    })
}

/// Tells what keeps the credential what came of it.
pub(super) fn told<T>(
    run: &Run<'_>,
    app: &App,
    remote: &Remote,
    result: Result<T, mirror::Failure>,
) -> Result<T, mirror::Failure> {
    let rule = run.hosts.rule_for(&app.source);
    if let Some(auth) = &rule.auth {
        let warn = |text: String| run.console.warn(Some(app.name.as_str()), &text);
        with_world(run, app, remote, &warn, |world| {
            credentials::tell(auth, rule.username.as_deref(), result.as_ref(), world);
        });
    }
    result
}

/// The proxy on the way to a repository, if there is one.
pub(crate) fn route(
    rule: &HostRule,
    source: &RepoUrl,
    variable: &dyn Fn(&str) -> Option<String>,
    warn: &dyn Fn(String),
) -> Result<Option<Proxy>, Failure> {
    let read = |path: &Path| {
        credentials::read_secret("the proxy's password file", path, warn)
            .map_err(|error| Failure::from(error).line())
    };
    let world = mirror::proxy::World { variable, read: &read };
    Ok(mirror::proxy::route(source, rule.proxy.as_ref(), &world)?)
}

/// The way to a repository, by what is known of its host, without credential and proxy.
pub(crate) fn anonymous(
    rule: &HostRule,
    source: &RepoUrl,
    variable: &dyn Fn(&str) -> Option<String>,
    interrupt: &Interrupt,
) -> Remote {
    let rule = rule.clone();
    Remote {
        url: source.clone(),
        credential: None,
        trust: Trust {
            ca_file: rule.ca_file,
            ca_bundle: variable("SSL_CERT_FILE").map(PathBuf::from),
            ca_directory: variable("SSL_CERT_DIR").map(PathBuf::from),
            host_keys: rule.host_keys,
            known_hosts_file: rule.known_hosts_file,
        },
        limits: Limits::default(),
        interrupt: interrupt.clone(),
        proxy: None,
        plain: variable("MULTIDEPLOYER_TRANSPORT").is_some_and(|kind| kind == "plain"),
    }
}

/// Asks the app's remote what a branch, tag or abbreviated commit id is.
pub fn resolve(run: &Run<'_>, app: &App, name: &RefName) -> Result<Revision, Failure> {
    if run.offline {
        return Err(Failure::new(
            ExitCode::Fetch,
            format!("`{name}` has to be looked up in {}, and --offline forbids it", app.source),
        )
        .hint("give the full commit id"));
    }
    let path = ledger::mirror_path(run.cache, &app.name);
    let mut mirror = Mirror::open(&path)?;
    let about = Some(app.name.as_str());
    let progress = |progress: Progress| match progress {
        Progress::Warning(text) => run.console.warn(about, &text),
        Progress::Receiving { .. } | Progress::Retrying { .. } => {}
    };
    let remote = remote(run, app)?;
    let found = mirror.resolve(name, &remote, &progress);
    Ok(told(run, app, &remote, found)?)
}
