//! Keys over SSH: each kind and format, from each place, and those that are no good.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use multideployer::domain::RepoUrl;
use multideployer::hosts::{Auth, KeyPlace, SecretPlace};
use multideployer::mirror::credentials::{self, Kept, World};
use multideployer::mirror::{Credential, Failure, Remote};
use multideployer::process::Interrupt;

use crate::ssh::{Bed, url};
use crate::support::keys::{KeyPair, Kind};
use crate::support::sshd::{GitSshd, Options};
use crate::{fetch, key, remote, text, token};

/// With spaces, a quote and an umlaut, as people have them.
const PASSPHRASE: &str = "hunter2 'Ö' $x ";

/// What a reference in the manifest becomes, with the warnings.
pub(crate) fn resolve_with(
    auth: &Auth,
    interrupt: &Interrupt,
) -> (Result<Option<Credential>, credentials::Error>, Vec<String>) {
    let warnings = RefCell::new(Vec::new());
    let world = World {
        variable: &|name| (name == "PASSPHRASE").then(|| PASSPHRASE.to_owned()),
        hidden: &[],
        kept: &Kept::default(),
        peers: &Vec::new,
        interrupt,
        remote: &remote(RepoUrl::File("/nowhere".into())),
        warn: &|text| warnings.borrow_mut().push(text),
    };
    let result = credentials::resolve(auth, None, &world);
    (result, warnings.into_inner())
}

fn resolve(auth: &Auth) -> Result<Credential, credentials::Error> {
    Ok(resolve_with(auth, &Interrupt::new()).0?.expect("not anonymous"))
}

