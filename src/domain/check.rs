//! What has to be so after an app was deployed.

use std::fmt;
use std::time::Duration;

/// Something to be asked until it is so, or its time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// How long it may take to become so.
    pub within: Duration,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A GET that has to be answered with this status, or any from 200 to 299.
    Http {
        /// `http://…` or `https://…`, without a password.
        url: String,
        /// The status.
        status: Option<u16>,
    },
    /// A connection that has to be accepted, to `host:port`.
    Tcp(String),
    /// A program that has to exit with 0, and its arguments.
    Command(Vec<String>),
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { url, .. } => f.write_str(url),
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Command(words) => f.write_str(&words.join(" ")),
        }
    }
}
