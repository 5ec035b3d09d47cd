use std::time::Duration;

use bytes::Bytes;

use super::support::*;
use crate::{BodyError, FILL_WINDOW_BYTES, FillError, Finished, Found, Position, Reason, StoreConfig};

/// Readers on several threads follow one large fill; a slow one reads from disk, and the fill's memory stays bounded.
#[test]
fn readers_on_several_threads_follow_a_large_fill() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let main = runtime();
    let store = main.block_on(open(dir.path()));
    let length = 24 << 20;
    let whole = body("/large", 1, length);
    let mut fill = store.begin(head("/large", Position(0)), Some(length as u64));
    let readers: Vec<_> = (0..4_u64)
        .map(|n| {
            let mut reader = fill.follower().read().unwrap();
            let (whole, rest) = (whole.clone(), runtime());
            std::thread::spawn(move || {
                rest.block_on(async move {
                    assert_eq!(reader.size_hint(), Some(whole.len() as u64));
                    let mut at = 0;
                    while let Some(piece) = reader.next().await {
                        let piece = piece.unwrap();
                        assert!(piece == whole[at..at + piece.len()], "reader {n} at {at}");
                        at += piece.len();
                        if n == 3 && at < 4 << 20 {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                    assert_eq!(at, whole.len());
                });
            })
        })
        .collect();
    let held_max = main.block_on(async {
        let mut held_max = 0;
        for piece in whole.chunks(100_000) {
            fill.append(Bytes::copy_from_slice(piece)).await.unwrap();
            held_max = held_max.max(fill.follower().held().len());
        }
        let late = fill.follower().read().unwrap();
        assert!(matches!(fill.finish(None).await, Finished::Stored(_)));
        assert_eq!(read_all(late).await.unwrap(), whole);
        held_max
    });
    assert!(held_max <= 2 * FILL_WINDOW_BYTES, "{held_max} bytes held");
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    main.block_on(async {
        assert_eq!(serve(&store, "/large").await.unwrap(), whole);
        store.close().await;
    });
}

#[tokio::test]
async fn a_dropped_fill_leaves_nothing_and_tells_its_readers() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for length in [1000, 4 << 20] {
        let mut fill = store.begin(head("/gone", Position(0)), Some(8 << 20));
        let follower = fill.follower();
        let reader = follower.read().unwrap();
        fill.append(body("/gone", 1, length)).await.unwrap();
        drop(fill);
        assert_eq!(read_all(reader).await, Err(BodyError::Aborted));
        assert!(follower.read().is_none());
        assert!(matches!(store.find(&key("/gone")), Found::Absent));
    }
    assert_eq!(store.stats().fills_aborted, 2);
    no_segments(dir.path()).await;
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_is_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut short = store.begin(head("/short", Position(0)), Some(100));
    let reader = short.follower().read().unwrap();
    short.append(Bytes::from_static(b"only this")).await.unwrap();
    assert!(matches!(short.finish(None).await, Finished::NotStored(Reason::Incomplete)));
    assert_eq!(read_all(reader).await, Err(BodyError::Aborted));
    let mut long = store.begin(head("/long", Position(0)), Some(4));
    assert_eq!(long.append(Bytes::from_static(b"too long")).await, Err(FillError::TooLong(4)));
    assert!(matches!(store.find(&key("/short")), Found::Absent));
}

/// A body that grows past `object_max` reaches its readers whole, paced by the slowest, and is not stored.
#[tokio::test]
async fn a_body_beyond_object_max_passes_unstored() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(StoreConfig { object_max: 3 * MIB, ..config(dir.path()) }).await;
    let whole = body("/over", 1, 12 << 20);
    let mut fill = store.begin(head("/over", Position(0)), None);
    let follower = fill.follower();
    let (fast, mut slow) = (follower.read().unwrap(), follower.read().unwrap());
    let fast = tokio::spawn(read_all(fast));
    let (sender, mut appended) = tokio::sync::watch::channel(0);
    let pieces = whole.clone();
    let filler = tokio::spawn(async move {
        for (n, piece) in pieces.chunks(64 << 10).enumerate() {
            fill.append(Bytes::copy_from_slice(piece)).await.unwrap();
            sender.send_replace((n + 1) * (64 << 10));
        }
        fill.finish(None).await
    });
    // Nobody reads the slow one: the filler stops a window behind what is on disk.
    let _ = tokio::time::timeout(Duration::from_millis(500), appended.wait_for(|at| *at >= 12 << 20)).await;
    assert!(*appended.borrow() <= (4 << 20) + FILL_WINDOW_BYTES, "{} appended", *appended.borrow());
    assert!(follower.read().is_none(), "no new readers");
    let mut at = 0;
    while let Some(piece) = slow.next().await {
        let piece = piece.unwrap();
        assert!(piece == whole[at..at + piece.len()]);
        at += piece.len();
    }
    assert_eq!(at, whole.len());
    assert_eq!(fast.await.unwrap().unwrap(), whole);
    assert!(matches!(filler.await.unwrap(), Finished::NotStored(Reason::TooLarge)));
    assert!(matches!(store.find(&key("/over")), Found::Absent));
    no_segments(dir.path()).await;
}

#[tokio::test]
async fn an_unstored_body_that_nobody_reads_stops_its_fetch() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(StoreConfig { object_max: MIB, ..config(dir.path()) }).await;
    let mut fill = store.begin(head("/none", Position(0)), Some(2 * MIB));
    let reader = fill.follower().read().unwrap();
    fill.append(body("/none", 1, 100)).await.unwrap();
    drop(reader);
    assert_eq!(fill.append(body("/none", 1, 100)).await, Err(FillError::Unwanted));
}
