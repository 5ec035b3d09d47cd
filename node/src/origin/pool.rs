//! The connections of one endpoint: who gets one, who waits, which are kept.
//!
//! Always true:
//! - At most `connections_max` sockets are open or being opened; each is counted by its [`Slot`], which ends with the socket.
//! - Who waits is served in the order of arrival, as soon as a connection comes back, a stream ends or capacity becomes free;
//!   at most `queue_max` wait, each for at most `queue_timeout`.
//! - Whatever a request holds (a [`Permit`] to connect, an HTTP/1.1 connection, a stream of an HTTP/2 one) comes back when it is
//!   dropped, at any await.
//! - An HTTP/1.1 connection is kept only after a whole exchange; anything else closes it.
//! - The lock is held for a few steps in memory: never across an await, never across a system call.
//!
//! Not here: making a connection (`connect`), what is sent on it (`endpoint`).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::thread::ThreadId;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::body::ForwardBody;
use super::socket::SocketProbe;
use super::stats::EndpointStats;

/// Streams of one HTTP/2 connection at a time, or fewer if the endpoint says so. More would share one congestion window.
pub const STREAMS_MAX: usize = 100;
/// Among this many of the connections used last, one of the own thread is preferred: its driver needs no wake-up across threads.
const OWN_THREAD_SCAN_MAX: usize = 8;
/// How long a connection may take from the end of a response to its readiness for the next request (the rest of the request's
/// content is still being sent then); afterwards it is closed.
const SETTLE_MAX: Duration = Duration::from_secs(1);

/// The bounds of a pool, from the origin's configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct PoolLimits {
    pub(super) connections_max: usize,
    pub(super) queue_max: usize,
    pub(super) queue_timeout: Duration,
    pub(super) idle_timeout: Duration,
    /// Kept open, used or not.
    pub(super) connections_min: usize,
    /// An older connection takes no further request.
    pub(super) age_max: Duration,
    /// One that has served so many takes no further one.
    pub(super) requests_max: u64,
}

impl PoolLimits {
    fn is_worn_out(&self, made: Instant, requests: u64, now: Instant) -> bool {
        requests >= self.requests_max || now.saturating_duration_since(made) >= self.age_max
    }
}

/// What a request asks the pool for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// A kept connection, else a new one.
    Any,
    /// A new one, because a kept one has just failed this request.
    Fresh,
}

/// What the pool gives.
pub(super) enum Grant {
    /// Capacity for one new connection.
    Open(Permit),
    /// A connection that has served before.
    Kept(Http1Lease),
    /// A stream of a connection that others use too.
    Stream(Http2Lease),
}

/// Why the pool gives nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoConnection {
    QueueFull,
    QueueTimeout,
}

/// How a pool stands at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Sockets open or being opened.
    pub open: usize,
    /// Of these, connections that nothing uses.
    pub idle: usize,
    /// HTTP/2 streams in use.
    pub streams: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
}

/// See the module.
pub(super) struct Pool {
    limits: PoolLimits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The one used last is at the end.
    idle: Vec<Http1Connection>,
    http2: Vec<Http2Connection>,
    open: usize,
    opening: usize,
    /// The endpoint is known to speak HTTP/2, so a connection that is being opened will serve many who wait.
    speaks_http2: bool,
    waiters: VecDeque<Waiter>,
    last_id: u64,
    closed: bool,
    /// Those that the endpoint's name has, once they have changed.
    addresses: Option<Arc<Vec<SocketAddr>>>,
}

struct Waiter {
    id: u64,
    want: Want,
    grant: oneshot::Sender<Grant>,
}

/// One HTTP/1.1 connection, usable by one request at a time.
pub(super) struct Http1Connection {
    pub(super) sender: http1::SendRequest<ForwardBody>,
    pub(super) driver: AbortHandle,
    pub(super) probe: SocketProbe,
    /// Where the driver runs.
    pub(super) thread: ThreadId,
    pub(super) idle_since: Instant,
    pub(super) made: Instant,
    /// It has been given to so many.
    pub(super) requests: u64,
    /// Where it leads.
    pub(super) peer: Option<SocketAddr>,
}

