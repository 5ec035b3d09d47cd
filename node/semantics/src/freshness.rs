//! Freshness: how old a response is, and how old it may become (RFC 9111 §4.2).
//!
//! Always true:
//! - An age is never below what the response had when it arrived, whatever the clock does afterwards, and never above 2³¹ s.
//! - A lifetime comes from one source, the first of: targeted field, `s-maxage`, `max-age`, `Expires`, heuristic.
//! - An invalid `Expires` or `max-age` is a lifetime of zero, never an absent one.
//! - No time makes a calculation overflow, neither one that a peer writes nor one that this node's clock shows.
//!
//! Not here: what is done with a stale response (`reuse`), whether a response is stored at all (`storable`).

mod account;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use http::header::{AGE, DATE, EXPIRES, HeaderMap, HeaderValue, LAST_MODIFIED};

use crate::delta::{DELTA_MAX, delta_seconds};
use crate::fields::{http_date_at, list_members, only_line};
use crate::{CachePolicy, ResponseDirectives};

pub use account::{AgeAccount, LifetimeAccount};

/// §4.2.2 proposes a tenth of the time since the last modification.
const HEURISTIC_DIVISOR: u64 = 10;

/// What a freshness lifetime was taken from (RFC 9111 §4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum FreshnessSource {
    /// `max-age` or `s-maxage` of a targeted field (RFC 9213).
    Targeted,
    /// `s-maxage`.
    SMaxage,
    /// `max-age`.
    MaxAge,
    /// `Expires` minus `Date`.
    Expires,
    /// A tenth of the time since `Last-Modified` (§4.2.2).
    Heuristic,
    /// Nothing: stale from the start, used after validation only.
    None,
}

impl FreshnessSource {
    /// Whether the origin named the lifetime itself.
    pub fn is_explicit(self) -> bool {
        match self {
            Self::Targeted | Self::SMaxage | Self::MaxAge | Self::Expires => true,
            Self::Heuristic | Self::None => false,
        }
    }
}

/// What must be remembered of a stored response so that every later decision is a pure function.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredMeta {
    /// The status code.
    pub status: u16,
    /// When the request that fetched it, or last validated it, was sent.
    pub request_time: SystemTime,
    /// When the head of the response to that request arrived.
    pub response_time: SystemTime,
    /// How old it was then: `corrected_initial_age` (RFC 9111 §4.2.3).
    pub initial_age: Duration,
    /// How old it may become and still be fresh.
    pub freshness_lifetime: Duration,
    /// Where the lifetime comes from.
    pub freshness_source: FreshnessSource,
    /// `no-cache` without field names: each use needs a validation.
    pub no_cache: bool,
    /// `must-revalidate`, `proxy-revalidate` or `s-maxage`: not used stale, unless the response itself names a window.
    pub must_revalidate: bool,
    /// The response's own window (RFC 5861 §3); none where `must-revalidate`, `proxy-revalidate` or `no-cache` closes it.
    pub stale_while_revalidate: Option<Duration>,
    /// The response's own window (RFC 5861 §4); none where `must-revalidate`, `proxy-revalidate` or `no-cache` closes it.
    pub stale_if_error: Option<Duration>,
}

impl StoredMeta {
    /// Reckons age and lifetime of a response, whether or not it may be stored.
    ///
    /// `s-maxage` implies `proxy-revalidate` (RFC 9111 §5.2.2.10), which is to say: by itself it forbids stale use (§4.2.4). A
    /// response that also carries an RFC 5861 directive permits that use in so many words: an extension directive modifies those
    /// that are understood without it (§5.2.3), and `stale-while-revalidate` would mean nothing to a shared cache otherwise.
    /// `must-revalidate`, which no cache may ignore "in all circumstances" (§5.2.2.2), `proxy-revalidate`, which is analogous
    /// (§5.2.2.8), and `no-cache`, which holds "even by caches that have been configured to send stale responses" (§5.2.2.4),
    /// close the window.
    pub(crate) fn of_response(
        status: StatusCode,
        headers: &HeaderMap,
        directives: &ResponseDirectives,
        policy: &CachePolicy,
        request_time: SystemTime,
        response_time: SystemTime,
    ) -> Self {
        let date = only_line(headers, &DATE).and_then(|line| http_date_at(line, response_time));
        let (freshness_lifetime, freshness_source) = lifetime(status, headers, directives, policy, date, response_time);
        let no_cache = directives.no_cache.is_whole();
        let forbids_stale = directives.must_revalidate || directives.proxy_revalidate || no_cache;
        let window = |own: Option<Duration>| own.filter(|_| !forbids_stale);
        Self {
            status: status.as_u16(),
            request_time,
            response_time,
            initial_age: initial_age(headers, date, request_time, response_time),
            freshness_lifetime,
            freshness_source,
            no_cache,
            must_revalidate: directives.must_revalidate || directives.proxy_revalidate || directives.s_maxage.is_some(),
            stale_while_revalidate: window(directives.stale_while_revalidate),
            stale_if_error: window(directives.stale_if_error),
        }
    }

