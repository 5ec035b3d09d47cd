//! A guest's lines in the node's log: cleaned, cut and limited.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;

use crate::config::{LOG_LINE_BYTES_MAX, LOG_LINES_PER_SECOND_MAX};
use crate::text::clean;

/// How much a guest's line matters.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// The log of one plugin.
#[derive(Debug)]
pub(crate) struct GuestLog {
    plugin: String,
    second: Mutex<Second>,
    dropped: AtomicU64,
}

/// The lines of the second that runs.
#[derive(Debug)]
struct Second {
    began: Instant,
    lines_count: u32,
}

impl GuestLog {
    pub(crate) fn new(plugin: &str) -> Self {
        let second = Second { began: Instant::now(), lines_count: 0 };
        Self { plugin: plugin.to_owned(), second: Mutex::new(second), dropped: AtomicU64::new(0) }
    }

    pub(crate) fn write(&self, level: Level, message: &str) {
        if !self.second.lock().has_room(Instant::now()) {
            self.drop_line();
            return;
        }
        let plugin = self.plugin.as_str();
        let message = clean(message, LOG_LINE_BYTES_MAX);
        match level {
            Level::Debug => tracing::debug!(target: "brim::plugin", plugin, "{message}"),
            Level::Info => tracing::info!(target: "brim::plugin", plugin, "{message}"),
            Level::Warn => tracing::warn!(target: "brim::plugin", plugin, "{message}"),
            Level::Error => tracing::error!(target: "brim::plugin", plugin, "{message}"),
        }
    }

    pub(crate) fn drop_line(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

impl Second {
    fn has_room(&mut self, now: Instant) -> bool {
        if now.duration_since(self.began).as_secs() >= 1 {
            *self = Self { began: now, lines_count: 0 };
        }
        self.lines_count += 1;
        self.lines_count <= LOG_LINES_PER_SECOND_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_has_so_many_lines_and_the_next_as_many_again() {
        let began = Instant::now();
        let mut second = Second { began, lines_count: 0 };
        let lines = (0..LOG_LINES_PER_SECOND_MAX + 5).filter(|_| second.has_room(began)).count();
        assert_eq!(lines, LOG_LINES_PER_SECOND_MAX as usize);
        assert!(second.has_room(began + Duration::from_secs(1)));
    }
}
