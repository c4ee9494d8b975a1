//! A git server over SSH: OpenSSH's own sshd, as whoever runs the tests.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use super::keys::{KeyPair, Kind};
use super::{git_exec_path, is_root, isolated, path};

/// How the server is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The kinds of its host keys.
    pub host_keys: Vec<Kind>,
    /// More lines for its configuration, before all others: `KexAlgorithms …`,
    /// `PubkeyAcceptedAlgorithms rsa-sha2-512`.
    pub settings: Vec<String>,
    /// The port; 0 is any free one.
    pub port: u16,
    /// A directory with host keys of an earlier server, to be used again.
    pub identity: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { host_keys: vec![Kind::Ed25519], settings: Vec::new(), port: 0, identity: None }
    }
}

impl Options {
    /// As hardened servers are: one kind of host key, only modern algorithms.
    pub fn restrictive() -> Self {
        let settings = [
            "KexAlgorithms curve25519-sha256,curve25519-sha256@libssh.org",
            "Ciphers aes256-gcm@openssh.com,aes256-ctr",
            "MACs hmac-sha2-512-etm@openssh.com,hmac-sha2-512",
            "HostKeyAlgorithms ssh-ed25519",
            "PubkeyAcceptedAlgorithms ssh-ed25519,rsa-sha2-512",
            "MaxAuthTries 1",
            "AuthenticationMethods publickey",
        ];
        Self { settings: settings.map(str::to_owned).to_vec(), ..Self::default() }
    }
}

/// The server; it ends when dropped, or with the process that started it.
#[derive(Debug)]
pub struct GitSshd {
    guard: Child,
    dir: tempfile::TempDir,
    host_keys: Vec<KeyPair>,
    port: u16,
}

impl GitSshd {
    /// Serves everything below `root` to the owner of `key`, with an ed25519 host key.
    pub fn start(root: impl AsRef<Path>, key: &KeyPair) -> Self {
        Self::start_with(root, std::slice::from_ref(key), &Options::default())
    }

