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

fn nominated(vary: &[&str], request: &[(&str, &str)]) -> Nominated {
    let lines: Vec<_> = vary.iter().map(|line| ("vary", *line)).collect();
    Nominated::of(&headers(&lines), &headers(request)).unwrap()
}

/// Whether two requests share a variant, asked both ways.
fn same(field: &str, left: &[&str], right: &[&str]) -> bool {
    let lines =
        |values: &[&str]| -> HeaderMap { headers(&values.iter().map(|value| (field, *value)).collect::<Vec<_>>()) };
    let vary = headers(&[("vary", field)]);
    let of_left = Nominated::of(&vary, &lines(left)).unwrap();
    let of_right = Nominated::of(&vary, &lines(right)).unwrap();
    let same = of_left.matches(&lines(right));
    assert_eq!(of_right.matches(&lines(left)), same);
    assert_eq!(of_left == of_right, same);
    assert_eq!(of_left.variant_hash() == of_right.variant_hash(), same);
    same
}

/// RFC 9111 §4.1: a `*` anywhere fails to match.
#[test]
fn a_star_matches_nothing() {
    let malformed = [&["a b"][..], &["a;q=1"], &["\"a\""], &["\"a, *"], &["a", "b:"], &["**x y"]];
    for vary in [&["*"][..], &["a, *"], &["*, a"], &["a", "*"], &["a", ", *"], &[" * "], &["*,*"], &["", "*"]]
        .into_iter()
        .chain(malformed)
    {
        let lines: Vec<_> = vary.iter().map(|line| ("vary", *line)).collect();
        assert_eq!(Nominated::of(&headers(&lines), &HeaderMap::new()), Err(VaryStar), "{vary:?}");
        assert!(varies_on_everything(&headers(&lines)));
    }
    let names = |count: usize| (0..count).map(|at| format!("x-{at}")).collect::<Vec<_>>().join(",");
    let (most, too_many) = (names(NOMINATED_FIELDS_MAX), names(NOMINATED_FIELDS_MAX + 1));
    assert_eq!(nominated(&[&most], &[]).names().count(), NOMINATED_FIELDS_MAX);
    assert!(varies_on_everything(&headers(&[("vary", &too_many)])));
    assert!(!varies_on_everything(&HeaderMap::new()));
}

/// §4.1: names in any order, case and number of lines.
#[test]
fn the_same_names_are_the_same_fields() {
    let request = [("a", "1"), ("b", "2")];
    let expected = nominated(&["a, b"], &request);
    for vary in [&["b, a"][..], &["B", "A"], &["a,,b,a,", "A"]] {
        assert_eq!(nominated(vary, &request), expected, "{vary:?}");
    }
    assert!(nominated(&[], &request).is_empty() && nominated(&["", " , "], &request).is_empty());
    assert!(nominated(&[], &request).matches(&headers(&[("a", "9")])));
}

/// §4.1: all nominated fields have to match; a missing one matches a missing one.
#[test]
fn every_nominated_field_has_to_match() {
    let stored = nominated(&["a, b"], &[("a", "1"), ("c", "3")]);
    assert!(stored.matches(&headers(&[("a", "1")])));
    assert!(stored.matches(&headers(&[("a", "1"), ("c", "4")])));
    for request in
        [&[("a", "2")][..], &[("a", "1"), ("b", "2")], &[("a", "1"), ("b", "")], &[], &[("a", "1"), ("a", "2")]]
    {
        assert!(!stored.matches(&headers(request)), "{request:?}");
    }
    let difference = stored.first_difference(&headers(&[("a", "1"), ("b", "2")]));
    assert_eq!(difference.map(HeaderName::as_str), Some("b"));
}

