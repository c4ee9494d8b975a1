//! What is looked at between and after the runs.

use std::path::Path;

use crate::estate::{APPS, Estate};
use crate::support::agents::Version;
use crate::support::host::TestHost;

/// An estate that can be told what its hooks shall do, whoever runs them.
pub(crate) fn estate(number: usize) -> Estate {
    let host = match number % 4 {
        1 => TestHost::with_agent(Version::One),
        3 => TestHost::with_agent(Version::Two),
        _ => TestHost::new(),
    };
    let builtin = host.tool == "builtin";
    let estate = if number % 3 == 2 { Estate::with_ssh(host) } else { Estate::new(host) };
    if !builtin {
        for app in APPS {
            hook(&estate.host, app, "", "true");
        }
    }
    estate
}

/// From now on the hook of `app` at `event` (of a stand-in's deployment, there is one) does
/// this, and reports that it did.
pub(crate) fn hook(host: &TestHost, app: &str, event: &str, shell: &str) {
    let hooks = host.text("hooks");
    if host.tool == "builtin" {
        host.hook(app, &format!("case $LIFECYCLE_EVENT in {event}) {shell} ;; esac"));
    } else {
        // What the hooks of `app::files` report by themselves.
        let report = format!("echo {app} ? ValidateService $GIT_COMMIT >>$hooks/log");
        host.agent().script(app, &format!("hooks={hooks}; {shell}\n{report}"));
    }
}

/// A version of all three with something to fetch.
pub(crate) fn release(estate: &Estate, version: &str) -> [String; 3] {
    let mut bytes = vec![0; 60_000];
    openssl::rand::rand_bytes(&mut bytes).expect("random bytes");
    let bulk = crate::support::hex(&bytes);
    for (at, app) in APPS.iter().enumerate() {
        let files: Vec<(String, &str)> =
            (0..12).map(|n| (format!("bulk/d{n}/noise"), &bulk[n * 9000 + at..][..9000])).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (a.as_str(), *b)).collect();
        estate.upstream(app).commit(&files);
    }
    estate.release_all(version)
}

/// A record as the file it is: after a kill git may not want to read the mirror.
pub(crate) fn record(host: &TestHost, app: &str, what: &str) -> Option<String> {
    let text = host.read(&format!("cache/mirrors/{app}.git/refs/multideployer/{what}"));
    let text = text.trim();
    (text.len() == 40).then(|| text.to_owned())
}

/// The records may claim less than happened, never more. `new` is what the run was to deploy.
pub(crate) fn assert_no_false_claim(host: &TestHost, new: &[String; 3]) {
    let log = host.read("hooks/log");
    let state = host.read("state/last_state.yaml");
    for (app, commit) in APPS.iter().zip(new) {
        let seen = |event: &str| {
            log.lines().any(|line| {
                line.starts_with(&format!("{app} ")) && line.ends_with(&format!("{event} {commit}"))
            })
        };
        let deployed = record(host, app, "deployed").as_ref() == Some(commit);
        let attempted = record(host, app, "attempted").as_ref() == Some(commit);
        if deployed || state.contains(commit.as_str()) {
            assert!(seen("ValidateService"), "{app} was not deployed, but is recorded as if");
        }
        if state.contains(commit.as_str()) {
            assert!(deployed, "last_state.yaml is ahead of the record of {app}");
        }
        if seen("") || seen("ValidateService") {
            assert!(deployed || attempted, "{app} was touched, and no record says so\n{log}");
        }
    }
}

/// All three are as wanted, as records and on the disk.
pub(crate) fn assert_converged(estate: &Estate, releases: &[String; 3], version: &str) {
    let state = estate.host.read("state/last_state.yaml");
    for (app, commit) in APPS.iter().zip(releases) {
        assert!(state.contains(commit.as_str()), "{app} in last_state.yaml:\n{state}");
        assert_eq!(record(&estate.host, app, "attempted"), None, "{app}");
        // With the cache, the refs of what was current were deleted.
        let deployed = record(&estate.host, app, "deployed");
        assert!(deployed.is_none_or(|deployed| deployed == *commit), "{app}");
    }
    if estate.host.tool == "builtin" {
        estate.assert_installed([version; 3]);
    }
    let left = leftovers(&estate.host);
    assert!(left.is_empty(), "left behind: {left:#?}");
}

/// What a run that has ended should not leave.
fn leftovers(host: &TestHost) -> Vec<String> {
    let mut left = Vec::new();
    for place in ["cache", "state", "log", "tmp", "deployment-root"] {
        for entry in walkdir::WalkDir::new(host.path(place)).min_depth(1).into_iter().flatten() {
            let name = entry.file_name().to_string_lossy();
            let path =
                entry.path().strip_prefix(host.dir()).expect("below it").display().to_string();
            let odd = match place {
                "tmp" => true,
                "state" => !["lock", "tool", "last_state.yaml"].contains(&&*name),
                "log" => !name.ends_with(".log"),
                "deployment-root" => !path.contains("/deployment-archive/") && unfinished(&name),
                _ => {
                    unfinished(&name)
                        || path.starts_with("cache/worktrees/")
                            && entry.depth() > 2
                            && name != "previous"
                        || path.starts_with("cache/mirrors/")
                            && entry.depth() == 2
                            && !name.ends_with(".git")
                }
            };
            if odd {
                left.push(path);
            }
        }
    }
    left
}

fn unfinished(name: &str) -> bool {
    let ends = [".lock", ".tmp", ".new", ".old", ".rebuild"];
    name != "multideployer.lock" && ends.iter().any(|end| name.ends_with(end))
        || ["pack_git2_", "tmp_", "streamed_git2_", "shallow."].iter().any(|s| name.starts_with(s))
}

/// Bytes of the files below a directory.
pub(crate) fn size(directory: &Path) -> u64 {
    let entries = walkdir::WalkDir::new(directory).into_iter().flatten();
    let files = entries.filter(|entry| entry.file_type().is_file());
    files.filter_map(|entry| entry.metadata().ok()).map(|about| about.len()).sum()
}
