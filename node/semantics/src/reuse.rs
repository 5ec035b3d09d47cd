//! What may be done with a stored response (RFC 9111 §4, RFC 5861).
//!
//! Always true:
//! - A hard purge comes before everything else: such a response is not used for anything, not even on error.
//! - A stale response is used only where the response, the client or the route permits it, and the response does not forbid
//!   it (§4.2.4).
//! - What the client asks for can only make the cache stricter, but for `max-stale` and `stale-if-error`.
//! - A fresh response is validated only where the client asks for it, `immutable` or not (RFC 8246 §2): there is nothing for that
//!   directive to change.
//!
//! Not here: whether the request selects the response (`vary`), how it is validated (`validation`), `only-if-cached`, which
//! says what to do after a miss.

use std::time::{Duration, SystemTime};

use http::StatusCode;

use crate::{CachePolicy, FreshnessSource, MaxStale, RequestDirectives, StoredMeta};

/// What purges have done to a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PurgeState {
    /// Nothing.
    Live,
    /// Made stale: it may serve while it is validated, and on error, unless it forbids stale use.
    Soft,
    /// Made unusable.
    Hard,
}

/// Why a stored response has to be validated before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// It is older than its lifetime.
    Stale,
    /// It says `no-cache`.
    NoCache,
    /// The request says `no-cache`.
    RequestNoCache,
    /// It is older than the request's `max-age`.
    RequestMaxAge,
    /// It will not stay fresh for the request's `min-fresh`.
    RequestMinFresh,
    /// A soft purge made it stale.
    SoftPurged,
}

impl Why {
    /// The word for `Cache-Status: …; detail=`.
    pub fn as_detail(&self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::NoCache => "no-cache",
            Self::RequestNoCache => "request-no-cache",
            Self::RequestMaxAge => "request-max-age",
            Self::RequestMinFresh => "request-min-fresh",
            Self::SoftPurged => "soft-purged",
        }
    }

    /// Whether the client asked for it, though the response itself could be used (`fwd=request`, RFC 9211 §2.2).
    pub fn is_requested(&self) -> bool {
        match self {
            Self::RequestNoCache | Self::RequestMaxAge | Self::RequestMinFresh => true,
            Self::Stale | Self::NoCache | Self::SoftPurged => false,
        }
    }
}

/// What may be done with a stored response for this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Reuse {
    /// Use it.
    Fresh,
    /// Use it, stale as it is: the client takes it (`max-stale`).
    StaleAllowed {
        /// For how long it has been stale.
        stale_for: Duration,
    },
    /// Use it, and validate it behind the client's back (RFC 5861 §3).
    StaleWhileValidating {
        /// For how long it has been stale.
        stale_for: Duration,
    },
    /// Validate it first.
    MustValidate(Why),
    /// It is as good as absent.
    Unusable,
}

/// Decides what may be done with a stored response that the request selects.
pub fn reuse(
    stored: &StoredMeta,
    request: &RequestDirectives,
    purge: PurgeState,
    now: SystemTime,
    policy: &CachePolicy,
) -> Reuse {
    let request = heeded(request, policy);
    let soft = match purge {
        PurgeState::Hard => return Reuse::Unusable,
        PurgeState::Soft => true,
        PurgeState::Live => false,
    };
    let age = stored.current_age(now);
    debug_assert!(age >= stored.initial_age.min(crate::delta::DELTA_MAX), "a response never grows younger");
    if stored.no_cache {
        return Reuse::MustValidate(Why::NoCache);
    }
    if request.no_cache {
        return Reuse::MustValidate(Why::RequestNoCache);
    }
    // `max-age=0` asks for a validation, however young the response is.
    if request.max_age.is_some_and(|max_age| age > max_age || max_age.is_zero()) {
        return Reuse::MustValidate(Why::RequestMaxAge);
    }
    let fresh_for = stored.freshness_lifetime.saturating_sub(age);
    let is_fresh = !fresh_for.is_zero() && !soft;
    if request.min_fresh.is_some_and(|min_fresh| !is_fresh || fresh_for < min_fresh) {
        return Reuse::MustValidate(Why::RequestMinFresh);
    }
    if is_fresh {
        return Reuse::Fresh;
    }
    let stale_for = age.saturating_sub(stored.freshness_lifetime);
    if may_serve_while_validating(stored, request, soft, fresh_for, stale_for, policy) {
        return Reuse::StaleWhileValidating { stale_for };
    }
    // What an operator made stale is not what a client's max-stale is about.
    if !soft && !forbids_stale(stored) && request.max_stale.is_some_and(|max_stale| allows(max_stale, stale_for)) {
        return Reuse::StaleAllowed { stale_for };
    }
    Reuse::MustValidate(if soft { Why::SoftPurged } else { Why::Stale })
}

