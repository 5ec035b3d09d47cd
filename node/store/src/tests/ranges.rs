//! Ranges of bodies that are still growing.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::support::*;
use crate::{
    BLOCK_BYTES, BodyError, BodyReader, FILL_WINDOW_BYTES, Fill, FillError, Finished, Following, Position, PurgeMode,
    Reason, Selector, StoreConfig,
};

const WINDOW: u64 = FILL_WINDOW_BYTES as u64;

fn range_of(whole: &Bytes, range: Range<u64>) -> Bytes {
    whole.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap())
}

fn ranged(following: &Arc<Following>, range: Range<u64>) -> BodyReader {
    following.read_range(range).expect("it can be joined")
}

/// Appends the bytes in pieces. The deadline is for a fill that hangs.
async fn append(fill: &mut Fill, bytes: &Bytes, piece: usize) {
    for piece in bytes.chunks(piece) {
        let appended = tokio::time::timeout(Duration::from_secs(20), fill.append(Bytes::copy_from_slice(piece)));
        appended.await.expect("the fill waits for a reader that is not behind").unwrap();
    }
}

/// Everything a reader gives. The deadline is for a reader that is never woken.
async fn all_of(reader: BodyReader) -> Result<Bytes, BodyError> {
    tokio::time::timeout(Duration::from_secs(30), read_all(reader)).await.expect("a reader waits for ever")
}

async fn next_of(reader: &mut BodyReader) -> Option<Result<Bytes, BodyError>> {
    tokio::time::timeout(Duration::from_secs(30), reader.next()).await.expect("a reader waits for ever")
}

/// The next piece without waiting, if there is one.
async fn piece_now(reader: &mut BodyReader) -> Option<Option<Result<Bytes, BodyError>>> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match reader.poll_next(cx) {
            std::task::Poll::Ready(piece) => Some(piece),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn ranges_of_a_collected_body_are_cut_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let whole = body("/small", 1, 1000);
    let mut fill = store.begin(head("/small", Position(0)), Some(1000));
    let follower = fill.follower();
    let mut readers = Vec::new();
    let ranges = [0..1, 0..1000, 0..u64::MAX, 99..301, 200..300, 999..1000, 900..5000, 400..u64::MAX];
    for cut in [0, 100, 300, 1000] {
        append(&mut fill, &whole.slice(usize::try_from(follower.arrived()).unwrap()..cut), 70).await;
        assert_eq!(follower.arrived(), cut as u64);
        for range in &ranges {
            let reader = ranged(&follower, range.clone());
            let range = range.start..range.end.min(1000);
            assert_eq!(reader.size_hint(), Some(range.end - range.start), "{range:?} joined at {cut}");
            readers.push((reader, range));
        }
    }
    let trailers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("\"t\""))]);
    let mut all = follower.read().unwrap();
    assert!(matches!(fill.finish(Some(trailers.clone())).await, Finished::Stored(_)));
    readers.extend(ranges.into_iter().map(|range| {
        let cut = range.start..range.end.min(1000);
        (ranged(&follower, range), cut)
    }));
    for (mut reader, range) in readers {
        let mut found = Vec::new();
        while let Some(piece) = next_of(&mut reader).await {
            found.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(found, range_of(&whole, range.clone()), "{range:?}");
        assert_eq!((reader.size_hint(), reader.trailers()), (Some(0), None), "a range has no trailers");
    }
    while next_of(&mut all).await.is_some() {}
    assert_eq!(all.trailers(), Some(trailers));
}

#[tokio::test]
async fn what_lies_beyond_the_end_gives_nothing_or_an_error_where_the_length_was_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let whole = body("/end", 1, 1000);
    let mut known = store.begin(head("/end", Position(0)), Some(1000));
    for range in [1000..2000, 5000..u64::MAX, 1000..1000, 7..7] {
        let mut reader = ranged(&known.follower(), range.clone());
        assert_eq!(reader.size_hint(), Some(0), "{range:?}");
        assert_eq!(piece_now(&mut reader).await, Some(None), "{range:?} needs nothing of the fill");
    }
    append(&mut known, &whole, 100).await;

    let mut unknown = store.begin(head("/end", Position(0)), None);
    let follower = unknown.follower();
    let beyond = ranged(&follower, 900..1001);
    let far_beyond = ranged(&follower, 2000..2001);
    let open_end = ranged(&follower, 900..u64::MAX);
    let open_beyond = ranged(&follower, 2000..u64::MAX);
    let inside = ranged(&follower, 900..1000);
    assert_eq!((beyond.size_hint(), open_end.size_hint(), inside.size_hint()), (None, None, None));
    append(&mut unknown, &whole, 100).await;
    assert_eq!(ranged(&follower, 900..1000).size_hint(), Some(100), "all of it is there");
    assert_eq!(ranged(&follower, 900..1001).size_hint(), None);
    assert!(matches!(unknown.finish(None).await, Finished::Stored(_)));
    assert_eq!(all_of(beyond).await, Err(BodyError::TooShort(1000)));
    assert_eq!(all_of(far_beyond).await, Err(BodyError::TooShort(1000)));
    assert_eq!(all_of(open_end).await.unwrap(), range_of(&whole, 900..1000));
    assert_eq!(all_of(open_beyond).await.unwrap(), Bytes::new());
    assert_eq!(all_of(inside).await.unwrap(), range_of(&whole, 900..1000));
    let late = ranged(&follower, 900..1001);
    assert_eq!(late.size_hint(), Some(100), "the length is known by now");
    assert_eq!(all_of(late).await.unwrap(), range_of(&whole, 900..1000));
}

