//! Reclaiming: what a purge hit is counted, and after a hard one its space given back. The purge holds before and without it.
//!
//! Always true:
//! - What few stored responses carry, or none, is looked at alone, at once. Else a walk over the whole catalog serves the purges that wait
//!   for one when it begins, at most [`TOGETHER_MAX`].
//! - At most [`WAITING_MAX`] wait. What a further one hit is not counted, and neither is what a write has purged unless its carriers are
//!   known: that space is given back by a sweep a minute later, or by eviction.
//! - A sweep takes nothing that a purge which is still to be counted has hit.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use brim_semantics::{KeyHash, PurgeState};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::carriers::GATHERED_MAX;
use crate::catalog::Which;
use crate::disk::Op;
use crate::purge::{Position, PurgeMode, Selector, Target};
use crate::response::StoredResponse;
use crate::shared::Shared;

pub(crate) const WAITING_MAX: usize = 65_536;
/// Purges that one walk counts for: a shard of the catalog is locked while each of its responses is compared with each of them.
const TOGETHER_MAX: usize = 64;
/// From the purge to its walk: the acknowledgement and the next requests go first, and purges that come together share the walk.
const WALK_DELAY: Duration = Duration::from_millis(2);
/// How long a walk is rested for, in its own length.
const WALK_REST: u32 = 2;
const WALK_REST_MAX: Duration = Duration::from_secs(2);
/// With so many purges in a walk the clock is asked of each response first: it knows all purges at once.
const MANY: usize = 4;

/// Responses that are looked at by whoever has made the purge: some 0.1 ms if all of them go.
const AT_ONCE_MAX: usize = 32;

/// A purge whose hits are to be counted.
struct Reclaim {
    target: Target,
    position: Position,
    mode: PurgeMode,
    counted: oneshot::Sender<()>,
}

/// What a purge hit.
#[derive(Debug, Clone, Copy, Default)]
struct Hit {
    count: u64,
    bytes: u64,
}

impl Hit {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// Purges that wait for a walk.
#[derive(Default)]
pub(crate) struct Reclaims {
    waiting: Mutex<Waiting>,
    counted: Notify,
    /// The newest position when the last sweep was due.
    noted: AtomicU64,
    /// What was purged up to this position was given back by a sweep.
    swept: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    reclaims: VecDeque<Reclaim>,
    /// The oldest of those that are walked for.
    walked_for: Option<Position>,
    /// Somebody walks, or will, until none waits.
    is_asked_for: bool,
}

impl Reclaims {
    /// Threads were left behind, and what waited for them was dropped.
    pub(crate) fn reset(&self) {
        *self.waiting.lock() = Waiting::default();
    }

    /// Told whenever a walk has ended.
    pub(crate) fn counted(&self) -> &Notify {
        &self.counted
    }

    /// The oldest purge that is still to be counted.
    fn oldest(&self) -> Option<Position> {
        let waiting = self.waiting.lock();
        waiting.reclaims.iter().map(|reclaim| reclaim.position).chain(waiting.walked_for).min()
    }

    /// How many wait for a walk.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.lock().reclaims.len()
    }
}

/// Has what a purge hit counted and given back. The other end fails where it will not be counted.
pub(crate) fn reclaim(
    shared: &Arc<Shared>,
    target: Target,
    position: Position,
    mode: PurgeMode,
) -> oneshot::Receiver<()> {
    let (counted, count) = oneshot::channel();
    let carriers = target.names.as_deref().and_then(|names| shared.catalog.carriers().of(names, AT_ONCE_MAX));
    let reclaim = Reclaim { target, position, mode, counted };
    match carriers {
        Some(keys) => shared.take(vec![reclaim], Some(&keys)),
        None => wait_for_walk(shared, reclaim),
    }
    count
}

/// The same for what a write has purged, where its carriers are known: a write is not worth a walk of its own.
pub(crate) fn reclaim_written(shared: &Arc<Shared>, selectors: &[Selector], position: Position) {
    let target = Target::of(selectors);
    if target.names.as_deref().is_some_and(|names| shared.catalog.carriers().are_known(names, GATHERED_MAX)) {
        drop(reclaim(shared, target, position, PurgeMode::Hard));
    }
}

fn wait_for_walk(shared: &Arc<Shared>, reclaim: Reclaim) {
    let mut waiting = shared.reclaims.waiting.lock();
    if waiting.reclaims.len() < WAITING_MAX {
        waiting.reclaims.push_back(reclaim);
    }
    if !std::mem::replace(&mut waiting.is_asked_for, true) {
        ask_for_walk(shared);
    }
}

/// Behind the looks that wait. One thread walks, and rests, at a time; another is left for the looks.
fn ask_for_walk(shared: &Arc<Shared>) {
    let walking = Arc::clone(shared);
    drop(shared.walk_pool.submit(usize::MAX, move || walk_for_waiting(&walking)));
}

