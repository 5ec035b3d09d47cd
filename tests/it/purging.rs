//! Purges: what they name, when they hold, and what they survive.

use std::time::Duration;

use brim_tests::{BrimProcess, FakeOrigin, Gate, TestNode, eventually, not_modified, ok};
use http::Method;
use serde_json::json;

async fn catalogue() -> FakeOrigin {
    let origin = FakeOrigin::start().await;
    origin.answer("/a", |request| {
        let language = request.header("accept-language").unwrap_or("none").to_owned();
        ok(language).cache_control("max-age=600").vary("Accept-Language").surrogate_keys("product all").etag("\"1\"")
    });
    origin.serve("/b/c", ok("b").cache_control("max-age=600").surrogate_keys("other all"));
    origin
}

#[tokio::test]
async fn a_purge_by_url_takes_all_variants_and_nothing_else() {
    let origin = catalogue().await;
    let node = TestNode::in_front_of(&origin).await;
    node.get_with("/a", "accept-language", "de").await.assert_stored();
    node.get_with("/a", "accept-language", "en").await.assert_stored();
    node.get("/b/c").await.assert_stored();
    let receipt = node.purge(json!({ "url": node.url("/a") })).await;
    assert!(receipt["position"].as_u64().is_some_and(|position| position > 0), "{receipt}");
    let id = receipt["id"].as_str().expect("an id");
    let again = node.admin(Method::GET, &format!("/v1/purges/{id}")).send().await;
    assert_eq!(again.json()["position"], receipt["position"]);
    let purged = node.get_with("/a", "accept-language", "de").await;
    purged.assert_forwarded("uri-miss");
    assert_eq!(purged.cache_status().detail.as_deref(), Some("purged"), "a miss says why");
    node.get_with("/a", "accept-language", "en").await.assert_forwarded("vary-miss");
    node.get("/b/c").await.assert_hit();
}

#[tokio::test]
async fn each_selector_takes_what_it_names() {
    let origin = catalogue().await;
    let node = TestNode::in_front_of(&origin).await;
    let prefix = json!({ "prefix": node.url("/b") });
    for (selector, takes_a, takes_b) in [
        (json!({ "everything": true }), true, true),
        (json!({ "site": "test" }), true, true),
        (prefix, false, true),
        (json!({ "surrogate_keys": ["product"] }), true, false),
        (json!({ "surrogate_keys": ["nothing", "all"] }), true, true),
        (json!({ "surrogate_keys": ["nothing"] }), false, false),
    ] {
        node.get("/a").await;
        node.get("/b/c").await;
        node.purge(selector.clone()).await;
        for (path, is_taken) in [("/a", takes_a), ("/b/c", takes_b)] {
            let answer = node.get(path).await;
            assert_eq!(!answer.cache_status().hit, is_taken, "{selector} and {path}: {}", answer.head());
        }
    }
}

/// Soft: stale. Served once more while one validation runs behind it, and fresh again by a 304.
#[tokio::test]
async fn a_soft_purge_makes_stale() {
    let origin = FakeOrigin::start().await;
    origin.serve("/a", ok("v1").cache_control("max-age=600").etag("\"1\"").answering_conditionals());
    origin.serve(
        "/strict",
        ok("v1").cache_control("max-age=600, must-revalidate").etag("\"1\"").answering_conditionals(),
    );
    let node = TestNode::in_front_of(&origin).await;
    for path in ["/a", "/strict"] {
        node.get(path).await.assert_stored();
    }
    node.purge(json!({ "site": "test", "soft": true })).await;
    let stale = node.get("/a").await;
    stale.assert_hit().assert_content("v1");
    assert_eq!((stale.cache_status().detail.as_deref(), stale.cache_status().ttl), (Some("soft-purged"), Some(0)));
    let requests = origin.wait_for_requests("/a", 2).await;
    assert_eq!(requests[1].header("if-none-match"), Some("\"1\""));
    eventually("it is fresh again", async || (node.get("/a").await.cache_status().detail.is_none()).then_some(()))
        .await;
    origin.assert_requests("/a", 2).await;

    let validated = node.get("/strict").await;
    validated.assert_forwarded("stale").assert_content("v1");
    assert_eq!(
        (validated.cache_status().fwd_status, validated.cache_status().detail.as_deref()),
        (Some(304), Some("soft-purged"))
    );
}

#[tokio::test]
async fn a_dry_run_purges_nothing() {
    let origin = catalogue().await;
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_stored();
    let answer =
        node.admin(Method::POST, "/v1/purges").json(&json!({ "everything": true, "dry_run": true })).send().await;
    answer.assert_status(200);
    node.get("/a").await.assert_hit();
}

/// A fill that began before a purge is delivered to who asked for it, and never served after the purge.
#[tokio::test]
async fn a_fill_that_began_before_a_purge_is_dead_on_arrival() {
    let gate = Gate::new();
    let origin = FakeOrigin::start().await;
    origin.serve_each(
        "/a",
        [ok("old").cache_control("max-age=600").held_by(&gate), ok("new").cache_control("max-age=600")],
    );
    let node = TestNode::in_front_of(&origin).await;
    let early = tokio::spawn(node.ask(Method::GET, "/a").send());
    origin.wait_for_requests("/a", 1).await;
    node.purge(json!({ "url": node.url("/a") })).await;
    gate.open();
    early.await.expect("answered").assert_content("old");
    node.get("/a").await.assert_content("new");
    node.get("/a").await.assert_hit().assert_content("new");
}

