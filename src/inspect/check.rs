//! `check`: is this manifest a good one?

use std::path::PathBuf;

use serde::Serialize;

use super::remote;
use crate::cli::CheckArgs;
use crate::deploy::{Answer, Refusal, json};
use crate::diagnostic::Diagnostic;
use crate::error::{ExitCode, Failure};
use crate::load::load_file;
use crate::process::Interrupt;
use crate::report::JSON_VERSION;
use crate::report::human::{self, Paint};
use crate::settings::Settings;

/// `check`: validates manifests. Exit code 2 if one is refused; with `--remote` that of the first
/// commit that its server does not give away.
pub fn check(settings: &Settings, args: &CheckArgs, interrupt: &Interrupt) -> Answer {
    let files = if args.files.is_empty() {
        std::slice::from_ref(&settings.config)
    } else {
        args.files.as_slice()
    };
    let paint = Paint(settings.voice.color);
    let mut code = ExitCode::Ok;
    let mut text = String::new();
    let mut reports = Vec::new();
    for file in files {
        let report = match load_file(file) {
            Ok(manifest) => {
                let findings: String = manifest
                    .warnings
                    .iter()
                    .map(|finding| human::diagnostic(finding, paint))
                    .collect();
                text += &findings;
                text += &format!(
                    "{}: {} (version {}, {})\n",
                    file.display(),
                    paint.green("ok"),
                    manifest.version,
                    human::counted(manifest.apps.len(), "app")
                );
                let (apps, diagnostics) = (manifest.apps.len(), manifest.warnings.clone());
                let asked = args.remote.then(|| remote::ask(settings, manifest, interrupt));
                let (remote, failure) = match asked.transpose() {
                    Ok(remote) => (remote, None),
                    Err(failure) => (None, Some(failure)),
                };
                let found = remote.iter().flatten();
                text += &found.clone().map(|one| one.human(paint)).collect::<String>();
                text +=
                    &failure.iter().map(|one| human::failure(one, None, paint)).collect::<String>();
                let wrong = failure.as_ref().or(found.clone().find_map(|one| one.failure.as_ref()));
                let ok = wrong.is_none();
                if let Some(wrong) = wrong
                    && code == ExitCode::Ok
                {
                    code = wrong.code;
                }
                CheckReport {
                    file: file.clone(),
                    ok,
                    apps: Some(apps),
                    diagnostics,
                    failure,
                    remote,
                }
            }
            Err(Refusal { failure, diagnostics, .. }) => {
                code = failure.code;
                text += &diagnostics
                    .iter()
                    .map(|finding| human::diagnostic(finding, paint))
                    .collect::<String>();
                // The findings say it all; a file that cannot be read has none.
                if diagnostics.is_empty() {
                    text += &human::failure(&failure, None, paint);
                }
                text += &format!("{}: {}\n", file.display(), paint.red("refused"));
                CheckReport {
                    file: file.clone(),
                    ok: false,
                    apps: None,
                    diagnostics,
                    failure: Some(failure),
                    remote: None,
                }
            }
        };
        reports.push(report);
    }
    let stdout = if settings.voice.json {
        json(&CheckReports {
            version: JSON_VERSION,
            command: "check",
            ok: code == ExitCode::Ok,
            files: reports,
        })
    } else if settings.voice.quiet && code == ExitCode::Ok {
        String::new()
    } else {
        text
    };
    Answer { stdout, code }
}

#[derive(Serialize)]
struct CheckReports {
    version: u32,
    command: &'static str,
    ok: bool,
    files: Vec<CheckReport>,
}

#[derive(Serialize)]
struct CheckReport {
    file: PathBuf,
    ok: bool,
    apps: Option<usize>,
    diagnostics: Vec<Diagnostic>,
    failure: Option<Failure>,
    /// What the servers said, if they were asked.
    remote: Option<Vec<remote::Asked>>,
}
