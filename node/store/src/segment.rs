//! One segment file: a header, then records; a record is a header and the blocks of one body.
//!
//! ```text
//! file    magic, store id, segment id, crc                                   64 bytes
//! record  magic, key hash, variant, serial, body length, store id, crc       64 bytes
//! block   up to 64 KiB of the body, crc32c over data, serial and block number
//! ```
//!
//! Always true:
//! - A byte is handed out only after its block's checksum was compared, and the record's header with what the index says.
//! - What is written is never written again, but for the header of a body that streams: it comes last.
//!
//! Not here: which segment is written to, which is removed (`segments`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use brim_semantics::KeyHash;
use bytes::Bytes;

use crate::config::BLOCK_BYTES;
use crate::dir::StoreId;

pub(crate) const FILE_HEADER_BYTES: u64 = 64;
pub(crate) const RECORD_HEADER_BYTES: u64 = RECORD_HEADER as u64;
const RECORD_HEADER: usize = 64;
const FILE_MAGIC: &[u8; 8] = b"BRIMSEG1";
const RECORD_MAGIC: u32 = 0x4252_5231;
const CHECKSUM_BYTES: usize = 4;
/// A block and its checksum.
pub(crate) const STRIDE: u64 = (BLOCK_BYTES + CHECKSUM_BYTES) as u64;

/// An open segment file.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: u64,
    pub(crate) store: StoreId,
    pub(crate) file: File,
}

/// What a record says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) key: KeyHash,
    pub(crate) variant: u64,
    /// The number of the write; no two bodies have the same.
    pub(crate) serial: u64,
    pub(crate) length: u64,
}

/// Why a body cannot be used: it is a miss and its entry goes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    #[error("segment {segment}: {source}")]
    Read { segment: u64, source: io::Error },
    #[error("segment {segment}: the record is not the one the index names")]
    Header { segment: u64 },
    #[error("segment {segment}: block {block} does not match its checksum")]
    Block { segment: u64, block: u64 },
}

pub(crate) fn block_count(length: u64) -> u64 {
    length.div_ceil(BLOCK_BYTES as u64)
}

/// Bytes a body takes in a segment.
pub(crate) fn record_bytes(length: u64) -> u64 {
    RECORD_HEADER_BYTES + length + block_count(length) * CHECKSUM_BYTES as u64
}

pub(crate) fn file_header(id: u64, store: StoreId) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..8].copy_from_slice(FILE_MAGIC);
    bytes[8..24].copy_from_slice(&store.0);
    bytes[24..32].copy_from_slice(&id.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

pub(crate) fn record_header(header: &RecordHeader, store: StoreId) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..4].copy_from_slice(&RECORD_MAGIC.to_le_bytes());
    bytes[4..20].copy_from_slice(&header.key.0);
    bytes[20..28].copy_from_slice(&header.variant.to_le_bytes());
    bytes[28..36].copy_from_slice(&header.serial.to_le_bytes());
    bytes[36..44].copy_from_slice(&header.length.to_le_bytes());
    bytes[44..60].copy_from_slice(&store.0);
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn block_checksum(data: &[u8], serial: u64, block: u64) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(data), &serial.to_le_bytes());
    crc32c::crc32c_append(crc, &block.to_le_bytes())
}

/// Appends whole blocks, the last one possibly short, as they lie in the file.
pub(crate) fn encode_blocks(data: &[u8], serial: u64, first_block: u64, out: &mut Vec<u8>) {
    for (block, data) in (first_block..).zip(data.chunks(BLOCK_BYTES)) {
        out.extend_from_slice(data);
        out.extend_from_slice(&block_checksum(data, serial, block).to_le_bytes());
    }
}

impl Segment {
    /// Compares the record's header with what is expected there.
    pub(crate) fn check_header(&self, offset: u64, expected: &RecordHeader) -> Result<(), Damage> {
        let mut found = [0; 64];
        self.file.read_exact_at(&mut found, offset).map_err(|source| Damage::Read { segment: self.id, source })?;
        if found == record_header(expected, self.store) { Ok(()) } else { Err(Damage::Header { segment: self.id }) }
    }

