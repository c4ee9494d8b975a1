//! Submodules, from real servers: what comes is what git itself would check out.

use std::path::{Path, PathBuf};

use crate::estate::{Estate, assert_same, token};
use crate::support::host::{Ran, TestHost};
use crate::support::https::{GitHttps, hash_of};
use crate::support::isolated;
use crate::support::upstream::{Entry, Upstream};

/// An app that installs all of its tree to `srv/api`.
fn appspec(host: &TestHost) -> Entry {
    let destination = host.text("srv/api");
    let text =
        format!("version: 0.0\nos: linux\nfiles:\n  - {{source: /, destination: {destination}}}\n");
    Entry::file("appspec.yml", text)
}

fn gitmodules(modules: &[(&str, &str)]) -> Entry {
    let text = modules.iter().fold(String::new(), |text, (path, url)| {
        text + &format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n")
    });
    Entry::file(".gitmodules", text)
}

/// A commit of the app with these submodules, and nothing else: path, URL, commit.
fn with_modules(estate: &Estate, modules: &[(&str, &str, &str)]) -> String {
    let pairs: Vec<_> = modules.iter().map(|(path, url, _)| (*path, *url)).collect();
    let mut entries = vec![appspec(&estate.host), gitmodules(&pairs)];
    entries.extend(modules.iter().map(|(path, _, commit)| Entry::submodule(path, commit)));
    estate.upstream("api").commit_on("refs/heads/main", None, &entries)
}

fn want(estate: &Estate, release: &str) {
    let source = estate.source("api");
    estate.host.apps_with(&[("api", &source, release, "submodules: true")]);
}

#[must_use]
fn deploy(estate: &Estate, release: &str) -> Ran {
    want(estate, release);
    estate.host.deploy()
}

