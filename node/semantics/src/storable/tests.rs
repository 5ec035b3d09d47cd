use std::time::{Duration, UNIX_EPOCH};

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// `None` = stored.
fn refused(
    method: &str,
    request: &[(&str, &str)],
    status: u16,
    response: &[(&str, &str)],
    policy: &CachePolicy,
) -> Option<Refusal> {
    let target = Uri::from_static("https://example.com/a?b=c");
    let (method, fields) = (Method::from_bytes(method.as_bytes()).unwrap(), headers(request));
    let facts = RequestFacts { method: &method, headers: &fields, target: &target };
    let now = UNIX_EPOCH + Duration::from_secs(1_795_435_200);
    match storable(&facts, StatusCode::from_u16(status).unwrap(), &headers(response), policy, now, now) {
        Storable::Yes(meta) => {
            assert_eq!(meta.status, status);
            None
        }
        Storable::No(refusal) => Some(refusal),
    }
}

fn get(status: u16, response: &[(&str, &str)]) -> Option<Refusal> {
    refused("GET", &[], status, response, &CachePolicy::default())
}

const FRESH: (&str, &str) = ("cache-control", "max-age=60");
const MODIFIED: (&str, &str) = ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");
const TAGGED: (&str, &str) = ("etag", "\"a\"");

/// RFC 9111 §3: any final status with explicit freshness, known or not.
#[test]
fn explicit_freshness_stores_any_final_status() {
    for status in 200..=999 {
        let expected = match status {
            206 => Some(Refusal::Partial),
            // RFC 6585 §3, §4, §5, §6.
            304 | 428 | 429 | 431 | 511 => Some(Refusal::Status),
            _ => None,
        };
        assert_eq!(get(status, &[FRESH]), expected, "{status}");
    }
    for status in [100, 101, 103, 199] {
        assert_eq!(get(status, &[FRESH]), Some(Refusal::Status), "{status}");
    }
    assert_eq!(get(200, &[FRESH, ("content-range", "bytes 0-1/2")]), None, "Content-Range means nothing here");
    let ranged = |status| refused("GET", &[("range", "bytes=9-")], status, &[FRESH], &CachePolicy::default());
    assert_eq!(ranged(416), Some(Refusal::Status), "an answer to this range only");
    assert_eq!((ranged(200), ranged(404)), (None, None));
    assert_eq!(get(429, &[("cdn-cache-control", "max-age=60")]), Some(Refusal::Status));
}

/// RFC 9111 §3: each kind of explicit freshness, however short or wrong, makes a status storable that is not heuristically.
#[test]
fn whatever_names_a_lifetime_is_explicit() {
    let explicit = [
        ("cache-control", "max-age=60"),
        ("cache-control", "max-age=0"),
        ("cache-control", "max-age=x"),
        ("cache-control", "s-maxage=60"),
        ("expires", "Fri, 31 Dec 9999 23:59:59 GMT"),
        ("expires", "0"),
        ("cdn-cache-control", "max-age=60"),
        ("cdn-cache-control", "s-maxage=60"),
    ];
    for line in explicit {
        for status in [201, 206, 299, 302, 403, 499, 503, 599, 999] {
            let expected = (status == 206).then_some(Refusal::Partial);
            assert_eq!(get(status, &[line]), expected, "{status} {line:?}");
        }
    }
    for line in [("cache-control", "immutable"), ("cache-control", "must-revalidate"), ("pragma", "x")] {
        assert_eq!(get(299, &[line, TAGGED, MODIFIED]), Some(Refusal::NoFreshness), "{line:?}");
    }
    let whole = ("content-range", "bytes 0-1/2");
    assert_eq!(get(206, &[whole, MODIFIED]), None, "heuristically cacheable (RFC 9110 §15.1)");
    assert_eq!(get(206, &[whole, FRESH]), None);
}

