//! The store as others see it.

use std::fs::File;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use brim_semantics::{CacheKey, PurgeState, StoredMeta};
use http::HeaderMap;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::blocking::Pool;
use crate::config::{
    LOAD_DEADLINE, OPEN_WAIT, PURGE_DEADLINE, READ_QUEUE_MAX, READ_THREADS, StoreConfig, WALK_THREADS,
};
use crate::dir::{self, Format, OpenError, StoreId};
use crate::disk::{self, Beginning, Op};
use crate::fill::Fill;
use crate::headers::compact;
use crate::look::{self, Matching, Popular};
use crate::purge::{
    Clock, Committer, Names, OpenedLog, Position, Purge, PurgeError, PurgeLog, PurgeMode, Receipt, Receipts, Selector,
    Table, Target, Urgency,
};
use crate::reclaim::{reclaim, reclaim_written};
use crate::response::{Parts, ResponseHead, Scope, StoredResponse, Variants};
use crate::shared::{Pools, Shared};
use crate::stats::{DiskState, StoreStats};

/// Threads that write streaming bodies.
const WRITE_THREADS: usize = 2;

/// What a look-up found without IO.
#[derive(Debug, Clone)]
pub enum Found {
    /// The variants of the key.
    Memory(Arc<Variants>),
    /// The disk has some: ask [`Store::load`].
    OnDisk,
    /// There is nothing.
    Absent,
}

/// A handle on the store; clones are cheap.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
    lock: Mutex<Option<File>>,
}

impl Inner {
    /// Blocks until everything that waits is written.
    fn shut_down(&self) {
        let shared = &self.shared;
        shared.reading().queue.close();
        if let Some(supervisor) = self.supervisor.lock().take() {
            let _ = supervisor.join();
        }
        shared.committer.close();
        shared.reading().pool.close();
        shared.write_pool.close();
        shared.walk_pool.close();
        // The directory is free for the next process only now; if something hangs in it, when this one has ended.
        let lock = self.lock.lock().take();
        if shared.has_left_behind.load(Ordering::Acquire) {
            std::mem::forget(lock);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// What the directory holds of purges, and whether that vouches for the rest of it.
struct Begun {
    log: PurgeLog,
    table: Table,
    receipts: Receipts,
    beginning: Beginning,
}

fn begin(config: &StoreConfig) -> Begun {
    let (root, faults) = (&config.dir, config.faults());
    let (reason, latest) = match dir::read_format(root) {
        Format::Known(store) => match PurgeLog::open(root, store, faults.clone()) {
            Ok(OpenedLog::Good { log, table, receipts }) => {
                return Begun { log, table: *table, receipts, beginning: Beginning::Known(store) };
            }
            Ok(OpenedLog::Unreadable { reason, latest }) => (reason, latest),
            Err(error) => (format!("purge log: {error}"), Position(0)),
        },
        Format::Missing => ("new".to_owned(), Position(0)),
        Format::Foreign(reason) => (reason, Position(0)),
    };
    Begun {
        log: PurgeLog::unmade(root, StoreId::random(), faults),
        table: Table::beginning_at(latest),
        receipts: Receipts::default(),
        beginning: Beginning::Doubtful(reason),
    }
}

fn open_blocking(config: StoreConfig) -> Result<Store, OpenError> {
    let lock = dir::lock(&config.dir)?;
    let Begun { log, table, receipts, beginning } = begin(&config);
    let committer = Committer::start(log, Clock::new(table), receipts, config.purge_log_growth_max);
    let committer = committer.map_err(OpenError::Thread)?;
    let read_pool = Pool::start("brim-read", READ_THREADS).map_err(OpenError::Thread)?;
    let write_pool = Pool::start("brim-write", WRITE_THREADS).map_err(OpenError::Thread)?;
    let walk_pool = Pool::start("brim-walk", WALK_THREADS).map_err(OpenError::Thread)?;
    let pools = Pools { read: read_pool, write: write_pool, walk: walk_pool };
    let shared = Arc::new(Shared::new(config, committer, pools));
    let supervisor = std::thread::Builder::new()
        .name("brim-disk".into())
        .spawn({
            let shared = Arc::clone(&shared);
            move || disk::run(&shared, beginning)
        })
        .map_err(OpenError::Thread)?;
    let is_decided = || shared.disk_state() != DiskState::Opening;
    if !shared.room.wait(OPEN_WAIT, is_decided) {
        tracing::info!("the disk tier is being opened; serving from memory until it is there");
    }
    Ok(Store(Arc::new(Inner { shared, supervisor: Mutex::new(Some(supervisor)), lock: Mutex::new(lock) })))
}

/// Runs what blocks on a thread of its own; for the few calls of a store's beginning and end.
async fn apart<R: Send + 'static>(name: &str, work: impl FnOnce() -> R + Send + 'static) -> std::io::Result<R> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name(name.into()).spawn(move || {
        let _ = sender.send(work());
    })?;
    receiver.await.map_err(|_| std::io::Error::other("the thread ended early"))
}

impl Store {
    /// Opens the store in a directory. What cannot be believed there is set aside and an empty store begins. A disk that
    /// cannot be written is no error: the store serves from memory, refuses purges, and tries again. It returns when the disk
    /// tier is open, or after [`OPEN_WAIT`]: then look-ups are answered from memory, or as absent, until it is.
    ///
    /// # Errors
    /// The directory cannot be made, or another process has it.
    pub async fn open(config: StoreConfig) -> Result<Self, OpenError> {
        apart("brim-open", move || open_blocking(config)).await.map_err(OpenError::Thread)?
    }

