//! What is answered from the store, what is fetched, and what is said about it.

use std::time::Duration;

use brim_tests::{FakeOrigin, Gate, TestNode, eventually, not_modified, ok, status};
use http::Method;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// RFC 9111 §4.2, RFC 9211: a fresh response answers without the origin, with its age and what is left of its lifetime.
#[tokio::test]
async fn a_fresh_response_is_served_from_the_store() {
    let origin = FakeOrigin::serving("/a", ok("v1").cache_control("max-age=60")).await;
    let node = TestNode::in_front_of(&origin).await;
    let first = node.get("/a").await;
    first.assert_forwarded("uri-miss").assert_stored().assert_content("v1");
    assert_eq!(first.cache_status().fwd_status, Some(200));
    node.clock().advance(seconds(10));
    let second = node.get("/a").await;
    second.assert_hit().assert_content("v1");
    assert_eq!((second.age(), second.cache_status().ttl), (Some(10), Some(50)));
    origin.assert_requests("/a", 1).await;
}

/// RFC 9111 §4.3: a stale response is confirmed with its validator, and fresh again.
#[tokio::test]
async fn a_stale_response_is_validated_and_freshened() {
    let origin = FakeOrigin::start().await;
    origin.serve_each(
        "/a",
        [
            ok("v1").cache_control("max-age=10").etag("\"1\"").header("x-n", "old"),
            not_modified().cache_control("max-age=20").etag("\"1\"").header("x-n", "new"),
        ],
    );
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_stored();
    node.clock().advance(seconds(11));
    let validated = node.get("/a").await;
    validated.assert_forwarded("stale").assert_content("v1").assert_status(200);
    assert_eq!(validated.cache_status().fwd_status, Some(304));
    assert_eq!(validated.header("x-n"), Some("new"));
    node.clock().advance(seconds(15));
    node.get("/a").await.assert_hit();
    let requests = origin.requests("/a");
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].header("if-none-match"), Some("\"1\""));
}

/// RFC 9111 §4.2.2: a tenth of the time since `Last-Modified`, where the origin gives no lifetime.
#[tokio::test]
async fn a_lifetime_is_estimated_from_last_modified() {
    let origin = FakeOrigin::start().await;
    origin.serve("/a", ok("v1").last_modified("Mon, 01 Jan 2024 00:00:00 GMT"));
    origin.serve("/b", ok("v1"));
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_stored();
    node.get("/a").await.assert_hit();
    node.get("/b").await.assert_not_stored();
    let again = node.get("/b").await;
    again.assert_forwarded("uri-miss").assert_not_stored();
    assert!(again.cache_status().detail.is_some(), "the refusal has a reason: {}", again.head());
}

/// RFC 9111 §4.1: the values of the nominated fields select; several responses of a key live beside one another.
#[tokio::test]
async fn variants_are_kept_apart() {
    let origin = FakeOrigin::start().await;
    origin.answer("/a", |request| {
        let language = request.header("accept-language").unwrap_or("none").to_owned();
        ok(language).cache_control("max-age=60").vary("Accept-Language")
    });
    let node = TestNode::in_front_of(&origin).await;
    node.get_with("/a", "accept-language", "de").await.assert_forwarded("uri-miss").assert_content("de");
    node.get_with("/a", "accept-language", "en").await.assert_forwarded("vary-miss").assert_content("en");
    node.get("/a").await.assert_forwarded("vary-miss").assert_content("none");
    node.get_with("/a", "accept-language", "de").await.assert_hit().assert_content("de");
    node.get_with("/a", "accept-language", "en").await.assert_hit().assert_content("en");
    origin.assert_requests("/a", 3).await;
}

/// RFC 9110 §13: a client's condition is answered from the store.
#[tokio::test]
async fn a_client_that_has_it_gets_304() {
    let origin = FakeOrigin::serving("/a", ok("v1").cache_control("max-age=60").etag("\"1\"")).await;
    let node = TestNode::in_front_of(&origin).await;
    let first = node.get_with("/a", "if-none-match", "\"1\"").await;
    first.assert_status(304).assert_content("");
    assert_eq!(first.header("etag"), Some("\"1\""));
    // Its own content was not read: the fill may still be under way.
    eventually("it is stored", async || node.get("/a").await.cache_status().hit.then_some(())).await;
    node.get_with("/a", "if-none-match", "W/\"1\"").await.assert_status(304).assert_hit();
    node.get_with("/a", "if-none-match", "\"2\"").await.assert_status(200).assert_hit().assert_content("v1");
    let requests = origin.requests("/a");
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].header("if-none-match"), None, "what fills the store is fetched whole");
}

