//! `doctor`: looks for what would break a deployment, and changes nothing.

mod host;
mod places;
mod records;
mod servers;

use std::ffi::OsString;
use std::time::{Duration, Instant};

use crate::cli::DoctorArgs;
use crate::deploy::{Answer, Means, Refusal, json, select};
use crate::domain::App;
use crate::error::ExitCode;
use crate::load::{self, load};
use crate::manifest::Manifest;
use crate::process::Interrupt;
use crate::report::doctor::{DoctorReport, Finding, Section};
use crate::report::human::{Paint, counted};
use crate::settings::Settings;

/// After so long no check of a server is begun any more, and those that run end.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all checks know.
struct Patient<'a> {
    settings: &'a Settings,
    interrupt: &'a Interrupt,
    /// What this user cannot see, a deployment by him could not either.
    deploys: bool,
    offline: bool,
    /// When the checks of servers have to be over.
    until: Instant,
    /// Variables that no child may see.
    hidden: Vec<OsString>,
}

impl Patient<'_> {
    /// What it means that a file cannot be looked at: whoever deploys may be able to.
    fn unseen(&self, check: &'static str, error: &std::io::Error) -> Finding {
        if error.kind() == std::io::ErrorKind::PermissionDenied && !self.deploys {
            return Finding::not_checked(check, format!("not visible to this user: {error}"))
                .remedy("run as the user that deploys, usually root");
        }
        Finding::problem(check, error.to_string())
            .remedy("see that it is there, and readable by the user that deploys")
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.settings.environment.text(name)
    }
}

/// `doctor`.
pub fn doctor(
    settings: &Settings,
    args: &DoctorArgs,
    interrupt: &Interrupt,
) -> Result<Answer, Refusal> {
    let started = Instant::now();
    let manifest = load(settings);
    // Of a manifest that cannot be read, nobody knows which ones hold secrets.
    let hidden = manifest.as_ref().map_or_else(
        |_| settings.environment.own_names().map(OsString::from).collect(),
        |manifest| Means::of(settings, manifest).hidden,
    );
    let patient = Patient {
        hidden,
        settings,
        interrupt,
        deploys: nix::unistd::geteuid().is_root() || settings.own_directories,
        offline: args.offline,
        until: started + PATIENCE,
    };
    if let Ok(manifest) = &manifest {
        // The only refusal: there is nothing to look at.
        select(settings, manifest, &args.apps, false, None)?;
    }
    let chosen = |app: &&App| {
        let named = args.apps.iter().any(|name| name == app.name.as_str());
        if args.apps.is_empty() { app.enabled } else { named }
    };
    let apps: Vec<&App> =
        manifest.iter().flat_map(|manifest| &manifest.apps).filter(chosen).collect();
    let (log, _) = load::log(settings, manifest.as_ref().ok());
    // Before there are threads: libgit2's set-up touches the environment.
    crate::mirror::prepare();
    let submodules = servers::beyond::submodules(&patient, &apps);
    let with_submodules: Vec<&App> = apps.iter().copied().chain(&submodules).collect();
    let (local, servers) = std::thread::scope(|scope| {
        let servers = manifest.as_ref().ok().map(|manifest| {
            scope.spawn(|| servers::sections(&patient, manifest, &with_submodules))
        });
        let local = vec![
            host::section(&patient),
            host::tool(&patient),
            places::section(&patient, &log),
            records::section(&patient, &apps),
        ];
        // A thread that panicked has said so already; what it looked at is missing.
        (local, servers.and_then(|servers| servers.join().ok()).unwrap_or_default())
    });
    let mut sections = vec![about_manifest(&patient, &manifest)];
    sections.extend(local);
    sections.extend(servers);
    let report = DoctorReport::new(
        settings.config.clone(),
        args.offline,
        sections,
        started.elapsed().as_secs_f64(),
        interrupt.signal().map(ExitCode::of_signal),
    );
    let voice = settings.voice;
    // Of a hook's output only the end is shown.
    let brief = voice.quiet || settings.hook.is_some();
    let stdout = if voice.json { json(&report) } else { report.human(brief, Paint(voice.color)) };
    Ok(Answer { stdout, code: report.exit_code })
}

fn about_manifest(patient: &Patient<'_>, manifest: &Result<Manifest, Refusal>) -> Section {
    let mut section = Section::new("manifest");
    let path = &patient.settings.config;
    match manifest {
        Ok(manifest) => {
            let count = manifest.apps.len();
            let apps = counted(count, "app");
            let text = format!("{} (version {}, {apps})", path.display(), manifest.version);
            section.add(Finding::ok("manifest", text).fact("apps", count));
            for warning in &manifest.warnings {
                let finding = Finding::warning("manifest", warning.to_string());
                section.add(match &warning.hint {
                    Some(hint) => finding.remedy(hint),
                    None => finding,
                });
            }
        }
        Err(refusal) => {
            let finding = Finding::failure("manifest", &refusal.failure);
            section.add(match &finding.remedy {
                Some(_) => finding,
                None => {
                    finding.remedy("correct what is said below; `multideployer check` says it too")
                }
            });
            for found in refusal.diagnostics.iter().filter(|found| found.is_error()) {
                let finding = Finding::problem("manifest", found.to_string());
                section.add(match &found.hint {
                    Some(hint) => finding.remedy(hint),
                    None => finding,
                });
            }
        }
    }
    match load::trusted(patient.settings) {
        Ok(warnings) => {
            let warnings = warnings.into_iter();
            section.findings.extend(warnings.map(|text| Finding::warning("permissions", text)));
        }
        Err(failure) => section.add(Finding::failure("permissions", &failure)),
    }
    section
}
