//! What the parts of a store share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex, RwLock};

use brim_semantics::KeyHash;

use crate::admission::Admission;
use crate::blocking::Pool;
use crate::catalog::{Catalog, Left, Whereabouts, Which};
use crate::config::StoreConfig;
use crate::disk::{Disk, Op, WriteQueue};
use crate::memory::{LetGo, Memory};
use crate::purge::{Clock, Committer, Horizon, Position};
use crate::recent::Recent;
use crate::reclaim::Reclaims;
use crate::response::{Reading, StoredResponse};
pub(crate) use crate::stats::DiskState;
use crate::stats::{Counters, StoreStats};
use crate::watch::Watch;

/// Keys remembered as purged.
const PURGED_KEYS_MAX: usize = 65_536;
/// How long writes wait after the file system had too little room; it is looked at more often.
const RESERVE_PAUSE: Duration = Duration::from_secs(2);
const ENDING_LOOK_EVERY: Duration = Duration::from_millis(5);
/// Marks of the purge clock that are not worth a look at what could be forgotten.
const MARKS_KEPT: usize = 256;

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
    pub(crate) watch: Arc<Watch>,
    pub(crate) admission: Admission,
    pub(crate) reclaims: Reclaims,
    /// What was hit in the last minutes.
    pub(crate) recent: Recent,
    /// Something has to go before something is written: from here on admission counts.
    pub(crate) is_disk_full: AtomicBool,
    /// Threads that hang may still be in the data directory.
    pub(crate) has_left_behind: AtomicBool,
    /// The next disk tier's files have numbers above this one: none that an earlier tier has used, or may still use.
    pub(crate) numbers_from: AtomicU64,
    /// Threads that close what is no longer used.
    endings: Mutex<Vec<JoinHandle<()>>>,
    /// What fills under way were fetched after, and what the purge clock may forget.
    pub(crate) horizon: Horizon,
    /// Room was made, or the disk tier changed.
    pub(crate) room: Signal,
    reading: Arc<Reading>,
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
        let watch = Arc::<Watch>::default();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            memory: Memory::new(config.memory_max, config.collect_bytes_max(), config.variants_max),
            catalog: Catalog::new(config.variants_max),
            committer,
            write_pool,
            walk_pool,
            log_latest,
            counters: Counters::default(),
            watch: Arc::clone(&watch),
            admission: Admission::default(),
            reclaims: Reclaims::default(),
            recent: Recent::default(),
            is_disk_full: AtomicBool::new(false),
            has_left_behind: AtomicBool::new(false),
            numbers_from: AtomicU64::new(0),
            endings: Mutex::default(),
            horizon: Horizon::default(),
            room: Signal::default(),
            purged: quick_cache::sync::Cache::new(PURGED_KEYS_MAX),
            reading: Arc::new(Reading {
                pool: read_pool,
                queue: WriteQueue::new(config.write_queue_bytes_max(), config.write_queue_forgets_max()),
                watch,
            }),
            // Above those of the last run, unless the clock was set back; then they follow when the index was walked.
            serial: AtomicU64::new(u64::try_from(since.as_micros()).unwrap_or(1)),
            disk: RwLock::new((None, DiskState::Opening)),
            config,
        }
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.committer.clock()
    }

    pub(crate) fn reading(&self) -> &Arc<Reading> {
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
        match disk.0.as_ref().and_then(|open| open.paused()) {
            Some(reason) => DiskState::Paused(reason),
            None => disk.1.clone(),
        }
    }

    pub(crate) fn set_disk(&self, disk: Option<Arc<Disk>>, state: DiskState) {
        let is_closing = state == DiskState::Closed;
        let old = std::mem::replace(&mut *self.disk.write(), (disk, state)).0;
        self.is_disk_full.store(false, Ordering::Relaxed);
        self.room.notify_all();
        let Some(old) = old else { return };
        let end = move || old.close_index();
        if is_closing {
            // Whoever opens the directory next must not find it open.
            end();
        } else {
            self.apart("brim-disk-end", end);
        }
    }

    /// Does what may take long at the end of something.
    pub(crate) fn apart(&self, name: &str, work: impl FnOnce() + Send + 'static) {
        match std::thread::Builder::new().name(name.into()).spawn(work) {
            Ok(thread) => {
                let mut endings = self.endings.lock();
                endings.retain(|thread| !thread.is_finished());
                endings.push(thread);
            }
            Err(error) => tracing::warn!(%error, name, "no thread to end something with"),
        }
    }

    /// Waits for what is being closed, but not for ever. Blocks.
    pub(crate) fn await_endings(&self) {
        let deadline = std::time::Instant::now() + self.config.stall_after;
        let endings = std::mem::take(&mut *self.endings.lock());
        for thread in endings {
            while !thread.is_finished() && std::time::Instant::now() < deadline {
                std::thread::sleep(ENDING_LOOK_EVERY);
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }

    /// The tier is given up: what lies on that disk alone is not there any more, and would keep its files open.
    pub(crate) fn forget_disk(&self) {
        self.memory.drop_bodiless();
        self.catalog.leave_disk(|which| self.memory.holds(which));
    }

    /// The tier is closed, and will be opened again.
    pub(crate) fn close_disk(&self) {
        self.memory.drop_bodiless();
        self.catalog.close_disk();
    }

    /// A tier is open, unless `is_wanted` says that nobody waits for it any more.
    pub(crate) fn install_disk(&self, opened: &Arc<Disk>, is_wanted: impl FnOnce() -> bool) -> bool {
        let mut disk = self.disk.write();
        let is_wanted = is_wanted();
        if is_wanted {
            *disk = (Some(Arc::clone(opened)), DiskState::Ready);
        }
        drop(disk);
        self.room.notify_all();
        is_wanted
    }

    /// Counts what is about to be written, and looks at the file system when that may matter.
    pub(crate) fn spend_free(&self, disk: &Disk, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if disk.usage.free.fetch_sub(bytes, Ordering::Relaxed) < bytes {
            self.look_at_free(disk);
        }
    }

    /// What the file system has beyond the reserve, and the reserve. None: nobody knows.
    fn free_bytes(&self) -> Option<(u64, u64)> {
        let stat = rustix::fs::statvfs(&self.config.dir).ok()?;
        let reserve = self.config.reserve_of(stat.f_blocks.saturating_mul(stat.f_frsize));
        Some((stat.f_bavail.saturating_mul(stat.f_frsize).saturating_sub(reserve), reserve))
    }

    /// Whether the file system has so much beyond the reserve.
    pub(crate) fn has_space(&self, bytes: u64) -> bool {
        self.free_bytes().is_none_or(|(left, _)| left >= bytes)
    }

    /// Writes pause while the file system has less than the reserve.
    pub(crate) fn look_at_free(&self, disk: &Disk) {
        // Nothing known: the writes themselves will tell.
        let Some((left, reserve)) = self.free_bytes() else { return };
        disk.usage.free.store(i64::try_from(left / 2).unwrap_or(i64::MAX), Ordering::Relaxed);
        if left == 0 {
            let reason = format!("the file system has less than {reserve} bytes free");
            disk.pause(reason, RESERVE_PAUSE);
        }
    }

    /// Takes one response out of memory and catalog.
    pub(crate) fn drop_response(&self, which: Which) {
        let is_it = |one: &Arc<StoredResponse>| one.variant == which.variant && one.serial == which.serial;
        let (_, let_go) = self.memory.remove_some(which.key, is_it, || self.catalog.remove(which));
        self.let_go(let_go);
    }

    /// The disk does not have it, or no more: it stays as long as the memory tier holds it. False: it was no longer the
    /// response of its variant.
    pub(crate) fn keep_in_memory(&self, which: Which) -> bool {
        let is_current = self.catalog.in_memory_alone(which);
        if is_current && !self.memory.holds(which) {
            self.catalog.left_memory(which, false);
        }
        is_current
    }

    /// The memory tier let go of these: what is nowhere else goes to disk if it was hit, else it is gone.
    pub(crate) fn let_go(&self, let_go: LetGo) {
        for response in let_go.0.iter().flat_map(|variants| variants.iter()) {
            let was_hit = response.used.load(Ordering::Relaxed);
            if self.catalog.left_memory(response.which(), was_hit) == Left::Write {
                self.counters.demoted.add(1);
                self.write(response);
            }
        }
    }

    /// Queues a response for the disk.
    fn write(&self, response: &Arc<StoredResponse>) {
        if !self.reading.queue.push(Op::Write(Arc::clone(response))) {
            self.counters.writes_dropped.add(1);
            self.keep_in_memory(response.which());
            // What it replaced must not come back at the next start.
            self.reading.queue.push(Op::Forget(vec![response.which()]));
        }
    }

    /// Makes a response the one of its variant: in memory at once, and if it is `admitted`, on disk behind.
    pub(crate) fn enter(&self, response: &Arc<StoredResponse>, admitted: bool) {
        self.enter_if(response, admitted, |_| true);
    }

    /// The same, if `wanted` says so of the response that is in memory now.
    pub(crate) fn enter_if(
        &self,
        response: &Arc<StoredResponse>,
        admitted: bool,
        wanted: impl FnOnce(Option<&Arc<StoredResponse>>) -> bool,
    ) {
        let key = response.key_hash();
        if !self.purged.is_empty() {
            self.purged.remove(&key);
        }
        let mut entered = None;
        let mut made_room = None;
        let let_go = self.memory.put(response, |current| {
            if !wanted(current) {
                return None;
            }
            // What is on disk is replaced there.
            let is_admitted = admitted || self.catalog.is_beyond_memory(key, response.variant);
            entered = Some(is_admitted);
            let is_alone = !self.catalog.contains(key);
            let segment = response.body.place().map(|place| place.segment.id);
            let at = if is_admitted { Whereabouts::Queued { segment } } else { Whereabouts::Memory };
            made_room = self.catalog.put(key, response.card(at));
            Some(is_alone)
        });
        if let Some(oldest) = made_room {
            self.reading.queue.push(Op::Forget(vec![oldest]));
        }
        match entered {
            Some(true) => self.write(response),
            Some(false) => self.counters.not_admitted.add(1),
            None => {}
        }
        if entered.is_some() && !self.catalog.is_current(response.which()) {
            // The disk tier was given up between the card and the entry into memory.
            self.drop_response(response.which());
        }
        self.let_go(let_go);
    }

    /// Whether a hard purge took away what was stored under the key, as far as that is remembered.
    pub(crate) fn was_purged(&self, key: KeyHash) -> bool {
        self.purged.get(&key).is_some()
    }

    pub(crate) fn remember_purged(&self, key: KeyHash) {
        self.purged.insert(key, ());
    }

    /// Gives back what writes have purged, and lets the purge clock forget what nothing that exists can be named by; once a minute.
    pub(crate) fn tend_purges_now_and_then(&self) {
        let is_open = matches!(self.disk_state(), DiskState::Ready | DiskState::Paused(_));
        let latest = self.clock().latest();
        if !is_open || !self.horizon.is_due(latest) {
            return;
        }
        self.sweep_again(latest);
        if self.clock().marks_count() > MARKS_KEPT {
            self.trim_purges();
        }
    }

    pub(crate) fn trim_purges(&self) {
        // In this order: what a fill brings in while the cards are looked at was among the fills before.
        let oldest = self.horizon.oldest();
        let oldest = oldest.min(self.memory.oldest_fetch().unwrap_or(oldest));
        let oldest = oldest.min(self.catalog.oldest_fetch().unwrap_or(oldest));
        let count = self.clock().trim(oldest);
        tracing::debug!(count, %oldest, "purges that nothing can be named by are forgotten");
    }

    pub(crate) fn stats(&self) -> StoreStats {
        let disk = self.disk();
        let segments = disk.as_ref().map(|disk| &disk.segments);
        let counters = &self.counters;
        StoreStats {
            disk: self.disk_state(),
            purge_log_failure: self.committer.failure(),
            memory_bytes: self.memory.bytes(),
            memory_keys: self.memory.count(),
            stored_count: self.catalog.count(),
            written_count: self.catalog.written_count(),
            live_bytes: self.catalog.bytes(),
            entry_bytes: self.catalog.entry_bytes(),
            segment_bytes: segments.map_or(0, |segments| segments.used_bytes()),
            segment_count: segments.map_or(0, |segments| segments.count()),
            index_bytes: disk.as_ref().map_or(0, |disk| disk.usage.index_bytes()),
            purge_log_bytes: self.committer.log_bytes(),
            purge_marks: self.clock().marks_count() as u64,
            purge_walks: counters.walks.get(),
            purges_uncounted: self.reclaims.waiting() as u64,
            position: self.clock().latest(),
            queued_bytes: self.reading.queue.bytes(),
            is_disk_full: self.is_disk_full.load(Ordering::Relaxed),
            loads: counters.loads.get(),
            loads_found: counters.loads_found.get(),
            loads_given_up: counters.loads_given_up.get(),
            writes: counters.writes.get(),
            bytes_written: counters.bytes_written.get(),
            writes_dropped: counters.writes_dropped.get(),
            not_admitted: counters.not_admitted.get(),
            demoted: counters.demoted.get(),
            write_errors: counters.write_errors.get(),
            damaged: counters.damaged.get(),
            segments_evicted: counters.segments_evicted.get(),
            segments_compacted: counters.segments_compacted.get(),
            compacted_bytes: counters.compacted_bytes.get(),
            compaction: Duration::from_micros(counters.compaction_us.get()),
            index_rebuilds: counters.index_rebuilds.get(),
            responses_evicted: counters.responses_evicted.get(),
            moved: counters.moved.get(),
            quarantined: counters.quarantined.get(),
            stalls: counters.stalls.get(),
            purges: counters.purges.get(),
            fills: counters.fills.get(),
            fills_aborted: counters.fills_aborted.get(),
            fills_unread: counters.fills_unread.get(),
        }
    }
}
