//! The library that is loaded into the program, and what it is told.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What happens at a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    /// The process sends itself a signal.
    Signal(nix::sys::signal::Signal),
    /// From there on what writes to a disk fails with this.
    Fail(nix::errno::Errno),
    /// Nothing: the calls are counted.
    Count,
}

/// The first argument of the run.
pub(crate) const RUN: &str = "deploy";
/// The first argument of the process that becomes codedeploy-local.
pub(crate) const TOOL: &str = "internal-start-deploy-local";

/// The library, compiled once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture/shim.c");
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shim.so");
        let fresh = out.with_extension(std::process::id().to_string());
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([&fresh, &source])
            .arg("-ldl")
            .status();
        assert!(compiled.expect("a C compiler").success(), "{}", source.display());
        std::fs::rename(&fresh, &out).expect("the library");
        out
    })
}

/// Has `act` happen at the call numbered `at` of those processes that `command` starts, itself
/// included, whose first argument is `only`. `note` gets a line about it.
pub(crate) fn arm(command: &mut Command, only: &str, act: Act, at: usize, note: &Path) {
    std::fs::remove_file(note).ok();
    command.env("LD_PRELOAD", library()).env("TORTURE_ONLY", only);
    command.env("TORTURE_AT", at.to_string()).env("TORTURE_NOTE", note);
    match act {
        Act::Signal(signal) => {
            command.env("TORTURE_SIGNAL", (signal as i32).to_string());
        }
        Act::Fail(errno) => {
            command.env("TORTURE_ERRNO", (errno as i32).to_string());
        }
        Act::Count => {}
    }
}

/// What the library noted under a name: `calls`, or `signal` (milliseconds since boot).
pub(crate) fn noted(note: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(note).unwrap_or_default();
    let values = text.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    values.max()
}
