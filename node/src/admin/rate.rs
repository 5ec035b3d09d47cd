//! How often a token may purge.
//!
//! Always true: a token has at most one bucket, and there are no more buckets than [`BUCKETS_MAX`].

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::tokens::TOKENS_MAX;

/// One for each token, that of the token file included; when revoked ones have left theirs behind, the full ones go.
const BUCKETS_MAX: usize = TOKENS_MAX + 1;
const MINUTE_S: f64 = 60.0;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// The buckets of all tokens.
#[derive(Debug, Default)]
pub struct PurgeRates(Mutex<HashMap<Box<str>, Bucket>>);

impl PurgeRates {
    /// Takes one of the `per_minute` purges that a token has; how long it has to wait if it has none left. 0 per minute is any number.
    pub fn take(&self, id: &str, per_minute: u32, now: Instant) -> Result<(), Duration> {
        if per_minute == 0 {
            return Ok(());
        }
        let (most, a_second) = (f64::from(per_minute), f64::from(per_minute) / MINUTE_S);
        let mut buckets = self.0.lock();
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(id) {
            // Idle for a minute is full again: nothing is lost with them.
            buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at).as_secs_f64() < MINUTE_S);
            if buckets.len() >= BUCKETS_MAX {
                return Err(Duration::from_secs(1));
            }
        }
        let bucket = buckets.entry(id.into()).or_insert(Bucket { left: most, at: now });
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * a_second;
        (bucket.left, bucket.at) = ((bucket.left + gained).min(most), now.max(bucket.at));
        if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - bucket.left) / a_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_s_purges_at_once_and_then_as_they_come_back() {
        let (rates, start) = (PurgeRates::default(), Instant::now());
        let take = |id: &str, after_ms: u64| rates.take(id, 30, start + Duration::from_millis(after_ms));
        assert!((0..30).all(|_| take("a", 0).is_ok()));
        assert_eq!(take("a", 0), Err(Duration::from_secs(2)));
        assert_eq!(take("a", 500), Err(Duration::from_millis(1500)));
        assert!(take("b", 500).is_ok(), "each token has its own");
        assert!(take("a", 2000).is_ok());
        assert!(take("a", 2000).is_err());
        assert!((0..30).all(|_| take("a", 600_000).is_ok()));
        assert!(take("a", 600_000).is_err(), "no more is saved than a minute's");
        assert!((0..1000).all(|_| rates.take("a", 0, start).is_ok()), "0 is any number");
    }

    #[test]
    fn buckets_are_bounded() {
        let (rates, start) = (PurgeRates::default(), Instant::now());
        assert!((0..BUCKETS_MAX).all(|id| rates.take(&id.to_string(), 1, start).is_ok()));
        assert!(rates.take("one more", 1, start).is_err());
        assert!(rates.take("one more", 1, start + Duration::from_secs(60)).is_ok());
        assert_eq!(rates.0.lock().len(), 1);
    }
}
