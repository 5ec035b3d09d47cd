//! One thread gives purges their positions: what waits is written with one sync, shown, then acknowledged.
//!
//! Always true:
//! - Positions are given in the order in which purges reach the queue, and shown in that order.
//! - An acknowledged purge is durable; a failed one has raised nothing.
//! - An invalidation (RFC 9111 §4.4) that cannot be made durable is shown nevertheless and its error told: nobody
//!   was promised that it survives, and a response known to be outdated must not be reused.
//! - At most [`PENDING_MAX`] purges wait, and four times as many invalidations.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::clock::Clock;
use super::codec::{FRAME_BYTES_MAX, LogRecord};
use super::log::{Checkpoint, PurgeLog};
use super::receipts::Receipts;
use super::{Matcher, Position, Purge, PurgeError, PurgeMode, Receipt, SELECTOR_BYTES_MAX, SELECTORS_MAX};
use crate::dir::StoreId;

/// Purges that may wait for the log; one sync serves them all.
pub(crate) const PENDING_MAX: usize = 4096;
/// Text in them; one batch is one frame of the log.
const PENDING_BYTES_MAX: usize = FRAME_BYTES_MAX / 4;

/// How soon a log that could not be written is tried again, where something is owed to it.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What is done when the log cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// An operator's purge: refused.
    MustBeDurable,
    /// An invalidation: applied to what this process serves.
    ApplyAnyway,
}

/// What a purge hit.
#[derive(Debug, Clone, Copy)]
struct Counted {
    position: Position,
    matched: u64,
    bytes: u64,
    at: SystemTime,
    /// Noted with it.
    durable_at: SystemTime,
}

type Answer = oneshot::Sender<Result<Receipt, PurgeError>>;

struct Pending {
    purge: Purge,
    urgency: Urgency,
    answer: Answer,
    /// Others who asked for the same under the same idempotency key, before it was made.
    also: Vec<Answer>,
}

#[derive(Default)]
struct Queue {
    pending: Vec<Pending>,
    pending_bytes: usize,
    /// What purges hit, to be noted with the next write.
    counted: Vec<Counted>,
    rename: Option<(StoreId, std::sync::mpsc::SyncSender<io::Result<()>>)>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    clock: Clock,
    queue: Mutex<Queue>,
    wake: Condvar,
    receipts: Mutex<Receipts>,
    growth_max: u64,
    /// Why the log could not be written the last time, if so.
    failure: Mutex<Option<String>>,
    log_bytes: std::sync::atomic::AtomicU64,
}

