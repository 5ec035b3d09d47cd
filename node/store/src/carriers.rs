//! Which cache keys carry a name: a purge of what few stored responses carry looks at these alone, one of what none carries at none.
//!
//! Always true:
//! - What is added as often as it is removed leaves nothing behind.
//! - [`Carriers::of`] tells every carrier or says that it does not know: of a name that had more than [`KNOWN_MAX`] they are only counted,
//!   until there are none.
//! - Locks here are taken last, and one at a time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use brim_semantics::KeyHash;
use parking_lot::Mutex;

use crate::catalog::BuildKeyHasher;

/// Carriers of one name that are known: 16 KiB. Giving back as many costs more than looking at all of a small store.
pub(crate) const KNOWN_MAX: usize = 1024;
/// Carriers of many names that are looked at one by one, 1 MiB: beyond that a walk over all that is stored is hardly dearer.
pub(crate) const GATHERED_MAX: usize = 65_536;
const SHARDS: usize = 64;
/// How much more room than carriers a name may keep.
const SLACK: usize = 4;
/// Neither the bits that a map chooses its buckets by, nor those that it tags them with.
const SHARD_SHIFT: u32 = 40;

#[derive(Debug)]
enum Carried {
    One(KeyHash),
    /// One key as often as it has variants that carry the name.
    Known(Vec<KeyHash>),
    Counted(u64),
}

impl Carried {
    fn keys(&self) -> Option<&[KeyHash]> {
        match self {
            Self::One(key) => Some(std::slice::from_ref(key)),
            Self::Known(keys) => Some(keys),
            Self::Counted(_) => None,
        }
    }
}

// Names are hashes, too.
type Shard = HashMap<u64, Carried, BuildKeyHasher>;

/// The cache keys of what is stored, by what purges can name.
#[derive(Debug)]
pub(crate) struct Carriers {
    shards: Vec<Mutex<Shard>>,
}

impl Default for Carriers {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Carriers {
    fn shard(&self, name: u64) -> &Mutex<Shard> {
        &self.shards[usize::try_from(name >> SHARD_SHIFT).unwrap_or(0) % SHARDS]
    }

    pub(crate) fn add(&self, name: u64, key: KeyHash) {
        match self.shard(name).lock().entry(name) {
            Entry::Vacant(place) => drop(place.insert(Carried::One(key))),
            Entry::Occupied(mut place) => match place.get_mut() {
                Carried::One(other) => {
                    let both = vec![*other, key];
                    place.insert(Carried::Known(both));
                }
                Carried::Known(keys) if keys.len() < KNOWN_MAX => keys.push(key),
                Carried::Known(keys) => {
                    let count = keys.len() as u64 + 1;
                    place.insert(Carried::Counted(count));
                }
                Carried::Counted(count) => *count += 1,
            },
        }
    }

    pub(crate) fn remove(&self, name: u64, key: KeyHash) {
        let mut shard = self.shard(name).lock();
        let Entry::Occupied(mut place) = shard.entry(name) else { return };
        let is_last = match place.get_mut() {
            Carried::One(_) => true,
            Carried::Known(keys) => {
                if let Some(at) = keys.iter().position(|known| *known == key) {
                    keys.swap_remove(at);
                }
                if let [one] = **keys {
                    place.insert(Carried::One(one));
                    return;
                }
                if keys.len() < keys.capacity() / SLACK {
                    keys.shrink_to_fit();
                }
                keys.is_empty()
            }
            Carried::Counted(count) => {
                *count -= 1;
                *count == 0
            }
        };
        if is_last {
            place.remove();
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.lock().is_empty())
    }

    /// Those that carry any of the names, each once; perhaps some that carry none of them any more. `None`: they are not known, or more than
    /// `count_max`, one counted as often as it has names and variants.
    pub(crate) fn of(&self, names: &[u64], count_max: usize) -> Option<Vec<KeyHash>> {
        let mut carriers = Vec::new();
        for name in names {
            let shard = self.shard(*name).lock();
            let Some(carried) = shard.get(name) else { continue };
            let keys = carried.keys()?;
            if carriers.len() + keys.len() > count_max {
                return None;
            }
            carriers.extend_from_slice(keys);
        }
        carriers.sort_unstable();
        carriers.dedup();
        Some(carriers)
    }

