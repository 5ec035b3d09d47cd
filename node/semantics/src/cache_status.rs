//! `Cache-Status`: how this cache handled a request, for people and tools (RFC 9211).
//!
//! Always true:
//! - A member is a valid structured field item (RFC 9651) whatever key and detail hold: what a string cannot hold is replaced.
//! - `hit` and `fwd` exclude each other; what says how a request was forwarded (`fwd-status`, `stored`, `collapsed`) is
//!   written only with `fwd`.
//! - This cache's member comes after those that were received, which are nearer to the origin (§2).
//!
//! Not here: whether clients get to see it (`brim-node`).

use std::borrow::Cow;
use std::fmt::{self, Write};

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// More of a key or a detail is left out.
const TEXT_CHARS_MAX: usize = 512;

static CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Why a request went forward (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ForwardReason {
    /// The cache was configured not to handle it.
    Bypass,
    /// Its method is always forwarded.
    Method,
    /// Nothing is stored for its URI.
    UriMiss,
    /// What is stored for its URI does not match its fields.
    VaryMiss,
    /// Nothing that is stored matches, for another reason or for one not told apart.
    Miss,
    /// What is stored could be used, but the client asked for more.
    Request,
    /// What is stored is stale.
    Stale,
    /// What is stored holds only a part of what is asked for.
    Partial,
}

impl ForwardReason {
    /// The token of RFC 9211 §2.2.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handling {
    Hit,
    Forward(ForwardReason),
    Refused,
}

/// One member of `Cache-Status`: `CacheStatus::forward(ForwardReason::UriMiss).fwd_status(status).stored().value()`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct CacheStatus<'a> {
    handling: Handling,
    fwd_status: Option<StatusCode>,
    ttl: Option<i64>,
    stored: bool,
    collapsed: bool,
    key: Option<Cow<'a, str>>,
    detail: Option<Cow<'a, str>>,
}

impl<'a> CacheStatus<'a> {
    /// How this cache names itself.
    pub const NAME: &'static str = "brim";

    /// The request was answered from a stored response, without waiting for the origin.
    pub fn hit() -> Self {
        let handling = Handling::Hit;
        Self { handling, fwd_status: None, ttl: None, stored: false, collapsed: false, key: None, detail: None }
    }

    /// This cache answered by itself: neither from the store nor from the origin.
    pub fn refused() -> Self {
        Self { handling: Handling::Refused, ..Self::hit() }
    }

    /// The request went forward, or waited for one that did.
    pub fn forward(reason: ForwardReason) -> Self {
        Self { handling: Handling::Forward(reason), ..Self::hit() }
    }

    /// What the origin answered; for a validation 304, though the client gets a 200.
    pub fn fwd_status(mut self, status: StatusCode) -> Self {
        self.fwd_status = Some(status);
        self
    }

    /// What is left of the lifetime; negative where the response is stale.
    pub fn ttl(mut self, seconds: i64) -> Self {
        self.ttl = Some(seconds);
        self
    }

    /// The response was stored.
    pub fn stored(mut self) -> Self {
        self.stored = true;
        self
    }

    /// The request shared another one's forward request.
    pub fn collapsed(mut self) -> Self {
        self.collapsed = true;
        self
    }

