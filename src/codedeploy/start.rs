//! Starts the agent's 2.x tool in a process whose id cannot do harm.
//!
//! 2.x names a deployment `local-<pid>` and copies the bundle into that folder without
//! emptying it. Process ids repeat (after a reboot, in a container always), so files of an old
//! revision would be deployed again with the new one. Only the process itself knows its id
//! before the tool does: so this program starts itself, clears the folder, and then becomes
//! the tool.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// The hidden command that does it.
pub const COMMAND: &str = "internal-start-deploy-local";
/// Exit code: the folder belongs to the last successful deployment and must stay. Started
/// again, the process has another id.
pub const ID_TAKEN: u8 = 75;
/// Exit code: the folder cannot be cleared, or the tool not be started.
const FAILED: u8 = 71;

/// `ROOT GROUP PROGRAM [ARGUMENT ...]`.
pub fn main(args: &[OsString]) -> ExitCode {
    let [root, group, program, rest @ ..] = args else {
        return ExitCode::from(FAILED);
    };
    let id = format!("local-{}", std::process::id());
    let error = match clear(Path::new(root), Path::new(group), &id) {
        Ok(true) => crate::process::replace(Path::new(program), rest, &[]),
        Ok(false) => return ExitCode::from(ID_TAKEN),
        Err(error) => error,
    };
    #[expect(clippy::print_stderr, reason = "the parent relays what this process prints")]
    {
        eprintln!("cannot start `{}`: {error}", Path::new(program).display());
    }
    ExitCode::from(FAILED)
}

/// Removes the folder of an older deployment with this id. False if it has to stay.
fn clear(root: &Path, group: &Path, id: &str) -> io::Result<bool> {
    let folder = root.join(group).join(id);
    if !folder.exists() {
        return Ok(true);
    }
    let mut record = group.as_os_str().to_owned();
    record.push("_last_successful_install");
    let last = fs_err::read_to_string(root.join("deployment-instructions").join(record));
    if last.is_ok_and(|last| Path::new(last.trim()) == folder) {
        return Ok(false);
    }
    fs_err::remove_dir_all(&folder)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_folder_goes_unless_it_is_the_last_successful_one() {
        let root = tempfile::tempdir().unwrap();
        let group = Path::new("api-group");
        let folder = root.path().join("api-group/local-7");
        assert!(clear(root.path(), group, "local-7").unwrap());
        fs_err::create_dir_all(folder.join("deployment-archive")).unwrap();
        let instructions = root.path().join("deployment-instructions");
        fs_err::create_dir_all(&instructions).unwrap();
        let record = instructions.join("api-group_last_successful_install");
        fs_err::write(&record, folder.to_str().unwrap()).unwrap();
        assert!(!clear(root.path(), group, "local-7").unwrap());
        assert!(folder.exists());
        fs_err::write(&record, "/elsewhere").unwrap();
        assert!(clear(root.path(), group, "local-7").unwrap());
        assert!(!folder.exists());
    }
}
