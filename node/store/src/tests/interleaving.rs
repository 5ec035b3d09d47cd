//! A fill against a purge, one order after the other: it is delivered to those who asked before, and serves nobody after the purge.

use brim_semantics::PurgeState;

use super::support::*;
use crate::{COUNT_WAIT, Fill, Finished, Purge, PurgeError, PurgeMode, Reason, Selector, Store};

/// The moment of the purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    BeforeBegin,
    BeforeJoin,
    AfterJoin,
    AfterLastByte,
    AfterEnd,
}

const EACH: [When; 5] = [When::BeforeBegin, When::BeforeJoin, When::AfterJoin, When::AfterLastByte, When::AfterEnd];

async fn purge_at(moment: When, wanted: When, store: &Store, selector: &Selector) {
    if moment == wanted {
        let purge = Purge::of(selector.clone(), PurgeMode::Hard, now());
        store.purge(purge, COUNT_WAIT).await.unwrap();
    }
}

/// `late`: the keys that come with the content.
async fn one_order(wanted: When, selector: &Selector, late: &[&str], is_named: bool) {
    let case = format!("{wanted:?} {selector:?} {late:?}");
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    purge_at(When::BeforeBegin, wanted, &store, selector).await;
    let body = body("/p", 1, 5000);
    let fill = store.begin(head("/p", store.position()), Some(5000));
    let mut fill: Fill = if late.is_empty() { fill } else { fill.awaiting_keys() };
    let own = fill.follower().read().expect("the one that made the fetch");
    purge_at(When::BeforeJoin, wanted, &store, selector).await;
    let joined = fill.follower().read();
    // As long as keys are to come, nobody knows whether the purge meant it.
    let is_refused = wanted == When::BeforeJoin && (is_named || !late.is_empty());
    assert_eq!(joined.is_none(), is_refused, "{case}");
    purge_at(When::AfterJoin, wanted, &store, selector).await;
    fill.append(body.clone()).await.unwrap();
    purge_at(When::AfterLastByte, wanted, &store, selector).await;
    let finished = fill.finish_with_keys(None, late.iter().map(|key| (*key).into()).collect()).await;
    purge_at(When::AfterEnd, wanted, &store, selector).await;
    assert_eq!(read_all(own).await.unwrap(), body, "delivered to its client: {case}");
    if let Some(joined) = joined {
        assert_eq!(read_all(joined).await.unwrap(), body, "and to those who joined in time: {case}");
    }
    let is_gone = is_named && wanted != When::BeforeBegin;
    let expected = is_gone && wanted != When::AfterEnd;
    assert_eq!(matches!(finished, Finished::NotStored(Reason::Purged)), expected, "{case}");
    assert_eq!(serve(&store, "/p").await.is_none(), is_gone, "{case}");
    store.close().await;
    drop(store);
    let store = open(dir.path()).await;
    assert_eq!(serve(&store, "/p").await.is_none(), is_gone, "after a restart: {case}");
}

#[tokio::test]
async fn every_order_of_a_fill_and_a_purge_ends_well() {
    let key = |key: &str| Selector::SurrogateKeys { site: Some("shop".into()), keys: vec![key.into()] };
    for wanted in EACH {
        one_order(wanted, &key("key-/p"), &[], true).await;
        one_order(wanted, &key("other"), &[], false).await;
        one_order(wanted, &key("late"), &["late"], true).await;
        one_order(wanted, &key("other"), &["late"], false).await;
        one_order(wanted, &Selector::Everything, &["late"], true).await;
    }
}

