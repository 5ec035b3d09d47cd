//! What other methods than GET leave in the store and find there: QUERY, POST, and writes that name more than their own URI.

use std::time::Duration;

use brim_tests::{Ask, FakeOrigin, TestNode, not_modified, ok, status};
use http::Method;

fn query(node: &TestNode, content: &str) -> Ask {
    let method = Method::from_bytes(b"QUERY").expect("a method");
    node.ask(method, "/search").header("content-type", "application/json").content(content.to_owned())
}

/// An origin that answers each question with itself.
async fn echo() -> FakeOrigin {
    let origin = FakeOrigin::start().await;
    origin.answer_content("/search", |request| {
        let question = String::from_utf8_lossy(&request.content).into_owned();
        let kind = request.header("content-type").unwrap_or("none").to_owned();
        ok(format!("{} {kind} {question}", request.method))
            .cache_control("max-age=60")
            .etag("\"1\"")
            .answering_conditionals()
    });
    origin
}

/// RFC 10008: a QUERY is answered from the store where its content is the same.
#[tokio::test]
async fn a_query_is_keyed_by_its_content() {
    let origin = echo().await;
    let node = TestNode::in_front_of(&origin).await;
    let first = query(&node, "{\"a\":1}").send().await;
    first.assert_forwarded("uri-miss").assert_stored().assert_content("QUERY application/json {\"a\":1}");
    query(&node, "{\"a\":1}").send().await.assert_hit().assert_content(first.content());
    query(&node, "{\"a\":1}").chunked().send().await.assert_hit().assert_content(first.content());
    query(&node, "{\"a\":2}")
        .send()
        .await
        .assert_forwarded("uri-miss")
        .assert_content("QUERY application/json {\"a\":2}");
    query(&node, "").send().await.assert_forwarded("uri-miss").assert_content("QUERY application/json ");
    node.get("/search").await.assert_forwarded("uri-miss").assert_content("GET none ");
    let other_type = node.ask(Method::from_bytes(b"QUERY").unwrap(), "/search").header("content-type", "text/plain");
    other_type
        .content("{\"a\":1}")
        .send()
        .await
        .assert_forwarded("uri-miss")
        .assert_content("QUERY text/plain {\"a\":1}");
    let requests = origin.requests("/search");
    assert_eq!(requests.len(), 5);
    assert_eq!(requests[0].header("content-length"), Some("7"));
}

/// A stale answer to a QUERY is validated with the same question; a client's own condition is answered.
#[tokio::test]
async fn a_query_is_validated_with_its_content() {
    let origin = echo().await;
    let node = TestNode::in_front_of(&origin).await;
    query(&node, "q").send().await.assert_stored();
    query(&node, "q").header("if-none-match", "\"1\"").send().await.assert_status(304).assert_hit();
    node.clock().advance(Duration::from_secs(61));
    let validated = query(&node, "q").send().await;
    validated.assert_forwarded("stale").assert_content("QUERY application/json q");
    assert_eq!(validated.cache_status().fwd_status, Some(304));
    let requests = origin.wait_for_contents("/search", 2).await;
    assert_eq!((&requests[1].content[..], requests[1].header("if-none-match")), (&b"q"[..], Some("\"1\"")));
}

/// More content than is read for a key: past the cache, and whole.
#[tokio::test]
async fn a_long_query_goes_past_the_cache() {
    let origin = echo().await;
    let config = TestNode::config(&origin, "", "").replace("[listen]\n", "[listen]\nquery_content_max = \"10B\"\n");
    let node = TestNode::start(&config).await;
    query(&node, "0123456789").send().await.assert_stored();
    query(&node, "0123456789").send().await.assert_hit();
    for _ in 0..2 {
        let long = query(&node, "01234567890").send().await;
        long.assert_forwarded("bypass").assert_not_stored().assert_content("QUERY application/json 01234567890");
        assert_eq!(long.cache_status().detail.as_deref(), Some("request-content"));
    }
}

/// A QUERY that goes past the cache for another reason than its length takes its content with it.
#[tokio::test]
async fn a_query_past_the_cache_keeps_its_content() {
    let origin = echo().await;
    let node = TestNode::in_front_of(&origin).await;
    for content in ["q", "another question"] {
        let asked = query(&node, content).header("if-match", "\"1\"").send().await;
        asked
            .assert_status(200)
            .assert_forwarded("bypass")
            .assert_content(&format!("QUERY application/json {content}"));
    }
    let chunked = query(&node, "q").header("if-match", "\"1\"").chunked().send().await;
    chunked.assert_content("QUERY application/json q");
}

