//! Interim responses (1xx, RFC 9110 §15.2, RFC 8297), and `Expect: 100-continue` (§10.1.1), byte for byte.

use std::time::Duration;

use brim_tests::{Gate, RawConnection, RawOrigin, RawReply, TestNode, Trust, eventually};
use http::Method;

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
/// As the client gets it.
const HINTS_SENT: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nvia: 1.1 brim\r\n\r\n";

fn fresh(content: &str) -> String {
    with_cache_control("max-age=60", content)
}

fn private(content: &str) -> String {
    with_cache_control("no-store", content)
}

fn with_cache_control(directives: &str, content: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncache-control: {directives}\r\ncontent-length: {}\r\n\r\n{content}", content.len())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a.test\r\n\r\n")
}

async fn node(origin: &RawOrigin) -> TestNode {
    TestNode::start(&TestNode::config_for(&origin.url(), "", "")).await
}

/// The status lines in what a client read.
fn statuses(read: &str) -> Vec<&str> {
    read.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")).filter_map(|line| line.get(..3)).collect()
}

async fn counted(node: &TestNode, outcome: &str) -> u64 {
    let metrics = node.admin(Method::GET, "/metrics").send().await;
    let name = format!("brim_interim_responses_total{{outcome=\"{outcome}\"}} ");
    let value = metrics.content().lines().find_map(|line| line.strip_prefix(&name)?.parse().ok());
    value.unwrap_or_default()
}

/// What the hints are for: they are there while the origin is still thinking.
#[tokio::test]
async fn early_hints_reach_the_client_before_the_origin_answers() {
    for is_tls in [false, true] {
        let gate = Gate::new();
        let origin = RawOrigin::answering([RawReply::bytes(HINTS).then_wait(&gate).then(fresh("v1"))]).await;
        let node = node(&origin).await;
        let mut client = match is_tls {
            false => RawConnection::open(node.http_address()).await,
            true => RawConnection::open_tls(node.https_address(), Trust::anything(), "localhost").await,
        };
        client.send(get("/a")).await;
        assert_eq!(client.read_until("\r\n\r\n").await, HINTS_SENT);
        gate.open();
        let response = client.read_until("v1").await;
        assert_eq!(statuses(&response), ["200"], "{response}");
        assert!(
            response.contains("cache-status: brim; fwd=uri-miss; fwd-status=200; ttl=60; stored\r\n"),
            "{response}"
        );

        client.send(get("/a")).await;
        let hit = client.read_until("v1").await;
        assert_eq!(statuses(&hit), ["200"], "nothing of it is stored: {hit}");
        assert!(hit.contains("cache-status: brim; hit") && !hit.contains("link:"), "{hit}");
    }
}

/// RFC 9110 §15.2: a proxy forwards every 1xx; 100 answers the proxy's own request, and there are statuses that nobody has defined.
#[tokio::test]
async fn every_interim_response_but_100_is_relayed_in_order() {
    let all = format!(
        "HTTP/1.1 100 Continue\r\n\r\n{HINTS}HTTP/1.1 102 Processing\r\nx-done: 1\r\n\r\n\
         HTTP/1.1 199 Whatever\r\ncontent-length: 7\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n{}",
        fresh("v1")
    );
    let origin = RawOrigin::answering([RawReply::bytes(all)]).await;
    let node = node(&origin).await;
    let mut client = RawConnection::open(node.http_address()).await;
    client.send(get("/a")).await;
    let read = client.read_until("v1").await;
    let expected = format!(
        "{HINTS_SENT}HTTP/1.1 102 Processing\r\nx-done: 1\r\nvia: 1.1 brim\r\n\r\nHTTP/1.1 199 \r\nvia: 1.1 brim\r\n\r\nHTTP/1.1 200 OK\r\n"
    );
    assert!(read.starts_with(&expected), "{read}");
    assert_eq!((counted(&node, "relayed").await, counted(&node, "dropped").await), (3, 0));
}

