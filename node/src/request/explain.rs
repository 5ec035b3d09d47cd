//! Explain: what this node would do with a request now, and why, line by line.
//!
//! Always true:
//! - Nothing is asked of an origin, nothing is stored, removed or counted as a request. The disk may be read, and what was read
//!   stays in memory; the route's key rule is called, as for a request.
//! - The stages themselves decide: an explanation calls what a request calls (`accept`, `route`, `key`, `lookup`, `forward`,
//!   `respond`) and only says what came out. A test compares it with the next real request.
//! - What depends on the origin is left open.
//!
//! Not here: reading the call and refusing what is malformed (`admin`), printing (`cli`).

mod candidate;
mod decision;
mod facts;
pub mod model;
mod steps;
mod text;

use std::sync::Arc;

use brim_semantics::Why;
use brim_store::Found;
use bytes::Bytes;
use http::{HeaderMap, Method, Response, Uri};

use self::candidate::Court;
use self::decision::decide;
use self::model::{Candidate, CollapseFacts, Explanation, KeyFacts, PluginFacts, PurgeFacts};
use self::steps::Steps;
pub(crate) use self::text::others_value;
use self::text::seconds;
use super::accept::Inbound;
use super::collapse::FlightKey;
use super::error::RequestError;
use super::exchange::Exchange;
use super::fetch::{flight_key, goes_alone};
use super::key::{self, Bypass, Keyed};
use super::lookup::{self, Absent, Lookup};
use super::need::{Errand, Held, Need};
use super::partial::Ask;
use super::{Cache, Judged, Routed, forward};
use crate::body::ResponseBody;
use crate::route::Route;

/// A request to be explained, as an HTTP/1.1 client would send it.
#[derive(Debug, Clone)]
pub struct Supposed {
    /// The method.
    pub method: Method,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Path and query.
    pub target: Uri,
    /// The fields, `Host` among them.
    pub headers: HeaderMap,
    /// The content; of a QUERY it is in the key.
    pub content: Bytes,
}

