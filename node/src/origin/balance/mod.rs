//! Which endpoint of an origin a request goes to.
//!
//! Always true: a policy is a pure unit: it sees a slice of candidates and its own state, no clock, no socket, and names one of
//! the candidates that are still eligible, or none if there is none.
//!
//! Not here: what happens when the chosen endpoint cannot be reached (`Origin::send`).

mod round_robin;

pub(super) use round_robin::RoundRobin;

/// What a policy may know of an endpoint.
pub(super) trait Candidate {
    /// Its share of the requests, relative to the others.
    fn weight(&self) -> u32;
}

/// The policy of an origin with its state.
#[derive(Debug)]
pub(super) enum Balancer {
    /// In turn, by weight.
    RoundRobin(RoundRobin),
}

impl Balancer {
    /// The place of the endpoint for the next request, among those that are eligible.
    pub(super) fn choose<C: Candidate>(&mut self, candidates: &[C], eligible: impl Fn(usize) -> bool) -> Option<usize> {
        match self {
            Self::RoundRobin(policy) => policy.choose(candidates, eligible),
        }
    }
}
