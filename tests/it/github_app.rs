//! Tokens that a GitHub App gets for itself.

use openssl::rsa::Rsa;

use crate::support::github::{APP, CLIENT, Github, INSTALLATION};
use crate::support::host::TestHost;
use crate::support::https::{Fault, GitHttps};
use crate::support::proxy::ConnectProxy;
use crate::support::tls::{Authority, NAME};
use crate::support::upstream::Upstream;

/// A host, and five private applications behind a GitHub App.
struct Bed {
    host: TestHost,
    github: Github,
    releases: Vec<(String, String, String)>,
    ca: String,
    _root: tempfile::TempDir,
}

const APPS: [&str; 5] = ["one", "two", "three", "four", "five"];

impl Bed {
    /// The App is installed for these.
    fn new(installed: &[&str]) -> Self {
        let host = TestHost::new();
        let root = tempfile::tempdir().expect("a directory");
        let git = GitHttps::start(root.path());
        let releases = APPS
            .iter()
            .map(|app| {
                let upstream = Upstream::new(root.path(), &format!("acme/{app}.git"));
                let release = host.release(&upstream, app, "v1");
                ((*app).to_owned(), git.url(&format!("acme/{app}.git")), release)
            })
            .collect();
        let github = Github::new(git, installed);
        let ca = String::from_utf8(Authority::shared().pem()).expect("PEM is text");
        let ca = host.write("etc/ca.pem", &ca);
        host.secret("app.pem", &github.key);
        Self { host, github, releases, ca, _root: root }
    }

    /// The manifest with these keys of `github_app`, and the first so many applications.
    fn manifest(&mut self, keys: &str, apps: usize) {
        let key = self.host.text("secrets/app.pem");
        let auth = format!("{{github_app: {{{keys}, private_key_file: {key}}}}}");
        self.host.add_host(
            &self.github.git().authority(),
            &[("auth", auth.as_str()), ("ca_file", &self.ca)],
        );
        let apps: Vec<_> = self.releases[..apps]
            .iter()
            .map(|(app, source, release)| (app.as_str(), source.as_str(), release.as_str()))
            .collect();
        self.host.apps(&apps);
    }

    /// Key, proofs and tokens are nowhere on the host.
    fn assert_nowhere(&self) {
        let line = self.github.key.lines().nth(3).expect("a line of it").to_owned();
        let (proofs, tokens) = (self.github.proofs(), self.github.tokens());
        let all = proofs.iter().chain(&tokens).chain([&line]);
        self.host.assert_nowhere(&all.map(String::as_str).collect::<Vec<_>>());
    }
}

fn client() -> String {
    format!("client_id: {CLIENT}")
}

fn token_request() -> String {
    format!("POST /app/installations/{INSTALLATION}/access_tokens ")
}

#[test]
fn five_parallel_applications_share_one_token_that_may_do_nothing_else() {
    let mut bed = Bed::new(&["one", "two", "three", "four", "five", "other"]);
    bed.manifest(&client(), 5);
    bed.host.run(&["deploy", "-d", "--jobs", "5"]).ok();
    for (app, _, release) in &bed.releases {
        assert_eq!(bed.host.recorded(app, "deployed").as_ref(), Some(release), "{app}");
    }
    let asked = bed.github.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[0].starts_with("GET /repos/acme/"), "{asked:?}");
    let wish = asked[1].strip_prefix(&token_request()).expect("a request for a token");
    let wish: serde_json::Value = serde_json::from_str(wish).expect("JSON");
    let all = ["five", "four", "one", "three", "two"];
    let wanted = serde_json::json!({"permissions": {"contents": "read"}, "repositories": all});
    assert_eq!(wish, wanted);
    assert_eq!(bed.github.tokens().len(), 1);
    // With nothing to do nothing is asked.
    bed.host.deploy().ok();
    assert_eq!(bed.github.asked().len(), 2);
    bed.assert_nowhere();
}

#[test]
fn an_installation_that_is_given_is_not_looked_up() {
    let mut bed = Bed::new(&["one"]);
    bed.manifest(&format!("app_id: {APP}, installation_id: {INSTALLATION}"), 1);
    bed.host.deploy().ok();
    let asked = bed.github.asked();
    assert!(asked.len() == 1 && asked[0].starts_with(&token_request()), "{asked:?}");
}

#[test]
fn an_owner_that_is_given_has_the_installation() {
    let mut bed = Bed::new(&["one"]);
    bed.manifest(&format!("{}, owner: acme", client()), 1);
    bed.host.deploy().ok();
    assert_eq!(bed.github.asked()[0], "GET /orgs/acme/installation");
}

