//! Through a web proxy, over HTTPS and SSH, and what proxies answer instead.

use std::fs;
use std::net::TcpListener;

use multideployer::domain::RepoUrl;
use multideployer::mirror::{Failure, Proxy, Remote, Trust};

use crate::support::https::GitHttps;
use crate::support::keys::{KeyPair, Kind};
use crate::support::proxy::ConnectProxy;
use crate::support::sshd::{GitSshd, Options};
use crate::support::tls::{Authority, NAME};
use crate::support::upstream::Upstream;
use crate::{fetch, key, mirror_in, remote, text, through};

struct Bed {
    dir: tempfile::TempDir,
    commit: String,
    server: GitHttps,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let upstream = Upstream::new(dir.path().join("srv"), "acme/api.git");
        let commit = upstream.commit(&[("a", "1")]);
        fs::write(dir.path().join("ca.pem"), Authority::shared().pem()).expect("the CA");
        let server = GitHttps::start(dir.path().join("srv"));
        Self { dir, commit, server }
    }

    fn way(&self, proxy: Proxy) -> Remote {
        let url = RepoUrl::Https { authority: NAME.into(), path: "acme/api.git".into() };
        let ca_file = Some(self.dir.path().join("ca.pem"));
        let trust = Trust { ca_file, ..Trust::default() };
        Remote { trust, proxy: Some(proxy), ..remote(url) }
    }

    fn failure(&self, proxy: Proxy) -> Failure {
        let (mut mirror, _) = mirror_in(self.dir.path());
        let failure = fetch(&mut mirror, &self.commit, &self.way(proxy)).expect_err("no way");
        let shown = text(&failure);
        assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVyMg"), "{shown}");
        failure
    }
}

#[test]
fn a_tunnel_to_a_name_that_only_the_proxy_knows_in_both_ways_of_fetching() {
    let bed = Bed::new();
    let name = format!("{NAME}:443");
    let proxy = ConnectProxy::start_with(&[(&name, &bed.server.authority())], Some("u@x:p:w/#%"));
    for plain in [false, true] {
        let way = Remote { plain, ..bed.way(through(&proxy, Some("u@x:p:w/#%"))) };
        let (mut mirror, _) = mirror_in(&bed.dir.path().join(plain.to_string()));
        fetch(&mut mirror, &bed.commit, &way).expect("through the proxy");
    }
    let tunnels = proxy.tunnels();
    // libgit2 shows the password only when it is asked for one.
    let good = |status: u16, authorized: bool| status == 200 || (status == 407 && !authorized);
    assert!(
        tunnels.iter().all(|one| one.target == name && good(one.status, one.authorized)),
        "{tunnels:?}"
    );
}

#[test]
fn ssh_goes_through_the_proxy_of_its_host() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path().join("srv"), "acme/api.git");
    let commit = upstream.commit(&[("a", "1")]);
    let pair = KeyPair::new(dir.path(), "client", Kind::Ed25519);
    let sshd = GitSshd::start_with(
        dir.path().join("srv"),
        std::slice::from_ref(&pair),
        &Options::default(),
    );
    let known = dir.path().join("known_hosts");
    let line = sshd.known_hosts();
    let (_, key_of_host) = line.split_once(' ').expect("a line");
    fs::write(&known, format!("{NAME} {key_of_host}")).expect("known hosts");
    let real = format!("127.0.0.1:{}", sshd.port());
    let proxy = ConnectProxy::start_with(&[(&format!("{NAME}:22"), &real)], Some("u:p"));
    let url = RepoUrl::Ssh {
        user: GitSshd::user(),
        host: NAME.into(),
        port: 22,
        path: "/acme/api.git".into(),
    };
    let mut way = Remote {
        credential: Some(key(&pair)),
        trust: Trust { known_hosts_file: Some(known), ..Trust::default() },
        proxy: Some(through(&proxy, Some("u:p"))),
        ..remote(url)
    };
    let (mut mirror, _) = mirror_in(dir.path());
    fetch(&mut mirror, &commit, &way).expect("through the proxy");
    assert_eq!(proxy.tunnels().len(), 1);
    way.plain = true;
    let failure = fetch(&mut mirror, &"1".repeat(40), &way).expect_err("libgit2 cannot");
    assert!(matches!(failure, Failure::ProxyUnusable { .. }), "{failure}");
    assert!(text(&failure).contains("`https_proxy`"), "{failure}");
}

#[test]
fn what_a_proxy_answers_instead_is_told_with_where_the_proxy_was_set() {
    let bed = Bed::new();
    let page = "<html><head><title>Access\ndenied</title></head>hunt</html>";
    let html = |status: &str| {
        let length = page.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{page}"
        )
    };
    let wanted = |way: &str| {
        format!("HTTP/1.1 407 Auth\r\nProxy-Authenticate: {way}\r\nContent-Length: 0\r\n\r\n")
    };
    // User and password as it was sent them.
    let repeats = "HTTP/1.1 403 No\r\nContent-Length: 31\r\n\r\nyou are u:hunter2, dTpodW50ZXIy";
    for (answer, login, words, tries) in [
        (html("200 OK"), None, vec!["web page", "it says: Access"], 1),
        (html("502 Bad Gateway"), None, vec!["502", "it says: Access"], 3),
        (html("503 Busy"), None, vec!["503"], 3),
        (html("403 Forbidden"), None, vec!["403", "it says: Access", "allow CONNECT"], 1),
        (wanted("Basic realm=x"), None, vec!["407", "wants a user", "`proxy_auth`"], 1),
        (wanted("Basic realm=x"), Some("u:hunter2"), vec!["407", "refuses the user"], 1),
        (repeats.to_owned(), Some("u:hunter2"), vec!["403", "you are u:[secret], [secret]"], 1),
        (wanted("NTLM"), None, vec!["407", "by NTLM", "only Basic"], 1),
        ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), None, vec!["not HTTP: SSH-2.0-OpenSSH"], 3),
        (String::new(), None, vec!["without an answer"], 3),
    ] {
        let proxy = ConnectProxy::start_answering(&answer);
        let failure = bed.failure(through(&proxy, login));
        assert!(matches!(failure, Failure::Proxy(_)), "{failure}");
        let shown = text(&failure);
        assert!(!shown.contains("hunter2"), "{shown}");
        let place = format!("127.0.0.1:{}", proxy.port());
        for word in words.into_iter().chain([place.as_str(), "`https_proxy`", NAME]) {
            assert!(shown.contains(word), "{word} is not in {shown}");
        }
        assert_eq!(proxy.tunnels().len(), tries, "{shown}");
        assert_eq!(bed.server.connections(), 0);
    }
}

#[test]
fn a_proxy_that_is_not_there_is_not_taken_for_the_server() {
    let bed = Bed::new();
    let port = {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        listener.local_addr().expect("its address").port()
    };
    let origin = "`proxy` of `git.example.test` in the manifest".to_owned();
    let mut proxy = Proxy { host: "127.0.0.1".into(), port, login: None, origin };
    let failure = bed.failure(proxy.clone());
    assert!(matches!(failure, Failure::Proxy(_)), "{failure}");
    assert!(failure.to_string().contains("in the manifest"), "{failure}");
    proxy.host = "no such host".into();
    let failure = bed.failure(proxy);
    assert!(failure.to_string().contains("its name is not found"), "{failure}");
}
