//! From a reference to a secret to the secret itself.

use std::path::PathBuf;

use crate::domain::Secret;

/// A secret with what belongs to it, ready to be shown to the one host it is bound to.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The user name; `None` for the usual one (`x-access-token`, or the URL's for SSH).
    pub username: Option<String>,
    /// The secret.
    pub proof: Proof,
    /// Where it came from, for messages: "the token in `GITHUB_TOKEN`".
    pub origin: String,
}

/// What proves who we are.
#[derive(Debug, Clone)]
pub enum Proof {
    /// A token or password, over HTTPS.
    Token(Secret),
    /// A private key in memory, over SSH.
    Key {
        /// In OpenSSH's or PEM format.
        private: Secret,
        /// What decrypts it.
        passphrase: Option<Secret>,
    },
    /// The keys of an ssh-agent.
    Agent {
        /// Its socket.
        socket: PathBuf,
        /// The public key file of the key to offer; all of them otherwise.
        key: Option<PathBuf>,
    },
}
