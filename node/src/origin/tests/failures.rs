//! Endpoints that are away, slow, or say what is no response.

use std::time::Instant;

use super::super::{BodyError, ErrorKind, HEAD_BYTES_MAX, HEADER_COUNT_MAX};
use super::*;

/// An address at which nobody listens.
async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address")
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over() {
    let server = RawOrigin::answering(OK).await;
    let origin = origin(config(&[nobody().await, server.address]));
    for _ in 0..4 {
        let forwarded = origin.send(post("/", "content")).await.expect("an answer");
        assert_eq!(&*forwarded.endpoint.name(), server.address.to_string());
        text(forwarded).await;
    }
    let counts = origin.snapshot().endpoints[0].counts.clone();
    assert!(matches!(counts.errors[..], [(ErrorKind::ConnectRefused, 1..=4)]), "{counts:?}");
}

#[tokio::test]
async fn each_endpoint_is_tried_once() {
    let origin = origin(config(&[nobody().await, nobody().await, nobody().await]));
    let error = refusal(&origin, get("/")).await;
    assert!(matches!(error, ForwardError::ConnectRefused { .. }), "{error}");
    assert_eq!((error.status().as_u16(), error.is_retryable()), (502, true));
    for endpoint in origin.snapshot().endpoints {
        assert_eq!((endpoint.counts.requests, endpoint.pool.open), (1, 0));
    }
}

#[tokio::test]
async fn an_endpoint_without_an_address_is_passed_over() {
    let server = RawOrigin::answering(OK).await;
    let mut config = config(&[server.address]);
    config.endpoints.insert(0, endpoint("no-such-name.invalid", 80, false));
    let origin = origin(config);
    assert_eq!(text(origin.send(get("/")).await.expect("an answer")).await, "ok");
    let errors = &origin.snapshot().endpoints[0].counts.errors;
    assert!(matches!(errors[..], [(ErrorKind::Dns | ErrorKind::ConnectTimeout, 1)]), "{errors:?}");
}

#[tokio::test]
async fn connecting_has_an_end_and_the_next_endpoint_is_tried() {
    let hanging = RawOrigin::start(|mut connection, _| async move { connection.closed().await }).await;
    let ca = tls::Authority::new();
    let server = ca.server("127.0.0.1", &[], OK).await;
    let config = OriginConfig {
        connect_timeout: Duration::from_millis(200),
        endpoints: vec![endpoint("127.0.0.1", hanging.address.port(), true)],
        tls_ca: Some(ca.file()),
        ..config(&[])
    };
    let alone = origin(config.clone());
    let error = refusal(&alone, get("/")).await;
    assert!(matches!(error, ForwardError::ConnectTimeout { .. }), "{error}");
    assert_eq!((error.status().as_u16(), error.is_retryable()), (504, true));
    until("it is free", || open(&alone) == 0).await;

    let mut endpoints = config.endpoints.clone();
    endpoints.push(endpoint("127.0.0.1", server.port(), true));
    let both = origin(OriginConfig { endpoints, ..config });
    assert_eq!(text(both.send(get("/")).await.expect("an answer")).await, "ok");
}

#[tokio::test]
async fn the_head_of_a_response_has_a_deadline() {
    let server = RawOrigin::start(|mut connection, _| async move {
        connection.request().await;
        connection.closed().await;
    })
    .await;
    let origin = origin(OriginConfig { response_timeout: Duration::from_millis(50), ..config(&[server.address]) });
    let error = refusal(&origin, get("/")).await;
    assert!(matches!(error, ForwardError::ResponseTimeout { .. }), "{error}");
    assert_eq!((error.status().as_u16(), error.is_retryable()), (504, false));
    until("it is closed", || open(&origin) == 0).await;
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn half_a_head_has_the_same_deadline() {
    let server = RawOrigin::start(|mut connection, _| async move {
        connection.request().await;
        connection.write("HTTP/1.1 200 OK\r\ncontent-le").await;
        connection.closed().await;
    })
    .await;
    let origin = origin(OriginConfig { response_timeout: Duration::from_millis(50), ..config(&[server.address]) });
    assert!(matches!(refusal(&origin, get("/")).await, ForwardError::ResponseTimeout { .. }));
}

#[tokio::test]
async fn content_that_stops_coming_has_a_deadline() {
    let server = RawOrigin::start(|mut connection, _| async move {
        connection.request().await;
        connection.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        connection.closed().await;
    })
    .await;
    let origin = origin(OriginConfig { body_idle_timeout: Duration::from_millis(50), ..config(&[server.address]) });
    let mut body = origin.send(get("/")).await.expect("an answer").response.into_body();
    assert!(body.frame().await.expect("a frame").is_ok());
    let error = body.frame().await.expect("an error").expect_err("no content");
    assert!(matches!(error, BodyError::Timeout { .. }), "{error}");
    assert!(body.frame().await.is_none(), "an error is the last thing");
    until("it is closed", || open(&origin) == 0).await;
    assert_eq!(origin.snapshot().endpoints[0].counts.errors, [(ErrorKind::BodyTimeout, 1)]);
}

#[tokio::test]
async fn each_chunk_has_a_deadline_of_its_own() {
    let server = RawOrigin::start(|mut connection, _| async move {
        connection.request().await;
        connection.write("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n").await;
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            connection.write("x").await;
        }
        connection.closed().await;
    })
    .await;
    let origin = origin(OriginConfig { body_idle_timeout: Duration::from_millis(250), ..config(&[server.address]) });
    assert_eq!(text(origin.send(get("/")).await.expect("an answer")).await, "xxxxxxxx");
}

