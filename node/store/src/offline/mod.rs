//! Looking at a data directory that no node uses: is it sound, what is in it.
//!
//! Always true:
//! - The directory is locked meanwhile: no node runs on it, and none starts.
//! - `format`, `purge.log` and `seg/` are read alone; of `index/` sled finishes what it has to recover, as a node would let it.
//!   Nothing is set aside, cut off or removed.
//! - What counts as damaged, refused or dead is what a node that opened the directory would take for it.
//! - Memory is that of the purge log, the count of segments and one piece of a body, whatever is stored; and what sled keeps of
//!   the index while it walks through it, which grows with the index.
//!
//! Not here: what becomes of damage (`disk::opening`, `disk::load`), how a finding is shown (`brim-node`).

mod entry;
mod stats;
mod verify;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use brim_semantics::PurgeState;
use rustix::fs::{Access, access};
use serde::Serialize;

pub use entry::{Listed, Standing, StoredEntry, entries};
pub use stats::{FULLNESS_CLASSES, Fullness, OfflineStats, SizeClass, stats};
pub use verify::{Finding, Problem, ProblemKind, Verification, verify};

use crate::dir::{self, Format, OpenError, StoreId};
use crate::disk::{INDEX_DIR, SEGMENT_DIR, Segments};
use crate::faults::Faults;
use crate::index::{CURRENT_FILE, Generation, Generations, Index, IndexError, SledIndex, Tuning};
use crate::purge::{LogTail, Names, Position, PurgeLog, Table, replayed};
use crate::response::ResponseHead;

/// sled's cache: each entry is read once, so that more would not help.
const INDEX_CACHE_BYTES: u64 = 16 << 20;

/// Why a data directory cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// There is no store in it, or no directory.
    #[error("{dir} holds no store")]
    Absent {
        /// The directory.
        dir: PathBuf,
    },
    /// sled writes when it opens its files.
    #[error(
        "the index cannot be opened without the right to write in {dir}; run it as the user of the node, or on a copy"
    )]
    Unwritable {
        /// The folder of the index.
        dir: PathBuf,
    },
    /// It is in use, or cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its format file is missing, damaged, or another version's.
    #[error("{dir} holds no store of this version: {reason}")]
    Format {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with the file.
        reason: String,
    },
    /// The index cannot be read: what is stored is not known.
    #[error("{dir}: index: {reason}")]
    Index {
        /// The directory.
        dir: PathBuf,
        /// What sled says.
        reason: String,
    },
}

/// How many, and how many bytes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// How the purge log ends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogState {
    /// With its last frame.
    #[default]
    Whole,
    /// With so many bytes of a write that was cut off, and never acknowledged: nothing is wrong.
    Torn(u64),
    /// It cannot be read to its end, for this reason. A node that opens the directory drops what is stored.
    Damaged(String),
}

/// What the purge log holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LogFacts {
    /// How it ends.
    pub state: LogState,
    /// Bytes of the file.
    pub bytes: u64,
    /// The newest purge; of a damaged log the newest that could be read.
    pub position: Position,
    /// Marks in the table that it makes.
    pub marks: u64,
}

impl LogFacts {
    /// Why it cannot be read, if so.
    pub fn damage(&self) -> Option<&str> {
        match &self.state {
            LogState::Damaged(reason) => Some(reason),
            LogState::Whole | LogState::Torn(_) => None,
        }
    }
}

/// The purges of a log, and what is to be said about it.
struct Purges {
    table: Table,
    facts: LogFacts,
}

impl Purges {
    fn read(dir: &Path, store: StoreId) -> Self {
        let (table, state, bytes) = match std::fs::read(PurgeLog::path(dir)) {
            Ok(bytes) => {
                let (table, _, tail) = replayed(&bytes, store);
                let length = bytes.len() as u64;
                let state = match tail {
                    LogTail::Whole => LogState::Whole,
                    LogTail::Torn { good_bytes } => LogState::Torn(length - good_bytes),
                    LogTail::Damaged(reason) => LogState::Damaged(reason.to_owned()),
                };
                (table, state, length)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (Table::default(), LogState::Damaged("it is missing".to_owned()), 0)
            }
            Err(error) => (Table::default(), LogState::Damaged(error.to_string()), 0),
        };
        let facts = LogFacts { state, bytes, position: table.latest, marks: table.marks_count() as u64 };
        Self { table, facts }
    }

