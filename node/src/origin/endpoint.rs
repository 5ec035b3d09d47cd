//! One endpoint: one request sent, one response head awaited.
//!
//! Always true:
//! - A request goes out a second time only if hyper gave it back unsent because a kept connection had ended, or if an HTTP/2 endpoint
//!   says that it has not looked at it; only once, and only on a new connection.
//! - Whatever fails is counted once, by its kind.
//!
//! Not here: which endpoint (`balance`), reading the content (`body`).

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use http::header::UPGRADE;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use rustls_pki_types::ServerName;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::balance::Candidate;
use super::body::{ForwardBody, Lease, OriginBody, UploadProgress};
use super::error::{ForwardError, OriginsError};
use super::health::{Ejections, Health, HealthSnapshot};
use super::load::{InFlight, Load};
use super::pool::{Grant, NoConnection, Pool, PoolCounts, PoolLimits, Want};
use super::resolve::{ADDRESSES_MAX, Addresses, Resolver};
use super::stats::{EndpointCounts, EndpointStats};
use super::target::TargetRules;
use super::upkeep::Upkeep;
use super::{ForwardedResponse, attempts, connect, tls};
use crate::config::{EndpointConfig, EndpointUrl, Http2, OriginConfig};

/// The head of a response; a longer one is a bad response.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Fields of a response head; more make a bad response. hyper's own limit for HTTP/1.1, held for HTTP/2 here.
pub const HEADER_COUNT_MAX: usize = 100;

/// One address of an origin, with its connections and counters.
#[derive(Debug)]
pub struct Endpoint {
    name: Arc<str>,
    config: EndpointConfig,
    http2: Http2,
    timeouts: Timeouts,
    target: TargetRules,
    tls: Option<EndpointTls>,
    pool: Arc<Pool>,
    pub(super) limits: PoolLimits,
    stats: EndpointStats,
    load: Load,
    addresses: Addresses,
    turns: AtomicUsize,
    /// As configured, or as the DNS says of late.
    weight: AtomicU32,
    priority: AtomicU32,
    health: Health,
    pub(super) upkeep: Upkeep,
    identity: u64,
    /// In another region than the node.
    is_elsewhere: bool,
}

#[derive(Debug, Clone, Copy)]
struct Timeouts {
    connect: Duration,
    body_idle: Duration,
}

/// How an `https` endpoint is spoken to.
pub(super) struct EndpointTls {
    pub(super) connector: TlsConnector,
    pub(super) server_name: ServerName<'static>,
}

impl std::fmt::Debug for EndpointTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// How an endpoint stands, for `/metrics` and `/v1/status`.
#[derive(Debug, Clone)]
pub struct EndpointSnapshot {
    /// Its URL, without a path.
    pub url: String,
    /// Its share of the requests.
    pub weight: u32,
    /// Where it stands.
    pub region: Option<String>,
    /// Its connections and its queue now.
    pub pool: PoolCounts,
    /// What has happened since the start.
    pub counts: EndpointCounts,
    /// Which others come before it.
    pub priority: u32,
    /// Requests that it has not answered to their end.
    pub in_flight: usize,
    /// How long it takes to answer, the worst of late counting most.
    pub latency: Option<Duration>,
    /// How long a packet takes there and back.
    pub round_trip: Option<Duration>,
    /// Whether it is fit for requests.
    pub health: HealthSnapshot,
    /// Why its name could not be looked up the last time.
    pub resolve_failure: Option<String>,
}

/// The endpoint says that it has not looked at the request (RFC 9113 §8.7): it refused the stream, or went away before it.
fn is_unprocessed(error: &hyper::Error) -> bool {
    let Some(error) = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>()) else { return false };
    error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// 502, 503 and 504 are what something before the application says when it is not there. Any other status is the application's own.
pub(super) fn speaks_against(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// Dropped where nobody waits for the answer any more: what is known then is that it takes so long at least.
struct GivenUp<'a> {
    endpoint: &'a Endpoint,
    began: Instant,
    is_timed: bool,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if self.is_timed {
            let now = Instant::now();
            self.endpoint.load.at_least(now - self.began, now);
        }
    }
}

/// A request that got no response head, and the request itself if none of it was sent.
pub(super) struct Failed {
    pub(super) error: ForwardError,
    pub(super) unsent: Option<Box<Request<ForwardBody>>>,
}

