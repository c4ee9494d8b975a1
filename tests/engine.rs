//! The built-in codedeploy-local as a process: what the recorded cases do not show.
//! Needs root where `su` and owners matter; those tests say so when they cannot run.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test program")]

#[path = "support/signals.rs"]
mod signals;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;

struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let host = Self { dir };
        let root = host.path("root");
        fs::write(
            host.path("agent.yml"),
            format!(
                ":root_dir: {}\n:log_dir: {}\n:max_revisions: 3\n",
                root.display(),
                host.path("log").display()
            ),
        )
        .unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap().join(name)
    }

    /// A bundle; `@` in its texts is this host's folder.
    fn bundle(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let bundle = self.path(name);
        for (file, text) in files {
            let path = bundle.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text.replace('@', &self.path("").to_string_lossy())).unwrap();
            let mode = if file.ends_with(".sh") { 0o755 } else { 0o644 };
            fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        bundle
    }

    fn command(&self, bundle: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_multideployer"));
        command.arg("codedeploy-local").arg("-c").arg(self.path("agent.yml"));
        command.arg("-l").arg(bundle).args(args).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn deploy(&self, bundle: &Path, args: &[&str]) -> Output {
        self.command(bundle, args).output().unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log.txt")).unwrap_or_default()
    }

    fn deployments(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path("root/default-local-deployment-group")) else {
            return Vec::new();
        };
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn succeeds(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(output), stderr(output));
}

fn fails(output: &Output) {
    assert_eq!(output.status.code(), Some(1), "{}{}", stdout(output), stderr(output));
}

fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("NOT RUN as it needs root: {test}");
    }
    root
}

const NOTE: &str = "#!/bin/sh\necho $LIFECYCLE_EVENT >> @/log.txt\n";

/// An appspec with one script for each of these events.
fn appspec(hooks: &[(&str, &str)]) -> String {
    let mut text =
        "version: 0.0\nos: linux\nfiles:\n- source: app\n  destination: @/dest\nhooks:\n"
            .to_owned();
    for (event, script) in hooks {
        text.push_str(&format!("  {event}:\n  - location: {script}\n"));
    }
    text
}

fn good(host: &Host, name: &str) -> PathBuf {
    let spec = appspec(&[("ApplicationStop", "note.sh"), ("AfterInstall", "note.sh")]);
    host.bundle(name, &[("appspec.yml", &spec), ("note.sh", NOTE), ("app/old", "1")])
}

#[test]
fn d1_a_bad_revision_does_not_stop_the_running_one() {
    let host = Host::new();
    succeeds(&host.deploy(&good(&host, "one"), &[]));
    fs::remove_file(host.path("log.txt")).unwrap();
    let before = host.deployments();
    let missing = appspec(&[("ApplicationStart", "nope.sh")]);
    let unknown = appspec(&[("AfterInstal", "note.sh")]);
    for (name, spec, said) in [
        (
            "missing",
            missing.as_str(),
            "ApplicationStart failed: nope.sh does not exist in the bundle",
        ),
        ("unknown", unknown.as_str(), "did you mean `AfterInstall`?"),
        ("broken", "version: 0.0\nos: windows\n", "appspec.yml:2:5"),
        ("yaml", "version: [\n", "appspec.yml"),
    ] {
        let bundle =
            host.bundle(name, &[("appspec.yml", spec), ("note.sh", NOTE), ("app/new", "2")]);
        let output = host.deploy(&bundle, &[]);
        fails(&output);
        assert!(stderr(&output).contains(said), "{name}: {}", stderr(&output));
        assert_eq!(host.log(), "", "{name}: no script ran");
        assert!(host.path("dest/old").exists(), "{name}");
        assert_eq!(host.deployments(), before, "{name}");
        // The same packed: it is looked at before the first event, too.
        let tar = host.path(&format!("{name}.tar"));
        assert!(
            Command::new("tar")
                .arg("cf")
                .arg(&tar)
                .arg("-C")
                .arg(&bundle)
                .arg(".")
                .status()
                .unwrap()
                .success()
        );
        let output = host.deploy(&tar, &["-t", "tar"]);
        fails(&output);
        assert!(
            stderr(&output).contains(said.trim_start_matches("appspec.yml:")),
            "{name}: {}",
            stderr(&output)
        );
        assert_eq!(host.log(), "", "{name}: no script ran");
        assert_eq!(host.deployments(), before, "{name}");
    }
}

