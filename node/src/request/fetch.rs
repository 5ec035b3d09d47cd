//! Fetch: what a miss does, from waiting for another request's fetch to a fetch of its own, and what stands in where it fails.
//!
//! Always true:
//! - What is not for one client alone goes through `collapse`.
//! - A stale response stands in for an origin's failure only where the rules permit it (RFC 9111 §4.2.4, RFC 5861 §4).
//!
//! Not here: the fetch itself (`fill`), what another one's fetch is good for (`board`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use brim_semantics::CacheKey;
use brim_store::StoredResponse;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION};
use http::{HeaderValue, Method};

use super::accept::Inbound;
use super::board::Boarded;
use super::collapse::{FillPermit, FlightKey, Join, Landing};
use super::entry::Entry;
use super::error::RequestError;
use super::exchange::Exchange;
use super::fill::{Fetch, FetchReport, Filled};
use super::forward::{self, Purpose};
use super::lookup::{self, Lookup};
use super::need::{Errand, Held, Need};
use super::partial::Ask;
use super::respond::Answer;
use super::{Cache, head, interim, tags};
use crate::origin::{Affinity, ForwardBody, ForwardError};
use crate::route::Route;

/// Fillers that may vanish before a waiting request goes alone.
const ELECTIONS_MAX: usize = 4;
/// How long a request waits for another one's fetch. Longer than an origin may take for its head (`response_timeout`
/// is at most 10 min), so that the fetch's own deadline speaks first.
const COLLAPSE_WAIT_MAX: Duration = Duration::from_secs(660);

/// Whether others wait for a fetch.
pub(super) enum Permit {
    /// They do, or may.
    Fill(FillPermit),
    /// This request goes alone.
    Alone(FlightKey),
}

