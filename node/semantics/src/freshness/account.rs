//! The arithmetic behind an age and a lifetime, figure by figure, for explanations (RFC 9111 §4.2).
//!
//! Always true:
//! - An account explains what [`StoredMeta`] says; nothing is decided by it.
//! - What was not kept is not guessed: a figure that can no longer be known is absent.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{DATE, EXPIRES, HeaderMap, HeaderName, LAST_MODIFIED};

use super::{FreshnessSource, StoredMeta, expires, heuristic, lifetime, whole_second};
use crate::fields::{http_date_at, only_line};
use crate::{CachePolicy, ControlSource, ResponseDirectives};

/// The figures of `current_age` (RFC 9111 §4.2.3), under the names of that section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgeAccount {
    /// `date_value`: the stored `Date`; none where it is no date.
    pub date_value: Option<SystemTime>,
    /// `apparent_age`: how old the response looked by its `Date` when it arrived.
    pub apparent_age: Duration,
    /// `response_delay`: from sending the request to the response's head.
    pub response_delay: Duration,
    /// `age_value`: the `Age` that was received, zero where there was none. None where `apparent_age` decided: `Age` is not
    /// stored, and this one was too small to show.
    pub age_value: Option<Duration>,
    /// `corrected_initial_age`: the greater of `apparent_age` and `age_value + response_delay`.
    pub initial_age: Duration,
    /// `resident_time`: since it arrived.
    pub resident_time: Duration,
    /// `current_age`: `corrected_initial_age + resident_time`.
    pub current_age: Duration,
}

/// What a freshness lifetime was taken from (RFC 9111 §4.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifetimeAccount {
    /// The kind of source.
    pub source: FreshnessSource,
    /// The field it was read from; none where there was none.
    pub field: Option<HeaderName>,
    /// The directive in that field; none where the field has no directives.
    pub directive: Option<&'static str>,
    /// The lifetime that it names, before the route's bounds.
    pub named: Duration,
    /// `Expires`, where it was used and is a date; what is no date is in the past (§5.3).
    pub expires: Option<SystemTime>,
    /// `Last-Modified`, where the lifetime was estimated from it (§4.2.2).
    pub last_modified: Option<SystemTime>,
}

impl StoredMeta {
    /// How the age at `now` comes about; `headers` are the stored fields.
    pub fn age_account(&self, headers: &HeaderMap, now: SystemTime) -> AgeAccount {
        let date_value = only_line(headers, &DATE).and_then(|line| http_date_at(line, self.response_time));
        let arrived = whole_second(self.response_time);
        let apparent_age = date_value.map_or(Duration::ZERO, |date| arrived.duration_since(date).unwrap_or_default());
        let response_delay = self.response_time.duration_since(self.request_time).unwrap_or_default();
        let age_value_max = self.initial_age.checked_sub(response_delay);
        AgeAccount {
            date_value,
            apparent_age,
            response_delay,
            age_value: age_value_max.filter(|max| self.initial_age > apparent_age || max.is_zero()),
            initial_age: self.initial_age,
            resident_time: now.duration_since(self.response_time).unwrap_or_default(),
            current_age: self.current_age(now),
        }
    }

