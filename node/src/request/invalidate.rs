//! What an unsafe request does to stored responses (RFC 9111 §4.4).
//!
//! Always true:
//! - The invalidation is durable and visible before the client gets the response that caused it: its next read cannot
//!   find what its write has made untrue.
//! - Only the target URI and what the response names on the same origin are touched.

use http::{Method, Response, Uri};

use super::{Cache, key};
use crate::admin::PurgeUrl;
use crate::origin::OriginBody;
use crate::route::Route;

/// Invalidates what a `method` on `target` with this response makes untrue.
pub(super) async fn after(
    cache: &Cache,
    route: &Route,
    method: &Method,
    target: &Uri,
    response: &Response<OriginBody>,
) {
    if !brim_semantics::invalidates(method, response.status()) {
        return;
    }
    let now = cache.clock.now();
    for uri in brim_semantics::invalidation_targets(target, response.headers()) {
        let scheme = uri.scheme_str().unwrap_or("http");
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let authority = brim_semantics::normal_authority(scheme, authority);
        let url = PurgeUrl {
            scheme: scheme.to_owned(),
            authority: authority.clone().into_owned(),
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
        };
        let mut outcome = cache.store.invalidate(&authority, uri.path(), uri.query(), now).await;
        // Responses may be stored under the query that the route's key rule made of this one.
        for rewritten in key::rewritten_urls(cache, &url) {
            outcome = cache.store.invalidate_selected(rewritten, now).await.and(outcome);
        }
        if let Err(error) = outcome {
            // The write has happened; refusing its answer would help nobody. In this process the invalidation holds.
            tracing::error!(site = %route.site, %uri, %error, "an invalidation is not on disk: it would not survive a crash");
        }
    }
}
