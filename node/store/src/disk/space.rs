//! Room on disk: the budget, the reserve, eviction by whole segments, compaction.
//!
//! Always true:
//! - Segments and index together stay within `disk_max` plus one segment. The index counts for half of it at most:
//!   sled gives space back late, and no eviction makes it smaller at once.
//! - The oldest segment goes first (FIFO). What was used since it was written is written again, up to half of the
//!   segment, so that each eviction frees something.
//! - Writes pause while the file system has less than `reserve_free`, or a write failed; each round tries again.

use std::sync::atomic::Ordering;

use super::writer::{Writer, body_place};
use crate::catalog::Which;
use crate::index::index_key;
use crate::record;
use crate::response::Place;
use crate::segment::RecordHeader;

/// A segment with a smaller share of live bytes is worth rewriting.
const COMPACT_BELOW_PERCENT: u64 = 70;
/// Dead bytes that are tolerated: this share of the live ones, and two segments.
const DEAD_PERCENT_MAX: u64 = 25;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    All,
    Used,
}

impl Writer<'_> {
    fn used_bytes(&self) -> u64 {
        self.disk.used_bytes(self.shared.config.disk_max)
    }

    /// Evicts until `bytes` more fit.
    pub(super) fn make_room(&mut self, bytes: u64) {
        let max = self.shared.config.disk_max;
        if self.used_bytes() + bytes <= max {
            return;
        }
        // Some room at once, so that not every write pays for a flush.
        let target = max.saturating_sub(self.shared.config.segment_bytes());
        loop {
            let doomed: u64 = self.disk.segments.doomed().iter().map(|(_, bytes)| *bytes).sum();
            if self.used_bytes().saturating_sub(doomed) + bytes <= target || self.disk.failure().is_some() {
                break;
            }
            let Some((oldest, _)) = self.disk.segments.closed().first().copied() else { break };
            self.vacate(oldest, Keep::Used);
            self.shared.counters.segments_evicted.add(1);
        }
        self.disk.flush();
        self.shared.room.notify_all();
    }

    /// Empties a segment: what is kept is appended elsewhere, the rest is removed.
    fn vacate(&mut self, segment: u64, keep: Keep) {
        let mut budget = match keep {
            Keep::All => u64::MAX,
            Keep::Used => self.disk.segments.size_of(segment).unwrap_or(0) / 2,
        };
        for (which, used_on_disk) in self.shared.catalog.of_segment(segment) {
            let wanted = keep == Keep::All || used_on_disk || self.was_used_in_memory(which);
            if wanted && self.move_response(which, segment, &mut budget) {
                self.shared.counters.moved.add(1);
                continue;
            }
            if self.shared.catalog.remove(which) {
                self.shared.counters.responses_evicted.add(1);
            }
            self.forget(which);
            // A body in memory may stay; one that lies in this segment would keep the file alive.
            let lies_here = |place: Option<Place>| place.is_some_and(|place| place.segment.id == segment);
            self.shared.memory.remove_some(which.key, |one| one.bytes.is_none() && lies_here(one.body.place()), || ());
        }
        self.disk.doom(segment);
        self.shared.catalog.forget_segment(segment);
    }

    fn was_used_in_memory(&self, which: Which) -> bool {
        let variants = self.shared.memory.peek(which.key);
        variants.is_some_and(|variants| {
            variants.iter().any(|one| one.variant == which.variant && one.used.swap(false, Ordering::Relaxed))
        })
    }

    /// False: it could not be read, did not fit, or is not worth it.
    fn move_response(&mut self, which: Which, from: u64, budget: &mut u64) -> bool {
        let key = index_key(which.key, which.variant);
        let Some(Some(value)) = self.disk.checked(self.disk.index.get(&key)) else { return false };
        let Ok(entry) = record::decode(&value) else { return false };
        let bytes = crate::segment::record_bytes(entry.place.length);
        if entry.serial != which.serial || entry.place.segment != from || bytes > *budget {
            return false;
        }
        // A body in a file of its own is not copied: it is as large as it gets, and would be read whole into memory.
        if entry.place.length > self.shared.config.collect_bytes_max() {
            return false;
        }
        let header = RecordHeader {
            key: which.key,
            variant: which.variant,
            serial: entry.place.serial,
            length: entry.place.length,
        };
        let read = self.disk.segments.get(from).map_err(|error| error.to_string());
        let body =
            read.and_then(|segment| segment.read_whole(entry.place.offset, &header).map_err(|error| error.to_string()));
        let Ok(body) = body else {
            self.shared.counters.damaged.add(1);
            return false;
        };
        let place = match self.append(&header, &body) {
            Ok(place) => place,
            Err(error) => {
                self.write_failed(&error);
                return false;
            }
        };
        *budget -= bytes;
        let value = record::encode(&entry.head, entry.trailers.as_ref(), entry.serial, body_place(&place));
        let entered = value.is_some_and(|value| self.disk.checked(self.disk.index.put(&key, &value)).is_some());
        if entered && self.shared.catalog.placed(which, place.segment.id) {
            self.move_in_memory(which, &place);
        }
        entered
    }

    fn move_in_memory(&self, which: Which, place: &Place) {
        if let Some(variants) = self.shared.memory.peek(which.key) {
            let moved = variants.iter().filter(|one| one.variant == which.variant && one.serial == which.serial);
            moved.for_each(|one| one.body.set_place(Some(place.clone())));
        }
    }

    /// Once every `flush_every`: reserve, dead segments, one segment of compaction.
    pub(super) fn housekeeping(&mut self) {
        self.check_reserve();
        for (id, _) in self.disk.segments.closed() {
            if self.shared.catalog.live_bytes(id) == 0 {
                self.disk.doom(id);
                self.shared.catalog.forget_segment(id);
            }
        }
        self.make_room(0);
        let live = self.shared.catalog.bytes();
        let tolerated = live / 100 * (100 + DEAD_PERCENT_MAX) + 2 * self.shared.config.segment_bytes();
        if self.disk.segments.used_bytes() <= tolerated || !self.disk.is_writable() {
            return;
        }
        let share = |id: u64, bytes: u64| self.shared.catalog.live_bytes(id) * 100 / bytes.max(1);
        let movable = self
            .disk
            .segments
            .closed()
            .into_iter()
            .filter(|(_, bytes)| *bytes <= 2 * self.shared.config.segment_bytes());
        let emptiest = movable.map(|(id, bytes)| (share(id, bytes), id)).min();
        if let Some((percent, id)) = emptiest
            && percent < COMPACT_BELOW_PERCENT
        {
            self.vacate(id, Keep::All);
            self.shared.counters.segments_compacted.add(1);
        }
    }

    fn check_reserve(&self) {
        let free = match rustix::fs::statvfs(&self.shared.config.dir) {
            Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
            // Nothing known: the writes themselves will tell.
            Err(_) => u64::MAX,
        };
        let short = free < self.shared.config.reserve_free;
        let was_paused = self.disk.paused.swap(short, Ordering::Relaxed);
        if short && !was_paused {
            tracing::warn!(
                free,
                reserve = self.shared.config.reserve_free,
                "the file system is nearly full; nothing is written to disk"
            );
        }
        if !short && was_paused {
            tracing::info!("the disk tier takes writes again");
        }
    }
}
