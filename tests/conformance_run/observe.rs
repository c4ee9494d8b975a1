//! What can be seen after a deployment, with what changes from run to run replaced:
//! deployment ids, times, the temporary folder.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_yaml::{Mapping, Value};

/// The temporary folder, and the deployment ids in the order of their appearance.
pub(super) struct Places {
    pub(super) work: PathBuf,
    pub(super) ids: Vec<String>,
}

impl Places {
    pub(super) fn new(work: &Path) -> Self {
        Self { work: work.to_owned(), ids: Vec::new() }
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.ids.clone()
    }

    fn stable(&mut self, text: &str) -> String {
        let work = self.work.to_str().unwrap();
        let mut text = text.replace(&format!("{work}/dest"), "@DEST@").replace(work, "@WORK@");
        let mut from = 0;
        while let Some(found) = text[from..].find("d-") {
            let start = from + found;
            from = start + 2;
            let id: String = text[start..].chars().take(17).collect();
            if is_id(&id) {
                let known = self.ids.iter().position(|known| *known == id);
                let number = known.unwrap_or_else(|| {
                    self.ids.push(id.clone());
                    self.ids.len() - 1
                });
                text.replace_range(start..start + id.len(), &format!("@D{}@", number + 1));
            }
        }
        text
    }

    /// The lines of a text.
    pub(super) fn lines(&mut self, text: &str) -> Vec<Value> {
        self.stable(text).lines().map(Value::from).collect()
    }

    pub(super) fn file_lines(&mut self, path: &Path) -> Value {
        let text = decode(&fs::read(path).unwrap_or_default());
        self.lines(&text).into()
    }

    /// The scripts.log of every deployment that is not `known`.
    pub(super) fn scripts_log(&mut self, known: &[String]) -> Value {
        let root = self.work.join("root");
        let mut lines: Vec<String> = Vec::new();
        for id in self.ids.clone().iter().filter(|id| !known.contains(id)) {
            for group in sorted(&root) {
                let file = group.join(id).join("logs/scripts.log");
                if let Ok(bytes) = fs::read(file) {
                    let text = self.stable(&decode(&bytes));
                    lines.extend(timeless(&text).split('\n').map(str::to_owned));
                }
            }
        }
        if lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        if lines.len() > 40 {
            let more = format!("... {} lines", lines.len() - 40);
            lines.splice(20..lines.len() - 20, [more]);
        }
        lines.into()
    }

    /// Everything below a folder: type, mode, owner, name, content or link text.
    pub(super) fn tree(&mut self, top: &Path) -> Value {
        let mut all = Vec::new();
        self.walk(top, top, true, &mut all);
        sort_by_name(&mut all);
        all.into()
    }

    /// The engine's own files.
    pub(super) fn state(&mut self) -> Value {
        let root = self.work.join("root");
        let mut entries = Vec::new();
        self.walk(&root, &root, false, &mut entries);
        sort_by_name(&mut entries);
        let mut entries: Vec<String> = entries
            .iter()
            .map(|line| {
                let line = self.stable(line);
                if line.contains(" deployment-logs/") {
                    let parts: Vec<&str> = line.splitn(4, ' ').collect();
                    format!("{} - - {}", parts[0], parts[3])
                } else {
                    line
                }
            })
            .collect();
        sort_by_name(&mut entries);
        let mut files = Mapping::new();
        for path in sorted(&root.join("deployment-instructions")) {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let text = self.stable(&decode(&fs::read(&path).unwrap()));
            let lines: Vec<String> = if name.ends_with("-install.json") {
                instructions(&text)
            } else {
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                if name.ends_with("-cleanup") {
                    lines.sort();
                }
                lines
            };
            files.insert(name.into(), lines.into());
        }
        let mut state = Mapping::new();
        state.insert("entries".into(), entries.into());
        state.insert("files".into(), files.into());
        state.into()
    }

    fn walk(&mut self, top: &Path, folder: &Path, content: bool, all: &mut Vec<String>) {
        for path in sorted(folder) {
            let about = fs::symlink_metadata(&path).unwrap();
            let relative = path.strip_prefix(top).unwrap().as_os_str().as_bytes();
            let name = decode(relative).replace('\n', "\\n");
            let owner = owner(&about);
            let mode = about.mode() & 0o7777;
            let kind = about.file_type();
            all.push(if kind.is_symlink() {
                let text = fs::read_link(&path).unwrap();
                let text = decode(text.as_os_str().as_bytes()).replace('\n', "\\n");
                format!("l ---- {owner} {name} -> {}", self.stable(&text))
            } else if kind.is_dir() {
                format!("d {mode:04o} {owner} {name}/")
            } else if kind.is_file() && content {
                format!("f {mode:04o} {owner} {name} sha256:{}", self.hash(&path))
            } else if kind.is_file() {
                format!("f {mode:04o} {owner} {name}")
            } else {
                format!("? {mode:04o} {owner} {name}")
            });
            if kind.is_dir() {
                self.walk(top, &path, content, all);
            }
        }
    }