    /// Looks a key up: no IO, no allocation, and no lock but a shard's for reading.
    #[inline]
    pub fn find(&self, key: &CacheKey) -> Found {
        let shared = &self.0.shared;
        match shared.memory.get(key) {
            Some(variants) if variants.complete => Found::Memory(variants),
            Some(_) => Found::OnDisk,
            None if shared.catalog.contains(key.hash()) => Found::OnDisk,
            None => Found::Absent,
        }
    }

    /// Reads the variants of a key from disk and takes them into memory. None is a miss: nothing there, nothing that
    /// can be believed, or no answer in time.
    pub async fn load(&self, key: &CacheKey) -> Option<Arc<Variants>> {
        let shared = Arc::clone(&self.0.shared);
        shared.counters.loads.add(1);
        let job = shared.reading().pool.submit(READ_QUEUE_MAX, {
            let (shared, key) = (Arc::clone(&shared), key.clone());
            move || disk::load(&shared, &key)
        });
        match tokio::time::timeout(LOAD_DEADLINE, job).await {
            Ok(Ok(found)) => {
                shared.counters.loads_found.add(u64::from(found.is_some()));
                found
            }
            Ok(Err(_)) | Err(_) => {
                shared.counters.loads_given_up.add(1);
                None
            }
        }
    }

    /// What [`Store::find`] and [`Store::load`] find, on the calling thread. Blocks; for tools and benches.
    pub fn load_blocking(&self, key: &CacheKey) -> Option<Arc<Variants>> {
        match self.find(key) {
            Found::Memory(variants) => Some(variants),
            Found::OnDisk => disk::load(&self.0.shared, key),
            Found::Absent => None,
        }
    }

    /// Begins to fill a stored response. `expected_length` is the announced length of the content, if any.
    pub fn begin(&self, mut head: ResponseHead, expected_length: Option<u64>) -> Fill {
        head.headers = compact(&head.headers);
        Fill::new(Arc::clone(&self.0.shared), head, expected_length)
    }

    /// The stored response with the fields of a 304 (RFC 9111 §4.3.4) and the same body, and with the surrogate keys that these
    /// fields give it, besides those that its content gave. Visible at once, unless `old` was replaced or removed meanwhile: then the
    /// answer is for this request alone.
    pub fn freshen(
        &self,
        old: &Arc<StoredResponse>,
        headers: HeaderMap,
        meta: StoredMeta,
        fetched_at: Position,
        keys: Vec<Box<str>>,
    ) -> Arc<StoredResponse> {
        let shared = &self.0.shared;
        let mut head = old.head.clone();
        let mut surrogate_keys = keys;
        surrogate_keys.extend(head.content_keys.iter().cloned());
        surrogate_keys.sort_unstable();
        surrogate_keys.dedup();
        head.surrogate_keys = surrogate_keys;
        head.headers = compact(&headers);
        head.meta = meta;
        head.fetched_at = fetched_at;
        let names = Arc::new(Names::of_head(&head));
        let response = StoredResponse::new(Parts {
            head,
            bytes: old.bytes.clone(),
            body: Arc::clone(&old.body),
            trailers: old.trailers.clone(),
            names,
            serial: shared.next_serial(),
            reading: Arc::clone(&old.reading),
        });
        // A purge may have named it by keys that it has no more, since the validation began. Until that is known, any purge counts.
        response.doubt(true);
        // A validation is a second sight.
        shared.enter_if(&response, true, |current| match current {
            Some(current) => current.serial == old.serial,
            None => shared.catalog.is_current(old.which()),
        });
        let clock = shared.clock();
        let (before, now) = (clock.state_now(&old.names, fetched_at), clock.state_now(&response.names, fetched_at));
        if before == now || before == PurgeState::Live {
            response.doubt(false);
        } else {
            shared.drop_response(response.which());
        }
        response
    }

