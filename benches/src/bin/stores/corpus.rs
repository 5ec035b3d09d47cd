//! What is stored and read: the same for every store.

use anyhow::ensure;
use brim_benches::{Contents, Lengths, Responses};

/// Of everything that is drawn.
pub(crate) const SEED: u64 = 20_261_123;

const MEDIAN_BYTES: u32 = 8 * 1024;
const SIGMA: f64 = 1.1;
const BOUNDS_BYTES: (u32, u32) = (1024, 200 * 1024);

/// The responses of a run, numbered from 0.
pub(crate) struct Corpus {
    pub(crate) count: u64,
    pub(crate) responses: Responses,
    contents: Contents,
    lengths: Lengths,
}

impl Corpus {
    pub(crate) fn new(count: u64) -> anyhow::Result<Self> {
        Ok(Self {
            count,
            responses: Responses::new()?,
            contents: Contents::new(SEED),
            lengths: Lengths::log_normal(usize::try_from(count)?, MEDIAN_BYTES, SIGMA, BOUNDS_BYTES, SEED)?,
        })
    }

    /// So many responses that their contents have so many bytes together.
    pub(crate) fn count_of_bytes(bytes: u64) -> anyhow::Result<u64> {
        const SAMPLE: usize = 10_000;
        let sample = Lengths::log_normal(SAMPLE, MEDIAN_BYTES, SIGMA, BOUNDS_BYTES, SEED)?;
        Ok(bytes * SAMPLE as u64 / sample.sum())
    }

    pub(crate) fn content(&self, number: u64, version: u32) -> Vec<u8> {
        self.contents.make(number, version, self.lengths.of(number))
    }

    /// An error unless this is the content, as far as its stamps tell.
    pub(crate) fn check(&self, number: u64, version: u32, content: &[u8]) -> anyhow::Result<()> {
        let is_right = self.contents.has_stamps(number, version, self.lengths.of(number), content);
        ensure!(is_right, "response {number}, version {version}: {} bytes of something else", content.len());
        Ok(())
    }

    /// An error unless this is the content in every byte.
    pub(crate) fn check_all(&self, number: u64, version: u32, content: &[u8]) -> anyhow::Result<()> {
        let is_right = self.contents.is_content(number, version, self.lengths.of(number), content);
        ensure!(is_right, "response {number}, version {version}: {} bytes, not those that were put", content.len());
        Ok(())
    }

    /// What there is to keep of the numbers that `of` names: contents and heads as text.
    pub(crate) fn live_bytes(&self, of: impl Fn(u64) -> bool) -> u64 {
        let head = Responses::head_text(0, 0).len() as u64;
        (0..self.count).filter(|number| of(*number)).map(|number| self.lengths.of(number) as u64 + head).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_response_or_version_is_an_error() {
        let corpus = Corpus::new(100).unwrap();
        let content = corpus.content(7, 2);
        assert!(corpus.check(7, 2, &content).is_ok() && corpus.check_all(7, 2, &content).is_ok());
        assert!(corpus.check(7, 1, &content).is_err() && corpus.check(8, 2, &content).is_err());
        assert!(corpus.check_all(7, 2, &content[1..]).is_err());
    }

    #[test]
    fn as_many_bytes_are_made_as_are_asked_for() {
        let count = Corpus::count_of_bytes(64 << 20).unwrap();
        let bytes = Corpus::new(count).unwrap().live_bytes(|_| true) as f64 / f64::from(64 << 20);
        assert!((0.9..1.2).contains(&bytes), "{bytes}");
    }
}
