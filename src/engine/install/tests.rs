//! Installs into real directories. Only root may give files away; for others the tests about
//! owners look at how that fails.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use fs_err as fs;

use super::*;
use crate::engine::appspec;

struct Host {
    root: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { root: tempfile::tempdir().unwrap() };
        for directory in ["archive", "instructions"] {
            fs::create_dir(host.at(directory)).unwrap();
        }
        host
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// Writes a file, with the directories that it needs.
    fn file(&self, path: &str, content: &str) -> PathBuf {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.at(path)).unwrap().permissions().mode() & 0o7777
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn install(&self, file_exists: &str, appspec: &str) -> Result<Vec<String>, Error> {
        let text = format!("version: 0.0\nos: linux\n{appspec}")
            .replace("@DEST@", self.at("dest").to_str().unwrap());
        let parsed = appspec::parse(Path::new("appspec.yml"), text.as_bytes());
        let spec = parsed.spec.unwrap_or_else(|| panic!("{:?}", parsed.findings));
        install(&Request {
            archive: &self.at("archive"),
            appspec: &spec,
            file_exists,
            instructions: &self.at("instructions"),
            group: "g",
            cwd: self.root.path(),
        })
    }

    fn refused(&self, file_exists: &str, appspec: &str) -> Vec<Conflict> {
        match self.install(file_exists, appspec) {
            Err(Error::Refused(conflicts)) => conflicts,
            other => panic!("{other:?}"),
        }
    }

    /// The clean-up list, relative to the destination.
    fn list(&self) -> Vec<String> {
        let dest = self.at("dest");
        let text = self.read("instructions/g-cleanup");
        text.lines()
            .map(|line| {
                let rest = Path::new(line).strip_prefix(&dest).unwrap();
                rest.to_str().unwrap().to_owned()
            })
            .collect()
    }

    /// Everything below the destination.
    fn tree(&self) -> Vec<String> {
        let dest = self.at("dest");
        let mut all: Vec<_> = walkdir::WalkDir::new(&dest)
            .min_depth(1)
            .into_iter()
            .filter_map(Result::ok)
            .map(|e| e.path().strip_prefix(&dest).unwrap().to_str().unwrap().to_owned())
            .collect();
        all.sort();
        all
    }
}

fn assert_not_given_away(done: Result<Vec<String>, Error>) {
    let text = done.unwrap_err().stdout_error().unwrap();
    assert!(text.starts_with("Operation not permitted @ apply2files - "), "{text}");
}

const ALL: &str = "files:\n- source: /\n  destination: '@DEST@'\n";

