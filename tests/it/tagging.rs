//! Surrogate keys: where they come from, what becomes of too many, and what a write purges by them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use brim_tests::{FakeOrigin, Gate, TestNode, eventually, ok, status};
use http::Method;
use serde_json::json;

async fn purge_key(node: &TestNode, key: &str) -> u64 {
    let receipt = node.purge(json!({ "surrogate_keys": [key] })).await;
    receipt["matched"].as_u64().expect("a count")
}

/// Each of the fields that origins use, in its own way, and none of them for the client.
#[tokio::test]
async fn keys_come_from_the_fields_that_origins_send() {
    let origin = FakeOrigin::start().await;
    let cached = || ok("v").cache_control("max-age=600");
    origin.serve("/surrogate", cached().surrogate_keys("one two"));
    origin.serve("/tag", cached().header("cache-tag", "three, four"));
    origin.serve("/xkey", cached().header("xkey", "five six").header("xkey", "seven"));
    origin.serve("/groups", cached().header("cache-groups", "\"eight\", \"nine\""));
    let node = TestNode::in_front_of(&origin).await;
    for (path, key) in [
        ("/surrogate", "two"),
        ("/tag", "four"),
        ("/tag", "three"),
        ("/xkey", "seven"),
        ("/xkey", "five"),
        ("/groups", "nine"),
    ] {
        let stored = node.get(path).await;
        stored.assert_stored();
        for field in ["surrogate-key", "cache-tag", "xkey", "cache-groups"] {
            assert_eq!(stored.header(field), None, "{path}: {}", stored.head());
        }
        assert_eq!(node.get(path).await.header("cache-tag"), None, "on a hit neither");
        assert_eq!(purge_key(&node, key).await, 1, "{path} {key}");
        node.get(path).await.assert_forwarded("uri-miss");
        node.purge(json!({ "everything": true })).await;
    }
}

#[tokio::test]
async fn the_route_says_which_fields_carry_keys_and_adds_its_own() {
    let origin = FakeOrigin::start().await;
    origin.serve("/v1/items", ok("v").cache_control("max-age=600").header("x-tags", "a,b").surrogate_keys("s"));
    let route = "surrogate_key_fields = [{ field = \"X-Tags\", separator = \"comma\" }]\n\
                 surrogate_keys = [\"catalogue\", \"tenant:{header.x-tenant}\", \"of:{path.2}\", \"page:{query.page}\"]";
    let node = TestNode::with_route(&origin, route).await;
    let ask = |target: &'static str| node.get_with(target, "x-tenant", "acme corp");
    for (key, count) in
        [("a", 1), ("b", 1), ("s", 0), ("catalogue", 1), ("tenant:acme%20corp", 1), ("of:items", 1), ("page:2", 1)]
    {
        ask("/v1/items?page=2").await;
        assert_eq!(purge_key(&node, key).await, count, "{key}");
    }
    let stored = ask("/v1/items?page=3").await;
    assert_eq!((stored.header("x-tags"), stored.header("surrogate-key")), (None, Some("s")));
    assert_eq!(purge_key(&node, "page:").await, 0, "what the request has not is no key");
}

/// Keys are their site's: an origin of one site cannot have another site's responses purged, nor be purged in its place.
#[tokio::test]
async fn keys_belong_to_their_site() {
    let origin = FakeOrigin::serving("/a", ok("v").cache_control("max-age=600").surrogate_keys("shared")).await;
    let other = "[[sites]]\nname = \"other\"\nhosts = [\"other.example\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"test\"\n\
         [sites.routes.writes]\nsurrogate_keys = [\"shared\"]\n";
    origin.answer("/write", |_| ok("done"));
    let node = TestNode::start(&TestNode::config(&origin, "", other)).await;
    let on_other = node.client().clone().authority("other.example");
    node.get("/a").await.assert_stored();
    on_other.get("/a").await.assert_stored();
    on_other.ask(Method::POST, "/write").content("x").send().await.assert_status(200);
    on_other.get("/a").await.assert_forwarded("uri-miss");
    node.get("/a").await.assert_hit();
}

