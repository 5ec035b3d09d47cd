use proptest::prelude::*;

use super::*;

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_bytes(text.as_bytes()).unwrap()
}

fn seconds(text: &str) -> Option<u64> {
    http_date(&value(text)).map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs())
}

/// RFC 9110 §5.6.7: three formats, the letters in any case.
#[test]
fn three_formats_are_dates() {
    let cases = [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777),
        ("Sun Nov  6 08:49:37 1994", 784_111_777),
        ("sun, 06 nov 1994 08:49:37 gmt", 784_111_777),
        ("SUN, 06 NOV 1994 08:49:37 GMT", 784_111_777),
        ("sUNDAY, 06-nOV-94 08:49:37 gMT", 784_111_777),
        ("sun nov 16 08:49:37 1994", 784_975_777),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Thu, 29 Feb 2024 23:59:60 GMT", 1_709_251_200),
        ("Sat, 01 Jan 2000 00:00:00 GMT", 946_684_800),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
        // Before 1970: in the past, which is all that matters.
        ("Mon, 01 Jan 0001 00:00:00 GMT", 0),
        ("Mon, 01 Jan 0000 00:00:00 GMT", 0),
        ("Wed, 31 Dec 1969 23:59:59 GMT", 0),
        // The name of the day is not compared with the date.
        ("Mon, 06 Nov 1994 08:49:37 GMT", 784_111_777),
        ("Friday, 06-Nov-94 08:49:37 GMT", 784_111_777),
        ("Sun Nov 06 08:49:37 1994", 784_111_777),
    ];
    for (text, expected) in cases {
        assert_eq!(seconds(text), Some(expected), "{text}");
    }
}

/// Everything else is no date: other zones, other separators, other lengths, days that no month has.
#[test]
fn anything_else_is_no_date() {
    let cases = [
        "",
        "0",
        "-1",
        "now",
        "784111777",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 PST",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        " Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37  GMT",
        "Sun 06 Nov 1994 08:49:37 GMT",
        "Sun,06 Nov 1994 08:49:37 GMT",
        "Sun,  06 Nov 1994 08:49:37 GMT",
        "Sun, 06  Nov 1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 06 Nov 01994 08:49:37 GMT",
        "Sun, 06 Nov -994 08:49:37 GMT",
        "Sun, +6 Nov 1994 08:49:37 GMT",
        "Sun,\t06 Nov 1994 08:49:37 GMT",
        "Sunday, 6-Nov-94 08:49:37 GMT",
        "Sunday, 06-Nov-94  08:49:37 GMT",
        "Sunday, 06 Nov 94 08:49:37 GMT",
        "Sunday 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6  08:49:37 1994",
        "Sun Nov  6 08:49:37 94",
        "Sun Nov  0 08:49:37 1994",
        "Sunday Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:37 GMT+1",
        "Sun, 06 Nov 1994 08:49:37 Z",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 November 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Sun, 06 Nov 1994 08.49.37 GMT",
        "Sun, 06 Nov 1994 08:49:37AM GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Wed, 29 Feb 2023 08:49:37 GMT",
        "Sxn, 06 Nov 1994 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov 06 08:49:37 1994 GMT",
        "1994-11-06T08:49:37Z",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
    ];
    for text in cases {
        assert_eq!(seconds(text), None, "{text:?}");
    }
}

