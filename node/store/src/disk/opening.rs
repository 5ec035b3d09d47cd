//! Opening a disk tier: index and segments are believed only as far as they agree.

use std::path::Path;
use std::sync::atomic::Ordering;

use brim_semantics::PurgeState;

use super::Disk;
use super::segments::Segments;
use super::tier::{META_NEXT_SEGMENT, META_STORE};
use crate::catalog::Card;
use crate::dir::{self, StoreId};
use crate::index::{Index, IndexError, IndexKey, SledIndex, split_index_key};
use crate::purge::Names;
use crate::record;
use crate::segment::record_bytes;
use crate::shared::Shared;

pub(crate) const INDEX_DIR: &str = "index";
pub(crate) const SEGMENT_DIR: &str = "seg";

/// Why a disk tier cannot be used: it is set aside.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("segments: {0}")]
    Segments(#[from] std::io::Error),
    #[error("the index belongs to another store")]
    Foreign,
}

/// Opens what is there, or makes it; afterwards the catalog has a card for each usable entry.
pub(crate) fn open(shared: &Shared, store: StoreId) -> Result<Disk, DiskError> {
    let root = &shared.config.dir;
    let segments = Segments::open(&root.join(SEGMENT_DIR), store)?;
    let index = open_index(&root.join(INDEX_DIR), store, shared.config.memory_max)?;
    if let Some(next) = index.meta(META_NEXT_SEGMENT)?.and_then(|bytes| bytes.try_into().ok()) {
        segments.above(u64::from_le_bytes(next).saturating_sub(1));
    }
    let refused = take_stock(shared, &index, &segments)?;
    for key in &refused {
        index.remove(key)?;
    }
    // Only now may the files go that no entry names.
    index.flush()?;
    for (id, _) in segments.closed() {
        if shared.catalog.live_bytes(id) == 0 {
            segments.remove(id);
        }
    }
    let index_bytes = index.size_bytes()?;
    let disk = Disk::new(store, Box::new(index), segments);
    disk.index_bytes.store(index_bytes, Ordering::Relaxed);
    tracing::info!(
        entries = shared.catalog.count(),
        refused = refused.len(),
        segments = disk.segments.count(),
        "disk tier opened"
    );
    Ok(disk)
}

fn open_index(dir: &Path, store: StoreId, memory_max: u64) -> Result<SledIndex, DiskError> {
    let cache_bytes = (memory_max / 4).clamp(16 << 20, 256 << 20);
    let index = SledIndex::open(dir, cache_bytes)?;
    match index.meta(META_STORE)? {
        Some(id) if id == store.0 => {}
        Some(_) => return Err(DiskError::Foreign),
        None => {
            let mut is_empty = true;
            index.walk(&mut |_, _| {
                is_empty = false;
                false
            })?;
            if !is_empty {
                return Err(DiskError::Foreign);
            }
            index.put_meta(META_STORE, &store.0)?;
        }
    }
    Ok(index)
}

/// Walks the index once. Returns the keys of entries that are damaged, purged, from beyond the purge log's end, or without a body.
fn take_stock(shared: &Shared, index: &SledIndex, segments: &Segments) -> Result<Vec<IndexKey>, DiskError> {
    let mut refused = Vec::new();
    let mut serial_max = 0;
    index.walk(&mut |key, value| {
        let Some((hash, variant)) = split_index_key(key) else { return true };
        let usable = record::decode(value).ok().filter(|entry| {
            segments.above(entry.place.segment);
            let end = entry.place.offset.saturating_add(record_bytes(entry.place.length));
            entry.head.key.hash() == hash
                && entry.head.variant() == variant
                && segments.size_of(entry.place.segment).is_some_and(|bytes| end <= bytes)
        });
        let card = usable.and_then(|entry| {
            serial_max = serial_max.max(entry.serial).max(entry.place.serial);
            let names = Names::of(&entry.head.scope, &entry.head.surrogate_keys);
            let state = shared.clock().state_now(&names, entry.head.fetched_at);
            // A position beyond the log's end was shown by a process that could not write it down. It will be given
            // again, and must not look older than what was fetched after it.
            let is_known = entry.head.fetched_at <= shared.log_latest;
            (is_known && state != PurgeState::Hard).then(|| Card {
                variant,
                serial: entry.serial,
                fetched_at: entry.head.fetched_at,
                length: entry.place.length,
                segment: entry.place.segment,
                used: false,
                names: names.into(),
            })
        });
        let taken = card.is_some_and(|card| shared.catalog.put_found(hash, card));
        if !taken && let Ok(key) = key.try_into() {
            refused.push(key);
        }
        true
    })?;
    shared.serial_above(serial_max);
    Ok(refused)
}

/// Moves a failed disk tier aside and names a new store; the purge log follows it.
pub(crate) fn set_aside(shared: &Shared, reason: &str) -> std::io::Result<StoreId> {
    shared.catalog.clear();
    let root = &shared.config.dir;
    let aside = dir::quarantine(root, &[INDEX_DIR, SEGMENT_DIR])?;
    tracing::error!(reason, quarantine = %aside.display(), "the disk tier failed; it is set aside and an empty one begins");
    // Bodies without an index tell nobody anything, and the disk budget is for the living.
    if dir::bytes_below(&aside.join(SEGMENT_DIR)) > shared.config.disk_max / 8 {
        let _ = std::fs::remove_dir_all(aside.join(SEGMENT_DIR));
    }
    let store = StoreId::random();
    shared.committer.rename(store)?;
    dir::write_format(root, store)?;
    shared.counters.quarantined.add(1);
    Ok(store)
}
