use std::sync::Arc;

use brim_semantics::Part;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::support::*;
use crate::{Found, OpenError, Position, ResponseHead, Store};

#[tokio::test]
async fn what_was_stored_is_found_in_memory_and_after_a_restart_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let lengths = [0_usize, 8, 100, 65_536, 65_537, 900_000, 3 << 20];
    let path = |length: usize| format!("/{length}");
    {
        let store = open(dir.path()).await;
        for length in lengths {
            let mut fill = store.begin(head(&path(length), Position(0)), None);
            fill.append(body(&path(length), 1, length)).await.unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("5"));
            fill.finish(Some(trailers)).await;
            assert!(matches!(store.find(&key(&path(length))), Found::Memory(_)), "{length}");
            assert_eq!(serve(&store, &path(length)).await.unwrap(), body(&path(length), 1, length));
        }
        store.close().await;
    }
    let store = open(dir.path()).await;
    for length in lengths {
        assert!(matches!(store.find(&key(&path(length))), Found::OnDisk), "{length}");
        let variants = lookup(&store, &path(length)).await.unwrap();
        let expected = head(&path(length), Position(0));
        assert_eq!(variants[0].head.headers, expected.headers);
        assert_eq!(variants[0].head.scope, expected.scope);
        assert_eq!(variants[0].trailers().unwrap()["x-sum"], "5");
        assert_eq!(variants[0].content_length(), Some(length as u64));
        assert_eq!(variants[0].body().is_some(), length <= 1 << 20);
        assert_eq!(serve(&store, &path(length)).await.unwrap(), body(&path(length), 1, length));
        assert!(matches!(store.find(&key(&path(length))), Found::Memory(_)), "promoted");
    }
    assert!(matches!(store.find(&key("/never")), Found::Absent));
}

#[tokio::test]
async fn ranges_are_cut_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for length in [200_000_usize, 3 << 20] {
        let response = put_path(&store, "/r", 1, length).await;
        let whole = body("/r", 1, length);
        for (start, end) in
            [(0, 1), (65_535, 65_537), (65_536, 65_536), (100_000, 190_000), (150_000, 99_999_999), (9, length)]
        {
            let piece = read_all(response.read_range(start as u64..end as u64)).await.unwrap();
            assert_eq!(piece, whole[start..end.min(length)], "{start}..{end} of {length}");
        }
    }
}

#[tokio::test]
async fn variants_are_newest_first_replace_their_like_and_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let config = crate::StoreConfig { variants_max: 3, ..config(dir.path()) };
    let languages = |variants: &crate::Variants| -> Vec<String> {
        variants.iter().map(|one| one.head.headers["content-language"].to_str().unwrap().to_owned()).collect()
    };
    let store = opened(config.clone()).await;
    for language in ["de", "en", "fr", "de", "it"] {
        put(&store, in_language(head("/v", Position(0)), language), body("/v", 1, 100)).await;
    }
    assert_eq!(languages(&lookup(&store, "/v").await.unwrap()), ["it", "de", "fr"]);
    store.close().await;
    drop(store);
    let store = opened(config).await;
    assert_eq!(languages(&lookup(&store, "/v").await.unwrap()), ["it", "de", "fr"]);
    // A new variant beside those that are on disk only does not hide them.
    store.close().await;
    drop(store);
    let store = open(dir.path()).await;
    put(&store, in_language(head("/v", Position(0)), "es"), body("/v", 1, 100)).await;
    assert!(matches!(store.find(&key("/v")), Found::OnDisk));
    put(&store, in_language(head("/v", Position(0)), "pt"), body("/v", 1, 100)).await;
    assert!(matches!(store.find(&key("/v")), Found::OnDisk));
    assert_eq!(languages(&lookup(&store, "/v").await.unwrap()), ["pt", "es", "it", "de", "fr"]);
    assert!(matches!(store.find(&key("/v")), Found::Memory(_)));
}

/// RFC 9111 §3.3: parts of one representation lie side by side, each under its first byte.
#[tokio::test]
async fn parts_are_told_apart_by_their_first_byte() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let part = |start: u64, length: u64| ResponseHead {
        status: StatusCode::PARTIAL_CONTENT,
        part: Some(Part { start, end: start + length, complete_length: 1000 }),
        ..head("/p", Position(0))
    };
    put_path(&store, "/p", 1, 1000).await;
    for (start, length) in [(0, 10), (100, 10), (0, 50)] {
        put(&store, part(start, length), body("/p", 1, usize::try_from(length).unwrap())).await;
    }
    let spans = |variants: &crate::Variants| -> Vec<_> {
        variants.iter().map(|one| one.head.part.map(|part| part.range())).collect()
    };
    let expected = vec![Some(0..50), Some(100..110), None];
    assert_eq!(spans(&lookup(&store, "/p").await.unwrap()), expected);
    store.close().await;
    drop(store);
    let store = open(dir.path()).await;
    let variants = lookup(&store, "/p").await.unwrap();
    assert_eq!(spans(&variants), expected);

    store.remove_response(&variants[0]);
    assert_eq!(spans(&lookup(&store, "/p").await.unwrap()), expected[1..], "the others stay");
    store.remove_response(&variants[0]);
    assert_eq!(spans(&lookup(&store, "/p").await.unwrap()), expected[1..]);
}