    fn standing(&self, head: &ResponseHead) -> Standing {
        let names = Names::of_head(head);
        match self.table.state(&names, head.fetched_at) {
            PurgeState::Hard => Standing::Hard,
            PurgeState::Live | PurgeState::Soft if matches!(self.facts.state, LogState::Damaged(_)) => {
                Standing::Unknown
            }
            PurgeState::Live | PurgeState::Soft if head.fetched_at > self.table.latest => Standing::BeyondLog,
            PurgeState::Soft => Standing::Soft,
            PurgeState::Live => Standing::Live,
        }
    }
}

/// A data directory, locked, with its parts open.
struct OfflineStore {
    dir: PathBuf,
    purges: Purges,
    segments: Option<Segments>,
    /// None: nothing was ever stored.
    index: Result<Option<SledIndex>, IndexError>,
    /// The last to go: a node may start once sled is closed. None: the file system takes no writes, and no node runs on it.
    _lock: Option<File>,
}

impl OfflineStore {
    fn open(dir: &Path) -> Result<Self, OfflineError> {
        let absent = || OfflineError::Absent { dir: dir.to_owned() };
        let failed = |source| OpenError::Directory { dir: dir.to_owned(), source };
        // Folders of such names are found elsewhere, too. Before the lock, which would make directory and lock file.
        let has_log = PurgeLog::path(dir).exists();
        let has_responses = [INDEX_DIR, SEGMENT_DIR].iter().all(|part| dir.join(part).is_dir());
        if matches!(dir::read_format(dir), Format::Missing) && !has_log && !has_responses {
            return Err(absent());
        }
        let index_dir = dir.join(INDEX_DIR);
        // Else what nobody may write would be taken for damaged.
        if index_dir.is_dir() && access(&index_dir, Access::WRITE_OK).is_err() {
            return Err(OfflineError::Unwritable { dir: index_dir });
        }
        let lock = dir::lock(dir)?;
        let format = |reason: &str| OfflineError::Format { dir: dir.to_owned(), reason: reason.to_owned() };
        let store = match dir::read_format(dir) {
            Format::Known(store) => store,
            Format::Missing => return Err(format("the format file is missing")),
            Format::Foreign(reason) => return Err(format(&reason)),
        };
        let segment_dir = dir.join(SEGMENT_DIR);
        let segments = if segment_dir.is_dir() {
            Some(Segments::open(&segment_dir, store, Faults::default()).map_err(failed)?)
        } else {
            None
        };
        let has_bodies = segments.as_ref().is_some_and(|segments| segments.count() > 0);
        let index = if has_bodies || index_dir.join(CURRENT_FILE).exists() {
            let tuning = Tuning { cache_bytes: INDEX_CACHE_BYTES, reserve_bytes: 0, faults: Faults::default() };
            let generations = Generations::new(index_dir, store, tuning);
            generations.look().map(|Generation { index, .. }| Some(index))
        } else {
            Ok(None)
        };
        Ok(Self { dir: dir.to_owned(), purges: Purges::read(dir, store), segments, index, _lock: lock })
    }

    /// Visits what the index holds until `visit` says false.
    fn walk(&self, visit: &mut dyn FnMut(entry::Read<'_>) -> bool) -> Result<(), String> {
        match &self.index {
            Ok(None) => Ok(()),
            Ok(Some(index)) => index
                .walk(None, &mut |key, value| visit(entry::read(key, value, &self.purges)))
                .map_err(|error| reason_of(&error)),
            Err(error) => Err(reason_of(error)),
        }
    }

    fn index_failure(&self, reason: String) -> OfflineError {
        OfflineError::Index { dir: self.dir.clone(), reason }
    }

    fn index_bytes(&self) -> u64 {
        self.index.as_ref().ok().and_then(Option::as_ref).map_or(0, |index| index.size_bytes().unwrap_or(0))
    }
}

/// What is wrong with an index, where it is clear that it is one.
fn reason_of(error: &IndexError) -> String {
    let text = error.to_string();
    text.strip_prefix("index: ").map_or(text.clone(), str::to_owned)
}
