//! `init`: a manifest repository to start from, which `check` accepts and CodeDeploy can
//! deploy as it is.

use std::io::{self, Write};
use std::path::Path;

use fs_err::os::unix::fs::OpenOptionsExt;

use crate::cli::InitArgs;
use crate::deploy::{Answer, Refusal};
use crate::error::{ExitCode, Failure};

/// Path, mode and content of what is written.
const FILES: [(&str, u32, &str); 4] = [
    ("appspec.yml", 0o644, include_str!("appspec.yml")),
    ("multideployer.yaml", 0o644, include_str!("multideployer.yaml")),
    ("scripts/after_install.sh", 0o755, include_str!("after_install.sh")),
    ("README.md", 0o644, include_str!("README.md")),
];

/// `init`: writes the files, unless one of them is there.
pub fn init(args: &InitArgs) -> Result<Answer, Refusal> {
    let directory = &args.directory;
    let there = FILES.iter().find(|(name, ..)| directory.join(name).symlink_metadata().is_ok());
    if let Some((name, ..)) = there {
        return Err(Failure::new(
            ExitCode::Configuration,
            format!("`{}` is there already; nothing was written", directory.join(name).display()),
        )
        .hint("name a directory that has none of the files, such as a new one")
        .into());
    }
    let mut stdout = String::new();
    for (name, mode, content) in FILES {
        let path = directory.join(name);
        write(&path, mode, content).map_err(|error| {
            Failure::from_error(ExitCode::Unfit, &error)
                .context(format!("cannot write `{}`", path.display()))
        })?;
        stdout += &format!("{}\n", path.display());
    }
    Ok(Answer { stdout, code: ExitCode::Ok })
}

fn write(path: &Path, mode: u32, content: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs_err::create_dir_all(directory)?;
    }
    let mut options = fs_err::OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    options.open(path)?.write_all(content.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_is_a_good_one() {
        let [_, (name, _, text), ..] = FILES;
        let defaults = crate::manifest::Defaults::new(Path::new("/etc/multideployer"));
        let manifest = crate::manifest::parse(text.as_bytes(), Path::new(name), &defaults).unwrap();
        assert!(manifest.warnings.is_empty(), "{:?}", manifest.warnings);
        assert!(manifest.apps.iter().all(|app| !app.enabled), "it must deploy nothing yet");
    }
}
