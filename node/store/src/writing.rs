//! One write of a body that streams: counted first, and never beyond the budget.

use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::disk::{Disk, Op};
use crate::segment::Segment;
use crate::shared::Shared;

/// How long a write waits for the writer to evict something.
const ROOM_DEADLINE: Duration = Duration::from_secs(5);

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
    let missing = |max: u64| (disk.used_bytes(max) + length).saturating_sub(max);
    if missing(max) > 0 {
        shared.reading().queue.push(Op::MakeRoom(length));
        let slack = shared.config.segment_bytes();
        let has_room = || disk.used_bytes(max) + length <= max + slack || disk.failure().is_some();
        if !shared.room.wait(ROOM_DEADLINE, has_room) {
            return Err(io::Error::other("no room was made in time"));
        }
    }
    if !disk.is_writable() {
        return Err(io::Error::other("the disk takes no writes"));
    }
    disk.segments.grow(segment.id, length);
    segment.file.write_all_at(bytes, offset)
}
