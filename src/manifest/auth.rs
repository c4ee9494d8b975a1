//! `auth`: the ways to prove to a server who we are.
//!
//! To add one: a variant of [`Auth`] (with its lines in `Auth::describe` and
//! `Auth::secret_variables`); here a function that reads its value, its line in [`KINDS`], and
//! its key, with those of the keys that go with it, in [`KEYS`]; and what
//! `mirror::credentials::resolve` makes of it.

use std::path::Path;

use crate::diagnostic::quoted;
use crate::hosts::{AgentKey, Auth, GithubApp, KeyPlace, SecretPlace};
use crate::manifest::app::is_variable;
use crate::manifest::fields::{Fields, Findings, Keys, boolean, list};
use crate::manifest::source::{Authority, resolve, url_path};
use crate::yaml::{Node, Position};

/// All keys of `auth`: the kinds, and those that go with one.
const KEYS: Keys = Keys {
    first: &[],
    second: &[
        "token_env",
        "token_file",
        "token_command",
        "github_app",
        "credential_helper",
        "ssh_key_file",
        "ssh_key_command",
        "ssh_agent",
        "passphrase_env",
        "passphrase_file",
        "passphrase_command",
        "none",
        "username",
    ],
};

/// The kinds, of which there must be exactly one, in the order messages name them.
const KINDS: &[(&str, Read)] = &[
    ("token_env", token_env),
    ("token_file", token_file),
    ("token_command", token_command),
    ("github_app", github_app),
    ("credential_helper", credential_helper),
    ("ssh_key_file", ssh_key_file),
    ("ssh_key_command", ssh_key_command),
    ("ssh_agent", ssh_agent),
    ("none", none),
];

/// What a key for SSH may have beside it.
const PASSPHRASE: [&str; 3] = ["passphrase_env", "passphrase_file", "passphrase_command"];

/// Reads the value of a kind. A mistake is added to the findings.
type Read = fn(&Node, &mut Reader<'_, '_>) -> Option<Auth>;

