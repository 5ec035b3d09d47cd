//! The index: what a cache key's hash and variant lead to. Behind a trait, so that another engine can replace sled.
//!
//! Always true:
//! - All calls block; they run on the store's own threads.
//! - A call that fails or panics means that this index is dead ([`IndexError`]); nothing in it is promised anyway.
//!
//! Not here: which of several databases is the index (`generation`).

mod generation;

use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use brim_semantics::KeyHash;
use rustix::fs::{FallocateFlags, fallocate};

use crate::faults::{Faults, Step};

pub(crate) use generation::{CURRENT_FILE, Generation, Generations};

/// Key hash, then variant.
pub(crate) type IndexKey = [u8; 24];

pub(crate) fn index_key(key: KeyHash, variant: u64) -> IndexKey {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&key.0);
    bytes[16..].copy_from_slice(&variant.to_be_bytes());
    bytes
}

/// None: not a key of ours.
pub(crate) fn split_index_key(bytes: &[u8]) -> Option<(KeyHash, u64)> {
    let bytes: &IndexKey = bytes.try_into().ok()?;
    let (hash, variant) = bytes.split_at(16);
    Some((KeyHash(hash.try_into().ok()?), u64::from_be_bytes(variant.try_into().ok()?)))
}

/// The engine failed: the store that it belongs to is given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    #[error("index: {0}")]
    Engine(String),
    #[error("index: the engine panicked: {0}")]
    Panicked(String),
    #[error("index: {0}")]
    Io(#[from] io::Error),
    /// Of the engine. What it has on disk is as good as after a crash.
    #[error("index: {0}")]
    NoSpace(String),
    #[error("the index belongs to another store")]
    Foreign,
}

impl IndexError {
    pub(crate) fn is_no_space(&self) -> bool {
        match self {
            Self::NoSpace(_) => true,
            Self::Io(error) => is_no_space(error),
            Self::Engine(_) | Self::Panicked(_) | Self::Foreign => false,
        }
    }
}

/// The file system, or a quota, has no room: what is there is whole, and there may be room again.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Called for each entry of a walk; false ends it.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> bool + 'a;

pub(crate) trait Index: Send + Sync {
    fn get(&self, key: &IndexKey) -> Result<Option<Vec<u8>>, IndexError>;
    fn put(&self, key: &IndexKey, value: &[u8]) -> Result<(), IndexError>;
    fn remove(&self, key: &IndexKey) -> Result<(), IndexError>;
    /// Visits the entries after a key, or all, in the order of their keys.
    fn walk(&self, after: Option<&IndexKey>, visit: &mut Visit<'_>) -> Result<(), IndexError>;
    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, IndexError>;
    fn put_meta(&self, name: &str, value: &[u8]) -> Result<(), IndexError>;
    /// What was put before this call survives the process.
    fn flush(&self) -> Result<(), IndexError>;
    fn size_bytes(&self) -> Result<u64, IndexError>;
}

fn guarded<R>(call: impl FnOnce() -> sled::Result<R>) -> Result<R, IndexError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) if is_no_space(&error) => Err(IndexError::NoSpace(error.to_string())),
        Ok(Err(error)) => Err(IndexError::Engine(error.to_string())),
        Err(panic) => Err(IndexError::Panicked(panic_text(&*panic))),
    }
}

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// How a database is opened.
#[derive(Debug, Clone)]
pub(crate) struct Tuning {
    /// sled's own cache: bytes as on disk, which cost about four times as many in memory.
    pub(crate) cache_bytes: u64,
    /// Space that is reserved behind the end of its file: what it has taken, it can write to a full disk.
    pub(crate) reserve_bytes: u64,
    pub(crate) faults: Faults,
}

/// sled 0.34.7. It dies of a write that finds no space, so some is reserved.
pub(crate) struct SledIndex {
    /// Until it is dropped.
    open: Option<Open>,
    file: PathBuf,
    reserved_to: AtomicU64,
    tuning: Tuning,
}

