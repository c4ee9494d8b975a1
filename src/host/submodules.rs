//! Submodules: each is fetched as the app itself is, at exactly the commit that the tree around
//! it names, and written into the app's worktree.
//!
//! Where one comes from is written in the commit, by whoever can commit. So it is reached with
//! the credential that `hosts` binds to its own URL, whatever the app's is; and what the app
//! has to prove (`verify`) holds for it too, as the app's tree names it by its id.

use std::path::{Path, PathBuf};

use super::{LiveHost, Trouble, lfs};
use crate::domain::{App, RepoUrl, Revision};
use crate::error::{ExitCode, Failure};
use crate::manifest::submodule;
use crate::mirror::lfs::Absent;
use crate::mirror::{self, CheckoutOptions, Mirror, Submodule, SubmodulesError, Worktree};

/// How deep submodules may be in submodules.
const DEEPEST: usize = 10;
/// How many there may be in all.
const MOST: usize = 200;

/// A submodule that is to be brought.
struct Wanted {
    submodule: Submodule,
    /// The app, with the submodule's URL for its source: what is known of a source depends on
    /// nothing else.
    as_app: App,
    /// Where it goes in the app's worktree.
    place: PathBuf,
    depth: usize,
}

/// A tree that submodules are in.
struct Around<'a> {
    mirror: &'a Path,
    commit: Revision,
    source: &'a RepoUrl,
    place: &'a Path,
    depth: usize,
}

impl<'a> Around<'a> {
    /// The app's own tree.
    fn app(app: &'a App, mirror: &'a Path, commit: Revision) -> Self {
        Self { mirror, commit, source: &app.source, place: Path::new(""), depth: 0 }
    }

    /// That of a submodule.
    fn submodule(wanted: &'a Wanted, mirror: &'a Path, commit: Revision) -> Self {
        let Wanted { as_app, place, depth, .. } = wanted;
        Self { mirror, commit, source: &as_app.source, place, depth: *depth }
    }
}

impl LiveHost<'_> {
    /// Puts the submodules of a commit into its worktree, in place of the empty directories;
    /// those that are not in the bundle stay empty. If that fails, the worktree is removed.
    pub(super) fn fill(
        &self,
        mirror: &Mirror,
        app: &App,
        commit: Revision,
        worktree: &mut Worktree,
    ) -> Result<(), Trouble> {
        let around = Around::app(app, mirror.path(), commit);
        let filled = wanted(app, &around, worktree).and_then(|wanted| {
            each(wanted, |one| self.bring_submodule(mirror, app, commit, one, Some(&mut *worktree)))
        });
        filled.inspect_err(|_| {
            // What stays is swept by the next run; the failure is what matters.
            let _ = fs_err::remove_dir_all(&worktree.path);
        })
    }

    /// Sees to it that the submodules of a commit are in their mirrors.
    pub(super) fn fetch_submodules(
        &self,
        mirror: &Mirror,
        app: &App,
        commit: Revision,
    ) -> Result<(), Trouble> {
        let tree = mirror.survey(commit, &self.checkout_options(app, Path::new("")))?;
        let wanted = wanted(app, &Around::app(app, mirror.path(), commit), &tree)?;
        each(wanted, |one| self.bring_submodule(mirror, app, commit, one, None))
    }

    /// Brings one submodule into its mirror, in spite of a damaged one, and into the worktree, if
    /// there is one; answers those that are in it.
    fn bring_submodule(
        &self,
        app_mirror: &Mirror,
        app: &App,
        by: Revision,
        wanted: &Wanted,
        mut worktree: Option<&mut Worktree>,
    ) -> Result<Vec<Wanted>, Trouble> {
        let mut mirror =
            Mirror::open(&mirror::of_submodule(app_mirror.path(), &wanted.as_app.source)?)?;
        let mut bring = |mirror: &mut Mirror, share| {
            let commit = self.obtain(mirror, &wanted.as_app, wanted.submodule.commit, share)?;
            mirror.pin(by, commit)?;
            let around = Around::submodule(wanted, mirror.path(), commit);
            let options = self.checkout_options(app, &wanted.place);
            let (mirror, from) = (&*mirror, &wanted.as_app);
            let Some(worktree) = worktree.as_deref_mut() else {
                self.fetch_lfs(mirror, from, commit, &options)?;
                return self::wanted(app, &around, &mirror.survey(commit, &options)?);
            };
            place(app, &around, worktree, |target| {
                let write = || mirror.checkout(commit, target, &options);
                self.with_lfs(mirror, from, commit, &options, write)
            })
        };
        match bring(&mut mirror, true) {
            Err(Trouble::Mirror(mirror::Failure::Damaged { path, detail })) => {
                self.run.console.warn(
                    Some(app.name.as_str()),
                    &format!(
                        "the mirror `{}` of the submodule `{}` is damaged ({detail}); making it anew",
                        path.display(),
                        wanted.place.display()
                    ),
                );
                // The other mirrors may hold the same damaged file.
                bring(&mut mirror.rebuild()?, false)
            }
            other => other,
        }
    }
}

