//! HTTP/1.1 and HTTP/2 on plaintext.

use std::time::{Duration, Instant};

use http::Version;
use tokio::io::AsyncWriteExt;

use super::harness::*;

#[tokio::test]
async fn http1_is_served_and_kept_alive() {
    let server = TestServer::start(config());
    let mut stream = server.connect().await;
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
        let response = read_until(&mut stream, "hello").await;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(response.contains("content-length: 5\r\n"), "{response}");
    }
    let last = exchange(&mut stream, "GET /info HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(last.ends_with("Http1 None"), "{last}");
    assert_eq!(server.counted(|counters| &counters.accepted), 1);
    server.until(|counters| &counters.open, 0).await;
}

/// `P` may begin a POST or the preface: the choice waits for the byte that decides.
#[tokio::test]
async fn the_choice_of_protocol_survives_any_cut() {
    let server = TestServer::start(config());
    let mut stream = server.connect().await;
    for byte in b"PRINT / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n" {
        stream.write_all(&[*byte]).await.expect("sent");
        tokio::task::yield_now().await;
    }
    assert!(until_closed(&mut stream).await.ends_with("hello"));
}

#[tokio::test]
async fn http1_content_and_trailers_pass() {
    let server = TestServer::start(config());
    let mut stream = server.connect().await;
    let response = exchange(
        &mut stream,
        "POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    )
    .await;
    assert!(response.ends_with("abc"), "{response}");
    let mut stream = server.connect().await;
    let response = exchange(&mut stream, "GET /stream/3 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(response.contains("transfer-encoding: chunked"));
    assert!(response.len() > 3 * 64 * 1024);
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_served() {
    let server = TestServer::start(config());
    let mut sender = server.http2().await;
    let response = sender.send_request(get("/info")).await.expect("a response");
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(content(response).await, "Http2 None");
    for (path, length) in [("/bytes/0", 0), ("/bytes/5000", 5000), ("/bytes/300000", 300_000), ("/stream/40", 40 << 16)]
    {
        let response = sender.send_request(get(path)).await.expect("a response");
        assert_eq!(content(response).await.len(), length, "{path}");
    }
}

#[tokio::test]
async fn parallel_streams_of_all_sizes_are_all_answered() {
    let server = TestServer::start(config());
    let sender = server.http2().await;
    let mut requests = tokio::task::JoinSet::new();
    for round in 0..320 {
        let mut sender = sender.clone();
        requests.spawn(async move {
            let length = [10, 1000, 4000, 20_000][round % 4];
            sender.ready().await.expect("ready");
            let response = sender.send_request(get(&format!("/bytes/{length}"))).await.expect("a response");
            assert_eq!(content(response).await.len(), length);
        });
    }
    let all = async { while requests.join_next().await.is_some_and(|ended| ended.is_ok()) {} };
    tokio::time::timeout(HANG, all).await.expect("in time");
    assert!(requests.is_empty());
}

/// The deferred flush waits for no timer: one request at a time is as quick as the sockets are.
#[tokio::test]
async fn a_single_request_at_a_time_pays_no_latency() {
    let server = TestServer::start(config());
    let mut sender = server.http2().await;
    let mut times = Vec::new();
    for _ in 0..200 {
        let begin = Instant::now();
        let response = sender.send_request(get("/")).await.expect("a response");
        assert_eq!(content(response).await, "hello");
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    // The median: some 100 µs on an idle machine; a lost flush would wait for the next tick, a second or more.
    assert!(times[100] < Duration::from_millis(20), "{:?}", times[100]);
}

/// A tunnel outlives hyper's connection and keeps its place among the open ones.
#[tokio::test]
async fn a_switched_connection_is_a_tunnel_and_counted_as_open() {
    let server = TestServer::start(config());
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /tunnel HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: words\r\n\r\n")
        .await
        .expect("sent");
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(server.counted(|counters| &counters.open), 1);
    assert_eq!(exchange(&mut stream, "word").await, "word");
    server.until(|counters| &counters.open, 0).await;
}
