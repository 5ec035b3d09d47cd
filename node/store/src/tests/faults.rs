//! Disks that fail, hang, are full or read-only: the store serves on, says so, and recovers by itself.

use std::path::Path;
use std::time::Duration;

use super::support::*;
use crate::faults::{Fault, Faults, Step};
use crate::{DiskState, PurgeError, PurgeMode, Selector, Store, StoreConfig};

const FOREVER: u64 = u64::MAX;
/// Longer than any call of a disk that is merely busy.
const STALL_AFTER: Duration = Duration::from_millis(1500);

async fn open_with(dir: &Path) -> (Store, Faults) {
    let config = config(dir);
    let faults = config.faults.clone();
    (opened(config).await, faults)
}

fn url(path: &str) -> Selector {
    Selector::Url { authority: "a.example".into(), path: path.into(), query: None }
}

/// What was stored before and what comes now is served; nothing of it is wrong.
async fn serves(store: &Store, new: &str) {
    put_path(store, new, 7, 5_000).await;
    assert_eq!(serve(store, new).await.unwrap(), body(new, 7, 5_000));
    assert_eq!(serve(store, "/before").await.unwrap(), body("/before", 1, 5_000));
}

/// A body that cannot be written stays in memory; writing is tried again, and goes on.
#[tokio::test]
async fn a_disk_that_takes_no_writes_is_paused_and_written_again_when_it_does() {
    for fault in [Fault::Io, Fault::NoSpace, Fault::ReadOnly] {
        let dir = tempfile::tempdir().unwrap();
        let (store, faults) = open_with(dir.path()).await;
        put_path(&store, "/before", 1, 5_000).await;
        store.flush().await;
        faults.plan(Step::SegmentAppend, 0, FOREVER, fault);
        serves(&store, "/a").await;
        until(&store, "paused", |stats| matches!(&stats.disk, DiskState::Paused(reason) if reason.contains("written")))
            .await;
        store.flush().await;
        serves(&store, "/b").await;
        assert!(try_put_path(&store, "/large", 1, 3 << 20).await.is_none(), "it passes");
        store.flush().await;
        let stats = store.stats();
        assert!(stats.write_errors >= 1 && stats.writes == 1 && stats.written_count == 1, "{stats:?}");
        assert_eq!((stats.quarantined, stats.stored_count), (0, 3), "a write that fails costs nothing that is there");
        faults.clear();
        until(&store, "writing again", |stats| stats.disk == DiskState::Ready).await;
        serves(&store, "/c").await;
        store.flush().await;
        assert_eq!(store.stats().written_count, 2);
        store.close().await;
        drop(store);
        let store = open(dir.path()).await;
        for path in ["/before", "/c"] {
            assert!(serve(&store, path).await.is_some(), "{path}");
        }
    }
}

