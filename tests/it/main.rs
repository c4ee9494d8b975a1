//! The program as a whole: the real binary against real servers.

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/signals.rs"]
mod signals;

mod bed;
mod bundle;
mod commands;
mod compat;
mod crash;
mod doctor;
mod drift;
mod estate;
mod flow;
mod github_app;
mod helper;
mod hook;
mod hostile;
mod hostile_sizes;
mod hostile_texts;
mod housekeeping;
mod lfs;
mod notify;
mod policy;
mod remote;
mod rights;
mod rollback;
mod secrets;
mod servers;
mod sharing;
mod signatures;
mod ssh;
mod submodules;
mod terminal;
mod tools;
mod upkeep;
mod verify;

/// A module that nobody named here would not be run, and nobody would notice.
#[test]
fn every_file_is_a_module() {
    let main = include_str!("main.rs");
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    for entry in std::fs::read_dir(here).expect("this directory") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        let module = name.strip_suffix(".rs").expect("only modules are here");
        assert!(module == "main" || main.contains(&format!("\nmod {module};")), "{name}");
    }
}