    /// Blocks `first..last` of the record at `offset`, each checked, joined into one piece.
    pub(crate) fn read_blocks(
        &self,
        offset: u64,
        header: &RecordHeader,
        first: u64,
        last: u64,
    ) -> Result<Bytes, Damage> {
        let last = last.min(block_count(header.length));
        if first >= last {
            return Ok(Bytes::new());
        }
        let body_bytes = (last * BLOCK_BYTES as u64).min(header.length) - first * BLOCK_BYTES as u64;
        let raw_bytes = body_bytes + (last - first) * CHECKSUM_BYTES as u64;
        let raw = self.read(offset + RECORD_HEADER_BYTES + first * STRIDE, raw_bytes)?;
        self.check_blocks(raw, 0, header, first)
    }

    /// The whole body with its header, in one read.
    pub(crate) fn read_whole(&self, offset: u64, header: &RecordHeader) -> Result<Bytes, Damage> {
        let raw = self.read(offset, record_bytes(header.length))?;
        let (found, _) = raw.split_at_checked(RECORD_HEADER).unwrap_or_default();
        if found != record_header(header, self.store) {
            return Err(Damage::Header { segment: self.id });
        }
        self.check_blocks(raw, RECORD_HEADER, header, 0)
    }

    fn read(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, Damage> {
        let damage = |source| Damage::Read { segment: self.id, source };
        let bytes = usize::try_from(bytes).map_err(|_| damage(io::ErrorKind::FileTooLarge.into()))?;
        // Read into room that nobody has zeroed before.
        let mut raw = Vec::with_capacity(bytes);
        while raw.len() < bytes {
            let at = offset + raw.len() as u64;
            match rustix::io::pread(&self.file, rustix::buffer::spare_capacity(&mut raw), at) {
                Ok(0) => return Err(damage(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(damage(error.into())),
            }
        }
        raw.truncate(bytes);
        Ok(raw)
    }

    /// Blocks that lie in `raw` from `start` on, the number of the first being `first`: their data, without a copy if it is one.
    fn check_blocks(&self, mut raw: Vec<u8>, start: usize, header: &RecordHeader, first: u64) -> Result<Bytes, Damage> {
        let (mut write, mut read) = (start, start);
        for block in first.. {
            if read >= raw.len() {
                break;
            }
            let length = BLOCK_BYTES.min((raw.len() - read).saturating_sub(CHECKSUM_BYTES));
            let data = &raw[read..read + length];
            let sum = block_checksum(data, header.serial, block).to_le_bytes();
            if sum != raw[read + length..read + length + CHECKSUM_BYTES] {
                return Err(Damage::Block { segment: self.id, block });
            }
            if write != read {
                raw.copy_within(read..read + length, write);
            }
            write += length;
            read += length + CHECKSUM_BYTES;
        }
        raw.truncate(write);
        Ok(Bytes::from(raw).split_off(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(length: u64) -> RecordHeader {
        RecordHeader { key: KeyHash([3; 16]), variant: 5, serial: 9, length }
    }

    fn segment_with(body: &[u8]) -> (Segment, Vec<u8>) {
        let store = StoreId([1; 16]);
        let segment = Segment { id: 1, store, file: tempfile::tempfile().unwrap() };
        let mut bytes = record_header(&header(body.len() as u64), store).to_vec();
        encode_blocks(body, 9, 0, &mut bytes);
        assert_eq!(bytes.len() as u64, record_bytes(body.len() as u64));
        segment.file.write_all_at(&bytes, FILE_HEADER_BYTES).unwrap();
        (segment, bytes)
    }

    #[test]
    fn bodies_of_all_shapes_come_back() {
        for length in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 7] {
            let body: Vec<u8> = (0..=250).cycle().take(length).collect();
            let (segment, _) = segment_with(&body);
            assert_eq!(segment.read_whole(FILE_HEADER_BYTES, &header(length as u64)).unwrap(), body, "{length}");
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let body = vec![7; BLOCK_BYTES + 100];
        let (segment, bytes) = segment_with(&body);
        for at in (0..bytes.len()).step_by(211).chain(0..70) {
            segment.file.write_all_at(&[bytes[at] ^ 4], FILE_HEADER_BYTES + at as u64).unwrap();
            assert!(segment.read_whole(FILE_HEADER_BYTES, &header(body.len() as u64)).is_err(), "byte {at}");
            segment.file.write_all_at(&[bytes[at]], FILE_HEADER_BYTES + at as u64).unwrap();
        }
        let other = RecordHeader { serial: 10, ..header(body.len() as u64) };
        assert!(segment.read_whole(FILE_HEADER_BYTES, &other).is_err());
    }
}
