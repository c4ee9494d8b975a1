//! What Git LFS keeps of a commit's files: brought into the mirror before the commit is checked
//! out, from where git-lfs itself would get it.
//!
//! The batch server is shown what `hosts` binds to the source. A commit's `.lfsconfig` may name
//! another one, and is written by whoever can commit: it is followed on the source's own host,
//! or to a host that has an entry in `hosts`; nowhere else.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::room::{Need, Needs};
use super::{LiveHost, Run, Trouble, anonymous, remote, route, told};
use crate::domain::{App, RepoUrl, Revision};
use crate::error::{ExitCode, Failure};
use crate::hosts::Hosts;
use crate::manifest::submodule;
use crate::mirror::lfs::{self, Absent, Problem, Server};
use crate::mirror::{self, CheckoutOptions, Lfs, LfsFile, Mirror, Remote};
use crate::report::human;

/// How slowly objects may come, in bytes a second, on top of the time that any fetch has.
const SLOWEST: u64 = 256 << 10;

/// Where the objects of a source are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The batch API is there; the credential is that of the other.
    Batch(RepoUrl, RepoUrl),
    /// The repository itself knows.
    Repository,
}

/// The pointers of a tree at `place` in the app's that are in the bundle.
pub(crate) fn wanted(app: &App, place: &Path, content: bool) -> Option<Lfs> {
    let below = match app.path.strip_prefix(place) {
        Ok(below) => below.to_owned(),
        // All of it is in the bundle, or nothing.
        Err(_) => PathBuf::new(),
    };
    app.lfs.then_some(Lfs { below, content })
}

/// Where the objects of a commit of the app's source are asked for.
///
/// # Errors
/// Its `.lfsconfig` cannot be read, or must not be followed.
pub(crate) fn place(
    hosts: &Hosts,
    app: &App,
    mirror: &Path,
    commit: Revision,
) -> Result<Place, Failure> {
    let Some(text) = lfs::configured(mirror, commit)? else {
        return Ok(match lfs::of_source(&app.source) {
            Some(url) => Place::Batch(url, app.source.clone()),
            None => Place::Repository,
        });
    };
    let refused = |what: String| {
        Failure::new(
            ExitCode::Refused,
            format!("the `lfs.url` in `.lfsconfig` of commit {commit} is not followed: {what}"),
        )
    };
    let correct = "correct `.lfsconfig` in the repository";
    let secure = text.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"));
    if !secure {
        return Err(refused("it is not `https://`".into()).hint(correct));
    }
    let url = submodule::url(&text, &app.source)
        .map_err(|error| refused(error.to_string()).hint(correct))?;
    if host_of(&url) != host_of(&app.source) && hosts.rule_for(&url).prefix.is_empty() {
        let what = format!("`{url}` is on another host than {}", app.source);
        let hint = "if that host is to be trusted, add an entry for it under `hosts` in the manifest; else remove `lfs.url` from the repository";
        return Err(refused(what).hint(hint));
    }
    let bound = match &url {
        RepoUrl::Https { authority, path } => {
            let path = path.strip_suffix("/info/lfs").unwrap_or(path).to_owned();
            RepoUrl::Https { authority: authority.clone(), path }
        }
        other => other.clone(),
    };
    Ok(Place::Batch(url, bound))
}

/// The host, with the port for HTTPS: another port is another server.
fn host_of(url: &RepoUrl) -> Option<String> {
    match url {
        RepoUrl::Https { authority, .. } => Some(authority.clone()),
        RepoUrl::Ssh { host, .. } => Some(host.clone()),
        RepoUrl::File(_) => None,
    }
}

