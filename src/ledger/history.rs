//! The history: one annotated tag for each attempt at an app.

use std::fmt::Write;
use std::time::Duration;

use super::{Error, HISTORY};
use crate::domain::{AppName, Revision};

/// Ends the name of a tag that says an app was put back.
const PUT_BACK: &str = ".restore";
const RESTORED: &str = "restored";
const NOT_RESTORED: &str = "not restored";

/// One attempt at one app, as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The run's id.
    pub run: String,
    /// The app.
    pub app: AppName,
    /// What was deployed before.
    pub from: Option<Revision>,
    /// What was to be deployed.
    pub to: Revision,
    /// Where it came from.
    pub source: String,
    /// It put back what was deployed before the run.
    pub restore: bool,
    /// Why it failed, in one line; `None` if it succeeded.
    pub failure: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// The CodeDeploy deployment around this run.
    pub deployment: Option<String>,
    /// The codedeploy-local that did it.
    pub tool: String,
    /// Who ran it and where: `root@ip-10-0-0-7`.
    pub who: String,
    /// When it ended, in seconds since 1970.
    pub time: i64,
}

impl Entry {
    pub(super) fn tagger(&self) -> Result<git2::Signature<'static>, git2::Error> {
        git2::Signature::new("multideployer", &self.who, &git2::Time::new(self.time, 0))
    }

    /// The tag's text: a line for people, then `key: value` lines for [`read`].
    pub(super) fn message(&self) -> String {
        let result = self.result();
        let from = self.from.map_or_else(|| "nothing".to_owned(), |from| from.short());
        let mut text = format!("{} {from} -> {}: {result}\n\n", self.app, self.to.short());
        let mut line = |key: &str, value: &str| {
            // One line each, whatever the value holds.
            let value: String =
                value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let _ = writeln!(text, "{key}: {value}");
        };
        line("app", self.app.as_str());
        if let Some(from) = self.from {
            line("from", &from.to_string());
        }
        line("to", &self.to.to_string());
        line("result", result);
        line("seconds", &format!("{:.3}", self.took.as_secs_f64()));
        line("source", &self.source);
        if let Some(deployment) = &self.deployment {
            line("deployment", deployment);
        }
        line("tool", &self.tool);
        line("version", env!("CARGO_PKG_VERSION"));
        if let Some(failure) = &self.failure {
            line("failure", failure);
        }
        text
    }

    /// How it ended, in a word or two.
    pub fn result(&self) -> &'static str {
        match (self.restore, self.failure.is_some()) {
            (false, false) => "deployed",
            (false, true) => "failed",
            (true, false) => RESTORED,
            (true, true) => NOT_RESTORED,
        }
    }

    /// The name of its tag below [`HISTORY`]. In one run an app may be deployed and put back.
    pub(super) fn name(&self) -> String {
        let end = if self.restore { PUT_BACK } else { "" };
        format!("{}{end}", self.run)
    }

    fn parse(name: &str, tag: &git2::Tag<'_>) -> Option<Self> {
        let message = tag.message().ok()??;
        let field =
            |key: &str| message.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        let tagger = tag.tagger()?;
        Some(Self {
            run: name.strip_suffix(PUT_BACK).unwrap_or(name).to_owned(),
            app: field("app")?.parse().ok()?,
            from: field("from").and_then(|from| from.parse().ok()),
            to: field("to")?.parse().ok()?,
            source: field("source").unwrap_or_default().to_owned(),
            restore: matches!(field("result"), Some(RESTORED | NOT_RESTORED)),
            failure: (!matches!(field("result"), Some("deployed" | RESTORED)))
                .then(|| field("failure").unwrap_or("unknown").to_owned()),
            took: field("seconds")
                .and_then(|seconds| seconds.parse().ok())
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .unwrap_or_default(),
            deployment: field("deployment").map(str::to_owned),
            tool: field("tool").unwrap_or_default().to_owned(),
            who: tagger.email().unwrap_or_default().to_owned(),
            time: tagger.when().seconds(),
        })
    }
}

