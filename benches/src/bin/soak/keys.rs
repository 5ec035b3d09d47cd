//! The key space: what can be asked for, how long its content is, and by which names it is purged.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal};

use crate::content::LENGTH_MIN;

/// The sites of the node, by their hosts.
pub(crate) const SITES: [&str; 2] = ["a.test", "b.test"];

const PREFIXES: u32 = 64;
/// A name of few responses, and one of many.
const GROUPS: u32 = 1024;
const SHELVES: u32 = 32;

const LENGTH_MEDIAN: f64 = 8.0 * 1024.0;
const LENGTH_SIGMA: f64 = 1.2;
/// Longer ones are `LONG`.
const LENGTH_MAX: f64 = 1024.0 * 1024.0;
const LONG: std::ops::RangeInclusive<usize> = 2 * 1024 * 1024..=6 * 1024 * 1024;
const LONG_ONE_IN: u32 = 400;
/// So that versions differ in their length too.
const LENGTH_STEPS: u32 = 13;

/// How long a response is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Until it is purged.
    Long,
    /// A few seconds, then it is validated or fetched anew before it is used.
    Short,
    /// A few seconds, then it is used while it is validated.
    Window,
}

#[derive(Debug)]
struct Key {
    length: usize,
    life: Life,
}

/// All keys, most popular first.
#[derive(Debug)]
pub(crate) struct Keys(Vec<Key>);

/// What a purge names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    Url(u32),
    Group(u32),
    Shelf(u32),
    /// On the site of this number.
    Prefix(usize, u32),
    Site(usize),
    Everything,
}

impl Keys {
    /// As many as have `bytes` of content in all.
    pub(crate) fn make(seed: u64, bytes: u64) -> anyhow::Result<Self> {
        let mut random = SmallRng::seed_from_u64(seed);
        let lengths = LogNormal::new(LENGTH_MEDIAN.ln(), LENGTH_SIGMA)?;
        let (mut keys, mut sum) = (Vec::new(), 0);
        while sum < bytes {
            let length = if random.random_ratio(1, LONG_ONE_IN) {
                random.random_range(LONG)
            } else {
                #[expect(clippy::cast_possible_truncation, reason = "it is between two lengths")]
                let length = lengths.sample(&mut random).clamp(LENGTH_MIN as f64, LENGTH_MAX) as usize;
                length
            };
            let life = match random.random_range(0..20) {
                0 => Life::Window,
                1 | 2 => Life::Short,
                _ => Life::Long,
            };
            sum += length as u64;
            keys.push(Key { length, life });
        }
        Ok(Self(keys))
    }

    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = u32> + use<> {
        0..self.count()
    }

    /// Bytes of the content of a version.
    pub(crate) fn length(&self, key: u32, version: u32) -> usize {
        self.0[key as usize].length + (version % LENGTH_STEPS) as usize
    }

    pub(crate) fn life(&self, key: u32) -> Life {
        self.0[key as usize].life
    }

    /// The key that a path names, if it is one.
    pub(crate) fn of_path(&self, path: &str) -> Option<u32> {
        let (_, key) = path.rsplit_once("/k")?;
        key.parse().ok().filter(|key| *key < self.count())
    }
}

pub(crate) fn host(key: u32) -> &'static str {
    SITES[site(key)]
}

/// A quarter of the keys are on the second site.
fn site(key: u32) -> usize {
    usize::from(key % 4 == 3)
}

pub(crate) fn path(key: u32) -> String {
    format!("/p{}/k{key}", prefix(key))
}

/// Not in step with the sites.
fn prefix(key: u32) -> u32 {
    (key / 4) % PREFIXES
}

fn group(key: u32) -> u32 {
    key % GROUPS
}

fn shelf(key: u32) -> u32 {
    (key / 8) % SHELVES
}

/// The value of `Surrogate-Key`.
pub(crate) fn surrogate_keys(key: u32) -> String {
    format!("group-{} shelf-{}", group(key), shelf(key))
}

impl Named {
    /// Something to purge: mostly little, rarely all. `popular` is a key that is asked for.
    pub(crate) fn any(random: &mut SmallRng, popular: u32) -> Self {
        match random.random_range(0..1000) {
            0 => Self::Everything,
            1..=3 => Self::Site(random.random_range(0..SITES.len())),
            4..=59 => Self::Prefix(site(popular), prefix(popular)),
            60..=79 => Self::Shelf(shelf(popular)),
            80..=349 => Self::Group(group(popular)),
            _ => Self::Url(popular),
        }
    }

    pub(crate) fn includes(self, key: u32) -> bool {
        match self {
            Self::Url(named) => key == named,
            Self::Group(named) => group(key) == named,
            Self::Shelf(named) => shelf(key) == named,
            Self::Prefix(of_site, named) => site(key) == of_site && prefix(key) == named,
            Self::Site(named) => site(key) == named,
            Self::Everything => true,
        }
    }

    /// As the admin API takes it.
    pub(crate) fn json(self) -> serde_json::Value {
        match self {
            Self::Url(key) => serde_json::json!({ "url": format!("http://{}{}", host(key), path(key)) }),
            Self::Group(named) => serde_json::json!({ "surrogate_keys": [format!("group-{named}")] }),
            Self::Shelf(named) => serde_json::json!({ "surrogate_keys": [format!("shelf-{named}")] }),
            Self::Prefix(of_site, named) => {
                serde_json::json!({ "prefix": format!("http://{}/p{named}/", SITES[of_site]) })
            }
            Self::Site(named) => serde_json::json!({ "site": SITES[named] }),
            Self::Everything => serde_json::json!({ "everything": true }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_space_is_as_large_as_asked_and_has_short_and_long_content() {
        let keys = Keys::make(1, 256 * 1024 * 1024).unwrap();
        let mut lengths: Vec<_> = keys.all().map(|key| keys.length(key, 0)).collect();
        lengths.sort_unstable();
        assert!(lengths.iter().sum::<usize>() >= 256 * 1024 * 1024);
        let median = lengths[lengths.len() / 2];
        assert!((6 * 1024..10 * 1024).contains(&median), "the median is {median}");
        assert!(lengths.last().is_some_and(|longest| LONG.contains(longest)));
        for life in [Life::Long, Life::Short, Life::Window] {
            assert!(keys.all().any(|key| keys.life(key) == life), "{life:?}");
        }
    }

    #[test]
    fn a_path_names_its_key() {
        let keys = Keys::make(1, 1024 * 1024).unwrap();
        assert!(keys.all().all(|key| keys.of_path(&path(key)) == Some(key)));
        assert_eq!(keys.of_path(&path(keys.count())), None);
        assert_eq!(keys.of_path("/"), None);
    }

    #[test]
    fn what_a_purge_names_includes_the_keys_whose_response_bears_the_name() {
        for key in 0..5000 {
            let names = surrogate_keys(key);
            let url = format!("http://{}{}", host(key), path(key));
            for named in [Named::Group(7), Named::Shelf(3), Named::Prefix(1, 5), Named::Site(0), Named::Url(99)] {
                let json = named.json();
                let bears = match named {
                    Named::Group(_) | Named::Shelf(_) => {
                        names.split(' ').any(|name| json["surrogate_keys"][0].as_str() == Some(name))
                    }
                    Named::Prefix(..) => url.starts_with(json["prefix"].as_str().unwrap()),
                    Named::Site(_) => json["site"].as_str() == Some(host(key)),
                    Named::Url(_) => json["url"].as_str() == Some(&url),
                    Named::Everything => true,
                };
                assert_eq!(named.includes(key), bears, "{named:?} and key {key}");
            }
        }
    }
}