/// RFC 9111 §3, §4.2.2: without explicit freshness, a listed status or `public`, and something to go by.
#[test]
fn without_explicit_freshness_a_response_needs_a_date_or_a_validator() {
    let listed = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];
    let public = ("cache-control", "public");
    for status in (200..600).filter(|status| ![206, 304, 428, 429, 431, 511].contains(status)) {
        let is_listed = listed.contains(&status);
        assert_eq!(get(status, &[]), Some(Refusal::NoFreshness), "{status}");
        assert_eq!(get(status, &[public]), Some(Refusal::NoFreshness), "{status}");
        assert_eq!(get(status, &[MODIFIED]).is_none(), is_listed, "{status} with Last-Modified");
        assert_eq!(get(status, &[MODIFIED, public]), None, "{status} with Last-Modified and public");
        assert_eq!(get(status, &[TAGGED]).is_none(), is_listed && status < 400, "{status} with ETag");
        assert_eq!(get(status, &[TAGGED, public]).is_none(), status < 400, "{status} with ETag and public");
    }
    assert_eq!(get(200, &[("expires", "0")]), None, "an invalid Expires is explicit: stale, not absent");
}

/// RFC 9111 §3, §5.2.2: what forbids to store.
#[test]
fn directives_forbid_to_store() {
    let control = |value| get(200, &[("cache-control", value), TAGGED]);
    let cases = [
        ("max-age=60", None),
        ("max-age=0", None),
        ("no-cache", None),
        ("no-cache, max-age=60", None),
        ("no-cache=\"a\", max-age=60", None),
        ("private=\"a\", max-age=60", None),
        ("no-store", Some(Refusal::NoStore)),
        ("no-store, public, max-age=60", Some(Refusal::NoStore)),
        ("No-StorE, max-age=60", Some(Refusal::NoStore)),
        ("private", Some(Refusal::Private)),
        ("private, public, max-age=60", Some(Refusal::Private)),
        ("private=\"a\", private, max-age=60", Some(Refusal::Private)),
        ("private=\"a b\", max-age=60", Some(Refusal::Private)),
    ];
    for (value, expected) in cases {
        assert_eq!(control(value), expected, "{value}");
    }
    assert_eq!(
        get(200, &[("cache-control", "no-cache, max-age=60")]),
        Some(Refusal::NoFreshness),
        "nothing to validate with"
    );
}

/// RFC 9111 §5.2.2.3.
#[test]
fn must_understand_goes_by_the_status() {
    let control = ("cache-control", "max-age=60, must-understand, no-store");
    let unknown = Some(Refusal::NotUnderstood);
    let cases =
        [(200, None), (404, None), (599, unknown), (226, unknown), (299, unknown), (418, unknown), (451, unknown)];
    let part = [("cache-control", "max-age=60, must-understand, no-store"), ("content-range", "bytes 0-1/2")];
    assert_eq!(get(206, &part), None, "parts are understood");
    assert_eq!(get(200, &[("cache-control", "max-age=60, no-store, must-understand=x")]), Some(Refusal::NoStore));
    for (status, expected) in cases {
        assert_eq!(get(status, &[control]), expected, "{status}");
        assert_eq!(get(status, &[("cache-control", "max-age=60, must-understand")]), expected, "{status}");
    }
}

/// RFC 9111 §3.5: exactly these three let a response to an authorized request be shared.
#[test]
fn authorization_needs_permission() {
    let policy = CachePolicy::default();
    let cases = [
        ("max-age=60", false),
        ("max-age=60, public", true),
        ("max-age=60, must-revalidate", true),
        ("s-maxage=60", true),
        ("s-maxage=x, max-age=60", false),
        ("public=x, max-age=60", false),
        ("max-age=60, proxy-revalidate", false),
        ("max-age=60, no-cache", false),
        ("max-age=60, immutable", false),
        ("max-age=60, private=\"a\"", false),
    ];
    for (value, stored) in cases {
        let lines = [("cache-control", value), TAGGED];
        let expected = (!stored).then_some(Refusal::Authorization);
        assert_eq!(refused("GET", &[("authorization", "Basic x")], 200, &lines, &policy), expected, "{value}");
    }
    let targeted = [("cdn-cache-control", "max-age=60"), ("cache-control", "public, max-age=60")];
    assert_eq!(
        refused("GET", &[("authorization", "Basic x")], 200, &targeted, &policy),
        Some(Refusal::Authorization),
        "RFC 9213: Cache-Control is out of force, its `public` too"
    );
}