/// Purges and writes take the answers to questions about a URL with it.
#[tokio::test]
async fn a_write_invalidates_what_queries_left() {
    let origin = echo().await;
    let node = TestNode::in_front_of(&origin).await;
    query(&node, "q").send().await.assert_stored();
    node.ask(Method::PUT, "/search").content("x").send().await.assert_status(200);
    query(&node, "q").send().await.assert_forwarded("uri-miss");
    node.purge(serde_json::json!({ "url": node.url("/search") })).await;
    query(&node, "q").send().await.assert_forwarded("uri-miss");
}

/// RFC 9110 §9.3.3: a POST that says what a GET would give, and for how long.
#[tokio::test]
async fn a_post_is_kept_for_later_gets() {
    let origin = FakeOrigin::start().await;
    let node = TestNode::in_front_of(&origin).await;
    let full = node.url("/full");
    let same = [("/path", "/path"), ("/full", full.as_str()), ("/q?x=1", "/q?x=1")];
    for (path, location) in same {
        origin.serve(path, ok("new").cache_control("max-age=60").etag("\"1\"").header("content-location", location));
        let posted = node.ask(Method::POST, path).content("x").send().await;
        posted.assert_status(200).assert_forwarded("method").assert_stored().assert_content("new");
        node.get(path).await.assert_hit().assert_content("new");
        node.ask(Method::HEAD, path).send().await.assert_hit();
        origin.assert_requests(path, 1).await;
    }
}

/// Each of what has to be there missing in turn. What else forbids to keep it is named.
#[tokio::test]
async fn a_post_without_lifetime_or_its_own_location_is_not_kept() {
    let origin = FakeOrigin::start().await;
    let fresh = || ok("new").cache_control("max-age=60").etag("\"1\"");
    let naming = |path: &str, control: &str| ok("new").cache_control(control).header("content-location", path);
    let cases = [
        ("/no-location", fresh(), None),
        ("/other-location", fresh().header("content-location", "/elsewhere"), None),
        ("/no-lifetime", naming("/no-lifetime", "public").last_modified("Mon, 01 Jan 2024 00:00:00 GMT"), None),
        ("/no-store", naming("/no-store", "max-age=60, no-store"), Some("no-store")),
        ("/private", naming("/private", "max-age=60, private"), Some("private")),
        ("/cookie", naming("/cookie", "max-age=60").header("set-cookie", "a=b"), Some("set-cookie")),
        ("/created", fresh().status(201).header("content-location", "/created"), None),
        ("/failed", fresh().status(500).header("content-location", "/failed"), None),
    ];
    let node = TestNode::in_front_of(&origin).await;
    for (path, reply, word) in cases {
        origin.serve(path, reply);
        let posted = node.ask(Method::POST, path).content("x").send().await;
        posted.assert_forwarded("method").assert_not_stored();
        assert_eq!(posted.cache_status().detail.as_deref(), word, "{path}");
        node.get(path).await.assert_forwarded("uri-miss");
        origin.assert_requests(path, 2).await;
    }
    let put = fresh().header("content-location", "/put");
    origin.serve("/put", put);
    node.ask(Method::PUT, "/put").content("x").send().await.assert_not_stored();
    node.get("/put").await.assert_forwarded("uri-miss");
}

/// A purge that came while the POST was under way might be about what it will show, if it names it.
#[tokio::test]
async fn a_post_that_was_purged_while_under_way_is_not_kept() {
    let purges = [
        ("/all", serde_json::json!({ "everything": true }), false),
        ("/key", serde_json::json!({ "surrogate_keys": ["mine"] }), false),
        ("/other", serde_json::json!({ "surrogate_keys": ["others"] }), true),
    ];
    let origin = FakeOrigin::start().await;
    let node = TestNode::in_front_of(&origin).await;
    for (path, purge, is_kept) in purges {
        let gate = brim_tests::Gate::new();
        let reply = ok("new").cache_control("max-age=60").header("content-location", path).surrogate_keys("mine");
        origin.serve(path, reply.held_by(&gate));
        let posting = tokio::spawn(node.ask(Method::POST, path).content("x").send());
        origin.wait_for_requests(path, 1).await;
        node.purge(purge).await;
        gate.open();
        let posted = posting.await.unwrap();
        posted.assert_status(200).assert_content("new");
        assert_eq!(posted.cache_status().stored, is_kept, "{path}");
        let read = node.get(path).await;
        assert_eq!(read.cache_status().hit, is_kept, "{path}: {}", read.head());
    }
}

