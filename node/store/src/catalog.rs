//! The catalog: a card in memory for each stored response, wherever it is. It answers "definitely absent" without a disk hop,
//! and it is what an index entry is measured by.
//!
//! Always true:
//! - What the memory tier holds has a card; the card of what is nowhere else goes with it.
//! - An index entry counts only while its card has the same serial. Removing the card removes the response, at once, on
//!   all threads, whatever the index still holds; a replaced entry cannot come back.
//! - A key has at most `variants_max` cards; the oldest makes room.
//! - Live bytes of a segment = the sum over the cards that name it, of those too that wait for an entry for a body there.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use brim_semantics::KeyHash;
use parking_lot::{Mutex, RwLock};

use crate::carriers::Carriers;
use crate::purge::{Names, Position};
use crate::segment::record_bytes;

/// Key hashes are uniform already: their first bytes are the hash.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }
    fn write_usize(&mut self, _: usize) {}
    fn finish(&self) -> u64 {
        self.0
    }
}

pub(crate) type BuildKeyHasher = BuildHasherDefault<KeyHasher>;

const SHARDS: usize = 64;

/// Where a stored response is, besides the memory tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// Nowhere: it goes when the memory tier lets go of it.
    Memory,
    /// It waits to be written; its body lies in this segment already, if in any.
    Queued { segment: Option<u64> },
    /// In this segment, by an index entry of so many bytes.
    Written { segment: u64, entry_bytes: u32 },
    /// On a disk tier that is closed for now.
    Away,
}

#[derive(Debug, Clone)]
pub(crate) struct Card {
    pub(crate) variant: u64,
    pub(crate) serial: u64,
    pub(crate) fetched_at: Position,
    pub(crate) length: u64,
    pub(crate) at: Whereabouts,
    /// Read from disk since it was written.
    pub(crate) used: bool,
    pub(crate) names: Arc<Names>,
}

/// One stored response by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Which {
    pub(crate) key: KeyHash,
    pub(crate) variant: u64,
    pub(crate) serial: u64,
}

/// What lies in a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resident {
    pub(crate) which: Which,
    /// Read from disk since it was written, or since its segment was spared.
    pub(crate) used: bool,
    pub(crate) bytes: u64,
}

/// What becomes of a response that the memory tier let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// It is on disk, will be, or was replaced.
    Stays,
    /// It was hit while it was in memory alone: it is worth a place on disk, and is taken for queued.
    Write,
    /// It is gone.
    Gone,
}

impl Card {
    fn segment(&self) -> Option<u64> {
        match self.at {
            Whereabouts::Written { segment, .. } => Some(segment),
            Whereabouts::Memory | Whereabouts::Queued { .. } | Whereabouts::Away => None,
        }
    }

    /// The segment that has to stay for it.
    fn needed_segment(&self) -> Option<u64> {
        match self.at {
            Whereabouts::Written { segment, .. } => Some(segment),
            Whereabouts::Queued { segment } => segment,
            Whereabouts::Memory | Whereabouts::Away => None,
        }
    }

    fn entry_bytes(&self) -> u64 {
        match self.at {
            Whereabouts::Written { entry_bytes, .. } => u64::from(entry_bytes),
            Whereabouts::Memory | Whereabouts::Queued { .. } | Whereabouts::Away => 0,
        }
    }
}

type Shard = HashMap<KeyHash, Vec<Card>, BuildKeyHasher>;

#[derive(Debug)]
pub(crate) struct Catalog {
    shards: Vec<RwLock<Shard>>,
    carriers: Carriers,
    /// Live bytes by segment.
    live: Mutex<HashMap<u64, u64>>,
    count: AtomicU64,
    written: AtomicU64,
    bytes: AtomicU64,
    entry_bytes: AtomicU64,
    variants_max: usize,
}

