use std::time::UNIX_EPOCH;

use proptest::prelude::{ProptestConfig, prop_assert, proptest};

use super::*;
use crate::FreshnessSource;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Fresh for 100 s from the time 1000 on.
fn stored() -> StoredMeta {
    StoredMeta {
        status: 200,
        request_time: UNIX_EPOCH + secs(1000),
        response_time: UNIX_EPOCH + secs(1000),
        initial_age: Duration::ZERO,
        freshness_lifetime: secs(100),
        freshness_source: FreshnessSource::MaxAge,
        no_cache: false,
        must_revalidate: false,
        stale_while_revalidate: None,
        stale_if_error: None,
    }
}

fn at_age(age: u64) -> SystemTime {
    UNIX_EPOCH + secs(1000 + age)
}

fn reuse_at(age: u64, stored: &StoredMeta, request: RequestDirectives) -> Reuse {
    reuse(stored, &request, PurgeState::Live, at_age(age), &CachePolicy::default())
}

fn any() -> RequestDirectives {
    RequestDirectives::default()
}

/// RFC 9111 §4.2: fresh while the age is below the lifetime.
#[test]
fn a_response_is_fresh_until_its_lifetime_ends() {
    for (age, expected) in [
        (0, Reuse::Fresh),
        (99, Reuse::Fresh),
        (100, Reuse::MustValidate(Why::Stale)),
        (101, Reuse::MustValidate(Why::Stale)),
    ] {
        assert_eq!(reuse_at(age, &stored(), any()), expected, "{age}");
    }
    let aged = StoredMeta { initial_age: secs(60), ..stored() };
    assert_eq!(reuse_at(39, &aged, any()), Reuse::Fresh);
    assert_eq!(reuse_at(40, &aged, any()), Reuse::MustValidate(Why::Stale));
    let back = SystemTime::UNIX_EPOCH;
    assert_eq!(
        reuse(&aged, &any(), PurgeState::Live, back, &CachePolicy::default()),
        Reuse::Fresh,
        "a clock that stepped back"
    );
    let never = StoredMeta { freshness_lifetime: Duration::ZERO, freshness_source: FreshnessSource::None, ..stored() };
    assert_eq!(reuse_at(0, &never, any()), Reuse::MustValidate(Why::Stale));
}

/// Safe by default: what came without a lifetime or a date is never used before it is validated, whoever would like to.
#[test]
fn what_was_never_fresh_is_only_validated() {
    let never = StoredMeta { freshness_lifetime: Duration::ZERO, freshness_source: FreshnessSource::None, ..stored() };
    let policy = CachePolicy {
        stale_while_revalidate: Some(secs(60)),
        stale_if_error: Some(secs(60)),
        ..CachePolicy::default()
    };
    let lenient = RequestDirectives {
        max_stale: Some(MaxStale::Any),
        stale_if_error: Some(secs(60)),
        ..RequestDirectives::default()
    };
    for purge in [PurgeState::Live, PurgeState::Soft] {
        assert!(matches!(reuse(&never, &lenient, purge, at_age(1), &policy), Reuse::MustValidate(_)));
        assert!(!may_serve_on_error(&never, &lenient, purge, at_age(1), &policy));
    }
    let own = StoredMeta { stale_while_revalidate: Some(secs(9)), stale_if_error: Some(secs(9)), ..never };
    assert_eq!(reuse_at(1, &own, any()), Reuse::StaleWhileValidating { stale_for: secs(1) });
    assert!(may_serve_on_error(&own, &any(), PurgeState::Live, at_age(1), &policy));
}

/// RFC 9111 §5.2.2.4: each use needs a validation.
#[test]
fn no_cache_is_validated_at_each_use() {
    let no_cache = StoredMeta { no_cache: true, stale_while_revalidate: Some(secs(1000)), ..stored() };
    let lenient = RequestDirectives { max_stale: Some(MaxStale::Any), ..any() };
    assert_eq!(reuse_at(0, &no_cache, lenient), Reuse::MustValidate(Why::NoCache));
    assert_eq!(reuse_at(150, &no_cache, lenient), Reuse::MustValidate(Why::NoCache));
    assert!(!may_serve_on_error(&no_cache, &lenient, PurgeState::Live, at_age(0), &CachePolicy::default()));
}

