//! How often a request is sent: once, unless it cannot have been processed, or may be processed twice and its origin allows that.
//!
//! Always true:
//! - Each attempt goes to an endpoint that this request was not sent to, at most [`RetryConfig::max`] further ones.
//! - A request that may have been processed is repeated only if its method is idempotent (RFC 9110 §9.2.2), its content can be
//!   sent again, and `retries.idempotent` says so; a second one beside it (hedging) only for GET and HEAD without content.
//! - Repetitions, but for those of requests that never left this node, are paid for from a budget: a share of the requests of
//!   the origin. An origin in trouble does not get a multiple of its load.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::header::{HOST, HeaderValue, UPGRADE};
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::body::ForwardBody;
use super::endpoint::{Failed, speaks_against};
use super::error::{ErrorKind, ForwardError};
use super::group::Group;
use super::{Affinity, ForwardedResponse, Origin, framing};
use crate::config::{Balance, RetryConfig};

/// What is in the budget at the start, and again after a quiet time: so few repetitions hurt nobody.
const BUDGET_START: i64 = 10;
/// What it holds at most: unused for long, it allows no storm.
const BUDGET_MAX: i64 = 100;
/// The budget is reckoned with in hundredths of a repetition.
const PARTS: i64 = 100;
/// Answers before their times say anything.
const TIMES_MIN: u64 = 100;
/// Answers after which those before count half.
const TIMES_HALVED_AT: u64 = 2_000;

/// Why a request was sent to a further endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Further {
    /// The one before could not be reached: nothing had been sent.
    Unreachable,
    /// The one before failed with the request.
    Failed,
    /// The one before answered with a status that is repeated.
    Status,
    /// The one before takes long: whichever answers first counts.
    Hedge,
}

impl Further {
    /// All of them, as metrics name them.
    pub const ALL: [Self; 4] = [Self::Unreachable, Self::Failed, Self::Status, Self::Hedge];

    /// The word for it in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
            Self::Status => "status",
            Self::Hedge => "hedge",
        }
    }
}

/// Counts of further attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttemptCounts {
    /// Further attempts, in the order of [`Further::ALL`].
    pub further: [u64; Further::ALL.len()],
    /// Hedges that answered first.
    pub hedges_won: u64,
    /// Repetitions that the budget did not allow.
    pub unpaid: u64,
}

/// The rules and the state of one origin.
#[derive(Debug)]
pub(super) struct Attempts {
    config: RetryConfig,
    response_timeout: Duration,
    budget: Budget,
    times: Option<Mutex<Times>>,
    further: [AtomicU64; Further::ALL.len()],
    hedges_won: AtomicU64,
    unpaid: AtomicU64,
}

impl Attempts {
    pub(super) fn new(config: &RetryConfig, response_timeout: Duration) -> Self {
        Self {
            config: config.clone(),
            response_timeout,
            budget: Budget::new(config.budget),
            times: config.hedge_percentile.map(|_| Mutex::default()),
            further: Default::default(),
            hedges_won: AtomicU64::new(0),
            unpaid: AtomicU64::new(0),
        }
    }

    pub(super) fn counts(&self) -> AttemptCounts {
        AttemptCounts {
            further: std::array::from_fn(|kind| self.further[kind].load(Relaxed)),
            hedges_won: self.hedges_won.load(Relaxed),
            unpaid: self.unpaid.load(Relaxed),
        }
    }

    fn count(&self, further: Further) {
        self.further[further as usize].fetch_add(1, Relaxed);
    }

    fn may_pay(&self) -> bool {
        let is_paid = self.budget.take();
        self.unpaid.fetch_add(u64::from(!is_paid), Relaxed);
        is_paid
    }

    /// The same request once more, if it may be processed twice.
    fn copy(&self, request: &Request<ForwardBody>) -> Option<Request<ForwardBody>> {
        if !self.config.idempotent || !is_idempotent(request.method()) {
            return None;
        }
        copy(request)
    }

