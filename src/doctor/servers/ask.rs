//! What one repository says to its credential.

use std::cell::RefCell;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::super::{Patient, places};
use super::judge::{host_key, unless_ended};
use super::reach::NO_TIME;
use super::{Target, beyond};
use crate::domain::Release;
use crate::error::Failure;
use crate::files::{self, Exposed};
use crate::host::Run;
use crate::hosts::{Auth, KeyPlace, SecretPlace};
use crate::mirror::examine::{self, Listing, Seen};
use crate::mirror::{self, Progress, Remote, credentials};
use crate::report::doctor::{Finding, Status};
use crate::{host, ledger};

/// What one repository said.
pub(super) struct Asked {
    pub(super) seen: Seen,
    pub(super) credential: Vec<Finding>,
    pub(super) repository: Vec<Finding>,
    /// Of the host key, if it got that far.
    pub(super) key: Option<Finding>,
    /// The certificate was refused.
    pub(super) refused: Option<Failure>,
}

pub(super) fn ask(
    patient: &Patient<'_>,
    target: &Target<'_>,
    reached: &Result<(), String>,
    run: &Run<'_>,
) -> Asked {
    let mut asked = Asked {
        seen: Seen::default(),
        credential: Vec::new(),
        repository: Vec::new(),
        key: None,
        refused: None,
    };
    let url = &target.remote.url;
    let auth = target.auth();
    let skip = |why: &str| Finding::not_checked("repository", format!("{url}: {why}"));
    let Some(remote) = patient.limited(target.remote.clone()) else {
        asked.repository.push(skip(NO_TIME));
        return asked;
    };
    let credential = match reached {
        // Who is asked for it is most likely as far away.
        Err(why) if connects(auth) => {
            let text = format!("{}: {why}", auth.describe());
            asked.credential.push(Finding::not_checked("credential", text));
            Err(Missing)
        }
        _ => credential(patient, target, &remote, run, &mut asked.credential),
    };
    if let Err(why) = reached {
        asked.repository.push(skip(why));
        return asked;
    }
    let Ok(credential) = credential else {
        // A visitor sees the certificate or the host key all the same.
        let (seen, listed) = examine::list(&remote, &|_| ());
        asked.key = host_key(&seen, listed.as_ref().err());
        asked.seen = seen;
        if let Err(failure @ mirror::Failure::Certificate(_)) = listed {
            asked.refused = Some(failure.into());
        }
        asked.repository.push(skip("there is no credential to ask with"));
        return asked;
    };
    let remote = Remote { credential, ..remote };
    let warnings = RefCell::new(Vec::new());
    let progress = |progress: Progress| {
        if let Progress::Warning(text) = progress {
            warnings.borrow_mut().push(text);
        }
    };
    let (seen, listed) = examine::list(&remote, &progress);
    asked.key = host_key(&seen, listed.as_ref().err());
    asked.seen = seen;
    for warning in warnings.into_inner() {
        asked.repository.push(Finding::warning("repository", warning));
    }
    match listed {
        Ok(listing) => {
            let with = auth.describe();
            let count = listing.branches.len();
            let branches =
                if count == 1 { "1 branch".to_owned() } else { format!("{count} branches") };
            let wanted = wanted(patient, target, &listing);
            let text = format!("{url}: {with} may read it, {branches}{wanted}");
            let finding = Finding::ok("repository", text).fact("branches", count);
            asked.repository.push(finding.fact("url", url.to_string()));
            let limited = patient.limited(remote.clone());
            asked
                .repository
                .extend(limited.and_then(|remote| beyond::lfs(patient, target, &remote, run)));
        }
        Err(failure) if asked.key.as_ref().is_some_and(|key| key.status == Status::Problem) => {
            // Said once, for the server.
            drop(failure);
            asked.repository.push(skip("the host key is not accepted"));
        }
        Err(failure @ mirror::Failure::Certificate(_)) => {
            asked.refused = Some(failure.into());
            asked.repository.push(skip("the certificate is not accepted"));
        }
        Err(failure) => asked.repository.push(unless_ended("repository", failure)),
    }
    asked
}

