//! Header fields as one block of bytes: on disk, and in memory so that a stored head keeps nothing else alive.
//!
//! A head that came from a connection holds slices of that connection's read buffer; [`compact`] copies them into one
//! buffer of their own. Order and repeats are kept.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Count, then for each field: name length, value length, name, value.
pub(crate) fn encode(headers: &HeaderMap, out: &mut Vec<u8>) -> Option<()> {
    out.put_u16_le(u16::try_from(headers.len()).ok()?);
    for (name, value) in headers {
        out.put_u16_le(u16::try_from(name.as_str().len()).ok()?);
        out.put_u32_le(u32::try_from(value.len()).ok()?);
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(value.as_bytes());
    }
    Some(())
}

fn number<const N: usize>(bytes: &mut Bytes) -> Option<[u8; N]> {
    if bytes.len() < N {
        return None;
    }
    bytes.split_to(N).as_ref().try_into().ok()
}

/// None: these bytes were not written by [`encode`].
pub(crate) fn decode(bytes: &mut Bytes) -> Option<HeaderMap> {
    let count = usize::from(u16::from_le_bytes(number(bytes)?));
    let mut headers = HeaderMap::with_capacity(count.min(bytes.len()));
    for _ in 0..count {
        let name_bytes = usize::from(u16::from_le_bytes(number(bytes)?));
        let value_bytes = u32::from_le_bytes(number(bytes)?) as usize;
        if bytes.len() < name_bytes + value_bytes {
            return None;
        }
        let name = HeaderName::from_bytes(&bytes.split_to(name_bytes)).ok()?;
        let value = HeaderValue::from_maybe_shared(bytes.split_to(value_bytes)).ok()?;
        headers.append(name, value);
    }
    Some(headers)
}

/// The same fields, the values in one buffer of their own.
pub(crate) fn compact(headers: &HeaderMap) -> HeaderMap {
    let mut buffer = BytesMut::with_capacity(headers.values().map(HeaderValue::len).sum());
    headers.values().for_each(|value| buffer.extend_from_slice(value.as_bytes()));
    let mut buffer = buffer.freeze();
    let mut compacted = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let bytes = buffer.split_to(value.len());
        let mut copy = HeaderValue::from_maybe_shared(bytes).unwrap_or_else(|_| value.clone());
        copy.set_sensitive(value.is_sensitive());
        compacted.append(name.clone(), copy);
    }
    compacted
}

/// What fields that [`compact`] made cost in memory: the table for as many fields as it has room for, the names that are no
/// standard ones, and the one buffer of the values.
pub(crate) fn memory_bytes(headers: &HeaderMap) -> u64 {
    /// A field in the table: hash, links, name and value.
    const ENTRY_BYTES: usize = 24 + size_of::<HeaderName>() + size_of::<HeaderValue>() + 8;
    /// Its place in the index of the table, which has a third more places than entries.
    const INDEX_BYTES: usize = 6;
    /// A name that is no standard one is a text of its own; most are standard ones, and their length is counted too much.
    const NAME_BYTES: usize = 8;
    let table = headers.capacity() * (ENTRY_BYTES + INDEX_BYTES);
    let texts: usize = headers.iter().map(|(name, value)| name.as_str().len() + NAME_BYTES + value.len()).sum();
    (table + texts + 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append("content-type", HeaderValue::from_static("text/plain"));
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static(""));
        headers.append("x-b", HeaderValue::from_bytes(b"\xff\xe9").unwrap());
        headers
    }

    #[test]
    fn fields_survive_the_block_and_the_compaction() {
        let mut block = Vec::new();
        encode(&headers(), &mut block).unwrap();
        assert_eq!(decode(&mut Bytes::from(block)).unwrap(), headers());
        assert_eq!(compact(&headers()), headers());
    }

    #[test]
    fn a_damaged_block_is_refused() {
        let mut block = Vec::new();
        encode(&headers(), &mut block).unwrap();
        for length in 0..block.len() {
            assert!(decode(&mut Bytes::copy_from_slice(&block[..length])).is_none(), "{length}");
        }
    }
}
