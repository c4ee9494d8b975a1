//! Programs that print a secret.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::{Error, LONGEST, World, token};
use crate::domain::Secret;
use crate::process::{self, Command, Outcome, Stream};
use crate::sync::lock;

/// The tokens that the commands of a run printed: however many apps want one, a command is run
/// once. One thread runs it; the others wait for it.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<HashMap<Vec<String>, Arc<Mutex<State>>>>);

#[derive(Debug, Default)]
struct State {
    token: Option<Secret>,
    /// The last failure: it counts for whoever waited meanwhile.
    failed: Option<(Instant, Arc<Error>)>,
}

impl Tokens {
    /// What the command prints, unless it has printed it already.
    ///
    /// # Errors
    /// It fails, does not end in time, or prints what is no token.
    pub(super) fn token(
        &self,
        argv: &[String],
        origin: &str,
        world: &World<'_>,
    ) -> Result<Secret, Error> {
        let came = Instant::now();
        let state = Arc::clone(lock(&self.0).entry(argv.to_vec()).or_default());
        let mut state = lock(&state);
        if let Some(signal) = world.interrupt.signal() {
            return Err(Error::Interrupted(signal));
        }
        if let Some(token) = &state.token {
            return Ok(token.clone());
        }
        if let Some((at, error)) = &state.failed
            && *at >= came
        {
            return Err(Error::Shared(Arc::clone(error)));
        }
        match printed(argv, world).and_then(|text| token(&text, false, origin)) {
            Ok(token) => Ok(state.token.insert(token).clone()),
            Err(Error::Interrupted(signal)) => Err(Error::Interrupted(signal)),
            Err(error) => {
                let error = Arc::new(error);
                state.failed = Some((Instant::now(), Arc::clone(&error)));
                Err(Error::Shared(error))
            }
        }
    }

    /// Forgets a token that a server refused: the command may print another one.
    pub(super) fn forget(&self, argv: &[String], refused: &Secret) {
        let state = lock(&self.0).get(argv).cloned();
        if let Some(state) = state {
            lock(&state).token.take_if(|token| token == refused);
        }
    }
}

/// A command with a bounded time that sees no other secret, and knows its home also where the
/// agent's service has none.
pub(super) fn command(program: &str, world: &World<'_>) -> Command {
    let mut command = Command::new(program).deadline(Some(world.remote.limits.command));
    for name in world.hidden {
        command = command.env_remove(name);
    }
    if (world.variable)("HOME").is_none()
        && let Ok(Some(user)) = nix::unistd::User::from_uid(nix::unistd::geteuid())
    {
        command = command.env("HOME", user.dir);
    }
    command
}

/// What a command prints on its standard output.
pub(super) fn printed(argv: &[String], world: &World<'_>) -> Result<String, Error> {
    let program = argv.first().cloned().unwrap_or_default();
    let failed = |how: String| Error::Command { program: program.clone(), how };
    let command = command(&program, world).args(argv.iter().skip(1));
    output(command, world).map_err(|problem| match problem {
        Problem::Interrupted(signal) => Error::Interrupted(signal),
        Problem::Failed(how) => failed(how),
    })
}

/// Why there is no output.
pub(super) enum Problem {
    /// A signal came.
    Interrupted(i32),
    /// What became of the program.
    Failed(String),
}

/// What a program that ended well has printed on its standard output.
pub(super) fn output(command: Command, world: &World<'_>) -> Result<String, Problem> {
    let mut output = Vec::new();
    let finished = command.run(world.interrupt, &mut |line| {
        if line.stream == Stream::Stdout && output.len() <= LONGEST {
            output.extend_from_slice(line.bytes);
            if !line.continues {
                output.push(b'\n');
            }
        }
    });
    let failed = |how: &str| Err(Problem::Failed(how.to_owned()));
    match finished.outcome {
        Outcome::Interrupted(signal) => Err(Problem::Interrupted(signal)),
        _ if !finished.success() => Err(Problem::Failed(process::describe_exit(&finished))),
        _ if output.len() > LONGEST => failed("printed more than 64 KiB"),
        _ => String::from_utf8(output).or_else(|_| failed("printed what is not UTF-8")),
    }
}
