//! What is stored, in figures.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;

use super::entry::Read;
use super::{LogFacts, OfflineError, OfflineStore, Standing, StoredEntry, Tally};
use crate::disk::Segments;
use crate::segment::FILE_HEADER_BYTES;

/// Classes of how much of a segment is alive: nothing, then quarters.
pub const FULLNESS_CLASSES: usize = 5;

/// Segments by the share of them that is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Fullness {
    /// More than this share is alive, in percent; of the first class nothing.
    pub above_percent: u64,
    /// And at most this.
    pub up_to_percent: u64,
    /// Segments.
    pub segments: Tally,
    /// Bytes in them that are alive.
    pub live_bytes: u64,
}

/// Stored responses by the length of their bodies, in powers of ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SizeClass {
    /// At least so long.
    pub from_bytes: u64,
    /// And shorter than this.
    pub below_bytes: u64,
    /// Stored responses.
    pub responses: Tally,
}

/// What a data directory holds. Bytes of stored responses are those of their bodies, unless something else is said.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct OfflineStats {
    /// Stored responses that a node would use.
    pub responses: Tally,
    /// Those of them that are stale by a soft purge.
    pub soft_purged: Tally,
    /// Bytes that they take in segments.
    pub live_bytes: u64,
    /// Bytes in segments that belong to none of them.
    pub dead_bytes: u64,
    /// Bytes of the index on disk.
    pub index_bytes: u64,
    /// Bytes of its entries.
    pub entry_bytes: u64,
    /// Segment files.
    pub segments: Tally,
    /// How full they are.
    pub fullness: [Fullness; FULLNESS_CLASSES],
    /// The purge log.
    pub purge_log: LogFacts,
    /// Purged, or beyond the end of the purge log, and not reclaimed yet.
    pub refused: Tally,
    /// Entries that cannot be read.
    pub bad_entries: u64,
    /// By the name of the site: as many as the configuration had.
    pub by_site: BTreeMap<Box<str>, Tally>,
    /// By the status of the response.
    pub by_status: BTreeMap<u16, Tally>,
    /// By the length of the body; classes without a response are left out.
    pub by_size: Vec<SizeClass>,
    /// When the oldest came, or was last validated.
    #[serde(skip)]
    pub oldest: Option<SystemTime>,
    /// When the newest came, or was last validated.
    #[serde(skip)]
    pub newest: Option<SystemTime>,
}

#[derive(Default)]
struct Counting {
    stats: OfflineStats,
    live_by_segment: BTreeMap<u64, u64>,
    /// By the count of decimal digits of the length; 0 has none.
    by_digits: BTreeMap<u32, Tally>,
}

/// Counts what is stored; no body is read. Blocks.
///
/// # Errors
/// The directory cannot be looked at, or the index not read to its end.
pub fn stats(dir: &Path) -> Result<OfflineStats, OfflineError> {
    let store = OfflineStore::open(dir)?;
    let mut counting = Counting::default();
    store
        .walk(&mut |read| {
            counting.count(read);
            true
        })
        .map_err(|reason| store.index_failure(reason))?;
    let mut stats = counting.finish(store.segments.as_ref());
    stats.index_bytes = store.index_bytes();
    stats.purge_log = store.purges.facts.clone();
    Ok(stats)
}

impl Counting {
    fn count(&mut self, read: Read<'_>) {
        let entry = match read {
            Read::Good(entry) => entry,
            Read::Bad { bytes, .. } => {
                self.stats.bad_entries += 1;
                self.stats.entry_bytes += bytes;
                return;
            }
        };
        self.stats.entry_bytes += entry.entry_bytes;
        if entry.standing.is_refused() {
            self.stats.refused.add(entry.bytes);
        } else {
            self.count_usable(&entry);
        }
    }

    fn count_usable(&mut self, entry: &StoredEntry) {
        let stats = &mut self.stats;
        stats.responses.add(entry.bytes);
        if entry.standing == Standing::Soft {
            stats.soft_purged.add(entry.bytes);
        }
        stats.live_bytes += entry.record_bytes();
        *self.live_by_segment.entry(entry.segment).or_default() += entry.record_bytes();
        match stats.by_site.get_mut(&entry.site) {
            Some(tally) => tally.add(entry.bytes),
            None => stats.by_site.entry(entry.site.clone()).or_default().add(entry.bytes),
        }
        stats.by_status.entry(entry.status).or_default().add(entry.bytes);
        let digits = entry.bytes.checked_ilog10().map_or(0, |log| log + 1);
        self.by_digits.entry(digits).or_default().add(entry.bytes);
        stats.oldest = Some(stats.oldest.map_or(entry.stored_at, |oldest| oldest.min(entry.stored_at)));
        stats.newest = stats.newest.max(Some(entry.stored_at));
    }

    fn finish(self, segments: Option<&Segments>) -> OfflineStats {
        let Self { mut stats, live_by_segment, by_digits } = self;
        for (class, fullness) in (0..).zip(&mut stats.fullness) {
            fullness.up_to_percent = class * 25;
            fullness.above_percent = fullness.up_to_percent.saturating_sub(25);
        }
        for (id, bytes) in segments.map(Segments::closed).unwrap_or_default() {
            let room = bytes.saturating_sub(FILE_HEADER_BYTES);
            // Of a segment that was cut off, entries may say more than there is.
            let live = live_by_segment.get(&id).copied().unwrap_or(0).min(room);
            let class = (live * 4).div_ceil(room.max(1));
            let fullness = &mut stats.fullness[usize::try_from(class).unwrap_or(0).min(FULLNESS_CLASSES - 1)];
            fullness.segments.add(bytes);
            fullness.live_bytes += live;
            stats.segments.add(bytes);
            stats.dead_bytes += room - live;
        }
        let bound = |digits: u32| if digits == 0 { 0 } else { 10_u64.saturating_pow(digits - 1) };
        let classes = by_digits.into_iter().map(|(digits, responses)| SizeClass {
            from_bytes: bound(digits),
            below_bytes: bound(digits + 1),
            responses,
        });
        stats.by_size = classes.collect();
        stats
    }
}
