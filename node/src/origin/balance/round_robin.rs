//! Smooth weighted round robin.
//!
//! Each choice gives every eligible candidate its weight as credit; the one with most credit is chosen and pays the sum of
//! all weights. So weights 5, 1, 1 give `a a b a c a a` and not five requests to `a` in a row.

use super::Candidate;

/// The credits of the candidates, by their place.
#[derive(Debug, Default)]
pub(crate) struct RoundRobin {
    credits: Vec<i64>,
}

impl RoundRobin {
    /// See [`super::Balancer::choose`].
    pub(crate) fn choose<C: Candidate>(&mut self, candidates: &[C], eligible: impl Fn(usize) -> bool) -> Option<usize> {
        self.credits.resize(candidates.len(), 0);
        let mut weight_sum = 0;
        let mut best: Option<usize> = None;
        for (place, candidate) in candidates.iter().enumerate().filter(|(place, _)| eligible(*place)) {
            let weight = i64::from(candidate.weight());
            weight_sum += weight;
            self.credits[place] += weight;
            if best.is_none_or(|best| self.credits[place] > self.credits[best]) {
                best = Some(place);
            }
        }
        if let Some(best) = best {
            self.credits[best] -= weight_sum;
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::weighted;
    use super::*;

    fn chosen(weights: &[u32], count: usize) -> Vec<usize> {
        let candidates = weighted(weights);
        let mut policy = RoundRobin::default();
        (0..count).map(|_| policy.choose(&candidates, |_| true).expect("all are eligible")).collect()
    }

    #[test]
    fn equal_weights_take_turns() {
        assert_eq!(chosen(&[1, 1, 1], 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_heavy_candidate_is_spread_between_the_others() {
        assert_eq!(chosen(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn shares_are_exact_over_a_round() {
        let places = chosen(&[7, 2, 1], 1_000);
        let shares: Vec<usize> = (0..3).map(|place| places.iter().filter(|chosen| **chosen == place).count()).collect();
        assert_eq!(shares, [700, 200, 100]);
    }

    #[test]
    fn only_eligible_candidates_are_chosen() {
        let candidates = weighted(&[1, 1]);
        let mut policy = RoundRobin::default();
        assert_eq!(policy.choose(&candidates, |place| place == 1), Some(1));
        assert_eq!(policy.choose(&candidates, |place| place == 1), Some(1));
        assert_eq!(policy.choose(&candidates, |_| false), None);
    }

    #[test]
    fn a_candidate_that_was_out_does_not_return_with_a_debt_or_a_burst() {
        let candidates = weighted(&[1, 1]);
        let mut policy = RoundRobin::default();
        for _ in 0..100 {
            policy.choose(&candidates, |place| place == 0);
        }
        let after: Vec<Option<usize>> = (0..4).map(|_| policy.choose(&candidates, |_| true)).collect();
        assert_eq!(after, [Some(0), Some(1), Some(0), Some(1)]);
    }
}
