//! Puts what codedeploy-local 1.8.1 left, as it was recorded, in the place of what the
//! built-in tool left, so that the next deployment goes on from the agent's records.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fs_err as fs;
use serde_yaml::{Mapping, Value};

use super::observe::Places;

const INSTRUCTIONS: &str = "deployment-instructions/";

impl Places {
    /// Makes the root folder anew from a recorded `state`. Only contents that no record holds
    /// are taken from the old one: those of archives and logs.
    pub(super) fn go_on_from(&mut self, state: &Mapping) -> Result<(), String> {
        let (root, old) = (self.work.join("root"), self.work.join("root.old"));
        let old_ids = self.ids.clone();
        let new_ids = (1..=old_ids.len()).map(|number| format!("d-AGENT{number:04}-local"));
        self.ids = new_ids.collect();
        fs::rename(&root, &old).unwrap();
        super::make_folder(&root);
        for line in texts(state.get("entries")) {
            let [kind, mode, owner, name] = line.splitn(4, ' ').collect::<Vec<_>>()[..] else {
                return Err(format!("no entry: {line}"));
            };
            let (name, link) = name.split_once(" -> ").map_or((name, None), |(a, b)| (a, Some(b)));
            let path = root.join(self.filled(name, &self.ids));
            match kind {
                "d" => fs::create_dir(&path).unwrap(),
                "l" => {
                    let text = self.filled(link.unwrap_or_default(), &self.ids);
                    fs_err::os::unix::fs::symlink(text, &path).unwrap();
                }
                "f" => {
                    let recorded = name.strip_prefix(INSTRUCTIONS).map(|file| {
                        let lines = state.get("files").and_then(|files| files.get(file));
                        self.record(file, &texts(lines)).into_bytes()
                    });
                    let source = old.join(self.filled(name, &old_ids));
                    let content = match recorded {
                        Some(content) => content,
                        None => fs::read(&source).map_err(|e| e.to_string())?,
                    };
                    fs::write(&path, content).unwrap();
                }
                _ => return Err(format!("cannot be made: {line}")),
            }
            own(&path, owner);
            if let Ok(mode) = u32::from_str_radix(mode, 8) {
                fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            }
        }
        fs::remove_dir_all(&old).unwrap();
        Ok(())
    }

    fn filled(&self, text: &str, ids: &[String]) -> String {
        let work = self.work.to_str().unwrap();
        let mut text = text.replace("@DEST@", &format!("{work}/dest")).replace("@WORK@", work);
        for (index, id) in ids.iter().enumerate() {
            text = text.replace(&format!("@D{}@", index + 1), id);
        }
        text
    }

    /// A file of `deployment-instructions`, byte by byte as the agent writes it.
    fn record(&self, name: &str, lines: &[String]) -> String {
        let lines: Vec<String> = lines.iter().map(|line| self.filled(line, &self.ids)).collect();
        if name.ends_with("-cleanup") {
            return [lines.as_slice(), &[String::new()]].concat().join("\n");
        }
        if !name.ends_with("-install.json") {
            return lines.join("\n");
        }
        let items: Vec<String> = lines
            .iter()
            .map(|line| {
                let item: serde_json::Value = serde_json::from_str(line).unwrap();
                let pair = |key: &str| {
                    item.get(key).map(|value| format!("{}:{value}", serde_json::Value::from(key)))
                };
                let order = [
                    "type",
                    "source",
                    "destination",
                    "directory",
                    "file",
                    "mode",
                    "owner",
                    "group",
                ];
                let pairs: Vec<String> = order.iter().filter_map(|key| pair(key)).collect();
                format!("{{{}}}", pairs.join(","))
            })
            .collect();
        format!("{{\"instructions\":[{}]}}", items.join(","))
    }
}

fn texts(lines: Option<&Value>) -> Vec<String> {
    let lines = lines.and_then(Value::as_sequence);
    lines.into_iter().flatten().map(|line| line.as_str().unwrap().to_owned()).collect()
}

fn own(path: &Path, owner: &str) {
    // Of some logs nothing but the names is recorded.
    let Some((user, group)) = owner.split_once(':') else { return };
    let user = nix::unistd::User::from_name(user).unwrap().map(|user| user.uid.as_raw());
    let group = nix::unistd::Group::from_name(group).unwrap().map(|group| group.gid.as_raw());
    std::os::unix::fs::lchown(path, user, group).unwrap();
}
