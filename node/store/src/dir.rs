//! The data directory: its lock, its format file, its quarantine.
//!
//! Always true:
//! - One process at a time uses a directory.
//! - The format file is replaced whole; a directory without a readable one holds nothing that is believed.
//! - One quarantined store is kept, the newest.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh3::xxh3_128;

use crate::faults::{Faults, Step};

/// The version of everything below the data directory. Another version's directory is quarantined.
const FORMAT_VERSION: u32 = 2;
const FORMAT_FILE: &str = "format";
const QUARANTINE: &str = "quarantine";

/// A random number that ties segments, index and purge log of one store together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreId(pub(crate) [u8; 16]);

impl StoreId {
    pub(crate) fn random() -> Self {
        let mut bytes = [0; 16];
        let read = File::open("/dev/urandom").and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes));
        if read.is_err() {
            // Uniqueness is all that is asked of it: time and process will do.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            bytes = xxh3_128(format!("{:?} {}", now, std::process::id()).as_bytes()).to_le_bytes();
        }
        Self(bytes)
    }

    fn hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

/// Why a store cannot be opened at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made or written.
    #[error("data directory {dir}")]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("data directory {dir} is in use by another process")]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The system refuses a thread.
    #[error("a thread of the store cannot be started")]
    Thread(#[source] io::Error),
}

pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// How long a lock is waited for: that of a process that has just ended may live on for the moment between the fork and the exec
/// of its last child.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Makes the directory and takes its lock, which ends with the returned file. None: the directory cannot be written now, and
/// has no lock to take. Blocks.
pub(crate) fn lock(dir: &Path) -> Result<Option<File>, OpenError> {
    let failed = |source| OpenError::Directory { dir: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let path = dir.join("lock");
    let writable = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    // A lock needs no right to write: a read-only or full file system must not keep a node from starting.
    let file = match writable.or_else(|error| File::open(&path).map_err(|_| error)) {
        Ok(file) => file,
        Err(error) if is_unwritable(&error) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
}

/// Errors of a disk that may take writes again later.
fn is_unwritable(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), ReadOnlyFilesystem | StorageFull | QuotaExceeded)
}

/// What the format file says.
pub(crate) enum Format {
    Known(StoreId),
    /// There is none: a new directory.
    Missing,
    /// Unreadable, or another version's.
    Foreign(String),
}

pub(crate) fn read_format(dir: &Path) -> Format {
    let text = match std::fs::read_to_string(dir.join(FORMAT_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Format::Missing,
        Err(error) => return Format::Foreign(error.to_string()),
    };
    let mut words = text.split_ascii_whitespace();
    let (Some("brim-store"), Some(version), Some(id), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Format::Foreign("the format file is damaged".into());
    };
    match (version.parse::<u32>(), StoreId::from_hex(id)) {
        (Ok(FORMAT_VERSION), Some(id)) => Format::Known(id),
        (Ok(version), _) => Format::Foreign(format!("format version {version}")),
        (Err(_), _) => Format::Foreign("the format file is damaged".into()),
    }
}

pub(crate) fn write_format(dir: &Path, store: StoreId, faults: &Faults) -> io::Result<()> {
    faults.at(Step::Format)?;
    let unfinished = dir.join("format.new");
    let mut file = File::create(&unfinished)?;
    writeln!(file, "brim-store {FORMAT_VERSION} {}", store.hex())?;
    file.sync_all()?;
    std::fs::rename(&unfinished, dir.join(FORMAT_FILE))?;
    sync_dir(dir)
}

/// Moves what a store consists of aside; older quarantined stores are removed. A missing part is no error.
pub(crate) fn quarantine(dir: &Path, parts: &[&str], faults: &Faults) -> io::Result<PathBuf> {
    faults.at(Step::Quarantine)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let all = dir.join(QUARANTINE);
    let aside = all.join(format!("{:020}", now.as_nanos()));
    std::fs::create_dir_all(&aside)?;
    for part in parts {
        faults.at(Step::Quarantine)?;
        match std::fs::rename(dir.join(part), aside.join(part)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    for other in std::fs::read_dir(&all)?.flatten() {
        if other.path() != aside {
            let _ = std::fs::remove_dir_all(other.path());
        }
    }
    sync_dir(dir)?;
    Ok(aside)
}

/// Bytes of the files below `dir`.
pub(crate) fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