/// What git itself checks out, with the servers' URLs standing for the directories they serve.
fn checked_out(dir: &Path, app: &Upstream, commit: &str, places: &[(String, &Path)]) -> PathBuf {
    let mut config = "[protocol \"file\"]\n\tallow = always\n".to_owned();
    for (url, root) in places {
        config += &format!("[url \"{}/\"]\n\tinsteadOf = {url}/\n", root.display());
    }
    let file = dir.join("gitconfig");
    std::fs::write(&file, config).expect("the configuration");
    let clone = dir.join(format!("clone-{commit}"));
    let git = |args: &[&str]| {
        let output = isolated("git").env("GIT_CONFIG_GLOBAL", &file).args(args).output();
        let output = output.expect("git starts");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let at = clone.display().to_string();
    let (base, _) = places.first().expect("the app's own server");
    git(&["clone", "-q", "--no-checkout", &format!("{base}/{}", app.name()), &at]);
    git(&["-C", &at, "checkout", "-q", "--detach", commit]);
    git(&["-C", &at, "submodule", "--quiet", "update", "--init", "--recursive"]);
    clone
}

#[test]
fn submodules_come_from_wherever_they_are_and_go_back_without_a_network() {
    let mut estate = Estate::with_ssh(TestHost::new());
    let elsewhere = tempfile::tempdir().expect("a directory");
    let others = token();
    let other = GitHttps::start(elsewhere.path()).require("", &others);
    let file = estate.host.secret("other", &others);
    let ca = estate.host.text("etc/ca.pem");
    let auth = format!("{{token_file: {file}}}");
    estate.host.add_host(&other.authority(), &[("auth", &auth), ("ca_file", &ca)]);

    let nested = Upstream::new(estate.root(), "acme/nested.git");
    let nested_one = nested.commit_entries(&[
        Entry::file(".gitattributes", "*.txt text eol=crlf\n"),
        Entry::file("a.txt", "one\n"),
        Entry::exec("run", "#!/bin/sh\n"),
        Entry::link("link", "run"),
    ]);
    let lib = Upstream::new(estate.root(), "acme/lib.git");
    let lib_one = lib.commit_entries(&[
        Entry::file("lib.txt", "v1\n"),
        gitmodules(&[("deps/nested", "../nested.git")]),
        Entry::submodule("deps/nested", &nested_one),
    ]);
    let tool = Upstream::new(elsewhere.path(), "vendor/tool.git");
    let tool_one = tool.commit(&[("tool", "#!/bin/sh\n")]);
    let by_ssh = Upstream::new(estate.root(), "acme/by-ssh.git");
    let ssh_one = by_ssh.commit(&[("ssh", "ssh\n")]);
    let ssh = estate.ssh.as_ref().expect("a server");
    let (tool_url, ssh_url) = (other.url("vendor/tool.git"), ssh.url("acme/by-ssh.git"));
    let ssh_base = ssh.url("").trim_end_matches('/').to_owned();
    let release = |lib: &str| {
        with_modules(
            &estate,
            &[
                ("lib", "../lib.git", lib),
                ("vendor/tool", &tool_url, &tool_one),
                ("vendor/by-ssh", &ssh_url, &ssh_one),
            ],
        )
    };
    let one = release(&lib_one);
    estate.https.forget();
    deploy(&estate, &one).ok();
    let installed = estate.host.path("srv/api");
    let dir = tempfile::tempdir().expect("a directory");
    let places = [
        (estate.https.base(), estate.root()),
        (other.base(), elsewhere.path()),
        (ssh_base, estate.root()),
    ];
    let git_one = checked_out(dir.path(), estate.upstream("api"), &one, &places);
    assert_same(&installed, &git_one);
    assert_eq!(estate.host.read("srv/api/lib/deps/nested/a.txt"), "one\r\n");
    estate.host.run(&["status", "--drift", "--exit-code"]).ok().says("no drift");
    estate.host.write("srv/api/vendor/tool/tool", "changed");
    estate.host.run(&["status", "--drift"]).ok().says("vendor/tool/tool");

    // Each server saw its own token, once for each repository.
    let shown = |server: &GitHttps| {
        server.requests().into_iter().map(|one| one.authorization).collect::<Vec<_>>()
    };
    assert_eq!(shown(&estate.https), vec![Some(hash_of("x-access-token", &estate.token)); 3]);
    assert_eq!(shown(&other), vec![Some(hash_of("x-access-token", &others)); 1]);

    lib.commit_entries(&[Entry::file("lib.txt", "v2\n")]);
    let lib_two = lib.resolve("main");
    let two = release(&lib_two);
    estate.https.forget();
    other.forget();
    deploy(&estate, &two).ok();
    assert_eq!(estate.host.read("srv/api/lib/lib.txt"), "v2\n");
    assert_eq!((shown(&estate.https).len(), shown(&other).len()), (2, 0), "only what is new");
    let git_two = checked_out(dir.path(), estate.upstream("api"), &two, &places);
    assert_same(&installed, &git_two);

    estate.https.stop();
    other.stop();
    estate.ssh.as_mut().expect("a server").stop();
    want(&estate, &one);
    estate.host.run(&["deploy", "--offline"]).ok();
    assert_same(&installed, &git_one);
    estate.host.run(&["rollback", "api"]).ok();
    assert_same(&installed, &git_two);
    estate.host.assert_nowhere(&[&estate.token, &others]);
}

#[test]
fn what_cannot_be_had_is_named_by_path_url_and_commit() {
    let mut estate = Estate::new(TestHost::new());
    let elsewhere = tempfile::tempdir().expect("a directory");
    let other = GitHttps::start(elsewhere.path()).require("", &token());
    let ca = estate.host.text("etc/ca.pem");
    estate.host.add_host(&other.authority(), &[("ca_file", &ca)]);
    let private = Upstream::new(elsewhere.path(), "private.git").commit(&[("a", "b")]);
    let url = other.url("private.git");
    let release = with_modules(&estate, &[("vendor/lib", &url, &private)]);
    let _ = deploy(&estate, &release)
        .code(3)
        .says(&format!("cannot bring the submodule `vendor/lib` (commit {private} of {url})"))
        .says("wants a credential, and none is configured for it");
    let _ = estate
        .host
        .run(&["doctor"])
        .code(11)
        .says(&format!("`{url}` wants a credential, and none is configured for it"));
    assert!(other.requests().iter().all(|request| request.authorization.is_none()));

    let lib = Upstream::new(estate.root(), "acme/lib.git").commit(&[("a", "b")]);
    let missing = "1".repeat(40);
    let release = with_modules(&estate, &[("lib", "../lib.git", &missing)]);
    let url = estate.https.url("acme/lib.git");
    let _ = deploy(&estate, &release)
        .code(3)
        .says(&format!("cannot bring the submodule `lib` (commit {missing} of {url})"))
        .says("is not in");
    // Nothing of these is left, nothing was touched, and what is well is deployed.
    assert_eq!(estate.host.recorded("api", "attempted"), None);
    let release = with_modules(&estate, &[("lib", "../lib.git", &lib)]);
    want(&estate, &release);
    let _ = estate.host.run(&["deploy", "--offline"]).code(3).says("--offline");
    // The commit itself has not come yet.
    estate.host.run(&["plan"]).ok().says("would be fetched").silent_about("submodule lib");
    estate.host.apps(&[("api", &estate.source("api"), &release)]);
    estate.host.run(&["fetch"]).ok();
    want(&estate, &release);
    let from = format!("fetches the submodule lib at {} from {url}", &lib[..7]);
    estate.host.run(&["plan"]).ok().says(&from);
    estate.host.run(&["fetch"]).ok();
    estate.host.run(&["plan"]).ok().silent_about("fetches the submodule");
    estate.host.run(&["deploy", "--offline"]).ok();
    assert_eq!(estate.host.read("srv/api/lib/a"), "b");
    estate.host.apps(&[("api", &estate.source("api"), &release)]);
    let _ = estate.host.run(&["deploy", "--force"]).code(7).says("`submodules: true`");
}

#[test]
fn a_hostile_gitmodules_leads_nowhere() {
    let estate = Estate::new(TestHost::new());
    let lib = Upstream::new(estate.root(), "acme/lib.git").commit(&[("a", "b")]);
    let other = GitHttps::start(estate.root());
    let written = |path: &str, url: &str| {
        Entry::file(".gitmodules", format!("[submodule \"x\"]\npath = {path}\nurl = {url}\n"))
    };
    let user = format!("https://user:hunter2@{}/acme/lib.git", other.authority());
    for (file, says) in [
        (written("sub", "file:///etc"), "path on this host"),
        (written("sub", &estate.root().join("acme/lib.git").display().to_string()), "this host"),
        (written("sub", "../../../../etc"), "leads out of the host"),
        (written("sub", "--upload-pack=touch"), "begins with `-`"),
        (written("sub", &user), "user name or password"),
        (written("sub", "http://127.0.0.1/acme/lib.git"), "neither `https://`"),
        (written("sub", "ext::sh%20-c%20touch"), "neither `https://`"),
        (written("sub", "ssh://-oProxyCommand=x/y"), "host name"),
        (written("../sub", "../lib.git"), "line 2: the path of a submodule"),
        (written("/sub", "../lib.git"), "absolute"),
        (written("other", "../lib.git"), "does not say from where"),
        (Entry::file(".gitmodules", "[submodule \"../../x\"]\npath = sub\n"), "lead elsewhere"),
        (Entry::file(".gitmodules", "[include]\npath = ../../etc/passwd\n"), "does not say"),
        (Entry::file(".gitmodules", "<<<<<<< ours\n"), "line 1"),
        (Entry::file(".gitmodules", [0xff, 0xfe]), "no regular file of UTF-8 text"),
        (Entry::file(".gitmodules", vec![b'#'; (1 << 20) + 1]), "no regular file"),
        (Entry::link(".gitmodules", "appspec.yml"), "no regular file"),
        (Entry::gone(".gitmodules"), "does not say from where"),
    ] {
        let entries = [appspec(&estate.host), file.clone(), Entry::submodule("sub", &lib)];
        let release = estate.upstream("api").commit_entries(&entries);
        estate.https.forget();
        let ran =
            deploy(&estate, &release).code(7).says("`sub`").says(says).silent_about("hunter2");
        drop(ran);
        assert_eq!(estate.https.requests().len(), 1, "the app's own: {file:?}");
        assert_eq!(other.connections(), 0, "{file:?}");
        assert_eq!(estate.host.recorded("api", "attempted"), None);
        let left = std::fs::read_dir(estate.host.path("cache/worktrees/api")).expect("worktrees");
        let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
        assert!(left.iter().all(|name| *name == *"previous"), "{left:?}");
    }
}

#[test]
fn submodules_in_submodules_have_an_end() {
    let estate = Estate::new(TestHost::new());
    // Each commit holds the one before it.
    let chain = Upstream::new(estate.root(), "acme/chain.git");
    let mut commits = vec![chain.commit(&[("depth", "1")])];
    for depth in 2..=11 {
        let before = commits.last().expect("one");
        commits.push(chain.commit_entries(&[
            Entry::file("depth", depth.to_string()),
            gitmodules(&[("in", "../chain.git")]),
            Entry::submodule("in", before),
        ]));
    }
    let release = with_modules(&estate, &[("chain", "../chain.git", &commits[9])]);
    deploy(&estate, &release).ok();
    let deepest = format!("srv/api/chain/{}depth", "in/".repeat(9));
    assert_eq!(estate.host.read(&deepest), "1");
    let release = with_modules(&estate, &[("chain", "../chain.git", &commits[10])]);
    let _ = deploy(&estate, &release).code(7).says("more than 10 deep");

    // As many as one likes is no end, either.
    let paths: Vec<String> = (0..201).map(|n| format!("m{n}")).collect();
    let modules: Vec<_> =
        paths.iter().map(|path| (path.as_str(), "../chain.git", commits[0].as_str())).collect();
    let release = with_modules(&estate, &modules);
    let _ = deploy(&estate, &release).code(7).says("more than 200 submodules");
}

#[test]
fn two_apps_fetch_a_submodule_once_and_only_what_is_in_the_bundle() {
    let estate = Estate::new(TestHost::new());
    let lib = Upstream::new(estate.root(), "acme/lib.git").commit(&[("lib.txt", "lib\n")]);
    let source = estate.source("gateway");
    let mut entries = vec![
        gitmodules(&[
            ("one/lib", "../lib.git"),
            ("two/lib", "../lib.git"),
            ("private", "https://127.0.0.1:1/private.git"),
        ]),
        Entry::submodule("one/lib", &lib),
        Entry::submodule("two/lib", &lib),
        Entry::submodule("private", &lib),
    ];
    for app in ["one", "two"] {
        let text = format!(
            "version: 0.0\nos: linux\nfiles:\n  - {{source: lib, destination: {}}}\n",
            estate.host.text(&format!("srv/{app}"))
        );
        entries.push(Entry::file(format!("{app}/appspec.yml"), text));
    }
    let release = estate.upstream("gateway").commit_entries(&entries);
    estate.https.forget();
    estate.host.apps_with(&[
        ("one", &source, &release, "path: one, submodules: true"),
        ("two", &source, &release, "path: two, submodules: true"),
    ]);
    estate.host.deploy().ok();
    assert_eq!(estate.host.read("srv/one/lib.txt"), "lib\n");
    assert_eq!(estate.host.read("srv/two/lib.txt"), "lib\n");
    let asked = |name: &str| {
        estate.https.requests().iter().filter(|request| request.path.contains(name)).count()
    };
    assert_eq!((asked("lib.git"), asked("gateway.git")), (1, 1), "{:?}", estate.https.requests());
}

/// The mirrors of the submodules of the app.
fn mirrors(estate: &Estate) -> Vec<PathBuf> {
    let directory = estate.host.mirror("api").join("modules");
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|one| one.path()).collect()
}

