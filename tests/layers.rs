//! The architecture as the page in `src/lib.rs` draws it, checked against the sources:
//! words ◄ pure ◄ effects ◄ wiring.
#![expect(clippy::unwrap_used, reason = "what a test cannot read, it cannot pass")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The layers from the ground up. A module may use those of its own layer and below.
const LAYERS: [(&str, &[&str]); 4] = [
    ("words", &["domain", "hosts", "error", "diagnostic", "sync", "yaml"]),
    ("pure", &["manifest", "plan", "rollout", "report"]),
    (
        "effects",
        &[
            "files",
            "process",
            "mirror",
            "web",
            "notify",
            "checks",
            "verify",
            "bundle",
            "codedeploy",
            "ledger",
            "engine",
            "host",
        ],
    ),
    (
        "wiring",
        &[
            "cli",
            "settings",
            "load",
            "deploy",
            "rollback",
            "upkeep",
            "preview",
            "announce",
            "inspect",
            "doctor",
            "init",
            "documents",
            "fuzzing",
            "lib",
            "main",
        ],
    ),
];

/// Words that only some modules or files may use, and why.
const RESERVED: [(&[&str], &[&str], &str); 5] = [
    (
        &["std::process::Command", "libc::fork", "libc::execv", "unistd::fork", "unistd::execv"],
        &["process/", "codedeploy/start.rs"],
        "children are started in one place, with a deadline, pipes and a group of their own",
    ),
    (
        &[
            "env::var",
            "env::vars",
            "env::var_os",
            "env::vars_os",
            "env::set_var",
            "env::remove_var",
        ],
        // The engine's hooks inherit the environment it was started with, `start` replaces
        // this process by codedeploy-local, and `library` takes back what `git2` sets.
        &["settings.rs", "engine/", "codedeploy/start.rs", "mirror/library.rs"],
        "the environment is read once, into the settings",
    ),
    (
        &["println!", "eprintln!", "print!", "eprint!", "io::stdout", "io::stderr"],
        // The settings ask whether it is a terminal.
        &["report/", "engine/", "lib.rs", "deploy/answer.rs", "codedeploy/start.rs", "settings.rs"],
        "what is printed goes through the report, or breaks --json and the hook's block",
    ),
    (
        &["git2::", "libgit2_sys::"],
        &["mirror/", "ledger/", "host.rs", "inspect/", "deploy/"],
        "git is known to the mirror and the ledger; the engine knows nothing of it",
    ),
    (&["libyaml_safer::"], &["yaml/"], "there is one YAML reader"),
];

