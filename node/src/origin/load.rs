//! What an endpoint has to do, and how fast it does it: what the balancing policies go by.
//!
//! Always true: a request counts from the moment in which its endpoint is chosen until its response has been read to the end, has
//! failed, or is wanted by nobody any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::endpoint::Endpoint;

/// After so long without a worse one an answer's time counts for a little more than a third (1/e).
const LATENCY_DECAY: Duration = Duration::from_secs(10);
/// A failure counts as an answer that took so long, so that an endpoint that fails fast does not look like a fast one.
const FAILURE: Duration = Duration::from_secs(1);
/// The weight of the last connect in the round trip's moving average: one part of so many.
const ROUND_TRIP_PARTS: u64 = 4;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Load {
    in_flight: AtomicUsize,
    latency: Mutex<Option<PeakEwma>>,
    /// Microseconds; 0: not measured yet.
    round_trip: AtomicU64,
}

/// A moving average that follows a rise at once and forgets it slowly.
#[derive(Debug, Clone, Copy)]
struct PeakEwma {
    seconds: f64,
    at: Instant,
}

impl PeakEwma {
    fn kept(self, now: Instant) -> f64 {
        (-now.saturating_duration_since(self.at).as_secs_f64() / LATENCY_DECAY.as_secs_f64()).exp()
    }

    fn with(self, seconds: f64, now: Instant) -> Self {
        let kept = self.kept(now);
        let seconds = if seconds > self.seconds { seconds } else { self.seconds * kept + seconds * (1.0 - kept) };
        Self { seconds, at: now }
    }
}

impl Load {
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// The response head came after so long.
    pub(super) fn answered(&self, after: Duration, now: Instant) {
        let seconds = after.as_secs_f64();
        let mut latency = self.latency.lock();
        *latency = Some(latency.map_or(PeakEwma { seconds, at: now }, |known| known.with(seconds, now)));
    }

    /// None had come after so long, when it was given up.
    pub(super) fn at_least(&self, so_long: Duration, now: Instant) {
        if self.latency(now).is_none_or(|known| known < so_long) {
            self.answered(so_long, now);
        }
    }

    /// None came, and that was known after so long.
    pub(super) fn failed(&self, after: Duration, now: Instant) {
        self.answered(after.max(FAILURE), now);
    }

    /// What an answer takes; less and less of it when nothing is asked, so that one that was slow is tried again.
    pub(super) fn latency(&self, now: Instant) -> Option<Duration> {
        let known = (*self.latency.lock())?;
        Some(Duration::from_secs_f64(known.seconds * known.kept(now)))
    }

    /// A TCP handshake took so long.
    pub(super) fn connected(&self, after: Duration) {
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX).max(1);
        let known = self.round_trip.load(Relaxed);
        let mean = if known == 0 { micros } else { (known * (ROUND_TRIP_PARTS - 1) + micros) / ROUND_TRIP_PARTS };
        // Another thread's measurement may be lost: there will be others.
        self.round_trip.store(mean, Relaxed);
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        let micros = self.round_trip.load(Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }
}

/// A request under way at an endpoint.
#[derive(Debug)]
pub(super) struct InFlight {
    endpoint: Arc<Endpoint>,
    /// The head of its response speaks against the endpoint.
    is_bad: bool,
}

impl InFlight {
    pub(super) fn begin(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.load().in_flight.fetch_add(1, Relaxed);
        Self { endpoint: Arc::clone(endpoint), is_bad: false }
    }

    /// The head of the response speaks against the endpoint: that counts at once. A good one does at the end of the content.
    pub(super) fn answered_badly(&mut self) {
        self.is_bad = true;
        self.endpoint.health().note_bad(Instant::now());
    }

    /// The content has been read to its clean end.
    pub(super) fn end_well(self) {
        if !self.is_bad {
            self.endpoint.health().note_good();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.load().in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn latency_follows_a_rise_at_once_and_forgets_it_slowly() {
        let (load, start) = (Load::default(), Instant::now());
        assert_eq!(load.latency(start), None);
        load.answered(10 * MS, start);
        load.answered(100 * MS, start);
        assert_eq!(load.latency(start), Some(100 * MS));
        load.answered(10 * MS, start + Duration::from_secs(1));
        let soon = load.latency(start + Duration::from_secs(1)).expect("known");
        assert!(soon > 85 * MS && soon < 100 * MS, "{soon:?}");
        let later = (2..60).fold(soon, |_, second| {
            let now = start + Duration::from_secs(second);
            load.answered(10 * MS, now);
            load.latency(now).expect("known")
        });
        assert!(later < 11 * MS, "{later:?}");
        let idle = load.latency(start + Duration::from_secs(120)).expect("known");
        assert!(idle < MS, "what was slow long ago is tried again: {idle:?}");
    }

    #[test]
    fn failing_fast_is_not_fast() {
        let (load, now) = (Load::default(), Instant::now());
        load.failed(MS, now);
        assert_eq!(load.latency(now), Some(FAILURE));
    }

    #[test]
    fn the_round_trip_is_an_average() {
        let load = Load::default();
        assert_eq!(load.round_trip(), None);
        load.connected(8 * MS);
        load.connected(16 * MS);
        assert_eq!(load.round_trip(), Some(10 * MS));
    }
}
