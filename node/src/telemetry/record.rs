//! What is told about one request: the record that the request path fills, and its JSON line.
//!
//! Always true:
//! - The words are those of Cache-Status (RFC 9211) and of the stages.
//! - What did not happen is left out: no `fwd` on a hit, no `key_us` without a key stage.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use brim_semantics::{ForwardReason, KeyHash};
use http::{StatusCode, Version};

use super::json::{Object, decimal};

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// From the store, without asking the origin.
    Hit,
    /// By the origin, for this reason (RFC 9211 §2.2).
    Forward(ForwardReason),
    /// By this node itself: an error, or a refusal.
    Refused,
}

impl Outcome {
    /// The word of the access log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Forward(_) => "forward",
            Self::Refused => "refused",
        }
    }
}

/// How long the stages took; zero for one that the request did not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StageTimes {
    /// Finding site and route.
    pub route: Duration,
    /// Deriving the cache key, plugin included.
    pub key: Duration,
    /// Looking up and deciding on reuse.
    pub lookup: Duration,
    /// Waiting for another request's forward.
    pub collapse: Duration,
    /// From the start of the forward to the head of the origin's response.
    pub forward: Duration,
    /// From the head of the request to the end of the response.
    pub total: Duration,
}

/// What is told about one request.
#[derive(Debug, Clone)]
pub struct AccessRecord<'a> {
    /// When the head of the request had been read.
    pub time: SystemTime,
    /// The client's end of the connection.
    pub client: SocketAddr,
    /// The method as received.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The authority of the target URI.
    pub authority: &'a str,
    /// Path and query as received.
    pub path_and_query: &'a str,
    /// The version of HTTP that the client spoke.
    pub protocol: Version,
    /// The status sent to the client.
    pub status: u16,
    /// How the request was answered.
    pub outcome: Outcome,
    /// The reason, where the outcome alone does not say it; the `detail` of Cache-Status.
    pub detail: Option<&'a str>,
    /// The status that the origin sent, if it was asked.
    pub forward_status: Option<StatusCode>,
    /// The hash of the cache key, once derived.
    pub key: Option<KeyHash>,
    /// Freshness lifetime minus age in seconds, of a response that is in the store.
    pub ttl_s: Option<i64>,
    /// The `Age` that was sent.
    pub age_s: Option<u64>,
    /// The response belongs to another request's fetch.
    pub is_collapsed: bool,
    /// The origin's response was stored, or freshened a stored one.
    pub is_stored: bool,
    /// The response did not reach its end: the client left, or the origin broke off.
    pub is_aborted: bool,
    /// Bytes of the request's content.
    pub received_bytes: u64,
    /// Bytes of the response's content that were sent.
    pub sent_bytes: u64,
    /// How long it all took.
    pub times: StageTimes,
    /// The site's name.
    pub site: Option<&'a str>,
    /// The origin's name, if it was asked.
    pub origin: Option<&'a str>,
    /// The endpoint that answered.
    pub endpoint: Option<&'a str>,
    /// The plugin that shaped the key.
    pub plugin: Option<&'a str>,
    /// How it failed, if it did.
    pub plugin_fault: Option<&'a str>,
}

impl AccessRecord<'_> {
    /// Appends one line. `stamp` belongs to the buffer and saves the work of writing the same second again.
    pub(super) fn write_line(&self, stamp: &mut Stamp, out: &mut Vec<u8>) {
        let mut object = Object::begin(out);
        object.plain("time", |out| stamp.write(self.time, out));
        object.plain("client", |out| write_display(self.client, out));
        object.text("method", self.method);
        object.text("scheme", self.scheme);
        object.text("authority", self.authority);
        object.text("path", self.path_and_query);
        object.text("protocol", protocol(self.protocol));
        object.number("status", u64::from(self.status));
        self.write_outcome(&mut object);
        object.number("received_bytes", self.received_bytes);
        object.number("sent_bytes", self.sent_bytes);
        if self.is_aborted {
            object.flag("aborted", true);
        }
        self.times.write(&mut object);
        object.optional_text("site", self.site);
        object.optional_text("origin", self.origin);
        object.optional_text("endpoint", self.endpoint);
        object.optional_text("plugin", self.plugin);
        object.optional_text("plugin_fault", self.plugin_fault);
        object.end();
        out.push(b'\n');
    }

    fn write_outcome(&self, object: &mut Object<'_>) {
        object.text("outcome", self.outcome.as_str());
        if let Outcome::Forward(reason) = self.outcome {
            object.text("fwd", reason.as_str());
        }
        if let Some(status) = self.forward_status {
            object.number("fwd_status", u64::from(status.as_u16()));
        }
        object.optional_text("detail", self.detail);
        if let Some(KeyHash(hash)) = self.key {
            object.plain("key", |out| hex(&hash, out));
        }
        if let Some(ttl_s) = self.ttl_s {
            object.signed("ttl", ttl_s);
        }
        if let Some(age_s) = self.age_s {
            object.number("age", age_s);
        }
        object.flag("collapsed", self.is_collapsed);
        object.flag("stored", self.is_stored);
    }
}

