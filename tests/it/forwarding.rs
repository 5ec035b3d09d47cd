//! What goes to the origin: how often, in whose name, and what a write does to the store.

use brim_tests::{FakeOrigin, RawConnection, RawOrigin, RawReply, TestNode, ok, status};
use http::Method;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// RFC 9110 §9.2.2: an origin that has read a request may have acted on it. It is not sent again, whatever its method, on a new
/// connection or on a kept one.
#[tokio::test]
async fn a_request_that_may_have_been_processed_is_sent_once() {
    for method in [Method::POST, Method::GET, Method::PUT, Method::HEAD] {
        for partial in ["", "HTTP/1.1 200 OK\r\ncontent-le"] {
            let origin = RawOrigin::answering([
                RawReply::bytes(partial).then_close(),
                RawReply::bytes(OK),
                RawReply::bytes(partial).then_close(),
                RawReply::bytes(OK),
            ])
            .await;
            let node = TestNode::start(&TestNode::config_for(&origin.url(), "", "")).await;
            let ask = || async {
                let answer = node.ask(method.clone(), "/a").send().await;
                node.settled().await;
                answer
            };
            ask().await.assert_status(502);
            assert_eq!(origin.wait_for_heads(1).await.len(), 1, "{method} on a new connection");
            node.get("/b").await.assert_status(200);
            node.settled().await;
            ask().await.assert_status(502);
            assert_eq!(origin.wait_for_heads(3).await.len(), 3, "{method} on a kept connection");
            ask().await.assert_status(200);
            assert_eq!(origin.wait_for_heads(4).await.len(), 4);
        }
    }
}

/// RFC 9111 §4.4: the target, and what `Location` and `Content-Location` name on the same origin, however it is written.
#[tokio::test]
async fn a_write_invalidates_what_its_response_names_on_the_same_origin_alone() {
    let origin = FakeOrigin::start().await;
    let node = TestNode::in_front_of(&origin).await;
    let here = node.http_address();
    for (field, value, is_taken) in [
        ("location", "/dir/b".to_owned(), true),
        ("content-location", "/dir/b".to_owned(), true),
        ("location", "b".to_owned(), true),
        ("content-location", "./x/../b".to_owned(), true),
        ("location", format!("http://{here}/dir/b"), true),
        ("location", format!("HTTP://{here}/dir/b#part"), true),
        ("location", "//other.test/dir/b".to_owned(), false),
        ("content-location", "http://other.test/dir/b".to_owned(), false),
        ("location", format!("https://{here}/dir/b"), false),
        ("location", "/dir/b?x=1".to_owned(), false),
        ("location", "mailto:a@b".to_owned(), false),
    ] {
        origin.serve("/dir/b", ok("b").cache_control("max-age=60"));
        origin.serve("/dir/a", ok("a").cache_control("max-age=60"));
        node.get("/dir/a").await;
        node.get("/dir/b").await;
        node.settled().await;
        node.get("/dir/b").await.assert_hit();
        origin.serve("/dir/a", status(201).header(field, &value));
        node.ask(Method::POST, "/dir/a").content("x").send().await.assert_status(201);
        let hit = node.get("/dir/b").await.cache_status().hit;
        assert_eq!(!hit, is_taken, "{field}: {value}");
        node.settled().await;
    }
}

/// RFC 9111 §4.4, RFC 9110 §9.2.1: any method that is not known to be safe, and only where the response is no error.
#[tokio::test]
async fn which_methods_and_statuses_invalidate() {
    let origin = FakeOrigin::start().await;
    let node = TestNode::in_front_of(&origin).await;
    for (method, code, is_taken) in [
        ("PUT", 200, true),
        ("DELETE", 204, true),
        ("PATCH", 200, true),
        ("POST", 303, true),
        ("FROB", 200, true),
        ("PUT", 404, false),
        ("DELETE", 500, false),
        ("OPTIONS", 200, false),
        ("PROPFIND", 207, false),
    ] {
        origin.serve("/a", ok("v").cache_control("max-age=60"));
        node.get("/a").await;
        node.settled().await;
        node.get("/a").await.assert_hit();
        origin.serve("/a", status(code));
        let method: Method = method.parse().expect("a method");
        node.ask(method.clone(), "/a").send().await.assert_status(code);
        origin.serve("/a", ok("v").cache_control("max-age=60"));
        let hit = node.get("/a").await.cache_status().hit;
        assert_eq!(!hit, is_taken, "{method} {code}");
        node.settled().await;
    }
}

/// RFC 9113 §8.3.1: a `Host` that names another authority than `:authority` makes a request malformed; the same one does not.
#[tokio::test]
async fn host_and_authority_of_an_http2_request_do_not_differ() {
    let origin = FakeOrigin::serving("/a", ok("v1").cache_control("max-age=60")).await;
    let node = TestNode::in_front_of(&origin).await;
    let client = node.http2().authority("one.test");
    client.ask(Method::GET, "/a").header("host", "two.test").send().await.assert_status(400);
    client.ask(Method::GET, "/a").header("host", "one.test:8080").send().await.assert_status(400);
    origin.assert_requests("/a", 0).await;
    client.ask(Method::GET, "/a").header("host", "one.test").send().await.assert_status(200);
    client.ask(Method::GET, "/a").header("host", "ONE.test:80").send().await.assert_status(200);
    assert_eq!(origin.requests("/a")[0].authority, "one.test");
    origin.assert_requests("/a", 1).await;
}

/// RFC 9112 §3.2.2: over HTTP/1.1 the authority of an absolute target counts, and `Host` is not heard.
#[tokio::test]
async fn the_authority_of_an_absolute_target_counts() {
    let origin = FakeOrigin::serving("/a", ok("v1")).await;
    let node = TestNode::in_front_of(&origin).await;
    let mut connection = RawConnection::open(node.http_address()).await;
    connection.send("GET http://one.test/a HTTP/1.1\r\nHost: two.test\r\nConnection: close\r\n\r\n").await;
    assert!(connection.read_to_end().await.starts_with("HTTP/1.1 200"));
    assert_eq!(origin.requests("/a")[0].authority, "one.test");
}
