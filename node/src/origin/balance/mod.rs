//! Which endpoint of an origin a request goes to.
//!
//! Always true: a policy is a pure unit: it sees a slice of candidates and its own state, no clock, no socket, and names one of
//! the candidates that are still eligible, or none if there is none.
//!
//! Not here: who is eligible (`health`, `Origin::choose`), what happens when the chosen endpoint cannot be reached (`Origin::send`).

mod consistent_hash;
mod geographic;
mod latency;
mod least_connections;
mod power_of_two;
mod round_robin;

use std::time::Duration;

use crate::config::Balance;
use consistent_hash::ConsistentHash;
use geographic::Geographic;
use latency::Latency;
use least_connections::LeastConnections;
use power_of_two::PowerOfTwo;
use round_robin::RoundRobin;

/// What a policy may know of an endpoint.
pub(super) trait Candidate {
    /// Its share of the requests, relative to the others; a part of it while it starts slowly. At least 1.
    fn weight(&self) -> u32;

    /// Requests that it has not answered to their end.
    fn in_flight(&self) -> usize;

    /// How long it takes to answer, the worst of late counting most; `None` as long as it has answered nothing.
    fn latency(&self) -> Option<Duration>;

    /// How long a packet takes there and back; `None` as long as nothing was connected.
    fn round_trip(&self) -> Option<Duration>;

    /// Tells it from the others of its origin, in every process alike.
    fn identity(&self) -> u64;

    /// Regions from here: 0 is the node's own.
    fn distance(&self) -> u32;

    /// A request would have to wait for a connection.
    fn is_full(&self) -> bool;
}

/// The policy of an origin with its state.
#[derive(Debug)]
pub(super) enum Balancer {
    RoundRobin(RoundRobin),
    LeastConnections(LeastConnections),
    PowerOfTwo(PowerOfTwo),
    Latency(Latency),
    ConsistentHash(ConsistentHash),
    Geographic(Geographic),
}

impl Balancer {
    pub(super) fn new(balance: Balance) -> Self {
        match balance {
            Balance::RoundRobin => Self::RoundRobin(RoundRobin::default()),
            Balance::LeastConnections => Self::LeastConnections(LeastConnections::default()),
            Balance::PowerOfTwo => Self::PowerOfTwo(PowerOfTwo::default()),
            Balance::Latency => Self::Latency(Latency::default()),
            Balance::ConsistentHash => Self::ConsistentHash(ConsistentHash::default()),
            Balance::Geographic => Self::Geographic(Geographic::default()),
        }
    }

    /// The place of the endpoint for the next request, among those that are eligible. Requests with the same `affinity` go to the
    /// same endpoint where the policy hashes.
    pub(super) fn choose<C: Candidate>(
        &mut self,
        candidates: &[C],
        affinity: Option<u64>,
        eligible: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        match self {
            Self::RoundRobin(policy) => policy.choose(candidates, eligible),
            Self::LeastConnections(policy) => policy.choose(candidates, eligible),
            Self::PowerOfTwo(policy) => policy.choose(candidates, eligible),
            Self::Latency(policy) => policy.choose(candidates, eligible),
            Self::ConsistentHash(policy) => policy.choose(candidates, affinity, eligible),
            Self::Geographic(policy) => policy.choose(candidates, eligible),
        }
    }
}

/// Requests under way in relation to the weight, the next one counted.
fn load<C: Candidate>(candidate: &C) -> f64 {
    (candidate.in_flight() as f64 + 1.0) / f64::from(candidate.weight().max(1))
}

/// The eligible candidate of the lowest cost; of several alike the first from `start` on, so that ties take turns.
fn cheapest<C: Candidate>(
    candidates: &[C],
    start: usize,
    eligible: impl Fn(usize) -> bool,
    cost: impl Fn(&C) -> f64,
) -> Option<usize> {
    let count = candidates.len();
    let places = (0..count).map(|n| (start + n) % count).filter(|place| eligible(*place));
    places
        .map(|place| (place, cost(&candidates[place])))
        .min_by(|one, other| one.1.total_cmp(&other.1))
        .map(|best| best.0)
}