#[test]
fn the_api_may_be_elsewhere_and_neither_server_gets_what_is_the_others() {
    let mut bed = Bed::new(&["one"]);
    let elsewhere = GitHttps::start(bed.host.path("srv"));
    bed.github.serve_on(&elsewhere, "/github/api");
    let api = elsewhere.url_at("localhost", "github/api");
    bed.manifest(&format!("{}, api_url: \"{api}\"", client()), 1);
    bed.host.deploy().ok();
    let seen = elsewhere.requests();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(seen.iter().all(|request| request.path.starts_with("/github/api/")), "{seen:?}");
    let seen = bed.github.git().requests();
    assert!(seen.iter().all(|request| !request.path.contains("/api")), "{seen:?}");
    let token = &bed.github.tokens()[0];
    let shown = crate::support::https::hash_of("x-access-token", token);
    assert!(seen.iter().all(|r| r.authorization.as_ref() == Some(&shown)), "{seen:?}");
}

#[test]
fn a_clock_that_is_off_is_told_and_the_servers_is_used() {
    for (clock, words) in [(-900, "s ahead of the server's"), (900, "s behind the server's")] {
        let mut bed = Bed::new(&["one"]);
        bed.github.set_clock(clock);
        bed.manifest(&client(), 1);
        bed.host.deploy().ok().says(words).says("set the clock");
        assert_eq!(bed.github.tokens().len(), 1);
    }
    // What GitHub bears with needs no second try.
    for clock in [-50, 50] {
        let mut bed = Bed::new(&["one"]);
        bed.github.set_clock(clock);
        bed.manifest(&client(), 1);
        bed.host.deploy().ok();
        assert_eq!(bed.github.asked().len(), 2);
    }
}

#[test]
fn an_app_that_is_not_installed_there_says_what_to_do() {
    // One after the other: the installation is known when the second wants its token.
    for jobs in ["1", "4"] {
        let mut bed = Bed::new(&["one"]);
        bed.manifest(&client(), 2);
        bed.host
            .run(&["deploy", "--jobs", jobs])
            .code(3)
            .says(&format!("the GitHub App `{CLIENT}` is not installed on `acme/two`"))
            .says("an owner of `acme` installs the App");
        // The other got a token, for itself alone; and nobody asks for one for all.
        let asked = bed.github.asked();
        let tokens = || asked.iter().filter(|asked| asked.contains("access_tokens"));
        assert!(tokens().any(|asked| asked.contains("\"repositories\":[\"one\"]")), "{asked:?}");
        assert!(tokens().all(|asked| asked.contains("\"repositories\"")), "{asked:?}");
        assert_eq!(bed.host.installed("one"), "");
        bed.assert_nowhere();
    }
}

#[test]
fn a_key_of_another_app_is_refused_once_and_named() {
    let mut bed = Bed::new(&["one"]);
    let other = Rsa::generate(2048).expect("a key").private_key_to_pem().expect("PEM");
    bed.host.secret("app.pem", &String::from_utf8(other).expect("text"));
    bed.manifest(&client(), 1);
    bed.host
        .deploy()
        .code(3)
        .says(&format!("does not accept the GitHub App `{CLIENT}` with this key"))
        .says("the key was not deleted")
        .silent_about("clock");
    assert_eq!(bed.github.asked().len(), 1);
    bed.assert_nowhere();
    // An id that is nobody's and a clock that is off: both are told.
    let mut bed = Bed::new(&["one"]);
    bed.github.set_clock(7200);
    bed.manifest("app_id: 1", 1);
    bed.host.deploy().code(3).says("s behind the server's").says("set this host's clock");
    assert_eq!(bed.github.asked().len(), 2);
}