/// Weights are reckoned with in hundredths, so that one that starts slowly can have a part of its own.
const WEIGHT_PARTS: u32 = 100;

impl Candidate for Arc<Endpoint> {
    fn weight(&self) -> u32 {
        let share = self.health.share(Instant::now());
        let parts = f64::from(self.weight.load(Ordering::Relaxed) * WEIGHT_PARTS) * share;
        // Within 1 to 100,000.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded above")]
        let parts = parts as u32;
        parts.max(1)
    }

    fn in_flight(&self) -> usize {
        self.load.in_flight()
    }

    fn latency(&self) -> Option<Duration> {
        self.load.latency(Instant::now())
    }

    fn round_trip(&self) -> Option<Duration> {
        self.load.round_trip()
    }

    fn identity(&self) -> u64 {
        self.identity
    }

    fn distance(&self) -> u32 {
        u32::from(self.is_elsewhere)
    }

    fn is_full(&self) -> bool {
        self.pool.is_full()
    }
}

impl Endpoint {
    pub(super) fn new(
        origin: &OriginConfig,
        config: &EndpointConfig,
        connector: Option<&TlsConnector>,
        ejections: &Arc<Ejections>,
        resolver: &Resolver,
    ) -> Result<Self, OriginsError> {
        let written = config.url.authority();
        let refused = || OriginsError::Authority { origin: origin.name.clone(), name: written.clone() };
        let tls = match connector {
            Some(connector) if config.url.tls => Some(EndpointTls {
                connector: connector.clone(),
                server_name: tls::server_name(origin, &config.url.host)?,
            }),
            Some(_) | None => None,
        };
        let limits = PoolLimits {
            connections_max: origin.connections_max,
            queue_max: origin.queue_max,
            queue_timeout: origin.queue_timeout,
            idle_timeout: origin.idle_timeout,
            connections_min: origin.connections_min,
            age_max: origin.connection_age_max,
            requests_max: origin.connection_requests_max,
        };
        Ok(Self {
            load: Load::default(),
            addresses: Addresses::new(&config.url.host, config.url.port, resolver),
            turns: AtomicUsize::new(0),
            weight: AtomicU32::new(config.weight),
            priority: AtomicU32::new(config.priority),
            health: Health::new(Arc::clone(ejections)),
            upkeep: Upkeep::of(origin),
            identity: xxhash_rust::xxh3::xxh3_64(config.url.to_string().as_bytes()),
            is_elsewhere: origin.region.is_some() && config.region != origin.region,
            name: written.as_str().into(),
            http2: origin.http2,
            timeouts: Timeouts { connect: origin.connect_timeout, body_idle: origin.body_idle_timeout },
            target: TargetRules {
                authority: Authority::try_from(written.as_str()).map_err(|_| refused())?,
                host: HeaderValue::try_from(written.as_str()).map_err(|_| refused())?,
                host_header: origin.host_header,
                scheme: if config.url.tls { Scheme::HTTPS } else { Scheme::HTTP },
            },
            config: config.clone(),
            tls,
            pool: Pool::new(limits, origin.http2 == Http2::Always),
            limits,
            stats: EndpointStats::default(),
        })
    }

    /// Its host, with the port if that is not the scheme's own: as errors and logs name it.
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Where it is.
    pub fn url(&self) -> &EndpointUrl {
        &self.config.url
    }

    /// How it stands now.
    pub fn snapshot(&self) -> EndpointSnapshot {
        EndpointSnapshot {
            url: self.config.url.to_string(),
            weight: self.weight.load(Ordering::Relaxed),
            region: self.config.region.clone(),
            pool: self.pool.counts(),
            counts: self.stats.snapshot(),
            priority: self.priority(),
            in_flight: self.load.in_flight(),
            latency: self.load.latency(Instant::now()),
            round_trip: self.load.round_trip(),
            health: self.health.snapshot(Instant::now()),
            resolve_failure: self.addresses.failure(),
        }
    }

    pub(super) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// A number that is another one each time.
    pub(super) fn next_turn(&self) -> usize {
        self.turns.fetch_add(1, Ordering::Relaxed) % ADDRESSES_MAX
    }

