//! Byte ranges of a complete stored response (RFC 9110 §14, §13.1.5).
//!
//! Always true:
//! - Every range that is answered is non-empty and lies within the content; no two of them overlap or touch, so that no request
//!   makes the answer larger than the content (and one header per range).
//! - A `Range` that is malformed, in another unit, or for another method than GET, is as if it were absent (§14.2).
//! - `If-Range` compares strongly; where it does not hold, the whole content is the answer.
//!
//! Not here: sending the ranges (`brim-node`), partial responses from the origin (`part`).

use std::ops::Range;
use std::time::Duration;

use http::header::{DATE, ETAG, HeaderMap, HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE};
use http::{Method, StatusCode};

use crate::fields::{http_date, list_members, only_line, trim_ows};
use crate::validation::strongly_equal;

/// A request for more ranges is answered with the whole content (RFC 9110 §14.2 allows to ignore such a request).
pub const RANGES_MAX: usize = 16;

/// Ranges that lie closer together are sent as one: less than the header of a part costs (§15.3.7.2).
const GAP_BYTES_MAX: u64 = 80;

/// What part of a complete stored response answers a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum RangeDecision {
    /// The whole response, with its own status.
    Whole,
    /// 206 with [`content_range`].
    One(Range<u64>),
    /// 206 with `multipart/byteranges`; at least two, in ascending order where some were merged, else as asked for.
    Many(Vec<Range<u64>>),
    /// 416 with [`unsatisfied_content_range`].
    Unsatisfiable,
}

/// Decides what part of `length` bytes answers a request whose preconditions have been found to hold.
pub fn ranges(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    stored_headers: &HeaderMap,
    length: u64,
) -> RangeDecision {
    if *method != Method::GET || status != StatusCode::OK {
        return RangeDecision::Whole;
    }
    let Some(asked) = only_line(request, &RANGE) else { return RangeDecision::Whole };
    if request.contains_key(IF_RANGE) && !if_range_holds(request, stored_headers) {
        return RangeDecision::Whole;
    }
    let Some(specs) = parse(asked) else { return RangeDecision::Whole };
    let satisfied: Vec<_> = specs.iter().filter_map(|spec| spec.within(length)).collect();
    match &merged(satisfied)[..] {
        // Of no bytes any suffix is all there is, and has no `Content-Range` to be written with.
        [] if length == 0 && specs.iter().any(|spec| matches!(spec, Spec::Suffix(1..))) => RangeDecision::Whole,
        [] => RangeDecision::Unsatisfiable,
        [only] => RangeDecision::One(only.clone()),
        many => RangeDecision::Many(many.to_vec()),
    }
}

/// Whether a request asks for ranges in a way that [`ranges`] would heed, whatever the length.
pub fn asks_for_ranges(request: &HeaderMap) -> bool {
    only_line(request, &RANGE).is_some_and(|line| parse(line).is_some())
}

/// `Content-Range` of a 206, or of one of its parts (RFC 9110 §14.4).
pub fn content_range(range: &Range<u64>, length: u64) -> HeaderValue {
    debug_assert!(!range.is_empty() && range.end <= length, "only what `ranges` decided is answered");
    written(format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1)))
}

/// `Content-Range` of a 416 (RFC 9110 §15.5.17).
pub fn unsatisfied_content_range(length: u64) -> HeaderValue {
    written(format!("bytes */{length}"))
}

fn written(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| unreachable!("digits and punctuation are visible ASCII"))
}

/// A member of `Range` (RFC 9110 §14.1.2), positions inclusive as they are written.
enum Spec {
    From(u64),
    FromTo(u64, u64),
    Suffix(u64),
}

impl Spec {
    fn of_member(member: &[u8]) -> Option<Self> {
        let dash = member.iter().position(|byte| *byte == b'-')?;
        match (&member[..dash], &member[dash + 1..]) {
            ([], last) => Some(Self::Suffix(position(last)?)),
            (first, []) => Some(Self::From(position(first)?)),
            (first, last) => {
                let (first, last) = (position(first)?, position(last)?);
                (first <= last).then_some(Self::FromTo(first, last))
            }
        }
    }