/// What a request comes to.
enum Ending {
    Hit(Held),
    /// With what is asked behind it.
    StaleWhileValidating(Held, Ask),
    /// The reason is for Cache-Status, where the request is not collapsed and goes as it is.
    Fetch(Errand, Option<&'static str>),
    Bypass(Bypass),
    Refused(RequestError),
    AnsweredHere(Response<ResponseBody>),
}

/// What the stages leave behind for the explanation.
#[derive(Default)]
struct Told {
    route: Option<Arc<Route>>,
    plugin: Option<PluginFacts>,
    key: Option<KeyFacts>,
    was_purged: bool,
    candidates: Vec<Candidate>,
    collapse: Option<CollapseFacts>,
    steps: Steps,
}

/// Says what would become of a request, and why.
pub async fn explain(cache: &Cache, supposed: Supposed) -> Explanation {
    let Supposed { method, scheme, target, headers, content } = supposed;
    let mut inbound = Inbound::supposed(method, scheme, target, headers, content);
    let mut exchange = Exchange::begin(cache.clock.now());
    let mut told = Told::default();
    let ending = follow(cache, &mut inbound, &mut exchange, &mut told).await;
    let decision = decide(ending, &inbound, &mut exchange, &mut told);
    Explanation {
        request: facts::request(&inbound, told.route.as_deref()),
        route: told.route.as_deref().map(facts::route),
        plugin: told.plugin,
        key: told.key,
        purge: PurgeFacts { position: cache.store.position().0, was_purged: told.was_purged },
        candidates: told.candidates,
        collapse: told.collapse,
        decision,
    }
}

/// The stages, as `Cache::answer` and `Cache::fetch` go through them, up to where something would be sent or changed.
async fn follow(cache: &Cache, inbound: &mut Inbound, exchange: &mut Exchange, told: &mut Told) -> Ending {
    let routed = cache.route(inbound);
    let route = routed.as_ref().ok().and_then(|routed| match routed {
        Routed::To(route) => Some(route.clone()),
        Routed::Here(_) => None,
    });
    facts::tell_request(&facts::request(inbound, route.as_deref()), &mut told.steps);
    let route = match routed {
        Ok(Routed::To(route)) => route,
        Ok(Routed::Here(response)) => return Ending::AnsweredHere(response),
        Err(error) => {
            tell_no_route(cache, &error, inbound, &mut told.steps);
            return Ending::Refused(error);
        }
    };
    tell_route(&route, &mut told.steps);
    exchange.route = Some(route.clone());
    told.route = Some(route.clone());
    if inbound.is_upgrade {
        return Ending::Bypass(Bypass::Upgrade);
    }
    let keyed = key::derive(&cache.plugins, &route, inbound, exchange);
    if let Some(name) = route.config.cache_key_plugin.as_deref()
        && (exchange.plugin.is_some() || matches!(keyed, Keyed::Bypass(Bypass::PluginMissing)))
    {
        told.plugin = Some(facts::plugin(name, exchange.plugin.as_deref(), inbound, &mut told.steps));
    }
    let key = match keyed {
        Keyed::Cache(key) => key,
        Keyed::Bypass(why) => return Ending::Bypass(why),
    };
    exchange.key = Some(key.hash());
    let is_query_replaced = inbound.query_replaced.is_some();
    told.key = Some(facts::key(&key, exchange.plugin.as_deref(), is_query_replaced, &mut told.steps));

    let found = look_up(cache, &key, inbound, &route, exchange, told).await;
    let whole_max = cache.snapshot.load().config.store.range_whole_max;
    match cache.judge(found, &route, inbound, exchange) {
        Err(error) => Ending::Refused(error),
        Ok(Judged::Hit(held)) => Ending::Hit(held),
        Ok(Judged::HitToValidate(held)) => {
            let errand = Errand::new(Need::Validate(held.clone(), Why::Stale), inbound, whole_max);
            let flight = flight_key(&key, errand.flight_variant(inbound), inbound);
            told.collapse = Some(collapse(cache, &flight));
            Ending::StaleWhileValidating(held, errand.ask)
        }
        Ok(Judged::Forward(need)) => {
            let errand = Errand::new(need, inbound, whole_max);
            follow_fetch(cache, &key, &route, inbound, errand, told)
        }
    }
}

/// `Cache::fetch`, up to where it would wait or send.
fn follow_fetch(
    cache: &Cache,
    key: &brim_semantics::CacheKey,
    route: &Route,
    inbound: &Inbound,
    errand: Errand,
    told: &mut Told,
) -> Ending {
    let is_alone = goes_alone(route, inbound);
    let errand = if is_alone { errand.alone(inbound) } else { errand };
    let flight = flight_key(key, errand.flight_variant(inbound), inbound);
    let whole = flight_key(key, errand.variant(inbound), inbound);
    let under_way = if cache.flights.waiters_of(&whole).is_some() { &whole } else { &flight };
    let facts = collapse(cache, under_way);
    tell_collapse(&facts, &mut told.steps);
    let as_asked = match cache.flights.unshared(&flight) {
        _ if inbound.method == Method::HEAD => Some("head"),
        Some(reason) if !is_alone && !facts.fetch_under_way && forward::has_conditions(&inbound.headers) => {
            Some(reason)
        }
        _ => None,
    };
    told.collapse = Some(facts);
    Ending::Fetch(errand, as_asked)
}

/// The look-up as `lookup::find` makes it, with all that is stored at hand.
async fn look_up(
    cache: &Cache,
    key: &brim_semantics::CacheKey,
    inbound: &Inbound,
    route: &Route,
    exchange: &Exchange,
    told: &mut Told,
) -> Lookup {
    let (store, now) = (&cache.store, exchange.time);
    let (variants, from) = match store.find(key) {
        Found::Memory(variants) => (Some(variants), "in memory"),
        Found::OnDisk => (store.load(key).await, "on disk"),
        Found::Absent => (None, ""),
    };
    // After a load, which takes out what a purge has named.
    told.was_purged = store.was_purged(key);
    let (steps, position) = (&mut told.steps, store.position());
    let remembered = if told.was_purged { "a hard purge took away what was stored under this key" } else { "" };
    let separator = if told.was_purged { "; " } else { "" };
    steps.say("purge", format!("newest position {position}{separator}{remembered}"));
    let Some(variants) = variants else {
        steps.say("lookup", "nothing is stored under the key");
        return Lookup::Absent(if told.was_purged { Absent::Purged } else { Absent::Uri });
    };
    let found = lookup::select(store, &variants, inbound, route, now);
    let selected = match &found {
        Lookup::Fresh(held)
        | Lookup::StaleAllowed(held)
        | Lookup::StaleWhileValidating(held)
        | Lookup::MustValidate(held, _) => held.all(),
        Lookup::Incomplete(_) | Lookup::OtherVariants(..) | Lookup::Absent(_) => Vec::new(),
    };
    steps.say("lookup", format!("{} stored under the key, found {from}", variants.len()));
    told.candidates = Court { store, inbound, route, now, selected }.candidates(&variants, steps);
    found
}

fn collapse(cache: &Cache, flight: &FlightKey) -> CollapseFacts {
    let waiters = cache.flights.waiters_of(flight);
    let unshared = cache.flights.unshared_for(flight);
    CollapseFacts {
        fetch_under_way: waiters.is_some(),
        waiters_count: waiters.unwrap_or(0) as u64,
        unshared_reason: unshared.map(|(reason, _)| reason.to_owned()),
        unshared_for_s: unshared.map(|(_, left)| seconds(left)),
    }
}

fn tell_collapse(facts: &CollapseFacts, steps: &mut Steps) {
    if let (Some(reason), Some(left)) = (&facts.unshared_reason, facts.unshared_for_s) {
        let text = format!("a response of this key could not be shared ({reason}); remembered for {left} s more");
        steps.say("collapse", text);
    }
    steps.say(
        "collapse",
        match (facts.fetch_under_way, facts.waiters_count) {
            (false, _) => "nobody fetches it now".to_owned(),
            (true, waiters) => format!("a fetch of it is under way, {waiters} wait for it: this request would too"),
        },
    );
}

fn tell_route(route: &Route, steps: &mut Steps) {
    let config = &route.config;
    steps.say("route", format!("site {}, route {}, origin {}", route.site, config.path, config.origin));
    if config.policy.ignore_request_directives {
        steps.say("route", "ignore_request_directives: what clients ask of caches is disregarded");
    }
}

fn tell_no_route(cache: &Cache, error: &RequestError, inbound: &Inbound, steps: &mut Steps) {
    let snapshot = cache.snapshot.load();
    match error {
        RequestError::NoSite => steps.say("route", format!("no site has the host of {}", inbound.authority)),
        RequestError::NoRoute => {
            let site = snapshot.routes.site(&inbound.authority).map_or("", |site| &site.name);
            steps.say("route", format!("site {site}, but none of its routes is a prefix of {}", inbound.path()));
        }
        _ => steps.say("accept", error.to_string()),
    }
}
