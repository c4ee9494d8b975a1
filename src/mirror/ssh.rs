//! `git-upload-pack` over SSH, by libssh2.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use ssh2::{Channel, ErrorCode, MethodType, Session};

use super::agent::{self, Agent, Identity};
use super::credentials::{self, Proof};
use super::examine::AcceptedKey;
use super::failure::{Failure, Step, harmless};
use super::pkt::PktReader;
use super::private_key::PrivateKey;
use super::protocol::{self, Greeting, Trouble};
use super::signer::Signer;
use super::trust::KnownHosts;
use super::watch::Watch;
use super::wire::{fingerprint, kind_of};
use super::{Progress, Remote, asked_with, dial, offer};
use crate::domain::RepoUrl;

// libssh2's codes, which have no names in its binding.
const TIMEOUT: i32 = -9;
const KEY_EXCHANGE: i32 = -5;
const METHOD_NONE: i32 = -17;
const REFUSED: [i32; 3] = [-18, -19, -48];

/// How long a server may take to end what has answered already.
const CLOSING: Duration = Duration::from_secs(2);

/// A running `git-upload-pack`.
pub(super) struct Ssh<'a> {
    remote: &'a Remote,
    watch: &'a Watch,
    // Before the session: it is closed first.
    reader: PktReader<Channel>,
    writer: Channel,
    stderr: ssh2::Stream,
    session: Session,
}

/// The parts of an SSH URL.
struct Address<'a> {
    user: &'a str,
    host: &'a str,
    port: u16,
}

impl<'a> Ssh<'a> {
    /// Connects, checks the host's key, logs in, starts `git-upload-pack` and reads its
    /// greeting.
    pub(super) fn connect(
        remote: &'a Remote,
        watch: &'a Watch,
        progress: &dyn Fn(Progress),
    ) -> Result<(Self, Greeting), Failure> {
        let (session, path) = logged_in(remote, watch, progress)?;
        let failed = |error| explain(remote, watch, &error);
        let mut channel = session.channel_session().map_err(failed)?;
        // Servers that do not allow the variable answer in version 0.
        let _ = channel.setenv("GIT_PROTOCOL", "version=2");
        channel.exec(&format!("git-upload-pack {}", in_quotes(path))).map_err(failed)?;
        let (stderr, reader) = (channel.stderr(), PktReader::new(channel.clone()));
        let mut this = Self { remote, watch, reader, writer: channel, stderr, session };
        match protocol::greeting(&mut this.reader, false) {
            Ok(greeting) => Ok((this, greeting)),
            Err(trouble) => Err(this.explain(trouble, true)),
        }
    }

    /// Sends a request; the answer is read from what is returned.
    pub(super) fn ask(&mut self, body: &[u8]) -> Result<&mut PktReader<Channel>, Failure> {
        self.watch.check()?;
        let sent = self.writer.write_all(body).and_then(|()| self.writer.flush());
        match sent {
            Ok(()) => Ok(&mut self.reader),
            Err(error) => Err(self.explain(Trouble::Read(error), false)),
        }
    }

    /// What trouble with an answer means. Before the greeting an end of the stream is the
    /// server's way to say that there is no such repository, or not for us.
    pub(super) fn explain(&mut self, trouble: Trouble, before_greeting: bool) -> Failure {
        if let Some(failure) = self.watch.failure() {
            return failure;
        }
        let url = self.remote.url.clone();
        match trouble {
            Trouble::Read(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.watch.timeout(Step::Read)
            }
            Trouble::Read(error) => {
                let words = self.last_words();
                if before_greeting && !words.is_empty() {
                    let asked_with = asked_with(self.remote);
                    return Failure::NotFoundOrForbidden {
                        url,
                        asked_with,
                        remote_said: Some(words),
                    };
                }
                let detail = if words.is_empty() { error.to_string() } else { words };
                Failure::Broken { url, detail }
            }
            Trouble::Store(error) => Failure::Broken { url, detail: error.to_string() },
            Trouble::Said(words) if words.contains("object-format") => {
                Failure::ObjectFormat { url }
            }
            Trouble::Said(remote_said) => Failure::Remote { url, remote_said },
            Trouble::Strange(answer) => Failure::NotGit { url, answer },
        }
    }

