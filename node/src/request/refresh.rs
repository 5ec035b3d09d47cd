//! Refresh: what a soft purge made stale and people ask for is validated before they ask again, the most asked for first.
//!
//! Always true:
//! - An origin is not asked faster than it answers: each place that has asked rests as long as the answer took, and there are fewer
//!   places while answers take twice as long as the quickest.
//! - What nobody asked for in the last minutes is left to be validated on demand, and so is what a refresh cannot ask for: a response
//!   whose key needs more of its request than is stored.
//! - One purge is worked on at a time; at most [`WAITING_MAX`] wait.
//!
//! Not here: the validation itself (`fill`), what is popular (`brim_store`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use brim_semantics::{PurgeState, Why};
use brim_store::{Popular, Selector, StoredResponse};
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Uri};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::accept::Inbound;
use super::exchange::Exchange;
use super::fetch::Permit;
use super::key::{self, Keyed};
use super::need::{Errand, Held, Need};
use super::{Cache, Routed, forward, tags};
use crate::telemetry::Family;

/// Soft purges that wait to be worked on.
const WAITING_MAX: usize = 64;
/// Responses that are refreshed after one purge.
pub const REFRESHED_MAX: usize = 10_000;
/// Requests at a time.
const PLACES_MAX: usize = 8;
/// Answers after which a further place is tried.
const ANSWERS_A_STEP: usize = 8;
/// An answer that takes so many times the quickest says that the origin is busy.
const BUSY_FACTOR: u32 = 2;
/// Below this nothing is concluded from a time: a millisecond more is no load.
const LATENCY_MIN: Duration = Duration::from_millis(5);
/// Failures in a row after which the rest of a purge is left.
const FAILURES_MAX: usize = 3;
/// After a failure.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Takes soft purges in. Clones share the queue.
#[derive(Debug, Clone)]
pub struct Refresher(mpsc::Sender<Vec<Selector>>);

/// The soft purges that were taken in.
#[derive(Debug)]
pub struct Refreshing(mpsc::Receiver<Vec<Selector>>);

impl Refresher {
    /// A queue, and its end for [`run`].
    pub fn new() -> (Self, Refreshing) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), Refreshing(receiver))
    }

    /// Has refreshed what was purged softly. False: too many wait, and it is validated on demand.
    pub fn refresh(&self, selectors: Vec<Selector>) -> bool {
        self.0.try_send(selectors).is_ok()
    }
}

/// Works on one purge after the other, for ever.
pub(crate) async fn run(cache: Arc<Cache>, mut refreshing: Refreshing) {
    while let Some(selectors) = refreshing.0.recv().await {
        let popular = cache.store.popular(&selectors, REFRESHED_MAX).await;
        let asked_for: Vec<Popular> = popular.into_iter().filter(|popular| popular.hits > 0.0).collect();
        if asked_for.is_empty() {
            continue;
        }
        let (count, began) = (asked_for.len(), Instant::now());
        let refreshed = in_order(&cache, asked_for).await;
        tracing::info!(count, refreshed, took = ?began.elapsed(), "what a soft purge made stale and is asked for was validated");
    }
}

/// How many may ask at a time, by how the answers come.
#[derive(Debug)]
struct Pace {
    places: usize,
    quickest: Option<Duration>,
    answers: usize,
    /// In a row.
    failures: usize,
}

impl Pace {
    fn new() -> Self {
        Self { places: 1, quickest: None, answers: 0, failures: 0 }
    }

    /// Takes an answer's time in. `None`: there was no answer.
    fn answered(&mut self, took: Option<Duration>) {
        let Some(took) = took else {
            self.places = 1;
            self.answers = 0;
            self.failures += 1;
            return;
        };
        self.failures = 0;
        let counted = took.max(LATENCY_MIN);
        let quickest = self.quickest.map_or(counted, |quickest| quickest.min(counted));
        self.quickest = Some(quickest);
        if counted > quickest * BUSY_FACTOR {
            self.places = (self.places / 2).max(1);
            self.answers = 0;
        } else {
            self.answers += 1;
            if self.answers >= ANSWERS_A_STEP {
                self.answers = 0;
                self.places = (self.places + 1).min(PLACES_MAX);
            }
        }
    }
}

