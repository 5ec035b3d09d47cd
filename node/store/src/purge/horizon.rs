//! How far back the purge clock has to remember: a purge may be forgotten once nothing older than it can exist.
//!
//! Always true:
//! - A fill under way counts from its beginning to its end, however long it takes.
//! - What is neither stored nor a fill yet, such as a request on its way to the origin, is younger than [`LAG`], or the clock
//!   refuses it: a content may be sent for longer than that.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Position;

/// Purges of the last hour are never forgotten.
pub(crate) const LAG: Duration = Duration::from_secs(3600);
/// How often the position is noted, and what can be forgotten looked at.
const EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Inner {
    /// Fills under way by the position at which they began.
    fills: BTreeMap<Position, usize>,
    /// What the newest position was when, once a minute.
    past: VecDeque<(Instant, Position)>,
}

#[derive(Debug, Default)]
pub(crate) struct Horizon(Mutex<Inner>);

impl Horizon {
    pub(crate) fn begin_fill(&self, fetched_at: Position) {
        *self.0.lock().fills.entry(fetched_at).or_default() += 1;
    }

    pub(crate) fn end_fill(&self, fetched_at: Position) {
        let mut inner = self.0.lock();
        if let Some(count) = inner.fills.get_mut(&fetched_at) {
            *count -= 1;
            if *count == 0 {
                inner.fills.remove(&fetched_at);
            }
        }
    }

    /// Notes the position; true once a minute.
    pub(crate) fn is_due(&self, latest: Position) -> bool {
        self.is_due_at(Instant::now(), latest)
    }

    fn is_due_at(&self, now: Instant, latest: Position) -> bool {
        let mut inner = self.0.lock();
        if inner.past.back().is_some_and(|(noted, _)| now.duration_since(*noted) < EVERY) {
            return false;
        }
        inner.past.push_back((now, latest));
        // The first one that is long enough ago stays; what is older tells nothing more.
        while inner.past.get(1).is_some_and(|(noted, _)| now.duration_since(*noted) >= LAG) {
            inner.past.pop_front();
        }
        true
    }

    /// Nothing that is under way began before this position.
    pub(crate) fn oldest(&self) -> Position {
        self.oldest_at(Instant::now())
    }

    fn oldest_at(&self, now: Instant) -> Position {
        let inner = self.0.lock();
        let past = inner.past.iter().rev().find(|(noted, _)| now.duration_since(*noted) >= LAG);
        let past = past.map_or(Position(0), |(_, position)| *position);
        inner.fills.keys().next().map_or(past, |fill| past.min(*fill))
    }

    #[cfg(test)]
    pub(crate) fn note_as_if_long_ago(&self, position: Position) {
        if let Some(long_ago) = Instant::now().checked_sub(LAG) {
            self.0.lock().past.push_front((long_ago, position));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_and_every_fill_are_kept() {
        let (horizon, begun) = (Horizon::default(), Instant::now());
        let at = |minutes: u64| begun + Duration::from_secs(60 * minutes);
        for minute in 0..90 {
            assert!(horizon.is_due_at(at(minute), Position(minute * 10)));
            assert!(!horizon.is_due_at(at(minute) + EVERY / 2, Position(1_000_000)));
        }
        assert_eq!(horizon.oldest_at(at(59)), Position(0), "nothing is known of so long ago");
        assert_eq!(horizon.oldest_at(at(89)), Position(290));
        assert!(horizon.0.lock().past.len() <= 62, "bounded");
        horizon.begin_fill(Position(5));
        horizon.begin_fill(Position(5));
        horizon.begin_fill(Position(700));
        horizon.end_fill(Position(5));
        assert_eq!(horizon.oldest_at(at(89)), Position(5));
        horizon.end_fill(Position(5));
        assert_eq!(horizon.oldest_at(at(89)), Position(290));
    }
}
