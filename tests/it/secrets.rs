//! No secret is anywhere it should not be.

use std::os::unix::fs::PermissionsExt;

use crate::estate::{APPS, Estate, token};
use crate::support::agents::Version;
use crate::support::github::{CLIENT, Github};
use crate::support::host::TestHost;
use crate::support::https::{Fault, GitHttps, hash_of};
use crate::support::isolated;
use crate::support::keys::{KeyPair, Kind};
use crate::support::lfs::{LfsServer, Wrong};
use crate::support::ssh_agent::SshAgent;
use crate::support::sshd::{GitSshd, Options};
use crate::support::upstream::Entry;

#[test]
fn the_token_and_the_key_are_nowhere() {
    for version in [None, Some(Version::One), Some(Version::Two)] {
        let host = version.map_or_else(TestHost::new, TestHost::with_agent);
        let estate = Estate::with_ssh(host);
        let key = std::fs::read_to_string(estate.host.path("secrets/id_ed25519")).expect("the key");
        let line = key.lines().nth(2).expect("a line of it").to_owned();
        let one = estate.release_all("v1");
        estate.want(&one);
        estate.host.run(&["deploy", "-d"]).ok();
        let two = estate.release_all("v2");
        estate.host.breaks("api", "boom");
        estate.want(&two);
        estate.host.run(&["deploy", "-v", "--json"]).code(4);
        estate.host.run(&["status", "--json"]).ok();
        // And when the server refuses it.
        estate.https.revoke();
        let three = estate.release_all("v3");
        estate.want(&three);
        estate.host.run(&["deploy", "-d"]).code(3);
        estate.host.assert_nowhere(&[&estate.token, &line]);
    }
}

/// A GitHub App's key, proofs and tokens, and a helper's password, also when hooks fail and
/// servers refuse.
#[test]
fn what_is_asked_for_at_run_time_is_nowhere() {
    const PASSWORD: &str = "hunter2:@/ and more";
    for version in [None, Some(Version::One), Some(Version::Two)] {
        let host = version.map_or_else(TestHost::new, TestHost::with_agent);
        let mut estate = Estate::new(host);
        let authority = estate.https.authority();
        let helper = "#!/bin/sh\n[ \"$1\" = get ] && cat ${0%/*}/answer\ncat > ${0%/*}/told\n";
        let program = estate.host.secret("helper", helper);
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).expect("its mode");
        estate.host.secret("answer", &format!("username=bot\npassword={PASSWORD}\n"));
        let auth = format!("{{credential_helper: {program}}}");
        estate.host.add_host(&format!("{authority}/acme/worker"), &[("auth", &auth)]);
        let git = GitHttps::start(estate.root());
        let source = |app: &str| git.url(&format!("acme/{app}.git"));
        let sources = [source("gateway"), source("api"), estate.source("worker")];
        let app_authority = git.authority();
        let github = Github::new(git, &["gateway", "api"]);
        let key = estate.host.secret("app.pem", &github.key);
        let auth = format!("{{github_app: {{client_id: {CLIENT}, private_key_file: {key}}}}}");
        let ca = estate.host.text("etc/ca.pem");
        estate.host.add_host(&app_authority, &[("auth", &auth), ("ca_file", &ca)]);
        estate.https.revoke();
        estate.https.grant("acme/", Some("bot"), PASSWORD);
        let want = |releases: &[String; 3]| {
            let line = |n: usize| (APPS[n], sources[n].as_str(), releases[n].as_str());
            estate.host.apps(&[line(0), line(1), line(2)]);
        };
        let one = estate.release_all("v1");
        want(&one);
        estate.host.run(&["deploy", "-d"]).ok();
        estate.assert_deployed(&one);
        estate.host.breaks("api", "boom");
        want(&estate.release_all("v2"));
        estate.host.run(&["deploy", "-v", "--json"]).code(4);
        want(&estate.release_all("v3"));
        estate.https.revoke();
        github.git().inject(Fault::status(401));
        estate.host.run(&["deploy", "-d"]).code(3);
        let line = github.key.lines().nth(5).expect("a line of it").to_owned();
        let (proofs, tokens) = (github.proofs(), github.tokens());
        assert!(proofs.len() >= 4 && tokens.len() >= 2, "{proofs:?} {tokens:?}");
        let mut secrets: Vec<_> = proofs.iter().chain(&tokens).map(String::as_str).collect();
        let coded = openssl::base64::encode_block(format!("bot:{PASSWORD}").as_bytes());
        secrets.extend([line.as_str(), PASSWORD, &coded]);
        estate.host.assert_nowhere(&secrets);
    }
}

