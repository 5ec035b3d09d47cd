use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::damage::{files_below, flip, served};
use super::support::*;
use crate::dir::{Format, read_format};
use crate::faults::Faults;
use crate::index::{Generations, Index, Tuning};
use crate::offline::*;
use crate::purge::{LogRecord, OpenedLog, PurgeLog};
use crate::{OpenError, Position, PurgeMode, Selector};

/// All that these commands must leave as it is: every file but sled's own.
fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let is_sleds = |path: &Path| path.starts_with(dir.join("index")) && path.parent() != Some(&dir.join("index"));
    files_below(dir)
        .into_iter()
        .filter(|path| !is_sleds(path))
        .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
        .collect()
}

/// `/0` and on, each of so many bytes.
async fn filled(count: u64, length: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for n in 0..count {
        put_path(&store, &format!("/{n}"), n, length).await;
    }
    store.close().await;
    dir
}

async fn purge(dir: &Path, path: &str, mode: PurgeMode) {
    let store = open(dir).await;
    let selector = Selector::Url { authority: "a.example".into(), path: path.into(), query: None };
    store.purge(crate::Purge::of(selector, mode, now()), crate::COUNT_WAIT).await.unwrap();
    store.close().await;
}

/// Verifies, and sees to it that nothing changed.
fn verified(dir: &Path) -> (Verification, Vec<Problem>) {
    let before = content(dir);
    let mut problems = Vec::new();
    let mut refused = Vec::new();
    let verification = verify(dir, &mut |finding| match finding {
        Finding::Problem(problem) => problems.push(problem.clone()),
        Finding::Refused(entry) => refused.push((entry.url.clone(), entry.standing)),
    })
    .unwrap();
    assert!(content(dir) == before, "a file changed, came or went");
    refused.sort_unstable();
    let is_refused = |entry: StoredEntry| entry.standing.is_refused().then_some((entry.url, entry.standing));
    let mut expected = Vec::new();
    let mut visit = |entry: &StoredEntry| {
        expected.extend(is_refused(entry.clone()));
        true
    };
    if entries(dir, &mut visit).is_ok() {
        expected.sort_unstable();
        assert_eq!(refused, expected, "what is refused is named");
    }
    assert_eq!(verification.problem_count(), problems.len() as u64);
    assert_eq!(verification.is_sound(), problems.is_empty());
    (verification, problems)
}

fn listed(dir: &Path) -> BTreeMap<String, StoredEntry> {
    let mut all = BTreeMap::new();
    let listed = entries(dir, &mut |entry| all.insert(entry.url.clone(), entry.clone()).is_none()).unwrap();
    assert_eq!(listed.bad_count, 0);
    all
}

fn kinds(problems: &[Problem]) -> Vec<ProblemKind> {
    problems.iter().map(|problem| problem.kind).collect()
}

#[tokio::test]
async fn a_sound_store_is_sound_and_stays_as_it_is() {
    let dir = filled(5, 100).await;
    let store = open(dir.path()).await;
    // More blocks than are read at a time, and in a segment of its own.
    put_path(&store, "/long", 1, 3 << 20).await;
    put_path(&store, "/empty", 1, 0).await;
    store.close().await;
    drop(store);
    let (done, problems) = verified(dir.path());
    assert_eq!(problems, []);
    assert_eq!(done.sound, Tally { count: 7, bytes: 5 * 100 + (3 << 20) });
    assert_eq!((done.entries.count, done.purge_log.state.clone()), (7, LogState::Whole));
    assert_eq!((done.dead_bytes, done.unnamed_segments), (0, Tally::default()));
    // And the store opens as if nothing had been.
    assert_eq!(verified(dir.path()).0, done);
    let store = open(dir.path()).await;
    ready(&store).await;
    assert_eq!((store.stats().stored_count, store.stats().quarantined), (7, 0));
    store.close().await;
}

#[tokio::test]
async fn a_flipped_bit_in_a_body_names_the_response_that_is_lost() {
    let dir = filled(1, 3 << 20).await;
    let segments = files_below(&dir.path().join("seg"));
    assert_eq!(segments.len(), 1);
    // In the second piece that is read.
    flip(&segments[0], 64 + 64 + 20 * crate::segment::STRIDE + 5);
    let (done, problems) = verified(dir.path());
    assert_eq!(kinds(&problems), [ProblemKind::Block]);
    assert_eq!(problems[0].url.as_deref(), Some("https://a.example/0"));
    assert_eq!((problems[0].segment, done.sound.count), (Some(1), 0));
    assert!(problems[0].reason.contains("block 20"), "{}", problems[0].reason);

    flip(&segments[0], 64 + 30);
    assert_eq!(kinds(&verified(dir.path()).1), [ProblemKind::Record], "the first that is found");
    flip(&segments[0], 20);
    assert_eq!(kinds(&verified(dir.path()).1), [ProblemKind::Segment]);
}

