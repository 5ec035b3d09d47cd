//! A stored response: its head, ready to clone, and where its body is.
//!
//! Always true:
//! - A stored response never changes; freshening makes another one that shares the body.
//! - Its fields and its body keep no buffer of a connection alive.
//! - `body()` and the purge check of an unchanged clock neither allocate nor lock.

use std::cmp::Reverse;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use brim_semantics::{CacheKey, KeyHash, Nominated, Part, StoredMeta};
use bytes::Bytes;
use http::header::DATE;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

use crate::blocking::Pool;
use crate::catalog::{Card, Whereabouts, Which};
use crate::disk::WriteQueue;
use crate::headers;
use crate::purge::{Checked, Names, Position};
use crate::reader::BodyReader;
use crate::segment::{RecordHeader, Segment};
use crate::watch::Watch;

/// What purges can name about a response, besides its surrogate keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The site's name in the configuration.
    pub site: Arc<str>,
    /// Lower case, default port removed.
    pub authority: Box<str>,
    /// As requested.
    pub path: Box<str>,
    /// As requested.
    pub query: Option<Box<str>>,
}

/// Everything about a stored response but its body.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// The cache key.
    pub key: CacheKey,
    /// What purges can name.
    pub scope: Scope,
    /// The status of the response.
    pub status: StatusCode,
    /// As stored: without `Age`, `Cache-Status` and hop-by-hop fields.
    pub headers: HeaderMap,
    /// The variant (RFC 9111 §4.1).
    pub nominated: Nominated,
    /// What of the representation the body holds, where that is not all of it (RFC 9111 §3.3).
    pub part: Option<Part>,
    /// What later decisions need.
    pub meta: StoredMeta,
    /// What it can be purged by.
    pub surrogate_keys: Vec<Box<str>>,
    /// Those among them that do not come from its fields, and stay when a 304 brings other fields.
    pub content_keys: Vec<Box<str>>,
    /// The purge position at which its fetch began.
    pub fetched_at: Position,
    /// The plugin that made the key.
    pub plugin: Option<[u8; 32]>,
}

impl ResponseHead {
    /// What a response replaces: the one of the same variant, and of parts the one that begins at the same byte.
    pub(crate) fn variant(&self) -> u64 {
        variant_of(&self.nominated, self.part)
    }
}

pub(crate) fn variant_of(nominated: &Nominated, part: Option<Part>) -> u64 {
    let variant = nominated.variant_hash();
    match part {
        None => variant,
        Some(part) => xxhash_rust::xxh3::xxh3_64_with_seed(&part.start.to_le_bytes(), variant),
    }
}

/// Where a body lies on disk.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) segment: Arc<Segment>,
    /// Of the record's header.
    pub(crate) offset: u64,
    pub(crate) header: RecordHeader,
}

/// The body of one stored response and of those that were freshened from it.
#[derive(Debug)]
pub(crate) struct StoredBody {
    pub(crate) length: u64,
    /// None until it was written, and for ever when it could not be. Moves when its segment is given up.
    place: Mutex<Option<Place>>,
}

impl StoredBody {
    pub(crate) fn new(length: u64, place: Option<Place>) -> Self {
        Self { length, place: Mutex::new(place) }
    }

    pub(crate) fn place(&self) -> Option<Place> {
        self.place.lock().clone()
    }

    pub(crate) fn set_place(&self, place: Option<Place>) {
        *self.place.lock() = place;
    }
}

/// What a body needs to be read from disk.
pub(crate) struct Reading {
    pub(crate) pool: Pool,
    pub(crate) queue: WriteQueue,
    pub(crate) watch: Arc<Watch>,
}

/// A response that may be reused, as far as purges and freshness allow.
pub struct StoredResponse {
    /// Everything but the body.
    pub head: ResponseHead,
    pub(crate) bytes: Option<Bytes>,
    pub(crate) body: Arc<StoredBody>,
    pub(crate) trailers: Option<Box<HeaderMap>>,
    pub(crate) names: Arc<Names>,
    pub(crate) variant: u64,
    /// The number of this write: the higher one is the newer.
    pub(crate) serial: u64,
    pub(crate) checked: Checked,
    pub(crate) used: AtomicBool,
    /// It was freshened, and what purges say of what it was before is not known yet: any later one may have named it.
    doubtful: AtomicBool,
    pub(crate) reading: Arc<Reading>,
    weight: u64,
}

impl std::fmt::Debug for StoredResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredResponse").field("head", &self.head).field("length", &self.body.length).finish()
    }
}

/// What a response of the memory tier costs beside its key, its fields, its texts and its body: all that it consists of, each
/// with the counts and the rounding of an allocation of its own, and its place in the tier.
const OVERHEAD_BYTES: u64 = {
    let parts = size_of::<StoredResponse>() + size_of::<StoredBody>() + size_of::<Names>() + size_of::<Variants>();
    let (allocations, place_in_tier) = (12 * 16, 64);
    (parts + allocations + place_in_tier) as u64
};
/// A surrogate key is a text of its own; its names are counted with the others.
const SURROGATE_KEY_BYTES: usize = 16 + 24;
/// A head whose body is on disk may hold a file open: it weighs so much that there are never too many of them.
const OPEN_FILE_BYTES: u64 = 256 * 1024;

