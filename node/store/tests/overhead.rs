//! What a stored response costs in memory beside its key, its head and its body. One test in a process of its own: it counts
//! what the process allocates.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use std::alloc::System;
use std::time::Duration;

use brim_store::{Finished, Position, ResponseHead, Store, StoreConfig};
use bytes::Bytes;
use cap::Cap;
use http::HeaderValue;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const COUNT: usize = 20_000;
const BODY_BYTES: usize = 1000;
/// What the catalog has of a response, wherever that is.
const CARD_BYTES: usize = 256;

fn path(number: usize) -> String {
    format!("/v2/products/{number:06}")
}

const FIELDS: [(&str, &str); 8] = [
    ("content-type", "application/json; charset=utf-8"),
    ("cache-control", "public, max-age=3600, stale-while-revalidate=60"),
    ("etag", "\"33a64df551425fcc55e4d42a148795d9\""),
    ("date", "Sun, 29 Nov 2026 07:00:00 GMT"),
    ("last-modified", "Sun, 29 Nov 2026 06:00:00 GMT"),
    ("vary", "accept-encoding"),
    ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ("x-request-id", "7f7f36f0-4d5c-4c5e-9f0e-6a5f1f6f7a10"),
];

fn head(number: usize) -> ResponseHead {
    common::head(&path(number), &FIELDS, Position(0))
}

async fn put(store: &Store, number: usize) {
    let mut fill = store.begin(head(number), Some(BODY_BYTES as u64));
    fill.append(Bytes::from(vec![7; BODY_BYTES])).await.unwrap();
    assert!(matches!(fill.finish(None).await, Finished::Stored(_)));
    if number.is_multiple_of(1000) {
        store.flush().await;
    }
}

/// Bytes for each response, by how much more is allocated now.
fn each_since(before: usize) -> usize {
    (ALLOCATOR.allocated() - before) / COUNT
}

async fn fill_memory(store: &Store) -> usize {
    put(store, COUNT).await;
    let before = ALLOCATOR.allocated();
    for number in 0..COUNT {
        put(store, number).await;
    }
    store.flush().await;
    each_since(before)
}

#[tokio::test]
async fn a_stored_response_costs_little_beside_its_bytes() {
    // Nothing is written: what is counted is the memory tier, and the catalog.
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        memory_max: 256 << 20,
        reserve_free: Some(u64::MAX),
        flush_every: Duration::from_millis(50),
        ..StoreConfig::new(dir.path())
    };
    let store = Store::open(config.clone()).await.unwrap();
    let in_memory = fill_memory(&store).await;
    let stats = store.stats();
    assert_eq!((stats.memory_keys, stats.written_count), (COUNT as u64 + 1, 0), "{stats:?}");
    let weight = usize::try_from(stats.memory_bytes / stats.memory_keys).unwrap();
    store.close().await;
    drop(store);

    // All is on disk, and none of it in the memory tier: what is counted is the catalog, and what sled keeps.
    let config = StoreConfig { memory_max: 1 << 20, reserve_free: Some(0), ..config };
    let store = Store::open(config.clone()).await.unwrap();
    fill_memory(&store).await;
    store.close().await;
    drop(store);
    let before = ALLOCATOR.allocated();
    let store = Store::open(config).await.unwrap();
    while store.stats().written_count <= COUNT as u64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let on_disk = each_since(before);

    let one = head(0);
    let texts = |name: &http::HeaderName, value: &HeaderValue| name.as_str().len() + value.len();
    let texts: usize = one.headers.iter().map(|(name, value)| texts(name, value)).sum();
    let table = one.headers.capacity() * 110;
    let bytes = one.key.bytes().len() + size_of::<ResponseHead>() + table + texts + BODY_BYTES;
    let beside = in_memory.saturating_sub(bytes);
    println!("in memory {in_memory} bytes: {bytes} for key, head and body, {beside} beside them; weighed as {weight}");
    let stats = store.stats();
    let entry = usize::try_from(stats.entry_bytes / stats.written_count).unwrap();
    println!("on disk alone {on_disk} bytes of memory, of which {entry} are the index entry, if it is cached");
    assert!(beside < CARD_BYTES + 256, "{beside} bytes beside key, head and body");
    assert!(in_memory < weight + CARD_BYTES, "{in_memory} bytes are weighed as {weight}");
    assert!(on_disk < entry + 1024, "{on_disk} bytes for an entry of {entry}");
}
