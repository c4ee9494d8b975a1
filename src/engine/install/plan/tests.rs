//! Plans for hosts that exist only here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;

use super::*;
use crate::engine::appspec::{self, AppSpec};
use crate::engine::install::look::Listing;

/// What is where. A bundle's paths begin with `/bundle`.
#[derive(Default)]
struct Paper {
    sources: BTreeMap<PathBuf, Source>,
    links: BTreeMap<PathBuf, PathBuf>,
    there: BTreeMap<PathBuf, There>,
    programs: Vec<&'static str>,
    home: Option<PathBuf>,
}

impl Paper {
    /// `d/` is a directory, `l -> text` a link, anything else a file.
    fn new(bundle: &[&str], there: &[(&str, There)]) -> Self {
        let mut paper = Self::default();
        paper.sources.insert("/bundle".into(), Source::Directory);
        for line in bundle {
            let (name, kind) = match (line.split_once(" -> "), line.strip_suffix('/')) {
                (Some((name, text)), _) => {
                    paper.links.insert(Path::new("/bundle").join(name), text.into());
                    (name, Source::Link)
                }
                (None, Some(name)) => (name, Source::Directory),
                (None, None) => (*line, Source::File),
            };
            paper.sources.insert(Path::new("/bundle").join(name), kind);
        }
        paper.there.insert("/".into(), There::Directory);
        paper.there.extend(there.iter().map(|(path, what)| (PathBuf::from(path), *what)));
        paper
    }

    fn plan(&self, file_exists: &str, appspec: &str) -> Result<Plan, Vec<Conflict>> {
        let text = format!("version: 0.0\nos: linux\n{appspec}");
        let parsed = appspec::parse(Path::new("appspec.yml"), text.as_bytes());
        let spec: AppSpec = parsed.spec.unwrap_or_else(|| panic!("{:?}", parsed.findings));
        let request = Request {
            archive: Path::new("/bundle"),
            appspec: &spec,
            file_exists,
            instructions: Path::new("/instructions"),
            group: "g",
            cwd: Path::new("/here"),
        };
        plan(&request, self)
    }

    fn steps(&self, file_exists: &str, appspec: &str) -> Vec<String> {
        let plan = self.plan(file_exists, appspec).unwrap();
        let shown = |step: &Step| match step {
            Step::Mkdir(path) => format!("mkdir {}", path.display()),
            Step::Copy { source, destination, how, .. } => {
                format!("{how:?} {} {}", source.display(), destination.display())
            }
        };
        plan.steps.iter().map(shown).collect()
    }

    fn rights(&self, permissions: &str) -> Vec<String> {
        let plan = self.plan("", &format!("{ALL}permissions:\n{permissions}")).unwrap();
        plan.access.iter().map(|access| access.file.display().to_string()).collect()
    }
}

impl Look for Paper {
    fn source(&self, path: &Path) -> Source {
        self.sources.get(path).copied().unwrap_or(Source::Missing)
    }

    fn list(&self, directory: &Path) -> io::Result<Listing> {
        let inside = self.sources.iter().filter(|(path, _)| path.parent() == Some(directory));
        let entries: Vec<(OsString, Source)> =
            inside.map(|(path, kind)| (path.file_name().unwrap().to_owned(), *kind)).collect();
        let position = self.sources.keys().position(|path| path == directory);
        Ok(Listing { id: (0, position.unwrap() as u64), entries })
    }

    fn link_text(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(self.links[path].clone())
    }

    fn there(&self, path: &Path) -> There {
        self.there.get(path).copied().unwrap_or(There::Nothing)
    }

    fn home(&self, _: Option<&str>) -> Option<PathBuf> {
        self.home.clone()
    }

    fn user(&self, name: &str) -> Option<u32> {
        (name == "known").then_some(7)
    }

    fn group(&self, name: &str) -> Option<u32> {
        self.user(name)
    }

    fn has_program(&self, name: &str) -> bool {
        self.programs.contains(&name)
    }
}

const ALL: &str = "files:\n- source: /\n  destination: /srv/app\n";