    /// For the head of the response to one attempt, which may be followed by another.
    fn limit(&self, is_followed: bool, deadline: Option<Instant>) -> Duration {
        let one = self.config.try_timeout.filter(|_| is_followed);
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        one.into_iter().chain(left).fold(self.response_timeout, Duration::min)
    }

    /// Whether another endpoint is asked after an answer of this status.
    fn repeats(&self, status: StatusCode) -> bool {
        self.config.statuses.iter().any(|range| range.contains(&status.as_u16()))
    }

    /// After how long a second one is sent beside this request.
    fn hedge_after(&self, request: &Request<ForwardBody>) -> Option<Duration> {
        let percentile = self.config.hedge_percentile?;
        let is_plain = matches!(*request.method(), Method::GET | Method::HEAD);
        if !is_plain || request.body().has_content() || request.headers().contains_key(UPGRADE) {
            return None;
        }
        self.times.as_ref()?.lock().percentile(percentile)
    }

    fn answered(&self, after: Duration) {
        if let Some(times) = &self.times {
            times.lock().note(after);
        }
    }
}

/// The same request once more; an upgrade ends in a tunnel, of which there is one.
pub(super) fn copy(request: &Request<ForwardBody>) -> Option<Request<ForwardBody>> {
    if request.headers().contains_key(UPGRADE) {
        return None;
    }
    let content = request.body().copy()?;
    let mut copied = Request::new(content);
    *copied.method_mut() = request.method().clone();
    *copied.uri_mut() = request.uri().clone();
    *copied.headers_mut() = request.headers().clone();
    *copied.extensions_mut() = request.extensions().clone();
    Some(copied)
}

/// RFC 9110 §9.2.2; QUERY is safe.
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
        || method.as_str() == "QUERY"
}

/// Whether another endpoint may do better. The node's own limits, and the request itself, are the same there.
fn may_do_better(error: &ForwardError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotSent
            | ErrorKind::NotProcessed
            | ErrorKind::ClosedEarly
            | ErrorKind::WriteStalled
            | ErrorKind::ResponseTimeout
            | ErrorKind::BadResponse
    )
}

impl Origin {
    /// Sends a request, to further endpoints if need be, until one answers.
    pub(super) async fn attempt(
        &self,
        mut request: Request<ForwardBody>,
        deadline: Option<Instant>,
    ) -> Result<ForwardedResponse, ForwardError> {
        let rules = &self.attempts;
        rules.budget.deposit();
        let affinity = self.affinity_of(&request);
        let mut tried = Vec::new();
        let none = || ForwardError::NoEndpoint { origin: self.name.clone() };
        let group = self.group().await;
        let mut place = self.choose(&group, &tried, affinity).ok_or_else(none)?;
        loop {
            let is_last = tried.len() >= rules.config.max;
            let again = if is_last { None } else { rules.copy(&request) };
            let limit = rules.limit(again.is_some(), deadline);
            tried.push(place);
            let began = rules.times.as_ref().filter(|_| request.body().may_be_resent()).map(|_| Instant::now());
            let hedge_after = rules.hedge_after(&request).filter(|_| !is_last);
            let sending = async {
                match hedge_after {
                    Some(after) => self.hedged(&group, place, request, limit, after, &mut tried).await,
                    None => group.endpoints()[place].send(request, limit).await,
                }
            };
            let answer = match &again {
                None => sending.await,
                // Waiting for a connection counts as well.
                Some(_) => timeout(limit, sending).await.unwrap_or_else(|_| {
                    let endpoint = group.endpoints()[place].name();
                    Err(Failed { error: ForwardError::ResponseTimeout { endpoint, limit }, unsent: None })
                }),
            };
            let (outcome, next, why) = match answer {
                Ok(forwarded) => {
                    if let Some(began) = began {
                        rules.answered(began.elapsed());
                    }
                    if !rules.repeats(forwarded.response.status()) {
                        return Ok(settled(forwarded));
                    }
                    (Ok(settled(forwarded)), again, Further::Status)
                }
                Err(Failed { error, unsent: Some(unsent) }) if error.is_unsent() => {
                    (Err(error), (!is_last).then_some(*unsent), Further::Unreachable)
                }
                Err(Failed { error, .. }) if may_do_better(&error) => (Err(error), again, Further::Failed),
                Err(Failed { error, .. }) => return Err(error),
            };
            let Some(next) = next else { return outcome };
            let Some(other) = self.choose(&group, &tried, affinity) else { return outcome };
            if why != Further::Unreachable && !rules.may_pay() {
                return outcome;
            }
            rules.count(why);
            tracing::debug!(origin = self.name, why = why.as_str(), endpoint = %group.endpoints()[other].name(), "sent to a further endpoint");
            (request, place) = (next, other);
        }
    }

