//! The catalog: a card in memory for each stored response that is on disk or queued for it. It answers "definitely
//! absent" without a disk hop, and it is what an index entry is measured by.
//!
//! Always true:
//! - An index entry counts only while its card has the same serial. Removing the card removes the response, at once, on
//!   all threads, whatever the index still holds; a replaced entry cannot come back.
//! - A key has at most `variants_max` cards; the oldest makes room.
//! - Live bytes of a segment = the sum over the cards that name it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use brim_semantics::KeyHash;
use parking_lot::{Mutex, RwLock};

use crate::purge::{Matcher, Names, Position};
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
/// The segment of a response that waits to be written. Ids begin at 1.
pub(crate) const UNWRITTEN: u64 = 0;

#[derive(Debug, Clone)]
pub(crate) struct Card {
    pub(crate) variant: u64,
    pub(crate) serial: u64,
    pub(crate) fetched_at: Position,
    pub(crate) length: u64,
    pub(crate) segment: u64,
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

type Shard = HashMap<KeyHash, Vec<Card>, BuildKeyHasher>;

#[derive(Debug)]
pub(crate) struct Catalog {
    shards: Vec<RwLock<Shard>>,
    /// Live bytes by segment.
    live: Mutex<HashMap<u64, u64>>,
    count: AtomicU64,
    bytes: AtomicU64,
    variants_max: usize,
}

impl Catalog {
    pub(crate) fn new(variants_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self {
            shards,
            live: Mutex::default(),
            count: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            variants_max: variants_max.max(1),
        }
    }

    /// Another byte than those the maps hash by, so that shards and buckets are independent.
    fn shard(&self, key: KeyHash) -> &RwLock<Shard> {
        &self.shards[usize::from(key.0[15]) % SHARDS]
    }

    fn added(&self, card: &Card) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(record_bytes(card.length), Ordering::Relaxed);
        self.add_live(card.segment, card.length);
    }

    fn add_live(&self, segment: u64, length: u64) {
        if segment != UNWRITTEN {
            *self.live.lock().entry(segment).or_default() += record_bytes(length);
        }
    }

    fn sub_live(&self, segment: u64, length: u64) {
        if segment != UNWRITTEN
            && let Some(live) = self.live.lock().get_mut(&segment)
        {
            *live = live.saturating_sub(record_bytes(length));
        }
    }

