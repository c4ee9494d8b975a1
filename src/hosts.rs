//! What is known about each git server: which credential it gets, which certificate
//! authority and which host keys it is trusted by. Only references to secrets here,
//! never secrets (but for the one that came by flag or variable).

use std::path::{Path, PathBuf};

use crate::domain::{RepoUrl, Secret};

/// How to prove to a server who we are. Each is offered once, and only to what it is
/// bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// Anonymous.
    None,
    /// A token that was given by flag or variable.
    Given {
        /// The token.
        token: Secret,
        /// Where it came from, for messages: "`-g`", "`MULTIDEPLOYER_GITHUB_TOKEN`".
        origin: &'static str,
    },
    /// A token in an environment variable of this process.
    TokenEnv(String),
    /// A token in a file.
    TokenFile(PathBuf),
    /// A token printed by a command.
    TokenCommand(Vec<String>),
    /// A token of a GitHub App's installation, asked for with the App's private key.
    GithubApp(GithubApp),
    /// What a credential helper of git answers: its program and arguments.
    CredentialHelper(Vec<String>),
    /// A private key for SSH.
    SshKey {
        /// Where it is.
        key: KeyPlace,
        /// Where the passphrase is that it is encrypted with.
        passphrase: Option<SecretPlace>,
    },
    /// The keys of an ssh-agent.
    SshAgent {
        /// Its socket; what `SSH_AUTH_SOCK` names unless given.
        socket: Option<PathBuf>,
        /// The one key to offer; else the agent's keys in its order.
        key: Option<AgentKey>,
    },
}

/// Where a private key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlace {
    /// In a file.
    File(PathBuf),
    /// A program and its arguments print it.
    Command(Vec<String>),
}

/// Where a secret is that is one line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretPlace {
    /// In an environment variable of this process.
    Env(String),
    /// In a file.
    File(PathBuf),
    /// A program and its arguments print it.
    Command(Vec<String>),
}

/// What a key in an agent is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentKey {
    /// The public key, as its file has it: kind and base64.
    Public(String),
    /// `SHA256:…`.
    Fingerprint(String),
    /// The comment the agent shows it with.
    Comment(String),
}

/// A GitHub App, and which of its installations.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GithubApp {
    /// Its client id (`Iv23li…`) or its app id (digits); GitHub takes either.
    pub id: String,
    /// Its private key, in PEM format.
    pub private_key_file: PathBuf,
    /// The installation; it is looked up unless given.
    pub installation_id: Option<u64>,
    /// The account it is installed on; the repository's owner unless given.
    pub owner: Option<String>,
    /// Where the API is, `https://host[:port][/path]`, unless it is where GitHub has it.
    pub api_url: Option<String>,
}

impl Auth {
    /// Its kind and its place in words that go into a sentence, never its value: "the token in
    /// `/etc/multideployer/token`".
    pub fn describe(&self) -> String {
        match self {
            Self::None => "an anonymous visitor".to_owned(),
            Self::Given { origin, .. } => format!("the token of {origin}"),
            Self::TokenEnv(name) => format!("the token in the variable `{name}`"),
            Self::TokenFile(path) => format!("the token in `{}`", path.display()),
            Self::TokenCommand(words) => format!("the token of the command {}", program(words)),
            Self::GithubApp(app) => format!("the token of the GitHub App `{}`", app.id),
            Self::CredentialHelper(words) => {
                format!("the credential of the helper {}", program(words))
            }
            Self::SshKey { key: KeyPlace::File(path), .. } => {
                format!("the key `{}`", path.display())
            }
            Self::SshKey { key: KeyPlace::Command(words), .. } => {
                format!("the key of the command {}", program(words))
            }
            Self::SshAgent { socket: Some(path), .. } => {
                format!("the ssh-agent at `{}`", path.display())
            }
            Self::SshAgent { socket: None, .. } => "the ssh-agent of `SSH_AUTH_SOCK`".to_owned(),
        }
    }

    /// Whether it was given for repositories such as this. What the manifest binds to a host
    /// or repository is; a token of flag or variable is one for HTTPS alone.
    fn is_meant_for(&self, url: &RepoUrl) -> bool {
        match self {
            Self::Given { .. } => matches!(url, RepoUrl::Https { .. }),
            _ => true,
        }
    }

