//! The real ssh-agent.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use super::keys::KeyPair;
use super::{isolated, wait_until};

/// A running agent; it ends when dropped.
#[derive(Debug)]
pub struct SshAgent {
    child: Child,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl SshAgent {
    /// With no keys.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// It asks a person by this program before it uses a key that was added with `-c`.
    pub fn asking(program: &Path) -> Self {
        Self::start_with(Some(program))
    }

    fn start_with(askpass: Option<&Path>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("agent");
        let mut agent = isolated("ssh-agent");
        if let Some(program) = askpass {
            agent.env("SSH_ASKPASS", program);
            agent.env("SSH_ASKPASS_REQUIRE", "force").env("DISPLAY", ":0");
        }
        agent.args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).stderr(Stdio::null());
        let child = agent.spawn().expect("ssh-agent is installed");
        // The socket is there before anybody listens to it.
        let listens = || UnixStream::connect(&socket).is_ok();
        wait_until("the agent", Duration::from_secs(30), listens);
        Self { child, socket, _dir: dir }
    }

    /// Adds a key, with options of ssh-add.
    pub fn add(&self, pair: &KeyPair, options: &[&str]) {
        let mut add = isolated("ssh-add");
        add.env("SSH_AUTH_SOCK", &self.socket).args(options).arg(&pair.file);
        let added = add.output().expect("ssh-add is installed");
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
