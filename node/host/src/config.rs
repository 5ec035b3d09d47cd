//! Limits of plugins: what an operator may change, and what is fixed.

use std::collections::BTreeMap;
use std::time::Duration;

/// The clock of deadlines: a call is stopped at the first tick after its deadline.
pub const TICK: Duration = Duration::from_millis(1);

/// A deadline counts the time its thread really runs: on a busy machine a thread can stand still for longer than a rule may take.
/// A call that has not ended after so many times its deadline on the wall clock is stopped nevertheless.
pub const WALL_FACTOR: u32 = 10;

/// `describe` runs once when a plugin is loaded, never for a request, and may find everything cold.
pub const DESCRIBE_DEADLINE: Duration = Duration::from_millis(50);

/// Lowest part of a guest's memory that stays mapped between instances and is cleared by hand. The SDK's stack (32 KiB), data and
/// arena (128 KiB) fit in it, which is what makes a fresh instance cost 5 µs.
pub const KEEP_RESIDENT_BYTES: usize = 256 * 1024;

/// What a guest may pass to the host at once, all strings and lists together. Far above what a valid answer can hold; a guest that
/// passes more is stopped before the host allocates it.
pub const DECISION_BYTES_MAX: usize = 128 * 1024;

/// As [`DECISION_BYTES_MAX`], of an invalidation rule: its keys and URLs may be more than a key decision holds.
pub const INVALIDATION_BYTES_MAX: usize = 1024 * 1024;
/// What an invalidation rule may want purged after one request. What is more than that is purged by prefix, key or site.
pub const PURGES_MAX: usize = 64;
/// URL or prefix of one purge.
pub const PURGE_URL_BYTES_MAX: usize = 8 * 1024;
const _: () = assert!(
    PURGES_MAX * PURGE_URL_BYTES_MAX + brim_semantics::SURROGATE_KEYS_MAX * brim_semantics::SURROGATE_KEY_BYTES_MAX
        < INVALIDATION_BYTES_MAX,
    "a valid answer is not stopped"
);

/// Name of a key part.
pub const PART_NAME_BYTES_MAX: usize = 64;
/// Reason of a bypass, message of a failure.
pub const REASON_BYTES_MAX: usize = 256;
/// Extras in a decision; the name of one is as long as a part's at most, the value as a reason's.
pub const EXTRAS_MAX: usize = 16;

/// Header fields a plugin may declare.
pub const HEADERS_MAX: usize = 32;
/// Cookies a plugin may declare.
pub const COOKIES_MAX: usize = 32;
/// Query parameters a plugin may declare by name.
pub const QUERY_NAMES_MAX: usize = 64;

/// A decision is remembered only for inputs up to this length: long ones seldom come again.
pub const MEMO_INPUT_BYTES_MAX: usize = 4 * 1024;

/// A guest's log line is cut here.
pub const LOG_LINE_BYTES_MAX: usize = 1024;
/// Further lines of one call are dropped.
pub const LOG_LINES_PER_CALL_MAX: u32 = 16;
/// Further lines of one plugin within a second are dropped and counted.
pub const LOG_LINES_PER_SECOND_MAX: u32 = 50;

/// What an operator may change.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// How long a cache-key rule may run, in time of the thread it blocks.
    pub key_deadline: Duration,
    /// How long an invalidation rule may run, in time of the thread it blocks.
    pub invalidation_deadline: Duration,
    /// Linear memory of an instance.
    pub memory_max: usize,
    /// Calls that may run at once; a further one is [`Busy`](crate::PluginFault::Busy). Each reserves 4 GiB of address space (not of
    /// memory). Rules run on the node's threads, so more than a few a core are never needed.
    pub instances_max: u32,
    /// Remembered decisions of a plugin.
    pub memo_entries_max: usize,
    /// Bytes of inputs and decisions remembered for a plugin.
    pub memo_bytes_max: usize,
    /// Size of an uploaded component.
    pub component_bytes_max: usize,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            key_deadline: Duration::from_millis(5),
            invalidation_deadline: Duration::from_millis(5),
            memory_max: 16 * 1024 * 1024,
            instances_max: 64,
            memo_entries_max: 16 * 1024,
            memo_bytes_max: 8 * 1024 * 1024,
            component_bytes_max: 16 * 1024 * 1024,
        }
    }
}

/// Which imports a plugin is given. What is not granted is refused when the plugin is loaded.
#[derive(Debug, Clone)]
pub struct Grants {
    /// `brim:rules/log`. On by default: without it nobody learns why a plugin panics.
    pub log: bool,
    /// `brim:rules/config`, with these values.
    pub config: Option<BTreeMap<String, String>>,
}

impl Default for Grants {
    fn default() -> Self {
        Self { log: true, config: None }
    }
}