/// RFC 9110 §14: a part of a stored response.
#[tokio::test]
async fn a_range_is_cut_from_the_stored_response() {
    let origin = FakeOrigin::serving("/a", ok("0123456789").cache_control("max-age=60").etag("\"1\"")).await;
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_stored();
    let part = node.get_with("/a", "range", "bytes=2-4").await;
    part.assert_status(206).assert_hit().assert_content("234");
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    assert_eq!(part.header("content-length"), Some("3"));
    node.get_with("/a", "range", "bytes=-3").await.assert_status(206).assert_content("789");
    let beyond = node.get_with("/a", "range", "bytes=20-").await;
    beyond.assert_status(416);
    assert_eq!(beyond.header("content-range"), Some("bytes */10"));
}

/// A HEAD is answered from a stored GET, with its length and without its content.
#[tokio::test]
async fn head_is_answered_from_a_stored_get() {
    let origin = FakeOrigin::serving("/a", ok("0123456789").cache_control("max-age=60")).await;
    let node = TestNode::in_front_of(&origin).await;
    node.ask(Method::HEAD, "/a").send().await.assert_forwarded("uri-miss").assert_not_stored();
    node.get("/a").await.assert_stored();
    let head = node.ask(Method::HEAD, "/a").send().await;
    head.assert_hit().assert_content("");
    assert_eq!(head.header("content-length"), Some("10"));
    origin.assert_requests("/a", 2).await;
}

/// RFC 9111 §4.3.5: a HEAD that describes the stored response freshens it; one that describes another takes it out.
#[tokio::test]
async fn a_head_freshens_or_takes_out_what_is_stored() {
    let origin = FakeOrigin::start().await;
    for (path, tag) in [("/same", "\"1\""), ("/other", "\"2\"")] {
        let first = ok("0123456789").cache_control("max-age=10").etag("\"1\"");
        let head = ok("0123456789").cache_control("max-age=60").etag(tag);
        origin.serve_each(path, [first, head, ok("new").cache_control("max-age=60")]);
    }
    let node = TestNode::in_front_of(&origin).await;
    for path in ["/same", "/other"] {
        node.get(path).await.assert_stored();
    }
    node.clock().advance(seconds(11));
    for path in ["/same", "/other"] {
        node.ask(Method::HEAD, path).send().await.assert_forwarded("stale");
    }
    node.get("/same").await.assert_hit().assert_content("0123456789");
    node.get("/other").await.assert_forwarded("uri-miss").assert_content("new");
}

/// RFC 9111 §3: each refusal to store has its reason in `Cache-Status`.
#[tokio::test]
async fn a_refusal_to_store_says_why() {
    let origin = FakeOrigin::start().await;
    let replies = [
        ("/no-store", ok("x").cache_control("no-store, max-age=60")),
        ("/private", ok("x").cache_control("private, max-age=60")),
        ("/cookie", ok("x").cache_control("max-age=60").header("set-cookie", "a=b")),
        ("/star", ok("x").cache_control("max-age=60").vary("*")),
        ("/nothing", ok("x")),
        ("/error", status(500)),
    ];
    for (path, reply) in replies {
        origin.serve(path, reply);
    }
    let node = TestNode::in_front_of(&origin).await;
    let mut details = std::collections::BTreeSet::new();
    for path in ["/no-store", "/private", "/cookie", "/star", "/nothing", "/error"] {
        for _ in 0..2 {
            let answer = node.get(path).await;
            answer.assert_forwarded("uri-miss").assert_not_stored();
            let detail = answer.cache_status().detail;
            details.insert(detail.unwrap_or_else(|| panic!("{path}: no reason in {}", answer.head())));
        }
    }
    assert!(details.len() >= 5, "the reasons differ: {details:?}");
}

/// RFC 9111 §5.2.2.4, §5.2.2.7: what names fields keeps these out of the store, not from the client that fetched them.
#[tokio::test]
async fn qualified_directives_withhold_fields_from_others() {
    for directive in ["no-cache", "private"] {
        let origin = FakeOrigin::start().await;
        let control = format!("max-age=60, {directive}=\"x-mine, x-other\"");
        origin.serve("/a", ok("v1").cache_control(&control).header("x-mine", "1").header("x-all", "2"));
        let node = TestNode::in_front_of(&origin).await;
        let first = node.get("/a").await;
        first.assert_stored();
        assert_eq!((first.header("x-mine"), first.header("x-all")), (Some("1"), Some("2")), "{directive}");
        let second = node.get("/a").await;
        second.assert_hit();
        assert_eq!((second.header("x-mine"), second.header("x-all")), (None, Some("2")), "{directive}");
    }
}

