//! Directories and files: whose they are, who may write to them, and how much room there is.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, Statvfs, statvfs};
use nix::unistd::{AccessFlags, Uid, User, access};

use super::Patient;
use crate::host;
use crate::report::doctor::{Finding, Section, Status};

/// Below so many bytes a deployment may just work. Bundles differ; the run itself compares
/// what it is about to copy with what is free.
const LOW: u64 = 200_000_000;
/// Below so many bytes not even the records can be trusted to be written.
const NONE: u64 = 4_000_000;
/// Files that may still be made.
const FEW: u64 = 2_000;

/// The directories of a deployment.
pub(super) fn section(patient: &Patient<'_>, log_file: &Path) -> Section {
    let settings = patient.settings;
    let mut section = Section::new("directories");
    let log = log_file.parent().unwrap_or(Path::new("/"));
    let root =
        host::deployment_root(settings.agent_configuration_file.as_deref(), &settings.state_dir);
    section.add(directory(patient, "cache", &settings.cache_dir, true));
    section.add(directory(patient, "state", &settings.state_dir, true));
    section.add(the_log(patient, log_file, directory(patient, "log", log, false)));
    if root != settings.state_dir {
        section.add(directory(patient, "root_dir", &root, false));
    }
    let temporary = settings.environment.get("TMPDIR").map_or("/tmp".into(), PathBuf::from);
    section.add(directory(patient, "temporary", &temporary, false));
    let places = [
        ("cache", settings.cache_dir.as_path()),
        ("state", &settings.state_dir),
        ("log", log),
        ("root_dir", &root),
        ("temporary", &temporary),
    ];
    section.findings.extend(disks(&places));
    if let Some(finding) = no_programs(&root) {
        section.add(finding);
    }
    section
}

/// One directory. A private one has to be as a deployment demands it.
fn directory(patient: &Patient<'_>, check: &'static str, path: &Path, private: bool) -> Finding {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return missing(patient, check, path);
        }
        Err(error) => {
            let named = io::Error::new(error.kind(), format!("`{}`: {error}", path.display()));
            return patient.unseen(check, &named);
        }
    };
    let finding = described(check, path, &metadata);
    if !metadata.is_dir() {
        return Finding::problem(check, format!("`{}` is not a directory", path.display()))
            .remedy("remove it, or give another directory");
    }
    if private {
        let unsafe_ = std::fs::symlink_metadata(path)
            .map_err(|error| patient.unseen(check, &error))
            .and_then(|metadata| {
                host::safe_directory(path, &metadata)
                    .map_err(|failure| Finding::failure(check, &failure))
            });
        if let Err(finding) = unsafe_ {
            return finding;
        }
    }
    match writable(path) {
        Ok(()) => finding,
        Err(_) if !patient.deploys => finding
            .at_least(Status::NotChecked)
            .remedy("run as the user that deploys, usually root"),
        Err(error) => {
            Finding::problem(check, format!("cannot write to `{}`: {error}", path.display()))
                .remedy(match error {
                    nix::errno::Errno::EROFS => "mount it writable, or give another directory",
                    _ => "run as root, or give --cache-dir, --state-dir and --log",
                })
        }
    }
}

fn described(check: &'static str, path: &Path, metadata: &std::fs::Metadata) -> Finding {
    let mode = format!("{:04o}", metadata.mode() & 0o7777);
    let owner = owner(metadata.uid());
    Finding::ok(check, format!("{} ({mode}, {owner})", path.display()))
        .fact("path", path.display().to_string())
        .fact("mode", mode)
        .fact("owner", owner)
}

/// A directory that a deployment would make.
fn missing(patient: &Patient<'_>, check: &'static str, path: &Path) -> Finding {
    let there = nearest(path);
    let made = || format!("{} (not there yet; the first deployment makes it)", path.display());
    if !there.is_dir() {
        return Finding::problem(
            check,
            format!(
                "`{}` cannot be made: `{}` is not a directory",
                path.display(),
                there.display()
            ),
        )
        .remedy("remove it, or give another directory");
    }
    match writable(there) {
        Ok(()) => Finding::ok(check, made()).fact("path", path.display().to_string()),
        Err(_) if !patient.deploys => {
            Finding::not_checked(check, made()).remedy("run as the user that deploys, usually root")
        }
        Err(error) => Finding::problem(
            check,
            format!("`{}` cannot be made below `{}`: {error}", path.display(), there.display()),
        )
        .remedy("run as root, or give --cache-dir, --state-dir and --log"),
    }
}

