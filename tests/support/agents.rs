//! Stand-ins for AWS's codedeploy-local that check what they are asked and remember it.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Whose contract is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The Ruby agent's: exit codes 0 and 1, ids by chance.
    One,
    /// The same from before it told failure by its exit code.
    AlwaysZero,
    /// The same from before 2018, without the options for names.
    VeryOld,
    /// The Rust agent's: exit codes 0, 1 and 2, ids by pid, umask 0027.
    Two,
}

/// An agent installed in a directory of a test's host.
#[derive(Debug, Clone)]
pub struct FakeAgent {
    dir: PathBuf,
}

/// What one call of it looked like.
#[derive(Debug, Clone)]
pub struct Call {
    /// The arguments, the program's name first.
    pub argv: Vec<String>,
    /// The environment it was started with.
    pub environ: BTreeMap<String, String>,
    /// Its working directory.
    pub cwd: String,
    /// Its umask, as `umask` prints it.
    pub umask: String,
    /// What its standard input, output and error were: `pipe:[1234]`, `/dev/null`.
    pub fds: Vec<String>,
}

impl Call {
    /// The value of an option (`--deployment-group`).
    pub fn option(&self, name: &str) -> Option<&str> {
        let at = self.argv.iter().position(|argument| argument == name)?;
        self.argv.get(at + 1).map(String::as_str)
    }

    /// A variable of its environment.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environ.get(name).map(String::as_str)
    }

    /// The app it was called for; `None` for a call that only asked for version or help.
    pub fn app(&self) -> Option<&str> {
        self.option("--deployment-group")?.strip_suffix("-local-deployment-application")
    }
}

impl FakeAgent {
    /// Installs it in `dir`, with `root_dir` for its files.
    pub fn install(dir: &Path, version: Version, root_dir: &Path) -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/agents");
        for name in ["bin", "lib", "etc", "control", "calls"] {
            std::fs::create_dir_all(dir.join(name)).expect("a directory");
        }
        let script =
            if version == Version::Two { "codedeploy-local-2" } else { "codedeploy-local-1" };
        let program = dir.join("bin/codedeploy-local");
        let content = std::fs::read(fixtures.join(script)).expect("the script");
        std::fs::write(&program, content).expect("the program");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("its mode");
        let common = std::fs::read(fixtures.join("common.sh")).expect("what they share");
        std::fs::write(dir.join("lib/common.sh"), common).expect("what they share");
        match version {
            Version::AlwaysZero => std::fs::write(dir.join("control/.always-0"), ""),
            Version::VeryOld => std::fs::write(dir.join("control/.very-old"), ""),
            Version::One | Version::Two => Ok(()),
        }
        .expect("a note for the agent");
        let config = format!("---\n:root_dir: {}\n:max_revisions: 5\n", root_dir.display());
        std::fs::write(dir.join("etc/codedeployagent.yml"), config).expect("its configuration");
        Self { dir: dir.to_owned() }
    }

    /// The program.
    pub fn program(&self) -> PathBuf {
        self.dir.join("bin/codedeploy-local")
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("etc/codedeployagent.yml")
    }

    /// From now on this piece of shell is run where `app`'s hooks would run:
    /// `fail scripts/start.sh 'no such module'`, `hang`, `keep_output`, `long_line`,
    /// `kill_parent`, `exit 3`.
    pub fn script(&self, app: &str, shell: &str) {
        std::fs::write(self.dir.join("control").join(app), shell).expect("the script");
    }

    /// From now on `app` deploys well.
    pub fn works(&self, app: &str) {
        std::fs::remove_file(self.dir.join("control").join(app)).ok();
    }

    /// All calls so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        let entries = std::fs::read_dir(self.dir.join("calls")).expect("the calls");
        let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        folders.sort();
        folders.iter().filter_map(|folder| read_call(folder)).collect()
    }

    /// The deployments so far, in order.
    pub fn deployments(&self) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.app().is_some()).collect()
    }

    /// The deployments so far as `app commit`, in order.
    pub fn deployed(&self) -> Vec<(String, String)> {
        let of = |call: &Call| {
            let commit = call.variable("GIT_COMMIT").unwrap_or("?").to_owned();
            Some((call.app()?.to_owned(), commit))
        };
        self.calls().iter().filter_map(of).collect()
    }

    /// Forgets the calls so far.
    pub fn forget(&self) {
        std::fs::remove_dir_all(self.dir.join("calls")).expect("the calls");
        std::fs::create_dir(self.dir.join("calls")).expect("the calls");
    }
}

fn read_call(folder: &Path) -> Option<Call> {
    let text =
        |bytes: &[u8]| std::ffi::OsString::from_vec(bytes.to_vec()).to_string_lossy().into_owned();
    let parts = |name: &str| -> Option<Vec<String>> {
        let bytes = std::fs::read(folder.join(name)).ok()?;
        let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
        Some(bytes.split(|byte| *byte == 0).map(text).collect())
    };
    let line = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    let pair = |entry: String| {
        entry.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    Some(Call {
        argv: parts("argv")?,
        environ: parts("environ")?.into_iter().filter_map(pair).collect(),
        cwd: line("cwd").trim().to_owned(),
        umask: line("umask").trim().to_owned(),
        fds: line("fds").lines().map(str::to_owned).collect(),
    })
}