/// Keys that came with the content are kept: by the disk, and by a 304, which brings the keys of fields alone.
#[tokio::test]
async fn keys_of_the_content_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut fill = store.begin(head("/p", store.position()), None).awaiting_keys();
    fill.append(body("/p", 1, 100)).await.unwrap();
    let Finished::Stored(stored) = fill.finish_with_keys(None, vec!["late".into()]).await else { panic!("not stored") };
    assert_eq!(stored.head.surrogate_keys, ["key-/p".into(), "late".into()]);
    let headers = stored.head.headers.clone();
    let fresh = store.freshen(&stored, headers, stored.head.meta.clone(), store.position(), vec!["new".into()]);
    assert_eq!(fresh.head.surrogate_keys, ["late".into(), "new".into()]);
    store.close().await;
    drop(store);
    let store = open(dir.path()).await;
    let found = lookup(&store, "/p").await.unwrap();
    assert_eq!(
        (&found[0].head.surrogate_keys[..], &found[0].head.content_keys[..]),
        (&["late".into(), "new".into()][..], &["late".into()][..])
    );
    let late = Selector::SurrogateKeys { site: None, keys: vec!["late".into()] };
    assert_eq!(store.purge(Purge::of(late, PurgeMode::Hard, now()), COUNT_WAIT).await.unwrap().matched, 1);
    assert!(serve(&store, "/p").await.is_none());
}

/// A response that may not be stored after all is delivered whole, and found by nobody.
#[tokio::test]
async fn a_fill_may_end_unstored() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut fill = store.begin(head("/p", store.position()), Some(100)).awaiting_keys();
    let own = fill.follower().read().unwrap();
    fill.append(body("/p", 1, 100)).await.unwrap();
    assert!(matches!(fill.finish_unstored(None).await, Finished::NotStored(Reason::Untagged)));
    assert_eq!(read_all(own).await.unwrap(), body("/p", 1, 100));
    assert!(serve(&store, "/p").await.is_none());
}

/// The same idempotency key of the same caller is the same purge, also after a restart; with another content it is refused.
#[tokio::test]
async fn a_repeated_purge_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path()).await;
    let purge = |by: &str, path: &str| {
        let selector = Selector::Url { authority: "a.example".into(), path: path.into(), query: None };
        Purge { by: by.into(), idempotency_key: Some("k".into()), ..Purge::of(selector, PurgeMode::Hard, now()) }
    };
    let first = store.purge(purge("ann", "/p"), COUNT_WAIT).await.unwrap();
    put_path(&store, "/p", 2, 100).await;
    for is_restarted in [false, true] {
        if is_restarted {
            store.close().await;
            drop(store);
            store = open(dir.path()).await;
        }
        let again = store.purge(purge("ann", "/p"), COUNT_WAIT).await.unwrap();
        assert_eq!(again, crate::Receipt { is_repeated: true, ..first.clone() });
        let other = store.purge(purge("ann", "/q"), COUNT_WAIT).await;
        assert!(matches!(other, Err(PurgeError::IdempotencyConflict(id)) if id == first.id));
        assert!(serve(&store, "/p").await.is_some(), "what was stored since is not named");
    }
    let by_another = store.purge(purge("bob", "/p"), COUNT_WAIT).await.unwrap();
    assert!(by_another.position > first.position);
    let listed: Vec<_> = store.receipts(None, 10).into_iter().map(|receipt| receipt.id).collect();
    assert_eq!(listed, [by_another.id.clone(), first.id.clone()]);
    assert_eq!(store.receipts(Some(by_another.position), 10)[0].id, first.id);
    assert_eq!(store.receipts(None, 1).len(), 1);
}

/// Predicates have a bound; the oldest become what covers them, so that nothing which they named comes back.
#[tokio::test]
async fn many_predicates_become_coarser_and_forget_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let begun = store.position();
    for number in 0..300 {
        let predicate = crate::Predicate { path: Some(format!("/{number}/*").into()), ..crate::Predicate::default() };
        store.purge(Purge::of(Selector::Match(predicate), PurgeMode::Hard, now()), COUNT_WAIT).await.unwrap();
    }
    assert!(store.stats().purge_marks <= 256);
    let state = |path: &str, position| {
        let scope = head(path, position).scope;
        store.purge_state_of(&scope, &[], position)
    };
    assert_eq!(state("/3/x", begun), PurgeState::Hard, "folded");
    assert_eq!(state("/299/x", begun), PurgeState::Hard);
    assert_eq!(state("/299/x", crate::Position(100)), PurgeState::Hard);
    assert_eq!(state("/elsewhere", crate::Position(100)), PurgeState::Live, "newer than what was folded");
    assert_eq!(state("/elsewhere", store.position()), PurgeState::Live);
}