#[test]
fn d1_a_script_that_before_install_makes_is_only_warned_about() {
    let host = Host::new();
    let spec = appspec(&[("BeforeInstall", "make.sh"), ("AfterInstall", "made.sh")]);
    let make = "#!/bin/sh\ncd \"$(dirname \"$0\")\" && cp note.sh made.sh\n";
    let files =
        [("appspec.yml", spec.as_str()), ("make.sh", make), ("note.sh", NOTE), ("app/f", "")];
    let output = host.deploy(&host.bundle("b", &files), &[]);
    succeeds(&output);
    assert_eq!(host.log(), "AfterInstall\n");
    assert!(
        stderr(&output).contains("`made.sh` of AfterInstall is missing"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn d2_the_reason_follows_the_scripts_last_lines() {
    let host = Host::new();
    let many = "#!/bin/sh\nfor i in $(seq 30); do echo line $i; done\necho oops >&2\nexit 3\n";
    let own_log = host.path("log/codedeploy-local.log");
    for (name, script, reason) in [
        ("code", many, "exited with code 3"),
        ("signal", "#!/bin/sh\nkill -9 $$\n", "was ended by SIGKILL"),
        ("interpreter", "#!/nowhere/node\n", "/nowhere/node"),
    ] {
        let spec = appspec(&[("AfterInstall", "x.sh")]);
        let bundle = host.bundle(name, &[("appspec.yml", &spec), ("x.sh", script), ("app/f", "")]);
        let output = host.deploy(&bundle, &["-b", "OVERWRITE"]);
        fails(&output);
        let text = stderr(&output);
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("AfterInstall failed: x.sh (as "), "{text}");
        assert!(last.contains(reason), "{text}");
        assert!(fs::read_to_string(&own_log).unwrap().contains(reason));
        let out = stdout(&output);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 3, "{out}");
        assert!(
            lines[1].starts_with(
                "Your local deployment failed while trying to execute your script at "
            )
        );
        assert!(lines[1].ends_with("/deployment-archive/x.sh"));
        if name == "code" {
            assert!(text.contains("[stdout]line 30") && text.contains("[stderr]oops"), "{text}");
            assert!(!text.contains("line 11\n"), "{text}");
        }
    }
}

#[test]
fn d3_names_with_spaces_and_quotes_are_one_argument() {
    if !is_root("d3") {
        return;
    }
    let host = Host::new();
    let spec = appspec(&[])
        + "  AfterInstall:\n  - location: it's a; $(touch @/pwned)/x.sh\n    runas: root\n  - location: it's a; $(touch @/pwned)/x.sh\n";
    let script = "it's a; $(touch @/pwned)/x.sh".replace('@', &host.path("").to_string_lossy());
    let files = [("appspec.yml", spec.as_str()), (script.as_str(), NOTE), ("app/f", "")];
    let output = host.deploy(&host.bundle("b", &files), &["-g", "my 'group' $x"]);
    succeeds(&output);
    assert_eq!(host.log(), "AfterInstall\nAfterInstall\n");
    assert!(!host.path("pwned").exists());
}

#[test]
fn d5_a_script_that_ignores_sigterm_is_killed_with_what_it_started() {
    let host = Host::new();
    let spec = appspec(&[("AfterInstall", "x.sh")]) + "    timeout: 1\n";
    let script = "#!/bin/bash\ntrap '' TERM\n(setsid sleep 100 > /dev/null 2>&1 & echo $! > @/pid)\nfor i in $(seq 100); do sleep 1; done\n";
    let bundle = host.bundle("b", &[("appspec.yml", &spec), ("x.sh", script), ("app/f", "")]);
    let began = Instant::now();
    let output = host.deploy(&bundle, &[]);
    let took = began.elapsed();
    fails(&output);
    assert!((5..20).contains(&took.as_secs()), "{took:?}");
    assert!(stderr(&output).contains("did not end within 1 s"), "{}", stderr(&output));
    let pid = fs::read_to_string(host.path("pid")).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "the daemon is gone, too");
}