    /// What the server wrote to its standard error.
    fn last_words(&mut self) -> String {
        self.session.set_timeout(2000);
        let mut words = Vec::new();
        let _ = Read::take(&mut self.stderr, 4096).read_to_end(&mut words);
        harmless(&words)
    }

    /// Says goodbye, so that the server does not log an error.
    pub(super) fn close(mut self) {
        self.session.set_timeout(1000);
        let _ = self.writer.write_all(b"0000");
        let _ = self.writer.close();
        let _ = self.session.disconnect(None, "done", None);
    }
}

/// What a program on a server printed.
pub(super) struct Printed {
    pub status: i32,
    pub stdout: Vec<u8>,
    /// The first line of what went to its standard error, made harmless.
    pub words: String,
}

/// Runs `program`, with the repository's path and `last` as its arguments, on the server of
/// `remote`; no more than `most` bytes of what it prints are read.
pub(super) fn run(
    remote: &Remote,
    watch: &Watch,
    progress: &dyn Fn(Progress),
    (program, last): (&str, &str),
    most: u64,
) -> Result<Printed, Failure> {
    let (session, path) = logged_in(remote, watch, progress)?;
    let failed = |error: ssh2::Error| explain(remote, watch, &error);
    let unread = |error: io::Error| {
        let timeout = error.kind() == io::ErrorKind::TimedOut;
        let failure = watch.failure();
        failure.unwrap_or_else(|| {
            if timeout { watch.timeout(Step::Read) } else { watch.broken(&error.to_string()) }
        })
    };
    let mut channel = session.channel_session().map_err(failed)?;
    // As git-lfs has it: not all servers are shells.
    let plain = |c: char| c.is_ascii_alphanumeric() || "._~-/+=,@:".contains(c);
    let path = if path.chars().all(plain) { path.to_owned() } else { in_quotes(path) };
    channel.exec(&format!("{program} {path} {last}")).map_err(failed)?;
    let (mut stdout, mut words) = (Vec::new(), Vec::new());
    Read::take(&mut channel, most).read_to_end(&mut stdout).map_err(unread)?;
    Read::take(&mut channel.stderr(), 4096).read_to_end(&mut words).map_err(unread)?;
    session.set_timeout(milliseconds(watch.connect_limit().min(CLOSING)));
    // One that does not end has said enough.
    let _ = channel.close().and_then(|()| channel.wait_close());
    let status = channel.exit_status().unwrap_or(-1);
    let _ = session.disconnect(None, "done", None);
    Ok(Printed { status, stdout, words: harmless(&words) })
}

/// A path as one word for the server's shell.
fn in_quotes(path: &str) -> String {
    format!("'{}'", path.replace('\'', "'\\''"))
}

/// A session with the server of `remote`, and the path of the repository there.
fn logged_in<'a>(
    remote: &'a Remote,
    watch: &Watch,
    progress: &dyn Fn(Progress),
) -> Result<(Session, &'a str), Failure> {
    let RepoUrl::Ssh { user, host, port, path } = &remote.url else {
        return Err(Failure::NotGit { url: remote.url.clone(), answer: "no SSH URL".into() });
    };
    let address = Address { user, host, port: *port };
    let known = KnownHosts::load(&remote.trust)?;
    for warning in &known.warnings {
        progress(Progress::Warning(warning.clone()));
    }
    let session = trusted_session(remote, &address, watch, &known)?;
    log_in(remote, &address, watch, &session).map_err(|failure| connecting(watch, failure))?;
    session.set_timeout(milliseconds(watch.read_limit()));
    Ok((session, path))
}

