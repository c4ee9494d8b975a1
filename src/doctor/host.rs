//! This host: who runs this, with which umask, and which codedeploy-local there is.

use std::path::Path;

use super::{Patient, places};
use crate::codedeploy::{self, Choice};
use crate::report::doctor::{Finding, Section};

/// Who deploys, and what his processes inherit.
pub(super) fn section(patient: &Patient<'_>) -> Section {
    let mut section = Section::new("this host");
    section.add(user(patient));
    section.add(umask());
    section
}

fn user(patient: &Patient<'_>) -> Finding {
    let uid = nix::unistd::geteuid();
    let name = places::owner(uid.as_raw());
    if uid.is_root() {
        return Finding::ok("user", name);
    }
    if patient.deploys {
        return Finding::ok("user", format!("{name}, not root; all directories are given"));
    }
    Finding::warning("user", format!("{name}, not root: deploying needs root, and sees more"))
        .remedy("run as root; or, for a trial, give all of --cache-dir, --state-dir and --log")
}

fn umask() -> Finding {
    // Asking for it by the system call would change it for a moment.
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let Some(mask) = field.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()) else {
        return Finding::not_checked("umask", "this kernel does not say");
    };
    let shown = format!("{mask:04o}");
    let finding = if mask & 0o022 != 0o022 {
        Finding::warning("umask", format!("{shown}: others can write to what hooks make"))
            .remedy("start it with umask 022, as the agent does")
    } else if mask & 0o055 != 0 {
        Finding::warning("umask", format!("{shown}: others cannot read what hooks make"))
            .remedy("start it with umask 022, as the agent does, unless that is wanted")
    } else {
        Finding::ok("umask", shown.clone())
    };
    finding.fact("umask", shown)
}

/// The codedeploy-local that a deployment would use.
pub(super) fn tool(patient: &Patient<'_>) -> Section {
    let settings = patient.settings;
    let mut section = Section::new("codedeploy-local");
    let why = match &settings.tool {
        Choice::Builtin => "asked for",
        Choice::Path(_) => "asked for by --codedeploy-local-path or its variable",
        Choice::Auto => "found where the agent installs it",
    };
    let file = settings.agent_configuration_file.as_deref();
    let asked = codedeploy::find(&settings.tool, settings.environment.get("PATH"))
        .and_then(|found| codedeploy::probe(&found, file, &patient.hidden, patient.interrupt));
    match asked {
        Err(failure) => {
            let mut finding = Finding::failure("tool", &failure);
            if let Some(line) = failure.output.last() {
                finding.message += &format!(" ({line})");
            }
            section.add(finding);
        }
        Ok(tool) => {
            let why = match settings.tool {
                Choice::Auto if tool.is_builtin() => "there is no agent",
                _ => why,
            };
            let text = tool.describe();
            section.add(Finding::ok("tool", format!("{text}: {why}")).fact("tool", text));
            if tool.is_two() {
                section.add(
                    Finding::warning(
                        "tool",
                        "2.x runs hooks with umask 0027: others cannot read what they make",
                    )
                    .remedy("begin hooks that make files for others with `umask 022`"),
                );
            }
        }
    }
    section.add(configuration(patient, file));
    section.findings.extend(agents_proxy(patient, file));
    section
}

fn configuration(patient: &Patient<'_>, file: Option<&Path>) -> Finding {
    let usual = Path::new(codedeploy::AGENT_CONFIGURATION);
    let path = file.unwrap_or(usual);
    let root = crate::host::deployment_root(file, &patient.settings.state_dir);
    let root = root.display().to_string();
    if file.is_none() && !usual.exists() {
        return Finding::ok("agent", format!("no configuration; deployments are kept in {root}"))
            .fact("root_dir", root);
    }
    match crate::engine::configuration_problem(path) {
        None => Finding::ok("agent", format!("{}: root_dir {root}", path.display()))
            .fact("path", path.display().to_string())
            .fact("root_dir", root),
        Some(_) if !patient.deploys && fs_err::read(path).is_err() => {
            Finding::not_checked("agent", format!("{} is not visible to this user", path.display()))
        }
        Some(problem) => Finding::problem("agent", problem)
            .remedy("correct the agent's configuration, or --agent-configuration-file"),
    }
}

/// The agent does not tell its hooks about its proxy.
fn agents_proxy(patient: &Patient<'_>, file: Option<&Path>) -> Option<Finding> {
    let text = fs_err::read(file.unwrap_or(Path::new(codedeploy::AGENT_CONFIGURATION))).ok()?;
    let root = crate::yaml::parse(&text).ok()?.root?;
    let value = root.get(":proxy_uri").or_else(|| root.get("proxy_uri"))?;
    value.text().filter(|text| !text.is_empty())?;
    let set = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    if set.iter().any(|name| patient.variable(name).is_some()) {
        return None;
    }
    Some(
        Finding::warning("proxy", "the agent has a proxy_uri, which it does not pass on to hooks")
            .remedy("if git servers are behind that proxy, set https_proxy in the hook script"),
    )
}
