//! Place holder for `Install`: the interface, and a refusal.

use std::path::Path;

use super::appspec::AppSpec;

/// What is to be installed, and where.
#[derive(Debug)]
pub struct Request<'a> {
    /// The revision's folder.
    pub archive: &'a Path,
    /// Its appspec.
    pub appspec: &'a AppSpec,
    /// The word for files that exist, in capitals; only read if there is one.
    pub file_exists: &'a str,
    /// The folder with the records of all groups.
    pub instructions: &'a Path,
    /// The deployment group.
    pub group: &'a str,
    /// What relative destinations are relative to.
    pub cwd: &'a Path,
}

/// Why nothing was installed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This build cannot.
    #[error("this build cannot install files yet")]
    Unable,
}

impl Error {
    /// The text behind `ERROR: ` on stdout, where the agent's tool prints one.
    pub fn stdout_error(&self) -> Option<String> {
        match self {
            Self::Unable => None,
        }
    }
}

/// Installs the files of a revision; gives warnings.
///
/// # Errors
/// Always, in this build.
pub fn install(request: &Request<'_>) -> Result<Vec<String>, Error> {
    let _ = request;
    Err(Error::Unable)
}
