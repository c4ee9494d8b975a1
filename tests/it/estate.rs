//! Three private applications, the servers they come from, and a host that runs them.

use std::path::Path;

use crate::support::agents::Version;
use crate::support::hex;
use crate::support::host::{Ran, TestHost};
use crate::support::https::GitHttps;
use crate::support::isolated;
use crate::support::keys::{KeyPair, Kind};
use crate::support::sshd::GitSshd;
use crate::support::tls::Authority;
use crate::support::upstream::Upstream;

/// The applications, in the manifest's order.
pub(crate) const APPS: [&str; 3] = ["gateway", "api", "worker"];

/// Three applications. `gateway` and `api` come over HTTPS with a token, `worker` too, or
/// over SSH with a key.
pub(crate) struct Estate {
    /// Where they run.
    pub(crate) host: TestHost,
    /// The server over HTTPS.
    pub(crate) https: GitHttps,
    /// The server over SSH, if there is one.
    pub(crate) ssh: Option<GitSshd>,
    /// The token for the server over HTTPS.
    pub(crate) token: String,
    upstreams: Vec<Upstream>,
    root: tempfile::TempDir,
}

/// Every tool that a host can have.
pub(crate) fn hosts() -> [(&'static str, TestHost); 4] {
    [
        ("built-in", TestHost::new()),
        ("1.x", TestHost::with_agent(Version::One)),
        ("1.x that always exits with 0", TestHost::with_agent(Version::AlwaysZero)),
        ("2.x", TestHost::with_agent(Version::Two)),
    ]
}

/// A token nobody else has.
pub(crate) fn token() -> String {
    let mut bytes = [0; 12];
    openssl::rand::rand_bytes(&mut bytes).expect("random bytes");
    format!("ghp_{}", hex(&bytes))
}

impl Estate {
    /// All three over HTTPS.
    pub(crate) fn new(mut host: TestHost) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let upstreams = APPS.map(|app| Upstream::new(root.path(), &format!("acme/{app}.git")));
        let token = token();
        let https = GitHttps::start(root.path()).require("acme/", &token);
        let ca = String::from_utf8(Authority::shared().pem()).expect("PEM is text");
        let ca = host.write("etc/ca.pem", &ca);
        let file = host.secret("token", &format!("{token}\n"));
        host.add_host(
            &https.authority(),
            &[("auth", &format!("{{token_file: {file}}}")), ("ca_file", &ca)],
        );
        Self { host, https, ssh: None, token, upstreams: upstreams.into(), root }
    }

    /// `worker` over SSH.
    pub(crate) fn with_ssh(host: TestHost) -> Self {
        let mut estate = Self::new(host);
        let key = KeyPair::new(&estate.host.path("secrets"), "id_ed25519", Kind::Ed25519);
        let ssh = GitSshd::start(estate.root.path(), &key);
        let known = estate.host.write("etc/known_hosts", &ssh.known_hosts());
        let auth = format!("{{ssh_key_file: {}}}", key.file.display());
        let keys = [("auth", auth.as_str()), ("known_hosts_file", &known)];
        estate.host.add_host(&ssh.authority(), &keys);
        estate.ssh = Some(ssh);
        estate
    }

    /// What the servers serve.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// The repository of an application.
    pub(crate) fn upstream(&self, app: &str) -> &Upstream {
        let at = APPS.iter().position(|name| *name == app).expect("one of the three");
        &self.upstreams[at]
    }

    /// Commits a version of an application.
    pub(crate) fn release(&self, app: &str, version: &str) -> String {
        self.host.release(self.upstream(app), app, version)
    }

    /// Commits a version of all three.
    pub(crate) fn release_all(&self, version: &str) -> [String; 3] {
        APPS.map(|app| self.release(app, version))
    }

    /// Where an application comes from.
    pub(crate) fn source(&self, app: &str) -> String {
        let name = format!("acme/{app}.git");
        match &self.ssh {
            Some(ssh) if app == "worker" => ssh.url(&name),
            _ => self.https.url(&name),
        }
    }

    /// Writes the manifest.
    pub(crate) fn want(&self, releases: &[String; 3]) {
        let sources = APPS.map(|app| self.source(app));
        let line = |n: usize| (APPS[n], sources[n].as_str(), releases[n].as_str());
        self.host.apps(&[line(0), line(1), line(2)]);
    }

    /// Writes the manifest and runs `deploy`.
    #[must_use = "say what its exit code has to be"]
    pub(crate) fn deploy(&self, releases: &[String; 3]) -> Ran {
        self.want(releases);
        self.host.deploy()
    }

    /// The commits that are recorded as deployed; fails if one is recorded as attempted.
    #[track_caller]
    pub(crate) fn assert_deployed(&self, releases: &[String; 3]) {
        for (app, release) in APPS.iter().zip(releases) {
            assert_eq!(self.host.recorded(app, "deployed").as_ref(), Some(release), "{app}");
            assert_eq!(self.host.recorded(app, "attempted"), None, "{app}");
        }
    }

    /// What runs, by the version that is installed (only with the built-in tool).
    #[track_caller]
    pub(crate) fn assert_installed(&self, versions: [&str; 3]) {
        assert_eq!(APPS.map(|app| self.host.installed(app)), versions);
    }

    /// The deployments since this was last asked have to be these.
    #[track_caller]
    pub(crate) fn assert_ran(&self, wanted: &[(&str, &String)]) {
        let ran = self.host.deployments();
        let ran: Vec<(&str, &String)> = ran.iter().map(|(app, at)| (app.as_str(), at)).collect();
        assert_eq!(ran, wanted);
    }
}

/// What is installed is what git checks out, without its own directory.
#[track_caller]
pub(crate) fn assert_same(installed: &Path, checked_out: &Path) {
    let output = isolated("diff")
        .args(["--recursive", "--no-dereference", "--exclude=.git"])
        .args([installed, checked_out])
        .output()
        .expect("diff starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    for entry in walkdir::WalkDir::new(installed) {
        let entry = entry.expect("an entry");
        assert_ne!(entry.file_name(), ".git", "{}", entry.path().display());
    }
}
