use proptest::prelude::*;

use super::*;

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

fn response(lines: &[(&str, &str)]) -> ResponseDirectives {
    ResponseDirectives::parse(&headers(lines), &CachePolicy::default())
}

fn cache_control(value: &str) -> ResponseDirectives {
    response(&[("cache-control", value)])
}

fn secs(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

/// RFC 9111 §4.2.1, §5.2.2.1: an invalid lifetime is zero, so the response is stale; quoted numbers are accepted.
#[test]
fn max_age_is_read_strictly() {
    let cases = [
        ("max-age=3600", secs(3600)),
        ("MAX-AGE=3600", secs(3600)),
        ("MaX-aGe=3600", secs(3600)),
        ("max-age=\"3600\"", secs(3600)),
        ("max-age=\"36\\00\"", secs(3600)),
        ("max-age=003600", secs(3600)),
        ("max-age=99999999999", secs(1 << 31)),
        ("max-age=9999999999999999999999999", secs(1 << 31)),
        ("public,max-age=3600", secs(3600)),
        ("  ,,public ,\tmax-age=3600 ,", secs(3600)),
        ("foo=\"max-age=1\", max-age=3600", secs(3600)),
        ("foo=\"a, max-age=1, b\", max-age=3600", secs(3600)),
        ("max-age=0", secs(0)),
        ("max-age", secs(0)),
        ("max-age=", secs(0)),
        ("max-age=-3600", secs(0)),
        ("max-age=+3600", secs(0)),
        ("max-age=3600.0", secs(0)),
        ("max-age=3600,5", secs(3600)),
        ("max-age=3600s", secs(0)),
        ("max-age=abc", secs(0)),
        ("max-age='3600'", secs(0)),
        ("max-age=\"3600", secs(0)),
        ("max-age=\"3600\"x", secs(0)),
        ("max-age=\"\"", secs(0)),
        ("max-age=\" 3600\"", secs(0)),
        ("max-age=\"3600,5\"", secs(0)),
        ("max-age=3600;x=1", secs(0)),
        ("max-age=3600 5", secs(0)),
        ("max-age==3600", secs(0)),
        ("max-age=0x10", secs(0)),
        ("max-age=1e3", secs(0)),
        ("max-age=2147483649", secs(1 << 31)),
        ("max-age=\t3600", secs(0)),
        ("max-age= 3600", secs(0)),
        ("max-age =3600", secs(0)),
        ("max-age: 3600", None),
        ("max-age3600", None),
        ("xmax-age=3600", None),
        ("foo=\"max-age=3600\"", None),
        ("max age=3600", None),
        ("", None),
    ];
    for (value, expected) in cases {
        assert_eq!(cache_control(value).max_age, expected, "{value:?}");
    }
}

/// RFC 9111 §4.2.1: of several values the most restrictive counts, on one line or more.
#[test]
fn the_most_restrictive_of_duplicates_counts() {
    let cases: &[(&[&str], Option<Duration>)] = &[
        (&["max-age=1800, max-age=1"], secs(1)),
        (&["max-age=1, max-age=1800"], secs(1)),
        (&["max-age=1800", "max-age=1"], secs(1)),
        (&["max-age=1800", "max-age=abc"], secs(0)),
        (&["max-age=1800", "", "public"], secs(1800)),
    ];
    for (lines, expected) in cases {
        let lines: Vec<_> = lines.iter().map(|line| ("cache-control", *line)).collect();
        assert_eq!(response(&lines).max_age, *expected, "{lines:?}");
    }
    let both = cache_control("public, no-store, private, max-age=60, s-maxage=30, s-maxage=40");
    assert!(both.public && both.no_store && both.private.is_whole());
    assert_eq!((both.max_age, both.s_maxage), (secs(60), secs(30)));
}

/// RFC 9111 §5.2.2, RFC 5861, RFC 8246: each directive by its name, whatever its argument is.
#[test]
fn every_directive_is_known() {
    let all = cache_control(
        "No-Store, NO-CACHE, private, public, must-revalidate, proxy-revalidate, must-understand, no-transform, immutable, \
         max-age=1, s-maxage=2, stale-while-revalidate=3, stale-if-error=4, unknown, other=\"x\"",
    );
    let expected = ResponseDirectives {
        source: ControlSource::CacheControl,
        no_store: true,
        no_cache: Qualified::Whole,
        private: Qualified::Whole,
        public: true,
        must_revalidate: true,
        proxy_revalidate: true,
        must_understand: true,
        no_transform: true,
        immutable: true,
        max_age: secs(1),
        s_maxage: secs(2),
        stale_while_revalidate: secs(3),
        stale_if_error: secs(4),
        permits_sharing: true,
    };
    assert_eq!(all, expected);
    assert!(cache_control("no-store=x").no_store);
    assert!(cache_control("no-store =").no_store);
    assert!(!cache_control("no-storex, x-no-store, foo=no-store, foo=\"no-store\"").no_store);
    for restriction in ["must-revalidate", "proxy-revalidate", "no-store"] {
        let argued = cache_control(&format!("{restriction}=x"));
        assert!(argued.must_revalidate || argued.proxy_revalidate || argued.no_store, "{restriction}");
    }
    assert_eq!(cache_control("stale-while-revalidate=x").stale_while_revalidate, secs(0));
    assert_eq!(response(&[]), ResponseDirectives::default());
}

/// RFC 9111 §5.2.2: "no argument is defined (nor allowed)": what is written so permits nothing.
#[test]
fn an_argument_makes_a_permission_invalid() {
    for argument in ["=1", "=\"\"", "=", " ", "=x y"] {
        let permits = argument == " ";
        let parsed = cache_control(&format!("public{argument}, must-understand{argument}, immutable{argument}"));
        assert_eq!([parsed.public, parsed.must_understand, parsed.immutable], [permits; 3], "{argument:?}");
    }
    assert!(cache_control("public=x, public").public);
}

/// RFC 9111 §3.5.
#[test]
fn sharing_is_permitted_by_valid_directives_only() {
    let cases = [
        ("public", true),
        ("must-revalidate", true),
        ("s-maxage=0", true),
        ("s-maxage=\"5\"", true),
        ("s-maxage=5, s-maxage=x", true),
        ("public=x", false),
        ("must-revalidate=x", false),
        ("must-revalidate =", false),
        ("s-maxage", false),
        ("s-maxage=x", false),
        ("s-maxage=-1", false),
        ("proxy-revalidate, max-age=5, immutable, no-cache=\"a\"", false),
    ];
    for (value, expected) in cases {
        assert_eq!(cache_control(value).permits_sharing(), expected, "{value}");
    }
    assert!(response(&[("cdn-cache-control", "s-maxage=1"), ("cache-control", "max-age=1")]).permits_sharing());
    assert!(!response(&[("cdn-cache-control", "max-age=1"), ("cache-control", "public")]).permits_sharing());
}

/// RFC 9110 §5.6.4: a quoted string that does not end is none. What others may take for its content restricts and permits nothing.
#[test]
fn behind_an_open_quote_only_restrictions_count() {
    let open = |value: &str| cache_control(&format!("x=\"y, {value}"));
    assert!(open("no-store").no_store && open("must-revalidate").must_revalidate);
    assert!(open("private").private.is_whole() && open("no-cache=\"a\"").no_cache.is_whole());
    assert_eq!(open("max-age=60").max_age, secs(0));
    assert_eq!(open("s-maxage=60").s_maxage, secs(0));
    assert_eq!(open("stale-if-error=60, stale-while-revalidate=60").stale_if_error, secs(0));
    assert!(
        !open("public").public && !open("must-understand").must_understand && !open("s-maxage=60").permits_sharing()
    );
    assert_eq!(cache_control("max-age=60, x=\"y").max_age, secs(60), "what comes before it is sound");
    let next_line = response(&[("cache-control", "x=\"y"), ("cache-control", "max-age=60, public")]);
    assert!(next_line.max_age == secs(60) && next_line.public, "so is another line");
    assert_eq!(cache_control("x=\"\\\", max-age=60").max_age, secs(0), "an escaped quote closes nothing");
    assert_eq!(request(&[("cache-control", "x=\"y, max-stale=9")]).max_stale, Some(MaxStale::Within(Duration::ZERO)));
}

/// RFC 9111 §5.2.2.4, §5.2.2.7: with field names, the rest of the response is free.
#[test]
fn qualified_directives_name_fields() {
    let names =
        |names: &[&'static str]| Qualified::Fields(names.iter().map(|name| HeaderName::from_static(name)).collect());
    let cases = [
        ("no-cache=\"a\"", names(&["a"])),
        ("no-cache=\"A, b\"", names(&["a", "b"])),
        ("no-cache=\" a ,, b \"", names(&["a", "b"])),
        ("no-cache=a", names(&["a"])),
        ("no-cache=\"a\", no-cache=\"b\"", names(&["a", "b"])),
        ("no-cache=\"a\", no-cache", Qualified::Whole),
        ("no-cache, no-cache=\"a\"", Qualified::Whole),
        ("no-cache=\"\"", Qualified::Whole),
        ("no-cache=", Qualified::Whole),
        ("no-cache=\"a", Qualified::Whole),
        ("no-cache=\"a b\"", Qualified::Whole),
        ("no-cache = \"a\"", Qualified::Whole),
        ("max-age=1", Qualified::Absent),
    ];
    for (value, expected) in cases {
        assert_eq!(cache_control(value).no_cache, expected, "{value}");
        assert_eq!(cache_control(&value.replace("no-cache", "private")).private, expected, "{value}");
    }
    let many = format!("private=\"{}\"", vec!["a"; QUALIFIED_FIELDS_MAX + 1].join(","));
    assert_eq!(cache_control(&many).private, Qualified::Whole);
}

/// RFC 9213 §2.1: a valid, non-empty targeted field replaces `Cache-Control`; any other is as if it were absent.
#[test]
fn targeted_fields_replace_or_fall_back() {
    let replacing = [
        ("max-age=10", secs(10)),
        ("max-age=10;foo=bar", secs(10)),
        ("max-age=10, x=(1 2);y, no-transform", secs(10)),
        ("max-age=1, max-age=10", secs(10)), // RFC 9651 §4.2.2: of equal keys the last is the dictionary's.
        ("max-age=\"10\"", secs(0)),
        ("max-age=-10", secs(0)),
        ("max-age=10.5", secs(0)),
        ("max-age=10.0", secs(0)),
        ("max-age=?1", secs(0)),
        ("max-age=(10)", secs(0)),
        ("max-age=:MTA=:", secs(0)),
        ("max-age=@10", secs(0)),
        ("max-age=010", secs(10)),
        ("max-age=-0", secs(0)),
        ("max-age=20, max-age=10", secs(10)),
        ("max-age=10, max-age=20", secs(20)),
        ("s-maxage=5, max-age=10", secs(10)),
        ("max-age=10, stale-if-error=1.5", secs(10)),
        ("x;y=1, max-age=10", secs(10)),
        ("  max-age=10  ", secs(10)),
        ("max-age=10 ,\tx", secs(10)),
        ("max-age=abc", secs(0)),
        ("max-age", secs(0)),
        ("max-age=999999999999", secs(1 << 31)),
        ("must-revalidate", None),
        ("unknown", None),
    ];
    for (value, expected) in replacing {
        let parsed = response(&[("cdn-cache-control", value), ("cache-control", "no-store, max-age=60")]);
        assert!(parsed.is_targeted(), "{value}");
        assert!(!parsed.no_store, "{value}");
        assert_eq!(parsed.max_age, expected, "{value}");
    }
    for value in [
        "",
        "   ",
        "max-age=",
        "MAX-AGE=10",
        "max-age=10,",
        "max-age=10 foo",
        "max-age: 10",
        "&",
        "max-age=9999999999999999",
        "max-age =10",
        "max-age= 10",
        "max-age=+10",
        "max-age=10.",
        "max-age=\"10",
        "max-age=\"\u{e4}\"",
        "max-age=10;",
        "max-age=10;X=1",
        ",max-age=10",
        "max-age=10,,x",
        "no-store, Private",
        "\"max-age\"=10",
    ] {
        let parsed = response(&[("cdn-cache-control", value), ("cache-control", "max-age=60")]);
        assert_eq!(parsed.source, ControlSource::CacheControl, "{value}");
        assert_eq!(parsed.max_age, secs(60), "{value}");
    }
}

/// RFC 9213 §2.1.
#[test]
fn targeted_values_are_mapped_to_arguments() {
    let parsed =
        response(&[("cdn-cache-control", "no-store=?0, no-cache=\"a, b\", private"), ("cdn-cache-control", "public")]);
    assert!(!parsed.no_store && parsed.public && parsed.private.is_whole());
    assert_eq!(parsed.no_cache.fields().len(), 2);
    assert!(response(&[("cdn-cache-control", "no-store;x=1")]).no_store);
    assert!(response(&[("cdn-cache-control", "no-store=5")]).no_store, "an invalid restriction restricts");
    assert!(!response(&[("cdn-cache-control", "public=5")]).public, "an invalid permission permits nothing");
    for whole in ["private=(\"a\" \"b\")", "private=5", "private=a", "private=\"\"", "private=\"a b\"", "private=?1"] {
        assert!(response(&[("cdn-cache-control", whole)]).private.is_whole(), "{whole}");
    }
    // RFC 9651 §4.2: several lines are one value, so an empty one among them leaves a comma with nothing behind it.
    let broken = response(&[("cdn-cache-control", "max-age=5"), ("cdn-cache-control", "")]);
    assert_eq!(broken.source, ControlSource::Absent);
    let joined = response(&[("cdn-cache-control", "max-age=5"), ("cdn-cache-control", "max-age=9, no-cache")]);
    assert_eq!((joined.max_age, joined.no_cache.is_whole()), (secs(9), true));
}

/// RFC 9213 §2.2: the target list's order decides, not the message's.
#[test]
fn the_first_valid_target_counts() {
    let policy = CachePolicy {
        targeted_fields: vec![
            HeaderName::from_static("brim-cache-control"),
            HeaderName::from_static("cdn-cache-control"),
        ],
        ..CachePolicy::default()
    };
    let parse = |ours: &str| {
        let lines = [("cdn-cache-control", "max-age=2"), ("brim-cache-control", ours), ("cache-control", "max-age=3")];
        ResponseDirectives::parse(&headers(&lines), &policy).max_age
    };
    assert_eq!(parse("max-age=1"), secs(1));
    assert_eq!(parse("max-age=1;;"), secs(2));
    assert_eq!(parse(""), secs(2));
}

fn request(lines: &[(&str, &str)]) -> RequestDirectives {
    RequestDirectives::parse(&headers(lines))
}

/// RFC 9111 §5.2.1.
#[test]
fn request_directives_are_read() {
    let none = RequestDirectives::default();
    let cases = [
        ("no-cache", RequestDirectives { no_cache: true, ..none }),
        ("No-Store", RequestDirectives { no_store: true, ..none }),
        ("only-if-cached", RequestDirectives { only_if_cached: true, ..none }),
        ("no-transform", RequestDirectives { no_transform: true, ..none }),
        ("max-age=5", RequestDirectives { max_age: secs(5), ..none }),
        ("max-age=\"5\", max-age=9", RequestDirectives { max_age: secs(5), ..none }),
        ("max-age=x", RequestDirectives { max_age: secs(0), ..none }),
        ("min-fresh=5, min-fresh=9", RequestDirectives { min_fresh: secs(9), ..none }),
        ("min-fresh=x", RequestDirectives { min_fresh: secs(1 << 31), ..none }),
        ("max-stale", RequestDirectives { max_stale: Some(MaxStale::Any), ..none }),
        ("max-stale=5", RequestDirectives { max_stale: Some(MaxStale::Within(Duration::from_secs(5))), ..none }),
        (
            "max-stale=5, max-stale",
            RequestDirectives { max_stale: Some(MaxStale::Within(Duration::from_secs(5))), ..none },
        ),
        (
            "max-stale, max-stale=5",
            RequestDirectives { max_stale: Some(MaxStale::Within(Duration::from_secs(5))), ..none },
        ),
        ("max-stale=x", RequestDirectives { max_stale: Some(MaxStale::Within(Duration::ZERO)), ..none }),
        ("stale-if-error=60", RequestDirectives { stale_if_error: secs(60), ..none }),
        ("stale-if-error=60, stale-if-error=x", RequestDirectives { stale_if_error: secs(0), ..none }),
        ("max-age=99999999999", RequestDirectives { max_age: secs(1 << 31), ..none }),
        ("max-stale=\"5\"", RequestDirectives { max_stale: Some(MaxStale::Within(Duration::from_secs(5))), ..none }),
        ("max-stale=", RequestDirectives { max_stale: Some(MaxStale::Within(Duration::ZERO)), ..none }),
        ("no-cache=x", RequestDirectives { no_cache: true, ..none }),
        ("max-age=1, , no-store,", RequestDirectives { max_age: secs(1), no_store: true, ..none }),
        ("s-maxage=5, public, foo", none),
    ];
    for (value, expected) in cases {
        assert_eq!(request(&[("cache-control", value)]), expected, "{value}");
    }
}

/// RFC 9111 §5.4: `Pragma` counts only where `Cache-Control` is absent.
#[test]
fn pragma_stands_in_for_an_absent_cache_control() {
    assert!(request(&[("pragma", "no-cache")]).no_cache);
    assert!(request(&[("pragma", "foo, No-Cache")]).no_cache);
    assert!(!request(&[("pragma", "foo")]).no_cache);
    assert!(!request(&[("pragma", "no-cache"), ("cache-control", "max-stale")]).no_cache);
    assert!(!request(&[("pragma", "no-cache"), ("cache-control", "")]).no_cache);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Nothing behind a directive can loosen it; nothing before it can hide it, unless it closes a quoted string around it.
    #[test]
    fn more_text_never_loosens(before in "[a-z=, \"]{0,20}", age in 0_u64..100, after in "[a-z0-9=, \"-]{0,30}") {
        let alone = cache_control(&format!("no-store, max-age={age}"));
        let more = cache_control(&format!("no-store, max-age={age}, {after}"));
        prop_assert!(more.no_store && more.max_age <= alone.max_age);
        let behind = cache_control(&format!("{before}, no-store, max-age={age}"));
        prop_assert!(behind.no_store && behind.max_age <= alone.max_age, "{before:?}");
    }

    /// No bytes make a parser panic.
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "[a-z=\"\\\\,;? ()0-9.-]{0,40}") {
        for line in [HeaderValue::from_bytes(&bytes), HeaderValue::from_bytes(text.as_bytes())].into_iter().flatten() {
            let mut fields = HeaderMap::new();
            for name in ["cache-control", "cdn-cache-control", "pragma"] {
                fields.append(name, line.clone());
                fields.append(name, HeaderValue::from_static("max-age=1"));
            }
            let _ = RequestDirectives::parse(&fields);
            let _ = ResponseDirectives::parse(&fields, &CachePolicy::default());
            let untargeted = CachePolicy { targeted_fields: vec![], ..CachePolicy::default() };
            prop_assert!(ResponseDirectives::parse(&fields, &untargeted).max_age.is_some());
        }
    }
}
