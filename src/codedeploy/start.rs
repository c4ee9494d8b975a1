//! Starts a codedeploy-local in a process that knows its own id before the tool does.
//!
//! This program starts itself, does what only that process can, and then becomes the tool:
//!
//! - It enters itself where the next run looks, should this one be killed ([`announce`]). An
//!   entry by the run itself would come too late for a kill right after the start.
//! - 2.x names a deployment `local-<pid>` and copies the bundle into that folder without
//!   emptying it. Process ids repeat (after a reboot, in a container always), so files of an
//!   old revision would be deployed again with the new one: so the folder is cleared.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::engine;
use crate::error::Failure;
use crate::ledger::lock::announce;
use crate::process;

/// The hidden command that does it.
pub const COMMAND: &str = "internal-start-deploy-local";
/// Exit code: the folder belongs to the last successful deployment and must stay. Started
/// again, the process has another id.
pub const ID_TAKEN: u8 = 75;
/// Exit code: the tool was not started.
const FAILED: u8 = 71;
/// Stands for the built-in tool, which this program need not become.
pub const BUILTIN: &str = "builtin";

/// `STATE RUN APP ROOT GROUP PROGRAM [ARGUMENT ...]`; `ROOT` is empty but for 2.x.
pub fn main(args: &[OsString]) -> ExitCode {
    let [state, run, app, root, group, program, rest @ ..] = args else {
        return ExitCode::from(FAILED);
    };
    let id = format!("local-{}", std::process::id());
    if !root.is_empty() {
        match clear(Path::new(root), Path::new(group), &id) {
            Ok(true) => {}
            Ok(false) => return ExitCode::from(ID_TAKEN),
            Err(error) => return failed(program, &error.to_string()),
        }
    }
    match announce(Path::new(state), &run.to_string_lossy(), &app.to_string_lossy()) {
        Ok(true) => {}
        Ok(false) => return failed(program, "the run that it belongs to has ended"),
        Err(error) => return failed(program, &Failure::from(error).line()),
    }
    if program == BUILTIN {
        return engine::main(rest);
    }
    let error = process::replace(Path::new(program), rest, &[]);
    failed(program, &error.to_string())
}

fn failed(program: &OsStr, why: &str) -> ExitCode {
    // The parent relays what this process prints, if it is still there.
    let program = Path::new(program).display();
    let _ = writeln!(io::stderr(), "cannot start `{program}`: {why}");
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
