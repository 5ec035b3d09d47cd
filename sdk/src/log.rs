//! Lines for the operator.
//!
//! The node limits their length, their number a call and their number a second. In native tests they go to standard error.

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the usual four")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// Writes a line into the node's log, under the plugin's name.
pub fn write(level: Level, message: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::guest::write_log(level, message);
    #[cfg(not(target_arch = "wasm32"))]
    eprintln!("{level:?}: {message}");
}

/// Writes a line of level `info`.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Writes a line of level `warn`.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}
