//! The test bed itself, with git's own program as the client.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::support::agents::{FakeAgent, Version};
use crate::support::host::TestHost;
use crate::support::https::{Fault, GitHttps, hash_of};
use crate::support::keys::{KeyPair, Kind};
use crate::support::proxy::ConnectProxy;
use crate::support::sshd::{GitSshd, Options};
use crate::support::tls::{Authority, NAME};
use crate::support::upstream::{Entry, Upstream};
use crate::support::{is_root, isolated};

fn fetch(dir: &Path, url: &str, what: &str, more: &[&str]) -> Output {
    let client = dir.join("client.git");
    let made = isolated("git").args(["init", "-q", "--bare"]).arg(&client).status();
    assert!(made.expect("git starts").success());
    let ca = dir.join("ca.pem");
    std::fs::write(&ca, Authority::shared().pem()).expect("the CA");
    let mut git: Command = isolated("git");
    git.env("GIT_SSL_CAINFO", &ca).arg("--git-dir").arg(&client);
    git.args(["-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=1"]).args(more);
    git.args(["fetch", "-q", "--depth=1", url])
        .arg(format!("+{what}:refs/got/{}", if what.ends_with('*') { "*" } else { "it" }));
    git.output().expect("git starts")
}

#[test]
fn commits_have_the_same_ids_everywhere() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path(), "acme/api.git");
    let first = upstream.commit(&[("appspec.yml", "version: 0.0\n"), ("run.sh", "#!/bin/sh\n")]);
    assert_eq!(first, "e6c7d8994497d2f06512d5828fb16178d6ca98a5");
    let second = upstream.commit_entries(&[
        Entry::link("current", "run.sh"),
        Entry::file(b"odd \"name\"\t\xff", "x"),
        Entry::gone("appspec.yml"),
    ]);
    let tree = upstream.git(&["ls-tree", "-r", &second]);
    assert!(tree.contains("120000 blob"), "{tree}");
    assert!(tree.contains("100755 blob") && tree.contains("run.sh"), "{tree}");
    assert!(tree.contains(r#""odd \"name\"\t\377""#), "{tree}");
    assert!(!tree.contains("appspec"), "{tree}");
    let lost = upstream.dangling(Some(&second), &[("a", "b")]);
    assert_eq!(upstream.git(&["branch", "--all", "--contains", &lost]), "");
    assert_eq!(upstream.git(&["cat-file", "-t", &lost]), "commit");
    let tag = upstream.annotated_tag("v1", &first);
    assert_ne!(tag, first);
    assert_eq!(upstream.resolve("v1^{commit}"), first);
}

#[test]
fn https_serves_to_those_who_know_the_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path().join("srv"), "acme/api.git");
    let commit = upstream.commit(&[("a", "b")]);
    let server = GitHttps::start(dir.path().join("srv")).require("acme/", "s3cret:%/@");
    let url = server.url("acme/api.git").replace("://", "://u:s3cret%3a%25%2f%40@");
    let output = fetch(dir.path(), &url, &commit, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen = server.requests();
    assert!(seen.iter().any(|one| one.status == 401 && one.authorization.is_none()), "{seen:?}");
    let hash = Some(hash_of("u", "s3cret:%/@"));
    assert!(seen.iter().any(|one| one.status == 200 && one.authorization == hash), "{seen:?}");
    assert!(seen.iter().any(|one| one.method == "POST" && one.answer_bytes > 50), "{seen:?}");

    server.revoke();
    assert!(!fetch(dir.path(), &url, &commit, &[]).status.success());
    server.stop();
    let output = fetch(dir.path(), &url, &commit, &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("Failed to connect"), "{output:?}");
}

