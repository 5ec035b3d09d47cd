use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::support::*;
use crate::{DiskState, Position, PurgeMode, Selector};

pub(super) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => files.extend(files_below(&entry.path())),
            Ok(_) => files.push(entry.path()),
            Err(_) => {}
        }
    }
    files.sort();
    files
}

pub(super) fn flip(path: &Path, at: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

async fn filled(dir: &Path, count: u64, length: usize) {
    let store = open(dir).await;
    for n in 0..count {
        put_path(&store, &format!("/{n}"), n, length).await;
    }
    store.close().await;
}

pub(super) async fn served(dir: &Path, count: u64) -> usize {
    let store = open(dir).await;
    let mut served = 0;
    for n in 0..count {
        let path = format!("/{n}");
        if let Some(bytes) = serve(&store, &path).await {
            assert_eq!(version_of(&path, &bytes), n);
            served += 1;
        }
    }
    store.close().await;
    served
}

#[tokio::test]
async fn flipped_bits_in_segments_are_misses_and_their_entries_go() {
    let mut random = Random::seeded("flipped_bits_in_segments");
    for length in [20_000, 2 << 20] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 10, length).await;
        for file in files_below(&dir.path().join("seg")) {
            let bytes = std::fs::metadata(&file).unwrap().len();
            for _ in 0..3 {
                flip(&file, random.below(bytes));
            }
        }
        let store = open(dir.path()).await;
        let mut missed = 0;
        for n in 0..10 {
            let path = format!("/{n}");
            match serve(&store, &path).await {
                Some(bytes) => assert_eq!(version_of(&path, &bytes), n),
                None => missed += 1,
            }
        }
        assert!(missed > 0);
        store.flush().await;
        assert_eq!(store.stats().stored_count, 10 - missed);
        store.close().await;
    }
}

#[tokio::test]
async fn a_missing_or_cut_segment_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 6, 2 << 20).await;
    let segments = files_below(&dir.path().join("seg"));
    std::fs::remove_file(&segments[0]).unwrap();
    std::fs::OpenOptions::new().write(true).open(&segments[1]).unwrap().set_len(1 << 20).unwrap();
    assert_eq!(served(dir.path(), 6).await, 4);
}

/// Whatever is flipped in the index: the store opens, serves nothing wrong, and takes new responses.
#[tokio::test]
async fn a_damaged_index_never_stops_the_store_nor_lies() {
    let mut random = Random::seeded("a_damaged_index");
    for _ in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 20, 2000).await;
        for file in files_below(&dir.path().join("index")) {
            let bytes = std::fs::metadata(&file).unwrap().len();
            for _ in 0..(bytes / 2000).max(1) {
                flip(&file, random.below(bytes.max(1)));
            }
        }
        served(dir.path(), 20).await;
        let store = open(dir.path()).await;
        put_path(&store, "/new", 7, 100).await;
        store.close().await;
        drop(store);
        let store = open(dir.path()).await;
        assert_eq!(serve(&store, "/new").await.unwrap(), body("/new", 7, 100));
        store.close().await;
    }
}

#[tokio::test]
async fn a_purge_log_that_cannot_be_read_drops_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3, 100).await;
    let store = open(dir.path()).await;
    let purge = |path: &str| Selector::Url { authority: "a.example".into(), path: path.into(), query: None };
    for path in ["/0", "/9", "/8"] {
        store.purge(crate::Purge::of(purge(path), PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap();
    }
    store.close().await;
    drop(store);
    let log = dir.path().join("purge.log");
    flip(&log, std::fs::metadata(&log).unwrap().len() / 2);
    assert_eq!(served(dir.path(), 3).await, 0);
    assert!(dir.path().join("quarantine").exists());
    // And it works again.
    let store = open(dir.path()).await;
    put_path(&store, "/1", 5, 100).await;
    store.close().await;
    drop(store);
    let store = open(dir.path()).await;
    assert_eq!(serve(&store, "/1").await.unwrap(), body("/1", 5, 100));
}

#[tokio::test]
async fn a_torn_purge_log_costs_nothing_but_its_last_record() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3, 100).await;
    let store = open(dir.path()).await;
    store
        .purge(
            crate::Purge::of(
                Selector::Url { authority: "a.example".into(), path: "/0".into(), query: None },
                PurgeMode::Hard,
                now(),
            ),
            crate::COUNT_WAIT,
        )
        .await
        .unwrap();
    store.close().await;
    drop(store);
    let log = dir.path().join("purge.log");
    let mut bytes = std::fs::read(&log).unwrap();
    let frame = bytes[bytes.len() - 60..].to_vec();
    bytes.extend_from_slice(&frame[..7]);
    std::fs::write(&log, bytes).unwrap();
    assert_eq!(served(dir.path(), 3).await, 2);
}

