//! What a run will do, as a value: printed by `plan`, walked by [`crate::rollout`].
//!
//! Pure: no file, no clock, no environment, no git.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

use crate::domain::{App, AppName, Elsewhere, Facts, OnFailure, Release, Revision};

/// An app with its release resolved to a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The manifest's entry.
    pub app: App,
    /// The commit its release stands for.
    pub revision: Revision,
}

/// What the records say of one app.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recorded {
    /// The commit that runs on this host.
    pub deployed: Option<Revision>,
    /// The commit of an attempt that has not succeeded.
    pub attempted: Option<Revision>,
    /// The commit deployed before.
    pub previous: Option<Revision>,
    /// The source the deployed commit came from, where known.
    pub source: Option<String>,
    /// The release in `last_state.yaml`: all that is known of an app that 0.3.1 deployed.
    pub last_state: Option<String>,
    /// Why the records cannot be believed, if they were damaged.
    pub damaged: Option<String>,
}

/// What a run will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One for each app of the manifest, in its order, but each after those it needs.
    pub steps: Vec<Step>,
}

/// What will happen to one app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The app.
    pub app: App,
    /// The commit that is wanted.
    pub revision: Revision,
    /// The commit that is recorded as deployed.
    pub from: Option<Revision>,
    /// What to do.
    pub action: Action,
    /// What happens if it fails.
    pub on_failure: OnFailure,
}

/// What to do with an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing: it is current.
    Keep,
    /// Deploy it.
    Deploy(Reason),
    /// Leave it alone, whatever its state.
    Skip(SkipReason),
}

/// Why an app is deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Nothing is recorded of it.
    New,
    /// Another commit is deployed.
    Changed,
    /// An attempt was interrupted or failed, so what is on the host is unknown.
    Unfinished {
        /// The commit of that attempt.
        attempted: Revision,
    },
    /// The same commit, from another repository.
    SourceChanged {
        /// The repository that the deployed commit came from.
        from: String,
    },
    /// `last_state.yaml` was changed behind our back, for example by 0.3.1.
    Disputed {
        /// The release it names.
        last_state: String,
    },
    /// The records are damaged, so what is on the host is unknown.
    Damaged {
        /// What is wrong with them.
        why: String,
    },
    /// By `--force` or `force: true`.
    Forced,
    /// By `rollback`.
    RolledBack,
    /// An app failed, and this is what was deployed before the run.
    PutBack,
}

/// Why an app is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// `enabled: false`.
    Disabled,
    /// Not among the `--app` options.
    NotSelected,
    /// Its `when` is not met here.
    Elsewhere(Elsewhere),
}

impl SkipReason {
    /// A few words for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Disabled => "enabled: false".to_owned(),
            Self::NotSelected => "not selected".to_owned(),
            Self::Elsewhere(elsewhere) => format!("when: {}", elsewhere.why),
        }
    }
}

impl Reason {
    /// A few words for people.
    pub fn describe(&self) -> String {
        match self {
            Self::New => "new".to_owned(),
            Self::Changed => "changed".to_owned(),
            Self::Unfinished { attempted } => {
                format!("attempt of {} did not finish", attempted.short())
            }
            Self::SourceChanged { from } => format!("source was {from}"),
            Self::Disputed { last_state } => format!("last_state.yaml says {last_state}"),
            Self::Damaged { why } => format!("records damaged: {why}"),
            Self::Forced => "forced".to_owned(),
            Self::RolledBack => "rollback".to_owned(),
            Self::PutBack => "put back".to_owned(),
        }
    }
}

impl Plan {
    /// The steps that deploy something.
    pub fn deployments(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.deploys())
    }

    /// The steps that may have to be undone: if one fails that restores, all that were
    /// carried out before it are put back, and it itself.
    pub fn may_be_put_back(&self, index: usize) -> bool {
        let here = self.steps.get(index).is_some_and(Step::deploys);
        let mut from_here = self.steps.iter().skip(index).filter(|step| step.deploys());
        here && from_here.any(|step| step.on_failure == OnFailure::Restore)
    }
}

impl Step {
    /// Whether it changes the host.
    pub fn deploys(&self) -> bool {
        matches!(self.action, Action::Deploy(_))
    }

    /// Whether it undoes another step.
    pub fn puts_back(&self) -> bool {
        self.action == Action::Deploy(Reason::PutBack)
    }

    /// The step that undoes this one, `done` or failed; `None` if nothing was deployed before.
    pub fn back(&self, done: bool) -> Option<Self> {
        let revision = self.from?;
        Some(Self {
            app: App { release: Release::Commit(revision), ..self.app.clone() },
            revision,
            from: Some(if done { self.revision } else { revision }),
            action: Action::Deploy(Reason::PutBack),
            on_failure: self.on_failure,
        })
    }
}

