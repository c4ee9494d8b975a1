//! An ssh-agent: which keys it has, and signatures made by it.
//!
//! libssh2 and libgit2 know agents too, but wait for one for ever, and take the keys as they
//! come; a confirmation that nobody gives would hold a deployment up until its deadline.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::wire::{self, Fields, fingerprint, kind_of};
use crate::hosts::AgentKey;
use crate::process::Interrupt;

/// How long it may take to answer, a person's confirmation included.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Keys that are offered when none is named; sshd ends a connection after six by default.
pub(super) const OFFERED: usize = 5;
/// More than any answer has.
const LONGEST: usize = 1 << 18;

// Of the agent protocol.
const FAILURE: u8 = 5;
const LIST: u8 = 11;
const KEYS: u8 = 12;
const SIGN: u8 = 13;
const SIGNATURE: u8 = 14;
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

/// A key that an agent holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The public key as it goes over the wire.
    pub blob: Vec<u8>,
    /// What the agent calls it.
    pub comment: String,
}

impl Identity {
    /// `ssh-ed25519`, …
    pub fn kind(&self) -> String {
        kind_of(&self.blob).unwrap_or_else(|| "unknown".into())
    }

    /// `SHA256:…`
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.blob)
    }

    /// As messages name it.
    pub(super) fn shown(&self) -> String {
        format!("{} {}", self.kind(), self.fingerprint())
    }
}

/// What is wrong with an agent, as the end of a sentence that begins with which one.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// `SSH_AUTH_SOCK` is not set.
    #[error("cannot be found: the variable is not set")]
    NoSocket,
    /// Nothing listens.
    #[error("cannot be reached at `{}`: {reason}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It does not answer, or not as an agent does.
    #[error("{0}")]
    Answer(String),
    /// It has no keys.
    #[error("holds no keys")]
    Empty,
    /// It has others.
    #[error("does not hold the key {wanted}; it has {}", held.join(", "))]
    NotThere {
        /// What was asked for.
        wanted: String,
        /// What it has.
        held: Vec<String>,
    },
    /// A signal came.
    #[error("was not waited for: ended by a signal")]
    Interrupted(i32),
}

impl Problem {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::NoSocket => "name the agent's socket with `ssh_agent: {socket: PATH}`: hooks of the CodeDeploy agent do not get SSH_AUTH_SOCK",
            Self::Unreachable { .. } => "check that the agent runs, and that this user may use its socket",
            Self::Answer(_) => "`ssh-add -l` with SSH_AUTH_SOCK set to this socket shows whether it works",
            Self::Empty => "add a key with `ssh-add`; an agent forgets its keys when it ends",
            Self::NotThere { .. } => "add the key with `ssh-add`, or name one that is there",
            Self::Interrupted(_) => "run it again",
        }
        .to_owned()
    }
}

/// The keys to offer: the one that is named, else the agent's own, in its order.
pub(super) fn choose(
    socket: Option<PathBuf>,
    key: Option<&AgentKey>,
    interrupt: &Interrupt,
) -> Result<(PathBuf, Vec<Identity>), Problem> {
    let socket = socket.filter(|path| !path.as_os_str().is_empty()).ok_or(Problem::NoSocket)?;
    let mut keys = Agent::connect(&socket, interrupt, PATIENCE)?.keys()?;
    if keys.is_empty() {
        return Err(Problem::Empty);
    }
    let Some(key) = key else { return Ok((socket, keys)) };
    let held = keys.iter().map(Identity::shown).collect();
    keys.retain(|held| is(held, key));
    if keys.is_empty() {
        let wanted = match key {
            AgentKey::Public(text) => format!("`{text}`"),
            AgentKey::Fingerprint(text) => text.clone(),
            AgentKey::Comment(text) => format!("with the comment {text:?}"),
        };
        return Err(Problem::NotThere { wanted, held });
    }
    // Comments need not be unique; each of them was named.
    Ok((socket, keys))
}

