//! HTTP/2 to an endpoint: over TLS by ALPN, over plaintext with prior knowledge.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Semaphore;

use super::super::HEADER_COUNT_MAX;
use super::tls::Authority;
use super::*;

/// An endpoint that speaks nothing but HTTP/2.
struct Http2Origin {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    /// Requests being served, and the most there were.
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    /// Each answer takes one permit.
    gate: Arc<Semaphore>,
    /// Lets the connections end when their streams have ended.
    end: Arc<tokio::sync::Notify>,
}

impl Http2Origin {
    async fn start(tls: Option<tokio_rustls::TlsAcceptor>, streams_max: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let this = Self {
            address: listener.local_addr().expect("an address"),
            accepted: Arc::default(),
            now: Arc::default(),
            most: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            end: Arc::default(),
        };
        let (accepted, end) = (Arc::clone(&this.accepted), Arc::clone(&this.end));
        let (now, most, gate) = (Arc::clone(&this.now), Arc::clone(&this.most), Arc::clone(&this.gate));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, SeqCst);
                let (tls, end) = (tls.clone(), Arc::clone(&end));
                let (now, most, gate) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&gate));
                let service = hyper::service::service_fn(move |request| {
                    serve(request, Arc::clone(&now), Arc::clone(&most), Arc::clone(&gate))
                });
                tokio::spawn(async move {
                    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    builder.max_concurrent_streams(streams_max).max_header_list_size(1 << 20);
                    let io: Box<dyn Io> = match tls {
                        Some(tls) => Box::new(tls.accept(stream).await.expect("a handshake")),
                        None => Box::new(stream),
                    };
                    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
                    tokio::select! {
                        _ = connection.as_mut() => {}
                        () = end.notified() => {
                            connection.as_mut().graceful_shutdown();
                            let _ = connection.await;
                        }
                    }
                });
            }
        });
        this
    }

    fn accepted(&self) -> usize {
        self.accepted.load(SeqCst)
    }
}

trait Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Io for T {}

type Answer = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, std::io::Error>;

async fn serve(
    request: Request<Incoming>,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
) -> Result<Response<Answer>, std::io::Error> {
    assert_eq!(request.version(), Version::HTTP_2);
    assert!(!request.headers().contains_key("host"));
    most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
    gate.acquire().await.expect("open").forget();
    now.fetch_sub(1, SeqCst);
    let (head, content) = request.into_parts();
    let content = content.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let seen = format!("{} {}", head.uri, content.len());
    let whole = |text: String| Full::from(text).map_err(|never| match never {}).boxed_unsync();
    Ok(match head.uri.path() {
        "/trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("digest", HeaderValue::from_static("abc"));
            Response::new(
                Full::from("ok")
                    .map_err(|never| match never {})
                    .with_trailers(async move { Some(Ok(trailers)) })
                    .boxed_unsync(),
            )
        }
        "/many" => {
            let mut response = Response::new(whole(seen));
            for number in 0..=HEADER_COUNT_MAX {
                response.headers_mut().insert(HeaderName::try_from(format!("a-{number}")).expect("a name"), 1.into());
            }
            response
        }
        "/long" => Response::builder().header("long", "x".repeat(70_000)).body(whole(seen)).expect("a response"),
        "/large" => Response::new(Produced::new(16 << 20, 1 << 14).boxed_unsync()),
        _ => Response::builder().status(StatusCode::OK).body(whole(seen)).expect("a response"),
    })
}

fn plain(server: &Http2Origin) -> OriginConfig {
    OriginConfig { http2: Http2::Always, ..config(&[server.address]) }
}

fn spawn_get(origin: &Arc<Origin>, path: &str) -> tokio::task::JoinHandle<Result<String, ForwardError>> {
    let (origin, request) = (Arc::clone(origin), get(path));
    tokio::spawn(async move { Ok(text(origin.send(request).await?).await) })
}

#[tokio::test]
async fn prior_knowledge_shares_one_connection_from_the_start() {
    let server = Http2Origin::start(None, 200).await;
    let origin = origin(plain(&server));
    let requests: Vec<_> = (0..50).map(|_| spawn_get(&origin, "/a?b=1")).collect();
    until("all are there at once", || server.now.load(SeqCst) == 50).await;
    assert_eq!(origin.snapshot().endpoints[0].pool.streams, 50);
    server.gate.add_permits(50);
    for request in requests {
        assert_eq!(request.await.expect("no panic").expect("an answer"), "http://shop.test/a?b=1 0");
    }
    assert_eq!((server.accepted(), open(&origin), idle(&origin)), (1, 1, 1));
}

