//! The web proxy between this host and a server, as `https_proxy` and `no_proxy` say.

use super::Failure;
use crate::domain::{RepoUrl, Secret};

const PROXIES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
const EXCEPTIONS: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// The proxy for a repository, if there is one: a URL, which may hold a password.
///
/// `https_proxy` counts before `all_proxy`, and lower case before upper case, as with curl.
/// `no_proxy` holds hosts with or without port, domains (`.example.com` or `example.com`,
/// subdomains included), or `*`.
pub fn from_environment(
    url: &RepoUrl,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Option<Secret> {
    let RepoUrl::Https { authority, .. } = url else { return None };
    let (_, proxy) = first(&PROXIES, variable)?;
    let exceptions = first(&EXCEPTIONS, variable).map(|(_, text)| text).unwrap_or_default();
    let host = without_port(authority);
    let excepted = exceptions.split([',', ' ']).map(str::trim).any(|exception| {
        let exception = exception.to_ascii_lowercase();
        let domain = exception.trim_start_matches('.');
        exception == "*"
            || exception == *authority
            || (!domain.is_empty()
                && host
                    .strip_suffix(domain)
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    });
    (!excepted).then(|| Secret::new(proxy.trim().to_owned()))
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

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// A proxy's URL as the HTTP client wants it. `host` is the server behind it.
///
/// # Errors
/// [`Failure::Proxy`].
pub(super) fn parse(proxy: &Secret, host: &str) -> Result<ureq::Proxy, Failure> {
    ureq::Proxy::new(proxy.expose()).map_err(|_| Failure::Proxy {
        proxy: shown(proxy),
        host: host.to_owned(),
        reason: "its URL cannot be read".into(),
    })
}

/// Host and port of a proxy.
///
/// # Errors
/// [`Failure::Proxy`].
pub(super) fn address(proxy: &Secret, host: &str) -> Result<(String, u16), Failure> {
    let parsed = parse(proxy, host)?;
    Ok((parsed.host().to_owned(), parsed.port()))
}

/// Host and port of a proxy's URL, which may be shown.
pub(super) fn shown(proxy: &Secret) -> String {
    let rest = proxy.expose();
    let rest = rest.split_once("://").map_or(rest, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(host: &str, variables: &[(&str, &str)]) -> Option<String> {
        let url = RepoUrl::Https { authority: host.into(), path: "a/b".into() };
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        from_environment(&url, &variable).map(|proxy| proxy.expose().to_owned())
    }

    #[test]
    fn variables_and_exceptions() {
        let proxy = ("https_proxy", "http://u:p@proxy:3128");
        let through = Some("http://u:p@proxy:3128".to_owned());
        assert_eq!(chosen("git.example.com", &[]), None);
        assert_eq!(chosen("git.example.com", &[proxy, ("ALL_PROXY", "x")]), through);
        for (exceptions, direct) in [
            ("*", true),
            ("example.com", true),
            (".example.com", true),
            ("other, git.example.com", true),
            ("git.example.com:8443", true),
            ("ample.com", false),
            ("git.example.com:443", false),
            ("", false),
        ] {
            let found = chosen("git.example.com:8443", &[proxy, ("no_proxy", exceptions)]);
            assert_eq!(found.is_none(), direct, "{exceptions}");
        }
        let proxy = Secret::new("http://u:p@proxy:3128/".into());
        assert_eq!(shown(&proxy), "proxy:3128");
    }
}
