//! What the rules cost: the decisions that every hit takes, and those of a miss.
//!
//! Not here: anything that waits, reads or writes (`store`), and the request path around it (`load`).
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use brim_semantics::{
    CacheKey, CachePolicy, CacheStatus, ForwardReason, KeyField, KeyMethod, KeyPart, Nominated, PartValue, PurgeState,
    RequestDirectives, RequestFacts, ResponseDirectives, Storable, StoredMeta, Target, reuse, storable, stored_headers,
    surrogate_keys,
};
use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

/// The allocator of the node.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

/// What a browser's `fetch` sends to an API.
fn request_headers() -> HeaderMap {
    headers(&[
        ("host", "api.example.com"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("accept-language", "en-GB,en;q=0.9,de;q=0.7"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("referer", "https://www.example.com/products"),
        ("x-tenant", "acme"),
    ])
}

/// What an API answers when it wants to be cached well.
fn response_headers() -> HeaderMap {
    headers(&[
        ("date", "Mon, 23 Nov 2026 12:00:00 GMT"),
        ("content-type", "application/json"),
        ("content-length", "1024"),
        ("cache-control", "public, max-age=60, s-maxage=300, stale-while-revalidate=30"),
        ("etag", "\"33a64df551425fcc55e4d42a148795d9\""),
        ("vary", "accept-encoding, accept-language"),
        ("surrogate-key", "products product-17 category-4 brand-9"),
        ("connection", "keep-alive"),
    ])
}

/// The `Date` of [`response_headers`].
fn response_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_435_200)
}

fn stored_meta(policy: &CachePolicy) -> StoredMeta {
    let (request, target) = (request_headers(), Uri::from_static("https://api.example.com/products/17"));
    let facts = RequestFacts { method: &Method::GET, headers: &request, target: &target };
    match storable(&facts, StatusCode::OK, &response_headers(), policy, response_time(), response_time()) {
        Storable::Yes(meta) => meta,
        Storable::No(refusal) => panic!("the sample response is not stored: {}", refusal.as_detail()),
    }
}

fn keys(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("semantics/key");
    let target = Target {
        scheme: "https",
        authority: "api.example.com",
        site: "api",
        path: "/v2/products/17/reviews",
        query: Some("page=2&per_page=50&sort=newest"),
        rule: None,
    };
    let parts = [
        KeyPart { name: "tenant".to_owned(), value: PartValue::Text("acme".to_owned()) },
        KeyPart { name: "device".to_owned(), value: PartValue::Integer(2) },
    ];
    group.bench_function("plain", |bencher| {
        bencher.iter(|| CacheKey::new(KeyMethod::Get, black_box(&target), &[]));
    });
    group.bench_function("two_plugin_parts", |bencher| {
        bencher.iter(|| CacheKey::new(KeyMethod::Get, black_box(&target), black_box(&parts)));
    });
    group.finish();
}

fn hit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("semantics/hit");
    let policy = CachePolicy::default();
    let plain = request_headers();
    let mut careful = plain.clone();
    careful.insert("cache-control", HeaderValue::from_static("max-age=120, max-stale=10, no-transform"));
    group.bench_function("request_directives_absent", |bencher| {
        bencher.iter(|| RequestDirectives::parse(black_box(&plain)));
    });
    group.bench_function("request_directives_three", |bencher| {
        bencher.iter(|| RequestDirectives::parse(black_box(&careful)));
    });

    let meta = stored_meta(&policy);
    let directives = RequestDirectives::parse(&plain);
    let now = response_time() + Duration::from_secs(7);
    group.bench_function("reuse_fresh", |bencher| {
        bencher.iter(|| reuse(black_box(&meta), black_box(&directives), PurgeState::Live, black_box(now), &policy));
    });

    let nominated = Nominated::of(&response_headers(), &plain).ok();
    let nominated = nominated.unwrap_or_else(|| unreachable!("the sample response does not vary on everything"));
    group.bench_function("variant_matches_two_fields", |bencher| {
        bencher.iter(|| black_box(&nominated).matches(black_box(&plain)));
    });

    group.bench_function("cache_status_hit", |bencher| bencher.iter(|| CacheStatus::hit().value()));
    group.bench_function("cache_status_hit_ttl", |bencher| {
        bencher.iter(|| CacheStatus::hit().ttl(black_box(293)).value());
    });
    group.bench_function("age_value", |bencher| bencher.iter(|| black_box(&meta).age_value(black_box(now))));
    group.finish();
}

fn miss(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("semantics/miss");
    let policy = CachePolicy::default();
    let (request, response) = (request_headers(), response_headers());
    let target = Uri::from_static("https://api.example.com/products/17");
    let facts = RequestFacts { method: &Method::GET, headers: &request, target: &target };
    group.bench_function("storable", |bencher| {
        bencher.iter(|| {
            let time = black_box(response_time());
            storable(&facts, StatusCode::OK, black_box(&response), &policy, time, time)
        });
    });
    let directives = ResponseDirectives::parse(&response, &policy);
    group.bench_function("stored_headers", |bencher| {
        bencher.iter(|| stored_headers(black_box(&response), &directives));
    });
    group.bench_function("surrogate_keys_four", |bencher| {
        bencher.iter(|| surrogate_keys(black_box(&response), KeyField::defaults()))
    });
    group.bench_function("cache_status_stored", |bencher| {
        bencher.iter(|| {
            let status = CacheStatus::forward(ForwardReason::UriMiss).fwd_status(black_box(StatusCode::OK));
            status.stored().detail("uri-miss").value()
        });
    });
    group.finish();
}

criterion_group!(benches, keys, hit, miss);
criterion_main!(benches);
