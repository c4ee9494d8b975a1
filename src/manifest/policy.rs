//! `policy`: what a run does as a whole.

use std::num::NonZeroU16;

use crate::diagnostic::quoted;
use crate::domain::{Deadline, OnFailure};
use crate::manifest::fields::{Fields, Findings, Keys};
use crate::yaml::Node;

/// Apps that may be prepared at a time; more would only fight for the disk.
pub const MOST_JOBS: u16 = 64;

/// What a manifest says about its runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// What happens after an app failed that does not say it itself.
    pub on_failure: OnFailure,
    /// When a run has to be over.
    pub deadline: Deadline,
    /// How many apps are prepared at a time, if it says so.
    pub jobs: Option<NonZeroU16>,
    /// What happens about apps that the manifest names no longer.
    pub removed_apps: RemovedApps,
}

/// What a run does about apps that were deployed and that the manifest names no longer. What
/// they installed stays in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RemovedApps {
    /// Nothing.
    #[default]
    Keep,
    /// It warns of each.
    Report,
}

const KEYS: Keys = Keys { first: &[], second: &["on_failure", "deadline", "jobs", "removed_apps"] };

pub(super) fn read(node: &Node, findings: &mut Findings) -> Policy {
    let Some(mut fields) = Fields::of(node, "`policy`", findings) else {
        return Policy::default();
    };
    let policy = Policy {
        on_failure: take_on_failure(&mut fields, findings).unwrap_or_default(),
        deadline: take_deadline(&mut fields, findings).unwrap_or_default(),
        jobs: take_jobs(&mut fields, findings),
        removed_apps: findings
            .take_choice(
                &mut fields,
                "removed_apps",
                &[("keep", RemovedApps::Keep), ("report", RemovedApps::Report)],
            )
            .unwrap_or_default(),
    };
    fields.finish(KEYS, findings);
    policy
}

pub(super) fn take_on_failure(
    fields: &mut Fields<'_>,
    findings: &mut Findings,
) -> Option<OnFailure> {
    findings.take_choice(
        fields,
        "on_failure",
        &[
            ("stop", OnFailure::Stop),
            ("continue", OnFailure::Continue),
            ("restore", OnFailure::Restore),
        ],
    )
}

fn take_deadline(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<Deadline> {
    match fields.peek("deadline")?.text() {
        Some("auto") => fields.take("deadline").map(|_| Deadline::Auto),
        Some("none") => fields.take("deadline").map(|_| Deadline::None),
        _ => findings.take_duration(fields, "deadline").map(Deadline::After),
    }
}

fn take_jobs(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<NonZeroU16> {
    let (text, at) = findings.take_text(fields, "jobs")?;
    let jobs = text.parse().ok().filter(|jobs: &NonZeroU16| jobs.get() <= MOST_JOBS);
    if jobs.is_none() {
        let message =
            format!("`jobs` is {}; it must be a number from 1 to {MOST_JOBS}", quoted(text));
        findings.error(Some(at), message);
    }
    jobs
}
