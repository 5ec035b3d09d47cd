//! What a store tells about itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::purge::Position;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) loads: Counter,
    pub(crate) loads_found: Counter,
    pub(crate) loads_given_up: Counter,
    pub(crate) writes: Counter,
    pub(crate) bytes_written: Counter,
    pub(crate) writes_dropped: Counter,
    pub(crate) not_admitted: Counter,
    pub(crate) demoted: Counter,
    pub(crate) write_errors: Counter,
    pub(crate) damaged: Counter,
    pub(crate) segments_evicted: Counter,
    pub(crate) segments_compacted: Counter,
    pub(crate) compacted_bytes: Counter,
    pub(crate) compaction_us: Counter,
    pub(crate) index_rebuilds: Counter,
    pub(crate) responses_evicted: Counter,
    pub(crate) moved: Counter,
    pub(crate) quarantined: Counter,
    pub(crate) stalls: Counter,
    pub(crate) purges: Counter,
    pub(crate) walks: Counter,
    pub(crate) fills: Counter,
    pub(crate) fills_aborted: Counter,
    pub(crate) fills_unread: Counter,
}

/// How the disk tier is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskState {
    /// Being opened; requests are answered from memory meanwhile.
    Opening,
    /// Serving.
    Ready,
    /// Read, not written, for this reason: the file system is nearly full or refuses writes.
    Paused(String),
    /// Given up, for this reason; another one is being made.
    Failed(String),
    /// The store is closed.
    Closed,
}

/// A look at a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreStats {
    /// The disk tier.
    pub disk: DiskState,
    /// Why purges cannot be made durable now, if so: they are refused.
    pub purge_log_failure: Option<String>,
    /// Weight of the memory tier: bodies, heads and estimated overhead.
    pub memory_bytes: u64,
    /// Cache keys in the memory tier.
    pub memory_keys: u64,
    /// Stored responses.
    pub stored_count: u64,
    /// Those of them that are on disk.
    pub written_count: u64,
    /// Bytes that those take in segments.
    pub live_bytes: u64,
    /// Bytes of their index entries.
    pub entry_bytes: u64,
    /// Bytes of all segment files.
    pub segment_bytes: u64,
    /// Segment files.
    pub segment_count: u64,
    /// Bytes of the index on disk: as measured at the last flush, and at most what was put since.
    pub index_bytes: u64,
    /// Bytes of the purge log.
    pub purge_log_bytes: u64,
    /// Marks in the purge clock's table.
    pub purge_marks: u64,
    /// Looks at all that is stored, to count what purges hit.
    pub purge_walks: u64,
    /// Purges whose hits are still to be counted.
    pub purges_uncounted: u64,
    /// The newest purge.
    pub position: Position,
    /// Bytes that wait to be written.
    pub queued_bytes: u64,
    /// Something has to go before something is written: a response is written once it was asked for twice.
    pub is_disk_full: bool,
    /// Loads from disk that were asked for.
    pub loads: u64,
    /// Loads that found something.
    pub loads_found: u64,
    /// Loads given up: queue full or deadline passed.
    pub loads_given_up: u64,
    /// Responses written to disk.
    pub writes: u64,
    /// Bytes of them in segments.
    pub bytes_written: u64,
    /// Responses not written: queue full, no room, writes failing.
    pub writes_dropped: u64,
    /// Responses kept in memory alone because the disk is full and they were asked for once.
    pub not_admitted: u64,
    /// Those of them that were written when they had to leave memory, because they had been hit.
    pub demoted: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Entries or bodies that did not match their checksum or key.
    pub damaged: u64,
    /// Segments evicted for room.
    pub segments_evicted: u64,
    /// Segments rewritten for the dead bytes in them.
    pub segments_compacted: u64,
    /// Bytes that were moved for that.
    pub compacted_bytes: u64,
    /// Time of the writer that it took.
    pub compaction: Duration,
    /// Times the index was copied into a new database, for the space that it had not given back.
    pub index_rebuilds: u64,
    /// Responses that went with their segment.
    pub responses_evicted: u64,
    /// Responses that were written again because they were in use.
    pub moved: u64,
    /// Stores and disk tiers that were set aside.
    pub quarantined: u64,
    /// Disk tiers that were given up because they did not answer.
    pub stalls: u64,
    /// Purges and invalidations acknowledged.
    pub purges: u64,
    /// Fills begun.
    pub fills: u64,
    /// Fills that ended without a whole response.
    pub fills_aborted: u64,
    /// Those of them that ended because nobody read them any more.
    pub fills_unread: u64,
}
