//! Counters of one endpoint, for `/metrics` and `/v1/status`.
//!
//! Always true: counting never locks and never waits; a snapshot may be a few requests out of step with itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::error::ErrorKind;

/// Upper bounds of the buckets that the wait for a connection is counted in; a last bucket has no bound.
pub const WAIT_BUCKETS_MS: [u64; 8] = [1, 5, 10, 50, 100, 500, 1_000, 5_000];

/// What happened at one endpoint since the start.
#[derive(Debug, Default)]
pub(super) struct EndpointStats {
    requests: AtomicU64,
    reused: AtomicU64,
    connects: AtomicU64,
    retries: AtomicU64,
    warmed: AtomicU64,
    errors: [AtomicU64; ErrorKind::ALL.len()],
    wait_micros: AtomicU64,
    wait_buckets: [AtomicU64; WAIT_BUCKETS_MS.len() + 1],
}

/// The counters of [`EndpointStats`] at one moment.
#[derive(Debug, Clone, Default)]
pub struct EndpointCounts {
    /// Requests handed to this endpoint, whatever came of them.
    pub requests: u64,
    /// Of these, sent on a connection that had served another request before.
    pub reused: u64,
    /// Connections made.
    pub connects: u64,
    /// Requests sent again because a kept connection was found closed.
    pub retries: u64,
    /// Connections made before a request needed them.
    pub warmed: u64,
    /// Errors by kind, those that happened only.
    pub errors: Vec<(ErrorKind, u64)>,
    /// Requests that had to wait for a connection, by [`WAIT_BUCKETS_MS`] (not cumulative).
    pub wait_buckets: [u64; WAIT_BUCKETS_MS.len() + 1],
    /// All these waits together.
    pub wait_sum: Duration,
}

impl EndpointStats {
    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    pub(super) fn count_reused(&self) {
        self.reused.fetch_add(1, Relaxed);
    }

    pub(super) fn count_connect(&self) {
        self.connects.fetch_add(1, Relaxed);
    }

    pub(super) fn count_retry(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(super) fn count_warmed(&self) {
        self.warmed.fetch_add(1, Relaxed);
    }

    pub(super) fn count_error(&self, kind: ErrorKind) {
        self.errors[kind as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn count_wait(&self, wait: Duration) {
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        let bucket =
            WAIT_BUCKETS_MS.iter().position(|bound_ms| micros <= bound_ms * 1_000).unwrap_or(WAIT_BUCKETS_MS.len());
        self.wait_buckets[bucket].fetch_add(1, Relaxed);
        self.wait_micros.fetch_add(micros, Relaxed);
    }

    pub(super) fn snapshot(&self) -> EndpointCounts {
        let errors = ErrorKind::ALL.into_iter().map(|kind| (kind, self.errors[kind as usize].load(Relaxed)));
        EndpointCounts {
            requests: self.requests.load(Relaxed),
            reused: self.reused.load(Relaxed),
            connects: self.connects.load(Relaxed),
            retries: self.retries.load(Relaxed),
            warmed: self.warmed.load(Relaxed),
            errors: errors.filter(|(_, count)| *count > 0).collect(),
            wait_buckets: std::array::from_fn(|bucket| self.wait_buckets[bucket].load(Relaxed)),
            wait_sum: Duration::from_micros(self.wait_micros.load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_fall_into_their_buckets() {
        let stats = EndpointStats::default();
        for wait_ms in [0, 1, 2, 70, 60_000] {
            stats.count_wait(Duration::from_millis(wait_ms));
        }
        let counts = stats.snapshot();
        assert_eq!(counts.wait_buckets, [2, 1, 0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(counts.wait_sum, Duration::from_millis(60_073));
    }

    #[test]
    fn every_kind_of_error_has_its_own_counter() {
        for (place, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place, "{kind:?}");
        }
    }
}
