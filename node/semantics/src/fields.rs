//! Fields that several rules read: lists, dates, and those that belong to one connection (RFC 9110 §5.6, §7.6.1).
//!
//! Always true:
//! - A field line is split at commas outside quoted strings only; empty members are skipped (§5.6.1.2).
//! - A date has one of the three formats of §5.6.7 exactly, save for the case of its letters, or it is no date.
//! - `Connection` cannot name away a field that the rules of caching, routing or privacy depend on.
//!
//! Not here: what `Cache-Control` says (`directives`), entity tags (`validation`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// More names in `Connection` are not looked at: no real message comes near, and each costs a search.
const CONNECTION_OPTIONS_MAX: usize = 64;

/// Removes what belongs to one connection: the fields of RFC 9110 §7.6.1, those that `Connection` names, and the
/// credentials and challenges of proxies, which RFC 9111 §3.1 keeps out of shared stores.
///
/// §7.6.1 forbids a sender to name in `Connection` a field meant for all recipients. A peer that does so anyway (to hide
/// `Authorization` or `Cache-Control` from the next cache, say) is not obeyed: `is_for_everybody` lists what stays.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = list_members(headers.get_all(header::CONNECTION))
            .take(CONNECTION_OPTIONS_MAX)
            .filter_map(|option| HeaderName::from_bytes(option).ok())
            .filter(|name| !is_for_everybody(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
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

/// Fields that `Connection` has no business to name.
fn is_for_everybody(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "age"
            | "authorization"
            | "cache-control"
            | "cdn-cache-control"
            | "content-encoding"
            | "content-length"
            | "content-range"
            | "content-type"
            | "cookie"
            | "date"
            | "etag"
            | "expires"
            | "forwarded"
            | "host"
            | "last-modified"
            | "pragma"
            | "range"
            | "set-cookie"
            | "surrogate-key"
            | "vary"
            | "via"
            | "x-forwarded-for"
            | "x-forwarded-host"
            | "x-forwarded-proto"
    )
}

/// The members of a comma-separated list over any number of field lines, without surrounding white space.
///
/// A quoted string that does not end reaches to the end of its line.
pub fn list_members<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> impl Iterator<Item = &'a [u8]> {
    values.into_iter().flat_map(|line| Members { rest: Some(line.as_bytes()) })
}

/// The members of one line.
struct Members<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let line = self.rest.take()?;
            let end = member_end(line);
            self.rest = line.get(end + 1..);
            let member = trim_ows(&line[..end]);
            if !member.is_empty() {
                return Some(member);
            }
        }
    }
}

/// Where the first comma outside a quoted string is.
fn member_end(line: &[u8]) -> usize {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in line.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    line.len()
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
    parse_date(value.as_bytes(), 2019)
}

/// A date in a message received at a known time: a two-digit year that would lie more than 50 years ahead is in the past.
pub fn http_date_at(value: &HeaderValue, received: SystemTime) -> Option<SystemTime> {
    // The mean Gregorian year; that it may be a day off where a year ends does not matter at a distance of 50 years.
    const YEAR_SECONDS: u64 = 31_556_952;
    let since_epoch = received.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let year = i64::try_from(1970 + since_epoch / YEAR_SECONDS).unwrap_or(i64::MAX / 2);
    parse_date(value.as_bytes(), year)
}

/// A time as a sender has to write it: the fixed-length format of RFC 9110 §5.6.7.
pub fn http_date_value(time: SystemTime) -> HeaderValue {
    // Beyond the year 9999, and before 1970, there is no such date that every recipient reads.
    const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);
    let clamped = time.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST_SECOND);
    HeaderValue::try_from(httpdate::fmt_http_date(clamped)).unwrap_or_else(|_| unreachable!("a date is visible ASCII"))
}

fn parse_date(text: &[u8], present_year: i64) -> Option<SystemTime> {
    let (day_name, rest) = split_at_first(text, |byte| byte == b',' || byte == b' ')?;
    if rest.first() == Some(&b' ') {
        return parse_asctime(day_name, &rest[1..]);
    }
    let rest = rest.strip_prefix(b", ")?;
    if is_name_in(day_name, &DAYS_SHORT) {
        // Sun, 06 Nov 1994 08:49:37 GMT
        let [d1, d2, b' ', m1, m2, m3, b' ', y1, y2, y3, y4, b' ', clock @ ..] = rest else { return None };
        let year = digits(&[*y1, *y2, *y3, *y4])?;
        return timestamp(year, &[*m1, *m2, *m3], digits(&[*d1, *d2])?, strip_gmt(clock)?);
    }
    if !is_name_in(day_name, &DAYS_LONG) {
        return None;
    }
    // Sunday, 06-Nov-94 08:49:37 GMT
    let [d1, d2, b'-', m1, m2, m3, b'-', y1, y2, b' ', clock @ ..] = rest else { return None };
    let two_digits = digits(&[*y1, *y2])?;
    let century = present_year - present_year % 100;
    // The latest such year that is not more than 50 years ahead.
    let year = [century + 100, century, century - 100]
        .into_iter()
        .map(|century| century + two_digits)
        .find(|year| *year <= present_year + 50)?;
    timestamp(year, &[*m1, *m2, *m3], digits(&[*d1, *d2])?, strip_gmt(clock)?)
}

/// Sun Nov  6 08:49:37 1994
fn parse_asctime(day_name: &[u8], rest: &[u8]) -> Option<SystemTime> {
    let [m1, m2, m3, b' ', d1, d2, b' ', clock @ .., b' ', y1, y2, y3, y4] = rest else { return None };
    let day = if *d1 == b' ' { digits(&[*d2])? } else { digits(&[*d1, *d2])? };
    let year = digits(&[*y1, *y2, *y3, *y4])?;
    is_name_in(day_name, &DAYS_SHORT).then(|| timestamp(year, &[*m1, *m2, *m3], day, clock))?
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
fn timestamp(year: i64, month: &[u8], day: i64, clock: &[u8]) -> Option<SystemTime> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = clock else { return None };
    let (hour, minute, second) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?, digits(&[*s1, *s2])?);
    let month = MONTHS.iter().position(|name| month.eq_ignore_ascii_case(name.as_bytes()))?;
    // 60 is a leap second.
    if hour > 23 || minute > 59 || second > 60 || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    let days = days_before_year(year) - days_before_year(1970) + days_before_month(year, month) + day - 1;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
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
