//! What is fuzzed: one function for each kind of text that comes from outside. None may panic,
//! take long, or give out what its callers count on not to see.
//!
//! Not part of the program. `tests/fuzz` builds these into libFuzzer's programs, with the
//! feature `fuzzing`; a plain `cargo test` feeds them what `tests/fuzz/corpus` has.

use std::path::{Path, PathBuf};

use crate::codedeploy;
use crate::diagnostic::Diagnostic;
use crate::domain::{AppName, RepoUrl};
use crate::engine::{self, appspec};
use crate::ledger::last_state::LastState;
use crate::manifest::{self, Defaults, machine};
use crate::mirror;
use crate::verify;

/// One kind of text, by the name of its corpus and its program.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 14] = [
    ("manifest", manifest),
    ("machine_file", machine_file),
    ("appspec", appspec),
    ("agent_configuration", agent_configuration),
    ("source", source),
    ("cleanup_list", engine::fuzzing::cleanup_list),
    ("last_state", last_state),
    ("known_hosts", mirror::fuzzing::known_hosts),
    ("answer", mirror::fuzzing::answer),
    ("attributes", mirror::fuzzing::attributes),
    ("lfs", mirror::fuzzing::lfs),
    ("private_key", mirror::fuzzing::private_key),
    ("signature", verify::fuzzing::signature),
    ("allowed_signers", verify::fuzzing::allowed_signers),
];

/// Gives the text to the target of this name; the programs of `tests/fuzz` call it.
///
/// # Panics
/// There is no such target; or the target found something.
pub fn run(name: &str, text: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = target.unwrap_or_else(|| panic!("there is no target `{name}`"));
    target(text);
}

fn manifest(text: &[u8]) {
    match manifest::parse(text, Path::new("multideployer.yaml"), &Defaults::new("/srv")) {
        Ok(manifest) => {
            for app in &manifest.apps {
                assert!(app.name.as_str().parse::<AppName>().is_ok());
                assert!(app.path.is_relative() && !app.path.iter().any(|part| part == ".."));
                if let RepoUrl::Https { authority, .. } = &app.source {
                    assert!(!authority.contains(['@', '/', ' ']), "{authority}");
                }
            }
            one_line_each(&manifest.warnings);
        }
        Err(rejected) => refused(&rejected.problems),
    }
}

fn machine_file(text: &[u8]) {
    match machine::parse(text, Path::new("config.yaml"), Path::new("/etc/multideployer")) {
        Ok(machine) => one_line_each(&machine.warnings),
        Err(rejected) => refused(&rejected.problems),
    }
}

fn appspec(text: &[u8]) {
    let file = Path::new("appspec.yml");
    let parsed = appspec::parse(file, text);
    match parsed.spec {
        Some(spec) => {
            let possible = appspec::DEFAULT_EVENTS.map(str::to_owned);
            one_line_each(&spec.unknown_events(file, &possible));
        }
        None => refused(&parsed.findings),
    }
    one_line_each(&parsed.findings);
}

fn agent_configuration(text: &[u8]) {
    in_a_file(text, |file| {
        let root = codedeploy::root_dir(Some(file));
        // Either reads it; they may not see different things.
        if engine::configuration_problem(file).is_none() {
            assert!(!root.as_os_str().is_empty());
        }
    });
}

/// Between single quotes, so that it is the source that is read and not the YAML around it.
fn source(text: &[u8]) {
    let text = String::from_utf8_lossy(text).replace('\'', "''");
    for version in ["1.0", "2"] {
        let app = format!("{{name: a, release: 1234567, allow_ref: true, source: '{text}'}}");
        manifest(format!("version: {version}\napps:\n- {app}\n").as_bytes());
    }
}

fn last_state(text: &[u8]) {
    in_a_file(text, |file| {
        if let Ok((state, trouble)) = LastState::load(file) {
            assert!(trouble.is_none() || state.apps().count() == 0);
        }
    });
}

fn refused(findings: &[Diagnostic]) {
    assert!(findings.iter().any(Diagnostic::is_error), "refused without a reason");
    assert!(findings.len() <= 101, "{} findings", findings.len());
    one_line_each(findings);
}

fn one_line_each(findings: &[Diagnostic]) {
    for finding in findings {
        let line = finding.to_string();
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

/// For what is read by its path.
fn in_a_file(text: &[u8], read: impl FnOnce(&Path)) {
    let name =
        format!("multideployer-fuzzing-{}-{:?}", std::process::id(), std::thread::current().id());
    let file = std::env::temp_dir().join(name.replace(['(', ')'], ""));
    let guard = Remove(file.clone());
    if fs_err::write(&file, text).is_ok() {
        read(&file);
    }
    drop(guard);
}

struct Remove(PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        let _ = fs_err::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// For one text; it takes milliseconds.
    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn what_fuzzing_kept_is_read_without_a_finding() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
        for (name, target) in TARGETS {
            let directory = corpus.join(name);
            let mut texts = 0;
            for entry in fs_err::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                let text = fs_err::read(&path).unwrap();
                let begun = Instant::now();
                let result = std::panic::catch_unwind(|| target(&text));
                assert!(result.is_ok(), "{} is a finding", path.display());
                assert!(begun.elapsed() < SOON, "{} takes long", path.display());
                texts += 1;
            }
            assert!(texts > 0, "{} is empty", directory.display());
        }
    }

    #[test]
    fn every_target_has_its_program() {
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/fuzz_targets");
        let list = fs_err::read_to_string(programs.join("../Cargo.toml")).unwrap();
        for (name, _) in TARGETS {
            let program = fs_err::read_to_string(programs.join(format!("{name}.rs"))).unwrap();
            assert!(program.contains(&format!("run(\"{name}\", ")), "{name}");
            assert!(list.contains(&format!("name = \"{name}\"\n")), "{name}");
        }
        assert_eq!(fs_err::read_dir(&programs).unwrap().count(), TARGETS.len());
    }
}
