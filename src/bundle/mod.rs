//! A worktree becomes a bundle when it passed the checks: what codedeploy-local is given.
//!
//! codedeploy-local notices most of this only after it has stopped the old application.
//! Here it is noticed while nothing is touched, for all apps, and all of it at once.
//!
//! Everything refused here is [`ExitCode::Refused`], an appspec that is not valid
//! included: what is wrong is in the app's commit, not in the manifest, and the remedy is
//! another commit. Only the directory that bundles are in can be a matter of
//! configuration.

mod contents;
mod copies;
mod links;
mod scripts;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use fs_err as fs;
use walkdir::WalkDir;

use crate::diagnostic::{Diagnostic, escaped};
use crate::domain::{App, FileExists, Symlinks};
use crate::engine::appspec::{self, AppSpec, DEFAULT_EVENTS};
use crate::error::{ExitCode, Failure};
use crate::mirror::Worktree;

pub use contents::{Contents, Moment, contents, scripts};

use links::{Kind, Leads};

/// Which codedeploy-local will get it: what one of them trips over is worth a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// The built-in one.
    Builtin,
    /// The agent's, in Ruby.
    Agent1,
    /// The agent's, in Rust.
    Agent2,
}

/// A worktree that may be deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// What codedeploy-local is given: absolute.
    pub root: PathBuf,
    /// The appspec below the root, if it has to be named to codedeploy-local.
    pub appspec_option: Option<PathBuf>,
    /// The directories that its files are installed in.
    pub destinations: Vec<PathBuf>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Checks a worktree.
///
/// # Errors
/// What must not be deployed.
pub fn check(app: &App, worktree: &Worktree, tool: Tool) -> Result<Bundle, Failure> {
    let root = root(app, worktree, tool)?;
    let mut check =
        Check { app, tool, root, problems: Vec::new(), warnings: worktree.warnings.clone() };
    check.names(worktree);
    check.dots()?;
    check.content(worktree);
    check.links(worktree);
    let found = check.appspec_file()?;
    let mut destinations = Vec::new();
    if let Some(name) = &found {
        destinations = check.appspec(name)?;
    }
    let Check { root, problems, warnings, .. } = check;
    if let Some(failure) = refusal(problems) {
        return Err(failure);
    }
    let appspec_option = found.filter(|name| *name != *"appspec.yml");
    Ok(Bundle { root, appspec_option, destinations, warnings })
}

/// Bytes of an appspec that are read: more than the reader of YAML takes.
const MOST_APPSPEC: u64 = 8 << 20;
/// Problems that are listed one by one.
const MOST_LISTED: usize = 20;

/// One problem is the message, several are listed below it.
fn refusal(mut problems: Vec<Problem>) -> Option<Failure> {
    if problems.len() > 1 {
        let message = format!("{} things in this commit cannot be deployed", problems.len());
        let mut failure = Failure::new(ExitCode::Refused, message);
        failure.output = problems.iter().take(MOST_LISTED).map(Problem::line).collect();
        if problems.len() > MOST_LISTED {
            failure.output.push(format!("and {} more", problems.len() - MOST_LISTED));
        }
        return Some(failure);
    }
    let Problem { message, hint } = problems.pop()?;
    let failure = Failure::new(ExitCode::Refused, message);
    Some(match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    })
}

/// The directory to hand over: the worktree, or the app's `path` below it.
fn root(app: &App, worktree: &Worktree, tool: Tool) -> Result<PathBuf, Failure> {
    let refused = |message: String| Failure::new(ExitCode::Refused, message);
    let mut root = worktree.path.clone();
    for part in app.path.components() {
        root.push(part);
        let shown = shown(root.strip_prefix(&worktree.path).unwrap_or(&app.path));
        match fs::symlink_metadata(&root) {
            Ok(data) if data.is_dir() => {}
            Ok(data) if data.is_symlink() => {
                return Err(refused(format!("`path` leads through the link {shown}"))
                    .hint("write the directory that the link leads to"));
            }
            Ok(_) => return Err(refused(format!("`path` is not a directory: {shown} is a file"))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(refused(format!("the commit has no directory {shown}"))
                    .hint("`path` is relative to the root of the repository"));
            }
            Err(e) => return Err(Failure::from_error(ExitCode::Unfit, &e)),
        }
    }
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"._+=,@/-".contains(b);
    if tool == Tool::Agent1 && !root.as_os_str().as_bytes().iter().all(allowed) {
        let message = format!("codedeploy-local 1.x takes no bundle at {}", shown(&root));
        return Err(Failure::new(ExitCode::Configuration, message)
            .hint("choose a cache directory whose path has only letters, digits and `._+=,@/-`"));
    }
    Ok(root)
}

