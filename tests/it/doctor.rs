//! `doctor` on a healthy host, and on one where one thing is broken.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::estate::{Estate, token};
use crate::support::host::{Ran, Running, TestHost};
use crate::support::https::GitHttps;
use crate::support::keys::{KeyPair, Kind};
use crate::support::proxy::ConnectProxy;
use crate::support::sshd::GitSshd;
use crate::support::tls::{Authority, NAME};
use crate::support::{isolated, wait_until};

const ZERO: &str = "1234567890123456789012345678901234567890";

/// Starts it with the umask of the agent.
fn start<'a>(host: &'a TestHost, args: &[&str]) -> Running<'a> {
    start_in(host, "umask 022", args)
}

/// Starts it after a piece of shell.
fn start_in<'a>(host: &'a TestHost, shell: &str, args: &[&str]) -> Running<'a> {
    let mut line = vec!["doctor"];
    line.extend(args);
    let inner = host.command(&line);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{shell}; exec \"$@\""), "sh"]);
    command.arg(inner.get_program()).args(inner.get_args()).env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(host.dir());
    host.start_command(command)
}

#[must_use = "say what its exit code has to be"]
fn doctor(host: &TestHost, args: &[&str]) -> Ran {
    start(host, args).wait()
}

/// All findings of a document, with the title of their section.
fn findings(document: &Value) -> Vec<(String, Value)> {
    let sections = document["sections"].as_array().expect("sections");
    let each = sections.iter().flat_map(|section| {
        let title = section["title"].as_str().expect("a title").to_owned();
        let findings = section["findings"].as_array().expect("findings").clone();
        findings.into_iter().map(move |finding| (title.clone(), finding))
    });
    each.collect()
}

/// The first finding of a check that has this status.
#[track_caller]
fn finding(document: &Value, check: &str, status: &str) -> Value {
    let all = findings(document);
    let found = all.iter().find(|(_, f)| f["check"] == check && f["status"] == status);
    found.unwrap_or_else(|| panic!("no {status} of {check} in {document:#}")).1.clone()
}

/// One thing is broken: exit 11, and a finding that names it and says what to do.
#[track_caller]
fn broken(host: &TestHost, check: &str, words: &[&str]) -> Value {
    let document = doctor(host, &["--json"]).code(11).json();
    assert_eq!((&document["exit_code"], &document["ok"]), (&11.into(), &false.into()));
    let found = finding(&document, check, "problem");
    let text = format!("{} {}", found["message"], found["remedy"]);
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    assert!(found["remedy"].as_str().is_some_and(|remedy| remedy.len() > 5), "{found}");
    document
}

fn healthy() -> Estate {
    let estate = Estate::with_ssh(TestHost::new());
    let one = estate.release_all("v1");
    estate.want(&one);
    estate
}

