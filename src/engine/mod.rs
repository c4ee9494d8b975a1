//! The built-in codedeploy-local: the agent's command line, files and output, without the
//! agent.
//!
//! | file | idea |
//! |---|---|
//! | `cli`, `checks`, `config` | what is asked for, and what is refused before anything is touched |
//! | `lifecycle` | which events, in which order |
//! | `preflight` | what is found out about a new revision before the old one is stopped |
//! | `deployment` | event by event |
//! | `download`, `unpack` | `DownloadBundle` |
//! | [`install`] | `Install` |
//! | `hooks`, `log` | scripts, and what they write |
//! | `state` | names of files, shared with the agent's tool |
//! | [`appspec`] | the appspec |

pub mod appspec;
mod checks;
mod cli;
mod config;
mod deployment;
mod download;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod hooks;
pub mod install;
mod lifecycle;
mod log;
mod preflight;
mod problem;
mod revision;
mod state;
mod unpack;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::process::{Interrupt, die_by};
use cli::Request;
use config::Config;
use deployment::{Deployment, complain, say};

/// Runs one local deployment. `args` are codedeploy-local's options, without its name.
pub fn main(args: &[OsString]) -> ExitCode {
    match cli::parse(args) {
        Ok(Request::Help) => say(&cli::help()),
        Ok(Request::Version) => say(cli::VERSION),
        Err(reason) => {
            say(cli::USAGE);
            complain(&[format!("codedeploy-local: {reason}")]);
        }
        Ok(Request::Deploy(options)) => match deploy(&options) {
            Ok(code) => return ExitCode::from(code),
            Err(reason) => say(&format!("ERROR: {reason}")),
        },
    }
    // Help and version, too: it is what the agent's tool does.
    ExitCode::from(1)
}

/// What is wrong with an agent's configuration file, as a sentence; `None` if it can be used.
pub fn configuration_problem(file: &std::path::Path) -> Option<String> {
    Config::read(file, file).err()
}

fn deploy(options: &cli::Options) -> Result<u8, String> {
    let cwd = std::env::current_dir()
        .map_err(|e| format!("the working directory cannot be found: {e}"))?;
    let bundle = checks::check(options, &cwd)?;
    let config = Config::load(options, &cwd)?;
    let interrupt =
        Interrupt::on_signals().map_err(|e| format!("signals cannot be watched: {e}"))?;
    let deployment = Deployment::new(options, &bundle, &config, &cwd, &interrupt)
        .map_err(|e| format!("no name for the deployment can be made: {e}"))?;
    match deployment.run() {
        Ok(code) => Ok(code),
        Err(signal) => die_by(signal),
    }
}