#[test]
fn chunked_and_gzipped_requests_are_understood() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path().join("srv"), "many.git");
    let names: Vec<(String, String)> =
        (0..1500).map(|n| (format!("f{n}"), n.to_string())).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let commit = upstream.commit(&files);
    for line in upstream.git(&["ls-tree", "-r", &commit]).lines().skip(1480) {
        let (facts, name) = line.split_once('\t').expect("two columns");
        upstream.tag(name, facts.split(' ').next_back().expect("an id"));
    }
    let server = GitHttps::start(dir.path().join("srv"));
    let output = fetch(dir.path(), &server.url("many.git"), "refs/tags/*", &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let gzipped = server.requests().into_iter().rfind(|one| one.method == "POST");
    let gzipped = gzipped.expect("a request for packs");
    assert!(gzipped.compressed && gzipped.body_bytes > 500, "{gzipped:?}");

    let refs = std::fs::read_to_string(upstream.dir().join("packed-refs")).unwrap_or_default();
    let more: String = (upstream.git(&["ls-tree", "-r", &commit]).lines())
        .map(|line| line.split(['\t', ' ']).skip(2).collect::<Vec<_>>().join(" refs/tags/t"))
        .fold(refs, |text, line| text + &line + "\n");
    std::fs::write(upstream.dir().join("packed-refs"), more).expect("many tags");
    server.forget();
    let more = ["-c", "http.postBuffer=65536"];
    let output = fetch(dir.path(), &server.url("many.git"), "refs/tags/*", &more);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let posts: Vec<_> = server.requests().into_iter().filter(|one| one.method == "POST").collect();
    assert!(posts.iter().any(|one| one.chunked && one.body_bytes > 65_000), "{posts:?}");
    assert!(posts.iter().all(|one| one.status == 200), "{posts:?}");
}