    /// The files that a secret of it is read from.
    pub fn secret_files(&self) -> Vec<&Path> {
        match self {
            Self::TokenFile(path) => vec![path],
            Self::GithubApp(app) => vec![&app.private_key_file],
            Self::SshKey { key, passphrase } => {
                let mut files: Vec<&Path> = Vec::new();
                if let KeyPlace::File(path) = key {
                    files.push(path);
                }
                if let Some(SecretPlace::File(path)) = passphrase {
                    files.push(path);
                }
                files
            }
            Self::None
            | Self::Given { .. }
            | Self::TokenEnv(_)
            | Self::TokenCommand(_)
            | Self::CredentialHelper(_)
            | Self::SshAgent { .. } => Vec::new(),
        }
    }

    /// The variables of our own environment that hold a secret of it: no child may see them.
    pub fn secret_variables(&self) -> Vec<&str> {
        match self {
            Self::TokenEnv(name)
            | Self::SshKey { passphrase: Some(SecretPlace::Env(name)), .. } => vec![name],
            // Whoever may talk to the agent may log in with its keys.
            Self::SshAgent { .. } => vec!["SSH_AUTH_SOCK"],
            Self::None
            | Self::Given { .. }
            | Self::TokenFile(_)
            | Self::TokenCommand(_)
            | Self::GithubApp(_)
            | Self::CredentialHelper(_)
            | Self::SshKey { .. } => Vec::new(),
        }
    }
}

/// A command's program, without its arguments.
fn program(words: &[String]) -> String {
    format!("`{}`", words.first().map_or("", String::as_str))
}

/// The way to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Without a proxy, whatever the environment says.
    Direct,
    /// Through a proxy.
    Proxy(ProxyRule),
}

/// A web proxy that tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyRule {
    /// The entry it stands in, for messages.
    pub prefix: String,
    /// Its host, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The user it knows us as.
    pub user: Option<String>,
    /// Where that user's password is.
    pub password: Option<Password>,
}

/// Where a password is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    /// In an environment variable of this process.
    Env(String),
    /// In a file.
    File(PathBuf),
}

/// One entry of `hosts` in the manifest. A key that is absent here is taken from the
/// next shorter prefix that has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostRule {
    /// `host[:port][/path]`, host in lower case, no trailing `/`.
    pub prefix: String,
    /// The credential.
    pub auth: Option<Auth>,
    /// The user name that goes with it; `x-access-token` for tokens unless given.
    pub username: Option<String>,
    /// Certificate authorities (PEM) trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Fingerprints (`SHA256:…`) of the server's SSH host keys; nothing else is
    /// accepted then.
    pub host_keys: Option<Vec<String>>,
    /// A file in the format of OpenSSH's `known_hosts`, read instead of the usual ones.
    pub known_hosts_file: Option<PathBuf>,
    /// The way to it; what the environment says if absent.
    pub proxy: Option<Route>,
}

/// All entries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hosts(Vec<HostRule>);

impl Hosts {
    /// Takes the entries in any order.
    pub fn new(mut rules: Vec<HostRule>) -> Self {
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.prefix.len()));
        Self(rules)
    }

    /// What holds for a repository: key by key, the longest prefix that has it.
    /// The result's prefix is that of the entry the credential came from, else of the
    /// longest that matched, else empty.
    pub fn rule_for(&self, url: &RepoUrl) -> HostRule {
        let mut found = HostRule::default();
        let bindings = bindings(url);
        let covers = |rule: &&HostRule| bindings.iter().any(|place| matches(&rule.prefix, place));
        for rule in self.0.iter().filter(covers) {
            let auth = rule.auth.as_ref().filter(|auth| auth.is_meant_for(url));
            if found.prefix.is_empty() || (found.auth.is_none() && auth.is_some()) {
                found.prefix.clone_from(&rule.prefix);
            }
            found.auth = found.auth.or_else(|| auth.cloned());
            found.username = found.username.or_else(|| rule.username.clone());
            found.ca_file = found.ca_file.or_else(|| rule.ca_file.clone());
            found.host_keys = found.host_keys.or_else(|| rule.host_keys.clone());
            found.known_hosts_file =
                found.known_hosts_file.or_else(|| rule.known_hosts_file.clone());
            found.proxy = found.proxy.or_else(|| rule.proxy.clone());
        }
        found
    }

    /// These entries, and those of `other` for what they do not say.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        // The sort is stable: of two entries for one prefix, ours is asked first.
        Self::new(self.0.into_iter().chain(other.0).collect())
    }

    /// The variables of our own environment that hold a secret: no child may see them.
    pub fn secret_variables(&self) -> impl Iterator<Item = &str> {
        let credentials = self.0.iter().filter_map(|rule| rule.auth.as_ref());
        let proxies = self.0.iter().filter_map(|rule| match &rule.proxy {
            Some(Route::Proxy(ProxyRule { password: Some(Password::Env(name)), .. })) => {
                Some(name.as_str())
            }
            _ => None,
        });
        credentials.flat_map(Auth::secret_variables).chain(proxies)
    }

    /// The entries, longest prefix first.
    pub fn rules(&self) -> &[HostRule] {
        &self.0
    }
}

