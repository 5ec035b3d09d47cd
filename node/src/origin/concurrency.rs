//! How many requests an origin is given at a time: a breaker with a fixed bound, and one that finds its bound by itself.
//!
//! Always true:
//! - A request beyond the bound is refused at once: what waits for an origin that is too slow makes it no faster.
//! - A request counts until its response has been read to the end, has failed, or is wanted by nobody any more.
//! - The bound that adapts lies within [`ADAPTIVE_MIN`] and `requests_max`.
//!
//! Not here: connections and their queue (`pool`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::OriginConfig;

/// The bound that adapts is never smaller: an origin that is asked for nothing cannot show that it has recovered.
pub(super) const ADAPTIVE_MIN: usize = 4;
/// And never greater, unless `requests_max` says so.
pub(super) const ADAPTIVE_MAX: usize = 1_000;
const ADAPTIVE_START: usize = 20;
/// Answers whose times are looked at together.
const WINDOW: u32 = 25;
/// Answers may take so many times the best time of late before the bound shrinks.
const TOLERANCE: f64 = 1.5;
/// The bound shrinks by no more than half at a time.
const GRADIENT_MIN: f64 = 0.5;
/// How much of the new bound counts, against the old one.
const SMOOTHING: f64 = 0.3;
/// The best time may rise after so long, by so much: the origin may have changed for the worse for good.
const BEST_FOR: Duration = Duration::from_secs(60);
const BEST_RISES: f64 = 1.1;

/// See the module.
#[derive(Debug)]
pub(super) struct Concurrency {
    in_flight: AtomicUsize,
    limit: AtomicUsize,
    adaptive: Option<Mutex<Adaptive>>,
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct Ticket(Arc<Concurrency>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Concurrency {
    /// `None` where there is no bound.
    pub(super) fn of(config: &OriginConfig) -> Option<Arc<Self>> {
        if !config.adaptive_concurrency && config.requests_max == 0 {
            return None;
        }
        let max = if config.requests_max == 0 { ADAPTIVE_MAX } else { config.requests_max };
        let adaptive = config.adaptive_concurrency.then(|| Adaptive::new(max));
        let limit = adaptive.as_ref().map_or(max, Adaptive::limit);
        Some(Arc::new(Self {
            in_flight: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            adaptive: adaptive.map(Mutex::new),
        }))
    }

    /// `None`: there are too many.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Ticket> {
        let limit = self.limit.load(Relaxed);
        let more = |count: usize| (count < limit).then_some(count + 1);
        self.in_flight.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Ticket(Arc::clone(self)))
    }

    /// An answer came after so long.
    pub(super) fn answered(&self, after: Duration) {
        if let Some(adaptive) = &self.adaptive {
            let in_flight = self.in_flight.load(Relaxed);
            let limit = adaptive.lock().answered(after, in_flight, Instant::now());
            self.limit.store(limit, Relaxed);
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }
}

/// A bound that follows how long answers take: while they take what they take at best it grows, when they queue it shrinks.
#[derive(Debug)]
struct Adaptive {
    max: f64,
    limit: f64,
    /// The shortest mean of a window of late, and since when.
    best: Option<(f64, Instant)>,
    sum: f64,
    count: u32,
}

impl Adaptive {
    fn new(max: usize) -> Self {
        let max = max.max(1) as f64;
        Self { max, limit: (ADAPTIVE_START as f64).min(max), best: None, sum: 0.0, count: 0 }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within ADAPTIVE_MIN and max")]
    fn limit(&self) -> usize {
        self.limit as usize
    }

    fn answered(&mut self, after: Duration, in_flight: usize, now: Instant) -> usize {
        self.sum += after.as_secs_f64();
        self.count += 1;
        if self.count < WINDOW {
            return self.limit();
        }
        let mean = (self.sum / f64::from(self.count)).max(1e-6);
        (self.sum, self.count) = (0.0, 0);
        let best = match self.best {
            Some((best, since)) if best <= mean && now.saturating_duration_since(since) < BEST_FOR => best,
            // Slowly: what was measured of late was measured under load, and must not become the measure of all things.
            Some((best, _)) => {
                let best = mean.min(best * BEST_RISES);
                self.best = Some((best, now));
                best
            }
            None => {
                self.best = Some((mean, now));
                mean
            }
        };
        let gradient = (TOLERANCE * best / mean).clamp(GRADIENT_MIN, 1.0);
        // Room for a little more; but nothing is known of what was never tried.
        let more = if (in_flight as f64) * 2.0 >= self.limit { self.limit.sqrt() } else { 0.0 };
        let wanted = self.limit * gradient + more;
        self.limit =
            (self.limit * (1.0 - SMOOTHING) + wanted * SMOOTHING).clamp((ADAPTIVE_MIN as f64).min(self.max), self.max);
        self.limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An origin that serves `workers` at a time, each in 10 ms: the rest queues.
    fn run(adaptive: &mut Adaptive, workers: usize, demand: usize, windows: usize, mut now: Instant) -> Instant {
        for _ in 0..windows * WINDOW as usize {
            let in_flight = demand.min(adaptive.limit());
            let rounds = (in_flight as f64 / workers as f64).max(1.0);
            now += Duration::from_millis(1);
            adaptive.answered(Duration::from_millis(10).mul_f64(rounds), in_flight, now);
        }
        now
    }

    #[test]
    fn the_bound_grows_with_demand_to_what_the_origin_bears_and_not_beyond() {
        let mut adaptive = Adaptive::new(1_000);
        run(&mut adaptive, 50, 500, 400, Instant::now());
        let limit = adaptive.limit();
        assert!((50..=140).contains(&limit), "{limit}");
    }

    #[test]
    fn it_shrinks_when_the_origin_gets_slow_and_comes_back() {
        let mut adaptive = Adaptive::new(1_000);
        let now = run(&mut adaptive, 50, 500, 300, Instant::now());
        let before = adaptive.limit();
        let now = run(&mut adaptive, 5, 500, 40, now);
        assert!(adaptive.limit() < before / 3, "{} of {before}", adaptive.limit());
        run(&mut adaptive, 50, 500, 400, now);
        assert!(adaptive.limit() > before / 2, "{} of {before}", adaptive.limit());
    }

    /// For hours under full load: what is measured then does not become the measure of what is good.
    #[test]
    fn it_does_not_creep_up_with_what_it_causes() {
        let mut adaptive = Adaptive::new(100_000);
        let mut now = run(&mut adaptive, 50, 50_000, 400, Instant::now());
        for _ in 0..10 {
            now = run(&mut adaptive, 50, 50_000, 400, now + BEST_FOR);
        }
        assert!(adaptive.limit() < 500, "{}", adaptive.limit());
    }

    #[test]
    fn without_demand_it_stays_and_it_keeps_to_its_bounds() {
        let mut adaptive = Adaptive::new(1_000);
        run(&mut adaptive, 50, 2, 100, Instant::now());
        assert_eq!(adaptive.limit(), ADAPTIVE_START);
        let mut small = Adaptive::new(8);
        run(&mut small, 50, 500, 100, Instant::now());
        assert_eq!(small.limit(), 8);
        let now = Instant::now();
        (0..10_000_u64).for_each(|n| {
            small.answered(Duration::from_millis(n), 8, now);
        });
        assert_eq!(small.limit(), ADAPTIVE_MIN);
    }
}
