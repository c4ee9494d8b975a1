//! The command line, as docopt reads it: `--option VALUE`, `--option=VALUE`, `-oVALUE`, and
//! every unambiguous beginning of a long option.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// What is printed for `--version`.
pub(super) const VERSION: &str = "1.0";

pub(super) const USAGE: &str = "\
Usage:
  codedeploy-local [options]
  codedeploy-local -h | --help
  codedeploy-local -v | --version";

const OPTIONS: &str = "
Options:
  -a, --application-name NAME          Name for the scripts [default: the bundle's location]
  -A, --appspec-filename FILE          Appspec below the bundle, instead of appspec.yml
  -b, --file-exists-behavior WORD      DISALLOW, OVERWRITE or RETAIN [default: DISALLOW]
  -c, --agent-configuration-file FILE  The agent's configuration
                                       [default: /etc/codedeploy-agent/conf/codedeployagent.yml]
  -d, --deployment-group-name NAME     Name for the scripts [default: LocalFleet]
  -e, --events LIST                    Events to run, between commas [default: all]
  -g, --deployment-group ID            Folder of the group
                                       [default: default-local-deployment-group]
  -h, --help                           Print this
  -l, --bundle-location PATH           The bundle [default: the working directory]
  -t, --type TYPE                      directory, tar, tgz or zip [default: directory]
  -v, --version                        Print the version of the command line";

/// The text for `--help`.
pub(super) fn help() -> String {
    format!("{USAGE}\n{OPTIONS}")
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    Help,
    Version,
    Deploy(Box<Options>),
}

/// The options as typed. `None`: not given.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) location: Option<PathBuf>,
    pub(super) kind: Option<String>,
    pub(super) file_exists: Option<String>,
    pub(super) group: Option<String>,
    pub(super) group_name: Option<String>,
    pub(super) application: Option<String>,
    pub(super) events: Option<String>,
    pub(super) configuration: Option<PathBuf>,
    pub(super) appspec: Option<String>,
    /// Not the agent's: where everything goes if there is no configuration of the agent.
    pub(super) default_root: Option<PathBuf>,
    /// Not the agent's: the bundle is the caller's own and may be moved instead of copied.
    pub(super) move_bundle: bool,
}

/// Long name, short name, whether a value follows, whether its beginning is enough.
struct Known(&'static str, u8, bool, bool);

const KNOWN: [Known; 13] = [
    Known("bundle-location", b'l', true, true),
    Known("type", b't', true, true),
    Known("file-exists-behavior", b'b', true, true),
    Known("deployment-group", b'g', true, true),
    Known("deployment-group-name", b'd', true, true),
    Known("application-name", b'a', true, true),
    Known("events", b'e', true, true),
    Known("agent-configuration-file", b'c', true, true),
    Known("appspec-filename", b'A', true, true),
    Known("help", b'h', false, true),
    Known("version", b'v', false, true),
    Known("default-root", 0, true, false),
    Known("move-bundle", 0, false, false),
];

/// Reads the arguments that follow the program's name.
///
/// # Errors
/// A sentence about the first thing that is wrong.
pub(super) fn parse(args: &[OsString]) -> Result<Request, String> {
    let mut given: Vec<(&'static str, OsString)> = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let mut value_of = |option: &Known, attached: Option<&[u8]>| -> Result<OsString, String> {
            match (option.2, attached) {
                (true, Some(value)) => Ok(OsString::from_vec(value.to_vec())),
                (true, None) => {
                    rest.next().cloned().ok_or_else(|| format!("--{} needs a value", option.0))
                }
                (false, None) => Ok(OsString::new()),
                (false, Some(_)) => Err(format!("--{} takes no value", option.0)),
            }
        };
        let bytes = arg.as_bytes();
        if let Some(long) = bytes.strip_prefix(b"--").filter(|long| !long.is_empty()) {
            let end = long.iter().position(|b| *b == b'=');
            let name = String::from_utf8_lossy(&long[..end.unwrap_or(long.len())]).into_owned();
            let option = find_long(&name)?;
            let value = value_of(option, end.map(|end| &long[end + 1..]))?;
            given.push((option.0, value));
        } else if let Some(mut letters) = bytes.strip_prefix(b"-").filter(|s| !s.is_empty()) {
            while let Some((letter, attached)) = letters.split_first() {
                let option =
                    KNOWN.iter().find(|k| k.1 == *letter && *letter != 0).ok_or_else(|| {
                        format!("-{} is not an option", char::from(*letter).escape_default())
                    })?;
                let attached = Some(attached).filter(|a| !a.is_empty());
                let value = value_of(option, attached.filter(|_| option.2))?;
                given.push((option.0, value));
                letters = attached.filter(|_| !option.2).unwrap_or_default();
            }
        } else {
            return Err(format!("{} is not an option", arg.to_string_lossy()));
        }
    }
    collect(given)
}

