//! `status --drift`: is what is installed what was deployed?
//!
//! The deployed commit is checked out once more, from its mirror and without the network, and
//! each file that its appspec installs is compared with the one that is there. That holds
//! whatever codedeploy-local deployed it: what that made is in `GROUP-install.json`, with all
//! of them.
//!
//! What an app's own scripts changed cannot be told from what somebody else did. So the scripts
//! are named beside the files.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt;
use serde::Serialize;

use crate::bundle::{self, Contents};
use crate::domain::{App, Revision};
use crate::engine::install::{self, Installed};
use crate::error::Failure;
use crate::host::lfs;
use crate::host::submodules::fill_unlocked;
use crate::host::{deployment_root, private_directory};
use crate::ledger::mirror_path;
use crate::mirror::{self, CheckoutOptions};
use crate::process::Interrupt;
use crate::report::human::Paint;
use crate::report::tame;
use crate::settings::Settings;

/// Below the cache directory, while the files are compared.
pub(crate) const WORKSHOP: &str = "drift";
/// Files that people are shown.
const SHOWN: usize = 20;

/// How an app's installed files stand to the commit.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Drift {
    state: State,
    /// What they were compared with.
    commit: Revision,
    /// How many were compared.
    files: usize,
    differences: Vec<Difference>,
    /// Files that were there before the app was, and were left as they are (`RETAIN`).
    retained: Vec<PathBuf>,
    /// Scripts of the commit that may have changed files.
    scripts: Vec<String>,
    /// Why it is not known.
    why: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    None,
    Differs,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Difference {
    path: PathBuf,
    what: What,
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Missing,
    /// Something else is there: a directory, a link, a device.
    Kind,
    Content,
    Mode,
    /// The link leads elsewhere.
    Target,
    /// It was installed, and the commit has no such file.
    Extra,
    Unreadable,
}

impl What {
    fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Kind => "kind",
            Self::Content => "content",
            Self::Mode => "mode",
            Self::Target => "target",
            Self::Extra => "extra",
            Self::Unreadable => "unreadable",
        }
    }
}

impl Drift {
    /// Compares what is installed of `app` with `commit`.
    pub(super) fn of(
        settings: &Settings,
        app: &App,
        commit: Revision,
        interrupt: &Interrupt,
    ) -> Self {
        match compare(settings, app, commit, interrupt) {
            Ok(drift) => drift,
            Err(failure) => Self::unknown(commit, failure.line()),
        }
    }

    /// Nothing could be compared.
    pub(super) fn unknown(commit: Revision, why: String) -> Self {
        Self {
            state: State::Unknown,
            commit,
            files: 0,
            differences: Vec::new(),
            retained: Vec::new(),
            scripts: Vec::new(),
            why: Some(why),
        }
    }

    /// Whether files are not as the commit has them.
    pub(super) fn differs(&self) -> bool {
        self.state == State::Differs
    }

    /// Whether they could not be compared.
    pub(super) fn is_unknown(&self) -> bool {
        self.state == State::Unknown
    }

    /// For people, a line each.
    pub(super) fn lines(&self, paint: Paint) -> Vec<String> {
        let mut lines = Vec::new();
        let (number, of) = (self.differences.len(), self.files);
        let short = self.commit.short();
        lines.push(match (self.state, &self.why) {
            (State::Unknown, why) => {
                let why = tame(why.as_deref().unwrap_or_default(), 300);
                paint.yellow(&format!("drift is not known: {why}"))
            }
            (State::None, _) => format!("no drift: {} as in {short}", files_are(of)),
            (State::Differs, _) => {
                let files = files_are(number);
                paint.red(&format!("drift: {files} not as in {short} ({of} compared)"))
            }
        });
        for Difference { path, what } in self.differences.iter().take(SHOWN) {
            lines.push(format!("  {:10} {}", what.word(), tame(&path.to_string_lossy(), 200)));
        }
        if number > SHOWN {
            lines.push(format!("  and {} more (--json lists all)", number - SHOWN));
        }
        if !self.retained.is_empty() {
            let number = self.retained.len();
            let files = if number == 1 { "1 file was" } else { &format!("{number} files were") };
            lines.push(format!("  {files} there before and kept (RETAIN)"));
        }
        if self.differs() && !self.scripts.is_empty() {
            let scripts = tame(&self.scripts.join(", "), 300);
            lines.push(format!("  scripts that may have changed them: {scripts}"));
        }
        lines
    }
}

fn files_are(number: usize) -> String {
    if number == 1 { "1 file is".to_owned() } else { format!("{number} files are") }
}

