//! Segments as the store has them: appended to, and evicted whole, the oldest first.

use std::collections::{HashMap, VecDeque};

use crate::policy::{Plan, Policy};

/// What of an evicted segment is written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Nothing,
    /// What was hit since it was written, up to half of the segment.
    Used,
}

struct Held {
    segment: u64,
    bytes: u64,
    is_used: bool,
}

#[derive(Default)]
struct Segment {
    bytes: u64,
    numbers: Vec<u64>,
}

pub(crate) struct Segments {
    capacity: u64,
    segment_bytes: u64,
    keep: Keep,
    held: HashMap<u64, Held>,
    /// The oldest first; the last one is open.
    segments: VecDeque<Segment>,
    /// The id of the first of them.
    first: u64,
    used: u64,
    written: u64,
}

impl Segments {
    pub(crate) fn new(plan: &Plan, keep: Keep) -> Self {
        Self {
            capacity: plan.disk_max,
            segment_bytes: plan.segment_bytes,
            keep,
            held: HashMap::new(),
            segments: VecDeque::from([Segment::default()]),
            first: 0,
            used: 0,
            written: 0,
        }
    }

    /// Whether the response is there; it counts as used then.
    pub(crate) fn touch(&mut self, number: u64) -> bool {
        self.held.get_mut(&number).is_some_and(|held| {
            held.is_used = true;
            true
        })
    }

    /// Whether the next write, or one of the next, makes something go.
    pub(crate) fn is_full(&self) -> bool {
        self.used + 2 * self.segment_bytes > self.capacity
    }

    pub(crate) fn store(&mut self, number: u64, bytes: u64) {
        self.make_room(bytes);
        self.append(number, bytes);
    }

    /// As the store does: some room at once, and never the open segment.
    fn make_room(&mut self, bytes: u64) {
        if self.used + bytes <= self.capacity {
            return;
        }
        while self.used + bytes > self.capacity - self.segment_bytes && self.segments.len() > 1 {
            self.evict();
        }
    }

    fn evict(&mut self) {
        let Some(oldest) = self.segments.pop_front() else { return };
        let id = self.first;
        self.first += 1;
        self.used -= oldest.bytes;
        let mut budget = oldest.bytes / 2;
        for number in oldest.numbers {
            let Some(held) = self.held.get(&number).filter(|held| held.segment == id) else { continue };
            let bytes = held.bytes;
            if self.keep == Keep::Used && held.is_used && bytes <= budget {
                budget -= bytes;
                self.append(number, bytes);
            } else {
                self.held.remove(&number);
            }
        }
    }

    fn append(&mut self, number: u64, bytes: u64) {
        if self.segments.back().is_none_or(|open| open.bytes > 0 && open.bytes + bytes > self.segment_bytes) {
            self.segments.push_back(Segment::default());
        }
        let segment = self.first + self.segments.len() as u64 - 1;
        if let Some(open) = self.segments.back_mut() {
            open.bytes += bytes;
            open.numbers.push(number);
        }
        self.used += bytes;
        self.written += 1;
        self.held.insert(number, Held { segment, bytes, is_used: false });
    }
}

impl Policy for Segments {
    fn hits(&mut self, number: u64, bytes: u64) -> bool {
        let is_hit = self.touch(number);
        if !is_hit {
            self.store(number, bytes);
        }
        is_hit
    }

    fn written(&self) -> u64 {
        self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four_segments(keep: Keep) -> Segments {
        let mut segments = Segments::new(&Plan { disk_max: 400, segment_bytes: 100, held: 40 }, keep);
        for number in 0..40 {
            assert!(!segments.hits(number, 10));
        }
        assert_eq!((segments.used, segments.segments.len()), (400, 4));
        segments
    }

    #[test]
    fn the_oldest_segment_goes_whole() {
        let mut segments = four_segments(Keep::Nothing);
        assert!(segments.hits(0, 10) && !segments.hits(99, 10));
        // Room for 10 more below 300: two segments went.
        assert!((0..20).all(|number| !segments.touch(number)) && (20..40).all(|number| segments.touch(number)));
        assert_eq!(segments.used, 210);
    }

    #[test]
    fn what_was_hit_is_written_again_up_to_half_a_segment() {
        let mut segments = four_segments(Keep::Used);
        assert!((0..8).all(|number| segments.touch(number)));
        segments.store(99, 10);
        // Of the first segment five stay, of the second none; what was kept needs another segment to go.
        assert_eq!((0..20).filter(|number| segments.held.contains_key(number)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert!(segments.held.values().all(|held| !held.is_used));
        assert_eq!(segments.written(), 40 + 5 + 1);
    }
}
