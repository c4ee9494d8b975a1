//! What an Install will do, decided before anything is touched. No effects here: what has
//! to be known is asked through [`Look`].

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use super::Request;
use super::conflict::{Conflict, unfit_name};
use super::look::{Look, Source, There};
use super::permissions::{self, Access, Rights};
use crate::engine::appspec::{FileEntry, FileExists};

/// How a file gets to its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Nothing is there.
    New,
    /// The content of what is there is replaced, or a dangling link is written through.
    InPlace,
    /// A link with the same text is made.
    Link,
}

/// One thing to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Mkdir(Rc<Path>),
    Copy {
        source: PathBuf,
        destination: Rc<Path>,
        how: How,
        /// Rights that a new file gets before it appears under its name; an index into
        /// [`Plan::rights`].
        rights: Option<usize>,
    },
}

impl Step {
    pub(super) fn made(&self) -> &Rc<Path> {
        match self {
            Self::Mkdir(path) | Self::Copy { destination: path, .. } => path,
        }
    }
}

/// All of it, in order: first the steps, then who may do what.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) access: Vec<Access>,
    /// What entries of `permissions` set.
    pub(super) rights: Vec<Rights>,
    /// What each path is made by.
    made: HashMap<Rc<Path>, usize>,
}

impl Plan {
    pub(super) fn step(&self, path: &Path) -> Option<&Step> {
        self.steps.get(*self.made.get(path)?)
    }

    pub(super) fn step_mut(&mut self, path: &Path) -> Option<&mut Step> {
        self.steps.get_mut(*self.made.get(path)?)
    }

    /// Whether this plan makes the directory, so that nothing but this plan can have put
    /// anything into it.
    pub(super) fn makes_directory(&self, path: &Path) -> bool {
        matches!(self.step(path), Some(Step::Mkdir(_)))
    }

    fn push(&mut self, step: Step) {
        self.made.insert(Rc::clone(step.made()), self.steps.len());
        self.steps.push(step);
    }
}

/// Plans all entries of `files`, then all of `permissions`.
pub(super) fn plan(request: &Request<'_>, look: &dyn Look) -> Result<Plan, Vec<Conflict>> {
    let mut planner = Planner { request, look, plan: Plan::default(), conflicts: Vec::new() };
    for entry in &request.appspec.files {
        planner.entry(entry);
    }
    let Planner { mut plan, mut conflicts, .. } = planner;
    permissions::assign(request, look, &mut plan, &mut conflicts);
    if conflicts.is_empty() { Ok(plan) } else { Err(conflicts) }
}

