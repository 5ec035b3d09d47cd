//! How an origin frames its responses, well or badly, and what clients and the store get of it (RFC 9112 §6).

use brim_tests::{Client, FakeOrigin, Gate, RawConnection, RawOrigin, RawReply, TestNode, ok};
use http::Method;

async fn in_front_of(replies: impl IntoIterator<Item = RawReply>) -> (TestNode, RawOrigin) {
    let origin = RawOrigin::answering(replies).await;
    let node = TestNode::start(&TestNode::config_for(&origin.url(), "", "")).await;
    (node, origin)
}

/// A reply with this head behind the status line, and this content; the connection is closed after it.
fn closing(head: &str, content: &str) -> RawReply {
    RawReply::bytes(format!("HTTP/1.1 200 OK\r\n{head}\r\n{content}")).then_close()
}

/// Both versions, on connections of their own.
fn clients(node: &TestNode) -> [Client; 2] {
    [node.client().clone(), node.http2()]
}

/// RFC 9112 §6.3: without a length the content ends with the connection. It is whole, and stored as such.
#[tokio::test]
async fn a_response_that_ends_with_its_connection_is_stored_and_framed_anew() {
    for reply in [
        closing("cache-control: max-age=60\r\n", "content"),
        RawReply::bytes("HTTP/1.0 200 OK\r\ncache-control: max-age=60\r\n\r\ncontent").then_close(),
    ] {
        let (node, origin) = in_front_of([reply]).await;
        node.get("/a").await.assert_stored().assert_content("content");
        node.settled().await;
        for client in clients(&node) {
            let hit = client.get("/a").await;
            hit.assert_hit().assert_content("content");
            assert_eq!((hit.header("content-length"), hit.header("connection")), (Some("7"), None));
        }
        assert_eq!(origin.wait_for_heads(1).await.len(), 1);
    }
}

/// RFC 9112 §6.3: a transfer coding that is not `chunked` at last is read to the end of the connection; it is of that connection.
#[tokio::test]
async fn an_unknown_transfer_coding_is_read_to_its_end_and_not_passed_on() {
    let reply = closing("cache-control: max-age=60\r\ntransfer-encoding: novel\r\n", "content");
    let (node, _origin) = in_front_of([reply]).await;
    for client in clients(&node) {
        let answer = client.get("/a").await;
        answer.assert_status(200).assert_content("content");
        assert_ne!(answer.header("transfer-encoding"), Some("novel"));
        node.settled().await;
    }
    node.get("/a").await.assert_hit().assert_content("content");
}

/// A content that breaks off is never whole for anybody: the client is told, in the way its version of HTTP has, and the next request
/// fetches it anew.
#[tokio::test]
async fn a_content_cut_short_ends_in_an_error_in_either_version_and_is_not_stored() {
    for cut in [
        closing("cache-control: max-age=60\r\ncontent-length: 100\r\n", "begin"),
        closing("cache-control: max-age=60\r\ntransfer-encoding: chunked\r\n", "5\r\nbegin\r\n"),
        closing("cache-control: max-age=60\r\ntransfer-encoding: chunked\r\n", "64\r\nbegin"),
        closing("cache-control: no-store\r\ncontent-length: 100\r\n", "begin"),
    ] {
        let whole = RawReply::bytes("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 5\r\n\r\nwhole");
        let (node, origin) = in_front_of([cut.clone(), cut, whole]).await;
        for client in clients(&node) {
            let outcome = client.ask(Method::GET, "/a").try_send().await;
            assert!(outcome.is_err(), "a short success: {outcome:?}");
            node.settled().await;
        }
        let anew = node.get("/a").await;
        anew.assert_content("whole");
        assert_eq!(origin.wait_for_heads(3).await.len(), 3);
    }
}

