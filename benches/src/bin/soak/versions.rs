//! Which version of a key the origin has, and which one is the least that may still be seen.
//!
//! Always true:
//! - The origin's version is raised before the purge that names the key is sent.
//! - The least one is raised after the purge has been acknowledged, and never lowered.
//! - A request takes the least one before it is sent: what is older than that in its answer is stale.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::keys::{Keys, Named};

/// Both versions of every key.
#[derive(Debug)]
pub(crate) struct Versions {
    current: Vec<AtomicU32>,
    least: Vec<AtomicU32>,
}

/// The keys of a purge that is under way, and the versions they were raised to.
#[derive(Debug)]
#[must_use = "a purge that is acknowledged raises what may be seen"]
pub(crate) struct Raised(Vec<(u32, u32)>);

/// A version that must not be seen any more, or not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    Stale,
    /// The origin has never had it.
    Unknown,
}

impl Versions {
    pub(crate) fn new(keys: &Keys) -> Self {
        let zeros = || keys.all().map(|_| AtomicU32::new(0)).collect();
        Self { current: zeros(), least: zeros() }
    }

    /// What the origin has now.
    pub(crate) fn current(&self, key: u32) -> u32 {
        self.current[key as usize].load(SeqCst)
    }

    /// What a request that begins now may see at least.
    pub(crate) fn least(&self, key: u32) -> u32 {
        self.least[key as usize].load(SeqCst)
    }

    /// The content of one key changes, and nobody purges it.
    pub(crate) fn change(&self, key: u32) {
        self.current[key as usize].fetch_add(1, SeqCst);
    }

    /// Before a purge is sent.
    pub(crate) fn raise(&self, keys: &Keys, named: Named) -> Raised {
        let raise = |key: u32| (key, self.current[key as usize].fetch_add(1, SeqCst) + 1);
        Raised(match named {
            Named::Url(key) => vec![raise(key)],
            _ => keys.all().filter(|key| named.includes(*key)).map(raise).collect(),
        })
    }

    /// After it has been acknowledged.
    pub(crate) fn acknowledge(&self, raised: Raised) {
        for (key, version) in raised.0 {
            self.least[key as usize].fetch_max(version, SeqCst);
        }
    }

    /// Whether an answer may be of this version, to a request that began when `least` was the least one.
    pub(crate) fn judge(&self, key: u32, least: u32, seen: u32) -> Result<(), Unfit> {
        if seen < least {
            return Err(Unfit::Stale);
        }
        if seen > self.current(key) {
            return Err(Unfit::Unknown);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_version_is_stale_for_requests_that_begin_after_the_acknowledgement() {
        let keys = Keys::make(1, 1024 * 1024).unwrap();
        let versions = Versions::new(&keys);
        let raised = versions.raise(&keys, Named::Url(3));
        let least_before = versions.least(3);
        assert_eq!(versions.judge(3, least_before, 0), Ok(()), "the purge is under way");
        versions.acknowledge(raised);
        assert_eq!(versions.judge(3, least_before, 0), Ok(()), "that request began before");
        assert_eq!(versions.judge(3, versions.least(3), 0), Err(Unfit::Stale));
        assert_eq!(versions.judge(3, versions.least(3), 1), Ok(()));
        assert_eq!(versions.judge(3, versions.least(3), 2), Err(Unfit::Unknown));
        assert_eq!(versions.judge(4, versions.least(4), 0), Ok(()), "another key");
    }

    #[test]
    fn a_change_without_a_purge_makes_nothing_stale() {
        let keys = Keys::make(1, 1024 * 1024).unwrap();
        let versions = Versions::new(&keys);
        versions.change(5);
        assert_eq!(versions.judge(5, versions.least(5), 0), Ok(()));
        assert_eq!(versions.judge(5, versions.least(5), 1), Ok(()));
    }

    #[test]
    fn a_purge_of_a_name_raises_every_key_that_bears_it_and_no_other() {
        let keys = Keys::make(1, 64 * 1024 * 1024).unwrap();
        let versions = Versions::new(&keys);
        versions.acknowledge(versions.raise(&keys, Named::Site(1)));
        for key in keys.all() {
            assert_eq!(versions.least(key), u32::from(Named::Site(1).includes(key)), "key {key}");
        }
    }
}
