//! Background tasks that must be awaited at shutdown: fills, validations behind a response, relays.
//!
//! Always true:
//! - Every task of the request path starts here, under a name, and is counted until it ends.
//! - [`Tasks::drained`] returns when none is left; what a deadline does about the rest is the caller's business.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tracing::Instrument;

/// A tracked set of tasks. Clones share the set.
#[derive(Debug, Clone, Default)]
pub struct Tasks(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    running_count: AtomicUsize,
    idle: Notify,
}

impl Tasks {
    /// Starts `future` on the current thread's runtime. `name` appears in the log lines that it writes.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let running = self.hold();
        let span = tracing::debug_span!("task", name);
        tokio::spawn(
            async move {
                let _running = running;
                future.await;
            }
            .instrument(span),
        );
    }

    /// Keeps the set from being drained until the guard is dropped.
    pub fn hold(&self) -> Running {
        self.0.running_count.fetch_add(1, Ordering::Relaxed);
        Running(self.0.clone())
    }

    /// Tasks that have not ended.
    pub fn running_count(&self) -> usize {
        self.0.running_count.load(Ordering::Acquire)
    }

    /// Waits until no task is left. Cancel safe: it holds nothing.
    pub async fn drained(&self) {
        loop {
            let idle = self.0.idle.notified();
            if self.running_count() == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// Counts its task out, also when the task panics or is dropped with its runtime.
#[derive(Debug)]
pub struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.running_count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drained_waits_for_the_last_task_and_survives_a_panic() {
        let tasks = Tasks::default();
        let (release, wait) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn("waits", async move {
            let _ = wait.await;
        });
        tasks.spawn("panics", async { panic!("a task's own mistake") });
        assert_eq!(tasks.running_count(), 2);
        let _ = release.send(());
        tasks.drained().await;
        assert_eq!(tasks.running_count(), 0);
    }
}