/// §4.1: white space where the syntax allows it, and lines that make up one list.
#[test]
fn lists_are_compared_by_their_members() {
    assert!(same("foo", &["1, 2"], &["1,2"]));
    assert!(same("foo", &["1, 2"], &["1", "2"]));
    assert!(same("foo", &["1, 2"], &[" 1 ,\t2 ,"]));
    assert!(same("foo", &["\"a, b\", c"], &["\"a, b\",c"]));
    assert!(!same("foo", &["\"a, b\""], &["\"a,b\""]));
    assert!(!same("foo", &["1, 2"], &["2, 1"]));
    assert!(!same("foo", &["1 2"], &["12"]));
    assert!(!same("foo", &["a"], &["A"]));
    assert!(!same("foo", &[""], &[]));
    assert!(!same("foo", &["", ""], &[]));
    assert!(same("foo", &[""], &["", " , "]));
    assert!(same("foo", &["1,,2"], &["1, 2"]));
    assert!(!same("foo", &["1, 1"], &["1"]));
    // In an open quote white space may matter.
    assert!(!same("foo", &["\"a, b"], &["\"a,b"]));
    assert!(same("foo", &["\"a, b"], &["\"a, b"]));
    assert!(same("foo", &["\"a", "b\""], &["\"a, b\""]));
    assert!(same("foo", &[], &[]));
}

/// RFC 9110 §12.4.2, §12.5.3, §12.5.4: preferences are equal in any case, order and spelling of their weights.
#[test]
fn preferences_are_compared_by_their_meaning() {
    for field in ["accept-language", "accept-encoding"] {
        assert!(same(field, &["en, de"], &["EN,De"]));
        assert!(same(field, &["en, de"], &["de, en"]));
        assert!(same(field, &["en, de"], &["de", "en"]));
        assert!(same(field, &["en;q=0.5, de"], &["de;q=1.0 , en ; q=0.500"]));
        assert!(same(field, &["en;q=1"], &["en;Q=1.000"]));
        assert!(same(field, &["en, en"], &["en"]));
        assert!(!same(field, &["en, de;q=0.5"], &["en;q=0.5, de"]));
        assert!(!same(field, &["en, de"], &["en, de;q=0.9"]));
        assert!(!same(field, &["en, de;q=0"], &["en"]));
        assert!(!same(field, &["en"], &["en, de"]));
        assert!(!same(field, &[""], &[]));
        // Not a weight: compared as written.
        assert!(!same(field, &["en;q=2, de"], &["de, en;q=2"]));
        assert!(!same(field, &["en;q=0.1234"], &["en;q=0.123"]));
        assert!(!same(field, &["en;q=x"], &["en"]));
    }
    assert!(same("accept-encoding", &["x-gzip, br"], &["br, gzip"]));
    assert!(same("accept-encoding", &["X-Compress;q=0.5"], &["compress;q=0.5"]));
    assert!(!same("accept-language", &["x-gzip"], &["gzip"]));
    assert!(!same("accept-encoding", &["gzip, *;q=0"], &["gzip"]));
    assert!(!same("accept-encoding", &["identity;q=0"], &["identity"]));
    assert!(!same("accept-encoding", &["gzip;q=1, gzip;q=0"], &["gzip"]));
    assert!(same("accept-encoding", &["gzip;q=1, gzip;q=1.0"], &["gzip"]));
    assert!(!same("accept", &["a/b, c/d"], &["c/d, a/b"]), "order may matter elsewhere");
}

#[test]
fn weights_are_thousandths() {
    let cases: &[(&str, Option<u16>)] = &[
        ("q=1", Some(1000)),
        ("q=1.000", Some(1000)),
        ("q=0", Some(0)),
        ("q=0.", Some(0)),
        ("q=0.1", Some(100)),
        ("q=0.08", Some(80)),
        ("q=0.123", Some(123)),
        ("q=1.001", None),
        ("q=0.1234", None),
        ("q=.5", None),
        ("q=0,5", None),
        ("q=-1", None),
        ("q =1", None),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(weight(text.as_bytes()), *expected, "{text:?}");
    }
}

