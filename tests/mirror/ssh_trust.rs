//! Which host keys are accepted over SSH: `known_hosts` as ssh-keygen and people write it,
//! against OpenSSH's own server.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use multideployer::domain::RepoUrl;
use multideployer::mirror::examine::{self, AcceptedKey};
use multideployer::mirror::{Failure, Progress, Remote, Trust};

use crate::ssh::Bed;
use crate::support::isolated;
use crate::support::keys::{KeyPair, Kind};
use crate::support::proxy::ConnectProxy;
use crate::support::sshd::{GitSshd, Options};
use crate::{fetch, text, through};

/// A name that only the proxy knows.
const NAME: &str = "git.example.test";

/// A server with three kinds of host keys that is at every port of [`NAME`].
struct Named {
    bed: Bed,
    _proxy: ConnectProxy,
}

impl Named {
    fn new() -> Self {
        let host_keys = vec![Kind::Ed25519, Kind::Ecdsa, Kind::Rsa];
        let mut bed = Bed::new(&Options { host_keys, ..Options::default() });
        let _ = bed.upstream.commit(&[("a", "1")]);
        let ports = [22, 122, 2222].map(|port| format!("{NAME}:{port}"));
        let to = bed.server.authority();
        let proxy = ConnectProxy::start(&ports.each_ref().map(|name| (name.as_str(), to.as_str())));
        bed.remote.proxy = Some(through(&proxy, None));
        Self { bed, _proxy: proxy }
    }

    fn at(&self, port: u16) -> Remote {
        let (user, host) = (GitSshd::user(), NAME.to_owned());
        let url = RepoUrl::Ssh { user, host, port, path: "/acme/api.git".into() };
        Remote { url, ..self.bed.remote.clone() }
    }

    /// The host key of a kind, as it stands in `known_hosts`.
    fn key(&self, kind: Kind) -> &KeyPair {
        let keys = self.bed.server.host_keys();
        keys.iter().find(|pair| pair.public.starts_with(prefix(kind))).expect("one of its keys")
    }

    fn file(&self) -> std::path::PathBuf {
        self.bed.dir.path().join("known_hosts")
    }

    /// Lists the repository with these lines in the file; warnings come back too.
    fn ask(&self, port: u16, lines: &str) -> (Result<AcceptedKey, Failure>, Vec<String>) {
        self.bed.know(lines);
        ask(&self.at(port))
    }
}

fn ask(remote: &Remote) -> (Result<AcceptedKey, Failure>, Vec<String>) {
    let warnings = RefCell::new(Vec::new());
    let (seen, listed) = examine::list(remote, &|progress| {
        if let Progress::Warning(text) = progress {
            warnings.borrow_mut().push(text);
        }
    });
    let key = listed.map(|_| seen.host_key.expect("it was seen"));
    (key, warnings.into_inner())
}

fn prefix(kind: Kind) -> &'static str {
    match kind {
        Kind::Ed25519 => "ssh-ed25519",
        Kind::Ecdsa => "ecdsa-sha2-nistp256",
        Kind::Ecdsa384 => "ecdsa-sha2-nistp384",
        Kind::Ecdsa521 => "ecdsa-sha2-nistp521",
        Kind::Rsa => "ssh-rsa",
    }
}

/// The lines with their names hashed by ssh-keygen.
fn hashed(dir: &Path, lines: &str) -> String {
    let file = dir.join("to_hash");
    fs::write(&file, lines).expect("the file");
    let done = isolated("ssh-keygen").arg("-H").arg("-f").arg(&file).output().expect("ssh-keygen");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let hashed = fs::read_to_string(&file).expect("what it wrote");
    assert!(hashed.starts_with("|1|") && !hashed.contains("example"), "{hashed}");
    hashed
}

