//! Admission on second sight: while the disk is full, a response is written only if its key was missed before.

use std::collections::HashSet;

use crate::policy::Policy;
use crate::segments::Segments;

/// Keys that were asked for, in two generations: the last half of the window surely, up to all of it.
struct Window {
    half: usize,
    young: HashSet<u64>,
    old: HashSet<u64>,
}

impl Window {
    /// Notes a key. True: it was noted before.
    fn note(&mut self, number: u64) -> bool {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        !self.young.insert(number) || self.old.contains(&number)
    }
}

pub(crate) struct SecondSight {
    disk: Segments,
    window: Window,
}

impl SecondSight {
    /// `keys` are remembered at most.
    pub(crate) fn new(disk: Segments, keys: u64) -> Self {
        let half = usize::try_from(keys / 2).unwrap_or(usize::MAX).max(1);
        Self { disk, window: Window { half, young: HashSet::new(), old: HashSet::new() } }
    }
}

impl Policy for SecondSight {
    fn hits(&mut self, number: u64, bytes: u64) -> bool {
        if self.disk.touch(number) {
            return true;
        }
        let is_known = self.window.note(number);
        if is_known || !self.disk.is_full() {
            self.disk.store(number, bytes);
        }
        false
    }

    fn written(&self) -> u64 {
        self.disk.written()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Plan;
    use crate::segments::Keep;

    #[test]
    fn a_full_disk_takes_what_is_asked_for_twice() {
        let plan = Plan { disk_max: 400, segment_bytes: 100, held: 40 };
        let mut tier = SecondSight::new(Segments::new(&plan, Keep::Used), 8);
        for number in 0..30 {
            assert!(!tier.hits(number, 10));
        }
        assert_eq!(tier.written(), 21, "from two segments below the budget on it is full");
        assert!(!tier.hits(100, 10) && !tier.hits(100, 10) && tier.hits(100, 10));
        assert!(!tier.hits(200, 10));
        for number in 300..310 {
            tier.hits(number, 10);
        }
        assert!(!tier.hits(200, 10) && !tier.hits(201, 10), "the window has forgotten it");
        assert_eq!(tier.written(), 22);
    }
}