struct Http2Connection {
    id: u64,
    sender: http2::SendRequest<ForwardBody>,
    streams: usize,
    streams_max: Arc<AtomicUsize>,
    idle_since: Instant,
    made: Instant,
    requests: u64,
    peer: Option<SocketAddr>,
}

impl Pool {
    /// `speaks_http2` is what is known before the first connection.
    pub(super) fn new(limits: PoolLimits, speaks_http2: bool) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::new(State { speaks_http2, ..State::default() }) })
    }

    /// A connection, a stream or the permit to connect; at once or after a wait in the queue.
    ///
    /// Cancel safe: dropping the future leaves the queue, and what had been granted goes to the next.
    pub(super) async fn acquire(self: &Arc<Self>, want: Want, stats: &EndpointStats) -> Result<Grant, NoConnection> {
        loop {
            match self.grant_or_queue(want)? {
                // The driver may not have seen yet that the endpoint closed it. Each turn closes one kept connection.
                Granted::Now(Grant::Kept(lease)) if !lease.is_quiet() => lease.close(),
                Granted::Now(grant) => return Ok(grant),
                Granted::Later(mut place) => {
                    let since = Instant::now();
                    let granted = timeout(self.limits.queue_timeout, &mut place.grant).await;
                    stats.count_wait(since.elapsed());
                    // The sender is dropped unused only with the pool itself, and `self` keeps that.
                    return granted.map_err(|_| NoConnection::QueueTimeout)?.map_err(|_| NoConnection::QueueTimeout);
                }
            }
        }
    }

    fn grant_or_queue(self: &Arc<Self>, want: Want) -> Result<Granted, NoConnection> {
        let mut state = self.state.lock();
        if state.waiters.is_empty()
            && let Some(grant) = self.take(&mut state, want)
        {
            return Ok(Granted::Now(grant));
        }
        if state.waiters.len() >= self.limits.queue_max {
            return Err(NoConnection::QueueFull);
        }
        let (grant, granted) = oneshot::channel();
        let id = state.next_id();
        let waiter = Waiter { id, want, grant };
        match want {
            Want::Any => state.waiters.push_back(waiter),
            // It has waited its turn already, for the connection that failed.
            Want::Fresh => state.waiters.push_front(waiter),
        }
        Ok(Granted::Later(Place { pool: Arc::clone(self), id, grant: granted }))
    }

    /// What can be given right now.
    fn take(self: &Arc<Self>, state: &mut State, want: Want) -> Option<Grant> {
        if want == Want::Any {
            if let Some((id, sender)) = state.take_stream(&self.limits) {
                return Some(Grant::Stream(Http2Lease { id, sender, pool: Arc::clone(self) }));
            }
            if let Some(connection) = state.take_idle(&self.limits) {
                return Some(Grant::Kept(Http1Lease::new(connection, self)));
            }
        }
        if state.open < self.limits.connections_max {
            if want == Want::Any && state.waiters.len() < self.limits.queue_max && state.is_served_by_opening() {
                return None;
            }
            state.open += 1;
            state.opening += 1;
            let slot = Slot { pool: Arc::downgrade(self) };
            return Some(Grant::Open(Permit { slot: Some(slot), pool: Arc::clone(self) }));
        }
        if want == Want::Fresh && !state.idle.is_empty() {
            // Its capacity comes back when its driver has closed the socket.
            state.idle.remove(0);
        }
        None
    }

    /// Serves who waits, after `change`. What a waiter no longer wants is dropped after the lock is released: its own drop
    /// comes back here.
    fn changed(self: &Arc<Self>, change: impl FnOnce(&mut State)) {
        let mut unwanted = Vec::new();
        let mut state = self.state.lock();
        change(&mut state);
        while let Some(waiter) = state.waiters.front() {
            if waiter.grant.is_closed() {
                state.waiters.pop_front();
                continue;
            }
            let want = waiter.want;
            let Some(grant) = self.take(&mut state, want) else { break };
            if let Some(waiter) = state.waiters.pop_front()
                && let Err(grant) = waiter.grant.send(grant)
            {
                unwanted.push(grant);
            }
        }
        drop(state);
    }

    fn keep(self: &Arc<Self>, mut connection: Http1Connection) {
        let (now, limits) = (Instant::now(), self.limits);
        connection.idle_since = now;
        self.changed(|state| {
            let is_stale =
                limits.is_worn_out(connection.made, connection.requests, now) || state.has_left(connection.peer);
            if state.closed || is_stale {
                return;
            }
            state.idle.push(connection);
            if state.idle.len() > state.open {
                // Some have been closed by the endpoint, and nobody has come across them yet.
                state.idle.retain(|connection| !connection.sender.is_closed());
            }
        });
    }

    /// Takes in a new HTTP/2 connection; its first stream is the opener's.
    fn adopt(
        self: &Arc<Self>,
        sender: http2::SendRequest<ForwardBody>,
        streams_max: Arc<AtomicUsize>,
        peer: Option<SocketAddr>,
    ) -> Http2Lease {
        let mut id = 0;
        let lease_sender = sender.clone();
        self.changed(|state| {
            id = state.next_id();
            state.speaks_http2 = true;
            let now = Instant::now();
            let connection =
                Http2Connection { id, sender, streams: 1, streams_max, idle_since: now, made: now, requests: 1, peer };
            state.http2.push(connection);
        });
        Http2Lease { id, sender: lease_sender, pool: Arc::clone(self) }
    }

    /// Closes what has been idle for longer than `idle_timeout`, but for `connections_min`, and what is too old; forgets what the
    /// endpoint closed.
    pub(super) fn reap(&self, now: Instant) {
        let limits = self.limits;
        let mut state = self.state.lock();
        let mut left = state.open.saturating_sub(limits.connections_min);
        let mut is_over = |idle_since: Instant, made, requests| {
            let is_idle = left > 0 && now.saturating_duration_since(idle_since) >= limits.idle_timeout;
            left -= usize::from(is_idle);
            is_idle || limits.is_worn_out(made, requests, now)
        };
        state.idle.retain(|connection| {
            !connection.sender.is_closed() && !is_over(connection.idle_since, connection.made, connection.requests)
        });
        state.http2.retain(|connection| {
            let is_spent =
                connection.streams == 0 && is_over(connection.idle_since, connection.made, connection.requests);
            !is_spent && !connection.sender.is_closed()
        });
    }

    /// Connections to other addresses take no further request: the name no longer has them.
    pub(super) fn leave_all_but(&self, addresses: Arc<Vec<SocketAddr>>) {
        let mut state = self.state.lock();
        state.addresses = Some(addresses);
        let mut idle = std::mem::take(&mut state.idle);
        idle.retain(|connection| !state.has_left(connection.peer));
        state.idle = idle;
        let mut http2 = std::mem::take(&mut state.http2);
        for connection in &mut http2 {
            if state.has_left(connection.peer) {
                connection.requests = u64::MAX;
            }
        }
        http2.retain(|connection| connection.requests < u64::MAX || connection.streams > 0);
        state.http2 = http2;
    }

    /// Capacity for one of the connections that are kept open, if there are too few.
    pub(super) fn permit_below_floor(self: &Arc<Self>) -> Option<Permit> {
        let mut state = self.state.lock();
        if state.closed || state.open >= self.limits.connections_min.min(self.limits.connections_max) {
            return None;
        }
        state.open += 1;
        state.opening += 1;
        let slot = Slot { pool: Arc::downgrade(self) };
        Some(Permit { slot: Some(slot), pool: Arc::clone(self) })
    }

    /// A request would have to wait.
    pub(super) fn is_full(&self) -> bool {
        let state = self.state.lock();
        let has_stream = || {
            let free = |connection: &Http2Connection| {
                connection.streams < connection.streams_max.load(Relaxed).min(STREAMS_MAX)
                    && !connection.sender.is_closed()
            };
            state.http2.iter().any(free)
        };
        state.open >= self.limits.connections_max && state.idle.is_empty() && !has_stream()
    }

    /// Closes what is idle, and keeps nothing from now on. Requests are still sent.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.idle.clear();
        state.http2.retain(|connection| connection.streams > 0);
    }

    pub(super) fn counts(&self) -> PoolCounts {
        let state = self.state.lock();
        let kept = state.idle.iter().filter(|connection| !connection.sender.is_closed()).count();
        PoolCounts {
            open: state.open,
            idle: kept + state.http2.iter().filter(|connection| connection.streams == 0).count(),
            streams: state.http2.iter().map(|connection| connection.streams).sum(),
            waiting: state.waiters.len(),
        }
    }
}

