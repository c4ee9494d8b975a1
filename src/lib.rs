//! `multideployer`: many applications, each at one exact commit, from one AWS CodeDeploy
//! deployment group.
//!
//! # How it works, on one page
//!
//! ```text
//! argv, env ─────────────── settings ──► Settings ┐
//! multideployer.yaml ────── manifest ──► Manifest ├─► plan() ─► Plan ─► rollout(&Plan, &mut Host) ─► Outcome ─► report ─► stdout, exit code
//! git refs in the mirrors ─ ledger ────► Recorded ┘   pure               effects, each one recorded     data      human | json | hook block
//! ```
//!
//! A run has four phases, and the host is touched only in the third:
//!
//! 1. **Parse and select.** Manifest, options, ledger. All that can be refused is refused here.
//! 2. **Prepare all, in parallel.** Fetch the commit, check it out, check the bundle. One
//!    failure ends the run with nothing stopped and nothing changed.
//! 3. **Deploy one by one, in order.** Record the attempt, run codedeploy-local, record the
//!    success, go on.
//! 4. **Report.** A last block of at most 1,800 bytes and an exit code that tells the kind of
//!    failure.
//!
//! # Modules
//!
//! Words ◄ pure ◄ effects ◄ wiring; `tests/layers.rs` fails on an arrow that points up.
//!
//! | layer | modules |
//! |---|---|
//! | words | [`domain`], [`hosts`], [`error`], [`diagnostic`], [`yaml`] |
//! | pure | [`manifest`], [`plan`], [`rollout`], [`report`] |
//! | effects | [`process`], [`mirror`], [`bundle`], [`codedeploy`], [`ledger`], [`engine`] (the built-in codedeploy-local; knows nothing of git), [`host`] (glue) |
//! | wiring | [`cli`], [`settings`] (the only reader of the environment), [`inspect`], this file |
#![warn(missing_docs)]

pub mod bundle;
pub mod cli;
pub mod codedeploy;
pub mod diagnostic;
pub mod domain;
pub mod engine;
pub mod error;
pub mod host;
pub mod hosts;
pub mod inspect;
pub mod ledger;
pub mod manifest;
pub mod mirror;
pub mod plan;
pub mod process;
pub mod report;
pub mod rollout;
pub mod settings;
pub mod yaml;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// Runs the program with its arguments, the name it was called by included.
///
/// Called by the name `codedeploy-local`, or with `codedeploy-local` as its first argument,
/// it is the built-in codedeploy-local.
pub fn run(args: &[OsString]) -> ExitCode {
    let called = args.first().and_then(|name| Path::new(name).file_name());
    if called == Some(OsStr::new("codedeploy-local")) {
        return engine::main(&args[1..]);
    }
    if args.get(1).is_some_and(|first| first == "codedeploy-local") {
        return engine::main(&args[2..]);
    }
    if args.get(1).is_some_and(|first| first == codedeploy::start::COMMAND) {
        return codedeploy::start::main(&args[2..]);
    }
    error::ExitCode::Unexpected.into()
}
