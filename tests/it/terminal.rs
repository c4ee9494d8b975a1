//! What a person at a terminal sees.

use std::process::Command;

use crate::estate::Estate;
use crate::support::host::{Ran, TestHost};

/// Runs the program with a terminal, 100 columns wide, as its input and output.
fn on_a_terminal(host: &TestHost, args: &[&str]) -> Ran {
    let program = host.command(args);
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().expect("text"));
    let mut line = "stty cols 100 rows 30; exec ".to_owned() + &quoted(program.get_program());
    for word in program.get_args() {
        line += &format!(" {}", quoted(word));
    }
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env_clear();
    script.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script.env("TERM", "xterm").current_dir(host.dir());
    host.start_command(script).wait()
}

/// What stays on the terminal: of a line that was taken back, nothing.
fn stays(ran: &Ran) -> Vec<String> {
    let mut lines = Vec::new();
    for line in ran.stdout.split('\n') {
        let line = line.trim_end_matches('\r');
        // Everything that is painted over begins anew at the left edge.
        let line = line.rsplit(['\r']).next().unwrap_or_default();
        let line = line.rsplit("\u{1b}[2K").next().unwrap_or_default();
        if !line.is_empty() {
            lines.push(line.to_owned());
        }
    }
    lines
}

#[test]
fn a_terminal_sees_one_line_for_each_app_and_a_table() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.want(&one);
    let ran = on_a_terminal(&estate.host, &["deploy"]).ok();
    let lines = stays(&ran);
    let short = |revision: &str| revision[..7].to_owned();
    for (app, revision) in [("gateway", &one[0]), ("api", &one[1]), ("worker", &one[2])] {
        let done = format!("{app}: \u{1b}[32mdeployed {} in ", short(revision));
        let own: Vec<&String> = lines.iter().filter(|line| line.contains(app)).collect();
        assert_eq!(own.len(), 2, "{app}: {lines:#?}");
        assert!(own[0].contains(&done), "{lines:#?}");
        assert!(own[1].starts_with(app) && own[1].contains(&short(revision)), "{lines:#?}");
        // What is being done was seen, too.
        let doing = format!("{app}: deploying nothing -> {} (new)", short(revision));
        assert!(ran.stdout.contains(&doing), "{ran:?}");
    }
    let last = lines.last().expect("a line");
    assert!(last.contains("\u{1b}[32mok\u{1b}[0m: 3 deployed in "), "{lines:#?}");

    // Colours are for the terminal alone.
    let log = std::fs::read_to_string(estate.host.path("log/multideployer.log")).expect("the log");
    assert!(log.contains(" api deployed in "), "{log}");
    assert!(!log.contains(['\u{1b}', '\u{fffd}']), "{log}");

    let forced = on_a_terminal(&estate.host, &["deploy", "--force", "--verbose"]).ok();
    assert!(forced.stdout.contains("Local deployment successful"), "{forced:?}");
}

#[test]
fn without_colours_a_terminal_gets_none() {
    let estate = Estate::new(TestHost::new());
    estate.want(&estate.release_all("v1"));
    estate.host.breaks("worker", "boom");
    let ran = on_a_terminal(&estate.host, &["deploy", "--color", "never"]).code(4);
    assert!(ran.stdout.contains("error: worker: "), "{ran:?}");
    for colour in ["\u{1b}[3", "\u{1b}[1m", "\u{1b}[2m"] {
        assert!(!ran.stdout.contains(colour), "{ran:?}");
    }
}
