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
mod facts;
pub mod model;
mod steps;
mod text;

use std::sync::Arc;

use brim_semantics::{PurgeState, Why};
use brim_store::{Found, StoredResponse};
use http::header::{CONTENT_RANGE, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderMap, Method, Response, Uri};

use self::candidate::Court;
use self::model::{
    Action, Candidate, CollapseFacts, ConditionFact, Decision, Explanation, KeyFacts, OriginRequest, PluginFacts,
    PurgeFacts,
};
use self::steps::Steps;
use self::text::{seconds, span, value};
use super::accept::Inbound;
use super::collapse::FlightKey;
use super::error::RequestError;
use super::exchange::Exchange;
use super::forward::{self, Purpose};
use super::key::{self, Bypass, Keyed};
use super::lookup::{self, Absent, Lookup};
use super::{Cache, Need, Routed, flight_key, respond};
use crate::body::ResponseBody;
use crate::origin::ForwardBody;
use crate::route::Route;
use crate::telemetry::Outcome;

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
}

/// What a request comes to.
enum Ending {
    Hit(Arc<StoredResponse>),
    StaleWhileValidating(Arc<StoredResponse>),
    /// The reason is for Cache-Status, where the request is not collapsed and goes as it is.
    Fetch(Need, Option<&'static str>),
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
    let Supposed { method, scheme, target, headers } = supposed;
    let mut inbound = Inbound::supposed(method, scheme, target, headers);
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
    let need = match found {
        Lookup::Fresh(stored) => {
            cache.hit(stored.clone(), exchange.time, exchange);
            return Ending::Hit(stored);
        }
        Lookup::StaleAllowed(stored) => {
            exchange.explain("max-stale");
            cache.hit(stored.clone(), exchange.time, exchange);
            return Ending::Hit(stored);
        }
        Lookup::StaleWhileValidating(stored) => {
            let is_purged = cache.store.purge_state(&stored) == PurgeState::Soft;
            exchange.explain(if is_purged { Why::SoftPurged.as_detail() } else { "stale-while-revalidate" });
            cache.hit(stored.clone(), exchange.time, exchange);
            if is_purged {
                exchange.ttl_s = exchange.ttl_s.map(|ttl_s| ttl_s.min(0));
            }
            let flight = flight_key(&key, lookup::variant_of(&stored, inbound), inbound);
            told.collapse = Some(collapse(cache, &flight));
            return Ending::StaleWhileValidating(stored);
        }
        Lookup::MustValidate(stored, why) => Need::Validate(stored, why),
        Lookup::Absent(absent) => Need::Fetch(absent),
    };
    need.note(exchange);
    let heeds_client = !route.config.policy.ignore_request_directives;
    if inbound.directives.only_if_cached && heeds_client {
        exchange.outcome = Outcome::Refused;
        exchange.detail = None;
        return Ending::Refused(RequestError::OnlyIfCached);
    }
    let facts = collapse(cache, &flight_key(&key, need.variant(inbound), inbound));
    tell_collapse(&facts, &mut told.steps);
    let is_alone = inbound.directives.no_store && heeds_client;
    let as_asked = match cache.flights.unshared(&flight_key(&key, need.variant(inbound), inbound)) {
        _ if inbound.method == Method::HEAD => Some("head"),
        Some(reason) if !is_alone => Some(reason),
        _ => None,
    };
    told.collapse = Some(facts);
    Ending::Fetch(need, as_asked)
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
        Lookup::Fresh(stored)
        | Lookup::StaleAllowed(stored)
        | Lookup::StaleWhileValidating(stored)
        | Lookup::MustValidate(stored, _) => Some(stored),
        Lookup::Absent(_) => None,
    };
    steps.say("lookup", format!("{} stored under the key, found {from}", variants.len()));
    told.candidates = Court { store, inbound, route, now, selected }.candidates(&variants, steps);
    found
}

