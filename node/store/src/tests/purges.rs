use std::time::Duration;

use std::time::SystemTime;

use brim_semantics::{KeyHash, PurgeState};

use super::support::*;
use crate::{Finished, Found, Position, Predicate, PurgeMode, Reason, Selector, Store};

fn url(path: &str) -> Selector {
    Selector::Url { authority: "a.example".into(), path: path.into(), query: None }
}

fn variant(path: &str, keys: &[u8]) -> Selector {
    Selector::Variant {
        authority: "a.example".into(),
        path: path.into(),
        query: None,
        keys: keys.iter().map(|byte| KeyHash([*byte; 16])).collect(),
        fields: vec![("accept".into(), b"any"[..].into())],
    }
}

fn matching(predicate: Predicate) -> Selector {
    Selector::Match(predicate)
}

#[tokio::test]
async fn each_selector_hits_what_it_names_and_holds_after_a_restart() {
    let selectors = [
        (Selector::Everything, [true, true, true]),
        (Selector::Site("shop".into()), [true, true, true]),
        (Selector::Site("blog".into()), [false, false, false]),
        (Selector::Prefix { authority: "a.example".into(), path_prefix: "/list".into() }, [true, true, false]),
        (url("/list/1"), [true, false, false]),
        (Selector::SurrogateKeys { site: None, keys: vec!["key-/item".into()] }, [false, false, true]),
        (Selector::SurrogateKeys { site: Some("blog".into()), keys: vec!["key-/item".into()] }, [false; 3]),
        (variant("/list/1", &[]), [true, false, false]),
        (variant("/list/1", &[7]), [false; 3]),
        (matching(Predicate { path: Some("/l*/1".into()), ..Predicate::default() }), [true, false, false]),
        (matching(Predicate { host: Some("*.example".into()), ..Predicate::default() }), [true; 3]),
        (matching(Predicate { host: Some("b.*".into()), ..Predicate::default() }), [false; 3]),
        (matching(Predicate { site: Some("blog".into()), ..Predicate::default() }), [false; 3]),
        (matching(Predicate { content_type: Some("text/*".into()), ..Predicate::default() }), [true; 3]),
        (matching(Predicate { statuses: vec![(404, 404), (500, 599)], ..Predicate::default() }), [false; 3]),
        (matching(Predicate { stored_after: Some(SystemTime::UNIX_EPOCH), ..Predicate::default() }), [true; 3]),
        (matching(Predicate { stored_before: Some(SystemTime::UNIX_EPOCH), ..Predicate::default() }), [false; 3]),
        (matching(Predicate { plugin: Some([1; 32]), ..Predicate::default() }), [false; 3]),
    ];
    let paths = ["/list/1", "/list/2", "/item"];
    for (selector, hit) in selectors {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        for path in paths {
            put_path(&store, path, 1, 500).await;
        }
        let matching = store.count_matching(std::slice::from_ref(&selector)).await.unwrap();
        let count = hit.iter().filter(|hit| **hit).count() as u64;
        assert_eq!((matching.count, matching.bytes, matching.examples.len() as u64), (count, 500 * count, count));
        let receipt =
            store.purge(crate::Purge::of(selector.clone(), PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap();
        assert_eq!((receipt.matched, receipt.position), (count, Position(1)), "{selector:?}");
        assert_eq!(store.receipt(&receipt.id).unwrap(), receipt);
        for (path, hit) in paths.iter().zip(hit) {
            assert_eq!(serve(&store, path).await.is_none(), hit, "{path} {selector:?}");
        }
        store.close().await;
        drop(store);
        let store = open(dir.path()).await;
        assert_eq!(store.position(), Position(1));
        assert_eq!(store.receipt("p-1").unwrap(), receipt);
        for (path, hit) in paths.iter().zip(hit) {
            assert_eq!(serve(&store, path).await.is_none(), hit, "{path} {selector:?} after a restart");
        }
        put_path(&store, "/list/1", 2, 500).await;
        assert_eq!(serve(&store, "/list/1").await.unwrap(), body("/list/1", 2, 500));
    }
}

/// A purge that names one variant of a key leaves the others in memory: those that are not on disk yet are nowhere else.
#[tokio::test]
async fn a_purge_of_one_variant_leaves_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for language in ["de", "en", "fr"] {
        let named = crate::ResponseHead { surrogate_keys: vec![language.into()], ..head("/v", store.position()) };
        put(&store, in_language(named, language), body("/v", 1, 100)).await;
    }
    let german = Selector::SurrogateKeys { site: None, keys: vec!["de".into()] };
    assert_eq!(
        store.purge(crate::Purge::of(german, PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap().matched,
        1
    );
    let Found::Memory(left) = store.find(&key("/v")) else { panic!("the others are no longer in memory") };
    let languages: Vec<_> = left.iter().map(|one| one.head.headers["content-language"].to_str().unwrap()).collect();
    assert_eq!(languages, ["fr", "en"]);
}

#[tokio::test]
async fn a_soft_purge_makes_stale_and_a_freshened_response_is_live_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let response = put_path(&store, "/s", 1, 100).await;
    let receipt = store.purge(crate::Purge::of(url("/s"), PurgeMode::Soft, now()), crate::COUNT_WAIT).await.unwrap();
    assert_eq!(receipt.matched, 1);
    assert_eq!(store.purge_state(&response), PurgeState::Soft);
    let fresh = store.freshen(
        &response,
        response.head.headers.clone(),
        response.head.meta.clone(),
        store.position(),
        response.head.surrogate_keys.clone(),
    );
    assert_eq!(store.purge_state(&fresh), PurgeState::Live);
    assert_eq!(store.purge_state(&response), PurgeState::Soft);
}

/// A fetch that began before the purge is dead on arrival, in memory and on disk.
#[tokio::test]
async fn a_fill_that_raced_a_purge_is_not_stored_and_cannot_be_joined() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for length in [1000, 2 << 20] {
        let mut fill = store.begin(head("/race", store.position()), None);
        let own = fill.follower().read().unwrap();
        assert!(fill.follower().read().is_some());
        fill.append(body("/race", 1, length)).await.unwrap();
        store.purge(crate::Purge::of(url("/race"), PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap();
        assert!(fill.follower().read().is_none());
        let follower = fill.follower();
        assert!(matches!(fill.finish(None).await, Finished::NotStored(Reason::Purged)));
        assert!(follower.read().is_none());
        // The request that made the fetch gets its answer.
        assert_eq!(read_all(own).await.unwrap(), body("/race", 1, length));
        assert!(matches!(store.find(&key("/race")), Found::Absent));
    }
    store.flush().await;
    assert_eq!(store.stats().live_bytes, 0);
}

#[tokio::test]
async fn concurrent_purges_get_positions_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let purges: Vec<_> = (0..200)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                store
                    .purge(crate::Purge::of(url(&format!("/{n}")), PurgeMode::Hard, now()), crate::COUNT_WAIT)
                    .await
                    .unwrap()
                    .position
            })
        })
        .collect();
    let mut positions = Vec::new();
    for purge in purges {
        positions.push(purge.await.unwrap());
    }
    positions.sort_unstable();
    assert_eq!(positions, (1..=200).map(Position).collect::<Vec<_>>());
    assert_eq!(store.position(), Position(200));
}

