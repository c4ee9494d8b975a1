//! For Prometheus: what the node exporter's textfile collector reads.

use std::fmt::Write;

use super::{AppEnd, RunReport};

/// What only this host knows of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppFacts {
    /// The app.
    pub name: String,
    /// The commit that is recorded as deployed.
    pub deployed: Option<String>,
    /// When that was recorded, in seconds since 1970.
    pub since: Option<i64>,
    /// Bytes of its mirror.
    pub mirror_bytes: Option<u64>,
}

const LAST_SUCCESS: &str = "multideployer_last_success_timestamp_seconds";
const RUNS: &str = "multideployer_runs_total";
const FAILURES: &str = "multideployer_failures_total";

/// The file's content after a run that ended `now` (seconds since 1970). `before` is what the
/// file said until then: what has to last longer than a run is carried over from it.
pub fn render(report: &RunReport, apps: &[AppFacts], now: i64, before: &str) -> String {
    let mut text = String::new();
    let failed = u8::from(report.exit_code) != 0;
    let last_success = if failed { value(before, LAST_SUCCESS) } else { Some(now.to_string()) };
    let count = |name: &str| value(before, name).and_then(|n| n.parse().ok()).unwrap_or(0_u64);
    let runs = count(RUNS).saturating_add(1);
    let failures = count(FAILURES).saturating_add(u64::from(failed));

    single(&mut text, "multideployer_last_run_timestamp_seconds", "When the last run ended.", now);
    if let Some(time) = last_success {
        single(&mut text, LAST_SUCCESS, "When a run last ended with exit code 0.", time);
    }
    let code = u8::from(report.exit_code);
    single(&mut text, "multideployer_last_run_exit_code", "Exit code of the last run.", code);
    let took = report.seconds;
    single(&mut text, "multideployer_last_run_seconds", "How long the last run took.", took);
    counter(&mut text, RUNS, "Runs so far.", runs);
    counter(&mut text, FAILURES, "Runs so far that ended with another exit code than 0.", failures);

    let mut family = |name: &str, help: &str, lines: Vec<(String, String)>| {
        if lines.is_empty() {
            return;
        }
        let name = format!("multideployer_app_{name}");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in lines {
            let _ = writeln!(text, "{name}{{{labels}}} {value}");
        }
    };
    let label = |name: &str| format!("app=\"{}\"", escaped(name));
    let info = apps.iter().filter_map(|app| {
        let revision = app.deployed.as_ref()?;
        let labels = format!("{},revision=\"{}\"", label(&app.name), escaped(revision));
        Some((labels, "1".to_owned()))
    });
    family("info", "The commit that is deployed.", info.collect());
    let since = apps.iter().filter_map(|app| Some((label(&app.name), app.since?.to_string())));
    family("last_success_timestamp_seconds", "When the app was last deployed.", since.collect());
    let size =
        apps.iter().filter_map(|app| Some((label(&app.name), app.mirror_bytes?.to_string())));
    family("mirror_bytes", "Size of the app's mirror.", size.collect());
    let failed = report.apps.iter().map(|app| {
        let failed = matches!(app.result, AppEnd::Failed | AppEnd::NotPrepared);
        (label(&app.name), u8::from(failed).to_string())
    });
    family("failed", "Whether the app failed in the last run.", failed.collect());
    let touched =
        || report.apps.iter().filter(|app| app.prepare_seconds.is_some() || app.seconds > 0.0);
    let seconds = touched().flat_map(|app| {
        let phase = |phase: &str, seconds: f64| {
            (format!("{},phase=\"{phase}\"", label(&app.name)), seconds.to_string())
        };
        let prepare = app.prepare_seconds.map(|seconds| phase("prepare", seconds));
        let deploy = (app.seconds > 0.0).then(|| phase("deploy", app.seconds));
        prepare.into_iter().chain(deploy)
    });
    family("phase_seconds", "How long the last run was busy with the app.", seconds.collect());
    let bytes = touched().map(|app| (label(&app.name), app.fetched_bytes.to_string()));
    family("fetched_bytes", "Bytes fetched for the app in the last run.", bytes.collect());
    text
}

fn single(text: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
}

fn counter(text: &mut String, name: &str, help: &str, value: u64) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}");
}

/// The value of a sample without labels.
fn value(text: &str, name: &str) -> Option<String> {
    let line = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(' ')?.to_owned());
    let value = text.lines().find_map(line)?;
    // Somebody else's file could say anything.
    value.parse::<f64>().ok().filter(|number| number.is_finite()).map(|_| value)
}

/// A label's value as the format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{app, report};
    use super::*;
    use crate::error::{ExitCode, Failure};

    #[test]
    fn a_run_in_numbers() {
        let mut report = report();
        report.exit_code = ExitCode::AppFailed;
        let failure = Failure::new(ExitCode::AppFailed, "exit 1");
        report.apps = vec![
            app("api", AppEnd::Failed, Some(failure)),
            super::super::AppReport { seconds: 0.0, ..app("web", AppEnd::Unchanged, None) },
        ];
        report.apps[0].prepare_seconds = Some(0.5);
        report.apps[0].fetched_bytes = 1234;
        let facts = [AppFacts {
            name: "api".into(),
            deployed: Some("7".repeat(40)),
            since: Some(1_700_000_000),
            mirror_bytes: Some(5000),
        }];
        let before = "multideployer_last_success_timestamp_seconds 1600000000\n\
                      multideployer_runs_total 7\nmultideployer_failures_total 2\n";
        let text = render(&report, &facts, 1_700_000_100, before);
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        insta::assert_snapshot!(samples.join("\n"), @r#"
        multideployer_last_run_timestamp_seconds 1700000100
        multideployer_last_success_timestamp_seconds 1600000000
        multideployer_last_run_exit_code 4
        multideployer_last_run_seconds 12.3
        multideployer_runs_total 8
        multideployer_failures_total 3
        multideployer_app_info{app="api",revision="7777777777777777777777777777777777777777"} 1
        multideployer_app_last_success_timestamp_seconds{app="api"} 1700000000
        multideployer_app_mirror_bytes{app="api"} 5000
        multideployer_app_failed{app="api"} 1
        multideployer_app_failed{app="web"} 0
        multideployer_app_phase_seconds{app="api",phase="prepare"} 0.5
        multideployer_app_phase_seconds{app="api",phase="deploy"} 3.2
        multideployer_app_fetched_bytes{app="api"} 1234
        "#);
        for sample in samples {
            let name = sample.split(['{', ' ']).next().unwrap();
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        }
        let mut good = report.clone();
        good.exit_code = ExitCode::Ok;
        let text = render(&good, &facts, 1_700_000_200, before);
        assert!(text.contains("\nmultideployer_last_success_timestamp_seconds 1700000200\n"));
        assert!(text.contains("\nmultideployer_failures_total 2\n"));
        let text = render(&report, &facts, 1, "multideployer_runs_total x\ngarbage");
        assert!(text.contains("\nmultideployer_runs_total 1\n"));
        assert!(!text.contains("last_success_timestamp_seconds 1\n"));
    }
}
