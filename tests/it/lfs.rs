//! Git LFS, from a server of its kind: what is deployed is what git-lfs itself would check out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::estate::{Estate, assert_same};
use crate::support::host::{Ran, TestHost};
use crate::support::https::{Fault, GitHttps, hash_of};
use crate::support::keys::{KeyPair, Kind};
use crate::support::lfs::{LfsServer, Wrong, oid_of, pointer};
use crate::support::proxy::ConnectProxy;
use crate::support::sshd::GitSshd;
use crate::support::upstream::{Entry, Upstream};
use crate::support::{isolated, wait_until};

const ATTRIBUTES: &str = "*.bin filter=lfs diff=lfs merge=lfs -text\n";

/// Makes another answer of a batch server's.
type Edit = Box<dyn Fn(&mut Value) + Send + Sync>;

/// An app over HTTPS whose server has Git LFS, with the objects on another host.
struct Bed {
    estate: Estate,
    store: GitHttps,
    lfs: LfsServer,
    _dir: tempfile::TempDir,
}

impl Bed {
    fn new(host: TestHost) -> Self {
        let mut estate = Estate::new(host);
        let dir = tempfile::tempdir().expect("a directory");
        let store = GitHttps::start(dir.path());
        let ca = estate.host.text("etc/ca.pem");
        estate.host.add_host(&store.authority(), &[("ca_file", &ca)]);
        let lfs = LfsServer::start(&estate.https, "acme/api.git", &store);
        lfs.require("x-access-token", &estate.token);
        Self { estate, store, lfs, _dir: dir }
    }

    /// A commit of the app with these files and nothing else.
    fn commit(&self, entries: &[Entry]) -> String {
        let destination = self.estate.host.text("srv/api");
        let text = format!(
            "version: 0.0\nos: linux\nfiles:\n  - {{source: /, destination: {destination}}}\n"
        );
        let mut all =
            vec![Entry::file("appspec.yml", text), Entry::file(".gitattributes", ATTRIBUTES)];
        all.extend_from_slice(entries);
        self.estate.upstream("api").commit_on("refs/heads/main", None, &all)
    }

    fn want(&self, release: &str, more: &str) {
        let source = self.estate.source("api");
        self.estate.host.apps_with(&[("api", &source, release, more)]);
    }

    #[must_use]
    fn deploy(&self, release: &str) -> Ran {
        self.want(release, "lfs: true");
        self.estate.host.deploy()
    }

    /// What git-lfs itself checks out, from the same servers.
    fn checked_out(&self, commit: &str) -> PathBuf {
        let dir = self.estate.host.path(&format!("secrets/clone-{commit}"));
        let helper = self.estate.host.secret(
            "git-helper",
            &format!(
                "#!/bin/sh\necho username=x-access-token\necho password={}\n",
                self.estate.token
            ),
        );
        let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o700);
        std::fs::set_permissions(&helper, mode).expect("its mode");
        let config = format!(
            "[http]\n\tsslCAInfo = {}\n[credential]\n\thelper = {helper}\n\
             [filter \"lfs\"]\n\tclean = git-lfs clean -- %f\n\tsmudge = git-lfs smudge -- %f\n\
             \tprocess = git-lfs filter-process\n\trequired = true\n",
            self.estate.host.text("etc/ca.pem"),
        );
        let config = self.estate.host.write("secrets/gitconfig", &config);
        let git = |args: &[&str]| {
            let home = self.estate.host.text("secrets");
            let output = isolated("git")
                .env("GIT_CONFIG_GLOBAL", &config)
                .env("HOME", home)
                .args(args)
                .output()
                .expect("git starts");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{args:?}: {stderr}");
        };
        let at = dir.display().to_string();
        git(&["clone", "-q", "--no-checkout", &self.estate.source("api"), &at]);
        git(&["-C", &at, "checkout", "-q", "--detach", commit]);
        dir
    }

    fn objects(&self) -> Vec<PathBuf> {
        files(&self.estate.host.mirror("api").join("lfs/objects"))
    }

    fn incomplete(&self) -> Vec<PathBuf> {
        files(&self.estate.host.mirror("api").join("lfs/incomplete"))
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(directory).into_iter().flatten();
    entries.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
}

