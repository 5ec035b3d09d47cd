//! The wall clock, as an argument: rules get a time, tests bring their own.
//!
//! Always true:
//! - The request path reads the time of day only here. Deadlines use tokio's timers, never this clock.

use std::time::SystemTime;

/// Where the time of day comes from.
pub trait Clock: Send + Sync + 'static {
    /// The present time. May step backwards; `brim_semantics` clamps ages so that nothing grows younger than it arrived.
    fn now(&self) -> SystemTime;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}