/// Whether a stored response may stand in where the origin cannot be reached, drops the connection, or answers with one of
/// [`is_server_error`] (RFC 9111 §4.2.4, §4.3.3, RFC 5861 §4).
///
/// Windows that response, request or route name count, the longest of them. Where none is named it may, however stale it is:
/// a cache that is cut off from the origin may serve stale responses, unless the response forbids it.
pub fn may_serve_on_error(
    stored: &StoredMeta,
    request: &RequestDirectives,
    purge: PurgeState,
    now: SystemTime,
    policy: &CachePolicy,
) -> bool {
    let request = heeded(request, policy);
    if purge == PurgeState::Hard || stored.no_cache || request.no_cache || request.min_fresh.is_some() {
        return false;
    }
    let age = stored.current_age(now);
    if request.max_age.is_some_and(|max_age| age > max_age || max_age.is_zero()) {
        return false;
    }
    let Some(stale_for) = age.checked_sub(stored.freshness_lifetime) else { return true };
    // Unless max-stale or stale-if-error is there too, a client that names a max-age wants nothing stale (RFC 9111 §5.2.1.1).
    let forbids_stale = forbids_stale(stored);
    let max_stale = request.max_stale.filter(|_| !forbids_stale);
    if max_stale.is_some_and(|max_stale| allows(max_stale, stale_for)) {
        return true;
    }
    let extensions = [request.stale_if_error, policy.stale_if_error].map(|window| window.filter(|_| !forbids_stale));
    match [stored.stale_if_error, extensions[0], extensions[1]].into_iter().flatten().max() {
        Some(window) => stale_for < window,
        None => !forbids_stale && request.max_age.is_none(),
    }
}

/// The statuses that count as an error of the origin (RFC 5861 §4).
pub fn is_server_error(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// A route may disregard what clients ask for.
fn heeded<'a>(request: &'a RequestDirectives, policy: &CachePolicy) -> &'a RequestDirectives {
    const NONE: RequestDirectives = RequestDirectives {
        no_cache: false,
        no_store: false,
        only_if_cached: false,
        no_transform: false,
        max_age: None,
        min_fresh: None,
        max_stale: None,
        stale_if_error: None,
    };
    if policy.ignore_request_directives { &NONE } else { request }
}

fn may_serve_while_validating(
    stored: &StoredMeta,
    request: &RequestDirectives,
    soft: bool,
    fresh_for: Duration,
    stale_for: Duration,
    policy: &CachePolicy,
) -> bool {
    // RFC 9111 §5.2.1.1: a client that names a max-age wants nothing stale, unless it names max-stale too.
    if request.max_age.is_some() && !request.max_stale.is_some_and(|max_stale| allows(max_stale, stale_for)) {
        return false;
    }
    // A soft purge is an operator's leave to serve while validating what would still be fresh by age.
    if soft && !fresh_for.is_zero() {
        return !stored.must_revalidate || stored.stale_while_revalidate.is_some();
    }
    let route = policy.stale_while_revalidate.filter(|_| !forbids_stale(stored));
    stored.stale_while_revalidate.max(route).is_some_and(|window| stale_for < window)
}

/// Whether only a window that the response itself names permits stale use: it says so (§4.2.4), or it was never fresh, stored to
/// be validated, and nobody knows for how long it was true.
fn forbids_stale(stored: &StoredMeta) -> bool {
    stored.must_revalidate || stored.freshness_source == FreshnessSource::None
}

fn allows(max_stale: MaxStale, stale_for: Duration) -> bool {
    match max_stale {
        MaxStale::Any => true,
        MaxStale::Within(limit) => stale_for <= limit,
    }
}

#[cfg(test)]
mod tests;
