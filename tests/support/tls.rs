//! A certificate authority and what it issues, made once per process.

use std::sync::OnceLock;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};

/// A host name that no resolver knows; certificates are valid for it all the same, and a
/// [`super::proxy::ConnectProxy`] can lead there.
pub const NAME: &str = "git.example.test";

/// How long certificates are good unless a test says otherwise.
const DAYS: i64 = 40;

/// A certificate authority.
pub struct Authority {
    certificate: X509,
    key: PKey<Private>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// The one that the servers of this process use.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Authority> = OnceLock::new();
        SHARED.get_or_init(|| Self::new("multideployer test authority"))
    }

    /// Another one, for what must not be trusted.
    pub fn new(name: &str) -> Self {
        let key = key();
        let subject = subject(name);
        let mut builder = builder(&subject, &subject, &key);
        let constraints = BasicConstraints::new().critical().ca().build().expect("an extension");
        let usage = KeyUsage::new().critical().key_cert_sign().crl_sign().build().expect("usage");
        builder.append_extension(constraints).expect("constraints");
        builder.append_extension(usage).expect("usage");
        let id = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None));
        builder.append_extension(id.expect("an id")).expect("id");
        builder.sign(&key, MessageDigest::sha256()).expect("a signature");
        Self { certificate: builder.build(), key }
    }

    /// Its certificate, as a `ca_file` has it.
    pub fn pem(&self) -> Vec<u8> {
        self.certificate.to_pem().expect("PEM")
    }

    /// A server's side of TLS with a certificate for `localhost`, `127.0.0.1` and
    /// [`NAME`].
    pub fn acceptor(&self) -> SslAcceptor {
        self.acceptor_for(&["localhost", NAME], &["127.0.0.1"])
    }

    /// A server's side of TLS with a certificate for these names and addresses only.
    pub fn acceptor_for(&self, names: &[&str], addresses: &[&str]) -> SslAcceptor {
        self.acceptor_within(names, addresses, -30, DAYS)
    }

    /// A server's side of TLS with a certificate for `localhost`, `127.0.0.1` and [`NAME`]
    /// that expires in so many days, or did.
    pub fn acceptor_with_days(&self, days: i64) -> SslAcceptor {
        self.acceptor_within(&["localhost", NAME], &["127.0.0.1"], -30, days)
    }

    /// A server's side of TLS with a certificate for these names and addresses only, valid
    /// from and to so many days from now.
    pub fn acceptor_within(
        &self,
        names: &[&str],
        addresses: &[&str],
        from: i64,
        days: i64,
    ) -> SslAcceptor {
        let key = key();
        let mut builder = builder(&subject("server"), self.certificate.subject_name(), &key);
        let start = Asn1Time::from_unix(unix_now() + from * 86_400).expect("a time");
        builder.set_not_before(&start).expect("a start");
        let end = Asn1Time::from_unix(unix_now() + days * 86_400 + 3600).expect("a time");
        builder.set_not_after(&end).expect("an end");
        let mut alternatives = SubjectAlternativeName::new();
        for name in names {
            alternatives.dns(name);
        }
        for address in addresses {
            alternatives.ip(address);
        }
        let usage = ExtendedKeyUsage::new().server_auth().build().expect("usage");
        builder.append_extension(usage).expect("usage");
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let alternatives = alternatives.build(&context).expect("names");
        let issuer = AuthorityKeyIdentifier::new().keyid(true).build(&context).expect("an id");
        builder.append_extension(alternatives).expect("names");
        builder.append_extension(issuer).expect("issuer");
        builder.sign(&self.key, MessageDigest::sha256()).expect("a signature");
        let mut acceptor =
            SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).expect("TLS");
        acceptor.set_private_key(&key).expect("the key");
        acceptor.set_certificate(&builder.build()).expect("the certificate");
        acceptor.build()
    }
}

/// A server's side of TLS with a certificate that nobody but itself has issued.
pub fn self_signed() -> SslAcceptor {
    let key = key();
    let name = subject("alone");
    let mut builder = builder(&name, &name, &key);
    let alternatives = SubjectAlternativeName::new()
        .ip("127.0.0.1")
        .build(&builder.x509v3_context(None, None))
        .expect("names");
    builder.append_extension(alternatives).expect("names");
    builder.sign(&key, MessageDigest::sha256()).expect("a signature");
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).expect("TLS");
    acceptor.set_private_key(&key).expect("the key");
    acceptor.set_certificate(&builder.build()).expect("the certificate");
    acceptor.build()
}

fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("the curve");
    PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key")
}

fn subject(name: &str) -> X509Name {
    let mut builder = X509NameBuilder::new().expect("a name");
    builder.append_entry_by_nid(Nid::COMMONNAME, name).expect("a common name");
    builder.build()
}

fn builder(
    subject: &openssl::x509::X509NameRef,
    issuer: &openssl::x509::X509NameRef,
    key: &PKey<Private>,
) -> X509Builder {
    let mut serial = [0; 8];
    openssl::rand::rand_bytes(&mut serial).expect("random bytes");
    serial[0] &= 0x7f;
    let serial = BigNum::from_slice(&serial).expect("a number").to_asn1_integer();
    let before = Asn1Time::from_unix(unix_now() - 30 * 86_400).expect("a time");
    let after = Asn1Time::from_unix(unix_now() + DAYS * 86_400).expect("a time");
    let mut builder = X509::builder().expect("a certificate");
    builder.set_version(2).expect("version 3");
    builder.set_serial_number(&serial.expect("a number")).expect("a serial number");
    builder.set_subject_name(subject).expect("a subject");
    builder.set_issuer_name(issuer).expect("an issuer");
    builder.set_not_before(&before).expect("a start");
    builder.set_not_after(&after).expect("an end");
    builder.set_pubkey(key).expect("a key");
    builder
}

fn unix_now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.expect("a clock after 1970").as_secs()).expect("a date in range")
}