/// What is known of the wanted commits without fetching them.
fn wanted(patient: &Patient<'_>, target: &Target<'_>, listing: &Listing) -> String {
    let mut known: Vec<String> = Vec::new();
    for app in &target.apps {
        let Release::Commit(wanted) = &app.release else { continue };
        let mirror = ledger::mirror_path(&patient.settings.cache_dir, &app.name);
        let held = mirror.join(format!("refs/multideployer/fetched/{wanted}")).exists();
        let branch = listing.branches.iter().find(|(_, end)| end == wanted);
        let short = wanted.short();
        let text = match branch {
            _ if held => format!("; {short} is here already"),
            Some((branch, _)) => format!("; {short} is the end of {branch}"),
            None => continue,
        };
        if !known.contains(&text) {
            known.push(text);
        }
    }
    known.concat()
}

/// The credential could not be had; findings say why.
struct Missing;

/// The secret itself, `None` for a visitor, and findings about where it is kept.
fn credential(
    patient: &Patient<'_>,
    target: &Target<'_>,
    remote: &Remote,
    run: &Run<'_>,
    findings: &mut Vec<Finding>,
) -> Result<Option<mirror::Credential>, Missing> {
    let (rule, auth) = (&target.rule, target.auth());
    let description = auth.describe();
    let warnings = RefCell::new(Vec::new());
    let warn = |text: String| warnings.borrow_mut().push(text);
    let resolved = host::credential(run, target.apps[0], remote, &warn);
    for warning in warnings.into_inner() {
        findings.push(Finding::warning("credential", warning));
    }
    if patient.deploys {
        findings.extend(auth.secret_files().into_iter().filter_map(changeable));
    }
    match resolved {
        Ok(credential) => {
            let mut shown = description;
            for file in auth.secret_files() {
                shown += &mode_of(file);
            }
            shown += &match rule.prefix.as_str() {
                "" => ": no entry of `hosts` is for it".to_owned(),
                prefix => format!(", for {prefix}"),
            };
            findings.push(Finding::ok("credential", shown));
            Ok(credential)
        }
        Err(error) => {
            findings.push(match unreadable(&error) {
                _ if patient.interrupt.signal().is_some() => {
                    Finding::not_checked("credential", format!("{description}: {error}"))
                }
                Some(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                    let text = format!("{description}: {source}");
                    patient.unseen("credential", &io::Error::new(source.kind(), text))
                }
                _ => Finding::failure("credential", &error.into()),
            });
            Err(Missing)
        }
    }
}

/// The error of the file system, if the credential's file cannot be read.
fn unreadable(error: &credentials::Error) -> Option<&io::Error> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

/// Whether another user could change a file with a secret: a deployment uses it all the same.
fn changeable(file: &Path) -> Option<Finding> {
    let Exposed { path, why, remedy } = files::exposed(file).ok()??;
    let text =
        format!("another user could change `{}`: `{}`: {why}", file.display(), path.display());
    Some(Finding::warning("credential", text).remedy(remedy))
}

fn mode_of(file: &Path) -> String {
    std::fs::metadata(file).map_or_else(
        |_| String::new(),
        |about| format!(" ({:04o}, {})", about.mode() & 0o7777, places::owner(about.uid())),
    )
}

/// Whether a program or a server is asked for the secret.
fn connects(auth: &Auth) -> bool {
    match auth {
        Auth::TokenCommand(_)
        | Auth::GithubApp(_)
        | Auth::CredentialHelper(_)
        | Auth::SshAgent { .. } => true,
        Auth::SshKey { key, passphrase } => {
            matches!(key, KeyPlace::Command(_))
                || matches!(passphrase, Some(SecretPlace::Command(_)))
        }
        Auth::None | Auth::Given { .. } | Auth::TokenEnv(_) | Auth::TokenFile(_) => false,
    }
}
