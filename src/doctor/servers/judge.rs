//! What was seen of a server, as findings.

use super::ask::Asked;
use crate::mirror;
use crate::mirror::examine::Seen;
use crate::report::doctor::Finding;

/// A certificate that expires sooner is warned about.
const DAYS: i32 = 14;
/// Seconds a clock may be off before it is warned about.
const OFF: i64 = 60;

pub(super) fn certificate(asked: &Asked, reached: &Result<(), String>) -> Finding {
    let shown = asked.seen.certificate.as_ref().map(|certificate| {
        let days = certificate.days_left;
        let until = match days {
            ..0 => format!("expired {} days ago", -days),
            _ => format!("expires in {days} days"),
        };
        format!("{}, issued by {}, {until}", certificate.subject, certificate.issuer)
    });
    let days = asked.seen.certificate.as_ref().map(|certificate| certificate.days_left);
    let finding = match (&asked.refused, &asked.seen.tls, shown, reached) {
        (Some(failure), _, shown, _) => {
            let mut finding = Finding::failure("tls", failure);
            finding.message += &shown.map(|shown| format!(" ({shown})")).unwrap_or_default();
            finding
        }
        (None, Some(version), Some(shown), _) => {
            let text = format!("{version}, {shown}");
            match days {
                Some(days) if days < DAYS => Finding::warning("tls", text)
                    .remedy("renew the server's certificate before it stops deployments"),
                _ => Finding::ok("tls", text),
            }
            .fact("protocol", version.clone())
        }
        (None, _, _, Err(why)) => Finding::not_checked("tls", why),
        (None, ..) => Finding::not_checked("tls", "the server did not get as far as that"),
    };
    match &asked.seen.certificate {
        Some(certificate) => finding
            .fact("subject", certificate.subject.clone())
            .fact("issuer", certificate.issuer.clone())
            .fact("days_left", certificate.days_left),
        None => finding,
    }
}

pub(super) fn host_key(seen: &Seen, failure: Option<&mirror::Failure>) -> Option<Finding> {
    if let Some(key) = &seen.host_key {
        return Some(
            Finding::ok(
                "host_key",
                format!("{} {}, accepted by {}", key.kind, key.fingerprint, key.accepted_by),
            )
            .fact("kind", key.kind.clone())
            .fact("fingerprint", key.fingerprint.clone())
            .fact("accepted_by", key.accepted_by.clone()),
        );
    }
    let failure = failure?;
    let (mirror::Failure::UnknownHostKey(key)
    | mirror::Failure::ChangedHostKey(key)
    | mirror::Failure::RevokedHostKey(key)) = failure
    else {
        return None;
    };
    let mut finding = Finding::problem("host_key", failure.to_string())
        .fact("kind", key.kind.clone())
        .fact("fingerprint", key.fingerprint.clone())
        .fact("line", key.line.clone());
    finding.remedy = failure.hint();
    Some(finding)
}

/// A deployment works with a wrong clock: certificates say when they are not good yet, and a
/// GitHub App signs by the server's.
pub(super) fn clock(ahead: Option<i64>) -> Finding {
    let Some(ahead) = ahead else {
        return Finding::not_checked("clock", "the server does not say what time it is");
    };
    let off = ahead.abs();
    let which = if ahead > 0 { "behind" } else { "ahead of" };
    let finding = if off <= OFF {
        Finding::ok("clock", format!("within {off} s of the server's"))
    } else {
        Finding::warning("clock", format!("{off} s {which} the server's"))
            .remedy("let chrony or systemd-timesyncd set this host's clock")
    };
    finding.fact("seconds", -ahead)
}

/// A failure; but when a signal ended it, it says nothing about the server.
pub(super) fn unless_ended(check: &'static str, failure: mirror::Failure) -> Finding {
    match failure {
        mirror::Failure::Interrupted(_) => Finding::not_checked(check, failure.to_string()),
        failure => Finding::failure(check, &failure.into()),
    }
}
