//! `last_state.yaml`, the whole memory of the Python tool 0.3.1: `{app: {release: text}}`.
//!
//! It is read for apps that have no refs yet, and kept true and complete, so that going back
//! to 0.3.1 works and so that the cache directory may be deleted. `source` is ours; 0.3.1
//! does not look at it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use crate::files;

/// The file's content, in memory; every change is written at once.
#[derive(Debug, Default)]
pub struct LastState {
    path: PathBuf,
    apps: BTreeMap<String, Entry>,
}

/// What is known of one app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The release that is deployed: a full commit id, or what 0.3.1 wrote.
    pub release: String,
    /// Where it came from; absent if 0.3.1 wrote the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl LastState {
    /// Reads the file. Nothing there is nothing known. The second value says why a file
    /// that is there could not be understood: it then counts as empty, because it is only
    /// the second of two records, and is kept beside under another name once it is written.
    ///
    /// # Errors
    /// A file that exists and cannot be read.
    pub fn load(path: &Path) -> Result<(Self, Option<String>), Error> {
        let text = match files::read(path) {
            Ok(text) => String::from_utf8(text).unwrap_or_else(|_| "\0".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        // 0.3.1 leaves an empty file behind when it is killed while writing.
        let parsed: Result<Option<BTreeMap<String, Entry>>, _> = serde_yaml::from_str(&text);
        let (apps, trouble) = match parsed {
            Ok(apps) => (apps.unwrap_or_default(), None),
            Err(error) => {
                let why = format!("`{}` cannot be understood: {error}", path.display());
                (BTreeMap::new(), Some(why))
            }
        };
        Ok((Self { path: path.to_owned(), apps }, trouble))
    }

    /// What is known of an app.
    pub fn get(&self, app: &str) -> Option<&Entry> {
        self.apps.get(app)
    }

    /// All apps, by name.
    pub fn apps(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.apps.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// Removes an app, durably: it is about to be changed.
    pub fn forget(&mut self, app: &str) -> Result<(), Error> {
        if self.apps.remove(app).is_some() { self.write() } else { Ok(()) }
    }

    /// Enters an app, durably.
    pub fn set(&mut self, app: &str, entry: Entry) -> Result<(), Error> {
        if self.apps.get(app) == Some(&entry) {
            return Ok(());
        }
        self.apps.insert(app.to_owned(), entry);
        self.write()
    }

    /// Keeps a file that could not be understood beside, before it is overwritten.
    pub fn set_aside(&self) -> io::Result<PathBuf> {
        let mut aside = self.path.clone().into_os_string();
        aside.push(".damaged");
        fs_err::rename(&self.path, &aside)?;
        Ok(aside.into())
    }

    fn write(&self) -> Result<(), Error> {
        let text = serde_yaml::to_string(&self.apps).map_err(io::Error::other)?;
        Ok(files::replace(&self.path, text.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_0_3_1_wrote_is_read_and_what_is_written_it_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("last_state.yaml");
        fs_err::write(&path, "api: {release: 12345e6}\nweb:\n  release: '0123456'\n").unwrap();
        let (mut state, trouble) = LastState::load(&path).unwrap();
        assert_eq!(trouble, None);
        assert_eq!(state.get("api").unwrap().release, "12345e6");
        assert_eq!(state.get("web").unwrap().release, "0123456");
        state.forget("api").unwrap();
        let source = Some("https://x/y.git".to_owned());
        state.set("web", Entry { release: "7654321".into(), source }).unwrap();
        let text = fs_err::read_to_string(&path).unwrap();
        assert_eq!(text, "web:\n  release: '7654321'\n  source: https://x/y.git\n");
    }

    #[test]
    fn an_empty_file_is_nothing_and_garbage_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("last_state.yaml");
        assert_eq!(LastState::load(&path).unwrap().1, None);
        fs_err::write(&path, "").unwrap();
        assert_eq!(LastState::load(&path).unwrap().1, None);
        for garbage in [&b"- a\n"[..], b"a: [", b"\xff\xfe\x00", b"a: 1"] {
            fs_err::write(&path, garbage).unwrap();
            let (state, trouble) = LastState::load(&path).unwrap();
            assert!(trouble.is_some(), "{garbage:?}");
            assert_eq!(state.apps().count(), 0);
        }
    }
}