/// RFC 9111 §3.5: what was fetched with `Authorization` is for its user, unless the origin says otherwise.
#[tokio::test]
async fn a_response_to_a_user_is_not_given_to_others() {
    let origin = FakeOrigin::start().await;
    origin.serve("/mine", ok("secret").cache_control("max-age=60"));
    origin.serve("/all", ok("shared").cache_control("public, max-age=60"));
    let node = TestNode::in_front_of(&origin).await;
    node.get_with("/mine", "authorization", "Bearer a").await.assert_not_stored();
    node.get("/mine").await.assert_forwarded("uri-miss");
    node.get_with("/all", "authorization", "Bearer a").await.assert_stored();
    node.get("/all").await.assert_hit();
}

/// RFC 9111 §5.2.1: what a client may ask of the cache.
#[tokio::test]
async fn request_directives_are_followed() {
    let origin = FakeOrigin::serving("/a", ok("v1").cache_control("max-age=60")).await;
    let node = TestNode::in_front_of(&origin).await;
    let refused = node.get_with("/a", "cache-control", "only-if-cached").await;
    refused.assert_status(504);
    let said = refused.cache_status();
    assert_eq!((said.hit, said.fwd, said.detail.as_deref()), (false, None, Some("only-if-cached")));
    node.get_with("/a", "cache-control", "no-store").await.assert_not_stored();
    node.get("/a").await.assert_stored();
    node.clock().advance(seconds(5));
    node.get_with("/a", "cache-control", "max-age=4").await.assert_forwarded("request");
    node.get_with("/a", "cache-control", "no-cache").await.assert_forwarded("request").assert_stored();
    node.get_with("/a", "cache-control", "only-if-cached").await.assert_hit();
}

/// RFC 9111 §4: one fetch for all who wait for the same; none of them is judged stale again.
#[tokio::test]
async fn requests_for_one_key_share_one_fetch() {
    let gate = Gate::new();
    let origin = FakeOrigin::serving("/a", ok("v1").cache_control("max-age=1").held_by(&gate)).await;
    let node = TestNode::in_front_of(&origin).await;
    let client = node.client().clone();
    let asking = tokio::spawn(async move { client.get_many("/a", 100).await });
    origin.wait_for_requests("/a", 1).await;
    gate.open();
    let answers = asking.await.expect("all answered");
    assert!(answers.iter().all(|answer| answer.content() == "v1"));
    assert!(answers.iter().any(|answer| answer.cache_status().collapsed));
    origin.assert_requests("/a", 1).await;
}

/// Those who wait get the content while it arrives, not after its end.
#[tokio::test]
async fn waiters_follow_a_growing_response() {
    let rest = Gate::new();
    let reply = ok("begin ").then_wait(&rest).then("end").cache_control("max-age=60").chunked();
    let origin = FakeOrigin::serving("/a", reply).await;
    let node = TestNode::in_front_of(&origin).await;
    let mut first = node.ask(Method::GET, "/a").start().await.expect("a head");
    let mut second = node.ask(Method::GET, "/a").start().await.expect("a head");
    assert_eq!(first.at_least(6).await.expect("content"), "begin ");
    assert_eq!(second.at_least(6).await.expect("content"), "begin ");
    rest.open();
    assert_eq!(first.rest().await.expect("whole").content(), "end");
    assert_eq!(second.rest().await.expect("whole").content(), "end");
    origin.assert_requests("/a", 1).await;
}

/// A client that leaves takes nothing from the others.
#[tokio::test]
async fn a_fill_survives_the_client_that_caused_it() {
    let gate = Gate::new();
    let origin = FakeOrigin::serving("/a", ok("v1").cache_control("max-age=60").held_by(&gate)).await;
    let node = TestNode::in_front_of(&origin).await;
    let leaving = tokio::spawn(node.ask(Method::GET, "/a").send());
    origin.wait_for_requests("/a", 1).await;
    leaving.abort();
    let client = node.client().clone();
    let staying = tokio::spawn(async move { client.get("/a").await });
    gate.open();
    staying.await.expect("answered").assert_content("v1");
    node.get("/a").await.assert_hit();
    origin.assert_requests("/a", 1).await;
}

