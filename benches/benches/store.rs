//! What the store costs its caller: a hit, a load from disk, a fill, a purge.
//!
//! Always true:
//! - A store lies in a temporary directory, with a disk budget that a bench cannot exceed.
//! - A hit is measured over more keys than the processor's nearest cache holds; one key alone would flatter.
//! - Every fill is written. Its caller is done once it can be found, and only that is timed; the disk follows.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

use brim_semantics::{
    CacheKey, CachePolicy, KeyMethod, Nominated, PurgeState, RequestFacts, Storable, StoredMeta, Target, storable,
};
use brim_store::{Finished, Found, PurgeMode, ResponseHead, Scope, Selector, Store, StoreConfig};
use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The allocator of the node.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Keys that hits are spread over.
const KEYS: usize = 4096;
/// Fills before the disk is waited for: they fit the queue of writes, so that none is left out.
const FILLS_AT_ONCE: usize = 1024;
/// Purges of other keys before a hit is measured.
const OTHER_PURGES: usize = 5_000;
/// Purges that wait for the log at once while those are made.
const PURGES_AT_ONCE: usize = 250;

const AUTHORITY: &str = "api.example.com";

/// A store of its own, on a runtime of its own.
struct Bench {
    runtime: Runtime,
    store: Store,
    _dir: TempDir,
}

impl Bench {
    fn new(memory_max: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = StoreConfig { disk_max: 512 << 20, memory_max, ..StoreConfig::new(dir.path()) };
        let store = runtime.block_on(Store::open(config)).expect("a store in an empty directory");
        Self { runtime, store, _dir: dir }
    }

    /// A store that holds [`KEYS`] responses, all on disk and as many in memory as fit.
    fn filled(memory_max: u64, content_bytes: usize) -> (Self, Vec<CacheKey>) {
        let bench = Self::new(memory_max);
        let content = content(content_bytes);
        let keys: Vec<_> = (0..KEYS).map(key).collect();
        bench.runtime.block_on(async {
            for number in 0..KEYS {
                fill(&bench.store, head(number, &bench.store), &content).await;
            }
            bench.store.flush().await;
        });
        (bench, keys)
    }
}

fn content(bytes: usize) -> Bytes {
    Bytes::from(vec![b'x'; bytes])
}

fn path(number: usize) -> String {
    format!("/v2/products/{number}")
}

fn key(number: usize) -> CacheKey {
    let path = path(number);
    let target = Target { scheme: "https", authority: AUTHORITY, site: "api", path: &path, query: None, rule: None };
    CacheKey::new(KeyMethod::Get, &target, &[]).expect("a short key")
}

fn stored_meta(headers: &HeaderMap) -> StoredMeta {
    let (request, now) = (HeaderMap::new(), SystemTime::now());
    let target = Uri::from_static("https://api.example.com/v2/products/1");
    let facts = RequestFacts { method: &Method::GET, headers: &request, target: &target };
    match storable(&facts, StatusCode::OK, headers, &CachePolicy::default(), now, now) {
        Storable::Yes(meta) => meta,
        Storable::No(refusal) => panic!("the sample response is not stored: {}", refusal.as_detail()),
    }
}

fn head(number: usize, store: &Store) -> ResponseHead {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("cache-control", HeaderValue::from_static("public, max-age=3600"));
    headers.insert("etag", HeaderValue::from_static("\"33a64df551425fcc55e4d42a148795d9\""));
    let scope = Scope { site: "api".into(), authority: AUTHORITY.into(), path: path(number).into(), query: None };
    ResponseHead {
        key: key(number),
        scope,
        status: StatusCode::OK,
        part: None,
        meta: stored_meta(&headers),
        headers,
        nominated: Nominated::default(),
        surrogate_keys: vec!["products".into(), format!("product-{number}").into()],
        content_keys: Vec::new(),
        fetched_at: store.position(),
        plugin: None,
    }
}

async fn fill(store: &Store, head: ResponseHead, content: &Bytes) {
    let mut fill = store.begin(head, Some(content.len() as u64));
    fill.append(content.clone()).await.expect("a body of the announced length");
    match fill.finish(None).await {
        Finished::Stored(_) => {}
        Finished::NotStored(reason) => panic!("not stored: {}", reason.as_detail()),
    }
}

/// What the request path asks of the store for a hit.
#[inline]
fn hit(store: &Store, key: &CacheKey) -> Bytes {
    let Found::Memory(variants) = store.find(key) else { panic!("a warm key is not in memory") };
    let stored = &variants[0];
    assert_eq!(store.purge_state(stored), PurgeState::Live);
    stored.body().expect("the body is in memory")
}

fn other(number: usize) -> Selector {
    Selector::SurrogateKeys { site: None, keys: vec![format!("other-{number}").into()] }
}