    /// Removes all variants of a key. Not durable: after a crash they may be back, as old as they are and purged as
    /// they were. Use a purge to be sure.
    pub fn remove(&self, key: &CacheKey) {
        let shared = &self.0.shared;
        let hash = key.hash();
        let gone = shared.memory.remove(hash, |variants| variants.is_of(key), || shared.catalog.remove_key(hash));
        if !gone.is_empty() {
            shared.reading().queue.push(Op::Forget(gone));
        }
    }

    /// Removes one stored response, if it was not replaced meanwhile; the others of its key stay. As durable as [`Store::remove`].
    pub fn remove_response(&self, response: &StoredResponse) {
        let (shared, which) = (&self.0.shared, response.which());
        let is_it = |one: &Arc<StoredResponse>| one.variant == which.variant && one.serial == which.serial;
        let (is_removed, let_go) = shared.memory.remove_some(which.key, is_it, || shared.catalog.remove(which));
        shared.let_go(let_go);
        if is_removed {
            shared.reading().queue.push(Op::Forget(vec![which]));
        }
    }

    /// What purges say of a stored response. Two loads and a comparison when nothing was purged since the last time.
    #[inline]
    pub fn purge_state(&self, response: &StoredResponse) -> PurgeState {
        if response.is_doubtful() && self.position() > response.head.fetched_at {
            return PurgeState::Hard;
        }
        self.0.shared.clock().state(&response.names, response.head.fetched_at, &response.checked)
    }

    /// What purges since `position` say of a response that is not stored, by what they can name about it.
    pub fn purge_state_of(&self, scope: &Scope, surrogate_keys: &[Box<str>], position: Position) -> PurgeState {
        self.0.shared.clock().state_now(&Names::of_scope(scope, surrogate_keys), position)
    }

    /// Whether a hard purge took away what was stored under the key: why there is nothing now. Remembered for a bounded
    /// number of keys, and until something is stored under the key again; it decides nothing.
    pub fn was_purged(&self, key: &CacheKey) -> bool {
        self.0.shared.was_purged(key.hash())
    }

    /// The newest purge. To be taken before the forward request is sent.
    #[inline]
    pub fn position(&self) -> Position {
        self.0.shared.clock().latest()
    }

    /// Purges: durable, then visible, then acknowledged. What it hit is counted behind that; the answer waits for the count for `wait`
    /// at most. A purge that was made before under its idempotency key gives the receipt of then.
    ///
    /// Cancel safe: once called and polled the purge happens; only the receipt is lost.
    pub async fn purge(&self, purge: Purge, wait: Duration) -> Result<Receipt, PurgeError> {
        let shared = Arc::clone(&self.0.shared);
        let answered = shared.committer.submit(purge, Urgency::MustBeDurable)?;
        let answered = tokio::time::timeout(PURGE_DEADLINE, answered).await.map_err(|_| PurgeError::NoAnswer)?;
        let receipt = answered.map_err(|_| PurgeError::Closed)??;
        if receipt.is_repeated {
            return Ok(receipt);
        }
        shared.counters.purges.add(1);
        let mut counted = reclaim(&shared, Target::of(&receipt.selectors), receipt.position, receipt.mode);
        // The purge holds already; only the count is waited for, and the receipt gets it later if it takes long.
        let is_counted = if wait.is_zero() {
            // A timer would take a millisecond to see that there is nothing to wait for.
            counted.try_recv().is_ok()
        } else {
            matches!(tokio::time::timeout(wait, counted).await, Ok(Ok(())))
        };
        Ok(if is_counted { self.receipt(&receipt.id).unwrap_or(receipt) } else { receipt })
    }

    /// A receipt when what its purge hit has been counted, or as it is after `wait`.
    pub async fn receipt_reclaimed(&self, id: &str, wait: Duration) -> Option<Receipt> {
        let counted = async {
            loop {
                // Before the look: what is counted between the two wakes it.
                let next = self.0.shared.reclaims.counted().notified();
                match self.receipt(id) {
                    Some(receipt) if receipt.reclaimed_at.is_none() => next.await,
                    found => return found,
                }
            }
        };
        match tokio::time::timeout(wait, counted).await {
            Ok(found) => found,
            Err(_) => self.receipt(id),
        }
    }

    /// Invalidates a URL (RFC 9111 §4.4). Ordered when this returns, visible and durable when the future is ready; it
    /// need not be awaited. When the log cannot be written it is visible nevertheless, and the future says so.
    pub fn invalidate(
        &self,
        authority: &str,
        path: &str,
        query: Option<&str>,
        at: SystemTime,
    ) -> impl Future<Output = Result<Position, PurgeError>> + Send + use<> {
        let selector = Selector::Url { authority: authority.into(), path: path.into(), query: query.map(Into::into) };
        self.invalidate_selected(selector, at)
    }

