use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

const EMPTY: &str = "version: 0.0\nos: linux\n";

/// A directory of files, and the app it is a worktree of.
struct Tree {
    directory: TempDir,
    app: App,
}

impl Tree {
    /// `files` are paths with their content; `a -> b` without content is a link, a
    /// trailing slash makes a directory.
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new().prefix("bundle-").tempdir().unwrap();
        for (name, content) in files {
            let (name, target) =
                name.split_once(" -> ").map_or((*name, None), |(n, t)| (n, Some(t)));
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match target {
                Some(target) => symlink(target, path).unwrap(),
                None if name.ends_with('/') => fs::create_dir_all(path).unwrap(),
                None => fs::write(path, content).unwrap(),
            }
        }
        let app = crate::plan::tests::app("api", 1);
        Self { directory, app }
    }

    fn app(mut self, change: impl FnOnce(&mut App)) -> Self {
        change(&mut self.app);
        self
    }

    /// What the mirror says of it.
    fn worktree(&self) -> Worktree {
        let root = self.directory.path();
        let mut worktree = Worktree { path: root.to_owned(), ..Worktree::default() };
        for entry in WalkDir::new(root).sort_by_file_name().into_iter().map(Result::unwrap) {
            if entry.path_is_symlink() {
                let path = entry.path().strip_prefix(root).unwrap().to_owned();
                worktree.symlinks.push((path, fs::read_link(entry.path()).unwrap()));
            }
        }
        worktree
    }

    fn check(&self, tool: Tool) -> Result<Bundle, Failure> {
        check(&self.app, &self.worktree(), tool)
    }

    /// The problems, one per line, or the warnings, each with `W `.
    fn says(&self, tool: Tool) -> Vec<String> {
        match self.check(tool) {
            Ok(bundle) => bundle.warnings.iter().map(|warning| format!("W {warning}")).collect(),
            Err(failure) => said(failure),
        }
    }
}

fn said(failure: Failure) -> Vec<String> {
    assert_eq!(failure.code, ExitCode::Refused);
    match failure.hint {
        _ if !failure.output.is_empty() => failure.output,
        Some(hint) => vec![format!("{} ({hint})", failure.message)],
        None => vec![failure.message],
    }
}

fn appspec(rest: &str) -> String {
    format!("{EMPTY}{rest}")
}

#[test]
fn the_appspec_is_found_as_codedeploy_local_finds_it() {
    let option =
        |files: &[(&str, &str)]| Tree::new(files).check(Tool::Agent1).unwrap().appspec_option;
    assert_eq!(option(&[("appspec.yml", EMPTY)]), None);
    assert_eq!(option(&[("appspec.yaml", EMPTY)]), Some("appspec.yaml".into()));
    let both = Tree::new(&[("appspec.yml", EMPTY), ("appspec.yaml", "nonsense")]);
    assert_eq!(both.says(Tool::Agent1), ["W appspec.yaml is not read, as there is an appspec.yml"]);
    assert_eq!(option(&[("appspec.yml -> deploy/spec", ""), ("deploy/spec", EMPTY)]), None);

    let none = Tree::new(&[("AppSpec.yml", EMPTY)]);
    assert_eq!(
        none.says(Tool::Agent1),
        [
            "there is no appspec.yml in the root of the repository (there is `AppSpec.yml`; the name has to be `appspec.yml`)"
        ]
    );
    let directory = Tree::new(&[("appspec.yml/", "")]);
    assert_eq!(directory.says(Tool::Agent1).len(), 1);
    let outside = Tree::new(&[("appspec.yml -> /etc/hostname", "")]);
    assert!(
        outside.says(Tool::Agent1).iter().any(|line| line.starts_with("there is no appspec.yml"))
    );
}

#[test]
fn an_app_may_be_a_part_of_a_repository() {
    let files =
        [("services/api/deploy/spec.yml", EMPTY), ("x -> /etc", ""), ("link -> services", "")];
    let tree = Tree::new(&files).app(|app| {
        app.path = "services/api".into();
        app.appspec = Some("deploy/spec.yml".into());
    });
    let bundle = tree.check(Tool::Agent1).unwrap();
    assert_eq!(bundle.root, tree.directory.path().join("services/api"));
    assert_eq!(bundle.appspec_option, Some("deploy/spec.yml".into()));
    assert_eq!(bundle.warnings, [] as [&str; 0]);

    let tree = tree.app(|app| app.appspec = None);
    assert_eq!(tree.says(Tool::Agent1), ["there is no appspec.yml in `services/api`"]);
    let tree = tree.app(|app| app.appspec = Some("spec.yml".into()));
    assert_eq!(
        tree.says(Tool::Agent1),
        ["the bundle has no file `spec.yml` (`appspec` is relative to the app's `path`)"]
    );
    for (path, expected) in [
        (
            "services/web",
            "the commit has no directory `services/web` (`path` is relative to the root of the repository)",
        ),
        (
            "link/api",
            "`path` leads through the link `link` (write the directory that the link leads to)",
        ),
        (
            "services/api/deploy/spec.yml",
            "`path` is not a directory: `services/api/deploy/spec.yml` is a file",
        ),
    ] {
        let tree = Tree::new(&files).app(|app| app.path = path.into());
        assert_eq!(tree.says(Tool::Agent1), [expected]);
    }
}