#[test]
fn a_bundle_is_installed_and_the_next_replaces_it() {
    let host = Host::new();
    let script = host.file("archive/bin/run", "#!");
    fs::set_permissions(&script, Permissions::from_mode(0o4751)).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 5);
    let file = fs::OpenOptions::new().write(true).open(&script).unwrap();
    file.file().set_modified(old).unwrap();
    let large = "x".repeat(300_000);
    host.file("archive/large", &large);
    host.file("archive/empty", "");
    fs::create_dir(host.at("archive/nothing")).unwrap();
    symlink("bin/run", host.at("archive/link")).unwrap();
    symlink("nowhere", host.at("archive/dangling")).unwrap();
    symlink("bin", host.at("archive/dir-link")).unwrap();

    assert_eq!(host.install("", ALL).unwrap(), Vec::<String>::new());
    assert_eq!(host.mode("dest/bin/run"), 0o4751);
    assert_eq!(fs::metadata(host.at("dest/bin/run")).unwrap().modified().unwrap(), old);
    assert_eq!(host.read("dest/large"), large);
    assert_eq!(host.read("dest/empty"), "");
    assert_eq!(fs::read_link(host.at("dest/link")).unwrap(), Path::new("bin/run"));
    assert_eq!(fs::read_link(host.at("dest/dangling")).unwrap(), Path::new("nowhere"));
    assert!(!fs::symlink_metadata(host.at("dest/dir-link")).unwrap().is_symlink());
    assert_eq!(host.read("dest/dir-link/run"), "#!");
    let expected = [
        "",
        "bin",
        "bin/run",
        "dangling",
        "dir-link",
        "dir-link/run",
        "empty",
        "large",
        "link",
        "nothing",
    ];
    assert_eq!(host.list(), expected);
    assert_eq!(host.tree(), expected[1..]);
    let json: serde_json::Value =
        serde_json::from_str(&host.read("instructions/g-install.json")).unwrap();
    let all = json["instructions"].as_array().unwrap();
    assert_eq!(all.len(), expected.len());
    assert_eq!(all[0]["type"], "mkdir");
    assert_eq!(all[2]["destination"], host.at("dest/bin/run").to_str().unwrap());
    assert_eq!(all[2]["source"], script.to_str().unwrap());

    // What was made a directory becomes a file and the other way round.
    fs::remove_dir_all(host.at("archive")).unwrap();
    host.file("archive/bin", "now a file");
    host.file("archive/empty/f", "now a directory");
    host.file("dest/dir-link/mine", "stays");
    host.install("", ALL).unwrap();
    assert_eq!(host.tree(), ["bin", "dir-link", "dir-link/mine", "empty", "empty/f"]);
    assert_eq!(host.list(), ["bin", "empty", "empty/f"]);
    let names: Vec<_> = fs::read_dir(host.at("instructions")).unwrap().collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn a_refusal_changes_nothing_and_names_every_conflict() {
    let host = Host::new();
    host.file("archive/a", "1");
    host.file("archive/b", "1");
    host.install("", ALL).unwrap();
    let list = host.read("instructions/g-cleanup");
    host.file("dest/user/a", "mine");
    host.file("dest/user/b", "mine");
    let twice = format!(
        "{ALL}- source: /\n  destination: '@DEST@/user'\n- source: nope\n  destination: '@DEST@'\n"
    );
    let conflicts = host.refused("DISALLOW", &twice);
    assert_eq!(
        conflicts,
        [
            Conflict::Exists(host.at("dest/user/a")),
            Conflict::Exists(host.at("dest/user/b")),
            Conflict::SourceMissing(host.at("archive/nope")),
        ]
    );
    assert_eq!(Error::Refused(conflicts).stdout_error(), None);
    assert_eq!(host.tree(), ["a", "b", "user", "user/a", "user/b"]);
    assert_eq!(host.read("instructions/g-cleanup"), list);

    let missing = host.refused("", "files:\n- source: nope\n  destination: '@DEST@'\n");
    let text =
        format!("No such file or directory @ rb_sysopen - {}", host.at("archive/nope").display());
    assert_eq!(Error::Refused(missing).stdout_error(), Some(text));
}

#[test]
fn overwriting_keeps_the_inode_and_retaining_keeps_the_file() {
    let host = Host::new();
    host.file("archive/f", "new");
    let there = host.file("dest/f", "old content");
    fs::set_permissions(&there, Permissions::from_mode(0o600)).unwrap();
    let inode = fs::metadata(&there).unwrap().ino();

    host.install("RETAIN", ALL).unwrap();
    assert_eq!(host.read("dest/f"), "old content");
    assert_eq!(host.list(), Vec::<String>::new());

    let conflicts = host.refused("NONSENSE", ALL);
    assert!(matches!(conflicts[..], [Conflict::UnknownBehavior { .. }]), "{conflicts:?}");

    let rights = "permissions:\n- object: '@DEST@/f'\n  mode: '640'\n";
    host.install("NONSENSE", &format!("file_exists_behavior: OVERWRITE\n{ALL}{rights}")).unwrap();
    assert_eq!(host.read("dest/f"), "new");
    assert_eq!(fs::metadata(&there).unwrap().ino(), inode);
    assert_eq!(host.mode("dest/f"), 0o640);
    assert_eq!(host.list(), ["f"]);
}

