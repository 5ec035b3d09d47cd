//! Room on disk: the budget, the reserve, eviction by whole segments.
//!
//! Always true:
//! - Segments and index together stay within `disk_max` plus one segment: what would exceed that is not written.
//! - The oldest segment goes first (FIFO), unless more than half of it was used since it was its turn the last time: then it is
//!   spared, and goes to the end of the queue as it is. Of one that goes, what was used is written again, at most half of
//!   it, so that each eviction frees something.
//! - Eviction plans with what the index needs; what sled takes beyond that for a while is for the rebuild to give back
//!   (`rebuild`), and costs responses only where the bound itself would be passed.
//! - Writes pause while the file system has less than the reserve, or a while after a write failed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Disk;
use super::writer::{Writer, body_place, entry_bytes};
use crate::catalog::{Resident, Which};
use crate::index::index_key;
use crate::record;
use crate::response::{Place, StoredResponse};
use crate::segment::RecordHeader;

/// Segments that are looked at to find one that goes. If all are in use, the one that is least so goes.
const CANDIDATES: usize = 8;
/// The longest record that is moved. A longer one has a segment of its own, which is spared or goes as a whole.
const MOVE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// A segment of which more is in use is spared.
const USED_PERCENT_SPARED: u64 = 50;

/// What became of a response that was to be moved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    Yes,
    /// It is not in that segment any more.
    Elsewhere,
    /// It is damaged.
    Unreadable,
    /// It does not fit, or nothing can be written.
    NoRoom,
}

