//! What an appspec copies, and the rights it gives.

use std::path::Path;

use fs_err as fs;

use crate::bundle::{Check, Tool, below, is_dots, quoted};
use crate::engine::appspec::{AppSpec, Principal};
use crate::engine::install::unfit_name;

impl Check<'_> {
    /// `files`: what is to be copied is there, or can be made before it is copied.
    pub(super) fn sources(&mut self, file: &Path, spec: &AppSpec) {
        let makes = self.can_make_files(spec);
        for entry in &spec.files {
            let place =
                format!("{}:{}: `source` {}", file.display(), entry.at, quoted(&entry.source));
            match below(&entry.source) {
                None => self.refuse(format!("{place} leads out of the bundle"), None),
                Some(path) if fs::symlink_metadata(self.root.join(&path)).is_ok() => {}
                Some(_) if makes => {
                    self.warn(format!("{place} is not there, unless BeforeInstall makes it"));
                }
                Some(_) => self.refuse(format!("{place} is not there"), None),
            }
        }
    }

    /// `files`: where it goes is a directory of this host.
    pub(super) fn destinations(&mut self, file: &Path, spec: &AppSpec) {
        let two = self.tool == Tool::Agent2;
        for entry in &spec.files {
            let at = format!("{}:{}:", file.display(), entry.at);
            let place = format!("{at} `destination` {}", quoted(&entry.destination));
            if entry.source.is_empty() && two {
                let hint = Some("write `source: /` for the whole bundle");
                self.refuse(format!("{at} codedeploy-local 2.x takes no empty `source`"), hint);
            }
            if two && entry.destination.split('/').any(is_dots) {
                let why = "has a part that codedeploy-local 2.x takes for `../..`";
                self.refuse(format!("{place} {why}"), None);
            }
            // The clean-up list has one path a line: what follows a line break would be another
            // path, and be removed by root at the next deployment.
            let unfit = if entry.destination.contains(char::is_control) {
                Some("contains a control character")
            } else {
                entry.destination.split('/').find_map(|part| unfit_name(part.as_ref()))
            };
            if let Some(why) = unfit {
                let hint = Some("codedeploy-local could not remove what is installed there");
                self.refuse(format!("{place} {why}"), hint);
            }
            if entry.destination.starts_with('/') {
                continue;
            }
            let message = format!("{place} is not an absolute path");
            if two {
                self.refuse(message, Some("codedeploy-local 2.x fails over it"));
            } else {
                self.warn(format!("{message}; it starts from wherever this program was started"));
            }
        }
    }

    /// `permissions`: what one of the agents cannot do. 1.x fails over it after the files
    /// were copied, 2.x ignores it without a word.
    pub(super) fn permissions(&mut self, file: &Path, spec: &AppSpec) {
        let number = |principal: &Option<Principal>| match principal {
            Some(Principal::Id(_)) => true,
            Some(Principal::Name(name)) => name.bytes().all(|b| b.is_ascii_digit()),
            None => false,
        };
        for entry in &spec.permissions {
            let at = format!("{}:{}:", file.display(), entry.at);
            if number(&entry.owner) || number(&entry.group) {
                let owner = "an owner or group that is a number";
                match self.tool {
                    Tool::Builtin => {}
                    Tool::Agent1 => {
                        let message = format!("{at} codedeploy-local 1.x fails over {owner}");
                        self.refuse(message, Some("write the name"));
                    }
                    Tool::Agent2 => {
                        self.warn(format!("{at} codedeploy-local 2.x ignores {owner}"));
                    }
                }
            }
            let others = [("acls", entry.acls.is_some()), ("context", entry.context.is_some())];
            for (key, _) in others.iter().filter(|(_, there)| *there) {
                if self.tool == Tool::Agent1 {
                    let message = format!("{at} codedeploy-local 1.x crashes over `{key}`");
                    self.refuse(message, Some("set it in an AfterInstall script instead"));
                }
            }
        }
    }
}
