//! Each git server: name, route, connection, certificate or host key, credentials, and what
//! every repository says to them. The functions are those of a fetch.

mod ask;
pub(super) mod beyond;
mod judge;
mod reach;

use std::sync::OnceLock;

use super::Patient;
use ask::{Asked, ask};
use judge::{certificate, clock};
use reach::{authorities, reach};

use crate::deploy::{Means, no_tool};
use crate::domain::{App, RepoUrl};
use crate::error::Failure;
use crate::host;
use crate::host::Run;
use crate::hosts::{Auth, HostRule, Hosts};
use crate::manifest::Manifest;
use crate::mirror::{Remote, Trust};
use crate::report::console::{Console, Place};
use crate::report::doctor::{Finding, Section};
use crate::report::human::Paint;
use crate::report::log::Log;
use crate::rollout::in_parallel;

/// Servers that are asked at a time, and repositories of one server.
const AT_A_TIME: usize = 8;

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
    let means = Means::of(settings, manifest);
    // Of a run, credentials are all that is wanted here.
    let console = Console::new(Place::Nowhere, false, Paint(false), Log::default());
    let tool = OnceLock::new();
    let run = means.run(&tool, &no_tool, patient.interrupt, &console);
    let run = Run { offline: patient.offline, ..run };
    let servers = servers(patient, &means.hosts, apps);
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

/// Does the same for all, some of them at a time, and keeps their order.
fn at_a_time<T: Sync, R: Send>(things: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<Option<R>> {
    // What a signal cuts short says so itself.
    in_parallel(things.len(), AT_A_TIME, || false, |number| work(&things[number]))
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