/// A response in the language that a client prefers answers it, whoever caused it to be stored.
#[test]
fn a_stored_language_answers_a_preference() {
    let stored = nominated(&["accept-language"], &[("accept-language", "de")]);
    let german = headers(&[("content-language", "de")]);
    let answers = |preference: &str| stored.matches_or_answers(&headers(&[("accept-language", preference)]), &german);
    assert!(answers("de"));
    assert!(answers("DE, en;q=0.5"));
    assert!(answers("en;q=0.5, de;q=0.8, *;q=0.1"));
    assert!(!answers("en, de;q=0.5"));
    assert!(!answers("en, de"), "no sole favourite");
    assert!(!answers("de;q=0"));
    assert!(!answers("de, de;q=0"), "named twice");
    assert!(!answers("en;q=0.1, de;q=0, *"), "refused");
    assert!(!answers("fr, *;q=0"));
    assert!(answers("fr;q=0.5, de;q=1.0"));
    assert!(!answers("*"));
    assert!(!answers("de-CH"));
    assert!(!stored.matches_or_answers(&headers(&[("accept-language", "en, de;q=0.5")]), &HeaderMap::new()));
    let in_two = headers(&[("content-language", "de, en")]);
    assert!(!stored.matches_or_answers(&headers(&[("accept-language", "de, en;q=0.5")]), &in_two));
    assert!(!stored.matches_or_answers(&headers(&[]), &german), "a client without a preference");
    let both = nominated(&["accept-language, a"], &[("accept-language", "de"), ("a", "1")]);
    assert!(!both.matches_or_answers(&headers(&[("accept-language", "de, en;q=0.1"), ("a", "2")]), &german));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_request_matches_itself_and_survives_being_stored(
        values in proptest::collection::vec("[ -~]{0,20}", 0..3), vary in "[a-z, -]{0,30}",
    ) {
        let mut request = HeaderMap::new();
        for value in &values {
            request.append("accept-encoding", HeaderValue::from_str(value).unwrap());
            request.append("a", HeaderValue::from_str(value).unwrap());
        }
        let vary = headers(&[("vary", "a, accept-encoding"), ("vary", &vary)]);
        let Ok(stored) = Nominated::of(&vary, &request) else { return Ok(()) };
        prop_assert!(stored.matches(&request));
        let bytes = postcard::to_stdvec(&stored).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Nominated>(&bytes).unwrap(), stored);
    }

    /// What matches one way matches the other, and is equal when stored; no bytes make it panic.
    #[test]
    fn matching_is_symmetric(
        left in proptest::collection::vec("[ab\",;=q0.1* -]{0,8}", 0..3),
        right in proptest::collection::vec("[ab\",;=q0.1* -]{0,8}", 0..3),
        odd in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let lines = |values: &[String]| {
            let mut request = HeaderMap::new();
            for value in values {
                for name in ["accept-language", "accept-encoding", "a"] {
                    request.append(name, HeaderValue::from_str(value).unwrap());
                }
            }
            request
        };
        let vary = headers(&[("vary", "a, accept-encoding, accept-language")]);
        let [mut one, other] = [lines(&left), lines(&right)];
        let [of_one, of_other] = [&one, &other].map(|request| Nominated::of(&vary, request).unwrap());
        prop_assert_eq!(of_one.matches(&other), of_other.matches(&one));
        prop_assert_eq!(of_one == of_other, of_one.matches(&other));
        prop_assert_eq!(of_one == of_other, of_one.variant_hash() == of_other.variant_hash());
        if let Ok(odd) = HeaderValue::from_bytes(&odd) {
            one.append("a", odd.clone());
            one.append("accept-language", odd.clone());
            prop_assert!(Nominated::of(&vary, &one).unwrap().matches(&one));
            let mut by_odd = HeaderMap::new();
            by_odd.append("vary", odd.clone());
            by_odd.append("content-language", odd);
            if let Ok(stored) = Nominated::of(&by_odd, &one) {
                prop_assert!(stored.matches(&one));
                let _ = stored.matches_or_answers(&other, &by_odd);
            }
        }
    }
}

#[test]
fn fields_are_compared_one_by_one_for_explanations() {
    let stored = nominated(
        &["Accept-Language, X-Same, X-Gone, X-New"],
        &[("accept-language", "de;q=0.50"), ("x-same", "1"), ("x-gone", "1")],
    );
    let request = headers(&[("accept-language", "EN"), ("x-same", " 1"), ("x-new", "1")]);
    let compared: Vec<_> = stored
        .compared(&request)
        .map(|field| (field.name.as_str(), field.stored, field.asked.map(Cow::into_owned), field.matches))
        .collect();
    let expected = [
        ("accept-language", Some(&b"de;q=0.5"[..]), Some(b"en".to_vec()), false),
        ("x-gone", Some(b"1"), None, false),
        ("x-new", None, Some(b"1".to_vec()), false),
        ("x-same", Some(b"1"), Some(b"1".to_vec()), true),
    ];
    assert_eq!(compared, expected);
}
