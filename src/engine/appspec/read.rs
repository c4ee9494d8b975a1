//! From YAML to an [`AppSpec`], with everything that is wrong on the way.

use std::path::Path;
use std::time::Duration;

use super::access::{Ace, Context, Mode, Principal, normal_range};
use super::scalar::{Meaning, leading_integer, meaning};
use super::{AppSpec, FileEntry, FileExists, Hook, Parsed, Permission, Script};
use crate::diagnostic::{Diagnostic, Severity, meant, quoted};
use crate::yaml::{Node, Position, Value};

const TOP_KEYS: [&str; 6] =
    ["version", "os", "files", "hooks", "permissions", "file_exists_behavior"];
const FILE_KEYS: [&str; 2] = ["source", "destination"];
const SCRIPT_KEYS: [&str; 4] = ["location", "runas", "sudo", "timeout"];
const PERMISSION_KEYS: [&str; 9] =
    ["object", "pattern", "except", "type", "owner", "group", "mode", "acls", "context"];

/// How long a script may take that does not say.
const DEFAULT_TIMEOUT: i128 = 3600;

pub(super) fn parse(file: &Path, text: &[u8]) -> Parsed {
    let mut reader = Reader { file, findings: Vec::new(), errors: 0 };
    let mut hooks = None;
    let spec = reader.document(text, &mut hooks);
    let spec = spec.filter(|_| reader.errors == 0);
    let mut findings = reader.findings;
    findings.sort_by_key(|f| f.at);
    Parsed { spec, hooks, findings }
}

struct Reader<'a> {
    file: &'a Path,
    findings: Vec<Diagnostic>,
    errors: usize,
}