/// A deployment goes on without its log, with a warning.
fn the_log(patient: &Patient<'_>, file: &Path, directory: Finding) -> Finding {
    let trouble = match std::fs::symlink_metadata(file) {
        Err(_) => None,
        Ok(metadata) if !metadata.is_file() => Some("is not a regular file".to_owned()),
        Ok(_) if !patient.deploys => None,
        Ok(_) => {
            access(file, AccessFlags::W_OK).err().map(|error| format!("is not writable: {error}"))
        }
    };
    let mut finding = match trouble {
        None => directory,
        Some(trouble) => Finding::warning("log", format!("`{}` {trouble}", file.display()))
            .remedy("remove it, or name another with --log"),
    };
    if finding.status == Status::Problem {
        finding.status = Status::Warning;
        finding.message += "; no log would be written";
    }
    finding
}

fn writable(path: &Path) -> nix::Result<()> {
    access(path, AccessFlags::W_OK | AccessFlags::X_OK)
}

/// The path itself, or what there is of the way to it.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

/// Free room, a finding for each file system.
fn disks(places: &[(&'static str, &Path)]) -> Vec<Finding> {
    let mut disks: BTreeMap<u64, (Vec<&str>, &Path)> = BTreeMap::new();
    for (name, path) in places {
        let there = nearest(path);
        let Ok(metadata) = std::fs::metadata(there) else { continue };
        disks.entry(metadata.dev()).or_insert((Vec::new(), there)).0.push(name);
    }
    let mut findings: Vec<_> =
        disks.into_values().map(|(names, path)| disk(&names, path)).collect();
    findings.sort_by(|a, b| a.message.cmp(&b.message));
    findings
}

fn disk(names: &[&str], path: &Path) -> Finding {
    let names = names.join(", ");
    let Ok(about) = statvfs(path) else {
        return Finding::not_checked("disk", format!("{names}: the file system does not say"));
    };
    let finding = room(&names, &about);
    finding.fact("path", path.display().to_string())
}

fn room(names: &str, about: &Statvfs) -> Finding {
    let bytes = about.blocks_available() * about.fragment_size();
    // Some file systems have no limit and say 0 of 0.
    let inodes = (about.files() > 0).then(|| about.files_available());
    let mut text = format!("{names}: {} free", size(bytes));
    if let Some(inodes) = inodes {
        text += &format!(", {inodes} inodes");
    }
    let status = if bytes < NONE || inodes.is_some_and(|inodes| inodes < 50) {
        Status::Problem
    } else if bytes < LOW || inodes.is_some_and(|inodes| inodes < FEW) {
        Status::Warning
    } else {
        Status::Ok
    };
    let mut finding = Finding::new("disk", status, text).fact("free_bytes", bytes);
    if let Some(inodes) = inodes {
        finding = finding.fact("free_inodes", inodes);
    }
    if status == Status::Ok { finding } else { finding.remedy("make room") }
}

/// Hook scripts are started where codedeploy-local keeps them.
fn no_programs(root: &Path) -> Option<Finding> {
    let about = statvfs(nearest(root)).ok()?;
    about.flags().contains(FsFlags::ST_NOEXEC).then(|| {
        Finding::problem(
            "root_dir",
            format!("`{}` is mounted noexec: no hook script can be started there", root.display()),
        )
        .remedy("mount it with exec, or set root_dir in the agent's configuration")
    })
}

/// A user's name, or his number.
pub(super) fn owner(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes / 1000),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{}.{} GB", bytes / 1_000_000_000, bytes % 1_000_000_000 / 100_000_000),
    }
}
