use std::time::Duration;

use super::*;
use crate::diagnostic::Severity;
use crate::domain::{Check, Deadline, FileExists, OnFailure, Probe, Release, Symlinks};
use crate::hosts::{Auth, GithubApp};

const SHA: &str = "91ab77cd0e5f2f7f0a6c1b3f5d7e9a1b2c3d4e5f";

fn read(text: &str) -> Result<Manifest, Rejected> {
    let text = text.replace("$SHA", SHA);
    parse(text.as_bytes(), Path::new("m.yaml"), &Defaults::new("/srv/manifest"))
}

/// One line for each finding: `E place: message -> hint`.
fn rendered(findings: &[Diagnostic]) -> String {
    let line = |finding: &Diagnostic| {
        let severity = match finding.severity {
            Severity::Error => 'E',
            Severity::Warning => 'W',
            Severity::Note => 'N',
        };
        let hint = finding.hint.as_ref().map(|hint| format!(" -> {hint}")).unwrap_or_default();
        format!("{severity} {finding}{hint}\n")
    };
    findings.iter().map(line).collect()
}

fn findings(text: &str) -> String {
    match read(text) {
        Ok(manifest) => rendered(&manifest.warnings),
        Err(rejected) => {
            assert!(rejected.problems.iter().any(Diagnostic::is_error));
            rendered(&rejected.problems)
        }
    }
}

#[track_caller]
fn finds(text: &str, expected: &str) {
    assert_eq!(findings(text).trim_end(), expected.trim(), "\n{text}");
}

/// A file whose third line is the entry of one app.
fn entry(version: &str, entry: &str) -> String {
    format!("version: {version}\napps:\n- {entry}\n")
}

/// An app with further keys.
fn app(version: &str, keys: &str) -> String {
    entry(version, &format!("{{name: api, source: github://a/b, release: $SHA, {keys}}}"))
}

fn hosts(value: &str) -> String {
    format!("version: 2\nhosts:\n  {value}\napps: []\n")
}

/// The table's findings without the note that there are no apps.
#[track_caller]
fn hosts_find(value: &str, expected: &str) {
    let found = findings(&hosts(value))
        .replace("N m.yaml:4:7: `apps` is empty: there is nothing to deploy\n", "");
    assert_eq!(found.trim_end(), expected, "\n{value}");
}

#[test]
fn a_file_of_version_1_means_what_it_meant() {
    let manifest = read(
        "version: 1.0\napps:\n  - name: gateway\n    source: github://acme/gateway\n    release: $SHA\n\
         \x20 - name: api\n    source: 'github://acme/api'\n    release: '$SHA'\n    force: yes\n",
    )
    .unwrap();
    assert_eq!(manifest.version, Version::V1);
    assert_eq!(manifest.warnings, []);
    assert_eq!(manifest.github_hosts, ["github.com"]);
    let names: Vec<&str> = manifest.apps.iter().map(|app| app.name.as_str()).collect();
    assert_eq!(names, ["gateway", "api"]);
    let api = &manifest.apps[1];
    assert_eq!(api.source.to_string(), "https://github.com/acme/api.git");
    assert_eq!(api.release, Release::Commit(SHA.parse().unwrap()));
    assert!(api.force && api.enabled && api.export_ignore);
    assert!(!manifest.apps[0].force);
}