/// Whoever may write to a destination could have root write anywhere.
#[test]
#[ignore = "needs root: links are given to somebody else"]
fn links_that_an_ordinary_user_made_are_not_written_through() {
    let host = Host::new();
    host.file("archive/f", "new");
    host.file("archive/d/g", "new");
    let victim = host.file("victim", "old");
    fs::create_dir(host.at("dest")).ok();
    let link = host.at("dest/f");
    for target in [victim.clone(), host.at("not-yet")] {
        symlink(target, &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(54321), None).unwrap();
        for behavior in ["DISALLOW", "OVERWRITE", "RETAIN"] {
            let conflicts = host.refused(behavior, ALL);
            assert_eq!(conflicts, [Conflict::ForeignLink(link.clone())], "{behavior}");
        }
        // Root's own is followed, as ever.
        std::os::unix::fs::lchown(&link, Some(0), None).unwrap();
        host.install("OVERWRITE", ALL).unwrap();
        assert_eq!(fs::read_to_string(fs::read_link(&link).unwrap()).unwrap(), "new");
        fs::remove_file(&link).unwrap();
        fs::remove_file(host.at("instructions/g-cleanup")).unwrap();
        fs::remove_dir_all(host.at("dest/d")).unwrap();
    }
    fs::create_dir(host.at("elsewhere")).unwrap();
    symlink(host.at("elsewhere"), host.at("dest/d")).unwrap();
    std::os::unix::fs::lchown(host.at("dest/d"), Some(54321), None).unwrap();
    let conflicts = host.refused("OVERWRITE", ALL);
    assert_eq!(conflicts, [Conflict::ForeignLink(host.at("dest/d"))]);
    assert_eq!(fs::read_dir(host.at("elsewhere")).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_overwritten_is_refused() {
    let host = Host::new();
    host.file("archive/f", "");
    host.file("archive/g", "");
    symlink("f", host.at("archive/l")).unwrap();
    fs::create_dir_all(host.at("dest/f")).unwrap();
    nix::unistd::mkfifo(&host.at("dest/g"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    host.file("dest/l", "");
    assert_eq!(
        host.refused("OVERWRITE", ALL),
        [
            Conflict::DirectoryThere(host.at("dest/f")),
            Conflict::SpecialThere(host.at("dest/g")),
            Conflict::LinkOverExisting(host.at("dest/l")),
        ]
    );
}

#[test]
fn a_dangling_link_is_written_through() {
    let host = Host::new();
    host.file("archive/f", "new");
    fs::create_dir(host.at("dest")).unwrap();
    symlink(host.at("target"), host.at("dest/f")).unwrap();
    host.install("", ALL).unwrap();
    assert_eq!(host.read("target"), "new");
    assert!(fs::symlink_metadata(host.at("dest/f")).unwrap().is_symlink());
}

#[test]
fn what_cannot_be_installed_is_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let host = Host::new();
    host.file("archive/line\nbreak", "");
    host.file("archive/space ", "");
    fs::write(host.at("archive").join(std::ffi::OsStr::from_bytes(b"bad\xff")), "").unwrap();
    symlink(".", host.at("archive/loop")).unwrap();
    nix::unistd::mkfifo(&host.at("archive/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let conflicts = host.refused("", ALL);
    let [bad, newline, link, pipe, space] = &conflicts[..] else { panic!("{conflicts:?}") };
    assert!(bad.to_string().contains("UTF-8"), "{bad}");
    assert!(newline.to_string().contains("line break"), "{newline}");
    assert_eq!(*link, Conflict::LinkLoop(host.at("archive/loop")));
    assert_eq!(
        *pipe,
        Conflict::SpecialSource { what: "a named pipe", path: host.at("archive/pipe") }
    );
    assert!(space.to_string().contains("white space"), "{space}");
    assert!(!host.at("dest").exists());
}

#[test]
fn a_user_link_in_a_directorys_place_is_left_alone() {
    let host = Host::new();
    host.file("archive/logs/f", "ours");
    host.install("", ALL).unwrap();
    fs::remove_dir_all(host.at("dest/logs")).unwrap();
    host.file("elsewhere/f", "precious");
    symlink(host.at("elsewhere"), host.at("dest/logs")).unwrap();
    let conflicts = host.refused("", ALL);
    assert_eq!(conflicts, [Conflict::Exists(host.at("dest/logs/f"))]);
    fs::remove_dir_all(host.at("archive")).unwrap();
    host.file("archive/other", "");
    let warnings = host.install("", ALL).unwrap();
    assert!(warnings[0].contains("dest/logs"), "{warnings:?}");
    assert_eq!(host.read("elsewhere/f"), "precious");
    assert_eq!(host.tree(), ["logs", "other"]);
}

#[test]
fn what_is_behind_a_link_that_goes_is_not_there() {
    let host = Host::new();
    host.file("dest/releases/x/mine", "");
    host.file("archive/f", "");
    symlink("releases", host.at("archive/current")).unwrap();
    // A link to a directory would be copied as one; this one dangles in the bundle.
    host.install("", ALL).unwrap();
    assert!(host.at("dest/current/x").is_dir());
    host.install("", "files:\n- source: f\n  destination: '@DEST@/current/x'\n").unwrap();
    assert_eq!(host.list(), ["current", "current/x", "current/x/f"]);
    let expected =
        ["current", "current/x", "current/x/f", "releases", "releases/x", "releases/x/mine"];
    assert_eq!(host.tree(), expected);
}

#[test]
fn what_a_killed_install_announced_is_removed() {
    let host = Host::new();
    host.file("archive/d/f", "");
    let names = ["dest", "dest/d", "dest/d/.multideployer-1.part", "dest/d/f", "dest/d/g"];
    let text: String =
        names.iter().map(|name| host.at(name).display().to_string() + "\n").collect();
    fs::write(host.at("instructions/g-cleanup"), text).unwrap();
    host.file("dest/d/.multideployer-1.part", "half");
    host.install("", ALL).unwrap();
    assert_eq!(host.tree(), ["d", "d/f"]);
    assert_eq!(host.list(), ["", "d", "d/f"]);
}

#[test]
fn a_failure_on_the_way_leaves_a_list_of_what_was_made() {
    let host = Host::new();
    host.file("archive/a", "");
    host.file("archive/b/c", "");
    // Two names for one directory: not seen by the plan, as by the agent.
    fs::create_dir_all(host.at("dest/real")).unwrap();
    symlink("real", host.at("dest/link")).unwrap();
    let error = host
        .install("", "files:\n- source: /\n  destination: '@DEST@/real'\n- source: /\n  destination: '@DEST@/link'\n")
        .unwrap_err();
    let text = format!("File exists @ dir_s_mkdir - {}", host.at("dest/link/b").display());
    assert_eq!(error.stdout_error(), Some(text));
    assert_eq!(host.list(), ["real/a", "real/b", "real/b/c", "link/a"]);
}

#[test]
fn a_program_that_runs_is_not_overwritten() {
    let host = Host::new();
    host.file("archive/a", "");
    host.file("archive/sleep", "new");
    host.file("archive/z", "");
    fs::create_dir(host.at("dest")).unwrap();
    fs::copy("/bin/sleep", host.at("dest/sleep")).unwrap();
    // A child that another test starts may hold our copy open for a moment.
    let start = || std::process::Command::new(host.at("dest/sleep")).arg("60").spawn();
    let mut running = (0..50)
        .find_map(|_| {
            start().inspect_err(|_| std::thread::sleep(std::time::Duration::from_millis(20))).ok()
        })
        .unwrap();
    let error = host.install("OVERWRITE", ALL).unwrap_err();
    running.kill().unwrap();
    running.wait().unwrap();
    let text = format!("Text file busy @ rb_sysopen - {}", host.at("dest/sleep").display());
    assert_eq!(error.stdout_error(), Some(text));
    assert_eq!(host.list(), ["a", "sleep"]);
    assert_eq!(host.tree(), ["a", "sleep"]);
}

#[test]
fn rights_are_set_on_what_was_installed_only() {
    let host = Host::new();
    for file in ["app/a.sh", "app/b.txt", "app/sub/c.sh"] {
        host.file(&format!("archive/{file}"), "");
    }
    let mine = host.file("dest/app/mine.sh", "");
    fs::set_permissions(&mine, Permissions::from_mode(0o644)).unwrap();
    let rights = "permissions:
- {object: '@DEST@/app', pattern: '*.sh', mode: '4755', owner: 1, group: '1', type: [file]}
- {object: '@DEST@/app/b.txt', mode: '600'}
- {object: '@DEST@/app', mode: '711', type: [directory]}
- {object: '@DEST@/absent', mode: '711', owner: no-such-user-here}
";
    let done = host.install("", &format!("{ALL}{rights}"));
    if !nix::unistd::geteuid().is_root() {
        assert_not_given_away(done);
        return;
    }
    done.unwrap();
    assert_eq!(host.mode("dest/app/a.sh"), 0o4755);
    let owner = fs::metadata(host.at("dest/app/a.sh")).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (1, 1));
    assert_eq!(host.mode("dest/app/b.txt"), 0o600);
    assert_eq!(host.mode("dest/app/sub"), 0o711);
    assert_eq!(host.mode("dest/app/sub/c.sh"), host.mode("archive/app/sub/c.sh"));
    assert_eq!(host.mode("dest/app/mine.sh"), 0o644);
}

#[test]
fn a_new_owner_without_a_mode_takes_set_user_id_away() {
    let host = Host::new();
    let file = host.file("archive/f", "");
    fs::set_permissions(&file, Permissions::from_mode(0o4755)).unwrap();
    let rights = "permissions:\n- {object: '@DEST@/f', owner: 1}\n";
    let done = host.install("", &format!("{ALL}{rights}"));
    if !nix::unistd::geteuid().is_root() {
        assert_not_given_away(done);
        return;
    }
    done.unwrap();
    assert_eq!(host.mode("dest/f"), 0o755);
}

#[test]
fn rights_follow_links_only_to_what_was_installed() {
    let host = Host::new();
    host.file("archive/f", "");
    symlink("f", host.at("archive/inside")).unwrap();
    let rights = "permissions:\n- {object: '@DEST@', mode: '600'}\n";
    host.install("", &format!("{ALL}{rights}")).unwrap();
    assert_eq!(host.mode("dest/f"), 0o600);

    host.file("victim", "");
    let before = host.mode("victim");
    symlink(host.at("victim"), host.at("archive/out")).unwrap();
    symlink("nowhere", host.at("archive/dangling")).unwrap();
    let conflicts = host.refused("", &format!("{ALL}{rights}"));
    assert_eq!(
        conflicts,
        [
            Conflict::DanglingLink(host.at("dest/dangling")),
            Conflict::LinkOut { path: host.at("dest/out"), target: host.at("victim") },
        ]
    );
    assert_eq!(host.mode("victim"), before);
}

#[test]
fn bad_rights_are_refused() {
    let host = Host::new();
    host.file("archive/f", "");
    let rights = "permissions:
- {object: '@DEST@/f', mode: '600', owner: no-such-user-here, group: no-such-group-here}
- {object: '@DEST@', mode: '600'}
- {object: '@DEST@/f', pattern: '*'}
";
    let conflicts = host.refused("", &format!("{ALL}{rights}"));
    let path = host.at("dest/f");
    assert_eq!(
        conflicts,
        [
            Conflict::NoUser { name: "no-such-user-here".into(), path: path.clone() },
            Conflict::NoGroup { name: "no-such-group-here".into(), path: path.clone() },
            Conflict::TwoPermissions { path: path.clone(), first: 7, second: 8 },
            Conflict::PatternForFile(path),
        ]
    );
    assert!(!host.at("dest").exists());
}

#[test]
fn destinations_that_are_no_directories_are_refused_in_the_agents_words() {
    let host = Host::new();
    host.file("archive/d/f", "");
    host.file("dest/x", "");
    symlink("nowhere", host.at("dest/dangling")).unwrap();
    for (source, destination, expected) in [
        ("d", "x", "File exists @ dir_s_mkdir - @/x"),
        ("d", "dangling", "File exists @ dir_s_mkdir - @/dangling"),
        ("d", "x/y/z", "Not a directory @ dir_s_mkdir - @/x/y"),
        ("d/f", "x/y", "Not a directory @ dir_s_mkdir - @/x/y"),
        ("d/f", "x", "Not a directory @ rb_sysopen - @/x/f"),
    ] {
        let files = format!("files:\n- source: {source}\n  destination: '@DEST@/{destination}'\n");
        let error = Error::Refused(host.refused("", &files));
        let expected = expected.replace('@', "\0").replacen('\0', "@", 1);
        let expected = expected.replace('\0', host.at("dest").to_str().unwrap());
        assert_eq!(error.stdout_error(), Some(expected), "{source} {destination}");
    }
}

#[test]
fn acls_are_set_as_the_agent_sets_them() {
    let host = Host::new();
    host.file("archive/f", "");
    host.file("archive/d/g", "");
    let rights = "permissions:
- {object: '@DEST@', mode: '640', acls: ['u:1:rw'], type: [file]}
- {object: '@DEST@', mode: '750', acls: ['d:u:1:rx'], type: [directory]}
";
    let has_setfacl = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .any(|directory| directory.join("setfacl").exists());
    if !has_setfacl {
        let missing = Conflict::NoProgram { program: "setfacl", what: "acls" };
        assert_eq!(host.refused("", &format!("{ALL}{rights}")), [missing]);
        return;
    }
    host.install("", &format!("{ALL}{rights}")).unwrap();
    let shown = |path: &str| {
        let mut lines = Vec::new();
        let finished = crate::process::Command::new("getfacl")
            .args(["-cnp", host.at(path).to_str().unwrap()])
            .run(&crate::process::Interrupt::new(), &mut |line| {
                lines.push(String::from_utf8_lossy(line.bytes).into_owned());
            });
        assert!(finished.success(), "{lines:?}");
        lines.retain(|line| !line.is_empty());
        lines.join(" ")
    };
    let file = "user::rw- user:1:rw-\t#effective:r-- group::r-- mask::r-- other::---";
    assert_eq!(shown("dest/f"), file);
    assert_eq!(shown("dest/d/g"), file);
    assert_eq!(
        shown("dest/d"),
        "user::rwx group::r-x other::--- default:user::rwx default:user:1:r-x \
         default:group::r-x default:mask::r-x default:other::---"
    );
    assert_eq!(host.mode("dest/f"), 0o640);
}
