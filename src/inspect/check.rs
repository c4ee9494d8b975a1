//! `check`: is this manifest a good one?

use std::path::PathBuf;

use serde::Serialize;

use crate::cli::CheckArgs;
use crate::deploy::{Answer, Refusal, json};
use crate::diagnostic::Diagnostic;
use crate::error::{ExitCode, Failure};
use crate::load::load_file;
use crate::report::JSON_VERSION;
use crate::report::human::{self, Paint};
use crate::settings::Settings;

/// `check`: validates manifests. Exit code 2 if one is refused.
pub fn check(settings: &Settings, args: &CheckArgs) -> Answer {
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
                CheckReport {
                    file: file.clone(),
                    ok: true,
                    apps: Some(manifest.apps.len()),
                    diagnostics: manifest.warnings,
                    failure: None,
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
}
