//! A wish to end, from a signal.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::{SigHandler, Signal, raise, signal};

/// A wish to end, from a signal to this program. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// One that only [`Interrupt::set`] fires.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fires on SIGTERM, SIGINT and SIGHUP, except those that were ignored when this program
    /// was started (as `nohup` does). The last signal counts.
    ///
    /// # Errors
    /// A handler cannot be installed.
    pub fn on_signals() -> io::Result<Self> {
        let this = Self::new();
        let ignored = ignored_signals();
        for number in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].map(|s| s as usize) {
            if ignored & (1 << (number - 1)) == 0 {
                let number_c = i32::try_from(number).unwrap_or_default();
                signal_hook::flag::register_usize(number_c, Arc::clone(&this.0), number)?;
            }
        }
        Ok(this)
    }

    /// The signal that came, if one did.
    pub fn signal(&self) -> Option<i32> {
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            number => i32::try_from(number).ok(),
        }
    }

    /// Fires it, as if `signal` had come.
    pub fn set(&self, signal: i32) {
        self.0.store(usize::try_from(signal).unwrap_or_default(), Ordering::SeqCst);
    }
}

/// `SigIgn` of this process, as a bit set.
fn ignored_signals() -> u64 {
    fs_err::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|l| l.strip_prefix("SigIgn:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(0)
}

/// Ends this process as if `signal_number` had never been handled, so that our caller sees a
/// death by that signal.
#[expect(clippy::exit, reason = "reached only where the signal's default action is not to end")]
pub fn die_by(signal_number: i32) -> ! {
    if let Ok(number) = Signal::try_from(signal_number) {
        #[expect(unsafe_code, reason = "SIG_DFL installs no handler, so no code runs in one")]
        // SAFETY: the default disposition is always valid to install.
        let _ = unsafe { signal(number, SigHandler::SigDfl) };
        let _ = raise(number);
    }
    std::process::exit(128_i32.saturating_add(signal_number))
}
