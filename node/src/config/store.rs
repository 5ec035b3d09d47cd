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
    section.finish();
    StoreSection { disk_max, memory_max, object_max }
}