fn is(identity: &Identity, key: &AgentKey) -> bool {
    match key {
        AgentKey::Public(text) => text.split_whitespace().nth(1).is_some_and(|base64| {
            openssl::base64::decode_block(base64).is_ok_and(|blob| blob == identity.blob)
        }),
        AgentKey::Fingerprint(text) => *text == identity.fingerprint(),
        AgentKey::Comment(text) => *text == identity.comment,
    }
}

/// A connection to an agent.
pub(super) struct Agent<'a> {
    stream: UnixStream,
    interrupt: &'a Interrupt,
    patience: Duration,
}

impl<'a> Agent<'a> {
    /// Connects; each answer may take as long as `patience`.
    pub(super) fn connect(
        path: &Path,
        interrupt: &'a Interrupt,
        patience: Duration,
    ) -> Result<Self, Problem> {
        let unreachable = |error: io::Error| Problem::Unreachable {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let stream = UnixStream::connect(path).map_err(unreachable)?;
        // Short, so that a signal is noticed.
        let tick = Some(Duration::from_millis(50));
        stream.set_read_timeout(tick).map_err(unreachable)?;
        stream.set_write_timeout(Some(PATIENCE.min(patience))).map_err(unreachable)?;
        Ok(Self { stream, interrupt, patience })
    }

    /// What it holds, in its order.
    pub(super) fn keys(&mut self) -> Result<Vec<Identity>, Problem> {
        let answer = self.ask(&[LIST])?;
        let mut fields = Fields::of(&answer);
        let read = |fields: &mut Fields<'_>| {
            if fields.byte()? != KEYS {
                return None;
            }
            let count = fields.number()?;
            (0..count)
                .map(|_| {
                    let blob = fields.text()?.to_vec();
                    let comment = String::from_utf8_lossy(fields.text()?).into_owned();
                    Some(Identity { blob, comment })
                })
                .collect::<Option<Vec<_>>>()
        };
        read(&mut fields).ok_or_else(not_an_agent)
    }

    /// Signs what libssh2 wants signed. The answer is the signature as libssh2 wants it:
    /// without its kind.
    pub(super) fn sign(&mut self, key: &Identity, data: &[u8]) -> Result<Vec<u8>, Problem> {
        let kind = kind_of_signature(data).ok_or_else(not_an_agent)?;
        let flags = match kind {
            b"rsa-sha2-512" => RSA_SHA2_512,
            b"rsa-sha2-256" => RSA_SHA2_256,
            _ => 0,
        };
        let mut request = vec![SIGN];
        wire::put(&mut request, &key.blob);
        wire::put(&mut request, data);
        request.extend_from_slice(&flags.to_be_bytes());
        let answer = self.ask(&request)?;
        let refused = || {
            Problem::Answer(format!(
                "refuses to sign with its key {}: it may be locked, or want a confirmation",
                key.shown()
            ))
        };
        let mut fields = Fields::of(&answer);
        match fields.byte() {
            Some(SIGNATURE) => {}
            Some(FAILURE) => return Err(refused()),
            _ => return Err(not_an_agent()),
        }
        let mut signature = Fields::of(fields.text().ok_or_else(not_an_agent)?);
        let made = signature.text().ok_or_else(not_an_agent)?;
        if made != kind {
            return Err(Problem::Answer(format!(
                "signs as {} where {} is asked for; it is too old",
                String::from_utf8_lossy(made),
                String::from_utf8_lossy(kind)
            )));
        }
        if kind.starts_with(b"sk-") {
            // With the token's flags and counter behind it.
            return Ok(signature.rest().to_vec());
        }
        signature.text().map(<[u8]>::to_vec).ok_or_else(not_an_agent)
    }

    fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>, Problem> {
        let until = Instant::now() + self.patience;
        let broken = |error: io::Error| Problem::Answer(format!("broke off: {error}"));
        let mut message = Vec::new();
        wire::put(&mut message, request);
        self.stream.write_all(&message).map_err(broken)?;
        let mut length = [0; 4];
        self.read(&mut length, until)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > LONGEST {
            return Err(not_an_agent());
        }
        let mut answer = vec![0; length];
        self.read(&mut answer, until)?;
        Ok(answer)
    }