/// §5.6.7: a two-digit year more than 50 years ahead is the most recent such year in the past.
#[test]
fn two_digit_years_are_read_from_the_present() {
    let received = http_date(&value("Mon, 23 Nov 2026 12:00:00 GMT")).unwrap();
    let cases = [
        ("06-Nov-26", "06 Nov 2026"),
        ("06-Nov-76", "06 Nov 2076"),
        ("22-Nov-76", "22 Nov 2076"),
        ("23-Nov-76", "23 Nov 2076"),
        // One day more than 50 years ahead.
        ("24-Nov-76", "24 Nov 1976"),
        ("06-Nov-77", "06 Nov 1977"),
        ("06-Nov-99", "06 Nov 1999"),
        ("06-Nov-00", "06 Nov 2000"),
    ];
    for (short, long) in cases {
        let short = value(&format!("Monday, {short} 08:49:37 GMT"));
        let long = value(&format!("Mon, {long} 08:49:37 GMT"));
        assert_eq!(http_date_at(&short, received), http_date(&long), "{short:?}");
    }
    let late = http_date(&value("Thu, 23 Nov 2079 12:00:00 GMT")).unwrap();
    let in_100 = value("Monday, 28-Feb-00 08:49:37 GMT");
    assert_eq!(http_date_at(&in_100, late), http_date(&value("Mon, 28 Feb 2100 08:49:37 GMT")), "20 years ahead");
    let leap_day = value("Tuesday, 29-Feb-00 08:49:37 GMT");
    assert_eq!(
        http_date_at(&leap_day, late),
        http_date(&value("Tue, 29 Feb 2000 08:49:37 GMT")),
        "2100 has no such day"
    );
}

/// The clock of this node is not a peer's word, but it may be anything.
#[test]
fn the_last_time_there_is_overflows_nothing() {
    let last = UNIX_EPOCH.checked_add(Duration::from_secs(i64::MAX.unsigned_abs())).unwrap();
    let short = value("Sunday, 06-Nov-94 08:49:37 GMT");
    assert_eq!(http_date_at(&short, last), http_date(&value("Sun, 06 Nov 9994 08:49:37 GMT")));
    let before = UNIX_EPOCH - Duration::from_secs(1);
    assert_eq!(http_date_at(&short, before), http_date(&value("Sun, 06 Nov 1994 08:49:37 GMT")));
    assert_eq!(http_date_value(last), "Fri, 31 Dec 9999 23:59:59 GMT");
}