/// The same for a request that comes after the purge and finds the old fetch still under way.
#[tokio::test]
async fn a_request_after_a_purge_does_not_board_an_older_fetch() {
    let (head, rest) = (Gate::new(), Gate::new());
    let origin = FakeOrigin::start().await;
    origin.serve_each(
        "/a",
        [
            ok("old ").then_wait(&rest).then("old").cache_control("max-age=600").held_by(&head),
            ok("new").cache_control("max-age=600"),
        ],
    );
    let node = TestNode::in_front_of(&origin).await;
    let early = tokio::spawn(node.ask(Method::GET, "/a").send());
    origin.wait_for_requests("/a", 1).await;
    node.purge(json!({ "everything": true })).await;
    let late = tokio::spawn(node.ask(Method::GET, "/a").send());
    head.open();
    late.await.expect("answered").assert_content("new");
    rest.open();
    early.await.expect("answered").assert_content("old old");
    node.get("/a").await.assert_hit().assert_content("new");
}

/// A purge that comes while a request waits to validate what it found cannot be undone by a 304: the content of before is
/// fetched whole, though its validator has not changed.
#[tokio::test]
async fn a_304_does_not_bring_a_purged_response_back() {
    let gate = Gate::new();
    let origin = FakeOrigin::start().await;
    origin.serve_each(
        "/a",
        [
            ok("old").cache_control("max-age=1").etag("\"1\""),
            not_modified().etag("\"1\"").cache_control("max-age=60").held_by(&gate),
            ok("new").cache_control("max-age=60").etag("\"1\"").answering_conditionals(),
        ],
    );
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_stored();
    node.clock().advance(Duration::from_secs(5));
    let validating = tokio::spawn(node.ask(Method::GET, "/a").send());
    origin.wait_for_requests("/a", 2).await;
    let waiting = tokio::spawn(node.ask(Method::GET, "/a").send());
    eventually("it waits for the validation", async || (node.waiting() == 1).then_some(())).await;
    node.purge(json!({ "everything": true })).await;
    gate.open();
    validating.await.expect("answered").assert_status(200);
    waiting.await.expect("answered").assert_content("new");
    // Between its last byte and its entry into the store a request would follow the fill.
    eventually("it is stored", async || node.get("/a").await.assert_content("new").cache_status().hit.then_some(()))
        .await;
}

/// Visible to the next request on every thread: each connection may land on another one.
#[tokio::test]
async fn a_purge_holds_on_every_thread_at_once() {
    let origin = FakeOrigin::start().await;
    let node = TestNode::in_front_of(&origin).await;
    for round in 0..20 {
        origin.serve("/a", ok(format!("v{round}")).cache_control("max-age=600"));
        node.purge(json!({ "url": node.url("/a") })).await;
        let answers = node.get_many("/a", 8).await;
        assert!(answers.iter().all(|answer| answer.content() == format!("v{round}")), "round {round}");
    }
}

#[tokio::test]
async fn a_bad_purge_is_refused_with_a_reason() {
    let origin = FakeOrigin::start().await;
    let node = TestNode::in_front_of(&origin).await;
    for request in [
        json!({}),
        json!({ "url": "/a" }),
        json!({ "url": "http://a/x", "everything": true }),
        json!({ "everything": false }),
        json!({ "site": "nowhere" }),
        json!({ "surrogate_keys": [] }),
        json!({ "url": "http://a/x", "colour": "red" }),
    ] {
        let answer = node.admin(Method::POST, "/v1/purges").json(&request).send().await;
        assert!(answer.status.is_client_error(), "{request}: {}", answer.head());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{request}");
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{request}");
    }
}

/// kill -9 at any moment loses no acknowledged purge and never brings a purged response back.
#[tokio::test]
async fn kill_9_loses_no_acknowledged_purge() {
    let origin = FakeOrigin::start().await;
    origin.answer("/", |_| ok("unused"));
    for page in 0..20 {
        origin.serve(&format!("/p/{page}"), ok(format!("v0 of {page}")).cache_control("max-age=6000"));
    }
    let mut brim = BrimProcess::in_front_of(&origin.url(), "");
    for round in 1..=6 {
        let authority = format!("127.0.0.1:{}", brim.listening().http[0].port());
        let client = brim.http1();
        for page in 0..20 {
            client.get(&format!("/p/{page}")).await;
        }
        // Half of the rounds leave time for the index to be written, the others none.
        if round % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        for page in 0..20 {
            origin.serve(&format!("/p/{page}"), ok(format!("v{round} of {page}")).cache_control("max-age=6000"));
        }
        for page in (0..20).step_by(2) {
            let url = format!("http://{authority}/p/{page}");
            let receipt = brim.admin(Method::POST, "/v1/purges", Some(&json!({ "url": url })));
            assert_eq!(receipt.status, 201, "{:?}", receipt.body);
        }
        brim.kill9();
        brim.restart();
        // The port has changed and is part of the key; the client asks in the name of the old one.
        let client = brim.http1().authority(&authority);
        for page in (0..20).step_by(2) {
            let answer = client.get(&format!("/p/{page}")).await;
            assert_eq!(answer.content(), format!("v{round} of {page}"), "purged before the kill: {}", answer.head());
        }
        for page in (1..20).step_by(2) {
            let answer = client.get(&format!("/p/{page}")).await;
            assert!(
                answer.content().ends_with(&format!(" of {page}")),
                "another response's content: {}",
                answer.content()
            );
        }
    }
}