    /// The cache key, for whoever may see it.
    pub fn key(mut self, key: impl Into<Cow<'a, str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The reason in this cache's own words.
    pub fn detail(mut self, detail: impl Into<Cow<'a, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The member as a field line of its own. A plain hit costs no allocation, the other short ones a single one.
    pub fn value(&self) -> HeaderValue {
        if *self == Self::hit() {
            return HeaderValue::from_static("brim; hit");
        }
        let mut short = Short { bytes: [0; SHORT_BYTES], length: 0 };
        let value = match self.write_to(&mut short) {
            Ok(()) => HeaderValue::from_bytes(&short.bytes[..short.length]),
            Err(fmt::Error) => {
                let mut long = String::with_capacity(SHORT_BYTES * 4);
                // A `String` takes everything.
                let _ = self.write_to(&mut long);
                HeaderValue::from_bytes(long.as_bytes())
            }
        };
        value.unwrap_or_else(|_| unreachable!("a structured field is visible ASCII and spaces"))
    }

    /// Appends the member behind those that the response was received with.
    pub fn append_to(&self, headers: &mut HeaderMap) {
        headers.append(CACHE_STATUS.clone(), self.value());
    }

    fn write_to(&self, out: &mut impl Write) -> fmt::Result {
        out.write_str(Self::NAME)?;
        match self.handling {
            Handling::Hit => out.write_str("; hit")?,
            Handling::Refused => {}
            Handling::Forward(reason) => {
                write!(out, "; fwd={}", reason.as_str())?;
                if let Some(status) = self.fwd_status {
                    write!(out, "; fwd-status={}", status.as_u16())?;
                }
            }
        }
        if let Some(ttl) = self.ttl {
            write!(out, "; ttl={}", ttl.clamp(-INTEGER_MAX, INTEGER_MAX))?;
        }
        if matches!(self.handling, Handling::Forward(_)) {
            if self.stored {
                out.write_str("; stored")?;
            }
            if self.collapsed {
                out.write_str("; collapsed")?;
            }
        }
        if let Some(key) = &self.key {
            out.write_str("; key=")?;
            write_string(out, key)?;
        }
        if let Some(detail) = &self.detail {
            out.write_str("; detail=")?;
            if sfv::TokenRef::from_str(detail).is_ok() && detail.len() <= TEXT_CHARS_MAX {
                out.write_str(detail)?;
            } else {
                write_string(out, detail)?;
            }
        }
        Ok(())
    }
}

/// RFC 9651 §3.3.1.
const INTEGER_MAX: i64 = 999_999_999_999_999;

/// A string (RFC 9651 §3.3.3): visible ASCII and spaces; anything else becomes a question mark.
fn write_string(out: &mut impl Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for letter in text.chars().take(TEXT_CHARS_MAX) {
        match letter {
            '"' | '\\' => {
                out.write_char('\\')?;
                out.write_char(letter)?;
            }
            ' '..='~' => out.write_char(letter)?,
            _ => out.write_char('?')?,
        }
    }
    out.write_char('"')
}

/// Enough for every member without a key or a long detail.
const SHORT_BYTES: usize = 96;

/// A buffer on the stack; writing past its end is an error.
struct Short {
    bytes: [u8; SHORT_BYTES],
    length: usize,
}

impl Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sfv::{BareItem, Item, Parser};

    use super::*;

    /// RFC 9211 §2.
    #[test]
    fn members_are_written_as_the_examples_are() {
        use ForwardReason::{Bypass, Method, Miss, Partial, Request, Stale, UriMiss, VaryMiss};
        let forward = CacheStatus::forward;
        let cases = [
            (CacheStatus::hit(), "brim; hit"),
            (CacheStatus::hit().ttl(376), "brim; hit; ttl=376"),
            (
                CacheStatus::hit().ttl(-412).detail("stale-while-revalidate"),
                "brim; hit; ttl=-412; detail=stale-while-revalidate",
            ),
            (forward(UriMiss).fwd_status(StatusCode::OK).stored(), "brim; fwd=uri-miss; fwd-status=200; stored"),
            (forward(VaryMiss).collapsed(), "brim; fwd=vary-miss; collapsed"),
            (
                forward(Stale).fwd_status(StatusCode::NOT_MODIFIED).ttl(60).stored().collapsed(),
                "brim; fwd=stale; fwd-status=304; ttl=60; stored; collapsed",
            ),
            (forward(Bypass).detail("plugin: deadline"), "brim; fwd=bypass; detail=\"plugin: deadline\""),
            (forward(Miss).key("https://a/\"b\"\\\u{e4}\n"), "brim; fwd=miss; key=\"https://a/\\\"b\\\"\\\\??\""),
            (forward(Method), "brim; fwd=method"),
            (forward(Request).detail(""), "brim; fwd=request; detail=\"\""),
            (forward(Partial).ttl(i64::MIN), "brim; fwd=partial; ttl=-999999999999999"),
            (CacheStatus::hit().stored().collapsed().fwd_status(StatusCode::OK).ttl(1), "brim; hit; ttl=1"),
            (
                CacheStatus::refused().stored().collapsed().fwd_status(StatusCode::OK).detail("loop"),
                "brim; detail=loop",
            ),
            (CacheStatus::hit().detail("1st"), "brim; hit; detail=\"1st\""),
            (CacheStatus::hit().detail("*a/b:c"), "brim; hit; detail=*a/b:c"),
            (CacheStatus::hit().detail("a\"b\\c"), "brim; hit; detail=\"a\\\"b\\\\c\""),
            (CacheStatus::hit().detail("gr\u{fc}n\r\n\u{0}"), "brim; hit; detail=\"gr?n???\""),
            (CacheStatus::hit().ttl(1_000_000_000_000_000), "brim; hit; ttl=999999999999999"),
        ];
        for (status, expected) in cases {
            assert_eq!(status.value(), expected);
        }
    }

    /// RFC 9211 §2: the member of the cache nearest to the client comes last.
    #[test]
    fn a_member_comes_after_those_received() {
        let mut headers = HeaderMap::new();
        headers.append("cache-status", HeaderValue::from_static("OriginCache; hit"));
        CacheStatus::forward(ForwardReason::UriMiss).append_to(&mut headers);
        let lines: Vec<_> = headers.get_all("cache-status").iter().collect();
        assert_eq!(lines, ["OriginCache; hit", "brim; fwd=uri-miss"]);
    }

    #[test]
    fn a_long_text_is_cut() {
        let long = "x".repeat(TEXT_CHARS_MAX * 2);
        let value = CacheStatus::hit().key(long.clone()).detail(long).value();
        assert!(value.len() < TEXT_CHARS_MAX * 2 + SHORT_BYTES);
        Parser::new(value.as_bytes()).parse::<Item>().unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_member_is_a_structured_field(key in ".{0,80}", detail in ".{0,80}", ttl in any::<i64>()) {
            let value = CacheStatus::forward(ForwardReason::Stale).ttl(ttl).stored().key(key.as_str()).detail(detail.as_str()).value();
            let item: Item = Parser::new(value.as_bytes()).parse().unwrap();
            prop_assert_eq!(item.bare_item.as_token().map(|token| token.as_str()), Some(CacheStatus::NAME));
            prop_assert_eq!(item.params.get("fwd").and_then(BareItem::as_token).map(|token| token.as_str()), Some("stale"));
            prop_assert_eq!(item.params.get("stored"), Some(&BareItem::Boolean(true)));
            if key.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
                prop_assert_eq!(item.params.get("key").and_then(BareItem::as_string).map(|text| text.as_str()), Some(key.as_str()));
            }
        }
    }
}