/// Handle on the thread, the clock and the receipts.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Committer {
    /// `growth_max`: the bytes by which the log grows before it is written anew.
    pub(crate) fn start(log: PurgeLog, clock: Clock, receipts: Receipts, growth_max: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared { clock, receipts: Mutex::new(receipts), growth_max, ..Shared::default() });
        let thread = std::thread::Builder::new().name("brim-purge-log".into()).spawn({
            let shared = Arc::clone(&shared);
            move || run(&shared, log)
        })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Enqueued when this returns; the answer comes when it is durable and visible.
    pub(crate) fn submit(
        &self,
        purge: Purge,
        urgency: Urgency,
    ) -> Result<oneshot::Receiver<Result<Receipt, PurgeError>>, PurgeError> {
        if purge.selectors.len() > SELECTORS_MAX {
            return Err(PurgeError::TooMany(purge.selectors.len()));
        }
        let bytes = purge.text_bytes();
        if bytes > SELECTOR_BYTES_MAX {
            return Err(PurgeError::TooLong(bytes));
        }
        let (answer, answered) = oneshot::channel();
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            return Err(PurgeError::Closed);
        }
        // An invalidation has no operator who would try again.
        let pending_max = match urgency {
            Urgency::MustBeDurable => PENDING_MAX,
            Urgency::ApplyAnyway => 4 * PENDING_MAX,
        };
        if queue.pending.len() >= pending_max || queue.pending_bytes + bytes > PENDING_BYTES_MAX {
            return Err(PurgeError::Busy(queue.pending.len()));
        }
        queue.pending_bytes += bytes;
        queue.pending.push(Pending { purge, urgency, answer, also: Vec::new() });
        drop(queue);
        self.shared.wake.notify_one();
        Ok(answered)
    }

    pub(crate) fn note_counted(&self, position: Position, matched: u64, bytes: u64, at: SystemTime) {
        // One that is not remembered any more need not be noted.
        let receipt =
            self.shared.receipts.lock().note(position, matched, bytes, Some(at)).map(|receipt| receipt.durable_at);
        let Some(durable_at) = receipt else { return };
        let counted = Counted { position, matched, bytes, at, durable_at };
        let mut queue = self.shared.queue.lock();
        if queue.counted.len() < PENDING_MAX {
            queue.counted.push(counted);
        }
    }

    pub(crate) fn receipt(&self, id: &str) -> Option<Receipt> {
        self.shared.receipts.lock().find(id).cloned()
    }

    /// The newest first, of those before a position that are wanted. Others are not cloned.
    pub(crate) fn receipts(
        &self,
        before: Option<Position>,
        count_max: usize,
        is_wanted: impl Fn(&Receipt) -> bool,
    ) -> Vec<Receipt> {
        let receipts = self.shared.receipts.lock();
        let older = receipts.iter().rev().filter(|receipt| before.is_none_or(|before| receipt.position < before));
        older.filter(|receipt| is_wanted(receipt)).take(count_max).cloned().collect()
    }

    /// Writes the log anew under another store's id; blocks until it is durable.
    pub(crate) fn rename(&self, store: StoreId) -> io::Result<()> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        {
            let mut queue = self.shared.queue.lock();
            if queue.closed {
                return Err(io::Error::other("the store is closed"));
            }
            queue.rename = Some((store, sender));
        }
        self.shared.wake.notify_one();
        receiver.recv().unwrap_or_else(|_| Err(io::Error::other("the purge log's thread ended")))
    }

    /// Why purges are refused now, if they are.
    pub(crate) fn failure(&self) -> Option<String> {
        self.shared.failure.lock().clone()
    }

    pub(crate) fn log_bytes(&self) -> u64 {
        self.shared.log_bytes.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// What waits is still committed; later purges are refused. Blocks.
    pub(crate) fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.close();
    }
}

fn run(shared: &Shared, mut log: PurgeLog) {
    // A position has been shown that the log does not hold, or the log cannot be written: it is written anew as soon as it
    // can be. One that was not made yet is made by `rename`, when what it must not vouch for is out of its way.
    let mut is_owing = log.is_soiled() && log.is_made();
    if log.is_soiled() {
        *shared.failure.lock() = Some("it could be read, not written".to_owned());
    }
    loop {
        shared.log_bytes.store(log.bytes(), std::sync::atomic::Ordering::Relaxed);
        let (pending, counted, rename, closed) = {
            let mut queue = shared.queue.lock();
            while queue.pending.is_empty() && queue.rename.is_none() && !queue.closed {
                if !is_owing {
                    shared.wake.wait(&mut queue);
                } else if shared.wake.wait_for(&mut queue, RETRY_AFTER).timed_out() {
                    break;
                }
            }
            let rename = queue.rename.take();
            queue.pending_bytes = 0;
            (std::mem::take(&mut queue.pending), std::mem::take(&mut queue.counted), rename, queue.closed)
        };
        if let Some((store, answer)) = rename {
            let done = checkpoint(shared, &mut log, store);
            is_owing &= done.is_err();
            let _ = answer.send(done);
        }
        if is_owing {
            let store = log.store();
            is_owing = checkpoint(shared, &mut log, store).is_err();
        }
        if !pending.is_empty() || (closed && !counted.is_empty()) {
            is_owing |= !commit(shared, &mut log, pending, &counted);
        }
        if closed && shared.queue.lock().pending.is_empty() {
            return;
        }
    }
}

fn checkpoint(shared: &Shared, log: &mut PurgeLog, store: StoreId) -> io::Result<()> {
    // Encoded under the locks, written without them: a hit may wait for the one, never for a disk.
    let checkpoint = {
        let receipts = shared.receipts.lock();
        shared.clock.with_table(|table| Checkpoint::of(store, table, &receipts))
    };
    let done = checkpoint.and_then(|checkpoint| log.rewrite(&checkpoint));
    note(shared, &done);
    done
}

/// Keeps in mind whether the log can be written.
fn note(shared: &Shared, done: &io::Result<()>) {
    *shared.failure.lock() = done.as_ref().err().map(ToString::to_string);
}

