//! Why OpenSSL did not accept a certificate, in words that help.

use std::path::PathBuf;

use openssl::x509::{X509NameRef, X509Ref, X509StoreContextRef};

use crate::mirror::failure::{CertificateFault as Fault, Failure, UntrustedCertificate, harmless};

// OpenSSL's codes, which have no names in its binding.
const NO_ISSUER: [i32; 3] = [2, 20, 21];
const NOT_YET_VALID: i32 = 9;
const EXPIRED: i32 = 10;
const SELF_SIGNED: i32 = 18;
const SELF_SIGNED_IN_CHAIN: i32 = 19;
const WRONG_NAME: [i32; 2] = [62, 64];

/// A certificate that was refused, as far as it could be read.
pub(super) struct Refused {
    fault: Fault,
    subject: String,
    issuer: String,
}

impl Refused {
    /// The one that is being judged.
    pub(super) fn of(judged: &X509StoreContextRef) -> Self {
        let verdict = judged.error();
        let certificate = judged.current_cert();
        let about = |read: fn(&X509Ref) -> String| certificate.map_or_else(String::new, read);
        let fault = match verdict.as_raw() {
            EXPIRED => Fault::Expired { at: about(|c| c.not_after().to_string()) },
            NOT_YET_VALID => Fault::NotYetValid { from: about(|c| c.not_before().to_string()) },
            SELF_SIGNED => Fault::SelfSigned,
            code if code == SELF_SIGNED_IN_CHAIN || NO_ISSUER.contains(&code) => {
                Fault::UnknownIssuer
            }
            code if WRONG_NAME.contains(&code) => {
                Fault::WrongName { names: certificate.map_or_else(Vec::new, names) }
            }
            _ => Fault::Other(verdict.error_string().to_owned()),
        };
        Self {
            fault,
            subject: about(|c| distinguished(c.subject_name())),
            issuer: about(|c| distinguished(c.issuer_name())),
        }
    }

    /// With what else matters.
    pub(super) fn into_failure(
        self,
        host: String,
        authorities: Vec<(&'static str, PathBuf)>,
    ) -> Failure {
        let shown = |(origin, path): (&str, PathBuf)| match origin {
            "system" => format!("`{}`", path.display()),
            origin => format!("`{}` ({origin})", path.display()),
        };
        Failure::Certificate(Box::new(UntrustedCertificate {
            host,
            fault: self.fault,
            subject: self.subject,
            issuer: self.issuer,
            authorities: authorities.into_iter().map(shown).collect(),
        }))
    }
}

/// All names and addresses that a certificate is for.
fn names(certificate: &X509Ref) -> Vec<String> {
    let alternatives = certificate.subject_alt_names();
    let text = |name: &openssl::x509::GeneralNameRef| {
        let address = name.ipaddress().and_then(|bytes| match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).ok().map(|a| std::net::Ipv4Addr::from(a).to_string()),
            _ => <[u8; 16]>::try_from(bytes).ok().map(|a| std::net::Ipv6Addr::from(a).to_string()),
        });
        address.or_else(|| name.dnsname().map(|name| harmless(name.as_bytes())))
    };
    alternatives.iter().flatten().filter_map(text).take(20).collect()
}

/// `O=Acme, CN=git.example.com`.
fn distinguished(name: &X509NameRef) -> String {
    let part = |entry: &openssl::x509::X509NameEntryRef| {
        let key = entry.object().nid().short_name().unwrap_or("?");
        let value = entry.data().to_string();
        format!("{key}={}", value.unwrap_or_default())
    };
    harmless(name.entries().map(part).collect::<Vec<_>>().join(", ").as_bytes())
}
