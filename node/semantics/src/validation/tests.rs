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

/// When [`MIDDLE`] is.
fn middle() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(784_111_777)
}

/// Of a response stored at [`MIDDLE`].
fn get(request: &[(&str, &str)], stored: &[(&str, &str)]) -> Precondition {
    evaluate(&Method::GET, &headers(request), StatusCode::OK, &headers(stored), middle())
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
    for (since, expected) in [(EARLY, Proceed), (MIDDLE, NotModified), (LATE, NotModified)] {
        let since = [("if-modified-since", since)];
        assert_eq!(get(&since, &[]), expected, "by the time of receipt where Date is missing too");
        assert_eq!(get(&since, &[("date", "garbage"), ("last-modified", "0")]), expected, "or no date");
        assert_eq!(get(&since, &[("last-modified", "garbage"), ("date", EARLY)]), NotModified, "by Date");
        let tagged = [("etag", "\"a\""), ("date", MIDDLE)];
        assert_eq!(get(&since, &tagged), expected, "an entity tag that was not asked for says nothing");
    }
    assert_eq!(get(&[("if-modified-since", LATE)], &[("last-modified", MIDDLE), ("date", EARLY)]), NotModified);
    assert_eq!(get(&[("if-modified-since", MIDDLE)], &[("last-modified", LATE), ("date", EARLY)]), Proceed);
    assert_eq!(get(&[("if-modified-since", "Sunday, 06-Nov-44 08:49:37 GMT")], &[]), NotModified, "50 years ahead");
    assert_eq!(get(&[("if-modified-since", "Sunday, 06-Nov-45 08:49:37 GMT")], &[]), Proceed, "49 years ago");
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
    let decide = |method: Method, status: u16| {
        evaluate(&method, &request, StatusCode::from_u16(status).unwrap(), &stored, middle())
    };
    assert_eq!(decide(Method::HEAD, 200), Precondition::NotModified);
    assert_eq!(decide(Method::GET, 203), Precondition::NotModified);
    assert_eq!(decide(Method::from_bytes(b"QUERY").unwrap(), 200), Precondition::NotModified, "RFC 10008");
    assert_eq!(decide(Method::GET, 206), Precondition::NotModified);
    assert_eq!(decide(Method::PUT, 200), Precondition::Failed);
    let since = headers(&[("if-modified-since", LATE)]);
    let put = evaluate(&Method::PUT, &since, StatusCode::OK, &stored, middle());
    assert_eq!(put, Precondition::Proceed, "RFC 9110 §13.1.3: for GET and HEAD");
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
        (vec![("etag", "\"b\""), ("last-modified", MIDDLE)], false, false),
        (vec![("etag", "\"a\""), ("etag", "\"a\"")], false, false),
        (vec![("last-modified", "Sunday, 06-Nov-94 08:49:37 GMT")], true, true),
        (vec![("last-modified", "garbage")], false, false),
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
    assert!(not_modified_selects(&headers(&[("etag", "\"a\"")]), &weak, true), "the only one that was offered");
    assert!(not_modified_selects(&headers(&[("etag", "W/\"a\"")]), &weak, false));
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
    let freshen =
        |not_modified: &HeaderMap| freshened_by_at(&[], &stored, not_modified, &CachePolicy::default()).headers;
    assert_eq!(freshen(&not_modified), expected);
    assert_eq!(freshen(&HeaderMap::new())["date"], LATE, "a 304 without Date was made when it arrived");
}

/// RFC 9110 §8.8.1: that the origin compares weakly does not make what is stored equal byte for byte.
#[test]
fn a_304_makes_no_tag_strong() {
    let updated = |stored: &str, now: &str| {
        let (fields, _) = freshened_by(&[], &[("cache-control", "max-age=9"), ("etag", stored)], &[("etag", now)]);
        fields["etag"].to_str().unwrap().to_owned()
    };
    assert_eq!(updated("W/\"a\"", "\"a\""), "W/\"a\"");
    assert_eq!(updated("W/\"a\"", "W/\"a\""), "W/\"a\"");
    assert_eq!(updated("\"a\"", "W/\"a\""), "W/\"a\"");
    assert_eq!(updated("\"a\"", "\"a\""), "\"a\"");
}

