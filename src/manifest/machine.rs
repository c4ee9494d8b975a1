//! The machine file, `/etc/multideployer/config.yaml`: what holds for this host whatever
//! manifest it is given.

use std::path::Path;

use super::fields::{Fields, Findings, Keys};
use super::{Rejected, Version, document, hosts, reporting};
use crate::diagnostic::Diagnostic;
use crate::hosts::Hosts;
use crate::manifest::{Limits, Reporting};

/// What the machine file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Credentials, certificate authorities and host keys. A manifest's own entries win.
    pub hosts: Hosts,
    /// What is told to whom.
    pub report: Reporting,
    /// How much of the disk is left alone.
    pub limits: Limits,
    /// What this host is: an app's `when` may ask for it.
    pub labels: Vec<String>,
    /// Warnings and notes, in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

const KEYS: Keys = Keys { first: &[], second: &["hosts", "report", "limits", "labels"] };

/// Reads a machine file; an empty one says nothing. Paths are relative to `directory`.
///
/// # Errors
/// All that is wrong with the file, if anything is.
pub fn parse(text: &[u8], file: &Path, directory: &Path) -> Result<Machine, Rejected> {
    let mut findings = Findings::new(file);
    findings.version = Some(Version::V2);
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Machine::default());
    }
    let machine = read(text, directory, &mut findings);
    match machine {
        Some(machine) if !findings.any_error() => {
            Ok(Machine { warnings: findings.sorted(), ..machine })
        }
        _ => Err(Rejected { problems: findings.sorted() }),
    }
}

fn read(text: &[u8], directory: &Path, findings: &mut Findings) -> Option<Machine> {
    let root = document(text, findings)?;
    let mut fields = Fields::of(&root, "the machine file", findings)?;
    let mut machine = Machine::default();
    if let Some(node) = fields.take("hosts").filter(|node| !node.is_null()) {
        machine.hosts = hosts::read(node, directory, findings);
    }
    if let Some(node) = fields.take("report").filter(|node| !node.is_null()) {
        machine.report = reporting::read(node, directory, findings);
    }
    if let Some(node) = fields.take("limits").filter(|node| !node.is_null()) {
        machine.limits = reporting::limits(node, findings);
    }
    if let Some(node) = fields.take("labels").filter(|node| !node.is_null()) {
        let labels = findings.texts(node, "labels", true).unwrap_or_default();
        machine.labels = labels.into_iter().map(|(label, _)| label.to_owned()).collect();
    }
    fields.finish(KEYS, findings);
    Some(machine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::reporting::{Occasion, Place, Receiver};

    fn read(text: &str) -> Result<Machine, String> {
        parse(text.as_bytes(), Path::new("config.yaml"), Path::new("/etc/multideployer")).map_err(
            |rejected| {
                let line = |finding: &Diagnostic| format!("{finding}\n");
                rejected.problems.iter().map(line).collect()
            },
        )
    }

    #[test]
    fn everything_it_can_say() {
        let machine = read(
            "hosts: {git.example.com: {auth: {token_file: token}}}\n\
             labels: [web, blue]\n\
             limits: {min_free_space: 1G, mirror_max: 500M}\n\
             report:\n  \
               log: {file: /srv/m.log, format: json, max_size: 1M, keep: 2}\n  \
               metrics: {textfile: /srv/m.prom}\n  \
               notify:\n    \
                 - {command: [bin/tell, x]}\n    \
                 - {on: [always, change], webhook: {url_env: HOOK}, within: 5s}\n",
        )
        .unwrap();
        assert_eq!(machine.labels, ["web", "blue"]);
        assert_eq!(machine.hosts.rules().len(), 1);
        assert_eq!(machine.limits.min_free_space, Some(1_000_000_000));
        assert_eq!(machine.report.log.json, Some(true));
        assert_eq!(machine.report.log.max_size, Some(1_000_000));
        assert_eq!(machine.report.textfile.as_deref(), Some(Path::new("/srv/m.prom")));
        let [command, webhook] = machine.report.notify.as_slice() else { panic!("two") };
        assert_eq!(command.on, [Occasion::Failure]);
        let words = vec!["/etc/multideployer/bin/tell".to_owned(), "x".to_owned()];
        assert_eq!(command.receiver, Receiver::Command(words));
        assert_eq!(webhook.on, [Occasion::Always, Occasion::Change]);
        assert_eq!(webhook.receiver, Receiver::Webhook(Place::Env("HOOK".into())));
        assert_eq!(webhook.within.as_secs(), 5);
        assert_eq!(read(" \n"), Ok(Machine::default()));
    }

    #[test]
    fn every_mistake_has_its_place() {
        let wrong = read(
            "apps: []\n\
             limits: {min_free_space: 1T}\n\
             report:\n  \
               log: {format: xml, max_size: 1k, keep: -1}\n  \
               notify:\n    \
                 - {on: [sometimes], command: tell}\n    \
                 - {webhook: {url: 'ftp://x', url_env: A}, within: 2m}\n    \
                 - {on: [always]}\n",
        )
        .unwrap_err();
        for part in [
            "config.yaml:1:1: unknown key `apps`",
            "config.yaml:2:26: `min_free_space` is `1T`; it must be a size",
            "config.yaml:4:17: `format` is `xml`",
            "config.yaml:4:8: `max_size` is below 10k",
            "`keep` is `-1`",
            "config.yaml:6:13: `on` has `sometimes`",
            "`command` is a text; it must be a list of words",
            "`url` is not `https://",
            "exactly one of `url`, `url_env` and `url_file`",
            "`within` is more than 60s",
            "config.yaml:8:7: an entry of `notify` must have exactly one of",
        ] {
            assert!(wrong.contains(part), "{part}:\n{wrong}");
        }
    }
}