#[test]
fn codedeploy_local_1_reads_the_location_as_a_uri() {
    let tree = Tree::new(&[("a b/appspec.yml", EMPTY)]);
    let worktree = Worktree { path: tree.directory.path().join("a b"), ..Worktree::default() };
    assert_eq!(
        check(&tree.app, &worktree, Tool::Agent1).unwrap_err().code,
        ExitCode::Configuration
    );
    assert!(check(&tree.app, &worktree, Tool::Builtin).is_ok());
}

#[test]
fn the_appspec_is_valid_before_anything_is_stopped() {
    let tree = Tree::new(&[(
        "appspec.yml",
        "version: 0.1\nos: linux\nhooks:\n  AfterInstal:\n  - location: x\n",
    )]);
    let says = tree.says(Tool::Agent1);
    assert!(says[0].starts_with("appspec.yml:1:10: "), "{says:?}");
    let tree = Tree::new(&[
        ("appspec.yml", &appspec("hooks:\n  AfterInstal: []\n")),
        ("s", "#!/bin/sh\n"),
    ]);
    assert_eq!(
        tree.says(Tool::Agent2),
        ["appspec.yml:4:3: unknown lifecycle event `AfterInstal` (did you mean `AfterInstall`?)"]
    );
    let tree = Tree::new(&[("appspec.yml", "a: [\n")]);
    assert!(tree.says(Tool::Builtin)[0].starts_with("appspec.yml:2:1: "));
}

#[test]
fn scripts_are_there_or_can_be_made() {
    let hooks = "hooks:\n  BeforeInstall:\n  - location: make.sh\n  - location: made/first.sh\n\
                 \x20 ApplicationStart:\n  - location: /made/start.sh\n  - location: here.sh\n\
                 \x20 ApplicationStop:\n  - location: made/stop.sh\n";
    let sh = "#!/bin/sh\n";
    let tree = Tree::new(&[("appspec.yml", &appspec(hooks)), ("make.sh", sh), ("here.sh", sh)]);
    assert_eq!(
        tree.says(Tool::Agent1),
        [
            "W appspec.yml:6:15: the BeforeInstall script `made/first.sh` is not there, unless BeforeInstall makes it",
            "W appspec.yml:8:15: the ApplicationStart script `/made/start.sh` is not there, unless BeforeInstall makes it",
            "W appspec.yml:11:15: the ApplicationStop script `made/stop.sh` is not there, unless BeforeInstall makes it",
        ]
    );
    // Without the script that might make them they are missing, that script included.
    let tree = Tree::new(&[("appspec.yml", &appspec(hooks)), ("here.sh", sh)]);
    assert_eq!(
        tree.says(Tool::Agent1),
        ["appspec.yml:5:15: the BeforeInstall script `make.sh` is not there"]
    );
    let skip = |events: &[&str]| {
        let events = events.iter().map(|event| (*event).to_owned()).collect();
        Tree::new(&[("appspec.yml", &appspec(hooks)), ("here.sh", sh)])
            .app(|app| app.skip_events = events)
    };
    assert_eq!(
        skip(&["BeforeInstall"]).says(Tool::Agent1),
        [
            "appspec.yml:8:15: the ApplicationStart script `/made/start.sh` is not there",
            "appspec.yml:11:15: the ApplicationStop script `made/stop.sh` is not there",
        ]
    );
    // The next deployment stops this revision, whatever this one skips.
    assert_eq!(
        skip(&["BeforeInstall", "ApplicationStart", "ApplicationStop"]).says(Tool::Agent1),
        ["appspec.yml:11:15: the ApplicationStop script `made/stop.sh` is not there"]
    );

    let bad =
        "hooks:\n  AfterInstall:\n  - location: ../s.sh\n  - location: d\n  - location: s.sh now\n";
    let tree = Tree::new(&[("appspec.yml", &appspec(bad)), ("d/", ""), ("s.sh", sh)]);
    assert_eq!(
        tree.says(Tool::Builtin),
        [
            "appspec.yml:5:15: the AfterInstall script `../s.sh` is not in the bundle",
            "appspec.yml:6:15: the AfterInstall script `d` is not a file",
            "appspec.yml:7:15: the AfterInstall script `s.sh now` is not there (a location is a path alone; scripts are run without arguments)",
        ]
    );
}

