//! One write of a body that streams: counted first, and never beyond the budget.

use std::io;
use std::time::Duration;

use crate::disk::{Disk, Op};
use crate::faults::Step;
use crate::segment::Segment;
use crate::shared::Shared;

/// How long a write waits for the writer to evict something.
const ROOM_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of a body that are synced together.
const SYNC_EVERY_BYTES: u64 = 64 * 1024 * 1024;
/// How long no write is tried after one that failed.
pub(crate) const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(2);

/// Runs on the write pool; blocks.
pub(crate) fn write_growing(
    shared: &Shared,
    disk: &Disk,
    segment: &Segment,
    bytes: &[u8],
    offset: u64,
) -> io::Result<()> {
    let length = bytes.len() as u64;
    let max = shared.config.disk_max;
    if disk.used_bytes() + length > max {
        shared.reading().queue.push(Op::MakeRoom(length));
        // Several write at a time, and each has looked before.
        let slack = shared.config.segment_bytes() / 2;
        let has_room = || disk.used_bytes() + length <= max + slack || disk.failure().is_some();
        if !shared.room.wait(ROOM_DEADLINE, has_room) {
            return Err(io::Error::other("no room was made in time"));
        }
    }
    shared.spend_free(disk, length);
    if !disk.is_writable() {
        return Err(io::Error::other("the disk takes no writes"));
    }
    disk.segments.grow(segment.id, length);
    let _watched = shared.watch.call();
    let written = shared.config.faults().write_all_at(Step::SegmentAppend, &segment.file, bytes, offset);
    // A long body is made durable on its way: at its end there would be gigabytes to sync at once.
    let ends_a_stretch = offset / SYNC_EVERY_BYTES != (offset + length) / SYNC_EVERY_BYTES;
    let written = if ends_a_stretch { written.and_then(|()| segment.file.sync_data()) } else { written };
    if let Err(error) = &written {
        disk.pause(format!("a body cannot be written: {error}"), PAUSE_AFTER_ERROR);
    }
    written
}