impl Cache {
    /// Asks the origin once for all who want the same, and stores what may be stored.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        route: &Arc<Route>,
        key: CacheKey,
        inbound: &Inbound,
        need: Need,
        exchange: &mut Exchange,
    ) -> Result<Answer, RequestError> {
        if inbound.method == Method::HEAD {
            return self.forward_as_asked(route, &key, inbound, &need, "head", exchange).await;
        }
        let began = Instant::now();
        let mut errand = Errand::new(need, inbound, self.snapshot.load().config.store.range_whole_max);
        let mut flight = flight_key(&key, errand.flight_variant(inbound), inbound);
        if goes_alone(route, inbound) {
            // What it fetches cannot be shared, so nobody may wait for it, and what is stored cannot be completed with it.
            errand = errand.alone(inbound);
            flight = flight_key(&key, errand.flight_variant(inbound), inbound);
            return self.fill(route, key, inbound, errand, Permit::Alone(flight), exchange).await;
        }
        // The whole is on its way already: whatever is asked for of it comes with it.
        let whole = flight_key(&key, errand.variant(inbound), inbound);
        let under_way = if errand.ask == Ask::Whole { None } else { self.flights.join_existing(whole) };
        errand.may_go_apart |= under_way.is_some();
        let mut join = under_way.map_or_else(|| self.flights.join(flight), Join::Wait);
        for _ in 0..ELECTIONS_MAX {
            let mut waiter = match join {
                Join::Alone => break,
                // It may be another client's answer that could not be shared: this one's is stored if it may be.
                Join::Unshared(_) if !forward::has_conditions(&inbound.headers) => break,
                Join::Unshared(reason) => {
                    return self.forward_as_asked(route, &key, inbound, &errand.need, reason, exchange).await;
                }
                Join::Fill(permit) => {
                    return self.fill(route, key, inbound, errand, Permit::Fill(permit), exchange).await;
                }
                Join::Wait(waiter) => waiter,
            };
            let is_late = waiter.has_landed();
            let landing = waiter.landing(COLLAPSE_WAIT_MAX).await;
            exchange.times.collapse = began.elapsed();
            match self.board(landing, is_late, &errand, route, inbound, exchange) {
                Boarded::Answer(answer) => return Ok(*answer),
                Boarded::Alone => {
                    if errand.completes().is_some() {
                        errand.ask = Ask::unknown(inbound);
                        flight = flight_key(&key, errand.flight_variant(inbound), inbound);
                    }
                    break;
                }
                Boarded::FarAhead => {
                    // An origin that knows no ranges gives that one the whole again: nobody goes apart twice.
                    (errand.ask, errand.may_go_apart) = (Ask::AsAsked, false);
                    flight = flight_key(&key, errand.flight_variant(inbound), inbound);
                    join = self.flights.join(flight);
                }
                Boarded::ServerError => match self.stale_instead(route, inbound, &errand.need, exchange) {
                    Some(stale) => {
                        exchange.is_collapsed = true;
                        return Ok(stale);
                    }
                    None => break,
                },
                Boarded::Failed(error) => return self.failed(error, route, inbound, &errand.need, exchange),
                Boarded::Next => join = self.flights.join(flight),
                Boarded::TooLate => join = self.flights.supersede(flight, &waiter),
                Boarded::OtherVariant(variant) => {
                    flight.variant = variant ^ errand.ask.distinction(inbound);
                    join = self.flights.join(flight);
                }
            }
        }
        self.fill(route, key, inbound, errand, Permit::Alone(flight), exchange).await
    }

    /// Fetches, as the filler of `permit` or alone.
    async fn fill(
        self: &Arc<Self>,
        route: &Arc<Route>,
        key: CacheKey,
        inbound: &Inbound,
        errand: Errand,
        permit: Permit,
        exchange: &mut Exchange,
    ) -> Result<Answer, RequestError> {
        if let Some(held) = self.stored_meanwhile(route, &key, inbound, &errand.need) {
            exchange.is_collapsed = true;
            exchange.ttl_s = Some(held.newest().head.meta.ttl_seconds(self.clock.now()));
            if let Permit::Fill(permit) = permit {
                permit.resolve(Landing::Stored(held.newest().clone()));
            }
            return Ok(held.into_answer());
        }
        let began = Instant::now();
        let mut fetch = self.prepare_fetch(route, key, inbound, &errand, permit, exchange)?;
        interim::relay(&self.telemetry, route, inbound, &mut fetch.request);
        let report = fetch.start().await;
        let FetchReport { filled, status, endpoint, is_gap, detail } =
            report.map_err(|_task_died| RequestError::Internal)?;
        exchange.times.forward = began.elapsed();
        exchange.forward_status = status;
        exchange.endpoint = endpoint;
        if let Some(detail) = detail {
            exchange.detail = Some(detail.into());
        }
        self.filled(filled, is_gap, route, inbound, errand, exchange)
    }

    fn filled(
        &self,
        filled: Filled,
        is_gap: bool,
        route: &Route,
        inbound: &Inbound,
        errand: Errand,
        exchange: &mut Exchange,
    ) -> Result<Answer, RequestError> {
        let now = self.clock.now();
        match filled {
            Filled::Validated(stored, withheld) => {
                exchange.is_stored = true;
                exchange.ttl_s = Some(stored.head.meta.ttl_seconds(now));
                let held = match errand.need {
                    Need::Validate(held, _) => held.confirmed(stored),
                    _ => Held::Whole(stored),
                };
                Ok(held.into_answer().with(withheld))
            }
            Filled::Following(growing, withheld) => {
                exchange.is_stored = true;
                exchange.ttl_s = Some(growing.following.head().meta.ttl_seconds(now));
                match errand.need {
                    Need::Complete(parts) if is_gap && growing.following.head().part.is_some() => {
                        Ok(Answer::Assembled(Box::new(parts), Some(Box::new(growing))).with(withheld))
                    }
                    _ => Ok(Answer::Following(Box::new(growing)).with(withheld)),
                }
            }
            Filled::Confirmed(stored, declined, withheld) => {
                exchange.detail = Some(declined.as_detail().into());
                let held = match errand.need {
                    Need::Validate(held, _) => held,
                    _ => Held::Whole(stored),
                };
                Ok(held.into_answer().with(withheld))
            }
            Filled::Passed(response, declined) => {
                exchange.detail = Some(declined.as_detail().into());
                Ok(Answer::Unconditional(response))
            }
            Filled::ErrorStatus(response) => match self.stale_instead(route, inbound, &errand.need, exchange) {
                Some(stale) => Ok(stale),
                None => Ok(Answer::Unconditional(response)),
            },
            Filled::Failed(error) => self.failed(error, route, inbound, &errand.need, exchange),
        }
    }

    /// Another request may have filled the store between this one's look-up and its permit.
    fn stored_meanwhile(&self, route: &Route, key: &CacheKey, inbound: &Inbound, need: &Need) -> Option<Held> {
        match lookup::find_in_memory(&self.store, key, inbound, route, self.clock.now()) {
            Some(Lookup::Fresh(held)) if !need.is_about(held.newest()) => Some(held),
            _ => None,
        }
    }

    pub(super) fn prepare_fetch(
        self: &Arc<Self>,
        route: &Arc<Route>,
        key: CacheKey,
        inbound: &Inbound,
        errand: &Errand,
        permit: Permit,
        exchange: &Exchange,
    ) -> Result<Fetch, RequestError> {
        let (flight, permit) = match permit {
            Permit::Fill(permit) => (permit.key(), Some(permit)),
            Permit::Alone(flight) => (flight, None),
        };
        let content = inbound.query_content.clone().map_or_else(ForwardBody::empty, ForwardBody::full);
        let mut request = forward::request(inbound, errand.purpose(), exchange.keyed_fields(), content)?;
        request.extensions_mut().insert(affinity(&key));
        if tags::reads_content(self, route) {
            // What is encoded cannot be read, and would get the keys that cover everything.
            request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        let plugin = exchange.plugin.as_ref().map(|active| active.plugin.digest());
        let target = forward::target(inbound)?;
        Ok(Fetch {
            entry: Entry::new(self, route, key, request.method().clone(), inbound, target, plugin),
            flight,
            permit,
            request,
            ask: errand.ask.clone(),
            needed_of_gap: errand.needed_of_gap(),
            offers: errand.need.offers(),
            is_validation: errand.need.held().is_some(),
            is_background: errand.fetches_ahead(),
        })
    }

    /// A HEAD that nothing stored can answer, or a request for what could not be shared a moment ago: forwarded with its own
    /// conditions and ranges, nothing is stored.
    async fn forward_as_asked(
        &self,
        route: &Arc<Route>,
        key: &CacheKey,
        inbound: &Inbound,
        need: &Need,
        reason: &'static str,
        exchange: &mut Exchange,
    ) -> Result<Answer, RequestError> {
        let content = inbound.query_content.clone().map_or_else(ForwardBody::empty, ForwardBody::full);
        let mut request = forward::request(inbound, Purpose::Pass, exchange.keyed_fields(), content)?;
        request.extensions_mut().insert(affinity(key));
        if inbound.method == Method::HEAD && tags::reads_content(self, route) {
            // Of the representation that a GET would get.
            request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        interim::relay(&self.telemetry, route, inbound, &mut request);
        let (began, sent) = (Instant::now(), head::Sent::now(self));
        match route.origin.send(request).await {
            Ok(forwarded) => {
                if let (Some(Held::Whole(stored)), &Method::HEAD) = (need.held(), &inbound.method) {
                    head::update(self, route, inbound, stored, &forwarded.response, sent);
                }
                exchange.times.forward = began.elapsed();
                exchange.forward_status = Some(forwarded.response.status());
                exchange.endpoint = Some(forwarded.endpoint);
                if brim_semantics::is_server_error(forwarded.response.status())
                    && let Some(stale) = self.stale_instead(route, inbound, need, exchange)
                {
                    return Ok(stale);
                }
                exchange.explain(reason);
                Ok(Answer::Passed(forwarded.response))
            }
            Err(error) => self.failed(Arc::new(error), route, inbound, need, exchange),
        }
    }

    /// One validation behind a response that has been sent (RFC 5861 §3); nothing if one is under way.
    pub(super) fn validate_behind(
        self: &Arc<Self>,
        route: &Arc<Route>,
        key: &CacheKey,
        inbound: &Inbound,
        held: &Held,
        exchange: &Exchange,
    ) {
        let whole_max = self.snapshot.load().config.store.range_whole_max;
        let errand = Errand::new(Need::Validate(held.clone(), brim_semantics::Why::Stale), inbound, whole_max);
        let Some(permit) = self.flights.try_fill(self.flight_of(key, &errand, inbound)) else { return };
        match self.prepare_fetch(route, key.clone(), inbound, &errand, Permit::Fill(permit), exchange) {
            Ok(fetch) => drop(fetch.in_background().start()),
            Err(error) => tracing::warn!(%error, "validation behind a response not started"),
        }
    }

    /// What requests for the same collapse on.
    pub(super) fn flight_of(&self, key: &CacheKey, errand: &Errand, inbound: &Inbound) -> FlightKey {
        flight_key(key, errand.flight_variant(inbound), inbound)
    }

    fn failed(
        &self,
        error: Arc<ForwardError>,
        route: &Route,
        inbound: &Inbound,
        need: &Need,
        exchange: &mut Exchange,
    ) -> Result<Answer, RequestError> {
        match self.stale_instead(route, inbound, need, exchange) {
            Some(stale) => {
                exchange.detail = Some(format!("stale-if-error: {}", error.as_detail()).into());
                Ok(stale)
            }
            None => Err(error.into()),
        }
    }

    /// The stale response that may stand in for an origin that gave none (RFC 9111 §4.2.4, RFC 5861 §4).
    fn stale_instead(&self, route: &Route, inbound: &Inbound, need: &Need, exchange: &mut Exchange) -> Option<Answer> {
        let held = need.held()?;
        let stored: &Arc<StoredResponse> = held.newest();
        let now = self.clock.now();
        let purge = self.store.purge_state(stored);
        if !brim_semantics::may_serve_on_error(&stored.head.meta, &inbound.directives, purge, now, &route.config.policy)
        {
            return None;
        }
        exchange.detail = Some("stale-if-error".into());
        exchange.ttl_s = Some(stored.head.meta.ttl_seconds(now));
        Some(held.clone().into_answer())
    }
}

/// Whether what a request fetches is for its client alone, by its own word (RFC 9111 §5.2.1.5).
pub(super) fn goes_alone(route: &Route, inbound: &Inbound) -> bool {
    inbound.directives.no_store && !route.config.policy.ignore_request_directives
}

/// What a request for `variant` of `key` collapses on.
/// An origin whose endpoints cache by themselves is asked for one key at one endpoint.
fn affinity(key: &CacheKey) -> Affinity {
    let mut first = [0; 8];
    first.copy_from_slice(&key.hash().0[..8]);
    Affinity(u64::from_le_bytes(first))
}

pub(super) fn flight_key(key: &CacheKey, variant: u64, inbound: &Inbound) -> FlightKey {
    FlightKey { key: key.hash(), variant, is_authorized: inbound.headers.contains_key(AUTHORIZATION) }
}
