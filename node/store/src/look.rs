//! Looking at what is stored by what a purge would name: counted for a dry run, ordered by popularity for a refresh.
//!
//! Always true: looking changes nothing, and reads from disk no more than it shows.

use std::collections::HashMap;
use std::sync::Arc;

use brim_semantics::{CacheKey, KeyHash, PurgeState};

use crate::carriers::GATHERED_MAX;
use crate::catalog::{Card, Which};
use crate::config::READ_QUEUE_MAX;
use crate::index::index_key;
use crate::purge::Target;
use crate::record;
use crate::response::{Scope, StoredResponse, Variants};
use crate::shared::Shared;

/// Looks that wait for their turn.
pub(crate) const WAITING_MAX: usize = 64;
/// Examples in a dry run.
const EXAMPLES_MAX: usize = 10;

/// What a purge would hit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Matching {
    /// Stored responses.
    pub count: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Some of them: authority, path and query.
    pub examples: Vec<String>,
    /// Hits of the last five minutes.
    pub recent_hits: u64,
    /// The share of them that would have been misses, from 0 to 1, as a sample of them tells; none where there was no hit.
    pub recent_share: Option<f64>,
}

/// A stored response, and how often it was asked for.
#[derive(Debug, Clone)]
pub struct Popular {
    /// Hits on its key in the last five minutes, as a sample tells.
    pub hits: f64,
    pub(crate) which: Which,
}

fn each_live(shared: &Shared, target: &Target, mut look: impl FnMut(KeyHash, &Card)) {
    let carriers = target.names.as_deref().and_then(|names| shared.catalog.carriers().of(names, GATHERED_MAX));
    shared.catalog.each_of(carriers.as_deref(), |key, card| {
        let is_live = || shared.clock().state_now(&card.names, card.fetched_at) != PurgeState::Hard;
        if target.matches(&card.names) && is_live() {
            look(key, card);
        }
    });
}

pub(crate) fn count(shared: &Shared, target: &Target) -> Matching {
    let mut matching = Matching::default();
    let mut examples = Vec::new();
    let recent = shared.recent.hits();
    let mut lost: HashMap<KeyHash, f64> = HashMap::new();
    each_live(shared, target, |key, card| {
        matching.count += 1;
        matching.bytes += card.length;
        if let Some(hits) = recent.by_key.get(&key) {
            lost.insert(key, *hits);
        }
        if examples.len() < EXAMPLES_MAX {
            examples.push((key, card.variant));
        }
    });
    matching.recent_hits = recent.count;
    // Not `sum`, which makes of nothing a zero with a minus.
    let lost = lost.values().fold(0.0, |sum, hits| sum + hits);
    // A sum of parts may exceed the whole by rounding.
    matching.recent_share = (recent.count > 0).then(|| (lost / recent.count as f64).min(1.0));
    matching.examples = examples.into_iter().filter_map(|(key, variant)| shown(shared, key, variant)).collect();
    matching
}

pub(crate) fn popular(shared: &Shared, target: &Target, count_max: usize) -> Vec<Popular> {
    let recent = shared.recent.hits();
    let mut found = Vec::new();
    each_live(shared, target, |key, card| {
        let which = Which { key, variant: card.variant, serial: card.serial };
        let hits = recent.by_key.get(&key).copied().unwrap_or_default();
        found.push(Popular { hits, which });
        // Whoever matches a million needs the best of them only.
        if found.len() >= count_max.saturating_mul(4).max(1024) {
            keep_best(&mut found, count_max);
        }
    });
    keep_best(&mut found, count_max);
    found
}

fn keep_best(found: &mut Vec<Popular>, count_max: usize) {
    found.sort_by(|left, right| right.hits.total_cmp(&left.hits));
    found.truncate(count_max);
}

pub(crate) fn one_of(variants: &Variants, popular: &Popular) -> Option<Arc<StoredResponse>> {
    variants.iter().find(|one| one.which() == popular.which).cloned()
}

/// The whole key of something that is on disk only.
pub(crate) async fn key_of(shared: &Arc<Shared>, popular: &Popular) -> Option<CacheKey> {
    let (disk, which) = (shared.disk()?, popular.which);
    let job = shared.reading().pool.submit(READ_QUEUE_MAX, move || {
        let value = disk.get(&index_key(which.key, which.variant))??;
        Some(record::decode(&value).ok()?.head.key)
    });
    job.await.ok().flatten()
}

fn shown(shared: &Shared, key: KeyHash, variant: u64) -> Option<String> {
    let in_memory = shared
        .memory
        .peek(key)
        .and_then(|variants| variants.iter().find(|one| one.variant == variant).map(|one| one.head.scope.clone()));
    let scope: Scope = in_memory.or_else(|| {
        let value = shared.disk()?.get(&index_key(key, variant))??;
        Some(record::decode(&value).ok()?.head.scope)
    })?;
    let query = scope.query.map_or_else(String::new, |query| format!("?{query}"));
    Some(format!("{}{}{query}", scope.authority, scope.path))
}
