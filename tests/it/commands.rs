//! The commands that only look, and what they print.

use serde_json::{Value, json};

use crate::estate::Estate;
use crate::support::app::EVENTS;
use crate::support::host::TestHost;

#[test]
fn plan_says_what_deploy_will_do_and_changes_nothing() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.want(&one);
    let plan = estate.host.run(&["plan", "--json"]).ok().json();
    assert_eq!(plan["version"], 1);
    assert_eq!(plan["changes"], 3);
    assert_eq!(plan["apps"][1]["action"]["deploy"], "new");
    assert_eq!(plan["apps"][1]["to"], one[1].as_str());
    assert!(!estate.host.path("cache").exists() && !estate.host.path("state").exists());
    estate.host.run(&["plan", "--exit-code"]).code(10).stdout_has("3 apps to deploy");
    estate.host.run(&["deploy", "--dry-run"]).ok().stdout_has("(new)");
    assert_eq!(estate.https.connections(), 0);

    estate.host.deploy().ok();
    estate.host.run(&["plan", "--exit-code"]).ok().stdout_has("nothing to deploy");
    let two = [one[0].clone(), estate.release("api", "v2"), one[2].clone()];
    estate.want(&two);
    let plan = estate.host.run(&["plan", "--json"]).ok().json();
    assert_eq!(plan["changes"], 1);
    assert_eq!(plan["apps"][1]["action"]["deploy"], "changed");
    assert_eq!(plan["apps"][1]["from"], one[1].as_str());
    assert_eq!(plan["apps"][0]["action"], "keep");
    estate.assert_deployed(&one);
}

#[test]
fn plan_tells_what_would_come_and_what_would_run_as_far_as_the_mirror_knows() {
    let estate = Estate::new(TestHost::new());
    let mut wanted = estate.release_all("v1");
    estate.deploy(&wanted).ok();
    let one = wanted[1].clone();
    let between = estate.upstream("api").commit(&[("b", "b")]);
    wanted[1] = estate.release("api", "v2");
    estate.want(&wanted);
    let preview = |args: &[&str]| {
        let plan = estate.host.run(&[&["plan", "--json"], args].concat()).ok().json();
        assert!(plan["apps"][0]["preview"].is_null(), "what is current is not looked at: {plan}");
        plan["apps"][1]["preview"].clone()
    };
    estate.https.forget();
    let unknown = preview(&[]);
    assert_eq!(estate.https.requests().len(), 0, "plan makes no connection");
    assert_eq!((&unknown["commits"], &unknown["scripts"]), (&json!([]), &Value::Null));
    estate.host.run(&["plan"]).ok().stdout_has("not in the mirror yet");

    estate.host.run(&["fetch"]).ok();
    let ids = |preview: &Value| -> Vec<String> {
        let commits = preview["commits"].as_array().expect("a list").iter();
        commits.map(|commit| commit["id"].as_str().expect("an id").to_owned()).collect()
    };
    let alone = preview(&[]);
    assert_eq!((ids(&alone), &alone["commit_count"]), (vec![wanted[1].clone()], &Value::Null));
    assert_eq!(alone["scripts"], json!(EVENTS.map(|event| format!("{event} scripts/hook.sh"))));

    // Somebody brought the history in.
    let upstream = estate.upstream("api").dir().display().to_string();
    let refs = "main:refs/heads/mine";
    estate.host.git("api", &["fetch", "-q", "--unshallow", &upstream, refs]);
    let forth = preview(&[]);
    assert_eq!(ids(&forth), [wanted[1].clone(), between.clone()]);
    assert_eq!((&forth["commit_count"], &forth["goes_back"]), (&2.into(), &false.into()));
    let subject = estate.upstream("api").git(&["log", "-1", "--format=%s", &between]);
    let text = estate.host.run(&["plan"]).ok();
    assert!(text.stdout.contains(&format!("+ {} {subject}", &between[..7])), "{text:?}");
    assert!(text.stdout.contains("runs ApplicationStop scripts/hook.sh, Before"), "{text:?}");

    estate.https.stop();
    estate.host.run(&["deploy", "--offline"]).ok();
    let two = std::mem::replace(&mut wanted[1], one);
    estate.want(&wanted);
    let back = preview(&["--offline"]);
    assert_eq!((ids(&back), &back["goes_back"]), (vec![two, between], &true.into()), "{back}");
}