/// Puts the submodules of a commit into its worktree, from what is in the mirrors, without their
/// locks. What Git LFS keeps of them is only listed.
///
/// # Errors
/// One is not there, or must not be followed.
pub(crate) fn fill_unlocked(
    app: &App,
    app_mirror: &Path,
    commit: Revision,
    worktree: &mut Worktree,
    options: &CheckoutOptions,
) -> Result<(), Failure> {
    let first = wanted(app, &Around::app(app, app_mirror, commit), worktree)?;
    each(first, |one| {
        let mirror = mirror::of_submodule(app_mirror, &one.as_app.source)?;
        let commit = one.submodule.commit;
        let lfs = lfs::wanted(app, &one.place, false);
        let options = CheckoutOptions { lfs, ..options.clone() };
        place(app, &Around::submodule(one, &mirror, commit), worktree, |target| {
            Ok(mirror::checkout_unlocked(&mirror, commit, target, &options)?)
        })
    })?;
    Ok(())
}

/// A submodule that a commit needs, as far as the mirrors know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Foreseen {
    /// Where it goes in the app's worktree.
    pub(crate) place: PathBuf,
    /// Where it comes from.
    pub(crate) source: RepoUrl,
    /// The commit that it is at.
    pub(crate) commit: Revision,
    /// It is in its mirror, and what is in it has been looked at.
    pub(crate) held: bool,
}

/// The submodules of a commit, and those in them as far as they are in the mirrors, and the objects
/// of Git LFS that would have to come. Without locks or network.
///
/// # Errors
/// The commit is not there, or one must not be followed.
pub(crate) fn foresee(
    app: &App,
    app_mirror: &Path,
    commit: Revision,
    options: &CheckoutOptions,
) -> Result<(Vec<Foreseen>, Vec<Absent>), Failure> {
    let options = |place: &Path| {
        let lfs = lfs::wanted(app, place, false);
        CheckoutOptions { lfs, ..options.clone() }
    };
    let tree = mirror::survey_unlocked(app_mirror, commit, &options(Path::new("")))?;
    let mut absent = vec![mirror::lfs::absent(app_mirror, &tree.lfs)?];
    let mut found = Vec::new();
    if !app.submodules {
        return Ok((found, absent));
    }
    let first = wanted(app, &Around::app(app, app_mirror, commit), &tree)?;
    each(first, |one| {
        let mirror = mirror::of_submodule(app_mirror, &one.as_app.source)?;
        let held = mirror::commit_unlocked(&mirror, one.submodule.commit);
        let Wanted { submodule, as_app, place, .. } = one;
        found.push(Foreseen {
            place: place.clone(),
            source: as_app.source.clone(),
            commit: submodule.commit,
            held: held.is_some(),
        });
        let Some(commit) = held else { return Ok(Vec::new()) };
        let tree = mirror::survey_unlocked(&mirror, commit, &options(place))?;
        absent.push(mirror::lfs::absent(&mirror, &tree.lfs)?);
        wanted(app, &Around::submodule(one, &mirror, commit), &tree)
    })?;
    Ok((found, absent))
}

