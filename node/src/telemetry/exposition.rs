//! The text format of Prometheus, version 0.0.4, gathered from all who have something to say.
//!
//! Always true:
//! - Families come in the order of their table, each with its help and kind, their samples together.
//! - Label values are escaped; there are as many as the family has labels.

use std::fmt::{self, Write as _};

use super::families::{Family, Kind};

/// The `Content-Type` of what [`Scrape::finish`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The samples of one scrape.
#[derive(Debug)]
pub struct Scrape {
    /// The lines of each family, by its place in [`Family::ALL`].
    lines: Vec<String>,
}

/// The value of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// Counts and bytes.
    Whole(u64),
    /// Seconds and shares.
    Real(f64),
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}
impl From<u32> for Number {
    fn from(number: u32) -> Self {
        Self::Whole(u64::from(number))
    }
}
impl From<usize> for Number {
    fn from(number: usize) -> Self {
        Self::Whole(u64::try_from(number).unwrap_or(u64::MAX))
    }
}
impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}
impl From<std::time::Duration> for Number {
    fn from(duration: std::time::Duration) -> Self {
        Self::Real(duration.as_secs_f64())
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => write!(f, "{number}"),
            Self::Real(number) if number.is_infinite() => f.write_str(if *number > 0.0 { "+Inf" } else { "-Inf" }),
            Self::Real(number) => write!(f, "{number}"),
        }
    }
}

impl Scrape {
    pub(super) fn new() -> Self {
        Self { lines: vec![String::new(); Family::ALL.len()] }
    }

    /// One sample of a counter or gauge; the labels in the order of [`Family::labels`]. A series is set once a scrape.
    pub fn set(&mut self, family: Family, labels: &[&str], value: impl Into<Number>) {
        debug_assert!(family.kind() != Kind::Histogram, "{}: use histogram()", family.name());
        self.line(family, "", labels, None, value.into());
    }

    /// A whole histogram: upper bounds ascending, how many fell into each bucket (not cumulative, one more than there are
    /// bounds), and the sum of all values.
    pub fn histogram(&mut self, family: Family, labels: &[&str], bounds: &[f64], buckets: &[u64], sum: f64) {
        debug_assert!(family.kind() == Kind::Histogram, "{}: use set()", family.name());
        debug_assert_eq!(buckets.len(), bounds.len() + 1, "{}: one bucket has no bound", family.name());
        let mut count = 0_u64;
        for (bound, bucket) in bounds.iter().copied().chain([f64::INFINITY]).zip(buckets) {
            count = count.saturating_add(*bucket);
            self.line(family, "_bucket", labels, Some(bound), Number::Whole(count));
        }
        self.line(family, "_sum", labels, None, Number::Real(sum));
        self.line(family, "_count", labels, None, Number::Whole(count));
    }

    /// The text of the whole.
    pub fn finish(self) -> String {
        let mut text =
            String::with_capacity(self.lines.iter().map(String::len).sum::<usize>() + 100 * Family::ALL.len());
        for (family, lines) in Family::ALL.iter().zip(self.lines) {
            let (name, help) = (family.name(), family.help());
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", family.kind().as_str());
            text.push_str(&lines);
        }
        text
    }

    fn line(&mut self, family: Family, suffix: &str, labels: &[&str], bound: Option<f64>, value: Number) {
        debug_assert_eq!(labels.len(), family.labels().len(), "{}: a value for every label", family.name());
        let line = &mut self.lines[family as usize];
        let _ = write!(line, "{}{suffix}", family.name());
        let mut separator = '{';
        for (label, value) in family.labels().iter().zip(labels) {
            let _ = write!(line, "{separator}{label}=\"{}\"", Escaped(value));
            separator = ',';
        }
        if let Some(bound) = bound {
            let _ = write!(line, "{separator}le=\"{}\"", Number::Real(bound));
            separator = ',';
        }
        let _ = writeln!(line, "{} {value}", if separator == ',' { "}" } else { "" });
    }
}

/// A label's value: backslash, quote and line feed are escaped.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(text: &str, family: Family) -> Vec<&str> {
        text.lines().filter(|line| line.starts_with(family.name())).collect()
    }

    #[test]
    fn every_family_has_help_and_kind_even_without_samples() {
        let text = Scrape::new().finish();
        assert_eq!(text.lines().count(), 2 * Family::ALL.len());
        assert!(text.starts_with(
            "# HELP brim_info Always 1; the version of the node is in the label.\n# TYPE brim_info gauge\n"
        ));
    }

    #[test]
    fn label_values_are_escaped() {
        let mut scrape = Scrape::new();
        scrape.set(Family::CacheHits, &["a\"b\\c\nd"], 1_u64);
        assert_eq!(
            lines_of(&scrape.finish(), Family::CacheHits),
            ["brim_cache_hits_total{site=\"a\\\"b\\\\c\\nd\"} 1"]
        );
    }

    #[test]
    fn numbers_are_written_as_prometheus_reads_them() {
        let table = [
            (Number::from(3_u64), "3"),
            (Number::from(7_u32), "7"),
            (Number::from(0.25), "0.25"),
            (Number::from(std::time::Duration::from_micros(1)), "0.000001"),
            (Number::from(f64::INFINITY), "+Inf"),
            (Number::from(f64::NAN), "NaN"),
        ];
        for (number, text) in table {
            assert_eq!(number.to_string(), text);
        }
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_with_its_count() {
        let mut scrape = Scrape::new();
        scrape.histogram(Family::OriginWait, &["api", "a:80"], &[0.001, 5.0], &[2, 1, 4], 21.5);
        let text = scrape.finish();
        let expected = [
            "brim_origin_wait_seconds_bucket{origin=\"api\",endpoint=\"a:80\",le=\"0.001\"} 2",
            "brim_origin_wait_seconds_bucket{origin=\"api\",endpoint=\"a:80\",le=\"5\"} 3",
            "brim_origin_wait_seconds_bucket{origin=\"api\",endpoint=\"a:80\",le=\"+Inf\"} 7",
            "brim_origin_wait_seconds_sum{origin=\"api\",endpoint=\"a:80\"} 21.5",
            "brim_origin_wait_seconds_count{origin=\"api\",endpoint=\"a:80\"} 7",
        ];
        assert_eq!(lines_of(&text, Family::OriginWait), expected);
        let mut scrape = Scrape::new();
        scrape.histogram(Family::ForwardDuration, &[], &[1.0], &[1, 0], 0.5);
        assert_eq!(
            lines_of(&scrape.finish(), Family::ForwardDuration)[0],
            "brim_forward_duration_seconds_bucket{le=\"1\"} 1"
        );
    }
}