#[test]
fn ancestors_come_first_and_entries_are_sorted() {
    let host = Paper::new(&["b", "a/", "a/x", "c/"], &[("/srv", There::Directory)]);
    let expected = [
        "mkdir /srv/app",
        "mkdir /srv/app/a",
        "New /bundle/a/x /srv/app/a/x",
        "New /bundle/b /srv/app/b",
        "mkdir /srv/app/c",
    ];
    assert_eq!(host.steps("", ALL), expected);
}

#[test]
fn sources_and_destinations_are_taken_in_every_spelling() {
    let host = Paper::new(&["a/", "a/x"], &[("/here", There::Directory)]);
    for (source, destination) in [
        ("a", "/here/d"),
        ("/a/", "d"),
        ("//a", "./d/"),
        ("./a", "../here/d"),
        ("a/.", "/here/e/../d"),
    ] {
        let files = format!("files:\n- source: '{source}'\n  destination: '{destination}'\n");
        let expected = ["mkdir /here/d", "New /bundle/a/x /here/d/x"];
        assert_eq!(host.steps("", &files), expected, "{source} {destination}");
    }
    let single = "files:\n- source: a/x\n  destination: /here/new/d\n";
    let expected = ["mkdir /here/new", "mkdir /here/new/d", "New /bundle/a/x /here/new/d/x"];
    assert_eq!(host.steps("", single), expected);
}

#[test]
fn entries_merge_but_do_not_clash() {
    let host = Paper::new(&["a/", "a/s/", "a/s/1", "b/", "b/s/", "b/s/2", "c/", "c/s"], &[]);
    let files = |sources: &[&str]| {
        sources.iter().fold("files:\n".to_owned(), |text, source| {
            text + "- source: " + source + "\n  destination: /d\n"
        })
    };
    let expected =
        ["mkdir /d", "mkdir /d/s", "New /bundle/a/s/1 /d/s/1", "New /bundle/b/s/2 /d/s/2"];
    assert_eq!(host.steps("", &files(&["a", "b"])), expected);
    let clash = vec![Conflict::FileAndDirectory("/d/s".into())];
    assert_eq!(host.plan("", &files(&["a", "c"])).unwrap_err(), clash);
    assert_eq!(host.plan("", &files(&["c", "a"])).unwrap_err(), clash);
    let twice = Conflict::TwoSources {
        path: "/d/s".into(),
        first: "/bundle/c/s".into(),
        second: "/bundle/c/s".into(),
    };
    assert_eq!(host.plan("", &files(&["c", "c/s"])).unwrap_err(), [twice]);
}

#[test]
fn what_is_there_decides_how_a_file_gets_there() {
    use There::{DanglingLink, Directory, File, Special};
    let outcome = |name: &str, there: Option<There>, behavior: &str| {
        let mut all = vec![("/srv", Directory), ("/srv/app", Directory)];
        all.extend(there.map(|there| ("/srv/app/f", there)));
        let host = Paper::new(&[name], &all);
        match host.plan(behavior, ALL) {
            Ok(plan) => match plan.steps.as_slice() {
                [] => "kept".to_owned(),
                [Step::Copy { how, .. }] => format!("{how:?}"),
                other => panic!("{other:?}"),
            },
            Err(conflicts) => match conflicts.as_slice() {
                [Conflict::Exists(_)] => "exists".to_owned(),
                [Conflict::DirectoryThere(_)] => "directory".to_owned(),
                [Conflict::SpecialThere(_)] => "special".to_owned(),
                [Conflict::LinkOverExisting(_)] => "link".to_owned(),
                [Conflict::UnknownBehavior { word, .. }] => format!("unknown {word}"),
                other => panic!("{other:?}"),
            },
        }
    };
    for (bundle, there, behavior, expected) in [
        ("f", None, "NONSENSE", "New"),
        ("f -> x", None, "", "Link"),
        ("f", Some(DanglingLink), "DISALLOW", "InPlace"),
        ("f -> x", Some(DanglingLink), "OVERWRITE", "link"),
        ("f", Some(File), "", "exists"),
        ("f", Some(File), "NONSENSE", "unknown NONSENSE"),
        ("f", Some(File), "RETAIN", "kept"),
        ("f", Some(File), "OVERWRITE", "InPlace"),
        ("f -> x", Some(File), "OVERWRITE", "link"),
        ("f -> x", Some(File), "RETAIN", "kept"),
        ("f", Some(Directory), "DISALLOW", "exists"),
        ("f", Some(Directory), "RETAIN", "kept"),
        ("f", Some(Directory), "OVERWRITE", "directory"),
        ("f", Some(Special), "OVERWRITE", "special"),
    ] {
        assert_eq!(outcome(bundle, there, behavior), expected, "{bundle} {there:?} {behavior}");
    }
}