/// The same for those who follow a fill that another request began.
#[tokio::test]
async fn a_content_cut_short_is_an_error_for_all_who_follow_it() {
    let rest = Gate::new();
    let origin = FakeOrigin::start().await;
    let cut = ok("begin").then_wait(&rest).declared_length(100).then_abort().cache_control("max-age=60");
    origin.serve_each("/a", [cut, ok("whole").cache_control("max-age=60")]);
    let node = TestNode::in_front_of(&origin).await;
    let mut following = Vec::new();
    for client in [node.client().clone(), node.http2(), node.https2()] {
        let mut answer = client.authority("one.test").ask(Method::GET, "/a").start().await.expect("a head");
        // The scheme is part of the key: what comes over TLS is another fill, which this origin answers whole.
        if origin.requests("/a").len() == 1 {
            assert_eq!(answer.at_least(5).await.expect("the beginning"), "begin");
            following.push(answer);
        }
    }
    assert_eq!(following.len(), 2);
    rest.open();
    for answer in following {
        assert!(answer.rest().await.is_err(), "a short success");
    }
    node.settled().await;
    node.client().clone().authority("one.test").get("/a").await.assert_content("whole");
}

/// What comes after the announced length belongs to no request: it is neither content nor the answer to the next request.
#[tokio::test]
async fn bytes_beyond_the_announced_length_answer_nobody() {
    let evil = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 4\r\n\r\nevil";
    let long =
        RawReply::bytes(format!("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 2\r\n\r\nab{evil}"));
    let good = RawReply::bytes("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 4\r\n\r\ngood");
    let (node, _origin) = in_front_of([long, good]).await;
    node.get("/a").await.assert_content("ab");
    node.settled().await;
    let mut next = node.ask(Method::GET, "/b").try_send().await;
    if next.as_ref().is_ok_and(|answer| answer.status == 502) {
        next = node.ask(Method::GET, "/b").try_send().await;
    }
    next.expect("an answer").assert_content("good");
    node.get("/a").await.assert_hit().assert_content("ab");
}

/// RFC 9112 §6.3: `Transfer-Encoding` overrides `Content-Length`, which is not passed on.
#[tokio::test]
async fn of_two_framings_chunked_counts_and_the_length_is_dropped() {
    let reply = RawReply::bytes(
        "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n\
         7\r\ncontent\r\n0\r\n\r\n",
    );
    let (node, _origin) = in_front_of([reply]).await;
    for client in clients(&node) {
        let answer = client.get("/a").await;
        answer.assert_status(200).assert_content("content");
        assert_ne!(answer.header("content-length"), Some("3"));
        node.settled().await;
    }
    let mut connection = RawConnection::open(node.http_address()).await;
    connection.send("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let bytes = connection.read_to_end().await;
    assert!(!bytes.to_ascii_lowercase().contains("content-length: 3"), "{bytes}");
}

/// RFC 9112 §6.3: lengths that contradict one another, or are none, make the response unusable: 502, and nothing is stored.
#[tokio::test]
async fn a_length_that_cannot_be_believed_is_a_bad_gateway() {
    for lengths in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 6\r\n",
        "content-length: five\r\n",
        "content-length: -1\r\n",
    ] {
        let bad = closing(&format!("cache-control: max-age=60\r\n{lengths}"), "hello!");
        let good = RawReply::bytes("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 4\r\n\r\ngood");
        let (node, _origin) = in_front_of([bad, good]).await;
        node.get("/a").await.assert_status(502);
        node.settled().await;
        node.get("/a").await.assert_status(200).assert_content("good");
    }
}

/// RFC 9110 §8.6: the same length said twice is that length.
#[tokio::test]
async fn a_length_said_twice_alike_is_said_once_to_clients() {
    let reply = closing("cache-control: max-age=60\r\ncontent-length: 5\r\ncontent-length: 5\r\n", "hello");
    let (node, _origin) = in_front_of([reply]).await;
    for client in clients(&node) {
        let answer = client.get("/a").await;
        answer.assert_status(200).assert_content("hello");
        let lengths: Vec<_> = answer.headers.get_all("content-length").iter().collect();
        assert_eq!(lengths, ["5"], "{}", answer.head());
        node.settled().await;
    }
}
