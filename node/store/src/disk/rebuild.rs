//! Rebuilding the index: what is alive in it is copied into a new database, which takes its place.
//!
//! Always true:
//! - What has no card is not copied: its removal was lost, or is on its way.
//! - Until the new one counts, the old one has every entry; each change goes to both, as far as the copy has come.
//! - It goes on in slices between the writer's other work, at the pace of compaction.
//! - The new one is flushed, then named, then used; the old one's files go after its last reader.
//! - A rebuild that fails costs the old one nothing, and is tried again a while later.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::compaction::{SLICE_BYTES, pace};
use super::tier::Failure;
use super::writer::Writer;
use crate::index::{Generation, Generations, Index, IndexError, IndexKey, split_index_key};

/// sled takes about so many times the bytes of its entries when all is well.
const USUAL_FACTOR: u64 = 2;
/// What a small database takes whatever is in it.
const SLACK_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Entries that are read from the old database at a time.
const READ_AT_ONCE: usize = 256;
/// How long a rebuild that failed is not tried again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

struct Rebuild {
    generation: u64,
    index: Arc<dyn Index>,
    /// The last key that was copied.
    copied_to: Option<IndexKey>,
    copied_bytes: u64,
    next: Instant,
    /// A change could not be copied: it is no copy any more.
    is_broken: Cell<bool>,
}

pub(super) struct Rebuilds {
    generations: Generations,
    generation: u64,
    /// Numbers up to this one have been used: what is removed late must not be what came after.
    last_number: u64,
    under_way: Option<Rebuild>,
    not_before: Option<Instant>,
    /// There are entries without a card: a copy leaves them out.
    is_wanted: bool,
    /// What the last rebuilt index took, in percent of its entries: less cannot be had.
    reached_percent: u64,
}

impl Rebuilds {
    /// `numbers_from`: what other tiers may use.
    pub(super) fn new(generations: Generations, generation: u64, numbers_from: u64) -> Self {
        let last_number = generation.max(numbers_from);
        Self {
            generations,
            generation,
            last_number,
            under_way: None,
            not_before: None,
            is_wanted: false,
            reached_percent: 0,
        }
    }

    pub(super) fn next_slice(&self) -> Option<Instant> {
        self.under_way.as_ref().map(|rebuild| rebuild.next)
    }
}