/// Several ranges of a body that streams to disk: far ahead, from the middle of a block that is written, across what is
/// written and what is held, to the end.
#[tokio::test]
async fn ranges_of_a_streaming_body_come_from_disk_and_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (length, block) = (8 * MIB, BLOCK_BYTES as u64);
    let whole = body("/large", 1, 8 << 20);
    let mut fill = store.begin(head("/large", Position(0)), Some(length));
    let follower = fill.follower();
    let whole_reader = tokio::spawn(all_of(follower.read().unwrap()));
    let ranges = [
        3 * block + 17..3 * block + 18,
        5 * block - 1..9 * block + 1,
        100..5 * MIB + 3,
        3 * MIB - 5..3 * MIB + 5,
        6 * MIB + 1..7 * MIB + 9,
        length - 1..length,
        length - 3 * block - 1..u64::MAX,
    ];
    let mut reading = Vec::new();
    let mut held_max = 0;
    for (n, piece) in whole.chunks(256 << 10).enumerate() {
        // Before the first byte, when some of each is on disk, and close to the end.
        if [0, 12, 30].contains(&n) {
            for range in &ranges {
                let reader = ranged(&follower, range.clone());
                let range = range.start..range.end.min(length);
                assert_eq!(reader.size_hint(), Some(range.end - range.start));
                reading.push((tokio::spawn(all_of(reader)), range));
            }
        }
        append(&mut fill, &Bytes::copy_from_slice(piece), 100_000).await;
        held_max = held_max.max(follower.held().len());
    }
    // The last ones are there before the fill is stored.
    for (reading, range) in reading {
        assert!(reading.await.unwrap().unwrap() == range_of(&whole, range.clone()), "{range:?}");
    }
    assert!(held_max <= 2 * FILL_WINDOW_BYTES, "{held_max} bytes held");
    assert!(matches!(fill.finish(None).await, Finished::Stored(_)));
    assert_eq!(whole_reader.await.unwrap().unwrap(), whole);
    assert_eq!(all_of(ranged(&follower, 70_000..200_000)).await.unwrap(), range_of(&whole, 70_000..200_000));
}

/// A reader that has its last byte holds no place any more, also if it is never asked again.
#[tokio::test]
async fn a_range_that_has_been_read_is_no_reader_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(StoreConfig { finish_unread: 0, ..config(dir.path()) }).await;
    let whole = body("/left", 1, 3000);
    let mut fill = store.begin(head("/left", Position(0)), Some(3000));
    let mut reader = ranged(&fill.follower(), 500..1500);
    append(&mut fill, &whole.slice(..1200), 1200).await;
    assert_eq!(next_of(&mut reader).await, Some(Ok(range_of(&whole, 500..1200))));
    append(&mut fill, &whole.slice(1200..2000), 800).await;
    assert_eq!(next_of(&mut reader).await, Some(Ok(range_of(&whole, 1200..1500))));
    assert_eq!(fill.append(whole.slice(2000..2100)).await, Err(FillError::Unwanted), "nobody reads");
    assert_eq!(next_of(&mut reader).await, None, "what came after the range is nothing to its reader");
    assert_eq!(reader.size_hint(), Some(0));
}

