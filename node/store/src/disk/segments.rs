//! The set of segment files: ids, sizes, handles.
//!
//! Always true:
//! - An id is used once: the next one is above every file, every index entry and what the index remembers.
//! - `used_bytes` counts a file from its first byte until it is unlinked.
//! - Few files are kept open: those somebody reads, and the last [`RECENT_MAX`].

use std::collections::{BTreeMap, VecDeque};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::dir::StoreId;
use crate::faults::{Faults, Step};
use crate::segment::{FILE_HEADER_BYTES, Segment, file_header};

/// Handles kept for the next read.
const RECENT_MAX: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Being written, by the writer or by a fill.
    Growing,
    /// Complete; may be evicted.
    Closed,
    /// Emptied; goes with the next flush.
    Doomed,
}

#[derive(Debug)]
struct Known {
    bytes: u64,
    /// Its place among those that may be evicted: the lowest goes first.
    order: u64,
    phase: Phase,
    handle: Weak<Segment>,
    /// It could not be removed once, and that was said.
    is_stuck: bool,
}

#[derive(Debug)]
pub(crate) struct Segments {
    dir: PathBuf,
    store: StoreId,
    next_id: AtomicU64,
    next_order: AtomicU64,
    used: AtomicU64,
    known: Mutex<BTreeMap<u64, Known>>,
    recent: Mutex<VecDeque<Arc<Segment>>>,
    faults: Faults,
}

fn path_of(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:08}"))
}

impl Segments {
    /// Finds the files in `dir`; names that are not ids are left alone.
    pub(crate) fn open(dir: &Path, store: StoreId, faults: Faults) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut known = BTreeMap::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) else { continue };
            let bytes = entry.metadata()?.len();
            let one = Known { bytes, order: 0, phase: Phase::Closed, handle: Weak::new(), is_stuck: false };
            known.insert(id, one);
        }
        let next_id = known.keys().next_back().map_or(1, |last| last + 1);
        (0..).zip(known.values_mut()).for_each(|(order, known)| known.order = order);
        Ok(Self {
            dir: dir.to_owned(),
            store,
            next_id: AtomicU64::new(next_id),
            next_order: AtomicU64::new(known.len() as u64),
            used: AtomicU64::new(known.values().map(|known| known.bytes).sum()),
            known: Mutex::new(known),
            recent: Mutex::default(),
            faults,
        })
    }

    pub(crate) fn above(&self, id: u64) {
        self.next_id.fetch_max(id.saturating_add(1), Ordering::Relaxed);
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.load(Ordering::Relaxed)
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self) -> u64 {
        self.known.lock().len() as u64
    }

    pub(crate) fn create(&self) -> io::Result<Arc<Segment>> {
        self.faults.at(Step::SegmentCreate)?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let path = path_of(&self.dir, id);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        if let Err(error) = file.write_all_at(&file_header(id, self.store), 0) {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let segment = Arc::new(Segment { id, store: self.store, file });
        let order = self.next_order.fetch_add(1, Ordering::Relaxed);
        let handle = Arc::downgrade(&segment);
        let known = Known { bytes: FILE_HEADER_BYTES, order, phase: Phase::Growing, handle, is_stuck: false };
        self.known.lock().insert(id, known);
        self.used.fetch_add(FILE_HEADER_BYTES, Ordering::Relaxed);
        Ok(segment)
    }

    /// A handle; opened and its header compared when nobody has one.
    pub(crate) fn get(&self, id: u64) -> io::Result<Arc<Segment>> {
        {
            let known = self.known.lock();
            let known = known.get(&id).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            if let Some(segment) = known.handle.upgrade() {
                return Ok(segment);
            }
        }
        self.faults.at(Step::SegmentRead)?;
        let file = OpenOptions::new().read(true).open(path_of(&self.dir, id))?;
        let mut header = [0; 64];
        file.read_exact_at(&mut header, 0)?;
        if header != file_header(id, self.store) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the segment is another one, or its header damaged",
            ));
        }
        let segment = Arc::new(Segment { id, store: self.store, file });
        if let Some(known) = self.known.lock().get_mut(&id) {
            known.handle = Arc::downgrade(&segment);
        }
        let mut recent = self.recent.lock();
        if recent.len() >= RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(&segment));
        Ok(segment)
    }

    pub(crate) fn size_of(&self, id: u64) -> Option<u64> {
        self.known.lock().get(&id).map(|known| known.bytes)
    }

    /// Counted before the bytes are written.
    pub(crate) fn grow(&self, id: u64, bytes: u64) {
        if let Some(known) = self.known.lock().get_mut(&id) {
            known.bytes += bytes;
            self.used.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn set_phase(&self, id: u64, phase: Phase) {
        if let Some(known) = self.known.lock().get_mut(&id) {
            known.phase = phase;
        }
    }

    /// Closed segments with their size, in the order in which they may be evicted.
    pub(crate) fn closed(&self) -> Vec<(u64, u64)> {
        let known = self.known.lock();
        let closed = known.iter().filter(|(_, known)| known.phase == Phase::Closed);
        let mut closed: Vec<_> = closed.map(|(id, known)| (known.order, *id, known.bytes)).collect();
        closed.sort_unstable();
        closed.into_iter().map(|(_, id, bytes)| (id, bytes)).collect()
    }

    /// It is the last to be evicted from now on.
    pub(crate) fn requeue(&self, id: u64) {
        if let Some(known) = self.known.lock().get_mut(&id) {
            known.order = self.next_order.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn doomed(&self) -> Vec<(u64, u64)> {
        let known = self.known.lock();
        known.iter().filter(|(_, known)| known.phase == Phase::Doomed).map(|(id, known)| (*id, known.bytes)).collect()
    }

    /// Takes a segment back that was to go: something in it is wanted again. False: it is gone.
    pub(crate) fn revive(&self, id: u64) -> bool {
        let mut known = self.known.lock();
        let Some(known) = known.get_mut(&id) else { return false };
        if known.phase == Phase::Doomed {
            known.phase = Phase::Closed;
        }
        true
    }

    /// Removes a segment unless it was revived.
    pub(crate) fn remove_doomed(&self, id: u64) {
        self.remove_if(id, |phase| phase == Phase::Doomed);
    }

    /// Unlinks the file. Who still reads it may go on.
    pub(crate) fn remove(&self, id: u64) {
        self.remove_if(id, |_| true);
    }

    fn remove_if(&self, id: u64, is_wanted: impl Fn(Phase) -> bool) {
        // Looked at and taken in one step: who revives it comes before or finds it gone.
        let taken = {
            let mut known = self.known.lock();
            if known.get(&id).is_some_and(|found| is_wanted(found.phase)) { known.remove(&id) } else { None }
        };
        let Some(known) = taken else { return };
        self.recent.lock().retain(|segment| segment.id != id);
        match self.faults.at(Step::SegmentRemove).and_then(|()| std::fs::remove_file(path_of(&self.dir, id))) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                if !known.is_stuck {
                    tracing::warn!(segment = id, %error, "a segment file cannot be removed; each flush tries again");
                }
                // It still takes its space.
                self.known.lock().insert(id, Known { phase: Phase::Doomed, is_stuck: true, ..known });
                return;
            }
        }
        self.used.fetch_sub(known.bytes, Ordering::Relaxed);
    }
}
