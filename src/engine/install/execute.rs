//! Carrying a plan out.
//!
//! Each path is in the clean-up list before it is made: a process that is killed at any
//! moment leaves nothing behind that the next deployment does not remove. Names below a
//! directory that the plan makes are never followed if they are links, so that somebody
//! who got such a directory cannot lead what follows elsewhere.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};

use super::copy::{self, At};
use super::permissions::{Access, Rights};
use super::plan::{How, Plan, Step};
use super::{Error, cleanup, replace};
use crate::engine::appspec::{Context, full_acl};
use crate::process::{Command, Interrupt};

/// How many paths go into the list at once.
const BATCH: usize = 128;
/// How much text goes to one call of `setfacl`, in bytes.
const ARGUMENTS: usize = 64 << 10;

/// Makes everything, then sets the permissions. The clean-up list is right at any moment,
/// and also when this fails.
pub(super) fn execute(plan: &Plan, list: &Path) -> Result<(), Error> {
    let part = format!(".multideployer-{}.part", std::process::id());
    let mut record = Record::begin(list)?;
    let mut places = Places { plan, last: None };
    let mut buffer = Vec::new();
    let mut made = 0;
    let mut recorded = 0;
    let result = (|| {
        for (index, step) in plan.steps.iter().enumerate() {
            if index == recorded {
                recorded += record.announce(&plan.steps[index..], &part)?;
            }
            let done = make(plan, step, &part, &mut places, &mut buffer);
            // As in codedeploy-local's list: a copy counts from its beginning, a directory
            // from its end.
            if done.is_ok() || matches!(step, Step::Copy { .. }) {
                made = index + 1;
            }
            done?;
        }
        for access in plan.access.iter().filter(|access| !access.early) {
            set(plan, access, &mut places)?;
        }
        set_acls(plan, &mut places)?;
        set_contexts(plan, &mut record)
    })();
    // What was announced and not made is left out again.
    let done = record.finish(&plan.steps[..made]);
    result.and(done)
}

fn make(
    plan: &Plan,
    step: &Step,
    part: &str,
    places: &mut Places<'_>,
    buffer: &mut Vec<u8>,
) -> Result<(), Error> {
    let path = step.made();
    let (directory, name) = places.place(path)?;
    match step {
        Step::Mkdir(_) => mkdirat(directory, name, Mode::from_bits_truncate(0o777))
            .map_err(|e| failed("make the directory", "dir_s_mkdir", path, e)),
        Step::Copy { source, how: How::Link, .. } => {
            let text = fs::read_link(source).map_err(|e| opened("read", source, e))?;
            symlinkat(&text, directory, name)
                .map_err(|e| failed("make the link", "syserr_fail2_in", path, e))
        }
        Step::Copy { source, how: How::New, rights, .. } => {
            let rights = rights.and_then(|index| plan.rights.get(index));
            let at = At { directory, name, part };
            copy::new(source, path, &at, rights, buffer)
        }
        Step::Copy { source, how: How::InPlace, .. } => {
            copy::in_place(source, path, directory, name, buffer)
        }
    }
}

/// A file that could not be opened, read or written.
pub(super) fn opened(what: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Execute { what, call: "rb_sysopen", path: path.to_owned(), source }
}

pub(super) fn failed(
    what: &'static str,
    call: &'static str,
    path: &Path,
    error: impl Into<io::Error>,
) -> Error {
    Error::Execute { what, call, path: path.to_owned(), source: error.into() }
}

/// Directories, opened so that links are only followed where they were before the
/// deployment.
struct Places<'a> {
    plan: &'a Plan,
    /// Neighbours come after each other.
    last: Option<(PathBuf, OwnedFd)>,
}