#[test]
fn a_healthy_host_is_all_ok() {
    let estate = healthy();
    let ran = doctor(&estate.host, &["--json"]).ok();
    let document = ran.json();
    assert_eq!((&document["command"], &document["ok"]), (&"doctor".into(), &true.into()));
    let mut summary = String::new();
    for (title, finding) in findings(&document) {
        let (check, status) = (finding["check"].as_str(), finding["status"].as_str());
        let line = format!("{title}: {} {}\n", check.expect("a check"), status.expect("a status"));
        summary += &estate.host.normal(&line);
    }
    let user = GitSshd::user();
    insta::assert_snapshot!(summary, @r"
    manifest: manifest ok
    this host: user ok
    this host: umask ok
    codedeploy-local: tool ok
    codedeploy-local: agent ok
    directories: cache ok
    directories: state ok
    directories: log ok
    directories: root_dir ok
    directories: temporary ok
    directories: disk ok
    records: lock ok
    records: records ok
    records: leftovers ok
    https://127.0.0.1:[PORT]: name ok
    https://127.0.0.1:[PORT]: route ok
    https://127.0.0.1:[PORT]: connection ok
    https://127.0.0.1:[PORT]: authorities ok
    https://127.0.0.1:[PORT]: tls ok
    https://127.0.0.1:[PORT]: clock ok
    https://127.0.0.1:[PORT]: credential ok
    https://127.0.0.1:[PORT]: repository ok
    https://127.0.0.1:[PORT]: repository ok
    ssh://127.0.0.1:[PORT]: name ok
    ssh://127.0.0.1:[PORT]: route ok
    ssh://127.0.0.1:[PORT]: connection ok
    ssh://127.0.0.1:[PORT]: host_key ok
    ssh://127.0.0.1:[PORT]: credential ok
    ssh://127.0.0.1:[PORT]: repository ok
    ");
    let tls = finding(&document, "tls", "ok");
    assert_eq!(tls["facts"]["days_left"], 40, "{tls}");
    assert_eq!(tls["facts"]["issuer"], "multideployer test authority");
    assert!(tls["message"].as_str().expect("text").starts_with("TLSv1."), "{tls}");
    let ssh = estate.ssh.as_ref().expect("a server");
    let key = finding(&document, "host_key", "ok");
    assert_eq!(key["facts"]["fingerprint"], ssh.host_keys()[0].fingerprint.as_str());
    let line = format!("{}:1", estate.host.text("etc/known_hosts"));
    assert_eq!(key["facts"]["accepted_by"], line.as_str());
    let credential = finding(&document, "credential", "ok");
    let file = format!("the token in `{}` (0600, {user})", estate.host.text("secrets/token"));
    assert!(credential["message"].as_str().expect("text").starts_with(&file), "{credential}");
    let repository = finding(&document, "repository", "ok");
    assert!(repository["message"].as_str().expect("text").contains("is the end of main"));

    let human = doctor(&estate.host, &[]).ok().stdout_has("nothing stands in the way");
    assert!(!human.stdout.contains('\u{1b}'), "{human:?}");
    drop(human.stdout_has("for gateway, api\n"));
    let coloured = doctor(&estate.host, &["--color", "always"]).ok();
    drop(coloured.stdout_has("\u{1b}[32mok"));
    assert!(doctor(&estate.host, &["-q"]).ok().stdout.is_empty());
    // It made nothing and took nothing.
    for made in ["cache", "state", "log"] {
        assert!(!estate.host.path(made).exists(), "{made}");
    }
    estate.host.deploy().ok();
    let after = doctor(&estate.host, &["--json"]).ok().json();
    assert_eq!(finding(&after, "records", "ok")["facts"]["recorded"], 3);
    let repository = finding(&after, "repository", "ok");
    assert!(repository["message"].as_str().expect("text").contains("is here already"));
}

#[test]
fn offline_and_one_app_ask_less() {
    let estate = healthy();
    let document = doctor(&estate.host, &["--json", "--offline"]).ok().json();
    assert_eq!(document["offline"], true);
    finding(&document, "network", "not_checked");
    finding(&document, "credential", "ok");
    assert_eq!(estate.https.connections(), 0);
    let document = doctor(&estate.host, &["--json", "-a", "worker"]).ok().json();
    assert!(findings(&document).iter().all(|(title, _)| !title.starts_with("https")));
    assert_eq!(estate.https.connections(), 0);
    drop(doctor(&estate.host, &["-a", "wroker"]).code(2).says("did you mean `worker`?"));
}

#[test]
fn a_refused_token_is_named_and_no_secret_is_shown() {
    let estate = healthy();
    let wrong = token();
    estate.host.secret("token", &wrong);
    broken(&estate.host, "repository", &["refuses the token in", "has not expired"]);
    let _ = doctor(&estate.host, &["-d"]).code(11);
    let _ = doctor(&estate.host, &["-v"]).code(11);
    let key = std::fs::read_to_string(estate.host.path("secrets/id_ed25519")).expect("the key");
    let line = key.lines().nth(2).expect("a line of it");
    for n in 0..10 {
        estate.host.write(&format!("srv/enough/{n}"), "files for the search");
    }
    estate.host.assert_nowhere(&[&wrong, &estate.token, line]);
}

#[test]
fn credentials_that_are_missing_or_open_to_others() {
    let estate = healthy();
    let file = estate.host.path("secrets/token");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("its mode");
    let document = doctor(&estate.host, &["--json"]).ok().json();
    let open = finding(&document, "credential", "warning");
    assert!(open["message"].as_str().expect("text").contains("0644"), "{open}");
    std::fs::remove_file(&file).expect("it goes");
    let document = broken(&estate.host, "credential", &["secrets/token"]);
    // The certificate is seen all the same.
    finding(&document, "tls", "ok");
    finding(&document, "repository", "not_checked");
    let text = estate.host.read("etc/multideployer.yaml");
    let line = format!("token_file: {}", file.display());
    estate.host.manifest(&text.replace(&line, "token_env: NOT_SET_ANYWHERE"));
    broken(&estate.host, "credential", &["`NOT_SET_ANYWHERE`", "set `NOT_SET_ANYWHERE`"]);
}

/// What has its secret from a program or an agent, and what is wrong with that.
#[test]
fn programs_and_agents_are_asked_for_the_secret() {
    let estate = healthy();
    let manifest = estate.host.read("etc/multideployer.yaml");
    let key = estate.host.text("secrets/id_ed25519");
    let token_file = format!("{{token_file: {}}}", estate.host.text("secrets/token"));
    let key_file = format!("{{ssh_key_file: {key}}}");
    let with = |old: &str, new: &str| estate.host.manifest(&manifest.replace(old, new));
    let program = |name: &str, shell: &str| {
        let file = estate.host.secret(name, &format!("#!/bin/sh\n{shell}\n"));
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o700)).expect("its mode");
        file
    };
    let helper = program("helper", &format!("echo password={}", estate.token));
    let prints = program("prints", &format!("echo {}", estate.token));
    let shows = program("shows", &format!("cat {key}"));
    let fails = program("fails", "echo hunter2; exit 7");
    for (old, kind, good, named) in [
        (&token_file, "credential_helper", &helper, "the credential of the helper"),
        (&token_file, "token_command", &prints, "the token of the command"),
        (&key_file, "ssh_key_command", &shows, "the key of the command"),
    ] {
        let auth = |program: &str| format!("{{{kind}: [{program}]}}");
        with(old, &auth(good));
        drop(doctor(&estate.host, &[]).ok().stdout_has(&format!("{named} `{good}`, for ")));
        with(old, &auth(&fails));
        broken(&estate.host, "credential", &[&fails, "exited with code 7"]);
    }
    let socket = estate.host.text("tmp/agent");
    with(&key_file, &format!("{{ssh_agent: {{socket: {socket}}}}}"));
    broken(&estate.host, "credential", &["the ssh-agent", &socket]);
    let mut agent = isolated("ssh-agent");
    let mut agent = agent.args(["-D", "-a", &socket]).spawn().expect("ssh-agent is installed");
    // The socket is there before anybody listens to it.
    wait_until("the agent", Duration::from_secs(30), || UnixStream::connect(&socket).is_ok());
    broken(&estate.host, "credential", &["the ssh-agent", "no key"]);
    let added = isolated("ssh-add").env("SSH_AUTH_SOCK", &socket).arg(&key).output();
    assert!(added.expect("ssh-add is installed").status.success());
    drop(doctor(&estate.host, &[]).ok().stdout_has("the ssh-agent"));
    agent.kill().expect("it ends");
    agent.wait().expect("it ends");
    estate.host.assert_nowhere(&[&estate.token, "hunter2"]);
}

