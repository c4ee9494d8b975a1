//! Fetching without deploying, and mirrors that are made anew when they are damaged.

use std::path::Path;
use std::time::Duration;

use super::{LiveHost, TIDYING, Trouble, remote, resolve, told};
use crate::domain::{App, AppName, Release, Revision};
use crate::error::Failure;
use crate::mirror::{self, Effort, Mirror};

/// A commit that is in its mirror, verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Obtained {
    /// The commit: what was asked for, or what the tag that was asked for points to.
    pub commit: Revision,
    /// It was there before.
    pub held: bool,
}

impl LiveHost<'_> {
    /// Sees to it that an app's commit is in its mirror and passes its `verify`, so that it can
    /// be deployed without the network. Nothing is checked out or recorded.
    ///
    /// # Errors
    /// Whatever would fail a deployment until then.
    pub fn fetch(&self, app: &App, revision: Revision) -> Result<Obtained, Failure> {
        let (mirror, obtained) = self.with_whole_mirror(app, |mirror, share| {
            let source = app.source.to_string();
            let held = mirror.holds(revision) && mirror.source().is_none_or(|of| of == source);
            let commit = self.obtain(mirror, app, revision, share)?;
            self.verify(mirror, app, revision, commit)?;
            let options = self.checkout_options(app, Path::new(""));
            let came = self.fetch_lfs(mirror, app, commit, &options)?;
            if app.submodules {
                self.fetch_submodules(mirror, app, commit)?;
            }
            Ok(Obtained { commit, held: held && came == 0 })
        })?;
        let wanted = vec![revision, obtained.commit];
        self.put_in_order(&app.name, &mirror, wanted, TIDYING);
        Ok(obtained)
    }

    /// What an app's release is at its server, which has it. For a host whose cache is thrown
    /// away: the commit's files may not come.
    ///
    /// # Errors
    /// Whatever would keep a deployment from fetching it.
    pub fn probe(&self, app: &App) -> Result<Revision, Failure> {
        let revision = match &app.release {
            Release::Commit(revision) => *revision,
            Release::Name(name) => return resolve(&self.run, app, name),
        };
        let mut mirror = self.open_mirror(&app.name)?;
        let remote = remote(&self.run, app)?;
        let found = mirror.probe(revision, &remote, &self.progress(app));
        told(&self.run, app, &remote, found)?;
        Ok(revision)
    }

    /// Puts a mirror in order if it is worth it. That this cannot be done is only a warning.
    /// What is fetched of the commits that are `wanted` stays.
    pub(super) fn put_in_order(
        &self,
        app: &AppName,
        mirror: &Mirror,
        wanted: Vec<Revision>,
        within: Duration,
    ) {
        let interrupt = self.run.interrupt.clone();
        let about = Some(app.as_str());
        let most = self.run.mirror_max;
        match mirror.tidy(&Effort { always: false, within, interrupt, wanted, most }) {
            Ok(None) => {}
            Ok(Some(tidied)) => self.run.console.log(about, &tidied.to_string()),
            Err(failure) => {
                let failure = Failure::from(failure).context("the mirror was not put in order");
                self.run.console.warn(about, &failure.line());
            }
        }
    }

    /// Does `act` with an app's mirror; if that turns out to be damaged, once more with a new
    /// one. `act` is told whether it may take something from other mirrors: after that not,
    /// because they may hold the same damaged file.
    pub(super) fn with_whole_mirror<T>(
        &self,
        app: &App,
        act: impl Fn(&mut Mirror, bool) -> Result<T, Trouble>,
    ) -> Result<(Mirror, T), Failure> {
        let mut mirror = self.open_mirror(&app.name)?;
        let done = match act(&mut mirror, true) {
            Err(Trouble::Mirror(mirror::Failure::Damaged { path, detail })) => {
                self.run.console.warn(
                    Some(app.name.as_str()),
                    &format!(
                        "the mirror `{}` is damaged ({detail}); making it anew",
                        path.display()
                    ),
                );
                mirror = mirror.rebuild()?;
                act(&mut mirror, false)
            }
            other => other,
        };
        Ok((mirror, done?))
    }
}