/// Keys in files, from commands and in an agent, and their passphrases, also when hooks fail
/// and servers refuse.
#[test]
fn what_ssh_is_given_is_nowhere() {
    /// With spaces and a quote, as people have them.
    const PASSPHRASES: [&str; 2] = ["hunter2 'of the' file", "hunter3-of-the-command"];
    for version in [None, Some(Version::One), Some(Version::Two)] {
        let host = version.map_or_else(TestHost::new, TestHost::with_agent);
        let mut estate = Estate::new(host);
        let dir = estate.host.path("secrets");
        let key =
            |name, passphrase| KeyPair::with_passphrase(&dir, name, Kind::Ed25519, passphrase);
        let keys = [key("gateway", PASSPHRASES[0]), key("api", PASSPHRASES[1]), key("worker", "")];
        let agent = SshAgent::start();
        agent.add(&keys[2], &[]);
        let mut ssh = GitSshd::start_with(estate.root(), &keys, &Options::default());
        let known = estate.host.write("etc/known_hosts", &ssh.known_hosts());
        let passphrase = estate.host.secret("passphrase", PASSPHRASES[1]);
        let api = keys[1].file.display();
        let auth = [
            format!("{{ssh_key_file: {}, passphrase_env: SSH_KEY_WORD}}", keys[0].file.display()),
            format!("{{ssh_key_command: [cat, {api}], passphrase_command: [cat, {passphrase}]}}"),
            "{ssh_agent: true}".to_owned(),
        ];
        for (app, auth) in APPS.iter().zip(&auth) {
            let prefix = format!("{}/acme/{app}", ssh.authority());
            estate.host.add_host(&prefix, &[("auth", auth), ("known_hosts_file", &known)]);
        }
        let socket = agent.socket().display().to_string();
        estate.host.set("SSH_KEY_WORD", PASSPHRASES[0]).set("SSH_AUTH_SOCK", &socket);
        let sources = APPS.map(|app| ssh.url(&format!("acme/{app}.git")));
        let want = |estate: &Estate, releases: &[String; 3]| {
            let line = |n: usize| (APPS[n], sources[n].as_str(), releases[n].as_str());
            estate.host.apps(&[line(0), line(1), line(2)]);
        };
        let one = estate.release_all("v1");
        want(&estate, &one);
        estate.host.run(&["deploy", "-d"]).ok();
        estate.assert_deployed(&one);
        assert_eq!(ssh.refusals(), 0, "{}", ssh.log());
        estate.host.run(&["doctor", "--json"]).ok();
        estate.host.breaks("api", "boom");
        want(&estate, &estate.release_all("v2"));
        estate.host.run(&["deploy", "-d", "--json"]).code(4);
        // A passphrase that is another's, a key that is not wanted any more, a server that is
        // gone.
        want(&estate, &estate.release_all("v3"));
        estate.host.set("SSH_KEY_WORD", PASSPHRASES[1]);
        estate.host.run(&["deploy", "-d"]).code(3).says("another passphrase");
        estate.host.set("SSH_KEY_WORD", PASSPHRASES[0]);
        let stranger = KeyPair::new(&dir, "stranger", Kind::Ed25519);
        let port = ssh.port();
        ssh.stop();
        let options = Options { port, ..Options::default() };
        let mut other = GitSshd::start_with(estate.root(), &[stranger], &options);
        estate.host.write("etc/known_hosts", &other.known_hosts());
        let three = estate.release_all("v4");
        for n in 0..3 {
            estate.host.apps(&[(APPS[n], &sources[n], &three[n])]);
            estate.host.run(&["deploy", "-d", "--json"]).code(3).says(&keys[n].fingerprint);
            assert_eq!(other.refusals(), n + 1, "{}", other.log());
        }
        estate.host.run(&["doctor"]).code(11);
        other.stop();
        estate.host.run(&["deploy", "-d"]).code(3);
        let mut secrets = PASSPHRASES.map(str::to_owned).to_vec();
        // Nor does anybody see the variables.
        secrets.extend(["SSH_AUTH_SOCK=", "SSH_KEY_WORD="].map(str::to_owned));
        for pair in &keys {
            let text = |file: &std::path::Path| std::fs::read_to_string(file).expect("the key");
            let lines =
                |text: &str| text.lines().skip(1).take(4).map(str::to_owned).collect::<Vec<_>>();
            secrets.push(lines(&text(&pair.file)).remove(2));
            // And without the passphrase.
            let open = dir.join("open");
            std::fs::copy(&pair.file, &open).expect("a copy");
            for word in PASSPHRASES {
                let mut change = isolated("ssh-keygen");
                change.args(["-q", "-p", "-N", "", "-P", word, "-f"]).arg(&open);
                drop(change.output().expect("ssh-keygen is installed"));
            }
            secrets.extend(lines(&text(&open)).drain(1..3));
        }
        let secrets: Vec<_> = secrets.iter().map(String::as_str).collect();
        estate.host.assert_nowhere(&secrets);
    }
}