    pub(super) fn load(&self) -> &Load {
        &self.load
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    pub(super) fn target(&self) -> &TargetRules {
        &self.target
    }

    /// True: its share of the requests is another one than before.
    pub(super) fn set_share(&self, weight: u32, priority: u32) -> bool {
        let before = (self.weight.swap(weight, Ordering::Relaxed), self.priority.swap(priority, Ordering::Relaxed));
        before != (weight, priority)
    }

    pub(super) fn priority(&self) -> u32 {
        self.priority.load(Ordering::Relaxed)
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(super) fn stats(&self) -> &EndpointStats {
        &self.stats
    }

    pub(super) fn tls(&self) -> Option<&EndpointTls> {
        self.tls.as_ref()
    }

    pub(super) fn http2(&self) -> Http2 {
        self.http2
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.timeouts.connect
    }

    pub(super) fn body_idle_timeout(&self) -> Duration {
        self.timeouts.body_idle
    }

    /// Sends one request and awaits the head of its response, for so long after the end of the request.
    ///
    /// Cancel safe: dropping the future leaves the queue, stops connecting, closes an HTTP/1.1 connection in use or resets the
    /// HTTP/2 stream.
    pub(super) async fn send(
        self: &Arc<Self>,
        request: Request<ForwardBody>,
        limit: Duration,
    ) -> Result<ForwardedResponse, Failed> {
        self.stats.count_request();
        let began = Instant::now();
        // How long an upload takes says nothing of the endpoint.
        let is_timed = request.body().may_be_resent();
        let given_up = GivenUp { endpoint: self, began, is_timed };
        let answer = self.send_counted(request, limit, InFlight::begin(self)).await;
        std::mem::forget(given_up);
        let now = Instant::now();
        match &answer {
            Ok(_) if is_timed => self.load.answered(now - began, now),
            Ok(_) => {}
            Err(failed) if failed.error.is_of_endpoint() => {
                if is_timed {
                    self.load.failed(now - began, now);
                }
                self.health.note_bad(now);
            }
            Err(_) => {}
        }
        answer
    }

    async fn send_counted(
        self: &Arc<Self>,
        mut request: Request<ForwardBody>,
        limit: Duration,
        mut in_flight: InFlight,
    ) -> Result<ForwardedResponse, Failed> {
        let mut want = Want::Any;
        loop {
            let (lease, reused) = match self.lease(want).await {
                Ok(leased) => leased,
                Err(error) => return Err(self.failed(error, Some(request))),
            };
            // A connection that others use too may end under this request, before it was looked at.
            let is_shared = matches!(lease, Lease::Http2(_));
            let spare = if is_shared && want == Want::Any { attempts::copy(&request) } else { None };
            match self.exchange(lease, reused, request, limit).await {
                Ok(mut forwarded) => {
                    if speaks_against(forwarded.response.status()) {
                        in_flight.answered_badly();
                    }
                    forwarded.response.body_mut().counts_as(in_flight);
                    return Ok(forwarded);
                }
                Err(Failed { error: ForwardError::NotSent { .. }, unsent: Some(unsent) })
                    if reused && want == Want::Any =>
                {
                    self.stats.count_retry();
                    want = Want::Fresh;
                    request = *unsent;
                }
                Err(Failed { error: ForwardError::NotProcessed { .. }, .. }) if let Some(spare) = spare => {
                    self.stats.count_retry();
                    want = Want::Fresh;
                    request = spare;
                }
                Err(Failed { error, unsent }) => return Err(self.failed(error, unsent.map(|unsent| *unsent))),
            }
        }
    }

    fn failed(&self, error: ForwardError, unsent: Option<Request<ForwardBody>>) -> Failed {
        self.stats.count_error(error.kind());
        Failed { error, unsent: unsent.map(Box::new) }
    }

    /// A connection to send on, and whether it has served before.
    async fn lease(&self, want: Want) -> Result<(Lease, bool), ForwardError> {
        match self.pool.acquire(want, &self.stats).await {
            Ok(Grant::Open(permit)) => Ok((connect::connect(self, permit).await?, false)),
            Ok(Grant::Kept(lease)) => Ok((Lease::Http1(lease), true)),
            Ok(Grant::Stream(lease)) => Ok((Lease::Http2(lease), true)),
            Err(NoConnection::QueueFull) => {
                Err(ForwardError::QueueFull { endpoint: self.name(), queue_max: self.limits.queue_max })
            }
            Err(NoConnection::QueueTimeout) => {
                Err(ForwardError::QueueTimeout { endpoint: self.name(), limit: self.limits.queue_timeout })
            }
        }
    }

    async fn exchange(
        self: &Arc<Self>,
        mut lease: Lease,
        reused: bool,
        mut request: Request<ForwardBody>,
        limit: Duration,
    ) -> Result<ForwardedResponse, Failed> {
        let ready = match &lease {
            Lease::Http1(_) => self.target.make_http1(&mut request),
            Lease::Http2(_) => {
                request.body().release();
                self.target.make_http2(&mut request)
            }
        };
        if let Err(reason) = ready {
            let error = ForwardError::Unsendable { endpoint: self.name(), reason };
            return Err(Failed { error, unsent: Some(Box::new(request)) });
        }
        if reused {
            self.stats.count_reused();
        }
        let asks_upgrade = request.headers().contains_key(UPGRADE);
        let response = self.response_head(&mut lease, request, limit).await?;
        if let Err(error) = self.check_head(&response, asks_upgrade) {
            return Err(Failed { error, unsent: None });
        }
        let response = response.map(|incoming| OriginBody::new(incoming, lease, Arc::clone(self)));
        Ok(ForwardedResponse { response, endpoint: Arc::clone(self), reused })
    }

    async fn response_head(
        &self,
        lease: &mut Lease,
        mut request: Request<ForwardBody>,
        limit: Duration,
    ) -> Result<Response<Incoming>, Failed> {
        let progress = request.body_mut().watch();
        let watched = progress.clone();
        let answered = async {
            let (answer, has_ended) = match lease {
                Lease::Http1(lease) => (lease.sender().try_send_request(request).await, true),
                Lease::Http2(lease) => {
                    let answer = lease.sender.try_send_request(request).await;
                    (answer, lease.sender.is_closed())
                }
            };
            answer.map_err(|failure| self.send_failed(failure, has_ended, watched.as_deref()))
        };
        let timed_out =
            || Failed { error: ForwardError::ResponseTimeout { endpoint: self.name(), limit }, unsent: None };
        match progress {
            None => timeout(limit, answered).await.unwrap_or_else(|_| Err(timed_out())),
            Some(progress) => tokio::select! {
                answer = answered => answer,
                () = progress.stands_still(limit) => Err(timed_out()),
            },
        }
    }

    /// `has_ended` says that the connection has, and not the one stream of it alone.
    fn send_failed(
        &self,
        mut failure: TrySendError<Request<ForwardBody>>,
        has_ended: bool,
        progress: Option<&UploadProgress>,
    ) -> Failed {
        let unsent = failure.take_message().map(Box::new);
        let source = failure.into_error();
        let endpoint = self.name();
        let error = match unsent {
            Some(_) => ForwardError::NotSent { endpoint, source },
            // Over HTTP/2 hyper only says that the stream was reset.
            None if progress.is_some_and(UploadProgress::has_failed) => ForwardError::RequestBody { endpoint, source },
            None => self.classify(source, has_ended),
        };
        Failed { error, unsent }
    }

    fn classify(&self, source: hyper::Error, has_ended: bool) -> ForwardError {
        let endpoint = self.name();
        // hyper calls it the user's doing when its own connection task is gone; the request's content is not to blame.
        if source.is_user() && !source.to_string().contains("dispatch task is gone") {
            return ForwardError::RequestBody { endpoint, source };
        }
        if is_unprocessed(&source) {
            return ForwardError::NotProcessed { endpoint, source };
        }
        if source.is_parse() || !has_ended {
            return ForwardError::BadResponse { endpoint, source };
        }
        let stalled = source
            .source()
            .and_then(|cause| cause.downcast_ref::<io::Error>())
            .is_some_and(|cause| cause.kind() == io::ErrorKind::TimedOut);
        if stalled {
            return ForwardError::WriteStalled { endpoint, limit: self.timeouts.body_idle };
        }
        ForwardError::ClosedEarly { endpoint, source }
    }

    fn check_head(&self, response: &Response<Incoming>, asks_upgrade: bool) -> Result<(), ForwardError> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS && !asks_upgrade {
            return Err(ForwardError::UnexpectedUpgrade { endpoint: self.name() });
        }
        if response.headers().len() > HEADER_COUNT_MAX {
            return Err(ForwardError::TooManyFields { endpoint: self.name(), max: HEADER_COUNT_MAX });
        }
        Ok(())
    }
}