#[tokio::test]
async fn tls_agrees_on_http2_by_alpn_and_shares_the_connection() {
    let ca = Authority::new();
    let server = Http2Origin::start(Some(ca.acceptor("127.0.0.1", &[b"h2", b"http/1.1"])), 200).await;
    let origin = origin(OriginConfig {
        endpoints: vec![endpoint("127.0.0.1", server.address.port(), true)],
        tls_ca: Some(ca.file()),
        host_header: HostHeader::Endpoint,
        ..config(&[])
    });
    server.gate.add_permits(1);
    let first = origin.send(get("/")).await.expect("an answer");
    assert_eq!((first.response.version(), first.reused), (Version::HTTP_2, false));
    text(first).await;
    let requests: Vec<_> = (0..20).map(|_| spawn_get(&origin, "/")).collect();
    until("all are there at once", || server.now.load(SeqCst) == 20).await;
    server.gate.add_permits(20);
    for request in requests {
        assert_eq!(request.await.expect("no panic").expect("an answer"), format!("https://{}/ 0", server.address));
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn never_means_http1_although_the_endpoint_could() {
    let ca = Authority::new();
    let server = ca.server("127.0.0.1", &[b"h2", b"http/1.1"], "ok").await;
    let origin = origin(OriginConfig {
        endpoints: vec![endpoint("127.0.0.1", server.port(), true)],
        tls_ca: Some(ca.file()),
        http2: Http2::Never,
        ..config(&[])
    });
    let forwarded = origin.send(get("/")).await.expect("an answer");
    assert_eq!(forwarded.response.version(), Version::HTTP_11);
}

/// RFC 9113 §5.1.2: an endpoint bounds its streams; we wait rather than be refused.
#[tokio::test]
async fn the_endpoints_bound_of_streams_is_kept() {
    let server = Http2Origin::start(None, 2).await;
    let origin = origin(OriginConfig { connections_max: 1, ..plain(&server) });
    server.gate.add_permits(1);
    text(origin.send(get("/")).await.expect("an answer")).await;
    server.most.store(0, SeqCst);
    let requests: Vec<_> = (0..6).map(|_| spawn_get(&origin, "/")).collect();
    until("two are there, the others wait", || server.now.load(SeqCst) == 2).await;
    server.gate.add_permits(6);
    for request in requests {
        request.await.expect("no panic").expect("an answer");
    }
    assert_eq!((server.most.load(SeqCst), server.accepted(), waiting(&origin)), (2, 1, 0));
}

#[tokio::test]
async fn streams_beyond_the_bound_of_one_connection_go_to_the_next() {
    let server = Http2Origin::start(None, 500).await;
    let origin = origin(OriginConfig { queue_max: 500, ..plain(&server) });
    let requests: Vec<_> = (0..150).map(|_| spawn_get(&origin, "/")).collect();
    until("all are there", || server.now.load(SeqCst) == 150).await;
    server.gate.add_permits(150);
    for request in requests {
        request.await.expect("no panic").expect("an answer");
    }
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn trailers_and_content_pass_both_ways() {
    let server = Http2Origin::start(None, 10).await;
    let origin = origin(plain(&server));
    server.gate.add_permits(10);
    let collected =
        origin.send(get("/trailers")).await.expect("an answer").response.into_body().collect().await.expect("content");
    assert_eq!(collected.trailers().expect("trailers")["digest"], "abc");
    let mut request = post("/a", "");
    *request.body_mut() = ForwardBody::streamed(Produced::new(8 << 20, 1 << 16));
    let sent = text(origin.send(request).await.expect("an answer")).await;
    assert_eq!(sent, format!("http://shop.test/a {}", 8 << 20));
}

#[tokio::test]
async fn a_reader_that_stops_ends_its_stream_alone() {
    let server = Http2Origin::start(None, 10).await;
    let origin = origin(OriginConfig { connections_max: 1, ..plain(&server) });
    server.gate.add_permits(10);
    for _ in 0..5 {
        let mut body = origin.send(get("/large")).await.expect("an answer").response.into_body();
        assert!(body.frame().await.expect("a frame").is_ok());
    }
    assert_eq!(origin.snapshot().endpoints[0].pool.streams, 0);
    text(origin.send(get("/")).await.expect("an answer")).await;
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_dropped_request_gives_its_stream_back() {
    let server = Http2Origin::start(None, 10).await;
    let origin = origin(plain(&server));
    let request = spawn_get(&origin, "/");
    until("it is there", || server.now.load(SeqCst) == 1).await;
    request.abort();
    until("the stream is free", || origin.snapshot().endpoints[0].pool.streams == 0).await;
    assert_eq!(open(&origin), 1);
}

#[tokio::test]
async fn a_connection_that_ends_is_replaced() {
    let server = Http2Origin::start(None, 10).await;
    let origin = origin(plain(&server));
    server.gate.add_permits(10);
    text(origin.send(get("/")).await.expect("an answer")).await;
    server.end.notify_waiters();
    until("it is closed", || open(&origin) == 0).await;
    assert!(!origin.send(get("/")).await.expect("an answer").reused);
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn heads_beyond_the_limits_are_bad_responses() {
    let server = Http2Origin::start(None, 10).await;
    let origin = origin(plain(&server));
    server.gate.add_permits(10);
    let many = refusal(&origin, get("/many")).await;
    assert!(matches!(many, ForwardError::TooManyFields { .. }), "{many:?}");
    let long = refusal(&origin, get("/long")).await;
    assert!(matches!(long, ForwardError::BadResponse { .. }), "{long:?}");
    text(origin.send(get("/")).await.expect("an answer")).await;
}

#[tokio::test]
async fn content_of_the_client_that_fails_ends_its_stream_alone() {
    let server = Http2Origin::start(None, 10).await;
    let origin = origin(plain(&server));
    server.gate.add_permits(10);
    text(origin.send(get("/")).await.expect("an answer")).await;
    let mut request = post("/", "");
    *request.body_mut() = ForwardBody::streamed(Produced { fails: true, ..Produced::new(3, 1) });
    let error = refusal(&origin, request).await;
    assert!(matches!(error, ForwardError::RequestBody { .. }), "{error:?}");
    text(origin.send(get("/")).await.expect("an answer")).await;
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn an_endpoint_that_speaks_http1_is_an_error() {
    let server = RawOrigin::answering(OK).await;
    let origin = origin(OriginConfig { http2: Http2::Always, ..config(&[server.address]) });
    let error = refusal(&origin, get("/")).await;
    assert_eq!(error.status().as_u16(), 502, "{error:?}");
    until("it is closed", || open(&origin) == 0).await;
}

/// An endpoint that does with its first connection what the test says, and answers on the later ones.
async fn refusing_first<F, S>(first: F) -> SocketAddr
where
    F: Fn(TcpStream) -> S + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        tokio::spawn(first(stream));
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let mut content = request.into_body();
                        while let Some(Ok(_)) = content.data().await {}
                        let mut sent = respond.send_response(Response::new(()), false).expect("a head");
                        sent.send_data(bytes::Bytes::from_static(b"ok"), true).expect("a content");
                    });
                }
            });
        }
    });
    address
}

