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
mod board;
pub mod collapse;
mod content;
mod entry;
pub mod error;
pub mod exchange;
pub mod explain;
mod fetch;
mod fill;
pub mod forward;
mod head;
mod interim;
pub(crate) mod invalidate;
mod items;
pub mod key;
pub mod lookup;
mod need;
pub mod partial;
mod post;
mod ranges;
mod record;
pub mod refresh;
pub mod respond;
pub mod tags;
mod upgrade;

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use brim_semantics::{ForwardReason, PurgeState, Why};
use brim_store::Store;
use http::{Request, Response};
use hyper::body::Incoming;

use self::accept::Inbound;
use self::collapse::Flights;
use self::error::RequestError;
use self::exchange::Exchange;
use self::forward::Purpose;
use self::key::{Bypass, Keyed};
use self::lookup::Lookup;
use self::need::{Held, Need};
use self::refresh::Refresher;
use self::respond::Answer;
use self::tags::TagBudget;
use crate::body::ResponseBody;
use crate::clock::Clock;
use crate::config::Config;
use crate::listen::{ConnectionInfo, Handler};
use crate::origin::{ForwardBody, Origins};
use crate::plugins::PluginRegistry;
use crate::retry::Retries;
use crate::route::{Route, Routes};
use crate::tasks::Tasks;
use crate::telemetry::{Outcome, Telemetry};

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
    /// Contents that are held for their surrogate keys.
    pub tag_budget: Arc<TagBudget>,
    /// Soft purges whose popular responses are validated.
    pub refresher: Refresher,
    /// Rules that failed after a write and are asked again.
    pub retries: Retries,
}

impl Handler for Arc<Cache> {
    async fn handle(&self, request: Request<Incoming>, connection: Arc<ConnectionInfo>) -> Response<ResponseBody> {
        Cache::handle(self, request, connection).await
    }
}

impl Cache {
    /// One request, from its head to the head of its response.
    pub async fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        connection: Arc<ConnectionInfo>,
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
        let content = content::read(self, &route, inbound, content).await?;
        let keyed = key::derive(&self.plugins, &route, inbound, exchange);
        exchange.times.key = exchange.started.elapsed().saturating_sub(exchange.times.route);
        let key = match keyed {
            Keyed::Cache(key) => key,
            Keyed::Bypass(why) => return self.pass(&route, inbound, content, why, exchange).await,
        };
        exchange.key = Some(key.hash());

        let found = lookup::find(&self.store, &key, inbound, &route, exchange.time).await;
        exchange.times.lookup = exchange.started.elapsed().saturating_sub(exchange.times.route + exchange.times.key);
        match self.judge(found, &route, inbound, exchange)? {
            Judged::Hit(held) => {
                self.store.note_hit(held.newest(), exchange.started);
                Ok(held.into_answer())
            }
            Judged::HitToValidate(held) => {
                self.store.note_hit(held.newest(), exchange.started);
                self.validate_behind(&route, &key, inbound, &held, exchange);
                Ok(held.into_answer())
            }
            Judged::Forward(need) => self.fetch(&route, key, inbound, need, exchange).await,
        }
    }

    /// What a look-up comes to, and what the record says of it.
    fn judge(
        &self,
        found: Lookup,
        route: &Route,
        inbound: &Inbound,
        exchange: &mut Exchange,
    ) -> Result<Judged, RequestError> {
        let need = match found {
            Lookup::Fresh(held) => return Ok(Judged::Hit(hit(held, exchange))),
            Lookup::StaleAllowed(held) => {
                exchange.explain("max-stale");
                return Ok(Judged::Hit(hit(held, exchange)));
            }
            Lookup::StaleWhileValidating(held) => {
                let is_purged = self.store.purge_state(held.newest()) == PurgeState::Soft;
                exchange.explain(if is_purged { Why::SoftPurged.as_detail() } else { "stale-while-revalidate" });
                let held = hit(held, exchange);
                if is_purged {
                    // By its age it would be fresh still; a purge has said otherwise.
                    exchange.ttl_s = exchange.ttl_s.map(|ttl_s| ttl_s.min(0));
                }
                return Ok(Judged::HitToValidate(held));
            }
            Lookup::MustValidate(held, why) => Need::Validate(held, why),
            Lookup::Incomplete(parts) => Need::Complete(parts),
            Lookup::OtherVariants(others, variant) => Need::Select(others, variant),
            Lookup::Absent(absent) => Need::Fetch(absent),
        };
        need.note(exchange);
        if inbound.directives.only_if_cached && !route.config.policy.ignore_request_directives {
            // Nothing goes forward, so nothing is said of a forward (RFC 9211 §2.2).
            exchange.outcome = Outcome::Refused;
            exchange.detail = None;
            return Err(RequestError::OnlyIfCached);
        }
        Ok(Judged::Forward(need))
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

    /// Past the store: the origin's answer is for this client alone, but for what a POST leaves for later GETs.
    async fn pass(
        self: &Arc<Self>,
        route: &Arc<Route>,
        inbound: &mut Inbound,
        content: ForwardBody,
        why: Bypass,
        exchange: &mut Exchange,
    ) -> Result<Answer, RequestError> {
        exchange.forwarded(if why == Bypass::Method { ForwardReason::Method } else { ForwardReason::Bypass });
        if why != Bypass::Method {
            exchange.explain(why.as_detail());
        }
        let target = forward::target(inbound)?;
        let mut request = forward::request(inbound, Purpose::Pass, exchange.keyed_fields(), content)?;
        interim::relay(&self.telemetry, route, inbound, &mut request);
        let began = Instant::now();
        let is_safe = brim_semantics::is_safe(&inbound.method);
        let (forwarded, written) = if is_safe {
            (route.origin.send(request).await, None)
        } else {
            let (forwarded, written) =
                invalidate::write(self, route, target.clone(), inbound.write_content.take(), request).await?;
            (forwarded, Some(written))
        };
        let forwarded = forwarded.map_err(|error| {
            route.note_forward_failure(&target, &error);
            Arc::new(error)
        })?;
        exchange.times.forward = began.elapsed();
        exchange.forward_status = Some(forwarded.response.status());
        exchange.endpoint = Some(forwarded.endpoint);
        match written {
            Some(written) if why == Bypass::Method => {
                Ok(post::keep(self, route, inbound, target, forwarded.response, written, exchange))
            }
            _ => Ok(Answer::Passed(forwarded.response)),
        }
    }
}

/// Who answers a request.
enum Routed {
    /// The route's origin, or what is stored of it.
    To(Arc<Route>),
    /// This node, whatever the route.
    Here(Response<ResponseBody>),
}

/// What a look-up comes to.
enum Judged {
    /// The answer.
    Hit(Held),
    /// The answer, which is validated behind it.
    HitToValidate(Held),
    /// The origin has to be asked.
    Forward(Need),
}

fn hit(held: Held, exchange: &mut Exchange) -> Held {
    exchange.outcome = Outcome::Hit;
    exchange.ttl_s = Some(held.newest().head.meta.ttl_seconds(exchange.time));
    held
}