/// What a repository is known by in the prefixes: none if it is on this host. An entry may be
/// for `host:443`, which is `host` for HTTPS.
fn bindings(url: &RepoUrl) -> Vec<String> {
    let with_port = match url {
        RepoUrl::Https { authority, path }
            if !authority.trim_end_matches(char::is_numeric).ends_with(':') =>
        {
            Some(format!("{authority}:443/{path}"))
        }
        _ => None,
    };
    url.binding().into_iter().chain(with_port).collect()
}

/// Whether `prefix` covers `binding` (`host[:port]/path`): whole path segments only,
/// and `acme/secret` covers `acme/secret.git` too.
fn matches(prefix: &str, binding: &str) -> bool {
    binding
        .strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest == ".git")
        || prefix.strip_suffix(".git") == Some(binding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn https(authority: &str, path: &str) -> RepoUrl {
        RepoUrl::Https { authority: authority.into(), path: path.into() }
    }

    fn rule(prefix: &str, auth: Option<Auth>, ca: Option<&str>) -> HostRule {
        HostRule {
            prefix: prefix.into(),
            auth,
            ca_file: ca.map(PathBuf::from),
            ..HostRule::default()
        }
    }

    #[test]
    fn the_longest_prefix_wins_key_by_key() {
        let hosts = Hosts::new(vec![
            rule("git.example.com", Some(Auth::TokenEnv("A".into())), Some("/ca")),
            rule("git.example.com/acme/secret.git", Some(Auth::None), None),
        ]);
        let secret = hosts.rule_for(&https("git.example.com", "acme/secret.git"));
        assert_eq!(secret.auth, Some(Auth::None));
        assert_eq!(secret.ca_file, Some("/ca".into()));
        let other = hosts.rule_for(&https("git.example.com", "acme/secrets.git"));
        assert_eq!(other.auth, Some(Auth::TokenEnv("A".into())));
        let foreign = hosts.rule_for(&https("git.example.com.evil.org", "acme/secret.git"));
        assert_eq!(foreign, HostRule::default());
        let machine = Hosts::new(vec![rule("git.example.com", Some(Auth::None), Some("/m"))]);
        let both = hosts.clone().or(machine).rule_for(&https("git.example.com", "acme/x.git"));
        assert_eq!(both.auth, Some(Auth::TokenEnv("A".into())), "ours first");
        let port = hosts.rule_for(&https("git.example.com:8443", "acme/x.git"));
        assert_eq!(port, HostRule::default());
    }

    #[test]
    fn an_entry_may_name_the_usual_port() {
        let auth = Some(Auth::TokenEnv("A".into()));
        let entries = ["git.example.com:443", "[::1]:443"];
        let hosts = Hosts::new(entries.map(|prefix| rule(prefix, auth.clone(), None)).into());
        for (authority, found) in [
            ("git.example.com", &auth),
            ("[::1]", &auth),
            ("git.example.com:8443", &None),
            ("git.example.com.evil.org", &None),
        ] {
            assert_eq!(&hosts.rule_for(&https(authority, "acme/x.git")).auth, found, "{authority}");
        }
    }
}