/// The directories above a secret count, too.
#[test]
fn a_secret_that_another_user_could_put_another_in_the_place_of() {
    let estate = healthy();
    let above = estate.host.path("secrets");
    std::fs::set_permissions(&above, PermissionsExt::from_mode(0o777)).expect("its mode");
    let document = doctor(&estate.host, &["--json"]).ok().json();
    let open = finding(&document, "credential", "warning");
    assert!(open["message"].as_str().expect("text").contains("another user could"), "{open}");
    let remedy = format!("chmod o-w {}", above.display());
    assert_eq!(open["remedy"], remedy.as_str());
    std::fs::set_permissions(&above, PermissionsExt::from_mode(0o700)).expect("its mode");
}

#[test]
fn a_proxy_of_one_host_counts_for_that_host_alone() {
    let estate = Estate::with_ssh(TestHost::new());
    let one = estate.release_all("v1");
    estate.want(&one);
    let proxy = ConnectProxy::start_with(&[], Some("u:pr0xyw0rd"));
    let password = estate.host.secret("proxy", "pr0xyw0rd\n");
    let token_file = format!("{{token_file: {}}}", estate.host.text("secrets/token"));
    let text = estate.host.read("etc/multideployer.yaml");
    let set = |password: &str| {
        let more = format!(
            "{token_file}\n    proxy: {}\n    proxy_auth: {{user: u, password_file: {password}}}",
            proxy.url()
        );
        estate.host.manifest(&text.replace(&token_file, &more));
    };
    set(&password);
    let document = doctor(&estate.host, &["--json"]).ok().json();
    let routes: Vec<_> = findings(&document)
        .into_iter()
        .filter(|(_, finding)| finding["check"] == "route")
        .map(|(_, finding)| finding)
        .collect();
    let shown = proxy.url().replace("http://", "");
    assert_eq!(routes[0]["facts"]["proxy"], shown.as_str(), "{routes:?}");
    assert_eq!(routes[0]["facts"]["set_by"], "proxy", "{routes:?}");
    assert_eq!(routes[1]["message"], "direct", "{routes:?}");
    assert!(!document.to_string().contains("pr0xyw0rd"), "{document}");
    set(&estate.host.text("secrets/none"));
    broken(&estate.host, "route", &["secrets/none", "password"]);
}