#[tokio::test]
async fn a_slow_reader_is_no_slow_origin() {
    let server = RawOrigin::start(|mut connection, _| async move {
        connection.request().await;
        connection.write("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        connection.write("half").await;
        connection.closed().await;
    })
    .await;
    let origin = origin(OriginConfig { body_idle_timeout: Duration::from_millis(100), ..config(&[server.address]) });
    let mut body = origin.send(get("/")).await.expect("an answer").response.into_body();
    assert!(body.frame().await.expect("a frame").is_ok());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(body.collect().await.expect("the rest").to_bytes(), "half");
}

#[tokio::test]
async fn content_that_is_cut_off_is_an_error() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nxyz\r\n",
    ] {
        let server = RawOrigin::start(move |mut connection, _| async move {
            connection.request().await;
            connection.write(answer).await;
        })
        .await;
        let origin = origin(config(&[server.address]));
        let forwarded = origin.send(get("/")).await.expect("an answer");
        let error = forwarded.response.into_body().collect().await.expect_err("it is cut off");
        assert!(matches!(error, BodyError::Cut { .. }), "{error}");
        until("it is closed", || open(&origin) == 0).await;
        assert_eq!(idle(&origin), 0);
    }
}

#[tokio::test]
async fn what_is_no_response_is_a_bad_response() {
    let long = Box::leak(
        format!("HTTP/1.1 200 OK\r\nlong: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(HEAD_BYTES_MAX))
            .into_boxed_str(),
    );
    let many = Box::leak(
        format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "a: b\r\n".repeat(HEADER_COUNT_MAX)).into_boxed_str(),
    );
    let both = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok";
    for answer in ["SSH-2.0-OpenSSH_9.6\r\n\r\n", "HTTP/1.1 20x OK\r\n\r\n", both, long, many] {
        let server = RawOrigin::answering(answer).await;
        let origin = origin(config(&[server.address]));
        let error = refusal(&origin, get("/")).await;
        assert!(matches!(error, ForwardError::BadResponse { .. }), "{error:?}");
        assert_eq!((error.status().as_u16(), error.is_retryable()), (502, false));
        until("it is closed", || open(&origin) == 0).await;
    }
}

#[tokio::test]
async fn switching_protocols_is_an_error() {
    let server =
        RawOrigin::answering("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n").await;
    let origin = origin(config(&[server.address]));
    let error = refusal(&origin, get("/")).await;
    assert!(matches!(error, ForwardError::UnexpectedUpgrade { .. }), "{error}");
    until("it is closed", || open(&origin) == 0).await;
}