fn collapse(cache: &Cache, flight: &FlightKey) -> CollapseFacts {
    let waiters = cache.flights.waiters_count(flight);
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

/// What comes of it. What cannot be written as a forward request is refused, as it would be.
fn decide(ending: Ending, inbound: &Inbound, exchange: &mut Exchange, told: &mut Told) -> Decision {
    let purpose = match &ending {
        Ending::Fetch(_, Some(_)) => Some(Purpose::Pass),
        Ending::Fetch(Need::Fetch(_), None) => Some(Purpose::Fill),
        Ending::Fetch(Need::Validate(stored, _), None) | Ending::StaleWhileValidating(stored) => {
            Some(Purpose::Validate(stored))
        }
        Ending::Bypass(Bypass::Upgrade) => Some(Purpose::Upgrade),
        Ending::Bypass(_) => Some(Purpose::Pass),
        Ending::Hit(_) | Ending::Refused(_) | Ending::AnsweredHere(_) => None,
    };
    let asked =
        purpose.map(|purpose| forward::request(inbound, purpose, exchange.keyed_fields(), ForwardBody::empty()));
    let (origin_request, unsendable) = match asked.transpose() {
        Ok(request) => (request.as_ref().map(origin_request), None),
        Err(error) => (None, Some(error)),
    };
    let mut decision = Decision {
        action: Action::Refused,
        cache_status: String::new(),
        fwd: None,
        detail: None,
        status: None,
        content_range: None,
        origin_request,
        steps: Vec::new(),
    };
    let mut text = match ending {
        Ending::Hit(stored) => {
            decision.action = Action::Hit;
            let text = hit_text(exchange, told);
            answer_from(&mut decision, inbound, stored, exchange);
            text
        }
        Ending::StaleWhileValidating(stored) => {
            decision.action = Action::StaleWhileRevalidate;
            let text = behind_text(&stored, exchange, told);
            answer_from(&mut decision, inbound, stored, exchange);
            text
        }
        Ending::Fetch(need, as_asked) => {
            decision.action = match need {
                Need::Fetch(_) => Action::Forward,
                Need::Validate(..) => Action::Validate,
            };
            if let Some(reason) = as_asked {
                exchange.explain(reason);
            }
            fetch_text(&need, as_asked, inbound, told)
        }
        Ending::Bypass(why) => {
            decision.action = Action::Bypass;
            let reason = if why == Bypass::Method {
                brim_semantics::ForwardReason::Method
            } else {
                exchange.explain(why.as_detail());
                brim_semantics::ForwardReason::Bypass
            };
            exchange.forwarded(reason);
            bypass_text(&why, inbound)
        }
        Ending::Refused(error) => {
            decision.status = Some(error.status().as_u16());
            exchange.explain(error.as_detail());
            format!("refused with {}: {error}", error.status())
        }
        Ending::AnsweredHere(response) => {
            decision.action = Action::AnsweredHere;
            decision.status = Some(response.status().as_u16());
            format!("answered by the node with {} (RFC 9110 §7.6.2, §9.3.7)", response.status())
        }
    };
    if let Some(error) = unsendable.filter(|_| exchange.outcome != Outcome::Hit) {
        decision.action = Action::Refused;
        decision.status = Some(error.status().as_u16());
        exchange.explain(error.as_detail());
        text = format!("refused with {}: {error}", error.status());
    }
    let steps = &mut told.steps;
    steps.say("decision", text);
    if let Some(status) = decision.status.filter(|_| exchange.outcome == Outcome::Hit) {
        steps.say("decision", format!("the client gets {status}{}", conditions_text(status)));
    }
    if let Some(request) = &decision.origin_request {
        steps.say("decision", format!("the origin is asked {} {}", request.method, request.url));
        for field in &request.conditions {
            steps.say("decision", format!("with {}: {}", field.name, field.value));
        }
    }
    if let Outcome::Forward(reason) = exchange.outcome {
        decision.fwd = Some(reason.as_str().to_owned());
    }
    decision.detail = exchange.detail.as_deref().map(str::to_owned);
    decision.cache_status = value(respond::cache_status(exchange).value().as_bytes());
    steps.say("decision", format!("Cache-Status: {}", decision.cache_status));
    decision.steps = std::mem::take(steps).into_lines();
    decision
}

/// Status and range of the answer that a stored response gives: conditions and ranges of the client are answered from it.
fn answer_from(decision: &mut Decision, inbound: &Inbound, stored: Arc<StoredResponse>, exchange: &Exchange) {
    let response = respond::from_stored(inbound, stored, exchange.time);
    decision.status = Some(response.status().as_u16());
    decision.content_range = response.headers().get(CONTENT_RANGE).map(|range| value(range.as_bytes()));
}

fn conditions_text(status: u16) -> &'static str {
    match status {
        304 => ": its own condition says that it has the content (RFC 9110 §13.1)",
        206 => ": the range it asks for (RFC 9110 §14)",
        412 => ": its precondition does not hold (RFC 9110 §13.1)",
        416 => ": its range lies beyond the content (RFC 9110 §15.5.17)",
        _ => "",
    }
}

fn origin_request(request: &http::Request<ForwardBody>) -> OriginRequest {
    let conditions = [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE, RANGE].into_iter().flat_map(|name| {
        let lines = request.headers().get_all(&name).iter();
        lines.map(|line| ConditionFact { name: name.to_string(), value: value(line.as_bytes()) }).collect::<Vec<_>>()
    });
    OriginRequest {
        method: request.method().to_string(),
        url: request.uri().to_string(),
        conditions: conditions.collect(),
    }
}

