//! Heads, bodies and stores for the tests. A body tells its key and version in every 16 bytes, so that no other passes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brim_semantics::{
    CacheKey, CachePolicy, KeyMethod, Nominated, PurgeState, RequestFacts, Storable, StoredMeta, Target, storable,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    BodyError, BodyReader, DiskState, Finished, Found, Position, ResponseHead, Scope, Store, StoreConfig, StoreStats,
    StoredResponse, Variants,
};

pub(super) const KIB: u64 = 1024;
pub(super) const MIB: u64 = 1024 * 1024;

pub(super) fn config(dir: &Path) -> StoreConfig {
    StoreConfig {
        flush_every: Duration::from_millis(50),
        memory_max: 32 * MIB,
        reserve_free: Some(0),
        ..StoreConfig::new(dir)
    }
}

pub(super) async fn open(dir: &Path) -> Store {
    opened(config(dir)).await
}

/// Open, and its disk tier as well: on a busy machine that takes longer than `Store::open` waits.
pub(super) async fn opened(config: StoreConfig) -> Store {
    let store = Store::open(config).await.unwrap();
    until(&store, "an opened disk tier", |stats| stats.disk != DiskState::Opening).await;
    store
}

pub(super) fn key(path: &str) -> CacheKey {
    let target = Target { scheme: "https", authority: "a.example", site: "shop", path, query: None, rule: None };
    CacheKey::new(KeyMethod::Get, &target, &[]).unwrap()
}

pub(super) fn now() -> SystemTime {
    SystemTime::now()
}

pub(super) fn meta(headers: &HeaderMap) -> StoredMeta {
    let uri = Uri::from_static("https://a.example/");
    let request_headers = HeaderMap::new();
    let request = RequestFacts { method: &Method::GET, headers: &request_headers, target: &uri };
    match storable(&request, StatusCode::OK, headers, &CachePolicy::default(), now(), now()) {
        Storable::Yes(meta) => meta,
        Storable::No(refusal) => panic!("not storable: {refusal:?}"),
    }
}

pub(crate) fn head(path: &str, fetched_at: Position) -> ResponseHead {
    let mut headers = HeaderMap::new();
    headers.insert("cache-control", HeaderValue::from_static("max-age=600"));
    headers.insert("content-type", HeaderValue::from_static("text/plain"));
    headers.insert("x-path", HeaderValue::from_str(path).unwrap());
    ResponseHead {
        key: key(path),
        scope: Scope { site: "shop".into(), authority: "a.example".into(), path: path.into(), query: None },
        status: StatusCode::OK,
        part: None,
        meta: meta(&headers),
        headers,
        nominated: Nominated::of(&HeaderMap::new(), &HeaderMap::new()).unwrap(),
        surrogate_keys: vec![format!("key-{path}").into()],
        content_keys: Vec::new(),
        fetched_at,
        plugin: None,
    }
}

pub(super) fn in_language(mut head: ResponseHead, language: &'static str) -> ResponseHead {
    let (mut response, mut request) = (HeaderMap::new(), HeaderMap::new());
    response.insert("vary", HeaderValue::from_static("accept-language"));
    request.insert("accept-language", HeaderValue::from_static(language));
    head.nominated = Nominated::of(&response, &request).unwrap();
    head.headers.insert("content-language", HeaderValue::from_static(language));
    head
}

/// `length` bytes, each 16 of them made from path, version and place.
pub(super) fn body(path: &str, version: u64, length: usize) -> Bytes {
    let seed = xxh3_64(path.as_bytes());
    let mut out = Vec::with_capacity(length + 16);
    out.extend_from_slice(&version.to_le_bytes());
    let mut n = 0_u64;
    while out.len() < length {
        out.extend_from_slice(&(seed ^ version.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_add(n).to_le_bytes());
        n += 1;
    }
    out.truncate(length);
    out.into()
}

/// The version a body of this path tells; panics when any byte of it is not that version's.
pub(super) fn version_of(path: &str, found: &[u8]) -> u64 {
    let version = u64::from_le_bytes(found[..8].try_into().unwrap());
    assert!(found == body(path, version, found.len()), "a wrong body for {path}");
    version
}

pub(super) async fn put(store: &Store, head: ResponseHead, body: Bytes) -> Arc<StoredResponse> {
    let mut fill = store.begin(head, Some(body.len() as u64));
    fill.append(body).await.unwrap();
    match fill.finish(None).await {
        Finished::Stored(response) => response,
        Finished::NotStored(reason) => panic!("not stored: {reason:?}"),
    }
}

/// As a request does it: with a reader, and whatever becomes of it.
pub(super) async fn try_put_path(
    store: &Store,
    path: &str,
    version: u64,
    length: usize,
) -> Option<Arc<StoredResponse>> {
    let mut fill = store.begin(head(path, store.position()), Some(length as u64));
    let reading = tokio::spawn(read_all(fill.follower().read()?));
    let body = body(path, version, length);
    for piece in body.chunks(100_000) {
        fill.append(Bytes::copy_from_slice(piece)).await.ok()?;
    }
    let finished = fill.finish(None).await;
    assert_eq!(reading.await.unwrap().unwrap(), body, "its own reader gets it, stored or not");
    match finished {
        Finished::Stored(response) => Some(response),
        Finished::NotStored(_) => None,
    }
}

/// Waits until the disk tier is there.
pub(super) async fn ready(store: &Store) {
    until(store, "a disk tier", |stats| stats.disk == DiskState::Ready).await;
}

/// Waits until the store's figures are as they should be.
pub(super) async fn until(store: &Store, what: &str, is_so: impl Fn(&StoreStats) -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let stats = store.stats();
        if is_so(&stats) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{what}: {stats:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) async fn put_path(store: &Store, path: &str, version: u64, length: usize) -> Arc<StoredResponse> {
    put(store, head(path, store.position()), body(path, version, length)).await
}

/// Somebody asks for it, and leaves before it has come: a full disk takes it the next time.
pub(super) fn ask_in_vain(store: &Store, path: &str) {
    drop(store.begin(head(path, store.position()), None));
}

pub(super) async fn lookup(store: &Store, path: &str) -> Option<Arc<Variants>> {
    match store.find(&key(path)) {
        Found::Memory(variants) => Some(variants),
        Found::OnDisk => store.load(&key(path)).await,
        Found::Absent => None,
    }
}

pub(super) async fn read_all(mut reader: BodyReader) -> Result<Bytes, BodyError> {
    let mut all = Vec::new();
    while let Some(piece) = reader.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all.into())
}

/// Waits until no segment file is left.
pub(super) async fn no_segments(dir: &Path) {
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while std::fs::read_dir(dir.join("seg")).unwrap().count() > 0 {
        assert!(std::time::Instant::now() < deadline, "a segment is left");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a request would get: the newest variant that no hard purge names, whole.
pub(super) async fn serve(store: &Store, path: &str) -> Option<Bytes> {
    let variants = lookup(store, path).await?;
    let response = variants.iter().find(|one| store.purge_state(one) != PurgeState::Hard)?;
    match response.body() {
        Some(bytes) => Some(bytes),
        None => read_all(response.read()).await.ok(),
    }
}

/// Numbers that look random and are the same for the same seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn seeded(test: &str) -> Self {
        let seed = now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
        println!("{test}: seed {seed}");
        Self(u64::from(seed) | 1)
    }

    pub(super) fn length_below(&mut self, bound: u64) -> usize {
        8 + usize::try_from(self.below(bound)).unwrap()
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        xxh3_64(&self.0.to_le_bytes()) % bound
    }
}