#[tokio::test]
async fn a_missing_or_cut_segment_is_damage() {
    let dir = filled(3, 2 << 20).await;
    let segments = files_below(&dir.path().join("seg"));
    std::fs::remove_file(&segments[0]).unwrap();
    std::fs::OpenOptions::new().write(true).open(&segments[1]).unwrap().set_len(1 << 20).unwrap();
    let (done, problems) = verified(dir.path());
    assert_eq!(kinds(&problems), [ProblemKind::Segment; 2]);
    assert_eq!((done.sound.count, done.segments.count), (1, 2));
    std::fs::remove_dir_all(dir.path().join("seg")).unwrap();
    assert_eq!(kinds(&verified(dir.path()).1), [ProblemKind::Segment; 3]);
    assert!(!dir.path().join("seg").exists());
}

#[tokio::test]
async fn bodies_of_another_store_are_not_believed() {
    let (dir, other) = (filled(2, 20_000).await, filled(2, 20_000).await);
    for file in files_below(&other.path().join("seg")) {
        std::fs::copy(&file, dir.path().join("seg").join(file.file_name().unwrap())).unwrap();
    }
    assert_eq!(kinds(&verified(dir.path()).1), [ProblemKind::Segment; 2]);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    std::fs::rename(other.path().join("index"), dir.path().join("index")).unwrap();
    assert_eq!(kinds(&verified(dir.path()).1), [ProblemKind::Index]);
}

#[tokio::test]
async fn a_damaged_entry_is_told_by_its_key() {
    let dir = filled(2, 100).await;
    let changed = {
        let Format::Known(store) = read_format(dir.path()) else { panic!("a format file") };
        let tuning = Tuning { cache_bytes: 1 << 20, reserve_bytes: 0, faults: Faults::default() };
        let generations = Generations::new(dir.path().join("index"), store, tuning);
        let index = generations.look().unwrap().index;
        let mut all: Vec<([u8; 24], Vec<u8>)> = Vec::new();
        index
            .walk(None, &mut |key, value| {
                all.push((key.try_into().unwrap(), value.to_vec()));
                true
            })
            .unwrap();
        let (key, mut value) = all.remove(0);
        value[40] ^= 1;
        index.put(&key, &value).unwrap();
        // The second under a key that is not its own, too.
        let (mut other, value) = all.remove(0);
        other[23] ^= 1;
        index.put(&other, &value).unwrap();
        index.flush().unwrap();
        key
    };
    let (done, problems) = verified(dir.path());
    assert_eq!(kinds(&problems), [ProblemKind::Entry; 2]);
    let hash = brim_semantics::KeyHash(changed[..16].try_into().unwrap()).to_string();
    assert_eq!(problems.iter().filter(|problem| problem.key.as_ref() == Some(&hash)).count(), 1);
    assert_eq!((done.sound.count, done.entries.count), (1, 3));
    assert_eq!(stats(dir.path()).unwrap().bad_entries, 2);
    assert_eq!(entries(dir.path(), &mut |_| true).unwrap().bad_count, 2);
}

#[tokio::test]
async fn an_index_that_cannot_be_opened_is_damage() {
    let dir = filled(2, 100).await;
    let current = dir.path().join("index/current");
    let named = std::fs::read(&current).unwrap();
    for broken in [&b"brim-index 1 00000000\n"[..], b"", b"brim-index 9 ffffffff\n"] {
        std::fs::write(&current, broken).unwrap();
        let (done, problems) = verified(dir.path());
        assert_eq!(kinds(&problems), [ProblemKind::Index]);
        assert_eq!(done.unnamed_segments, done.segments, "nothing names them");
        assert!(matches!(stats(dir.path()), Err(OfflineError::Index { .. })));
        assert!(matches!(entries(dir.path(), &mut |_| true), Err(OfflineError::Index { .. })));
    }
    std::fs::write(&current, named).unwrap();
    assert!(verified(dir.path()).1.is_empty());
    for file in files_below(&dir.path().join("index")).iter().filter(|file| file.parent() != current.parent()) {
        std::fs::write(file, vec![0xAB; 4096]).unwrap();
    }
    // What sled makes of that is its own affair, but nothing is taken for sound.
    let (done, problems) = verified(dir.path());
    assert_eq!(done.sound.count, 0);
    assert_eq!(kinds(&problems), [ProblemKind::Index]);
}

