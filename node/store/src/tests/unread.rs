//! Fills that nobody reads, and fills that copy a stored response.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::support::*;
use crate::{Fill, FillError, Finished, Found, Position, Reason, ResponseHead, Store, StoreConfig, StoredResponse};

const LIMIT: u64 = MIB;

async fn open_limited(dir: &std::path::Path, object_max: u64) -> Store {
    opened(StoreConfig { finish_unread: LIMIT, object_max, ..config(dir) }).await
}

async fn append(fill: &mut Fill, length: u64) -> Result<(), FillError> {
    fill.append(Bytes::from(vec![7; usize::try_from(length).unwrap()])).await
}

fn counts(store: &Store) -> (u64, u64) {
    (store.stats().fills_unread, store.stats().fills_aborted)
}

#[tokio::test]
async fn an_announced_body_ends_when_the_last_reader_leaves_and_much_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_limited(dir.path(), 64 * MIB).await;
    // Collected in memory, and streaming to disk.
    for arrived in [MIB / 2, 5 * MIB] {
        let mut fill = store.begin(head("/a", Position(0)), Some(arrived + 200 + LIMIT));
        let follower = fill.follower();
        let (one, other) = (follower.read().unwrap(), follower.read().unwrap());
        append(&mut fill, arrived).await.unwrap();
        drop(one);
        append(&mut fill, 100).await.expect("the other still reads");
        drop(other);
        assert_eq!(append(&mut fill, 99).await, Err(FillError::Unwanted), "LIMIT + 1 bytes are missing");
        assert_eq!(follower.held().len(), 0, "its memory is given back, though the fill is not dropped yet");
        no_segments(dir.path()).await;
        assert!(follower.read().is_none() && follower.read_range(0..1).is_none());
        assert_eq!(append(&mut fill, 100).await, Err(FillError::Unwanted), "it stays ended");
        assert!(matches!(fill.finish(None).await, Finished::NotStored(Reason::Incomplete)));
        assert!(matches!(store.find(&key("/a")), Found::Absent));
    }
    assert_eq!(counts(&store), (2, 2));
}

#[tokio::test]
async fn an_announced_body_of_which_little_is_missing_is_fetched_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_limited(dir.path(), 64 * MIB).await;
    let mut fill = store.begin(head("/a", Position(0)), Some(5 * MIB));
    let reader = fill.follower().read().unwrap();
    append(&mut fill, 4 * MIB - 10).await.unwrap();
    drop(reader);
    append(&mut fill, 10).await.expect("LIMIT bytes are missing");
    append(&mut fill, MIB - 1).await.unwrap();
    append(&mut fill, 1).await.unwrap();
    assert!(matches!(fill.finish(None).await, Finished::Stored(_)));
    assert_eq!(counts(&store), (0, 0));
}

#[tokio::test]
async fn a_body_without_announced_length_ends_when_much_came_since_the_last_reader_left() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_limited(dir.path(), 64 * MIB).await;
    let mut fill = store.begin(head("/a", Position(0)), None);
    let follower = fill.follower();
    let reader = follower.read().unwrap();
    append(&mut fill, 3 * LIMIT).await.expect("somebody reads");
    drop(reader);
    append(&mut fill, LIMIT).await.expect("LIMIT bytes since then");
    let again = follower.read_range(5 * LIMIT..u64::MAX).unwrap();
    append(&mut fill, LIMIT).await.expect("somebody reads");
    drop(again);
    append(&mut fill, LIMIT - 1).await.expect("it counts from the last one");
    append(&mut fill, 1).await.unwrap();
    assert_eq!(append(&mut fill, 1).await, Err(FillError::Unwanted));
    assert_eq!(follower.held().len(), 0);
    assert!(matches!(fill.finish(None).await, Finished::NotStored(Reason::Incomplete)), "whatever the filler thinks");
    assert!(follower.read().is_none(), "what ended early is not whole later");
    no_segments(dir.path()).await;
    assert_eq!(counts(&store), (1, 1));

    let mut short = store.begin(head("/a", Position(0)), None);
    drop(short.follower().read());
    append(&mut short, LIMIT).await.unwrap();
    assert!(matches!(short.finish(None).await, Finished::Stored(_)), "it ended in time");
}

