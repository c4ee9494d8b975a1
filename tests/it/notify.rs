//! Who is told that a run ended, and what the metrics say of it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::estate::Estate;
use crate::support::host::TestHost;

/// Adds a section to the manifest.
fn add(estate: &Estate, section: &str) {
    let manifest = estate.host.read("etc/multideployer.yaml");
    estate.host.manifest(&format!("{manifest}{section}"));
}

#[test]
fn the_metrics_say_what_runs_here_and_since_when() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    let file = estate.host.path("metrics/m.prom");
    std::fs::create_dir(estate.host.path("metrics")).expect("a directory");
    let section = format!("report: {{metrics: {{textfile: {}}}}}\n", file.display());
    estate.want(&one);
    add(&estate, &section);
    estate.host.deploy().ok();
    let text = std::fs::read_to_string(&file).expect("the metrics");
    let info = format!("multideployer_app_info{{app=\"api\",revision=\"{}\"}} 1\n", one[1]);
    assert!(text.contains(&info), "{text}");
    assert!(text.contains("\nmultideployer_last_run_exit_code 0\n"), "{text}");
    let sample = |text: &str, name: &str| -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    let fetched = sample(&text, "multideployer_app_fetched_bytes{app=\"api\"}").expect("bytes");
    assert!(fetched > 100.0, "{text}");
    assert!(sample(&text, "multideployer_app_mirror_bytes{app=\"api\"}") > Some(fetched));
    let phase = "multideployer_app_phase_seconds{app=\"api\",phase=\"prepare\"}";
    assert!(sample(&text, phase) > Some(0.0), "{text}");
    let success = sample(&text, "multideployer_last_success_timestamp_seconds");
    assert!(success > Some(1.6e9), "{text}");
    let mode = std::fs::metadata(&file).expect("the metrics").permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "others read it");

    // A failure keeps the time of the last success, and the old revision.
    let two = [one[0].clone(), estate.release("api", "v2"), one[2].clone()];
    estate.host.breaks("api", "boom");
    estate.want(&two);
    add(&estate, &section);
    estate.host.deploy().code(4);
    let text = std::fs::read_to_string(&file).expect("the metrics");
    assert!(text.contains(&info), "{text}");
    assert_eq!(sample(&text, "multideployer_last_success_timestamp_seconds"), success);
    assert_eq!(sample(&text, "multideployer_app_failed{app=\"api\"}"), Some(1.0));
    assert_eq!(sample(&text, "multideployer_runs_total"), Some(2.0));
    assert_eq!(sample(&text, "multideployer_failures_total"), Some(1.0));

    // A place that cannot be written is a warning.
    estate.host.hook_works("api");
    estate.want(&two);
    add(&estate, "report: {metrics: {textfile: /dev/null/m.prom}}\n");
    estate.host.deploy().ok().says("the metrics are not written");
}

#[test]
fn a_program_gets_the_report_and_cannot_change_the_result() {
    let estate = Estate::new(TestHost::new());
    let got = estate.host.path("got").display().to_string();
    let script = format!("#!/bin/sh\ncat >{got}.json\nenv >{got}.env\necho told\nexit 3\n");
    let path = estate.host.write("etc/tell", &script);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let section = |on: &str| format!("report: {{notify: [{{on: [{on}], command: [./tell]}}]}}\n");
    let one = estate.release_all("v1");
    estate.want(&one);
    add(&estate, &section("failure"));
    estate.host.deploy().ok();
    assert!(!estate.host.path("got.json").exists(), "it was no failure");

    let two = [one[0].clone(), estate.release("api", "v2"), one[2].clone()];
    estate.want(&two);
    add(&estate, &section("success, change"));
    let mut command = estate.host.command(&["deploy"]);
    command.env("MULTIDEPLOYER_GITHUB_TOKEN", "s3cr3t-token");
    let ran = estate.host.start_command(command).wait().ok().says("somebody was not told");
    assert!(ran.stderr.contains("etc/tell`: "), "{ran:?}");
    let report: serde_json::Value =
        serde_json::from_str(&estate.host.read("got.json")).expect("JSON");
    assert_eq!((&report["command"], &report["exit_code"]), (&"deploy".into(), &0.into()));
    assert_eq!(report["apps"][1]["result"], "deployed");
    assert!(report["who"].as_str().expect("who").contains('@'), "{report}");
    assert!(!estate.host.read("got.env").contains("s3cr3t-token"));
    assert!(estate.host.read("log/multideployer.log").contains("notify | told"));

    // Nothing to do is no change; one that hangs is ended, with all it started.
    std::fs::remove_file(estate.host.path("got.json")).expect("the report");
    estate.want(&two);
    add(&estate, &section("change"));
    estate.host.deploy().ok();
    assert!(!estate.host.path("got.json").exists(), "it was no change");
    estate.want(&two);
    add(
        &estate,
        &format!(
            "report: {{notify: [{{on: [always], within: 1s, command: [sh, -c, 'sleep 300 # {got}']}}]}}\n"
        ),
    );
    let ran = estate.host.deploy().ok().within(Duration::from_secs(20));
    drop(ran.says("somebody was not told"));
    assert!(estate.host.processes().is_empty());
}