/// A body that passes: a reader whose range has not come neither holds it up nor keeps bytes; in its range it paces.
#[tokio::test]
async fn a_reader_far_ahead_neither_paces_nor_keeps_a_passing_body() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(StoreConfig { object_max: MIB / 2, ..config(dir.path()) }).await;
    let (length, at) = (12 * MIB, 6 * MIB + 1000);
    let whole = body("/pass", 1, 12 << 20);
    let mut fill = store.begin(head("/pass", Position(0)), Some(length));
    let follower = fill.follower();
    let mut far = ranged(&follower, at..at + 3 * MIB);
    // Not one byte of it is read meanwhile.
    for piece in range_of(&whole, 0..at).chunks(64 << 10) {
        append(&mut fill, &Bytes::copy_from_slice(piece), 64 << 10).await;
        assert_eq!(follower.held().len(), 0, "nobody wants these bytes");
    }
    assert!(follower.read_range(0..1).is_none() && follower.read().is_none(), "it can be joined no more");
    // From its first byte on it is a reader like any other: the fill stops a window behind it.
    append(&mut fill, &range_of(&whole, at..at + WINDOW), 64 << 10).await;
    let more = range_of(&whole, at + WINDOW..at + WINDOW + 100);
    let mut paced = Box::pin(fill.append(more));
    std::future::poll_fn(|cx| {
        assert!(paced.as_mut().poll(cx).is_pending(), "a window behind its reader");
        std::task::Poll::Ready(())
    })
    .await;
    let first = next_of(&mut far).await.unwrap().unwrap();
    assert!(!first.is_empty() && first == range_of(&whole, at..at + first.len() as u64));
    paced.await.unwrap();
    let rest = tokio::spawn(all_of(far));
    append(&mut fill, &range_of(&whole, at + WINDOW + 100..at + 3 * MIB), 64 << 10).await;
    assert!(rest.await.unwrap().unwrap() == range_of(&whole, at + first.len() as u64..at + 3 * MIB));
    assert_eq!(fill.append(Bytes::from_static(b"more")).await, Err(FillError::Unwanted), "its only reader has all");
}

/// Ranges of a body that turns out too long to be stored, joined while it could be: from its unlinked segment, from memory,
/// and far ahead; the slow reader of all of it does not keep them from their bytes.
#[tokio::test]
async fn ranges_of_a_body_that_passes_later_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(StoreConfig { object_max: 3 * MIB, ..config(dir.path()) }).await;
    let whole = body("/over", 1, 8 << 20);
    let mut fill = store.begin(head("/over", Position(0)), None);
    let follower = fill.follower();
    let all = follower.read().unwrap();
    let ranges = [10..20, 2 * MIB + 77..2 * MIB + 400_000, 3 * MIB - 10..4 * MIB, 7 * MIB..8 * MIB];
    let readers: Vec<_> = ranges.iter().map(|range| ranged(&follower, range.clone())).collect();
    append(&mut fill, &range_of(&whole, 0..3 * MIB + 500_000), 64 << 10).await;
    no_segments(dir.path()).await;
    let reading: Vec<_> = readers.into_iter().map(|reader| tokio::spawn(all_of(reader))).collect();
    let all = tokio::spawn(all_of(all));
    append(&mut fill, &range_of(&whole, 3 * MIB + 500_000..8 * MIB), 64 << 10).await;
    assert!(matches!(fill.finish(None).await, Finished::NotStored(Reason::TooLarge)));
    for (reading, range) in reading.into_iter().zip(ranges) {
        assert!(reading.await.unwrap().unwrap() == range_of(&whole, range.clone()), "{range:?}");
    }
    assert_eq!(all.await.unwrap().unwrap(), whole);
}

