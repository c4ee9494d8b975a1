//! `proxy` and `proxy_auth`: the way to a host.

use std::path::Path;

use crate::hosts::{Password, ProxyRule, Route};
use crate::manifest::auth::variable;
use crate::manifest::fields::{Fields, Findings, Keys, boolean};
use crate::manifest::source::Authority;
use crate::yaml::{Node, Position};

const AUTH: Keys = Keys { first: &[], second: &["user", "password_env", "password_file"] };

const FORM: &str = "write `http://host:port`, `http://user@host:port`, or `none`";
const NO_PASSWORD: &str =
    "the password is given by reference: `proxy_auth: {password_file: /etc/multideployer/proxy}`";

/// Takes both keys. Paths are relative to `directory`; `prefix` is the entry's own.
pub(super) fn take(
    fields: &mut Fields<'_>,
    prefix: &str,
    directory: &Path,
    findings: &mut Findings,
) -> Option<Route> {
    let proxy = fields.take("proxy").filter(|node| !node.is_null());
    let auth = fields.take("proxy_auth").filter(|node| !node.is_null());
    let login = auth.map(|node| (login(node, directory, findings), node.at));
    let Some(node) = proxy else {
        if let Some((_, at)) = login {
            findings.error(Some(at), "`proxy_auth` stands without `proxy`").hint =
                Some(FORM.into());
        }
        return None;
    };
    if node.text() == Some("none") || boolean(node) == Some(false) {
        if let Some((_, at)) = login {
            findings.error(Some(at), "`proxy_auth` stands beside a `proxy` that is none");
        }
        return Some(Route::Direct);
    }
    let (authority, user) = address(node, findings)?;
    let Some(port) = authority.port else {
        findings.error(Some(node.at), "`proxy` does not say the port").hint = Some(FORM.into());
        return None;
    };
    let (user, password) = match login {
        None => (user, None),
        Some((login, at)) => {
            let (own, password) = login?;
            match (user, own) {
                (Some(_), Some(_)) => {
                    findings.error(Some(at), "the user stands in `proxy` already");
                    return None;
                }
                (None, None) => {
                    findings.error(Some(at), "`proxy_auth` has a password and no `user`");
                    return None;
                }
                (user, own) => (user.or(own), password),
            }
        }
    };
    let host = authority.host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some(Route::Proxy(ProxyRule { prefix: prefix.to_owned(), host, port, user, password }))
}

/// The proxy's place, and the user that stands before it. The text is not repeated in
/// messages: it may hold a password.
fn address(node: &Node, findings: &mut Findings) -> Option<(Authority, Option<String>)> {
    let text = findings.text(node, "proxy")?;
    let at: Option<Position> = Some(node.at);
    let mut failed = |message: String, hint: &str| {
        findings.error(at, message).hint = Some(hint.to_owned());
    };
    let Some((scheme, rest)) = text.split_once("://") else {
        failed("`proxy` is no URL".into(), FORM);
        return None;
    };
    if scheme != "http" {
        let known = ["https", "socks4", "socks4a", "socks5", "socks5h"];
        let scheme = known.into_iter().find(|known| *known == scheme);
        let scheme =
            scheme.map_or_else(String::new, |scheme| format!(" of the kind `{scheme}://`"));
        failed(format!("a `proxy`{scheme} is not supported, only `http://`"), FORM);
        return None;
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, rest),
    };
    if user.is_some_and(|user| user.contains(':')) {
        failed("`proxy` holds a password".into(), NO_PASSWORD);
        return None;
    }
    if user.is_some_and(|user| user.is_empty() || user.contains(['/', '%', '?', '#'])) {
        failed(
            "the user in `proxy` is empty, or has characters of a URL in it".into(),
            "give it as `proxy_auth: {user: …}`",
        );
        return None;
    }
    match Authority::parse(place) {
        Ok(authority) => Some((authority, user.map(str::to_owned))),
        Err(reason) => {
            failed(format!("`proxy`: {reason}"), FORM);
            None
        }
    }
}

type Login = (Option<String>, Option<Password>);

fn login(node: &Node, directory: &Path, findings: &mut Findings) -> Option<Login> {
    let mut fields = Fields::of(node, "`proxy_auth`", findings)?;
    let user = findings.take_text(&mut fields, "user");
    let by_env = fields.take("password_env").filter(|node| !node.is_null());
    let by_file = fields.take("password_file").filter(|node| !node.is_null());
    fields.finish(AUTH, findings);
    if let Some((text, at)) = user
        && text.contains(':')
    {
        findings.error(Some(at), "`user` contains a colon, which no user name may").hint =
            Some(NO_PASSWORD.into());
        return None;
    }
    let password = match (by_env, by_file) {
        (Some(node), None) => Password::Env(variable(node, "password_env", findings)?),
        (None, Some(node)) => Password::File(findings.path(node, "password_file", directory)?),
        (None, None) => {
            findings.error(Some(node.at), "`proxy_auth` does not say where the password is").hint =
                Some("use one of `password_env` and `password_file`".into());
            return None;
        }
        (Some(_), Some(_)) => {
            findings.error(
                Some(node.at),
                "`proxy_auth` has `password_env` and `password_file`; it must have one of them",
            );
            return None;
        }
    };
    Some((user.map(|(text, _)| text.to_owned()), Some(password)))
}
