use std::path::Path;

use super::support::*;
use crate::{PurgeMode, Selector, Store, StoreConfig};

/// Several times the budget is written: the disk stays within it plus one segment, and what is in use survives.
#[tokio::test]
async fn the_disk_budget_holds_and_hot_responses_survive_eviction() {
    let mut random = Random::seeded("the_disk_budget_holds");
    let dir = tempfile::tempdir().unwrap();
    let disk_max = 16 * MIB;
    // The memory tier holds next to nothing, so that what survives does so on disk.
    let config = StoreConfig { disk_max, memory_max: 2 * MIB, memory_object_max: 128 * KIB, ..config(dir.path()) };
    let store = opened(config).await;
    for n in 0..20 {
        put_path(&store, &format!("/hot/{n}"), 1, 20_000).await;
    }
    let mut hot_hits = 0;
    let mut on_disk_max = 0;
    for n in 0..3000_u64 {
        ask_in_vain(&store, &format!("/cold/{n}"));
        put_path(&store, &format!("/cold/{n}"), n, random.length_below(40_000)).await;
        if n % 20 == 0 {
            // Let the writer keep up, so that nothing is lost to a full queue.
            store.flush().await;
            on_disk_max = on_disk_max.max(crate::dir::bytes_below(&dir.path().join("seg")));
            let hot = format!("/hot/{}", n / 20 % 20);
            if let Some(bytes) = serve(&store, &hot).await {
                version_of(&hot, &bytes);
                hot_hits += 1;
            }
        }
    }
    let stats = store.stats();
    assert!(stats.segments_evicted > 10 && stats.moved > 0, "{stats:?}");
    assert!(on_disk_max <= disk_max + MIB, "{on_disk_max} bytes in segments");
    assert!(stats.segment_bytes + stats.index_bytes <= disk_max + MIB, "{stats:?}");
    assert!(hot_hits >= 120, "{hot_hits} of 150 hot look-ups hit");
    let mut cold = 0;
    for n in 0..3000_u64 {
        let path = format!("/cold/{n}");
        if let Some(bytes) = serve(&store, &path).await {
            assert_eq!(version_of(&path, &bytes), n);
            cold += 1;
        }
    }
    assert!(cold > 50 && cold < 1500, "{cold} cold responses left");
    store.close().await;
}

#[tokio::test]
async fn large_bodies_stay_within_the_budget_too() {
    let dir = tempfile::tempdir().unwrap();
    let disk_max = 16 * MIB;
    let store = opened(StoreConfig { disk_max, ..config(dir.path()) }).await;
    for n in 0..20_u64 {
        ask_in_vain(&store, &format!("/{n}"));
        put_path(&store, &format!("/{n}"), n, 3 << 20).await;
        let bytes = crate::dir::bytes_below(&dir.path().join("seg"));
        assert!(bytes <= disk_max + MIB, "{bytes} bytes after {n}");
    }
    assert_eq!(serve(&store, "/19").await.unwrap(), body("/19", 19, 3 << 20));
    store.flush().await;
    let stats = store.stats();
    assert_eq!(stats.stored_count, stats.written_count, "what was evicted is nowhere: {stats:?}");
    store.close().await;
}

