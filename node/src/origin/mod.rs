//! Origins: where requests that the store cannot answer are forwarded to.
//!
//! ```text
//! Origins ─ name ─> Origin ─ Health, Balancer ─> Endpoint ─ Pool ─> connection ─> ForwardedResponse (OriginBody)
//! ```
//!
//! Always true:
//! - Endpoints that are not in order get no requests, unless nearly all are not.
//! - An endpoint that cannot be reached is passed over for the next one: nothing of the request can have been sent. Any other
//!   failure ends the request, unless it is idempotent and its origin allows to repeat it (`attempts`).
//! - Connections, waiting requests, heads, waits and content windows are bounded; a bound that is reached is a [`ForwardError`].
//! - Closing and reaping take nothing from a request that is under way.
//! - Interim responses (1xx) go to the request's `hyper::ext::on_informational`, over HTTP/1.1; over HTTP/2 hyper drops them. 101 is
//!   passed with hyper's `OnUpgrade` if the request had `Upgrade` (its socket counts until the tunnel ends), an error otherwise.
//!
//! Not here: what may be forwarded and stored (`request`, `semantics`); the caller has removed the hop-by-hop fields.

mod attempts;
mod balance;
mod body;
mod check;
mod concurrency;
mod connect;
mod discovery;
mod endpoint;
mod error;
mod expectation;
mod framing;
mod group;
mod health;
mod load;
mod pool;
mod resolve;
mod socket;
mod stats;
mod target;
mod tls;
mod upkeep;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, Response};
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

pub use attempts::{AttemptCounts, Further};
pub use body::{ForwardBody, OriginBody};
pub use endpoint::{Endpoint, EndpointSnapshot, HEAD_BYTES_MAX, HEADER_COUNT_MAX};
pub use error::{BodyError, BoxError, ErrorKind, ForwardError, OriginsError, RETRY_AFTER};
pub use expectation::{CONTINUE_WAIT_MAX, Expectation};
pub use health::{EndpointState, HealthSnapshot};
pub use pool::{PoolCounts, STREAMS_MAX};
pub use resolve::{ADDRESSES_MAX, DISCOVERED_MAX};
pub use stats::{EndpointCounts, WAIT_BUCKETS_MS};
pub use tls::TLS_SESSIONS_MAX;

use crate::config::OriginConfig;
use attempts::Attempts;
use balance::Balancer;
use concurrency::Concurrency;
use discovery::{Connector, Discovery, Maker};
use group::Group;
use health::{Ejections, eject_outliers};
use resolve::Resolver;
use tls::SystemRoots;

/// How often idle connections are looked at; one may be kept this much longer than its `idle_timeout`.
const REAP_EVERY: Duration = Duration::from_secs(1);
/// How often is looked at what else is due: checks, connections that are to be kept open.
const TEND_EVERY: Duration = Duration::from_millis(100);

/// All origins of a configuration, by name.
#[derive(Debug, Default)]
pub struct Origins(HashMap<String, Arc<Origin>>);

/// One origin: the endpoints that can all answer the same requests.
#[derive(Debug)]
pub struct Origin {
    name: String,
    group: ArcSwap<Group>,
    discovery: Discovery,
    maker: Maker,
    balancer: Mutex<Balancer>,
    panic_threshold: usize,
    rates: Option<Rates>,
    attempts: Attempts,
    /// From the beginning to the head of the response, over all attempts.
    deadline: Option<Duration>,
    concurrency: Option<Arc<Concurrency>>,
    /// What the files held that its section names.
    files: u64,
}

/// When the success rates of the endpoints are compared.
#[derive(Debug)]
struct Rates {
    interval: Duration,
    next: Mutex<Instant>,
}

/// What requests to one endpoint have in common, as an extension of the request: the hash of the cache key.
#[derive(Debug, Clone, Copy)]
pub struct Affinity(pub u64);

/// How an origin stands, for `/metrics` and `/v1/status`.
#[derive(Debug, Clone)]
pub struct OriginSnapshot {
    /// Its name in the configuration.
    pub name: String,
    /// Its endpoints, in the order of the configuration.
    pub endpoints: Vec<EndpointSnapshot>,
    /// Names of services that could not be looked up the last time, and why.
    pub discovery_failures: Vec<String>,
    /// Requests that went to a further endpoint.
    pub attempts: AttemptCounts,
    /// Requests that it is given at a time, if that has a bound.
    pub requests_limit: Option<usize>,
}

