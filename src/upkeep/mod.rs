//! The commands that look after the cache and leave the applications alone: `fetch` and `gc`.

mod fetch;
mod gc;
mod leftover;

use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use fetch::fetch;
pub use gc::gc;

use crate::deploy::{self, LOCK_WAIT, Refusal, run_id};
use crate::error::{ExitCode, Failure};
use crate::host;
use crate::ledger::last_state::LastState;
use crate::ledger::lock::RunLock;
use crate::load::{self, load};
use crate::manifest::Manifest;
use crate::process::Interrupt;
use crate::report::console::Console;
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
    let console = deploy::console(settings, &id, Some((&log_file, options)));
    let begins = format!("run {id} ({command}) begins: manifest {}", settings.config.display());
    console.log(None, &begins);
    for text in &exposed {
        console.warn(None, text);
    }
    for finding in &manifest.warnings {
        console.warn(None, &finding.to_string());
    }
    let wait = lock_wait.unwrap_or(LOCK_WAIT);
    let lock = deploy::take_lock(settings, &id, wait, interrupt, &console)
        .inspect_err(|failure| console.log_error(None, &format!("failed: {failure}")))?;
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
