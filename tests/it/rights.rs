//! Files and directories: whose they are, and who could change them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::estate::Estate;
use crate::support::host::TestHost;

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

#[test]
fn what_another_user_could_change_is_not_obeyed() {
    let estate = Estate::new(TestHost::new());
    let one = estate.release_all("v1");
    estate.want(&one);
    let told = estate.host.path("told");
    let notify =
        format!("report: {{notify: [{{on: [always], command: [touch, {}]}}]}}\n", told.display());
    let manifest = estate.host.read("etc/multideployer.yaml");
    estate.host.manifest(&format!("{manifest}{notify}"));
    for (place, what) in [
        ("etc/multideployer.yaml", "manifest"),
        ("etc", "manifest"),
        ("cache", "cache directory"),
        ("state", "state directory"),
    ] {
        let path = estate.host.path(place);
        std::fs::create_dir_all(estate.host.path("cache")).expect("a directory");
        std::fs::create_dir_all(estate.host.path("state")).expect("a directory");
        let before = mode(&path);
        set_mode(&path, before | 0o002);
        let ran = estate.host.deploy().code(11).says("--insecure-permissions");
        let ran = ran.says(&format!("another user could change the {what}"));
        assert!(ran.stderr.contains(&path.display().to_string()), "{ran:?}");
        assert!(!estate.host.path("cache/mirrors").exists() && !told.exists(), "{place}");
        set_mode(&path, before);
    }
    set_mode(&estate.host.path("etc"), 0o777);
    let args = ["deploy", "--insecure-permissions"];
    drop(estate.host.run(&args).ok().says("another user could change the manifest"));
    estate.assert_deployed(&one);
    assert!(told.exists());
}

#[test]
#[ignore = "needs root: a file is given to somebody else"]
fn a_manifest_of_somebody_else_is_not_obeyed() {
    let estate = Estate::new(TestHost::new());
    estate.want(&estate.release_all("v1"));
    let path = estate.host.path("etc/multideployer.yaml");
    std::os::unix::fs::chown(&path, Some(54321), None).expect("a new owner");
    drop(estate.host.deploy().code(11).says("belongs to user 54321"));
    assert!(!estate.host.path("cache/mirrors").exists());
}

#[test]
fn what_is_made_has_its_mode_whatever_the_umask() {
    for umask in ["000", "022", "077"] {
        let estate = Estate::new(TestHost::new());
        estate.want(&estate.release_all("v1"));
        let inner = estate.host.command(&["deploy"]);
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]);
        command.arg(inner.get_program()).args(inner.get_args()).env_clear();
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        estate.host.start_command(command).wait().ok();
        for place in ["cache", "cache/mirrors/api.git", "cache/worktrees/api", "state"] {
            assert_eq!(mode(&estate.host.path(place)), 0o700, "{umask} {place}");
        }
        assert_eq!(mode(&estate.host.path("state/last_state.yaml")), 0o600, "{umask}");
        assert_eq!(mode(&estate.host.path("log/multideployer.log")), 0o640, "{umask}");
    }
}