    /// What there is of it; `None` where nothing is.
    fn within(&self, length: u64) -> Option<Range<u64>> {
        let range = match *self {
            Self::From(first) => first..length,
            Self::FromTo(first, last) => first..length.min(last.saturating_add(1)),
            Self::Suffix(count) => length.saturating_sub(count)..length,
        };
        (range.start < range.end).then_some(range)
    }
}

/// Digits; more than fit count as the largest number there is.
fn position(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let add = |number: u64, digit: &u8| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    is_number.then(|| digits.iter().fold(0, add))
}

/// `None` where the field is to be ignored: another unit, malformed, or too many ranges.
fn parse(line: &HeaderValue) -> Option<Vec<Spec>> {
    let text = line.as_bytes();
    let equals = text.iter().position(|byte| *byte == b'=')?;
    if !text[..equals].eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let set = HeaderValue::from_bytes(&text[equals + 1..]).ok()?;
    let mut specs = Vec::new();
    for member in list_members([&set]) {
        if specs.len() == RANGES_MAX {
            return None;
        }
        specs.push(Spec::of_member(trim_ows(member))?);
    }
    (!specs.is_empty()).then_some(specs)
}

/// In the order asked for, unless some overlap or lie close together: then merged, and in ascending order.
fn merged(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted = ranges.clone();
    sorted.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(GAP_BYTES_MAX) => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    if merged.len() == ranges.len() { ranges } else { merged }
}

