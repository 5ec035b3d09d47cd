use proptest::prelude::*;

use super::*;

fn target(path: &'static str, query: Option<&'static str>) -> Target<'static> {
    Target { scheme: "https", authority: "example.com", site: "shop", path, query, rule: None }
}

fn key_of(target: &Target<'_>, parts: &[KeyPart]) -> CacheKey {
    CacheKey::new(KeyMethod::Get, target, parts).unwrap()
}

fn part(name: &str, value: PartValue) -> KeyPart {
    KeyPart { name: name.to_owned(), value }
}

/// Attack A6 and A8: no field can stand in for another, and none below the plugin's parts can be left out.
#[test]
fn whatever_differs_gives_another_key() {
    let text = |value: &str| PartValue::Text(value.to_owned());
    let base = target("/a", None);
    let keys = [
        key_of(&base, &[]),
        CacheKey::new(KeyMethod::Query, &base, &[]).unwrap(),
        key_of(&Target { scheme: "http", ..base }, &[]),
        key_of(&Target { authority: "example.com:8443", ..base }, &[]),
        key_of(&Target { site: "blog", ..base }, &[]),
        key_of(&Target { rule: Some(&[7; 32]), ..base }, &[]),
        key_of(&target("/a/", None), &[]),
        key_of(&target("/A", None), &[]),
        key_of(&target("/%61", None), &[]),
        key_of(&target("/a", Some("")), &[]),
        key_of(&target("/a", Some("x")), &[]),
        key_of(&base, &[part("x", text(""))]),
        key_of(&base, &[part("x", PartValue::Absent)]),
        key_of(&base, &[part("x", text("1"))]),
        key_of(&base, &[part("x", PartValue::Bytes(b"1".to_vec()))]),
        key_of(&base, &[part("x", PartValue::Integer(1))]),
        key_of(&base, &[part("x", PartValue::Flag(true))]),
        key_of(&base, &[part("x", PartValue::Flag(false))]),
        key_of(&base, &[part("x", text("1")), part("y", text("2"))]),
        key_of(&base, &[part("y", text("2")), part("x", text("1"))]),
        key_of(&base, &[part("x", text("1\u{0}y")), part("", text("2"))]),
    ];
    for (left_at, left) in keys.iter().enumerate() {
        for (right_at, right) in keys.iter().enumerate() {
            assert_eq!(left == right, left_at == right_at, "{left:?} and {right:?}");
            assert_eq!(left.hash() == right.hash(), left_at == right_at, "{left:?} and {right:?}");
        }
    }
}

#[test]
fn a_key_that_passes_a_limit_is_refused() {
    let base = target("/", None);
    let fits = CACHE_KEY_BYTES_MAX - encoded_length(&base, &[part("", PartValue::Text(String::new()))]);
    let filled = |length: usize| [part("", PartValue::Text("x".repeat(length)))];
    assert_eq!(key_of(&base, &filled(fits)).bytes().len(), CACHE_KEY_BYTES_MAX);
    assert!(CacheKey::new(KeyMethod::Get, &base, &filled(fits + 1)).is_err());

    let many = vec![part("x", PartValue::Absent); KEY_PARTS_MAX];
    assert!(CacheKey::new(KeyMethod::Get, &base, &many).is_ok());
    let too_many = vec![part("x", PartValue::Absent); KEY_PARTS_MAX + 1];
    let refused = CacheKey::new(KeyMethod::Get, &base, &too_many).unwrap_err();
    assert_eq!(refused.parts, KEY_PARTS_MAX + 1);
}

#[test]
fn bytes_that_are_no_key_are_refused() {
    let good = key_of(&target("/a", Some("q=1")), &[part("x", PartValue::Flag(true))]);
    let bytes = good.bytes().to_vec();
    for length in 0..bytes.len() {
        if let Ok(shorter) = CacheKey::from_bytes(Bytes::copy_from_slice(&bytes[..length])) {
            // Cut just before a part: a key of its own, but not this one.
            assert_ne!(shorter, good);
        }
    }
    let mut other_version = bytes.clone();
    other_version[0] = KEY_VERSION + 1;
    assert_eq!(CacheKey::from_bytes(Bytes::from(other_version)), Err(MalformedKey::Version));
    let mut odd_flag = bytes;
    *odd_flag.last_mut().unwrap() = 2;
    assert_eq!(CacheKey::from_bytes(Bytes::from(odd_flag)), Err(MalformedKey::Shape));
    assert!(CacheKey::from_bytes(Bytes::from(vec![KEY_VERSION; CACHE_KEY_BYTES_MAX + 1])).is_err());
}

