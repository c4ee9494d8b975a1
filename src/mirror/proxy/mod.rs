//! The web proxy between this host and a server: as `proxy` in the manifest says, else as
//! `https_proxy` and `no_proxy` do.
//!
//! Only plain HTTP proxies that tunnel (`CONNECT`), with Basic as the way to log in; others
//! are refused by name. The server's certificate or host key is checked through the tunnel:
//! a proxy is not trusted with anything but its own password.

mod exceptions;
pub(super) mod tunnel;

use std::path::Path;

use super::dial::{bracketed, split};
use super::failure::{Failure, Step, harmless};
use crate::domain::{RepoUrl, Secret};
use crate::error::{self, ExitCode};
use crate::hosts::{Password, Route};

const PROXIES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
const EXCEPTIONS: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// A proxy, and what it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its host, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User and password.
    pub login: Option<(String, Secret)>,
    /// Where it was set: "the variable `https_proxy`".
    pub origin: String,
}

/// A proxy that was set and cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the URL of a proxy. It is not shown: it may hold a password.
    #[error("{origin} does not name a proxy that can be used: {problem}")]
    Url {
        /// Where it was set.
        origin: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Its password could not be had.
    #[error("the password for {origin} is {problem}")]
    Password {
        /// Where it was set.
        origin: String,
        /// What is wrong with it, and where it was looked for.
        problem: String,
    },
}

impl From<Error> for error::Failure {
    fn from(error: Error) -> Self {
        let hint = match &error {
            Error::Url { .. } => {
                "write `http://host:port`, with `user:password@` before the host if it wants that"
            }
            Error::Password { .. } => {
                "set the variable where multideployer is started, or put the password into a file that only this user can read"
            }
        };
        Self::from_error(ExitCode::Configuration, &error).hint(hint)
    }
}

/// What setting a proxy may use of the world.
pub struct World<'a> {
    /// The environment of this process.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a file with a secret in it; the error says what is wrong with it.
    pub read: &'a dyn Fn(&Path) -> Result<String, String>,
}

/// The proxy for a repository, if there is one.
///
/// What the manifest says comes first, and counts for SSH too. Else, for HTTPS alone,
/// `https_proxy` counts before `all_proxy`, and lower case before upper case, as with curl,
/// unless `no_proxy` excepts the host.
///
/// # Errors
/// See [`Error`].
pub fn route(
    url: &RepoUrl,
    set: Option<&Route>,
    world: &World<'_>,
) -> Result<Option<Proxy>, Error> {
    match (set, url) {
        // The variables are not for SSH with git either.
        (_, RepoUrl::File(_)) | (Some(Route::Direct), _) | (None, RepoUrl::Ssh { .. }) => Ok(None),
        (Some(Route::Proxy(rule)), _) => {
            let origin = format!("`proxy` of `{}` in the manifest", rule.prefix);
            let login = match (&rule.user, &rule.password) {
                (Some(user), Some(password)) => {
                    Some((user.clone(), secret(password, &origin, world)?))
                }
                (Some(user), None) => Some((user.clone(), Secret::new(String::new()))),
                (None, _) => None,
            };
            let (host, port) = (rule.host.clone(), rule.port);
            Ok(Some(Proxy { host, port, login, origin }))
        }
        (None, RepoUrl::Https { .. }) => from_environment(url, world.variable),
    }
}

fn secret(password: &Password, origin: &str, world: &World<'_>) -> Result<Secret, Error> {
    let failed = |problem: String| Error::Password { origin: origin.to_owned(), problem };
    let (text, place) = match password {
        Password::Env(name) => {
            let text = (world.variable)(name)
                .ok_or_else(|| failed(format!("not in the variable `{name}`, which is not set")))?;
            (text, format!("the variable `{name}`"))
        }
        Password::File(path) => {
            let text = (world.read)(path)
                .map_err(|why| failed(format!("not to be had from `{}`: {why}", path.display())))?;
            (text, format!("`{}`", path.display()))
        }
    };
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() || text.chars().any(char::is_control) {
        let problem = if text.is_empty() { "empty" } else { "not on one line" };
        return Err(failed(format!("{problem} in {place}")));
    }
    Ok(Secret::new(text.to_owned()))
}

