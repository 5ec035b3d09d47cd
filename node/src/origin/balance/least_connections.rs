//! Least connections: the endpoint with the fewest requests under way in relation to its weight.

use super::{Candidate, cheapest, load};

/// Whose turn it is among equals.
#[derive(Debug, Default)]
pub(crate) struct LeastConnections {
    turn: usize,
}

impl LeastConnections {
    /// See [`super::Balancer::choose`].
    pub(crate) fn choose<C: Candidate>(&mut self, candidates: &[C], eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let best = cheapest(candidates, self.turn, eligible, load)?;
        self.turn = best + 1;
        Some(best)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{shares, weighted};
    use super::*;

    #[test]
    fn the_least_busy_is_chosen_in_relation_to_its_weight() {
        let mut candidates = weighted(&[1, 1, 4]);
        for (in_flight, expected) in [([3, 1, 9], 1), ([3, 1, 6], 2), ([0, 5, 4], 0)] {
            candidates.iter_mut().zip(in_flight).for_each(|(candidate, count)| candidate.in_flight = count);
            assert_eq!(LeastConnections::default().choose(&candidates, |_| true), Some(expected), "{in_flight:?}");
        }
    }

    #[test]
    fn equals_take_turns() {
        let candidates = weighted(&[1, 1, 1]);
        let mut policy = LeastConnections::default();
        assert_eq!(shares(3, 300, || policy.choose(&candidates, |_| true).expect("one")), [100, 100, 100]);
    }

    /// Each answers at its own speed: requests go where they are answered.
    #[test]
    fn requests_under_way_are_levelled() {
        let mut candidates = weighted(&[1, 1]);
        let mut policy = LeastConnections::default();
        let mut shares = [0; 2];
        for step in 0..1_000 {
            let chosen = policy.choose(&candidates, |_| true).expect("one");
            shares[chosen] += 1;
            candidates[chosen].in_flight += 1;
            // The first answers a request a step, the second one in four steps.
            candidates[0].in_flight = candidates[0].in_flight.saturating_sub(1);
            candidates[1].in_flight = candidates[1].in_flight.saturating_sub(usize::from(step % 4 == 0));
            assert!(candidates.iter().all(|candidate| candidate.in_flight < 4));
        }
        assert!(shares[0] > 2 * shares[1], "{shares:?}");
    }
}
