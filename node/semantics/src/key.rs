//! The cache key: what two requests must have in common to share a stored response (RFC 9111 §2).
//!
//! Always true:
//! - A key is an injective, length-prefixed, versioned byte string: two keys are equal exactly where all their fields are,
//!   whatever bytes the fields hold. No part can forge another.
//! - Scheme, authority, site, path, query and method are in every key; a plugin only adds parts behind them.
//! - A key is equal to another by all its bytes; the hash finds it, and is never trusted alone.
//!
//! Not here: the fields that `Vary` nominates (`vary`), the rules of a plugin (`brim-host`).

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// A longer key is refused: the request bypasses the cache. It holds any URL that a 64 KiB head is likely to hold.
pub const CACHE_KEY_BYTES_MAX: usize = 4 * 1024;
/// More parts are refused. A rule that needs more has mistaken a map for a key.
pub const KEY_PARTS_MAX: usize = 32;

/// The first byte of every key: a change of the encoding changes it, and old stored responses are not found.
const KEY_VERSION: u8 = 1;
/// Each length is two bytes.
const _: () = assert!(CACHE_KEY_BYTES_MAX <= u16::MAX as usize, "a length prefix holds every length in a key");
const _: () = assert!(KEY_PARTS_MAX <= u8::MAX as usize, "the number of parts is one byte");

/// xxh3-128 of a key's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
pub struct KeyHash(pub [u8; 16]);

impl fmt::Display for KeyHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// What a stored response is found by.
#[derive(Clone)]
pub struct CacheKey {
    bytes: Bytes,
    hash: KeyHash,
}

/// Which requests a stored response may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyMethod {
    /// GET, and HEAD, which is answered from the same stored response.
    Get,
    /// QUERY (RFC 10008). The digest of its content is a [`KeyPart`].
    Query,
}

/// One thing more that keeps requests apart: what a plugin found, or the digest of a QUERY's content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyPart {
    /// What it is called in explanations. Two parts may have the same name.
    pub name: String,
    /// What has to be equal.
    pub value: PartValue,
}

/// A typed value: `Text("1")`, `Bytes(b"1")` and `Integer(1)` are different, and so are `Absent` and an empty text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PartValue {
    /// Some text.
    Text(String),
    /// Some bytes.
    Bytes(Vec<u8>),
    /// A number.
    Integer(i64),
    /// Yes or no.
    Flag(bool),
    /// What the part would have been taken from is not there.
    Absent,
}

/// Where a request goes, as far as the key is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Lower case, default port removed: see [`normal_authority`].
    pub authority: &'a str,
    /// The name of the configured site.
    pub site: &'a str,
    /// The path as it is forwarded; never decoded.
    pub path: &'a str,
    /// The query as it is forwarded. None and an empty one are different.
    pub query: Option<&'a str>,
    /// The digest of the rule that added parts and may have replaced the query: what an older version of a rule stored is not
    /// what a newer one means, even where both give the same parts.
    pub rule: Option<&'a [u8; 32]>,
}

/// The key would pass [`CACHE_KEY_BYTES_MAX`] or [`KEY_PARTS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cache key of {bytes} bytes and {parts} parts is above {CACHE_KEY_BYTES_MAX} bytes or {KEY_PARTS_MAX} parts")]
pub struct KeyTooLong {
    /// How long it would be.
    pub bytes: usize,
    /// How many parts it would have.
    pub parts: usize,
}

/// Bytes that no [`CacheKey::new`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedKey {
    /// Written by another version of the encoding, or not a key at all.
    #[error("a cache key of an unknown version")]
    Version,
    /// Cut off, too long, or with an unknown tag.
    #[error("a malformed cache key")]
    Shape,
}

/// A key taken apart, for explanations and the admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDescription {
    /// The method.
    pub method: KeyMethod,
    /// The scheme.
    pub scheme: String,
    /// The authority.
    pub authority: String,
    /// The site.
    pub site: String,
    /// The path.
    pub path: String,
    /// The query.
    pub query: Option<String>,
    /// The digest of the key rule.
    pub rule: Option<[u8; 32]>,
    /// The parts, in their order.
    pub parts: Vec<KeyPart>,
}

