//! One opened disk tier: index and segments of one store id.
//!
//! Always true:
//! - From a tier that failed nothing comes any more: every call of its index answers None, also one that succeeded too late.
//! - The index is called under the watch.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::segments::{Phase, Segments};
use crate::dir::StoreId;
use crate::faults::{Faults, Step};
use crate::index::{Index, IndexError, IndexKey, Visit, is_no_space};
use crate::segment::Segment;
use crate::watch::Watch;

/// The name under which the index remembers the next segment id.
pub(crate) const META_NEXT_SEGMENT: &str = "next_segment";

/// Why a tier is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    /// For want of space alone: what is on disk is as good as after a crash, and is opened again when there is some.
    pub(crate) is_for_space: bool,
}

impl Failure {
    /// Nothing of it is believed any more.
    pub(crate) fn of(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), is_for_space: false }
    }
}

impl From<&IndexError> for Failure {
    fn from(error: &IndexError) -> Self {
        Self { reason: error.to_string(), is_for_space: error.is_no_space() }
    }
}

pub(crate) struct Disk {
    pub(crate) store: StoreId,
    /// None: it has been closed, or will be when the last call ends.
    index: RwLock<Option<Arc<Held>>>,
    pub(crate) segments: Segments,
    pub(crate) usage: Usage,
    watch: Arc<Watch>,
    faults: Faults,
    /// Segments with bytes that are not synced.
    dirty: Mutex<Vec<Arc<Segment>>>,
    flushing: Mutex<()>,
    failure: Mutex<Option<Failure>>,
    failed: AtomicBool,
    /// Why writes wait, and until when at least.
    paused: Mutex<Option<(String, Instant)>>,
    is_paused: AtomicBool,
}

/// An index that is open.
pub(super) struct Held {
    index: Arc<dyn Index>,
    /// Goes last: until then the index may have its files open.
    token: Arc<()>,
}

impl Held {
    fn new(index: Arc<dyn Index>) -> Arc<Self> {
        Arc::new(Self { index, token: Arc::default() })
    }
}

/// What the index takes on disk, and what the file system has left.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// The index as it was measured last.
    index: AtomicU64,
    /// An index that is being made beside it.
    rebuild: AtomicU64,
    /// What was put since, at most: sled writes an entry, and sometimes its neighbours.
    since: AtomicU64,
    /// Bytes that may be written before the file system is looked at again.
    pub(crate) free: AtomicI64,
}

/// An entry costs the log of sled at most so many times its bytes until the index is measured again.
const PENDING_FACTOR: u64 = 2;

impl Usage {
    pub(crate) fn index_bytes(&self) -> u64 {
        self.index.load(Ordering::Relaxed) + self.rebuild.load(Ordering::Relaxed) + self.since.load(Ordering::Relaxed)
    }

    pub(crate) fn measured(&self, index: u64) {
        self.since.store(0, Ordering::Relaxed);
        self.index.store(index, Ordering::Relaxed);
    }

    pub(crate) fn rebuilding(&self, bytes: u64) {
        self.rebuild.store(bytes, Ordering::Relaxed);
    }

    fn put(&self, bytes: usize) {
        self.since.fetch_add(bytes as u64 * PENDING_FACTOR, Ordering::Relaxed);
    }
}

impl Disk {
    pub(crate) fn new(
        store: StoreId,
        index: Arc<dyn Index>,
        segments: Segments,
        watch: Arc<Watch>,
        faults: Faults,
    ) -> Self {
        Self {
            store,
            index: RwLock::new(Some(Held::new(index))),
            segments,
            usage: Usage::default(),
            watch,
            faults,
            dirty: Mutex::default(),
            flushing: Mutex::default(),
            failure: Mutex::default(),
            failed: AtomicBool::new(false),
            paused: Mutex::default(),
            is_paused: AtomicBool::new(false),
        }
    }

    /// Cannot be upgraded any more when the index has been closed.
    pub(crate) fn token(&self) -> Weak<()> {
        self.index.read().as_ref().map_or_else(Weak::new, |held| Arc::downgrade(&held.token))
    }

    /// Closes the index of a tier that is given up: others may hold on to the tier for long. Blocks.
    pub(crate) fn close_index(&self) {
        let held = self.index.write().take();
        drop(held);
    }

    /// From here on this disk tier is given up.
    pub(crate) fn fail(&self, failure: Failure) {
        self.failure.lock().get_or_insert(failure);
        self.failed.store(true, Ordering::Release);
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        if self.failed.load(Ordering::Acquire) { self.failure.lock().clone() } else { None }
    }

