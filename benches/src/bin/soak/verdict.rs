//! The verdict: every reason why a soak is not good.

use crate::metrics::sum;
use crate::quarter::Quarter;
use crate::sample::Sample;
use crate::tally::{Counts, Fault};

/// The median of the last quarter may be so many times that of the second one.
const RESIDENT_GROWTH_MAX: f64 = 1.15;
const P99_GROWTH_MAX: f64 = 3.0;

/// Metrics that stay 0, and what it means if they do not.
const ZEROES: [(&str, &str); 3] = [
    ("brim_store_quarantines_total", "the store was quarantined"),
    ("brim_store_read_failures_total", "stored responses were unreadable"),
    ("brim_store_stalls_total", "the disk tier was given up because it did not answer"),
];

/// What may be used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) disk_max: u64,
    /// Of memory in all: the memory tier and the stated overhead.
    pub(crate) resident_max: u64,
}

impl Bounds {
    /// The budget and one segment, as docs/limits.md says.
    pub(crate) fn on_disk_max(self) -> u64 {
        self.disk_max + segment_bytes(self.disk_max)
    }
}

/// The length of a segment: a sixteenth of the budget.
fn segment_bytes(disk_max: u64) -> u64 {
    (disk_max / 16).clamp(64 * 1024, 64 * 1024 * 1024)
}

/// All that is wrong; nothing if nothing is.
pub(crate) fn judge(samples: &[Sample], counts: &Counts, bounds: Bounds) -> Vec<String> {
    let mut reasons = Vec::new();
    for fault in Fault::ALL {
        if counts.of(fault) > 0 {
            reasons.push(format!("{}: {} times", fault.name(), counts.of(fault)));
        }
    }
    let last = samples.last().cloned().unwrap_or_default();
    for (metric, meaning) in ZEROES {
        let count = sum(&last.figures, metric);
        if count > 0.0 {
            reasons.push(format!("{meaning}: {metric} is {count}"));
        }
    }
    if counts.hits == 0 || counts.misses == 0 {
        reasons.push(format!("{} hits and {} misses say nothing", counts.hits, counts.misses));
    }
    judge_use(&Quarter::all(samples), bounds, &mut reasons);
    reasons
}

fn judge_use(quarters: &[Quarter; 4], bounds: Bounds, reasons: &mut Vec<String>) {
    let most = |figure: fn(&Quarter) -> f64| quarters.iter().map(figure).fold(0.0, f64::max);
    let on_disk_max = bounds.on_disk_max() as f64;
    let checks = [
        ("memory", most(|quarter| quarter.resident_max as f64), bounds.resident_max as f64),
        ("disk, as the node accounts for it,", most(|quarter| quarter.accounted_max), on_disk_max),
        ("disk, in blocks of the file system,", most(|quarter| quarter.on_disk_max as f64), on_disk_max),
    ];
    for (what, used, bound) in checks {
        if used > bound {
            reasons.push(format!("{what} reached {:.1} MiB; the bound is {:.1} MiB", mib(used), mib(bound)));
        }
    }
    let [_, second, _, fourth] = quarters;
    if !second.is_comparable() || !fourth.is_comparable() {
        reasons.push("too few samples to compare quarters".to_owned());
        return;
    }
    let (before, after) = (second.resident_median as f64, fourth.resident_median as f64);
    if after > before * RESIDENT_GROWTH_MAX {
        reasons.push(format!(
            "memory grew from {:.1} to {:.1} MiB between the second and the last quarter, more than {RESIDENT_GROWTH_MAX} times",
            mib(before),
            mib(after)
        ));
    }
    match (second.hit_p99_us, fourth.hit_p99_us) {
        (Some(before), Some(after)) if f64::from(after) > f64::from(before) * P99_GROWTH_MAX => {
            reasons.push(format!(
                "p99 of hits grew from {before} to {after} µs between the second and the last quarter, more than {P99_GROWTH_MAX} times"
            ));
        }
        (Some(_), Some(_)) => {}
        (None, _) | (_, None) => reasons.push("no hits to compare".to_owned()),
    }
}

