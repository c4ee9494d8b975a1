//! The built-in codedeploy-local.

pub mod appspec;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs one local deployment. `args` are codedeploy-local's options, without its name.
pub fn main(args: &[OsString]) -> ExitCode {
    let _ = args;
    ExitCode::from(1)
}
