//! When a call must end.
//!
//! Always true:
//! - A guest that runs is stopped within a tick of having used its time.
//! - A guest whose thread the system did not run is not blamed for that, up to [`WALL_FACTOR`] times the deadline.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::config::{TICK, WALL_FACTOR};

/// The deadline of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    limit: Duration,
    thread_began: Duration,
    wall_began: Instant,
}

impl Deadline {
    /// Time runs from now on this thread.
    pub(crate) fn begin(limit: Duration) -> Self {
        Self { limit, thread_began: thread_time(), wall_began: Instant::now() }
    }

    /// Ticks until it is worth asking. The tick under way counts, so one more makes sure that the guest has its full time.
    pub(crate) fn ticks(&self) -> u64 {
        u64::try_from(self.limit.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// To be asked on the thread where it began.
    pub(crate) fn is_over(&self) -> bool {
        thread_time().saturating_sub(self.thread_began) >= self.limit
            || self.wall_began.elapsed() >= self.limit * WALL_FACTOR
    }
}

/// How long the system has run this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standing_still_uses_no_time_but_has_an_end() {
        let deadline = Deadline::begin(Duration::from_millis(5));
        std::thread::sleep(Duration::from_millis(10));
        assert!(!deadline.is_over() || deadline.wall_began.elapsed() >= Duration::from_millis(50));
        std::thread::sleep(Duration::from_millis(50));
        assert!(deadline.is_over());
    }

    #[test]
    fn running_uses_time() {
        let deadline = Deadline::begin(Duration::from_millis(5));
        while !deadline.is_over() {
            std::hint::spin_loop();
        }
        // The two clocks are not read at the same moment.
        assert!(deadline.wall_began.elapsed() >= Duration::from_millis(4));
    }

    #[test]
    fn the_tick_under_way_is_not_the_guests() {
        assert_eq!(Deadline::begin(Duration::from_millis(5)).ticks(), 6);
        assert_eq!(Deadline::begin(Duration::from_micros(1500)).ticks(), 3);
    }
}
