//! Which events a deployment has, and in which order. No effects.

use super::appspec::{DEFAULT_EVENTS, PREVIOUS_REVISION_EVENTS};

/// Copies the bundle; has no scripts.
pub(super) const DOWNLOAD_BUNDLE: &str = "DownloadBundle";
/// Installs the files; has no scripts.
pub(super) const INSTALL: &str = "Install";
/// Runs before the files are installed, from the new revision.
pub(super) const BEFORE_INSTALL: &str = "BeforeInstall";

/// The names in `--events`, as written. Empty: the default ones are meant.
pub(super) fn named(option: Option<&str>) -> Vec<String> {
    let mut names: Vec<String> = option.unwrap_or_default().split(',').map(str::to_owned).collect();
    while names.last().is_some_and(String::is_empty) {
        names.pop();
    }
    names
}

/// Refuses an order that cannot be meant.
///
/// # Errors
/// The tool's own sentence.
pub(super) fn check_order(named: &[String]) -> Result<(), String> {
    let belongs_behind = |event: &str| {
        DEFAULT_EVENTS.contains(&event)
            && !PREVIOUS_REVISION_EVENTS.contains(&event)
            && event != DOWNLOAD_BUNDLE
            && event != BEFORE_INSTALL
    };
    for (event, more) in [(DOWNLOAD_BUNDLE, &[][..]), (INSTALL, &[DOWNLOAD_BUNDLE, BEFORE_INSTALL])]
    {
        let place = named.iter().position(|name| name == event).unwrap_or(0);
        if named[..place].iter().any(|name| belongs_behind(name)) {
            let allowed = [&PREVIOUS_REVISION_EVENTS[..], more].concat().join(",");
            return Err(format!(
                "The only events that can be specified before {event} are {allowed}. \
                 Please fix the order of your specified events: {}",
                named.join(",")
            ));
        }
    }
    Ok(())
}

/// The events in the order in which they are run.
///
/// # Errors
/// A name that is not written like one.
pub(super) fn ordered(named: &[String]) -> Result<Vec<String>, String> {
    if named.is_empty() {
        return Ok(DEFAULT_EVENTS.map(str::to_owned).to_vec());
    }
    if let Some(name) = named.iter().find(|name| !begins_like_a_name(name)) {
        return Err(format!(
            "`{name}` in --events is not the name of an event: \
             names begin with a capital and a small letter, and only commas stand between them"
        ));
    }
    let missing = [DOWNLOAD_BUNDLE, INSTALL].into_iter().filter(|e| !named.iter().any(|n| n == e));
    let mut events: Vec<String> = missing.map(str::to_owned).chain(named.iter().cloned()).collect();
    let place = |wanted: &str| events.iter().position(|event| event == wanted);
    if let (Some(install), Some(download)) = (place(INSTALL), place(DOWNLOAD_BUNDLE))
        && install < download
    {
        events.swap(install, download);
    }
    Ok(events)
}

fn begins_like_a_name(name: &str) -> bool {
    match name.as_bytes() {
        [first, second, ..] => {
            first.is_ascii_uppercase() && (second.is_ascii_lowercase() || second.is_ascii_digit())
        }
        _ => false,
    }
}

/// The events that hooks may belong to.
pub(super) fn possible(named: &[String]) -> Vec<String> {
    DEFAULT_EVENTS.iter().map(|event| (*event).to_owned()).chain(named.iter().cloned()).collect()
}

/// Named events that are not default ones; each has to be a hook of the appspec.
pub(super) fn custom(named: &[String]) -> impl Iterator<Item = &String> {
    named.iter().filter(|name| !DEFAULT_EVENTS.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(list: &str) -> String {
        ordered(&named(Some(list))).unwrap().join(",")
    }

    #[test]
    fn missing_events_are_put_in_front() {
        assert_eq!(run("AfterInstall"), "DownloadBundle,Install,AfterInstall");
        assert_eq!(run("ApplicationStop"), "DownloadBundle,Install,ApplicationStop");
        assert_eq!(
            run("ApplicationStop,DownloadBundle,AfterInstall"),
            "DownloadBundle,ApplicationStop,Install,AfterInstall"
        );
        assert_eq!(run("ApplicationStop,Install"), "DownloadBundle,ApplicationStop,Install");
        let all = "ApplicationStop,DownloadBundle,Install";
        assert_eq!(run(all), all);
        assert_eq!(
            run("AfterInstall,AfterInstall,"),
            "DownloadBundle,Install,AfterInstall,AfterInstall"
        );
        assert_eq!(run(","), DEFAULT_EVENTS.join(","));
    }

    #[test]
    fn names_have_a_form() {
        for list in ["afterInstall", "AfterInstall, X", "A", "AFTER", "A,,B", "Ärger"] {
            assert!(ordered(&named(Some(list))).is_err(), "{list}");
        }
        assert!(ordered(&named(Some("E2"))).is_ok());
    }

    #[test]
    fn the_order_is_checked() {
        let check = |list| check_order(&named(Some(list)));
        for list in [
            "",
            "BeforeInstall,DownloadBundle",
            "Custom,Install",
            "BeforeInstall,DownloadBundle,Install",
        ] {
            assert_eq!(check(list), Ok(()), "{list}");
        }
        assert_eq!(
            check("Install,DownloadBundle").unwrap_err(),
            "The only events that can be specified before DownloadBundle are \
             BeforeBlockTraffic,AfterBlockTraffic,ApplicationStop. \
             Please fix the order of your specified events: Install,DownloadBundle"
        );
        assert!(check("AfterInstall,Install").unwrap_err().contains(
            "before Install are BeforeBlockTraffic,AfterBlockTraffic,ApplicationStop,DownloadBundle,BeforeInstall."
        ));
    }
}
