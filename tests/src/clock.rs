//! A clock that tests set forward.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use brim_node::clock::Clock;

/// The real time of its making, plus what was added since. It does not run by itself: ages are exact.
#[derive(Debug, Clone)]
pub struct FakeClock {
    base: SystemTime,
    added_ms: Arc<AtomicU64>,
}

impl Default for FakeClock {
    fn default() -> Self {
        Self { base: SystemTime::now(), added_ms: Arc::default() }
    }
}

impl FakeClock {
    /// Lets this much time pass.
    pub fn advance(&self, time: Duration) {
        let added_ms = u64::try_from(time.as_millis()).expect("tests add less than an age of the universe");
        self.added_ms.fetch_add(added_ms, Ordering::SeqCst);
    }

    /// Whole seconds since 1970, as a date in a field would have it.
    #[must_use]
    pub fn unix_seconds(&self) -> u64 {
        self.now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
    }
}

impl Clock for FakeClock {
    fn now(&self) -> SystemTime {
        self.base + Duration::from_millis(self.added_ms.load(Ordering::SeqCst))
    }
}
