//! What the program prints about itself: shell completion, man pages, the manifest's schema and
//! the manual, whose pages are in `src/manual`.

use std::path::Path;

use clap::CommandFactory;

use crate::cli::{Cli, CompletionArgs, GuideArgs, ManArgs, Page};
use crate::deploy::{Answer, Refusal};
use crate::error::{ExitCode, Failure};

const NAME: &str = "multideployer";

/// `completion`: a script for a shell.
pub fn completion(args: &CompletionArgs) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    Answer { stdout: String::from_utf8_lossy(&script).into_owned(), code: ExitCode::Ok }
}

/// `schema`: for editors.
pub fn schema() -> Answer {
    Answer { stdout: crate::manifest::schema::SCHEMA.to_owned(), code: ExitCode::Ok }
}

/// `guide`: a page of the manual, which is as readable unformatted.
pub fn guide(args: &GuideArgs) -> Answer {
    Answer { stdout: text_of(args.page).to_owned(), code: ExitCode::Ok }
}

fn text_of(page: Page) -> &'static str {
    match page {
        Page::Operations => include_str!("manual/operations.md"),
        Page::Manifest => include_str!("manual/manifest.md"),
        Page::Security => include_str!("manual/security.md"),
        Page::CodedeployLocal => include_str!("manual/codedeploy-local.md"),
    }
}

/// `man`: the page on standard output, or all pages into a directory.
pub fn man(args: &ManArgs) -> Result<Answer, Refusal> {
    let mut command = Cli::command();
    command.build();
    let Some(directory) = &args.directory else {
        let stdout = String::from_utf8_lossy(&page(command)?).into_owned();
        return Ok(Answer { stdout, code: ExitCode::Ok });
    };
    fs_err::create_dir_all(directory).map_err(|error| cannot_write(directory, &error))?;
    let mut written = String::new();
    let subcommands: Vec<_> = command.get_subcommands().cloned().collect();
    for command in std::iter::once(command).chain(subcommands) {
        // clap calls the page of `deploy` "multideployer-deploy".
        let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
        let path = directory.join(format!("{name}.1"));
        fs_err::write(&path, page(command)?).map_err(|error| cannot_write(&path, &error))?;
        written += &format!("{}\n", path.display());
    }
    Ok(Answer { stdout: written, code: ExitCode::Ok })
}

fn page(command: clap::Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .manual("multideployer")
        .render(&mut page)
        .map_err(|error| Failure::from_error(ExitCode::Unexpected, &error))?;
    Ok(page)
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::from_error(ExitCode::Unfit, error)
        .context(format!("cannot write `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::ValueEnum;
    use serde_json::Value;

    use super::*;

    const README: &str = include_str!("../README.md");

    /// Each file with its directory, seen from the project's.
    fn files() -> Vec<(String, &'static str)> {
        let page = |page: &Page| {
            let name = page.to_possible_value().expect("no page is hidden").get_name().to_owned();
            (format!("src/manual/{name}.md"), text_of(*page))
        };
        std::iter::once(("README.md".to_owned(), README))
            .chain(Page::value_variants().iter().map(page))
            .collect()
    }

    #[test]
    fn every_key_of_the_manifest_is_explained() {
        fn keys<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::Object(properties)) = map.get("properties") {
                        found.extend(properties.keys().map(String::as_str));
                    }
                    map.values().for_each(|inner| keys(inner, found));
                }
                Value::Array(list) => list.iter().for_each(|inner| keys(inner, found)),
                _ => {}
            }
        }
        let schema: Value = serde_json::from_str(crate::manifest::schema::SCHEMA).unwrap();
        let mut found = BTreeSet::new();
        keys(&schema, &mut found);
        assert!(found.len() > 50, "{found:?}");
        let text = text_of(Page::Manifest).to_owned() + text_of(Page::Security);
        let named =
            |key: &str| text.contains(&format!("`{key}")) || text.contains(&format!("{key}:"));
        found.retain(|key| !named(key));
        assert_eq!(found, BTreeSet::new());
    }

    #[test]
    fn every_exit_code_says_what_to_do() {
        for code in [
            ExitCode::Ok,
            ExitCode::Unexpected,
            ExitCode::Configuration,
            ExitCode::Fetch,
            ExitCode::AppFailed,
            ExitCode::Restored,
            ExitCode::RestoreFailed,
            ExitCode::Refused,
            ExitCode::Deadline,
            ExitCode::Locked,
            ExitCode::Changes,
            ExitCode::Unfit,
            ExitCode::Hangup,
            ExitCode::Interrupted,
            ExitCode::Terminated,
        ] {
            let number = u8::from(code);
            let row = |line: &&str| {
                let first = line.strip_prefix("| ").and_then(|rest| rest.split(" |").next());
                first.is_some_and(|cell| cell.split(", ").any(|one| one == number.to_string()))
            };
            let rows = text_of(Page::Operations).lines().filter(row).count();
            // Nothing is to be done about 0, 1 is a bug, and 10 was asked for.
            let wanted = if matches!(number, 0 | 1 | 10) { 1 } else { 2 };
            assert_eq!(rows, wanted, "exit code {number}");
        }
    }

    #[test]
    fn every_command_that_is_named_exists() {
        let command = Cli::command();
        for (file, text) in files() {
            for rest in text.split("multideployer ").skip(1) {
                let word = rest.split(|ch: char| !ch.is_ascii_lowercase() && ch != '-').next();
                let Some(word) = word.filter(|word| !word.is_empty()) else { continue };
                // In prose the program's name is followed by a verb of the sentence.
                let quoted = text.contains(&format!("`multideployer {word}"))
                    || text.contains(&format!("\nmultideployer {word}"));
                if quoted && !word.starts_with('-') {
                    assert!(command.find_subcommand(word).is_some(), "{file}: {word}");
                }
            }
        }
    }

    #[test]
    fn every_link_leads_somewhere() {
        let anchor = |heading: &str| {
            let kept = heading.chars().filter(|ch| ch.is_alphanumeric() || " -_".contains(*ch));
            kept.collect::<String>().to_lowercase().replace(' ', "-")
        };
        let mut links = 0;
        for (file, text) in files() {
            for rest in text.split("](").skip(1) {
                let target = rest.split(')').next().unwrap_or_default();
                if target.contains("://") {
                    continue;
                }
                links += 1;
                let (path, heading) = target.split_once('#').unwrap_or((target, ""));
                let file = Path::new(&file);
                let at = if path.is_empty() {
                    file.to_owned()
                } else {
                    file.parent().expect("a directory").join(path)
                };
                let root = Path::new(env!("CARGO_MANIFEST_DIR"));
                let bytes = fs_err::read(root.join(&at)).expect(target);
                if !heading.is_empty() {
                    let text = String::from_utf8(bytes).expect("text");
                    let headings = text.lines().filter_map(|line| line.split_once("# "));
                    assert!(
                        headings.map(|(_, heading)| anchor(heading)).any(|known| known == heading),
                        "{}: {target}",
                        file.display()
                    );
                }
            }
        }
        assert!(links > 5, "{links}");
    }
}
