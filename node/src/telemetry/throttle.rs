//! One line a second for what a storm of requests would repeat a thousand times.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Lets one event a second through, and counts the others.
#[derive(Debug)]
pub struct Throttle {
    began: Instant,
    /// The second after `began` that has had its line, plus one; 0 is none.
    last: AtomicU64,
    held_back: AtomicU64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { began: Instant::now(), last: AtomicU64::new(0), held_back: AtomicU64::new(0) }
    }
}

impl Throttle {
    /// `Some` with the events held back since the last one that was let through, if this one may be told.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(self.began.elapsed().as_secs() + 1)
    }

    fn admit_at(&self, second: u64) -> Option<u64> {
        if self.last.fetch_max(second, Ordering::Relaxed) >= second {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.held_back.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::Throttle;

    #[test]
    fn one_a_second_passes_and_the_others_are_counted() {
        let throttle = Throttle::default();
        let admitted: Vec<_> = [1, 1, 1, 2, 2, 9, 8].into_iter().map(|second| throttle.admit_at(second)).collect();
        assert_eq!(admitted, [Some(0), None, None, Some(2), None, Some(1), None]);
    }
}