impl Catalog {
    pub(crate) fn new(variants_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            carriers: Carriers::default(),
            live: Mutex::default(),
            count: AtomicU64::new(0),
            written: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            entry_bytes: AtomicU64::new(0),
            variants_max: variants_max.max(1),
        }
    }

    /// Another byte than those the maps hash by, so that shards and buckets are independent.
    fn shard(&self, key: KeyHash) -> &RwLock<Shard> {
        &self.shards[usize::from(key.0[15]) % SHARDS]
    }

    fn added(&self, key: KeyHash, card: &Card) {
        self.count.fetch_add(1, Ordering::Relaxed);
        card.names.carried().for_each(|name| self.carriers.add(name, key));
        self.add_written(card);
    }

    fn removed(&self, key: KeyHash, card: &Card) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        card.names.carried().for_each(|name| self.carriers.remove(name, key));
        self.sub_written(card);
    }

    /// A name that stays is not taken away in between: a purge would look past it.
    fn replaced(&self, key: KeyHash, old: &Card, new: &Card) {
        if !old.names.carried().eq(new.names.carried()) {
            new.names.carried().for_each(|name| self.carriers.add(name, key));
            old.names.carried().for_each(|name| self.carriers.remove(name, key));
        }
        self.add_written(new);
        self.sub_written(old);
    }

    fn add_written(&self, card: &Card) {
        let bytes = record_bytes(card.length);
        if let Some(segment) = card.needed_segment() {
            *self.live.lock().entry(segment).or_default() += bytes;
        }
        if card.segment().is_some() {
            self.written.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.entry_bytes.fetch_add(card.entry_bytes(), Ordering::Relaxed);
        }
    }

    fn sub_written(&self, card: &Card) {
        let bytes = record_bytes(card.length);
        if let Some(segment) = card.needed_segment()
            && let Some(live) = self.live.lock().get_mut(&segment)
        {
            *live = live.saturating_sub(bytes);
        }
        if card.segment().is_some() {
            self.written.fetch_sub(1, Ordering::Relaxed);
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.entry_bytes.fetch_sub(card.entry_bytes(), Ordering::Relaxed);
        }
    }

    fn set_at(&self, card: &mut Card, at: Whereabouts) {
        self.sub_written(card);
        card.at = at;
        self.add_written(card);
    }

    pub(crate) fn contains(&self, key: KeyHash) -> bool {
        self.shard(key).read().contains_key(&key)
    }

    /// A card for a new or freshened response. Returns what had to make room: the oldest beyond `variants_max`.
    pub(crate) fn put(&self, key: KeyHash, card: Card) -> Option<Which> {
        let mut shard = self.shard(key).write();
        let cards = shard.entry(key).or_insert_with(|| Vec::with_capacity(1));
        if let Some(known) = cards.iter_mut().find(|known| known.variant == card.variant) {
            self.replaced(key, known, &card);
            *known = card;
            return None;
        }
        self.added(key, &card);
        cards.push(card);
        if cards.len() <= self.variants_max {
            return None;
        }
        let oldest = (0..cards.len()).min_by_key(|n| cards[*n].serial)?;
        let oldest = cards.swap_remove(oldest);
        self.removed(key, &oldest);
        Some(Which { key, variant: oldest.variant, serial: oldest.serial })
    }

    /// A card for what the index holds at opening; a response stored since has priority.
    pub(crate) fn put_found(&self, key: KeyHash, card: Card) -> Found {
        let mut shard = self.shard(key).write();
        let cards = shard.entry(key).or_insert_with(|| Vec::with_capacity(1));
        if cards.iter().any(|known| known.variant == card.variant) || cards.len() >= self.variants_max {
            return Found::Refused;
        }
        self.added(key, &card);
        cards.push(card);
        if cards.len() == 1 { Found::Alone } else { Found::WithOthers }
    }

    /// The index has it still, after its tier was closed. False: it was replaced or removed meanwhile.
    pub(crate) fn confirm(&self, which: Which, at: Whereabouts) -> bool {
        let mut shard = self.shard(which.key).write();
        let Some(card) = find(&mut shard, which).filter(|card| card.at == Whereabouts::Away) else { return false };
        self.set_at(card, at);
        true
    }

    /// True when it is still the response of its variant; it then counts for the segment.
    pub(crate) fn placed(&self, which: Which, segment: u64, entry_bytes: u32) -> bool {
        let mut shard = self.shard(which.key).write();
        let Some(card) = find(&mut shard, which) else { return false };
        card.used = false;
        self.set_at(card, Whereabouts::Written { segment, entry_bytes });
        true
    }

    /// It waits for no writer any more, and is in memory alone. False: it has been replaced or removed.
    pub(crate) fn in_memory_alone(&self, which: Which) -> bool {
        let mut shard = self.shard(which.key).write();
        let Some(card) = find(&mut shard, which) else { return false };
        self.set_at(card, Whereabouts::Memory);
        true
    }

    /// The memory tier let go of it; `was_hit` says whether somebody got it from there.
    pub(crate) fn left_memory(&self, which: Which, was_hit: bool) -> Left {
        let mut shard = self.shard(which.key).write();
        let Some(card) = find(&mut shard, which) else { return Left::Stays };
        if card.at != Whereabouts::Memory {
            return Left::Stays;
        }
        if was_hit {
            card.at = Whereabouts::Queued { segment: None };
            return Left::Write;
        }
        self.remove_from(&mut shard, which);
        Left::Gone
    }

    pub(crate) fn is_current(&self, which: Which) -> bool {
        let shard = self.shard(which.key).read();
        shard
            .get(&which.key)
            .is_some_and(|cards| cards.iter().any(|card| card.variant == which.variant && card.serial == which.serial))
    }

    pub(crate) fn segment_of(&self, which: Which) -> Option<u64> {
        let shard = self.shard(which.key).read();
        let cards = shard.get(&which.key)?;
        cards.iter().find(|card| card.variant == which.variant && card.serial == which.serial)?.segment()
    }

    /// True when a response of this variant is on disk, or waits to be written.
    pub(crate) fn is_beyond_memory(&self, key: KeyHash, variant: u64) -> bool {
        let shard = self.shard(key).read();
        let is_it = |card: &Card| card.variant == variant && card.at != Whereabouts::Memory;
        shard.get(&key).is_some_and(|cards| cards.iter().any(is_it))
    }

    /// True when the index holds a response of this variant that counts.
    pub(crate) fn is_written(&self, key: KeyHash, variant: u64) -> bool {
        let shard = self.shard(key).read();
        shard
            .get(&key)
            .is_some_and(|cards| cards.iter().any(|card| card.variant == variant && card.segment().is_some()))
    }

    /// The variants of a key that are written, marked as used; and those that are elsewhere.
    pub(crate) fn written(&self, key: KeyHash) -> (Vec<Which>, Vec<Which>) {
        let mut shard = self.shard(key).write();
        let Some(cards) = shard.get_mut(&key) else { return Default::default() };
        let is_written = |card: &&mut Card| card.segment().is_some();
        let (written, elsewhere): (Vec<_>, Vec<_>) = cards.iter_mut().partition(is_written);
        let which = |card: &mut Card| Which { key, variant: card.variant, serial: card.serial };
        let used = |card: &mut Card| {
            card.used = true;
            which(card)
        };
        (written.into_iter().map(used).collect(), elsewhere.into_iter().map(which).collect())
    }

    /// True when the card was there: from here on the response is gone.
    pub(crate) fn remove(&self, which: Which) -> bool {
        self.remove_from(&mut self.shard(which.key).write(), which)
    }

    fn remove_from(&self, shard: &mut Shard, which: Which) -> bool {
        let Some(cards) = shard.get_mut(&which.key) else { return false };
        let Some(at) = cards.iter().position(|card| card.variant == which.variant && card.serial == which.serial)
        else {
            return false;
        };
        let card = cards.swap_remove(at);
        if cards.is_empty() {
            shard.remove(&which.key);
        }
        self.removed(which.key, &card);
        true
    }

    pub(crate) fn remove_key(&self, key: KeyHash) -> Vec<Which> {
        let cards = self.shard(key).write().remove(&key).unwrap_or_default();
        cards.iter().for_each(|card| self.removed(key, card));
        cards.iter().map(|card| Which { key, variant: card.variant, serial: card.serial }).collect()
    }

    /// The disk tier is closed for now. What it has stays known: what is replaced or removed meanwhile must not come back.
    pub(crate) fn close_disk(&self) {
        for shard in &self.shards {
            for card in shard.write().values_mut().flatten().filter(|card| card.segment().is_some()) {
                self.set_at(card, Whereabouts::Away);
            }
        }
        self.live.lock().clear();
    }

    /// The disk tier is open again: what it has not confirmed goes, unless it `is_in_memory`.
    pub(crate) fn forget_away(&self, is_in_memory: impl Fn(Which) -> bool) {
        self.retain(|which, card| {
            if card.at != Whereabouts::Away {
                return true;
            }
            let stays = is_in_memory(which);
            if stays {
                self.set_at(card, Whereabouts::Memory);
            }
            stays
        });
    }

    fn retain(&self, keep: impl Fn(Which, &mut Card) -> bool) {
        for shard in &self.shards {
            shard.write().retain(|key, cards| {
                cards.retain_mut(|card| {
                    let stays = keep(Which { key: *key, variant: card.variant, serial: card.serial }, card);
                    if !stays {
                        self.removed(*key, card);
                    }
                    stays
                });
                !cards.is_empty()
            });
        }
    }

    /// Forgets the disk: what `is_in_memory` stays with that alone, all else goes.
    pub(crate) fn leave_disk(&self, is_in_memory: impl Fn(Which) -> bool) {
        self.retain(|which, card| {
            let stays = is_in_memory(which);
            if stays {
                self.set_at(card, Whereabouts::Memory);
            }
            stays
        });
        self.live.lock().clear();
    }

    /// What is alive in each of some segments. Walks all cards once.
    pub(crate) fn of_segments(&self, segments: &[u64]) -> HashMap<u64, Vec<Resident>> {
        let mut found: HashMap<u64, Vec<Resident>> = segments.iter().map(|segment| (*segment, Vec::new())).collect();
        self.each(|key, card| {
            if let Some(residents) = card.segment().and_then(|segment| found.get_mut(&segment)) {
                let which = Which { key, variant: card.variant, serial: card.serial };
                residents.push(Resident { which, used: card.used, bytes: record_bytes(card.length) });
            }
        });
        found
    }

    /// It has not been used since now.
    pub(crate) fn clear_used(&self, which: Which) {
        if let Some(card) = find(&mut self.shard(which.key).write(), which) {
            card.used = false;
        }
    }

    /// Every card, one shard locked at a time.
    pub(crate) fn each(&self, mut visit: impl FnMut(KeyHash, &Card)) {
        for shard in &self.shards {
            for (key, cards) in shard.read().iter() {
                cards.iter().for_each(|card| visit(*key, card));
            }
        }
    }

    pub(crate) fn carriers(&self) -> &Carriers {
        &self.carriers
    }

    /// Every card of these keys; of `None`, every card.
    pub(crate) fn each_of(&self, keys: Option<&[KeyHash]>, mut visit: impl FnMut(KeyHash, &Card)) {
        let Some(keys) = keys else { return self.each(visit) };
        for key in keys {
            if let Some(cards) = self.shard(*key).read().get(key) {
                cards.iter().for_each(|card| visit(*key, card));
            }
        }
    }

    /// Every card is found by every name that it carries; what nobody carries has left nothing.
    #[cfg(test)]
    pub(crate) fn check_carriers(&self) {
        let is_known =
            |name, key: &KeyHash| self.carriers.of(&[name], usize::MAX).is_none_or(|carriers| carriers.contains(key));
        self.each(|key, card| assert!(card.names.carried().all(|name| is_known(name, &key)), "{card:?}"));
        assert!(self.count() > 0 || self.carriers.is_empty());
    }

    pub(crate) fn live_bytes(&self, segment: u64) -> u64 {
        self.live.lock().get(&segment).copied().unwrap_or(0)
    }

    pub(crate) fn forget_segment(&self, segment: u64) {
        self.live.lock().remove(&segment);
    }

    /// All stored responses.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Those on disk.
    pub(crate) fn written_count(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Bytes of all live records.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of all live index entries.
    pub(crate) fn entry_bytes(&self) -> u64 {
        self.entry_bytes.load(Ordering::Relaxed)
    }

    /// The oldest position at which a stored response was fetched.
    pub(crate) fn oldest_fetch(&self) -> Option<Position> {
        let mut oldest = None;
        self.each(|_, card| {
            oldest = Some(oldest.map_or(card.fetched_at, |oldest: Position| oldest.min(card.fetched_at)))
        });
        oldest
    }
}