/// RFC 9111 §5.2.1.
#[test]
fn clients_may_ask_for_more() {
    let validate = Reuse::MustValidate;
    let max_age = |seconds| RequestDirectives { max_age: Some(secs(seconds)), ..any() };
    let min_fresh = |seconds| RequestDirectives { min_fresh: Some(secs(seconds)), ..any() };
    let max_stale = |limit| RequestDirectives { max_stale: Some(limit), ..any() };
    let within = |seconds| max_stale(MaxStale::Within(secs(seconds)));
    let cases = [
        (50, RequestDirectives { no_cache: true, ..any() }, validate(Why::RequestNoCache)),
        (50, RequestDirectives { no_store: true, only_if_cached: true, ..any() }, Reuse::Fresh),
        (50, max_age(50), Reuse::Fresh),
        (51, max_age(50), validate(Why::RequestMaxAge)),
        (0, max_age(0), validate(Why::RequestMaxAge)),
        (50, min_fresh(50), Reuse::Fresh),
        (51, min_fresh(50), validate(Why::RequestMinFresh)),
        (150, min_fresh(0), validate(Why::RequestMinFresh)),
        (150, max_stale(MaxStale::Any), Reuse::StaleAllowed { stale_for: secs(50) }),
        (150, within(50), Reuse::StaleAllowed { stale_for: secs(50) }),
        (151, within(50), validate(Why::Stale)),
        (50, within(0), Reuse::Fresh),
        (100, within(0), Reuse::StaleAllowed { stale_for: Duration::ZERO }),
        (50, RequestDirectives { min_fresh: Some(secs(1 << 31)), ..any() }, validate(Why::RequestMinFresh)),
        (
            150,
            RequestDirectives { min_fresh: Some(secs(1)), ..max_stale(MaxStale::Any) },
            validate(Why::RequestMinFresh),
        ),
        (150, RequestDirectives { no_cache: true, ..max_stale(MaxStale::Any) }, validate(Why::RequestNoCache)),
        (
            150,
            RequestDirectives { max_age: Some(secs(200)), ..max_stale(MaxStale::Any) },
            Reuse::StaleAllowed { stale_for: secs(50) },
        ),
        (150, RequestDirectives { max_age: Some(secs(120)), ..max_stale(MaxStale::Any) }, validate(Why::RequestMaxAge)),
    ];
    for (age, request, expected) in cases {
        assert_eq!(reuse_at(age, &stored(), request), expected, "{age} {request:?}");
    }
    let strict = StoredMeta { must_revalidate: true, ..stored() };
    assert_eq!(reuse_at(150, &strict, max_stale(MaxStale::Any)), validate(Why::Stale), "§5.2.2.2");
    let windowed = StoredMeta { stale_while_revalidate: Some(secs(10)), ..strict.clone() };
    assert_eq!(reuse_at(150, &windowed, max_stale(MaxStale::Any)), validate(Why::Stale), "behind its own window");
    assert_eq!(reuse_at(50, &strict, any()), Reuse::Fresh);
}

#[test]
fn a_route_may_disregard_clients() {
    let policy = CachePolicy { ignore_request_directives: true, ..CachePolicy::default() };
    let request = RequestDirectives { no_cache: true, max_age: Some(Duration::ZERO), ..any() };
    assert_eq!(reuse(&stored(), &request, PurgeState::Live, at_age(50), &policy), Reuse::Fresh);
    assert!(may_serve_on_error(&stored(), &request, PurgeState::Live, at_age(150), &policy));
}

