//! Which connection a request gets, who waits, what is kept.

use super::super::ErrorKind;
use super::*;
use tokio::sync::Semaphore;

/// An origin that answers only as often as the semaphore allows, and notes the most connections it had at once.
async fn gated() -> (RawOrigin, Arc<Semaphore>, Arc<parking_lot::Mutex<Vec<String>>>) {
    let gate = Arc::new(Semaphore::new(0));
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let (gate_here, seen_here) = (Arc::clone(&gate), Arc::clone(&seen));
    let server = RawOrigin::start(move |mut connection, _| {
        let (gate, seen) = (Arc::clone(&gate_here), Arc::clone(&seen_here));
        async move {
            while let Some(head) = connection.request().await {
                seen.lock().push(head.split(' ').nth(1).unwrap_or_default().to_owned());
                gate.acquire().await.expect("open").forget();
                connection.write(OK).await;
            }
        }
    })
    .await;
    (server, gate, seen)
}

fn spawn_get(origin: &Arc<Origin>, path: &str) -> tokio::task::JoinHandle<Result<String, ForwardError>> {
    let (origin, request) = (Arc::clone(origin), get(path));
    tokio::spawn(async move { Ok(text(origin.send(request).await?).await) })
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let server = RawOrigin::answering(OK).await;
    let origin = origin(config(&[server.address]));
    let first = origin.send(get("/a")).await.expect("an answer");
    assert!(!first.reused);
    assert_eq!(&*first.endpoint.name(), server.address.to_string());
    assert_eq!(text(first).await, "ok");
    let second = origin.send(get("/b")).await.expect("an answer");
    assert!(second.reused);
    assert_eq!(text(second).await, "ok");
    assert_eq!((server.accepted(), server.requests(), idle(&origin)), (1, 2, 1));
    let counts = origin.snapshot().endpoints[0].counts.clone();
    assert_eq!((counts.requests, counts.reused, counts.connects), (2, 1, 1));
}

#[tokio::test]
async fn responses_without_content_keep_the_connection() {
    for answer in [
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ] {
        let server = RawOrigin::answering(answer).await;
        let origin = origin(config(&[server.address]));
        for _ in 0..3 {
            // Not even read: there is nothing to read.
            drop(origin.send(get("/")).await.expect("an answer"));
        }
        assert_eq!(server.accepted(), 1, "{answer}");
    }
}

#[tokio::test]
async fn a_connection_comes_back_with_the_last_byte_that_was_read() {
    let server = RawOrigin::answering(OK).await;
    let origin = origin(config(&[server.address]));
    let mut body = origin.send(get("/")).await.expect("an answer").response.into_body();
    let frame = body.frame().await.expect("a frame").expect("content");
    assert_eq!(frame.into_data().expect("data"), "ok");
    assert_eq!(idle(&origin), 1, "before the reader asks for the end");
    drop(body);
    assert_eq!(idle(&origin), 1);
}

#[tokio::test]
async fn no_more_than_connections_max_are_open() {
    let (server, gate, _) = gated().await;
    let origin = origin(OriginConfig { connections_max: 3, ..config(&[server.address]) });
    let requests: Vec<_> = (0..20).map(|_| spawn_get(&origin, "/")).collect();
    until("17 wait", || waiting(&origin) == 17).await;
    until("3 are there", || server.requests() == 3).await;
    gate.add_permits(20);
    for request in requests {
        assert_eq!(request.await.expect("no panic").expect("an answer"), "ok");
    }
    assert_eq!((server.accepted(), open(&origin), waiting(&origin)), (3, 3, 0));
    let counts = origin.snapshot().endpoints[0].counts.clone();
    assert_eq!(counts.wait_buckets.iter().sum::<u64>(), 17);
}

