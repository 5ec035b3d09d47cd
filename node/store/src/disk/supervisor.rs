//! The supervisor: the thread that has the disk tier opened, watches over it, and brings it back when it failed.
//!
//! Always true:
//! - What failed in this process is not believed again: it is set aside, or, as long as that cannot be done, left alone. Want
//!   of space is no such failure: what is on disk then is as good as after a crash, and is opened again when there is some.
//! - This thread does nothing itself that may hang: a tier is set aside, opened and written by a thread of its own, a turn.
//! - A tier that does not answer for `stall_after` has failed. The threads inside it are left behind, at most
//!   [`STALLS_MAX`] times; after that the store goes on in memory. So it does when setting a tier aside hangs: a rename that
//!   comes late might take the next one's files.
//! - While there is no tier, what comes for it is answered here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::opening::{INDEX_DIR, PATIENCE, SEGMENT_DIR, set_aside};
use super::queue::{Next, Op};
use super::{Failure, writer};
use crate::dir::StoreId;
use crate::index::panic_text;
use crate::shared::{DiskState, Shared};

/// How long a disk tier that cannot be opened is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How long a tier that found no space is left alone; then until there is some.
const SPACE_AFTER: Duration = Duration::from_secs(1);
/// What an index needs to be opened, whatever the reserve.
const SPACE_MIN: u64 = 1024 * 1024;
/// Attempts to open what found no space again, if something else is in the way.
const REOPENINGS_MAX: u32 = 3;
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

/// How far a turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    SettingAside,
    Opening,
    Open,
}

/// One life of a disk tier, as its thread and the supervisor share it.
pub(super) struct Turn {
    progress: Mutex<Progress>,
    ended: Condvar,
    is_abandoned: AtomicBool,
}

struct Progress {
    stage: Stage,
    /// The store that is served.
    store: Option<StoreId>,
    outcome: Option<Outcome>,
}

#[derive(Debug, Clone)]
enum Outcome {
    Closed,
    Failed(Failure),
    /// What is there cannot be moved out of the way, for this reason.
    NotSetAside(String),
}

impl Turn {
    fn new(store: Option<StoreId>) -> Self {
        let stage = if store.is_some() { Stage::Opening } else { Stage::SettingAside };
        let progress = Mutex::new(Progress { stage, store, outcome: None });
        Self { progress, ended: Condvar::new(), is_abandoned: AtomicBool::new(false) }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Acquire)
    }

    pub(super) fn enter(&self, stage: Stage) {
        self.progress.lock().stage = stage;
    }

    fn stage(&self) -> Stage {
        self.progress.lock().stage
    }

    fn store(&self) -> Option<StoreId> {
        self.progress.lock().store
    }

    fn end(&self, outcome: Outcome) {
        self.progress.lock().outcome = Some(outcome);
        self.ended.notify_all();
    }

    /// The outcome, if it comes within so long.
    fn wait(&self, at_most: Duration) -> Option<Outcome> {
        let mut progress = self.progress.lock();
        if progress.outcome.is_none() {
            self.ended.wait_for(&mut progress, at_most);
        }
        progress.outcome.clone()
    }
}

/// What is to be moved out of the way before a tier can be opened.
#[derive(Debug, Clone)]
struct Aside {
    reason: String,
    parts: &'static [&'static str],
}

/// What a turn begins with.
#[derive(Debug, Clone)]
enum Start {
    Open(StoreId),
    /// After it was closed: the catalog knows what is there.
    Reopen(StoreId),
    SetAside(Aside),
}

/// What came before.
#[derive(Debug, Default)]
struct History {
    last_failure: Option<Instant>,
    last_stall: Option<Instant>,
    stalls: u32,
    /// Attempts that are left to open what found no space.
    reopenings: u32,
}