/// RFC 9110 §4.2.3: the host's case and the default port say nothing; any other port does.
#[test]
fn authorities_are_made_normal() {
    let cases = [
        ("https", "Example.COM", "example.com"),
        ("https", "example.com:443", "example.com"),
        ("https", "example.com:80", "example.com:80"),
        ("https", "example.com:", "example.com"),
        ("http", "example.com:80", "example.com"),
        ("http", "example.com:443", "example.com:443"),
        ("http", "example.com:8080", "example.com:8080"),
        ("https", "[::1]", "[::1]"),
        ("https", "[::1]:443", "[::1]"),
        ("http", "[2001:DB8::80]", "[2001:db8::80]"),
        ("http", "[2001:db8::1]:8080", "[2001:db8::1]:8080"),
        ("https", "[2001:db8::443]", "[2001:db8::443]"),
        ("https", "[::1]:", "[::1]"),
        ("HTTPS", "example.com:443", "example.com"),
        ("https", "example.com:0443", "example.com"),
        ("https", "Example.com:08443", "example.com:8443"),
        ("http", "example.com:0", "example.com:0"),
        ("http", "example.com:00", "example.com:00"),
        ("http", "example.com.", "example.com."),
        ("http", "a:b", "a:b"),
        ("http", ":80", ""),
        ("http", "", ""),
    ];
    for (scheme, authority, expected) in cases {
        assert_eq!(normal_authority(scheme, authority), expected, "{scheme} {authority}");
    }
    assert!(matches!(normal_authority("https", "example.com:443"), Cow::Borrowed(_)), "nothing is copied");
}

#[test]
fn a_url_hash_tells_urls_apart() {
    let hashes = [
        url_hash("a", "/b", None),
        url_hash("a", "/b", Some("")),
        url_hash("a", "/b", Some("c")),
        url_hash("a", "/bc", None),
        url_hash("a/b", "", None),
        url_hash("", "a/b", None),
    ];
    for (at, hash) in hashes.iter().enumerate() {
        assert!(!hashes[..at].contains(hash));
    }
    assert_eq!(hashes[0].to_string().len(), 32);
}

fn any_value() -> impl Strategy<Value = PartValue> {
    prop_oneof![
        ".{0,12}".prop_map(PartValue::Text),
        proptest::collection::vec(any::<u8>(), 0..12).prop_map(PartValue::Bytes),
        any::<i64>().prop_map(PartValue::Integer),
        any::<bool>().prop_map(PartValue::Flag),
        Just(PartValue::Absent),
    ]
}

fn any_description() -> impl Strategy<Value = KeyDescription> {
    let parts = proptest::collection::vec((".{0,8}", any_value()), 0..5);
    let rule = proptest::option::of(any::<[u8; 32]>());
    (any::<bool>(), ".{0,6}", ".{0,8}", ".{0,8}", (".{0,12}", proptest::option::of(".{0,12}")), rule, parts).prop_map(
        |(query_method, scheme, authority, site, (path, query), rule, parts)| KeyDescription {
            method: if query_method { KeyMethod::Query } else { KeyMethod::Get },
            scheme,
            authority,
            site,
            path,
            query,
            rule,
            parts: parts.into_iter().map(|(name, value)| KeyPart { name, value }).collect(),
        },
    )
}

fn encode(description: &KeyDescription) -> CacheKey {
    let target = Target {
        scheme: &description.scheme,
        authority: &description.authority,
        site: &description.site,
        path: &description.path,
        query: description.query.as_deref(),
        rule: description.rule.as_ref(),
    };
    CacheKey::new(description.method, &target, &description.parts).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Injective, because what was put in can be read back.
    #[test]
    fn a_key_says_what_it_was_made_of(description in any_description()) {
        let key = encode(&description);
        prop_assert_eq!(key.describe(), description);
        prop_assert_eq!(&CacheKey::from_bytes(key.bytes().clone()).unwrap(), &key);
        let stored = postcard::to_stdvec(&key).unwrap();
        prop_assert_eq!(postcard::from_bytes::<CacheKey>(&stored).unwrap(), key);
    }

    /// Two descriptions that differ in one field have keys that differ, and so has any cut of one field into two.
    #[test]
    fn whatever_is_changed_changes_the_key(one in any_description(), other in any_description(), which in 0_usize..8) {
        let mut changed = one.clone();
        match which {
            0 => changed.scheme = other.scheme,
            1 => changed.authority = other.authority,
            2 => changed.site = other.site,
            3 => changed.path = other.path,
            4 => changed.query = other.query,
            5 => changed.rule = other.rule,
            6 => changed.parts = other.parts,
            // A byte wanders from one field to the next.
            _ => {
                let last = changed.authority.pop();
                changed.site.insert_str(0, &last.map(String::from).unwrap_or_default());
            }
        }
        let (key, changed_key) = (encode(&one), encode(&changed));
        prop_assert_eq!(one == changed, key == changed_key);
        prop_assert_eq!(one == changed, key.bytes() == changed_key.bytes());
    }

    /// No text makes it panic; what is normal stays as it is.
    #[test]
    fn normal_authorities_are_normal(authority in "[A-Za-z0-9.:@\\[\\]-]{0,20}|.{0,10}", is_https in any::<bool>()) {
        let scheme = if is_https { "https" } else { "http" };
        let normal = normal_authority(scheme, &authority).into_owned();
        // No authority has more than one colon outside an IPv6 literal.
        if authority.matches(':').count() < 2 {
            prop_assert_eq!(&*normal_authority(scheme, &normal), &normal);
        }
        prop_assert!(!normal.bytes().any(|byte| byte.is_ascii_uppercase()));
    }

    #[test]
    fn bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(key) = CacheKey::from_bytes(Bytes::from(bytes)) {
            prop_assert_eq!(encode(&key.describe()), key);
        }
    }
}
