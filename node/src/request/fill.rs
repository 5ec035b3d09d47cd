//! Fill: one fetch in a task of its own, from the forward request to the stored response.
//!
//! Always true:
//! - The task outlives the client that caused it, so a client that leaves takes nothing from those who wait.
//! - The purge position is read before the request leaves: a purge that comes later finds this response too old.
//! - Waiters learn the outcome before the first byte of content is read.
//! - A content cut short is aborted, never stored as complete.
//!
//! Not here: who waits (`collapse`), what a response may be stored for (`brim_semantics::storable`).

use std::sync::Arc;
use std::time::SystemTime;

use brim_semantics::{CacheKey, Nominated, PurgeState, Qualified, Refusal, RequestFacts, ResponseDirectives, Storable};
use brim_store::{BodyReader, Fill, Finished, Following, Position, ResponseHead, Scope, StoredResponse};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use tokio::sync::oneshot;

use super::collapse::{FillPermit, FlightKey, Landing};
use super::{Cache, forward, respond};
use crate::origin::{Endpoint, ForwardBody, ForwardError, ForwardedResponse, OriginBody};
use crate::route::Route;

/// What came of a fetch, for the request that caused it.
pub enum Filled {
    /// The origin confirmed the stored response (304); it is fresh again.
    Validated(Arc<StoredResponse>),
    /// The origin confirmed the stored response for this request, and forbade to keep it.
    Confirmed(Arc<StoredResponse>, Declined),
    /// A storable response is arriving.
    Following(Arc<Following>, BodyReader, Withheld),
    /// The response is for this client only.
    Passed(Response<OriginBody>, Declined),
    /// The origin answered a validation with this error, and the stored response may be used instead (RFC 9111 §4.3.3).
    ErrorStatus(Response<OriginBody>),
    /// No usable response.
    Failed(Arc<ForwardError>),
}

/// Fields that `no-cache="field"` or `private="field"` keeps out of the store (RFC 9111 §5.2.2.4, §5.2.2.7): for the client that
/// caused the fetch, and nobody else.
pub type Withheld = HeaderMap;

/// Why a response is for its client only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declined {
    /// A rule forbids to store it.
    Refused(Refusal),
    /// It is larger than `store.object_max`.
    TooLarge,
    /// It carries more or longer surrogate keys than can be kept.
    SurrogateKeys,
    /// A 304 nominates other fields than the stored response does.
    VaryChanged,
}

impl Declined {
    /// What Cache-Status and the access log call it.
    pub fn as_detail(self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.as_detail(),
            Self::TooLarge => "too-large",
            Self::SurrogateKeys => "surrogate-keys-overflow",
            Self::VaryChanged => "vary-changed",
        }
    }

    /// True if the request's own fields forbid it: what is stored for others stays.
    fn is_by_request(self) -> bool {
        match self {
            Self::Refused(refusal) => {
                matches!(refusal, Refusal::RequestNoStore | Refusal::Authorization | Refusal::Method)
            }
            Self::TooLarge | Self::SurrogateKeys | Self::VaryChanged => false,
        }
    }
}

/// [`Filled`], and who answered.
pub struct FetchReport {
    /// The outcome.
    pub filled: Filled,
    /// The origin's status, if it answered.
    pub status: Option<StatusCode>,
    /// The endpoint that answered.
    pub endpoint: Option<Arc<Endpoint>>,
}

/// When a fetch went out and when its head came back.
#[derive(Debug, Clone, Copy)]
struct Times {
    request: SystemTime,
    response: SystemTime,
}

/// What a 304 made of the stored response.
enum Freshening {
    Kept(Arc<StoredResponse>),
    Forbidden(Declined),
}

/// A fetch about to begin.
pub(super) struct Fetch {
    pub(super) cache: Arc<Cache>,
    pub(super) route: Arc<Route>,
    pub(super) key: CacheKey,
    pub(super) flight: FlightKey,
    pub(super) permit: Option<FillPermit>,
    pub(super) request: Request<ForwardBody>,
    /// The request's own fields: what `Vary` nominates is read from them.
    pub(super) inbound_headers: HeaderMap,
    pub(super) target: Uri,
    /// The stored response to validate.
    pub(super) validates: Option<Arc<StoredResponse>>,
    pub(super) plugin: Option<[u8; 32]>,
}

impl Fetch {
    /// Starts the task; the receiver gets its report as soon as the head is there.
    pub(super) fn start(self) -> oneshot::Receiver<FetchReport> {
        let (reply, report) = oneshot::channel();
        self.cache.tasks.clone().spawn("fill", self.run(reply));
        report
    }

