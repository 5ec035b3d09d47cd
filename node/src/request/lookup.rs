//! Lookup: the stored response that a request selects, and what may be done with it (RFC 9111 §4).
//!
//! Always true:
//! - A response that a purge named after its fetch began is never returned as usable.
//! - Of several that match, the newest counts (§4.1); one that matches to the letter before one that only answers a preference.
//! - A hit from memory waits for nothing.
//!
//! Not here: the rules themselves (`brim_semantics::reuse`).

use std::sync::Arc;
use std::time::SystemTime;

use brim_semantics::{CacheKey, ForwardReason, Nominated, PurgeState, Reuse, Why};
use brim_store::{Found, Store, StoredResponse};
use http::header::ETAG;

use super::accept::Inbound;
use super::need::Held;
use super::partial::Parts;
use crate::route::Route;

/// What the store has for a request.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// Usable as it is.
    Fresh(Held),
    /// Stale, and the request takes it (`max-stale`).
    StaleAllowed(Held),
    /// Usable while one validation runs behind it (RFC 5861 §3).
    StaleWhileValidating(Held),
    /// Usable once the origin has confirmed it.
    MustValidate(Held, Why),
    /// Parts that lack some of what is asked for.
    Incomplete(Parts),
    /// Responses for other values of the nominated fields, with an entity tag; and the variant that this request asks for.
    OtherVariants(Vec<Arc<StoredResponse>>, u64),
    /// Nothing usable.
    Absent(Absent),
}

/// Why there is nothing usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Nothing is stored under the key.
    Uri,
    /// What is stored cannot answer this request, for another reason than its nominated fields.
    Other,
    /// What was stored has been purged.
    Purged,
}

impl Absent {
    /// The word of RFC 9211 §2.2.
    pub fn forward_reason(self) -> ForwardReason {
        match self {
            Self::Uri | Self::Purged => ForwardReason::UriMiss,
            Self::Other => ForwardReason::Miss,
        }
    }
}

/// Looks `key` up.
pub async fn find(store: &Store, key: &CacheKey, inbound: &Inbound, route: &Route, now: SystemTime) -> Lookup {
    match store.find(key) {
        Found::Memory(variants) => select(store, &variants, inbound, route, now),
        Found::Absent if store.was_purged(key) => Lookup::Absent(Absent::Purged),
        Found::Absent => Lookup::Absent(Absent::Uri),
        Found::OnDisk => match store.load(key).await {
            Some(variants) => select(store, &variants, inbound, route, now),
            None => Lookup::Absent(Absent::Uri),
        },
    }
}

/// As [`find`], without asking the disk.
pub fn find_in_memory(
    store: &Store,
    key: &CacheKey,
    inbound: &Inbound,
    route: &Route,
    now: SystemTime,
) -> Option<Lookup> {
    match store.find(key) {
        Found::Memory(variants) => Some(select(store, &variants, inbound, route, now)),
        Found::Absent | Found::OnDisk => None,
    }
}

/// What the variants of a key, newest first, are for a request.
pub(super) fn select(
    store: &Store,
    variants: &[Arc<StoredResponse>],
    inbound: &Inbound,
    route: &Route,
    now: SystemTime,
) -> Lookup {
    let exact = |stored: &StoredResponse| stored.head.nominated.matches(&inbound.headers);
    let answering =
        |stored: &StoredResponse| stored.head.nominated.matches_or_answers(&inbound.headers, &stored.head.headers);
    match select_matching(store, variants, inbound, route, now, exact) {
        Lookup::OtherVariants(..) if variants.iter().any(|stored| answering(stored)) => {
            select_matching(store, variants, inbound, route, now, answering)
        }
        selected => selected,
    }
}

fn select_matching(
    store: &Store,
    variants: &[Arc<StoredResponse>],
    inbound: &Inbound,
    route: &Route,
    now: SystemTime,
    is_match: impl Fn(&StoredResponse) -> bool,
) -> Lookup {
    let mut absent = Absent::Uri;
    let mut is_other_variant = false;
    for (at, stored) in variants.iter().enumerate() {
        let purge = store.purge_state(stored);
        if purge == PurgeState::Hard {
            absent = Absent::Purged;
            continue;
        }
        if !is_match(stored) {
            is_other_variant = true;
            continue;
        }
        let held = if stored.head.part.is_some() {
            let older = variants[at + 1..].iter().filter(|one| is_usable_with_others(store, one, inbound));
            match Parts::new(stored, older, inbound) {
                Some(parts) if parts.suffice(inbound) => Held::Parts(parts),
                Some(parts) => return Lookup::Incomplete(parts),
                None => {
                    absent = Absent::Other;
                    continue;
                }
            }
        } else {
            Held::Whole(stored.clone())
        };
        let policy = &route.config.policy;
        return match brim_semantics::reuse(&stored.head.meta, &inbound.directives, purge, now, policy) {
            Reuse::Fresh => Lookup::Fresh(held),
            Reuse::StaleAllowed { .. } => Lookup::StaleAllowed(held),
            Reuse::StaleWhileValidating { .. } => Lookup::StaleWhileValidating(held),
            Reuse::MustValidate(why) => Lookup::MustValidate(held, why),
            Reuse::Unusable => continue,
        };
    }
    if is_other_variant { other_variants(store, variants, inbound) } else { Lookup::Absent(absent) }
}

/// Whether parts may be put together with it: a part, or a complete response that a newer part would hide.
fn is_usable_with_others(store: &Store, stored: &StoredResponse, inbound: &Inbound) -> bool {
    store.purge_state(stored) != PurgeState::Hard && stored.head.nominated.matches(&inbound.headers)
}

/// What a 304 may name in place of the variant that is missing (RFC 9111 §4.1): complete, not purged, with an entity tag.
fn other_variants(store: &Store, variants: &[Arc<StoredResponse>], inbound: &Inbound) -> Lookup {
    let is_offered = |one: &&Arc<StoredResponse>| {
        one.head.part.is_none() && one.head.headers.contains_key(ETAG) && store.purge_state(one) != PurgeState::Hard
    };
    let others = variants.iter().filter(is_offered).cloned().collect();
    let nominated = variants.iter().find(|one| store.purge_state(one) != PurgeState::Hard);
    Lookup::OtherVariants(others, nominated.map_or(0, |one| variant_of(one, inbound)))
}

/// The variant that `inbound` would be, by the nominated fields of a stored response of its key.
pub fn variant_of(stored: &StoredResponse, inbound: &Inbound) -> u64 {
    match Nominated::of(&stored.head.headers, &inbound.headers) {
        // As where nothing is stored: whoever comes before and after the first response waits for the same fetch.
        Ok(nominated) if nominated.is_empty() => 0,
        Ok(nominated) => nominated.variant_hash(),
        Err(_) => 0,
    }
}