/// All that is needed to make a [`StoredResponse`].
pub(crate) struct Parts {
    pub(crate) head: ResponseHead,
    pub(crate) bytes: Option<Bytes>,
    pub(crate) body: Arc<StoredBody>,
    pub(crate) trailers: Option<Box<HeaderMap>>,
    pub(crate) names: Arc<Names>,
    pub(crate) serial: u64,
    pub(crate) reading: Arc<Reading>,
}

impl StoredResponse {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts { head, bytes, body, trailers, names, serial, reading } = parts;
        let texts = head.key.bytes().len()
            + head.scope.authority.len()
            + head.scope.path.len()
            + names.heap_bytes()
            + head.scope.query.as_ref().map_or(0, |query| query.len())
            + head
                .surrogate_keys
                .iter()
                .chain(&head.content_keys)
                .map(|key| key.len() + SURROGATE_KEY_BYTES)
                .sum::<usize>()
            + head.nominated.memory_bytes();
        let weight = OVERHEAD_BYTES
            + texts as u64
            + headers::memory_bytes(&head.headers)
            + trailers.as_deref().map_or(0, headers::memory_bytes)
            + bytes.as_ref().map_or(OPEN_FILE_BYTES, |bytes| bytes.len() as u64);
        Arc::new(Self {
            variant: head.variant(),
            head,
            bytes,
            body,
            trailers,
            names,
            serial,
            checked: Checked::default(),
            used: AtomicBool::new(false),
            doubtful: AtomicBool::new(false),
            reading,
            weight,
        })
    }

    /// The body's length. Always known: only what arrived whole is stored. Of a part, its own length.
    pub fn content_length(&self) -> Option<u64> {
        Some(self.body.length)
    }

    /// The body, when it is wholly in memory.
    #[inline]
    pub fn body(&self) -> Option<Bytes> {
        self.mark_used();
        self.bytes.clone()
    }

    /// Whether the body is wholly in memory. Asking does not count as a use, so that it can be asked for an explanation.
    pub fn is_body_in_memory(&self) -> bool {
        self.bytes.is_some()
    }

    /// The body from its first byte.
    pub fn read(&self) -> BodyReader {
        self.read_range(0..self.body.length)
    }

    /// The bytes of a range, cut to the body's length.
    pub fn read_range(&self, range: Range<u64>) -> BodyReader {
        self.mark_used();
        BodyReader::stored(self, range)
    }

    /// The trailer section that came with it.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_deref()
    }

    /// Whether any purge that is newer than its fetch has to be taken as naming it.
    #[inline]
    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::Acquire)
    }

    pub(crate) fn doubt(&self, is_doubtful: bool) {
        self.doubtful.store(is_doubtful, Ordering::Release);
    }

    /// Its weight in the memory tier.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// When it was made, by its `Date`; else when it came.
    fn date(&self) -> SystemTime {
        let date = self.head.headers.get(DATE).and_then(brim_semantics::http_date);
        date.unwrap_or(self.head.meta.response_time)
    }

    pub(crate) fn key_hash(&self) -> KeyHash {
        self.head.key.hash()
    }

    pub(crate) fn which(&self) -> Which {
        Which { key: self.key_hash(), variant: self.variant, serial: self.serial }
    }

    pub(crate) fn card(&self, at: Whereabouts) -> Card {
        Card {
            variant: self.variant,
            serial: self.serial,
            fetched_at: self.head.fetched_at,
            length: self.body.length,
            at,
            used: false,
            names: Arc::clone(&self.names),
        }
    }

    /// Hot responses survive the eviction of their segment. Written once: hits on many threads share the cache line.
    #[inline]
    fn mark_used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }
}

/// The stored responses under one cache key, newest first: by `Date`, as RFC 9111 §4 says of several that a request selects,
/// and of the same second the one that was stored last.
#[derive(Debug)]
pub struct Variants {
    pub(crate) responses: Vec<Arc<StoredResponse>>,
    /// False: the disk may hold more of them.
    pub(crate) complete: bool,
    pub(crate) weight: u64,
}

impl Variants {
    /// Sorts them. At least one response.
    pub(crate) fn new(mut responses: Vec<Arc<StoredResponse>>, complete: bool) -> Arc<Self> {
        debug_assert!(!responses.is_empty(), "a key without a response has no variants");
        if responses.len() > 1 {
            responses.sort_by_cached_key(|response| Reverse((response.date(), response.serial)));
        }
        let weight = responses.iter().map(|response| response.weight()).sum();
        Arc::new(Self { responses, complete, weight })
    }

    pub(crate) fn is_of(&self, key: &CacheKey) -> bool {
        self.responses.first().is_some_and(|response| response.head.key.bytes() == key.bytes())
    }
}

impl Deref for Variants {
    type Target = [Arc<StoredResponse>];
    fn deref(&self) -> &Self::Target {
        &self.responses
    }
}
