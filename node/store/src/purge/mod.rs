//! Purges: what they name, and the receipt that proves one.
//!
//! Always true:
//! - Positions only grow; one position is one purge.
//! - A purge is durable in the log before the clock shows it, and shown before it is acknowledged.
//! - Forgetting makes purges coarser, never weaker.
//!
//! Not here: reclaiming the space of what was purged (`disk`).

mod clock;
mod codec;
mod committer;
mod horizon;
mod log;
mod names;

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

pub(crate) use clock::{Checked, Clock, Table};
#[cfg(test)]
pub(crate) use codec::LogRecord;
pub(crate) use codec::Tail as LogTail;
pub(crate) use committer::{Committer, Urgency};
pub(crate) use horizon::Horizon;
pub(crate) use log::{OpenedLog, PurgeLog, replayed};
pub(crate) use names::{Matcher, Names};

/// A place in the order of all purges. 0 is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Position(pub u64);

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a purge names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selector {
    /// All stored responses.
    Everything,
    /// Those of a site, by the name it has in the configuration.
    Site(Box<str>),
    /// Those of an authority whose path begins so.
    Prefix {
        /// As in the target URI, lower case, default port removed.
        authority: Box<str>,
        /// Compared byte by byte: `/a` covers `/ab` too, `/a/` does not.
        path_prefix: Box<str>,
    },
    /// Those of one URL: both schemes, all methods, variants and plugin parts.
    Url {
        /// As in the target URI, lower case, default port removed.
        authority: Box<str>,
        /// The path as it was requested.
        path: Box<str>,
        /// The query as it was requested.
        query: Option<Box<str>>,
    },
    /// Those that carry at least one of the surrogate keys.
    SurrogateKeys {
        /// Only those of this site.
        site: Option<Box<str>>,
        /// The keys, compared exactly.
        keys: Vec<Box<str>>,
    },
    /// Those of an authority that carry at least one of the groups: groups are the origin's own (RFC 9875 §2).
    Groups {
        /// As in the target URI, lower case, default port removed.
        authority: Box<str>,
        /// The groups, compared exactly.
        groups: Vec<Box<str>>,
    },
}

/// What becomes of what a purge names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PurgeMode {
    /// Not usable any more.
    Hard,
    /// Stale: may be served while it is validated.
    Soft,
}

/// The proof of a purge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Stable: `p-<position>`.
    pub id: String,
    /// Its place in the order of purges.
    pub position: Position,
    /// What was named.
    pub selector: Selector,
    /// Hard or soft.
    pub mode: PurgeMode,
    /// Stored responses that it hit and no hard purge had hit before.
    pub matched: u64,
    /// When it became visible, as the caller told the time.
    pub applied_at: SystemTime,
}

impl Receipt {
    pub(crate) fn new(position: Position, selector: Selector, mode: PurgeMode, applied_at: SystemTime) -> Self {
        Self { id: format!("p-{position}"), position, selector, mode, matched: 0, applied_at }
    }
}

/// Longest text a selector may carry, all parts together.
pub const SELECTOR_BYTES_MAX: usize = 64 * 1024;

/// Why a purge was not acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PurgeError {
    /// The log could not be written: nothing is promised, the purge may be tried again.
    #[error("the purge log cannot be written: {0}")]
    Log(std::sync::Arc<std::io::Error>),
    /// Too many purges wait for the log.
    #[error("{0} purges wait for the log already")]
    Busy(usize),
    /// The selector is longer than [`SELECTOR_BYTES_MAX`].
    #[error("the purge names {0} bytes, at most {SELECTOR_BYTES_MAX} are taken")]
    TooLong(usize),
    /// The log did not answer within [`PURGE_DEADLINE`](crate::PURGE_DEADLINE): the purge may hold or not, and may be repeated.
    #[error("the purge log does not answer; whether the purge holds is not known")]
    NoAnswer,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl Selector {
    /// Bytes of text in it.
    pub(crate) fn text_bytes(&self) -> usize {
        match self {
            Self::Everything => 0,
            Self::Site(site) => site.len(),
            Self::Prefix { authority, path_prefix } => authority.len() + path_prefix.len(),
            Self::Url { authority, path, query } => {
                authority.len() + path.len() + query.as_ref().map_or(0, |query| query.len())
            }
            Self::SurrogateKeys { site, keys } => {
                site.as_ref().map_or(0, |site| site.len()) + keys.iter().map(|key| key.len() + 1).sum::<usize>()
            }
            Self::Groups { authority, groups } => {
                authority.len() + groups.iter().map(|group| group.len() + 1).sum::<usize>()
            }
        }
    }
}