#[test]
fn a_deployment_leaves_as_much_room_as_is_asked_for() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.want(&one);
    let machine = estate.host.write("etc/config.yaml", "limits: {min_free_space: 9000000G}\n");
    let args = ["deploy", "--machine-config", &machine];
    estate.host.run(&args).code(11).says("besides the 9000000").says("`min_free_space`");
    assert_eq!(estate.host.recorded("api", "attempted"), None);
    assert_eq!(estate.host.deployments(), []);
    estate.host.write("etc/config.yaml", "limits: {min_free_space: 1M}\n");
    estate.host.run(&args).ok();
    estate.assert_installed(["v1"; 3]);
}

#[test]
fn status_says_what_runs_and_whether_it_is_wanted() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.want(&one);
    estate.host.run(&["status", "--exit-code"]).code(10).stdout_has("missing");
    estate.host.deploy().ok();
    let status = estate.host.run(&["status", "--exit-code", "--json"]).ok().json();
    assert_eq!(status["version"], 1);
    for (at, commit) in one.iter().enumerate() {
        let app = &status["apps"][at];
        assert_eq!((&app["state"], &app["deployed"]), (&"current".into(), &commit.as_str().into()));
        assert!(app["since"].as_i64().expect("a time") > 1_600_000_000);
        assert!(app["tool"].as_str().expect("a tool").contains("built-in"));
    }
    let two = [one[0].clone(), estate.release("api", "v2"), one[2].clone()];
    estate.host.breaks("api", "boom");
    estate.deploy(&two).code(4);
    let status = estate.host.run(&["status", "api", "--json"]).ok().json();
    let api = &status["apps"][0];
    assert_eq!(status["apps"].as_array().map(Vec::len), Some(1));
    assert_eq!(api["state"], "unfinished");
    assert_eq!(
        (&api["deployed"], &api["attempted"]),
        (&one[1].as_str().into(), &two[1].as_str().into())
    );
    assert!(api["failure"].as_str().expect("why").contains("hook.sh"), "{api}");
    estate.host.run(&["status", "nobody"]).code(2).says("nobody");
}

#[test]
fn history_and_logs_tell_what_happened_and_how() {
    let estate = Estate::new(TestHost::new());
    estate.host.run(&["history"]).ok().stdout_has("no deployments are recorded");
    estate.host.run(&["logs"]).code(11).says("cannot read the log");
    let one = estate.release_all("v1");
    let first = estate.deploy(&one).ok();
    drop(first);
    estate.host.breaks("api", "boom");
    let two = [one[0].clone(), estate.release("api", "v2"), one[2].clone()];
    estate.deploy(&two).code(4);

    let history = estate.host.run(&["history", "--json"]).ok().json();
    assert_eq!((&history["version"], &history["command"]), (&1.into(), &"history".into()));
    let entries = history["entries"].as_array().expect("a list");
    assert_eq!(entries.len(), 4, "{history}");
    let newest = &entries[0];
    assert_eq!((&newest["app"], &newest["result"]), (&"api".into(), &"failed".into()));
    assert_eq!(newest["from"], one[1].as_str());
    assert_eq!(newest["to"], two[1].as_str());
    assert!(newest["failure"].as_str().expect("why").contains("hook.sh"), "{newest}");
    let text = estate.host.run(&["history", "api", "-n", "1", "--since", "1d"]).ok();
    assert!(text.stdout.contains(&format!("{} -> {}", &one[1][..7], &two[1][..7])), "{text:?}");
    assert_eq!(text.stdout.lines().count(), 2, "{text:?}");
    estate.host.run(&["history", "nobody"]).code(2).says("nobody");
    estate.host.run(&["history", "--since", "soon"]).code(2);

    let run = newest["run"].as_str().expect("a run");
    let logs = estate.host.run(&["logs", "api"]).ok();
    assert!(logs.stdout.contains("boom") && logs.stdout.contains("failed after"), "{logs:?}");
    assert!(!logs.stdout.contains("worker") && !logs.stdout.contains("deployed in"), "{logs:?}");
    let same = estate.host.run(&["logs", "api", "--run", run, "--json"]).ok().json();
    assert_eq!((&same["run"], &same["app"]), (&run.into(), &"api".into()));
    let first = entries[3]["run"].as_str().expect("a run");
    let logs = estate.host.run(&["logs", "--run", first]).ok();
    assert!(logs.stdout.contains("worker: deployed in"), "{logs:?}");
    assert!(!logs.stdout.contains("boom"), "{logs:?}");
    // The last run had nothing to do with `worker`.
    let logs = estate.host.run(&["logs", "worker"]).ok();
    assert!(logs.stdout.contains("deployed in"), "{logs:?}");
    estate.host.run(&["logs", "--run", "20200101T000000Z-000000"]).code(2).says("no lines");
}