/// RFC 9111 §4.4: ordered when the call returns, even when nobody awaits it.
#[tokio::test]
async fn an_invalidation_need_not_be_awaited() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    put_path(&store, "/i", 1, 100).await;
    drop(store.invalidate("a.example", "/i", None, now()));
    let second = store.invalidate("a.example", "/other", None, now()).await.unwrap();
    assert_eq!(second, Position(2));
    assert!(serve(&store, "/i").await.is_none());
}

#[tokio::test]
async fn a_hard_purge_gives_its_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for n in 0..50 {
        put_path(&store, &format!("/{n}"), 1, 10_000).await;
    }
    store.flush().await;
    assert_eq!(store.stats().stored_count, 50);
    store.purge(crate::Purge::of(Selector::Everything, PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap();
    assert_eq!((store.stats().stored_count, store.stats().memory_keys), (0, 0));
}

/// A purge is forgotten when nothing older than it can exist: neither a stored response nor a fill.
#[tokio::test]
async fn purges_that_nothing_can_be_named_by_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let purge = |path: String| {
        let store = store.clone();
        let selector = Selector::Url { authority: "a.example".into(), path: path.into(), query: None };
        async move {
            store.purge(crate::Purge::of(selector, PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap().position
        }
    };
    put_path(&store, "/oldest", 1, 100).await;
    for n in 0..10 {
        purge(format!("/early/{n}")).await;
    }
    let begun = store.position();
    let mut fill = store.begin(head("/late/3", begun), None);
    for n in 0..10 {
        purge(format!("/late/{n}")).await;
    }
    let shared = store.shared();
    shared.trim_purges();
    assert_eq!(store.stats().purge_marks, 20, "an hour is kept whatever is stored");
    shared.horizon.note_as_if_long_ago(store.position());
    shared.trim_purges();
    assert_eq!(store.stats().purge_marks, 20, "the oldest response could be named by all of them");
    store.remove(&key("/oldest"));
    shared.trim_purges();
    assert_eq!(store.stats().purge_marks, 10, "the fill by those since it began");
    fill.append(body("/late/3", 1, 100)).await.unwrap();
    assert!(matches!(fill.finish(None).await, Finished::NotStored(Reason::Purged)));
    shared.trim_purges();
    assert_eq!((store.stats().purge_marks, store.position().0), (0, 20));
    // Whoever was on the way for longer than anybody reckoned with is not stored past a purge that was forgotten.
    let state = |store: &Store, at| store.purge_state_of(&head("/early/3", at).scope, &[], at);
    assert_eq!(state(&store, Position(2)), PurgeState::Hard);
    assert_eq!(state(&store, store.position()), PurgeState::Live);
    store.close().await;
    drop(store);
    assert_eq!(open(dir.path()).await.position().0, 20);
}

/// Keeps one of the threads that walk and look busy until the sender is dropped.
async fn hold_one_walk(store: &Store) -> std::sync::mpsc::SyncSender<()> {
    let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
    let (begun, begins) = tokio::sync::oneshot::channel();
    drop(store.shared().walk_pool.submit(usize::MAX, move || {
        let _ = begun.send(());
        let _ = held.recv();
    }));
    begins.await.unwrap();
    release
}

/// Holds walks and looks back until the senders are dropped.
async fn hold_walks(store: &Store) -> Vec<std::sync::mpsc::SyncSender<()>> {
    let mut held = Vec::new();
    for _ in 0..crate::config::WALK_THREADS {
        held.push(hold_one_walk(store).await);
    }
    held
}

/// However many purges wait, one walk over all stored responses counts what each of them hit.
#[tokio::test]
async fn purges_that_wait_share_a_walk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for n in 0..30 {
        put_path(&store, &format!("/{}/{n}", n % 10), 1, 100).await;
    }
    let release = hold_walks(&store).await;
    let purge = |selector: Selector, mode| {
        let store = store.clone();
        tokio::spawn(
            async move { store.purge(crate::Purge::of(selector, mode, now()), crate::COUNT_WAIT).await.unwrap() },
        )
    };
    let below = |n: usize| Selector::Prefix { authority: "a.example".into(), path_prefix: format!("/{n}/").into() };
    let soft = purge(Selector::Everything, PurgeMode::Soft);
    until(&store, "the first", |stats| stats.position == Position(1)).await;
    let hard: Vec<_> = (0..8).map(|n| purge(below(n), PurgeMode::Hard)).collect();
    until(&store, "all durable", |stats| stats.position == Position(9)).await;
    assert!(
        serve(&store, "/0/0").await.is_none() && serve(&store, "/8/8").await.is_some(),
        "they hold without the walk"
    );
    while store.stats().purges_uncounted < 9 {
        tokio::task::yield_now().await;
    }
    drop(release);
    assert_eq!(soft.await.unwrap().matched, 30);
    for purge in hard {
        let receipt = purge.await.unwrap();
        assert_eq!(receipt.matched, 3);
        assert_eq!(store.receipt(&receipt.id).unwrap().matched, 3);
    }
    let stats = store.stats();
    assert_eq!((stats.purge_walks, stats.purges_uncounted, stats.stored_count), (1, 0, 6));
}

/// Puts so many that carry `group`.
async fn put_group(store: &Store, group: &str, count: usize) {
    for n in 0..count {
        let path = format!("/{group}/{n}");
        let named = crate::ResponseHead { surrogate_keys: vec![group.into()], ..head(&path, store.position()) };
        put(store, named, body(&path, 1, 100)).await;
    }
}

fn keyed(key: &str) -> Selector {
    Selector::SurrogateKeys { site: None, keys: vec![key.into()] }
}

/// A purge of what few carry is counted before it is acknowledged, whatever else is stored and whoever walks.
#[tokio::test]
async fn a_purge_of_what_few_carry_needs_no_walk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    put_group(&store, "few", 20).await;
    put_group(&store, "more", 200).await;
    let release = hold_walks(&store).await;
    let purge = async |selectors: &[Selector], mode| {
        let purge =
            crate::Purge { selectors: selectors.to_vec(), ..crate::Purge::of(Selector::Everything, mode, now()) };
        store.purge(purge, Duration::ZERO).await.unwrap()
    };
    let soft = purge(&[keyed("few")], PurgeMode::Soft).await;
    assert_eq!((soft.matched, soft.matched_bytes, store.stored_count()), (20, 2000, 220));
    let hard = purge(&[keyed("few"), url("/more/7"), keyed("none")], PurgeMode::Hard).await;
    assert_eq!((hard.matched, hard.matched_bytes, store.stored_count()), (21, 2100, 199));
    assert!(hard.reclaimed_at.is_some());
    assert_eq!(purge(&[keyed("few")], PurgeMode::Hard).await.matched, 0, "they are gone");
    let waits = purge(&[keyed("more")], PurgeMode::Hard).await;
    assert_eq!((waits.matched, waits.reclaimed_at), (0, None), "so many are for the thread that walks");
    drop(release);
    let counted = store.receipt_reclaimed(&waits.id, Duration::from_secs(10)).await.unwrap();
    assert_eq!((counted.matched, store.stored_count()), (199, 0));
    assert_eq!(store.shared().counters.walks.get(), 0, "which did not have to walk either");
}

