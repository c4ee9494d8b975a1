//! `checks`: what has to be so after an app was deployed.

use std::path::Path;
use std::time::Duration;

use crate::diagnostic::quoted;
use crate::domain::{Check, Probe};
use crate::manifest::fields::{Fields, Findings, Keys};
use crate::yaml::Node;

/// How long a check has unless it says so.
const WITHIN: Duration = Duration::from_secs(30);
/// Checks of an app at most.
const MOST: usize = 20;

const KEYS: Keys = Keys { first: &[], second: &["http", "tcp", "command", "within", "status"] };

pub(super) fn read(node: &Node, directory: &Path, findings: &mut Findings) -> Option<Vec<Check>> {
    let Some(items) = node.items() else {
        let message = format!("`checks` is {}; it must be a list", node.kind());
        findings.error(Some(node.at), message).hint =
            Some("checks: [{http: \"http://127.0.0.1:8080/health\", within: 60s}]".into());
        return None;
    };
    if items.len() > MOST {
        let message = format!("`checks` has {} entries; at most {MOST} are made", items.len());
        findings.error(Some(node.at), message);
        return None;
    }
    items.iter().map(|item| check(item, directory, findings)).collect()
}

fn check(node: &Node, directory: &Path, findings: &mut Findings) -> Option<Check> {
    let mut fields = Fields::of(node, "a check", findings)?;
    let within = findings.take_duration(&mut fields, "within").unwrap_or(WITHIN);
    let status = fields.take("status").filter(|node| !node.is_null());
    let http = fields.take("http").filter(|node| !node.is_null());
    let tcp = fields.take("tcp").filter(|node| !node.is_null());
    let command = fields.take("command").filter(|node| !node.is_null());
    fields.finish(KEYS, findings);
    if let (Some(status), None) = (status, http) {
        findings.error(Some(status.at), "`status` is of `http` checks only");
    }
    let probe = match (http, tcp, command) {
        (Some(node), None, None) => {
            let status = match status {
                None => None,
                Some(node) => Some(status_of(node, findings)?),
            };
            Probe::Http { url: url(node, findings)?, status }
        }
        (None, Some(node), None) => Probe::Tcp(address(node, findings)?),
        (None, None, Some(node)) => {
            let example = "[systemctl, is-active, api]";
            Probe::Command(findings.command(node, "command", example, directory)?)
        }
        _ => {
            let message = "a check is exactly one of `http`, `tcp` and `command`";
            findings.error(Some(node.at), message);
            return None;
        }
    };
    Some(Check { probe, within })
}

fn status_of(node: &Node, findings: &mut Findings) -> Option<u16> {
    let text = findings.text(node, "status")?;
    let status = text.parse().ok().filter(|status| (100..=599).contains(status));
    if status.is_none() {
        let message = format!("`status` is {}; it must be a number from 100 to 599", quoted(text));
        findings.error(Some(node.at), message);
    }
    status
}

fn url(node: &Node, findings: &mut Findings) -> Option<String> {
    let text = findings.text(node, "http")?;
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    let wrong = if authority.is_empty() || text.contains(char::is_whitespace) {
        "must be `http://…` or `https://…`"
    } else if authority.contains('@') {
        "holds a user or a password, which everybody could read"
    } else {
        return Some(text.to_owned());
    };
    findings.error(Some(node.at), format!("`http` {wrong}"));
    None
}

fn address(node: &Node, findings: &mut Findings) -> Option<String> {
    let text = findings.text(node, "tcp")?;
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    if port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Some(text.to_owned());
    }
    let message = format!("`tcp` is {}; it must be `host:port`", quoted(text));
    findings.error(Some(node.at), message);
    None
}
