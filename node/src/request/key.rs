//! Key: which cache key a request has, or why it goes past the cache.
//!
//! Always true:
//! - Scheme, authority, site, method and path are in every key, below whatever a plugin adds, and so is the plugin's digest: what
//!   one version of a rule stored is found again by that version only (after a rollback, for instance).
//! - A cache-key rule that is missing or fails makes the request a bypass; there is no key to fall back to, because the
//!   default key could hand one tenant's response to another.
//! - The content of a QUERY, by its SHA-256, and the fields that say how to read it are in its key (RFC 10008).
//! - A query that a rule replaces is keyed **and** forwarded: what is not keyed does not reach the origin.
//!
//! Not here: what a stored response is good for (`lookup`).

use std::borrow::Cow;

use brim_host::{Digest, KeyRequest, QueryUse};
use brim_semantics::{CacheKey, KeyMethod, KeyPart, PartValue, Target};
use brim_store::Selector;
use http::header::{CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method};
use sha2::{Digest as _, Sha256};

use super::Cache;
use super::accept::Inbound;
use super::exchange::Exchange;
use crate::admin::PurgeUrl;
use crate::config::CacheMode;
use crate::plugins::PluginRegistry;
use crate::route::Route;

/// What the key stage made of a request.
#[derive(Debug)]
pub enum Keyed {
    /// It can be answered from the store.
    Cache(CacheKey),
    /// It goes to the origin, past the store.
    Bypass(Bypass),
}

/// Why a request goes past the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bypass {
    /// The method is not one that a stored response answers (RFC 9111 §4).
    Method,
    /// `cache = "off"` for the route.
    RouteOff,
    /// A GET or HEAD with content: an origin may read it, the key does not. Or a QUERY with more of it than is read for a key.
    Content,
    /// `If-Match` or `If-Unmodified-Since`, which only the origin can judge (RFC 9111 §4.3.2).
    Precondition,
    /// The request changes protocol.
    Upgrade,
    /// The route's plugin is not uploaded, not active or could not be loaded.
    PluginMissing,
    /// The plugin failed; the word says how.
    PluginFault(&'static str),
    /// The plugin asked for it.
    PluginBypass(String),
    /// The key would be longer than `CACHE_KEY_BYTES_MAX`.
    KeyTooLong,
}

impl Bypass {
    /// What Cache-Status and the access log call it.
    pub fn as_detail(&self) -> Cow<'static, str> {
        match self {
            Self::Method => "method".into(),
            Self::RouteOff => "route-off".into(),
            Self::Content => "request-content".into(),
            Self::Precondition => "precondition".into(),
            Self::Upgrade => "upgrade".into(),
            Self::PluginMissing => "plugin-missing".into(),
            Self::PluginFault(fault) => format!("plugin-{fault}").into(),
            Self::PluginBypass(reason) => format!("plugin-bypass: {reason}").into(),
            Self::KeyTooLong => "key-too-long".into(),
        }
    }
}

/// Derives the key of `inbound` on `route`; a rule's canonical query is put into `inbound`.
pub fn derive(plugins: &PluginRegistry, route: &Route, inbound: &mut Inbound, exchange: &mut Exchange) -> Keyed {
    if let Some(bypass) = bypass_without_key(route, inbound) {
        return Keyed::Bypass(bypass);
    }
    of_route(plugins, route, inbound, exchange)
}

/// The key that a GET of the same URI with the same fields has.
pub(super) fn derive_for_get(
    plugins: &PluginRegistry,
    route: &Route,
    inbound: &mut Inbound,
    exchange: &mut Exchange,
) -> Keyed {
    if brim_semantics::has_origin_preconditions(&inbound.headers) {
        return Keyed::Bypass(Bypass::Precondition);
    }
    of_route(plugins, route, inbound, exchange)
}

fn of_route(plugins: &PluginRegistry, route: &Route, inbound: &mut Inbound, exchange: &mut Exchange) -> Keyed {
    match &route.config.cache_key_plugin {
        None => build(route, inbound, None, &[]),
        Some(name) => by_plugin(plugins, name, route, inbound, exchange),
    }
}

fn bypass_without_key(route: &Route, inbound: &Inbound) -> Option<Bypass> {
    if !inbound.is_cacheable_method() {
        return Some(if inbound.is_query() { Bypass::Content } else { Bypass::Method });
    }
    if route.config.cache == CacheMode::Off {
        return Some(Bypass::RouteOff);
    }
    if inbound.has_content && inbound.query_content.is_none() {
        return Some(Bypass::Content);
    }
    if brim_semantics::has_origin_preconditions(&inbound.headers) {
        return Some(Bypass::Precondition);
    }
    None
}

