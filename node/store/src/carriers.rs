//! Which cache keys carry a name: a purge of what few stored responses carry looks at these alone, one of what none carries at none.
//!
//! Always true:
//! - What is added as often as it is removed leaves nothing behind.
//! - [`Carriers::of`] tells every carrier or says that it does not know: of a name with more than [`KNOWN_MAX`] they are only counted, until
//!   there are none.
//! - Locks here are taken last, and one at a time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use brim_semantics::KeyHash;
use parking_lot::Mutex;

use crate::catalog::BuildKeyHasher;

/// Carriers of one name that are known: 16 KiB. Giving back as many costs more than looking at all of a small store.
pub(crate) const KNOWN_MAX: usize = 1024;
const SHARDS: usize = 64;
/// Neither the bits that a map chooses its buckets by, nor those that it tags them with.
const SHARD_SHIFT: u32 = 40;

#[derive(Debug)]
enum Carried {
    One(KeyHash),
    /// One key as often as it has variants that carry the name.
    Known(Vec<KeyHash>),
    Counted(u64),
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

    /// Those that carry any of the names, each once; perhaps some that carry none of them any more. `None`: there are too many to know them.
    pub(crate) fn of(&self, names: &[u64]) -> Option<Vec<KeyHash>> {
        let mut carriers = Vec::new();
        for name in names {
            match self.shard(*name).lock().get(name) {
                Some(Carried::One(key)) => carriers.push(*key),
                Some(Carried::Known(keys)) => carriers.extend_from_slice(keys),
                Some(Carried::Counted(_)) => return None,
                None => {}
            }
        }
        carriers.sort_unstable();
        carriers.dedup();
        Some(carriers)
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
        assert_eq!(carriers.of(&[1]), Some(vec![key(1)]));
        // Two variants of one key, and another key.
        carriers.add(1, key(1));
        carriers.add(1, key(2));
        carriers.add(2, key(2));
        carriers.add(2, key(3));
        assert_eq!(carriers.of(&[1, 2, 3]), Some(vec![key(1), key(2), key(3)]));
        carriers.remove(1, key(1));
        assert_eq!(carriers.of(&[1]), Some(vec![key(1), key(2)]));
        carriers.remove(1, key(1));
        carriers.remove(1, key(2));
        assert_eq!(carriers.of(&[1]), Some(Vec::new()));
        [key(2), key(3)].into_iter().for_each(|key| carriers.remove(2, key));
        assert!(carriers.is_empty());
    }

    #[test]
    fn too_many_are_counted_until_none_is_left() {
        let carriers = Carriers::default();
        let many = KNOWN_MAX as u64 + 1;
        (0..many).for_each(|number| carriers.add(7, key(number)));
        assert_eq!(carriers.of(&[7]), None);
        (1..many).for_each(|number| carriers.remove(7, key(number)));
        assert_eq!(carriers.of(&[7]), None, "which one is left is not known");
        carriers.remove(7, key(0));
        assert_eq!(carriers.of(&[7]), Some(Vec::new()));
        assert!(carriers.is_empty());
        carriers.add(7, key(1));
        assert_eq!(carriers.of(&[7]), Some(vec![key(1)]), "they are known again");
    }
}