    async fn run(mut self, reply: oneshot::Sender<FetchReport>) {
        let fetched_at = self.cache.store.position();
        self.drop_purged();
        let request_time = self.cache.clock.now();
        let forwarded = match self.send().await {
            Ok(forwarded) => forwarded,
            Err(error) => return self.fail(reply, Arc::new(error)),
        };
        let times = Times { request: request_time, response: self.cache.clock.now() };
        let (status, endpoint) = (forwarded.response.status(), Some(forwarded.endpoint));
        let report = |filled| FetchReport { filled, status: Some(status), endpoint: endpoint.clone() };
        if let Some(stored) = self.validates.take() {
            if status == StatusCode::NOT_MODIFIED {
                let filled = match self.freshen(&stored, forwarded.response.headers(), times, fetched_at) {
                    Freshening::Kept(freshened) => {
                        self.announce(Landing::Stored(freshened.clone()));
                        Filled::Validated(freshened)
                    }
                    Freshening::Forbidden(refusal) => {
                        self.announce(Landing::Declined);
                        Filled::Confirmed(stored, refusal)
                    }
                };
                let _ = reply.send(report(filled));
                return;
            }
            if brim_semantics::is_server_error(status) {
                self.announce(Landing::ServerError);
                let _ = reply.send(report(Filled::ErrorStatus(forwarded.response)));
                return;
            }
        }
        match self.begin_fill(&forwarded.response, times, fetched_at) {
            Err(declined) => {
                self.decline(declined, status);
                let _ = reply.send(report(Filled::Passed(forwarded.response, declined)));
            }
            Ok((fill, withheld)) => {
                let following = fill.follower();
                // Taken before anybody else can: the first reader is not refused for a purge that came meanwhile, and
                // that right belongs to the request that made the fetch.
                if let Some(content) = following.read() {
                    let _ = reply.send(report(Filled::Following(following.clone(), content, withheld)));
                }
                self.announce(Landing::Following(following));
                self.pump(fill, forwarded.response.into_body()).await;
            }
        }
    }

    /// A purge may have come between the look-up and this fetch. Its position is read already, so a 304 would make the
    /// purged response look newer than its purge: fetch it whole instead.
    fn drop_purged(&mut self) {
        let is_purged = |stored: &Arc<StoredResponse>| self.cache.store.purge_state(stored) == PurgeState::Hard;
        if self.validates.as_ref().is_some_and(is_purged) {
            self.validates = None;
            forward::remove_conditions(self.request.headers_mut());
        }
    }

    /// Sends the request; once more, without conditions, where a 304 confirms something that is not stored.
    async fn send(&mut self) -> Result<ForwardedResponse, ForwardError> {
        let request = std::mem::replace(&mut self.request, Request::new(ForwardBody::empty()));
        let Some(stored) = &self.validates else { return self.route.origin.send(request).await };
        let (mut parts, content) = request.into_parts();
        let forwarded = self.route.origin.send(Request::from_parts(parts.clone(), content)).await?;
        let response = &forwarded.response;
        let is_other = response.status() == StatusCode::NOT_MODIFIED
            && !brim_semantics::not_modified_selects(response.headers(), &stored.head.headers, true);
        if !is_other {
            return Ok(forwarded);
        }
        tracing::debug!(target = %self.target, "a 304 names another validator than the stored one: fetched whole");
        self.cache.store.remove(&self.key);
        self.validates = None;
        forward::remove_conditions(&mut parts.headers);
        self.route.origin.send(Request::from_parts(parts, ForwardBody::empty())).await
    }

    fn announce(&self, landing: Landing) {
        if let Some(permit) = &self.permit {
            permit.announce(landing);
        }
    }

    fn fail(self, reply: oneshot::Sender<FetchReport>, error: Arc<ForwardError>) {
        self.route.note_forward_failure(&self.target, &error);
        self.announce(Landing::Failed(error.clone()));
        let _ = reply.send(FetchReport { filled: Filled::Failed(error), status: None, endpoint: None });
    }

    fn decline(&self, declined: Declined, status: StatusCode) {
        // A request's own no-store says nothing of the next request, and an origin in trouble needs collapsing most.
        let is_passing =
            declined == Declined::Refused(Refusal::RequestNoStore) || brim_semantics::is_server_error(status);
        if !is_passing {
            self.cache.flights.remember_unshared(self.flight, declined.as_detail());
        }
        self.announce(Landing::Declined);
    }

