//! What a server was shown and nobody else is to see.

use crate::domain::Secret;

/// Shorter secrets are not looked for: any word could be one.
const SHORTEST: usize = 6;

/// The secrets that went to a server, in each form in which they went: some servers, and
/// proxies in between, repeat in their answers what they were sent.
#[derive(Clone, Default)]
pub(super) struct Shown(Vec<Secret>);

impl Shown {
    pub(super) fn add(&mut self, secret: &str) {
        if secret.len() >= SHORTEST {
            self.0.push(Secret::new(secret.to_owned()));
        }
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
