//! The disk tier: an index, segments, and one thread that changes them.
//!
//! Always true:
//! - One thread, the writer, changes the index; so replacing, evicting and removing never race.
//! - A segment file is removed only after the index flush that emptied it.
//! - What cannot be written is not on disk, counted, and still served from memory; requests never wait for the writer.
//! - A disk tier that fails, or hangs, is set aside into quarantine and an empty one takes its place; purges are not affected.
//! - Segments and index stay within `disk_max` plus one segment.
//!
//! Not here: what is in memory (`memory`), whether an entry still counts (`catalog`).

mod compaction;
mod load;
mod opening;
mod queue;
mod rebuild;
mod segments;
mod space;
mod supervisor;
mod tier;
mod writer;

pub(crate) use load::load;
pub(crate) use opening::{INDEX_DIR, SEGMENT_DIR};
pub(crate) use queue::{Op, WriteQueue};
pub(crate) use segments::Segments;
#[cfg(test)]
pub(crate) use supervisor::assert_stalls_are_bounded;
pub(crate) use supervisor::{Beginning, run};
pub(crate) use tier::{Disk, Failure};