/// Brings all, and what is found in them on the way.
fn each(
    mut open: Vec<Wanted>,
    mut bring: impl FnMut(&Wanted) -> Result<Vec<Wanted>, Trouble>,
) -> Result<(), Trouble> {
    let mut count = 0;
    while let Some(wanted) = open.pop() {
        count += 1;
        let place = wanted.place.display();
        let refuse = |text| Err(Failure::new(ExitCode::Refused, text).into());
        if wanted.depth > DEEPEST {
            return refuse(format!(
                "the submodule `{place}` is more than {DEEPEST} deep in submodules"
            ));
        }
        if count + open.len() > MOST {
            return refuse(format!("there are more than {MOST} submodules, `{place}` among them"));
        }
        let inside = bring(&wanted).map_err(|trouble| {
            Failure::from(trouble).context(format!(
                "cannot bring the submodule `{place}` (commit {} of {})",
                wanted.submodule.commit, wanted.as_app.source
            ))
        })?;
        open.extend(inside);
    }
    Ok(())
}

/// Writes a submodule into the app's worktree; answers those that are in it.
fn place(
    app: &App,
    tree: &Around<'_>,
    worktree: &mut Worktree,
    write: impl FnOnce(&Path) -> Result<Worktree, Trouble>,
) -> Result<Vec<Wanted>, Trouble> {
    // Beside the app's worktree, named as what an ended run leaves and the next one removes.
    let aside = worktree.path.with_file_name(format!(".{}.submodule.new", tree.commit));
    mirror::remove_leftover(&aside)?;
    let inner = write(&aside)?;
    // The directory is there, empty, and what is above it are directories and no links: the
    // writer made them all, and no tree has two things of one name.
    let target = worktree.path.join(tree.place);
    fs_err::rename(&aside, &target)
        .map_err(|error| Failure::from_error(ExitCode::Unfit, &error))?;
    let inside = wanted(app, tree, &inner)?;
    worktree.submodules.retain(|path| path != tree.place);
    worktree.take_in(tree.place, inner);
    Ok(inside)
}

/// The submodules of one tree, as far as they are in the bundle; the last comes first.
fn wanted(app: &App, around: &Around<'_>, tree: &Worktree) -> Result<Vec<Wanted>, Trouble> {
    let in_bundle = |path: &&PathBuf| {
        let place = around.place.join(path);
        place.starts_with(&app.path) || app.path.starts_with(&place)
    };
    let paths: Vec<PathBuf> = tree.submodules.iter().rev().filter(in_bundle).cloned().collect();
    let refused = |path: &Path, error: &dyn std::error::Error| {
        let place = around.place.join(path);
        let failure = Failure::from_error(ExitCode::Refused, error)
            .context(format!("the submodule `{}` cannot be followed", place.display()))
            .hint("correct `.gitmodules` in its repository");
        Trouble::Other(failure)
    };
    let found = mirror::submodules_unlocked(around.mirror, around.commit, &paths);
    let found = found.map_err(|error| match error {
        SubmodulesError::Mirror(failure) => Trouble::Mirror(failure),
        SubmodulesError::Unlisted { ref path } => refused(path, &error),
        SubmodulesError::Text(_) | SubmodulesError::NoText => {
            refused(paths.last().map_or(Path::new(""), PathBuf::as_path), &error)
        }
    })?;
    let wanted = found.into_iter().map(|submodule| {
        let source = submodule::url(&submodule.url, around.source)
            .map_err(|error| refused(&submodule.path, &error))?;
        let place = around.place.join(&submodule.path);
        let as_app = App { source, ..app.clone() };
        Ok(Wanted { submodule, as_app, place, depth: around.depth + 1 })
    });
    wanted.collect()
}
