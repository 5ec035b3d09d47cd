//! Fill: one fetch in a task of its own, from the forward request to the stored response.
//!
//! Always true:
//! - The task outlives the client that caused it, so a client that leaves takes nothing from those who wait. If nobody does, and no
//!   head has come, it ends.
//! - The purge position is read before the request leaves: a purge that comes later finds this response too old.
//! - Waiters learn the outcome before the first byte of content is read.
//! - An answer that is none to what was asked (a 304 about something else, another part) is not used: the whole is fetched.
//! - Bytes that stored parts lack are never an answer by themselves: where they may not be stored, the client's own request is sent.
//!
//! Not here: who waits (`collapse`), what becomes of the response in the store (`entry`).

use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use brim_semantics::{PurgeState, Refusal};
use brim_store::{Following, Position, StoredResponse};
use http::{Request, Response, StatusCode};
use tokio::sync::oneshot;

use super::collapse::{FillPermit, FlightKey, Landing};
use super::entry::{Begun, Declined, Entry, Freshening, KEYS_CUT, Times, Withheld};
use super::forward;
use super::partial::Ask;
use super::ranges::Growing;
use crate::origin::{Endpoint, ForwardBody, ForwardError, ForwardedResponse, OriginBody};

/// What came of a fetch, for the request that caused it.
pub(super) enum Filled {
    /// The origin confirmed the stored response (304); it is fresh again. The fields are for this client only.
    Validated(Arc<StoredResponse>, Withheld),
    /// The origin confirmed the stored response for this request, and forbade to keep it. The fields are for this client only.
    Confirmed(Arc<StoredResponse>, Declined, Withheld),
    /// A storable response is arriving.
    Following(Growing, Withheld),
    /// The response is for this client only.
    Passed(Response<OriginBody>, Declined),
    /// The origin answered a validation with this error, and the stored response may be used instead (RFC 9111 §4.3.3).
    ErrorStatus(Response<OriginBody>),
    /// No usable response.
    Failed(Arc<ForwardError>),
}

/// [`Filled`], and who answered.
pub(super) struct FetchReport {
    /// The outcome.
    pub(super) filled: Filled,
    /// The origin's status, if it answered.
    pub(super) status: Option<StatusCode>,
    /// The endpoint that answered.
    pub(super) endpoint: Option<Arc<Endpoint>>,
    /// What arrives is what stored parts lacked.
    pub(super) is_gap: bool,
    /// What Cache-Status has to say of how it is stored.
    pub(super) detail: Option<&'static str>,
}

/// A fetch about to begin.
pub(super) struct Fetch {
    pub(super) entry: Entry,
    pub(super) flight: FlightKey,
    pub(super) permit: Option<FillPermit>,
    pub(super) request: Request<ForwardBody>,
    pub(super) ask: Ask,
    /// What of a missing part the request needs itself.
    pub(super) needed_of_gap: Option<Range<u64>>,
    /// The stored responses that a 304 may be about.
    pub(super) offers: Vec<Arc<StoredResponse>>,
    /// The one that is offered is what the request would have been answered with.
    pub(super) is_validation: bool,
    /// Nobody waits for it: it runs to its end all the same.
    pub(super) is_background: bool,
}

impl Fetch {
    /// Nobody waits for it: it runs to its end all the same.
    pub(super) fn in_background(self) -> Self {
        Self { is_background: true, ..self }
    }

    /// Starts the task; the receiver gets its report as soon as the head is there.
    pub(super) fn start(self) -> oneshot::Receiver<FetchReport> {
        let (reply, report) = oneshot::channel();
        self.entry.cache.tasks.clone().spawn("fill", self.run(reply));
        report
    }

