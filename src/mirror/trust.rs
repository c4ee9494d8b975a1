//! What a server is recognised by: certificate authorities and SSH host keys.

use std::path::PathBuf;

/// What a server is recognised by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// Certificate authorities (PEM) beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Fingerprints (`SHA256:…`) of its SSH host keys. When given, nothing else counts.
    pub host_keys: Option<Vec<String>>,
    /// Read instead of root's and `/etc/ssh/ssh_known_hosts`.
    pub known_hosts_file: Option<PathBuf>,
}