    /// The same for several keys, set up as asked.
    pub fn start_with(root: impl AsRef<Path>, keys: &[KeyPair], options: &Options) -> Self {
        let dir = tempfile::Builder::new().prefix("sshd").tempdir().expect("a directory");
        let identity = options.identity.as_deref().unwrap_or(dir.path());
        let host_keys: Vec<KeyPair> = (options.host_keys.iter())
            .map(|kind| {
                let name = format!("host_{}", kind.name());
                saved(identity, &name).unwrap_or_else(|| {
                    let pair = KeyPair::new(identity, &name, *kind);
                    let file = identity.join(format!("{name}.sha256"));
                    std::fs::write(file, &pair.fingerprint).expect("the fingerprint");
                    pair
                })
            })
            .collect();
        let port = if options.port == 0 { free_port() } else { options.port };
        let serve = write_serve(dir.path(), root.as_ref());
        let authorized = keys.iter().fold(String::new(), |text, key| {
            text + &format!("command=\"{}\",restrict {}\n", serve.display(), key.public)
        });
        std::fs::write(dir.path().join("authorized_keys"), authorized).expect("authorized_keys");
        let config = config(dir.path(), &host_keys, port, &options.settings);
        std::fs::write(dir.path().join("sshd_config"), config).expect("sshd_config");
        if is_root() {
            // Where sshd locks its unprivileged half up; its package makes it at boot.
            std::fs::create_dir_all("/run/sshd").expect("/run/sshd");
        }
        let guard = spawn(dir.path());
        let mut server = Self { guard, dir, host_keys, port };
        super::wait_until("sshd", Duration::from_secs(10), || {
            let ended = server.guard.try_wait().expect("its state");
            assert!(ended.is_none(), "sshd ended: {}", server.log());
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        server
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The name to log in with: the caller's own.
    pub fn user() -> String {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("the user database");
        user.expect("an entry for the caller").name
    }

    /// `127.0.0.1:2222`.
    pub fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The URL of a repository: `ssh://user@127.0.0.1:2222/acme/api.git`.
    pub fn url(&self, repository: &str) -> String {
        format!("ssh://{}@{}/{repository}", Self::user(), self.authority())
    }

    /// Its host keys.
    pub fn host_keys(&self) -> &[KeyPair] {
        &self.host_keys
    }

    /// The directory with its host keys, for [`Options::identity`] of a later one.
    pub fn identity(&self) -> &Path {
        self.dir.path()
    }

    /// The lines that belong into a `known_hosts` file.
    pub fn known_hosts(&self) -> String {
        let line = |key: &KeyPair| format!("[127.0.0.1]:{} {}\n", self.port, key.public);
        self.host_keys.iter().map(line).collect()
    }

    /// What sshd logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("sshd.log")).unwrap_or_default()
    }

    /// From now on `git-lfs-authenticate` answers this.
    pub fn authenticate_lfs(&self, answer: &str) {
        std::fs::write(self.dir.path().join("lfs"), answer).expect("the answer");
    }

    /// The git commands that were asked for so far.
    pub fn commands(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.dir.path().join("commands")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// Connections accepted so far, but for those that waited for its start.
    pub fn connections(&self) -> usize {
        self.log().lines().filter(|line| line.contains("Connection from")).count().saturating_sub(1)
    }

    /// How often a key was refused so far.
    pub fn refusals(&self) -> usize {
        self.log().lines().filter(|line| line.contains("Failed publickey")).count()
    }

    /// Ends it now.
    pub fn stop(&mut self) {
        drop(self.guard.stdin.take());
        drop(self.guard.wait());
    }
}

impl Drop for GitSshd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn saved(dir: &Path, name: &str) -> Option<KeyPair> {
    let public = std::fs::read_to_string(dir.join(format!("{name}.pub"))).ok()?;
    let fingerprint = std::fs::read_to_string(dir.join(format!("{name}.sha256"))).ok()?;
    Some(KeyPair { file: dir.join(name), public: public.trim().to_owned(), fingerprint })
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// The program every log-in gets: git, with the server's root in front of the path.
fn write_serve(dir: &Path, root: &Path) -> PathBuf {
    let script = format!(
        r#"#!/bin/sh
# Answers "git-upload-pack 'PATH'" with PATH below the server's root.
PATH='{path}:{exec_path}'
export PATH GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
printf '%s\n' "$SSH_ORIGINAL_COMMAND" >>'{dir}/commands'
case $SSH_ORIGINAL_COMMAND in
"git-upload-pack '"*) path=${{SSH_ORIGINAL_COMMAND#*\'}} ;;
"git-lfs-authenticate "*" download")
    path=${{SSH_ORIGINAL_COMMAND#* }} path=${{path%% *}}
    [ -e "{root}/${{path#/}}/HEAD" ] || {{ echo "no such repository" >&2; exit 128; }}
    [ -e '{dir}/lfs' ] || {{ echo "git-lfs-authenticate: command not found" >&2; exit 127; }}
    exec cat '{dir}/lfs' ;;
*) echo "only git-upload-pack is served" >&2; exit 128 ;;
esac
path=${{path%\'}}
exec git upload-pack "{root}/${{path#/}}"
"#,
        path = path(),
        exec_path = git_exec_path().display(),
        dir = dir.display(),
        root = root.display(),
    );
    let file = dir.join("serve");
    std::fs::write(&file, script).expect("the script");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).expect("its mode");
    file
}

fn config(dir: &Path, host_keys: &[KeyPair], port: u16, settings: &[String]) -> String {
    let mut text = String::new();
    for line in settings {
        text.push_str(&format!("{line}\n"));
    }
    for key in host_keys {
        text.push_str(&format!("HostKey {}\n", key.file.display()));
    }
    // sshd refuses accounts without a usable password unless PAM is asked.
    let pam = if locked() { "yes" } else { "no" };
    text.push_str(&format!(
        "ListenAddress 127.0.0.1
Port {port}
PidFile none
LogLevel VERBOSE
AuthorizedKeysFile {dir}/authorized_keys
StrictModes no
UsePAM {pam}
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PrintMotd no
X11Forwarding no
AllowTcpForwarding no
",
        dir = dir.display(),
    ));
    text
}

/// Whether the caller's account is locked. Only root can know, and only root's sshd can.
fn locked() -> bool {
    let Ok(shadow) = std::fs::read_to_string("/etc/shadow") else { return false };
    let user = GitSshd::user();
    let mut lines = shadow.lines().filter_map(|line| line.split_once(':'));
    lines.any(|(name, rest)| name == user && rest.starts_with('!'))
}

/// sshd below a shell that ends it when our end of a pipe closes, which happens however
/// we end.
fn spawn(dir: &Path) -> Child {
    let script = r#"
        exec 3<&0 </dev/null
        "$@" 3<&- & sshd=$!
        (cat <&3 >/dev/null; kill -9 $sshd) 2>/dev/null &
        wait $sshd"#;
    isolated("sh")
        .args(["-c", script, "sh", "/usr/sbin/sshd", "-D", "-f"])
        .arg(dir.join("sshd_config"))
        .arg("-E")
        .arg(dir.join("sshd.log"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell")
}
