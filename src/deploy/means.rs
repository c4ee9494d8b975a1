//! What a run works with: credentials by host, and what no child may see of them.

use std::ffi::OsString;
use std::sync::OnceLock;

use crate::codedeploy;
use crate::error::{ExitCode, Failure};
use crate::host::Run;
use crate::hosts::{Auth, HostRule, Hosts};
use crate::manifest::Manifest;
use crate::manifest::reporting::Reporting;
use crate::mirror::credentials::Kept;
use crate::process::Interrupt;
use crate::report::console::Console;
use crate::settings::{Environment, Settings};

/// Looks a variable up in our own environment.
type Variable<'a> = Box<dyn Fn(&str) -> Option<OsString> + Sync + 'a>;

/// What a run takes from settings and manifest, whatever command makes it.
pub(crate) struct Means<'a> {
    pub(crate) hosts: Hosts,
    pub(crate) hidden: Vec<OsString>,
    variable: Variable<'a>,
    settings: &'a Settings,
    manifest: &'a Manifest,
}

/// What there is to know of codedeploy-local, once it has been asked.
pub(crate) type Probed = OnceLock<Result<codedeploy::Tool, Failure>>;
/// Asks it.
pub(crate) type Probe<'a> = &'a (dyn Fn() -> Result<codedeploy::Tool, Failure> + Sync);

/// The probe of a command that hands nothing over.
pub(crate) fn no_tool() -> Result<codedeploy::Tool, Failure> {
    Err(Failure::new(ExitCode::Unexpected, "nothing is deployed here"))
}

impl<'a> Means<'a> {
    pub(crate) fn of(settings: &'a Settings, manifest: &'a Manifest) -> Self {
        let hosts = with_given_tokens(settings, manifest);
        let hidden = hidden(&settings.environment, &hosts, &manifest.report);
        let variable = Box::new(|name: &str| settings.environment.get(name).map(OsString::from));
        Self { hosts, hidden, variable, settings, manifest }
    }

    /// A run that only looks: without id, hook and deadline.
    pub(crate) fn run<'b>(
        &'b self,
        tool: &'b Probed,
        probe: Probe<'b>,
        interrupt: &'b Interrupt,
        console: &'b Console,
    ) -> Run<'b> {
        let Self { hosts, hidden, variable, settings, manifest } = self;
        Run {
            id: "",
            cache: &settings.cache_dir,
            hosts,
            apps: &manifest.apps,
            kept: Kept::default(),
            variable,
            hidden,
            offline: false,
            deadline: None,
            min_free_space: manifest.limits.min_free_space.unwrap_or(0),
            mirror_max: manifest.limits.mirror_max,
            hook: None,
            agent_configuration_file: None,
            state: &settings.state_dir,
            who: String::new(),
            tool,
            probe,
            interrupt,
            console,
        }
    }
}

/// The manifest's hosts, and the tokens of flag and variable bound to theirs: each only where
/// the manifest itself says nothing about that host.
fn with_given_tokens(settings: &Settings, manifest: &Manifest) -> Hosts {
    let mut rules = manifest.hosts.rules().to_vec();
    let mut bind = |host: &str, token: &crate::settings::GivenToken| {
        let auth = Auth::Given { token: token.token.clone(), origin: token.origin };
        // Of the manifest and of the machine file; what they do not say is taken from each other.
        if !rules.iter().any(|rule| rule.prefix == host && rule.auth.is_some()) {
            let prefix = host.to_owned();
            rules.push(HostRule { prefix, auth: Some(auth), ..HostRule::default() });
        }
    };
    if let Some(token) = &settings.token {
        for host in &manifest.github_hosts {
            bind(host, token);
        }
    }
    if let Some(token) = &settings.github_com_token {
        bind("github.com", token);
    }
    Hosts::new(rules)
}

/// Variables that no child may see: ours, and those that hold tokens.
pub(crate) fn hidden(
    environment: &Environment,
    hosts: &Hosts,
    report: &Reporting,
) -> Vec<OsString> {
    let mut names: Vec<OsString> = environment.own_names().map(Into::into).collect();
    names.extend(hosts.secret_variables().map(OsString::from));
    names.extend(report.secret_variables().map(OsString::from));
    names
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn given_tokens_are_bound_to_their_hosts_and_give_way_to_the_manifest() {
        use clap::Parser;
        let text = "version: 2\nhosts:\n  own.example.com: {auth: {token_env: OWN}}\n  \
            ghes.example.com/public: {auth: none}\n  both.example.com: {username: me}\napps:\n";
        let sources = [
            ("github://ghes.example.com/acme/a", Some("MULTIDEPLOYER_GITHUB_TOKEN")),
            ("github://ghes.example.com/public/b", None),
            ("github://own.example.com/acme/c", Some("OWN")),
            ("https://other.example.com/acme/d.git", None),
            ("https://github.com/acme/e.git", Some("CODEDEPLOY_GITHUB_TOKEN")),
            ("github://both.example.com/acme/h", Some("MACHINE")),
            // SSH takes keys: a token that was given for the others is none of its business.
            ("ssh://git@ghes.example.com/acme/g.git", None),
            ("https://github.com.example.com/acme/f.git", None),
        ];
        let app = |(number, (source, _)): (usize, &(&str, Option<&str>))| {
            let release = "1".repeat(40);
            format!("- {{name: app{number}, source: '{source}', release: '{release}'}}\n")
        };
        let text: String =
            text.to_owned() + &sources.iter().enumerate().map(app).collect::<String>();
        let defaults = crate::manifest::Defaults::new("/etc");
        let mut manifest =
            crate::manifest::parse(text.as_bytes(), Path::new("m.yaml"), &defaults).unwrap();
        let machine = HostRule {
            prefix: "both.example.com".into(),
            auth: Some(Auth::TokenEnv("MACHINE".into())),
            ..HostRule::default()
        };
        manifest.hosts = manifest.hosts.or(Hosts::new(vec![machine]));
        let environment: Environment =
            [("MULTIDEPLOYER_GITHUB_TOKEN", "t"), ("CODEDEPLOY_GITHUB_TOKEN", "u")].into();
        let cli = crate::cli::Cli::try_parse_from(["multideployer"]).unwrap();
        let settings = Settings::new(&cli.global, environment).unwrap();
        let hosts = with_given_tokens(&settings, &manifest);
        for (app, (source, place)) in manifest.apps.iter().zip(sources) {
            let shown = hosts.rule_for(&app.source).auth.map(|auth| auth.describe());
            match place {
                Some(place) => assert!(shown.unwrap_or_default().contains(place), "{source}"),
                None => assert!(shown.is_none_or(|shown| !shown.contains("token")), "{source}"),
            }
        }
    }
}
