//! Where this process comes from.

use std::time::Duration;

use super::family;

/// Ancestors that are looked at: a hook's script is near.
const MOST: usize = 16;

/// How long ago this process was started, however often it has become another program since.
/// Nothing where `/proc` does not tell.
pub fn age() -> Duration {
    let age = || {
        let born = family::stat(std::process::id().cast_signed())?.born;
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
        let ticks = u64::try_from(ticks).ok().filter(|ticks| *ticks > 0)?;
        let born = Duration::from_millis(born.checked_mul(1000)? / ticks);
        let uptime = fs_err::read_to_string("/proc/uptime").ok()?;
        let uptime = uptime.split_whitespace().next()?.parse().ok()?;
        Duration::try_from_secs_f64(uptime).ok()?.checked_sub(born)
    };
    age().unwrap_or_default()
}

/// The command lines of this process's parent, its parent and so on, words separated by
/// spaces.
pub fn command_lines_above() -> Vec<String> {
    let mut lines = Vec::new();
    let mut pid = std::process::id().cast_signed();
    while let Some(parent) = family::stat(pid).map(|stat| stat.parent)
        && parent > 0
        && lines.len() < MOST
    {
        let line = fs_err::read(format!("/proc/{parent}/cmdline")).unwrap_or_default();
        lines.push(String::from_utf8_lossy(&line).replace('\0', " "));
        pid = parent;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_young_and_has_a_parent() {
        assert!(age() < Duration::from_secs(3600), "{:?}", age());
        std::thread::sleep(Duration::from_millis(50));
        assert!(age() > Duration::ZERO);
        assert!(!command_lines_above().is_empty());
    }
}
