//! Contents that cannot be compressed and say whose they are.
//!
//! Always true: a content has a stamp of its number and version at its beginning, at its end, and every [`STAMP_EVERY`]
//! bytes. What lies between is a piece of one pool of random bytes, chosen by number and version.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A page of memory: no page of a content goes without a stamp.
const STAMP_EVERY: usize = 4096;
const STAMP_BYTES: usize = 16;
/// More than the processor's second cache holds is not needed: the pool is read, the contents are what is measured.
const POOL_BYTES: usize = 1 << 20;

/// Makes contents and knows them again.
#[derive(Debug)]
pub struct Contents {
    pool: Vec<u8>,
}

fn stamp(number: u64, version: u32, at: usize) -> [u8; STAMP_BYTES] {
    let mut bytes = [0; STAMP_BYTES];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    bytes[12..].copy_from_slice(&u32::try_from(at).unwrap_or(u32::MAX).to_le_bytes());
    bytes
}

/// Where the stamps of a content lie.
fn stamps(length: usize) -> impl Iterator<Item = usize> {
    let last = length.saturating_sub(STAMP_BYTES);
    (0..last).step_by(STAMP_EVERY).filter(move |at| at + STAMP_BYTES <= last).chain([last])
}

impl Contents {
    /// The longest content.
    pub const BYTES_MAX: usize = POOL_BYTES / 2;
    /// The shortest one has room for a stamp.
    pub const BYTES_MIN: usize = STAMP_BYTES;

    /// A pool of random bytes.
    pub fn new(seed: u64) -> Self {
        let mut pool = vec![0; POOL_BYTES];
        SmallRng::seed_from_u64(seed).fill_bytes(&mut pool);
        Self { pool }
    }

    fn piece(&self, number: u64, version: u32, length: usize) -> &[u8] {
        let mixed = (number ^ u64::from(version) << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        let start = usize::try_from(mixed).unwrap_or(0) % (self.pool.len() - Self::BYTES_MAX);
        &self.pool[start..start + length]
    }

    /// The content of a response. `length` is from [`Self::BYTES_MIN`] to [`Self::BYTES_MAX`].
    pub fn make(&self, number: u64, version: u32, length: usize) -> Vec<u8> {
        let mut content = self.piece(number, version, length).to_vec();
        for at in stamps(length) {
            content[at..at + STAMP_BYTES].copy_from_slice(&stamp(number, version, at));
        }
        content
    }

    /// Whether this is the content, by its length and all its stamps: what costs a reader little.
    pub fn has_stamps(&self, number: u64, version: u32, length: usize, content: &[u8]) -> bool {
        content.len() == length && stamps(length).all(|at| content[at..at + STAMP_BYTES] == stamp(number, version, at))
    }

    /// Whether this is the content, by every byte of it.
    pub fn is_content(&self, number: u64, version: u32, length: usize, content: &[u8]) -> bool {
        content == self.make(number, version, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_is_known_by_its_stamps_and_by_its_bytes() {
        let contents = Contents::new(1);
        for length in [16, 17, 31, 32, 4095, 4096, 4100, 4112, 4128, 200 * 1024] {
            let content = contents.make(7, 2, length);
            let is_known = |content: &[u8]| {
                (contents.has_stamps(7, 2, length, content), contents.is_content(7, 2, length, content))
            };
            assert_eq!(is_known(&content), (true, true), "{length}");
            assert!(!contents.has_stamps(8, 2, length, &content) && !contents.has_stamps(7, 3, length, &content));
            assert!(!contents.has_stamps(7, 2, length + 1, &content) && !contents.is_content(8, 2, length, &content));
            let mut ended = content.clone();
            ended[length - 1] ^= 1;
            assert_eq!(is_known(&ended), (false, false), "{length}");
        }
        let mut damaged = contents.make(7, 2, 5000);
        damaged[2000] ^= 1;
        assert!(contents.has_stamps(7, 2, 5000, &damaged) && !contents.is_content(7, 2, 5000, &damaged));
    }
}
