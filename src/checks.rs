//! Asks whether an app that was deployed is well, until it is or its time is over.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::codedeploy::EnvironmentChange;
use crate::domain::{Check, Probe, Secret};
use crate::error::{ExitCode, Failure};
use crate::process::{Command, Interrupt, describe_exit};
use crate::web;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// For one try.
const TRY: Duration = Duration::from_secs(10);
/// How soon a signal is noticed.
const TICK: Duration = Duration::from_millis(50);
/// Lines of a program's output that are kept.
const LINES: usize = 20;
/// Characters of an answer that are shown.
const SHOWN: usize = 200;

/// What checks are made with.
pub struct World<'a> {
    /// What a program finds in its environment: what the app's hooks do.
    pub environment: &'a EnvironmentChange,
    /// Authorities (PEM) trusted instead of the system's.
    pub ca_bundle: Option<PathBuf>,
    /// Whoever ends this run.
    pub interrupt: &'a Interrupt,
    /// Gets a line for each try.
    pub log: &'a dyn Fn(&str),
}

/// What was not so, in a line, and what a program printed.
struct Wrong {
    answer: String,
    output: Vec<String>,
}

impl From<String> for Wrong {
    fn from(answer: String) -> Self {
        Self { answer, output: Vec::new() }
    }
}

/// Makes the checks one after the other; `left` is the time there is for all.
///
/// # Errors
/// The first that was not so within its time, with the last answer; or a signal came.
pub fn run(checks: &[Check], left: Option<Duration>, world: &World<'_>) -> Result<(), Failure> {
    let started = Instant::now();
    for check in checks {
        let left = left.map(|left| left.saturating_sub(started.elapsed()));
        await_one(check, check.within.min(left.unwrap_or(Duration::MAX)), world)?;
    }
    Ok(())
}

fn await_one(check: &Check, within: Duration, world: &World<'_>) -> Result<(), Failure> {
    let started = Instant::now();
    loop {
        let left = within.saturating_sub(started.elapsed()).max(TICK);
        let tried = try_once(&check.probe, left.min(TRY), world);
        if let Some(signal) = world.interrupt.signal() {
            let text = format!("ended by a signal during the check `{}`", check.probe);
            return Err(Failure::new(ExitCode::of_signal(signal), text));
        }
        let wrong = match tried {
            Ok(()) => {
                let took = started.elapsed().as_secs_f64();
                (world.log)(&format!("check `{}` passed after {took:.1} s", check.probe));
                return Ok(());
            }
            Err(wrong) => wrong,
        };
        (world.log)(&format!("check `{}`: {}", check.probe, wrong.answer));
        if started.elapsed() + PAUSE >= within {
            let seconds = within.as_secs_f64();
            let text = format!("the check `{}` did not pass within {seconds:.0} s", check.probe);
            let mut failure = Failure::new(ExitCode::AppFailed, text);
            failure.causes.push(wrong.answer);
            failure.output = wrong.output;
            return Err(failure);
        }
        let pause = Instant::now();
        while pause.elapsed() < PAUSE && world.interrupt.signal().is_none() {
            std::thread::sleep(TICK);
        }
    }
}

fn try_once(probe: &Probe, within: Duration, world: &World<'_>) -> Result<(), Wrong> {
    match probe {
        Probe::Http { url, status } => http(url, *status, within, world),
        Probe::Tcp(address) => tcp(address, within, world),
        Probe::Command(words) => command(words, within, world),
    }
}

fn http(url: &str, status: Option<u16>, within: Duration, world: &World<'_>) -> Result<(), Wrong> {
    let request = web::Request {
        url: Secret::new(url.to_owned()),
        json: None,
        within,
        proxy: None,
        ca_bundle: world.ca_bundle.clone(),
    };
    let answer = web::send(&request, world.interrupt).map_err(|error| error.to_string())?;
    let good = match status {
        Some(status) => answer.status == status,
        None => (200..300).contains(&answer.status),
    };
    if good {
        return Ok(());
    }
    let body = answer.body.trim();
    let body: String = body.lines().next().unwrap_or_default().chars().take(SHOWN).collect();
    let colon = if body.is_empty() { "" } else { ": " };
    Err(format!("the last answer had status {}{colon}{body}", answer.status).into())
}

