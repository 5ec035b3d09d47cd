use http::HeaderName;
use proptest::prelude::*;

use super::*;
use crate::delta::DELTA_SECONDS_MAX;
use crate::http_date_value;

/// Mon, 23 Nov 2026 12:00:00 GMT
const NOON: Duration = Duration::from_secs(1_795_435_200);

fn noon() -> SystemTime {
    UNIX_EPOCH + NOON
}

fn date(offset: i64) -> String {
    let shift = Duration::from_secs(offset.unsigned_abs());
    let time = if offset < 0 { noon() - shift } else { noon() + shift };
    http_date_value(time).to_str().unwrap().to_owned()
}

fn headers(lines: &[(&str, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn meta_of(status: u16, lines: &[(&str, String)], policy: &CachePolicy) -> StoredMeta {
    let headers = headers(lines);
    let directives = ResponseDirectives::parse(&headers, policy);
    StoredMeta::of_response(StatusCode::from_u16(status).unwrap(), &headers, &directives, policy, noon(), noon())
}

fn lifetime_of(lines: &[(&str, String)]) -> (u64, FreshnessSource) {
    let meta = meta_of(200, lines, &CachePolicy::default());
    (meta.freshness_lifetime.as_secs(), meta.freshness_source)
}

/// RFC 9111 §4.2.1: the first of s-maxage, max-age, Expires minus Date.
#[test]
fn a_lifetime_has_one_source() {
    use FreshnessSource::{Expires, MaxAge, None, SMaxage, Targeted};
    let (now, later) = (date(0), date(100));
    let control = |value: &str| ("cache-control", value.to_owned());
    let targeted = |value: &str| ("cdn-cache-control", value.to_owned());
    let (dated, expires) = (("date", now.clone()), ("expires", later));
    let cases = [
        (vec![control("max-age=10, s-maxage=20"), dated.clone(), expires.clone()], (20, SMaxage)),
        (vec![control("s-maxage=0, max-age=10")], (0, SMaxage)),
        (vec![control("s-maxage=abc, max-age=10")], (0, SMaxage)),
        (vec![control("max-age=10"), dated.clone(), expires.clone()], (10, MaxAge)),
        (vec![control("max-age=abc"), dated.clone(), expires.clone()], (0, MaxAge)),
        (vec![control("public"), dated.clone(), expires.clone()], (100, Expires)),
        (vec![dated.clone(), expires.clone()], (100, Expires)),
        (vec![expires.clone()], (100, Expires)),
        (vec![("date", "garbage".to_owned()), expires.clone()], (100, Expires)),
        (vec![("date", date(-50)), expires.clone()], (150, Expires)),
        (vec![("date", date(50)), expires.clone()], (50, Expires)),
        (vec![("date", date(500)), expires.clone()], (0, Expires)),
        (vec![dated.clone(), ("expires", "0".to_owned())], (0, Expires)),
        (vec![dated.clone(), ("expires", String::new())], (0, Expires)),
        (vec![dated.clone(), expires.clone(), expires.clone()], (0, Expires)),
        (vec![dated.clone(), ("expires", "-1".to_owned())], (0, Expires)),
        (vec![dated.clone(), ("expires", date(100).replace("GMT", "UTC"))], (0, Expires)),
        (vec![dated.clone(), ("expires", date(100).to_lowercase())], (100, Expires)),
        (vec![dated.clone(), ("expires", "Friday, 31-Dec-76 23:59:59 GMT".to_owned())], (0, Expires)),
        (vec![dated.clone(), ("expires", "Fri, 31 Dec 9999 23:59:59 GMT".to_owned())], (1 << 31, Expires)),
        (vec![dated.clone(), dated.clone(), expires.clone()], (100, Expires)),
        (vec![dated.clone(), expires.clone(), ("cache-control", "s-maxage".to_owned())], (0, SMaxage)),
        (vec![control("max-age=10, s-maxage=20, s-maxage=x")], (0, SMaxage)),
        (vec![targeted("max-age=5"), control("max-age=10"), expires.clone()], (5, Targeted)),
        (vec![targeted("max-age=5, s-maxage=6")], (6, Targeted)),
        (vec![targeted("must-revalidate"), control("max-age=10"), expires.clone()], (0, None)),
        (vec![targeted("max-age=;"), control("max-age=10")], (10, MaxAge)),
        (vec![("etag", "\"a\"".to_owned())], (0, None)),
    ];
    for (lines, expected) in cases {
        assert_eq!(lifetime_of(&lines), expected, "{lines:?}");
    }
}

/// RFC 9111 §4.2.2: a tenth of the time since Last-Modified, where RFC 9110 §15.1 or `public` allows it.
#[test]
fn a_lifetime_is_estimated_from_the_last_modification() {
    let day = 24 * 60 * 60;
    let policy = CachePolicy::default();
    let modified = |ago: i64| vec![("date", date(0)), ("last-modified", date(-ago))];
    assert_eq!(lifetime_of(&modified(1000)), (100, FreshnessSource::Heuristic));
    assert_eq!(lifetime_of(&modified(0)), (0, FreshnessSource::Heuristic));
    assert_eq!(lifetime_of(&modified(1000 * day)), (24 * 60 * 60, FreshnessSource::Heuristic), "capped");
    assert_eq!(lifetime_of(&modified(-1000)), (0, FreshnessSource::None), "modified in the future");
    for status in 200..600 {
        let listed = [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501].contains(&status);
        let estimated = |meta: &StoredMeta| meta.freshness_source == FreshnessSource::Heuristic;
        assert_eq!(estimated(&meta_of(status, &modified(1000), &policy)), listed, "{status}");
        let mut public = modified(1000);
        public.push(("cache-control", "public".to_owned()));
        assert!(estimated(&meta_of(status, &public, &policy)), "{status}");
    }
    let changed = |line: (&'static str, &str)| [modified(1000), vec![(line.0, line.1.to_owned())]].concat();
    let (explicit, lines) = (("expires", "0"), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"));
    assert_eq!(lifetime_of(&changed(explicit)), (0, FreshnessSource::Expires), "no heuristic beside an explicit time");
    assert_eq!(lifetime_of(&changed(lines)), (0, FreshnessSource::None), "two dates are none");
    assert_eq!(lifetime_of(&changed(("cdn-cache-control", "none"))), (100, FreshnessSource::Heuristic));
    assert_eq!(
        lifetime_of(&[("last-modified", date(-1000))]),
        (100, FreshnessSource::Heuristic),
        "by the time of receipt"
    );
    let off = CachePolicy { heuristic: false, ..policy };
    assert_eq!(meta_of(200, &modified(1000), &off).freshness_source, FreshnessSource::None);
}

#[test]
fn a_route_caps_every_lifetime() {
    let policy = CachePolicy { freshness_max: Some(Duration::from_secs(60)), ..CachePolicy::default() };
    let meta = meta_of(200, &[("cache-control", "max-age=3600".to_owned())], &policy);
    assert_eq!(meta.freshness_lifetime, Duration::from_secs(60));
}

/// RFC 9111 §4.2.3: the greater of what Date shows and what Age says, plus the time the response took.
#[test]
fn the_initial_age_counts_date_age_and_delay() {
    let age = |values: &[&str]| values.iter().map(|value| ("age", (*value).to_owned())).collect::<Vec<_>>();
    let dated = |offset: i64| vec![("date", date(offset))];
    let cases = [
        (vec![], 0),
        (dated(0), 0),
        (dated(-30), 30),
        (dated(30), 0),
        (age(&["40"]), 42),
        ([dated(-30), age(&["40"])].concat(), 42),
        ([dated(-90), age(&["40"])].concat(), 90),
        (age(&["40", "7200"]), 42),
        (age(&["40, 7200"]), 42),
        (age(&["0, 7200"]), 2),
        (age(&[", 40"]), 42),
        (age(&["abc"]), 2),
        (age(&["abc, 40"]), 2),
        (age(&["-40"]), 2),
        (age(&["40.0"]), 2),
        (age(&["\"40\""]), 2),
        (age(&["40;x=1"]), 2),
        (age(&["99999999999999999999"]), 1 << 31),
        (age(&["2147483647"]), 1 << 31),
        (age(&["+40"]), 2),
        (age(&["0x28"]), 2),
        (age(&["4 0"]), 2),
        (age(&["", "40"]), 42),
        (age(&["abc", "40"]), 2),
        (age(&["\"40, 50"]), 2),
    ];
    for (lines, expected) in cases {
        let headers = headers(&lines);
        let date = only_line(&headers, &DATE).and_then(|line| http_date_at(line, noon()));
        // The response took two seconds, where Age counts; Date is seen when it arrived.
        let delay = if lines.iter().any(|(name, _)| *name == "age") { 2 } else { 0 };
        let initial = initial_age(&headers, date, noon() - Duration::from_secs(delay), noon());
        assert_eq!(initial.as_secs(), expected, "{lines:?}");
    }
}

/// Date has whole seconds only: what is left of the second in which it was made is not age.
#[test]
fn a_response_is_not_older_for_the_fraction_of_a_second() {
    let headers = headers(&[("date", date(0))]);
    let received = noon() + Duration::from_millis(990);
    assert_eq!(
        initial_age(&headers, Some(noon()), received - Duration::from_millis(5), received),
        Duration::from_millis(5)
    );
}

/// RFC 5861 and RFC 9111 §4.2.4: what the response itself says about stale use.
#[test]
fn stale_windows_are_closed_by_explicit_directives() {
    let window = "stale-while-revalidate=30, stale-if-error=60, max-age=1";
    let cases = [
        ("", true, false),
        (", s-maxage=1", true, true),
        (", must-revalidate", false, true),
        (", proxy-revalidate", false, true),
        (", no-cache", false, false),
        (", no-cache=\"a\"", true, false),
    ];
    for (more, open, must_revalidate) in cases {
        let meta = meta_of(200, &[("cache-control", format!("{window}{more}"))], &CachePolicy::default());
        assert_eq!(meta.stale_while_revalidate, open.then_some(Duration::from_secs(30)), "{more}");
        assert_eq!(meta.stale_if_error, open.then_some(Duration::from_secs(60)), "{more}");
        assert_eq!(meta.must_revalidate, must_revalidate, "{more}");
    }
}

#[test]
fn the_time_left_goes_below_zero() {
    let meta =
        meta_of(200, &[("cache-control", "max-age=60".to_owned()), ("age", "10".to_owned())], &CachePolicy::default());
    let at = |seconds: u64| noon() + Duration::from_secs(seconds);
    assert_eq!((meta.ttl_seconds(at(0)), meta.age_value(at(0))), (50, HeaderValue::from(10)));
    assert_eq!((meta.ttl_seconds(at(50)), meta.age_value(at(50))), (0, HeaderValue::from(60)));
    assert_eq!((meta.ttl_seconds(at(90)), meta.age_value(at(90))), (-40, HeaderValue::from(100)));
}

#[test]
fn it_survives_being_stored() {
    let meta = meta_of(200, &[("cache-control", "max-age=60".to_owned())], &CachePolicy::default());
    let stored = postcard::to_stdvec(&meta).unwrap();
    assert_eq!(postcard::from_bytes::<StoredMeta>(&stored).unwrap(), meta);
}

/// Small ones, on which sums depend, and any.
fn any_seconds() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..100_000, 1 => (1_u64 << 31) - 1000..(1 << 31) + 1000, 1 => any::<u64>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// RFC 9111 §4.2.3 to the second, whatever the clocks say: never negative, never below the initial age, never shrinking as
    /// time goes on, never above 2³¹.
    #[test]
    fn ages_only_grow(
        age in any_seconds(), clock_is_off in -100_000_i64..100_000, took in 0_u64..1_000,
        after in -100_000_i64..100_000, step in any_seconds(),
    ) {
        const SENT: u64 = 1_800_000_000;
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
        let received = SENT + took;
        let dated = received.saturating_add_signed(clock_is_off);
        let headers = headers(&[
            ("age", age.to_string()),
            ("date", http_date_value(at(dated)).to_str().unwrap().to_owned()),
            ("cache-control", format!("max-age={age}")),
        ]);
        let policy = CachePolicy::default();
        let directives = ResponseDirectives::parse(&headers, &policy);
        let meta = StoredMeta::of_response(StatusCode::OK, &headers, &directives, &policy, at(SENT), at(received));
        let initial = received.saturating_sub(dated).max(age.saturating_add(took)).min(DELTA_SECONDS_MAX);
        prop_assert_eq!(meta.initial_age, Duration::from_secs(initial));

        let earlier = received.saturating_add_signed(after);
        let later = earlier + step.min(DELTA_SECONDS_MAX * 2);
        let aged = |now: u64| Duration::from_secs((initial + now.saturating_sub(received)).min(DELTA_SECONDS_MAX));
        let (first, second) = (meta.current_age(at(earlier)), meta.current_age(at(later)));
        prop_assert_eq!((first, second), (aged(earlier), aged(later)));
        prop_assert!(meta.initial_age <= first && first <= second && second <= DELTA_MAX);
        prop_assert!(meta.ttl_seconds(at(earlier)) >= meta.ttl_seconds(at(later)));
    }

    /// Nothing overflows, at any time that a clock can show and whatever is said of ages and dates.
    #[test]
    fn no_time_overflows(
        sent in any::<i64>(), received in any::<i64>(), now in any::<i64>(), later in any::<u64>(),
        age in "[0-9]{0,30}", written in any::<u64>(), modified in any::<u32>(),
    ) {
        let at = |seconds: i64| {
            let shift = Duration::from_secs(seconds.unsigned_abs());
            let time = if seconds < 0 { UNIX_EPOCH.checked_sub(shift) } else { UNIX_EPOCH.checked_add(shift) };
            time.unwrap_or(UNIX_EPOCH)
        };
        let text = |seconds: u64| {
            let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH);
            http_date_value(time).to_str().unwrap().to_owned()
        };
        let headers = headers(&[
            ("age", age),
            ("date", text(u64::from(modified) * 2)),
            ("expires", text(written)),
            ("last-modified", text(u64::from(modified))),
        ]);
        let policy = CachePolicy::default();
        let directives = ResponseDirectives::parse(&headers, &policy);
        let meta = StoredMeta::of_response(StatusCode::OK, &headers, &directives, &policy, at(sent), at(received));
        let first = meta.current_age(at(now));
        let second = meta.current_age(at(now).checked_add(Duration::from_secs(later)).unwrap_or(at(now)));
        prop_assert!(meta.initial_age <= first && first <= second && second <= DELTA_MAX);
        prop_assert!(meta.freshness_lifetime <= DELTA_MAX);
        let _ = (meta.ttl_seconds(at(now)), meta.age_value(at(now)));
    }
}
