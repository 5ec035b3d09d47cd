//! Post: what the response to a POST is for later GETs (RFC 9110 §9.3.3, RFC 9111 §4).
//!
//! Always true:
//! - It is kept only where it says what a GET of the same URI would give (`Content-Location`) and for how long.
//! - Its age in the order of purges is that of the POST's own invalidation; where anything that names it was purged while it was
//!   under way, it is not kept.
//!
//! Not here: the invalidation itself (`invalidate`).

use std::sync::Arc;

use brim_semantics::Refusal;
use http::header::CONTENT_LOCATION;
use http::{HeaderMap, Method, Response, StatusCode, Uri};

use super::accept::Inbound;
use super::entry::{Begun, Declined, Entry, KEYS_CUT, Times};
use super::exchange::Exchange;
use super::invalidate::Written;
use super::key::{self, Keyed};
use super::partial::Ask;
use super::ranges::Growing;
use super::respond::Answer;
use super::{Cache, record};
use crate::body::ResponseBody;
use crate::config::CacheMode;
use crate::origin::OriginBody;
use crate::route::Route;

/// The answer to a write, and what is kept of it on the way.
pub(super) fn keep(
    cache: &Arc<Cache>,
    route: &Arc<Route>,
    inbound: &mut Inbound,
    target: Uri,
    response: Response<OriginBody>,
    written: Written,
    exchange: &mut Exchange,
) -> Answer {
    let is_candidate = inbound.method == Method::POST
        && route.config.cache != CacheMode::Off
        && matches!(response.status(), StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION)
        && response.headers().contains_key(CONTENT_LOCATION);
    let Some(fetched_at) = written.position_if_alone().filter(|_| is_candidate) else {
        return Answer::Passed(response);
    };
    let times = Times { request: written.sent, response: cache.clock.now(), fetched_at };
    let Some(entry) = entry(cache, route, inbound, target, exchange) else { return Answer::Passed(response) };
    let Begun { fill, withheld, awaited, is_cut } = match entry.begin(&response, times, &Ask::Whole) {
        Ok(begun) => begun,
        Err(declined) => {
            // Of most answers to a POST nobody expects that they are kept. This one says how a GET could be answered with it.
            if declined != Declined::Refused(Refusal::Method) {
                exchange.explain(declined.as_detail());
            }
            return Answer::Passed(response);
        }
    };
    let Some(growing) = Growing::join_first(&fill.follower(), &Method::POST, &HeaderMap::new()) else {
        return Answer::Passed(response);
    };
    exchange.is_stored = true;
    if is_cut {
        exchange.explain(KEYS_CUT);
    }
    exchange.ttl_s = Some(growing.following.head().meta.ttl_seconds(times.response));
    let (parts, content) = response.into_parts();
    cache.tasks.spawn("post", async move {
        entry.pump(fill, awaited, content, || false).await;
    });
    // The client gets what the origin sent to it, the withheld fields among it.
    drop(withheld);
    Answer::Kept(Response::from_parts(parts, ResponseBody::stream(record::ReaderBody::new(growing.into_reader()))))
}

/// Where a GET of the same URI with the same fields would look.
fn entry(
    cache: &Arc<Cache>,
    route: &Arc<Route>,
    inbound: &mut Inbound,
    target: Uri,
    exchange: &mut Exchange,
) -> Option<Entry> {
    let Keyed::Cache(key) = key::derive_for_get(&cache.plugins, route, inbound, exchange) else { return None };
    // The origin has seen another query than the one that is keyed.
    if inbound.query_replaced.is_some() {
        return None;
    }
    let plugin = exchange.plugin.as_ref().map(|active| active.plugin.digest());
    Some(Entry::new(cache, route, key, Method::POST, inbound, target, plugin))
}