    /// RFC 9111 §4.3.4: the stored response with the fields of the 304, as fresh as the 304 makes it. `Err`: the 304 forbids
    /// to keep it; it may still answer this request.
    fn freshen(
        &self,
        stored: &Arc<StoredResponse>,
        fields: &HeaderMap,
        times: Times,
        fetched_at: Position,
    ) -> Freshening {
        let facts = RequestFacts { method: &Method::GET, headers: &self.inbound_headers, target: &self.target };
        let policy = &self.route.config.policy;
        let status = stored.head.status;
        let freshened = brim_semantics::freshened(
            &facts,
            status,
            &stored.head.headers,
            fields,
            policy,
            times.request,
            times.response,
        );
        match freshened.storable {
            Storable::Yes(_) if !nominates_the_same(&freshened.headers, stored) => {
                self.cache.store.remove(&self.key);
                Freshening::Forbidden(Declined::VaryChanged)
            }
            Storable::Yes(meta) => {
                Freshening::Kept(self.cache.store.freshen(stored, freshened.headers, meta, fetched_at))
            }
            Storable::No(refusal) => {
                let declined = Declined::Refused(refusal);
                // What this request's own fields forbid takes nothing from the others.
                if !declined.is_by_request() {
                    self.cache.store.remove(&self.key);
                }
                Freshening::Forbidden(declined)
            }
        }
    }

    fn begin_fill(
        &self,
        response: &Response<OriginBody>,
        times: Times,
        fetched_at: Position,
    ) -> Result<(Fill, Withheld), Declined> {
        let policy = &self.route.config.policy;
        let facts = RequestFacts { method: &Method::GET, headers: &self.inbound_headers, target: &self.target };
        let meta = match brim_semantics::storable(
            &facts,
            response.status(),
            response.headers(),
            policy,
            times.request,
            times.response,
        ) {
            Storable::Yes(_) if response.status() == StatusCode::PARTIAL_CONTENT => {
                return Err(Declined::Refused(Refusal::Partial));
            }
            Storable::Yes(meta) => meta,
            Storable::No(refusal) => return Err(Declined::Refused(refusal)),
        };
        let nominated = Nominated::of(response.headers(), &self.inbound_headers)
            .map_err(|_| Declined::Refused(Refusal::VaryStar))?;
        let length = http_body::Body::size_hint(response.body()).exact();
        let object_max = self.cache.snapshot.load().config.store.object_max;
        if length.is_some_and(|length| length > object_max) {
            return Err(Declined::TooLarge);
        }
        let directives = ResponseDirectives::parse(response.headers(), policy);
        let mut headers = brim_semantics::stored_headers(response.headers(), &directives);
        let withheld = withheld(response.headers(), &directives);
        respond::prepare(&mut headers, response.version(), times.response);
        let (surrogate_keys, is_cut) = brim_semantics::surrogate_keys(response.headers());
        if is_cut {
            // A purge by one of the keys that were cut would miss it.
            return Err(Declined::SurrogateKeys);
        }
        let head = ResponseHead {
            key: self.key.clone(),
            scope: self.scope(),
            status: response.status(),
            headers,
            nominated,
            part: None,
            meta,
            surrogate_keys,
            fetched_at,
            plugin: self.plugin,
        };
        Ok((self.cache.store.begin(head, length), withheld))
    }

    fn scope(&self) -> Scope {
        Scope {
            site: self.route.site.clone(),
            authority: self.target.authority().map_or("", |authority| authority.as_str()).into(),
            path: self.target.path().into(),
            query: self.target.query().map(Into::into),
        }
    }

    async fn pump(self, mut fill: Fill, mut content: OriginBody) {
        let mut trailers = None;
        while let Some(frame) = content.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    tracing::warn!(target = %self.target, error = %respond::chain(&error), "the origin's response was cut short: not stored");
                    return;
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    if let Err(error) = fill.append(data).await {
                        tracing::warn!(target = %self.target, %error, "fill aborted");
                        return;
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        match fill.finish(trailers).await {
            Finished::Stored(_) => self.cache.flights.forget_unshared(&self.flight),
            Finished::NotStored(reason) => tracing::debug!(target = %self.target, ?reason, "response not stored"),
        }
    }
}

/// Whether updated fields still nominate what the stored ones do. If not, nobody knows which requests select the response: what
/// its own request had in the fields that are nominated now was not kept (RFC 9111 §4.1).
pub(super) fn nominates_the_same(updated: &HeaderMap, stored: &StoredResponse) -> bool {
    Nominated::of(updated, &HeaderMap::new()).is_ok_and(|nominated| nominated.names().eq(stored.head.nominated.names()))
}

fn withheld(headers: &HeaderMap, directives: &ResponseDirectives) -> Withheld {
    let named = [&directives.no_cache, &directives.private].into_iter().filter_map(|qualified| match qualified {
        Qualified::Fields(names) => Some(names),
        Qualified::Absent | Qualified::Whole => None,
    });
    let mut withheld = Withheld::new();
    for name in named.flatten().filter(|name| !brim_semantics::is_hop_by_hop(name)) {
        if !withheld.contains_key(name) {
            withheld.extend(headers.get_all(name).iter().map(|value| (name.clone(), value.clone())));
        }
    }
    withheld
}
