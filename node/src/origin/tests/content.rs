//! Content in both directions.

use super::*;

const LARGE: usize = 64 << 20;

#[tokio::test]
async fn trailers_pass() {
    let server = RawOrigin::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: digest\r\n\r\n2\r\nok\r\n0\r\ndigest: abc\r\n\r\n",
    )
    .await;
    let origin = origin(config(&[server.address]));
    for _ in 0..2 {
        let collected =
            origin.send(get("/")).await.expect("an answer").response.into_body().collect().await.expect("content");
        assert_eq!(collected.trailers().expect("trailers")["digest"], "abc");
    }
    assert_eq!(server.accepted(), 1);
}

/// What the reader does not take is not sent for: buffers on the way are small against the content.
#[tokio::test]
async fn a_large_response_is_paced_by_its_reader() {
    let sent = Arc::new(AtomicUsize::new(0));
    let sent_here = Arc::clone(&sent);
    let server = RawOrigin::start(move |mut connection, _| {
        let sent = Arc::clone(&sent_here);
        async move {
            connection.request().await;
            connection.write(&format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")).await;
            let chunk = vec![b'x'; 1 << 16];
            while sent.load(SeqCst) < LARGE && connection.stream.write_all(&chunk).await.is_ok() {
                sent.fetch_add(chunk.len(), SeqCst);
            }
            connection.closed().await;
        }
    })
    .await;
    let origin = origin(config(&[server.address]));
    let mut body = origin.send(get("/")).await.expect("an answer").response.into_body();
    assert!(body.frame().await.expect("a frame").is_ok());
    // Until nothing moves any more.
    let mut before = usize::MAX;
    while before != sent.load(SeqCst) {
        before = sent.load(SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(before < LARGE / 4, "{before} bytes were sent to a reader that stands still");
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let data = frame.expect("content").into_data().expect("data");
        assert!(data.len() <= 1 << 18);
        read += data.len();
    }
    assert!(read > LARGE - (1 << 18) && read < LARGE);
    assert_eq!(idle(&origin), 1);
}

#[tokio::test]
async fn a_large_request_streams() {
    let received = Arc::new(AtomicUsize::new(0));
    let received_here = Arc::clone(&received);
    let server = RawOrigin::start(move |mut connection, _| {
        let received = Arc::clone(&received_here);
        async move {
            connection.head().await;
            while received.fetch_add(connection.read.len(), SeqCst) + connection.read.len() < LARGE {
                connection.read.clear();
                connection.more().await;
            }
            connection.write(OK).await;
            connection.closed().await;
        }
    })
    .await;
    let origin = origin(config(&[server.address]));
    let mut request = post("/", "");
    *request.body_mut() = ForwardBody::streamed(Produced::new(LARGE, 1 << 16));
    request.headers_mut().insert("content-length", LARGE.into());
    assert_eq!(text(origin.send(request).await.expect("an answer")).await, "ok");
    assert_eq!(received.load(SeqCst), LARGE);
    assert_eq!(idle(&origin), 1);
}

/// RFC 9112 §9.3: the connection is usable only when both messages are complete.
#[tokio::test]
async fn a_response_before_the_end_of_the_request_does_not_keep_the_connection_early() {
    let server = RawOrigin::start(|mut connection, _| async move {
        connection.head().await;
        connection.write(OK).await;
        connection.closed().await;
    })
    .await;
    let origin = origin(config(&[server.address]));
    let mut request = post("/", "");
    *request.body_mut() = ForwardBody::streamed(Produced { pause: Duration::from_millis(20), ..Produced::new(10, 1) });
    request.headers_mut().insert("content-length", 10.into());
    assert_eq!(text(origin.send(request).await.expect("an answer")).await, "ok");
    assert_eq!((idle(&origin), open(&origin)), (0, 1));
    until("the request has been sent", || idle(&origin) == 1).await;
}

#[tokio::test]
async fn an_empty_stream_is_no_content() {
    assert!(ForwardBody::streamed(http_body_util::Empty::new()).may_be_resent());
    assert!(!ForwardBody::streamed(http_body_util::Full::from("content")).may_be_resent());
}
