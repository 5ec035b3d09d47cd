//! Compaction: what is alive in a segment of mostly dead bytes is appended elsewhere, and the segment goes.
//!
//! Always true:
//! - It goes on in slices between the writer's other work, at no more than [`COMPACT_BYTES_PER_SECOND`].
//! - A response is never lost to it for want of room: what cannot be written stays where it is.

use std::time::{Duration, Instant};

use super::space::Moved;
use super::writer::Writer;
use crate::catalog::Which;

/// A segment with a smaller share of live bytes is worth rewriting.
const COMPACT_BELOW_PERCENT: u64 = 90;
/// Dead bytes that are tolerated: this share of the live ones, and a little of the budget, so that a small store is left alone.
const DEAD_PERCENT_MAX: u64 = 15;
const DEAD_PARTS_OF_BUDGET: u64 = 128;
/// What compaction, and the rebuilding of the index, may write.
pub(super) const COMPACT_BYTES_PER_SECOND: u64 = 64 * 1024 * 1024;
/// What is moved before the next write gets its turn.
pub(super) const SLICE_BYTES: u64 = 1024 * 1024;

/// A segment that is being emptied.
pub(super) struct Compaction {
    pub(super) segment: u64,
    rest: Vec<Which>,
    /// The next slice is not before this.
    next: Instant,
}

/// How long work that wrote so much pauses.
pub(super) fn pace(bytes: u64) -> Duration {
    Duration::from_micros(bytes.saturating_mul(1_000_000) / COMPACT_BYTES_PER_SECOND)
}

impl Writer<'_> {
    /// Begins with the emptiest segment, if there are more dead bytes than are tolerated.
    pub(super) fn compact_if_worth_it(&mut self) {
        if self.compaction.is_some() || !self.disk.is_writable() {
            return;
        }
        let live = self.shared.catalog.bytes();
        let tolerated = live + (live / 100 * DEAD_PERCENT_MAX).max(self.shared.config.disk_max / DEAD_PARTS_OF_BUDGET);
        let doomed: u64 = self.disk.segments.doomed().iter().map(|(_, bytes)| *bytes).sum();
        if self.disk.segments.used_bytes() - doomed.min(self.disk.segments.used_bytes()) <= tolerated {
            return;
        }
        let share = |id: u64, bytes: u64| self.shared.catalog.live_bytes(id) * 100 / bytes.max(1);
        // A long body has a segment of its own, which is dead as a whole or not at all.
        let movable = |bytes: u64| bytes <= 2 * self.shared.config.segment_bytes();
        let closed = self.disk.segments.closed().into_iter().filter(|(_, bytes)| movable(*bytes));
        let emptiest = closed.map(|(id, bytes)| (share(id, bytes), id)).min();
        match emptiest.filter(|(percent, _)| *percent < COMPACT_BELOW_PERCENT) {
            Some((_, segment)) => {
                let residents = self.shared.catalog.of_segments(&[segment]).remove(&segment).unwrap_or_default();
                let rest = residents.into_iter().map(|resident| resident.which).collect();
                self.compaction = Some(Compaction { segment, rest, next: Instant::now() });
            }
            // What is dead is in the open segment.
            None if self.open.as_ref().is_some_and(|open| open.at > self.shared.config.segment_bytes() / 4) => {
                self.close_open();
            }
            None => {}
        }
    }

    /// When the next slice may be done; a long time if there is nothing to do.
    pub(super) fn pause_of_background_work(&self) -> Duration {
        let next = self.compaction.as_ref().map(|compaction| compaction.next);
        let next = next.into_iter().chain(self.rebuilds.next_slice()).min();
        next.map_or(Duration::MAX, |next| next.saturating_duration_since(Instant::now()))
    }

    /// A slice of compaction and one of the index's rebuilding, as far as their pace allows.
    pub(super) fn background_work(&mut self) {
        self.rebuild_slice();
        let Some(mut compaction) = self.compaction.take_if(|compaction| compaction.next <= Instant::now()) else {
            return;
        };
        let began = Instant::now();
        let mut moved = 0;
        while moved < SLICE_BYTES {
            let Some(which) = compaction.rest.pop() else {
                // Something may have come back to it meanwhile, by a validation: then another round sees to that.
                if self.shared.catalog.live_bytes(compaction.segment) == 0 {
                    self.disk.doom(compaction.segment);
                    self.shared.catalog.forget_segment(compaction.segment);
                    self.shared.counters.segments_compacted.add(1);
                }
                break;
            };
            let mut budget = u64::MAX;
            match self.move_response(which, compaction.segment, &mut budget) {
                Moved::Yes => {
                    moved += u64::MAX - budget;
                    self.shared.counters.compacted_bytes.add(u64::MAX - budget);
                }
                Moved::Elsewhere => {}
                Moved::Unreadable => self.lose(which),
                // The segment stays as it is; a later round tries again.
                Moved::NoRoom => return,
            }
        }
        self.shared.counters.compaction_us.add(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        if moved >= SLICE_BYTES {
            compaction.next = began + pace(moved);
            self.compaction = Some(compaction);
        }
    }

    /// Another segment is emptied for want of room: it may be the one that is being compacted.
    pub(super) fn end_compaction_of(&mut self, segment: u64) {
        self.compaction.take_if(|compaction| compaction.segment == segment);
    }
}