/// What cannot be shared is not waited for a second time: the waiters go side by side.
#[tokio::test]
async fn waiters_of_a_private_response_go_side_by_side() {
    let gate = Gate::new();
    let origin = FakeOrigin::serving("/a", ok("mine").cache_control("private").held_by(&gate)).await;
    let node = TestNode::in_front_of(&origin).await;
    let client = node.client().clone();
    let asking = tokio::spawn(async move { client.get_many("/a", 10).await });
    origin.wait_for_requests("/a", 1).await;
    gate.open();
    let answers = asking.await.expect("all answered");
    assert!(answers.iter().all(|answer| answer.content() == "mine" && !answer.cache_status().collapsed));
    origin.assert_requests("/a", 10).await;
}

/// One client's no-store or Authorization says nothing of the others: they share one fetch.
#[tokio::test]
async fn a_client_cannot_switch_collapsing_off_for_others() {
    for (name, value) in [("cache-control", "no-store"), ("authorization", "Bearer x")] {
        let gate = Gate::new();
        let origin = FakeOrigin::serving("/a", ok("v1").cache_control("max-age=60").held_by(&gate)).await;
        let node = TestNode::in_front_of(&origin).await;
        let first = tokio::spawn(node.ask(Method::GET, "/a").header(name, value).send());
        origin.wait_for_requests("/a", 1).await;
        let client = node.client().clone();
        let others = tokio::spawn(async move { client.get_many("/a", 20).await });
        origin.wait_for_requests("/a", 2).await;
        gate.open();
        first.await.expect("answered").assert_not_stored();
        assert!(others.await.expect("answered").iter().all(|answer| answer.content() == "v1"));
        origin.assert_requests("/a", 2).await;
    }
}

/// An origin in trouble gets one validation, not one from everybody who holds the same stale response.
#[tokio::test]
async fn a_failing_validation_is_shared() {
    let gate = Gate::new();
    let origin = FakeOrigin::start().await;
    origin.serve_each(
        "/a",
        [ok("v1").cache_control("max-age=1, stale-if-error=600").etag("\"1\""), status(503).held_by(&gate)],
    );
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_stored();
    node.clock().advance(seconds(5));
    let client = node.client().clone();
    let asking = tokio::spawn(async move { client.get_many("/a", 20).await });
    origin.wait_for_requests("/a", 2).await;
    gate.open();
    assert!(asking.await.expect("answered").iter().all(|answer| answer.content() == "v1"));
    assert!(origin.requests("/a").len() <= 3, "{} requests", origin.requests("/a").len());
}

/// Whoever comes while a content still arrives gets what the rules make of it by then.
#[tokio::test]
async fn a_late_comer_is_not_given_a_stale_response_in_flight() {
    let rest = Gate::new();
    let origin = FakeOrigin::start().await;
    origin.serve_each(
        "/a",
        [
            ok("old ").then_wait(&rest).then("old").cache_control("max-age=1").chunked(),
            ok("new").cache_control("max-age=60"),
        ],
    );
    let node = TestNode::in_front_of(&origin).await;
    let early = node.ask(Method::GET, "/a").start().await.expect("a head");
    node.clock().advance(seconds(5));
    node.get("/a").await.assert_content("new");
    rest.open();
    assert_eq!(early.rest().await.expect("whole").content(), "old old");
}

/// What could not be shared a moment ago is forwarded as it is asked for: a condition is the origin's to answer then.
#[tokio::test]
async fn a_private_response_is_revalidated_by_its_client() {
    let origin = FakeOrigin::start().await;
    origin.serve("/a", ok("mine").cache_control("private").etag("\"1\"").answering_conditionals());
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_not_stored();
    let again = node.get_with("/a", "if-none-match", "\"1\"").await;
    again.assert_status(304).assert_forwarded("uri-miss");
    assert_eq!(again.cache_status().detail.as_deref(), Some("private"));
    assert_eq!(again.cache_status().fwd_status, Some(304), "the origin has seen the condition");
}

/// RFC 9111 §4.3.4: a 304 that names another validator confirms nothing that is stored.
#[tokio::test]
async fn a_304_for_another_validator_is_not_believed() {
    let origin = FakeOrigin::start().await;
    origin.serve_each(
        "/a",
        [
            ok("v1").cache_control("max-age=1").etag("\"1\""),
            not_modified().etag("\"2\""),
            ok("v2").cache_control("max-age=60").etag("\"2\""),
        ],
    );
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_stored();
    node.clock().advance(seconds(5));
    node.get("/a").await.assert_content("v2");
    let requests = origin.requests("/a");
    assert_eq!(requests[2].header("if-none-match"), None);
}

