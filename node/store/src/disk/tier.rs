//! One opened disk tier: index and segments of one store id.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::segments::{Phase, Segments};
use crate::dir::StoreId;
use crate::index::{Index, IndexError};
use crate::segment::Segment;

/// The name under which the index remembers the next segment id.
pub(crate) const META_NEXT_SEGMENT: &str = "next_segment";
/// The name under which the index remembers whose it is.
pub(crate) const META_STORE: &str = "store";

pub(crate) struct Disk {
    pub(crate) store: StoreId,
    pub(crate) index: Box<dyn Index>,
    pub(crate) segments: Segments,
    pub(crate) index_bytes: AtomicU64,
    /// Segments with bytes that are not synced.
    dirty: Mutex<Vec<Arc<Segment>>>,
    flushing: Mutex<()>,
    failure: Mutex<Option<String>>,
    failed: AtomicBool,
    /// Writes wait for room on the file system.
    pub(crate) paused: AtomicBool,
}

impl Disk {
    pub(crate) fn new(store: StoreId, index: Box<dyn Index>, segments: Segments) -> Self {
        Self {
            store,
            index,
            segments,
            index_bytes: AtomicU64::new(0),
            dirty: Mutex::default(),
            flushing: Mutex::default(),
            failure: Mutex::default(),
            failed: AtomicBool::new(false),
            paused: AtomicBool::new(false),
        }
    }

    /// From here on this disk tier is given up.
    pub(crate) fn fail(&self, reason: impl std::fmt::Display) {
        self.failure.lock().get_or_insert_with(|| reason.to_string());
        self.failed.store(true, Ordering::Release);
    }

    pub(crate) fn failure(&self) -> Option<String> {
        if self.failed.load(Ordering::Acquire) { self.failure.lock().clone() } else { None }
    }

    pub(crate) fn is_writable(&self) -> bool {
        !self.failed.load(Ordering::Acquire) && !self.paused.load(Ordering::Relaxed)
    }

    /// Notes a failed call of the index.
    pub(crate) fn checked<R>(&self, result: Result<R, IndexError>) -> Option<R> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    /// What counts against the budget. The index counts for half of it at most: sled gives space back late, and no
    /// eviction makes it smaller at once.
    pub(crate) fn used_bytes(&self, disk_max: u64) -> u64 {
        self.segments.used_bytes() + self.index_bytes.load(Ordering::Relaxed).min(disk_max / 2)
    }

    /// A new segment; the index remembers that its id is used.
    pub(crate) fn create_segment(&self) -> io::Result<Arc<Segment>> {
        let segment = self.segments.create()?;
        let next = self.segments.next_id().to_le_bytes();
        if self.checked(self.index.put_meta(META_NEXT_SEGMENT, &next)).is_none() {
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
            if let Err(error) = segment.file.sync_data() {
                self.fail(format!("segment {}: sync: {error}", segment.id));
                return;
            }
        }
        if self.checked(self.index.flush()).is_none() {
            return;
        }
        doomed.iter().for_each(|(id, _)| self.segments.remove_doomed(*id));
        if let Ok(bytes) = self.index.size_bytes() {
            self.index_bytes.store(bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn doom(&self, segment: u64) {
        self.segments.set_phase(segment, Phase::Doomed);
    }
}
