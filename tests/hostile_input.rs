//! What people and repositories write is read as root: whatever the text, reading it ends
//! soon, and with a value or an error.
//!
//! The damage is random but always the same (a fixed seed), so that a failure can be looked
//! at again. `ROUNDS` is chosen for a few seconds; set `HOSTILE_ROUNDS` to look longer.

use std::path::Path;
use std::time::{Duration, Instant};

use multideployer::codedeploy;
use multideployer::domain::{AppName, RefName, RepoUrl, Revision};
use multideployer::engine::appspec;
use multideployer::ledger::last_state::LastState;
use multideployer::manifest::{self, Defaults};
use multideployer::yaml;

const ROUNDS: usize = 3_000;
/// For one text. What is measured takes milliseconds; machines that run tests have pauses.
const SOON: Duration = Duration::from_secs(5);

const FIRST: &str = "\
# what runs on the web tier
version: 1.0
x-common: &common {force: no, source: github://acme/api}
apps:
  - name: api
    source: github://acme/api
    release: 91ab77cd0e5f2f7f0a6c1b3f5d7e9a1b2c3d4e5f
    force: yes
  - {<<: *common, name: 'web', release: \"12345e6\"}
";

const SECOND: &str = "\
version: 2
defaults: {source_host: git.example.com:8443, allow_ref: true, env: {A: 'b'}}
hosts:
  git.example.com/acme:
    auth: {token_file: /etc/token}
    username: bot
    ca_file: ca.pem
  ssh.example.com:2222:
    auth: {ssh_key_file: key}
    host_keys: [\"SHA256:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg\"]
apps:
  - name: api
    source: https://git.example.com:8443/acme/api.git
    release: 91ab77cd0e5f2f7f0a6c1b3f5d7e9a1b2c3d4e5f
    path: services/api
    appspec: deploy/appspec.yml
    enabled: on
    env:
      MOTD: |
        two
        lines
    file_exists: overwrite
    skip_events: [ApplicationStop]
    symlinks: safe
    export_ignore: false
  - {name: web, source: 'git@ssh.example.com:web/web.git', release: main}
  - {name: cli, source: \"ssh://git@ssh.example.com:2222/~/cli\", release: v1}
  - {name: tool, source: file:///srv/git/tool.git, release: 1234567}
";

const APPSPEC: &str = "\
version: 0.0
os: linux
files:
  - source: /
    destination: /srv/api
file_exists_behavior: OVERWRITE
permissions:
  - object: /srv/api
    pattern: '*.sh'
    except: [a, 'b*']
    owner: www-data
    group: 33
    mode: 0755
    acls: ['u:bob:rw', 'default:group::r-x']
    context: {user: system_u, type: httpd_sys_content_t, range: s0-s0:c0.c1023}
    type: [file, directory]
hooks:
  BeforeInstall: &hook
    - location: scripts/stop.sh
      timeout: 1_000
      runas: root
      sudo: false
  AfterInstall: *hook
  ApplicationStart:
    - {location: \" a b.sh \", timeout: '5s'}
";

const STATE: &str =
    "api: {release: 12345e6}\nweb:\n  release: '0123456'\n  source: https://x/y.git\n";

const AGENT: &str = ":root_dir: '/opt/codedeploy-agent/deployment-root'\n:max_revisions: 5\n";

/// Sources of an app, of all forms.
const SOURCES: &[&str] = &[
    "github://acme/api",
    "github://git.example.com:8443/acme/api",
    "https://git.example.com:443/acme/api.git",
    "https://[2001:db8::1]:8443/acme/api",
    "ssh://git@git.example.com:2222/srv/git/api.git",
    "ssh://git@[::1]/~user/api",
    "git@git.example.com:acme/api.git",
    "file:///srv/git/api.git",
    "../api",
    "/srv/git/api.git",
    "https://user:password@git.example.com/x?y#z",
    "%2e%2e://\\host/%zz",
];

/// Pieces of syntax that damage is made of.
const PIECES: &[&str] = &[
    "\n",
    "\r\n",
    "\t",
    " ",
    "- ",
    ": ",
    "? ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "!",
    "!!str ",
    "!<x>",
    "&a ",
    "*a",
    "<<: ",
    "|",
    "|+9\n",
    ">-",
    "'",
    "\"",
    "\\",
    "\\x4",
    "#",
    "%TAG ! x\n",
    "---\n",
    "...\n",
    "~",
    "\0",
    "\u{1b}[2J",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "\u{202e}",
    "é",
    "😀",
    "..",
    "/",
    "//",
    "@",
    ":",
    "%",
    "0x",
    "1e999",
    "99999999999999999999999999",
    "-1",
    "true",
    ".nan",
    "2001-01-01",
    "::",
    "[::",
    "]:",
];

/// Bytes that are no text.
const BYTES: &[&[u8]] =
    &[b"\xff", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\x80", b"\xf5"];

/// Xorshift: enough for damage, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // Where a `usize` is smaller, what is cut off is random as well.
        usize::try_from(self.0 & 0x7fff_ffff).unwrap_or_default() % limit.max(1)
    }

    fn of<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }

    /// A part of a text.
    fn range(&mut self, text: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(text.len() + 1);
        let end = (start + self.below(40)).min(text.len());
        start..end
    }

    /// The text with one to five damages.
    fn damaged(&mut self, text: &[u8]) -> Vec<u8> {
        let mut text = text.to_vec();
        for _ in 0..=self.below(5) {
            let range = self.range(&text);
            let start = range.start;
            match self.below(8) {
                0 => drop(text.drain(range)),
                1 => text.truncate(start),
                2 => {
                    let part = text[range].to_vec();
                    let at = self.below(text.len() + 1);
                    text.splice(at..at, part);
                }
                3 => {
                    let part = text[range].repeat(1 + self.below(200));
                    text.splice(start..start, part);
                }
                4 => drop(text.splice(start..start, self.of(BYTES).iter().copied())),
                5 if start < text.len() => text[start] ^= 1 << self.below(8),
                _ => {
                    let piece = self.of(PIECES).repeat(1 + self.below(3));
                    text.splice(start..start, piece.bytes());
                }
            }
        }
        text
    }
}

fn rounds() -> usize {
    std::env::var("HOSTILE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

/// Reads a text; a panic or a long wait is shown with it.
#[track_caller]
fn survives(text: &[u8], read: impl Fn(&[u8])) {
    let start = Instant::now();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(text)));
    let took = start.elapsed();
    let shown = || text.escape_ascii().to_string().chars().take(4_000).collect::<String>();
    assert!(result.is_ok(), "panicked over \"{}\"", shown());
    assert!(took < SOON, "took {took:?} over {} bytes: \"{}\"", text.len(), shown());
}

/// Every beginning of the texts, and random damage to them.
fn damage(seed: u64, texts: &[&str], read: impl Fn(&[u8])) {
    damage_for(rounds(), seed, texts, read);
}

/// The same, for a number of rounds: what reads files takes its time.
fn damage_for(rounds: usize, seed: u64, texts: &[&str], read: impl Fn(&[u8])) {
    let mut random = Random(seed);
    for text in texts {
        for end in 0..=text.len() {
            survives(&text.as_bytes()[..end], &read);
        }
    }
    for _ in 0..rounds {
        let text = random.of(texts).as_bytes();
        let damaged = random.damaged(text);
        survives(&damaged, &read);
    }
}

/// A manifest's findings have to fit into a report, and name what they are about.
fn read_manifest(text: &[u8]) {
    let file = Path::new("multideployer.yaml");
    match manifest::parse(text, file, &Defaults::new("/srv/manifest")) {
        Ok(manifest) => {
            for app in &manifest.apps {
                let name = app.name.as_str();
                assert!(name.parse::<AppName>().is_ok());
                let up = |part: &std::ffi::OsStr| part == "..";
                assert!(
                    !app.path.iter().any(up) && app.path.is_relative(),
                    "{}",
                    app.path.display()
                );
                if let RepoUrl::Https { authority, .. } = &app.source {
                    // Who is asked never holds who asks.
                    assert!(!authority.contains(['@', '/', ' ']), "{authority}");
                }
            }
        }
        Err(rejected) => {
            assert!(rejected.problems.iter().any(multideployer::diagnostic::Diagnostic::is_error));
            assert!(rejected.problems.len() <= 101, "{}", rejected.problems.len());
            for problem in &rejected.problems {
                let line = problem.to_string();
                assert!(!line.contains(char::is_control), "{line:?}");
            }
        }
    }
}

#[test]
fn the_texts_are_valid_before_they_are_damaged() {
    for text in [FIRST, SECOND] {
        let manifest =
            manifest::parse(text.as_bytes(), Path::new("m"), &Defaults::new("/srv/manifest"))
                .unwrap();
        assert!(manifest.apps.len() > 1);
    }
    let parsed = appspec::parse(Path::new("appspec.yml"), APPSPEC.as_bytes());
    assert!(parsed.spec.is_some(), "{:?}", parsed.findings);
}

#[test]
fn yaml() {
    damage(1, &[FIRST, SECOND, APPSPEC, AGENT], |text| drop(yaml::parse(text)));
}

#[test]
fn manifests() {
    damage(2, &[FIRST, SECOND], read_manifest);
}

#[test]
fn appspecs() {
    let possible = appspec::DEFAULT_EVENTS.map(str::to_owned);
    damage(3, &[APPSPEC], |text| {
        let parsed = appspec::parse(Path::new("appspec.yml"), text);
        match parsed.spec {
            Some(spec) => drop(spec.unknown_events(Path::new("appspec.yml"), &possible)),
            None => {
                assert!(
                    parsed.findings.iter().any(multideployer::diagnostic::Diagnostic::is_error)
                );
            }
        }
        for finding in parsed.findings {
            assert!(!finding.to_string().contains(char::is_control), "{finding:?}");
        }
    });
}

#[test]
fn the_last_state() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("last_state.yaml");
    damage_for(rounds() / 10, 4, &[STATE], |text| {
        fs_err::write(&file, text).unwrap();
        let (state, trouble) = LastState::load(&file).unwrap();
        assert!(trouble.is_none() || state.apps().count() == 0);
    });
}

#[test]
fn the_agents_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("codedeployagent.yml");
    damage_for(rounds() / 10, 5, &[AGENT], |text| {
        fs_err::write(&file, text).unwrap();
        drop(codedeploy::root_dir(Some(&file)));
    });
}

#[test]
fn sources() {
    for version in ["1.0", "2"] {
        let of = |source: &[u8]| {
            // Quoted, so that it is the source that is read and not the YAML around it.
            let source = String::from_utf8_lossy(source).replace('\'', "''");
            format!(
                "version: {version}\napps:\n- {{name: a, release: 1234567, allow_ref: true, source: '{source}'}}\n"
            )
        };
        damage(6, SOURCES, |source| read_manifest(of(source).as_bytes()));
    }
}

#[test]
fn names_and_releases() {
    let texts = [
        "91ab77cd0e5f2f7f0a6c1b3f5d7e9a1b2c3d4e5f",
        "release/2026-11",
        "a.b+c=d,e@f-g",
        "refs/heads/é",
    ];
    damage(7, &texts, |text| {
        let text = String::from_utf8_lossy(text);
        if let Ok(name) = text.parse::<AppName>() {
            assert!(!name.as_str().contains(['/', ' ', ';', '$', '\n']), "{name}");
        }
        if let Ok(name) = text.parse::<RefName>() {
            assert!(!name.as_str().contains([':', '*', ' ', '~', '^']), "{name}");
        }
        if let Ok(revision) = text.parse::<Revision>() {
            assert_eq!(revision.to_string(), text.to_ascii_lowercase());
        }
    });
}

/// Texts as large as they may be, made of one thing.
#[test]
fn large_texts() {
    let many = |unit: &str| unit.repeat((4 << 20) / unit.len());
    let entry = "- {name: a, source: github://a/b, release: 1234567}\n";
    let lines = |count: usize, line: &dyn Fn(usize) -> String| {
        (0..count).map(line).collect::<Vec<_>>().concat()
    };
    let keys = |count: usize, end: &str| lines(count, &|i| format!("k{i}: &k{i} x{end}"));
    let merges = lines(2_000, &|i| format!("k{}: &k{} {{<<: *k{i}, x{i}: y}}\n", i + 1, i + 1));
    for text in [
        many("["),
        many("{"),
        many("- "),
        many("? "),
        many("!a "),
        many("\n"),
        many("#"),
        many("x"),
        many("'"),
        many("\u{85}"),
        format!("version: 2\napps:\n{}", many(entry)),
        format!("version: 1.0\n{}apps: []\n", keys(100_000, "\n")),
        format!("version: 0.0\nos: linux\nhooks:\n{}", many("  a: []\n")),
        format!("version: 0.0\nos: linux\nfiles:\n{}", many("- {source: a, destination: b}\n")),
        format!(
            "version: 2\napps:\n- &a {}\n{}",
            many("x").split_off(3 << 20),
            "- *a\n".repeat(100_000)
        ),
        format!("k0: &k0 {{x: y}}\n{merges}"),
        format!("version: 1.0\napps: [{{{}}}]\n", keys(50_000, ", ")),
    ] {
        let text = text.as_bytes();
        survives(text, read_manifest);
        survives(text, |text| drop(appspec::parse(Path::new("appspec.yml"), text)));
    }
}