/// Also where nothing is stored: another method, a HEAD, and what could not be shared a moment ago.
#[tokio::test]
async fn what_is_passed_on_has_its_interim_responses() {
    let no_content = "HTTP/1.1 204 No Content\r\n\r\n";
    let replies = [private("v1"), private("v2"), no_content.to_owned(), no_content.to_owned()];
    let origin = RawOrigin::answering(replies.map(|reply| RawReply::bytes(format!("{HINTS}{reply}")))).await;
    let node = node(&origin).await;
    let mut client = RawConnection::open(node.http_address()).await;
    for (request, end) in [
        (get("/a"), "v1"),
        (get("/a"), "v2"),
        (get("/b").replace("GET", "HEAD"), "204"),
        (get("/b").replace("GET", "POST"), "204"),
    ] {
        client.send(&request).await;
        let read = client.read_until(end).await;
        assert!(read.starts_with(HINTS_SENT), "{request}{read}");
        if end == "204" {
            client.read_until("\r\n\r\n").await;
        }
    }
}

/// The client waits for this validation, so the hints are its own.
#[tokio::test]
async fn a_validation_that_the_client_waits_for_has_its_interim_responses() {
    let validated = format!("{HINTS}HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n");
    let first = with_cache_control("no-cache\r\netag: \"1\"", "v1");
    let origin = RawOrigin::answering([RawReply::bytes(first), RawReply::bytes(validated)]).await;
    let node = node(&origin).await;
    let mut client = RawConnection::open(node.http_address()).await;
    client.send(get("/a")).await;
    assert_eq!(statuses(&client.read_until("v1").await), ["200"]);
    client.send(get("/a")).await;
    let read = client.read_until("v1").await;
    assert!(read.starts_with(HINTS_SENT), "{read}");
    assert_eq!(statuses(&read), ["103", "200"], "{read}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_each_with_its_own() {
    let gate = Gate::new();
    let reply = |name: &str| {
        RawReply::bytes(format!("HTTP/1.1 103 Early Hints\r\nx-of: {name}\r\n\r\n"))
            .then_wait(&gate)
            .then(format!("HTTP/1.1 102 Processing\r\nx-of: {name}\r\n\r\n"))
            .then(private(name))
    };
    let origin = RawOrigin::answering(["one", "two", "three"].map(reply)).await;
    let node = node(&origin).await;
    let mut client = RawConnection::open(node.http_address()).await;
    client.send(["/1", "/2", "/3"].map(get).concat()).await;
    assert!(client.read_until("\r\n\r\n").await.contains("x-of: one\r\n"));
    gate.open();
    let rest = client.read_until("\r\n\r\nthree").await;
    let landmarks: Vec<_> =
        rest.lines().filter(|line| line.starts_with("HTTP/1.1 ") || line.starts_with("x-of: ")).collect();
    let (hints, more) = ("HTTP/1.1 103 Early Hints", "HTTP/1.1 102 Processing");
    let rest_of = |name| [more, name, "HTTP/1.1 200 OK"];
    let content_then = |content: &str| format!("{content}{hints}");
    let (one, two) = (content_then("one"), content_then("two"));
    assert!(rest.contains(&one) && rest.contains(&two), "{rest}");
    let expected =
        [&rest_of("x-of: one")[..], &["x-of: two"], &rest_of("x-of: two"), &["x-of: three"], &rest_of("x-of: three")];
    assert_eq!(landmarks, expected.concat(), "{rest}");
}

/// RFC 9110 §15.2: no 1xx for HTTP/1.0. For HTTP/2 hyper has no way to send one.
#[tokio::test]
async fn other_versions_get_the_final_response_alone() {
    let origin = RawOrigin::answering([RawReply::bytes(format!("{HINTS}{}", private("v1")))]).await;
    let node = node(&origin).await;
    let mut client = RawConnection::open(node.http_address()).await;
    client.send("GET /a HTTP/1.0\r\nhost: a.test\r\n\r\n").await;
    let read = client.read_to_end().await;
    assert!(read.starts_with("HTTP/1.0 200 OK\r\n") && read.ends_with("\r\n\r\nv1"), "{read}");
    for client in [node.http2(), node.https2()] {
        client.get("/a").await.assert_status(200).assert_content("v1");
    }
}

#[tokio::test]
async fn more_or_longer_ones_than_the_limits_are_dropped() {
    let long = format!("HTTP/1.1 103 Early Hints\r\nlink: {}\r\n\r\n", "x".repeat(16 * 1024));
    let origin = RawOrigin::answering([RawReply::bytes(format!("{long}{}{}", HINTS.repeat(20), fresh("v1")))]).await;
    let node = node(&origin).await;
    let mut client = RawConnection::open(node.http_address()).await;
    client.send(get("/a")).await;
    let read = client.read_until("v1").await;
    assert!(read.starts_with(&HINTS_SENT.repeat(16)), "{read}");
    assert_eq!(statuses(&read).len(), 17, "{read}");
    assert_eq!((counted(&node, "relayed").await, counted(&node, "dropped").await), (16, 5));
}

/// They are about the request that the origin got.
#[tokio::test]
async fn who_waits_for_the_fetch_of_another_gets_none() {
    let gate = Gate::new();
    let origin = RawOrigin::answering([RawReply::bytes(HINTS).then_wait(&gate).then(fresh("v1"))]).await;
    let node = node(&origin).await;
    let mut filler = RawConnection::open(node.http_address()).await;
    filler.send(get("/a")).await;
    assert_eq!(filler.read_until("\r\n\r\n").await, HINTS_SENT);
    let mut waiter = RawConnection::open(node.http_address()).await;
    waiter.send(get("/a")).await;
    gate.open();
    for client in [&mut filler, &mut waiter] {
        assert_eq!(statuses(&client.read_until("v1").await), ["200"]);
    }
    assert_eq!(origin.wait_for_heads(1).await.len(), 1);
}

/// RFC 5861 §3: the client has its response and nothing of the validation behind it, on a connection that goes on.
#[tokio::test]
async fn a_validation_behind_a_response_sends_none() {
    let stale = |content| with_cache_control("max-age=10, stale-while-revalidate=60", content);
    let origin =
        RawOrigin::answering([RawReply::bytes(stale("v1!")), RawReply::bytes(format!("{HINTS}{}", stale("v2!")))])
            .await;
    let node = node(&origin).await;
    let mut client = RawConnection::open(node.http_address()).await;
    client.send(get("/a")).await;
    client.read_until("v1!").await;
    node.clock().advance(Duration::from_secs(11));
    let validated = eventually("the validation's response", async || {
        client.send(get("/a")).await;
        let read = client.read_until("!").await;
        assert_eq!(statuses(&read), ["200"], "{read}");
        read.ends_with("v2!").then_some(())
    });
    validated.await;
    assert_eq!((counted(&node, "relayed").await, counted(&node, "dropped").await), (0, 0));
}

/// The client that asked has gone: what comes for it reaches nobody else, and the fill goes on.
#[tokio::test]
async fn a_client_that_leaves_takes_its_interim_responses_along() {
    let (gate, late) = (Gate::new(), Gate::new());
    let reply = RawReply::bytes(HINTS).then_wait(&gate).then(HINTS).then_wait(&late).then(fresh("v1"));
    let origin = RawOrigin::answering([reply]).await;
    let node = node(&origin).await;
    let mut client = RawConnection::open(node.http_address()).await;
    client.send(get("/a")).await;
    assert_eq!(client.read_until("\r\n\r\n").await, HINTS_SENT);
    // Somebody waits for the fetch, else it would end with its client.
    let mut other = RawConnection::open(node.http_address()).await;
    other.send(get("/a")).await;
    eventually("the other one to wait", async || (node.waiting() == 1).then_some(())).await;
    drop(client);
    eventually("the connection to end", async || {
        let metrics = node.admin(Method::GET, "/metrics").send().await;
        metrics.content().contains("\nbrim_connections_open 1\n").then_some(())
    })
    .await;
    gate.open();
    eventually("the second to be dropped", async || (counted(&node, "dropped").await == 1).then_some(())).await;
    late.open();
    assert_eq!(statuses(&other.read_until("v1").await), ["200"]);
    assert_eq!(origin.wait_for_heads(1).await.len(), 1);
}

/// No field of an interim response can become a line, or a message, of its own.
#[tokio::test]
async fn a_line_break_inside_a_field_goes_no_further() {
    for field in ["link: </a>\rx-injected: 1", "link: </a>\r\n x-injected: 1", "link: </a>\0x-injected: 1", "li\rnk: x"]
    {
        let bad = format!("HTTP/1.1 103 Early Hints\r\n{field}\r\n\r\n{}", private("v1"));
        let origin = RawOrigin::answering([RawReply::bytes(bad).then_close()]).await;
        let node = node(&origin).await;
        let mut client = RawConnection::open(node.http_address()).await;
        client.send(get("/a").replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")).await;
        let read = client.read_to_end().await;
        assert_eq!(statuses(&read), ["502"], "{field:?}: {read}");
        assert!(!read.contains("injected"), "{field:?}: {read}");
    }
}
