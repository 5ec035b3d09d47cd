//! A small file system of its own, to be filled, made read-only, and freed again.
//!
//! Always true: it is unmounted when the [`SmallDisk`] is dropped, also while somebody still has files open in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A mounted tmpfs.
#[derive(Debug)]
pub struct SmallDisk {
    dir: TempDir,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

impl SmallDisk {
    /// A file system of so many MiB. None, said on stderr, where the tests may not mount one.
    #[must_use]
    pub fn of_mib(mib: u64) -> Option<Self> {
        let dir = TempDir::with_prefix("brim-disk-").expect("the folder for temporary files is writable");
        let size = format!("size={mib}m");
        match run("mount", &["-t", "tmpfs", "-o", &size, "brim-test", &dir.path().to_string_lossy()]) {
            Ok(()) => Some(Self { dir }),
            Err(error) => {
                eprintln!("NOT TESTED: a file system of its own needs the right to mount one: {error}");
                None
            }
        }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes all the space that is left.
    pub fn fill(&self) {
        let chunk = vec![0; 64 * 1024];
        let mut file = std::fs::File::create(self.junk()).expect("a file takes no block of its own");
        while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
    }

    /// Gives the space back.
    pub fn free(&self) {
        std::fs::remove_file(self.junk()).expect("filled before");
    }

    fn junk(&self) -> PathBuf {
        self.dir.path().join("junk")
    }

    /// Makes it read-only, or writable again. Nobody may have a file open for writing.
    pub fn set_read_only(&self, is_read_only: bool) {
        let options = if is_read_only { "remount,ro" } else { "remount,rw" };
        run("mount", &["-o", options, &self.dir.path().to_string_lossy()]).expect("mounted by us");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = run("umount", &["--lazy", &self.dir.path().to_string_lossy()]) {
            eprintln!("{}: {error}", self.dir.path().display());
        }
    }
}