/// Something that must not be deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    message: String,
    hint: Option<String>,
}

impl Problem {
    fn line(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{} ({hint})", self.message),
            None => self.message.clone(),
        }
    }
}

struct Check<'a> {
    app: &'a App,
    tool: Tool,
    root: PathBuf,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Check<'_> {
    fn refuse(&mut self, message: impl Into<String>, hint: Option<&str>) {
        self.problems.push(Problem { message: message.into(), hint: hint.map(str::to_owned) });
    }

    fn warn(&mut self, message: impl Into<String>) {
        self.warnings.push(message.into());
    }

    fn report(&mut self, finding: &Diagnostic) {
        if finding.is_error() {
            self.refuse(finding.to_string(), finding.hint.as_deref());
        } else if let Some(hint) = &finding.hint {
            self.warn(format!("{finding} ({hint})"));
        } else {
            self.warn(finding.to_string());
        }
    }

    /// Those of the worktree's paths that are in the bundle, relative to its root.
    fn inside<'p>(&self, paths: &'p [PathBuf]) -> Vec<&'p Path> {
        paths.iter().filter_map(|path| path.strip_prefix(&self.app.path).ok()).collect()
    }

    /// codedeploy-local keeps what it installed as a list of lines, trims them, and removes
    /// what they name, as root, at the next deployment.
    fn names(&mut self, worktree: &Worktree) {
        let odd = self.inside(&worktree.odd_names);
        for (reason, names) in [
            ("a name with a line break or control character", Odd::Control),
            ("a name that ends with white space", Odd::Space),
            ("a name that is not UTF-8", Odd::Bytes),
        ]
        .map(|(reason, kind)| (reason, of_kind(&odd, kind)))
        {
            if !names.is_empty() {
                self.refuse(
                    format!("{reason}: {}", some(&names)),
                    Some("codedeploy-local cannot remove such a file again; rename it"),
                );
            }
        }
    }

    /// 2.x expands names of more than two dots as if they led upwards.
    fn dots(&mut self) -> Result<(), Failure> {
        if self.tool != Tool::Agent2 {
            return Ok(());
        }
        let mut found = Vec::new();
        for entry in WalkDir::new(&self.root).min_depth(1).sort_by_file_name() {
            let entry = entry.map_err(|e| Failure::from_error(ExitCode::Unfit, &e))?;
            if entry.file_name().to_str().is_some_and(is_dots) {
                found.extend(entry.path().strip_prefix(&self.root).map(Path::to_owned));
            }
        }
        if !found.is_empty() {
            let names: Vec<&Path> = found.iter().map(PathBuf::as_path).collect();
            self.refuse(
                format!("names that codedeploy-local 2.x takes for `../..`: {}", some(&names)),
                Some("rename them"),
            );
        }
        Ok(())
    }

    fn content(&mut self, worktree: &Worktree) {
        let submodules = self.inside(&worktree.submodules);
        if !submodules.is_empty() {
            self.refuse(
                format!(
                    "submodules, which would be deployed as empty directories: {}",
                    some(&submodules)
                ),
                Some("deploy their content with `submodules: true`, or put it into the repository"),
            );
        }
        let pointers = self.inside(&worktree.lfs_pointers);
        if !pointers.is_empty() {
            let (what, hint) = if self.app.lfs {
                (
                    "pointers of Git LFS that cannot be read as such",
                    "make them again with `git lfs migrate` or `git add --renormalize`; those with `ext-…` are not supported",
                )
            } else {
                (
                    "pointers of Git LFS, which would be deployed instead of content",
                    "deploy the content with `lfs: true`, or put it into the repository",
                )
            };
            self.refuse(format!("{what}: {}", some(&pointers)), Some(hint));
        }
    }

    fn links(&mut self, worktree: &Worktree) {
        let links: Vec<(PathBuf, PathBuf)> = worktree
            .symlinks
            .iter()
            .filter_map(|(path, target)| {
                Some((path.strip_prefix(&self.app.path).ok()?.to_owned(), target.clone()))
            })
            .collect();
        if links.is_empty() {
            return;
        }
        if self.app.symlinks == Symlinks::Refuse {
            let names: Vec<&Path> = links.iter().map(|(path, _)| path.as_path()).collect();
            let message = format!("links, which `symlinks: refuse` forbids: {}", some(&names));
            return self.refuse(message, None);
        }
        let root = self.root.clone();
        let leads = links::leads(&links, &|path| match fs::symlink_metadata(root.join(path)) {
            Ok(data) if data.is_dir() => Kind::Directory,
            Ok(_) => Kind::File,
            Err(_) => Kind::Absent,
        });
        let that = |wanted: &dyn Fn(&Leads) -> bool| -> Vec<&Path> {
            leads.iter().filter(|(_, l)| wanted(l)).map(|(path, _)| path.as_path()).collect()
        };
        let out = that(&|leads| *leads == Leads::Out);
        let back = that(&|leads| *leads == Leads::Back);
        let directories = that(&|leads| matches!(leads, Leads::Directory(_)));
        let nowhere = that(&|leads| *leads == Leads::Nowhere);
        if self.app.symlinks == Symlinks::Safe {
            let hint = Some("remove them, or allow them with `symlinks: allow`");
            if !out.is_empty() {
                self.refuse(format!("links that lead out of the bundle: {}", some(&out)), hint);
            }
            if !back.is_empty() {
                self.refuse(
                    format!(
                        "links that codedeploy-local would follow without end: {}",
                        some(&back)
                    ),
                    hint,
                );
            }
            if !directories.is_empty() {
                self.warn(format!(
                    "links to directories, which are installed as copies: {}",
                    some(&directories)
                ));
            }
        }
        if !nowhere.is_empty() && (self.tool == Tool::Agent2 || self.app.symlinks == Symlinks::Safe)
        {
            let why = if self.tool == Tool::Agent2 {
                ", over which codedeploy-local 2.x fails at the next deployment"
            } else {
                ""
            };
            self.warn(format!("links that lead nowhere{why}: {}", some(&nowhere)));
        }
    }

    /// The appspec's name below the root.
    fn appspec_file(&mut self) -> Result<Option<PathBuf>, Failure> {
        if let Some(name) = &self.app.appspec {
            let name = name.clone();
            if !self.is_own_file(&name)? {
                self.refuse(
                    format!("the bundle has no file {}", shown(&name)),
                    Some("`appspec` is relative to the app's `path`"),
                );
                return Ok(None);
            }
            return Ok(Some(name));
        }
        let long = self.is_own_file(Path::new("appspec.yaml"))?;
        if self.is_own_file(Path::new("appspec.yml"))? {
            if long {
                self.warn("appspec.yaml is not read, as there is an appspec.yml");
            }
            return Ok(Some("appspec.yml".into()));
        }
        if long {
            return Ok(Some("appspec.yaml".into()));
        }
        let place = if self.app.path.as_os_str().is_empty() {
            "the root of the repository".to_owned()
        } else {
            shown(&self.app.path)
        };
        let similar = self.similar_to_appspec();
        self.refuse(format!("there is no appspec.yml in {place}"), similar.as_deref());
        Ok(None)
    }

    /// Whether there is a regular file of this name, by way of links inside the bundle too.
    fn is_own_file(&self, name: &Path) -> Result<bool, Failure> {
        let unfit = |e: io::Error| Failure::from_error(ExitCode::Unfit, &e);
        let path = match fs::canonicalize(self.root.join(name)) {
            Ok(path) => path,
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Err(unfit(e)),
            // Not there, a loop, a file for a directory: no such file.
            Err(_) => return Ok(false),
        };
        let root = fs::canonicalize(&self.root).map_err(unfit)?;
        Ok(path.starts_with(root) && fs::metadata(&path).map_err(unfit)?.is_file())
    }

    fn similar_to_appspec(&self) -> Option<String> {
        let entries = fs::read_dir(&self.root).ok()?;
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.to_ascii_lowercase().starts_with("appspec"))
            .collect();
        names.sort();
        let name = escaped(names.first()?);
        Some(format!("there is `{name}`; the name has to be `appspec.yml`"))
    }

    /// The directories that files are installed in.
    fn appspec(&mut self, name: &Path) -> Result<Vec<PathBuf>, Failure> {
        let mut text = Vec::new();
        fs::File::open(self.root.join(name))
            .and_then(|file| file.take(MOST_APPSPEC).read_to_end(&mut text))
            .map_err(|e| Failure::from_error(ExitCode::Unfit, &e))?;
        let file = self.app.path.join(name);
        let parsed = appspec::parse(&file, &text);
        parsed.findings.iter().for_each(|finding| self.report(finding));
        // If something else is wrong with the appspec, the hooks can be looked at all the same.
        let hooks_alone = || parsed.hooks.map(|hooks| AppSpec { hooks, ..AppSpec::default() });
        let Some(spec) = parsed.spec.or_else(hooks_alone) else { return Ok(Vec::new()) };
        let possible = DEFAULT_EVENTS.map(str::to_owned);
        for finding in spec.unknown_events(&file, &possible) {
            self.report(&finding);
        }
        self.scripts(&file, &spec);
        self.sources(&file, &spec);
        self.destinations(&file, &spec);
        self.permissions(&file, &spec);
        if spec.file_exists.is_some() && self.app.file_exists != FileExists::default() {
            let file = file.display();
            self.warn(format!(
                "the manifest's `file_exists` has no effect, as {file} has `file_exists_behavior`"
            ));
        }
        let destinations = spec.files.iter().map(|entry| PathBuf::from(&entry.destination));
        Ok(destinations.filter(|path| path.is_absolute()).collect())
    }

    /// Whether a script of this revision runs before its files are installed.
    fn can_make_files(&self, spec: &AppSpec) -> bool {
        !spec.scripts("BeforeInstall").is_empty() && !self.skips("BeforeInstall")
    }

    fn skips(&self, event: &str) -> bool {
        self.app.skip_events.iter().any(|skipped| skipped == event)
    }
}