#[test]
fn the_machine_files_receivers_hear_of_a_manifest_that_is_refused() {
    let estate = Estate::new(TestHost::new());
    let got = estate.host.path("got").display().to_string();
    let machine = format!("report: {{notify: [{{command: [sh, -c, 'cat >{got}']}}]}}\n");
    let machine = estate.host.write("etc/machine.yaml", &machine);
    estate.host.manifest("version: 2\napps: 7\n");
    let ran = estate.host.run(&["deploy", "--machine-config", &machine]).code(2);
    drop(ran.says("it must be a list"));
    let report: serde_json::Value = serde_json::from_str(&estate.host.read("got")).expect("JSON");
    assert_eq!(report["exit_code"], 2);
    assert!(report["diagnostics"].to_string().contains("must be a list"), "{report}");
}

/// Answers one request with a status and gives back what was sent.
fn receiver(status: &str) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = Vec::new();
        let mut part = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&request).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
                });
                if body.len() >= length.unwrap_or(0_usize) {
                    break;
                }
            }
            match stream.read(&mut part).expect("a request") {
                0 => break,
                n => request.extend(&part[..n]),
            }
        }
        stream.write_all(answer.as_bytes()).expect("an answer");
        String::from_utf8_lossy(&request).into_owned()
    });
    (address, thread)
}

#[test]
fn a_webhook_is_posted_the_report_and_its_url_stays_secret() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    let (address, thread) = receiver("204 No Content");
    let url = estate.host.secret("hook", &format!("http://{address}/T000/s3cr3t-path\n"));
    let section = format!("report: {{notify: [{{on: [always], webhook: {{url_file: {url}}}}}]}}\n");
    estate.want(&one);
    add(&estate, &section);
    let ran = estate.host.deploy().ok();
    assert!(!ran.stderr.contains("was not told"), "{ran:?}");
    let request = thread.join().expect("the receiver");
    assert!(request.starts_with("POST /T000/s3cr3t-path HTTP/1.1\r\n"), "{request}");
    let (_, body) = request.split_once("\r\n\r\n").expect("a body");
    let report: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(report["apps"].as_array().map(Vec::len), Some(3));

    let (address, thread) = receiver("403 Forbidden");
    let url = format!("http://{address}/T000/s3cr3t-path");
    estate.want(&one);
    add(&estate, "report: {notify: [{on: [always], webhook: {url_env: HOOK_URL}}]}\n");
    let mut command = estate.host.command(&["deploy", "--force"]);
    command.env("HOOK_URL", &url);
    let ran = estate.host.start_command(command).wait().ok();
    drop(ran.says(&format!("the webhook at {address} answered with status 403")));
    drop(thread.join());
    // Nobody listens any more.
    let mut command = estate.host.command(&["deploy"]);
    command.env("HOOK_URL", &url);
    drop(estate.host.start_command(command).wait().ok().says("was not told"));
    estate.host.run(&["deploy"]).ok().says("no URL in the variable `HOOK_URL`");
    // Nobody writes into it, and nobody waits for that.
    let pipe = estate.host.path("secrets/pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    estate.want(&one);
    let place = format!("{{url_file: {}}}", pipe.display());
    add(&estate, &format!("report: {{notify: [{{on: [always], webhook: {place}}}]}}\n"));
    let ran = estate.host.run(&["deploy"]).ok().within(Duration::from_secs(20));
    drop(ran.says("it is not a regular file"));
    estate.host.assert_nowhere(&["s3cr3t-path"]);
}
