//! Texts of somebody who means harm: appspecs, manifests, and what hooks print.

use std::time::Duration;

use crate::hostile::{Bed, assert_harmless};
use crate::support::host::TestHost;
use crate::support::upstream::{Entry, Upstream};

/// No text takes this long; machines that run tests have pauses.
const SOON: Duration = Duration::from_secs(30);

/// Each list holds the one before ten times.
fn laughs() -> String {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let many = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{many}]\n"));
    }
    text
}

/// Keys that make any document too much, and what is said about it.
fn bombs() -> Vec<(&'static str, String)> {
    vec![
        ("aliases", laughs() + "hooks: *a11\nfiles: *a11\napps: *a11\n"),
        ("a cycle", "hooks: &a {AfterInstall: *a}\nfiles: &b [*b]\napps: &c [*c]\n".into()),
        ("merge keys", "x: &x {<<: *x}\nfiles: [{<<: [*x, *x]}]\napps: [{<<: *x}]\n".into()),
        ("a tag", "files: !ruby/object:Kernel [x]\napps: !!python/object/apply:os.system [x]\n".into()),
        ("depth", format!("files: {}\napps: {}\n", "[".repeat(50_000), "[".repeat(50_000))),
        ("size", format!("# {}\nfiles: 1\napps: 1\n", "x".repeat(5 << 20))),
        ("entries", format!("files:\n{}apps: 1\n", "- {source: [], destination: 1}\n".repeat(100_000))),
        ("a NUL", "files: [\0]\napps: \0\n".into()),
        ("escapes", "\"\\e[2J\\n\\e]0;owned\\a\": \u{9b}31m\nfiles: \"\\u202e\\e[2J\"\napps: \"\\e\\u202e\"\n".into()),
    ]
}

#[test]
fn appspecs_that_lead_elsewhere_or_never_end_are_refused() {
    let bed = Bed::new();
    let one = bed.ones[1].clone();
    let deploy = |appspec: &str| {
        let entries = [Entry::file("appspec.yml", appspec), Entry::link("content/in", "version")];
        bed.bad.commit_on("refs/heads/hostile", Some(&one), &entries)
    };
    let head = "version: 0.0\nos: linux\n";
    let srv = bed.host.text("srv/bad");
    let hook =
        |location: &str| format!("{head}hooks:\n  AfterInstall:\n  - location: {location}\n");
    let files = |source: &str, destination: &str| {
        format!("{head}files:\n- source: {source}\n  destination: {destination}\n")
    };
    for (appspec, named) in [
        (files("../..", &srv), "appspec.yml:4:"),
        (files("content/../../..", &srv), "appspec.yml:4:"),
        (files("/../../etc", &srv), "appspec.yml:4:"),
        (files("/etc/passwd", &srv), "appspec.yml:4:"),
        (files("\"content/\\e[2J\"", &srv), r"content/\u{1b}[2J"),
        (files("content", &format!("\"{srv}/a\\nb\"")), "appspec.yml:"),
        (files("content", &format!("\"{srv}/a\\0b\"")), "appspec.yml:"),
        (hook("../../../../bin/sh"), "appspec.yml:5:"),
        (hook("/bin/sh"), "appspec.yml:5:"),
        (hook("scripts/../../../x"), "appspec.yml:5:"),
        (hook("\"scripts/\\e]0;owned\\a\""), "appspec.yml:5:"),
        (hook("\"scripts/hook.sh\\u202e\""), r"\u{202e}"),
        (format!("{head}hooks:\n  \"\\e[2JStart\": []\n"), r"\u{1b}[2JStart"),
        ("\u{feff}\u{1}".into(), "appspec.yml:1:"),
        (String::new(), "appspec.yml"),
    ] {
        bed.refused(&deploy(&appspec), named);
    }
    for (what, bomb) in bombs() {
        let commit = deploy(&format!("{head}{bomb}"));
        let ran = bed.deploy(&commit, "").code(7).within(SOON);
        let _ = ran.stderr_has("bad").stderr_has("appspec.yml:");
        assert!(bed.host.reports().is_empty(), "{what}");
        assert_eq!(bed.host.installed("bad"), "1", "{what}");
    }
    let encoded: Vec<u8> = head.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for content in [b"\xff\xfe\0\0".to_vec(), encoded, vec![0; 100_000]] {
        let entries = [Entry::file("appspec.yml", content)];
        bed.refused(&bed.bad.commit_on("refs/heads/hostile", Some(&one), &entries), "appspec.yml");
    }
    for entry in [Entry::file("appspec.yml/x", "y"), Entry::submodule("appspec.yml", &one)] {
        let entries = [Entry::gone("appspec.yml"), entry];
        bed.refused(&bed.bad.commit_on("refs/heads/hostile", Some(&one), &entries), "appspec.yml");
    }
}

#[test]
fn manifests_and_machine_files_that_never_end_are_refused() {
    let host = TestHost::new();
    for (what, bomb) in bombs() {
        for version in ["1.0", "2"] {
            host.manifest(&format!("version: {version}\n{bomb}"));
            for command in ["deploy", "check", "plan"] {
                let ran = host.run(&[command]).code(2).within(SOON);
                assert_harmless(&ran);
                assert!(format!("{ran:?}").contains("multideployer.yaml"), "{what}: {ran:?}");
            }
            let ran = host.run(&["deploy", "--json"]).code(2).within(SOON);
            assert_harmless(&ran);
            assert_eq!(ran.json()["exit_code"], 2, "{what}");
        }
        host.manifest("version: 2\napps: []\n");
        let file = host.write("etc/config.yaml", &bomb.replace("files:", "hosts:"));
        let ran = host.run(&["deploy", "--machine-config", &file]).code(2).within(SOON);
        assert_harmless(&ran);
    }
    assert!(!host.path("cache/mirrors").exists());
}

/// What hooks print is shown without what a terminal would obey: as it runs, in the failure,
/// in a hook's block, in the log and its command.
#[test]
fn what_hooks_print_never_reaches_the_terminal_raw() {
    let shell = r"printf '\033[2J\033]0;owned\007\rX\b\033P\302\23331m \342\200\256evil\377\000\n'
printf '\033[31mred\n' >&2
case $LIFECYCLE_EVENT in ApplicationStart) exit 7 ;; esac";
    for in_hook in [false, true] {
        let mut host = TestHost::new();
        if in_hook {
            host.in_hook();
        }
        let upstream = Upstream::new(host.path("upstream"), "api.git");
        let commit = host.release(&upstream, "api", "1");
        host.apps(&[("api", &upstream.dir().display().to_string(), &commit)]);
        host.hook("api", shell);
        for arguments in
            [&["deploy"] as &[&str], &["deploy", "-v"], &["deploy", "-d"], &["deploy", "--json"]]
        {
            let ran = host.run(arguments).code(4);
            assert_harmless(&ran);
            assert!(ran.stdout.contains("red") || ran.stderr.contains("red"), "{ran:?}");
        }
        for arguments in [&["logs", "api"] as &[&str], &["status"], &["history"]] {
            let ran = host.run(arguments);
            assert_harmless(&ran);
        }
        let log = host.read("log/multideployer.log");
        assert!(
            log.contains("red") && !log.contains(['\u{1b}', '\u{202e}', '\u{7}', '\r']),
            "{log}"
        );
    }
}