/// Beyond what is known of its carriers a key is walked for, and nothing is missed.
#[tokio::test]
async fn a_purge_of_what_very_many_carry_is_walked_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let count = crate::carriers::KNOWN_MAX + 1;
    put_group(&store, "many", count).await;
    let matching = store.count_matching(&[keyed("many")]).await.unwrap();
    assert_eq!(matching.count, count as u64);
    let purge = crate::Purge::of(keyed("many"), PurgeMode::Hard, now());
    let receipt = store.purge(purge, crate::COUNT_WAIT).await.unwrap();
    assert_eq!((receipt.matched, store.stored_count()), (count as u64, 0));
    assert_eq!(store.shared().counters.walks.get(), 1);
}

/// What would wait beyond the bound is not counted, and no purge waits for it.
#[tokio::test]
async fn walks_that_wait_have_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    put_path(&store, "/a", 1, 100).await;
    let release = hold_walks(&store).await;
    let everything = || crate::purge::Target::of(&[Selector::Everything]);
    let counts: Vec<_> = (0..crate::reclaim::WAITING_MAX)
        .map(|_| crate::reclaim::reclaim(store.shared(), everything(), Position(1), PurgeMode::Soft))
        .collect();
    let receipt =
        store.purge(crate::Purge::of(Selector::Everything, PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap();
    assert_eq!((receipt.matched, receipt.position), (0, Position(1)));
    assert!(serve(&store, "/a").await.is_none(), "it holds");
    drop(release);
    for count in counts {
        assert_eq!(count.await, Ok(()), "each is counted");
    }
}

/// A dry run does not wait for the walk that is under way, nor for its rest.
#[tokio::test]
async fn a_look_waits_for_no_walk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    put_path(&store, "/a", 1, 100).await;
    let walk = hold_one_walk(&store).await;
    assert_eq!(store.count_matching(&[Selector::Everything]).await.unwrap().count, 1);
    drop(walk);
}