impl LiveHost<'_> {
    /// Does `act`, which writes the tree of a commit with what Git LFS keeps of it, once that is
    /// in the mirror; answers how many bytes of it came, too.
    pub(super) fn with_lfs<T>(
        &self,
        mirror: &Mirror,
        app: &App,
        commit: Revision,
        options: &CheckoutOptions,
        act: impl Fn() -> Result<T, mirror::Failure>,
    ) -> Result<T, Trouble> {
        if options.lfs.is_none() {
            return Ok(act()?);
        }
        self.fetch_lfs(mirror, app, commit, options)?;
        match act() {
            Err(mirror::Failure::Lfs(problem)) if matches!(*problem, Problem::Damaged { .. }) => {
                let warning = format!("{problem}; what is so is downloaded again");
                self.run.console.warn(Some(app.name.as_str()), &warning);
                let files = mirror.survey(commit, options)?.lfs;
                mirror.lfs_forget_damaged(&files, self.run.interrupt)?;
                self.fetch_lfs(mirror, app, commit, options)?;
                Ok(act()?)
            }
            done => Ok(done?),
        }
    }

    /// Sees to it that what Git LFS keeps of a commit is in its mirror; answers how many bytes
    /// came.
    pub(super) fn fetch_lfs(
        &self,
        mirror: &Mirror,
        app: &App,
        commit: Revision,
        options: &CheckoutOptions,
    ) -> Result<u64, Trouble> {
        if options.lfs.is_none() {
            return Ok(0);
        }
        let files = mirror.survey(commit, options)?.lfs;
        let mut absent = mirror.lfs_absent(commit, &files)?;
        if absent.is_empty() {
            return Ok(0);
        }
        // One after the other for all apps of a source: what one brings, the others take.
        let matter = format!("{} lfs", app.source);
        self.turns.take(&matter, commit, true, || {
            mirror.lfs_take_over(&mut absent, &app.source, &self.run.cache.join("mirrors"))?;
            if absent.is_empty() {
                return Ok(0);
            }
            if self.run.offline {
                return Err(offline(&absent, commit).into());
            }
            self.room_for(mirror, &absent, &files)?;
            self.download(mirror, app, commit, &absent)
        })
    }

    /// Whether there is room for what will come, and for the tree that it is written to.
    fn room_for(&self, mirror: &Mirror, absent: &Absent, files: &[LfsFile]) -> Result<(), Failure> {
        let mut needs = Needs::sparing(self.run.min_free_space);
        let count = absent.count() as u64;
        needs.add(mirror.path(), Need { bytes: mirror.lfs_to_come(absent), files: count });
        let sum = |sum: u64, file: &LfsFile| sum.saturating_add(file.object.size);
        let tree = Need { bytes: files.iter().fold(0, sum), files: files.len() as u64 };
        needs.add(&self.run.cache.join("worktrees"), tree);
        needs.check().map_err(|failure| {
            let bytes = human::bytes(absent.bytes());
            let paths = absent.paths();
            failure.context(format!("there is no room for {bytes} of Git LFS objects, {paths}"))
        })
    }

    fn download(
        &self,
        mirror: &Mirror,
        app: &App,
        commit: Revision,
        absent: &Absent,
    ) -> Result<u64, Trouble> {
        let place = place(self.run.hosts, app, mirror.path(), commit)?;
        let begun = Instant::now();
        let of = match &place {
            Place::Batch(_, bound) => App { source: bound.clone(), ..app.clone() },
            Place::Repository => app.clone(),
        };
        let bound = self.patient(remote(&self.run, &of)?, mirror.lfs_to_come(absent));
        let server = match &place {
            Place::Batch(url, _) => &Remote { url: url.clone(), ..bound.clone() },
            Place::Repository => &bound,
        };
        let server = match &place {
            Place::Batch(..) => Server::Batch(server),
            Place::Repository => Server::Repository(server),
        };
        let warn = |text: String| self.run.console.warn(Some(app.name.as_str()), &text);
        let ways = |url: &RepoUrl| way(&self.run, url, &warn);
        let fetched = mirror.lfs_fetch(absent, &server, &ways, &self.progress(app));
        let bytes = told(&self.run, &of, &bound, fetched)?;
        let took = begun.elapsed().as_secs_f64();
        let text = format!("{} Git LFS objects of {commit} in {took:.1} s", absent.count());
        self.run.console.fetched_more(app.name.as_str(), &text, bytes);
        Ok(bytes)
    }

    /// With time for as many bytes, as far as the run has it.
    fn patient(&self, mut remote: Remote, bytes: u64) -> Remote {
        let limits = &mut remote.limits;
        let usual = mirror::Limits::default().total;
        limits.total = usual.saturating_add(Duration::from_secs(bytes / SLOWEST));
        if let Some(deadline) = self.run.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            limits.total = limits.total.min(left);
        }
        // A hundred years are enough for any clock.
        limits.total = limits.total.min(Duration::from_secs(100 * 365 * 86_400));
        remote
    }
}

/// How a host is reached that objects lie on: without any credential.
///
/// # Errors
/// Its proxy cannot be used.
pub(crate) fn way(
    run: &Run<'_>,
    url: &RepoUrl,
    warn: &dyn Fn(String),
) -> Result<Remote, mirror::Failure> {
    let variable = |name: &str| (run.variable)(name)?.into_string().ok();
    let rule = run.hosts.rule_for(url);
    let mut way = anonymous(&rule, url, &variable, run.interrupt);
    way.proxy = route(&rule, url, &variable, warn).map_err(|failure| {
        let (url, why) = (url.clone(), failure.line());
        mirror::Failure::Lfs(Box::new(Problem::NoWay { url, why }))
    })?;
    Ok(way)
}

fn offline(absent: &Absent, commit: Revision) -> Failure {
    let bytes = human::bytes(absent.bytes());
    let text = format!(
        "the content of {} in commit {commit} ({} Git LFS objects, {bytes}) is not in the mirror, and --offline forbids to fetch it",
        absent.paths(),
        absent.count()
    );
    Failure::new(ExitCode::Fetch, text).hint("run once without --offline")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::app;

    #[test]
    fn only_what_is_in_the_bundle_is_wanted() {
        let mut app = app("api", 1);
        assert_eq!(wanted(&app, Path::new(""), true), None);
        app.lfs = true;
        for (path, place, below) in [
            ("", "", ""),
            ("app", "", "app"),
            ("app", "app/lib", ""),
            ("app/lib/x", "app/lib", "x"),
            ("app", "app", ""),
        ] {
            app.path = path.into();
            let lfs = wanted(&app, Path::new(place), true).unwrap();
            assert_eq!(lfs.below, Path::new(below), "{path} {place}");
        }
    }
}
