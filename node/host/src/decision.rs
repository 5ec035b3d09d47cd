//! What a cache-key rule decided, checked before anything believes it.

use brim_semantics::{CACHE_KEY_BYTES_MAX, KEY_PARTS_MAX, KeyPart, PartValue};

use crate::config::{EXTRAS_MAX, PART_NAME_BYTES_MAX, REASON_BYTES_MAX};
use crate::guest::bindings::brim::rules::types;
use crate::guest::bindings::exports::brim::rules::cache_key;
use crate::text::clean;

/// What becomes of a request's cache key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDecision {
    /// What becomes of the client's query.
    pub query: QueryUse,
    /// Parts the rule adds, each name once.
    pub parts: Vec<KeyPart>,
    /// Set: the request bypasses the cache for this reason.
    pub bypass: Option<String>,
    /// What a later version of the contract added.
    pub extras: Vec<(String, String)>,
}

/// What becomes of the client's query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryUse {
    /// It is keyed and forwarded as it is.
    Keep,
    /// This one is keyed, and the origin is asked with it.
    Replace(Option<String>),
}

impl KeyDecision {
    /// Checks what a guest said. The error says what is wrong with it.
    pub(crate) fn checked(said: cache_key::Decision) -> Result<Self, String> {
        if said.parts.len() > KEY_PARTS_MAX {
            return Err(format!("{} key parts; {KEY_PARTS_MAX} are allowed", said.parts.len()));
        }
        if said.extras.len() > EXTRAS_MAX {
            return Err(format!("{} extras; {EXTRAS_MAX} are allowed", said.extras.len()));
        }
        let query = match said.query {
            cache_key::QueryUse::Keep => QueryUse::Keep,
            cache_key::QueryUse::Replace(query) => QueryUse::Replace(query.map(sendable).transpose()?),
        };
        let mut parts: Vec<KeyPart> = Vec::with_capacity(said.parts.len());
        for part in said.parts {
            let part = KeyPart { name: part_name(part.name)?, value: lifted(part.value) };
            if parts.iter().any(|earlier| earlier.name == part.name) {
                return Err(format!("the key part `{}` twice", part.name));
            }
            parts.push(part);
        }
        let decision = Self {
            query,
            parts,
            bypass: said.bypass.map(|reason| clean(&reason, REASON_BYTES_MAX)),
            extras: said.extras.into_iter().map(extra).collect::<Result<_, _>>()?,
        };
        let bytes = decision.bytes_count();
        if bytes > CACHE_KEY_BYTES_MAX {
            return Err(format!("{bytes} bytes for a cache key; {CACHE_KEY_BYTES_MAX} are allowed"));
        }
        Ok(decision)
    }

    /// How much it holds, for limits.
    pub(crate) fn bytes_count(&self) -> usize {
        let query = match &self.query {
            QueryUse::Replace(Some(query)) => query.len(),
            QueryUse::Replace(None) | QueryUse::Keep => 0,
        };
        let parts = self.parts.iter().map(|part| part.name.len() + value_bytes(&part.value));
        let extras = self.extras.iter().map(|(name, value)| name.len() + value.len());
        query + parts.chain(extras).sum::<usize>() + self.bypass.as_ref().map_or(0, String::len)
    }
}

fn value_bytes(value: &PartValue) -> usize {
    match value {
        PartValue::Text(text) => text.len(),
        PartValue::Bytes(bytes) => bytes.len(),
        PartValue::Integer(_) => size_of::<i64>(),
        PartValue::Flag(_) | PartValue::Absent => 1,
    }
}

/// A query that can stand in a request line.
fn sendable(query: String) -> Result<String, String> {
    if query.len() > CACHE_KEY_BYTES_MAX {
        return Err(format!("a query of {} bytes; {CACHE_KEY_BYTES_MAX} are allowed", query.len()));
    }
    let fits = !query.contains('#') && http::uri::PathAndQuery::try_from(format!("/?{query}")).is_ok();
    if fits { Ok(query) } else { Err(format!("a query that cannot be sent: `{}`", clean(&query, REASON_BYTES_MAX))) }
}

fn part_name(name: String) -> Result<String, String> {
    let fits =
        !name.is_empty() && name.len() <= PART_NAME_BYTES_MAX && name.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        Ok(name)
    } else {
        Err(format!(
            "a key part named `{}` (1 to {PART_NAME_BYTES_MAX} visible ASCII characters)",
            clean(&name, PART_NAME_BYTES_MAX)
        ))
    }
}

fn extra(said: types::ExtraResult) -> Result<(String, String), String> {
    if said.value.len() > REASON_BYTES_MAX {
        return Err(format!("an extra of {} bytes; {REASON_BYTES_MAX} are allowed", said.value.len()));
    }
    Ok((part_name(said.name)?, said.value))
}

fn lifted(value: cache_key::PartValue) -> PartValue {
    match value {
        cache_key::PartValue::Text(text) => PartValue::Text(text),
        cache_key::PartValue::Bytes(bytes) => PartValue::Bytes(bytes),
        cache_key::PartValue::Integer(integer) => PartValue::Integer(integer),
        cache_key::PartValue::Flag(flag) => PartValue::Flag(flag),
        cache_key::PartValue::Absent => PartValue::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_must_fit_a_request_line() {
        for good in ["", "a=1&b=%20", "q=a+b", "a[]=1", "a=1;b=2"] {
            assert_eq!(sendable(good.to_owned()).as_deref(), Ok(good));
        }
        for bad in ["a b", "a\r\nb", "a#b", "\u{7f}\0"] {
            assert!(sendable(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
