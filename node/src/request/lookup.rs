//! Lookup: the stored response that a request selects, and what may be done with it (RFC 9111 §4).
//!
//! Always true:
//! - A response that a purge named after its fetch began is never returned as usable.
//! - Of several that match, the newest counts (§4.1).
//! - A hit from memory waits for nothing.
//!
//! Not here: the rules themselves (`brim_semantics::reuse`).

use std::sync::Arc;
use std::time::SystemTime;

use brim_semantics::{CacheKey, ForwardReason, Nominated, PurgeState, Reuse, Why};
use brim_store::{Found, Store, StoredResponse};

use super::accept::Inbound;
use crate::route::Route;

/// What the store has for a request.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// Usable as it is.
    Fresh(Arc<StoredResponse>),
    /// Stale, and the request takes it (`max-stale`).
    StaleAllowed(Arc<StoredResponse>),
    /// Usable while one validation runs behind it (RFC 5861 §3).
    StaleWhileValidating(Arc<StoredResponse>),
    /// Usable once the origin has confirmed it.
    MustValidate(Arc<StoredResponse>, Why),
    /// Nothing usable.
    Absent(Absent),
}

/// Why there is nothing usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Nothing is stored under the key.
    Uri,
    /// Responses are stored, for other values of the nominated fields. The variant that this request asks for.
    Vary(u64),
    /// What was stored has been purged.
    Purged,
}

impl Absent {
    /// The word of RFC 9211 §2.2.
    pub fn forward_reason(self) -> ForwardReason {
        match self {
            Self::Uri | Self::Purged => ForwardReason::UriMiss,
            Self::Vary(_) => ForwardReason::VaryMiss,
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
    let mut absent = Absent::Uri;
    for stored in variants {
        let purge = store.purge_state(stored);
        if purge == PurgeState::Hard {
            absent = Absent::Purged;
            continue;
        }
        if !stored.head.nominated.matches_or_answers(&inbound.headers, &stored.head.headers) {
            if !matches!(absent, Absent::Vary(_)) {
                absent = Absent::Vary(variant_of(stored, inbound));
            }
            continue;
        }
        let policy = &route.config.policy;
        return match brim_semantics::reuse(&stored.head.meta, &inbound.directives, purge, now, policy) {
            Reuse::Fresh => Lookup::Fresh(stored.clone()),
            Reuse::StaleAllowed { .. } => Lookup::StaleAllowed(stored.clone()),
            Reuse::StaleWhileValidating { .. } => Lookup::StaleWhileValidating(stored.clone()),
            Reuse::MustValidate(why) => Lookup::MustValidate(stored.clone(), why),
            Reuse::Unusable => continue,
        };
    }
    Lookup::Absent(absent)
}

/// The variant that `inbound` would be, by the nominated fields of a stored response of its key.
pub fn variant_of(stored: &StoredResponse, inbound: &Inbound) -> u64 {
    Nominated::of(&stored.head.headers, &inbound.headers).map_or(0, |nominated| nominated.variant_hash())
}
