//! The clean-up list: what the last Install made, one path a line. The next one removes
//! it, from the last line to the first.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::Error;
use super::execute::run;

/// What begins a line that is about an SELinux rule. The rest is its path.
pub(super) const CONTEXT: &[u8] = b"semanage\0";

/// What will not be there any more.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// Real paths.
    places: HashSet<PathBuf>,
    /// Links, as they are listed.
    links: HashSet<PathBuf>,
}

impl Gone {
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether something with this real path will be gone.
    pub(super) fn contains(&self, place: &Path) -> bool {
        self.places.contains(place)
    }

    /// Whether a path is behind a link that will be gone.
    pub(super) fn cuts_off(&self, path: &Path) -> bool {
        !self.links.is_empty() && path.ancestors().skip(1).any(|above| self.links.contains(above))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// A file or a link.
    File(PathBuf),
    /// A directory, if it is empty by then.
    Directory(PathBuf),
    Context(String),
}

/// What a clean-up will do.
#[derive(Debug, Default)]
pub(super) struct Removal {
    steps: Vec<Step>,
    gone: Gone,
    warnings: Vec<String>,
    /// What may be there, and cannot be looked at.
    unseen: Option<(PathBuf, io::Error)>,
}

/// The lines that count: trimmed, complete ones.
fn lines(text: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let complete = text.iter().rposition(|c| *c == b'\n').map_or(&text[..0], |end| &text[..end]);
    complete.split(|c| *c == b'\n').map(trim).filter(|line| !line.is_empty())
}

fn trim(line: &[u8]) -> &[u8] {
    let blank = |c: &u8| matches!(c, b'\0' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r' | b' ');
    let start = line.iter().position(|c| !blank(c)).unwrap_or(line.len());
    let end = line.iter().rposition(|c| !blank(c)).map_or(start, |end| end + 1);
    &line[start..end]
}

/// Reads the list and looks at what is there, without changing anything.
pub(super) fn foresee(list: &Path) -> Result<Removal, Error> {
    let text = match fs::read(list) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Removal::default()),
        Err(source) => return Err(Error::List { path: list.to_owned(), source }),
    };
    let mut removal = foresee_lines(&text);
    match removal.unseen.take() {
        // Gone on without it, the list would be gone, and nobody would know whose it is.
        Some((path, source)) => Err(Error::Remove { path, source }),
        None => Ok(removal),
    }
}

/// Whether something may be there all the same: it is forbidden to look, or the disk or the
/// network is in trouble.
fn may_be_there(error: &io::Error) -> bool {
    use nix::libc::{EIO, ENOTCONN, ESTALE, ETIMEDOUT};
    error.kind() == io::ErrorKind::PermissionDenied
        || matches!(error.raw_os_error(), Some(EIO | ENOTCONN | ESTALE | ETIMEDOUT))
}

pub(super) fn foresee_lines(text: &[u8]) -> Removal {
    let mut removal = Removal::default();
    let mut listed: HashSet<&Path> = HashSet::new();
    let mut parents: HashSet<&Path> = HashSet::new();
    let mut found = Vec::new();
    for line in lines(text) {
        if let Some(path) = line.strip_prefix(CONTEXT) {
            removal.steps.push(Step::Context(String::from_utf8_lossy(path).into_owned()));
            continue;
        }
        let path = Path::new(OsStr::from_bytes(line));
        if path.is_absolute() && listed.insert(path) {
            parents.extend(path.parent());
            found.push(path);
        }
    }

    // A directory comes before what is in it.
    let mut real = RealPaths::default();
    let mut left_alone: HashSet<&Path> = HashSet::new();
    let mut present = Vec::new();
    for path in found {
        let behind_a_link = || path.ancestors().skip(1).any(|above| left_alone.contains(above));
        if !left_alone.is_empty() && behind_a_link() {
            continue;
        }
        let now = match std::fs::symlink_metadata(path) {
            Ok(now) => now,
            Err(error) => {
                if may_be_there(&error) && removal.unseen.is_none() {
                    removal.unseen = Some((path.to_owned(), error));
                }
                continue;
            }
        };
        if now.is_symlink() && parents.contains(path) {
            removal.warnings.push(format!(
                "`{}` was a directory of the last deployment and is a link now; it is left alone, and so is what it leads to",
                path.display()
            ));
            left_alone.insert(path);
            continue;
        }
        let Some(place) = real.place(path) else { continue };
        if now.is_symlink() {
            removal.gone.links.insert(path.to_owned());
        } else if now.is_dir() {
            real.known.insert(path.to_owned(), place.clone());
        }
        present.push((path, now.is_dir(), place));
    }

    let mut going: HashMap<PathBuf, usize> = HashMap::new();
    for (path, is_directory, place) in present.into_iter().rev() {
        let step = if is_directory {
            // The number is enough: what goes is in it, and each only once.
            let entries = std::fs::read_dir(path).map_or(usize::MAX, Iterator::count);
            let empty = entries == going.get(&place).copied().unwrap_or_default();
            removal.steps.push(Step::Directory(path.to_owned()));
            empty
        } else {
            removal.steps.push(Step::File(path.to_owned()));
            true
        };
        if step {
            if let Some(parent) = place.parent().filter(|_| !removal.gone.contains(&place)) {
                *going.entry(parent.to_owned()).or_default() += 1;
            }
            removal.gone.places.insert(place);
        }
    }
    removal
}

