//! sshd as careful administrators and git hosts set it up.

use multideployer::mirror::{Failure, Remote};

use crate::ssh::{Bed, url};
use crate::support::keys::Kind;
use crate::support::sshd::Options;
use crate::{assert_sound, fetch, text};

fn set(host_key: Kind, settings: &[&str]) -> Options {
    let settings = settings.iter().map(|&line| line.to_owned()).collect();
    Options { host_keys: vec![host_key], settings, ..Options::default() }
}

#[test]
fn a_server_that_knows_one_algorithm_only_is_spoken_with() {
    let (ed, rsa) = (Kind::Ed25519, Kind::Rsa);
    for (host_key, settings) in [
        (ed, &["KexAlgorithms curve25519-sha256"][..]),
        (ed, &["KexAlgorithms ecdh-sha2-nistp384"]),
        (ed, &["KexAlgorithms diffie-hellman-group16-sha512"]),
        (ed, &["Ciphers aes256-gcm@openssh.com"]),
        (ed, &["Ciphers chacha20-poly1305@openssh.com"]),
        (ed, &["Ciphers aes128-ctr", "MACs hmac-sha2-256-etm@openssh.com"]),
        (ed, &["Ciphers aes256-ctr", "MACs hmac-sha2-512", "Compression no"]),
        (rsa, &["HostKeyAlgorithms rsa-sha2-256"]),
        (rsa, &["HostKeyAlgorithms rsa-sha2-512"]),
        (Kind::Ecdsa384, &["HostKeyAlgorithms ecdsa-sha2-nistp384"]),
        (ed, &["LoginGraceTime 5", "MaxSessions 1", "MaxStartups 1", "MaxAuthTries 1"]),
        (ed, &["RekeyLimit 16K"]),
    ] {
        let mut bed = Bed::new(&set(host_key, settings));
        let commit = bed.upstream.commit(&[("a", &crate::noise(5000))]);
        fetch(&mut bed.mirror, &commit, &bed.remote)
            .unwrap_or_else(|failure| panic!("{settings:?}: {}", text(&failure)));
        assert_sound(&bed.path);
    }
}

/// Nothing that a shell could be had with: git's own shell, by the server's configuration.
#[test]
fn a_server_with_gits_shell_is_asked_for_nothing_else() {
    let shell = "ForceCommand git-shell -c \"$SSH_ORIGINAL_COMMAND\"";
    let mut bed = Bed::new(&set(Kind::Ed25519, &[shell, "DisableForwarding yes", "PermitTTY no"]));
    // There are no roots below that: the path is the one on its disk.
    let path = bed.dir.path().join("srv/acme/api.git").display().to_string();
    let remote = Remote { url: url(&bed.server, &path), ..bed.remote.clone() };
    for version in ["1", "2"] {
        let commit = bed.upstream.commit(&[("a", version)]);
        fetch(&mut bed.mirror, &commit, &remote)
            .unwrap_or_else(|failure| panic!("{}", text(&failure)));
        assert_sound(&bed.path);
    }
    let none = Remote { url: url(&bed.server, &format!("{path}x")), ..remote };
    let failure = fetch(&mut bed.mirror, &"1".repeat(40), &none).expect_err("no such");
    assert!(matches!(failure, Failure::NotFoundOrForbidden { .. }), "{failure}");
}

#[test]
fn a_server_with_nothing_in_common_is_told_with_what_both_sides_know() {
    for (host_key, setting, theirs, known) in [
        (
            Kind::Ed25519,
            "KexAlgorithms",
            "sntrup761x25519-sha512@openssh.com",
            &["curve25519-sha256", "ecdh-sha2-nistp256"][..],
        ),
        (Kind::Rsa, "HostKeyAlgorithms", "ssh-rsa", &["ssh-ed25519", "rsa-sha2-512"]),
    ] {
        let mut bed = Bed::new(&set(host_key, &[&format!("{setting} {theirs}")]));
        let commit = bed.upstream.commit(&[("a", "1")]);
        let failure = bed.failure(&commit);
        let Failure::NoCommonAlgorithm { mismatch, .. } = &failure else {
            panic!("{setting}: {}", text(&failure))
        };
        assert_eq!(mismatch.theirs, [theirs], "{setting}");
        let hint = failure.hint().expect("a hint");
        assert!(failure.to_string().contains(&format!("only {theirs}")), "{failure}");
        for word in known.iter().chain([&setting]) {
            assert!(hint.contains(word), "{setting}: no {word} in {hint}");
        }
        // Trying again would not help: once, and once more to see what it offers.
        assert_eq!(bed.server.connections(), 2, "{}", bed.server.log());
    }
}
