//! `auth`: the ways to prove to a server who we are.
//!
//! To add one: a variant of [`Auth`] (with its lines in `Auth::describe` and
//! `Auth::secret_variables`); here a function that reads its value, its line in [`KINDS`], and
//! its key, with those of the keys that go with it, in [`KEYS`]; and what
//! `mirror::credentials::resolve` makes of it.

use std::path::Path;

use crate::hosts::Auth;
use crate::manifest::app::is_variable;
use crate::manifest::fields::{Fields, Findings, Keys, boolean, list};
use crate::yaml::{Node, Position};

/// All keys of `auth`: the kinds, and those that go with one.
const KEYS: Keys = Keys {
    first: &[],
    second: &["token_env", "token_file", "token_command", "ssh_key_file", "none", "username"],
    later: &["github_app", "ssh_key_command", "ssh_agent", "credential_helper"],
};

/// The kinds, of which there must be exactly one, in the order messages name them.
const KINDS: &[(&str, Read)] = &[
    ("token_env", token_env),
    ("token_file", token_file),
    ("token_command", token_command),
    ("ssh_key_file", ssh_key_file),
    ("none", none),
];

/// Reads the value of a kind. A mistake is added to the findings.
type Read = fn(&Node, &mut Reader<'_, '_>) -> Option<Auth>;

/// What a kind may look at beside its own value.
struct Reader<'r, 'n> {
    /// The other keys of `auth`: it takes those that go with it.
    #[expect(dead_code, reason = "no kind has a key beside it yet")]
    fields: &'r mut Fields<'n>,
    /// Of the manifest; paths are relative to it.
    directory: &'r Path,
    findings: &'r mut Findings,
}

/// A user name as it may stand in `Authorization: Basic`, with its place.
pub(super) type Username = Option<(String, Position)>;

/// The key `username`, which may stand inside of `auth` or beside it.
pub(super) fn username(fields: &mut Fields<'_>, findings: &mut Findings) -> Username {
    let (text, at) = findings.take_text(fields, "username")?;
    if text.contains(':') {
        findings.error(Some(at), "`username` contains a colon, which no user name may").hint =
            Some("a password or token does not belong into the manifest".into());
        return None;
    }
    Some((text.to_owned(), at))
}

/// Reads `auth`. Paths are relative to `directory`.
pub(super) fn read(
    node: &Node,
    directory: &Path,
    findings: &mut Findings,
) -> (Option<Auth>, Username) {
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
    let later = KEYS.later.iter().any(|kind| fields.has(kind));
    let given: Vec<(&str, Read)> =
        KINDS.iter().copied().filter(|(kind, _)| fields.has(kind)).collect();
    let mut auth = None;
    match given[..] {
        [(kind, read)] => {
            if let Some(value) = fields.take(kind) {
                auth = read(value, &mut Reader { fields: &mut fields, directory, findings });
            }
        }
        [] if later => {}
        [] => {
            findings.error(Some(node.at), "`auth` does not say where the credential is").hint =
                Some(format!("use exactly one of {}", list(KINDS.iter().map(|(kind, _)| *kind))));
        }
        _ => {
            for (kind, _) in &given {
                fields.take(kind);
            }
            let given = list(given.iter().map(|(kind, _)| *kind));
            findings.error(Some(node.at), format!("`auth` has {given}; it must have exactly one"));
        }
    }
    fields.finish(KEYS, findings);
    (auth, username)
}

fn token_env(node: &Node, reader: &mut Reader<'_, '_>) -> Option<Auth> {
    variable(node, "token_env", reader.findings).map(Auth::TokenEnv)
}

fn token_file(node: &Node, reader: &mut Reader<'_, '_>) -> Option<Auth> {
    reader.findings.path(node, "token_file", reader.directory).map(Auth::TokenFile)
}

fn token_command(node: &Node, reader: &mut Reader<'_, '_>) -> Option<Auth> {
    let example = "[/usr/local/bin/get-token, argument]";
    command(node, "token_command", example, reader).map(Auth::TokenCommand)
}

fn ssh_key_file(node: &Node, reader: &mut Reader<'_, '_>) -> Option<Auth> {
    reader.findings.path(node, "ssh_key_file", reader.directory).map(Auth::SshKeyFile)
}

fn none(node: &Node, reader: &mut Reader<'_, '_>) -> Option<Auth> {
    if node.is_null() || boolean(node) == Some(true) {
        return Some(Auth::None);
    }
    reader.findings.error(Some(node.at), "`none` stands alone: `auth: none`");
    None
}

/// The name of an environment variable. It is not repeated if it is none: it may be the
/// secret itself.
pub(super) fn variable(node: &Node, key: &str, findings: &mut Findings) -> Option<String> {
    let name = findings.text(node, key)?;
    if is_variable(name) {
        return Some(name.to_owned());
    }
    findings
        .error(Some(node.at), format!("`{key}` is not the name of an environment variable"))
        .hint = Some("write the variable's name, not its value".into());
    None
}

/// A command as a list of words; there is no shell.
fn command(
    node: &Node,
    key: &str,
    example: &str,
    reader: &mut Reader<'_, '_>,
) -> Option<Vec<String>> {
    reader.findings.command(node, key, example, reader.directory)
}
