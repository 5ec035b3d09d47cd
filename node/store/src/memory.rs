//! The memory tier: responses ready to be sent, by the bytes they cost.
//!
//! Always true:
//! - A hit takes one shard's read lock for the time of a clone, and nothing else. Who changes the shard holds it for the time
//!   of one change of its table; what leaves the tier is dropped by the caller, after it.
//! - The variants of a key change under the lock of their stripe; a hit does not wait for it.
//! - What a load read from disk is taken in only if the key did not change meanwhile.

use std::sync::Arc;

use brim_semantics::{CacheKey, KeyHash};
use parking_lot::{Mutex, MutexGuard};
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use crate::catalog::{BuildKeyHasher, Which};
use crate::purge::Position;
use crate::response::{StoredResponse, Variants};

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<KeyHash, Arc<Variants>> for ByBytes {
    fn weight(&self, _: &KeyHash, variants: &Arc<Variants>) -> u64 {
        variants.weight
    }
}

/// Gathers what makes room.
#[derive(Debug, Clone)]
struct Gather;

impl Lifecycle<KeyHash, Arc<Variants>> for Gather {
    type RequestState = LetGo;

    fn on_evict(&self, let_go: &mut LetGo, _: KeyHash, variants: Arc<Variants>) {
        let_go.0.push(variants);
    }
}

/// What the tier let go of for want of room: the catalog has to hear of it.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct LetGo(pub(crate) Vec<Arc<Variants>>);

type Tier = Cache<KeyHash, Arc<Variants>, ByBytes, BuildKeyHasher, Gather>;

const STRIPES: usize = 64;
/// What an entry is taken to weigh when the tables are made.
const TYPICAL_BYTES: u64 = 8 * 1024;

pub(crate) struct Memory {
    tier: Tier,
    /// How often the keys of a stripe changed.
    stripes: Vec<Mutex<u64>>,
    variants_max: usize,
}

/// The state of a key's stripe before a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

impl Memory {
    pub(crate) fn new(bytes_max: u64, object_max: u64, variants_max: usize) -> Self {
        // An entry above a shard's capacity is not admitted: few shards for a small tier.
        let shards = (bytes_max / (8 * object_max.max(64 * 1024))).clamp(1, 64);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(
                usize::try_from(bytes_max / TYPICAL_BYTES).unwrap_or(usize::MAX).clamp(16, 1 << 22),
            )
            .weight_capacity(bytes_max)
            .shards(usize::try_from(shards).unwrap_or(1))
            .build();
        let tier = match options {
            Ok(options) => Cache::with_options(options, ByBytes, BuildKeyHasher::default(), Gather),
            Err(_) => Cache::with(16, bytes_max, ByBytes, BuildKeyHasher::default(), Gather),
        };
        Self { tier, stripes: (0..STRIPES).map(|_| Mutex::default()).collect(), variants_max: variants_max.max(1) }
    }

    #[inline]
    pub(crate) fn get(&self, key: &CacheKey) -> Option<Arc<Variants>> {
        self.tier.get(&key.hash()).filter(|variants| variants.is_of(key))
    }

    /// Without making it look used.
    pub(crate) fn peek(&self, key: KeyHash) -> Option<Arc<Variants>> {
        self.tier.peek(&key)
    }

    fn insert(&self, key: KeyHash, variants: Arc<Variants>) -> LetGo {
        let mut let_go = LetGo::default();
        self.tier.insert_with_lifecycle(key, Arc::clone(&variants), &mut let_go);
        // What is replaced is told of like what makes room; its responses are in what replaces it, or were to go.
        let_go.0.retain(|gone| {
            let is_of_key = gone.responses.first().is_some_and(|response| response.key_hash() == key);
            !is_of_key || Arc::ptr_eq(gone, &variants)
        });
        let_go
    }

    /// Lets go of keys with a body that lies on disk alone.
    pub(crate) fn drop_bodiless(&self) {
        self.tier.retain(|_, variants| variants.iter().all(|response| response.bytes.is_some()));
    }

    /// The oldest position at which something here was fetched.
    pub(crate) fn oldest_fetch(&self) -> Option<Position> {
        let all = self.tier.iter().flat_map(|(_, variants)| variants.responses.clone());
        all.map(|response| response.head.fetched_at).min()
    }

    /// Whether this very response is here.
    pub(crate) fn holds(&self, which: Which) -> bool {
        let variants = self.tier.peek(&which.key);
        variants.is_some_and(|variants| {
            variants.iter().any(|one| one.variant == which.variant && one.serial == which.serial)
        })
    }

