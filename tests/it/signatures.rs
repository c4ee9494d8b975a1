//! Signatures as the real ssh-keygen and gpg make them, and everything that is wrong with one.

use std::path::{Path, PathBuf};

use multideployer::domain::Verify;
use multideployer::verify::{Error, Kind, Object, Signed, signature};

use crate::support::isolated;
use crate::support::keys::{KeyPair, Kind as KeyKind};
use crate::support::signer::{Gpg, Signer};
use crate::support::upstream::Upstream;

/// A repository with one commit that is not signed, and a directory for keys.
struct Bench {
    dir: tempfile::TempDir,
    upstream: Upstream,
    plain: String,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let upstream = Upstream::new(dir.path(), "api.git");
        let plain = upstream.commit(&[("a", "b")]);
        Self { dir, upstream, plain }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn key(&self, name: &str, kind: KeyKind) -> KeyPair {
        KeyPair::new(self.path(), name, kind)
    }

    /// An SSH key as ssh-keygen makes it with these options; answers its file and public key.
    fn odd_key(&self, name: &str, options: &[&str]) -> (PathBuf, String) {
        let file = self.path().join(name);
        let mut make = isolated("ssh-keygen");
        make.args(["-q", "-N", "", "-C", "", "-f"]).arg(&file).args(options);
        assert!(make.status().expect("ssh-keygen is installed").success(), "{options:?}");
        let public = std::fs::read_to_string(file.with_extension("pub")).expect("the public key");
        (file, public.trim().to_owned())
    }

    /// Writes a file of keys.
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content).expect("the file");
        path
    }

    fn object(&self, id: &str) -> Object {
        let kind = self.upstream.git(&["cat-file", "-t", id]);
        let output = isolated("git")
            .arg("--git-dir")
            .arg(self.upstream.dir())
            .args(["cat-file", &kind, id])
            .output()
            .expect("git is installed");
        let kind = if kind == "tag" { Kind::Tag } else { Kind::Commit };
        Object { id: id.parse().expect("an id"), kind, content: output.stdout }
    }

    /// Checks objects against a file of keys and perhaps one of revoked ones.
    fn check(&self, ids: &[&str], signers: &Path, revoked: Option<&Path>) -> Result<Signed, Error> {
        let objects: Vec<_> = ids.iter().map(|id| self.object(id)).collect();
        check(&objects, signers, revoked)
    }
}

fn check(objects: &[Object], signers: &Path, revoked: Option<&Path>) -> Result<Signed, Error> {
    let wanted = Verify {
        signed_by: vec![signers.to_owned()],
        revoked_keys: revoked.map(Path::to_owned),
        reachable_from: Vec::new(),
    };
    signature(objects, &wanted, &|_| {})
}