/// RFC 5861 §3: inside the window, not at its end.
#[test]
fn stale_while_revalidate_is_a_window() {
    let windowed = StoredMeta { stale_while_revalidate: Some(secs(30)), ..stored() };
    let behind = |stale_for| Reuse::StaleWhileValidating { stale_for: secs(stale_for) };
    for (age, expected) in
        [(99, Reuse::Fresh), (100, behind(0)), (129, behind(29)), (130, Reuse::MustValidate(Why::Stale))]
    {
        assert_eq!(reuse_at(age, &windowed, any()), expected, "{age}");
    }
    let shut = StoredMeta { stale_while_revalidate: Some(Duration::ZERO), ..stored() };
    assert_eq!(reuse_at(100, &shut, any()), Reuse::MustValidate(Why::Stale));
    let max_age = RequestDirectives { max_age: Some(secs(500)), ..any() };
    assert_eq!(reuse_at(110, &windowed, max_age), Reuse::MustValidate(Why::Stale), "RFC 9111 §5.2.1.1");
}

/// A route extends the window, unless the response forbids stale use.
#[test]
fn routes_extend_windows() {
    let policy = CachePolicy {
        stale_while_revalidate: Some(secs(60)),
        stale_if_error: Some(secs(60)),
        ..CachePolicy::default()
    };
    let decide = |stored: &StoredMeta| reuse(stored, &any(), PurgeState::Live, at_age(150), &policy);
    let behind = Reuse::StaleWhileValidating { stale_for: secs(50) };
    assert_eq!(decide(&stored()), behind);
    assert_eq!(decide(&StoredMeta { stale_while_revalidate: Some(secs(10)), ..stored() }), behind);
    let strict = StoredMeta { must_revalidate: true, ..stored() };
    assert_eq!(decide(&strict), Reuse::MustValidate(Why::Stale));
    let own = StoredMeta { must_revalidate: true, stale_while_revalidate: Some(secs(55)), ..stored() };
    assert_eq!(decide(&own), behind, "s-maxage with a window that the response names itself");
    assert!(!may_serve_on_error(&strict, &any(), PurgeState::Live, at_age(150), &policy));
    assert!(!may_serve_on_error(&stored(), &any(), PurgeState::Live, at_age(160), &policy));
}

/// A soft purge makes stale, a hard one unusable.
#[test]
fn purges_come_first() {
    let decide = |stored: &StoredMeta, purge, age| reuse(stored, &any(), purge, at_age(age), &CachePolicy::default());
    let strict = StoredMeta { must_revalidate: true, ..stored() };
    let behind = Reuse::StaleWhileValidating { stale_for: Duration::ZERO };
    assert_eq!(decide(&stored(), PurgeState::Hard, 50), Reuse::Unusable);
    assert_eq!(decide(&stored(), PurgeState::Soft, 50), behind);
    assert_eq!(decide(&strict, PurgeState::Soft, 50), Reuse::MustValidate(Why::SoftPurged));
    assert_eq!(decide(&stored(), PurgeState::Soft, 150), Reuse::MustValidate(Why::SoftPurged));
    let takes_stale = RequestDirectives { max_stale: Some(MaxStale::Any), ..any() };
    for age in [100, 150] {
        let asked = reuse(&stored(), &takes_stale, PurgeState::Soft, at_age(age), &CachePolicy::default());
        assert_eq!(asked, Reuse::MustValidate(Why::SoftPurged), "a client's leave is about age, not about purges");
    }
    let no_cache = RequestDirectives { no_cache: true, ..any() };
    let asked = reuse(&stored(), &no_cache, PurgeState::Soft, at_age(50), &CachePolicy::default());
    assert_eq!(asked, Reuse::MustValidate(Why::RequestNoCache));
    for (purge, expected) in [(PurgeState::Live, true), (PurgeState::Soft, true), (PurgeState::Hard, false)] {
        assert_eq!(
            may_serve_on_error(&stored(), &any(), purge, at_age(150), &CachePolicy::default()),
            expected,
            "{purge:?}"
        );
    }
}