fn write(shared: &Shared, log: &mut PurgeLog, records: &[LogRecord]) -> io::Result<()> {
    if log.wants_checkpoint(shared.growth_max) {
        let store = log.store();
        match checkpoint(shared, log, store) {
            Ok(()) => {}
            // A log that is merely long can still be appended to.
            Err(error) if !log.is_soiled() => tracing::warn!(%error, "the purge log could not be checkpointed"),
            Err(error) => return Err(error),
        }
    }
    let done = log.append(records);
    note(shared, &done);
    done
}

/// Answers those that were made before under their idempotency key, and leaves the others.
fn without_repeated(shared: &Shared, pending: Vec<Pending>) -> Vec<Pending> {
    let mut made: Vec<Pending> = Vec::with_capacity(pending.len());
    let receipts = shared.receipts.lock();
    for purge in pending {
        let is_same = |other: &Pending| {
            purge.purge.idempotency_key.is_some()
                && other.purge.idempotency_key == purge.purge.idempotency_key
                && other.purge.by == purge.purge.by
        };
        let answer = match receipts.repeated(&purge.purge) {
            Ok(None) => match made.iter_mut().find(|other| is_same(other)) {
                None => {
                    made.push(purge);
                    continue;
                }
                Some(first)
                    if purge.purge.is_same(&first.purge.selectors, first.purge.mode, first.purge.fingerprint) =>
                {
                    first.also.push(purge.answer);
                    continue;
                }
                Some(_) => Err(PurgeError::IdempotencyConflict("being made".to_owned())),
            },
            Ok(Some(receipt)) => Ok(receipt),
            Err(error) => Err(error),
        };
        let _ = purge.answer.send(answer);
    }
    made
}

/// False if something was shown that is not in the log.
fn commit(shared: &Shared, log: &mut PurgeLog, pending: Vec<Pending>, counted: &[Counted]) -> bool {
    let pending = without_repeated(shared, pending);
    if pending.is_empty() && counted.is_empty() {
        return true;
    }
    let first = shared.clock.latest().0 + 1;
    let notes = counted.iter().map(|counted| LogRecord::Counted {
        position: counted.position,
        matched: counted.matched,
        bytes: counted.bytes,
        at: counted.at,
        durable_at: counted.durable_at,
    });
    let mut records: Vec<LogRecord> = notes.collect();
    let positions: Vec<Position> = (first..).take(pending.len()).map(Position).collect();
    // The time of the write: the sync ends within milliseconds of it, or the purge is not acknowledged.
    let durable_at = SystemTime::now();
    let purges = pending.iter().zip(&positions);
    records.extend(purges.map(|(pending, position)| LogRecord::ordered(*position, &pending.purge, durable_at)));
    let failure = write(shared, log, &records).err().map(Arc::new);
    if let Some(error) = &failure {
        tracing::error!(%error, purges = pending.len(), "purges could not be made durable");
    }
    let durable = failure.is_none();
    let durable_at = SystemTime::now();
    let is_shown = |purge: &Pending| durable || purge.urgency == Urgency::ApplyAnyway;
    let mut shown: Vec<(Matcher, Position, PurgeMode)> = Vec::with_capacity(pending.len());
    for (pending, position) in pending.iter().zip(&positions).filter(|(pending, _)| is_shown(pending)) {
        shown.extend(pending.purge.selectors.iter().map(|one| (Matcher::of(one), *position, pending.purge.mode)));
    }
    shared.clock.apply(shown.iter().map(|(matcher, position, mode)| (matcher, *position, *mode)));
    for (purge, position) in pending.into_iter().zip(positions) {
        let answer = match &failure {
            None => {
                let receipt = Receipt::new(position, purge.purge, durable_at);
                shared.receipts.lock().push(receipt.clone());
                Ok(receipt)
            }
            Some(error) => Err(PurgeError::Log(Arc::clone(error))),
        };
        for also in purge.also {
            let again = answer.as_ref().map(|receipt| Receipt { is_repeated: true, ..receipt.clone() });
            let _ = also.send(again.map_err(Clone::clone));
        }
        // Nobody may be waiting any more; the purge holds all the same.
        let _ = purge.answer.send(answer);
    }
    durable || shown.is_empty()
}
