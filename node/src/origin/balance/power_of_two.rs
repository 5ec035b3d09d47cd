//! Power of two choices: of two endpoints drawn by weight the one with fewer requests under way.
//!
//! Nearly as even as looking at all, and nodes that know nothing of each other do not all run to the same one.

use super::{Candidate, draw_two, load};

/// What is drawn next.
#[derive(Debug, Default)]
pub(crate) struct PowerOfTwo {
    random: fastrand::Rng,
}

impl PowerOfTwo {
    /// See [`super::Balancer::choose`].
    pub(crate) fn choose<C: Candidate>(&mut self, candidates: &[C], eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let (first, second) = draw_two(&mut self.random, candidates, eligible)?;
        let second = second.filter(|second| load(&candidates[*second]) < load(&candidates[first]));
        Some(second.unwrap_or(first))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{shares, weighted};
    use super::*;

    fn seeded() -> PowerOfTwo {
        PowerOfTwo { random: fastrand::Rng::with_seed(1) }
    }

    #[test]
    fn the_busier_of_two_is_never_chosen() {
        let mut candidates = weighted(&[1, 1]);
        candidates[0].in_flight = 3;
        let mut policy = seeded();
        assert_eq!(shares(2, 100, || policy.choose(&candidates, |_| true).expect("one")), [0, 100]);
    }

    #[test]
    fn requests_that_stay_are_spread_by_weight() {
        let mut candidates = weighted(&[1, 1, 2]);
        let mut policy = seeded();
        for _ in 0..4_000 {
            let chosen = policy.choose(&candidates, |_| true).expect("one");
            candidates[chosen].in_flight += 1;
        }
        for (candidate, expected) in candidates.iter().zip([1_000_i64, 1_000, 2_000]) {
            assert!((candidate.in_flight as i64 - expected).abs() < 50, "{candidates:?}");
        }
    }
}