    /// The disk has more variants of this key than was thought.
    pub(crate) fn not_all(&self, key: KeyHash) -> LetGo {
        let mut stripe = self.stripe(key);
        *stripe += 1;
        match self.tier.peek(&key) {
            Some(known) if known.complete => self.insert(key, Variants::new(known.responses.clone(), false)),
            _ => LetGo::default(),
        }
    }

    fn stripe(&self, key: KeyHash) -> MutexGuard<'_, u64> {
        self.stripes[usize::from(key.0[14]) % STRIPES].lock()
    }

    pub(crate) fn epoch(&self, key: KeyHash) -> Epoch {
        Epoch(*self.stripe(key))
    }

    /// Puts a response in the place of its variant. `changed` runs under the stripe's lock, told what was there before;
    /// it answers whether the memory tier holds all variants when it held none, or None when nothing shall be put.
    pub(crate) fn put(
        &self,
        response: &Arc<StoredResponse>,
        changed: impl FnOnce(Option<&Arc<StoredResponse>>) -> Option<bool>,
    ) -> LetGo {
        let key = response.key_hash();
        let mut stripe = self.stripe(key);
        let known = self.tier.peek(&key).filter(|variants| variants.is_of(&response.head.key));
        let same = known.as_ref().and_then(|known| known.iter().find(|one| one.variant == response.variant));
        let Some(complete) = changed(same) else { return LetGo::default() };
        *stripe += 1;
        let mut responses = vec![Arc::clone(response)];
        let mut all = complete;
        if let Some(known) = &known {
            all = known.complete;
            let others = known.iter().filter(|one| one.variant != response.variant);
            responses.extend(others.cloned());
            // The one that was stored first makes room, as in the catalogue.
            responses.sort_by_key(|one| std::cmp::Reverse(one.serial));
            responses.truncate(self.variants_max);
        }
        self.insert(key, Variants::new(responses, all))
    }

    /// Takes in what a load found, together with what is there; returns what there is now.
    pub(crate) fn promote(
        &self,
        key: &CacheKey,
        found: Vec<Arc<StoredResponse>>,
        elsewhere: &[Which],
        before: Epoch,
    ) -> (Option<Arc<Variants>>, LetGo) {
        let hash = key.hash();
        let stripe = self.stripe(hash);
        let known = self.tier.peek(&hash).filter(|variants| variants.is_of(key));
        let unchanged = Epoch(*stripe) == before;
        let mut responses: Vec<_> = known.as_ref().map_or_else(Vec::new, |known| known.responses.clone());
        for response in found {
            match responses.iter_mut().find(|one| one.variant == response.variant) {
                Some(one) if one.serial >= response.serial => {}
                Some(one) => *one = response,
                None => responses.push(response),
            }
        }
        if responses.is_empty() {
            return (None, LetGo::default());
        }
        responses.sort_by_key(|response| std::cmp::Reverse(response.serial));
        responses.truncate(self.variants_max);
        // What waits to be written is not among what was found.
        let is_here =
            |which: &Which| responses.iter().any(|one| one.variant == which.variant && one.serial == which.serial);
        let complete = elsewhere.iter().all(is_here);
        let variants = Variants::new(responses, complete);
        let let_go = if unchanged { self.insert(hash, Arc::clone(&variants)) } else { LetGo::default() };
        (Some(variants), let_go)
    }

    /// Removes a key, if `doomed` says so; `changed` runs under the stripe's lock.
    pub(crate) fn remove<R>(&self, key: KeyHash, doomed: impl Fn(&Variants) -> bool, changed: impl FnOnce() -> R) -> R {
        let mut stripe = self.stripe(key);
        *stripe += 1;
        self.tier.remove_if(&key, |variants| doomed(variants));
        changed()
    }

    /// Removes those variants of a key that are `doomed`; the others stay. `changed` runs under the stripe's lock.
    pub(crate) fn remove_some<R>(
        &self,
        key: KeyHash,
        doomed: impl Fn(&Arc<StoredResponse>) -> bool,
        changed: impl FnOnce() -> R,
    ) -> (R, LetGo) {
        let mut stripe = self.stripe(key);
        *stripe += 1;
        let mut let_go = LetGo::default();
        if let Some(known) = self.tier.peek(&key).filter(|known| known.iter().any(&doomed)) {
            let kept: Vec<_> = known.iter().filter(|one| !doomed(one)).cloned().collect();
            if kept.is_empty() {
                self.tier.remove(&key);
            } else {
                let_go = self.insert(key, Variants::new(kept, known.complete));
            }
        }
        (changed(), let_go)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.tier.weight()
    }

    pub(crate) fn count(&self) -> u64 {
        self.tier.len() as u64
    }
}