/// What a batch server gives for an object's host, in headers and address, and what an SSH server
/// gives for the batch server; also when downloads fail, and with hooks that see all there is.
#[test]
fn what_git_lfs_is_given_is_nowhere() {
    for version in [None, Some(Version::One), Some(Version::Two)] {
        let host = version.map_or_else(TestHost::new, TestHost::with_agent);
        let mut estate = Estate::with_ssh(host);
        let store = GitHttps::start(estate.root());
        let ca = estate.host.text("etc/ca.pem");
        estate.host.add_host(&store.authority(), &[("ca_file", &ca)]);
        let api = LfsServer::start(&estate.https, "acme/api.git", &store);
        api.require("x-access-token", &estate.token);
        let worker = LfsServer::start(&estate.https, "acme/worker.git", &store);
        let proof = format!("RemoteAuth {}", token());
        worker.grant("Authorization", &proof);
        let href = format!("{}/info/lfs", estate.https.url("acme/worker.git"));
        let answer = serde_json::json!({"href": href, "header": {"Authorization": proof}});
        estate.ssh.as_ref().expect("a server").authenticate_lfs(&answer.to_string());
        let release = |version: &str| {
            let mut releases = estate.release_all(version);
            for (n, server) in [(1, &api), (2, &worker)] {
                releases[n] = estate.upstream(APPS[n]).commit_entries(&[
                    Entry::file(".gitattributes", "*.bin filter=lfs\n"),
                    Entry::file("model.bin", server.put(version.as_bytes())),
                ]);
            }
            let sources = APPS.map(|app| estate.source(app));
            let line = |n: usize| (APPS[n], sources[n].as_str(), releases[n].as_str(), "lfs: true");
            estate.host.apps_with(&[line(0), line(1), line(2)]);
            releases
        };
        let one = release("v1");
        estate.host.run(&["deploy", "-d"]).ok();
        estate.assert_deployed(&one);
        estate.host.breaks("api", "boom");
        release("v2");
        estate.host.run(&["deploy", "-v", "--json"]).code(4);
        for wrong in [Wrong::Status(403), Wrong::Status(500), Wrong::Cut(1), Wrong::Bytes] {
            release(&format!("{wrong:?}"));
            (0..9).for_each(|_| api.inject("", wrong.clone()));
            estate.host.run(&["deploy", "-d"]).code(3);
            api.repair();
        }
        // One that repeats what it was shown.
        for (server, secret) in [(&api, &estate.token), (&worker, &proof)] {
            let said = format!("you are {secret}!");
            server.edit(move |answer| {
                let error = serde_json::json!({"code": 422, "message": said});
                answer["objects"][0]["error"] = error;
            });
        }
        release("v3");
        let _ = estate.host.run(&["deploy", "-d"]).code(3).says("[secret]");
        let mut secrets = [api.keys(), worker.keys()].concat();
        assert!(secrets.len() > 8, "{secrets:?}");
        secrets.extend([proof[11..].to_owned(), estate.token.clone()]);
        let secrets: Vec<_> = secrets.iter().map(String::as_str).collect();
        estate.host.assert_nowhere(&secrets);
        for download in [api.downloads(), worker.downloads()].concat() {
            assert!(!download.sent.contains(&estate.token), "{download:?}");
            assert!(!download.sent.contains(&proof), "{download:?}");
        }
    }
}

#[test]
fn a_token_by_flag_or_variable_reaches_its_host_and_no_child() {
    for by_flag in [false, true] {
        let mut host = TestHost::new();
        if !by_flag {
            host.set("MULTIDEPLOYER_GITHUB_TOKEN", "overwritten below");
        }
        let mut estate = Estate::new(host);
        let authority = estate.https.authority();
        let token = token();
        estate.https.revoke();
        estate.https.grant("acme/", None, &token);
        let one = estate.release_all("v1");
        let ca = estate.host.text("etc/ca.pem");
        let mut text = format!("version: 2\nhosts:\n  \"{authority}\": {{ca_file: {ca}}}\napps:\n");
        for (app, release) in APPS.iter().zip(&one) {
            text += &format!(
                "  - {{name: {app}, source: \"github://{authority}/acme/{app}\", release: \"{release}\"}}\n"
            );
        }
        estate.host.manifest(&text);
        // The first hook sees every command line of the machine.
        if by_flag {
            estate.host.run(&["-g", &token]).ok().says("command line");
        } else {
            estate.host.set("MULTIDEPLOYER_GITHUB_TOKEN", &token);
            estate.host.deploy().ok();
        }
        estate.assert_deployed(&one);
        estate.host.assert_nowhere(&[&token]);
        let environ = estate.host.read("hooks/api.ApplicationStart.environ");
        assert!(!environ.contains("MULTIDEPLOYER_GITHUB_TOKEN="), "{environ}");
    }
}