impl Places<'_> {
    /// The directory that something is in, and its name there.
    fn place<'p>(&mut self, path: &'p Path) -> Result<(&OwnedFd, &'p std::ffi::OsStr), Error> {
        let parent = path.parent().unwrap_or(path);
        let name = path.file_name().unwrap_or_default();
        if self.last.as_ref().is_none_or(|(open, _)| open != parent) {
            let found = self
                .open(parent)
                .map_err(|e| failed("open the directory", "rb_sysopen", path, e))?;
            self.last = Some((parent.to_owned(), found));
        }
        match &self.last {
            Some((_, directory)) => Ok((directory, name)),
            None => Err(opened("open", path, io::ErrorKind::NotFound.into())),
        }
    }

    fn open(&self, path: &Path) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let made = |path: &Path| self.plan.makes_directory(path);
        let (open, mut missing) = match &self.last {
            Some((open, directory)) if made(path) && path.parent() == Some(open) => {
                let name = path.file_name().unwrap_or_default();
                return openat(directory, name, flags | OFlag::O_NOFOLLOW, Mode::empty());
            }
            _ => {
                let existing = path.ancestors().find(|above| !made(above)).unwrap_or(path);
                let rest = path.strip_prefix(existing).unwrap_or(Path::new(""));
                (openat(AT_FDCWD, existing, flags, Mode::empty())?, rest.iter())
            }
        };
        missing.try_fold(open, |directory, name| {
            openat(&directory, name, flags | OFlag::O_NOFOLLOW, Mode::empty())
        })
    }

    /// The thing itself, for changing its owner and mode.
    fn open_target(&mut self, access: &Access) -> Result<OwnedFd, Error> {
        let path = &access.target;
        let (directory, name) = self.place(path)?;
        let mut flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        if !access.follow {
            flags |= OFlag::O_NOFOLLOW;
        }
        let target = openat(directory, name, flags, Mode::empty())
            .map_err(|e| failed("open", "apply2files", path, e))?;
        let found = fstat(&target).map_err(|e| failed("look at", "apply2files", path, e))?;
        if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK {
            return Err(failed("set the permissions of", "apply2files", path, nix::Error::ELOOP));
        }
        Ok(target)
    }
}

pub(super) fn ids(rights: &Rights) -> (Option<Uid>, Option<Gid>) {
    let uid = rights.owner.as_ref().map(|owner| Uid::from_raw(owner.1));
    let gid = rights.group.as_ref().map(|group| Gid::from_raw(group.1));
    (uid, gid)
}

/// Sets owner and mode, the mode last: a new owner takes set-user-id bits away.
fn set(plan: &Plan, access: &Access, places: &mut Places<'_>) -> Result<(), Error> {
    let Some(rights) = plan.rights.get(access.rights) else { return Ok(()) };
    let (uid, gid) = ids(rights);
    if uid.is_none() && gid.is_none() && rights.mode.is_none() {
        return Ok(());
    }
    let target = places.open_target(access)?;
    let path = &access.file;
    if uid.is_some() || gid.is_some() {
        fchownat(&target, "", uid, gid, AtFlags::AT_EMPTY_PATH)
            .map_err(|e| failed("change the owner of", "apply2files", path, e))?;
    }
    if let Some(mode) = &rights.mode {
        let itself = format!("/proc/self/fd/{}", target.as_raw_fd());
        let mode = Mode::from_bits_truncate(mode.bits);
        fchmodat(AT_FDCWD, itself.as_str(), mode, FchmodatFlags::FollowSymlink)
            .map_err(|e| failed("change the mode of", "apply2files", path, e))?;
    }
    Ok(())
}

/// Neighbours with the same list are set by one call.
fn set_acls(plan: &Plan, places: &mut Places<'_>) -> Result<(), Error> {
    let mut list = String::new();
    let mut paths: Vec<String> = Vec::new();
    let mut length = 0;
    for access in &plan.access {
        let Some(rights) = plan.rights.get(access.rights) else { continue };
        let Some(acls) = &rights.acls else { continue };
        let path = &access.target;
        let target = places.open_target(access)?;
        let mode = fstat(&target).map_err(|e| failed("look at", "apply2files", path, e))?;
        let path = if access.follow {
            &fs::canonicalize(path).map_err(|e| opened("find", path, e))?
        } else {
            &**path
        };
        let acl: Vec<String> =
            full_acl(acls, mode.st_mode & 0o7777).iter().map(ToString::to_string).collect();
        let acl = acl.join(",");
        if acl != list || length > ARGUMENTS {
            set_acl(&list, &paths)?;
            paths.clear();
            list = acl;
            length = 0;
        }
        let path = path.to_string_lossy().into_owned();
        length += path.len() + 1;
        paths.push(path);
    }
    set_acl(&list, &paths)
}

fn set_acl(list: &str, paths: &[String]) -> Result<(), Error> {
    if paths.is_empty() {
        return Ok(());
    }
    let mut args = vec!["-P", "--set", list, "--"];
    args.extend(paths.iter().map(String::as_str));
    run("setfacl", &args)
}