/// Real paths of directories, each found out once.
#[derive(Default)]
struct RealPaths {
    known: HashMap<PathBuf, PathBuf>,
}

impl RealPaths {
    /// The real path of the directory that something is in, and its name.
    fn place(&mut self, path: &Path) -> Option<PathBuf> {
        let (parent, name) = (path.parent()?, path.file_name()?);
        if let Some(real) = self.known.get(parent) {
            return Some(real.join(name));
        }
        let real = std::fs::canonicalize(parent).ok()?;
        let place = real.join(name);
        self.known.insert(parent.to_owned(), real);
        Some(place)
    }
}

impl Removal {
    pub(super) fn gone(&self) -> &Gone {
        &self.gone
    }

    /// Removes it all, then the list, so that an interrupted clean-up can be taken up again.
    /// Gives what is to be said about it.
    pub(super) fn carry_out(self, list: &Path) -> Result<Vec<String>, Error> {
        let mut warnings = self.warnings;
        for step in self.steps {
            match step {
                Step::File(path) => match fs::remove_file(&path) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        return Err(Error::Remove { path, source });
                    }
                    _ => {}
                },
                Step::Directory(path) => match std::fs::remove_dir(&path) {
                    Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                        warnings.push(format!("`{}` is in use and stays", path.display()));
                    }
                    Err(source)
                        if !matches!(
                            source.kind(),
                            io::ErrorKind::NotFound
                                | io::ErrorKind::DirectoryNotEmpty
                                | io::ErrorKind::AlreadyExists
                                | io::ErrorKind::NotADirectory
                        ) =>
                    {
                        return Err(Error::Remove { path, source });
                    }
                    _ => {}
                },
                Step::Context(path) => {
                    // The rule may have been removed by hand, and the program too.
                    if let Err(e) = run("semanage", &["fcontext", "-d", &path]) {
                        warnings.push(e.to_string());
                    }
                }
            }
        }
        match fs::remove_file(list) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::Remove { path: list.to_owned(), source })
            }
            _ => Ok(warnings),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_looked_at_is_not_taken_for_gone() {
        use nix::libc::{EACCES, EIO, ENOENT, ENOTDIR, ESTALE};
        let error = |errno: i32| io::Error::from_raw_os_error(errno);
        assert!([EACCES, EIO, ESTALE].into_iter().all(|errno| may_be_there(&error(errno))));
        assert!(![ENOENT, ENOTDIR].into_iter().any(|errno| may_be_there(&error(errno))));
    }

    #[test]
    fn only_complete_lines_count_and_they_are_trimmed() {
        let read = |text: &[u8]| {
            lines(text).map(|l| String::from_utf8_lossy(l).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(read(b"/a\n /b \r\n\n/c"), ["/a", "/b"]);
        assert_eq!(read(b"/a"), Vec::<String>::new());
        assert_eq!(read(b""), Vec::<String>::new());
        assert_eq!(read(b"/a\n"), ["/a"]);
    }

    #[test]
    fn what_will_be_gone_is_foreseen_and_then_is() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().canonicalize().unwrap().join(name);
        for dir in ["made/deep", "kept", "real", "user"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        for file in ["made/f", "made/deep/f", "kept/f", "kept/user", "real/f", "user/f"] {
            fs::write(at(file), "").unwrap();
        }
        std::os::unix::fs::symlink(at("real"), at("through")).unwrap();
        std::os::unix::fs::symlink(at("user"), at("swapped")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("link")).unwrap();
        let listed = [
            "made",
            "made/f",
            "made/f",
            "made/deep",
            "made/deep/f",
            "kept",
            "kept/f",
            "through/f",
            "swapped",
            "swapped/f",
            "link",
            "missing",
            "missing/f",
        ];
        let mut text: String =
            listed.iter().map(|name| at(name).display().to_string() + "\n").collect();
        text += "relative\n/not/complete";
        let list = at("list");
        fs::write(&list, &text).unwrap();

        let removal = foresee(&list).unwrap();
        let mut gone: Vec<_> = removal.gone().places.iter().cloned().collect();
        gone.sort();
        let expected =
            ["kept/f", "link", "made", "made/deep", "made/deep/f", "made/f", "real/f"].map(at);
        assert_eq!(gone, expected);
        let warnings = removal.carry_out(&list).unwrap();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("swapped"), "{warnings:?}");
        for path in expected {
            assert!(fs::symlink_metadata(&path).is_err(), "{path:?}");
        }
        for name in ["kept/user", "user/f", "swapped", "through", "real"] {
            assert!(fs::symlink_metadata(at(name)).is_ok(), "{name}");
        }
        assert!(!list.exists());
    }
}