#[test]
fn what_one_tool_trips_over_is_said_when_that_tool_will_run() {
    let hooks = "hooks:\n  AfterInstall:\n  - location: a b.sh\n  - {location: c;d.sh, runas: root}\n  - location: plain\n  - location: crlf\n\
                 permissions:\n- {object: /x, owner: '33'}\n";
    let files = [
        ("appspec.yml", &*appspec(hooks)),
        ("a b.sh", "#!/bin/sh\n"),
        ("c;d.sh", "#!/bin/sh\n"),
        ("plain", "echo\n"),
        ("crlf", "#!/bin/sh\r\n"),
        ("gone -> nothing", ""),
    ];
    let tree = Tree::new(&files);
    let one = tree.says(Tool::Agent1);
    assert_eq!(one.len(), 3, "{one:?}");
    assert!(
        one[0].contains("`a b.sh` has ' ' in its path, which codedeploy-local 1.x breaks at"),
        "{one:?}"
    );
    let two = tree.says(Tool::Agent2);
    assert_eq!(two.len(), 1, "{two:?}");
    assert!(
        two[0].contains(
            "`c;d.sh` has ';' in its path, which codedeploy-local 2.x with `runas` breaks at"
        ),
        "{two:?}"
    );
    let builtin = tree.says(Tool::Builtin);
    assert_eq!(
        builtin,
        [
            "W links that lead nowhere: `gone`",
            "W appspec.yml:8:15: the AfterInstall script `crlf` ends its first line with CR LF, so its interpreter will not be found",
        ]
    );
    let hooks = hooks.replace("  - {location: c;d.sh, runas: root}\n", "");
    let tree = Tree::new(&[&[("appspec.yml", &*appspec(&hooks))], &files[1..]].concat());
    let two = tree.says(Tool::Agent2).join("\n");
    for part in [
        "over which codedeploy-local 2.x fails at the next deployment: `gone`",
        "`plain` does not begin with `#!`",
        "an owner or group that is a number",
    ] {
        assert!(two.contains(part), "{part}: {two}");
    }
}

#[test]
fn what_an_agent_fails_over_after_copying_is_refused_before() {
    let spec = appspec(
        "files:\n- {source: '', destination: srv}\n- {source: /, destination: /srv/.../x}\n\
         hooks:\n  Install:\n  - location: s.sh\npermissions:\n- {object: /x, owner: 33, acls: ['u:a:r']}\n",
    );
    let tree = Tree::new(&[("appspec.yml", &spec), ("a/.../f", "")])
        .app(|app| app.file_exists = FileExists::Retain);
    let relative = "appspec.yml:4:3: `destination` `srv` is not an absolute path";
    assert_eq!(
        tree.says(Tool::Builtin),
        [
            "W appspec.yml:7:3: the scripts of Install are never run".to_owned(),
            format!("W {relative}; it starts from wherever this program was started"),
        ]
    );
    assert_eq!(
        tree.says(Tool::Agent1),
        [
            "appspec.yml:10:3: codedeploy-local 1.x fails over an owner or group that is a number (write the name)",
            "appspec.yml:10:3: codedeploy-local 1.x crashes over `acls` (set it in an AfterInstall script instead)",
        ]
    );
    assert_eq!(
        tree.says(Tool::Agent2),
        [
            "names that codedeploy-local 2.x takes for `../..`: `a/...` (rename them)".to_owned(),
            "appspec.yml:4:3: codedeploy-local 2.x takes no empty `source` (write `source: /` for the whole bundle)".to_owned(),
            format!("{relative} (codedeploy-local 2.x fails over it)"),
            "appspec.yml:5:3: `destination` `/srv/.../x` has a part that codedeploy-local 2.x takes for `../..`".to_owned(),
        ]
    );
    let both = Tree::new(&[("appspec.yml", &appspec("file_exists_behavior: OVERWRITE\n"))])
        .app(|app| app.file_exists = FileExists::Retain);
    assert_eq!(
        both.says(Tool::Builtin),
        ["W the manifest's `file_exists` has no effect, as appspec.yml has `file_exists_behavior`"]
    );
}

#[test]
fn missing_scripts_are_found_beside_other_errors() {
    let spec = "version: 1.0\nos: linux\nhooks:\n  AfterInstall:\n  - location: gone.sh\n";
    let says = Tree::new(&[("appspec.yml", spec)]).says(Tool::Builtin);
    assert_eq!(says.len(), 2, "{says:?}");
    assert!(says[0].starts_with("appspec.yml:1:10: "), "{says:?}");
    assert_eq!(says[1], "appspec.yml:5:15: the AfterInstall script `gone.sh` is not there");
}

