//! Git's credential helpers: programs that are asked with a few lines `key=value` on their
//! input and answer likewise (gitcredentials(7), git-credential(1)).
//!
//! A helper is asked with the repository's path first, and without it if it knows nothing
//! then: some keep a credential for each repository, and most, as git does not tell them the
//! path unless it is configured to, one for the host.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;

use super::command::{Problem, command, output};
use super::{Error, World};
use crate::domain::{RepoUrl, Secret};
use crate::process::Stream;
use crate::sync::lock;

/// What the helpers of a run answered.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<HashMap<Question, Answer>>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    words: Vec<String>,
    username: Option<String>,
    url: RepoUrl,
}

/// A user name and a password, and what the helper wants to be reminded of.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) username: Option<String>,
    pub(super) password: Secret,
    /// The lines it was asked with.
    asked: String,
    /// Seconds since 1970.
    expires: Option<i64>,
    refresh: Option<Secret>,
    /// It was told that the password is good.
    praised: bool,
}

impl Answers {
    /// Asks the helper, unless it has answered already.
    ///
    /// # Errors
    /// It fails, does not answer in time, or knows nothing.
    pub(super) fn ask(
        &self,
        words: &[String],
        username: Option<&str>,
        world: &World<'_>,
    ) -> Result<Answer, Error> {
        let url = &world.remote.url;
        let question = question(words, username, url);
        // Not held while it works: helpers may be asked in parallel.
        if let Some(answer) = lock(&self.0).get(&question).filter(|answer| !answer.has_expired()) {
            return Ok(answer.clone());
        }
        let RepoUrl::Https { authority, path } = url else {
            return Err(Error::NoPassword { program: name(words), url: url.clone(), why: "" });
        };
        let host = format!("protocol=https\nhost={authority}\n");
        let user = username.map(|name| format!("username={name}\n")).unwrap_or_default();
        let with_path = format!("{host}path={path}\n{user}");
        let mut found = get(words, &with_path, world)?;
        if matches!(found, Got::Nothing) {
            found = get(words, &format!("{host}{user}"), world)?;
        }
        let why = match found {
            Got::Answer(answer) if answer.has_expired() => " that has not expired",
            Got::Answer(answer) => {
                lock(&self.0).insert(question, answer.clone());
                return Ok(answer);
            }
            Got::Nothing => "",
            Got::Quit => " and wants nobody else to be asked",
        };
        Err(Error::NoPassword { program: name(words), url: url.clone(), why })
    }

    /// Tells the helper whether the server took what it answered, as git does: `store` once,
    /// or `erase`.
    pub(super) fn tell(
        &self,
        words: &[String],
        username: Option<&str>,
        accepted: bool,
        world: &World<'_>,
    ) {
        let question = question(words, username, &world.remote.url);
        let answer = if accepted {
            match lock(&self.0).get_mut(&question) {
                Some(answer) if !answer.praised => {
                    answer.praised = true;
                    Some(answer.clone())
                }
                _ => None,
            }
        } else {
            lock(&self.0).remove(&question)
        };
        let Some(answer) = answer else { return };
        let action = if accepted { "store" } else { "erase" };
        if let Err(error) = run(words, action, &answer.reminder(), world) {
            (world.warn)(format!("{error} (it was told to `{action}` what it knew)"));
        }
    }
}

fn question(words: &[String], username: Option<&str>, url: &RepoUrl) -> Question {
    let username = username.map(str::to_owned);
    Question { words: words.to_vec(), username, url: url.clone() }
}

fn name(words: &[String]) -> String {
    words.first().cloned().unwrap_or_default()
}

impl Answer {
    fn has_expired(&self) -> bool {
        self.expires.is_some_and(|at| at <= jiff::Timestamp::now().as_second())
    }

    /// The lines that say what is to be stored or erased.
    fn reminder(&self) -> String {
        let mut lines: String = self
            .asked
            .split_inclusive('\n')
            .filter(|line| !line.starts_with("username="))
            .collect();
        if let Some(name) = &self.username {
            let _ = writeln!(lines, "username={name}");
        }
        let _ = writeln!(lines, "password={}", self.password.expose());
        if let Some(at) = self.expires {
            let _ = writeln!(lines, "password_expiry_utc={at}");
        }
        if let Some(token) = &self.refresh {
            let _ = writeln!(lines, "oauth_refresh_token={}", token.expose());
        }
        lines
    }
}

/// What a helper said.
enum Got {
    Answer(Answer),
    Nothing,
    Quit,
}

fn get(words: &[String], asked: &str, world: &World<'_>) -> Result<Got, Error> {
    let text = run(words, "get", asked, world)?;
    let failed = |how: &str| Error::Helper { program: name(words), how: how.to_owned() };
    let mut answer = Answer {
        username: None,
        password: Secret::new(String::new()),
        asked: asked.to_owned(),
        expires: None,
        refresh: None,
        praised: false,
    };
    let mut quit = false;
    for line in text.lines().take_while(|line| !line.is_empty()) {
        let (key, value) =
            line.split_once('=').ok_or_else(|| failed("printed a line that is not `key=value`"))?;
        if value.chars().any(char::is_control) {
            return Err(failed("answered with control characters"));
        }
        match key {
            "username" if value.contains(':') => {
                return Err(failed("answered with a colon in the user name"));
            }
            "username" if !value.is_empty() => answer.username = Some(value.to_owned()),
            "password" => answer.password = Secret::new(value.to_owned()),
            "password_expiry_utc" => answer.expires = value.parse().ok(),
            "oauth_refresh_token" => answer.refresh = Some(Secret::new(value.to_owned())),
            "quit" => quit = matches!(value, "1" | "true" | "yes" | "on"),
            // Another host or path is not for a helper to say; the rest is not of use here.
            _ => {}
        }
    }
    Ok(if quit {
        Got::Quit
    } else if answer.password.expose().is_empty() {
        Got::Nothing
    } else {
        Got::Answer(answer)
    })
}

/// Runs the helper; what it prints is never shown.
fn run(words: &[String], action: &str, input: &str, world: &World<'_>) -> Result<String, Error> {
    let name = name(words);
    let command = command(&program(&name, world), world)
        .args(words.iter().skip(1))
        .arg(action)
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin_bytes(format!("{input}\n"));
    output(command, world).map_err(|problem| match problem {
        Problem::Interrupted(signal) => Error::Interrupted(signal),
        Problem::Failed(how) => Error::Helper { program: name, how },
    })
}

/// Git's own helpers are not in `PATH` but where git keeps its parts.
fn program(name: &str, world: &World<'_>) -> String {
    let there = |directory: &Path| directory.join(name).is_file();
    let path = (world.variable)("PATH").unwrap_or_default();
    if name.contains('/')
        || !name.starts_with("git-credential-")
        || path.split(':').map(Path::new).any(there)
    {
        return name.to_owned();
    }
    let mut parts = (world.variable)("GIT_EXEC_PATH");
    if parts.is_none() {
        let mut said = String::new();
        let finished = command("git", world).arg("--exec-path").run(world.interrupt, &mut |line| {
            if line.stream == Stream::Stdout {
                said = String::from_utf8_lossy(line.bytes).into_owned();
            }
        });
        parts = finished.success().then_some(said);
    }
    match parts.filter(|parts| there(Path::new(parts))) {
        Some(parts) => format!("{parts}/{name}"),
        None => name.to_owned(),
    }
}
