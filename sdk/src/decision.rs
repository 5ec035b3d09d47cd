//! What a rule answers.

use core::fmt;

use crate::Query;

/// What the cache key of a request is made of, besides what always belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub(crate) query: QueryUse,
    pub(crate) parts: Vec<(String, PartValue)>,
    pub(crate) bypass: Option<String>,
}

/// What becomes of the client's query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryUse {
    /// It is keyed and forwarded as it is.
    Keep,
    /// This one takes its place, in the key and towards the origin.
    Replace(Option<String>),
}

/// The value of a key part. Values of two kinds never make the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the kinds speak for themselves")]
pub enum PartValue {
    Text(String),
    Bytes(Vec<u8>),
    Integer(i64),
    Flag(bool),
    /// What the part would be made of is not in the request. Differs from an empty text.
    Absent,
}

impl Decision {
    /// Keys and forwards the query as the client sent it.
    #[must_use]
    pub fn keep_query() -> Self {
        Self { query: QueryUse::Keep, parts: Vec::new(), bypass: None }
    }

    /// Keys this query and asks the origin with it. What it leaves out does not reach the origin, so it cannot shape the response.
    #[must_use]
    pub fn replace_query(query: &Query<'_>) -> Self {
        Self { query: QueryUse::Replace(query.serialise()), parts: Vec::new(), bypass: None }
    }

    /// This request is neither answered from the store nor stored, and `reason` is what the operator is shown.
    #[must_use]
    pub fn bypass(reason: &str) -> Self {
        Self { query: QueryUse::Keep, parts: Vec::new(), bypass: Some(reason.to_owned()) }
    }

    /// Adds a part. Each name may be used once.
    #[must_use]
    pub fn part(mut self, name: &str, value: impl Into<PartValue>) -> Self {
        self.parts.push((name.to_owned(), value.into()));
        self
    }

    /// What becomes of the query.
    #[must_use]
    pub fn query_use(&self) -> &QueryUse {
        &self.query
    }

    /// The part of this name, for tests.
    #[must_use]
    pub fn part_named(&self, name: &str) -> Option<&PartValue> {
        self.parts.iter().find(|(part, _)| part == name).map(|(_, value)| value)
    }

    /// Why the cache is bypassed, if it is.
    #[must_use]
    pub fn bypass_reason(&self) -> Option<&str> {
        self.bypass.as_deref()
    }
}

impl From<&str> for PartValue {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for PartValue {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&[u8]> for PartValue {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.to_vec())
    }
}

impl From<Vec<u8>> for PartValue {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}

impl From<i64> for PartValue {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<bool> for PartValue {
    fn from(value: bool) -> Self {
        Self::Flag(value)
    }
}

impl<T: Into<PartValue>> From<Option<T>> for PartValue {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Absent, Into::into)
    }
}

/// Why a rule gives no decision. Makes the request bypass the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub(crate) message: String,
}

impl Failure {
    /// A failure with a message for the operator. The client does not see it.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl core::error::Error for Failure {}
