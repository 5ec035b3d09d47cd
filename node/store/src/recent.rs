//! Which keys were hit in the last minutes, and how often: a sample, so that a hit costs next to nothing.
//!
//! Always true:
//! - A hit is noted in one of [`SHARDS`] places, by its thread: threads meet only where there are more of them than places.
//! - Of each [`SLOT`] each place remembers how many hits there were, and [`SAMPLES`] keys of them, each hit with the same chance. All
//!   together that is 2.5 MiB at most.
//! - What is told is an estimate and decides nothing but an order and a forecast.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use brim_semantics::KeyHash;
use parking_lot::Mutex;

/// Places in which hits are noted.
const SHARDS: usize = 16;
/// A stretch of time that is remembered and forgotten as one.
const SLOT: Duration = Duration::from_secs(30);
/// As many make five minutes.
const SLOTS: usize = 10;
/// Keys of one slot and place.
const SAMPLES: usize = 1024;

#[derive(Debug, Default)]
struct Slot {
    /// Counted from the beginning; 0 is none.
    number: u64,
    hits: u64,
    samples: Vec<KeyHash>,
}

/// On cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Place {
    slots: [Slot; SLOTS],
    random: u64,
}

#[derive(Debug)]
pub(crate) struct Recent {
    begun: Instant,
    places: [Mutex<Place>; SHARDS],
}

/// Hits of the last minutes.
#[derive(Debug, Default)]
pub(crate) struct Hits {
    pub(crate) count: u64,
    pub(crate) by_key: HashMap<KeyHash, f64>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { begun: Instant::now(), places: std::array::from_fn(|_| Mutex::default()) }
    }
}

/// The place of the calling thread.
fn place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static PLACE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    PLACE.with(|place| {
        if place.get() == usize::MAX {
            place.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        place.get()
    })
}

impl Recent {
    #[inline]
    pub(crate) fn note(&self, key: KeyHash, at: Instant) {
        self.note_at(key, at.saturating_duration_since(self.begun));
    }

    fn number(since: Duration) -> u64 {
        since.as_secs() / SLOT.as_secs() + 1
    }

    fn note_at(&self, key: KeyHash, since: Duration) {
        let number = Self::number(since);
        let mut place = self.places[place()].lock();
        // splitmix64: any bits will do, they only have to be spread.
        place.random = place.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut random = place.random;
        random = (random ^ (random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        random = (random ^ (random >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        random ^= random >> 31;
        let Some(slot) = place.slots.get_mut(usize::try_from(number % SLOTS as u64).unwrap_or(0)) else { return };
        if slot.number != number {
            slot.number = number;
            slot.hits = 0;
            slot.samples.clear();
        }
        slot.hits += 1;
        if slot.samples.len() < SAMPLES {
            // All at once, the first time that the slot is used.
            slot.samples.reserve_exact(SAMPLES - slot.samples.len());
            slot.samples.push(key);
            return;
        }
        // The n-th hit takes a place with a chance of SAMPLES in n.
        let at = random % slot.hits;
        if let Some(sample) = usize::try_from(at).ok().and_then(|at| slot.samples.get_mut(at)) {
            *sample = key;
        }
    }

    pub(crate) fn hits(&self) -> Hits {
        self.hits_at(self.begun.elapsed())
    }

    fn hits_at(&self, since: Duration) -> Hits {
        let newest = Self::number(since);
        let mut hits = Hits::default();
        for place in &self.places {
            // Copied under the lock, counted without it: hits must not wait for that.
            let recent = |slot: &&Slot| slot.number > 0 && slot.number + SLOTS as u64 > newest;
            let slots: Vec<(u64, Vec<KeyHash>)> = {
                let place = place.lock();
                place.slots.iter().filter(recent).map(|slot| (slot.hits, slot.samples.clone())).collect()
            };
            for (count, samples) in slots {
                hits.count += count;
                let weight = count as f64 / samples.len().max(1) as f64;
                samples.iter().for_each(|key| *hits.by_key.entry(*key).or_default() += weight);
            }
        }
        hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> KeyHash {
        KeyHash([n; 16])
    }

    #[test]
    fn few_hits_are_known_exactly_and_forgotten_after_five_minutes() {
        let recent = Recent::default();
        let at = Duration::from_secs;
        for (n, second) in [(1, 0), (1, 31), (2, 31), (1, 290)] {
            recent.note_at(key(n), at(second));
        }
        let hits = recent.hits_at(at(295));
        assert_eq!((hits.count, hits.by_key[&key(1)], hits.by_key[&key(2)]), (4, 3.0, 1.0));
        assert_eq!(recent.hits_at(at(300)).count, 3, "the first half minute is gone");
        assert_eq!(recent.hits_at(at(10_000)).count, 0);
        recent.note_at(key(3), at(10_000));
        assert_eq!(recent.hits_at(at(10_000)).count, 1);
    }

    /// More hits than are remembered: each with the same chance, whenever it came.
    #[test]
    fn of_many_hits_the_shares_are_about_right() {
        let recent = Recent::default();
        for n in 0..100_000_u32 {
            // The first half asks for 1, then half for 2 and half for 3.
            let asked = if n < 50_000 { 1 } else { 2 + (n % 2) as u8 };
            recent.note_at(key(asked), Duration::from_secs(5));
        }
        let hits = recent.hits_at(Duration::from_secs(5));
        assert_eq!(hits.count, 100_000);
        for (n, expected) in [(1, 50_000.0), (2, 25_000.0), (3, 25_000.0)] {
            let found = hits.by_key[&key(n)];
            assert!((found - expected).abs() < 6_000.0, "{n}: {found}");
        }
    }
}
