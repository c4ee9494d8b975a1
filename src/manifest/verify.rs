//! The key `verify` of an app and of `defaults`: what a commit has to prove.

use std::path::PathBuf;

use crate::diagnostic::quoted;
use crate::domain::{RefName, Verify};
use crate::manifest::fields::{Fields, Findings, Keys};
use crate::yaml::{Node, Position, Value};

const KEYS: Keys = Keys { first: &[], second: &["signed_by", "revoked_keys", "reachable_from"] };

/// `verify` as it is written in one place.
#[derive(Debug, Clone)]
pub(super) enum Given {
    /// `none`: whatever `defaults` asks for is not asked of this app.
    Nothing,
    /// A mapping. A key that is absent is taken from `defaults`.
    Keys {
        at: Position,
        signed_by: Option<Vec<PathBuf>>,
        revoked_keys: Option<PathBuf>,
        reachable_from: Option<Vec<RefName>>,
    },
}

/// Reads the key `verify`; nothing, or null, is `None`.
pub(super) fn take(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<Given> {
    let node = fields.take("verify").filter(|node| !node.is_null())?;
    if let Value::Scalar(scalar) = &node.value
        && scalar.text == "none"
    {
        return Some(Given::Nothing);
    }
    let mut fields = Fields::of(node, "`verify`", findings)?;
    let signed_by = fields.take("signed_by").and_then(|node| paths(node, findings));
    let revoked_keys = findings
        .take_text(&mut fields, "revoked_keys")
        .and_then(|(text, at)| absolute(text, at, "revoked_keys", findings));
    let reachable_from = fields.take("reachable_from").and_then(|node| refs(node, findings));
    fields.finish(KEYS, findings);
    if signed_by.is_none() && revoked_keys.is_none() && reachable_from.is_none() {
        if !findings.any_error() {
            findings.error(Some(node.at), "`verify` asks for nothing").hint =
                Some("give `signed_by` or `reachable_from`; or write `verify: none`".into());
        }
        return None;
    }
    Some(Given::Keys { at: node.at, signed_by, revoked_keys, reachable_from })
}

/// What is asked of an app: its own keys, and those of `defaults` for the rest.
pub(super) fn merged(
    own: Option<Given>,
    defaults: Option<&Given>,
    findings: &mut Findings,
) -> Option<Verify> {
    let given = match (own, defaults) {
        (
            Some(Given::Keys { at, signed_by, revoked_keys, reachable_from }),
            Some(Given::Keys { signed_by: s, revoked_keys: k, reachable_from: r, .. }),
        ) => Given::Keys {
            at,
            signed_by: signed_by.or_else(|| s.clone()),
            revoked_keys: revoked_keys.or_else(|| k.clone()),
            reachable_from: reachable_from.or_else(|| r.clone()),
        },
        (Some(own), _) => own,
        (None, defaults) => defaults?.clone(),
    };
    let Given::Keys { at, signed_by, revoked_keys, reachable_from } = given else { return None };
    let signed_by = signed_by.unwrap_or_default();
    if signed_by.is_empty() && revoked_keys.is_some() {
        findings.error(Some(at), "`revoked_keys` is of no use without `signed_by`");
    }
    Some(Verify { signed_by, revoked_keys, reachable_from: reachable_from.unwrap_or_default() })
}

/// One text or a list of at least one.
fn texts<'n>(
    node: &'n Node,
    key: &str,
    findings: &mut Findings,
) -> Option<Vec<(&'n str, Position)>> {
    if node.items().is_some() {
        return findings.texts(node, key, false);
    }
    findings.text(node, key).map(|text| vec![(text, node.at)])
}

fn paths(node: &Node, findings: &mut Findings) -> Option<Vec<PathBuf>> {
    let texts = texts(node, "signed_by", findings)?;
    let paths: Vec<_> =
        texts.into_iter().map(|(text, at)| absolute(text, at, "signed_by", findings)).collect();
    paths.into_iter().collect()
}

fn absolute(text: &str, at: Position, key: &str, findings: &mut Findings) -> Option<PathBuf> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        return Some(path);
    }
    findings.error(Some(at), format!("`{key}` is {}, which is not absolute", quoted(text))).hint =
        Some("write the whole path: what a relative one means depends on who starts this".into());
    None
}

fn refs(node: &Node, findings: &mut Findings) -> Option<Vec<RefName>> {
    let texts = texts(node, "reachable_from", findings)?;
    let names: Vec<_> = texts.into_iter().map(|(text, at)| full_name(text, at, findings)).collect();
    names.into_iter().collect()
}

/// The full name of a branch or tag; a short one is a branch.
fn full_name(text: &str, at: Position, findings: &mut Findings) -> Option<RefName> {
    const HINT: &str = "name a branch (`main`, `refs/heads/main`) or a tag (`refs/tags/v1`)";
    let full =
        if text.starts_with("refs/") { text.to_owned() } else { format!("refs/heads/{text}") };
    let why = match full.parse::<RefName>() {
        Err(_) if text.contains(['*', '?', '[']) => "patterns are not supported".to_owned(),
        Err(error) => error.to_string(),
        Ok(_) if matches!(text, "HEAD" | "FETCH_HEAD") => {
            "what it points to is the server's choice".to_owned()
        }
        Ok(_) if !full.starts_with("refs/heads/") && !full.starts_with("refs/tags/") => {
            "anybody who may propose a change can point other refs at any commit".to_owned()
        }
        Ok(name) => return Some(name),
    };
    let message = format!("`reachable_from` names {}: {why}", quoted(text));
    findings.error(Some(at), message).hint = Some(HINT.into());
    None
}