#[test]
fn a_deploy_reports_in_json() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.host.breaks("api", "boom");
    estate.want(&one);
    let ran = estate.host.run(&["deploy", "--json"]).code(4);
    let report = ran.json();
    assert_eq!((&report["version"], &report["command"]), (&1.into(), &"deploy".into()));
    assert_eq!(report["exit_code"], 4);
    let ends: Vec<_> = (0..3).map(|at| report["apps"][at]["result"].clone()).collect();
    assert_eq!(ends, ["deployed", "failed", "not_run"]);
    let failure = &report["apps"][1]["failure"];
    assert!(failure["output"].to_string().contains("boom"), "{failure}");
}

#[test]
fn check_finds_everything_wrong_and_says_where() {
    let host = TestHost::new();
    host.manifest(
        "version: 2\napps:\n  - {name: a/b, source: \"https://x.example/y\", release: \"123\"}\n  - {name: ok, source: \"git://x/y\", froce: true}\n",
    );
    let ran = host.run(&["check"]).code(2);
    for place in ["multideployer.yaml:3:12", "multideployer.yaml:3:", "multideployer.yaml:4:"] {
        assert!(ran.stdout.contains(place), "{place}: {ran:?}");
    }
    let ran = ran.says("did you mean `force`?").says("release");
    drop(ran);
    let json = host.run(&["check", "--json"]).code(2).json();
    assert!(json["files"][0]["diagnostics"].as_array().expect("a list").len() >= 4, "{json}");
    host.run(&["deploy"]).code(2).says("froce");
    assert!(!host.path("cache/mirrors").exists());
    host.run(&["check", "/nowhere.yaml"]).code(2).says("/nowhere.yaml");
}

#[test]
fn a_manifest_that_is_no_file_ends_at_once() {
    let host = TestHost::new();
    let pipe = host.path("etc/pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let pipe = pipe.display().to_string();
    let ran = host.run_bare(&["check", &pipe]).code(2).within(std::time::Duration::from_secs(5));
    drop(ran.says("regular file"));
    host.run_bare(&["check", "/dev/zero"]).code(2).says("regular file");
}

#[test]
fn a_status_of_a_manifest_that_was_named_and_is_not_there_is_an_error() {
    let estate = Estate::new(TestHost::new());
    estate.host.run(&["status", "--exit-code"]).code(2).says("multideployer.yaml");
    estate.host.run(&["status"]).code(2).says("multideployer.yaml");
}

#[test]
fn an_answer_that_cannot_be_written_is_not_a_success() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.want(&one);
    let mut command = estate.host.command(&["plan"]);
    command.stdout(std::fs::OpenOptions::new().write(true).open("/dev/full").expect("it is there"));
    let status = command.output().expect("it starts").status;
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_working_directory_that_is_gone_fails_no_app() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.want(&one);
    let inner = estate.host.command(&["deploy"]);
    let mut command = std::process::Command::new("sh");
    let gone = estate.host.path("gone");
    std::fs::create_dir(&gone).expect("a directory");
    command.current_dir(&gone).args(["-c", "rmdir \"$PWD\"; exec \"$@\"", "sh"]);
    command.arg(inner.get_program()).args(inner.get_args()).env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    estate.host.start_command(command).wait().ok();
    estate.assert_installed(["v1"; 3]);
}

