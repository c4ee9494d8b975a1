//! What a server was shown and nobody else is to see.

use super::Remote;
use super::credentials::{Credential, Proof};
use crate::domain::Secret;

/// The user that goes with a token unless another one is given: GitHub's word for it.
pub(super) const USER: &str = "x-access-token";

/// Shorter secrets are not looked for: any word could be one.
const SHORTEST: usize = 6;

/// User and password as HTTP's Basic has them.
pub(super) fn basic(user: &str, password: &Secret) -> String {
    openssl::base64::encode_block(format!("{user}:{}", password.expose()).as_bytes())
}

/// The secrets that went to a server, in each form in which they went: some servers, and
/// proxies in between, repeat in their answers what they were sent.
#[derive(Clone, Default)]
pub(super) struct Shown(Vec<Secret>);

impl Shown {
    /// What goes to a server as user and password: the password, and both as HTTP has them.
    pub(super) fn login(user: &str, password: &Secret) -> Self {
        let mut shown = Self::default();
        shown.add(password.expose());
        shown.add(&basic(user, password));
        shown
    }

    /// What is shown to the server of `remote`; of keys it sees nothing.
    pub(super) fn to(remote: &Remote) -> Self {
        match &remote.credential {
            Some(Credential { username, proof: Proof::Token(token), .. }) => {
                Self::login(username.as_deref().unwrap_or(USER), token)
            }
            _ => Self::default(),
        }
    }

    pub(super) fn add(&mut self, secret: &str) {
        if secret.len() >= SHORTEST {
            self.0.push(Secret::new(secret.to_owned()));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A server's words without them, and without the beginning of one where the words end.
    pub(super) fn hide(&self, mut words: String) -> String {
        for secret in &self.0 {
            let secret = secret.expose();
            words = words.replace(secret, "[secret]");
            let cut = secret.char_indices().map(|(end, _)| end).filter(|end| *end >= SHORTEST);
            let cut = cut.rev().find(|end| words.ends_with(&secret[..*end]));
            if let Some(end) = cut {
                words.truncate(words.len() - end);
                words += "[secret]";
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_secrets_and_cut_ones_are_hidden() {
        let mut shown = Shown::default();
        for secret in ["hunter2 \u{e9}hunter2", "ab", "eC1hY2Nlc3M="] {
            shown.add(secret);
        }
        for (words, expected) in [
            ("you sent Basic eC1hY2Nlc3M= to me", "you sent Basic [secret] to me"),
            ("hunter2 \u{e9}hunter2hunter2 \u{e9}hunter2", "[secret][secret]"),
            ("it was hunter2 \u{e9}hu", "it was [secret]"),
            ("it was hunter", "it was [secret]"),
            ("about eC1hY it ends", "about eC1hY it ends"),
            ("", ""),
        ] {
            assert_eq!(shown.hide(words.to_owned()), expected);
        }
    }
}