/// More keys than can be kept: never silently cut.
#[tokio::test]
async fn an_overflow_of_keys_is_said() {
    let many = (0..257).map(|number| format!("k{number}")).collect::<Vec<_>>().join(" ");
    let origin = FakeOrigin::serving("/a", ok("v").cache_control("max-age=600").surrogate_keys(&many)).await;
    let overflow = Some("surrogate-keys-overflow");
    let counted = "brim_surrogate_keys_cut_total{site=\"test\"} 1";

    let node = TestNode::in_front_of(&origin).await;
    let answer = node.get("/a").await;
    answer.assert_not_stored();
    assert_eq!(answer.cache_status().detail.as_deref(), overflow);
    assert!(node.admin(Method::GET, "/metrics").send().await.content().contains(counted));

    let node = TestNode::with_route(&origin, "surrogate_keys_overflow = \"cut\"").await;
    let answer = node.get("/a").await;
    answer.assert_stored();
    assert_eq!(answer.cache_status().detail.as_deref(), overflow);
    assert!(node.admin(Method::GET, "/metrics").send().await.content().contains(counted));
    node.get("/a").await.assert_hit();
    assert_eq!(purge_key(&node, "k256").await, 0, "the one that did not fit");
    assert_eq!(purge_key(&node, "k255").await, 1);
}

/// A 304 may bring other keys; those of the route stay.
#[tokio::test]
async fn a_validation_brings_new_keys() {
    let origin = FakeOrigin::start().await;
    origin.serve_each(
        "/a",
        [
            ok("v").cache_control("max-age=10").etag("\"1\"").surrogate_keys("old"),
            brim_tests::not_modified().cache_control("max-age=600").etag("\"1\"").surrogate_keys("new"),
        ],
    );
    let node = TestNode::with_route(&origin, "surrogate_keys = [\"route\"]").await;
    node.get("/a").await.assert_stored();
    node.clock().advance(Duration::from_secs(11));
    assert_eq!(node.get("/a").await.cache_status().fwd_status, Some(304));
    assert_eq!(purge_key(&node, "old").await, 0);
    node.get("/a").await.assert_hit();
    for key in ["new", "route"] {
        let dry = node.admin(Method::POST, "/v1/purges").json(&json!({ "surrogate_keys": [key], "dry_run": true }));
        assert_eq!(dry.send().await.json()["matched"], 1, "{key}");
    }
}

