//! Waiting with a deadline.

use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How long any single wait may take. Tests share few cores with the compiler, so it is generous; a test that meets it
/// has failed, none that passes comes near it.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks of [`eventually`].
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The outcome of `event`, or a panic that says `what` was waited for and where.
#[track_caller]
pub fn within<T>(what: &str, event: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        match timeout(DEADLINE, event).await {
            Ok(outcome) => outcome,
            Err(_) => panic!("{caller}: waited {DEADLINE:?} for {what}"),
        }
    }
}

/// Looks until `look` finds something, for what cannot be awaited: a metric, a file, a line of another process.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(Instant::now() < deadline, "{caller}: looked {DEADLINE:?} for {what}");
            sleep(LOOK_EVERY).await;
        }
    }
}