#[tokio::test]
async fn a_missing_log_or_format_or_another_version_drops_the_cache() {
    for (file, content) in
        [("purge.log", None), ("format", None), ("format", Some("brim-store 99 00")), ("format", Some(""))]
    {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 2, 100).await;
        match content {
            None => std::fs::remove_file(dir.path().join(file)).unwrap(),
            Some(content) => std::fs::write(dir.path().join(file), content).unwrap(),
        }
        assert_eq!(served(dir.path(), 2).await, 0, "{file} {content:?}");
    }
}

/// The index of one store with the segments and log of another: nothing of it is believed.
#[tokio::test]
async fn parts_of_another_store_are_not_believed() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    filled(one.path(), 5, 100).await;
    filled(other.path(), 5, 100).await;
    std::fs::remove_dir_all(one.path().join("index")).unwrap();
    std::fs::rename(other.path().join("index"), one.path().join("index")).unwrap();
    assert_eq!(served(one.path(), 5).await, 0);
}

/// A disk tier that fails while it runs is set aside; memory and purges go on, and a new disk tier begins.
#[tokio::test]
async fn a_failing_disk_tier_is_replaced_while_the_store_serves() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    put_path(&store, "/a", 1, 1000).await;
    let large = put_path(&store, "/l", 1, 2 << 20).await;
    store.flush().await;
    let purged = store
        .purge(crate::Purge::of(Selector::Site("gone".into()), PurgeMode::Hard, now()), crate::COUNT_WAIT)
        .await
        .unwrap();
    store.fail_disk("on purpose");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while store.stats().quarantined == 0 || store.stats().disk != DiskState::Ready {
        assert!(std::time::Instant::now() < deadline, "{:?}", store.stats());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(serve(&store, "/a").await.unwrap(), body("/a", 1, 1000));
    assert_eq!(read_all(large.read()).await.unwrap(), body("/l", 1, 2 << 20));
    assert_eq!(store.position(), purged.position);
    put_path(&store, "/b", 2, 1000).await;
    let freshened = lookup(&store, "/a").await.unwrap()[0].clone();
    store.freshen(
        &freshened,
        freshened.head.headers.clone(),
        freshened.head.meta.clone(),
        Position(1),
        freshened.head.surrogate_keys.clone(),
    );
    store.close().await;
    drop((store, large));
    let store = open(dir.path()).await;
    assert_eq!(store.position(), Position(1));
    assert_eq!(serve(&store, "/b").await.unwrap(), body("/b", 2, 1000));
}

/// A position that was shown and never written down is given again: what was fetched after it must not outlive the purge that
/// gets it next.
#[tokio::test]
async fn a_response_from_beyond_the_end_of_the_purge_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let beyond = Position(store.position().0 + 1);
    put(&store, head("/beyond", beyond), body("/beyond", 1, 20_000)).await;
    put_path(&store, "/known", 1, 20_000).await;
    store.close().await;

    let store = open(dir.path()).await;
    assert!(serve(&store, "/known").await.is_some());
    assert!(serve(&store, "/beyond").await.is_none());
    store.close().await;
}

/// An index cut to any length: what it has lost is a miss, and the store goes on.
#[tokio::test]
async fn a_truncated_index_never_stops_the_store_nor_lies() {
    let mut random = Random::seeded("a_truncated_index");
    for round in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 20, 2000).await;
        for file in files_below(&dir.path().join("index")) {
            let bytes = std::fs::metadata(&file).unwrap().len();
            let length = if round == 0 { 0 } else { random.below(bytes.max(1)) };
            std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(length).unwrap();
        }
        served(dir.path(), 20).await;
        let store = open(dir.path()).await;
        put_path(&store, "/new", 7, 100).await;
        store.close().await;
        drop(store);
        assert_eq!(serve(&open(dir.path()).await, "/new").await.unwrap(), body("/new", 7, 100));
    }
}

/// The two small files that name things: whatever is flipped in them costs the cache at most.
#[tokio::test]
async fn flipped_bits_in_the_files_that_name_things_cost_the_cache_at_most() {
    for file in ["format", "index/current"] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 3, 2000).await;
        let bytes = std::fs::read(dir.path().join(file)).unwrap();
        for at in (0..bytes.len()).step_by(3) {
            let file = dir.path().join(file);
            flip(&file, at as u64);
            let count = served(dir.path(), 3).await;
            assert!(
                count == 0 || std::fs::read(&file).unwrap() == bytes,
                "{} byte {at}: {count} served",
                file.display()
            );
            // The store that began anew is filled, for the next byte.
            filled(dir.path(), 3, 2000).await;
            assert_eq!(served(dir.path(), 3).await, 3, "{} byte {at}", file.display());
        }
    }
}
