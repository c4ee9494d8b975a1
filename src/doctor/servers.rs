//! Each git server: name, route, connection, certificate or host key, credentials, and what
//! every repository says to them. The functions are those of a fetch.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::{Patient, places};
use crate::deploy::{hidden, with_given_tokens};
use crate::domain::{App, Release, RepoUrl, Revision};
use crate::error::{ExitCode, Failure};
use crate::host::Run;
use crate::hosts::{Auth, HostRule, Hosts, KeyPlace, SecretPlace};
use crate::manifest::Manifest;
use crate::mirror::credentials::{self, Kept};
use crate::mirror::examine::{self, Endpoint, Seen};
use crate::mirror::{self, Limits, Progress, Remote, Trust};
use crate::report::console::{Console, Place};
use crate::report::doctor::{Finding, Section, Status};
use crate::report::human::Paint;
use crate::report::log::Log;
use crate::{host, ledger};

/// How long the steps may take: shorter than those of a fetch, because somebody waits.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(10),
    read: Duration::from_secs(15),
    total: Duration::from_secs(30),
    pause: Duration::ZERO,
};
/// Servers that are asked at a time, and repositories of one server.
const AT_A_TIME: usize = 8;
/// A certificate that expires sooner is warned about.
const DAYS: i32 = 14;
/// Seconds a clock may be off before it is warned about.
const OFF: i64 = 60;
const NO_TIME: &str = "no time was left for it";

/// A repository that is read with one credential.
struct Target<'a> {
    apps: Vec<&'a App>,
    rule: HostRule,
    remote: Remote,
}

impl Target<'_> {
    fn auth(&self) -> &Auth {
        self.rule.auth.as_ref().unwrap_or(&Auth::None)
    }
}

/// Repositories that are reached the same way.
struct Server<'a> {
    title: String,
    trust: Trust,
    targets: Vec<Target<'a>>,
    /// Why there is no way to it.
    lost: Option<Failure>,
}

/// A section for each server, in the order of the manifest.
pub(super) fn sections(patient: &Patient<'_>, manifest: &Manifest, apps: &[&App]) -> Vec<Section> {
    let settings = patient.settings;
    let hosts = with_given_tokens(settings, manifest);
    let variable = |name: &str| settings.environment.get(name).map(OsString::from);
    // Of a run, credentials are all that is wanted here.
    let console = Console::new(Place::Nowhere, false, Paint(false), Log::default());
    let tool = OnceLock::new();
    let probe = || Err(Failure::new(ExitCode::Unexpected, "nothing is deployed here"));
    let run = Run {
        id: "",
        cache: &settings.cache_dir,
        hosts: &hosts,
        apps: &manifest.apps,
        kept: Kept::default(),
        variable: &variable,
        hidden: hidden(&settings.environment, &hosts, &manifest.report),
        offline: patient.offline,
        hook: None,
        agent_configuration_file: None,
        state: &settings.state_dir,
        who: String::new(),
        tool: &tool,
        probe: &probe,
        interrupt: patient.interrupt,
        console: &console,
    };
    let servers = servers(patient, &hosts, apps);
    let sections = at_a_time(&servers, |server| section(patient, server, &run));
    sections.into_iter().flatten().collect()
}