#[tokio::test]
async fn who_waits_is_served_in_order() {
    let (server, gate, seen) = gated().await;
    let origin = origin(OriginConfig { connections_max: 1, ..config(&[server.address]) });
    let mut requests = Vec::new();
    for place in 0..6 {
        requests.push(spawn_get(&origin, &format!("/{place}")));
        until("it is in its place", || server.requests() == 1 && waiting(&origin) == place).await;
    }
    gate.add_permits(6);
    for request in requests {
        request.await.expect("no panic").expect("an answer");
    }
    assert_eq!(*seen.lock(), ["/0", "/1", "/2", "/3", "/4", "/5"]);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let (server, gate, _) = gated().await;
    let origin = origin(OriginConfig { connections_max: 1, queue_max: 1, ..config(&[server.address]) });
    let (first, second) = (spawn_get(&origin, "/"), spawn_get(&origin, "/"));
    until("one is served, one waits", || server.requests() == 1 && waiting(&origin) == 1).await;
    let error = refusal(&origin, get("/")).await;
    assert!(matches!(error, ForwardError::QueueFull { queue_max: 1, .. }), "{error}");
    assert_eq!((error.status().as_u16(), error.as_detail()), (503, "queue-full"));
    assert!(error.retry_after().is_some());
    gate.add_permits(2);
    first.await.expect("no panic").expect("an answer");
    second.await.expect("no panic").expect("an answer");
}

#[tokio::test]
async fn waiting_has_an_end() {
    let (server, gate, _) = gated().await;
    let origin = origin(OriginConfig {
        connections_max: 1,
        queue_timeout: Duration::from_millis(50),
        ..config(&[server.address])
    });
    let first = spawn_get(&origin, "/");
    until("one is served", || server.requests() == 1).await;
    let error = refusal(&origin, get("/")).await;
    assert!(matches!(error, ForwardError::QueueTimeout { .. }), "{error}");
    assert_eq!((error.status().as_u16(), waiting(&origin)), (503, 0));
    assert_eq!(origin.snapshot().endpoints[0].counts.errors, [(ErrorKind::QueueTimeout, 1)]);
    gate.add_permits(1);
    first.await.expect("no panic").expect("an answer");
}

#[tokio::test]
async fn a_request_that_is_dropped_in_the_queue_leaves_it() {
    let (server, gate, seen) = gated().await;
    let origin = origin(OriginConfig { connections_max: 1, ..config(&[server.address]) });
    let first = spawn_get(&origin, "/first");
    until("one is served", || server.requests() == 1).await;
    let dropped = spawn_get(&origin, "/dropped");
    until("one waits", || waiting(&origin) == 1).await;
    let last = spawn_get(&origin, "/last");
    until("two wait", || waiting(&origin) == 2).await;
    dropped.abort();
    until("one waits", || waiting(&origin) == 1).await;
    gate.add_permits(2);
    first.await.expect("no panic").expect("an answer");
    last.await.expect("no panic").expect("an answer");
    assert_eq!(*seen.lock(), ["/first", "/last"]);
}

#[tokio::test]
async fn a_request_that_is_dropped_before_its_answer_frees_the_capacity() {
    let (server, gate, _) = gated().await;
    let origin = origin(OriginConfig { connections_max: 1, ..config(&[server.address]) });
    let dropped = spawn_get(&origin, "/");
    until("it is there", || server.requests() == 1).await;
    let second = spawn_get(&origin, "/");
    until("one waits", || waiting(&origin) == 1).await;
    dropped.abort();
    until("the second is there", || server.requests() == 2).await;
    assert_eq!((server.accepted(), open(&origin)), (2, 1));
    gate.add_permits(2);
    second.await.expect("no panic").expect("an answer");
}

#[tokio::test]
async fn a_request_that_is_dropped_while_connecting_frees_the_capacity() {
    // Accepts and never says hello: the TLS handshake hangs.
    let server = RawOrigin::start(|mut connection, _| async move { connection.closed().await }).await;
    let ca = tls::Authority::new();
    let origin = origin(OriginConfig {
        connections_max: 1,
        endpoints: vec![endpoint("127.0.0.1", server.address.port(), true)],
        tls_ca: Some(ca.file()),
        ..config(&[])
    });
    let request = spawn_get(&origin, "/");
    until("it connects", || server.accepted() == 1).await;
    assert_eq!(open(&origin), 1);
    request.abort();
    until("it is free", || open(&origin) == 0).await;
}