impl Reader<'_> {
    fn error(&mut self, at: Position, message: impl Into<String>) {
        self.errors += 1;
        self.findings.push(Diagnostic::new(Severity::Error, self.file, Some(at), message));
    }

    fn error_hint(&mut self, at: Position, message: impl Into<String>, hint: impl Into<String>) {
        self.error(at, message);
        self.hint(hint);
    }

    fn warn(&mut self, at: Position, message: impl Into<String>, hint: impl Into<String>) {
        let finding = Diagnostic::new(Severity::Warning, self.file, Some(at), message);
        self.findings.push(finding.hint(hint));
    }

    fn hint(&mut self, hint: impl Into<String>) {
        if let Some(last) = self.findings.last_mut() {
            last.hint = Some(hint.into());
        }
    }

    fn document(&mut self, text: &[u8], hooks: &mut Option<Vec<Hook>>) -> Option<AppSpec> {
        let start = Position { line: 1, column: 1 };
        if text.starts_with(b"\xef\xbb\xbf") {
            // Both of AWS's tools take the mark for a part of the first key.
            self.error_hint(
                start,
                "the file begins with a byte order mark",
                "save it as UTF-8 without one",
            );
            return None;
        }
        let document = match crate::yaml::parse(text) {
            Ok(document) => document,
            Err(e) => {
                self.error(e.at, e.message);
                return None;
            }
        };
        if let Some(at) = document.second {
            let hint = "the agent 2.x refuses such a file; remove it";
            self.warn(at, "a second document begins here and is not read", hint);
        }
        let Some(root) = document.root.filter(|root| !is_false(root)) else {
            self.error_hint(
                start,
                "the file is empty",
                "it needs at least `version: 0.0` and `os: linux`",
            );
            return None;
        };
        if root.entries().is_none() {
            self.error(
                root.at,
                format!("this is {}, not a mapping of keys to values", root.kind()),
            );
            return None;
        }
        self.keys(&root, &TOP_KEYS, false);
        self.version(&root);
        self.os(&root);
        let before = self.errors;
        let found = self.hooks(root.get("hooks"));
        if self.errors == before {
            *hooks = Some(found.clone());
        }
        Some(AppSpec {
            hooks: found,
            files: self.files(root.get("files")),
            permissions: self.permissions(root.get("permissions")),
            file_exists: self.file_exists(root.get("file_exists_behavior")),
        })
    }

    /// Warns about keys that are not read: all of them, or only those that look misspelt.
    fn keys(&mut self, map: &Node, known: &[&str], all: bool) {
        for (key, _) in map.entries().unwrap_or_default() {
            let Some(text) = key.text().filter(|t| !known.contains(t)) else { continue };
            let message = format!("the key {} is not known and is ignored", quoted(text));
            match meant(text, known.iter().copied()) {
                Some(word) => self.warn(key.at, message, format!("did you mean `{word}`?")),
                None if all => {
                    self.warn(key.at, message, format!("known here: {}", known.join(", ")));
                }
                None => {}
            }
        }
    }

    fn version(&mut self, root: &Node) {
        let Some(node) = root.get("version") else {
            self.error_hint(root.at, "`version` is missing", "add `version: 0.0`");
            return;
        };
        let zero = match meaning(node) {
            Some(Meaning::Integer(0)) => true,
            Some(Meaning::Float(f)) => f == 0.0,
            // `0e0` is a number for the agent 2.x and a text for 1.x.
            Some(Meaning::Text(text)) => {
                is_plain(node)
                    && text.starts_with(['0', '.', '-', '+'])
                    && text.parse::<f64>() == Ok(0.0)
            }
            _ => false,
        };
        if !zero {
            let shown = node.text().map_or_else(|| node.kind().to_owned(), quoted);
            let hint = if node.text().is_some_and(|t| t.parse::<f64>() == Ok(0.0)) {
                "write it without quotes: `version: 0.0`"
            } else {
                "the only version there is: `version: 0.0`"
            };
            self.error_hint(node.at, format!("`version` is {shown}, not the number 0.0"), hint);
        }
    }

    fn os(&mut self, root: &Node) {
        let Some(node) = root.get("os") else {
            self.error_hint(root.at, "`os` is missing", "add `os: linux`");
            return;
        };
        match node.text() {
            Some("linux") => {}
            Some("windows") => self.error_hint(
                node.at,
                "`os` is `windows`, but this is a Linux host",
                "deploy the revision that is made for Linux: `os: linux`",
            ),
            Some(text) => {
                let message = format!("`os` is {}, which is not supported", quoted(text));
                self.error_hint(node.at, message, "write it exactly as `os: linux`");
            }
            None => {
                let message = format!("`os` is {}, not a text", node.kind());
                self.error_hint(node.at, message, "write `os: linux`");
            }
        }
    }

    fn file_exists(&mut self, node: Option<&Node>) -> Option<FileExists> {
        let node = node.filter(|n| !n.is_null())?;
        let found = node.text().and_then(FileExists::parse);
        if found.is_none() {
            let shown = node.text().map_or_else(|| node.kind().to_owned(), quoted);
            self.error_hint(
                node.at,
                format!("`file_exists_behavior` is {shown}"),
                "it may be DISALLOW, OVERWRITE or RETAIN, in capitals",
            );
        }
        found
    }

    /// The entries of a list that may be missing, null or false.
    fn list<'n>(&mut self, node: Option<&'n Node>, what: &str) -> &'n [Node] {
        let Some(node) = node.filter(|n| !n.is_null() && !is_false(n)) else { return &[] };
        match &node.value {
            Value::List(items) => items,
            Value::Map(entries) if entries.is_empty() => &[],
            Value::Map(_) => {
                let message = format!("{what} is a mapping, not a list");
                self.error_hint(node.at, message, "begin each entry with `- `");
                &[]
            }
            Value::Scalar(_) => {
                self.error(node.at, format!("{what} is {}, not a list", node.kind()));
                &[]
            }
        }
    }

    /// Whether an entry of a list is a mapping.
    fn is_map(&mut self, node: &Node, what: &str, first_key: &str) -> bool {
        let is = node.entries().is_some();
        if !is {
            let shown = node.text().map_or_else(|| node.kind().to_owned(), quoted);
            let message = format!("{what} is {shown}, not a mapping");
            self.error_hint(node.at, message, format!("write `- {first_key}: …`"));
        }
        is
    }

    fn files(&mut self, node: Option<&Node>) -> Vec<FileEntry> {
        let mut files = Vec::new();
        for entry in self.list(node, "`files`") {
            if !self.is_map(entry, "an entry of `files`", "source") {
                continue;
            }
            self.keys(entry, &FILE_KEYS, true);
            let source = self.path(entry, "source");
            let destination = self.path(entry, "destination");
            if let (Some(source), Some(destination)) = (source, destination) {
                if destination.is_empty() {
                    self.error_hint(entry.at, "`destination` is empty", "name a directory");
                }
                files.push(FileEntry { source, destination, at: entry.at });
            }
        }
        files
    }

    fn path(&mut self, entry: &Node, key: &str) -> Option<String> {
        let Some(node) = entry.get(key).filter(|n| !n.is_null()) else {
            self.error(entry.at, format!("an entry of `files` has no `{key}`"));
            return None;
        };
        match meaning(node) {
            Some(Meaning::Text(text)) if !text.contains('\0') => Some(text),
            Some(_) => {
                let shown = quoted(node.text().unwrap_or_default());
                let message = format!("`{key}` is {shown}, which is not a text for YAML");
                self.error_hint(node.at, message, "put it into quotes");
                None
            }
            None => {
                self.error(node.at, format!("`{key}` is {}, not a text", node.kind()));
                None
            }
        }
    }

    fn hooks(&mut self, node: Option<&Node>) -> Vec<Hook> {
        let Some(node) = node.filter(|n| !n.is_null() && !is_false(n)) else { return Vec::new() };
        let Some(entries) = node.entries() else {
            let message = format!("`hooks` is {}, not a mapping", node.kind());
            self.error_hint(
                node.at,
                message,
                "write `  EventName:` and below it `    - location: …`",
            );
            return Vec::new();
        };
        let mut hooks: Vec<Hook> = Vec::new();
        for (key, value) in entries {
            let Some(event) = key.text() else {
                self.error(key.at, format!("the name of an event is {}, not a text", key.kind()));
                continue;
            };
            // The last of several keys with the same name counts, in the first one's place.
            hooks.retain(|h| h.event != event);
            if value.is_null() || is_false(value) {
                continue;
            }
            let mut scripts = Vec::new();
            for entry in self.list(Some(value), &format!("the hook {}", quoted(event))) {
                scripts.extend(self.script(event, entry));
            }
            hooks.push(Hook { event: event.to_owned(), at: key.at, scripts });
        }
        hooks
    }

    fn script(&mut self, event: &str, entry: &Node) -> Option<Script> {
        if !self.is_map(entry, &format!("an entry of the hook {}", quoted(event)), "location") {
            return None;
        }
        self.keys(entry, &SCRIPT_KEYS, true);
        let location = match entry.get("location").filter(|n| !n.is_null()) {
            None => {
                let message = format!("a script of {} has no `location`", quoted(event));
                self.error_hint(entry.at, message, "name a file of the bundle");
                None
            }
            Some(node) => match meaning(node) {
                None => {
                    self.error(node.at, format!("`location` is {}, not a text", node.kind()));
                    None
                }
                Some(value) => {
                    let text = ruby_strip(&value.to_text(node.text().unwrap_or_default()));
                    if text.is_empty() || text.contains('\0') {
                        self.error(node.at, "`location` is empty");
                    }
                    Some((text, node.at))
                }
            },
        };
        let runas = entry.get("runas").filter(|n| !n.is_null()).and_then(|node| {
            let Some(value) = meaning(node) else {
                self.error(node.at, format!("`runas` is {}, not a user's name", node.kind()));
                return None;
            };
            let name = ruby_strip(&value.to_text(node.text().unwrap_or_default()));
            if name.is_empty() {
                let hint = "the agent 1.x takes it for root, 2.x for nobody in particular; leave it out or name a user";
                self.warn(node.at, "`runas` is empty", hint);
            }
            Some(name)
        });
        let sudo = entry.get("sudo").is_some_and(|node| {
            let value = meaning(node);
            if matches!(value, Some(Meaning::Text(_))) {
                let hint = "any text means yes to the agent 1.x, `false` too, and 2.x refuses it; write true or false without quotes";
                self.warn(node.at, "`sudo` is a text", hint);
            }
            value.is_none_or(|v| v.is_true())
        });
        let timeout = self.timeout(entry.get("timeout"));
        let (location, at) = location?;
        Some(Script { location, runas, sudo, timeout: timeout?, at })
    }

    fn timeout(&mut self, node: Option<&Node>) -> Option<Duration> {
        let Some(node) = node else { return seconds(DEFAULT_TIMEOUT) };
        let written = node.text().unwrap_or_default();
        let value = match meaning(node) {
            Some(Meaning::Null | Meaning::Bool(false)) => DEFAULT_TIMEOUT,
            Some(Meaning::Integer(i)) => {
                if written.starts_with('0') || written.contains(':') {
                    let hint = "write the seconds without a leading zero";
                    self.warn(
                        node.at,
                        format!("`timeout: {written}` is {i} seconds to YAML"),
                        hint,
                    );
                }
                i
            }
            #[expect(clippy::cast_possible_truncation, reason = "Ruby truncates; `as` saturates")]
            Some(Meaning::Float(f)) if f.is_finite() => f.trunc() as i128,
            Some(Meaning::Text(text)) => {
                let i = leading_integer(&text);
                if i > 0 && !text.trim().bytes().all(|b| b.is_ascii_digit()) {
                    let hint = "write whole seconds, without a unit";
                    self.warn(
                        node.at,
                        format!("`timeout: {written}` is read as {i} seconds"),
                        hint,
                    );
                } else if i > 0 {
                    let hint = "the agent 2.x refuses it; remove the quotes";
                    self.warn(node.at, "`timeout` is a text", hint);
                }
                i
            }
            Some(Meaning::Float(_) | Meaning::Bool(true)) | None => 0,
        };
        if value <= 0 {
            let shown = node.text().map_or_else(|| node.kind().to_owned(), quoted);
            let message = format!("`timeout` is {shown}, not a number of seconds above 0");
            self.error_hint(node.at, message, "write whole seconds: `timeout: 300`");
            return None;
        }
        seconds(value)
    }

    fn permissions(&mut self, node: Option<&Node>) -> Vec<Permission> {
        let mut permissions = Vec::new();
        for entry in self.list(node, "`permissions`") {
            if self.is_map(entry, "an entry of `permissions`", "object") {
                self.keys(entry, &PERMISSION_KEYS, true);
                permissions.extend(self.permission(entry));
            }
        }
        permissions
    }

    fn permission(&mut self, entry: &Node) -> Option<Permission> {
        let object = match entry.get("object").filter(|n| !n.is_null()) {
            None => String::new(),
            Some(node) => {
                let Some(value) = meaning(node) else {
                    self.error(node.at, format!("`object` is {}, not a path", node.kind()));
                    return None;
                };
                ruby_strip(&value.to_text(node.text().unwrap_or_default()))
            }
        };
        if object.is_empty() || object.contains('\0') {
            let at = entry.get("object").map_or(entry.at, |n| n.at);
            self.error_hint(
                at,
                "an entry of `permissions` has no `object`",
                "name a file or directory",
            );
        }
        let pattern = entry
            .get("pattern")
            .filter(|n| !n.is_null())
            .and_then(|node| self.word(node, "`pattern`").filter(|pattern| pattern != "**"));
        let (files, directories) = self.types(entry.get("type"));
        let except_nodes = self.list(entry.get("except"), "`except`");
        Some(Permission {
            object,
            pattern,
            except: except_nodes
                .iter()
                .filter_map(|n| self.word(n, "an entry of `except`"))
                .collect(),
            files,
            directories,
            owner: self.principal(entry.get("owner"), "owner", "user"),
            group: self.principal(entry.get("group"), "group", "group"),
            mode: self.mode(entry.get("mode")),
            acls: self.acls(entry.get("acls")),
            context: self.context(entry.get("context")),
            at: entry.at,
        })
    }

    /// A scalar's text, whatever YAML takes it for.
    fn word(&mut self, node: &Node, what: &str) -> Option<String> {
        if node.text().is_none() {
            self.error(node.at, format!("{what} is {}, not a text", node.kind()));
        }
        node.text().map(str::to_owned)
    }

    fn types(&mut self, node: Option<&Node>) -> (bool, bool) {
        let Some(node) = node.filter(|n| !n.is_null() && !is_false(n)) else { return (true, true) };
        let Some(items) = node.items() else {
            let message = format!(
                "`type` is {}, not a list",
                node.text().map_or("a mapping".to_owned(), quoted)
            );
            self.error_hint(
                node.at,
                message,
                "write `type: [file]`, `[directory]` or `[file, directory]`",
            );
            return (true, true);
        };
        let has = |word: &str| items.iter().any(|i| i.text() == Some(word));
        let found = (has("file"), has("directory"));
        for item in items.iter().filter(|i| !matches!(i.text(), Some("file" | "directory"))) {
            let shown = item.text().map_or_else(|| item.kind().to_owned(), quoted);
            let message = format!("{shown} is not a type of object");
            self.error_hint(item.at, message, "it may be `file` or `directory`");
        }
        found
    }

    fn principal(&mut self, node: Option<&Node>, key: &str, kind: &str) -> Option<Principal> {
        let node = node.filter(|n| !n.is_null())?;
        let message = match meaning(node) {
            Some(Meaning::Bool(false)) => return None,
            Some(Meaning::Integer(i)) => match u32::try_from(i) {
                // The highest number means "leave it" to the kernel.
                Ok(id) if id != u32::MAX => return Some(Principal::Id(id)),
                _ => format!("`{key}` is {i}, which is no {kind}'s number"),
            },
            Some(Meaning::Text(text)) if text.is_empty() => format!("`{key}` is empty"),
            Some(Meaning::Text(text)) if !text.contains('\0') => {
                return Some(Principal::Name(text));
            }
            Some(_) => {
                format!(
                    "`{key}` is {}, which is no {kind}'s name for YAML",
                    quoted(node.text().unwrap_or_default())
                )
            }
            None => format!("`{key}` is {}, not a {kind}", node.kind()),
        };
        self.error_hint(node.at, message, format!("name a {kind}, or leave `{key}` out"));
        None
    }

    fn mode(&mut self, node: Option<&Node>) -> Option<Mode> {
        let node = node.filter(|n| !n.is_null())?;
        let written = node.text().unwrap_or_default();
        let text = match meaning(node) {
            None => {
                self.error(node.at, format!("`mode` is {}, not a number", node.kind()));
                return None;
            }
            Some(Meaning::Integer(number)) if is_octal(written) => {
                let digits: String = written.chars().filter(char::is_ascii_digit).collect();
                let digits = match digits.len() {
                    5.. => digits.trim_start_matches('0').to_owned(),
                    _ => digits,
                };
                let message = format!("`mode: {written}` is octal to YAML");
                let agent = format!("{number:0>3}");
                let as_read = if Mode::parse(&agent).is_ok() {
                    format!("the agent 1.x sets {agent} instead")
                } else {
                    format!("the agent 1.x reads {agent} and refuses it")
                };
                self.warn(node.at, message, format!("{as_read}; write `mode: '{digits}'`"));
                digits
            }
            Some(value) => value.to_text(written),
        };
        match Mode::parse(&text) {
            Ok(mode) => Some(mode),
            Err(message) => {
                self.error_hint(node.at, message, "write it like `mode: '0644'`");
                None
            }
        }
    }

    fn acls(&mut self, node: Option<&Node>) -> Option<Vec<Ace>> {
        let node = node.filter(|n| !n.is_null())?;
        let mut acls = Vec::new();
        for entry in self.list(Some(node), "`acls`") {
            let Some(text) = self.word(entry, "an entry of `acls`") else { continue };
            match Ace::parse(&text) {
                Ok(ace) => acls.push(ace),
                Err(message) => self.error(entry.at, message),
            }
        }
        Some(acls)
    }

    fn context(&mut self, node: Option<&Node>) -> Option<Context> {
        let node = node.filter(|n| !n.is_null())?;
        if !self.is_map(node, "`context`", "type") {
            return None;
        }
        let text = |key: &str| node.get(key).filter(|n| !n.is_null()).and_then(Node::text);
        let Some(kind) = text("type").filter(|t| !t.is_empty()) else {
            self.error_hint(
                node.at,
                "`context` has no `type`",
                "an SELinux type, like `httpd_sys_content_t`",
            );
            return None;
        };
        let range = match text("range").map(normal_range) {
            Some(Err(message)) => {
                self.error(node.get("range").map_or(node.at, |n| n.at), message);
                None
            }
            Some(Ok(range)) => Some(range),
            None => None,
        };
        Some(Context { user: text("name").map(str::to_owned), kind: kind.to_owned(), range })
    }
}

/// A plain octal number as YAML 1.1 has it.
fn is_octal(written: &str) -> bool {
    written.len() > 1
        && written.starts_with('0')
        && written.bytes().all(|b| matches!(b, b'0'..=b'7' | b'_' | b','))
}

fn is_plain(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar(s) if s.plain)
}

fn is_false(node: &Node) -> bool {
    meaning(node) == Some(Meaning::Bool(false))
}

/// White space and NUL at both ends, as Ruby's `strip` takes them.
fn ruby_strip(text: &str) -> String {
    let space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | '\0');
    text.trim_matches(space).to_owned()
}

fn seconds(value: i128) -> Option<Duration> {
    // A century is as good as for ever, and can be added to a clock.
    let most = 100 * 366 * 86_400;
    u64::try_from(value.min(most)).ok().map(Duration::from_secs)
}