/// An absolute path without `.`, `..` and doubled slashes, found without looking.
pub(super) fn absolute(path: &Path, cwd: &Path) -> PathBuf {
    let mut result = PathBuf::from("/");
    for component in cwd.join(path).components() {
        match component {
            Component::Normal(name) => result.push(name),
            Component::ParentDir => {
                result.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    result
}

struct Planner<'a> {
    request: &'a Request<'a>,
    look: &'a dyn Look,
    plan: Plan,
    conflicts: Vec<Conflict>,
}

impl Planner<'_> {
    fn entry(&mut self, entry: &FileEntry) {
        let below = entry.source.trim_start_matches('/');
        let source: PathBuf = self.request.archive.join(below).components().collect();
        let Some(destination) = self.destination(&entry.destination) else { return };
        match self.look.source(&source) {
            Source::Directory => {
                let ready = destination.parent().is_none_or(|parent| {
                    self.ancestors(parent, || Conflict::BelowFile(destination.clone()))
                });
                if ready {
                    self.directory(&source, &destination.into(), &mut Vec::new());
                }
            }
            Source::Special(what) => {
                self.conflicts.push(Conflict::SpecialSource { what, path: source });
            }
            Source::Missing => self.conflicts.push(Conflict::SourceMissing(source)),
            kind @ (Source::File | Source::Link) => {
                let Some(name) = source.file_name() else { return };
                let file = destination.join(name);
                if self.ancestors(&destination, || Conflict::FileBelowFile(file.clone()))
                    && self.is_fit(&file)
                {
                    self.copy(source, file.into(), kind == Source::Link);
                }
            }
        }
    }

    /// codedeploy-local expands `~` when it copies, but not when it looks what exists. So
    /// such a destination works only as long as there is no home.
    fn destination(&mut self, text: &str) -> Option<PathBuf> {
        let path = |text: &str| absolute(Path::new(text), self.request.cwd);
        let Some(rest) = text.strip_prefix('~') else { return Some(path(text)) };
        let (user, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let Some(home) = self.look.home(Some(user).filter(|user| !user.is_empty())) else {
            return Some(path(text));
        };
        if self.look.there(&home) != There::Nothing {
            self.conflicts.push(Conflict::Tilde { text: text.to_owned(), home });
            return None;
        }
        Some(absolute(&home.join(rest), self.request.cwd))
    }

    fn is_fit(&mut self, path: &Path) -> bool {
        let why = path.file_name().and_then(unfit_name);
        let why =
            why.or_else(|| path.to_str().is_none().then_some("is below one that is not UTF-8"));
        if let Some(why) = why {
            self.conflicts.push(Conflict::Name { name: path.to_owned(), why });
        }
        why.is_none()
    }

    /// Plans a directory and those above it, as far as they are missing. `on_file` is what
    /// it means that `path` itself is there and is no directory.
    fn ancestors(&mut self, path: &Path, on_file: impl FnOnce() -> Conflict) -> bool {
        let mut missing: Vec<&Path> = Vec::new();
        for above in path.ancestors() {
            match self.plan.step(above) {
                Some(Step::Mkdir(_)) => break,
                Some(Step::Copy { .. }) => {
                    self.conflicts.push(Conflict::FileAndDirectory(above.to_owned()));
                    return false;
                }
                None => {}
            }
            match self.look.there(above) {
                There::Directory => break,
                There::Nothing => missing.push(above),
                There::DanglingLink => {
                    self.conflicts.push(Conflict::NoDirectory(above.to_owned()));
                    return false;
                }
                There::ForeignLink => {
                    self.conflicts.push(Conflict::ForeignLink(above.to_owned()));
                    return false;
                }
                There::File | There::Special => {
                    self.conflicts.push(match missing.last() {
                        Some(first) => Conflict::BelowFile((*first).to_owned()),
                        None => on_file(),
                    });
                    return false;
                }
            }
        }
        for path in missing.into_iter().rev() {
            if !self.is_fit(path) {
                return false;
            }
            self.plan.push(Step::Mkdir(path.into()));
        }
        true
    }

    /// Plans a directory and everything in it. `above` are the directories that led here.
    fn directory(&mut self, source: &Path, destination: &Rc<Path>, above: &mut Vec<(u64, u64)>) {
        let listing = match self.look.list(source) {
            Ok(listing) => listing,
            Err(e) => {
                let path = source.to_owned();
                self.conflicts.push(Conflict::Unreadable { path, why: e.to_string() });
                return;
            }
        };
        if above.contains(&listing.id) {
            self.conflicts.push(Conflict::LinkLoop(source.to_owned()));
            return;
        }
        if !self.is_fit(destination) || !self.mkdir(destination) {
            return;
        }
        above.push(listing.id);
        for (name, kind) in listing.entries {
            let (source, destination) = (source.join(&name), destination.join(&name));
            match kind {
                Source::Directory => self.directory(&source, &destination.into(), above),
                Source::File | Source::Link => {
                    if self.is_fit(&destination) {
                        self.copy(source, destination.into(), kind == Source::Link);
                    }
                }
                Source::Special(what) => {
                    self.conflicts.push(Conflict::SpecialSource { what, path: source });
                }
                Source::Missing => self.conflicts.push(Conflict::SourceMissing(source)),
            }
        }
        above.pop();
    }

    fn mkdir(&mut self, path: &Rc<Path>) -> bool {
        let conflict = match self.plan.step(path) {
            Some(Step::Mkdir(_)) => return true,
            Some(Step::Copy { .. }) => Conflict::FileAndDirectory(path.to_path_buf()),
            None => match self.there(path) {
                There::Directory => return true,
                There::Nothing => {
                    self.plan.push(Step::Mkdir(Rc::clone(path)));
                    return true;
                }
                There::ForeignLink => Conflict::ForeignLink(path.to_path_buf()),
                There::DanglingLink | There::File | There::Special => {
                    Conflict::NoDirectory(path.to_path_buf())
                }
            },
        };
        self.conflicts.push(conflict);
        false
    }

    /// What is there. A directory that is yet to be made is known to be empty.
    fn there(&self, path: &Path) -> There {
        match path.parent() {
            Some(parent) if self.plan.makes_directory(parent) => There::Nothing,
            _ => self.look.there(path),
        }
    }

    fn copy(&mut self, source: PathBuf, destination: Rc<Path>, is_link: bool) {
        let path = || destination.to_path_buf();
        let conflict = match self.plan.step(&destination) {
            Some(Step::Mkdir(_)) => Some(Conflict::FileAndDirectory(path())),
            Some(Step::Copy { source: first, .. }) => Some(Conflict::TwoSources {
                path: path(),
                first: first.clone(),
                second: source.clone(),
            }),
            None => None,
        };
        if let Some(conflict) = conflict {
            self.conflicts.push(conflict);
            return;
        }
        let there = self.there(&destination);
        let how = match there {
            There::Nothing if is_link => How::Link,
            There::Nothing => How::New,
            There::DanglingLink if is_link => {
                self.conflicts.push(Conflict::LinkOverExisting(path()));
                return;
            }
            There::DanglingLink => How::InPlace,
            There::ForeignLink => {
                self.conflicts.push(Conflict::ForeignLink(path()));
                return;
            }
            There::File | There::Directory | There::Special => {
                let conflict = match self.behavior(&destination) {
                    None | Some(FileExists::Retain) => return,
                    Some(FileExists::Disallow) => Conflict::Exists(path()),
                    Some(FileExists::Overwrite) => match there {
                        There::Directory => Conflict::DirectoryThere(path()),
                        There::Special => Conflict::SpecialThere(path()),
                        _ if is_link => Conflict::LinkOverExisting(path()),
                        _ => {
                            self.push_copy(source, destination, How::InPlace);
                            return;
                        }
                    },
                };
                self.conflicts.push(conflict);
                return;
            }
        };
        self.push_copy(source, destination, how);
    }

    fn push_copy(&mut self, source: PathBuf, destination: Rc<Path>, how: How) {
        self.plan.push(Step::Copy { source, destination, how, rights: None });
    }

    /// What is to be done about files that exist, the first of which is `path`.
    fn behavior(&mut self, path: &Path) -> Option<FileExists> {
        let word = self.request.file_exists;
        let found = self.request.appspec.file_exists.or_else(|| match word {
            "" => Some(FileExists::Disallow),
            word => FileExists::parse(word),
        });
        let said = |conflicts: &[Conflict]| {
            conflicts.iter().any(|c| matches!(c, Conflict::UnknownBehavior { .. }))
        };
        if found.is_none() && !said(&self.conflicts) {
            let path = path.to_owned();
            self.conflicts.push(Conflict::UnknownBehavior { word: word.to_owned(), path });
        }
        found
    }
}

#[cfg(test)]
mod tests;
