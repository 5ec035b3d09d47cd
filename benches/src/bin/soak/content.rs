//! Content that says of every 16 bytes which key, which version and which place they belong to.
//!
//! So an answer is known to be right by itself: bytes of another key, of another version or from another place do not match.

use bytes::Bytes;

const WORD_BYTES: usize = 16;

/// The shortest content: one word.
pub(crate) const LENGTH_MIN: usize = WORD_BYTES;

fn word(key: u32, version: u32, index: u32) -> [u8; WORD_BYTES] {
    let mixed = key.rotate_left(7) ^ version.rotate_left(19) ^ index.wrapping_mul(0x9E37_79B1);
    let mut word = [0; WORD_BYTES];
    for (place, number) in word.chunks_exact_mut(4).zip([key, version, index, mixed]) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    word
}

/// The content of a version of a key.
pub(crate) fn make(key: u32, version: u32, length: usize) -> Bytes {
    let mut content = Vec::with_capacity(length + WORD_BYTES);
    let mut index = 0;
    while content.len() < length {
        content.extend_from_slice(&word(key, version, index));
        index += 1;
    }
    content.truncate(length);
    content.into()
}

/// Checks a content while it arrives, in pieces of any length.
#[derive(Debug)]
pub(crate) struct Check {
    key: u32,
    first: [u8; WORD_BYTES],
    offset: usize,
}

impl Check {
    /// For the content of a key, of whichever version it is.
    pub(crate) fn of(key: u32) -> Self {
        Self { key, first: [0; WORD_BYTES], offset: 0 }
    }

    fn number(&self, place: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.first[4 * place..4 * place + 4]);
        u32::from_le_bytes(bytes)
    }

    fn version(&self) -> u32 {
        self.number(1)
    }

    /// The next piece. An error says what is wrong with it.
    pub(crate) fn add(&mut self, mut piece: &[u8]) -> Result<(), String> {
        while !piece.is_empty() {
            let within = self.offset % WORD_BYTES;
            let (part, rest) = piece.split_at(piece.len().min(WORD_BYTES - within));
            let place = within..within + part.len();
            if self.offset < WORD_BYTES {
                self.first[place.clone()].copy_from_slice(part);
            }
            if self.offset + part.len() >= WORD_BYTES {
                let index =
                    u32::try_from(self.offset / WORD_BYTES).map_err(|_| "longer than any content".to_owned())?;
                if index == 0 && self.number(0) != self.key {
                    return Err(format!("content of key {} instead of key {}", self.number(0), self.key));
                }
                let expected = word(self.key, self.version(), index);
                let (found, expected) =
                    if index == 0 { (&self.first[..], &expected[..]) } else { (part, &expected[place]) };
                if found != expected {
                    return Err(format!("wrong bytes at {} of key {}", self.offset, self.key));
                }
            }
            self.offset += part.len();
            piece = rest;
        }
        Ok(())
    }

    /// The end: the version, if the content has the length that it should have.
    pub(crate) fn end(self, length_of: impl Fn(u32) -> usize) -> Result<u32, String> {
        let version = self.version();
        let length = if self.offset < WORD_BYTES { LENGTH_MIN } else { length_of(version) };
        if self.offset != length {
            return Err(format!("{} bytes of key {}, version {version}, instead of {length}", self.offset, self.key));
        }
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: u32, content: &[u8], piece: usize) -> Result<u32, String> {
        let mut check = Check::of(key);
        for piece in content.chunks(piece) {
            check.add(piece)?;
        }
        check.end(|version| 1000 + version as usize)
    }

    #[test]
    fn the_right_content_is_right_in_any_pieces() {
        let content = make(77, 5, 1005);
        for piece in [1, 3, 16, 17, 1005] {
            assert_eq!(check(77, &content, piece), Ok(5), "pieces of {piece}");
        }
    }

    #[test]
    fn another_key_is_wrong() {
        for piece in [1, 16, 1005] {
            assert!(check(78, &make(77, 5, 1005), piece).unwrap_err().contains("key 77 instead of key 78"));
        }
    }

    #[test]
    fn a_flipped_bit_is_wrong_wherever_it_is() {
        let content = make(77, 5, 1005);
        for place in 0..content.len() {
            let mut flipped = content.to_vec();
            flipped[place] ^= 0x10;
            assert!(check(77, &flipped, 100).is_err(), "at {place}");
        }
    }

    #[test]
    fn a_part_of_another_version_or_place_is_wrong() {
        let (one, other) = (make(77, 5, 1005), make(77, 6, 1005));
        assert!(check(77, &[&one[..512], &other[512..]].concat(), 1005).is_err());
        assert!(check(77, &[&one[..512], &one[496..989]].concat(), 1005).is_err());
    }

    #[test]
    fn another_length_is_wrong() {
        let content = make(77, 5, 1006);
        assert!(check(77, &content, 64).is_err());
        assert!(check(77, &content[..1004], 64).is_err());
        assert!(check(77, &content[..3], 64).is_err());
        assert!(check(77, &[], 64).is_err());
    }
}