/// Whatever is cut off sled's files or flipped in them: a node that starts afterwards serves what was found sound, and nothing else.
#[tokio::test]
async fn what_is_found_of_a_broken_index_is_what_a_node_serves() {
    let mut random = Random::seeded("what_is_found_of_a_broken_index");
    let mut rounds_with_some = 0;
    for round in 0..24 {
        let dir = filled(10, 2000).await;
        let file = dir.path().join("index/00000001").join(if round % 4 == 0 { "conf" } else { "db" });
        let bytes = std::fs::metadata(&file).unwrap().len();
        match round % 2 {
            0 => std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(random.below(bytes)).unwrap(),
            _ => flip(&file, random.below(bytes)),
        }
        let (done, problems) = verified(dir.path());
        let is_dead = problems.iter().any(|problem| problem.kind == ProblemKind::Index);
        let expected = if is_dead { 0 } else { done.sound.count };
        rounds_with_some += u32::from(expected > 0);
        assert_eq!(served(dir.path(), 10).await as u64, expected, "round {round}: {problems:?}");
    }
    assert!(rounds_with_some > 0, "damage that costs everything proves little");
}

#[tokio::test]
async fn a_torn_purge_log_is_sound_and_a_damaged_one_is_not() {
    let dir = filled(3, 100).await;
    for path in ["/0", "/9", "/8"] {
        purge(dir.path(), path, PurgeMode::Hard).await;
    }
    let log = dir.path().join("purge.log");
    let whole = std::fs::read(&log).unwrap();
    let mut torn = whole.clone();
    torn.extend_from_slice(&whole[32..39]);
    std::fs::write(&log, torn).unwrap();
    let (done, problems) = verified(dir.path());
    assert_eq!(problems, []);
    assert_eq!((done.purge_log.state, done.purge_log.position), (LogState::Torn(7), Position(3)));

    std::fs::write(&log, &whole).unwrap();
    flip(&log, whole.len() as u64 / 2);
    let (done, problems) = verified(dir.path());
    assert_eq!(kinds(&problems), [ProblemKind::PurgeLog]);
    assert!(done.purge_log.damage().is_some());
    assert_eq!(done.sound.count, 2, "bodies are looked at all the same; the purged one went when the store was opened");
    assert!(listed(dir.path()).values().all(|entry| entry.standing == Standing::Unknown));

    std::fs::remove_file(&log).unwrap();
    assert_eq!(kinds(&verified(dir.path()).1), [ProblemKind::PurgeLog]);
    assert!(!log.exists());
}

#[tokio::test]
async fn another_version_is_damage_and_no_store_is_an_error() {
    let dir = filled(1, 100).await;
    let format = dir.path().join("format");
    for text in ["brim-store 99 00", ""] {
        std::fs::write(&format, text).unwrap();
        assert_eq!(kinds(&verified(dir.path()).1), [ProblemKind::Format]);
        assert!(matches!(stats(dir.path()), Err(OfflineError::Format { .. })));
    }
    std::fs::remove_file(&format).unwrap();
    assert_eq!(kinds(&verified(dir.path()).1), [ProblemKind::Format]);

    let empty = tempfile::tempdir().unwrap();
    let nowhere = empty.path().join("nowhere");
    // Many projects have a folder of that name.
    let project = empty.path().join("project");
    std::fs::create_dir_all(project.join("index")).unwrap();
    for dir in [empty.path(), &nowhere, &project] {
        assert!(matches!(verify(dir, &mut |_| {}), Err(OfflineError::Absent { .. })));
        assert!(matches!(stats(dir), Err(OfflineError::Absent { .. })));
        assert!(matches!(entries(dir, &mut |_| true), Err(OfflineError::Absent { .. })));
    }
    assert_eq!(files_below(empty.path()), Vec::<PathBuf>::new(), "not even a lock file is made");
    assert!(!nowhere.exists());
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let dir = filled(1, 100).await;
    let store = open(dir.path()).await;
    assert!(matches!(stats(dir.path()), Err(OfflineError::Open(OpenError::InUse { .. }))));
    store.close().await;
    drop(store);
    assert_eq!(stats(dir.path()).unwrap().responses.count, 1);
}

