//! Reads the manifest and the machine file, and puts them together.

use std::path::{Path, PathBuf};

use crate::deploy::Refusal;
use crate::error::{ExitCode, Failure};
use crate::files::{self, Exposed};
use crate::manifest::machine::{self, Machine};
use crate::manifest::{self, Manifest, Rejected};
use crate::report::log;
use crate::settings::Settings;

/// Reads the manifest, and what the machine file says in addition.
///
/// # Errors
/// Either cannot be read, or is not what it should be.
pub fn load(settings: &Settings) -> Result<Manifest, Refusal> {
    with_machine(settings, load_file(&settings.config)?)
}

/// Adds what the machine file says to a manifest.
///
/// # Errors
/// It cannot be read, or is not what it should be.
pub fn with_machine(settings: &Settings, manifest: Manifest) -> Result<Manifest, Refusal> {
    let machine = machine(settings)?;
    let mut warnings = manifest.warnings;
    warnings.extend(machine.warnings);
    Ok(Manifest {
        hosts: manifest.hosts.or(machine.hosts),
        report: manifest.report.or(machine.report),
        limits: manifest.limits.or(machine.limits),
        labels: machine.labels,
        warnings,
        ..manifest
    })
}

/// Reads a manifest file, and nothing else.
///
/// # Errors
/// It cannot be read, or is not a manifest.
pub fn load_file(path: &Path) -> Result<Manifest, Refusal> {
    let cannot = |error: &dyn std::error::Error| {
        Failure::from_error(ExitCode::Configuration, error)
            .context(format!("cannot read the manifest `{}`", path.display()))
            .hint("name it with --config or MULTIDEPLOYER_CONFIG")
    };
    let text = read_regular(path).map_err(|error| cannot(&error))?;
    let directory = directory(path).map_err(|error| cannot(&error))?;
    manifest::parse(&text, path, &manifest::Defaults::new(directory))
        .map_err(|rejected| refused("manifest", path, rejected))
}

/// Reads the machine file. One that was not named need not be there.
///
/// # Errors
/// It cannot be read, or is not a machine file.
pub fn machine(settings: &Settings) -> Result<Machine, Refusal> {
    let path = &settings.machine_config;
    let cannot = |error: &dyn std::error::Error| {
        Failure::from_error(ExitCode::Configuration, error)
            .context(format!("cannot read the machine file `{}`", path.display()))
            .hint("name another with --machine-config or MULTIDEPLOYER_MACHINE_CONFIG")
    };
    let text = match read_regular(path) {
        Ok(text) => text,
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound && !settings.machine_config_named =>
        {
            return Ok(Machine::default());
        }
        Err(error) => return Err(cannot(&error).into()),
    };
    let directory = directory(path).map_err(|error| cannot(&error))?;
    machine::parse(&text, path, &directory)
        .map_err(|rejected| refused("machine file", path, rejected))
}

/// Whether the files that say what root is to run, and the directories that say what it ran,
/// are safe from other users. With `--insecure-permissions` what is not is only a warning.
///
/// # Errors
/// One of them is not.
pub fn trusted(settings: &Settings) -> Result<Vec<String>, Failure> {
    let mut warnings = Vec::new();
    let places = [
        ("manifest", &settings.config),
        ("machine file", &settings.machine_config),
        ("cache directory", &settings.cache_dir),
        ("state directory", &settings.state_dir),
    ];
    for (what, path) in places {
        // What is not there, or cannot be read, is somebody else's to complain about.
        let Ok(Some(Exposed { path: place, why, remedy })) = files::exposed(path) else {
            continue;
        };
        let at = if place == *path { "it".to_owned() } else { format!("`{}`", place.display()) };
        let why =
            if why.starts_with("belongs") { format!("{at} {why}") } else { format!("{at}: {why}") };
        let text = format!("another user could change the {what} `{}`: {why}", path.display());
        if !settings.insecure_permissions {
            return Err(Failure::new(ExitCode::Unfit, text)
                .hint(format!("{remedy}; or accept it with --insecure-permissions")));
        }
        warnings.push(text);
    }
    Ok(warnings)
}

/// Where the log is and how it is kept. Flag and variable win over the files.
pub fn log(settings: &Settings, manifest: Option<&Manifest>) -> (PathBuf, log::Options) {
    let keeping = manifest.map(|manifest| manifest.report.log.clone()).unwrap_or_default();
    let defaults = log::Options::default();
    let format = match keeping.json {
        Some(true) => log::Format::Json,
        Some(false) | None => log::Format::Text,
    };
    let options = log::Options {
        format,
        max_size: keeping.max_size.unwrap_or(defaults.max_size),
        keep: keeping.keep.unwrap_or(defaults.keep),
    };
    let path = keeping.file.filter(|_| !settings.log_named);
    (path.unwrap_or_else(|| settings.log.clone()), options)
}

fn directory(path: &Path) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    Ok(absolute.parent().unwrap_or(Path::new("/")).to_owned())
}

fn refused(what: &str, path: &Path, rejected: Rejected) -> Refusal {
    let text = format!("the {what} `{}` is refused; nothing was changed", path.display());
    Refusal::new(Failure::new(ExitCode::Configuration, text), rejected.problems)
}

/// Reads a regular file, not much more of it than a manifest may have. A pipe or a device could
/// keep a reader for ever.
fn read_regular(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;

    const MOST: u64 = (4 << 20) + 1;
    let mut options = std::fs::OpenOptions::new();
    options.read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits());
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut text = Vec::new();
    file.take(MOST).read_to_end(&mut text)?;
    Ok(text)
}