fn compare(
    settings: &Settings,
    app: &App,
    commit: Revision,
    interrupt: &Interrupt,
) -> Result<Drift, Failure> {
    let workshop = Workshop::new(settings, app)?;
    let mirror = mirror_path(&settings.cache_dir, &app.name);
    let options = CheckoutOptions {
        export_ignore: app.export_ignore,
        lfs: lfs::wanted(app, Path::new(""), false),
        interrupt: interrupt.clone(),
        ..CheckoutOptions::default()
    };
    let mut worktree = mirror::checkout_unlocked(&mirror, commit, &workshop.target, &options)
        .map_err(|failure| {
            let failure = Failure::from(failure);
            failure.context(format!("{} is not in the mirror as a whole", commit.short()))
        })?;
    if app.submodules {
        fill_unlocked(app, &mirror, commit, &mut worktree, &options)?;
    }
    let Contents { files, scripts, retains } = bundle::contents(app, &worktree)?;
    let kept: Kept =
        worktree.lfs.iter().map(|file| (worktree.path.join(&file.path), file.object)).collect();
    let agent = settings.agent_configuration_file.as_deref();
    let instructions = deployment_root(agent, &settings.state_dir).join("deployment-instructions");
    let made = install::installed(&instructions, &app.name.deployment_group());

    let (mut differences, mut retained) = (Vec::new(), Vec::new());
    for file in &files {
        let was_made = made.as_ref().is_none_or(|made| made.contains(&file.destination));
        if retains && !was_made && file.destination.symlink_metadata().is_ok() {
            retained.push(file.destination.clone());
        } else if let Some(what) = difference(file, &kept, interrupt) {
            differences.push(Difference { path: file.destination.clone(), what });
        }
    }
    // A script before the Install can have made more to install; else it was another revision,
    // or somebody called codedeploy-local by hand.
    if !scripts.iter().any(|script| script.starts_with("BeforeInstall ")) {
        let expected: HashSet<&Path> =
            files.iter().map(|file| file.destination.as_path()).collect();
        let mut extra: Vec<PathBuf> = made.into_iter().flatten().collect();
        extra.retain(|path| {
            let ours = app.release_file.as_deref().and_then(Path::file_name);
            !expected.contains(path.as_path()) && path.file_name() != ours
        });
        extra.sort();
        let extra = extra.into_iter().map(|path| Difference { path, what: What::Extra });
        differences.extend(extra);
    }
    let state = if differences.is_empty() { State::None } else { State::Differs };
    let files = files.len() - retained.len();
    Ok(Drift { state, commit, files, differences, retained, scripts, why: None })
}

/// What is wrong with one file, if anything is.
fn difference(file: &Installed, kept: &Kept, interrupt: &Interrupt) -> Option<What> {
    let (Ok(source), there) =
        (fs_err::symlink_metadata(&file.source), file.destination.symlink_metadata())
    else {
        return Some(What::Unreadable);
    };
    let there = match there {
        Ok(there) => there,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Some(What::Missing);
        }
        Err(_) => return Some(What::Unreadable),
    };
    if source.is_symlink() {
        if !there.is_symlink() {
            return Some(What::Kind);
        }
        let same = match (fs_err::read_link(&file.source), fs_err::read_link(&file.destination)) {
            (Ok(source), Ok(there)) => source == there,
            _ => return Some(What::Unreadable),
        };
        return (!same).then_some(What::Target);
    }
    if !there.is_file() {
        return Some(What::Kind);
    }
    let same = match kept.get(&file.source) {
        Some(object) => mirror::lfs::is_in(&file.destination, *object, interrupt),
        None => same_content(file, &source, &there),
    };
    match same {
        Err(_) => Some(What::Unreadable),
        Ok(false) => Some(What::Content),
        Ok(true) => (!has_mode(file, &source, &there)).then_some(What::Mode),
    }
}

/// Whether a file's mode is the declared one; else that of the commit, from which the umask of
/// whoever deployed it may have taken something, but not the owner's right to execute.
fn has_mode(file: &Installed, source: &Metadata, there: &Metadata) -> bool {
    let (source, there) = (source.mode() & 0o7777, there.mode() & 0o7777);
    match file.mode {
        Some(declared) => there == declared,
        None => there & !source == 0 && there & 0o100 == source & 0o100,
    }
}

fn same_content(file: &Installed, source: &Metadata, there: &Metadata) -> io::Result<bool> {
    if source.len() != there.len() {
        return Ok(false);
    }
    let open = |path: &Path| {
        // It was a regular file a moment ago.
        let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
        fs_err::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
    };
    let (mut source, mut there) = (open(&file.source)?, open(&file.destination)?);
    let (mut one, mut other) = (Vec::new(), Vec::new());
    loop {
        one.clear();
        other.clear();
        source.by_ref().take(PIECE).read_to_end(&mut one)?;
        there.by_ref().take(PIECE).read_to_end(&mut other)?;
        if one != other {
            return Ok(false);
        }
        if one.is_empty() {
            return Ok(true);
        }
    }
}

/// Files of the worktree that Git LFS keeps: pointers are in their places.
type Kept = HashMap<PathBuf, mirror::lfs::Object>;

/// Bytes that are compared at a time.
const PIECE: u64 = 1 << 18;

/// Where a commit is checked out; gone when this is. `gc` removes what a killed process leaves.
struct Workshop {
    target: PathBuf,
}

impl Workshop {
    fn new(settings: &Settings, app: &App) -> Result<Self, Failure> {
        let directory = settings.cache_dir.join(WORKSHOP);
        private_directory(&directory)?;
        Ok(Self { target: directory.join(format!("{}-{}", std::process::id(), app.name)) })
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let _ = fs_err::remove_dir_all(&self.target);
        // Fails as long as others are in it.
        let _ = self.target.parent().map(fs_err::remove_dir);
    }
}