    fn read(&mut self, buffer: &mut [u8], until: Instant) -> Result<(), Problem> {
        let mut rest = buffer;
        while !rest.is_empty() {
            if let Some(signal) = self.interrupt.signal() {
                return Err(Problem::Interrupted(signal));
            }
            match self.stream.read(rest) {
                Ok(0) => return Err(Problem::Answer("ended without an answer".into())),
                Ok(count) => rest = rest.get_mut(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= until {
                        let seconds = self.patience.as_secs();
                        return Err(Problem::Answer(format!(
                            "does not answer within {seconds} s; it may wait for a confirmation"
                        )));
                    }
                }
                Err(error) => return Err(Problem::Answer(format!("broke off: {error}"))),
            }
        }
        Ok(())
    }
}

fn not_an_agent() -> Problem {
    Problem::Answer("does not speak the protocol of ssh-agents".into())
}

/// The kind of signature that the data of a login ask for: session, request, user, service,
/// method, a truth value, the kind.
fn kind_of_signature(data: &[u8]) -> Option<&[u8]> {
    let mut fields = Fields::of(data);
    fields.text()?;
    fields.byte()?;
    for _ in ["user", "service", "method"] {
        fields.text()?;
    }
    fields.byte()?;
    fields.text()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Something that listens, reads and says `answer`.
    fn says(answer: Vec<u8>, then_hangs: bool) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("agent");
        let listener = UnixListener::bind(&path).expect("a socket");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a caller");
            let mut request = [0; 5];
            stream.read_exact(&mut request).expect("a request");
            stream.write_all(&answer).expect("an answer");
            if then_hangs {
                let _ = stream.read(&mut request);
            }
        });
        (dir, path)
    }

    fn ask(path: &Path, patience: u64) -> Result<Vec<Identity>, Problem> {
        let interrupt = Interrupt::new();
        Agent::connect(path, &interrupt, Duration::from_millis(patience))?.keys()
    }

    #[test]
    fn what_is_no_agent_is_found_out_in_time() {
        for (answer, hangs, words) in [
            (vec![], false, "without an answer"),
            (vec![], true, "does not answer within"),
            (vec![0, 0, 0, 9, KEYS], true, "does not answer within"),
            (vec![0xff; 4], true, "does not speak"),
            (vec![0, 0, 0, 1, FAILURE], false, "does not speak"),
            (vec![0, 0, 0, 5, KEYS, 0xff, 0xff, 0xff, 0xff], false, "does not speak"),
            (vec![0, 0, 0, 9, KEYS, 0, 0, 0, 1, 0, 0, 0, 99], false, "does not speak"),
        ] {
            let (_dir, path) = says(answer.clone(), hangs);
            let problem = ask(&path, 300).expect_err("no agent");
            assert!(problem.to_string().contains(words), "{answer:?}: {problem}");
        }
    }

    #[test]
    fn no_socket_and_nobody_behind_it() {
        let interrupt = Interrupt::new();
        for none in [None, Some(PathBuf::new())] {
            let problem = choose(none, None, &interrupt).expect_err("no socket");
            assert!(matches!(problem, Problem::NoSocket), "{problem}");
        }
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("agent");
        let problem = choose(Some(path.clone()), None, &interrupt).expect_err("not there");
        assert!(problem.to_string().contains("No such file"), "{problem}");
        drop(UnixListener::bind(&path).expect("a socket"));
        let problem = choose(Some(path), None, &interrupt).expect_err("nobody listens");
        assert!(problem.to_string().contains("refused"), "{problem}");
    }

    #[test]
    fn an_agent_without_keys_says_so() {
        let (_dir, path) = says(vec![0, 0, 0, 5, KEYS, 0, 0, 0, 0], false);
        let problem = choose(Some(path), None, &Interrupt::new()).expect_err("no keys");
        assert!(matches!(problem, Problem::Empty), "{problem}");
    }
}