    /// Whether [`Carriers::of`] would tell them.
    pub(crate) fn are_known(&self, names: &[u64], count_max: usize) -> bool {
        let count_of =
            |name: &u64| self.shard(*name).lock().get(name).map_or(Some(0), |carried| Some(carried.keys()?.len()));
        let count: Option<usize> = names.iter().map(count_of).sum();
        count.is_some_and(|count| count <= count_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> KeyHash {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        KeyHash(bytes)
    }

    #[test]
    fn every_carrier_of_any_name_is_told_once() {
        let carriers = Carriers::default();
        carriers.add(1, key(1));
        assert_eq!(carriers.of(&[1], KNOWN_MAX), Some(vec![key(1)]));
        // Two variants of one key, and another key.
        carriers.add(1, key(1));
        carriers.add(1, key(2));
        carriers.add(2, key(2));
        carriers.add(2, key(3));
        assert_eq!(carriers.of(&[1, 2, 3], KNOWN_MAX), Some(vec![key(1), key(2), key(3)]));
        carriers.remove(1, key(1));
        assert_eq!(carriers.of(&[1], KNOWN_MAX), Some(vec![key(1), key(2)]));
        carriers.remove(1, key(1));
        carriers.remove(1, key(2));
        assert_eq!(carriers.of(&[1], KNOWN_MAX), Some(Vec::new()));
        [key(2), key(3)].into_iter().for_each(|key| carriers.remove(2, key));
        assert!(carriers.is_empty());
    }

    /// One that has a name twice counts twice: the bound is for what is looked at, not for what is found.
    #[test]
    fn more_than_is_wanted_is_not_gathered() {
        let carriers = Carriers::default();
        (0..3).for_each(|number| carriers.add(1, key(number)));
        carriers.add(2, key(0));
        assert_eq!((carriers.of(&[1], 2), carriers.are_known(&[1], 2)), (None, false));
        assert_eq!((carriers.of(&[1, 2, 3], 3), carriers.are_known(&[1, 2, 3], 3)), (None, false));
        assert_eq!(carriers.of(&[1, 2, 3], 4), Some(vec![key(0), key(1), key(2)]));
        assert!(carriers.are_known(&[1, 2, 3], 4) && carriers.are_known(&[3], 0));
    }

    #[test]
    fn names_keep_no_room_for_those_that_left() {
        let carriers = Carriers::default();
        let room = |carriers: &Carriers| match carriers.shard(1).lock().get(&1) {
            Some(Carried::Known(keys)) => keys.capacity(),
            Some(Carried::One(_)) => 1,
            Some(Carried::Counted(_)) | None => 0,
        };
        (0..1000).for_each(|number| carriers.add(1, key(number)));
        for left in (1..1000_usize).rev() {
            carriers.remove(1, key(left as u64));
            assert!(room(&carriers) < SLACK * (left + 1), "{left}");
        }
        assert_eq!((room(&carriers), carriers.of(&[1], 1)), (1, Some(vec![key(0)])));
    }

    #[test]
    fn too_many_are_counted_until_none_is_left() {
        let carriers = Carriers::default();
        let many = KNOWN_MAX as u64 + 1;
        (0..many).for_each(|number| carriers.add(7, key(number)));
        assert_eq!((carriers.of(&[7], usize::MAX), carriers.are_known(&[7], usize::MAX)), (None, false));
        (1..many).for_each(|number| carriers.remove(7, key(number)));
        assert_eq!(carriers.of(&[7], KNOWN_MAX), None, "which one is left is not known");
        carriers.remove(7, key(0));
        assert_eq!(carriers.of(&[7], KNOWN_MAX), Some(Vec::new()));
        assert!(carriers.is_empty());
        carriers.add(7, key(1));
        assert_eq!(carriers.of(&[7], KNOWN_MAX), Some(vec![key(1)]), "they are known again");
    }
}
