//! Collapsed forwarding: one fetch per cache key and variant, however many requests wait for it (RFC 9111 §4).
//!
//! Always true:
//! - A [`FlightKey`] has at most one live [`FillPermit`] in the table; a superseded one finishes for its own followers only.
//! - A permit ends in `resolve` or drop; a drop without an outcome tells the waiters to elect the next filler.
//! - A key has at most [`WAITERS_MAX`] waiters; the next request forwards alone.
//! - The table's lock is never held across an await.
//! - A waiter waits no longer than the deadline that it gives.
//!
//! Not here: whether a response may be stored (`brim_semantics::storable`), moving its bytes (`fill`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use brim_semantics::KeyHash;
use brim_store::{Following, StoredResponse};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::origin::ForwardError;

/// Requests that may wait for one fill.
pub const WAITERS_MAX: usize = 10_000;
/// How long it is remembered that a key's response could not be shared: such requests go out side by side.
pub const UNSHARED_FOR: Duration = Duration::from_secs(10);
/// Keys remembered as not shareable. The oldest are forgotten first; forgetting costs one wait.
pub const UNSHARED_KEYS_MAX: usize = 65_536;
const SHARD_COUNT: usize = 64;

/// What requests collapse on: the cache key and, where the nominated fields are known, the variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlightKey {
    /// The cache key's hash. A collision only makes two requests wait for one another: the head's full key is compared.
    pub key: KeyHash,
    /// `Nominated::variant_hash`, 0 as long as no variant is known.
    pub variant: u64,
    /// Requests with `Authorization` are a class of their own: what they fetch is mostly theirs alone (RFC 9111 §3.5), and
    /// nobody else should wait to learn that.
    pub is_authorized: bool,
}

/// How a flight ended, or that it has begun to deliver.
#[derive(Clone)]
pub enum Landing {
    /// A storable response is arriving; it can be followed while it does.
    Following(Arc<Following>),
    /// A stored response was found or freshened.
    Stored(Arc<StoredResponse>),
    /// The response belongs to the filler alone: the waiters forward on their own.
    Declined,
    /// The origin answered a validation with a server error: whoever may use what is stale does so.
    ServerError,
    /// The fetch failed; the waiters share the failure instead of repeating it.
    Failed(Arc<ForwardError>),
    /// The filler went away without an outcome: the next one takes over.
    Abandoned,
}

impl std::fmt::Debug for Landing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Following(_) => "Following",
            Self::Stored(_) => "Stored",
            Self::Declined => "Declined",
            Self::ServerError => "ServerError",
            Self::Failed(_) => "Failed",
            Self::Abandoned => "Abandoned",
        })
    }
}

/// What [`Flights::join`] made of a request.
#[derive(Debug)]
pub enum Join {
    /// This request fetches.
    Fill(FillPermit),
    /// Another one does.
    Wait(Waiter),
    /// Too many wait: fetch alone.
    Alone,
    /// A response of this key could not be shared a moment ago, for this reason: forward as asked.
    Unshared(&'static str),
}

/// The table of fetches that are under way.
#[derive(Debug, Clone)]
pub struct Flights(Arc<Table>);

#[derive(Debug)]
struct Table {
    shards: Vec<Mutex<HashMap<FlightKey, Flight>>>,
    unshared: quick_cache::sync::Cache<FlightKey, (Instant, &'static str)>,
}

#[derive(Debug, Clone)]
struct Flight {
    landing: watch::Receiver<Option<Landing>>,
    waiters_count: Arc<AtomicUsize>,
}

impl Default for Flights {
    fn default() -> Self {
        let shards = (0..SHARD_COUNT).map(|_| Mutex::default()).collect();
        Self(Arc::new(Table { shards, unshared: quick_cache::sync::Cache::new(UNSHARED_KEYS_MAX) }))
    }
}

impl Flights {
    /// Joins the fetch of `key` that is under way, or becomes it.
    pub fn join(&self, key: FlightKey) -> Join {
        if let Some(reason) = self.unshared(&key) {
            return Join::Unshared(reason);
        }
        let mut shard = self.0.shard(&key).lock();
        let Some(flight) = shard.get(&key) else {
            return Join::Fill(self.depart(&mut shard, key));
        };
        if flight.waiters_count.fetch_add(1, Ordering::AcqRel) >= WAITERS_MAX {
            flight.waiters_count.fetch_sub(1, Ordering::AcqRel);
            return Join::Alone;
        }
        Join::Wait(Waiter { flight: flight.clone() })
    }

    /// Joins the fetch of `key` if there is one with room; becomes none.
    pub fn join_existing(&self, key: FlightKey) -> Option<Waiter> {
        let shard = self.0.shard(&key).lock();
        let flight = shard.get(&key)?;
        if flight.waiters_count.fetch_add(1, Ordering::AcqRel) >= WAITERS_MAX {
            flight.waiters_count.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Waiter { flight: flight.clone() })
    }