/// RFC 9111 §4.1: what is stored was selected by the fields that it nominated then; a 304 cannot widen that.
#[test]
fn a_304_that_nominates_more_is_for_one_use() {
    let stored = |vary: &'static str| [("cache-control", "max-age=9"), ("etag", "\"a\""), ("vary", vary)];
    let cases = [
        ("a, b", "b, A", None),
        ("a, b", "a", None),
        ("a", "a, a", None),
        ("a", "a, b", Some(Refusal::VaryChanged)),
        ("a", "b", Some(Refusal::VaryChanged)),
        ("", "b", Some(Refusal::VaryChanged)),
        ("a", "*", Some(Refusal::VaryStar)),
        ("a", "", None),
    ];
    for (then, now, expected) in cases {
        let refusal = match freshened_by(&[], &stored(then), &[("vary", now)]).1 {
            Storable::Yes(_) => None,
            Storable::No(refusal) => Some(refusal),
        };
        assert_eq!(refusal, expected, "{then:?} {now:?}");
    }
    assert!(matches!(freshened_by(&[], &stored("a"), &[]).1, Storable::Yes(_)), "a 304 need not repeat it");
}

/// RFC 9111 §5.2.2.4, §5.2.2.7, and safe by default: what a 304 says to one client is not kept for the others.
#[test]
fn one_client_gets_what_is_for_it() {
    let stored = headers(&[("cache-control", "max-age=9"), ("etag", "\"a\""), ("x-kept", "1")]);
    let not_modified = headers(&[
        ("cache-control", "max-age=9, private=\"X-Mine, x-absent, set-cookie, content-type, connection, age\""),
        ("cache-control", "no-cache=\"x-mine, x-also, x-hop\""),
        ("set-cookie", "a=b"),
        ("set-cookie", "c=d"),
        ("x-mine", "1"),
        ("x-mine", "2"),
        ("x-also", "1"),
        ("content-type", "x/y"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("age", "1"),
        ("x-all", "1"),
        ("date", LATE),
    ]);
    let for_client =
        headers(&[("set-cookie", "a=b"), ("set-cookie", "c=d"), ("x-mine", "1"), ("x-mine", "2"), ("x-also", "1")]);
    for store_set_cookie in [false, true] {
        let policy = CachePolicy { store_set_cookie, ..CachePolicy::default() };
        let fresh = freshened_by_at(&[], &stored, &not_modified, &policy);
        assert_eq!(fresh.for_client, for_client);
        let mut kept: Vec<_> = fresh.headers.keys().map(HeaderName::as_str).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["cache-control", "date", "etag", "x-all", "x-kept"]);
        assert!(matches!(fresh.storable, Storable::Yes(_)));
    }

    let newly_named = headers(&[("cache-control", "max-age=9, private=\"x-kept\"")]);
    let fresh = freshened_by_at(&[], &stored, &newly_named, &CachePolicy::default());
    assert!(!fresh.headers.contains_key("x-kept") && fresh.for_client.is_empty(), "another client's");

    let cookie = headers(&[("set-cookie", "a=b")]);
    let earlier = headers(&[("cache-control", "max-age=9"), ("etag", "\"a\""), ("set-cookie", "old=1")]);
    let policy = CachePolicy { store_set_cookie: true, ..CachePolicy::default() };
    let shared = freshened_by_at(&[], &earlier, &cookie, &policy);
    assert_eq!((shared.headers["set-cookie"].as_bytes(), shared.for_client.len()), (b"a=b".as_slice(), 0));
    let refused =
        freshened_by_at(&[], &stored, &headers(&[("cache-control", "no-store"), ("set-cookie", "a=b")]), &policy);
    assert!(matches!(refused.storable, Storable::No(Refusal::NoStore)));
    let stored_named = headers(&[("cache-control", "max-age=9, private=\"x\""), ("etag", "\"a\"")]);
    let unnamed = freshened_by_at(&[], &stored_named, &headers(&[("x", "1")]), &CachePolicy::default());
    assert_eq!(unnamed.for_client, headers(&[("x", "1")]), "the stored directive is in force still");
}