    async fn run(mut self, mut reply: oneshot::Sender<FetchReport>) {
        let cache = self.entry.cache.clone();
        let fetched_at = cache.store.position();
        self.drop_purged();
        let request_time = cache.clock.now();
        let forwarded = match self.send_while_wanted(fetched_at, &mut reply).await {
            Some(Ok(forwarded)) => forwarded,
            Some(Err(error)) => return self.fail(reply, Arc::new(error)),
            None => return,
        };
        let times = Times { request: request_time, response: cache.clock.now(), fetched_at };
        let (status, endpoint) = (forwarded.response.status(), Some(forwarded.endpoint));
        let is_gap = self.needed_of_gap.is_some();
        let report =
            |filled| FetchReport { filled, status: Some(status), endpoint: endpoint.clone(), is_gap, detail: None };
        if let Some(stored) = self.confirmed_by(&forwarded.response).cloned() {
            return self.freshen(&stored, &forwarded.response, times, reply, report).await;
        }
        if self.is_validation && !self.offers.is_empty() && brim_semantics::is_server_error(status) {
            self.announce(Landing::ServerError);
            let _ = reply.send(report(Filled::ErrorStatus(forwarded.response)));
            return;
        }
        match self.entry.begin(&forwarded.response, times, &self.ask) {
            Err(declined) => {
                self.decline(declined, status);
                let _ = reply.send(report(Filled::Passed(forwarded.response, declined)));
            }
            Ok(Begun { fill, withheld, awaited, is_cut }) => {
                let fill = if self.is_background { fill.in_background() } else { fill };
                let following = fill.follower();
                // Taken before anybody else can: the first reader is not refused for a purge that came meanwhile, and
                // that right belongs to the request that made the fetch.
                if let Some(growing) = self.growing(&following) {
                    let is_cut = is_cut.then_some(KEYS_CUT);
                    let _ = reply.send(FetchReport { detail: is_cut, ..report(Filled::Following(growing, withheld)) });
                }
                self.announce(Landing::Following(following));
                let is_joining = || self.permit.as_ref().is_some_and(FillPermit::has_waiters);
                if self.entry.pump(fill, awaited, forwarded.response.into_body(), is_joining).await {
                    cache.flights.forget_unshared(&self.flight);
                }
            }
        }
    }

    /// A purge may have come between the look-up and this fetch. Its position is read already, so a 304 would make the
    /// purged response look newer than its purge: fetch without it instead.
    fn drop_purged(&mut self) {
        let store = &self.entry.cache.store;
        let is_live = |stored: &Arc<StoredResponse>| store.purge_state(stored) != PurgeState::Hard;
        if self.offers.iter().all(is_live) {
            return;
        }
        self.offers.clear();
        let headers = self.request.headers_mut();
        forward::remove_conditions(headers);
        self.ask.write_to(headers, &self.entry.inbound_headers);
    }

    /// Sends the request. `None`: its client left before there was a head, and nobody else waits for it.
    async fn send_while_wanted(
        &mut self,
        fetched_at: Position,
        reply: &mut oneshot::Sender<FetchReport>,
    ) -> Option<Result<ForwardedResponse, ForwardError>> {
        let has_client = !self.is_background;
        let permit = self.permit.take();
        let answer = {
            let mut sending = pin!(self.send(fetched_at));
            tokio::select! {
                biased;
                answer = &mut sending => Some(answer),
                () = reply.closed(), if has_client => {
                    // Who joins in this moment is told that the fetch was abandoned, and fetches.
                    let is_wanted = permit.as_ref().is_some_and(FillPermit::has_waiters);
                    if is_wanted { Some(sending.await) } else { None }
                }
            }
        };
        self.permit = permit;
        answer
    }

    /// Sends the request; once more and without conditions where the answer is of no use: for the whole where it is none to what
    /// was asked, for what the client asked for where the missing part may not be stored.
    async fn send(&mut self, fetched_at: Position) -> Result<ForwardedResponse, ForwardError> {
        let origin = self.entry.route.origin.clone();
        let request = std::mem::replace(&mut self.request, Request::new(ForwardBody::empty()));
        if self.offers.is_empty() && !matches!(self.ask, Ask::Range(_)) {
            return origin.send(request).await;
        }
        let (mut parts, content) = request.into_parts();
        let again = content.copy().unwrap_or_else(ForwardBody::empty);
        let forwarded = origin.send(Request::from_parts(parts.clone(), content)).await?;
        let is_other =
            forwarded.response.status() == StatusCode::NOT_MODIFIED && self.confirmed_by(&forwarded.response).is_none();
        let is_missed = is_other || self.ask.is_missed_by(&forwarded.response);
        if !is_missed && !self.is_gap_for_nobody(&forwarded.response, fetched_at) {
            return Ok(forwarded);
        }
        tracing::debug!(target = %self.entry.target, status = %forwarded.response.status(), "not what is of use: fetched again");
        // Its connection, and its place among the requests under way, are free for the next one.
        drop(forwarded);
        if is_other && self.is_validation {
            self.entry.cache.store.remove(&self.entry.key);
        }
        self.offers.clear();
        self.ask = if is_missed { Ask::Whole } else { Ask::of_client(&self.entry.method, &self.entry.inbound_headers) };
        self.needed_of_gap = None;
        forward::remove_conditions(&mut parts.headers);
        self.ask.write_to(&mut parts.headers, &self.entry.inbound_headers);
        origin.send(Request::from_parts(parts, again)).await
    }