/// The proxy that the variables name for a repository, as [`route`] reads them.
///
/// # Errors
/// [`Error::Url`].
pub fn from_environment(
    url: &RepoUrl,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, Error> {
    let RepoUrl::Https { authority, .. } = url else { return Ok(None) };
    let Some((name, text)) = first(&PROXIES, variable) else { return Ok(None) };
    let (host, port) = split(authority, 443);
    let (_, list) = first(&EXCEPTIONS, variable).unwrap_or_default();
    if exceptions::hold(&list, host, port) {
        return Ok(None);
    }
    let origin = format!("the variable `{name}`");
    parse(text.trim(), &origin).map(Some)
}

/// The variable that names a proxy for repositories such as this, exceptions aside.
pub fn variable_of(
    url: &RepoUrl,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Option<&'static str> {
    let RepoUrl::Https { .. } = url else { return None };
    first(&PROXIES, variable).map(|(name, _)| name)
}

/// The first of these variables that holds anything.
fn first(
    names: &[&'static str],
    variable: &dyn Fn(&str) -> Option<String>,
) -> Option<(&'static str, String)> {
    let mut set = names.iter().filter_map(|name| Some((*name, variable(name)?)));
    set.find(|(_, text)| !text.trim().is_empty())
}

/// A proxy's URL as curl takes it: without a scheme it is `http://`, user and password may
/// be written with percent signs.
fn parse(text: &str, origin: &str) -> Result<Proxy, Error> {
    let failed = |problem: String| Error::Url { origin: origin.to_owned(), problem };
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    if !scheme.eq_ignore_ascii_case("http") {
        let scheme = harmless(scheme.as_bytes());
        return Err(failed(format!("`{scheme}://` proxies are not supported, only `http://`")));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, authority),
    };
    let login = user.map(|user| {
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        Some((percent_decoded(user)?, Secret::new(percent_decoded(password)?)))
    });
    let login = match login {
        None => None,
        Some(Some(login)) => Some(login),
        Some(None) => {
            return Err(failed("user and password are not UTF-8 text on one line".into()));
        }
    };
    // curl's port for proxies that do not say theirs.
    let (host, port) = split(place, 1080);
    let plausible = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
    let known = place.rsplit_once(':').is_none_or(|(_, digits)| {
        digits.ends_with(']') || digits.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if host.is_empty() || !host.chars().all(plausible) || !known {
        return Err(failed("it is no `http://host:port`".into()));
    }
    Ok(Proxy { host: host.to_owned(), port, login, origin: origin.to_owned() })
}

/// `None` if that is no text, or holds control characters.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match code.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

impl Proxy {
    /// Host and port, which may be shown.
    pub fn shown(&self) -> String {
        format!("{}:{}", bracketed(&self.host), self.port)
    }

    /// A URL with user and password, for others' clients; never for an argument or a message.
    pub(crate) fn with_secrets(&self) -> Secret {
        let encoded = |text: &str| {
            text.bytes().fold(String::new(), |done, byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    done + &char::from(byte).to_string()
                }
                _ => done + &format!("%{byte:02X}"),
            })
        };
        let login = self.login.as_ref().map_or_else(String::new, |(user, password)| {
            format!("{}:{}@", encoded(user), encoded(password.expose()))
        });
        Secret::new(format!("http://{login}{}", self.shown()))
    }

    /// What it means that it could not be connected to.
    pub(super) fn not_reached(&self, failure: Failure, host: &str, port: u16) -> Failure {
        let problem = match failure {
            Failure::NameLookup { reason, passing, .. } => {
                Problem::Unreachable { reason: format!("its name is not found: {reason}"), passing }
            }
            Failure::Unreachable { reason, .. } => Problem::Unreachable { reason, passing: true },
            Failure::Timeout { step: Step::Connect, limit, .. } => Problem::Unreachable {
                reason: format!("no connection within {} s", limit.as_secs_f32()),
                passing: true,
            },
            other => return other,
        };
        self.failure(problem, host, port)
    }

    /// A failure of this proxy.
    pub(super) fn failure(&self, problem: Problem, host: &str, port: u16) -> Failure {
        Failure::Proxy(Box::new(Refusal {
            proxy: self.shown(),
            origin: self.origin.clone(),
            target: format!("{}:{port}", bracketed(host)),
            problem,
        }))
    }
}

/// A proxy that does not let us through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its host and port.
    pub proxy: String,
    /// Where it was set.
    pub origin: String,
    /// Host and port of the server behind it.
    pub target: String,
    /// Why.
    pub problem: Problem,
}

impl Refusal {
    /// What to do next.
    pub(super) fn hint(&self) -> String {
        match &self.problem {
            Problem::LoginMissing(_) => format!(
                "give the proxy's user and password (`proxy_auth` beside `proxy` in the manifest, or in {})",
                self.origin
            ),
            Problem::LoginRefused(_) => {
                format!("check the user and the password of {}", self.origin)
            }
            Problem::Status { status: 403 | 405, .. } => {
                format!(
                    "have the proxy allow CONNECT to `{}`, or go without it: `proxy: none`, no_proxy",
                    self.target
                )
            }
            Problem::Unreachable { .. } => format!("check {}, and the network", self.origin),
            Problem::Status { .. } | Problem::Page(_) | Problem::Broken(_) => {
                format!(
                    "check {}, the proxy's health, and that it knows `{}`",
                    self.origin, self.target
                )
            }
        }
    }
}

/// Why a proxy does not let us through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No connection to it.
    #[error("{reason}")]
    Unreachable {
        /// Why.
        reason: String,
        /// Whether that may pass.
        passing: bool,
    },
    /// 407, and there was nothing to show it.
    #[error("HTTP status 407, it wants a user and a password{}", ways(.0))]
    LoginMissing(
        /// The ways to log in that it knows.
        Vec<String>,
    ),
    /// 407, after user and password were shown.
    #[error("HTTP status 407, it refuses the user and password that it was given{}", ways(.0))]
    LoginRefused(
        /// The ways to log in that it knows.
        Vec<String>,
    ),
    /// Another status.
    #[error("HTTP status {status}{}", text(.says))]
    Status {
        /// The status.
        status: u16,
        /// What it says about it.
        says: String,
    },
    /// It answers with a page instead of a tunnel.
    #[error("it answers with a web page instead of a tunnel{}", text(.0))]
    Page(
        /// Its beginning.
        String,
    ),
    /// It ended the connection, or was not understood.
    #[error("{0}")]
    Broken(
        /// How.
        String,
    ),
}

fn text(says: &str) -> String {
    if says.is_empty() { String::new() } else { format!(" (it says: {says})") }
}

/// Only Basic is spoken here.
fn ways(known: &[String]) -> String {
    if known.is_empty() || known.iter().any(|way| way.eq_ignore_ascii_case("basic")) {
        return String::new();
    }
    format!(" by {}, and only Basic is supported", known.join(" or "))
}

impl Problem {
    /// Whether it may pass by itself.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { passing, .. } => *passing,
            Self::Status { status, .. } => matches!(status, 429 | 502..=504),
            Self::Broken(_) => true,
            Self::LoginMissing(_) | Self::LoginRefused(_) | Self::Page(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
