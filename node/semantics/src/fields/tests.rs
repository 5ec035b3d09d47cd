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
    for (two_digits, year) in [("26", 2026), ("76", 2076), ("77", 1977), ("99", 1999), ("00", 2000)] {
        let short = value(&format!("Monday, 06-Nov-{two_digits} 08:49:37 GMT"));
        let long = value(&format!("Mon, 06 Nov {year} 08:49:37 GMT"));
        assert_eq!(http_date_at(&short, received), http_date(&long), "{two_digits}");
    }
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
        (&["a=\"x, y", "b"], &["a=\"x, y", "b"]),
    ];
    for (lines, expected) in cases {
        let lines: Vec<_> = lines.iter().map(|line| value(line)).collect();
        let members: Vec<_> = list_members(&lines).map(|member| str::from_utf8(member).unwrap()).collect();
        assert_eq!(&members, expected, "{lines:?}");
    }
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
        ("connection", "cache-control, authorization, host, vary, set-cookie, close, \"odd"),
        ("cache-control", "private"),
        ("authorization", "Basic x"),
        ("host", "a"),
        ("vary", "*"),
        ("set-cookie", "a=b"),
    ];
    assert_eq!(names_left(&lines), ["authorization", "cache-control", "host", "set-cookie", "vary"]);
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
    fn no_text_makes_a_parser_panic(text in "[ -~\t]{0,60}") {
        let line = value(&text);
        let _ = http_date(&line);
        for member in list_members([&line]) {
            prop_assert!(!member.is_empty());
        }
    }
}