impl State {
    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The name had the address when the connection was made, and no longer has.
    fn has_left(&self, peer: Option<SocketAddr>) -> bool {
        let (Some(addresses), Some(peer)) = (&self.addresses, peer) else { return false };
        !addresses.contains(&peer)
    }

    fn take_stream(&mut self, limits: &PoolLimits) -> Option<(u64, http2::SendRequest<ForwardBody>)> {
        if self.http2.is_empty() {
            return None;
        }
        let now = Instant::now();
        if self.http2.iter().any(|connection| connection.sender.is_closed()) {
            self.http2.retain(|connection| !connection.sender.is_closed());
        }
        let connection = self.http2.iter_mut().find(|connection| {
            connection.streams < connection.streams_max.load(Relaxed).min(STREAMS_MAX)
                && !limits.is_worn_out(connection.made, connection.requests, now)
        })?;
        connection.streams += 1;
        connection.requests = connection.requests.saturating_add(1);
        Some((connection.id, connection.sender.clone()))
    }

    fn take_idle(&mut self, limits: &PoolLimits) -> Option<Http1Connection> {
        if self.idle.is_empty() {
            return None;
        }
        let (now, thread) = (Instant::now(), std::thread::current().id());
        while let Some(last) = self.idle.len().checked_sub(1) {
            let own =
                self.idle.iter().rev().take(OWN_THREAD_SCAN_MAX).position(|connection| connection.thread == thread);
            let mut connection = self.idle.remove(last - own.unwrap_or(0));
            let is_of_floor = self.open <= limits.connections_min;
            let is_idle = now.saturating_duration_since(connection.idle_since) >= limits.idle_timeout;
            let is_spent = (is_idle && !is_of_floor)
                || connection.sender.is_closed()
                || limits.is_worn_out(connection.made, connection.requests, now);
            if !is_spent {
                connection.requests += 1;
                return Some(connection);
            }
        }
        None
    }

