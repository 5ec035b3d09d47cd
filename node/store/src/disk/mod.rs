//! The disk tier: an index, segments, and one thread that changes them.
//!
//! Always true:
//! - One thread, the writer, changes the index; so replacing, evicting and removing never race.
//! - A segment file is removed only after the index flush that emptied it.
//! - What cannot be written is not on disk, counted, and still served from memory; requests never wait for the writer.
//! - A disk tier that fails is set aside into quarantine and an empty one takes its place; purges are not affected.
//!
//! Not here: what is in memory (`memory`), whether an entry still counts (`catalog`).

mod load;
mod opening;
mod queue;
mod segments;
mod space;
mod tier;
mod writer;

pub(crate) use load::load;
pub(crate) use queue::{Op, WriteQueue};
pub(crate) use tier::Disk;
pub(crate) use writer::run;