fn find_long(name: &str) -> Result<&'static Known, String> {
    if let Some(option) = KNOWN.iter().find(|k| k.0 == name) {
        return Ok(option);
    }
    let mut matching = KNOWN.iter().filter(|k| k.3 && k.0.starts_with(name));
    match (matching.next(), matching.next()) {
        (Some(option), None) => Ok(option),
        (Some(one), Some(other)) => {
            Err(format!("--{name} may be --{} as well as --{}", one.0, other.0))
        }
        (None, _) => Err(format!("--{name} is not an option")),
    }
}

fn collect(given: Vec<(&'static str, OsString)>) -> Result<Request, String> {
    if given.iter().any(|(name, _)| *name == "help") {
        return Ok(Request::Help);
    }
    if given.iter().any(|(name, _)| *name == "version") {
        return Ok(Request::Version);
    }
    let mut options = Options::default();
    for (name, value) in given {
        let twice = match name {
            "bundle-location" => options.location.replace(value.into()).is_some(),
            "agent-configuration-file" => options.configuration.replace(value.into()).is_some(),
            "default-root" => options.default_root.replace(value.into()).is_some(),
            "move-bundle" => std::mem::replace(&mut options.move_bundle, true),
            _ => {
                let text = text(name, &value)?;
                let slot = match name {
                    "type" => &mut options.kind,
                    "file-exists-behavior" => &mut options.file_exists,
                    "deployment-group" => &mut options.group,
                    "deployment-group-name" => &mut options.group_name,
                    "application-name" => &mut options.application,
                    "events" => &mut options.events,
                    _ => &mut options.appspec,
                };
                slot.replace(text).is_some()
            }
        };
        if twice {
            return Err(format!("--{name} is given twice"));
        }
    }
    Ok(Request::Deploy(Box::new(options)))
}

fn text(name: &str, value: &OsStr) -> Result<String, String> {
    value.to_str().map(str::to_owned).ok_or_else(|| format!("the value of --{name} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Request, String> {
        parse(&args.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn options(args: &[&str]) -> Options {
        match read(args) {
            Ok(Request::Deploy(options)) => *options,
            other => panic!("{args:?}: {other:?}"),
        }
    }

    #[test]
    fn every_way_to_write_an_option_is_read() {
        for args in [
            &["--bundle-location", "/b"][..],
            &["--bundle-location=/b"],
            &["--bun", "/b"],
            &["--b=/b"],
            &["-l", "/b"],
            &["-l/b"],
        ] {
            assert_eq!(options(args).location, Some("/b".into()), "{args:?}");
        }
        assert_eq!(options(&["-e", ""]).events.as_deref(), Some(""));
        assert_eq!(options(&["--events="]).events.as_deref(), Some(""));
        // A whole name wins over those that it begins.
        assert_eq!(options(&["--deployment-group", "g"]).group.as_deref(), Some("g"));
        assert_eq!(options(&["-l", "-t"]).location, Some("-t".into()));
        assert_eq!(options(&["--default-root", "/r"]).default_root, Some("/r".into()));
    }

    #[test]
    fn what_is_not_an_option_is_refused() {
        for args in [
            &["here"][..],
            &["--nope"],
            &["--a", "x"],
            &["-x"],
            &["-l"],
            &["--", "-l"],
            &["-"],
            &["--type"],
            &["-t", "tar", "--type=zip"],
            &["--help=x"],
            &["--default", "/r"],
        ] {
            assert!(read(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn help_and_version_win() {
        assert_eq!(read(&["-h"]), Ok(Request::Help));
        assert_eq!(read(&["--he", "-t", "x"]), Ok(Request::Help));
        assert_eq!(read(&["-v"]), Ok(Request::Version));
        assert!(help().contains("--appspec-filename"));
    }
}
