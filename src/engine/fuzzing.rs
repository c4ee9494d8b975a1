//! What is fuzzed here; see `fuzzing` at the root.

use crate::engine::install;

/// A clean-up list. It is only foreseen what would be removed: nothing is.
pub(crate) fn cleanup_list(text: &[u8]) {
    install::foresee_list(text);
}
