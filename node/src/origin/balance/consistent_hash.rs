//! Consistent hash with bounded load: requests of one cache key go to one endpoint, so that a cache there stays warm.
//!
//! Rendezvous hashing by weight: every endpoint has a score for the key and the best one is chosen. An endpoint that goes takes only its
//! own keys along, and they are spread over all others. One that has more than [`LOAD_MAX`] times its share of the requests under way
//! is passed over for the next best, so that one hot key does not sink it.

use super::{Candidate, cheapest, load};

/// How many times its fair share of the requests under way an endpoint may have.
const LOAD_MAX: f64 = 1.25;

/// Keys for requests that have none.
#[derive(Debug, Default)]
pub(crate) struct ConsistentHash {
    turn: usize,
}

impl ConsistentHash {
    /// See [`super::Balancer::choose`]. Without an affinity the least busy is chosen.
    pub(crate) fn choose<C: Candidate>(
        &mut self,
        candidates: &[C],
        affinity: Option<u64>,
        eligible: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let Some(key) = affinity else {
            let best = cheapest(candidates, self.turn, eligible, load)?;
            self.turn = best + 1;
            return Some(best);
        };
        let places = || (0..candidates.len()).filter(|place| eligible(*place));
        let weight_sum: f64 = places().map(|place| weight(&candidates[place])).sum();
        let under_way: usize = places().map(|place| candidates[place].in_flight()).sum();
        let each = LOAD_MAX * (under_way as f64 + 1.0) / weight_sum;
        let has_room = |place: usize| {
            let candidate = &candidates[place];
            (candidate.in_flight() as f64) < (each * weight(candidate)).ceil()
        };
        // Not all can have more than their share.
        let with_room = places().filter(|place| has_room(*place));
        with_room.max_by(|one, other| score(&candidates[*one], key).total_cmp(&score(&candidates[*other], key)))
    }
}

fn weight<C: Candidate>(candidate: &C) -> f64 {
    f64::from(candidate.weight().max(1))
}

/// Higher is better; the highest of several is each one's in proportion to the weights.
fn score<C: Candidate>(candidate: &C, key: u64) -> f64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&key.to_le_bytes());
    bytes[8..].copy_from_slice(&candidate.identity().to_le_bytes());
    // 53 bits make a number within 0 and 1, neither of them.
    let uniform = ((xxhash_rust::xxh3::xxh3_64(&bytes) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -weight(candidate) / uniform.ln()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Sample, shares, weighted};
    use super::*;

    const KEYS: u32 = 20_000;

    fn chosen(candidates: &[Sample], key: u64) -> usize {
        ConsistentHash::default().choose(candidates, Some(key), |_| true).expect("one")
    }

    #[test]
    fn keys_are_spread_by_weight() {
        let candidates = weighted(&[1, 1, 2]);
        let mut keys = 0..;
        let shares = shares(3, 20_000, || chosen(&candidates, keys.next().expect("a key")));
        for (share, expected) in shares.iter().zip([5_000_i64, 5_000, 10_000]) {
            assert!((*share as i64 - expected).abs() < 300, "{shares:?}");
        }
    }

    #[test]
    fn only_the_keys_of_one_that_goes_move() {
        let all = weighted(&[1; 5]);
        let mut left = all.clone();
        left.remove(2);
        let mut moved = vec![0; 4];
        for key in 0..u64::from(KEYS) {
            let (before, after) = (chosen(&all, key), chosen(&left, key));
            if all[before].identity == left[after].identity {
                continue;
            }
            assert_eq!(before, 2, "key {key} moved, though its endpoint is there");
            moved[after] += 1;
        }
        // A fifth of the keys, spread over all that are left.
        assert!(moved.iter().all(|count| (800..1_200).contains(count)), "{moved:?}");
    }

    #[test]
    fn a_hot_key_spills_over_beyond_its_share() {
        let mut candidates = weighted(&[1; 4]);
        let first = chosen(&candidates, 7);
        for _ in 0..400 {
            let chosen = chosen(&candidates, 7);
            candidates[chosen].in_flight += 1;
        }
        let most = candidates.iter().map(|candidate| candidate.in_flight).max();
        assert_eq!(Some(candidates[first].in_flight), most);
        assert!(most.is_some_and(|most| most <= 126), "{candidates:?}");
        candidates.iter_mut().for_each(|candidate| candidate.in_flight = 0);
        assert_eq!(chosen(&candidates, 7), first, "it is back when there is room");
    }

    #[test]
    fn without_a_key_the_least_busy_is_chosen() {
        let mut candidates = weighted(&[1, 1]);
        candidates[0].in_flight = 1;
        assert_eq!(ConsistentHash::default().choose(&candidates, None, |_| true), Some(1));
    }
}
