//! Runs the recorded deployments of `tests/fixtures/codedeploy-local/cases` against the
//! built-in codedeploy-local, and compares everything: exit code, stdout, what the scripts
//! wrote, logs, the installed tree, and the records that the agent's tool shares.
//!
//! A case's `expected/` is what codedeploy-local 1.8.1 did. Where a deviation of
//! `DEVIATIONS.md` makes a difference there is `expected-builtin/`, with the deviations'
//! numbers in a file `why`.
//!
//! Cases of several deployments run a second time, "after the agent": before each deployment
//! the records are replaced by those that 1.8.1 left at this point, bytes, modes and ids. So
//! the two alternate; that ours look the same to 1.8.1 is the `state` that every case compares.
//!
//! It needs root, as owners and `su` matter. What cannot run here is listed as NOT RUN.
//! Arguments are parts of names: `cargo test --test conformance -- 227 hook`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program")]

mod conformance_run;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use conformance_run::{After, Verdict, alternates, run_case};

fn main() {
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/codedeploy-local");
    let mut cases: Vec<PathBuf> = fs_err::read_dir(fixtures.join("cases"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("case.yml").is_file())
        .collect();
    cases.sort();
    let name = |case: &Path| case.file_name().unwrap().to_string_lossy().into_owned();
    if !filters.is_empty() {
        cases.retain(|case| filters.iter().any(|filter| name(case).contains(filter.as_str())));
    }
    if std::env::args().any(|arg| arg == "--list") {
        for case in &cases {
            println!("{}: test", name(case));
        }
        return;
    }
    assert!(!cases.is_empty(), "no case has such a name");
    let runs: Vec<(&PathBuf, After)> = cases
        .iter()
        .map(|case| (case, After::Own))
        .chain(cases.iter().filter(|case| alternates(case)).map(|case| (case, After::Agents)))
        .collect();
    let next = AtomicUsize::new(0);
    let counts: Mutex<BTreeMap<&str, usize>> = Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get() * 2);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&(case, after)) = runs.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let how = if after == After::Agents { " after the agent" } else { "" };
                    let (word, text) = match run_case(case, after) {
                        Verdict::Same => ("passed", String::new()),
                        Verdict::Differs(lines) => {
                            ("FAILED", format!("\n    {}", lines.join("\n    ")))
                        }
                        Verdict::NotRun(why) => ("NOT RUN", format!(" ({why})")),
                    };
                    *counts.lock().unwrap().entry(word).or_default() += 1;
                    println!("{word} {}{how}{text}", name(case));
                }
            });
        }
    });
    let counts = counts.into_inner().unwrap();
    let count = |word| counts.get(word).copied().unwrap_or(0);
    println!(
        "\nconformance: {} passed, {} failed, {} NOT RUN",
        count("passed"),
        count("FAILED"),
        count("NOT RUN")
    );
    if count("FAILED") > 0 {
        std::process::exit(1);
    }
}
