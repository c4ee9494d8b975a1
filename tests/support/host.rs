//! The machine multideployer runs on: a directory of its own, and the real binary.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::agents::{FakeAgent, Version};
use super::upstream::{Entry, Upstream};
use super::{app, isolated, path};

/// No run of a test takes longer; one that does is ended, and its test fails.
const LIMIT: Duration = Duration::from_secs(90);

/// The program under test; cargo does not tell examples.
const BINARY: Option<&str> = option_env!("CARGO_BIN_EXE_multideployer");

/// The machine. Everything the program may write lies below its directory.
///
/// `etc/` multideployer.yaml, agent configuration · `secrets/` what [`TestHost::secret`]
/// wrote · `cache/ state/ log/` the program's own · `deployment-root/` codedeploy-local's ·
/// `srv/ hooks/` what the applications of [`app::files`] leave · `agent/` a stand-in ·
/// `home/ tmp/`
#[derive(Debug)]
pub struct TestHost {
    dir: tempfile::TempDir,
    /// `-c`: a path, or `builtin`; nothing if empty.
    pub tool: String,
    agent: Option<FakeAgent>,
    environment: BTreeMap<String, String>,
    hosts: String,
    policy: String,
    binary: PathBuf,
    user: Option<(u32, u32)>,
    outputs: std::cell::RefCell<String>,
}

impl Default for TestHost {
    fn default() -> Self {
        Self::new()
    }
}

impl TestHost {
    /// With the built-in codedeploy-local.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("host").tempdir().expect("a directory");
        // Others may pass: some hooks run as other users.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("its mode");
        for name in ["etc", "secrets", "srv", "hooks", "home", "tmp", "deployment-root"] {
            std::fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        let at = dir.path().display();
        let config = format!(
            "---\n:root_dir: {at}/deployment-root\n:log_dir: {at}/log\n:max_revisions: 5\n"
        );
        std::fs::write(dir.path().join("etc/codedeployagent.yml"), config).expect("the file");
        let text = |path: &str| format!("{at}/{path}");
        let environment = [
            ("PATH".to_owned(), path()),
            ("HOME".to_owned(), text("home")),
            ("TMPDIR".to_owned(), text("tmp")),
            ("GIT_CONFIG_GLOBAL".to_owned(), "/dev/null".to_owned()),
            ("GIT_CONFIG_SYSTEM".to_owned(), "/dev/null".to_owned()),
            ("LC_ALL".to_owned(), "C.UTF-8".to_owned()),
        ];
        Self {
            tool: "builtin".to_owned(),
            agent: None,
            environment: environment.into(),
            hosts: String::new(),
            policy: String::new(),
            binary: PathBuf::from(BINARY.expect("built by cargo test")),
            user: None,
            outputs: std::cell::RefCell::default(),
            dir,
        }
    }

    /// With a stand-in for AWS's codedeploy-local.
    pub fn with_agent(version: Version) -> Self {
        let mut host = Self::new();
        let agent = FakeAgent::install(&host.path("agent"), version, &host.path("deployment-root"));
        host.tool = agent.program().display().to_string();
        host.agent = Some(agent);
        host
    }

    /// The stand-in.
    pub fn agent(&self) -> &FakeAgent {
        self.agent.as_ref().expect("a host with an agent")
    }