#[test]
fn mirrors_of_submodules_stay_small_and_whole() {
    let estate = Estate::new(TestHost::new());
    let lib = Upstream::new(estate.root(), "acme/lib.git");
    let mut releases = Vec::new();
    for n in 0..12 {
        let commit = lib.commit(&[("n", &n.to_string())]);
        releases.push(with_modules(&estate, &[("lib", "../lib.git", &commit)]));
        deploy(&estate, &releases[n]).ok();
    }
    let [mirror] = &mirrors(&estate)[..] else { panic!("one") };
    let packs = std::fs::read_dir(mirror.join("objects/pack")).expect("packs").flatten();
    let packs = packs.filter(|one| one.path().extension().is_some_and(|kind| kind == "pack"));
    assert!(packs.count() <= 9, "put together");
    let pins = std::fs::read_dir(mirror.join("refs/multideployer/pinned")).expect("pins");
    let pins: Vec<_> = pins
        .flatten()
        .filter(|one| one.path().read_dir().is_ok_and(|mut d| d.next().is_some()))
        .collect();
    assert!(pins.len() < 12 && pins.len() > 4, "{pins:?}");
    for git_dir in [mirror, &estate.host.mirror("api")] {
        let output =
            isolated("git").arg("--git-dir").arg(git_dir).args(["fsck", "--full"]).output();
        let output = output.expect("git starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    want(&estate, &releases[8]);
    estate.host.run(&["deploy", "--offline"]).ok();
    assert_eq!(estate.host.read("srv/api/lib/n"), "8");

    // Damage is mended.
    let pack = std::fs::read_dir(mirror.join("objects/pack")).expect("packs").flatten();
    for file in pack
        .map(|one| one.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "pack"))
    {
        let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
        std::fs::set_permissions(&file, mode).expect("its mode");
        let bytes = std::fs::read(&file).expect("the pack");
        std::fs::write(&file, vec![0x55; bytes.len()]).expect("damage");
    }
    want(&estate, &releases[11]);
    estate.host.run(&["deploy", "--force"]).ok();
    assert_eq!(estate.host.read("srv/api/lib/n"), "11");

    // The app's mirror made anew keeps them.
    std::fs::write(estate.host.mirror("api").join("HEAD"), "nonsense").expect("damage");
    estate.https.forget();
    estate.host.run(&["deploy", "--force"]).ok();
    let asked: Vec<_> = estate.https.requests().into_iter().map(|one| one.path).collect();
    assert!(asked.iter().all(|path| !path.contains("lib.git")), "{asked:?}");
    assert_eq!(mirrors(&estate).len(), 1);

    // One that no commit needs any more goes in time.
    for n in 0..10 {
        let entries = [
            appspec(&estate.host),
            Entry::gone(".gitmodules"),
            Entry::gone("lib"),
            Entry::file("n", n.to_string()),
        ];
        deploy(&estate, &estate.upstream("api").commit_entries(&entries)).ok();
    }
    assert_eq!(mirrors(&estate), [] as [PathBuf; 0]);
}