async fn in_order(cache: &Arc<Cache>, asked_for: Vec<Popular>) -> usize {
    let (mut pace, mut refreshed) = (Pace::new(), 0);
    let mut under_way: JoinSet<Option<Duration>> = JoinSet::new();
    let mut left = asked_for.into_iter();
    let mut next = left.next();
    loop {
        while under_way.len() < pace.places
            && let Some(popular) = next.take()
        {
            next = left.next();
            let Some(stored) = cache.store.read_popular(&popular).await else { continue };
            let Some(answer) = begin(cache, &stored) else {
                cache.telemetry.metrics.count_labelled(Family::Refreshes, &["left"]);
                continue;
            };
            let began = Instant::now();
            under_way.spawn(async move {
                let took = answer.await.ok().and_then(|is_answered| is_answered.then(|| began.elapsed()));
                tokio::time::sleep(took.unwrap_or(FAILURE_PAUSE)).await;
                took
            });
        }
        let Some(answered) = under_way.join_next().await else {
            if next.is_none() {
                return refreshed;
            }
            continue;
        };
        let took = answered.ok().flatten();
        let outcome = if took.is_some() { "validated" } else { "failed" };
        cache.telemetry.metrics.count_labelled(Family::Refreshes, &[outcome]);
        refreshed += usize::from(took.is_some());
        pace.answered(took);
        if pace.failures >= FAILURES_MAX {
            // The rest on demand: others wait.
            next.into_iter()
                .chain(left)
                .for_each(|_| cache.telemetry.metrics.count_labelled(Family::Refreshes, &["left"]));
            return refreshed;
        }
    }
}

/// Begins to validate a stored response as if a client had asked for it; `None` where no request can be made of what is stored,
/// somebody else has begun, or it is no longer only stale by a purge.
fn begin(
    cache: &Arc<Cache>,
    stored: &Arc<StoredResponse>,
) -> Option<impl Future<Output = Result<bool, tokio::sync::oneshot::error::RecvError>> + Send + use<>> {
    if cache.store.purge_state(stored) != PurgeState::Soft || stored.head.part.is_some() {
        return None;
    }
    let mut inbound = supposed(stored)?;
    let mut exchange = Exchange::begin(cache.clock.now());
    let Ok(Routed::To(route)) = cache.route(&mut inbound) else { return None };
    let target = forward::target(&inbound).ok()?;
    if !tags::can_be_supposed(cache, &route, &target, &inbound.headers) {
        return None;
    }
    let Keyed::Cache(key) = key::derive(&cache.plugins, &route, &mut inbound, &mut exchange) else { return None };
    // A rule that reads what is not stored makes another key of it.
    if key.bytes() != stored.head.key.bytes() {
        return None;
    }
    let whole_max = cache.snapshot.load().config.store.range_whole_max;
    let need = Need::Validate(Held::Whole(stored.clone()), Why::Stale);
    let errand = Errand::new(need, &inbound, whole_max);
    let permit = cache.flights.try_fill(cache.flight_of(&key, &errand, &inbound))?;
    let fetch = cache.prepare_fetch(&route, key, &inbound, &errand, Permit::Fill(permit), &exchange).ok()?;
    let report = fetch.in_background().start();
    Some(async move { report.await.map(|report| report.status.is_some_and(|status| !status.is_server_error())) })
}

/// The request that would select it, as far as it is stored.
fn supposed(stored: &StoredResponse) -> Option<Inbound> {
    let (head, mut headers) = (&stored.head, HeaderMap::new());
    headers.insert(HOST, HeaderValue::from_str(&head.scope.authority).ok()?);
    for field in head.nominated.compared(&HeaderMap::new()) {
        if let Some(value) = field.stored {
            headers.append(field.name, HeaderValue::from_bytes(value).ok()?);
        }
    }
    let query = head.scope.query.as_deref().map(|query| format!("?{query}")).unwrap_or_default();
    let target: Uri = format!("{}{query}", head.scope.path).parse().ok()?;
    let scheme = if head.key.describe().scheme == "https" { "https" } else { "http" };
    Some(Inbound::supposed(Method::GET, scheme, target, headers, Bytes::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(10);

    #[test]
    fn an_origin_that_keeps_up_is_asked_more_and_one_that_does_not_less() {
        let mut pace = Pace::new();
        for _ in 0..ANSWERS_A_STEP {
            pace.answered(Some(FAST));
        }
        assert_eq!(pace.places, 2);
        for _ in 0..1000 {
            pace.answered(Some(FAST));
        }
        assert_eq!(pace.places, PLACES_MAX);
        let slow = FAST * (BUSY_FACTOR + 1);
        for (took, places, failures) in
            [(Some(slow), PLACES_MAX / 2, 0), (None, 1, 1), (None, 1, 2), (Some(slow), 1, 0)]
        {
            pace.answered(took);
            assert_eq!((pace.places, pace.failures), (places, failures), "{took:?}");
        }
    }

    #[test]
    fn times_too_short_to_mean_load_slow_nothing_down() {
        let mut pace = Pace::new();
        pace.answered(Some(Duration::from_micros(100)));
        for _ in 0..ANSWERS_A_STEP {
            pace.answered(Some(Duration::from_millis(4)));
        }
        assert_eq!(pace.places, 2);
    }
}
