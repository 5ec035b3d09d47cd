//! RFC 9111 and its relatives at their edges: exact seconds, which of several responses, which fields, which switches.

use std::time::Duration;

use brim_tests::{Answer, Client, FakeOrigin, TestNode, not_modified, ok};
use http::Method;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A node whose store holds `/a`, fetched this very second with these directives and an entity tag that the origin confirms.
async fn holding(control: &str) -> (TestNode, FakeOrigin) {
    let reply = ok("v1").cache_control(control).etag("\"1\"").answering_conditionals();
    let origin = FakeOrigin::serving("/a", reply).await;
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_stored();
    node.settled().await;
    (node, origin)
}

async fn with(node: &TestNode, control: &str) -> Answer {
    let answer = match control {
        "" => node.get("/a").await,
        control => node.get_with("/a", "cache-control", control).await,
    };
    node.settled().await;
    answer
}

/// RFC 9111 §4.2, §5.2.1, RFC 5861: what is served as a hit in the last second of a rule, and is not in the next one.
#[tokio::test]
async fn each_rule_ends_at_its_second() {
    // What the response says, what the request says, and the last age at which the store answers.
    for (response, request, last) in [
        ("max-age=10", "", 9),
        ("max-age=100", "max-age=5", 5),
        ("max-age=10", "min-fresh=4", 6),
        ("max-age=10", "max-stale=5", 15),
        ("max-age=10, stale-while-revalidate=5", "", 14),
        ("max-age=10, stale-while-revalidate=5", "max-stale=8", 18),
    ] {
        let (node, _origin) = holding(response).await;
        node.clock().advance(seconds(last));
        with(&node, request).await.assert_hit();
        let (node, _origin) = holding(response).await;
        node.clock().advance(seconds(last + 1));
        let answer = with(&node, request).await;
        assert!(!answer.cache_status().hit, "{response} / {request} at {}: {}", last + 1, answer.head());
        assert_eq!(answer.cache_status().fwd_status, Some(304), "{response} / {request}");
    }
}

/// RFC 5861 §4: the same where the origin is gone.
#[tokio::test]
async fn stale_if_error_ends_at_its_second() {
    for (response, request, last) in [
        ("max-age=10, stale-if-error=5", "", 14),
        ("max-age=10", "stale-if-error=5", 14),
        ("max-age=10, stale-if-error=5", "stale-if-error=8", 17),
    ] {
        let (node, origin) = holding(response).await;
        origin.stop();
        node.clock().advance(seconds(last));
        let stale = with(&node, request).await;
        stale.assert_status(200).assert_content("v1");
        assert_eq!(stale.age(), Some(last));
        node.clock().advance(seconds(1));
        with(&node, request).await.assert_status(502);
    }
}

/// What is fresh is used to its last second, and nothing is fetched before anybody needs it.
#[tokio::test]
async fn nothing_is_fetched_before_it_is_stale() {
    let (node, origin) = holding("max-age=100, stale-while-revalidate=50").await;
    for _ in 0..9 {
        node.clock().advance(seconds(11));
        with(&node, "").await.assert_hit();
    }
    origin.assert_requests("/a", 1).await;
}

/// RFC 5861 §3: after the window nothing is served before the validation.
#[tokio::test]
async fn one_validation_behind_and_nothing_after_the_window() {
    let (node, origin) = holding("max-age=10, stale-while-revalidate=5").await;
    node.clock().advance(seconds(12));
    with(&node, "").await.assert_hit();
    assert_eq!(origin.requests("/a").len(), 2, "one validation behind");
    with(&node, "").await.assert_hit();
    assert_eq!(origin.requests("/a").len(), 2, "and it has made the response fresh");
    node.clock().advance(seconds(15));
    let validated = with(&node, "").await;
    validated.assert_forwarded("stale");
    assert_eq!(origin.requests("/a").len(), 3);
}