#[test]
fn the_whole_of_version_2() {
    let manifest = read(
        "version: 2
x-common: &common {force: false}
defaults: {source_host: GHE.example.com:8443, symlinks: allow, env: {A: 1, B: two}, skip_events: [ApplicationStop]}
hosts:
  GHE.example.com:8443:
    auth: {token_command: [./bin/token, ghes], username: bot}
    ca_file: pki/acme.pem
  ghe.example.com/acme/secret.git:
    auth: {ssh_key_file: /etc/multideployer/keys/secret}
    host_keys: [\"SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU\"]
    known_hosts_file: /etc/ssh/acme_hosts
  plain.example.com: {auth: none}
apps:
  - <<: *common
    name: api
    source: github://acme/api
    release: $SHA
    path: ./services/api/
    appspec: deploy/appspec.yml
    env: {B: 'no', C: ''}
    enabled: off
    file_exists: OVERWRITE
    skip_events: []
    export_ignore: false
    symlinks: safe
    submodules: true
    lfs: true
  - {name: web, source: github://github.com/acme/web, release: v1.2, allow_ref: true}
",
    )
    .unwrap();
    assert_eq!(rendered(&manifest.warnings), "");
    assert_eq!(manifest.github_hosts, ["ghe.example.com:8443", "github.com"]);
    let api = &manifest.apps[0];
    assert_eq!(api.source.to_string(), "https://ghe.example.com:8443/acme/api.git");
    assert_eq!(api.path, Path::new("services/api"));
    assert_eq!(api.appspec.as_deref(), Some(Path::new("deploy/appspec.yml")));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(api.env, [pair("A", "1"), pair("B", "no"), pair("C", "")]);
    assert!(!api.enabled && !api.export_ignore && !api.force);
    assert!(api.submodules && api.lfs);
    assert_eq!((api.file_exists, api.symlinks), (FileExists::Overwrite, Symlinks::Safe));
    assert_eq!(api.skip_events, [] as [&str; 0]);
    let web = &manifest.apps[1];
    assert_eq!(web.release, Release::Name("v1.2".parse().unwrap()));
    assert_eq!((web.symlinks, web.file_exists), (Symlinks::Allow, FileExists::Disallow));
    assert_eq!(web.skip_events, ["ApplicationStop"]);
    assert_eq!(web.env, [pair("A", "1"), pair("B", "two")]);

    let api_rule = manifest.hosts.rule_for(&api.source);
    let command = vec!["/srv/manifest/bin/token".to_owned(), "ghes".to_owned()];
    assert_eq!(api_rule.auth, Some(Auth::TokenCommand(command)));
    assert_eq!(api_rule.username.as_deref(), Some("bot"));
    assert_eq!(api_rule.ca_file.as_deref(), Some(Path::new("/srv/manifest/pki/acme.pem")));
    let secret = &manifest.hosts.rules()[0];
    assert_eq!(secret.prefix, "ghe.example.com/acme/secret.git");
    assert_eq!(secret.host_keys.as_ref().map(Vec::len), Some(1));
    assert_eq!(manifest.hosts.rules().len(), 3);
}

#[test]
fn what_is_wrong_with_the_file_as_a_whole() {
    finds(
        "",
        "E m.yaml: the file is empty -> a manifest begins with `version: 2` and lists the applications under `apps:`",
    );
    finds(
        "# nothing\n---\n",
        "E m.yaml: the file is empty -> a manifest begins with `version: 2` and lists the applications under `apps:`",
    );
    finds("- a\n", "E m.yaml:1:1: the manifest is a list; it must be a mapping of keys");
    finds(
        "apps: []\n",
        "E m.yaml:1:1: the manifest has no `version` -> begin it with `version: 2` (or `version: 1.0` if 0.3.1 reads it too)\nN m.yaml:1:7: `apps` is empty: there is nothing to deploy",
    );
    finds(
        "version: 1.0\n",
        "E m.yaml:1:1: the manifest has no `apps` -> list the applications under `apps:`; `apps: []` for none",
    );
    finds(
        "version: 1.0\napps:\n",
        "E m.yaml:2:6: `apps` is nothing; it must be a list -> begin each app with `- name:`; `apps: []` for none",
    );
    finds(
        "version: 1.0\napps: {a: b}\n",
        "E m.yaml:2:7: `apps` is a mapping; it must be a list -> begin each app with `- name:`; `apps: []` for none",
    );
    finds("version: 1.0\napps: []\n", "N m.yaml:2:7: `apps` is empty: there is nothing to deploy");
    finds(
        "version: 1.0\napps: []\n---\nversion: 1.0\n",
        "N m.yaml:2:7: `apps` is empty: there is nothing to deploy\nE m.yaml:3:1: a second document begins here; a manifest is one document",
    );
    finds(
        "version: 1.0\nversion: 1\napps: []\n",
        "W m.yaml:2:1: the key `version` stands already at 1:1; this one counts\nN m.yaml:3:7: `apps` is empty: there is nothing to deploy",
    );
    finds(
        "version: 2\napps: []\napps: []\n",
        "E m.yaml:3:1: the key `apps` stands already at 2:1\nN m.yaml:3:7: `apps` is empty: there is nothing to deploy",
    );
}

#[test]
fn versions() {
    let version = |text: &str| findings(&format!("version: {text}\napps: []\n"));
    let empty = "N m.yaml:2:7: `apps` is empty: there is nothing to deploy\n";
    for good in ["1", "1.0", "1.00", "2", "2.0", "!!str 1.0"] {
        assert_eq!(version(good), empty, "{good}");
    }
    for (text, expected) in [
        ("\"1.0\"", "N m.yaml:1:10: `version` is a text in quotes; it is read as the number 1.0"),
        ("true", "E m.yaml:1:10: `version` is the boolean `true`; it must be 1.0 or 2"),
        ("yes", "E m.yaml:1:10: `version` is the boolean `yes`; it must be 1.0 or 2"),
        ("~", "E m.yaml:1:10: `version` has no value; it must be 1.0 or 2"),
        ("", "E m.yaml:1:9: `version` has no value; it must be 1.0 or 2"),
        ("3", "E m.yaml:1:10: version `3` is not known -> this program reads versions 1.0 and 2"),
        (
            "1.1",
            "E m.yaml:1:10: version `1.1` is not known -> this program reads versions 1.0 and 2",
        ),
        ("[1]", "E m.yaml:1:10: `version` is a list; it must be 1.0 or 2"),
    ] {
        assert_eq!(version(text), format!("{expected}\n{empty}"), "{text}");
    }
}

#[test]
fn tags_are_refused_wherever_they_are() {
    let hint = "leave the tag out: values are read as they are written";
    finds(
        &entry(
            "1.0",
            "{name: !!python/object/apply:os.system [id], source: github://a/b, release: $SHA}",
        ),
        &format!(
            "E m.yaml:3:10: the YAML tag `!!python/object/apply:os.system` is refused -> {hint}\n\
                  E m.yaml:3:10: app #1: `name` is a list; it must be a text"
        ),
    );
    finds(
        &app("1.0", "!x force: true"),
        &format!("E m.yaml:3:88: the YAML tag `!x` is refused -> {hint}"),
    );
    finds(&entry("1.0", "!!map {name: !!str 7, source: github://a/b, release: $SHA}"), "");
}

#[test]
fn entries_that_are_no_apps() {
    for version in ["1.0", "2"] {
        for (text, expected) in [
            ("api", "E m.yaml:3:3: app #1: the entry is a text; it must be a mapping of keys"),
            ("7", "E m.yaml:3:3: app #1: the entry is a text; it must be a mapping of keys"),
            ("", "E m.yaml:3:2: app #1: the entry is nothing; it must be a mapping of keys"),
            ("[a]", "E m.yaml:3:3: app #1: the entry is a list; it must be a mapping of keys"),
            (
                "{}",
                "E m.yaml:3:3: app #1: `name` is missing\n\
                 E m.yaml:3:3: app #1: `source` is missing\n\
                 E m.yaml:3:3: app #1: `release` is missing",
            ),
            (
                "{name: '', source: ~, release: {}}",
                "E m.yaml:3:10: app #1: `name` is empty\n\
                 E m.yaml:3:22: app #1: `source` has no value\n\
                 E m.yaml:3:34: app #1: `release` is a mapping; it must be a text",
            ),
            (
                "{[a]: b, name: api, source: github://a/b, release: $SHA}",
                "E m.yaml:3:4: app #1: a key is a list; it must be a text",
            ),
        ] {
            finds(&entry(version, text), expected);
        }
    }
}

#[test]
fn names() {
    for (name, expected) in [
        (
            "a b",
            "`a b` cannot be the name of an app: the name contains ' '; allowed are letters, digits and `._+=,@-`",
        ),
        (
            "../x",
            "`../x` cannot be the name of an app: the name contains '/'; allowed are letters, digits and `._+=,@-`",
        ),
        (
            "a;reboot",
            "`a;reboot` cannot be the name of an app: the name contains ';'; allowed are letters, digits and `._+=,@-`",
        ),
        (
            "..",
            "`..` cannot be the name of an app: the name begins with '.'; it must begin with a letter, a digit or `_`",
        ),
        (
            "'-x'",
            "`-x` cannot be the name of an app: the name begins with '-'; it must begin with a letter, a digit or `_`",
        ),
        ("\"a\\nb\"", "`name` contains a line break or control character"),
        ("~", "`name` has no value"),
    ] {
        finds(
            &entry("1.0", &format!("{{name: {name}, source: github://a/b, release: $SHA}}")),
            &format!("E m.yaml:3:10: app #1: {expected}"),
        );
    }
    let name = |name: &str| format!("- {{name: {name}, source: github://a/b, release: $SHA}}\n");
    finds(
        &format!("version: 1.0\napps:\n{}{}{}", name("api"), name("web"), name("api")),
        "E m.yaml:5:10: app `api`: the name is taken by the app at 3:10 -> names are what the host knows apps by: each may occur once",
    );
}

#[test]
fn releases() {
    let release = |version: &str, release: &str| {
        entry(version, &format!("{{name: api, source: github://a/b, release: {release}}}"))
    };
    let upper = read(&release("2", &SHA.to_uppercase())).unwrap();
    assert_eq!(upper.apps[0].release.to_string(), SHA);
    // All digits, a leading zero, an exponent: text all the same.
    for digits in [
        "1234567890123456789012345678901234567890",
        "0123456701234567012345670123456701234567",
        "12345678901234567890123456789012345678e6",
    ] {
        assert_eq!(read(&release("1.0", digits)).unwrap().apps[0].release.to_string(), digits);
    }
    let full = "write the full commit id of 40 digits: `git rev-parse NAME^{commit}`";
    for (name, kind) in [
        ("1234567", "an abbreviated commit id"),
        ("0123456", "an abbreviated commit id"),
        ("12345e6", "an abbreviated commit id"),
        ("main", "a branch or tag"),
        ("v1.2", "a branch or tag"),
        ("12", "a branch or tag"),
    ] {
        finds(
            &release("1.0", name),
            &format!(
                "W m.yaml:3:46: app `api`: `release` is `{name}`, {kind}: what it means is looked up in every run -> {full}"
            ),
        );
        assert_eq!(read(&release("1.0", name)).unwrap().apps[0].release.to_string(), name);
        finds(
            &release("2", name),
            &format!(
                "E m.yaml:3:46: app `api`: `release` is `{name}`, {kind} -> {full}; or allow names with `allow_ref: true`"
            ),
        );
        let allowed = release("2", name).replace("}\n", ", allow_ref: true}\n");
        finds(&allowed, "");
    }
    for version in ["1.0", "2"] {
        for (text, expected) in [
            (&SHA[1..], "`release` has 39 hexadecimal digits; a commit id has 40"),
            (&format!("{SHA}0"), "`release` has 41 hexadecimal digits; a commit id has 40"),
            (
                &"0a".repeat(32),
                "`release` is a SHA-256 commit id; repositories of that kind are not supported",
            ),
            (&format!("'{SHA} '"), "`release` has white space around it"),
            (&format!("\"{SHA}\\n\""), "`release` contains a line break or control character"),
            (&format!("'{}'", "0".repeat(40)), "`release` is the null id, which names no commit"),
            ("''", "`release` is empty"),
            (
                "a..b",
                &format!(
                    "`release` is `a..b`: not a commit id, and not a name that git allows for a branch or tag -> {full}"
                ),
            ),
            (
                "'+main:x'",
                &format!(
                    "`release` is `+main:x`: not a commit id, and not a name that git allows for a branch or tag -> {full}"
                ),
            ),
        ] {
            finds(&release(version, text), &format!("E m.yaml:3:46: app `api`: {expected}"));
        }
    }
}

#[test]
fn booleans() {
    for (word, value) in [
        ("true", true),
        ("yes", true),
        ("On", true),
        ("FALSE", false),
        ("no", false),
        ("off", false),
        ("~", false),
    ] {
        let manifest = read(&app("1.0", &format!("force: {word}"))).unwrap();
        assert_eq!(manifest.apps[0].force, value, "{word}");
    }
    let hint = "without quotes: `true`, `false`, `yes`, `no`, `on` or `off`";
    for (word, found) in [
        ("'false'", "the text `false`"),
        ("\"yes\"", "the text `yes`"),
        ("1", "the text `1`"),
        ("y", "the text `y`"),
        ("[true]", "a list"),
        ("!!str true", "the text `true`"),
    ] {
        for version in ["1.0", "2"] {
            finds(
                &app(version, &format!("force: {word}")),
                &format!(
                    "E m.yaml:3:95: app `api`: `force` is {found}; it must be true or false -> {hint}"
                ),
            );
        }
    }
}

#[test]
fn unknown_keys_are_warnings_in_version_1_and_errors_in_version_2() {
    finds(
        &app("1.0", "froce: true"),
        "W m.yaml:3:88: app `api`: unknown key `froce` is ignored -> did you mean `force`?",
    );
    finds(&app("1.0", "branch: x"), "W m.yaml:3:88: app `api`: unknown key `branch` is ignored");
    finds(
        &app("1.0", "path: x"),
        "W m.yaml:3:88: app `api`: `path` is not known in version 1.0 and is ignored -> write `version: 2` to use it",
    );
    finds(
        &app("1.0", "lfs: true"),
        "W m.yaml:3:88: app `api`: `lfs` is not known in version 1.0 and is ignored -> write `version: 2` to use it",
    );
    finds(
        &app("2", "skipEvents: []"),
        "E m.yaml:3:88: app `api`: unknown key `skipEvents` -> did you mean `skip_events`?",
    );
    finds(
        &app("2", "branch: x"),
        "E m.yaml:3:88: app `api`: unknown key `branch` -> known are `name`, `source`, `release`, `force`, `needs`, `path`, `appspec`, `env`, `enabled`, `file_exists`, `skip_events`, `export_ignore`, `symlinks`, `allow_ref`, `on_failure`, `when`, `timeout`, `checks`, `release_file`, `verify`, `submodules`, `lfs`",
    );
    finds(
        "version: 1.0\nhosts: {}\napps: [{name: a, source: /a, release: $SHA}]\n",
        "W m.yaml:2:1: `hosts` is not known in version 1.0 and is ignored -> write `version: 2` to use it",
    );
    finds(
        "version: 2\nx-anchors: &a {}\nDefaults: {}\napps: [{name: a, source: /a, release: $SHA}]\n",
        "E m.yaml:3:1: unknown key `Defaults` -> did you mean `defaults`?",
    );
    // Ignored keys really are.
    let ignored = read(&app("1.0", "path: x, enabled: false, symlinks: 7, env: []")).unwrap();
    assert!(ignored.apps[0].enabled && ignored.apps[0].path == Path::new(""));
}

#[test]
fn values_of_version_2_keys() {
    for (keys, expected) in [
        ("path: /etc", "94: app `api`: `path` is absolute; it must be relative to the repository"),
        (
            "path: a/../..",
            "94: app `api`: `path` contains `..`; it must stay inside the repository",
        ),
        (
            "path: a/.../b",
            "94: app `api`: `path` contains `..`; it must stay inside the repository",
        ),
        (
            "path: a b",
            "94: app `api`: `path` contains ' '; codedeploy-local allows letters, digits and `._+=,@/-`",
        ),
        (
            "path: é",
            "94: app `api`: `path` contains 'é'; codedeploy-local allows letters, digits and `._+=,@/-`",
        ),
        ("appspec: [x]", "97: app `api`: `appspec` is a list; it must be a text"),
        ("appspec: ''", "97: app `api`: `appspec` is empty"),
        ("appspec: ./", "97: app `api`: `appspec` names no file"),
        (
            "file_exists: replace",
            "101: app `api`: `file_exists` is `replace`; it must be one of `disallow`, `overwrite`, `retain`",
        ),
        (
            "file_exists: overwite",
            "101: app `api`: `file_exists` is `overwite`; it must be one of `disallow`, `overwrite`, `retain` -> did you mean `overwrite`?",
        ),
        (
            "symlinks: true",
            "98: app `api`: `symlinks` is `true`; it must be one of `safe`, `allow`, `refuse`",
        ),
        (
            "skip_events: ApplicationStop",
            "101: app `api`: `skip_events` is a text; it must be a list",
        ),
        (
            "skip_events: [applicationstop]",
            "102: app `api`: `applicationstop` is not a lifecycle event -> did you mean `ApplicationStop`?",
        ),
        (
            "skip_events: [Install]",
            "102: app `api`: `Install` cannot be skipped: it is what a deployment is",
        ),
        ("env: [A=b]", "93: app `api`: `env` is a list; it must be a mapping of keys"),
        (
            "env: {A-B: c}",
            "94: app `api`: `A-B` is not the name of an environment variable -> letters, digits and `_`, not beginning with a digit",
        ),
        (
            "env: {GIT_COMMIT: c}",
            "94: app `api`: `env` sets `GIT_COMMIT`, which is set by this program or by codedeploy-local",
        ),
        (
            "env: {BUNDLE_ETAG: c}",
            "94: app `api`: `env` sets `BUNDLE_ETAG`, which is set by this program or by codedeploy-local",
        ),
        (
            "env: {MULTIDEPLOYER_APP: c}",
            "94: app `api`: `env` sets `MULTIDEPLOYER_APP`, which is set by this program or by codedeploy-local",
        ),
        (
            "env: {DEPLOYMENT_GROUP_NAME: c}",
            "94: app `api`: `env` sets `DEPLOYMENT_GROUP_NAME`, which is set by this program or by codedeploy-local",
        ),
        (
            "env: {LD_PRELOAD: c}",
            "94: app `api`: `env` sets `LD_PRELOAD`, which would change codedeploy-local itself, not only the hooks",
        ),
        (
            "env: {A: }",
            "97: app `api`: the variable `A` has no value -> write `A: \"\"` for an empty one",
        ),
        ("env: {A: [b]}", "97: app `api`: the variable `A` is a list; it must be a text"),
        ("env: {A: \"\\0\"}", "97: app `api`: the variable `A` contains a NUL character"),
        ("env: {A: 1, A: 2}", "100: app `api`: the key `A` stands already at 3:94"),
    ] {
        finds(&app("2", keys), &format!("E m.yaml:3:{expected}"));
    }
    let env = read(&app("2", "env: {N: 007, YES: yes, M: \"a\\nb\"}")).unwrap().apps.remove(0).env;
    let values: Vec<&str> = env.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(values, ["007", "yes", "a\nb"]);
    let big = "x".repeat(70_000);
    assert!(findings(&app("2", &format!("env: {{A: {big}}}"))).contains("at most 65536"));
    finds(
        "version: 2\ndefaults: {source_host: a b, name: x, release: y, nmae: z}\napps: [{name: a, source: /a, release: $SHA}]\n",
        "E m.yaml:2:25: `source_host` is not `host[:port]`: the host name is missing or not valid\n\
         E m.yaml:2:36: `name` cannot have a default\n\
         E m.yaml:2:48: `release` cannot have a default\n\
         E m.yaml:2:51: unknown key `nmae` -> known are `source_host`, `force`, `path`, `appspec`, `env`, `enabled`, `file_exists`, `skip_events`, `export_ignore`, `symlinks`, `allow_ref`, `on_failure`, `when`, `timeout`, `checks`, `release_file`, `verify`, `submodules`, `lfs`",
    );
}

#[test]
fn merge_keys_mean_what_they_mean_to_pyyaml() {
    let manifest = read(
        "version: 1.0\nx-a: &a {source: github://a/a, force: true, release: $SHA}\nx-b: &b {source: github://b/b}\n\
         apps:\n- {<<: *a, name: one}\n- {name: two, <<: [*b, *a], force: no}\n",
    )
    .unwrap();
    assert_eq!(rendered(&manifest.warnings), "");
    let sources: Vec<String> = manifest.apps.iter().map(|app| app.source.to_string()).collect();
    assert_eq!(sources, ["https://github.com/a/a.git", "https://github.com/b/b.git"]);
    assert_eq!((manifest.apps[0].force, manifest.apps[1].force), (true, false));
    finds(
        &app("1.0", "<<: x"),
        "E m.yaml:3:92: app #1: `<<` is given a text; it must be a mapping",
    );
}

#[test]
fn hosts_and_credentials() {
    for good in [
        "a.example.com: {auth: {token_env: T}}",
        "a.example.com: {auth: {none: }}",
        "a.example.com: {auth: {none: true}, username: x}",
        "'[::1]:8443/acme/': {}",
        "ssh.github.com:443: {auth: {ssh_key_file: /k}}",
        "a: {proxy: none}",
        "a: {proxy: false}",
        "a: {proxy: 'http://proxy.example.com:3128/'}",
        "a: {proxy: 'http://user@[::1]:3128', proxy_auth: {password_env: PW}}",
        "a: {proxy: 'http://proxy:3128', proxy_auth: {user: u@x, password_file: /etc/pw}}",
        "a: {auth: {ssh_key_file: /k, passphrase_env: P, username: git}}",
        "a: {auth: {ssh_key_command: [get, key], passphrase_command: [get, it]}}",
        "a: {auth: {ssh_agent: true}}",
        "a: {auth: {ssh_agent: {socket: /run/agent, comment: deploy key}}}",
        "a: {auth: {ssh_agent: {public_key: 'ssh-ed25519 AAAA me@here'}}}",
    ] {
        hosts_find(good, "");
    }
    let form = "write `host`, `host:port`, `host/org` or `host/org/repo`";
    let one = "use exactly one of `token_env`, `token_file`, `token_command`, `github_app`, \
        `credential_helper`, `ssh_key_file`, `ssh_key_command`, `ssh_agent`, `none`";
    for (value, expected) in [
        ("https://a.b: {}", format!("E m.yaml:3:3: a key of `hosts` is a host, without scheme and user -> {form}")),
        ("git@a.b: {}", format!("E m.yaml:3:3: a key of `hosts` is a host, without scheme and user -> {form}")),
        ("a_b..c: {}", format!("E m.yaml:3:3: `a_b..c` is not a key of `hosts`: the host name is missing or not valid -> {form}")),
        ("a/../b: {}", format!("E m.yaml:3:3: `a/../b` is not a key of `hosts`: the path contains an empty part, `.` or `..` -> {form}")),
        ("a:0: {}", format!("E m.yaml:3:3: `a:0` is not a key of `hosts`: the port is not a number from 1 to 65535 -> {form}")),
        ("a:22: {}", "E m.yaml:3:3: the port 22 is left out in keys of `hosts` -> without a port the entry is for `https://` on port 443 and ssh on port 22".into()),
        ("a: token", "E m.yaml:3:6: the entry `a` is a text; it must be a mapping of keys".into()),
        ("a: {auth: {}}", format!("E m.yaml:3:13: `auth` does not say where the credential is -> {one}")),
        ("a: {auth: ghp_secret}", "E m.yaml:3:13: `auth` is a text; it must be `none` or say where the credential is -> for example `auth: {token_file: /etc/multideployer/token}`".into()),
        ("a: {auth: {token_env: ghp-secret}}", "E m.yaml:3:25: `token_env` is not the name of an environment variable -> write the variable's name, not its value".into()),
        ("a: {auth: {token_env: T, token_file: /t}}", "E m.yaml:3:13: `auth` has `token_env`, `token_file`; it must have exactly one".into()),
        ("a: {auth: {token_file: ~/t}}", "E m.yaml:3:26: `~` is not expanded in `token_file` -> write the whole path".into()),
        ("a: {auth: {token_command: get token}}", "E m.yaml:3:29: `token_command` is a text; it must be a list of words -> no shell reads it: `token_command: [/usr/local/bin/get-token, argument]`".into()),
        ("a: {auth: {token_command: []}}", "E m.yaml:3:29: `token_command` is an empty list".into()),
        ("a: {auth: {token: x}}", format!("E m.yaml:3:13: `auth` does not say where the credential is -> {one}\nE m.yaml:3:14: unknown key `token` -> did you mean `token_env`?")),
        ("a: {auth: {ssh_key_command: get key}}", "E m.yaml:3:31: `ssh_key_command` is a text; it must be a list of words -> no shell reads it: `ssh_key_command: [/usr/local/bin/get-key, argument]`".into()),
        ("a: {auth: {ssh_key_file: /k, passphrase_env: hunter-2}}", "E m.yaml:3:48: `passphrase_env` is not the name of an environment variable -> write the variable's name, not its value".into()),
        ("a: {auth: {ssh_key_file: /k, passphrase: hunter2}}", "E m.yaml:3:32: unknown key `passphrase` -> did you mean `passphrase_env`?".into()),
        ("a: {auth: {ssh_key_file: /k, passphrase_env: P, passphrase_file: /p}}", "E m.yaml:3:68: `auth` has `passphrase_env`, `passphrase_file`; a key has one passphrase".into()),
        ("a: {auth: {token_file: /t, passphrase_file: /p}}", "E m.yaml:3:47: `passphrase_file` goes with `ssh_key_file` or `ssh_key_command`".into()),
        ("a: {auth: {ssh_agent: yes please}}", "E m.yaml:3:25: `ssh_agent` is a text -> write `ssh_agent: true`, or `ssh_agent: {fingerprint: \"SHA256:…\"}`".into()),
        ("a: {auth: {ssh_agent: {key: x}}}", "E m.yaml:3:26: unknown key `key` -> known are `public_key`, `fingerprint`, `comment`, `socket`".into()),
        ("a: {auth: {ssh_agent: {public_key: /k.pub}}}", "E m.yaml:3:38: `public_key` is not a public key -> write what the `.pub` file holds: `ssh-ed25519 AAAA…`".into()),
        ("a: {auth: {ssh_agent: {fingerprint: 'MD5:aa'}}}", "E m.yaml:3:39: `MD5:aa` is not a fingerprint `SHA256:…` of 43 characters -> `ssh-add -l` prints those of the agent's keys".into()),
        ("a: {auth: {ssh_agent: {comment: x, public_key: 'ssh-rsa A'}}}", "E m.yaml:3:25: `ssh_agent` has `public_key`, `comment`; one names the key".into()),
        ("a: {auth: {none: no}}", "E m.yaml:3:20: `none` stands alone: `auth: none`".into()),
        ("a: {auth: {none: , username: x}, username: y}", "E m.yaml:3:46: `username` stands in `auth` already".into()),
        ("a: {username: 'x:hunter2'}", "E m.yaml:3:17: `username` contains a colon, which no user name may -> a password or token does not belong into the manifest".into()),
        ("a: {hostkeys: x}", "E m.yaml:3:7: unknown key `hostkeys` -> did you mean `host_keys`?".into()),
        ("a: {host_keys: 'SHA256:x'}", "E m.yaml:3:18: `host_keys` is a text; it must be a list".into()),
        ("a: {host_keys: ['MD5:aa']}", "E m.yaml:3:19: `MD5:aa` is not a fingerprint `SHA256:…` of 43 characters -> `ssh-keygen -lf FILE` prints it for a public key or a known_hosts file".into()),
    ] {
        hosts_find(value, &expected);
    }
    let twice = findings("version: 2\nhosts: {A.b: {}, a.B/: {}}\napps: []\n");
    assert!(twice.starts_with("E m.yaml:2:18: `hosts` has two entries for `a.b`\n"), "{twice}");
}

#[test]
fn github_apps() {
    let auth = |keys: &str| format!("a: {{auth: {{github_app: {{{keys}}}}}}}");
    let manifest = read(&hosts(&auth(
        "client_id: Iv23li.x, private_key_file: keys/app.pem, installation_id: 42, owner: acme-1, api_url: 'https://API.example.com:443/v3/'",
    )));
    let app = GithubApp {
        id: "Iv23li.x".into(),
        private_key_file: "/srv/manifest/keys/app.pem".into(),
        installation_id: Some(42),
        owner: Some("acme-1".into()),
        api_url: Some("https://api.example.com/v3".into()),
    };
    assert_eq!(manifest.unwrap().hosts.rules()[0].auth, Some(Auth::GithubApp(app)));
    hosts_find(&auth("app_id: 12345, private_key_file: /k"), "");
    let shown = "the App's settings on GitHub show it";
    for (keys, expected) in [
        ("", "E m.yaml:3:26: `github_app` does not say which App it is -> add `client_id` (or `app_id`), as the App's settings on GitHub show it\nE m.yaml:3:26: `github_app` has no `private_key_file` -> generate a private key in the App's settings on GitHub".to_owned()),
        ("client_id: a, app_id: 1, private_key_file: /k", "E m.yaml:3:49: `client_id` and `app_id` are both given; one is enough".into()),
        ("app_id: ghp_hunter2, private_key_file: /k", format!("E m.yaml:3:35: `app_id` is not one of a GitHub App -> it is a number; {shown}")),
        ("client_id: hunter_2, private_key_file: /k", format!("E m.yaml:3:38: `client_id` is not one of a GitHub App -> it looks like `Iv23liAbCdEfGhIjKlMn`; {shown}")),
        ("app_id: 1, private_key_file: ~/k", "E m.yaml:3:56: `~` is not expanded in `private_key_file` -> write the whole path".into()),
        ("app_id: 1, private_key_file: /k, installation_id: acme", "E m.yaml:3:77: `installation_id` is `acme`; it must be a number -> without it the installation is looked up".into()),
        ("app_id: 1, private_key_file: /k, owner: acme/api", "E m.yaml:3:67: `owner` is `acme/api`, which is no account on GitHub -> write the name of the user or organisation".into()),
        ("app_id: 1, private_key_file: /k, api_url: 'http://a/v3'", "E m.yaml:3:69: `api_url` cannot be used: it does not begin with `https://` -> for example `https://github.example.com/api/v3`".into()),
        ("app_id: 1, private_key_file: /k, api_url: 'https://u:hunter2@a/v3'", "E m.yaml:3:69: `api_url` cannot be used: it holds a user name or password -> for example `https://github.example.com/api/v3`".into()),
        ("app_id: 1, private_key: /k", "E m.yaml:3:26: `github_app` has no `private_key_file` -> generate a private key in the App's settings on GitHub\nE m.yaml:3:38: unknown key `private_key` -> known are `client_id`, `app_id`, `private_key_file`, `installation_id`, `owner`, `api_url`".into()),
        ("app_id: 1, private_key_file: /k, installation: 2", "E m.yaml:3:60: unknown key `installation` -> did you mean `installation_id`?".into()),
    ] {
        hosts_find(&auth(keys), &expected);
    }
    hosts_find(
        "a: {auth: {github_app: Iv1}}",
        "E m.yaml:3:26: `github_app` is a text; it must be a mapping of keys",
    );
    hosts_find(
        "a: {auth: {github_apps: {}}}",
        "E m.yaml:3:13: `auth` does not say where the credential is -> use exactly one of `token_env`, `token_file`, `token_command`, `github_app`, `credential_helper`, `ssh_key_file`, `ssh_key_command`, `ssh_agent`, `none`\n\
         E m.yaml:3:14: unknown key `github_apps` -> did you mean `github_app`?",
    );
}

#[test]
fn credential_helpers() {
    for (value, words) in [
        ("store", vec!["git-credential-store"]),
        ("bin/helper", vec!["/srv/manifest/bin/helper"]),
        ("/usr/bin/helper", vec!["/usr/bin/helper"]),
        ("[./helper, --for, ghes]", vec!["/srv/manifest/helper", "--for", "ghes"]),
        ("[git-credential-store, --file=/c]", vec!["git-credential-store", "--file=/c"]),
    ] {
        let manifest = read(&hosts(&format!("a: {{auth: {{credential_helper: {value}}}}}")));
        let words = words.into_iter().map(str::to_owned).collect();
        let hosts = manifest.unwrap().hosts;
        assert_eq!(hosts.rules()[0].auth, Some(Auth::CredentialHelper(words)));
    }
    let form = "no shell reads it: `credential_helper: [git-credential-store, --file=/etc/multideployer/credentials]`";
    for value in [
        "store --file=/c",
        "'!f() { echo password=hunter2; }; f'",
        "-x",
        "'~/helper'",
        "'/bin/x y'",
    ] {
        hosts_find(
            &format!("a: {{auth: {{credential_helper: {value}}}}}"),
            &format!(
                "E m.yaml:3:33: `credential_helper` is neither a name nor a path nor a list of words -> {form}"
            ),
        );
    }
    hosts_find(
        "a: {auth: {credential_helper: []}}",
        "E m.yaml:3:33: `credential_helper` is an empty list",
    );
}

#[test]
fn proxies() {
    let form = "write `http://host:port`, `http://user@host:port`, or `none`";
    let by_reference = "the password is given by reference: `proxy_auth: {password_file: /etc/multideployer/proxy}`";
    let proxy = "proxy: 'http://p:1'";
    for (value, expected) in [
        ("a: {proxy: x}", format!("E m.yaml:3:14: `proxy` is no URL -> {form}")),
        ("a: {proxy: 'socks5://p:1'}", format!("E m.yaml:3:14: a `proxy` of the kind `socks5://` is not supported, only `http://` -> {form}")),
        ("a: {proxy: 'https://p:1'}", format!("E m.yaml:3:14: a `proxy` of the kind `https://` is not supported, only `http://` -> {form}")),
        ("a: {proxy: 'x://p:1'}", format!("E m.yaml:3:14: a `proxy` is not supported, only `http://` -> {form}")),
        ("a: {proxy: 'http://p'}", format!("E m.yaml:3:14: `proxy` does not say the port -> {form}")),
        ("a: {proxy: 'http://p:0'}", format!("E m.yaml:3:14: `proxy`: the port is not a number from 1 to 65535 -> {form}")),
        ("a: {proxy: 'http://u:hunter2@p:1'}", format!("E m.yaml:3:14: `proxy` holds a password -> {by_reference}")),
        ("a: {proxy: 'http://@p:1'}", "E m.yaml:3:14: the user in `proxy` is empty, or has characters of a URL in it -> give it as `proxy_auth: {user: …}`".into()),
        ("a: {proxy: true}", format!("E m.yaml:3:14: `proxy` is no URL -> {form}")),
        ("a: {proxy: [x]}", "E m.yaml:3:14: `proxy` is a list; it must be a text".into()),
        ("a: {proxy_auth: {user: u, password_env: P}}", format!("E m.yaml:3:19: `proxy_auth` stands without `proxy` -> {form}")),
        ("a: {proxy: none, proxy_auth: {user: u, password_env: P}}", "E m.yaml:3:32: `proxy_auth` stands beside a `proxy` that is none".into()),
        ("a: {$P, proxy_auth: {password_env: P}}", "E m.yaml:3:40: `proxy_auth` has a password and no `user`".into()),
        ("a: {$P, proxy_auth: {user: u}}", "E m.yaml:3:40: `proxy_auth` does not say where the password is -> use one of `password_env` and `password_file`".into()),
        ("a: {$P, proxy_auth: {user: u, password_env: P, password_file: /p}}", "E m.yaml:3:40: `proxy_auth` has `password_env` and `password_file`; it must have one of them".into()),
        ("a: {$P, proxy_auth: {user: 'u:hunter2', password_env: P}}", format!("E m.yaml:3:47: `user` contains a colon, which no user name may -> {by_reference}")),
        ("a: {$P, proxy_auth: {user: u, password_env: hunter-2}}", "E m.yaml:3:64: `password_env` is not the name of an environment variable -> write the variable's name, not its value".into()),
        ("a: {proxy: 'http://v@p:1', proxy_auth: {user: u, password_env: P}}", "E m.yaml:3:42: the user stands in `proxy` already".into()),
    ] {
        hosts_find(&value.replace("$P", proxy), &expected);
    }
}

#[test]
fn no_finding_repeats_a_secret() {
    let secret = "hunter2";
    for source in [
        "https://hunter2@github.com/a/b",
        "https://user:hunter2@github.com/a/b",
        "https://user:hunter2/x@github.com/a/b",
        "https://github.com/a/b?token=hunter2",
        "http://user:hunter2@github.com/a/b",
        "hunter2://x",
        "ssh://git:hunter2@github.com/a/b",
        "github://hunter2@github.com/a/b",
        "github://x:hunter2@github.com/a/b",
        "user:hunter2@github.com:a/b",
        "user:hunter2@github.com",
        "hunter2:x@github.com/a/b",
    ] {
        let found =
            findings(&entry("2", &format!("{{name: api, source: '{source}', release: $SHA}}")));
        assert!(found.starts_with("E m.yaml:3:23: app `api`: "), "{source}: {found}");
        assert!(!found.contains(secret), "{source}: {found}");
    }
    for value in [
        "a: {auth: hunter2}",
        "a: {auth: {token_env: '$hunter2'}}",
        "a: {username: 'x:hunter2'}",
        "user:hunter2@a.b: {}",
        "https://user:hunter2@a.b: {}",
        "a: {auth: {token: hunter2}}",
        "a: {auth: [hunter2]}",
        "a: {auth: {credential_helper: '!echo hunter2'}}",
        "a: {auth: {github_app: {client_id: '+hunter2', private_key_file: /k}}}",
        "a: {auth: {github_app: {app_id: 1, private_key_file: /k, api_url: 'https://hunter2@x'}}}",
        "a: {proxy: 'http://u:hunter2@p:1'}",
        "a: {proxy: 'http://u:hunter2@p'}",
        "a: {proxy: 'u:hunter2@p:1'}",
        "a: {proxy: 'hunter2://p:1'}",
        "a: {proxy: 'http://p:1', proxy_auth: hunter2}",
        "a: {proxy: 'http://p:1', proxy_auth: {user: u, password: hunter2}}",
        "a: {proxy: 'http://p:1', proxy_auth: {user: 'u:hunter2', password_env: P}}",
        "a: {proxy: 'http://p:1', proxy_auth: {user: u, password_env: $hunter2}}",
    ] {
        let found = findings(&hosts(value));
        assert!(found.starts_with("E m.yaml:3:") && !found.contains(secret), "{value}: {found}");
    }
}

#[test]
fn yaml_errors_have_their_place_and_tabs_are_named() {
    let found = findings("version: 2\napps:\n\t- name: x\n");
    assert!(found.starts_with("E m.yaml:3:1: not valid YAML: "), "{found}");
    assert!(found.ends_with("-> the line is indented with a tab; YAML wants spaces\n"), "{found}");
    let found = findings("version: 2\napps: [\n");
    assert!(found.starts_with("E m.yaml:3:1: not valid YAML: "), "{found}");
}

#[test]
fn thousands_of_findings_are_not_printed() {
    let mut text = String::from("version: 2\napps: []\n");
    (0..5000).for_each(|i| text += &format!("key{i}: x\n"));
    let problems = read(&text).unwrap_err().problems;
    assert_eq!(problems.len(), 101);
    let many = format!("version: 2\napps: [{}]\n", "x,".repeat(1001));
    finds(&many, "E m.yaml:2:7: `apps` has 1001 entries; at most 1000 are read");
}

/// Every beginning of a manifest, and copies with a piece put in anywhere, are read
/// without a panic; and what is refused says at least one error.
#[test]
fn damaged_manifests_are_refused_politely() {
    const FILE: &str = "version: 2\ndefaults: {source_host: h, env: {A: b}}\nhosts:\n  h/a:\n    auth: {token_file: /t}\n    \
        host_keys: ['SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU']\napps:\n- name: api\n  source: git@h:a/b\n  release: $SHA\n  \
        path: a/b\n  skip_events: [AfterInstall]\n- &x {<<: {force: on}, name: 'b', source: github://a/b, release: $SHA}\n";
    const PIECES: [&str; 18] = [
        "\n", " ", ": ", "- ", "[", "}", "~", "*x", "&y ", "!!a ", "'", "\"", "é", "/", "..", "@",
        "://", "%",
    ];
    read(FILE).unwrap();
    for end in (0..FILE.len()).filter(|end| FILE.is_char_boundary(*end)) {
        for piece in PIECES.iter().copied().chain([""]) {
            for text in [
                format!("{}{piece}", &FILE[..end]),
                format!("{}{piece}{}", &FILE[..end], &FILE[end..]),
            ] {
                if let Err(rejected) = read(&text) {
                    assert!(rejected.problems.iter().any(Diagnostic::is_error), "{text}");
                    assert!(!rejected.to_string().contains('\n'), "{text}");
                }
            }
        }
    }
}

#[test]
fn a_policy_is_read_and_apps_may_differ() {
    let text = "version: 2
policy: {on_failure: restore, jobs: 2, deadline: 25m}
defaults: {on_failure: continue, timeout: 10m}
apps:
  - {name: a, source: /a, release: $SHA}
  - {name: b, source: /b, release: $SHA, on_failure: stop, timeout: 90s}
";
    let manifest = read(text).unwrap();
    assert_eq!(manifest.policy.on_failure, OnFailure::Restore);
    assert_eq!(manifest.policy.jobs.map(u16::from), Some(2));
    assert_eq!(manifest.policy.deadline, Deadline::After(Duration::from_secs(1500)));
    let times: Vec<_> = manifest.apps.iter().filter_map(|app| app.timeout).collect();
    assert_eq!(times, [Duration::from_secs(600), Duration::from_secs(90)]);
    let each: Vec<_> = manifest.apps.iter().map(|app| app.on_failure).collect();
    assert_eq!(each, [Some(OnFailure::Continue), Some(OnFailure::Stop)]);

    let policy = |policy: &str| {
        format!("version: 2\npolicy: {policy}\napps: [{{name: a, source: /a, release: $SHA}}]\n")
    };
    finds(
        &policy("{on_failure: restart}"),
        "E m.yaml:2:22: `on_failure` is `restart`; it must be one of `stop`, `continue`, `restore` -> did you mean `restore`?",
    );
    for (text, deadline) in [("auto", Deadline::Auto), ("none", Deadline::None)] {
        let manifest = read(&policy(&format!("{{deadline: {text}}}"))).unwrap();
        assert_eq!(manifest.policy.deadline, deadline);
    }
    finds(
        &policy("{deadline: soon}"),
        "E m.yaml:2:20: `deadline` is `soon`; it must be a time -> write it as `90s`, `10m` or `1h`, at most a week",
    );
    for jobs in ["0", "65", "-1", "many"] {
        finds(
            &policy(&format!("{{jobs: {jobs}}}")),
            &format!("E m.yaml:2:16: `jobs` is `{jobs}`; it must be a number from 1 to 64"),
        );
    }
    finds(
        &policy("{onfailure: stop}"),
        "E m.yaml:2:10: unknown key `onfailure` -> did you mean `on_failure`?",
    );
    finds(&policy("stop"), "E m.yaml:2:9: `policy` is a text; it must be a mapping of keys");
}

#[test]
fn needs_are_names_of_the_file_and_no_circle() {
    let apps = |needs: &[(&str, &str)]| {
        let line = |(name, more): &(&str, &str)| {
            format!("  - {{name: {name}, source: /{name}, release: $SHA, {more}}}\n")
        };
        format!("version: 2\napps:\n{}", needs.iter().map(line).collect::<String>())
    };
    let manifest = read(&apps(&[("api", "needs: [gateway]"), ("gateway", "")])).unwrap();
    assert_eq!(manifest.apps[0].needs, ["gateway".parse().unwrap()]);
    assert_eq!(manifest.apps[1].needs, []);
    finds(
        &apps(&[("api", "needs: [gatewya]"), ("gateway", "")]),
        "E m.yaml:3:90: app `api`: `needs` names `gatewya`, which is no app here -> did you mean `gateway`?",
    );
    finds(
        &apps(&[("api", "needs: [api]")]),
        "E m.yaml:3:90: app `api`: apps need each other in a circle: api -> api -> take one of these `needs` away",
    );
    finds(
        &apps(&[("a", "needs: [b]"), ("b", "needs: [c, d]"), ("c", ""), ("d", "needs: [b]")]),
        "E m.yaml:4:89: app `b`: apps need each other in a circle: b -> d -> b -> take one of these `needs` away",
    );
    finds(
        &apps(&[("a", "needs: [b, b]"), ("b", "enabled: false")]),
        "W m.yaml:3:86: app `a`: `needs` names `b`, which is `enabled: false`: it is not waited for\nW m.yaml:3:89: app `a`: `needs` names `b` twice",
    );
    finds(
        "version: 2\ndefaults: {needs: [a]}\napps: [{name: a, source: /a, release: $SHA}]\n",
        "E m.yaml:2:19: `needs` cannot have a default",
    );
}

#[test]
fn names_that_differ_only_in_case_are_warned_about() {
    finds(
        "version: 2\napps: [{name: a, source: /a, release: $SHA}, {name: A, source: /b, release: $SHA}]\n",
        "W m.yaml:2:89: app `A`: the name differs from that of the app at 2:15 only in case",
    );
}

#[test]
fn when_is_patterns_by_what_they_are_asked_of() {
    let app = |when: &str| {
        format!(
            "version: 2\ndefaults: {{when: {{label: [web]}}}}\napps:\n  - {{name: a, source: /a, release: $SHA, {when}}}\n"
        )
    };
    let one = |text: &str| read(&app(text)).unwrap().apps.remove(0).when;
    assert_eq!(one("").label, ["web".parse().unwrap()]);
    let own = one("when: {deployment_group: [\"prod-*\", staging]}");
    assert_eq!(own.deployment_group.len(), 2);
    assert!(own.label.is_empty(), "an app's own replaces the default");
    finds(
        &app("when: {deployment_groups: [x]}"),
        "E m.yaml:4:85: app `a`: unknown key `deployment_groups` -> did you mean `deployment_group`?",
    );
    finds(
        &app("when: {label: [\"a[\"]}"),
        "E m.yaml:4:93: app `a`: the pattern `a[` has a `[` without `]`",
    );
    finds(
        &app("when: {label: web}"),
        "E m.yaml:4:92: app `a`: `label` is a text; it must be a list",
    );
}

#[test]
fn checks_are_read_and_each_is_one_thing() {
    let app = |checks: &str| {
        format!("version: 2\napps:\n- {{name: a, source: /a, release: $SHA, checks: {checks}}}\n")
    };
    let text = app(
        "[{http: \"https://127.0.0.1/health\", within: 60s, status: 204}, {tcp: \"localhost:80\"}, {command: [./is-up, now]}]",
    );
    let checks = read(&text).unwrap().apps.remove(0).checks;
    let http = Probe::Http { url: "https://127.0.0.1/health".into(), status: Some(204) };
    assert_eq!(checks[0], Check { probe: http, within: Duration::from_secs(60) });
    assert_eq!(checks[1].probe.to_string(), "tcp localhost:80");
    assert_eq!(checks[1].within, Duration::from_secs(30));
    assert_eq!(checks[2].probe.to_string(), "/srv/manifest/is-up now");
    for (checks, finding) in [
        ("[{within: 5s}]", "3:85: app `a`: a check is exactly one of `http`, `tcp` and `command`"),
        (
            "[{http: \"http://u:p@h/\"}]",
            "3:92: app `a`: `http` holds a user or a password, which everybody could read",
        ),
        ("[{http: \"ftp://h/\"}]", "3:92: app `a`: `http` must be `http://…` or `https://…`"),
        ("[{tcp: localhost}]", "3:91: app `a`: `tcp` is `localhost`; it must be `host:port`"),
        ("[{tcp: \"h:1\", status: 200}]", "3:106: app `a`: `status` is of `http` checks only"),
        (
            "[{http: \"http://h\", status: 99}]",
            "3:112: app `a`: `status` is `99`; it must be a number from 100 to 599",
        ),
    ] {
        finds(&app(checks), &format!("E m.yaml:{finding}"));
    }
}

#[test]
fn what_could_never_work_is_refused() {
    finds(
        &app("2", "path: a/.Git/x"),
        "E m.yaml:3:94: app `api`: `path` leads into `.git`, which no commit holds",
    );
    finds(
        &app("2", "env: {PATH: \"\"}"),
        "E m.yaml:3:100: app `api`: the variable `PATH` is empty: no program would be found",
    );
}