#[test]
fn a_certificate_of_an_unknown_authority_or_too_old() {
    let estate = healthy();
    let text = estate.host.read("etc/multideployer.yaml");
    let kept: Vec<_> = text.lines().filter(|line| !line.contains("ca_file")).collect();
    estate.host.manifest(&(kept.join("\n") + "\n"));
    let document = broken(&estate.host, "tls", &["not trusted", "ca_file"]);
    let tls = finding(&document, "tls", "problem");
    assert_eq!(tls["facts"]["issuer"], "multideployer test authority", "{tls}");
    assert!(estate.https.requests().is_empty(), "no credential goes to a stranger");

    let port = estate.https.port();
    estate.host.manifest(&text);
    for (days, status, code) in [(-3, "problem", 11), (9, "warning", 0)] {
        estate.https.stop();
        let acceptor = Authority::shared().acceptor_with_days(days);
        let old = GitHttps::start_with(estate.host.dir(), Some(acceptor), port);
        let document = doctor(&estate.host, &["--json"]).json();
        let tls = finding(&document, "tls", status);
        assert_eq!(tls["facts"]["days_left"], days, "{tls}");
        assert!(tls["remedy"].is_string(), "{tls}");
        if code == 11 {
            assert!(tls["message"].as_str().expect("text").contains("expired"), "{tls}");
        }
        drop(old);
    }
}

#[test]
fn a_ca_file_that_is_not_there() {
    let estate = healthy();
    std::fs::remove_file(estate.host.path("etc/ca.pem")).expect("it goes");
    broken(&estate.host, "authorities", &["etc/ca.pem", "failed to open"]);
}

#[test]
fn names_connections_and_silence() {
    let host = TestHost::new();
    let unknown = ("api", "https://nowhere.invalid/a/b.git", ZERO);
    host.apps(&[unknown]);
    let document = broken(&host, "name", &["nowhere.invalid", "DNS"]);
    assert_eq!(finding(&document, "tls", "not_checked")["remedy"], Value::Null);

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let silent = format!("https://{address}/a/b.git");
    let silent_ssh = format!("ssh://git@{address}/a/b.git");
    let key = KeyPair::new(&host.path("secrets"), "id", Kind::Ed25519);
    host.manifest(&format!(
        "version: 2\nhosts:\n  \"{address}\": {{auth: {{ssh_key_file: {}}}}}\napps:\n  \
         - {{name: api, source: \"{silent}\", release: \"{ZERO}\"}}\n  \
         - {{name: ssh, source: \"{silent_ssh}\", release: \"{ZERO}\"}}\n",
        key.file.display()
    ));
    let text = host.read("etc/multideployer.yaml");
    let ran = doctor(&host, &["--json"]).code(11).within(Duration::from_secs(45));
    let document = ran.json();
    let found = findings(&document);
    let ssh = found.iter().find(|(title, f)| title.starts_with("ssh") && f["status"] == "problem");
    let ssh = ssh.expect("a problem").1["message"].as_str().expect("text").to_owned();
    assert!(ssh.contains("within 10 s"), "{ssh}");
    // SIGTERM ends it at once, with what it knows.
    let running = start(&host, &["--json"]);
    std::thread::sleep(Duration::from_secs(2));
    running.signal(nix::sys::signal::SIGTERM);
    let ran = running.wait().code(143).within(Duration::from_secs(8));
    assert_eq!(ran.json()["exit_code"], 143);

    host.manifest(&text.replace("api", "web"));
    drop(listener);
    broken(&host, "connection", &[&address.to_string(), "refused"]);
}