#[test]
fn every_fault_is_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path().join("srv"), "api.git");
    let commit = upstream.commit(&[("a", "b")]);
    let server = GitHttps::start(dir.path().join("srv"));
    let url = server.url("api.git");
    let try_it = || {
        let output = fetch(dir.path(), &url, &commit, &[]);
        server.repair();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (fault, says) in [
        (Fault::status(403), "403"),
        (Fault::status(404), "not found"),
        (Fault::status(429).header("Retry-After", "1").times(1), "429"),
        (Fault::status(503), "503"),
        (Fault::page("<html>Log in</html>"), "dumb http"),
        (Fault::reset(), "reset"),
        (Fault::close(), ""),
        (Fault::cut(0.5).method("POST"), ""),
        (Fault::hang().on("info/refs"), "too slow"),
        (Fault::stall(0.5).method("POST"), ""),
    ] {
        let shown = format!("{fault:?}");
        server.inject(fault);
        let (ok, stderr) = try_it();
        assert!(!ok && stderr.contains(says), "{shown}: {ok} {stderr}");
    }
    server.inject(Fault::redirect(301, "/moved").on("/api.git").times(1));
    server.alias("/moved/", "/");
    server.forget();
    assert!(try_it().0, "a redirect on the same host");
    let paths: Vec<String> = server.requests().into_iter().map(|one| one.path).collect();
    assert_eq!(paths[..2], ["/api.git/info/refs", "/moved/api.git/info/refs"]);
    assert!(try_it().0, "all is well again");

    server.inject(Fault::drip().method("POST"));
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(3));
            server.stop();
        });
        assert!(!try_it().0);
    });
    assert!(start.elapsed() > Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn a_proxy_leads_to_names_nobody_knows() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path().join("srv"), "api.git");
    let commit = upstream.commit(&[("a", "b")]);
    let server = GitHttps::start(dir.path().join("srv"));
    let name = format!("{NAME}:{}", server.port());
    let proxy = ConnectProxy::start_with(&[(&name, &server.authority())], Some("u:p"));
    let url = server.url_at(NAME, "api.git");
    let through =
        |proxy: &str| fetch(dir.path(), &url, &commit, &["-c", &format!("http.proxy={proxy}")]);
    assert!(!through(&proxy.url()).status.success());
    let output = through(&proxy.url_with("u:p"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tunnels = proxy.tunnels();
    assert!(tunnels.iter().any(|one| one.status == 407 && !one.authorized), "{tunnels:?}");
    assert!(tunnels.iter().any(|one| one.status == 200 && one.target == name), "{tunnels:?}");
}

#[test]
fn sshd_serves_to_the_owner_of_the_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path().join("srv"), "acme/api.git");
    let commit = upstream.commit(&[("a", "b")]);
    let keys = [
        KeyPair::new(dir.path(), "one", Kind::Ed25519),
        KeyPair::pem(dir.path(), "two", Kind::Rsa, ""),
        KeyPair::new(dir.path(), "three", Kind::Ecdsa),
    ];
    let stranger = KeyPair::new(dir.path(), "stranger", Kind::Ed25519);
    let options = Options { host_keys: vec![Kind::Ed25519, Kind::Rsa], ..Options::default() };
    let mut server = GitSshd::start_with(dir.path().join("srv"), &keys, &options);
    let known = dir.path().join("known_hosts");
    std::fs::write(&known, server.known_hosts()).expect("known_hosts");
    let try_it = |key: &KeyPair, url: &str| {
        let command = format!(
            "core.sshCommand=ssh -F none -o IdentitiesOnly=yes -o UserKnownHostsFile={} -i {}",
            known.display(),
            key.file.display()
        );
        fetch(dir.path(), url, &commit, &["-c", &command])
    };
    for key in &keys {
        let output = try_it(key, &server.url("acme/api.git"));
        let log = server.log();
        assert!(output.status.success(), "{}{log}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(!try_it(&stranger, &server.url("acme/api.git")).status.success());
    assert_eq!(server.refusals(), 1, "{}", server.log());
    assert_eq!(server.connections(), 4, "{}", server.log());
    assert_eq!(server.commands(), ["git-upload-pack '/acme/api.git'"; 3]);
    server.stop();
    assert!(std::net::TcpStream::connect(server.authority()).is_err());
    assert!(!is_root() || Path::new("/run/sshd").is_dir());
}

#[test]
fn a_hardened_sshd_accepts_what_it_should() {
    let dir = tempfile::tempdir().expect("a directory");
    let upstream = Upstream::new(dir.path().join("srv"), "api.git");
    let commit = upstream.commit(&[("a", "b")]);
    let key = KeyPair::new(dir.path(), "key", Kind::Ed25519);
    let options = Options::restrictive();
    let server = GitSshd::start_with(dir.path().join("srv"), std::slice::from_ref(&key), &options);
    let command = format!(
        "core.sshCommand=ssh -F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i {}",
        key.file.display()
    );
    let output = fetch(dir.path(), &server.url("api.git"), &commit, &["-c", &command]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

struct Fake {
    _dir: tempfile::TempDir,
    agent: FakeAgent,
    bundle: String,
    root: std::path::PathBuf,
}

fn fake(version: Version) -> Fake {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("root");
    let agent = FakeAgent::install(&dir.path().join("agent"), version, &root);
    std::fs::create_dir(dir.path().join("bundle")).expect("a bundle");
    std::fs::write(dir.path().join("bundle/appspec.yml"), "version: 0.0\n").expect("an appspec");
    let bundle = dir.path().join("bundle").display().to_string();
    Fake { _dir: dir, agent, bundle, root }
}

impl Fake {
    fn call(&self, args: &[&str]) -> (i32, String, String) {
        let done = Command::new(self.agent.program()).args(args).output().expect("it starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code().expect("an exit"), text(&done.stdout), text(&done.stderr))
    }
}

#[test]
fn the_stand_in_for_1_x_keeps_its_contract() {
    let fake = fake(Version::One);
    let group = "api-local-deployment-application";
    assert_eq!(fake.call(&["--version"]), (1, "1.0\n".into(), String::new()));
    let (code, usage, _) = fake.call(&["--help"]);
    assert!(code == 1 && usage.contains("--appspec-filename"), "{usage}");
    for bad in [&["--nonsense", "x"][..], &["positional"], &["--bundle-location"], &["--f=x", "-z"]]
    {
        assert_eq!(fake.call(bad), (1, usage.clone(), String::new()), "{bad:?}");
    }
    // `--deployment-group` is an option's full name, `--bun` is enough for another.
    let args = ["--bun", &fake.bundle, "-tdirectory", "--deployment-group", group, "-b=overwrite"];
    let (code, stdout, _) = fake.call(&args);
    assert_eq!(
        (code, stdout.lines().last()),
        (0, Some("AppSpec file valid. Local deployment successful"))
    );
    let record = fake.root.join(format!("deployment-instructions/{group}_last_successful_install"));
    let folder = std::fs::read_to_string(&record).expect("the record");
    assert!(folder.contains("/d-") && folder.ends_with("-local"), "{folder}");
    assert!(Path::new(&folder).join("deployment-archive/appspec.yml").is_file());

    fake.agent.script("api", "fail scripts/start.sh 'no such module'");
    let (code, stdout, _) = fake.call(&["-l", &fake.bundle, "-g", group]);
    assert_eq!(code, 1);
    assert!(stdout.contains("failed while trying to execute your script at"), "{stdout}");
    let (code, stdout, _) = fake.call(&["-l", "/with space", "-g", group]);
    assert_eq!((code, stdout.as_str()), (1, "ERROR: location /with space is not a valid uri\n"));
    assert_eq!(fake.agent.deployments().len(), 1, "one said `--deployment-group`");
    assert_eq!(fake.agent.calls().len(), 9);

    let old = self::fake(Version::VeryOld);
    assert_eq!(old.call(&["-l", &old.bundle, "-A", "appspec.yml"]).0, 1);
    assert!(!old.call(&["-h"]).1.contains("--application-name"));
    let zero = self::fake(Version::AlwaysZero);
    zero.agent.script("api", "fail scripts/start.sh 'no such module'");
    let (code, stdout, _) = zero.call(&["-l", &zero.bundle, "-g", group]);
    assert!(code == 0 && stdout.contains("Your local deployment failed"), "{code} {stdout}");
}

#[test]
fn the_stand_in_for_2_x_keeps_its_contract() {
    let fake = fake(Version::Two);
    let group = "api-local-deployment-application";
    assert_eq!(
        fake.call(&["-l", "x", "-v"]),
        (0, "codedeploy-local 2.1.0\n".into(), String::new())
    );
    let (code, help, _) = fake.call(&["--help"]);
    assert!(code == 0 && help.contains("--appspec-filename"), "{help}");
    let here = fake.bundle.as_str();
    for bad in [
        &["--bundle-loc", here][..],
        &["-l", here, "-l", here],
        &["-l", here, "positional"],
        &["-l", here, "-b", "overwrite"],
        &["-l", here, "-b", ""],
        &["-l", "relative"],
        &["-l", here, "-A", "appspec.yaml"],
    ] {
        let (code, stdout, stderr) = fake.call(bad);
        assert!(code == 2 && stdout.is_empty() && !stderr.is_empty(), "{bad:?}: {code} {stdout}");
    }
    let (code, stdout, _) =
        fake.call(&["-l", here, "--deployment-group", group, "-b", "OVERWRITE"]);
    assert_eq!((code, stdout.lines().last()), (0, Some("Local deployment succeeded.")));
    fake.agent.script("api", "umask; fail scripts/start.sh 'no such module'");
    let (code, stdout, stderr) = fake.call(&["-l", here, "--deployment-group", group]);
    assert!(code == 1 && stdout.contains("0027"), "{code} {stdout}");
    assert!(stderr.contains("ApplicationStart failed: scripts/start.sh"), "{stderr}");
    let call = &fake.agent.deployments()[1];
    assert!(call.fds[1].starts_with("pipe:["), "{call:?}");
    let log = walkdir::WalkDir::new(&fake.root).into_iter().flatten();
    assert!(log.into_iter().any(|entry| entry.file_name() == "scripts.log"));

    // Called by its other name it wants its subcommand.
    let other = fake.agent.program().with_file_name("codedeploy-agent");
    std::os::unix::fs::symlink("codedeploy-local", &other).expect("a link");
    let status =
        |args: &[&str]| Command::new(&other).args(args).output().expect("it starts").status;
    assert_eq!(status(&["-l", here]).code(), Some(2));
    assert_eq!(status(&["deploy-local", "-l", here]).code(), Some(0));
}

#[test]
fn a_secret_is_found_wherever_it_is() {
    let host = TestHost::new();
    let upstream = Upstream::new(host.path("cache/mirrors"), "api.git");
    upstream.commit(&[("a", "b")]);
    host.secret("token", "s3cret");
    for n in 0..12 {
        host.write(&format!("log/{n}"), "nothing");
    }
    host.assert_nowhere(&["s3cret"]);
    let found = |host: &TestHost| {
        let search = std::panic::AssertUnwindSafe(|| host.assert_nowhere(&["s3cret"]));
        std::panic::catch_unwind(search).is_err()
    };
    for place in ["log/a", "state/s3cret"] {
        host.write(place, "s3cret");
        assert!(found(&host), "{place}");
        std::fs::remove_file(host.path(place)).expect("the file");
    }
    host.write("log/b", &openssl::base64::encode_block(b"x-access-token:s3cret"));
    assert!(found(&host), "in a header");
    std::fs::remove_file(host.path("log/b")).expect("the file");
    upstream.dangling(None, &[("x", "s3cret")]);
    assert!(found(&host), "in an object of a mirror");
}
