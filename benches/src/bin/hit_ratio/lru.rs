//! The least recently used response goes: what no layout by segments can do, for comparison.

use std::collections::{BTreeMap, HashMap};

use crate::policy::Policy;

pub(crate) struct Lru {
    capacity: u64,
    used: u64,
    /// Number to (when it was asked for, bytes).
    held: HashMap<u64, (u64, u64)>,
    by_age: BTreeMap<u64, u64>,
    now: u64,
    written: u64,
}

impl Lru {
    pub(crate) fn new(capacity: u64) -> Self {
        Self { capacity, used: 0, held: HashMap::new(), by_age: BTreeMap::new(), now: 0, written: 0 }
    }
}

impl Policy for Lru {
    fn hits(&mut self, number: u64, bytes: u64) -> bool {
        self.now += 1;
        self.by_age.insert(self.now, number);
        if let Some((asked, _)) = self.held.get_mut(&number) {
            self.by_age.remove(&std::mem::replace(asked, self.now));
            return true;
        }
        self.held.insert(number, (self.now, bytes));
        self.used += bytes;
        self.written += 1;
        while self.used > self.capacity
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.used -= self.held.remove(&oldest).map_or(0, |(_, bytes)| bytes);
        }
        false
    }

    fn written(&self) -> u64 {
        self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes() {
        let mut lru = Lru::new(30);
        let asked = [1, 2, 3, 1, 4, 1, 2].map(|number| lru.hits(number, 10));
        assert_eq!(asked, [false, false, false, true, false, true, false]);
        // 2 went for 4, then 3 for 2.
        assert!(!lru.hits(3, 10) && lru.used == 30 && lru.written() == 6);
    }
}