    /// The same for anything a purge can name, such as the groups of `Cache-Group-Invalidation` (RFC 9875).
    pub fn invalidate_selected(
        &self,
        selector: Selector,
        at: SystemTime,
    ) -> impl Future<Output = Result<Position, PurgeError>> + Send + use<> {
        self.invalidate_all(vec![selector], at, "")
    }

    /// The same for several at one position; `by` says in the receipt what caused it.
    pub fn invalidate_all(
        &self,
        selectors: Vec<Selector>,
        at: SystemTime,
        by: &str,
    ) -> impl Future<Output = Result<Position, PurgeError>> + Send + use<> {
        let purge =
            Purge { selectors, mode: PurgeMode::Hard, at, by: by.into(), idempotency_key: None, fingerprint: None };
        let submitted = self.0.shared.committer.submit(purge, Urgency::ApplyAnyway);
        let shared = Arc::clone(&self.0.shared);
        async move {
            let receipt = submitted?.await.map_err(|_| PurgeError::Closed)??;
            shared.counters.purges.add(1);
            reclaim_written(&shared, &receipt.selectors, receipt.position);
            Ok(receipt.position)
        }
    }

    /// The receipt of one of the last purges.
    pub fn receipt(&self, id: &str) -> Option<Receipt> {
        self.0.shared.committer.receipt(id)
    }

    /// The receipts of the last purges and invalidations, the newest first; of those before a position.
    pub fn receipts(&self, before: Option<Position>, count_max: usize) -> Vec<Receipt> {
        self.receipts_that(before, count_max, |_| true)
    }

    /// Those of them that are wanted. The purge log waits while they are looked at.
    pub fn receipts_that(
        &self,
        before: Option<Position>,
        count_max: usize,
        is_wanted: impl Fn(&Receipt) -> bool,
    ) -> Vec<Receipt> {
        self.0.shared.committer.receipts(before, count_max, is_wanted)
    }

    /// What a purge would hit, without purging. What several selectors name is counted once. `None`: too many look already, or the
    /// look was given up.
    pub async fn count_matching(&self, selectors: &[Selector]) -> Option<Matching> {
        let shared = Arc::clone(&self.0.shared);
        let target = Target::of(selectors);
        self.0.shared.walk_pool.submit(look::WAITING_MAX, move || look::count(&shared, &target)).await.ok()
    }

    /// Notes that a stored response has answered a request: what was asked for in the last minutes is known from a sample of these.
    #[inline]
    pub fn note_hit(&self, response: &StoredResponse, at: Instant) {
        self.0.shared.recent.note(response.key_hash(), at);
    }

    /// What the selectors name of what is stored, what was asked for most in the last minutes first; at most `count_max`.
    pub async fn popular(&self, selectors: &[Selector], count_max: usize) -> Vec<Popular> {
        let shared = Arc::clone(&self.0.shared);
        let target = Target::of(selectors);
        let job = self.0.shared.walk_pool.submit(look::WAITING_MAX, move || look::popular(&shared, &target, count_max));
        job.await.unwrap_or_default()
    }

    /// Reads one of them. `None`: it is not stored any more, or cannot be read in time.
    pub async fn read_popular(&self, popular: &Popular) -> Option<Arc<StoredResponse>> {
        let shared = Arc::clone(&self.0.shared);
        let key = popular.which.key;
        if let Some(found) = shared.memory.peek(key).and_then(|variants| look::one_of(&variants, popular)) {
            return Some(found);
        }
        let whole_key = look::key_of(&shared, popular).await?;
        look::one_of(&*self.load(&whole_key).await?, popular)
    }

    #[cfg(test)]
    pub(crate) fn fail_disk(&self, reason: &str) {
        if let Some(tier) = self.0.shared.disk() {
            tier.fail(disk::Failure::of(reason));
        }
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// Stored responses, wherever they are.
    pub fn stored_count(&self) -> u64 {
        self.0.shared.catalog.count()
    }

    /// Numbers for status and metrics.
    pub fn stats(&self) -> StoreStats {
        self.0.shared.stats()
    }

    /// Waits until everything stored so far is on disk and durable.
    pub async fn flush(&self) {
        let (done, is_done) = oneshot::channel();
        if self.0.shared.reading().queue.push(Op::Flush(done)) {
            let _ = is_done.await;
        }
    }

    /// Writes what waits, flushes, and frees the directory. Later fills stay in memory; later purges are refused.
    pub async fn close(&self) {
        let inner = Arc::clone(&self.0);
        let _ = apart("brim-close", move || inner.shut_down()).await;
    }
}