    /// Becomes the fetch of `key` if there is none; for work behind a response, which needs no waiter.
    pub fn try_fill(&self, key: FlightKey) -> Option<FillPermit> {
        let mut shard = self.0.shard(&key).lock();
        if shard.contains_key(&key) {
            return None;
        }
        Some(self.depart(&mut shard, key))
    }

    /// Takes the place of a fetch whose response must not be used any more, because a purge came after its beginning.
    pub fn supersede(&self, key: FlightKey, superseded: &Waiter) -> Join {
        let mut shard = self.0.shard(&key).lock();
        let is_same = shard.get(&key).is_some_and(|flight| flight.landing.same_channel(&superseded.flight.landing));
        if is_same || !shard.contains_key(&key) {
            return Join::Fill(self.depart(&mut shard, key));
        }
        drop(shard);
        self.join(key)
    }

    /// Remembers for [`UNSHARED_FOR`] that requests for `key` cannot share a response (hit-for-miss).
    pub fn remember_unshared(&self, key: FlightKey, reason: &'static str) {
        self.0.unshared.insert(key, (Instant::now() + UNSHARED_FOR, reason));
    }

    /// The reason, while [`Flights::remember_unshared`] holds.
    pub fn unshared(&self, key: &FlightKey) -> Option<&'static str> {
        let (until, reason) = self.0.unshared.get(key)?;
        if until > Instant::now() {
            return Some(reason);
        }
        self.0.unshared.remove(key);
        None
    }

    /// The reason and what is left of the time, while [`Flights::remember_unshared`] holds; for explanations.
    pub fn unshared_for(&self, key: &FlightKey) -> Option<(&'static str, Duration)> {
        let (until, reason) = self.0.unshared.peek(key)?;
        let left = until.checked_duration_since(Instant::now())?;
        (!left.is_zero()).then_some((reason, left))
    }

    /// How many requests wait for the fetch of `key`; none: nobody fetches it. For explanations.
    pub fn waiters_of(&self, key: &FlightKey) -> Option<usize> {
        let shard = self.0.shard(key).lock();
        shard.get(key).map(|flight| flight.waiters_count.load(Ordering::Acquire))
    }

    /// Forgets what [`Flights::remember_unshared`] remembered: a response of this key was stored.
    pub fn forget_unshared(&self, key: &FlightKey) {
        if !self.0.unshared.is_empty() {
            self.0.unshared.remove(key);
        }
    }

    /// Fetches under way.
    pub fn len(&self) -> usize {
        self.0.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Requests that wait for a fetch.
    pub fn waiters_count(&self) -> usize {
        let waiting = |flight: &Flight| flight.waiters_count.load(Ordering::Acquire);
        self.0.shards.iter().map(|shard| shard.lock().values().map(waiting).sum::<usize>()).sum()
    }

    /// True if nothing is being fetched.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn depart(&self, shard: &mut HashMap<FlightKey, Flight>, key: FlightKey) -> FillPermit {
        let (sender, landing) = watch::channel(None);
        let waiters_count = Arc::<AtomicUsize>::default();
        shard.insert(key, Flight { landing, waiters_count: waiters_count.clone() });
        FillPermit { key, landing: sender, waiters_count, table: self.0.clone() }
    }
}

impl Table {
    fn shard(&self, key: &FlightKey) -> &Mutex<HashMap<FlightKey, Flight>> {
        let index = usize::from(key.key.0[0]) ^ usize::from(key.variant.to_le_bytes()[0]);
        &self.shards[index % SHARD_COUNT]
    }
}

/// The duty to fetch: held by the one request that does.
#[derive(Debug)]
pub struct FillPermit {
    key: FlightKey,
    landing: watch::Sender<Option<Landing>>,
    waiters_count: Arc<AtomicUsize>,
    table: Arc<Table>,
}

impl FillPermit {
    /// What is being fetched.
    pub fn key(&self) -> FlightKey {
        self.key
    }

    /// True while some of those who wait have not yet looked at what was announced.
    pub fn has_waiters(&self) -> bool {
        self.waiters_count.load(Ordering::Acquire) > 0
    }

    /// Tells the waiters. The flight stays joinable until the permit is dropped, so that late requests can still follow.
    pub fn announce(&self, landing: Landing) {
        self.landing.send_replace(Some(landing));
    }