#[tokio::test]
async fn content_that_is_not_read_to_its_end_closes_the_connection() {
    let server = RawOrigin::answering("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    let origin = origin(OriginConfig { connections_max: 1, ..config(&[server.address]) });
    let mut body = origin.send(get("/")).await.expect("an answer").response.into_body();
    assert_eq!(body.frame().await.expect("a frame").expect("content").into_data().expect("data"), "half");
    drop(body);
    let second = origin.send(get("/")).await.expect("an answer");
    assert!(!second.reused);
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn surplus_bytes_close_the_connection() {
    let server = RawOrigin::answering(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
    )
    .await;
    let origin = origin(config(&[server.address]));
    for _ in 0..3 {
        assert_eq!(text(origin.send(get("/")).await.expect("an answer")).await, "ok");
    }
    assert_eq!(server.accepted(), 3);
}

#[tokio::test]
async fn surplus_bytes_that_come_later_close_the_connection() {
    let server = RawOrigin::start(|mut connection, _| async move {
        while connection.request().await.is_some() {
            connection.write(OK).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            connection.write(OK).await;
        }
    })
    .await;
    let origin = origin(config(&[server.address]));
    assert_eq!(text(origin.send(get("/")).await.expect("an answer")).await, "ok");
    until("it is closed", || open(&origin) == 0).await;
    assert!(!origin.send(get("/")).await.expect("an answer").reused);
}

#[tokio::test]
async fn a_connection_the_endpoint_announces_to_close_is_not_kept() {
    let server = RawOrigin::answering("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
    let origin = origin(config(&[server.address]));
    assert_eq!(text(origin.send(get("/")).await.expect("an answer")).await, "ok");
    until("it is closed", || open(&origin) == 0).await;
    assert_eq!(idle(&origin), 0);
}

#[tokio::test]
async fn idle_connections_are_closed_when_their_time_has_come() {
    let server = RawOrigin::answering(OK).await;
    let origins =
        Arc::new(origins(OriginConfig { idle_timeout: Duration::from_millis(30), ..config(&[server.address]) }));
    let origin = origins.get("api").expect("it is there");
    text(origin.send(get("/")).await.expect("an answer")).await;
    assert_eq!(open(&origin), 1);
    let reaper = tokio::spawn(async move { origins.tend().await });
    until("it is closed", || open(&origin) == 0).await;
    reaper.abort();
}

#[tokio::test]
async fn after_close_nothing_is_kept_and_requests_are_still_sent() {
    let server = RawOrigin::answering(OK).await;
    let origins = origins(config(&[server.address]));
    let origin = origins.get("api").expect("it is there");
    text(origin.send(get("/")).await.expect("an answer")).await;
    let under_way = origin.send(get("/")).await.expect("an answer");
    origins.close();
    assert_eq!(text(under_way).await, "ok");
    until("it is closed", || open(&origin) == 0).await;
    assert_eq!(text(origin.send(get("/")).await.expect("an answer")).await, "ok");
    until("it is closed", || open(&origin) == 0).await;
}

#[tokio::test]
async fn origins_that_are_dropped_close_their_idle_connections() {
    let ended = Arc::new(AtomicUsize::new(0));
    let ended_here = Arc::clone(&ended);
    let server = RawOrigin::start(move |mut connection, _| {
        let ended = Arc::clone(&ended_here);
        async move {
            connection.request().await;
            connection.write(OK).await;
            connection.closed().await;
            ended.fetch_add(1, SeqCst);
        }
    })
    .await;
    let origin = origin(config(&[server.address]));
    text(origin.send(get("/")).await.expect("an answer")).await;
    drop(origin);
    until("the endpoint sees the end", || ended.load(SeqCst) == 1).await;
}

#[test]
fn threads_share_connections() {
    const THREADS: usize = 4;
    const REQUESTS: usize = 200;
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (address, started) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        runtime().block_on(async {
            let server = RawOrigin::answering(OK).await;
            address.send(server).expect("the test waits for it");
            std::future::pending::<()>().await;
        });
    });
    let server = started.recv().expect("a server");
    let origin = origin(OriginConfig { connections_max: 3, ..config(&[server.address]) });
    let served = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (origin, served) = (Arc::clone(&origin), Arc::clone(&served));
            let serve = async move {
                for _ in 0..REQUESTS {
                    assert_eq!(text(origin.send(get("/")).await.expect("an answer")).await, "ok");
                    served.fetch_add(1, SeqCst);
                }
                // The connections that were opened here serve the other threads until all are done.
                until("all are done", || served.load(SeqCst) == THREADS * REQUESTS).await;
            };
            std::thread::spawn(move || runtime().block_on(serve))
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert_eq!(server.requests(), THREADS * REQUESTS);
    assert!(server.accepted() <= 3, "{} connections", server.accepted());
}
