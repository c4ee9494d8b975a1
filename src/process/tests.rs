use std::process;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;

fn sh(script: &str) -> Command {
    Command::new("/bin/sh").args(["-c", script])
}

fn run(command: Command) -> (Finished, Vec<(Stream, String)>) {
    let mut lines = Vec::new();
    let finished = command.run(&Interrupt::new(), &mut |line| {
        lines.push((line.stream, String::from_utf8_lossy(line.bytes).into_owned()));
    });
    (finished, lines)
}

fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim().starts_with('Z'))
}

#[test]
fn output_arrives_by_line_and_by_stream_and_the_code_is_kept() {
    let (finished, lines) = run(sh("echo a; echo b >&2; printf 'c\\r\\n\\nd'; exit 3"));
    assert_eq!(finished.outcome, Outcome::Exited(3));
    let of = |which| {
        let of_stream = lines.iter().filter(move |(s, _)| *s == which);
        of_stream.map(|(_, t)| t.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(of(Stream::Stdout), ["a", "c\r", "", "d"]);
    assert_eq!(of(Stream::Stderr), ["b"]);
}

#[test]
fn very_long_lines_come_in_pieces_that_add_up() {
    let mut total = 0;
    let mut largest = 0;
    let mut ends = 0;
    let command = sh("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end");
    command.run(&Interrupt::new(), &mut |line| {
        total += line.bytes.len();
        largest = largest.max(line.bytes.len());
        ends += usize::from(!line.continues);
    });
    assert_eq!((total, ends), (3_000_003, 2));
    assert!(largest < 100_000);
}

#[test]
fn the_child_leads_its_group_in_our_session_and_its_input_is_at_its_end() {
    let (_, lines) = run(sh("cut -d' ' -f5,6 /proc/$$/stat; echo $$; cat"));
    let (group, session) = lines[0].1.split_once(' ').unwrap();
    assert_eq!(group, lines[1].1);
    assert_eq!(session, nix::unistd::getsid(None).unwrap().to_string());
    assert_eq!(lines.len(), 2);
    let (_, lines) = run(sh("cat; echo done").stdin_bytes("secret\n"));
    assert_eq!(lines[0].1, "secret");
    let (_, lines) = run(sh("wc -c").stdin_bytes(vec![b'x'; 1 << 20]));
    assert_eq!(lines[0].1.trim(), "1048576");
    // Nobody reads it.
    assert!(run(sh("exit 0").stdin_bytes(vec![b'x'; 1 << 20])).0.success());
}

#[test]
fn environment_and_directory_are_as_asked() {
    let (_, lines) = run(sh("echo $A-$HOME; pwd").env_clear().env("A", "1").current_dir("/proc"));
    assert_eq!(lines[0].1, "1-");
    assert_eq!(lines[1].1, "/proc");
}

#[test]
fn the_deadline_ends_descendants_in_sessions_of_their_own_too() {
    let script = "setsid sleep 61 & echo $!; setsid sh -c 'sleep 62 & echo $!; wait' & sleep 63";
    let (finished, lines) = run(sh(script).deadline(Some(Duration::from_millis(700))));
    assert_eq!(finished.outcome, Outcome::TimedOut { limit: Duration::from_millis(700) });
    assert!(finished.took < Duration::from_secs(4), "{:?}", finished.took);
    assert_eq!(lines.len(), 2);
    for (_, pid) in &lines {
        assert!(!alive(pid), "{pid} lives");
    }
}

#[test]
fn what_ignores_sigterm_is_killed_five_seconds_later() {
    let script = "trap '' TERM; echo $$; for i in 1 2 3 4 5 6 7 8 9; do sleep 1; done";
    let (finished, lines) = run(sh(script).deadline(Some(Duration::from_millis(300))));
    assert!(matches!(finished.outcome, Outcome::TimedOut { .. }));
    assert!((5.0..7.5).contains(&finished.took.as_secs_f64()), "{:?}", finished.took);
    assert!(!alive(&lines[0].1));
}

#[test]
fn a_daemon_of_an_earlier_run_survives_the_end_of_a_later_one() {
    let (first, lines) = run(sh("(setsid sleep 64 >/dev/null 2>&1 & echo $!)"));
    assert_eq!(first.outcome, Outcome::Exited(0));
    let (second, _) = run(sh("sleep 65").deadline(Some(Duration::from_millis(200))));
    assert!(matches!(second.outcome, Outcome::TimedOut { .. }));
    assert!(alive(&lines[0].1));
    let pid = Pid::from_raw(lines[0].1.parse().unwrap());
    kill(pid, Signal::SIGKILL).unwrap();
}

#[test]
fn children_that_other_code_has_started_are_left_to_it() {
    let mut ended = process::Command::new("true").spawn().unwrap();
    let mut lives = process::Command::new("sleep").arg("67").spawn().unwrap();
    let zombie = |child: &Child| {
        let stat = fs_err::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        stat.contains(") Z ")
    };
    while !zombie(&ended) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let (timed_out, _) = run(sh("sleep 68").deadline(Some(Duration::from_millis(100))));
    assert!(matches!(timed_out.outcome, Outcome::TimedOut { .. }));
    assert!(ended.wait().unwrap().success());
    assert!(lives.try_wait().unwrap().is_none(), "it was ended");
    lives.kill().unwrap();
    lives.wait().unwrap();
}

#[test]
fn who_holds_the_output_is_named_and_left_alone() {
    let script = "sleep 66 & echo $!; exit 0";
    let (finished, lines) = run(sh(script).output_grace(Duration::from_millis(300)));
    let pid: i32 = lines[0].1.parse().unwrap();
    let held = Outcome::OutputHeld { end: Ok(0), by: vec![Holder { pid, name: "sleep".into() }] };
    assert_eq!(finished.outcome, held);
    assert!(alive(&lines[0].1));
    assert!(describe_exit(&finished).contains(&format!("background process {pid} (sleep)")));
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

#[test]
fn an_interrupt_ends_even_what_ignores_it_within_four_seconds() {
    let interrupt = Interrupt::new();
    let other = interrupt.clone();
    let timer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        other.set(Signal::SIGTERM as i32);
    });
    let script = "trap '' TERM; for i in 1 2 3 4 5 6 7 8 9; do sleep 1; done";
    let finished = sh(script).run(&interrupt, &mut |_| ());
    timer.join().unwrap();
    assert_eq!(finished.outcome, Outcome::Interrupted(15));
    assert!(finished.took < Duration::from_millis(4_300), "{:?}", finished.took);
    // And nothing is started any more.
    let finished = sh("exit 0").run(&interrupt, &mut |_| ());
    assert_eq!(finished.outcome, Outcome::Interrupted(15));
}

#[test]
fn a_signal_is_not_an_exit_code() {
    let (finished, _) = run(sh("kill -9 $$"));
    assert_eq!(finished.outcome, Outcome::Signalled(9));
    assert!(describe_exit(&finished).starts_with("was ended by SIGKILL"));
}

#[test]
fn reasons_for_not_starting_are_told_apart() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let script = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let why = |path: &Path| match run(Command::new(path)).0.outcome {
        Outcome::NotStarted(why) => why,
        other => panic!("{other:?}"),
    };
    let missing = dir.path().join("missing");
    assert_eq!(why(&missing), StartFailure::Missing(missing));
    let crlf = script("crlf", "#!/bin/sh\r\necho\r\n", 0o755);
    let interpreter = "/bin/sh\\r".to_owned();
    assert_eq!(why(&crlf), StartFailure::NoInterpreter { script: crlf, interpreter });
    let empty = script("empty", "", 0o755);
    assert_eq!(why(&empty), StartFailure::UnknownFormat(empty));
    let plain = script("plain", "#!/bin/sh\n", 0o644);
    assert_eq!(why(&plain), StartFailure::NotExecutable(plain));
    let gone = run(sh("true").current_dir(dir.path().join("gone"))).0.outcome;
    assert!(matches!(gone, Outcome::NotStarted(StartFailure::NoWorkingDirectory(_))));
}

#[test]
fn children_of_many_threads_do_not_lose_their_ends() {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let finished = Command::new("true").run(&Interrupt::new(), &mut |_| {});
                    assert_eq!(finished.outcome, Outcome::Exited(0));
                    let missing = Command::new("/no/such").run(&Interrupt::new(), &mut |_| {});
                    assert!(matches!(missing.outcome, Outcome::NotStarted(_)), "{missing:?}");
                }
            });
        }
    });
}