/// A session with a host whose key is known.
fn trusted_session(
    remote: &Remote,
    address: &Address<'_>,
    watch: &Watch,
    known: &KnownHosts,
) -> Result<Session, Failure> {
    let mut refused = Vec::new();
    let mut verdict = None;
    loop {
        let algorithms = known.algorithms(address.host, address.port, &refused);
        if algorithms.is_empty() {
            break;
        }
        let session = match session(remote, address, watch, &algorithms.join(",")) {
            Ok(session) => session,
            // Nothing in common but what was refused already.
            Err(Attempt::NoCommonMethod(_)) if verdict.is_some() => break,
            Err(Attempt::NoCommonMethod(failure)) => {
                return Err(no_common(remote, address, watch, &algorithms).unwrap_or(failure));
            }
            Err(Attempt::Failed(failure)) => return Err(failure),
        };
        let key = session.host_key().map(|(key, _)| key.to_vec()).unwrap_or_default();
        match known.judge(address.host, address.port, &key) {
            Ok(accepted_by) => {
                watch.eyes().see(|seen| {
                    let kind = kind_of(&key).unwrap_or_default();
                    let fingerprint = fingerprint(&key);
                    seen.host_key = Some(AcceptedKey { kind, fingerprint, accepted_by });
                });
                return Ok(session);
            }
            Err(failure) => {
                // A fingerprint does not tell its kind, so the server is asked for its other
                // keys before it is called an impostor.
                let kind = kind_of(&key).filter(|_| known.pinned());
                verdict.get_or_insert(failure);
                match kind {
                    Some(kind) if !refused.contains(&kind) => refused.push(kind),
                    _ => break,
                }
            }
        }
    }
    Err(verdict.unwrap_or_else(|| Failure::Broken {
        url: remote.url.clone(),
        detail: "the server has no host key".into(),
    }))
}

enum Attempt {
    NoCommonMethod(Failure),
    Failed(Failure),
}

fn session(
    remote: &Remote,
    address: &Address<'_>,
    watch: &Watch,
    algorithms: &str,
) -> Result<Session, Attempt> {
    let (stream, _) = dial::connect(address.host, address.port, remote.proxy.as_ref(), watch)
        .map_err(Attempt::Failed)?;
    let failed = |error: ssh2::Error| {
        let none = matches!(error.code(), ErrorCode::Session(KEY_EXCHANGE | METHOD_NONE));
        let failure = connecting(watch, explain(remote, watch, &error));
        if none { Attempt::NoCommonMethod(failure) } else { Attempt::Failed(failure) }
    };
    let mut session = Session::new().map_err(failed)?;
    session.set_timeout(milliseconds(watch.connect_limit()));
    session.set_tcp_stream(stream);
    session.method_pref(MethodType::HostKey, algorithms).map_err(failed)?;
    session.handshake().map_err(failed)?;
    Ok(session)
}

/// Why nothing could be agreed on, if it was that: the server is asked once more.
fn no_common(
    remote: &Remote,
    address: &Address<'_>,
    watch: &Watch,
    algorithms: &[&str],
) -> Option<Failure> {
    let until = Instant::now() + watch.connect_limit();
    let (stream, _) =
        dial::connect(address.host, address.port, remote.proxy.as_ref(), watch).ok()?;
    let _guard = watch.connecting(&stream, until);
    let mismatch = Box::new(offer::mismatch(stream, algorithms)?);
    Some(Failure::NoCommonAlgorithm { url: remote.url.clone(), mismatch })
}

/// Offers the credential, once.
fn log_in(
    remote: &Remote,
    address: &Address<'_>,
    watch: &Watch,
    session: &Session,
) -> Result<(), Failure> {
    let url = remote.url.clone();
    let Some(credential) = &remote.credential else {
        return Err(Failure::CredentialMissing { url });
    };
    let login = Login {
        remote,
        watch,
        session,
        user: credential.username.as_deref().unwrap_or(address.user),
        origin: &credential.origin,
    };
    match &credential.proof {
        Proof::Token(_) => {
            Err(Failure::CredentialUnusable { url, origin: credential.origin.clone() })
        }
        Proof::Key(key) => login.with_key(key),
        Proof::Agent { socket, keys } => login.with_agent(socket, keys),
    }
}

/// A login under way.
struct Login<'a> {
    remote: &'a Remote,
    watch: &'a Watch,
    session: &'a Session,
    user: &'a str,
    origin: &'a str,
}