    /// Writes wait, at least for so long; the reason replaces an earlier one.
    pub(crate) fn pause(&self, reason: String, so_long: Duration) {
        let mut paused = self.paused.lock();
        if paused.as_ref().is_none_or(|(known, _)| *known != reason) {
            tracing::warn!(reason, "nothing is written to disk for now");
        }
        *paused = Some((reason, Instant::now() + so_long));
        self.is_paused.store(true, Ordering::Relaxed);
    }

    /// Writes go on if they have waited long enough; what fails again pauses them again.
    pub(crate) fn resume_if_over(&self) {
        let mut paused = self.paused.lock();
        if paused.take_if(|(_, until)| *until <= Instant::now()).is_some() {
            self.is_paused.store(false, Ordering::Relaxed);
            tracing::info!("the disk tier takes writes again");
        }
    }

    pub(crate) fn paused(&self) -> Option<String> {
        if !self.is_paused.load(Ordering::Relaxed) {
            return None;
        }
        self.paused.lock().as_ref().map(|(reason, _)| reason.clone())
    }

    pub(crate) fn is_writable(&self) -> bool {
        !self.failed.load(Ordering::Acquire) && !self.is_paused.load(Ordering::Relaxed)
    }

    /// A call of the index; None: it failed, or the tier was given up meanwhile.
    fn ask<R>(&self, call: impl FnOnce(&dyn Index) -> Result<R, IndexError>) -> Option<R> {
        if self.failed.load(Ordering::Acquire) {
            return None;
        }
        let held = self.index.read().clone()?;
        let answer = {
            let _watched = self.watch.call();
            call(&*held.index)
        };
        match answer {
            Ok(answer) => (!self.failed.load(Ordering::Acquire)).then_some(answer),
            Err(error) => {
                self.fail(Failure::from(&error));
                None
            }
        }
    }

    /// None: the tier failed. Some(None): there is no such entry.
    #[expect(clippy::option_option, reason = "failed, absent and found are three answers")]
    pub(crate) fn get(&self, key: &IndexKey) -> Option<Option<Vec<u8>>> {
        self.ask(|index| index.get(key))
    }

    pub(crate) fn put(&self, key: &IndexKey, value: &[u8]) -> Option<()> {
        self.usage.put(key.len() + value.len());
        self.ask(|index| index.put(key, value))
    }

    pub(crate) fn remove(&self, key: &IndexKey) -> Option<()> {
        self.usage.put(key.len());
        self.ask(|index| index.remove(key))
    }

    pub(crate) fn walk(&self, after: Option<&IndexKey>, visit: &mut Visit<'_>) -> Option<()> {
        self.ask(|index| index.walk(after, visit))
    }

    pub(crate) fn put_meta(&self, name: &str, value: &[u8]) -> Option<()> {
        self.ask(|index| index.put_meta(name, value))
    }

    /// Another database is the index from here on; returns the old one.
    pub(super) fn replace_index(&self, index: Arc<dyn Index>) -> Option<Arc<Held>> {
        // Not while a flush measures the old one.
        let _order = self.flushing.lock();
        self.index.write().replace(Held::new(index))
    }

    /// What counts against the budget.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.segments.used_bytes() + self.usage.index_bytes()
    }

    /// A new segment; the index remembers that its id is used.
    pub(crate) fn create_segment(&self) -> io::Result<Arc<Segment>> {
        let segment = self.segments.create()?;
        let next = self.segments.next_id().to_le_bytes();
        if self.put_meta(META_NEXT_SEGMENT, &next).is_none() {
            self.segments.remove(segment.id);
            return Err(io::Error::other("the index failed"));
        }
        Ok(segment)
    }

    pub(crate) fn soil(&self, segment: &Arc<Segment>) {
        let mut dirty = self.dirty.lock();
        if dirty.iter().all(|one| one.id != segment.id) {
            dirty.push(Arc::clone(segment));
        }
    }

    /// Bodies first, then the index that names them, then the segments that it names no more.
    pub(crate) fn flush(&self) {
        let _one_at_a_time = self.flushing.lock();
        let doomed = self.segments.doomed();
        let dirty = std::mem::take(&mut *self.dirty.lock());
        for segment in &dirty {
            let _watched = self.watch.call();
            let synced = self.faults.at(Step::SegmentSync).and_then(|()| segment.file.sync_data());
            if let Err(error) = synced {
                let reason = format!("segment {}: sync: {error}", segment.id);
                self.fail(Failure { reason, is_for_space: is_no_space(&error) });
                return;
            }
        }
        if self.ask(|index| index.flush()).is_none() {
            return;
        }
        doomed.iter().for_each(|(id, _)| self.segments.remove_doomed(*id));
        if let Some(bytes) = self.ask(|index| index.size_bytes()) {
            self.usage.measured(bytes);
        }
    }

    pub(crate) fn doom(&self, segment: u64) {
        self.segments.set_phase(segment, Phase::Doomed);
    }
}
