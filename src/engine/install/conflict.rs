//! Why a plan is refused.

use std::ffi::OsStr;
use std::path::PathBuf;

/// One reason why nothing was installed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// A file exists that no deployment of this group installed.
    #[error(
        "`{}` exists already, and no deployment of this group installed it; remove it, or choose OVERWRITE or RETAIN as file_exists_behavior",
        .0.display()
    )]
    Exists(PathBuf),
    /// A file exists, and what is to be done is not a known word.
    #[error(
        "`{}` exists already, and the file-exists behavior {word:?} is none of DISALLOW, OVERWRITE and RETAIN",
        path.display()
    )]
    UnknownBehavior {
        /// The word.
        word: String,
        /// The first file that exists.
        path: PathBuf,
    },
    /// OVERWRITE would put a file in a directory's place.
    #[error("`{}` is a directory, and a file of the bundle cannot overwrite it", .0.display())]
    DirectoryThere(PathBuf),
    /// OVERWRITE would write to a device, a pipe or a socket.
    #[error("`{}` is neither a file nor a directory and is not overwritten", .0.display())]
    SpecialThere(PathBuf),
    /// What an ordinary user put there would have root write elsewhere.
    #[error("`{}` is a link that an ordinary user made, and is not written through; remove it", .0.display())]
    ForeignLink(PathBuf),
    /// A link of the bundle would have to replace something.
    #[error("`{}` exists already, and a link of the bundle cannot overwrite it; remove it", .0.display())]
    LinkOverExisting(PathBuf),
    /// A directory is needed where something else is.
    #[error("`{}` exists already and is not a directory", .0.display())]
    NoDirectory(PathBuf),
    /// A directory is needed below something that is none.
    #[error("cannot make the directory `{}` below something that is no directory", .0.display())]
    BelowFile(PathBuf),
    /// The destination of a single file is something that is no directory.
    #[error("the destination of `{}` is not a directory", .0.display())]
    FileBelowFile(PathBuf),
    /// A destination begins with `~`, which only works while there is no home.
    #[error("the destination `{text}` begins with `~`, and `{}` exists; write the whole path", home.display())]
    Tilde {
        /// The destination.
        text: String,
        /// What it means.
        home: PathBuf,
    },
    /// The bundle has no such file.
    #[error("the source `{}` does not exist; `files` of the appspec names it", .0.display())]
    SourceMissing(PathBuf),
    /// A directory of the bundle cannot be read.
    #[error("the source `{}` cannot be read: {why}", path.display())]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// The bundle has something that cannot be copied.
    #[error("the source `{}` is {what} and cannot be installed", path.display())]
    SpecialSource {
        /// What it is.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
    },
    /// A link leads to a directory that it is in.
    #[error("the link `{}` leads to a directory that contains it", .0.display())]
    LinkLoop(PathBuf),
    /// A name that the clean-up list cannot hold.
    #[error("the name {name:?} {why}, so the file could never be removed again; rename it")]
    Name {
        /// The path or name.
        name: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two sources have the same destination.
    #[error("`{}` would be copied from two sources: `{}` and `{}`", path.display(), first.display(), second.display())]
    TwoSources {
        /// The destination.
        path: PathBuf,
        /// The first source.
        first: PathBuf,
        /// The second one.
        second: PathBuf,
    },
    /// One entry needs a file, the other a directory.
    #[error("the appspec puts both a file and a directory at `{}`", .0.display())]
    FileAndDirectory(PathBuf),
    /// Two entries of `permissions` are about the same path.
    #[error("two entries of `permissions` set `{}`, in lines {first} and {second} of the appspec", path.display())]
    TwoPermissions {
        /// The path.
        path: PathBuf,
        /// The line of the first entry.
        first: u32,
        /// The line of the second.
        second: u32,
    },
    /// A pattern for a single file.
    #[error("the permissions for `{}` have a pattern or exceptions, but it is a file", .0.display())]
    PatternForFile(PathBuf),
    /// An inherited entry for a file.
    #[error("the permissions for `{}` have a default acl entry, but it is a file; add `type: [directory]`", .0.display())]
    DefaultAclForFile(PathBuf),
    /// Permissions would be set on something that this deployment did not install.
    #[error(
        "permissions for the link `{}` would be set on `{}`, which this deployment does not install",
        path.display(), target.display()
    )]
    LinkOut {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Permissions for a link that leads nowhere.
    #[error("permissions are declared for the link `{}`, which leads nowhere", .0.display())]
    DanglingLink(PathBuf),
    /// There is no such user.
    #[error("the permissions for `{}` name the user `{name}`, who does not exist", path.display())]
    NoUser {
        /// The user.
        name: String,
        /// The first path it is for.
        path: PathBuf,
    },
    /// There is no such group.
    #[error("the permissions for `{}` name the group `{name}`, which does not exist", path.display())]
    NoGroup {
        /// The group.
        name: String,
        /// The first path it is for.
        path: PathBuf,
    },
    /// A program is missing.
    #[error("`{program}` is needed for the {what} in `permissions`, but is not installed")]
    NoProgram {
        /// Its name.
        program: &'static str,
        /// What it is needed for.
        what: &'static str,
    },
}

