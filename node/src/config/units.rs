//! Quantities with their unit written out: `"500ms"`, `"2s"`, `"1h"`, `"64KiB"`, `"10GiB"`.
//!
//! Always true:
//! - A quantity is one whole number and one unit; there are no fractions and no sums to misread.
//! - Reading back what [`show_duration`] or [`show_bytes`] wrote gives the same value.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const BYTE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A duration such as `"500ms"`; the error says what was expected.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    quantity(text, &DURATION_UNITS).map(Duration::from_millis).ok_or_else(|| {
        format!("\"{text}\" is not a duration: write a whole number and ms, s, m, h or d, such as \"500ms\"")
    })
}

/// A number of bytes such as `"10GiB"`; the error says what was expected.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    quantity(text, &BYTE_UNITS).ok_or_else(|| {
        format!("\"{text}\" is not a size: write a whole number and B, KiB, MiB, GiB or TiB (or kB, MB, GB, TB), such as \"10GiB\"")
    })
}

/// The duration in the largest unit that needs no fraction.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    show(ms, &DURATION_UNITS)
}

/// The size in the largest binary unit that needs no fraction.
pub(super) fn show_bytes(bytes: u64) -> String {
    show(bytes, &BYTE_UNITS[..5])
}

fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show(value: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, factor): &&(&str, u64)| value >= *factor && value.is_multiple_of(*factor);
    let (name, factor) = units.iter().rev().find(fits).unwrap_or(&units[0]);
    format!("{}{name}", value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_whole_number_and_a_unit() {
        let table = [
            ("0ms", Some(0)),
            ("500ms", Some(500)),
            ("2s", Some(2_000)),
            ("2 s", Some(2_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("7d", Some(604_800_000)),
            ("", None),
            ("s", None),
            ("5", None),
            ("1.5s", None),
            ("-1s", None),
            ("+1s", None),
            ("1m30s", None),
            ("1 S", None),
            ("18446744073709551615d", None),
            ("99999999999999999999ms", None),
        ];
        for (text, ms) in table {
            assert_eq!(duration(text).ok(), ms.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn sizes_know_binary_and_decimal_units() {
        let table = [
            ("1B", Some(1)),
            ("64KiB", Some(65_536)),
            ("64kB", Some(64_000)),
            ("512MiB", Some(536_870_912)),
            ("10GiB", Some(10_737_418_240)),
            ("10GB", Some(10_000_000_000)),
            ("1TiB", Some(1_099_511_627_776)),
            ("10G", None),
            ("10gib", None),
            ("10", None),
            ("1.5GiB", None),
            ("99999999999TiB", None),
        ];
        for (text, expected) in table {
            assert_eq!(bytes(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for ms in [0, 1, 500, 1_000, 1_500, 60_000, 90_000, 3_600_000, 86_400_000] {
            let value = Duration::from_millis(ms);
            assert_eq!(duration(&show_duration(value)), Ok(value));
        }
        for value in [0, 1, 1_023, 1 << 10, 1_500, 5 << 30, 1 << 40] {
            assert_eq!(bytes(&show_bytes(value)), Ok(value));
        }
        assert_eq!(show_bytes(10 << 30), "10GiB");
        assert_eq!(show_duration(Duration::from_secs(90)), "90s");
    }
}