/// A fill that breaks off: who waits for more gets an error; a range that has arrived is read to its end.
#[tokio::test]
async fn a_fill_that_breaks_off_takes_nothing_from_a_range_that_has_arrived() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for arrived in [MIB / 2, 5 * MIB + 500] {
        let whole = body("/cut", 1, usize::try_from(arrived).unwrap());
        let mut fill = store.begin(head("/cut", Position(0)), Some(9 * MIB));
        let follower = fill.follower();
        let complete = [0..10, 70_001..MIB / 2, arrived - 20_000..arrived, 0..arrived];
        let readers: Vec<_> = complete.iter().map(|range| ranged(&follower, range.clone())).collect();
        let mut done = ranged(&follower, 0..3);
        let waiting =
            [follower.read(), follower.read_range(0..arrived + 1), follower.read_range(arrived + 5..arrived + 6)];
        append(&mut fill, &whole, 64 << 10).await;
        assert_eq!(next_of(&mut done).await, Some(Ok(range_of(&whole, 0..3))));
        let mut waits = tokio::spawn(async move {
            let mut reader = ranged(&follower, arrived..arrived + 1);
            (piece_now(&mut reader).await, next_of(&mut reader).await, follower)
        });
        std::future::poll_fn(|cx| {
            assert!(std::pin::Pin::new(&mut waits).poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        tokio::task::yield_now().await;
        drop(fill);
        let (before, after, follower) = waits.await.unwrap();
        assert_eq!((before, after), (None, Some(Err(BodyError::Aborted))), "it waited and was woken");
        no_segments(dir.path()).await;
        for reader in waiting {
            assert_eq!(all_of(reader.unwrap()).await, Err(BodyError::Aborted));
        }
        assert_eq!(next_of(&mut done).await, None, "it had everything");
        assert!(follower.read_range(0..1).is_none(), "nobody joins what broke off");
        for (reader, range) in readers.into_iter().zip(complete) {
            assert!(all_of(reader).await.unwrap() == range_of(&whole, range.clone()), "{range:?} of {arrived}");
        }
        assert_eq!(follower.held().len(), 0, "memory is given back with the last of them");
    }
}

/// A purge keeps later requests from joining, whatever they want of it; the first reader is never refused.
#[tokio::test]
async fn a_range_obeys_purges_as_the_whole_body_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut fill = store.begin(head("/purged", store.position()), Some(1000));
    let follower = fill.follower();
    store
        .purge(crate::Purge::of(Selector::Everything, PurgeMode::Soft, SystemTime::now()), crate::COUNT_WAIT)
        .await
        .unwrap();
    let first = ranged(&follower, 10..20);
    assert!(follower.read_range(10..20).is_none() && follower.read().is_none());
    let whole = body("/purged", 1, 1000);
    append(&mut fill, &whole, 100).await;
    assert_eq!(all_of(first).await.unwrap(), range_of(&whole, 10..20));
}

struct Joined {
    range: Option<Range<u64>>,
    reading: tokio::task::JoinHandle<Result<Bytes, BodyError>>,
}

/// Reads, and now and then lets others go first.
async fn read_unsteadily(mut reader: BodyReader, mut random: Random) -> Result<Bytes, BodyError> {
    let mut all = Vec::new();
    while let Some(piece) = next_of(&mut reader).await {
        all.extend_from_slice(&piece?);
        for _ in 0..random.below(4) {
            tokio::task::yield_now().await;
        }
    }
    Ok(all.into())
}

/// Any ranges, joined at any time, of bodies that are collected, stream, pass, break off, announced or not: each reader gets
/// exactly its bytes, or the error that is due.
#[tokio::test]
async fn each_reader_of_any_range_gets_exactly_its_bytes() {
    let mut random = Random::seeded("each_reader_of_any_range");
    let dir = tempfile::tempdir().unwrap();
    let sizes = StoreConfig { memory_object_max: 128 * KIB, object_max: 2 * MIB, ..config(dir.path()) };
    let store = opened(sizes).await;
    let source = body("/any", 1, 3 << 20);
    for round in 0..80 {
        let bound = [1000, 128 * KIB, 2 * MIB, 3 * MIB][usize::try_from(random.below(4)).unwrap()];
        let length = 1 + random.below(bound);
        let whole = range_of(&source, 0..length);
        let is_announced = random.below(2) == 0;
        let breaks_at = (random.below(3) == 0).then(|| random.below(length));
        let mut fill = store.begin(head("/any", Position(0)), is_announced.then_some(length));
        let follower = fill.follower();
        let mut joined = vec![Joined { range: None, reading: tokio::spawn(all_of(follower.read().unwrap())) }];
        let piece_max = 1 + random.below(bound / 8);
        let mut at = 0;
        while at < breaks_at.unwrap_or(length) {
            for _ in 0..random.below(3) {
                let start = random.below(length + length / 8 + 1);
                let end = start + random.below(length + 2);
                let Some(reader) = follower.read_range(start..end) else { continue };
                match random.below(5) {
                    0 => drop(reader),
                    1 => {
                        let reading = tokio::spawn(all_of(reader));
                        tokio::task::yield_now().await;
                        reading.abort();
                    }
                    n => {
                        let random = Random(random.below(u64::MAX - 1) | 1);
                        let reading = match n {
                            2 => tokio::spawn(all_of(reader)),
                            _ => tokio::spawn(read_unsteadily(reader, random)),
                        };
                        joined.push(Joined { range: Some(start..end), reading });
                    }
                }
            }
            let next = (at + 1 + random.below(piece_max)).min(length);
            append(&mut fill, &range_of(&whole, at..next), usize::MAX).await;
            at = next;
            assert_eq!(follower.arrived(), at);
        }
        match breaks_at {
            Some(_) => drop(fill),
            None => drop(fill.finish(None).await),
        }
        for Joined { range, reading } in joined {
            let known = if is_announced { length } else { u64::MAX };
            let wanted = range.clone().map_or(0..u64::MAX, |range| range.start.min(known)..range.end.min(known));
            let found = reading.await.unwrap();
            let due = match (breaks_at, &range) {
                _ if wanted.is_empty() => Ok(Bytes::new()),
                (Some(_), _) if wanted.end > at => Err(BodyError::Aborted),
                (None, None) => Ok(whole.clone()),
                (None, Some(_)) if wanted.end > length => Err(BodyError::TooShort(length)),
                _ => Ok(range_of(&whole, wanted)),
            };
            assert!(found == due, "round {round}: {range:?} of {length}, broken off {breaks_at:?}: {:?}", found.err());
        }
    }
}
