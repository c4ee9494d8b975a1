//! The agent's configuration file, as far as a local deployment needs it.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::cli::Options;
use crate::codedeploy::{AGENT_CONFIGURATION, DEFAULT_ROOT};
use crate::yaml::Node;

const DEFAULT_LOG_DIR: &str = "/var/log/aws/codedeploy-agent/";
const DEFAULT_PROGRAM: &str = "codedeploy-agent";
const DEFAULT_REVISIONS: usize = 5;
/// Where everything goes on a host without an agent, if nobody says otherwise.
const OWN_ROOT: &str = "/var/lib/codedeploy-multideployer/codedeploy-local";

/// Where things are, and how many revisions are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Config {
    /// Absolute.
    pub(super) root: PathBuf,
    pub(super) log_dir: PathBuf,
    pub(super) program: String,
    /// At least 1.
    pub(super) max_revisions: usize,
    /// Whether script lines also go to the log of all deployments.
    pub(super) deployments_log: bool,
}

impl Config {
    fn below(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            log_dir: root.join("logs"),
            program: DEFAULT_PROGRAM.to_owned(),
            max_revisions: DEFAULT_REVISIONS,
            deployments_log: true,
        }
    }

    /// The configuration that was named, else the agent's where there is one, else what a
    /// host without an agent gets.
    ///
    /// # Errors
    /// A sentence: a file that was named is not readable, or a value cannot be used.
    pub(super) fn load(options: &Options, cwd: &Path) -> Result<Self, String> {
        let usual = Path::new(AGENT_CONFIGURATION);
        let mut config = match &options.configuration {
            Some(file) => Self::read(&cwd.join(file), file)?,
            None if usual.exists() => Self::read(usual, usual)?,
            None => Self::below(options.default_root.as_deref().unwrap_or(Path::new(OWN_ROOT))),
        };
        config.root = cwd.join(config.root);
        config.log_dir = cwd.join(config.log_dir);
        Ok(config)
    }

    /// Reads one file.
    ///
    /// # Errors
    /// A sentence: it is not readable, or a value cannot be used.
    pub(super) fn read(file: &Path, named: &Path) -> Result<Self, String> {
        let shown = named.display();
        let text = if file.is_file() { fs::read(file).ok() } else { None };
        let text =
            text.ok_or(format!("configuration file {shown} does not exist or is not readable"))?;
        let document = crate::yaml::parse(&text)
            .map_err(|e| format!("configuration file {shown}:{}: {}", e.at, e.message))?;
        let mut config = Self {
            root: PathBuf::from(DEFAULT_ROOT),
            log_dir: PathBuf::from(DEFAULT_LOG_DIR),
            ..Self::below(Path::new("/"))
        };
        let Some(root) = document.root.filter(|root| !root.is_null()) else { return Ok(config) };
        if root.entries().is_none() {
            return Err(format!("configuration file {shown} is {}, not a mapping", root.kind()));
        }
        if let Some(text) = text_of(&root, "root_dir", named)? {
            config.root = PathBuf::from(text);
        }
        if let Some(text) = text_of(&root, "log_dir", named)? {
            config.log_dir = PathBuf::from(text);
        }
        if let Some(text) = text_of(&root, "program_name", named)? {
            if text.contains('/') || text.is_empty() {
                return Err(format!("configuration file {shown}: program_name is no file name"));
            }
            config.program = text;
        }
        if let Some(text) = text_of(&root, "max_revisions", named)? {
            let number = text.parse().ok().filter(|n| *n >= 1);
            config.max_revisions = number.ok_or(format!(
                "configuration file {shown}: max_revisions is `{text}`, not a number of at least 1"
            ))?;
        }
        if let Some(text) = text_of(&root, "enable_deployments_log", named)? {
            config.deployments_log =
                !matches!(text.to_ascii_lowercase().as_str(), "false" | "no" | "off" | "n");
        }
        Ok(config)
    }
}

/// The text of `:key:`, as the agent writes it, or of `key`.
fn text_of(root: &Node, key: &str, file: &Path) -> Result<Option<String>, String> {
    let symbol = root.get(&format!(":{key}")).or_else(|| root.get(&format!(":{key}:")));
    let Some(value) = symbol.or_else(|| root.get(key)).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    match value.text() {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(format!(
            "configuration file {}:{}: {key} is {}",
            file.display(),
            value.at,
            value.kind()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.yml");
        fs::write(&file, text).unwrap();
        let options = Options { configuration: Some(file), ..Options::default() };
        Config::load(&options, Path::new("/cwd"))
    }

    #[test]
    fn symbol_like_keys_are_read() {
        let config = load(
            "---\n:root_dir: '/r'\n:log_dir: /l/\n:program_name: agent\n:max_revisions: 2\n\
             :verbose: false\n:enable_deployments_log: false\n",
        );
        let expected = Config {
            root: "/r".into(),
            log_dir: "/l/".into(),
            program: "agent".into(),
            max_revisions: 2,
            deployments_log: false,
        };
        assert_eq!(config, Ok(expected));
        assert_eq!(load("root_dir: r\n").unwrap().root, Path::new("/cwd/r"));
    }

    #[test]
    fn an_empty_file_means_the_agents_defaults() {
        let config = load("").unwrap();
        assert_eq!(config.root, Path::new(DEFAULT_ROOT));
        assert_eq!(config.max_revisions, 5);
        assert!(config.deployments_log);
    }

    #[test]
    fn values_that_cannot_be_used_are_named() {
        for text in [
            ":max_revisions: 0",
            ":max_revisions: abc",
            ":root_dir: [a]",
            "- a",
            "a: [",
            ":program_name: a/b",
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains("agent.yml"), "{error}");
        }
        let options = Options { configuration: Some("/nope".into()), ..Options::default() };
        let error = Config::load(&options, Path::new("/")).unwrap_err();
        assert_eq!(error, "configuration file /nope does not exist or is not readable");
    }
}
