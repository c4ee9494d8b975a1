//! What git's credential helpers know.

use std::os::unix::fs::PermissionsExt;

use crate::estate::{APPS, Estate};
use crate::support::host::TestHost;
use crate::support::https::{Fault, hash_of};

/// Three private applications whose password only a helper knows.
fn estate(auth: &str) -> (Estate, [String; 3]) {
    let mut estate = Estate::new(TestHost::new());
    estate.https.revoke();
    estate.https.grant("acme/", Some("bot"), PASSWORD);
    let releases = estate.release_all("v1");
    let prefix = format!("{}/acme", estate.https.authority());
    estate.host.add_host(&prefix, &[("auth", auth)]);
    estate.want(&releases);
    (estate, releases)
}

/// With what no token has in it.
const PASSWORD: &str = "pass word:@/#%+ ";

/// Answers with `secrets/answer`, and notes in `secrets/log` what it is asked and told.
fn script(estate: &Estate) -> String {
    let dir = estate.host.text("secrets");
    let text = format!(
        "#!/bin/sh\n\
         {{ echo \"$*\"; cat; }} > {dir}/$$.note\n\
         cat {dir}/$$.note >> {dir}/log\n\
         env > {dir}/environment\n\
         case $2 in get) . {dir}/answer ;; esac\n"
    );
    let file = estate.host.write("bin/helper", &text);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).expect("its mode");
    answers(estate, &format!("echo username=bot; echo 'password={PASSWORD}'"));
    file
}

fn answers(estate: &Estate, shell: &str) {
    estate.host.secret("answer", &format!("{shell}\n"));
}

#[test]
fn a_helper_is_asked_as_by_git_and_told_what_came_of_it() {
    let (mut estate, releases) = estate("{credential_helper: [../bin/helper, --of-acme]}");
    script(&estate);
    estate.host.set("MULTIDEPLOYER_GITHUB_TOKEN", "ghp_anothersecret");
    estate.host.add_host("other.example.com", &[("auth", "{token_env: OTHER_SECRET}")]);
    estate.host.set("OTHER_SECRET", "anothersecret");
    estate.want(&releases);
    estate.host.run(&["deploy", "-d", "--jobs", "1"]).ok();
    estate.assert_deployed(&releases);
    let log = estate.host.read("secrets/log");
    let authority = estate.https.authority();
    let place = |app: &str| format!("protocol=https\nhost={authority}\npath=acme/{app}.git\n");
    for app in APPS {
        assert!(log.contains(&format!("--of-acme get\n{}\n", place(app))), "{log}");
        let told = format!("{}username=bot\npassword={PASSWORD}\n\n", place(app));
        assert!(log.contains(&format!("--of-acme store\n{told}")), "{log}");
    }
    assert_eq!(log.matches("--of-acme").count(), 6, "{log}");
    let environment = estate.host.read("secrets/environment");
    assert!(!environment.contains("anothersecret"), "{environment}");
    assert!(environment.contains("GIT_TERMINAL_PROMPT=0\n"), "{environment}");
    let shown = hash_of("bot", PASSWORD);
    let seen = estate.https.requests();
    assert!(seen.iter().all(|r| r.authorization.as_ref() == Some(&shown)), "{seen:?}");
    // 403 says nothing of the password; 401 does.
    for (status, erased) in [(403, 0), (401, 3)] {
        std::fs::remove_file(estate.host.path("secrets/log")).expect("it was there");
        let next = estate.release_all(&status.to_string());
        estate.want(&next);
        estate.https.inject(Fault::status(status));
        let helper = estate.host.text("etc/../bin/helper");
        estate
            .host
            .deploy()
            .code(3)
            .says(&format!("refuses the credential of the helper `{helper}`"));
        estate.https.repair();
        let log = estate.host.read("secrets/log");
        assert_eq!(log.matches("--of-acme erase\n").count(), erased, "{log}");
    }
    estate.host.assert_nowhere(&[PASSWORD, &basic(PASSWORD), "anothersecret"]);
}

fn basic(password: &str) -> String {
    openssl::base64::encode_block(format!("bot:{password}").as_bytes())
}

#[test]
fn gits_own_store_is_found_and_what_is_wrong_in_it_is_erased() {
    for file in [Some("secrets/credentials"), None] {
        let kept = file.unwrap_or("home/.git-credentials");
        let (mut estate, releases) = estate("none");
        let auth = match file {
            Some(file) => {
                let file = estate.host.text(file);
                format!("{{credential_helper: [git-credential-store, --file={file}]}}")
            }
            None => "{credential_helper: store}".to_owned(),
        };
        for app in APPS {
            let prefix = format!("{}/acme/{app}.git", estate.https.authority());
            estate.host.add_host(&prefix, &[("auth", &auth)]);
        }
        estate.want(&releases);
        estate.host.deploy().code(3).says("has no password for").says("see what the helper says");
        let coded = "pass%20word%3a%40%2f%23%25%2b%20";
        let line = |user: &str, port: &str| format!("https://{user}:{coded}@127.0.0.1{port}\n");
        let port = format!("%3a{}", estate.https.port());
        let other = line("bot", "%3a1");
        estate.host.write(kept, &format!("{other}{}", line("bot", &port)));
        estate.host.deploy().ok();
        estate.assert_deployed(&releases);
        // It is there still, whatever it was told.
        assert!(estate.host.read(kept).contains(&port), "{}", estate.host.read(kept));
        estate.https.revoke();
        let next = estate.release_all("v2");
        estate.want(&next);
        estate.host.deploy().code(3);
        assert_eq!(estate.host.read(kept), other);
        std::fs::remove_file(estate.host.path(kept)).expect("it was there");
        estate.host.assert_nowhere(&[PASSWORD, coded, &basic(PASSWORD)]);
    }
}

#[test]
fn an_answer_that_is_none_is_refused_and_not_shown() {
    let (estate, _) = estate("{credential_helper: ../bin/helper}");
    let file = script(&estate);
    // Without arguments of its own the action comes first.
    let text = estate.host.read("bin/helper").replace("case $2", "case $1");
    std::fs::write(&file, text).expect("the helper");
    for (answer, words) in [
        ("", "has no password for"),
        ("echo username=bot; echo password=", "has no password for"),
        (
            "echo username=bot; echo password=hunter2; echo password_expiry_utc=1",
            "has no password that has not expired for",
        ),
        ("echo quit=1", "has no password and wants nobody else to be asked for"),
        ("echo hunter2", "printed a line that is not `key=value`"),
        ("printf 'password=hunter2\\a\\n'", "answered with control characters"),
        ("echo username=a:b; echo password=hunter2", "answered with a colon in the user name"),
        ("echo password=hunter2; exit 3", "exited with code 3"),
        ("printf 'password=\\377\\n'", "printed what is not UTF-8"),
    ] {
        answers(&estate, answer);
        estate.host.run(&["deploy", "-d"]).code(3).says(words).silent_about("hunter2");
    }
    assert_eq!(estate.https.requests().len(), 0);
    std::fs::remove_file(&file).expect("it was there");
    estate.host.deploy().code(3).says("does not exist");
}