/// What narrows a run or widens it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only these apps; all if empty.
    pub only: Vec<AppName>,
    /// Deploy what is current, too.
    pub force: bool,
    /// By `rollback`: the releases are not the manifest's.
    pub rollback: bool,
    /// What this host is.
    pub facts: Facts,
    /// What happens after a failure, whatever the apps say.
    pub on_failure: Option<OnFailure>,
    /// The same for apps that do not say it.
    pub policy: OnFailure,
}

impl Selection {
    /// Why this run leaves an app alone, if it does.
    pub fn leaves_alone(&self, app: &App) -> Option<SkipReason> {
        if !app.enabled {
            Some(SkipReason::Disabled)
        } else if !self.only.is_empty() && !self.only.contains(&app.name) {
            Some(SkipReason::NotSelected)
        } else {
            app.when.excludes(&self.facts).map(SkipReason::Elsewhere)
        }
    }
}

/// Decides for each app. `recorded` yields what is known of an app.
pub fn plan(
    wanted: Vec<Wanted>,
    recorded: impl Fn(&AppName) -> Recorded,
    selection: &Selection,
) -> Plan {
    let steps = in_order(wanted)
        .into_iter()
        .map(|Wanted { app, revision }| {
            let recorded = recorded(&app.name);
            let from = recorded
                .deployed
                .or_else(|| recorded.last_state.as_ref().and_then(|text| text.parse().ok()));
            let action = match selection.leaves_alone(&app) {
                Some(reason) => Action::Skip(reason),
                None => match decide(&app, revision, recorded, selection.force) {
                    Action::Deploy(_) if selection.rollback => Action::Deploy(Reason::RolledBack),
                    action => action,
                },
            };
            let on_failure = selection.on_failure.or(app.on_failure).unwrap_or(selection.policy);
            Step { app, revision, from, action, on_failure }
        })
        .collect();
    Plan { steps }
}

/// In the order they have, but each after those it needs. In a circle, which a manifest cannot
/// have, the order stays.
fn in_order(wanted: Vec<Wanted>) -> Vec<Wanted> {
    let places: HashMap<AppName, usize> =
        wanted.iter().enumerate().map(|(place, one)| (one.app.name.clone(), place)).collect();
    let mut missing: Vec<usize> = vec![0; wanted.len()];
    let mut needed_by: Vec<Vec<usize>> = vec![Vec::new(); wanted.len()];
    for (place, one) in wanted.iter().enumerate() {
        for &needed in one.app.needs.iter().filter_map(|name| places.get(name)) {
            missing[place] += 1;
            needed_by[needed].push(place);
        }
    }
    let mut ready: BTreeSet<usize> = (0..wanted.len()).filter(|&at| missing[at] == 0).collect();
    let mut waiting: Vec<Option<Wanted>> = wanted.into_iter().map(Some).collect();
    let mut ordered = Vec::with_capacity(waiting.len());
    while let Some(place) = ready.pop_first() {
        ordered.extend(waiting[place].take());
        for &after in &needed_by[place] {
            missing[after] -= 1;
            if missing[after] == 0 {
                ready.insert(after);
            }
        }
    }
    ordered.extend(waiting.into_iter().flatten());
    ordered
}

fn decide(app: &App, revision: Revision, recorded: Recorded, force: bool) -> Action {
    if force || app.force {
        return Action::Deploy(Reason::Forced);
    }
    if let Some(why) = recorded.damaged {
        return Action::Deploy(Reason::Damaged { why });
    }
    if let Some(attempted) = recorded.attempted {
        return Action::Deploy(Reason::Unfinished { attempted });
    }
    let Some(deployed) = recorded.deployed else {
        return match recorded.last_state {
            None => Action::Deploy(Reason::New),
            Some(text) if names(&text, revision) || text == app.release.to_string() => Action::Keep,
            Some(_) => Action::Deploy(Reason::Changed),
        };
    };
    // Both records are written together, so a difference is somebody else's doing and
    // neither can be believed.
    if let Some(text) = recorded.last_state.filter(|text| !names(text, deployed)) {
        return Action::Deploy(Reason::Disputed { last_state: text });
    }
    if deployed != revision {
        return Action::Deploy(Reason::Changed);
    }
    match recorded.source {
        Some(from) if from != app.source.to_string() => {
            Action::Deploy(Reason::SourceChanged { from })
        }
        _ => Action::Keep,
    }
}

