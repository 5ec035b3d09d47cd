//! Programs that are installed here.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

/// Where servers are that only root's PATH names.
const SERVERS_FOLDER: &str = "/usr/sbin";

/// The program of this name in PATH.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut folders = std::env::split_paths(&path).chain([PathBuf::from(SERVERS_FOLDER)]);
    folders.find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file()))
}

/// The first line that a program prints about itself, wherever it prints it.
pub(crate) fn version_of(command: &mut Command) -> anyhow::Result<String> {
    let said = command.output().with_context(|| format!("run {}", command.get_program().display()))?;
    let text = [said.stdout, said.stderr].concat();
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned())
}
