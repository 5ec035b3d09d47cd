//! Counters that threads add to without meeting: each thread has a shard, whoever reads adds the shards up.
//!
//! Why our own and not prometheus-client: its counters are one atomic each, shared by all threads, and its families look
//! labels up under a lock. A hit counts in about five places: five cache lines that would travel between the cores
//! on every request. Here they stay where they are, and a counter is an index known at compile time.
//!
//! Always true:
//! - Adding takes no lock and waits for nobody.
//! - A sum may miss what is added while it is taken, and never goes down.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Shards of one set of counters. More threads than that share them.
const SHARDS_MAX: usize = 64;

/// `N` counters, sharded.
#[derive(Debug)]
pub(super) struct Counters<const N: usize> {
    shards: Box<[Shard<N>]>,
}

/// Two lines apart: processors fetch neighbouring lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<const N: usize>([AtomicU64; N]);

impl<const N: usize> Counters<N> {
    pub(super) fn new() -> Self {
        let shard = |_| Shard(std::array::from_fn(|_| AtomicU64::new(0)));
        Self { shards: (0..shard_count()).map(shard).collect() }
    }

    pub(super) fn add(&self, index: usize, by: u64) {
        self.shards[shard_of_thread(self.shards.len())].0[index].fetch_add(by, Relaxed);
    }

    pub(super) fn sum(&self, index: usize) -> u64 {
        self.shards.iter().map(|shard| shard.0[index].load(Relaxed)).fold(0, u64::wrapping_add)
    }
}

/// One a core, as there is one runtime a core. A power of two.
pub(super) fn shard_count() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    cores.next_power_of_two().min(SHARDS_MAX)
}

/// The shard of the calling thread, below `count`, which is a power of two. Threads are numbered as they come.
pub(super) fn shard_of_thread(count: usize) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    debug_assert!(count.is_power_of_two(), "the mask needs a power of two");
    // A thread that is about to end counts in the first shard.
    let number = NUMBER.try_with(|number| {
        if number.get() == usize::MAX {
            number.set(NEXT.fetch_add(1, Relaxed));
        }
        number.get()
    });
    number.unwrap_or(0) & (count - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_over_many_threads() {
        let counters = Counters::<3>::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..10_000).for_each(|_| counters.add(1, 2)));
            }
        });
        assert_eq!((counters.sum(0), counters.sum(1), counters.sum(2)), (0, 160_000, 0));
    }

    #[test]
    fn shards_do_not_share_lines() {
        assert_eq!(align_of::<Shard<1>>(), 128);
        assert!(shard_count().is_power_of_two());
    }
}