#[test]
fn usage_errors_have_their_own_exit_code() {
    let host = TestHost::new();
    for args in
        [&["--nonsense"][..], &["deploy", "extra"], &["-f", "status"], &["plan", "--jobs", "0"]]
    {
        host.run_bare(args).code(2);
    }
    host.run_bare(&["--help"]).ok().stdout_has("Exit codes:");
    host.run_bare(&["--version"]).ok().stdout_has(env!("CARGO_PKG_VERSION"));
}

#[test]
fn init_writes_what_check_accepts_and_overwrites_nothing() {
    let host = TestHost::new();
    let wrote = host.run_bare(&["init", "fleet"]).ok();
    assert_eq!(wrote.stdout.lines().count(), 4, "{wrote:?}");
    host.run_bare(&["check", "fleet/multideployer.yaml"]).ok();
    host.write("fleet/multideployer.yaml", "mine");
    host.run_bare(&["init", "fleet"]).code(2).says("nothing was written");
    assert_eq!(host.read("fleet/multideployer.yaml"), "mine");
}

#[test]
#[ignore = "needs root: the file is given to root"]
fn init_writes_what_codedeploy_can_deploy() {
    let host = TestHost::new();
    let _ = host.run_bare(&["init", "fleet"]).ok();
    let etc = host.path("installed").display().to_string();
    for file in ["fleet/appspec.yml", "fleet/scripts/after_install.sh"] {
        let text = host.read(file).replace("/etc/multideployer", &etc);
        host.write(file, &text);
    }
    // The hook finds this program, and this program its directories, by the environment.
    let mut command = host.bare();
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_multideployer"));
    let path = format!("{}:/usr/bin:/bin", binary.parent().expect("a directory").display());
    command.env("PATH", path);
    for (name, place) in [("CACHE_DIR", "cache"), ("STATE_DIR", "state"), ("LOG", "log/m.log")] {
        command.env(format!("MULTIDEPLOYER_{name}"), host.path(place));
    }
    command.args(["codedeploy-local", "--type", "directory", "--bundle-location"]);
    command.arg(host.path("fleet")).args(["--deployment-group", "fleet"]);
    command.arg("--agent-configuration-file").arg(host.path("etc/codedeployagent.yml"));
    let _ = host.start_command(command).wait().ok();
    assert!(host.read("installed/multideployer.yaml").contains("version: 2"));
    assert!(host.read("log/m.log").contains("ends with exit code 0"), "{}", host.read("log/m.log"));
}

#[test]
fn completion_and_man_pages_know_the_commands() {
    let host = TestHost::new();
    for (shell, command) in [("bash", "bash"), ("zsh", "zsh"), ("fish", "fish")] {
        let script = host.run_bare(&["completion", shell]).ok().stdout;
        assert!(script.contains("history") && script.contains("lock-wait"), "{shell}: {script}");
        let file = host.write("completion", &script);
        // Shells that are here say whether it is a script.
        let checked = std::process::Command::new(command).args(["-n", &file]).status();
        assert!(checked.map_or(shell != "bash", |status| status.success()), "{shell}");
    }
    let schema = host.run_bare(&["schema"]).ok().stdout;
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    assert_eq!(schema["properties"]["apps"]["items"]["required"][2], "release");
    let page = host.run_bare(&["man"]).ok().stdout;
    assert!(page.contains(".TH multideployer 1") && page.contains("Exit codes"), "{page}");
    let pages = host.run_bare(&["man", "pages"]).ok().stdout;
    assert!(pages.contains("pages/multideployer-deploy.1\n"), "{pages}");
    for page in pages.lines() {
        assert!(host.read(page).contains(".SH NAME"), "{page}");
    }
    let guide = host.run_bare(&["guide"]).ok().stdout;
    assert!(guide.starts_with("# Operations\n"), "{guide}");
    host.run_bare(&["guide", "codedeploy-local"]).ok().stdout_has("| D22 |");
    host.run_bare(&["guide", "nothing"]).code(2).says("operations");
    host.run_bare(&["man", "/dev/null/x"]).code(11).says("/dev/null/x");
}

