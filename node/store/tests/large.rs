//! Bodies that do not fit in memory: they stream to and from disk, to several readers at once. One test in a process of its
//! own: it counts what the process allocates.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use std::alloc::System;
use std::path::Path;
use std::time::Duration;

use brim_store::{BodyReader, FillError, Finished, Found, Reason, ResponseHead, Store, StoreConfig};
use bytes::Bytes;
use cap::Cap;
use common::key;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const MIB: u64 = 1 << 20;
const LENGTH: u64 = 64 * MIB;
const PIECE: u64 = 96 * 1024;
/// Fill, readers and the writes under way: some pieces each, far below the body.
const ALLOCATED_MAX: usize = 24 << 20;

fn head(path: &str, store: &Store) -> ResponseHead {
    common::head(path, &[("cache-control", "max-age=600")], store.position())
}

/// The byte at a place of every body.
fn byte(at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16) ^ (at >> 24)).to_le_bytes()[0]
}

fn piece(begin: u64, end: u64) -> Bytes {
    (begin..end).map(byte).collect()
}

/// Reads to the end; every byte is the right one. Returns how many there were.
async fn check(mut reader: BodyReader, begin: u64) -> u64 {
    let mut at = begin;
    while let Some(read) = reader.next().await {
        let read = read.unwrap();
        let end = at + read.len() as u64;
        assert!(read == piece(at, end), "bytes {at}..{end}");
        at = end;
    }
    at - begin
}

fn bytes_below(dir: &Path) -> u64 {
    std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// Streams a body in, with readers that begin early, late and in the middle of it. Returns the most that was allocated.
async fn fill_while_others_read(store: &Store) -> usize {
    let mut fill = store.begin(head("/large", store), Some(LENGTH));
    let following = fill.follower();
    let mut readers = vec![tokio::spawn(check(following.read().unwrap(), 0))];
    let (mut most, mut at) = (0, 0);
    while at < LENGTH {
        let end = (at + PIECE).min(LENGTH);
        fill.append(piece(at, end)).await.unwrap();
        if at < LENGTH / 2 && end >= LENGTH / 2 {
            readers.push(tokio::spawn(check(following.read().unwrap(), 0)));
            let range = following.read_range(3 * LENGTH / 4..LENGTH).unwrap();
            readers.push(tokio::spawn(check(range, 3 * LENGTH / 4)));
        }
        most = most.max(ALLOCATOR.allocated());
        at = end;
    }
    assert!(matches!(fill.finish(None).await, Finished::Stored(_)));
    let mut lengths = Vec::new();
    for reader in readers {
        lengths.push(reader.await.unwrap());
    }
    assert_eq!(lengths, [LENGTH, LENGTH, LENGTH / 4]);
    most
}

#[tokio::test]
async fn long_bodies_stream_with_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        disk_max: 1024 * MIB,
        memory_max: 16 * MIB,
        object_max: 72 * MIB,
        finish_unread: 0,
        flush_every: Duration::from_millis(100),
        reserve_free: Some(0),
        ..StoreConfig::new(dir.path())
    };
    let store = Store::open(config.clone()).await.unwrap();
    let before = ALLOCATOR.allocated();
    let most = fill_while_others_read(&store).await - before;
    println!("{most} bytes allocated at most for a body of {LENGTH}");
    assert!(most < ALLOCATED_MAX, "{most} bytes");
    store.close().await;
    drop(store);

    let store = Store::open(config).await.unwrap();
    let Found::OnDisk = store.find(&key("/large")) else { panic!("it is on disk") };
    let variants = store.load(&key("/large")).await.unwrap();
    let readers: Vec<_> = (0..3).map(|_| tokio::spawn(check(variants[0].read(), 0))).collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), LENGTH);
    }
    drop(variants);

    // Nobody reads any more: the fill ends, and nothing of it is left.
    let mut fill = store.begin(head("/aborted", &store), Some(LENGTH));
    let reader = fill.follower().read().unwrap();
    for n in 0..300 {
        fill.append(piece(n * PIECE, (n + 1) * PIECE)).await.unwrap();
    }
    drop(reader);
    assert_eq!(fill.append(piece(300 * PIECE, 301 * PIECE)).await, Err(FillError::Unwanted));
    drop(fill);
    assert!(matches!(store.find(&key("/aborted")), Found::Absent));
    let left = || bytes_below(&dir.path().join("seg"));
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while left() > LENGTH + MIB {
        assert!(std::time::Instant::now() < deadline, "{} bytes are left", left());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    // Longer than is stored: its reader gets it, and it is gone.
    let mut fill = store.begin(head("/too-long", &store), Some(72 * MIB + 1));
    let reading = tokio::spawn(check(fill.follower().read().unwrap(), 0));
    let mut at = 0;
    while at < 72 * MIB + 1 {
        let end = (at + PIECE).min(72 * MIB + 1);
        fill.append(piece(at, end)).await.unwrap();
        at = end;
    }
    assert!(matches!(fill.finish(None).await, Finished::NotStored(Reason::TooLarge)));
    assert_eq!(reading.await.unwrap(), 72 * MIB + 1);
    assert!(matches!(store.find(&key("/too-long")), Found::Absent));
    assert!(left() <= LENGTH + MIB);
}
