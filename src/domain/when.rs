//! Which hosts an app is for.

/// What an app's `when` can ask about a host and the deployment it takes part in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// CodeDeploy's deployment group; known in a hook only.
    pub deployment_group: Option<String>,
    /// CodeDeploy's application; known in a hook only.
    pub application: Option<String>,
    /// The host's name.
    pub hostname: String,
    /// What the machine file, a variable or the command line calls this host.
    pub labels: Vec<String>,
}

/// The hosts an app is for: all for which each list holds a pattern that matches. An empty list
/// asks nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct When {
    /// For the deployment group.
    pub deployment_group: Vec<Glob>,
    /// For the application.
    pub application: Vec<Glob>,
    /// For the host's name, with or without its domain, whatever the case.
    pub hostname: Vec<Glob>,
    /// For one of the labels.
    pub label: Vec<Glob>,
}

/// Why an app is not for a host.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Elsewhere {
    /// In a few words.
    pub why: String,
    /// A fact is missing that only a hook has; otherwise the app is for other hosts.
    pub unknown: bool,
}

impl When {
    /// Why an app with this is left alone; `None` if it is for this host.
    pub fn excludes(&self, facts: &Facts) -> Option<Elsewhere> {
        let unknown = |what: &str, variable: &str| Elsewhere {
            why: format!("the {what} is not known: {variable} is not set"),
            unknown: true,
        };
        let differs = |why: String| Elsewhere { why, unknown: false };
        let group = (&self.deployment_group, &facts.deployment_group);
        let application = (&self.application, &facts.application);
        for ((patterns, fact), what, variable) in [
            (group, "deployment group", "DEPLOYMENT_GROUP_NAME"),
            (application, "application", "APPLICATION_NAME"),
        ] {
            match fact {
                _ if patterns.is_empty() => {}
                None => return Some(unknown(what, variable)),
                Some(fact) if any(patterns, fact) => {}
                Some(fact) => return Some(differs(format!("the {what} is {fact}"))),
            }
        }
        let short = facts.hostname.split('.').next().unwrap_or_default();
        let named = |glob: &Glob| glob.matches_name(&facts.hostname) || glob.matches_name(short);
        if !self.hostname.is_empty() && !self.hostname.iter().any(named) {
            return Some(differs(format!("the host is {}", facts.hostname)));
        }
        if !self.label.is_empty() && !facts.labels.iter().any(|label| any(&self.label, label)) {
            return Some(differs(match facts.labels.as_slice() {
                [] => "the host has no labels".to_owned(),
                labels => format!("the host has the labels {}", labels.join(", ")),
            }));
        }
        None
    }
}

fn any(patterns: &[Glob], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(text))
}

/// A pattern with `*`, `?` and `[…]`, as git has them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Glob(String);

/// A text that is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// A `[` that no `]` follows.
    #[error("has a `[` without `]`")]
    Open,
    /// More than [`Glob::MOST`] characters.
    #[error("is longer than {} characters", Glob::MOST)]
    Long,
}

impl Glob {
    /// Bytes of a pattern at most: matching may have to go back at each `*`.
    pub const MOST: usize = 256;

    fn matches(&self, text: &str) -> bool {
        self.wild(text, gix_glob::wildmatch::Mode::empty())
    }

    fn matches_name(&self, text: &str) -> bool {
        self.wild(text, gix_glob::wildmatch::Mode::IGNORE_CASE)
    }

    fn wild(&self, text: &str, mode: gix_glob::wildmatch::Mode) -> bool {
        gix_glob::wildmatch(self.0.as_bytes().into(), text.as_bytes().into(), mode)
    }
}

impl std::str::FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        if text.len() > Self::MOST {
            return Err(GlobError::Long);
        }
        if text.rfind('[').is_some_and(|open| !text[open + 1..].contains(']')) {
            return Err(GlobError::Open);
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(patterns: &[&str]) -> Vec<Glob> {
        patterns.iter().map(|pattern| pattern.parse().unwrap()).collect()
    }

    fn facts() -> Facts {
        Facts {
            deployment_group: Some("prod-web".into()),
            application: None,
            hostname: "ip-10-0-0-7.ec2.internal".into(),
            labels: vec!["gpu".into(), "zone=a".into()],
        }
    }

    #[test]
    fn each_list_has_to_match_and_one_pattern_of_it_is_enough() {
        let when = When {
            deployment_group: globs(&["staging", "prod-*"]),
            hostname: globs(&["IP-10-0-?-[5-9]"]),
            label: globs(&["zone=[ab]"]),
            ..When::default()
        };
        assert_eq!(when.excludes(&facts()), None);
        assert_eq!(When::default().excludes(&Facts::default()), None);
        let why = |when: When| when.excludes(&facts()).map(|elsewhere| elsewhere.why);
        for (when, expected) in [
            (
                When { deployment_group: globs(&["staging", "prod"]), ..when.clone() },
                "the deployment group is prod-web",
            ),
            (
                When { hostname: globs(&["ip-10-0-1-*"]), ..when.clone() },
                "the host is ip-10-0-0-7.ec2.internal",
            ),
            (
                When { label: globs(&["GPU", "zone=c"]), ..when.clone() },
                "the host has the labels gpu, zone=a",
            ),
            (
                When { application: globs(&["*"]), ..when.clone() },
                "the application is not known: APPLICATION_NAME is not set",
            ),
        ] {
            assert_eq!(why(when).as_deref(), Some(expected));
        }
        let application = When { application: globs(&["*"]), ..When::default() };
        assert!(application.excludes(&facts()).unwrap().unknown);
    }

    #[test]
    fn patterns_are_closed_and_bounded() {
        assert_eq!("a[b".parse::<Glob>(), Err(GlobError::Open));
        assert_eq!("[a]x[".parse::<Glob>(), Err(GlobError::Open));
        assert_eq!("*".repeat(257).parse::<Glob>(), Err(GlobError::Long));
        let slow: Glob = "*a".repeat(128).parse().unwrap();
        assert!(!slow.matches(&format!("{}b", "a".repeat(250))));
    }
}
