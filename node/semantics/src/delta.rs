//! Delta-seconds (RFC 9111 §1.2.2): a non-negative decimal integer that saturates.

use std::time::Duration;

/// What a larger number of seconds counts as: 2³¹, as §1.2.2 proposes.
pub const DELTA_SECONDS_MAX: u64 = 1 << 31;

/// The longest duration the rules reckon with.
pub(crate) const DELTA_MAX: Duration = Duration::from_secs(DELTA_SECONDS_MAX);

/// Digits only: no sign, no fraction, no white space. Anything else is `None`.
pub(crate) fn delta_seconds(text: &[u8]) -> Option<Duration> {
    if text.is_empty() {
        return None;
    }
    let mut seconds = 0_u64;
    for byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        seconds = (seconds * 10 + u64::from(byte - b'0')).min(DELTA_SECONDS_MAX);
    }
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9111 §1.2.2: digits only, and an overflow counts as 2³¹.
    #[test]
    fn numbers_saturate_and_anything_else_is_invalid() {
        let cases: &[(&str, Option<u64>)] = &[
            ("0", Some(0)),
            ("3600", Some(3600)),
            ("0003600", Some(3600)),
            ("2147483647", Some(2_147_483_647)),
            ("2147483648", Some(DELTA_SECONDS_MAX)),
            ("99999999999999999999999999999", Some(DELTA_SECONDS_MAX)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.0", None),
            ("1 ", None),
            ("1a", None),
            ("0x10", None),
        ];
        for (text, expected) in cases {
            assert_eq!(delta_seconds(text.as_bytes()), expected.map(Duration::from_secs), "{text:?}");
        }
    }
}
