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
mod predicate;
mod receipts;

use std::time::SystemTime;

use brim_semantics::KeyHash;
use serde::{Deserialize, Serialize};

pub(crate) use clock::{Checked, Clock, Table};
#[cfg(test)]
pub(crate) use codec::LogRecord;
pub(crate) use codec::Tail as LogTail;
pub(crate) use committer::{Committer, Urgency};
pub(crate) use horizon::Horizon;
pub(crate) use log::{OpenedLog, PurgeLog, replayed};
pub(crate) use names::{Matcher, Named, Names, Target, language, media_type};
pub use predicate::{PATTERN_BYTES_MAX, PATTERN_STARS_MAX, Predicate};
pub(crate) use receipts::Receipts;

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
    /// One variant of a URL: what a request with these fields selects (RFC 9111 §4.1).
    Variant {
        /// As in the target URI, lower case, default port removed.
        authority: Box<str>,
        /// The path as it was requested.
        path: Box<str>,
        /// The query as it was requested.
        query: Option<Box<str>>,
        /// Only under these cache keys; none: under any.
        keys: Vec<KeyHash>,
        /// The request's fields, by their names in lower case. One that is not here is absent.
        fields: Vec<(Box<str>, Box<[u8]>)>,
    },
    /// Those of which this holds.
    Match(Predicate),
}

/// What becomes of what a purge names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PurgeMode {
    /// Not usable any more.
    Hard,
    /// Stale: may be served while it is validated.
    Soft,
}

/// Who makes the purges that a write causes.
pub const BY_WRITE: &str = "write";
/// The same for those that a rule decides on later.
pub const BY_RETRY: &str = "retry";

/// A purge as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// What is named: one position for all of them.
    pub selectors: Vec<Selector>,
    /// Hard or soft.
    pub mode: PurgeMode,
    /// The time by the caller's clock.
    pub at: SystemTime,
    /// Who asks.
    pub by: Box<str>,
    /// With the same one from the same caller a purge is made once.
    pub idempotency_key: Option<Box<str>>,
    /// What makes two purges under one idempotency key the same, where that is not what they name and whether hard or soft: names may
    /// depend on when they are asked for.
    pub fingerprint: Option<[u8; 32]>,
}

impl Purge {
    /// A purge of one selector that nobody in particular asks for.
    pub fn of(selector: Selector, mode: PurgeMode, at: SystemTime) -> Self {
        Self { selectors: vec![selector], mode, at, by: Box::default(), idempotency_key: None, fingerprint: None }
    }

    /// Whether it is the same as another one under its idempotency key.
    pub(crate) fn is_same(&self, selectors: &[Selector], mode: PurgeMode, fingerprint: Option<[u8; 32]>) -> bool {
        match (self.fingerprint, fingerprint) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => self.selectors == selectors && self.mode == mode,
        }
    }

    /// Bytes of text in it.
    pub(crate) fn text_bytes(&self) -> usize {
        self.by.len()
            + self.idempotency_key.as_ref().map_or(0, |key| key.len())
            + self.selectors.iter().map(Selector::text_bytes).sum::<usize>()
    }
}

/// The proof of a purge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Stable: `p-<position>`.
    pub id: String,
    /// Its place in the order of purges.
    pub position: Position,
    /// What was named.
    pub selectors: Vec<Selector>,
    /// Hard or soft.
    pub mode: PurgeMode,
    /// Stored responses that it hit and no hard purge had hit before.
    pub matched: u64,
    /// Bytes of their contents.
    pub matched_bytes: u64,
    /// When it became visible, as the caller told the time.
    pub applied_at: SystemTime,
    /// When it was on disk, by the system's clock.
    pub durable_at: SystemTime,
    /// When what it hit had been counted, and after a hard purge given back. None: not yet, or it never will be.
    pub reclaimed_at: Option<SystemTime>,
    /// Who asked.
    pub by: Box<str>,
    /// The key under which it is not made twice.
    pub idempotency_key: Option<Box<str>>,
    /// As the purge had it.
    pub fingerprint: Option<[u8; 32]>,
    /// It had been made before: this is the receipt of the first time.
    pub is_repeated: bool,
}

impl Receipt {
    pub(crate) fn new(position: Position, purge: Purge, durable_at: SystemTime) -> Self {
        let Purge { selectors, mode, at, by, idempotency_key, fingerprint } = purge;
        Self {
            id: format!("p-{position}"),
            position,
            selectors,
            mode,
            matched: 0,
            matched_bytes: 0,
            applied_at: at,
            durable_at,
            reclaimed_at: None,
            by,
            idempotency_key,
            fingerprint,
            is_repeated: false,
        }
    }
}

/// Longest text a purge may carry, all its selectors together.
pub const SELECTOR_BYTES_MAX: usize = 256 * 1024;
/// Selectors of one purge.
pub const SELECTORS_MAX: usize = 256;

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
    /// The caller has used the idempotency key for another purge.
    #[error("the idempotency key was used for another purge: {0}")]
    IdempotencyConflict(String),
    /// It has more than [`SELECTORS_MAX`] selectors.
    #[error("the purge has {0} selectors, at most {SELECTORS_MAX} are taken")]
    TooMany(usize),
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
            Self::Variant { authority, path, query, keys, fields } => {
                let fields = fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
                let query = query.as_ref().map_or(0, |query| query.len());
                authority.len() + path.len() + query + size_of_val(&**keys) + fields
            }
            Self::Match(predicate) => predicate.text_bytes(),
        }
    }
}