impl Writer<'_> {
    /// What eviction reckons with.
    fn planned_bytes(&self) -> u64 {
        let doomed: u64 = self.disk.segments.doomed().iter().map(|(_, bytes)| *bytes).sum();
        let index = self.disk.usage.index_bytes().min(self.index_allowance());
        self.disk.segments.used_bytes().saturating_sub(doomed) + index
    }

    /// True when so many bytes more may be written, if need be after eviction.
    pub(super) fn has_room(&mut self, bytes: u64) -> bool {
        let (max, segment) = (self.shared.config.disk_max, self.shared.config.segment_bytes());
        self.make_room(bytes);
        self.shared.spend_free(&self.disk, bytes);
        let fits = |disk: &Disk| disk.used_bytes() + bytes <= max + segment;
        // What cannot be removed now takes its space however much more is evicted.
        if !fits(&self.disk) && self.disk.segments.doomed().is_empty() {
            // The index takes more than is planned with until it is rebuilt.
            if let Some((segment, residents)) = self.next_to_go() {
                self.evict(segment, residents);
                self.disk.flush();
            }
        }
        self.disk.is_writable() && fits(&self.disk)
    }

    /// Evicts until `bytes` more fit.
    pub(super) fn make_room(&mut self, bytes: u64) {
        let segment = self.shared.config.segment_bytes();
        // What is written again lies on disk twice until the segment is gone.
        let max = self.shared.config.disk_max.saturating_sub(segment / 2);
        if self.planned_bytes() + bytes <= max {
            return;
        }
        // Some room at once, so that not every write pays for a flush.
        let target = max.saturating_sub(segment);
        while self.planned_bytes() + bytes > target && self.disk.failure().is_none() {
            let Some((segment, residents)) = self.next_to_go() else { break };
            self.evict(segment, residents);
            self.shared.is_disk_full.store(true, Ordering::Relaxed);
            if self.disk.used_bytes() > max {
                self.disk.flush();
            }
        }
        self.disk.flush();
        self.note_pressure();
        self.shared.room.notify_all();
    }

    /// From when on a response has to be asked for twice before it is written: until far more has gone than eviction takes.
    fn note_pressure(&self) {
        let (max, segment) = (self.shared.config.disk_max, self.shared.config.segment_bytes());
        let was_full = self.shared.is_disk_full.load(Ordering::Relaxed);
        let margin = if was_full { (5 * segment).max(max / 8) } else { 3 * segment };
        self.shared.is_disk_full.store(self.planned_bytes() + margin > max, Ordering::Relaxed);
    }

    /// The segment that is evicted next. Those before it that are in use are spared.
    fn next_to_go(&mut self) -> Option<(u64, Vec<Resident>)> {
        let closed = self.disk.segments.closed();
        let candidates = &closed[..closed.len().min(CANDIDATES)];
        let ids: Vec<u64> = candidates.iter().map(|(id, _)| *id).collect();
        let mut residents = self.shared.catalog.of_segments(&ids);
        let mut least: Option<(u64, u64)> = None;
        let mut spared = Vec::new();
        for (id, bytes) in candidates {
            let residents = residents.get_mut(id)?;
            for resident in residents.iter_mut() {
                resident.used |= self.is_used_in_memory(resident.which);
            }
            let used: u64 = residents.iter().filter(|resident| resident.used).map(|resident| resident.bytes).sum();
            let percent = used * 100 / bytes.max(&1);
            if least.is_none_or(|(known, _)| percent < known) {
                least = Some((percent, *id));
            }
            if percent <= USED_PERCENT_SPARED {
                break;
            }
            spared.push(*id);
        }
        let (_, segment) = least?;
        for id in spared.into_iter().filter(|id| *id != segment) {
            residents.remove(&id)?.iter().for_each(|resident| self.begin_anew(resident.which));
            self.disk.segments.requeue(id);
        }
        Some((segment, residents.remove(&segment)?))
    }

    /// Whoever wants it spared the next time has to use it again.
    fn begin_anew(&self, which: Which) {
        self.shared.catalog.clear_used(which);
        self.in_memory(which, |one| one.used.store(false, Ordering::Relaxed));
    }

    /// Empties a segment: what was used is appended elsewhere, the rest is removed.
    fn evict(&mut self, segment: u64, residents: Vec<Resident>) {
        self.end_compaction_of(segment);
        let mut budget = self.disk.segments.size_of(segment).unwrap_or(0) / 2;
        for Resident { which, used, .. } in residents {
            if used {
                self.begin_anew(which);
                match self.move_response(which, segment, &mut budget) {
                    Moved::Yes => {
                        self.shared.counters.moved.add(1);
                        continue;
                    }
                    Moved::Elsewhere => continue,
                    Moved::Unreadable | Moved::NoRoom => {}
                }
            }
            if self.disk.failure().is_some() {
                return;
            }
            // A body in memory may stay; one that lies in this segment would keep the file alive.
            let store = self.disk.store;
            let lies_here = |place: Option<Place>| {
                place.is_some_and(|place| place.segment.id == segment && place.segment.store == store)
            };
            let is_doomed = |one: &Arc<StoredResponse>| one.bytes.is_none() && lies_here(one.body.place());
            let card_goes = || self.shared.keep_in_memory(which);
            let (_, let_go) = self.shared.memory.remove_some(which.key, is_doomed, card_goes);
            self.shared.let_go(let_go);
            self.in_memory(which, |one| {
                if lies_here(one.body.place()) {
                    one.body.set_place(None);
                }
            });
            self.shared.counters.responses_evicted.add(1);
            self.forget(which);
        }
        if self.disk.failure().is_some() {
            return;
        }
        self.disk.doom(segment);
        self.shared.catalog.forget_segment(segment);
        self.shared.counters.segments_evicted.add(1);
    }

    /// The disk has it no more; the memory tier may.
    pub(super) fn lose(&self, which: Which) {
        if self.disk.failure().is_some() {
            return;
        }
        self.shared.keep_in_memory(which);
        self.forget(which);
    }

    fn is_used_in_memory(&self, which: Which) -> bool {
        self.in_memory(which, |one| one.used.load(Ordering::Relaxed)).unwrap_or(false)
    }

    /// Does something with the response that the memory tier has of the variant.
    fn in_memory<R>(&self, which: Which, look: impl FnOnce(&StoredResponse) -> R) -> Option<R> {
        let variants = self.shared.memory.peek(which.key)?;
        variants.iter().find(|one| one.variant == which.variant).map(|one| look(one))
    }

    /// Appends a response elsewhere; `budget` is what may still be moved.
    pub(super) fn move_response(&mut self, which: Which, from: u64, budget: &mut u64) -> Moved {
        if self.shared.catalog.segment_of(which) != Some(from) {
            return Moved::Elsewhere;
        }
        let Some(value) = self.disk.get(&index_key(which.key, which.variant)) else { return Moved::NoRoom };
        let Some(entry) = value.and_then(|value| record::decode(&value).ok()) else { return Moved::Unreadable };
        let bytes = crate::segment::record_bytes(entry.place.length);
        if entry.serial != which.serial || entry.place.segment != from {
            return Moved::Unreadable;
        }
        // It is read whole into memory.
        if bytes > *budget || bytes > MOVE_BYTES_MAX {
            return Moved::NoRoom;
        }
        let header = RecordHeader {
            key: which.key,
            variant: which.variant,
            serial: entry.place.serial,
            length: entry.place.length,
        };
        let body = {
            let _watched = self.shared.watch.call();
            let read = self.disk.segments.get(from).map_err(|error| error.to_string());
            read.and_then(|segment| segment.read_whole(entry.place.offset, &header).map_err(|error| error.to_string()))
        };
        let Ok(body) = body else {
            self.shared.counters.damaged.add(1);
            return Moved::Unreadable;
        };
        self.shared.spend_free(&self.disk, bytes);
        if !self.disk.is_writable() {
            return Moved::NoRoom;
        }
        let place = match self.append(&header, &body) {
            Ok(place) => place,
            Err(error) => {
                self.write_failed(&error);
                return Moved::NoRoom;
            }
        };
        *budget -= bytes;
        let value = record::encode(&entry.head, entry.trailers.as_ref(), entry.serial, body_place(&place));
        let Some(value) = value else { return Moved::Unreadable };
        if self.put_entry(which, &value).is_none() {
            return Moved::NoRoom;
        }
        if self.shared.catalog.placed(which, place.segment.id, entry_bytes(&value)) {
            self.move_in_memory(which, &place);
        }
        Moved::Yes
    }

    fn move_in_memory(&self, which: Which, place: &Place) {
        if let Some(variants) = self.shared.memory.peek(which.key) {
            let moved = variants.iter().filter(|one| one.variant == which.variant && one.serial == which.serial);
            moved.for_each(|one| one.body.set_place(Some(place.clone())));
        }
    }

    /// Once every `flush_every`: reserve, dead segments, what is worth compacting or rebuilding.
    pub(super) fn housekeeping(&mut self) {
        self.shared.look_at_free(&self.disk);
        self.disk.resume_if_over();
        for (id, _) in self.disk.segments.closed() {
            if self.shared.catalog.live_bytes(id) == 0 {
                self.end_compaction_of(id);
                self.disk.doom(id);
                self.shared.catalog.forget_segment(id);
            }
        }
        self.make_room(0);
        self.note_pressure();
        self.rebuild_if_worth_it();
        self.compact_if_worth_it();
    }
}