#[test]
fn the_machine_file_holds_for_every_manifest() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.want(&one);
    let manifest = estate.host.read("etc/multideployer.yaml");
    let (hosts, rest) = (manifest.find("hosts:").expect("hosts"), manifest.find("apps:"));
    let (hosts, apps) = manifest[hosts..].split_at(rest.expect("apps") - hosts);
    estate.host.manifest(&format!("version: 2\n{apps}"));
    let log = estate.host.path("log/other.log").display().to_string();
    let report = format!("report:\n  log: {{file: {log}, format: json}}\n");
    let file = estate.host.write("etc/machine.yaml", &format!("{hosts}{report}"));

    estate.host.deploy().code(3);
    let mut command = estate.host.command(&["deploy", "--machine-config", &file]);
    command.env("MULTIDEPLOYER_MACHINE_CONFIG", "/nowhere");
    estate.host.start_command(command).wait().ok();
    estate.assert_installed(["v1"; 3]);
    assert!(!std::path::Path::new(&log).exists(), "--log counts before the file");

    // Without --log the file says where and how.
    let mut command = estate.host.bare();
    let given = estate.host.command(&["deploy", "--force", "--json", "--machine-config", &file]);
    let mut args = given.get_args();
    while let Some(arg) = args.next() {
        if arg == "--log" {
            args.next();
        } else {
            command.arg(arg);
        }
    }
    let report = estate.host.start_command(command).wait().ok().json();
    assert_eq!(report["log"], log.as_str());
    let lines = std::fs::read_to_string(&log).expect("the log");
    let last: Value = serde_json::from_str(lines.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["multideployer.run"], report["run"]);

    let bad = estate.host.write("etc/bad.yaml", "hosts: {}\napps: []\n");
    let ran = estate.host.run(&["deploy", "--machine-config", &bad]).code(2);
    drop(ran.says("bad.yaml:2:1").says("unknown key `apps`"));
    estate.host.run(&["plan", "--machine-config", "/nowhere"]).code(2).says("machine file");
}

#[test]
fn what_cannot_be_carried_out_is_json_too() {
    let host = TestHost::new();
    host.manifest("version: 2\napps: [{name: x}]\n");
    for (args, command) in [
        (&["plan", "--json"][..], "plan"),
        (&["--dry-run", "--json"], "plan"),
        (&["status", "--json"], "status"),
        (&["--jobs", "2", "--json", "status"], "status"),
    ] {
        let document = host.run(args).code(2).json();
        assert_eq!(document["command"], command, "{args:?}");
        assert_eq!((&document["exit_code"], &document["failure"]["code"]), (&2.into(), &2.into()));
        assert!(document["diagnostics"].is_array(), "{document}");
    }
    for (args, command, words) in [
        (&["plan", "--json", "--nonsense"][..], Some("plan"), "'--nonsense'"),
        (&["--json", "--nonsense"], None, "'--nonsense'"),
        (&["--json", "statsu"], None, "'statsu'"),
        (&["deploy", "--json", "--jobs", "0"], Some("deploy"), "--jobs"),
    ] {
        let ran = host.run_bare(args).code(2);
        assert!(ran.stderr.is_empty(), "{ran:?}");
        let document = ran.json();
        assert_eq!(document["command"].as_str(), command, "{args:?}");
        assert_eq!(document["exit_code"], 2);
        let failure = &document["failure"];
        assert!(failure["message"].as_str().expect("text").contains(words), "{failure}");
        assert!(failure["hint"].as_str().is_some_and(|hint| hint.len() > 5), "{failure}");
    }
    host.run_bare(&["plan", "--", "--json", "x"]).code(2).stderr_has("Usage");
    host.run_bare(&["--json", "--help"]).ok().stdout_has("Exit codes:");
}
