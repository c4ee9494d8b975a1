//! What the program prints about itself: shell completion, man pages and the manifest's schema.

use std::path::Path;

use clap::CommandFactory;

use crate::cli::{Cli, CompletionArgs, ManArgs};
use crate::deploy::{Answer, Refusal};
use crate::error::{ExitCode, Failure};

const NAME: &str = "multideployer";

/// `completion`: a script for a shell.
pub fn completion(args: &CompletionArgs) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    Answer { stdout: String::from_utf8_lossy(&script).into_owned(), code: ExitCode::Ok }
}

/// `schema`: for editors.
pub fn schema() -> Answer {
    Answer { stdout: crate::manifest::schema::SCHEMA.to_owned(), code: ExitCode::Ok }
}

/// `man`: the page on standard output, or all pages into a directory.
pub fn man(args: &ManArgs) -> Result<Answer, Refusal> {
    let mut command = Cli::command();
    command.build();
    let Some(directory) = &args.directory else {
        let stdout = String::from_utf8_lossy(&page(command)?).into_owned();
        return Ok(Answer { stdout, code: ExitCode::Ok });
    };
    fs_err::create_dir_all(directory).map_err(|error| cannot_write(directory, &error))?;
    let mut written = String::new();
    let subcommands: Vec<_> = command.get_subcommands().cloned().collect();
    for command in std::iter::once(command).chain(subcommands) {
        // clap calls the page of `deploy` "multideployer-deploy".
        let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
        let path = directory.join(format!("{name}.1"));
        fs_err::write(&path, page(command)?).map_err(|error| cannot_write(&path, &error))?;
        written += &format!("{}\n", path.display());
    }
    Ok(Answer { stdout: written, code: ExitCode::Ok })
}

fn page(command: clap::Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .manual("multideployer")
        .render(&mut page)
        .map_err(|error| Failure::from_error(ExitCode::Unexpected, &error))?;
    Ok(page)
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::from_error(ExitCode::Unfit, error)
        .context(format!("cannot write `{}`", path.display()))
}
