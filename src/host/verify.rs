//! What an app's commit has to prove, before anything of it is checked out.

use super::{LiveHost, Trouble, remote};
use crate::domain::{App, RefName, Release, Revision, Verify};
use crate::error::{ExitCode, Failure};
use crate::mirror::{Looked, Mirror, Reach};
use crate::verify;

impl LiveHost<'_> {
    /// Checks the signature and the origin of `commit`, which is in the mirror and is what
    /// `revision` stands for.
    pub(super) fn verify(
        &self,
        mirror: &mut Mirror,
        app: &App,
        revision: Revision,
        commit: Revision,
    ) -> Result<(), Trouble> {
        let Some(wanted) = &app.verify else { return Ok(()) };
        if !wanted.signed_by.is_empty() {
            self.signed(mirror, app, wanted, revision, commit)?;
        }
        if !wanted.reachable_from.is_empty() {
            self.reachable(mirror, app, &wanted.reachable_from, commit)?;
        }
        Ok(())
    }

    fn signed(
        &self,
        mirror: &mut Mirror,
        app: &App,
        wanted: &Verify,
        revision: Revision,
        commit: Revision,
    ) -> Result<(), Trouble> {
        let about = Some(app.name.as_str());
        let warn = |text: &str| self.run.console.warn(about, text);
        let mut objects = vec![mirror.object(commit)?];
        if revision != commit {
            objects.insert(0, mirror.object(revision)?);
        }
        let mut found = verify::signature(&objects, wanted, &warn);
        // A name has been looked up already, but not what it is the name of.
        if found.is_err()
            && let Release::Name(name) = &app.release
            && let Some(tag) =
                mirror.annotated_tag(name, commit, &remote(&self.run, app)?, &self.progress(app))?
            && tag.is_named(name)
        {
            objects.insert(0, tag);
            found = verify::signature(&objects, wanted, &|_| {});
        }
        let signed = found.map_err(Failure::from)?;
        self.run.console.log(about, &signed.to_string());
        Ok(())
    }

    fn reachable(
        &self,
        mirror: &Mirror,
        app: &App,
        from: &[RefName],
        commit: Revision,
    ) -> Result<(), Trouble> {
        let about = Some(app.name.as_str());
        let same = mirror.source().is_some_and(|source| source == app.source.to_string());
        if same && let Some(name) = mirror.proven(commit, from) {
            self.run.console.log(about, &format!("`{name}` was seen to lead to {commit} before"));
            return Ok(());
        }
        if self.run.offline {
            let failure = Failure::new(
                ExitCode::Fetch,
                format!(
                    "{} has to be asked whether {} leads to {commit}, and --offline forbids it",
                    app.source,
                    listed(from)
                ),
            );
            return Err(failure.hint("run once without --offline").into());
        }
        match mirror.reach(commit, from, &remote(&self.run, app)?, &self.progress(app))? {
            Reach::From(name) => {
                self.run.console.log(about, &format!("`{name}` leads to {commit}"));
                Ok(())
            }
            Reach::Not(looked) => {
                let looked: Vec<_> = looked.iter().map(described).collect();
                let failure = Failure::new(
                    ExitCode::Refused,
                    format!(
                        "commit {commit} is not reachable from {} of {}: {}",
                        listed(from),
                        app.source,
                        looked.join(", ")
                    ),
                );
                let hint = "merge it first, or name the branch it is on in `reachable_from`; a commit that is on no branch may come from a fork";
                Err(failure.hint(hint).into())
            }
        }
    }
}

fn listed(names: &[RefName]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ")
}

fn described(looked: &Looked) -> String {
    let name = &looked.name;
    match looked.tip {
        None => format!("there is no `{name}`"),
        Some(tip) if looked.all => {
            let plural = if looked.commits == 1 { "" } else { "s" };
            format!("`{name}` is at {} with {} commit{plural}", tip.short(), looked.commits)
        }
        Some(tip) => format!(
            "`{name}` is at {}, and its last {} commits were looked at",
            tip.short(),
            looked.commits
        ),
    }
}