struct Open {
    db: sled::Db,
    entries: sled::Tree,
    meta: sled::Tree,
}

impl Drop for SledIndex {
    fn drop(&mut self) {
        // sled waits for the disk then, and panics where that fails.
        let open = self.open.take();
        let _ = catch_unwind(AssertUnwindSafe(move || drop(open)));
    }
}

impl SledIndex {
    fn sled(&self) -> &Open {
        self.open.as_ref().expect("it is open until it is dropped")
    }

    pub(crate) fn open(dir: &Path, tuning: Tuning) -> Result<Self, IndexError> {
        let open = guarded(|| {
            let db = sled::Config::new()
                .path(dir)
                .cache_capacity(tuning.cache_bytes)
                .mode(sled::Mode::LowSpace)
                .flush_every_ms(Some(500))
                .open()?;
            let entries = db.open_tree("object")?;
            let meta = db.open_tree("meta")?;
            Ok(Open { db, entries, meta })
        })?;
        Ok(Self { open: Some(open), file: dir.join("db"), reserved_to: AtomicU64::new(0), tuning })
    }

    /// Sees to it that what sled appends next finds its space, as far as the file system can do that.
    fn reserve(&self) {
        let reserve = self.tuning.reserve_bytes;
        let Ok(length) = std::fs::metadata(&self.file).map(|file| file.len()) else { return };
        if length + reserve < self.reserved_to.load(Ordering::Relaxed) {
            // It was cut, and with it what was reserved.
            self.reserved_to.store(0, Ordering::Relaxed);
        }
        if reserve == 0 || length + reserve / 2 <= self.reserved_to.load(Ordering::Relaxed) {
            return;
        }
        let Ok(file) = std::fs::OpenOptions::new().write(true).open(&self.file) else { return };
        // The file keeps its length: sled finds its log and nothing behind it.
        if fallocate(&file, FallocateFlags::KEEP_SIZE, 0, length + reserve).is_ok() {
            self.reserved_to.store(length + reserve, Ordering::Relaxed);
        }
    }
}

impl Index for SledIndex {
    fn get(&self, key: &IndexKey) -> Result<Option<Vec<u8>>, IndexError> {
        self.tuning.faults.at(Step::IndexGet)?;
        guarded(|| Ok(self.sled().entries.get(key)?.map(|value| value.to_vec())))
    }

    fn put(&self, key: &IndexKey, value: &[u8]) -> Result<(), IndexError> {
        self.tuning.faults.at(Step::IndexPut)?;
        guarded(|| self.sled().entries.insert(key, value).map(drop))
    }

    fn remove(&self, key: &IndexKey) -> Result<(), IndexError> {
        self.tuning.faults.at(Step::IndexRemove)?;
        guarded(|| self.sled().entries.remove(key).map(drop))
    }

    fn walk(&self, after: Option<&IndexKey>, visit: &mut Visit<'_>) -> Result<(), IndexError> {
        let begin = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_slice()));
        guarded(|| {
            for entry in self.sled().entries.range::<&[u8], _>((begin, Bound::Unbounded)) {
                let (key, value) = entry?;
                if !visit(&key, &value) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, IndexError> {
        guarded(|| Ok(self.sled().meta.get(name)?.map(|value| value.to_vec())))
    }

    fn put_meta(&self, name: &str, value: &[u8]) -> Result<(), IndexError> {
        guarded(|| self.sled().meta.insert(name, value).map(drop))
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.tuning.faults.at(Step::IndexFlush)?;
        guarded(|| self.sled().db.flush().map(drop))?;
        self.reserve();
        Ok(())
    }

    fn size_bytes(&self) -> Result<u64, IndexError> {
        guarded(|| self.sled().db.size_on_disk()).map(|bytes| bytes + self.tuning.reserve_bytes)
    }
}