    /// The endpoints as they are now; before the first answer of a discovery that is waited for.
    async fn group(&self) -> Arc<Group> {
        let group = self.group.load_full();
        if !group.endpoints().is_empty() {
            return group;
        }
        let _ = timeout(self.maker.config.connect_timeout, self.look_up_first()).await;
        self.group.load_full()
    }

    /// Sends a request, and a second one to another endpoint if the first is not answered in time. The first answer counts; the
    /// other request is dropped.
    async fn hedged(
        &self,
        group: &Group,
        place: usize,
        request: Request<ForwardBody>,
        limit: Duration,
        after: Duration,
        tried: &mut Vec<usize>,
    ) -> Result<ForwardedResponse, Failed> {
        let (copied, affinity) = (copy(&request), self.affinity_of(&request));
        let mut first = Box::pin(group.endpoints()[place].send(request, limit));
        if let Ok(answer) = timeout(after, &mut first).await {
            return answer;
        }
        let other = self.choose(group, tried, affinity);
        let (Some(copied), Some(other)) = (copied, other) else { return first.await };
        if !self.attempts.may_pay() {
            return first.await;
        }
        self.attempts.count(Further::Hedge);
        tried.push(other);
        let mut second = Box::pin(group.endpoints()[other].send(copied, limit));
        // An answer that speaks against its endpoint does not win as long as the other may be better.
        let (answer, other) = tokio::select! {
            answer = &mut first => if self.is_good(&answer) { return answer } else { (answer, second) },
            answer = &mut second => if self.is_good(&answer) {
                self.attempts.hedges_won.fetch_add(1, Relaxed);
                return answer;
            } else {
                (answer, first)
            },
        };
        match (answer, other.await) {
            (Ok(bad), Err(_)) => Ok(bad),
            // One of the two may have been processed, whatever became of the other.
            (_, Err(Failed { error, .. })) => Err(Failed { error, unsent: None }),
            (_, answer) => answer,
        }
    }

    fn is_good(&self, answer: &Result<ForwardedResponse, Failed>) -> bool {
        let Ok(forwarded) = answer else { return false };
        let status = forwarded.response.status();
        !speaks_against(status) && !self.attempts.repeats(status)
    }

    /// What a request has in common with those that go to the same endpoint: its cache key, or else its URL.
    fn affinity_of(&self, request: &Request<ForwardBody>) -> Option<u64> {
        if self.maker.config.balance != Balance::ConsistentHash {
            return None;
        }
        if let Some(Affinity(key)) = request.extensions().get() {
            return Some(*key);
        }
        let host = request.headers().get(HOST).map_or(&b""[..], HeaderValue::as_bytes);
        let target = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
        Some(xxhash_rust::xxh3::xxh3_64_with_seed(target.as_bytes(), xxhash_rust::xxh3::xxh3_64(host)))
    }
}

fn settled(mut forwarded: ForwardedResponse) -> ForwardedResponse {
    framing::settle(forwarded.response.headers_mut());
    forwarded
}

/// What may be repeated: a share of the requests, and a little.
#[derive(Debug)]
struct Budget {
    percent: i64,
    left: AtomicI64,
}

