//! The Install event: what the revision before this one installed is removed, the files of
//! this one are copied, and the permissions are set.
//!
//! Everything that can be foreseen is decided before anything is touched (`plan`); only
//! then the old files go (`cleanup`), the instructions are written down (`json`) and
//! carried out (`execute`).

mod cleanup;
mod conflict;
mod copy;
mod execute;
mod json;
mod look;
mod permissions;
mod plan;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

pub use conflict::{Conflict, unfit_name};

use crate::engine::appspec::AppSpec;

/// Foresees what a clean-up list would remove, and forgets it.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn foresee_list(text: &[u8]) {
    drop(cleanup::foresee_lines(text));
}

/// What is to be installed, and where.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The revision's `deployment-archive`.
    pub archive: &'a Path,
    /// Its appspec.
    pub appspec: &'a AppSpec,
    /// The command line's word for what happens to files that exist, in capitals. The
    /// appspec's own wins. A word that is none matters only once a file exists.
    pub file_exists: &'a str,
    /// The folder of the lists and instruction files.
    pub instructions: &'a Path,
    /// The deployment group.
    pub group: &'a str,
    /// What relative destinations and objects are relative to.
    pub cwd: &'a Path,
}

/// Why a revision was not installed, or not completely.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It was refused; nothing was changed.
    #[error("{}", conflict::describe(.0))]
    Refused(Vec<Conflict>),
    /// The list of what the revision before this one installed cannot be read.
    #[error("cannot read the clean-up list `{}`", path.display())]
    List {
        /// The list.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something that the revision before this one installed cannot be removed.
    #[error("cannot remove `{}`, which the last deployment installed", path.display())]
    Remove {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A list or an instruction file cannot be written.
    #[error("cannot write `{}`", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An instruction failed. What was done before it is in the clean-up list.
    #[error("cannot {what} `{}`", path.display())]
    Execute {
        /// A verb.
        what: &'static str,
        /// The name that codedeploy-local's errors have for the call.
        call: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program that sets what this one cannot set itself failed.
    #[error("`{command}` failed{}", conflict::indented(output))]
    Program {
        /// What was run.
        command: String,
        /// What it printed.
        output: Vec<String>,
    },
}

impl Error {
    /// The text after `ERROR: ` on stdout where codedeploy-local prints one, which it does
    /// for errors of the system and for unknown accounts. Nothing for what it dies of.
    pub fn stdout_error(&self) -> Option<String> {
        match self {
            Self::Refused(conflicts) => conflict::stdout_error(conflicts),
            Self::List { path, source } | Self::Record { path, source } => {
                Some(ruby("rb_sysopen", path, source))
            }
            Self::Remove { path, source } => Some(ruby("apply2files", path, source)),
            Self::Execute { call, path, source, .. } => Some(ruby(call, path, source)),
            Self::Program { .. } => None,
        }
    }
}

/// An error of the system in the words of codedeploy-local.
fn ruby(call: &str, path: &Path, error: &io::Error) -> String {
    let errno = error.raw_os_error().or_else(|| {
        let inner = error.get_ref().and_then(|e| std::error::Error::source(e))?;
        inner.downcast_ref::<io::Error>()?.raw_os_error()
    });
    let text = match errno {
        Some(errno) => nix::errno::Errno::from_raw(errno).desc().to_owned(),
        None => error.to_string(),
    };
    format!("{text} @ {call} - {}", path.display())
}

/// Installs a revision in place of the one that the clean-up list is about. Gives what is
/// to be said although it succeeded.
///
/// # Errors
/// [`Error::Refused`] before anything was changed; any other leaves a clean-up list of
/// what was done.
pub fn install(request: &Request<'_>) -> Result<Vec<String>, Error> {
    let list = request.instructions.join(format!("{}-cleanup", request.group));
    let instructions = request.instructions.join(format!("{}-install.json", request.group));
    let removal = cleanup::foresee(&list)?;
    let plan = plan::plan(request, &look::Host::new(removal.gone())).map_err(Error::Refused)?;
    let warnings = removal.carry_out(&list)?;
    json::write(&instructions, &plan)?;
    execute::execute(&plan, &list)?;
    Ok(warnings)
}

/// What Install would refuse whatever scripts do before it, as the reason lies in the
/// revision itself. [`Request::archive`] may be the bundle, before it is copied.
pub fn foresee(request: &Request<'_>) -> Vec<Conflict> {
    let list = request.instructions.join(format!("{}-cleanup", request.group));
    let removal = cleanup::foresee(&list).unwrap_or_default();
    let mut conflicts =
        plan::plan(request, &look::Host::new(removal.gone())).err().unwrap_or_default();
    conflicts.retain(Conflict::lies_in_revision);
    conflicts
}

/// One file or link that an Install puts on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Where it is in the archive.
    pub source: PathBuf,
    /// Where it goes.
    pub destination: PathBuf,
    /// The mode that `permissions` declares.
    pub mode: Option<u32>,
}

/// All that an Install puts on a host that has nothing yet. [`Request::archive`] may be the
/// bundle.
///
/// # Errors
/// What lies in the revision itself and keeps it from being installed anywhere.
pub fn installs(request: &Request<'_>) -> Result<Vec<Installed>, Error> {
    let plan = plan::plan(request, &look::Empty).map_err(Error::Refused)?;
    let modes: HashMap<&Path, u32> = plan
        .access
        .iter()
        .filter_map(|access| {
            let mode = plan.rights.get(access.rights)?.mode.as_ref()?;
            Some((&*access.target, mode.bits))
        })
        .collect();
    let copies = plan.steps.iter().filter_map(|step| match step {
        plan::Step::Copy { source, destination, .. } => Some(Installed {
            source: source.clone(),
            destination: destination.to_path_buf(),
            mode: modes.get(&**destination).copied(),
        }),
        plan::Step::Mkdir(_) => None,
    });
    Ok(copies.collect())
}

/// The files and links that the last Install of a group made, as its `GROUP-install.json` says:
/// it is the same with every codedeploy-local. `None` if there is none that can be read.
pub fn installed(instructions: &Path, group: &str) -> Option<HashSet<PathBuf>> {
    let text = fs_err::read(instructions.join(format!("{group}-install.json"))).ok()?;
    let document: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let copies = document.get("instructions")?.as_array()?.iter();
    let copies = copies.filter(|one| one.get("type").is_some_and(|kind| kind == "copy"));
    Some(copies.filter_map(|one| Some(one.get("destination")?.as_str()?.into())).collect())
}

/// Writes a file under another name and renames it.
fn replace(
    path: &Path,
    write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
) -> Result<(), Error> {
    use io::Write as _;
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    let done = (|| {
        let mut out = io::BufWriter::with_capacity(1 << 16, fs_err::File::create(&temporary)?);
        write(&mut out)?;
        out.flush()?;
        drop(out);
        fs_err::rename(&temporary, path)
    })();
    done.map_err(|source| {
        let _ = fs_err::remove_file(&temporary);
        Error::Record { path: path.to_owned(), source }
    })
}

#[cfg(test)]
mod tests;