/// The supervisor's thread.
pub(crate) fn run(shared: &Arc<Shared>, beginning: Beginning) {
    let mut start = match beginning {
        Beginning::Known(store) => Start::Open(store),
        Beginning::Doubtful(reason) => Start::SetAside(Aside { reason, parts: &ALL_PARTS }),
    };
    let mut history = History::default();
    while !shared.reading().queue.is_closed() {
        let next = match serve(shared, &start) {
            End::Closed => break,
            End::Hung => None,
            End::Stalled(failure) => after_stall(shared, &failure, &mut history),
            End::NotSetAside(error) => {
                let Start::SetAside(aside) = &start else { break };
                let reason = format!("{}; it cannot be set aside: {error}", aside.reason);
                tracing::error!(reason, "no disk tier can be made; going on in memory");
                shared.set_disk(None, DiskState::Failed(reason));
                wait_without_disk(shared, RETRY_AFTER);
                Some(start.clone())
            }
            End::Failed(ended) => {
                let is_known = ended.was_open || matches!(start, Start::Reopen(_));
                Some(after_failure(shared, ended, is_known, &mut history))
            }
        };
        let Some(next) = next else {
            while wait_without_disk(shared, RETRY_AFTER) {}
            break;
        };
        start = next;
    }
    // What still waits is answered.
    while wait_without_disk(shared, RETRY_AFTER) {}
    shared.set_disk(None, DiskState::Closed);
    shared.await_endings();
}

/// None: it has hung too often.
fn after_stall(shared: &Shared, failure: &str, history: &mut History) -> Option<Start> {
    let is_long_ago = history.last_stall.replace(Instant::now()).is_some_and(|last| last.elapsed() > STALLS_WITHIN);
    history.stalls = if is_long_ago { 1 } else { history.stalls + 1 };
    shared.set_disk(None, DiskState::Failed(failure.to_owned()));
    if history.stalls >= STALLS_MAX {
        tracing::error!(history.stalls, "the disk has hung too often; going on in memory until the next start");
        return None;
    }
    Some(set_aside_after(shared, failure.to_owned(), history))
}

/// `is_known`: the catalog knows what the tier has.
fn after_failure(shared: &Shared, ended: Ended, is_known: bool, history: &mut History) -> Start {
    let token = shared.disk().map(|disk| disk.token());
    let Ended { failure, store, was_open } = ended;
    shared.set_disk(None, DiskState::Failed(failure.reason.clone()));
    let store = store.filter(|_| failure.is_for_space || (!was_open && history.reopenings > 0));
    let Some(store) = store else { return set_aside_after(shared, failure.reason, history) };
    history.reopenings = if failure.is_for_space { REOPENINGS_MAX } else { history.reopenings - 1 };
    tracing::warn!(failure.reason, "the disk tier is closed; it is opened again when there is space");
    if is_known {
        shared.close_disk();
    } else {
        shared.forget_disk();
    }
    let again = if is_known { Start::Reopen(store) } else { Start::Open(store) };
    let is_closed = || token.as_ref().is_none_or(|token| token.strong_count() == 0);
    let until = Instant::now() + shared.config.stall_after;
    while wait_without_disk(shared, SPACE_AFTER) {
        if is_closed() && shared.has_space(SPACE_MIN) {
            return again;
        }
        if !is_closed() && Instant::now() > until {
            // Some call in it does not come back.
            leave_threads_behind(shared);
            return set_aside_after(shared, format!("{}; it could not be closed", failure.reason), history);
        }
    }
    again
}

fn set_aside_after(shared: &Shared, reason: String, history: &mut History) -> Start {
    // One failure after the other: no tier can be made for now.
    if history.last_failure.replace(Instant::now()).is_some_and(|last| last.elapsed() < RETRY_AFTER) {
        wait_without_disk(shared, RETRY_AFTER);
    }
    Start::SetAside(Aside { reason, parts: &TIER_PARTS })
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

/// A tier that failed.
struct Ended {
    failure: Failure,
    store: Option<StoreId>,
    /// False: it failed while it was being opened.
    was_open: bool,
}

enum End {
    Closed,
    Failed(Ended),
    NotSetAside(String),
    Stalled(String),
    /// No further tier can be made.
    Hung,
}

/// What a turn's thread does.
fn live(shared: &Arc<Shared>, start: &Start, turn: &Turn) -> Outcome {
    let store = match start {
        Start::Open(store) | Start::Reopen(store) => *store,
        Start::SetAside(aside) => match set_aside(shared, &aside.reason, aside.parts) {
            Ok(fresh) => fresh,
            Err(error) => return Outcome::NotSetAside(error.to_string()),
        },
    };
    if turn.is_abandoned() {
        return Outcome::Closed;
    }
    turn.progress.lock().store = Some(store);
    turn.enter(Stage::Opening);
    writer::serve(shared, store, turn, matches!(start, Start::Reopen(_))).map_or(Outcome::Closed, Outcome::Failed)
}

fn begin_turn(shared: &Arc<Shared>, start: &Start) -> std::io::Result<(Arc<Turn>, JoinHandle<()>)> {
    let turn = Arc::new(Turn::new(match start {
        Start::Open(store) | Start::Reopen(store) => Some(*store),
        Start::SetAside(_) => None,
    }));
    let thread = std::thread::Builder::new().name("brim-index".into()).spawn({
        let (shared, turn, start) = (Arc::clone(shared), Arc::clone(&turn), start.clone());
        move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| live(&shared, &start, &turn)));
            turn.end(outcome.unwrap_or_else(|panic| {
                let failure = Failure::of(format_args!("the writer panicked: {}", panic_text(&*panic)));
                let disk = shared.disk().filter(|_| !turn.is_abandoned());
                let Some(disk) = disk else { return Outcome::Failed(failure) };
                disk.fail(failure.clone());
                // What failed before has led to it.
                Outcome::Failed(disk.failure().unwrap_or(failure))
            }));
        }
    })?;
    Ok((turn, thread))
}

