//! Admission: what is written to a disk that is full. A response has to be asked for twice, so that a crawl of URLs that
//! nobody asks for again takes nothing from what is in use.
//!
//! Always true:
//! - It remembers at least the last [`SIGHTS`] keys that were filled, and at most twice as many, in 2.5 MiB of memory.
//! - It errs in one direction: about one key in a hundred that was never seen is taken for seen. None is forgotten early.

use brim_semantics::KeyHash;
use fastbloom::BloomFilter;
use parking_lot::Mutex;

/// Keys that one filter takes before the other begins anew.
const SIGHTS: usize = 1 << 20;
const BITS_PER_KEY: usize = 10;

struct Sights {
    now: BloomFilter,
    before: BloomFilter,
    count: usize,
}

pub(crate) struct Admission(Mutex<Sights>);

fn filter() -> BloomFilter {
    // Keys are hashes already and are not hashed again: the seed is for nothing but a constructor without random numbers.
    BloomFilter::with_num_bits(SIGHTS * BITS_PER_KEY).seed(&0).hashes(7)
}

impl Default for Admission {
    fn default() -> Self {
        Self(Mutex::new(Sights { now: filter(), before: filter(), count: 0 }))
    }
}

impl Admission {
    /// Notes that a key is filled; says whether it was before, within what is remembered.
    pub(crate) fn see(&self, key: KeyHash) -> bool {
        let hash = key.0.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        let mut sights = self.0.lock();
        if sights.now.contains_hash(hash) {
            return true;
        }
        let is_known = sights.before.contains_hash(hash);
        sights.now.insert_hash(hash);
        sights.count += 1;
        if sights.count >= SIGHTS {
            let Sights { now, before, count } = &mut *sights;
            std::mem::swap(now, before);
            now.clear();
            *count = 0;
        }
        is_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> KeyHash {
        KeyHash(xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes()).to_le_bytes())
    }

    #[test]
    fn a_key_is_known_from_its_second_sight_until_it_is_long_ago() {
        let admission = Admission::default();
        let new_ones = (0..10_000).filter(|n| !admission.see(key(*n))).count();
        assert!(new_ones > 9_800, "{new_ones} of 10000 were new");
        assert!((0..10_000).all(|n| admission.see(key(n))));
        let fill_up = |from: u64| (from..from + SIGHTS as u64 + 40_000).filter(|n| admission.see(key(*n))).count();
        let mistaken = fill_up(1 << 32);
        assert!(mistaken < 60_000, "{mistaken} new ones were taken for known");
        assert!(admission.see(key(1)), "one filter later it is known");
        fill_up(2 << 32);
        fill_up(3 << 32);
        let known = (10..1_000).filter(|n| admission.see(key(*n))).count();
        assert!(known < 100, "{known} of 990 are known after more than two filters");
    }
}
