//! `when`: which hosts an app is for.

use crate::diagnostic::quoted;
use crate::domain::{Glob, When};
use crate::manifest::fields::{Fields, Findings, Keys};
use crate::yaml::Node;

const KEYS: Keys =
    Keys { first: &[], second: &["deployment_group", "application", "hostname", "label"] };

pub(super) fn read(node: &Node, findings: &mut Findings) -> Option<When> {
    let mut fields = Fields::of(node, "`when`", findings)?;
    let mut globs = |key: &str| globs(&mut fields, key, findings);
    let when = When {
        deployment_group: globs("deployment_group"),
        application: globs("application"),
        hostname: globs("hostname"),
        label: globs("label"),
    };
    fields.finish(KEYS, findings);
    Some(when)
}

fn globs(fields: &mut Fields<'_>, key: &str, findings: &mut Findings) -> Vec<Glob> {
    let Some(node) = fields.take(key).filter(|node| !node.is_null()) else { return Vec::new() };
    let mut globs = Vec::new();
    for (text, at) in findings.texts(node, key, true).unwrap_or_default() {
        match text.parse() {
            Ok(glob) => globs.push(glob),
            Err(error) => {
                let error: crate::domain::GlobError = error;
                findings.error(Some(at), format!("the pattern {} {error}", quoted(text)));
            }
        }
    }
    globs
}