impl Budget {
    fn new(percent: u32) -> Self {
        let start = if percent == 0 { 0 } else { BUDGET_START * PARTS };
        Self { percent: i64::from(percent), left: AtomicI64::new(start) }
    }

    /// A request came.
    fn deposit(&self) {
        if self.left.load(Relaxed) < BUDGET_MAX * PARTS {
            self.left.fetch_add(self.percent, Relaxed);
        }
    }

    /// True: one may be repeated.
    fn take(&self) -> bool {
        let less = |left: i64| (left >= PARTS).then_some(left - PARTS);
        self.left.fetch_update(Relaxed, Relaxed, less).is_ok()
    }
}

/// How long answers took, in buckets that grow by a quarter; older ones count less and less.
#[derive(Debug)]
struct Times {
    buckets: [u64; BUCKETS],
    count: u64,
}

/// From 100 µs on, to about ten minutes.
const BUCKETS: usize = 72;
const FIRST_BUCKET: Duration = Duration::from_micros(100);
const GROWTH: f64 = 1.25;

impl Default for Times {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], count: 0 }
    }
}

impl Times {
    fn bound(bucket: usize) -> Duration {
        let exponent = i32::try_from(bucket).unwrap_or(i32::MAX);
        FIRST_BUCKET.mul_f64(GROWTH.powi(exponent))
    }

    fn note(&mut self, time: Duration) {
        let bucket = (0..BUCKETS - 1).find(|bucket| time <= Self::bound(*bucket)).unwrap_or(BUCKETS - 1);
        self.buckets[bucket] += 1;
        self.count += 1;
        if self.count >= TIMES_HALVED_AT {
            self.buckets.iter_mut().for_each(|count| *count /= 2);
            self.count = self.buckets.iter().sum();
        }
    }

    /// The time within which so many percent were answered, as far as known.
    fn percentile(&self, percentile: u32) -> Option<Duration> {
        if self.count < TIMES_MIN {
            return None;
        }
        let wanted = (self.count * u64::from(percentile)).div_ceil(100);
        let mut sum = 0;
        let bucket = self.buckets.iter().position(|count| {
            sum += count;
            sum >= wanted
        })?;
        Some(Self::bound(bucket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_a_share_of_the_requests_and_a_little() {
        let budget = Budget::new(20);
        let taken = |count: usize| (0..count).filter(|_| budget.take()).count();
        assert_eq!(taken(100), 10, "the little");
        (0..100).for_each(|_| budget.deposit());
        assert_eq!(taken(100), 20);
        (0..100_000).for_each(|_| budget.deposit());
        assert_eq!(taken(1_000), 100, "what was not used for long is no storm");
        let none = Budget::new(0);
        (0..1_000).for_each(|_| none.deposit());
        assert!(!none.take());
    }

    #[test]
    fn a_percentile_follows_the_times() {
        let mut times = Times::default();
        for n in 0..99 {
            times.note(Duration::from_millis(if n % 10 == 0 { 50 } else { 5 }));
            assert_eq!(times.percentile(95), None, "too few");
        }
        times.note(Duration::from_millis(5));
        let (half, most) = (times.percentile(50).expect("known"), times.percentile(95).expect("known"));
        assert!(half >= Duration::from_millis(5) && half < Duration::from_millis(7), "{half:?}");
        assert!(most >= Duration::from_millis(50) && most < Duration::from_millis(63), "{most:?}");
        (0..20_000).for_each(|_| times.note(Duration::from_millis(1)));
        assert!(times.percentile(99).is_some_and(|time| time < Duration::from_millis(2)), "the past is forgotten");
        times.note(Duration::from_secs(86_400));
    }

    #[test]
    fn methods_are_idempotent_by_the_rfc() {
        for (method, is) in
            [("GET", true), ("PUT", true), ("DELETE", true), ("QUERY", true), ("POST", false), ("PATCH", false)]
        {
            assert_eq!(is_idempotent(&Method::from_bytes(method.as_bytes()).expect("a method")), is, "{method}");
        }
    }
}