#[test]
fn a_given_token_goes_to_the_hosts_of_github_sources_only() {
    let mut estate = Estate::new(TestHost::new());
    let public = GitHttps::start(estate.root());
    let token = token();
    let codedeploy = crate::estate::token();
    estate.https.revoke();
    estate.https.grant("acme/", None, &token);
    estate.host.set("MULTIDEPLOYER_GITHUB_TOKEN", &token);
    estate.host.set("CODEDEPLOY_GITHUB_TOKEN", &codedeploy);
    let [gateway, api, _] = estate.release_all("v1");
    let (authority, other) = (estate.https.authority(), public.authority());
    let ca = estate.host.text("etc/ca.pem");
    estate.host.manifest(&format!(
        "version: 2\nhosts: {{\"{authority}\": {{ca_file: {ca}}}, \"{other}\": {{ca_file: {ca}}}}}\napps:\n\
         - {{name: gateway, source: \"github://{authority}/acme/gateway\", release: \"{gateway}\"}}\n\
         - {{name: api, source: \"https://{other}/acme/api.git\", release: \"{api}\"}}\n"
    ));
    estate.host.deploy().ok();
    let shown = hash_of("x-access-token", &token);
    let seen = estate.https.requests();
    assert!(!seen.is_empty() && seen.iter().all(|r| r.authorization.as_ref() == Some(&shown)));
    let seen = public.requests();
    assert!(!seen.is_empty() && seen.iter().all(|r| r.authorization.is_none()), "{seen:?}");
    estate.host.assert_nowhere(&[&token, &codedeploy]);
}

/// Servers, portals and proxies that repeat what they were sent.
#[test]
fn what_a_server_repeats_is_not_passed_on() {
    let estate = Estate::new(TestHost::new());
    let releases = estate.release_all("v1");
    estate.want(&releases);
    let token = &estate.token;
    let coded = openssl::base64::encode_block(format!("x-access-token:{token}").as_bytes());
    // As it stands in an answer that is cut after 200 characters.
    let late = format!("{}{coded}", "x".repeat(180));
    for (fault, words) in [
        (Fault::page(&format!("<title>you sent Basic {coded}</title>")), "you sent Basic [secret]"),
        (Fault::page(&format!("<title>{late}</title>")), "x[secret]"),
        (Fault::babble(&format!("no such user: {token}!")), "no such user: [secret]!"),
        (
            Fault::redirect(302, &format!("https://elsewhere.example/{token}/info/refs")),
            "elsewhere.example/[secret]/info/refs",
        ),
    ] {
        estate.https.inject(fault);
        for (args, code) in
            [(&["deploy", "-d"][..], 3), (&["deploy", "--json"], 3), (&["doctor"], 11)]
        {
            estate.host.run(args).code(code).says(words);
        }
        estate.https.repair();
    }
    estate.host.assert_nowhere(&[token, &coded[..20]]);
    estate.host.deploy().ok();
}

#[test]
fn a_credential_in_a_url_is_refused_and_not_repeated() {
    let host = TestHost::new();
    host.apps(&[("api", "https://user:s3cr3tpass@git.example.com/a/b.git", &"1".repeat(40))]);
    let ran = host.run(&["deploy"]).code(2);
    assert!(!format!("{ran:?}").contains("s3cr3tpass"), "{ran:?}");
    let _ = ran.says("credential");
}

/// Command lines and environments of the program and of all that it starts, as anybody with the
/// right to look sees them, looked at all the time.
#[test]
fn no_process_shows_a_secret_while_it_runs() {
    let estate = Estate::with_ssh(TestHost::new());
    let key = std::fs::read_to_string(estate.host.path("secrets/id_ed25519")).expect("the key");
    let line = key.lines().nth(2).expect("a line of it").to_owned();
    let coded =
        openssl::base64::encode_block(format!("x-access-token:{}", estate.token).as_bytes());
    estate.host.hook("api", "sleep 0.3");
    estate.want(&estate.release_all("v1"));
    let mut running = estate.host.start(&["deploy"]);
    let (mut looks, mut seen) = (0, std::collections::BTreeSet::new());
    let begun = std::time::Instant::now();
    while running.runs() && begun.elapsed().as_secs() < 80 {
        for (pid, _) in estate.host.processes() {
            for name in ["cmdline", "environ"] {
                let text = std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                for secret in [&estate.token, &line, &coded] {
                    assert!(!text.contains(secret.as_str()), "{name} of {pid} shows a secret");
                }
            }
            seen.insert(pid);
        }
        looks += 1;
    }
    running.wait().ok();
    assert!(looks > 10 && seen.len() > 3, "{looks} looks at {seen:?}");
}
