//! One entry of the index, as it is listed.

use std::path::Path;
use std::time::SystemTime;

use brim_semantics::{KeyHash, KeyMethod, Nominated, Part};

use super::{OfflineError, OfflineStore, Purges};
use crate::index::split_index_key;
use crate::purge::Position;
use crate::record::{self, BodyPlace};
use crate::segment::{RecordHeader, record_bytes};

/// What a node would make of a stored response, as far as purges go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// No purge names it.
    Live,
    /// Stale by a soft purge.
    Soft,
    /// A hard purge names it: refused, and removed when a node opens the directory.
    Hard,
    /// Fetched at a position that the purge log does not reach: refused, too.
    BeyondLog,
    /// The purge log is damaged.
    Unknown,
}

impl Standing {
    /// The word for it; none for what no purge names.
    pub fn as_word(self) -> Option<&'static str> {
        match self {
            Self::Live => None,
            Self::Soft => Some("soft"),
            Self::Hard => Some("hard"),
            Self::BeyondLog => Some("beyond-log"),
            Self::Unknown => Some("unknown"),
        }
    }

    /// Whether a node that opens the directory removes it unread.
    pub fn is_refused(self) -> bool {
        match self {
            Self::Hard | Self::BeyondLog => true,
            Self::Live | Self::Soft | Self::Unknown => false,
        }
    }
}

/// A stored response on disk, without its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Hash of its cache key.
    pub key: KeyHash,
    /// Of its cache key.
    pub method: KeyMethod,
    /// As it was requested.
    pub url: String,
    /// The site's name.
    pub site: Box<str>,
    /// The status of the response.
    pub status: u16,
    /// Length of the body; of a part, its own.
    pub bytes: u64,
    /// When it came, or was last validated.
    pub stored_at: SystemTime,
    /// The purge position at which its fetch began.
    pub fetched_at: Position,
    /// What it can be purged by.
    pub surrogate_keys: Vec<Box<str>>,
    /// The nominated fields, with the values that they had in the request that fetched it: a client's, credentials among them.
    pub nominated: Nominated,
    /// What of the representation it holds, where that is not all.
    pub part: Option<Part>,
    /// The segment with its body.
    pub segment: u64,
    /// What purges make of it.
    pub standing: Standing,
    pub(super) offset: u64,
    pub(super) header: RecordHeader,
    pub(super) entry_bytes: u64,
}

impl StoredEntry {
    /// Bytes of its body in the segment.
    pub(super) fn record_bytes(&self) -> u64 {
        record_bytes(self.bytes)
    }
}

/// What a place of the index holds.
pub(super) enum Read<'a> {
    Good(Box<StoredEntry>),
    Bad { key: &'a [u8], bytes: u64, reason: String },
}

pub(super) fn read<'a>(key: &'a [u8], value: &[u8], purges: &Purges) -> Read<'a> {
    let bytes = (key.len() + value.len()) as u64;
    let bad = |reason: String| Read::Bad { key, bytes, reason };
    let Some((hash, variant)) = split_index_key(key) else { return bad("it is under no key of a store".to_owned()) };
    let entry = match record::decode(value) {
        Ok(entry) => entry,
        Err(error) => return bad(error.to_string()),
    };
    let head = entry.head;
    if head.key.hash() != hash || head.variant() != variant {
        return bad("it is under the key of another one".to_owned());
    }
    let key_facts = head.key.describe();
    let query = head.scope.query.as_ref().map_or(String::new(), |query| format!("?{query}"));
    let standing = purges.standing(&head);
    let BodyPlace { segment, offset, length, serial } = entry.place;
    Read::Good(Box::new(StoredEntry {
        key: hash,
        method: key_facts.method,
        url: format!("{}://{}{}{query}", key_facts.scheme, head.scope.authority, head.scope.path),
        site: (&*head.scope.site).into(),
        status: head.status.as_u16(),
        bytes: length,
        stored_at: head.meta.response_time,
        fetched_at: head.fetched_at,
        surrogate_keys: head.surrogate_keys,
        nominated: head.nominated,
        part: head.part,
        segment,
        standing,
        offset,
        header: RecordHeader { key: hash, variant, serial, length },
        entry_bytes: bytes,
    }))
}

/// How a listing came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Entries that could not be read.
    pub bad_count: u64,
    /// Why it is not known what was purged, if so.
    pub log_damage: Option<String>,
}

/// Gives each stored response on disk to `visit`, purged ones too, in the order of their key hashes, until it says false. Blocks.
///
/// # Errors
/// The directory cannot be looked at, or the index not read to its end.
pub fn entries(dir: &Path, visit: &mut dyn FnMut(&StoredEntry) -> bool) -> Result<Listed, OfflineError> {
    let store = OfflineStore::open(dir)?;
    let mut bad_count = 0;
    store
        .walk(&mut |read| match read {
            Read::Good(entry) => visit(&entry),
            Read::Bad { .. } => {
                bad_count += 1;
                true
            }
        })
        .map_err(|reason| store.index_failure(reason))?;
    Ok(Listed { bad_count, log_damage: store.purges.facts.damage().map(str::to_owned) })
}