#[tokio::test]
async fn looks_that_wait_have_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    put_path(&store, "/a", 1, 100).await;
    let held = hold_walks(&store).await;
    let waiting: Vec<_> =
        (0..crate::look::WAITING_MAX).map(|_| store.shared().walk_pool.submit(usize::MAX, || ())).collect();
    assert_eq!(store.count_matching(&[Selector::Everything]).await, None);
    assert!(store.popular(&[Selector::Everything], 1).await.is_empty());
    drop(held);
    for look in waiting {
        look.await.unwrap();
    }
    assert_eq!(store.count_matching(&[Selector::Everything]).await.unwrap().count, 1);
}

/// Where others look, too, a dry run waits for one walk at most, however many purges wait for theirs.
#[tokio::test]
async fn a_look_goes_before_walks_that_came_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    put_path(&store, "/a", 1, 100).await;
    let release = hold_walks(&store).await;
    let everything = || crate::purge::Target::of(&[Selector::Everything]);
    let counts: Vec<_> =
        (0..200).map(|_| crate::reclaim::reclaim(store.shared(), everything(), Position(1), PurgeMode::Soft)).collect();
    let shared = std::sync::Arc::clone(store.shared());
    let waiting = store.shared().walk_pool.submit(usize::MAX, move || shared.reclaims.waiting());
    drop(release);
    assert!(waiting.await.unwrap() >= 200 - 64);
    for count in counts {
        assert_eq!(count.await, Ok(()));
    }
}