fn names(text: &str, revision: Revision) -> bool {
    text.parse() == Ok(revision)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::{FileExists, RepoUrl, Symlinks, When};

    pub(crate) fn revision(n: u8) -> Revision {
        Revision::from_bytes([n; 20])
    }

    pub(crate) fn app(name: &str, n: u8) -> App {
        App {
            name: name.parse().unwrap(),
            source: RepoUrl::File(format!("/srv/{name}.git").into()),
            release: Release::Commit(revision(n)),
            enabled: true,
            when: When::default(),
            needs: Vec::new(),
            force: false,
            path: "".into(),
            appspec: None,
            env: Vec::new(),
            file_exists: FileExists::Disallow,
            skip_events: Vec::new(),
            export_ignore: true,
            symlinks: Symlinks::Safe,
            release_file: None,
            checks: Vec::new(),
            timeout: None,
            on_failure: None,
            verify: None,
            submodules: false,
            lfs: false,
        }
    }

    fn action(app: App, recorded: &Recorded, selection: &Selection) -> Action {
        let wanted = vec![Wanted { revision: revision(1), app }];
        plan(wanted, |_| recorded.clone(), selection).steps.remove(0).action
    }

    #[test]
    fn each_case_has_its_reason() {
        let deployed = |n| Recorded { deployed: Some(revision(n)), ..Recorded::default() };
        let state = |text: &str| Recorded { last_state: Some(text.into()), ..Recorded::default() };
        let one = revision(1).to_string();
        let cases: Vec<(Recorded, Action)> = vec![
            (Recorded::default(), Action::Deploy(Reason::New)),
            (deployed(1), Action::Keep),
            (deployed(2), Action::Deploy(Reason::Changed)),
            (
                Recorded { attempted: Some(revision(2)), ..deployed(1) },
                Action::Deploy(Reason::Unfinished { attempted: revision(2) }),
            ),
            (Recorded { source: Some("file:///srv/api.git".into()), ..deployed(1) }, Action::Keep),
            (
                Recorded { source: Some("file:///srv/old.git".into()), ..deployed(1) },
                Action::Deploy(Reason::SourceChanged { from: "file:///srv/old.git".into() }),
            ),
            (
                Recorded { damaged: Some("empty".into()), ..deployed(1) },
                Action::Deploy(Reason::Damaged { why: "empty".into() }),
            ),
            (state(&one), Action::Keep),
            (state(&one.to_uppercase()), Action::Keep),
            (state("v1"), Action::Deploy(Reason::Changed)),
            (Recorded { last_state: Some(one.clone()), ..deployed(1) }, Action::Keep),
            (
                Recorded { last_state: Some("v1".into()), ..deployed(1) },
                Action::Deploy(Reason::Disputed { last_state: "v1".into() }),
            ),
        ];
        for (recorded, expected) in cases {
            assert_eq!(
                action(app("api", 1), &recorded, &Selection::default()),
                expected,
                "{recorded:?}"
            );
        }
    }

    #[test]
    fn force_and_selection() {
        let current = Recorded { deployed: Some(revision(1)), ..Recorded::default() };
        let forced = Selection { force: true, ..Selection::default() };
        assert_eq!(action(app("api", 1), &current, &forced), Action::Deploy(Reason::Forced));
        let only = vec!["web".parse().unwrap()];
        let other = Selection { only, ..forced.clone() };
        assert_eq!(action(app("api", 1), &current, &other), Action::Skip(SkipReason::NotSelected));
        let disabled = App { enabled: false, ..app("api", 1) };
        assert_eq!(action(disabled, &current, &forced), Action::Skip(SkipReason::Disabled));
    }

    #[test]
    fn what_is_needed_comes_first_and_the_rest_stays_in_order() {
        let order = |needs: &[(&str, &[&str])]| {
            let wanted = needs.iter().map(|(name, needs)| {
                let needs = needs.iter().map(|name| name.parse().unwrap()).collect();
                Wanted { app: App { needs, ..app(name, 1) }, revision: revision(1) }
            });
            let plan = plan(wanted.collect(), |_| Recorded::default(), &Selection::default());
            plan.steps.iter().map(|step| step.app.name.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(order(&[("a", &[]), ("b", &[]), ("c", &[])]), "a b c");
        assert_eq!(order(&[("a", &["c"]), ("b", &[]), ("c", &[]), ("d", &[])]), "b c a d");
        assert_eq!(order(&[("a", &["d", "b"]), ("b", &["d"]), ("c", &[]), ("d", &[])]), "c d b a");
        assert_eq!(order(&[("a", &["a"]), ("b", &["x"])]), "b a");
    }

    #[test]
    fn a_release_that_0_3_1_recorded_as_text_is_not_redeployed() {
        let named = App { release: Release::Name("v1.2".parse().unwrap()), ..app("api", 1) };
        let recorded = Recorded { last_state: Some("v1.2".into()), ..Recorded::default() };
        assert_eq!(action(named, &recorded, &Selection::default()), Action::Keep);
    }
}