/// A fill that began before a purge of a key which only its end tells: delivered to its clients, joined by nobody after the
/// purge, never stored.
#[tokio::test]
async fn a_purge_of_a_key_that_is_not_known_yet_holds() {
    let gate = Gate::new();
    let origin = FakeOrigin::start().await;
    origin.serve_each(
        "/p",
        [
            ok("").cache_control("max-age=600").then(r#"{"items": [{"id": "#).then_wait(&gate).then("7}]}"),
            ok(r#"{"items": [{"id": 7, "new": true}]}"#).cache_control("max-age=600"),
        ],
    );
    let node = TestNode::start(&TestNode::config(&origin, "", ITEMS)).await;
    let first = tokio::spawn(node.client().clone().ask(Method::GET, "/p").send());
    origin.wait_for_requests("/p", 1).await;
    let mut early = node.ask(Method::GET, "/p").start().await.expect("it joins");
    let begun = early.at_least(5).await.expect("what has arrived");
    assert_eq!(purge_key(&node, "product:7").await, 0, "nothing is stored yet");
    let late = node.get("/p").await;
    assert!(late.content().contains("new"), "who comes after the purge gets nothing from before: {}", late.head());
    gate.open();
    let first = first.await.expect("the task ends");
    assert_eq!(first.content(), r#"{"items": [{"id": 7}]}"#, "{}", first.head());
    let rest = early.rest().await.expect("the rest");
    assert_eq!([&begun[..], &rest.content[..]].concat(), br#"{"items": [{"id": 7}]}"#);
    node.settled().await;
    let after = node.get("/p").await;
    assert!(after.content().contains("new"), "{}", after.head());
}

const ITEMS: &str = "[sites.routes.items]\nlist = \"/items\"\nid = \"/id\"\ntype = \"product\"";

/// What a write purges besides its target, by configuration.
#[tokio::test]
async fn a_write_purges_what_its_route_says() {
    let origin = FakeOrigin::start().await;
    for path in ["/keyed", "/exact?x=7", "/exact?x=8", "/lists/1", "/other"] {
        origin.serve(
            path,
            ok(path).cache_control("max-age=600").surrogate_keys(if path == "/keyed" { "things" } else { "no" }),
        );
    }
    for (path, code) in [("/things/7", 200), ("/things/8", 422), ("/things/9", 303)] {
        origin.answer(path, move |_| status(code));
    }
    let writes = "[sites.routes.writes]\nsurrogate_keys = [\"{path.1}\"]\nurls = [\"/exact?x={path.2}\"]\n\
                  prefixes = [\"/lists/\"]";
    let node = TestNode::start(&TestNode::config(&origin, "", writes)).await;
    let paths = ["/keyed", "/exact?x=7", "/exact?x=8", "/lists/1", "/other"];
    for path in paths {
        node.get(path).await.assert_stored();
    }
    node.ask(Method::POST, "/things/8").content("x").send().await.assert_status(422);
    for path in paths {
        node.get(path).await.assert_hit();
    }
    node.ask(Method::POST, "/things/7").content("x").send().await.assert_status(200);
    for (path, is_hit) in paths.into_iter().zip([false, false, true, false, true]) {
        assert_eq!(node.get(path).await.cache_status().hit, is_hit, "{path}");
    }
    node.ask(Method::DELETE, "/things/9").send().await.assert_status(303);
    for (path, is_hit) in paths.into_iter().zip([false, true, true, false, true]) {
        assert_eq!(node.get(path).await.cache_status().hit, is_hit, "{path}");
    }
    let receipts = node.admin(Method::GET, "/v1/purges").send().await;
    assert!(receipts.content().contains("\"by\":\"write\""), "{}", receipts.content());
}

/// After a soft purge what is asked for is validated without being asked for again, the most popular first.
#[tokio::test]
async fn a_soft_purge_refreshes_what_is_popular_first() {
    let origin = FakeOrigin::start().await;
    for path in ["/never", "/rare", "/often", "/sometimes"] {
        let reply =
            ok(path).cache_control("max-age=600").etag("\"1\"").vary("Accept-Language").answering_conditionals();
        origin.serve(path, reply);
    }
    let node = TestNode::in_front_of(&origin).await;
    for (path, hits) in [("/never", 0), ("/rare", 1), ("/often", 9), ("/sometimes", 4)] {
        node.get_with(path, "accept-language", "de").await.assert_stored();
        for _ in 0..hits {
            node.get_with(path, "accept-language", "de").await.assert_hit();
        }
    }
    let before = origin.all_requests().len();
    node.purge(json!({ "site": "test", "soft": true })).await;
    eventually("the three to be validated", async || (origin.all_requests().len() >= before + 3).then_some(())).await;
    let validations: Vec<_> = origin.all_requests().into_iter().skip(before).collect();
    let order: Vec<_> = validations.iter().map(|request| request.path().to_owned()).collect();
    assert_eq!(order, ["/often", "/sometimes", "/rare"]);
    for request in &validations {
        let (condition, language) = (request.header("if-none-match"), request.header("accept-language"));
        assert_eq!((condition, language), (Some("\"1\""), Some("de")));
    }
    node.settled().await;
    let fresh = node.get_with("/often", "accept-language", "de").await;
    fresh.assert_hit();
    assert_eq!(fresh.cache_status().detail, None, "{}", fresh.head());
    let stale = node.get_with("/never", "accept-language", "de").await;
    assert_eq!(stale.cache_status().detail.as_deref(), Some("soft-purged"), "the rest on demand");
}

/// An origin that fails is left alone after a few tries: the rest is validated on demand, and other purges have their turn.
#[tokio::test]
async fn a_refresh_gives_up_on_an_origin_that_fails() {
    let origin = FakeOrigin::start().await;
    let paths: Vec<String> = (0..6).map(|number| format!("/{number}")).collect();
    let down = Arc::new(AtomicBool::new(false));
    for path in &paths {
        let (down, reply) = (Arc::clone(&down), ok(path.clone()).cache_control("max-age=600"));
        let is_down = move || down.load(Ordering::Relaxed);
        origin.answer(path, move |_| if is_down() { status(503) } else { reply.clone() });
    }
    let node = TestNode::in_front_of(&origin).await;
    for path in &paths {
        node.get(path).await.assert_stored();
        node.get(path).await.assert_hit();
    }
    down.store(true, Ordering::Relaxed);
    node.purge(json!({ "site": "test", "soft": true })).await;
    eventually("it gives up", async || {
        let metrics = node.admin(Method::GET, "/metrics").send().await;
        let has =
            |outcome: &str| metrics.content().contains(&format!("brim_refreshes_total{{outcome=\"{outcome}\"}} 3"));
        (has("failed") && has("left")).then_some(())
    })
    .await;
    assert_eq!(origin.all_requests().len(), paths.len() + 3);
}

/// Keys that one client's request gave are not lost by the validation of another's: of the same response, or of the variant that a
/// 304 names for another one.
#[tokio::test]
async fn a_validation_by_another_client_takes_no_key_away() {
    let origin = FakeOrigin::start().await;
    let reply = |text: &'static str| ok(text).cache_control("max-age=10").etag("\"1\"").answering_conditionals();
    origin.serve("/shared", reply("shared"));
    origin.serve("/apart", reply("apart").vary("X-Tenant"));
    let node = TestNode::with_route(&origin, "surrogate_keys = [\"tenant:{header.x-tenant}\"]").await;
    for path in ["/shared", "/apart"] {
        node.get_with(path, "x-tenant", "acme").await.assert_stored();
    }
    node.clock().advance(Duration::from_secs(11));
    for path in ["/shared", "/apart"] {
        let other = node.get_with(path, "x-tenant", "globex").await;
        assert_eq!(other.cache_status().fwd_status, Some(304), "{path}: {}", other.head());
    }
    node.settled().await;
    let receipt = node.purge(json!({ "surrogate_keys": ["tenant:acme"] })).await;
    assert!(receipt["matched"].as_u64() >= Some(2), "{receipt}");
    for path in ["/shared", "/apart"] {
        node.get_with(path, "x-tenant", "acme").await.assert_forwarded("uri-miss");
    }
}

/// A request that is made up of what is stored would get fewer keys than a client's: left to be validated on demand.
#[tokio::test]
async fn what_a_refresh_could_not_tag_is_left() {
    let reply = ok("v").cache_control("max-age=600").etag("\"1\"").answering_conditionals();
    let origin = FakeOrigin::serving("/a", reply).await;
    let node = TestNode::with_route(&origin, "surrogate_keys = [\"tenant:{header.x-tenant}\"]").await;
    node.get_with("/a", "x-tenant", "acme").await.assert_stored();
    node.get_with("/a", "x-tenant", "acme").await.assert_hit();
    node.purge(json!({ "site": "test", "soft": true })).await;
    eventually("it to be left", async || {
        let metrics = node.admin(Method::GET, "/metrics").send().await;
        metrics.content().contains("brim_refreshes_total{outcome=\"left\"} 1").then_some(())
    })
    .await;
    assert_eq!(origin.all_requests().len(), 1);
}

/// What a POST shows and a write has changed while it was under way is not kept, though only its content says what it shows.
#[tokio::test]
async fn a_post_is_not_kept_past_a_purge_by_a_key_of_its_content() {
    let gate = Gate::new();
    let origin = FakeOrigin::start().await;
    let held = gate.clone();
    origin.answer("/items", move |request| {
        let page = || ok(r#"{"items": [{"id": 7, "v": 1}]}"#).cache_control("max-age=600");
        match request.method.as_str() {
            "POST" => page().header("content-location", "/items").held_by(&held),
            _ => ok(r#"{"items": [{"id": 7, "v": 2}]}"#).cache_control("max-age=600"),
        }
    });
    origin.answer("/items/7", |_| status(204));
    let config = TestNode::config(&origin, "", ITEMS).replace("path = \"/\"", "path = \"/items\"");
    let node = TestNode::start(&config).await;
    let posting = tokio::spawn(node.client().clone().ask(Method::POST, "/items").content("x").send());
    origin.wait_for_requests("/items", 1).await;
    node.ask(Method::PUT, "/items/7").content("x").send().await.assert_status(204);
    gate.open();
    posting.await.expect("the task ends").assert_status(200);
    node.settled().await;
    let page = node.get("/items").await;
    assert_eq!(page.json()["items"][0]["v"], 2, "{}", page.head());
}