/// Makes purges that hit nothing which is stored.
async fn purge_others(store: &Store) {
    for begin in (0..OTHER_PURGES).step_by(PURGES_AT_ONCE) {
        let waiting: Vec<_> = (begin..begin + PURGES_AT_ONCE)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move {
                    store
                        .purge(
                            brim_store::Purge::of(other(number), PurgeMode::Hard, SystemTime::now()),
                            brim_store::COUNT_WAIT,
                        )
                        .await
                })
            })
            .collect();
        for purge in waiting {
            purge.await.expect("a purge does not panic").expect("a purge is acknowledged");
        }
    }
}

fn hits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store/hit");
    let (bench, keys) = Bench::filled(256 << 20, 1024);
    let mut warm = keys.iter().cycle();
    let mut next = || warm.next().expect("a cycle has no end");
    group.bench_function("memory_1k", |bencher| bencher.iter(|| hit(&bench.store, black_box(next()))));
    let absent = key(KEYS);
    group.bench_function("absent", |bencher| bencher.iter(|| bench.store.find(black_box(&absent))));

    bench.runtime.block_on(purge_others(&bench.store));
    group.bench_function("memory_1k_after_5000_other_purges", |bencher| {
        bencher.iter(|| hit(&bench.store, black_box(next())));
    });
    // Every round begins with one purge more, so that each hit is the response's first since the clock went on.
    group.bench_function("memory_1k_first_after_another_purge", |bencher| {
        let mut purged = OTHER_PURGES;
        bencher.iter_custom(|iterations| {
            let mut left = usize::try_from(iterations).unwrap_or(usize::MAX);
            let mut spent = Duration::ZERO;
            while left > 0 {
                let purge = bench.store.purge(
                    brim_store::Purge::of(other(purged), PurgeMode::Hard, SystemTime::now()),
                    brim_store::COUNT_WAIT,
                );
                bench.runtime.block_on(purge).expect("a purge is acknowledged");
                purged += 1;
                let round = &keys[..left.min(KEYS)];
                left -= round.len();
                let began = Instant::now();
                for key in round {
                    black_box(hit(&bench.store, key));
                }
                spent += began.elapsed();
            }
            spent
        });
    });
    group.finish();
}

fn loads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store/load");
    for (name, content_bytes) in [("disk_1k", 1024), ("disk_8k", 8 * 1024)] {
        // Too little memory for what is stored: the pages of the files are in the system's cache, the responses in no tier.
        let (bench, keys) = Bench::filled(1 << 20, content_bytes);
        let mut cold = keys.iter().cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let key = cold.next().expect("a cycle has no end");
                let variants = bench.runtime.block_on(bench.store.load(key)).expect("it is on disk");
                variants[0].body().expect("short bodies are loaded whole")
            });
        });
    }
    group.finish();
}

fn fills(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store/fill");
    for (name, content_bytes) in [("1k", 1024), ("8k", 8 * 1024)] {
        let bench = Bench::new(64 << 20);
        let content = content(content_bytes);
        let mut first = 0;
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut left = usize::try_from(iterations).unwrap_or(usize::MAX);
                let mut spent = Duration::ZERO;
                while left > 0 {
                    let round = left.min(FILLS_AT_ONCE);
                    left -= round;
                    let heads: Vec<_> = (first..first + round).map(|number| head(number, &bench.store)).collect();
                    first += round;
                    spent += bench.runtime.block_on(fill_all(&bench.store, heads, &content));
                }
                spent
            });
        });
        assert_eq!(bench.store.stats().writes_dropped, 0, "a fill that is not written costs too little");
    }
    group.finish();
}

/// Returns how long the fills took. The disk has caught up when this is done.
async fn fill_all(store: &Store, heads: Vec<ResponseHead>, content: &Bytes) -> Duration {
    let began = Instant::now();
    for head in heads {
        fill(store, head, content).await;
    }
    let spent = began.elapsed();
    store.flush().await;
    spent
}

fn purges(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store/purge");
    // Each waits for the disk: fewer samples say as much.
    group.sample_size(20);
    let (bench, _) = Bench::filled(256 << 20, 1024);
    let store = &bench.store;
    group.bench_function("surrogate_key_of_all_acknowledged", |bencher| {
        bencher.iter(|| {
            let selector = Selector::SurrogateKeys { site: None, keys: vec!["products".into()] };
            let purge = store
                .purge(brim_store::Purge::of(selector, PurgeMode::Soft, SystemTime::now()), brim_store::COUNT_WAIT);
            bench.runtime.block_on(purge).expect("a purge is acknowledged")
        });
    });
    let mut number = 0;
    group.bench_function("url_acknowledged", |bencher| {
        bencher.iter(|| {
            number = (number + 1) % KEYS;
            let selector = Selector::Url { authority: AUTHORITY.into(), path: path(number).into(), query: None };
            let purge = store
                .purge(brim_store::Purge::of(selector, PurgeMode::Hard, SystemTime::now()), brim_store::COUNT_WAIT);
            bench.runtime.block_on(purge).expect("a purge is acknowledged")
        });
    });
    group.finish();
}

criterion_group!(benches, hits, loads, fills, purges);
criterion_main!(benches);