/// Safe by default: a cookie for one client is not given to others.
#[test]
fn cookies_are_not_stored() {
    let cookie = ("set-cookie", "a=b");
    assert_eq!(get(200, &[FRESH, cookie]), Some(Refusal::SetCookie));
    assert_eq!(get(200, &[("cache-control", "public, max-age=60"), cookie]), Some(Refusal::SetCookie));
    for control in ["max-age=60, private=\"Set-Cookie\"", "max-age=60, no-cache=\"set-cookie\""] {
        assert_eq!(get(200, &[("cache-control", control), cookie]), None, "{control}: not stored with the rest");
    }
    let policy = CachePolicy { store_set_cookie: true, ..CachePolicy::default() };
    assert_eq!(refused("GET", &[], 200, &[FRESH, cookie], &policy), None);
}

/// RFC 9111 §5.2.1.5.
#[test]
fn a_request_may_forbid_to_store() {
    let policy = CachePolicy::default();
    let no_store = [("cache-control", "no-store")];
    assert_eq!(refused("GET", &no_store, 200, &[FRESH], &policy), Some(Refusal::RequestNoStore));
    let policy = CachePolicy { ignore_request_directives: true, ..policy };
    assert_eq!(refused("GET", &no_store, 200, &[FRESH], &policy), None);
}

/// RFC 9110 §9.3.3, RFC 9111 §3.
#[test]
fn methods_are_stored_where_a_get_could_use_them() {
    let policy = CachePolicy::default();
    let store = |method, lines: &[(&str, &str)]| refused(method, &[], 200, lines, &policy);
    for (method, expected) in [
        ("GET", None),
        ("QUERY", None),
        ("HEAD", Some(Refusal::Method)),
        ("POST", Some(Refusal::Method)),
        ("PUT", Some(Refusal::Method)),
        ("DELETE", Some(Refusal::Method)),
        ("FOO", Some(Refusal::Method)),
        ("get", Some(Refusal::Method)),
    ] {
        assert_eq!(store(method, &[FRESH]), expected, "{method}");
    }
    for (location, expected) in [
        ("https://example.com/a?b=c", None),
        ("/a?b=c", None),
        ("a?b=c", None),
        ("", None),
        ("#x", None),
        ("//example.com/a?b=c", None),
        ("HTTPS://EXAMPLE.com:443/a?b=c", None),
        ("https://example.com/x/../a?b=c", None),
        ("https://example.com:8443/a?b=c", Some(Refusal::Method)),
        ("http://example.com/a?b=c", Some(Refusal::Method)),
        ("/a?b=d", Some(Refusal::Method)),
        ("/A?b=c", Some(Refusal::Method)),
        ("https://u@example.com/a?b=c", Some(Refusal::Method)),
        ("/a", Some(Refusal::Method)),
        ("https://example.org/a?b=c", Some(Refusal::Method)),
    ] {
        assert_eq!(store("POST", &[FRESH, ("content-location", location)]), expected, "{location}");
    }
    let located = ("content-location", "/a?b=c");
    assert_eq!(store("POST", &[FRESH, located, ("content-location", "/a?b=c")]), Some(Refusal::Method), "twice");
    for status in (200..600).filter(|status| ![200, 203].contains(status)) {
        let refusal = refused("POST", &[], status, &[FRESH, located], &policy);
        assert_eq!(refusal, Some(Refusal::Method), "{status}: an error or an act, not what a GET would give");
    }
    assert_eq!(refused("POST", &[], 203, &[FRESH, located], &policy), None);
    assert_eq!(store("PATCH", &[FRESH, located]), Some(Refusal::Method));
    let heuristic = [MODIFIED, ("content-location", "/a?b=c")];
    assert_eq!(store("POST", &heuristic), Some(Refusal::Method), "only explicit freshness");
}