/// One turn, watched to its end.
fn serve(shared: &Arc<Shared>, start: &Start) -> End {
    let (turn, thread) = match begin_turn(shared, start) {
        Ok(begun) => begun,
        Err(error) => {
            let failure = Failure::of(format_args!("no thread to write with: {error}"));
            return End::Failed(Ended { failure, store: None, was_open: false });
        }
    };
    let stall_after = shared.config.stall_after;
    let mut closing: Option<Instant> = None;
    loop {
        if let Some(outcome) = turn.wait(LOOK_EVERY.min(stall_after / 4)) {
            let _ = thread.join();
            return match outcome {
                Outcome::Closed => End::Closed,
                Outcome::NotSetAside(error) => End::NotSetAside(error),
                Outcome::Failed(failure) => {
                    End::Failed(Ended { failure, store: turn.store(), was_open: turn.stage() == Stage::Open })
                }
            };
        }
        let is_late = || shared.watch.longest() > stall_after;
        // Before it is open there is nothing that would have to be written.
        let is_unwanted = shared.reading().queue.is_closed()
            && turn.stage() != Stage::Open
            && closing.get_or_insert_with(Instant::now).elapsed() > stall_after;
        if is_unwanted || is_late() {
            turn.is_abandoned.store(true, Ordering::Release);
            return leave_behind(shared, turn.stage());
        }
        shared.tend_purges_now_and_then();
    }
}

/// The threads that hang are left where they are; others take their place.
fn leave_behind(shared: &Shared, stage: Stage) -> End {
    let (during, patience) = match stage {
        Stage::SettingAside => (" while the one before was set aside", PATIENCE),
        Stage::Opening => (" while it was opened", PATIENCE),
        Stage::Open => ("", 1),
    };
    let failure = format!("the disk has not answered for {:?}{during}", shared.config.stall_after * patience);
    tracing::error!(failure, "the threads that wait for the disk are left behind");
    shared.counters.stalls.add(1);
    if let Some(disk) = shared.disk() {
        disk.fail(Failure::of(&failure));
    }
    leave_threads_behind(shared);
    if stage == Stage::SettingAside {
        tracing::error!("going on in memory until the next start");
        shared.set_disk(None, DiskState::Failed(failure));
        return End::Hung;
    }
    End::Stalled(failure)
}

fn leave_threads_behind(shared: &Shared) {
    shared.has_left_behind.store(true, Ordering::Release);
    for pool in [&shared.reading().pool, &shared.write_pool, &shared.walk_pool] {
        if let Err(error) = pool.leave_behind() {
            tracing::error!(%error, "no thread in the place of one that hangs");
        }
    }
    shared.reclaims.reset();
    shared.watch.reset();
}

/// Too many within an hour, and no further tier is begun.
#[cfg(test)]
pub(crate) fn assert_stalls_are_bounded(shared: &Shared) {
    let mut history = History::default();
    for _ in 1..STALLS_MAX {
        // Its wait between two failures is not what is looked at.
        history.last_failure = None;
        assert!(after_stall(shared, "on purpose", &mut history).is_some());
    }
    let Some(long_ago) = Instant::now().checked_sub(STALLS_WITHIN + Duration::from_secs(1)) else {
        assert!(after_stall(shared, "on purpose", &mut history).is_none());
        return;
    };
    let recent = history.last_stall.replace(long_ago);
    history.last_failure = None;
    assert!(after_stall(shared, "on purpose", &mut history).is_some(), "an hour later they are forgiven");
    (history.last_stall, history.stalls) = (recent, STALLS_MAX - 1);
    assert!(after_stall(shared, "on purpose", &mut history).is_none());
}
