//! `Expect: 100-continue` (RFC 9110 §10.1.1): content that its client holds back until somebody wants it.
//!
//! Always true:
//! - The content is asked of the client when the endpoint has asked for it, or has said nothing for [`CONTINUE_WAIT_MAX`]. An endpoint that refuses
//!   it with a final response at once is never sent any.
//! - An endpoint over HTTP/2 is not waited for: hyper's client drops its interim responses.
//!
//! Not here: the 100 for the client, which hyper's server writes when the content is first read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// How long an endpoint may take to ask for content that was announced: many never ask, and clients wait no longer themselves.
pub const CONTINUE_WAIT_MAX: Duration = Duration::from_secs(1);

/// One client's expectation.
#[derive(Debug, Default)]
pub struct Expectation {
    wanted: Notify,
    is_met: AtomicBool,
}

impl Expectation {
    /// The content is wanted: the endpoint has said so or cannot say so, or this node reads it itself.
    pub fn meet(&self) {
        self.is_met.store(true, Ordering::Relaxed);
        self.wanted.notify_one();
    }

    /// Whether the content has been, or is being, asked of the client. If not, it never comes once the client has its response.
    pub fn is_met(&self) -> bool {
        self.is_met.load(Ordering::Relaxed)
    }

    /// Waits until the content may be read. Cancel safe: what was noted stays noted, for the one that waits.
    pub(super) async fn met(self: Arc<Self>) {
        // Not asked in time: RFC 9110 §10.1.1 lets a sender go on without.
        let _ = timeout(CONTINUE_WAIT_MAX, self.wanted.notified()).await;
        self.is_met.store(true, Ordering::Relaxed);
    }
}
