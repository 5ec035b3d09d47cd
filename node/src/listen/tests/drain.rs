//! The end of serving.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::harness::*;
use crate::config::ListenConfig;

#[tokio::test]
async fn requests_in_flight_finish_and_new_connections_are_refused() {
    let server = TestServer::start(config());
    let address = server.http.expect("an http listener");
    let (mut http2, mut idle) = (server.http2().await, server.connect().await);
    let mut http1 = server.connect().await;
    http1.write_all(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    read_until(&mut idle, "hello").await;
    let waiting = tokio::spawn(http2.send_request(get("/wait")));
    server.entered().await;
    server.entered().await;

    let handler = server.handler.clone();
    let drained = tokio::spawn(server.drained());
    assert_eq!(until_closed(&mut idle).await, "", "an idle connection is closed at once");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    assert!(!drained.is_finished());
    handler.release.add_permits(2);
    let response = waiting.await.expect("no panic").expect("a response");
    assert_eq!(content(response).await, "released");
    let response = until_closed(&mut http1).await;
    assert!(response.ends_with("released") && response.contains("connection: close\r\n"), "{response}");
    assert_eq!(drained.await.expect("no panic").aborted_count, 0);
    assert!(http2.ready().await.is_err() || http2.send_request(get("/")).await.is_err(), "GOAWAY came");
}

#[tokio::test]
async fn a_request_that_does_not_end_is_aborted_at_the_deadline() {
    let server = TestServer::start(ListenConfig { drain_timeout: Duration::from_millis(100), ..config() });
    let mut stream = server.connect().await;
    stream.write_all(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    server.entered().await;
    let context = server.context.clone();
    assert_eq!(server.drained().await.aborted_count, 1);
    assert_eq!(until_closed(&mut stream).await, "");
    assert_eq!(context.counters.open.load(Relaxed), 0);
    assert_eq!(context.counters.drain_aborted.load(Relaxed), 1);
}

/// The handler of an HTTP/2 request runs in a task of its own; it ends with its connection.
#[tokio::test]
async fn an_aborted_http2_connection_ends_its_handlers() {
    let server = TestServer::start(ListenConfig { drain_timeout: Duration::from_millis(100), ..config() });
    let mut http2 = server.http2().await;
    let waiting = tokio::spawn(http2.send_request(get("/wait")));
    server.entered().await;
    let handler = server.handler.clone();
    assert_eq!(server.drained().await.aborted_count, 1);
    reaches(&handler.running, 0).await;
    assert!(waiting.await.expect("no panic").is_err());
}

#[tokio::test]
async fn connections_on_which_nothing_was_asked_do_not_hold_the_drain() {
    let server = TestServer::start(ListenConfig { https: vec!["127.0.0.1:0".parse().expect("one")], ..config() });
    let mut silent = server.connect().await;
    let mut unshaken = TcpStream::connect(server.https.expect("an https listener")).await.expect("connected");
    server.until(|counters| &counters.open, 2).await;
    assert_eq!(server.drained().await.aborted_count, 0);
    assert_eq!(until_closed(&mut silent).await, "");
    assert_eq!(until_closed(&mut unshaken).await, "");
}