/// What a kind may look at beside its own value.
struct Reader<'r, 'n> {
    /// The other keys of `auth`: it takes those that go with it.
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
    let given: Vec<(&str, Read)> =
        KINDS.iter().copied().filter(|(kind, _)| fields.has(kind)).collect();
    let mut auth = None;
    match given[..] {
        [(kind, read)] => {
            if let Some(value) = fields.take(kind) {
                auth = read(value, &mut Reader { fields: &mut fields, directory, findings });
            }
        }
        [] => {
            findings.error(Some(node.at), "`auth` does not say where the credential is").hint =
                Some(format!("use exactly one of {}", list(KINDS.iter().map(|(kind, _)| *kind))));
        }
        _ => {
            for (kind, _) in &given {
                fields.take(kind);
            }
            let kinds = list(given.iter().map(|(kind, _)| *kind));
            findings.error(Some(node.at), format!("`auth` has {kinds}; it must have exactly one"));
        }
    }
    for key in PASSPHRASE {
        if let Some(node) = fields.take(key)
            && given.len() == 1
        {
            findings.error(
                Some(node.at),
                format!("`{key}` goes with `ssh_key_file` or `ssh_key_command`"),
            );
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

/// The keys of `github_app`.
const APP: Keys = Keys {
    first: &[],
    second: &["client_id", "app_id", "private_key_file", "installation_id", "owner", "api_url"],
};

fn github_app(node: &Node, reader: &mut Reader<'_, '_>) -> Option<Auth> {
    let findings = &mut *reader.findings;
    let mut fields = Fields::of(node, "`github_app`", findings)?;
    let client = fields.take("client_id").map(|node| (node, "client_id"));
    let number = fields.take("app_id").map(|node| (node, "app_id"));
    let id = match (client, number) {
        (Some(_), Some((node, _))) => {
            findings.error(Some(node.at), "`client_id` and `app_id` are both given; one is enough");
            None
        }
        (None, None) => {
            findings.error(Some(node.at), "`github_app` does not say which App it is").hint = Some(
                "add `client_id` (or `app_id`), as the App's settings on GitHub show it".into(),
            );
            None
        }
        (Some((node, key)), None) | (None, Some((node, key))) => app_id(node, key, findings),
    };
    let key = if let Some(node) = fields.take("private_key_file") {
        findings.path(node, "private_key_file", reader.directory)
    } else {
        findings.error(Some(node.at), "`github_app` has no `private_key_file`").hint =
            Some("generate a private key in the App's settings on GitHub".into());
        None
    };
    let installation = fields.take("installation_id").map(|node| whole_number(node, findings));
    let owner = fields.take("owner").map(|node| account(node, findings));
    let api_url = fields.take("api_url").map(|node| https_url(node, "api_url", findings));
    fields.finish(APP, findings);
    // What is given and wrong is `Some(None)`.
    Some(Auth::GithubApp(GithubApp {
        id: id?,
        private_key_file: key?,
        installation_id: installation.map_or(Some(None), |good| good.map(Some))?,
        owner: owner.map_or(Some(None), |good| good.map(Some))?,
        api_url: api_url.map_or(Some(None), |good| good.map(Some))?,
    }))
}

/// A client id or an app id. It is not repeated if it is none: it may be a secret.
fn app_id(node: &Node, key: &str, findings: &mut Findings) -> Option<String> {
    let text = findings.text(node, key)?;
    let (valid, form) = if key == "app_id" {
        (text.bytes().all(|b| b.is_ascii_digit()) && text.len() <= 20, "it is a number")
    } else {
        let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'.';
        (text.bytes().all(letters) && text.len() <= 60, "it looks like `Iv23liAbCdEfGhIjKlMn`")
    };
    if valid {
        return Some(text.to_owned());
    }
    findings.error(Some(node.at), format!("`{key}` is not one of a GitHub App")).hint =
        Some(format!("{form}; the App's settings on GitHub show it"));
    None
}

fn whole_number(node: &Node, findings: &mut Findings) -> Option<u64> {
    let text = findings.text(node, "installation_id")?;
    let number = text.parse().ok().filter(|number| *number > 0);
    if number.is_none() {
        let message = format!("`installation_id` is {}; it must be a number", quoted(text));
        findings.error(Some(node.at), message).hint =
            Some("without it the installation is looked up".into());
    }
    number
}

/// The name of a user or an organisation.
fn account(node: &Node, findings: &mut Findings) -> Option<String> {
    let text = findings.text(node, "owner")?;
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
        return Some(text.to_owned());
    }
    let message = format!("`owner` is {}, which is no account on GitHub", quoted(text));
    findings.error(Some(node.at), message).hint =
        Some("write the name of the user or organisation".into());
    None
}

/// `https://host[:port][/path]`, normalised. It is not repeated if it is none: it may hold a
/// password.
fn https_url(node: &Node, key: &str, findings: &mut Findings) -> Option<String> {
    let text = findings.text(node, key)?;
    let rest = text.strip_prefix("https://").map(|rest| rest.trim_end_matches('/'));
    let checked =
        rest.ok_or_else(|| "it does not begin with `https://`".to_owned()).and_then(|rest| {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            if authority.contains('@') {
                return Err("it holds a user name or password".to_owned());
            }
            let authority = Authority::parse(authority).map_err(|e| e.to_string())?;
            let path = match path {
                "" => String::new(),
                path => format!("/{}", url_path(path).map_err(|e| e.to_string())?),
            };
            Ok(format!("https://{}{path}", authority.without_port(443)))
        });
    match checked {
        Ok(url) => Some(url),
        Err(reason) => {
            findings.error(Some(node.at), format!("`{key}` cannot be used: {reason}")).hint =
                Some("for example `https://github.example.com/api/v3`".into());
            None
        }
    }
}

/// A helper of git: its name (`store` is the program `git-credential-store`), its path, or a
/// list of words.
fn credential_helper(node: &Node, reader: &mut Reader<'_, '_>) -> Option<Auth> {
    const KEY: &str = "credential_helper";
    const EXAMPLE: &str = "[git-credential-store, --file=/etc/multideployer/credentials]";
    if node.text().is_none() {
        return command(node, KEY, EXAMPLE, reader).map(Auth::CredentialHelper);
    }
    let text = reader.findings.text(node, KEY)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.contains('/') && !text.contains(char::is_whitespace) && !text.starts_with(['!', '~']) {
        let program = resolve(text, reader.directory).into_os_string().into_string();
        return program.ok().map(|program| Auth::CredentialHelper(vec![program]));
    }
    if text.chars().all(plain) && !text.starts_with('-') {
        return Some(Auth::CredentialHelper(vec![format!("git-credential-{text}")]));
    }
    reader
        .findings
        .error(
            Some(node.at),
            "`credential_helper` is neither a name nor a path nor a list of words",
        )
        .hint = Some(format!("no shell reads it: `credential_helper: {EXAMPLE}`"));
    None
}

fn ssh_key_file(node: &Node, reader: &mut Reader<'_, '_>) -> Option<Auth> {
    let passphrase = passphrase(reader);
    let key = reader.findings.path(node, "ssh_key_file", reader.directory).map(KeyPlace::File);
    Some(Auth::SshKey { key: key?, passphrase: passphrase.ok()? })
}

fn ssh_key_command(node: &Node, reader: &mut Reader<'_, '_>) -> Option<Auth> {
    let passphrase = passphrase(reader);
    let example = "[/usr/local/bin/get-key, argument]";
    let key = command(node, "ssh_key_command", example, reader).map(KeyPlace::Command);
    Some(Auth::SshKey { key: key?, passphrase: passphrase.ok()? })
}

/// A mistake that was added to the findings.
struct Found;

/// Where the passphrase of a key is.
fn passphrase(reader: &mut Reader<'_, '_>) -> Result<Option<SecretPlace>, Found> {
    let given: Vec<_> = PASSPHRASE
        .into_iter()
        .filter_map(|key| reader.fields.take(key).map(|node| (key, node)))
        .collect();
    match given[..] {
        [] => Ok(None),
        [(key, node)] => {
            let place = match key {
                "passphrase_env" => variable(node, key, reader.findings).map(SecretPlace::Env),
                "passphrase_file" => {
                    reader.findings.path(node, key, reader.directory).map(SecretPlace::File)
                }
                _ => {
                    let example = "[/usr/local/bin/get-passphrase, argument]";
                    command(node, key, example, reader).map(SecretPlace::Command)
                }
            };
            place.map(Some).ok_or(Found)
        }
        [.., (_, last)] => {
            let keys = list(given.iter().map(|(key, _)| *key));
            reader
                .findings
                .error(Some(last.at), format!("`auth` has {keys}; a key has one passphrase"));
            Err(Found)
        }
    }
}

fn ssh_agent(node: &Node, reader: &mut Reader<'_, '_>) -> Option<Auth> {
    const KEYS: Keys =
        Keys { first: &[], second: &["public_key", "fingerprint", "comment", "socket"] };
    if node.is_null() || boolean(node) == Some(true) {
        return Some(Auth::SshAgent { socket: None, key: None });
    }
    if node.text().is_some() {
        let hint = "write `ssh_agent: true`, or `ssh_agent: {fingerprint: \"SHA256:…\"}`";
        let findings = &mut *reader.findings;
        findings.error(Some(node.at), "`ssh_agent` is a text").hint = Some(hint.into());
        return None;
    }
    let findings = &mut *reader.findings;
    let mut fields = Fields::of(node, "`ssh_agent`", findings)?;
    let asked_for_socket = fields.has("socket");
    let socket = findings.take_path(&mut fields, "socket", reader.directory);
    let mut keys = Vec::new();
    let mut good = socket.is_some() || !asked_for_socket;
    for kind in ["public_key", "fingerprint", "comment"] {
        let Some((text, at)) = findings.take_text(&mut fields, kind) else { continue };
        match agent_key(kind, text) {
            Ok(key) => keys.push((kind, key)),
            Err((problem, hint)) => {
                good = false;
                findings.error(Some(at), problem).hint = Some(hint.into());
            }
        }
    }
    fields.finish(KEYS, findings);
    if keys.len() > 1 {
        let given = list(keys.iter().map(|(kind, _)| *kind));
        findings.error(Some(node.at), format!("`ssh_agent` has {given}; one names the key"));
        return None;
    }
    let key = keys.pop().map(|(_, key)| key);
    good.then_some(Auth::SshAgent { socket, key })
}

/// What names a key of an agent, or what is wrong with it and what would be right.
fn agent_key(kind: &str, text: &str) -> Result<AgentKey, (String, &'static str)> {
    match kind {
        "public_key" => {
            let mut words = text.split_whitespace();
            let form = ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| text.starts_with(kind));
            match (words.next(), words.next()) {
                (Some(kind), Some(base64)) if form => {
                    Ok(AgentKey::Public(format!("{kind} {base64}")))
                }
                _ => Err((
                    "`public_key` is not a public key".to_owned(),
                    "write what the `.pub` file holds: `ssh-ed25519 AAAA…`",
                )),
            }
        }
        "fingerprint" => match fingerprint(text) {
            Some(fingerprint) => Ok(AgentKey::Fingerprint(fingerprint)),
            None => Err((
                format!("{} is not a fingerprint `SHA256:…` of 43 characters", quoted(text)),
                "`ssh-add -l` prints those of the agent's keys",
            )),
        },
        _ => Ok(AgentKey::Comment(text.to_owned())),
    }
}

/// A fingerprint as `ssh-keygen -l` shows it.
pub(super) fn fingerprint(text: &str) -> Option<String> {
    let digest = text.strip_prefix("SHA256:")?.trim_end_matches('=');
    let valid = digest.len() == 43
        && digest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/');
    valid.then(|| format!("SHA256:{digest}"))
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
