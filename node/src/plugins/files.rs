//! The registry's files.
//!
//! ```text
//! plugins/registry.json                      versions, and which are active
//! plugins/components/<digest>.wasm           as uploaded
//! plugins/compiled/<fingerprint>/<digest>    made here; may be thrown away at any time
//! ```
//!
//! Always true:
//! - A file appears whole or not at all: written aside, synced, renamed, directory synced.
//! - A component is read back only if it still has its digest; a compiled module only if it still has its checksum,
//!   because it is native code.
//! - All of this blocks: callers are on the blocking pool.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::record::RegistryFile;

const CHECKSUM_BYTES: usize = 32;

/// Where the registry keeps its files.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    compiled: PathBuf,
}

/// What stood in `registry.json`.
pub(super) enum Registry {
    Read(RegistryFile),
    Absent,
    /// It could not be understood and was moved aside.
    Damaged {
        reason: String,
        moved_to: PathBuf,
    },
}

impl Files {
    /// Makes the directories. `fingerprint` names what compiled modules depend on: this binary, this machine.
    pub(super) fn open(dir: &Path, fingerprint: &str) -> io::Result<Files> {
        let files = Files { dir: dir.to_owned(), compiled: dir.join("compiled").join(fingerprint) };
        for path in [&files.dir, &files.dir.join("components"), &files.compiled] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        }
        Ok(files)
    }

    pub(super) fn read_registry(&self) -> io::Result<Registry> {
        let path = self.dir.join("registry.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Registry::Absent),
            Err(error) => return Err(error),
        };
        let reason = match serde_json::from_slice::<RegistryFile>(&bytes) {
            Ok(file) if file.format == RegistryFile::FORMAT => return Ok(Registry::Read(file)),
            Ok(file) => format!("format {} is not known here", file.format),
            Err(error) => error.to_string(),
        };
        let moved_to = self.dir.join(format!("registry.damaged-{}.json", &hex(&Sha256::digest(&bytes))[..8]));
        fs::rename(&path, &moved_to)?;
        Ok(Registry::Damaged { reason, moved_to })
    }

    pub(super) fn write_registry(&self, file: &RegistryFile) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(file).map_err(io::Error::other)?;
        write_atomically(&self.dir.join("registry.json"), &[&text])
    }

    pub(super) fn write_component(&self, digest: &str, component: &[u8]) -> io::Result<()> {
        write_atomically(&self.component_path(digest), &[component])
    }

    /// The component, if it is still what was uploaded.
    pub(super) fn read_component(&self, digest: &str) -> io::Result<Vec<u8>> {
        let component = fs::read(self.component_path(digest))?;
        if hex(&Sha256::digest(&component)) != digest {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the component no longer has its digest"));
        }
        Ok(component)
    }

    pub(super) fn write_compiled(&self, digest: &str, compiled: &[u8]) -> io::Result<()> {
        write_atomically(&self.compiled.join(digest), &[&Sha256::digest(compiled), compiled])
    }

    /// The compiled module, or `None` if it must be made again.
    pub(super) fn read_compiled(&self, digest: &str) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.compiled.join(digest)).ok()?;
        let (checksum, compiled) = bytes.split_at_checked(CHECKSUM_BYTES)?;
        if checksum != Sha256::digest(compiled).as_slice() {
            return None;
        }
        bytes.drain(..CHECKSUM_BYTES);
        Some(bytes)
    }

    /// Removes components and compiled modules that no version names, also those compiled by other binaries.
    pub(super) fn remove_unused(&self, registry: &RegistryFile) {
        let versions = registry.plugins.values().flat_map(|plugin| &plugin.versions);
        let used: HashSet<&str> = versions.map(|version| version.digest.as_str()).collect();
        for directory in [&self.dir.join("components"), &self.compiled] {
            for path in entries(directory) {
                let digest = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
                if !used.contains(digest) || path.extension().is_some_and(|extension| extension == "tmp") {
                    remove(&path, fs::remove_file);
                }
            }
        }
        for path in entries(&self.dir.join("compiled")).filter(|path| *path != self.compiled) {
            remove(&path, fs::remove_dir_all);
        }
    }

    fn component_path(&self, digest: &str) -> PathBuf {
        self.dir.join("components").join(format!("{digest}.wasm"))
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn remove(path: &Path, how: fn(PathBuf) -> io::Result<()>) {
    if let Err(error) = how(path.to_owned()) {
        tracing::warn!(path = %path.display(), %error, "an unused plugin file stays");
    }
}

/// Writes `parts` to `path`, whole or not at all, durable when it returns.
fn write_atomically(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let aside = path.with_added_extension("tmp");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&aside)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    drop(file);
    fs::rename(&aside, path)?;
    let directory = path.parent().ok_or_else(|| io::Error::other("a file has a directory"))?;
    File::open(directory)?.sync_all()
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
