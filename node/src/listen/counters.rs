//! What happened at the listeners, in numbers that telemetry reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Tallies since the start, over all threads; `open` is a gauge. Read them with `Ordering::Relaxed`.
#[derive(Debug, Default)]
pub struct ListenCounters {
    /// Connections accepted, those refused among them.
    pub accepted: AtomicU64,
    /// Connections closed at once because `connections_max` were open.
    pub refused: AtomicU64,
    /// Connections open now, handshakes and tunnels among them.
    pub open: AtomicU64,
    /// TLS handshakes that succeeded.
    pub tls_handshakes: AtomicU64,
    /// TLS handshakes that failed, the slow ones among them.
    pub tls_failures: AtomicU64,
    /// Calls of `accept` that failed.
    pub accept_errors: AtomicU64,
    /// Connections cut because a request head, or the preface, did not come in time.
    pub slow_heads: AtomicU64,
    /// Kept connections closed because nothing was asked in time.
    pub idle_closed: AtomicU64,
    /// Connections cut because a client did not read its response.
    pub stalled: AtomicU64,
    /// HTTP/2 connections cut because of a flood of control frames.
    pub floods: AtomicU64,
    /// Connections cut because the drain's deadline passed.
    pub drain_aborted: AtomicU64,
}

impl ListenCounters {
    /// Counts a new connection in, unless `connections_max` are open.
    pub(super) fn open(self: &Arc<Self>, connections_max: usize) -> Option<OpenConnection> {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let connection = OpenConnection(self.clone());
        (open < connections_max as u64).then_some(connection)
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A place among the open connections, given back on drop.
#[derive(Debug)]
pub(super) struct OpenConnection(Arc<ListenCounters>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back() {
        let counters = Arc::new(ListenCounters::default());
        let first = counters.open(1);
        assert!(first.is_some());
        assert!(counters.open(1).is_none());
        assert_eq!(counters.open.load(Ordering::Relaxed), 1);
        drop(first);
        assert!(counters.open(1).is_some());
    }
}