impl Login<'_> {
    fn with_key(&self, key: &PrivateKey) -> Result<(), Failure> {
        let text = key.text().expose();
        let offer = || self.session.userauth_pubkey_memory(self.user, None, text, None);
        match self.with_either_hash(&key.kind(), offer) {
            Ok(()) => Ok(()),
            Err(error) if refused(&error) => Err(self.denied(&[key.shown()], None)),
            Err(error) => Err(explain(self.remote, self.watch, &error)),
        }
    }

    /// Key by key, until one is good or the server had enough of them.
    fn with_agent(&self, socket: &Path, keys: &[Identity]) -> Result<(), Failure> {
        let unusable = |problem: agent::Problem| match problem {
            agent::Problem::Interrupted(signal) => Failure::Interrupted(signal),
            problem => {
                let origin = self.origin.to_owned();
                Failure::Credential(credentials::Error::Agent { origin, problem })
            }
        };
        let patience = agent::PATIENCE.min(self.watch.remaining());
        let mut agent =
            Agent::connect(socket, &self.remote.interrupt, patience).map_err(unusable)?;
        let mut offered = Vec::new();
        for key in keys.iter().take(agent::OFFERED) {
            self.watch.check()?;
            let mut signer = Signer { agent: &mut agent, key, problem: None };
            let kind = kind_of(&key.blob).unwrap_or_default();
            let result = self.with_either_hash(&kind, || signer.log_in(self.session, self.user));
            if let Some(problem) = signer.problem {
                return Err(unusable(problem));
            }
            match result {
                Ok(()) => return Ok(()),
                Err(error) if refused(&error) => offered.push(key.shown()),
                // As sshd does after too many keys.
                Err(_) if !offered.is_empty() && self.watch.failure().is_none() => {
                    let note = "then it ended the connection";
                    return Err(self.denied(&offered, Some(note)));
                }
                Err(error) => return Err(explain(self.remote, self.watch, &error)),
            }
        }
        let more = keys.len().saturating_sub(offered.len());
        let note = (more > 0).then(|| format!("{more} more in the agent were not tried"));
        Err(self.denied(&offered, note.as_deref()))
    }

    /// Offers a key; one of RSA with the other hash too if it is refused. Servers that take only
    /// one of them may say that they know both, and then libssh2 picks the longer one.
    fn with_either_hash(
        &self,
        kind: &str,
        mut offer: impl FnMut() -> Result<(), ssh2::Error>,
    ) -> Result<(), ssh2::Error> {
        let prefer = |algorithms| self.session.method_pref(MethodType::SignAlgo, algorithms);
        let first = offer();
        let Err(refusal) = &first else { return first };
        if kind != "ssh-rsa" || !refused(refusal) || prefer("rsa-sha2-256").is_err() {
            return first;
        }
        // Had enough of them, it ends the connection, which means no more than the refusal.
        let second = offer();
        let _ = prefer("rsa-sha2-512,rsa-sha2-256");
        if second.is_ok() { second } else { first }
    }

    /// None of these keys is good.
    fn denied(&self, keys: &[String], note: Option<&str>) -> Failure {
        if let Some(failure) = self.watch.failure() {
            return failure;
        }
        Failure::KeyDenied {
            url: self.remote.url.clone(),
            origin: self.origin.to_owned(),
            user: self.user.to_owned(),
            keys: keys.to_vec(),
            note: note.map(str::to_owned),
        }
    }
}

/// What happens before the server runs git counts as connecting, and so does its limit.
fn connecting(watch: &Watch, failure: Failure) -> Failure {
    match failure {
        Failure::Timeout { step: Step::Read, .. } => watch.timeout(Step::Connect),
        failure => failure,
    }
}

/// Whether it means that the server does not want the key.
fn refused(error: &ssh2::Error) -> bool {
    matches!(error.code(), ErrorCode::Session(code) if REFUSED.contains(&code))
}

fn explain(remote: &Remote, watch: &Watch, error: &ssh2::Error) -> Failure {
    if let Some(failure) = watch.failure() {
        return failure;
    }
    match error.code() {
        ErrorCode::Session(TIMEOUT) => watch.timeout(Step::Read),
        ErrorCode::Session(_) | ErrorCode::SFTP(_) => Failure::Broken {
            url: remote.url.clone(),
            detail: harmless(error.message().as_bytes()),
        },
    }
}

fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1)
}
