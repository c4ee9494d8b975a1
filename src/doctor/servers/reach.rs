//! The way to a server: route, name, connection, and what its certificate is judged by.

use std::time::{Duration, Instant};

use super::super::Patient;
use super::judge::unless_ended;
use crate::mirror::examine::{self, Endpoint};
use crate::mirror::{self, Limits, Remote, Trust};
use crate::report::doctor::{Finding, Section};

/// How long the steps may take: shorter than those of a fetch, because somebody waits.
const LIMITS: Limits = Limits {
    connect: Duration::from_secs(10),
    read: Duration::from_secs(15),
    total: Duration::from_secs(30),
    command: Duration::from_secs(15),
    pause: Duration::ZERO,
};
pub(super) const NO_TIME: &str = "no time was left for it";

/// Name, route and connection. What keeps the rest from being asked is the error.
pub(super) fn reach(
    patient: &Patient<'_>,
    remote: &Remote,
    section: &mut Section,
) -> Result<(), String> {
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
pub(super) fn authorities(patient: &Patient<'_>, trust: &Trust) -> Finding {
    let sources = examine::authorities(trust);
    for (_, path) in &sources {
        if let Err(error) = fs_err::File::open(path) {
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
impl Patient<'_> {
    /// The same remote with limits that fit into the time that is left, if any is.
    pub(super) fn limited(&self, remote: Remote) -> Option<Remote> {
        let left = self.until.saturating_duration_since(Instant::now());
        let total = LIMITS.total.min(left);
        let limits = Limits { total, ..LIMITS };
        (!left.is_zero()).then_some(Remote { limits, ..remote })
    }
}