/// RFC 9110 §13.1.5: an entity tag by strong comparison, or exactly the stored `Last-Modified` where that is a strong validator
/// (§8.8.2.2: at least a second older than the response).
fn if_range_holds(request: &HeaderMap, stored_headers: &HeaderMap) -> bool {
    let Some(condition) = only_line(request, &IF_RANGE) else { return false };
    let is_date = !condition.as_bytes().contains(&b'"');
    if is_date {
        let stored = |name| only_line(stored_headers, name).and_then(http_date);
        let (Some(asked), Some(modified), Some(date)) = (http_date(condition), stored(&LAST_MODIFIED), stored(&DATE))
        else {
            return false;
        };
        return asked == modified && date >= modified + Duration::from_secs(1);
    }
    only_line(stored_headers, &ETAG).is_some_and(|tag| strongly_equal(condition.as_bytes(), tag.as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn of_thousand(range: &str) -> RangeDecision {
        ranges(&Method::GET, &headers(&[("range", range)]), StatusCode::OK, &HeaderMap::new(), 1000)
    }

    /// RFC 9110 §14.1.2.
    #[test]
    fn one_range_is_cut_to_the_content() {
        use RangeDecision::{One, Unsatisfiable, Whole};
        let cases = [
            ("bytes=0-99", One(0..100)),
            ("bytes=0-0", One(0..1)),
            ("bytes=999-999", One(999..1000)),
            ("Bytes=100-", One(100..1000)),
            ("bytes=0-", One(0..1000)),
            ("bytes=900-5000", One(900..1000)),
            ("bytes=0-99999999999999999999999", One(0..1000)),
            ("bytes=-100", One(900..1000)),
            ("bytes=-5000", One(0..1000)),
            ("bytes= 0-99 , ", One(0..100)),
            ("bytes=1000-", Unsatisfiable),
            ("bytes=5000-6000", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=5-4", Whole),
            ("bytes=a-b", Whole),
            ("bytes=0-9, x", Whole),
            ("bytes=--5", Whole),
            ("bytes=-", Whole),
            ("bytes=", Whole),
            ("bytes", Whole),
            ("bytes 0-9", Whole),
            ("items=0-9", Whole),
            ("bytes=0 -9", Whole),
            ("bytes=+0-9", Whole),
        ];
        for (range, expected) in cases {
            assert_eq!(of_thousand(range), expected, "{range}");
        }
    }

    #[test]
    fn only_well_formed_ranges_are_asked_for() {
        for (range, expected) in
            [("bytes=0-9", true), ("bytes=-5, 0-3", true), ("bytes=5-4", false), ("items=0-9", false)]
        {
            assert_eq!(asks_for_ranges(&headers(&[("range", range)])), expected, "{range}");
        }
        assert!(!asks_for_ranges(&HeaderMap::new()));
    }

    /// RFC 9110 §14.2, §15.3.7.2, and attack A25: ranges that overlap or touch are one, and there is a limit.
    #[test]
    fn many_ranges_are_merged_and_limited() {
        use RangeDecision::{Many, One, Whole};
        let cases = [
            ("bytes=0-9,500-509", Many(vec![0..10, 500..510])),
            ("bytes=500-509,0-9", Many(vec![500..510, 0..10])),
            ("bytes=0-9,2000-", One(0..10)),
            ("bytes=0-99,50-149", One(0..150)),
            ("bytes=0-9,10-19", One(0..20)),
            ("bytes=0-9,40-49", One(0..50)),
            ("bytes=500-,0-9,-100", Many(vec![0..10, 500..1000])),
            ("bytes=0-,0-,0-,0-", One(0..1000)),
        ];
        for (range, expected) in cases {
            assert_eq!(of_thousand(range), expected, "{range}");
        }
        let many = |count: usize| format!("bytes={}", vec!["0-0"; count].join(","));
        assert_eq!(of_thousand(&many(RANGES_MAX)), One(0..1));
        assert_eq!(of_thousand(&many(RANGES_MAX + 1)), Whole);
    }

    #[test]
    fn only_a_get_of_a_200_has_ranges() {
        let request = headers(&[("range", "bytes=0-9")]);
        let decide = |method, status| ranges(&method, &request, status, &HeaderMap::new(), 1000);
        assert_eq!(decide(Method::HEAD, StatusCode::OK), RangeDecision::Whole);
        assert_eq!(decide(Method::GET, StatusCode::NOT_FOUND), RangeDecision::Whole);
        let twice = headers(&[("range", "bytes=0-9"), ("range", "bytes=0-9")]);
        assert_eq!(ranges(&Method::GET, &twice, StatusCode::OK, &HeaderMap::new(), 1000), RangeDecision::Whole);
        let empty = |range| ranges(&Method::GET, &headers(&[("range", range)]), StatusCode::OK, &HeaderMap::new(), 0);
        assert_eq!(empty("bytes=0-"), RangeDecision::Unsatisfiable);
        assert_eq!(empty("bytes=-5"), RangeDecision::Whole);
        assert_eq!(empty("bytes=-0"), RangeDecision::Unsatisfiable);
    }

    /// RFC 9110 §13.1.5, §8.8.2.2.
    #[test]
    fn if_range_compares_strongly() {
        let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
        let decide = |condition: &str, stored: &[(&str, &str)]| {
            let request = headers(&[("range", "bytes=0-9"), ("if-range", condition)]);
            ranges(&Method::GET, &request, StatusCode::OK, &headers(stored), 1000) == RangeDecision::One(0..10)
        };
        let stored = [("etag", "\"a\""), ("last-modified", modified), ("date", "Sun, 06 Nov 1994 08:49:38 GMT")];
        assert!(decide("\"a\"", &stored));
        assert!(!decide("\"b\"", &stored));
        assert!(!decide("W/\"a\"", &stored));
        assert!(!decide("W/\"a\"", &[("etag", "W/\"a\"")]));
        assert!(decide(modified, &stored));
        assert!(!decide("Sun, 06 Nov 1994 08:49:38 GMT", &stored), "exactly, not later");
        assert!(!decide(modified, &[("last-modified", modified), ("date", modified)]), "made in the same second");
        assert!(!decide(modified, &[("last-modified", modified)]));
        assert!(!decide("garbage", &stored));
        assert!(!decide("\"a\"", &[]));
    }

    #[test]
    fn content_range_is_inclusive() {
        assert_eq!(content_range(&(0..100), 1000), "bytes 0-99/1000");
        assert_eq!(unsatisfied_content_range(1000), "bytes */1000");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Whatever is asked for, the parts lie within the content and together are no more than it.
        #[test]
        fn an_answer_is_never_more_than_the_content(set in "[0-9,-]{0,60}", length in 0_u64..2000) {
            let request = headers(&[("range", &format!("bytes={set}"))]);
            let parts = match ranges(&Method::GET, &request, StatusCode::OK, &HeaderMap::new(), length) {
                RangeDecision::Whole | RangeDecision::Unsatisfiable => vec![],
                RangeDecision::One(one) => vec![one],
                RangeDecision::Many(many) => {
                    prop_assert!((2..=RANGES_MAX).contains(&many.len()));
                    many
                }
            };
            prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= length));
            prop_assert!(parts.iter().map(|part| part.end - part.start).sum::<u64>() <= length);
        }
    }
}