    fn removed(&self, card: &Card) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(record_bytes(card.length), Ordering::Relaxed);
        self.sub_live(card.segment, card.length);
    }

    pub(crate) fn contains(&self, key: KeyHash) -> bool {
        self.shard(key).read().contains_key(&key)
    }

    /// A card for a new or freshened response. Returns what had to make room: the oldest beyond `variants_max`.
    pub(crate) fn put(&self, key: KeyHash, card: Card) -> Option<Which> {
        let mut shard = self.shard(key).write();
        let cards = shard.entry(key).or_insert_with(|| Vec::with_capacity(1));
        self.added(&card);
        if let Some(known) = cards.iter_mut().find(|known| known.variant == card.variant) {
            self.removed(known);
            *known = card;
            return None;
        }
        cards.push(card);
        if cards.len() <= self.variants_max {
            return None;
        }
        let oldest = (0..cards.len()).min_by_key(|n| cards[*n].serial)?;
        let oldest = cards.swap_remove(oldest);
        self.removed(&oldest);
        Some(Which { key, variant: oldest.variant, serial: oldest.serial })
    }

    /// A card for what the index holds at opening; a response stored since has priority.
    pub(crate) fn put_found(&self, key: KeyHash, card: Card) -> bool {
        let mut shard = self.shard(key).write();
        let cards = shard.entry(key).or_insert_with(|| Vec::with_capacity(1));
        if cards.iter().any(|known| known.variant == card.variant) || cards.len() >= self.variants_max {
            return false;
        }
        self.added(&card);
        cards.push(card);
        true
    }

    /// True when it is still the response of its variant; it then counts for the segment.
    pub(crate) fn placed(&self, which: Which, segment: u64) -> bool {
        let mut shard = self.shard(which.key).write();
        let Some(card) = find(&mut shard, which) else { return false };
        let length = card.length;
        let before = std::mem::replace(&mut card.segment, segment);
        card.used = false;
        self.sub_live(before, length);
        self.add_live(segment, length);
        true
    }

    pub(crate) fn is_current(&self, which: Which) -> bool {
        let shard = self.shard(which.key).read();
        shard
            .get(&which.key)
            .is_some_and(|cards| cards.iter().any(|card| card.variant == which.variant && card.serial == which.serial))
    }

    /// True when the index holds a response of this variant that counts.
    pub(crate) fn is_written(&self, key: KeyHash, variant: u64) -> bool {
        let shard = self.shard(key).read();
        shard
            .get(&key)
            .is_some_and(|cards| cards.iter().any(|card| card.variant == variant && card.segment != UNWRITTEN))
    }

    /// The variants of a key that are written, marked as used.
    pub(crate) fn written(&self, key: KeyHash) -> Vec<Which> {
        let mut shard = self.shard(key).write();
        let Some(cards) = shard.get_mut(&key) else { return Vec::new() };
        let written = cards.iter_mut().filter(|card| card.segment != UNWRITTEN);
        written
            .map(|card| {
                card.used = true;
                Which { key, variant: card.variant, serial: card.serial }
            })
            .collect()
    }

    /// True when the card was there: from here on the response is gone.
    pub(crate) fn remove(&self, which: Which) -> bool {
        let mut shard = self.shard(which.key).write();
        let Some(cards) = shard.get_mut(&which.key) else { return false };
        let Some(at) = cards.iter().position(|card| card.variant == which.variant && card.serial == which.serial)
        else {
            return false;
        };
        let card = cards.swap_remove(at);
        if cards.is_empty() {
            shard.remove(&which.key);
        }
        self.removed(&card);
        true
    }

    pub(crate) fn remove_key(&self, key: KeyHash) -> Vec<Which> {
        let cards = self.shard(key).write().remove(&key).unwrap_or_default();
        cards.iter().for_each(|card| self.removed(card));
        cards.iter().map(|card| Which { key, variant: card.variant, serial: card.serial }).collect()
    }

    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            let cards = std::mem::take(&mut *shard.write());
            cards.values().flatten().for_each(|card| self.removed(card));
        }
        self.live.lock().clear();
    }

    /// What is alive in a segment, and whether it was used. Walks all cards: once for each segment that goes.
    pub(crate) fn of_segment(&self, segment: u64) -> Vec<(Which, bool)> {
        let mut found = Vec::new();
        self.each(|key, card| {
            if card.segment == segment {
                found.push((Which { key, variant: card.variant, serial: card.serial }, card.used));
            }
        });
        found
    }

    /// What a purge at `position` names and was fetched before it.
    pub(crate) fn matching(&self, matcher: &Matcher, position: Position) -> Vec<Which> {
        let mut found = Vec::new();
        self.each(|key, card| {
            if card.fetched_at < position && matcher.matches(&card.names) {
                found.push(Which { key, variant: card.variant, serial: card.serial });
            }
        });
        found
    }

    /// Every card, one shard locked at a time.
    pub(crate) fn each(&self, mut visit: impl FnMut(KeyHash, &Card)) {
        for shard in &self.shards {
            for (key, cards) in shard.read().iter() {
                cards.iter().for_each(|card| visit(*key, card));
            }
        }
    }

    pub(crate) fn live_bytes(&self, segment: u64) -> u64 {
        self.live.lock().get(&segment).copied().unwrap_or(0)
    }

    pub(crate) fn forget_segment(&self, segment: u64) {
        self.live.lock().remove(&segment);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Bytes of all live records.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
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
        let names = Arc::new(Names::of(&scope, &[]));
        Card { variant, serial, fetched_at: Position(0), length: 100, segment: UNWRITTEN, used: false, names }
    }

    const KEY: KeyHash = KeyHash([1; 16]);

    #[test]
    fn a_replaced_or_removed_response_does_not_come_back() {
        let catalog = Catalog::new(4);
        catalog.put(KEY, card(1, 10));
        let old = Which { key: KEY, variant: 1, serial: 10 };
        assert!(catalog.placed(old, 7) && catalog.live_bytes(7) == record_bytes(100));
        catalog.put(KEY, card(1, 11));
        assert!(!catalog.is_current(old) && !catalog.placed(old, 8) && !catalog.remove(old));
        assert_eq!((catalog.live_bytes(7), catalog.count()), (0, 1));
        assert_eq!(catalog.remove_key(KEY), [Which { serial: 11, ..old }]);
        assert!(!catalog.contains(KEY));
        assert_eq!((catalog.count(), catalog.bytes()), (0, 0));
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
