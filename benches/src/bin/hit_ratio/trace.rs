//! The requests: a hot set by Zipf's law, and keys that come once.

use anyhow::Context;
use rand::distr::Distribution;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::Zipf;

/// Of lengths and requests.
pub(crate) const SEED: u64 = 20_261_123;

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) number: u64,
    pub(crate) is_hot: bool,
    /// False while the disk fills.
    pub(crate) is_counted: bool,
}

/// Gives the requests one by one.
pub(crate) struct Trace {
    zipf: Zipf<f64>,
    ranks: SmallRng,
    mix: SmallRng,
    crawl_share: f64,
    hot_given: u64,
    hot_before: u64,
    hot_count: u64,
    next_crawled: u64,
}

impl Trace {
    /// `counted` requests for the hot set of `keys`, after a third as many that are not counted.
    pub(crate) fn new(keys: u64, counted: u64, exponent: f64, crawl_percent: u8) -> anyhow::Result<Self> {
        let hot_before = counted / 3;
        Ok(Self {
            zipf: Zipf::new(keys as f64, exponent).context("an exponent of Zipf's law is not negative")?,
            ranks: SmallRng::seed_from_u64(SEED + 1),
            mix: SmallRng::seed_from_u64(SEED + 2),
            crawl_share: f64::from(crawl_percent) / 100.0,
            hot_given: 0,
            hot_before,
            hot_count: hot_before + counted,
            next_crawled: keys,
        })
    }
}

impl Iterator for Trace {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        if self.hot_given == self.hot_count {
            return None;
        }
        let is_hot = !self.mix.random_bool(self.crawl_share);
        let is_counted = self.hot_given >= self.hot_before;
        let number = if is_hot {
            self.hot_given += 1;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank is from 1 to the keys")]
            let rank = self.zipf.sample(&mut self.ranks) as u64;
            rank - 1
        } else {
            self.next_crawled += 1;
            self.next_crawled - 1
        };
        Some(Request { number, is_hot, is_counted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hot_set_asks_for_the_same_whatever_is_crawled() {
        let hot = |crawl| {
            let trace = Trace::new(1000, 3000, 0.8, crawl).unwrap();
            trace.filter(|request| request.is_hot).collect::<Vec<_>>()
        };
        assert_eq!(hot(0), hot(90));
        assert_eq!(hot(0).iter().filter(|request| request.is_counted).count(), 3000);
        assert!(hot(0).iter().all(|request| request.number < 1000));
    }

    #[test]
    fn what_is_crawled_comes_once() {
        let all: Vec<_> = Trace::new(1000, 3000, 1.0, 90).unwrap().collect();
        let mut crawled: Vec<_> = all.iter().filter(|request| !request.is_hot).map(|request| request.number).collect();
        let share = crawled.len() as f64 / all.len() as f64;
        assert!((0.89..0.91).contains(&share), "{share}");
        let count = crawled.len();
        crawled.dedup();
        assert!(crawled.len() == count && crawled.iter().all(|number| *number >= 1000));
    }

    #[test]
    fn the_first_key_is_the_one_of_zipf() {
        let trace: Vec<_> = Trace::new(1000, 30_000, 1.0, 0).unwrap().collect();
        let first = trace.iter().filter(|request| request.number == 0).count() as f64 / trace.len() as f64;
        // 1 / H(1000) = 0.1336
        assert!((0.127..0.140).contains(&first), "{first}");
    }
}