    /// Where the lifetime comes from; `headers` are the stored fields. None where they give another lifetime under `policy`: the
    /// route's settings have changed since, and the lifetime stays what it was.
    pub fn lifetime_account(&self, headers: &HeaderMap, policy: &CachePolicy) -> Option<LifetimeAccount> {
        let status = StatusCode::from_u16(self.status).ok()?;
        let directives = ResponseDirectives::parse(headers, policy);
        let received = self.response_time;
        let date = only_line(headers, &DATE).and_then(|line| http_date_at(line, received));
        let reckoned = lifetime(status, headers, &directives, policy, date, received);
        if reckoned != (self.freshness_lifetime, self.freshness_source) {
            return None;
        }
        let date_of = |name: &HeaderName| only_line(headers, name).and_then(|line| http_date_at(line, received));
        let mut account = LifetimeAccount {
            source: self.freshness_source,
            field: match &directives.source {
                ControlSource::Absent => None,
                ControlSource::CacheControl => Some(http::header::CACHE_CONTROL),
                ControlSource::Targeted(name) => Some(name.clone()),
            },
            directive: Some(if directives.s_maxage.is_some() { "s-maxage" } else { "max-age" }),
            named: directives.s_maxage.or(directives.max_age).unwrap_or_default(),
            expires: None,
            last_modified: None,
        };
        match self.freshness_source {
            FreshnessSource::Targeted | FreshnessSource::SMaxage | FreshnessSource::MaxAge => {}
            FreshnessSource::Expires => {
                account.field = Some(EXPIRES);
                account.directive = None;
                account.named = expires(headers, date, received).unwrap_or_default();
                account.expires = date_of(&EXPIRES);
            }
            FreshnessSource::Heuristic => {
                account.field = Some(LAST_MODIFIED);
                account.directive = None;
                account.named = heuristic(headers, date, received).unwrap_or_default();
                account.last_modified = date_of(&LAST_MODIFIED);
            }
            FreshnessSource::None => {
                account.field = None;
                account.directive = None;
            }
        }
        Some(account)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::http_date_value;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    /// Sent at 100, arrived at 103.
    fn meta(fields: &HeaderMap, policy: &CachePolicy) -> StoredMeta {
        let directives = ResponseDirectives::parse(fields, policy);
        StoredMeta::of_response(StatusCode::OK, fields, &directives, policy, at(100), at(103))
    }

    fn date(seconds: u64) -> String {
        http_date_value(at(seconds)).to_str().unwrap().to_owned()
    }

    /// RFC 9111 §4.2.3. `Age` is not among the stored fields, and is found again where it decided.
    #[test]
    fn the_figures_of_an_age_add_up() {
        let seconds = Duration::from_secs;
        for (received_date, age, expected_age_value, initial) in
            [(103, "0", Some(0), 3), (103, "20", Some(20), 23), (63, "20", None, 40), (63, "50", Some(50), 53)]
        {
            let mut fields = headers(&[("date", &date(received_date)), ("age", age), ("cache-control", "max-age=60")]);
            let meta = meta(&fields, &CachePolicy::default());
            fields.remove("age");
            let account = meta.age_account(&fields, at(110));
            let expected = AgeAccount {
                date_value: Some(at(received_date)),
                apparent_age: seconds(103 - received_date),
                response_delay: seconds(3),
                age_value: expected_age_value.map(seconds),
                initial_age: seconds(initial),
                resident_time: seconds(7),
                current_age: seconds(initial + 7),
            };
            assert_eq!(account, expected, "date {received_date}, age {age}");
            assert_eq!(account.current_age, meta.current_age(at(110)));
        }
    }

    /// RFC 9111 §4.2.1, §4.2.2, RFC 9213.
    #[test]
    fn a_lifetime_names_the_field_and_directive_it_was_read_from() {
        let policy = CachePolicy { freshness_max: Some(Duration::from_secs(500)), ..CachePolicy::default() };
        let (now, later, modified) = (date(103), date(163), date(3));
        let dated = |name: &'static str, value: &str| headers(&[("date", now.as_str()), (name, value)]);
        for (fields, source, field, directive, named) in [
            (
                dated("cdn-cache-control", "max-age=9"),
                FreshnessSource::Targeted,
                Some("cdn-cache-control"),
                Some("max-age"),
                9,
            ),
            (
                dated("cache-control", "max-age=1, s-maxage=7"),
                FreshnessSource::SMaxage,
                Some("cache-control"),
                Some("s-maxage"),
                7,
            ),
            (
                dated("cache-control", "max-age=9000"),
                FreshnessSource::MaxAge,
                Some("cache-control"),
                Some("max-age"),
                9000,
            ),
            (dated("expires", &later), FreshnessSource::Expires, Some("expires"), None, 60),
            (dated("last-modified", &modified), FreshnessSource::Heuristic, Some("last-modified"), None, 10),
            (dated("etag", "\"1\""), FreshnessSource::None, None, None, 0),
        ] {
            let account = meta(&fields, &policy).lifetime_account(&fields, &policy).expect("the same policy");
            assert_eq!((account.source, account.directive), (source, directive), "{fields:?}");
            assert_eq!(account.field.as_ref().map(HeaderName::as_str), field, "{fields:?}");
            assert_eq!(account.named, Duration::from_secs(named), "{fields:?}");
        }
    }

    /// A lifetime that the fields do not give under today's policy is not explained by them.
    #[test]
    fn a_changed_policy_leaves_a_lifetime_unexplained() {
        let fields = headers(&[("date", &date(103)), ("cache-control", "max-age=60")]);
        let stored = meta(&fields, &CachePolicy { freshness_max: Some(Duration::from_secs(5)), ..Default::default() });
        assert_eq!(stored.lifetime_account(&fields, &CachePolicy::default()), None);
    }
}
