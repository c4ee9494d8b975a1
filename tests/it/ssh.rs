//! Private repositories over SSH, by the real program.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::host::TestHost;
use crate::support::https::GitHttps;
use crate::support::keys::{KeyPair, Kind};
use crate::support::proxy::ConnectProxy;
use crate::support::relay::{Relay, Way};
use crate::support::ssh_agent::SshAgent;
use crate::support::sshd::GitSshd;
use crate::support::upstream::Upstream;
use crate::support::wait_until;

/// A name that only the proxy knows.
const NAME: &str = "git.example.test";

/// A host, a repository, and a server that gives it to the owner of a key.
struct Bed {
    host: TestHost,
    upstream: Upstream,
    key: KeyPair,
    server: GitSshd,
    _root: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let host = TestHost::new();
        let root = tempfile::tempdir().expect("a directory");
        let upstream = Upstream::new(root.path(), "acme/api.git");
        let key = KeyPair::new(&host.path("secrets"), "id", Kind::Ed25519);
        let server = GitSshd::start(root.path(), &key);
        Self { host, upstream, key, server, _root: root }
    }

    /// `auth` that works.
    fn auth(&self) -> String {
        format!("{{ssh_key_file: {}}}", self.key.file.display())
    }

    /// The server's lines for every port of a name.
    fn known(&self, name: &str) -> String {
        let own = format!("[127.0.0.1]:{}", self.server.port());
        self.server.known_hosts().replace(&own, name)
    }

    fn source(authority: &str) -> String {
        format!("ssh://{}@{authority}/acme/api.git", GitSshd::user())
    }
}

/// An agent that waits for a person to confirm each use of the key, who does not. It does
/// nothing else meanwhile, so that is soon over.
fn asking(bed: &Bed) -> SshAgent {
    let ask = format!("#!/bin/sh\ntouch {}\nsleep 6; exit 1\n", bed.host.text("waits"));
    let ask = PathBuf::from(bed.host.secret("askpass", &ask));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&ask, mode).expect("its mode");
    let agent = SshAgent::asking(&ask);
    agent.add(&bed.key, &["-c"]);
    agent
}

#[test]
fn sigterm_ends_the_program_whatever_it_waits_for_over_ssh() {
    let mut bed = Bed::new();
    let number = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string();
    let noise: Vec<_> = (0..20_000).map(number).collect();
    let commit = bed.upstream.commit(&[("a", &noise.join("\n"))]);
    let known = bed.known("127.0.0.1");
    let known = bed.host.write("etc/known_hosts", &known);
    let waits = bed.host.path("waits");
    let agent = asking(&bed);
    let https = GitHttps::start(bed.upstream.dir().parent().expect("a parent"));
    let waiting = format!("[sh, -c, \"touch {}; sleep 60; true\"]", waits.display());
    let (ssh, file) = (bed.server.authority(), bed.key.file.display().to_string());
    let network = [Way::Silent, Way::Banner, Way::Stall(2400), Way::Stall(40_000)];
    let network = network.into_iter().chain([Way::Drip(40_000)]);
    let relays: Vec<_> = network.map(|way| Relay::start(&ssh, way)).collect();
    let mut cases: Vec<_> = relays
        .iter()
        .map(|relay| (format!("127.0.0.1:{}", relay.port()), bed.auth(), Some(relay)))
        .collect();
    let commands = [
        format!("{{ssh_key_command: {waiting}}}"),
        format!("{{ssh_key_file: {file}, passphrase_command: {waiting}}}"),
        format!("{{ssh_agent: {{socket: {}}}}}", agent.socket().display()),
    ];
    cases.extend(commands.map(|auth| (ssh.clone(), auth, None)));
    cases.push((https.authority(), format!("{{token_command: {waiting}}}"), None));
    for (authority, auth, relay) in &cases {
        std::fs::remove_file(&waits).ok();
        let source = if *authority == https.authority() {
            format!("https://{authority}/api.git")
        } else {
            Bed::source(authority)
        };
        bed.host.manifest(&format!(
            "version: 2\nhosts: {{\"{authority}\": {{auth: {auth}, known_hosts_file: {known}}}}}\n\
             apps: [{{name: api, source: \"{source}\", release: \"{commit}\"}}]\n"
        ));
        for command in ["deploy", "doctor"] {
            if command == "doctor" && relay.is_some() {
                continue;
            }
            std::fs::remove_file(&waits).ok();
            let run = bed.host.start(&[command]);
            wait_until(auth, Duration::from_secs(30), || match relay {
                Some(relay) => relay.held() > 0,
                None => waits.exists(),
            });
            std::thread::sleep(Duration::from_millis(200));
            let sent = Instant::now();
            run.signal(Signal::SIGTERM);
            let ran = run.wait();
            let took = sent.elapsed();
            let ran = ran.code(143);
            assert!(took < Duration::from_secs(4), "{command} {auth}: {took:?} {ran:?}");
            let left = bed.host.processes();
            let left: Vec<_> = left.iter().filter(|(_, line)| line.contains("touch")).collect();
            assert!(left.is_empty(), "{command} {auth}: {left:?}");
        }
    }
    // Nothing of it is in the way.
    bed.host.add_host(&ssh, &[("auth", &bed.auth()), ("known_hosts_file", &known)]);
    let release = bed.host.release(&bed.upstream, "api", "v1");
    bed.host.apps(&[("api", &Bed::source(&ssh), &release)]);
    bed.host.deploy().ok();
    assert_eq!(bed.host.installed("api"), "v1");
}

