//! What the clients saw: counts, latencies of the current window, and what was wrong.
//!
//! Of what was wrong, the first few are kept with their words, all are counted.

use std::time::Duration;

use parking_lot::Mutex;

/// Latencies kept in a window; further ones count only as requests.
const LATENCIES_MAX: usize = 1 << 20;
/// Kept with their words.
const EXAMPLES_MAX: usize = 20;

/// Something that must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Bytes of something else, or too few or too many of them.
    WrongContent,
    /// A version that an acknowledged purge had made impossible.
    StaleAfterPurge,
    /// 5xx.
    ServerError,
    /// Another status than 200.
    OtherStatus,
    /// No answer, half an answer, none in time.
    Unreadable,
    /// A purge that was not acknowledged.
    PurgeRefused,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] = [
        Self::WrongContent,
        Self::StaleAfterPurge,
        Self::ServerError,
        Self::OtherStatus,
        Self::Unreadable,
        Self::PurgeRefused,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WrongContent => "wrong content",
            Self::StaleAfterPurge => "stale after a purge",
            Self::ServerError => "5xx",
            Self::OtherStatus => "another status than 200",
            Self::Unreadable => "unreadable answer",
            Self::PurgeRefused => "purge not acknowledged",
        }
    }
}

/// Sums since the start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) content_bytes: u64,
    pub(crate) purges: u64,
    /// Requests and purges that a kill cut off.
    pub(crate) cut_by_kills: u64,
    pub(crate) kills: u64,
    pub(crate) faults: [u64; Fault::ALL.len()],
    pub(crate) examples: Vec<String>,
}

impl Counts {
    pub(crate) fn of(&self, fault: Fault) -> u64 {
        self.faults[fault as usize]
    }
}

/// Latencies of one window, in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Window {
    pub(crate) hits: Vec<u32>,
    pub(crate) misses: Vec<u32>,
}

/// Shared by everything that asks.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<(Counts, Window)>);

impl Tally {
    /// A good answer.
    pub(crate) fn answered(&self, is_hit: bool, content_bytes: usize, took: Duration) {
        let took_us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let (counts, window) = &mut *self.0.lock();
        counts.content_bytes += content_bytes as u64;
        let (count, latencies) =
            if is_hit { (&mut counts.hits, &mut window.hits) } else { (&mut counts.misses, &mut window.misses) };
        *count += 1;
        if latencies.len() < LATENCIES_MAX {
            latencies.push(took_us);
        }
    }

    pub(crate) fn purged(&self) {
        self.0.lock().0.purges += 1;
    }

    pub(crate) fn cut_by_kill(&self) {
        self.0.lock().0.cut_by_kills += 1;
    }

    pub(crate) fn killed(&self) {
        self.0.lock().0.kills += 1;
    }

    pub(crate) fn fault(&self, fault: Fault, words: String) {
        let (counts, _) = &mut *self.0.lock();
        counts.faults[fault as usize] += 1;
        if counts.examples.len() < EXAMPLES_MAX {
            counts.examples.push(format!("{}: {words}", fault.name()));
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.0.lock().0.clone()
    }

    /// Ends the window and begins the next one.
    pub(crate) fn take_window(&self) -> Window {
        std::mem::take(&mut self.0.lock().1)
    }
}

/// So many of a hundred are no larger. None of nothing.
pub(crate) fn percentile(values: &mut [u32], percent: usize) -> Option<u32> {
    let last = values.len().checked_sub(1)?;
    let place = (values.len() * percent).div_ceil(100).saturating_sub(1).min(last);
    Some(*values.select_nth_unstable(place).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let mut values: Vec<u32> = (1..=200).rev().collect();
        assert_eq!(percentile(&mut values, 50), Some(100));
        assert_eq!(percentile(&mut values, 99), Some(198));
        assert_eq!(percentile(&mut [7], 99), Some(7));
        assert_eq!(percentile(&mut [], 99), None);
    }

    #[test]
    fn faults_are_all_counted_and_the_first_ones_told() {
        let tally = Tally::default();
        for number in 0..100 {
            tally.fault(Fault::Unreadable, number.to_string());
        }
        let counts = tally.counts();
        assert_eq!((counts.of(Fault::Unreadable), counts.of(Fault::ServerError)), (100, 0));
        assert_eq!(counts.examples.len(), EXAMPLES_MAX);
    }
}
