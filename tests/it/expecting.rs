//! `Expect: 100-continue` (RFC 9110 §10.1.1), byte for byte.

use brim_tests::{FakeOrigin, OriginSetup, RawConnection, RawOrigin, RawReply, TestNode, status};

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const CREATED: &str = "HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n";

async fn node(origin: &RawOrigin) -> TestNode {
    TestNode::start(&TestNode::config_for(&origin.url(), "", "")).await
}

fn post(expect: &str) -> String {
    format!("POST /a HTTP/1.1\r\nhost: a.test\r\ncontent-length: 7\r\nexpect: {expect}\r\n\r\n")
}

#[tokio::test]
async fn content_is_asked_for_and_passed_on() {
    for expect in ["100-continue", "100-Continue"] {
        let reply = RawReply::bytes(CONTINUE).then_read("content").then(CREATED);
        let origin = RawOrigin::answering([reply]).await;
        let node = node(&origin).await;
        let mut client = RawConnection::open(node.http_address()).await;
        client.send(post(expect)).await;
        assert_eq!(client.read_until("\r\n\r\n").await, CONTINUE);
        client.send("content").await;
        let read = client.read_until("\r\n\r\n").await;
        assert!(read.starts_with("HTTP/1.1 201 Created\r\n"), "{read}");
        let heads = origin.wait_for_heads(1).await;
        assert!(heads[0].contains(&format!("\r\nexpect: {expect}\r\n")), "{heads:?}");
    }
}

/// A final status in place of 100: the content never came, so what follows on the connection could not be told from it.
#[tokio::test]
async fn a_refusal_ends_the_connection_whose_content_was_not_read() {
    let origin = RawOrigin::answering([RawReply::bytes(CREATED)]).await;
    let node = node(&origin).await;
    let mut client = RawConnection::open(node.http_address()).await;
    client.send(post("100-continue").replace("host: a.test\r\n", "")).await;
    let refusal = client.read_until("\r\n\r\n").await;
    assert!(refusal.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{refusal}");
    assert!(refusal.contains("\r\nconnection: close\r\n"), "{refusal}");
    client.send("GET /smuggled HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    let rest = client.read_to_end().await;
    assert!(!rest.contains("HTTP/1.1"), "{rest}");
}

/// The origin refuses before it has seen any of the content: the client is spared to send it.
#[tokio::test]
async fn an_origin_that_refuses_at_once_is_sent_no_content() {
    let refused = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n";
    let origin = RawOrigin::answering([RawReply::bytes(refused)]).await;
    let node = node(&origin).await;
    let mut client = RawConnection::open(node.http_address()).await;
    client.send(post("100-continue")).await;
    let read = client.read_to_end().await;
    assert!(read.starts_with("HTTP/1.1 413 Content Too Large\r\n"), "{read}");
    assert!(read.contains("\r\nconnection: close\r\n"), "{read}");
}

/// Many an origin never says 100, and one over HTTP/2 cannot be heard to say it: the content is sent all the same.
#[tokio::test]
async fn an_origin_that_does_not_ask_gets_the_content() {
    let silent = RawOrigin::answering([RawReply::bytes("").then_read("content").then(CREATED)]).await;
    let http2 = FakeOrigin::start_with(OriginSetup::default().only_http2()).await;
    http2.serve("/a", status(201));
    let over_http2 = TestNode::config(&http2, "", "").replace("[[sites]]", "http2 = \"always\"\n[[sites]]");
    for config in [TestNode::config_for(&silent.url(), "", ""), over_http2] {
        let node = TestNode::start(&config).await;
        let mut client = RawConnection::open(node.http_address()).await;
        client.send(post("100-continue")).await;
        assert_eq!(client.read_until("\r\n\r\n").await, CONTINUE);
        client.send("content").await;
        let read = client.read_until("\r\n\r\n").await;
        assert!(read.starts_with("HTTP/1.1 201 Created\r\n"), "{read}");
    }
    assert_eq!(&http2.wait_for_contents("/a", 1).await[0].content[..], b"content");
}

/// RFC 9110 §10.1.1: an expectation that is not known may be answered with 417; it is the origin's to know.
#[tokio::test]
async fn an_unknown_expectation_is_the_origins_matter() {
    let refused = "HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n";
    let origin = RawOrigin::answering([RawReply::bytes("").then_read("content").then(refused)]).await;
    let node = node(&origin).await;
    let mut client = RawConnection::open(node.http_address()).await;
    client.send(post("tea")).await.send("content").await;
    let read = client.read_until("\r\n\r\n").await;
    assert!(read.starts_with("HTTP/1.1 417 Expectation Failed\r\n"), "{read}");
    assert!(origin.wait_for_heads(1).await[0].contains("\r\nexpect: tea\r\n"));
}

/// RFC 9110 §10.1.1: an HTTP/1.0 client does not know 100; a request without content has nothing to wait for.
#[tokio::test]
async fn an_expectation_that_does_not_count_is_ignored() {
    let origin =
        RawOrigin::answering([RawReply::bytes(CONTINUE).then_read("content").then(CREATED), RawReply::bytes(CREATED)])
            .await;
    let node = node(&origin).await;
    let mut client = RawConnection::open(node.http_address()).await;
    client.send(post("100-continue").replace("HTTP/1.1", "HTTP/1.0")).await.send("content").await;
    let read = client.read_to_end().await;
    assert!(read.starts_with("HTTP/1.0 201 Created\r\n"), "{read}");

    let mut client = RawConnection::open(node.http_address()).await;
    client.send(post("100-continue").replace("content-length: 7", "content-length: 0")).await;
    let read = client.read_until("\r\n\r\n").await;
    assert!(read.starts_with("HTTP/1.1 201 Created\r\n"), "{read}");
    let heads = origin.wait_for_heads(2).await;
    assert!(heads.iter().all(|head| !head.contains("expect:")), "{heads:?}");
}
