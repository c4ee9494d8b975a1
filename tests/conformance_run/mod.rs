//! Runs one case and compares.

mod interchange;
mod observe;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_yaml::{Mapping, Value};

use observe::Places;

pub(crate) enum Verdict {
    Same,
    Differs(Vec<String>),
    NotRun(String),
}

#[derive(serde::Deserialize)]
struct Case {
    #[serde(default)]
    needs: Vec<String>,
    max_revisions: Option<u32>,
    setup: Option<String>,
    #[serde(default)]
    make: BTreeMap<String, String>,
    steps: Vec<Step>,
}

#[derive(serde::Deserialize)]
struct Step {
    bundle: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    location: Option<String>,
    #[serde(default)]
    no_location: bool,
    cwd: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, Option<String>>,
    umask: Option<String>,
    before: Option<String>,
    after: Option<String>,
    limit: Option<u64>,
    #[serde(default)]
    skip: Vec<String>,
    seconds: Option<(f64, f64)>,
}

/// `alive PID` for the scripts of a case.
const PRELUDE: &str = "alive() { s=$(sed 's/.*) //' /proc/$1/stat 2>/dev/null | cut -c1); \
    if [ -n \"$s\" ] && [ \"$s\" != Z ]; then echo alive; else echo dead; fi; }\n";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Which records a deployment finds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Those that the built-in tool left.
    Own,
    /// Those that codedeploy-local 1.8.1 left, wherever it did the same before.
    Agents,
}

/// Whether a case has deployments that can go on from the agent's records.
pub(crate) fn alternates(dir: &Path) -> bool {
    let builtin = dir.join("expected-builtin");
    let same = !builtin.join("step-1.yml").exists() && !builtin.join("skip").exists();
    same && dir.join("expected/step-2.yml").exists()
}

pub(crate) fn run_case(dir: &Path, after: After) -> Verdict {
    if !nix::unistd::geteuid().is_root() {
        return Verdict::NotRun("not root".into());
    }
    let case: Case =
        serde_yaml::from_str(&fs::read_to_string(dir.join("case.yml")).unwrap()).unwrap();
    for need in &case.needs {
        if let Some(why) = unmet(need) {
            return Verdict::NotRun(why);
        }
    }
    let temporary = tempfile::Builder::new().prefix("cdcase-").tempdir().unwrap();
    let work = fs::canonicalize(temporary.path()).unwrap();
    fs::set_permissions(&work, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut run = Run { case: &case, dir, after, places: Places::new(&work), work };
    match run.steps() {
        Ok(lines) if lines.is_empty() => Verdict::Same,
        Ok(lines) | Err(lines) => Verdict::Differs(lines),
    }
}

/// One thread at a time makes users.
static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn unmet(need: &str) -> Option<String> {
    if let Some(user) = need.strip_prefix("user:") {
        if nix::unistd::User::from_name(user).ok().flatten().is_some() {
            return None;
        }
        let _guard = ONE.lock().unwrap();
        let _ = Command::new("useradd").args(["-M", "-s", "/bin/sh", user]).status();
        let there = nix::unistd::User::from_name(user).ok().flatten().is_some();
        return (!there).then(|| format!("needs the user {user}"));
    }
    let found = PATH.split(':').any(|folder| Path::new(folder).join(need).is_file());
    (!found).then(|| format!("needs {need}"))
}

struct Run<'a> {
    case: &'a Case,
    dir: &'a Path,
    after: After,
    places: Places,
    work: PathBuf,
}

type Environment = BTreeMap<String, String>;