/// Why it is refused, with its hint; and no secret in it.
fn refusal(auth: &Auth) -> String {
    let error = resolve(auth).expect_err("a refusal");
    let shown = format!("{error} {error:?} {:?}", error.hint());
    for secret in ["hunter2", "PRIVATE KEY-----\n"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    shown
}

fn in_file(path: impl AsRef<Path>, passphrase: Option<SecretPlace>) -> Auth {
    Auth::SshKey { key: KeyPlace::File(path.as_ref().into()), passphrase }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn secret_file(dir: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
    let file = dir.join(name);
    fs::write(&file, text).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("its mode");
    file
}

/// Each format that a kind of key is found in.
fn formats(dir: &Path, kind: Kind, passphrase: &str) -> Vec<KeyPair> {
    let name = |format: &str| format!("{}_{format}_{}", kind.name(), passphrase.len());
    let openssh = KeyPair::with_passphrase(dir, &name("openssh"), kind, passphrase);
    match kind {
        Kind::Ed25519 => vec![openssh, KeyPair::ed25519_pkcs8(dir, &name("pkcs8"), passphrase)],
        _ => vec![
            openssh,
            KeyPair::pem(dir, &name("pem"), kind, passphrase),
            KeyPair::pkcs8(dir, &name("pkcs8"), kind, passphrase),
        ],
    }
}

/// Row 19.
#[test]
fn ssh_keys_of_every_kind_and_format_with_and_without_passphrase() {
    let mut bed = Bed::new(&Options::default());
    let dir = bed.dir.path().to_owned();
    let open: Vec<_> = Kind::ALL.iter().flat_map(|kind| formats(&dir, *kind, "")).collect();
    let mut locked: Vec<_> =
        Kind::ALL.iter().flat_map(|kind| formats(&dir, *kind, PASSPHRASE)).collect();
    for cipher in ["aes256-gcm@openssh.com", "aes128-cbc", "aes192-ctr"] {
        locked.push(KeyPair::with_cipher(&dir, cipher, PASSPHRASE, cipher));
    }
    let all = [open.clone(), locked.clone()].concat();
    let server = GitSshd::start_with(dir.join("srv"), &all, &Options::default());
    bed.know(&server.known_hosts());
    let file = secret_file(&dir, "passphrase", &format!("{PASSPHRASE}\n"), 0o600);
    let places = [
        SecretPlace::Env("PASSPHRASE".into()),
        SecretPlace::File(file.clone()),
        SecretPlace::Command(words(&["cat", file.to_str().expect("a path")])),
    ];
    let open = open.iter().map(|pair| (pair, None));
    let locked = locked.iter().zip(places.iter().cycle()).map(|(pair, place)| (pair, Some(place)));
    for (number, (pair, place)) in open.chain(locked).enumerate() {
        let name = pair.file.display();
        let credential = resolve(&in_file(&pair.file, place.cloned()))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(format!("{credential:?}").contains(&pair.fingerprint), "{name}: {credential:?}");
        for plain in [false, true] {
            let commit = bed.upstream.commit(&[("a", &format!("{number} {plain}"))]);
            let url = url(&server, "/acme/api.git");
            let credential = Some(credential.clone());
            let remote = Remote { url, credential, plain, ..bed.remote.clone() };
            fetch(&mut bed.mirror, &commit, &remote)
                .unwrap_or_else(|failure| panic!("{name}, plain {plain}: {}", text(&failure)));
        }
    }
    assert_eq!(server.refusals(), 0, "{}", server.log());
}

/// Row 20.
#[test]
fn an_ssh_key_file_that_is_no_good_is_told_exactly_before_any_connection() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    for (auth, expected) in [
        (in_file(dir.join("none"), None), "No such file"),
        (in_file(dir, None), "not a regular file"),
        (in_file(secret_file(dir, "empty", "\n", 0o600), None), "is empty"),
        (in_file(secret_file(dir, "huge", &"x".repeat(70_000), 0o600), None), "64 KiB"),
    ] {
        let shown = refusal(&auth);
        assert!(shown.contains(expected), "{shown}");
    }
    for kind in [Kind::Ed25519, Kind::Rsa, Kind::Ecdsa] {
        for pair in formats(dir, kind, PASSPHRASE) {
            let public = pair.file.with_extension("pub");
            let shown = refusal(&in_file(public, None));
            assert!(shown.contains("is a public key"), "{shown}");
            let shown = refusal(&in_file(&pair.file, None));
            assert!(shown.contains("no passphrase is given"), "{}: {shown}", pair.file.display());
            let wrong = secret_file(dir, "wrong", "hunter3\n", 0o600);
            let shown = refusal(&in_file(&pair.file, Some(SecretPlace::File(wrong))));
            assert!(shown.contains("another passphrase"), "{}: {shown}", pair.file.display());
            // Half of it.
            let whole = fs::read_to_string(&pair.file).expect("the key");
            let half = secret_file(dir, "half", &whole[..whole.len() / 2], 0o600);
            let shown = refusal(&in_file(half, Some(SecretPlace::Env("PASSPHRASE".into()))));
            assert!(shown.contains("is cut off"), "{shown}");
        }
    }
    let rare = "chacha20-poly1305@openssh.com";
    let pair = KeyPair::with_cipher(dir, "rare", PASSPHRASE, rare);
    let shown = refusal(&in_file(&pair.file, Some(SecretPlace::Env("PASSPHRASE".into()))));
    assert!(shown.contains(&format!("`{rare}`, which is not supported")), "{shown}");
    let key = KeyPair::with_passphrase(dir, "key", Kind::Ed25519, PASSPHRASE).file;
    for (place, expected) in [
        (SecretPlace::Env("OTHER".into()), "`OTHER` that should hold the passphrase is not set"),
        (SecretPlace::File(dir.join("none")), "the passphrase file"),
        (SecretPlace::File(secret_file(dir, "p1", "\n", 0o600)), "is empty"),
        (SecretPlace::File(secret_file(dir, "p2", "hunter2\nx\n", 0o600)), "more than one line"),
        (SecretPlace::Command(words(&["sh", "-c", "echo hunter2; exit 4"])), "code 4"),
    ] {
        let shown = refusal(&in_file(&key, Some(place)));
        assert!(shown.contains(expected), "{shown}");
    }
}

/// Row 20: as with tokens, others that can read it are a warning.
#[test]
fn an_ssh_key_or_passphrase_that_others_can_read_is_warned_about() {
    let dir = tempfile::tempdir().expect("a directory");
    let pair = KeyPair::with_passphrase(dir.path(), "key", Kind::Ed25519, PASSPHRASE);
    let passphrase = secret_file(dir.path(), "passphrase", PASSPHRASE, 0o600);
    let auth = in_file(&pair.file, Some(SecretPlace::File(passphrase.clone())));
    let warned = || {
        let (result, warnings) = resolve_with(&auth, &Interrupt::new());
        result.expect("it works all the same");
        warnings
    };
    assert_eq!(warned(), Vec::<String>::new());
    for mode in [0o644, 0o640, 0o604] {
        secret_file(dir.path(), "passphrase", PASSPHRASE, mode);
        fs::set_permissions(&pair.file, fs::Permissions::from_mode(mode)).expect("its mode");
        let warnings = warned();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        for warning in warnings {
            assert!(warning.contains(&format!("{mode:04o}")), "{warning}");
            assert!(warning.contains("chmod 0600"), "{warning}");
        }
    }
}

/// Row 20: for root there is no such file, so this looks through the eyes of another user.
#[test]
fn an_ssh_key_file_of_mode_0000_says_mode_and_owner() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
    let pair = KeyPair::new(dir.path(), "key", Kind::Ed25519);
    fs::set_permissions(&pair.file, fs::Permissions::from_mode(0o000)).expect("its mode");
    let auth = in_file(&pair.file, None);
    let shown = std::thread::spawn(move || {
        // Of this thread alone.
        let nobody = nix::unistd::Uid::from_raw(65534);
        nix::unistd::setfsuid(nobody);
        refusal(&auth)
    })
    .join()
    .expect("a refusal");
    assert!(shown.contains("Permission denied"), "{shown}");
    assert!(shown.contains("0000"), "{shown}");
    assert!(shown.contains("chmod 0600"), "{shown}");
}

