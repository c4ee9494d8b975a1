use super::*;
use crate::hosts::ProxyRule;

fn chosen(
    host: &str,
    set: Option<&Route>,
    variables: &[(&str, &str)],
) -> Result<Option<Proxy>, Error> {
    let url = RepoUrl::Https { authority: host.into(), path: "a/b".into() };
    let world = World {
        variable: &|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        },
        read: &|path| if path == Path::new("/pw") { Ok("p/w\n".into()) } else { Err("no".into()) },
    };
    route(&url, set, &world)
}

fn shown(proxy: Option<Proxy>) -> String {
    proxy.map_or_else(String::new, |proxy| {
        let login = proxy.login.as_ref().map(|(user, word)| format!("{user}:{}@", word.expose()));
        format!("{}{} by {}", login.unwrap_or_default(), proxy.shown(), proxy.origin)
    })
}

#[test]
fn variables_in_the_order_of_curl() {
    let one = ("https_proxy", "http://u:p%40w@proxy:3128/");
    let by_one = "u:p@w@proxy:3128 by the variable `https_proxy`";
    let get =
        |variables: &[(&str, &str)]| shown(chosen("git.example.com", None, variables).unwrap());
    assert_eq!(get(&[]), "");
    assert_eq!(get(&[("HTTPS_PROXY", "x:1"), ("ALL_PROXY", "y:1"), one]), by_one);
    assert_eq!(
        get(&[("HTTPS_PROXY", "x:1"), ("all_proxy", "y:1")]),
        "x:1 by the variable `HTTPS_PROXY`"
    );
    assert_eq!(
        get(&[("https_proxy", " "), ("all_proxy", "y")]),
        "y:1080 by the variable `all_proxy`"
    );
    assert_eq!(get(&[("http_proxy", "x:1")]), "", "it is for http://");
    assert_eq!(get(&[one, ("no_proxy", "example.com")]), "");
    assert_eq!(get(&[one, ("no_proxy", ""), ("NO_PROXY", "*")]), "");
    assert_eq!(get(&[("https_proxy", "[::1]:3128")]), "[::1]:3128 by the variable `https_proxy`");
}

#[test]
fn what_is_no_proxy_of_ours_is_refused_without_its_password() {
    for (url, word) in [
        ("https://u:hunter2@proxy:3128", "`https://` proxies"),
        ("socks5h://u:hunter2@proxy", "`socks5h://` proxies"),
        ("http://u:hunter2@", "http://host:port"),
        ("http://u:hunter2@pro xy:1", "http://host:port"),
        ("http://u:hunter2@proxy:many", "http://host:port"),
        ("http://u:hunter2@proxy:0", "http://host:port"),
        ("http://u:hunter2%0a@proxy:1", "one line"),
        ("u:hunter2", "http://host:port"),
    ] {
        let error = chosen("h", None, &[("https_proxy", url)]).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(word) && text.contains("`https_proxy`"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn the_manifest_comes_before_the_environment() {
    let variables = [("https_proxy", "x:1"), ("PW", "pw")];
    let get = |set: &Route| shown(chosen("h", Some(set), &variables).unwrap());
    assert_eq!(get(&Route::Direct), "");
    let rule = |password| {
        Route::Proxy(ProxyRule {
            prefix: "h/acme".into(),
            host: "proxy".into(),
            port: 3128,
            user: Some("u".into()),
            password,
        })
    };
    let by = "proxy:3128 by `proxy` of `h/acme` in the manifest";
    assert_eq!(get(&rule(Some(Password::Env("PW".into())))), format!("u:pw@{by}"));
    assert_eq!(get(&rule(Some(Password::File("/pw".into())))), format!("u:p/w@{by}"));
    for (password, place) in [
        (Password::Env("OTHER".into()), "the variable `OTHER`"),
        (Password::File("/other".into()), "`/other`: no"),
    ] {
        let error = chosen("h", Some(&rule(Some(password))), &variables).unwrap_err();
        assert!(error.to_string().contains(place), "{error}");
    }
}

#[test]
fn libgit2_gets_user_and_password_encoded() {
    let proxy = parse("http://u%3a:p%40%2F@proxy:1", "a test").unwrap();
    assert_eq!(proxy.with_secrets().expose(), "http://u%3A:p%40%2F@proxy:1");
    assert!(!format!("{proxy:?}").contains("p@"), "{proxy:?}");
}

#[test]
fn a_way_to_log_in_that_is_not_spoken_is_named() {
    let text = |ways: &[&str]| {
        Problem::LoginMissing(ways.iter().map(|way| (*way).to_owned()).collect()).to_string()
    };
    assert!(
        text(&["NTLM", "Negotiate"]).ends_with("by NTLM or Negotiate, and only Basic is supported")
    );
    assert!(text(&["NTLM", "basic"]).ends_with("a password"));
}