fn hit_text(exchange: &Exchange, told: &Told) -> String {
    match exchange.detail.as_deref() {
        None => "hit: fresh, answered without the origin (RFC 9111 §4.2)".to_owned(),
        Some(_) => {
            format!("hit: stale for {}, which the request's max-stale takes (RFC 9111 §5.2.1.2)", stale_for(told))
        }
    }
}

fn behind_text(stored: &StoredResponse, exchange: &Exchange, told: &Told) -> String {
    let under_way = told.collapse.as_ref().is_some_and(|collapse| collapse.fetch_under_way);
    let validation = if under_way { "a validation is under way already" } else { "validated behind the response" };
    if exchange.detail.as_deref() == Some(Why::SoftPurged.as_detail()) {
        let position = stored.head.fetched_at;
        return format!("hit: a soft purge after position {position} made it stale; served, {validation}");
    }
    format!("hit: stale for {}, within its stale-while-revalidate; {validation} (RFC 5861 §3)", stale_for(told))
}

fn stale_for(told: &Told) -> String {
    let remaining = told.candidates.iter().find(|one| one.selected).map_or(0.0, |one| one.freshness.remaining_s);
    span(std::time::Duration::from_secs_f64(remaining.min(0.0).abs()))
}

fn fetch_text(need: &Need, as_asked: Option<&str>, inbound: &Inbound, told: &Told) -> String {
    let mut text = match need {
        Need::Fetch(Absent::Uri) => "forward: nothing usable is stored under the key".to_owned(),
        Need::Fetch(Absent::Purged) => "forward: what was stored has been purged".to_owned(),
        Need::Fetch(Absent::Vary(_)) => {
            "forward: what is stored is for other values of its nominated fields".to_owned()
        }
        Need::Validate(stored, why) => validate_text(stored, *why, inbound, told),
    };
    let heeds_client = !told.route.as_ref().is_some_and(|route| route.config.policy.ignore_request_directives);
    if let Need::Validate(..) = need
        && told.candidates.iter().any(|one| one.selected && one.usable_on_error)
    {
        text.push_str("; if the origin fails, the stored response stands in (RFC 9111 §4.2.4)");
    }
    match as_asked {
        Some("head") => text.push_str("; a HEAD goes as it is and stores nothing"),
        Some(reason) => {
            text.push_str(&format!("; as asked, with its own conditions, because the last one was {reason}"))
        }
        None if inbound.directives.no_store && heeds_client => {
            text.push_str("; alone, and nothing is stored: the request says no-store (RFC 9111 §5.2.1.5)");
        }
        None => {}
    }
    text
}

fn validate_text(stored: &StoredResponse, why: Why, inbound: &Inbound, told: &Told) -> String {
    let asked = |limit: Option<std::time::Duration>| limit.map_or_else(String::new, span);
    let reason = match why {
        Why::Stale => format!("stale for {}, and nothing permits to use it so (RFC 9111 §4.2.4)", stale_for(told)),
        Why::NoCache => "the stored response says no-cache (RFC 9111 §5.2.2.4)".to_owned(),
        Why::RequestNoCache => "the request says no-cache (RFC 9111 §5.2.1.4, §5.4)".to_owned(),
        Why::RequestMaxAge => {
            format!("older than the request's max-age of {} (RFC 9111 §5.2.1.1)", asked(inbound.directives.max_age))
        }
        Why::RequestMinFresh => {
            format!(
                "not fresh for the request's min-fresh of {} (RFC 9111 §5.2.1.3)",
                asked(inbound.directives.min_fresh)
            )
        }
        Why::SoftPurged => {
            format!("a soft purge after position {} made it stale, and it forbids stale use", stored.head.fetched_at)
        }
    };
    format!("validate: {reason}")
}

fn bypass_text(why: &Bypass, inbound: &Inbound) -> String {
    let reason = match why {
        Bypass::Method => format!("{} is always forwarded (RFC 9111 §4)", inbound.method),
        Bypass::RouteOff => "cache = \"off\" for the route".to_owned(),
        Bypass::Content => "the request has content, which the key would not hold".to_owned(),
        Bypass::Precondition => {
            "only the origin can judge If-Match and If-Unmodified-Since (RFC 9111 §4.3.2)".to_owned()
        }
        Bypass::Upgrade => "the request changes protocol (RFC 9110 §7.8)".to_owned(),
        Bypass::PluginMissing => "the route's key rule is not there, and without it there is no safe key".to_owned(),
        Bypass::PluginFault(fault) => format!("the key rule failed ({fault}), and without it there is no safe key"),
        Bypass::PluginBypass(reason) => format!("the key rule asks for it: {reason}"),
        Bypass::KeyTooLong => {
            format!("the key would be longer than {} bytes", brim_semantics::CACHE_KEY_BYTES_MAX)
        }
    };
    format!("bypass: {reason}")
}