fn set_contexts(plan: &Plan, record: &mut Record) -> Result<(), Error> {
    for access in &plan.access {
        let rights = plan.rights.get(access.rights);
        let Some(context) = rights.and_then(|rights| rights.context.as_ref()) else { continue };
        let Some(path) = access.target.to_str() else { continue };
        let pattern = file_pattern(path);
        record.context(&pattern)?;
        let args = semanage_arguments(context, &pattern);
        run("semanage", &args)?;
        run("restorecon", &["-v", path])?;
    }
    Ok(())
}

fn semanage_arguments<'a>(context: &'a Context, pattern: &'a str) -> Vec<&'a str> {
    let mut args = vec!["fcontext", "-a"];
    if let Some(user) = &context.user {
        args.extend(["-s", user]);
    }
    args.extend(["-t", &context.kind]);
    if let Some(range) = &context.range {
        args.extend(["-r", range]);
    }
    args.push(pattern);
    args
}

/// semanage takes a regular expression. The agent gives it the path as it is; so do we
/// where both mean the same, so that either can remove the other's rule.
fn file_pattern(path: &str) -> String {
    let special = |c: char| "^$*+?()[]{}|\\".contains(c);
    path.chars().fold(String::new(), |mut pattern, c| {
        if special(c) {
            pattern.push('\\');
        }
        pattern.push(c);
        pattern
    })
}

/// Runs a program to its end.
pub(super) fn run(program: &str, args: &[&str]) -> Result<(), Error> {
    let mut output = Vec::new();
    let finished = Command::new(program).args(args).run(&Interrupt::new(), &mut |line| {
        if output.len() < 20 {
            output.push(String::from_utf8_lossy(line.bytes).into_owned());
        }
    });
    if finished.success() {
        return Ok(());
    }
    output.push(crate::process::describe_exit(&finished));
    let shown: Vec<&str> = args.iter().copied().take(8).collect();
    Err(Error::Program { command: format!("{program} {}", shown.join(" ")), output })
}

/// The clean-up list while it is written.
struct Record {
    list: PathBuf,
    file: File,
    /// Where the last temporary name was announced.
    part_in: Option<PathBuf>,
    contexts: Vec<String>,
}

impl Record {
    fn begin(list: &Path) -> Result<Self, Error> {
        let file = fs::File::create(list)
            .map_err(|source| Error::Record { path: list.to_owned(), source })?;
        let file = file.into_parts().0;
        Ok(Self { list: list.to_owned(), file, part_in: None, contexts: Vec::new() })
    }

    /// Puts the next steps into the list. Gives how many. A file that is somebody else's
    /// until it is overwritten comes alone.
    fn announce(&mut self, steps: &[Step], part: &str) -> Result<usize, Error> {
        let mut text = Vec::with_capacity(8 << 10);
        let mut count = 0;
        for step in steps.iter().take(BATCH) {
            let in_place = matches!(step, Step::Copy { how: How::InPlace, .. });
            if in_place && count > 0 {
                break;
            }
            let path = step.made();
            if let Step::Copy { how: How::New, .. } = step
                && let Some(parent) = path.parent()
                && self.part_in.as_deref() != Some(parent)
            {
                line(&mut text, &parent.join(part));
                self.part_in = Some(parent.to_owned());
            }
            line(&mut text, path);
            count += 1;
            if in_place {
                break;
            }
        }
        self.append(&text)?;
        Ok(count)
    }

    fn context(&mut self, pattern: &str) -> Result<(), Error> {
        let mut text = cleanup::CONTEXT.to_vec();
        line(&mut text, Path::new(pattern));
        self.append(&text)?;
        self.contexts.push(pattern.to_owned());
        Ok(())
    }

    fn append(&mut self, text: &[u8]) -> Result<(), Error> {
        self.file
            .write_all(text)
            .map_err(|source| Error::Record { path: self.list.clone(), source })
    }

    /// Replaces the list by one of what was made, without temporary names.
    fn finish(self, made: &[Step]) -> Result<(), Error> {
        replace(&self.list, |out| {
            for step in made {
                out.write_all(step.made().as_os_str().as_bytes())?;
                out.write_all(b"\n")?;
            }
            for pattern in &self.contexts {
                out.write_all(cleanup::CONTEXT)?;
                out.write_all(pattern.as_bytes())?;
                out.write_all(b"\n")?;
            }
            Ok(())
        })
    }
}

fn line(text: &mut Vec<u8>, path: &Path) {
    text.extend_from_slice(path.as_os_str().as_bytes());
    text.push(b'\n');
}

/// Removes a temporary file, if it is there.
pub(super) fn discard(directory: &OwnedFd, part: &str) {
    let _ = unlinkat(directory, part, UnlinkatFlags::NoRemoveDir);
}