#[test]
fn a_proxy_that_wants_a_password_and_one_that_has_it() {
    let mut estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.want(&one);
    let text = estate.host.read("etc/multideployer.yaml");
    let name = format!("{NAME}:{}", estate.https.port());
    estate.host.manifest(&text.replace(&estate.https.authority(), &name));
    let proxy =
        ConnectProxy::start_with(&[(&name, &estate.https.authority())], Some("u:pr0xyw0rd"));
    estate.host.set("https_proxy", &proxy.url_with("u:wr0ngw0rd"));
    let document = broken(&estate.host, "repository", &["407", "proxy"]);
    let route = finding(&document, "route", "ok");
    assert_eq!(route["facts"]["set_by"], "https_proxy");
    estate.host.set("https_proxy", &proxy.url_with("u:pr0xyw0rd"));
    let document = doctor(&estate.host, &["--json"]).ok().json();
    let route = finding(&document, "route", "ok");
    let shown = proxy.url().replace("http://", "");
    assert_eq!(route["facts"]["proxy"], shown.as_str());
    let all = document.to_string();
    assert!(!all.contains("pr0xyw0rd") && !all.contains("wr0ngw0rd"), "{all}");
    estate.host.set("no_proxy", NAME);
    broken(&estate.host, "name", &[NAME]);
}

#[test]
fn host_keys_unknown_and_changed() {
    let estate = healthy();
    let known = estate.host.read("etc/known_hosts");
    estate.host.write("etc/known_hosts", "");
    let document = broken(&estate.host, "host_key", &["not known", "SHA256:", "known_hosts"]);
    let key = finding(&document, "host_key", "problem");
    assert_eq!(key["facts"]["line"].as_str(), Some(known.trim()), "{key}");
    let other = KeyPair::new(&estate.host.path("secrets"), "other", Kind::Ed25519);
    let name = known.split_whitespace().next().expect("a name").to_owned();
    estate.host.write("etc/known_hosts", &format!("# before\n{name} {}\n", other.public));
    broken(&estate.host, "host_key", &["CHANGED", "known_hosts:2", &other.fingerprint]);
}

#[test]
fn port_122_is_explained() {
    let host = TestHost::new();
    host.apps(&[("api", "ssh://git@127.0.0.1:122/a/b.git", ZERO)]);
    let document = doctor(&host, &["--json"]).code(11).json();
    let port = finding(&document, "port", "warning");
    assert!(port["message"].as_str().expect("text").contains("administrators"), "{port}");
}

#[test]
fn a_clock_that_is_off_is_a_warning() {
    let estate = healthy();
    for (ahead, words) in [(100, "s behind the server's"), (-4000, "s ahead of the server's")] {
        estate.https.set_clock(ahead);
        let document = doctor(&estate.host, &["--json"]).ok().json();
        let clock = finding(&document, "clock", "warning");
        assert!(clock["message"].as_str().expect("text").contains(words), "{clock}");
    }
}

#[test]
fn directories_that_a_deployment_would_refuse() {
    let estate = healthy();
    let cache = estate.host.path("cache");
    std::fs::create_dir(&cache).expect("the cache");
    std::fs::set_permissions(&cache, PermissionsExt::from_mode(0o777)).expect("its mode");
    broken(&estate.host, "permissions", &["everybody can write", "chmod o-w"]);
    let _ = estate.host.deploy().code(11);
    for made in ["cache", "state", "log"] {
        std::fs::remove_dir_all(estate.host.path(made)).ok();
    }
    estate.host.write("cache", "a file");
    broken(&estate.host, "cache", &["not a directory"]);
    std::fs::remove_file(&cache).expect("it goes");
    std::os::unix::fs::symlink("/dev/null", estate.host.path("state")).expect("a link");
    broken(&estate.host, "state", &["not a directory"]);
    std::fs::remove_file(estate.host.path("state")).expect("it goes");
    std::fs::create_dir(estate.host.path("log")).expect("the log's directory");
    std::os::unix::fs::symlink("/dev/null", estate.host.path("log/multideployer.log"))
        .expect("a link");
    let document = doctor(&estate.host, &["--json"]).ok().json();
    finding(&document, "log", "warning");
}

#[test]
#[ignore = "needs root"]
fn disks_that_are_full_or_read_only() {
    let estate = healthy();
    let cache = estate.host.text("cache");
    std::fs::create_dir(&cache).expect("the cache");
    std::fs::set_permissions(&cache, PermissionsExt::from_mode(0o700)).expect("its mode");
    // In a namespace of its own, the mount ends with the run.
    let on = |options: &str, check: &str, words: &[&str]| {
        let shell = format!("umask 022; mount -t tmpfs -o mode=700,{options} none {cache}");
        let inner = estate.host.command(&["doctor", "--json"]);
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &format!("{shell} && exec \"$@\""), "sh"]);
        command.arg(inner.get_program()).args(inner.get_args()).env_clear();
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(estate.host.dir());
        let document = estate.host.start_command(command).wait().code(11).json();
        let found = finding(&document, check, "problem");
        let text = format!("{} {}", found["message"], found["remedy"]);
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    on("size=1m", "disk", &["cache: ", "make room"]);
    on("nr_inodes=20", "disk", &["inodes", "make room"]);
    on("ro", "cache", &["Read-only", "mount it writable"]);
}

