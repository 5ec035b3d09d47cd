//! Fields that several rules read: lists, dates, and those that belong to one connection (RFC 9110 §5.6, §7.6.1).
//!
//! Always true:
//! - A field line is split at commas outside quoted strings only; empty members are skipped (§5.6.1.2). A quoted string that
//!   does not end is none, and what follows it on its line is known to be doubtful.
//! - A date has one of the three formats of §5.6.7 exactly, save for the case of its letters, or it is no date. The name of the
//!   day has to be one, but is not compared with the date: §5.6.7 asks nobody to, and a wrong one misleads nobody.
//! - `Connection` cannot name away a field that the rules of caching, routing or privacy depend on.
//!
//! Not here: what `Cache-Control` says (`directives`), entity tags (`validation`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Removes what belongs to one connection: the fields of RFC 9110 §7.6.1, those that `Connection` names, and the
/// credentials and challenges of proxies, which RFC 9111 §3.1 keeps out of shared stores.
///
/// §7.6.1 forbids a sender to name in `Connection` a field meant for all recipients. A peer that does so anyway (to hide
/// `Authorization` or `Cache-Control` from the next cache, say, or to be answered for what the key says it did not ask) is not
/// obeyed: `is_for_everybody` lists what stays. Everything else goes, as §7.6.1 demands: a request has to be stripped before it
/// is keyed, not only as it is forwarded, or it would be stored under fields that the origin never saw.
///
/// `Trailer` stays: it is end-to-end since RFC 9110 §6.6.2.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let mut named: Vec<HeaderName> = Vec::new();
        for option in token_members(headers.get_all(header::CONNECTION)) {
            // Names that are not there cost nothing but their reading, however many there are.
            let Ok(name) = HeaderName::from_bytes(option) else { continue };
            if headers.contains_key(&name) && !is_for_everybody(&name) && !named.contains(&name) {
                named.push(name);
            }
        }
        for name in named {
            headers.remove(name);
        }
    }
    // A pass over the few fields that there are costs less than looking for each of these.
    if headers.keys().any(is_hop_by_hop) {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
}

static HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-authentication-info"),
    // HTTP/1.1 upgrade to HTTP/2 (RFC 7540 §3.2.1, obsolete): only ever for the next hop.
    HeaderName::from_static("http2-settings"),
];

/// Whether a field never passes this node, whatever `Connection` says.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
}

/// Fields that `Connection` has no business to name: what rules of caching, selection, routing, framing or security go by.
fn is_for_everybody(name: &HeaderName) -> bool {
    const PREFIXES: [&str; 5] = ["accept", "access-control-", "content-", "if-", "sec-"];
    let name = name.as_str();
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || matches!(
            name,
            "age"
                | "allow"
                | "authorization"
                | "cache-control"
                | "cache-group-invalidation"
                | "cache-groups"
                | "cache-status"
                | "cdn-cache-control"
                | "cookie"
                | "date"
                | "etag"
                | "expires"
                | "forwarded"
                | "host"
                | "last-modified"
                | "location"
                | "max-forwards"
                | "origin"
                | "pragma"
                | "range"
                | "referer"
                | "retry-after"
                | "set-cookie"
                | "strict-transport-security"
                | "surrogate-key"
                | "user-agent"
                | "vary"
                | "via"
                | "www-authenticate"
                | "x-content-type-options"
                | "x-forwarded-for"
                | "x-forwarded-host"
                | "x-forwarded-proto"
                | "x-frame-options"
        )
}

/// The members of a comma-separated list over any number of field lines, without surrounding white space.
///
/// A quotation mark that is not closed on its line is a character like any other.
pub fn list_members<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> impl Iterator<Item = &'a [u8]> {
    sound_members(values).map(|(member, _)| member)
}

