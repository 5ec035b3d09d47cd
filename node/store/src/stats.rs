//! What a store tells about itself.

use std::sync::atomic::{AtomicU64, Ordering};

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
    pub(crate) writes_dropped: Counter,
    pub(crate) write_errors: Counter,
    pub(crate) damaged: Counter,
    pub(crate) segments_evicted: Counter,
    pub(crate) segments_compacted: Counter,
    pub(crate) responses_evicted: Counter,
    pub(crate) moved: Counter,
    pub(crate) quarantined: Counter,
    pub(crate) purges: Counter,
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
    /// Read, not written: the file system is nearly full or refuses writes.
    Paused,
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
    /// Weight of the memory tier: bodies, heads and estimated overhead.
    pub memory_bytes: u64,
    /// Cache keys in the memory tier.
    pub memory_keys: u64,
    /// Stored responses on disk or queued for it.
    pub stored_count: u64,
    /// Bytes they take in segments.
    pub live_bytes: u64,
    /// Bytes of all segment files.
    pub segment_bytes: u64,
    /// Segment files.
    pub segment_count: u64,
    /// Bytes of the index on disk.
    pub index_bytes: u64,
    /// Bytes of the purge log.
    pub purge_log_bytes: u64,
    /// Marks in the purge clock's table.
    pub purge_marks: u64,
    /// The newest purge.
    pub position: Position,
    /// Bytes that wait to be written.
    pub queued_bytes: u64,
    /// Loads from disk that were asked for.
    pub loads: u64,
    /// Loads that found something.
    pub loads_found: u64,
    /// Loads given up: queue full or deadline passed.
    pub loads_given_up: u64,
    /// Responses written to disk.
    pub writes: u64,
    /// Responses not written: queue full, no room, writes failing.
    pub writes_dropped: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Entries or bodies that did not match their checksum or key.
    pub damaged: u64,
    /// Segments evicted for room.
    pub segments_evicted: u64,
    /// Segments rewritten for the dead bytes in them.
    pub segments_compacted: u64,
    /// Responses that went with their segment.
    pub responses_evicted: u64,
    /// Responses that were written again because they were in use.
    pub moved: u64,
    /// Stores and disk tiers that were set aside.
    pub quarantined: u64,
    /// Purges and invalidations acknowledged.
    pub purges: u64,
    /// Fills begun.
    pub fills: u64,
    /// Fills that ended without a whole response.
    pub fills_aborted: u64,
    /// Those of them that ended because nobody read them any more.
    pub fills_unread: u64,
}