    /// Tells the waiters and ends the flight.
    pub fn resolve(self, landing: Landing) {
        self.announce(landing);
    }
}

impl Drop for FillPermit {
    fn drop(&mut self) {
        let mut shard = self.table.shard(&self.key).lock();
        // A superseded permit must not take its successor's flight out of the table.
        if shard.get(&self.key).is_some_and(|flight| flight.landing.same_channel(&self.landing.subscribe())) {
            shard.remove(&self.key);
        }
        drop(shard);
        self.landing.send_if_modified(|landing| {
            let is_unresolved = landing.is_none();
            if is_unresolved {
                *landing = Some(Landing::Abandoned);
            }
            is_unresolved
        });
    }
}

/// A request that waits for another one's fetch.
#[derive(Debug)]
pub struct Waiter {
    flight: Flight,
}

impl Waiter {
    /// True once there is an outcome: whoever comes now was not waiting when it was made.
    pub fn has_landed(&self) -> bool {
        self.flight.landing.borrow().is_some()
    }

    /// How the flight lands; `None` when `limit` passes first. Cancel safe: leaving only takes this waiter out of the count.
    pub async fn landing(&mut self, limit: Duration) -> Option<Landing> {
        let landed = tokio::time::timeout(limit, self.flight.landing.wait_for(Option::is_some)).await;
        match landed {
            Ok(Ok(landing)) => landing.clone(),
            Ok(Err(_)) => Some(Landing::Abandoned),
            Err(_) => None,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.flight.waiters_count.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: FlightKey = FlightKey { key: KeyHash([7; 16]), variant: 0, is_authorized: false };
    const SOON: Duration = Duration::from_secs(5);

    fn permit(join: Join) -> FillPermit {
        match join {
            Join::Fill(permit) => permit,
            other => panic!("expected the permit, got {other:?}"),
        }
    }

    fn waiter(join: Join) -> Waiter {
        match join {
            Join::Wait(waiter) => waiter,
            other => panic!("expected to wait, got {other:?}"),
        }
    }

    #[tokio::test]
    async fn one_fills_and_the_others_wait() {
        let flights = Flights::default();
        let filler = permit(flights.join(KEY));
        let mut first = waiter(flights.join(KEY));
        let mut second = waiter(flights.join(KEY));
        assert_eq!(flights.waiters_of(&KEY), Some(2));
        filler.resolve(Landing::Declined);
        assert!(matches!(first.landing(SOON).await, Some(Landing::Declined)));
        assert!(matches!(second.landing(SOON).await, Some(Landing::Declined)));
        assert!(flights.is_empty());
        assert_eq!(flights.waiters_of(&KEY), None);
    }

    #[tokio::test]
    async fn a_dropped_permit_wakes_the_waiters_to_elect_the_next() {
        let flights = Flights::default();
        let filler = permit(flights.join(KEY));
        let mut waiting = waiter(flights.join(KEY));
        drop(filler);
        assert!(matches!(waiting.landing(SOON).await, Some(Landing::Abandoned)));
        permit(flights.join(KEY));
    }

    #[tokio::test]
    async fn another_variant_is_another_flight() {
        let flights = Flights::default();
        let _filler = permit(flights.join(KEY));
        permit(flights.join(FlightKey { variant: 1, ..KEY }));
    }

    #[tokio::test]
    async fn a_superseded_permit_leaves_its_successor_in_the_table() {
        let flights = Flights::default();
        let old = permit(flights.join(KEY));
        let waiting = waiter(flights.join(KEY));
        let _new = permit(flights.supersede(KEY, &waiting));
        drop(old);
        waiter(flights.join(KEY));
    }

    #[tokio::test]
    async fn only_the_first_of_many_supersedes() {
        let flights = Flights::default();
        let _old = permit(flights.join(KEY));
        let (first, second) = (waiter(flights.join(KEY)), waiter(flights.join(KEY)));
        let _new = permit(flights.supersede(KEY, &first));
        waiter(flights.supersede(KEY, &second));
    }

    #[tokio::test]
    async fn beyond_the_bound_a_request_goes_alone() {
        let flights = Flights::default();
        let _filler = permit(flights.join(KEY));
        let _waiting: Vec<_> = (0..WAITERS_MAX).map(|_| waiter(flights.join(KEY))).collect();
        assert!(matches!(flights.join(KEY), Join::Alone));
    }

    #[tokio::test]
    async fn an_unshared_key_does_not_collapse_until_it_is_forgotten() {
        let flights = Flights::default();
        flights.remember_unshared(KEY, "private");
        assert!(flights.unshared_for(&KEY).is_some_and(|(reason, left)| reason == "private" && left <= UNSHARED_FOR));
        assert!(matches!(flights.join(KEY), Join::Unshared("private")));
        flights.forget_unshared(&KEY);
        assert_eq!(flights.unshared_for(&KEY), None);
        permit(flights.join(KEY));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_gives_up_at_its_deadline() {
        let flights = Flights::default();
        let _filler = permit(flights.join(KEY));
        assert!(waiter(flights.join(KEY)).landing(Duration::from_secs(1)).await.is_none());
    }
}