#[test]
fn lines_as_ssh_keygen_and_people_write_them_are_accepted() {
    let named = Named::new();
    let [ed, ecdsa, rsa] =
        [Kind::Ed25519, Kind::Ecdsa, Kind::Rsa].map(|kind| named.key(kind).public.clone());
    let dir = named.bed.dir.path();
    let stranger = KeyPair::new(dir, "stranger", Kind::Ed25519).public;
    let port = format!("[{NAME}]:2222");
    let both = hashed(dir, &format!("{NAME} {ed}\n{port} {ed}\n"));
    for (port, lines, kind, line) in [
        (22, format!("{NAME} {ed}\n"), "ssh-ed25519", 1),
        (22, format!("{NAME} {ecdsa}\n"), "ecdsa-sha2-nistp256", 1),
        // Then it is asked for that one, though the server likes others better.
        (22, format!("{NAME} {rsa}\n"), "ssh-rsa", 1),
        (22, format!("{NAME} {rsa}\n{NAME} {ecdsa}\n"), "ecdsa-sha2-nistp256", 2),
        (22, both.clone(), "ssh-ed25519", 1),
        (2222, both, "ssh-ed25519", 2),
        (22, hashed(dir, &format!("{NAME} {rsa}\n")), "ssh-rsa", 1),
        (2222, format!("{NAME} {stranger}\n{port} {ed}\n"), "ssh-ed25519", 2),
        // Good for every port, if none is written for this one.
        (2222, format!("{NAME} {ed}\n"), "ssh-ed25519", 1),
        (2222, hashed(dir, &format!("{NAME} {rsa}\n")), "ssh-rsa", 1),
        (22, format!("other.test,*.EXAMPLE.test,10.0.0.1 {rsa} root@git\n"), "ssh-rsa", 1),
        (22, format!("git.example.tes? {ed}\n"), "ssh-ed25519", 1),
        (2222, format!("[*.example.test]:2222 {ed}\n"), "ssh-ed25519", 1),
        (22, format!("*.test,!git.example.test {stranger}\n{NAME} {ed}\n"), "ssh-ed25519", 2),
        (22, format!("# a comment\r\n\r\n \t{NAME}\t{ed}\r\n"), "ssh-ed25519", 3),
        // The key of another kind is revoked, or another key of this kind.
        (22, format!("@revoked * {rsa}\n{NAME} {ed}\n"), "ssh-ed25519", 2),
        (22, format!("@revoked {NAME} {stranger}\n{NAME} {ed}\n"), "ssh-ed25519", 2),
        (22, format!("@cert-authority *.test {stranger}\n{NAME} {ed}\n"), "ssh-ed25519", 2),
    ] {
        let (key, warnings) = named.ask(port, &lines);
        let key = key.unwrap_or_else(|failure| panic!("{lines}: {}", text(&failure)));
        let place = format!("{}:{line}", named.file().display());
        assert_eq!((key.kind.as_str(), key.accepted_by), (kind, place), "{lines}");
        assert_eq!(warnings, Vec::<String>::new(), "{lines}");
    }
}

#[test]
fn a_line_that_is_garbage_costs_a_warning_and_not_the_file() {
    let named = Named::new();
    let good = format!("{NAME} {}\n", named.key(Kind::Ed25519).public);
    for garbage in [
        "<<<<<<< HEAD",
        "git.example.test",
        "git.example.test ssh-ed25519 AAAA",
        "git.example.test ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIA==",
        "@unknown-marker git.example.test ssh-ed25519 AAAA",
        "|1|broken ssh-ed25519",
        "\u{fffd}\0\u{1b}[31m",
    ] {
        let (key, warnings) = named.ask(22, &format!("{garbage}\n{good}"));
        let key = key.unwrap_or_else(|failure| panic!("{garbage}: {}", text(&failure)));
        assert!(key.accepted_by.ends_with("known_hosts:2"), "{key:?}");
        let [warning] = warnings.as_slice() else { panic!("{garbage}: {warnings:?}") };
        assert!(warning.contains("known_hosts:1: not a line of known_hosts"), "{warning}");
        assert!(!warning.contains('\u{1b}'), "{warning:?}");
    }
    // A hash that is none is nobody's name.
    let (key, _) = named.ask(22, &format!("|1|x|y {}", named.key(Kind::Ed25519).public));
    assert!(matches!(key, Err(Failure::UnknownHostKey(_))), "{key:?}");
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Unknown,
    Changed,
    Revoked,
}