    /// `current_age` (RFC 9111 §4.2.3). A clock that stepped back makes nothing younger than it arrived.
    pub fn current_age(&self, now: SystemTime) -> Duration {
        let resident = now.duration_since(self.response_time).unwrap_or_default();
        self.initial_age.saturating_add(resident).min(DELTA_MAX)
    }

    /// The value of `Age` (RFC 9111 §5.1).
    pub fn age_value(&self, now: SystemTime) -> HeaderValue {
        HeaderValue::from(self.current_age(now).as_secs())
    }

    /// What is left of the lifetime, for `Cache-Status` (RFC 9211 §2.4); negative where the response is stale.
    pub fn ttl_seconds(&self, now: SystemTime) -> i64 {
        let age = self.current_age(now);
        match self.freshness_lifetime.checked_sub(age) {
            Some(left) => i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            None => -i64::try_from((age - self.freshness_lifetime).as_secs()).unwrap_or(i64::MAX),
        }
    }
}

/// `corrected_initial_age` (RFC 9111 §4.2.3).
fn initial_age(
    headers: &HeaderMap,
    date: Option<SystemTime>,
    request_time: SystemTime,
    response_time: SystemTime,
) -> Duration {
    // `Date` has whole seconds: a response made in this very second must not look up to one second old.
    let apparent_age =
        date.map_or(Duration::ZERO, |date| whole_second(response_time).duration_since(date).unwrap_or_default());
    let response_delay = response_time.duration_since(request_time).unwrap_or_default();
    let corrected_age = age_field(headers).saturating_add(response_delay);
    apparent_age.max(corrected_age).min(DELTA_MAX)
}

/// `Age` as received (RFC 9111 §5.1): of a list the first member counts, and what is no number is ignored.
fn age_field(headers: &HeaderMap) -> Duration {
    list_members(headers.get_all(AGE)).next().and_then(delta_seconds).unwrap_or_default()
}

fn lifetime(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    policy: &CachePolicy,
    date: Option<SystemTime>,
    response_time: SystemTime,
) -> (Duration, FreshnessSource) {
    let named = if directives.is_targeted() {
        let lifetime = directives.s_maxage.or(directives.max_age);
        lifetime.map(|lifetime| (lifetime, FreshnessSource::Targeted))
    } else {
        let s_maxage = directives.s_maxage.map(|lifetime| (lifetime, FreshnessSource::SMaxage));
        let max_age = || directives.max_age.map(|lifetime| (lifetime, FreshnessSource::MaxAge));
        let expires = || expires(headers, date, response_time).map(|lifetime| (lifetime, FreshnessSource::Expires));
        s_maxage.or_else(max_age).or_else(expires)
    };
    let estimated = || {
        let allowed = policy.heuristic && (is_heuristically_cacheable(status) || directives.public);
        let lifetime = if allowed { heuristic(headers, date, response_time) } else { None };
        lifetime.map(|lifetime| (lifetime.min(policy.heuristic_max), FreshnessSource::Heuristic))
    };
    let (lifetime, source) = named.or_else(estimated).unwrap_or((Duration::ZERO, FreshnessSource::None));
    (lifetime.min(policy.freshness_max.unwrap_or(DELTA_MAX)).min(DELTA_MAX), source)
}

/// `Expires` minus `Date` (§4.2.1); several lines, or anything that is no date, are in the past (§5.3).
fn expires(headers: &HeaderMap, date: Option<SystemTime>, response_time: SystemTime) -> Option<Duration> {
    if !headers.contains_key(EXPIRES) {
        return None;
    }
    let expires = only_line(headers, &EXPIRES).and_then(|line| http_date_at(line, response_time));
    let since = date.unwrap_or_else(|| whole_second(response_time));
    Some(expires.and_then(|expires| expires.duration_since(since).ok()).unwrap_or_default())
}

/// A tenth of the time since the last modification (§4.2.2). None without a date, or with one that is not in the past.
fn heuristic(headers: &HeaderMap, date: Option<SystemTime>, response_time: SystemTime) -> Option<Duration> {
    let modified = only_line(headers, &LAST_MODIFIED).and_then(|line| http_date_at(line, response_time))?;
    let unchanged_for = date.unwrap_or(response_time).duration_since(modified).ok()?;
    Some(Duration::from_secs(unchanged_for.as_secs() / HEURISTIC_DIVISOR))
}

/// RFC 9110 §15.1, and 308 by §15.4.9.
pub(crate) fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

fn whole_second(time: SystemTime) -> SystemTime {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs())
}

#[cfg(test)]
mod tests;
