//! What a route's configuration decides about caching: plain data, built and checked by the configuration.

use std::time::Duration;

use http::HeaderName;

/// The part of a route that the rules ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachePolicy {
    /// Targeted fields (RFC 9213 §2.2), most important first. The first valid, non-empty one replaces
    /// `Cache-Control` and `Expires`.
    pub targeted_fields: Vec<HeaderName>,
    /// Whether a lifetime is estimated from `Last-Modified` where the origin gave none (RFC 9111 §4.2.2).
    pub heuristic: bool,
    /// No estimated lifetime is longer.
    pub heuristic_max: Duration,
    /// Whether a response with `Set-Cookie` may be stored (and its cookie given to others).
    pub store_set_cookie: bool,
    /// Whether clients' `Cache-Control` and `Pragma` are disregarded.
    pub ignore_request_directives: bool,
    /// Extends the response's own `stale-while-revalidate`, unless the response forbids stale use.
    pub stale_while_revalidate: Option<Duration>,
    /// Extends the response's own `stale-if-error`, unless the response forbids stale use.
    pub stale_if_error: Option<Duration>,
    /// No lifetime is longer, whatever the origin says.
    pub freshness_max: Option<Duration>,
}

impl Default for CachePolicy {
    fn default() -> Self {
        Self {
            targeted_fields: vec![HeaderName::from_static("cdn-cache-control")],
            heuristic: true,
            heuristic_max: Duration::from_secs(24 * 60 * 60),
            store_set_cookie: false,
            ignore_request_directives: false,
            stale_while_revalidate: None,
            stale_if_error: None,
            freshness_max: None,
        }
    }
}
