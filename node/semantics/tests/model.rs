//! The rules together against a naive reading of RFC 9111: random responses, requests and times, decided both by the crate
//! (from the text of the fields) and by a few lines written for this test (from the numbers the text was made of).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use brim_semantics::{
    CachePolicy, PurgeState, Refusal, RequestDirectives, RequestFacts, Reuse, Storable, http_date_value,
    may_serve_on_error, reuse, storable,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use proptest::prelude::*;

/// When every response of the model arrives.
const ARRIVAL_SECONDS: u64 = 1_800_000_000;

#[derive(Debug, Clone)]
struct ModelResponse {
    max_age: Option<u64>,
    s_maxage: Option<u64>,
    expires_in: Option<u64>,
    modified_ago: Option<u64>,
    has_tag: bool,
    age: u64,
    dated_ago: u64,
    no_store: bool,
    private: bool,
    no_cache: bool,
    must_revalidate: bool,
    window: Option<u64>,
}

#[derive(Debug, Clone)]
struct ModelRequest {
    no_cache: bool,
    max_age: Option<u64>,
    min_fresh: Option<u64>,
    max_stale: Option<u64>,
    after: u64,
}

fn rare() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.15)
}

fn some(most: u64) -> impl Strategy<Value = Option<u64>> {
    prop::option::of(0..most)
}

prop_compose! {
    fn any_response()(
        (max_age, s_maxage, expires_in, modified_ago) in (some(200), some(200), some(200), some(5000)),
        (has_tag, age, dated_ago) in (any::<bool>(), 0_u64..60, 0_u64..60),
        (no_store, private, no_cache, must_revalidate) in (rare(), rare(), rare(), rare()),
        window in some(100),
    ) -> ModelResponse {
        ModelResponse {
            max_age, s_maxage, expires_in, modified_ago, has_tag, age, dated_ago, no_store, private, no_cache,
            must_revalidate, window,
        }
    }
}

prop_compose! {
    fn any_request()(
        no_cache in rare(), max_age in prop::option::weighted(0.2, 0_u64..300),
        min_fresh in prop::option::weighted(0.2, 0_u64..100), max_stale in prop::option::weighted(0.3, 0_u64..200),
        after in 0_u64..400,
    ) -> ModelRequest {
        ModelRequest { no_cache, max_age, min_fresh, max_stale, after }
    }
}

fn arrival() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(ARRIVAL_SECONDS)
}

fn date(seconds: u64) -> HeaderValue {
    http_date_value(UNIX_EPOCH + Duration::from_secs(seconds))
}

impl ModelResponse {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let made = ARRIVAL_SECONDS - self.dated_ago;
        headers.insert("date", date(made));
        headers.insert("age", HeaderValue::from(self.age));
        if let Some(seconds) = self.expires_in {
            headers.insert("expires", date(made + seconds));
        }
        if let Some(seconds) = self.modified_ago {
            headers.insert("last-modified", date(made - seconds));
        }
        if self.has_tag {
            headers.insert("etag", HeaderValue::from_static("\"a\""));
        }
        let flags = [
            (self.no_store, "no-store"),
            (self.private, "Private"),
            (self.no_cache, "no-cache"),
            (self.must_revalidate, "must-revalidate"),
        ];
        for (_, directive) in flags.iter().filter(|(is_set, _)| *is_set) {
            headers.append("cache-control", HeaderValue::from_static(directive));
        }
        let numbers = [("max-age", self.max_age), ("S-Maxage", self.s_maxage), ("stale-while-revalidate", self.window)];
        for (directive, seconds) in numbers {
            if let Some(seconds) = seconds {
                let text = format!(" , {directive}=\"{seconds}\", x");
                headers.append("cache-control", HeaderValue::try_from(text).expect("visible ASCII"));
            }
        }
        headers
    }

    /// RFC 9111 §4.2.1, §4.2.2.
    fn lifetime(&self) -> Option<u64> {
        let heuristic = self.modified_ago.map(|seconds| seconds / 10);
        self.s_maxage.or(self.max_age).or(self.expires_in).or(heuristic)
    }

    fn refusal(&self) -> Option<Refusal> {
        if self.no_store {
            return Some(Refusal::NoStore);
        }
        if self.private {
            return Some(Refusal::Private);
        }
        let has_validator = self.has_tag || self.modified_ago.is_some();
        let is_of_use = if self.no_cache { has_validator } else { has_validator || self.lifetime().is_some() };
        (!is_of_use).then_some(Refusal::NoFreshness)
    }
}

