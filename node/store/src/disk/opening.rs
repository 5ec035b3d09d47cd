//! Opening a disk tier: index and segments are believed only as far as they agree.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use brim_semantics::{KeyHash, PurgeState};

use super::segments::Segments;
use super::supervisor::Turn;
use super::tier::META_NEXT_SEGMENT;
use super::{Disk, Failure};
use crate::catalog::{Card, Found, Whereabouts, Which};
use crate::dir::{self, StoreId};
use crate::index::{Generations, Index, IndexError, IndexKey, SledIndex, is_no_space, split_index_key};
use crate::record::{self, Summary};
use crate::segment::record_bytes;
use crate::shared::Shared;
use crate::watch::Call;

pub(crate) const INDEX_DIR: &str = "index";
pub(crate) const SEGMENT_DIR: &str = "seg";

/// Opening a tier, and setting one aside, may last so many times longer than other calls before it counts as hanging; opening
/// begins anew with each entry.
pub(super) const PATIENCE: u32 = 10;
/// Files that one tier may number before the numbers of the next begin.
const NUMBERS_OF_A_TIER: u64 = 10_000_000;

/// Why a disk tier cannot be used: it is set aside.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("segments: {0}")]
    Segments(#[from] std::io::Error),
    #[error("left behind while it was opened")]
    LeftBehind,
}

impl From<DiskError> for Failure {
    fn from(error: DiskError) -> Self {
        let is_for_space = match &error {
            DiskError::Index(error) => error.is_no_space(),
            DiskError::Segments(error) => is_no_space(error),
            DiskError::LeftBehind => false,
        };
        Self { reason: error.to_string(), is_for_space }
    }
}

/// An open disk tier, and what its index is rebuilt with.
pub(crate) struct Opened {
    pub(crate) disk: Arc<Disk>,
    pub(crate) generations: Generations,
    pub(crate) generation: u64,
    pub(crate) numbers_from: u64,
}

/// A number is used: the files of the next tier have numbers far above it.
fn leave_numbers(shared: &Shared, used: u64) {
    let next = (used / NUMBERS_OF_A_TIER + 1) * NUMBERS_OF_A_TIER;
    shared.numbers_from.fetch_max(next, Ordering::Relaxed);
}

/// Opens what is there, or makes it; afterwards the catalog has a card for each usable entry. If it `is_again`, after the tier was
/// closed, only what the catalog still knows is usable.
pub(super) fn open(shared: &Shared, store: StoreId, turn: &Turn, is_again: bool) -> Result<Opened, DiskError> {
    let (config, faults) = (&shared.config, shared.config.faults());
    let mut watched = shared.watch.long_call(config.stall_after * PATIENCE);
    let segments = Segments::open(&config.dir.join(SEGMENT_DIR), store, faults.clone())?;
    // Threads of a tier before this one may wake up late: their files have other numbers.
    let numbers_from = shared.numbers_from.load(Ordering::Relaxed);
    segments.above(numbers_from);
    leave_numbers(shared, segments.next_id());
    let generations = Generations::new(config.dir.join(INDEX_DIR), store, config.index_tuning());
    let generations = generations.beginning_at(numbers_from + 1);
    let generation = generations.open_or_make(&|| turn.is_abandoned())?;
    leave_numbers(shared, generation.number);
    let index = generation.index;
    if let Some(next) = index.meta(META_NEXT_SEGMENT)?.and_then(|bytes| bytes.try_into().ok()) {
        segments.above(u64::from_le_bytes(next).saturating_sub(1));
    }
    leave_numbers(shared, segments.next_id());
    let taking = Taking { shared, segments: &segments, is_again };
    let refused = taking.take_stock(&index, turn, &mut watched)?;
    if is_again {
        shared.catalog.forget_away(|which| shared.memory.holds(which));
    }
    for key in &refused {
        index.remove(key)?;
        watched.goes_on();
    }
    // Only now may the files go that no entry names.
    index.flush()?;
    for (id, _) in segments.closed() {
        if turn.is_abandoned() {
            return Err(DiskError::LeftBehind);
        }
        if shared.catalog.live_bytes(id) == 0 {
            segments.remove(id);
            watched.goes_on();
        }
    }
    let index_bytes = index.size_bytes()?;
    let disk = Disk::new(store, Arc::new(index), segments, Arc::clone(&shared.watch), faults);
    disk.usage.measured(index_bytes);
    tracing::info!(
        entries = shared.catalog.written_count(),
        refused = refused.len(),
        segments = disk.segments.count(),
        "disk tier opened"
    );
    Ok(Opened { disk: Arc::new(disk), generations, generation: generation.number, numbers_from })
}

