//! From what codedeploy-local printed to which script failed how.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::Printed;

/// What 1.x prints when a script failed.
pub(super) const FAILURE_SENTENCE: &str =
    "Your local deployment failed while trying to execute your script at ";
const LOG_SENTENCE: &str = "See the deployment log at ";
/// Lines of output that are kept.
const LINES: usize = 20;

/// Why a deployment failed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// In one line: event, script, exit code, as far as the tool tells.
    pub reason: Option<String>,
    /// The last lines of the script's output, or of the tool's own.
    pub output: Vec<String>,
    /// The file with all of the script's output.
    pub log: Option<PathBuf>,
}

/// Explains a failure. `folder` is where 2.x, which does not name its log, keeps the group's
/// deployments; `read` reads a scripts.log.
pub(super) fn explain(
    printed: &Printed,
    folder: Option<&Path>,
    read: &dyn Fn(&Path) -> Option<String>,
) -> Explanation {
    let after = |lines: &VecDeque<String>, sentence: &str| {
        lines
            .iter()
            .rev()
            .find_map(|line| line.split_once(sentence).map(|(_, rest)| rest.to_owned()))
    };
    let id = after(&printed.stdout, "Deployment ID: ").filter(|id| is_id(id.trim()));
    let log = after(&printed.stdout, LOG_SENTENCE)
        .map(|rest| PathBuf::from(rest.strip_suffix(" for more details").unwrap_or(&rest)))
        .or_else(|| Some(folder?.join(id?.trim()).join("logs/scripts.log")));
    let script_log = log.as_deref().and_then(read).map(|text| ScriptLog::parse(&text));
    let script_failed = after(&printed.stdout, FAILURE_SENTENCE);
    // The built-in one and 2.x say on standard error which event failed and how.
    let said = printed
        .stderr
        .iter()
        .rev()
        .map(|line| line.trim())
        .find(|line| line.contains(" failed: ") || line.starts_with("Validation error: "))
        .map(str::to_owned);
    let of_script = said.as_ref().is_some_and(|said| said.contains("Script at specified location"));
    let Some(ScriptLog { event, script, lines }) =
        script_log.filter(|_| script_failed.is_some() || of_script)
    else {
        // No script to blame: the tool's own words. Ruby puts its message first.
        let mut output: Vec<String> =
            printed.stderr.iter().filter(|line| !is_ruby_frame(line)).cloned().collect();
        if let Some(error) = printed.stdout.iter().rev().find(|line| line.starts_with("ERROR: ")) {
            output.push(error.clone());
        }
        let reason = said.or_else(|| output.last().map(|line| line.trim().to_owned()));
        return Explanation { reason, output: tail(output), log: None };
    };
    let reason = said.unwrap_or_else(|| format!("`{script}` failed in {event}"));
    Explanation { reason: Some(reason), output: tail(lines), log }
}

/// A deployment's id: what is printed must not lead out of the group's folder.
fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// A frame of a Ruby back-trace: `from FILE:LINE:in METHOD`.
fn is_ruby_frame(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("from ") && line.contains(":in ")
}

fn tail(mut lines: Vec<String>) -> Vec<String> {
    let surplus = lines.len().saturating_sub(LINES);
    lines.drain(..surplus);
    lines
}

/// The last script in a scripts.log.
#[derive(Debug, Default, PartialEq, Eq)]
struct ScriptLog {
    event: String,
    script: String,
    lines: Vec<String>,
}

impl ScriptLog {
    fn parse(text: &str) -> Self {
        let mut log = Self::default();
        for line in text.lines() {
            // `2026-11-25 08:48:07 [stdout]text`; times are 19 characters.
            let body = line.get(20..).unwrap_or(line);
            if let Some(event) = body.strip_prefix("LifecycleEvent - ") {
                event.clone_into(&mut log.event);
            } else if let Some(script) = body.strip_prefix("Script - ") {
                script.clone_into(&mut log.script);
                log.lines.clear();
            } else {
                let text = body.strip_prefix("[stdout]").or_else(|| body.strip_prefix("[stderr]"));
                log.lines.push(text.unwrap_or(line).to_owned());
            }
        }
        log
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(stdout: &[&str], stderr: &[&str]) -> Printed {
        let own = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
        Printed { stdout: own(stdout), stderr: own(stderr) }
    }

    const LOG: &str = "\
2026-11-25 08:48:07 LifecycleEvent - BeforeInstall
2026-11-25 08:48:07 Script - scripts/before.sh
2026-11-25 08:48:07 [stdout]fine
2026-11-25 08:48:07 LifecycleEvent - ApplicationStart
2026-11-25 08:48:07 Script - scripts/start.sh
2026-11-25 08:48:07 [stdout]starting
2026-11-25 08:48:07 [stderr]Error: Cannot find module 'express'
";

    #[test]
    fn a_script_failed_in_1_x() {
        let printed = printed(
            &[
                "Starting to execute deployment from within folder /r/g/d-1-local",
                "Your local deployment failed while trying to execute your script at /r/g/d-1-local/deployment-archive/scripts/start.sh",
                "See the deployment log at /r/g/d-1-local/logs/scripts.log for more details",
            ],
            &[],
        );
        let read = |path: &Path| {
            assert_eq!(path, Path::new("/r/g/d-1-local/logs/scripts.log"));
            Some(LOG.to_owned())
        };
        let found = explain(&printed, None, &read);
        assert_eq!(found.reason.as_deref(), Some("`scripts/start.sh` failed in ApplicationStart"));
        assert_eq!(found.output, ["starting", "Error: Cannot find module 'express'"]);
        assert!(found.log.is_some());
    }

    #[test]
    fn ruby_fell_over() {
        let printed = printed(
            &["See the deployment log at /r/g/d-1-local/logs/scripts.log for more details"],
            &[
                "/opt/x.rb:12:in `generate': The deployment failed because a specified file already exists at this location: /srv/x (RuntimeError)",
                "\tfrom /opt/y.rb:3:in `block in z'",
            ],
        );
        let found = explain(&printed, None, &|_| None);
        assert!(found.reason.unwrap().contains("already exists at this location: /srv/x"));
        assert_eq!(found.output.len(), 1);
    }

    #[test]
    fn two_x_says_which_event_failed() {
        let printed = printed(
            &["Starting local deployment...", "  Deployment ID: local-7"],
            &[
                "    ApplicationStart failed: scripts/start.sh: Script at specified location: scripts/start.sh failed with exit code 3",
            ],
        );
        let read = |path: &Path| {
            assert_eq!(path, Path::new("/r/g/local-7/logs/scripts.log"));
            Some(LOG.to_owned())
        };
        let found = explain(&printed, Some(Path::new("/r/g")), &read);
        assert!(found.reason.unwrap().starts_with("ApplicationStart failed: scripts/start.sh"));
        assert_eq!(found.output.last().unwrap(), "Error: Cannot find module 'express'");
    }

    #[test]
    fn a_refusal_on_stdout() {
        let printed = printed(&["ERROR: location x is not a valid uri"], &[]);
        let found = explain(&printed, None, &|_| None);
        assert_eq!(found.reason.as_deref(), Some("ERROR: location x is not a valid uri"));
    }

    #[test]
    fn nothing_was_said() {
        assert_eq!(explain(&printed(&[], &[]), None, &|_| None), Explanation::default());
    }
}