/// RFC 9111 §4: of several that match, the newest by its `Date`, whichever came last.
#[tokio::test]
async fn of_several_that_match_the_newest_by_date_answers() {
    let origin = FakeOrigin::start().await;
    let node = TestNode::in_front_of(&origin).await;
    let now = node.clock().unix_seconds();
    let dated = |content: &'static str, ago: u64, vary: &str| {
        let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + seconds(now - ago));
        ok(content).cache_control("max-age=600").header("date", &date).vary(vary)
    };
    origin.serve_each("/a", [dated("newer", 10, "x-one"), dated("older", 20, "x-two")]);
    node.get("/a").await.assert_stored();
    node.settled().await;
    let other = node.get_with("/a", "x-one", "1").await;
    other.assert_forwarded("vary-miss").assert_content("older");
    node.settled().await;
    node.get("/a").await.assert_hit().assert_content("newer");
    origin.assert_requests("/a", 2).await;
}

/// RFC 9111 §4.1: what a request had in fields that are nominated only now was not kept, so nobody else can be given the response.
#[tokio::test]
async fn a_304_that_nominates_other_fields_takes_the_response_out() {
    let origin = FakeOrigin::start().await;
    let first = ok("one").cache_control("max-age=10").etag("\"1\"").vary("x-one");
    let update = not_modified().cache_control("max-age=60").etag("\"1\"").vary("x-one, x-two");
    let last = ok("two").cache_control("max-age=60").vary("x-one, x-two");
    origin.serve_each("/a", [first, update, last]);
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_stored();
    node.settled().await;
    node.clock().advance(seconds(11));
    let validated = node.get("/a").await;
    validated.assert_content("one").assert_not_stored();
    assert_eq!(validated.cache_status().detail.as_deref(), Some("vary-changed"));
    node.get_with("/a", "x-two", "2").await.assert_content("two");
}

/// RFC 9213: of the configured fields the first valid one replaces `Cache-Control` and `Expires`, to both ends.
#[tokio::test]
async fn targeted_fields_count_in_the_order_of_the_configuration() {
    let lists = "targeted_fields = [\"brim-cache-control\", \"cdn-cache-control\"]";
    // brim-cache-control, cdn-cache-control, cache-control; and the lifetime that follows, none where nothing may be stored.
    for (own, cdn, general, lifetime) in [
        (Some("max-age=10"), Some("max-age=20"), Some("max-age=30"), Some(10)),
        (None, Some("max-age=20"), Some("no-store"), Some(20)),
        (Some("no-store"), Some("max-age=20"), Some("max-age=30"), None),
        (Some(""), Some("max-age=20"), Some("max-age=30"), Some(20)),
        (Some("max-age=\"10"), Some("max-age=20, &"), Some("max-age=30"), Some(30)),
        (Some("max-age=10"), None, None, Some(10)),
    ] {
        let fields = [("brim-cache-control", own), ("cdn-cache-control", cdn), ("cache-control", general)];
        let present = fields.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)));
        let reply = present.fold(ok("v1").header("expires", "0"), |reply, (name, value)| reply.header(name, value));
        let origin = FakeOrigin::serving("/a", reply).await;
        let node = TestNode::with_route(&origin, lists).await;
        let first = node.get("/a").await;
        let ttl = first.cache_status().stored.then(|| first.cache_status().ttl).flatten();
        assert_eq!(ttl, lifetime, "{own:?} {cdn:?} {general:?}: {}", first.head());
    }
    let reply = ok("v1").header("cdn-cache-control", "max-age=20").cache_control("max-age=30");
    let origin = FakeOrigin::serving("/a", reply.header("age", "7")).await;
    let node = TestNode::with_route(&origin, "targeted_fields = []").await;
    assert_eq!(node.get("/a").await.cache_status().ttl, Some(23), "switched off; and a received Age counts");
}