/// RFC 9111 §4.3.4: the stored response gets new fields, the body stays.
#[tokio::test]
async fn a_freshened_response_is_visible_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for (path, length) in [("/small", 1000), ("/large", 2 << 20)] {
        let old = put_path(&store, path, 1, length).await;
        let mut headers = old.head.headers.clone();
        headers.insert("etag", HeaderValue::from_static("\"2\""));
        headers.insert("surrogate-key", HeaderValue::from_static("other"));
        let fresh = store.freshen(&old, headers, old.head.meta.clone(), Position(0), vec!["other".into()]);
        assert_eq!(fresh.head.surrogate_keys, ["other".into()]);
        let found = lookup(&store, path).await.unwrap();
        assert!(found.len() == 1 && Arc::ptr_eq(&found[0], &fresh));
    }
    store.close().await;
    drop(store);
    let store = open(dir.path()).await;
    for (path, length) in [("/small", 1000), ("/large", 2 << 20)] {
        assert_eq!(lookup(&store, path).await.unwrap()[0].head.headers["etag"], "\"2\"");
        assert_eq!(serve(&store, path).await.unwrap(), body(path, 1, length));
    }
}

#[tokio::test]
async fn freshening_what_was_replaced_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let old = put_path(&store, "/f", 1, 100).await;
    put_path(&store, "/f", 2, 100).await;
    store.freshen(&old, old.head.headers.clone(), old.head.meta.clone(), Position(0), old.head.surrogate_keys.clone());
    assert_eq!(serve(&store, "/f").await.unwrap(), body("/f", 2, 100));
    store.remove(&key("/f"));
    store.freshen(&old, old.head.headers.clone(), old.head.meta.clone(), Position(0), old.head.surrogate_keys.clone());
    assert!(serve(&store, "/f").await.is_none());
}

#[tokio::test]
async fn what_is_removed_is_gone_in_memory_and_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    put_path(&store, "/a", 1, 100).await;
    put_path(&store, "/b", 1, 100).await;
    store.flush().await;
    store.remove(&key("/a"));
    assert!(matches!(store.find(&key("/a")), Found::Absent));
    store.close().await;
    drop(store);
    let store = open(dir.path()).await;
    assert!(serve(&store, "/a").await.is_none());
    assert!(serve(&store, "/b").await.is_some());
}

#[tokio::test]
async fn two_stores_in_one_directory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    assert!(matches!(Store::open(config(dir.path())).await, Err(OpenError::InUse { .. })));
    store.close().await;
    assert!(Store::open(config(dir.path())).await.is_ok());
}

#[tokio::test]
async fn a_closed_store_serves_memory_and_refuses_purges() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    put_path(&store, "/a", 1, 100).await;
    store.close().await;
    assert!(serve(&store, "/a").await.is_some());
    put_path(&store, "/b", 1, 100).await;
    assert!(serve(&store, "/b").await.is_some());
    let purge = store
        .purge(crate::Purge::of(crate::Selector::Everything, crate::PurgeMode::Hard, now()), crate::COUNT_WAIT)
        .await;
    assert!(matches!(purge, Err(crate::PurgeError::Closed)));
}

/// Random stores, overwrites, removals and restarts, compared with a plain map. Losing is allowed, lying is not;
/// without a crash nothing is lost either.
#[tokio::test]
async fn a_store_behaves_like_a_map() {
    let mut random = Random::seeded("a_store_behaves_like_a_map");
    let dir = tempfile::tempdir().unwrap();
    let mut model = std::collections::HashMap::new();
    for round in 0..4_u64 {
        // Hardly any memory: nearly every look-up goes to disk.
        let config = crate::StoreConfig { memory_max: 256 * KIB, ..config(dir.path()) };
        let store = opened(config).await;
        for step in 0..300 {
            let path = format!("/{}", random.below(40));
            match random.below(4) {
                0 => {
                    let (version, length) = (round * 1000 + step, random.length_below(100_000));
                    put_path(&store, &path, version, length).await;
                    model.insert(path, (version, length));
                }
                1 if random.below(4) == 0 => {
                    store.remove(&key(&path));
                    model.remove(&path);
                }
                _ => {
                    if random.below(8) == 0 {
                        store.flush().await;
                    }
                    let found = serve(&store, &path).await.map(|bytes| (version_of(&path, &bytes), bytes.len()));
                    // What was just written may be neither in memory any more nor on disk yet.
                    if found.is_some() {
                        assert_eq!(found, model.get(&path).copied(), "{path}");
                    }
                }
            }
        }
        store.close().await;
        drop(store);
        let store = open(dir.path()).await;
        for n in 0..40 {
            let path = format!("/{n}");
            let found = serve(&store, &path).await.map(|bytes| (version_of(&path, &bytes), bytes.len()));
            assert_eq!(found, model.get(&path).copied(), "{path} after round {round}");
        }
        store.close().await;
    }
}