    /// Whether the HTTP/2 connections that are being opened will have a stream for one more.
    fn is_served_by_opening(&self) -> bool {
        self.speaks_http2 && self.waiters.len() < self.opening * STREAMS_MAX
    }
}

enum Granted {
    Now(Grant),
    Later(Place),
}

/// A place in the queue.
struct Place {
    pool: Arc<Pool>,
    id: u64,
    grant: oneshot::Receiver<Grant>,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Served ones have left the queue already; the others are usually near the front.
        let mut state = self.pool.state.lock();
        if let Some(place) = state.waiters.iter().position(|waiter| waiter.id == self.id) {
            state.waiters.remove(place);
        }
    }
}

/// The capacity that one socket takes.
#[derive(Debug)]
pub(super) struct Slot {
    /// Weak, because a pool that nobody uses any more must close its idle connections rather than be kept by them.
    pool: Weak<Pool>,
}

impl Slot {
    /// For a connection that no pool counts.
    pub(super) fn uncounted() -> Self {
        Self { pool: Weak::new() }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("limits", &self.limits).field("counts", &self.counts()).finish()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.changed(|state| state.open -= 1);
        }
    }
}

/// Permission to open one connection; lives until that has succeeded or failed.
pub(super) struct Permit {
    slot: Option<Slot>,
    pool: Arc<Pool>,
}