impl Writer<'_> {
    fn slack(&self) -> u64 {
        SLACK_BYTES_MAX.min(self.shared.config.disk_max / 16)
    }

    /// What the index may take before it is rebuilt: it is planned with, however much more it takes for the moment.
    pub(super) fn index_allowance(&self) -> u64 {
        let entries = self.shared.catalog.entry_bytes();
        let usual = (entries * USUAL_FACTOR).max(entries / 100 * self.rebuilds.reached_percent / 2 * 3);
        usual + self.slack()
    }

    pub(super) fn rebuild_if_worth_it(&mut self) {
        let is_early = self.rebuilds.not_before.is_some_and(|time| Instant::now() < time);
        if self.rebuilds.under_way.is_some() || is_early || !self.disk.is_writable() {
            return;
        }
        self.rebuilds.is_wanted |= self.shared.reading().queue.take_lost_forgets();
        if !self.rebuilds.is_wanted && self.disk.usage.index_bytes() <= self.index_allowance() {
            return;
        }
        // Room for the new one beside the old one.
        self.make_room(self.shared.catalog.entry_bytes() * 2);
        let number = self.rebuilds.last_number + 1;
        self.rebuilds.last_number = number;
        match self.rebuilds.generations.make(number) {
            Ok(Generation { number, index }) => {
                tracing::debug!(generation = number, "the index is rebuilt");
                self.rebuilds.under_way = Some(Rebuild {
                    generation: number,
                    index: Arc::new(index),
                    copied_to: None,
                    copied_bytes: 0,
                    next: Instant::now(),
                    is_broken: Cell::new(false),
                });
            }
            Err(error) => {
                self.put_off(&error);
                self.rebuilds.generations.remove(number);
            }
        }
    }

    fn put_off(&mut self, error: &IndexError) {
        tracing::warn!(%error, "the index could not be rebuilt; it stays as it is for now");
        self.rebuilds.not_before = Some(Instant::now() + RETRY_AFTER);
        self.disk.usage.rebuilding(0);
    }

    /// A change of an entry that the copy has passed already.
    pub(super) fn also_in_rebuild(&self, key: &IndexKey, value: Option<&[u8]>) {
        let Some(rebuild) = &self.rebuilds.under_way else { return };
        if rebuild.copied_to.is_none_or(|copied_to| *key > copied_to) {
            return;
        }
        let _watched = self.shared.watch.call();
        let changed = match value {
            Some(value) => rebuild.index.put(key, value),
            None => rebuild.index.remove(key),
        };
        if changed.is_err() {
            rebuild.is_broken.set(true);
        }
    }

    pub(super) fn rebuild_slice(&mut self) {
        let Some(mut rebuild) = self.rebuilds.under_way.take_if(|rebuild| rebuild.next <= Instant::now()) else {
            return;
        };
        let began = Instant::now();
        match self.copy_slice(&mut rebuild) {
            Ok(Copied::Some(bytes)) => {
                rebuild.copied_bytes += bytes;
                self.disk.usage.rebuilding(rebuild.copied_bytes * 2);
                rebuild.next = began + pace(bytes);
                self.rebuilds.under_way = Some(rebuild);
            }
            Ok(Copied::All) => self.finish(rebuild),
            Err(error) => {
                self.put_off(&error);
                self.discard(rebuild.index, rebuild.generation);
            }
        }
    }

    fn copy_slice(&self, rebuild: &mut Rebuild) -> Result<Copied, IndexError> {
        let _watched = self.shared.watch.call();
        let mut copied = 0;
        while copied < SLICE_BYTES {
            if rebuild.is_broken.get() {
                return Err(IndexError::Engine("a change could not be copied".into()));
            }
            let mut entries: Vec<(IndexKey, Vec<u8>)> = Vec::with_capacity(READ_AT_ONCE);
            let walked = self.disk.walk(rebuild.copied_to.as_ref(), &mut |key, value| {
                entries.extend(IndexKey::try_from(key).ok().map(|key| (key, value.to_vec())));
                entries.len() < READ_AT_ONCE
            });
            if walked.is_none() {
                return Err(IndexError::Engine("the old index failed".into()));
            }
            let is_last = entries.len() < READ_AT_ONCE;
            for (key, value) in entries {
                rebuild.copied_to = Some(key);
                if split_index_key(&key).is_some_and(|(hash, variant)| self.shared.catalog.is_written(hash, variant)) {
                    rebuild.index.put(&key, &value)?;
                }
                copied += (key.len() + value.len()) as u64;
            }
            if is_last {
                return Ok(Copied::All);
            }
        }
        Ok(Copied::Some(copied))
    }

    /// The copy is whole: from here on it is the index.
    fn finish(&mut self, rebuild: Rebuild) {
        let next_segment = self.disk.segments.next_id().to_le_bytes();
        let _watched = self.shared.watch.call();
        let flushed = rebuild
            .index
            .put_meta(super::tier::META_NEXT_SEGMENT, &next_segment)
            .and_then(|()| rebuild.index.flush())
            .and_then(|()| rebuild.index.size_bytes());
        let bytes = match flushed {
            Ok(bytes) => bytes,
            Err(error) => {
                self.put_off(&error);
                self.discard(rebuild.index, rebuild.generation);
                return;
            }
        };
        if self.disk.failure().is_some() {
            // Left behind meanwhile: what is current there is another tier's.
            return;
        }
        if let Err(error) = self.rebuilds.generations.name_current(rebuild.generation) {
            // Which one counts after that is not known.
            self.disk.fail(Failure::from(&error));
            return;
        }
        let old = self.disk.replace_index(rebuild.index);
        let old_number = std::mem::replace(&mut self.rebuilds.generation, rebuild.generation);
        self.disk.usage.rebuilding(0);
        self.disk.usage.measured(bytes);
        let entries = self.shared.catalog.entry_bytes();
        self.rebuilds.is_wanted = false;
        self.rebuilds.reached_percent = bytes.saturating_sub(self.slack()) * 100 / entries.max(1);
        self.shared.counters.index_rebuilds.add(1);
        tracing::info!(generation = rebuild.generation, bytes, entries, "the index was rebuilt");
        self.discard(old, old_number);
    }

    /// Drops a database and removes its files. sled waits for its own thread when it is dropped; the writer has no time for that.
    fn discard(&self, index: impl Send + 'static, number: u64) {
        let generations = self.rebuilds.generations.clone();
        self.shared.apart("brim-index-end", move || {
            drop(index);
            generations.remove(number);
        });
    }
}

enum Copied {
    Some(u64),
    All,
}
