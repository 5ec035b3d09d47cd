//! The watch over calls that may never return: sled has known deadlocks, and disks hang.
//!
//! Always true:
//! - A call that is watched and lasts longer than `stall_after` makes the disk tier dead: its threads are left behind, others
//!   take their place ([`Watch::reset`]).
//! - Watching a call takes no lock. More calls at once than [`SLOTS`] are not watched; the store has fewer threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SLOTS: usize = 32;

/// When each call under way began, or begins to count: microseconds since the watch was made; 0 is no call.
#[derive(Debug)]
pub(crate) struct Watch {
    made: Instant,
    slots: [AtomicU64; SLOTS],
}

/// A call under way.
pub(crate) struct Call<'a> {
    watch: &'a Watch,
    slot: Option<usize>,
    began: u64,
    /// How much longer than others it may last.
    longer: Duration,
}

impl Call<'_> {
    /// It has come so far: its time begins anew.
    pub(crate) fn goes_on(&mut self) {
        let began = self.watch.beginning(self.longer);
        if let Some(slot) = self.slot {
            let _ = self.watch.slots[slot].compare_exchange(self.began, began, Ordering::Relaxed, Ordering::Relaxed);
        }
        self.began = began;
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self { made: Instant::now(), slots: [const { AtomicU64::new(0) }; SLOTS] }
    }
}

impl Watch {
    fn now(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    fn beginning(&self, longer: Duration) -> u64 {
        self.now().saturating_add(u64::try_from(longer.as_micros()).unwrap_or(u64::MAX))
    }

    /// The call is over when the answer is dropped.
    pub(crate) fn call(&self) -> Call<'_> {
        self.long_call(Duration::ZERO)
    }

    /// A call that may last so much longer than others.
    pub(crate) fn long_call(&self, longer: Duration) -> Call<'_> {
        let began = self.beginning(longer);
        let slot = self.slots.iter().position(|slot| {
            slot.load(Ordering::Relaxed) == 0
                && slot.compare_exchange(0, began, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        });
        Call { watch: self, slot, began, longer }
    }

    /// How long the oldest call has lasted; zero without one.
    pub(crate) fn longest(&self) -> Duration {
        let now = self.now();
        let began = self.slots.iter().map(|slot| slot.load(Ordering::Relaxed)).filter(|began| *began > 0).min();
        Duration::from_micros(began.map_or(0, |began| now.saturating_sub(began)))
    }

    /// Forgets the calls under way: they belong to threads that are left behind.
    pub(crate) fn reset(&self) {
        self.slots.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            // Another call may have the slot, if the watch was reset meanwhile.
            let _ = self.watch.slots[slot].compare_exchange(self.began, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_count_until_they_end_or_are_given_up() {
        let watch = Watch::default();
        assert_eq!(watch.longest(), Duration::ZERO);
        let (first, second) = (watch.call(), watch.call());
        std::thread::sleep(Duration::from_millis(1));
        drop(first);
        assert!(watch.longest() >= Duration::from_millis(1));
        watch.reset();
        assert_eq!(watch.longest(), Duration::ZERO);
        let third = watch.call();
        drop(second);
        std::thread::sleep(Duration::from_millis(1));
        assert!(watch.longest() > Duration::ZERO, "the end of a call that was given up ends no other");
        drop(third);
        let many: Vec<_> = (0..SLOTS + 3).map(|_| watch.call()).collect();
        drop(many);
        assert_eq!(watch.longest(), Duration::ZERO);
        let long = watch.long_call(Duration::from_secs(60));
        let mut short = watch.call();
        std::thread::sleep(Duration::from_millis(2));
        let lasted = watch.longest();
        assert!(lasted >= Duration::from_millis(2));
        short.goes_on();
        assert!(watch.longest() < lasted);
        drop(short);
        assert_eq!(watch.longest(), Duration::ZERO, "the long one does not count yet");
        drop(long);
    }
}