#[test]
fn d6_held_output_costs_ten_seconds_and_names_the_process() {
    let host = Host::new();
    let spec = appspec(&[("AfterInstall", "x.sh")]);
    let script = "#!/bin/sh\nsleep 100 &\necho $! > @/pid\n";
    let bundle = host.bundle("b", &[("appspec.yml", &spec), ("x.sh", script), ("app/f", "")]);
    let began = Instant::now();
    let output = host.deploy(&bundle, &[]);
    let took = began.elapsed();
    fails(&output);
    assert!((9..30).contains(&took.as_secs()), "{took:?}");
    let pid = fs::read_to_string(host.path("pid")).unwrap();
    let text = stderr(&output);
    assert!(text.contains(&format!("{} (sleep)", pid.trim())), "{text}");
    let alive = Command::new("kill").arg(pid.trim()).status().unwrap();
    assert!(alive.success(), "it is left alone");
}

fn wait_for(path: &Path) {
    let end = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < end, "{} does not appear", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn signal(child: &Child, number: i32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::try_from(number).unwrap()).unwrap();
}

#[test]
fn d7_a_signal_reaches_the_hook_and_ends_the_tool() {
    signals::heed();
    for number in [nix::libc::SIGTERM, nix::libc::SIGINT] {
        let host = Host::new();
        let spec = appspec(&[("AfterInstall", "x.sh"), ("ApplicationStart", "note.sh")]);
        let script = "#!/bin/bash\ntrap 'echo got > @/got; exit 7' TERM INT\ntouch @/began\nfor i in $(seq 200); do sleep 0.1; done\n";
        let bundle = host.bundle(
            "b",
            &[("appspec.yml", &spec), ("x.sh", script), ("note.sh", NOTE), ("app/f", "")],
        );
        let child = host.command(&bundle, &[]).spawn().unwrap();
        wait_for(&host.path("began"));
        signal(&child, number);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(number), "{}", stderr(&output));
        assert!(host.path("got").exists());
        assert_eq!(host.log(), "", "nothing runs after it");
        let out = stdout(&output);
        assert!(out.lines().last().unwrap().starts_with("See the deployment log at "), "{out}");
        assert_eq!(out.lines().count(), 2, "{out}");
    }
}

#[test]
fn a_killed_deployment_is_cleaned_up_by_the_next() {
    let host = Host::new();
    let spec = appspec(&[("AfterInstall", "x.sh")]);
    let script = "#!/bin/sh\ntouch @/began\nexec sleep 3\n";
    let files = [("appspec.yml", spec.as_str()), ("x.sh", script), ("app/only-here", "1")];
    let bundle = host.bundle("killed", &files);
    let mut child = host.command(&bundle, &[]).spawn().unwrap();
    wait_for(&host.path("began"));
    signal(&child, nix::libc::SIGKILL);
    child.wait().unwrap();
    assert!(host.path("dest/only-here").exists());
    succeeds(&host.deploy(&good(&host, "next"), &[]));
    assert!(!host.path("dest/only-here").exists());
    assert!(host.path("dest/old").exists());
}

#[test]
fn records_of_the_agents_tool_are_gone_on_from() {
    let host = Host::new();
    // What 1.8.1 leaves behind, by the recorded cases.
    let group = "default-local-deployment-group";
    let folder = host.path(&format!("root/{group}/d-AGENT0000-local"));
    let spec = appspec(&[("ApplicationStop", "note.sh")]);
    host.bundle(
        &format!("root/{group}/d-AGENT0000-local/deployment-archive"),
        &[("appspec.yml", &spec), ("note.sh", NOTE), ("app/agents", "1")],
    );
    let instructions = host.path("root/deployment-instructions");
    fs::create_dir_all(&instructions).unwrap();
    let dest = host.path("dest");
    fs::create_dir(&dest).unwrap();
    fs::write(dest.join("agents"), "1").unwrap();
    let list = format!("{}\n{}\n", dest.display(), dest.join("agents").display());
    fs::write(instructions.join(format!("{group}-cleanup")), list).unwrap();
    for record in ["last_successful_install", "most_recent_install"] {
        fs::write(instructions.join(format!("{group}_{record}")), folder.to_str().unwrap())
            .unwrap();
    }
    succeeds(&host.deploy(&good(&host, "ours"), &[]));
    assert_eq!(host.log(), "ApplicationStop\nAfterInstall\n");
    assert!(!dest.join("agents").exists());
    let last =
        fs::read_to_string(instructions.join(format!("{group}_last_successful_install"))).unwrap();
    assert!(Path::new(&last).join("deployment-archive/appspec.yml").is_file(), "{last}");
    assert!(!last.ends_with('\n'));
}

