//! What is wrong with a configuration file: every mistake, each with its key path and line.
//!
//! Always true:
//! - The mistakes of a file are reported together, in the order of the file's lines.
//! - A key path is written as in the file: `origins.api.endpoints[1].url`.

use std::cell::RefCell;
use std::fmt;

/// One mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The key path, for example `origins.api.connections_max`. Empty for the file as a whole.
    pub path: String,
    /// The line in the file, counted from 1. `None` where the mistake is that something is missing altogether.
    pub line: Option<usize>,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match self.line {
            Some(line) => write!(f, " (line {line})"),
            None => Ok(()),
        }
    }
}

/// All mistakes of one file, never none. `Display` writes one a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ConfigError::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(pub Vec<ConfigError>);

/// Where the readers of the sections put their mistakes, so that each of them can go on reading.
#[derive(Debug, Default)]
pub(super) struct Sink(RefCell<Vec<ConfigError>>);

impl Sink {
    pub(super) fn report(&self, path: impl Into<String>, line: Option<usize>, message: impl Into<String>) {
        self.0.borrow_mut().push(ConfigError { path: path.into(), line, message: message.into() });
    }

    /// `value` if nothing was reported, else everything that was, in the order of the file.
    pub(super) fn finish<T>(&self, value: T) -> Result<T, ConfigErrors> {
        let mut errors = self.0.take();
        if errors.is_empty() {
            return Ok(value);
        }
        // A stable sort: what has no line comes last, mistakes of one line keep the order in which they were found.
        errors.sort_by_key(|error| error.line.unwrap_or(usize::MAX));
        Err(ConfigErrors(errors))
    }
}
