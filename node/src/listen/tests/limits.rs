//! Each limit, reached.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::Empty;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::*;
use crate::config::ListenConfig;

const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_connection_beyond_the_limit_is_closed_at_once() {
    let server = TestServer::start(ListenConfig { connections_max: 1, ..config() });
    let mut first = server.connect().await;
    first.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    read_until(&mut first, "hello").await;
    let mut second = server.connect().await;
    assert_eq!(until_closed(&mut second).await, "");
    assert_eq!(server.counted(|counters| &counters.refused), 1);
    drop(first);
    server.until(|counters| &counters.open, 0).await;
    let mut third = server.connect().await;
    assert!(exchange(&mut third, "GET / HTTP/1.0\r\n\r\n").await.ends_with("hello"));
}

#[tokio::test]
async fn a_slow_head_is_cut() {
    let server = TestServer::start(ListenConfig { header_timeout: SHORT, ..config() });
    let mut silent = server.connect().await;
    let mut begun = server.connect().await;
    begun.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n").await.expect("sent");
    assert_eq!(until_closed(&mut silent).await, "");
    assert_eq!(until_closed(&mut begun).await, "");
    server.until(|counters| &counters.slow_heads, 2).await;
}

/// The second head of a connection has a deadline from its first byte, though the connection may be idle for longer.
#[tokio::test]
async fn a_slow_later_head_is_cut_and_an_idle_connection_is_not() {
    let server = TestServer::start(ListenConfig { header_timeout: SHORT, ..config() });
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    read_until(&mut stream, "hello").await;
    tokio::time::sleep(SHORT * 3).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("still open");
    read_until(&mut stream, "hello").await;
    tokio::time::sleep(SHORT / 2).await;
    stream.write_all(b"GET / HT").await.expect("sent");
    assert_eq!(until_closed(&mut stream).await, "");
    assert_eq!(server.counted(|counters| &counters.slow_heads), 1);
}

#[tokio::test]
async fn idle_connections_are_closed_on_both_protocols() {
    let server = TestServer::start(ListenConfig { idle_timeout: SHORT, ..config() });
    let mut http1 = server.connect().await;
    http1.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    read_until(&mut http1, "hello").await;
    let mut http2 = server.http2().await;
    let response = http2.send_request(get("/")).await.expect("a response");
    assert_eq!(content(response).await, "hello");
    assert_eq!(until_closed(&mut http1).await, "");
    server.until(|counters| &counters.idle_closed, 2).await;
    server.until(|counters| &counters.open, 0).await;
    assert!(http2.send_request(get("/")).await.is_err());
}