pub(crate) fn mib(bytes: f64) -> f64 {
    bytes / (1024.0 * 1024.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Figures;
    use crate::sample::{Seen, Used};

    const MIB: u64 = 1024 * 1024;
    const BOUNDS: Bounds = Bounds { disk_max: 256 * MIB, resident_max: 320 * MIB };

    fn good() -> (Vec<Sample>, Counts) {
        let seen = Seen { count: 10, p50_us: Some(100), p99_us: Some(1000) };
        let sample = |number| Sample {
            at: Duration::from_secs(number),
            used: Used { resident_bytes: 200 * MIB, index_bytes: 10 * MIB, segment_bytes: 250 * MIB, open_files: 50 },
            hits: seen,
            misses: seen,
            figures: Figures::from([("brim_store_disk_bytes{part=\"segments\"}".to_owned(), (256 * MIB) as f64)]),
        };
        ((0..40).map(sample).collect(), Counts { hits: 400, misses: 400, ..Counts::default() })
    }

    /// The reasons after something has been made worse.
    fn after(worsen: impl FnOnce(&mut [Sample], &mut Counts)) -> Vec<String> {
        let (mut samples, mut counts) = good();
        worsen(&mut samples, &mut counts);
        judge(&samples, &counts, BOUNDS)
    }

    #[test]
    fn a_good_soak_has_no_reasons() {
        assert_eq!(after(|_, _| {}), Vec::<String>::new());
    }

    #[test]
    fn every_fault_of_an_answer_is_a_reason() {
        for fault in Fault::ALL {
            let reasons = after(|_, counts| counts.faults[fault as usize] = 3);
            assert_eq!(reasons, [format!("{}: 3 times", fault.name())]);
        }
    }

    #[test]
    fn every_metric_that_must_be_0_is_a_reason() {
        for (metric, _) in ZEROES {
            let reasons = after(|samples, _| samples[39].figures.extend([(metric.to_owned(), 1.0)]));
            assert!(reasons.len() == 1 && reasons[0].contains(metric), "{reasons:?}");
        }
    }

    #[test]
    fn one_sample_above_a_bound_is_a_reason() {
        let reasons = after(|samples, _| samples[3].used.resident_bytes = 321 * MIB);
        assert_eq!(reasons, ["memory reached 321.0 MiB; the bound is 320.0 MiB"]);
        let reasons = after(|samples, _| samples[3].used.segment_bytes = 263 * MIB);
        assert_eq!(reasons, ["disk, in blocks of the file system, reached 273.0 MiB; the bound is 272.0 MiB"]);
        let reasons = after(|samples, _| {
            samples[39].figures.insert("brim_store_disk_bytes{part=\"index\"}".to_owned(), (17 * MIB) as f64);
        });
        assert_eq!(reasons, ["disk, as the node accounts for it, reached 273.0 MiB; the bound is 272.0 MiB"]);
    }

    #[test]
    fn memory_that_grows_is_a_reason() {
        let grow =
            |bytes| after(|samples, _| samples[30..].iter_mut().for_each(|sample| sample.used.resident_bytes = bytes));
        assert_eq!(grow(229 * MIB), Vec::<String>::new());
        assert!(grow(231 * MIB)[0].contains("memory grew from 200.0 to 231.0 MiB"));
    }

    #[test]
    fn hits_that_become_slower_are_a_reason() {
        let grow = |us| after(|samples, _| samples[30..].iter_mut().for_each(|sample| sample.hits.p99_us = Some(us)));
        assert_eq!(grow(3000), Vec::<String>::new());
        assert!(grow(3001)[0].contains("p99 of hits grew from 1000 to 3001 µs"));
    }

    #[test]
    fn a_soak_that_is_too_short_or_empty_is_not_good() {
        let (samples, counts) = good();
        assert_eq!(judge(&samples[..8], &counts, BOUNDS), ["too few samples to compare quarters"]);
        assert!(judge(&[], &Counts::default(), BOUNDS).len() >= 2);
    }

    #[test]
    fn a_segment_is_a_sixteenth_of_the_budget_within_bounds() {
        assert_eq!(segment_bytes(256 * MIB), 16 * MIB);
        assert_eq!(segment_bytes(1), 64 * 1024);
        assert_eq!(segment_bytes(1 << 40), 64 * MIB);
    }
}
