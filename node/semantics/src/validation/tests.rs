use std::time::{Duration, UNIX_EPOCH};

use http::Uri;
use proptest::prelude::*;

use super::*;
use crate::{FreshnessSource, Refusal, StoredMeta};

const EARLY: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const MIDDLE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const LATE: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    headers
}

fn get(request: &[(&str, &str)], stored: &[(&str, &str)]) -> Precondition {
    evaluate(&Method::GET, &headers(request), StatusCode::OK, &headers(stored))
}

/// RFC 9110 §13.1.2, §8.8.3.2: weak comparison, lists, several lines, `*`.
#[test]
fn if_none_match_compares_weakly() {
    use Precondition::{NotModified, Proceed};
    let cases: &[(&[&str], &str, Precondition)] = &[
        (&["\"a\""], "\"a\"", NotModified),
        (&["\"a\""], "W/\"a\"", NotModified),
        (&["W/\"a\""], "\"a\"", NotModified),
        (&["W/\"a\""], "W/\"a\"", NotModified),
        (&["\"b\""], "\"a\"", Proceed),
        (&["\"A\""], "\"a\"", Proceed),
        (&["\"b\", \"a\""], "\"a\"", NotModified),
        (&["\"b\"", "\"a\""], "\"a\"", NotModified),
        (&["\"b\",W/\"a\",,"], "\"a\"", NotModified),
        (&["\"b, \"a\""], "\"a\"", Proceed),
        (&["\"x,\"a\",y\""], ",y", Proceed),
        (&[r#""x\", "a""#], "\"a\"", NotModified),
        (&["\"a,b\""], "\"a,b\"", NotModified),
        (&["\"a\""], "\"a,b\"", Proceed),
        (&["*"], "\"a\"", NotModified),
        (&["\"*\""], "\"a\"", Proceed),
        (&["w/\"a\""], "\"a\"", Proceed),
        (&["a"], "a", NotModified),
        (&["a"], "\"a\"", Proceed),
        (&["b, a"], "a", NotModified),
        (&[""], "\"a\"", Proceed),
        (&["W/"], "\"a\"", Proceed),
    ];
    for (lines, tag, expected) in cases {
        let lines: Vec<_> = lines.iter().map(|line| ("if-none-match", *line)).collect();
        assert_eq!(get(&lines, &[("etag", tag)]), *expected, "{lines:?} {tag}");
    }
    assert_eq!(get(&[("if-none-match", "*")], &[]), NotModified);
    assert_eq!(get(&[("if-none-match", "\"a\"")], &[]), Proceed);
}

/// RFC 9110 §13.1.3, RFC 9111 §4.3.2.
#[test]
fn if_modified_since_compares_dates() {
    use Precondition::{NotModified, Proceed};
    let stored = [("last-modified", MIDDLE), ("date", LATE)];
    for (since, expected) in [
        (EARLY, Proceed),
        (MIDDLE, NotModified),
        (LATE, NotModified),
        ("Sunday, 06-Nov-94 08:49:37 GMT", NotModified),
        ("garbage", Proceed),
        ("0", Proceed),
    ] {
        assert_eq!(get(&[("if-modified-since", since)], &stored), expected, "{since}");
    }
    let undated = [("date", MIDDLE)];
    assert_eq!(get(&[("if-modified-since", EARLY)], &undated), Proceed);
    assert_eq!(get(&[("if-modified-since", MIDDLE)], &undated), NotModified, "by Date where Last-Modified is missing");
    assert_eq!(get(&[("if-modified-since", MIDDLE)], &[]), Proceed);
    assert_eq!(get(&[("if-modified-since", LATE), ("if-modified-since", LATE)], &stored), Proceed, "no date");
}

/// RFC 9110 §13.2.2: the order in which preconditions count.
#[test]
fn preconditions_have_an_order() {
    use Precondition::{Failed, NotModified, Proceed};
    let stored = [("etag", "\"a\""), ("last-modified", MIDDLE)];
    let weak = [("etag", "W/\"a\"")];
    let cases: &[(&[(&str, &str)], Precondition)] = &[
        (&[("if-none-match", "\"b\""), ("if-modified-since", LATE)], Proceed),
        (&[("if-none-match", "\"a\""), ("if-modified-since", EARLY)], NotModified),
        (&[("if-match", "\"a\"")], Proceed),
        (&[("if-match", "*")], Proceed),
        (&[("if-match", "\"b\"")], Failed),
        (&[("if-match", "W/\"a\"")], Failed),
        (&[("if-match", "\"b\", \"a\"")], Proceed),
        (&[("if-match", "\"a\""), ("if-unmodified-since", EARLY)], Proceed),
        (&[("if-match", "\"a\""), ("if-none-match", "\"a\"")], NotModified),
        (&[("if-match", "\"b\""), ("if-none-match", "\"a\"")], Failed),
        (&[("if-unmodified-since", EARLY)], Failed),
        (&[("if-unmodified-since", MIDDLE)], Proceed),
        (&[("if-unmodified-since", "garbage")], Proceed),
        (&[], Proceed),
    ];
    for (request, expected) in cases {
        assert_eq!(get(request, &stored), *expected, "{request:?}");
    }
    assert_eq!(get(&[("if-match", "W/\"a\"")], &weak), Failed, "strong comparison");
    assert!(has_origin_preconditions(&headers(&[("if-match", "*")])));
    assert!(has_origin_preconditions(&headers(&[("if-unmodified-since", LATE)])));
    assert!(!has_origin_preconditions(&headers(&[("if-none-match", "*"), ("if-modified-since", LATE)])));
}

/// RFC 9110 §13.2.1, §13.1.2.
#[test]
fn only_a_success_is_conditional() {
    let (request, stored) = (headers(&[("if-none-match", "\"a\"")]), headers(&[("etag", "\"a\"")]));
    let decide =
        |method: Method, status: u16| evaluate(&method, &request, StatusCode::from_u16(status).unwrap(), &stored);
    assert_eq!(decide(Method::HEAD, 200), Precondition::NotModified);
    assert_eq!(decide(Method::GET, 203), Precondition::NotModified);
    assert_eq!(decide(Method::PUT, 200), Precondition::Failed);
    for status in [301, 404, 410, 500] {
        assert_eq!(decide(Method::GET, status), Precondition::Proceed, "{status}");
    }
}

/// RFC 9111 §4.3.1: the stored validators take the place of the client's conditions.
#[test]
fn a_validation_carries_the_stored_validators() {
    let client = [
        ("if-none-match", "\"mine\""),
        ("if-modified-since", EARLY),
        ("if-range", "\"mine\""),
        ("range", "bytes=0-1"),
        ("if-match", "\"x\""),
        ("accept", "*/*"),
    ];
    let conditional = |stored: &[(&str, &str)]| {
        let mut forward = headers(&client);
        let has_validator = make_conditional(&mut forward, &headers(stored));
        let text = |name: &str| forward.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert!(forward.contains_key("accept") && forward.contains_key("if-match"));
        assert!(!forward.contains_key("range") && !forward.contains_key("if-range"));
        (has_validator, text("if-none-match"), text("if-modified-since"))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(conditional(&[("etag", "W/\"a\""), ("last-modified", MIDDLE)]), (true, some("W/\"a\""), some(MIDDLE)));
    assert_eq!(conditional(&[("etag", "\"a\"")]), (true, some("\"a\""), None));
    assert_eq!(conditional(&[("last-modified", MIDDLE)]), (true, None, some(MIDDLE)));
    assert_eq!(conditional(&[("last-modified", "garbage")]), (false, None, None));
    assert_eq!(conditional(&[]), (false, None, None));
}

#[test]
fn the_tags_of_all_variants_are_offered() {
    let stored =
        [headers(&[("etag", "\"a\"")]), headers(&[]), headers(&[("etag", "W/\"b\"")]), headers(&[("etag", "\"a\"")])];
    let mut forward = headers(&[("if-none-match", "\"mine\""), ("if-modified-since", LATE)]);
    assert!(make_conditional_on_any(&mut forward, &stored));
    assert_eq!(forward, headers(&[("if-none-match", "\"a\", W/\"b\"")]));
    assert!(!make_conditional_on_any(&mut forward, &stored[1..2]));
    assert!(forward.is_empty());
    assert!(!make_conditional_on_any(&mut forward, &[headers(&[("etag", "odd, tag")])]));
}

/// RFC 9111 §4.3.4.
#[test]
fn a_304_selects_what_it_freshens() {
    let stored = headers(&[("etag", "\"a\""), ("last-modified", MIDDLE)]);
    let cases = [
        (vec![("etag", "\"a\"")], true, true),
        (vec![("etag", "\"a\""), ("last-modified", LATE)], true, true),
        (vec![("etag", "W/\"a\"")], true, true),
        (vec![("etag", "\"b\"")], false, false),
        (vec![("last-modified", MIDDLE)], true, true),
        (vec![("last-modified", LATE)], false, false),
        (vec![], true, false),
    ];
    for (not_modified, alone, among_others) in cases {
        assert_eq!(not_modified_selects(&headers(&not_modified), &stored, true), alone, "{not_modified:?}");
        assert_eq!(not_modified_selects(&headers(&not_modified), &stored, false), among_others, "{not_modified:?}");
    }
    let weak = headers(&[("etag", "W/\"a\"")]);
    assert!(!not_modified_selects(&headers(&[("etag", "\"a\"")]), &weak, false), "a strong tag selects a strong one");
    assert!(!not_modified_selects(&headers(&[("etag", "\"a\"")]), &headers(&[]), true));
}

/// RFC 9111 §3.2: all fields but those that describe the stored content.
#[test]
fn a_304_updates_the_stored_fields() {
    let stored = headers(&[
        ("cache-control", "max-age=1"),
        ("content-length", "5"),
        ("content-type", "text/plain"),
        ("content-encoding", "gzip"),
        ("x-kept", "1"),
        ("x-many", "1"),
        ("x-many", "2"),
        ("date", EARLY),
    ]);
    let not_modified = headers(&[
        ("cache-control", "max-age=9"),
        ("content-length", "0"),
        ("content-type", "text/html"),
        ("content-encoding", "br"),
        ("content-range", "bytes 0-1/2"),
        ("age", "7"),
        ("set-cookie", "a=b"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("x-many", "3"),
        ("x-new", "1"),
        ("x-new", "2"),
        ("date", LATE),
    ]);
    let expected = headers(&[
        ("content-length", "5"),
        ("content-type", "text/plain"),
        ("content-encoding", "gzip"),
        ("x-kept", "1"),
        ("cache-control", "max-age=9"),
        ("x-many", "3"),
        ("x-new", "1"),
        ("x-new", "2"),
        ("date", LATE),
    ]);
    assert_eq!(freshen(&stored, &not_modified, UNIX_EPOCH), expected);
    let undated = freshen(&stored, &headers(&[]), UNIX_EPOCH + Duration::from_secs(784_111_778));
    assert_eq!(undated["date"], LATE, "a 304 without Date was made when it arrived");
}

fn freshened_by(
    request: &[(&str, &str)],
    stored: &[(&str, &str)],
    not_modified: &[(&str, &str)],
) -> (HeaderMap, Storable) {
    let (fields, target) = (headers(request), Uri::from_static("https://a/"));
    let facts = RequestFacts { method: &Method::GET, headers: &fields, target: &target };
    let (sent, received) =
        (UNIX_EPOCH + Duration::from_secs(784_111_777), UNIX_EPOCH + Duration::from_secs(784_111_778));
    let (stored, not_modified) = (headers(stored), headers(not_modified));
    let fresh = freshened(&facts, StatusCode::OK, &stored, &not_modified, &CachePolicy::default(), sent, received);
    (fresh.headers, fresh.storable)
}

fn meta(storable: &Storable) -> &StoredMeta {
    match storable {
        Storable::Yes(meta) => meta,
        Storable::No(refusal) => panic!("{refusal:?}"),
    }
}

/// RFC 9111 §4.3.4: freshness is reckoned anew from the updated fields and the 304's own age.
#[test]
fn freshness_comes_from_the_304() {
    let stored = [("cache-control", "max-age=60"), ("date", "Sun, 06 Nov 1994 08:00:00 GMT"), ("etag", "\"a\"")];
    let (kept, storable) = freshened_by(&[], &stored, &[("date", LATE)]);
    assert_eq!(
        (meta(&storable).freshness_lifetime, meta(&storable).initial_age),
        (Duration::from_secs(60), Duration::from_secs(1))
    );
    assert_eq!(kept["date"], LATE);

    let (headers, storable) = freshened_by(&[], &stored, &[("age", "30"), ("cache-control", "max-age=90")]);
    assert_eq!(
        (meta(&storable).freshness_lifetime, meta(&storable).initial_age),
        (Duration::from_secs(90), Duration::from_secs(31))
    );
    assert!(!headers.contains_key("age"));
    assert_eq!(meta(&storable).freshness_source, FreshnessSource::MaxAge);
}

/// RFC 9111 §3: a 304 that may not be stored changes nothing that is.
#[test]
fn a_304_may_be_for_one_use_only() {
    let stored = [("cache-control", "max-age=60"), ("etag", "\"a\"")];
    let refused = |request: &[(&str, &str)], not_modified: &[(&str, &str)]| match freshened_by(
        request,
        &stored,
        not_modified,
    )
    .1
    {
        Storable::Yes(_) => None,
        Storable::No(refusal) => Some(refusal),
    };
    assert_eq!(refused(&[], &[("cache-control", "no-store")]), Some(Refusal::NoStore));
    assert_eq!(refused(&[], &[("cache-control", "private")]), Some(Refusal::Private));
    assert_eq!(refused(&[("authorization", "x")], &[]), Some(Refusal::Authorization));
    assert_eq!(refused(&[], &[("set-cookie", "a=b")]), None, "the cookie is not stored");
    let (headers, _) =
        freshened_by(&[], &stored, &[("cache-control", "max-age=9, no-cache=\"x\""), ("x", "1"), ("y", "1")]);
    assert!(!headers.contains_key("x") && headers.contains_key("y"));
}

/// RFC 9111 §4.3.5.
#[test]
fn a_head_response_freshens_or_invalidates() {
    let stored = headers(&[("etag", "\"a\""), ("last-modified", MIDDLE)]);
    let cases: &[(&[(&str, &str)], HeadUpdate)] = &[
        (&[], HeadUpdate::Freshen),
        (&[("etag", "\"a\""), ("content-length", "5")], HeadUpdate::Freshen),
        (&[("etag", "\"b\"")], HeadUpdate::Invalidate),
        (&[("last-modified", LATE)], HeadUpdate::Invalidate),
        (&[("etag", "\"a\""), ("content-length", "6")], HeadUpdate::Invalidate),
    ];
    for (head, expected) in cases {
        assert_eq!(head_update(&stored, Some(5), StatusCode::OK, &headers(head)), *expected, "{head:?}");
    }
    assert_eq!(head_update(&stored, None, StatusCode::OK, &headers(&[("content-length", "6")])), HeadUpdate::Freshen);
    assert_eq!(head_update(&stored, Some(5), StatusCode::NOT_FOUND, &headers(&[])), HeadUpdate::Nothing);
}

/// RFC 9110 §15.4.5.
#[test]
fn a_304_leaves_out_what_describes_the_content() {
    let kept = [
        ("cache-control", "max-age=1"),
        ("content-location", "/a"),
        ("date", LATE),
        ("etag", "\"a\""),
        ("expires", LATE),
        ("vary", "a"),
        ("access-control-allow-origin", "*"),
        ("content-security-policy", "x"),
    ];
    let mut stored = headers(&kept);
    for name in
        ["content-length", "content-type", "content-encoding", "content-language", "last-modified", "trailer", "digest"]
    {
        stored.insert(name, HeaderValue::from_static("1"));
    }
    assert_eq!(not_modified_headers(&stored), headers(&kept));
    let dated = headers(&[("last-modified", LATE)]);
    assert_eq!(not_modified_headers(&dated), dated, "the only validator stays");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_tag_list_makes_the_parser_panic(line in "[ -~]{0,40}", tag in "W?/?\"?[a-z,]{0,5}\"?") {
        let request = [("if-none-match", line.as_str()), ("if-match", line.as_str())];
        let _ = get(&request, &[("etag", &tag)]);
        let tags = Tags { rest: line.as_bytes() };
        prop_assert_eq!(tags.filter(|tag| tag.is_empty()).count(), 0);
    }
}