#[test]
fn unknown_changed_and_revoked_say_what_is_wrong_and_what_to_write_where() {
    let mut named = Named::new();
    let dir = named.bed.dir.path().to_owned();
    let keys = [Kind::Ed25519, Kind::Ecdsa, Kind::Rsa].map(|kind| named.key(kind).clone());
    let [ed, ecdsa, rsa] = keys.each_ref().map(|pair| pair.public.clone());
    let stranger = KeyPair::new(&dir, "stranger", Kind::Ed25519);
    let other = stranger.public.clone();
    let place = |line: usize| format!("known_hosts:{line}");
    let new = |port: &str| format!("`{port} {ed}`");
    let all_revoked = format!("@revoked * {ed}\n@revoked * {ecdsa}\n@revoked * {rsa}\n");
    let at_2222 = format!("[{NAME}]:2222");
    for (port, lines, verdict, words) in [
        (22, String::new(), Verdict::Unknown, vec!["not known".into(), new(NAME)]),
        (2222, String::new(), Verdict::Unknown, vec![at_2222.clone(), new(&at_2222)]),
        (22, format!("{at_2222} {ed}\n"), Verdict::Unknown, vec![new(NAME)]),
        (22, format!("*.test,!{NAME} {ed}\n"), Verdict::Unknown, vec![new(NAME)]),
        (22, hashed(&dir, &format!("x.test {ed}\n")), Verdict::Unknown, vec![new(NAME)]),
        (
            22,
            format!("# CA\n@cert-authority *.example.test {ed}\n"),
            Verdict::Unknown,
            vec![place(2), "@cert-authority".into(), "not supported".into(), new(NAME)],
        ),
        (
            22,
            format!("\n{NAME} {other}\n"),
            Verdict::Changed,
            vec!["CHANGED".into(), place(2), stranger.fingerprint.clone(), new(NAME)],
        ),
        (22, format!("*.test {other}\n"), Verdict::Changed, vec![place(1)]),
        (22, hashed(&dir, &format!("{NAME} {other}\n")), Verdict::Changed, vec![place(1)]),
        (2222, format!("{NAME} {other}\n"), Verdict::Changed, vec![place(1), new(&at_2222)]),
        // The line for the port decides.
        (2222, format!("{NAME} {ed}\n{at_2222} {other}\n"), Verdict::Changed, vec![place(2)]),
        (22, format!("@revoked {NAME} {ed}\n"), Verdict::Revoked, vec!["REVOKED".into(), place(1)]),
        (22, format!("{NAME} {ed}\n@revoked * {ed}\n"), Verdict::Revoked, vec![place(2)]),
        (2222, hashed_revoked(&dir, &ed) + &all_revoked, Verdict::Revoked, vec![place(1)]),
    ] {
        let (key, _) = named.ask(port, &lines);
        let failure = key.expect_err(&lines);
        let shown = text(&failure);
        let (key, found) = match &failure {
            Failure::UnknownHostKey(key) => (key, Verdict::Unknown),
            Failure::ChangedHostKey(key) => (key, Verdict::Changed),
            Failure::RevokedHostKey(key) => (key, Verdict::Revoked),
            failure => panic!("{lines}: {failure}"),
        };
        assert_eq!(found, verdict, "{lines}: {shown}");
        let all = format!("{failure}; {}", failure.hint().expect("a hint"));
        for word in words {
            assert!(all.contains(&word), "{lines}: no {word} in {all}");
        }
        assert!(all.contains(&keys[0].fingerprint), "{lines}: {all}");
        if verdict == Verdict::Revoked {
            // Nobody is told how to trust it.
            assert!(!all.contains(&ed), "{lines}: {all}");
        } else {
            let file = named.file().display().to_string();
            assert!(all.contains(&format!("looked in `{file}`")), "{lines}: {all}");
            // With that line, it is.
            let (key, _) = named.ask(port, &format!("{}\n", key.line));
            assert!(key.is_ok(), "{lines}: {key:?}");
        }
    }
    assert_eq!(named.bed.server.refusals(), 0, "no key was offered to a server that is not known");
    // And so does what a fetch does.
    let commit = named.bed.upstream.commit(&[("a", "2")]);
    for plain in [false, true] {
        named.bed.know("");
        let mut remote = Remote { plain, ..named.at(22) };
        if plain {
            let url = crate::ssh::url(&named.bed.server, "/acme/api.git");
            remote = Remote { url, proxy: None, ..remote };
        }
        let failure = fetch(&mut named.bed.mirror, &commit, &remote).expect_err("not known");
        assert!(matches!(failure, Failure::UnknownHostKey(_)), "{failure}");
    }
}

/// `ssh-keygen -H` leaves lines with a marker alone, so the name is taken from another one.
fn hashed_revoked(dir: &Path, key: &str) -> String {
    format!("@revoked {}", hashed(dir, &format!("[{NAME}]:2222 {key}\n")))
}

#[test]
fn pins_decide_alone_whatever_the_files_say_and_any_kind_will_do() {
    let named = Named::new();
    let stranger = KeyPair::new(named.bed.dir.path(), "stranger", Kind::Ed25519);
    let pinned = |pins: &[&str]| {
        let host_keys = Some(pins.iter().map(|pin| (*pin).to_owned()).collect());
        let trust = Trust { host_keys, ..named.bed.remote.trust.clone() };
        ask(&Remote { trust, ..named.at(122) }).0
    };
    // The file knows all and counts for nothing; with port 122 it is said what that is.
    let line = |key: &KeyPair| format!("{NAME} {}", key.public);
    let all: Vec<_> = named.bed.server.host_keys().iter().map(line).collect();
    named.bed.know(&all.join("\n"));
    for pair in named.bed.server.host_keys() {
        let key = pinned(&[&stranger.fingerprint, &pair.fingerprint]).expect("one of the pins");
        assert_eq!(
            (&key.fingerprint, key.accepted_by.as_str()),
            (&pair.fingerprint, "`host_keys`")
        );
    }
    let failure = pinned(&[&stranger.fingerprint]).expect_err("another key");
    let Failure::ChangedHostKey(key) = &failure else { panic!("{failure}") };
    let all = format!("{failure}; {}", failure.hint().expect("a hint"));
    for word in [
        "CHANGED",
        &stranger.fingerprint,
        &format!("put `{}` into `host_keys`", key.fingerprint),
        "looked in the `host_keys` given for this host",
        "administrators' shell",
    ] {
        assert!(all.contains(word), "no {word} in {all}");
    }
    assert!(!all.contains("known_hosts"), "{all}");
}
