//! The request path: every stage of a request, in order, and every branch between them.
//!
//! **accept → route → key → lookup → (collapse → forward → fill) → respond**
//!
//! Always true:
//! - [`Cache::handle`] answers every request; an error of a stage becomes a response in `respond` and nowhere else.
//! - A hit from memory passes accept, route, key, lookup and respond without waiting for anything.
//! - What goes to the origin and is not for one client alone goes through `collapse`.
//!
//! Not here: connections (`listen`), the rules (`brim_semantics`), where bytes are kept (`brim_store`).

pub mod accept;
pub mod collapse;
mod content;
pub mod error;
pub mod exchange;
pub mod explain;
pub mod fill;
pub mod forward;
mod head;
mod invalidate;
pub mod key;
pub mod lookup;
mod record;
pub mod respond;
mod upgrade;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use brim_semantics::{CacheKey, ForwardReason, PurgeState, Reuse, StoredMeta, Why};
use brim_store::{Store, StoredResponse};
use http::header::AUTHORIZATION;
use http::{Method, Request, Response};
use hyper::body::Incoming;

use self::accept::Inbound;
use self::collapse::{FillPermit, FlightKey, Flights, Join, Landing};
use self::error::RequestError;
use self::exchange::Exchange;
use self::fill::{Fetch, FetchReport, Filled};
use self::forward::Purpose;
use self::key::{Bypass, Keyed};
use self::lookup::{Absent, Lookup};
use self::respond::Answer;
use crate::body::ResponseBody;
use crate::clock::Clock;
use crate::config::Config;
use crate::listen::{ConnectionInfo, Handler};
use crate::origin::{ForwardBody, Origins};
use crate::plugins::PluginRegistry;
use crate::route::{Route, Routes};
use crate::tasks::Tasks;
use crate::telemetry::{Outcome, Telemetry};

/// Fillers that may vanish before a waiting request goes alone.
const ELECTIONS_MAX: usize = 4;
/// How long a request waits for another one's fetch. Longer than an origin may take for its head (`response_timeout`
/// is at most 10 min), so that the fetch's own deadline speaks first.
const COLLAPSE_WAIT_MAX: Duration = Duration::from_secs(660);

/// What a configuration amounts to on the request path. Replaced whole on reload.
#[derive(Debug)]
pub struct Snapshot {
    /// The checked file.
    pub config: Config,
    /// Its sites and routes.
    pub routes: Routes,
    /// Its origins.
    pub origins: Origins,
}

/// The cache: everything that a request meets.
pub struct Cache {
    /// The configuration in force.
    pub snapshot: ArcSwap<Snapshot>,
    /// Stored responses.
    pub store: Store,
    /// Uploaded plugins.
    pub plugins: Arc<PluginRegistry>,
    /// Fetches under way.
    pub flights: Flights,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Metrics and access log.
    pub telemetry: Arc<Telemetry>,
    /// Fills, and what else outlives its request.
    pub tasks: Tasks,
}

/// Why the origin is asked.
#[derive(Debug, Clone)]
enum Need {
    /// Nothing usable is stored.
    Fetch(Absent),
    /// What is stored has to be confirmed.
    Validate(Arc<StoredResponse>, Why),
}

impl Handler for Arc<Cache> {
    async fn handle(&self, request: Request<Incoming>, connection: Arc<ConnectionInfo>) -> Response<ResponseBody> {
        Cache::handle(self, request, &connection).await
    }
}