#[test]
fn a_home_that_exists_is_no_destination() {
    let mut host = Paper::new(&["f"], &[("/home", There::Directory)]);
    host.home = Some("/home/me".into());
    let files = "files:\n- source: f\n  destination: ~/app\n";
    let expected = ["mkdir /home/me", "mkdir /home/me/app", "New /bundle/f /home/me/app/f"];
    assert_eq!(host.steps("", files), expected);
    host.there.insert("/home/me".into(), There::Directory);
    let tilde = Conflict::Tilde { text: "~/app".into(), home: "/home/me".into() };
    assert_eq!(host.plan("", files).unwrap_err(), [tilde]);
}

#[test]
fn patterns_are_about_direct_children() {
    let host = Paper::new(
        &["a.sh", "b", "s/", "s/c.sh"],
        &[("/srv", There::Directory), ("/srv/app/kept", There::File)],
    );
    for (entry, expected) in [
        ("object: /srv/app", "/a.sh /b /s/c.sh /s"),
        ("object: /srv/app/, type: [file]", "/a.sh /b /s/c.sh"),
        ("object: /srv/x/../app, type: [directory]", "/s"),
        ("object: /srv/app, pattern: '*.sh'", "/a.sh"),
        ("object: /srv/app, except: ['*.sh', s]", "/b /s/c.sh"),
        ("object: /srv/app/s", "/s/c.sh"),
        ("object: /srv/app/b", "/b"),
        ("object: /srv/app/b, type: [directory]", ""),
        ("object: /srv/app/kept", ""),
        ("object: /srv/nothing", ""),
        ("object: /srv", " /a.sh /b /s/c.sh /s"),
    ] {
        let mut found: Vec<String> = host.rights(&format!("- {{{entry}, mode: '600'}}\n"));
        found.sort();
        let mut expected: Vec<String> =
            expected.split(' ').map(|name| format!("/srv/app{name}")).collect();
        if entry == "object: /srv" {
            assert_eq!(found.len(), 5);
        } else if expected == ["/srv/app"] {
            expected.clear();
        }
        expected.sort();
        assert_eq!(found, expected, "{entry}");
    }
}

#[test]
fn new_files_get_their_rights_early_unless_a_link_may_change_them() {
    let host = Paper::new(&["f", "g", "l -> g"], &[]);
    let plan = host
        .plan(
            "",
            &format!("{ALL}permissions:\n- {{object: /srv/app, mode: '600', owner: known}}\n"),
        )
        .unwrap();
    let early: Vec<_> = plan
        .access
        .iter()
        .map(|a| (a.file.to_str().unwrap(), a.target.to_str().unwrap(), a.early))
        .collect();
    assert_eq!(
        early,
        [
            ("/srv/app/f", "/srv/app/f", true),
            ("/srv/app/g", "/srv/app/g", false),
            ("/srv/app/l", "/srv/app/g", false),
        ]
    );
    assert_eq!(plan.rights[0].owner, Some(("known".to_owned(), 7)));
}

#[test]
fn missing_programs_and_misplaced_acls_are_conflicts() {
    let mut host = Paper::new(&["f", "d/"], &[]);
    let acls =
        format!("{ALL}permissions:\n- {{object: /srv/app, mode: '750', acls: ['d:u:known:r']}}\n");
    assert_eq!(
        host.plan("", &acls).unwrap_err(),
        [
            Conflict::NoProgram { program: "setfacl", what: "acls" },
            Conflict::DefaultAclForFile("/srv/app/f".into()),
        ]
    );
    host.programs.push("setfacl");
    let only = acls.replace("mode:", "type: [directory], mode:");
    assert_eq!(host.plan("", &only).unwrap().access.len(), 1);
    let context = format!("{ALL}permissions:\n- {{object: /srv/app, context: {{type: t}}}}\n");
    host.programs.push("restorecon");
    assert_eq!(
        host.plan("", &context).unwrap_err(),
        [Conflict::NoProgram { program: "semanage", what: "context" }]
    );
}
