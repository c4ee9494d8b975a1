//! `DownloadBundle`: the bundle becomes the deployment's archive, old archives go.

use std::fs::FileType;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fs_err as fs;
use nix::sys::stat::Mode;

/// Copies a directory's contents into `to`, which is made: contents and modes less the umask,
/// links as links, our own user as owner, directories as new ones.
///
/// # Errors
/// The first thing that cannot be read or written.
pub(super) fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    if !to.is_dir() {
        fs::create_dir(to)?;
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_directory(&from, &to)?;
        } else if kind.is_file() {
            copy_file(&from, &to)?;
        } else if kind.is_symlink() {
            fs_err::os::unix::fs::symlink(fs::read_link(&from)?, &to)?;
        } else {
            copy_special(kind, &from, &to)?;
        }
    }
    Ok(())
}

/// Moves a directory to where its copy would be, if the file system can. Only for a caller who
/// does not need it any more: then nothing else knows the files, as with a copy.
pub(super) fn move_directory(from: &Path, to: &Path) -> bool {
    let is_real = fs::symlink_metadata(from).is_ok_and(|about| about.is_dir());
    if !is_real || fs::rename(from, to).is_err() {
        return false;
    }
    // As a new one would have it; a directory of temporary things is often private.
    let mode = 0o777 & !umask();
    let _ = fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(mode));
    true
}

/// The umask, without changing it.
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o022)
}

/// The kernel copies, or shares the blocks where the file system can.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    // Not fs-err's files: only std's own are copied by the kernel.
    let named =
        |path: &Path, e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let mut source = std::fs::File::open(from).map_err(|e| named(from, e))?;
    let mode = source.metadata().map_err(|e| named(from, e))?.mode() & 0o7777;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut target = options.open(to).map_err(|e| named(to, e))?;
    io::copy(&mut source, &mut target).map_err(|e| named(to, e))?;
    Ok(())
}

/// Pipes are made anew. Nothing else of this kind belongs into a bundle; a socket is left out.
fn copy_special(kind: FileType, from: &Path, to: &Path) -> io::Result<()> {
    if kind.is_fifo() {
        let mode = Mode::from_bits_truncate(fs::metadata(from)?.mode());
        return Ok(nix::unistd::mkfifo(to, mode)?);
    }
    if kind.is_socket() {
        return Ok(());
    }
    Err(io::Error::other(format!("{} is a device and is not copied", from.display())))
}

/// Removes the oldest deployments of a group so that with `current` at most `most` are left,
/// and the last successful one in any case. What cannot be removed is named in the result.
pub(super) fn retain(
    group: &Path,
    current: &Path,
    last_successful: Option<&Path>,
    most: usize,
) -> Vec<String> {
    let Ok(entries) = fs::read_dir(group) else { return Vec::new() };
    let others: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path != current).collect();
    let excess = (others.len() + 1).saturating_sub(most);
    let mut old: Vec<_> = others
        .into_iter()
        .filter(|path| last_successful != Some(path))
        .filter_map(|path| {
            let about = fs::symlink_metadata(&path).ok()?;
            Some(((about.mtime(), about.mtime_nsec()), about.is_dir(), path))
        })
        .collect();
    old.sort();
    let mut warnings = Vec::new();
    for (_, is_dir, path) in old.into_iter().take(excess) {
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        if let Err(e) = removed {
            warnings.push(format!("an old deployment cannot be removed: {e}"));
        }
    }
    warnings
}

/// If the archive is nothing but one directory with an appspec in it, takes that level away.
///
/// # Errors
/// Something cannot be read or moved.
pub(super) fn lift_single_directory(archive: &Path) -> io::Result<()> {
    let mut entries = fs::read_dir(archive)?;
    let (Some(only), None) = (entries.next().transpose()?, entries.next()) else { return Ok(()) };
    if !only.file_type()?.is_dir() {
        return Ok(());
    }
    let has_appspec = fs::read_dir(only.path())?
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().to_ascii_lowercase().contains("appspec"));
    if !has_appspec {
        return Ok(());
    }
    // Its own content may have the same name: first out of the way, then in place.
    let mut aside = archive.as_os_str().to_owned();
    aside.push("-temp");
    let aside = PathBuf::from(aside);
    fs::rename(only.path(), &aside)?;
    fs::remove_dir(archive)?;
    fs::rename(&aside, archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_contents_modes_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir_all(from.join("d/empty")).unwrap();
        fs::write(from.join("d/f"), "text").unwrap();
        // An ordinary user's write takes setuid away.
        let mode = if nix::unistd::geteuid().is_root() { 0o4555 } else { 0o555 };
        fs::set_permissions(from.join("d/f"), std::os::unix::fs::PermissionsExt::from_mode(mode))
            .unwrap();
        fs_err::os::unix::fs::symlink("nowhere", from.join("l")).unwrap();
        nix::unistd::mkfifo(&from.join("p"), Mode::from_bits_truncate(0o600)).unwrap();
        let to = dir.path().join("to");
        copy_directory(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("d/f")).unwrap(), "text");
        assert_eq!(fs::metadata(to.join("d/f")).unwrap().mode() & 0o7777, mode);
        assert!(to.join("d/empty").is_dir());
        assert_eq!(fs::read_link(to.join("l")).unwrap(), Path::new("nowhere"));
        assert!(fs::symlink_metadata(to.join("p")).unwrap().file_type().is_fifo());
    }

    #[test]
    fn the_oldest_go_and_the_last_successful_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let folder = |n: u64| {
            let path = dir.path().join(format!("odd name; $(x) {n}"));
            fs::create_dir(&path).unwrap();
            fs::write(path.join("f"), "").unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000 + n);
            std::fs::File::open(&path).unwrap().set_modified(time).unwrap();
            path
        };
        let paths: Vec<PathBuf> = (0..5).map(folder).collect();
        assert!(retain(dir.path(), &paths[4], Some(&paths[0]), 3).is_empty());
        let left: Vec<bool> = paths.iter().map(|path| path.exists()).collect();
        assert_eq!(left, [true, false, false, true, true]);
        assert!(retain(dir.path(), &paths[4], Some(&paths[0]), 1).is_empty());
        let left: Vec<bool> = paths.iter().map(|path| path.exists()).collect();
        assert_eq!(left, [true, false, false, false, true]);
    }

    #[test]
    fn a_single_directory_with_an_appspec_is_lifted() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("archive");
        fs::create_dir_all(archive.join("app/app")).unwrap();
        lift_single_directory(&archive).unwrap();
        assert!(archive.join("app/app").is_dir());
        fs::write(archive.join("app/AppSpec.yml"), "").unwrap();
        lift_single_directory(&archive).unwrap();
        assert!(archive.join("AppSpec.yml").is_file());
        assert!(archive.join("app").is_dir());
    }
}