/// A path of an appspec as one below the bundle's root, joined as codedeploy-local joins
/// them: `/` in front means nothing. `None` if `..` leads out.
fn below(text: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in Path::new(text).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Some(path)
}

/// A part of a path that is more than two dots and nothing else.
fn is_dots(part: &str) -> bool {
    part.len() > 2 && part.bytes().all(|b| b == b'.')
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Odd {
    Control,
    Space,
    Bytes,
}

/// What is odd about a path; the first thing that is.
fn odd(path: &Path) -> Odd {
    match path.to_str() {
        None => Odd::Bytes,
        Some(text) if text.chars().any(char::is_control) => Odd::Control,
        Some(_) => Odd::Space,
    }
}

fn of_kind<'p>(paths: &[&'p Path], kind: Odd) -> Vec<&'p Path> {
    paths.iter().copied().filter(|path| odd(path) == kind).collect()
}

fn quoted(text: &str) -> String {
    crate::diagnostic::quoted(text)
}

fn shown(path: impl AsRef<OsStr>) -> String {
    quoted(&path.as_ref().to_string_lossy())
}

/// The first three of some paths.
fn some(paths: &[&Path]) -> String {
    const MOST: usize = 3;
    let mut names: Vec<String> = paths.iter().take(MOST).map(shown).collect();
    if paths.len() > MOST {
        names.push(format!("and {} more", paths.len() - MOST));
    }
    names.join(", ")
}