/// RFC 9213 §2.2, §2.3: a targeted field that is shorter or longer than the other two counts for how long, whether and against
/// which age; clients get all three as they are.
#[tokio::test]
async fn a_targeted_field_replaces_the_others_in_both_directions() {
    // cdn-cache-control, cache-control, whether Expires is an hour ahead (or past); the lifetime left at an Age of 7.
    for (targeted, general, is_expiry_ahead, left) in [
        ("max-age=20", "max-age=3600", true, 13),
        ("max-age=20", "max-age=10", false, 13),
        ("max-age=20", "private, no-cache", false, 13),
        ("max-age=5", "max-age=3600", true, -2),
        ("max-age=20, s-maxage=9", "s-maxage=3600", true, 2),
        ("must-revalidate", "max-age=3600", true, -7),
    ] {
        let expires = if is_expiry_ahead { "Fri, 31 Dec 9999 23:59:59 GMT" } else { "0" };
        let reply = ok("v1").cache_control(general).header("cdn-cache-control", targeted).header("expires", expires);
        let origin = FakeOrigin::serving("/a", reply.header("age", "7").etag("\"1\"").answering_conditionals()).await;
        let node = TestNode::in_front_of(&origin).await;
        let first = node.get("/a").await;
        assert_eq!(first.assert_stored().cache_status().ttl, Some(left), "{targeted} / {general}");
        node.settled().await;
        let second = node.get("/a").await;
        assert_eq!(second.cache_status().hit, left > 0, "{targeted} / {general}: {}", second.head());
        let sent = ["cdn-cache-control", "cache-control", "expires"].map(|name| second.header(name));
        assert_eq!(sent, [Some(targeted), Some(general), Some(expires)]);
    }
}

/// A route that does not trust its clients: nothing that they ask of caches is heard.
#[tokio::test]
async fn a_route_can_disregard_what_clients_ask() {
    let reply = ok("v1").cache_control("max-age=10").etag("\"1\"").answering_conditionals();
    let origin = FakeOrigin::serving("/a", reply).await;
    let node = TestNode::with_route(&origin, "ignore_request_directives = true").await;
    node.get_with("/a", "cache-control", "no-store, only-if-cached").await.assert_status(200).assert_stored();
    node.settled().await;
    for control in ["no-cache", "max-age=0", "min-fresh=60", "no-store"] {
        with(&node, control).await.assert_hit();
    }
    node.get_with("/a", "pragma", "no-cache").await.assert_hit();
    node.clock().advance(seconds(11));
    with(&node, "max-stale").await.assert_forwarded("stale");
    origin.assert_requests("/a", 2).await;
}

/// RFC 9111 §3.1, RFC 9110 §7.6.1: what is of one connection, by name or by `Connection`, is neither stored nor replayed.
#[tokio::test]
async fn fields_of_a_connection_are_neither_stored_nor_replayed() {
    const OF_A_HOP: [(&str, &str); 8] = [
        ("x-hop", "1"),
        ("x-other-hop", "1"),
        ("keep-alive", "timeout=7"),
        ("proxy-authenticate", "Basic"),
        ("proxy-authentication-info", "a=1"),
        ("proxy-authorization", "Basic eA=="),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
    ];
    let reply =
        ok("v1").cache_control("max-age=60").header("connection", "X-Hop").header("connection", "x-other-hop, x-none");
    let reply = OF_A_HOP.iter().fold(reply, |reply, (name, value)| reply.header(name, value));
    let origin = FakeOrigin::serving("/a", reply.header("x-end-to-end", "1")).await;
    let mut node = TestNode::in_front_of(&origin).await;
    let authority = node.http_address().to_string();
    let check = |answer: &Answer| {
        assert_eq!(answer.header("x-end-to-end"), Some("1"));
        for (name, _) in OF_A_HOP {
            assert_eq!(answer.header(name), None, "{name}: {}", answer.head());
        }
    };
    check(node.get("/a").await.assert_stored());
    node.settled().await;
    check(node.get("/a").await.assert_hit());
    check(node.http2().get("/a").await.assert_hit());
    node.restart().await;
    check(node.client().clone().authority(&authority).get("/a").await.assert_hit());
}