/// In hooks of the agent there is no HOME, or somebody else's: the user database says where
/// root's files are.
#[test]
fn the_usual_known_hosts_are_found_without_home_and_for_the_whole_machine() {
    let mut bed = Bed::new();
    let ssh = bed.server.authority();
    bed.host.add_host(&ssh, &[("auth", &bed.auth())]);
    let release = bed.host.release(&bed.upstream, "api", "v1");
    bed.host.apps(&[("api", &Bed::source(&ssh), &release)]);
    // The machine's own files are left alone: the program sees others in their place.
    let home = bed.host.text("roots-home");
    let passwd = bed.host.write("passwd", &format!("root:x:0:0:root:{home}:/bin/sh\n"));
    let machine = bed.host.text("machine");
    bed.host.write("machine/sshd_config", "");
    bed.host.write("roots-home/.ssh/config", "");
    let line = bed.server.known_hosts();
    let other = KeyPair::new(&bed.host.path("secrets"), "other", Kind::Ed25519);
    let changed = format!("[127.0.0.1]:{} {}\n", bed.server.port(), other.public);
    let own = bed.host.text("home/.ssh/known_hosts");
    for (home_is, roots, machines, code, words) in [
        (None, "", "", 3, vec!["not known", "roots-home/.ssh/known_hosts`", "ssh_known_hosts`"]),
        (Some(""), "", "", 3, vec!["not known", "roots-home/.ssh/known_hosts`"]),
        (None, "", changed.as_str(), 3, vec!["CHANGED", "/etc/ssh/ssh_known_hosts:1"]),
        (None, line.as_str(), "", 0, vec![]),
        (Some(""), "", line.as_str(), 0, vec![]),
        (Some("elsewhere"), line.as_str(), "", 0, vec![]),
        (None, "garbage\n", line.as_str(), 0, vec!["known_hosts:1: not a line"]),
    ] {
        std::fs::remove_dir_all(bed.host.path("cache")).ok();
        match home_is {
            Some("elsewhere") => bed.host.set("HOME", &bed.host.text("home")),
            Some(home) => bed.host.set("HOME", home),
            None => bed.host.unset("HOME"),
        };
        bed.host.write("roots-home/.ssh/known_hosts", roots);
        bed.host.write("machine/ssh_known_hosts", machines);
        // Not root's: it does not count.
        bed.host.write("home/.ssh/known_hosts", &changed);
        let program = bed.host.command(&["deploy", "-f"]);
        let mut command = std::process::Command::new("unshare");
        command.env_clear().envs(program.get_envs().filter_map(|(k, v)| Some((k, v?))));
        command.current_dir(bed.host.dir()).args(["-rm", "sh", "-c"]).arg(
            "mount --bind \"$1\" /etc/passwd && mount --bind \"$2\" /etc/ssh && shift 2 && exec \"$@\"",
        );
        command.args(["sh", &passwd, &machine]).arg(program.get_program()).args(program.get_args());
        let mut ran = bed.host.start_command(command).wait().code(code);
        for word in words {
            ran = ran.says(word);
        }
        drop(ran.silent_about(&own));
    }
    assert_eq!(bed.host.installed("api"), "v1");
}

/// Port 122 of GitHub Enterprise Server is not git's.
#[test]
fn port_122_is_explained_when_its_key_is_unknown_or_another() {
    let mut bed = Bed::new();
    let at = format!("{NAME}:122");
    let proxy = ConnectProxy::start(&[(&at, &bed.server.authority())]);
    let known = bed.host.write("etc/known_hosts", "");
    let proxy = format!("\"{}\"", proxy.url());
    let keys = [("auth", bed.auth()), ("known_hosts_file", known), ("proxy", proxy)];
    let keys = keys.each_ref().map(|(key, value)| (*key, value.as_str()));
    bed.host.add_host(&at, &keys);
    let release = bed.host.release(&bed.upstream, "api", "v1");
    bed.host.apps(&[("api", &Bed::source(&at), &release)]);
    let other = KeyPair::new(&bed.host.path("secrets"), "other", Kind::Ed25519);
    let own = &bed.server.host_keys()[0];
    for (text, verdict) in [
        (String::new(), "is not known"),
        // As it is when the line is that of git's own port.
        (format!("{NAME} {}\n", other.public), "has CHANGED"),
    ] {
        bed.host.write("etc/known_hosts", &text);
        for command in ["deploy", "doctor"] {
            let code = if command == "deploy" { 3 } else { 11 };
            let ran = bed.host.run(&[command]).code(code).says(verdict);
            let ran = ran.says("port 122").says("administrators' shell").says("git is on port 22");
            drop(ran.says(&own.fingerprint).says(&format!("[{NAME}]:122 {}", own.public)));
        }
        let document = bed.host.run(&["doctor", "--json"]).code(11).json();
        let sections = document["sections"].as_array().expect("sections");
        let findings = sections.iter().flat_map(|s| s["findings"].as_array().expect("a list"));
        let found: Vec<_> = findings.filter(|f| f["check"] == "host_key").collect();
        let [key] = found.as_slice() else { panic!("{document:#}") };
        assert!(key["remedy"].as_str().is_some_and(|t| t.contains("git is on port 22")), "{key}");
    }
}
