//! Tells a program or a webhook that a run ended. Bounded in time, and never a reason for
//! the run to end otherwise.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::{RepoUrl, Secret};
use crate::manifest::reporting::{Notify, Occasion, Place, Receiver};
use crate::mirror::credentials::{self, read_secret};
use crate::mirror::proxy;
use crate::process::{Command, Interrupt, describe_exit};
use crate::web;

/// From SIGTERM to SIGKILL for a program that takes too long.
const KILL_AFTER: Duration = Duration::from_millis(200);

/// What a receiver's URL or program is looked up with.
pub struct World<'a> {
    /// A variable of this process.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Variables that are not passed on to programs.
    pub hidden: &'a [OsString],
    /// Whoever ends this run.
    pub interrupt: &'a Interrupt,
    /// Gets each line that a program prints.
    pub log: &'a dyn Fn(&str),
    /// Gets what a person should know.
    pub warn: &'a dyn Fn(String),
}

/// How a run ended, as far as receivers choose by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// With exit code 0.
    pub well: bool,
    /// It deployed something, or tried to.
    pub changed: bool,
}

/// Why somebody was not told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program failed, or took too long.
    #[error("`{program}`: {how}")]
    Program {
        /// It.
        program: String,
        /// How it ended.
        how: String,
    },
    /// The webhook's URL is not where it should be.
    #[error("no URL in {0}")]
    NoUrl(String),
    /// The file with the webhook's URL cannot be read.
    #[error(transparent)]
    File(#[from] credentials::Error),
    /// The proxy that the environment names cannot be used.
    #[error(transparent)]
    Proxy(#[from] proxy::Error),
    /// The webhook did not answer.
    #[error("{at}")]
    Web {
        /// The webhook's host.
        at: String,
        /// Why.
        source: web::Error,
    },
    /// The webhook answered that it did not take it.
    #[error("{at} answered with status {status}")]
    Status {
        /// The webhook's host.
        at: String,
        /// The HTTP status.
        status: u16,
    },
}

/// Whether this receiver wants to know of a run that ended so.
pub fn wanted(notify: &Notify, ended: Ended) -> bool {
    notify.on.iter().any(|occasion| match occasion {
        Occasion::Always => true,
        Occasion::Failure => !ended.well,
        Occasion::Success => ended.well,
        Occasion::Change => ended.changed,
    })
}

/// Tells one receiver. `document` is the run's report in JSON; it may take `most` at most.
///
/// # Errors
/// It was not told, or nobody knows.
pub fn send(
    notify: &Notify,
    document: &str,
    most: Duration,
    world: &World<'_>,
) -> Result<(), Error> {
    let within = notify.within.min(most);
    match &notify.receiver {
        Receiver::Command(words) => run(words, document, within, world),
        Receiver::Webhook(place) => post(&url(place, world)?, document, within, world),
    }
}

fn run(words: &[String], document: &str, within: Duration, world: &World<'_>) -> Result<(), Error> {
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    let mut command = Command::new(program)
        .args(arguments)
        .current_dir("/")
        .stdin_bytes(document)
        .deadline(Some(within))
        .kill_after(KILL_AFTER);
    for name in world.hidden {
        command = command.env_remove(name);
    }
    let finished = command.run(world.interrupt, &mut |line| {
        (world.log)(&String::from_utf8_lossy(line.bytes));
    });
    if finished.success() {
        return Ok(());
    }
    Err(Error::Program { program: program.clone(), how: describe_exit(&finished) })
}

fn url(place: &Place, world: &World<'_>) -> Result<Secret, Error> {
    let (text, origin) = match place {
        Place::Url(url) => (url.clone(), String::new()),
        Place::Env(name) => {
            ((world.variable)(name).unwrap_or_default(), format!("the variable `{name}`"))
        }
        Place::File(path) => {
            let text = read_secret("the webhook's file", path, world.warn)?;
            (text, format!("`{}`", path.display()))
        }
    };
    let text = text.trim();
    let usable = ["https://", "http://"].iter().any(|scheme| text.starts_with(scheme))
        && !text.contains(char::is_whitespace);
    if usable { Ok(Secret::new(text.to_owned())) } else { Err(Error::NoUrl(origin)) }
}

fn post(url: &Secret, document: &str, within: Duration, world: &World<'_>) -> Result<(), Error> {
    // The path of such a URL is its secret; the host is not.
    let (scheme, rest) = url.expose().split_once("://").unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let at = format!("the webhook at {host}");
    let there = RepoUrl::Https { authority: host.to_ascii_lowercase(), path: String::new() };
    let proxied = scheme.eq_ignore_ascii_case("https");
    let proxy = if proxied { proxy::from_environment(&there, world.variable)? } else { None };
    let request = web::Request {
        url: url.clone(),
        json: Some(document.to_owned()),
        within,
        proxy: proxy.map(|proxy| proxy.with_secrets()),
        ca_bundle: (world.variable)("SSL_CERT_FILE").map(PathBuf::from),
    };
    match web::send(&request, world.interrupt) {
        Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
        Ok(answer) => Err(Error::Status { at, status: answer.status }),
        Err(source) => Err(Error::Web { at, source }),
    }
}
