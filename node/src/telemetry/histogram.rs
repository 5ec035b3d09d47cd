//! The buckets of the durations that the node measures itself.

use std::time::Duration;

/// Upper bounds in microseconds, included; a last bucket has no bound. From a hit in memory to an origin that is given up.
pub(super) const BOUNDS_US: [u64; 20] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];
/// The buckets with the last one.
pub(super) const BUCKETS: usize = BOUNDS_US.len() + 1;

/// The bucket of a duration.
pub(super) fn bucket(duration: Duration) -> usize {
    let duration_us = duration.as_micros();
    // Rounded down to whole microseconds, so 10.9 µs would count as 10: a part of one is compared as the next whole one.
    let part = u128::from(!duration.subsec_nanos().is_multiple_of(1_000));
    BOUNDS_US.partition_point(|bound| u128::from(*bound) < duration_us + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_included_and_ascend() {
        assert!(BOUNDS_US.is_sorted());
        let table =
            [(0, 0), (10_000, 0), (10_001, 1), (25_000, 1), (1_000_000, 6), (30_000_000_000, 19), (30_000_000_001, 20)];
        for (nanos, expected) in table {
            assert_eq!(bucket(Duration::from_nanos(nanos)), expected, "{nanos} ns");
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }
}
