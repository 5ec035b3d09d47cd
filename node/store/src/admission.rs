//! Admission: what is written to a disk that is full. A response has to be asked for twice, so that a crawl of URLs that
//! nobody asks for again takes nothing from what is in use.
//!
//! Always true:
//! - It remembers at least eight times as many of the last keys that were filled as there are stored responses, and never fewer
//!   than [`SIGHTS_MIN`]; at most twice as many. Measured, a window as large as the store keeps 0.7 of the hits of a
//!   hot set under nine tenths of crawl, one of sixteen times all of them.
//! - A key it remembers costs 16 bits.
//! - It errs in one direction: few keys that were never seen are taken for seen. None is forgotten early.

use brim_semantics::KeyHash;
use fastbloom::BloomFilter;
use parking_lot::Mutex;

/// Keys that a filter takes at least before another begins.
const SIGHTS_MIN: usize = 1 << 20;
/// Keys that a filter takes for each stored response.
const SIGHTS_A_RESPONSE: usize = 8;
/// With eleven hashes, one key in two thousand that was never seen is taken for seen.
const BITS_PER_KEY: usize = 16;
const HASHES: u32 = 11;

struct Filter {
    bits: BloomFilter,
    count: usize,
    count_max: usize,
}

impl Filter {
    fn beside(responses: u64) -> Self {
        let responses = usize::try_from(responses).unwrap_or(usize::MAX);
        let count_max = responses.saturating_mul(SIGHTS_A_RESPONSE).max(SIGHTS_MIN);
        // Keys are hashes already and are not hashed again: the seed is for nothing but a constructor without random numbers.
        let bits = BloomFilter::with_num_bits(count_max.saturating_mul(BITS_PER_KEY)).seed(&0).hashes(HASHES);
        Self { bits, count: 0, count_max }
    }
}

struct Sights {
    now: Filter,
    before: Option<Filter>,
}

pub(crate) struct Admission(Mutex<Sights>);

impl Default for Admission {
    fn default() -> Self {
        Self(Mutex::new(Sights { now: Filter::beside(0), before: None }))
    }
}

impl Admission {
    /// Notes that a key is filled; says whether it was before, within what is remembered. `responses`: how many are stored.
    pub(crate) fn see(&self, key: KeyHash, responses: u64) -> bool {
        let hash = key.0.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        let mut sights = self.0.lock();
        if sights.now.bits.contains_hash(hash) {
            return true;
        }
        let is_known = sights.before.as_ref().is_some_and(|before| before.bits.contains_hash(hash));
        sights.now.bits.insert_hash(hash);
        sights.now.count += 1;
        if sights.now.count >= sights.now.count_max {
            let full = std::mem::replace(&mut sights.now, Filter::beside(responses));
            sights.before = Some(full);
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
        let see = |n: u64| admission.see(key(n), 0);
        let new_ones = (0..10_000).filter(|n| !see(*n)).count();
        assert!(new_ones > 9_980, "{new_ones} of 10000 were new");
        assert!((0..10_000).all(see));
        let fill_up = |from: u64| (from..from + SIGHTS_MIN as u64 + 40_000).filter(|n| see(*n)).count();
        let mistaken = fill_up(1 << 32);
        assert!(mistaken < 45_000, "{mistaken} new ones were taken for known");
        assert!((0..10_000).all(see), "one filter later they are known");
        fill_up(2 << 32);
        fill_up(3 << 32);
        let known = (10_000..11_000).filter(|n| see(*n)).count();
        assert!(known < 100, "{known} of 1000 new ones");
    }

    #[test]
    fn it_remembers_more_beside_a_larger_store() {
        let responses = SIGHTS_MIN as u64 / 2;
        let admission = Admission::default();
        // The first filter knew of no store; the second is made beside one.
        let seen = |n: u64| admission.see(key(n), responses);
        (0..2 * SIGHTS_MIN as u64).for_each(|n| {
            seen(n);
        });
        assert!((SIGHTS_MIN as u64 + 50_000..SIGHTS_MIN as u64 + 60_000).all(seen));
        (4 << 32..(4 << 32) + 2 * SIGHTS_MIN as u64).for_each(|n| {
            seen(n);
        });
        assert!((SIGHTS_MIN as u64 + 50_000..SIGHTS_MIN as u64 + 60_000).all(seen), "a small one had forgotten them");
    }
}
