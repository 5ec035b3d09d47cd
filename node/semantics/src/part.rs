//! Partial responses: what a 206 holds of a representation, and what may be put together (RFC 9110 §14.4, §15.3.7, RFC 9111
//! §3.3, §3.4).
//!
//! Always true:
//! - A part is one run of bytes, within a representation whose length is known. `multipart/byteranges`, an unknown complete
//!   length (`/*`) and a length that contradicts `Content-Length` are no part.
//! - Parts are put together only where both have the same strong validator.
//!
//! Not here: which ranges a client asks for (`range`), where parts are kept (`brim-store`).

use std::ops::Range;
use std::time::Duration;

use http::StatusCode;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap, HeaderValue, LAST_MODIFIED,
};
use serde::{Deserialize, Serialize};

use crate::fields::{http_date, only_line, trim_ows};
use crate::validation::strongly_equal;

/// What a 206 holds of the representation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Part {
    /// The position of its first byte.
    pub start: u64,
    /// Behind its last byte.
    pub end: u64,
    /// The length of the whole representation, in bytes.
    pub complete_length: u64,
}

impl Part {
    /// The part that a response holds: a 206 with exactly one `Content-Range: bytes first-last/complete` (RFC 9110 §14.4) that
    /// `Content-Length`, where there is one, agrees with.
    pub fn of_response(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        if status != StatusCode::PARTIAL_CONTENT {
            return None;
        }
        let part = Self::of_content_range(only_line(headers, &CONTENT_RANGE)?)?;
        let length = match only_line(headers, &CONTENT_LENGTH) {
            Some(length) => number(length.to_str().ok()?)?,
            None if headers.contains_key(CONTENT_LENGTH) => return None,
            None => part.len(),
        };
        (length == part.len()).then_some(part)
    }

    fn of_content_range(line: &HeaderValue) -> Option<Self> {
        let text = str::from_utf8(trim_ows(line.as_bytes())).ok()?;
        let (unit, rest) = text.split_once(' ')?;
        let (range, complete) = rest.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let [first, last, complete_length] = [number(first)?, number(last)?, number(complete)?];
        let is_valid = unit.eq_ignore_ascii_case("bytes") && first <= last && last < complete_length;
        is_valid.then(|| Self { start: first, end: last + 1, complete_length })
    }

    /// Its length in bytes, never 0.
    #[expect(clippy::len_without_is_empty, reason = "a part holds at least one byte")]
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// The positions of its bytes.
    pub fn range(&self) -> Range<u64> {
        self.start..self.end
    }

    /// Whether all of `range` lies in it.
    pub fn covers(&self, range: &Range<u64>) -> bool {
        self.start <= range.start && range.end <= self.end
    }
}

/// Digits that fit; anything else is no number (RFC 9110 §14.4: such a `Content-Range` is invalid).
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { digits.parse().ok() } else { None }
}

/// The validator by which parts of the response may be put together with others, and which `If-Range` may name: a strong entity
/// tag, else a `Last-Modified` that is strong because it is at least a second older than `Date` (RFC 9110 §8.8.2.2, §13.1.5).
pub fn strong_validator(headers: &HeaderMap) -> Option<&HeaderValue> {
    if headers.contains_key(ETAG) {
        return only_line(headers, &ETAG).filter(|tag| strongly_equal(tag.as_bytes(), tag.as_bytes()));
    }
    let modified = only_line(headers, &LAST_MODIFIED)?;
    let date = only_line(headers, &DATE).and_then(http_date)?;
    (date >= http_date(modified)? + Duration::from_secs(1)).then_some(modified)
}

/// Whether two responses to the same request are parts of the same representation: they share a strong validator (RFC 9111 §3.4).
pub fn has_same_strong_validator(left: &HeaderMap, right: &HeaderMap) -> bool {
    let is_tag = |headers: &HeaderMap| headers.contains_key(ETAG);
    match (strong_validator(left), strong_validator(right)) {
        // Some origins give all codings of a content one tag.
        (Some(one), Some(other)) => {
            is_tag(left) == is_tag(right) && one == other && left.get(CONTENT_ENCODING) == right.get(CONTENT_ENCODING)
        }
        _ => false,
    }
}

/// What parts lack of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Missing {
    /// Nothing.
    Nothing,
    /// One run of bytes, smaller than the range.
    One(Range<u64>),
    /// Several runs, or all of it.
    Much,
}