    /// The program runs as this user and group from now on; root only.
    pub fn run_as(&mut self, uid: u32, gid: u32) {
        // Where the program was built, others may not look.
        let copy = self.path("multideployer");
        std::fs::copy(&self.binary, &copy).expect("a copy of the program");
        self.binary = copy;
        self.user = Some((uid, gid));
        let (uid, gid) = (nix::unistd::Uid::from_raw(uid), nix::unistd::Gid::from_raw(gid));
        for entry in walkdir::WalkDir::new(self.dir()) {
            let entry = entry.expect("a readable directory");
            nix::unistd::chown(entry.path(), Some(uid), Some(gid)).expect("its owner");
        }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path below its directory.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// A path below its directory, as text.
    pub fn text(&self, path: &str) -> String {
        self.path(path).display().to_string()
    }

    /// Reads a file below its directory; empty if it is not there.
    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// Writes a file below its directory; answers its path.
    pub fn write(&self, path: &str, content: &str) -> String {
        let file = self.path(path);
        std::fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
        std::fs::write(&file, content).expect("the file");
        file.display().to_string()
    }

    /// A file that only its owner can read, below `secrets/`, where
    /// [`TestHost::assert_nowhere`] does not look; answers its path.
    pub fn secret(&self, name: &str, content: &str) -> String {
        let file = self.write(&format!("secrets/{name}"), content);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("its mode");
        file
    }

    /// A variable for all runs from now on.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// A variable less for all runs from now on.
    pub fn unset(&mut self, name: &str) -> &mut Self {
        self.environment.remove(name);
        self
    }

    /// From now on the runs are inside a hook of an outer deployment.
    pub fn in_hook(&mut self) -> &mut Self {
        self.set("LIFECYCLE_EVENT", "AfterInstall")
            .set("DEPLOYMENT_ID", "d-OUTER0001")
            .set("DEPLOYMENT_GROUP_NAME", "prod-web")
            .set("DEPLOYMENT_GROUP_ID", "outer-group-id")
            .set("APPLICATION_NAME", "everything")
            .set("BUNDLE_COMMIT", "0123456789012345678901234567890123456789")
    }

    /// The section `hosts` of the manifests that [`TestHost::apps`] writes: an entry, its
    /// keys indented by four.
    pub fn add_host(&mut self, prefix: &str, keys: &[(&str, &str)]) {
        writeln!(self.hosts, "  \"{prefix}\":").expect("memory");
        for (key, value) in keys {
            writeln!(self.hosts, "    {key}: {value}").expect("memory");
        }
    }

    /// The section `policy` of the manifests that [`TestHost::apps`] writes, as a flow mapping.
    pub fn policy(&mut self, policy: &str) {
        policy.clone_into(&mut self.policy);
    }

    /// Writes the manifest (version 2): name, source and release of each app, and perhaps
    /// more keys as one flow mapping's inside: `force: true, enabled: false`.
    pub fn apps(&self, apps: &[(&str, &str, &str)]) {
        let with: Vec<_> = apps.iter().map(|(n, s, r)| (*n, *s, *r, "")).collect();
        self.apps_with(&with);
    }

    /// The same with more keys of each app.
    pub fn apps_with(&self, apps: &[(&str, &str, &str, &str)]) {
        let mut text = "version: 2\n".to_owned();
        if !self.hosts.is_empty() {
            text.push_str(&format!("hosts:\n{}", self.hosts));
        }
        if !self.policy.is_empty() {
            text.push_str(&format!("policy: {}\n", self.policy));
        }
        text.push_str("apps:\n");
        for (name, source, release, more) in apps {
            let comma = if more.is_empty() { "" } else { ", " };
            text.push_str(&format!(
                "  - {{name: {name}, source: \"{source}\", release: \"{release}\"{comma}{more}}}\n"
            ));
        }
        self.manifest(&text);
    }

    /// Writes the manifest.
    pub fn manifest(&self, text: &str) {
        self.write("etc/multideployer.yaml", text);
    }

    /// Commits a version of an application whose hooks report to this host; answers the
    /// commit.
    pub fn release(&self, upstream: &Upstream, app: &str, version: &str) -> String {
        let files = app::files(self.dir(), app, version);
        let mut entries: Vec<Entry> = vec![Entry::gone("content")];
        if upstream.git(&["for-each-ref", "refs/heads/main"]).is_empty() {
            entries.clear();
        }
        entries.extend(files.iter().map(|(a, b)| Entry::from(&(a.as_str(), b.as_str()))));
        upstream.commit_entries(&entries)
    }

    /// From now on the hooks of `app` run this piece of shell; `$LIFECYCLE_EVENT` says
    /// which one it is, `$(run)` is the pid of the program.
    pub fn hook(&self, app: &str, shell: &str) {
        self.write(&format!("hooks/{app}.sh"), &format!("{shell}\n"));
    }

    /// From now on the hooks of `app` work.
    pub fn hook_works(&self, app: &str) {
        std::fs::remove_file(self.path(&format!("hooks/{app}.sh"))).ok();
    }

    /// What the hooks reported, line by line; forgets it.
    pub fn reports(&self) -> Vec<String> {
        let log = self.read("hooks/log");
        std::fs::remove_file(self.path("hooks/log")).ok();
        log.lines().map(str::to_owned).collect()
    }

    /// The deployments since this was last asked, as app and commit, in order: those that
    /// came as far as `ApplicationStart`, or that the stand-in was called for.
    pub fn deployments(&self) -> Vec<(String, String)> {
        if let Some(agent) = &self.agent {
            let deployed = agent.deployed();
            agent.forget();
            return deployed;
        }
        let started = |line: &String| {
            let mut words = line.split(' ');
            let (app, _, event, commit) =
                (words.next()?, words.next()?, words.next()?, words.next()?);
            (event == "ApplicationStart").then(|| (app.to_owned(), commit.to_owned()))
        };
        self.reports().iter().filter_map(started).collect()
    }

    /// From now on `app` cannot be deployed: its start script says `text` and fails.
    pub fn breaks(&self, app: &str, text: &str) {
        if let Some(agent) = &self.agent {
            agent.script(app, &format!("fail scripts/hook.sh '{text}'"));
        } else {
            let shell = format!(
                "case $LIFECYCLE_EVENT in ApplicationStart) echo '{text}' >&2; exit 7 ;; esac"
            );
            self.hook(app, &shell);
        }
    }

    /// From now on `app` can be deployed.
    pub fn works(&self, app: &str) {
        match &self.agent {
            Some(agent) => agent.works(app),
            None => self.hook_works(app),
        }
    }

    /// The version of an application that is installed; empty for none.
    pub fn installed(&self, app: &str) -> String {
        self.read(&format!("srv/{app}/version")).trim().to_owned()
    }

    /// The bare mirror of an app.
    pub fn mirror(&self, app: &str) -> PathBuf {
        self.path(&format!("cache/mirrors/{app}.git"))
    }

    /// What git says of an app's mirror.
    pub fn git(&self, app: &str, args: &[&str]) -> String {
        let output = isolated("git").arg("--git-dir").arg(self.mirror(app)).args(args).output();
        let output = output.expect("git starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?} for {app}: {stderr}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The commit a record of an app stands at (`deployed`, `attempted`, `previous`), as
    /// git sees it.
    pub fn recorded(&self, app: &str, what: &str) -> Option<String> {
        if !self.mirror(app).exists() {
            return None;
        }
        let name = format!("refs/multideployer/{what}");
        let found = self.git(app, &["for-each-ref", "--format=%(objectname)", &name]);
        (!found.is_empty()).then_some(found)
    }

    /// Runs the program with these arguments and the options that keep it inside the
    /// host's directory.
    #[must_use = "say what its exit code has to be"]
    pub fn run(&self, args: &[&str]) -> Ran {
        self.start(args).wait()
    }

    /// `deploy`.
    #[must_use = "say what its exit code has to be"]
    pub fn deploy(&self) -> Ran {
        self.run(&["deploy"])
    }

    /// The same as [`TestHost::run`], without waiting for its end.
    pub fn start(&self, args: &[&str]) -> Running<'_> {
        self.start_command(self.command(args))
    }

    /// Runs the program with these arguments and nothing else.
    #[must_use = "say what its exit code has to be"]
    pub fn run_bare(&self, args: &[&str]) -> Ran {
        let mut command = self.bare();
        command.args(args);
        self.start_command(command).wait()
    }

    /// The command of [`TestHost::run`], to be changed.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bare();
        command.args(args);
        command.arg("--config").arg(self.path("etc/multideployer.yaml"));
        command.arg("--cache-dir").arg(self.path("cache"));
        command.arg("--state-dir").arg(self.path("state"));
        command.arg("--log").arg(self.path("log/multideployer.log"));
        let agent = self.agent.as_ref().map(FakeAgent::config);
        let config = agent.unwrap_or_else(|| self.path("etc/codedeployagent.yml"));
        command.arg("--agent-configuration-file").arg(config);
        if !self.tool.is_empty() {
            command.arg("--codedeploy-local-path").arg(&self.tool);
        }
        command
    }

    /// The program without any argument.
    pub fn bare(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env_clear().envs(&self.environment).current_dir(self.dir());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Starts a command made by [`TestHost::command`] or [`TestHost::bare`].
    pub fn start_command(&self, mut command: Command) -> Running<'_> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        let shown = format!("{command:?}");
        std::fs::remove_file(self.path("hooks/run.pid")).ok();
        let started = Instant::now();
        // A copy that was just written is busy as long as another test's fork has it open.
        let mut tries = 0..100;
        let mut child = loop {
            match command.spawn() {
                Err(error)
                    if error.kind() == io::ErrorKind::ExecutableFileBusy
                        && tries.next().is_some() =>
                {
                    std::thread::sleep(Duration::from_millis(20));
                }
                started => break started.expect("the program starts"),
            }
        };
        let pid = child.id();
        std::fs::write(self.path("hooks/.run.pid"), pid.to_string()).expect("its pid");
        std::fs::rename(self.path("hooks/.run.pid"), self.path("hooks/run.pid")).expect("its pid");
        let stdout = drain(child.stdout.take().expect("its output"));
        let stderr = drain(child.stderr.take().expect("its errors"));
        Running { host: self, child, stdout, stderr, started, shown }
    }

    /// Processes of this host that still run: those that carry its directory in their
    /// command line or environment.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let marker = self.dir().as_os_str().as_encoded_bytes();
        let own = i32::try_from(std::process::id()).expect("a pid");
        let holds = |bytes: &[u8]| bytes.windows(marker.len()).any(|part| part == marker);
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let read = |name| std::fs::read(entry.path().join(name)).unwrap_or_default();
            let line = read("cmdline");
            // What has ended and was not waited for has no command line any more.
            if pid != own && !line.is_empty() && (holds(&line) || holds(&read("environ"))) {
                found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
        found
    }

    /// Fails if one of the secrets is anywhere below the host's directory but in
    /// `secrets/`: in a file (logs, state, recorded command lines and environments,
    /// references, configuration), in an object of a mirror, in the name of a file, or in
    /// what a run printed. Also looks for what HTTP would make of it.
    pub fn assert_nowhere(&self, secrets: &[&str]) {
        let mut haystack =
            vec![("the outputs".to_owned(), self.outputs.borrow().clone().into_bytes())];
        for entry in walkdir::WalkDir::new(self.dir()) {
            let entry = entry.expect("a readable directory");
            if entry.path().starts_with(self.path("secrets")) || entry.path() == self.binary {
                continue;
            }
            let name = entry.path().display().to_string();
            haystack.push((format!("the name {name}"), name.clone().into_bytes()));
            if entry.file_type().is_file() {
                haystack.push((name, std::fs::read(entry.path()).expect("a readable file")));
            } else if entry.path().extension().is_some_and(|end| end == "git") {
                let objects = isolated("git")
                    .arg("--git-dir")
                    .arg(entry.path())
                    .args(["cat-file", "--batch-all-objects", "--batch", "--unordered"])
                    .output()
                    .expect("git starts");
                assert!(objects.status.success(), "git cat-file in {name}");
                haystack.push((format!("the objects of {name}"), objects.stdout));
            }
        }
        assert!(haystack.len() > 10, "there is something to search");
        for secret in secrets {
            let coded =
                openssl::base64::encode_block(format!("x-access-token:{secret}").as_bytes());
            let escaped: String = secret.chars().fold(String::new(), |text, c| {
                if c.is_ascii_alphanumeric() {
                    format!("{text}{c}")
                } else {
                    format!("{text}%{:02X}", c as u32)
                }
            });
            for needle in [(*secret).to_owned(), coded, escaped] {
                let needle = needle.as_bytes();
                for (place, hay) in &haystack {
                    let found = hay.windows(needle.len()).any(|part| part == needle);
                    assert!(!found, "the secret is in {place}");
                }
            }
        }
    }

    /// A text without what differs from run to run.
    pub fn normal(&self, text: &str) -> String {
        let text = text.replace(&self.dir().display().to_string(), "[HOST]");
        let mut out = String::new();
        for (number, part) in text.split("127.0.0.1:").enumerate() {
            if number == 0 {
                out.push_str(part);
            } else {
                let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
                out.push_str(&format!("127.0.0.1:[PORT]{rest}"));
            }
        }
        out
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).ok();
        }
    }
}