/// RFC 5861 §3: inside the window a stale response is served at once, and validated once however many ask.
#[tokio::test]
async fn stale_response_is_served_while_one_validation_runs() {
    let gate = Gate::new();
    let origin = FakeOrigin::start().await;
    origin.serve_each(
        "/a",
        [
            ok("v1").cache_control("max-age=10, stale-while-revalidate=30"),
            ok("v2").cache_control("max-age=10, stale-while-revalidate=30").held_by(&gate),
        ],
    );
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_stored();
    node.clock().advance(seconds(11));
    let answers = node.get_many("/a", 20).await;
    assert!(answers.iter().all(|answer| answer.content() == "v1" && answer.cache_status().hit));
    origin.wait_for_requests("/a", 2).await;
    gate.open();
    eventually("the new response is stored", async || (node.get("/a").await.content() == "v2").then_some(())).await;
    origin.assert_requests("/a", 2).await;
}

/// RFC 5861 §4, RFC 9111 §4.2.4: a stale response stands in for an origin that is gone, unless the response forbids it.
#[tokio::test]
async fn stale_response_stands_in_for_a_dead_origin() {
    let origin = FakeOrigin::start().await;
    origin.serve("/a", ok("v1").cache_control("max-age=10, stale-if-error=60"));
    origin.serve("/strict", ok("v1").cache_control("max-age=10, must-revalidate"));
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_stored();
    node.get("/strict").await.assert_stored();
    origin.stop();
    node.clock().advance(seconds(11));
    let stale = node.get("/a").await;
    stale.assert_status(200).assert_content("v1");
    assert!(stale.cache_status().ttl.is_some_and(|ttl| ttl < 0), "{}", stale.head());
    node.get("/strict").await.assert_status(502);
}

/// The same where the origin answers with an error, and also for a HEAD, whose forward is not collapsed.
#[tokio::test]
async fn stale_response_stands_in_for_a_failing_origin() {
    for method in [Method::GET, Method::HEAD] {
        let origin = FakeOrigin::start().await;
        origin.serve_each("/a", [ok("v1").cache_control("max-age=10, stale-if-error=60"), status(503)]);
        let node = TestNode::in_front_of(&origin).await;
        node.get("/a").await.assert_stored();
        node.clock().advance(seconds(11));
        let stale = node.ask(method, "/a").send().await;
        stale.assert_status(200).assert_forwarded("stale");
        assert_eq!(stale.cache_status().detail.as_deref(), Some("stale-if-error"), "{}", stale.head());
        node.clock().advance(seconds(60));
        node.get("/a").await.assert_status(503);
    }
}

/// RFC 9110 §7.6.1: what belongs to one hop ends at it; `Via` and `Forwarded` tell of this one.
#[tokio::test]
async fn fields_of_one_hop_end_here() {
    let origin = FakeOrigin::start().await;
    origin.serve(
        "/a",
        ok("v1").cache_control("max-age=60").header("keep-alive", "timeout=5").header("proxy-authenticate", "Basic"),
    );
    let node = TestNode::in_front_of(&origin).await;
    let asked = node
        .ask(Method::GET, "/a")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("x-original-url", "/admin");
    let answer = asked.header("x-forwarded-for", "203.0.113.9").send().await;
    answer.assert_stored();
    for answer in [answer, node.get("/a").await] {
        assert_eq!(answer.header("keep-alive"), None);
        assert_eq!(answer.header("proxy-authenticate"), None);
        assert!(answer.header("via").is_some_and(|via| via.contains("brim")), "{}", answer.head());
    }
    let request = origin.requests("/a").remove(0);
    assert_eq!(request.header("x-hop"), None);
    assert_eq!(request.header("x-original-url"), None, "a field that makes another request of it is not forwarded");
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"), "the node says who asked, not the client");
    assert!(request.header("via").is_some_and(|via| via.contains("brim")));
    assert!(request.header("forwarded").is_some_and(|forwarded| forwarded.contains("for=")));
}