/// An index that fails, at any of its calls, or a body that cannot be made durable: the tier is replaced.
#[tokio::test]
async fn a_tier_that_fails_is_replaced_and_purges_hold() {
    for step in [Step::IndexPut, Step::IndexRemove, Step::IndexFlush, Step::SegmentSync] {
        let dir = tempfile::tempdir().unwrap();
        let (store, faults) = open_with(dir.path()).await;
        put_path(&store, "/before", 1, 5_000).await;
        put_path(&store, "/gone", 1, 5_000).await;
        store.flush().await;
        faults.plan(step, 0, 1, Fault::Io);
        let receipt =
            store.purge(crate::Purge::of(url("/gone"), PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap();
        serves(&store, "/a").await;
        until(&store, "replaced", |stats| stats.quarantined == 1 && stats.disk == DiskState::Ready).await;
        serves(&store, "/b").await;
        assert!(serve(&store, "/gone").await.is_none());
        store.flush().await;
        store.close().await;
        drop(store);
        let store = open(dir.path()).await;
        assert_eq!(store.position(), receipt.position, "{step:?}");
        assert!(serve(&store, "/gone").await.is_none());
        assert!(serve(&store, "/b").await.is_some(), "{step:?}: the new tier keeps what comes");
        assert!(
            store.purge_state_of(&head("/gone", receipt.position).scope, &[], crate::Position(0))
                != brim_semantics::PurgeState::Live
        );
    }
}

/// An index that finds no space is closed, and opened again when there is some: nothing that was there is lost, and what memory
/// holds is served meanwhile.
#[tokio::test]
async fn a_tier_that_finds_no_space_is_opened_again() {
    for step in [Step::IndexPut, Step::IndexFlush, Step::SegmentSync] {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open_with(dir.path()).await;
        put_path(&store, "/before", 1, 5_000).await;
        put_path(&store, "/gone", 1, 5_000).await;
        store.close().await;
        drop(store);
        let (store, faults) = open_with(dir.path()).await;
        let position = store.position();
        faults.plan(step, 0, 1, Fault::NoSpace);
        // Somebody holds on to the tier all the while.
        let mut fill = store.begin(head("/slow", position), Some(3 << 20));
        fill.append(body("/slow", 1, 2 << 20)).await.unwrap();
        put_path(&store, "/a", 7, 5_000).await;
        until(&store, "closed", |stats| matches!(&stats.disk, DiskState::Failed(reason) if reason.contains("space")))
            .await;
        assert_eq!(serve(&store, "/a").await.unwrap(), body("/a", 7, 5_000), "{step:?}");
        store.purge(crate::Purge::of(url("/gone"), PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap();
        until(&store, "opened again", |stats| stats.disk == DiskState::Ready).await;
        serves(&store, "/b").await;
        assert!(serve(&store, "/gone").await.is_none(), "{step:?}: purged meanwhile");
        assert_eq!(store.stats().quarantined, 0, "{step:?}");
        drop(fill);
        store.flush().await;
        store.close().await;
        drop(store);
        let store = open(dir.path()).await;
        for path in ["/before", "/b"] {
            assert!(serve(&store, path).await.is_some(), "{step:?}: {path}");
        }
        assert!(serve(&store, "/gone").await.is_none());
    }
}

/// While the tier is closed the catalog knows what it has: what was fetched after a purge is there again, and what was replaced,
/// removed or purged meanwhile is not.
#[tokio::test]
async fn what_changes_while_the_tier_is_closed_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (store, faults) = open_with(dir.path()).await;
    store.purge(crate::Purge::of(url("/other"), PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap();
    for path in ["/kept", "/replaced", "/removed", "/purged"] {
        put(&store, head(path, store.position()), body(path, 1, 400_000)).await;
    }
    store.flush().await;
    // Too much for memory: what is served comes from disk.
    for n in 0..200 {
        put(&store, head(&format!("/{n}"), store.position()), body(&format!("/{n}"), 1, 400_000)).await;
    }
    store.flush().await;
    // Attempts to open it fail as well, until the test lets them.
    faults.plan(Step::IndexOpen, 0, FOREVER, Fault::NoSpace);
    faults.plan(Step::IndexFlush, 0, 1, Fault::NoSpace);
    until(&store, "closed", |stats| matches!(stats.disk, DiskState::Failed(_))).await;
    assert!(serve(&store, "/kept").await.is_none(), "it is on disk alone");
    put(&store, head("/replaced", store.position()), body("/replaced", 2, 400_000)).await;
    store.remove(&key("/removed"));
    store.purge(crate::Purge::of(url("/purged"), PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap();
    for n in 1_000..1_200 {
        put(&store, head(&format!("/{n}"), store.position()), body(&format!("/{n}"), 1, 400_000)).await;
    }
    assert!(serve(&store, "/replaced").await.is_none(), "out of memory, and nowhere else");
    faults.clear();
    until(&store, "opened again", |stats| stats.disk == DiskState::Ready).await;
    assert_eq!(serve(&store, "/kept").await.unwrap(), body("/kept", 1, 400_000));
    for path in ["/replaced", "/removed", "/purged"] {
        assert!(serve(&store, path).await.is_none(), "{path}");
    }
    assert_eq!(store.stats().quarantined, 0);
}

/// What found no space and cannot be opened again for another reason is set aside after a few attempts.
#[tokio::test]
async fn a_tier_that_stays_closed_for_another_reason_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (store, faults) = open_with(dir.path()).await;
    put_path(&store, "/before", 1, 5_000).await;
    store.flush().await;
    faults.plan(Step::IndexOpen, 0, 4, Fault::Io);
    faults.plan(Step::IndexFlush, 0, 1, Fault::NoSpace);
    until(&store, "another one", |stats| stats.quarantined == 1 && stats.disk == DiskState::Ready).await;
    serves(&store, "/a").await;
}

/// A disk that is full while a store is opened costs nothing that is on it.
#[tokio::test]
async fn a_tier_that_cannot_be_opened_for_want_of_space_is_opened_later() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open_with(dir.path()).await;
    put_path(&store, "/before", 1, 5_000).await;
    store.close().await;
    drop(store);
    let config = config(dir.path());
    let faults = config.faults.clone();
    faults.plan(Step::IndexOpen, 0, 2, Fault::NoSpace);
    let store = opened(config).await;
    assert!(matches!(store.stats().disk, DiskState::Failed(_)), "{:?}", store.stats().disk);
    put_path(&store, "/a", 7, 5_000).await;
    assert!(serve(&store, "/a").await.is_some());
    until(&store, "opened", |stats| stats.disk == DiskState::Ready).await;
    serves(&store, "/b").await;
    assert_eq!(store.stats().quarantined, 0);
}

/// A file that cannot be removed still takes its space: it counts, and goes later.
#[tokio::test]
async fn a_segment_that_cannot_be_removed_counts_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let (store, faults) = open_with(dir.path()).await;
    let segment_files = || std::fs::read_dir(dir.path().join("seg")).unwrap().count();
    put_path(&store, "/large", 1, 3 << 20).await;
    store.flush().await;
    let before = store.stats().segment_bytes;
    faults.plan(Step::SegmentRemove, 0, 3, Fault::Io);
    store.purge(crate::Purge::of(url("/large"), PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap();
    for _ in 0..2 {
        store.flush().await;
        assert_eq!((segment_files(), store.stats().segment_bytes), (1, before));
    }
    until(&store, "removed", |stats| stats.segment_bytes == 0).await;
    assert_eq!(segment_files(), 0);
}

/// A read that fails is a miss for the one response; an index that cannot be read fails as a whole.
#[tokio::test]
async fn reads_that_fail_are_misses() {
    // A segment is tried twice: what it held may have been moved since the index was asked.
    for (step, times, quarantined) in [(Step::SegmentRead, 2, 0), (Step::IndexGet, 1, 1)] {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open_with(dir.path()).await;
        put_path(&store, "/a", 1, 5_000).await;
        put_path(&store, "/b", 1, 5_000).await;
        store.close().await;
        drop(store);
        let (store, faults) = open_with(dir.path()).await;
        faults.plan(step, 0, times, Fault::Io);
        assert!(serve(&store, "/a").await.is_none());
        until(&store, "the tier", |stats| stats.quarantined == quarantined && stats.disk == DiskState::Ready).await;
        store.flush().await;
        assert_eq!(serve(&store, "/b").await.is_some(), quarantined == 0, "{step:?}");
        put_path(&store, "/a", 2, 5_000).await;
        assert_eq!(serve(&store, "/a").await.unwrap(), body("/a", 2, 5_000));
    }
}

/// A purge that cannot be made durable is refused and raises nothing; the store says so until the log can be written.
#[tokio::test]
async fn a_purge_log_that_cannot_be_written_refuses_purges_until_it_can() {
    for step in [Step::LogAppend, Step::LogSync] {
        let dir = tempfile::tempdir().unwrap();
        let (store, faults) = open_with(dir.path()).await;
        put_path(&store, "/before", 1, 5_000).await;
        faults.plan(step, 0, FOREVER, Fault::NoSpace);
        faults.plan(Step::LogCheckpoint, 0, FOREVER, Fault::NoSpace);
        for _ in 0..2 {
            let refused =
                store.purge(crate::Purge::of(url("/before"), PurgeMode::Hard, now()), crate::COUNT_WAIT).await;
            assert!(matches!(refused, Err(PurgeError::Log(_))), "{refused:?}");
        }
        serves(&store, "/a").await;
        assert!(store.stats().purge_log_failure.is_some_and(|reason| reason.contains("space")));
        // What is known to be outdated is not reused all the same.
        assert!(store.invalidate("a.example", "/a", None, now()).await.is_err());
        assert!(serve(&store, "/a").await.is_none());
        faults.clear();
        until(&store, "the log is written", |stats| stats.purge_log_failure.is_none()).await;
        store.purge(crate::Purge::of(url("/before"), PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap();
        let position = store.position();
        store.close().await;
        drop(store);
        let store = open(dir.path()).await;
        assert_eq!(store.position(), position, "{step:?}: the invalidation was written down later");
        for path in ["/before", "/a"] {
            assert!(serve(&store, path).await.is_none(), "{path}");
        }
    }
}

/// A tier that fails and cannot be set aside: memory serves, and an empty one begins when the disk lets it.
#[tokio::test]
async fn a_tier_that_cannot_be_set_aside_is_left_alone_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let (store, faults) = open_with(dir.path()).await;
    put_path(&store, "/before", 1, 5_000).await;
    store.flush().await;
    faults.plan(Step::Quarantine, 0, FOREVER, Fault::ReadOnly);
    faults.plan(Step::IndexFlush, 0, FOREVER, Fault::ReadOnly);
    until(&store, "failed", |stats| matches!(&stats.disk, DiskState::Failed(reason) if reason.contains("set aside")))
        .await;
    serves(&store, "/a").await;
    faults.clear();
    until(&store, "another one", |stats| stats.disk == DiskState::Ready).await;
    assert_eq!(store.stats().quarantined, 1);
    serves(&store, "/b").await;
    store.flush().await;
    assert_eq!(store.stats().written_count, 1);
}

/// sled may deadlock, a disk may hang: whatever hangs is left behind, and the store goes on with another tier.
#[tokio::test]
async fn a_disk_that_hangs_is_left_behind() {
    for step in [Step::IndexPut, Step::IndexGet, Step::IndexFlush, Step::SegmentSync, Step::SegmentAppend] {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = open_with(dir.path()).await;
        put_path(&store, "/before", 1, 5_000).await;
        store.close().await;
        drop(store);
        let config = StoreConfig { stall_after: STALL_AFTER, ..config(dir.path()) };
        let faults = config.faults.clone();
        let store = opened(config).await;
        faults.plan(step, 0, 1, Fault::Hold);
        let asked = tokio::spawn({
            let store = store.clone();
            async move { serve(&store, "/before").await }
        });
        put_path(&store, "/a", 7, 5_000).await;
        until(&store, "left behind", |stats| stats.stalls == 1 && stats.disk == DiskState::Ready).await;
        asked.await.unwrap();
        put_path(&store, "/b", 7, 5_000).await;
        for path in ["/a", "/b"] {
            assert_eq!(serve(&store, path).await.unwrap(), body(path, 7, 5_000), "{step:?}");
        }
        store.flush().await;
        assert!(store.stats().written_count > 0, "{step:?}");
        store.purge(crate::Purge::of(url("/b"), PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap();
        // What hung comes back when nobody waits for it any more, and changes nothing.
        faults.clear();
        store.flush().await;
        assert!(serve(&store, "/b").await.is_none());
        assert_eq!(serve(&store, "/a").await.unwrap(), body("/a", 7, 5_000));
        assert_eq!(store.stats().quarantined, 1);
        store.close().await;
    }
}

/// An index that hangs while it is opened is left behind; when it comes back, it takes nothing from the tier in its place.
#[tokio::test]
async fn an_opening_that_hangs_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open_with(dir.path()).await;
    put_path(&store, "/before", 1, 5_000).await;
    store.close().await;
    drop(store);
    // Opening is given ten times as long as other calls.
    let config = StoreConfig { stall_after: STALL_AFTER / 5, ..config(dir.path()) };
    let faults = config.faults.clone();
    faults.plan(Step::IndexOpen, 0, 1, Fault::Hold);
    let store = Store::open(config).await.unwrap();
    until(&store, "left behind", |stats| stats.stalls == 1 && stats.disk == DiskState::Ready).await;
    assert_eq!(store.stats().quarantined, 1);
    put_path(&store, "/a", 7, 5_000).await;
    store.flush().await;
    faults.clear();
    // It has come back when its thread has let go of the index that was set aside.
    assert!(serve(&store, "/before").await.is_none());
    for path in ["/b", "/c"] {
        put_path(&store, path, 7, 5_000).await;
        store.flush().await;
    }
    store.close().await;
    assert_eq!(store.stats().stalls, 1);
    for part in ["index/current", "seg"] {
        assert!(dir.path().join(part).exists(), "{part}");
    }
}

/// Nothing more is tried when setting a tier aside hangs: what comes late might take the next one's files. The store goes on in
/// memory, and closes.
#[tokio::test]
async fn a_setting_aside_that_hangs_ends_the_disk_tier() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig { stall_after: STALL_AFTER / 5, ..config(dir.path()) };
    let faults = config.faults.clone();
    let store = opened(config).await;
    put_path(&store, "/before", 1, 5_000).await;
    faults.plan(Step::Quarantine, 0, 1, Fault::Hold);
    store.fail_disk("on purpose");
    until(&store, "given up", |stats| matches!(&stats.disk, DiskState::Failed(reason) if reason.contains("set aside")))
        .await;
    serves(&store, "/a").await;
    let receipt = store.purge(crate::Purge::of(url("/a"), PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap();
    assert!(serve(&store, "/a").await.is_none());
    faults.clear();
    store.close().await;
    assert!(matches!(Store::open(super::support::config(dir.path())).await, Err(crate::OpenError::InUse { .. })));
    assert_eq!(store.position(), receipt.position);
}

/// Each tier that hangs leaves threads behind, so their number has a bound.
#[tokio::test]
async fn a_disk_that_hangs_again_and_again_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open_with(dir.path()).await;
    crate::disk::assert_stalls_are_bounded(store.shared());
}

/// A store closes although its disk hangs.
#[tokio::test]
async fn a_store_whose_disk_hangs_can_be_closed() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig { stall_after: STALL_AFTER, ..config(dir.path()) };
    let faults = config.faults.clone();
    let store = opened(config).await;
    faults.plan(Step::IndexFlush, 0, FOREVER, Fault::Hold);
    put_path(&store, "/a", 1, 5_000).await;
    store.close().await;
    assert_eq!(store.stats().disk, DiskState::Closed);
    faults.clear();
}

/// Nothing can be written from the first moment on: the store opens, serves from memory, refuses purges, and begins when it can.
#[tokio::test]
async fn a_store_in_a_directory_that_cannot_be_written_serves_from_memory() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let faults = config.faults.clone();
    for step in [Step::LogCheckpoint, Step::Format, Step::Quarantine] {
        faults.plan(step, 0, FOREVER, Fault::ReadOnly);
    }
    let store = opened(config).await;
    assert!(matches!(store.stats().disk, DiskState::Failed(_)), "{:?}", store.stats());
    put_path(&store, "/before", 1, 5_000).await;
    serves(&store, "/a").await;
    assert!(matches!(
        store.purge(crate::Purge::of(url("/a"), PurgeMode::Hard, now()), crate::COUNT_WAIT).await,
        Err(PurgeError::Log(_))
    ));
    faults.clear();
    until(&store, "a disk tier", |stats| stats.disk == DiskState::Ready && stats.purge_log_failure.is_none()).await;
    serves(&store, "/b").await;
    store.purge(crate::Purge::of(url("/b"), PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap();
    assert_eq!(store.stats().quarantined, 0, "there was nothing");
}

/// Which index counts is not known after a failed switch: the tier is replaced.
#[tokio::test]
async fn a_rebuilt_index_that_cannot_take_over_costs_the_tier() {
    let dir = tempfile::tempdir().unwrap();
    let config = super::budget::with_a_small_index(dir.path());
    let faults = config.faults.clone();
    let store = opened(config).await;
    faults.plan(Step::IndexSwitch, 0, 1, Fault::Io);
    super::budget::fill_and_forget(&store).await;
    until(&store, "replaced", |stats| stats.quarantined == 1 && stats.disk == DiskState::Ready).await;
    put_path(&store, "/b", 7, 5_000).await;
    assert_eq!(serve(&store, "/b").await.unwrap(), body("/b", 7, 5_000));
}

/// Opening takes as long as the disk lets it; until then look-ups are misses, and what is stored meanwhile is the newer.
#[tokio::test]
async fn a_store_answers_while_its_disk_tier_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open_with(dir.path()).await;
    for path in ["/a", "/b", "/c"] {
        put_path(&store, path, 1, 5_000).await;
    }
    put(&store, in_language(head("/two", crate::Position(0)), "de"), body("/two", 1, 100)).await;
    store.close().await;
    drop(store);

    let config = config(dir.path());
    let faults = config.faults.clone();
    faults.plan(Step::IndexOpen, 0, 1, Fault::Hold);
    let store = Store::open(config).await.unwrap();
    assert_eq!(store.stats().disk, DiskState::Opening);
    assert!(serve(&store, "/a").await.is_none(), "not known yet");
    put_path(&store, "/b", 2, 5_000).await;
    put(&store, in_language(head("/two", crate::Position(0)), "en"), body("/two", 2, 100)).await;
    store.purge(crate::Purge::of(url("/c"), PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap();
    faults.clear();
    ready(&store).await;
    assert_eq!(serve(&store, "/a").await.unwrap(), body("/a", 1, 5_000));
    assert_eq!(serve(&store, "/b").await.unwrap(), body("/b", 2, 5_000));
    assert!(serve(&store, "/c").await.is_none());
    assert_eq!(lookup(&store, "/two").await.unwrap().len(), 2, "one from before, one from meanwhile");
    store.close().await;
    drop(store);
    let store = open(dir.path()).await;
    assert_eq!(serve(&store, "/b").await.unwrap(), body("/b", 2, 5_000));
}
