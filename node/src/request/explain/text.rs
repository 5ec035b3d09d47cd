//! How an explanation writes figures, times and other people's words.

use std::time::{Duration, SystemTime};

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE};

/// More of a value is left out; a key's parts are bounded by the key.
pub(super) const VALUE_CHARS_MAX: usize = 512;

/// Seconds with three decimals, for JSON.
pub(super) fn seconds(duration: Duration) -> f64 {
    // 2^31 s in milliseconds are far below 2^53: nothing is lost that is shown.
    duration.as_millis() as f64 / 1000.0
}

/// `0.081 s`, `60 s`, `86400 s (1day)`.
pub(super) fn span(duration: Duration) -> String {
    let exact = format!("{} s", seconds(duration));
    if duration < Duration::from_secs(120) {
        return exact;
    }
    format!("{exact} ({})", humantime::format_duration(Duration::from_secs(duration.as_secs())))
}

/// RFC 3339, whole seconds.
pub(super) fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// A value from outside, as text and cut.
pub(super) fn value(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        None => text.into_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// A value that may be another client's: of what looks like a credential only the length is told.
pub(crate) fn others_value(name: &HeaderName, bytes: &[u8]) -> String {
    const WORDS: [&str; 6] = ["auth", "cookie", "token", "key", "secret", "session"];
    let is_secret = *name == AUTHORIZATION || *name == COOKIE || WORDS.iter().any(|word| name.as_str().contains(word));
    if is_secret { format!("({} bytes, not shown)", bytes.len()) } else { value(bytes) }
}

/// `"de"`, or `absent`.
pub(super) fn quoted(text: Option<&str>) -> String {
    text.map_or_else(|| "absent".to_owned(), |text| format!("\"{text}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_exact_and_long_ones_readable() {
        let spans = [0, 81, 60_000, 119_500, 300_000, 86_400_250].map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(spans, ["0 s", "0.081 s", "60 s", "119.5 s", "300 s (5m)", "86400.25 s (1day)"]);
    }

    #[test]
    fn values_are_cut_and_credentials_of_others_are_not_told() {
        assert_eq!(value(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(value("ä".repeat(VALUE_CHARS_MAX + 1).as_bytes()).chars().count(), VALUE_CHARS_MAX + 1);
        let of = |name: &'static str| others_value(&HeaderName::from_static(name), b"abc");
        assert_eq!(of("accept-language"), "abc");
        for name in ["authorization", "cookie", "x-api-key", "x-session-id", "x-auth-user"] {
            assert_eq!(of(name), "(3 bytes, not shown)", "{name}");
        }
    }
}
