//! What an unsafe request does to stored responses (RFC 9111 §4.4).
//!
//! Always true:
//! - The invalidation is durable and visible before the client gets the response that caused it: its next read cannot
//!   find what its write has made untrue.
//! - It happens whether or not the client waits for that response.
//! - Only the target URI, and the URIs and groups that the response names on the same origin (RFC 9875 §3), are touched.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brim_semantics::PurgeState;
use brim_store::{Position, PurgeError, Scope, Selector};
use http::{HeaderMap, Method, Request, Response, Uri};
use tokio::sync::oneshot;

use super::error::RequestError;
use super::{Cache, key};
use crate::admin::PurgeUrl;
use crate::origin::{ForwardBody, ForwardError, ForwardedResponse, OriginBody};
use crate::route::Route;

/// How often an invalidation is tried that finds the purge log's queue full, and how long it waits in between: 2 s in all.
const TRIES_MAX: usize = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// What a write left in the purge log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    /// When the request was sent.
    pub(super) sent: SystemTime,
    /// The newest purge when its own invalidations began, if none since the request was sent names its target.
    clean_at: Option<Position>,
    /// The newest of its own invalidations, if all of them are in the log; and how many there are.
    own: Option<(Position, u64)>,
}

impl Written {
    /// The position of its invalidations, if nothing that names its target was purged while it was under way, and nothing at
    /// all beside them: then its response is as new as that.
    pub(super) fn position_if_alone(self) -> Option<Position> {
        let ((newest, count), clean_at) = (self.own?, self.clean_at?);
        (newest.0 == clean_at.0 + count).then_some(newest)
    }
}

/// Forwards a request that is not safe, in a task of its own: the origin may have acted on it even if the client does not
/// wait for the answer, and then what is stored is untrue all the same.
pub(super) async fn write(
    cache: &Arc<Cache>,
    route: &Arc<Route>,
    target: Uri,
    request: Request<ForwardBody>,
) -> Result<(Result<ForwardedResponse, ForwardError>, Written), RequestError> {
    let (reply, answer) = oneshot::channel();
    let (writing, route) = (cache.clone(), route.clone());
    cache.tasks.spawn("write", async move {
        let method = request.method().clone();
        let before = writing.store.position();
        let mut written = Written { sent: writing.clock.now(), clean_at: None, own: None };
        let forwarded = route.origin.send(request).await;
        if let Ok(forwarded) = &forwarded {
            written.clean_at = clean_at(&writing, &route, &target, forwarded.response.headers(), before);
            written.own = after(&writing, &route, &method, &target, &forwarded.response).await;
        }
        let _ = reply.send((forwarded, written));
    });
    answer.await.map_err(|_task_died| RequestError::Internal)
}

/// The newest purge, if none since `before` names the response to a request for `target`.
fn clean_at(cache: &Cache, route: &Route, target: &Uri, response: &HeaderMap, before: Position) -> Option<Position> {
    let scope = Scope {
        site: route.site.clone(),
        authority: authority_of(target).into(),
        path: target.path().into(),
        query: target.query().map(Into::into),
    };
    let (keys, _) = brim_semantics::surrogate_keys(response);
    let position = cache.store.position();
    (cache.store.purge_state_of(&scope, &keys, before) == PurgeState::Live).then_some(position)
}

/// Invalidates what a `method` on `target` with this response makes untrue. The newest position and how many there are, if all
/// went well and there was anything to do.
async fn after(
    cache: &Cache,
    route: &Route,
    method: &Method,
    target: &Uri,
    response: &Response<OriginBody>,
) -> Option<(Position, u64)> {
    if !brim_semantics::invalidates(method, response.status()) {
        return None;
    }
    let (mut newest, mut count, mut is_whole) = (Position(0), 0, true);
    for selector in selectors(cache, target, response.headers()) {
        match invalidate(cache, selector).await {
            Ok(position) => {
                newest = newest.max(position);
                count += 1;
            }
            Err(error) => {
                // The write has happened; refusing its answer would help nobody.
                tracing::error!(site = %route.site, %target, %error, "an invalidation is not on disk, or not applied at all");
                is_whole = false;
            }
        }
    }
    is_whole.then_some((newest, count))
}

/// What a successful write makes untrue: URIs (RFC 9111 §4.4), and groups of the same origin (RFC 9875 §3).
fn selectors(cache: &Cache, target: &Uri, response: &HeaderMap) -> Vec<Selector> {
    let mut selectors = Vec::new();
    for uri in brim_semantics::invalidation_targets(target, response) {
        let (scheme, authority) = (uri.scheme_str().unwrap_or("http"), authority_of(&uri));
        let url = PurgeUrl {
            scheme: scheme.to_owned(),
            authority,
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
        };
        // Responses may also be stored under the query that the route's key rule makes of this one.
        let rewritten = key::rewritten_urls(cache, &url);
        selectors.push(as_given(url));
        selectors.extend(rewritten);
    }
    let (groups, is_cut) = brim_semantics::invalidated_groups(response);
    if is_cut {
        tracing::warn!(%target, "Cache-Group-Invalidation names more or longer groups than are taken: the rest stays");
    }
    if !groups.is_empty() {
        selectors.push(Selector::Groups { authority: authority_of(target).into(), groups });
    }
    selectors
}

fn authority_of(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    brim_semantics::normal_authority(uri.scheme_str().unwrap_or("http"), authority).into_owned()
}

fn as_given(url: PurgeUrl) -> Selector {
    Selector::Url { authority: url.authority.into(), path: url.path.into(), query: url.query.map(Into::into) }
}

async fn invalidate(cache: &Cache, selector: Selector) -> Result<Position, PurgeError> {
    let mut tries_left = TRIES_MAX;
    loop {
        match cache.store.invalidate_selected(selector.clone(), cache.clock.now()).await {
            Err(PurgeError::Busy(_)) if tries_left > 0 => tries_left -= 1,
            outcome => return outcome,
        }
        tokio::time::sleep(PAUSE).await;
    }
}
