//! How long responses are: log-normal, as on the Web, and the same in every run.

use anyhow::Context;
use rand::SeedableRng;
use rand::distr::Distribution;
use rand::rngs::SmallRng;
use rand_distr::LogNormal;

/// Lengths in bytes, by number.
#[derive(Debug, Clone)]
pub struct Lengths {
    of: Vec<u32>,
}

impl Lengths {
    /// `count` lengths with this median, the standard deviation of their logarithm being `sigma`, none outside `bounds`.
    pub fn log_normal(count: usize, median: u32, sigma: f64, bounds: (u32, u32), seed: u64) -> anyhow::Result<Self> {
        let distribution = LogNormal::new(f64::from(median).ln(), sigma).context("a deviation is not negative")?;
        let mut random = SmallRng::seed_from_u64(seed);
        let clamped = |length: f64| length.clamp(f64::from(bounds.0), f64::from(bounds.1));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies within bounds of 32 bits")]
        let of = (0..count).map(|_| clamped(distribution.sample(&mut random)) as u32).collect();
        Ok(Self { of })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.of.len()
    }

    /// The length of a number. Numbers beyond the last begin again with the first.
    pub fn of(&self, number: u64) -> usize {
        let at = usize::try_from(number % self.of.len() as u64).unwrap_or(0);
        self.of[at] as usize
    }

    /// All of them together.
    pub fn sum(&self) -> u64 {
        self.of.iter().map(|length| u64::from(*length)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_are_below_the_median_and_none_is_out_of_bounds() {
        let lengths = Lengths::log_normal(20_001, 8192, 1.1, (1024, 200 * 1024), 1).unwrap();
        let mut sorted: Vec<_> = (0..20_001).map(|number| lengths.of(number)).collect();
        sorted.sort_unstable();
        assert!((7900..8500).contains(&sorted[10_000]), "{}", sorted[10_000]);
        assert_eq!((sorted[0], sorted[20_000]), (1024, 200 * 1024));
        assert_eq!(lengths.sum(), sorted.iter().map(|length| *length as u64).sum());
        assert_eq!(lengths.of(20_001), lengths.of(0));
    }
}