#[test]
fn sources_are_there_and_inside() {
    let files = "files:\n- {source: /, destination: /x}\n- {source: '', destination: /x}\n- {source: a/../b, destination: /x}\n- {source: gone, destination: /x}\n- {source: ../y, destination: /x}\n";
    let tree = Tree::new(&[("appspec.yml", &appspec(files)), ("b", "")]);
    assert_eq!(
        tree.says(Tool::Builtin),
        [
            "appspec.yml:7:3: `source` `gone` is not there",
            "appspec.yml:8:3: `source` `../y` leads out of the bundle",
        ]
    );
    let made = "files:\n- {source: built, destination: /x}\nhooks:\n  BeforeInstall:\n  - location: s.sh\n";
    let tree = Tree::new(&[("appspec.yml", &appspec(made)), ("s.sh", "#!/bin/sh\n")]);
    assert_eq!(
        tree.says(Tool::Builtin),
        ["W appspec.yml:4:3: `source` `built` is not there, unless BeforeInstall makes it"]
    );
}

#[test]
fn links_follow_the_apps_policy() {
    let files = [
        ("appspec.yml", EMPTY),
        ("bin/tool -> ../lib/tool", ""),
        ("lib/tool", ""),
        ("current -> lib", ""),
        ("gone -> nothing", ""),
        ("up -> .", ""),
        ("out -> ../x", ""),
        ("passwd -> /etc/passwd", ""),
    ];
    let hint = "(remove them, or allow them with `symlinks: allow`)";
    let tree = Tree::new(&files);
    assert_eq!(
        tree.says(Tool::Agent1),
        [
            format!("links that lead out of the bundle: `out`, `passwd` {hint}"),
            format!("links that codedeploy-local would follow without end: `up` {hint}"),
        ]
    );
    let tree = tree.app(|app| app.symlinks = Symlinks::Allow);
    assert_eq!(tree.says(Tool::Agent1), [] as [&str; 0]);
    let tree = tree.app(|app| app.symlinks = Symlinks::Refuse);
    assert_eq!(
        tree.says(Tool::Agent1),
        ["links, which `symlinks: refuse` forbids: `bin/tool`, `current`, `gone`, and 3 more"]
    );
    let tree = Tree::new(&files[..5]);
    assert_eq!(
        tree.says(Tool::Agent1),
        [
            "W links to directories, which are installed as copies: `current`",
            "W links that lead nowhere: `gone`"
        ]
    );
}

#[test]
fn content_that_would_not_arrive_is_refused() {
    let tree = Tree::new(&[("app/appspec.yml", EMPTY)]).app(|app| app.path = "app".into());
    let mut worktree = tree.worktree();
    worktree.submodules = vec!["vendor".into()];
    worktree.lfs_pointers = vec!["big.bin".into()];
    worktree.odd_names = vec!["a\nb".into()];
    worktree.warnings = vec!["something".into()];
    // Outside of the app's part nothing of this matters.
    assert_eq!(check(&tree.app, &worktree, Tool::Agent2).unwrap().warnings, ["something"]);
    worktree.submodules.push("app/vendor".into());
    worktree.lfs_pointers.extend((0..5).map(|i| PathBuf::from(format!("app/{i}.bin"))));
    worktree.odd_names.push("app/a\nb".into());
    worktree.odd_names.push("app/c ".into());
    worktree.odd_names.push(std::ffi::OsString::from_vec(b"app/\xff".to_vec()).into());
    let hint = "codedeploy-local cannot remove such a file again; rename it";
    assert_eq!(
        said(check(&tree.app, &worktree, Tool::Builtin).unwrap_err()),
        [
            format!(r"a name with a line break or control character: `a\nb` ({hint})"),
            format!("a name that ends with white space: `c ` ({hint})"),
            format!("a name that is not UTF-8: `\u{fffd}` ({hint})"),
            "submodules, which would be deployed as empty directories: `vendor` (deploy their content with `submodules: true`, or put it into the repository)".to_owned(),
            "pointers of Git LFS, which would be deployed instead of content: `0.bin`, `1.bin`, `2.bin`, and 2 more (deploy the content with `lfs: true`, or put it into the repository)".to_owned(),
        ]
    );
}

#[test]
fn a_long_list_is_cut() {
    let scripts = "  - location: gone.sh\n".repeat(100);
    let tree =
        Tree::new(&[("appspec.yml", &appspec(&format!("hooks:\n  AfterInstall:\n{scripts}")))]);
    let failure = tree.check(Tool::Builtin).unwrap_err();
    assert_eq!(failure.message, "100 things in this commit cannot be deployed");
    assert_eq!(failure.output.len(), 21);
    assert_eq!(failure.output.last().unwrap(), "and 80 more");
}