#[test]
fn d22_a_lost_last_revision_is_warned_about() {
    let host = Host::new();
    succeeds(&host.deploy(&good(&host, "one"), &[]));
    host.deployments().iter().for_each(|folder| fs::remove_dir_all(folder).unwrap());
    let output = host.deploy(&good(&host, "two"), &[]);
    succeeds(&output);
    assert!(stderr(&output).contains("ApplicationStop is skipped"), "{}", stderr(&output));
    assert_eq!(host.log(), "AfterInstall\nAfterInstall\n");
}

/// A tar archive of these entries: name, type, link text or content.
fn tar(entries: &[(&str, u8, &str)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, kind, text) in entries {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        let size = if *kind == b'0' { text.len() } else { 0 };
        header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[148..156].copy_from_slice(b"        ");
        header[156] = *kind;
        if *kind != b'0' {
            header[157..157 + text.len()].copy_from_slice(text.as_bytes());
        }
        header[257..263].copy_from_slice(b"ustar\0");
        header[263..265].copy_from_slice(b"00");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        if *kind == b'0' {
            archive.extend_from_slice(text.as_bytes());
            archive.resize(archive.len().next_multiple_of(512), 0);
        }
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

#[test]
fn d1b_a_conflict_is_found_after_before_install_and_costs_nothing() {
    let host = Host::new();
    succeeds(&host.deploy(&good(&host, "one"), &[]));
    fs::write(host.path("dest/mine"), "mine").unwrap();
    let spec = appspec(&[("AfterInstall", "note.sh")]);
    let bundle = host.bundle(
        "two",
        &[("appspec.yml", &spec), ("note.sh", NOTE), ("app/mine", "2"), ("app/new", "2")],
    );
    let output = host.deploy(&bundle, &[]);
    fails(&output);
    assert!(stderr(&output).contains("dest/mine` exists already"), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(host.path("dest/old")).unwrap(), "1", "nothing was removed");
    assert!(!host.path("dest/new").exists());
    // With a BeforeInstall that clears the way, as people have it.
    let spec = appspec(&[("BeforeInstall", "clear.sh"), ("AfterInstall", "note.sh")]);
    let clear = "#!/bin/sh\nrm -f @/dest/mine\n";
    let files =
        [("appspec.yml", spec.as_str()), ("note.sh", NOTE), ("clear.sh", clear), ("app/mine", "2")];
    succeeds(&host.deploy(&host.bundle("three", &files), &[]));
    assert_eq!(fs::read_to_string(host.path("dest/mine")).unwrap(), "2");
    assert!(!host.path("dest/old").exists());
}

#[test]
fn hostile_archives_write_nothing_outside() {
    let host = Host::new();
    let spec = "version: 0.0\nos: linux\n";
    let outside = host.path("outside");
    fs::create_dir(&outside).unwrap();
    let outside_text = outside.to_str().unwrap();
    let good: (&str, u8, &str) = ("appspec.yml", b'0', spec);
    let absolute = format!("{outside_text}/f");
    for (number, entries) in [
        vec![good, ("../../../../outside/f", b'0', "x")],
        vec![good, ("a/../../../../../outside/f", b'0', "x")],
        vec![good, ("l", b'2', outside_text), ("l/f", b'0', "x")],
        vec![good, ("l", b'2', "../../../../outside"), ("l/f", b'0', "x")],
        vec![good, ("h", b'1', "/etc/hostname")],
        vec![good, ("h", b'1', "../../../../agent.yml")],
        vec![good, ("p", b'6', "")],
        vec![good, ("c", b'3', "")],
    ]
    .into_iter()
    .enumerate()
    {
        let file = host.path(&format!("{number}.tar"));
        fs::write(&file, tar(&entries)).unwrap();
        let output = host.deploy(&file, &["-t", "tar"]);
        fails(&output);
        assert!(stderr(&output).contains("cannot be unpacked"), "{number}: {}", stderr(&output));
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{number}");
    }
    // The leading slash of an absolute name is dropped, as tar does.
    let file = host.path("absolute.tar");
    fs::write(&file, tar(&[good, (&absolute, b'0', "x")])).unwrap();
    succeeds(&host.deploy(&file, &["-t", "tar"]));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn hostile_zips_write_nothing_outside() {
    use std::io::Write;
    let host = Host::new();
    let outside = host.path("outside");
    fs::create_dir(&outside).unwrap();
    let options = zip::write::SimpleFileOptions::default();
    let make = |name: &str, fill: &dyn Fn(&mut zip::ZipWriter<fs::File>)| {
        let file = host.path(name);
        let mut writer = zip::ZipWriter::new(fs::File::create(&file).unwrap());
        writer.start_file("appspec.yml", options).unwrap();
        writer.write_all(b"version: 0.0\nos: linux\n").unwrap();
        fill(&mut writer);
        writer.finish().unwrap();
        file
    };
    let up = make("up.zip", &|writer| {
        writer.start_file("../../../../outside/f", options).unwrap();
        writer.write_all(b"x").unwrap();
    });
    let through = make("through.zip", &|writer| {
        writer.add_symlink("l", outside.to_str().unwrap(), options).unwrap();
        writer.start_file("l/f", options).unwrap();
        writer.write_all(b"x").unwrap();
    });
    for file in [up, through] {
        let output = host.deploy(&file, &["-t", "zip"]);
        fails(&output);
        assert!(stderr(&output).contains("cannot be unpacked"), "{}", stderr(&output));
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
    let fine = make("fine.zip", &|writer| {
        writer.add_symlink("l", "appspec.yml", options).unwrap();
        writer.start_file("d/f.sh", options.unix_permissions(0o750)).unwrap();
    });
    succeeds(&host.deploy(&fine, &["-t", "zip"]));
    let archive = host.deployments().into_iter().find_map(|folder| {
        let archive = folder.join("deployment-archive");
        archive.join("d/f.sh").is_file().then_some(archive)
    });
    let archive = archive.unwrap();
    assert_eq!(fs::read_link(archive.join("l")).unwrap(), Path::new("appspec.yml"));
    let mode = fs::metadata(archive.join("d/f.sh")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o750);
}

#[test]
fn only_so_many_deployments_are_kept() {
    let host = Host::new();
    for number in 0..5 {
        succeeds(&host.deploy(&good(&host, &number.to_string()), &["-b", "OVERWRITE"]));
    }
    assert_eq!(host.deployments().len(), 3);
}

#[test]
fn the_command_line_is_the_agents() {
    let host = Host::new();
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_multideployer"));
        command.arg("codedeploy-local").args(args).current_dir(host.dir.path()).output().unwrap()
    };
    for (args, said) in [
        (&["-v"][..], "1.0\n"),
        (&["--help"], "Usage:"),
        (&["--nope"], "Usage:"),
        (&["positional"], "Usage:"),
        (
            &["-t", "rar"],
            "ERROR: type rar is not a valid type. Must be one of tgz,tar,zip,directory\n",
        ),
        (&["-l", "s3://bucket/key"], "ERROR: location s3://bucket/key is not on this host."),
    ] {
        let output = run(args);
        fails(&output);
        assert!(stdout(&output).starts_with(said), "{args:?}: {}", stdout(&output));
    }
    // By its name, as a link to the program.
    let link = host.path("codedeploy-local");
    fs_err::os::unix::fs::symlink(env!("CARGO_BIN_EXE_multideployer"), &link).unwrap();
    assert_eq!(Command::new(&link).arg("-v").output().unwrap().stdout, b"1.0\n");
    // A host without an agent.
    if !Path::new("/etc/codedeploy-agent/conf/codedeployagent.yml").exists() {
        let bundle = good(&host, "b");
        let output = run(&["-l", bundle.to_str().unwrap(), "--default-root", "own"]);
        succeeds(&output);
        assert!(host.path("own/deployment-instructions").is_dir());
    }
}

fn mode_and_owner(path: &Path) -> (u32, u32, u32) {
    use std::os::unix::fs::MetadataExt;
    let about = fs::metadata(path).unwrap();
    (about.mode() & 0o7777, about.uid(), about.gid())
}

#[test]
fn a_service_with_unit_cron_file_and_secret_config_is_deployed_and_updated() {
    if !is_root("service") {
        return;
    }
    let host = Host::new();
    let spec = "version: 0.0
os: linux
files:
- {source: /app, destination: @/srv/api}
- {source: etc/api.service, destination: @/systemd}
- {source: etc/api.cron, destination: @/cron.d}
- {source: etc/secret.env, destination: @/etc/api}
permissions:
- {object: @/srv/api, owner: daemon, group: daemon, mode: 750, type: [directory]}
- {object: @/srv/api, owner: daemon, group: daemon, mode: '0640', type: [file], except: ['*.sh']}
- {object: @/srv/api, pattern: '*.sh', mode: 755, type: [file]}
- {object: @/etc/api/secret.env, owner: daemon, mode: 600}
hooks:
  ApplicationStop: [{location: note.sh, timeout: 60}]
  AfterInstall: [{location: note.sh, runas: root}]
  ValidateService: [{location: note.sh, timeout: 60}]
";
    let files = |version: &'static str| {
        [
            ("appspec.yml", spec),
            ("note.sh", NOTE),
            ("app/server.js", version),
            ("app/start.sh", "#!/bin/sh\n"),
            ("app/node_modules/x/index.js", version),
            ("app/.env.default", version),
            ("etc/api.service", "[Unit]\n"),
            ("etc/api.cron", "* * * * * root true\n"),
            ("etc/secret.env", version),
        ]
    };
    succeeds(&host.deploy(&host.bundle("one", &files("1")), &[]));
    let srv = host.path("srv/api");
    assert_eq!(mode_and_owner(&srv.join("server.js")), (0o640, 1, 1));
    assert_eq!(mode_and_owner(&srv.join("node_modules/x")), (0o750, 1, 1));
    assert_eq!(mode_and_owner(&srv.join("node_modules/x/index.js")), (0o640, 1, 1));
    assert_eq!(mode_and_owner(&srv.join("start.sh")), (0o755, 0, 0));
    assert_eq!(mode_and_owner(&host.path("etc/api/secret.env")), (0o600, 1, 0));
    assert_eq!(mode_and_owner(&host.path("cron.d/api.cron")), (0o644, 0, 0));
    // What the application writes itself survives the update; what is gone from the bundle goes.
    fs::write(srv.join("data.db"), "mine").unwrap();
    let two = host.bundle("two", &files("2"));
    fs::remove_dir_all(two.join("app/node_modules")).unwrap();
    succeeds(&host.deploy(&two, &[]));
    assert_eq!(fs::read_to_string(srv.join("server.js")).unwrap(), "2");
    assert_eq!(fs::read_to_string(srv.join("data.db")).unwrap(), "mine");
    assert!(!srv.join("node_modules").exists());
    assert_eq!(
        host.log(),
        "AfterInstall\nValidateService\nApplicationStop\nAfterInstall\nValidateService\n"
    );
}

#[test]
fn two_groups_share_a_directory_without_touching_each_others_files() {
    let host = Host::new();
    let spec = appspec(&[]);
    let web =
        host.bundle("web", &[("appspec.yml", &spec), ("app/web.html", "w"), ("app/lib/w", "w")]);
    let api =
        host.bundle("api", &[("appspec.yml", &spec), ("app/api.html", "a"), ("app/lib/a", "a")]);
    let empty = host.bundle("empty", &[("appspec.yml", &spec), ("app/other", "o")]);
    succeeds(&host.deploy(&web, &["-g", "web"]));
    succeeds(&host.deploy(&api, &["-g", "api"]));
    // The other group's file is a conflict, whoever made it.
    let clash = host.bundle("clash", &[("appspec.yml", &spec), ("app/web.html", "a")]);
    let output = host.deploy(&clash, &["-g", "api"]);
    fails(&output);
    assert!(stderr(&output).contains("web.html` exists already"), "{}", stderr(&output));
    assert!(host.path("dest/api.html").exists() && host.path("dest/web.html").exists());
    succeeds(&host.deploy(&empty, &["-g", "web"]));
    assert!(!host.path("dest/web.html").exists() && !host.path("dest/lib/w").exists());
    assert!(host.path("dest/api.html").exists() && host.path("dest/lib/a").exists());
}

#[test]
fn a_web_root_is_taken_over_with_overwrite_and_a_war_is_replaced_whole() {
    let host = Host::new();
    fs::create_dir_all(host.path("dest")).unwrap();
    fs::write(host.path("dest/index.html"), "by hand").unwrap();
    let spec = appspec(&[]) + "file_exists_behavior: OVERWRITE\n";
    let one = host.bundle(
        "one",
        &[("appspec.yml", &spec), ("app/index.html", "1"), ("app/shop.war", "war 1")],
    );
    succeeds(&host.deploy(&one, &[]));
    assert_eq!(fs::read_to_string(host.path("dest/index.html")).unwrap(), "1");
    let two = host.bundle("two", &[("appspec.yml", &spec), ("app/shop.war", "war 2")]);
    succeeds(&host.deploy(&two, &[]));
    assert_eq!(fs::read_to_string(host.path("dest/shop.war")).unwrap(), "war 2");
    assert!(!host.path("dest/index.html").exists(), "what OVERWRITE replaced is ours to remove");
}

#[test]
fn a_bundle_that_may_be_moved_is_not_copied() {
    use std::os::unix::fs::MetadataExt;
    let host = Host::new();
    let bundle = good(&host, "one");
    fs::set_permissions(&bundle, std::fs::Permissions::from_mode(0o700)).unwrap();
    let inode = fs::metadata(bundle.join("app/old")).unwrap().ino();
    succeeds(&host.deploy(&bundle, &["--move-bundle"]));
    assert!(!bundle.exists());
    let archive = host.deployments().pop().unwrap().join("deployment-archive");
    assert_eq!(fs::metadata(archive.join("app/old")).unwrap().ino(), inode);
    assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o755);
    assert_ne!(fs::metadata(host.path("dest/old")).unwrap().ino(), inode, "installed as a copy");
    // A link is followed, and what it points to is not ours to take.
    let bundle = good(&host, "two");
    fs_err::os::unix::fs::symlink(&bundle, host.path("link")).unwrap();
    succeeds(&host.deploy(&host.path("link"), &["--move-bundle"]));
    assert!(bundle.join("appspec.yml").is_file());
}

#[test]
fn a_bundle_is_not_copied_into_itself() {
    let host = Host::new();
    let bundle = host.bundle("", &[("appspec.yml", "version: 0.0\nos: linux\n")]);
    let output = host.deploy(&bundle, &[]);
    fails(&output);
    assert!(stdout(&output).contains("ERROR: cannot copy directory "), "{}", stdout(&output));
}

#[test]
fn d13_contexts_are_set_by_semanage_and_taken_back() {
    let host = Host::new();
    let spec = "version: 0.0\nos: linux\nfiles:\n- source: app\n  destination: @/dest\n\
        permissions:\n- object: @/dest\n  type: [file]\n  \
        context: {name: system_u, type: httpd_sys_content_t, range: s0}\n";
    let with = host.bundle("with", &[("appspec.yml", spec), ("app/a.conf", "1"), ("app/c++", "2")]);
    let none = host.bundle("none", &[("appspec.yml", "version: 0.0\nos: linux\n")]);

    let mut bare = host.command(&with, &[]);
    let refused = bare.env("PATH", host.path("bin")).output().unwrap();
    fails(&refused);
    assert!(stderr(&refused).contains("`semanage` is needed"), "{}", stderr(&refused));
    assert!(!host.path("dest").exists());

    // Stand-ins that write down what they are told.
    let tool = "#!/bin/sh\necho \"${0##*/} $*\" >> @/log.txt\n";
    host.bundle("bin", &[("semanage.sh", tool), ("restorecon.sh", tool)]);
    for name in ["semanage", "restorecon"] {
        fs::rename(host.path(&format!("bin/{name}.sh")), host.path(&format!("bin/{name}")))
            .unwrap();
    }
    let path = format!("{}:/usr/bin:/bin", host.path("bin").display());
    succeeds(&host.command(&with, &[]).env("PATH", &path).output().unwrap());
    let dest = host.path("dest");
    let (dest, add) =
        (dest.display(), "semanage fcontext -a -s system_u -t httpd_sys_content_t -r s0");
    let expected = format!(
        "{add} {dest}/a.conf\nrestorecon -v {dest}/a.conf\n\
         {add} {dest}/c\\+\\+\nrestorecon -v {dest}/c++\n"
    );
    assert_eq!(host.log(), expected);

    fs::remove_file(host.path("log.txt")).unwrap();
    succeeds(&host.command(&none, &[]).env("PATH", &path).output().unwrap());
    let expected =
        format!("semanage fcontext -d {dest}/a.conf\nsemanage fcontext -d {dest}/c\\+\\+\n");
    assert_eq!(host.log(), expected);
    assert!(!host.path("dest").exists());
}
