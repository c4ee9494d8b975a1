//! The files that the agent's tool leaves behind, under its names, so that either tool can go
//! on where the other one was.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;

/// Names of what belongs to a deployment group.
#[derive(Debug, Clone)]
pub(super) struct State {
    root: PathBuf,
    group: String,
}

impl State {
    pub(super) fn new(root: &Path, group: &str) -> Self {
        Self { root: root.to_owned(), group: group.to_owned() }
    }

    /// The group's folder, with all its deployments.
    pub(super) fn group_folder(&self) -> PathBuf {
        PathBuf::from(format!("{}/{}", self.root_text(), self.group))
    }

    /// The folder of one deployment. Its text is what is printed.
    pub(super) fn deployment_folder(&self, id: &str) -> PathBuf {
        PathBuf::from(format!("{}/{}/{id}", self.root_text(), self.group))
    }

    fn root_text(&self) -> String {
        self.root.to_string_lossy().trim_end_matches('/').to_owned()
    }

    /// The folder with the records of all groups.
    pub(super) fn instructions(&self) -> PathBuf {
        self.root.join("deployment-instructions")
    }

    /// The folder with the log of all deployments.
    pub(super) fn deployment_logs(&self) -> PathBuf {
        self.root.join("deployment-logs")
    }

    fn record(&self, what: &str) -> PathBuf {
        self.instructions().join(format!("{}_{what}", self.group))
    }

    /// The file that names the folder of the last revision whose bundle arrived.
    pub(super) fn most_recent_file(&self) -> PathBuf {
        self.record("most_recent_install")
    }

    /// The file that names the folder of the last revision whose files were installed.
    pub(super) fn last_successful_file(&self) -> PathBuf {
        self.record("last_successful_install")
    }

    /// The folder of the last revision whose files were installed.
    ///
    /// # Errors
    /// The record is there but cannot be read.
    pub(super) fn last_successful(&self) -> io::Result<Option<PathBuf>> {
        match fs::read_to_string(self.last_successful_file()) {
            Ok(text) => Ok(Some(PathBuf::from(text.trim_end_matches('\n')))
                .filter(|path| !path.as_os_str().is_empty())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// Writes a file so that at any moment either the old or the new one is there, whole.
pub(super) fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(text))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A new name for a deployment: `d-`, nine of A–Z and 0–9, `-local`.
pub(super) fn new_id() -> io::Result<String> {
    const LETTERS: &[u8; 36] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let mut random = fs::File::open("/dev/urandom")?;
    let mut id = String::from("d-");
    while id.len() < 11 {
        let mut byte = [0; 1];
        random.read_exact(&mut byte)?;
        // 252 is a multiple of 36: every letter is as likely as any other.
        if byte[0] < 252 {
            id.push(char::from(LETTERS[usize::from(byte[0]) % LETTERS.len()]));
        }
    }
    id.push_str("-local");
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_agents_form_and_do_not_repeat() {
        let ids: Vec<String> = (0..50).map(|_| new_id().unwrap()).collect();
        for id in &ids {
            let middle = id.strip_prefix("d-").and_then(|id| id.strip_suffix("-local")).unwrap();
            assert_eq!(middle.len(), 9);
            assert!(middle.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()), "{id}");
        }
        assert!(ids.iter().skip(1).all(|id| *id != ids[0]));
    }

    #[test]
    fn a_record_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path(), "g");
        assert_eq!(state.last_successful().unwrap(), None);
        fs::create_dir(state.instructions()).unwrap();
        write_whole(&state.last_successful_file(), b"/a").unwrap();
        write_whole(&state.last_successful_file(), b"/b").unwrap();
        assert_eq!(state.last_successful().unwrap(), Some(PathBuf::from("/b")));
        assert_eq!(fs::read_dir(state.instructions()).unwrap().count(), 1);
    }
}