/// RFC 9110 §5.6.1: several lines are one list, and an empty member is none.
#[test]
fn lists_are_split_outside_quotes() {
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &[]),
        (&[""], &[]),
        (&[",", " , ,\t"], &[]),
        (&["a"], &["a"]),
        (&["a,b", "c"], &["a", "b", "c"]),
        (&[" a ,\tb\t, ", "", ", c"], &["a", "b", "c"]),
        (&["a=\"x, y\", b"], &["a=\"x, y\"", "b"]),
        (&[r#"a="x\", y", b"#], &[r#"a="x\", y""#, "b"]),
        // A quoted string that does not end is none.
        (&["a=\"x, y", "b"], &["a=\"x", "y", "b"]),
        (&["\"x, y\", \"z, \"\""], &["\"x, y\"", "\"z", "\"\""]),
        (&[r#"a="\", b"#], &[r#"a="\""#, "b"]),
    ];
    for (lines, expected) in cases {
        let lines: Vec<_> = lines.iter().map(|line| value(line)).collect();
        let members: Vec<_> = list_members(&lines).map(|member| str::from_utf8(member).unwrap()).collect();
        assert_eq!(&members, expected, "{lines:?}");
    }
}

/// What comes behind an open quote on the same line may be the content of that quote to somebody else.
#[test]
fn members_behind_an_open_quote_are_doubtful() {
    let lines = [value("a, b=\"c, d\", e"), value("a, b=\"c, d, \"e\""), value("f")];
    let doubtful: Vec<_> = sound_members(&lines).filter(|(_, is_sound)| !is_sound).map(|(member, _)| member).collect();
    assert_eq!(doubtful, [b"b=\"c".as_slice(), b"d", b"\"e\""]);
    // In a list of tokens a quotation mark opens nothing.
    let tokens = [value("\"a, b\", c")];
    let tokens: Vec<_> = token_members(&tokens).collect();
    assert_eq!(tokens, [b"\"a".as_slice(), b"b\"", b"c"]);
}

fn names_left(lines: &[(&'static str, &str)]) -> Vec<String> {
    let mut headers = HeaderMap::new();
    for (name, text) in lines {
        headers.append(*name, value(text));
    }
    strip_hop_by_hop(&mut headers);
    let mut names: Vec<_> = headers.keys().map(ToString::to_string).collect();
    names.sort();
    names
}

/// RFC 9110 §7.6.1, RFC 9111 §3.1: what belongs to one connection ends here.
#[test]
fn fields_of_one_connection_are_removed() {
    let lines = [
        ("connection", "X-One, keep-alive"),
        ("connection", ", x-two"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("proxy-authenticate", "Basic"),
        ("proxy-authentication-info", "x"),
        ("proxy-authorization", "Basic x"),
        ("x-one", "1"),
        ("x-two", "2"),
        ("x-three", "3"),
        ("trailer", "x-sum"),
    ];
    assert_eq!(names_left(&lines), ["trailer", "x-three"]);
}

/// §7.6.1: `Cache-Control` "is never appropriate as a connection option", and neither is what guards privacy.
#[test]
fn connection_cannot_hide_what_the_rules_need() {
    let lines = [
        ("connection", "cache-control, authorization, host, vary, set-cookie, close, \"odd, x-odd"),
        ("connection", "Accept-Language, content-length, If-None-Match, age, x-forwarded-for, sec-fetch-site, cookie"),
        ("accept-language", "de"),
        ("content-length", "1"),
        ("if-none-match", "*"),
        ("age", "1"),
        ("x-forwarded-for", "::1"),
        ("sec-fetch-site", "none"),
        ("cookie", "a=b"),
        ("x-odd", "1"),
        ("cache-control", "private"),
        ("authorization", "Basic x"),
        ("host", "a"),
        ("vary", "*"),
        ("set-cookie", "a=b"),
    ];
    let kept = [
        "accept-language",
        "age",
        "authorization",
        "cache-control",
        "content-length",
        "cookie",
        "host",
        "if-none-match",
        "sec-fetch-site",
        "set-cookie",
        "vary",
        "x-forwarded-for",
    ];
    assert_eq!(names_left(&lines), kept);
    let many = format!("{}x-last", "a,".repeat(1000));
    assert_eq!(names_left(&[("connection", &many), ("x-last", "1")]), [""; 0], "however long the list is");
}

#[test]
fn times_are_written_as_dates() {
    let time = UNIX_EPOCH + Duration::from_secs(784_111_777);
    assert_eq!(http_date_value(time), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(http_date_value(UNIX_EPOCH - Duration::from_secs(1)), "Thu, 01 Jan 1970 00:00:00 GMT");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_second_is_read_back(at in 0_u64..253_402_300_800) {
        let time = UNIX_EPOCH + Duration::from_secs(at);
        prop_assert_eq!(http_date(&http_date_value(time)), Some(time));
    }

    #[test]
    fn no_text_makes_a_parser_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "[a-z0-9 ,\"\\\\\t:-]{0,60}",
    ) {
        for line in [HeaderValue::from_bytes(&bytes), HeaderValue::from_bytes(text.as_bytes())].into_iter().flatten() {
            let _ = http_date(&line);
            for member in list_members([&line]).chain(token_members([&line])) {
                prop_assert!(!member.is_empty() && trim_ows(member) == member);
            }
            let mut headers = HeaderMap::new();
            headers.append("connection", line);
            strip_hop_by_hop(&mut headers);
            prop_assert!(headers.is_empty());
        }
    }

    /// Two-digit years are read at any time that a clock can show.
    #[test]
    fn no_time_of_receipt_overflows(seconds in any::<i64>(), day in 0_u8..40, year in 0_u8..100) {
        let shift = Duration::from_secs(seconds.unsigned_abs());
        let received = if seconds < 0 { UNIX_EPOCH.checked_sub(shift) } else { UNIX_EPOCH.checked_add(shift) };
        let received = received.unwrap_or(UNIX_EPOCH);
        let line = value(&format!("Monday, {day:02}-Feb-{year:02} 23:59:60 GMT"));
        if let Some(date) = http_date_at(&line, received) {
            let ahead = date.duration_since(received).unwrap_or_default();
            prop_assert!(ahead <= Duration::from_secs(18_263 * 86_400) || received < UNIX_EPOCH);
        }
        let _ = http_date_value(received);
    }
}
