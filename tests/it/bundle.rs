//! What is wrong with a commit is found before any application is stopped.

use crate::support::host::TestHost;
use crate::support::upstream::{Entry, Upstream};

#[test]
fn an_app_that_cannot_be_deployed_leaves_the_others_alone() {
    let host = TestHost::new();
    let good = Upstream::new(host.path("upstream"), "good.git");
    let bad = Upstream::new(host.path("upstream"), "bad.git");
    let first = host.release(&good, "good", "1");
    host.release(&bad, "bad", "1");
    let commit = bad.commit_entries(&[
        Entry::gone("scripts/hook.sh"),
        Entry::file("big.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"),
        Entry::file(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n"),
        Entry::file("line\nbreak", "x"),
        Entry::file("space ", "x"),
        Entry::file(b"latin\xe9", "x"),
        Entry::link("content/passwd", "/etc/passwd"),
        Entry::link("content/again", ".."),
        Entry::submodule("vendor", &first),
    ]);
    let source = |upstream: &Upstream| upstream.dir().display().to_string();
    host.apps(&[("good", &source(&good), &first), ("bad", &source(&bad), &commit)]);
    let _ = host
        .deploy()
        .code(7)
        .stderr_has("error: bad: 8 things in this commit cannot be deployed")
        .stderr_has(r"a name with a line break or control character: `line\nbreak`")
        .stderr_has("a name that ends with white space: `space `")
        .stderr_has("a name that is not UTF-8: `latin\u{fffd}`")
        .stderr_has("submodules, which would be deployed as empty directories: `vendor`")
        .stderr_has(
            "pointers of Git LFS, which would be deployed instead of content: `big.bin` (deploy",
        )
        .stderr_has("links that lead out of the bundle: `content/passwd`")
        .stderr_has("links that codedeploy-local would follow without end: `content/again`")
        .stderr_has("appspec.yml:11:17: the BeforeInstall script `scripts/hook.sh` is not there");
    assert_eq!(host.reports(), [] as [&str; 0]);
    assert_eq!(host.recorded("good", "attempted"), None);
    assert_eq!(host.recorded("good", "deployed"), None);
    assert_eq!(host.installed("good"), "");
}

#[test]
fn a_part_of_a_repository_is_deployed_whatever_is_beside_it() {
    let host = TestHost::new();
    let mono = Upstream::new(host.path("upstream"), "mono.git");
    let destination = host.text("srv/api");
    let appspec =
        format!("version: 0.0\nos: linux\nfiles:\n- {{source: bin, destination: {destination}}}\n");
    let commit = mono.commit_entries(&[
        Entry::file("services/api/deploy/spec.yml", appspec),
        Entry::exec("services/api/bin/tool", "#!/bin/sh\n"),
        Entry::link("services/api/bin/link", "tool"),
        Entry::link("services/web/out", "/etc"),
        Entry::file("line\nbreak", "x"),
        Entry::link("short", "services"),
    ]);
    let source = mono.dir().display().to_string();
    let deploy = |keys: &str| {
        host.apps_with(&[("api", &source, &commit, keys)]);
        host.deploy()
    };
    let _ = deploy("path: services/none")
        .code(7)
        .stderr_has("the commit has no directory `services/none`");
    let _ = deploy("path: short/api").code(7).stderr_has("`path` leads through the link `short`");
    let _ = deploy("path: services/api")
        .code(7)
        .stderr_has("there is no appspec.yml in `services/api`");
    let _ = deploy("path: services/api, appspec: deploy/spec.yml, symlinks: refuse")
        .code(7)
        .stderr_has("links, which `symlinks: refuse` forbids: `bin/link`");
    let _ = deploy("path: services/api, appspec: deploy/spec.yml").ok();
    assert_eq!(host.read("srv/api/tool"), "#!/bin/sh\n");
    assert_eq!(
        std::fs::read_link(host.path("srv/api/link")).expect("a link").to_str(),
        Some("tool")
    );
}
