//! Reading the variants of a key from disk. Runs on the read pool.

use std::sync::Arc;

use brim_semantics::{CacheKey, PurgeState};

use super::{Disk, Op};
use crate::catalog::Which;
use crate::index::index_key;
use crate::purge::Names;
use crate::record::{self, Entry};
use crate::response::{Parts, Place, StoredBody, StoredResponse, Variants};
use crate::segment::RecordHeader;
use crate::shared::Shared;

/// Why a card's response is not used.
enum Unusable {
    /// It is gone already, or purged: nothing is wrong.
    Gone,
    Purged,
    Damaged(String),
}

/// The variants of a key that are on disk, checked, taken into the memory tier. None: there are none, or the index failed.
pub(crate) fn load(shared: &Shared, key: &CacheKey) -> Option<Arc<Variants>> {
    // Somebody else may have loaded it while this waited for a thread.
    if let Some(variants) = shared.memory.get(key).filter(|variants| variants.complete) {
        return Some(variants);
    }
    // Without a disk what is in memory may not be all, and is all that can be had.
    let Some(disk) = shared.disk() else { return shared.memory.get(key) };
    let before = shared.memory.epoch(key.hash());
    let (written, elsewhere) = shared.catalog.written(key.hash());
    let mut found = Vec::new();
    for which in written {
        match load_one(shared, &disk, key, which) {
            Ok(response) => found.push(response),
            Err(Unusable::Gone) => {}
            Err(Unusable::Purged) => {
                // Out of memory as well: without a card nobody would look for it there.
                shared.drop_response(which);
                shared.reading().queue.push(Op::Forget(vec![which]));
            }
            Err(Unusable::Damaged(reason)) => {
                shared.reading().queue.push(Op::Damaged(which, reason));
            }
        }
    }
    let (variants, let_go) = shared.memory.promote(key, found, &elsewhere, before);
    shared.let_go(let_go);
    variants
}

/// A body that cannot be read where its entry said is damaged only if the entry still says so: its segment may have
/// been given up between the two reads, and the body moved.
fn load_one(shared: &Shared, disk: &Disk, key: &CacheKey, which: Which) -> Result<Arc<StoredResponse>, Unusable> {
    let mut before = None;
    loop {
        let (entry, names) = read_entry(shared, disk, key, which)?;
        let place = entry.place;
        match read_body(shared, disk, entry, names, which) {
            Err(Unusable::Damaged(_)) if before.replace(place) != Some(place) => {}
            result => return result,
        }
    }
}

fn read_entry(shared: &Shared, disk: &Disk, key: &CacheKey, which: Which) -> Result<(Entry, Arc<Names>), Unusable> {
    let Some(value) = disk.get(&index_key(which.key, which.variant)) else { return Err(Unusable::Gone) };
    let Some(value) = value else {
        return Err(if shared.catalog.is_current(which) {
            Unusable::Damaged("the index has no such entry".into())
        } else {
            Unusable::Gone
        });
    };
    let entry = record::decode(&value).map_err(|error| Unusable::Damaged(error.to_string()))?;
    if entry.serial != which.serial || entry.head.key.bytes() != key.bytes() {
        // Replaced since, or another key with the same hash.
        return Err(Unusable::Gone);
    }
    let names = Arc::new(Names::of_head(&entry.head));
    if shared.clock().state_now(&names, entry.head.fetched_at) == PurgeState::Hard {
        return Err(Unusable::Purged);
    }
    Ok((entry, names))
}

fn read_body(
    shared: &Shared,
    disk: &Disk,
    entry: Entry,
    names: Arc<Names>,
    which: Which,
) -> Result<Arc<StoredResponse>, Unusable> {
    let unusable = |reason: String| {
        // Its segment may have been evicted since the entry was read.
        if shared.catalog.is_current(which) && disk.failure().is_none() {
            Unusable::Damaged(reason)
        } else {
            Unusable::Gone
        }
    };
    let _watched = shared.watch.call();
    let segment = disk.segments.get(entry.place.segment).map_err(|error| unusable(error.to_string()))?;
    let header =
        RecordHeader { key: which.key, variant: which.variant, serial: entry.place.serial, length: entry.place.length };
    let offset = entry.place.offset;
    let bytes = if entry.place.length <= shared.config.collect_bytes_max() {
        Some(segment.read_whole(offset, &header).map_err(|damage| unusable(damage.to_string()))?)
    } else {
        segment.check_header(offset, &header).map_err(|damage| unusable(damage.to_string()))?;
        None
    };
    let body = StoredBody::new(entry.place.length, Some(Place { segment, offset, header }));
    Ok(StoredResponse::new(Parts {
        head: entry.head,
        bytes,
        body: Arc::new(body),
        trailers: entry.trailers.map(Box::new),
        names,
        serial: entry.serial,
        reading: Arc::clone(shared.reading()),
    }))
}
