//! Whom servers' certificates are trusted by: the system's authorities wherever the
//! distribution keeps them, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name instead;
//! a host's own beside them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod, SslVersion};

use super::sessions;
use crate::mirror::{Failure, Trust};
use crate::sync::lock;

/// The contexts made so far: loading the authorities costs some 40 ms, once per set of them.
static CONTEXTS: Mutex<Option<HashMap<Places, SslConnector>>> = Mutex::new(None);

/// `ca_file`, `ca_bundle` and `ca_directory`.
type Places = [Option<PathBuf>; 3];

/// A context that trusts what `trust` says.
///
/// # Errors
/// A `ca_file` (or what a variable names instead of the system's) that cannot be read or
/// holds no certificate.
pub(in crate::mirror) fn context(trust: &Trust) -> Result<SslConnector, Failure> {
    let key = [&trust.ca_file, &trust.ca_bundle, &trust.ca_directory].map(Clone::clone);
    let mut contexts = lock(&CONTEXTS);
    let contexts = contexts.get_or_insert_default();
    if let Some(context) = contexts.get(&key) {
        return Ok(context.clone());
    }
    let mut builder = SslConnector::builder(SslMethod::tls_client())
        .and_then(|mut builder| {
            builder.set_min_proto_version(Some(SslVersion::TLS1_2)).map(|()| builder)
        })
        .map_err(|error| Failure::file("set up TLS with", Path::new("/"), error.into()))?;
    for store in stores(trust) {
        store.load_into(&mut builder)?;
    }
    sessions::kept_by(&mut builder);
    let context = builder.build();
    contexts.insert(key, context.clone());
    Ok(context)
}

/// What `trust` stands for, as messages name it: what it comes from, and its path.
pub(in crate::mirror) fn described(trust: &Trust) -> Vec<(&'static str, PathBuf)> {
    stores(trust).into_iter().map(|store| (store.origin, store.path)).collect()
}

/// A file or a directory with authorities.
struct Store {
    origin: &'static str,
    path: PathBuf,
    is_directory: bool,
}

fn stores(trust: &Trust) -> Vec<Store> {
    let store =
        |origin, path: &PathBuf, is_directory| Store { origin, path: path.clone(), is_directory };
    let mut stores = Vec::new();
    stores.extend(trust.ca_bundle.iter().map(|path| store("SSL_CERT_FILE", path, false)));
    stores.extend(trust.ca_directory.iter().map(|path| store("SSL_CERT_DIR", path, true)));
    if stores.is_empty() {
        // A directory with hashed names is only looked into for the one that is needed; a
        // bundle must be read as a whole. Without either, only a host's own authority can
        // be trusted.
        let found = openssl_probe::probe();
        let hashed = found.cert_dir.filter(|directory| has_hashed_names(directory));
        stores.extend(match (hashed, found.cert_file) {
            (Some(directory), _) => Some(store("system", &directory, true)),
            (None, Some(file)) => Some(store("system", &file, false)),
            (None, None) => None,
        });
    }
    stores.extend(trust.ca_file.iter().map(|path| store("ca_file", path, false)));
    stores
}

impl Store {
    fn load_into(&self, builder: &mut SslConnectorBuilder) -> Result<(), Failure> {
        if !self.is_directory {
            return add_file(builder, &self.path);
        }
        let entries =
            fs_err::read_dir(&self.path).map_err(|error| Failure::file(READ, &self.path, error))?;
        if has_hashed_names(&self.path) {
            return builder
                .load_verify_locations(None, Some(&self.path))
                .map_err(|error| Failure::file(READ, &self.path, error.into()));
        }
        // OpenSSL would find nothing in it.
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| {
            file.extension().is_some_and(|extension| {
                ["pem", "crt", "cer"].iter().any(|known| extension.eq_ignore_ascii_case(known))
            })
        });
        files.sort();
        files.iter().try_for_each(|file| add_file(builder, file))
    }
}

const READ: &str = "read the certificate authorities in";

fn has_hashed_names(directory: &Path) -> bool {
    let hashed = |name: &str| {
        let (hash, number) = name.split_once('.').unwrap_or_default();
        hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()) && number == "0"
    };
    fs_err::read_dir(directory).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(hashed))
    })
}

fn add_file(builder: &mut SslConnectorBuilder, file: &Path) -> Result<(), Failure> {
    fs_err::File::open(file).map_err(|error| Failure::file(READ, file, error))?;
    builder
        .load_verify_locations(Some(file), None)
        .map_err(|error| Failure::file(READ, file, error.into()))
}