/// A variant is meant by every request that it answers: also one that prefers its language to others (RFC 9110 §12.5.4).
#[tokio::test]
async fn a_purge_of_a_variant_names_what_such_a_request_would_get() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let purge = async |store: &Store, accepted: &str| {
        let fields = vec![("accept-language".into(), accepted.as_bytes().into())];
        let (authority, path) = ("a.example".into(), "/v".into());
        let variant = Selector::Variant { authority, path, query: None, keys: Vec::new(), fields };
        store.purge(crate::Purge::of(variant, PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap().matched
    };
    for language in ["de", "en"] {
        put(&store, in_language(head("/v", store.position()), language), body("/v", 1, 100)).await;
    }
    assert_eq!(purge(&store, "fr, it;q=0.5").await, 0);
    store.close().await;
    drop(store);
    let store = open(dir.path()).await;
    assert_eq!(purge(&store, "de, en;q=0.5").await, 1);
    assert_eq!(purge(&store, "en").await, 1);
    assert_eq!(store.stored_count(), 0);
}

/// What a write has purged is given back at once where its carriers are known, else by the next sweep.
#[tokio::test]
async fn what_writes_have_purged_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for path in ["/a", "/b", "/c", "/list/1", "/list/2"] {
        put_path(&store, path, 1, 100).await;
    }
    let paths = vec![url("/a"), url("/b")];
    store.invalidate_all(paths, now(), crate::BY_WRITE).await.unwrap();
    assert_eq!(store.stored_count(), 3);
    let receipt = store.receipts(None, 1).remove(0);
    assert_eq!((receipt.matched, receipt.reclaimed_at.is_some()), (2, true));
    let lists = Selector::Prefix { authority: "a.example".into(), path_prefix: "/list".into() };
    store.invalidate_all(vec![lists], now(), crate::BY_WRITE).await.unwrap();
    let receipt = store.receipts(None, 1).remove(0);
    assert_eq!((receipt.matched, receipt.reclaimed_at, store.stored_count()), (0, None, 3), "a write is worth no walk");
    store.shared().sweep_again(store.position());
    assert_eq!(store.stored_count(), 3, "whoever has just purged may still count");
    store.shared().sweep_again(store.position());
    assert_eq!(store.stored_count(), 1);
    assert!(serve(&store, "/c").await.is_some());
    store.flush().await;
    store.close().await;
    drop(store);
    assert_eq!(open(dir.path()).await.stored_count(), 1);
}