#[test]
fn tools_that_are_missing_or_something_else() {
    let mut estate = healthy();
    estate.host.tool = "/nowhere/codedeploy-local".into();
    broken(&estate.host, "tool", &["/nowhere/codedeploy-local", "builtin"]);
    estate.host.tool = "/bin/true".into();
    broken(&estate.host, "tool", &["does not behave like codedeploy-local"]);
    estate.host.tool = "builtin".into();
    estate.host.write("etc/codedeployagent.yml", ":root_dir: [a\n");
    broken(&estate.host, "agent", &["codedeployagent.yml"]);
    estate.host.write("etc/codedeployagent.yml", ":proxy_uri: http://u:hidd3n@proxy:3128\n");
    let ran = doctor(&estate.host, &["--json"]);
    let proxy = finding(&ran.json(), "proxy", "warning");
    assert!(proxy["message"].as_str().expect("text").contains("proxy_uri"), "{proxy}");
    drop(ran.silent_about("hidd3n"));
}

#[test]
fn a_manifest_that_is_refused_or_open_to_others() {
    let estate = healthy();
    let text = estate.host.read("etc/multideployer.yaml");
    estate.host.manifest(&text.replace("release:", "relaese:"));
    broken(&estate.host, "manifest", &["refused"]);
    estate.host.manifest(&text);
    let file = estate.host.path("etc/multideployer.yaml");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).expect("its mode");
    broken(&estate.host, "permissions", &["the manifest", "chmod o-w"]);
}

#[test]
fn who_holds_the_lock_and_what_is_left_behind() {
    let estate = healthy();
    estate.host.deploy().ok();
    let path = estate.host.path("state/lock");
    let lock = std::fs::File::open(&path).expect("the lock");
    lock.lock().expect("nobody has it");
    let holder = format!("pid {} run r-1 since 2026-11-25T03:10:00Z", std::process::id());
    std::fs::write(&path, format!("{holder}\n")).expect("its text");
    let document = doctor(&estate.host, &["--json"]).ok().json();
    assert_eq!(finding(&document, "lock", "warning")["facts"]["holder"], holder.as_str());
    drop(lock);
    estate.host.write(&format!("cache/worktrees/api/{ZERO}/file"), "x");
    estate.host.write("cache/mirrors/api.git/refs/multideployer/deployed", "rubbish\n");
    let document = doctor(&estate.host, &["--json"]).ok().json();
    finding(&document, "lock", "ok");
    let found = finding(&document, "leftovers", "warning");
    assert_eq!(found["facts"]["count"], 1, "{found}");
    let damage = finding(&document, "records", "warning");
    assert!(damage["message"].as_str().expect("text").starts_with("api: "), "{damage}");
    estate.host.write("state/last_state.yaml", "- no mapping\n");
    let document = doctor(&estate.host, &["--json"]).ok().json();
    finding(&document, "last_state", "warning");
}

#[test]
#[ignore = "needs root"]
fn an_ordinary_user_is_told_what_he_cannot_see() {
    let estate = healthy();
    let program = estate.host.path("multideployer");
    std::fs::copy(env!("CARGO_BIN_EXE_multideployer"), &program).expect("a copy");
    std::fs::set_permissions(estate.host.path("secrets"), PermissionsExt::from_mode(0o755))
        .expect("its mode");
    let mut command = Command::new(&program);
    command.args(["doctor", "--json", "-c", "builtin", "--config"]);
    command.arg(estate.host.path("etc/multideployer.yaml"));
    command.env_clear().env("PATH", "/usr/bin:/bin").uid(65_534).gid(65_534);
    command.current_dir("/");
    let document = estate.host.start_command(command).wait().ok().json();
    finding(&document, "user", "warning");
    let credential = finding(&document, "credential", "not_checked");
    assert!(credential["remedy"].as_str().expect("text").contains("root"), "{credential}");
    finding(&document, "cache", "not_checked");
    finding(&document, "tls", "ok");
    assert!(document.to_string().contains("Permission denied"), "{document:#}");
}
