//! What a plugin did so far.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::fault::PluginFault;

/// Faults of a plugin since it was loaded, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "as in `PluginFault`")]
pub struct FaultCounts {
    pub deadline: u64,
    pub memory: u64,
    pub trap: u64,
    pub panicked: u64,
    pub rejected: u64,
    pub bad_output: u64,
    pub busy: u64,
    pub no_hook: u64,
}

impl FaultCounts {
    /// All kinds together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_kind().iter().map(|(_, count)| count).sum()
    }

    /// Each kind with the word of `PluginFault::as_detail`.
    #[must_use]
    pub fn by_kind(&self) -> [(&'static str, u64); 8] {
        [
            ("deadline", self.deadline),
            ("memory", self.memory),
            ("trap", self.trap),
            ("panicked", self.panicked),
            ("rejected", self.rejected),
            ("bad-output", self.bad_output),
            ("busy", self.busy),
            ("no-hook", self.no_hook),
        ]
    }
}

/// What a plugin did since it was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PluginStats {
    /// Answers asked for, of all hooks.
    pub calls: u64,
    /// Of these, surrogate keys of responses.
    pub tags_calls: u64,
    /// Of these, purges after writes.
    pub purges_calls: u64,
    /// Answered from remembered decisions, without the guest.
    pub memo_hits: u64,
    /// By kind.
    pub faults: FaultCounts,
    /// In the guest and around it, without remembered decisions.
    pub time: Duration,
    /// The longest call.
    pub time_max: Duration,
    /// Log lines that were over the limits.
    pub log_lines_dropped: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) calls: AtomicU64,
    pub(crate) tags_calls: AtomicU64,
    pub(crate) purges_calls: AtomicU64,
    pub(crate) memo_hits: AtomicU64,
    time_ns: AtomicU64,
    time_max_ns: AtomicU64,
    faults: [AtomicU64; 8],
}

impl Counters {
    pub(crate) fn ran_for(&self, time: Duration) {
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.time_ns.fetch_add(time_ns, Relaxed);
        self.time_max_ns.fetch_max(time_ns, Relaxed);
    }

    pub(crate) fn failed(&self, fault: &PluginFault) {
        let kind = match fault {
            PluginFault::Deadline => 0,
            PluginFault::Memory => 1,
            PluginFault::Trap(_) => 2,
            PluginFault::Panicked(_) => 3,
            PluginFault::Rejected(_) => 4,
            PluginFault::BadOutput(_) => 5,
            PluginFault::Busy => 6,
            PluginFault::NoHook => 7,
        };
        self.faults[kind].fetch_add(1, Relaxed);
    }

    pub(crate) fn read(&self, log_lines_dropped: u64) -> PluginStats {
        let [deadline, memory, trap, panicked, rejected, bad_output, busy, no_hook] =
            self.faults.each_ref().map(|count| count.load(Relaxed));
        PluginStats {
            calls: self.calls.load(Relaxed),
            tags_calls: self.tags_calls.load(Relaxed),
            purges_calls: self.purges_calls.load(Relaxed),
            memo_hits: self.memo_hits.load(Relaxed),
            faults: FaultCounts { deadline, memory, trap, panicked, rejected, bad_output, busy, no_hook },
            time: Duration::from_nanos(self.time_ns.load(Relaxed)),
            time_max: Duration::from_nanos(self.time_max_ns.load(Relaxed)),
            log_lines_dropped,
        }
    }
}
