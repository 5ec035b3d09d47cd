//! Stored responses: in memory, on disk, and forgotten at once when they are purged.
//!
//! Always true:
//! - A purge is durable before it is visible, and visible before it is acknowledged; from then on no request uses what
//!   was fetched before it, on any thread, whatever the disk still holds.
//! - What is served equals what was stored: the full cache key is compared and every block has a checksum. A mismatch is
//!   a miss, and the entry goes.
//! - A damaged, failing or hanging disk tier is set aside and an empty one takes its place; the store never refuses to open
//!   for it, nor for a disk that takes no writes. Losing a stored response is a miss; losing a purge is not allowed.
//! - A hit in memory does no IO, allocates nothing, and waits for no writer.
//! - Memory, disk, queues and tables are bounded; each bound's outcome is documented where it is declared.
//!
//! Not here: whether a response may be stored or reused (`brim-semantics`), which request fills it (`brim-node`).

mod admission;
mod blocking;
mod carriers;
mod catalog;
mod config;
mod dir;
mod disk;
mod faults;
mod fill;
mod following;
mod headers;
mod index;
mod look;
mod memory;
pub mod offline;
mod purge;
mod reader;
mod recent;
mod reclaim;
mod record;
mod response;
mod segment;
mod shared;
mod stats;
mod store;
mod watch;
mod writing;

#[cfg(test)]
mod tests;

pub use config::{
    BLOCK_BYTES, COUNT_WAIT, FILL_WINDOW_BYTES, LOAD_DEADLINE, OPEN_WAIT, PURGE_DEADLINE, READ_QUEUE_MAX, READ_THREADS,
    SEGMENT_BYTES, StoreConfig, WRITE_QUEUE_BYTES_MAX, WRITE_QUEUE_COUNT_MAX,
};
pub use dir::OpenError;
pub use fill::{Fill, FillError, Finished, Following, Reason};
pub use look::{Matching, Popular};
pub use purge::{
    BY_RETRY, BY_WRITE, PATTERN_BYTES_MAX, PATTERN_STARS_MAX, Position, Predicate, Purge, PurgeError, PurgeMode,
    Receipt, SELECTOR_BYTES_MAX, SELECTORS_MAX, Selector,
};
pub use reader::{BodyError, BodyReader};
pub use response::{ResponseHead, Scope, StoredResponse, Variants};
pub use stats::{DiskState, StoreStats};
pub use store::{Found, Store};
