//! From a reference to a secret to the secret itself.

mod command;
mod github_app;
mod helper;
mod jwt;

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err::os::unix::fs::OpenOptionsExt;

use super::agent::{self, Identity};
use super::private_key::{self, PrivateKey};
use super::{Failure, Remote};
use crate::domain::{RepoUrl, Secret};
use crate::hosts::{Auth, KeyPlace, SecretPlace};
use crate::process::Interrupt;
use command::printed;

/// More than any token or key has.
const LONGEST: usize = 1 << 16;

/// A secret with what belongs to it, ready to be shown to the one host it is bound to.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The user name; `None` for the usual one (`x-access-token`, or the URL's for SSH).
    pub username: Option<String>,
    /// The secret.
    pub proof: Proof,
    /// Where it came from, for messages: "the token in `GITHUB_TOKEN`".
    pub origin: String,
}

/// What proves who we are.
#[derive(Debug, Clone)]
pub enum Proof {
    /// A token or password, over HTTPS.
    Token(Secret),
    /// A private key in memory, over SSH.
    Key(Box<PrivateKey>),
    /// Keys of an ssh-agent, which signs with them.
    Agent {
        /// Its socket.
        socket: PathBuf,
        /// The keys to offer, in this order.
        keys: Vec<Identity>,
    },
}