/// What became of a card for something that was found on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Alone,
    WithOthers,
    Refused,
}

fn find(shard: &mut Shard, which: Which) -> Option<&mut Card> {
    shard.get_mut(&which.key)?.iter_mut().find(|card| card.variant == which.variant && card.serial == which.serial)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::Scope;

    fn card(variant: u64, serial: u64) -> Card {
        let scope = Scope { site: "s".into(), authority: "a".into(), path: "/".into(), query: None };
        let names = Arc::new(Names::of_scope(&scope, &[]));
        Card {
            variant,
            serial,
            fetched_at: Position(0),
            length: 100,
            at: Whereabouts::Queued { segment: None },
            used: false,
            names,
        }
    }

    const KEY: KeyHash = KeyHash([1; 16]);

    #[test]
    fn a_replaced_or_removed_response_does_not_come_back() {
        let catalog = Catalog::new(4);
        catalog.put(KEY, card(1, 10));
        let old = Which { key: KEY, variant: 1, serial: 10 };
        assert!(catalog.placed(old, 7, 50) && catalog.live_bytes(7) == record_bytes(100));
        catalog.put(KEY, card(1, 11));
        assert!(!catalog.is_current(old) && !catalog.placed(old, 8, 50) && !catalog.remove(old));
        assert_eq!((catalog.live_bytes(7), catalog.count()), (0, 1));
        assert_eq!(catalog.remove_key(KEY), [Which { serial: 11, ..old }]);
        assert!(!catalog.contains(KEY));
        assert_eq!((catalog.count(), catalog.bytes(), catalog.entry_bytes()), (0, 0, 0));
    }

    #[test]
    fn what_is_in_memory_alone_goes_with_it_unless_it_was_hit() {
        let catalog = Catalog::new(4);
        let which = |serial| Which { key: KEY, variant: serial, serial };
        for serial in 1..=4 {
            catalog.put(KEY, card(serial, serial));
        }
        assert!(catalog.placed(which(1), 7, 50));
        for serial in 2..=3 {
            assert!(catalog.in_memory_alone(which(serial)));
        }
        assert_eq!(catalog.left_memory(which(1), false), Left::Stays, "it is on disk");
        assert_eq!(catalog.left_memory(which(2), false), Left::Gone);
        assert_eq!(catalog.left_memory(which(3), true), Left::Write);
        assert_eq!(catalog.left_memory(which(3), false), Left::Stays, "it is queued now");
        assert_eq!(catalog.left_memory(which(4), false), Left::Stays);
        assert_eq!((catalog.count(), catalog.written_count(), catalog.entry_bytes()), (3, 1, 50));
        catalog.leave_disk(|which| which.serial == 1);
        assert_eq!((catalog.count(), catalog.written_count(), catalog.bytes(), catalog.live_bytes(7)), (1, 0, 0, 0));
    }

    #[test]
    fn what_changes_while_the_disk_is_away_does_not_come_back() {
        let catalog = Catalog::new(4);
        let which = |variant, serial| Which { key: KEY, variant, serial };
        for variant in 1..=4 {
            catalog.put(KEY, card(variant, variant));
            assert!(catalog.placed(which(variant, variant), 7, 50));
        }
        catalog.close_disk();
        assert_eq!((catalog.written_count(), catalog.live_bytes(7), catalog.count()), (0, 0, 4));
        assert!(catalog.is_beyond_memory(KEY, 1) && !catalog.is_written(KEY, 1));
        catalog.put(KEY, card(1, 10));
        assert!(catalog.remove(which(2, 2)));
        let at = Whereabouts::Written { segment: 7, entry_bytes: 50 };
        let confirmed = [1, 2, 3].map(|variant| catalog.confirm(which(variant, variant), at));
        assert_eq!(confirmed, [false, false, true]);
        catalog.forget_away(|_| false);
        assert_eq!((catalog.count(), catalog.written_count(), catalog.live_bytes(7)), (2, 1, record_bytes(100)));
    }

    /// A body that was validated has its new entry in the queue: its segment is not empty.
    #[test]
    fn a_body_that_waits_for_its_entry_is_alive() {
        let catalog = Catalog::new(4);
        catalog.put(KEY, card(1, 10));
        assert!(catalog.placed(Which { key: KEY, variant: 1, serial: 10 }, 7, 50));
        catalog.put(KEY, Card { at: Whereabouts::Queued { segment: Some(7) }, ..card(1, 11) });
        assert_eq!((catalog.live_bytes(7), catalog.written_count()), (record_bytes(100), 0));
        let which = Which { key: KEY, variant: 1, serial: 11 };
        assert!(catalog.placed(which, 7, 50));
        assert_eq!((catalog.live_bytes(7), catalog.written_count()), (record_bytes(100), 1));
        assert!(catalog.remove(which));
        assert_eq!((catalog.live_bytes(7), catalog.entry_bytes()), (0, 0));
    }

    #[test]
    fn the_oldest_variant_makes_room() {
        let catalog = Catalog::new(3);
        for serial in 1..=3 {
            assert_eq!(catalog.put(KEY, card(serial, serial)), None);
        }
        assert_eq!(catalog.put(KEY, card(4, 4)), Some(Which { key: KEY, variant: 1, serial: 1 }));
        assert_eq!(catalog.count(), 3);
    }
}
