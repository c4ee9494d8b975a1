//! The scripts an appspec names.

use std::io::Read;
use std::path::Path;

use fs_err as fs;

use crate::bundle::{Check, Tool, below, quoted};
use crate::engine::appspec::{AppSpec, PREVIOUS_REVISION_EVENTS, Script};

impl Check<'_> {
    /// Each script is there, or can be made by `BeforeInstall` before it is run.
    pub(super) fn scripts(&mut self, file: &Path, spec: &AppSpec) {
        let makes = self.can_make_files(spec);
        for hook in &spec.hooks {
            let event = hook.event.as_str();
            // Of several hooks with one name the last counts.
            let counts = std::ptr::eq(spec.scripts(event), hook.scripts.as_slice());
            // Those of the old revision's events run at the next deployment, which may
            // not skip them.
            let skipped = self.skips(event) && !PREVIOUS_REVISION_EVENTS.contains(&event);
            let never = matches!(event, "Install" | "DownloadBundle");
            if never && !hook.scripts.is_empty() {
                let file = file.display();
                self.warn(format!("{file}:{}: the scripts of {event} are never run", hook.at));
            }
            if !counts || skipped || never {
                continue;
            }
            for (index, script) in hook.scripts.iter().enumerate() {
                // The first script of BeforeInstall has nothing before it.
                let makes = makes && !(event == "BeforeInstall" && index == 0);
                self.script(file, event, script, makes);
            }
        }
    }

    fn script(&mut self, file: &Path, event: &str, script: &Script, makes: bool) {
        let location = quoted(&script.location);
        let place = format!("{}:{}: the {event} script {location}", file.display(), script.at);
        let Some(path) = below(&script.location) else {
            return self.refuse(format!("{place} is not in the bundle"), None);
        };
        let path = self.root.join(path);
        match fs::metadata(&path) {
            Ok(data) if data.is_file() => {
                self.command_line(&place, script);
                self.first_line(&place, &path);
            }
            Ok(_) => self.refuse(format!("{place} is not a file"), None),
            Err(_) if makes => {
                self.warn(format!("{place} is not there, unless BeforeInstall makes it"));
            }
            Err(_) if script.location.contains(char::is_whitespace) => self.refuse(
                format!("{place} is not there"),
                Some("a location is a path alone; scripts are run without arguments"),
            ),
            Err(_) => self.refuse(format!("{place} is not there"), None),
        }
    }

    /// Where the path is not one argument of a system call but part of a text that is
    /// taken apart again.
    fn command_line(&mut self, place: &str, script: &Script) {
        let by = match self.tool {
            Tool::Agent1 => "codedeploy-local 1.x",
            Tool::Agent2 if script.runas.is_some() => "codedeploy-local 2.x with `runas`",
            Tool::Agent2 | Tool::Builtin => return,
        };
        let plain = |c: char| c.is_alphanumeric() || "._+=,@/:%^-".contains(c);
        if let Some(c) = script.location.chars().find(|c| !plain(*c)) {
            let hint = Some("rename the file: letters, digits and `._+=,@/-`");
            self.refuse(format!("{place} has {c:?} in its path, which {by} breaks at"), hint);
        }
    }

    fn first_line(&mut self, place: &str, path: &Path) {
        let mut start = [0; 256];
        let Ok(size) = fs::File::open(path).and_then(|mut file| file.read(&mut start)) else {
            return;
        };
        let start = start.get(..size).unwrap_or_default();
        let line = start.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
        if line.starts_with(b"#!") {
            if line.ends_with(b"\r\n") {
                self.warn(format!(
                    "{place} ends its first line with CR LF, so its interpreter will not be found"
                ));
            }
        } else if self.tool == Tool::Agent2 && !start.starts_with(b"\x7fELF") {
            self.warn(format!(
                "{place} does not begin with `#!`, without which codedeploy-local 2.x cannot run it"
            ));
        }
    }
}