/// Two different eligible candidates drawn by weight, or the one that there is.
fn draw_two<C: Candidate>(
    random: &mut fastrand::Rng,
    candidates: &[C],
    eligible: impl Fn(usize) -> bool,
) -> Option<(usize, Option<usize>)> {
    let mut draw = |but: Option<usize>| {
        let places = || (0..candidates.len()).filter(|place| Some(*place) != but && eligible(*place));
        let sum: u64 = places().map(|place| u64::from(candidates[place].weight().max(1))).sum();
        let mut left = random.u64(0..sum.max(1));
        places().find(|place| {
            let weight = u64::from(candidates[*place].weight().max(1));
            let is_it = left < weight;
            left = left.saturating_sub(weight);
            is_it
        })
    };
    let first = draw(None)?;
    Some((first, draw(Some(first))))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A candidate for the tests of the policies.
    #[derive(Debug, Clone, Default)]
    pub(super) struct Sample {
        pub(super) weight: u32,
        pub(super) in_flight: usize,
        pub(super) latency_ms: Option<u64>,
        pub(super) round_trip_ms: Option<u64>,
        pub(super) identity: u64,
        pub(super) distance: u32,
        pub(super) is_full: bool,
    }

    impl Candidate for Sample {
        fn weight(&self) -> u32 {
            self.weight
        }
        fn in_flight(&self) -> usize {
            self.in_flight
        }
        fn latency(&self) -> Option<Duration> {
            self.latency_ms.map(Duration::from_millis)
        }
        fn round_trip(&self) -> Option<Duration> {
            self.round_trip_ms.map(Duration::from_millis)
        }
        fn identity(&self) -> u64 {
            self.identity
        }
        fn distance(&self) -> u32 {
            self.distance
        }
        fn is_full(&self) -> bool {
            self.is_full
        }
    }

    /// One for each weight, each with an identity of its own.
    pub(super) fn weighted(weights: &[u32]) -> Vec<Sample> {
        (1..).zip(weights).map(|(identity, weight)| Sample { weight: *weight, identity, ..Sample::default() }).collect()
    }

    /// How often each is chosen.
    pub(super) fn shares(count: usize, requests: usize, mut choose: impl FnMut() -> usize) -> Vec<usize> {
        let mut shares = vec![0; count];
        (0..requests).for_each(|_| shares[choose()] += 1);
        shares
    }

    #[test]
    fn every_policy_chooses_the_one_that_is_left_and_none_of_none() {
        use Balance::{ConsistentHash, Geographic, Latency, LeastConnections, PowerOfTwo, RoundRobin};
        for balance in [RoundRobin, LeastConnections, PowerOfTwo, Latency, ConsistentHash, Geographic] {
            let candidates = weighted(&[1, 0, 9]);
            let mut balancer = Balancer::new(balance);
            for affinity in [None, Some(7)] {
                for left in 0..3 {
                    assert_eq!(
                        balancer.choose(&candidates, affinity, |place| place == left),
                        Some(left),
                        "{balance:?}"
                    );
                }
                assert_eq!(balancer.choose(&candidates, affinity, |_| false), None, "{balance:?}");
                assert_eq!(balancer.choose::<Sample>(&[], affinity, |_| true), None, "{balance:?}");
            }
        }
    }

    #[test]
    fn two_are_drawn_by_weight_and_differ() {
        let candidates = weighted(&[1, 2, 7]);
        let mut random = fastrand::Rng::with_seed(7);
        let first = shares(3, 10_000, || {
            let (first, second) = draw_two(&mut random, &candidates, |_| true).expect("some");
            assert!(second.is_some_and(|second| second != first));
            first
        });
        for (share, expected) in first.iter().zip([1_000_i64, 2_000, 7_000]) {
            assert!((*share as i64 - expected).abs() < 250, "{first:?}");
        }
    }
}