/// Puts purges into the log of a store that is not open, so that what they name is still there.
fn purge_behind_its_back(dir: &Path, path: &str, position: u64, mode: PurgeMode) {
    let Format::Known(store) = read_format(dir) else { panic!("a format file") };
    let selector = Selector::Url { authority: "a.example".into(), path: path.into(), query: None };
    let opened = PurgeLog::open(dir, store, Faults::default()).unwrap();
    let OpenedLog::Good { mut log, .. } = opened else { panic!("a log") };
    log.append(&[LogRecord::Purge { position: Position(position), selector, mode, at: now() }]).unwrap();
}

#[tokio::test]
async fn purged_responses_are_no_damage() {
    let dir = filled(3, 1000).await;
    let store = open(dir.path()).await;
    put(&store, head("/beyond", Position(9)), body("/beyond", 1, 10)).await;
    store.close().await;
    drop(store);
    purge_behind_its_back(dir.path(), "/0", 1, PurgeMode::Hard);
    purge_behind_its_back(dir.path(), "/1", 2, PurgeMode::Soft);
    let (done, problems) = verified(dir.path());
    assert_eq!(problems, []);
    assert_eq!((done.purged, done.beyond_log), (Tally { count: 1, bytes: 1000 }, Tally { count: 1, bytes: 10 }));
    assert_eq!((done.sound.count, done.entries.count), (2, 4));
    assert_eq!(done.dead_bytes, crate::segment::record_bytes(1000) + crate::segment::record_bytes(10));

    let standing: Vec<_> = listed(dir.path()).into_iter().map(|(url, entry)| (url, entry.standing)).collect();
    let url = |path: &str| format!("https://a.example{path}");
    assert_eq!(
        standing,
        [
            (url("/0"), Standing::Hard),
            (url("/1"), Standing::Soft),
            (url("/2"), Standing::Live),
            (url("/beyond"), Standing::BeyondLog)
        ]
    );
    let stats = stats(dir.path()).unwrap();
    assert_eq!((stats.responses.count, stats.soft_purged.count, stats.refused.count), (2, 1, 2));
    assert_eq!((stats.purge_log.position, stats.purge_log.marks), (Position(2), 2));
    assert_eq!(stats.dead_bytes, done.dead_bytes);
}

#[tokio::test]
async fn stats_sort_what_is_stored() {
    let dir = filled(4, 100).await;
    let store = open(dir.path()).await;
    put_path(&store, "/empty", 1, 0).await;
    let long = put_path(&store, "/99", 1, 99).await;
    store.close().await;
    let stats = stats(dir.path()).unwrap();
    assert_eq!(stats.responses, Tally { count: 6, bytes: 499 });
    let sizes: Vec<_> =
        stats.by_size.iter().map(|class| (class.from_bytes, class.below_bytes, class.responses.count)).collect();
    assert_eq!(sizes, [(0, 1, 1), (10, 100, 1), (100, 1000, 4)]);
    assert_eq!(stats.by_site.keys().map(|site| &**site).collect::<Vec<_>>(), ["shop"]);
    assert_eq!(stats.by_status[&200].count, 6);
    assert_eq!(stats.newest, Some(long.head.meta.response_time));
    assert!(stats.oldest < stats.newest);
    assert!(stats.index_bytes > 0 && stats.entry_bytes > 0);
    let full = stats.fullness[FULLNESS_CLASSES - 1];
    assert_eq!((full.segments, full.live_bytes), (stats.segments, stats.live_bytes), "nothing is dead");
    assert_eq!(stats.dead_bytes, 0);
}

#[tokio::test]
async fn a_listing_tells_variants_and_ends_when_it_is_told_to() {
    let dir = filled(2, 100).await;
    let store = open(dir.path()).await;
    put(&store, in_language(head("/0", Position(0)), "de"), body("/0", 7, 50)).await;
    store.close().await;
    drop(store);
    let mut varying = Vec::new();
    entries(dir.path(), &mut |entry| {
        varying.extend((!entry.nominated.is_empty()).then(|| entry.clone()));
        true
    })
    .unwrap();
    assert_eq!(varying.len(), 1);
    assert_eq!(varying[0].nominated, in_language(head("/0", Position(0)), "de").nominated);
    assert_eq!((varying[0].bytes, varying[0].surrogate_keys.len(), varying[0].status), (50, 1, 200));
    let mut count = 0;
    entries(dir.path(), &mut |_| {
        count += 1;
        false
    })
    .unwrap();
    assert_eq!(count, 1);
}