/// Validated from [`MIDDLE`] to [`LATE`].
fn freshened_by_at(
    request: &[(&str, &str)],
    stored: &HeaderMap,
    not_modified: &HeaderMap,
    policy: &CachePolicy,
) -> Freshened {
    let (fields, target) = (headers(request), Uri::from_static("https://a/"));
    let facts = RequestFacts { method: &Method::GET, headers: &fields, target: &target };
    freshened(&facts, StatusCode::OK, stored, not_modified, policy, middle(), middle() + Duration::from_secs(1))
}

fn freshened_by(
    request: &[(&str, &str)],
    stored: &[(&str, &str)],
    not_modified: &[(&str, &str)],
) -> (HeaderMap, Storable) {
    let fresh = freshened_by_at(request, &headers(stored), &headers(not_modified), &CachePolicy::default());
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
        (&[("etag", "W/\"a\"")], HeadUpdate::Invalidate),
        (&[("etag", "\"a\""), ("etag", "\"a\"")], HeadUpdate::Invalidate),
        (&[("content-length", "5"), ("content-length", "5")], HeadUpdate::Invalidate),
        (&[("content-length", "+5")], HeadUpdate::Invalidate),
        (&[("content-length", "99999999999999999999999")], HeadUpdate::Invalidate),
        (&[("content-length", "")], HeadUpdate::Invalidate),
        (&[("cache-control", "max-age=1"), ("x-new", "1")], HeadUpdate::Freshen),
    ];
    let ok = StatusCode::OK;
    for (head, expected) in cases {
        assert_eq!(head_update(ok, &stored, Some(5), ok, &headers(head)), *expected, "{head:?}");
    }
    let longer = headers(&[("content-length", "6")]);
    assert_eq!(head_update(ok, &stored, None, ok, &longer), HeadUpdate::Freshen, "nothing to compare with");
    let untagged = headers(&[]);
    assert_eq!(head_update(ok, &untagged, None, ok, &headers(&[("etag", "\"a\"")])), HeadUpdate::Invalidate);
    for status in [204, 301, 304, 404, 410, 500] {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(head_update(ok, &stored, Some(5), status, &headers(&[])), HeadUpdate::Nothing, "{status}");
        let other = head_update(status, &untagged, Some(0), ok, &headers(&[]));
        assert_eq!(other, HeadUpdate::Invalidate, "a stored {status} is no longer what a GET would give");
    }
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
        let request = [("if-none-match", line.as_str()), ("if-match", line.as_str()), ("if-modified-since", line.as_str())];
        for conditions in 1..=request.len() {
            let _ = get(&request[request.len() - conditions..], &[("etag", &tag)]);
        }
        let tags = Tags { rest: line.as_bytes() };
        prop_assert_eq!(tags.filter(|tag| tag.is_empty()).count(), 0);
    }

    /// Whatever a 304 says, nothing of one connection or one client is stored, and the content stays described as it is.
    #[test]
    fn no_304_changes_what_it_must_not(
        control in "(private|no-cache)?=?\"?[a-c, -]{0,12}\"?", bytes in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let stored = headers(&[("cache-control", "max-age=9"), ("etag", "\"a\""), ("content-length", "5")]);
        let mut not_modified =
            headers(&[("cache-control", &control), ("a", "1"), ("connection", "b"), ("b", "1"), ("set-cookie", "a=b")]);
        if let Ok(odd) = HeaderValue::from_bytes(&bytes) {
            for name in ["vary", "etag", "date", "age", "expires", "content-length"] {
                not_modified.append(name, odd.clone());
            }
        }
        let fresh = freshened_by_at(&[], &stored, &not_modified, &CachePolicy::default());
        prop_assert_eq!(&fresh.headers["content-length"], "5");
        for name in ["connection", "b", "age", "set-cookie"] {
            prop_assert!(!fresh.headers.contains_key(name), "{}", name);
        }
        prop_assert!(!fresh.for_client.contains_key("b") && fresh.for_client.contains_key("set-cookie"));
        prop_assert!(!(fresh.headers.contains_key("a") && fresh.for_client.contains_key("a")));
    }
}