impl CacheKey {
    /// Encodes a key, with one allocation.
    ///
    /// # Errors
    /// The key would pass a limit: the request bypasses the cache.
    pub fn new(method: KeyMethod, target: &Target<'_>, parts: &[KeyPart]) -> Result<CacheKey, KeyTooLong> {
        let length = encoded_length(target, parts);
        if length > CACHE_KEY_BYTES_MAX || parts.len() > KEY_PARTS_MAX {
            return Err(KeyTooLong { bytes: length, parts: parts.len() });
        }
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&[KEY_VERSION, method_tag(method)]);
        for field in [target.scheme, target.authority, target.site, target.path] {
            push_field(&mut bytes, field.as_bytes());
        }
        match target.query {
            None => bytes.push(0),
            Some(query) => {
                bytes.push(1);
                push_field(&mut bytes, query.as_bytes());
            }
        }
        match target.rule {
            None => bytes.push(0),
            Some(digest) => {
                bytes.push(1);
                bytes.extend_from_slice(digest);
            }
        }
        for part in parts {
            push_field(&mut bytes, part.name.as_bytes());
            push_value(&mut bytes, &part.value);
        }
        debug_assert_eq!(bytes.len(), length, "the length is counted as the bytes are written");
        Ok(Self::of_encoded(Bytes::from(bytes)))
    }

    /// What a table is looked up by.
    pub fn hash(&self) -> KeyHash {
        self.hash
    }

    /// The encoded key.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Takes back what [`CacheKey::bytes`] gave.
    ///
    /// # Errors
    /// The bytes are no key of this version.
    pub fn from_bytes(bytes: Bytes) -> Result<CacheKey, MalformedKey> {
        if bytes.len() > CACHE_KEY_BYTES_MAX {
            return Err(MalformedKey::Shape);
        }
        decode(&bytes)?;
        Ok(Self::of_encoded(bytes))
    }

    /// The key's fields, for people.
    pub fn describe(&self) -> KeyDescription {
        decode(&self.bytes)
            .unwrap_or_else(|_| unreachable!("a key holds only what `new` wrote or `from_bytes` checked"))
    }

    fn of_encoded(bytes: Bytes) -> Self {
        let hash = KeyHash(xxh3_128(&bytes).to_be_bytes());
        Self { bytes, hash }
    }
}

impl PartialEq for CacheKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.bytes == other.bytes
    }
}

impl Eq for CacheKey {}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("CacheKey").field(&self.describe()).finish()
    }
}

impl serde::Serialize for CacheKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de> serde::Deserialize<'de> for CacheKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(KeyVisitor)
    }
}

struct KeyVisitor;

impl serde::de::Visitor<'_> for KeyVisitor {
    type Value = CacheKey;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the bytes of a cache key")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<CacheKey, E> {
        CacheKey::from_bytes(Bytes::copy_from_slice(bytes)).map_err(E::custom)
    }

    fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<CacheKey, E> {
        CacheKey::from_bytes(Bytes::from(bytes)).map_err(E::custom)
    }
}

/// An authority as keys and purges hold it: lower case, its port without leading zeros, and without the scheme's default port
/// or an empty one (RFC 9110 §4.2.3, RFC 3986 §6.2.3).
pub fn normal_authority<'a>(scheme: &str, authority: &'a str) -> Cow<'a, str> {
    let default_port = if scheme.eq_ignore_ascii_case("https") { "443" } else { "80" };
    let (host, port) = match authority.rsplit_once(':') {
        // A colon inside an IPv6 literal is no port.
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (authority, ""),
    };
    let number = port.trim_start_matches('0');
    let normal = if port.is_empty() || number == default_port { host } else { authority };
    if !number.is_empty() && number != default_port && number.len() != port.len() {
        return Cow::Owned(format!("{}:{number}", host.to_ascii_lowercase()));
    }
    if normal.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(normal.to_ascii_lowercase())
    } else {
        Cow::Borrowed(normal)
    }
}

/// What a purge by URL names: authority, path and query, whatever the scheme, method, variant or plugin parts.
pub fn url_hash(authority: &str, path: &str, query: Option<&str>) -> KeyHash {
    let mut hasher = Xxh3::new();
    for field in [Some(authority), Some(path), query].into_iter().flatten() {
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(field.as_bytes());
    }
    KeyHash(hasher.digest128().to_be_bytes())
}