/// Overwriting everything leaves dead bytes; compaction gives them back without losing a response.
#[tokio::test]
async fn overwritten_segments_are_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig { disk_max: 64 * MIB, memory_max: 2 * MIB, ..config(dir.path()) };
    let store = opened(config).await;
    for version in 0..4 {
        for n in 0..400 {
            // One in ten stays as it was first: each segment keeps something alive.
            if version == 0 || n % 10 != 0 {
                put_path(&store, &format!("/{n}"), version, 20_000).await;
            }
        }
        store.flush().await;
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let stats = store.stats();
        // 1.3 times the live bytes, and the two segments of 4 MiB that are always tolerated.
        if stats.segment_bytes <= stats.live_bytes * 13 / 10 + 8 * MIB && stats.segments_compacted > 0 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{stats:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    for n in 0..400 {
        let (path, version) = (format!("/{n}"), if n % 10 == 0 { 0 } else { 3 });
        assert_eq!(serve(&store, &path).await.map(|bytes| version_of(&path, &bytes)), Some(version), "{path}");
    }
    store.close().await;
}

/// More than the file system's reserve allows: nothing is written, memory serves.
#[tokio::test]
async fn a_nearly_full_file_system_pauses_writes() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(StoreConfig { reserve_free: Some(u64::MAX), ..config(dir.path()) }).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !matches!(store.stats().disk, crate::DiskState::Paused(_)) {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    put_path(&store, "/a", 1, 1000).await;
    store.flush().await;
    assert_eq!((store.stats().writes, store.stats().writes_dropped), (0, 1));
    assert!(serve(&store, "/a").await.is_some());
    let mut large = store.begin(head("/l", crate::Position(0)), None);
    let reader = large.follower().read().unwrap();
    let reading = tokio::spawn(read_all(reader));
    for piece in body("/l", 1, 3 << 20).chunks(100_000) {
        large.append(bytes::Bytes::copy_from_slice(piece)).await.unwrap();
    }
    assert!(matches!(large.finish(None).await, crate::Finished::NotStored(crate::Reason::NoRoom)));
    assert_eq!(reading.await.unwrap().unwrap(), body("/l", 1, 3 << 20));
}

/// So little budget that sled's laziness with space shows soon.
pub(super) fn with_a_small_index(dir: &Path) -> StoreConfig {
    StoreConfig { disk_max: 16 * MIB, memory_max: MIB, ..config(dir) }
}

/// Many small responses, then a purge of nearly all of them.
pub(super) async fn fill_and_forget(store: &Store) {
    for n in 0..8_000 {
        put_path(store, &format!("/{}/{n}", if n % 50 == 0 { "kept" } else { "gone" }), 1, 100).await;
        if n % 500 == 0 {
            store.flush().await;
        }
    }
    store.flush().await;
    let gone = Selector::Prefix { authority: "a.example".into(), path_prefix: "/gone/".into() };
    store.purge(crate::Purge::of(gone, PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap();
    store.flush().await;
}

/// sled keeps the space of what was removed; a rebuilt index gives it back, and has what the old one had.
#[tokio::test]
async fn an_index_of_mostly_nothing_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(with_a_small_index(dir.path())).await;
    fill_and_forget(&store).await;
    until(&store, "a small index", |stats| stats.index_rebuilds > 0 && stats.index_bytes < 2 * MIB).await;
    for n in 0..20 {
        put_path(&store, &format!("/new/{n}"), 2, 100).await;
    }
    store.flush().await;
    let stats = store.stats();
    assert_eq!((stats.written_count, stats.quarantined), (180, 0), "{stats:?}");
    store.close().await;
    assert!(crate::dir::bytes_below(&dir.path().join("index")) < 2 * MIB);
    drop(store);
    let store = opened(with_a_small_index(dir.path())).await;
    for n in (0..8_000).step_by(50) {
        assert!(serve(&store, &format!("/kept/{n}")).await.is_some(), "{n}");
    }
    for n in 0..20 {
        assert!(serve(&store, &format!("/new/{n}")).await.is_some(), "{n}");
    }
    assert!(serve(&store, "/gone/1").await.is_none());
}

/// Nine of ten requests are for URLs that nobody asks for again: what is in use stays.
#[tokio::test]
async fn a_crawl_takes_nothing_from_what_is_in_use() {
    let mut random = Random::seeded("a_crawl");
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig { disk_max: 16 * MIB, memory_max: MIB, memory_object_max: 64 * KIB, ..config(dir.path()) };
    let store = opened(config).await;
    let mut hits = [0; 3];
    // The hot set is two thirds of the disk. First it comes in, then it is alone, then under junk of four times the disk.
    for (phase, (rounds, junk)) in [(5, 0), (2, 0), (4, 9)].into_iter().enumerate() {
        let mut asked = 0;
        for n in 0..rounds * 550_u64 {
            let hot = format!("/hot/{}", random.below(550));
            asked += 1;
            match serve(&store, &hot).await {
                Some(bytes) => {
                    version_of(&hot, &bytes);
                    hits[phase] += 1;
                }
                None => drop(try_put_path(&store, &hot, 1, 20_000).await),
            }
            for junk in 0..junk {
                let path = format!("/junk/{n}/{junk}");
                assert!(serve(&store, &path).await.is_none());
                drop(try_put_path(&store, &path, 1, random.length_below(6_000)).await);
            }
            if n % 20 == 0 {
                store.flush().await;
            }
        }
        hits[phase] = hits[phase] * 1000 / asked;
    }
    let stats = store.stats();
    println!("hits of the hot set in 1000: {} alone, {} under junk", hits[1], hits[2]);
    assert!(stats.not_admitted > 10_000, "{stats:?}");
    assert!(hits[2] * 10 >= hits[1] * 9, "{hits:?}, {stats:?}");
}

/// What the memory tier replaces is no loss: each variant in it keeps its card, so that purges find it.
#[tokio::test]
async fn variants_in_memory_keep_their_cards() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(StoreConfig { disk_max: 16 * MIB, memory_max: 4 * MIB, ..config(dir.path()) }).await;
    for n in 0..900 {
        put_path(&store, &format!("/old/{n}"), 1, 20_000).await;
        if n % 50 == 0 {
            store.flush().await;
        }
    }
    until(&store, "a full disk", |stats| stats.is_disk_full).await;
    for (version, language) in [(1, "de"), (2, "en"), (3, "fr")] {
        put(&store, in_language(head("/x", store.position()), language), body("/x", version, 5_000)).await;
    }
    assert_eq!(lookup(&store, "/x").await.unwrap().len(), 3);
    let purged = Selector::Url { authority: "a.example".into(), path: "/x".into(), query: None };
    assert_eq!(
        store.purge(crate::Purge::of(purged, PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap().matched,
        3
    );
    assert!(serve(&store, "/x").await.is_none());
}

/// On a full disk a response that was asked for once is in memory alone: it is hit there, can be purged, and goes to disk when it
/// has to leave memory, if it was hit.
#[tokio::test]
async fn what_was_hit_in_memory_is_written_when_it_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        StoreConfig { disk_max: 16 * MIB, memory_max: 4 * MIB, memory_object_max: 64 * KIB, ..config(dir.path()) };
    let store = opened(config).await;
    for n in 0..900 {
        put_path(&store, &format!("/old/{n}"), 1, 20_000).await;
        if n % 50 == 0 {
            store.flush().await;
        }
    }
    store.flush().await;
    until(&store, "a full disk", |stats| stats.is_disk_full).await;
    let before = store.stats().not_admitted;
    for path in ["/hit", "/not-hit", "/purged"] {
        put_path(&store, path, 1, 20_000).await;
    }
    assert_eq!(store.stats().not_admitted, before + 3);
    for path in ["/hit", "/purged"] {
        assert!(serve(&store, path).await.is_some());
    }
    let purged = Selector::Url { authority: "a.example".into(), path: "/purged".into(), query: None };
    assert_eq!(
        store.purge(crate::Purge::of(purged, PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap().matched,
        1
    );
    for n in 0..900 {
        put_path(&store, &format!("/other/{n}"), 1, 20_000).await;
        // Many others are hit as well: it is no longer among those that stay.
        for again in 0..2 {
            serve(&store, &format!("/old/{}", (n + again) % 400)).await;
        }
        if n % 50 == 0 {
            store.flush().await;
        }
    }
    store.flush().await;
    let stats = store.stats();
    assert!(stats.demoted >= 1, "{stats:?}");
    assert_eq!(serve(&store, "/hit").await.unwrap(), body("/hit", 1, 20_000));
    assert!(serve(&store, "/not-hit").await.is_none());
    assert!(serve(&store, "/purged").await.is_none());
}