/// RFC 9111 §3.2: a 304 replaces fields, but for those that describe the content that is stored; on disk as well.
#[tokio::test]
async fn what_a_304_changes_is_on_disk() {
    let origin = FakeOrigin::start().await;
    let first = ok("content").cache_control("max-age=1").etag("\"1\"").header("content-type", "text/plain");
    let update = not_modified().cache_control("max-age=600").etag("\"1\"").header("x-kept", "new").header("x-new", "1");
    let update =
        update.header("content-type", "image/png").header("content-encoding", "gzip").header("content-length", "99");
    origin.serve_each("/a", [first.header("x-kept", "old").header("x-old", "1"), update]);
    let mut node = TestNode::in_front_of(&origin).await;
    let authority = node.http_address().to_string();
    let check = |answer: &Answer| {
        answer.assert_status(200).assert_content("content");
        let seen = ["x-kept", "x-new", "x-old", "content-type", "content-encoding", "content-length"];
        let expected = [Some("new"), Some("1"), Some("1"), Some("text/plain"), None, Some("7")];
        assert_eq!(seen.map(|name| answer.header(name)), expected, "{}", answer.head());
    };
    node.get("/a").await.assert_stored();
    node.settled().await;
    node.clock().advance(seconds(5));
    check(node.get("/a").await.assert_forwarded("stale"));
    node.settled().await;
    check(node.get("/a").await.assert_hit());
    node.restart().await;
    node.clock().advance(seconds(500));
    let later = node.client().clone().authority(&authority).get("/a").await;
    check(later.assert_hit());
    assert_eq!(later.age(), Some(500), "counted from the 304");
}

/// RFC 9111 §5.2.2.4, §5.2.2.7: the same fields stay out after a restart, and when a 304 brings them.
#[tokio::test]
async fn named_fields_stay_out_of_the_store() {
    for directive in ["no-cache", "private"] {
        let control = format!("max-age=10, {directive}=\"x-mine\"");
        let reply = ok("v1").cache_control(&control).etag("\"1\"").header("x-mine", "secret").answering_conditionals();
        let origin = FakeOrigin::serving("/a", reply).await;
        let mut node = TestNode::in_front_of(&origin).await;
        let authority = node.http_address().to_string();
        assert_eq!(node.get("/a").await.header("x-mine"), Some("secret"), "for who caused the fetch");
        node.settled().await;
        node.clock().advance(seconds(11));
        assert_eq!(node.get("/a").await.cache_status().fwd_status, Some(304));
        node.settled().await;
        assert_eq!(node.get("/a").await.assert_hit().header("x-mine"), None);
        node.restart().await;
        let client: Client = node.client().clone().authority(&authority);
        assert_eq!(client.get("/a").await.assert_hit().header("x-mine"), None, "{directive}");
    }
}

/// RFC 9111 §4.3.3: an origin's error to a validation that stale may not stand in for is the client's answer, and not stored.
#[tokio::test]
async fn an_error_to_a_validation_leaves_the_stored_response_where_it_is() {
    let origin = FakeOrigin::start().await;
    let first = ok("v1").cache_control("max-age=10, must-revalidate").etag("\"1\"").answering_conditionals();
    origin.serve_each("/a", [first.clone(), ok("broken").status(500).cache_control("max-age=60"), first]);
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_stored();
    node.settled().await;
    node.clock().advance(seconds(11));
    node.get("/a").await.assert_status(500).assert_content("broken").assert_not_stored();
    let validated = node.ask(Method::GET, "/a").send().await;
    validated.assert_status(200).assert_content("v1");
    assert_eq!(validated.cache_status().fwd_status, Some(304));
}