/// Why a credential could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable that is not set, or empty.
    #[error("the variable `{0}` that should hold the {1} is not set")]
    NotSet(String, &'static str),
    /// A file that cannot be read.
    #[error("cannot read {what} `{}`", path.display())]
    Read {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing but white space.
    #[error("{0} is empty")]
    Empty(String),
    /// White space or control characters inside, or far too long: not a token.
    #[error("{0} does not look like a token: it holds {1}")]
    NotAToken(String, &'static str),
    /// More than one line: not a passphrase.
    #[error("{0} has more than one line")]
    NotAPassphrase(String),
    /// A private key that is none, or cannot be used.
    #[error("{origin} {problem}")]
    Key {
        /// Where it came from.
        origin: String,
        /// What is wrong with it.
        problem: private_key::Problem,
    },
    /// Not the private key of a GitHub App.
    #[error("{origin} {problem}")]
    NotAKey {
        /// Where it came from.
        origin: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An agent that does not give the key.
    #[error("{origin} {problem}")]
    Agent {
        /// Which.
        origin: String,
        /// What is wrong with it.
        problem: agent::Problem,
    },
    /// A command that did not do its work. Its output is not shown: it may hold the secret.
    #[error("the command `{program}` for the credential {how}")]
    Command {
        /// The program, without its arguments.
        program: String,
        /// What became of it.
        how: String,
    },
    /// A helper that did not do its work. Its output is not shown: it may hold the password.
    #[error("the credential helper `{program}` {how}")]
    Helper {
        /// The helper's program, without its arguments.
        program: String,
        /// What became of it.
        how: String,
    },
    /// A helper that knows no password.
    #[error("the helper `{program}` has no password{why} for `{url}`")]
    NoPassword {
        /// The helper's program.
        program: String,
        /// The repository.
        url: RepoUrl,
        /// More about it.
        why: &'static str,
    },
    /// GitHub gave no token.
    #[error(transparent)]
    GithubApp(#[from] github_app::Error),
    /// What another app of the same run met.
    #[error(transparent)]
    Shared(Arc<Self>),
    /// A signal came while it ran.
    #[error("ended by a signal")]
    Interrupted(i32),
}

impl Error {
    /// The signal that ended it, if one did.
    pub fn signal(&self) -> Option<i32> {
        if let Self::Shared(error) = self {
            error.signal()
        } else if let Self::Interrupted(signal) = self {
            Some(*signal)
        } else {
            None
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotSet(name, _) => format!(
                "set `{name}` where multideployer is started; the CodeDeploy agent may strip the environment of hooks, so a file or a command is safer"
            ),
            Self::Read { path, source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                let user = nix::unistd::geteuid();
                let whose = fs_err::metadata(path).map_or_else(
                    |_| "a directory above it is closed".to_owned(),
                    |found| {
                        let mode = found.mode() & 0o7777;
                        format!("its mode is {mode:04o}, its owner has the id {}", found.uid())
                    },
                );
                format!("this user (id {user}) may not read it: {whose}; `chown` it to this user and `chmod 0600` it")
            }
            Self::Read { .. } => "check that the file is there and readable by this user".into(),
            Self::Empty(_) | Self::NotAToken(..) => "put the token alone into it, on one line".into(),
            Self::NotAPassphrase(_) => "put the passphrase alone into it, on one line".into(),
            Self::Key { problem, .. } => problem.hint().to_owned(),
            Self::NotAKey { .. } => "generate a private key in the App's settings on GitHub, and put that file there".into(),
            Self::Agent { problem, .. } => problem.hint(),
            Self::Command { .. } => "run the command by hand as this user and with this environment; it must print the secret alone and exit with 0".into(),
            Self::NoPassword { url: RepoUrl::Ssh { .. }, .. } => {
                "use a `github://` or `https://` source; ssh wants a key".into()
            }
            Self::Helper { program, .. } | Self::NoPassword { program, .. } => format!(
                "see what the helper says to this user: `printf 'protocol=https\\nhost=…\\n\\n' | {program} get`"
            ),
            Self::GithubApp(error) => return error.hint(),
            Self::Shared(error) => return error.hint(),
            Self::Interrupted(_) => return None,
        })
    }
}

/// What was had in this run: tokens of GitHub Apps, what commands printed and helpers
/// answered, in memory only.
#[derive(Debug, Default)]
pub struct Kept {
    tokens: github_app::Tokens,
    printed: command::Tokens,
    answers: helper::Answers,
}

/// What resolving may use of the world.
pub struct World<'a> {
    /// The repository that the credential is for, and how its server is reached. A credential
    /// in it counts for nothing.
    pub remote: &'a Remote,
    /// The sources of this run that get the same credential.
    pub peers: &'a dyn Fn() -> Vec<RepoUrl>,
    /// What was had before in this run.
    pub kept: &'a Kept,
    /// The environment of this process.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Variables that no command may see: they hold other secrets.
    pub hidden: &'a [OsString],
    /// Ends a command.
    pub interrupt: &'a Interrupt,
    /// Takes a warning for people.
    pub warn: &'a dyn Fn(String),
}

/// Turns a reference into the secret. `None` is anonymous.
///
/// # Errors
/// See [`Error`].
pub fn resolve(
    auth: &Auth,
    username: Option<&str>,
    world: &World<'_>,
) -> Result<Option<Credential>, Error> {
    let origin = auth.describe();
    let mut username = username.map(str::to_owned);
    let proof = match auth {
        Auth::None => return Ok(None),
        Auth::Given { token: secret, .. } => Proof::Token(token(secret.expose(), true, &origin)?),
        Auth::TokenEnv(name) => {
            let text = (world.variable)(name).filter(|text| !text.trim().is_empty());
            let text = text.ok_or_else(|| Error::NotSet(name.clone(), "token"))?;
            Proof::Token(token(&text, true, &origin)?)
        }
        Auth::TokenFile(path) => {
            let text = read_secret("the token file", path, world.warn)?;
            Proof::Token(token(&text, false, &origin)?)
        }
        Auth::TokenCommand(argv) => Proof::Token(world.kept.printed.token(argv, &origin, world)?),
        Auth::GithubApp(app) => Proof::Token(world.kept.tokens.token(app, world)?),
        Auth::CredentialHelper(words) => {
            let answer = world.kept.answers.ask(words, username.as_deref(), world)?;
            username = answer.username.or(username);
            Proof::Token(answer.password)
        }
        Auth::SshKey { key, passphrase } => {
            let passphrase = passphrase.as_ref().map(|place| secret_line(place, world));
            let text = match key {
                KeyPlace::File(path) => read_secret("the private key", path, world.warn)?,
                KeyPlace::Command(argv) => printed(argv, world)?,
            };
            let key = PrivateKey::parse(&text, passphrase.transpose()?.as_ref());
            Proof::Key(Box::new(
                key.map_err(|problem| Error::Key { origin: origin.clone(), problem })?,
            ))
        }
        Auth::SshAgent { socket, key } => {
            let default = || (world.variable)("SSH_AUTH_SOCK").map(PathBuf::from);
            let found =
                agent::choose(socket.clone().or_else(default), key.as_ref(), world.interrupt);
            let (socket, keys) = found.map_err(|problem| match problem {
                agent::Problem::Interrupted(signal) => Error::Interrupted(signal),
                problem => Error::Agent { origin: origin.clone(), problem },
            })?;
            Proof::Agent { socket, keys }
        }
    };
    Ok(Some(Credential { username, proof, origin }))
}

/// Says what became of a credential that was resolved, so that nobody else is given one that
/// the server refuses, and helpers can do as they do for git. `remote` is what was reached
/// with it.
pub fn tell<T>(
    auth: &Auth,
    username: Option<&str>,
    result: Result<&T, &Failure>,
    world: &World<'_>,
) {
    let accepted = match result {
        Ok(_) => true,
        Err(failure) if failure.is_wrong_credential() => false,
        Err(_) => return,
    };
    match (auth, &world.remote.credential) {
        (Auth::CredentialHelper(words), Some(_)) => {
            world.kept.answers.tell(words, username, accepted, world);
        }
        (Auth::GithubApp(_), Some(Credential { proof: Proof::Token(token), .. })) if !accepted => {
            world.kept.tokens.forget(token);
        }
        (Auth::TokenCommand(argv), Some(Credential { proof: Proof::Token(token), .. }))
            if !accepted =>
        {
            world.kept.printed.forget(argv, token);
        }
        _ => {}
    }
}

/// A text as a token: trimmed, and nothing in it that a token cannot hold. What somebody
/// wrote himself may be a password with spaces in it; what is in a file or printed by a
/// command with spaces in it is most likely something else.
fn token(text: &str, spaces: bool, origin: &str) -> Result<Secret, Error> {
    let text = text.trim();
    let wrong = |what| Err(Error::NotAToken(origin.to_owned(), what));
    // Some editors put it at the beginning of a file, where nobody sees it.
    if text.starts_with('\u{feff}') {
        return wrong("a byte order mark");
    }
    if text.is_empty() {
        return Err(Error::Empty(origin.to_owned()));
    }
    if text.len() > LONGEST {
        return wrong("more than 64 KiB");
    }
    if text.lines().count() > 1 {
        return wrong("more than one line");
    }
    if text.chars().any(char::is_control) {
        return wrong("control characters");
    }
    if !spaces && text.chars().any(char::is_whitespace) {
        return wrong("white space");
    }
    Ok(Secret::new(text.to_owned()))
}

/// A passphrase: one line, with the spaces it has.
fn secret_line(place: &SecretPlace, world: &World<'_>) -> Result<Secret, Error> {
    let (text, origin) = match place {
        SecretPlace::Env(name) => {
            let text = (world.variable)(name).filter(|text| !text.is_empty());
            let text = text.ok_or_else(|| Error::NotSet(name.clone(), "passphrase"))?;
            (text, format!("the passphrase in the variable `{name}`"))
        }
        SecretPlace::File(path) => (
            read_secret("the passphrase file", path, world.warn)?,
            format!("the passphrase in `{}`", path.display()),
        ),
        SecretPlace::Command(argv) => {
            let program = argv.first().map_or("", String::as_str);
            (printed(argv, world)?, format!("the passphrase of the command `{program}`"))
        }
    };
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(Error::Empty(origin));
    }
    if line.contains(['\n', '\0']) {
        return Err(Error::NotAPassphrase(origin));
    }
    Ok(Secret::new(line.to_owned()))
}

/// Reads a file with a secret in it.
///
/// # Errors
/// [`Error::Read`].
pub fn read_secret(
    what: &'static str,
    path: &Path,
    warn: &dyn Fn(String),
) -> Result<String, Error> {
    let failed = |source| Error::Read { what, path: path.to_owned(), source };
    // A named pipe would keep us waiting for somebody who writes into it.
    let nonblocking = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let mut options = fs_err::OpenOptions::new();
    let file = options.read(true).custom_flags(nonblocking).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    if metadata.len() > LONGEST as u64 {
        return Err(failed(io::Error::other("it has more than 64 KiB")));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        warn(format!(
            "{what} `{}` can be read by others (mode {:04o}, owner {}): chmod 0600 it",
            path.display(),
            metadata.mode() & 0o7777,
            metadata.uid()
        ));
    }
    // Whatever its length was said to be: those of the kernel's own files is 0.
    let text = io::read_to_string(file.take(LONGEST as u64 + 1)).map_err(failed)?;
    if text.len() > LONGEST {
        return Err(failed(io::Error::other("it has more than 64 KiB")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::mirror::{Limits, Trust};

    fn resolved(auth: &Auth) -> (Result<Option<Credential>, Error>, Vec<String>) {
        let kept = Kept::default();
        in_world(&kept, |world| resolve(auth, None, world))
    }

    /// Does something in a world where commands have a second; and what was warned about.
    fn in_world<T>(kept: &Kept, act: impl FnOnce(&World<'_>) -> T) -> (T, Vec<String>) {
        let warnings = RefCell::new(Vec::new());
        let interrupt = Interrupt::new();
        let url = RepoUrl::Https { authority: "git.example.com".into(), path: "a/b.git".into() };
        let remote = Remote {
            url,
            credential: None,
            trust: Trust::default(),
            limits: Limits { command: Duration::from_secs(1), ..Limits::default() },
            interrupt: interrupt.clone(),
            proxy: None,
            plain: false,
        };
        let world = World {
            remote: &remote,
            peers: &Vec::new,
            kept,
            variable: &|name| (name == "TOKEN").then(|| " ghs_abc \n".to_owned()),
            hidden: &["PATH".into()],
            interrupt: &interrupt,
            warn: &|text| warnings.borrow_mut().push(text),
        };
        let result = act(&world);
        (result, warnings.into_inner())
    }

    fn secret(auth: &Auth) -> String {
        match resolved(auth).0.unwrap().unwrap().proof {
            Proof::Token(secret) => secret.expose().to_owned(),
            Proof::Key(_) | Proof::Agent { .. } => panic!("a key"),
        }
    }

    fn text_file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), text).unwrap();
        fs_err::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn tokens_are_trimmed_wherever_they_come_from() {
        assert_eq!(secret(&Auth::TokenEnv("TOKEN".into())), "ghs_abc");
        let file = text_file("ghs_def\r\n", 0o600);
        assert_eq!(secret(&Auth::TokenFile(file.path().into())), "ghs_def");
        let echo = ["/bin/sh", "-c", "echo noise >&2; printf 'ghs_ghi\\n'"].map(str::to_owned);
        assert_eq!(secret(&Auth::TokenCommand(echo.into())), "ghs_ghi");
        let odd = Auth::Given { token: Secret::new("a@:/#%+b".into()), origin: "`-g`" };
        assert_eq!(secret(&odd), "a@:/#%+b");
        assert!(resolved(&Auth::None).0.unwrap().is_none());
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        for text in
            ["", " \n", "hunter2 hunter3", "hunter2\nhunter3", "hunter2\u{7}", "\u{feff}hunter2"]
        {
            let file = text_file(text, 0o600);
            let error = resolved(&Auth::TokenFile(file.path().into())).0.unwrap_err();
            let shown = format!("{error} {error:?} {:?}", error.hint());
            assert!(!shown.contains("hunter"), "{shown}");
        }
        let missing = resolved(&Auth::TokenEnv("OTHER".into())).0.unwrap_err();
        assert!(missing.to_string().contains("`OTHER`"));
    }

    #[test]
    fn a_named_pipe_keeps_nobody_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let error = resolved(&Auth::TokenFile(path)).0.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("not a regular file"), "{cause}");
    }

    #[test]
    fn a_secret_that_others_can_read_is_warned_about() {
        let file = text_file("ghs_abc", 0o644);
        let (result, warnings) = resolved(&Auth::TokenFile(file.path().into()));
        assert!(result.is_ok());
        assert!(warnings[0].contains("0644"), "{warnings:?}");
        let file = text_file("ghs_abc", 0o600);
        assert_eq!(resolved(&Auth::TokenFile(file.path().into())).1, Vec::<String>::new());
    }

    #[test]
    fn a_command_does_not_see_the_variables_of_others() {
        let argv = ["/bin/sh", "-c", "/usr/bin/env | /bin/grep -c ^PATH="].map(str::to_owned);
        let error = resolved(&Auth::TokenCommand(argv.into())).0.unwrap_err();
        assert!(error.to_string().contains("exited with code 1"), "{error}");
        let argv = ["/bin/sh", "-c", "echo $HOME"].map(str::to_owned);
        assert!(secret(&Auth::TokenCommand(argv.into())).starts_with('/'));
    }

    #[test]
    fn a_command_that_fails_says_how_and_not_what_it_printed() {
        let argv = ["/bin/sh", "-c", "echo hunter2; exit 3"].map(str::to_owned);
        let error = resolved(&Auth::TokenCommand(argv.into())).0.unwrap_err();
        assert!(error.to_string().contains("exited with code 3"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[test]
    fn a_command_runs_once_however_many_want_its_token_until_that_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let script = format!("cd {} && echo x >> runs && wc -l < runs", dir.path().display());
        let auth = Auth::TokenCommand(["/bin/sh", "-c", &script].map(str::to_owned).into());
        let kept = Kept::default();
        let get = || {
            let found = in_world(&kept, |world| resolve(&auth, None, world)).0;
            let Proof::Token(token) = found.unwrap().unwrap().proof else { panic!("no token") };
            token
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(get().expose(), "1"));
            }
        });
        kept.printed.forget(&["another".to_owned()], &get());
        let Auth::TokenCommand(argv) = &auth else { panic!("no command") };
        kept.printed.forget(argv, &Secret::new("another".into()));
        assert_eq!(get().expose(), "1");
        kept.printed.forget(argv, &get());
        assert_eq!(get().expose(), "2");
    }

    #[test]
    fn commands_and_helpers_that_hang_or_flood_are_ended() {
        let shell = |script: &str| ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        for (script, word) in [("sleep 1000", "1 s"), ("yes hunter2", "1 s")] {
            for auth in [Auth::TokenCommand(shell(script)), Auth::CredentialHelper(shell(script))] {
                let started = Instant::now();
                let error = resolved(&auth).0.unwrap_err();
                assert!(started.elapsed() < Duration::from_secs(60));
                let shown = format!("{error} {error:?} {:?}", error.hint());
                assert!(shown.contains(word) && !shown.contains("hunter2"), "{shown}");
            }
        }
        for auth in [Auth::TokenCommand, Auth::CredentialHelper] {
            let error =
                resolved(&auth(shell("yes password=hunter2 | head -c 70000"))).0.unwrap_err();
            assert!(error.to_string().contains("more than 64 KiB"), "{error}");
        }
    }
}
