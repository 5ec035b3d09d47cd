//! What a client got, and what tests ask of it.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::header::AGE;
use http::{HeaderMap, StatusCode, Version};
use sfv::{BareItem, Item, List, ListEntry, Parser};

/// A whole response.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// The version it came in.
    pub version: Version,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its content, as sent: no content coding is undone.
    pub content: Bytes,
    /// Fields after the content.
    pub trailers: HeaderMap,
    /// The connection it came on.
    pub connection: Arc<Connected>,
}

/// What is known of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Counted from 1 for each client.
    pub number: u64,
    /// The protocol agreed on by ALPN.
    pub alpn: Option<String>,
    /// `TLSv1_3`, or `None` on plaintext.
    pub tls_version: Option<String>,
    /// The certificate the server showed, in DER.
    pub certificate: Option<Vec<u8>>,
}

/// The member `brim` of `Cache-Status` (RFC 9211).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// Answered from the store without the origin.
    pub hit: bool,
    /// Why it was forwarded.
    pub fwd: Option<String>,
    /// What the origin answered.
    pub fwd_status: Option<i64>,
    /// Seconds of freshness left, negative when stale.
    pub ttl: Option<i64>,
    /// The response is now stored.
    pub stored: bool,
    /// One forward request served several.
    pub collapsed: bool,
    /// The cache key.
    pub key: Option<String>,
    /// What else there is to say.
    pub detail: Option<String>,
}

impl CacheStatus {
    /// The last member of this name, which is the one nearest to the client.
    fn parse(headers: &HeaderMap, name: &str) -> Result<Option<Self>, String> {
        let lines: Result<Vec<_>, _> = headers.get_all("cache-status").iter().map(|line| line.to_str()).collect();
        let line = lines.map_err(|error| error.to_string())?.join(", ");
        let members: List = Parser::new(&line).parse().map_err(|error| format!("{line}: {error}"))?;
        let ours = members.iter().rev().find_map(|member| match member {
            ListEntry::Item(item) if text(&item.bare_item).as_deref() == Some(name) => Some(item),
            ListEntry::Item(_) | ListEntry::InnerList(_) => None,
        });
        Ok(ours.map(Self::of_item))
    }

    fn of_item(item: &Item) -> Self {
        let parameter = |name: &str| item.params.iter().find(|(key, _)| key.as_str() == name).map(|(_, value)| value);
        let flag = |name| parameter(name).is_some_and(|value| value.as_boolean() == Some(true));
        let number = |name| parameter(name).and_then(BareItem::as_integer).map(i64::from);
        let word = |name| parameter(name).and_then(text);
        Self {
            hit: flag("hit"),
            fwd: word("fwd"),
            fwd_status: number("fwd-status"),
            ttl: number("ttl"),
            stored: flag("stored"),
            collapsed: flag("collapsed"),
            key: word("key"),
            detail: word("detail"),
        }
    }
}

/// A token or a string, which Cache-Status uses alike.
fn text(item: &BareItem) -> Option<String> {
    let token = item.as_token().map(|token| token.as_str().to_owned());
    token.or_else(|| item.as_string().map(|string| string.as_str().to_owned()))
}

impl Answer {
    /// The content as text.
    #[must_use]
    #[track_caller]
    pub fn content(&self) -> &str {
        match std::str::from_utf8(&self.content) {
            Ok(text) => text,
            Err(error) => panic!("the content is no text: {error}\n{}", self.head()),
        }
    }

    /// The content as JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.content) {
            Ok(value) => value,
            Err(error) => panic!("the content is no JSON: {error}\n{}", self.described()),
        }
    }

    /// The first value of a field, as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// `Age` in seconds; a value that is no number counts as none.
    #[must_use]
    pub fn age(&self) -> Option<u64> {
        self.header(AGE.as_str()).and_then(|value| value.parse().ok())
    }

    /// The member `brim` of `Cache-Status`; a panic when it is missing or the field is malformed.
    #[must_use]
    #[track_caller]
    pub fn cache_status(&self) -> CacheStatus {
        match CacheStatus::parse(&self.headers, "brim") {
            Ok(Some(status)) => status,
            Ok(None) => panic!("Cache-Status has no member `brim`\n{}", self.described()),
            Err(error) => panic!("Cache-Status is malformed: {error}\n{}", self.described()),
        }
    }

    /// It came from the store.
    #[track_caller]
    pub fn assert_hit(&self) -> &Self {
        let status = self.cache_status();
        assert!(status.hit && status.fwd.is_none(), "expected a hit\n{}", self.described());
        self
    }

    /// It was forwarded for this reason: `uri-miss`, `vary-miss`, `stale`, `bypass`, …
    #[track_caller]
    pub fn assert_forwarded(&self, reason: &str) -> &Self {
        let status = self.cache_status();
        let is_so = !status.hit && status.fwd.as_deref() == Some(reason);
        assert!(is_so, "expected fwd={reason}\n{}", self.described());
        self
    }

    /// It is stored now.
    #[track_caller]
    pub fn assert_stored(&self) -> &Self {
        assert!(self.cache_status().stored, "expected `stored`\n{}", self.described());
        self
    }

    /// It is not stored.
    #[track_caller]
    pub fn assert_not_stored(&self) -> &Self {
        assert!(!self.cache_status().stored, "expected no `stored`\n{}", self.described());
        self
    }

    /// It has this status.
    #[track_caller]
    pub fn assert_status(&self, code: u16) -> &Self {
        assert_eq!(self.status.as_u16(), code, "{}", self.described());
        self
    }

    /// It has this content.
    #[track_caller]
    pub fn assert_content(&self, content: &str) -> &Self {
        assert_eq!(self.content(), content, "{}", self.head());
        self
    }

    /// Status line and fields, for a message.
    #[must_use]
    pub fn head(&self) -> String {
        let mut head = format!("{:?} {}\n", self.version, self.status);
        for (name, value) in &self.headers {
            // Writing to a string cannot fail.
            let _ = writeln!(head, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
        }
        head
    }

    /// The head and the beginning of the content.
    fn described(&self) -> String {
        let shown = &self.content[..self.content.len().min(500)];
        format!("{}\n{}", self.head(), String::from_utf8_lossy(shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(lines: &[&'static str]) -> Result<Option<CacheStatus>, String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("cache-status", http::HeaderValue::from_static(line));
        }
        CacheStatus::parse(&headers, "brim")
    }

    #[test]
    fn our_member_is_found_among_those_of_other_caches() {
        let status =
            parsed(&["\"origin cache\"; hit; ttl=10", "brim; fwd=uri-miss; fwd-status=200; stored, edge; hit"]);
        let expected =
            CacheStatus { fwd: Some("uri-miss".into()), fwd_status: Some(200), stored: true, ..CacheStatus::default() };
        assert_eq!(status, Ok(Some(expected)));
    }

    #[test]
    fn every_parameter_is_read() {
        let status = parsed(&["brim; hit; ttl=-3; collapsed; key=\"k\"; detail=stale-while-revalidate"]);
        let expected = CacheStatus {
            hit: true,
            ttl: Some(-3),
            collapsed: true,
            key: Some("k".into()),
            detail: Some("stale-while-revalidate".into()),
            ..CacheStatus::default()
        };
        assert_eq!(status, Ok(Some(expected)));
    }

    #[test]
    fn a_missing_member_is_none_and_a_malformed_field_an_error() {
        assert_eq!(parsed(&[]), Ok(None));
        assert_eq!(parsed(&["other; hit"]), Ok(None));
        assert!(parsed(&["brim; fwd=\"open"]).is_err());
    }
}
