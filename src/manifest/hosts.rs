//! `hosts`: which credential, certificate authority and host keys go with which prefix.

use std::collections::HashSet;
use std::path::Path;

use crate::diagnostic::quoted;
use crate::hosts::{Auth, HostRule, Hosts};
use crate::manifest::app::is_variable;
use crate::manifest::fields::{Fields, Findings, Keys, boolean, list};
use crate::manifest::source::{Authority, resolve, url_path};
use crate::yaml::{Node, Position};

const RULE: Keys = Keys {
    first: &[],
    second: &["auth", "username", "ca_file", "host_keys", "known_hosts_file"],
    later: &["proxy"],
};

const AUTH: Keys = Keys {
    first: &[],
    second: &["token_env", "token_file", "token_command", "ssh_key_file", "none", "username"],
    later: &["github_app", "ssh_key_command", "ssh_agent", "credential_helper"],
};

/// The ways to log in among [`AUTH`].
const KINDS: [&str; 5] = ["token_env", "token_file", "token_command", "ssh_key_file", "none"];

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
    let (auth, inner) = auth.map_or((None, None), |node| auth_of(node, directory, findings));
    let outer = username(&mut fields, findings);
    if let (Some(_), Some((_, at))) = (&inner, &outer) {
        findings.error(Some(*at), "`username` stands in `auth` already");
    }
    let ca_file = findings.take_path(&mut fields, "ca_file", directory);
    let known_hosts_file = findings.take_path(&mut fields, "known_hosts_file", directory);
    let host_keys = fields
        .take("host_keys")
        .filter(|node| !node.is_null())
        .and_then(|node| host_keys(node, findings));
    fields.finish(RULE, findings);
    Some(HostRule {
        auth,
        username: inner.or(outer).map(|(name, _)| name),
        ca_file,
        host_keys,
        known_hosts_file,
        ..HostRule::default()
    })
}

/// A user name as it may stand in `Authorization: Basic`, with its place.
type Username = Option<(String, Position)>;

fn username(fields: &mut Fields<'_>, findings: &mut Findings) -> Username {
    let (text, at) = findings.take_text(fields, "username")?;
    if text.contains(':') {
        findings.error(Some(at), "`username` contains a colon, which no user name may").hint =
            Some("a password or token does not belong into the manifest".into());
        return None;
    }
    Some((text.to_owned(), at))
}

fn auth_of(node: &Node, directory: &Path, findings: &mut Findings) -> (Option<Auth>, Username) {
    if node.text() == Some("none") {
        return (Some(Auth::None), None);
    }
    if node.text().is_some() {
        // Not repeated: it may be the token itself.
        findings
            .error(
                Some(node.at),
                "`auth` is a text; it must be `none` or say where the credential is",
            )
            .hint = Some("for example `auth: {token_file: /etc/multideployer/token}`".into());
        return (None, None);
    }
    let Some(mut fields) = Fields::of(node, "`auth`", findings) else { return (None, None) };
    let username = username(&mut fields, findings);
    let later = AUTH.later.iter().any(|kind| fields.has(kind));
    let given: Vec<&str> = KINDS.into_iter().filter(|kind| fields.has(kind)).collect();
    let mut auth = None;
    match given[..] {
        [kind] => auth = method(kind, &mut fields, directory, findings),
        [] if later => {}
        [] => {
            findings.error(Some(node.at), "`auth` does not say where the credential is").hint =
                Some(format!("use exactly one of {}", list(KINDS)));
        }
        _ => {
            for kind in &given {
                fields.take(kind);
            }
            findings.error(
                Some(node.at),
                format!("`auth` has {}; it must have exactly one", list(given)),
            );
        }
    }
    fields.finish(AUTH, findings);
    (auth, username)
}

fn method(
    kind: &str,
    fields: &mut Fields<'_>,
    directory: &Path,
    findings: &mut Findings,
) -> Option<Auth> {
    match kind {
        "token_env" => {
            let node = fields.take(kind)?;
            let name = findings.text(node, kind)?;
            if is_variable(name) {
                return Some(Auth::TokenEnv(name.to_owned()));
            }
            // Not repeated: it may be the token itself.
            findings
                .error(Some(node.at), "`token_env` is not the name of an environment variable")
                .hint = Some("write the variable's name, not its value".into());
            None
        }
        "token_file" => findings.path(fields.take(kind)?, kind, directory).map(Auth::TokenFile),
        "ssh_key_file" => findings.path(fields.take(kind)?, kind, directory).map(Auth::SshKeyFile),
        "token_command" => {
            command(fields.take(kind)?, kind, directory, findings).map(Auth::TokenCommand)
        }
        _ => {
            let node = fields.take(kind)?;
            if node.is_null() || boolean(node) == Some(true) {
                return Some(Auth::None);
            }
            findings.error(Some(node.at), "`none` stands alone: `auth: none`");
            None
        }
    }
}

/// A command as a list of words; there is no shell. A program with a `/` in it is
/// relative to the manifest.
fn command(
    node: &Node,
    what: &str,
    directory: &Path,
    findings: &mut Findings,
) -> Option<Vec<String>> {
    if node.text().is_some() {
        findings
            .error(Some(node.at), format!("`{what}` is a text; it must be a list of words"))
            .hint =
            Some(format!("no shell reads it: `{what}: [/usr/local/bin/get-token, argument]`"));
        return None;
    }
    let words = findings.texts(node, what, false)?;
    let mut words: Vec<String> = words.into_iter().map(|(word, _)| word.to_owned()).collect();
    if let Some(program) = words.first_mut().filter(|program| program.contains('/')) {
        let Ok(path) = resolve(program, directory).into_os_string().into_string() else {
            findings.error(
                Some(node.at),
                format!("`{what}` is below a directory whose name is not UTF-8"),
            );
            return None;
        };
        *program = path;
    }
    Some(words)
}

fn host_keys(node: &Node, findings: &mut Findings) -> Option<Vec<String>> {
    let keys = findings.texts(node, "host_keys", false)?;
    let mut good = Vec::new();
    for (text, at) in &keys {
        let digest = text.strip_prefix("SHA256:").map(|digest| digest.trim_end_matches('='));
        let valid = digest.filter(|digest| {
            digest.len() == 43
                && digest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
        });
        if let Some(digest) = valid {
            good.push(format!("SHA256:{digest}"));
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