/// However long a purge waits for its walk, what it hit is counted for it.
#[tokio::test]
async fn a_sweep_leaves_what_is_still_to_be_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for path in ["/list/1", "/list/2", "/other"] {
        put_path(&store, path, 1, 100).await;
    }
    let lists = || Selector::Prefix { authority: "a.example".into(), path_prefix: "/list".into() };
    let written = Selector::Prefix { authority: "a.example".into(), path_prefix: "/o".into() };
    store.invalidate_all(vec![written, lists()], now(), crate::BY_WRITE).await.unwrap();
    let held = hold_walks(&store).await;
    let purge = crate::Purge::of(lists(), PurgeMode::Hard, now());
    let waits = store.purge(purge, Duration::ZERO).await.unwrap();
    (0..3).for_each(|_| store.shared().sweep_again(store.position()));
    assert_eq!(store.stored_count(), 2, "what the write alone has hit is gone");
    drop(held);
    let counted = store.receipt_reclaimed(&waits.id, Duration::from_secs(10)).await.unwrap();
    assert_eq!((counted.matched, store.stored_count()), (2, 0));
}

/// A purge that comes while a validation is under way, by a key that the response has no more after it.
#[tokio::test]
async fn a_validation_does_not_undo_a_purge_by_a_key_that_it_takes_away() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for (mode, by_write) in [(PurgeMode::Hard, false), (PurgeMode::Hard, true), (PurgeMode::Soft, false)] {
        let old = put_path(&store, "/p", 1, 100).await;
        let begun = store.position();
        let key = Selector::SurrogateKeys { site: None, keys: vec!["key-/p".into()] };
        if by_write {
            store.invalidate_all(vec![key], now(), crate::BY_WRITE).await.unwrap();
        } else {
            store.purge(crate::Purge::of(key, mode, now()), crate::COUNT_WAIT).await.unwrap();
        }
        let headers = old.head.headers.clone();
        let fresh = store.freshen(&old, headers, old.head.meta.clone(), begun, vec!["new".into()]);
        assert_eq!(
            store.purge_state(&fresh),
            PurgeState::Hard,
            "whoever waited for it gets it not: {mode:?} {by_write}"
        );
        assert!(serve(&store, "/p").await.is_none(), "{mode:?} {by_write}");
    }
    let old = put_path(&store, "/p", 1, 100).await;
    let (begun, headers) = (store.position(), old.head.headers.clone());
    let fresh = store.freshen(&old, headers, old.head.meta.clone(), begun, vec!["new".into()]);
    assert_eq!(store.purge_state(&fresh), PurgeState::Live);
    let other = crate::Purge::of(url("/other"), PurgeMode::Hard, now());
    store.purge(other, crate::COUNT_WAIT).await.unwrap();
    assert_eq!(store.purge_state(&fresh), PurgeState::Live, "there is no doubt left");
}
