//! `status --drift`: what is installed, held against the commit.

use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::{Value, json};

use crate::estate::Estate;
use crate::support::agents::Version;
use crate::support::app;
use crate::support::host::TestHost;
use crate::support::upstream::Entry;

/// A version of `api` that has one of everything.
fn release(estate: &Estate, version: &str) -> String {
    estate.release("api", version);
    let srv = estate.host.text("srv/api");
    let appspec = app::files(estate.host.dir(), "api", version).remove(0).1
        + &format!(
            "permissions:\n  - object: {srv}\n    pattern: 'secret*'\n    mode: '0640'\n    type: [file]\n"
        );
    estate.upstream("api").commit_entries(&[
        Entry::file(b"appspec.yml", appspec),
        Entry::file(
            b".gitattributes",
            "*.bat eol=crlf\n*.draft export-ignore\n*.rev export-subst\n",
        ),
        Entry::file(b"content/run.bat", "a\nb\n"),
        Entry::file(b"content/never.draft", "x"),
        Entry::file(b"content/it.rev", "$Format:%H$\n"),
        Entry::file(b"content/secret.conf", "s\n"),
        Entry::from(&("content/bin/run.sh", "#!/bin/sh\n")),
        Entry::link("content/current", "version"),
    ])
}

fn drift(host: &TestHost, code: i32) -> Value {
    let status = host.run(&["status", "api", "--drift", "--exit-code", "--json"]).code(code).json();
    assert!(!host.path("cache/drift").exists(), "nothing is left behind");
    status["apps"][0]["drift"].clone()
}

#[test]
fn files_that_are_not_as_deployed_are_named() {
    let estate = Estate::new(TestHost::new());
    let host = &estate.host;
    let one = release(&estate, "v1");
    host.apps(&[("api", &estate.source("api"), &one)]);
    host.deploy().ok();
    estate.https.stop();
    let clean = drift(host, 0);
    assert_eq!((&clean["state"], &clean["files"]), (&"none".into(), &7.into()), "{clean}");
    host.run(&["status", "--drift"]).ok().stdout_has("no drift: 7 files are as in");
    assert!(host.run(&["status", "--json"]).ok().json()["apps"][0].get("drift").is_none());

    let mode = |name: &str, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(host.path(name), mode).expect("its mode");
    };
    host.write("srv/api/version", "v0\n");
    host.write("srv/api/run.bat", "a\nb\n\n\n");
    mode("srv/api/secret.conf", 0o644);
    mode("srv/api/bin/run.sh", 0o644);
    std::fs::remove_file(host.path("srv/api/current")).expect("it goes");
    symlink("elsewhere", host.path("srv/api/current")).expect("a link");
    std::fs::remove_file(host.path("srv/api/only-in-v1")).expect("it goes");
    std::fs::remove_file(host.path("srv/api/it.rev")).expect("it goes");
    std::fs::create_dir(host.path("srv/api/it.rev")).expect("a directory");
    host.write("srv/api/log", "what an app writes itself is nobody's business");
    let found = drift(host, 10);
    assert_eq!((&found["state"], &found["commit"]), (&"differs".into(), &one.into()));
    let mut differences: Vec<_> = found["differences"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| {
            let path = one["path"].as_str().expect("a path").rsplit_once("/api/");
            (path.expect("below it").1.to_owned(), one["what"].as_str().expect("a word").to_owned())
        })
        .collect();
    differences.sort();
    let expected = [
        ("bin/run.sh", "mode"),
        ("current", "target"),
        ("it.rev", "kind"),
        ("only-in-v1", "missing"),
        ("run.bat", "content"),
        ("secret.conf", "mode"),
        ("version", "content"),
    ];
    assert_eq!(differences, expected.map(|(path, what)| (path.to_owned(), what.to_owned())));
    assert!(found["scripts"].to_string().contains("ApplicationStart scripts/hook.sh"), "{found}");
    assert!(!found["scripts"].to_string().contains("ApplicationStop"), "{found}");
    let text = host.run(&["status", "--drift"]).ok();
    assert!(text.stdout.contains("drift: 7 files are not as in"), "{text:?}");
    assert!(text.stdout.contains("scripts that may have changed them"), "{text:?}");

    std::fs::remove_dir(host.path("srv/api/it.rev")).expect("it goes");
    host.run(&["deploy", "--force", "--offline"]).ok();
    assert_eq!(drift(host, 0)["state"], "none");
    // A mirror without the commit: not known is not the same as no drift.
    std::fs::remove_dir_all(host.mirror("api")).expect("it goes");
    let status = host.run(&["status", "api", "--drift", "--json"]).ok().json();
    assert_eq!(status["apps"][0]["drift"]["state"], "unknown", "{status}");
    assert!(status["apps"][0]["drift"]["why"].to_string().contains("mirror"), "{status}");
}

#[test]
fn what_the_agents_tools_installed_is_compared_too() {
    for (version, umask, gap) in [(Version::One, "0077", ""), (Version::Two, "0027", "\n  ")] {
        let estate = Estate::new(TestHost::with_agent(version));
        let host = &estate.host;
        let one = estate.release("api", "v1");
        // What they leave behind, in the form they do: 2.x prints it prettily.
        let srv = host.text("srv/api");
        let copy = |name: &str| {
            format!(
                "{{{gap}\\\"type\\\": \\\"copy\\\", \\\"source\\\": \\\"$folder/deployment-archive/content/{name}\\\", \\\"destination\\\": \\\"{srv}/{name}\\\"{gap}}}"
            )
        };
        let script = |extra: &str| {
            format!(
                "umask {umask}; mkdir -p {srv}; cp -R \"$folder/deployment-archive/content/.\" {srv}/; \
                 printf '%s' \"{{\\\"instructions\\\": [{}, {}{extra}]}}\" >\"$root/deployment-instructions/$group-install.json\"",
                copy("version"),
                copy("only-in-v1")
            )
        };
        host.agent().script("api", &script(""));
        host.apps(&[("api", &estate.source("api"), &one)]);
        host.deploy().ok();
        let clean = drift(host, 0);
        assert_eq!((&clean["state"], &clean["files"]), (&"none".into(), &2.into()), "{clean}");

        host.write("srv/api/version", "v2\n");
        host.agent().script("api", &script(&format!(", {}", copy("generated"))));
        let found = drift(host, 10);
        assert_eq!(found["differences"].as_array().map(Vec::len), Some(1), "{found}");
        assert_eq!(
            found["differences"][0],
            json!({"path": format!("{srv}/version"), "what": "content"})
        );
        host.run(&["deploy", "--force"]).ok();
        // A script before the Install may make files, and this commit has one.
        assert_eq!(drift(host, 0)["state"], "none");
    }
}