/// As [`list_members`]; false beside a member: a quoted string that does not end came before it on its line, or begins in it, so
/// that another recipient may take it for the content of that string.
pub(crate) fn sound_members<'a>(
    values: impl IntoIterator<Item = &'a HeaderValue>,
) -> impl Iterator<Item = (&'a [u8], bool)> {
    values.into_iter().flat_map(|line| Members { rest: Some(line.as_bytes()), quotes: Quotes::Sound })
}

/// The members of a list whose grammar knows no quoted strings, only tokens: every comma ends one.
pub(crate) fn token_members<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> impl Iterator<Item = &'a [u8]> {
    let members = |line: &'a HeaderValue| Members { rest: Some(line.as_bytes()), quotes: Quotes::Unknown };
    values.into_iter().flat_map(members).map(|(member, _)| member)
}

/// The members of one line.
struct Members<'a> {
    rest: Option<&'a [u8]>,
    quotes: Quotes,
}

/// What a quotation mark in the rest of a line means.
#[derive(PartialEq, Eq)]
enum Quotes {
    /// As far as is known, a quoted string.
    Sound,
    /// Nothing: there was one that did not end.
    Broken,
    /// Nothing: the list's grammar has none.
    Unknown,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a [u8], bool);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = self.rest.take()?;
            let quoted_end = if self.quotes == Quotes::Sound { member_end(line) } else { None };
            let end = quoted_end.unwrap_or_else(|| {
                // Once for each line, or a line of nothing but open quotes would be read as often as it has members.
                if self.quotes == Quotes::Sound {
                    self.quotes = Quotes::Broken;
                }
                line.iter().position(|byte| *byte == b',').unwrap_or(line.len())
            });
            self.rest = line.get(end + 1..);
            let member = trim_ows(&line[..end]);
            if !member.is_empty() {
                return Some((member, self.quotes != Quotes::Broken));
            }
        }
    }
}

/// Where the first comma outside a quoted string is, or the line ends; `None` where a quoted string does not.
fn member_end(line: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in line.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return Some(at),
            _ => {}
        }
    }
    (!quoted).then_some(line.len())
}

/// Without optional white space (RFC 9110 §5.6.3): spaces and tabs, nothing else.
pub(crate) fn trim_ows(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// A token (RFC 9110 §5.6.2).
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// The only line of a field; `None` where there is none or there are several.
pub(crate) fn only_line<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    lines.next().is_none().then_some(line)
}

/// A date, in one of the three formats of RFC 9110 §5.6.7.
///
/// Two-digit years are 1970 to 2069 here; [`http_date_at`] knows when the message came and follows §5.6.7 to the letter.
pub fn http_date(value: &HeaderValue) -> Option<SystemTime> {
    // The beginning of 2020.
    parse_date(value.as_bytes(), 1_577_836_800)
}

/// A date in a message received at a known time: a two-digit year that would lie more than 50 years ahead is in the past.
pub fn http_date_at(value: &HeaderValue, received: SystemTime) -> Option<SystemTime> {
    let received = received.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().min(LAST_SECOND);
    parse_date(value.as_bytes(), i64::try_from(received).unwrap_or_default())
}

/// The end of the year 9999: later dates cannot be written.
const LAST_SECOND: u64 = 253_402_300_799;

/// A time as a sender has to write it: the fixed-length format of RFC 9110 §5.6.7.
pub fn http_date_value(time: SystemTime) -> HeaderValue {
    // Beyond the year 9999, and before 1970, there is no such date that every recipient reads.
    let clamped = time.clamp(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(LAST_SECOND));
    HeaderValue::try_from(httpdate::fmt_http_date(clamped)).unwrap_or_else(|_| unreachable!("a date is visible ASCII"))
}

