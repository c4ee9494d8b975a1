//! From a reference to a secret to the secret itself.

mod github_app;
mod helper;
mod jwt;

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Failure, Remote};
use crate::domain::{RepoUrl, Secret};
use crate::hosts::Auth;
use crate::process::{self, Command, Interrupt, Outcome, Stream};

/// How long a command that prints a secret may take.
const COMMAND_TIME: Duration = Duration::from_secs(30);
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
    Key {
        /// In OpenSSH's or PEM format.
        private: Secret,
        /// What decrypts it.
        passphrase: Option<Secret>,
    },
    /// The keys of an ssh-agent.
    Agent {
        /// Its socket.
        socket: PathBuf,
        /// The public key file of the key to offer; all of them otherwise.
        key: Option<PathBuf>,
    },
}

/// Why a credential could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable that is not set, or empty.
    #[error("the variable `{0}` that should hold the token is not set")]
    NotSet(String),
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
    /// Not a private key.
    #[error("{origin} {problem}")]
    NotAKey {
        /// Where it came from.
        origin: String,
        /// What is wrong with it.
        problem: &'static str,
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
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotSet(name) => format!(
                "set `{name}` where multideployer is started; the CodeDeploy agent may strip the environment of hooks, so a file or a command is safer"
            ),
            Self::Read { .. } => "check that the file is there and readable by this user".into(),
            Self::Empty(_) | Self::NotAToken(..) => "put the token alone into it, on one line".into(),
            Self::NotAKey { .. } => "give an unencrypted or passphrase-provided private key in OpenSSH or PEM format".into(),
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

/// What was had in this run: tokens of GitHub Apps and answers of helpers, in memory only.
#[derive(Debug, Default)]
pub struct Kept {
    tokens: github_app::Tokens,
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
            let text = text.ok_or_else(|| Error::NotSet(name.clone()))?;
            Proof::Token(token(&text, true, &origin)?)
        }
        Auth::TokenFile(path) => {
            let text = read_secret("the token file", path, world.warn)?;
            Proof::Token(token(&text, false, &origin)?)
        }
        Auth::TokenCommand(argv) => Proof::Token(token(&printed(argv, world)?, false, &origin)?),
        Auth::GithubApp(app) => Proof::Token(world.kept.tokens.token(app, world)?),
        Auth::CredentialHelper(words) => {
            let answer = world.kept.answers.ask(words, username.as_deref(), world)?;
            username = answer.username.or(username);
            Proof::Token(answer.password)
        }
        Auth::SshKeyFile(path) => {
            let text = read_secret("the private key", path, world.warn)?;
            Proof::Key { private: key(&text, &origin)?, passphrase: None }
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
        _ => {}
    }
}

/// A text as a token: trimmed, and nothing in it that a token cannot hold. What somebody
/// wrote himself may be a password with spaces in it; what is in a file or printed by a
/// command with spaces in it is most likely something else.
fn token(text: &str, spaces: bool, origin: &str) -> Result<Secret, Error> {
    let text = text.trim();
    let wrong = |what| Err(Error::NotAToken(origin.to_owned(), what));
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

/// A text as a private key, refused early with the exact reason: libssh2 has one message
/// for all of them.
fn key(text: &str, origin: &str) -> Result<Secret, Error> {
    let text = text.trim();
    let problem = if text.is_empty() {
        "is empty"
    } else if text.starts_with("ssh-") || text.starts_with("ecdsa-") || text.starts_with("sk-") {
        "is a public key; the private one is needed"
    } else if text.starts_with("PuTTY-User-Key-File") {
        "is in PuTTY's format; convert it with `puttygen -O private-openssh-new`"
    } else if !text.starts_with("-----BEGIN ") {
        "is not a private key in OpenSSH or PEM format"
    } else if text.starts_with("-----BEGIN PUBLIC KEY") || text.starts_with("-----BEGIN CERT") {
        "is not a private key"
    } else if !text.lines().last().is_some_and(|line| line.starts_with("-----END ")) {
        "is cut off"
    } else {
        // libssh2 wants the line feed at the end.
        return Ok(Secret::new(format!("{text}\n")));
    };
    Err(Error::NotAKey { origin: origin.to_owned(), problem })
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
    let file = fs_err::File::open(path).map_err(failed)?;
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
    io::read_to_string(file).map_err(failed)
}

/// A command with a bounded time that sees no other secret, and knows its home also where the
/// agent's service has none.
fn command(program: &str, world: &World<'_>) -> Command {
    let mut command = Command::new(program).deadline(Some(COMMAND_TIME));
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
fn printed(argv: &[String], world: &World<'_>) -> Result<String, Error> {
    let program = argv.first().cloned().unwrap_or_default();
    let mut output = Vec::new();
    let command = command(&program, world).args(argv.iter().skip(1));
    let finished = command.run(world.interrupt, &mut |line| {
        if line.stream == Stream::Stdout && output.len() <= LONGEST {
            output.extend_from_slice(line.bytes);
            if !line.continues {
                output.push(b'\n');
            }
        }
    });
    if let Outcome::Interrupted(signal) = finished.outcome {
        return Err(Error::Interrupted(signal));
    }
    let failed = |how: String| Error::Command { program: program.clone(), how };
    if !finished.success() {
        return Err(failed(process::describe_exit(&finished)));
    }
    String::from_utf8(output).map_err(|_| failed("printed what is not UTF-8".into()))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::mirror::{Limits, Trust};

    fn resolved(auth: &Auth) -> (Result<Option<Credential>, Error>, Vec<String>) {
        let warnings = RefCell::new(Vec::new());
        let interrupt = Interrupt::new();
        let url = RepoUrl::Https { authority: "git.example.com".into(), path: "a/b.git".into() };
        let remote = Remote {
            url,
            credential: None,
            trust: Trust::default(),
            limits: Limits::default(),
            interrupt: interrupt.clone(),
            proxy: None,
            plain: false,
        };
        let world = World {
            remote: &remote,
            peers: &Vec::new,
            kept: &Kept::default(),
            variable: &|name| (name == "TOKEN").then(|| " ghs_abc \n".to_owned()),
            hidden: &["PATH".into()],
            interrupt: &interrupt,
            warn: &|text| warnings.borrow_mut().push(text),
        };
        let result = resolve(auth, None, &world);
        (result, warnings.into_inner())
    }

    fn secret(auth: &Auth) -> String {
        match resolved(auth).0.unwrap().unwrap().proof {
            Proof::Token(secret) | Proof::Key { private: secret, .. } => secret.expose().to_owned(),
            Proof::Agent { .. } => panic!("an agent"),
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
        for text in ["", " \n", "hunter2 hunter3", "hunter2\nhunter3", "hunter2\u{7}"] {
            let file = text_file(text, 0o600);
            let error = resolved(&Auth::TokenFile(file.path().into())).0.unwrap_err();
            let shown = format!("{error} {error:?} {:?}", error.hint());
            assert!(!shown.contains("hunter"), "{shown}");
        }
        let missing = resolved(&Auth::TokenEnv("OTHER".into())).0.unwrap_err();
        assert!(missing.to_string().contains("`OTHER`"));
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
    fn what_is_no_private_key_is_told_exactly() {
        for (text, word) in [
            ("", "empty"),
            ("ssh-ed25519 AAAA x", "public"),
            ("hello", "not a private key"),
            ("PuTTY-User-Key-File-2: ssh-rsa", "PuTTY"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "cut off"),
        ] {
            let file = text_file(text, 0o600);
            let error = resolved(&Auth::SshKeyFile(file.path().into())).0.unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
