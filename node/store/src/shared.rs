//! What the parts of a store share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::blocking::Pool;
use crate::catalog::{Catalog, Which};
use crate::config::StoreConfig;
use crate::disk::{Disk, Op};
use crate::memory::Memory;
use brim_semantics::{KeyHash, PurgeState};

use crate::purge::{Clock, Committer, Matcher, Position, PurgeMode};
use crate::response::{Reading, StoredResponse};
pub(crate) use crate::stats::DiskState;
use crate::stats::{Counters, StoreStats};

/// Keys remembered as purged.
const PURGED_KEYS_MAX: usize = 65_536;

/// Wakes those who wait for room on disk, or for the disk tier.
#[derive(Default)]
pub(crate) struct Signal {
    lock: Mutex<()>,
    wake: Condvar,
}

impl Signal {
    pub(crate) fn notify_all(&self) {
        let _order = self.lock.lock();
        self.wake.notify_all();
    }

    /// Waits until `ready`, at most so long. Blocks.
    pub(crate) fn wait(&self, at_most: Duration, ready: impl Fn() -> bool) -> bool {
        let deadline = std::time::Instant::now() + at_most;
        let mut order = self.lock.lock();
        while !ready() {
            if self.wake.wait_until(&mut order, deadline).timed_out() {
                return ready();
            }
        }
        true
    }
}

/// The threads of a store.
pub(crate) struct Pools {
    pub(crate) read: Pool,
    pub(crate) write: Pool,
    pub(crate) walk: Pool,
}

pub(crate) struct Shared {
    pub(crate) config: StoreConfig,
    pub(crate) memory: Memory,
    pub(crate) catalog: Catalog,
    pub(crate) committer: Committer,
    /// Writes of streaming bodies; apart from the reads, because they may wait for room.
    pub(crate) write_pool: Pool,
    /// Walks over the catalog for purges; apart from the reads, which a slow disk may hold up.
    pub(crate) walk_pool: Pool,
    pub(crate) counters: Counters,
    /// Room was made, or the disk tier changed.
    pub(crate) room: Signal,
    reading: Reading,
    /// The newest position in the purge log when it was opened.
    pub(crate) log_latest: Position,
    /// Keys that a hard purge took something from: what a miss says of itself. Bounded; the oldest are forgotten.
    purged: quick_cache::sync::Cache<KeyHash, ()>,
    serial: AtomicU64,
    disk: RwLock<(Option<Arc<Disk>>, DiskState)>,
}

