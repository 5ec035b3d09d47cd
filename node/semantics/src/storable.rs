//! Whether a response may be stored, and what is stored of it (RFC 9111 §3).
//!
//! Always true:
//! - A refusal names the first rule, in the order of [`Refusal`], that forbids to store.
//! - A response to a request with `Authorization` is stored only with `public`, `must-revalidate` or `s-maxage` (§3.5), each
//!   without what its grammar does not allow.
//! - A 428, 429, 431 or 511 is never stored (RFC 6585 §3 to §6: "MUST NOT"), and neither is a 416 to a request with `Range`: they
//!   are about one request, not about the resource.
//! - A response that could never be used is not stored: it needs an explicit lifetime, a heuristic one, or a validator; and
//!   without the first, a status of 400 and above needs `Last-Modified`. So a 200 with nothing but an `ETag` is stored and
//!   validated at each use: §3 allows it (its status is heuristically cacheable), and §4.2.2 gives nothing to estimate from.
//! - Stored fields hold nothing of one connection, no `Age`, and no field that `no-cache` or `private` names.
//!
//! Not here: the lifetime itself (`freshness`), invalidation (`invalidation`), size limits (`brim-store`).

use std::time::SystemTime;

use http::header::{
    AGE, AUTHORIZATION, CONTENT_LOCATION, ETAG, HeaderMap, HeaderName, LAST_MODIFIED, RANGE, SET_COOKIE,
};
use http::{Method, StatusCode, Uri};

use crate::fields::{only_line, strip_hop_by_hop};
use crate::freshness::{FreshnessSource, is_heuristically_cacheable};
use crate::invalidation::{is_same_uri, resolve};
use crate::vary::varies_on_everything;
use crate::{CachePolicy, Part, ResponseDirectives, StoredMeta};

/// What the rules ask of a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its fields, as the client sent them.
    pub headers: &'a HeaderMap,
    /// Its target URI, with scheme and authority.
    pub target: &'a Uri,
}

/// Whether a response may be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Storable {
    /// It may; this is what has to be remembered of it.
    Yes(StoredMeta),
    /// It must not, or there is no use in it.
    No(Refusal),
}

/// Why a response is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Responses to this method are not reused: anything but GET, QUERY, and POST with its own `Content-Location`.
    Method,
    /// An interim response, a 304, which only freshens, or an error that is about this request only.
    Status,
    /// A 206 that is no [`Part`]: of several ranges, of an unknown whole, or with a length that contradicts its range.
    Partial,
    /// The request says `no-store`.
    RequestNoStore,
    /// `must-understand` with a status whose rules this cache does not know (§5.2.2.3).
    NotUnderstood,
    /// The response says `no-store`.
    NoStore,
    /// The response says `private`.
    Private,
    /// The request has `Authorization`, and the response nothing that permits sharing (§3.5).
    Authorization,
    /// The response sets a cookie, and the route does not store those.
    SetCookie,
    /// `Vary: *`, or what amounts to it: no other request can match (§4.1).
    VaryStar,
    /// A 304 nominates fields that the stored response does not: what it was stored for is not known in these terms.
    VaryChanged,
    /// Neither an explicit nor a heuristic lifetime, nor a validator.
    NoFreshness,
}

impl Refusal {
    /// The word for `Cache-Status: …; detail=`.
    pub fn as_detail(&self) -> &'static str {
        match self {
            Self::Method => "method-not-stored",
            Self::Status => "status-not-stored",
            Self::Partial => "partial-content",
            Self::RequestNoStore => "request-no-store",
            Self::NotUnderstood => "status-not-understood",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::VaryStar => "vary-star",
            Self::VaryChanged => "vary-changed",
            Self::NoFreshness => "no-freshness",
        }
    }
}

/// Decides whether a response may be stored (RFC 9111 §3), and reckons its freshness.
///
/// `request_time` and `response_time` are when the forward request was sent and when the response's head arrived.
pub fn storable(
    request: &RequestFacts<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    policy: &CachePolicy,
    request_time: SystemTime,
    response_time: SystemTime,
) -> Storable {
    let directives = ResponseDirectives::parse(headers, policy);
    let meta = StoredMeta::of_response(status, headers, &directives, policy, request_time, response_time);
    match refusal(request, status, headers, &directives, policy, &meta) {
        None => Storable::Yes(meta),
        Some(refusal) => Storable::No(refusal),
    }
}