/// The head of an origin's response, its content still arriving, and where it comes from.
#[derive(Debug)]
pub struct ForwardedResponse {
    /// As it came, but that at most one `Content-Length` is left, and none beside a transfer coding (RFC 9112 §6.3).
    pub response: Response<OriginBody>,
    /// Who answered.
    pub endpoint: Arc<Endpoint>,
    /// Whether the connection had served another request before.
    pub reused: bool,
}

impl Origins {
    /// Makes ready what needs no network: certificates are read, names are checked, no connection is opened.
    pub fn new(configs: &BTreeMap<String, OriginConfig>) -> Result<Self, OriginsError> {
        let mut shared = Shared::default();
        let origins =
            configs.iter().map(|(name, config)| Ok((name.clone(), Arc::new(Origin::new(config, &mut shared)?))));
        origins.collect::<Result<_, _>>().map(Self)
    }

    /// The origins of a changed configuration: those whose section is as it was go on with the connections they have.
    pub fn successor(
        configs: &BTreeMap<String, OriginConfig>,
        old_configs: &BTreeMap<String, OriginConfig>,
        old: &Origins,
    ) -> Result<Self, OriginsError> {
        let mut shared = Shared::default();
        let origins = configs.iter().map(|(name, config)| {
            let is_same = |origin: &Arc<Origin>| {
                old_configs.get(name) == Some(config) && origin.files == tls::files_digest(config)
            };
            let kept = old.get(name).filter(is_same);
            let origin = match kept {
                Some(kept) => kept,
                None => Arc::new(Origin::new(config, &mut shared)?),
            };
            Ok((name.clone(), origin))
        });
        origins.collect::<Result<_, _>>().map(Self)
    }

    /// The origin of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Origin>> {
        self.0.get(name).cloned()
    }

    /// How all origins stand, in the order of their names.
    pub fn snapshot(&self) -> Vec<OriginSnapshot> {
        let mut origins: Vec<OriginSnapshot> = self.0.values().map(|origin| origin.snapshot()).collect();
        origins.sort_by(|one, other| one.name.cmp(&other.name));
        origins
    }

    /// Closes idle connections when their time has come, opens those that are to be kept open, checks the endpoints, compares
    /// their success rates; for ever. One task runs it; cancel safe: it holds nothing across its await.
    pub async fn tend(&self) {
        let mut ticks = interval(TEND_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_reap = Instant::now();
        loop {
            let now = ticks.tick().await;
            let reaps = now >= next_reap;
            if reaps {
                next_reap = now + REAP_EVERY;
            }
            self.0.values().for_each(|origin| origin.tend(now, reaps));
        }
    }

    /// Closes idle connections and keeps none from now on. Requests are still sent, so that a drain can finish its work.
    pub fn close(&self) {
        self.each_endpoint(|endpoint| endpoint.pool().close());
    }

    fn each_endpoint(&self, act: impl Fn(&Endpoint)) {
        for origin in self.0.values() {
            origin.group.load().endpoints().iter().for_each(|endpoint| act(endpoint));
        }
    }
}

impl Origin {
    fn new(config: &OriginConfig, shared: &mut Shared) -> Result<Self, OriginsError> {
        let is_tls = config.endpoints.iter().any(|endpoint| endpoint.url.tls);
        let needs_tls = is_tls || config.services.iter().any(|service| service.tls);
        let connector = needs_tls.then(|| tls::connector(config, &mut shared.roots)).transpose()?;
        let maker = Maker {
            config: config.clone(),
            connector: connector.map(Connector),
            ejections: Ejections::new(&config.ejection, config.slow_start, config.endpoints.len()),
            resolver: shared.resolver(&config.resolver),
        };
        let endpoints: Vec<Arc<Endpoint>> =
            config.endpoints.iter().map(|endpoint| maker.endpoint(endpoint)).collect::<Result<_, _>>()?;
        let interval = config.ejection.interval;
        let rates = Rates { interval, next: Mutex::new(Instant::now() + interval) };
        Ok(Self {
            name: config.name.clone(),
            group: ArcSwap::from_pointee(Group::new(endpoints.iter().cloned())),
            discovery: Discovery::new(&config.services, endpoints),
            maker,
            balancer: Mutex::new(Balancer::new(config.balance)),
            panic_threshold: usize::try_from(config.panic_threshold).unwrap_or(0),
            rates: config.ejection.outliers.then_some(rates),
            attempts: Attempts::new(&config.retries, config.response_timeout),
            deadline: config.deadline,
            concurrency: Concurrency::of(config),
            files: tls::files_digest(config),
        })
    }

