//! Certificates that must not be trusted, each told for what it is.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use multideployer::domain::RepoUrl;
use multideployer::mirror::failure::CertificateFault as Fault;
use multideployer::mirror::{Failure, Remote, Trust};
use openssl::ssl::SslAcceptor;

use crate::support::https::GitHttps;
use crate::support::tls::{Authority, NAME, self_signed};
use crate::support::upstream::Upstream;
use crate::{fetch, mirror_in, remote, text, token};

struct Bed {
    dir: tempfile::TempDir,
    commit: String,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let upstream = Upstream::new(dir.path().join("srv"), "acme/api.git");
        let commit = upstream.commit(&[("a", "1")]);
        fs::write(dir.path().join("ca.pem"), Authority::shared().pem()).expect("the CA");
        Self { dir, commit }
    }

    fn serve(&self, tls: SslAcceptor) -> GitHttps {
        GitHttps::start_with(self.dir.path().join("srv"), Some(tls), 0)
    }

    fn way(&self, server: &GitHttps, plain: bool) -> Remote {
        let url = RepoUrl::Https { authority: server.authority(), path: "acme/api.git".into() };
        let ca_file = Some(self.dir.path().join("ca.pem"));
        let trust = Trust { ca_file, ..Trust::default() };
        Remote { credential: Some(token("s3cret")), trust, plain, ..remote(url) }
    }

    /// Refused at once, in both ways of fetching, before a request is made.
    fn refused(&self, server: &GitHttps, words: &[&str]) -> Fault {
        let mut faults = [false, true].map(|plain| {
            let (mut mirror, path) = mirror_in(self.dir.path());
            let failure = fetch(&mut mirror, &self.commit, &self.way(server, plain));
            drop(mirror);
            fs::remove_dir_all(path).expect("the mirror goes");
            let failure = failure.expect_err("a certificate that is not trusted");
            assert_eq!(server.requests().len(), 0);
            assert_eq!(server.connections(), 1, "not tried again");
            server.forget();
            let shown = text(&failure);
            for word in words.iter().chain([&server.authority().as_str()]) {
                assert!(shown.contains(word), "{word} is not in {shown}");
            }
            let Failure::Certificate(untrusted) = failure else { panic!("{failure}") };
            untrusted.fault
        });
        assert_eq!(faults[0], faults[1]);
        std::mem::replace(&mut faults[0], Fault::SelfSigned)
    }
}

#[test]
fn a_certificate_that_has_expired_says_when_and_what_the_clock_says() {
    let bed = Bed::new();
    let tls = Authority::shared().acceptor_within(&[], &["127.0.0.1"], -4, -2);
    let fault = bed.refused(&bed.serve(tls), &["expired at", "CN=server", "clock"]);
    assert!(matches!(fault, Fault::Expired { .. }), "{fault:?}");
}

#[test]
fn a_certificate_that_is_not_valid_yet_names_the_clock() {
    let bed = Bed::new();
    let tls = Authority::shared().acceptor_within(&[], &["127.0.0.1"], 2, 4);
    let fault = bed.refused(&bed.serve(tls), &["not valid before", "clock says"]);
    assert!(matches!(fault, Fault::NotYetValid { .. }), "{fault:?}");
}

#[test]
fn a_certificate_for_another_name_lists_its_names() {
    let bed = Bed::new();
    let tls = Authority::shared().acceptor_for(&[NAME, "b.example"], &["10.1.2.3"]);
    let fault = bed.refused(&bed.serve(tls), &["git.example.test, b.example, 10.1.2.3"]);
    assert!(matches!(fault, Fault::WrongName { .. }), "{fault:?}");
}

#[test]
fn a_self_signed_certificate_and_an_unknown_issuer_point_to_ca_file() {
    let bed = Bed::new();
    let fault = bed.refused(&bed.serve(self_signed()), &["self-signed", "CN=alone", "`ca_file`"]);
    assert_eq!(fault, Fault::SelfSigned);
    let foreign = Authority::new("some other authority").acceptor();
    let words = ["issued by `CN=some other authority`", "ca.pem` (ca_file)", "intermediate"];
    let fault = bed.refused(&bed.serve(foreign), &words);
    assert_eq!(fault, Fault::UnknownIssuer);
}