/// What RFC 9111 §4 lets a cache do with a stored response without asking the origin first.
#[derive(Debug, PartialEq, Eq)]
enum Use {
    Fresh,
    Stale,
    Never,
}

fn naive(response: &ModelResponse, request: &ModelRequest) -> Use {
    let age = response.age.max(response.dated_ago) + request.after;
    let lifetime = response.lifetime().unwrap_or(0);
    if response.no_cache || request.no_cache || request.max_age.is_some_and(|limit| limit == 0 || age > limit) {
        return Use::Never;
    }
    if age < lifetime {
        let stays = request.min_fresh.is_none_or(|seconds| lifetime - age >= seconds);
        return if stays { Use::Fresh } else { Use::Never };
    }
    let stale_for = age - lifetime;
    let forbidden = response.must_revalidate || response.s_maxage.is_some() || response.lifetime().is_none();
    let client_takes = request.max_stale.is_some_and(|limit| stale_for <= limit);
    let client_bars = request.min_fresh.is_some() || (request.max_age.is_some() && !client_takes);
    let origin_permits = !response.must_revalidate && response.window.is_some_and(|window| stale_for < window);
    if !client_bars && (origin_permits || (client_takes && !forbidden)) { Use::Stale } else { Use::Never }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_rules_agree_with_a_naive_reading(response in any_response(), asked in any_request()) {
        let (fields, target) = (HeaderMap::new(), Uri::from_static("https://example.com/"));
        let facts = RequestFacts { method: &Method::GET, headers: &fields, target: &target };
        let policy = CachePolicy::default();
        let meta = match storable(&facts, StatusCode::OK, &response.headers(), &policy, arrival(), arrival()) {
            Storable::No(refusal) => {
                prop_assert_eq!(Some(refusal), response.refusal());
                return Ok(());
            }
            Storable::Yes(meta) => meta,
        };
        prop_assert_eq!(None, response.refusal());
        prop_assert_eq!(meta.freshness_lifetime.as_secs(), response.lifetime().unwrap_or(0));

        let mut request = HeaderMap::new();
        for (directive, seconds) in [("max-age", asked.max_age), ("Min-Fresh", asked.min_fresh), ("max-stale", asked.max_stale)] {
            if let Some(seconds) = seconds {
                request.append("cache-control", HeaderValue::try_from(format!("{directive}={seconds}")).unwrap());
            }
        }
        if asked.no_cache {
            request.append("cache-control", HeaderValue::from_static("No-Cache"));
        }
        let directives = RequestDirectives::parse(&request);
        let now = arrival() + Duration::from_secs(asked.after);
        let decided = match reuse(&meta, &directives, PurgeState::Live, now, &policy) {
            Reuse::Fresh => Use::Fresh,
            Reuse::StaleAllowed { .. } | Reuse::StaleWhileValidating { .. } => Use::Stale,
            Reuse::MustValidate(_) | Reuse::Unusable => Use::Never,
        };
        prop_assert_eq!(&decided, &naive(&response, &asked));
        // What may be used at once may be used on error too, unless it is served only while it is validated.
        if decided == Use::Fresh {
            prop_assert!(may_serve_on_error(&meta, &directives, PurgeState::Live, now, &policy) || asked.min_fresh.is_some());
        }
        prop_assert_eq!(reuse(&meta, &directives, PurgeState::Hard, now, &policy), Reuse::Unusable);
        prop_assert!(!may_serve_on_error(&meta, &directives, PurgeState::Hard, now, &policy));
    }
}