#[test]
fn no_arrow_points_up() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        let module = module_of(&file);
        let Some(layer) = layer(&module) else {
            wrong.push(format!("src/{file}: `{module}` is in no layer; put it into LAYERS"));
            continue;
        };
        for used in used_modules(&code) {
            match self::layer(&used) {
                Some(below) if below <= layer => {}
                Some(_) => wrong.push(format!("src/{file} uses `{used}`, which is above it")),
                None => wrong.push(format!("src/{file} uses `{used}`, which is in no layer")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_engine_knows_nothing_of_git_and_of_the_program_around_it() {
    // `codedeploy` for the agent's default paths, which both have to agree on.
    const KNOWN: [&str; 7] =
        ["engine", "yaml", "diagnostic", "error", "domain", "process", "codedeploy"];
    let engine: Vec<_> =
        sources().into_iter().filter(|(file, _)| module_of(file) == "engine").collect();
    assert!(!engine.is_empty());
    for (file, code) in engine {
        let foreign: Vec<String> = used_modules(&code)
            .into_iter()
            .filter(|used| !KNOWN.contains(&used.as_str()))
            .collect();
        assert!(foreign.is_empty(), "src/{file} uses {foreign:?}");
        assert!(!code.contains("git2"), "src/{file} uses git2");
    }
}

#[test]
fn what_is_reserved_is_used_only_where_it_may_be() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        for (words, files, why) in RESERVED {
            let allowed = files.iter().any(|allowed| file.starts_with(allowed));
            for word in words.iter().filter(|word| !allowed && uses(&code, word)) {
                wrong.push(format!("src/{file} has `{word}`: {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_page_in_lib_names_every_module() {
    let lib = std::fs::read_to_string(src().join("lib.rs")).unwrap();
    let page: String = lib.lines().filter(|line| line.starts_with("//!")).collect();
    for (file, _) in sources() {
        let module = module_of(&file);
        // What is fuzzed is no part of the program.
        if !["lib", "main", "fuzzing"].contains(&module.as_str()) {
            assert!(page.contains(&format!("[`{module}`]")), "src/lib.rs does not name `{module}`");
        }
    }
}

#[test]
fn this_test_can_see() {
    let code = code_of(
        "//! use crate::doc;\nuse crate::{a, b::{C, D}, e as f};\nlet s = \"crate::text\"; // crate::comment\n\
         let c = '\"'; crate::g::h(); let r = r#\"crate::raw \"\"#; /* crate::block */ crate::i!();\n\
         fn x<'a>() {} println!(\"\"); my_eprintln!();\n\
         #[cfg(test)]\nmod tests;\nuse crate::j;\n#[cfg(test)]\nmod tests {\n use crate::k; }\n",
    );
    let used: Vec<String> = used_modules(&code).into_iter().collect();
    assert_eq!(used, ["a", "b", "e", "g", "i", "j"], "{code}");
    assert!(uses(&code, "println!") && !uses(&code, "eprintln!"));
    assert!(uses(&code_of("use std::process::{self, Command};"), "std::process::Command"));
    assert!(!uses(
        &code_of("use std::process::ExitCode; use crate::process::Command;"),
        "std::process::Command"
    ));
    assert!(sources().len() > 20);
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every file below `src` that is not a test, by its path there, reduced to code.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut directories = vec![src()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(src()).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                if !name.ends_with("tests") {
                    directories.push(path);
                }
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
                files.push((name, code_of(&std::fs::read_to_string(path).unwrap())));
            }
        }
    }
    files.sort();
    files
}

fn module_of(file: &str) -> String {
    file.split(['/', '.']).next().unwrap_or_default().to_owned()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, modules)| modules.contains(&module))
}

/// The modules right below `crate` that code names.
fn used_modules(code: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut used = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        let rest = &code[at + found.len()..];
        match rest.trim_start().strip_prefix('{') {
            None => used.extend([word(rest)]),
            Some(group) => {
                let mut depth = 1;
                let mut start = true;
                for (index, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 1 => start = true,
                        c if start && c.is_alphabetic() => {
                            used.extend([word(&group[index..])]);
                            start = false;
                        }
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
        }
    }
    // Types and functions that `lib.rs` itself has.
    used.retain(|name| !name.is_empty() && !name.starts_with(char::is_uppercase));
    used
}

/// Whether code has `word`, not as the end of a longer one; `a::B` is found in
/// `use a::{self, B}` too.
fn uses(code: &str, word: &str) -> bool {
    let direct = code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let longer = part(after) && word.ends_with(char::is_alphanumeric);
        !part(before) && !longer
    });
    let Some((module, item)) = word.rsplit_once("::").filter(|(_, item)| !item.is_empty()) else {
        return direct;
    };
    let group = format!("{module}::{{");
    direct
        || code.match_indices(&group).any(|(at, _)| {
            let group = code[at + group.len()..].split('}').next().unwrap_or_default();
            group.split(',').any(|part| part.split_whitespace().next() == Some(item))
        })
}

/// Code without comments, texts and the tests at its end.
fn code_of(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if c == '"' {
            end_of_text(rest, 1)
        } else if rest.starts_with("r\"") || rest.starts_with("r#") {
            let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
            let quote = format!("\"{}", "#".repeat(hashes));
            if rest[1 + hashes..].starts_with('"') {
                let inside = 2 + hashes;
                rest[inside..].find(&quote).map_or(rest.len(), |end| inside + end + quote.len())
            } else {
                0
            }
        } else if c == '\'' {
            end_of_char(rest)
        } else if let Some(next) = rest.strip_prefix("#[cfg(test)]") {
            let module = next.trim_start().strip_prefix("mod ");
            let inline = module.and_then(|m| m.find(['{', ';']).map(|at| m[at..].starts_with('{')));
            if inline == Some(true) {
                break;
            }
            0
        } else {
            0
        };
        if skip > 0 {
            code.push(' ');
            rest = &rest[skip..];
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    code
}

/// Where a text in double quotes ends.
fn end_of_text(text: &str, from: usize) -> usize {
    let mut escaped = false;
    for (index, c) in text[from..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return from + index + 1,
            _ => {}
        }
    }
    text.len()
}

/// Where a character in single quotes ends; 0 for a lifetime.
fn end_of_char(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(0, |end| 3 + end + 1),
        Some(_) => match chars.next() {
            Some((index, '\'')) => index + 1,
            _ => 0,
        },
        None => 0,
    }
}
