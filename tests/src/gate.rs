//! Gates: what a test opens when it has seen what it wanted to see.

use tokio::sync::watch;

/// Closed until the test opens it, and then open for good. Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Lets everybody pass who waits, and everybody who comes later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits without a deadline: whoever waits here is watched by a test that has one.
    pub async fn opened(&self) {
        // The sender is `self`, so the channel cannot close while we wait.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}