fn by_plugin(
    plugins: &PluginRegistry,
    name: &str,
    route: &Route,
    inbound: &mut Inbound,
    exchange: &mut Exchange,
) -> Keyed {
    let Some(active) = plugins.active(name) else {
        return Keyed::Bypass(Bypass::PluginMissing);
    };
    exchange.plugin = Some(active.clone());
    let decision = match active.plugin.cache_key(&key_request(inbound)) {
        Ok(decision) => decision,
        Err(fault) => {
            if let Some(held_back) = route.plugin_faults.admit() {
                tracing::warn!(plugin = name, %fault, held_back, "cache-key rule failed: the request goes past the cache");
            }
            exchange.plugin_fault = Some(fault.as_detail());
            return Keyed::Bypass(Bypass::PluginFault(fault.as_detail()));
        }
    };
    if let QueryUse::Replace(query) = &decision.query {
        inbound.query_replaced = Some(query.clone());
    }
    match &decision.bypass {
        Some(reason) => Keyed::Bypass(Bypass::PluginBypass(reason.clone())),
        None => build(route, inbound, Some(active.plugin.digest()), &decision.parts),
    }
}

/// A request as a key rule is asked about it: with the client's own query.
pub(super) fn key_request(inbound: &Inbound) -> KeyRequest<'_> {
    KeyRequest {
        // A HEAD has the key of its GET, or a stored GET could not answer it.
        method: if inbound.query_content.is_some() { inbound.method.as_str() } else { Method::GET.as_str() },
        scheme: inbound.scheme,
        authority: &inbound.authority,
        path: inbound.uri.path(),
        query: inbound.uri.query(),
        headers: &inbound.headers,
    }
}

fn build(route: &Route, inbound: &Inbound, rule: Option<Digest>, parts: &[KeyPart]) -> Keyed {
    let target = Target {
        scheme: inbound.scheme,
        authority: &inbound.authority,
        site: &route.site,
        path: inbound.path(),
        query: inbound.query(),
        rule: rule.as_ref(),
    };
    let key = match &inbound.query_content {
        None => CacheKey::new(KeyMethod::Get, &target, parts),
        Some(content) => {
            let mut parts = parts.to_vec();
            parts.extend(query_parts(&inbound.headers, content));
            CacheKey::new(KeyMethod::Query, &target, &parts)
        }
    };
    match key {
        Ok(key) => Keyed::Cache(key),
        Err(_too_long) => Keyed::Bypass(Bypass::KeyTooLong),
    }
}

/// How many parts [`query_parts`] are.
pub(super) const QUERY_PARTS: usize = 4;

/// What a QUERY asks: always the last parts of its key, so that no plugin's part can stand for one of them.
fn query_parts(headers: &HeaderMap, content: &[u8]) -> Vec<KeyPart> {
    let digest = Sha256::digest(content).to_vec();
    let mut parts = vec![KeyPart { name: "content".into(), value: PartValue::Bytes(digest) }];
    for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE] {
        let lines: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
        let value = if lines.is_empty() { PartValue::Absent } else { PartValue::Bytes(lines.join(&b"\n"[..])) };
        parts.push(KeyPart { name: name.as_str().into(), value });
    }
    parts
}

/// Under which other URLs responses to `url` may be stored, because the route's rule rewrites the query: what the rule makes of
/// the URL in a request without any fields. Where it cannot say, everything below the path: too much, never too little.
pub fn rewritten_urls(cache: &Cache, url: &PurgeUrl) -> Vec<Selector> {
    let snapshot = cache.snapshot.load();
    let Some(route) = snapshot.routes.site(&url.authority).and_then(|site| site.route(&url.path)) else {
        return Vec::new();
    };
    let Some(name) = route.config.cache_key_plugin.as_deref() else { return Vec::new() };
    let (authority, path): (Box<str>, Box<str>) = (url.authority.as_str().into(), url.path.as_str().into());
    let request = KeyRequest {
        method: Method::GET.as_str(),
        scheme: &url.scheme,
        authority: &authority,
        path: &path,
        query: url.query.as_deref(),
        headers: &HeaderMap::new(),
    };
    let decision = cache
        .plugins
        .active(name)
        .ok_or("it is not active".to_owned())
        .and_then(|active| active.plugin.cache_key(&request).map_err(|fault| fault.to_string()));
    match decision.as_deref().map(|decision| &decision.query) {
        Ok(QueryUse::Replace(query)) => {
            vec![Selector::Url { authority, path, query: query.as_deref().map(Into::into) }]
        }
        Ok(QueryUse::Keep) => Vec::new(),
        Err(reason) => {
            tracing::warn!(
                plugin = name,
                reason,
                path = &*path,
                "the key rule cannot say how it rewrites a URL: everything below its path is purged"
            );
            vec![Selector::Prefix { authority, path_prefix: path }]
        }
    }
}