#[test]
fn a_key_file_that_is_none_is_refused_without_any_request() {
    for (key, words) in [
        ("", "is empty"),
        ("ghp_secret", "is not a private key in PEM format"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n", "is a key for SSH"),
    ] {
        let mut bed = Bed::new(&["one"]);
        bed.host.secret("app.pem", key);
        bed.manifest(&client(), 1);
        bed.host.deploy().code(3).says(words).says("secrets/app.pem").silent_about("ghp_secret");
        assert_eq!(bed.github.git().requests().len(), 0);
    }
    let mut bed = Bed::new(&["one"]);
    bed.manifest(&client(), 1);
    let path = bed.host.path("secrets/app.pem");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    bed.host.deploy().ok().says("can be read by others (mode 0644");
    std::fs::remove_file(&path).expect("it was there");
    let (app, _, _) = &bed.releases[0];
    std::fs::remove_dir_all(bed.host.mirror(app)).expect("it was there");
    bed.host.run(&["deploy", "-f"]).code(3).says("No such file").says("secrets/app.pem");
}

#[test]
fn a_suspended_installation_and_a_wrong_one_are_told_apart() {
    let mut bed = Bed::new(&["one"]);
    bed.github.suspend();
    bed.manifest(&client(), 1);
    bed.host.deploy().code(3).says("is suspended").says("an owner of `acme");
    let mut bed = Bed::new(&["one"]);
    bed.github.suspend();
    bed.manifest(&format!("{}, installation_id: {INSTALLATION}", client()), 1);
    bed.host.deploy().code(3).says("on `acme` is suspended");
    let mut bed = Bed::new(&["one"]);
    bed.manifest(&format!("{}, installation_id: 7", client()), 1);
    bed.host.deploy().code(3).says("has no installation 7").says("leave it out");
}

#[test]
fn the_proof_goes_to_no_other_host_and_what_passes_is_tried_again() {
    let mut bed = Bed::new(&["one"]);
    let other = GitHttps::start(bed.host.path("srv"));
    let there = other.url_at("localhost", "");
    bed.github.git().inject(Fault::redirect(307, &there).on("/api/v3").times(1));
    bed.manifest(&client(), 1);
    bed.host.deploy().code(3).says("redirects to").says("correct `api_url`");
    assert_eq!(other.connections(), 0);
    assert_eq!(bed.github.proofs().len(), 0);
    // On the same host it is followed, as for a repository that was renamed.
    let git = bed.github.git();
    git.repair();
    bed.github.serve_on(git, "/moved/api/v3");
    git.inject(Fault::redirect(301, "/moved").on("/repos/").times(1));
    git.inject(Fault::status(503).on("access_tokens").times(1));
    // GitHub's way to say that there were too many requests in a short time.
    git.inject(Fault::status(403).header("Retry-After", "1").on("/installation").times(1));
    let ran = bed.host.deploy().ok().says("answers with HTTP status 503; trying again");
    drop(ran.says("answers with HTTP status 403; trying again"));
    assert_eq!(bed.host.installed("one"), "v1");
    bed.assert_nowhere();
}

#[test]
fn the_api_is_reached_through_the_proxy_of_the_host() {
    let mut bed = Bed::new(&["one"]);
    let git = bed.github.git().authority();
    let api = GitHttps::start(bed.host.path("srv"));
    bed.github.serve_on(&api, "/v3");
    // A name that only the proxy knows.
    let named = format!("{NAME}:{}", api.port());
    let proxy = ConnectProxy::start(&[(&named, &api.authority()), (&git, &git)]);
    bed.manifest(&format!("{}, api_url: \"https://{named}/v3\"", client()), 1);
    bed.host.set("https_proxy", &proxy.url());
    bed.host.set("no_proxy", &git);
    bed.host.deploy().ok();
    let through: Vec<_> = proxy.tunnels().into_iter().map(|tunnel| tunnel.target).collect();
    assert_eq!(through, [named.as_str(), &named]);
}

#[test]
fn a_page_instead_of_the_api_is_named() {
    let mut bed = Bed::new(&["one"]);
    bed.github.git().inject(Fault::page("<html>log in</html>").on("/api/v3"));
    bed.manifest(&client(), 1);
    bed.host.deploy().code(3).says("is not GitHub's API").says("a login page may be in between");
}

#[test]
fn a_source_over_ssh_asks_for_no_token() {
    let mut bed = Bed::new(&["one"]);
    bed.manifest(&client(), 1);
    let authority = bed.github.git().authority();
    let source = format!("ssh://git@{authority}/acme/one.git");
    bed.host.apps(&[("one", &source, &bed.releases[0].2)]);
    bed.host.deploy().code(3).says("a GitHub App has tokens for").says("ssh wants a key");
    assert_eq!(bed.github.git().connections(), 0);
}

#[test]
fn the_doctor_gets_a_token_and_says_what_is_wrong_with_the_app() {
    let mut bed = Bed::new(&["one", "two"]);
    bed.manifest(&client(), 2);
    let document = bed.host.run(&["doctor", "--json"]).ok().json();
    let of = |document: &serde_json::Value, check: &str, status: &str| {
        let sections = document["sections"].as_array().expect("sections").clone();
        let all = sections.iter().flat_map(|s| s["findings"].as_array().expect("a list").clone());
        let found: Vec<_> = all.filter(|f| f["check"] == check && f["status"] == status).collect();
        found
    };
    let credential = of(&document, "credential", "ok").remove(0);
    let text = credential["message"].as_str().expect("text");
    assert!(
        text.contains(&format!("the GitHub App `{CLIENT}`")) && text.contains("0600"),
        "{text}"
    );
    assert_eq!(of(&document, "repository", "ok").len(), 2);
    assert_eq!(bed.github.tokens().len(), 1, "one token for both");
    // Offline its server is not asked.
    bed.github.git().forget();
    let document = bed.host.run(&["doctor", "--json", "--offline"]).ok().json();
    assert_eq!(of(&document, "credential", "not_checked").len(), 1);
    assert_eq!(bed.github.git().connections(), 0);
    // Another key than the App's.
    let stranger = Rsa::generate(2048).expect("a key").private_key_to_pem().expect("PEM");
    bed.host.secret("app.pem", &String::from_utf8(stranger).expect("text"));
    let ran = bed.host.run(&["doctor", "--json"]).code(11);
    let problem = of(&ran.json(), "credential", "problem").remove(0);
    assert!(problem["message"].as_str().expect("text").contains(CLIENT), "{problem}");
    assert!(problem["remedy"].is_string(), "{problem}");
    bed.assert_nowhere();
}