/// A content that breaks off is not stored, and the client does not take it for whole.
#[tokio::test]
async fn a_content_cut_short_is_not_stored() {
    let origin = FakeOrigin::start().await;
    origin.serve_each(
        "/a",
        [
            ok("begin").declared_length(100).then_abort().cache_control("max-age=60"),
            ok("whole").cache_control("max-age=60"),
        ],
    );
    let node = TestNode::in_front_of(&origin).await;
    assert!(node.ask(Method::GET, "/a").try_send().await.is_err(), "a broken content is an error");
    node.get("/a").await.assert_content("whole");
}

/// RFC 9111 §4.4: a write makes what it may have changed unusable.
#[tokio::test]
async fn a_write_invalidates_what_it_names() {
    let origin = FakeOrigin::start().await;
    for path in ["/a", "/b", "/c"] {
        origin.serve(path, ok("v").cache_control("max-age=60"));
    }
    let node = TestNode::in_front_of(&origin).await;
    for path in ["/a", "/b", "/c"] {
        node.get(path).await.assert_stored();
    }
    origin.serve("/a", ok("written").header("location", "/b"));
    let written = node.ask(Method::POST, "/a").content("x").send().await;
    written.assert_forwarded("method");
    origin.serve("/a", ok("v2").cache_control("max-age=60"));
    let after = node.get("/a").await;
    after.assert_forwarded("uri-miss").assert_content("v2");
    assert_eq!(after.cache_status().detail.as_deref(), Some("purged"));
    node.get("/b").await.assert_forwarded("uri-miss");
    node.get("/c").await.assert_hit();
}

/// A client that does not wait for the answer to its write has written all the same.
#[tokio::test]
async fn an_abandoned_write_invalidates_too() {
    let gate = Gate::new();
    let origin = FakeOrigin::start().await;
    origin.serve_each(
        "/a",
        [ok("v1").cache_control("max-age=600"), ok("written").held_by(&gate), ok("v2").cache_control("max-age=600")],
    );
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_stored();
    let leaving = tokio::spawn(node.ask(Method::POST, "/a").content("x").send());
    origin.wait_for_contents("/a", 2).await;
    leaving.abort();
    assert!(leaving.await.is_err(), "it left before its answer");
    gate.open();
    eventually("the write shows", async || (node.get("/a").await.content() == "v2").then_some(())).await;
}

/// DESIGN: a GET with content goes past the cache; its content is not in the key.
#[tokio::test]
async fn a_get_with_content_goes_past_the_cache() {
    let origin = FakeOrigin::serving("/a", ok("v1").cache_control("max-age=60")).await;
    let node = TestNode::in_front_of(&origin).await;
    let fat = node.ask(Method::GET, "/a").content("q=evil").send().await;
    fat.assert_forwarded("bypass").assert_not_stored();
    assert_eq!(fat.cache_status().detail.as_deref(), Some("request-content"));
    node.get("/a").await.assert_forwarded("uri-miss");
}

/// RFC 9110 §7.6.1: what `Connection` takes from the origin's sight, no `Vary` goes by. Else one client could have stored, under the
/// name of a field, what the origin answered to a request without it.
#[tokio::test]
async fn connection_cannot_hide_a_nominated_field_from_the_origin_alone() {
    let origin = FakeOrigin::start().await;
    origin.answer("/a", |request| {
        let tenant = request.header("x-tenant").unwrap_or("nobody").to_owned();
        ok(tenant).cache_control("max-age=60").vary("X-Tenant")
    });
    let node = TestNode::in_front_of(&origin).await;
    let hiding = node.ask(Method::GET, "/a").header("x-tenant", "red").header("connection", "keep-alive, X-Tenant");
    hiding.send().await.assert_stored().assert_content("nobody");
    node.get_with("/a", "x-tenant", "red").await.assert_forwarded("vary-miss").assert_content("red");
    node.get("/a").await.assert_hit().assert_content("nobody");
}

/// A cookie that comes with a 304 is for the client that asked (RFC 9111 §4.3.4 stores what a response's own rules allow).
#[tokio::test]
async fn a_cookie_of_a_304_is_for_one_client() {
    let origin = FakeOrigin::start().await;
    let confirmed = not_modified().cache_control("max-age=60").etag("\"1\"").header("set-cookie", "a=1");
    origin.serve_each("/a", [ok("v1").cache_control("max-age=10").etag("\"1\""), confirmed]);
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_stored();
    node.clock().advance(seconds(11));
    let asking = node.get("/a").await;
    asking.assert_forwarded("stale").assert_content("v1");
    assert_eq!(asking.header("set-cookie"), Some("a=1"));
    let next = node.get("/a").await;
    next.assert_hit();
    assert_eq!(next.header("set-cookie"), None);
}