fn content(length: usize, seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn what_is_deployed_is_what_git_lfs_checks_out() {
    let bed = Bed::new(TestHost::new());
    let big = content(3 << 20, 1);
    let small = bed.lfs.put(b"small\r\n$Id$\n");
    let script = bed.lfs.put(b"#!/bin/sh\nexit 0\n");
    let stray = bed.lfs.put(b"without the attribute");
    let release = bed.commit(&[
        Entry::file("model.bin", bed.lfs.put(&big)),
        Entry::file("deep/er/small.bin", &small),
        Entry::file("same.bin", &small),
        Entry::exec("run.bin", &script),
        Entry::file("empty.bin", ""),
        Entry::file("no-pointer.bin", "content that was committed as it is\n"),
        Entry::file("stray.txt", &stray),
        Entry::link("link.bin", "model.bin"),
    ]);
    let ran = bed.deploy(&release).ok();
    drop(ran);
    let host = &bed.estate.host;
    let installed = host.path("srv/api");
    assert_eq!(std::fs::read(installed.join("model.bin")).expect("the file"), big);
    assert_eq!(bed.objects().len(), 3);

    // Each object once, in one question; the store saw what the answer gave for it alone.
    let shown = hash_of("x-access-token", &bed.estate.token);
    let asked: Vec<_> = bed.estate.https.requests();
    assert!(asked.iter().all(|one| one.authorization.as_ref() == Some(&shown)), "{asked:?}");
    let coded =
        openssl::base64::encode_block(format!("x-access-token:{}", bed.estate.token).as_bytes());
    for download in bed.lfs.downloads() {
        assert!(!download.sent.contains(&bed.estate.token), "{download:?}");
        assert!(!download.sent.contains(&coded), "{download:?}");
    }
    assert_eq!(bed.lfs.batches()[0]["objects"].as_array().map(Vec::len), Some(3));
    assert_same(&installed, &bed.checked_out(&release));

    // Nothing is asked for twice, and nothing to put it back.
    let two = bed.commit(&[
        Entry::file("model.bin", bed.lfs.put(b"other")),
        Entry::file("same.bin", &small),
    ]);
    bed.lfs.forget();
    bed.deploy(&two).ok();
    let came = bed.lfs.downloads();
    assert_eq!((came.len(), bed.lfs.batches().len()), (1, 1), "{came:?}");
    bed.estate.https.stop();
    bed.store.stop();
    host.run(&["rollback", "api"]).ok();
    assert_eq!(std::fs::read(installed.join("model.bin")).expect("the file"), big);
    bed.want(&two, "lfs: true");
    host.run(&["deploy", "--offline"]).ok();
    host.run(&["status", "--drift", "--exit-code"]).ok().says("no drift");
    host.write("srv/api/model.bin", "othex");
    host.run(&["status", "--drift"]).ok().says("drift: 1 file is not").says("model.bin");
    let mut secrets = bed.lfs.keys();
    secrets.push(bed.estate.token.clone());
    host.assert_nowhere(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn without_the_key_pointers_are_refused() {
    let bed = Bed::new(TestHost::new());
    let release = bed.commit(&[Entry::file("model.bin", bed.lfs.put(b"content"))]);
    bed.want(&release, "");
    let _ = bed.estate.host.deploy().code(7).says("`model.bin`").says("`lfs: true`");
    assert!(bed.lfs.batches().is_empty());
    // One that cannot be read is not passed over either.
    let broken = pointer(&"a".repeat(64), 5).replace("oid", "ext-0-x sha256:1\noid");
    let release = bed.commit(&[Entry::file("model.bin", broken)]);
    let _ = bed.deploy(&release).code(7).says("`model.bin`").says("cannot be read as such");
}

#[test]
fn a_download_that_breaks_off_is_continued() {
    let bed = Bed::new(TestHost::new());
    let big = content(2 << 20, 2);
    let model = bed.lfs.put(&big);
    let release = bed.commit(&[Entry::file("model.bin", &model)]);
    let oid = oid_of(&model);
    // In one run: twice cut, then whole.
    bed.lfs.inject(&oid, Wrong::Cut(1 << 20));
    bed.lfs.inject(&oid, Wrong::Cut(100_000));
    bed.deploy(&release).ok();
    let ranges: Vec<_> = bed.lfs.downloads().into_iter().map(|one| one.range).collect();
    assert_eq!(ranges, [String::new(), format!("bytes={}-", 1 << 20), "bytes=1148576-".into()]);
    assert!(bed.incomplete().is_empty());

    // From one run to the next, and whatever the server makes of the wish.
    for (wrong, seed) in [(None, 3), (Some(Wrong::NoRanges), 4), (Some(Wrong::OtherRange), 5)] {
        let big = content(1 << 20, seed);
        let model = bed.lfs.put(&big);
        let release = bed.commit(&[Entry::file("model.bin", &model)]);
        let oid = oid_of(&model);
        for _ in 0..3 {
            bed.lfs.inject(&oid, Wrong::Cut(200_000));
        }
        let _ = bed.deploy(&release).code(3).says("`model.bin`").says(&oid);
        let [partial] = &bed.incomplete()[..] else { panic!("one") };
        let length = std::fs::metadata(partial).expect("the file").len();
        assert_eq!(length, 600_000);
        bed.lfs.forget();
        if let Some(wrong) = wrong {
            bed.lfs.inject(&oid, wrong);
        }
        bed.deploy(&release).ok();
        assert_eq!(bed.lfs.downloads()[0].range, "bytes=600000-");
        assert_eq!(std::fs::read(bed.estate.host.path("srv/api/model.bin")).expect("it"), big);
    }

    // What came before was damaged meanwhile.
    let big = content(1 << 20, 6);
    let model = bed.lfs.put(&big);
    let release = bed.commit(&[Entry::file("model.bin", &model)]);
    for _ in 0..3 {
        bed.lfs.inject(&oid_of(&model), Wrong::Cut(200_000));
    }
    let _ = bed.deploy(&release).code(3);
    let [partial] = &bed.incomplete()[..] else { panic!("one") };
    let mut bytes = std::fs::read(partial).expect("the file");
    bytes[1000] ^= 1;
    std::fs::write(partial, bytes).expect("damage");
    bed.deploy(&release).ok();
    assert_eq!(std::fs::read(bed.estate.host.path("srv/api/model.bin")).expect("it"), big);
}

#[test]
fn what_cannot_be_had_is_named_and_nothing_is_touched() {
    let bed = Bed::new(TestHost::new());
    let one = bed.commit(&[Entry::file("model.bin", bed.lfs.put(b"one"))]);
    bed.deploy(&one).ok();
    let lost = content(5000, 9);
    let model = bed.lfs.put(&lost);
    let oid = oid_of(&model);
    let two = bed.commit(&[Entry::file("model.bin", &model), Entry::file("x/copy.bin", &model)]);
    let other = bed.store.url("elsewhere");
    for (wrong, says) in [
        (Wrong::Bytes, "is something else"),
        (Wrong::Endless, "has more than 5000 bytes"),
        (Wrong::Length(4000), "has 4000 bytes"),
        (Wrong::Length(6000), "has 6000 bytes"),
        (Wrong::Status(404), "does not have the content of"),
        (Wrong::Status(410), "does not have the content of"),
        (Wrong::Status(422), "HTTP status 422"),
        (Wrong::Status(509), "HTTP status 509"),
        (Wrong::Redirect("http://127.0.0.1/".into()), "is not `https://`"),
        (Wrong::Redirect("file:///etc/passwd".into()), "is not `https://`"),
        (Wrong::Redirect(other), "does not have the content of"),
    ] {
        let shown = format!("{wrong:?}");
        bed.lfs.inject(&oid, wrong);
        let ran = bed.deploy(&two).code(3).says(says).says("`model.bin`").says(&oid);
        assert!(ran.stdout.contains("x/copy.bin") || ran.stderr.contains("x/copy.bin"), "{shown}");
        assert_eq!(bed.estate.host.read("srv/api/model.bin"), "one", "{shown}");
        assert_eq!(bed.estate.host.recorded("api", "attempted"), None, "{shown}");
        assert!(bed.incomplete().is_empty(), "{shown}");
    }
    bed.lfs.lose();
    let _ = bed.deploy(&two).code(3).says("Object does not exist").says("git lfs push");
    bed.want(&two, "lfs: true");
    let _ =
        bed.estate.host.run(&["deploy", "--offline"]).code(3).says("--offline").says("`model.bin`");
    bed.estate.host.run(&["plan"]).ok().says("downloads 1 Git LFS object, 5.0 kB");
    let report = bed.estate.host.run(&["plan", "--json"]).ok().json();
    let fetches = &report["apps"][0]["preview"]["fetches"];
    assert_eq!(
        (&fetches["lfs_objects"], &fetches["lfs_bytes"]),
        (&1.into(), &5000.into()),
        "{report}"
    );
    bed.lfs.put(&lost);
    bed.estate.host.run(&["fetch"]).ok().says("fetched");
    bed.estate.host.run(&["plan"]).ok().silent_about("downloads");
    bed.estate.host.run(&["fetch"]).ok().says("was there");
    bed.estate.host.run(&["deploy", "--offline"]).ok();
    assert_eq!(std::fs::read(bed.estate.host.path("srv/api/x/copy.bin")).expect("it"), lost);
}

#[test]
fn what_the_batch_server_refuses_is_told_with_its_words() {
    let bed = Bed::new(TestHost::new());
    let model = bed.lfs.put(b"content");
    let release = bed.commit(&[Entry::file("model.bin", &model)]);
    let url = format!("{}/info/lfs", bed.estate.source("api"));
    let batch = |fault: Fault| fault.on("objects/batch");
    for (fault, says) in [
        (batch(Fault::status(403)), "may read this repository"),
        (batch(Fault::status(404)), "enable Git LFS"),
        (batch(Fault::status(413)), "HTTP status 413"),
        (batch(Fault::status(501)), "HTTP status 501"),
        (batch(Fault::status(507)), "the quota"),
        (batch(Fault::page("<title>Please log in</title>")), "Please log in"),
        (batch(Fault::babble("hello")), "hello"),
        (batch(Fault::redirect(307, &bed.store.base())), "another port"),
        (batch(Fault::status(429).header("Retry-After", "4000")), "it asks to wait 4000 s"),
    ] {
        bed.estate.https.inject(fault.clone());
        let ran = bed.deploy(&release).code(3).says(says).says(&url);
        drop(ran);
        bed.estate.https.repair();
        assert!(bed.store.requests().is_empty(), "{fault:?}");
    }
    // What passes by itself is tried again.
    bed.estate.https.inject(batch(Fault::status(500)).times(1));
    bed.estate.https.inject(batch(Fault::reset()).times(1));
    bed.lfs.inject(&oid_of(&model), Wrong::Status(503));
    bed.deploy(&release).ok().says("trying again");
    // Without a credential, and with one that is not good.
    bed.lfs.revoke();
    bed.lfs.require("x-access-token", "another");
    let two = bed.commit(&[Entry::file("model.bin", bed.lfs.put(b"another"))]);
    let _ = bed.deploy(&two).code(3).says("Credentials needed").says("secrets/token");
    // Addresses hold for some time only: new ones are asked for.
    bed.lfs.revoke();
    bed.lfs.forget();
    bed.lfs.inject(&oid_of(&bed.lfs.put(b"another")), Wrong::Status(403));
    bed.deploy(&two).ok();
    assert_eq!((bed.lfs.batches().len(), bed.lfs.downloads().len()), (2, 2));
}

#[test]
fn hostile_answers_of_the_batch_server_lead_nowhere() {
    let bed = Bed::new(TestHost::new());
    let model = bed.lfs.put(b"content");
    let release = bed.commit(&[Entry::file("model.bin", &model)]);
    let passwd = "file:///etc/passwd";
    let plain = format!("http://{}/x", bed.store.authority());
    let user = format!("https://user:hunter2@{}/x", bed.store.authority());
    let elsewhere = oid_of(&pointer(&"b".repeat(64), 1));
    let long = format!("https://h/{}", "x".repeat(20_000));
    let href = |href: &str| {
        let href = href.to_owned();
        move |answer: &mut Value| {
            answer["objects"][0]["actions"]["download"]["href"] = json!(href);
        }
    };
    let edits: Vec<(Edit, &str)> = vec![
        (Box::new(href(passwd)), "is not `https://`"),
        (Box::new(href(&plain)), "is not `https://`"),
        (Box::new(href(&user)), "user name or password"),
        (Box::new(href(&long)), "too long"),
        (Box::new(href("")), "is not `https://`"),
        (Box::new(|answer| answer["objects"] = json!([])), "does not speak of it"),
        (
            Box::new(move |answer| answer["objects"][0]["oid"] = json!(elsewhere)),
            "does not speak of it",
        ),
        (Box::new(|answer| answer["objects"][0]["size"] = json!(8)), "has 8 bytes"),
        (Box::new(|answer| answer["objects"][0]["actions"] = json!({})), "has no address for it"),
        (Box::new(|answer| answer["transfer"] = json!("ssh")), "another way to transfer"),
        (Box::new(|answer| answer["hash_algo"] = json!("sha512")), "another hash"),
        (Box::new(|answer| *answer = json!("x".repeat(5 << 20))), "is not a Git LFS server"),
        (
            Box::new(|answer| {
                let error = json!({"code": 422, "message": "\u{1b}[31mred\nline"});
                answer["objects"][0]["error"] = error;
            }),
            "with code 422 (it says: ?[31mred)",
        ),
        (
            Box::new(|answer| {
                let header = json!({"X": "a\r\nb: c"});
                answer["objects"][0]["actions"]["download"]["header"] = header;
            }),
            "a header that is none",
        ),
    ];
    for (edit, says) in edits {
        bed.lfs.edit(edit);
        let ran = bed.deploy(&release).code(3).says(says).silent_about("hunter2");
        drop(ran);
        assert_eq!(bed.store.connections(), 0, "{says}");
        assert_eq!(bed.estate.host.recorded("api", "attempted"), None, "{says}");
    }
    // What goes to the store are the answer's headers, without those of the connection.
    let token = bed.estate.token.clone();
    bed.lfs.edit(|answer| {
        let header = &mut answer["objects"][0]["actions"]["download"]["header"];
        header["Host"] = json!("evil.example");
        header["Range"] = json!("bytes=1-2");
    });
    bed.deploy(&release).ok();
    let [download] = &bed.lfs.downloads()[..] else { panic!("one") };
    assert!(!download.sent.contains("evil.example") && download.range.is_empty(), "{download:?}");
    assert!(!download.sent.contains(&token), "{download:?}");

    // A size that nobody has room for is refused before anybody is asked.
    bed.lfs.repair();
    bed.lfs.forget();
    let huge = pointer(&"c".repeat(64), i64::MAX as u64);
    let release =
        bed.commit(&[Entry::file("a.bin", &huge), Entry::file("b.bin", huge.replace('c', "d"))]);
    let _ = bed.deploy(&release).code(11).says("there is no room for").says("`a.bin`");
    assert!(bed.lfs.batches().is_empty());
    let twice = pointer(&oid_of(&model), 8);
    let release = bed.commit(&[Entry::file("a.bin", &model), Entry::file("b.bin", twice)]);
    let _ = bed.deploy(&release).code(7).says("do not agree about its size");
}

#[test]
fn the_credential_and_what_was_had_over_ssh_stay_with_the_batch_server() {
    let mut bed = Bed::new(TestHost::new());
    let key = KeyPair::new(&bed.estate.host.path("secrets"), "lfs_key", Kind::Ed25519);
    let ssh = GitSshd::start(bed.estate.root(), &key);
    let known = bed.estate.host.write("etc/known_hosts", &ssh.known_hosts());
    let auth = format!("{{ssh_key_file: {}}}", key.file.display());
    bed.estate.host.add_host(&ssh.authority(), &[("auth", &auth), ("known_hosts_file", &known)]);
    let source = ssh.url("acme/api.git");
    let release = bed.commit(&[Entry::file("model.bin", bed.lfs.put(b"over ssh"))]);
    let deploy = |release: &str| {
        bed.estate.host.apps_with(&[("api", &source, release, "lfs: true")]);
        bed.estate.host.deploy()
    };
    let _ = deploy(&release).code(3).says("command not found").says("git-lfs-authenticate");
    ssh.authenticate_lfs("Welcome!\n");
    let _ = deploy(&release).code(3).says("no answer of that program");
    let secret = crate::estate::token();
    let answer = |href: &str| {
        let header = json!({"Authorization": format!("RemoteAuth {secret}")});
        ssh.authenticate_lfs(&json!({"href": href, "header": header, "expires_in": 9}).to_string());
    };
    answer("http://127.0.0.1/x");
    let _ = deploy(&release).code(3).says("is not `https://`");
    let place = format!("{}/info/lfs", bed.estate.https.url("acme/api.git"));
    answer(&place);
    let _ = deploy(&release).code(3).says("Credentials needed").says("what it gave over SSH");
    bed.lfs.grant("Authorization", &format!("RemoteAuth {secret}"));
    bed.estate.https.forget();
    deploy(&release).ok();
    assert_eq!(bed.estate.host.read("srv/api/model.bin"), "over ssh");
    assert!(ssh.commands().iter().any(|one| one == "git-lfs-authenticate /acme/api.git download"));
    let basic = hash_of("x-access-token", &bed.estate.token);
    let asked = bed.estate.https.requests();
    assert!(asked.iter().all(|one| one.authorization.as_ref() != Some(&basic)), "{asked:?}");
    for download in bed.lfs.downloads() {
        assert!(!download.sent.contains(&secret), "{download:?}");
    }

    // The stand-in keeps to the contract: git-lfs itself gets on with it.
    let dir = bed.estate.host.path("secrets/by-ssh");
    let command = format!(
        "ssh -i {} -o UserKnownHostsFile={known} -o BatchMode=yes -o IdentitiesOnly=yes",
        key.file.display()
    );
    let config = format!(
        "[http]\n\tsslCAInfo = {}\n[filter \"lfs\"]\n\tsmudge = git-lfs smudge -- %f\n\trequired = true\n",
        bed.estate.host.text("etc/ca.pem"),
    );
    let config = bed.estate.host.write("secrets/gitconfig", &config);
    for args in [
        vec!["clone", "-q", "--no-checkout", &source, dir.to_str().expect("text")],
        vec!["-C", dir.to_str().expect("text"), "checkout", "-q", "--detach", &release],
    ] {
        let output = isolated("git")
            .env("GIT_CONFIG_GLOBAL", &config)
            .env("GIT_SSH_COMMAND", &command)
            .env("HOME", bed.estate.host.text("secrets"))
            .args(&args)
            .output()
            .expect("git starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {stderr}");
    }
    assert_same(&bed.estate.host.path("srv/api"), &dir);

    // Where the batch server has the objects itself, it is shown the credential again; and an
    // answer with a proof of its own goes without it.
    let own = LfsServer::start(&bed.estate.https, "acme/gateway.git", &bed.estate.https);
    own.require("x-access-token", &bed.estate.token);
    own.allow_basic();
    own.edit(|answer| {
        answer["objects"][0]["authenticated"] = json!(false);
        answer["objects"][0]["actions"]["download"]["header"] = json!({});
    });
    let entries = [
        Entry::file("appspec.yml", "version: 0.0\nos: linux\n"),
        Entry::file(".gitattributes", ATTRIBUTES),
        Entry::file("a.bin", own.put(b"own")),
    ];
    let release = bed.estate.upstream("gateway").commit_on("refs/heads/main", None, &entries);
    let source = bed.estate.source("gateway");
    bed.estate.host.apps_with(&[("gateway", &source, &release, "lfs: true")]);
    bed.estate.host.deploy().ok();
    let [download] = &own.downloads()[..] else { panic!("one") };
    assert!(download.sent.contains("authorization: Basic "), "{download:?}");
    let mut secrets = [bed.lfs.keys(), own.keys()].concat();
    secrets.extend([secret, bed.estate.token.clone()]);
    let secrets: Vec<_> = secrets.iter().map(String::as_str).collect();
    bed.estate.host.assert_nowhere(&secrets);
}

#[test]
fn a_lfsconfig_is_followed_only_where_the_manifest_says_so() {
    let mut bed = Bed::new(TestHost::new());
    let model = bed.lfs.put(b"content");
    let release = |url: &str| {
        bed.commit(&[
            Entry::file("model.bin", &model),
            Entry::file(".lfsconfig", format!("[lfs]\n\turl = {url}\n")),
        ])
    };
    let dir = tempfile::tempdir().expect("a directory");
    let other = GitHttps::start(dir.path());
    let there = other.url("other/api.git/info/lfs");
    let strange = release(&there);
    let _ = bed.deploy(&strange).code(7).says("on another host than").says("under `hosts`");
    assert_eq!(other.connections(), 0);
    for (url, says) in [
        ("http://127.0.0.1/x", "is not `https://`"),
        ("file:///etc", "is not `https://`"),
        ("ssh://git@127.0.0.1/x", "is not `https://`"),
        ("https://user:hunter2@127.0.0.1/x", "user name or password"),
        ("\"https://x", "cannot be followed"),
    ] {
        let commit = release(url);
        let _ = bed.deploy(&commit).code(7).says(says).silent_about("hunter2");
    }
    // Elsewhere on the same host, with the credential that is bound to it there.
    let same = LfsServer::start(&bed.estate.https, "acme/other.git", &bed.store);
    same.require("x-access-token", &bed.estate.token);
    same.put(b"content");
    let near = release(&bed.estate.https.url("acme/other.git/info/lfs"));
    bed.deploy(&near).ok();
    assert_eq!((same.batches().len(), bed.lfs.batches().len()), (1, 0));

    let token = crate::estate::token();
    let file = bed.estate.host.secret("other", &token);
    let ca = bed.estate.host.text("etc/ca.pem");
    let auth = format!("{{token_file: {file}}}");
    bed.estate.host.add_host(&other.authority(), &[("auth", &auth), ("ca_file", &ca)]);
    let far = LfsServer::start(&other, "other/api.git", &bed.store);
    far.require("x-access-token", &token);
    let model = far.put(b"elsewhere");
    let commit = bed.commit(&[
        Entry::file("model.bin", &model),
        Entry::file(".lfsconfig", format!("[lfs]\n\turl = {there}\n")),
    ]);
    bed.deploy(&commit).ok();
    assert_eq!(bed.estate.host.read("srv/api/model.bin"), "elsewhere");
    let shown = hash_of("x-access-token", &token);
    assert!(other.requests().iter().all(|one| one.authorization.as_ref() == Some(&shown)));
    bed.estate.host.assert_nowhere(&[&token, &bed.estate.token]);
}

#[test]
fn only_what_is_in_the_bundle_comes_and_once_for_all_apps_of_a_source() {
    let bed = Bed::new(TestHost::new());
    let sub = Upstream::new(bed.estate.root(), "acme/sub.git");
    let in_sub = LfsServer::start(&bed.estate.https, "acme/sub.git", &bed.store);
    in_sub.require("x-access-token", &bed.estate.token);
    let sub_commit = sub.commit_entries(&[
        Entry::file(".gitattributes", ATTRIBUTES),
        Entry::file("one/in.bin", in_sub.put(b"in the submodule")),
        Entry::file("two/out.bin", pointer(&"e".repeat(64), 7)),
    ]);
    let shared = bed.lfs.put(b"shared by both");
    let spec = |app: &str| {
        let destination = bed.estate.host.text(&format!("srv/{app}"));
        format!("version: 0.0\nos: linux\nfiles:\n  - {{source: /, destination: {destination}}}\n")
    };
    let release = bed.estate.upstream("api").commit_on(
        "refs/heads/main",
        None,
        &[
            Entry::file(".gitattributes", format!("{ATTRIBUTES}skip.bin export-ignore\n")),
            Entry::file(".gitmodules", "[submodule \"s\"]\npath = sub\nurl = ../sub.git\n"),
            Entry::submodule("sub", &sub_commit),
            Entry::file("one/appspec.yml", spec("one")),
            Entry::file("one/shared.bin", &shared),
            Entry::file("one/skip.bin", pointer(&"f".repeat(64), 7)),
            Entry::file("two/appspec.yml", spec("two")),
            Entry::file("two/shared.bin", &shared),
            Entry::file("lost.bin", pointer(&"d".repeat(64), 7)),
        ],
    );
    let source = bed.estate.source("api");
    bed.estate.host.apps_with(&[
        ("one", &source, &release, "path: one, lfs: true"),
        ("two", &source, &release, "path: two, lfs: true"),
    ]);
    bed.estate.host.deploy().ok();
    assert_eq!(bed.estate.host.read("srv/one/shared.bin"), "shared by both");
    assert_eq!(bed.estate.host.read("srv/two/shared.bin"), "shared by both");
    assert_eq!(bed.lfs.downloads().len(), 1);
    let files = |app: &str| files(&bed.estate.host.mirror(app).join("lfs/objects"));
    let links = std::fs::metadata(&files("one")[0]).expect("the object");
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&links), 2, "one copy on the disk");

    // Of a submodule, what is below the app's path.
    let entries = [
        Entry::file(".gitattributes", ATTRIBUTES),
        Entry::file(".gitmodules", "[submodule \"s\"]\npath = app\nurl = ../sub.git\n"),
        Entry::submodule("app", &sub_commit),
    ];
    let release = bed.estate.upstream("gateway").commit_on("refs/heads/main", None, &entries);
    let sub_two = sub.commit_entries(&[Entry::file("one/appspec.yml", spec("gateway"))]);
    drop(release);
    let entries = [entries[0].clone(), entries[1].clone(), Entry::submodule("app", &sub_two)];
    let release = bed.estate.upstream("gateway").commit_on("refs/heads/main", None, &entries);
    let source = bed.estate.source("gateway");
    let more = "path: app/one, lfs: true, submodules: true";
    bed.estate.host.apps_with(&[("gateway", &source, &release, more)]);
    bed.estate.host.deploy().ok();
    assert_eq!(bed.estate.host.read("srv/gateway/in.bin"), "in the submodule");
    bed.estate.host.run(&["status", "--drift", "--exit-code"]).ok().says("no drift");
    bed.estate.host.write("srv/gateway/in.bin", "in the submodulE");
    bed.estate.host.run(&["status", "--drift"]).ok().says("in.bin");
}

#[test]
fn a_repository_on_this_host_has_its_own_objects() {
    let bed = Bed::new(TestHost::new());
    let big = content(700_000, 7);
    let model = bed.lfs.put(&big);
    let oid = oid_of(&model);
    let release = bed.commit(&[Entry::file("model.bin", &model)]);
    let source = bed.estate.upstream("api").dir().to_owned();
    let deploy = || {
        let source = source.display().to_string();
        bed.estate.host.apps_with(&[("api", &source, &release, "lfs: true")]);
        bed.estate.host.deploy()
    };
    let _ = deploy().code(3).says("does not have the content").says("`model.bin`");
    let place = source.join("lfs/objects").join(&oid[..2]).join(&oid[2..4]);
    std::fs::create_dir_all(&place).expect("a directory");
    std::fs::write(place.join(&oid), vec![b'x'; big.len()]).expect("another content");
    let _ = deploy().code(3).says("is something else");
    std::fs::write(place.join(&oid), &big).expect("the content");
    deploy().ok();
    assert_eq!(std::fs::read(bed.estate.host.path("srv/api/model.bin")).expect("it"), big);
}

#[test]
fn a_killed_run_is_continued_and_a_signal_ends_one_soon() {
    let bed = Bed::new(TestHost::new());
    let big = content(4 << 20, 8);
    let model = bed.lfs.put(&big);
    let release = bed.commit(&[Entry::file("model.bin", &model)]);
    bed.want(&release, "lfs: true");
    let there = || {
        let parts = bed.incomplete();
        parts.iter().filter_map(|file| file.metadata().ok()).map(|about| about.len()).sum::<u64>()
    };
    for (signal, stall, length) in [(Signal::SIGKILL, 2 << 20, 2), (Signal::SIGTERM, 1 << 20, 3)] {
        bed.lfs.inject(&oid_of(&model), Wrong::Stall(stall));
        let running = bed.estate.host.start(&["deploy"]);
        wait_until("a part of it", Duration::from_secs(60), || there() == length << 20);
        running.signal(signal);
        let ran = running.wait();
        match signal {
            Signal::SIGKILL => drop(ran.killed()),
            _ => drop(ran.code(143).within(Duration::from_secs(60))),
        }
        assert_eq!(bed.estate.host.recorded("api", "deployed"), None);
        assert!(bed.objects().is_empty(), "nothing counts that is not whole");
    }
    bed.lfs.forget();
    bed.estate.host.deploy().ok();
    let [download] = &bed.lfs.downloads()[..] else { panic!("one") };
    assert_eq!(download.range, format!("bytes={}-", 3 << 20));
    assert_eq!(std::fs::read(bed.estate.host.path("srv/api/model.bin")).expect("it"), big);
}

#[test]
fn objects_go_when_no_commit_needs_them_and_damaged_ones_come_again() {
    let bed = Bed::new(TestHost::new());
    let mut releases = Vec::new();
    for n in 0..12_u8 {
        let model = bed.lfs.put(&content(100_000, n));
        releases.push(bed.commit(&[Entry::file("model.bin", &model), Entry::file("n", [n])]));
        bed.deploy(&releases[usize::from(n)]).ok();
    }
    let kept = bed.objects().len();
    assert!((5..=9).contains(&kept), "{kept}");
    bed.want(&releases[0], "lfs: true");
    let _ = bed.estate.host.run(&["deploy", "--offline"]).code(3);
    bed.want(&releases[11], "lfs: true");

    // More than a mirror may have goes after any good run.
    let text = bed.estate.host.read("etc/multideployer.yaml");
    let limits = |most: &str| {
        let rules = format!("limits: {{mirror_max: {most}}}\napps:");
        bed.estate.host.manifest(&text.replacen("apps:", &rules, 1));
    };
    limits("250k");
    bed.estate.host.run(&["gc", "--dry-run"]).ok().says("it would be reduced");
    assert_eq!(bed.objects().len(), kept);
    bed.estate.host.run(&["deploy", "--force"]).ok();
    let kept = bed.objects().len();
    assert!(kept < 3, "{kept}");
    bed.estate.host.run(&["gc"]).ok();
    assert_eq!(bed.objects().len(), kept);
    bed.lfs.forget();
    bed.estate.host.run(&["rollback", "api"]).ok();
    let installed = bed.estate.host.path("srv/api/model.bin");
    assert_eq!(std::fs::read(&installed).expect("it"), content(100_000, 10));
    assert!(bed.lfs.batches().is_empty(), "nothing had to come");

    bed.want(&releases[10], "lfs: true");
    for damage in [true, false] {
        for file in bed.objects() {
            let bytes = std::fs::read(&file).expect("an object");
            std::fs::write(&file, vec![0; if damage { bytes.len() } else { 7 }]).expect("damage");
        }
        let ran = bed.estate.host.run(&["deploy", "--force"]).ok();
        assert_eq!(ran.stderr.contains("is damaged"), damage, "{ran:?}");
        assert_eq!(std::fs::read(&installed).expect("it"), content(100_000, 10));
    }
    // A mirror that is made anew keeps them.
    std::fs::write(bed.estate.host.mirror("api").join("HEAD"), "nonsense").expect("damage");
    bed.lfs.forget();
    bed.estate.host.run(&["deploy", "--force"]).ok();
    assert!(bed.lfs.downloads().is_empty());
    bed.estate.https.stop();
    bed.estate.host.run(&["status", "--drift", "--exit-code"]).ok().says("no drift");
}

#[test]
fn many_objects_come_in_several_questions_and_through_a_proxy() {
    let mut bed = Bed::new(TestHost::new());
    let entries: Vec<_> = (0..230)
        .map(|n| {
            let pointer = bed.lfs.put(format!("object {n}").as_bytes());
            Entry::file(format!("d{}/{n}.bin", n % 7), pointer)
        })
        .collect();
    let proxy = ConnectProxy::start(&[]);
    let address = proxy.url();
    bed.estate.host.set("https_proxy", &address);
    let release = bed.commit(&entries);
    bed.deploy(&release).ok();
    assert_same(&bed.estate.host.path("srv/api"), &bed.checked_out(&release));
    let asked: Vec<_> = bed
        .lfs
        .batches()
        .iter()
        .filter_map(|one| one["objects"].as_array().map(Vec::len))
        .collect();
    assert_eq!(asked[..3], [100, 100, 30]);
    let to_store = proxy.tunnels().iter().filter(|one| one.target == bed.store.authority()).count();
    assert!((1..=24).contains(&to_store), "connections are used again: {to_store}");
}

#[test]
fn the_doctor_asks_for_an_object_that_the_mirror_knows_of() {
    let bed = Bed::new(TestHost::new());
    let release = bed.commit(&[Entry::file("model.bin", bed.lfs.put(b"content"))]);
    bed.want(&release, "lfs: true");
    let said = || {
        let report = bed.estate.host.run(&["doctor", "--json"]);
        let document = report.json();
        let sections = document["sections"].as_array().cloned().unwrap_or_default();
        let findings = sections.iter().filter_map(|one| one["findings"].as_array().cloned());
        let found = findings.flatten().find(|one| one["check"] == "lfs");
        let found = found.unwrap_or_else(|| panic!("{document}"));
        format!("{}: {}", found["status"], found["message"])
    };
    assert!(said().contains("not known before the commit is fetched"), "{}", said());
    bed.estate.host.run(&["fetch"]).ok();
    bed.lfs.forget();
    let ok = said();
    assert!(ok.contains("\"ok\"") && ok.contains("info/lfs: has the content of model.bin"), "{ok}");
    assert!(bed.lfs.downloads().is_empty() && bed.lfs.batches().len() == 1, "only asked");
    bed.lfs.lose();
    let lost = said();
    assert!(lost.contains("\"problem\"") && lost.contains("`model.bin`"), "{lost}");
    bed.estate.host.assert_nowhere(&[&bed.estate.token]);
}

/// Each of two apps has room for its object, both have not.
#[test]
#[ignore = "needs root: mounts a file system"]
fn a_disk_that_fills_up_leaves_the_apps_as_they_are() {
    let bed = Bed::new(TestHost::new());
    let other = LfsServer::start(&bed.estate.https, "acme/worker.git", &bed.store);
    other.require("x-access-token", &bed.estate.token);
    let entries = |pointer: &str| {
        let spec = Entry::file("appspec.yml", "version: 0.0\nos: linux\n");
        vec![spec, Entry::file(".gitattributes", ATTRIBUTES), Entry::file("a.bin", pointer)]
    };
    let one = bed.commit(&entries(&bed.lfs.put(&content(6 << 20, 1))));
    let worker = bed.estate.upstream("worker");
    let pointer = other.put(&content(6 << 20, 2));
    let two = worker.commit_on("refs/heads/main", None, &entries(&pointer));
    let (api, worker) = (bed.estate.source("api"), bed.estate.source("worker"));
    bed.estate
        .host
        .apps_with(&[("api", &api, &one, "lfs: true"), ("worker", &worker, &two, "lfs: true")]);
    let cache = bed.estate.host.text("cache");
    std::fs::create_dir(&cache).expect("the cache");
    let on = |size: &str| {
        // In a namespace of its own, the mount ends with the run.
        let shell = format!("umask 022; mount -t tmpfs -o mode=700,size={size} none {cache}");
        let inner = bed.estate.host.command(&["deploy"]);
        let mut command = std::process::Command::new("unshare");
        command.args(["-m", "sh", "-c", &format!("{shell} && exec \"$@\""), "sh"]);
        command.arg(inner.get_program()).args(inner.get_args()).env_clear();
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(bed.estate.host.dir());
        bed.estate.host.start_command(command).wait()
    };
    let _ = on("10m").code(11).says("there is no room for 6.2 MB of Git LFS objects");
    let _ = on("17m").code(11).says("make room");
    for app in ["api", "worker"] {
        assert_eq!(bed.estate.host.recorded(app, "attempted"), None);
    }
    on("60m").ok();
}