/// Row 21.
#[test]
fn an_ssh_key_that_the_server_does_not_want_is_offered_once() {
    for options in [Options::default(), Options::restrictive()] {
        let mut bed = Bed::new(&options);
        let commit = bed.upstream.commit(&[("b", "1")]);
        for (round, plain) in [false, true].into_iter().enumerate() {
            let other = KeyPair::new(bed.dir.path(), &format!("other{round}"), Kind::Ed25519);
            bed.remote.credential = Some(key(&other));
            bed.remote.plain = plain;
            let before = bed.server.connections();
            let failure = bed.failure(&commit);
            assert!(matches!(failure, Failure::KeyDenied { .. }), "{failure}");
            let shown = text(&failure);
            for word in [&other.fingerprint, &GitSshd::user(), "127.0.0.1", "the key `K`"] {
                assert!(shown.contains(word), "no {word:?} in {shown}");
            }
            assert!(shown.contains("deploy key"), "{shown}");
            assert_eq!(bed.server.refusals(), round + 1, "{}", bed.server.log());
            assert_eq!(bed.server.connections(), before + 1);
        }
        bed.remote.credential = Some(key(&bed.key));
        bed.remote.plain = false;
        fetch(&mut bed.mirror, &commit, &bed.remote).expect("with the right one");
    }
}

#[test]
fn what_ssh_has_no_use_for_is_said_without_offering_it() {
    let mut bed = Bed::new(&Options::default());
    let commit = bed.upstream.commit(&[("b", "1")]);
    for plain in [false, true] {
        bed.remote.plain = plain;
        bed.remote.credential = Some(token("s3cret"));
        let failure = bed.failure(&commit);
        assert!(matches!(failure, Failure::CredentialUnusable { .. }), "{failure}");
        bed.remote.credential = None;
        let failure = bed.failure(&commit);
        assert!(matches!(failure, Failure::CredentialMissing { .. }), "{failure}");
    }
}