    fn hash(&self, path: &Path) -> String {
        let work = self.work.as_os_str().as_bytes();
        let mut data = fs::read(path).unwrap();
        data = replace(&data, &[work, b"/dest"].concat(), b"@DEST@");
        data = replace(&data, work, b"@WORK@");
        if let Ok(text) = std::str::from_utf8(&data) {
            data = timeless(text).into_bytes();
        }
        let digest = openssl::sha::sha256(&data);
        let number =
            digest[..8].iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        format!("{number:016x}")
    }
}

fn is_id(text: &str) -> bool {
    let middle = text.strip_prefix("d-").and_then(|text| text.strip_suffix("-local"));
    middle.is_some_and(|middle| {
        middle.len() == 9 && middle.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
    })
}

/// The times of log lines replaced.
fn timeless(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(found) =
        ["Script - ", "LifecycleEvent - ", "[std"].iter().filter_map(|word| rest.find(word)).min()
    {
        let head = &rest[..found];
        let is_time = head.len() >= 20
            && head.is_char_boundary(head.len() - 20)
            && head[head.len() - 20..].bytes().zip("0000-00-00 00:00:00 ".bytes()).all(
                |(b, form)| {
                    if form == b'0' { b.is_ascii_digit() } else { b == form }
                },
            );
        if is_time {
            result.push_str(&head[..head.len() - 20]);
            result.push_str("@TS@ ");
        } else {
            result.push_str(head);
        }
        result.push_str(&rest[found..found + 4]);
        rest = &rest[found + 4..];
    }
    result.push_str(rest);
    result
}

/// The instructions, one a line, in an order that does not depend on the file system.
fn instructions(text: &str) -> Vec<String> {
    let parsed: Result<serde_json::Value, _> = serde_json::from_str(text);
    let items = parsed.ok().and_then(|value| value.get("instructions")?.as_array().cloned());
    let Some(items) = items else { return vec![format!("unparsable: {text}")] };
    let mut lines: Vec<String> = items
        .iter()
        .map(|item| {
            let pairs: std::collections::BTreeMap<&String, &serde_json::Value> =
                item.as_object().unwrap().iter().collect();
            let pairs: Vec<String> =
                pairs.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
            format!("{{{}}}", pairs.join(", "))
        })
        .collect();
    lines.sort();
    lines
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn sort_by_name(lines: &mut [String]) {
    lines.sort_by(|a, b| a.splitn(4, ' ').nth(3).cmp(&b.splitn(4, ' ').nth(3)));
}

fn owner(about: &std::fs::Metadata) -> String {
    let user = nix::unistd::User::from_uid(about.uid().into()).ok().flatten();
    let group = nix::unistd::Group::from_gid(about.gid().into()).ok().flatten();
    let user = user.map_or_else(|| about.uid().to_string(), |user| user.name);
    let group = group.map_or_else(|| about.gid().to_string(), |group| group.name);
    format!("{user}:{group}")
}

/// UTF-8, with what is not written as `\xff`.
pub(super) fn decode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

pub(super) fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = rest.windows(from.len()).position(|window| window == from) {
        result.extend_from_slice(&rest[..found]);
        result.extend_from_slice(to);
        rest = &rest[found + from.len()..];
    }
    result.extend_from_slice(rest);
    result
}

/// Lines that only one of two values has.
pub(super) fn difference(wanted: &Value, got: &Value) -> Vec<String> {
    let text = |value: &Value| serde_yaml::to_string(value).unwrap();
    let (wanted, got) = (text(wanted), text(got));
    let wanted: Vec<&str> = wanted.lines().collect();
    let got: Vec<&str> = got.lines().collect();
    let only = |sign: &str, these: &[&str], those: &[&str]| -> Vec<String> {
        these.iter().filter(|l| !those.contains(l)).map(|l| format!("{sign} {l}")).collect()
    };
    let mut lines = only("-", &wanted, &got);
    lines.extend(only("+", &got, &wanted));
    if lines.is_empty() {
        lines.push("the order of lines".into());
    }
    lines
}