/// RFC 9111 §4.2.4, RFC 5861 §4: stale on error by default, within the windows that are named, never where it is forbidden.
#[test]
fn stale_responses_stand_in_for_errors() {
    let window = |seconds| StoredMeta { stale_if_error: Some(secs(seconds)), ..stored() };
    let strict = StoredMeta { must_revalidate: true, ..stored() };
    let asks = |seconds| RequestDirectives { stale_if_error: Some(secs(seconds)), ..any() };
    let cases = [
        (stored(), any(), 150, true),
        (stored(), any(), 1_000_000, true),
        (window(60), any(), 150, true),
        (window(60), any(), 160, false),
        (window(0), any(), 100, false),
        (stored(), asks(60), 150, true),
        (stored(), asks(60), 160, false),
        (window(30), asks(60), 150, true),
        (strict.clone(), any(), 150, false),
        (strict.clone(), asks(60), 150, false),
        (strict.clone(), RequestDirectives { max_stale: Some(MaxStale::Any), ..any() }, 150, false),
        (StoredMeta { stale_if_error: Some(secs(60)), ..strict.clone() }, any(), 150, true),
        (strict, any(), 50, true),
        (stored(), RequestDirectives { no_cache: true, ..any() }, 150, false),
        (stored(), RequestDirectives { min_fresh: Some(secs(1)), ..any() }, 150, false),
        (stored(), RequestDirectives { max_age: Some(secs(200)), ..any() }, 150, false),
        (stored(), RequestDirectives { max_age: Some(secs(200)), max_stale: Some(MaxStale::Any), ..any() }, 150, true),
    ];
    for (stored, request, age, expected) in cases {
        let decided = may_serve_on_error(&stored, &request, PurgeState::Live, at_age(age), &CachePolicy::default());
        assert_eq!(decided, expected, "{stored:?} {request:?} {age}");
    }
    let errors: Vec<_> = (100..600).filter(|status| is_server_error(StatusCode::from_u16(*status).unwrap())).collect();
    assert_eq!(errors, [500, 502, 503, 504]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// What a client asks for makes the cache stricter, but for the two directives that say otherwise; and a response that
    /// forbids stale use is not used stale, whoever wishes it.
    #[test]
    fn clients_only_restrict(
        age in 0_u64..300, no_cache in proptest::bool::ANY, max_age in proptest::option::of(0_u64..300),
        min_fresh in proptest::option::of(0_u64..300), max_stale in proptest::option::of(0_u64..300),
        must_revalidate in proptest::bool::ANY, window in proptest::option::of(0_u64..300), soft in proptest::bool::ANY,
        route in proptest::option::of(0_u64..300),
    ) {
        let stored = StoredMeta { must_revalidate, stale_while_revalidate: window.map(secs), ..stored() };
        let policy = CachePolicy { stale_while_revalidate: route.map(secs), ..CachePolicy::default() };
        let purge = if soft { PurgeState::Soft } else { PurgeState::Live };
        let strict = RequestDirectives { no_cache, max_age: max_age.map(secs), min_fresh: min_fresh.map(secs), ..any() };
        let uses = |request: &RequestDirectives| {
            !matches!(reuse(&stored, request, purge, at_age(age), &policy), Reuse::MustValidate(_) | Reuse::Unusable)
        };
        prop_assert!(uses(&any()) || !uses(&strict));
        let lenient = RequestDirectives { max_stale: max_stale.map(|limit| MaxStale::Within(secs(limit))), ..strict };
        if must_revalidate && window.is_none() && age >= 100 {
            prop_assert!(!uses(&lenient) && !may_serve(&stored, &lenient, purge, age, &policy));
        }
    }
}

fn may_serve(
    stored: &StoredMeta,
    request: &RequestDirectives,
    purge: PurgeState,
    age: u64,
    policy: &CachePolicy,
) -> bool {
    may_serve_on_error(stored, request, purge, at_age(age), policy)
}
