//! Latency: of two endpoints drawn by weight the one that is expected to answer sooner.
//!
//! The cost of an endpoint is how long it takes to answer, the worst of late counting most (peak EWMA), times the requests it has
//! under way. One that has answered nothing yet gets one request, and no more before it has answered that.

use std::time::Duration;

use super::{Candidate, draw_two, load};

/// What a request to an endpoint counts for of which nothing is known but that it has not answered the ones before.
const UNKNOWN: Duration = Duration::from_secs(1);

/// What is drawn next.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    random: fastrand::Rng,
}

impl Latency {
    /// See [`super::Balancer::choose`].
    pub(crate) fn choose<C: Candidate>(&mut self, candidates: &[C], eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let (first, second) = draw_two(&mut self.random, candidates, eligible)?;
        let second = second.filter(|second| cost(&candidates[*second]) < cost(&candidates[first]));
        Some(second.unwrap_or(first))
    }
}

fn cost<C: Candidate>(candidate: &C) -> f64 {
    match candidate.latency() {
        Some(latency) => latency.as_secs_f64() * load(candidate),
        None if candidate.in_flight() == 0 => 0.0,
        None => UNKNOWN.as_secs_f64() * load(candidate),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{shares, weighted};
    use super::*;

    fn seeded() -> Latency {
        Latency { random: fastrand::Rng::with_seed(1) }
    }

    #[test]
    fn the_faster_one_is_chosen_until_it_is_that_much_busier() {
        let mut candidates = weighted(&[1, 1]);
        (candidates[0].latency_ms, candidates[1].latency_ms) = (Some(10), Some(40));
        let mut policy = seeded();
        assert_eq!(shares(2, 100, || policy.choose(&candidates, |_| true).expect("one")), [100, 0]);
        candidates[0].in_flight = 4;
        assert_eq!(shares(2, 100, || policy.choose(&candidates, |_| true).expect("one")), [0, 100]);
    }

    #[test]
    fn an_unknown_one_is_tried_once() {
        let mut candidates = weighted(&[1, 1]);
        candidates[0].latency_ms = Some(10);
        let mut policy = seeded();
        assert_eq!(policy.choose(&candidates, |_| true), Some(1));
        candidates[1].in_flight = 1;
        assert_eq!(shares(2, 100, || policy.choose(&candidates, |_| true).expect("one")), [100, 0]);
    }

    /// Of many, the slow one gets what is left when it is drawn together with nobody better: next to nothing.
    #[test]
    fn a_slow_one_among_many_gets_little() {
        let mut candidates = weighted(&[1; 10]);
        candidates.iter_mut().for_each(|candidate| candidate.latency_ms = Some(10));
        candidates[4].latency_ms = Some(100);
        let mut policy = seeded();
        let shares = shares(10, 10_000, || policy.choose(&candidates, |_| true).expect("one"));
        assert_eq!(shares[4], 0);
        assert!(shares.iter().enumerate().all(|(place, share)| place == 4 || *share > 800), "{shares:?}");
    }
}
