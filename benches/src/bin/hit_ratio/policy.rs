//! What a disk tier may do, as models, and how one is played against a trace.

use brim_benches::Lengths;
use brim_store::{BLOCK_BYTES, SEGMENT_BYTES};

use crate::admission::SecondSight;
use crate::lru::Lru;
use crate::segments::{Keep, Segments};
use crate::trace::Trace;

/// The budget of a model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) disk_max: u64,
    pub(crate) segment_bytes: u64,
    /// Responses that the disk holds, about.
    pub(crate) held: u64,
}

impl Plan {
    /// Segments are as large as those of the store with this budget.
    pub(crate) fn new(disk_max: u64, lengths: &Lengths) -> Self {
        let segment_bytes = (disk_max / 16).clamp(64 * 1024, SEGMENT_BYTES);
        let mean = record_bytes(usize::try_from(lengths.sum() / lengths.count() as u64).unwrap_or(0));
        Self { disk_max, segment_bytes, held: disk_max / mean }
    }

    pub(crate) fn with_capacity(self, disk_max: u64) -> Self {
        Self { disk_max, ..self }
    }
}

/// What a content takes in a segment: a header, and a checksum a block.
fn record_bytes(length: usize) -> u64 {
    64 + length as u64 + 4 * length.div_ceil(BLOCK_BYTES) as u64
}

/// A disk tier.
pub(crate) trait Policy {
    /// Whether the response is there; it may be stored if it is not.
    fn hits(&mut self, number: u64, bytes: u64) -> bool;
    /// Responses written so far, those that were written again included.
    fn written(&self) -> u64;
}

/// The name of the model that has the room which the real store's segments had.
pub(crate) const AS_MEASURED: &str = "model of it, with the room of its segments";
/// Keys that are remembered, as a multiple of the responses on disk.
const WINDOWS: [u64; 3] = [1, 4, 16];

/// All models, by name.
pub(crate) fn all(plan: &Plan) -> Vec<(String, Box<dyn Policy>)> {
    let mut all: Vec<(String, Box<dyn Policy>)> = vec![
        ("FIFO by segment".into(), Box::new(Segments::new(plan, Keep::Nothing))),
        ("LRU by response".into(), Box::new(Lru::new(plan.disk_max))),
        ("FIFO with re-insertion".into(), Box::new(reinserting(plan))),
    ];
    for window in WINDOWS {
        let policy = SecondSight::new(reinserting(plan), window * plan.held);
        all.push((format!("the same, admission on second sight, window {window} ×"), Box::new(policy)));
    }
    all
}

/// The store's rule of eviction.
pub(crate) fn reinserting(plan: &Plan) -> Segments {
    Segments::new(plan, Keep::Used)
}

/// What came of a trace, counted requests alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) hits: u64,
    pub(crate) hot_requests: u64,
    pub(crate) hot_hits: u64,
    /// Responses written, from the first counted request on.
    pub(crate) written: u64,
}

impl Outcome {
    pub(crate) fn count(&mut self, is_hot: bool, is_hit: bool) {
        self.requests += 1;
        self.hits += u64::from(is_hit);
        self.hot_requests += u64::from(is_hot);
        self.hot_hits += u64::from(is_hot && is_hit);
    }

    pub(crate) fn ratio(&self) -> f64 {
        self.hits as f64 / self.requests.max(1) as f64
    }

    pub(crate) fn hot_ratio(&self) -> f64 {
        self.hot_hits as f64 / self.hot_requests.max(1) as f64
    }

    pub(crate) fn written_by_miss(&self) -> f64 {
        self.written as f64 / (self.requests - self.hits).max(1) as f64
    }
}

/// Plays a trace.
pub(crate) fn play(trace: Trace, lengths: &Lengths, policy: &mut dyn Policy) -> Outcome {
    let mut outcome = Outcome::default();
    let mut written_before = 0;
    for request in trace {
        if !request.is_counted {
            written_before = policy.written();
        }
        let is_hit = policy.hits(request.number, record_bytes(lengths.of(request.number)));
        if request.is_counted {
            outcome.count(request.is_hot, is_hit);
        }
    }
    outcome.written = policy.written() - written_before;
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hot_ratios(crawl_percent: u8) -> Vec<f64> {
        let lengths = Lengths::log_normal(2000, 4096, 1.1, (256, 200 * 1024), 1).unwrap();
        let plan = Plan::new(3 << 20, &lengths);
        let played = all(&plan).into_iter().map(|(_, mut policy)| {
            play(Trace::new(2000, 6000, 0.8, crawl_percent).unwrap(), &lengths, &mut *policy).hot_ratio()
        });
        played.collect()
    }

    /// The store's case in small: what is asked for again stays, and a crawl cannot push it out if it has to be seen twice.
    #[test]
    fn reinsertion_beats_fifo_and_admission_withstands_a_crawl() {
        let (calm, crawled) = (hot_ratios(0), hot_ratios(90));
        let [fifo, lru, reinserting, ..] = calm[..] else { panic!("too few models") };
        assert!(reinserting > fifo && lru > fifo, "{calm:?}");
        let kept: Vec<_> = calm.iter().zip(&crawled).map(|(calm, crawled)| crawled / calm).collect();
        assert!(kept[0] < 0.7 && kept[1] < 0.7, "{kept:?}");
        assert!(kept[5] > 0.9, "{kept:?}");
    }
}