#[tokio::test]
async fn switching_protocols_that_was_asked_for_passes_and_counts_until_its_end() {
    let server = RawOrigin::start(|mut connection, _| async move {
        connection.request().await;
        connection.write("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n").await;
        connection.more().await;
        let said = String::from_utf8(std::mem::take(&mut connection.read)).expect("text");
        connection.write(&said).await;
        connection.closed().await;
    })
    .await;
    let origin = origin(config(&[server.address]));
    let mut request = get("/");
    request.headers_mut().insert("upgrade", "x".parse().expect("a value"));
    request.headers_mut().insert("connection", "upgrade".parse().expect("a value"));
    let mut response = origin.send(request).await.expect("an answer").response;
    assert_eq!(response.status(), http::StatusCode::SWITCHING_PROTOCOLS);
    let upgrade = response.extensions_mut().remove::<hyper::upgrade::OnUpgrade>().expect("an upgrade");
    drop(response);
    let mut tunnel = hyper_util::rt::TokioIo::new(upgrade.await.expect("a tunnel"));
    tunnel.write_all(b"hello").await.expect("written");
    let mut echo = [0; 5];
    tunnel.read_exact(&mut echo).await.expect("an echo");
    assert_eq!((&echo, open(&origin), idle(&origin)), (b"hello", 1, 0));
    drop(tunnel);
    until("it is closed", || open(&origin) == 0).await;
}

#[tokio::test]
async fn informational_responses_are_passed_over() {
    let server = RawOrigin::answering(
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    let origin = origin(config(&[server.address]));
    assert_eq!(text(origin.send(get("/")).await.expect("an answer")).await, "ok");
}

#[tokio::test]
async fn an_endpoint_that_takes_nothing_has_a_deadline() {
    let server = RawOrigin::start(|connection, _| async move {
        tokio::time::sleep(Duration::from_secs(30)).await;
        drop(connection);
    })
    .await;
    let origin = origin(OriginConfig { body_idle_timeout: Duration::from_millis(200), ..config(&[server.address]) });
    let mut request = post("/", "");
    *request.body_mut() = ForwardBody::streamed(Produced::new(1 << 30, 1 << 20));
    let begun = Instant::now();
    let error = refusal(&origin, request).await;
    assert!(matches!(error, ForwardError::WriteStalled { .. }), "{error:?}");
    assert_eq!(error.status().as_u16(), 504);
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_long_upload_is_no_slow_answer() {
    let server = RawOrigin::answering(OK).await;
    let origin = origin(OriginConfig { response_timeout: Duration::from_millis(200), ..config(&[server.address]) });
    let mut request = post("/", "");
    *request.body_mut() = ForwardBody::streamed(Produced { pause: Duration::from_millis(50), ..Produced::new(10, 1) });
    request.headers_mut().insert("content-length", 10.into());
    assert_eq!(text(origin.send(request).await.expect("an answer")).await, "ok");
}

#[tokio::test]
async fn content_of_the_client_that_fails_is_not_the_origins_fault() {
    let server = RawOrigin::answering(OK).await;
    let origin = origin(config(&[server.address]));
    let mut request = post("/", "");
    *request.body_mut() = ForwardBody::streamed(Produced { fails: true, ..Produced::new(3, 1) });
    let error = refusal(&origin, request).await;
    assert!(matches!(error, ForwardError::RequestBody { .. }), "{error:?}");
    assert_eq!(error.status().as_u16(), 400);
    until("it is closed", || open(&origin) == 0).await;
}

#[tokio::test]
async fn a_tunnel_is_not_forwarded() {
    let server = RawOrigin::answering(OK).await;
    let origin = origin(config(&[server.address]));
    let mut request = get("/");
    *request.method_mut() = Method::CONNECT;
    let error = refusal(&origin, request).await;
    assert!(matches!(error, ForwardError::Unsendable { .. }), "{error}");
    assert_eq!((server.requests(), idle(&origin)), (0, 1));
}

/// A breaker: what is beyond the bound is refused at once, and the bound is free again when a content has been read.
#[tokio::test]
async fn no_more_requests_are_under_way_than_the_origin_is_given() {
    let server = RawOrigin::answering("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhalf").await;
    let origin = origin(OriginConfig { requests_max: 2, ..config(&[server.address]) });
    let first = origin.send(get("/")).await.expect("an answer");
    // A content that has come whole is not under way any more; this one has not been read.
    let held = origin.send(get("/")).await.expect("an answer");
    let error = refusal(&origin, get("/")).await;
    assert!(matches!(error, ForwardError::Overloaded { limit: 2, .. }), "{error:?}");
    assert_eq!((error.status().as_u16(), error.as_detail()), (503, "overloaded"));
    assert!(error.retry_after().is_some());
    assert_eq!(text(first).await, "half");
    let third = origin.send(get("/")).await.expect("there is room again");
    drop(held);
    let fourth = origin.send(get("/")).await.expect("there is room again");
    drop((third, fourth));
    assert_eq!(origin.snapshot().requests_limit, Some(2));
}
