//! What the origin's answer to a HEAD says of the stored response to GET (RFC 9111 §4.3.5).
//!
//! Always true:
//! - A HEAD that describes what is stored freshens it; one that describes something else takes it out.
//! - The position that a freshened response carries was read before the HEAD was sent.

use std::sync::Arc;
use std::time::SystemTime;

use brim_semantics::{HeadUpdate, PurgeState, RequestFacts, Storable};
use brim_store::{Position, StoredResponse};
use http::{Method, Response};

use super::accept::Inbound;
use super::{Cache, forward, tags};
use crate::config::KeyOverflow;
use crate::origin::OriginBody;
use crate::route::Route;

/// When a HEAD was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    time: SystemTime,
    position: Position,
}

impl Sent {
    /// Now. To be taken before the request leaves.
    pub(super) fn now(cache: &Cache) -> Self {
        Self { position: cache.store.position(), time: cache.clock.now() }
    }
}

/// Applies the response to a HEAD to the stored response that it was about.
pub(super) fn update(
    cache: &Cache,
    route: &Route,
    inbound: &Inbound,
    stored: &Arc<StoredResponse>,
    response: &Response<OriginBody>,
    sent: Sent,
) {
    let headers = response.headers();
    let (then, length) = (&stored.head, stored.content_length());
    match brim_semantics::head_update(then.status, &then.headers, length, response.status(), headers) {
        HeadUpdate::Nothing => {}
        HeadUpdate::Invalidate => cache.store.remove(&stored.head.key),
        HeadUpdate::Freshen => {
            // A purge that came before the HEAD must not be undone by it.
            let Ok(target) = forward::target(inbound) else { return };
            // Nor is a plugin asked for surrogate keys by fields alone: a GET will do that.
            if cache.store.purge_state(stored) == PurgeState::Hard || route.config.tagging.plugin.is_some() {
                return;
            }
            let facts = RequestFacts { method: &Method::GET, headers: &inbound.headers, target: &target };
            let (policy, received) = (&route.config.policy, cache.clock.now());
            let status = stored.head.status;
            let freshened =
                brim_semantics::freshened(&facts, status, &stored.head.headers, headers, policy, sent.time, received);
            if let Storable::Yes(meta) = freshened.storable {
                let keys = tags::of_fields(route, &target, &inbound.headers, &freshened.headers);
                if keys.is_cut() && route.config.tagging.overflow == KeyOverflow::Refuse {
                    route.metrics.note_keys_cut();
                    cache.store.remove(&stored.head.key);
                    return;
                }
                cache.store.freshen(stored, freshened.headers, meta, sent.position, keys.into_vec());
            }
        }
    }
}