#[tokio::test]
async fn a_fill_that_never_had_a_reader_is_unread() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_limited(dir.path(), 64 * MIB).await;
    let mut announced = store.begin(head("/a", Position(0)), Some(LIMIT + 2));
    assert_eq!(append(&mut announced, 1).await, Err(FillError::Unwanted));
    let mut unannounced = store.begin(head("/b", Position(0)), None);
    append(&mut unannounced, LIMIT).await.unwrap();
    assert_eq!(append(&mut unannounced, 1).await, Err(FillError::Unwanted));
    assert_eq!(counts(&store).0, 2);
}

/// Work in the background needs no reader, and does not end with one that came and went.
#[tokio::test]
async fn a_fill_in_the_background_goes_on_unless_it_is_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_limited(dir.path(), 6 * MIB).await;
    for announced in [Some(5 * MIB), None] {
        let mut fill = store.begin(head("/a", Position(0)), announced).in_background();
        append(&mut fill, 2 * MIB).await.unwrap();
        drop(fill.follower().read());
        append(&mut fill, 2 * MIB).await.unwrap();
        append(&mut fill, MIB).await.unwrap();
        assert!(matches!(fill.finish(None).await, Finished::Stored(_)));
    }
    assert_eq!(counts(&store), (0, 0));
    let mut too_large = store.begin(head("/b", Position(0)), Some(7 * MIB)).in_background();
    assert_eq!(append(&mut too_large, 1).await, Err(FillError::Unwanted), "it passes, to nobody");
    drop(too_large);
    assert_eq!(counts(&store), (1, 1));
}

async fn copy(store: &Store, stored: &StoredResponse, head: ResponseHead) -> Arc<StoredResponse> {
    let mut fill = store.begin(head, stored.content_length()).in_background();
    match stored.body() {
        Some(bytes) => fill.append(bytes).await.unwrap(),
        None => {
            let mut reader = stored.read();
            while let Some(piece) = reader.next().await {
                fill.append(piece.unwrap()).await.unwrap();
            }
        }
    }
    match fill.finish(stored.trailers().cloned()).await {
        Finished::Stored(copy) => copy,
        Finished::NotStored(reason) => panic!("not stored: {reason:?}"),
    }
}

/// RFC 9111 §4.3.3: a 304 may select a stored response of other nominated fields; its body is stored for these too.
#[tokio::test]
async fn a_stored_body_is_copied_to_another_variant() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = StoreConfig { finish_unread: 0, ..config(dir.path()) };
    let store = opened(sizes.clone()).await;
    let trailers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("\"t\""))]);
    for (path, length) in [("/empty", 0), ("/small", 1000), ("/large", 3 << 20)] {
        let mut fill = store.begin(in_language(head(path, Position(0)), "de"), None).in_background();
        fill.append(body(path, 1, length).slice(..length)).await.unwrap();
        let Finished::Stored(german) = fill.finish(Some(trailers.clone())).await else { panic!("not stored") };
        assert_eq!(german.body().is_some(), length < 2000, "the large one is on disk only");
        let english = copy(&store, &german, in_language(head(path, Position(0)), "en")).await;
        // The old one may go: nothing is shared.
        store.remove_response(&german);
        store.flush().await;
        assert_eq!(read_all(english.read()).await.unwrap(), body(path, 1, length).slice(..length));
    }
    store.close().await;
    drop(store);
    let store = opened(sizes).await;
    for (path, length) in [("/empty", 0), ("/small", 1000), ("/large", 3 << 20)] {
        let variants = lookup(&store, path).await.expect("the copy is on disk");
        assert_eq!(variants.len(), 1);
        assert_eq!(variants[0].head.headers["content-language"], "en");
        assert_eq!(variants[0].trailers(), Some(&trailers));
        assert_eq!(read_all(variants[0].read()).await.unwrap(), body(path, 1, length).slice(..length));
    }
}
