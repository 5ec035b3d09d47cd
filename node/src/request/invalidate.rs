//! What an unsafe request does to stored responses (RFC 9111 §4.4).
//!
//! Always true:
//! - The invalidation is durable and visible before the client gets the response that caused it: its next read cannot
//!   find what its write has made untrue.
//! - It happens whether or not the client waits for that response.
//! - Only the target URI and what the response names on the same origin are touched.

use std::sync::Arc;
use std::time::Duration;

use brim_store::{PurgeError, Selector};
use http::{Method, Request, Response, Uri};
use tokio::sync::oneshot;

use super::error::RequestError;
use super::{Cache, key};
use crate::admin::PurgeUrl;
use crate::origin::{ForwardBody, ForwardError, ForwardedResponse, OriginBody};
use crate::route::Route;

/// How often an invalidation is tried that finds the purge log's queue full, and how long it waits in between: 2 s in all.
const TRIES_MAX: usize = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// Forwards a request that is not safe, in a task of its own: the origin may have acted on it even if the client does not
/// wait for the answer, and then what is stored is untrue all the same.
pub(super) async fn write(
    cache: &Arc<Cache>,
    route: &Arc<Route>,
    target: Uri,
    request: Request<ForwardBody>,
) -> Result<Result<ForwardedResponse, ForwardError>, RequestError> {
    let (reply, answer) = oneshot::channel();
    let (writing, route) = (cache.clone(), route.clone());
    cache.tasks.spawn("write", async move {
        let method = request.method().clone();
        let forwarded = route.origin.send(request).await;
        if let Ok(forwarded) = &forwarded {
            after(&writing, &route, &method, &target, &forwarded.response).await;
        }
        let _ = reply.send(forwarded);
    });
    answer.await.map_err(|_task_died| RequestError::Internal)
}

/// Invalidates what a `method` on `target` with this response makes untrue.
async fn after(cache: &Cache, route: &Route, method: &Method, target: &Uri, response: &Response<OriginBody>) {
    if !brim_semantics::invalidates(method, response.status()) {
        return;
    }
    for uri in brim_semantics::invalidation_targets(target, response.headers()) {
        let scheme = uri.scheme_str().unwrap_or("http");
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let url = PurgeUrl {
            scheme: scheme.to_owned(),
            authority: brim_semantics::normal_authority(scheme, authority).into_owned(),
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
        };
        // Responses may also be stored under the query that the route's key rule makes of this one.
        let rewritten = key::rewritten_urls(cache, &url);
        for selector in std::iter::once(as_given(url)).chain(rewritten) {
            if let Err(error) = invalidate(cache, selector).await {
                // The write has happened; refusing its answer would help nobody.
                tracing::error!(site = %route.site, %uri, %error, "an invalidation is not on disk, or not applied at all");
            }
        }
    }
}

fn as_given(url: PurgeUrl) -> Selector {
    Selector::Url { authority: url.authority.into(), path: url.path.into(), query: url.query.map(Into::into) }
}

async fn invalidate(cache: &Cache, selector: Selector) -> Result<(), PurgeError> {
    let mut tries_left = TRIES_MAX;
    loop {
        match cache.store.invalidate_selected(selector.clone(), cache.clock.now()).await {
            Err(PurgeError::Busy(_)) if tries_left > 0 => tries_left -= 1,
            outcome => return outcome.map(|_position| ()),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