fn refusal(
    request: &RequestFacts<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    policy: &CachePolicy,
    meta: &StoredMeta,
) -> Option<Refusal> {
    if !has_reusable_method(request, status, headers, meta) {
        return Some(Refusal::Method);
    }
    if !is_about_the_resource(request, status) {
        return Some(Refusal::Status);
    }
    // On any other status Content-Range means nothing (RFC 9110 §14.4) and is stored like every field.
    if status == StatusCode::PARTIAL_CONTENT && Part::of_response(status, headers).is_none() {
        return Some(Refusal::Partial);
    }
    if !policy.ignore_request_directives && crate::RequestDirectives::parse(request.headers).no_store {
        return Some(Refusal::RequestNoStore);
    }
    if directives.must_understand && !is_understood(status) {
        return Some(Refusal::NotUnderstood);
    }
    // §5.2.2.3: with must-understand and an understood status, no-store is for those who do not know must-understand.
    if directives.no_store && !directives.must_understand {
        return Some(Refusal::NoStore);
    }
    if directives.private.is_whole() {
        return Some(Refusal::Private);
    }
    if request.headers.contains_key(AUTHORIZATION) && !directives.permits_sharing() {
        return Some(Refusal::Authorization);
    }
    let cookie_is_dropped = is_excluded(&SET_COOKIE, directives);
    if headers.contains_key(SET_COOKIE) && !policy.store_set_cookie && !cookie_is_dropped {
        return Some(Refusal::SetCookie);
    }
    if varies_on_everything(headers) {
        return Some(Refusal::VaryStar);
    }
    if !is_of_use(status, headers, directives, meta) {
        return Some(Refusal::NoFreshness);
    }
    None
}

/// GET; QUERY; POST where the response is explicitly fresh and says that it is what a GET of the same URI would give
/// (RFC 9110 §9.3.3). HEAD has no content to store; it may freshen (`validation::head_update`).
///
/// Of the answers to a POST only a 200 or 203 is what a GET would give (§8.7): any other status is about the act, and a client
/// could choose which error everybody gets.
fn has_reusable_method(request: &RequestFacts<'_>, status: StatusCode, headers: &HeaderMap, meta: &StoredMeta) -> bool {
    match request.method.as_str() {
        "GET" | "QUERY" => true,
        "POST" => {
            let location =
                only_line(headers, &CONTENT_LOCATION).and_then(|line| resolve(request.target, line.as_bytes()));
            matches!(status.as_u16(), 200 | 203)
                && meta.freshness_source.is_explicit()
                && location.is_some_and(|location| is_same_uri(&location, request.target))
        }
        _ => false,
    }
}

/// False for interim responses (RFC 9111 §3: the status has to be final), for 304, and for errors that say something about one
/// request only.
fn is_about_the_resource(request: &RequestFacts<'_>, status: StatusCode) -> bool {
    match status.as_u16() {
        100..=199 | 304 | 428 | 429 | 431 | 511 => false,
        416 => !request.headers.contains_key(RANGE),
        _ => true,
    }
}

/// Whether a later request could be answered with it (§3, last condition; §4.2.2).
fn is_of_use(status: StatusCode, headers: &HeaderMap, directives: &ResponseDirectives, meta: &StoredMeta) -> bool {
    let has_validator = headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED);
    if meta.no_cache && !has_validator {
        return false;
    }
    match meta.freshness_source {
        FreshnessSource::Targeted | FreshnessSource::SMaxage | FreshnessSource::MaxAge | FreshnessSource::Expires => {
            true
        }
        FreshnessSource::Heuristic => true,
        // Stale from the start: stored to be validated. An error page is not worth that.
        FreshnessSource::None => {
            let storable = is_heuristically_cacheable(status) || directives.public;
            storable && has_validator && status.as_u16() < 400
        }
    }
}

/// The final statuses of RFC 9110 whose rules for caching this cache follows; 304 is decided before.
fn is_understood(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200..=206 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 500..=505)
}

fn is_excluded(name: &HeaderName, directives: &ResponseDirectives) -> bool {
    directives.no_cache.fields().contains(name) || directives.private.fields().contains(name)
}

/// The fields to store of a response (RFC 9111 §3.1): without those of one connection, those that `no-cache` or `private`
/// name, and `Age`, which [`StoredMeta::age_value`] gives anew.
pub fn stored_headers(headers: &HeaderMap, directives: &ResponseDirectives) -> HeaderMap {
    let mut stored = headers.clone();
    strip_hop_by_hop(&mut stored);
    stored.remove(AGE);
    for name in directives.no_cache.fields().iter().chain(directives.private.fields()) {
        stored.remove(name);
    }
    stored
}

#[cfg(test)]
mod tests;