    fn tend(self: &Arc<Self>, now: Instant, reaps: bool) {
        self.discover(now);
        let group = self.group.load();
        group.endpoints().iter().for_each(|endpoint| endpoint.tend(now, reaps));
        let Some(rates) = &self.rates else { return };
        let mut next = rates.next.lock();
        if *next <= now {
            *next = now + rates.interval;
            eject_outliers(group.endpoints().iter().map(|endpoint| endpoint.health()), now);
        }
    }

    /// Takes an endpoint, by its URL, out of service or back. False: there is none.
    pub fn drain(&self, url: &str, is_draining: bool) -> bool {
        let group = self.group.load();
        let named = group.endpoints().iter().filter(|endpoint| endpoint.url().to_string() == url);
        named.map(|endpoint| endpoint.health().drain(is_draining, Instant::now())).count() > 0
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it stands now.
    pub fn snapshot(&self) -> OriginSnapshot {
        OriginSnapshot {
            name: self.name.clone(),
            endpoints: self.group.load().endpoints().iter().map(|endpoint| endpoint.snapshot()).collect(),
            discovery_failures: self.discovery.failures(),
            attempts: self.attempts.counts(),
            requests_limit: self.concurrency.as_ref().map(|bound| bound.limit()),
        }
    }

    /// Forwards a request to one of the endpoints, or to several one after the other (`attempts`), and awaits the head of the response.
    ///
    /// The target may be in any form; `Host` counts before the authority of the target. Cancel safe: dropping the future gives
    /// back whatever it held, see [`Endpoint`].
    pub async fn send(&self, request: Request<ForwardBody>) -> Result<ForwardedResponse, ForwardError> {
        let overloaded = |limit| ForwardError::Overloaded { origin: self.name.clone(), limit };
        let ticket = match &self.concurrency {
            None => None,
            Some(bound) => Some(bound.enter().ok_or_else(|| overloaded(bound.limit()))?),
        };
        if self.deadline.is_none() && ticket.is_none() {
            return self.attempt(request, None).await;
        }
        let began = Instant::now();
        // How long an upload takes says nothing of the origin.
        let is_timed = request.body().may_be_resent();
        let answer = match self.deadline {
            None => self.attempt(request, None).await,
            Some(limit) => {
                let deadline = began + limit;
                let late = || ForwardError::Deadline { origin: self.name.clone(), limit };
                match timeout_at(deadline, self.attempt(request, Some(deadline))).await {
                    Err(_) => Err(late()),
                    // The endpoint has been told that it was too slow.
                    Ok(Err(error)) if error.is_late() && Instant::now() >= deadline => Err(late()),
                    Ok(answer) => answer,
                }
            }
        };
        if let Some(bound) = self.concurrency.as_ref().filter(|_| is_timed)
            && answer.as_ref().map_or_else(ForwardError::is_late, |_| true)
        {
            bound.answered(began.elapsed());
        }
        let mut forwarded = answer?;
        forwarded.response.body_mut().holds(ticket);
        Ok(forwarded)
    }

    fn choose(&self, group: &Group, tried: &[usize], affinity: Option<u64>) -> Option<usize> {
        group.choose(&self.balancer, self.panic_threshold, tried, affinity)
    }
}

/// What the origins of one configuration share.
#[derive(Default)]
struct Shared {
    roots: SystemRoots,
    resolver: Option<Resolver>,
}

impl Shared {
    fn resolver(&mut self, servers: &[SocketAddr]) -> Resolver {
        self.resolver.get_or_insert_with(|| Resolver::new(servers)).clone()
    }
}