impl StageTimes {
    fn write(&self, object: &mut Object<'_>) {
        let stages = [
            ("route_us", self.route),
            ("key_us", self.key),
            ("lookup_us", self.lookup),
            ("collapse_us", self.collapse),
            ("forward_us", self.forward),
        ];
        for (name, duration) in stages.into_iter().filter(|(_, duration)| !duration.is_zero()) {
            object.number(name, micros(duration));
        }
        object.number("total_us", micros(self.total));
    }
}

/// The second that was written last, as text: most lines of a busy node share it with their predecessor.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    second: Option<u64>,
    text: Vec<u8>,
}

impl Stamp {
    /// RFC 3339 in UTC with microseconds. A time before 1970 is written as 1970.
    fn write(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            self.text.clear();
            write_display(
                humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(since.as_secs())),
                &mut self.text,
            );
            // The Z comes after the fraction.
            self.text.pop();
        }
        out.extend_from_slice(&self.text);
        out.push(b'.');
        let fraction = since.subsec_micros();
        let zeros = fraction.checked_ilog10().map_or(5, |log| 5_usize.saturating_sub(log as usize));
        out.extend_from_slice(&b"000000"[..zeros]);
        decimal(u64::from(fraction), out);
        out.push(b'Z');
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/0.9",
    }
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

fn write_display(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = std::io::Write::write_fmt(out, format_args!("{value}"));
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A hit with everything that a hit has.
    pub(in super::super) fn record() -> AccessRecord<'static> {
        AccessRecord {
            time: UNIX_EPOCH + Duration::from_micros(1_790_000_000_000_042),
            client: "192.0.2.7:50123".parse().unwrap(),
            method: "GET",
            scheme: "https",
            authority: "shop.example",
            path_and_query: "/items?page=2&q=%22",
            protocol: Version::HTTP_2,
            status: 200,
            outcome: Outcome::Hit,
            detail: None,
            forward_status: None,
            key: Some(KeyHash([0x0a; 16])),
            ttl_s: Some(-3),
            age_s: Some(63),
            is_collapsed: false,
            is_stored: false,
            is_aborted: false,
            received_bytes: 0,
            sent_bytes: 1_234,
            times: StageTimes {
                route: Duration::from_nanos(900),
                key: Duration::from_micros(3),
                lookup: Duration::from_micros(2),
                total: Duration::from_micros(17),
                ..StageTimes::default()
            },
            site: Some("shop"),
            origin: None,
            endpoint: None,
            plugin: Some("tenant-key"),
            plugin_fault: None,
        }
    }

    fn line(record: &AccessRecord<'_>) -> String {
        let mut out = Vec::new();
        record.write_line(&mut Stamp::default(), &mut out);
        String::from_utf8(out).unwrap()
    }

    /// The contract with whoever parses the log: names and order.
    #[test]
    fn a_hit_is_written_as_documented() {
        let expected = concat!(
            r#"{"time":"2026-09-21T14:13:20.000042Z","client":"192.0.2.7:50123","method":"GET","scheme":"https","#,
            r#""authority":"shop.example","path":"/items?page=2&q=%22","protocol":"HTTP/2","status":200,"outcome":"hit","#,
            r#""key":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a","ttl":-3,"age":63,"collapsed":false,"stored":false,"#,
            r#""received_bytes":0,"sent_bytes":1234,"route_us":0,"key_us":3,"lookup_us":2,"total_us":17,"#,
            r#""site":"shop","plugin":"tenant-key"}"#,
            "\n",
        );
        assert_eq!(line(&record()), expected);
    }

    #[test]
    fn a_forward_says_why_and_what_came_of_it() {
        let record = AccessRecord {
            outcome: Outcome::Forward(ForwardReason::VaryMiss),
            forward_status: Some(StatusCode::OK),
            detail: Some("set-\"cookie\"\n"),
            is_collapsed: true,
            is_stored: true,
            is_aborted: true,
            origin: Some("api"),
            endpoint: Some("http://127.0.0.1:8000"),
            plugin_fault: Some("deadline"),
            ..record()
        };
        let value: serde_json::Value = serde_json::from_str(&line(&record)).unwrap();
        let expected = serde_json::json!({
            "outcome": "forward", "fwd": "vary-miss", "fwd_status": 200, "detail": "set-\"cookie\"\n", "collapsed": true,
            "stored": true, "aborted": true, "origin": "api", "endpoint": "http://127.0.0.1:8000", "plugin_fault": "deadline",
        });
        for (name, expected) in expected.as_object().unwrap() {
            assert_eq!(&value[name], expected, "{name}");
        }
    }

    #[test]
    fn times_have_six_digits_after_the_second_and_the_stamp_follows_the_second() {
        let mut stamp = Stamp::default();
        let table = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1, "1970-01-01T00:00:00.000001Z"),
            (999_999, "1970-01-01T00:00:00.999999Z"),
            (1_000_000, "1970-01-01T00:00:01.000000Z"),
            (60_010_000, "1970-01-01T00:01:00.010000Z"),
            (100_000, "1970-01-01T00:00:00.100000Z"),
        ];
        for (us, expected) in table {
            let mut out = Vec::new();
            stamp.write(UNIX_EPOCH + Duration::from_micros(us), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