impl Shared {
    pub(crate) fn new(config: StoreConfig, committer: Committer, pools: Pools) -> Self {
        let log_latest = committer.clock().latest();
        let Pools { read: read_pool, write: write_pool, walk: walk_pool } = pools;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            memory: Memory::new(config.memory_max, config.collect_bytes_max(), config.variants_max),
            catalog: Catalog::new(config.variants_max),
            committer,
            write_pool,
            walk_pool,
            log_latest,
            counters: Counters::default(),
            room: Signal::default(),
            purged: quick_cache::sync::Cache::new(PURGED_KEYS_MAX),
            reading: Reading { pool: Arc::new(read_pool), queue: Arc::default() },
            // Above those of the last run, unless the clock was set back; then they follow when the index was walked.
            serial: AtomicU64::new(u64::try_from(since.as_micros()).unwrap_or(1)),
            disk: RwLock::new((None, DiskState::Opening)),
            config,
        }
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.committer.clock()
    }

    pub(crate) fn reading(&self) -> &Reading {
        &self.reading
    }

    pub(crate) fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn serial_above(&self, serial: u64) {
        self.serial.fetch_max(serial.saturating_add(1), Ordering::Relaxed);
    }

    pub(crate) fn disk(&self) -> Option<Arc<Disk>> {
        self.disk.read().0.clone()
    }

    pub(crate) fn disk_state(&self) -> DiskState {
        let disk = self.disk.read();
        match &disk.0 {
            Some(open) if open.paused.load(Ordering::Relaxed) => DiskState::Paused,
            _ => disk.1.clone(),
        }
    }

    pub(crate) fn set_disk(&self, disk: Option<Arc<Disk>>, state: DiskState) {
        *self.disk.write() = (disk, state);
        self.room.notify_all();
    }

    /// Takes responses out of the catalog and has their index entries removed.
    pub(crate) fn forget(&self, gone: Vec<Which>) -> u64 {
        let gone: Vec<Which> = gone.into_iter().filter(|which| self.catalog.remove(*which)).collect();
        let count = gone.len() as u64;
        if !gone.is_empty() {
            self.reading.queue.push(Op::Forget(gone));
        }
        count
    }

    /// Takes one response out of memory and catalog.
    pub(crate) fn drop_response(&self, which: Which) {
        let is_it = |variants: &crate::response::Variants| {
            variants.iter().any(|one| one.variant == which.variant && one.serial == which.serial)
        };
        self.memory.remove(which.key, is_it, || self.catalog.remove(which));
    }

    /// Makes a response the one of its variant: in memory at once, on disk behind.
    pub(crate) fn enter(&self, response: &Arc<StoredResponse>) {
        self.enter_if(response, |_| true);
    }

    /// The same, if `wanted` says so of the response that is in memory now.
    pub(crate) fn enter_if(
        &self,
        response: &Arc<StoredResponse>,
        wanted: impl FnOnce(Option<&Arc<StoredResponse>>) -> bool,
    ) {
        let key = response.key_hash();
        if !self.purged.is_empty() {
            self.purged.remove(&key);
        }
        let mut is_entered = false;
        let mut made_room = None;
        self.memory.put(response, |current| {
            if !wanted(current) {
                return None;
            }
            is_entered = true;
            let is_alone = !self.catalog.contains(key);
            made_room = self.catalog.put(key, response.card());
            Some(is_alone)
        });
        if let Some(oldest) = made_room {
            self.reading.queue.push(Op::Forget(vec![oldest]));
        }
        if is_entered && !self.reading.queue.push(Op::Write(Arc::clone(response))) {
            self.counters.writes_dropped.add(1);
            self.forget(vec![response.which()]);
        }
    }

    /// Whether a hard purge took away what was stored under the key, as far as that is remembered.
    pub(crate) fn was_purged(&self, key: KeyHash) -> bool {
        self.purged.get(&key).is_some()
    }

    /// Counts what a purge hit; after a hard one its space is given back.
    pub(crate) fn reclaim(&self, matcher: &Matcher, position: Position, mode: PurgeMode) -> u64 {
        let found = self.catalog.matching(matcher, position);
        if mode == PurgeMode::Soft {
            return found.len() as u64;
        }
        let is_purged = |one: &Arc<StoredResponse>| {
            self.clock().state(&one.names, one.head.fetched_at, &one.checked) == PurgeState::Hard
        };
        for which in &found {
            self.purged.insert(which.key, ());
            self.memory.remove(which.key, |variants| variants.iter().any(is_purged), || ());
        }
        self.forget(found)
    }

    pub(crate) fn stats(&self) -> StoreStats {
        let disk = self.disk();
        let segments = disk.as_ref().map(|disk| &disk.segments);
        let counters = &self.counters;
        StoreStats {
            disk: self.disk_state(),
            memory_bytes: self.memory.bytes(),
            memory_keys: self.memory.count(),
            stored_count: self.catalog.count(),
            live_bytes: self.catalog.bytes(),
            segment_bytes: segments.map_or(0, |segments| segments.used_bytes()),
            segment_count: segments.map_or(0, |segments| segments.count()),
            index_bytes: disk.as_ref().map_or(0, |disk| disk.index_bytes.load(Ordering::Relaxed)),
            purge_log_bytes: self.committer.log_bytes(),
            purge_marks: self.clock().with_table(|table| table.marks_count() as u64),
            position: self.clock().latest(),
            queued_bytes: self.reading.queue.bytes(),
            loads: counters.loads.get(),
            loads_found: counters.loads_found.get(),
            loads_given_up: counters.loads_given_up.get(),
            writes: counters.writes.get(),
            writes_dropped: counters.writes_dropped.get(),
            write_errors: counters.write_errors.get(),
            damaged: counters.damaged.get(),
            segments_evicted: counters.segments_evicted.get(),
            segments_compacted: counters.segments_compacted.get(),
            responses_evicted: counters.responses_evicted.get(),
            moved: counters.moved.get(),
            quarantined: counters.quarantined.get(),
            purges: counters.purges.get(),
            fills: counters.fills.get(),
            fills_aborted: counters.fills_aborted.get(),
            fills_unread: counters.fills_unread.get(),
        }
    }
}