fn walk_for_waiting(shared: &Arc<Shared>) {
    std::thread::sleep(WALK_DELAY);
    let reclaims: Vec<Reclaim> = {
        let mut waiting = shared.reclaims.waiting.lock();
        let count = waiting.reclaims.len().min(TOGETHER_MAX);
        waiting.is_asked_for = count > 0;
        let reclaims: Vec<Reclaim> = waiting.reclaims.drain(..count).collect();
        waiting.walked_for = reclaims.iter().map(|reclaim| reclaim.position).min();
        reclaims
    };
    if reclaims.is_empty() {
        return;
    }
    let began = Instant::now();
    let carriers = shared.carriers_of_all(&reclaims);
    if carriers.is_none() {
        shared.counters.walks.add(1);
    }
    shared.take(reclaims, carriers.as_deref());
    shared.reclaims.waiting.lock().walked_for = None;
    // However many purges come, walks take a third of a CPU at most: those that come meanwhile share the next one.
    std::thread::sleep((began.elapsed() * WALK_REST).min(WALK_REST_MAX));
    ask_for_walk(shared);
}

impl Shared {
    /// `None`: there are too many, or those of at least one are not known.
    fn carriers_of_all(&self, reclaims: &[Reclaim]) -> Option<Vec<KeyHash>> {
        let names: Option<Vec<_>> = reclaims.iter().map(|reclaim| reclaim.target.names.as_deref()).collect();
        self.catalog.carriers().of(&names?.concat(), GATHERED_MAX)
    }

    /// Looks at what is stored under some keys, or at all, and takes away what a hard one of the purges hit.
    fn take(&self, reclaims: Vec<Reclaim>, keys: Option<&[KeyHash]>) {
        let mut counts = vec![Hit::default(); reclaims.len()];
        let mut gone = Vec::new();
        self.catalog.each_of(keys, |key, card| {
            let is_live = || self.clock().state_now(&card.names, card.fetched_at) == PurgeState::Live;
            if reclaims.len() >= MANY && is_live() {
                return;
            }
            let mut hits = reclaims
                .iter()
                .enumerate()
                .filter(|(_, reclaim)| card.fetched_at < reclaim.position && reclaim.target.matches(&card.names));
            // It counts for every soft purge, and for the first hard one.
            let hard = hits.find(|(n, reclaim)| {
                let is_hard = reclaim.mode == PurgeMode::Hard;
                if !is_hard {
                    counts[*n].add(card.length);
                }
                is_hard
            });
            if let Some((n, _)) = hard {
                gone.push((n, Which { key, variant: card.variant, serial: card.serial }, card.length));
            }
        });
        self.give_back(gone, &mut counts);
        for (reclaim, hit) in reclaims.into_iter().zip(counts) {
            self.committer.note_counted(reclaim.position, hit.count, hit.bytes, SystemTime::now());
            let _ = reclaim.counted.send(());
        }
        self.reclaims.counted.notify_waiters();
    }

    /// Called once a minute: gives back what was purged before the last call. What writes have purged is not walked for one by one.
    pub(crate) fn sweep_again(&self, latest: Position) {
        let reclaims = &self.reclaims;
        let noted = reclaims.noted.swap(latest.0, Ordering::Relaxed);
        let newest = reclaims.oldest().map_or(noted, |oldest| noted.min(oldest.0.saturating_sub(1)));
        if reclaims.swept.fetch_max(newest, Ordering::Relaxed) < newest {
            self.sweep(Position(newest));
        }
    }

    /// What a later purge has hit, too, is left to that one.
    fn sweep(&self, newest: Position) {
        let mut gone = Vec::new();
        self.catalog.each(|key, card| {
            if self.clock().with_table(|table| table.is_gone_since(&card.names, card.fetched_at, newest)) {
                gone.push((0, Which { key, variant: card.variant, serial: card.serial }, card.length));
            }
        });
        let mut swept = [Hit::default()];
        self.give_back(gone, &mut swept);
        if swept[0].count > 0 {
            tracing::debug!(count = swept[0].count, bytes = swept[0].bytes, "what writes have purged is given back");
        }
    }

    fn give_back(&self, gone: Vec<(usize, Which, u64)>, counts: &mut [Hit]) {
        let is_purged = |one: &Arc<StoredResponse>| {
            self.clock().state(&one.names, one.head.fetched_at, &one.checked) == PurgeState::Hard
        };
        let mut removed = Vec::with_capacity(gone.len());
        for (n, which, length) in gone {
            self.remember_purged(which.key);
            let ((), let_go) = self.memory.remove_some(which.key, is_purged, || ());
            self.let_go(let_go);
            if self.catalog.remove(which) {
                counts[n].add(length);
                removed.push(which);
            }
        }
        if !removed.is_empty() {
            // As the index has them: the same of its pages again and again.
            removed.sort_unstable_by_key(|which| (which.key, which.variant));
            self.reading().queue.push(Op::Forget(removed));
        }
    }
}