    /// True for the bytes that stored parts lack, if they may not be stored: the client has not asked for them alone.
    fn is_gap_for_nobody(&self, response: &Response<OriginBody>, fetched_at: Position) -> bool {
        let now = self.entry.cache.clock.now();
        let times = Times { request: now, response: now, fetched_at };
        matches!(self.ask, Ask::Range(_))
            && response.status() == StatusCode::PARTIAL_CONTENT
            && self.entry.head(response, times, &self.ask).is_err()
    }

    /// The stored response that a 304 is about.
    fn confirmed_by(&self, response: &Response<OriginBody>) -> Option<&Arc<StoredResponse>> {
        if response.status() != StatusCode::NOT_MODIFIED {
            return None;
        }
        let selects = |stored: &&Arc<StoredResponse>| {
            brim_semantics::not_modified_selects(response.headers(), &stored.head.headers, self.is_validation)
        };
        self.offers.iter().find(selects)
    }

    async fn freshen(
        self,
        stored: &Arc<StoredResponse>,
        response: &Response<OriginBody>,
        times: Times,
        reply: oneshot::Sender<FetchReport>,
        report: impl Fn(Filled) -> FetchReport,
    ) {
        match self.entry.freshen(stored, response.headers(), times) {
            Freshening::Forbidden(declined, withheld) => {
                self.announce(Landing::Declined);
                let _ = reply.send(report(Filled::Confirmed(stored.clone(), declined, withheld)));
            }
            Freshening::Kept(freshened, withheld) if self.is_validation => {
                self.announce(Landing::Stored(freshened.clone()));
                let _ = reply.send(report(Filled::Validated(freshened, withheld)));
            }
            Freshening::Kept(selected, withheld) => {
                let Some(fill) = self.entry.begin_copy(&selected) else {
                    let _ = reply.send(report(Filled::Validated(selected, withheld)));
                    return;
                };
                let following = fill.follower();
                if let Some(growing) = self.growing(&following) {
                    let _ = reply.send(report(Filled::Following(growing, withheld)));
                }
                self.announce(Landing::Following(following));
                self.entry.copy(fill, &selected).await;
            }
        }
    }

    /// The filler's own view of the content.
    fn growing(&self, following: &Arc<Following>) -> Option<Growing> {
        let part = following.head().part;
        match self.needed_of_gap.clone().filter(|_| part.is_some()) {
            Some(needed) => Growing::of_range(following, needed),
            None => Growing::join_first(following, &self.entry.method, &self.entry.inbound_headers),
        }
    }

    fn announce(&self, landing: Landing) {
        if let Some(permit) = &self.permit {
            permit.announce(landing);
        }
    }

    fn fail(self, reply: oneshot::Sender<FetchReport>, error: Arc<ForwardError>) {
        self.entry.route.note_forward_failure(&self.entry.target, &error);
        self.announce(Landing::Failed(error.clone()));
        let filled = Filled::Failed(error);
        let _ = reply.send(FetchReport { filled, status: None, endpoint: None, is_gap: false, detail: None });
    }

    fn decline(&self, declined: Declined, status: StatusCode) {
        // A request's own no-store, or an error that is about one request, says nothing of the next one, and an origin in
        // trouble needs collapsing most.
        let is_passing = matches!(declined, Declined::Refused(Refusal::RequestNoStore | Refusal::Status))
            || brim_semantics::is_server_error(status);
        if !is_passing {
            self.entry.cache.flights.remember_unshared(self.flight, declined.as_detail());
        }
        self.announce(Landing::Declined);
    }
}