fn method_tag(method: KeyMethod) -> u8 {
    match method {
        KeyMethod::Get => 0,
        KeyMethod::Query => 1,
    }
}

fn encoded_length(target: &Target<'_>, parts: &[KeyPart]) -> usize {
    const PREFIX: usize = size_of::<u16>();
    let fields = [target.scheme, target.authority, target.site, target.path];
    let query = target.query.map_or(1, |query| 1 + PREFIX + query.len());
    let values = parts.iter().map(|part| {
        let value = match &part.value {
            PartValue::Text(text) => PREFIX + text.len(),
            PartValue::Bytes(bytes) => PREFIX + bytes.len(),
            PartValue::Integer(_) => size_of::<i64>(),
            PartValue::Flag(_) => 1,
            PartValue::Absent => 0,
        };
        PREFIX + part.name.len() + 1 + value
    });
    let rule = target.rule.map_or(1, |digest| 1 + digest.len());
    2 + fields.iter().map(|field| PREFIX + field.len()).sum::<usize>() + query + rule + values.sum::<usize>()
}

/// Only called for keys within [`CACHE_KEY_BYTES_MAX`], so the length fits its two bytes.
fn push_field(bytes: &mut Vec<u8>, field: &[u8]) {
    debug_assert!(field.len() <= CACHE_KEY_BYTES_MAX, "checked before anything is written");
    let length = u16::try_from(field.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(field);
}

fn push_value(bytes: &mut Vec<u8>, value: &PartValue) {
    match value {
        PartValue::Text(text) => {
            bytes.push(1);
            push_field(bytes, text.as_bytes());
        }
        PartValue::Bytes(raw) => {
            bytes.push(2);
            push_field(bytes, raw);
        }
        PartValue::Integer(number) => {
            bytes.push(3);
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        PartValue::Flag(flag) => bytes.extend_from_slice(&[4, u8::from(*flag)]),
        PartValue::Absent => bytes.push(5),
    }
}

/// Reads what `new` writes; accepts nothing else, so that one key has one encoding.
fn decode(bytes: &[u8]) -> Result<KeyDescription, MalformedKey> {
    let mut rest = Rest(bytes);
    if rest.byte()? != KEY_VERSION {
        return Err(MalformedKey::Version);
    }
    let method = match rest.byte()? {
        0 => KeyMethod::Get,
        1 => KeyMethod::Query,
        _ => return Err(MalformedKey::Shape),
    };
    let [scheme, authority, site, path] = [rest.text()?, rest.text()?, rest.text()?, rest.text()?];
    let query = match rest.byte()? {
        0 => None,
        1 => Some(rest.text()?),
        _ => return Err(MalformedKey::Shape),
    };
    let rule = match rest.byte()? {
        0 => None,
        1 => Some(rest.take()?),
        _ => return Err(MalformedKey::Shape),
    };
    let mut parts = Vec::new();
    while !rest.0.is_empty() {
        if parts.len() == KEY_PARTS_MAX {
            return Err(MalformedKey::Shape);
        }
        parts.push(KeyPart { name: rest.text()?, value: rest.value()? });
    }
    Ok(KeyDescription { method, scheme, authority, site, path, query, rule, parts })
}

/// What is still to be decoded.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], MalformedKey> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(MalformedKey::Shape)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, MalformedKey> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn field(&mut self) -> Result<&'a [u8], MalformedKey> {
        let length = usize::from(u16::from_le_bytes(self.take()?));
        let (taken, rest) = self.0.split_at_checked(length).ok_or(MalformedKey::Shape)?;
        self.0 = rest;
        Ok(taken)
    }

    fn text(&mut self) -> Result<String, MalformedKey> {
        String::from_utf8(self.field()?.to_vec()).map_err(|_| MalformedKey::Shape)
    }

    fn value(&mut self) -> Result<PartValue, MalformedKey> {
        Ok(match self.byte()? {
            1 => PartValue::Text(self.text()?),
            2 => PartValue::Bytes(self.field()?.to_vec()),
            3 => PartValue::Integer(i64::from_le_bytes(self.take()?)),
            4 => PartValue::Flag(match self.byte()? {
                0 => false,
                1 => true,
                _ => return Err(MalformedKey::Shape),
            }),
            5 => PartValue::Absent,
            _ => return Err(MalformedKey::Shape),
        })
    }
}

#[cfg(test)]
mod tests;