impl Cache {
    /// One request, from its head to the head of its response.
    pub async fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        connection: &ConnectionInfo,
    ) -> Response<ResponseBody> {
        let mut exchange = Exchange::begin(self.clock.now());
        let (mut inbound, content) = Inbound::new(request, connection);
        match self.answer(&mut inbound, content, &mut exchange).await {
            Ok(answer) => respond::to_client(self, inbound, answer, exchange),
            Err(error) => respond::refuse(self, inbound, &error, exchange),
        }
    }

    async fn answer(
        self: &Arc<Self>,
        inbound: &mut Inbound,
        content: Incoming,
        exchange: &mut Exchange,
    ) -> Result<Answer, RequestError> {
        let route = match self.route(inbound)? {
            Routed::To(route) => route,
            Routed::Here(answer) => return Ok(Answer::Own(answer)),
        };
        exchange.times.route = exchange.started.elapsed();
        exchange.route = Some(route.clone());

        if inbound.is_upgrade {
            return upgrade::forward(self, &route, inbound, exchange).await;
        }
        let keyed = key::derive(&self.plugins, &route, inbound, exchange);
        exchange.times.key = exchange.started.elapsed().saturating_sub(exchange.times.route);
        let key = match keyed {
            Keyed::Cache(key) => key,
            Keyed::Bypass(why) => return self.pass(&route, inbound, content, why, exchange).await,
        };
        exchange.key = Some(key.hash());

        let now = exchange.time;
        let found = lookup::find(&self.store, &key, inbound, &route, now).await;
        exchange.times.lookup = exchange.started.elapsed().saturating_sub(exchange.times.route + exchange.times.key);
        let need = match found {
            Lookup::Fresh(stored) => return Ok(self.hit(stored, now, exchange)),
            Lookup::StaleAllowed(stored) => {
                exchange.explain("max-stale");
                return Ok(self.hit(stored, now, exchange));
            }
            Lookup::StaleWhileValidating(stored) => {
                self.validate_behind(&route, &key, inbound, &stored, exchange);
                let is_purged = self.store.purge_state(&stored) == PurgeState::Soft;
                exchange.explain(if is_purged { Why::SoftPurged.as_detail() } else { "stale-while-revalidate" });
                let answer = self.hit(stored, now, exchange);
                if is_purged {
                    // By its age it would be fresh still; a purge has said otherwise.
                    exchange.ttl_s = exchange.ttl_s.map(|ttl_s| ttl_s.min(0));
                }
                return Ok(answer);
            }
            Lookup::MustValidate(stored, why) => Need::Validate(stored, why),
            Lookup::Absent(absent) => Need::Fetch(absent),
        };
        need.note(exchange);
        if inbound.directives.only_if_cached && !route.config.policy.ignore_request_directives {
            // Nothing goes forward, so nothing is said of a forward (RFC 9211 §2.2).
            exchange.outcome = Outcome::Refused;
            exchange.detail = None;
            return Err(RequestError::OnlyIfCached);
        }
        self.fetch(&route, key, inbound, need, exchange).await
    }

    /// Accept and route.
    fn route(&self, inbound: &mut Inbound) -> Result<Routed, RequestError> {
        let snapshot = self.snapshot.load();
        accept::check(inbound, snapshot.config.listen.upgrade)?;
        if let Some(answer) = respond::answered_here(inbound) {
            return Ok(Routed::Here(answer));
        }
        let site = snapshot.routes.site(&inbound.authority).ok_or(RequestError::NoSite)?;
        site.route(inbound.path()).cloned().map(Routed::To).ok_or(RequestError::NoRoute)
    }

    fn hit(&self, stored: Arc<StoredResponse>, now: SystemTime, exchange: &mut Exchange) -> Answer {
        exchange.outcome = Outcome::Hit;
        exchange.ttl_s = Some(stored.head.meta.ttl_seconds(now));
        Answer::Stored(stored)
    }

    /// Past the store: the origin's answer is for this client alone.
    async fn pass(
        self: &Arc<Self>,
        route: &Arc<Route>,
        inbound: &Inbound,
        content: Incoming,
        why: Bypass,
        exchange: &mut Exchange,
    ) -> Result<Answer, RequestError> {
        exchange.forwarded(if why == Bypass::Method { ForwardReason::Method } else { ForwardReason::Bypass });
        if why != Bypass::Method {
            exchange.explain(why.as_detail());
        }
        let target = forward::target(inbound)?;
        let content = content::forwarded(inbound, content, self.snapshot.load().config.listen.body_idle_timeout);
        let request = forward::request(inbound, Purpose::Pass, exchange.keyed_fields(), content)?;
        let began = Instant::now();
        let forwarded = if brim_semantics::is_safe(&inbound.method) {
            route.origin.send(request).await
        } else {
            invalidate::write(self, route, target.clone(), request).await?
        };
        let forwarded = forwarded.map_err(|error| {
            route.note_forward_failure(&target, &error);
            Arc::new(error)
        })?;
        exchange.times.forward = began.elapsed();
        exchange.forward_status = Some(forwarded.response.status());
        exchange.endpoint = Some(forwarded.endpoint);
        Ok(Answer::Passed(forwarded.response))
    }

    /// Asks the origin once for all who want the same, and stores what may be stored.
    async fn fetch(
        self: &Arc<Self>,
        route: &Arc<Route>,
        key: CacheKey,
        inbound: &Inbound,
        need: Need,
        exchange: &mut Exchange,
    ) -> Result<Answer, RequestError> {
        if inbound.method == Method::HEAD {
            return self.forward_as_asked(route, inbound, need, "head", exchange).await;
        }
        let began = Instant::now();
        let mut flight = flight_key(&key, need.variant(inbound), inbound);
        if inbound.directives.no_store && !route.config.policy.ignore_request_directives {
            // What it fetches cannot be shared, so nobody may wait for it.
            return self.fill(route, key, inbound, need, Permit::Alone(flight), exchange).await;
        }
        let mut join = self.flights.join(flight);
        for _ in 0..ELECTIONS_MAX {
            let mut waiter = match join {
                Join::Alone => break,
                Join::Unshared(reason) => return self.forward_as_asked(route, inbound, need, reason, exchange).await,
                Join::Fill(permit) => {
                    return self.fill(route, key, inbound, need, Permit::Fill(permit), exchange).await;
                }
                Join::Wait(waiter) => waiter,
            };
            let is_late = waiter.has_landed();
            let landing = waiter.landing(COLLAPSE_WAIT_MAX).await;
            exchange.times.collapse = began.elapsed();
            match self.board(landing, is_late, route, inbound, exchange) {
                Boarded::Answer(answer) => return Ok(*answer),
                Boarded::Alone => break,
                Boarded::ServerError => match self.stale_instead(route, inbound, &need, exchange) {
                    Some(stale) => {
                        exchange.is_collapsed = true;
                        return Ok(stale);
                    }
                    None => break,
                },
                Boarded::Failed(error) => return self.failed(error, route, inbound, need, exchange),
                Boarded::Next => join = self.flights.join(flight),
                Boarded::TooLate => join = self.flights.supersede(flight, &waiter),
                Boarded::OtherVariant(variant) => {
                    flight.variant = variant;
                    join = self.flights.join(flight);
                }
            }
        }
        self.fill(route, key, inbound, need, Permit::Alone(flight), exchange).await
    }

    /// What another request's fetch is for this one. A response that was waited for is not judged stale again: it is as
    /// new as this request's own fetch would have made it. Whoever comes while its content still arrives (`is_late`) gets
    /// what the rules make of it by now.
    fn board(
        &self,
        landing: Option<Landing>,
        is_late: bool,
        route: &Route,
        inbound: &Inbound,
        exchange: &mut Exchange,
    ) -> Boarded {
        let following = match landing {
            Some(Landing::ServerError) => return Boarded::ServerError,
            None | Some(Landing::Declined) => return Boarded::Alone,
            Some(Landing::Abandoned) => return Boarded::Next,
            Some(Landing::Failed(error)) => return Boarded::Failed(error),
            Some(Landing::Stored(stored)) => return self.board_stored(stored, is_late, route, inbound, exchange),
            Some(Landing::Following(following)) => following,
        };
        if !following.head().nominated.matches(&inbound.headers) {
            return Boarded::other_variant(following.head(), inbound);
        }
        if is_late && !self.is_usable(&following.head().meta, route, inbound) {
            return Boarded::TooLate;
        }
        // None: it broke off, or a purge came after its beginning.
        let Some(content) = following.read() else { return Boarded::TooLate };
        exchange.is_collapsed = true;
        exchange.ttl_s = Some(following.head().meta.ttl_seconds(self.clock.now()));
        Boarded::Answer(Box::new(Answer::Following(following, Box::new(content), Box::default())))
    }

    fn is_usable(&self, meta: &StoredMeta, route: &Route, inbound: &Inbound) -> bool {
        let (now, policy) = (self.clock.now(), &route.config.policy);
        let reuse = brim_semantics::reuse(meta, &inbound.directives, PurgeState::Live, now, policy);
        matches!(reuse, Reuse::Fresh | Reuse::StaleAllowed { .. })
    }

    fn board_stored(
        &self,
        stored: Arc<StoredResponse>,
        is_late: bool,
        route: &Route,
        inbound: &Inbound,
        exchange: &mut Exchange,
    ) -> Boarded {
        if !stored.head.nominated.matches(&inbound.headers) {
            return Boarded::other_variant(&stored.head, inbound);
        }
        let is_outdated = is_late && !self.is_usable(&stored.head.meta, route, inbound);
        if is_outdated || self.store.purge_state(&stored) != PurgeState::Live {
            return Boarded::TooLate;
        }
        exchange.is_collapsed = true;
        exchange.ttl_s = Some(stored.head.meta.ttl_seconds(self.clock.now()));
        Boarded::Answer(Box::new(Answer::Stored(stored)))
    }

    /// Fetches, as the filler of `permit` or alone.
    async fn fill(
        self: &Arc<Self>,
        route: &Arc<Route>,
        key: CacheKey,
        inbound: &Inbound,
        need: Need,
        permit: Permit,
        exchange: &mut Exchange,
    ) -> Result<Answer, RequestError> {
        if let Some(stored) = self.stored_meanwhile(route, &key, inbound, &need) {
            exchange.is_collapsed = true;
            exchange.ttl_s = Some(stored.head.meta.ttl_seconds(self.clock.now()));
            if let Permit::Fill(permit) = permit {
                permit.resolve(Landing::Stored(stored.clone()));
            }
            return Ok(Answer::Stored(stored));
        }
        let began = Instant::now();
        let report = self.prepare_fetch(route, key, inbound, need.stored(), permit, exchange)?.start().await;
        let FetchReport { filled, status, endpoint } = report.map_err(|_task_died| RequestError::Internal)?;
        exchange.times.forward = began.elapsed();
        exchange.forward_status = status;
        exchange.endpoint = endpoint;
        let now = self.clock.now();
        match filled {
            Filled::Validated(stored) => {
                exchange.is_stored = true;
                exchange.ttl_s = Some(stored.head.meta.ttl_seconds(now));
                Ok(Answer::Stored(stored))
            }
            Filled::Following(following, content, withheld) => {
                exchange.is_stored = true;
                exchange.ttl_s = Some(following.head().meta.ttl_seconds(now));
                Ok(Answer::Following(following, Box::new(content), Box::new(withheld)))
            }
            Filled::Confirmed(stored, declined) => {
                exchange.detail = Some(declined.as_detail().into());
                Ok(Answer::Stored(stored))
            }
            Filled::Passed(response, declined) => {
                exchange.detail = Some(declined.as_detail().into());
                Ok(Answer::Unconditional(response))
            }
            Filled::ErrorStatus(response) => match self.stale_instead(route, inbound, &need, exchange) {
                Some(stale) => Ok(stale),
                None => Ok(Answer::Unconditional(response)),
            },
            Filled::Failed(error) => self.failed(error, route, inbound, need, exchange),
        }
    }

    /// Another request may have filled the store between this one's look-up and its permit.
    fn stored_meanwhile(
        &self,
        route: &Route,
        key: &CacheKey,
        inbound: &Inbound,
        need: &Need,
    ) -> Option<Arc<StoredResponse>> {
        match lookup::find_in_memory(&self.store, key, inbound, route, self.clock.now()) {
            Some(Lookup::Fresh(stored)) if !need.is_about(&stored) => Some(stored),
            _ => None,
        }
    }

    fn prepare_fetch(
        self: &Arc<Self>,
        route: &Arc<Route>,
        key: CacheKey,
        inbound: &Inbound,
        validates: Option<Arc<StoredResponse>>,
        permit: Permit,
        exchange: &Exchange,
    ) -> Result<Fetch, RequestError> {
        let purpose = validates.as_deref().map_or(Purpose::Fill, Purpose::Validate);
        let (flight, permit) = match permit {
            Permit::Fill(permit) => (permit.key(), Some(permit)),
            Permit::Alone(flight) => (flight, None),
        };
        Ok(Fetch {
            cache: self.clone(),
            route: route.clone(),
            key,
            flight,
            permit,
            request: forward::request(inbound, purpose, exchange.keyed_fields(), ForwardBody::empty())?,
            inbound_headers: inbound.headers.clone(),
            target: forward::target(inbound)?,
            validates,
            plugin: exchange.plugin.as_ref().map(|active| active.plugin.digest()),
        })
    }

    /// A HEAD that nothing stored can answer, or a request for what could not be shared a moment ago: forwarded with its own
    /// conditions and ranges, nothing is stored.
    async fn forward_as_asked(
        &self,
        route: &Arc<Route>,
        inbound: &Inbound,
        need: Need,
        reason: &'static str,
        exchange: &mut Exchange,
    ) -> Result<Answer, RequestError> {
        let request = forward::request(inbound, Purpose::Pass, exchange.keyed_fields(), ForwardBody::empty())?;
        let (began, sent) = (Instant::now(), head::Sent::now(self));
        match route.origin.send(request).await {
            Ok(forwarded) => {
                if let (Need::Validate(stored, _), &Method::HEAD) = (&need, &inbound.method) {
                    head::update(self, route, inbound, stored, &forwarded.response, sent);
                }
                exchange.times.forward = began.elapsed();
                exchange.forward_status = Some(forwarded.response.status());
                exchange.endpoint = Some(forwarded.endpoint);
                if brim_semantics::is_server_error(forwarded.response.status())
                    && let Some(stale) = self.stale_instead(route, inbound, &need, exchange)
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
    fn validate_behind(
        self: &Arc<Self>,
        route: &Arc<Route>,
        key: &CacheKey,
        inbound: &Inbound,
        stored: &Arc<StoredResponse>,
        exchange: &Exchange,
    ) {
        let flight = flight_key(key, lookup::variant_of(stored, inbound), inbound);
        let Some(permit) = self.flights.try_fill(flight) else { return };
        match self.prepare_fetch(route, key.clone(), inbound, Some(stored.clone()), Permit::Fill(permit), exchange) {
            Ok(fetch) => drop(fetch.start()),
            Err(error) => tracing::warn!(%error, "validation behind a response not started"),
        }
    }

    fn failed(
        &self,
        error: Arc<crate::origin::ForwardError>,
        route: &Route,
        inbound: &Inbound,
        need: Need,
        exchange: &mut Exchange,
    ) -> Result<Answer, RequestError> {
        match self.stale_instead(route, inbound, &need, exchange) {
            Some(stale) => {
                exchange.detail = Some(format!("stale-if-error: {}", error.as_detail()).into());
                Ok(stale)
            }
            None => Err(error.into()),
        }
    }

    /// The stale response that may stand in for an origin that gave none (RFC 9111 §4.2.4, RFC 5861 §4).
    fn stale_instead(&self, route: &Route, inbound: &Inbound, need: &Need, exchange: &mut Exchange) -> Option<Answer> {
        let Need::Validate(stored, _why) = need else { return None };
        let now = self.clock.now();
        let purge = self.store.purge_state(stored);
        if !brim_semantics::may_serve_on_error(&stored.head.meta, &inbound.directives, purge, now, &route.config.policy)
        {
            return None;
        }
        exchange.detail = Some("stale-if-error".into());
        exchange.ttl_s = Some(stored.head.meta.ttl_seconds(now));
        Some(Answer::Stored(stored.clone()))
    }
}

/// Who answers a request.
enum Routed {
    /// The route's origin, or what is stored of it.
    To(Arc<Route>),
    /// This node, whatever the route.
    Here(Response<ResponseBody>),
}

/// Whether others wait for a fetch.
enum Permit {
    /// They do, or may.
    Fill(FillPermit),
    /// This request goes alone.
    Alone(FlightKey),
}

fn flight_key(key: &CacheKey, variant: u64, inbound: &Inbound) -> FlightKey {
    FlightKey { key: key.hash(), variant, is_authorized: inbound.headers.contains_key(AUTHORIZATION) }
}

/// What another request's fetch is for a waiting one.
enum Boarded {
    Answer(Box<Answer>),
    /// It landed for another variant: this is ours.
    OtherVariant(u64),
    /// A purge came after it began, or it broke off.
    TooLate,
    /// Its filler went away.
    Next,
    /// Nothing to share.
    Alone,
    /// The origin is in trouble: what is stale may do.
    ServerError,
    Failed(Arc<crate::origin::ForwardError>),
}

impl Boarded {
    fn other_variant(head: &brim_store::ResponseHead, inbound: &Inbound) -> Self {
        let nominated = brim_semantics::Nominated::of(&head.headers, &inbound.headers);
        nominated.map_or(Self::Alone, |nominated| Self::OtherVariant(nominated.variant_hash()))
    }
}

impl Need {
    fn note(&self, exchange: &mut Exchange) {
        match self {
            Self::Fetch(absent) => {
                exchange.forwarded(absent.forward_reason());
                if *absent == Absent::Purged {
                    exchange.explain("purged");
                }
            }
            Self::Validate(_, why) => {
                exchange.forwarded(if why.is_requested() { ForwardReason::Request } else { ForwardReason::Stale });
                // `fwd=stale` says it already.
                if *why != Why::Stale {
                    exchange.explain(why.as_detail());
                }
            }
        }
    }

    fn stored(&self) -> Option<Arc<StoredResponse>> {
        match self {
            Self::Fetch(_) => None,
            Self::Validate(stored, _) => Some(stored.clone()),
        }
    }

    fn is_about(&self, stored: &Arc<StoredResponse>) -> bool {
        matches!(self, Self::Validate(validated, _) if Arc::ptr_eq(validated, stored))
    }

    /// The variant to collapse on, as far as stored responses tell.
    fn variant(&self, inbound: &Inbound) -> u64 {
        match self {
            Self::Fetch(Absent::Vary(variant)) => *variant,
            Self::Fetch(Absent::Uri | Absent::Purged) => 0,
            Self::Validate(stored, _) => lookup::variant_of(stored, inbound),
        }
    }
}