impl Conflict {
    /// Whether it is in the revision itself, so that no script can clear the way.
    pub(super) fn lies_in_revision(&self) -> bool {
        matches!(
            self,
            Self::SpecialSource { .. }
                | Self::LinkLoop(_)
                | Self::Name { .. }
                | Self::TwoPermissions { .. }
                | Self::PatternForFile(_)
                | Self::DefaultAclForFile(_)
        )
    }

    /// What codedeploy-local prints after `ERROR: `, if it does not die of it instead.
    fn stdout_error(&self) -> Option<String> {
        let (text, call, path) = match self {
            Self::NoDirectory(path) | Self::Tilde { home: path, .. } => {
                ("File exists", "dir_s_mkdir", path)
            }
            Self::BelowFile(path) => ("Not a directory", "dir_s_mkdir", path),
            Self::FileBelowFile(path) => ("Not a directory", "rb_sysopen", path),
            Self::LinkOverExisting(path) => ("File exists", "syserr_fail2_in", path),
            Self::SourceMissing(path) => ("No such file or directory", "rb_sysopen", path),
            Self::DanglingLink(path) => ("No such file or directory", "apply2files", path),
            Self::NoUser { name, .. } => return Some(format!("can't find user for {name}")),
            Self::NoGroup { name, .. } => return Some(format!("can't find group for {name}")),
            Self::Exists(_)
            | Self::UnknownBehavior { .. }
            | Self::DirectoryThere(_)
            | Self::SpecialThere(_)
            | Self::ForeignLink(_)
            | Self::Unreadable { .. }
            | Self::SpecialSource { .. }
            | Self::LinkLoop(_)
            | Self::Name { .. }
            | Self::TwoSources { .. }
            | Self::FileAndDirectory(_)
            | Self::TwoPermissions { .. }
            | Self::PatternForFile(_)
            | Self::DefaultAclForFile(_)
            | Self::LinkOut { .. }
            | Self::NoProgram { .. } => return None,
        };
        Some(format!("{text} @ {call} - {}", path.display()))
    }
}

/// codedeploy-local finds what it dies of before it copies, and the rest while copying; so
/// the first of the former decides.
pub(super) fn stdout_error(conflicts: &[Conflict]) -> Option<String> {
    let texts: Option<Vec<String>> = conflicts.iter().map(Conflict::stdout_error).collect();
    texts?.into_iter().next()
}

const SHOWN: usize = 20;

pub(super) fn describe(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return one.to_string();
    }
    let mut text = format!("{} conflicts, nothing was installed:", conflicts.len());
    for conflict in conflicts.iter().take(SHOWN) {
        text += &format!("\n  {conflict}");
    }
    if conflicts.len() > SHOWN {
        text += &format!("\n  and {} more", conflicts.len() - SHOWN);
    }
    text
}

pub(super) fn indented(lines: &[String]) -> String {
    let separator = if lines.is_empty() { "" } else { ":" };
    lines.iter().fold(separator.to_owned(), |text, line| text + "\n  " + line)
}

/// Why a file of this name cannot be installed: the clean-up list has one path a line and
/// is read without the white space at its end.
pub fn unfit_name(name: &OsStr) -> Option<&'static str> {
    let Some(text) = name.to_str() else { return Some("is not valid UTF-8") };
    if text.contains('\n') {
        Some("contains a line break")
    } else if text.ends_with(['\t', '\u{b}', '\u{c}', '\r', ' ']) {
        Some("ends in white space")
    } else {
        None
    }
}
