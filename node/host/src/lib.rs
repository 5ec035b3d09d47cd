//! Runs plugins: components of other people, inside the process, without trusting them.
//!
//! Always true:
//! - A call has a fresh instance. Nothing survives from one request to another but remembered decisions, which are pure.
//! - A guest sees its declared inputs and nothing else, and reaches nothing but the imports it was granted.
//! - A call ends: in a decision or in a [`PluginFault`], at latest about a millisecond after its thread ran for its deadline. It
//!   runs on the calling thread and blocks it that long at most.
//! - Whatever a guest does, the next call of it or of another plugin is not affected.
//!
//! Not here: which version of a plugin is live, where compiled ones are kept (`brim-node`), what a fault does to its request
//! (the request path: bypass the cache).

mod config;
mod deadline;
mod decision;
mod description;
mod engine;
mod fault;
mod guest;
mod host;
mod inputs;
mod invalidation;
pub mod json;
mod log;
mod memo;
mod plugin;
mod refused;
mod stats;
mod text;

pub use config::{
    COOKIES_MAX, DECISION_BYTES_MAX, DESCRIBE_DEADLINE, EXTRAS_MAX, Grants, HEADERS_MAX, HostConfig,
    INVALIDATION_BYTES_MAX, KEEP_RESIDENT_BYTES, LOG_LINE_BYTES_MAX, LOG_LINES_PER_CALL_MAX, LOG_LINES_PER_SECOND_MAX,
    MEMO_INPUT_BYTES_MAX, PART_NAME_BYTES_MAX, PURGE_URL_BYTES_MAX, PURGES_MAX, QUERY_NAMES_MAX, REASON_BYTES_MAX,
    TICK, WALL_FACTOR,
};
pub use decision::{KeyDecision, QueryUse};
pub use description::{Description, Hook, Inputs, QueryInputs};
pub use engine::{HostError, compatibility, compile};
pub use fault::PluginFault;
pub use host::Host;
pub use inputs::{InputKind, KeyRequest, SeenInput};
pub use invalidation::{InvalidationCall, InvalidationInputs, PluginPurge};
pub use plugin::Plugin;
pub use refused::RefusedPlugin;
pub use stats::{FaultCounts, PluginStats};

/// SHA-256 of a component: its identity.
pub type Digest = [u8; 32];