/// A walk over an index that is being opened.
struct Taking<'a> {
    shared: &'a Shared,
    segments: &'a Segments,
    is_again: bool,
}

impl Taking<'_> {
    /// Walks the index once. Returns the keys of entries that are damaged, purged, from beyond the purge log's end, or without a body.
    fn take_stock(&self, index: &SledIndex, turn: &Turn, watched: &mut Call<'_>) -> Result<Vec<IndexKey>, DiskError> {
        let shared = self.shared;
        let mut refused = Vec::new();
        let mut serial_max = 0;
        index.walk(None, &mut |key, value| {
            watched.goes_on();
            if turn.is_abandoned() {
                return false;
            }
            let Some((hash, variant)) = split_index_key(key) else { return true };
            let bytes = u32::try_from(key.len() + value.len()).unwrap_or(u32::MAX);
            let card = record::summary(value).ok().and_then(|entry| {
                self.segments.above(entry.place.segment);
                serial_max = serial_max.max(entry.serial).max(entry.place.serial);
                self.card_of(&entry, hash, variant, bytes)
            });
            let found = card.map_or(Found::Refused, |card| self.enter(hash, card));
            match found {
                Found::Alone => {}
                // What was stored while this walk went on took itself for the only variant of its key.
                Found::WithOthers => shared.let_go(shared.memory.not_all(hash)),
                Found::Refused => refused.extend(IndexKey::try_from(key)),
            }
            true
        })?;
        if turn.is_abandoned() {
            return Err(DiskError::LeftBehind);
        }
        shared.serial_above(serial_max);
        Ok(refused)
    }

    /// The card of an entry that can be used.
    fn card_of(&self, entry: &Summary, hash: KeyHash, variant: u64, entry_bytes: u32) -> Option<Card> {
        let end = entry.place.offset.saturating_add(record_bytes(entry.place.length));
        let has_body = self.segments.size_of(entry.place.segment).is_some_and(|bytes| end <= bytes);
        if entry.key_hash != hash || entry.variant != variant || !has_body {
            return None;
        }
        let clock = self.shared.clock();
        // A position beyond the log's end was shown by a process that could not write it down. It will be given again, and must
        // not look older than what was fetched after it. What this process has shown, it knows.
        let known_to = if self.is_again { clock.latest() } else { self.shared.log_latest };
        if entry.fetched_at > known_to || clock.state_now(&entry.names, entry.fetched_at) == PurgeState::Hard {
            return None;
        }
        Some(Card {
            variant,
            serial: entry.serial,
            fetched_at: entry.fetched_at,
            length: entry.place.length,
            at: Whereabouts::Written { segment: entry.place.segment, entry_bytes },
            used: false,
            names: entry.names.clone().into(),
        })
    }

    fn enter(&self, key: KeyHash, card: Card) -> Found {
        let catalog = &self.shared.catalog;
        if !self.is_again {
            return catalog.put_found(key, card);
        }
        let which = Which { key, variant: card.variant, serial: card.serial };
        if catalog.confirm(which, card.at) { Found::Alone } else { Found::Refused }
    }
}

/// Moves what cannot be believed aside and names a new store; the purge log follows it. Without responses there, it just
/// makes a new store: a first start may have been cut off.
pub(crate) fn set_aside(shared: &Shared, reason: &str, parts: &[&str]) -> std::io::Result<StoreId> {
    let _watched = shared.watch.long_call(shared.config.stall_after * PATIENCE);
    shared.forget_disk();
    let root = &shared.config.dir;
    if [INDEX_DIR, SEGMENT_DIR].iter().any(|part| root.join(part).exists()) {
        let aside = dir::quarantine(root, parts, &shared.config.faults())?;
        tracing::error!(reason, quarantine = %aside.display(), "the store on disk failed; it is set aside and an empty one begins");
        // Bodies without an index tell nobody anything, and the disk budget is for the living.
        if dir::bytes_below(&aside) > shared.config.disk_max / 8 {
            let _ = std::fs::remove_dir_all(aside.join(SEGMENT_DIR));
            let _ = std::fs::remove_dir_all(aside.join(INDEX_DIR));
        }
        shared.counters.quarantined.add(1);
    }
    let store = StoreId::random();
    shared.committer.rename(store)?;
    dir::write_format(root, store, &shared.config.faults())?;
    Ok(store)
}