fn drain(mut from: impl io::Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        from.read_to_end(&mut all).ok();
        all
    })
}

/// A run that has not ended, or was not waited for.
#[derive(Debug)]
#[must_use = "wait for its end"]
pub struct Running<'a> {
    host: &'a TestHost,
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
    started: Instant,
    shown: String,
}

impl Running<'_> {
    /// Its pid.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).expect("it runs");
    }

    /// Whether it runs still.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("its state").is_none()
    }

    /// Waits for its end. The outputs have to end with it, but for a kill -9.
    #[must_use = "say what its exit code has to be"]
    pub fn wait(mut self) -> Ran {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                break status;
            }
            if self.started.elapsed() > LIMIT {
                self.child.kill().ok();
                let host = self.host;
                let processes = host.processes();
                let shown = self.shown.clone();
                for (pid, _) in &processes {
                    let pid = nix::unistd::Pid::from_raw(*pid);
                    nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).ok();
                }
                let ran = self.finish(ExitStatus::from_raw(9));
                panic!("{shown} did not end within {LIMIT:?}; running: {processes:#?}\n{ran:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        self.finish(status)
    }

    fn finish(self, status: ExitStatus) -> Ran {
        let took = self.started.elapsed();
        let finished = || self.stdout.is_finished() && self.stderr.is_finished();
        if status.signal() == Some(9) {
            let end = Instant::now() + Duration::from_secs(1);
            while Instant::now() < end && !finished() {
                std::thread::sleep(Duration::from_millis(5));
            }
        } else {
            // Whoever reads our output must not wait for anything we left behind.
            super::wait_until("the outputs to end", Duration::from_secs(5), finished);
        }
        let text = |thread: JoinHandle<Vec<u8>>| {
            if !thread.is_finished() {
                return String::new();
            }
            String::from_utf8_lossy(&thread.join().expect("a reader")).into_owned()
        };
        let (stdout, stderr) = (text(self.stdout), text(self.stderr));
        write!(self.host.outputs.borrow_mut(), "{stdout}\n{stderr}\n").expect("memory");
        Ran { status, stdout, stderr, took, shown: self.shown }
    }
}