/// RFC 9111 §4.1.
#[test]
fn what_varies_on_everything_is_not_stored() {
    for (vary, more, expected) in [
        ("*", "", Some(Refusal::VaryStar)),
        ("accept, *", "", Some(Refusal::VaryStar)),
        ("accept", ", *", Some(Refusal::VaryStar)),
        ("accept", "accept-encoding", None),
        ("accept encoding", "", Some(Refusal::VaryStar)),
    ] {
        assert_eq!(get(200, &[FRESH, ("vary", vary), ("vary", more)]), expected, "{vary} {more}");
    }
}

/// RFC 9111 §3.1, §5.2.2.4, §5.2.2.7.
#[test]
fn only_what_may_be_replayed_is_stored() {
    let response = headers(&[
        ("cache-control", "max-age=60, no-cache=\"x-a, X-B\", private=\"x-c\""),
        ("connection", "x-d"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "Basic"),
        ("age", "5"),
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("x-a", "1"),
        ("x-a", "2"),
        ("x-b", "1"),
        ("x-c", "1"),
        ("x-d", "1"),
        ("x-e", "1"),
        ("x-e", "2"),
    ]);
    let stored = stored_headers(&response, &ResponseDirectives::parse(&response, &CachePolicy::default()));
    let mut names: Vec<_> = stored.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["cache-control", "date", "x-e", "x-e"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// No message makes the rules panic; nothing forbidden is stored, and nothing of one connection.
    #[test]
    fn any_response_is_decided(
        values in proptest::collection::vec(
            prop_oneof![
                "[ -~]{0,24}".prop_map(String::into_bytes),
                "(no-store|private|public|must-revalidate|max-age=[0-9]{1,3}|, ){0,4}".prop_map(String::into_bytes),
                proptest::collection::vec(any::<u8>(), 0..16),
            ],
            12,
        ),
        status in 100_u16..1000, method in "GET|QUERY|POST|HEAD|PUT", authorized in any::<bool>(),
    ) {
        let names = [
            "cache-control", "cache-control", "cdn-cache-control", "expires", "date", "age", "last-modified", "vary",
            "content-location", "connection", "set-cookie", "content-range",
        ];
        let mut response = HeaderMap::new();
        for (name, value) in names.iter().zip(&values) {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                response.append(*name, value);
            }
        }
        let mut request = HeaderMap::new();
        if authorized {
            request.append("authorization", HeaderValue::from_static("Basic x"));
        }
        let (method, target) = (Method::from_bytes(method.as_bytes()).unwrap(), Uri::from_static("https://a/"));
        let facts = RequestFacts { method: &method, headers: &request, target: &target };
        let (policy, status, now) = (CachePolicy::default(), StatusCode::from_u16(status).unwrap(), UNIX_EPOCH);
        let directives = ResponseDirectives::parse(&response, &policy);
        if let Storable::Yes(meta) = storable(&facts, status, &response, &policy, now, now) {
            prop_assert!(!directives.no_store || directives.must_understand);
            prop_assert!(!directives.private.is_whole() && (!authorized || directives.permits_sharing()));
            prop_assert!(!status.is_informational() && status != StatusCode::NOT_MODIFIED);
            prop_assert_eq!(meta.no_cache, directives.no_cache.is_whole());
        }
        let stored = stored_headers(&response, &directives);
        prop_assert!(!stored.contains_key("age") && !stored.contains_key("connection"));
    }
}
