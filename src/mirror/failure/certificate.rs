//! A server's certificate that is not trusted.

use std::fmt;

/// What is wrong with it, and what it was compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UntrustedCertificate {
    /// Host and port of the server.
    pub host: String,
    /// What is wrong.
    pub fault: CertificateFault,
    /// The subject of the certificate at fault, which may be its issuer's: `O=Acme, CN=git`.
    pub subject: String,
    /// The issuer of that one.
    pub issuer: String,
    /// The files and directories whose authorities are trusted, as messages name them.
    pub authorities: Vec<String>,
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateFault {
    /// Its time is over.
    Expired {
        /// Since when.
        at: String,
    },
    /// Its time is to come, or our clock is wrong.
    NotYetValid {
        /// From when.
        from: String,
    },
    /// It is for other hosts.
    WrongName {
        /// The names and addresses that it is for.
        names: Vec<String>,
    },
    /// It was issued by itself.
    SelfSigned,
    /// Nobody who is trusted here issued it.
    UnknownIssuer,
    /// Something else, in OpenSSL's words.
    Other(String),
}

impl fmt::Display for UntrustedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            CertificateFault::Expired { at } => write!(f, "it expired at {at}")?,
            CertificateFault::NotYetValid { from } => {
                write!(f, "it is not valid before {from}, and this host's clock says {}", now())?;
            }
            CertificateFault::WrongName { names } if names.is_empty() => {
                write!(f, "it names no host at all")?;
            }
            CertificateFault::WrongName { names } => write!(f, "it is for {}", names.join(", "))?,
            CertificateFault::SelfSigned => write!(f, "it is self-signed")?,
            CertificateFault::UnknownIssuer => write!(f, "its issuer is not known here")?,
            CertificateFault::Other(words) => write!(f, "{words}")?,
        }
        write!(f, " (subject `{}`, issued by `{}`)", self.subject, self.issuer)
    }
}

impl UntrustedCertificate {
    /// What to do next.
    pub(super) fn hint(&self) -> String {
        let looked = match self.authorities.as_slice() {
            [] => "no authorities were found on this host".to_owned(),
            places => format!("looked in {}", places.join(", ")),
        };
        match &self.fault {
            CertificateFault::Expired { .. } => {
                format!("renew it on the server; if it is valid still, set this host's clock, which says {}", now())
            }
            CertificateFault::NotYetValid { .. } => {
                "set this host's clock (is a time service running?), or the one of whoever issued it".into()
            }
            CertificateFault::WrongName { .. } => {
                "use one of these names in the source, or have the server's certificate name this one".into()
            }
            CertificateFault::SelfSigned => format!(
                "get the certificate from the server's administrator, and name its file with `ca_file` for this host; {looked}"
            ),
            CertificateFault::UnknownIssuer => format!(
                "if your own authority issued it, name its certificate with `ca_file` for this host; else the server may leave out an intermediate certificate; {looked}"
            ),
            CertificateFault::Other(_) => {
                format!("see to the server's certificate, and to `ca_file` for this host; {looked}")
            }
        }
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%b %-d %H:%M:%S %Y GMT").to_string()
}
