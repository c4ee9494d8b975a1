//! What 0.3.1 left goes when this program has taken over.

use super::{LiveHost, SWEEPING};
use crate::ledger::{self, predecessor};

impl LiveHost<'_> {
    /// Removes 0.3.1's bundles once nothing of it is relied on any more: all apps that its file
    /// named are recorded in refs. What cannot be removed is only a warning.
    pub(super) fn outgrow_predecessor(&self) {
        match predecessor::deploys(self.run.state) {
            Ok(Some(_)) if self.all_in_refs() => {}
            _ => return,
        }
        match predecessor::remove(self.run.state, SWEEPING) {
            Ok(true) => {
                let note = self.run.state.join(predecessor::NOTE);
                let text = format!("0.3.1's bundles were removed; see `{}`", note.display());
                self.run.console.note(&text);
            }
            // The next run goes on.
            Ok(false) => {}
            Err(error) => {
                let text = format!("0.3.1's bundles were not removed: {error}");
                self.run.console.warn(None, &text);
            }
        }
    }

    fn all_in_refs(&self) -> bool {
        self.state.apps().all(|(name, _)| {
            let read = |app| ledger::read(&ledger::mirror_path(self.run.cache, &app)).ok();
            let recorded = name.parse().ok().and_then(read);
            recorded.is_some_and(|recorded| recorded.deployed.is_some())
        })
    }
}
