//! What a store is told when it is opened, and the limits that nobody sets.

use std::path::PathBuf;
use std::time::Duration;

use crate::catalog::Which;
use crate::faults::Faults;
use crate::index::Tuning;

/// Bytes of a body under one checksum: what has to be read before its first byte may be used.
pub const BLOCK_BYTES: usize = 64 * 1024;
/// The usual size of a segment; a smaller disk budget makes smaller ones, so that there are always some to evict.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// What a fill keeps in memory of a body that streams (to disk, or past it): the longest a reader may lag unpaced.
pub const FILL_WINDOW_BYTES: usize = 1024 * 1024;
/// What waits to be written to the open segment, at most; less where the memory tier is small. A full queue means: not
/// written, counted, still in memory.
pub const WRITE_QUEUE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Writes that wait for the writer, however small. Beyond it a write is dropped, counted.
pub const WRITE_QUEUE_COUNT_MAX: usize = 65_536;
/// What is reserved for the index behind the end of its file; less where the disk budget is small. It counts for the budget.
const INDEX_RESERVE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Threads that read bodies and index entries.
pub const READ_THREADS: usize = 4;
/// One for the walk that counts purges, the other for dry runs and refreshes.
pub(crate) const WALK_THREADS: usize = 2;
/// Index reads that wait for a thread. Beyond it a load is a miss, counted.
pub const READ_QUEUE_MAX: usize = 1024;
/// How long a request waits for its index entry. Beyond it the load is a miss, counted.
pub const LOAD_DEADLINE: Duration = Duration::from_secs(2);
/// How long opening waits for the disk tier. Beyond it the store serves from memory, and forwards what is not there, until
/// the disk tier is there: a large one takes a second.
pub const OPEN_WAIT: Duration = Duration::from_millis(500);
/// How long a purge waits for the log. Beyond it the caller is told that nobody knows whether it was made.
pub const PURGE_DEADLINE: Duration = Duration::from_secs(30);
/// How long an acknowledgement usually waits for the count of what the purge hit; the receipt gets a later one all the same.
pub const COUNT_WAIT: Duration = Duration::from_secs(2);

/// Where the store lives and what it may use.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The data directory; made when missing.
    pub dir: PathBuf,
    /// Bytes of all segments and the index together; exceeded by at most one segment.
    pub disk_max: u64,
    /// Bytes of the memory tier: bodies, heads, and what each costs beside them.
    pub memory_max: u64,
    /// The longest body that is stored.
    pub object_max: u64,
    /// The longest body that is kept in memory whole.
    pub memory_object_max: u64,
    /// A fill that no client reads any more goes on while at most so many bytes of it are missing or, of a body without
    /// an announced length, have come since the last client left. Zero: it ends at once.
    pub finish_unread: u64,
    /// Stored responses under one cache key; the oldest makes room.
    pub variants_max: usize,
    /// How often the index and the open segment are made durable.
    pub flush_every: Duration,
    /// Free bytes to leave on the file system, of which nothing is stored: sled must never meet a full disk. None: a
    /// sixteenth of the file system, at most 256 MiB.
    pub reserve_free: Option<u64>,
    /// Bytes by which the purge log grows before it is written anew.
    pub purge_log_growth_max: u64,
    /// A call of the index, or of a file of the disk tier, that lasts longer makes the tier dead.
    pub stall_after: Duration,
    #[cfg(test)]
    pub(crate) faults: Faults,
}

impl StoreConfig {
    /// The defaults of `[store]` for a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            disk_max: 10 << 30,
            memory_max: 512 << 20,
            object_max: 5 << 30,
            memory_object_max: 1 << 20,
            finish_unread: 8 << 20,
            variants_max: 32,
            flush_every: Duration::from_millis(500),
            reserve_free: None,
            purge_log_growth_max: 16 << 20,
            stall_after: Duration::from_secs(30),
            #[cfg(test)]
            faults: Faults::default(),
        }
    }

    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "there are faults in tests alone"))]
    pub(crate) fn faults(&self) -> Faults {
        #[cfg(test)]
        return self.faults.clone();
        #[cfg(not(test))]
        Faults::default()
    }

    /// How the index is opened: an eighth of the memory tier for its cache, and what it can write to a full disk.
    pub(crate) fn index_tuning(&self) -> Tuning {
        Tuning {
            cache_bytes: (self.memory_max / 8).clamp(8 << 20, 128 << 20),
            reserve_bytes: (self.disk_max / 64).min(INDEX_RESERVE_BYTES_MAX),
            faults: self.faults(),
        }
    }

    /// What may wait to be written: an eighth of the memory tier.
    pub(crate) fn write_queue_bytes_max(&self) -> u64 {
        (self.memory_max / 8).clamp(8 << 20, WRITE_QUEUE_BYTES_MAX)
    }

    /// Removals that may wait: a sixteenth of the memory tier. What is beyond is found when the index is next rebuilt.
    pub(crate) fn write_queue_forgets_max(&self) -> usize {
        usize::try_from(self.memory_max / 16).unwrap_or(usize::MAX) / size_of::<Which>()
    }

    /// The free bytes to leave on a file system of so many.
    pub(crate) fn reserve_of(&self, total: u64) -> u64 {
        self.reserve_free.unwrap_or((total / 16).min(256 << 20))
    }

    /// The size at which the open segment is closed: a sixteenth of a small budget, 64 MiB for the usual ones.
    pub(crate) fn segment_bytes(&self) -> u64 {
        (self.disk_max / 16).clamp(64 * 1024, SEGMENT_BYTES)
    }

    /// The longest body that goes to disk: a body must leave room for others.
    pub(crate) fn stored_bytes_max(&self) -> u64 {
        self.object_max.min(self.disk_max / 2)
    }

    /// The longest body that is collected in memory.
    pub(crate) fn collect_bytes_max(&self) -> u64 {
        self.memory_object_max.min(self.object_max)
    }
}