/// Reckons what of `wanted` none of `parts` holds.
pub fn missing(parts: impl IntoIterator<Item = Range<u64>>, wanted: &Range<u64>) -> Missing {
    let mut parts: Vec<_> =
        parts.into_iter().filter(|part| part.start < wanted.end && wanted.start < part.end).collect();
    if parts.is_empty() && !wanted.is_empty() {
        return Missing::Much;
    }
    parts.sort_by_key(|part| part.start);
    let mut gaps = Vec::new();
    let mut reached = wanted.start;
    for part in parts {
        if reached < part.start {
            gaps.push(reached..part.start);
        }
        reached = reached.max(part.end);
    }
    if reached < wanted.end {
        gaps.push(reached..wanted.end);
    }
    match &gaps[..] {
        [] => Missing::Nothing,
        [only] => Missing::One(only.clone()),
        _ => Missing::Much,
    }
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

    fn of(lines: &[(&str, &str)]) -> Option<(u64, u64, u64)> {
        Part::of_response(StatusCode::PARTIAL_CONTENT, &headers(lines))
            .map(|part| (part.start, part.end, part.complete_length))
    }

    /// RFC 9110 §14.4.
    #[test]
    fn a_part_is_what_content_range_says() {
        let cases = [
            ("bytes 0-4/10", Some((0, 5, 10))),
            ("Bytes 9-9/10", Some((9, 10, 10))),
            ("bytes 0-9/10", Some((0, 10, 10))),
            ("bytes 0-10/10", None),
            ("bytes 5-4/10", None),
            ("bytes 0-4/*", None),
            ("bytes */10", None),
            ("bytes 0-4", None),
            ("bytes=0-4/10", None),
            ("bytes  0-4/10", None),
            ("bytes 0 -4/10", None),
            ("bytes +0-4/10", None),
            ("items 0-4/10", None),
            ("bytes 0-99999999999999999999/999999999999999999999", None),
            ("", None),
        ];
        for (content_range, expected) in cases {
            assert_eq!(of(&[("content-range", content_range)]), expected, "{content_range}");
        }
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("content-range", "bytes 0-4/10"), ("content-range", "bytes 0-4/10")]), None);
        let complete = headers(&[("content-range", "bytes 0-4/10")]);
        assert_eq!(Part::of_response(StatusCode::OK, &complete), None);
    }

    /// A 206 that contradicts itself is not to be believed.
    #[test]
    fn a_part_with_another_length_than_its_content_is_none() {
        let range = ("content-range", "bytes 4-9/10");
        assert_eq!(of(&[range, ("content-length", "6")]), Some((4, 10, 10)));
        for length in ["5", "7", "10", "x", "+6", ""] {
            assert_eq!(of(&[range, ("content-length", length)]), None, "{length}");
        }
    }

    /// RFC 9110 §8.8.1, §8.8.2.2.
    #[test]
    fn only_strong_validators_join_parts() {
        let (modified, date) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:38 GMT");
        let same = |left: &[(&str, &str)], right: &[(&str, &str)]| {
            let [left, right] = [headers(left), headers(right)];
            assert_eq!(has_same_strong_validator(&left, &right), has_same_strong_validator(&right, &left));
            has_same_strong_validator(&left, &right)
        };
        assert!(same(&[("etag", "\"a\"")], &[("etag", "\"a\"")]));
        assert!(!same(&[("etag", "\"a\"")], &[("etag", "\"b\"")]));
        assert!(!same(&[("etag", "\"a\"")], &[("etag", "\"a\""), ("content-encoding", "gzip")]));
        assert!(!same(&[("etag", "W/\"a\"")], &[("etag", "W/\"a\"")]));
        assert!(!same(&[], &[]));
        assert!(same(&[("last-modified", modified), ("date", date)], &[("last-modified", modified), ("date", date)]));
        assert!(!same(
            &[("last-modified", modified), ("date", modified)],
            &[("last-modified", modified), ("date", date)]
        ));
        let both = [("etag", "W/\"a\""), ("last-modified", modified), ("date", date)];
        assert!(!same(&both, &both), "a weak tag says that the date may not be enough");
        assert!(!same(&[("etag", "\"a\"")], &[("last-modified", modified), ("date", date)]));
    }

    #[test]
    fn what_is_missing_is_one_run_or_too_much() {
        let wanted = 10..20;
        let one = |start: u64, end: u64| vec![Range { start, end }];
        let cases = [
            (vec![], Missing::Much),
            (vec![0..10, 20..30], Missing::Much),
            (one(0, 30), Missing::Nothing),
            (vec![0..15, 15..20], Missing::Nothing),
            (vec![15..20, 5..16], Missing::Nothing),
            (one(0, 12), Missing::One(12..20)),
            (one(18, 40), Missing::One(10..18)),
            (vec![18..40, 0..12], Missing::One(12..18)),
            (one(12, 14), Missing::Much),
        ];
        for (parts, expected) in cases {
            assert_eq!(missing(parts.clone(), &wanted), expected, "{parts:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Against the set of positions.
        #[test]
        fn missing_agrees_with_counting(parts in prop::collection::vec((0_u64..40, 1_u64..12), 0..6), start in 0_u64..40, length in 1_u64..20) {
            let wanted = start..start + length;
            let parts: Vec<_> = parts.into_iter().map(|(start, length)| start..start + length).collect();
            let lacking: Vec<u64> = wanted.clone().filter(|at| !parts.iter().any(|part| part.contains(at))).collect();
            match missing(parts, &wanted) {
                Missing::Nothing => prop_assert!(lacking.is_empty()),
                Missing::One(gap) => prop_assert_eq!(gap.collect::<Vec<_>>(), lacking),
                Missing::Much => {
                    let is_torn = lacking.windows(2).any(|pair| pair[1] != pair[0] + 1);
                    prop_assert!(is_torn || lacking.len() as u64 == length);
                }
            }
        }

        #[test]
        fn no_content_range_panics(text in "[ -~]{0,40}") {
            let _ = of(&[("content-range", text.as_str())]);
        }
    }
}
