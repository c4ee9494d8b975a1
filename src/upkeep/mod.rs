//! The commands that look after the cache and leave the applications alone: `fetch` and `gc`.

mod fetch;
mod gc;
mod leftover;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use fetch::fetch;
pub use gc::gc;

use crate::deploy::{LOCK_WAIT, Refusal, lock_holder, place, run_id, sweep};
use crate::error::{ExitCode, Failure};
use crate::host;
use crate::ledger::last_state::LastState;
use crate::ledger::lock::{Claim, RunLock};
use crate::load::{self, load};
use crate::manifest::Manifest;
use crate::process::Interrupt;
use crate::report::console::Console;
use crate::report::human::Paint;
use crate::report::log::Log;
use crate::settings::Settings;

/// A run that has begun: the manifest is good, the lock is held, the log is open.
struct Begun {
    id: String,
    started: Instant,
    manifest: Manifest,
    state: LastState,
    console: Console,
    log: PathBuf,
    _lock: RunLock,
}

/// Begins a run of `command`. Root is not asked for, only directories that it can write.
fn begin(
    settings: &Settings,
    command: &str,
    lock_wait: Option<Duration>,
    interrupt: &Interrupt,
) -> Result<Begun, Refusal> {
    let (id, started) = (run_id(), Instant::now());
    host::private_directory(&settings.cache_dir)?;
    host::private_directory(&settings.state_dir)?;
    let exposed = load::trusted(settings)?;
    let manifest = load(settings)?;
    let (log_file, options) = load::log(settings, Some(&manifest));
    let deployment = settings.hook.as_ref().map(|hook| hook.deployment_id.as_str());
    let (log, trouble) = match Log::open(&log_file, options, &id, deployment) {
        Ok(log) => (log, None),
        Err(error) => (Log::default(), Some(format!("no log is written: {error}"))),
    };
    let paint = Paint(settings.voice.color);
    let console = Console::new(place(settings), settings.voice.verbose, paint, log);
    let begins = format!("run {id} ({command}) begins: manifest {}", settings.config.display());
    console.log(None, &begins);
    for text in trouble.iter().chain(&exposed) {
        console.warn(None, text);
    }
    for finding in &manifest.warnings {
        console.warn(None, &finding.to_string());
    }
    let inside = settings.environment.get("MULTIDEPLOYER_RUN_ID").and_then(OsStr::to_str);
    let wait = lock_wait.unwrap_or(LOCK_WAIT);
    let lock = RunLock::acquire(
        &settings.state_dir,
        &Claim { run: &id, holder: &lock_holder(&id), wait, inside },
        |whom| console.note(whom),
        || interrupt.signal().map(ExitCode::of_signal),
    )
    .map_err(Failure::from)
    .inspect_err(|failure| console.log_error(None, &format!("failed: {failure}")))?;
    if lock.after_a_kill() {
        sweep(settings, &console);
    }
    // Only after the lock: the run before may just have written it.
    let (state, trouble) = LastState::load(&settings.last_state()).map_err(Failure::from)?;
    if let Some(trouble) = trouble {
        console.warn(None, &trouble);
    }
    Ok(Begun { id, started, manifest, state, console, log: log_file, _lock: lock })
}

impl Begun {
    /// The run's last line in the log.
    fn end(&self, code: ExitCode) {
        let text = format!("run {} ends with exit code {}", self.id, u8::from(code));
        self.console.log(None, &text);
    }
}
