//! The hook that this program runs in, as the agent sees it: how much time it has.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::Hook;
use crate::engine::appspec::{self, Script};

/// What a hook's script has unless its appspec says otherwise.
const DEFAULT: Duration = Duration::from_secs(3600);

/// How long the hook around this process may take, and what says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookTimeout {
    /// Until the agent ends it.
    pub timeout: Duration,
    /// The outer deployment's appspec; `None` if it could not be read, which makes it the
    /// agent's default.
    pub appspec: Option<PathBuf>,
}

impl HookTimeout {
    /// How long this program may take: a tenth less, at most a minute, to end what it started
    /// and to report.
    pub fn less_a_margin(&self) -> Duration {
        let margin = (self.timeout / 10).min(Duration::from_secs(60));
        self.timeout.saturating_sub(margin)
    }
}

/// Finds the timeout of the hook around this process in the appspec of the outer deployment
/// below the agent's `root`. `above` are the command lines of this process's ancestors: they
/// tell which of several scripts is running.
pub fn hook_timeout(
    root: &Path,
    hook: &Hook,
    group_id: Option<&str>,
    above: &[String],
) -> HookTimeout {
    let unknown = HookTimeout { timeout: DEFAULT, appspec: None };
    // Both are parts of a path that is only read, but read by root.
    let plain = |part: &&str| !part.is_empty() && !part.starts_with('.') && !part.contains('/');
    let (Some(group), Some(deployment)) =
        (group_id.filter(plain), Some(hook.deployment_id.as_str()).filter(plain))
    else {
        return unknown;
    };
    let archive = root.join(group).join(deployment).join("deployment-archive");
    for name in ["appspec.yml", "appspec.yaml"] {
        let file = archive.join(name);
        let Ok(text) = fs_err::read(&file) else { continue };
        let Some(hooks) = appspec::parse(&file, &text).hooks else { continue };
        let scripts: Vec<&Script> = hooks
            .iter()
            .filter(|one| one.event == hook.lifecycle_event)
            .flat_map(|one| &one.scripts)
            .collect();
        let runs = |script: &&&Script| {
            let path = archive.join(script.location.trim_start_matches('/'));
            above.iter().any(|line| line.contains(&path.display().to_string()))
        };
        // After `exec` no command line tells. Then the shortest is the safe one.
        let running = scripts.iter().find(runs).map(|script| script.timeout);
        let shortest = scripts.iter().map(|script| script.timeout).min();
        if let Some(timeout) = running.or(shortest) {
            return HookTimeout { timeout, appspec: Some(file) };
        }
    }
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_scripts_own_timeout_counts_else_the_shortest() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("group/d-1/deployment-archive");
        fs_err::create_dir_all(&archive).unwrap();
        let hook = Hook {
            lifecycle_event: "AfterInstall".into(),
            deployment_id: "d-1".into(),
            deployment_group_name: None,
        };
        let find = |above: &[String]| hook_timeout(dir.path(), &hook, Some("group"), above);
        assert_eq!(find(&[]), HookTimeout { timeout: DEFAULT, appspec: None });
        let text = "version: 0.0\nos: linux\nhooks:\n  AfterInstall:\n    - location: a.sh\n      \
                    timeout: 600\n    - location: b/after_install.sh\n      timeout: 1800\n  \
                    ApplicationStart:\n    - location: c.sh\n";
        fs_err::write(archive.join("appspec.yml"), text).unwrap();
        assert_eq!(find(&[]).timeout, Duration::from_secs(600));
        let line = format!("/bin/sh {}/b/after_install.sh", archive.display());
        let found = find(&["sh -c x".to_owned(), line]);
        assert_eq!(found.timeout, Duration::from_secs(1800));
        assert_eq!(found.less_a_margin(), Duration::from_secs(1740));
        assert_eq!(found.appspec, Some(archive.join("appspec.yml")));
        // What is no plain name leads nowhere.
        let away = hook_timeout(dir.path(), &hook, Some(".."), &[]);
        assert_eq!(away.appspec, None);
    }
}
