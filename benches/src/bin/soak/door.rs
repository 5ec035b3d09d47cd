//! Where the node answers, and whether it is up: it may be killed and come back elsewhere.
//!
//! Always true:
//! - A kill is announced here before it happens, so that whoever loses a connection by it finds it announced.
//! - What failed is excused only if the node was down, or went down, between its beginning and its end.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use parking_lot::RwLock;

/// Where a node listens, and its admin token.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) token: String,
}

/// The door of a node.
#[derive(Debug)]
pub(crate) struct Door {
    addresses: RwLock<Addresses>,
    /// Odd while it is down.
    phase: AtomicU64,
}

/// A time in which the node was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life(u64);

impl Door {
    pub(crate) fn new(addresses: Addresses) -> Self {
        Self { addresses: RwLock::new(addresses), phase: AtomicU64::new(0) }
    }

    /// Before it is killed.
    pub(crate) fn shut(&self) {
        self.phase.fetch_add(1, SeqCst);
    }

    /// After it has come back.
    pub(crate) fn reopen(&self, addresses: Addresses) {
        *self.addresses.write() = addresses;
        self.phase.fetch_add(1, SeqCst);
    }

    /// This life of the node, if it is up.
    pub(crate) fn life(&self) -> Option<Life> {
        let phase = self.phase.load(SeqCst);
        phase.is_multiple_of(2).then_some(Life(phase))
    }

    /// Whether that life has ended.
    pub(crate) fn is_over(&self, life: Life) -> bool {
        self.phase.load(SeqCst) != life.0
    }

    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses.read().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_excused_only_across_a_kill() {
        let addresses = |port| {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            Addresses { http: address, admin: address, token: String::new() }
        };
        let door = Door::new(addresses(1));
        let life = door.life().unwrap();
        assert!(!door.is_over(life));
        door.shut();
        assert!(door.is_over(life));
        assert_eq!(door.life(), None);
        door.reopen(addresses(2));
        assert!(door.is_over(life), "it was another life");
        assert!(door.life().is_some_and(|life| !door.is_over(life)));
        assert_eq!(door.addresses().http.port(), 2);
    }
}
