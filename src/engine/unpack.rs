//! Unpacks archives. Nothing in one can lead outside of the folder it is unpacked into.

use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use fs_err as fs;
use nix::unistd::{Gid, Group, Uid, User, geteuid};

use super::checks::Kind;

/// Unpacks `file` into `to`, which is made.
///
/// # Errors
/// It is no archive of this kind, is damaged, or is hostile.
pub(super) fn unpack(file: &Path, kind: Kind, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    let mut source = fs::File::open(file)?;
    if kind == Kind::Zip {
        return zip(source, to);
    }
    let mut magic = [0; 2];
    let compressed = source.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    source.rewind()?;
    let source = BufReader::with_capacity(128 << 10, source);
    if compressed {
        tar(flate2::bufread::MultiGzDecoder::new(source), to)
    } else if kind == Kind::Tgz {
        Err(io::Error::new(io::ErrorKind::InvalidData, "it is not compressed with gzip"))
    } else {
        tar(source, to)
    }
}

fn hostile(name: &Path, what: &str) -> io::Error {
    let name = name.display().to_string();
    io::Error::new(io::ErrorKind::InvalidData, format!("`{}` {what}", name.escape_debug()))
}

fn leads_outside(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

/// As root, owners and modes come from the archive.
fn tar(source: impl Read, to: &Path) -> io::Result<()> {
    let root = geteuid().is_root();
    let mut archive = tar::Archive::new(source);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    let mut directories: Vec<(PathBuf, u32)> = Vec::new();
    let mut entries = 0_u64;
    for entry in archive.entries()? {
        let mut entry = entry?;
        entries += 1;
        let path = entry.path()?.into_owned();
        let kind = entry.header().entry_type();
        if leads_outside(&path) {
            return Err(hostile(&path, "leads outside of the archive"));
        }
        if kind.is_character_special() || kind.is_block_special() || kind.is_fifo() {
            return Err(hostile(&path, "is a device or a pipe"));
        }
        if kind.is_pax_global_extensions() {
            continue;
        }
        if !entry.unpack_in(to)? {
            return Err(hostile(&path, "cannot be unpacked inside the archive's folder"));
        }
        let target: PathBuf = to.join(
            path.components().filter(|c| matches!(c, Component::Normal(_))).collect::<PathBuf>(),
        );
        if kind.is_hard_link() {
            continue;
        }
        if root {
            let (user, group) = owner(entry.header())?;
            nix::unistd::fchownat(
                nix::fcntl::AT_FDCWD,
                &target,
                Some(user),
                Some(group),
                nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
            )?;
        }
        if kind.is_symlink() {
            continue;
        }
        let mode = entry.header().mode()? & 0o7777;
        if kind.is_dir() {
            // A directory without the right to write must not hinder its own contents.
            directories.push((target, mode));
        } else {
            fs::set_permissions(&target, std::fs::Permissions::from_mode(mode))?;
        }
    }
    if entries == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "there is nothing in it"));
    }
    for (path, mode) in directories.into_iter().rev() {
        fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// By name where this host knows the name, else by number.
fn owner(header: &tar::Header) -> io::Result<(Uid, Gid)> {
    let number =
        |n: u64| u32::try_from(n).map_err(|_| io::Error::other("an owner's number is too large"));
    let user = header.username().ok().flatten().filter(|name| !name.is_empty());
    let user = user.and_then(|name| User::from_name(name).ok().flatten()).map(|user| user.uid);
    let group = header.groupname().ok().flatten().filter(|name| !name.is_empty());
    let group = group.and_then(|name| Group::from_name(name).ok().flatten()).map(|group| group.gid);
    Ok((
        user.map_or_else(|| number(header.uid()?).map(Uid::from_raw), Ok)?,
        group.map_or_else(|| number(header.gid()?).map(Gid::from_raw), Ok)?,
    ))
}

/// Modes come from the archive, less the bits that give rights; we are the owner. Links are
/// made last, so that nothing is written through them.
fn zip(source: fs::File, to: &Path) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(BufReader::new(source))?;
    let mut links: Vec<(PathBuf, PathBuf)> = Vec::new();
    let mut directories: Vec<(PathBuf, u32)> = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let name = PathBuf::from(entry.name()?.into_owned());
        let Some(relative) = entry.enclosed_name().filter(|_| !leads_outside(&name)) else {
            return Err(hostile(&name, "leads outside of the archive"));
        };
        let target = to.join(relative);
        let mode = entry.unix_mode().map(|mode| mode & 0o777);
        if entry.is_dir() {
            fs::create_dir_all(&target)?;
            directories.extend(mode.map(|mode| (target, mode)));
            continue;
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        if entry.is_symlink() {
            let mut text = Vec::new();
            entry.by_ref().take(4097).read_to_end(&mut text)?;
            let text: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(text);
            links.push((target, text.into()));
            continue;
        }
        let mut file = fs::File::create(&target)?;
        io::copy(&mut entry, &mut file)?;
        if let Some(mode) = mode {
            file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        }
    }
    for (target, text) in links {
        fs_err::os::unix::fs::symlink(text, target)?;
    }
    for (path, mode) in directories.into_iter().rev() {
        // A name that is a directory here and a link there has become one of the two.
        if fs::symlink_metadata(&path).is_ok_and(|about| about.is_dir()) {
            fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}
