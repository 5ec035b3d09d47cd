//! A quarter of a soak: its samples in a few figures.

use std::time::Duration;

use crate::metrics::{Figures, sum};
use crate::sample::{Sample, Seen};

/// Samples that a quarter needs to be compared with another.
const SAMPLES_MIN: usize = 3;

/// Figures of one quarter.
#[derive(Debug, Clone, Default)]
pub(crate) struct Quarter {
    pub(crate) to: Duration,
    pub(crate) samples: usize,
    pub(crate) resident_median: u64,
    pub(crate) resident_max: u64,
    pub(crate) accounted_max: f64,
    pub(crate) memory_tier_max: f64,
    pub(crate) queued_max: f64,
    pub(crate) index_max: u64,
    pub(crate) segments_max: u64,
    pub(crate) on_disk_max: u64,
    pub(crate) hits: usize,
    pub(crate) misses: usize,
    /// Medians of the windows' percentiles.
    pub(crate) hit_p50_us: Option<u32>,
    pub(crate) hit_p99_us: Option<u32>,
    pub(crate) miss_p50_us: Option<u32>,
    pub(crate) miss_p99_us: Option<u32>,
    pub(crate) open_files_max: usize,
    /// At its beginning and its end.
    pub(crate) figures: [Figures; 2],
}

impl Quarter {
    /// All four, by the number of samples.
    pub(crate) fn all(samples: &[Sample]) -> [Self; 4] {
        std::array::from_fn(|number| {
            let place = |number: usize| samples.len() * number / 4;
            let before = place(number).checked_sub(1).map(|last| samples[last].figures.clone());
            Self::of(before.unwrap_or_default(), &samples[place(number)..place(number + 1)])
        })
    }

    fn of(before: Figures, samples: &[Sample]) -> Self {
        let Some(last) = samples.last() else { return Self::default() };
        let most = |figure: fn(&Sample) -> u64| samples.iter().map(figure).max().unwrap_or_default();
        let metric_max = |name| samples.iter().map(|sample| sum(&sample.figures, name)).fold(0.0, f64::max);
        let middle = |figure: fn(&Sample) -> Option<u32>| median(samples.iter().filter_map(figure).collect());
        Self {
            to: last.at,
            samples: samples.len(),
            resident_median: median(samples.iter().map(|sample| sample.used.resident_bytes).collect())
                .unwrap_or_default(),
            resident_max: most(|sample| sample.used.resident_bytes),
            accounted_max: samples.iter().map(accounted_bytes).fold(0.0, f64::max),
            memory_tier_max: metric_max("brim_store_memory_bytes"),
            queued_max: metric_max("brim_store_queued_bytes"),
            index_max: most(|sample| sample.used.index_bytes),
            segments_max: most(|sample| sample.used.segment_bytes),
            on_disk_max: most(|sample| sample.used.index_bytes + sample.used.segment_bytes),
            hits: samples.iter().map(|sample| sample.hits.count).sum(),
            misses: samples.iter().map(|sample| sample.misses.count).sum(),
            hit_p50_us: middle(|sample| sample.hits.p50_us),
            hit_p99_us: middle(|sample| sample.hits.p99_us),
            miss_p50_us: middle(|sample| sample.misses.p50_us),
            miss_p99_us: middle(|sample| sample.misses.p99_us),
            open_files_max: samples.iter().map(|sample| sample.used.open_files).max().unwrap_or_default(),
            figures: [before, last.figures.clone()],
        }
    }

    /// How much a counter grew in it.
    pub(crate) fn growth(&self, metric: &str) -> f64 {
        sum(&self.figures[1], metric) - sum(&self.figures[0], metric)
    }

    pub(crate) fn hit_percent(&self) -> Option<f64> {
        let all = self.hits + self.misses;
        (all > 0).then(|| self.hits as f64 * 100.0 / all as f64)
    }

    /// Whether it has enough samples to be compared.
    pub(crate) fn is_comparable(&self) -> bool {
        self.samples >= SAMPLES_MIN
    }
}

/// What the node says it uses on disk.
pub(crate) fn accounted_bytes(sample: &Sample) -> f64 {
    sum(&sample.figures, "brim_store_disk_bytes")
}

/// Of a window, in percent.
pub(crate) fn hit_percent(hits: Seen, misses: Seen) -> f64 {
    hits.count as f64 * 100.0 / (hits.count + misses.count).max(1) as f64
}

/// The value in the middle; the lower one of two.
fn median<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarters_cover_all_samples_once() {
        let samples: Vec<Sample> = (1..=10)
            .map(|number| Sample { hits: Seen { count: number, ..Seen::default() }, ..Sample::default() })
            .collect();
        let quarters = Quarter::all(&samples);
        assert_eq!(quarters.iter().map(|quarter| quarter.samples).sum::<usize>(), 10);
        assert_eq!(quarters.iter().map(|quarter| quarter.hits).sum::<usize>(), 55);
        assert_eq!(Quarter::all(&[]).map(|quarter| quarter.samples), [0; 4]);
    }

    #[test]
    fn a_counter_grows_from_the_end_of_the_quarter_before() {
        let at = |value: f64| Sample {
            figures: Figures::from([("brim_store_writes_total".to_owned(), value)]),
            ..Sample::default()
        };
        let quarters = Quarter::all(&[at(5.0), at(7.0), at(7.0), at(20.0)]);
        assert_eq!(quarters.map(|quarter| quarter.growth("brim_store_writes_total")), [5.0, 2.0, 0.0, 13.0]);
    }
}