#[test]
fn authorities_of_a_host_count_for_that_host_alone_in_the_plain_way_too() {
    let bed = Bed::new();
    let server = bed.serve(Authority::shared().acceptor());
    let (mut mirror, _) = mirror_in(bed.dir.path());
    fetch(&mut mirror, &bed.commit, &bed.way(&server, true)).expect("with its authority");
    let (mut other, _) = mirror_in(&bed.dir.path().join("other"));
    let stranger = Remote { trust: Trust::default(), ..bed.way(&server, true) };
    let failure = fetch(&mut other, &bed.commit, &stranger).expect_err("without it");
    assert!(matches!(failure, Failure::Certificate(_)), "{failure}");
}

#[test]
fn ssl_cert_file_and_ssl_cert_dir_replace_the_systems_authorities() {
    let bed = Bed::new();
    let server = bed.serve(Authority::shared().acceptor());
    let ca = bed.dir.path().join("ca.pem");
    let plain_names = bed.dir.path().join("authorities");
    let hashed = bed.dir.path().join("hashed");
    for dir in [&plain_names, &hashed] {
        fs::create_dir(dir).expect("a directory");
    }
    fs::copy(&ca, plain_names.join("acme.crt")).expect("a copy");
    fs::write(plain_names.join("README"), "not a certificate").expect("a file");
    let mut openssl = crate::support::isolated("openssl");
    let hash = openssl.args(["x509", "-noout", "-subject_hash", "-in"]).arg(&ca).output();
    let hash = String::from_utf8(hash.expect("openssl starts").stdout).expect("text");
    fs::copy(&ca, hashed.join(format!("{}.0", hash.trim()))).expect("a copy");
    let empty = bed.dir.path().join("empty");
    fs::create_dir(&empty).expect("a directory");
    let (file, dir) = (|path: &std::path::Path| Some(path.to_owned()), Some);
    for (n, (ca_bundle, ca_directory, good)) in [
        (file(&ca), None, true),
        (None, dir(plain_names.clone()), true),
        (None, dir(hashed), true),
        (file(&ca), dir(empty.clone()), true),
        (None, dir(empty), false),
    ]
    .into_iter()
    .enumerate()
    {
        let trust = Trust { ca_bundle, ca_directory, ..Trust::default() };
        let way = Remote { trust, ..bed.way(&server, false) };
        let (mut mirror, _) = mirror_in(&bed.dir.path().join(n.to_string()));
        match fetch(&mut mirror, &bed.commit, &way) {
            Ok(_) => assert!(good, "{n}"),
            Err(failure) => assert!(!good && text(&failure).contains("SSL_CERT_DIR"), "{failure}"),
        }
    }
    let trust = Trust { ca_directory: Some("/nonexistent".into()), ..Trust::default() };
    let way = Remote { trust, ..bed.way(&server, false) };
    let (mut mirror, _) = mirror_in(&bed.dir.path().join("none"));
    let failure = fetch(&mut mirror, &bed.commit, &way).expect_err("nothing there");
    assert!(matches!(failure, Failure::File { .. }), "{failure}");
}

#[test]
fn a_port_without_tls_is_named_as_such_and_not_tried_again() {
    let bed = Bed::new();
    let (mut mirror, _) = mirror_in(bed.dir.path());
    let mut ask = |answer: &'static [u8]| {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let authority = listener.local_addr().expect("its address").to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::SeqCst);
                let mut hello = [0; 64];
                drop(stream.read(&mut hello));
                drop(stream.write_all(answer));
            }
        });
        let url = RepoUrl::Https { authority, path: "acme/api.git".into() };
        let failure = fetch(&mut mirror, &bed.commit, &remote(url)).expect_err("no TLS");
        (failure, asked.load(Ordering::SeqCst))
    };
    let (failure, asked) = ask(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    assert!(matches!(failure, Failure::NoTls { .. }), "{failure}");
    assert!(failure.hint().is_some_and(|hint| hint.contains("plain HTTP")), "{failure}");
    assert_eq!(asked, 1);
    // One that hangs up may be about to start.
    let (failure, asked) = ask(b"");
    assert!(matches!(failure, Failure::Broken { .. }), "{failure}");
    assert_eq!(asked, 3);
}