/// `present`: seconds since 1970, for two-digit years.
fn parse_date(text: &[u8], present: i64) -> Option<SystemTime> {
    let (day_name, rest) = split_at_first(text, |byte| byte == b',' || byte == b' ')?;
    if rest.first() == Some(&b' ') {
        return parse_asctime(day_name, &rest[1..]);
    }
    let rest = rest.strip_prefix(b", ")?;
    if is_name_in(day_name, &DAYS_SHORT) {
        // Sun, 06 Nov 1994 08:49:37 GMT
        let [d1, d2, b' ', m1, m2, m3, b' ', y1, y2, y3, y4, b' ', clock @ ..] = rest else { return None };
        let year = digits(&[*y1, *y2, *y3, *y4])?;
        return seconds_at(year, &[*m1, *m2, *m3], digits(&[*d1, *d2])?, strip_gmt(clock)?).map(timestamp);
    }
    if !is_name_in(day_name, &DAYS_LONG) {
        return None;
    }
    // Sunday, 06-Nov-94 08:49:37 GMT
    let [d1, d2, b'-', m1, m2, m3, b'-', y1, y2, b' ', clock @ ..] = rest else { return None };
    let (two_digits, day, clock) = (digits(&[*y1, *y2])?, digits(&[*d1, *d2])?, strip_gmt(clock)?);
    let present_year = 1970 + present / YEAR_SECONDS;
    let century = present_year - present_year % 100;
    // The latest such time that is not more than 50 years ahead.
    [century + 100, century, century - 100]
        .into_iter()
        .filter_map(|century| seconds_at(century + two_digits, &[*m1, *m2, *m3], day, clock))
        .find(|seconds| *seconds <= present + HALF_CENTURY_SECONDS)
        .map(timestamp)
}

/// The mean Gregorian year. That it may be a day off does not matter to find a century.
const YEAR_SECONDS: i64 = 31_556_952;
/// Fifty years with 13 leap days, as most have.
const HALF_CENTURY_SECONDS: i64 = (50 * 365 + 13) * 86_400;

/// Sun Nov  6 08:49:37 1994
fn parse_asctime(day_name: &[u8], rest: &[u8]) -> Option<SystemTime> {
    let [m1, m2, m3, b' ', d1, d2, b' ', clock @ .., b' ', y1, y2, y3, y4] = rest else { return None };
    let day = if *d1 == b' ' { digits(&[*d2])? } else { digits(&[*d1, *d2])? };
    let year = digits(&[*y1, *y2, *y3, *y4])?;
    let seconds = seconds_at(year, &[*m1, *m2, *m3], day, clock)?;
    is_name_in(day_name, &DAYS_SHORT).then(|| timestamp(seconds))
}

const DAYS_SHORT: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAYS_LONG: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

fn split_at_first(text: &[u8], is_end: impl Fn(u8) -> bool) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| is_end(*byte))?;
    Some(text.split_at(end))
}

fn is_name_in(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

fn strip_gmt(clock: &[u8]) -> Option<&[u8]> {
    let (clock, zone) = clock.split_at_checked(clock.len().checked_sub(4)?)?;
    zone.eq_ignore_ascii_case(b" gmt").then_some(clock)
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
}

/// Dates before 1970 count as 1970: in the past, which is all that a rule asks of them.
fn timestamp(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Seconds since 1970; `None` where there is no such day or time of day.
fn seconds_at(year: i64, month: &[u8], day: i64, clock: &[u8]) -> Option<i64> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = clock else { return None };
    let (hour, minute, second) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?, digits(&[*s1, *s2])?);
    let month = MONTHS.iter().position(|name| month.eq_ignore_ascii_case(name.as_bytes()))?;
    // 60 is a leap second.
    if hour > 23 || minute > 59 || second > 60 || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    let days = days_before_year(year) - days_before_year(1970) + days_before_month(year, month) + day - 1;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: usize) -> i64 {
    match month {
        1 => 28 + i64::from(is_leap(year)),
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

fn days_before_month(year: i64, month: usize) -> i64 {
    (0..month).map(|earlier| days_in_month(year, earlier)).sum()
}

/// Days from the year 1 to the first day of `year`.
fn days_before_year(year: i64) -> i64 {
    let past = year - 1;
    past * 365 + past.div_euclid(4) - past.div_euclid(100) + past.div_euclid(400)
}

#[cfg(test)]
mod tests;