fn full_post() -> Request<ForwardBody> {
    let content = ForwardBody::full(bytes::Bytes::from_static(b"content"));
    Request::builder().method(Method::POST).uri("/").header("host", "shop.test").body(content).expect("a request")
}

/// RFC 9113 §8.7: what the endpoint has not looked at is sent again, also what is not idempotent.
#[tokio::test]
async fn a_stream_that_was_refused_is_sent_again() {
    let address = refusing_first(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        }
    })
    .await;
    let origin = origin(OriginConfig { http2: Http2::Always, ..config(&[address]) });
    assert_eq!(text(origin.send(full_post()).await.expect("an answer")).await, "ok");
    assert_eq!(origin.snapshot().endpoints[0].counts.retries, 1);
}

#[tokio::test]
async fn a_request_that_the_endpoint_went_away_before_is_sent_again() {
    let address = refusing_first(|mut stream| async move {
        let mut read = vec![0; 4096];
        // Preface, settings and the head of the request, as far as they have come.
        let _ = stream.read(&mut read).await;
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let go_away = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let _ = stream.write_all(&[&settings[..], &go_away[..]].concat()).await;
        while stream.read(&mut read).await.is_ok_and(|count| count > 0) {}
    })
    .await;
    let origin = origin(OriginConfig { http2: Http2::Always, ..config(&[address]) });
    assert_eq!(text(origin.send(full_post()).await.expect("an answer")).await, "ok");
    let counts = origin.snapshot().endpoints[0].counts.clone();
    assert_eq!((counts.retries, counts.connects), (1, 2));
}