#[track_caller]
fn refused(result: Result<Signed, Error>, says: &[&str]) {
    let error = result.expect_err("it must not count");
    let text = format!("{error} ({})", error.hint());
    for part in says {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

#[test]
fn every_kind_of_ssh_key_signs_commits_and_tags() {
    let bench = Bench::new();
    let kinds: [(&str, &[&str]); 6] = [
        ("ed25519", &["-t", "ed25519"]),
        ("p256", &["-t", "ecdsa", "-b", "256"]),
        ("p384", &["-t", "ecdsa", "-b", "384"]),
        ("p521", &["-t", "ecdsa", "-b", "521"]),
        ("rsa2048", &["-t", "rsa", "-b", "2048"]),
        ("rsa3072", &["-t", "rsa", "-b", "3072"]),
    ];
    let keys = kinds.map(|(name, options)| bench.odd_key(name, options));
    let lines: Vec<_> =
        (0..).zip(&keys).map(|(n, key)| format!("user{n}@example.com {}\n", key.1)).collect();
    let signers = bench.file("signers", lines.concat());
    for (n, (file, _)) in keys.iter().enumerate() {
        let signer = Signer::ssh_file(file);
        let commit = signer.sign(&bench.upstream, &bench.plain);
        let tag = signer.tag(&bench.upstream, &format!("v{n}"), &bench.plain);
        for id in [&commit, &tag] {
            let signed = bench.check(&[id], &signers, None).expect("it counts");
            assert_eq!(signed.key.owner, Some(format!("user{n}@example.com")));
            assert!(signed.key.fingerprint.contains("SHA256:"), "{signed}");
            assert!(signed.object.ends_with(id.as_str()), "{signed}");
        }
        // Of a tag and its commit one is enough, whichever it is.
        bench.check(&[&tag, &bench.plain], &signers, None).expect("the tag counts");
        let bare = bench.upstream.annotated_tag("bare", &commit);
        bench.check(&[&bare, &commit], &signers, None).expect("the commit counts");
    }
    refused(bench.check(&[&bench.plain], &signers, None), &["is not signed", "signers"]);
}

#[test]
fn a_weak_rsa_key_does_not_count() {
    let bench = Bench::new();
    let (file, public) = bench.odd_key("weak", &["-t", "rsa", "-b", "1024"]);
    let signers = bench.file("signers", format!("ada@example.com {public}\n"));
    let commit = Signer::ssh_file(&file).sign(&bench.upstream, &bench.plain);
    refused(bench.check(&[&commit], &signers, None), &["no key whose signature could count"]);
}

#[test]
fn an_ssh_signature_that_is_wrong_is_refused_for_what_is_wrong() {
    let bench = Bench::new();
    let key = bench.key("ada", KeyKind::Ed25519);
    let other = bench.key("eve", KeyKind::Ed25519);
    let signers = bench.file("signers", format!("ada@example.com {}\n", key.public));
    let good = Signer::ssh(&key).sign(&bench.upstream, &bench.plain);
    bench.check(&[&good], &signers, None).expect("it counts");

    let strange = Signer::ssh(&other).sign(&bench.upstream, &bench.plain);
    let result = bench.check(&[&strange], &signers, None);
    refused(result, &[&other.fingerprint, "does not list", "signers"]);

    // The same signature on another message, with the id that this has.
    let object = bench.object(&good);
    let text = String::from_utf8(object.content.clone()).expect("text");
    let tampered = Object { content: text.replace("\n\nSigned", "\n\nTampered").into(), ..object };
    assert_ne!(tampered.content, bench.object(&good).content);
    let result = check(std::slice::from_ref(&tampered), &signers, None);
    refused(result, &["does not hold", "not one of this content", &key.fingerprint]);

    // A signature by the right key for something else than git.
    let payload = bench.object(&bench.plain).content;
    let message = bench.file("message", &payload);
    let mut sign = isolated("ssh-keygen");
    sign.args(["-Y", "sign", "-n", "file", "-f"]).arg(&key.file).arg(&message);
    assert!(sign.output().expect("ssh-keygen is installed").status.success());
    let signature = std::fs::read_to_string(bench.path().join("message.sig")).expect("it");
    let header = format!("\ngpgsig {}\n\n", signature.trim_end().replace('\n', "\n "));
    let text = String::from_utf8(payload).expect("text").replacen("\n\n", &header, 1);
    let elsewhere = Object { content: text.into(), ..bench.object(&bench.plain) };
    refused(check(&[elsewhere], &signers, None), &["made for `file`, not for git"]);

    let revoked = bench.file("revoked", format!("{}\n", key.fingerprint));
    refused(bench.check(&[&good], &signers, Some(&revoked)), &["ada@example.com", "revokes"]);
    let revoked = bench.file("revoked", format!("{} gone\n", key.public));
    refused(bench.check(&[&good], &signers, Some(&revoked)), &["revokes"]);
    bench.file("revoked", format!("{}\n", other.fingerprint));
    bench.check(&[&good], &signers, Some(&revoked)).expect("another key is revoked");

    for (options, why) in [
        ("namespaces=\"file\"", "`file` only"),
        ("valid-before=\"20231101Z\"", "expired at 2023-11-01"),
        ("valid-after=\"20240101Z\"", "valid from 2024-01-01"),
        ("cert-authority", "no line of it is understood"),
    ] {
        bench.file("signers", format!("ada@example.com {options} {}\n", key.public));
        refused(bench.check(&[&good], &signers, None), &[why]);
    }
    let options = "namespaces=\"git,file\",valid-after=\"20231101Z\",valid-before=\"20231201Z\"";
    bench.file("signers", format!("ada@example.com {options} {}\n", key.public));
    bench.check(&[&good], &signers, None).expect("made while the key was valid");
    bench.file("signers", "");
    refused(bench.check(&[&good], &signers, None), &["it is empty"]);
    std::fs::remove_file(&signers).expect("it is there");
    refused(bench.check(&[&good], &signers, None), &["cannot read", "signers"]);
}

#[test]
fn every_kind_of_gpg_key_signs_commits_and_tags() {
    let bench = Bench::new();
    let gpg = Gpg::new(bench.path());
    for (n, kind) in ["rsa2048", "rsa3072", "ed25519", "nistp256", "nistp384"].iter().enumerate() {
        let user = format!("user{n}@example.com");
        let key = gpg.key(&user, kind, "cert,sign", "never", "");
        let signers = bench.file(kind, gpg.export(&[&user]));
        let signer = gpg.signer(&key, "");
        let commit = signer.sign(&bench.upstream, &bench.plain);
        let tag = signer.tag(&bench.upstream, &format!("v{n}"), &bench.plain);
        for id in [&commit, &tag] {
            let signed = bench.check(&[id], &signers, None).expect("it counts");
            assert_eq!(signed.key.owner.as_deref(), Some(user.as_str()), "{kind}");
            assert_eq!(signed.key.fingerprint, format!("OpenPGP {key}"));
        }
        // Binary too.
        let binary = bench.file("binary", gpg.run(&["--export", &user]));
        bench.check(&[&commit], &binary, None).expect("it counts");
        // All keys in one file, in one block or in several.
        let all = bench.file("all", gpg.export(&[]));
        bench.check(&[&commit], &all, None).expect("it counts");
        let blocks = gpg.export(&["user0@example.com"]) + &gpg.export(&[&user]);
        let blocks = bench.file("blocks", blocks);
        bench.check(&[&commit], &blocks, None).expect("it counts");
    }
}

#[test]
fn a_subkey_signs_if_it_is_meant_to() {
    let bench = Bench::new();
    let gpg = Gpg::new(bench.path());
    let key = gpg.key("ada@example.com", "ed25519", "cert", "never", "");
    gpg.run(&["--quick-add-key", &key, "ed25519", "sign", "never"]);
    gpg.run(&["--quick-add-key", &key, "cv25519", "encr", "never"]);
    let fingerprints = gpg.fingerprints("ada@example.com");
    let signers = bench.file("signers", gpg.export(&[]));
    let commit = gpg.signer(&key, "").sign(&bench.upstream, &bench.plain);
    let signed = bench.check(&[&commit], &signers, None).expect("it counts");
    assert_eq!(signed.key.fingerprint, format!("OpenPGP {}", fingerprints[1]));

    let revoked = bench.file("revoked", format!("{key}\n"));
    refused(bench.check(&[&commit], &signers, Some(&revoked)), &["ada@example.com", "revokes"]);

    // A file with the other subkey only: this one is not listed.
    let without = gpg.run(&["--export", &format!("{}!", fingerprints[2])]);
    let signers = bench.file("without", without);
    refused(bench.check(&[&commit], &signers, None), &[&fingerprints[1], "does not list"]);
}

#[test]
fn a_gpg_key_that_is_expired_or_revoked_does_not_count() {
    let bench = Bench::new();
    let gpg = Gpg::new(bench.path());
    let key = gpg.key("old@example.com", "ed25519", "cert,sign", "30d", "20240101T000000");
    let signers = bench.file("signers", gpg.export(&[]));
    let in_time = gpg.signer(&key, "20240110T000000").sign(&bench.upstream, &bench.plain);
    bench.check(&[&in_time], &signers, None).expect("made while the key lived");

    // gpg itself refuses to sign with an expired key; one whose life was shortened later has
    // signed in good faith, and counts no more.
    gpg.run(&["--faked-system-time=20240112T000000", "--quick-set-expire", &key, "1d"]);
    let late = bench.file("late", gpg.export(&[]));
    let second = gpg.signer(&key, "20240112T120000").sign(&bench.upstream, &bench.plain);
    bench.check(&[&second], &late, None).expect("made while the key lived");
    let third = {
        gpg.run(&["--faked-system-time=20240112T130000", "--quick-set-expire", &key, "100d"]);
        gpg.signer(&key, "20240301T000000").sign(&bench.upstream, &bench.plain)
    };
    let why = ["old@example.com", "that key expired at 2024-01-13", "2024-03-01"];
    refused(bench.check(&[&third], &late, None), &why);
    let extended = bench.file("extended", gpg.export(&[]));
    bench.check(&[&third], &extended, None).expect("its life was extended");

    let key = gpg.key("bad@example.com", "ed25519", "cert,sign", "never", "");
    let commit = gpg.signer(&key, "").sign(&bench.upstream, &bench.plain);
    let signers = bench.file("signers", gpg.export(&["bad@example.com"]));
    bench.check(&[&commit], &signers, None).expect("not revoked yet");
    let certificate = bench.path().join("gnupg/openpgp-revocs.d").join(format!("{key}.rev"));
    let text = std::fs::read_to_string(certificate).expect("made with the key");
    let file = bench.file("revocation", text.replace(":-----BEGIN", "-----BEGIN"));
    gpg.run(&["--import", file.to_str().expect("text")]);
    let signers = bench.file("signers", gpg.export(&["bad@example.com"]));
    refused(bench.check(&[&commit], &signers, None), &["bad@example.com", "revoked since 20"]);
}

#[test]
fn a_gpg_signature_that_is_wrong_is_refused_for_what_is_wrong() {
    let bench = Bench::new();
    let gpg = Gpg::new(bench.path());
    let key = gpg.key("ada@example.com", "ed25519", "cert,sign", "never", "");
    let other = gpg.key("eve@example.com", "ed25519", "cert,sign", "never", "");
    let signers = bench.file("signers", gpg.export(&["ada@example.com"]));
    let good = gpg.signer(&key, "").sign(&bench.upstream, &bench.plain);
    bench.check(&[&good], &signers, None).expect("it counts");
    let strange = gpg.signer(&other, "").sign(&bench.upstream, &bench.plain);
    refused(bench.check(&[&strange], &signers, None), &[&other, "does not list"]);
    let object = bench.object(&good);
    let text = String::from_utf8(object.content.clone()).expect("text");
    let tampered = Object { content: text.replace("\n\nSigned", "\n\nTampered").into(), ..object };
    refused(check(&[tampered], &signers, None), &["does not hold", &key]);
    let secret = bench.file("secret", gpg.run(&["--armor", "--export-secret-keys", &key]));
    refused(bench.check(&[&good], &secret, None), &["no public key block"]);
    // A key of the other kind is just not listed.
    let ssh = bench.key("ada", KeyKind::Ed25519);
    let by_ssh = Signer::ssh(&ssh).sign(&bench.upstream, &bench.plain);
    refused(bench.check(&[&by_ssh], &signers, None), &[&ssh.fingerprint, "does not list"]);
}

/// Whatever bytes come, the answer is a refusal: no panic, and nothing that counts.
#[test]
fn mutated_objects_and_key_files_are_refused() {
    let bench = Bench::new();
    let gpg = Gpg::new(bench.path());
    let key = gpg.key("ada@example.com", "nistp256", "cert,sign", "never", "");
    let ssh = bench.key("ada", KeyKind::Ecdsa);
    let pgp_file = bench.file("pgp", gpg.run(&["--export", &key]));
    let ssh_file = bench.file("ssh", format!("ada@example.com {}\n", ssh.public));
    // xorshift: the same bytes in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).expect("it is smaller")
    };
    for (signer, file) in [(gpg.signer(&key, ""), &pgp_file), (Signer::ssh(&ssh), &ssh_file)] {
        let commit = bench.object(&signer.sign(&bench.upstream, &bench.plain));
        let tag = bench.object(&signer.tag(&bench.upstream, "v1", &bench.plain));
        for object in [commit, tag] {
            let text = String::from_utf8_lossy(&object.content).into_owned();
            let begin = text.find("-----BEGIN").expect("a signature");
            let end = text.find("-----END").expect("its end");
            let try_it = |content: Vec<u8>| {
                content != object.content
                    && check(&[Object { content, ..object.clone() }], file, None).is_ok()
            };
            let mut counted = Vec::new();
            for _ in 0..400 {
                let mut content = object.content.clone();
                let at = begin + random(end - begin);
                match random(3) {
                    0 => content[at] = u8::try_from(random(256)).expect("a byte"),
                    1 => drop(content.remove(at)),
                    _ => content.truncate(random(end)),
                }
                let found = String::from_utf8_lossy(&content).into_owned();
                if try_it(content) {
                    counted.push(found);
                }
            }
            // What says nothing may change: white space, a line that armor does not need.
            let bare = |text: &str| text.split_whitespace().collect::<String>();
            for found in &counted {
                assert!(bare(found).len() + 2 > bare(&text).len(), "{found}");
            }
            assert!(counted.len() < 100, "{} of 400 changed signatures count", counted.len());
            // What was signed may not.
            for _ in 0..400 {
                let mut content = object.content.clone();
                content[random(begin)] ^= 1 << random(8);
                assert!(!try_it(content), "a changed content counts");
            }
        }
    }
    let commit = bench.object(&gpg.signer(&key, "").sign(&bench.upstream, &bench.plain));
    for file in [&pgp_file, &ssh_file] {
        let good = std::fs::read(file).expect("the file");
        for _ in 0..400 {
            let mut content = good.clone();
            match random(3) {
                0 => content[random(good.len())] = u8::try_from(random(256)).expect("a byte"),
                1 => drop(content.remove(random(good.len()))),
                _ => content.truncate(random(good.len())),
            }
            let mutated = bench.file("mutated", content);
            drop(check(std::slice::from_ref(&commit), &mutated, None));
        }
    }
}
