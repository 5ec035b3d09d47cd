//! An index entry on disk: version, checksum, the facts in postcard, then the fields as a block.
//!
//! Always true: an entry that was not written by this version, or is damaged, decodes to an error and never to a response.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brim_semantics::{CacheKey, KeyHash, Nominated, Part, StoredMeta};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use crate::headers;
use crate::purge::{Named, Names, Position, language, media_type};
use crate::response::{ResponseHead, Scope, variant_of};

/// The first byte of every entry. A change of [`Facts`], or of a type in it, is another version.
pub(crate) const ENTRY_VERSION: u8 = 3;
/// Version, checksum, length of the facts.
const PREFIX_BYTES: usize = 1 + 4 + 4;
/// Longer entries are not stored: a head has a limit long before.
pub(crate) const ENTRY_BYTES_MAX: usize = 1024 * 1024;

/// Where the body lies, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BodyPlace {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// The serial of the write that put the body there.
    pub(crate) serial: u64,
}

#[derive(Serialize, Deserialize)]
struct Facts {
    key: Vec<u8>,
    site: Box<str>,
    authority: Box<str>,
    path: Box<str>,
    query: Option<Box<str>>,
    status: u16,
    nominated: Nominated,
    part: Option<Part>,
    meta: StoredMeta,
    surrogate_keys: Vec<Box<str>>,
    content_keys: Vec<Box<str>>,
    /// For the names of a card, which is made without looking at the fields.
    content_type: Box<str>,
    language: Box<str>,
    fetched_at: Position,
    plugin: Option<[u8; 32]>,
    serial: u64,
    place: BodyPlace,
    has_trailers: bool,
}

/// An index entry as it was read.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) head: ResponseHead,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) serial: u64,
    pub(crate) place: BodyPlace,
}

/// Why an entry is not one: it is removed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadEntry {
    #[error("entry of version {0}")]
    Version(u8),
    #[error("the entry does not match its checksum")]
    Checksum,
    #[error("the entry cannot be decoded")]
    Malformed,
}

/// None: the head is too long.
pub(crate) fn encode(
    head: &ResponseHead,
    trailers: Option<&HeaderMap>,
    serial: u64,
    place: BodyPlace,
) -> Option<Vec<u8>> {
    let facts = Facts {
        key: head.key.bytes().to_vec(),
        site: (&*head.scope.site).into(),
        authority: head.scope.authority.clone(),
        path: head.scope.path.clone(),
        query: head.scope.query.clone(),
        status: head.status.as_u16(),
        nominated: head.nominated.clone(),
        part: head.part,
        meta: head.meta.clone(),
        surrogate_keys: head.surrogate_keys.clone(),
        content_keys: head.content_keys.clone(),
        content_type: media_type(&head.headers).into(),
        language: language(&head.headers, &head.nominated).into(),
        fetched_at: head.fetched_at,
        plugin: head.plugin,
        serial,
        place,
        has_trailers: trailers.is_some(),
    };
    let mut out = vec![0; PREFIX_BYTES];
    out = postcard::to_extend(&facts, out).ok()?;
    let facts_bytes = u32::try_from(out.len() - PREFIX_BYTES).ok()?;
    headers::encode(&head.headers, &mut out)?;
    if let Some(trailers) = trailers {
        headers::encode(trailers, &mut out)?;
    }
    out[0] = ENTRY_VERSION;
    out[5..9].copy_from_slice(&facts_bytes.to_le_bytes());
    let crc = crc32c::crc32c(&out[5..]);
    out[1..5].copy_from_slice(&crc.to_le_bytes());
    (out.len() <= ENTRY_BYTES_MAX).then_some(out)
}

fn is_sane(time: SystemTime) -> bool {
    const TEN_THOUSAND_YEARS: Duration = Duration::from_secs(10_000 * 366 * 86_400);
    time.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since < TEN_THOUSAND_YEARS)
}

/// What a card is made of: an entry without its fields.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) key_hash: KeyHash,
    pub(crate) variant: u64,
    pub(crate) names: Names,
    pub(crate) fetched_at: Position,
    pub(crate) serial: u64,
    pub(crate) place: BodyPlace,
}

/// Decodes what a walk over all entries needs, and leaves the fields alone.
pub(crate) fn summary(value: &[u8]) -> Result<Summary, BadEntry> {
    let (facts, _) = checked(value)?;
    let key = CacheKey::from_bytes(Bytes::from(facts.key)).map_err(|_| BadEntry::Malformed)?;
    let scope = Scope { site: Arc::from(facts.site), authority: facts.authority, path: facts.path, query: facts.query };
    let names = Names::of(&Named {
        scope: &scope,
        surrogate_keys: &facts.surrogate_keys,
        key: key.hash(),
        status: facts.status,
        came: facts.meta.response_time,
        content_type: &facts.content_type,
        language: &facts.language,
        plugin: facts.plugin.as_ref(),
        nominated: &facts.nominated,
    });
    Ok(Summary {
        key_hash: key.hash(),
        variant: variant_of(&facts.nominated, facts.part),
        names,
        fetched_at: facts.fetched_at,
        serial: facts.serial,
        place: facts.place,
    })
}

pub(crate) fn decode(value: &[u8]) -> Result<Entry, BadEntry> {
    let (facts, fields) = checked(value)?;
    entry(facts, Bytes::copy_from_slice(fields)).ok_or(BadEntry::Malformed)
}

/// The facts of an entry whose checksum is right, and the block of its fields.
fn checked(value: &[u8]) -> Result<(Facts, &[u8]), BadEntry> {
    if value.len() < PREFIX_BYTES {
        return Err(BadEntry::Malformed);
    }
    if value[0] != ENTRY_VERSION {
        return Err(BadEntry::Version(value[0]));
    }
    if crc32c::crc32c(&value[5..]).to_le_bytes() != value[1..5] {
        return Err(BadEntry::Checksum);
    }
    let facts_bytes = value[5..9].try_into().map_or(0, u32::from_le_bytes) as usize;
    let (facts, fields) = value[PREFIX_BYTES..].split_at_checked(facts_bytes).ok_or(BadEntry::Malformed)?;
    let facts: Facts = postcard::from_bytes(facts).map_err(|_| BadEntry::Malformed)?;
    if !is_sane(facts.meta.request_time) || !is_sane(facts.meta.response_time) {
        return Err(BadEntry::Malformed);
    }
    Ok((facts, fields))
}

fn entry(facts: Facts, mut fields: Bytes) -> Option<Entry> {
    let headers = headers::decode(&mut fields)?;
    let trailers = if facts.has_trailers { Some(headers::decode(&mut fields)?) } else { None };
    let head = ResponseHead {
        key: CacheKey::from_bytes(Bytes::from(facts.key)).ok()?,
        scope: Scope { site: Arc::from(facts.site), authority: facts.authority, path: facts.path, query: facts.query },
        status: StatusCode::from_u16(facts.status).ok()?,
        headers,
        nominated: facts.nominated,
        part: facts.part,
        meta: facts.meta,
        surrogate_keys: facts.surrogate_keys,
        content_keys: facts.content_keys,
        fetched_at: facts.fetched_at,
        plugin: facts.plugin,
    };
    Some(Entry { head, trailers, serial: facts.serial, place: facts.place })
}