/// RFC 9875 §3: a write names groups; those of its own origin are invalidated, whoever else uses their names.
#[tokio::test]
async fn a_write_invalidates_groups_of_its_own_origin() {
    let origin = FakeOrigin::start().await;
    let grouped = |groups: &str| ok("v").cache_control("max-age=60").header("cache-groups", groups);
    origin.serve("/list", grouped("\"products\", \"eu\""));
    origin.serve("/other", grouped("\"orders\""));
    origin.serve("/write", ok("done").header("cache-group-invalidation", "\"products\", \"unknown\";x=1"));
    origin.serve("/refused", status(409).header("cache-group-invalidation", "\"orders\""));
    origin.serve("/malformed", ok("done").header("cache-group-invalidation", "orders, 7"));
    let node = TestNode::in_front_of(&origin).await;
    let elsewhere = node.client().clone().authority("other.example");
    for path in ["/list", "/other"] {
        node.get(path).await.assert_stored();
        elsewhere.get(path).await.assert_stored();
    }
    node.get("/write").await.assert_status(200);
    node.get("/list").await.assert_hit();
    for path in ["/write", "/refused", "/malformed"] {
        node.ask(Method::POST, path).content("x").send().await;
    }
    node.get("/list").await.assert_forwarded("uri-miss");
    elsewhere.get("/list").await.assert_hit();
    node.get("/other").await.assert_hit();
}

/// RFC 9111 §4.1: on a variant miss the origin may name a variant that is stored already.
#[tokio::test]
async fn a_304_selects_another_variant() {
    let origin = FakeOrigin::start().await;
    origin.answer("/a", |request| {
        let (language, tag) = match request.header("accept-language") {
            Some("de" | "at") => ("de", "\"de\""),
            _ => ("en", "\"en\""),
        };
        let is_known = request.header("if-none-match").is_some_and(|tags| tags.contains(tag));
        let reply = if is_known { not_modified() } else { ok(language) };
        reply.cache_control("max-age=60").etag(tag).vary("Accept-Language").header("x-for", language)
    });
    let node = TestNode::in_front_of(&origin).await;
    let get = |language: &'static str| node.get_with("/a", "accept-language", language);
    get("de").await.assert_stored().assert_content("de");
    get("en").await.assert_forwarded("vary-miss").assert_stored().assert_content("en");
    let selected = get("at").await;
    selected.assert_status(200).assert_forwarded("vary-miss").assert_stored().assert_content("de");
    assert_eq!(selected.cache_status().fwd_status, Some(304));
    let offered = origin.requests("/a")[2].header("if-none-match").map(str::to_owned).expect("tags");
    assert_eq!(offered, "\"en\", \"de\"");
    for (language, content) in [("at", "de"), ("de", "de"), ("en", "en")] {
        get(language).await.assert_hit().assert_content(content);
    }
    origin.assert_requests("/a", 3).await;
}

/// A 304 that names none of them is no answer: the whole is fetched.
#[tokio::test]
async fn a_304_that_selects_nothing_is_not_used() {
    let origin = FakeOrigin::start().await;
    let variant =
        |content: &'static str, tag: &str| ok(content).cache_control("max-age=60").etag(tag).vary("Accept-Language");
    origin.serve_each(
        "/a",
        [variant("de", "\"de\""), not_modified().etag("\"other\"").vary("Accept-Language"), variant("en", "\"en\"")],
    );
    let node = TestNode::in_front_of(&origin).await;
    node.get_with("/a", "accept-language", "de").await.assert_stored();
    node.get_with("/a", "accept-language", "en").await.assert_status(200).assert_content("en");
    let requests = origin.requests("/a");
    assert_eq!((requests.len(), requests[2].header("if-none-match")), (3, None));
    node.get_with("/a", "accept-language", "de").await.assert_hit().assert_content("de");
}
