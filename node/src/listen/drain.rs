//! The one signal that ends serving: stop accepting, let requests in flight finish, then close.
//!
//! Always true:
//! - A drain begins once and is never taken back.
//! - Whoever asks after it began is told at once.
//!
//! Not here: what a listener (`accept`) and a connection (`connection`) do about it, and the deadline (`accept`).

use std::sync::Arc;

use tokio::sync::watch;

/// The signal. Clones share it.
#[derive(Debug, Clone)]
pub struct Drain(Arc<watch::Sender<bool>>);

impl Default for Drain {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Drain {
    /// Begins the drain.
    pub fn start(&self) {
        self.0.send_replace(true);
    }

    /// True once it began.
    pub fn is_started(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it begins. Cancel safe: it holds nothing.
    pub fn started(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut receiver = self.0.subscribe();
        async move {
            // The sender is gone only with the node itself; that ends serving as well.
            let _ = receiver.wait_for(|started| *started).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_is_told_early_or_late() {
        let drain = Drain::default();
        let early = drain.started();
        assert!(!drain.is_started());
        drain.start();
        early.await;
        drain.started().await;
        assert!(drain.is_started());
    }
}
