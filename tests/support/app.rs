//! Applications to deploy: their hooks report what happened, and do what a test says.

use std::path::Path;

/// The events an application's hooks report, in the order they happen.
pub const EVENTS: [&str; 5] =
    ["ApplicationStop", "BeforeInstall", "AfterInstall", "ApplicationStart", "ValidateService"];

/// The files of `name` in some version, for a host in `dir`: it installs `content/` to
/// `DIR/srv/NAME`, and each of its hooks
///
/// - appends `NAME VERSION EVENT $GIT_COMMIT` to `DIR/hooks/log`,
/// - leaves its environment in `DIR/hooks/NAME.EVENT.environ`, its umask and working
///   directory in `DIR/hooks/NAME.EVENT.facts`, and every command line it can see in
///   `DIR/hooks/cmdlines`,
/// - does what `DIR/hooks/NAME.sh` says, if that is there.
pub fn files(dir: &Path, name: &str, version: &str) -> Vec<(String, String)> {
    let dir = dir.display();
    let mut appspec = format!(
        "version: 0.0\nos: linux\nfiles:\n  - source: content\n    destination: {dir}/srv/{name}\n\
         hooks:\n"
    );
    for event in EVENTS {
        appspec
            .push_str(&format!("  {event}:\n    - location: scripts/hook.sh\n      timeout: 30\n"));
    }
    let hook = format!(
        r#"#!/bin/sh
hooks={dir}/hooks
echo "{name} {version} $LIFECYCLE_EVENT $GIT_COMMIT" >>$hooks/log
cat /proc/$$/environ >"$hooks/{name}.$LIFECYCLE_EVENT.environ"
{{ umask; pwd; }} >"$hooks/{name}.$LIFECYCLE_EVENT.facts"
for one in /proc/[0-9]*; do
    tr '\0' ' ' <"$one/cmdline"
    echo
done >>$hooks/cmdlines 2>/dev/null
run() {{ cat $hooks/run.pid; }}
if [ -f $hooks/{name}.sh ]; then . $hooks/{name}.sh; fi
exit 0
"#
    );
    vec![
        ("appspec.yml".to_owned(), appspec),
        ("scripts/hook.sh".to_owned(), hook),
        ("content/version".to_owned(), format!("{version}\n")),
        (format!("content/only-in-{version}"), format!("{name}\n")),
    ]
}