fn servers<'a>(patient: &Patient<'_>, hosts: &Hosts, apps: &[&'a App]) -> Vec<Server<'a>> {
    let variable = |name: &str| patient.variable(name);
    let mut servers: Vec<Server<'a>> = Vec::new();
    for app in apps {
        let rule = hosts.rule_for(&app.source);
        let mut remote = host::anonymous(&rule, &app.source, &variable, patient.interrupt);
        let (proxy, lost) = match host::route(&rule, &app.source, &variable, &|_| ()) {
            Ok(proxy) => (proxy, None),
            Err(failure) => (None, Some(failure)),
        };
        remote.proxy = proxy;
        let title = match &app.source {
            RepoUrl::Https { authority, .. } => format!("https://{authority}"),
            RepoUrl::Ssh { host, port: 22, .. } => format!("ssh://{host}"),
            RepoUrl::Ssh { host, port, .. } => format!("ssh://{host}:{port}"),
            RepoUrl::File(_) => "repositories on this host".to_owned(),
        };
        let known = servers.iter_mut().find(|s| s.title == title && s.trust == remote.trust);
        let target = Target { apps: vec![*app], rule, remote };
        let Some(server) = known else {
            let trust = target.remote.trust.clone();
            servers.push(Server { title, trust, targets: vec![target], lost });
            continue;
        };
        let same = server.targets.iter_mut().find(|known| {
            known.remote.url == target.remote.url
                && known.rule.auth == target.rule.auth
                && known.rule.username == target.rule.username
        });
        match same {
            Some(same) => same.apps.push(*app),
            None => server.targets.push(target),
        }
    }
    servers
}

/// Does the same for all, some of them at a time, and keeps their order. `None` is what a
/// thread that could not be started, or that panicked, would have said.
fn at_a_time<T: Sync, R: Send>(things: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<Option<R>> {
    let queue: Mutex<VecDeque<usize>> = Mutex::new((0..things.len()).collect());
    let results: Vec<Mutex<Option<R>>> = things.iter().map(|_| Mutex::new(None)).collect();
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME.min(things.len()) {
            scope.spawn(|| {
                while let Some(index) = next() {
                    let done = work(&things[index]);
                    *results[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
                }
            });
        }
    });
    let taken = |slot: Mutex<Option<R>>| slot.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_iter().map(taken).collect()
}

fn section(patient: &Patient<'_>, server: &Server<'_>, run: &Run<'_>) -> Section {
    let mut section = Section::new(&server.title);
    let apps = server.targets.iter().flat_map(|target| &target.apps);
    section.apps = apps.map(|app| app.name.to_string()).collect();
    let first = &server.targets[0];
    let is_file = matches!(first.remote.url, RepoUrl::File(_));
    let reached = match &server.lost {
        _ if is_file => Ok(()),
        Some(failure) => {
            section.add(Finding::failure("route", failure));
            Err("there is no route".into())
        }
        None => reach(patient, &first.remote, &mut section),
    };
    if let RepoUrl::Https { .. } = &first.remote.url {
        section.add(authorities(patient, &server.trust));
    }
    if let RepoUrl::Ssh { port: 122, .. } = &first.remote.url {
        section.add(
            Finding::warning(
                "port",
                "port 122 of a GitHub Enterprise Server is the shell of its administrators, not git",
            )
            .remedy("git is on port 22: leave the port out of the source"),
        );
    }
    let asked = at_a_time(&server.targets, |target| ask(patient, target, &reached, run));
    let asked: Vec<Asked> = asked.into_iter().flatten().collect();
    let mut seen = asked.iter().map(|asked| &asked.seen);
    match &first.remote.url {
        RepoUrl::Https { .. } => {
            let answered = asked.iter().find(|asked| asked.seen.certificate.is_some());
            section.add(answered.or(asked.first()).map_or_else(
                || Finding::not_checked("tls", "nothing was asked"),
                |asked| certificate(asked, &reached),
            ));
            section.add(clock(seen.find_map(|seen| seen.clock)));
        }
        RepoUrl::Ssh { .. } => {
            let answered = asked.iter().find(|asked| asked.key.is_some());
            section.add(answered.and_then(|asked| asked.key.clone()).unwrap_or_else(|| {
                Finding::not_checked("host_key", "the server did not get as far as to show it")
            }));
        }
        RepoUrl::File(_) => {}
    }
    let mut said: Vec<Finding> = Vec::new();
    for asked in &asked {
        for finding in &asked.credential {
            if !said.contains(finding) {
                said.push(finding.clone());
            }
        }
    }
    section.findings.extend(said);
    section.findings.extend(asked.into_iter().flat_map(|asked| asked.repository));
    section
}

/// Name, route and connection. What keeps the rest from being asked is the error.
fn reach(patient: &Patient<'_>, remote: &Remote, section: &mut Section) -> Result<(), String> {
    let Some(endpoint) = examine::endpoint(remote) else { return Ok(()) };
    let route = route(patient, &endpoint, remote);
    if patient.offline {
        section.add(route);
        section.add(Finding::not_checked("network", "--offline"));
        return Err("--offline".into());
    }
    let limited = patient.limited(remote.clone());
    let Some(limited) = limited else {
        section.add(route);
        section.add(Finding::not_checked("network", NO_TIME));
        return Err(NO_TIME.into());
    };
    let addresses = match examine::look_up(&endpoint, &limited) {
        Ok(addresses) => addresses,
        Err(failure) => {
            section.add(route);
            section.add(unless_ended("name", failure));
            return Err("its name is not resolved".into());
        }
    };
    let ips: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    section.add(
        Finding::ok("name", format!("{} is {}", endpoint.host, ips.join(", ")))
            .fact("addresses", ips),
    );
    section.add(route);
    match examine::connect(&endpoint, &addresses, &limited) {
        Ok((peer, took)) => {
            let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            section.add(
                Finding::ok("connection", format!("{peer} in {ms} ms"))
                    .fact("address", peer.to_string())
                    .fact("milliseconds", ms),
            );
            Ok(())
        }
        Err(failure) => {
            section.add(unless_ended("connection", failure));
            Err("there is no connection".into())
        }
    }
}

fn route(patient: &Patient<'_>, endpoint: &Endpoint, remote: &Remote) -> Finding {
    let variable = |name: &str| patient.variable(name);
    let set_by = mirror::proxy::variable_of(&remote.url, &variable);
    match (&endpoint.proxy, set_by) {
        (Some(proxy), by) => {
            let origin = remote.proxy.as_ref().map_or("", |proxy| proxy.origin.as_str());
            let by = by.filter(|by| origin.contains(by)).unwrap_or("proxy");
            Finding::ok("route", format!("through the proxy {proxy}, set by {origin}"))
                .fact("proxy", proxy.clone())
                .fact("set_by", by)
        }
        (None, Some(by)) => Finding::ok("route", format!("direct: exempt from {by}")),
        (None, None) => Finding::ok("route", "direct"),
    }
}

/// What a certificate is judged by.
fn authorities(patient: &Patient<'_>, trust: &Trust) -> Finding {
    let sources = examine::authorities(trust);
    for (_, path) in &sources {
        if let Err(error) = fs_err::metadata(path).and_then(|about| {
            if about.is_dir() { Ok(()) } else { fs_err::File::open(path).map(drop) }
        }) {
            return patient.unseen("authorities", &error);
        }
    }
    if sources.is_empty() {
        return Finding::problem("authorities", "this host has no certificate authorities")
            .remedy("install the package ca-certificates, or name a `ca_file` for this host");
    }
    let shown = sources.iter().map(|(kind, path)| match *kind {
        "system" => format!("{} (the system's)", path.display()),
        kind => format!("{} ({kind})", path.display()),
    });
    Finding::ok("authorities", shown.collect::<Vec<_>>().join(", "))
}

/// What one repository said.
struct Asked {
    seen: Seen,
    credential: Vec<Finding>,
    repository: Vec<Finding>,
    /// Of the host key, if it got that far.
    key: Option<Finding>,
    /// The certificate was refused.
    refused: Option<Failure>,
}

fn ask(
    patient: &Patient<'_>,
    target: &Target<'_>,
    reached: &Result<(), String>,
    run: &Run<'_>,
) -> Asked {
    let mut asked = Asked {
        seen: Seen::default(),
        credential: Vec::new(),
        repository: Vec::new(),
        key: None,
        refused: None,
    };
    let url = &target.remote.url;
    let auth = target.auth();
    let skip = |why: &str| Finding::not_checked("repository", format!("{url}: {why}"));
    let credential = credential(patient, target, run, &mut asked.credential);
    if let Err(why) = reached {
        asked.repository.push(skip(why));
        return asked;
    }
    let Some(remote) = patient.limited(target.remote.clone()) else {
        asked.repository.push(skip(NO_TIME));
        return asked;
    };
    let Ok(credential) = credential else {
        // A visitor sees the certificate or the host key all the same.
        let (seen, listed) = examine::list(&remote, None, &|_| ());
        asked.key = host_key(&seen, listed.as_ref().err());
        asked.seen = seen;
        if let Err(failure @ mirror::Failure::Certificate(_)) = listed {
            asked.refused = Some(failure.into());
        }
        asked.repository.push(skip("there is no credential to ask with"));
        return asked;
    };
    let remote = Remote { credential, ..remote };
    let warnings = RefCell::new(Vec::new());
    let progress = |progress: Progress| {
        if let Progress::Warning(text) = progress {
            warnings.borrow_mut().push(text);
        }
    };
    let wanted = target.apps.iter().find_map(|app| match &app.release {
        Release::Commit(revision) => Some(*revision),
        Release::Name(_) => None,
    });
    let (seen, listed) = examine::list(&remote, wanted, &progress);
    asked.key = host_key(&seen, listed.as_ref().err());
    asked.seen = seen;
    for warning in warnings.into_inner() {
        asked.repository.push(Finding::warning("repository", warning));
    }
    match listed {
        Ok(listing) => {
            let with = auth.describe();
            let branches = match listing.branches {
                1 => "1 branch".to_owned(),
                n => format!("{n} branches"),
            };
            let wanted = wanted
                .map(|wanted| where_it_is(patient, target, wanted, listing.wanted_at.as_deref()));
            let finding = Finding::ok(
                "repository",
                format!("{url}: {with} may read it, {branches}{}", wanted.unwrap_or_default()),
            );
            asked.repository.push(finding.fact("url", url.to_string()));
        }
        Err(failure) if asked.key.as_ref().is_some_and(|key| key.status == Status::Problem) => {
            // Said once, for the server.
            drop(failure);
            asked.repository.push(skip("the host key is not accepted"));
        }
        Err(failure @ mirror::Failure::Certificate(_)) => {
            asked.refused = Some(failure.into());
            asked.repository.push(skip("the certificate is not accepted"));
        }
        Err(failure) => asked.repository.push(unless_ended("repository", failure)),
    }
    asked
}

/// What is known of a wanted commit without fetching it.
fn where_it_is(
    patient: &Patient<'_>,
    target: &Target<'_>,
    wanted: Revision,
    end_of: Option<&str>,
) -> String {
    let short = wanted.short();
    let held = target.apps.iter().all(|app| {
        let mirror = ledger::mirror_path(&patient.settings.cache_dir, &app.name);
        mirror.join(format!("refs/multideployer/fetched/{wanted}")).exists()
    });
    match end_of {
        _ if held => format!("; {short} is here already"),
        Some(branch) => format!("; {short} is the end of {branch}"),
        None => String::new(),
    }
}

/// The credential could not be had; findings say why.
struct Missing;

/// The secret itself, `None` for a visitor, and findings about where it is kept.
fn credential(
    patient: &Patient<'_>,
    target: &Target<'_>,
    run: &Run<'_>,
    findings: &mut Vec<Finding>,
) -> Result<Option<mirror::Credential>, Missing> {
    let (rule, auth) = (&target.rule, target.auth());
    let description = auth.describe();
    if patient.offline && connects(auth) {
        findings.push(Finding::not_checked("credential", format!("{description}: --offline")));
        return Err(Missing);
    }
    let warnings = RefCell::new(Vec::new());
    let warn = |text: String| warnings.borrow_mut().push(text);
    let resolved = host::credential(run, target.apps[0], &target.remote, &warn);
    let warned = !warnings.borrow().is_empty();
    for warning in warnings.into_inner() {
        findings.push(Finding::warning("credential", warning));
    }
    for file in auth.secret_files() {
        if !warned {
            findings.extend(places::writable_by_others(patient, "credential", file));
        }
    }
    match resolved {
        Ok(credential) => {
            let mut shown = description;
            for file in auth.secret_files() {
                shown += &mode_of(file);
            }
            shown += &match rule.prefix.as_str() {
                "" => ": no entry of `hosts` is for it".to_owned(),
                prefix => format!(", for {prefix}"),
            };
            findings.push(Finding::ok("credential", shown));
            Ok(credential)
        }
        Err(error) => {
            findings.push(match unreadable(&error) {
                Some(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                    let text = format!("{description}: {source}");
                    patient.unseen("credential", &io::Error::new(source.kind(), text))
                }
                _ => Finding::failure("credential", &error.into()),
            });
            Err(Missing)
        }
    }
}

/// The error of the file system, if the credential's file cannot be read.
fn unreadable(error: &credentials::Error) -> Option<&io::Error> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

fn mode_of(file: &Path) -> String {
    std::fs::metadata(file).map_or_else(
        |_| String::new(),
        |about| format!(" ({:04o}, {})", about.mode() & 0o7777, places::owner(about.uid())),
    )
}

/// Whether a program or a server is asked for the secret.
fn connects(auth: &Auth) -> bool {
    match auth {
        Auth::TokenCommand(_)
        | Auth::GithubApp(_)
        | Auth::CredentialHelper(_)
        | Auth::SshAgent { .. } => true,
        Auth::SshKey { key, passphrase } => {
            matches!(key, KeyPlace::Command(_))
                || matches!(passphrase, Some(SecretPlace::Command(_)))
        }
        Auth::None | Auth::Given { .. } | Auth::TokenEnv(_) | Auth::TokenFile(_) => false,
    }
}

fn certificate(asked: &Asked, reached: &Result<(), String>) -> Finding {
    let shown = asked.seen.certificate.as_ref().map(|certificate| {
        let days = certificate.days_left;
        let until = match days {
            ..0 => format!("expired {} days ago", -days),
            _ => format!("expires in {days} days"),
        };
        format!("{}, issued by {}, {until}", certificate.subject, certificate.issuer)
    });
    let days = asked.seen.certificate.as_ref().map(|certificate| certificate.days_left);
    let finding = match (&asked.refused, &asked.seen.tls, shown, reached) {
        (Some(failure), _, shown, _) => {
            let mut finding = Finding::failure("tls", failure);
            finding.message += &shown.map(|shown| format!(" ({shown})")).unwrap_or_default();
            finding
        }
        (None, Some(version), Some(shown), _) => {
            let text = format!("{version}, {shown}");
            match days {
                Some(days) if days < DAYS => Finding::warning("tls", text)
                    .remedy("renew the server's certificate before it stops deployments"),
                _ => Finding::ok("tls", text),
            }
            .fact("protocol", version.clone())
        }
        (None, _, _, Err(why)) => Finding::not_checked("tls", why),
        (None, ..) => Finding::not_checked("tls", "the server did not get as far as that"),
    };
    match &asked.seen.certificate {
        Some(certificate) => finding
            .fact("subject", certificate.subject.clone())
            .fact("issuer", certificate.issuer.clone())
            .fact("days_left", certificate.days_left),
        None => finding,
    }
}

fn host_key(seen: &Seen, failure: Option<&mirror::Failure>) -> Option<Finding> {
    if let Some(key) = &seen.host_key {
        return Some(
            Finding::ok(
                "host_key",
                format!("{} {}, accepted by {}", key.kind, key.fingerprint, key.accepted_by),
            )
            .fact("kind", key.kind.clone())
            .fact("fingerprint", key.fingerprint.clone())
            .fact("accepted_by", key.accepted_by.clone()),
        );
    }
    let failure = failure?;
    let (mirror::Failure::UnknownHostKey(key)
    | mirror::Failure::ChangedHostKey(key)
    | mirror::Failure::RevokedHostKey(key)) = failure
    else {
        return None;
    };
    let mut finding = Finding::problem("host_key", failure.to_string())
        .fact("kind", key.kind.clone())
        .fact("fingerprint", key.fingerprint.clone())
        .fact("line", key.line.clone());
    finding.remedy = failure.hint();
    Some(finding)
}

/// A deployment works with a wrong clock: certificates say when they are not good yet, and a
/// GitHub App signs by the server's.
fn clock(ahead: Option<i64>) -> Finding {
    let Some(ahead) = ahead else {
        return Finding::not_checked("clock", "the server does not say what time it is");
    };
    let off = ahead.abs();
    let which = if ahead > 0 { "behind" } else { "ahead of" };
    let finding = if off <= OFF {
        Finding::ok("clock", format!("within {off} s of the server's"))
    } else {
        Finding::warning("clock", format!("{off} s {which} the server's"))
            .remedy("let chrony or systemd-timesyncd set this host's clock")
    };
    finding.fact("seconds", -ahead)
}

/// A failure; but when a signal ended it, it says nothing about the server.
fn unless_ended(check: &'static str, failure: mirror::Failure) -> Finding {
    match failure {
        mirror::Failure::Interrupted(_) => Finding::not_checked(check, failure.to_string()),
        failure => Finding::failure(check, &failure.into()),
    }
}

impl Patient<'_> {
    /// The same remote with limits that fit into the time that is left, if any is.
    fn limited(&self, remote: Remote) -> Option<Remote> {
        let left = self.until.saturating_duration_since(Instant::now());
        let total = LIMITS.total.min(left);
        let limits = Limits { total, ..LIMITS };
        (!left.is_zero()).then_some(Remote { limits, ..remote })
    }
}
