//! Signals for the programs that tests start.

/// Undoes what being started in the background does: there SIGINT and others are ignored, and
/// what is ignored stays so in every program started from here. A signal with a handler is
/// given back its default there.
pub(crate) fn heed() {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a mask");
    let ignored = u64::from_str_radix(ignored.trim(), 16).expect("a hexadecimal number");
    for number in [nix::libc::SIGHUP, nix::libc::SIGINT, nix::libc::SIGTERM] {
        if ignored & (1 << (number - 1)) != 0 {
            signal_hook::flag::register(number, std::sync::Arc::default()).expect("a handler");
        }
    }
}