#[tokio::test]
async fn a_slow_handler_is_no_idle_connection() {
    let timeouts = ListenConfig { idle_timeout: SHORT, header_timeout: SHORT, body_idle_timeout: SHORT, ..config() };
    let server = TestServer::start(timeouts);
    let mut http2 = server.http2().await;
    let mut http1 = server.connect().await;
    http1.write_all(b"GET /wait HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("sent");
    let waiting = http2.send_request(get("/wait"));
    let release = async {
        server.entered().await;
        server.entered().await;
        tokio::time::sleep(SHORT * 4).await;
        server.handler.release.add_permits(2);
    };
    let (response, ()) = tokio::join!(waiting, release);
    assert_eq!(content(response.expect("a response")).await, "released");
    assert!(until_closed(&mut http1).await.ends_with("released"));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let server = TestServer::start(ListenConfig { body_idle_timeout: SHORT, ..config() });
    let mut stream = server.connect().await;
    stream.write_all(b"GET /stream/1000 HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    server.until(|counters| &counters.stalled, 1).await;
    server.until(|counters| &counters.open, 0).await;
}

/// The window stays shut, and acknowledged pings are no progress.
#[tokio::test]
async fn an_http2_client_that_opens_no_window_is_cut() {
    let server = TestServer::start(ListenConfig { body_idle_timeout: SHORT, ..config() });
    let mut stream = server.connect().await;
    let no_window = [0, 4, 0, 0, 0, 0];
    let mut bytes = crate::listen::frame_budget::PREFACE.to_vec();
    bytes.extend(super::attacks::frame(0x4, 0, 0, &no_window));
    bytes.extend(super::attacks::request(1));
    stream.write_all(&bytes).await.expect("sent");
    while server.counted(|counters| &counters.stalled) == 0 {
        tokio::time::sleep(SHORT / 10).await;
        let _ = stream.write_all(&super::attacks::frame(0x6, 0, 0, &[0; 8])).await;
    }
    server.until(|counters| &counters.open, 0).await;
}

#[tokio::test]
async fn a_head_that_is_too_long_gets_431_on_http1() {
    let server = TestServer::start(ListenConfig { head_bytes_max: 8192, ..config() });
    let mut stream = server.connect().await;
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\nlong: {}\r\n\r\n", "x".repeat(9000));
    let response = exchange(&mut stream, &head).await;
    assert!(response.starts_with("HTTP/1.1 431 "), "{response}");
}

/// Closing a socket with unread bytes resets it, and the reset may overtake the answer.
#[tokio::test]
async fn the_last_answer_arrives_though_the_client_is_still_sending() {
    let server = TestServer::start(ListenConfig { head_bytes_max: 8192, ..config() });
    let endless_head = format!("GET / HTTP/1.1\r\nhost: a\r\nlong: {}\r\n\r\n", "x".repeat(200_000));
    let unread_content = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n{}", "x".repeat(200_000));
    for _ in 0..3 {
        let mut stream = server.connect().await;
        let answer = whole_exchange(&mut stream, &endless_head).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        let mut stream = server.connect().await;
        let answer = whole_exchange(&mut stream, &unread_content).await;
        assert!(answer.ends_with("hello"), "{answer}");
    }
}

/// As `exchange`; a reset fails, also one that follows the answer.
async fn whole_exchange(stream: &mut tokio::net::TcpStream, request: &str) -> String {
    let (mut reader, mut writer) = stream.split();
    let mut answer = String::new();
    let (sent, read) = tokio::join!(writer.write_all(request.as_bytes()), reader.read_to_string(&mut answer));
    sent.expect("sent");
    read.expect("the end");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(stream.take_error().expect("a socket").is_none(), "no reset came behind the answer");
    answer
}

#[tokio::test]
async fn too_many_fields_get_431_on_both_protocols() {
    for max in [20, 100] {
        let server = TestServer::start(ListenConfig { header_count_max: max, ..config() });
        let mut stream = server.connect().await;
        let fields: String = (0..=max).map(|number| format!("f{number}: 1\r\n")).collect();
        let response = exchange(&mut stream, &format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await;
        assert!(response.starts_with("HTTP/1.1 431 "), "{response}");

        let mut http2 = server.http2().await;
        let mut request = get("/");
        for number in 0..=max {
            let name = format!("f{number}").parse::<http::HeaderName>().expect("a name");
            request.headers_mut().insert(name, http::HeaderValue::from_static("1"));
        }
        let response = http2.send_request(request).await.expect("a response");
        assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        assert_eq!(server.handler.calls.load(Relaxed), 0);
    }
}

#[tokio::test]
async fn a_head_that_is_too_long_gets_431_on_http2() {
    let server = TestServer::start(ListenConfig { head_bytes_max: 8192, ..config() });
    let mut stream = server.connect().await;
    // hyper's client would heed the announced limit, so the frames are made here: a literal field of 9,000 bytes.
    let mut block = vec![0x82, 0x86, 0x84, 0x41, 0x01, b'a', 0x00, 0x01, b'x', 0x7f];
    block.extend([0xa9, 0x45]);
    block.extend([b'y'; 9000]);
    let mut bytes = super::attacks::preface();
    bytes.extend(super::attacks::frame(0x1, 0x5, 1, &block));
    stream.write_all(&bytes).await.expect("sent");
    // `:status` by its index, 431 in Huffman's code: 011010 011001 00001 and padding (RFC 7541 §6.2.1, appendix B).
    let refusal = [0x48, 0x83, 0x69, 0x90, 0xff];
    let mut read = vec![0; 4096];
    let mut length = 0;
    let has_headers = async {
        loop {
            length += stream.read(&mut read[length..]).await.expect("read");
            let frames = super::attacks::frames(&read[..length]);
            if let Some((_, block)) = frames.iter().find(|(kind, _)| *kind == 0x1) {
                return assert!(block.starts_with(&refusal), "{block:x?}");
            }
        }
    };
    tokio::time::timeout(HANG, has_headers).await.expect("an answer");
    assert_eq!(server.handler.calls.load(Relaxed), 0);
}

/// Work for a client that has gone away ends: its future is dropped.
#[tokio::test]
async fn a_handler_ends_with_its_client() {
    let server = TestServer::start(config());
    let mut http1 = server.connect().await;
    http1.write_all(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    let mut http2 = server.http2().await;
    // One stream is reset, one loses its connection.
    let reset = tokio::spawn(http2.send_request(get("/wait")));
    let lost = tokio::spawn(http2.send_request(get("/wait")));
    for _ in 0..3 {
        server.entered().await;
    }
    reset.abort();
    reaches(&server.handler.running, 2).await;
    drop(http1);
    reaches(&server.handler.running, 1).await;
    lost.abort();
    drop(http2);
    reaches(&server.handler.running, 0).await;
}

#[tokio::test]
async fn streams_of_a_connection_are_limited() {
    let server = TestServer::start(ListenConfig { streams_max: 2, ..config() });
    let sender = server.http2().await;
    // The limit is known once the server's settings came.
    let mut first = sender.clone();
    content(first.send_request(get("/")).await.expect("a response")).await;
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let mut sender = sender.clone();
        let request = Request::get("http://localhost/wait").body(Empty::new()).expect("a request");
        requests.spawn(async move { sender.send_request(request).await.map(|response| response.status()) });
    }
    server.entered().await;
    server.entered().await;
    tokio::time::sleep(SHORT / 2).await;
    assert_eq!(server.handler.entered.available_permits(), 0, "a third stream waits");
    server.handler.release.add_permits(4);
    while let Some(status) = requests.join_next().await {
        assert_eq!(status.expect("no panic").expect("a response"), StatusCode::OK);
    }
}
