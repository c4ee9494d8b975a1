//! `no_proxy`: which servers are reached without the proxy.

use std::net::IpAddr;

use crate::mirror::dial::unbracketed;

/// Whether `list` excepts this host and port: a host with its subdomains (`example.com`,
/// `.example.com`, `*.example.com`), one of these with a port, an address, a range of
/// addresses (`10.0.0.0/8`), or `*` for all. Separated by commas or white space.
///
/// A name is not looked up to compare its addresses: that would ask a name server for what
/// the proxy is there to find out.
pub(super) fn hold(list: &str, host: &str, port: u16) -> bool {
    let host = unbracketed(host).trim_end_matches('.').to_ascii_lowercase();
    let entries = list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty());
    entries.map(str::to_ascii_lowercase).any(|entry| holds(&entry, &host, port))
}

fn holds(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        let (network, bits) = match entry.split_once('/') {
            Some((network, bits)) => (network, bits.parse::<u32>().ok()),
            None => (without_port(entry, port), Some(128)),
        };
        let network = unbracketed(network).parse::<IpAddr>();
        return matches!((network, bits), (Ok(network), Some(bits)) if inside(address, network, bits));
    }
    let name = without_port(entry, port).trim_end_matches('.');
    let name = name.strip_prefix('*').unwrap_or(name);
    let name = name.trim_start_matches('.');
    !name.is_empty()
        && host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// An entry without its port if that is ours; with another one it stays, and fits nothing.
fn without_port(entry: &str, port: u16) -> &str {
    match entry.rsplit_once(':') {
        // A bare address of version 6 has colons of its own.
        Some((host, _)) if host.contains(':') && !host.ends_with(']') => entry,
        Some((host, digits)) if digits.parse() == Ok(port) => host,
        _ => entry,
    }
}

/// Whether the first `bits` of both are the same.
fn inside(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let (address, network, length) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => (u128::from(a.to_bits()), u128::from(n.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(n)) => (a.to_bits(), n.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    let ignored = length - bits.min(length);
    // Shifting by all of its bits is no shift to the processor.
    address.checked_shr(ignored).unwrap_or(0) == network.checked_shr(ignored).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_domains_ports_addresses_and_ranges() {
        for (list, host, port, excepted) in [
            ("*", "git.example.com", 443, true),
            ("example.com", "git.example.com", 443, true),
            (".example.com", "git.example.com", 443, true),
            ("*.example.com", "git.example.com", 443, true),
            (".example.com", "example.com", 443, true),
            ("Git.Example.COM.", "git.example.com", 443, true),
            ("other, git.example.com", "git.example.com", 443, true),
            ("other git.example.com", "git.example.com", 443, true),
            ("git.example.com:8443", "git.example.com", 8443, true),
            ("git.example.com:8443", "git.example.com", 443, false),
            ("example.com:443", "git.example.com", 443, true),
            ("ample.com", "git.example.com", 443, false),
            ("git.example.com.evil.org", "git.example.com", 443, false),
            ("", "git.example.com", 443, false),
            (",. ,", "git.example.com", 443, false),
            ("10.1.2.3", "10.1.2.3", 443, true),
            ("10.1.2.3:8443", "10.1.2.3", 8443, true),
            ("10.1.2.3:8443", "10.1.2.3", 443, false),
            ("10.0.0.0/8", "10.1.2.3", 443, true),
            ("10.1.2.0/24", "10.1.3.3", 443, false),
            ("10.1.2.3/32", "10.1.2.3", 443, true),
            ("0.0.0.0/0", "10.1.2.3", 443, true),
            ("10.0.0.0/x", "10.1.2.3", 443, false),
            // No suffix rule for addresses.
            ("2.3", "10.1.2.3", 443, false),
            ("169.254.169.254", "10.1.2.3", 443, false),
            ("fd00::/8", "fd00::1", 443, true),
            ("fd00::/8", "[fd00::1]", 443, true),
            ("::1", "::1", 443, true),
            ("[::1]:8443", "::1", 8443, true),
            ("fd00::/8", "10.1.2.3", 443, false),
        ] {
            assert_eq!(hold(list, host, port), excepted, "{list} {host} {port}");
        }
    }
}