/// The attempts recorded in a mirror, newest first. Tags that are damaged or not ours are
/// left out.
pub fn read(repository: &git2::Repository) -> Result<Vec<Entry>, Error> {
    let list = || {
        let mut entries = Vec::new();
        for reference in repository.references_glob(&format!("{HISTORY}*"))? {
            let Ok(reference) = reference else { continue };
            let Ok(Some(name)) = reference.name().map(|name| name.strip_prefix(HISTORY)) else {
                continue;
            };
            if let Ok(tag) = reference.peel_to_tag()
                && let Some(entry) = Entry::parse(name, &tag)
            {
                entries.push(entry);
            }
        }
        Ok(entries)
    };
    let mut entries: Vec<Entry> = list().map_err(|source| Error::Ref {
        name: HISTORY.to_owned(),
        repository: repository.path().to_owned(),
        source,
    })?;
    entries.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| b.name().cmp(&a.name())));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Records, refs};

    fn entry(run: &str, from: Option<Revision>, to: Revision) -> Entry {
        Entry {
            run: run.into(),
            app: "api".parse().unwrap(),
            from,
            to,
            source: "https://git.example.com/acme/api.git".into(),
            restore: false,
            failure: None,
            took: Duration::from_millis(1500),
            deployment: Some("d-ABC".into()),
            tool: "built-in".into(),
            who: "root@host".into(),
            time: 1_700_000_000,
        }
    }

    #[test]
    fn attempt_success_and_failure_leave_what_they_should() {
        let dir = tempfile::tempdir().unwrap();
        let repository = git2::Repository::init_bare(dir.path()).unwrap();
        let commit = |text: &str| {
            let who = git2::Signature::new("a", "a@b", &git2::Time::new(0, 0)).unwrap();
            let tree = repository.treebuilder(None).unwrap().write().unwrap();
            let tree = repository.find_tree(tree).unwrap();
            let id = repository.commit(None, &who, &who, text, &tree, &[]).unwrap();
            id.to_string().parse::<Revision>().unwrap()
        };
        let (one, two) = (commit("one"), commit("two"));
        let records = Records::new(&repository);
        records.attempt(one).unwrap();
        let known = refs::read(dir.path()).unwrap();
        assert_eq!((known.attempted, known.deployed), (Some(one), None));
        records.success(&entry("r1", None, one)).unwrap();
        records.attempt(two).unwrap();
        let failed = Entry {
            failure: Some("exit 1\nin start.sh".into()),
            time: 1_700_000_001,
            ..entry("r2", Some(one), two)
        };
        records.failure(&failed).unwrap();
        let known = refs::read(dir.path()).unwrap();
        assert_eq!((known.attempted, known.deployed), (Some(two), Some(one)));
        let back = Entry { restore: true, time: failed.time, ..entry("r2", Some(one), one) };
        records.attempt(one).unwrap();
        records.success(&back).unwrap();
        let known = refs::read(dir.path()).unwrap();
        assert_eq!((known.attempted, known.deployed, known.previous), (None, Some(one), None));
        records.success(&Entry { time: 1_700_000_002, ..entry("r3", Some(one), two) }).unwrap();
        let known = refs::read(dir.path()).unwrap();
        assert_eq!((known.attempted, known.deployed, known.previous), (None, Some(two), Some(one)));
        let history = read(&repository).unwrap();
        let runs: Vec<_> = history.iter().map(|entry| entry.run.as_str()).collect();
        assert_eq!(runs, ["r3", "r2", "r2", "r1"]);
        assert_eq!(history[1], back);
        assert_eq!(history[2].failure.as_deref(), Some("exit 1 in start.sh"));
        assert_eq!(history[3], entry("r1", None, one));
    }

    #[test]
    fn a_zero_length_ref_is_replaced_by_the_next_attempt() {
        let dir = tempfile::tempdir().unwrap();
        let repository = git2::Repository::init_bare(dir.path()).unwrap();
        let who = git2::Signature::new("a", "a@b", &git2::Time::new(0, 0)).unwrap();
        let tree = repository.treebuilder(None).unwrap().write().unwrap();
        let tree = repository.find_tree(tree).unwrap();
        let id = repository.commit(None, &who, &who, "x", &tree, &[]).unwrap();
        let one: Revision = id.to_string().parse().unwrap();
        Records::new(&repository).success(&entry("r1", None, one)).unwrap();
        for name in [crate::ledger::DEPLOYED, crate::ledger::ATTEMPTED] {
            fs_err::write(dir.path().join(name), "").unwrap();
        }
        assert!(refs::read(dir.path()).unwrap().damaged.is_some());
        Records::new(&repository).attempt(one).unwrap();
        Records::new(&repository).success(&entry("r2", None, one)).unwrap();
        let known = refs::read(dir.path()).unwrap();
        assert_eq!((known.deployed, known.damaged), (Some(one), None));
    }
}