/// Servers that take RSA keys take them only with SHA-2 now, some of them with one kind only.
#[test]
fn an_rsa_key_signs_with_the_hash_the_server_wants() {
    for (accepted, host, tries) in [
        ("rsa-sha2-512", "rsa-sha2-512", 1),
        ("rsa-sha2-512,rsa-sha2-256", "rsa-sha2-512,rsa-sha2-256", 1),
        // It says that it takes both.
        ("rsa-sha2-256", "rsa-sha2-256", 2),
    ] {
        let mut bed = Bed::new(&Options::default());
        let dir = bed.dir.path().to_owned();
        let pair = KeyPair::pem(&dir, "rsa", Kind::Rsa, "");
        let options = Options {
            host_keys: vec![Kind::Rsa],
            settings: vec![
                format!("PubkeyAcceptedAlgorithms {accepted}"),
                format!("HostKeyAlgorithms {host}"),
                format!("MaxAuthTries {tries}"),
            ],
            ..Options::default()
        };
        let server = GitSshd::start_with(dir.join("srv"), std::slice::from_ref(&pair), &options);
        bed.know(&server.known_hosts());
        bed.remote.url = url(&server, "/acme/api.git");
        bed.remote.credential = Some(key(&pair));
        for plain in [false, true] {
            if plain && tries > 1 {
                // libgit2 tries one hash only.
                continue;
            }
            bed.remote.plain = plain;
            let commit = bed.upstream.commit(&[("a", &plain.to_string())]);
            fetch(&mut bed.mirror, &commit, &bed.remote)
                .unwrap_or_else(|failure| panic!("{accepted}: {}", text(&failure)));
        }
        // An ed25519 key is none of these.
        bed.remote.plain = false;
        bed.remote.credential = Some(key(&bed.key));
        let failure = bed.failure(&"1".repeat(40));
        assert!(matches!(failure, Failure::KeyDenied { .. }), "{accepted}: {}", text(&failure));
    }
}

#[test]
fn a_key_that_a_command_prints_is_never_on_the_disk() {
    let mut bed = Bed::new(&Options::default());
    let commit = bed.upstream.commit(&[("a", "1")]);
    let path = bed.key.file.to_str().expect("a path").to_owned();
    let by = |argv: &[&str]| {
        let key = KeyPlace::Command(words(argv));
        Auth::SshKey { key, passphrase: None }
    };
    // As secrets come out of stores: with carriage returns, indented, on one line.
    let ways = ["cat", "sed 's/$/\\r/'", "sed 's/^/  /'", "tr '\\n' ' '"];
    for (round, way) in ways.into_iter().enumerate() {
        let script = format!("echo noise >&2; {way} < {path}");
        let credential = resolve(&by(&["sh", "-c", &script]));
        bed.remote.credential = Some(credential.unwrap_or_else(|error| panic!("{way}: {error}")));
        let commit = bed.upstream.commit(&[("a", &round.to_string())]);
        fetch(&mut bed.mirror, &commit, &bed.remote).expect("a fetch");
    }
    fetch(&mut bed.mirror, &commit, &bed.remote).expect("a fetch");
    for (argv, expected) in [
        (&["/nonexistent/program"][..], "/nonexistent/program"),
        (&["sh", "-c", "echo hunter2; exit 3"], "code 3"),
        (&["sh", "-c", "echo hunter2"], "not a private key"),
        (&["true"], "is empty"),
        (&["sh", "-c", "kill -9 $$"], "ended by SIGKILL"),
        (&["printf", "\\377"], "not UTF-8"),
    ] {
        let shown = refusal(&by(argv));
        assert!(shown.contains(expected), "{shown}");
    }
}