fn tcp(address: &str, within: Duration, world: &World<'_>) -> Result<(), Wrong> {
    let (sender, receiver) = channel();
    let started = Instant::now();
    let target = address.to_owned();
    // In a thread of its own: a signal must not wait for a name server.
    std::thread::spawn(move || {
        let connect = || {
            let mut last = Err("the host's name is not known".to_owned());
            for address in target.to_socket_addrs().map_err(|error| error.to_string())? {
                last = TcpStream::connect_timeout(&address, within)
                    .map(drop)
                    .map_err(|error| error.to_string());
                if last.is_ok() {
                    break;
                }
            }
            last
        };
        let _ = sender.send(connect());
    });
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(result) => return result.map_err(Wrong::from),
            Err(RecvTimeoutError::Timeout)
                if world.interrupt.signal().is_none() && started.elapsed() < within => {}
            Err(_) => return Err("no connection in time".to_owned().into()),
        }
    }
}

fn command(words: &[String], within: Duration, world: &World<'_>) -> Result<(), Wrong> {
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    let mut command = Command::new(program).args(arguments).current_dir("/").deadline(Some(within));
    for name in &world.environment.remove {
        command = command.env_remove(name);
    }
    for (name, value) in &world.environment.set {
        command = command.env(name, value);
    }
    let mut output = Vec::new();
    let finished = command.run(world.interrupt, &mut |line| {
        if output.len() == LINES {
            output.remove(0);
        }
        output.push(String::from_utf8_lossy(line.bytes).into_owned());
    });
    if finished.success() {
        return Ok(());
    }
    Err(Wrong { answer: format!("`{program}` {}", describe_exit(&finished)), output })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn run_one(probe: Probe, within: u64) -> Result<(), Failure> {
        let environment = EnvironmentChange::default();
        let interrupt = Interrupt::new();
        let world = World {
            environment: &environment,
            ca_bundle: None,
            interrupt: &interrupt,
            log: &|_| {},
        };
        let within = Duration::from_secs(within);
        run(&[Check { probe, within }], None, &world)
    }

    /// Answers so many requests, each with the next status; then it is gone.
    fn server(statuses: &'static [u16]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for status in statuses {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1024]).unwrap();
                let location = "http://127.0.0.1:1/elsewhere";
                let head = format!("HTTP/1.1 {status} X\r\nLocation: {location}\r\n");
                let rest = "Content-Length: 13\r\nConnection: close\r\n\r\nnot yet ready";
                stream.write_all((head + rest).as_bytes()).unwrap();
            }
        });
        address
    }

    #[test]
    fn an_answer_is_awaited() {
        let url = format!("http://{}/health", server(&[503, 500, 200]));
        run_one(Probe::Http { url, status: None }, 60).unwrap();
        let url = format!("http://{}/", server(&[200, 401]));
        run_one(Probe::Http { url, status: Some(401) }, 60).unwrap();
    }

    #[test]
    fn the_last_answer_is_told_and_redirects_are_answers() {
        let url = format!("http://{}/health", server(&[302; 100]));
        let failure = run_one(Probe::Http { url, status: None }, 1).unwrap_err();
        assert_eq!(failure.code, ExitCode::AppFailed);
        assert!(failure.message.ends_with("/health` did not pass within 1 s"), "{failure}");
        assert_eq!(failure.causes, ["the last answer had status 302: not yet ready"]);
    }

    #[test]
    fn a_port_is_open_or_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        run_one(Probe::Tcp(address), 10).unwrap();
        let failure = run_one(Probe::Tcp("127.0.0.1:1".to_owned()), 1).unwrap_err();
        assert!(failure.causes[0].contains("refused"), "{failure}");
    }

    #[test]
    fn a_program_says_why_it_failed() {
        let words = |text: &str| Probe::Command(vec!["sh".into(), "-c".into(), text.into()]);
        run_one(words("exit 0"), 10).unwrap();
        let failure = run_one(words("echo inactive; exit 3"), 1).unwrap_err();
        assert!(failure.causes[0].contains("`sh` exited with code 3"), "{failure}");
        assert_eq!(failure.output, ["inactive"]);
    }
}