/// A run that has ended.
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it printed there.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
    shown: String,
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}\n{} after {:?}", self.shown, self.status, self.took)?;
        writeln!(f, "--- stdout\n{}--- stderr\n{}---", self.stdout, self.stderr)
    }
}

impl Ran {
    /// It has to have exited with this code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self:?}");
        self
    }

    /// It has to have exited with 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.code(0)
    }

    /// It has to have been killed.
    #[track_caller]
    pub fn killed(self) -> Self {
        assert_eq!(self.status.signal(), Some(9), "{self:?}");
        self
    }

    /// Its standard output has to contain this.
    #[track_caller]
    pub fn stdout_has(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "no {text:?} on stdout of {self:?}");
        self
    }

    /// Its standard error has to contain this.
    #[track_caller]
    pub fn stderr_has(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} on stderr of {self:?}");
        self
    }

    /// One of its outputs has to contain this.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        let found = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(found, "no {text:?} in {self:?}");
        self
    }

    /// None of its outputs may contain this.
    #[track_caller]
    pub fn silent_about(self, text: &str) -> Self {
        let found = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(!found, "{text:?} in {self:?}");
        self
    }

    /// It has to have taken less than this.
    #[track_caller]
    pub fn within(self, limit: Duration) -> Self {
        assert!(self.took < limit, "longer than {limit:?}: {self:?}");
        self
    }

    /// Its standard output has to be one JSON document with a number as `version`.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let document: serde_json::Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert!(document["version"].is_u64(), "{self:?}");
        document
    }
}
