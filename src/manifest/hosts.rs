//! `hosts`: which credential, certificate authority and host keys go with which prefix.

use std::collections::HashSet;
use std::path::Path;

use crate::diagnostic::quoted;
use crate::hosts::{HostRule, Hosts};
use crate::manifest::fields::{Fields, Findings, Keys};
use crate::manifest::source::{Authority, url_path};
use crate::manifest::{auth, proxy};
use crate::yaml::{Node, Position};

const RULE: Keys = Keys {
    first: &[],
    second: &[
        "auth",
        "username",
        "ca_file",
        "host_keys",
        "known_hosts_file",
        "proxy",
        "proxy_auth",
    ],
};

/// Reads `hosts`. Paths are relative to `directory`.
pub(super) fn read(node: &Node, directory: &Path, findings: &mut Findings) -> Hosts {
    let mut rules = Vec::new();
    let mut seen = HashSet::new();
    let Some(entries) = Fields::of(node, "`hosts`", findings) else { return Hosts::default() };
    for (key, at, value) in entries.into_all() {
        let prefix = prefix(key, at, findings);
        let Some(rule) = rule(value, key, directory, findings) else { continue };
        let Some(prefix) = prefix else { continue };
        if seen.insert(prefix.clone()) {
            rules.push(HostRule { prefix, ..rule });
        } else {
            findings.error(Some(at), format!("`hosts` has two entries for {}", quoted(&prefix)));
        }
    }
    Hosts::new(rules)
}

/// `host[:port][/path]`, normalised.
fn prefix(key: &str, at: Position, findings: &mut Findings) -> Option<String> {
    const FORM: &str = "write `host`, `host:port`, `host/org` or `host/org/repo`";
    if key.contains("://") || key.contains('@') {
        findings.error(Some(at), "a key of `hosts` is a host, without scheme and user").hint =
            Some(FORM.into());
        return None;
    }
    let key = key.trim_end_matches('/');
    let (authority, path) = match key.split_once('/') {
        Some((authority, path)) => (authority, Some(path)),
        None => (key, None),
    };
    let checked = Authority::parse(authority).map_err(|e| e.to_string()).and_then(|authority| {
        let path = path.map(url_path).transpose().map_err(|e| e.to_string())?;
        Ok((authority, path))
    });
    let (authority, path) = match checked {
        Ok(parts) => parts,
        Err(reason) => {
            findings
                .error(Some(at), format!("{} is not a key of `hosts`: {reason}", quoted(key)))
                .hint = Some(FORM.into());
            return None;
        }
    };
    if authority.port == Some(22) {
        findings.error(Some(at), "the port 22 is left out in keys of `hosts`").hint = Some(
            "without a port the entry is for `https://` on port 443 and ssh on port 22".into(),
        );
        return None;
    }
    // No `without_port(443)`: ssh on port 443 is `host:443`.
    Some(match path {
        Some(path) => format!("{}/{path}", authority.without_port(22)),
        None => authority.without_port(22),
    })
}

fn rule(node: &Node, key: &str, directory: &Path, findings: &mut Findings) -> Option<HostRule> {
    let mut fields = Fields::of(node, &format!("the entry {}", quoted(key)), findings)?;
    let auth = fields.take("auth").filter(|node| !node.is_null());
    let (auth, inner) = auth.map_or((None, None), |node| auth::read(node, directory, findings));
    let outer = auth::username(&mut fields, findings);
    if let (Some(_), Some((_, at))) = (&inner, &outer) {
        findings.error(Some(*at), "`username` stands in `auth` already");
    }
    let ca_file = findings.take_path(&mut fields, "ca_file", directory);
    let known_hosts_file = findings.take_path(&mut fields, "known_hosts_file", directory);
    let host_keys = fields
        .take("host_keys")
        .filter(|node| !node.is_null())
        .and_then(|node| host_keys(node, findings));
    let proxy = proxy::take(&mut fields, key, directory, findings);
    fields.finish(RULE, findings);
    Some(HostRule {
        auth,
        username: inner.or(outer).map(|(name, _)| name),
        ca_file,
        host_keys,
        known_hosts_file,
        proxy,
        ..HostRule::default()
    })
}

fn host_keys(node: &Node, findings: &mut Findings) -> Option<Vec<String>> {
    let keys = findings.texts(node, "host_keys", false)?;
    let mut good = Vec::new();
    for (text, at) in &keys {
        if let Some(fingerprint) = auth::fingerprint(text) {
            good.push(fingerprint);
        } else {
            findings
                .error(
                    Some(*at),
                    format!("{} is not a fingerprint `SHA256:…` of 43 characters", quoted(text)),
                )
                .hint = Some(
                "`ssh-keygen -lf FILE` prints it for a public key or a known_hosts file".into(),
            );
        }
    }
    (good.len() == keys.len()).then_some(good)
}
