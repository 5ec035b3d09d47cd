//! `[store]`: how much is kept.

use super::limits;
use super::reader::Section;

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSection {
    /// Bytes on disk, index included.
    pub disk_max: u64,
    /// Bytes of the memory tier.
    pub memory_max: u64,
    /// The longest content that is stored; at most `disk_max`.
    pub object_max: u64,
    /// A miss for one range of a longer representation is forwarded as asked; of a shorter one the whole is fetched.
    pub range_whole_max: u64,
    /// A fill whose clients have all left goes on if no more than this is missing.
    pub finish_unread: u64,
}

pub(super) fn read(section: Section<'_>) -> StoreSection {
    let disk_max = section.bytes("disk_max", &limits::DISK_MAX);
    let memory_max = section.bytes("memory_max", &limits::MEMORY_MAX);
    let object_max = match section.optional_bytes("object_max", &limits::OBJECT_MAX) {
        None => limits::OBJECT_MAX.default.min(disk_max),
        Some(object_max) => {
            if object_max > disk_max {
                section.report("object_max", "is more than `disk_max`: such a response could never be kept");
            }
            object_max
        }
    };
    let range_whole_max = section.bytes("range_whole_max", &limits::RANGE_WHOLE_MAX);
    let finish_unread = section.bytes("finish_unread", &limits::FINISH_UNREAD);
    section.finish();
    StoreSection { disk_max, memory_max, object_max, range_whole_max, finish_unread }
}
