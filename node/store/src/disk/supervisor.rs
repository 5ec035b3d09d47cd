//! The supervisor: the thread that has the disk tier opened, watches over it, and brings it back when it failed.
//!
//! Always true:
//! - What failed in this process is never believed again: it is set aside, or, as long as that cannot be done, left alone.
//! - A tier that does not answer for `stall_after` has failed. The threads inside it are left behind, at most
//!   [`STALLS_MAX`] times; after that the store goes on in memory.
//! - While there is no tier, what comes for it is answered here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::opening::{INDEX_DIR, SEGMENT_DIR, set_aside};
use super::queue::{Next, Op};
use super::writer;
use crate::dir::StoreId;
use crate::index::panic_text;
use crate::shared::{DiskState, Shared};

/// How long a disk tier that cannot be opened is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Tiers that may hang, one within an hour of the other; each leaves its threads behind.
const STALLS_MAX: u32 = 8;
const STALLS_WITHIN: Duration = Duration::from_secs(3600);
/// The longest pause between two looks at the watch.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What a disk tier consists of.
const TIER_PARTS: [&str; 2] = [INDEX_DIR, SEGMENT_DIR];
/// Everything a store consists of on disk, but for the lock.
const ALL_PARTS: [&str; 4] = [INDEX_DIR, SEGMENT_DIR, "purge.log", "format"];

/// What the directory was found to hold.
#[derive(Debug)]
pub(crate) enum Beginning {
    /// This store's parts, and a purge log that vouches for them.
    Known(StoreId),
    /// Parts that cannot be believed, for this reason; or nothing yet.
    Doubtful(String),
}

/// One life of a disk tier, as its thread and the supervisor share it.
#[derive(Default)]
pub(super) struct Turn {
    /// None: it goes on. Some(None): the store closes. Some(Some): it failed.
    outcome: Mutex<Option<Option<String>>>,
    ended: Condvar,
    is_abandoned: AtomicBool,
}

impl Turn {
    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Acquire)
    }

    fn end(&self, outcome: Option<String>) {
        *self.outcome.lock() = Some(outcome);
        self.ended.notify_all();
    }

    /// The outcome, if it comes within so long.
    fn wait(&self, at_most: Duration) -> Option<Option<String>> {
        let mut outcome = self.outcome.lock();
        if outcome.is_none() {
            self.ended.wait_for(&mut outcome, at_most);
        }
        outcome.clone()
    }
}

/// What is to be moved out of the way before a tier can be opened.
struct Aside {
    reason: String,
    parts: &'static [&'static str],
}

/// The supervisor's thread.
pub(crate) fn run(shared: &Arc<Shared>, beginning: Beginning) {
    let mut next = match beginning {
        Beginning::Known(store) => Ok(store),
        Beginning::Doubtful(reason) => Err(Aside { reason, parts: &ALL_PARTS }),
    };
    let (mut last_failure, mut last_stall, mut stalls): (Option<Instant>, Option<Instant>, u32) = (None, None, 0);
    while !shared.reading().queue.is_closed() {
        let store = match next {
            Ok(store) => store,
            Err(aside) => match set_aside(shared, &aside.reason, aside.parts) {
                Ok(fresh) => fresh,
                Err(error) => {
                    let reason = format!("{}; it cannot be set aside: {error}", aside.reason);
                    tracing::error!(reason, "no disk tier can be made; going on in memory");
                    shared.set_disk(None, DiskState::Failed(reason));
                    wait_without_disk(shared, RETRY_AFTER);
                    next = Err(aside);
                    continue;
                }
            },
        };
        let failure = match serve(shared, store) {
            End::Closed => break,
            End::Failed(failure) => failure,
            End::Stalled(failure) => {
                let is_long_ago = last_stall.replace(Instant::now()).is_some_and(|last| last.elapsed() > STALLS_WITHIN);
                stalls = if is_long_ago { 1 } else { stalls + 1 };
                failure
            }
        };
        shared.set_disk(None, DiskState::Failed(failure.clone()));
        if stalls >= STALLS_MAX {
            tracing::error!(stalls, "the disk has hung too often; going on in memory until the next start");
            while wait_without_disk(shared, RETRY_AFTER) {}
            break;
        }
        // One failure after the other: no tier can be made for now.
        if last_failure.replace(Instant::now()).is_some_and(|last| last.elapsed() < RETRY_AFTER) {
            wait_without_disk(shared, RETRY_AFTER);
        }
        next = Err(Aside { reason: failure, parts: &TIER_PARTS });
    }
    shared.set_disk(None, DiskState::Closed);
}

/// Answers what comes, for a while. False: the store closes.
fn wait_without_disk(shared: &Shared, so_long: Duration) -> bool {
    let until = Instant::now() + so_long;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        match shared.reading().queue.next(left) {
            Next::Op(Op::Write(response)) => {
                shared.counters.writes_dropped.add(1);
                shared.keep_in_memory(response.which());
            }
            Next::Op(Op::Forget(_) | Op::Damaged(..) | Op::MakeRoom(_)) => {}
            Next::Op(Op::Flush(done)) => {
                let _ = done.send(());
            }
            Next::Idle => return true,
            Next::Closed => return false,
        }
    }
    true
}

enum End {
    Closed,
    Failed(String),
    Stalled(String),
}

/// One life of a disk tier, in a thread of its own.
fn serve(shared: &Arc<Shared>, store: StoreId) -> End {
    let turn = Arc::new(Turn::default());
    let thread = std::thread::Builder::new().name("brim-index".into()).spawn({
        let (shared, turn) = (Arc::clone(shared), Arc::clone(&turn));
        move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| writer::serve(&shared, store, &turn)));
            turn.end(outcome.unwrap_or_else(|panic| {
                let failure = format!("the writer panicked: {}", panic_text(&*panic));
                if !turn.is_abandoned()
                    && let Some(disk) = shared.disk()
                {
                    disk.fail(&failure);
                }
                Some(failure)
            }));
        }
    });
    let thread = match thread {
        Ok(thread) => thread,
        Err(error) => return End::Failed(format!("no thread to write with: {error}")),
    };
    let stall_after = shared.config.stall_after;
    loop {
        if let Some(outcome) = turn.wait(LOOK_EVERY.min(stall_after / 4)) {
            let _ = thread.join();
            return outcome.map_or(End::Closed, End::Failed);
        }
        if shared.watch.longest() > stall_after {
            turn.is_abandoned.store(true, Ordering::Release);
            return End::Stalled(leave_behind(shared));
        }
        shared.trim_purges_now_and_then();
    }
}

/// The threads that hang are left where they are; others take their place.
fn leave_behind(shared: &Shared) -> String {
    let failure = format!("the disk has not answered for {:?}", shared.config.stall_after);
    tracing::error!(failure, "the threads that wait for the disk are left behind");
    shared.counters.stalls.add(1);
    if let Some(disk) = shared.disk() {
        disk.fail(&failure);
    }
    for pool in [&shared.reading().pool, &shared.write_pool, &shared.walk_pool] {
        if let Err(error) = pool.leave_behind() {
            tracing::error!(%error, "no thread in the place of one that hangs");
        }
    }
    shared.watch.reset();
    failure
}