impl Permit {
    /// The capacity, for the socket that now takes it. `None` if it was taken before.
    pub(super) fn take_slot(&mut self) -> Option<Slot> {
        self.slot.take()
    }

    /// The connection cannot be used by many: who waits shall no longer wait for it.
    pub(super) fn not_shared(&self) {
        self.pool.state.lock().speaks_http2 = false;
    }

    /// The first stream of the HTTP/2 connection that was opened; the others are for whoever comes.
    pub(super) fn adopt(
        &self,
        sender: http2::SendRequest<ForwardBody>,
        streams_max: Arc<AtomicUsize>,
        peer: Option<SocketAddr>,
    ) -> Http2Lease {
        self.pool.adopt(sender, streams_max, peer)
    }

    /// A lease on the HTTP/1.1 connection that was opened.
    pub(super) fn lease(&self, mut connection: Http1Connection) -> Http1Lease {
        connection.requests = 1;
        Http1Lease::new(connection, &self.pool)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Before the lock is taken: its own drop takes it.
        self.slot = None;
        self.pool.changed(|state| state.opening -= 1);
    }
}

/// One HTTP/1.1 connection in the hands of one request.
pub(super) struct Http1Lease {
    connection: Option<Http1Connection>,
    pool: Arc<Pool>,
    is_used: bool,
}

impl Http1Lease {
    fn new(connection: Http1Connection, pool: &Arc<Pool>) -> Self {
        Self { connection: Some(connection), pool: Arc::clone(pool), is_used: false }
    }

    /// For sending one request. From now on dropping the lease closes the connection, until [`Self::finish`].
    pub(super) fn sender(&mut self) -> &mut http1::SendRequest<ForwardBody> {
        self.is_used = true;
        // Only `finish` and `drop` take it out, and both end the lease.
        &mut self.connection.as_mut().expect("a lease has its connection until it ends").sender
    }

    fn is_quiet(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.probe.is_quiet())
    }

    fn close(mut self) {
        self.is_used = true;
    }

    /// The response has been read to its end: the connection is kept as soon as its driver is ready for the next request.
    pub(super) fn finish(mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if connection.sender.is_ready() {
            return self.pool.keep(connection);
        }
        // Outside a runtime nobody can wait for it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return connection.driver.abort() };
        if connection.sender.is_closed() {
            return;
        }
        let pool = Arc::clone(&self.pool);
        runtime.spawn(async move {
            match timeout(SETTLE_MAX, connection.sender.ready()).await {
                Ok(Ok(())) => pool.keep(connection),
                Ok(Err(_)) | Err(_) => connection.driver.abort(),
            }
        });
    }
}

impl Drop for Http1Lease {
    fn drop(&mut self) {
        match self.connection.take() {
            Some(connection) if self.is_used => connection.driver.abort(),
            Some(mut connection) => {
                connection.requests = connection.requests.saturating_sub(1);
                self.pool.keep(connection);
            }
            None => {}
        }
    }
}

/// One stream of an HTTP/2 connection in the hands of one request.
pub(super) struct Http2Lease {
    id: u64,
    pub(super) sender: http2::SendRequest<ForwardBody>,
    pool: Arc<Pool>,
}

impl Drop for Http2Lease {
    fn drop(&mut self) {
        let limits = self.pool.limits;
        self.pool.changed(|state| {
            let Some(place) = state.http2.iter().position(|connection| connection.id == self.id) else { return };
            let connection = &mut state.http2[place];
            connection.streams -= 1;
            connection.idle_since = Instant::now();
            let is_worn_out = limits.is_worn_out(connection.made, connection.requests, connection.idle_since);
            if connection.streams == 0 && (state.closed || is_worn_out) {
                state.http2.remove(place);
            }
        });
    }
}