impl Run<'_> {
    fn expand(&self, text: &str) -> String {
        let work = self.work.to_str().unwrap();
        text.replace("@DEST@", &format!("{work}/dest"))
            .replace("@HOOKLOG@", &format!("{work}/hooks.log"))
            .replace("@WORK@", work)
    }

    fn steps(&mut self) -> Result<Vec<String>, Vec<String>> {
        for folder in ["bundles", "root", "log", "etc", "cwd", "home"] {
            make_folder(&self.work.join(folder));
        }
        fs::write(self.work.join("hooks.log"), "").unwrap();
        fs::set_permissions(self.work.join("hooks.log"), std::fs::Permissions::from_mode(0o666))
            .unwrap();
        let w = self.work.display();
        let configuration = format!(
            "---\n:log_aws_wire: false\n:log_dir: '{w}/log/'\n:pid_dir: '{w}/pid/'\n\
             :program_name: codedeploy-agent\n:root_dir: '{w}/root'\n:verbose: false\n:max_revisions: {}\n",
            self.case.max_revisions.unwrap_or(5)
        );
        fs::write(self.work.join("etc/agent.yml"), configuration).unwrap();
        let env: Environment = [
            ("PATH", PATH.to_owned()),
            ("HOME", self.work.join("home").display().to_string()),
            ("LANG", "C.UTF-8".to_owned()),
            ("FROM_CALLER", "yes".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if let Some(setup) = &self.case.setup {
            self.must("setup", setup, &env, &self.work)?;
        }
        let mut differences = Vec::new();
        for (index, step) in self.case.steps.iter().enumerate() {
            let number = index + 1;
            let got = self.step(step, &env, &mut differences, number)?;
            self.compare(number, step, &got, &mut differences);
            if self.after == After::Agents && differences.is_empty() {
                self.agents_records(number, step)?;
            }
        }
        Ok(differences)
    }

    /// Puts the agent's records in place of ours, if it did the same in this step.
    fn agents_records(&mut self, number: usize, step: &Step) -> Result<(), Vec<String>> {
        let file = format!("step-{number}.yml");
        if self.dir.join("expected-builtin").join(&file).exists()
            || step.skip.iter().any(|skip| skip == "state")
        {
            return Ok(());
        }
        let text = fs::read_to_string(self.dir.join("expected").join(&file)).unwrap();
        let expected: Mapping = serde_yaml::from_str(&text).unwrap();
        let Some(Value::Mapping(state)) = expected.get("state") else { return Ok(()) };
        let failed = |e| vec![format!("step {number}: the agent's records: {e}")];
        self.places.go_on_from(state).map_err(failed)?;
        let made = self.places.state();
        if made != Value::Mapping(state.clone()) {
            let mut lines = vec![format!("step {number}: the agent's records were not restored:")];
            lines.extend(observe::difference(&Value::Mapping(state.clone()), &made));
            return Err(lines);
        }
        Ok(())
    }

    fn must(
        &self,
        what: &str,
        script: &str,
        env: &Environment,
        cwd: &Path,
    ) -> Result<(), Vec<String>> {
        match self.shell(script, env, cwd) {
            (0, _) => Ok(()),
            (code, output) => Err(vec![format!("{what} exited with {code}"), output]),
        }
    }

    fn shell(&self, script: &str, env: &Environment, cwd: &Path) -> (i32, String) {
        let output = self.work.join("shell-out");
        let file = std::fs::File::create(&output).unwrap();
        let script = format!("umask 022\n{PRELUDE}{}", self.expand(script));
        let status = Command::new("bash")
            .args(["-ec", &script])
            .env_clear()
            .envs(env)
            .env("WORK", &self.work)
            .env("DEST", self.work.join("dest"))
            .env("ROOT", self.work.join("root"))
            .current_dir(cwd)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .status()
            .unwrap();
        let text = observe::decode(&fs::read(&output).unwrap());
        fs::remove_file(&output).unwrap();
        (status.code().unwrap_or(-1), text)
    }

    fn step(
        &mut self,
        step: &Step,
        env: &Environment,
        differences: &mut Vec<String>,
        number: usize,
    ) -> Result<Mapping, Vec<String>> {
        let name = step.bundle.as_deref().unwrap_or("bundle");
        let (source, bundle) = (self.dir.join(name), self.work.join("bundles").join(name));
        if source.is_dir() && !bundle.exists() {
            copy_bundle(&source, &bundle, &|text| fill(text, &self.work));
            if let Some(script) = self.case.make.get(name) {
                self.must(&format!("make {name}"), script, env, &bundle)?;
            }
        }
        if let Some(before) = &step.before {
            self.must(&format!("before of step {number}"), before, env, &self.work)?;
        }
        let mut own = env.clone();
        for (name, value) in &step.env {
            match value {
                Some(value) => own.insert(name.clone(), self.expand(value)),
                None => own.remove(name),
            };
        }
        fs::write(self.work.join("hooks.log"), "").unwrap();
        let known = self.places.ids();
        let began = Instant::now();
        let exit = self.deploy(step, &own, &bundle);
        let took = began.elapsed().as_secs_f64();
        if let Some((low, high)) = step.seconds
            && !(low..=high).contains(&took)
        {
            differences.push(format!("step {number} took {took:.1} s, expected {low} to {high}"));
        }
        let mut got = Mapping::new();
        got.insert("exit".into(), exit);
        got.insert("stdout".into(), self.places.file_lines(&self.work.join("out")));
        got.insert("hooks".into(), self.places.file_lines(&self.work.join("hooks.log")));
        got.insert("scripts_log".into(), self.places.scripts_log(&known));
        got.insert("tree".into(), self.places.tree(&self.work.join("dest")));
        if let Some(after) = &step.after {
            let (code, output) = self.shell(after, env, &self.work);
            let mut lines: Vec<Value> = self.places.lines(&output);
            if code != 0 {
                lines.push(format!("(after exited {code})").into());
            }
            got.insert("after".into(), lines.into());
        }
        got.insert("state".into(), self.places.state());
        Ok(got)
    }

    fn deploy(&self, step: &Step, env: &Environment, bundle: &Path) -> Value {
        let out = |name: &str| std::fs::File::create(self.work.join(name)).unwrap();
        let cwd = step.cwd.as_deref().map_or(self.work.join("cwd"), |cwd| self.expand(cwd).into());
        // Only a shell can set the umask of one child alone.
        let umask = format!("umask {}; exec \"$@\"", step.umask.as_deref().unwrap_or("022"));
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &umask, "sh", env!("CARGO_BIN_EXE_multideployer"), "codedeploy-local"]);
        command.arg("--agent-configuration-file").arg(self.work.join("etc/agent.yml"));
        if !step.no_location {
            let location = step.location.as_deref().map(|text| self.expand(text));
            let location = location.as_deref().map_or(bundle.as_os_str(), OsStr::new);
            command.arg("--bundle-location").arg(location);
        }
        command.args(step.args.iter().map(|arg| self.expand(arg)));
        command.env_clear().envs(env).current_dir(cwd).process_group(0);
        command.stdin(Stdio::null()).stdout(out("out")).stderr(out("err"));
        let mut child = command.spawn().unwrap();
        let limit = step.limit.unwrap_or(60);
        let end = Instant::now() + Duration::from_secs(limit);
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                let code = status.code().or(status.signal().map(|number| -number));
                return code.unwrap().into();
            }
            if Instant::now() > end {
                killpg(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGKILL).unwrap();
                child.wait().unwrap();
                return format!("still running after {limit}s").into();
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    fn compare(&self, number: usize, step: &Step, got: &Mapping, differences: &mut Vec<String>) {
        let file = format!("step-{number}.yml");
        let builtin = self.dir.join("expected-builtin");
        let own = builtin.join(&file);
        let path = if own.is_file() { own } else { self.dir.join("expected").join(file) };
        if path.starts_with(&builtin) {
            let why = fs::read_to_string(builtin.join("why")).unwrap_or_default();
            if !why.split(|c: char| !c.is_alphanumeric()).any(is_deviation) {
                differences.push("expected-builtin/why names no deviation".into());
            }
        }
        if std::env::var_os("CONFORMANCE_RECORD").is_some() && path.exists() {
            self.record(number, step, got, &builtin);
            return;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        let Ok(Value::Mapping(want)) = serde_yaml::from_str(&text) else {
            differences.push(format!("step {number}: no expectation"));
            return;
        };
        let before = differences.len();
        // Sections in which it is a race what the built-in tool does.
        let races = fs::read_to_string(builtin.join("skip")).unwrap_or_default();
        for (section, value) in got {
            let section_name = section.as_str().unwrap();
            if step.skip.iter().any(|skip| skip == section_name)
                || races.lines().any(|race| race == section_name)
            {
                continue;
            }
            let wanted = want.get(section).cloned().unwrap_or_default();
            if wanted != *value {
                differences.push(format!("step {number}, {section_name}:"));
                differences.extend(observe::difference(&wanted, value));
            }
        }
        if differences.len() > before {
            let err = fs::read(self.work.join("err")).unwrap();
            differences.extend(observe::decode(&err).lines().map(|line| format!("stderr: {line}")));
        }
    }

    /// With `CONFORMANCE_RECORD` set, writes what differs into `expected-builtin/`; to be read
    /// and explained by a person.
    fn record(&self, number: usize, step: &Step, got: &Mapping, builtin: &Path) {
        let file = format!("step-{number}.yml");
        let recorded = fs::read_to_string(self.dir.join("expected").join(&file)).unwrap();
        let mut want: Mapping = serde_yaml::from_str(&recorded).unwrap();
        let original = want.clone();
        for (section, value) in got {
            if !step.skip.iter().any(|skip| Some(skip.as_str()) == section.as_str()) {
                want.insert(section.clone(), value.clone());
            }
        }
        if want == original {
            let _ = fs::remove_file(builtin.join(file));
        } else {
            fs::create_dir_all(builtin).unwrap();
            fs::write(builtin.join(file), serde_yaml::to_string(&want).unwrap()).unwrap();
        }
    }
}

fn is_deviation(word: &str) -> bool {
    word.strip_prefix('D').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn make_folder(path: &Path) {
    fs::create_dir(path).unwrap();
    fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn fill(text: &[u8], work: &Path) -> Vec<u8> {
    let work = work.to_str().unwrap();
    let mut filled = text.to_vec();
    for (name, value) in [
        ("@DEST@", format!("{work}/dest")),
        ("@HOOKLOG@", format!("{work}/hooks.log")),
        ("@WORK@", work.to_owned()),
    ] {
        filled = observe::replace(&filled, name.as_bytes(), value.as_bytes());
    }
    filled
}

/// As a checkout has it: files are 0644 or 0755, whatever the umask is here.
fn copy_bundle(from: &Path, to: &Path, fill: &dyn Fn(&[u8]) -> Vec<u8>) {
    make_folder(to);
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_bundle(&from, &to, fill);
        } else if kind.is_symlink() {
            fs_err::os::unix::fs::symlink(fs::read_link(&from).unwrap(), &to).unwrap();
        } else {
            fs::write(&to, fill(&fs::read(&from).unwrap())).unwrap();
            let executable = fs::metadata(&from).unwrap().permissions().mode() & 0o100 != 0;
            let mode = if executable { 0o755 } else { 0o644 };
            fs::set_permissions(&to, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}
